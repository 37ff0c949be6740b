//! What a command may see of a context: the differences to what is on disk.

use super::{Context, Error, Origin};
use crate::changeset::{Action, Change, Changeset, State};
use crate::dockerfile::ignore::Verdict;
use crate::fs::{Kind, Meta, RelPath, Seen, Source, Stat, open_dir, stat, stat_at};
use crate::sys::Cancel;
use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// How many files one thread looks at in a row.
const RUN: usize = 32;

/// A directory or file of a context as a command may see it: without what the ignore file leaves
/// out and without sockets, and all of it root's. Paths are relative to `dir`.
pub struct Visible {
    /// The directory, or the one that the file is in.
    pub dir: Arc<OwnedFd>,
    /// The file's name, where a file is meant.
    pub file: Option<Vec<u8>>,
    /// The directory's own metadata as it is seen.
    pub top: Meta,
    /// What looks different than on disk, changed owners of regular files aside; not settled.
    pub changes: Changeset,
    /// Regular files that belong to somebody else on disk than all are taken to, with their modes.
    pub owned: Vec<(RelPath, u32)>,
    /// How many files each owner and group has.
    owners: HashMap<Owner, usize>,
    /// Whether the directory itself belongs to somebody else.
    top_differs: bool,
}

/// User and group.
pub type Owner = (u32, u32);

/// How what is seen will be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    /// From the directory on disk, which lies below and shows what did not change; and shows what
    /// this owner has as root's.
    Above(Owner),
    /// From nothing: everything is named in the changes.
    Apart,
}

impl Visible {
    /// Tells whether the directory can be shown as it is.
    pub fn is_plain(&self) -> bool {
        self.changes.is_empty() && self.owned.is_empty() && !self.top_differs
    }

    /// Gives the owner of most files, and of how many.
    pub fn common_owner(&self) -> (Owner, usize) {
        let most = self
            .owners
            .iter()
            .max_by_key(|(owner, count)| (**count, **owner));
        most.map_or(((0, 0), 0), |(owner, count)| (*owner, *count))
    }
}

/// Gives the path that a source means, without symbolic links; an error where there is no such file.
pub fn locate(context: &Context, source: &RelPath) -> Result<RelPath, Error> {
    let origin = Origin::Context(context);
    let path = origin.resolve(source)?;
    let Some(item) = origin.get(&path)? else {
        return Err(origin.missing(source, &path)?);
    };
    if item.meta.kind == Kind::Dir && !context.is_there(&path)? {
        return Err(Error::LeftOut(source.clone()));
    }
    Ok(path)
}

/// Finds out what a command sees of a path that `locate` gave; nothing is written. Files that
/// another file system shows at their place are named with their content, since nothing that lies
/// over the directory would show them.
pub fn visible(
    context: &Context,
    path: &RelPath,
    making: Making,
    cancel: &Cancel,
) -> Result<Visible, Error> {
    let found = stat(context.dir.as_fd(), path).map_err(|e| Error::io("look at", path, e))?;
    let is_dir = found.is_some_and(|stat| stat.meta.kind == Kind::Dir);
    let dir = match is_dir {
        true => path.clone(),
        false => path.parent().unwrap_or_default(),
    };
    let fd = open_dir(context.dir.as_fd(), &dir).map_err(|e| Error::io("open", &dir, e))?;
    let survey = Survey {
        context,
        dir: &dir,
        mounts: mounts_below(context.dir.as_fd()),
        home: match making {
            Making::Above(owner) => owner,
            Making::Apart => (0, 0),
        },
        cancel,
    };
    let top = survey.stat(fd.as_fd(), b"", &dir)?;
    let top = top.ok_or_else(|| Error::NotFound(dir.clone()))?.meta;
    // Nobody carries the metadata of the context's own directory over.
    let seen = match is_dir && dir.is_root() {
        true => Meta::dir(0o755, top.mtime),
        false => rooted(top.clone()),
    };
    let as_it_is = (seen.mode, &seen.xattrs) == (top.mode, &top.xattrs);
    let whole = making == Making::Apart;
    let part = match is_dir {
        true => survey.directory(&fd, &dir, whole)?,
        false => survey.one(&fd, path, whole)?,
    };
    Ok(Visible {
        dir: Arc::new(fd),
        file: (!is_dir).then(|| path.name().to_vec()),
        top_differs: whole || is_dir && (survey.differs(owner_of(&top)) || !as_it_is),
        top: seen,
        changes: Changeset {
            changes: part.changes,
            state: State::Frozen,
        },
        owned: part.owned,
        owners: part.owners,
    })
}

