//! The finished image: config, history and manifest over base and new layers.

use super::base::Resolved;
use super::stage::{Record, When};
use super::{Error, Shared, deliver};
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
    let dates = Dates::new(shared, base, records);
    let mut image = Image {
        created: Some(dates.image),
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
    for (record, created) in records.iter().zip(dates.steps) {
        let packed: Option<Arc<Packed>> = match &record.layer {
            Some(pending) => Some(pending.wait().ok_or(Error::Cancelled)?),
            None => None,
        };
        image.history.push(History {
            created: Some(created),
            created_by: Some(record.history.clone()),
            empty_layer: packed.is_none(),
            ..History::default()
        });
        if let Some(packed) = packed {
            let descriptor = &packed.descriptor;
            image.rootfs.diff_ids.push(packed.diff_id);
            layers.push(Descriptor {
                media_type: in_format(&descriptor.media_type, shared.format),
                ..descriptor.clone()
            });
            // A layer of the cache need not be here where nobody wants it as a file.
            if deliver::wants_blobs(shared.request) {
                let file = shared
                    .store
                    .blob(&descriptor.digest, descriptor.size)
                    .map_err(|e| Error::other("find the layer", e))?;
                blobs.push(file.ok_or_else(|| {
                    Error::other(
                        format!("find layer {}", descriptor.digest),
                        "it is no longer in the store",
                    )
                })?);
            }
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

/// When the image and its steps were made.
struct Dates {
    image: String,
    steps: Vec<String>,
}

impl Dates {
    /// What was found in the cache is as old as that says, so that a build in which nothing changed
    /// makes the same image again.
    fn new(shared: &Shared<'_>, base: Option<&Resolved>, records: &[Record]) -> Dates {
        let now = &shared.clock.created;
        let all_now = records.iter().any(|record| record.made == When::Now);
        if shared.clock.has_epoch || (all_now && shared.caching.is_none()) || records.is_empty() {
            return Dates {
                image: now.clone(),
                steps: vec![now.clone(); records.len()],
            };
        }
        let base = base.and_then(|base| base.image.created.clone());
        let mut last = base.unwrap_or_else(|| super::time(0));
        let mut latest = None;
        let mut steps = Vec::with_capacity(records.len());
        for record in records {
            match record.made {
                When::Now => last.clone_from(now),
                When::Then(secs) => {
                    latest = latest.max(Some(secs));
                    last = super::time(secs);
                }
                When::Never => {}
            }
            steps.push(last.clone());
        }
        let image = match latest {
            _ if all_now => now.clone(),
            Some(secs) => super::time(secs),
            None => last,
        };
        Dates { image, steps }
    }
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
