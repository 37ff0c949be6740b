mod archive;
mod fetched;
mod hostile;
mod linked;
mod picked;

use super::*;
use crate::changeset::Action;
use crate::fs::{Content, Kind, LayerView, Meta, Node, Source, Toc, TocEntry};
use crate::plan::{self, Chmod, CopyOp, CopySource, Unpack};
use crate::sys::Cancel;
use std::collections::HashMap;
use std::os::unix::fs::{PermissionsExt, symlink};

const NOW: Time = Time {
    secs: 1_700_000_000,
    nanos: 0,
};

/// Makes a context directory of lines: `path mode content`, `path/ mode`, `path -> target`,
/// `path = hard link`.
fn context(lines: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut modes = Vec::new();
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let path = words.next().unwrap();
        let second = words.next().unwrap_or("644");
        let third = words.next().unwrap_or_default();
        let at = dir.path().join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        match second {
            "->" => symlink(third, &at).unwrap(),
            "=" => std::fs::hard_link(dir.path().join(third), &at).unwrap(),
            mode => {
                if path.ends_with('/') {
                    std::fs::create_dir_all(&at).unwrap();
                } else {
                    std::fs::write(&at, third).unwrap();
                }
                modes.push((at, u32::from_str_radix(mode, 8).unwrap()));
            }
        }
    }
    for (path, mode) in modes {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

/// Makes a tree of lines: `path mode uid:gid content`, `path/ mode uid:gid`, `path -> target`,
/// `path = first name`, `path fifo`.
fn tree(lines: &[&str]) -> Tree {
    let mut files: HashMap<RelPath, Source> = HashMap::new();
    let mut metas: HashMap<RelPath, Meta> = HashMap::new();
    let mut entries = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let path = clean(words[0]).unwrap();
        let owner = words.get(2).copied().unwrap_or("0:0");
        let (uid, gid) = owner.split_once(':').unwrap_or(("0", "0"));
        let mut link = None;
        let mut meta = match words.get(1).copied().unwrap_or("755") {
            "->" => Meta {
                kind: Kind::Symlink,
                target: words[2].into(),
                ..Meta::dir(0o777, NOW)
            },
            "=" => {
                let first = clean(words[2]).unwrap();
                let meta = metas[&first].clone();
                link = Some(first);
                meta
            }
            "fifo" => Meta {
                kind: Kind::Fifo,
                ..Meta::dir(0o644, NOW)
            },
            mode => {
                let mode = u32::from_str_radix(mode, 8).unwrap();
                if words[0].ends_with('/') {
                    Meta::dir(mode, NOW)
                } else {
                    let content = words.get(3).copied().unwrap_or_default().as_bytes();
                    files.insert(path.clone(), Source::Bytes(content.into()));
                    Meta::file(mode, content.len() as u64, NOW)
                }
            }
        };
        if link.is_none() {
            meta.uid = uid.parse().unwrap_or(0);
            meta.gid = gid.parse().unwrap_or(0);
        }
        metas.insert(path.clone(), meta.clone());
        let node = Node::Put {
            meta,
            content: None,
            link,
        };
        entries.push(TocEntry { path, node });
    }
    let mut tree = Tree::default();
    tree.push(Arc::new(LayerView {
        toc: Toc::new(entries),
        content: Content::Each(files),
    }));
    tree
}

/// The base image of the tests.
fn base() -> Tree {
    tree(&[
        "bin/ 755",
        "etc/ 755",
        "etc/passwd 644 0:0 root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n",
        "etc/group 644 0:0 root:x:0:\nstaff:x:50:app\napp:x:1000:\n",
        "tmp/ 1777",
        "tree/ 755",
        "tree/file 644 0:0 base",
        "tree/sub/ 755",
        "tree/sub/deep 644 0:0 deep",
        "tree/link -> file",
        "lnk -> /tree",
        "far -> ../../../tree/sub",
        "gone -> /not/there",
        "t 600 0:0 old",
        "l -> /t",
        "home/ 755",
        "home/app/ 700 1000:1000",
    ])
}

