//! Looking whether a store is right, and dropping what is wrong in it.

use super::stock::{is_gone, is_hex, is_room, look, names, rooms};
use super::{
    BLOBS, CACHES, CONTENTS, Error, LAYERS, LOCKS, NAMES, REFS, RUN, STEPS, Store, TOCS, gate,
    is_known,
};
use crate::fs::Toc;
use crate::oci::{Descriptor, Digest, Sha256};
use crate::sys::Cancel;
use rayon::prelude::*;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Something wrong in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it is in the store.
    pub place: PathBuf,
    /// What is wrong.
    pub why: String,
    /// Which file that was said of: device and inode.
    file: (u64, u64),
}

/// Why something wrong stays.
#[derive(Debug)]
pub enum Stays {
    /// It is not the store's.
    Foreign,
    /// It cannot be dropped.
    Failed(Error),
}

/// Looks at everything in a store: every blob is read. Only reads; what vanishes meanwhile is no fault.
/// A directory that is not there, or empty, is right.
pub fn verify(dir: &Path, cancel: &Cancel) -> Result<Vec<Fault>, Error> {
    if !super::is_there(dir)? {
        return Ok(Vec::new());
    }
    let look = Look { dir, cancel };
    let mut faults = look.top()?;
    faults.extend(look.files(BLOBS, &|path, name| look.blob(path, name))?);
    faults.extend(look.files(TOCS, &|path, _| toc(path))?);
    faults.extend(look.files(STEPS, &|path, _| json(path))?);
    faults.extend(look.files(NAMES, &|path, _| json(path))?);
    faults.extend(look.files(CONTENTS, &|path, _| contents(path))?);
    faults.extend(look.files(LOCKS, &|_, _| Ok(None))?);
    for room in rooms(dir, LAYERS)? {
        faults.extend(look.entries(&room, &|_, name, meta| match meta.is_dir() {
            true => Ok(named(name)),
            false => Ok(Some("it is no directory".into())),
        })?);
    }
    for room in rooms(dir, CACHES)? {
        faults.extend(look.caches(&room)?);
    }
    faults.extend(look.refs()?);
    if cancel.is_set() {
        return Err(Error::Cancelled);
    }
    Ok(faults)
}

impl Store {
    /// Drops what was found to be wrong and then what names it, beside running builds; gives what stays,
    /// and why. What lies in the store's directory and not in one of its rooms is not the store's, and
    /// stays.
    pub fn repair(&self, faults: Vec<Fault>) -> Result<Vec<(Fault, Stays)>, Error> {
        let mut stays = Vec::new();
        let mut trash = Vec::new();
        for fault in faults {
            let path = self.dir().join(&fault.place);
            if fault.place.components().count() < 2 {
                stays.push((fault, Stays::Foreign));
                continue;
            }
            // What has taken its place since is right.
            let _alone = self.alone()?;
            let is_it = fs::symlink_metadata(&path).is_ok_and(|meta| id(&meta) == fault.file);
            if !is_it {
                continue;
            }
            let to = self.session.name();
            match fs::rename(&path, &to) {
                Ok(()) => trash.push(to),
                Err(e) if is_gone(&e) => {}
                Err(e) => stays.push((fault, Stays::Failed(self.session.fail("drop", &path, e)))),
            }
        }
        if let Some(error) = self.remove(trash).into_iter().next() {
            return Err(error);
        }
        self.tidy()?;
        Ok(stays)
    }
}

/// What is wrong with something, if anything is.
type Found = io::Result<Option<String>>;

struct Look<'a> {
    dir: &'a Path,
    cancel: &'a Cancel,
}

