//! What an image's file system is, read by means that share no code with the builder.
#![allow(dead_code)]

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// An image in an OCI layout as a test compares it.
pub struct Listing {
    /// The whole config document.
    pub image: Value,
    /// The manifest.
    pub manifest: Value,
    /// Path to what is there.
    pub files: BTreeMap<Vec<u8>, Value>,
}

struct Node {
    value: Map<String, Value>,
    inode: usize,
}

/// Reads the only image of an OCI layout and applies its layers in memory.
pub fn read_layout(dir: &Path) -> Listing {
    let index = json_file(&dir.join("index.json"));
    let manifests = index["manifests"].as_array().expect("manifests");
    assert_eq!(manifests.len(), 1, "one image in {}", dir.display());
    let manifest = json_file(&blob(dir, &manifests[0]["digest"]));
    let image = json_file(&blob(dir, &manifest["config"]["digest"]));
    let layers = manifest["layers"].as_array().expect("layers").iter();
    let layers = layers.map(|layer| -> Box<dyn Read> {
        let kind = layer["mediaType"].as_str().expect("media type");
        let file = std::fs::File::open(blob(dir, &layer["digest"])).expect("open a layer");
        if kind.ends_with("gzip") {
            // One member only: what follows it would be missed here.
            Box::new(flate2::read::GzDecoder::new(file))
        } else if kind.ends_with("zstd") {
            Box::new(zstd::Decoder::new(file).expect("zstd"))
        } else {
            Box::new(file)
        }
    });
    let files = stack(layers);
    Listing {
        image,
        manifest,
        files,
    }
}

/// Reads the only image of what `docker save` wrote.
pub fn read_saved(archive: impl Read) -> Listing {
    let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        // A layer that is there already is a link to it.
        if let Some(target) = entry.link_name().expect("a target") {
            let target = std::path::Path::new(&name)
                .parent()
                .expect("a directory")
                .join(target);
            let target = clean(target.to_string_lossy().as_bytes());
            let mut parts: Vec<&[u8]> = Vec::new();
            for part in target.split(|&c| c == b'/') {
                match part {
                    b".." => drop(parts.pop()),
                    part => parts.push(part),
                }
            }
            content = [b"-> ".to_vec(), parts.join(&b'/')].concat();
        } else {
            entry.read_to_end(&mut content).expect("content");
        }
        parts.insert(name, content);
    }
    let json = |name: &str| -> Value { serde_json::from_slice(&parts[name]).expect("JSON") };
    let manifest = json("manifest.json")[0].clone();
    let image = json(manifest["Config"].as_str().expect("a config"));
    let layers = manifest["Layers"].as_array().expect("layers").iter();
    let files = stack(layers.map(|name| {
        let mut content = parts[name.as_str().expect("a name")].as_slice();
        while let Some(target) = content.strip_prefix(b"-> ") {
            content = &parts[std::str::from_utf8(target).expect("a name")];
        }
        content
    }));
    Listing {
        image,
        manifest,
        files,
    }
}

/// Applies layers, bottom first.
fn stack(layers: impl Iterator<Item = impl Read>) -> BTreeMap<Vec<u8>, Value> {
    let mut tree: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
    let mut inodes = 0;
    for layer in layers {
        apply(layer, &mut tree, &mut inodes);
    }
    files(tree)
}

/// Gives every path with what is there; names of one file say so.
fn files(tree: BTreeMap<Vec<u8>, Node>) -> BTreeMap<Vec<u8>, Value> {
    let mut names: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (path, node) in &tree {
        names.entry(node.inode).or_default().push(shown(path));
    }
    tree.into_iter()
        .map(|(path, node)| {
            let mut value = node.value;
            let group = &names[&node.inode];
            if group.len() > 1 {
                value.insert("hard_links".into(), json!(group));
            }
            (path, Value::Object(value))
        })
        .collect()
}

/// Gives the shape of the recorded expectations: what changed against a base, what is gone.
pub fn compare(base: &BTreeMap<Vec<u8>, Value>, now: &BTreeMap<Vec<u8>, Value>) -> Value {
    let left_out = |path: &[u8]| {
        ["etc/hosts", "etc/hostname", "etc/resolv.conf"]
            .iter()
            .any(|p| path == p.as_bytes())
            || ["proc", "sys", "dev"]
                .iter()
                .any(|top| path == top.as_bytes() || path.starts_with(format!("{top}/").as_bytes()))
    };
    let changed: Map<String, Value> = now
        .iter()
        .filter(|(path, value)| !left_out(path) && base.get(*path) != Some(value))
        .map(|(path, value)| (shown(path), value.clone()))
        .collect();
    let gone = |path: &[u8]| !left_out(path) && base.contains_key(path) && !now.contains_key(path);
    let parent = |path: &[u8]| {
        let at = path.iter().rposition(|&c| c == b'/').unwrap_or(0);
        path[..at].to_vec()
    };
    // What is gone with its directory is not named by itself.
    let removed: Vec<String> = base
        .keys()
        .filter(|path| gone(path) && !gone(&parent(path)))
        .map(|path| shown(path))
        .collect();
    json!({"changed": changed, "removed": removed})
}

