//! Where an image goes besides a registry, and OCI layouts as a source.

use crate::layer::Blobs;
use crate::oci::{Descriptor, Manifest, Platform, Reference};
use crate::request::Layout;
use std::io::{self, Read};
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

/// Writes an OCI layout; an existing one gets the image added. Whole or not at all: `index.json`
/// is put in place last, by a rename.
pub fn write_layout(image: &Finished, names: &[Reference], dir: &Path) -> Result<(), Error> {
    let _ = (image, names, dir);
    todo!()
}

/// Writes a docker-archive that `docker load`, `podman load` and skopeo take. Put in place by a rename.
pub fn write_docker_tar(image: &Finished, names: &[Reference], file: &Path) -> Result<(), Error> {
    let _ = (image, names, file);
    todo!()
}

/// An image in an OCI layout, opened for reading.
pub struct LayoutImage {
    /// The layout.
    pub dir: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// The config's bytes, verified.
    pub config: Vec<u8>,
}

/// Finds an image in a layout: by digest, by tag, or the only one; through nested indexes by platform.
pub fn open_layout(layout: &Layout, platform: &Platform) -> Result<LayoutImage, Error> {
    let _ = (layout, platform);
    todo!()
}

impl Blobs for LayoutImage {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let _ = blob;
        todo!()
    }
}
