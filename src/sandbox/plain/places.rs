//! What stands in a root in the stead of mounts, and what was there before.
//!
//! Every place is found as for a mount (`scaffold`). What is there is moved aside by its name, to a
//! directory on the same file system that the command does not see where there is such a one, so
//! that its inode stays as it is; afterwards it is moved back, whatever the command did to the place.
//! Nothing of the command runs when something is put back.

use super::super::scaffold::{Ground, Kind, Land, Scaffold, restore_time};
use super::super::wire::{Failure, Job, Secrecy, Stand, StandIn, Way, Writes, wipe};
use super::aside::{self, Lacking, Stages};
use super::journal::Record;
use super::placed::{Before, Placed, What};
use super::spot::{DIRECTORY, PATH, Spot, id, is_directory, path_of};
use super::{Lack, Watch, copy, device};
use crate::fs::stat_at;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, linkat, openat, statat,
    symlinkat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A root and what was put into it.
pub(super) struct Places {
    root: OwnedFd,
    way: Way,
    scaffold: Scaffold,
    stages: Stages,
    placed: Vec<Placed>,
    lacks: Vec<(Lack, String)>,
}

impl Places {
    /// Begins with a root as it is.
    pub(super) fn new(job: &Job, root: OwnedFd) -> Result<Places, Failure> {
        let path = Path::new(OsStr::from_bytes(&job.root));
        let open = |at| openat(&root, at, DIRECTORY, Mode::empty());
        let beside = || -> Result<OwnedFd, Errno> {
            // Beside a root the command does not come, but it has to be the same file system.
            if job.way == Way::Chroot
                && let Ok(beside) = open("..")
                && fstat(&beside)?.st_dev == fstat(&root)?.st_dev
            {
                return Ok(beside);
            }
            open(".")
        };
        let beside = beside().map_err(Failure::of("open what is around the root"))?;
        let mut scaffold = Scaffold::new(path)?;
        scaffold.cover(b"/proc".to_vec(), Ground::Later);
        Ok(Places {
            way: job.way,
            scaffold,
            stages: Stages::new(beside, job.way),
            placed: Vec::new(),
            lacks: Vec::new(),
            root,
        })
    }

    /// Tells whether something will be overwritten.
    pub(super) fn has_secrets(&self) -> bool {
        let mut all = self.placed.iter();
        all.any(|placed| matches!(placed.what, What::Wiped(_)))
    }

    /// Gives what could not be had.
    pub(super) fn lacks(&mut self) -> Vec<(Lack, String)> {
        std::mem::take(&mut self.lacks)
    }

    /// Puts everything in its place, and forgets what is secret. What is there when it fails is to be
    /// put back all the same.
    pub(super) fn put_all(
        &mut self,
        job: &mut Job,
        sources: Vec<OwnedFd>,
        watch: &Watch<'_>,
    ) -> Result<(), Failure> {
        let put = self.put_each(job, sources, watch);
        forget(job);
        put
    }

    fn put_each(
        &mut self,
        job: &Job,
        sources: Vec<OwnedFd>,
        watch: &Watch<'_>,
    ) -> Result<(), Failure> {
        if self.way == Way::Chroot {
            if statat(&self.root, "proc/self", AtFlags::SYMLINK_NOFOLLOW).is_err() {
                self.lack(
                    Lack::Proc,
                    "RUN has no /proc, which cannot be mounted in this container: what needs it \
                     may fail (java, ps, /proc/self/exe, /dev/stdout); --rootfs=inplace in the \
                     executor's own image has one, and so has a container with CAP_SYS_ADMIN that \
                     may mount",
                );
            }
            self.devices()?;
        }
        if job.bounded {
            self.lack(
                Lack::Bound,
                "RUN --mount=type=tmpfs is an ordinary directory, since nothing can be mounted in \
                 this container: its size is not bounded",
            );
        }
        let mut sources = sources.into_iter();
        for stand in &job.stands {
            let action = || format!("mount {}", String::from_utf8_lossy(&stand.path));
            watch.check().map_err(Failure::of(action()))?;
            let source = match stand.what {
                StandIn::Bind(_) => sources.next(),
                StandIn::Empty | StandIn::File { .. } => None,
            };
            self.put(stand, source, watch)
                .map_err(|problem| match problem {
                    Problem::Found(failure) => failure,
                    Problem::Io(error) => Failure::of(action())(error),
                })?;
        }
        Ok(())
    }

    fn lack(&mut self, lack: Lack, text: &str) {
        self.lacks.push((lack, text.to_owned()));
    }

