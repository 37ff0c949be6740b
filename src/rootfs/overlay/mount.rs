//! Overlay mounts: what the kernel here takes, tried once and remembered.

use crate::rootfs::Error;
use crate::rootfs::dirs::{at, open_dir};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    mount, move_mount, unmount,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// How many lower directories the kernel stacks (`OVL_MAX_STACK`).
pub(super) const MAX_LOWERS: usize = 500;

/// One option and why it is wanted.
struct Wish {
    key: &'static str,
    value: Option<&'static str>,
    /// Whether it says something only where there is an upper directory.
    upper_only: bool,
    /// Whether it goes with notes in attributes that only the machine's root can reach.
    trusted_only: bool,
}

/// Every one of these can be done without; those the kernel refuses are left off from then on. When
/// a mount as a whole is refused they go from the last to the first.
const WISHES: [Wish; 5] = [
    // Hard links are broken by a copy up, as in every other builder; with an index the kernel would
    // also refuse a frozen upper directory as a lower one.
    Wish {
        key: "index",
        value: Some("off"),
        upper_only: false,
        trusted_only: false,
    },
    // One device number for all layers, so that `find -xdev` and `du -x` see one file system; the
    // kernel takes it back by itself where inode numbers have no bits to spare.
    Wish {
        key: "xino",
        value: Some("auto"),
        upper_only: false,
        trusted_only: false,
    },
    // A build's upper directory is worthless after a crash, and package managers sync a lot.
    Wish {
        key: "volatile",
        value: None,
        upper_only: true,
        trusted_only: false,
    },
    // A renamed directory is one entry with a note of where it came from, not a copy.
    Wish {
        key: "redirect_dir",
        value: Some("on"),
        upper_only: false,
        trusted_only: true,
    },
    // A changed owner or mode does not copy the content up. Needs `redirect_dir`.
    Wish {
        key: "metacopy",
        value: Some("on"),
        upper_only: false,
        trusted_only: true,
    },
];

/// How the directories are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// The new calls, one descriptor a layer (Linux 6.13).
    Descriptors,
    /// The new calls, one string a layer (Linux 6.5). The strings name descriptors of ours in
    /// /proc, since they may have no more than 255 bytes.
    Strings,
    /// One call with all options in one page: some 200 layers by short names in /proc.
    OneCall,
}

/// What is stacked.
pub(super) struct Stack<'a> {
    /// The lower directories, bottom first; at least one, and two where there is no upper.
    pub lowers: &'a [Arc<Path>],
    /// The upper directory and the work directory, for a mount that can be written to.
    pub upper: Option<(&'a Path, &'a Path)>,
}

/// Mounts stacks and remembers what the kernel refused.
#[derive(Debug)]
pub(super) struct Mounter {
    pub notes: Notes,
    refused: AtomicU32,
    way: AtomicU8,
}

/// Where the kernel keeps what it notes on files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notes {
    /// In `trusted.overlay.*`.
    Trusted,
    /// In `user.overlay.*`, as in a user namespace. Nobody who sees the files through the mount can
    /// reach those either.
    User,
}

impl Notes {
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Notes::Trusted => b"trusted.overlay.",
            Notes::User => b"user.overlay.",
        }
    }
}

impl Default for Mounter {
    fn default() -> Mounter {
        Mounter {
            notes: match crate::sys::in_user_namespace() {
                true => Notes::User,
                false => Notes::Trusted,
            },
            refused: AtomicU32::default(),
            way: AtomicU8::default(),
        }
    }
}

/// A refusal, with what the kernel had to say.
struct Refusal {
    error: Errno,
    what: String,
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Refusal {
        Refusal {
            error,
            what: "mount".into(),
        }
    }
}

