//! OCI distribution: credentials, pull, push.

use crate::layer::Blobs;
use crate::oci::{Descriptor, Digest, Document, Platform, Reference};
use crate::progress::Span;
use crate::request::RegistryOptions;
use crate::sys::Cancel;
use std::io::{self, Read};
use std::path::Path;

/// What went wrong with a registry: which one, which repository, tag or digest, what it answered,
/// whether credentials were sent, and where they came from (never the secret itself).
#[derive(Debug, thiserror::Error)]
#[error("todo")]
pub struct Error {}

/// Talks to registries for one build; shared by threads.
pub struct Registry {
    _todo: (),
}

/// A manifest as it was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Media type, digest and size of the bytes.
    pub descriptor: Descriptor,
    /// The bytes as they came.
    pub bytes: Vec<u8>,
    /// What they say.
    pub document: Document,
}

/// How a blob got to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// It was mounted from another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Registry {
    /// Makes a client; nothing is sent yet.
    pub fn new(options: RegistryOptions, cancel: Cancel) -> Result<Registry, Error> {
        let _ = (options, cancel);
        todo!()
    }

    /// Fetches a manifest, following an index to the platform.
    pub fn pull_manifest(&self, image: &Reference, platform: &Platform) -> Result<Fetched, Error> {
        let _ = (image, platform);
        todo!()
    }

    /// Fetches a small blob whole and verifies it.
    pub fn pull_small(&self, image: &Reference, blob: &Descriptor) -> Result<Vec<u8>, Error> {
        let _ = (image, blob);
        todo!()
    }

    /// Opens a blob as a stream that resumes by itself after a temporary failure.
    pub fn pull_blob(
        &self,
        image: &Reference,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let _ = (image, blob);
        todo!()
    }

    /// Checks that the credentials may push to a repository (starts an upload and takes it back).
    pub fn check_push(&self, image: &Reference) -> Result<(), Error> {
        let _ = image;
        todo!()
    }

    /// Sees to it that a repository has a blob: asks, mounts from `from` where that is a repository
    /// of the same registry, else uploads the file. One upload per repository and digest, however
    /// many ask.
    pub fn push_blob(
        &self,
        image: &Reference,
        blob: &Descriptor,
        file: &Path,
        from: Option<&Reference>,
        span: &Span,
    ) -> Result<Pushed, Error> {
        let _ = (image, blob, file, from, span);
        todo!()
    }

    /// Puts a manifest under the reference's tag (or its digest where there is no tag).
    pub fn push_manifest(
        &self,
        image: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        let _ = (image, media_type, bytes);
        todo!()
    }
}

/// The blobs of one image in a registry.
pub struct ImageBlobs<'a> {
    /// The registry.
    pub registry: &'a Registry,
    /// The image.
    pub image: Reference,
}

impl Blobs for ImageBlobs<'_> {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        self.registry
            .pull_blob(&self.image, blob)
            .map_err(io::Error::other)
    }
}
