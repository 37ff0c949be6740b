use super::*;

fn shown(source: &GitSource) -> String {
    let GitSource {
        remote,
        reference,
        subdirectory,
        checksum,
        keep_git_dir,
        submodules,
        times,
    } = source;
    let mut out = remote.clone();
    for (name, value) in [("ref", reference), ("dir", subdirectory), ("sum", checksum)] {
        if let Some(value) = value {
            out.push_str(&format!(" {name}={value}"));
        }
    }
    if let Some(keep) = keep_git_dir {
        out.push_str(&format!(" keep={keep}"));
    }
    if *submodules == Submodules::Skip {
        out.push_str(" alone");
    }
    if *times == CheckoutTimes::Checkout {
        out.push_str(" now");
    }
    out
}

#[test]
fn what_is_git() {
    // The second word tells what a source of ADD is, the third what a context is.
    let table = "\
        https://example.com/ no no
        https://example.com/foo no no
        https://example.com/foo.git yes yes
        https://example.com/foo.git#v1 yes yes
        https://example.com/foo.git?tag=v1 yes yes
        HTTPS://example.com/foo.git yes yes
        https://example.com/foo.git/ no no
        https://example.com/foo.git.bar no no
        https://example.com/foo?x=.git no no
        https://example.com/foo#.git no no
        http://github.com/docker/docker.git:#branch no no
        git://example.com/foo yes yes
        ssh://git@example.com/foo yes yes
        ftp://example.com/foo.git no no
        github.com/moby/buildkit no yes
        custom.xyz/moby/buildkit.git no no
        git@github.com:moby/buildkit yes yes
        other_Funky-user52@example.com:/to/really:odd:repo.git/ yes yes
        git@helloworld.net no no
        git@helloworld.net/foo/bar.git no no
        github.com:moby/buildkit.git no no
        a@b no no
        ./.git no no
        .git no no
        ./user@host:path no no
        file:///srv/foo.git no no";
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let told = |is| if is { "yes" } else { "no" };
        assert_eq!(told(GitSource::is_git(words[0])), words[1], "{line}");
        assert_eq!(
            told(GitSource::is_git_context(words[0])),
            words[2],
            "{line}"
        );
    }
}

