//! What is in a store: how large it is, and when it was wanted last. Only reads.

use super::gate::modified;
use super::{BLOBS, CACHES, CONTENTS, Error, LAYERS, LOCKS, NAMES, STEPS, TOCS, caches};
use crate::fs::Time;
use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A blob.
    Blob,
    /// The files of a layer.
    Layer,
    /// The table of contents of a layer.
    Toc,
    /// What a step made, by its key.
    Step,
    /// What an image's name stood for.
    Name,
    /// What the files of a context had in them.
    Contents,
    /// A copy of a directory that commands keep.
    Cache,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 7] = [
        Kind::Blob,
        Kind::Layer,
        Kind::Toc,
        Kind::Step,
        Kind::Name,
        Kind::Contents,
        Kind::Cache,
    ];

    /// Gives its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Blob => "blob",
            Kind::Layer => "layer",
            Kind::Toc => "toc",
            Kind::Step => "step",
            Kind::Name => "name",
            Kind::Contents => "contents",
            Kind::Cache => "cache",
        }
    }
}

/// One thing that a store keeps and that can be taken away by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its name there: hexadecimal digits; of a cache, with the number of the copy.
    pub name: String,
    /// What the commands of a cache call it.
    pub id: Option<String>,
    /// Where it lies in the store.
    pub place: PathBuf,
    /// The bytes it takes on disk.
    pub bytes: u64,
    /// The bytes that come free with it: none where an output has the same file.
    pub frees: u64,
    /// When it was wanted last, by the store's clock.
    pub used: Time,
}

/// Everything that a store keeps, without what running builds are making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// The things, those that were wanted the longest time ago first.
    pub items: Vec<Item>,
}

impl Stock {
    /// Gives the bytes of all.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }
}

/// Looks at what is in a store. A directory that is not there, or empty, has nothing; what is in one
/// under names that no store gives is passed over, and so is what vanishes meanwhile.
pub fn stock(dir: &Path) -> Result<Stock, Error> {
    if !super::is_there(dir)? {
        return Ok(Stock::default());
    }
    let mut items = Vec::new();
    for (kind, room) in [
        (Kind::Blob, BLOBS),
        (Kind::Toc, TOCS),
        (Kind::Step, STEPS),
        (Kind::Name, NAMES),
        (Kind::Contents, CONTENTS),
    ] {
        for name in names(dir, Path::new(room))? {
            let place = Path::new(room).join(&name);
            let Some(meta) = look(dir, &place)?.filter(Metadata::is_file) else {
                continue;
            };
            if is_hex(&name) {
                items.push(Item {
                    kind,
                    name,
                    id: None,
                    place,
                    bytes: on_disk(&meta),
                    frees: if meta.nlink() > 1 { 0 } else { on_disk(&meta) },
                    used: modified(&meta),
                });
            }
        }
    }
    let mut trees = Vec::new();
    for room in rooms(dir, LAYERS)? {
        for name in names(dir, &room)?.into_iter().filter(|name| is_hex(name)) {
            let lock = look(dir, &Path::new(LOCKS).join(&name))?;
            trees.push(Item {
                kind: Kind::Layer,
                place: room.join(&name),
                name,
                id: None,
                bytes: 0,
                frees: 0,
                used: lock.map_or(Time::default(), |meta| modified(&meta)),
            });
        }
    }
    for room in rooms(dir, CACHES)? {
        for name in names(dir, &room)?.into_iter().filter(|name| is_hex(name)) {
            let place = room.join(&name);
            let id = fs::read(dir.join(&place).join("id")).ok();
            let id = id.map(|id| String::from_utf8_lossy(&id).into_owned());
            for number in caches::copies(&dir.join(&place)).unwrap_or_default() {
                let copy = place.join(number.to_string());
                let lock = look(dir, &copy.join("lock"))?;
                trees.push(Item {
                    kind: Kind::Cache,
                    name: format!("{name}/{number}"),
                    id: id.clone(),
                    place: copy,
                    bytes: 0,
                    frees: 0,
                    used: lock.map_or(Time::default(), |meta| modified(&meta)),
                });
            }
        }
    }
    trees.par_iter_mut().for_each(|item| {
        item.bytes = measure(&dir.join(&item.place));
        item.frees = item.bytes;
    });
    items.extend(trees);
    items.sort_by(|a, b| (a.used, a.kind, &a.place).cmp(&(b.used, b.kind, &b.place)));
    Ok(Stock { items })
}

