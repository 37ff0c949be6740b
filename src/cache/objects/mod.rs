//! Entries in an object store: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! ```text
//! PREFIX/
//!   blobs/sha256/HEX   a layer's blob, or a compressed table of contents, by its SHA-256
//!   steps/KEY.json     {"entry": what a step made, "blobs": descriptors}
//!   tables/KEY.json    the same of the tables of an image's layers
//!   mounts/KEY.json    and of a cache of commands
//! ```
//!
//! An entry goes up after its blobs, so one that is found had all of them; the store may expire any
//! object at any time, and what is gone costs a rebuild. A blob is asked for before it goes up, in
//! parts where it is large, of which a few are in memory at a time. Every object is put whole or not
//! at all: that is what object stores do.
//!
//! Credentials are those of the settings, else those of the machine (web identities, instance and pod
//! metadata). Profiles in files of command line tools are not read.

mod carrier;
mod settings;

use super::{Error, File, Key, Kind, Named, Place};
use crate::net::{Client, Error as NetError};
use crate::oci::{Descriptor, MAX_MANIFEST, Reference};
use crate::progress::Span;
use crate::request::{ObjectStore as Wanted, RegistryOptions};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// What goes up in one request, and the least size of the parts of what does not.
const PART: u64 = 8 << 20;
/// How many parts an object may have.
const PARTS: u64 = 9_000;
/// How many parts of an object are under way at a time.
const AT_ONCE: usize = 3;
/// How many pieces of a body are read ahead.
const AHEAD: usize = 8;

/// A part of an object store.
pub struct InObjects {
    reader: Side,
    writer: Side,
    name: String,
    prefix: String,
    /// Blobs that are there, as was seen.
    there: Mutex<HashSet<crate::oci::Digest>>,
}

/// The store, and what its requests go over.
struct Side {
    client: Client,
    store: Arc<dyn ObjectStore>,
}

/// What an object other than a blob has in it.
#[derive(Serialize, Deserialize)]
struct Object {
    entry: Box<RawValue>,
    blobs: Vec<Descriptor>,
}

impl InObjects {
    /// Takes a store. Nothing is asked of it yet, but the files with its credentials are read.
    /// `reader` gives up soon, `writer` has more time.
    pub fn new(
        wanted: &Wanted,
        registry: &RegistryOptions,
        reader: Client,
        writer: Client,
    ) -> Result<InObjects, Error> {
        let side = |client: Client| -> Result<Side, Error> {
            let store = settings::store(wanted, registry, &client);
            let store = store.map_err(|e| Error::Objects {
                name: wanted.text.clone(),
                action: "set it up",
                why: why(&e),
            })?;
            Ok(Side { client, store })
        };
        Ok(InObjects {
            reader: side(reader)?,
            writer: side(writer)?,
            name: wanted.text.clone(),
            prefix: wanted.prefix.clone(),
            there: Mutex::default(),
        })
    }

    fn at(&self, rest: &str) -> Name {
        let prefix = self.prefix.trim_matches('/');
        match prefix.is_empty() {
            true => Name::from(rest),
            false => Name::from(format!("{prefix}/{rest}")),
        }
    }

    fn blob_at(&self, blob: &Descriptor) -> Name {
        self.at(&format!("blobs/sha256/{}", blob.digest.hex()))
    }

    fn failed(&self, action: &'static str, error: &object_store::Error) -> Error {
        Error::Objects {
            name: self.name.clone(),
            action,
            why: why(error),
        }
    }

    fn poisoned(&self, at: &Name, why: impl Into<String>) -> Error {
        Error::Poisoned {
            what: format!("{at} of {}", self.name),
            why: why.into(),
        }
    }

