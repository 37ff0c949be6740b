use super::Error;
use crate::changeset::{Action, Change, Changeset, State};
use crate::fs::{Kind, Meta, RelPath, Source, Time, Tree};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// A tree with what a COPY puts on it: every look sees what was put before.
pub(super) struct Target<'a> {
    tree: &'a Tree,
    put: BTreeMap<RelPath, Put>,
    /// What became of a file's metadata with a further name, by the number of the file.
    relinked: HashMap<u64, Meta>,
}

struct Put {
    meta: Meta,
    source: Option<Source>,
    /// Names with the same number are hard links of one file.
    inode: Option<u64>,
    /// Whether nothing of the tree shows below it.
    fresh: bool,
}

/// What a directory is like that has to be made.
#[derive(Clone, Copy)]
pub(super) struct NewDir {
    mode: u32,
    /// Root's where none is said.
    owner: Option<(u32, u32)>,
    time: Time,
}

const SET_GID: u32 = 0o2000;

impl NewDir {
    pub(super) fn of(mode: u32, owner: Option<(u32, u32)>, time: Time) -> NewDir {
        NewDir { mode, owner, time }
    }

    /// The same with another time.
    pub(super) fn at(self, time: Time) -> NewDir {
        NewDir { time, ..self }
    }

    /// Gives it as the kernel makes it in `parent`: a set-group-ID directory hands the bit down,
    /// and its group to who says nothing of an owner.
    fn meta_in(&self, parent: Option<&Meta>) -> Meta {
        let handing = parent.filter(|parent| parent.mode & SET_GID != 0);
        let (uid, gid) = self
            .owner
            .unwrap_or((0, handing.map_or(0, |parent| parent.gid)));
        let mode = self.mode | handing.map_or(0, |_| SET_GID);
        Meta {
            uid,
            gid,
            ..Meta::dir(mode, self.time)
        }
    }
}

