use super::*;
use proptest::prelude::*;

fn rich() -> Toc {
    let meta = Meta {
        kind: Kind::File,
        mode: 0o4755,
        uid: 7,
        gid: u32::MAX,
        size: u64::MAX,
        mtime: Time {
            secs: -5,
            nanos: 999_999_999,
        },
        device: (0, 0),
        target: Vec::new(),
        xattrs: vec![
            (b"security.capability".to_vec(), b"\x01\n\0\xff".to_vec()),
            (b"user.empty".to_vec(), Vec::new()),
        ],
    };
    let linked = TocEntry {
        path: path("b/z"),
        node: Node::Put {
            meta: meta.clone(),
            content: Some([9; 32]),
            link: Some(path("b/a")),
        },
    };
    let first = TocEntry {
        path: path("b/a"),
        node: Node::Put {
            meta,
            content: Some([9; 32]),
            link: None,
        },
    };
    let device = Meta {
        kind: Kind::Block,
        device: (8, 1 << 20),
        ..Meta::dir(0o600, Time::default())
    };
    let odd = TocEntry {
        path: RelPath::clean(b"odd\n\xff").unwrap(),
        node: Node::Put {
            meta: device,
            content: None,
            link: None,
        },
    };
    Toc::new(vec![
        odd,
        linked,
        file("gone", 3),
        dir("b"),
        first,
        delete("gone"),
        opaque("o"),
        symlink("s", "../../x"),
    ])
}

#[test]
fn what_goes_in_comes_out() {
    let toc = rich();
    let paths: Vec<String> = toc.iter().map(|e| format!("{}", e.path)).collect();
    assert_eq!(paths.len(), 7);
    assert_eq!(
        &paths[..6],
        ["/b", "/b/a", "/b/z", "/gone", "/o", "/odd\n\u{fffd}"]
    );
    assert_eq!(toc.get(&path("gone")), Some(Node::Delete));
    assert_eq!(toc.get(&path("nothing")), None);
    for entry in toc.iter() {
        assert_eq!(toc.get(&entry.path), Some(entry.node));
    }
    let again = Toc::parse(toc.to_bytes()).unwrap();
    assert!(again.iter().eq(toc.iter()));
    assert_eq!(again.len(), 7);
}

#[test]
fn a_table_on_disk_is_the_same_bytes() {
    let toc = rich();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("toc");
    std::fs::write(&file, toc.to_bytes()).unwrap();
    let opened = Toc::open(&file).unwrap();
    assert_eq!(opened.as_bytes(), toc.as_bytes());
    assert!(opened.iter().eq(toc.iter()));
    std::fs::write(&file, b"").unwrap();
    assert!(Toc::open(&file).is_err());
}

#[test]
fn an_empty_table_has_nothing() {
    let toc = Toc::new(Vec::new());
    assert!(toc.is_empty() && toc.get(&RelPath::root()).is_none());
    assert_eq!(toc.children(&RelPath::root()).count(), 0);
    assert!(Toc::parse(toc.to_bytes()).unwrap().is_empty());
}

#[test]
fn children_skip_subtrees() {
    let mut entries = vec![
        dir("a"),
        dir("a/b"),
        file("a/c", 1),
        file("a-b", 1),
        file("a.b", 1),
    ];
    for n in 0..1000 {
        entries.push(file(&format!("a/b/{n}"), 1));
    }
    let toc = Toc::new(entries);
    let names = |text: &str| -> Vec<String> {
        toc.children(&path(text))
            .map(|e| e.path.to_string())
            .collect()
    };
    assert_eq!(names("a"), ["/a/b", "/a/c"]);
    assert_eq!(names(""), ["/a", "/a-b", "/a.b"]);
    assert_eq!(names("a/b").len(), 1000);
    assert!(names("a/c").is_empty() && names("zz").is_empty());
}

#[test]
fn a_table_damaged_in_a_name_gives_no_such_name() {
    let clean = rich().to_bytes();
    // Every byte after the header in turn becomes what cannot stand in a name, or ends one.
    for at in 64..clean.len() {
        for value in [b'/', b'.', 0] {
            let mut bytes = clean.clone();
            bytes[at] = value;
            let Ok(toc) = Toc::parse(bytes) else { continue };
            let mut tree = Tree::default();
            tree.push(std::sync::Arc::new(LayerView {
                toc,
                content: Content::Each(Default::default()),
            }));
            tree.walk(&RelPath::root(), &mut |path, _| {
                assert!(
                    RelPath::checked(path.as_bytes()).is_some(),
                    "byte {at}: {path:?}"
                );
            });
        }
    }
}

proptest! {
    /// Whatever bytes a table has, reading it ends without a panic.
    #[test]
    fn damage_is_no_panic(hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<prop::sample::Index>(), shorten: bool) {
        let mut bytes = rich().to_bytes();
        // The header is left alone in half of the places, so that the rest is looked at too.
        for (at, value) in hits {
            let at = 64 + at.index(bytes.len() - 64);
            bytes[at] = value;
        }
        if shorten {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(toc) = Toc::parse(bytes) {
            let _ = toc.iter().count();
            let _ = toc.children(&RelPath::root()).count();
            let _ = toc.children(&path("b")).count();
            let _ = toc.get(&path("b/z"));
            let mut tree = Tree::default();
            tree.push(std::sync::Arc::new(LayerView { toc, content: Content::Each(Default::default()) }));
            tree.walk(&RelPath::root(), &mut |_, _| ());
        } else {
            prop_assert!(shorten);
        }
    }
}
