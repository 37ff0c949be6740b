//! Law: a table of contents gives back what was put into it; one whose records and names are
//! damaged (its header is not, which has a checksum) is read without a panic and to an end, alone
//! and in a tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::fs::{
    Content, Kind, LastLink, LayerView, Meta, Node, RelPath, Time, Toc, TocEntry, Tree,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Bytes of a header, which is left alone.
const HEADER: usize = 64;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let entries: Vec<TocEntry> = (0..input.byte() % 24).map(|_| entry(&mut input)).collect();
    let last: BTreeMap<Vec<u8>, &TocEntry> = entries
        .iter()
        .map(|entry| (entry.path.as_bytes().to_vec(), entry))
        .collect();
    let toc = Toc::new(entries.clone());
    assert_eq!(toc.len(), last.len());
    for entry in last.values() {
        assert_eq!(toc.get(&entry.path).as_ref(), Some(&entry.node));
    }
    assert!(
        toc.iter()
            .all(|entry| last.get(entry.path.as_bytes()) == Some(&&entry))
    );
    let again = Toc::parse(toc.to_bytes()).expect("what was written is read");
    assert_eq!(again.as_bytes(), toc.as_bytes());

    let mut bytes = toc.to_bytes();
    for _ in 0..input.byte() % 8 {
        let at = HEADER + usize::from(input.byte()) * 256 + usize::from(input.byte());
        let with = input.byte();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = with;
        }
    }
    let damaged = Toc::parse(bytes).expect("the header is whole");
    for toc in [toc, damaged] {
        let mut tree = Tree::default();
        for _ in 0..2 {
            let content = Content::Each(HashMap::new());
            tree.push(Arc::new(LayerView {
                toc: toc.clone(),
                content,
            }));
        }
        for entry in toc.iter() {
            let _ = tree.get(&entry.path);
            let _ = tree.children(&entry.path);
            let _ = tree.resolve(&entry.path, LastLink::Follow);
            let _ = tree.resolve(&entry.path, LastLink::Keep);
            let _ = tree.source(&entry.path);
            let _ = toc.children(&entry.path).count();
        }
        let mut seen = 0;
        tree.walk(&RelPath::root(), &mut |_, _| seen += 1);
        assert!(seen <= 1 + toc.len() * 64);
    }
});

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn bytes(&mut self) -> Vec<u8> {
        let n = usize::from(self.byte() % 16).min(self.0.len());
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken.to_vec()
    }

    fn path(&mut self) -> RelPath {
        let bytes: Vec<u8> = self.bytes().into_iter().filter(|b| *b != 0).collect();
        RelPath::clean(&bytes).unwrap_or_default()
    }
}

fn entry(input: &mut Input<'_>) -> TocEntry {
    let path = input.path();
    let mut meta = match input.byte() % 3 {
        0 => Meta::dir(input.number() & 0o7777, Time::default()),
        1 => Meta::file(
            input.number() & 0o7777,
            u64::from(input.number()),
            Time::default(),
        ),
        _ => Meta {
            kind: Kind::Symlink,
            target: input.bytes(),
            ..Meta::dir(0o777, Time::default())
        },
    };
    (meta.uid, meta.gid) = (input.number(), input.number());
    meta.mtime = Time {
        secs: i64::from(input.number()) - (1 << 31),
        nanos: input.number() % 1_000_000_000,
    };
    for _ in 0..input.byte() % 3 {
        meta.xattrs.push((input.bytes(), input.bytes()));
    }
    let node = match input.byte() % 5 {
        0 => Node::Delete,
        1 => Node::Opaque(Meta {
            kind: Kind::Dir,
            size: 0,
            target: Vec::new(),
            ..meta
        }),
        n => Node::Put {
            meta,
            content: (n == 2).then(|| [input.byte(); 32]),
            link: (n == 3).then(|| input.path()),
        },
    };
    TocEntry { path, node }
}