fn op(sources: &[&str], dest: &str) -> CopyOp {
    CopyOp {
        sources: sources
            .iter()
            .map(|s| CopySource::Path((*s).to_owned()))
            .collect(),
        dest: dest.into(),
        ..CopyOp::nothing(plan::From::Context)
    }
}

/// Reads an instruction: flags and words as in a Dockerfile, none of them quoted.
fn instruction(text: &str) -> CopyOp {
    let mut words = text.split(' ');
    let name = words.next().unwrap();
    let mut out = CopyOp {
        instruction: if name == "ADD" { "ADD" } else { "COPY" },
        ..op(&[], "")
    };
    if name == "ADD" {
        out.unpack = Unpack::Local;
    }
    let mut rest = Vec::new();
    for word in words {
        let (flag, value) = word.split_once('=').unwrap_or((word, ""));
        match flag {
            "--link" => out.link = true,
            "--parents" => out.parents = true,
            "--exclude" => out.exclude.push(value.to_owned()),
            "--chown" => out.chown = Some(value.to_owned()),
            "--chmod" => out.chmod = Some(Chmod::parse(value).unwrap()),
            "--unpack" if value == "false" => out.unpack = Unpack::Never,
            "--unpack" => out.unpack = Unpack::All,
            _ => rest.push(word),
        }
    }
    out.dest = rest.pop().unwrap().to_owned();
    let path = |source: &&str| CopySource::Path((*source).to_owned());
    out.sources = rest.iter().map(path).collect();
    out
}

