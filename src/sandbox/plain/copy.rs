//! Copies of files and directories with all their metadata, on a few threads.

use super::Watch;
use super::spot::{self, DIRECTORY};
use crate::fs::{Dir, Firsts, Holes, Kind, Meta, Placer, RelPath, Time, stat_at};
use crossbeam_channel::{Receiver, bounded};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::available_parallelism;

/// How many files wait to be copied; each holds a descriptor.
const WAITING: usize = 64;
/// How many threads copy at most.
const THREADS: usize = 8;
/// How much of a file is copied before it is looked whether the run goes on.
const PIECE: u64 = 64 << 20;

/// A file that is made and has nothing in it yet.
struct Job {
    from: File,
    to: File,
    dir: Arc<Dir>,
    meta: Meta,
}

/// Copies a directory's metadata and all that is in it into one that is there. Sockets are left out.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, watch: &Watch<'_>) -> io::Result<()> {
    let from = openat(from, ".", DIRECTORY, Mode::empty())?;
    let mut placer = Placer::new(to)?;
    let threads = available_parallelism().map_or(1, usize::from).min(THREADS);
    let (jobs, work) = bounded::<Job>(WAITING);
    let copied = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let work = work.clone();
                scope.spawn(move || work_off(&work, watch))
            })
            .collect();
        drop(work);
        let mut walk = Walk {
            placer: &mut placer,
            firsts: Firsts::default(),
            hand: &|job| jobs.send(job).map_err(|_| gone()),
            watch,
        };
        let walked = walk.directory(from, &RelPath::root());
        drop(jobs);
        let mut result = Ok(());
        for thread in threads {
            result = result.and(thread.join().unwrap_or_else(|_| Err(gone())));
        }
        // What stopped a thread stopped the walk too.
        result.and(walked)
    });
    copied?;
    // Attributes that the file system cannot carry are missing in the copy.
    placer.finish()?;
    Ok(())
}

/// Copies one file that is no directory to a name that is free.
pub(super) fn file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &[u8],
    watch: &Watch<'_>,
) -> io::Result<()> {
    let path = RelPath::root().join(name);
    // A descriptor of a file can be looked at by the empty name.
    let stat = stat_at_file(from)?;
    let mut placer = Placer::new(to)?;
    match stat.kind {
        Kind::File => {
            let dir = placer.dir(&RelPath::root())?;
            let job = Job {
                from: reopen(from)?,
                to: dir.create(name, &stat)?,
                dir,
                meta: stat,
            };
            copy(job, watch)?;
        }
        _ => placer.put(&path, &stat, None)?,
    }
    placer.finish()?;
    Ok(())
}

fn gone() -> io::Error {
    io::ErrorKind::Interrupted.into()
}

/// Opens what a descriptor stands for, for reading.
fn reopen(of: BorrowedFd<'_>) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", of.as_raw_fd()))
}

/// Looks at a file by its descriptor.
fn stat_at_file(of: BorrowedFd<'_>) -> io::Result<Meta> {
    // Its extended attributes are those of a name; the descriptor's own leads to it.
    let path = std::fs::read_link(format!("/proc/self/fd/{}", of.as_raw_fd()))?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    use std::os::unix::ffi::OsStrExt;
    let parent = openat(rustix::fs::CWD, parent, DIRECTORY, Mode::empty());
    let named = parent
        .ok()
        .and_then(|parent| stat_at(parent.as_fd(), name.as_bytes()).ok().flatten());
    let stat = fstat(of)?;
    if let Some(named) = named
        && (named.id.dev, named.id.ino) == (stat.st_dev, stat.st_ino)
    {
        return Ok(named.meta);
    }
    // It has no name that can be found: what is in its inode has to do.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let time = crate::fs::Time {
        secs: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Meta {
        uid: stat.st_uid,
        gid: stat.st_gid,
        ..Meta::file(stat.st_mode & 0o7777, size, time)
    })
}

