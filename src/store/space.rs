//! What room there is for a store, whether or not it is there yet.

use super::gate::now;
use super::remove::remove_tree;
use super::session::locked_dir_named;
use super::{BLOBS, Error, LAYERS, Store, owned_room};
use crate::fs::mountinfo;
use crate::oci::{Descriptor, Digest};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The room on a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free: u64,
    /// How many files may still be made; nothing where the file system knows no bound.
    pub inodes: Option<u64>,
    /// The kind of file system; empty where it is not told.
    pub kind: String,
}

/// A number of bytes, shown as people read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
        match UNITS.iter().find(|(size, _)| self.0 >= *size) {
            // Rounded down: what is there is never said to be more.
            Some((size, unit)) => {
                let tenths = self.0 / (*size / 10);
                write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} B", self.0),
        }
    }
}

/// Looks how much room there is where a store lies, or would be made.
pub fn space(store: &Path) -> io::Result<Space> {
    let there = existing(store);
    let stat = rustix::fs::statvfs(&there)?;
    let place = there.canonicalize().unwrap_or(there);
    let kind = mountinfo::holding(&place).map(|mount| mount.kind);
    Ok(Space {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: (stat.f_files > 0).then_some(stat.f_favail),
        kind: String::from_utf8_lossy(&kind.unwrap_or_default()).into_owned(),
    })
}

/// Gives a path or the nearest directory above it that is there.
fn existing(path: &Path) -> PathBuf {
    let mut above = path.ancestors().filter(|path| path.is_dir());
    above.next().unwrap_or(Path::new("/")).to_owned()
}

/// How a directory can serve as a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It is a store, or it is empty, and can be written to.
    Fit,
    /// It cannot be written to.
    ReadOnly,
    /// Something else is in it: the name of one thing.
    Taken(String),
}

/// Looks whether a directory that is there can serve as a store.
pub fn fitness(dir: &Path) -> io::Result<Fitness> {
    let is_store =
        std::fs::read(dir.join("version")).is_ok_and(|text| text == super::VERSION.as_bytes());
    if !is_store {
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name();
            if !super::is_known(&name) {
                return Ok(Fitness::Taken(name.to_string_lossy().into_owned()));
            }
        }
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    Ok(match rustix::fs::access(dir, access) {
        Ok(()) => Fitness::Fit,
        Err(_) => Fitness::ReadOnly,
    })
}

/// A scratch directory on the file system that a store lies on, without a store. It goes with the
/// value.
pub struct Trial {
    /// The directory, empty at first.
    pub dir: PathBuf,
    /// Held for its lock: one in a store that nobody holds is swept away.
    _lock: File,
}

impl Trial {
    /// Makes it where the store is or would be made; refused where something else is there.
    pub fn new(store: &Path) -> Result<Trial, Error> {
        super::is_there(store)?;
        let there = existing(store);
        let there = there.canonicalize().unwrap_or(there);
        let (dir, lock) = locked_dir_named(&there, TRIAL, now())
            .map_err(|e| Error::io(store, "create a directory in", &there, e))?;
        Ok(Trial { dir, _lock: lock })
    }
}

/// What the names of such directories begin with.
pub(super) const TRIAL: &str = ".trial-";

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = remove_tree(&self.dir);
    }
}

impl Store {
    /// Gives about how many bytes a layer will take here that it does not take yet, once it is
    /// unpacked: its blob, and its files, which have twice the size of a compressed blob.
    pub fn needs(&self, layer: &Descriptor, chain_id: &Digest) -> u64 {
        let room = Path::new(&owned_room(LAYERS)).join(chain_id.hex());
        let beside = self.beside.as_ref().map(|beside| beside.dir.as_path());
        let mut stores = [Some(self.dir()), beside].into_iter().flatten();
        let unpacked = stores.clone().any(|store| store.join(&room).is_dir());
        let files = match unpacked {
            true => 0,
            false => unpacked_size(layer),
        };
        let here = stores.any(|store| {
            let blob = store.join(BLOBS).join(layer.digest.hex());
            blob.metadata().is_ok_and(|meta| meta.len() == layer.size)
        });
        match here || unpacked {
            true => files,
            false => files.saturating_add(layer.size),
        }
    }
}

/// Gives about how many bytes the files of a layer have.
pub fn unpacked_size(layer: &Descriptor) -> u64 {
    let is_plain = layer.media_type.ends_with("tar");
    layer.size.saturating_mul(if is_plain { 1 } else { 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_by_people() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_999, "1.9 kB"),
            (999_999_999, "999.9 MB"),
            (3_000_000_000, "3.0 GB"),
            (u64::MAX, "18446744073.7 GB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }

    #[test]
    fn a_place_is_looked_at_without_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("not/yet");
        assert!(space(&store).unwrap().free > 0);
        assert_eq!(space(Path::new("/proc/x")).unwrap().kind, "proc");
        let trial = Trial::new(&store).unwrap();
        assert_eq!(
            trial.dir.parent(),
            Some(dir.path().canonicalize().unwrap().as_path())
        );
        // A store can be made beside it.
        assert_eq!(fitness(dir.path()).unwrap(), Fitness::Fit);
        Store::open(dir.path()).unwrap();
        assert_eq!(fitness(dir.path()).unwrap(), Fitness::Fit);
        drop(trial);
        assert!(!store.exists());
        std::fs::create_dir_all(&store).unwrap();
        std::fs::write(store.join("file"), "").unwrap();
        assert_eq!(fitness(&store).unwrap(), Fitness::Taken("file".into()));
    }
}
