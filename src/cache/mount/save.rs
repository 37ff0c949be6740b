//! From a directory to what a place has of it.

use super::index::{Index, Pack};
use super::{Error, INDEX, LEVEL, PACK, Saved, TOC, describe};
use crate::changeset::Identify;
use crate::fs::{
    self, ContentId, Firsts, Kind, Node, RelPath, Seen, Source, Stat, Toc, TocEntry, walk,
};
use crate::oci::{Descriptor, Digest, Sha256};
use crate::sys::Cancel;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How much content goes into a pack, in bytes; a larger file has one of its own.
const PACK_SIZE: u64 = 32 << 20;
/// The most packs: of what is larger, each is larger.
const MAX_PACKS: u64 = 256;
/// A pack with less than this is a small one, in bytes.
const SMALL: u64 = 4 << 20;
/// How many small packs are kept.
const MAX_SMALL: usize = 16;

/// A directory as it was when it was looked at.
pub struct Look {
    root: Arc<OwnedFd>,
    all: BTreeMap<RelPath, Stat>,
    /// Everything in it.
    pub toc: Toc,
    /// A file of each content, with the content's length, in order of paths.
    contents: Vec<(ContentId, u64, RelPath)>,
}

/// What is to be sent, whose files lie in a directory of the caller's.
pub struct Packed {
    /// What a place gets.
    pub saved: Saved,
    /// The blobs that were made, by digest.
    pub files: HashMap<Digest, PathBuf>,
    /// Bytes of all content, each counted once.
    pub content: u64,
}

/// Looks at a directory and everything in it. What files have in them `identify` tells, on the rayon
/// pool.
pub fn look(dir: &Path, identify: Identify<'_>, cancel: &Cancel) -> Result<Look, Error> {
    let root = open(dir).map_err(|e| Error::io("open", &RelPath::root(), e))?;
    let root = Arc::new(root);
    let all = everything(&root)?;
    let mut firsts = Firsts::default();
    let mut links: HashMap<&RelPath, RelPath> = HashMap::new();
    for (path, stat) in &all {
        if let Some(first) = stat.shared().and_then(|file| firsts.tie(file, path)) {
            links.insert(path, first);
        }
    }
    let is_read = |(path, stat): &(&RelPath, &Stat)| {
        stat.meta.kind == Kind::File && !links.contains_key(path)
    };
    let files: Vec<(&RelPath, &Stat)> = all.iter().filter(is_read).collect();
    let ids: HashMap<&RelPath, ContentId> = files
        .par_iter()
        .with_min_len(8)
        .map(|(path, stat)| {
            if cancel.is_set() {
                return Err(Error::Cancelled);
            }
            let source = Source::Seen(Arc::new(Seen {
                dir: Arc::clone(&root),
                path: (*path).clone(),
                stamp: stat.stamp(),
            }));
            match identify(&source) {
                Ok(id) => Ok((*path, id)),
                Err(error) => match is_still(&root, path, stat) {
                    true => Err(Error::io("read", path, error)),
                    false => Err(Error::Changed((*path).clone())),
                },
            }
        })
        .collect::<Result<_, Error>>()?;
    let mut known: HashSet<ContentId> = HashSet::new();
    let mut contents = Vec::new();
    for (path, stat) in files {
        let id = ids.get(path).copied().unwrap_or_default();
        if stat.meta.size > 0 && known.insert(id) {
            contents.push((id, stat.meta.size, path.clone()));
        }
    }
    let entries = all.iter().map(|(path, stat)| {
        let link = links.get(path);
        TocEntry {
            path: path.clone(),
            node: Node::Put {
                meta: stat.meta.clone(),
                content: ids.get(link.unwrap_or(path)).copied(),
                link: link.cloned(),
            },
        }
    });
    let toc = Toc::new(entries.collect());
    drop(ids);
    drop(links);
    Ok(Look {
        root,
        all,
        toc,
        contents,
    })
}

