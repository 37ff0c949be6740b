//! The objects of a fetch: a pack on disk and its index.

use super::{Error, Format, Kind, Oid};
use crate::fs::RelPath;
use crate::sys::Cancel;
use gix_error::Error as Trouble;
use gix_index::validate::{self, path::component};
use gix_object::tree::Entry;
use gix_object::{CommitRefIter, TagRefIter, TreeRefIter};
use gix_pack::{Bundle, bundle, cache, data};
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

/// The most memory that a pack may ask for at once: the largest object.
const MAX_OBJECT: usize = 2 << 30;
/// The largest commit, tag or .gitmodules.
pub(super) const MAX_SMALL: u64 = 16 << 20;
/// The largest tree.
const MAX_TREE: u64 = 256 << 20;
/// How many deltas an object may be made by, as in git.
const MAX_CHAIN: u32 = 4095;
/// How many tags may point to each other.
const MAX_TAGS: usize = 16;

/// The types of what a tree names: files, links, directories, submodules.
const KINDS: [u16; 4] = [0o100_000, 0o120_000, 0o040_000, 0o160_000];

/// A pack in a directory of its own.
pub struct Pack {
    bundle: Bundle,
    dir: PathBuf,
}

/// What is wanted of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// Its root directory.
    pub(super) tree: Oid,
    /// When it was committed, in seconds since 1970.
    pub(super) time: i64,
    /// Whether another is before it.
    pub(super) has_parent: bool,
}

/// Writes a pack and an index for it into a directory; every object is named by its content then.
pub(super) fn write(
    source: &mut dyn BufRead,
    dir: &Path,
    format: Format,
    cancel: &Cancel,
) -> Result<bundle::write::Outcome, Trouble> {
    let options = bundle::write::Options {
        alloc_limit_bytes: Some(MAX_OBJECT),
        ..bundle::write::Options::default()
    };
    Bundle::write_to_directory(
        source,
        Some(dir),
        &mut gix_utils::progress::Discard,
        cancel.flag(),
        None::<gix_object::find::Never>,
        format,
        options,
    )
}

impl Pack {
    /// Takes a pack in; `Err` tells why it is none, or what the source or the disk say.
    pub(super) fn receive(
        source: &mut dyn BufRead,
        dir: &Path,
        format: Format,
        cancel: &Cancel,
    ) -> Result<Pack, Trouble> {
        let done = write(source, dir, format, cancel)?;
        let mut bundle = done
            .to_bundle()
            .unwrap_or_else(|| Err(gix_error::message("it is empty").into()))?;
        bundle.pack = bundle.pack.with_alloc_limit_bytes(Some(MAX_OBJECT));
        Ok(Pack {
            bundle,
            dir: dir.to_owned(),
        })
    }

    /// Gives what the objects are named by.
    pub fn format(&self) -> Format {
        self.bundle.pack.object_hash()
    }

    /// Gives the number of objects.
    pub fn len(&self) -> usize {
        self.bundle.index.num_objects() as usize
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the names of all objects.
    pub fn objects(&self) -> impl Iterator<Item = Oid> {
        self.bundle.index.iter().map(|entry| entry.oid)
    }

    /// Gives the directory of the pack, which has room for more.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn entry(&self, oid: &gix_hash::oid) -> Result<Option<data::Entry>, Trouble> {
        let Some(at) = self.bundle.index.lookup(oid) else {
            return Ok(None);
        };
        let offset = self.bundle.index.pack_offset_at_index(at);
        self.bundle.pack.entry(offset).map(Some)
    }

    /// Gives an object's kind and size.
    fn header(&self, oid: &Oid) -> Result<Option<(Kind, u64)>, Trouble> {
        let Some(entry) = self.entry(oid)? else {
            return Ok(None);
        };
        let found = self
            .bundle
            .pack
            .decode_header(entry, &mut Default::default(), &|base| {
                let base = self.entry(base)?;
                Ok(base.map(data::decode::header::ResolvedBase::InPack))
            })?;
        if found.num_deltas > MAX_CHAIN {
            return Err(gix_error::message("a chain of deltas is too long").into());
        }
        Ok(Some((found.kind, found.object_size)))
    }

    /// Gives what an object is; `None` where it was not sent.
    pub fn kind(&self, oid: &Oid) -> Option<Kind> {
        self.header(oid).ok().flatten().map(|(kind, _)| kind)
    }

    /// Gives an object's size.
    pub fn size(&self, oid: &Oid) -> Result<u64, Error> {
        match self.header(oid).map_err(|e| odd(oid, e))? {
            Some((_, size)) => Ok(size),
            None => Err(Error::Missing(*oid)),
        }
    }

