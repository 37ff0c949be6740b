use super::*;
use crate::dockerfile::{node, parse};

fn names(which: &[&str]) -> Which {
    Which::Named(which.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn every_rule_has_a_name_and_is_found_by_it() {
    let mut seen = HashSet::new();
    for rule in Rule::ALL {
        assert_eq!(Rule::named(rule.name()), Some(rule));
        assert!(seen.insert(rule.name()));
        assert!(!rule.description().ends_with('.'));
        // The page is the name with its words parted.
        let Some(url) = rule.url() else { continue };
        let page = url.rsplit('/').nth(1).unwrap_or_default();
        assert_eq!(
            page.replace('-', ""),
            rule.name().to_lowercase(),
            "{rule:?}"
        );
    }
    assert_eq!(Rule::ALL.len(), seen.len());
    assert_eq!(
        Rule::JsonArgsRecommended.url().as_deref(),
        Some("https://docs.docker.com/go/dockerfile/rule/json-args-recommended/")
    );
}

#[test]
fn options_are_read() {
    let some = |skip, experimental, error| {
        Ok(Options {
            skip,
            experimental,
            error,
        })
    };
    let none = || names(&[]);
    for (text, expected) in [
        ("", some(none(), none(), false)),
        ("  ", some(none(), none(), false)),
        ("skip=A", some(names(&["A"]), none(), false)),
        (" skip = A , B,, ", some(names(&["A", "B"]), none(), false)),
        ("skip=all;error=true", some(Which::All, none(), true)),
        ("error=1;skip=A", some(names(&["A"]), none(), true)),
        (
            "skip=A;experimental=all;error=F",
            some(names(&["A"]), Which::All, false),
        ),
        ("experimental=X", some(none(), names(&["X"]), false)),
        ("skip", Err("invalid check option \"skip\"".into())),
        ("skip=A;", Err("invalid check option \"\"".into())),
        ("leave=A", Err("invalid check option \"leave\"".into())),
        (
            "error=perhaps",
            Err("failed to parse check option \"error=perhaps\": true or false is wanted".into()),
        ),
    ] {
        assert_eq!(Options::parse(text), expected, "{text:?}");
    }
    assert_eq!(
        Options::parse_comment("skip=A // not so \"here\""),
        some(names(&["A"]), none(), false)
    );
    let options = Options::parse("skip=UndefinedVar,Undefined;experimental=X").unwrap();
    assert_eq!(options.unknown(), ["Undefined", "X"]);
}

#[test]
fn findings_are_left_out_as_the_options_say() {
    use Rule::*;
    let text = "\
# comment
FROM scratch AS A
# check=skip=MaintainerDeprecated
MAINTAINER a
MAINTAINER b
# check=error=true;skip=StageNameCasing // because
#check=skip=all
FROM scratch AS A
# check=experimental=InvalidDefinitionDescription
# nothing
ARG X
# check = this
ARG Y
";
    let dockerfile = parse(text.as_bytes()).unwrap();
    let select = |options: &str| {
        let options = Options::parse(options).unwrap();
        let (found, fatal) = wanted(
            [dockerfile.findings.clone(), dockerfile.findings.clone()].concat(),
            &options,
            &dockerfile.exceptions,
        );
        let found: Vec<_> = found.iter().map(|f| (f.span.first, f.rule)).collect();
        (found, fatal)
    };
    let (found, fatal) = select("");
    let all = [
        (2, StageNameCasing),
        (5, MaintainerDeprecated),
        (8, DuplicateStageName),
        (11, InvalidDefinitionDescription),
    ];
    assert_eq!(found, all);
    assert_eq!(fatal, ["DuplicateStageName"]);

    let (found, fatal) = select("skip=all");
    assert_eq!(found, all[3..]);
    assert!(fatal.is_empty());

    let (found, fatal) = select("skip=DuplicateStageName,MaintainerDeprecated;error=true");
    assert_eq!(found, [all[0], all[3]]);
    assert_eq!(fatal, ["StageNameCasing", "InvalidDefinitionDescription"]);

    let (found, _) = select("experimental=all");
    assert_eq!(
        found,
        [
            (2, StageNameCasing),
            (2, InvalidDefinitionDescription),
            (5, MaintainerDeprecated),
            (8, DuplicateStageName),
            (11, InvalidDefinitionDescription),
        ]
    );
}

#[test]
fn comments_belong_to_what_is_right_below() {
    let tree = node::parse(
        b"# syntax=x\n# check=skip=all\nFROM a\n# one\n#two \nRUN a\n# lost\n\n# lost\n#\n  # three\nRUN b \\\n# inside\n c\nRUN d\n",
    )
    .unwrap();
    let comments: Vec<_> = tree.nodes.iter().map(|node| &node.comments[..]).collect();
    let expected: [&[&str]; 4] = [&[], &["one", "two"], &["three"], &[]];
    assert_eq!(comments, expected);
}

#[test]
fn secrets_are_known_by_a_word_of_their_name() {
    for (name, expected) in [
        ("TOKEN", true),
        ("github_token", true),
        ("API_KEY", true),
        ("apiKey", true),
        ("DATABASE_PASSWORD", true),
        ("secret_message", true),
        ("AUTH", true),
        ("DB_PSW", true),
        ("AWS_CREDENTIALS_X", true),
        ("TOKENS", false),
        ("MONKEY", false),
        ("KEYBOARD", false),
        ("API-KEY", false),
        ("PUBLIC_KEY", false),
        ("TOKEN_FILE", false),
        ("KEY_VERSION", false),
        ("", false),
    ] {
        assert_eq!(is_secret(name), expected, "{name}");
    }
}

#[test]
fn secrets_are_illegible_and_lines_stay() {
    for (text, expected) in [
        ("FROM a\nENV A=b\n", "FROM a\nENV A=b\n"),
        ("FROM a\nENV TOKEN=x\nRUN y", "FROM a\nENV TOKEN=***\nRUN y"),
        ("FROM a\nenv  TOKEN  x y \n", "FROM a\nenv  TOKEN *** \n"),
        ("ARG TOKEN\nFROM a\n", "ARG TOKEN\nFROM a\n"),
        ("ARG TOKEN=x\nFROM a\n", "ARG TOKEN=***\nFROM a\n"),
        (
            "FROM a\nENV A=1 \\\r\n  # well\n  MY_KEY='x \\\n  y' \\\n\n  B=2\nRUN z\n",
            "FROM a\nENV A=1 \\\r\n  # well\n  MY_KEY=*** \\\n*** \\\n\n***\nRUN z\n",
        ),
        (
            "FROM a\nENV A=1 MY_\\\nKEY=x\n",
            "FROM a\nENV A=1 ***\\\n***\n",
        ),
        ("FROM a\nENV \"TOKEN\"=x\n", "FROM a\nENV \"TOKEN\"***\n"),
        (
            "FROM a\nONBUILD ENV A=b TOKEN=x\n",
            "FROM a\nONBUILD ENV A=b TOKEN=***\n",
        ),
        (
            "# escape=`\nFROM a\nENV TOKEN=x `\n y=1\n",
            "# escape=`\nFROM a\nENV TOKEN=*** `\n***\n",
        ),
        ("FROM a\nLABEL TOKEN=x\n", "FROM a\nLABEL TOKEN=x\n"),
        (
            "FROM a\nENV A=\"the key is\" B='a token'\n",
            "FROM a\nENV A=\"the key is\" B='a token'\n",
        ),
        ("FROM a\nEN\\\nV TOKEN=x\n", "FROM a\n***\\\n***\n"),
        // Files that cannot be parsed.
        ("ENV TOKEN=x", "ENV TOKEN=***"),
        ("FOO\nENV TOKEN=x\nFOO", "FOO\nENV TOKEN=***\nFOO"),
        ("FROM a\nENV A=b TOKEN x\n", "FROM a\nENV A=b TOKEN ***\n"),
        ("FROM a\nENV TOKEN=\"x\n", "FROM a\nENV TOKEN=***\n"),
        ("FROM a\nENV TOKEN=x \\", "FROM a\nENV TOKEN=*** \\"),
        ("FROM a\n# ENV TOKEN=x\n", "FROM a\n# ENV TOKEN=***\n"),
        (
            "# escape=`\n# escape=`\nENV TOKEN=a`\nb",
            "# escape=`\n# escape=`\nENV TOKEN=***`\n***",
        ),
        (
            "RUN <<E\nx \\\nE\nENV TOKEN=x\n",
            "RUN <<E\nx \\\nE\nENV TOKEN=***\n",
        ),
        (
            "ONBUILD ONBUILD ENV TOKEN=x\n",
            "ONBUILD ONBUILD ENV TOKEN=***\n",
        ),
        // URLs.
        (
            "ADD http://me:x@h/a?sig=x /b\nRUN curl http://me:x@h/a?os=c\n",
            "ADD http://REDACTED@h/a?sig=REDACTED /b\nRUN curl http://REDACTED@h/a?os=c\n",
        ),
        (
            "ADD [\"http://x@h/a?sig=x\", \\\n  \"/b\"]\n",
            "ADD [\"http://REDACTED@h/a?sig=REDACTED\", \\\n  \"/b\"]\n",
        ),
        (
            "ADD http://me:\\\nx@h/a \\\n /b\nCOPY a b\n",
            "ADD ***\\\n*** \\\n***\nCOPY a b\n",
        ),
        (
            "ONBUILD ADD http://h/?x=y /\n",
            "ONBUILD ADD http://h/?x=REDACTED /\n",
        ),
    ] {
        assert_eq!(masked(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn urls_lose_what_is_secret() {
    use super::Hide::{Query, User};
    for (text, hide, expected) in [
        ("http://h/a@b:c", User, "http://h/a@b:c"),
        ("http://me@h/a", User, "http://REDACTED@h/a"),
        ("http://me:p@w@h/a", User, "http://REDACTED@h/a"),
        ("http://me:$P@h", User, "http://REDACTED@h"),
        ("http://me:${P:-a/b c}@h x@y", User, "http://REDACTED@h x@y"),
        ("http://me:${P@h/ x", User, "http://REDACTED@h/ x"),
        ("HTTPS://@h", User, "HTTPS://@h"),
        ("ssh://git@h/a", User, "ssh://git@h/a"),
        ("ssh://git:p@h/a", User, "ssh://REDACTED@h/a"),
        ("git@h:a", Query, "git@h:a"),
        (
            "//a:b@c ://a:b@c é://a:b@c",
            User,
            "//a:b@c ://a:b@c é://a:b@c",
        ),
        ("a://b://c:d@e", User, "a://b://c:d@e"),
        (
            "'http://a:b@c','ftp://d:e@f'",
            User,
            "'http://REDACTED@c','ftp://REDACTED@f'",
        ),
        ("http://h/a?b=c&d#e=f", User, "http://h/a?b=c&d#e=f"),
        (
            "http://h/a?b=c&d&e=&ref=v1#e?f=g",
            Query,
            "http://h/a?b=REDACTED&d&e=&ref=v1#e?f=g",
        ),
        (
            "http://h?b=${C:-#}&tag=d",
            Query,
            "http://h?b=REDACTED&tag=d",
        ),
        (
            "http://p/http://a:b@c?d=http://e:f@g",
            User,
            "http://p/http://REDACTED@c?d=http://REDACTED@g",
        ),
        (
            "http://p/http://a:b@c?d=e f",
            Query,
            "http://p/http://REDACTED@c?d=REDACTED f",
        ),
        ("", Query, ""),
    ] {
        assert_eq!(without_credentials(text, hide), expected, "{text}");
    }
}

#[test]
fn an_instruction_is_masked_as_the_file_is() {
    for (text, escape, expected) in [
        ("ENV A=b TOKEN=x", '\\', "ENV A=b TOKEN=***"),
        ("ENV A=b\\ TOKEN=x", '\\', "ENV A=b\\ TOKEN=x"),
        ("ENV A=b\\ TOKEN=x", '`', "ENV A=b\\ TOKEN=***"),
        ("RUN TOKEN=x y", '\\', "RUN TOKEN=x y"),
        ("", '\\', ""),
    ] {
        assert_eq!(masked_instruction(text, escape), expected, "{text}");
    }
}