impl Mounter {
    /// Mounts a stack on a directory and gives its root, open for reading.
    pub fn attach(&self, stack: &Stack<'_>, target: &Path) -> Result<OwnedFd, Error> {
        let made = self.make(stack, target)?;
        if let Some(made) = made {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&made, c"", CWD, target, flags).map_err(at("mount on", target))?;
        }
        open_dir(target)
    }

    /// Mounts a stack where nobody sees it; it goes with the descriptor. `spare` is an empty
    /// directory that is needed for a moment on old kernels.
    pub fn detached(&self, stack: &Stack<'_>, spare: &Path) -> Result<OwnedFd, Error> {
        if let Some(made) = self.make(stack, spare)? {
            return Ok(made);
        }
        let root = open_dir(spare)?;
        unmount(spare, UnmountFlags::DETACH).map_err(at("unmount", spare))?;
        Ok(root)
    }

    /// Makes the mount: a descriptor of one that is nowhere yet, or `None` where it is on `target`
    /// already.
    fn make(&self, stack: &Stack<'_>, target: &Path) -> Result<Option<OwnedFd>, Error> {
        if stack.lowers.len() > MAX_LOWERS {
            return Err(refused(format!(
                "{} layers lie over each other, the kernel takes {MAX_LOWERS}; build from a base \
                 with fewer layers",
                stack.lowers.len()
            )));
        }
        let dirs = stack
            .lowers
            .iter()
            .rev()
            .map(|dir| open_dir(dir))
            .collect::<Result<Vec<_>, _>>()?;
        let upper = match stack.upper {
            Some((upper, work)) => Some((open_dir(upper)?, open_dir(work)?)),
            None => None,
        };
        loop {
            let way = self.way();
            let result = match way {
                Way::Descriptors | Way::Strings => {
                    self.by_new_calls(way, &dirs, upper.as_ref()).map(Some)
                }
                Way::OneCall => self
                    .by_one_call(&dirs, upper.as_ref(), target)
                    .map(|()| None),
            };
            match result {
                Ok(made) => return Ok(made),
                Err(refusal) => self.give_way(way, upper.is_some(), refusal)?,
            }
        }
    }

    fn way(&self) -> Way {
        match self.way.load(Ordering::Relaxed) {
            0 => Way::Descriptors,
            1 => Way::Strings,
            _ => Way::OneCall,
        }
    }

    /// Notes a refusal and chooses what to try next; gives up where there is nothing left.
    fn give_way(&self, way: Way, upper: bool, refusal: Refusal) -> Result<(), Error> {
        let unknown = matches!(
            refusal.error,
            Errno::INVAL | Errno::NOSYS | Errno::BADF | Errno::OPNOTSUPP
        );
        if refusal.what == "lowerdir+" && unknown && way < Way::OneCall {
            self.way.store(way as u8 + 1, Ordering::Relaxed);
            return Ok(());
        }
        if refusal.error == Errno::NOSYS && way < Way::OneCall {
            self.way.store(Way::OneCall as u8, Ordering::Relaxed);
            return Ok(());
        }
        if unknown || refusal.error == Errno::PERM {
            let left = self.wishes(upper).map(|(at, _)| at).last();
            if let Some(at) = left {
                self.refuse(at);
                return Ok(());
            }
        }
        let action = match refusal.what.as_str() {
            "mount" => "mount".to_owned(),
            what => format!("mount ({what})"),
        };
        Err(Error::Mount {
            strategy: "overlay",
            action,
            source: refusal.error.into(),
        })
    }

    /// Gives the options that are wanted and not yet refused.
    fn wishes(&self, upper: bool) -> impl Iterator<Item = (usize, &'static Wish)> + use<> {
        let refused = self.refused.load(Ordering::Relaxed);
        let trusted = self.notes == Notes::Trusted;
        WISHES.iter().enumerate().filter(move |(at, wish)| {
            refused & (1 << at) == 0
                && (upper || !wish.upper_only)
                && (trusted || !wish.trusted_only)
        })
    }

    /// Gives the names of the options that the kernel refused.
    pub fn left_off(&self) -> Vec<&'static str> {
        let refused = self.refused.load(Ordering::Relaxed);
        let wishes = WISHES.iter().enumerate();
        wishes
            .filter(|(at, _)| refused & (1 << at) != 0)
            .map(|(_, wish)| wish.key)
            .collect()
    }

    fn refuse(&self, at: usize) {
        self.refused.fetch_or(1 << at, Ordering::Relaxed);
    }

    fn by_new_calls(
        &self,
        way: Way,
        lowers: &[OwnedFd],
        upper: Option<&(OwnedFd, OwnedFd)>,
    ) -> Result<OwnedFd, Refusal> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(fs.as_fd(), "source", "overlay")?;
        let dir = |key: &str, dir: &OwnedFd| {
            match way {
                Way::Descriptors => fsconfig_set_fd(fs.as_fd(), key, dir),
                _ => fsconfig_set_string(fs.as_fd(), key, in_proc(dir)),
            }
            .map_err(|error| Refusal {
                error,
                what: key.to_owned(),
            })
        };
        for lower in lowers {
            dir("lowerdir+", lower)?;
        }
        if let Some((upper, work)) = upper {
            dir("upperdir", upper)?;
            dir("workdir", work)?;
        }
        if self.notes == Notes::User {
            fsconfig_set_flag(fs.as_fd(), "userxattr").map_err(|error| Refusal {
                error,
                what: "userxattr: it takes Linux 5.11".into(),
            })?;
        }
        for (at, wish) in self.wishes(upper.is_some()) {
            let set = match wish.value {
                Some(value) => fsconfig_set_string(fs.as_fd(), wish.key, value),
                None => fsconfig_set_flag(fs.as_fd(), wish.key),
            };
            if set.is_err() {
                self.refuse(at);
            }
        }
        let attributes = match upper {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        fsconfig_create(fs.as_fd()).map_err(|error| Refusal {
            error,
            what: log(&fs),
        })?;
        Ok(fsmount(
            fs.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            attributes,
        )?)
    }

    fn by_one_call(
        &self,
        lowers: &[OwnedFd],
        upper: Option<&(OwnedFd, OwnedFd)>,
        target: &Path,
    ) -> Result<(), Refusal> {
        let names: Vec<String> = lowers.iter().map(in_proc).collect();
        let mut data = format!("lowerdir={}", names.join(":"));
        if let Some((upper, work)) = upper {
            data += &format!(",upperdir={},workdir={}", in_proc(upper), in_proc(work));
        }
        if self.notes == Notes::User {
            data += ",userxattr";
        }
        for (_, wish) in self.wishes(upper.is_some()) {
            data += ",";
            data += wish.key;
            if let Some(value) = wish.value {
                data += "=";
                data += value;
            }
        }
        if data.len() >= 4096 {
            return Err(Refusal {
                error: Errno::TOOBIG,
                what: format!(
                    "{} layers are too many for the mount call of this kernel",
                    lowers.len()
                ),
            });
        }
        let flags = match upper {
            Some(_) => MountFlags::empty(),
            None => MountFlags::RDONLY,
        };
        let data = CString::new(data).map_err(|_| Errno::INVAL)?;
        Ok(mount("overlay", target, "overlay", flags, data.as_c_str())?)
    }
}

fn refused(why: String) -> Error {
    Error::Refused {
        strategy: "overlay",
        why,
    }
}

/// Gives a short name of an open directory.
fn in_proc(dir: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}

/// Reads what the kernel said of a failed mount; "mount" where it said nothing.
fn log(fs: &OwnedFd) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut line = [0; 1024];
    // Each read gives one message; the kernel keeps eight.
    while let Ok(len) = rustix::io::read(fs, &mut line) {
        let text = String::from_utf8_lossy(line.get(..len).unwrap_or_default());
        let text = text
            .trim()
            .trim_start_matches("e ")
            .trim_start_matches("w ");
        lines.push(text.trim_start_matches("overlay: ").to_owned());
        if len == 0 || lines.len() == 8 {
            break;
        }
    }
    lines.retain(|line| !line.is_empty());
    if lines.is_empty() {
        "mount".into()
    } else {
        lines.join("; ")
    }
}
