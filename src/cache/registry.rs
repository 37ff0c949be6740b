//! Entries as artifacts of an OCI registry.
//!
//! ```text
//! REPOSITORY:NAME  manifest (OCI image manifest)
//!   annotations    dev.shutter.step, dev.shutter.tables or dev.shutter.mount: the JSON
//!   config         the first blob: of a step its table of contents, compressed with zstd
//!   layers         the others: of a step its layer
//! ```
//!
//! So one request says all of an entry, the registry keeps what belongs to it and may expire it like
//! any other tag. Where there is no blob for config or layers the empty one, `{}`, stands. NAME is a key
//! in hexadecimal digits, with `mount-` before that of a cache of commands.

use super::{Error, File, Key, Kind, Named, Place};
use crate::oci::{Descriptor, Digest, Document, Format, Manifest, Platform, Reference};
use crate::progress::Span;
use crate::registry::Registry;
use std::collections::BTreeMap;
use std::io::Read;

/// The bytes of what stands where there is nothing.
pub const EMPTY: &[u8] = b"{}";

/// A repository of a registry.
pub struct InRegistry {
    /// The client that asks: it gives up soon.
    pub reader: Registry,
    /// The client that writes.
    pub writer: Registry,
    /// The repository; its tag does not matter.
    pub repository: Reference,
}

impl InRegistry {
    fn at(&self, kind: Kind, key: &Key) -> Reference {
        Reference {
            tag: Some(kind.name(key)),
            digest: None,
            ..self.repository.clone()
        }
    }
}

impl Place for InRegistry {
    fn name(&self) -> String {
        self.repository.name()
    }

    fn find(&self, kind: Kind, key: &Key) -> Result<Option<Named>, Error> {
        let at = self.at(kind, key);
        let poisoned = |why: String| Error::Poisoned {
            what: at.to_string(),
            why,
        };
        match self.reader.pull_manifest(&at, &Platform::host()) {
            Ok(fetched) => match fetched.document {
                Document::Manifest(manifest) => read(&manifest, kind).map(Some).map_err(poisoned),
                Document::Index(_) => Err(poisoned("it is an index".into())),
            },
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(crate::registry::Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        Ok(self.reader.pull_blob(&self.repository, blob)?)
    }

    fn put(
        &self,
        keys: &[Key],
        named: &Named,
        file: File<'_>,
        from: Option<&Reference>,
        span: &Span,
    ) -> Result<(), Error> {
        let manifest = manifest_of(named);
        let mut sent: Vec<Digest> = Vec::new();
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if sent.contains(&blob.digest) {
                continue;
            }
            sent.push(blob.digest);
            let at_hand = || file(blob);
            self.writer
                .push_blob_from(&self.repository, blob, &at_hand, from, span)?;
        }
        let bytes = manifest.to_bytes();
        for key in keys {
            let at = self.at(named.kind, key);
            self.writer
                .push_manifest(&at, manifest.media_type(), &bytes)?;
        }
        Ok(())
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.repository)
    }
}

/// Gives the empty blob.
fn empty() -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.empty.v1+json".into(),
        digest: Digest::of(EMPTY),
        size: EMPTY.len() as u64,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

/// Gives the annotation that the text is in.
fn annotation(kind: Kind) -> &'static str {
    match kind {
        Kind::Step => "dev.shutter.step",
        Kind::Tables => "dev.shutter.tables",
        Kind::Mount => "dev.shutter.mount",
    }
}

/// Gives what stands under a key as a manifest.
pub(super) fn manifest_of(named: &Named) -> Manifest {
    let mut blobs = named.blobs.iter().cloned();
    let config = blobs.next().unwrap_or_else(empty);
    let layers: Vec<Descriptor> = blobs.collect();
    Manifest {
        format: Format::Oci,
        config,
        layers: match layers.is_empty() {
            true => vec![empty()],
            false => layers,
        },
        annotations: BTreeMap::from([(annotation(named.kind).to_owned(), named.text.clone())]),
    }
}

/// Reads what stands under a key off a manifest; says why it is nothing of that kind.
pub(super) fn read(manifest: &Manifest, kind: Kind) -> Result<Named, String> {
    let annotation = annotation(kind);
    let text = manifest.annotations.get(annotation);
    let text = text.ok_or_else(|| format!("it has no annotation {annotation}"))?;
    let nothing = empty().digest;
    let blobs = [&manifest.config].into_iter().chain(&manifest.layers);
    Ok(Named {
        kind,
        text: text.clone(),
        blobs: blobs
            .filter(|blob| blob.digest != nothing)
            .cloned()
            .collect(),
    })
}