fn is_still(root: &OwnedFd, path: &RelPath, stat: &Stat) -> bool {
    fs::stat(root.as_fd(), path)
        .ok()
        .flatten()
        .is_some_and(|now| now.stamp() == stat.stamp())
}

fn open(dir: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

/// Looks at every file. Sockets are nobody's any more.
fn everything(root: &OwnedFd) -> Result<BTreeMap<RelPath, Stat>, Error> {
    let all: Mutex<BTreeMap<RelPath, Stat>> = Mutex::default();
    let visit = |_: &RelPath, entries: Vec<(RelPath, Stat)>| {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(entries);
        Ok(())
    };
    let top = RelPath::root();
    walk(root.as_fd(), &top, &visit).map_err(|e| Error::io("look at", &e.path, e.source))?;
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let stat = fs::stat(root.as_fd(), &top).map_err(|e| Error::io("look at", &top, e))?;
    let stat = stat.ok_or_else(|| Error::Changed(top.clone()))?;
    all.insert(top, stat);
    Ok(all)
}

impl Look {
    /// Makes sure that nothing has changed since.
    pub fn is_unchanged(&self) -> Result<(), Error> {
        let now = everything(&self.root)?;
        if now == self.all {
            return Ok(());
        }
        let differs = |path: &&RelPath| now.get(*path) != self.all.get(*path);
        let path = now.keys().chain(self.all.keys()).find(differs);
        Err(Error::Changed(path.cloned().unwrap_or_default()))
    }

    /// Gives the table as bytes that are sent.
    pub fn table(&self) -> Result<Vec<u8>, Error> {
        compress(self.toc.as_bytes())
    }
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    zstd::bulk::compress(bytes, LEVEL)
        .map_err(|e| Error::io("compress the table of", &RelPath::root(), e))
}

/// What becomes of a cache's contents.
struct Plan {
    /// Packs that there are, by number.
    kept: Vec<usize>,
    /// New packs, as places in the list of contents.
    new: Vec<Vec<usize>>,
}

/// Makes what a place does not have yet, into an empty directory. `before`: what it has.
pub fn pack(
    look: &Look,
    before: Option<(&Saved, &Index)>,
    dir: &Path,
    now: i64,
    cancel: &Cancel,
) -> Result<Packed, Error> {
    let nothing = Index::default();
    let index = before.map_or(&nothing, |(_, index)| index);
    let plan = plan(&look.contents, index);
    let mut packs: Vec<Descriptor> = Vec::new();
    let mut contents = Index::default();
    for at in &plan.kept {
        let found =
            before.and_then(|(saved, index)| saved.packs.get(*at).zip(index.packs.get(*at)));
        if let Some((pack, of)) = found {
            packs.push(pack.clone());
            contents.packs.push(of.clone());
        }
    }
    let made: Vec<(Descriptor, Pack, PathBuf)> = plan
        .new
        .par_iter()
        .enumerate()
        .map(|(number, of)| {
            let path = dir.join(format!("pack-{number}"));
            let of: Vec<_> = of.iter().filter_map(|at| look.contents.get(*at)).collect();
            let blob = one(look, &of, &path, cancel)?;
            let pack = of.iter().map(|(id, length, _)| (*id, *length)).collect();
            Ok((blob, pack, path))
        })
        .collect::<Result<_, Error>>()?;
    let mut files = HashMap::new();
    for (blob, pack, path) in made {
        files.insert(blob.digest, path);
        contents.packs.push(pack);
        packs.push(blob);
    }
    let mut keep = |name: &str, media_type: &str, bytes: Vec<u8>| -> Result<Descriptor, Error> {
        let path = dir.join(name);
        std::fs::write(&path, &bytes)
            .map_err(|e| Error::io("write the table of", &RelPath::root(), e))?;
        let digest = Digest::of(&bytes);
        files.insert(digest, path);
        Ok(describe(media_type, digest, bytes.len() as u64))
    };
    let toc = keep("toc", TOC, look.table()?)?;
    let index = keep("index", INDEX, compress(&contents.to_bytes())?)?;
    Ok(Packed {
        saved: Saved {
            created: now,
            toc,
            index,
            packs,
        },
        files,
        content: look.contents.iter().map(|(_, length, _)| length).sum(),
    })
}

fn plan(contents: &[(ContentId, u64, RelPath)], index: &Index) -> Plan {
    let wanted: HashSet<&ContentId> = contents.iter().map(|(id, _, _)| id).collect();
    let raw = |pack: &Pack| -> u64 { pack.iter().map(|(_, length)| length).sum() };
    let mut had: HashSet<&ContentId> = HashSet::new();
    let mut kept: Vec<usize> = Vec::new();
    for (at, pack) in index.packs.iter().enumerate() {
        let live = pack
            .iter()
            .filter(|(id, _)| wanted.contains(id) && !had.contains(id));
        let live: u64 = live.map(|(_, length)| length).sum();
        if live > 0 && live >= raw(pack).div_ceil(2) {
            had.extend(pack.iter().map(|(id, _)| id));
            kept.push(at);
        }
    }
    let is_small = |at: &usize| index.packs.get(*at).is_some_and(|pack| raw(pack) < SMALL);
    if kept.iter().filter(|at| is_small(at)).count() > MAX_SMALL {
        kept.retain(|at| !is_small(at));
        let packs = kept.iter().filter_map(|at| index.packs.get(*at));
        had = packs.flatten().map(|(id, _)| id).collect();
    }
    let all: u64 = contents.iter().map(|(_, length, _)| length).sum();
    let size = PACK_SIZE.max(all / MAX_PACKS);
    let mut new: Vec<Vec<usize>> = Vec::new();
    let mut filled = u64::MAX;
    for (at, (id, length, _)) in contents.iter().enumerate() {
        if had.contains(id) {
            continue;
        }
        if filled.saturating_add(*length) > size {
            new.push(Vec::new());
            filled = 0;
        }
        filled += length;
        if let Some(pack) = new.last_mut() {
            pack.push(at);
        }
    }
    Plan { kept, new }
}

/// Makes one pack.
fn one(
    look: &Look,
    of: &[&(ContentId, u64, RelPath)],
    path: &Path,
    cancel: &Cancel,
) -> Result<Descriptor, Error> {
    let failed = |source| Error::io("pack", &RelPath::root(), source);
    let file = File::create_new(path).map_err(failed)?;
    let out = Hashed {
        inner: BufWriter::with_capacity(256 << 10, file),
        hash: Sha256::new(),
        size: 0,
    };
    let mut encoder = zstd::Encoder::new(out, LEVEL).map_err(failed)?;
    let mut buffer = vec![0; 128 << 10];
    for (id, length, path) in of {
        let source = Source::File {
            dir: Arc::clone(&look.root),
            path: path.clone(),
        };
        let opened = source.open();
        let mut reader = opened.map_err(|e| Error::io("read", path, e))?;
        let mut hash = blake3::Hasher::new();
        let mut left = *length;
        loop {
            if cancel.is_set() {
                return Err(Error::Cancelled);
            }
            let got = match reader.read(&mut buffer) {
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("read", path, e)),
            };
            if got == 0 {
                break;
            }
            let bytes = buffer.get(..got).unwrap_or_default();
            left = left
                .checked_sub(got as u64)
                .ok_or_else(|| Error::Changed(path.clone()))?;
            hash.update(bytes);
            encoder.write_all(bytes).map_err(failed)?;
        }
        if left > 0 || hash.finalize().as_bytes() != id {
            return Err(Error::Changed(path.clone()));
        }
    }
    let mut out = encoder.finish().map_err(failed)?;
    out.inner.flush().map_err(failed)?;
    Ok(describe(PACK, out.hash.finish(), out.size))
}

/// Hashes what is written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..done).unwrap_or_default());
        self.size += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
