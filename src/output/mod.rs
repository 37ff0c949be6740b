//! Where an image goes besides a registry, and OCI layouts as a source.

mod docker;
mod layout;
mod open;

pub use docker::write_docker_tar;
pub use layout::write_layout;
pub use open::{LayoutImage, open_layout};

use crate::oci::{Descriptor, Manifest};
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

/// Has `make` write a file beside `place` and puts it there by a rename.
fn put_in_place(place: &Path, make: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let partial = beside(place);
    let result = make(&partial)
        .and_then(|()| std::fs::rename(&partial, place).map_err(failed("put in place", place)));
    if result.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    result
}
