//! A `.git` that goes with a checkout: a repository of one commit.
//!
//! The pack is not the one that was sent, which differs from one fetch to the next: it has the
//! commit's own objects alone, each whole, in order of their names, so that the same commit gives
//! the same bytes.

use super::checkout::{Checked, Indexed};
use super::object::{self, Kind, Mode};
use super::{Error, Format, Hasher, Oid, Pack};
use crate::fs::{Meta, Placer, RelPath, Time};
use crate::sys::Cancel;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;

/// Objects over this size are compressed as they are written, not beside others.
const LARGE: u64 = 8 << 20;
/// How many objects are compressed at a time.
const BATCH: usize = 512;

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
    out.file("config", config(of).as_bytes())?;
    for dir in ["objects", "objects/pack", "refs", "refs/heads", "refs/tags"] {
        out.directory(&out.at(dir)?)?;
    }
    if let Some((name, oid)) = of.reference
        && is_plain_name(name)
    {
        out.parents(name)?;
        out.file(name, format!("{oid}\n").as_bytes())?;
    }
    let bytes = of.pack.read(&commit, Kind::Commit, u64::MAX)?;
    if has_parent(&bytes) {
        out.file("shallow", format!("{commit}\n").as_bytes())?;
    }
    let index = index(&of.checked.files, of.checked.time, commit.format())?;
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
        && RelPath::checked(name.as_bytes()).is_some()
        && name.split('/').count() > 2
        && !name
            .split('/')
            .any(|part| part.starts_with('.') || part.ends_with(".lock"))
        && !name.bytes().any(|c| c <= b' ' || c == 0x7f)
}

fn has_parent(commit: &[u8]) -> bool {
    commit
        .split(|&c| c == b'\n')
        .take_while(|line| !line.is_empty())
        .any(|line| line.starts_with(b"parent "))
}

fn config(of: &Repository<'_>) -> String {
    let version = match of.checked.commit.format() {
        Format::Sha1 => 0,
        Format::Sha256 => 1,
    };
    let mut out = format!(
        "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
    );
    if let Some(worktree) = &of.worktree {
        out.push_str(&format!("\tworktree = {}\n", quoted(worktree)));
    }
    if version == 1 {
        out.push_str("[extensions]\n\tobjectformat = sha256\n");
    }
    out.push_str(&format!(
        "[remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        quoted(of.url)
    ));
    for (name, url) in of.submodules {
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        out.push_str(&format!(
            "[submodule {}]\n\tactive = true\n\turl = {}\n",
            quoted(&name),
            quoted(url)
        ));
    }
    out
}

