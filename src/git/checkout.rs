//! A commit's files, written into a directory.

use super::pack::{Commit, MAX_SMALL, odd};
use super::{Error, Kind, Oid, Pack};
use crate::fs::{Dir, Meta, Placer, RelPath, Time};
use crate::sys::Cancel;
use gix_error::Error as Trouble;
use gix_filter::Pipeline;
use gix_filter::attributes::glob::pattern::Case;
use gix_filter::attributes::search::{MetadataCollection, Outcome};
use gix_filter::attributes::{Search, StateRef};
use gix_filter::pipeline::convert::to_worktree::{Options, UnknownEncoding};
use gix_object::bstr::{BStr, ByteSlice};
use gix_object::tree::{Entry, EntryKind};
use rayon::prelude::*;
use std::borrow::Cow;
use std::io::{self, Write};
use std::iter;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::str::Utf8Error;
use std::sync::Arc;

/// The largest .gitattributes that counts, as in git.
const MAX_FILE: u64 = 100 << 20;
/// The longest path, as in Linux.
const MAX_PATH: usize = 4096;
/// The most names a commit may have: small trees that name each other can say more than any disk
/// holds.
const MAX_ENTRIES: usize = 1 << 23;
/// How many files are written at a time, in how many open directories.
const BATCH: (usize, usize) = (1024, 64);

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
    /// What it is.
    pub kind: EntryKind,
    /// Its content, or commit.
    pub oid: Oid,
    /// The size of the file as it was written.
    pub size: u64,
}

/// A file that is to be written.
struct Job {
    dir: Arc<Dir>,
    path: RelPath,
    oid: Oid,
    kind: EntryKind,
    rules: Arc<Search>,
}

/// What writing a file told: its size, and a note.
type Wrote = (Indexed, Option<String>);

struct Work<'a> {
    checkout: &'a Checkout<'a>,
    meta: Meta,
    placer: Placer,
    jobs: Vec<Job>,
    open: usize,
    /// All attributes that were named so far.
    attributes: MetadataCollection,
    checked: Checked,
}

