//! Writing a changeset as a layer directory in overlay form.

use crate::changeset::{self, Changeset};
use crate::fs::{Meta, Placer, RelPath};
use crate::rootfs::Error;
use crate::rootfs::dirs::{at, open_dir};
use crate::sys::Cancel;
use std::os::fd::AsFd;
use std::path::Path;

/// Gives an upper directory the metadata of the root.
pub(super) fn set_root(upper: &Path, meta: &Meta) -> Result<(), Error> {
    let fd = open_dir(upper)?;
    let mut placer = Placer::layer(fd.as_fd()).map_err(at("open", upper))?;
    placer
        .put(&RelPath::root(), meta, None)
        .map_err(at("set up", upper))?;
    placer.finish().map_err(at("set up", upper))?;
    Ok(())
}

/// Writes a changeset into an upper directory that is empty.
pub(super) fn write(changeset: &Changeset, upper: &Path, cancel: &Cancel) -> Result<(), Error> {
    let fd = open_dir(upper)?;
    let mut placer = Placer::layer(fd.as_fd()).map_err(at("open", upper))?;
    changeset::place(&changeset.changes, &mut placer, cancel, &|_| ()).map_err(Error::Changeset)?;
    // Attributes that the file system cannot carry are in the layer all the same.
    placer.finish().map_err(at("finish", upper))?;
    Ok(())
}
