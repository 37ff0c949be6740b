use super::stat::{Stat, open_dir, stat_at};
use super::{Kind, RelPath};
use rustix::fs::RawDir;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a walk asks and tells; called from many threads at once, in no order.
pub trait Visit: Sync {
    /// Says whether to go into a directory that has just been looked at.
    fn enter(&self, path: &RelPath, stat: &Stat) -> bool {
        let _ = (path, stat);
        true
    }

    /// Takes everything directly in one directory, in no order; sockets are left out. It must not
    /// block on other work of the rayon pool.
    fn visit(&self, dir: &RelPath, entries: Vec<(RelPath, Stat)>) -> io::Result<()>;

    /// Takes the path of a socket, of which nothing else is said.
    fn socket(&self, path: RelPath) {
        let _ = path;
    }
}

impl<F: Fn(&RelPath, Vec<(RelPath, Stat)>) -> io::Result<()> + Sync> Visit for F {
    fn visit(&self, dir: &RelPath, entries: Vec<(RelPath, Stat)>) -> io::Result<()> {
        self(dir, entries)
    }
}

/// What went wrong in a walk, and where.
#[derive(Debug, thiserror::Error)]
#[error("look at {path}")]
pub struct WalkError {
    /// The directory or file, beneath the walk's root.
    pub path: RelPath,
    /// Why not.
    pub source: io::Error,
}

/// Walks a directory beneath another on the rayon pool, without following a symbolic link; `top`
/// itself is not reported. What vanishes meanwhile is passed over. The first error ends the walk.
pub fn walk(root: BorrowedFd<'_>, top: &RelPath, visit: &dyn Visit) -> Result<(), WalkError> {
    let state = State {
        root,
        visit,
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
    };
    rayon::scope(|scope| state.directory(scope, top.clone()));
    match state
        .error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct State<'a> {
    root: BorrowedFd<'a>,
    visit: &'a dyn Visit,
    failed: AtomicBool,
    error: Mutex<Option<WalkError>>,
}

impl<'a> State<'a> {
    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, dir: RelPath) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let done = self.read(&dir).and_then(|entries| {
            let mut below = Vec::new();
            for (path, stat) in &entries {
                if stat.meta.kind == Kind::Dir && self.visit.enter(path, stat) {
                    below.push(path.clone());
                }
            }
            let visited = self.visit.visit(&dir, entries);
            visited.map_err(|source| fail(&dir, source))?;
            Ok(below)
        });
        match done {
            Ok(below) => {
                for path in below {
                    scope.spawn(move |scope| self.directory(scope, path));
                }
            }
            Err(error) => {
                self.failed.store(true, Ordering::Relaxed);
                let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
            }
        }
    }

    fn read(&self, dir: &RelPath) -> Result<Vec<(RelPath, Stat)>, WalkError> {
        let fd = match open_dir(self.root, dir) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fail(dir, error)),
        };
        let mut entries = Vec::new();
        for name in names(fd.as_fd()).map_err(|error| fail(dir, error))? {
            let path = dir.join(&name);
            match stat_at(fd.as_fd(), &name) {
                Ok(Some(stat)) => entries.push((path, stat)),
                Ok(None) => self.visit.socket(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(&path, error)),
            }
        }
        Ok(entries)
    }
}

fn fail(path: &RelPath, source: io::Error) -> WalkError {
    WalkError {
        path: path.clone(),
        source,
    }
}

/// Lists an open directory from where it is read to, without `.` and `..`.
pub fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut out = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push(name.to_vec());
        }
    }
    Ok(out)
}