    /// Puts a `/dev` of the command's own over the root's.
    fn devices(&mut self) -> Result<(), Failure> {
        let action = || Failure::of("make /dev");
        let place = self.scaffold.vacant(b"/dev", Kind::Directory)?;
        let placed = self.clear(&place.path).map_err(action())?;
        let dir = placed.directory(0o755).map_err(action())?;
        if let device::Filled::WithoutNodes = device::fill(dir.as_fd())? {
            self.lack(
                Lack::Devices,
                "RUN has no device nodes, since this container lacks CAP_MKNOD, or is in a user \
                 namespace, where nobody has it: /dev/null is an \
                 ordinary file, and /dev/zero, /dev/random and the like are missing",
            );
        }
        self.scaffold
            .cover(place.path, Ground::Tree(dir, Land::Foreign));
        Ok(())
    }

    fn put(
        &mut self,
        stand: &Stand,
        source: Option<OwnedFd>,
        watch: &Watch<'_>,
    ) -> Result<(), Problem> {
        let found = match &source {
            Some(source) => FileType::from_raw_mode(fstat(source)?.st_mode),
            None => FileType::RegularFile,
        };
        let kind = match (&stand.what, found) {
            (StandIn::Empty, _) | (StandIn::Bind(_), FileType::Directory) => Kind::Directory,
            (StandIn::Bind(_) | StandIn::File { .. }, _) => Kind::File,
        };
        let place = self.scaffold.vacant(&stand.path, kind)?;
        if place.later {
            return Err(words("nothing can be there").into());
        }
        if let (StandIn::Bind(Writes::Kept), Kind::Directory, Some(source)) =
            (&stand.what, kind, &source)
            && let Some(first) = self.kept(source)?
        {
            // One directory at two places.
            let placed = self.clear(&place.path)?;
            let (parent, name) = placed.spot.at();
            symlinkat(first, parent, name)?;
            return Ok(placed.settle()?);
        }
        let way = self.way;
        self.clear(&place.path)?;
        let ground = match (&stand.what, source) {
            (StandIn::Bind(writes), Some(source)) if kind == Kind::Directory => {
                let dir = match writes {
                    Writes::Kept => {
                        if let Some(home) = path_of(&source) {
                            let record = Record::Home(path_from(&place.path), home);
                            self.stages.note(&record)?;
                        }
                        self.last()?.keep(source, watch)?
                    }
                    Writes::Sealed | Writes::Lost => {
                        let dir = self.last()?.directory(0o700)?;
                        copy::tree(source.as_fd(), dir.as_fd(), watch)?;
                        dir
                    }
                };
                let land = match writes {
                    Writes::Sealed => Land::Sealed,
                    Writes::Lost | Writes::Kept => Land::Foreign,
                };
                Ground::Tree(dir, land)
            }
            (StandIn::Bind(_), Some(source)) => {
                let (parent, name) = self.last()?.spot.at();
                match found {
                    FileType::Socket => socket(&source, parent, name, way)?,
                    _ => copy::file(source.as_fd(), parent, name, watch)?,
                }
                Ground::File
            }
            (StandIn::Bind(_), None) => return Err(io::Error::from(Errno::BADF).into()),
            (StandIn::Empty, _) => {
                let dir = self.last()?.directory(place.mode.unwrap_or(0o1777))?;
                Ground::Tree(dir, Land::Foreign)
            }
            (
                StandIn::File {
                    mode,
                    uid,
                    gid,
                    content,
                    secret,
                },
                _,
            ) => {
                let file = NewFile {
                    mode: *mode,
                    owner: (*uid, *gid),
                    content,
                };
                self.file(&file, *secret)?;
                Ground::File
            }
        };
        self.last()?.settle()?;
        // A file that every command has can be mounted over.
        let covers = !matches!(
            stand.what,
            StandIn::File {
                secret: Secrecy::Open,
                ..
            }
        );
        if covers {
            self.scaffold.cover(place.path, ground);
        }
        Ok(())
    }

    /// Gives where a directory is that was moved into the root.
    fn kept(&self, source: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
        let id = id(&fstat(source)?);
        for placed in &self.placed {
            let itself = match &placed.what {
                What::Moved(home) => &home.itself,
                What::Copied(itself, _) => itself,
                What::Thrown | What::Wiped(_) => continue,
            };
            if self::id(&fstat(itself)?) == id {
                return Ok(Some(placed.path.clone()));
            }
        }
        Ok(None)
    }

    /// Makes a file at the last place.
    fn file(&mut self, file: &NewFile<'_>, secret: Secrecy) -> io::Result<()> {
        let Some(placed) = self.placed.last_mut() else {
            return Ok(());
        };
        let (parent, name) = placed.spot.at();
        if secret == Secrecy::Open {
            if self.way == Way::Stay
                && file.mode & 0o111 != 0
                && !aside::executes(parent)?
                && let Some((dir, number, path)) =
                    self.stages.elsewhere(Lacking::Execution, file.mode)?
            {
                file.make(dir.as_fd(), &number)?;
                return Ok(symlinkat(path, parent, name)?);
            }
            return file.make(parent, name);
        }
        if !aside::is_memory(parent)? {
            if self.way == Way::Stay
                && let Some((dir, number, path)) =
                    self.stages.elsewhere(Lacking::Memory, file.mode)?
            {
                file.make(dir.as_fd(), &number)?;
                let made = openat(&dir, number.as_slice(), PATH, Mode::empty())?;
                placed.what = What::Wiped(made);
                symlinkat(path, parent, name)?;
                return Ok(());
            }
            let text = format!(
                "the secret {} lies on a disk while its command runs, and is overwritten \
                 afterwards: nothing can be mounted in this container, and the root is on no tmpfs",
                String::from_utf8_lossy(&placed.path)
            );
            self.lacks.push((Lack::Memory, text));
        }
        file.make(parent, name)?;
        placed.what = What::Wiped(openat(parent, name, PATH, Mode::empty())?);
        Ok(())
    }

