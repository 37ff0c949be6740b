//! Kernel overlay: the upper directory is the tracker.

mod apply;
mod mount;
mod upper;

use super::dirs::{Scratch, at, detach, make_dir, open_dir, remove};
use super::{Entry, Error, Rootfs};
use crate::changeset::{Action, Change, Changeset, State};
use crate::fs::{Meta, RelPath};
use crate::sys::Cancel;
use mount::{Mounter, Stack};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A root made of layer directories stacked by the kernel's overlay file system.
///
/// Every step writes to an upper directory of its own. At the end of the step that one is frozen
/// and becomes a layer for the next, so that the next step waits for nothing; a step costs what it
/// wrote. Layer directories and frozen ones are never written to again, and are shared with forks.
///
/// The process must be in a mount namespace of its own, with the right to mount there. Mounts that
/// are left when it ends go with the namespace; the directory of the root is its owner's to remove.
///
/// ```text
/// SCRATCH/
///   merged/        where the root is mounted during a step
///   spare/         an empty directory
///   N/upper/       what step N wrote, or what was applied as the Nth layer
///   N/work/        the kernel's
///   forks/N/       the same again for each fork
/// ```
#[derive(Debug)]
pub struct Overlay {
    scratch: Scratch,
    merged: PathBuf,
    spare: PathBuf,
    /// Bottom first; never empty.
    lowers: Vec<Arc<Path>>,
    mounter: Arc<Mounter>,
    /// The metadata of the root directory, which every new upper directory starts with: the kernel
    /// shows the topmost directory's as the root's.
    top: Meta,
    step: Option<Step>,
    /// What the last step wrote, where nothing of it is found in a lower directory.
    frozen: Option<PathBuf>,
    /// The root between steps, mounted when it is first asked for.
    resting: OnceLock<OwnedFd>,
}

/// A step under way.
#[derive(Debug)]
struct Step {
    dir: PathBuf,
    upper: PathBuf,
    root: OwnedFd,
}

impl Overlay {
    /// Makes a root of unpacked layers in overlay form, bottom first; none for an empty root.
    /// `scratch` is an empty directory on a file system that can carry an upper directory.
    ///
    /// The root directory is as the topmost layer has it, unless `with_top` says better.
    pub fn new(scratch: PathBuf, lowers: Vec<PathBuf>) -> Result<Overlay, Error> {
        let mut lowers: Vec<Arc<Path>> = lowers.into_iter().map(Arc::from).collect();
        if lowers.is_empty() {
            let base = scratch.join("base");
            make_dir(&base)?;
            lowers.push(base.into());
        }
        let top = match lowers.last() {
            Some(dir) => meta_of(dir)?,
            None => return Err(empty()),
        };
        Overlay::over(scratch, lowers, top, Arc::default())
    }

    /// Says what the root directory itself is like; the layers' directories may not know, where no
    /// layer has an entry for it.
    pub fn with_top(mut self, top: Meta) -> Overlay {
        self.top = top;
        self
    }

    /// Gives the names of the mount options that are wanted and that the kernel here refuses, as far as
    /// something was mounted.
    pub fn left_off(&self) -> Vec<&'static str> {
        self.mounter.left_off()
    }

    fn over(
        scratch: PathBuf,
        lowers: Vec<Arc<Path>>,
        top: Meta,
        mounter: Arc<Mounter>,
    ) -> Result<Overlay, Error> {
        let merged = scratch.join("merged");
        let spare = scratch.join("spare");
        for dir in [&merged, &spare] {
            make_dir(dir)?;
        }
        Ok(Overlay {
            scratch: Scratch::new(scratch),
            merged,
            spare,
            lowers,
            mounter,
            top,
            step: None,
            frozen: None,
            resting: OnceLock::new(),
        })
    }

    /// Makes the next numbered directory with an upper directory in it that looks like the root.
    fn fresh(&mut self) -> Result<(PathBuf, PathBuf), Error> {
        let dir = self.scratch.numbered()?;
        let upper = dir.join("upper");
        make_dir(&upper)?;
        apply::set_root(&upper, &self.top)?;
        Ok((dir, upper))
    }

    /// Puts a finished directory on the stack.
    fn stack(&mut self, dir: PathBuf) {
        self.lowers.push(dir.into());
        self.resting = OnceLock::new();
    }

    /// Mounts a stack read-only where nobody sees it.
    fn view(&self, over: &[Arc<Path>]) -> Result<OwnedFd, Error> {
        // The kernel wants two directories where none can be written to.
        let padded: Vec<Arc<Path>>;
        let lowers = match over {
            [only] => {
                padded = vec![Arc::from(self.spare.as_path()), Arc::clone(only)];
                &padded
            }
            _ => over,
        };
        let stack = Stack {
            lowers,
            upper: None,
        };
        self.mounter.detached(&stack, &self.spare)
    }

    /// Ends the step and gives what it left, no longer mounted.
    fn finish(&mut self) -> Result<Option<(PathBuf, PathBuf)>, Error> {
        let Some(Step { dir, upper, root }) = self.step.take() else {
            return Ok(None);
        };
        drop(root);
        detach(&self.merged)?;
        Ok(Some((dir, upper)))
    }

    /// Reads what a step wrote to its upper directory.
    fn read(&mut self, upper: &Path) -> Result<Vec<Change>, Error> {
        let dir = Arc::new(open_dir(upper)?);
        let stands_for_itself = Cell::new(true);
        let make_view = || {
            stands_for_itself.set(false);
            let mut over = self.lowers.clone();
            over.push(upper.into());
            self.view(&over)
        };
        let mut changes = upper::read(&dir, self.mounter.notes, &make_view)?;
        self.frozen = stands_for_itself.get().then(|| upper.to_owned());
        let top = meta_of(upper)?;
        // The time of the root changes with whatever is made in it and says nothing by itself.
        let with_old_time = Meta {
            mtime: self.top.mtime,
            ..top.clone()
        };
        if with_old_time != self.top {
            let action = Action::Put {
                meta: top,
                source: None,
                link: None,
            };
            changes.insert(
                0,
                Change {
                    path: RelPath::root(),
                    action,
                },
            );
        }
        Ok(changes)
    }
}

