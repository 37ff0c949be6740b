use super::*;
use proptest::prelude::*;

fn glob(pattern: &[u8], path: &[u8]) -> Result<bool, Error> {
    Ok(Glob::new(pattern)?.matches(path))
}

fn ignore(text: &str) -> Ignore {
    Ignore::parse(text.as_bytes()).expect(text)
}

#[test]
fn go_match() {
    for (pattern, path, expected) in [
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "a☺b", true),
        ("a[^a]b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "-", true),
        ("[\\-x]", "a", false),
        ("*x", "xxx", true),
        ("**", "a/b", false),
        ("[!a]", "!", true),
        ("{a,b}", "{a,b}", true),
        ("", "", true),
    ] {
        let got = glob(pattern.as_bytes(), path.as_bytes());
        assert_eq!(got, Ok(expected), "{pattern} {path}");
    }
    for pattern in [
        "[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[]", "[\\",
    ] {
        assert!(glob(pattern.as_bytes(), b"zzz").is_err(), "{pattern}");
    }
    assert_eq!(glob(b"?", b"\xff"), Ok(true));
    assert_eq!(glob(b"[a]", b"\xff"), Ok(false));
}

#[test]
fn patterns_match_as_mobys() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file", "file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        ("a[^b]e", "a/e", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("a\\b", "ab", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc/def", true),
        ("**/.foo", "bar.foo", false),
        ("**/.foo", "a/.foo", true),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("dist/**/*.whl", "dist/proxy-1.whl", true),
        ("dist/**/*.whl", "dist/a/b.whl", true),
        ("a^b", "a^b", true),
        ("a^*", "a^b", false),
        ("foo", "bar/foo", false),
        ("foo", "foo/bar", true),
        ("/foo", "foo", true),
        ("./foo/../bar/", "bar", true),
        ("***", "a/b", true),
        ("*", "name.go", true),
        ("**/", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file/below", true),
        ("**/**/*.txt", "file.txt", true),
        ("a/*.txt", "a/file.txt", true),
        ("a[b-d]e", "aae", false),
        ("abc.def", "abc.def", true),
        ("abc.def", "abcdef", false),
        ("abc?def", "abcdef", false),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a\\\\", "a\\", true),
        ("a\\*b", "a*b", true),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
        ("a[^a][^a][^a]b", "a☺b", false),
        (
            "dist/*.whl",
            "dist/p.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("dist/p-2.4+g08.whl", "dist/p-2.4+g08.whl", true),
    ] {
        let got = ignore(pattern).is_ignored(path.as_bytes());
        assert_eq!(got, expected, "{pattern} {path}");
    }
}

#[test]
fn the_last_match_wins_and_parents_carry_on() {
    for (text, path, expected) in [
        ("*\n!a", "a", false),
        ("*\n!a", "a/b", false),
        ("*\n!a\na/b", "a/b", true),
        ("*\n!a/b", "a", true),
        ("*\n!a/b", "a/b/c", false),
        ("!a\n*", "a", true),
        ("a\n!a/b\na/b/c", "a/b/c/d", true),
        ("a\n!a/b\na/b/c", "a/b/x", false),
        ("**\n!util/docker/web", "util/docker/web/foo", false),
        ("**\n!dist/p-2.4+g08.whl", "dist/p-2.4+g08.whl", false),
        ("**\n!dist/*.whl", "dist/p-2.4+g08.whl", false),
        ("!name.go\n*.go", "name.go", true),
        ("*.go\n!name.go", "name.go", false),
        ("docs/\n!docs/README.md", "docs/README.md", false),
        ("docs/*\n!docs/README.md", "docs/README.md", false),
        ("docs\n  !docs/README.md  ", "docs/README.md", false),
        (
            "**\n!util/docker/web\nutil/docker/web/foo",
            "util/docker/web/foo",
            true,
        ),
        ("**/dist\n!dist", "x/dist/y", true),
        ("docs\n!docs/README.md", "docs/README.md", false),
        (
            "*.md\n!README*.md\nREADME-secret.md",
            "README-secret.md",
            true,
        ),
        ("*.md\n!README*.md\nREADME-secret.md", "README-x.md", false),
        // The exception matches the directory, but there was nothing to take back there.
        ("a/b\n!a", "a/b", true),
        ("# x\n\u{a0}\n  a  \r\n", "a", true),
        ("\u{feff}a\nb # c", "a", true),
        (" #a", "#a", true),
        ("! a\n", "a", false),
        ("", "a", false),
        ("**", "", false),
        ("*", ".", false),
    ] {
        assert_eq!(
            ignore(text).is_ignored(path.as_bytes()),
            expected,
            "{text:?} {path}"
        );
    }
}

#[test]
fn directories_are_pruned_where_nothing_can_come_back() {
    use Verdict::{Keep, LeaveOutButLook, Prune};
    for (text, dir, expected) in [
        ("a", "a", Prune),
        ("a", "b", Keep),
        ("*\n!a/b", "a", LeaveOutButLook),
        ("*\n!a/b", "ab", Prune),
        ("*\n!a/b", "a/c", Prune),
        ("*\n!a/b", "a/b", Keep),
        ("*\n!a/b*/c", "a/bx", LeaveOutButLook),
        ("*\n!a/b*/c", "a/x", Prune),
        ("*\n!a/**", "a", LeaveOutButLook),
        ("*\n!a/**", "b", Prune),
        ("*\n!**/x", "b/c", LeaveOutButLook),
        ("*\n!a/**/x", "a/b/c", LeaveOutButLook),
        ("*\n!a/**/x", "b", Prune),
        ("*\n!a/[bc]/x", "a/b", LeaveOutButLook),
        ("*\n!a/[bc]/x", "a/d", Prune),
        ("*\n!?", "a", Keep),
        ("*\n!?/b\n", "a", LeaveOutButLook),
        ("*\n!?/b\n", "ab", Prune),
        ("!a/b\n*", "a", Prune),
        ("*\n!a\na", "a", Prune),
        ("*\n!a\na", "a/x", Prune),
    ] {
        assert_eq!(
            ignore(text).directory(dir.as_bytes()),
            expected,
            "{text:?} {dir}"
        );
    }
}

#[test]
fn wrong_patterns_are_named_with_their_line() {
    for (text, expected) in [
        ("a\n[", "line 2: syntax error in pattern: \"[\""),
        ("!", "line 1: illegal exclusion pattern: \"!\""),
    ] {
        let got = Ignore::parse(text.as_bytes()).err().map(|e| e.0);
        assert_eq!(got.as_deref(), Some(expected));
    }
    let long = vec![b'a'; MAX_LINE + 1];
    assert!(Ignore::parse(&long).is_err());
}

#[test]
fn patterns_of_copy_are_taken_as_they_are() {
    let exclude = |patterns: &[&str]| {
        Ignore::compile(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
    };
    let some = exclude(&["*.md", "!b.md", " "]).expect("patterns");
    assert!(some.is_ignored(b"a.md") && !some.is_ignored(b"b.md"));
    assert!(exclude(&["#a"]).expect("pattern").is_ignored(b"#a"));
    assert!(exclude(&[]).expect("none").is_empty());
    assert!(exclude(&["!"]).is_err());
    assert!(exclude(&["[a"]).is_err());
}

#[test]
fn wildcards_are_seen_unless_escaped() {
    for (source, expected) in [
        ("a*", true),
        ("a?", true),
        ("[a]", true),
        ("a\\*", false),
        ("a]", false),
        ("\\", false),
    ] {
        assert_eq!(has_wildcards(source), expected, "{source}");
    }
}

#[test]
fn patterns_that_backtrack_take_no_time() {
    let pattern = "*a".repeat(200);
    let path = "a".repeat(4000);
    assert_eq!(glob(pattern.as_bytes(), path.as_bytes()), Ok(true));
    assert_eq!(
        glob(format!("{pattern}b").as_bytes(), path.as_bytes()),
        Ok(false)
    );
    let deep = ignore(&format!("{}x", "**/a/".repeat(200)));
    assert!(!deep.is_ignored("a/".repeat(300).trim_end_matches('/').as_bytes()));
}

/// The obvious matcher: tries everything.
fn slow(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([b'*', b'*'], rest) => !rest.contains(&b'\n'),
        ([b'*', b'*', pattern @ ..], rest) => {
            let pattern = pattern.strip_prefix(b"/").unwrap_or(pattern);
            if pattern.is_empty() {
                return true;
            }
            slow(pattern, rest)
                || (0..rest.len()).any(|at| rest[at] == b'/' && slow(pattern, &rest[at + 1..]))
        }
        ([b'*', pattern @ ..], rest) => (0..=rest.len())
            .take_while(|at| !rest[..*at].contains(&b'/'))
            .any(|at| slow(pattern, &rest[at..])),
        ([b'?', pattern @ ..], [c, rest @ ..]) => *c != b'/' && slow(pattern, rest),
        ([p, pattern @ ..], [c, rest @ ..]) => p == c && slow(pattern, rest),
        _ => false,
    }
}

proptest! {
    #[test]
    fn matching_agrees_with_the_obvious_way(
        pattern in "[ab*?][ab/*?]{0,7}",
        path in "[ab]{1,3}(/[ab]{1,3}){0,3}",
    ) {
        // Cleaning and the leading slash are tried elsewhere; a `**` that eats its slash and then ends
        // is a pattern that cleaning leaves none of.
        let pattern = clean(pattern.as_bytes());
        let rule = Rule::new(&pattern, false).expect("pattern");
        // moby's short cut for `**name` ends wherever the name ends, not only behind a slash.
        let short_cut = matches!(&rule.matcher, Matcher::Suffix(suffix) if !suffix.starts_with(b"/"));
        if !short_cut {
            prop_assert_eq!(rule.matcher.matches(path.as_bytes()), slow(&pattern, path.as_bytes()));
        }
    }

    #[test]
    fn pruning_loses_nothing(
        lines in proptest::collection::vec("!?[ab*?/]{1,5}", 1..5),
        path in "[ab]{1,2}(/[ab]{1,2}){1,3}",
    ) {
        let Ok(ignore) = Ignore::parse(lines.join("\n").as_bytes()) else { return Ok(()) };
        let path = path.as_bytes();
        for end in (0..path.len()).filter(|at| path[*at] == b'/') {
            if ignore.directory(&path[..end]) == Verdict::Prune {
                prop_assert!(ignore.is_ignored(path), "{:?}", &path[..end]);
            }
        }
    }

    #[test]
    fn walks_are_not_ended_above_a_match(
        lines in proptest::collection::vec("[ab*?/]{1,6}", 1..4),
        glob in "[ab*?/]{1,6}",
        path in "[ab]{1,2}(/[ab]{1,2}){1,3}",
    ) {
        let Ok(patterns) = Ignore::compile(&lines) else { return Ok(()) };
        let glob = Glob::new(glob.as_bytes()).expect("pattern");
        let path = path.as_bytes();
        for end in (0..path.len()).filter(|at| path[*at] == b'/') {
            let dir = &path[..end];
            if patterns.is_ignored(path) && !patterns.is_ignored(dir) {
                prop_assert!(patterns.may_match_below(dir), "{:?}", dir);
            }
            if glob.matches(path) {
                prop_assert!(glob.may_match_below(dir), "{:?}", dir);
            }
        }
    }

    #[test]
    fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..60), path in "[^/]{0,5}/?.{0,5}") {
        let _ = glob(&text, path.as_bytes());
        if let Ok(ignore) = Ignore::parse(&text) {
            let _ = ignore.directory(path.as_bytes());
            let _ = ignore.may_match_below(path.as_bytes());
        }
    }
}

