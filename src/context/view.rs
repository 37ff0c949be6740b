use super::pick::{Choice, Pick, Place};
use super::target::follow;
use super::{Context, Error, Origin};
use crate::dockerfile::ignore::{Above, Verdict};
use crate::fs::{
    FileId, Found, Kind, Meta, RelPath, Seen, Source, Stamp, Tree, kind_of, open_dir, stat, stat_at,
};
use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, RawDir};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
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
    /// What tells whether its content is still the same: a context is somebody else's.
    pub stamp: Option<Stamp>,
    /// Whether it is a directory that is there only for what is copied out of it.
    pub bare: bool,
}

/// Names a file among those of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Inode {
    /// A file on disk.
    Disk(FileId),
    /// Layer and first name in it.
    Layer(usize, RelPath),
}

/// What is below a directory.
pub(super) struct Below {
    /// What is picked of it, in canonical order.
    pub items: Vec<Item>,
    /// Whether the directory is there: one that the ignore file leaves out is so only where it
    /// keeps something in it.
    pub alive: bool,
}

/// Says which names of a directory matter, by path and kind.
pub(super) type Wanted<'a> = &'a dyn Fn(&RelPath, Kind) -> bool;

impl Origin<'_> {
    /// Looks a path up; symbolic links are not followed, also not on the way. What the ignore file
    /// leaves out is not there; a directory is there as long as something in it may be.
    pub(super) fn get(&self, path: &RelPath) -> Result<Option<Item>, Error> {
        match self {
            Origin::Context(context) => context.get(path),
            Origin::Tree(tree) => Ok(tree.get(path).map(|found| item_of(path, &found))),
        }
    }

    /// Follows symbolic links, on the way and at the end.
    pub(super) fn resolve(&self, path: &RelPath) -> Result<RelPath, Error> {
        let get = |path: &RelPath| Ok(self.get(path)?.map(|item| item.meta));
        follow(&RelPath::root(), path, get)
    }

    /// Lists what is wanted of a directory in order of names; nothing where it is none.
    pub(super) fn children(
        &self,
        dir: &RelPath,
        wanted: Wanted<'_>,
    ) -> Result<Vec<(RelPath, Kind)>, Error> {
        match self {
            Origin::Context(context) => {
                let Some(item) = context.get(dir)? else {
                    return Ok(Vec::new());
                };
                match item.meta.kind {
                    Kind::Dir => context.children(dir, wanted),
                    _ => Ok(Vec::new()),
                }
            }
            Origin::Tree(tree) => Ok(tree
                .children(dir)
                .into_iter()
                .map(|(name, found)| (dir.join(&name), found.meta.kind))
                .filter(|(path, kind)| wanted(path, *kind))
                .collect()),
        }
    }

    /// Gives what is picked of everything below a directory.
    pub(super) fn below(&self, dir: &RelPath, pick: &Pick<'_>) -> Result<Below, Error> {
        match self {
            Origin::Context(context) => context.below(dir, pick),
            Origin::Tree(tree) => Ok(Below {
                items: tree_below(tree, dir, pick),
                alive: true,
            }),
        }
    }

    /// Gives where a regular file's content is.
    pub(super) fn source(&self, item: &Item) -> Option<Source> {
        match self {
            Origin::Context(context) => Some(Source::Seen(Arc::new(Seen {
                dir: Arc::clone(&context.dir),
                path: item.path.clone(),
                stamp: item.stamp?,
            }))),
            Origin::Tree(tree) => tree.source(&item.path),
        }
    }

    /// Says why a source is not there that `name` means and that links lead to `path` from.
    pub(super) fn missing(&self, name: &RelPath, path: &RelPath) -> Result<Error, Error> {
        if let Origin::Context(context) = self {
            if context.is_socket(path) {
                return Ok(Error::Socket(name.clone()));
            }
            if context.ignore.is_some() && matches!(stat(context.dir.as_fd(), path), Ok(Some(_))) {
                return Ok(Error::LeftOut(name.clone()));
            }
        }
        // The link that leads astray is the last one that is come to.
        let mut at = name.clone();
        let mut last = None;
        for _ in 0..=super::target::MAX_LINKS {
            let Some((link, target, next)) = self.first_link(&at)? else {
                break;
            };
            last = Some((link, target));
            at = next;
        }
        Ok(match last {
            Some((link, target)) => Error::Dangling {
                name: name.clone(),
                link,
                target,
            },
            None => Error::NotFound(name.clone()),
        })
    }

    /// Gives the first symbolic link of a path, what it says, and where the path leads with it
    /// followed.
    fn first_link(&self, path: &RelPath) -> Result<Option<(RelPath, Vec<u8>, RelPath)>, Error> {
        let mut at = RelPath::root();
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            let here = at.join(part);
            match self.get(&here)? {
                Some(item) if item.meta.kind == Kind::Symlink => {
                    let target = item.meta.target;
                    let from = match target.first() {
                        Some(b'/') => &b""[..],
                        _ => at.as_bytes(),
                    };
                    let mut next = [from, b"/", &target[..]].concat();
                    for part in parts {
                        next.push(b'/');
                        next.extend_from_slice(part);
                    }
                    let next = RelPath::clean(&next).unwrap_or_default();
                    return Ok(Some((here, target, next)));
                }
                _ => at = here,
            }
        }
        Ok(None)
    }
}

