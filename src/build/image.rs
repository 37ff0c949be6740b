//! The finished image: config, history and manifest over base and new layers.

use super::base::Resolved;
use super::stage::Record;
use super::{Error, Shared};
use crate::layer::Packed;
use crate::oci::{Descriptor, Digest, Format, History, Image, Manifest, media};
use crate::output::Finished;
use std::path::PathBuf;
use std::sync::Arc;

/// Puts the image together once every layer is in the store.
pub(super) fn assemble(
    shared: &Shared<'_>,
    base: Option<&Resolved>,
    last: Image,
    records: &[Record],
) -> Result<Finished, Error> {
    let created = shared.clock.created.clone();
    let mut image = Image {
        created: Some(created.clone()),
        ..last
    };
    image.rootfs.kind = "layers".into();
    image.rootfs.diff_ids = Vec::new();
    image.history = Vec::new();
    let mut layers = Vec::new();
    let mut blobs: Vec<PathBuf> = Vec::new();
    if let Some(base) = base {
        image
            .rootfs
            .diff_ids
            .clone_from(&base.image.rootfs.diff_ids);
        image.history.clone_from(&base.image.history);
        for layer in &base.manifest.layers {
            layers.push(Descriptor {
                media_type: in_format(&layer.media_type, shared.format),
                ..layer.clone()
            });
        }
        for blob in &shared.bases.blobs {
            blobs.push(blob.wait().ok_or(Error::Cancelled)?);
        }
    }
    for record in records {
        let packed: Option<Arc<Packed>> = match &record.layer {
            Some(pending) => Some(pending.wait().ok_or(Error::Cancelled)?),
            None => None,
        };
        image.history.push(History {
            created: Some(created.clone()),
            created_by: Some(record.history.clone()),
            empty_layer: packed.is_none(),
            ..History::default()
        });
        if let Some(packed) = packed {
            let descriptor = &packed.descriptor;
            let file = shared
                .store
                .blob(&descriptor.digest, descriptor.size)
                .map_err(|e| Error::other("find the layer", e))?
                .ok_or_else(|| {
                    Error::other(
                        format!("find layer {}", descriptor.digest),
                        "it is no longer in the store",
                    )
                })?;
            image.rootfs.diff_ids.push(packed.diff_id);
            layers.push(descriptor.clone());
            blobs.push(file);
        }
    }
    let config_bytes = image.to_bytes();
    let config = Descriptor {
        media_type: match shared.format {
            Format::Oci => media::OCI_CONFIG.into(),
            Format::Docker => media::DOCKER_CONFIG.into(),
        },
        digest: Digest::of(&config_bytes),
        size: config_bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
    };
    let manifest = Manifest {
        format: shared.format,
        config,
        layers,
        annotations: Default::default(),
    };
    let manifest_bytes = manifest.to_bytes();
    let descriptor = Descriptor {
        media_type: manifest.media_type().into(),
        digest: Digest::of(&manifest_bytes),
        size: manifest_bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
    };
    Ok(Finished {
        manifest,
        manifest_bytes,
        descriptor,
        config_bytes,
        blobs,
    })
}

/// Gives the media type that a base's layer has in the image's format; the bytes stay the same.
fn in_format(media_type: &str, format: Format) -> String {
    let pairs = [
        (media::OCI_LAYER, media::DOCKER_LAYER),
        (media::OCI_LAYER_GZIP, media::DOCKER_LAYER_GZIP),
    ];
    pairs
        .iter()
        .find_map(|&(oci, docker)| match format {
            Format::Oci if media_type == docker => Some(oci),
            Format::Docker if media_type == oci => Some(docker),
            _ => None,
        })
        .unwrap_or(media_type)
        .to_owned()
}
