use super::archive::Archive;
use super::open::{read_index, read_version};
use super::stream::{Stream, write_to};
use super::{Error, Export, Finished, IMAGE_NAME, REF_NAME, beside, failed, put_in_place};
use crate::oci::{Descriptor, Digest, Image, Reference, Sha256, media};
use crate::request::Place;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// How long is waited before a lock that somebody holds is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// An image in an OCI layout that nobody sees yet: its blobs are there, and the index does not name
/// it. Dropped as it is, it takes away again what it had put there.
pub struct Unseen {
    /// Goes before the lock does.
    made: Made,
    place: PathBuf,
    index: Vec<u8>,
    held: File,
}

impl Unseen {
    /// Gives device and number of the layout's directory.
    pub fn place(&self) -> io::Result<(u64, u64)> {
        let meta = self.held.metadata()?;
        Ok((meta.dev(), meta.ino()))
    }

    /// Puts `index.json` in place, by a rename: the image is there now.
    pub fn publish(mut self) -> Result<(), Error> {
        self.made.write(&self.place, &self.index)?;
        self.made.0.clear();
        Ok(())
    }
}

/// Writes an image into an OCI layout as far as nobody sees it; an existing one gets it added, in the
/// place of images of the same tag. What fails takes away again what it had put there.
///
/// Blobs are hard links of the given files where the file system can, so nobody should write to
/// them; they are read-only for that. Waits while another process adds to the same layout, and has
/// others wait until it is published or dropped.
pub fn write_layout(
    image: &Finished,
    names: &[Reference],
    dir: &Path,
    export: &Export<'_>,
) -> Result<Unseen, Error> {
    let fresh = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return Err(failed("list", dir)(e)),
    };
    if !fresh {
        // Not a single file goes into a directory that is something else.
        read_version(dir)?;
    }
    let mut layout = Layout {
        dir,
        blobs: dir.join("blobs/sha256"),
        export,
        made: Made::default(),
    };
    let (index, held) = layout.write(image, names, fresh)?;
    Ok(Unseen {
        made: layout.made,
        place: dir.join("index.json"),
        index,
        held,
    })
}

/// A layout that is being written.
struct Layout<'a> {
    dir: &'a Path,
    blobs: PathBuf,
    export: &'a Export<'a>,
    made: Made,
}

/// What is there now and was not before; dropped, it is taken away again.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Layout<'_> {
    /// Writes all but the index; gives that, and the lock.
    fn write(
        &mut self,
        image: &Finished,
        names: &[Reference],
        fresh: bool,
    ) -> Result<(Vec<u8>, File), Error> {
        for dir in [
            self.dir.to_owned(),
            self.dir.join("blobs"),
            self.blobs.clone(),
        ] {
            if !dir.is_dir() {
                fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
                self.made.0.push(dir);
            }
        }
        let held = File::open(self.dir).map_err(failed("open", self.dir))?;
        lock(&held, self.dir, self.export)?;
        if fresh {
            self.made.write(&self.dir.join("oci-layout"), VERSION)?;
        }
        for (layer, file) in image.manifest.layers.iter().zip(&image.blobs) {
            self.blob(layer, file)?;
        }
        let place = |digest: &Digest| self.blobs.join(digest.hex());
        let config = place(&image.manifest.config.digest);
        let manifest = place(&image.descriptor.digest);
        self.made.write(&config, &image.config_bytes)?;
        self.made.write(&manifest, &image.manifest_bytes)?;
        let index = add(existing(self.dir)?, image, names);
        let index = serde_json::to_vec(&index).unwrap_or_default();
        if self.export.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        Ok((index, held))
    }

    fn blob(&mut self, layer: &Descriptor, file: &Path) -> Result<(), Error> {
        if self.export.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let place = self.blobs.join(layer.digest.hex());
        let there = fs::symlink_metadata(&place).ok();
        let source = fs::metadata(file).map_err(failed("open", file))?;
        let inode = |meta: &fs::Metadata| (meta.dev(), meta.ino());
        if there.as_ref().map(inode) == Some(inode(&source)) {
            self.export.span.advance(layer.size);
            return Ok(());
        }
        let partial = beside(&place);
        if fs::hard_link(file, &partial).is_ok() {
            put_in_place(&place, &partial, || Ok(()))?;
            self.export.span.advance(layer.size);
        } else {
            let same_size = |meta: &fs::Metadata| meta.is_file() && meta.len() == layer.size;
            if there.as_ref().is_some_and(same_size) && self.is_whole(&place, &layer.digest)? {
                return Ok(());
            }
            put_in_place(&place, &partial, || {
                let out = File::create_new(&partial).map_err(failed("create", &place))?;
                let mut stream = Stream::new(out, &place, self.export)?;
                let mut from = File::open(file).map_err(failed("open", file))?;
                let copied = stream.copy(&mut from);
                copied.map_err(|e| stream.failed("copy to the layout", file)(e))?;
                Ok(())
            })?;
        }
        if there.is_none() {
            self.made.0.push(place);
        }
        Ok(())
    }

    /// Tells whether a blob of the layout is what its name says.
    fn is_whole(&self, blob: &Path, digest: &Digest) -> Result<bool, Error> {
        let mut file = File::open(blob).map_err(failed("open", blob))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            if self.export.cancel.is_set() {
                return Err(Error::Cancelled);
            }
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hash.finish() == *digest),
                Ok(read) => {
                    hash.update(buffer.get(..read).unwrap_or_default());
                    self.export.span.advance(read as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed("read", blob)(e)),
            }
        }
    }
}

