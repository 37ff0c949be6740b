//! A `.git` that goes with a checkout: a repository of one commit.
//!
//! The pack is not the one that was sent, which differs from one fetch to the next: it has the
//! commit's own objects alone, each whole, in order of their names, so that the same commit gives
//! the same bytes.

use super::checkout::{Checked, Indexed};
use super::pack;
use super::{Error, Format, Kind, Oid, Pack};
use crate::fs::{Meta, Placer, RelPath, Time};
use crate::sys::Cancel;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix_index::entry::{Flags, Mode, Stat};
use gix_object::tree::EntryKind;
use gix_pack::data;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::BorrowedFd;

/// How many objects are compressed at a time, and of how many bytes: of one more, to be exact.
const BATCH: (usize, u64) = (512, 16 << 20);

/// What a `.git` is made of.
pub struct Repository<'a> {
    /// The objects.
    pub pack: &'a Pack,
    /// What was checked out.
    pub checked: &'a Checked,
    /// The reference that led to it, and what that points to: a commit, or a tag.
    pub reference: Option<(&'a str, Oid)>,
    /// Where it comes from, without secrets.
    pub url: &'a str,
    /// Submodules that were checked out: names and URLs.
    pub submodules: &'a [(RelPath, String)],
    /// The path from `.git` to the files, where those are not beside it.
    pub worktree: Option<String>,
    /// Ends it.
    pub cancel: &'a Cancel,
}

/// Makes a `.git` at `place` below a directory.
pub fn keep(root: BorrowedFd<'_>, place: &RelPath, of: &Repository<'_>) -> Result<(), Error> {
    let mut out = Out {
        placer: Placer::new(root).map_err(|source| failed(place, source))?,
        place,
        time: of.checked.time,
    };
    let commit = of.checked.commit;
    out.directory(place)?;
    out.file("HEAD", format!("{commit}\n").as_bytes())?;
    let config = config(of).map_err(|error| failed(place, pack::as_io(&error)))?;
    out.file("config", &config)?;
    for dir in ["objects", "objects/pack", "refs", "refs/heads", "refs/tags"] {
        out.directory(&out.at(dir)?)?;
    }
    if let Some((name, oid)) = of.reference
        && is_plain_name(name)
    {
        out.parents(name)?;
        out.file(name, format!("{oid}\n").as_bytes())?;
    }
    if of.pack.commit(&commit)?.has_parent {
        out.file("shallow", format!("{commit}\n").as_bytes())?;
    }
    let index = index(of).map_err(|source| failed(place, source))?;
    out.file("index", &index)?;
    objects(&mut out, of)?;
    out.placer
        .finish()
        .map_err(|source| failed(place, source))?;
    Ok(())
}

fn failed(path: &RelPath, source: io::Error) -> Error {
    Error::CheckOut {
        path: path.to_string(),
        source,
    }
}

struct Out<'a> {
    placer: Placer,
    place: &'a RelPath,
    time: Time,
}

impl Out<'_> {
    fn at(&self, name: &str) -> Result<RelPath, Error> {
        let below = RelPath::checked(name.as_bytes())
            .ok_or_else(|| failed(self.place, io::Error::from(io::ErrorKind::InvalidInput)))?;
        Ok(self.place.join_path(&below))
    }

    fn meta(&self, meta: Meta) -> Meta {
        Meta {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..meta
        }
    }

    fn directory(&mut self, path: &RelPath) -> Result<(), Error> {
        let meta = self.meta(Meta::dir(0o755, self.time));
        self.placer
            .put(path, &meta, None)
            .map_err(|source| failed(path, source))
    }

    /// Makes the directories that a name has above it.
    fn parents(&mut self, name: &str) -> Result<(), Error> {
        let path = self.at(name)?;
        let mut above: Vec<RelPath> = path.ancestors().collect();
        above.reverse();
        for dir in above.iter().filter(|dir| dir.is_within(self.place)) {
            self.directory(dir)?;
        }
        Ok(())
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.at(name)?;
        let meta = self.meta(Meta::file(0o644, content.len() as u64, self.time));
        let mut content = content;
        self.placer
            .put(&path, &meta, Some(&mut content))
            .map_err(|source| failed(&path, source))
    }
}

