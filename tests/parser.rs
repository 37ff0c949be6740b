//! The parser against BuildKit's trees: `testdata/parser/` has Dockerfiles that trip parsers up, and
//! `expected.txt` what BuildKit makes of each.

use proptest::prelude::*;
use shutter::dockerfile::ast::{
    Add, CommandLine, Copy, Field, Healthcheck, Heredoc, Instruction, Item, Kind, Mount, Run, Span,
};
use shutter::dockerfile::check::{Finding, Rule};
use shutter::dockerfile::{self, node};
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parser")
}

/// Shows what the parser makes of a file, in the format of `expected.txt`.
fn show(text: &[u8]) -> String {
    let tree = match node::parse(text) {
        Ok(tree) => tree,
        Err(error) => return format!("PARSE-ERR: {}\n", error.joined()),
    };
    let mut out = String::new();
    for node in &tree.nodes {
        let _ = writeln!(out, "{}", node.dump());
    }
    let _ = match dockerfile::parse(text) {
        Ok(parsed) => {
            assert_eq!(parsed.escape, tree.escape);
            writeln!(out, "ok escape={}", parsed.escape)
        }
        Err(error) => {
            let line = error.span.map_or(0, |span| span.first);
            let joined = error.joined();
            writeln!(
                out,
                "INSTR-ERR: dockerfile parse error on line {line}: {joined}"
            )
        }
    };
    out
}

#[test]
fn trees_are_buildkits() {
    let expected = std::fs::read_to_string(folder().join("expected.txt")).expect("expected.txt");
    let mut cases = 0;
    for case in expected.split("===== ").skip(1) {
        let (name, expected) = case.split_once('\n').expect("a name on a line");
        let text = std::fs::read(folder().join(name)).expect(name);
        let shown = show(&text);
        assert_eq!(shown.trim_end(), expected.trim_end(), "{name}");
        cases += 1;
    }
    let files = std::fs::read_dir(folder()).expect("folder").count() - 1;
    assert_eq!((cases, files), (48, 48));
}

