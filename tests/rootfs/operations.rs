//! File operations as data.

use crate::together;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A path or a value: any bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl From<&str> for Bytes {
    fn from(text: &str) -> Bytes {
        Bytes(text.into())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Bytes {
        Bytes(text.into())
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes(bytes.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Bytes {
    fn from(bytes: &[u8; N]) -> Bytes {
        Bytes(bytes.to_vec())
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// One operation; paths are relative to the root.
#[derive(Clone, Debug)]
pub enum Op {
    /// Makes or replaces the content.
    Write(Bytes, Bytes),
    Append(Bytes, Bytes),
    Truncate(Bytes, u64),
    /// Writes the bytes that are there.
    Rewrite(Bytes),
    /// The same, and puts the time back.
    RewriteInTime(Bytes),
    /// Sets the time of last modification.
    Touch(Bytes, i64),
    Rename(Bytes, Bytes),
    Exchange(Bytes, Bytes),
    Link(Bytes, Bytes),
    Unlink(Bytes),
    /// Writes to a file after its name is gone.
    UnlinkOpen(Bytes),
    /// Writes through a shared mapping, from the beginning.
    Map(Bytes, Bytes),
    /// Appends while somebody else has it open and mapped for reading, who reads on.
    AppendWhileRead(Bytes, Bytes),
    /// Gives a file that somebody has open and reads another name, by which somebody else reads it
    /// when it is appended to; the second name is removed again, or the first.
    LinkWhileRead(Bytes, Bytes, bool),
    /// Several open a file at once to write to it while somebody reads it.
    WriteAtOnce(Bytes),
    /// Several give a file a further name at once while somebody reads it.
    LinkAtOnce(Bytes),
    /// Gives a file that is read another name by its descriptor, and appends to it by the first after
    /// it is closed.
    LinkByDescriptor(Bytes, Bytes),
    /// Sets mode, time and an attribute by a descriptor after the file was given another name, and
    /// after it was written to by others.
    SetByOldDescriptor(Bytes, Bytes),
    /// Moves a file that is read while others give it another name, and appends to it.
    RenameWhileLinked(Bytes, Bytes),
    /// Cuts a file again and again while it is written to out of a mapping of another.
    CutWhileWritten(Bytes, Bytes),
    /// Makes a hole of so many bytes at a place.
    Punch(Bytes, u64, u64),
    /// Copies the content of one file to the end of another, in the kernel.
    CopyRange(Bytes, Bytes),
    /// Reads a directory of so many files while half of them move to another and the others are
    /// replaced.
    MoveWhileListed(Bytes, Bytes, usize),
    /// Looks for data and holes in a file that is open and has just been written.
    SeekWritten(Bytes),
    /// Reads a directory while what is in it is removed.
    RemoveWhileListed(Bytes),
    Rmdir(Bytes),
    RemoveAll(Bytes),
    Mkdir(Bytes),
    Chmod(Bytes, u32),
    Chown(Bytes, u32, u32),
    ChownAll(Bytes, u32, u32),
    Xattr(Bytes, &'static str, Bytes),
    NoXattr(Bytes, &'static str),
    /// Target and path.
    Symlink(Bytes, Bytes),
    Fifo(Bytes),
    Char(Bytes, u32, u32),
    Block(Bytes, u32, u32),
    Socket(Bytes),
    /// A file with a hole of so many bytes and one byte at its end.
    Sparse(Bytes, u64),
    /// So many small files.
    Many(Bytes, usize),
    /// A directory in a directory, so many times.
    Deep(Bytes, usize),
}

/// Which failures of an operation are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    None,
    /// What the kernel refuses: the operation makes no sense where it stands.
    Refusals,
}

impl Op {
    /// Carries the operation out in a root.
    pub fn run(&self, root: &Path) -> io::Result<()> {
        let at = |path: &Bytes| -> PathBuf { root.join(OsStr::from_bytes(&path.0)) };
        let none = AtFlags::SYMLINK_NOFOLLOW;
        match self {
            Op::Write(path, content) => std::fs::write(nofollow(&at(path))?, &content.0),
            Op::Append(path, content) => std::fs::OpenOptions::new()
                .append(true)
                .open(nofollow(&at(path))?)?
                .write_all(&content.0),
            Op::Truncate(path, len) => std::fs::OpenOptions::new()
                .write(true)
                .open(nofollow(&at(path))?)?
                .set_len(*len),
            Op::Rewrite(path) => {
                let path = nofollow(&at(path))?;
                std::fs::write(&path, std::fs::read(&path)?)
            }
            Op::RewriteInTime(path) => {
                let path = nofollow(&at(path))?;
                let before = path.symlink_metadata()?;
                std::fs::write(&path, std::fs::read(&path)?)?;
                touch(&path, before.mtime(), before.mtime_nsec())
            }
            Op::Touch(path, secs) => touch(&at(path), *secs, 123_456_789),
            Op::Rename(from, to) => std::fs::rename(at(from), at(to)),
            Op::Exchange(a, b) => Ok(rustix::fs::renameat_with(
                CWD,
                at(a),
                CWD,
                at(b),
                RenameFlags::EXCHANGE,
            )?),
            Op::Link(from, to) => std::fs::hard_link(at(from), at(to)),
            Op::Unlink(path) => std::fs::remove_file(at(path)),
            Op::UnlinkOpen(path) => {
                let path = nofollow(&at(path))?;
                let mut file = std::fs::OpenOptions::new().append(true).open(&path)?;
                std::fs::remove_file(&path)?;
                file.write_all(b"nobody reads this")
            }
            Op::Map(path, content) => {
                let file = std::fs::File::options()
                    .read(true)
                    .write(true)
                    .open(nofollow(&at(path))?)?;
                // SAFETY: nobody shortens the file meanwhile.
                let mut map = unsafe { memmap2::MmapMut::map_mut(&file)? };
                drop(file);
                let len = map.len().min(content.0.len());
                map[..len].copy_from_slice(&content.0[..len]);
                Ok(())
            }
            Op::AppendWhileRead(path, content) => {
                use std::io::Read;
                let path = nofollow(&at(path))?;
                let mut reader = std::fs::File::open(&path)?;
                let mut first = [0; 1];
                let got = reader.read(&mut first)?;
                std::fs::OpenOptions::new()
                    .append(true)
                    .open(&path)?
                    .write_all(&content.0)?;
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest)?;
                std::fs::OpenOptions::new()
                    .append(true)
                    .open(&path)?
                    .write_all(&first[..got])
            }
            Op::LinkWhileRead(path, name, keeps) => {
                together::link_while_read(&at(path), &at(name), *keeps)
            }
            Op::WriteAtOnce(path) => together::write_at_once(&at(path)),
            Op::LinkAtOnce(path) => together::link_at_once(&at(path)),
            Op::LinkByDescriptor(path, name) => together::link_by_descriptor(&at(path), &at(name)),
            Op::SetByOldDescriptor(path, name) => {
                together::set_by_old_descriptor(&at(path), &at(name))
            }
            Op::RenameWhileLinked(path, to) => together::rename_while_linked(&at(path), &at(to)),
            Op::CutWhileWritten(path, from) => together::cut_while_written(&at(path), &at(from)),
            Op::Punch(path, at_byte, len) => {
                use rustix::fs::{FallocateFlags, fallocate};
                let file = std::fs::File::options()
                    .write(true)
                    .open(nofollow(&at(path))?)?;
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(fallocate(&file, flags, *at_byte, *len)?)
            }
            Op::CopyRange(from, to) => {
                let from = std::fs::File::open(nofollow(&at(from))?)?;
                let to = std::fs::File::options()
                    .write(true)
                    .open(nofollow(&at(to))?)?;
                let mut end = to.metadata()?.len();
                while rustix::fs::copy_file_range(&from, None, &to, Some(&mut end), 1 << 20)? > 0 {}
                Ok(())
            }
            Op::MoveWhileListed(path, to, count) => {
                together::move_while_listed(&at(path), &at(to), *count)
            }
            Op::SeekWritten(path) => {
                use rustix::fs::{SeekFrom, seek};
                let mut file = std::fs::File::create(at(path))?;
                file.write_all(&[1; 8192])?;
                assert_eq!(seek(&file, SeekFrom::Data(0))?, 0);
                assert_eq!(seek(&file, SeekFrom::Hole(0))?, 8192);
                Ok(())
            }
            Op::RemoveWhileListed(path) => {
                let dir = at(path);
                for entry in std::fs::read_dir(&dir)? {
                    std::fs::remove_file(entry?.path())?;
                }
                match std::fs::read_dir(&dir)?.count() {
                    0 => Ok(()),
                    left => Err(io::Error::other(format!("{left} are left"))),
                }
            }
            Op::Rmdir(path) => std::fs::remove_dir(at(path)),
            Op::RemoveAll(path) => match std::fs::remove_dir_all(at(path)) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    std::fs::remove_file(at(path))
                }
                other => other,
            },
            Op::Mkdir(path) => std::fs::create_dir(at(path)),
            Op::Chmod(path, mode) => Ok(rustix::fs::chmod(
                nofollow_any(&at(path))?,
                Mode::from_raw_mode(*mode),
            )?),
            Op::Chown(path, uid, gid) => {
                std::os::unix::fs::lchown(at(path), Some(*uid), Some(*gid))
            }
            Op::ChownAll(path, uid, gid) => chown_all(&at(path), *uid, *gid),
            Op::Xattr(path, name, value) => Ok(rustix::fs::lsetxattr(
                at(path),
                *name,
                &value.0,
                XattrFlags::empty(),
            )?),
            Op::NoXattr(path, name) => Ok(rustix::fs::lremovexattr(at(path), *name)?),
            Op::Symlink(target, path) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(&target.0), at(path))
            }
            Op::Fifo(path) => node(&at(path), FileType::Fifo, 0, 0),
            Op::Char(path, major, minor) => {
                node(&at(path), FileType::CharacterDevice, *major, *minor)
            }
            Op::Block(path, major, minor) => node(&at(path), FileType::BlockDevice, *major, *minor),
            Op::Socket(path) => node(&at(path), FileType::Socket, 0, 0),
            Op::Sparse(path, len) => {
                use std::os::unix::fs::FileExt;
                std::fs::File::create(at(path))?.write_all_at(b"!", *len)
            }
            Op::Many(path, count) => {
                let dir = at(path);
                (0..*count)
                    .try_for_each(|n| std::fs::write(dir.join(format!("f{n}")), format!("{n}")))
            }
            Op::Deep(path, depth) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let mut dir = rustix::fs::open(at(path), flags, Mode::empty())?;
                for _ in 0..*depth {
                    rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755))?;
                    dir = rustix::fs::openat(&dir, "d", flags, Mode::empty())?;
                }
                rustix::fs::symlinkat("bottom", &dir, "end")?;
                rustix::fs::statat(&dir, "end", none)?;
                Ok(())
            }
        }
    }
}

