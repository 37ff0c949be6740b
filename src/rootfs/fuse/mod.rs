//! A file system of the builder's own, by way of FUSE: a table in memory is the union of the layers
//! and the tracker of what is written.

mod acl;
mod changes;
mod content;
mod mount;
mod node;
mod serve;
mod table;
mod turns;

use super::dirs::{Scratch, at, detach, make_dir, open_dir, remove};
use super::{Entry, Error, Lower, Rootfs};
use crate::changeset::{Action, Change, Changeset, State};
use crate::fs::{Content, Meta, RelPath};
use crate::sys::Cancel;
use content::{Files, Truth, Upper};
pub use mount::FUSE_SOURCE;
use mount::{Access, attach, serve};
pub(super) use mount::{OPEN_DEVICE, passthrough};
use rayon::prelude::*;
use serve::Server;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use table::{Base, Table};

/// A root whose files are shown by the builder itself.
///
/// Directories are merged from the layers' tables of contents as they are looked at; nothing is
/// walked. What a step writes goes to files without names in a directory of its own, which at the
/// end of the step is frozen, and with the list of what has changed becomes a layer of the next;
/// so it is with what is applied. Layers and frozen directories are never written to again, and are
/// shared with forks. A deleted file is a note in the table; a renamed directory is one entry
/// moved.
///
/// As on overlay, a file of a layer that has several names is another file than those from its
/// first change on.
///
/// The process must be in a mount namespace of its own, with the right to mount there, and /dev/fuse
/// must be there. Mounts that are left when it ends go with the namespace, and whoever waits for an
/// answer then gets an error; the directory of the root is its owner's to remove.
///
/// ```text
/// SCRATCH/
///   merged/        where the root is mounted during a step
///   N/             what step N wrote, or the content of what was applied as the Nth layer
///   forks/N/       the same again for each fork
/// ```
pub struct Fuse {
    scratch: Scratch,
    merged: PathBuf,
    base: Base,
    /// What the root directory is like.
    top: Meta,
    contents: Contents,
    step: Option<Step>,
    /// The root between steps, mounted when it is first asked for.
    resting: OnceLock<OwnedFd>,
}

/// Who reads and writes the content of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The kernel itself where it will, so that nothing is copied to the builder and back.
    Kernel,
    /// The builder, as where the kernel will not.
    Builder,
}

/// A step under way.
struct Step {
    dir: PathBuf,
    files: Arc<Files>,
    root: OwnedFd,
}

impl Fuse {
    /// Makes a root of unpacked layers, bottom first; none for an empty root. `scratch` is an empty
    /// directory; `top` is what the root directory itself is like.
    pub fn new(scratch: PathBuf, lowers: Vec<Lower>, top: Meta) -> Result<Fuse, Error> {
        let mut base = Base::default();
        for lower in lowers {
            base.push(lower.view()?);
        }
        Fuse::over(scratch, base, top, Contents::Kernel)
    }

    /// Says who reads and writes the content of files.
    pub fn with_contents(mut self, contents: Contents) -> Fuse {
        self.contents = contents;
        self
    }

    fn over(scratch: PathBuf, base: Base, top: Meta, contents: Contents) -> Result<Fuse, Error> {
        let merged = scratch.join("merged");
        make_dir(&merged)?;
        Ok(Fuse {
            scratch: Scratch::new(scratch),
            merged,
            base,
            top,
            contents,
            step: None,
            resting: OnceLock::new(),
        })
    }

    /// Makes the next numbered directory.
    fn fresh(&mut self) -> Result<(PathBuf, Upper), Error> {
        let dir = self.scratch.numbered()?;
        let upper = Upper::new(open_dir(&dir)?);
        Ok((dir, upper))
    }

    /// Puts what has changed on top.
    fn stack(&mut self, changes: Changeset) -> Result<(), Error> {
        if let Some(Action::Put { meta, .. }) = changes.get(&RelPath::root()) {
            self.top = meta.clone();
        }
        self.base.push(Arc::new(Arc::new(changes).view()?));
        self.resting = OnceLock::new();
        Ok(())
    }

    fn mount(&self, upper: Option<Upper>, access: Access) -> Result<(Arc<Files>, OwnedFd), Error> {
        let passthrough = match self.contents {
            Contents::Kernel => passthrough(&self.content_dirs(upper.as_ref())),
            Contents::Builder => None,
        };
        let truth = match passthrough {
            Some(_) => Truth::Disk,
            None => Truth::Kernel,
        };
        let table = Table::new(self.base.clone(), self.top.clone());
        let files = Arc::new(Files::new(table, upper, truth));
        let server = Server::new(Arc::clone(&files), passthrough);
        let root = serve(server, access, &self.merged)?;
        Ok((files, root))
    }

