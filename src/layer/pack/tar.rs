//! The bytes of tar headers.
//!
//! POSIX ustar, with PAX records where ustar has no room; what has one is decided as Go's
//! `archive/tar` does for `FormatPAX`, so that an entry looks as other image builders write it: a
//! path of more than 100 bytes or with a byte above 127 is a record and never split into prefix
//! and name. Records are sorted by key. Times are whole seconds. Owners have no names.

use crate::fs::{Kind, Meta, RelPath};
use std::io::Write;

const BLOCK: usize = 512;

/// Why an entry cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// An attribute's name has a byte that PAX keys cannot have.
    Xattr(Vec<u8>),
    /// A device's number is too large.
    Device(u32, u32),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unfit::Xattr(name) => write!(
                f,
                "a tar cannot hold an extended attribute named `{}`",
                String::from_utf8_lossy(name)
            ),
            Unfit::Device(major, minor) => write!(f, "a tar cannot hold device {major}:{minor}"),
        }
    }
}

/// Adds the header of an entry: PAX records where needed, then the ustar block. `link` makes it a
/// hard link. The content of a regular file follows, and then `pad`.
pub(super) fn header(
    out: &mut Vec<u8>,
    path: &RelPath,
    meta: &Meta,
    link: Option<&RelPath>,
    mtime: i64,
) -> Result<(), Unfit> {
    let (flag, size) = match (link, meta.kind) {
        (Some(_), _) => (b'1', 0),
        (None, Kind::File) => (b'0', meta.size),
        (None, Kind::Symlink) => (b'2', 0),
        (None, Kind::Char) => (b'3', 0),
        (None, Kind::Block) => (b'4', 0),
        (None, Kind::Dir) => (b'5', 0),
        (None, Kind::Fifo) => (b'6', 0),
    };
    let device = match meta.kind {
        Kind::Char | Kind::Block => meta.device,
        _ => (0, 0),
    };
    if device.0.max(device.1) > 0o777_7777 {
        return Err(Unfit::Device(device.0, device.1));
    }
    let mut name = path.as_bytes().to_vec();
    if flag == b'5' {
        name.push(b'/');
    }
    let target: &[u8] = match link {
        Some(first) => first.as_bytes(),
        None => &meta.target,
    };
    let entry = Fields {
        name: &name,
        mode: meta.mode & 0o7777,
        uid: meta.uid.into(),
        gid: meta.gid.into(),
        size,
        mtime,
        flag,
        target,
        device,
    };
    let records = records(&entry, meta)?;
    if !records.is_empty() {
        let dir = path.parent().unwrap_or_default();
        let head = dir.join(b"PaxHeaders.0").join(path.name());
        Fields {
            name: head.as_bytes(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: records.len() as u64,
            mtime: 0,
            flag: b'x',
            target: b"",
            device: (0, 0),
        }
        .write(out);
        out.extend_from_slice(&records);
        pad(out, records.len() as u64);
    }
    entry.write(out);
    Ok(())
}

/// Adds the header of a whiteout: an empty file `.wh.NAME` beside the path.
pub(super) fn whiteout(out: &mut Vec<u8>, path: &RelPath, mtime: i64) -> Result<(), Unfit> {
    let name = [b".wh.", path.name()].concat();
    let path = path.parent().unwrap_or_default().join(&name);
    header(
        out,
        &path,
        &Meta::file(0, 0, Default::default()),
        None,
        mtime,
    )
}

/// Adds the marker that a directory hides what the layers below have in it.
pub(super) fn opaque(out: &mut Vec<u8>, dir: &RelPath, mtime: i64) -> Result<(), Unfit> {
    let path = dir.join(b".wh..wh..opq");
    header(
        out,
        &path,
        &Meta::file(0, 0, Default::default()),
        None,
        mtime,
    )
}

/// Fills up the last block of `size` bytes.
pub(super) fn pad(out: &mut Vec<u8>, size: u64) {
    out.resize(out.len() + padding(size), 0);
}

/// Gives the number of bytes that fill up the last block.
pub(super) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Adds the two empty blocks that end an archive.
pub(super) fn end(out: &mut Vec<u8>) {
    out.resize(out.len() + 2 * BLOCK, 0);
}

struct Fields<'a> {
    name: &'a [u8],
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: i64,
    flag: u8,
    target: &'a [u8],
    device: (u32, u32),
}

const MAX_ID: u64 = 0o777_7777;
const MAX_SIZE: u64 = 0o777_7777_7777;

impl Fields<'_> {
    /// Writes the block; what does not fit is cut or 0, since a record says it.
    fn write(&self, out: &mut Vec<u8>) {
        let mut block = [0_u8; BLOCK];
        text(&mut block[0..100], self.name);
        octal(&mut block[100..108], self.mode.into());
        octal(&mut block[108..116], fit(self.uid, MAX_ID));
        octal(&mut block[116..124], fit(self.gid, MAX_ID));
        octal(&mut block[124..136], fit(self.size, MAX_SIZE));
        octal(
            &mut block[136..148],
            fit(u64::try_from(self.mtime).unwrap_or(0), MAX_SIZE),
        );
        block[148..156].fill(b' ');
        block[156] = self.flag;
        text(&mut block[157..257], self.target);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], self.device.0.into());
        octal(&mut block[337..345], self.device.1.into());
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut block[148..155], sum);
        out.extend_from_slice(&block);
    }
}

fn fit(value: u64, max: u64) -> u64 {
    if value <= max { value } else { 0 }
}

/// Copies what is ASCII, as much as fits.
fn text(field: &mut [u8], value: &[u8]) {
    let ascii = value.iter().filter(|byte| byte.is_ascii());
    for (to, from) in field.iter_mut().zip(ascii) {
        *to = *from;
    }
}

/// Writes zero-padded octal digits and a NUL.
fn octal(field: &mut [u8], mut value: u64) {
    let Some((end, digits)) = field.split_last_mut() else {
        return;
    };
    *end = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Makes the PAX records, sorted by key.
fn records(entry: &Fields<'_>, meta: &Meta) -> Result<Vec<u8>, Unfit> {
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let long = |value: &[u8]| value.len() > 100 || !value.is_ascii();
    let mut say = |key: &[u8], value: Vec<u8>| all.push((key.to_vec(), value));
    if long(entry.name) {
        say(b"path", entry.name.to_vec());
    }
    if long(entry.target) {
        say(b"linkpath", entry.target.to_vec());
    }
    if entry.uid > MAX_ID {
        say(b"uid", entry.uid.to_string().into_bytes());
    }
    if entry.gid > MAX_ID {
        say(b"gid", entry.gid.to_string().into_bytes());
    }
    if entry.size > MAX_SIZE {
        say(b"size", entry.size.to_string().into_bytes());
    }
    if !(0..=MAX_SIZE as i64).contains(&entry.mtime) {
        say(b"mtime", entry.mtime.to_string().into_bytes());
    }
    for (name, value) in &meta.xattrs {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
            return Err(Unfit::Xattr(name.clone()));
        }
        say(&[b"SCHILY.xattr.", &name[..]].concat(), value.clone());
    }
    all.sort();
    let mut out = Vec::new();
    for (key, value) in all {
        record(&mut out, &key, &value);
    }
    Ok(out)
}

/// Adds `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() != rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    // Writing to a vector does not fail.
    let _ = write!(out, "{length} ");
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}