fn item_of(path: &RelPath, found: &Found) -> Item {
    let first = found.link.as_ref().unwrap_or(path);
    let is_dir = found.meta.kind == Kind::Dir;
    Item {
        inode: (!is_dir).then(|| Inode::Layer(found.layer, first.clone())),
        path: path.clone(),
        meta: found.meta.clone(),
        stamp: None,
        bare: false,
    }
}

fn tree_below(tree: &Tree, dir: &RelPath, pick: &Pick<'_>) -> Vec<Item> {
    let mut out = Vec::new();
    // The directories that lead to where the walk is; those that only lead somewhere wait for it.
    let mut above: Vec<(RelPath, Place, Option<Item>)> = Vec::new();
    let mut left: Option<RelPath> = None;
    tree.walk(dir, &mut |path, found| {
        if left.as_ref().is_some_and(|left| path.is_within(left)) {
            return;
        }
        while above.last().is_some_and(|(dir, ..)| !path.is_within(dir)) {
            above.pop();
        }
        let Some((_, place, _)) = above.last() else {
            if path == dir {
                above.push((path.clone(), pick.top(), None));
            }
            return;
        };
        let below = path.strip(dir).unwrap_or_default();
        let item = item_of(path, found);
        let taken = if found.meta.kind == Kind::Dir {
            let (choice, place) = pick.enter(place, below.as_bytes());
            let waiting = match choice {
                Choice::Leave => {
                    left = Some(path.clone());
                    return;
                }
                Choice::Look => Some(Item {
                    bare: true,
                    ..item.clone()
                }),
                Choice::Take => None,
            };
            above.push((path.clone(), place, waiting));
            choice == Choice::Take
        } else {
            pick.takes(place, below.as_bytes())
        };
        if taken {
            out.extend(above.iter_mut().filter_map(|(.., waiting)| waiting.take()));
            out.push(item);
        }
    });
    out
}

/// How a walk goes on in a directory.
struct Inside {
    path: RelPath,
    /// What the ignore file says of it, and is asked with for what is in it.
    verdict: Verdict,
    above: Above,
    /// What is asked with for what is picked; nothing is where it only matters whether it is there.
    place: Option<Place>,
}

/// What was found in one directory.
#[derive(Default)]
struct Level {
    items: Vec<Item>,
    /// Directories to be kept only if something in them is.
    looks: Vec<RelPath>,
    dirs: Vec<Inside>,
    /// Whether the ignore file keeps anything that is directly in it.
    alive: bool,
}

