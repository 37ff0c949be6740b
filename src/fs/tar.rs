//! A tar reader for archives that nobody vouches for.
//!
//! Reads v7, ustar, GNU (long names, base-256 numbers, sparse `S`) and PAX (with binary values,
//! `SCHILY.xattr.*`, `LIBARCHIVE.xattr.*`, GNU sparse 0.0, 0.1 and 1.0, global headers). Formats:
//! POSIX.1-2017 pax, and `info tar` "Standard Format" and "Sparse Formats".

use super::header::{self, Field, Header};
use super::pax::{Pax, Records};
use super::{Kind, Meta, RelPath, Time};
use std::io::{self, Read};

/// The most bytes of names, links and attributes that one entry may have.
pub const MAX_METADATA: u64 = 1 << 20;
/// The longest path of an entry, as in Linux.
pub const MAX_PATH: usize = 4096;
/// The longest component of a path, as in every Linux file system.
pub const MAX_NAME: usize = 255;
/// The most pieces a sparse file may have.
const MAX_PIECES: usize = 100_000;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes could not be had.
    #[error("read the archive")]
    Read(#[source] io::Error),
    /// The archive ends within an entry, or is no archive, at this byte.
    #[error("at byte {at}: {why}")]
    Malformed {
        /// Where the entry's header starts.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// An entry does what none may.
    #[error("entry `{name}`: {why}")]
    Refused {
        /// The entry's name as it stands, with what cannot be printed escaped.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path: cleaned, without `..`.
    pub path: RelPath,
    /// The metadata; of a hard link it is what its own header says.
    pub meta: Meta,
    /// What it is.
    pub body: Body,
    /// How many bytes of a regular file's content are holes.
    pub holes: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A file of the kind in the metadata; a regular one is followed by its content.
    File,
    /// One more name of the file with this path.
    Link(RelPath),
}

/// Reads an archive entry by entry.
pub struct Reader<R> {
    source: R,
    /// Bytes read from the source.
    at: u64,
    /// Bytes of the present entry's data that have not been read, and of its padding.
    left: u64,
    padding: u64,
    /// Where the present entry's header starts, for messages.
    start: u64,
    name: Vec<u8>,
    sparse: Option<Sparse>,
    global: Pax,
    ended: bool,
}

/// The pieces of a sparse file that is being read.
struct Sparse {
    /// Offset and length of each piece, in order, none overlapping.
    pieces: std::vec::IntoIter<(u64, u64)>,
    piece: Option<(u64, u64)>,
    offset: u64,
    size: u64,
}

impl<R: Read> Reader<R> {
    /// Starts at the beginning of an archive that is not compressed.
    pub fn new(source: R) -> Reader<R> {
        Reader {
            source,
            at: 0,
            left: 0,
            padding: 0,
            start: 0,
            name: Vec::new(),
            sparse: None,
            global: Pax::default(),
            ended: false,
        }
    }

    /// Gives back the source, which stands behind the end mark.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// Goes to the next entry, passing over what is left of the present one; `None` at the end.
    /// Sockets and GNU volume labels are passed over; types that are unknown are refused.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        self.finish_entry()?;
        let mut pax = self.global.clone();
        let mut spent = 0;
        let mut pending = false;
        loop {
            self.start = self.at;
            let Some(block) = self.header()? else {
                if pending {
                    return Err(self.malformed("a name without an entry at the end"));
                }
                self.ended = true;
                return Ok(None);
            };
            let header = Header::parse(&block).map_err(|why| self.malformed(why))?;
            match header.kind {
                b'x' | b'g' | b'L' | b'K' | b'X' => {
                    let data = self.metadata(&header, &mut spent)?;
                    match header.kind {
                        b'L' => pax.path = Some(header::until_nul(&data).to_vec()),
                        b'K' => pax.link = Some(header::until_nul(&data).to_vec()),
                        b'g' => {
                            let mut global = std::mem::take(&mut self.global);
                            self.records(&data, &mut global)?;
                            global.forget_names();
                            self.global = global.clone();
                            pax = global.beneath(pax);
                        }
                        _ => self.records(&data, &mut pax)?,
                    }
                    pending |= header.kind != b'g';
                }
                b'V' | b'M' | b'N' if header.gnu => {
                    self.left = self.data_size(header.size)?;
                    self.finish_entry()?;
                }
                _ => match self.entry(&block, header, pax)? {
                    Some(entry) => return Ok(Some(entry)),
                    None => {
                        self.finish_entry()?;
                        pax = self.global.clone();
                        spent = 0;
                        pending = false;
                    }
                },
            }
        }
    }

    fn records(&self, data: &[u8], pax: &mut Pax) -> Result<(), TarError> {
        for record in Records(data) {
            let (key, value) = record.map_err(|why| self.malformed(why))?;
            pax.take(key, value, MAX_PIECES)
                .map_err(|why| self.malformed(&why))?;
        }
        Ok(())
    }

    /// Reads the data of a header that describes the next one.
    fn metadata(&mut self, header: &Header, spent: &mut u64) -> Result<Vec<u8>, TarError> {
        // A header costs a block even where it says nothing, so that they cannot go on for ever.
        *spent = spent.saturating_add(header.size).saturating_add(512);
        if *spent > MAX_METADATA {
            return Err(self.malformed(&format!(
                "names and attributes of {} bytes are over the bound of {MAX_METADATA}",
                *spent
            )));
        }
        self.left = self.data_size(header.size)?;
        let mut data = vec![0; usize::try_from(header.size).unwrap_or(0)];
        self.fill(&mut data)?;
        self.left = 0;
        self.finish_entry()?;
        Ok(data)
    }

    /// Notes the padding of so much data.
    fn data_size(&mut self, size: u64) -> Result<u64, TarError> {
        if size > i64::MAX as u64 {
            return Err(self.malformed("a size out of bounds"));
        }
        self.padding = size.wrapping_neg() % 512;
        Ok(size)
    }

    fn entry(
        &mut self,
        block: &[u8; 512],
        header: Header,
        mut pax: Pax,
    ) -> Result<Option<Entry>, TarError> {
        let sparse_name = pax.sparse.name.take();
        self.name = sparse_name
            .or(pax.path.take())
            .unwrap_or_else(|| header.path.clone());
        let slash = self.name.ends_with(b"/");
        let kind = match header.kind {
            // In v7 a directory was a file whose name ends with a slash.
            b'0' | 0 if slash => Kind::Dir,
            b'0' | 0 | b'7' | b'S' | b'1' => Kind::File,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' | b'D' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => {
                // Sockets have no type in a tar; some writers use `s`.
                let why = format!("its type `{}` is not known", other.escape_ascii());
                return if other == b's' {
                    self.left = self.data_size(header.size)?;
                    Ok(None)
                } else {
                    Err(self.refused(&why))
                };
            }
        };
        let size = self.data_size(pax.size.unwrap_or(header.size))?;
        let is_link = header.kind == b'1';
        let has_data = matches!(header.kind, 0 | b'0' | b'7' | b'S');
        if slash && has_data && size > 0 {
            return Err(self.refused("it is a file with content whose name ends with a slash"));
        }
        // Only a file has data. A size that another type has is a hint or a copy of the file's, as
        // every reader takes it; the lists of directories that GNU tar dumps are the exception.
        let has_data = has_data && kind == Kind::File;
        self.left = match has_data || header.kind == b'D' {
            true => size,
            false => {
                self.padding = 0;
                0
            }
        };
        let target = pax.link.take().unwrap_or_else(|| header.link.clone());
        let path = self.path(&self.name)?;
        let body = if is_link {
            Body::Link(self.path(&target).map_err(|_| {
                self.refused(&format!(
                    "it is a hard link to `{}`, which is not inside the archive's root",
                    target.escape_ascii()
                ))
            })?)
        } else {
            Body::File
        };
        let usable = !target.is_empty() && !target.contains(&0) && target.len() < MAX_PATH;
        if kind == Kind::Symlink && !usable {
            return Err(self.refused("it is a symbolic link without a usable target"));
        }
        if path.is_root() && kind != Kind::Dir {
            return Err(self.refused("the root can only be a directory"));
        }
        self.sparse = None;
        let (mut real, mut holes) = (size, 0);
        if has_data && (header.kind == b'S' && header.gnu || pax.sparse.is_some()) {
            real = self.sparse(block, &header, &pax)?;
            holes = real.saturating_sub(self.left);
        }
        let meta = Meta {
            kind,
            mode: self.number(&header.mode, "mode")? as u32 & 0o7777,
            uid: self.id(pax.uid, &header.uid, "uid")?,
            gid: self.id(pax.gid, &header.gid, "gid")?,
            size: if has_data { real } else { 0 },
            mtime: match pax.mtime {
                Some(time) => time,
                None => Time {
                    secs: self.number(&header.mtime, "mtime")?,
                    nanos: 0,
                },
            },
            device: match kind {
                Kind::Char | Kind::Block => (
                    self.number(&header.major, "device number")? as u32,
                    self.number(&header.minor, "device number")? as u32,
                ),
                _ => (0, 0),
            },
            target: match kind {
                Kind::Symlink => target,
                _ => Vec::new(),
            },
            xattrs: std::mem::take(&mut pax.xattrs).into_iter().collect(),
        };
        Ok(Some(Entry {
            path,
            meta,
            body,
            holes,
        }))
    }

    fn number(&self, field: &Field, what: &str) -> Result<i64, TarError> {
        field.ok_or_else(|| self.refused(&format!("its {what} is not a number")))
    }

    fn id(&self, pax: Option<u64>, field: &Field, what: &str) -> Result<u32, TarError> {
        let value = match pax {
            Some(value) => i64::try_from(value).unwrap_or(-1),
            None => self.number(field, what)?,
        };
        // The highest number means "leave it" to the kernel.
        match u32::try_from(value) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.refused(&format!("its {what} {value} is out of bounds"))),
        }
    }

    /// Cleans a name. A leading slash and `.` are as good as nothing; `..` is refused.
    fn path(&self, name: &[u8]) -> Result<RelPath, TarError> {
        if name.len() >= MAX_PATH {
            return Err(self.refused("its name is over the bound of 4096 bytes"));
        }
        for part in name.split(|&c| c == b'/') {
            if part == b".." {
                return Err(self.refused("its name has a `..`"));
            }
            if part.len() > MAX_NAME {
                return Err(self.refused("a component of its name is over the bound of 255 bytes"));
            }
        }
        if name.is_empty() {
            return Err(self.refused("it has no name"));
        }
        RelPath::clean(name).ok_or_else(|| self.refused("its name has a NUL"))
    }

    /// Reads the map of a sparse file; gives its real size.
    fn sparse(&mut self, block: &[u8; 512], header: &Header, pax: &Pax) -> Result<u64, TarError> {
        let (pieces, size) = if header.kind == b'S' && !pax.sparse.is_some() {
            let mut pieces = Vec::new();
            let mut extended = header::old_pieces(&block[386..482], &mut pieces)
                .map(|()| block[482] != 0)
                .map_err(|why| self.refused(why))?;
            while extended {
                let mut more = [0; 512];
                self.fill_source(&mut more)?;
                header::old_pieces(&more[..504], &mut pieces).map_err(|why| self.refused(why))?;
                extended = more[504] != 0;
                if pieces.len() > MAX_PIECES {
                    return Err(self.refused("it has too many pieces for a sparse file"));
                }
            }
            let real = header::number(&block[483..495]);
            (pieces, real.and_then(|size| u64::try_from(size).ok()))
        } else if pax.sparse.version == Some((1, 0)) {
            (self.pieces_in_data()?, pax.sparse.size)
        } else {
            (pax.sparse.pieces.clone(), pax.sparse.size)
        };
        let Some(size) = size.filter(|size| *size <= i64::MAX as u64) else {
            return Err(self.refused("it is a sparse file without a size"));
        };
        let (mut end, mut total) = (0u64, 0u64);
        for (offset, len) in &pieces {
            let next = offset.checked_add(*len).filter(|next| *next <= size);
            match next {
                Some(next) if *offset >= end => {
                    end = next;
                    total += len;
                }
                _ => return Err(self.refused("the pieces of a sparse file overlap or lie outside")),
            }
        }
        if total != self.left {
            return Err(self.refused("the pieces of a sparse file are not as long as its data"));
        }
        let mut pieces = pieces.into_iter();
        self.sparse = Some(Sparse {
            piece: pieces.next(),
            pieces,
            offset: 0,
            size,
        });
        Ok(size)
    }

    /// Reads the map that stands before the data in version 1.0: decimal numbers, one a line,
    /// padded to a block.
    fn pieces_in_data(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
        let mut numbers = Vec::new();
        let mut wanted = 1;
        let mut digits: Vec<u8> = Vec::new();
        while numbers.len() < wanted {
            if self.left < 512 {
                return Err(self.refused("the map of a sparse file is cut short"));
            }
            let mut block = [0; 512];
            self.fill(&mut block)?;
            for &byte in &block {
                if numbers.len() == wanted {
                    break;
                }
                match byte {
                    b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                    b'\n' if !digits.is_empty() => {
                        let text = std::str::from_utf8(&digits).unwrap_or_default();
                        let Ok(number) = text.parse::<u64>() else {
                            return Err(
                                self.refused("the map of a sparse file is no list of numbers")
                            );
                        };
                        digits.clear();
                        if numbers.is_empty() {
                            let count = usize::try_from(number).unwrap_or(usize::MAX);
                            if count > MAX_PIECES {
                                return Err(
                                    self.refused("it has too many pieces for a sparse file")
                                );
                            }
                            wanted = 1 + 2 * count;
                        }
                        numbers.push(number);
                    }
                    _ => {
                        return Err(self.refused("the map of a sparse file is no list of numbers"));
                    }
                }
            }
        }
        let pairs = numbers.get(1..).unwrap_or_default().chunks_exact(2);
        Ok(pairs.map(|pair| (pair[0], pair[1])).collect())
    }

    /// Reads the next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; 512]>, TarError> {
        let mut block = [0; 512];
        let mut got = 0;
        while got < block.len() {
            match self.source.read(&mut block[got..]) {
                // An archive without an end mark is one nevertheless.
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(self.malformed("the archive ends within a header")),
                Ok(len) => got += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        self.at += 512;
        // One block of zeroes ends an archive as well as two: what follows is not looked at.
        Ok(block.iter().any(|&byte| byte != 0).then_some(block))
    }

    /// Passes over what is left of the present entry.
    fn finish_entry(&mut self) -> Result<(), TarError> {
        self.sparse = None;
        let mut rest = self.left + self.padding;
        self.left = 0;
        self.padding = 0;
        let mut buffer = [0; 16 << 10];
        while rest > 0 {
            let want = usize::try_from(rest)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.fill_source(&mut buffer[..want])?;
            rest -= want as u64;
        }
        Ok(())
    }

    /// Reads data of the present entry.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), TarError> {
        self.fill_source(out)?;
        self.left -= (out.len() as u64).min(self.left);
        Ok(())
    }

    fn fill_source(&mut self, out: &mut [u8]) -> Result<(), TarError> {
        match self.source.read_exact(out) {
            Ok(()) => {
                self.at += out.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.malformed(&match self.name.is_empty() {
                    true => "the archive ends within an entry".to_owned(),
                    false => format!(
                        "the archive ends within entry `{}` or just after it",
                        self.name.escape_ascii()
                    ),
                }))
            }
            Err(error) => Err(TarError::Read(error)),
        }
    }

    fn malformed(&self, why: &str) -> TarError {
        TarError::Malformed {
            at: self.start,
            why: why.to_owned(),
        }
    }

    /// Refuses the present entry by name.
    pub fn refused(&self, why: &str) -> TarError {
        TarError::Refused {
            name: self.name.escape_ascii().to_string(),
            why: why.to_owned(),
        }
    }
}

impl<R: Read> Read for Reader<R> {
    /// Reads content of the present entry, holes of a sparse file as zeroes.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut want = out.len();
        if let Some(sparse) = &mut self.sparse {
            while sparse.piece.is_some_and(|(_, len)| len == 0) {
                sparse.piece = sparse.pieces.next();
            }
            let (start, len) = sparse.piece.unwrap_or((sparse.size, 0));
            if sparse.offset < start {
                let hole = usize::try_from(start - sparse.offset).unwrap_or(usize::MAX);
                let hole = hole.min(want);
                out[..hole].fill(0);
                sparse.offset += hole as u64;
                return Ok(hole);
            }
            want = want.min(usize::try_from(len).unwrap_or(usize::MAX));
        }
        want = want.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let got = self.source.read(&mut out[..want])?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "the archive ends within entry `{}`",
                    self.name.escape_ascii()
                ),
            ));
        }
        self.at += got as u64;
        self.left -= got as u64;
        if let Some(sparse) = &mut self.sparse {
            sparse.offset += got as u64;
            if let Some((start, len)) = &mut sparse.piece {
                *start += got as u64;
                *len -= got as u64;
            }
        }
        Ok(got)
    }
}