impl Look<'_> {
    /// Looks at what lies in the store's own directory.
    fn top(&self) -> Result<Vec<Fault>, Error> {
        let mut out = self.entries(Path::new(""), &|_, name, meta| {
            let single = [
                "blobs", TOCS, REFS, STEPS, NAMES, CONTENTS, "tmp", RUN, LOCKS,
            ];
            let is_a_room =
                single.contains(&name) || is_room(name, LAYERS) || is_room(name, CACHES);
            Ok(match (is_a_room, meta.is_dir()) {
                (true, true) => None,
                (true, false) => Some("it is no directory".into()),
                (false, _) if is_known(name.as_ref()) => None,
                (false, _) => Some("nothing in a store has this name".into()),
            })
        })?;
        out.extend(self.entries(Path::new("blobs"), &|_, name, meta| {
            let known = name == "sha256" && meta.is_dir();
            Ok((!known).then(|| "nothing in a store has this name".into()))
        })?);
        Ok(out)
    }

    /// Looks at everything in a room.
    fn entries(
        &self,
        room: &Path,
        judge: &(dyn Fn(&Path, &str, &Metadata) -> Found + Sync),
    ) -> Result<Vec<Fault>, Error> {
        let path = self.dir.join(room);
        let entries = match fs::read_dir(&path) {
            Err(e) if is_gone(&e) => return Ok(Vec::new()),
            other => other.map_err(|e| Error::io(self.dir, "list", &path, e))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(self.dir, "list", &path, e))?;
            all.push(room.join(entry.file_name()));
        }
        all.sort_unstable();
        let faults = all.into_par_iter().filter_map(|place| {
            if self.cancel.is_set() {
                return None;
            }
            self.judge(place, judge).transpose()
        });
        faults.collect()
    }

    fn judge(
        &self,
        place: PathBuf,
        judge: &(dyn Fn(&Path, &str, &Metadata) -> Found + Sync),
    ) -> Result<Option<Fault>, Error> {
        let path = self.dir.join(&place);
        let Some(meta) = look(self.dir, &place)? else {
            return Ok(None);
        };
        let found = match place.file_name().and_then(|name| name.to_str()) {
            Some(name) => judge(&path, name, &meta),
            None => Ok(Some("its name is not UTF-8".into())),
        };
        let why = match found {
            Ok(found) => found,
            Err(e) if is_gone(&e) => None,
            // A disk that gives the bytes no more.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Some(e.to_string()),
            Err(e) => return Err(Error::io(self.dir, "read", &path, e)),
        };
        let file = id(&meta);
        Ok(why.map(|why| Fault { place, why, file }))
    }

    /// Looks at a room of files that are called by hexadecimal digits.
    fn files(
        &self,
        room: &str,
        judge: &(dyn Fn(&Path, &str) -> Found + Sync),
    ) -> Result<Vec<Fault>, Error> {
        self.entries(Path::new(room), &|path, name, meta| {
            if Path::new(room).join(name) == Path::new(gate::GATE) {
                return Ok(None);
            }
            match (named(name), meta.is_file()) {
                (Some(why), _) => Ok(Some(why)),
                (None, false) => Ok(Some("it is no file".into())),
                (None, true) => judge(path, name),
            }
        })
    }

    fn blob(&self, path: &Path, name: &str) -> Found {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            if self.cancel.is_set() {
                return Ok(None);
            }
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hash.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let got = hash.finish();
        Ok((got.hex() != name).then(|| format!("its content has digest {got}")))
    }

    /// Looks at the notes of blobs.
    fn refs(&self) -> Result<Vec<Fault>, Error> {
        let mut out = self.entries(Path::new(REFS), &|_, name, meta| match meta.is_dir() {
            true => Ok(named(name)),
            false => Ok(Some("it is no directory".into())),
        })?;
        for diff_id in names(self.dir, Path::new(REFS))? {
            let room = Path::new(REFS).join(diff_id);
            out.extend(self.entries(&room, &|path, name, meta| {
                if !meta.is_file() {
                    return Ok(Some("it is no file".into()));
                }
                let blob: Option<Descriptor> = serde_json::from_slice(&fs::read(path)?).ok();
                Ok(match blob {
                    Some(blob) if blob.digest.hex() != name => {
                        Some(format!("it names blob {}", blob.digest))
                    }
                    // Gone together with its blob, perhaps.
                    Some(blob) if !super::blob_path(self.dir, &blob.digest).exists() => {
                        let missing = || format!("blob {} is not there", blob.digest);
                        path.exists().then(missing)
                    }
                    Some(_) => None,
                    None => Some("it cannot be read".into()),
                })
            })?);
        }
        Ok(out)
    }

    fn caches(&self, room: &Path) -> Result<Vec<Fault>, Error> {
        let mut out = self.entries(room, &|_, name, meta| match meta.is_dir() {
            true => Ok(named(name)),
            false => Ok(Some("it is no directory".into())),
        })?;
        for key in names(self.dir, room)?
            .into_iter()
            .filter(|name| is_hex(name))
        {
            let cache = room.join(key);
            out.extend(self.entries(&cache, &|_, name, meta| {
                let known = match name {
                    "id" | "lock" => meta.is_file(),
                    number => number.parse::<u32>().is_ok() && meta.is_dir(),
                };
                Ok((!known).then(|| "no cache has anything of this name and kind".into()))
            })?);
            for number in super::caches::copies(&self.dir.join(&cache)).unwrap_or_default() {
                out.extend(
                    self.entries(&cache.join(number.to_string()), &|_, name, meta| {
                        let known = match name {
                            "lock" => meta.is_file(),
                            "files" => meta.is_dir(),
                            _ => false,
                        };
                        Ok((!known).then(|| "no cache has anything of this name and kind".into()))
                    })?,
                );
            }
        }
        Ok(out)
    }
}

fn id(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Says what is wrong with a name that should be a digest's digits.
fn named(name: &str) -> Option<String> {
    match Digest::from_hex(name) {
        Ok(_) => None,
        Err(_) => Some("its name is not 64 hexadecimal digits".into()),
    }
}

fn toc(path: &Path) -> Found {
    match Toc::open(path) {
        Ok(toc) if toc.iter().count() == toc.len() => Ok(None),
        Ok(_) => Ok(Some("not all of its entries can be read".into())),
        Err(e) => match e.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Ok(Some(e.to_string())),
            _ => Err(e),
        },
    }
}

fn contents(path: &Path) -> Found {
    let is_right = super::contents::is_right(&fs::read(path)?);
    Ok((!is_right).then(|| "its checksum is not that of its content".into()))
}

fn json(path: &Path) -> Found {
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&fs::read(path)?).is_ok();
    Ok((!is_json).then(|| "it cannot be read".into()))
}
