//! What commands see of stages, images and contexts: roots that are made once a build and that
//! bind mounts show read-only; what may be written to is a fork, thrown away with the command.

use super::Error;
use crate::build::Shared;
use crate::build::base::{self, Key};
use crate::build::stage::{BoxError, base_root};
use crate::build::wait::lock;
use crate::context::{self, Context, Making, Visible};
use crate::fs::{Meta, RelPath};
use crate::net::chain;
use crate::oci::Platform;
use crate::plan::{Base, From};
use crate::progress::{Level, Owner, StepId, Work};
use crate::rootfs::{Lower, Rootfs, Swapped};
use crate::sys::Cancel;
use rayon::prelude::*;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags, openat2};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// How many files one thread gives to root in a row.
const RUN: usize = 16;
/// From so many files of one owner on, a mount that shows them all as root's is tried first: it takes
/// as long as giving a dozen of them to root one by one.
const MANY: usize = 12;
/// A program's capabilities, which a change of its owner takes away.
const CAPABILITY: &str = "security.capability";

/// The views of a build. They are unmounted when this is dropped, which must be before the scratch
/// directory is removed.
#[derive(Default)]
pub(in crate::build) struct Views {
    made: Mutex<BTreeMap<Of, Turn>>,
    next: AtomicUsize,
}

/// Whoever comes first makes it, the others wait.
type Turn = Arc<Mutex<Option<Arc<View>>>>;

/// What a view is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Scratch,
    Stage(usize),
    Image(Key),
    /// The main context or a named one, and the path in it.
    Files(Option<String>, RelPath),
}

struct View {
    /// The directory that is seen, on a mount that the builder's own namespace has.
    dir: Arc<OwnedFd>,
    /// The file in it that is meant.
    file: Option<Vec<u8>>,
    /// What is mounted for it, begun and never written to; nothing for a directory of the context
    /// that can be shown as it is.
    root: Option<Mutex<Box<dyn Rootfs>>>,
    /// What lies below the root or is seen itself.
    _below: Below,
}

/// What a view of a context stands on; after the view itself it is let go of.
#[derive(Default)]
struct Below {
    /// The context's directory with other owners.
    swapped: Option<Swapped>,
    /// The context's directory: a root may know it by the number of this descriptor.
    dir: Option<Arc<OwnedFd>>,
}

impl Below {
    fn path(&self) -> Option<PathBuf> {
        match (&self.swapped, &self.dir) {
            (Some(swapped), _) => Some(swapped.dir.clone()),
            (None, dir) => dir.as_ref().map(path_of),
        }
    }
}

/// A root of one command's own, whose files go when this is dropped.
pub(super) struct Throwaway {
    root: Box<dyn Rootfs>,
    /// What it is of, with the descriptor that the root knows that by.
    _view: Arc<View>,
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        // What cannot be removed now goes with the scratch directory.
        let _ = self.root.discard();
    }
}

/// What a bind mount takes.
pub(super) struct Wanted<'a> {
    pub(super) from: &'a From,
    /// For images.
    pub(super) platform: &'a Platform,
    pub(super) source: &'a str,
    /// Whose command it is for.
    pub(super) step: StepId,
}

