//! Changesets as lines of text: `d PATH` puts a directory, `f PATH TEXT` a file, `l PATH FIRST` a
//! hard link, `o PATH` an opaque directory, `- PATH` a deletion. A mode or a time stands in brackets
//! behind the letter: `d[700]`, `f@5`.

use super::*;
use crate::fs::{Content, Kind, LayerView, Node, Time, Toc, TocEntry, Tree};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

fn path(text: &str) -> RelPath {
    RelPath::clean(text.as_bytes()).expect("no NUL")
}

fn parse(lines: &[&str]) -> Changeset {
    let mut changeset = Changeset::default();
    let mut files: HashMap<&str, Meta> = HashMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let head = words.next().unwrap_or_default();
        let name = words.next().unwrap_or_default();
        let text = words.next().unwrap_or_default();
        let (head, secs) = head.split_once('@').unwrap_or((head, "1"));
        let (kind, mode) = match head.split_once('[') {
            Some((kind, mode)) => (kind, mode.trim_end_matches(']')),
            None => (head, if head == "f" { "644" } else { "755" }),
        };
        let mode = u32::from_str_radix(mode, 8).expect("a mode");
        let (secs, nanos) = secs.split_once('.').unwrap_or((secs, "0"));
        let time = Time {
            secs: secs.parse().expect("seconds"),
            nanos: nanos.parse().expect("nanoseconds"),
        };
        let action = match kind {
            "-" => Action::Delete,
            "o" => Action::Opaque(Meta::dir(mode, time)),
            "d" => Action::Put {
                meta: Meta::dir(mode, time),
                source: None,
                link: None,
            },
            "f" => {
                let meta = Meta::file(mode, text.len() as u64, time);
                files.insert(name, meta.clone());
                Action::Put {
                    meta,
                    source: Some(Source::Bytes(text.as_bytes().into())),
                    link: None,
                }
            }
            "l" => Action::Put {
                meta: files
                    .get(text)
                    .cloned()
                    .unwrap_or(Meta::file(0o644, 0, time)),
                source: None,
                link: Some(path(text)),
            },
            other => panic!("{other}"),
        };
        changeset.changes.push(Change {
            path: path(name),
            action,
        });
    }
    changeset
}