/// Tells whether a reference's name may become a path.
fn is_plain_name(name: &str) -> bool {
    name.starts_with("refs/")
        && name.split('/').count() > 2
        && gix_index::validate::reference::name(name.into()).is_ok()
}

fn config(of: &Repository<'_>) -> Result<Vec<u8>, gix_error::Error> {
    let version = match of.checked.commit.kind() {
        Format::Sha256 => "1",
        _ => "0",
    };
    let mut config = gix_config::File::new(gix_config::file::Metadata::api());
    let mut core = config.new_section("core", None)?;
    core.push("repositoryformatversion", Some(version.into()))?
        .push("filemode", Some("true".into()))?
        .push("bare", Some("false".into()))?
        .push("logallrefupdates", Some("true".into()))?;
    if let Some(worktree) = &of.worktree {
        core.push("worktree", Some(worktree.as_str().into()))?;
    }
    if version == "1" {
        let mut extensions = config.new_section("extensions", None)?;
        extensions.push("objectformat", Some("sha256".into()))?;
    }
    let branches = "+refs/heads/*:refs/remotes/origin/*";
    let mut origin = config.new_section("remote", Some("origin".into()))?;
    origin
        .push("url", Some(of.url.into()))?
        .push("fetch", Some(branches.into()))?;
    for (name, url) in of.submodules {
        let mut own = config.new_section("submodule", Some(name.as_bytes().into()))?;
        own.push("active", Some("true".into()))?
            .push("url", Some(url.as_str().into()))?;
    }
    Ok(config.to_bstring().into())
}

/// Makes an index. What it says of inodes is nothing, so that git looks at the files anew.
fn index(of: &Repository<'_>) -> io::Result<Vec<u8>> {
    let format = of.checked.commit.kind();
    let mut state = gix_index::State::new(format);
    let time = gix_index::entry::stat::Time {
        // A time before 1970 has no form here.
        secs: u32::try_from(of.checked.time.secs).unwrap_or(0),
        nsecs: 0,
    };
    for Indexed {
        path,
        kind,
        oid,
        size,
    } in &of.checked.files
    {
        let stat = Stat {
            mtime: time,
            ctime: time,
            size: *size as u32,
            ..Stat::default()
        };
        let mode = match kind {
            EntryKind::Blob => Mode::FILE,
            EntryKind::BlobExecutable => Mode::FILE_EXECUTABLE,
            EntryKind::Link => Mode::SYMLINK,
            EntryKind::Tree => Mode::DIR,
            EntryKind::Commit => Mode::COMMIT,
        };
        state.dangerously_push_entry(stat, *oid, Flags::empty(), mode, path.as_bytes().into());
    }
    let mut out = Vec::new();
    gix_index::File::from_state(state, "index")
        .write_to(&mut out, gix_index::write::Options::default())
        .map_err(|error| pack::as_io(&error))?;
    Ok(out)
}

/// Collects the objects of a commit, and of the tags that led to it.
fn reachable(of: &Repository<'_>) -> Result<BTreeSet<Oid>, Error> {
    let mut out = BTreeSet::from([of.checked.commit]);
    if let Some((_, oid)) = of.reference {
        let mut at = oid;
        while of.pack.kind(&at) == Some(Kind::Tag) && out.insert(at) {
            at = of.pack.tagged(&at)?;
        }
    }
    let mut todo = vec![of.checked.tree];
    out.insert(of.checked.tree);
    while let Some(oid) = todo.pop() {
        if of.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        for entry in of.pack.tree(&oid)? {
            match entry.mode.kind() {
                EntryKind::Commit => {}
                EntryKind::Tree => {
                    if out.insert(entry.oid) {
                        todo.push(entry.oid);
                    }
                }
                _ => {
                    out.insert(entry.oid);
                }
            }
        }
    }
    Ok(out)
}

