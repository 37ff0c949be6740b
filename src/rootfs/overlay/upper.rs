//! Reading an upper directory: what a step wrote, in the kernel's notation, as changes.

use super::mount::Notes;
use crate::changeset::{self, Action, Change};
use crate::fs::{self, FileId, Firsts, Kind, Meta, RelPath, Source, Stat, Visit};
use crate::rootfs::Error;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Reads everything below an upper directory that nobody writes to any more; of the directory
/// itself nothing is said.
///
/// `make_view` makes a read-only mount of it over its lowers. That is asked for only where the
/// directory says of a file that its content (`metacopy`), or of a directory that its entries
/// (`redirect`), are found below.
pub(super) fn read(
    upper: &Arc<OwnedFd>,
    notes: Notes,
    make_view: &dyn Fn() -> Result<OwnedFd, Error>,
) -> Result<Vec<Change>, Error> {
    let own = Own {
        notes,
        found: Mutex::default(),
    };
    walk(upper, &RelPath::root(), &own)?;
    let Found {
        mut entries,
        redirected,
    } = own
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);

    if !redirected.is_empty() || entries.iter().any(|entry| entry.side == Side::View) {
        let view = Arc::new(make_view()?);
        let below = Below {
            upper,
            entries: Mutex::default(),
        };
        for top in &redirected {
            walk(&view, top, &below)?;
        }
        let below = below.entries.into_inner();
        entries.append(&mut below.unwrap_or_else(PoisonError::into_inner));
        return Ok(changes(entries, upper, &view));
    }
    Ok(changes(entries, upper, upper))
}

fn walk(root: &OwnedFd, top: &RelPath, visit: &dyn Visit) -> Result<(), Error> {
    fs::walk(root.as_fd(), top, visit).map_err(|error| {
        Error::Changeset(changeset::Error::Io {
            action: "look at",
            path: error.path,
            source: error.source,
        })
    })
}

/// One file as found, before the names of hard-linked ones are sorted out.
struct Entry {
    path: RelPath,
    what: What,
    /// Where its content can be read.
    side: Side,
    /// Where it has several names.
    inode: Option<Inode>,
}

enum What {
    Put(Meta),
    Opaque(Meta),
    Delete,
}

/// The upper directory itself, or the mount of it over its lowers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Upper,
    View,
}

/// A file by number. The upper directory and the mount number the same file differently.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Inode {
    Upper(FileId),
    View(FileId),
}

/// Visits the upper directory.
struct Own {
    notes: Notes,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// Renamed directories: what is in them is not to be seen here.
    redirected: Vec<RelPath>,
}

impl Own {
    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit for Own {
    fn enter(&self, path: &RelPath, stat: &Stat) -> bool {
        let redirected = is_redirected(stat, self.notes);
        if redirected {
            self.found().redirected.push(path.clone());
        }
        !redirected
    }

    fn visit(&self, _: &RelPath, entries: Vec<(RelPath, Stat)>) -> io::Result<()> {
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|entry| own_entry(entry, self.notes))
            .collect();
        self.found().entries.extend(entries);
        Ok(())
    }

    fn socket(&self, path: RelPath) {
        // No image keeps a socket, but what was in its place is gone.
        self.found().entries.push(Entry {
            path,
            what: What::Delete,
            side: Side::Upper,
            inode: None,
        });
    }
}

fn own_entry((path, stat): (RelPath, Stat), notes: Notes) -> Entry {
    let inode = stat.shared().map(Inode::Upper);
    let mut side = Side::Upper;
    let what = match stat.meta.kind {
        Kind::Char if stat.meta.device == (0, 0) => What::Delete,
        Kind::File if stat.meta.size == 0 && note(&stat, notes, b"whiteout").is_some() => {
            What::Delete
        }
        Kind::File => {
            if note(&stat, notes, b"metacopy").is_some() {
                side = Side::View;
            }
            What::Put(stat.meta)
        }
        Kind::Dir if is_opaque(&stat, notes) || is_redirected(&stat, notes) => {
            What::Opaque(stat.meta)
        }
        _ => What::Put(stat.meta),
    };
    Entry {
        path,
        what,
        side,
        inode,
    }
}

/// Reads what the kernel has noted on a file. A command in the root can write attributes of the other
/// prefix as it likes, so only the notes it cannot reach count.
fn note<'a>(stat: &'a Stat, notes: Notes, what: &[u8]) -> Option<&'a [u8]> {
    let (_, value) = stat
        .overlay
        .iter()
        .find(|(name, _)| name.strip_prefix(notes.prefix()) == Some(what))?;
    Some(value)
}

fn is_opaque(stat: &Stat, notes: Notes) -> bool {
    note(stat, notes, b"opaque") == Some(b"y")
}

/// Tells whether what is in a directory is found elsewhere below. An opaque one has been made here,
/// whatever it is said to come from.
fn is_redirected(stat: &Stat, notes: Notes) -> bool {
    !is_opaque(stat, notes) && note(stat, notes, b"redirect").is_some()
}

/// Visits a renamed directory as the mount shows it: everything is new at its place.
struct Below<'a> {
    upper: &'a OwnedFd,
    entries: Mutex<Vec<Entry>>,
}

impl Visit for Below<'_> {
    fn visit(&self, _: &RelPath, entries: Vec<(RelPath, Stat)>) -> io::Result<()> {
        let mut out = Vec::with_capacity(entries.len());
        for (path, stat) in entries {
            let inode = match stat.shared() {
                Some(in_view) => Some(self.inode(&path, in_view)?),
                None => None,
            };
            out.push(Entry {
                path,
                what: What::Put(stat.meta),
                side: Side::View,
                inode,
            });
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.append(&mut out);
        Ok(())
    }
}

impl Below<'_> {
    /// Gives the number that the upper directory has for a file, where it has it: another name of
    /// it may be there outside of every renamed directory.
    fn inode(&self, path: &RelPath, in_view: FileId) -> io::Result<Inode> {
        use io::ErrorKind::{NotADirectory, NotFound};
        match fs::stat(self.upper.as_fd(), path) {
            Ok(Some(stat)) => Ok(Inode::Upper(stat.id)),
            Ok(None) => Ok(Inode::View(in_view)),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {
                Ok(Inode::View(in_view))
            }
            Err(error) => Err(error),
        }
    }
}

/// Sorts what was found and ties hard-linked names together, the first in order being the file.
fn changes(mut entries: Vec<Entry>, upper: &Arc<OwnedFd>, view: &Arc<OwnedFd>) -> Vec<Change> {
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut firsts = Firsts::default();
    let mut changes = Vec::with_capacity(entries.len());
    for Entry {
        path,
        what,
        side,
        inode,
    } in entries
    {
        let action = match what {
            What::Delete => Action::Delete,
            What::Opaque(meta) => Action::Opaque(meta),
            What::Put(meta) => {
                let link = inode.and_then(|inode| firsts.tie(inode, &path));
                let has_content = meta.kind == Kind::File && link.is_none();
                let source = has_content.then(|| Source::File {
                    dir: Arc::clone(match side {
                        Side::Upper => upper,
                        Side::View => view,
                    }),
                    path: path.clone(),
                });
                Action::Put { meta, source, link }
            }
        };
        changes.push(Change { path, action });
    }
    changes
}
