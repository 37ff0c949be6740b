use super::config::nullable;
use super::{Digest, Platform};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The media types of manifests, configs and layers.
pub mod media {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, plain tar.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, plain tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// Which family of media types an image is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/vnd.oci.*`
    Oci,
    /// `application/vnd.docker.*`, schema 2
    Docker,
}

/// Says what a blob is: media type, digest, size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type.
    pub media_type: String,
    /// The digest of the blob's bytes.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// Where else the blob may be had; kept, not used.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "nullable"
    )]
    pub urls: Vec<String>,
    /// Free annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest, of either format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The family of its media types.
    pub format: Format,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// An index or manifest list: one manifest a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The manifests with the platform each is for, where one is named, in order.
    pub manifests: Vec<(Descriptor, Option<Platform>)>,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not the JSON of a manifest.
    #[error("not an image manifest or index: {0}")]
    Json(#[from] serde_json::Error),
    /// The media type is one that cannot be built on.
    #[error("media type `{0}` is not an image manifest that can be used here")]
    MediaType(String),
    /// More than the bound allows.
    #[error("{0}")]
    Limit(String),
}

/// The most bytes a manifest, index or config may have: 8 MiB.
pub const MAX_MANIFEST: u64 = 8 << 20;

/// The most layers of an image, and the most images of an index.
const MAX_ENTRIES: usize = 1000;

/// The most bytes a blob may claim to have, so that sums of sizes cannot overflow: 1 PiB.
const MAX_BLOB: u64 = 1 << 50;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    config: Descriptor,
    #[serde(deserialize_with = "nullable")]
    layers: Vec<Descriptor>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    annotations: BTreeMap<String, String>,
}

/// Either kind of top-level document that a tag may point to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
struct RawIndexEntry {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawIndex {
    #[serde(deserialize_with = "nullable")]
    manifests: Vec<RawIndexEntry>,
}

impl Document {
    /// Reads a manifest or an index; `media_type` is what the registry or layout called it, and
    /// the document's own `mediaType` wins where it has one.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Document, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            media_type: Option<String>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
        }
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(ManifestError::Limit(format!(
                "a manifest of {} bytes is over the bound of {MAX_MANIFEST}",
                bytes.len()
            )));
        }
        let head: Head = serde_json::from_slice(bytes)?;
        let own = head.media_type.as_deref().filter(|own| !own.is_empty());
        let kind = match (own, media_type) {
            (Some(own), _) => own.to_owned(),
            (None, Some(told)) if told.contains("vnd.") => told.to_owned(),
            _ if head.manifests.is_some() => media::OCI_INDEX.into(),
            _ => media::OCI_MANIFEST.into(),
        };
        match kind.as_str() {
            media::OCI_INDEX | media::DOCKER_LIST => {
                let raw: RawIndex = serde_json::from_slice(bytes)?;
                bounded(raw.manifests.iter().map(|entry| &entry.descriptor))?;
                Ok(Document::Index(Index {
                    manifests: raw
                        .manifests
                        .into_iter()
                        .map(|entry| {
                            let platform = entry.platform.map(|p| Platform {
                                os: p.os,
                                architecture: p.architecture,
                                variant: p.variant.filter(|v| !v.is_empty()),
                            });
                            (entry.descriptor, platform)
                        })
                        .collect(),
                }))
            }
            media::OCI_MANIFEST | media::DOCKER_MANIFEST => {
                let raw: RawManifest = serde_json::from_slice(bytes)?;
                bounded(raw.layers.iter().chain([&raw.config]))?;
                Ok(Document::Manifest(Manifest {
                    format: if kind == media::DOCKER_MANIFEST {
                        Format::Docker
                    } else {
                        Format::Oci
                    },
                    config: raw.config,
                    layers: raw.layers,
                    annotations: raw.annotations,
                }))
            }
            other => Err(ManifestError::MediaType(other.to_owned())),
        }
    }
}

fn bounded<'a>(blobs: impl Iterator<Item = &'a Descriptor>) -> Result<(), ManifestError> {
    for (at, blob) in blobs.enumerate() {
        if at > MAX_ENTRIES {
            return Err(ManifestError::Limit(format!(
                "it lists more than {MAX_ENTRIES} blobs"
            )));
        }
        if blob.size > MAX_BLOB {
            return Err(ManifestError::Limit(format!(
                "blob {} claims to have {} bytes",
                blob.digest, blob.size
            )));
        }
    }
    Ok(())
}

impl Manifest {
    /// Gives the media type of the manifest itself.
    pub fn media_type(&self) -> &'static str {
        match self.format {
            Format::Oci => media::OCI_MANIFEST,
            Format::Docker => media::DOCKER_MANIFEST,
        }
    }

    /// Gives the manifest's bytes: JSON without white space, fields in the specification's order.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&RawManifest {
            schema_version: 2,
            media_type: Some(self.media_type().to_owned()),
            config: self.config.clone(),
            layers: self.layers.clone(),
            annotations: self.annotations.clone(),
        })
        .unwrap_or_default()
    }
}
