use super::target::follow;
use super::{Context, Error, Origin};
use crate::dockerfile::ignore::Verdict;
use crate::fs::{Kind, Meta, RelPath, Source, Time, Tree};
use rayon::prelude::*;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, StatxFlags, openat2, readlinkat, statx,
};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A file of a context or tree.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Where it is, as seen from the root.
    pub path: RelPath,
    /// Its metadata; everything in a context belongs to root.
    pub meta: Meta,
    /// What its further names have too, where it may have some.
    pub inode: Option<Inode>,
}

/// Names a file among those of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Inode {
    /// Device and number on disk.
    Disk(u32, u32, u64),
    /// Layer and first name in it.
    Layer(usize, RelPath),
}

impl Origin<'_> {
    /// Looks a path up; symbolic links are not followed, also not on the way. What the ignore file
    /// leaves out is not there; a directory is there as long as something in it may be.
    pub(super) fn get(&self, path: &RelPath) -> Result<Option<Item>, Error> {
        match self {
            Origin::Context(context) => context.get(path),
            Origin::Tree(tree) => Ok(tree.get(path).map(|found| Item {
                inode: layer_inode(path, &found),
                path: path.clone(),
                meta: found.meta,
            })),
        }
    }

    /// Follows symbolic links, on the way and at the end.
    pub(super) fn resolve(&self, path: &RelPath) -> Result<RelPath, Error> {
        let get = |path: &RelPath| Ok(self.get(path)?.map(|item| item.meta));
        follow(&RelPath::root(), path, get)
    }

    /// Lists a directory in order of names; nothing where it is none.
    pub(super) fn children(&self, dir: &RelPath) -> Result<Vec<(Vec<u8>, Kind)>, Error> {
        match self {
            Origin::Context(context) => {
                let Some(item) = context.get(dir)? else {
                    return Ok(Vec::new());
                };
                if item.meta.kind != Kind::Dir {
                    return Ok(Vec::new());
                }
                let (fd, names) = context.list(dir)?;
                let mut out = Vec::new();
                for (name, kind) in names {
                    let path = dir.join(&name);
                    let kind = match kind {
                        Some(kind) => kind,
                        None => match context.stat(fd.as_fd(), &name, &path)? {
                            Some(item) => item.meta.kind,
                            None => continue,
                        },
                    };
                    if context.verdict(&path, kind) != Verdict::Prune {
                        out.push((name, kind));
                    }
                }
                Ok(out)
            }
            Origin::Tree(tree) => Ok(tree
                .children(dir)
                .into_iter()
                .map(|(name, found)| (name, found.meta.kind))
                .collect()),
        }
    }

    /// Gives everything below a directory in canonical order.
    pub(super) fn below(&self, dir: &RelPath) -> Result<Vec<Item>, Error> {
        match self {
            Origin::Context(context) => context.scan(dir),
            Origin::Tree(tree) => Ok(tree_below(tree, dir)),
        }
    }

    /// Gives where a regular file's content is.
    pub(super) fn source(&self, path: &RelPath) -> Option<Source> {
        match self {
            Origin::Context(context) => Some(Source::File {
                dir: Arc::clone(&context.dir),
                path: path.clone(),
            }),
            Origin::Tree(tree) => tree.source(path),
        }
    }

    /// Tells whether a file is there that the ignore file leaves out.
    pub(super) fn is_left_out(&self, path: &RelPath) -> bool {
        match self {
            Origin::Context(context) => {
                context.ignore.is_some()
                    && statx(
                        context.dir.as_fd(),
                        path.as_path(),
                        AtFlags::SYMLINK_NOFOLLOW,
                        StatxFlags::TYPE,
                    )
                    .is_ok()
            }
            Origin::Tree(_) => false,
        }
    }
}

fn layer_inode(path: &RelPath, found: &crate::fs::Found) -> Option<Inode> {
    let first = found.link.as_ref().unwrap_or(path);
    (found.meta.kind != Kind::Dir).then(|| Inode::Layer(found.layer, first.clone()))
}

fn tree_below(tree: &Tree, dir: &RelPath) -> Vec<Item> {
    let mut out = Vec::new();
    tree.walk(dir, &mut |path, found| {
        if path != dir {
            out.push(Item {
                inode: layer_inode(path, found),
                path: path.clone(),
                meta: found.meta.clone(),
            });
        }
    });
    out
}

impl Context {
    fn verdict(&self, path: &RelPath, kind: Kind) -> Verdict {
        match &self.ignore {
            Some(_) if path.is_root() => Verdict::Keep,
            Some(ignore) if kind == Kind::Dir => ignore.directory(path.as_bytes()),
            Some(ignore) if ignore.is_ignored(path.as_bytes()) => Verdict::Prune,
            _ => Verdict::Keep,
        }
    }