#[test]
fn sources_as_buildkit_reads_them() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let table = [
        ("https://h/f.git", "https://h/f.git"),
        ("https://h/f.git#", "https://h/f.git"),
        ("https://h/f.git#deadbeef", "https://h/f.git ref=deadbeef"),
        ("https://h/f.git#rel/1.2", "https://h/f.git ref=rel/1.2"),
        ("https://h/f.git#a/b:c/d", "https://h/f.git ref=a/b dir=c/d"),
        ("https://h/f.git#:dir", "https://h/f.git dir=dir"),
        (
            "https://h/f.git#a%2Fb:c%20d",
            "https://h/f.git ref=a/b dir=c d",
        ),
        ("https://h/f.git#:/a/./b//", "https://h/f.git dir=a/b"),
        ("https://h/f.git#:a/../b", "https://h/f.git dir=b"),
        ("https://h/f.git#:/", "https://h/f.git"),
        ("https://u:p@h/f.git#x", "https://u:p@h/f.git ref=x"),
        ("git://h/f#x", "git://h/f ref=x"),
        (
            "ssh://git@h:2222/f.git#x:y",
            "ssh://git@h:2222/f.git ref=x dir=y",
        ),
        ("git@h:f.git", "git@h:f.git"),
        ("git@h:f.git#x:y", "git@h:f.git ref=x dir=y"),
        ("git@h:f?tag=t#:y", "git@h:f ref=refs/tags/t dir=y"),
        ("github.com/a/b", "https://github.com/a/b"),
        (
            "github.com/a/b.git#x:y",
            "https://github.com/a/b.git ref=x dir=y",
        ),
        (
            "https://h/f.git?ref=v1&subdir=/s",
            "https://h/f.git ref=v1 dir=s",
        ),
        ("https://h/f.git?tag=v1", "https://h/f.git ref=refs/tags/v1"),
        (
            "https://h/f.git?tag=refs/tags/v1",
            "https://h/f.git ref=refs/tags/v1",
        ),
        (
            "https://h/f.git?branch=a+b%2Fc",
            "!invalid ref \"refs/heads/a b/c\"",
        ),
        (
            "https://h/f.git?branch=b",
            "https://h/f.git ref=refs/heads/b",
        ),
        (
            "https://h/f.git?checksum=abc123",
            "https://h/f.git ref=abc123 sum=abc123",
        ),
        (
            "https://h/f.git?commit=abc&tag=t",
            "https://h/f.git ref=refs/tags/t sum=abc",
        ),
        ("https://h/f.git?keep-git-dir", "https://h/f.git keep=true"),
        (
            "https://h/f.git?keep-git-dir=0",
            "https://h/f.git keep=false",
        ),
        ("https://h/f.git?submodules=false", "https://h/f.git alone"),
        ("https://h/f.git?submodules", "https://h/f.git"),
        ("https://h/f.git?mtime=checkout", "https://h/f.git now"),
        (
            "https://h/f.git?mtime=commit&fetch-by-commit=true",
            "https://h/f.git",
        ),
        ("https://h/f.git?ref=x#x", "https://h/f.git ref=x"),
        ("https://h/f.git#-x", "https://h/f.git ref=-x"),
        ("https://h/f.git?ref=x#y", "!ref conflicts: \"y\" vs \"x\""),
        (
            "https://h/f.git?subdir=x#:y",
            "!subdir conflicts: \"y\" vs \"x\"",
        ),
        (
            "https://h/f.git?tag=x&branch=x",
            "!branch conflicts with tag",
        ),
        (
            "https://h/f.git?tag=x#x",
            "!ref conflicts: \"x\" vs \"refs/tags/x\"",
        ),
        (
            "https://h/f.git?ref=a&ref=b",
            "!query \"ref\" has multiple values",
        ),
        ("https://h/f.git?ref=", "!query \"ref\" has no value"),
        (
            "https://h/f.git?token=s3cret",
            "!unexpected query \"token\"",
        ),
        (
            "https://h/f.git?submodules=maybe",
            "!invalid submodules value: \"maybe\"",
        ),
        ("https://h/f.git?mtime=now", "!invalid mtime value: \"now\""),
        (
            "https://h/f.git?checksum=xyz",
            "!invalid checksum xyz for Git URL, expected hex commit hash",
        ),
        (
            "https://h/f.git#:../x",
            "!subdir \"../x\" leads out of the repository",
        ),
        (
            "https://h/f.git?subdir=a/../../b",
            "!subdir \"a/../../b\" leads out of the repository",
        ),
        ("https://h/f.git#%zz", "!invalid URL escape in the fragment"),
        ("https://h/f.git#a%0Ab", "!invalid ref \"a\\nb\""),
        ("https:///f.git", "https:///f.git"),
        ("https://", "!its URL: empty host"),
        ("git:///f.git", "!its URL has no host"),
        (
            "file:///srv/f.git",
            "!git repositories are not fetched over `file`: https, http, ssh and git are",
        ),
        (
            "./f.git",
            "!it is neither a URL of https, http, ssh or git nor user@host:path",
        ),
    ];
    for (text, want) in table {
        let got = match GitSource::parse(text) {
            Ok(source) => shown(&source),
            Err(why) => format!("!{why}"),
        };
        assert_eq!(got, want, "{text}");
    }
    let source = GitSource::parse(&format!("https://h/f.git#{commit}")).unwrap();
    assert_eq!(source.reference.as_deref(), Some(commit));
}

#[test]
fn contexts_as_kaniko_reads_them() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let table = [
        ("h/o/r", "https://h/o/r".to_owned()),
        ("h/o/r.git", "https://h/o/r.git".into()),
        ("tok@h/o/r.git", "https://tok@h/o/r.git".into()),
        (
            "h/r#refs/heads/main",
            "https://h/r ref=refs/heads/main".into(),
        ),
        (
            "h/r#refs/pull/4/head",
            "https://h/r ref=refs/pull/4/head".into(),
        ),
        (
            &format!("h/r#refs/heads/main#{commit}"),
            format!("https://h/r ref={commit}"),
        ),
        ("h/r##", "https://h/r".into()),
        ("", "!its URL: empty host".into()),
        ("h/r#a#b#c", "!there is more than one commit".into()),
        ("h/r?x", "!HOST/PATH[#REFERENCE[#COMMIT]] is wanted".into()),
    ];
    for (text, want) in table {
        let got = match GitSource::parse_kaniko(text, PullMethod::Https) {
            Ok(source) => shown(&source),
            Err(why) => format!("!{why}"),
        };
        assert_eq!(got, want, "{text}");
    }
    let http = GitSource::parse_kaniko("h:8080/r", PullMethod::Http).unwrap();
    assert_eq!(http.remote, "http://h:8080/r");
}