/// Refuses a path that ends in a symbolic link or a special file: a write would go elsewhere or hang.
fn nofollow(path: &Path) -> io::Result<PathBuf> {
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() => Err(Errno::LOOP.into()),
        _ => Ok(path.to_owned()),
    }
}

fn nofollow_any(path: &Path) -> io::Result<PathBuf> {
    match path.symlink_metadata()?.is_symlink() {
        true => Err(Errno::LOOP.into()),
        false => Ok(path.to_owned()),
    }
}

fn touch(path: &Path, secs: i64, nanos: i64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn node(path: &Path, kind: FileType, major: u32, minor: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o640);
    Ok(rustix::fs::mknodat(
        CWD,
        path,
        kind,
        mode,
        rustix::fs::makedev(major, minor),
    )?)
}

fn chown_all(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            chown_all(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}

/// Makes random scripts, the same for the same seed.
pub fn random(seed: u64, steps: usize, length: usize) -> Vec<Vec<Op>> {
    let mut random = Random(seed);
    (0..steps)
        .map(|_| (0..length).map(|_| random.op()).collect())
        .collect()
}

/// SplitMix64, by Steele, Lea and Flood.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Few names, so that operations meet.
    fn path(&mut self) -> Bytes {
        const TOP: [&str; 7] = ["dir", "tree", "links", "replaced", "new", "file", "other"];
        const BELOW: [&str; 6] = ["a", "b", "sub", "file", "one", "dir"];
        let mut path = TOP[self.below(7) as usize].to_owned();
        for _ in 0..self.below(4) {
            path.push('/');
            path.push_str(BELOW[self.below(6) as usize]);
        }
        path.into()
    }

    fn op(&mut self) -> Op {
        let number = self.below(1000);
        let mode = [0o644, 0o755, 0o700, 0o4755, 0o1777, 0o2750][self.below(6) as usize];
        let owner = self.below(3) as u32;
        let path = self.path();
        match self.below(29) {
            0..=3 => Op::Write(path, format!("content {number}").into()),
            4 => Op::Append(path, "more".into()),
            5 => Op::Truncate(path, number % 7),
            6 => Op::Rewrite(path),
            7 => Op::RewriteInTime(path),
            8 => Op::Touch(path, number as i64),
            9..=12 => Op::Rename(path, self.path()),
            13 => Op::Exchange(path, self.path()),
            14..=15 => Op::Link(path, self.path()),
            16 => Op::Unlink(path),
            17 => Op::UnlinkOpen(path),
            18..=19 => Op::RemoveAll(path),
            20..=21 => Op::Mkdir(path),
            22 => Op::Chmod(path, mode),
            23 => Op::ChownAll(path, owner, 7),
            24 => Op::Xattr(path, "user.note", format!("{number}").into()),
            26 => Op::Map(path, "mapped".into()),
            27 => Op::AppendWhileRead(path, "behind".into()),
            25 => Op::Symlink(format!("../{number}").into(), path),
            _ => Op::Fifo(path),
        }
    }
}
