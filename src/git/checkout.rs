//! A commit's files, written into a directory.

use super::attributes::{Attributes, MAX_FILE, Rules};
use super::convert;
use super::object::{self, Commit, Entry, Kind, Mode};
use super::{Error, Oid, Pack};
use crate::fs::{Dir, Meta, Placer, RelPath, Time};
use crate::sys::Cancel;
use rayon::prelude::*;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The largest commit, tag or .gitmodules.
const MAX_SMALL: u64 = 16 << 20;
/// The largest tree.
const MAX_TREE: u64 = 256 << 20;
/// The longest path, as in Linux.
const MAX_PATH: usize = 4096;
/// The most names a commit may have: small trees that name each other can say more than any disk
/// holds.
const MAX_ENTRIES: usize = 1 << 23;
/// The largest file whose content is changed when it is written.
const MAX_CONVERTED: u64 = 1 << 30;
/// How many files are written at a time, in how many open directories.
const BATCH: (usize, usize) = (1024, 64);
/// How many tags may point to each other.
const MAX_TAGS: usize = 16;

/// What is checked out, and where to.
pub struct Checkout<'a> {
    /// The objects.
    pub pack: &'a Pack,
    /// The commit, or a tag of it.
    pub commit: Oid,
    /// The directory that gets the files; what is in it already stays.
    pub dir: BorrowedFd<'a>,
    /// The only directory whose files are written; every part of it must be a directory of the
    /// commit.
    pub only: Option<&'a RelPath>,
    /// The times of the files; the commit's where there is none.
    pub time: Option<Time>,
    /// Ends it.
    pub cancel: &'a Cancel,
}

/// What was checked out.
pub struct Checked {
    /// The commit, where a tag was given.
    pub commit: Oid,
    /// The commit's tree.
    pub tree: Oid,
    /// The times that the files have.
    pub time: Time,
    /// The text of .gitmodules, where there is one.
    pub modules: Option<Vec<u8>>,
    /// Where commits of other repositories belong: directories that were made and are empty.
    pub submodules: Vec<(RelPath, Oid)>,
    /// Every file and submodule, in order of paths as an index has them.
    pub files: Vec<Indexed>,
    /// What could not be written as the repository says, for the user.
    pub notes: Vec<String>,
}

/// A file as an index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed {
    /// Its path.
    pub path: RelPath,
    /// Type and permissions.
    pub mode: u32,
    /// Its content, or commit.
    pub oid: Oid,
    /// The size of the file as it was written.
    pub size: u64,
}

impl Pack {
    /// Follows tags to a commit.
    pub fn peel(&self, oid: &Oid) -> Result<Oid, Error> {
        let mut oid = *oid;
        for _ in 0..MAX_TAGS {
            match self.kind(&oid) {
                None => return Err(Error::Missing(oid)),
                Some(Kind::Tag) => {
                    oid = object::tagged(&oid, &self.read(&oid, Kind::Tag, MAX_SMALL)?)?;
                }
                Some(Kind::Commit) => return Ok(oid),
                Some(kind) => {
                    let why = format!("it is a {}, not a commit", kind.name());
                    return Err(Error::object(&oid, why));
                }
            }
        }
        Err(Error::object(&oid, "too many tags point to it"))
    }

    pub(super) fn commit(&self, oid: &Oid) -> Result<Commit, Error> {
        object::commit(oid, &self.read(oid, Kind::Commit, MAX_SMALL)?)
    }

    pub(super) fn tree(&self, oid: &Oid) -> Result<Vec<u8>, Error> {
        self.read(oid, Kind::Tree, MAX_TREE)
    }

