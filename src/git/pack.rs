//! Packs: received into a file, indexed, and read (gitformat-pack(5)).

use super::object::Kind;
use super::{Error, Format, Hasher, Oid};
use crate::sys::{Cancel, map_file};
use flate2::bufread::ZlibDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use memmap2::Mmap;
use rayon::prelude::*;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The largest object that may be a delta or the base of one. git makes none of more than 512 MiB.
const MAX_HELD: u64 = 1 << 30;
/// The most bytes of objects that are held for the deltas that wait for them, in one chain.
const MAX_CHAIN: u64 = 2 << 30;
/// The longest chain of deltas. git makes none of more than 4095.
const MAX_DEPTH: u16 = 1 << 13;
/// Pieces that a pack is read in.
const PIECE: usize = 64 << 10;

const OFFSET_DELTA: u8 = 6;
const NAMED_DELTA: u8 = 7;

/// A pack on disk, with the names of what is in it.
pub struct Pack {
    map: Mmap,
    format: Format,
    /// In order of names.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    oid: Oid,
    offset: u64,
    kind: Kind,
    /// How many deltas it is made by.
    depth: u16,
}

/// Where the content of an object in a pack begins, and what it is.
struct Head {
    /// The size of the content, or of the delta.
    size: u64,
    /// Where the compressed bytes begin.
    data: usize,
    base: Option<Base>,
}

#[derive(Clone, Copy)]
enum Base {
    Offset(u64),
    Named(Oid),
}

/// An object as it was met in a pack.
struct Raw {
    offset: u64,
    /// Known at once where it is no delta.
    named: Option<(Oid, Kind)>,
}

/// Takes in a pack: writes it to `file`, checks its sum, and finds the name of every object in it.
/// `moved` is told of bytes as they come; errors of `source` come out of it unchanged where they are
/// ours.
pub fn receive(
    source: &mut dyn Read,
    remote: &str,
    file: &Path,
    format: Format,
    cancel: &Cancel,
    moved: &dyn Fn(u64),
) -> Result<Pack, Error> {
    let failed = |action, source| Error::Io {
        action,
        path: file.to_owned(),
        source,
    };
    let out = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(file)
        .map_err(|e| failed("create", e))?;
    let mut tee = Tee {
        source,
        out: BufWriter::with_capacity(PIECE, &out),
        hash: Hasher::new(format),
        buffer: vec![0; PIECE],
        start: 0,
        end: 0,
        at: 0,
        moved,
        broken: None,
    };
    let read = tee.objects(format, cancel);
    let result = match (read, tee.broken.take()) {
        (_, Some(error)) => Err(failed("write", error)),
        (Err(Stop::Ours(error)), None) => Err(error),
        (Err(Stop::Source(error)), None) => Err(Error::of_io(remote, error)),
        (Ok(raw), None) => tee.finish(format).map(|()| raw).map_err(|stop| match stop {
            Stop::Ours(error) => error,
            Stop::Source(error) => Error::of_io(remote, error),
        }),
    };
    let (raw, deltas) = result?;
    tee.out.flush().map_err(|e| failed("write", e))?;
    drop(tee);
    let map = map_file(&out).map_err(|e| failed("map", e))?;
    let mut pack = Pack {
        map,
        format,
        entries: Vec::new(),
    };
    pack.entries = pack.name_all(&raw, &deltas, cancel)?;
    Ok(pack)
}

/// Why reading stopped.
enum Stop {
    Ours(Error),
    Source(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Source(error)
    }
}

fn odd<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Ours(Error::Pack(why.into())))
}

/// A pack's bytes on their way through the hash into the file.
struct Tee<'a> {
    source: &'a mut dyn Read,
    out: BufWriter<&'a File>,
    hash: Hasher,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that went through.
    at: u64,
    moved: &'a dyn Fn(u64),
    /// Why the file could not be written.
    broken: Option<io::Error>,
}

/// An object's place in the pack, and the base that it is a delta of.
type Delta = (u32, Base);

