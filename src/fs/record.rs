//! The bytes of a table of contents.
//!
//! ```text
//! header   64 bytes: magic 8, version 4, zero 4, count 8, length of the area 8, zero 16,
//!          first 16 bytes of the BLAKE3 of all that
//! records  112 bytes each, in canonical order of paths
//! area     paths in order of records, then targets, link names and attributes
//! ```
//!
//! All numbers are little-endian. Attributes are name length 4, value length 4, name, value.

use super::toc::{Node, TocEntry};
use super::{Kind, Meta, RelPath, Time};

pub(super) const HEADER: usize = 64;
pub(super) const RECORD: usize = 112;
const MAGIC: &[u8; 8] = b"SHUTRTOC";
const VERSION: u32 = 1;

const PUT: u8 = 0;
const DELETE: u8 = 1;
const OPAQUE: u8 = 2;

/// The header of a table.
pub(super) struct Header {
    pub count: usize,
}

impl Header {
    /// Checks the header of a whole table, and that the length is what it says.
    pub fn read(all: &[u8]) -> Result<Header, &'static str> {
        let head = all
            .get(..HEADER)
            .ok_or("a table of contents is cut short")?;
        if &head[..8] != MAGIC {
            return Err("no table of contents");
        }
        if head[48..] != blake3::hash(&head[..48]).as_bytes()[..16] {
            return Err("the header of a table of contents is damaged");
        }
        if u32_at(head, 8) != Some(VERSION) {
            return Err("a table of contents of another version");
        }
        let size = |at| u64_at(head, at).and_then(|n| usize::try_from(n).ok());
        let (count, area) = size(16)
            .zip(size(24))
            .ok_or("a table of contents is too large")?;
        let length = count
            .checked_mul(RECORD)
            .and_then(|n| n.checked_add(HEADER)?.checked_add(area));
        if length != Some(all.len()) {
            return Err("a table of contents is cut short");
        }
        Ok(Header { count })
    }

    fn bytes(count: usize, area: usize) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&(count as u64).to_le_bytes());
        out[24..32].copy_from_slice(&(area as u64).to_le_bytes());
        let sum = blake3::hash(&out[..48]);
        out[48..].copy_from_slice(&sum.as_bytes()[..16]);
        out
    }
}

/// Gives the path of a record; `None` where it is damaged.
pub(super) fn path<'a>(record: &[u8], area: &'a [u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(u64_at(record, 0)?).ok()?;
    let len = u32_at(record, 8)? as usize;
    area.get(start..start.checked_add(len)?)
}

/// Tells whether a record is that of a hard link to another name.
pub(super) fn is_link(record: &[u8]) -> bool {
    record.get(13) == Some(&PUT) && record.get(15).is_some_and(|&byte| byte != 0)
}

/// Gives the whole table of entries that are sorted and unique.
pub(super) fn encode(entries: &[&TocEntry]) -> Vec<u8> {
    let mut area = Vec::new();
    for entry in entries {
        area.extend_from_slice(entry.path.as_bytes());
    }
    let mut records = Vec::with_capacity(HEADER + entries.len() * RECORD);
    records.resize(HEADER, 0);
    let mut path_at = 0u64;
    for entry in entries {
        let path_len = entry.path.as_bytes().len();
        let record = encode_one(&entry.node, path_at, path_len as u32, &mut area);
        records.extend_from_slice(&record);
        path_at += path_len as u64;
    }
    records[..HEADER].copy_from_slice(&Header::bytes(entries.len(), area.len()));
    records.append(&mut area);
    records
}

