//! What the files of a build context had in them last time, so that they need not be read again.
//!
//! ```text
//! contents/HEX    one context, by device, inode and file system of its directory
//!   checksum      BLAKE3 of all that follows (32 bytes)
//!   records       sorted; each 72 bytes: device, inode, size, seconds and nanoseconds of the time of
//!                 last change (8 bytes each, little-endian), BLAKE3 of the content (32 bytes)
//! ```
//!
//! Whatever changes a file's content changes the time of its last change; only a file system of this
//! machine says that for certain, and keeps inode numbers, so on others nothing is kept. A file that
//! changed just before it was read may change once more within the same tick of the clock: it is not
//! kept either.

use super::{CONTENTS, Error, Store};
use crate::fs::{ContentId, Stamp};
use rustix::fs::{fstat, fstatfs};
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

const RECORD: usize = 72;
const CHECKSUM: usize = 32;
/// Device and inode, at the beginning of a record.
const KEY: usize = 16;
/// The most bytes that are read: a million files.
const MAX: u64 = 72 << 20;
/// How long before now a file must have changed last.
const SETTLED: Duration = Duration::from_secs(1);

/// Magic numbers of the file systems that are trusted: ext2 to 4, XFS, Btrfs, F2FS, ZFS.
const TRUSTED: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1];

/// Content ids of the files of one context.
pub struct Contents {
    /// Where it is kept; none where nothing is.
    place: Option<PathBuf>,
    /// The one device whose files are kept.
    device: u64,
    /// The records, as on disk.
    known: Vec<u8>,
    used: Mutex<Vec<[u8; RECORD]>>,
    is_new: AtomicBool,
    begun: SystemTime,
}

fn is_whole(checksum: &[u8], records: &[u8]) -> bool {
    records.len().is_multiple_of(RECORD) && checksum == blake3::hash(records).as_bytes()
}

/// Tells whether the bytes of such a file are what was written.
pub(super) fn is_right(bytes: &[u8]) -> bool {
    let (checksum, records) = bytes.split_at(CHECKSUM.min(bytes.len()));
    is_whole(checksum, records)
}

impl Store {
    /// Gives what is known of the files below a directory. What is damaged is as good as nothing.
    pub fn contents(&self, dir: BorrowedFd<'_>) -> Contents {
        let mut out = Contents {
            place: None,
            device: 0,
            known: Vec::new(),
            used: Mutex::default(),
            is_new: AtomicBool::new(false),
            begun: SystemTime::now(),
        };
        let (Ok(stat), Ok(system)) = (fstat(dir), fstatfs(dir)) else {
            return out;
        };
        let magic = u64::try_from(system.f_type).unwrap_or_default();
        if !TRUSTED.contains(&magic) {
            return out;
        }
        let mut name = blake3::Hasher::new();
        for number in [magic, stat.st_dev, stat.st_ino] {
            name.update(&number.to_le_bytes());
        }
        name.update(format!("{:?}", system.f_fsid).as_bytes());
        let name = name.finalize().to_hex().to_string();
        let place = self.dir().join(CONTENTS).join(name);
        let held = self.session.hold(&place).ok().flatten();
        let small = held.is_some_and(|meta| meta.len() <= MAX);
        if small && let Ok(mut bytes) = fs::read(&place) {
            let records = bytes.split_off(CHECKSUM.min(bytes.len()));
            if is_whole(&bytes, &records) {
                out.known = records;
            }
        }
        out.place = Some(place);
        out.device = stat.st_dev;
        out
    }

    /// Keeps what was learnt about the files of a context.
    pub fn keep_contents(&self, contents: &Contents) -> Result<(), Error> {
        let Some(place) = &contents.place else {
            return Ok(());
        };
        if !contents.is_new.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut used = contents
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        used.sort_unstable();
        used.dedup();
        // Another Dockerfile on the same context reads other files of it.
        let known = contents.known.chunks_exact(RECORD);
        if used.len() + known.len() < MAX as usize / RECORD {
            let is_used = |record: &[u8]| {
                used.binary_search_by(|it| it[..KEY].cmp(&record[..KEY]))
                    .is_ok()
            };
            let others: Vec<[u8; RECORD]> = known
                .filter(|record| !is_used(record))
                .filter_map(|record| record.try_into().ok())
                .collect();
            used.extend(others);
            used.sort_unstable();
        }
        let mut bytes = vec![0; CHECKSUM];
        for record in used.iter().take(MAX as usize / RECORD - 1) {
            bytes.extend_from_slice(record);
        }
        let checksum = blake3::hash(bytes.get(CHECKSUM..).unwrap_or_default());
        bytes
            .iter_mut()
            .zip(checksum.as_bytes())
            .for_each(|(to, from)| *to = *from);
        self.session.write_file(place, &bytes)
    }
}

impl Contents {
    /// Gives the content id of a file that is still what it was.
    pub fn get(&self, stamp: &Stamp) -> Option<ContentId> {
        let wanted = self.head(stamp)?;
        let (mut low, mut high) = (0, self.known.len() / RECORD);
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.known.get(middle * RECORD..(middle + 1) * RECORD)?;
            let (head, id) = record.split_at(wanted.len());
            match head.cmp(&wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let id: ContentId = id.try_into().ok()?;
                    self.used(&wanted, &id);
                    return Some(id);
                }
            }
        }
        None
    }

    /// Notes the content id of a file that had this stamp before and after it was read.
    pub fn note(&self, stamp: &Stamp, id: &ContentId) {
        let Some(head) = self.head(stamp) else {
            return;
        };
        let changed = u64::try_from(stamp.ctime.secs).ok().and_then(|secs| {
            let since = Duration::new(secs, stamp.ctime.nanos);
            SystemTime::UNIX_EPOCH.checked_add(since)
        });
        let age = changed.and_then(|changed| self.begun.duration_since(changed).ok());
        if age.is_some_and(|age| age >= SETTLED) {
            self.used(&head, id);
            self.is_new.store(true, Ordering::Relaxed);
        }
    }

    fn used(&self, head: &[u8; RECORD - 32], id: &ContentId) {
        let mut record = [0; RECORD];
        let (to, rest) = record.split_at_mut(head.len());
        to.copy_from_slice(head);
        rest.copy_from_slice(id);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.push(record);
    }

    /// Gives a record without its content id.
    fn head(&self, stamp: &Stamp) -> Option<[u8; RECORD - 32]> {
        if self.place.is_none() || stamp.id.dev != self.device {
            return None;
        }
        let mut out = [0; RECORD - 32];
        let numbers = [
            stamp.id.dev,
            stamp.id.ino,
            stamp.size,
            stamp.ctime.secs.cast_unsigned(),
            u64::from(stamp.ctime.nanos),
        ];
        for (to, number) in out.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        Some(out)
    }
}