/// Tells whether a name is what everything in a store is called by.
pub(super) fn is_hex(name: &str) -> bool {
    name.len() == 64
        && name
            .bytes()
            .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Gives the rooms of a kind that has one for each map of ids.
pub(super) fn rooms(dir: &Path, kind: &str) -> Result<Vec<PathBuf>, Error> {
    let all = names(dir, Path::new(""))?;
    let own = all.into_iter().filter(|name| is_room(name, kind));
    Ok(own.map(PathBuf::from).collect())
}

/// Tells whether a name is that of a room of a kind.
pub(super) fn is_room(name: &str, kind: &str) -> bool {
    let is_mark = |mark: &str| mark.len() == 16 && mark.bytes().all(|c| c.is_ascii_hexdigit());
    match name.strip_prefix(kind) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('-').is_some_and(is_mark),
        None => false,
    }
}

/// Lists a directory of a store; names that are not UTF-8 are passed over.
pub(super) fn names(dir: &Path, room: &Path) -> Result<Vec<String>, Error> {
    let path = dir.join(room);
    let list = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&path)?;
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: io::Result<Vec<Option<String>>> = names.collect();
        let mut names: Vec<String> = names?.into_iter().flatten().collect();
        names.sort_unstable();
        Ok(names)
    };
    match list() {
        Err(e) if is_gone(&e) => Ok(Vec::new()),
        other => other.map_err(|e| Error::io(dir, "list", &path, e)),
    }
}

/// Looks at a name; `None` where there is nothing.
pub(super) fn look(dir: &Path, place: &Path) -> Result<Option<Metadata>, Error> {
    let path = dir.join(place);
    match fs::symlink_metadata(&path) {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(Error::io(dir, "look up", &path, e)),
    }
}

/// Tells whether an error says that there is nothing of that name, or no more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn on_disk(meta: &Metadata) -> u64 {
    meta.blocks().saturating_mul(512)
}

/// How deep a tree is measured: each level takes a descriptor.
const DEPTH: usize = 400;

/// Measures what a tree takes on disk; hard links count once. What cannot be looked at counts nothing:
/// commands are at work in a cache, and strangers made the files.
fn measure(top: &Path) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: &OwnedFd, name: &CString| openat(at, name, flags, Mode::empty());
    let Ok(top) = openat(rustix::fs::CWD, top, flags, Mode::empty()) else {
        return 0;
    };
    let mut bytes = 0_u64;
    let mut linked = HashSet::new();
    // An open directory, and those in it that are still to be seen.
    let mut levels: Vec<(OwnedFd, Vec<CString>)> = Vec::new();
    let mut next = Some(top);
    loop {
        if let Some(dir) = next.take() {
            let mut below = Vec::new();
            if let Ok(entries) = Dir::read_from(dir.as_fd()) {
                for entry in entries.flatten() {
                    let name = entry.file_name();
                    if name == c".." {
                        continue;
                    }
                    let Ok(stat) = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
                        continue;
                    };
                    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                    if !is_dir && stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
                        continue;
                    }
                    // A directory counts once it is listed itself, under `.`.
                    match is_dir && name != c"." {
                        true => below.push(name.to_owned()),
                        false => {
                            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                            bytes = bytes.saturating_add(blocks.saturating_mul(512));
                        }
                    }
                }
            }
            levels.push((dir, below));
        }
        let depth = levels.len();
        let Some((dir, below)) = levels.last_mut() else {
            return bytes;
        };
        match below.pop() {
            Some(name) if depth < DEPTH => next = open(dir, &name).ok(),
            Some(_) => {}
            None => {
                levels.pop();
            }
        }
    }
}