/// Instructions that are refused, with the message and the hint joined and the lines.
#[test]
fn mistakes_are_told_in_buildkits_words() {
    for (instruction, expected) in [
        ("RUM x", "unknown instruction: RUM (did you mean RUN?)"),
        ("rum x", "unknown instruction: rum (did you mean run?)"),
        ("BLARGH x", "unknown instruction: BLARGH"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM", "FROM requires either one or three arguments"),
        (
            "FROM a AS b$",
            "invalid name for build stage: \"b$\", name can't start with a number or contain symbols",
        ),
        (
            "FROM --platfrom=x a",
            "unknown flag: --platfrom (did you mean platform?)",
        ),
        ("ENV", "ENV requires at least one argument"),
        ("ENV =x", "ENV names can not be blank"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY a <<E\nE",
            "COPY cannot accept a heredoc as a destination",
        ),
        (
            "ADD --link=maybe a b",
            "expecting boolean value for flag --link, not: maybe",
        ),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("RUN --network=x y", "invalid network mode \"x\""),
        ("RUN --mount= y", "failed to parse csv mounts: EOF"),
        (
            "RUN --mount=a\\\"b y",
            "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted field",
        ),
        (
            "RUN --mount=target=/x,From=$X y",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("RUN --security=x y", "security \"x\" is not valid"),
        ("USER", "USER requires exactly one argument"),
        ("USER --x a", "unknown flag: --x"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        (
            "VOLUME [\" \"]",
            "VOLUME specified can not be an empty string",
        ),
        ("SHELL []", "SHELL requires at least one argument"),
        (
            "SHELL bash",
            "SHELL requires the arguments to be in JSON form",
        ),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "ONBUILD maintainer a",
            "MAINTAINER isn't allowed as an ONBUILD trigger",
        ),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        (
            "HEALTHCHECK foo",
            "Unknown type \"FOO\" in HEALTHCHECK (try CMD)",
        ),
        (
            "HEALTHCHECK --interval=1 CMD x",
            "time: missing unit in duration \"1\"",
        ),
        (
            "HEALTHCHECK --timeout=1us CMD x",
            "Interval \"timeout\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --retries=x CMD x",
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "HEALTHCHECK --retries=9999999999 CMD x",
            "strconv.ParseInt: parsing \"9999999999\": value out of range",
        ),
        (
            "HEALTHCHECK --retries=-1 CMD x",
            "--retries cannot be negative (-1)",
        ),
        ("ENV a", "ENV must have two arguments"),
        (
            "ENV a=b c",
            "Syntax error - can't find = in \"c\". Must be of the form: name=value",
        ),
        (
            "CMD [\"a\", 1]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("RUN <<E\nx", "unterminated heredoc"),
    ] {
        let error = dockerfile::parse(format!("FROM a\n\n{instruction}\n").as_bytes())
            .expect_err(instruction);
        assert_eq!(error.joined(), expected, "{instruction}");
        assert_eq!(error.span.map(|s| s.first), Some(3), "{instruction}");
    }
}

#[test]
fn mistakes_of_the_file_as_a_whole() {
    let long = format!("FROM a\nRUN {}\n", "x".repeat(65_532));
    for (text, expected, line) in [
        ("", "file with no instructions", None),
        ("RUN x", "no build stage in current context", Some(1)),
        ("ARG a", "dockerfile contains no stages to build", None),
        (
            "# escape=x\nFROM a",
            "invalid escape token 'x' does not match ` or \\",
            Some(1),
        ),
        (
            "# syntax=a\n# syntax=b\nFROM a",
            "only one syntax parser directive can be used",
            Some(2),
        ),
        (
            &long,
            "dockerfile line greater than max allowed size of 65535",
            Some(2),
        ),
    ] {
        let error = dockerfile::parse(text.as_bytes()).expect_err(expected);
        assert_eq!(error.joined(), expected);
        assert_eq!(error.span.map(|s| s.first), line, "{expected}");
    }
    // An empty line ends the directives, so this is a comment.
    assert!(dockerfile::parse(b"\n# escape=x\nFROM a").is_ok());
    let huge = vec![b'\n'; (16 << 20) + 1];
    let error = dockerfile::parse(&huge).expect_err("too large");
    assert_eq!(error.message, "dockerfile is larger than 16 MiB");
}

#[test]
fn instructions_are_what_was_written() {
    let text = br#"# syntax=docker/dockerfile:1
ARG BASE=busybox
FROM --platform=linux/arm64 ${BASE} AS Final
RUN --mount=type=cache,target=/c --network=none <<A cat - <<-"B" > /x
a
A
	b
	B
COPY --from=x --link --chmod= --exclude=*.o a <<E1 <<E1 /d/
one
E1
two
E1
ADD --keep-git-dir=false --checksum=sha256:1 http://x/y /z
HEALTHCHECK --interval=1m --timeout=0s --retries=2 cmd ["a", "b"]
ONBUILD COPY <<EOF \
  /x
body
EOF
EXPOSE 90 80
ARG A B="c d"
ENV a b  c
ENTRYPOINT []
STOPSIGNAL --x 9
"#;
    let parsed = dockerfile::parse(text).expect("a Dockerfile");
    assert_eq!(
        parsed.directives,
        [("syntax".to_owned(), "docker/dockerfile:1".to_owned(), 1)]
    );
    assert_eq!(
        parsed.globals.first().map(|g| &g.kind),
        Some(&Kind::Arg(vec![("BASE".into(), Some("busybox".into()))]))
    );
    let stage = parsed.stages.first().expect("a stage");
    assert_eq!(stage.from.base, "${BASE}");
    assert_eq!(stage.from.name.as_deref(), Some("final"));
    assert_eq!(stage.from.platform.as_deref(), Some("linux/arm64"));
    assert_eq!(stage.span, Span { first: 3, last: 3 });

    let doc = |name: &str, body: &str| Heredoc {
        name: name.into(),
        body: body.into(),
        expand: true,
        chomp: false,
        fd: 0,
    };
    let mount = |fields: &[&str]| Mount {
        fields: fields
            .iter()
            .map(|text| Field {
                text: (*text).into(),
                key: text.split('=').next().unwrap_or_default().into(),
                value: text.split_once('=').map(|(_, value)| value.into()),
            })
            .collect(),
    };
    let kinds: Vec<&Kind> = stage.instructions.iter().map(|i| &i.kind).collect();
    let expected = [
        Kind::Run(Run {
            command: CommandLine::Shell("<<A cat - <<-\"B\" > /x".into()),
            heredocs: vec![
                doc("A", "a\n"),
                Heredoc {
                    expand: false,
                    chomp: true,
                    ..doc("B", "\tb\n")
                },
            ],
            mounts: vec![mount(&["type=cache", "target=/c"])],
            network: Some("none".into()),
            security: None,
            devices: vec![],
        }),
        Kind::Copy(Copy {
            sources: vec![
                Item::Path("a".into()),
                Item::Inline(doc("E1", "one\n")),
                Item::Inline(doc("E1", "two\n")),
            ],
            dest: "/d/".into(),
            from: Some("x".into()),
            chown: None,
            chmod: None,
            link: true,
            parents: false,
            exclude: vec!["*.o".into()],
        }),
        Kind::Add(Add {
            sources: vec![Item::Path("http://x/y".into())],
            dest: "/z".into(),
            chown: None,
            chmod: None,
            link: false,
            exclude: vec![],
            checksum: Some("sha256:1".into()),
            keep_git_dir: Some(false),
            unpack: None,
        }),
        Kind::Healthcheck(Healthcheck::Check {
            command: CommandLine::Exec(vec!["a".into(), "b".into()]),
            interval: Some(60_000_000_000),
            timeout: None,
            start_period: None,
            start_interval: None,
            retries: Some(2),
        }),
        Kind::Onbuild(
            Box::new(Instruction {
                span: Span {
                    first: 16,
                    last: 19,
                },
                text: "COPY <<EOF   /x".into(),
                kind: Kind::Copy(Copy {
                    sources: vec![Item::Inline(doc("EOF", "body\n"))],
                    dest: "/x".into(),
                    from: None,
                    chown: None,
                    chmod: None,
                    link: false,
                    parents: false,
                    exclude: vec![],
                }),
            }),
            "COPY <<EOF   /x\nbody\nEOF".into(),
        ),
        Kind::Expose(vec!["80".into(), "90".into()]),
        Kind::Arg(vec![
            ("A".into(), None),
            ("B".into(), Some("\"c d\"".into())),
        ]),
        Kind::Env(vec![("a".into(), "b  c".into())]),
        Kind::Entrypoint(CommandLine::Exec(vec![])),
        Kind::StopSignal("9".into()),
    ];
    assert_eq!(kinds, expected.iter().collect::<Vec<_>>());
    let mut unread = parsed.findings;
    unread.retain(|finding| finding.rule == Rule::UnreadFlag);
    assert_eq!(
        unread,
        [Finding::new(
            Rule::UnreadFlag,
            Span {
                first: 24,
                last: 24
            },
            "STOPSIGNAL does not use the flag --x"
        )]
    );

    let Some(Kind::Onbuild(trigger, text)) = kinds.get(4) else {
        panic!("no trigger");
    };
    let again = dockerfile::parse_trigger(text).expect("a trigger");
    assert_eq!(again.kind, trigger.kind);
}

#[test]
fn triggers_are_one_instruction_each() {
    for (text, expected) in [
        (
            "RUN a\nRUN b",
            "onbuild trigger should be a single expression",
        ),
        (
            "ONBUILD RUN a",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("", "file with no instructions"),
        ("NOPE", "unknown instruction: NOPE"),
    ] {
        let error = dockerfile::parse_trigger(text).expect_err(text);
        assert_eq!(error.message, expected);
    }
}

/// Files made to be slow or deep: each is read in a moment or refused.
#[test]
fn hostile_files_are_read_in_a_moment() {
    let line = |word: &str| {
        let words = word.repeat(60_000 / word.len());
        format!("FROM a\n{}RUN x\n", format!("{words}\\\n").repeat(60))
    };
    for text in [
        line("ONBUILD "),
        line("RUN <<A "),
        format!("FROM a\nRUN {}", line("<<A ")),
        format!("FROM a\nRUN {}", line("${a:-")),
        format!("FROM a\nCOPY {}", line("<<A\"\" ")),
        format!("FROM a\nRUN {}", line("[")),
        format!("FROM a\nRUN {}", line("--mount=a ")),
        format!("FROM a\nCOPY {}", line("--exclude=a ")),
        format!("FROM a\nCOPY {}x", "<<A ".repeat(10_000)) + &"\nA".repeat(10_000),
        "FROM a\nRUN \\\n".to_owned() + &"\n".repeat(1 << 20),
        "F".repeat(60_000),
    ] {
        let start = std::time::Instant::now();
        let _ = dockerfile::parse(text.as_bytes());
        assert!(start.elapsed().as_secs() < 20, "{}", &text[..40]);
    }
}

fn case(index: usize) -> Vec<u8> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .collect();
    files.sort();
    std::fs::read(&files[index % files.len()]).expect("a case")
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = dockerfile::parse(&text);
        let _ = dockerfile::detect_syntax(&text);
        let _ = dockerfile::parse_trigger(&String::from_utf8_lossy(&text));
    }

    #[test]
    fn no_change_of_a_case_makes_it_panic(
        index in 0..48usize,
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(&b"\\\n\r\t \"'`<$#-=[]{}:@A0\xff"[..]), 0..3),
            1..6,
        ),
    ) {
        let mut text = case(index);
        for (at, byte, how) in changes {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => drop(text.remove(at)),
            }
        }
        if let Ok(parsed) = dockerfile::parse(&text) {
            let lines = text.split(|b| *b == b'\n').count();
            for stage in &parsed.stages {
                let mut last = stage.span.last;
                for instruction in &stage.instructions {
                    prop_assert!(instruction.span.first > last);
                    prop_assert!(instruction.span.last <= lines);
                    last = instruction.span.last;
                    if let Kind::Onbuild(trigger, text) = &instruction.kind
                        && parsed.escape == '\\'
                        && !text.contains("<<")
                    {
                        let again = dockerfile::parse_trigger(text).map(|again| again.kind);
                        prop_assert_eq!(again, Ok(trigger.kind.clone()));
                    }
                }
            }
        }
    }
}