fn encode_one(node: &Node, path_at: u64, path_len: u32, area: &mut Vec<u8>) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let mut set = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, &path_at.to_le_bytes());
    set(8, &path_len.to_le_bytes());
    let (tag, meta, content, link) = match node {
        Node::Put {
            meta,
            content,
            link,
        } => (PUT, Some(meta), content.as_ref(), link.as_ref()),
        Node::Delete => (DELETE, None, None, None),
        Node::Opaque(meta) => (OPAQUE, Some(meta), None, None),
    };
    set(
        13,
        &[tag, u8::from(content.is_some()), u8::from(link.is_some())],
    );
    let Some(meta) = meta else { return record };
    set(12, &[kind_byte(meta.kind)]);
    set(16, &meta.mode.to_le_bytes());
    set(20, &meta.uid.to_le_bytes());
    set(24, &meta.gid.to_le_bytes());
    set(28, &meta.mtime.nanos.to_le_bytes());
    set(32, &meta.mtime.secs.to_le_bytes());
    set(40, &meta.size.to_le_bytes());
    set(48, &meta.device.0.to_le_bytes());
    set(52, &meta.device.1.to_le_bytes());
    let link_bytes = link.map_or(&[][..], |link| link.as_bytes());
    set(56, &(meta.target.len() as u32).to_le_bytes());
    set(60, &(link_bytes.len() as u32).to_le_bytes());
    set(64, &(area.len() as u64).to_le_bytes());
    set(72, &(meta.xattrs.len() as u32).to_le_bytes());
    if let Some(content) = content {
        set(80, content);
    }
    area.extend_from_slice(&meta.target);
    area.extend_from_slice(link_bytes);
    for (name, value) in &meta.xattrs {
        area.extend_from_slice(&(name.len() as u32).to_le_bytes());
        area.extend_from_slice(&(value.len() as u32).to_le_bytes());
        area.extend_from_slice(name);
        area.extend_from_slice(value);
    }
    record
}

/// Reads a record; `None` where it is damaged.
pub(super) fn node(record: &[u8], area: &[u8]) -> Option<Node> {
    let tag = *record.get(13)?;
    if tag == DELETE {
        return Some(Node::Delete);
    }
    let start = usize::try_from(u64_at(record, 64)?).ok()?;
    let mut rest = area.get(start..)?;
    let target = take(&mut rest, u32_at(record, 56)? as usize)?.to_vec();
    let link = take(&mut rest, u32_at(record, 60)? as usize)?;
    let mut xattrs = Vec::new();
    for _ in 0..u32_at(record, 72)? {
        let name = u32_at(take(&mut rest, 4)?, 0)? as usize;
        let value = u32_at(take(&mut rest, 4)?, 0)? as usize;
        let name = take(&mut rest, name)?.to_vec();
        xattrs.push((name, take(&mut rest, value)?.to_vec()));
    }
    let meta = Meta {
        kind: kind_of(*record.get(12)?)?,
        mode: u32_at(record, 16)?,
        uid: u32_at(record, 20)?,
        gid: u32_at(record, 24)?,
        size: u64_at(record, 40)?,
        mtime: Time {
            secs: u64_at(record, 32)? as i64,
            nanos: u32_at(record, 28)?,
        },
        device: (u32_at(record, 48)?, u32_at(record, 52)?),
        target,
        xattrs,
    };
    match tag {
        OPAQUE => Some(Node::Opaque(meta)),
        PUT => Some(Node::Put {
            meta,
            content: match *record.get(14)? {
                0 => None,
                _ => Some(record.get(80..112)?.try_into().ok()?),
            },
            link: match *record.get(15)? {
                0 => None,
                _ => Some(RelPath::checked(link)?),
            },
        }),
        _ => None,
    }
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Dir => 1,
        Kind::Symlink => 2,
        Kind::Char => 3,
        Kind::Block => 4,
        Kind::Fifo => 5,
    }
}

fn kind_of(byte: u8) -> Option<Kind> {
    Some(match byte {
        0 => Kind::File,
        1 => Kind::Dir,
        2 => Kind::Symlink,
        3 => Kind::Char,
        4 => Kind::Block,
        5 => Kind::Fifo,
        _ => return None,
    })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
