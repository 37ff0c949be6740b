//! Putting changes into a directory.

use super::{Action, Change, Error};
use crate::fs::{Dir, Holes, Kind, Meta, Placer, RelPath, Source, Time};
use crate::sys::Cancel;
use rayon::prelude::*;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
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

/// Who is told, and who ends it.
struct Watch<'a> {
    cancel: &'a Cancel,
    wrote: &'a (dyn Fn(u64) + Sync),
}

/// Puts changes where `placer` puts files. `wrote` is told of every
/// piece of content, in bytes, from any thread.
///
/// Directories, links and deletions are made in order by one thread; regular files in parallel on
/// the rayon pool, so this is not to be called on one of its threads. What is written stays where
/// the build is cancelled or something fails.
pub fn place(
    changes: &[Change],
    placer: &mut Placer,
    cancel: &Cancel,
    wrote: &(dyn Fn(u64) + Sync),
) -> Result<(), Error> {
    let watch = &Watch { cancel, wrote };
    let mut made: HashSet<RelPath> = HashSet::from([RelPath::root()]);
    let mut pending: Vec<Pending<'_>> = Vec::with_capacity(BATCH);
    let mut links: Vec<(&RelPath, &RelPath)> = Vec::new();
    for Change { path, action } in changes {
        let failed = failed("write", path);
        make_parents(placer, path, &mut made).map_err(&failed)?;
        let put = |placer: &mut Placer, meta: &Meta| placer.put(path, meta, None).map_err(&failed);
        match action {
            Action::Delete => placer.delete(path).map_err(&failed)?,
            Action::Opaque(meta) => {
                put(placer, meta)?;
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
                        write_files(&pending, watch)?;
                        pending.clear();
                    }
                }
                Kind::Dir => {
                    put(placer, meta)?;
                    made.insert(path.clone());
                }
                _ => put(placer, meta)?,
            },
        }
    }
    write_files(&pending, watch)?;
    for (first, path) in links {
        placer.link(first, path).map_err(failed("link", path))?;
    }
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

fn write_files(files: &[Pending<'_>], watch: &Watch<'_>) -> Result<(), Error> {
    files
        .par_iter()
        .with_min_len(RUN)
        .try_for_each(|file| write_file(file, watch).map_err(failed("write", file.path)))
}

fn write_file(pending: &Pending<'_>, watch: &Watch<'_>) -> io::Result<()> {
    if watch.cancel.is_set() {
        return Err(cancelled());
    }
    let mut file = pending.dir.create(pending.path.name(), pending.meta)?;
    match pending.source {
        None => {}
        Some(Source::Bytes(bytes)) => {
            file.write_all(bytes)?;
            (watch.wrote)(bytes.len() as u64);
        }
        Some(source) => {
            let from = source.file()?.ok_or(io::ErrorKind::NotFound)?;
            copy(source, from, pending.meta.size, &mut file, watch)?;
        }
    }
    pending.dir.seal(&file, pending.meta)
}

/// Copies a file: a small one by two calls, a large one inside of the kernel and without its holes.
/// A layer has so many bytes of it, and so must what is written here.
fn copy(
    source: &Source,
    from: File,
    size: u64,
    to: &mut File,
    watch: &Watch<'_>,
) -> io::Result<()> {
    if size <= SMALL {
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        (&from).take(size + 1).read_to_end(&mut content)?;
        check_size(size, content.len() as u64)?;
        source.is_intact(&from)?;
        to.write_all(&content)?;
        (watch.wrote)(size);
        return Ok(());
    }
    let mut from = Holes::new(from)?;
    check_size(size, from.size())?;
    // In pieces: the kernel cannot be stopped within one.
    loop {
        match from.copy_on(to, PIECE)? {
            0 => break,
            more => (watch.wrote)(more),
        }
        if watch.cancel.is_set() {
            return Err(cancelled());
        }
    }
    source.is_intact(from.file())?;
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
    move |source| Error::Io {
        action,
        path: path.clone(),
        source,
    }
}
