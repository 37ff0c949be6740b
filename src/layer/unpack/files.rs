//! Putting the entries of one tar into a directory, without knowing the layers below.

use super::Error;
use super::write::Writers;
use crate::fs::tar::{Body, Entry, Reader};
use crate::fs::{Kind, Meta, Placer, RelPath, Time};
use crate::oci::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, Write};

/// Files up to this size are handed to a writer; larger ones are written while they are read.
pub(super) const SMALL: u64 = 1 << 20;
/// How many symbolic links one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;
/// The most bytes of holes the sparse files of a layer may have.
const MAX_HOLES: u64 = 64 << 30;
/// The most bytes of names and attributes a layer may have: they are held in memory.
const MAX_NAMES: u64 = 2 << 30;

/// A file that has been put.
pub(super) struct Made {
    pub meta: Meta,
    /// Names with the same number are one file; directories have none.
    pub file: usize,
}

/// What one layer has, as far as it says so itself.
pub(super) struct Files {
    pub digest: Digest,
    pub placer: Placer,
    pub made: BTreeMap<RelPath, Made>,
    /// Directories that stand above an entry and have none of their own; they are in `made` too.
    pub implied: BTreeSet<RelPath>,
    pub deleted: BTreeSet<RelPath>,
    pub opaque: BTreeSet<RelPath>,
    /// Hard links whose other name has not come; in order of arrival of the last of each path.
    pub dangling: BTreeMap<RelPath, RelPath>,
    /// Content id by file number.
    pub contents: Vec<Option<crate::fs::ContentId>>,
    parent: Option<(RelPath, RelPath)>,
    holes: u64,
    names: u64,
}

impl Files {
    pub fn new(digest: Digest, placer: Placer) -> Files {
        let root = Made {
            meta: Meta::dir(0o755, Time::default()),
            file: usize::MAX,
        };
        Files {
            digest,
            placer,
            made: BTreeMap::from([(RelPath::root(), root)]),
            implied: BTreeSet::from([RelPath::root()]),
            deleted: BTreeSet::new(),
            opaque: BTreeSet::new(),
            dangling: BTreeMap::new(),
            contents: Vec::new(),
            parent: None,
            holes: 0,
            names: 0,
        }
    }

    /// Takes in all entries of a tar.
    pub fn take(&mut self, tar: &mut dyn Read, writers: &mut Writers) -> Result<(), Error> {
        let mut reader = Reader::new(io::BufReader::with_capacity(64 << 10, tar));
        while let Some(entry) = self.tar(reader.next_entry())? {
            self.entry(entry, &mut reader, writers)?;
        }
        // The end of the archive may lie within what has been buffered: the rest is passed over
        // here, behind the buffer by the caller.
        Ok(())
    }

    fn tar<T>(&self, got: Result<T, crate::fs::tar::TarError>) -> Result<T, Error> {
        use crate::fs::tar::TarError;
        got.map_err(|error| match error {
            TarError::Read(source) => Error::Read(source),
            other => self.hostile(other.to_string()),
        })
    }

    pub fn hostile(&self, why: String) -> Error {
        Error::Hostile {
            digest: self.digest,
            why,
        }
    }

    pub fn refuse(&self, path: &RelPath, why: &str) -> Error {
        self.hostile(format!("entry `{}`: {why}", path.as_bytes().escape_ascii()))
    }

    fn entry<R: Read>(
        &mut self,
        entry: Entry,
        reader: &mut Reader<R>,
        writers: &mut Writers,
    ) -> Result<(), Error> {
        self.bound(&entry)?;
        let name = entry.path.name();
        if let Some(gone) = name.strip_prefix(b".wh.") {
            return self.whiteout(&entry, gone);
        }
        let mut above = entry.path.components();
        if above.any(|part| part.starts_with(b".wh.")) {
            // Old writers kept directories of their own there.
            return match entry
                .path
                .components()
                .any(|part| part.starts_with(b".wh..wh."))
            {
                true => Ok(()),
                false => Err(self.refuse(&entry.path, "a whiteout is no directory")),
            };
        }
        let path = self.place_of(&entry.path)?;
        match entry.body {
            Body::Link(target) => self.link(path, target),
            // What overlayfs itself has for a whiteout.
            Body::File if entry.meta.kind == Kind::Char && entry.meta.device == (0, 0) => {
                self.clear(&path)?;
                self.deleted.insert(path);
                Ok(())
            }
            // What an archive says of its top says something of where it was packed, not of the
            // image: containerd, and so BuildKit, leaves the root directory alone too.
            Body::File if entry.meta.kind == Kind::Dir && path.is_root() => Ok(()),
            Body::File if entry.meta.kind == Kind::Dir => self.directory(path, entry.meta),
            Body::File => self.file(path, entry.meta, entry.holes, reader, writers),
        }
    }