struct Survey<'a> {
    context: &'a Context,
    /// What the paths in the result are relative to.
    dir: &'a RelPath,
    /// Where other file systems are mounted, as seen from the context's root, sorted.
    mounts: Vec<RelPath>,
    /// Who has what is shown as root's anyway.
    home: Owner,
    cancel: &'a Cancel,
}

/// What was found in a directory, in canonical order.
#[derive(Default)]
struct Part {
    changes: Vec<Change>,
    owned: Vec<(RelPath, u32)>,
    owners: HashMap<Owner, usize>,
    /// Whether anything in it is seen.
    seen: bool,
}

impl Part {
    fn add(&mut self, mut other: Part) {
        self.changes.append(&mut other.changes);
        self.owned.append(&mut other.owned);
        for (owner, count) in other.owners {
            *self.owners.entry(owner).or_default() += count;
        }
        self.seen |= other.seen;
    }

    fn count(&mut self, owner: Owner) {
        *self.owners.entry(owner).or_default() += 1;
    }
}

/// One entry of a directory.
enum Entry {
    Gone(RelPath),
    Directory(RelPath),
    Other(Part),
}

impl Survey<'_> {
    /// Looks at everything below a directory; where `whole`, all of it is named.
    fn directory(&self, fd: &OwnedFd, dir: &RelPath, whole: bool) -> Result<Part, Error> {
        if self.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let entries: Result<Vec<Entry>, Error> = names(fd, dir)?
            .par_iter()
            .with_min_len(RUN)
            .map(|(name, kind)| self.entry(fd, &dir.join(name), *kind, whole))
            .collect();
        let parts: Result<Vec<Part>, Error> = entries?
            .into_par_iter()
            .map(|entry| match entry {
                Entry::Gone(path) => Ok(self.gone(&path, whole)),
                Entry::Directory(path) => self.subdirectory(&path, whole),
                Entry::Other(part) => Ok(part),
            })
            .collect();
        let mut all = Part::default();
        for part in parts? {
            all.add(part);
        }
        Ok(all)
    }

    fn entry(
        &self,
        fd: &OwnedFd,
        path: &RelPath,
        kind: FileType,
        whole: bool,
    ) -> Result<Entry, Error> {
        let kind = match kind {
            FileType::Unknown => match statat(fd, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => return Ok(Entry::Other(Part::default())),
                Err(errno) => return Err(Error::io("look at", path, errno)),
            },
            kind => kind,
        };
        let like = match kind {
            // No image can hold one, and no context carries one over.
            FileType::Socket => return Ok(Entry::Gone(path.clone())),
            FileType::Directory => Kind::Dir,
            _ => Kind::File,
        };
        if self.context.verdict(path, like) == Verdict::Prune {
            return Ok(Entry::Gone(path.clone()));
        }
        match like {
            Kind::Dir => Ok(Entry::Directory(path.clone())),
            _ => Ok(Entry::Other(self.one(fd, path, whole)?)),
        }
    }

    fn gone(&self, path: &RelPath, whole: bool) -> Part {
        let mut part = Part::default();
        if !whole {
            part.changes.push(self.change(path, Action::Delete));
        }
        part
    }

    fn subdirectory(&self, path: &RelPath, whole: bool) -> Result<Part, Error> {
        let mounted = self.is_mount(path);
        let fd = match open_dir(self.context.dir.as_fd(), path) {
            Ok(fd) => fd,
            // It went meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Part::default()),
            Err(e) => return Err(Error::io("open", path, e)),
        };
        let below = self.directory(&fd, path, whole || mounted)?;
        if !below.seen && self.context.verdict(path, Kind::Dir) != Verdict::Keep {
            return Ok(self.gone(path, whole));
        }
        let Some(Stat { meta, .. }) = self.stat(fd.as_fd(), b"", path)? else {
            return Ok(Part::default());
        };
        let owner = owner_of(&meta);
        let differs = whole || mounted || self.differs(owner);
        let mut part = Part::default();
        part.count(owner);
        // What is changed in a directory needs the directory to be named too.
        if differs || !below.changes.is_empty() {
            let action = match mounted && !whole {
                true => Action::Opaque(rooted(meta)),
                false => put(rooted(meta), None),
            };
            part.changes.push(self.change(path, action));
        }
        part.add(below);
        part.seen = true;
        Ok(part)
    }

    /// Looks at anything but a directory.
    fn one(&self, fd: &OwnedFd, path: &RelPath, whole: bool) -> Result<Part, Error> {
        let whole = whole || self.is_mount(path);
        let mut part = Part {
            seen: true,
            ..Part::default()
        };
        if !whole {
            let stat = match statat(fd, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(Part::default()),
                Err(errno) => return Err(Error::io("look at", path, errno)),
            };
            let owner = (stat.st_uid, stat.st_gid);
            part.count(owner);
            if !self.differs(owner) {
                return Ok(part);
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                part.owned
                    .push((self.relative(path), stat.st_mode & 0o7777));
                return Ok(part);
            }
        }
        let Some(stat) = self.stat(fd.as_fd(), path.name(), path)? else {
            return Ok(Part::default());
        };
        let source = (stat.meta.kind == Kind::File).then(|| {
            Source::Seen(Arc::new(Seen {
                dir: Arc::clone(&self.context.dir),
                path: path.clone(),
                stamp: stat.stamp(),
            }))
        });
        let action = put(rooted(stat.meta), source);
        part.changes.push(self.change(path, action));
        Ok(part)
    }

    fn stat(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &RelPath,
    ) -> Result<Option<Stat>, Error> {
        match stat_at(dir, name) {
            Ok(stat) => Ok(stat),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("look at", path, e)),
        }
    }

    fn differs(&self, owner: Owner) -> bool {
        owner != self.home
    }

    fn is_mount(&self, path: &RelPath) -> bool {
        self.mounts.binary_search(path).is_ok()
    }

    fn relative(&self, path: &RelPath) -> RelPath {
        path.strip(self.dir).unwrap_or_default()
    }

    fn change(&self, path: &RelPath, action: Action) -> Change {
        let path = self.relative(path);
        Change { path, action }
    }
}

