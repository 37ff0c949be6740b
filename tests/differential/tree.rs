//! Random trees for contexts: files of all modes, directories, links of all sorts, odd names,
//! archives.

use super::features::{Allowed, Feature};
use super::random::Random;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// One file of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: String,
    /// What it is.
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Dir(u32),
    File(u32, Vec<u8>),
    Symlink(String),
    /// Another name of the file at this path.
    Hard(String),
    /// An archive of a fixed content.
    Archive(Archive),
}

/// An archive of an ADD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    pub packing: Packing,
    /// What is in it: one of a few.
    pub content: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    /// gzip, cut in the middle.
    Broken,
}

const PACKINGS: [Packing; 6] = [
    Packing::Plain,
    Packing::Gzip,
    Packing::Bzip2,
    Packing::Xz,
    Packing::Zstd,
    Packing::Broken,
];

const NAMES: &[&str] = &[
    "a",
    "b",
    "c.txt",
    "d.md",
    "e.tar.gz",
    ".hidden",
    "-dash",
    "#hash",
    "with space",
    "ünï",
    "x[1]",
    "st*r",
    "q?m",
    "back\\slash",
    "quo'te",
    "dou\"ble",
    "$dollar",
    "a..b",
    "...",
    "~",
    "%41",
    "semi;colon",
    "UPPER",
    "upper",
    "日本",
];

const MODES: &[u32] = &[
    0o644, 0o600, 0o755, 0o777, 0o444, 0o4755, 0o2755, 0o000, 0o640,
];

const DIR_MODES: &[u32] = &[0o755, 0o700, 0o777, 0o1777, 0o2775, 0o555];

/// Makes a tree that is the same for a seed; some names are always there.
pub fn random(random: &mut Random, allowed: &Allowed) -> Vec<Entry> {
    let mut tree = vec![
        Entry {
            path: "file".into(),
            what: What::File(0o644, b"file\n".to_vec()),
        },
        Entry {
            path: "dir".into(),
            what: What::Dir(*random.one(DIR_MODES)),
        },
        Entry {
            path: "dir/one.txt".into(),
            what: What::File(*random.one(MODES), b"one\n".to_vec()),
        },
        Entry {
            path: "dir/two.md".into(),
            what: What::File(*random.one(MODES), b"two\n".to_vec()),
        },
        Entry {
            path: "dir/sub".into(),
            what: What::Dir(*random.one(DIR_MODES)),
        },
        Entry {
            path: "dir/sub/deep".into(),
            what: What::File(*random.one(MODES), b"deep\n".to_vec()),
        },
        Entry {
            path: "empty".into(),
            what: What::Dir(*random.one(DIR_MODES)),
        },
    ];
    let mut dirs = vec![String::new(), "dir/".into(), "dir/sub/".into()];
    for _ in 0..random.between(2, 14) {
        let path = format!("{}{}", random.one(&dirs), random.pick(NAMES));
        if tree.iter().any(|entry| entry.path == path) {
            continue;
        }
        let what = match random.below(10) {
            0..4 => {
                let content = random.pick(&["", "x", "content\n", "more content\n"]);
                What::File(
                    *random.one(MODES),
                    content.repeat(random.between(1, 3)).into_bytes(),
                )
            }
            4..6 => {
                dirs.push(format!("{path}/"));
                What::Dir(*random.one(DIR_MODES))
            }
            6..8 => {
                let targets = [
                    "file",
                    "dir",
                    "dir/one.txt",
                    "../file",
                    "nowhere",
                    "/etc/passwd",
                    "../../..",
                    ".",
                    "sub",
                    "/dir/sub",
                    "../dir/./sub/../one.txt",
                ];
                What::Symlink(random.pick(&targets).to_owned())
            }
            8 if allowed.has(Feature::ContextHardLinks) => What::Hard("file".into()),
            _ => What::File(*random.one(MODES), vec![b'z'; random.below(5000)]),
        };
        tree.push(Entry { path, what });
    }
    for at in 0..random.below(3) {
        let packing = *random.one(&PACKINGS);
        let content = random.below(ARCHIVES);
        let archive = Archive { packing, content };
        if archive.feature().is_none_or(|feature| allowed.has(feature)) {
            let what = What::Archive(archive);
            tree.push(Entry {
                path: format!("archive{at}"),
                what,
            });
        }
    }
    tree
}

/// Writes a tree; what is there already goes first.
pub fn lay(tree: &[Entry], ignore: &[String], dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).expect("a context");
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("chmod");
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
    };
    for entry in tree {
        let path = dir.join(&entry.path);
        if let Some(parent) = path.parent() {
            // The shrinker may have taken the directory away.
            std::fs::create_dir_all(parent).expect("a directory");
        }
        match &entry.what {
            What::Dir(bits) => {
                std::fs::create_dir_all(&path).expect("a directory");
                mode(&path, *bits);
            }
            What::File(bits, content) => {
                std::fs::write(&path, content).expect("a file");
                mode(&path, *bits);
            }
            What::Symlink(target) => symlink(target, &path).expect("a symbolic link"),
            What::Hard(target) => {
                let _ = std::fs::hard_link(dir.join(target), &path);
            }
            What::Archive(archive) => std::fs::write(&path, archive.bytes()).expect("an archive"),
        }
    }
    if !ignore.is_empty() {
        std::fs::write(dir.join(".dockerignore"), ignore.join("\n") + "\n").expect("write");
    }
}

/// How many contents archives may have.
const ARCHIVES: usize = 5;
/// The content that has extended attributes.
const ATTRIBUTES: usize = 4;

