//! Bases: from a name to manifest and config, and from those to unpacked layers.

use super::{Error, Room};
use crate::layer::{BaseLayer, Unpacked};
use crate::oci::{Descriptor, Digest, Document, Image, Manifest, Platform, Reference};
use crate::output::{LayoutImage, open_layout};
use crate::plan::Base;
use crate::progress::{Owner, Sink, Work};
use crate::registry::{self, ImageBlobs, Registry};
use crate::request::{Layout, NamedContext, Request};
use crate::store::{Blobs, Store};
use crate::sys::Cancel;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;

/// The most bytes an image's config may have.
const MAX_CONFIG: u64 = 8 << 20;

/// A base whose manifest and config are known; none of its layers need be here.
pub(super) struct Resolved {
    pub(super) manifest: Manifest,
    pub(super) image: Image,
    pub(super) layers: Vec<BaseLayer>,
    pub(super) place: Place,
}

/// Where a base's blobs are.
pub(super) enum Place {
    Registry(Reference),
    Layout(Box<LayoutImage>),
}

/// What a base is known by in one build: the same name for another platform is another base.
pub(super) type Key = (String, String);

/// Gives the key of a base; `None` for scratch and stages.
pub(super) fn key(base: &Base, platform: &Platform) -> Option<Key> {
    match base {
        Base::Scratch | Base::Stage(_) | Base::Files(_) => None,
        Base::Image(name) => Some((format!("image:{name}"), platform.to_string())),
        Base::Layout(name) => Some((format!("layout:{name}"), platform.to_string())),
    }
}

impl Resolved {
    /// Gives the image's reference where it is in a registry.
    pub(super) fn reference(&self) -> Option<&Reference> {
        match &self.place {
            Place::Registry(reference) => Some(reference),
            Place::Layout(_) => None,
        }
    }
}

/// Gives the image of an OCI layout for a check, which does without where it cannot be read.
pub(super) fn layout_image(layout: &Layout, platform: &Platform) -> Option<Image> {
    let image = open_layout(layout, platform).ok()?;
    serde_json::from_slice(&image.config).ok()
}

/// Names the image that could not be had, where the error names no more than its registry.
fn named(reference: &Reference, error: registry::Error) -> Error {
    let is_cancelled = matches!(error, registry::Error::Cancelled);
    match is_cancelled || error.to_string().contains(&reference.repository) {
        true => error.into(),
        false => Error::other(format!("resolve {reference}"), error),
    }
}

/// Asks for a base's manifest and config and checks that they fit each other.
pub(super) fn resolve(
    base: &Base,
    platform: &Platform,
    request: &Request,
    room: &Room,
    sink: &Sink,
) -> Result<Resolved, Error> {
    let (manifest, config, place, label) = match base {
        Base::Scratch | Base::Stage(_) | Base::Files(_) => {
            return Err(Error::other("resolve a base", "it is no image"));
        }
        Base::Layout(name) => {
            let Some(NamedContext::Layout(layout)) = request.contexts.get(name) else {
                return Err(Error::other(
                    format!("resolve {name}"),
                    "no such named context",
                ));
            };
            let image = open_layout(layout, platform)
                .map_err(|e| Error::other(format!("open the OCI layout `{name}`"), e))?;
            let (manifest, config) = (image.manifest.clone(), image.config.clone());
            (
                manifest,
                config,
                Place::Layout(Box::new(image)),
                name.clone(),
            )
        }
        Base::Image(name) => {
            let reference: Reference = name
                .parse()
                .map_err(|e| Error::other("resolve the base", e))?;
            let _span = sink.span(Owner::Build, Work::Resolve, &reference.to_string(), None);
            let kept = |e| Error::other(format!("resolve {reference}"), e);
            let found = match kept_image(&reference, platform, room)? {
                Some(found) => found,
                None => {
                    let found = pull(&reference, platform, &room.registry)?;
                    found.keep(&reference, &room.store).map_err(kept)?;
                    found
                }
            };
            let pinned = found.pinned(&reference);
            (
                found.manifest,
                found.config,
                Place::Registry(pinned),
                reference.to_string(),
            )
        }
    };
    known(manifest, config, place, &label)
}

