//! Entries in an OCI layout on disk.
//!
//! ```text
//! DIR/
//!   oci-layout               {"imageLayoutVersion":"1.0.0"}
//!   index.json               one manifest a key: org.opencontainers.image.ref.name is its name
//!   blobs/sha256/HEX         manifests, layers' blobs, compressed tables of contents
//!   .shutter-PID-N           a file in the making, locked while it is
//! ```
//!
//! The manifests are those of a registry, so that `skopeo copy` brings entries from one to the other.
//! Many processes may write at once: a file is put in place by a rename, whole, blobs before the
//! manifest that names them and that before the index. The index is changed under the lock of the
//! directory, which ends with its holder. What a killed process left in the making is swept by a later
//! one.

use super::registry::{manifest_of, read};
use super::{Error, File as AtHand, Key, Kind, Named, Place};
use crate::oci::{Descriptor, Digest, Document, MAX_MANIFEST, Manifest, Reference, media};
use crate::progress::Span;
use crate::sys::Cancel;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What names of files in the making begin with.
const MAKING: &str = ".shutter-";
/// How long is waited before a lock that somebody holds is tried again.
const AGAIN: Duration = Duration::from_millis(5);
/// How long is waited for the lock in all. Who has it rewrites one file.
const PATIENCE: Duration = Duration::from_secs(10);
/// How old a file in the making is at least that is swept: a new one may not be locked yet.
const OLD: Duration = Duration::from_secs(60);
/// The most bytes of an index: 256 MiB, some 800,000 entries.
const MAX_INDEX: u64 = 256 << 20;

/// An OCI layout.
pub struct InLayout {
    /// The directory.
    pub dir: PathBuf,
    /// Ends waits.
    pub cancel: Cancel,
    /// The index as it was last read.
    pub read: IndexRead,
}

/// An index that has been read, and what tells whether it is still the same.
#[derive(Default)]
pub struct IndexRead(Mutex<Option<(Stamp, Arc<Names>)>>);

/// Device, number, size and time of a file.
type Stamp = (u64, u64, u64, i64, i64);
/// Manifests by the name they have.
type Names = BTreeMap<String, Descriptor>;

impl InLayout {
    fn failed(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }

    fn poisoned(&self, what: impl std::fmt::Display, why: impl Into<String>) -> Error {
        Error::Poisoned {
            what: format!("{what} of {}", self.dir.display()),
            why: why.into(),
        }
    }

