use super::*;
use proptest::prelude::*;

fn env(name: &str) -> Option<String> {
    let value = match name {
        "A" => "a",
        "EMPTY" => "",
        "SP" => "x  y",
        "PATHS" => "/usr/bin:/usr/lib",
        "FILE" => "dir/name.tar.gz",
        "STARS" => "a*b*c",
        "LINES" => "one\ntwo",
        "É" => "accent",
        "1" => "first",
        "10" => "tenth",
        "@" => "all",
        "BIG" => return Some("x".repeat(1 << 19)),
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn words_expand() {
    for (text, expected) in [
        ("plain", "plain"),
        ("$A", "a"),
        ("${A}b", "ab"),
        ("$A$A", "aa"),
        ("$NOPE", ""),
        ("$É", "accent"),
        ("$", "$"),
        ("a$", "a$"),
        ("$.x", "$.x"),
        ("$1$10$@", "firsttenthall"),
        ("\\$A", "$A"),
        ("\\a\\\\", "a\\"),
        ("trailing\\", "trailing"),
        ("'$A \"'", "$A \""),
        ("\"$A '\"", "a '"),
        ("\"\\$A \\\" \\x\"", "$A \" \\x"),
        ("x'y'\"z\"", "xyz"),
        ("$SP", "x  y"),
        ("${NOPE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NOPE-d}", "d"),
        ("${A:+y}", "y"),
        ("${EMPTY:+y}", ""),
        ("${EMPTY+y}", "y"),
        ("${NOPE+y}", ""),
        ("${A:?m}", "a"),
        ("${EMPTY?m}", ""),
        ("${NOPE:-${EMPTY:-$A}}", "a"),
        ("${NOPE:-'$A'}", "$A"),
        ("${NOPE:-\"}\"}", "}"),
        ("${NOPE:-\\}}", "}"),
        ("${FILE#*.}", "tar.gz"),
        ("${FILE##*.}", "gz"),
        ("${FILE%.*}", "dir/name.tar"),
        ("${FILE%%.*}", "dir/name"),
        ("${FILE#dir/}", "name.tar.gz"),
        ("${FILE%.gz}", "dir/name.tar"),
        ("${FILE#x}", "dir/name.tar.gz"),
        ("${FILE#???}", "/name.tar.gz"),
        ("${STARS#a\\*}", "b*c"),
        ("${STARS##*\\*}", "c"),
        ("${STARS%\\**}", "a*b"),
        ("${FILE/a/A}", "dir/nAme.tar.gz"),
        ("${FILE//a/A}", "dir/nAme.tAr.gz"),
        ("${FILE//\\//-}", "dir-name.tar.gz"),
        ("${FILE/*/x}", "x"),
        ("${FILE//?/.}", "..............."),
        ("${FILE//r*/$A}", "dia"),
        ("${A//*/[\\$0]}", "[\\a]"),
        ("${A///-}", "-a-"),
        ("${LINES//*/x}", "x\nx"),
        ("${PATHS/\\/usr/}", "/bin:/usr/lib"),
        ("${NOPE/a/b}", ""),
        ("\u{feff}x", "x"),
    ] {
        assert_eq!(
            word(text, '\\', &env).map(|e| e.text),
            Ok(expected.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_expanded_is_said_in_buildkits_words() {
    for (text, expected) in [
        ("${A", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{A}}", "syntax error: bad substitution"),
        ("${NOPE?}", "NOPE: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${NOPE:?give it}", "NOPE: give it"),
        ("${A^}", "unsupported modifier (^) in substitution"),
        ("${A:1}", "unsupported modifier (:1) in substitution"),
        ("${A:#x}", "unsupported modifier (:#) in substitution"),
        ("${A:-x", "syntax error: missing '}'"),
        ("${A/x", "syntax error: missing '/' in ${}"),
        ("${A/x/y", "syntax error: missing '}'"),
        (
            "${A#\\x}",
            "invalid pattern (\\x) in substitution: invalid escape '\\x'",
        ),
        (
            "'a",
            "unexpected end of statement while looking for matching single-quote",
        ),
        (
            "\"a",
            "unexpected end of statement while looking for matching double-quote",
        ),
    ] {
        let message = format!("failed to process {}: {expected}", quote(text));
        assert_eq!(word(text, '\\', &env), Err(Error(message)), "{text}");
    }
}

#[test]
fn the_escape_character_can_be_a_backtick() {
    for (text, expected) in [("`$A", "$A"), ("c:\\x", "c:\\x"), ("\"`\"\"", "\"")] {
        assert_eq!(
            word(text, '`', &env).map(|e| e.text),
            Ok(expected.to_owned())
        );
    }
}

#[test]
fn bodies_keep_their_quotes() {
    for (text, expected) in [
        ("'$A' \"$A\"", "'a' \"a\""),
        ("it's\n", "it's\n"),
        ("\\$A ${NOPE:-'d'}", "$A 'd'"),
    ] {
        assert_eq!(
            raw(text, '\\', &env).map(|e| e.text),
            Ok(expected.to_owned())
        );
    }
}

#[test]
fn splitting_goes_by_white_space_outside_quotes() {
    for (text, expected) in [
        ("80 90/udp", vec!["80", "90/udp"]),
        ("$SP", vec!["x", "y"]),
        ("\"$SP\" z", vec!["x  y", "z"]),
        ("a\\ b", vec!["a b"]),
        ("''", vec![]),
        (" ", vec![]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(split(text, '\\', &env), Ok(expected), "{text}");
    }
}

#[test]
fn unset_variables_are_named_once() {
    let unset = word("$X ${Y:-$Z} $X $A", '\\', &env).map(|e| e.unset);
    assert_eq!(unset, Ok(vec!["X".into(), "Z".into(), "Y".into()]));
}

#[test]
fn what_grows_without_end_is_refused() {
    for text in [
        "$BIG$BIG$BIG".to_owned(),
        "${BIG//x/${BIG}}".to_owned(),
        "${BIG//*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*y/}".to_owned(),
        "${BIG:+}".repeat(1000),
        format!("{}{}", "${A:-".repeat(1000), "}".repeat(1000)),
        format!("{}{}", "${NOPE//x/".repeat(1000), "}".repeat(1000)),
    ] {
        assert!(word(&text, '\\', &env).is_err());
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        text in "[$ {}:+?#%/*\\\\'\"`Aé1@\n-]{0,40}",
        escape in prop_oneof![Just('\\'), Just('`')],
    ) {
        let _ = word(&text, escape, &env);
        let _ = raw(&text, escape, &env);
        let _ = split(&text, escape, &env);
        let _ = lexical(&text, Quotes::Kept, Escapes::Kept);
    }

    #[test]
    fn a_quoted_text_is_itself(text in "[^']*") {
        let expanded = word(&format!("'{text}'"), '\\', &env).map(|e| e.text);
        prop_assert_eq!(expanded, Ok(text));
    }
}

#[test]
fn what_a_replacement_takes_to_read_counts_though_nothing_comes_of_it() {
    let env = |_: &str| Some("x".repeat(5000));
    let error = word("${B//x/\\$$B}", '\\', &env).unwrap_err();
    assert!(error.0.contains("too much work"), "{error}");
}

#[test]
fn a_replacement_is_given_up_as_soon_as_it_is_too_long() {
    let env = |_: &str| Some("x".repeat(5000));
    for text in ["${B//x/$B}", "a${B//x/${B}y}b"] {
        let error = word(text, '\\', &env).unwrap_err();
        assert!(error.0.contains("longer than 1 MiB"), "{error}");
    }
}

#[test]
fn a_search_that_takes_too_long_is_given_up() {
    let env = |name: &str| match name {
        "B" => Some("x".repeat(5000)),
        _ => Some("a".to_owned()),
    };
    let text = "${A#${B//*?*?*?*?*?*?*y/z}}".repeat(1000);
    let error = word(&text, '\\', &env).unwrap_err();
    assert!(error.0.contains("too much work"), "{error}");
}
