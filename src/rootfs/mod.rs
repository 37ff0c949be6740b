//! The root file system that commands run in, behind one trait.

use crate::changeset::Changeset;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

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
}

/// A root file system of one stage and the tracker of what is written to it.
pub trait Rootfs: Send {
    /// Gives the root; every path is resolved beneath it.
    fn root(&self) -> BorrowedFd<'_>;
    /// Gives what a child does to get in.
    fn entry(&self) -> Entry<'_>;
    /// Starts a step: from here on a write belongs to it.
    fn begin(&mut self) -> Result<(), Error>;
    /// Ends a step: gives a superset of what changed, not yet settled, whose content is frozen
    /// where the strategy can. Nothing of the step runs any more when this is called.
    fn commit(&mut self) -> Result<Changeset, Error>;
    /// Throws away what was written since `begin`.
    fn discard(&mut self) -> Result<(), Error>;
    /// Puts a settled changeset that no command made (COPY, ADD, WORKDIR) into the root as a layer
    /// of its own. Not between `begin` and `commit`.
    fn apply(&mut self, changeset: &Changeset) -> Result<(), Error>;
    /// Gives a root for a stage that starts from this one as it is now; refused where there is one
    /// root only.
    fn fork(&self) -> Result<Box<dyn Rootfs>, Error>;
}

/// Finds out whether the strategy asked for works here, by really trying it in a scratch directory.
pub fn probe(choice: crate::request::RootfsChoice, dir: &Path) -> Result<(), Error> {
    let _ = (choice, dir);
    todo!()
}

/// Makes a root over unpacked layers, bottom first.
pub fn create(
    choice: crate::request::RootfsChoice,
    dir: PathBuf,
    lowers: Vec<PathBuf>,
) -> Result<Box<dyn Rootfs>, Error> {
    let _ = (choice, dir, lowers);
    todo!()
}