#[test]
fn sources_are_left_out_where_nothing_of_them_is_kept() {
    for (patterns, source, expected) in [
        ("", "a", false),
        ("sub", "sub/a", true),
        ("sub", "/sub/a", true),
        ("sub", "./sub/./a", true),
        ("sub", "../sub", true),
        ("sub", "other", false),
        ("*/tmp/*", "x/tmp/a", true),
        ("*/tmp/*", "tmp/a", false),
        // An exception counts where it can bring back something of the source.
        ("sub\n!sub/b", "sub/a", true),
        ("sub\n!other", "sub/a", true),
        ("!sub/b\nsub", "sub/a", true),
        ("sub\n!other/*.txt", "sub", true),
        ("sub\n!sub/keep", "sub", false),
        ("sub\n!sub/deep/keep", "sub", false),
        ("sub\n!sub/*.txt", "sub", false),
        ("sub\n!*/keep", "sub", false),
        ("sub\n!sub/keep", "sub/keep", false),
        ("**\n!sub", "sub/a", false),
        ("sub\n!sub/keep", "sub/*.txt", false),
        ("sub\n!sub/keep", "*/keep", false),
        ("sub\n!other", "sub/*.txt", true),
        // The context as a whole, and patterns.
        ("*", ".", true),
        ("**", "/", true),
        ("**/*", "", true),
        (".*", ".", false),
        ("?", ".", false),
        ("**\n!Dockerfile", ".", false),
        ("*.log", "*.log", true),
        ("**/*.log", "x/*.log", true),
        ("?.log", "*.log", false),
        ("*.log", "a?.log", true),
        ("*.log", "*.txt", false),
        ("*.log", "[ab].log", false),
        ("*.log", "\\*.log", false),
        ("*", "a*", true),
    ] {
        let got = ignore(patterns).leaves_out(source);
        assert_eq!(got, expected, "{patterns:?} {source}");
    }
}
