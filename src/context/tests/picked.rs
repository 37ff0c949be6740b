use super::*;

const FILES: &[&str] = &[
    "a.txt 644 a",
    "b.md 644 b",
    "dir/ 750",
    "dir/.hid 644 h",
    "dir/c.txt 755 c",
    "dir/sub/ 700",
    "dir/sub/d.txt 644 d",
    "dir/sub/e.md 644 e",
    "dir/empty/ 711",
    "other/ 755",
    "other/sub/ 711",
    "other/sub/d.txt 600 o",
    "tree/ 700",
    "tree/sub/ 701",
    "tree/sub/new 644 n",
    "ln -> dir",
    "fln -> a.txt",
    "gone -> nowhere/at/all",
    "dir2/in -> ../dir",
    "dir2/x 644 x",
];

#[test]
fn parents_are_kept() {
    let dir = context(FILES);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let everything: &[&str] = &[
        "p/ 755 0:0",
        "p/dir/ 750 0:0",
        "p/dir/.hid 644 0:0 h",
        "p/dir/c.txt 755 0:0 c",
        "p/dir/empty/ 711 0:0",
        "p/dir/sub/ 700 0:0",
        "p/dir/sub/d.txt 644 0:0 d",
        "p/dir/sub/e.md 644 0:0 e",
    ];
    check(
        &[
            (
                "COPY --parents a.txt /p",
                Ok(&["p/ 755 0:0", "p/a.txt 644 0:0 a"]),
            ),
            (
                "COPY --parents ./a.txt /p/",
                Ok(&["p/ 755 0:0", "p/a.txt 644 0:0 a"]),
            ),
            // The directories on the way come along with what they are.
            (
                "COPY --parents dir/sub/d.txt dir/c.txt /p/",
                Ok(&[
                    "p/ 755 0:0",
                    "p/dir/ 750 0:0",
                    "p/dir/c.txt 755 0:0 c",
                    "p/dir/sub/ 700 0:0",
                    "p/dir/sub/d.txt 644 0:0 d",
                ]),
            ),
            ("COPY --parents dir /p", Ok(everything)),
            ("COPY --parents /dir/ /p", Ok(everything)),
            ("COPY --parents ./dir/. /p", Ok(everything)),
            ("COPY --parents ././dir /p", Ok(everything)),
            (
                "COPY --parents --chown=1:2 --chmod=640 dir/sub/d.txt /p",
                Ok(&[
                    "p/ 640 1:2",
                    "p/dir/ 640 1:2",
                    "p/dir/sub/ 640 1:2",
                    "p/dir/sub/d.txt 640 1:2 d",
                ]),
            ),
            // What is there keeps its owner, and takes the mode of the source.
            (
                "COPY --parents --chown=1:2 --chmod=640 tree/sub/new /",
                Ok(&[
                    "tree/ 700 0:0",
                    "tree/sub/ 701 0:0",
                    "tree/sub/new 640 1:2 n",
                ]),
            ),
            // The pivot.
            (
                "COPY --parents ./dir/./sub/d.txt /q",
                Ok(&["q/ 755 0:0", "q/sub/ 700 0:0", "q/sub/d.txt 644 0:0 d"]),
            ),
            (
                "COPY --parents dir/./c.txt /q",
                Ok(&["q/ 755 0:0", "q/c.txt 755 0:0 c"]),
            ),
            (
                "COPY --parents ln/./c.txt /q",
                Ok(&["q/ 755 0:0", "q/c.txt 755 0:0 c"]),
            ),
            // A pattern before the pivot: each of what it matches is copied to the same place.
            (
                "COPY --parents *r/./sub/*.txt /q",
                Ok(&["q/ 755 0:0", "q/sub/ 711 0:0", "q/sub/d.txt 600 0:0 o"]),
            ),
            (
                "COPY --parents [a-d]*/./sub/*.txt /q",
                Err("cannot copy to non-directory: /q"),
            ),
            // Patterns.
            (
                "COPY --parents **/d.txt /r",
                Ok(&[
                    "r/ 755 0:0",
                    "r/dir/ 750 0:0",
                    "r/dir/sub/ 700 0:0",
                    "r/dir/sub/d.txt 644 0:0 d",
                    "r/other/ 755 0:0",
                    "r/other/sub/ 711 0:0",
                    "r/other/sub/d.txt 600 0:0 o",
                ]),
            ),
            (
                "COPY --parents *.md /r",
                Ok(&["r/ 755 0:0", "r/b.md 644 0:0 b"]),
            ),
            (
                "COPY --parents o*/s?b/* /r",
                Ok(&[
                    "r/ 755 0:0",
                    "r/other/ 755 0:0",
                    "r/other/sub/ 711 0:0",
                    "r/other/sub/d.txt 600 0:0 o",
                ]),
            ),
            ("COPY --parents **/none* /r", Ok(&["r/ 755 0:0"])),
            ("COPY --parents no*/./x /r", Ok(&[])),
            ("COPY --parents no/./x* /r", Err("\"/no\": not found")),
            // The root itself matches no pattern.
            ("COPY --parents . /r", Ok(&["r/ 755 0:0"])),
            // What has no wildcard must be there, and links lead nowhere.
            ("COPY --parents nope /r", Err("\"/nope\": not found")),
            (
                "COPY --parents dir/./nope /r",
                Err("\"/dir/nope\": not found"),
            ),
            (
                "COPY --parents dir/nope/x /r",
                Err("\"/dir/nope/x\": not found"),
            ),
            (
                "COPY --parents ln/c.txt /r",
                Err(
                    "\"/ln/c.txt\": not found: \"/ln\" is a symbolic link to \"dir\", and that is not there",
                ),
            ),
            (
                "COPY --parents fln /r",
                Ok(&["r/ 755 0:0", "r/fln -> a.txt"]),
            ),
            (
                "COPY --parents gone /r",
                Ok(&["r/ 755 0:0", "r/gone -> nowhere/at/all"]),
            ),
            (
                "COPY --parents ../../a.txt /r",
                Ok(&["r/ 755 0:0", "r/a.txt 644 0:0 a"]),
            ),
            ("COPY --parents [ /r", Err("pattern [")),
        ],
        &from,
        &base(),
    );
}

