//! Writing a changeset as a layer directory in overlay form.

use super::mount::{at, open_dir};
use crate::changeset::{self, Action, Change, Changeset};
use crate::fs::{Dir, Holes, Kind, Meta, Placer, RelPath, Source, Time};
use crate::rootfs::Error;
use crate::sys::Cancel;
use rayon::prelude::*;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

/// Files wait until there are so many; then they are written in parallel. Their directories are
/// held open meanwhile, so this bounds the open files too.
const BATCH: usize = 256;
/// How many files one thread writes in a row.
const RUN: usize = 8;
/// Content up to this size is read at once.
const SMALL: u64 = 128 << 10;
/// A larger file is copied in pieces of so many bytes.
const PIECE: u64 = 8 << 20;

/// A regular file to be written.
struct Pending<'a> {
    dir: Arc<Dir>,
    path: &'a RelPath,
    meta: &'a Meta,
    source: Option<&'a Source>,
}

/// Gives an upper directory the metadata of the root.
pub(super) fn set_root(upper: &Path, meta: &Meta) -> Result<(), Error> {
    let fd = open_dir(upper)?;
    let mut placer = Placer::new(fd.as_fd()).map_err(at("open", upper))?;
    placer
        .put(&RelPath::root(), meta, None)
        .map_err(at("set up", upper))?;
    placer.finish().map_err(at("set up", upper))?;
    Ok(())
}

/// Writes a changeset into an upper directory that is empty.
///
/// Directories, links and deletions are made in order by one thread; regular files in parallel.
pub(super) fn write(changeset: &Changeset, upper: &Path, cancel: &Cancel) -> Result<(), Error> {
    let fd = open_dir(upper)?;
    let mut placer = Placer::new(fd.as_fd()).map_err(at("open", upper))?;
    let mut made: HashSet<RelPath> = HashSet::from([RelPath::root()]);
    let mut pending: Vec<Pending<'_>> = Vec::with_capacity(BATCH);
    let mut links: Vec<(&RelPath, &RelPath)> = Vec::new();
    for Change { path, action } in &changeset.changes {
        let failed = failed("write", path);
        make_parents(&mut placer, path, &mut made).map_err(&failed)?;
        let put = |placer: &mut Placer, meta: &Meta| placer.put(path, meta, None).map_err(&failed);
        match action {
            Action::Delete => placer.whiteout(path).map_err(&failed)?,
            Action::Opaque(meta) => {
                put(&mut placer, meta)?;
                placer.opaque(path).map_err(&failed)?;
                made.insert(path.clone());
            }
            Action::Put {
                link: Some(first), ..
            } => links.push((first, path)),
            Action::Put {
                meta,
                source,
                link: None,
            } => match meta.kind {
                Kind::File => {
                    let parent = path.parent().unwrap_or_default();
                    let dir = placer.dir(&parent).map_err(&failed)?;
                    let source = source.as_ref();
                    pending.push(Pending {
                        dir,
                        path,
                        meta,
                        source,
                    });
                    if pending.len() == BATCH {
                        write_files(&pending, cancel)?;
                        pending.clear();
                    }
                }
                Kind::Dir => {
                    put(&mut placer, meta)?;
                    made.insert(path.clone());
                }
                _ => put(&mut placer, meta)?,
            },
        }
    }
    write_files(&pending, cancel)?;
    for (first, path) in links {
        placer.link(first, path).map_err(failed("link", path))?;
    }
    // Attributes that the file system cannot carry are in the layer all the same.
    placer.finish().map_err(at("finish", upper))?;
    Ok(())
}

/// Makes directories above a path that neither the changeset nor the tree it was settled against
/// has, as whoever unpacks the layer will.
fn make_parents(
    placer: &mut Placer,
    path: &RelPath,
    made: &mut HashSet<RelPath>,
) -> io::Result<()> {
    let missing: Vec<RelPath> = path
        .ancestors()
        .take_while(|dir| !made.contains(dir))
        .collect();
    for dir in missing.into_iter().rev() {
        placer.put(&dir, &Meta::dir(0o755, Time::default()), None)?;
        made.insert(dir);
    }
    Ok(())
}

fn write_files(files: &[Pending<'_>], cancel: &Cancel) -> Result<(), Error> {
    files
        .par_iter()
        .with_min_len(RUN)
        .try_for_each(|file| write_file(file, cancel).map_err(failed("write", file.path)))
}

fn write_file(pending: &Pending<'_>, cancel: &Cancel) -> io::Result<()> {
    if cancel.is_set() {
        return Err(cancelled());
    }
    let mut file = pending.dir.create(pending.path.name(), pending.meta)?;
    match pending.source {
        None => {}
        Some(Source::Bytes(bytes)) => file.write_all(bytes)?,
        Some(source) => {
            let from = source.file()?.ok_or(io::ErrorKind::NotFound)?;
            copy(from, pending.meta.size, &mut file, cancel)?;
        }
    }
    pending.dir.seal(&file, pending.meta)
}

/// Copies a file: a small one by two calls, a large one inside of the kernel and without its holes.
/// The layer has so many bytes of it, and so must the root.
fn copy(from: File, size: u64, to: &mut File, cancel: &Cancel) -> io::Result<()> {
    if size <= SMALL {
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        from.take(size + 1).read_to_end(&mut content)?;
        check_size(size, content.len() as u64)?;
        return to.write_all(&content);
    }
    let mut from = Holes::new(from)?;
    check_size(size, from.size())?;
    // In pieces: the kernel cannot be stopped within one.
    while from.copy_on(to, PIECE)? {
        if cancel.is_set() {
            return Err(cancelled());
        }
    }
    to.set_len(size)
}

fn check_size(wanted: u64, got: u64) -> io::Result<()> {
    match wanted == got {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "its size changed while it was read: {wanted} bytes were expected"
        ))),
    }
}

fn cancelled() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the build was cancelled")
}

fn failed(action: &'static str, path: &RelPath) -> impl Fn(io::Error) -> Error {
    let path = path.clone();
    move |source| {
        Error::Changeset(changeset::Error::Io {
            action,
            path: path.clone(),
            source,
        })
    }
}