/// A table of instructions with what each makes, or why it fails.
type Table<'a> = &'a [(&'a str, Result<&'a [&'a str], &'a str>)];

fn check(table: Table<'_>, from: &Origin<'_>, dest: &Tree) {
    for (text, expected) in table {
        let expected = expected
            .map(|lines| lines.iter().map(|line| (*line).to_owned()).collect())
            .map_err(str::to_owned);
        assert_eq!(
            carry_out(&instruction(text), from, dest),
            expected,
            "{text}"
        );
    }
}

/// Writes a changeset as lines; a file's content is behind its owner.
fn lines(changeset: &Changeset) -> Vec<String> {
    let line = |change: &crate::changeset::Change| {
        let path = String::from_utf8_lossy(change.path.as_bytes()).into_owned();
        let about = |meta: &Meta| format!("{:o} {}:{}", meta.mode, meta.uid, meta.gid);
        match &change.action {
            Action::Delete => format!("{path} gone"),
            Action::Opaque(meta) => format!("{path}/ opaque {}", about(meta)),
            Action::Put {
                link: Some(link), ..
            } => format!("{path} = {}", String::from_utf8_lossy(link.as_bytes())),
            Action::Put { meta, source, .. } => match meta.kind {
                Kind::Dir => format!("{path}/ {}", about(meta)),
                Kind::Symlink => format!("{path} -> {}", String::from_utf8_lossy(&meta.target)),
                Kind::File => {
                    let mut text = String::new();
                    let source = source.as_ref().unwrap();
                    std::io::Read::read_to_string(&mut source.open().unwrap(), &mut text).unwrap();
                    assert_eq!(meta.size, text.len() as u64);
                    format!("{path} {} {text}", about(meta))
                }
                other => format!("{path} {other:?} {}", about(meta)),
            },
        }
    };
    changeset.changes.iter().map(line).collect()
}

/// Carries out a copy; what it unpacks lies in `scratch`.
fn make(
    op: &CopyOp,
    from: &Origin<'_>,
    fetched: &[Fetched],
    dest: &Tree,
    scratch: &tempfile::TempDir,
) -> Result<Changeset, Error> {
    let (dates, cancel) = (Dates::made(NOW), Cancel::new().unwrap());
    copy(op, from, fetched, dest, scratch.path(), dates, &cancel)
}

fn carry_out(op: &CopyOp, from: &Origin<'_>, dest: &Tree) -> Result<Vec<String>, String> {
    let scratch = tempfile::tempdir().unwrap();
    match make(op, from, &[], dest, &scratch) {
        Ok(changeset) => Ok(lines(&changeset)),
        Err(error) => Err(error.to_string()),
    }
}

const FILES: &[&str] = &[
    "a.txt 644 a",
    "b.txt 600 b",
    "x.md 644 x",
    "dir/ 750",
    "dir/.hid 644 h",
    "dir/c.txt 755 c",
    "dir/sub/ 700",
    "dir/sub/d.txt 644 d",
    "ln -> a.txt",
    "dirln -> dir",
    "up -> ../../../a.txt",
    "loop -> loop",
    "links/ 755",
    "links/in -> ../a.txt",
    "links/dangling -> /no/such",
    "hard/1 644 same",
    "hard/2 = hard/1",
];

#[test]
fn copies_from_the_context() {
    let dir = context(FILES);
    let context = Context::open(dir.path(), &dir.path().join("Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    type Outcome<'a> = Result<&'a [&'a str], &'a str>;
    let table: &[(&[&str], &str, Outcome<'_>)] = &[
        (&["a.txt"], "/", Ok(&["a.txt 644 0:0 a"])),
        (
            &["a.txt"],
            "/new/name",
            Ok(&["new/ 755 0:0", "new/name 644 0:0 a"]),
        ),
        (
            &["a.txt"],
            "/new/",
            Ok(&["new/ 755 0:0", "new/a.txt 644 0:0 a"]),
        ),
        (&["a.txt"], "/tree", Ok(&["tree/a.txt 644 0:0 a"])),
        (&["a.txt"], "/tree/file", Ok(&["tree/file 644 0:0 a"])),
        // Several sources for one name: the last stays.
        (&["a.txt", "b.txt"], "/n", Ok(&["n 600 0:0 b"])),
        (
            &["./a.txt", "/b.txt"],
            "/n/",
            Ok(&["n/ 755 0:0", "n/a.txt 644 0:0 a", "n/b.txt 600 0:0 b"]),
        ),
        // The context root bounds every path.
        (&["../../a.txt"], "/n", Ok(&["n 644 0:0 a"])),
        (
            &["../../etc/passwd"],
            "/n",
            Err("\"/etc/passwd\": not found"),
        ),
        (&["nope"], "/n", Err("\"/nope\": not found")),
        (&["a.txt/x"], "/n", Err("\"/a.txt/x\": not found")),
        // A directory's content, not itself; the directory made for it is a plain one.
        (
            &["dir"],
            "/d",
            Ok(&[
                "d/ 755 0:0",
                "d/.hid 644 0:0 h",
                "d/c.txt 755 0:0 c",
                "d/sub/ 700 0:0",
                "d/sub/d.txt 644 0:0 d",
            ]),
        ),
        // What is there stays as it is; inside a copied directory its metadata goes along.
        (
            &["dir"],
            "/tree",
            Ok(&[
                "tree/.hid 644 0:0 h",
                "tree/c.txt 755 0:0 c",
                "tree/sub/ 700 0:0",
                "tree/sub/d.txt 644 0:0 d",
            ]),
        ),
        (&["x.md"], "/tmp/", Ok(&["tmp/x.md 644 0:0 x"])),
        (
            &["links"],
            "/tmp",
            Ok(&["tmp/dangling -> /no/such", "tmp/in -> ../a.txt"]),
        ),
        // Links of the destination are followed, inside its root.
        (&["a.txt"], "/lnk", Ok(&["tree/a.txt 644 0:0 a"])),
        (
            &["a.txt"],
            "/lnk/new/a",
            Ok(&["tree/new/ 755 0:0", "tree/new/a 644 0:0 a"]),
        ),
        (&["a.txt"], "/far/", Ok(&["tree/sub/a.txt 644 0:0 a"])),
        (&["a.txt"], "/l", Ok(&["t 644 0:0 a"])),
        (
            &["a.txt"],
            "/gone",
            Ok(&["not/ 755 0:0", "not/there 644 0:0 a"]),
        ),
        (&["dir/sub"], "/lnk", Ok(&["tree/d.txt 644 0:0 d"])),
        (&["dir"], "/t", Err("cannot copy to non-directory: /t")),
        (&["a.txt"], "/t/x", Err("mkdir /t: not a directory")),
        // Links of the context are followed where they are named.
        (&["ln"], "/n", Ok(&["n 644 0:0 a"])),
        (&["ln"], "/tmp/", Ok(&["tmp/ln 644 0:0 a"])),
        (&["up"], "/n", Ok(&["n 644 0:0 a"])),
        (
            &["dirln/sub"],
            "/n",
            Ok(&["n/ 755 0:0", "n/d.txt 644 0:0 d"]),
        ),
        (&["loop"], "/n", Err("resolve /loop")),
        (
            &["links/dangling"],
            "/n",
            Err(
                "\"/links/dangling\": not found: \"/links/dangling\" is a symbolic link to \"/no/such\", and that is not there",
            ),
        ),
        // Hard links stay.
        (
            &["hard"],
            "/h",
            Ok(&["h/ 755 0:0", "h/1 644 0:0 same", "h/2 = h/1"]),
        ),
        // Patterns.
        (
            &["*.txt"],
            "/tmp/",
            Ok(&["tmp/a.txt 644 0:0 a", "tmp/b.txt 600 0:0 b"]),
        ),
        (
            &["dir/*/d.t?t"],
            "/w/",
            Ok(&["w/ 755 0:0", "w/d.txt 644 0:0 d"]),
        ),
        (
            &["[a-b].txt"],
            "/tmp/",
            Ok(&["tmp/a.txt 644 0:0 a", "tmp/b.txt 600 0:0 b"]),
        ),
        (&["d*r/s*"], "/w", Ok(&["w/ 755 0:0", "w/d.txt 644 0:0 d"])),
        (&["*.none"], "/w/", Ok(&[])),
        (&["nodir/*"], "/w/", Err("\"/nodir\": not found")),
        (&["a.txt/*"], "/w/", Ok(&[])),
        (&["[^x]ir/c.txt"], "/w", Ok(&["w 755 0:0 c"])),
        // A class may be a slash.
        (&["dir[^x]c.txt"], "/w", Ok(&["w 755 0:0 c"])),
        // A directory that matches is not gone into.
        (
            &["d*", "dir/*"],
            "/w/",
            Ok(&[
                "w/ 755 0:0",
                "w/.hid 644 0:0 h",
                "w/c.txt 755 0:0 c",
                "w/d.txt 644 0:0 d",
                "w/sub/ 700 0:0",
                "w/sub/d.txt 644 0:0 d",
            ]),
        ),
        (
            &["dirln/*.txt"],
            "/w/",
            Ok(&["w/ 755 0:0", "w/c.txt 755 0:0 c"]),
        ),
        (&["*ln/c.txt"], "/w/", Ok(&[])),
    ];
    for (sources, dest, expected) in table {
        let expected = expected
            .map(|lines| {
                lines
                    .iter()
                    .map(|line| (*line).to_owned())
                    .collect::<Vec<_>>()
            })
            .map_err(str::to_owned);
        let got = carry_out(&op(sources, dest), &from, &base());
        assert_eq!(got, expected, "COPY {sources:?} {dest}");
    }
}

#[test]
fn owners_and_modes() {
    let dir = context(FILES);
    let context = Context::open(dir.path(), &dir.path().join("Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let table: &[(&str, &str, &str, &str, &[&str])] = &[
        (
            "app:staff",
            "",
            "dir/sub",
            "/d",
            &["d/ 755 1000:50", "d/d.txt 644 1000:50 d"],
        ),
        ("app", "", "a.txt", "/n", &["n 644 1000:1000 a"]),
        ("12", "", "a.txt", "/n", &["n 644 12:12 a"]),
        (
            "12:34",
            "",
            "a.txt",
            "/deep/er/n",
            &[
                "deep/ 755 12:34",
                "deep/er/ 755 12:34",
                "deep/er/n 644 12:34 a",
            ],
        ),
        ("ghost", "", "a.txt", "/n", &["n 644 0:0 a"]),
        ("app:ghost", "", "a.txt", "/n", &["n 644 1000:1000 a"]),
        ("0:staff", "", "a.txt", "/n", &["n 644 0:50 a"]),
        ("", "600", "a.txt", "/n", &["n 600 0:0 a"]),
        ("", "4755", "a.txt", "/n", &["n 4755 0:0 a"]),
        (
            "",
            "0711",
            "dir/sub",
            "/d",
            &["d/ 711 0:0", "d/d.txt 711 0:0 d"],
        ),
        (
            "",
            "u=rwX,go=rX",
            "dir",
            "/d",
            &[
                "d/ 755 0:0",
                "d/.hid 644 0:0 h",
                "d/c.txt 755 0:0 c",
                "d/sub/ 755 0:0",
                "d/sub/d.txt 644 0:0 d",
            ],
        ),
        ("", "+x", "a.txt", "/n", &["n 755 0:0 a"]),
        ("", "+w", "a.txt", "/n", &["n 666 0:0 a"]),
        ("", "a+w,o-r", "a.txt", "/n", &["n 662 0:0 a"]),
        ("", "g=u,o=", "a.txt", "/n", &["n 660 0:0 a"]),
        ("", "u+s,+t", "a.txt", "/n", &["n 5644 0:0 a"]),
        // Directories that have to be made get permissions of an octal mode, and nothing else.
        (
            "",
            "4711",
            "a.txt",
            "/x/n",
            &["x/ 711 0:0", "x/n 4711 0:0 a"],
        ),
        (
            "",
            "g=u,o=",
            "a.txt",
            "/x/n",
            &["x/ 755 0:0", "x/n 660 0:0 a"],
        ),
        // Nothing is nobody; on one side of the colon it is root.
        (":staff", "", "a.txt", "/n", &["n 644 0:50 a"]),
        ("app:", "", "a.txt", "/n", &["n 644 1000:0 a"]),
        ("app:root", "", "a.txt", "/n", &["n 644 1000:0 a"]),
        ("root", "", "a.txt", "/n", &["n 644 0:0 a"]),
        ("12:staff", "", "a.txt", "/n", &["n 644 12:50 a"]),
        ("app:7", "", "a.txt", "/n", &["n 644 1000:7 a"]),
        // These are no numbers of users, and nobody is called that.
        ("2147483648", "", "a.txt", "/n", &["n 644 0:0 a"]),
        ("-1", "", "a.txt", "/n", &["n 644 0:0 a"]),
    ];
    for (chown, chmod, source, dest, expected) in table {
        let mut op = op(&[source], dest);
        op.chown = Some((*chown).to_owned());
        op.chmod = (!chmod.is_empty()).then(|| Chmod::parse(chmod).unwrap());
        let got = carry_out(&op, &from, &base()).unwrap();
        assert_eq!(
            &got, expected,
            "--chown={chown} --chmod={chmod} {source} {dest}"
        );
    }
}

#[test]
fn inline_files() {
    let mut op = op(&[], "/two/");
    op.inline = vec![
        ("EOF".into(), b"raw\n".to_vec()),
        ("tab".into(), b"t\n".to_vec()),
    ];
    let dir = context(&[]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let got = carry_out(&op, &from, &base()).unwrap();
    assert_eq!(
        got,
        [
            "two/ 755 0:0",
            "two/EOF 644 0:0 raw\n",
            "two/tab 644 0:0 t\n"
        ]
    );
    op.chmod = Chmod::parse("750").ok();
    let got = carry_out(&op, &from, &base()).unwrap();
    assert_eq!(
        got,
        [
            "two/ 750 0:0",
            "two/EOF 750 0:0 raw\n",
            "two/tab 750 0:0 t\n"
        ]
    );
}

#[test]
fn copies_from_a_tree() {
    let other = tree(&[
        "o/ 711 5:6",
        "o/p/ 755",
        "o/p/f 600 7:8 1",
        "o/p/g = o/p/f",
        "o/p/l -> f",
        "o/p/pipe fifo",
        "abs -> /o/p",
    ]);
    let from = Origin::Tree(&other);
    let table: &[(&str, &str, Option<&str>, &[&str])] = &[
        (
            "/o",
            "/o",
            None,
            &[
                "o/ 755 0:0",
                "o/p/ 755 0:0",
                "o/p/f 600 7:8 1",
                "o/p/g = o/p/f",
                "o/p/l -> f",
                "o/p/pipe Fifo 644 0:0",
            ],
        ),
        ("/o/p/l", "/l2", None, &["l2 600 7:8 1"]),
        ("/abs/f", "/n", None, &["n 600 7:8 1"]),
        ("/o/p/f", "/n", Some("app"), &["n 600 1000:1000 1"]),
        ("/*/p/f", "/n", None, &["n 600 7:8 1"]),
        (
            "o",
            "/n",
            None,
            &[
                "n/ 755 0:0",
                "n/p/ 755 0:0",
                "n/p/f 600 7:8 1",
                "n/p/g = n/p/f",
                "n/p/l -> f",
                "n/p/pipe Fifo 644 0:0",
            ],
        ),
    ];
    for (source, dest, chown, expected) in table {
        let mut op = op(&[source], dest);
        op.chown = chown.map(str::to_owned);
        let got = carry_out(&op, &from, &base()).unwrap();
        assert_eq!(&got, expected, "{source} {dest}");
    }
}

#[test]
fn a_link_whose_first_name_is_overwritten_keeps_its_content() {
    let dir = context(&["hard/1 644 same", "hard/2 = hard/1", "other/1 600 new"]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let got = carry_out(&op(&["hard", "other"], "/h"), &from, &base()).unwrap();
    assert_eq!(got, ["h/ 755 0:0", "h/1 600 0:0 new", "h/2 644 0:0 same"]);
}

#[test]
fn what_the_ignore_file_leaves_out_is_not_there() {
    let dir = context(&[
        ".dockerignore 644 node_modules\n**/*.log\ndocs/*\n!docs/README.md\nall\n!all/keep/*\n",
        "Dockerfile 644 x",
        "node_modules/x 644 x",
        "a/b.log 644 x",
        "a/c 644 c",
        "docs/a.md 644 x",
        "docs/README.md 644 r",
        "all/x 644 x",
        "all/keep/y 644 y",
    ]);
    let context = Context::open(dir.path(), &dir.path().join("Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let got = carry_out(&op(&["."], "/c/"), &from, &base()).unwrap();
    let paths: Vec<&str> = got
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        paths,
        [
            "c/",
            "c/.dockerignore",
            "c/Dockerfile",
            "c/a/",
            "c/a/c",
            "c/all/",
            "c/all/keep/",
            "c/all/keep/y",
            "c/docs/",
            "c/docs/README.md"
        ]
    );
    let table = [
        (
            "node_modules/x",
            "\"/node_modules/x\": not found: the ignore file leaves it out of the context",
        ),
        (
            "a/b.log",
            "\"/a/b.log\": not found: the ignore file leaves it out of the context",
        ),
        ("a/nope", "\"/a/nope\": not found"),
    ];
    for (source, expected) in table {
        let error = carry_out(&op(&[source], "/c/"), &from, &base()).unwrap_err();
        assert_eq!(error, expected);
    }
    let got = carry_out(&op(&["a/*"], "/tmp/"), &from, &base()).unwrap();
    assert_eq!(got, ["tmp/c 644 0:0 c"]);
}

#[test]
fn the_ignore_file_of_the_dockerfile_wins() {
    let dir = context(&[
        ".dockerignore 644 a",
        "D.dockerignore 644 b\nD*\n.dockerignore",
        "D 644 x",
        "a 644 a",
        "b 644 b",
    ]);
    let context = Context::open(dir.path(), &dir.path().join("D")).unwrap();
    let got = carry_out(&op(&["."], "/tmp"), &Origin::Context(&context), &base()).unwrap();
    assert_eq!(got, ["tmp/a 644 0:0 a"]);
    let error = Context::open(&dir.path().join("none"), Path::new("D"))
        .err()
        .unwrap();
    assert!(
        error.to_string().starts_with("open the build context /"),
        "{error}"
    );
}

#[test]
fn working_directories() {
    let table: &[(&str, &str, &[&str])] = &[
        ("/tree", "app", &[]),
        (
            "/made/here",
            "app",
            &["made/ 755 1000:1000", "made/here/ 755 1000:1000"],
        ),
        ("/made", "app:staff", &["made/ 755 1000:50"]),
        ("/made", "", &["made/ 755 0:0"]),
        ("/made", "12", &["made/ 755 12:12"]),
        ("/lnk/newdir", "", &["tree/newdir/ 755 0:0"]),
        (
            "/gone/x",
            "",
            &["not/ 755 0:0", "not/there/ 755 0:0", "not/there/x/ 755 0:0"],
        ),
    ];
    for (path, user, expected) in table {
        let got = lines(&workdir(path, user, &base(), NOW).unwrap());
        assert_eq!(&got, expected, "{path} {user}");
    }
    let error = workdir("/t/x", "", &base(), NOW).unwrap_err();
    assert_eq!(error.to_string(), "mkdir /t: not a directory");
}

#[test]
fn users() {
    let ok = |uid, gid, groups: &[u32], home: &str| {
        Ok(User {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.into(),
        })
    };
    let table: &[(&str, Result<User, &str>)] = &[
        ("", ok(0, 0, &[], "/root")),
        ("root", ok(0, 0, &[], "/root")),
        ("app", ok(1000, 1000, &[50], "/home/app")),
        ("1000", ok(1000, 1000, &[50], "/home/app")),
        ("app:staff", ok(1000, 50, &[], "/home/app")),
        ("app:50", ok(1000, 50, &[], "/home/app")),
        ("1234", ok(1234, 0, &[], "/")),
        ("1234:4321", ok(1234, 4321, &[], "/")),
        (":staff", ok(0, 50, &[], "/root")),
        (
            "foo",
            Err("unable to find user foo: no matching entries in passwd file"),
        ),
        (
            "app:foo",
            Err("unable to find group foo: no matching entries in group file"),
        ),
        (
            "-1",
            Err("unable to find user -1: no matching entries in passwd file"),
        ),
        ("2147483647", ok(2147483647, 0, &[], "/")),
        (
            "4294967295",
            Err("user 4294967295: users and groups must be numbers from 0 to 2147483647"),
        ),
        (
            "app:2147483648",
            Err("user app:2147483648: users and groups must be numbers from 0 to 2147483647"),
        ),
    ];
    for (spec, expected) in table {
        let got = user(spec, &base()).map_err(|error| error.to_string());
        let expected = expected.clone().map_err(str::to_owned);
        assert_eq!(got, expected, "{spec}");
    }
    let empty = Tree::default();
    assert_eq!(user("", &empty).unwrap().home, "/");
    assert!(user("app", &empty).is_err());
}