impl Tee<'_> {
    /// Gives what is there; at least something.
    fn peek(&mut self) -> Result<&[u8], Stop> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            loop {
                match self.source.read(&mut self.buffer) {
                    Ok(0) => return Err(Stop::Source(io::ErrorKind::UnexpectedEof.into())),
                    Ok(n) => {
                        self.end = n;
                        (self.moved)(n as u64);
                        break;
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(Stop::Source(e)),
                }
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn pass(&mut self, n: usize) -> Result<(), Stop> {
        let piece = &self.buffer[self.start..self.start + n];
        self.hash.update(piece);
        if let Err(error) = self.out.write_all(piece) {
            self.broken = Some(error);
            return odd("its file cannot be written");
        }
        self.start += n;
        self.at += n as u64;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.peek()?[0];
        self.pass(1)?;
        Ok(byte)
    }

    fn objects(&mut self, format: Format, cancel: &Cancel) -> Result<(Vec<Raw>, Vec<Delta>), Stop> {
        let mut head = [0; 12];
        for byte in &mut head {
            *byte = self.byte()?;
        }
        if &head[..4] != b"PACK" || !matches!(head[4..8], [0, 0, 0, 2 | 3]) {
            return odd("it is none");
        }
        let count = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        let mut raw = Vec::with_capacity((count as usize).min(1 << 16));
        let mut deltas = Vec::new();
        let mut inflate = Decompress::new(true);
        let mut space = vec![0; PIECE];
        for place in 0..count {
            if cancel.is_set() {
                return Err(Stop::Ours(Error::Cancelled));
            }
            let offset = self.at;
            let (kind, size) = self.head()?;
            let base = match kind {
                OFFSET_DELTA => Some(Base::Offset(self.base(offset)?)),
                NAMED_DELTA => {
                    let mut bytes = [0; 32];
                    for byte in &mut bytes[..format.size()] {
                        *byte = self.byte()?;
                    }
                    match Oid::from_bytes(&bytes[..format.size()], format) {
                        Some(oid) => Some(Base::Named(oid)),
                        None => return odd("it has a delta of nothing"),
                    }
                }
                _ => None,
            };
            if let Some(base) = base {
                deltas.push((place, base));
                self.inflate(&mut inflate, &mut space, size, |_| ())?;
                raw.push(Raw {
                    offset,
                    named: None,
                });
                continue;
            }
            let Some(kind) = kind_of(kind) else {
                return odd(format!("it has an object of type {kind}"));
            };
            let mut hash = Hasher::object(format, kind.name(), size);
            self.inflate(&mut inflate, &mut space, size, |piece| hash.update(piece))?;
            let oid = named(hash)?;
            raw.push(Raw {
                offset,
                named: Some((oid, kind)),
            });
        }
        Ok((raw, deltas))
    }

    fn head(&mut self) -> Result<(u8, u64), Stop> {
        let mut byte = self.byte()?;
        let kind = byte >> 4 & 7;
        let mut size = u64::from(byte & 15);
        let mut shift = 4;
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            if shift > 56 {
                return odd("an object is too large");
            }
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        Ok((kind, size))
    }

    /// Reads how far before `offset` a base is, and gives where that is.
    fn base(&mut self, offset: u64) -> Result<u64, Stop> {
        let mut byte = self.byte()?;
        let mut back = u64::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            if back >= 1 << 56 {
                return odd("a delta's base is too far away");
            }
            back = (back + 1) << 7 | u64::from(byte & 0x7f);
        }
        match offset.checked_sub(back) {
            Some(base) if back > 0 => Ok(base),
            _ => odd("a delta's base is not before it"),
        }
    }

    /// Passes over compressed bytes that become `size` bytes, which the sink gets.
    fn inflate(
        &mut self,
        inflate: &mut Decompress,
        space: &mut [u8],
        size: u64,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Stop> {
        inflate.reset(true);
        let mut total = 0;
        loop {
            let input = self.peek()?;
            let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
            let status = inflate.decompress(input, space, FlushDecompress::None);
            let taken = (inflate.total_in() - before_in) as usize;
            let made = (inflate.total_out() - before_out) as usize;
            let Ok(status) = status else {
                return odd("an object cannot be decompressed");
            };
            self.pass(taken)?;
            sink(&space[..made]);
            total += made as u64;
            if total > size {
                return odd("an object is longer than it says");
            }
            match status {
                Status::StreamEnd if total == size => return Ok(()),
                Status::StreamEnd => return odd("an object is shorter than it says"),
                _ if taken == 0 && made == 0 => return odd("an object cannot be decompressed"),
                _ => {}
            }
        }
    }

    /// Compares the sum at the end.
    fn finish(&mut self, format: Format) -> Result<(), Stop> {
        let hash = std::mem::replace(&mut self.hash, Hasher::new(format));
        let sum = named(hash)?;
        let mut there = [0; 32];
        for byte in &mut there[..format.size()] {
            *byte = self.byte()?;
        }
        match sum.as_bytes() == &there[..format.size()] {
            true => Ok(()),
            false => odd("it has not the sum that it says"),
        }
    }
}

fn kind_of(kind: u8) -> Option<Kind> {
    Some(match kind {
        1 => Kind::Commit,
        2 => Kind::Tree,
        3 => Kind::Blob,
        4 => Kind::Tag,
        _ => return None,
    })
}

fn named(hash: Hasher) -> Result<Oid, Stop> {
    hash.finish()
        .map_err(|e| Stop::Ours(Error::Pack(format!("an object: {e}"))))
}

/// A content that deltas wait for, counted while it is held.
struct Held<'a> {
    bytes: Vec<u8>,
    count: &'a AtomicU64,
}