impl Made {
    /// Writes a file, put in place by a rename.
    fn write(&mut self, place: &Path, bytes: &[u8]) -> Result<(), Error> {
        let there = place.exists();
        let partial = beside(place);
        put_in_place(place, &partial, || {
            fs::write(&partial, bytes).map_err(failed("write", place))
        })?;
        if !there {
            self.0.push(place.to_owned());
        }
        Ok(())
    }
}

impl Drop for Made {
    /// A directory that has something in it stays.
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _ = match path.is_dir() {
                true => fs::remove_dir(path),
                false => fs::remove_file(path),
            };
        }
    }
}

fn lock(file: &File, path: &Path, export: &Export<'_>) -> Result<(), Error> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {
                if export.cancel.wait(AGAIN) {
                    return Err(Error::Cancelled);
                }
            }
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(e)) => return Err(failed("lock", path)(e)),
        }
    }
}

/// Writes an OCI layout as an archive, as skopeo's `oci-archive:` and `podman load` take it. A file
/// is put in place by a rename.
pub fn write_oci_tar(
    image: &Finished,
    names: &[Reference],
    place: &Place,
    export: &Export<'_>,
) -> Result<(), Error> {
    write_to(place, export, |out| {
        let mut archive = Archive { out };
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        archive.directory("blobs")?;
        archive.directory("blobs/sha256")?;
        let mut written = BTreeSet::new();
        for (layer, file) in image.manifest.layers.iter().zip(&image.blobs) {
            if written.insert(layer.digest) {
                archive.blob(&blob(&layer.digest), layer.size, file)?;
            }
        }
        archive.bytes(&blob(&image.manifest.config.digest), &image.config_bytes)?;
        archive.bytes(&blob(&image.descriptor.digest), &image.manifest_bytes)?;
        let index = add(Map::new(), image, names).to_string();
        archive.bytes("index.json", index.as_bytes())?;
        archive.bytes("oci-layout", VERSION)?;
        archive.end()
    })
}

/// Reads the index there is, field by field as it stands.
fn existing(dir: &Path) -> Result<Map<String, Value>, Error> {
    let Some(bytes) = read_index(dir)? else {
        return Ok(Map::new());
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(index)) => Ok(index),
        _ => Err(Error::Layout {
            path: dir.join("index.json"),
            why: "it is not the JSON of an index".into(),
        }),
    }
}

fn add(mut index: Map<String, Value>, image: &Finished, names: &[Reference]) -> Value {
    let mut entries: Vec<Map<String, Value>> = Vec::new();
    for name in names {
        let mut annotations = Map::new();
        annotations.insert(IMAGE_NAME.into(), name.to_string().into());
        if let Some(tag) = &name.tag {
            annotations.insert(REF_NAME.into(), tag.as_str().into());
        }
        let mut entry = describe(image);
        entry.insert("annotations".into(), annotations.into());
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    if entries.is_empty() {
        entries.push(describe(image));
    }
    let digest = Value::from(image.descriptor.digest.to_string());
    let replaced = |old: &Value| {
        let tag = &old["annotations"][REF_NAME];
        match tag {
            Value::String(_) => entries.iter().any(|entry| {
                entry
                    .get("annotations")
                    .is_some_and(|a| a[REF_NAME] == *tag)
            }),
            _ => old["digest"] == digest,
        }
    };
    let mut manifests = match index.remove("manifests") {
        Some(Value::Array(manifests)) => manifests,
        _ => Vec::new(),
    };
    manifests.retain(|old| !replaced(old));
    manifests.extend(entries.into_iter().map(Value::Object));

    let mut out = Map::new();
    out.insert("schemaVersion".into(), 2.into());
    out.insert("mediaType".into(), media::OCI_INDEX.into());
    out.insert("manifests".into(), manifests.into());
    for (key, value) in index {
        out.entry(key).or_insert(value);
    }
    Value::Object(out)
}

fn describe(image: &Finished) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert(
        "mediaType".into(),
        image.descriptor.media_type.as_str().into(),
    );
    out.insert("digest".into(), image.descriptor.digest.to_string().into());
    out.insert("size".into(), image.descriptor.size.into());
    if let Ok(config) = serde_json::from_slice::<Image>(&image.config_bytes)
        && !config.os.is_empty()
    {
        let mut platform = json!({"architecture": config.architecture, "os": config.os});
        if let Some(variant) = config.variant {
            platform["variant"] = variant.into();
        }
        out.insert("platform".into(), platform);
    }
    out
}
