//! Where an image goes besides a registry, and OCI layouts as a source.

mod archive;
mod docker;
mod files;
mod layout;
mod open;
mod stream;

pub use docker::write_docker_tar;
pub use files::{write_directory, write_root_tar};
pub use layout::{Unseen, write_layout, write_oci_tar};
pub use open::{LayoutImage, open_layout};

use crate::oci::{Descriptor, Manifest};
use crate::progress::Span;
use crate::sys::Cancel;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with an output or a layout.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A pipe's reader ended.
    #[error("write {0}: its reader ended before it had all of the image")]
    Closed(PathBuf),
    /// The image's files could not be put into a directory.
    #[error("write the image's files to {dir}")]
    Files {
        /// The directory.
        dir: PathBuf,
        /// Which, and why not.
        source: crate::changeset::Error,
    },
    /// The image's files could not be read, or cannot be put into an archive.
    #[error(transparent)]
    Archive(#[from] crate::layer::Error),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The directory is no OCI layout, or has no such image.
    #[error("{path}: {why}")]
    Layout {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// A finished image: every blob is a file.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// Media type, digest and size of those bytes.
    pub descriptor: Descriptor,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The layers' blobs, bottom first, as the manifest has them.
    pub blobs: Vec<PathBuf>,
}

/// The writing of one output: who is told of it, and who ends it.
#[derive(Clone, Copy)]
pub struct Export<'a> {
    /// Is told of the bytes.
    pub span: &'a Span,
    /// Ends it.
    pub cancel: &'a Cancel,
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// Gives a name beside `file` for its making.
fn beside(file: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(
        ".{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ));
    file.with_file_name(name)
}

/// Has `make` make `partial`, which lies beside `place`, and puts it there by a rename.
fn put_in_place(
    place: &Path,
    partial: &Path,
    make: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let result = make()
        .and_then(|()| std::fs::rename(partial, place).map_err(failed("put in place", place)));
    if result.is_err() {
        let _ = std::fs::remove_file(partial);
    }
    result
}
