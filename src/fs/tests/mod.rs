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