    /// Gives the directories in which contents lie.
    fn content_dirs<'a>(&'a self, upper: Option<&'a Upper>) -> Vec<BorrowedFd<'a>> {
        let layers = self.base.tree.layers().iter();
        let below = layers.filter_map(|layer| match &layer.content {
            Content::Dir(dir) => Some(dir.as_fd()),
            _ => None,
        });
        upper
            .map(|upper| upper.dir.as_fd())
            .into_iter()
            .chain(below)
            .collect()
    }

    /// Ends the step and gives what it left, no longer mounted.
    fn finish(&mut self) -> Result<Option<(PathBuf, Arc<Files>)>, Error> {
        let Some(Step { dir, files, root }) = self.step.take() else {
            return Ok(None);
        };
        if files.truth == Truth::Kernel {
            // What the kernel still holds back, times above all.
            rustix::fs::syncfs(&root).map_err(at("write out", &self.merged))?;
        }
        drop(root);
        detach(&self.merged)?;
        Ok(Some((dir, files)))
    }
}

impl Rootfs for Fuse {
    fn root(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(step) = &self.step {
            return Ok(step.root.as_fd());
        }
        if let Some(root) = self.resting.get() {
            return Ok(root.as_fd());
        }
        let (_, root) = self.mount(None, Access::ReadOnly)?;
        Ok(self.resting.get_or_init(|| root).as_fd())
    }

    fn entry(&self) -> Entry<'_> {
        Entry::Pivot(&self.merged)
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.discard()?;
        let (dir, upper) = self.fresh()?;
        let (files, made) = self.mount(Some(upper), Access::ReadWrite)?;
        attach(&made, &self.merged)?;
        let root = open_dir(&self.merged)?;
        self.step = Some(Step { dir, files, root });
        Ok(())
    }

    fn commit(&mut self) -> Result<Changeset, Error> {
        let Some((dir, files)) = self.finish()? else {
            return Ok(Changeset::default());
        };
        let changes = {
            let mut table = files.table();
            changes::changes(&files, &mut table, &self.top)
                .map_err(at("read what changed in", &self.merged))?
        };
        let changeset = Changeset {
            changes,
            state: State::Frozen,
        };
        if changeset.is_empty() {
            remove(&dir)?;
        } else {
            self.stack(changeset.clone())?;
        }
        Ok(changeset)
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
        let (dir, upper) = self.fresh()?;
        let changes = copied(changeset, &upper, cancel, &dir)?;
        self.stack(changes)?;
        Ok(())
    }

    fn fork(&self) -> Result<Box<dyn Rootfs>, Error> {
        let scratch = self.scratch.fork()?;
        let fork = Fuse::over(scratch, self.base.clone(), self.top.clone(), self.contents)?;
        Ok(Box::new(fork))
    }
}

impl Drop for Fuse {
    /// Unmounts; what was written stays for the owner of the scratch directory to remove, since a
    /// changeset or a fork may still read it.
    fn drop(&mut self) {
        if self.step.take().is_some() {
            // Nobody is left to tell; the mount goes with the namespace at the latest.
            let _ = detach(&self.merged);
        }
    }
}

impl std::fmt::Debug for Fuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fuse")
            .field("scratch", &self.scratch.dir)
            .finish_non_exhaustive()
    }
}

/// Gives a changeset whose content is in files of ours: where it comes from, somebody may write to
/// it while a command reads it.
fn copied(
    changeset: &Changeset,
    upper: &Upper,
    cancel: &Cancel,
    dir: &Path,
) -> Result<Changeset, Error> {
    let copy = |change: &Change| -> Result<Change, Error> {
        let mut change = change.clone();
        if let Action::Put {
            meta,
            source: Some(source),
            ..
        } = &mut change.action
        {
            if cancel.is_set() {
                let error: std::io::Error = std::io::ErrorKind::Interrupted.into();
                return Err(at("write to", dir)(error));
            }
            let (number, _) = upper.copy(source, meta.size).map_err(at("write to", dir))?;
            *source = upper
                .source(number)
                .ok_or_else(|| at("write to", dir)(rustix::io::Errno::IO))?;
        }
        Ok(change)
    };
    let changes: Result<Vec<Change>, Error> = changeset
        .changes
        .par_iter()
        .with_min_len(8)
        .map(copy)
        .collect();
    Ok(Changeset {
        changes: changes?,
        state: State::Frozen,
    })
}
