//! A layer of the cache: known by its table of contents, unpacked only where a command or a copy reads
//! its files.

use super::super::wait::lock;
use super::super::{Error, Shared};
use super::places::{Caching, Hit};
use crate::cache;
use crate::fs::{Content, Kind, LayerView, Node, RelPath, Source, Toc, Tree};
use crate::layer::{Packed, Unpacked, unpack_step};
use crate::oci::Descriptor;
use crate::progress::Owner;
use crate::store::{Blobs, Store};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock};

/// A layer of the cache.
pub(in crate::build) struct Held {
    pub(in crate::build) hit: Hit,
    pub(in crate::build) layer: cache::Layer,
    /// Its table of contents, where a tree is made of it.
    toc: OnceLock<Toc>,
    files: OnceLock<Unpacked>,
    turn: Mutex<()>,
}

impl Held {
    /// Takes what was found; none where the step changed nothing.
    pub(in crate::build) fn new(hit: &Hit) -> Option<Arc<Held>> {
        Some(Arc::new(Held {
            hit: hit.clone(),
            layer: hit.entry.layer.clone()?,
            toc: OnceLock::new(),
            files: OnceLock::new(),
            turn: Mutex::default(),
        }))
    }

    /// Gives the layer as a record of the image.
    pub(in crate::build) fn packed(&self) -> Packed {
        Packed {
            descriptor: self.layer.blob.clone(),
            diff_id: self.layer.diff_id,
            raw: self.layer.raw,
            entries: self.layer.entries,
        }
    }

    /// Finds its table of contents; says why where it cannot be had.
    pub(in crate::build) fn find_toc(
        &self,
        caching: &Caching,
        store: &Store,
    ) -> Result<(), super::super::BoxError> {
        if self.toc.get().is_none() {
            // It is the same one where somebody else was as far.
            let _ = self.toc.set(caching.toc(store, &self.hit)?);
        }
        Ok(())
    }

    /// Gives its table of contents, once that has been found.
    pub(in crate::build) fn toc(&self) -> Option<&Toc> {
        self.toc.get()
    }

    /// Gives it as a layer of a tree, whose content is there once it is unpacked; none where its table
    /// has not been found.
    pub(in crate::build) fn view(self: &Arc<Held>) -> Option<LayerView> {
        let held = Arc::clone(self);
        Some(LayerView {
            toc: self.toc()?.clone(),
            content: Content::Of(Arc::new(move |path| held.source(path))),
        })
    }

    fn source(&self, path: &RelPath) -> Option<Source> {
        match &self.files.get()?.view.content {
            Content::Dir(dir) => Some(Source::File {
                dir: Arc::clone(dir),
                path: path.clone(),
            }),
            Content::Each(_) | Content::Of(_) => None,
        }
    }

    /// Has it unpacked in the store. What cannot be had is not asked for again in this build.
    pub(in crate::build) fn unpack(
        &self,
        shared: &Shared<'_>,
        owner: Owner,
    ) -> Result<&Unpacked, Error> {
        let _turn = lock(&self.turn);
        if let Some(files) = self.files.get() {
            return Ok(files);
        }
        let Shared {
            store,
            sink,
            cancel,
            ..
        } = shared;
        let blobs = Far { held: self, shared };
        let cache::Layer { blob, diff_id, .. } = &self.layer;
        let unpacked = unpack_step(blob, diff_id, &blobs, store, sink, owner, cancel);
        let files = match unpacked {
            Ok(files) => files,
            // Nothing is wrong with the layer.
            Err(error @ (crate::layer::Error::Store(_) | crate::layer::Error::Cancelled)) => {
                return Err(Error::other("unpack a layer of the cache", error));
            }
            Err(error) => return Err(self.broken(shared, error.into())),
        };
        // What a place says of a layer is compared with what is in it.
        if let Some(said) = self.toc()
            && !said.iter().eq(files.view.toc.iter())
        {
            let why = "its table of contents says something else than it has in it";
            return Err(self.broken(shared, why.into()));
        }
        Ok(self.files.get_or_init(|| files))
    }