fn put(meta: Meta, source: Option<Source>) -> Action {
    Action::Put {
        meta,
        source,
        link: None,
    }
}

/// Gives metadata with root for the owner, as everything in a context has it.
fn rooted(meta: Meta) -> Meta {
    Meta {
        uid: 0,
        gid: 0,
        ..meta
    }
}

fn owner_of(meta: &Meta) -> Owner {
    (meta.uid, meta.gid)
}

/// Lists a directory in order of names.
fn names(fd: &OwnedFd, dir: &RelPath) -> Result<Vec<(Vec<u8>, FileType)>, Error> {
    let failed = |errno: Errno| Error::io("read directory", dir, errno);
    // A descriptor of its own: what is read is remembered with it.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(fd, ".", flags, Mode::empty()).map_err(failed)?;
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
    let mut entries = RawDir::new(&fd, &mut buffer);
    let mut out = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push((name.to_vec(), entry.file_type()));
        }
    }
    out.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}

/// Finds the mounts below a directory. Where /proc does not tell, there are none.
fn mounts_below(dir: BorrowedFd<'_>) -> Vec<RelPath> {
    let Ok(top) = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())) else {
        return Vec::new();
    };
    let Some(top) = RelPath::clean(top.as_os_str().as_bytes()) else {
        return Vec::new();
    };
    let mut out: Vec<RelPath> = crate::fs::mountinfo::points()
        .iter()
        .filter_map(|point| RelPath::clean(point)?.strip(&top))
        .filter(|below| !below.is_root())
        .collect();
    out.sort_unstable();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::ignore::Ignore;
    use std::os::unix::fs::{chown, symlink};

    fn clean(path: &str) -> RelPath {
        RelPath::clean(path.as_bytes()).unwrap()
    }

    /// Writes changes and changed owners as words.
    fn told(visible: &Visible) -> Vec<String> {
        let changes = visible
            .changes
            .changes
            .iter()
            .map(|Change { path, action }| {
                let what = match action {
                    Action::Delete => "-",
                    Action::Opaque(_) => "o",
                    Action::Put {
                        source: Some(_), ..
                    } => "+",
                    Action::Put { .. } => "m",
                };
                format!("{what}{path}")
            });
        let owned = visible
            .owned
            .iter()
            .map(|(path, mode)| format!("={path} {mode:o}"));
        changes.chain(owned).collect()
    }

    #[test]
    fn differences_are_named_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in [
            "keep/a", "keep/b", "out/x", "out/back", "gone/y", "theirs/z",
        ] {
            let path = path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        symlink("a", path("keep/link")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(path("keep/socket")).unwrap());
        for name in ["keep/b", "theirs", "theirs/z"] {
            chown(path(name), Some(7), Some(8)).unwrap();
        }
        let mut context = Context::open(dir.path(), &path("Dockerfile")).unwrap();
        context.ignore = Some(Ignore::parse(b"out\n!out/back\ngone\n").unwrap());
        let cancel = Cancel::new().unwrap();
        let see = |source: &str, making| {
            let path = locate(&context, &clean(source)).unwrap();
            visible(&context, &path, making, &cancel).unwrap()
        };
        let table: &[(&str, Making, &[&str])] = &[
            (
                "/",
                Making::Above((0, 0)),
                &[
                    "-/gone",
                    "m/keep",
                    "-/keep/socket",
                    "m/out",
                    "-/out/x",
                    "m/theirs",
                    "=/keep/b 644",
                    "=/theirs/z 644",
                ],
            ),
            (
                "/",
                Making::Above((7, 8)),
                &[
                    "-/gone",
                    "m/keep",
                    "m/keep/link",
                    "-/keep/socket",
                    "m/out",
                    "-/out/x",
                    "=/keep/a 644",
                    "=/out/back 644",
                ],
            ),
            (
                "/",
                Making::Apart,
                &[
                    "m/keep",
                    "+/keep/a",
                    "+/keep/b",
                    "m/keep/link",
                    "m/out",
                    "+/out/back",
                    "m/theirs",
                    "+/theirs/z",
                ],
            ),
            ("keep/link", Making::Above((0, 0)), &[]),
            ("keep/b", Making::Above((0, 0)), &["=/b 644"]),
            ("keep/b", Making::Above((7, 8)), &[]),
            ("theirs", Making::Above((7, 8)), &[]),
            ("theirs", Making::Above((0, 0)), &["=/z 644"]),
        ];
        for (source, making, expected) in table {
            let visible = see(source, *making);
            assert_eq!(told(&visible), *expected, "{source} {making:?}");
            let plain = expected.is_empty();
            assert_eq!(visible.is_plain(), plain, "{source} {making:?}");
            assert_eq!((visible.top.uid, visible.top.gid), (0, 0));
            assert_eq!(visible.top.mode, 0o755, "{source}");
        }
        assert_eq!(see("/theirs", Making::Apart).common_owner().0, (0, 0));
        assert_eq!(
            see("/theirs", Making::Above((0, 0))).common_owner(),
            ((7, 8), 1)
        );
        for (source, error) in [
            ("absent", "\"/absent\": not found"),
            ("gone", "\"/gone\": not found"),
            ("keep/socket", "\"/keep/socket\" is a socket"),
            ("keep/a/b", "\"/keep/a/b\": not found"),
        ] {
            let missing = locate(&context, &clean(source)).unwrap_err().to_string();
            assert!(missing.contains(error), "{missing}");
        }
    }
}
