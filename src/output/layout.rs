use super::open::{read_index, read_version};
use super::{Error, Finished, IMAGE_NAME, REF_NAME, failed, put_in_place};
use crate::oci::{Descriptor, Digest, Image, Reference, media};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Writes an OCI layout; an existing one gets the image added, in the place of images of the same
/// tag. Whole or not at all: `index.json` is put in place last, by a rename.
///
/// Blobs are hard links of the given files where the file system can, so nobody should write to
/// them; they are read-only for that.
pub fn write_layout(image: &Finished, names: &[Reference], dir: &Path) -> Result<(), Error> {
    let blobs = dir.join("blobs/sha256");
    let fresh = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => return Err(failed("list", dir)(e)),
    };
    if !fresh {
        // Not a single file goes into a directory that is something else.
        read_version(dir)?;
    }
    fs::create_dir_all(&blobs).map_err(failed("create", &blobs))?;
    let lock = File::open(dir).map_err(failed("open", dir))?;
    lock.lock().map_err(failed("lock", dir))?;

    if fresh {
        put_bytes(
            &dir.join("oci-layout"),
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
    }
    for (layer, file) in image.manifest.layers.iter().zip(&image.blobs) {
        put_blob(&blobs, layer, file)?;
    }
    put_bytes(
        &place(&blobs, &image.manifest.config.digest),
        &image.config_bytes,
    )?;
    put_bytes(
        &place(&blobs, &image.descriptor.digest),
        &image.manifest_bytes,
    )?;
    let index = add(existing(dir)?, image, names);
    put_bytes(
        &dir.join("index.json"),
        &serde_json::to_vec(&index).unwrap_or_default(),
    )
}

fn place(blobs: &Path, digest: &Digest) -> PathBuf {
    blobs.join(digest.hex())
}

fn put_bytes(place: &Path, bytes: &[u8]) -> Result<(), Error> {
    put_in_place(place, |partial| {
        fs::write(partial, bytes).map_err(failed("write", partial))
    })
}

fn put_blob(blobs: &Path, layer: &Descriptor, file: &Path) -> Result<(), Error> {
    let place = place(blobs, &layer.digest);
    if fs::metadata(&place).is_ok_and(|meta| meta.is_file() && meta.len() == layer.size) {
        return Ok(());
    }
    put_in_place(&place, |partial| {
        if fs::hard_link(file, partial).is_err() {
            fs::copy(file, partial).map_err(failed("copy to the layout", file))?;
        }
        Ok(())
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