    /// Gives its blob as a file of the store.
    pub(in crate::build) fn blob_file(
        &self,
        shared: &Shared<'_>,
    ) -> Result<std::path::PathBuf, Error> {
        let blob = &self.layer.blob;
        let failed = |e: super::super::BoxError| self.broken(shared, e);
        let found = || shared.store.blob(&blob.digest, blob.size);
        if let Some(file) = found().map_err(|e| failed(e.into()))? {
            return Ok(file);
        }
        let _turn = lock(&self.turn);
        if let Some(file) = found().map_err(|e| failed(e.into()))? {
            return Ok(file);
        }
        let far = Far { held: self, shared };
        super::places::fetch(&shared.store, blob, &|blob| far.open(blob)).map_err(failed)?;
        found()
            .map_err(|e| failed(e.into()))?
            .ok_or_else(|| failed("it has not the size that it should have".into()))
    }

    /// Says that it cannot be had: the build is to go on without it.
    fn broken(&self, shared: &Shared<'_>, source: super::super::BoxError) -> Error {
        if let Some(caching) = shared.caching
            && !shared.cancel.is_set()
        {
            let why = crate::net::chain(&*source);
            caching.break_off(&shared.store, &self.hit, &why);
        }
        let action = format!("take layer {} from the cache", self.layer.blob.digest);
        Error::other(action, source)
    }
}

/// Tells whether nothing of a layer is seen in a tree, and the layers would show the same without it. It
/// may say no too often.
pub(in crate::build) fn is_hidden(tree: &Tree, at: usize) -> bool {
    let Some(layer) = tree.layers().get(at) else {
        return false;
    };
    let above = tree.layers().get(at + 1..).unwrap_or_default();
    let mut below = Tree::default();
    for layer in tree.layers().iter().take(at) {
        below.push(Arc::clone(layer));
    }
    let is_dir = |path: &RelPath| below.get(path).is_some_and(|it| it.meta.kind == Kind::Dir);
    layer.toc.iter().all(|entry| {
        let Node::Put { meta, .. } = entry.node else {
            return false;
        };
        // What it hides itself must not come to light.
        let over = match meta.kind {
            Kind::Dir => below.get(&entry.path).is_some() && !is_dir(&entry.path),
            _ => below.get(&entry.path).is_some(),
        };
        !over && is_covered(above, &entry.path, &is_dir)
    })
}

/// Tells whether the layers above take a path away, or have something else there. A whiteout counts in
/// a directory that there is without it: overlayfs shows it in one that only its own layer has.
fn is_covered(above: &[Arc<LayerView>], path: &RelPath, is_dir: &dyn Fn(&RelPath) -> bool) -> bool {
    let hides = |at: &RelPath, layer: &Arc<LayerView>| match layer.toc.get(at) {
        Some(Node::Delete) => at.parent().is_none_or(|parent| is_dir(&parent)),
        Some(Node::Put { meta, .. }) => at == path || meta.kind != Kind::Dir,
        Some(Node::Opaque(_)) => at == path,
        None => false,
    };
    let ancestors = path.ancestors().filter(|at| !at.is_root());
    let mut places = ancestors.chain([path.clone()]);
    places.any(|at| above.iter().any(|layer| hides(&at, layer)))
}

/// Where its blob is, besides the store.
struct Far<'a, 'env> {
    held: &'a Held,
    shared: &'a Shared<'env>,
}

impl Blobs for Far<'_, '_> {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let found = self
            .shared
            .caching
            .and_then(|caching| Some((caching, caching.far.get(self.held.hit.place?)?)));
        let (caching, place) = found
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the store has lost it"))?;
        caching.open(place, blob).map_err(io::Error::other)
    }
}