fn apply(reader: impl Read, tree: &mut BTreeMap<Vec<u8>, Node>, inodes: &mut usize) {
    let mut fresh: std::collections::BTreeSet<Vec<u8>> = Default::default();
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a tar entry");
        let raw = entry.path_bytes().into_owned();
        let path = clean(&raw);
        if path.is_empty() {
            continue;
        }
        let at = path.iter().rposition(|&c| c == b'/').map_or(0, |at| at + 1);
        let (dir, name) = path.split_at(at);
        if name == b".wh..wh..opq" {
            let dir = dir.strip_suffix(b"/").unwrap_or(dir).to_vec();
            tree.retain(|p, _| !below(p, &dir) || fresh.contains(p));
            continue;
        }
        if let Some(gone) = name.strip_prefix(b".wh.") {
            let gone = [dir, gone].concat();
            tree.retain(|p, _| (*p != gone && !below(p, &gone)) || fresh.contains(p));
            continue;
        }
        let header = entry.header().clone();
        let kind = header.entry_type();
        let mut value = Map::new();
        *inodes += 1;
        let mut inode = *inodes;
        let mut xattrs = Map::new();
        if let Some(extensions) = entry.pax_extensions().expect("pax") {
            for extension in extensions {
                let extension = extension.expect("a pax record");
                if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                    xattrs.insert(shown(name), json!(shown(extension.value_bytes())));
                }
            }
        }
        if kind.is_hard_link() {
            let target = clean(&entry.link_name_bytes().expect("a link's target"));
            let node = tree
                .get(&target)
                .unwrap_or_else(|| panic!("{} links to nothing", shown(&path)));
            value = node.value.clone();
            inode = node.inode;
        } else {
            value.insert("uid".into(), json!(header.uid().expect("uid")));
            value.insert("gid".into(), json!(header.gid().expect("gid")));
            let mode = format!("{:04o}", header.mode().expect("mode") & 0o7777);
            let what = if kind.is_dir() {
                "dir"
            } else if kind.is_symlink() {
                let target = entry.link_name_bytes().expect("a target").into_owned();
                value.insert("target".into(), json!(shown(&target)));
                "symlink"
            } else if kind.is_fifo() {
                "fifo"
            } else if kind.is_character_special() {
                "char"
            } else if kind.is_block_special() {
                "block"
            } else {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("content");
                value.insert("size".into(), json!(content.len()));
                let digest = shutter::oci::Digest::of(&content).hex();
                value.insert("sha256".into(), json!(digest));
                "file"
            };
            if what != "symlink" {
                value.insert("mode".into(), json!(mode));
            }
            value.insert("type".into(), json!(what));
            if !xattrs.is_empty() {
                value.insert("xattrs".into(), Value::Object(xattrs));
            }
        }
        if value["type"] != "dir"
            || tree
                .get(&path)
                .is_some_and(|old| old.value["type"] != "dir")
        {
            tree.retain(|p, _| !below(p, &path));
        }
        fresh.insert(path.clone());
        tree.insert(path, Node { value, inode });
    }
}

fn below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn clean(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path
        .split(|&c| c == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    parts.join(&b'/')
}

/// Writes bytes that are not UTF-8 as `\xNN`.
pub fn shown(bytes: &[u8]) -> String {
    bytes
        .utf8_chunks()
        .flat_map(|chunk| {
            let bad = chunk.invalid().iter().map(|b| format!("\\x{b:02x}"));
            std::iter::once(chunk.valid().to_owned()).chain(bad)
        })
        .collect()
}

fn blob(dir: &Path, digest: &Value) -> std::path::PathBuf {
    let digest = digest.as_str().expect("a digest");
    dir.join("blobs").join(digest.replace(':', "/"))
}

fn json_file(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("parse {}: {e}", path.display()))
}

/// Reads a plain archive of files as the one layer of an image.
pub fn read_tar(reader: impl Read) -> BTreeMap<Vec<u8>, Value> {
    let mut tree: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
    apply(reader, &mut tree, &mut 0);
    files(tree)
}