    /// Gives the place that was made free last.
    fn last(&mut self) -> io::Result<&mut Placed> {
        self.placed.last_mut().ok_or(Errno::INVAL.into())
    }

    /// Makes a place free, and notes it.
    fn clear(&mut self, path: &[u8]) -> io::Result<&mut Placed> {
        let spot = Spot::find(&self.root, path)?;
        let (parent, name) = spot.at();
        let around = fstat(parent)?;
        let before = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                self.stages.note(&Record::New(path_from(path)))?;
                Before::Nothing
            }
            Err(errno) => return Err(errno.into()),
            Ok(there) => {
                let moved = self.stages.take(&spot, path);
                restore_time(parent, &around)?;
                match moved? {
                    aside::Taken::Moved(moved) => Before::Moved(moved),
                    aside::Taken::Not(moved) if is_directory(&there) => {
                        let meta = stat_at(parent, name)?.ok_or(Errno::NOTDIR)?.meta;
                        let dir = openat(parent, name, DIRECTORY, Mode::empty())?;
                        let (at, aside) = (path_from(path), self.stages.path(&moved));
                        let numbers = [meta.mode, meta.uid, meta.gid];
                        self.stages.note(&Record::Emptied(at, aside, numbers))?;
                        let to = self.stages.directory(&moved)?;
                        let emptied = aside::move_entries(dir.as_fd(), to.as_fd());
                        let placed = Placed {
                            path: path.to_vec(),
                            spot,
                            around,
                            before: Before::Emptied(moved, Box::new(meta)),
                            now: Some(dir),
                            what: What::Thrown,
                        };
                        self.placed.push(placed);
                        emptied?;
                        return self.last();
                    }
                    aside::Taken::Not(_) => return Err(Errno::XDEV.into()),
                }
            }
        };
        self.placed.push(Placed {
            path: path.to_vec(),
            spot,
            around,
            before,
            now: None,
            what: What::Thrown,
        });
        self.last()
    }

    /// Takes everything away again and puts back what was there, the last first. Goes on where
    /// something cannot be put back, and says what was the first.
    pub(super) fn restore(mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while let Some(placed) = self.placed.pop() {
            let path = String::from_utf8_lossy(&placed.path).into_owned();
            let restored = placed.restore(&self.root, &self.stages);
            result = result.and(restored.map_err(Failure::of(format!(
                "put back what was at {path} before the command"
            ))));
        }
        let removed = self.stages.remove();
        result = result.and(removed.map_err(Failure::of("remove what was put aside")));
        result.and(self.scaffold.remove().map_err(Failure::from))
    }
}

/// Why something cannot be put in its place.
enum Problem {
    Found(Failure),
    Io(io::Error),
}

impl From<super::Error> for Problem {
    fn from(error: super::Error) -> Problem {
        Problem::Found(error.into())
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Io(error)
    }
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Problem {
        Problem::Io(errno.into())
    }
}

/// A file to be made.
struct NewFile<'a> {
    mode: u32,
    owner: (u32, u32),
    content: &'a [u8],
}

impl NewFile<'_> {
    fn make(&self, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(file);
        file.write_all(self.content)?;
        let (uid, gid) = self.owner;
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok(fchmod(&file, Mode::from_raw_mode(self.mode))?)
    }
}

fn path_from(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

/// Gives a socket a name at the place.
fn socket(source: &OwnedFd, parent: BorrowedFd<'_>, name: &[u8], way: Way) -> io::Result<()> {
    let from = format!("/proc/self/fd/{}", source.as_raw_fd());
    match linkat(CWD, from, parent, name, AtFlags::SYMLINK_FOLLOW) {
        Err(Errno::XDEV) => {}
        other => return Ok(other?),
    }
    match (way, path_of(source)) {
        (Way::Stay, Some(path)) => Ok(symlinkat(path, parent, name)?),
        _ => Err(words(
            "the socket is on another file system than the root, and nothing can be mounted here",
        )),
    }
}

/// Overwrites what a job has of secrets.
pub(super) fn forget(job: &mut Job) {
    for stand in &mut job.stands {
        if let StandIn::File { content, .. } = &mut stand.what {
            wipe(content);
        }
    }
}

pub(super) fn words(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}