#[test]
fn patterns_are_left_out() {
    let dir = context(FILES);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    check(
        &[
            (
                "COPY --exclude=*.txt --exclude=sub dir /d",
                Ok(&["d/ 755 0:0", "d/.hid 644 0:0 h", "d/empty/ 711 0:0"]),
            ),
            (
                "COPY --exclude=**/*.txt --exclude=.hid --exclude=empty dir /d",
                Ok(&["d/ 755 0:0", "d/sub/ 700 0:0", "d/sub/e.md 644 0:0 e"]),
            ),
            ("COPY --exclude=** dir /d", Ok(&["d/ 755 0:0"])),
            ("COPY --exclude=* dir tree /d", Ok(&["d/ 755 0:0"])),
            // Taken back in, with the directory that leads there.
            (
                "COPY --exclude=* --exclude=!sub/e.md dir /d",
                Ok(&["d/ 755 0:0", "d/sub/ 700 0:0", "d/sub/e.md 644 0:0 e"]),
            ),
            (
                "COPY --exclude=sub --exclude=!sub/new tree /tree",
                Ok(&["tree/sub/ 701 0:0", "tree/sub/new 644 0:0 n"]),
            ),
            ("COPY --exclude=sub --exclude=!sub/none tree /tree", Ok(&[])),
            // A slash in front counts, as with BuildKit: nothing begins with one.
            (
                "COPY --exclude=/sub other /d",
                Ok(&["d/ 755 0:0", "d/sub/ 711 0:0", "d/sub/d.txt 600 0:0 o"]),
            ),
            // What is named, or matches a wildcard of the source, is not left out: BuildKit asks the
            // patterns below it only.
            ("COPY --exclude=a.txt a.txt /n", Ok(&["n 644 0:0 a"])),
            (
                "COPY --exclude=*.txt a.* /w/",
                Ok(&["w/ 755 0:0", "w/a.txt 644 0:0 a"]),
            ),
            (
                "COPY --exclude=x dir2* /w",
                Ok(&["w/ 755 0:0", "w/in -> ../dir"]),
            ),
            // With the parents kept, paths begin at the root.
            (
                "COPY --parents --exclude=**/d.txt --exclude=dir/empty dir other /p",
                Ok(&[
                    "p/ 755 0:0",
                    "p/dir/ 750 0:0",
                    "p/dir/.hid 644 0:0 h",
                    "p/dir/c.txt 755 0:0 c",
                    "p/dir/sub/ 700 0:0",
                    "p/dir/sub/e.md 644 0:0 e",
                    "p/other/ 755 0:0",
                    "p/other/sub/ 711 0:0",
                ]),
            ),
            (
                "COPY --parents --exclude=dir **/d.txt /p",
                Ok(&[
                    "p/ 755 0:0",
                    "p/other/ 755 0:0",
                    "p/other/sub/ 711 0:0",
                    "p/other/sub/d.txt 600 0:0 o",
                ]),
            ),
            (
                "COPY --parents --exclude=sub/d.txt dir/./sub /p",
                Ok(&["p/ 755 0:0", "p/sub/ 700 0:0", "p/sub/e.md 644 0:0 e"]),
            ),
            ("COPY --exclude=[a dir /d", Err("pattern [a")),
            ("COPY --exclude=! dir /d", Err("pattern !")),
        ],
        &from,
        &base(),
    );
}

