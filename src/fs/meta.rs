/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// A time: seconds since 1970 and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// The metadata of a file: everything an image keeps of it but name and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a regular file's content in bytes; 0 for everything else.
    pub size: u64,
    /// Time of last modification.
    pub mtime: Time,
    /// Major and minor number of a device; zeroes for everything else.
    pub device: (u32, u32),
    /// Target of a symbolic link; empty for everything else.
    pub target: Vec<u8>,
    /// Extended attributes an image keeps, sorted by name; values are any bytes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meta {
    /// Makes a directory's metadata, owned by root.
    pub fn dir(mode: u32, mtime: Time) -> Meta {
        Meta {
            kind: Kind::Dir,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime,
            device: (0, 0),
            target: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    /// Makes a regular file's metadata, owned by root.
    pub fn file(mode: u32, size: u64, mtime: Time) -> Meta {
        Meta {
            kind: Kind::File,
            size,
            ..Meta::dir(mode, mtime)
        }
    }
}