struct Walk<'a> {
    placer: &'a mut Placer,
    firsts: Firsts,
    hand: &'a dyn Fn(Job) -> io::Result<()>,
    watch: &'a Watch<'a>,
}

impl Walk<'_> {
    fn directory(&mut self, top: OwnedFd, at: &RelPath) -> io::Result<()> {
        let meta = stat_at(top.as_fd(), b"")?.ok_or(io::ErrorKind::NotADirectory)?;
        self.placer.put(at, &meta.meta, None)?;
        // Opened by path one after the other, so that depth costs no descriptors.
        let mut todo = vec![at.clone()];
        while let Some(path) = todo.pop() {
            self.watch.check()?;
            let from = crate::fs::open_dir(top.as_fd(), &path)?;
            for name in spot::names(from.as_fd())? {
                let below = path.join(&name);
                let Some(stat) = stat_at(from.as_fd(), &name)? else {
                    continue;
                };
                if let Some(first) = stat.shared().and_then(|file| self.firsts.tie(file, &below)) {
                    self.placer.link(&first, &below)?;
                    continue;
                }
                match stat.meta.kind {
                    Kind::Dir => {
                        self.placer.put(&below, &stat.meta, None)?;
                        todo.push(below);
                    }
                    Kind::File => {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        let source = openat(&from, name.as_slice(), flags, Mode::empty())?;
                        let dir = self.placer.dir(&path)?;
                        (self.hand)(Job {
                            from: source.into(),
                            to: dir.create(&name, &stat.meta)?,
                            dir,
                            meta: stat.meta,
                        })?;
                    }
                    _ => self.placer.put(&below, &stat.meta, None)?,
                }
            }
        }
        Ok(())
    }
}

fn work_off(work: &Receiver<Job>, watch: &Watch<'_>) -> io::Result<()> {
    for job in work {
        copy(job, watch)?;
    }
    Ok(())
}

/// Copies what is in a file, sharing it where the file system can, holes left out.
fn copy(job: Job, watch: &Watch<'_>) -> io::Result<()> {
    let Job {
        from,
        mut to,
        dir,
        meta,
    } = job;
    if meta.size > 0 {
        let mut from = Holes::new(from)?;
        let size = from.size();
        while from.copy_on(&mut to, PIECE)? > 0 {
            watch.check()?;
        }
        to.set_len(size)?;
    }
    dir.seal(&to, &meta)
}

/// Makes a directory what another one is that was copied from it at that time and changed meanwhile.
pub(super) fn back(from: BorrowedFd<'_>, to: BorrowedFd<'_>, since: Time) -> io::Result<()> {
    let mut placer = Placer::new(to)?;
    let mut todo = vec![RelPath::root()];
    while let Some(path) = todo.pop() {
        let here = crate::fs::open_dir(from, &path)?;
        let meta = stat_at(here.as_fd(), b"")?.ok_or(io::ErrorKind::NotADirectory)?;
        placer.put(&path, &meta.meta, None)?;
        let there = crate::fs::open_dir(to, &path)?;
        let names = spot::names(here.as_fd())?;
        for name in spot::names(there.as_fd())? {
            if !names.contains(&name) {
                placer.remove(&path.join(&name))?;
            }
        }
        for name in names {
            let below = path.join(&name);
            let Some(new) = stat_at(here.as_fd(), &name)? else {
                continue;
            };
            if new.meta.kind == Kind::Dir {
                placer.put(&below, &new.meta, None)?;
                todo.push(below);
                continue;
            }
            let old = stat_at(there.as_fd(), &name).ok().flatten();
            if new.ctime < since && old.is_some_and(|old| old.meta == new.meta) {
                continue;
            }
            if new.meta.kind != Kind::File {
                placer.put(&below, &new.meta, None)?;
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = openat(&here, name.as_slice(), flags, Mode::empty())?;
            let mut source = File::from(source);
            placer.put(&below, &new.meta, Some(&mut source))?;
        }
    }
    placer.finish()?;
    Ok(())
}