fn print(changeset: &Changeset) -> Vec<String> {
    let changes = changeset.changes.iter();
    changes
        .map(|Change { path, action }| {
            let name = String::from_utf8_lossy(path.as_bytes()).into_owned();
            let head = |kind: &str, meta: &Meta, usual: u32| {
                let mode = match meta.mode == usual {
                    true => String::new(),
                    false => format!("[{:o}]", meta.mode),
                };
                let time = match meta.mtime {
                    Time { secs: 1, nanos: 0 } => String::new(),
                    Time { secs, nanos: 0 } => format!("@{secs}"),
                    Time { secs, nanos } => format!("@{secs}.{nanos}"),
                };
                format!("{kind}{mode}{time} {name}")
            };
            match action {
                Action::Delete => format!("- {name}"),
                Action::Opaque(meta) => head("o", meta, 0o755),
                Action::Put { meta, .. } if meta.kind == Kind::Dir => head("d", meta, 0o755),
                Action::Put {
                    link: Some(first), ..
                } => {
                    format!("l {name} {}", String::from_utf8_lossy(first.as_bytes()))
                }
                Action::Put {
                    meta,
                    source: Some(Source::Bytes(text)),
                    ..
                } => {
                    format!(
                        "{} {}",
                        head("f", meta, 0o644),
                        String::from_utf8_lossy(text)
                    )
                }
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

fn tree(lines: &[&str]) -> Tree {
    let mut sources = HashMap::new();
    let entries = parse(lines)
        .changes
        .into_iter()
        .map(|Change { path, action }| {
            let node = match action {
                Action::Put { meta, source, link } => {
                    sources.extend(source.map(|source| (path.clone(), source)));
                    Node::Put {
                        meta,
                        content: None,
                        link,
                    }
                }
                Action::Opaque(meta) => Node::Opaque(meta),
                Action::Delete => Node::Delete,
            };
            TocEntry { path, node }
        })
        .collect();
    let mut tree = Tree::default();
    tree.push(Arc::new(LayerView {
        toc: Toc::new(entries),
        content: Content::Each(sources),
    }));
    tree
}

const BASE: &[&str] = &[
    "d d",
    "f d/a aaa",
    "f d/b bbb",
    "d d/s",
    "f d/s/x xxx",
    "f f fff",
    "d[1777] tmp",
];

#[test]
fn settle() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("nothing", &[], &[]),
        ("a new file", &["f new 1"], &["f new 1"]),
        (
            "order",
            &["f z 1", "f a-b 1", "d a", "f a/b 1"],
            &["d a", "f a/b 1", "f a-b 1", "f z 1"],
        ),
        (
            "the tree's parent",
            &["f tmp/x 1"],
            &["d[1777] tmp", "f tmp/x 1"],
        ),
        (
            "its own parent",
            &["d@9 d", "f d/new 1"],
            &["d@9 d", "f d/new 1"],
        ),
        (
            "two parents",
            &["f d/s/new 1"],
            &["d d", "d d/s", "f d/s/new 1"],
        ),
        (
            "siblings",
            &["f d/a 1", "f d/s/x 2", "- d/b"],
            &["d d", "f d/a 1", "- d/b", "d d/s", "f d/s/x 2"],
        ),
        ("no parent anywhere", &["f no/where 1"], &["f no/where 1"]),
        ("equal file", &["d@9 d", "f d/a aaa"], &[]),
        ("equal time by seconds", &["f@1.5 d/a aaa"], &[]),
        ("another time", &["f@2 f fff"], &["f@2 f fff"]),
        ("another mode", &["f[600] f fff"], &["f[600] f fff"]),
        ("same size, other bytes", &["f f ggg"], &["f f ggg"]),
        (
            "time of a directory alone",
            &["d[1777]@9 tmp", "d@9 d", "d@9 d/s"],
            &[],
        ),
        (
            "mode of a directory",
            &["d[700] d/s"],
            &["d d", "d[700] d/s"],
        ),
        ("deletion", &["- f"], &["- f"]),
        ("deletion of nothing", &["- nothing", "- d/nothing"], &[]),
        (
            "deletion with what is below",
            &["- d", "- d/a", "- d/s/x"],
            &["- d"],
        ),
        ("file over directory", &["f d 1", "- d/a"], &["f d 1"]),
        (
            "directory over file",
            &["d f", "f f/in 1", "- f/gone"],
            &["d f", "f f/in 1"],
        ),
        (
            "opaque and empty",
            &["o d"],
            &["d d", "- d/a", "- d/b", "- d/s"],
        ),
        (
            "opaque and made again",
            &["o d", "f d/a aaa", "d d/s"],
            &["d d", "- d/b", "d d/s", "- d/s/x"],
        ),
        (
            "opaque twice",
            &["o d", "o d/s", "f d/s/y 1"],
            &["d d", "- d/a", "- d/b", "d d/s", "- d/s/x", "f d/s/y 1"],
        ),
        (
            "opaque and the same",
            &["o d", "f d/a aaa", "f d/b bbb", "d d/s", "f d/s/x xxx"],
            &[],
        ),
        (
            "opaque file turned directory",
            &["o f", "o f/x"],
            &["d f", "d f/x"],
        ),
        (
            "opaque, directory by file",
            &["o d", "f d/s 1"],
            &["d d", "- d/a", "- d/b", "f d/s 1"],
        ),
        ("root", &["d[700] ", "f f fff"], &["d[700] "]),
        ("root deleted", &["- "], &[]),
        (
            "links",
            &["f a 1", "l b a", "d q", "l q/c a"],
            &["f a 1", "l b a", "d q", "l q/c a"],
        ),
        (
            "links in any order",
            &["f z 1", "l a z", "l b z"],
            &["f a 1", "l b a", "l z a"],
        ),
        (
            "link to a link",
            &["f a 1", "l b a", "l c b"],
            &["f a 1", "l b a", "l c a"],
        ),
        (
            "link to what equals the tree",
            &["f f fff", "l g f", "l h f"],
            &["f g fff", "l h g"],
        ),
        (
            "link that equals the tree",
            &["f a fff", "l f a"],
            &["f a fff"],
        ),
    ];
    for (name, changes, wanted) in cases {
        // The root's own metadata is the tree's.
        let base = [&["d "], BASE].concat();
        let settled = parse(changes).settle(&tree(&base)).expect(name);
        assert_eq!(print(&settled), *wanted, "{name}");
        let again = settled.settle(&tree(&base)).expect(name);
        assert_eq!(print(&again), *wanted, "{name}, settled twice");
    }
}

#[test]
fn many_changes_settle_as_few_do() {
    let names: Vec<String> = (0..500).map(|n| format!("f m/{n:03} {n}")).collect();
    let lines: Vec<&str> = names.iter().map(String::as_str).collect();
    let base = [&["d m"], &lines[..250]].concat();
    let settled = parse(&lines).settle(&tree(&base)).expect("settle");
    let wanted = [&["d m"], &lines[250..]].concat();
    assert_eq!(print(&settled), wanted);
}

#[test]
fn a_link_to_nothing_is_refused() {
    for lines in [&["l a b"][..], &["l a b", "l b a"], &["- b", "l a b"]] {
        let error = parse(lines)
            .settle(&Tree::default())
            .expect_err("a refusal");
        assert_eq!(
            error.to_string(),
            "hard link /a to /b, which is not put with it"
        );
    }
}

#[test]
fn merge() {
    type Lines = &'static [&'static str];
    let cases: &[(&str, Lines, Lines, Lines)] = &[
        ("apart", &["f b 1"], &["f a 2"], &["f a 2", "f b 1"]),
        ("later wins", &["f a 1"], &["f a 2"], &["f a 2"]),
        ("made and deleted", &["d d", "f d/x 1"], &["- d"], &["- d"]),
        ("deleted and made", &["- f"], &["f f 1"], &["f f 1"]),
        (
            "directory again",
            &["- d"],
            &["d d", "f d/x 1"],
            &["o d", "f d/x 1"],
        ),
        (
            "directory for file",
            &["f d 1"],
            &["d d", "f d/x 1"],
            &["o d", "f d/x 1"],
        ),
        (
            "file for directory",
            &["d d", "f d/x 1"],
            &["f d 1"],
            &["f d 1"],
        ),
        (
            "opaque",
            &["d d", "f d/x 1"],
            &["o d", "f d/y 1"],
            &["o d", "f d/y 1"],
        ),
        (
            "opaque stays",
            &["o d", "f d/x 1"],
            &["d[700] d", "f d/y 1"],
            &["o[700] d", "f d/x 1", "f d/y 1"],
        ),
        (
            "directory kept",
            &["d d", "f d/x 1"],
            &["d@9 d", "- d/y"],
            &["d@9 d", "f d/x 1", "- d/y"],
        ),
        (
            "names alike",
            &["f d.x 1", "d d", "f d/x 1"],
            &["- d"],
            &["- d", "f d.x 1"],
        ),
        (
            "first name rewritten",
            &["f a 1", "l b a", "l c a"],
            &["f a 2"],
            &["f a 2", "f b 1", "l c b"],
        ),
        (
            "first name deleted",
            &["f a 1", "l b a"],
            &["- a"],
            &["- a", "f b 1"],
        ),
        (
            "links of both",
            &["f a 1", "l c a"],
            &["f b 2", "l d b"],
            &["f a 1", "f b 2", "l c a", "l d b"],
        ),
        (
            "later link over",
            &["f a 1", "l b a", "l c a"],
            &["f a 2", "l c a"],
            &["f a 2", "f b 1", "l c a"],
        ),
    ];
    for (name, first, second, wanted) in cases {
        let merged = parse(first).merge(parse(second)).expect(name);
        assert_eq!(print(&merged), *wanted, "{name}");
    }
}

#[test]
fn one_live_part_makes_the_whole_live() {
    let live = Changeset {
        state: State::Live,
        ..Changeset::default()
    };
    let merged = live.clone().merge(Changeset::default()).expect("merge");
    assert_eq!(merged.state, State::Live);
    assert_eq!(
        live.settle(&Tree::default()).expect("settle").state,
        State::Live
    );
}

#[test]
fn all_of_a_tree_is_what_is_left_of_its_layers() {
    let table: &[(&[&[&str]], &[&str])] = &[
        (&[], &[]),
        (
            &[&["d a", "f a/b x", "f c y"]],
            &["d a", "f a/b x", "f c y"],
        ),
        // What is above hides what is below, with everything in it.
        (
            &[
                &["d a", "d a/d", "f a/d/e 1", "f b 2", "f c 3"],
                &["o a", "f a/f 4", "- b", "d c", "f c/g 5"],
            ],
            &["d a", "f a/f 4", "d c", "f c/g 5"],
        ),
        // Names of one file stay together where the first is gone or became something else.
        (
            &[&["f a 1", "l b a", "l c a"]],
            &["f a 1", "l b a", "l c a"],
        ),
        (
            &[&["f a 1", "l b a", "l c a"], &["- a"]],
            &["f b 1", "l c b"],
        ),
        (
            &[&["f a 1", "l b a", "l c a", "l d a"], &["f a 2", "- c"]],
            &["f a 2", "f b 1", "l d b"],
        ),
        (&[&["f a 1", "l b a"], &["f b 1"]], &["f a 1", "f b 1"]),
        // Two layers that use the same name for a first one.
        (
            &[&["f a 1", "l b a", "l c a"], &["f a 2", "l d a"]],
            &["f a 2", "f b 1", "l c b", "l d a"],
        ),
    ];
    for (layers, wanted) in table {
        let mut tree = Tree::default();
        for layer in *layers {
            tree.push(Arc::new(Arc::new(parse(layer)).view().unwrap()));
        }
        let got = whole(&tree, &|found| found.meta.mtime);
        let told = |changes: &[Change]| -> Vec<String> {
            let tell = |change: &Change| match &change.action {
                Action::Put { meta, link, source } => {
                    let mut text = String::new();
                    if let Some(source) = source {
                        let mut content = source.open().expect("content");
                        io::Read::read_to_string(&mut content, &mut text).expect("text");
                    }
                    let link = link.as_ref().map(ToString::to_string);
                    format!("{} {:?} {link:?} {text}", change.path, meta.kind)
                }
                other => format!("{other:?}"),
            };
            changes.iter().map(tell).collect()
        };
        assert_eq!(told(&got), told(&parse(wanted).changes), "{layers:?}");
    }
    let mut tree = Tree::default();
    tree.push(Arc::new(Arc::new(parse(&["f@7 a 1"])).view().unwrap()));
    let now = Time { secs: 9, nanos: 0 };
    let stamped = whole(&tree, &|_| now);
    let Action::Put { meta, .. } = &stamped[0].action else {
        panic!("{stamped:?}");
    };
    assert_eq!(meta.mtime, now);
}