    /// Tells whether a path of a commit's root leads through directories to one.
    pub fn has_directory(&self, commit: &Oid, path: &RelPath) -> Result<bool, Error> {
        let mut at = self.commit(&self.peel(commit)?)?.tree;
        for name in path.components() {
            let bytes = self.tree(&at)?;
            let entries = object::tree(&at, &bytes)?;
            let found = entries.iter().find(|entry| entry.name == name);
            match found {
                Some(entry) if entry.mode == Mode::Directory => at = entry.oid,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// A file that is to be written.
struct Job {
    dir: Arc<Dir>,
    path: RelPath,
    oid: Oid,
    mode: Mode,
    rules: Rules,
}

/// What writing a file told: its size, and a note.
type Wrote = (Indexed, Option<String>);

struct Work<'a> {
    checkout: &'a Checkout<'a>,
    meta: Meta,
    placer: Placer,
    jobs: Vec<Job>,
    open: usize,
    checked: Checked,
}

/// Writes a commit's files. Nothing is followed on the way, and nothing that stands outside of the
/// directory is touched.
pub fn check_out(checkout: &Checkout<'_>) -> Result<Checked, Error> {
    let pack = checkout.pack;
    let commit = pack.peel(&checkout.commit)?;
    let Commit { tree, time } = pack.commit(&commit)?;
    let time = checkout.time.unwrap_or(Time {
        secs: time,
        nanos: 0,
    });
    let mut meta = Meta::dir(0o755, time);
    meta.uid = rustix::process::geteuid().as_raw();
    meta.gid = rustix::process::getegid().as_raw();
    let placer = Placer::new(checkout.dir).map_err(|e| failed(&RelPath::root(), e))?;
    let mut work = Work {
        checkout,
        meta,
        placer,
        jobs: Vec::new(),
        open: 0,
        checked: Checked {
            commit,
            tree,
            time,
            modules: None,
            submodules: Vec::new(),
            files: Vec::new(),
            notes: Vec::new(),
        },
    };
    work.walk(tree)?;
    work.flush()?;
    let Work {
        placer,
        mut checked,
        ..
    } = work;
    placer.finish().map_err(|e| failed(&RelPath::root(), e))?;
    checked
        .files
        .sort_unstable_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    Ok(checked)
}

fn failed(path: &RelPath, source: io::Error) -> Error {
    Error::CheckOut {
        path: path.to_string(),
        source,
    }
}

impl Work<'_> {
    fn walk(&mut self, root: Oid) -> Result<(), Error> {
        let pack = self.checkout.pack;
        let mut todo = vec![(RelPath::root(), root, Attributes::default())];
        let mut seen = 0_usize;
        while let Some((path, oid, above)) = todo.pop() {
            if self.checkout.cancel.is_set() {
                return Err(Error::Cancelled);
            }
            let bytes = pack.tree(&oid)?;
            let entries = object::tree(&oid, &bytes)?;
            refuse_twice(&oid, &entries)?;
            seen = seen.saturating_add(entries.len() + 1);
            if seen > MAX_ENTRIES {
                let why = format!("it has more than {MAX_ENTRIES} files and directories");
                return Err(Error::object(&root, why));
            }
            self.placer
                .put(&path, &self.meta, None)
                .map_err(|e| failed(&path, e))?;
            let attributes = match self.text(&entries, b".gitattributes", MAX_FILE)? {
                Some(text) => above.with(&path, &text),
                None => above,
            };
            if path.is_root() {
                self.checked.modules = self.text(&entries, b".gitmodules", MAX_SMALL)?;
            }
            let mut dir = None;
            for entry in &entries {
                let path = path.join(entry.name);
                if path.as_bytes().len() >= MAX_PATH {
                    return Err(Error::object(&oid, "a path in it is too long"));
                }
                if !self.is_wanted(&path) {
                    continue;
                }
                match entry.mode {
                    Mode::Directory => todo.push((path, entry.oid, attributes.clone())),
                    Mode::Submodule => {
                        self.placer
                            .put(&path, &self.meta, None)
                            .map_err(|e| failed(&path, e))?;
                        self.index(path.clone(), entry, 0);
                        self.checked.submodules.push((path, entry.oid));
                    }
                    Mode::Symlink => self.link(path, entry)?,
                    Mode::File | Mode::Executable => {
                        let dir = match &dir {
                            Some(dir) => Arc::clone(dir),
                            None => {
                                let parent = path.parent().unwrap_or_default();
                                let open = self.placer.dir(&parent);
                                let open = open.map_err(|e| failed(&parent, e))?;
                                self.open += 1;
                                dir.insert(open).clone()
                            }
                        };
                        let rules = match attributes.is_empty() {
                            true => Rules::default(),
                            false => attributes.of(&path),
                        };
                        self.jobs.push(Job {
                            dir,
                            path,
                            oid: entry.oid,
                            mode: entry.mode,
                            rules,
                        });
                        if self.jobs.len() >= BATCH.0 {
                            self.flush()?;
                        }
                    }
                }
            }
            if self.open >= BATCH.1 {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Tells whether a path is in the only directory that is wanted, or on the way to it.
    fn is_wanted(&self, path: &RelPath) -> bool {
        match self.checkout.only {
            Some(only) => path.is_within(only) || only.is_within(path),
            None => true,
        }
    }

    /// Reads a file of git's own, where a tree has it.
    fn text(
        &self,
        entries: &[Entry<'_>],
        name: &[u8],
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        let pack = self.checkout.pack;
        let file = entries.iter().find(|entry| {
            entry.name == name && matches!(entry.mode, Mode::File | Mode::Executable)
        });
        match file {
            // git passes over one that is too large.
            Some(file) if pack.size(&file.oid)? <= limit => {
                Ok(Some(pack.read(&file.oid, Kind::Blob, limit)?))
            }
            _ => Ok(None),
        }
    }

    fn link(&mut self, path: RelPath, entry: &Entry<'_>) -> Result<(), Error> {
        let target = self
            .checkout
            .pack
            .read(&entry.oid, Kind::Blob, MAX_PATH as u64 - 1)?;
        if target.is_empty() || target.contains(&0) {
            let why = "it is a symbolic link without a usable target";
            return Err(Error::object(&entry.oid, why));
        }
        let size = target.len() as u64;
        let meta = Meta {
            kind: crate::fs::Kind::Symlink,
            mode: 0o777,
            target,
            ..self.meta.clone()
        };
        self.placer
            .put(&path, &meta, None)
            .map_err(|e| failed(&path, e))?;
        self.index(path, entry, size);
        Ok(())
    }

    fn index(&mut self, path: RelPath, entry: &Entry<'_>, size: u64) {
        self.checked.files.push(Indexed {
            path,
            mode: entry.mode.bits(),
            oid: entry.oid,
            size,
        });
    }

    /// Writes the files that are waiting, in parallel.
    fn flush(&mut self) -> Result<(), Error> {
        let jobs = std::mem::take(&mut self.jobs);
        self.open = 0;
        let Checkout { pack, cancel, .. } = self.checkout;
        let meta = &self.meta;
        let wrote: Result<Vec<Wrote>, Error> = jobs
            .par_iter()
            .map(|job| match cancel.is_set() {
                true => Err(Error::Cancelled),
                false => write(pack, job, meta, cancel),
            })
            .collect();
        for (indexed, note) in wrote? {
            self.checked.files.push(indexed);
            self.checked.notes.extend(note);
        }
        Ok(())
    }
}

/// One name twice in a tree could make one thing of another that is already there.
fn refuse_twice(oid: &Oid, entries: &[Entry<'_>]) -> Result<(), Error> {
    let mut names: Vec<&[u8]> = entries.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => {
            let why = format!("its tree has the name `{}` twice", two[0].escape_ascii());
            Err(Error::object(oid, why))
        }
        None => Ok(()),
    }
}

fn write(pack: &Pack, job: &Job, meta: &Meta, cancel: &Cancel) -> Result<Wrote, Error> {
    let fail = |source| failed(&job.path, source);
    let meta = Meta {
        kind: crate::fs::Kind::File,
        mode: match job.mode {
            Mode::Executable => 0o755,
            _ => 0o644,
        },
        ..meta.clone()
    };
    let mut file = job.dir.create(job.path.name(), &meta).map_err(fail)?;
    let mut note = None;
    let size = if job.rules.is_plain() {
        let mut content = UntilCancelled {
            inner: pack.open(&job.oid)?,
            cancel,
        };
        io::copy(&mut content, &mut file).map_err(|source| match cancel.is_set() {
            true => Error::Cancelled,
            false => fail(source),
        })?
    } else {
        let content = pack.read(&job.oid, Kind::Blob, MAX_CONVERTED)?;
        let content = convert::written(content, &job.oid, &job.rules).unwrap_or_else(|plain| {
            let name = job.rules.encoding.as_deref().unwrap_or_default();
            note = Some(format!(
                "{}: its working-tree-encoding {} cannot be written; it stays UTF-8",
                job.path,
                name.escape_debug()
            ));
            plain
        });
        io::Write::write_all(&mut file, &content).map_err(fail)?;
        content.len() as u64
    };
    job.dir.seal(&file, &meta).map_err(fail)?;
    let indexed = Indexed {
        path: job.path.clone(),
        mode: job.mode.bits(),
        oid: job.oid,
        size,
    };
    Ok((indexed, note))
}

struct UntilCancelled<'a, R> {
    inner: R,
    cancel: &'a Cancel,
}

impl<R: io::Read> io::Read for UntilCancelled<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.cancel.is_set() {
            true => Err(io::Error::other(Error::Cancelled)),
            false => self.inner.read(out),
        }
    }
}