/// Writes the pack, and the index that is made of it.
fn objects(out: &mut Out<'_>, of: &Repository<'_>) -> Result<(), Error> {
    let all: Vec<Oid> = reachable(of)?.into_iter().collect();
    let dir = out.at("objects/pack")?;
    let fail = |source| failed(&dir, source);
    let made = of.pack.dir().join("kept");
    std::fs::create_dir(&made).map_err(fail)?;
    let path = made.join("objects");
    let file = File::create(&path).map_err(fail)?;
    let mut packing = gix_hash::io::Write::new(BufWriter::new(file), of.pack.format());
    let count = u32::try_from(all.len()).map_err(|_| fail(io::ErrorKind::FileTooLarge.into()))?;
    packing
        .write_all(&data::header::encode(data::Version::V2, count))
        .map_err(fail)?;
    let mut rest = &all[..];
    while !rest.is_empty() {
        if of.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let (mut count, mut bytes) = (0, 0);
        while count < rest.len().min(BATCH.0) && bytes < BATCH.1 {
            bytes += of.pack.size(&rest[count])?;
            count += 1;
        }
        let (batch, later) = rest.split_at(count);
        rest = later;
        let compressed: Result<Vec<Vec<u8>>, Error> = batch
            .par_iter()
            .map(|oid| compressed(of.pack, oid))
            .collect();
        for bytes in compressed? {
            packing.write_all(&bytes).map_err(fail)?;
        }
    }
    let sum = packing.hash.try_finalize();
    let sum = sum.map_err(|error| fail(io::Error::other(error.to_string())))?;
    let mut file = packing.inner;
    file.write_all(sum.as_slice()).map_err(fail)?;
    file.flush().map_err(fail)?;
    let mut source = BufReader::new(File::open(&path).map_err(fail)?);
    let done = pack::write(&mut source, &made, of.pack.format(), of.cancel);
    let done = done.map_err(|error| match of.cancel.is_set() {
        true => Error::Cancelled,
        false => fail(pack::as_io(&error)),
    })?;
    let open = out.placer.dir(&dir).map_err(fail)?;
    for made in [done.data_path, done.index_path].into_iter().flatten() {
        let meta = out.meta(Meta::file(0o444, 0, out.time));
        let name = made.file_name().unwrap_or_default().as_encoded_bytes();
        let mut file = open.create(name, &meta).map_err(fail)?;
        io::copy(&mut File::open(&made).map_err(fail)?, &mut file).map_err(fail)?;
        open.seal(&file, &meta).map_err(fail)?;
    }
    std::fs::remove_dir_all(&made).map_err(fail)
}

/// Gives an object as it stands in a pack: whole, whatever it was sent as.
fn compressed(pack: &Pack, oid: &Oid) -> Result<Vec<u8>, Error> {
    let kind = pack.kind(oid).ok_or(Error::Missing(*oid))?;
    let content = pack.read(oid, kind, u64::MAX)?;
    let header = match kind {
        Kind::Commit => data::entry::Header::Commit,
        Kind::Tree => data::entry::Header::Tree,
        Kind::Blob => data::entry::Header::Blob,
        Kind::Tag => data::entry::Header::Tag,
    };
    let failed = |e: io::Error| Error::object(oid, e.to_string());
    let mut out = Vec::with_capacity(content.len() / 2 + 32);
    header
        .write_to(content.len() as u64, &mut out)
        .map_err(failed)?;
    let mut zlib = ZlibEncoder::new(out, Compression::default());
    zlib.write_all(&content).map_err(failed)?;
    zlib.finish().map_err(failed)
}