    /// Reads an object that must be of a kind and no larger than the limit.
    pub fn read(&self, oid: &Oid, kind: Kind, limit: u64) -> Result<Vec<u8>, Error> {
        let (found, size) = self
            .header(oid)
            .map_err(|e| odd(oid, e))?
            .ok_or(Error::Missing(*oid))?;
        if found != kind {
            return Err(Error::object(oid, format!("it is a {found}, not a {kind}")));
        }
        if size > limit {
            return Err(Error::object(oid, format!("it has {size} bytes")));
        }
        let mut out = Vec::new();
        self.bundle
            .find(oid, &mut out, &mut Default::default(), &mut cache::Never)
            .map_err(|e| odd(oid, e))?
            .ok_or(Error::Missing(*oid))?;
        Ok(out)
    }

    /// Follows tags to a commit.
    pub fn peel(&self, oid: &Oid) -> Result<Oid, Error> {
        let mut oid = *oid;
        for _ in 0..MAX_TAGS {
            match self.kind(&oid) {
                None => return Err(Error::Missing(oid)),
                Some(Kind::Tag) => oid = self.tagged(&oid)?,
                Some(Kind::Commit) => return Ok(oid),
                Some(kind) => {
                    return Err(Error::object(&oid, format!("it is a {kind}, not a commit")));
                }
            }
        }
        Err(Error::object(&oid, "too many tags point to it"))
    }

    /// Gives what a tag points to.
    pub(super) fn tagged(&self, oid: &Oid) -> Result<Oid, Error> {
        let bytes = self.read(oid, Kind::Tag, MAX_SMALL)?;
        let tag = TagRefIter::from_bytes(&bytes, self.format());
        tag.target_id()
            .map_err(|_| Error::object(oid, "it is a tag of nothing"))
    }

    pub(super) fn commit(&self, oid: &Oid) -> Result<Commit, Error> {
        let bytes = self.read(oid, Kind::Commit, MAX_SMALL)?;
        let commit = || CommitRefIter::from_bytes(&bytes, self.format());
        Ok(Commit {
            tree: commit()
                .tree_id()
                .map_err(|_| Error::object(oid, "it is a commit without a tree"))?,
            // git takes a time that cannot be read for 1970, too.
            time: commit().committer().map_or(0, |by| by.seconds()),
            has_parent: commit().parent_ids().next().is_some(),
        })
    }

    /// Gives what a tree names.
    pub(super) fn tree(&self, oid: &Oid) -> Result<Vec<Entry>, Error> {
        entries(oid, &self.read(oid, Kind::Tree, MAX_TREE)?)
    }

    /// Tells whether a path of a commit's root leads through directories to one.
    pub fn has_directory(&self, commit: &Oid, path: &RelPath) -> Result<bool, Error> {
        let mut at = self.commit(&self.peel(commit)?)?.tree;
        for name in path.components() {
            let found = self.tree(&at)?.into_iter().find(|e| e.filename == name);
            match found {
                Some(entry) if entry.mode.is_tree() => at = entry.oid,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Reads a tree. Names that git does not let a tree have are errors, and so is a name that is there
/// twice, which could make one thing of another that is already written.
pub(super) fn entries(oid: &Oid, bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    let protect = component::Options {
        protect_windows: false,
        ..component::Options::default()
    };
    let mut out: Vec<Entry> = Vec::new();
    for entry in TreeRefIter::from_bytes(bytes, oid.kind()) {
        let entry = entry
            .ok()
            .filter(|entry| KINDS.contains(&(entry.mode.value() & 0o170_000)))
            .ok_or_else(|| Error::object(oid, "it is a tree that cannot be read"))?;
        let link = entry.mode.is_link().then_some(component::Mode::Symlink);
        validate::path::component(entry.filename, link, protect).map_err(|_| {
            let name = entry.filename.escape_ascii();
            Error::object(oid, format!("its tree has the name `{name}`"))
        })?;
        out.push(entry.into());
    }
    let mut names: Vec<&[u8]> = out.iter().map(|entry| entry.filename.as_slice()).collect();
    names.sort_unstable();
    match names.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => {
            let why = format!("its tree has the name `{}` twice", two[0].escape_ascii());
            Err(Error::object(oid, why))
        }
        None => Ok(out),
    }
}

pub(super) fn odd(oid: &Oid, why: Trouble) -> Error {
    Error::object(oid, said(&why))
}

/// Makes an error of the system of one, which it may have been before.
pub(super) fn as_io(error: &Trouble) -> io::Error {
    let full = error.iter_errors().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::StorageFull)
    });
    match full {
        true => io::ErrorKind::StorageFull.into(),
        false => io::Error::other(said(error)),
    }
}

/// Puts an error and its causes into one line.
pub(super) fn said(error: &Trouble) -> String {
    let all: Vec<String> = error.iter_errors().map(ToString::to_string).collect();
    all.join(": ").escape_debug().to_string()
}
