//! What a COPY or ADD takes, from the build context or from a tree, as a changeset; users and groups.

use crate::changeset::Changeset;
use crate::dockerfile::ignore::Ignore;
use crate::fs::{Time, Tree};
use crate::plan::CopyOp;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
#[error("todo")]
pub struct Error {}

/// A build context: a directory that is kept open, and its ignore file.
pub struct Context {
    /// The directory.
    pub dir: Arc<OwnedFd>,
    /// What is left out.
    pub ignore: Option<Ignore>,
}

impl Context {
    /// Opens a directory as the context of a Dockerfile; the ignore file is `DOCKERFILE.dockerignore`
    /// beside the Dockerfile where there is one, else `.dockerignore` in the context.
    pub fn open(dir: &Path, dockerfile: &Path) -> Result<Context, Error> {
        let _ = (dir, dockerfile);
        todo!()
    }
}

/// Where a COPY takes from.
pub enum Origin<'a> {
    /// The build context.
    Context(&'a Context),
    /// Another stage's or image's tree.
    Tree(&'a Tree),
}

/// Carries out a COPY or ADD on paper: what it would put where on `dest`, as a changeset that is not
/// settled yet. No root is needed. `scratch` is an empty directory for what is unpacked from
/// archives; it must live as long as the changeset's sources. `now` is the time of directories and
/// files that the step itself makes.
pub fn copy(
    op: &CopyOp,
    from: &Origin<'_>,
    dest: &Tree,
    scratch: &Path,
    now: Time,
) -> Result<Changeset, Error> {
    let _ = (op, from, dest, scratch, now);
    todo!()
}

/// Carries out a WORKDIR on paper.
pub fn workdir(path: &str, user: &str, dest: &Tree, now: Time) -> Result<Changeset, Error> {
    let _ = (path, user, dest, now);
    todo!()
}

/// A user by number, as the image's own files have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` where there is none.
    pub home: String,
}

/// Looks up `USER name[:group]` in the tree's /etc/passwd and /etc/group, as runc does; numbers
/// need no entry.
pub fn user(spec: &str, tree: &Tree) -> Result<User, Error> {
    let _ = (spec, tree);
    todo!()
}
