//! Directories that roots are made of.

use super::Error;
use crate::fs::{self, Content, Firsts, LayerView, Node, RelPath, Stat, Toc, TocEntry};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The directory that a root has for itself.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) dir: PathBuf,
    /// The number of the next directory.
    next: usize,
    forks: AtomicUsize,
}

impl Scratch {
    pub(super) fn new(dir: PathBuf) -> Scratch {
        Scratch {
            dir,
            next: 0,
            forks: AtomicUsize::new(0),
        }
    }

    /// Makes the next numbered directory.
    pub(super) fn numbered(&mut self) -> Result<PathBuf, Error> {
        let dir = self.dir.join(self.next.to_string());
        self.next += 1;
        make_dir(&dir)?;
        Ok(dir)
    }

    /// Makes the directory of one more fork.
    pub(super) fn fork(&self) -> Result<PathBuf, Error> {
        let number = self.forks.fetch_add(1, Ordering::Relaxed);
        let forks = self.dir.join("forks");
        std::fs::create_dir_all(&forks).map_err(at("create", &forks))?;
        let dir = forks.join(number.to_string());
        make_dir(&dir)?;
        Ok(dir)
    }
}

/// Takes a mount away. What still holds a file of it open keeps it alive unseen.
pub(super) fn detach(target: &Path) -> Result<(), Error> {
    match unmount(target, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        other => other,
    }
    .map_err(at("unmount", target))
}

/// Opens a directory for reading.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(CWD, path, flags, Mode::empty()).map_err(at("open", path))
}

/// Makes an error of a system call on a path.
pub(super) fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = PathBuf::from(path);
    move |source| Error::Io {
        action,
        path,
        source: source.into(),
    }
}

/// Makes a directory that anybody may look into.
pub(super) fn make_dir(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .map_err(at("create", path))
}

/// Removes a directory with all that is in it.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    // A command may have left a tree of any depth, and directories that nobody may write to.
    crate::store::remove_tree(path).map_err(at("remove", path))
}

/// Describes a directory of which nothing is known, by one walk; it may be in overlay form.
pub(super) fn view_of(dir: &Path) -> Result<LayerView, Error> {
    let fd = open_dir(dir)?;
    let all: Mutex<Vec<(RelPath, Stat)>> = Mutex::default();
    let visit = |_: &RelPath, entries: Vec<(RelPath, Stat)>| {
        all.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(entries);
        Ok(())
    };
    fs::walk(fd.as_fd(), &RelPath::root(), &visit).map_err(|error| Error::Io {
        action: "look at",
        path: dir.join(error.path.as_path()),
        source: error.source,
    })?;
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let mut firsts = Firsts::default();
    let mut entries = Vec::with_capacity(all.len());
    for (path, stat) in all {
        let node = if stat.is_whiteout() {
            Node::Delete
        } else if stat.is_opaque() {
            Node::Opaque(stat.meta)
        } else {
            Node::Put {
                link: stat.shared().and_then(|file| firsts.tie(file, &path)),
                meta: stat.meta,
                content: None,
            }
        };
        entries.push(TocEntry { path, node });
    }
    Ok(LayerView {
        toc: Toc::new(entries),
        content: Content::Dir(Arc::new(fd)),
    })
}