impl Rootfs for Overlay {
    fn root(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(step) = &self.step {
            return Ok(step.root.as_fd());
        }
        if let Some(root) = self.resting.get() {
            return Ok(root.as_fd());
        }
        let root = self.view(&self.lowers)?;
        Ok(self.resting.get_or_init(|| root).as_fd())
    }

    fn entry(&self) -> Entry<'_> {
        Entry::Pivot(&self.merged)
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.discard()?;
        let (dir, upper) = self.fresh()?;
        let work = dir.join("work");
        make_dir(&work)?;
        let stack = Stack {
            lowers: &self.lowers,
            upper: Some((&upper, &work)),
        };
        let root = self.mounter.attach(&stack, &self.merged)?;
        self.step = Some(Step { dir, upper, root });
        Ok(())
    }

    fn commit(&mut self) -> Result<Changeset, Error> {
        self.frozen = None;
        let Some((dir, upper)) = self.finish()? else {
            return Ok(Changeset::default());
        };
        let changes = self.read(&upper)?;
        if changes.is_empty() {
            self.frozen = None;
            remove(&dir)?;
        } else {
            if let Some(Change {
                path,
                action: Action::Put { meta, .. },
            }) = changes.first()
                && path.is_root()
            {
                self.top = meta.clone();
            }
            self.stack(upper);
        }
        Ok(Changeset {
            changes,
            state: State::Frozen,
        })
    }

    fn frozen(&self) -> Option<&Path> {
        self.frozen.as_deref()
    }

    fn discard(&mut self) -> Result<(), Error> {
        match self.finish()? {
            Some((dir, _)) => remove(&dir),
            None => Ok(()),
        }
    }

    fn apply(&mut self, changeset: &Changeset, cancel: &Cancel) -> Result<(), Error> {
        if changeset.is_empty() {
            return Ok(());
        }
        let (_, upper) = self.fresh()?;
        apply::write(changeset, &upper, cancel)?;
        if let Some(Action::Put { meta, .. }) = changeset.get(&RelPath::root()) {
            self.top = meta.clone();
        }
        self.stack(upper);
        Ok(())
    }

    fn fork(&self) -> Result<Box<dyn Rootfs>, Error> {
        let scratch = self.scratch.fork()?;
        let fork = Overlay::over(
            scratch,
            self.lowers.clone(),
            self.top.clone(),
            Arc::clone(&self.mounter),
        )?;
        Ok(Box::new(fork))
    }
}

impl Drop for Overlay {
    /// Unmounts; what was written stays for the owner of the scratch directory to remove, since a
    /// changeset or a fork may still read it.
    fn drop(&mut self) {
        if self.step.take().is_some() {
            // Nobody is left to tell; the mount goes with the namespace at the latest.
            let _ = detach(&self.merged);
        }
    }
}

/// Writes a changeset into an empty directory, and the directory's own metadata.
pub(super) fn write(
    changeset: &Changeset,
    dir: &Path,
    top: &Meta,
    cancel: &Cancel,
) -> Result<(), Error> {
    apply::write(changeset, dir, cancel)?;
    apply::set_root(dir, top)
}

fn meta_of(dir: &Path) -> Result<Meta, Error> {
    let fd = open_dir(dir)?;
    let stat = crate::fs::stat_at(fd.as_fd(), b"").map_err(at("read", dir))?;
    stat.map(|stat| stat.meta).ok_or_else(empty)
}

fn empty() -> Error {
    Error::Refused {
        strategy: "overlay",
        why: "there is no layer to start from".into(),
    }
}
