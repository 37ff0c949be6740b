//! The records of PAX headers: `LENGTH KEY=VALUE\n`, where the value is any bytes.

use super::Time;
use std::collections::BTreeMap;

/// What the records before an entry say of it.
#[derive(Clone, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: SparseRecords,
}

/// What they say of a sparse file.
#[derive(Clone, Default)]
pub(super) struct SparseRecords {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub pieces: Vec<(u64, u64)>,
    pub version: Option<(u64, u64)>,
    offset: Option<u64>,
}

impl SparseRecords {
    pub fn is_some(&self) -> bool {
        self.size.is_some() || self.version.is_some() || !self.pieces.is_empty()
    }
}

impl Pax {
    /// Takes a record in; one that nobody knows is passed over. An empty value takes back what an
    /// earlier header said.
    pub fn take(&mut self, key: &[u8], value: &[u8], max_pieces: usize) -> Result<(), String> {
        let wrong = || format!("the record `{}` is not a number", key.escape_ascii());
        let count = || decimal(value).ok_or_else(wrong);
        let optional = || match value.is_empty() {
            true => Ok(None),
            false => count().map(Some),
        };
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = optional()?,
            b"uid" => self.uid = optional()?,
            b"gid" => self.gid = optional()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(count()?),
            b"GNU.sparse.major" => {
                self.sparse.version = Some((count()?, self.sparse.version.unwrap_or_default().1));
            }
            b"GNU.sparse.minor" => {
                self.sparse.version = Some((self.sparse.version.unwrap_or_default().0, count()?));
            }
            b"GNU.sparse.offset" => self.sparse.offset = Some(count()?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or_else(wrong)?;
                self.sparse.pieces.push((offset, count()?));
            }
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|&c| c == b',').map(decimal).collect();
                let numbers = numbers.filter(|all| all.len() % 2 == 0).ok_or_else(wrong)?;
                let pairs = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1]));
                self.sparse.pieces = pairs.collect();
            }
            _ => self.take_xattr(key, value),
        }
        if self.sparse.pieces.len() > max_pieces {
            return Err("a sparse file has too many pieces".to_owned());
        }
        Ok(())
    }

    fn take_xattr(&mut self, key: &[u8], value: &[u8]) {
        let (name, value) = if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            (name.to_vec(), value.to_vec())
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            // Both may be there; the other needs no decoding and wins.
            let name = percent(name);
            match base64(value) {
                Some(value) if !self.xattrs.contains_key(&name) => (name, value),
                _ => return,
            }
        } else {
            return;
        };
        if super::is_kept(&name) {
            self.xattrs.insert(name, value);
        }
    }

    /// Drops what makes no sense for every entry of an archive.
    pub fn forget_names(&mut self) {
        self.path = None;
        self.link = None;
        self.size = None;
        self.sparse = SparseRecords::default();
    }

    /// Puts what an entry says for itself over what the archive says for all.
    pub fn beneath(mut self, own: Pax) -> Pax {
        self.xattrs.extend(own.xattrs);
        Pax {
            path: own.path,
            link: own.link,
            size: own.size,
            uid: own.uid.or(self.uid),
            gid: own.gid.or(self.gid),
            mtime: own.mtime.or(self.mtime),
            xattrs: self.xattrs,
            sparse: own.sparse,
        }
    }
}

/// The records of a header, one after the other.
pub(super) struct Records<'a>(pub &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() || self.0.iter().all(|&byte| byte == 0) {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record.ok_or("a PAX record whose length is wrong"))
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(20).position(|&c| c == b' ')?;
        let len = usize::try_from(decimal(self.0.get(..space)?)?).ok()?;
        let (record, rest) = self.0.split_at_checked(len)?;
        let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
        // An attribute's name may have an equals sign in theory; nobody writes such a name.
        let equals = body.iter().position(|&c| c == b'=').filter(|&at| at > 0)?;
        self.0 = rest;
        Some((&body[..equals], &body[equals + 1..]))
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads seconds with a fraction, also before 1970; digits below a nanosecond are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&c| c == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    for at in 0..9 {
        nanos = nanos * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
    }
    Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

fn percent(name: &[u8]) -> Vec<u8> {
    let hex = |c: u8| (c as char).to_digit(16);
    let mut out = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        let digits =
            (name.get(at + 1).copied().and_then(hex)).zip(name.get(at + 2).copied().and_then(hex));
        match digits {
            Some((high, low)) if byte == b'%' => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn base64(value: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    (STANDARD.decode(value))
        .or_else(|_| STANDARD_NO_PAD.decode(value))
        .ok()
}
