use super::*;

#[test]
fn fetched_sources() {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let http = |url: &str, checksum: Option<&str>| {
        CopySource::Remote(Remote::Http {
            url: url.into(),
            checksum: checksum.map(|digest| digest.parse().unwrap()),
        })
    };
    let git = |text: &str, checksum: Option<&str>, keep_git_dir| {
        let mut source = crate::request::GitSource::parse(text).unwrap();
        source.checksum = checksum.map(str::to_owned);
        CopySource::Remote(Remote::Git {
            source,
            keep_git_dir,
        })
    };
    let path = |path: &str| CopySource::Path(path.into());
    let table = [
        ("http://h/a /x", vec![http("http://h/a", None)]),
        ("https://h/a$V /x", vec![http("https://h/av", None)]),
        (
            "a http://h/a b https://h/r.git#main /x/",
            vec![
                path("a"),
                http("http://h/a", None),
                path("b"),
                git("https://h/r.git#main", None, false),
            ],
        ),
        (
            "--checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85$F http://h/a /x",
            vec![http("http://h/a", Some(digest))],
        ),
        ("--checksum= http://h/a /x", vec![http("http://h/a", None)]),
        (
            "--checksum=0123abc git@h:r.git /x",
            vec![git("git@h:r.git", Some("0123abc"), false)],
        ),
        (
            "--keep-git-dir ssh://h/r /x",
            vec![git("ssh://h/r", None, true)],
        ),
        (
            "--keep-git-dir=false git://h/r /x",
            vec![git("git://h/r", None, false)],
        ),
        (
            "--keep-git-dir https://h/r /x",
            vec![git("https://h/r", None, true)],
        ),
    ];
    let plan = |text: &str| {
        let text = format!("FROM base\nENV V=v F=5\n{text}\n");
        stages(&text, &request(), &base()).map(|mut all| all.pop().unwrap())
    };
    for (text, expected) in table {
        let staged = plan(&format!("ADD {text}")).unwrap();
        assert_eq!(copies(&staged)[0].sources, expected, "{text}");
    }
    for (text, expected) in [
        (
            "ADD --checksum=$V http://h/a /x",
            "invalid checksum digest format: v (sha256: and 64 hexadecimal digits are wanted)",
        ),
        (
            "ADD --checksum=sha256:12 http://h/a /x",
            "invalid checksum digest length or format: sha256:12 (sha256: and 64 hexadecimal digits are wanted)",
        ),
        (
            "ADD --checksum=sha512:12 http://h/a /x",
            "unsupported digest algorithm: sha512 (sha256 is wanted)",
        ),
        (
            "ADD --checksum=sha256:12 a /x",
            "checksum requires HTTP(S) or Git sources",
        ),
        (
            "ADD --checksum=sha256:12 http://h/a http://h/b /x/",
            "checksum can't be specified for multiple sources",
        ),
        (
            "ADD --checksum=main git@h:r.git /x",
            "invalid checksum \"main\" for Git URL, expected hex commit hash",
        ),
        (
            "ADD --keep-git-dir a /x",
            "--keep-git-dir requires Git sources: a",
        ),
        (
            "COPY http://h/a$V /x",
            "source can't be a URL for COPY: http://h/av",
        ),
        (
            "COPY https://h/a.git /x",
            "source can't be a git ref for COPY: https://h/a.git",
        ),
    ] {
        assert_eq!(plan(text).unwrap_err().message, expected, "{text}");
    }
}