/// Takes one entry of an open directory: its name, and its kind where the file system tells.
type Take<'a> = dyn FnMut(&OwnedFd, &[u8], Option<Kind>) -> Result<(), Error> + 'a;

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

    fn is_socket(&self, path: &RelPath) -> bool {
        let parent = path.parent().unwrap_or_default();
        open_dir(self.dir.as_fd(), &parent).is_ok_and(|dir| {
            rustix::fs::statat(&dir, path.name(), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
        })
    }

    /// Reads a directory, in no order. Each name comes with its kind where the file system tells;
    /// sockets are nothing an image can hold.
    fn read(&self, dir: &RelPath, take: &mut Take<'_>) -> Result<OwnedFd, Error> {
        let failed = |errno: Errno| Error::io("read directory", dir, errno);
        let fd = open_dir(self.dir.as_fd(), dir)
            .map_err(|error| Error::io("read directory", dir, error))?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 32 << 10];
        {
            let mut entries = RawDir::new(&fd, &mut buffer);
            while let Some(entry) = entries.next() {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_bytes();
                let kind = match entry.file_type() {
                    _ if name == b"." || name == b".." => continue,
                    FileType::Socket => continue,
                    known => kind_of(known),
                };
                take(&fd, name, kind)?;
            }
        }
        Ok(fd)
    }

    fn children(&self, dir: &RelPath, wanted: Wanted<'_>) -> Result<Vec<(RelPath, Kind)>, Error> {
        let mut out = Vec::new();
        self.read(dir, &mut |fd, name, kind| {
            let path = dir.join(name);
            let kind = match kind {
                Some(kind) => Some(kind),
                None => self
                    .stat(fd.as_fd(), name, &path)?
                    .map(|item| item.meta.kind),
            };
            if let Some(kind) = kind
                && wanted(&path, kind)
                && self.verdict(&path, kind) != Verdict::Prune
            {
                out.push((path, kind));
            }
            Ok(())
        })?;
        out.sort_unstable();
        Ok(out)
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
        let inode = stat.shared().map(Inode::Disk);
        Ok(Some(Item {
            path: path.clone(),
            stamp: Some(stat.stamp()),
            // Whoever has the files here, in an image they are root's.
            meta: Meta {
                uid: 0,
                gid: 0,
                ..stat.meta
            },
            inode,
            bare: false,
        }))
    }

    /// Tells whether a directory is in the context: one that the ignore file leaves out is there only
    /// for what is kept in it.
    pub(super) fn is_there(&self, dir: &RelPath) -> Result<bool, Error> {
        if self.verdict(dir, Kind::Dir) == Verdict::Keep {
            return Ok(true);
        }
        let everything = super::pick::without(&["**".to_owned()])?;
        Ok(self.below(dir, &Pick::all(&everything))?.alive)
    }

    /// Gives what is picked of everything below a directory, without what the ignore file leaves
    /// out. Level by level, so that depth costs no stack; directories and files are looked at in
    /// parallel, and nothing is looked at but what is taken.
    fn below(&self, top: &RelPath, pick: &Pick<'_>) -> Result<Below, Error> {
        let verdict = self.verdict(top, Kind::Dir);
        let mut dirs = vec![Inside {
            path: top.clone(),
            verdict,
            above: match &self.ignore {
                Some(ignore) => ignore.above(top.as_bytes()),
                None => Above::default(),
            },
            place: Some(pick.top()),
        }];
        let mut items = Vec::new();
        let mut looks = BTreeSet::new();
        // Directories that the ignore file leaves out, with whether it keeps something in them.
        let mut hollow: BTreeMap<RelPath, bool> = BTreeMap::new();
        while !dirs.is_empty() {
            let levels: Result<Vec<Level>, Error> = dirs
                .par_iter()
                .map(|inside| self.level(top, inside, pick))
                .collect();
            let mut next = Vec::new();
            for (inside, level) in dirs.into_iter().zip(levels?) {
                if inside.verdict != Verdict::Keep {
                    if level.alive {
                        for above in inside.path.ancestors() {
                            let Some(alive) = hollow.get_mut(&above) else {
                                break;
                            };
                            *alive = true;
                        }
                    }
                    hollow.insert(inside.path, level.alive);
                }
                items.extend(level.items);
                looks.extend(level.looks);
                next.extend(level.dirs);
            }
            dirs = next;
        }
        let lives = |path: &RelPath| hollow.get(path) != Some(&false);
        items.retain(|item| lives(&item.path));
        items.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.add_looks(&looks, &mut items)?;
        let alive = lives(top);
        Ok(Below { items, alive })
    }

    /// Adds the directories that lead to something that is taken.
    fn add_looks(&self, looks: &BTreeSet<RelPath>, items: &mut Vec<Item>) -> Result<(), Error> {
        if looks.is_empty() {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for item in items.iter() {
            for dir in item.path.ancestors() {
                // Where one is in already, those above it are.
                if looks.contains(&dir) && !wanted.insert(dir) {
                    break;
                }
            }
        }
        for dir in wanted {
            if let Some(item) = self.get(&dir)? {
                items.push(Item { bare: true, ..item });
            }
        }
        items.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }

    fn level(&self, top: &RelPath, inside: &Inside, pick: &Pick<'_>) -> Result<Level, Error> {
        let mut level = Level::default();
        // What is still to be looked at.
        let mut names: Vec<RelPath> = Vec::new();
        let ignore = self.ignore.as_ref();
        let fd = self.read(&inside.path, &mut |fd, name, kind| {
            let path = inside.path.join(name);
            let kind = match kind {
                Some(kind) => Some(kind),
                None => self
                    .stat(fd.as_fd(), name, &path)?
                    .map(|item| item.meta.kind),
            };
            let Some(kind) = kind else {
                return Ok(());
            };
            let below = path.strip(top).unwrap_or_default();
            if kind != Kind::Dir {
                if ignore.is_some_and(|i| i.matches_in(&inside.above, path.as_bytes())) {
                    return Ok(());
                }
                level.alive = true;
                let place = inside.place.as_ref();
                if place.is_some_and(|place| pick.takes(place, below.as_bytes())) {
                    names.push(path);
                }
                return Ok(());
            }
            let (verdict, above) = match ignore {
                Some(ignore) => ignore.enter(&inside.above, path.as_bytes()),
                None => (Verdict::Keep, Above::default()),
            };
            level.alive |= verdict == Verdict::Keep;
            let (choice, place) = match &inside.place {
                _ if verdict == Verdict::Prune => return Ok(()),
                Some(place) => pick.enter(place, below.as_bytes()),
                None => (Choice::Leave, pick.top()),
            };
            let place = match choice {
                Choice::Take => {
                    names.push(path.clone());
                    Some(place)
                }
                Choice::Look => {
                    level.looks.push(path.clone());
                    Some(place)
                }
                // Whether it is there matters to those above it that are for that alone.
                Choice::Leave if verdict == Verdict::LeaveOutButLook => None,
                Choice::Leave => return Ok(()),
            };
            level.dirs.push(Inside {
                path,
                verdict,
                above,
                place,
            });
            Ok(())
        })?;
        let items: Result<Vec<Option<Item>>, Error> = names
            .par_iter()
            .map(|path| self.stat(fd.as_fd(), path.name(), path))
            .collect();
        level.items = items?.into_iter().flatten().collect();
        Ok(level)
    }
}