impl<'a> Held<'a> {
    fn new(bytes: Vec<u8>, count: &'a AtomicU64) -> Result<Held<'a>, Error> {
        let size = bytes.len() as u64;
        let held = Held { bytes, count };
        match count.fetch_add(size, Ordering::Relaxed) + size > MAX_CHAIN {
            true => Err(Error::Pack("its deltas want too much memory".into())),
            false => Ok(held),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.count
            .fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

/// Which deltas a base has.
struct Children<'a> {
    raw: &'a [Raw],
    deltas: &'a [Delta],
    /// Place of the base in the pack, and of its delta in `deltas`, in order.
    by_place: Vec<(u32, u32)>,
    by_name: HashMap<Oid, Vec<u32>>,
    /// An object may be in a pack twice; its deltas are worked out once.
    taken: Vec<AtomicBool>,
}

impl Children<'_> {
    fn of(&self, place: u32, oid: &Oid) -> Vec<u32> {
        let first = self.by_place.partition_point(|(base, _)| *base < place);
        let by_place = self.by_place[first..]
            .iter()
            .take_while(|(base, _)| *base == place)
            .map(|(_, delta)| *delta);
        let by_name = self.by_name.get(oid).into_iter().flatten().copied();
        by_place
            .chain(by_name)
            .filter(|delta| !self.taken[*delta as usize].swap(true, Ordering::Relaxed))
            .collect()
    }
}

impl Pack {
    /// Gives what the objects are named by.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Gives how many objects there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives what each object is, in order of their names.
    pub fn objects(&self) -> impl Iterator<Item = (Oid, Kind)> {
        self.entries.iter().map(|entry| (entry.oid, entry.kind))
    }

    /// Finds the names of the deltas, in parallel, and gives all objects in order of their names.
    fn name_all(
        &self,
        raw: &[Raw],
        deltas: &[Delta],
        cancel: &Cancel,
    ) -> Result<Vec<Entry>, Error> {
        let mut children = Children {
            raw,
            deltas,
            by_place: Vec::new(),
            by_name: HashMap::new(),
            taken: deltas.iter().map(|_| AtomicBool::new(false)).collect(),
        };
        for (at, (_, base)) in deltas.iter().enumerate() {
            let at = at as u32;
            match base {
                Base::Offset(offset) => {
                    let place = raw
                        .binary_search_by_key(offset, |raw| raw.offset)
                        .map_err(|_| Error::Pack("a delta has no base".into()))?;
                    children.by_place.push((place as u32, at));
                }
                Base::Named(oid) => children.by_name.entry(*oid).or_default().push(at),
            }
        }
        children.by_place.sort_unstable();
        let found: Result<Vec<Vec<Entry>>, Error> = raw
            .par_iter()
            .enumerate()
            .map(|(place, one)| {
                let Some((oid, kind)) = one.named else {
                    return Ok(Vec::new());
                };
                let waiting = children.of(place as u32, &oid);
                match waiting.is_empty() {
                    true => Ok(Vec::new()),
                    false => self.follow(one.offset, kind, waiting, &children, cancel),
                }
            })
            .collect();
        let found = found?;
        let mut entries: Vec<Entry> = raw
            .iter()
            .filter_map(|one| {
                let (oid, kind) = one.named?;
                Some(Entry {
                    oid,
                    offset: one.offset,
                    kind,
                    depth: 0,
                })
            })
            .chain(found.into_iter().flatten())
            .collect();
        if entries.len() != raw.len() {
            let missing = raw.len() - entries.len();
            return Err(Error::Pack(format!("{missing} deltas have no base")));
        }
        // Of an object that is there twice the one of fewer deltas is read, whose bases have fewer
        // still: chains end, however bases are named.
        entries.par_sort_unstable_by_key(|entry| (entry.oid, entry.depth, entry.offset));
        entries.dedup_by_key(|entry| entry.oid);
        Ok(entries)
    }

    /// Works out everything that is made of one object by deltas.
    fn follow(
        &self,
        offset: u64,
        kind: Kind,
        waiting: Vec<u32>,
        children: &Children<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<Entry>, Error> {
        let count = AtomicU64::new(0);
        let mut out = Vec::new();
        let root = Held::new(self.inflated(&self.head(offset)?)?, &count)?;
        let root = std::rc::Rc::new(root);
        let mut todo: Vec<(std::rc::Rc<Held<'_>>, u16, u32)> = waiting
            .into_iter()
            .map(|delta| (root.clone(), 1, delta))
            .collect();
        drop(root);
        while let Some((base, depth, delta)) = todo.pop() {
            if cancel.is_set() {
                return Err(Error::Cancelled);
            }
            if depth > MAX_DEPTH {
                return Err(Error::Pack("a chain of deltas is too long".into()));
            }
            let place = children.deltas[delta as usize].0;
            let offset = children.raw[place as usize].offset;
            let bytes = apply(&base.bytes, &self.inflated(&self.head(offset)?)?)?;
            drop(base);
            let mut hash = Hasher::object(self.format, kind.name(), bytes.len() as u64);
            hash.update(&bytes);
            let oid = hash
                .finish()
                .map_err(|e| Error::Pack(format!("an object: {e}")))?;
            out.push(Entry {
                oid,
                offset,
                kind,
                depth,
            });
            let waiting = children.of(place, &oid);
            if !waiting.is_empty() {
                let held = std::rc::Rc::new(Held::new(bytes, &count)?);
                let waiting = waiting.into_iter();
                todo.extend(waiting.map(|delta| (held.clone(), depth + 1, delta)));
            }
        }
        Ok(out)
    }

    /// Reads what stands before an object's content.
    fn head(&self, offset: u64) -> Result<Head, Error> {
        let odd = || Error::Pack("an object has no beginning".into());
        let start = usize::try_from(offset).map_err(|_| odd())?;
        let mut rest = self.map.get(start..).ok_or_else(odd)?.iter();
        let mut byte = *rest.next().ok_or_else(odd)?;
        let kind = byte >> 4 & 7;
        let mut size = u64::from(byte & 15);
        let mut shift = 4;
        while byte & 0x80 != 0 {
            byte = *rest.next().ok_or_else(odd)?;
            size |= u64::from(byte & 0x7f).checked_shl(shift).ok_or_else(odd)?;
            shift += 7;
        }
        let base = match kind {
            OFFSET_DELTA => {
                let mut byte = *rest.next().ok_or_else(odd)?;
                let mut back = u64::from(byte & 0x7f);
                while byte & 0x80 != 0 {
                    byte = *rest.next().ok_or_else(odd)?;
                    back = (back + 1) << 7 | u64::from(byte & 0x7f);
                }
                Some(Base::Offset(offset.checked_sub(back).ok_or_else(odd)?))
            }
            NAMED_DELTA => {
                let bytes = rest.as_slice().get(..self.format.size()).ok_or_else(odd)?;
                rest = rest.as_slice()[self.format.size()..].iter();
                let oid = Oid::from_bytes(bytes, self.format).ok_or_else(odd)?;
                Some(Base::Named(oid))
            }
            _ => None,
        };
        Ok(Head {
            size,
            data: self.map.len() - rest.len(),
            base,
        })
    }

    fn stream(&self, head: &Head) -> ZlibDecoder<&[u8]> {
        ZlibDecoder::new(self.map.get(head.data..).unwrap_or_default())
    }

    /// Gives an object's content, or its delta, whole.
    fn inflated(&self, head: &Head) -> Result<Vec<u8>, Error> {
        if head.size > MAX_HELD {
            let why = format!("an object of {} bytes is part of a delta", head.size);
            return Err(Error::Pack(why));
        }
        // What it says of its size has been found true when it came.
        let mut out = Vec::with_capacity(head.size as usize);
        let mut stream = self.stream(head).take(head.size + 1);
        let read = stream.read_to_end(&mut out);
        if read.is_err() || out.len() as u64 != head.size {
            return Err(Error::Pack("an object cannot be decompressed".into()));
        }
        Ok(out)
    }

    fn find(&self, oid: &Oid) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(oid, |entry| entry.oid);
        at.ok().and_then(|at| self.entries.get(at))
    }

    /// Tells what an object is; `None` where it is not here.
    pub fn kind(&self, oid: &Oid) -> Option<Kind> {
        self.find(oid).map(|entry| entry.kind)
    }

    /// Gives an object of a kind whole; one of more than `limit` bytes is an error.
    pub fn read(&self, oid: &Oid, kind: Kind, limit: u64) -> Result<Vec<u8>, Error> {
        let entry = self.get(oid, kind)?;
        let bytes = self.content(entry)?;
        match bytes.len() as u64 > limit {
            true => Err(Error::object(
                oid,
                format!("it has {} bytes; the bound is {limit}", bytes.len()),
            )),
            false => Ok(bytes),
        }
    }

    fn get(&self, oid: &Oid, kind: Kind) -> Result<&Entry, Error> {
        let entry = self.find(oid).ok_or(Error::Missing(*oid))?;
        if entry.kind != kind {
            let why = format!("it is a {}, not a {}", entry.kind.name(), kind.name());
            return Err(Error::object(oid, why));
        }
        Ok(entry)
    }

    fn content(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let mut deltas = Vec::new();
        let mut head = self.head(entry.offset)?;
        while let Some(base) = head.base {
            // It was no longer when the pack came, unless the file has changed since.
            if deltas.len() >= usize::from(MAX_DEPTH) {
                return Err(Error::object(&entry.oid, "its chain of deltas is too long"));
            }
            deltas.push(head);
            let offset = match base {
                Base::Offset(offset) => offset,
                Base::Named(oid) => self.find(&oid).ok_or(Error::Missing(oid))?.offset,
            };
            head = self.head(offset)?;
        }
        let mut bytes = self.inflated(&head)?;
        for delta in deltas.iter().rev() {
            bytes = apply(&bytes, &self.inflated(delta)?)?;
        }
        Ok(bytes)
    }

    /// Gives the size of a blob's content.
    pub fn size(&self, oid: &Oid) -> Result<u64, Error> {
        let entry = self.get(oid, Kind::Blob)?;
        let head = self.head(entry.offset)?;
        match head.base {
            None => Ok(head.size),
            Some(_) => {
                let delta = self.inflated(&head)?;
                let mut rest = &delta[..];
                number(&mut rest)?;
                number(&mut rest)
            }
        }
    }

    /// Opens a blob's content as a stream; large ones are never held.
    pub fn open(&self, oid: &Oid) -> Result<Box<dyn Read + Send + '_>, Error> {
        let entry = self.get(oid, Kind::Blob)?;
        let head = self.head(entry.offset)?;
        Ok(match head.base {
            None => Box::new(self.stream(&head)),
            Some(_) => Box::new(io::Cursor::new(self.content(entry)?)),
        })
    }
}

/// Reads a number of a delta.
fn number(rest: &mut &[u8]) -> Result<u64, Error> {
    let mut out = 0;
    let mut shift = 0;
    loop {
        let byte = next(rest)?;
        if shift > 56 {
            return Err(Error::Pack("a delta has a number out of bounds".into()));
        }
        out |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Ok(out);
        }
    }
}

fn next(rest: &mut &[u8]) -> Result<u8, Error> {
    let (byte, tail) = rest
        .split_first()
        .ok_or_else(|| Error::Pack("a delta ends in the middle".into()))?;
    *rest = tail;
    Ok(*byte)
}

/// Makes an object of its base and a delta.
fn apply(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, Error> {
    let odd = |why: &str| Error::Pack(format!("a delta {why}"));
    let mut rest = delta;
    if number(&mut rest)? != base.len() as u64 {
        return Err(odd("is of another base"));
    }
    let size = number(&mut rest)?;
    if size > MAX_HELD {
        return Err(odd("makes too large an object"));
    }
    let size = size as usize;
    // Nothing is set aside for what a delta only says that it makes.
    let mut out = Vec::with_capacity(size.min(1 << 20));
    while !rest.is_empty() {
        let op = next(&mut rest)?;
        let piece = if op & 0x80 != 0 {
            let (mut from, mut length) = (0, 0);
            for bit in 0..4 {
                if op & 1 << bit != 0 {
                    from |= usize::from(next(&mut rest)?) << (8 * bit);
                }
            }
            for bit in 0..3 {
                if op & 0x10 << bit != 0 {
                    length |= usize::from(next(&mut rest)?) << (8 * bit);
                }
            }
            if length == 0 {
                length = 0x10000;
            }
            base.get(from..)
                .and_then(|tail| tail.get(..length))
                .ok_or_else(|| odd("copies what is not there"))?
        } else {
            let length = usize::from(op);
            let piece = rest
                .get(..length)
                .filter(|piece| !piece.is_empty())
                .ok_or_else(|| odd("ends in the middle"))?;
            rest = &rest[length..];
            piece
        };
        if out.len() + piece.len() > size {
            return Err(odd("makes more than it says"));
        }
        out.extend_from_slice(piece);
    }
    match out.len() == size {
        true => Ok(out),
        false => Err(odd("makes less than it says")),
    }
}