/// Writes a commit's files. Nothing is followed on the way, and nothing that stands outside of the
/// directory is touched.
pub fn check_out(checkout: &Checkout<'_>) -> Result<Checked, Error> {
    let pack = checkout.pack;
    let commit = pack.peel(&checkout.commit)?;
    let Commit { tree, time, .. } = pack.commit(&commit)?;
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
        attributes: MetadataCollection::default(),
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
        let rules = builtin_rules(&mut self.attributes);
        let rules = rules.map_err(|e| failed(&RelPath::root(), e))?;
        let mut todo = vec![(RelPath::root(), root, Arc::new(rules))];
        let mut seen = 0_usize;
        while let Some((path, oid, above)) = todo.pop() {
            if self.checkout.cancel.is_set() {
                return Err(Error::Cancelled);
            }
            let entries = pack.tree(&oid)?;
            seen = seen.saturating_add(entries.len() + 1);
            if seen > MAX_ENTRIES {
                let why = format!("it has more than {MAX_ENTRIES} files and directories");
                return Err(Error::object(&root, why));
            }
            self.placer
                .put(&path, &self.meta, None)
                .map_err(|e| failed(&path, e))?;
            let rules = match self.text(&entries, b".gitattributes", MAX_FILE)? {
                Some(text) => Arc::new(
                    with_rules(&above, &path, &text, &mut self.attributes)
                        .map_err(|e| failed(&path, e))?,
                ),
                None => above,
            };
            if path.is_root() {
                self.checked.modules = self.text(&entries, b".gitmodules", MAX_SMALL)?;
            }
            let mut dir = None;
            for entry in &entries {
                let path = path.join(&entry.filename);
                if path.as_bytes().len() >= MAX_PATH {
                    return Err(Error::object(&oid, "a path in it is too long"));
                }
                if !self.is_wanted(&path) {
                    continue;
                }
                match entry.mode.kind() {
                    EntryKind::Tree => todo.push((path, entry.oid, Arc::clone(&rules))),
                    EntryKind::Commit => {
                        self.placer
                            .put(&path, &self.meta, None)
                            .map_err(|e| failed(&path, e))?;
                        self.index(path.clone(), entry, 0);
                        self.checked.submodules.push((path, entry.oid));
                    }
                    EntryKind::Link => self.link(path, entry)?,
                    EntryKind::Blob | EntryKind::BlobExecutable => {
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
                        self.jobs.push(Job {
                            dir,
                            path,
                            oid: entry.oid,
                            kind: entry.mode.kind(),
                            rules: Arc::clone(&rules),
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
    fn text(&self, entries: &[Entry], name: &[u8], limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let pack = self.checkout.pack;
        let file = entries
            .iter()
            .find(|entry| entry.filename == name && entry.mode.is_blob());
        match file {
            // git passes over one that is too large.
            Some(file) if pack.size(&file.oid)? <= limit => {
                Ok(Some(pack.read(&file.oid, Kind::Blob, limit)?))
            }
            _ => Ok(None),
        }
    }

    fn link(&mut self, path: RelPath, entry: &Entry) -> Result<(), Error> {
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

    fn index(&mut self, path: RelPath, entry: &Entry, size: u64) {
        self.checked.files.push(Indexed {
            path,
            kind: entry.mode.kind(),
            oid: entry.oid,
            size,
        });
    }

    /// Writes the files that are waiting, in parallel.
    fn flush(&mut self) -> Result<(), Error> {
        let jobs = std::mem::take(&mut self.jobs);
        self.open = 0;
        let Checkout { pack, cancel, .. } = self.checkout;
        let (meta, attributes) = (&self.meta, &self.attributes);
        // Without configuration: no ends of lines but those that attributes ask for, no programs.
        let pipeline = || Pipeline::new(Default::default(), pack.format(), Default::default());
        let wrote: Result<Vec<Wrote>, Error> = jobs
            .par_iter()
            .map_init(pipeline, |pipeline, job| match cancel.is_set() {
                true => Err(Error::Cancelled),
                false => write(pack, job, meta, attributes, pipeline),
            })
            .collect();
        for (indexed, note) in wrote? {
            self.checked.files.push(indexed);
            self.checked.notes.extend(note);
        }
        Ok(())
    }
}

fn write(
    pack: &Pack,
    job: &Job,
    meta: &Meta,
    attributes: &MetadataCollection,
    pipeline: &mut Pipeline,
) -> Result<Wrote, Error> {
    let fail = |source| failed(&job.path, source);
    let meta = Meta {
        kind: crate::fs::Kind::File,
        mode: match job.kind {
            EntryKind::BlobExecutable => 0o755,
            _ => 0o644,
        },
        ..meta.clone()
    };
    let content = pack.read(&job.oid, Kind::Blob, u64::MAX)?;
    let mut file = job.dir.create(job.path.name(), &meta).map_err(fail)?;
    let (content, note) = converted(
        &content, &job.path, &job.oid, &job.rules, attributes, pipeline,
    )?;
    file.write_all(&content).map_err(fail)?;
    job.dir.seal(&file, &meta).map_err(fail)?;
    let indexed = Indexed {
        path: job.path.clone(),
        kind: job.kind,
        oid: job.oid,
        size: content.len() as u64,
    };
    Ok((indexed, note))
}

/// Gives what git knows of attributes by itself, the macro `binary`.
pub(super) fn builtin_rules(attributes: &mut MetadataCollection) -> io::Result<Search> {
    Search::new_globals(iter::empty::<PathBuf>(), &mut Vec::new(), attributes)
}

/// Adds a directory's .gitattributes to those above it.
pub(super) fn with_rules(
    above: &Search,
    dir: &RelPath,
    text: &[u8],
    attributes: &mut MetadataCollection,
) -> io::Result<Search> {
    let mut own = above.clone();
    let source = dir.join(b".gitattributes").as_path().to_owned();
    // Macros are defined at the root alone.
    own.add_patterns_buffer(text, source, Some(Path::new("")), attributes, dir.is_root())?;
    Ok(own)
}

/// Gives a content as its attributes want it written, and a note where its encoding cannot be.
pub(super) fn converted<'a>(
    content: &'a [u8],
    path: &RelPath,
    oid: &Oid,
    rules: &Search,
    attributes: &MetadataCollection,
    pipeline: &mut Pipeline,
) -> Result<(Cow<'a, [u8]>, Option<String>), Error> {
    // The first list is the builtin one, which says nothing of any file.
    if rules.num_pattern_lists() == 1 {
        return Ok((content.into(), None));
    }
    let (mut encoding, mut ident) = (None, false);
    let mut convert = |unknown_encoding| {
        let mut find = |path: &BStr, out: &mut Outcome| {
            out.initialize(attributes);
            rules.pattern_matching_relative_path(path, Case::Sensitive, Some(false), out);
            for found in out.iter_selected() {
                match (found.assignment.name.as_str(), found.assignment.state) {
                    ("ident", state) => ident = state == StateRef::Set,
                    ("working-tree-encoding", StateRef::Value(name)) => {
                        encoding = Some(name.as_bstr().to_string());
                    }
                    _ => {}
                }
            }
        };
        let options = Options {
            unknown_encoding,
            ..Options::default()
        };
        let name = path.as_bytes().into();
        let out = pipeline.convert_to_worktree(content, name, &mut find, options)?;
        let changed = out.as_bytes().filter(|_| out.is_changed());
        Ok(changed.map_or(Cow::Borrowed(content), |bytes| bytes.to_vec().into()))
    };
    let mut plain = false;
    let content = convert(UnknownEncoding::Fail)
        .or_else(|_: Trouble| {
            plain = true;
            convert(UnknownEncoding::Ignore)
        })
        .map_err(|error| odd(oid, error))?;
    let content = match ident {
        true => with_ident(&content, oid).into(),
        false => content,
    };
    let Some(encoding) = encoding else {
        return Ok((content, None));
    };
    match utf_16(&content, &encoding) {
        Ok(Some(encoded)) => Ok((encoded.into(), None)),
        Ok(None) if !plain => Ok((content, None)),
        _ => {
            let note = format!(
                "{}: its working-tree-encoding {} cannot be written; it stays UTF-8",
                path,
                encoding.escape_debug()
            );
            Ok((content, Some(note)))
        }
    }
}

/// Fills `$Id$` in as git does, and anew where it was filled in before: the library leaves out a space
/// of it, and what it finds filled in.
fn with_ident(bytes: &[u8], oid: &Oid) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.find(b"$Id") {
        let (before, tail) = rest.split_at(at + 3);
        out.extend_from_slice(before);
        rest = tail;
        let after = match tail.first() {
            Some(b'$') => &tail[1..],
            Some(b':') => {
                let Some(end) = tail.find_byte(b'$') else {
                    break;
                };
                let inner = &tail[1..end];
                let foreign = inner
                    .get(1..)
                    .and_then(|inner| inner.find_byte(b' '))
                    .is_some_and(|space| space + 2 < inner.len());
                if inner.contains(&b'\n') || foreign {
                    continue;
                }
                &tail[end + 1..]
            }
            _ => continue,
        };
        out.extend_from_slice(format!(": {oid} $").as_bytes());
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

/// Writes text as UTF-16, where that is what the name stands for: the library has the table of the
/// web's encodings, which are never written so. `Err` where it is no text.
fn utf_16(content: &[u8], name: &str) -> Result<Option<Vec<u8>>, Utf8Error> {
    let (mark, bytes): (_, fn(u16) -> [u8; 2]) = match name.to_ascii_uppercase().as_str() {
        "UTF-16" | "UTF16" | "UTF-16LE-BOM" => (true, u16::to_le_bytes),
        "UTF-16BE-BOM" => (true, u16::to_be_bytes),
        "UTF-16LE" | "UTF16LE" => (false, u16::to_le_bytes),
        "UTF-16BE" | "UTF16BE" => (false, u16::to_be_bytes),
        _ => return Ok(None),
    };
    let text = std::str::from_utf8(content)?;
    let mark = mark.then_some(0xfeff);
    Ok(Some(
        mark.into_iter()
            .chain(text.encode_utf16())
            .flat_map(bytes)
            .collect(),
    ))
}