impl Views {
    /// Gives a file or directory to be mounted read-only.
    pub(super) fn shared(
        &self,
        shared: &Shared<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<Arc<OwnedFd>, BoxError> {
        let (view, below) = self.view(shared, wanted)?;
        Ok(Arc::new(open_below(view.dir.as_fd(), &below, wanted)?))
    }

    /// Gives a file or directory that may be written to, and what it is thrown away with.
    pub(super) fn writable(
        &self,
        shared: &Shared<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<(Arc<OwnedFd>, Throwaway), BoxError> {
        let (view, below) = self.view(shared, wanted)?;
        let mut root = match &view.root {
            Some(root) => lock(root).fork()?,
            None => {
                let top = top_of(view.dir.as_fd())?;
                let below = vec![path_of(&view.dir).into()];
                crate::rootfs::create(
                    shared.request.rootfs,
                    self.dir(shared)?,
                    below,
                    top,
                    shared.cancel,
                )?
            }
        };
        root.begin()?;
        let opened = Arc::new(open_below(root.root()?, &below, wanted)?);
        let throwaway = Throwaway { root, _view: view };
        Ok((opened, throwaway))
    }

    /// Gives the view, and where in it the source is.
    fn view(
        &self,
        shared: &Shared<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<(Arc<View>, RelPath), BoxError> {
        let source = source_path(wanted.source)?;
        let (of, context) = match files(shared, wanted.from)? {
            Some((name, context)) => {
                let path = context::locate(&context, &source)?;
                (Of::Files(name, path), Some(context))
            }
            None => (of(wanted)?, None),
        };
        let turn = Arc::clone(lock(&self.made).entry(of.clone()).or_default());
        let mut turn = lock(&turn);
        let view = match &*turn {
            Some(view) => Arc::clone(view),
            None => {
                let view = Arc::new(self.make(shared, &of, context.as_deref(), wanted.step)?);
                Arc::clone(turn.insert(view))
            }
        };
        let below = match context {
            Some(_) => RelPath::checked(view.file.as_deref().unwrap_or_default()),
            None => Some(source),
        };
        Ok((view, below.unwrap_or_default()))
    }

    fn make(
        &self,
        shared: &Shared<'_>,
        of: &Of,
        context: Option<&Context>,
        step: StepId,
    ) -> Result<View, BoxError> {
        let _span = shared
            .sink
            .span(Owner::Step(step), Work::Root, "view", None);
        let root = match (of, context) {
            (Of::Files(_, path), Some(context)) => return self.of_files(shared, context, path),
            (Of::Scratch, _) | (Of::Files(..), None) => {
                let top = Meta::dir(0o755, shared.clock.now);
                crate::rootfs::create(
                    shared.request.rootfs,
                    self.dir(shared)?,
                    Vec::new(),
                    top,
                    shared.cancel,
                )?
            }
            (Of::Stage(place), _) => {
                let done = shared.done[*place].wait().ok_or(Error::Gone)?;
                done.root(shared, || self.dir(shared))?
            }
            (Of::Image(key), _) => {
                let files = shared.bases.files.get(key).and_then(|files| files.wait());
                base_root(shared, &files.ok_or(Error::Gone)?, self.dir(shared)?)?
            }
        };
        begun(shared, root, None, Below::default())
    }

    /// Makes the view of a directory or file of a context: the directory itself where it looks as it
    /// must, else an overlay in which the rest has been changed.
    fn of_files(
        &self,
        shared: &Shared<'_>,
        context: &Context,
        path: &RelPath,
    ) -> Result<View, BoxError> {
        let cancel = shared.cancel;
        let mut visible = context::visible(context, path, Making::Above((0, 0)), cancel)?;
        let mut below = Below::default();
        if shared.request.rootfs.is_live() && !visible.is_plain() {
            return self.copied(shared, context, path);
        }
        let (owner, files) = visible.common_owner();
        if owner != (0, 0) && files >= MANY {
            match Swapped::new(visible.dir.as_fd(), owner, self.dir(shared)?) {
                Ok(swapped) => {
                    below.swapped = Some(swapped);
                    visible = context::visible(context, path, Making::Above(owner), cancel)?;
                }
                Err(error) => shared.sink.message(
                    Level::Debug,
                    format!(
                        "{files} files of the context are given to root one by one: {}",
                        chain(&error)
                    ),
                ),
            }
        }
        below.dir = Some(Arc::clone(&visible.dir));
        if visible.is_plain() {
            let dir = match &below.swapped {
                Some(swapped) => Arc::new(open_dir(&swapped.dir)?),
                None => visible.dir,
            };
            return Ok(View {
                dir,
                file: visible.file,
                root: None,
                _below: below,
            });
        }
        match self.over(
            shared,
            &visible,
            below.path().into_iter().map(Lower::from).collect(),
        ) {
            Ok(root) => begun(shared, root, visible.file, below),
            Err(error) if cancel.is_set() => Err(error),
            Err(error) => {
                shared.sink.message(
                    Level::Warn,
                    format!(
                        "{path} of the context is copied for RUN --mount: nothing can be mounted \
                         over it here ({})",
                        chain(&*error)
                    ),
                );
                self.copied(shared, context, path)
            }
        }
    }

    /// Makes the view of a directory or file of a context out of copies of what is to be seen.
    fn copied(
        &self,
        shared: &Shared<'_>,
        context: &Context,
        path: &RelPath,
    ) -> Result<View, BoxError> {
        let visible = context::visible(context, path, Making::Apart, shared.cancel)?;
        let root = self.over(shared, &visible, Vec::new())?;
        begun(shared, root, visible.file, Below::default())
    }

    fn over(
        &self,
        shared: &Shared<'_>,
        visible: &Visible,
        below: Vec<Lower>,
    ) -> Result<Box<dyn Rootfs>, BoxError> {
        let choice = shared.request.rootfs;
        let mut root = crate::rootfs::create(
            choice,
            self.dir(shared)?,
            below,
            visible.top.clone(),
            shared.cancel,
        )?;
        root.apply(&visible.changes, shared.cancel)?;
        if !visible.owned.is_empty() {
            // By way of the mount, so that the kernel copies metadata alone.
            root.begin()?;
            give_to_root(root.root()?, &visible.owned, shared.cancel)?;
            root.commit()?;
        }
        Ok(root)
    }

    /// Makes an empty directory of the views' own.
    fn dir(&self, shared: &Shared<'_>) -> io::Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = shared.scratch.dir.join(format!("view-{number}"));
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }
}

/// Makes a view of a root: mounted where the builder's namespace has it, since only such a mount can
/// be bound from.
fn begun(
    shared: &Shared<'_>,
    mut root: Box<dyn Rootfs>,
    file: Option<Vec<u8>>,
    below: Below,
) -> Result<View, BoxError> {
    // What is copied from is there without, and nobody wants to know what is written to it.
    if !shared.request.rootfs.is_live() {
        root.begin()?;
    }
    let dir = root.root()?.try_clone_to_owned()?;
    Ok(View {
        dir: Arc::new(dir),
        file,
        root: Some(Mutex::new(root)),
        _below: below,
    })
}

/// A context, and the name it has in the request; the main one has none.
type Named = (Option<String>, Arc<Context>);

/// Gives the context that a mount takes from, with its name, where it takes from one.
pub(super) fn files(shared: &Shared<'_>, from: &From) -> Result<Option<Named>, Error> {
    match from {
        From::Context => Ok(Some((None, Arc::clone(&shared.context)))),
        From::Base(Base::Files(name)) => {
            let context = shared.named(name).ok_or(Error::Gone)?;
            Ok(Some((Some(name.clone()), context)))
        }
        From::Base(_) => Ok(None),
    }
}

fn of(wanted: &Wanted<'_>) -> Result<Of, Error> {
    match wanted.from {
        From::Base(Base::Stage(place)) => Ok(Of::Stage(*place)),
        From::Base(base) => Ok(match base::key(base, wanted.platform) {
            Some(key) => Of::Image(key),
            None => Of::Scratch,
        }),
        From::Context => Err(Error::Gone),
    }
}

/// Reads the source of a mount.
pub(super) fn source_path(source: &str) -> Result<RelPath, Error> {
    RelPath::clean(source.as_bytes()).ok_or_else(|| Error::Nul(source.to_owned()))
}

/// Opens a path of a view for mounting; symbolic links are followed inside of it.
fn open_below(
    root: BorrowedFd<'_>,
    path: &RelPath,
    wanted: &Wanted<'_>,
) -> Result<OwnedFd, BoxError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path.as_path(), flags, Mode::empty(), resolve) {
            Ok(opened) => return Ok(opened),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let source = source_path(wanted.source)?;
                return Err(context::Error::NotFound(source).into());
            }
            Err(errno) => {
                return Err(Error::Source {
                    path: wanted.source.to_owned(),
                    source: errno.into(),
                }
                .into());
            }
        }
    }
}

