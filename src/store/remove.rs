//! Removal of whole trees that strangers filled.

use rustix::fs::{
    AtFlags, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags, fchmod, ioctl_getflags,
    ioctl_setflags, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

/// Removes a directory and everything below it. A path that is not there is no error.
///
/// No symbolic link is followed and no mount is entered: what is mounted below stays, and the
/// directories above it with an error. A tree of any depth is removed with one level of stack, two
/// descriptors and short names: a directory that is not empty is first moved up to the top, with
/// what is mounted below it. What an overlay shows of its lower layers cannot be moved: there each
/// level takes one of each.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    remove_tree_until(dir, None)
}

/// Does what `remove_tree` does until a moment; what is left then is left, with `TimedOut`.
pub(super) fn remove_tree_until(dir: &Path, end: Option<Instant>) -> io::Result<()> {
    let top = match open_dir(rustix::fs::CWD, dir) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    empty(&top, end)?;
    match rustix::fs::rmdir(dir) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn open_dir(at: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(
        at,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens a directory directly in `top` that is on the same mount.
fn open_below(top: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let open = || {
        openat2(
            top,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )
    };
    match open() {
        // A kernel or a seccomp profile without openat2: a mount there makes its removal fail.
        Err(Errno::NOSYS) => open_dir(top, name),
        Err(Errno::ACCESS) => {
            let path = openat(
                top,
                name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            // fchmod refuses a path descriptor; its name in /proc does not.
            let _ = rustix::fs::chmod(
                format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&path)),
                Mode::RWXU,
            );
            open()
        }
        other => other,
    }
}

fn list(dir: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut out = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            out.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(out)
}

/// Empties a directory.
fn empty(top: &OwnedFd, end: Option<Instant>) -> io::Result<()> {
    let mut next = 0_u64;
    loop {
        let entries = list(top.as_fd())?;
        if entries.is_empty() {
            return Ok(());
        }
        let mut progress = false;
        let mut failed = None;
        for (name, kind) in entries {
            if end.is_some_and(|end| Instant::now() >= end) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let result = match kind {
                FileType::Directory => empty_one(top.as_fd(), &name, &mut next, end),
                FileType::Unknown => match remove(top.as_fd(), &name, AtFlags::empty()) {
                    Err(Errno::ISDIR | Errno::PERM) => {
                        empty_one(top.as_fd(), &name, &mut next, end)
                    }
                    other => other,
                },
                _ => remove(top.as_fd(), &name, AtFlags::empty()),
            };
            match result {
                Ok(()) => progress = true,
                Err(e) => failed = Some(e),
            }
        }
        if let (false, Some(e)) = (progress, failed) {
            return Err(e.into());
        }
    }
}

/// Removes a directory directly in `top`; directories in it that are not empty move to `top`.
fn empty_one(
    top: BorrowedFd<'_>,
    name: &CStr,
    next: &mut u64,
    end: Option<Instant>,
) -> Result<(), Errno> {
    match remove(top, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let dir = open_below(top, name)?;
    let mut failed = None;
    for (name, kind) in list(dir.as_fd())? {
        let result = if kind == FileType::Directory {
            Err(Errno::ISDIR)
        } else {
            remove(dir.as_fd(), &name, AtFlags::empty())
        };
        let result = match result {
            Err(Errno::ISDIR) => match remove(dir.as_fd(), &name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => move_up(top, dir.as_fd(), &name, next, end),
                other => other,
            },
            other => other,
        };
        if let Err(e) = result {
            failed = Some(e);
        }
    }
    match failed {
        Some(e) => Err(e),
        None => remove(top, name, AtFlags::REMOVEDIR),
    }
}

fn move_up(
    top: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &CStr,
    next: &mut u64,
    end: Option<Instant>,
) -> Result<(), Errno> {
    let mut softened = false;
    loop {
        let to = format!(".{next}.going");
        *next += 1;
        match renameat(dir, name, top, to.as_str()) {
            // An overlay does not move what it shows of a lower layer.
            Err(Errno::XDEV) => {
                let sub = open_below(dir, name)?;
                empty(&sub, end).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::TIME))?;
                return remove(dir, name, AtFlags::REMOVEDIR);
            }
            // The name is taken by something else than an empty directory.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(Errno::PERM | Errno::ACCESS) if !softened => {
                softened = true;
                soften(dir);
                if let Ok(sub) = open_dir(dir, name) {
                    soften(sub.as_fd());
                }
            }
            other => return other,
        }
    }
}

/// Unlinks a name, lifting what a command may have set to keep it: mode bits of the directory, the
/// immutable and append-only flags.
fn remove(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
    match unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => {
            soften(dir);
            if let Ok(file) = openat(
                dir,
                name,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            ) {
                lift_flags(file.as_fd());
            }
            match unlinkat(dir, name, flags) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(e) => Err(e),
            }
        }
        Err(e) => Err(e),
    }
}

fn soften(dir: BorrowedFd<'_>) {
    lift_flags(dir);
    let _ = fchmod(dir, Mode::RWXU);
}

fn lift_flags(file: BorrowedFd<'_>) {
    let keep = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = ioctl_getflags(file)
        && flags.intersects(keep)
    {
        let _ = ioctl_setflags(file, flags - keep);
    }
}
