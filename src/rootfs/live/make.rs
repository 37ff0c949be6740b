//! Filling the directory, and emptying it.

use super::look::Failure;
use super::{Guard, moved};
use crate::changeset::{self, Action, Change};
use crate::fs::{self, Deletions, Kind, Meta, Placer, RelPath, Tree};
use crate::rootfs::dirs::at;
use crate::rootfs::{Error, Lower};
use crate::sys::Cancel;
use rustix::fs::{AtFlags, FileType, Mode, makedev, mknodat, unlinkat};
use rustix::io::Errno;
use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Gives the tree that unpacked layers make, bottom first.
pub(super) fn tree(lowers: &[Lower]) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    for lower in lowers {
        tree.push(lower.view()?);
    }
    Ok(tree)
}

/// Puts copies of a tree's files into a directory, and gives that its metadata. `movable` are the
/// files of the tree's lowest layers where they may be moved instead.
pub(super) fn fill(
    root: &Arc<OwnedFd>,
    tree: &Tree,
    top: &Meta,
    guard: &Guard,
    movable: &[PathBuf],
    cancel: &Cancel,
) -> Result<(), Error> {
    let changes = changeset::whole(tree, &|found| found.meta.mtime);
    let mut changes = without_kept(&changes, guard).into_owned();
    if !movable.is_empty() {
        moved::move_in(root, tree, movable, guard, &mut changes)?;
    }
    let is_device = |change: &Change| match &change.action {
        Action::Put { meta, .. } => matches!(meta.kind, Kind::Char | Kind::Block),
        _ => false,
    };
    // They stay the image's: what is missing from the start is not missed by the tracker. Commands have
    // a /dev of their own.
    if changes.iter().any(is_device)
        && !makes_devices(root).map_err(at("make", Path::new("/dev")))?
    {
        changes.retain(|change| !is_device(change));
    }
    let action = Action::Put {
        meta: top.clone(),
        source: None,
        link: None,
    };
    let path = RelPath::root();
    changes.insert(0, Change { path, action });
    copy(root, &changes, cancel)
}

/// Tells whether device nodes can be made in an empty directory: not in a user namespace, nor without
/// CAP_MKNOD.
fn makes_devices(dir: &OwnedFd) -> Result<bool, Errno> {
    const NAME: &str = ".shutter-device";
    let null = makedev(1, 3);
    match mknodat(dir, NAME, FileType::CharacterDevice, Mode::empty(), null) {
        Ok(()) => unlinkat(dir, NAME, AtFlags::empty()).map(|()| true),
        Err(Errno::PERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Leaves out what would change something that is kept as it is. A directory that something kept
/// lies in stays a directory.
pub(super) fn without_kept<'a>(changes: &'a [Change], guard: &Guard) -> Cow<'a, [Change]> {
    if guard.is_empty() {
        return Cow::Borrowed(changes);
    }
    let fits = |change: &&Change| {
        let path = &change.path;
        let is_dir = matches!(&change.action, Action::Put { meta, .. } if meta.kind == Kind::Dir);
        !guard.covers(path) && (is_dir || !guard.keeps_below(path))
    };
    changes.iter().filter(fits).cloned().collect()
}

/// Puts what changes say into a directory.
pub(super) fn copy(root: &Arc<OwnedFd>, changes: &[Change], cancel: &Cancel) -> Result<(), Error> {
    let top = Path::new("the root");
    let mut placer = Placer::with(root.as_fd(), Deletions::Gaps).map_err(at("open", top))?;
    changeset::place(changes, &mut placer, cancel, &|_| ())?;
    placer.finish().map_err(at("finish", top))?;
    Ok(())
}

/// Removes all that is in the root directory and that `guard` does not keep.
pub(super) fn clear(root: &Arc<OwnedFd>, guard: &Guard) -> Result<(), Failure> {
    let top = fs::glance_at(root.as_fd(), b"").map_err(|error| (RelPath::root(), error))?;
    // Directories that something lies in that is kept: few, and none of them deep.
    let mut dirs = vec![RelPath::root()];
    while let Some(dir) = dirs.pop() {
        let failed = |error: io::Error| (dir.clone(), error);
        let fd = fs::open_dir(root.as_fd(), &dir).map_err(failed)?;
        for name in fs::names(fd.as_fd()).map_err(failed)? {
            let path = dir.join(&name);
            let failed = |error: io::Error| (path.clone(), error);
            if guard.keeps(&path) {
                continue;
            }
            let found = fs::glance_at(fd.as_fd(), &name).map_err(failed)?;
            // Mounted since the mounts were listed.
            if found.mount != top.mount {
                continue;
            }
            match found.kind {
                Some(Kind::Dir) if guard.keeps_below(&path) => dirs.push(path),
                Some(Kind::Dir) => {
                    let path = Path::new("/").join(path.as_path());
                    crate::store::remove_tree(&path).map_err(failed)?;
                }
                _ => unlinkat(&fd, name.as_slice(), AtFlags::empty())
                    .map_err(|errno| failed(errno.into()))?,
            }
        }
    }
    Ok(())
}
