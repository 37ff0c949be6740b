//! OCI distribution: credentials, pull, push.
//!
//! [`Registry`] is one client for one build. Per registry and direction it finds out once where the
//! registry listens and what it wants to be shown, keeps tokens until they expire, and answers
//! temporary errors with further attempts. What the specification leaves open and what registries
//! do differently is noted where it is handled.

mod challenge;
mod credentials;
mod error;
mod helper;
mod host;
mod pull;
mod push;

pub use error::{Error, Refused};
pub use pull::choose;

use crate::net::{Client, Settings, SystemRoots};
use crate::oci::{Descriptor, Digest, Document, Platform, Reference};
use crate::progress::Span;
use crate::request::RegistryOptions;
use crate::store::{Blobs, Store};
use crate::sys::Cancel;
use credentials::Credentials;
use host::{Host, lock};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// Talks to registries for one build; shared by threads. Clones are the same client.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

/// Whether flags for pulling or for pushing hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    Pull,
    Push,
}

/// A blob that is being pushed; locked meanwhile, true once it is there.
type Flight = Arc<Mutex<bool>>;

struct Inner {
    client: Client,
    credentials: Credentials,
    push_retry: u32,
    options: RegistryOptions,
    hosts: Mutex<HashMap<(String, Direction), Arc<Host>>>,
    /// By `registry/repository`.
    flights: Mutex<HashMap<String, HashMap<Digest, Flight>>>,
    /// The store that other builds may share, by which they take turns.
    store: OnceLock<Arc<Store>>,
    cancel: Cancel,
    /// Repositories that were found to accept a push.
    checked: Mutex<HashSet<String>>,
}

/// A manifest as it was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Media type, digest and size of the bytes.
    pub descriptor: Descriptor,
    /// The bytes as they came.
    pub bytes: Vec<u8>,
    /// What they say.
    pub document: Document,
}

/// How a blob got to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// It was mounted from another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Inner {
    fn host(&self, registry: &str, direction: Direction) -> Result<Arc<Host>, Error> {
        let mut hosts = lock(&self.hosts);
        let key = (registry.to_owned(), direction);
        if let Some(host) = hosts.get(&key) {
            return Ok(host.clone());
        }
        let host = Arc::new(Host::new(registry, direction, &self.options)?);
        hosts.insert(key, host.clone());
        Ok(host)
    }

    fn flight(&self, image: &Reference, digest: &Digest) -> Flight {
        let mut flights = lock(&self.flights);
        let of_repository = flights.entry(image.name()).or_default();
        of_repository.entry(*digest).or_default().clone()
    }

    fn forget_flights(&self, image: &Reference) {
        lock(&self.flights).remove(&image.name());
    }
}

impl Registry {
    /// Makes a client; nothing is sent yet, and neither credentials nor certificates are read.
    pub fn new(options: RegistryOptions, cancel: Cancel) -> Result<Registry, Error> {
        Registry::with_settings(options, Settings::default(), cancel)
    }

    /// Makes a client with other time limits and retries than usual; the proxies and the system's
    /// authorities are those of the options.
    pub fn with_settings(
        options: RegistryOptions,
        settings: Settings,
        cancel: Cancel,
    ) -> Result<Registry, Error> {
        let settings = Settings {
            proxies: options.proxies.clone(),
            system_roots: SystemRoots {
                file: options.certificate_file.clone(),
                dirs: options.certificate_dirs.clone(),
            },
            ..settings
        };
        let client =
            Client::new(settings, cancel.clone()).map_err(|e| Error::Setup(Box::new(e)))?;
        let credentials = Credentials::new(
            options.auth_inline.clone(),
            options.auth_files.clone(),
            cancel.clone(),
        );
        Ok(Registry::of(client, credentials, options, cancel))
    }

    /// Makes the same client again for another switch. Certificates and credentials that have been
    /// read are not read again; what registries were found to have is looked for again.
    pub fn again(&self, cancel: Cancel) -> Result<Registry, Error> {
        let client = self.0.client.again(cancel.clone());
        let client = client.map_err(|e| Error::Setup(Box::new(e)))?;
        let credentials = self.0.credentials.again(cancel.clone());
        let again = Registry::of(client, credentials, self.0.options.clone(), cancel);
        if let Some(store) = self.0.store.get() {
            again.share(store);
        }
        Ok(again)
    }

