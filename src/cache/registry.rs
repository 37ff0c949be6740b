//! Entries as artifacts of an OCI registry.
//!
//! ```text
//! REPOSITORY:KEY  manifest (OCI image manifest)
//!   annotations   dev.shutter.step: the entry as JSON
//!   config        the table of contents, compressed with zstd
//!   layers        the layer's blob
//! ```
//!
//! So one request says all of an entry, the registry keeps what belongs to it and may expire it like
//! any other tag. A step that changed nothing has the empty blob `{}` for both. The tables of an
//! image's layers stand under a key too, as the layers of a manifest with
//! `dev.shutter.tables`.

use super::{Entry, Error, File, Key, Place, Tables};
use crate::oci::{Descriptor, Digest, Document, Format, Manifest, Platform, Reference};
use crate::progress::Span;
use crate::registry::Registry;
use std::collections::BTreeMap;
use std::io::Read;

/// The annotation that an entry is in.
const STEP: &str = "dev.shutter.step";
/// The annotation that tables are in.
const TABLES: &str = "dev.shutter.tables";
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
    /// How old an entry may be, in seconds.
    pub ttl: u64,
    /// The time, in seconds since 1970.
    pub now: i64,
}

impl InRegistry {
    fn at(&self, key: &Key) -> Reference {
        Reference {
            tag: Some(key.hex()),
            digest: None,
            ..self.repository.clone()
        }
    }

    fn manifest(&self, key: &Key) -> Result<Option<Manifest>, Error> {
        match self.reader.pull_manifest(&self.at(key), &Platform::host()) {
            Ok(fetched) => match fetched.document {
                Document::Manifest(manifest) => Ok(Some(manifest)),
                Document::Index(_) => Err(self.poisoned(key, "it is an index")),
            },
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(crate::registry::Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => Err(error.into()),
        }
    }

    fn poisoned(&self, key: &Key, why: impl Into<String>) -> Error {
        Error::Poisoned {
            what: self.at(key).to_string(),
            why: why.into(),
        }
    }

    /// Puts a manifest under keys, after its blobs.
    fn push(
        &self,
        keys: &[Key],
        manifest: &Manifest,
        file: File<'_>,
        from: Option<&Reference>,
        span: &Span,
    ) -> Result<(), Error> {
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
            self.writer
                .push_manifest(&self.at(key), manifest.media_type(), &bytes)?;
        }
        Ok(())
    }
}

impl Place for InRegistry {
    fn name(&self) -> String {
        self.repository.name()
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(manifest) = self.manifest(key)? else {
            return Ok(None);
        };
        let entry = entry_of(&manifest, key).map_err(|why| self.poisoned(key, why))?;
        Ok((!entry.is_stale(self.now, self.ttl)).then_some(entry))
    }

    fn tables(&self, key: &Key) -> Result<Option<Tables>, Error> {
        let Some(manifest) = self.manifest(key)? else {
            return Ok(None);
        };
        let tables = tables_of(&manifest).map_err(|why| self.poisoned(key, why))?;
        Ok(Some(tables))
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        Ok(self.reader.pull_blob(&self.repository, blob)?)
    }

    fn put(
        &self,
        entry: &Entry,
        file: File<'_>,
        from: Option<&Reference>,
        span: &Span,
    ) -> Result<(), Error> {
        self.push(&entry.keys, &manifest_of(entry), file, from, span)
    }

    fn put_tables(
        &self,
        key: &Key,
        tables: &Tables,
        file: File<'_>,
        span: &Span,
    ) -> Result<(), Error> {
        self.push(&[*key], &manifest_of_tables(tables), file, None, span)
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.repository)
    }
}

/// Gives the empty blob.
pub(super) fn empty() -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.empty.v1+json".into(),
        digest: Digest::of(EMPTY),
        size: EMPTY.len() as u64,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

/// Gives an entry as a manifest.
pub(super) fn manifest_of(entry: &Entry) -> Manifest {
    let json = String::from_utf8(entry.to_bytes()).unwrap_or_default();
    let (config, layer) = match &entry.layer {
        Some(layer) => (layer.toc.clone(), layer.blob.clone()),
        None => (empty(), empty()),
    };
    Manifest {
        format: Format::Oci,
        config,
        layers: vec![layer],
        annotations: BTreeMap::from([(STEP.to_owned(), json)]),
    }
}

/// Reads an entry off a manifest; says why it is none.
pub(super) fn entry_of(manifest: &Manifest, key: &Key) -> Result<Entry, String> {
    let json = manifest.annotations.get(STEP);
    let json = json.ok_or_else(|| format!("it has no annotation {STEP}"))?;
    let entry = Entry::parse(json.as_bytes(), key)?;
    // What the manifest does not name the registry does not keep.
    match *manifest == manifest_of(&entry) {
        true => Ok(entry),
        false => Err("its blobs are not those that it speaks of".into()),
    }
}

/// Gives tables as a manifest.
pub(super) fn manifest_of_tables(tables: &Tables) -> Manifest {
    let json = serde_json::to_string(tables).unwrap_or_default();
    Manifest {
        format: Format::Oci,
        config: empty(),
        layers: tables.iter().map(|table| table.toc.clone()).collect(),
        annotations: BTreeMap::from([(TABLES.to_owned(), json)]),
    }
}

/// Reads tables off a manifest; says why they are none.
pub(super) fn tables_of(manifest: &Manifest) -> Result<Tables, String> {
    let json = manifest.annotations.get(TABLES);
    let json = json.ok_or_else(|| format!("it has no annotation {TABLES}"))?;
    let tables: Tables = serde_json::from_str(json).map_err(|e| e.to_string())?;
    match *manifest == manifest_of_tables(&tables) {
        true => Ok(tables),
        false => Err("its blobs are not those that it speaks of".into()),
    }
}
