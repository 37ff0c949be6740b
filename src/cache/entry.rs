//! What stands under a key.

use super::{Key, Kind, Named, Part};
use crate::oci::{Descriptor, Digest, media};
use serde::{Deserialize, Serialize};

/// The most bytes an entry may have as JSON: 1 MiB.
pub const MAX_ENTRY: usize = 1 << 20;

/// The media types that a layer of ours may have.
const LAYERS: [&str; 4] = [
    media::OCI_LAYER_GZIP,
    media::OCI_LAYER_ZSTD,
    media::DOCKER_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The keys it stands under.
    pub keys: Vec<Key>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// The instruction, with nothing secret in it.
    pub step: String,
    /// What its first key is made of.
    pub parts: Vec<Part>,
    /// What names the files that the step really stood on; none for a linked COPY, which stands on
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Key>,
    /// The layer; none where the step changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
}

/// A layer that a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The compressed blob.
    pub blob: Descriptor,
    /// The digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub raw: u64,
    /// Number of entries.
    pub entries: u64,
    /// The compressed table of contents.
    pub toc: Descriptor,
}

/// The table of contents of a layer, by chain ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// The layer and all below it.
    pub chain_id: Digest,
    /// The compressed table.
    pub toc: Descriptor,
}

/// The tables of an image's layers, bottom first.
pub type Tables = Vec<Table>;

impl Entry {
    /// Gives it as JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads it for a key; says why it cannot be used otherwise.
    pub fn parse(bytes: &[u8], key: &Key) -> Result<Entry, String> {
        if bytes.len() > MAX_ENTRY {
            return Err(format!("it has {} bytes", bytes.len()));
        }
        let entry: Entry = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let known = |blob: &Descriptor| LAYERS.contains(&blob.media_type.as_str());
        if entry
            .layer
            .as_ref()
            .is_some_and(|layer| !known(&layer.blob))
        {
            return Err("its layer is of no media type that a layer has".into());
        }
        match entry.keys.contains(key) {
            true => Ok(entry),
            false => Err("it is an entry of another key".into()),
        }
    }

    /// Gives it as it stands in a place.
    pub fn named(&self) -> Named {
        Named {
            kind: Kind::Step,
            text: String::from_utf8(self.to_bytes()).unwrap_or_default(),
            blobs: match &self.layer {
                Some(layer) => vec![layer.toc.clone(), layer.blob.clone()],
                None => Vec::new(),
            },
        }
    }

    /// Reads it off what stands in a place; says why it cannot be used otherwise.
    pub fn read(named: &Named, key: &Key) -> Result<Entry, String> {
        let entry = Entry::parse(named.text.as_bytes(), key)?;
        // What is not named the place does not keep.
        match entry.named().blobs == named.blobs {
            true => Ok(entry),
            false => Err("its blobs are not those that it speaks of".into()),
        }
    }

    /// Tells whether it is as old as that, in seconds. One from the future is not.
    pub fn is_stale(&self, now: i64, seconds: u64) -> bool {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        now.saturating_sub(self.created) >= seconds
    }
}

/// Gives tables as they stand in a place.
pub fn tables_named(tables: &Tables) -> Named {
    Named {
        kind: Kind::Tables,
        text: serde_json::to_string(tables).unwrap_or_default(),
        blobs: tables.iter().map(|table| table.toc.clone()).collect(),
    }
}

/// Reads tables off what stands in a place; says why they cannot be used otherwise.
pub fn read_tables(named: &Named) -> Result<Tables, String> {
    let tables: Tables = serde_json::from_str(&named.text).map_err(|e| e.to_string())?;
    match tables_named(&tables).blobs == named.blobs {
        true => Ok(tables),
        false => Err("its blobs are not those that it speaks of".into()),
    }
}
