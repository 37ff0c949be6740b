//! What stands under a key.

use super::{Key, Part};
use crate::oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

/// The most bytes an entry may have as JSON: 1 MiB.
pub const MAX_ENTRY: usize = 1 << 20;

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
        match entry.keys.contains(key) {
            true => Ok(entry),
            false => Err("it is an entry of another key".into()),
        }
    }

    /// Tells whether it is as old as that, in seconds. One from the future is not.
    pub fn is_stale(&self, now: i64, seconds: u64) -> bool {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        now.saturating_sub(self.created) >= seconds
    }
}