/// An image as it was found.
pub(super) struct Found {
    /// The bytes of indexes and the manifest, the manifest's last.
    documents: Vec<Vec<u8>>,
    pub(super) manifest: Manifest,
    /// The manifest's digest.
    digest: Digest,
    pub(super) config: Vec<u8>,
}

impl Found {
    /// Gives what blobs are asked for by: the digest, whatever the tag points to by then.
    pub(super) fn pinned(&self, reference: &Reference) -> Reference {
        Reference {
            digest: Some(self.digest),
            ..reference.clone()
        }
    }

    /// Keeps what was found, so that a later build asks for no more than what a tag stands for. What
    /// names something comes after it.
    pub(super) fn keep(
        &self,
        reference: &Reference,
        store: &Store,
    ) -> Result<(), crate::store::Error> {
        store.put(&self.config)?;
        for document in self.documents.iter().rev() {
            store.put(document)?;
        }
        match (&reference.digest, self.documents.first()) {
            (None, Some(first)) => store.put_name(&reference.to_string(), &Digest::of(first)),
            _ => Ok(()),
        }
    }
}

/// Asks a registry for an image's manifest and config.
pub(super) fn pull(
    reference: &Reference,
    platform: &Platform,
    registry: &Registry,
) -> Result<Found, Error> {
    let chain = registry
        .pull_manifests(reference, platform)
        .map_err(|error| named(reference, error))?;
    let last = chain.last().map(|last| (&last.document, &last.descriptor));
    let Some((Document::Manifest(manifest), descriptor)) = last else {
        return Err(Error::other(
            format!("resolve {reference}"),
            "the registry gave an index for a manifest",
        ));
    };
    let config = registry.pull_small(reference, &manifest.config)?;
    Ok(Found {
        manifest: manifest.clone(),
        digest: descriptor.digest,
        config,
        documents: chain.into_iter().map(|fetched| fetched.bytes).collect(),
    })
}

/// Gives an image whose manifest and config the store has. For one that is named by a tag the registry
/// is asked what that stands for now.
pub(super) fn kept_image(
    reference: &Reference,
    platform: &Platform,
    room: &Room,
) -> Result<Option<Found>, Error> {
    let failed = |e| Error::other(format!("resolve {reference}"), e);
    let name = reference.to_string();
    let top = match reference.digest {
        Some(digest) => Some(digest),
        None => room.store.named(&name).map_err(failed)?,
    };
    let found = match top {
        Some(top) => in_store(top, platform, &room.store).map_err(failed)?,
        None => None,
    };
    if found.is_none() || reference.digest.is_some() {
        return Ok(found);
    }
    let now = room.registry.digest(reference);
    let now = now.map_err(|error| named(reference, error))?;
    Ok(found.filter(|_| now == top))
}

