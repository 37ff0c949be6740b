//! The root file system that commands run in, behind one trait.

mod dirs;
mod fuse;
mod live;
mod overlay;
mod owners;
pub mod probe;

pub use fuse::{Contents, FUSE_SOURCE, Fuse};
pub use live::{Guard, Live};
pub use overlay::Overlay;
pub use owners::Swapped;

use crate::changeset::Changeset;
use crate::fs::{LayerView, Meta};
use crate::request::RootfsChoice;
use crate::sys::Cancel;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What went wrong with a root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Reading what changed failed.
    #[error(transparent)]
    Changeset(#[from] crate::changeset::Error),
    /// The kernel refuses a mount that the strategy takes.
    #[error("{strategy}: {action}")]
    Mount {
        /// The strategy's name.
        strategy: &'static str,
        /// What was tried, and what the kernel had to say of it.
        action: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The strategy does not work here.
    #[error("{strategy} cannot be used here: {why}")]
    Refused {
        /// Its name.
        strategy: &'static str,
        /// The kernel's refusal in plain words, with the remedy.
        why: String,
    },
}

/// What a child does to get into a root.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// Make this directory, a mount in the builder's mount namespace, its root by `pivot_root`.
    Pivot(&'a Path),
    /// Make this directory its root by `chroot`; nothing can be mounted there.
    Chroot(&'a Path),
    /// Stay where the builder is; nothing can be mounted there.
    Stay,
}

/// One layer that a root is made over.
#[derive(Clone)]
pub struct Lower {
    /// Its files in overlay form, as the store unpacks layers.
    pub dir: PathBuf,
    /// What is known of them without looking at the directory.
    pub view: Option<Arc<LayerView>>,
}

impl Lower {
    /// Gives what is known of the files; where that is nothing yet, by one walk.
    fn view(&self) -> Result<Arc<LayerView>, Error> {
        match &self.view {
            Some(view) => Ok(Arc::clone(view)),
            None => Ok(Arc::new(dirs::view_of(&self.dir)?)),
        }
    }
}

impl From<PathBuf> for Lower {
    fn from(dir: PathBuf) -> Lower {
        Lower { dir, view: None }
    }
}

/// A root file system of one stage and the tracker of what is written to it.
pub trait Rootfs: Send {
    /// Gives the root; every path is resolved beneath it. Between steps it can be read only.
    fn root(&self) -> Result<BorrowedFd<'_>, Error>;
    /// Gives what a child does to get in.
    fn entry(&self) -> Entry<'_>;
    /// Starts a step: from here on a write belongs to it. A step that was not committed is discarded.
    fn begin(&mut self) -> Result<(), Error>;
    /// Ends a step: gives a superset of what changed, not yet settled, whose content is frozen
    /// where the strategy can. Nothing of the step runs any more when this is called. Without a
    /// step there is no change.
    fn commit(&mut self) -> Result<Changeset, Error>;
    /// Gives the directory with what the last step wrote, where it is one that could be a layer's: in
    /// overlay form, and with nothing in it that is found elsewhere. It stays where it is for as long
    /// as the root is there.
    fn frozen(&self) -> Option<&Path> {
        None
    }
    /// Throws away what was written since `begin`.
    fn discard(&mut self) -> Result<(), Error>;
    /// Puts a settled changeset that no command made (COPY, ADD, WORKDIR) into the root as a layer
    /// of its own. Not between `begin` and `commit`. Ends early, with an error, once `cancel` is set.
    fn apply(&mut self, changeset: &Changeset, cancel: &Cancel) -> Result<(), Error>;
    /// Gives a root for a stage that starts from this one as it is now; refused where there is one
    /// root only.
    fn fork(&self) -> Result<Box<dyn Rootfs>, Error>;
}

/// Writes a changeset of puts alone into an empty directory, whose own metadata is `top`. Ends early,
/// with an error, once `cancel` is set.
pub fn write(changeset: &Changeset, dir: &Path, top: &Meta, cancel: &Cancel) -> Result<(), Error> {
    overlay::write(changeset, dir, top, cancel)
}

/// Makes a root over unpacked layers, bottom first; `top` is what the root directory itself is like.
/// `dir` is an empty directory of its own. Ends early, with an error, once `cancel` is set.
pub fn create(
    choice: RootfsChoice,
    dir: PathBuf,
    lowers: Vec<Lower>,
    top: Meta,
    cancel: &Cancel,
) -> Result<Box<dyn Rootfs>, Error> {
    match choice {
        RootfsChoice::Auto | RootfsChoice::Overlay => {
            let lowers = lowers.into_iter().map(|lower| lower.dir).collect();
            Ok(Box::new(Overlay::new(dir, lowers)?.with_top(top)))
        }
        RootfsChoice::Fuse => Ok(Box::new(Fuse::new(dir, lowers, top)?)),
        // In place there is only one root; a further one is a directory.
        RootfsChoice::Chroot | RootfsChoice::InPlace => {
            Ok(Box::new(Live::chroot(dir, &lowers, &top, cancel)?))
        }
    }
}
