//! Layers made of tars, and what unpacking makes of them compared with the kernel and the disk.

use shutter::fs::{Kind, Node, RelPath, Toc, Tree, stat, walk};
use shutter::layer::{BaseLayer, Error, Unpacked, unpack_all};
use shutter::oci::{Descriptor, Digest};
use shutter::progress::{Owner, Sink};
use shutter::store::Blobs;
use shutter::store::Store;
use shutter::sys::Cancel;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blobs in memory that count how often they are asked for.
#[derive(Default)]
pub struct Memory {
    pub blobs: HashMap<Digest, Vec<u8>>,
    pub opened: AtomicUsize,
}

impl Blobs for Memory {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let bytes = self.blobs.get(&blob.digest).cloned();
        Ok(Box::new(io::Cursor::new(
            bytes.ok_or(io::ErrorKind::NotFound)?,
        )))
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub fn descriptor(blob: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/octet-stream".into(),
        digest: Digest::of(blob),
        size: blob.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
    }
}

/// Describes layers; each is compressed in another way, which nothing but the bytes tells.
pub fn image(tars: &[Vec<u8>]) -> (Vec<BaseLayer>, Memory) {
    let mut memory = Memory::default();
    let mut layers = Vec::new();
    let mut chain: Option<Digest> = None;
    for (at, tar) in tars.iter().enumerate() {
        let blob = match at % 3 {
            0 => gzip(tar),
            1 => zstd_of(tar),
            _ => tar.clone(),
        };
        let diff_id = Digest::of(tar);
        let chain_id = match chain {
            None => diff_id,
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain = Some(chain_id);
        layers.push(BaseLayer {
            descriptor: descriptor(&blob),
            diff_id,
            chain_id,
        });
        memory.blobs.insert(Digest::of(&blob), blob);
    }
    (layers, memory)
}

pub fn run(store: &Store, layers: &[BaseLayer], blobs: &dyn Blobs) -> Result<Vec<Unpacked>, Error> {
    let cancel = Cancel::new().unwrap();
    unpack_all(layers, blobs, store, &Sink::none(), Owner::Build, &cancel)
}

pub struct Done {
    _dir: tempfile::TempDir,
    pub store: Store,
    pub layers: Vec<Unpacked>,
    pub tree: Tree,
}

pub fn unpack(tars: &[Vec<u8>]) -> Result<Done, Error> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let (layers, memory) = image(tars);
    let layers = run(&store, &layers, &memory)?;
    let mut tree = Tree::default();
    for layer in &layers {
        check_toc(&layer.dir, &layer.view.toc);
        tree.push(layer.view.clone());
    }
    Ok(Done {
        _dir: dir,
        store,
        layers,
        tree,
    })
}

pub fn path(text: impl AsRef<[u8]>) -> RelPath {
    RelPath::clean(text.as_ref()).unwrap()
}

impl Done {
    pub fn text(&self, at: &str) -> Option<String> {
        let bytes = self.tree.read(&path(at), 1 << 20).unwrap()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    pub fn mode(&self, at: &str) -> u32 {
        self.tree.get(&path(at)).expect(at).meta.mode
    }

    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.tree
            .walk(&RelPath::root(), &mut |path, _| out.push(path.to_string()));
        out
    }
}

/// Compares the tree with what the kernel makes of the layers, in a mount namespace of its own.
pub fn check_overlay(done: &Done) {
    let dirs: Vec<&str> = (done.layers.iter().rev())
        .map(|layer| layer.dir.to_str().unwrap())
        .collect();
    let empty = tempfile::tempdir().unwrap();
    let lower = [&dirs[..], &[empty.path().to_str().unwrap()]].concat();
    let target = tempfile::tempdir().unwrap();
    let out = std::process::Command::new("unshare")
        .args(["-m", "sh", "-ec"])
        .arg("mount -t overlay -o \"lowerdir=$0\" overlay \"$1\"; cd \"$1\"; find . -printf '/%P %y %m %U %s\\n'")
        .arg(lower.join(":"))
        .arg(target.path())
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "mount an overlay: {why}");
    let mut mounted: Vec<String> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| match line.contains(" d ") {
            // The size of a directory is its file system's own business.
            true => line.rsplit_once(' ').unwrap().0.to_owned(),
            false => line.to_owned(),
        })
        .collect();
    let mut wanted = Vec::new();
    done.tree.walk(&RelPath::root(), &mut |path, found| {
        let meta = &found.meta;
        let (mode, uid) = (meta.mode, meta.uid);
        wanted.push(match meta.kind {
            Kind::Dir => format!("{path} d {mode:o} {uid}"),
            Kind::Symlink => format!("{path} l 777 {uid} {}", meta.target.len()),
            _ => format!("{path} f {mode:o} {uid} {}", meta.size),
        });
    });
    mounted.sort();
    wanted.sort();
    assert_eq!(mounted, wanted);
}

/// Compares a table with what is on disk, path by path.
pub fn check_toc(dir: &Path, toc: &Toc) {
    let root = std::fs::File::open(dir).unwrap();
    let found = Mutex::new(vec![(
        RelPath::root(),
        stat(root.as_fd(), &RelPath::root()).unwrap().unwrap(),
    )]);
    let take = |_: &RelPath, entries: Vec<_>| {
        found.lock().unwrap().extend(entries);
        Ok(())
    };
    walk(root.as_fd(), &RelPath::root(), &take).unwrap();
    let found = found.into_inner().unwrap();
    assert_eq!(found.len(), toc.len(), "{toc:?}");
    for (path, stat) in found {
        let node = toc
            .get(&path)
            .unwrap_or_else(|| panic!("{path} is not in the table"));
        match node {
            Node::Delete => assert!(stat.is_whiteout(), "{path}"),
            Node::Opaque(meta) => {
                assert!(stat.is_opaque(), "{path}");
                assert_eq!(meta, stat.meta, "{path}");
            }
            Node::Put {
                meta,
                content,
                link,
            } => {
                assert!(!stat.is_whiteout() && !stat.is_opaque(), "{path}");
                let mut meta = meta;
                if meta.kind == Kind::Symlink {
                    // Linux gives every symbolic link the same mode.
                    meta.mode = 0o777;
                }
                assert_eq!(meta, stat.meta, "{path}");
                let on_disk = dir.join(path.as_path());
                if meta.kind == Kind::File {
                    let bytes = std::fs::read(&on_disk).unwrap();
                    assert_eq!(content, Some(*blake3::hash(&bytes).as_bytes()), "{path}");
                }
                if let Some(first) = link {
                    let other = stat_of(&dir.join(first.as_path()));
                    assert_eq!(other, stat_of(&on_disk), "{path}");
                }
            }
        }
    }
}

pub fn stat_of(path: &Path) -> (u64, u64) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.dev(), meta.ino())
}

/// Unpacks one layer that must be refused; gives why.
pub fn refused(tar: Vec<u8>) -> String {
    match unpack(&[tar]) {
        Ok(done) => panic!("it was not refused: {:?}", done.paths()),
        Err(error @ Error::Hostile { .. }) => error.to_string(),
        Err(other) => panic!("refused in another way: {other:?}"),
    }
}
