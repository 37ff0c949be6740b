use super::{Error, IMAGE_NAME, REF_NAME, failed};
use crate::oci::{Descriptor, Digest, Document, Index, MAX_MANIFEST, Manifest, Platform, media};
use crate::request::Layout;
use crate::store::Blobs;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How deep indexes may be in indexes.
const DEPTH: usize = 4;
/// The most names that an error lists.
const LISTED: usize = 20;

/// An image in an OCI layout, opened for reading.
#[derive(Debug)]
pub struct LayoutImage {
    /// The layout.
    pub dir: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// The config's bytes, verified.
    pub config: Vec<u8>,
}

impl Blobs for LayoutImage {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(open_file(&blob_path(&self.dir, &blob.digest))?))
    }
}

/// Finds an image in a layout: by digest, by tag, or the only one; through nested indexes by
/// platform. Manifests, indexes and the config are verified; layers are left to who reads them.
pub fn open_layout(layout: &Layout, platform: &Platform) -> Result<LayoutImage, Error> {
    let dir = &layout.dir;
    read_version(dir)?;
    let at = dir.join("index.json");
    let bytes =
        read_index(dir)?.ok_or_else(|| failed("open", &at)(io::ErrorKind::NotFound.into()))?;
    let index = match Document::parse(&bytes, Some(media::OCI_INDEX)) {
        Ok(Document::Index(index)) => index,
        Ok(Document::Manifest(_)) => return Err(odd(&at, "it is a manifest, not an index")),
        Err(e) => return Err(odd(&at, e.to_string())),
    };
    let top = match (&layout.digest, &layout.tag) {
        (Some(digest), _) => by_digest(dir, &index, digest)?,
        (None, Some(tag)) => by_tag(dir, &index, tag)?,
        (None, None) => the_only(dir, &index, platform)?,
    };
    let (manifest, descriptor) = follow(dir, top, platform)?;
    let config = read_blob(dir, &manifest.config)?;
    Ok(LayoutImage {
        dir: dir.clone(),
        manifest,
        descriptor,
        config,
    })
}