#[test]
fn ignored_files_are_not_picked() {
    let dir = context(&[
        ".dockerignore 644 all\n!all/keep/y\n**/*.log\n",
        "all/x 644 x",
        "all/keep/ 700",
        "all/keep/y 644 y",
        "all/keep/z 644 z",
        "a/b.log 644 x",
        "a/c 644 c",
    ]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    check(
        &[
            (
                "COPY --parents **/y **/*.log /p",
                Ok(&[
                    "p/ 755 0:0",
                    "p/all/ 755 0:0",
                    "p/all/keep/ 700 0:0",
                    "p/all/keep/y 644 0:0 y",
                ]),
            ),
            (
                "COPY --parents a/b.log /p",
                Err("\"/a/b.log\": not found: the ignore file leaves it out of the context"),
            ),
            // A directory is there for what the ignore file keeps in it, whatever the copy takes.
            (
                "COPY --exclude=all/keep --exclude=.dockerignore --exclude=a . /p",
                Ok(&["p/ 755 0:0", "p/all/ 755 0:0"]),
            ),
            ("COPY --exclude=keep all /p", Ok(&["p/ 755 0:0"])),
            ("COPY --exclude=* all /p", Ok(&["p/ 755 0:0"])),
            (
                "COPY al? /p/",
                Ok(&["p/ 755 0:0", "p/keep/ 700 0:0", "p/keep/y 644 0:0 y"]),
            ),
        ],
        &from,
        &base(),
    );
    std::fs::remove_file(dir.path().join("all/keep/y")).unwrap();
    check(
        &[
            (
                "COPY --exclude=c . /p",
                Ok(&[
                    "p/ 755 0:0",
                    "p/.dockerignore 644 0:0 all\n!all/keep/y\n**/*.log\n",
                    "p/a/ 755 0:0",
                    "p/a/c 644 0:0 c",
                ]),
            ),
            (
                "COPY all /p",
                Err("\"/all\": not found: the ignore file leaves it out of the context"),
            ),
            ("COPY al? /p/", Ok(&[])),
        ],
        &from,
        &base(),
    );
}

#[test]
fn trees_are_picked_from_as_contexts_are() {
    let other = tree(&[
        "usr/ 755",
        "usr/bin/ 711 5:6",
        "usr/bin/a 755 5:6 a",
        "usr/bin/b = usr/bin/a",
        "usr/local/ 755",
        "usr/local/bin/ 700",
        "usr/local/bin/c 755 0:0 c",
        "usr/share/ 755",
        "usr/share/x 644 0:0 x",
        "bin -> usr/bin",
    ]);
    check(
        &[
            (
                "COPY --parents /usr/./**/bin/ /o",
                Ok(&[
                    "o/ 755 0:0",
                    "o/bin/ 711 5:6",
                    "o/bin/a 755 5:6 a",
                    "o/bin/b = o/bin/a",
                    "o/local/ 755 0:0",
                    "o/local/bin/ 700 0:0",
                    "o/local/bin/c 755 0:0 c",
                ]),
            ),
            (
                "COPY --parents /usr/local/bin/c /o",
                Ok(&[
                    "o/ 755 0:0",
                    "o/usr/ 755 0:0",
                    "o/usr/local/ 755 0:0",
                    "o/usr/local/bin/ 700 0:0",
                    "o/usr/local/bin/c 755 0:0 c",
                ]),
            ),
            (
                "COPY --parents /bin/./b /o",
                Ok(&["o/ 755 0:0", "o/b 755 5:6 a"]),
            ),
            (
                "COPY --exclude=a --exclude=**/share /usr /o",
                Ok(&[
                    "o/ 755 0:0",
                    "o/bin/ 711 5:6",
                    "o/bin/a 755 5:6 a",
                    "o/bin/b = o/bin/a",
                    "o/local/ 755 0:0",
                    "o/local/bin/ 700 0:0",
                    "o/local/bin/c 755 0:0 c",
                ]),
            ),
            (
                "COPY --exclude=** --exclude=!**/c /usr /o",
                Ok(&[
                    "o/ 755 0:0",
                    "o/local/ 755 0:0",
                    "o/local/bin/ 700 0:0",
                    "o/local/bin/c 755 0:0 c",
                ]),
            ),
            ("COPY --parents /none /o", Err("\"/none\": not found")),
            (
                "COPY --parents /bin/b /o",
                Err(
                    "\"/bin/b\": not found: \"/bin\" is a symbolic link to \"usr/bin\", and that is not there",
                ),
            ),
        ],
        &Origin::Tree(&other),
        &base(),
    );
}