impl<'a> Target<'a> {
    pub(super) fn new(tree: &'a Tree) -> Target<'a> {
        Target {
            tree,
            put: BTreeMap::new(),
            relinked: HashMap::new(),
        }
    }

    /// Looks a path up; symbolic links are not followed, also not on the way.
    pub(super) fn get(&self, path: &RelPath) -> Option<Meta> {
        if let Some((last, put)) = self.up_to(path) {
            if last == path {
                return Some(put.meta.clone());
            }
            if self.above(path, last, put).is_some_and(|above| above.fresh) {
                return None;
            }
        }
        self.tree.get(path).map(|found| found.meta)
    }

    /// Gives what was put at a path, or else just before it in order.
    fn up_to(&self, path: &RelPath) -> Option<(&RelPath, &Put)> {
        // Most of what is put comes in order.
        let last = self.put.last_key_value()?;
        if last.0 <= path {
            return Some(last);
        }
        let range = (Bound::Unbounded, Bound::Included(path));
        self.put.range::<RelPath, _>(range).next_back()
    }

    /// Gives what was put nearest above a path that nothing was put at, of which `put` at `before` is
    /// just before it. All that stands between the two in order is below the one that is looked for, and
    /// so is what stands just before.
    fn above<'s>(&'s self, path: &RelPath, before: &RelPath, put: &'s Put) -> Option<&'s Put> {
        if path.is_within(before) {
            return Some(put);
        }
        let common = before.common(path);
        std::iter::once(common.clone())
            .chain(common.ancestors())
            .find_map(|above| self.put.get(&above))
    }

    /// Follows symbolic links inside `root`, on the way and at the end; `path` is seen from `root`.
    pub(super) fn resolve(&self, root: &RelPath, path: &RelPath) -> Result<RelPath, Error> {
        follow(root, path, |path| Ok(self.get(path)))
    }

    /// Makes a directory and those above it, where they are not there. `path` is resolved.
    pub(super) fn make_directories(&mut self, path: &RelPath, new: &NewDir) -> Result<(), Error> {
        match self.get(path).map(|meta| meta.kind) {
            Some(Kind::Dir) => return Ok(()),
            Some(_) => return Err(Error::NotDirectory(path.clone())),
            None => {}
        }
        // Down from the root to what is missing first: nothing is below that.
        let mut above = RelPath::root();
        let mut meta = self.get(&above);
        let mut missing = false;
        for name in path.components() {
            let here = above.join(name);
            let there = match missing {
                true => None,
                false => self.get(&here),
            };
            match there {
                Some(there) if there.kind == Kind::Dir => meta = Some(there),
                Some(_) => return Err(Error::NotDirectory(here)),
                None => {
                    missing = true;
                    let made = new.meta_in(meta.as_ref());
                    let put = Put {
                        meta: made.clone(),
                        source: None,
                        inode: None,
                        fresh: true,
                    };
                    self.put.insert(here.clone(), put);
                    meta = Some(made);
                }
            }
            above = here;
        }
        Ok(())
    }

    /// Puts a directory; what is in it stays where there was one before.
    pub(super) fn put_dir(&mut self, path: RelPath, meta: Meta) {
        let fresh = match self.get(&path) {
            Some(old) if old.kind == Kind::Dir => self.put.get(&path).is_some_and(|put| put.fresh),
            _ => true,
        };
        let put = Put {
            meta,
            source: None,
            inode: None,
            fresh,
        };
        self.put.insert(path, put);
    }

    /// Puts anything but a directory, in place of whatever was there with all below it.
    pub(super) fn put_other(
        &mut self,
        path: RelPath,
        meta: Meta,
        source: Option<Source>,
        inode: Option<u64>,
    ) {
        let put = Put {
            meta,
            source,
            inode,
            fresh: true,
        };
        let dir = match self.put.entry(path) {
            Entry::Vacant(place) => {
                place.insert(put);
                None
            }
            Entry::Occupied(mut place) => {
                let old = place.insert(put);
                (old.meta.kind == Kind::Dir).then(|| place.key().clone())
            }
        };
        if let Some(path) = dir {
            self.remove_below(&path);
        }
    }

    fn remove_below(&mut self, path: &RelPath) {
        let below = (Bound::Excluded(path), Bound::Unbounded);
        let below: Vec<RelPath> = self
            .put
            .range::<RelPath, _>(below)
            .map(|(other, _)| other)
            .take_while(|other| other.is_within(path))
            .cloned()
            .collect();
        for other in below {
            self.put.remove(&other);
        }
    }

    /// Gives a file one more name, and all its names what `said` says of owner, mode and time;
    /// `inode` is a new number for the case that it has none. False where there is nothing that can
    /// have further names.
    pub(super) fn link(&mut self, old: &RelPath, new: RelPath, inode: u64, said: &Meta) -> bool {
        if !self.put.contains_key(old) {
            // The name is the tree's: the layer needs the file too, or there is nothing to link to.
            let Some(meta) = self.get(old) else {
                return false;
            };
            if meta.kind != Kind::Dir {
                let source = self.tree.source(old);
                self.put_other(old.clone(), meta, source, None);
            }
        }
        let Some(file) = self
            .put
            .get_mut(old)
            .filter(|put| put.meta.kind != Kind::Dir)
        else {
            return false;
        };
        let inode = *file.inode.get_or_insert(inode);
        let source = file.source.clone();
        let mut meta = self.relinked.get(&inode).unwrap_or(&file.meta).clone();
        (meta.uid, meta.gid) = (said.uid, said.gid);
        if meta.kind != Kind::Symlink {
            (meta.mode, meta.mtime) = (said.mode, said.mtime);
        }
        self.relinked.insert(inode, meta.clone());
        if *old != new {
            self.put_other(new, meta, source, Some(inode));
        }
        true
    }

    /// Gives what was put as a changeset; of the names of one file the first has the content.
    pub(super) fn finish(self) -> Changeset {
        let mut first: HashMap<u64, RelPath> = HashMap::new();
        let mut changes = Vec::with_capacity(self.put.len());
        for (path, put) in self.put {
            let Put {
                meta,
                source,
                inode,
                fresh,
            } = put;
            let relinked = inode.and_then(|inode| self.relinked.get(&inode));
            let meta = relinked.cloned().unwrap_or(meta);
            let hides = fresh
                && meta.kind == Kind::Dir
                && self
                    .tree
                    .get(&path)
                    .is_some_and(|found| found.meta.kind == Kind::Dir);
            let action = if hides {
                Action::Opaque(meta)
            } else {
                let link = inode.and_then(|inode| match first.get(&inode) {
                    Some(name) => Some(name.clone()),
                    None => {
                        first.insert(inode, path.clone());
                        None
                    }
                });
                Action::Put {
                    meta,
                    source: source.filter(|_| link.is_none()),
                    link,
                }
            };
            changes.push(Change { path, action });
        }
        Changeset {
            changes,
            state: State::Frozen,
        }
    }
}

/// How many symbolic links are followed before giving up, as Linux does.
pub(super) const MAX_LINKS: usize = 40;

/// Follows symbolic links inside `root`; what does not exist stays as written.
pub(super) fn follow(
    root: &RelPath,
    path: &RelPath,
    get: impl Fn(&RelPath) -> Result<Option<Meta>, Error>,
) -> Result<RelPath, Error> {
    let mut open: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
    open.reverse();
    let mut at = root.clone();
    let mut links = 0;
    // How deep the first directory is that does not exist; nothing is below it.
    let mut gone: Option<usize> = None;
    let depth = |path: &RelPath| path.as_bytes().len();
    while let Some(name) = open.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if at != *root {
                    at = at.parent().unwrap_or_default();
                    gone = gone.filter(|gone| *gone <= depth(&at));
                }
                continue;
            }
            _ => {}
        }
        let next = at.join(&name);
        let there = match gone {
            Some(_) => None,
            None => get(&next)?,
        };
        if there.is_none() {
            gone.get_or_insert(depth(&next));
        }
        match there {
            Some(meta) if meta.kind == Kind::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::io("resolve", path, rustix::io::Errno::LOOP));
                }
                if meta.target.starts_with(b"/") {
                    at = root.clone();
                }
                let parts = meta.target.split(|&c| c == b'/');
                open.extend(parts.rev().map(<[u8]>::to_vec));
            }
            _ => at = next,
        }
    }
    Ok(at)
}
