//! Filling a store with images, for builds to come.

use super::base::{self, Fetches, Place};
use super::wait::Gate;
use super::{DOWNLOADS, Error, Room, remote};
use crate::oci::{Platform, Reference};
use crate::plan::{self, Base};
use crate::progress::{Level, Owner, Sink, Work};
use crate::request::Request;
use crate::store::Bytes;
use crate::sys::Cancel;
use std::collections::BTreeMap;

/// What a store is filled with.
#[derive(Clone, Debug)]
pub struct Warm {
    /// Says where the store lies, what the images are for, how registries are talked to, and which
    /// Dockerfile and build arguments; nothing else of it counts.
    pub request: Request,
    /// Whether the images that the Dockerfile names are wanted.
    pub bases: bool,
    /// Further images.
    pub images: Vec<Reference>,
    /// What is done about what is there.
    pub again: Again,
    /// What is done with layers.
    pub layers: Layers,
}

/// What is done about blobs that are in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// They are taken for what they should be.
    Trust,
    /// They are read, and fetched again where they are not what they should be.
    Check,
}

/// What is done with layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Their blobs are kept.
    Keep,
    /// They are unpacked too.
    Unpack,
}

/// What became of it.
#[derive(Debug)]
pub struct Warmed {
    /// The images that are whole in the store.
    pub images: usize,
    /// The others, and why not.
    pub failed: Vec<Error>,
}

/// Fetches images into the store, all at the same time: the blobs of an image first and its name last,
/// so that a build finds it whole or not at all. One that cannot be had keeps no other from coming.
pub fn warm(warm: &Warm, sink: &Sink, cancel: &Cancel) -> Result<Warmed, Error> {
    let room = Room::open(&warm.request, sink, cancel)?;
    let mut wanted: BTreeMap<(String, String), (Reference, Platform)> = BTreeMap::new();
    let mut add = |reference: Reference, platform: &Platform| {
        let key = (reference.to_string(), platform.to_string());
        wanted.insert(key, (reference, platform.clone()));
    };
    for image in &warm.images {
        add(image.clone(), &warm.request.platform);
    }
    if warm.bases {
        for (reference, platform) in bases(&warm.request, &room, sink, cancel)? {
            add(reference, &platform);
        }
    }
    let (gate, fetches) = (Gate::new(DOWNLOADS), Fetches::default());
    let done = std::thread::scope(|scope| {
        let (room, gate, fetches) = (&room, &gate, &fetches);
        let threads: Vec<_> = wanted
            .values()
            .map(|(reference, platform)| {
                let one = One {
                    warm,
                    room,
                    gate,
                    fetches,
                    sink,
                    cancel,
                };
                scope.spawn(move || one.image(reference, platform))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            let joined = thread.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect::<Vec<_>>()
    });
    if cancel.is_set() {
        return Err(Error::Cancelled);
    }
    let failed: Vec<Error> = done.into_iter().filter_map(Result::err).collect();
    Ok(Warmed {
        images: wanted.len() - failed.len(),
        failed,
    })
}

/// Gives the images that a Dockerfile's stages name.
fn bases(
    request: &Request,
    room: &Room,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Vec<(Reference, Platform)>, Error> {
    let text = remote::begin(request, || Ok(room), sink, cancel)?.text;
    let dockerfile = crate::dockerfile::parse(&text)?;
    let plan = plan::graph_of_all(&dockerfile, request)?;
    let mut out = Vec::new();
    for stage in &plan.stages {
        let named = stage.names.iter();
        let named = named.map(|named| (&named.base, &request.platform));
        for (base, platform) in named.chain([(&stage.base, &stage.platform)]) {
            if let Base::Image(name) = base {
                let reference = name
                    .parse()
                    .map_err(|e| Error::other("resolve the base", e))?;
                out.push((reference, platform.clone()));
            }
        }
    }
    Ok(out)
}

/// What fetches one image.
#[derive(Clone, Copy)]
struct One<'a> {
    warm: &'a Warm,
    room: &'a Room,
    gate: &'a Gate,
    fetches: &'a Fetches,
    sink: &'a Sink,
    cancel: &'a Cancel,
}

impl One<'_> {
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<(), Error> {
        let Room {
            registry, store, ..
        } = self.room;
        let label = reference.to_string();
        let span = self.sink.span(Owner::Build, Work::Resolve, &label, None);
        let found = match base::kept_image(reference, platform, self.room)? {
            Some(found) => found,
            None => base::pull(reference, platform, registry)?,
        };
        drop(span);
        let (manifest, config) = (found.manifest.clone(), found.config.clone());
        let pinned = Place::Registry(found.pinned(reference));
        let image = base::known(manifest, config, pinned, &label)?;
        if self.warm.again == Again::Check {
            for layer in &image.manifest.layers {
                store
                    .check_blob(&layer.digest, layer.size, self.cancel)
                    .map_err(|e| Error::other(format!("check layer {}", layer.digest), e))?;
            }
        }
        if self.warm.layers == Layers::Unpack {
            base::unpack(
                &image,
                registry,
                store,
                Owner::Build,
                self.sink,
                self.cancel,
            )?;
        }
        let fetched: Vec<Result<(), Error>> = std::thread::scope(|scope| {
            let image = &image;
            let threads = image.manifest.layers.iter().map(|layer| {
                scope.spawn(move || {
                    let _pass = self.gate.enter();
                    if self.cancel.is_set() {
                        return Err(Error::Cancelled);
                    }
                    let there = store.blob(&layer.digest, layer.size);
                    if there.is_ok_and(|there| there.is_some()) {
                        return Ok(());
                    }
                    let (label, size) = (layer.digest.to_string(), Some(layer.size));
                    let _span = self.sink.span(Owner::Build, Work::Fetch, &label, size);
                    let file = image.blob_file(layer, registry, store, self.fetches);
                    file.map(|_| ())
                })
            });
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(|thread| {
                let joined = thread.join();
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        });
        fetched.into_iter().collect::<Result<(), Error>>()?;
        found
            .keep(reference, store)
            .map_err(|e| Error::other(format!("keep {reference}"), e))?;
        let layers = &image.manifest.layers;
        let bytes = layers.iter().map(|layer| layer.size).sum();
        let text = format!(
            "{label} is in the store: {} layers with {}",
            layers.len(),
            Bytes(bytes)
        );
        self.sink.message(Level::Info, text);
        Ok(())
    }
}