    /// Bounds what the layer makes us remember.
    fn bound(&mut self, entry: &Entry) -> Result<(), Error> {
        let attributes = entry.meta.xattrs.iter();
        let attributes: usize = attributes
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let text = entry.path.as_bytes().len() + entry.meta.target.len() + attributes;
        self.names += 256 + text as u64;
        if self.names > MAX_NAMES {
            return Err(self.refuse(&entry.path, "the layer has too many names for one layer"));
        }
        self.holes = self.holes.saturating_add(entry.holes);
        if self.holes > MAX_HOLES {
            return Err(self.refuse(&entry.path, "the layer has too many bytes of holes"));
        }
        Ok(())
    }

    fn whiteout(&mut self, entry: &Entry, gone: &[u8]) -> Result<(), Error> {
        let path = self.place_of(&entry.path)?;
        let parent = path.parent().unwrap_or_default();
        match gone {
            b".wh..opq" => {
                self.opaque.insert(parent);
                Ok(())
            }
            // Further notes of aufs, which no other file system has.
            _ if gone.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => Err(self.refuse(&entry.path, "it is a whiteout of no file")),
            name => {
                self.deleted.insert(parent.join(name));
                Ok(())
            }
        }
    }

    fn directory(&mut self, path: RelPath, meta: Meta) -> Result<(), Error> {
        self.implied.remove(&path);
        let is_dir = |made: &Made| made.meta.kind == Kind::Dir;
        if !self.made.get(&path).is_some_and(is_dir) {
            self.clear(&path)?;
        }
        self.put(&path, &meta)?;
        self.insert_dir(path, meta);
        Ok(())
    }

    pub fn insert_dir(&mut self, path: RelPath, meta: Meta) {
        let file = usize::MAX;
        self.made.insert(path, Made { meta, file });
    }

    fn file<R: Read>(
        &mut self,
        path: RelPath,
        meta: Meta,
        holes: u64,
        reader: &mut Reader<R>,
        writers: &mut Writers,
    ) -> Result<(), Error> {
        self.clear(&path)?;
        let file = self.contents.len();
        self.contents.push(None);
        if meta.kind != Kind::File {
            self.put(&path, &meta)?;
            self.made.insert(path, Made { meta, file });
            return Ok(());
        }
        let parent = path.parent().unwrap_or_default();
        let dir = self
            .placer
            .dir(&parent)
            .map_err(|e| io_error("open", &parent, e))?;
        let out = dir
            .create(path.name(), &meta)
            .map_err(|e| io_error("create", &path, e))?;
        if meta.size <= SMALL {
            writers.small(file, out, dir, &path, &meta, reader)?;
        } else {
            let id = stream(reader, &out, holes > 0).map_err(|e| read_or_write(&path, e))?;
            dir.seal(&out, &meta)
                .map_err(|e| io_error("finish", &path, e))?;
            self.contents[file] = Some(id);
        }
        self.made.insert(path, Made { meta, file });
        Ok(())
    }

    fn link(&mut self, path: RelPath, target: RelPath) -> Result<(), Error> {
        let target = self.resolved(&target)?;
        if target == path {
            return Err(self.refuse(&path, "it is a hard link to itself"));
        }
        match self.made.get(&target) {
            None => {
                // It may be in a layer below, or come later.
                self.clear(&path)?;
                self.dangling.insert(path, target);
                Ok(())
            }
            Some(made) if made.meta.kind == Kind::Dir => {
                Err(self.refuse(&path, "it is a hard link to a directory"))
            }
            Some(_) if target.is_within(&path) => {
                Err(self.refuse(&path, "it is a hard link to what it replaces"))
            }
            Some(_) => {
                self.clear(&path)?;
                self.link_made(path, &target)
            }
        }
    }

    /// Gives a file that has been put one more name.
    pub fn link_made(&mut self, path: RelPath, target: &RelPath) -> Result<(), Error> {
        let Some(made) = self.made.get(target) else {
            return Ok(());
        };
        let made = Made {
            meta: made.meta.clone(),
            file: made.file,
        };
        self.placer
            .link(target, &path)
            .map_err(|e| io_error("link", &path, e))?;
        self.made.insert(path, made);
        Ok(())
    }

    pub fn put(&mut self, path: &RelPath, meta: &Meta) -> Result<(), Error> {
        self.placer
            .put(path, meta, None)
            .map_err(|e| io_error("create", path, e))
    }

    /// Makes way for something: what the layer itself put there before does not count any more.
    pub fn clear(&mut self, path: &RelPath) -> Result<(), Error> {
        self.dangling.remove(path);
        let Some(old) = self.made.get(path) else {
            return Ok(());
        };
        if old.meta.kind != Kind::Dir {
            self.made.remove(path);
        } else {
            self.parent = None;
            let below: Vec<RelPath> = within(&self.made, path);
            for gone in below {
                self.made.remove(&gone);
                self.implied.remove(&gone);
                self.opaque.remove(&gone);
            }
            self.dangling.retain(|gone, _| !gone.is_within(path));
            self.deleted
                .retain(|gone| gone == path || !gone.is_within(path));
        }
        self.placer
            .remove(path)
            .map_err(|e| io_error("remove", path, e))
    }