    fn of(
        client: Client,
        credentials: Credentials,
        options: RegistryOptions,
        cancel: Cancel,
    ) -> Registry {
        Registry(Arc::new(Inner {
            client,
            credentials,
            push_retry: options.push_retry,
            options,
            hosts: Mutex::default(),
            flights: Mutex::default(),
            store: OnceLock::new(),
            cancel,
            checked: Mutex::default(),
        }))
    }

    /// Takes turns with other builds that share the store: of all that want to send the same blob to a
    /// registry at the same time, one does, and the others have it from there.
    pub fn share(&self, store: &Arc<Store>) {
        // Once is enough.
        let _ = self.0.store.set(Arc::clone(store));
    }

    /// Reads now what else is read, and asks those now who else are asked, when it is first wanted: the
    /// system's authorities, and the credentials for these images' repositories. For a build that
    /// replaces the files that it runs among.
    pub fn read_ahead(&self, images: &[Reference]) -> Result<(), Error> {
        let inner = &self.0;
        inner.client.read_authorities();
        for image in images {
            inner.credentials.of(&image.registry, &image.repository)?;
        }
        Ok(())
    }

    /// Gives the client beneath, for what is no registry: it has the same proxies and authorities.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Fetches a manifest, following an index to the platform.
    ///
    /// The bytes are hashed and compared with the digest of the reference or of the index, or else
    /// with the one the registry names. An image that is not in an index is given whatever its
    /// platform is, which only its config says.
    pub fn pull_manifest(&self, image: &Reference, platform: &Platform) -> Result<Fetched, Error> {
        let mut chain = pull::manifests(&self.0, image, platform)?;
        chain.pop().ok_or_else(|| {
            Error::content(&format!("pull manifest {image}"), "there is no manifest")
        })
    }

    /// Does what `pull_manifest` does and gives the indexes on the way too, the first one first; the
    /// manifest is the last.
    pub fn pull_manifests(
        &self,
        image: &Reference,
        platform: &Platform,
    ) -> Result<Vec<Fetched>, Error> {
        pull::manifests(&self.0, image, platform)
    }

    /// Asks what an image's name stands for, without fetching it; `None` where the registry does not
    /// say.
    pub fn digest(&self, image: &Reference) -> Result<Option<Digest>, Error> {
        pull::digest(&self.0, image)
    }

    /// Fetches a small blob whole and verifies it; the bound is that of manifests.
    pub fn pull_small(&self, image: &Reference, blob: &Descriptor) -> Result<Vec<u8>, Error> {
        pull::small(&self.0, image, blob)
    }

    /// Opens a blob as a stream that resumes by itself after a temporary failure.
    ///
    /// The stream gives exactly the descriptor's size in bytes or ends in an error, an
    /// [`io::Error`] around an [`Error`]. It does not verify the digest.
    pub fn pull_blob(
        &self,
        image: &Reference,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(pull::BlobReader::open(&self.0, image, blob)?))
    }

    /// Checks that the credentials may push to a repository (starts an upload and takes it back).
    pub fn check_push(&self, image: &Reference) -> Result<(), Error> {
        push::check(&self.0, image)
    }

    /// Sees to it that a repository has a blob: asks, mounts from `from` where that is a repository
    /// of the same registry, else uploads the file. One upload per repository and digest, however
    /// many ask; the others wait and hear that it existed.
    ///
    /// The span gets the blob's size in all, sent or not. A cancelled upload is taken back.
    pub fn push_blob(
        &self,
        image: &Reference,
        blob: &Descriptor,
        file: &Path,
        from: Option<&Reference>,
        span: &Span,
    ) -> Result<Pushed, Error> {
        self.push_blob_from(image, blob, &|| Ok(file.to_owned()), from, span)
    }

    /// Does what `push_blob` does with a file that is asked for only where bytes must be sent, and
    /// may be long in coming.
    pub fn push_blob_from(
        &self,
        image: &Reference,
        blob: &Descriptor,
        file: &dyn Fn() -> io::Result<PathBuf>,
        from: Option<&Reference>,
        span: &Span,
    ) -> Result<Pushed, Error> {
        push::blob(&self.0, image, blob, file, from, span)
    }

    /// Puts a manifest under the reference's tag (or its digest where there is no tag).
    pub fn push_manifest(
        &self,
        image: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        push::manifest(&self.0, image, media_type, bytes)
    }
}

/// The blobs of one image in a registry.
pub struct ImageBlobs<'a> {
    /// The registry.
    pub registry: &'a Registry,
    /// The image.
    pub image: Reference,
}

impl Blobs for ImageBlobs<'_> {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        self.registry
            .pull_blob(&self.image, blob)
            .map_err(io::Error::other)
    }
}
