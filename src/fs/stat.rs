use super::xattr::{self, Xattrs};
use super::{Kind, Meta, RelPath, Time};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, readlinkat, statx,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Which file a name stands for: names with the same id are hard links of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// What a file system says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What an image keeps of it; see [`is_kept`](super::is_kept) for the extended attributes.
    pub meta: Meta,
    /// Which file it is.
    pub id: FileId,
    /// How many names it has.
    pub links: u32,
    /// Time of last change of content or metadata.
    pub ctime: Time,
    /// What overlayfs has noted on it (`trusted.overlay.*`, `user.overlay.*`), sorted by name.
    pub overlay: Xattrs,
}

impl Stat {
    /// Gives which file it is where it has further names. A directory's are no hard links.
    pub fn shared(&self) -> Option<FileId> {
        (self.links > 1 && self.meta.kind != Kind::Dir).then_some(self.id)
    }

    /// Tells whether it is a whiteout of overlayfs: a 0:0 character device, or an empty file that
    /// carries the attribute `overlay.whiteout`.
    pub fn is_whiteout(&self) -> bool {
        match self.meta.kind {
            Kind::Char => self.meta.device == (0, 0),
            Kind::File => self.meta.size == 0 && self.overlay_value(b"whiteout").is_some(),
            _ => false,
        }
    }

    /// Tells whether it is an opaque directory of overlayfs.
    pub fn is_opaque(&self) -> bool {
        self.meta.kind == Kind::Dir && self.overlay_value(b"opaque") == Some(b"y")
    }

    /// Gives what overlayfs has noted under a name without its prefix: `redirect`, `metacopy`.
    pub fn overlay_value(&self, name: &[u8]) -> Option<&[u8]> {
        let (_, value) = self.overlay.iter().find(|(full, _)| {
            [&b"trusted.overlay."[..], b"user.overlay."]
                .iter()
                .any(|prefix| full.strip_prefix(*prefix) == Some(name))
        })?;
        Some(value)
    }
}

/// What changes with the content of a file, whoever changes it and however: by writing into it, or
/// by putting another one in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which file it is.
    pub id: FileId,
    /// Its length in bytes.
    pub size: u64,
    /// Time of last modification: all there is where a file system keeps no other.
    pub mtime: Time,
    /// Time of last change of content or metadata.
    pub ctime: Time,
}

impl Stat {
    /// Gives what tells later whether a regular file still has this content.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            id: self.id,
            size: self.meta.size,
            mtime: self.meta.mtime,
            ctime: self.ctime,
        }
    }
}

/// Gives the stamp of an open regular file.
pub(super) fn stamp_of(file: BorrowedFd<'_>) -> io::Result<Stamp> {
    let got = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(Stamp {
        id: FileId {
            dev: rustix::fs::makedev(got.stx_dev_major, got.stx_dev_minor),
            ino: got.stx_ino,
        },
        size: got.stx_size,
        mtime: time_of(&got.stx_mtime),
        ctime: time_of(&got.stx_ctime),
    })
}

/// What tells whether a file has been touched, for which it is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its kind; `None` for a socket.
    pub kind: Option<Kind>,
    /// Which file it is.
    pub id: FileId,
    /// Which mount it is in, by the kernel's number; 0 where the kernel does not say.
    pub mount: u64,
    /// How many names it has.
    pub links: u32,
    /// Time of last change of content or metadata.
    pub ctime: Time,
}

/// Glances at a name in an open directory; the empty name is the directory itself. It costs one
/// system call.
pub fn glance_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Glance> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    let wanted = StatxFlags::TYPE
        | StatxFlags::INO
        | StatxFlags::NLINK
        | StatxFlags::CTIME
        | StatxFlags::MNT_ID;
    let got = statx(dir, name, flags, wanted)?;
    let told = got.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok(Glance {
        kind: kind_of(FileType::from_raw_mode(u32::from(got.stx_mode))),
        id: FileId {
            dev: rustix::fs::makedev(got.stx_dev_major, got.stx_dev_minor),
            ino: got.stx_ino,
        },
        mount: if told { got.stx_mnt_id } else { 0 },
        links: got.stx_nlink,
        ctime: time_of(&got.stx_ctime),
    })
}

/// Looks at a path beneath a directory without following a symbolic link anywhere. `None` for a
/// socket, which no image keeps; an error where there is nothing.
pub fn stat(root: BorrowedFd<'_>, path: &RelPath) -> io::Result<Option<Stat>> {
    match path.parent() {
        None => stat_at(root, b""),
        Some(parent) if parent.is_root() => stat_at(root, path.name()),
        Some(parent) => {
            let dir = open_dir(root, &parent)?;
            stat_at(std::os::fd::AsFd::as_fd(&dir), path.name())
        }
    }
}

/// Looks at a name in an open directory; the empty name is the directory itself.
pub fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    debug_assert!(!name.contains(&b'/'));
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    let got = statx(dir, name, flags, StatxFlags::BASIC_STATS)?;
    let mode = u32::from(got.stx_mode);
    let Some(kind) = kind_of(FileType::from_raw_mode(mode)) else {
        return Ok(None);
    };
    let target = match kind {
        Kind::Symlink => readlinkat(dir, name, Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let (xattrs, overlay) = xattr::read(&xattr::proc_path(dir, name)?)?;
    let meta = Meta {
        kind,
        mode: mode & 0o7777,
        uid: got.stx_uid,
        gid: got.stx_gid,
        size: match kind {
            Kind::File => got.stx_size,
            _ => 0,
        },
        mtime: time_of(&got.stx_mtime),
        device: match kind {
            Kind::Char | Kind::Block => (got.stx_rdev_major, got.stx_rdev_minor),
            _ => (0, 0),
        },
        target,
        xattrs,
    };
    Ok(Some(Stat {
        meta,
        id: FileId {
            dev: rustix::fs::makedev(got.stx_dev_major, got.stx_dev_minor),
            ino: got.stx_ino,
        },
        links: got.stx_nlink,
        ctime: time_of(&got.stx_ctime),
        overlay,
    }))
}

/// Opens a directory beneath another without following a symbolic link anywhere.
pub fn open_dir(root: BorrowedFd<'_>, path: &RelPath) -> io::Result<OwnedFd> {
    open_beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a path beneath a directory without following a symbolic link anywhere.
pub(super) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &RelPath,
    flags: OFlags,
) -> io::Result<OwnedFd> {
    loop {
        let opened = openat2(
            root,
            path.as_path(),
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        );
        match opened {
            // The kernel could not rule out a race with a rename somewhere; it says to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Gives what a file is; `None` for a socket, which no layer has.
pub fn kind_of(kind: FileType) -> Option<Kind> {
    Some(match kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket | FileType::Unknown => return None,
    })
}

fn time_of(time: &rustix::fs::StatxTimestamp) -> Time {
    Time {
        secs: time.tv_sec,
        nanos: time.tv_nsec,
    }
}
