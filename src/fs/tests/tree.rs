use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

fn tree(layers: Vec<Vec<TocEntry>>) -> Tree {
    let mut tree = Tree::default();
    for entries in layers {
        tree.push(Arc::new(LayerView {
            toc: Toc::new(entries),
            content: Content::Each(HashMap::new()),
        }));
    }
    tree
}

/// The slow obvious version: one map, each layer carried out in turn.
fn model(layers: &[Vec<TocEntry>]) -> BTreeMap<RelPath, (Meta, usize)> {
    let mut all: BTreeMap<RelPath, (Meta, usize)> = BTreeMap::new();
    for (at, layer) in layers.iter().enumerate() {
        for entry in layer {
            let below = |path: &RelPath| path.is_within(&entry.path) && *path != entry.path;
            match &entry.node {
                Node::Delete => all.retain(|p, (_, l)| *l == at || !p.is_within(&entry.path)),
                Node::Opaque(_) => all.retain(|p, (_, l)| *l == at || !below(p)),
                Node::Put { meta, .. } if meta.kind != Kind::Dir => {
                    all.retain(|p, (_, l)| *l == at || !below(p));
                }
                Node::Put { .. } => {}
            }
        }
        for entry in layer {
            match &entry.node {
                Node::Put { meta, .. } | Node::Opaque(meta) => {
                    all.insert(entry.path.clone(), (meta.clone(), at));
                }
                Node::Delete => {}
            }
        }
    }
    all
}

/// Makes a layer in which nothing lies below what is no directory, with every directory above.
fn valid(raw: Vec<(Vec<u8>, u8)>) -> Vec<TocEntry> {
    let mut made: BTreeMap<RelPath, u8> = BTreeMap::new();
    for (parts, what) in raw {
        let text = parts
            .iter()
            .map(|n| format!("/{}", ["a", "b", "a-", "b.c"][*n as usize % 4]));
        let at = path(&text.collect::<String>());
        let blocked = at
            .ancestors()
            .any(|p| made.get(&p).is_some_and(|w| w % 4 >= 2));
        let full = made.keys().any(|p| p.is_within(&at) && *p != at);
        if at.is_root() || blocked || full {
            continue;
        }
        for above in at.ancestors().filter(|p| !p.is_root()) {
            made.entry(above).or_insert(0);
        }
        made.insert(at, what);
    }
    made.into_iter()
        .map(|(path, what)| {
            let text = path.to_string();
            match what % 4 {
                0 => dir(&text),
                1 => opaque(&text),
                2 => file(&text, u64::from(what)),
                _ => delete(&text),
            }
        })
        .collect()
}

fn layer() -> impl Strategy<Value = Vec<TocEntry>> {
    let one = (prop::collection::vec(0u8..4, 1..5), any::<u8>());
    prop::collection::vec(one, 0..14).prop_map(valid)
}

proptest! {
    #[test]
    fn a_tree_is_its_layers_in_turn(layers in prop::collection::vec(layer(), 1..6)) {
        let wanted = model(&layers);
        let tree = tree(layers.clone());
        let mut walked = BTreeMap::new();
        let mut order = Vec::new();
        tree.walk(&RelPath::root(), &mut |path, found| {
            order.push(path.clone());
            if !path.is_root() {
                walked.insert(path.clone(), (found.meta.clone(), found.layer));
            }
        });
        prop_assert_eq!(&walked, &wanted);
        prop_assert!(order.is_sorted());
        let every = layers.iter().flatten().map(|e| e.path.clone()).chain([RelPath::root()]);
        for path in every {
            let got = tree.get(&path).map(|f| (f.meta, f.layer));
            if !path.is_root() {
                prop_assert_eq!(got.as_ref(), wanted.get(&path), "{}", path);
            }
            let children: Vec<RelPath> = tree.children(&path).iter().map(|(n, _)| path.join(n)).collect();
            let expected: Vec<RelPath> = wanted.keys().filter(|p| p.parent().as_ref() == Some(&path)).cloned().collect();
            prop_assert_eq!(children, expected, "{}", path);
        }
    }
}

#[test]
fn links_are_followed_inside_the_root() {
    let tree = tree(vec![vec![
        dir("usr"),
        dir("usr/bin"),
        file("usr/bin/sh", 1),
        symlink("bin", "usr/bin"),
        symlink("up", "../../../../usr"),
        symlink("abs", "/bin/sh"),
        symlink("loop", "loop"),
        symlink("usr/rel", "./../bin"),
        symlink("dangling", "/no/where"),
        symlink("damaged", "usr/b\0in"),
    ]]);
    use LastLink::{Follow, Keep};
    for (from, last, to) in [
        ("bin/sh", Follow, "usr/bin/sh"),
        ("abs", Follow, "usr/bin/sh"),
        ("abs", Keep, "abs"),
        ("up/bin/sh", Keep, "usr/bin/sh"),
        ("usr/rel/sh", Follow, "usr/bin/sh"),
        ("bin", Keep, "bin"),
        ("dangling/x", Follow, "no/where/x"),
        ("new/file", Follow, "new/file"),
        ("loop", Keep, "loop"),
        ("", Follow, ""),
    ] {
        let got = tree.resolve(&path(from), last).unwrap();
        assert_eq!(got, path(to), "{from}");
    }
    let error = tree.resolve(&path("loop/x"), Follow).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    let error = tree.resolve(&path("damaged"), Follow).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn the_root_is_always_there() {
    let empty = Tree::default();
    let root = empty.get(&RelPath::root()).unwrap();
    assert_eq!((root.meta.kind, root.meta.mode), (Kind::Dir, 0o755));
    assert!(empty.get(&path("x")).is_none());
    assert!(empty.children(&RelPath::root()).is_empty());
}

#[test]
fn content_is_found_under_the_first_name() {
    let mut linked = file("b", 5);
    if let Node::Put { link, .. } = &mut linked.node {
        *link = Some(path("a"));
    }
    let sources = HashMap::from([(path("a"), Source::Bytes(Arc::from(*b"hello")))]);
    let mut tree = Tree::default();
    tree.push(Arc::new(LayerView {
        toc: Toc::new(vec![file("a", 5), linked, symlink("c", "b"), dir("d")]),
        content: Content::Each(sources),
    }));
    for name in ["a", "b", "c"] {
        assert_eq!(
            tree.read(&path(name), 5).unwrap().as_deref(),
            Some(&b"hello"[..])
        );
    }
    assert!(tree.read(&path("d"), 5).unwrap().is_none());
    assert!(tree.read(&path("none"), 5).unwrap().is_none());
    assert!(tree.read(&path("c"), 4).is_err());
}