impl Archive {
    /// Gives the feature that an ADD of it uses besides.
    pub fn feature(self) -> Option<Feature> {
        match self.packing {
            Packing::Zstd => Some(Feature::AddZstd),
            Packing::Broken => Some(Feature::AddBroken),
            _ if self.content == ATTRIBUTES => Some(Feature::AddAttributes),
            _ => None,
        }
    }

    fn bytes(self) -> Vec<u8> {
        let tar = contents(self.content);
        let gzip = |tar: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(tar).expect("gzip");
            out.finish().expect("gzip")
        };
        match self.packing {
            Packing::Plain => tar,
            Packing::Gzip => gzip(&tar),
            Packing::Bzip2 => {
                let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                out.write_all(&tar).expect("bzip2");
                out.finish().expect("bzip2")
            }
            Packing::Xz => {
                let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
                out.write_all(&tar).expect("xz");
                out.finish().expect("xz")
            }
            Packing::Zstd => zstd::encode_all(tar.as_slice(), 1).expect("zstd"),
            Packing::Broken => {
                let mut whole = gzip(&tar);
                whole.truncate(whole.len() / 2);
                whole
            }
        }
    }
}

fn contents(which: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |path: &str,
                   kind: tar::EntryType,
                   mode: u32,
                   owner: (u64, u64),
                   link: &str,
                   content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            tar.append_data(&mut header, path, content)
                .expect("an entry");
        } else {
            tar.append_link(&mut header, path, link).expect("an entry");
        }
    };
    use tar::EntryType as T;
    match which {
        0 => {
            put("unpacked/", T::Directory, 0o750, (7, 8), "", b"");
            put(
                "unpacked/file",
                T::Regular,
                0o4711,
                (1000, 50),
                "",
                b"in the archive\n",
            );
            put(
                "unpacked/hard",
                T::Link,
                0o4711,
                (1000, 50),
                "unpacked/file",
                b"",
            );
            put("unpacked/sym", T::Symlink, 0o777, (3, 4), "file", b"");
        }
        // Directories that no entry makes.
        1 => {
            put("made/by/name/x", T::Regular, 0o600, (0, 0), "", b"x");
            put("./made/./y", T::Regular, 0o644, (1, 1), "", b"y");
        }
        // One after the other at the same place, and devices.
        2 => {
            put("twice", T::Regular, 0o644, (0, 0), "", b"first");
            put("twice", T::Regular, 0o600, (1, 0), "", b"second");
            put("pipe", T::Fifo, 0o640, (0, 9), "", b"");
            put("tree/", T::Directory, 0o711, (5, 5), "", b"");
            put(
                "tree/file",
                T::Regular,
                0o640,
                (6, 6),
                "",
                b"over the base's\n",
            );
        }
        3 => {}
        _ => {
            let pairs = [("SCHILY.xattr.user.note", b"value".as_slice())];
            tar.append_pax_extensions(pairs).expect("pax");
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(1);
            tar.append_data(&mut header, "noted", &b"n"[..])
                .expect("an entry");
        }
    }
    tar.into_inner().expect("a tar")
}

/// Shows a tree for a report, as JSON that [`from_json`] reads.
pub fn shown(tree: &[Entry]) -> String {
    let line = |Entry { path, what }: &Entry| {
        let line = match what {
            What::Dir(mode) => json!(["dir", path, format!("{mode:o}")]),
            What::File(mode, content) => {
                let text = String::from_utf8_lossy(content);
                match content.first() {
                    Some(first) if content.len() > 20 && content.iter().all(|c| c == first) => {
                        json!(["file", path, format!("{mode:o}"), text[..1], content.len()])
                    }
                    _ => json!(["file", path, format!("{mode:o}"), text]),
                }
            }
            What::Symlink(target) => json!(["link", path, target]),
            What::Hard(target) => json!(["hard", path, target]),
            What::Archive(Archive { packing, content }) => {
                json!(["archive", path, format!("{packing:?}"), content])
            }
        };
        line.to_string()
    };
    let lines: Vec<String> = tree.iter().map(line).collect();
    format!("[{}]", lines.join(",\n "))
}

/// Reads a tree; an entry is an array:
///
/// - `["dir", PATH, MODE]`
/// - `["file", PATH, MODE, CONTENT]`, or `["file", PATH, MODE, CONTENT, TIMES]`
/// - `["link", PATH, TARGET]`, a symbolic one; `["hard", PATH, OTHER PATH]`
/// - `["archive", PATH, PACKING, NUMBER]`, of one of the contents that there are
pub fn from_json(tree: &Value) -> Vec<Entry> {
    let entries = tree.as_array().into_iter().flatten();
    let entry = |entry: &Value| {
        let text = |at: usize| {
            let text = entry[at].as_str();
            text.unwrap_or_else(|| panic!("{entry} lacks a text at {at}"))
                .to_owned()
        };
        let mode = || u32::from_str_radix(&text(2), 8).expect("an octal mode");
        let what = match text(0).as_str() {
            "dir" => What::Dir(mode()),
            "file" => {
                let times = entry[4].as_u64().unwrap_or(1);
                What::File(mode(), text(3).repeat(times as usize).into_bytes())
            }
            "link" => What::Symlink(text(2)),
            "hard" => What::Hard(text(2)),
            "archive" => {
                let named = |packing: &Packing| format!("{packing:?}") == text(2);
                What::Archive(Archive {
                    packing: PACKINGS.into_iter().find(named).expect("a packing"),
                    content: entry[3].as_u64().expect("a number") as usize,
                })
            }
            other => panic!("there is no {other}"),
        };
        Entry {
            path: text(1),
            what,
        }
    };
    entries.map(entry).collect()
}