#[test]
fn options_of_copy_and_add() {
    let text = "FROM base\nENV V=v\n\
                COPY --link --parents --exclude=*.$V --exclude=x --chown=1 a b /d/\n\
                ADD --link --exclude=$V --unpack http://h/a /d/\nCOPY --link=false a /d\n";
    let staged = last(text, &request());
    let seen: Vec<_> = copies(&staged)
        .iter()
        .map(|copy| (copy.link, copy.parents, copy.exclude.join(" "), copy.unpack))
        .collect();
    assert_eq!(
        seen,
        [
            (true, true, "*.v x".to_owned(), Unpack::Never),
            (true, false, "v".to_owned(), Unpack::All),
            (false, false, String::new(), Unpack::Never),
        ]
    );
    let history: Vec<&str> = staged.steps[1..]
        .iter()
        .map(|step| step.history.as_str())
        .collect();
    assert_eq!(
        history,
        [
            "COPY --parents --chown=1 a b /d/",
            "ADD http://h/a /d/",
            "COPY a /d"
        ]
    );
}

#[test]
fn heredocs_of_run() {
    let text = "FROM base\n\
                RUN <<EOF\none\n  $two\nEOF\n\
                RUN <<-\"EOT\"\n\t#!/bin/x\n\tthree\nEOT\n\
                RUN <<A cat - <<B > /two\na\nA\nb\nB\n\
                RUN [\"x\", \"$y\"]\n";
    let staged = last(text, &request());
    assert_eq!(run(&staged, 0).args, ["/bin/sh", "-c", "one\n  $two\n"]);
    assert_eq!(run(&staged, 0).script, None);
    assert_eq!(run(&staged, 1).args, ["/bin/sh", "-c", "/dev/pipes/EOT"]);
    let script = ("EOT".to_owned(), "#!/bin/x\nthree\n".to_owned());
    assert_eq!(run(&staged, 1).script, Some(script));
    assert_eq!(
        run(&staged, 2).args,
        ["/bin/sh", "-c", "<<A cat - <<B > /two\na\nA\nb\nB"]
    );
    assert_eq!(run(&staged, 3).args, ["x", "$y"]);
}

#[test]
fn copies_are_expanded() {
    let text = "FROM base\nENV a=1 o=app\nWORKDIR /w\n\
                COPY --chown=$o:50 --chmod=7${a}0 f$a g .\n\
                ADD --unpack=false t.tar /x/\nADD t.tar y\n\
                COPY <<EOF <<-\"RAW\" /two/\nv=$a \\$a \"q\"\nEOF\n\tr=$a\nRAW\n\
                COPY [\"a b\", \"$a/\"]\nCOPY x sub/.\n";
    let staged = last(text, &request());
    let path = |source: &CopySource| match source {
        CopySource::Path(path) => path.clone(),
        CopySource::Remote(_) => panic!("not fetched"),
    };
    let seen: Vec<_> = copies(&staged)
        .iter()
        .map(|copy| {
            (
                copy.instruction,
                copy.sources.iter().map(path).collect::<Vec<_>>().join(","),
                copy.dest.as_str(),
                copy.unpack,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("COPY", "f1,g".to_owned(), "/w/", Unpack::Never),
            ("ADD", "t.tar".to_owned(), "/x/", Unpack::Never),
            ("ADD", "t.tar".to_owned(), "/w/y", Unpack::Local),
            ("COPY", String::new(), "/two/", Unpack::Never),
            ("COPY", "a b".to_owned(), "/w/1/", Unpack::Never),
            ("COPY", "x".to_owned(), "/w/sub/", Unpack::Never),
        ]
    );
    let first = copies(&staged)[0];
    assert_eq!(first.chown.as_deref(), Some("app:50"));
    assert_eq!(first.chmod, Chmod::parse("710").ok());
    assert_eq!(
        copies(&staged)[3].inline,
        [
            ("EOF".to_owned(), b"v=1 $a \"q\"\n".to_vec()),
            ("RAW".to_owned(), b"r=$a\n".to_vec()),
        ]
    );
    let history: Vec<&str> = staged.steps[2..]
        .iter()
        .map(|step| step.history.as_str())
        .collect();
    assert_eq!(history[0], "COPY --chown=app:50 --chmod=710 f1 g .");
    assert_eq!(history[3], "COPY <<EOF <<RAW /two/");
}
