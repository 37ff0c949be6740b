//! Law: layers of any entries are unpacked or refused, without a panic; nothing outside their
//! directory is touched; what their tables say is there is there, and of that kind. Input: entries of
//! up to three layers in a few bytes each, so that names meet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::fs::{Node, RelPath, Tree, stat};
use shutter::layer::{BaseLayer, unpack_all};
use shutter::oci::{Descriptor, Digest, Image};
use shutter::progress::{Owner, Sink};
use shutter::store::{Blobs, Store};
use shutter::sys::Cancel;
use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const NAMES: [&str; 16] = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "b/a",
    "a/c",
    ".wh.a",
    "a/.wh.b",
    ".wh..wh..opq",
    "a/.wh..wh..opq",
    "../a",
    "/a/../../b",
    "a/b/../c",
    "c",
    "./",
    "outside",
];

/// A directory in memory where there is one, with a file beside the store that nothing may touch.
static ROOM: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let room = dir.join(format!("shutter-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&room).expect("a directory");
    std::fs::write(room.join("outside"), "outside").expect("a file");
    room
});

struct Memory(HashMap<Digest, Vec<u8>>);

impl Blobs for Memory {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.0.get(&blob.digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    }
}

fuzz_target!(|input: &[u8]| {
    let store = ROOM.join("store");
    let _ = std::fs::remove_dir_all(&store);
    let tars: Vec<Vec<u8>> = input.split(|b| *b == 0xff).take(3).map(tar).collect();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let layers: Vec<BaseLayer> = tars
        .iter()
        .zip(Image::chain_ids(&diff_ids))
        .map(|(tar, chain_id)| BaseLayer {
            descriptor: Descriptor {
                media_type: "application/octet-stream".into(),
                digest: Digest::of(tar),
                size: tar.len() as u64,
                urls: Vec::new(),
                annotations: Default::default(),
            },
            diff_id: Digest::of(tar),
            chain_id,
        })
        .collect();
    let blobs = Memory(diff_ids.iter().copied().zip(tars).collect());
    let open = Store::open(&store).expect("a store");
    let cancel = Cancel::new().expect("a switch");
    if let Ok(unpacked) = unpack_all(&layers, &blobs, &open, &Sink::none(), Owner::Build, &cancel) {
        let mut tree = Tree::default();
        for layer in &unpacked {
            let dir = std::fs::File::open(&layer.dir).expect("the layer's directory");
            for entry in layer.view.toc.iter() {
                let found = stat(dir.as_fd(), &entry.path)
                    .expect("stat")
                    .expect("it is there");
                match entry.node {
                    Node::Put { meta, .. } => {
                        assert_eq!((found.meta.kind, found.meta.size), (meta.kind, meta.size))
                    }
                    Node::Delete => assert!(found.is_whiteout()),
                    Node::Opaque(_) => assert!(found.is_opaque()),
                }
            }
            tree.push(layer.view.clone());
        }
        tree.walk(&RelPath::root(), &mut |path, found| {
            assert_eq!(
                tree.get(path).map(|again| again.meta),
                Some(found.meta.clone())
            );
        });
    }
    let outside = std::fs::read(ROOM.join("outside")).expect("it is there still");
    assert_eq!(outside, b"outside");
    let beside = std::fs::read_dir(&*ROOM).expect("the room").count();
    assert_eq!(beside, 2);
});

/// Makes a tar of entries of four bytes: kind, name, target, mode.
fn tar(bytes: &[u8]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for entry in bytes.chunks_exact(4).take(40) {
        let name = |b: u8| NAMES[usize::from(b) % NAMES.len()];
        let mut header = tar::Header::new_ustar();
        let content: &[u8] = if entry[0] % 8 < 3 {
            &entry[..usize::from(entry[3] % 5).min(4)]
        } else {
            b""
        };
        header.set_entry_type(match entry[0] % 8 {
            0..3 => tar::EntryType::Regular,
            3 | 4 => tar::EntryType::Directory,
            5 => tar::EntryType::Symlink,
            6 => tar::EntryType::Link,
            _ => tar::EntryType::Fifo,
        });
        // Written as they are: a careful writer would refuse the ones that matter.
        let raw = header.as_ustar_mut().expect("ustar");
        raw.name[..name(entry[1]).len()].copy_from_slice(name(entry[1]).as_bytes());
        if matches!(entry[0] % 8, 5 | 6) {
            raw.linkname[..name(entry[2]).len()].copy_from_slice(name(entry[2]).as_bytes());
        }
        header.set_mode(u32::from(entry[3]) * 8);
        header.set_size(content.len() as u64);
        header.set_mtime(1);
        header.set_uid(u64::from(entry[2]));
        header.set_gid(0);
        header.set_cksum();
        out.append(&header, content).expect("an entry");
    }
    out.into_inner().expect("a tar")
}