/// Follows indexes from a digest to the manifest for a platform.
fn in_store(
    top: Digest,
    platform: &Platform,
    store: &Store,
) -> Result<Option<Found>, crate::store::Error> {
    let mut documents = Vec::new();
    let mut digest = top;
    // No registry's index lies deeper.
    for _ in 0..4 {
        let Some(bytes) = store.small(&digest)? else {
            return Ok(None);
        };
        let document = Document::parse(&bytes, None);
        documents.push(bytes);
        match document {
            Ok(Document::Manifest(manifest)) => {
                let config = store.small(&manifest.config.digest)?;
                return Ok(config.map(|config| Found {
                    documents,
                    manifest,
                    digest,
                    config,
                }));
            }
            Ok(Document::Index(index)) => match registry::choose(&index, platform) {
                Ok(found) => digest = found.digest,
                // The registry's own answer names the image.
                Err(_) => return Ok(None),
            },
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// Checks that a manifest and a config fit each other.
pub(super) fn known(
    manifest: Manifest,
    config: Vec<u8>,
    place: Place,
    label: &str,
) -> Result<Resolved, Error> {
    if config.len() as u64 > MAX_CONFIG {
        return Err(Error::other(
            format!("read the config of {label}"),
            format!("it has {} bytes; the bound is {MAX_CONFIG}", config.len()),
        ));
    }
    let image: Image = serde_json::from_slice(&config)
        .map_err(|e| Error::other(format!("read the config of {label}"), e))?;
    let diff_ids = &image.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Error::other(
            format!("read the config of {label}"),
            format!(
                "it names {} layers and the manifest {}",
                diff_ids.len(),
                manifest.layers.len()
            ),
        ));
    }
    let layers = manifest
        .layers
        .iter()
        .zip(diff_ids)
        .zip(Image::chain_ids(diff_ids))
        .map(|((descriptor, diff_id), chain_id)| BaseLayer {
            descriptor: descriptor.clone(),
            diff_id: *diff_id,
            chain_id,
        })
        .collect();
    Ok(Resolved {
        manifest,
        image,
        layers,
        place,
    })
}

/// Has a base's layers unpacked in the store.
pub(super) fn unpack(
    base: &Resolved,
    registry: &Registry,
    store: &Store,
    owner: Owner,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Vec<Unpacked>, Error> {
    let name = match &base.place {
        Place::Registry(reference) => reference.to_string(),
        Place::Layout(layout) => layout.dir.display().to_string(),
    };
    crate::layer::unpack_all(
        &base.layers,
        &base.blobs(registry),
        store,
        sink,
        owner,
        cancel,
    )
    .map_err(|e| Error::other(format!("unpack {name}"), e))
}

enum EitherBlobs<'a> {
    Registry(ImageBlobs<'a>),
    Layout(&'a LayoutImage),
}

impl Blobs for EitherBlobs<'_> {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        match self {
            EitherBlobs::Registry(blobs) => blobs.open(blob),
            EitherBlobs::Layout(image) => image.open(blob),
        }
    }
}

impl Resolved {
    fn blobs<'a>(&'a self, registry: &'a Registry) -> EitherBlobs<'a> {
        match &self.place {
            Place::Registry(reference) => EitherBlobs::Registry(ImageBlobs {
                registry,
                image: reference.clone(),
            }),
            Place::Layout(layout) => EitherBlobs::Layout(layout),
        }
    }

    /// Gives a layer's blob as a file of the store, fetching it where it is not there.
    pub(super) fn blob_file(
        &self,
        layer: &Descriptor,
        registry: &Registry,
        store: &Store,
        fetches: &Fetches,
    ) -> Result<PathBuf, Error> {
        let action = || format!("fetch layer {}", layer.digest);
        let found = || {
            store
                .blob(&layer.digest, layer.size)
                .map_err(|e| Error::other(action(), e))
        };
        if let Some(file) = found()? {
            return Ok(file);
        }
        let turn = fetches.turn(layer.digest);
        let _turn = super::wait::lock(&turn);
        if let Some(file) = found()? {
            return Ok(file);
        }
        let fetch = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let mut reader = self
                .blobs(registry)
                .open(layer)?
                .take(layer.size.saturating_add(1));
            let mut ingest = store.ingest()?;
            io::copy(&mut reader, &mut ingest)?;
            ingest.commit(Some(&layer.digest))?;
            Ok(())
        };
        fetch().map_err(|e| Error::other(action(), e))?;
        found()?.ok_or_else(|| Error::other(action(), "it has not the size the manifest says"))
    }
}

/// One turn a digest, so that a blob is fetched once however many outputs want it.
#[derive(Default)]
pub(super) struct Fetches(Mutex<BTreeMap<Digest, std::sync::Arc<Mutex<()>>>>);

impl Fetches {
    fn turn(&self, digest: Digest) -> std::sync::Arc<Mutex<()>> {
        super::wait::lock(&self.0)
            .entry(digest)
            .or_default()
            .clone()
    }
}
