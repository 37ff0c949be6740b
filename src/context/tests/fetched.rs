use super::archive::{archive, entry};
use super::*;

#[test]
fn what_was_fetched_is_placed() {
    let remote = || {
        CopySource::Remote(plan::Remote::Http {
            url: "https://example.invalid/f".into(),
            checksum: None,
        })
    };
    let file = |name: &str, content: &[u8]| Fetched::File {
        name: name.into(),
        meta: Meta::file(0o600, content.len() as u64, NOW),
        source: Source::Bytes(content.into()),
    };
    let repository = || {
        let dir = context(&[
            "README 644 r",
            "src/ 755",
            "src/main 755 m",
            "src/x.md 644 x",
        ]);
        let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
        (dir, Fetched::Directory(context))
    };
    let (_kept, git) = repository();
    let (_kept_too, git_again) = repository();
    let tar = archive(&[entry("in", b'0', 0o640, "", "i")]);
    let local = context(&["a.txt 644 a"]);
    let context = Context::open(local.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let table: &[(&str, Vec<Fetched>, &[&str])] = &[
        ("ADD @ /n", vec![file("f.txt", b"f")], &["n 600 0:0 f"]),
        (
            "ADD @ /n/",
            vec![file("f.txt", b"f")],
            &["n/ 755 0:0", "n/f.txt 600 0:0 f"],
        ),
        (
            "ADD @ /tree",
            vec![file("f.txt", b"f")],
            &["tree/f.txt 600 0:0 f"],
        ),
        (
            "ADD --chown=app --chmod=644 @ /x/n",
            vec![file("f.txt", b"f")],
            &["x/ 644 1000:1000", "x/n 644 1000:1000 f"],
        ),
        (
            "ADD --link @ /lnk/n",
            vec![file("f", b"f")],
            &["lnk/ 755 0:0", "lnk/n 600 0:0 f"],
        ),
        // In the order of the sources, those of the context between.
        (
            "ADD @ a.txt @ /n/",
            vec![file("f", b"f"), file("g", b"g")],
            &[
                "n/ 755 0:0",
                "n/a.txt 644 0:0 a",
                "n/f 600 0:0 f",
                "n/g 600 0:0 g",
            ],
        ),
        // Archives from elsewhere are unpacked where that is asked for.
        (
            "ADD --unpack @ /n",
            vec![file("t.tar", &tar)],
            &["n/ 755 0:0", "n/in 640 12:34 i"],
        ),
        (
            "ADD --unpack @ /n",
            vec![file("t.tar", b"none")],
            &["n 600 0:0 none"],
        ),
        (
            "ADD @ /n",
            vec![git],
            &[
                "n/ 755 0:0",
                "n/README 644 0:0 r",
                "n/src/ 755 0:0",
                "n/src/main 755 0:0 m",
                "n/src/x.md 644 0:0 x",
            ],
        ),
        (
            "ADD --exclude=README --exclude=**/*.md --chown=1:2 @ /tree/",
            vec![git_again],
            &["tree/src/ 755 1:2", "tree/src/main 755 1:2 m"],
        ),
    ];
    for (text, fetched, expected) in table {
        let mut op = instruction(text);
        for source in &mut op.sources {
            if *source == CopySource::Path("@".into()) {
                *source = remote();
            }
        }
        let scratch = tempfile::tempdir().unwrap();
        let from = Origin::Context(&context);
        let made = make(&op, &from, fetched, &base(), &scratch).unwrap();
        assert_eq!(&lines(&made), expected, "{text}");
        // One that is missing is no reason to go on.
        let none = make(&op, &from, &[], &base(), &scratch);
        assert!(matches!(none, Err(Error::NotFetched(_))), "{text}");
        // The bytes are there, but are not unpacked unasked.
        op.unpack = Unpack::Local;
        let made = make(&op, &from, fetched, &base(), &scratch);
        assert!(made.is_ok(), "{text}");
    }
}

#[test]
fn heredocs_are_files() {
    let dir = context(&["a.txt 755 a"]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let table: Table<'_> = &[
        ("COPY /n", Ok(&["n 644 0:0 two\n"])),
        (
            "COPY /tree",
            Ok(&["tree/EOF 644 0:0 one\n", "tree/b 644 0:0 two\n"]),
        ),
        (
            "COPY a.txt /x/",
            Ok(&[
                "x/ 755 0:0",
                "x/EOF 644 0:0 one\n",
                "x/a.txt 755 0:0 a",
                "x/b 644 0:0 two\n",
            ]),
        ),
        (
            "COPY --chown=app:staff --chmod=0700 /x/",
            Ok(&[
                "x/ 700 1000:50",
                "x/EOF 700 1000:50 one\n",
                "x/b 700 1000:50 two\n",
            ]),
        ),
        (
            "COPY --chmod=+x,o= /x/",
            Ok(&["x/ 755 0:0", "x/EOF 750 0:0 one\n", "x/b 750 0:0 two\n"]),
        ),
        // No pattern is for them.
        (
            "COPY --exclude=* /tree",
            Ok(&["tree/EOF 644 0:0 one\n", "tree/b 644 0:0 two\n"]),
        ),
        (
            "COPY --link /lnk/",
            Ok(&[
                "lnk/ 755 0:0",
                "lnk/EOF 644 0:0 one\n",
                "lnk/b 644 0:0 two\n",
            ]),
        ),
        ("COPY /l", Ok(&["t 644 0:0 two\n"])),
    ];
    for (text, expected) in table {
        let mut op = instruction(text);
        op.inline = vec![
            ("EOF".into(), b"one\n".to_vec()),
            ("b".into(), b"two\n".to_vec()),
        ];
        let expected = expected
            .map(|lines| lines.iter().map(|line| (*line).to_owned()).collect())
            .map_err(str::to_owned);
        assert_eq!(carry_out(&op, &from, &base()), expected, "{text}");
    }
}
