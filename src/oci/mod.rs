//! The nouns of the OCI image format: digest, reference, platform, descriptor, manifest, config.
//!
//! Values are plain and immutable by convention; a change makes a new one. Bytes that a digest was
//! taken over are kept as they came and never serialised again.

mod config;
mod digest;
mod manifest;
mod platform;
mod reference;

pub use config::{Config, Healthcheck, History, Image, RootFs};
pub use digest::{Digest, DigestError, Sha256};
pub use manifest::{
    Descriptor, Document, Format, Index, MAX_MANIFEST, Manifest, ManifestError, media,
};
pub use platform::Platform;
pub use reference::{Reference, ReferenceError};

#[cfg(test)]
mod tests;
