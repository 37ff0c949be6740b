//! An image's files by themselves: in a directory, and as an archive.

use super::stream::write_to;
use super::{Error, Export, failed};
use crate::changeset::{self, Change};
use crate::fs::Placer;
use crate::layer::{self, Permits};
use crate::request::Place;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

/// Puts an image's files into a directory, which is made where it is not there. Gives the names of
/// extended attributes that its file system refused to keep.
///
/// What is there already stays, except for what stands in the way of a file of the image; a symbolic
/// link in it is replaced and never followed. Owners, modes, times, extended attributes, devices and
/// hard links are those of the image. What is written stays where the build is cancelled or fails.
pub fn write_directory(
    files: &[Change],
    dir: &Path,
    export: &Export<'_>,
) -> Result<Vec<String>, Error> {
    std::fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let root = File::open(dir).map_err(failed("open", dir))?;
    let mut placer = Placer::new(root.as_fd()).map_err(failed("open", dir))?;
    let wrote = |bytes| export.span.advance(bytes);
    changeset::place(files, &mut placer, export.cancel, &wrote).map_err(|source| {
        match export.cancel.is_set() {
            true => Error::Cancelled,
            false => Error::Files {
                dir: dir.to_owned(),
                source,
            },
        }
    })?;
    placer.finish().map_err(failed("finish", dir))
}

/// Writes an image's files as an archive: no entry for the root, names in canonical order, and times
/// in whole seconds. A file is put in place by a rename.
pub fn write_root_tar(
    files: &[Change],
    permits: &Arc<Permits>,
    place: &Place,
    export: &Export<'_>,
) -> Result<(), Error> {
    write_to(place, export, |out| {
        let archived = layer::archive(files, permits, export.cancel, &mut |bytes| {
            out.write_all(bytes)
        });
        archived.map_err(|error| match error {
            layer::Error::Write(error) => out.failed("write", Path::new("the archive"))(error),
            layer::Error::Cancelled => Error::Cancelled,
            other => Error::Archive(other),
        })
    })
}
