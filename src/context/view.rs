use super::target::follow;
use super::{Context, Error, Origin};
use crate::dockerfile::ignore::Verdict;
use crate::fs::{FileId, Kind, Meta, RelPath, Source, Tree, open_dir, stat, stat_at};
use rayon::prelude::*;
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    /// A file on disk.
    Disk(FileId),
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
                context.ignore.is_some() && matches!(stat(context.dir.as_fd(), path), Ok(Some(_)))
            }
            Origin::Tree(_) => false,
        }
    }

    /// Tells whether a directory is there only for what the ignore file keeps in it.
    pub(super) fn is_hollow(&self, dir: &RelPath) -> bool {
        match self {
            Origin::Context(context) => context.verdict(dir, Kind::Dir) != Verdict::Keep,
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
    pub(super) fn verdict(&self, path: &RelPath, kind: Kind) -> Verdict {
        match &self.ignore {
            Some(_) if path.is_root() => Verdict::Keep,
            Some(ignore) if kind == Kind::Dir => ignore.directory(path.as_bytes()),
            Some(ignore) if ignore.is_ignored(path.as_bytes()) => Verdict::Prune,
            _ => Verdict::Keep,
        }
    }

    fn get(&self, path: &RelPath) -> Result<Option<Item>, Error> {
        let Some(parent) = path.parent() else {
            return self.stat(self.dir.as_fd(), b"", path);
        };
        let parent = match open_dir(self.dir.as_fd(), &parent) {
            Ok(parent) => parent,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                    _ => Err(Error::io("open", &parent, error)),
                };
            }
        };
        let item = self.stat(parent.as_fd(), path.name(), path)?;
        Ok(item.filter(|item| self.verdict(path, item.meta.kind) != Verdict::Prune))
    }

    /// Opens a directory and lists it in order of names, with kinds where the file system tells.
    #[expect(clippy::type_complexity, reason = "used here only")]
    fn list(&self, dir: &RelPath) -> Result<(OwnedFd, Vec<(Vec<u8>, Option<Kind>)>), Error> {
        let failed = |errno: Errno| Error::io("read directory", dir, errno);
        let fd = open_dir(self.dir.as_fd(), dir)
            .map_err(|error| Error::io("read directory", dir, error))?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
        let mut out = Vec::new();
        {
            let mut entries = RawDir::new(&fd, &mut buffer);
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
        }
        out.sort_unstable();
        Ok((fd, out))
    }

    /// Gives a file's metadata; `None` where there is none, or a socket.
    fn stat(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &RelPath,
    ) -> Result<Option<Item>, Error> {
        let stat = match stat_at(dir, name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("look at", path, error)),
        };
        let inode = (stat.links > 1 && stat.meta.kind != Kind::Dir).then_some(Inode::Disk(stat.id));
        Ok(Some(Item {
            path: path.clone(),
            // Whoever has the files here, in an image they are root's.
            meta: Meta {
                uid: 0,
                gid: 0,
                ..stat.meta
            },
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