/// Gives a directory's path by its descriptor, which has to stay open.
fn path_of(dir: &Arc<OwnedFd>) -> PathBuf {
    // The dot has the link followed by who follows none at the end.
    PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()))
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn top_of(dir: BorrowedFd<'_>) -> io::Result<Meta> {
    let stat = crate::fs::stat_at(dir, b"")?;
    Ok(stat.ok_or(io::ErrorKind::NotADirectory)?.meta)
}

/// Makes files root's, and gives back what the kernel takes from a file that changes hands.
fn give_to_root(
    root: BorrowedFd<'_>,
    files: &[(RelPath, u32)],
    cancel: &Cancel,
) -> Result<(), Error> {
    files
        .par_iter()
        .with_min_len(RUN)
        .try_for_each(|(path, mode)| {
            if cancel.is_set() {
                return Err(Error::Gone);
            }
            give_one(root, path, *mode).map_err(|errno| Error::Own {
                path: path.clone(),
                source: errno.into(),
            })
        })
}

fn give_one(root: BorrowedFd<'_>, path: &RelPath, mode: u32) -> rustix::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let mut name = format!("/proc/self/fd/{}/", root.as_raw_fd()).into_bytes();
    name.extend_from_slice(path.as_path().as_os_str().as_bytes());
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let mut capability = [0; 64];
    let length = match rustix::fs::lgetxattr(&*name, CAPABILITY, &mut capability[..]) {
        Ok(length) => Some(length),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => None,
        Err(errno) => return Err(errno),
    };
    let (uid, gid) = (Some(Uid::ROOT), Some(Gid::ROOT));
    rustix::fs::chownat(root, path.as_path(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if mode & 0o6000 != 0 {
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(root, path.as_path(), mode, AtFlags::empty())?;
    }
    if let Some(value) = length.and_then(|length| capability.get(..length)) {
        rustix::fs::lsetxattr(&*name, CAPABILITY, value, XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::process::Command;

    #[test]
    fn a_file_that_is_given_to_root_keeps_all_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        // Names, modes, and whether it has capabilities.
        let table = [
            ("plain", 0o640, false),
            ("setuid", 0o4755, false),
            ("both", 0o6711, false),
            ("able", 0o755, true),
        ];
        for (name, mode, able) in table {
            std::fs::write(path(name), name).unwrap();
            std::os::unix::fs::chown(path(name), Some(7), Some(8)).unwrap();
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
            if able {
                let mut set = Command::new("setcap");
                set.arg("cap_net_raw=ep").arg(path(name));
                assert!(set.status().unwrap().success());
            }
        }
        let files: Vec<(RelPath, u32)> = table
            .iter()
            .map(|(name, mode, _)| (RelPath::clean(name.as_bytes()).unwrap(), *mode))
            .collect();
        let root = open_dir(dir.path()).unwrap();
        let cancel = Cancel::new().unwrap();
        give_to_root(root.as_fd(), &files, &cancel).unwrap();
        for (name, mode, able) in table {
            let meta = std::fs::metadata(path(name)).unwrap();
            let has = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
            assert_eq!(has, (0, 0, mode), "{name}");
            let told = Command::new("getcap").arg(path(name)).output().unwrap();
            assert_eq!(!told.stdout.is_empty(), able, "{name}");
        }
        cancel.cancel();
        assert!(give_to_root(root.as_fd(), &files, &cancel).is_err());
    }
}