    /// Gives where an entry goes: the directories above it are made where they are not there, and
    /// symbolic links of this layer on the way are followed inside the root.
    fn place_of(&mut self, path: &RelPath) -> Result<RelPath, Error> {
        let Some(parent) = path.parent() else {
            return Ok(path.clone());
        };
        if let Some((from, to)) = &self.parent
            && *from == parent
        {
            return Ok(to.join(path.name()));
        }
        let to = self.resolve(path, &parent)?;
        self.make_dirs(&to)?;
        let place = to.join(path.name());
        self.parent = Some((parent, to));
        Ok(place)
    }

    /// Gives where the directory of an entry leads to, making nothing.
    pub fn resolved(&self, path: &RelPath) -> Result<RelPath, Error> {
        match path.parent() {
            Some(parent) => Ok(self.resolve(path, &parent)?.join(path.name())),
            None => Ok(path.clone()),
        }
    }

    fn resolve(&self, entry: &RelPath, dir: &RelPath) -> Result<RelPath, Error> {
        if (self.made.get(dir)).is_some_and(|made| made.meta.kind == Kind::Dir) {
            // Whatever is above it is a directory too.
            return Ok(dir.clone());
        }
        let mut done = RelPath::root();
        let mut todo: Vec<&[u8]> = dir.components().collect();
        todo.reverse();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                done = done.parent().unwrap_or_default();
                continue;
            }
            done = done.join(part);
            match self.made.get(&done).map(|made| &made.meta) {
                None => {}
                Some(meta) if meta.kind == Kind::Dir => {}
                Some(meta) if meta.kind == Kind::Symlink => {
                    links += 1;
                    if links > MAX_LINKS || todo.len() > 4096 {
                        return Err(self.refuse(entry, "too many symbolic links on its way"));
                    }
                    done = match meta.target.starts_with(b"/") {
                        true => RelPath::root(),
                        false => done.parent().unwrap_or_default(),
                    };
                    let parts = meta.target.split(|&c| c == b'/').rev();
                    todo.extend(parts.filter(|part| !matches!(*part, b"" | b".")));
                }
                Some(_) => {
                    let why = format!("`{done}` above it is not a directory");
                    return Err(self.refuse(entry, &why));
                }
            }
        }
        if done.as_bytes().len() > crate::fs::tar::MAX_PATH {
            return Err(self.refuse(entry, "symbolic links make its path too long"));
        }
        Ok(done)
    }

    /// Makes the directories that lead to a path and the path itself, as far as they are not there.
    pub fn make_dirs(&mut self, path: &RelPath) -> Result<(), Error> {
        let mut missing = Vec::new();
        for dir in std::iter::once(path.clone()).chain(path.ancestors()) {
            if self.made.contains_key(&dir) {
                break;
            }
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            self.dangling.remove(&dir);
            let meta = Meta::dir(0o755, Time::default());
            self.put(&dir, &meta)?;
            self.insert_dir(dir.clone(), meta);
            self.implied.insert(dir);
        }
        Ok(())
    }
}

/// Gives a path and everything below it in canonical order.
pub(super) fn within(made: &BTreeMap<RelPath, Made>, top: &RelPath) -> Vec<RelPath> {
    let from = made.range(top.clone()..).map(|(path, _)| path);
    from.take_while(|path| path.is_within(top))
        .cloned()
        .collect()
}

/// Writes a large file while it is read; long zeroes of a sparse one become holes again.
fn stream(
    from: &mut dyn Read,
    out: &std::fs::File,
    sparse: bool,
) -> Result<crate::fs::ContentId, Fault> {
    let mut out = out;
    let mut hash = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0u64;
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Fault::Read(error)),
        };
        let piece = buffer.get(..len).unwrap_or_default();
        hash.update(piece);
        total += len as u64;
        let hole = sparse && len >= 4096 && piece.iter().all(|&byte| byte == 0);
        match hole {
            true => out.seek(io::SeekFrom::Current(len as i64)).map(|_| ()),
            false => out.write_all(piece),
        }
        .map_err(Fault::Write)?;
    }
    if sparse {
        out.set_len(total).map_err(Fault::Write)?;
    }
    Ok(*hash.finalize().as_bytes())
}

/// Which side of a copy failed.
pub(super) enum Fault {
    Read(io::Error),
    Write(io::Error),
}

pub(super) fn read_or_write(path: &RelPath, fault: Fault) -> Error {
    match fault {
        Fault::Read(error) => Error::Read(error),
        Fault::Write(error) => io_error("write", path, error),
    }
}

pub(super) fn io_error(action: &'static str, path: &RelPath, source: io::Error) -> Error {
    Error::Io {
        action,
        path: path.clone(),
        source,
    }
}