    /// Waits for something; what ends it besides itself is the build's end.
    fn wait<T>(
        &self,
        side: &Side,
        action: &'static str,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        match side.client.wait(work) {
            Ok(done) => done.map_err(|e| self.failed(action, &e)),
            Err(NetError::Cancelled) => Err(Error::Cancelled),
            Err(error) => Err(Error::Objects {
                name: self.name.clone(),
                action,
                why: error.to_string(),
            }),
        }
    }

    /// Reads a small object.
    fn small(&self, at: &Name) -> Result<Option<Vec<u8>>, Error> {
        let Side { client: _, store } = &self.reader;
        let read = async {
            let mut pieces = match store.get(at).await {
                Ok(found) => found.into_stream(),
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut bytes = Vec::new();
            // One byte more tells of one that is too large.
            while let Some(piece) = pieces.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() as u64 > MAX_MANIFEST {
                    break;
                }
            }
            Ok(Some(bytes))
        };
        self.wait(&self.reader, "read", read)
    }

    /// Sees to it that a blob is there.
    fn put_blob(&self, blob: &Descriptor, file: File<'_>, span: &Span) -> Result<(), Error> {
        let there = || self.there.lock().unwrap_or_else(PoisonError::into_inner);
        if there().contains(&blob.digest) {
            return Ok(());
        }
        let at = self.blob_at(blob);
        let head = async {
            match self.writer.store.head(&at).await {
                Ok(meta) => Ok(meta.size == blob.size),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        if self.wait(&self.writer, "look for a blob", head)? {
            span.advance(blob.size);
        } else {
            let path = file(blob).map_err(|source| Error::Io {
                action: "take a blob of",
                path: blob.digest.to_string().into(),
                source,
            })?;
            self.send(&at, &path, blob.size, span)?;
        }
        there().insert(blob.digest);
        Ok(())
    }

    /// Sends a file.
    fn send(&self, at: &Name, path: &Path, size: u64, span: &Span) -> Result<(), Error> {
        let failed = |source| Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let mut left = size;
        let part = PART.max(size.div_ceil(PARTS).next_multiple_of(1 << 20));
        let mut next = || -> Result<Bytes, Error> {
            let wanted = left.min(part);
            let mut piece = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
            (&mut file)
                .take(wanted)
                .read_to_end(&mut piece)
                .map_err(failed)?;
            if piece.len() as u64 != wanted {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= wanted;
            Ok(piece.into())
        };
        let Side { client: _, store } = &self.writer;
        if size <= part {
            let payload = PutPayload::from(next()?);
            self.wait(&self.writer, "write a blob", store.put(at, payload))?;
            span.advance(size);
            return Ok(());
        }
        let upload = store.put_multipart(at);
        let upload = self.wait(&self.writer, "write a blob", upload)?;
        let chunk = usize::try_from(part).unwrap_or(usize::MAX);
        let mut upload = WriteMultipart::new_with_chunk_size(upload, chunk);
        let mut sent = 0;
        let fed = loop {
            if sent == size {
                break Ok(());
            }
            let piece = match next() {
                Ok(piece) => piece,
                Err(error) => break Err(error),
            };
            let length = piece.len() as u64;
            let give = async {
                upload.wait_for_capacity(AT_ONCE - 1).await?;
                upload.put(piece);
                Ok(())
            };
            if let Err(error) = self.wait(&self.writer, "write a blob", give) {
                break Err(error);
            }
            sent += length;
            span.advance(length);
        };
        match fed {
            Ok(()) => self
                .wait(&self.writer, "write a blob", upload.finish())
                .map(drop),
            Err(error) => {
                // What stays is not the object, and the store's own rules expire it.
                let _ = self.writer.client.wait(upload.abort());
                Err(error)
            }
        }
    }

    fn put_small(&self, at: &Name, bytes: Vec<u8>) -> Result<(), Error> {
        let put = self.writer.store.put(at, PutPayload::from(bytes));
        self.wait(&self.writer, "write an entry", put).map(drop)
    }

    fn named_at(&self, kind: Kind, key: &Key) -> Name {
        let dir = match kind {
            Kind::Step => "steps",
            Kind::Tables => "tables",
            Kind::Mount => "mounts",
        };
        self.at(&format!("{dir}/{key}.json"))
    }
}

impl Place for InObjects {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn find(&self, kind: Kind, key: &Key) -> Result<Option<Named>, Error> {
        let at = self.named_at(kind, key);
        let Some(bytes) = self.small(&at)? else {
            return Ok(None);
        };
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(self.poisoned(&at, "it is too large"));
        }
        let object: Object =
            serde_json::from_slice(&bytes).map_err(|e| self.poisoned(&at, e.to_string()))?;
        Ok(Some(Named {
            kind,
            text: object.entry.get().to_owned(),
            blobs: object.blobs,
        }))
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let Side { client, store } = &self.reader;
        let at = self.blob_at(blob);
        let get = async {
            match store.get(&at).await {
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                other => other.map(Some),
            }
        };
        let found = self.wait(&self.reader, "read a blob", get)?;
        let found = found.ok_or_else(|| self.poisoned(&at, "it is no longer there"))?;
        if found.meta.size != blob.size {
            let why = format!(
                "it has {} bytes, its entry says {}",
                found.meta.size, blob.size
            );
            return Err(self.poisoned(&at, why));
        }
        let (give, pieces) = mpsc::channel(AHEAD);
        let mut body = found.into_stream();
        client.start(async move {
            while let Some(piece) = body.next().await {
                let last = piece.is_err();
                if give.send(piece).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Box::new(Body {
            _client: client.clone(),
            name: self.name.clone(),
            pieces,
            current: Bytes::new(),
        }))
    }

    fn put(
        &self,
        keys: &[Key],
        named: &Named,
        file: File<'_>,
        _: Option<&Reference>,
        span: &Span,
    ) -> Result<(), Error> {
        for blob in &named.blobs {
            self.put_blob(blob, file, span)?;
        }
        let bytes = RawValue::from_string(named.text.clone()).and_then(|entry| {
            serde_json::to_vec(&Object {
                entry,
                blobs: named.blobs.clone(),
            })
        });
        let bytes = bytes.map_err(|e| Error::Objects {
            name: self.name.clone(),
            action: "write an entry",
            why: e.to_string(),
        })?;
        for key in keys {
            self.put_small(&self.named_at(named.kind, key), bytes.clone())?;
        }
        Ok(())
    }
}

/// A blob as it comes.
struct Body {
    /// What it comes over goes with the last client.
    _client: Client,
    name: String,
    pieces: mpsc::Receiver<object_store::Result<Bytes>>,
    current: Bytes,
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => {
                    return Err(io::Error::other(Error::Objects {
                        name: self.name.clone(),
                        action: "read a blob",
                        why: why(&error),
                    }));
                }
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

/// The most characters of what a server says.
const SAID: usize = 300;

/// Says what is at the bottom of an error: what is above it repeats it, and names what the user did
/// not. Of an answer in XML, as these stores give them, the message is taken.
fn why(error: &object_store::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(below) = at.source() {
        at = below;
    }
    let text = at.to_string();
    let inner = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
    };
    let head = text.split(['<', '{']).next().unwrap_or_default();
    let said = match (inner("Code"), inner("Message")) {
        (Some(code), Some(message)) => format!("{head}{code}: {message}"),
        (Some(code), None) => format!("{head}{code}"),
        (None, _) => text,
    };
    let words: Vec<&str> = said.split_whitespace().collect();
    let said = words.join(" ");
    let said = said.trim_end_matches([':', ' ']);
    match said.char_indices().nth(SAID) {
        Some((end, _)) => format!("{}...", &said[..end]),
        None => said.to_owned(),
    }
}