fn quoted(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Makes an index of version 2 (gitformat-index(5)). What it says of inodes is nothing, so that git
/// looks at the files anew.
fn index(files: &[Indexed], time: Time, format: Format) -> Result<Vec<u8>, Error> {
    let mut out = b"DIRC\0\0\0\x02".to_vec();
    out.extend_from_slice(&(files.len() as u32).to_be_bytes());
    for file in files {
        let start = out.len();
        // A time before 1970 has no form here.
        let seconds = u32::try_from(time.secs).unwrap_or(0);
        let numbers = [
            seconds,
            0,
            seconds,
            0,
            0,
            0,
            file.mode,
            0,
            0,
            file.size as u32,
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(file.oid.as_bytes());
        let name = file.path.as_bytes();
        out.extend_from_slice(&(name.len().min(0xfff) as u16).to_be_bytes());
        out.extend_from_slice(name);
        let length = out.len() - start;
        out.resize(start + length + 8 - length % 8, 0);
    }
    let mut hash = Hasher::new(format);
    hash.update(&out);
    let sum = hash.finish().map_err(|e| Error::Pack(e.to_string()))?;
    out.extend_from_slice(sum.as_bytes());
    Ok(out)
}

/// Collects the objects of a commit, and of the tags that led to it.
fn reachable(of: &Repository<'_>) -> Result<BTreeSet<Oid>, Error> {
    let mut out = BTreeSet::from([of.checked.commit]);
    if let Some((_, oid)) = of.reference {
        let mut at = oid;
        while of.pack.kind(&at) == Some(Kind::Tag) && out.insert(at) {
            at = object::tagged(&at, &of.pack.read(&at, Kind::Tag, u64::MAX)?)?;
        }
    }
    let mut todo = vec![of.checked.tree];
    out.insert(of.checked.tree);
    while let Some(oid) = todo.pop() {
        if of.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let bytes = of.pack.tree(&oid)?;
        for entry in object::tree(&oid, &bytes)? {
            match entry.mode {
                Mode::Submodule => {}
                Mode::Directory => {
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

/// Bytes on their way into a pack: counted, and under two sums.
struct Packing<'a> {
    out: BufWriter<&'a File>,
    hash: Hasher,
    crc: crc32fast::Hasher,
    at: u64,
}

impl Write for Packing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        self.crc.update(bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes the pack and its index (gitformat-pack(5)).
fn objects(out: &mut Out<'_>, of: &Repository<'_>) -> Result<(), Error> {
    let all: Vec<Oid> = reachable(of)?.into_iter().collect();
    let format = of.pack.format();
    let mut name = Hasher::new(format);
    for oid in &all {
        name.update(oid.as_bytes());
    }
    let name = name.finish().map_err(|e| Error::Pack(e.to_string()))?;
    let dir = out.at("objects/pack")?;
    let open = out
        .placer
        .dir(&dir)
        .map_err(|source| failed(&dir, source))?;
    let meta = out.meta(Meta::file(0o444, 0, out.time));
    let fail = |source| failed(&dir, source);
    let file_name = format!("pack-{name}.pack");
    let file = open.create(file_name.as_bytes(), &meta).map_err(fail)?;
    let mut packing = Packing {
        out: BufWriter::with_capacity(1 << 16, &file),
        hash: Hasher::new(format),
        crc: crc32fast::Hasher::new(),
        at: 0,
    };
    packing.write_all(b"PACK\0\0\0\x02").map_err(fail)?;
    let count = u32::try_from(all.len()).map_err(|_| Error::Pack("too many objects".into()))?;
    packing.write_all(&count.to_be_bytes()).map_err(fail)?;
    let mut places: Vec<(u64, u32)> = Vec::with_capacity(all.len());
    for batch in all.chunks(BATCH) {
        if of.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let compressed: Result<Vec<Option<Vec<u8>>>, Error> = batch
            .par_iter()
            .map(|oid| compressed(of.pack, oid))
            .collect();
        for (oid, bytes) in batch.iter().zip(compressed?) {
            packing.crc = crc32fast::Hasher::new();
            let offset = packing.at;
            match bytes {
                Some(bytes) => packing.write_all(&bytes).map_err(fail)?,
                None => {
                    head(&mut packing, 3, of.pack.size(oid)?).map_err(fail)?;
                    let mut zlib = ZlibEncoder::new(&mut packing, Compression::default());
                    io::copy(&mut of.pack.open(oid)?, &mut zlib).map_err(fail)?;
                    zlib.finish().map_err(fail)?;
                }
            }
            places.push((offset, packing.crc.clone().finalize()));
        }
    }
    let hash = std::mem::replace(&mut packing.hash, Hasher::new(format));
    let sum = hash.finish().map_err(|e| Error::Pack(e.to_string()))?;
    packing.out.write_all(sum.as_bytes()).map_err(fail)?;
    packing.out.flush().map_err(fail)?;
    drop(packing);
    open.seal(&file, &meta).map_err(fail)?;
    let table = table(&all, &places, &sum, format)?;
    let path = format!("objects/pack/pack-{name}.idx");
    out.file(&path, &table)
}

/// Gives an object as it stands in a pack; nothing for a large one.
fn compressed(pack: &Pack, oid: &Oid) -> Result<Option<Vec<u8>>, Error> {
    let kind = pack.kind(oid).ok_or(Error::Missing(*oid))?;
    if kind == Kind::Blob && pack.size(oid)? > LARGE {
        return Ok(None);
    }
    let content = pack.read(oid, kind, u64::MAX)?;
    let number = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let failed = |e: io::Error| Error::object(oid, e.to_string());
    let mut out = Vec::with_capacity(content.len() / 2 + 32);
    head(&mut out, number, content.len() as u64).map_err(failed)?;
    let mut zlib = ZlibEncoder::new(&mut out, Compression::default());
    zlib.write_all(&content).map_err(failed)?;
    zlib.finish().map_err(failed)?;
    Ok(Some(out))
}

/// Writes the type and size that stand before an object.
fn head(out: &mut impl Write, kind: u8, size: u64) -> io::Result<()> {
    let mut byte = kind << 4 | (size & 15) as u8;
    let mut rest = size >> 4;
    while rest > 0 {
        out.write_all(&[byte | 0x80])?;
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    out.write_all(&[byte])
}

/// Makes the index of a pack, version 2.
fn table(all: &[Oid], places: &[(u64, u32)], sum: &Oid, format: Format) -> Result<Vec<u8>, Error> {
    let mut out = b"\xfftOc\0\0\0\x02".to_vec();
    for first in 0..=255_u8 {
        let below = all.partition_point(|oid| oid.as_bytes()[0] <= first);
        out.extend_from_slice(&(below as u32).to_be_bytes());
    }
    for oid in all {
        out.extend_from_slice(oid.as_bytes());
    }
    for (_, crc) in places {
        out.extend_from_slice(&crc.to_be_bytes());
    }
    let mut large: Vec<u64> = Vec::new();
    for (offset, _) in places {
        let small = u32::try_from(*offset)
            .ok()
            .filter(|offset| offset >> 31 == 0);
        let number = small.unwrap_or_else(|| {
            large.push(*offset);
            0x8000_0000 | (large.len() - 1) as u32
        });
        out.extend_from_slice(&number.to_be_bytes());
    }
    for offset in large {
        out.extend_from_slice(&offset.to_be_bytes());
    }
    out.extend_from_slice(sum.as_bytes());
    let mut hash = Hasher::new(format);
    hash.update(&out);
    let own = hash.finish().map_err(|e| Error::Pack(e.to_string()))?;
    out.extend_from_slice(own.as_bytes());
    Ok(out)
}