    fn blob_at(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Gives the names of the index; none where there is no index yet.
    fn names(&self) -> Result<Arc<Names>, Error> {
        let path = self.dir.join("index.json");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(e) => return Err(self.failed("open", &path)(e)),
        };
        let meta = file.metadata().map_err(self.failed("look at", &path))?;
        let stamp = (
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.ctime(),
            meta.ctime_nsec(),
        );
        // Of many that ask at once, one reads.
        let mut read = self.read.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, names)) = &*read
            && *known == stamp
        {
            return Ok(Arc::clone(names));
        }
        let mut bytes = Vec::new();
        file.take(MAX_INDEX)
            .read_to_end(&mut bytes)
            .map_err(self.failed("read", &path))?;
        let index: Value = serde_json::from_slice(&bytes)
            .map_err(|e| self.failed("read", &path)(io::Error::other(e)))?;
        let mut names = Names::new();
        for one in index["manifests"].as_array().into_iter().flatten() {
            if let Ok(descriptor) = Descriptor::deserialize(one)
                && let Some(name) = descriptor.annotations.get(REF_NAME)
            {
                names.insert(name.clone(), descriptor);
            }
        }
        let names = Arc::new(names);
        *read = Some((stamp, Arc::clone(&names)));
        Ok(names)
    }

    fn manifest(&self, name: &str) -> Result<Option<Manifest>, Error> {
        let names = self.names()?;
        let Some(found) = names.get(name) else {
            return Ok(None);
        };
        let poisoned = |why: String| self.poisoned(name, why);
        if found.size > MAX_MANIFEST {
            return Err(poisoned(format!("it has {} bytes", found.size)));
        }
        let path = self.blob_at(&found.digest);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| {
            let mut file = file.take(found.size + 1);
            file.read_to_end(&mut bytes)
        });
        match read {
            // Somebody has thrown it away.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.failed("read", &path)(e)),
            Ok(_) => {}
        }
        if Digest::of(&bytes) != found.digest {
            return Err(poisoned("it is not what its digest says".into()));
        }
        match Document::parse(&bytes, Some(media::OCI_MANIFEST)) {
            Ok(Document::Manifest(manifest)) => Ok(Some(manifest)),
            Ok(Document::Index(_)) => Err(poisoned("it is an index".into())),
            Err(e) => Err(poisoned(e.to_string())),
        }
    }

    /// Has the directory be a layout, or says why it cannot be one.
    fn prepare(&self) -> Result<(), Error> {
        let version = self.dir.join("oci-layout");
        if version.exists() {
            return Ok(());
        }
        let others = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut others = others.filter(|e| {
            let name = e.file_name();
            name != "blobs" && !name.to_string_lossy().starts_with(MAKING)
        });
        // One that is being made by somebody else may have its first file by now.
        if let Some(other) = others.next()
            && !version.exists()
        {
            let why = format!(
                "there is {} and no oci-layout: it is something else's",
                other.file_name().display()
            );
            let refused = io::Error::new(io::ErrorKind::InvalidInput, why);
            return Err(self.failed("make an OCI layout of", &self.dir)(refused));
        }
        let blobs = self.dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(self.failed("create", &blobs))?;
        self.write(&version, |file| file.write_all(VERSION))
    }

    /// Makes a file and puts it in place by a rename.
    fn write(
        &self,
        place: &Path,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), Error> {
        let (partial, mut file) = self.making()?;
        let done = fill(&mut file)
            .map_err(self.failed("write", place))
            .and_then(|()| fs::rename(&partial, place).map_err(self.failed("put in place", place)));
        if done.is_err() {
            let _ = fs::remove_file(&partial);
        }
        done
    }

    /// Creates a file with a name of its own, locked while it is being made.
    fn making(&self) -> Result<(PathBuf, File), Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{MAKING}{}-{number}", std::process::id());
            let path = self.dir.join(name);
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path);
            match made {
                Ok(file) => {
                    // Where there are no locks, age alone protects it.
                    let _ = file.try_lock();
                    return Ok((path, file));
                }
                // Of a process that had the same number, maybe on another machine.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(self.failed("create", &path)(e)),
            }
        }
    }

    fn put_blob(&self, blob: &Descriptor, file: AtHand<'_>, span: &Span) -> Result<(), Error> {
        let place = self.blob_at(&blob.digest);
        // It was put there whole.
        if !fs::metadata(&place).is_ok_and(|meta| meta.len() == blob.size) {
            let source = file(blob).map_err(self.failed("take", &place))?;
            let mut from = File::open(&source).map_err(self.failed("open", &source))?;
            self.write(&place, |out| {
                let copied = io::copy(&mut from, out)?;
                match copied == blob.size {
                    true => Ok(()),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            })?;
        }
        span.advance(blob.size);
        Ok(())
    }

    /// Puts a manifest under names, after its blobs.
    fn put_manifest(
        &self,
        names: &[String],
        manifest: &Manifest,
        file: AtHand<'_>,
        span: &Span,
    ) -> Result<(), Error> {
        self.prepare()?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            self.put_blob(blob, file, span)?;
        }
        let bytes = manifest.to_bytes();
        let digest = Digest::of(&bytes);
        let place = self.blob_at(&digest);
        if !fs::metadata(&place).is_ok_and(|meta| meta.len() == bytes.len() as u64) {
            self.write(&place, |file| file.write_all(&bytes))?;
        }
        let _held = self.lock()?;
        self.sweep();
        let at = self.dir.join("index.json");
        let mut index = match fs::read(&at) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Value::Object(index)) => index,
                _ => {
                    let why = io::Error::other("it is not the JSON of an index");
                    return Err(self.failed("add to", &at)(why));
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(self.failed("read", &at)(e)),
        };
        let mut manifests = match index.remove("manifests") {
            Some(Value::Array(manifests)) => manifests,
            _ => Vec::new(),
        };
        manifests.retain(|old| {
            let name = old["annotations"][REF_NAME].as_str();
            !name.is_some_and(|name| names.iter().any(|own| own == name))
        });
        manifests.extend(names.iter().map(|name| {
            json!({
                "mediaType": manifest.media_type(),
                "digest": digest.to_string(),
                "size": bytes.len(),
                "annotations": {REF_NAME: name},
            })
        }));
        index.insert("schemaVersion".into(), 2.into());
        index.insert("mediaType".into(), media::OCI_INDEX.into());
        index.insert("manifests".into(), manifests.into());
        let index = serde_json::to_vec(&index).unwrap_or_default();
        self.write(&at, |file| file.write_all(&index))
    }

    /// Takes the directory's lock.
    fn lock(&self) -> Result<File, Error> {
        let dir = File::open(&self.dir).map_err(self.failed("open", &self.dir))?;
        let end = Instant::now() + PATIENCE;
        loop {
            match dir.try_lock() {
                Ok(()) => return Ok(dir),
                Err(TryLockError::WouldBlock) if Instant::now() > end => {
                    let late = format!("another process has held it for {} s", PATIENCE.as_secs());
                    let late = io::Error::new(io::ErrorKind::TimedOut, late);
                    return Err(self.failed("lock", &self.dir)(late));
                }
                Err(TryLockError::WouldBlock) => {
                    if self.cancel.wait(AGAIN) {
                        return Err(Error::Cancelled);
                    }
                }
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(e)) => return Err(self.failed("lock", &self.dir)(e)),
            }
        }
    }

    /// Removes what processes left in the making that are no more.
    fn sweep(&self) {
        let now = SystemTime::now();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().starts_with(MAKING) {
                continue;
            }
            let changed = entry.metadata().and_then(|meta| meta.modified());
            let age = changed.ok().and_then(|then| now.duration_since(then).ok());
            if age.is_some_and(|age| age >= OLD)
                && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Place for InLayout {
    fn name(&self) -> String {
        format!("oci:{}", self.dir.display())
    }

    fn find(&self, kind: Kind, key: &Key) -> Result<Option<Named>, Error> {
        let name = kind.name(key);
        let Some(manifest) = self.manifest(&name)? else {
            return Ok(None);
        };
        let found = read(&manifest, kind).map_err(|why| self.poisoned(&name, why))?;
        Ok(Some(found))
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let path = self.blob_at(&blob.digest);
        let file = File::open(&path).map_err(self.failed("open", &path))?;
        Ok(Box::new(file))
    }

    fn put(
        &self,
        keys: &[Key],
        named: &Named,
        file: AtHand<'_>,
        _: Option<&Reference>,
        span: &Span,
    ) -> Result<(), Error> {
        let names: Vec<String> = keys.iter().map(|key| named.kind.name(key)).collect();
        self.put_manifest(&names, &manifest_of(named), file, span)
    }
}
