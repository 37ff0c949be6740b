//! From what a place has to a directory.

use super::index::Pack;
use super::{Error, Open, Saved, fetch};
use crate::fs::{ContentId, Deletions, Kind, Meta, Node, Placer, RelPath, Toc, open_dir};
use crate::oci::{Descriptor, Digest, Sha256};
use crate::sys::Cancel;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many packs come at the same time.
const AT_ONCE: usize = 4;

/// What was restored.
pub struct Restored {
    /// Number of files of any kind.
    pub files: usize,
    /// Bytes that came.
    pub bytes: u64,
    /// The attributes that the file system refused.
    pub lost: Vec<String>,
}

/// The files that have one content.
type Files = HashMap<ContentId, Vec<(RelPath, Meta)>>;

/// Gives the files of a content that are made from one pack.
type Wanted<'a> = &'a dyn Fn(&ContentId) -> &'a [(RelPath, Meta)];

/// Restores a cache into an empty directory. Where that fails something may be left there.
pub fn restore(
    blobs: Open<'_>,
    saved: &Saved,
    dir: &Path,
    cancel: &Cancel,
) -> Result<Restored, Error> {
    let (toc, index) = std::thread::scope(|scope| {
        let toc = scope.spawn(|| fetch(blobs, &saved.toc));
        let index = saved.fetch_index(blobs);
        (toc.join(), index)
    });
    let toc = toc.map_err(|_| Error::broken("table of contents", "it could not be read"))??;
    let index = index?;
    let parsed = Toc::parse(toc).map_err(|e| Error::broken("table of contents", e));
    let toc = parsed?;
    let root = open(dir).map_err(|e| Error::io("open", &RelPath::root(), e))?;
    let mut placer = Placer::with(root.as_fd(), Deletions::Gaps)
        .map_err(|e| Error::io("open", &RelPath::root(), e))?;
    let files = put_others(&toc, &mut placer)?;
    // A content may be in more than one pack.
    let mut from: HashMap<ContentId, usize> = HashMap::new();
    for (at, pack) in index.packs.iter().enumerate() {
        for (id, _) in pack {
            from.entry(*id).or_insert(at);
        }
    }
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::default();
    let lost: Mutex<Vec<String>> = Mutex::default();
    let has_failed = || failed.lock().map_or(true, |failed| failed.is_some());
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..saved.packs.len().min(AT_ONCE) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let found = saved.packs.get(at).zip(index.packs.get(at));
                    let Some((blob, pack)) = found.filter(|_| !has_failed()) else {
                        return;
                    };
                    let wanted = |id: &ContentId| match from.get(id) == Some(&at) {
                        true => files.get(id).map_or(&[][..], Vec::as_slice),
                        false => &[],
                    };
                    match unpack(blobs, blob, pack, &wanted, root.as_fd(), cancel) {
                        Ok((number, refused)) => {
                            made.fetch_add(number, Ordering::Relaxed);
                            if let Ok(mut lost) = lost.lock() {
                                lost.extend(refused);
                            }
                        }
                        Err(error) => {
                            if let Ok(mut failed) = failed.lock() {
                                failed.get_or_insert(error);
                            }
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().ok().flatten() {
        return Err(error);
    }
    let wanted: usize = files.values().map(Vec::len).sum();
    if made.into_inner() < wanted {
        return Err(Error::broken("packs", "a content is in none of them"));
    }
    for entry in toc.iter() {
        if let Node::Put {
            link: Some(first), ..
        } = entry.node
        {
            placer
                .link(&first, &entry.path)
                .map_err(|e| Error::io("link", &entry.path, e))?;
        }
    }
    let mut lost = lost.into_inner().unwrap_or_default();
    let finished = placer.finish();
    lost.extend(finished.map_err(|e| Error::io("finish", &RelPath::root(), e))?);
    lost.sort();
    lost.dedup();
    let blobs = saved.named().blobs;
    Ok(Restored {
        files: toc.len().saturating_sub(1),
        bytes: blobs.iter().map(|blob| blob.size).sum(),
        lost,
    })
}

fn open(dir: &Path) -> io::Result<OwnedFd> {
    let here = std::fs::File::open(dir)?;
    open_dir(here.as_fd(), &RelPath::root())
}

/// Puts all but files that have content; gives those.
fn put_others(toc: &Toc, placer: &mut Placer) -> Result<Files, Error> {
    let mut files: Files = HashMap::new();
    for entry in toc.iter() {
        let path = entry.path;
        let (meta, content) = match entry.node {
            Node::Put { link: Some(_), .. } => continue,
            Node::Put { meta, content, .. } => (meta, content),
            Node::Delete | Node::Opaque(_) => {
                return Err(Error::broken(&path, "it is a mark of layers"));
            }
        };
        if meta.kind == Kind::File && meta.size > 0 {
            let id = content.ok_or_else(|| Error::broken(&path, "its content is not told"))?;
            files.entry(id).or_default().push((path, meta));
            continue;
        }
        let mut nothing = io::empty();
        placer
            .put(&path, &meta, Some(&mut nothing))
            .map_err(|e| Error::io("write", &path, e))?;
    }
    Ok(files)
}

/// Writes the files whose content is in a pack; gives how many, and what was refused.
fn unpack(
    blobs: Open<'_>,
    blob: &Descriptor,
    pack: &Pack,
    wanted: Wanted<'_>,
    root: BorrowedFd<'_>,
    cancel: &Cancel,
) -> Result<(usize, Vec<String>), Error> {
    let broken = |why: &str| Error::broken(format!("pack {}", blob.digest), why);
    let failed = |source| Error::Blob {
        blob: blob.digest,
        source,
    };
    let reader = Hashing {
        inner: blobs(blob)?.take(blob.size.saturating_add(1)),
        hash: Sha256::new(),
        size: 0,
    };
    let top = RelPath::root();
    let placer = Placer::with(root, Deletions::Gaps);
    let mut placer = placer.map_err(|e| Error::io("open", &top, e))?;
    let mut decoder = zstd::Decoder::new(reader).map_err(failed)?;
    let mut buffer = vec![0; 128 << 10];
    let mut made = 0;
    for (id, length) in pack {
        let wanted = wanted(id);
        let mut out = match wanted.first() {
            Some((path, meta)) => {
                if meta.size != *length {
                    return Err(broken("a content has another length"));
                }
                let write = |source| Error::io("write", path, source);
                let parent = path.parent().unwrap_or_default();
                let dir = placer.dir(&parent).map_err(write)?;
                let file = dir.create(path.name(), meta).map_err(write)?;
                Some((dir, file, path, meta))
            }
            None => None,
        };
        let mut hash = blake3::Hasher::new();
        let mut left = *length;
        while left > 0 {
            if cancel.is_set() {
                return Err(Error::Cancelled);
            }
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let got = match decoder.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(broken("it ends too early")),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(failed(e)),
            };
            left -= got as u64;
            let bytes = buffer.get(..got).unwrap_or_default();
            hash.update(bytes);
            if let Some((_, file, path, _)) = &mut out {
                file.write_all(bytes)
                    .map_err(|e| Error::io("write", path, e))?;
            }
        }
        if hash.finalize().as_bytes() != id {
            return Err(broken("a content has another hash"));
        }
        let Some((dir, file, path, meta)) = out else {
            continue;
        };
        dir.seal(&file, meta)
            .map_err(|e| Error::io("write", path, e))?;
        made += 1;
        for (other, meta) in wanted.iter().skip(1) {
            again(&dir, path, &mut placer, other, meta)
                .map_err(|e| Error::io("write", other, e))?;
            made += 1;
        }
    }
    // To the end, so that all of it is hashed; what follows the last content is not looked at.
    let mut reader = decoder.finish();
    io::copy(&mut reader, &mut io::sink()).map_err(failed)?;
    let (digest, size) = reader.into_inner().finish();
    if digest != blob.digest || size != blob.size {
        return Err(broken("it is not what its digest says"));
    }
    let lost = placer.finish();
    Ok((made, lost.map_err(|e| Error::io("finish", &top, e))?))
}

/// Writes one more file with the content of one that was just written.
fn again(
    dir: &crate::fs::Dir,
    path: &RelPath,
    placer: &mut Placer,
    other: &RelPath,
    meta: &Meta,
) -> io::Result<()> {
    let mut from = dir.open(path.name())?;
    from.seek(SeekFrom::Start(0))?;
    let to = placer.dir(&other.parent().unwrap_or_default())?;
    let mut file: File = to.create(other.name(), meta)?;
    io::copy(&mut from, &mut file)?;
    to.seal(&file, meta)
}

/// Hashes what is read.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    size: u64,
}

impl<R> Hashing<R> {
    fn finish(self) -> (Digest, u64) {
        (self.hash.finish(), self.size)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(out)?;
        self.hash.update(out.get(..got).unwrap_or_default());
        self.size += got as u64;
        Ok(got)
    }
}
