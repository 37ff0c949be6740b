use super::*;

#[test]
fn a_linked_layer_knows_nothing_of_what_is_below() {
    let dir = context(&["a.txt 644 a", "dir/ 750", "dir/c 644 c"]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let table: Table<'_> = &[
        ("COPY --link a.txt /", Ok(&["a.txt 644 0:0 a"])),
        // Links of the base are not followed, and its directories are not known.
        (
            "COPY --link a.txt /lnk/a",
            Ok(&["lnk/ 755 0:0", "lnk/a 644 0:0 a"]),
        ),
        ("COPY --link a.txt /tree", Ok(&["tree 644 0:0 a"])),
        (
            "COPY --link a.txt /tree/",
            Ok(&["tree/ 755 0:0", "tree/a.txt 644 0:0 a"]),
        ),
        (
            "COPY --link a.txt /t/x",
            Ok(&["t/ 755 0:0", "t/x 644 0:0 a"]),
        ),
        ("COPY --link dir /t", Ok(&["t/ 755 0:0", "t/c 644 0:0 c"])),
        (
            "COPY --link a.txt /tmp/x/y",
            Ok(&["tmp/ 755 0:0", "tmp/x/ 755 0:0", "tmp/x/y 644 0:0 a"]),
        ),
        (
            "COPY --link --chown=1:2 dir /home/app/",
            Ok(&["home/ 755 1:2", "home/app/ 755 1:2", "home/app/c 644 1:2 c"]),
        ),
        (
            "COPY --link --chown=root:root --parents dir/c /x",
            Ok(&["x/ 755 0:0", "x/dir/ 750 0:0", "x/dir/c 644 0:0 c"]),
        ),
        ("COPY --link --exclude=c dir /x", Ok(&["x/ 755 0:0"])),
        // Names are nobody's: BuildKit has nothing to look them up in either.
        (
            "COPY --link --chown=app a.txt /n",
            Err("--chown: `app` cannot be looked up with --link: use numbers"),
        ),
        (
            "COPY --link --chown=1:staff a.txt /n",
            Err("--chown: `staff` cannot be looked up with --link: use numbers"),
        ),
        // Beside --chmod there is no --link, with BuildKit.
        (
            "COPY --link --chmod=600 a.txt /lnk/a",
            Ok(&["tree/a 600 0:0 a"]),
        ),
        (
            "COPY --link --chmod=600 --chown=app a.txt /n",
            Ok(&["n 600 1000:1000 a"]),
        ),
    ];
    check(table, &from, &base());
    // Whatever it is put on.
    check(&table[..8], &from, &Tree::default());
}

#[test]
fn scratch_has_no_names() {
    let dir = context(&["a.txt 644 a"]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    check(
        &[
            (
                "COPY --chown=app a.txt /n",
                Err(
                    "--chown: `app` cannot be looked up in a stage that starts from scratch: use numbers",
                ),
            ),
            ("COPY --chown=root a.txt /n", Ok(&["n 644 0:0 a"])),
            ("COPY --chown=7 a.txt /n", Ok(&["n 644 7:7 a"])),
        ],
        &from,
        &Tree::default(),
    );
    // Something is there, but no names: the unknown is root.
    check(
        &[("COPY --chown=app a.txt /n", Ok(&["n 644 0:0 a"]))],
        &from,
        &tree(&["x 644"]),
    );
}

/// The layer, the tree above it and what a root gets of it agree on what is there.
#[test]
fn a_linked_layer_goes_over_what_is_below() {
    let dir = context(&[
        "a.txt 644 a",
        "dir/ 750",
        "dir/file/ 700",
        "dir/file/c 644 c",
    ]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let scratch = tempfile::tempdir().unwrap();
    let table: &[(&str, &str, &[&str])] = &[
        // A file takes the place of a directory with all that is in it.
        ("COPY --link a.txt /tree", "tree", &["tree 644 0:0 a"]),
        // A directory takes the place of a link, and of a file.
        (
            "COPY --link a.txt /lnk/a",
            "lnk",
            &["lnk/ 755 0:0", "lnk/a 644 0:0 a"],
        ),
        (
            "COPY --link a.txt /t/a",
            "t",
            &["t/ 755 0:0", "t/a 644 0:0 a"],
        ),
        // Two directories become one, which is what the upper one is.
        (
            "COPY --link dir /tree",
            "tree",
            &[
                "tree/ 755 0:0",
                "tree/file/ 700 0:0",
                "tree/file/c 644 0:0 c",
                "tree/link -> file",
                "tree/sub/ 755 0:0",
                "tree/sub/deep 644 0:0 deep",
            ],
        ),
        (
            "COPY --link a.txt /tmp/",
            "tmp",
            &["tmp/ 755 0:0", "tmp/a.txt 644 0:0 a"],
        ),
    ];
    for (text, top, expected) in table {
        let op = instruction(text);
        let made = make(&op, &from, &[], &base(), &scratch).unwrap();
        let settled = made.settle(&Tree::default()).unwrap();
        let mut above = base();
        above.push(Arc::new(Arc::new(settled).view().unwrap()));
        assert_eq!(&walked(&above, top), expected, "{text}");
    }
}

/// Lists a tree as `lines` does a changeset.
fn walked(tree: &Tree, top: &str) -> Vec<String> {
    let mut changes = Vec::new();
    tree.walk(&clean(top).unwrap(), &mut |path, found| {
        changes.push(crate::changeset::Change {
            path: path.clone(),
            action: Action::Put {
                meta: found.meta.clone(),
                source: tree.source(path),
                link: None,
            },
        });
    });
    lines(&Changeset {
        changes,
        ..Changeset::default()
    })
}