fn by_digest(dir: &Path, index: &Index, digest: &Digest) -> Result<Descriptor, Error> {
    let listed = index.manifests.iter().find(|(d, _)| d.digest == *digest);
    if let Some((descriptor, _)) = listed {
        return Ok(descriptor.clone());
    }
    // It may be below an index, or in no index at all; its digest vouches for it.
    let path = blob_path(dir, digest);
    match std::fs::metadata(&path) {
        Ok(meta) => Ok(Descriptor {
            media_type: String::new(),
            digest: *digest,
            size: meta.len(),
            urls: Vec::new(),
            annotations: Default::default(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(odd(dir, format!("the layout has no manifest {digest}")))
        }
        Err(e) => Err(failed("look up", &path)(e)),
    }
}

fn by_tag(dir: &Path, index: &Index, tag: &str) -> Result<Descriptor, Error> {
    tagged(index, tag).ok_or_else(|| {
        let why = format!("the layout has no image tagged `{tag}`; {}", tags(index));
        odd(dir, why)
    })
}

fn tagged(index: &Index, tag: &str) -> Option<Descriptor> {
    let is = |d: &Descriptor, key: &str| d.annotations.get(key).is_some_and(|name| name == tag);
    let find = |key| index.manifests.iter().find(|(d, _)| is(d, key));
    let (descriptor, _) = find(REF_NAME).or_else(|| find(IMAGE_NAME))?;
    Some(descriptor.clone())
}

fn the_only(dir: &Path, index: &Index, platform: &Platform) -> Result<Descriptor, Error> {
    let mut found: Vec<&(Descriptor, Option<Platform>)> = Vec::new();
    for entry in &index.manifests {
        if !found.iter().any(|(d, _)| d.digest == entry.0.digest) {
            found.push(entry);
        }
    }
    // One image of several platforms may stand in the index itself.
    let named = |d: &Descriptor| d.annotations.contains_key(REF_NAME);
    let of_platforms = found.iter().any(|(_, p)| p.is_some());
    if found.len() > 1 && of_platforms && !found.iter().any(|(d, _)| named(d)) {
        found.retain(|(_, p)| p.as_ref().is_some_and(|p| platform.accepts(p)));
        if found.is_empty() {
            return Err(odd(
                dir,
                format!(
                    "the layout has no image for {platform}; {}",
                    platforms(index)
                ),
            ));
        }
    }
    match found[..] {
        [(descriptor, _)] => Ok(descriptor.clone()),
        [] => Err(odd(dir, "the layout has no image")),
        // As docker buildx takes it.
        _ => tagged(index, "latest").ok_or_else(|| {
            let why = format!("the layout has several images, name one; {}", tags(index));
            odd(dir, why)
        }),
    }
}

/// Goes down from a descriptor to a manifest for the platform.
fn follow(
    dir: &Path,
    mut at: Descriptor,
    platform: &Platform,
) -> Result<(Manifest, Descriptor), Error> {
    for _ in 0..DEPTH {
        let bytes = read_blob(dir, &at)?;
        let path = || blob_path(dir, &at.digest);
        let index = match Document::parse(&bytes, Some(&at.media_type)) {
            Ok(Document::Manifest(manifest)) => {
                at.media_type = manifest.media_type().to_owned();
                return Ok((manifest, at));
            }
            Ok(Document::Index(index)) => index,
            Err(e) => return Err(odd(&path(), e.to_string())),
        };
        let fits = |p: &Option<Platform>| p.as_ref().is_some_and(|p| platform.accepts(p));
        let next = match (
            index.manifests.iter().find(|(_, p)| fits(p)),
            &index.manifests[..],
        ) {
            (Some((descriptor, _)), _) => descriptor,
            (None, [(descriptor, None)]) => descriptor,
            _ => {
                let why = format!(
                    "the index has no image for {platform}; {}",
                    platforms(&index)
                );
                return Err(odd(&path(), why));
            }
        };
        at = next.clone();
    }
    Err(odd(
        dir,
        format!("indexes are nested more than {DEPTH} deep"),
    ))
}

/// Checks the file `oci-layout`.
pub(super) fn read_version(dir: &Path) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    struct Version {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let path = dir.join("oci-layout");
    let no_layout = |why: &str| odd(dir, format!("it is no OCI layout: {why}"));
    let bytes = match read_bounded(&path, 64 << 10)? {
        Some(bytes) => bytes,
        None => return Err(no_layout("it has no file `oci-layout`")),
    };
    let version: Version = serde_json::from_slice(&bytes)
        .map_err(|_| no_layout("its file `oci-layout` says no version"))?;
    if version.version.split('.').next() != Some("1") {
        let said: String = version.version.chars().take(40).collect();
        return Err(no_layout(&format!(
            "its version is `{said}`, 1.0.0 is wanted"
        )));
    }
    Ok(())
}

/// Reads `index.json` where there is one.
pub(super) fn read_index(dir: &Path) -> Result<Option<Vec<u8>>, Error> {
    read_bounded(&dir.join("index.json"), MAX_MANIFEST)
}

fn read_blob(dir: &Path, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let path = blob_path(dir, &blob.digest);
    let Some(bytes) = read_bounded(&path, MAX_MANIFEST)? else {
        return Err(odd(dir, format!("the layout lacks blob {}", blob.digest)));
    };
    let got = Digest::of(&bytes);
    if got != blob.digest {
        return Err(odd(&path, format!("its digest is {got}")));
    }
    if bytes.len() as u64 != blob.size {
        return Err(odd(
            &path,
            format!(
                "it has {} bytes, its descriptor says {}",
                bytes.len(),
                blob.size
            ),
        ));
    }
    Ok(bytes)
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// Opens a regular file; anything else could keep the reader waiting.
fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

fn read_bounded(path: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match open_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    if bytes.len() as u64 > most {
        return Err(odd(path, format!("it has more than {most} bytes")));
    }
    Ok(Some(bytes))
}

fn odd(path: &Path, why: impl Into<String>) -> Error {
    Error::Layout {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// Says by what the images of a layout are named: their tags, and digests where there is none.
fn tags(index: &Index) -> String {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for (descriptor, _) in &index.manifests {
        match descriptor.annotations.get(REF_NAME) {
            Some(tag) => tags.push(tag.clone()),
            None => digests.push(format!("@{}", descriptor.digest)),
        }
    }
    let tags = list("its tags are", &tags).unwrap_or_else(|| "it names no tags".to_owned());
    match list("without one there are", &digests) {
        Some(digests) => format!("{tags}; {digests}"),
        None => tags,
    }
}

fn platforms(index: &Index) -> String {
    let known = index.manifests.iter().filter_map(|(_, p)| p.as_ref());
    let all: Vec<String> = known.map(Platform::to_string).collect();
    list("its platforms are", &all).unwrap_or_else(|| "it names no platforms".to_owned())
}

/// Lists names, each once and not too many; `None` where there are none.
fn list(what: &str, all: &[String]) -> Option<String> {
    let mut some: Vec<&str> = Vec::new();
    for name in all {
        if !some.contains(&name.as_str()) {
            some.push(name);
        }
        if some.len() > LISTED {
            some.pop();
            some.push("...");
            break;
        }
    }
    (!some.is_empty()).then(|| format!("{what} {}", some.join(", ")))
}