    fn get(&self, path: &RelPath) -> Result<Option<Item>, Error> {
        let Some(parent) = path.parent() else {
            return self.stat(self.dir.as_fd(), b".", path);
        };
        let parent = match self.open(&parent) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(Error::io("open", &parent, errno)),
        };
        let item = self.stat(parent.as_fd(), path.name(), path)?;
        Ok(item.filter(|item| self.verdict(path, item.meta.kind) != Verdict::Prune))
    }

    fn open(&self, dir: &RelPath) -> Result<OwnedFd, Errno> {
        openat2(
            self.dir.as_fd(),
            dir.as_path(),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Opens a directory and lists it in order of names, with kinds where the file system tells.
    #[expect(clippy::type_complexity, reason = "used here only")]
    fn list(&self, dir: &RelPath) -> Result<(OwnedFd, Vec<(Vec<u8>, Option<Kind>)>), Error> {
        let failed = |errno: Errno| Error::io("read directory", dir, errno);
        let fd = self.open(dir).map_err(failed)?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
        let mut entries = RawDir::new(&fd, &mut buffer);
        let mut out = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => None,
                // A socket is nothing an image can hold.
                FileType::Socket => continue,
                other => kind_of(other),
            };
            out.push((name.to_vec(), kind));
        }
        drop(entries);
        out.sort_unstable();
        Ok((fd, out))
    }

    /// Gives a file's metadata; `None` where there is none, or a socket.
    fn stat(&self, dir: BorrowedFd<'_>, name: &[u8], path: &RelPath) -> Result<Option<Item>, Error> {
        let failed = |errno: Errno| Error::io("stat", path, errno);
        let stat = match statx(
            dir,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        ) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let mode = u32::from(stat.stx_mode);
        let Some(kind) = kind_of(FileType::from_raw_mode(mode)) else {
            return Ok(None);
        };
        let target = match kind {
            Kind::Symlink => readlinkat(dir, name, Vec::new())
                .map_err(failed)?
                .into_bytes(),
            _ => Vec::new(),
        };
        let xattrs = match kind {
            Kind::File | Kind::Dir => xattrs(dir, name).map_err(failed)?,
            _ => Vec::new(),
        };
        let is_device = matches!(kind, Kind::Char | Kind::Block);
        let meta = Meta {
            kind,
            mode: mode & 0o7777,
            uid: 0,
            gid: 0,
            size: if kind == Kind::File { stat.stx_size } else { 0 },
            mtime: Time {
                secs: stat.stx_mtime.tv_sec,
                nanos: stat.stx_mtime.tv_nsec,
            },
            device: if is_device {
                (stat.stx_rdev_major, stat.stx_rdev_minor)
            } else {
                (0, 0)
            },
            target,
            xattrs,
        };
        let inode = (stat.stx_nlink > 1 && kind != Kind::Dir)
            .then_some(Inode::Disk(stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino));
        Ok(Some(Item {
            path: path.clone(),
            meta,
            inode,
        }))
    }

    /// Gives everything below a directory in canonical order, without what the ignore file leaves
    /// out; directories and the files in them are looked at in parallel.
    fn scan(&self, dir: &RelPath) -> Result<Vec<Item>, Error> {
        let found: Vec<Item> = {
            let (fd, names) = self.list(dir)?;
            let stats: Result<Vec<Option<Item>>, Error> = names
                .par_iter()
                .with_min_len(32)
                .map(|(name, kind)| {
                    let path = dir.join(name);
                    // Known kinds spare the call for what is left out.
                    if kind.is_some_and(|kind| self.verdict(&path, kind) == Verdict::Prune) {
                        return Ok(None);
                    }
                    let item = self.stat(fd.as_fd(), name, &path)?;
                    Ok(item.filter(|item| {
                        kind.is_some() || self.verdict(&path, item.meta.kind) != Verdict::Prune
                    }))
                })
                .collect();
            stats?.into_iter().flatten().collect()
        };
        let parts: Result<Vec<Vec<Item>>, Error> = found
            .into_par_iter()
            .map(|item| {
                if item.meta.kind != Kind::Dir {
                    return Ok(vec![item]);
                }
                let below = self.scan(&item.path)?;
                let kept = self.verdict(&item.path, Kind::Dir) == Verdict::Keep;
                if below.is_empty() && !kept {
                    return Ok(Vec::new());
                }
                let mut out = Vec::with_capacity(below.len() + 1);
                out.push(item);
                out.extend(below);
                Ok(out)
            })
            .collect();
        Ok(parts?.into_iter().flatten().collect())
    }
}

fn kind_of(kind: FileType) -> Option<Kind> {
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

/// Gives the extended attributes that go into an image: capabilities and what users set.
fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Errno> {
    // There is no call that takes a directory and a name; the way through /proc is one look-up.
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let mut names = [0; 4096];
    let length = match rustix::fs::llistxattr(&*path, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::NOENT | Errno::RANGE) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut out = Vec::new();
    for name in names[..length].split(|&c| c == 0) {
        if name != b"security.capability" && !name.starts_with(b"user.") {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        match rustix::fs::lgetxattr(&*path, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                out.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    out.sort_unstable();
    Ok(out)
}
