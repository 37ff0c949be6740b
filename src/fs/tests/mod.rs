mod place;
mod source;
mod sparse;
mod tar;
mod toc;
mod tree;

use super::*;

/// Makes a path from text.
fn path(text: &str) -> RelPath {
    RelPath::clean(text.as_bytes()).expect("no NUL")
}

fn put(text: &str, meta: Meta) -> TocEntry {
    TocEntry {
        path: path(text),
        node: Node::Put {
            meta,
            content: None,
            link: None,
        },
    }
}

fn file(text: &str, size: u64) -> TocEntry {
    put(text, Meta::file(0o644, size, Time::default()))
}

fn dir(text: &str) -> TocEntry {
    put(text, Meta::dir(0o755, Time::default()))
}

fn symlink(text: &str, target: &str) -> TocEntry {
    let meta = Meta {
        kind: Kind::Symlink,
        target: target.into(),
        ..Meta::dir(0o777, Time::default())
    };
    put(text, meta)
}

fn delete(text: &str) -> TocEntry {
    TocEntry {
        path: path(text),
        node: Node::Delete,
    }
}

fn opaque(text: &str) -> TocEntry {
    TocEntry {
        path: path(text),
        node: Node::Opaque(Meta::dir(0o700, Time::default())),
    }
}

/// The order is that of the components, however much two paths have in common.
#[test]
fn paths_are_ordered_by_their_components() {
    let stems = [
        "",
        "a/",
        "0123456789abcdef/0123456789abcde/",
        "0123456789abcdef/0123456789abcdef/",
    ];
    let ends = [
        "", "a", "a-", "a-/b", "a/", "a/b", "a0", "ab", "b/a", "\u{e9}",
    ];
    let paths: Vec<RelPath> = stems
        .iter()
        .flat_map(|stem| ends.iter().map(move |end| path(&format!("{stem}{end}"))))
        .collect();
    for a in &paths {
        for b in &paths {
            let parts = |path: &RelPath| path.components().map(<[u8]>::to_vec).collect::<Vec<_>>();
            assert_eq!(a.cmp(b), parts(a).cmp(&parts(b)), "{a} {b}");
            let common = parts(a)
                .into_iter()
                .zip(parts(b))
                .take_while(|(a, b)| a == b)
                .fold(RelPath::root(), |dir, (part, _)| dir.join(&part));
            assert_eq!(a.common(b), common, "{a} {b}");
        }
    }
}
