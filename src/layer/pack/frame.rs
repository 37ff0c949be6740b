//! Changes to the bytes of a tar, reading ahead.
//!
//! Opening and reading many small files one after the other is slower than everything that follows,
//! so runs of them are framed by threads of their own, a few runs ahead, in order. Large files are
//! read by the framer itself, straight into the chunks.

use super::permits::{Account, Chunk};
use super::{Times, tar};
use crate::changeset::{Action, Change};
use crate::fs::{ContentId, Holes, Kind, Meta, Node, RelPath, Source, Time, TocEntry};
use crate::layer::Error;
use crate::sys::Cancel;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::thread::Scope;

/// Content of more bytes is read by the framer.
const LARGE: u64 = 256 << 10;
/// A run ends after so many bytes or entries.
const RUN_BYTES: u64 = 512 << 10;
const RUN_ENTRIES: usize = 128;
/// The most threads that read ahead, and how many runs ahead for each.
const READERS: usize = 8;
const AHEAD: usize = 2;

/// Where the bytes of a tar go.
pub(super) trait Out {
    /// Adds bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Adds what `read` puts into a buffer of up to `limit` bytes; gives what that was.
    fn fill(
        &mut self,
        limit: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Result<io::Result<&[u8]>, Error>;
}

/// Whether there is to be a table of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// With content ids.
    Wanted,
    /// Nothing is kept of an entry once it is written.
    Unwanted,
}

/// How entries are framed.
#[derive(Clone, Copy)]
struct Manner {
    times: Times,
    table: Table,
}

/// What is framed at a time.
enum Piece {
    /// Entries whose content is small.
    Run(Range<usize>),
    /// One large file.
    Large(usize),
}

/// A run as the bytes of a tar.
#[derive(Default)]
struct Framed {
    bytes: Vec<u8>,
    entries: Vec<TocEntry>,
}

/// A run to be framed by a reader. The permit is missing for the only one in the making.
struct Task {
    run: Range<usize>,
    permit: Option<Chunk>,
    done: Sender<Answer>,
}

/// What a reader made of a task; the permit stays until the bytes are written.
struct Answer {
    framed: Result<Framed, Error>,
    _permit: Option<Chunk>,
}

fn pieces(changes: &[Change]) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, change) in changes.iter().enumerate() {
        let size = match &change.action {
            Action::Put {
                meta,
                source: Some(_),
                link: None,
            } => meta.size,
            _ => 0,
        };
        let large = size > LARGE;
        if large || bytes + size > RUN_BYTES || at - start >= RUN_ENTRIES {
            if start < at {
                out.push(Piece::Run(start..at));
            }
            start = at;
            bytes = 0;
        }
        if large {
            out.push(Piece::Large(at));
            start = at + 1;
        } else {
            bytes += size;
        }
    }
    if start < changes.len() {
        out.push(Piece::Run(start..changes.len()));
    }
    out
}

/// Frames all changes; gives the table of contents where it is wanted.
pub(super) fn frame<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    changes: &'env [Change],
    (times, table): (Times, Table),
    account: &Account,
    cancel: &Cancel,
    out: &mut impl Out,
) -> Result<Vec<TocEntry>, Error> {
    let manner = Manner { times, table };
    let pieces = pieces(changes);
    let mut entries = match table {
        Table::Wanted => Vec::with_capacity(changes.len()),
        Table::Unwanted => Vec::new(),
    };
    let runs = pieces.iter().filter(|p| matches!(p, Piece::Run(_))).count();
    let mut ahead = match runs {
        0..=2 => None,
        _ => Some(Ahead::start(scope, changes, manner, runs)?),
    };
    let mut buffer = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        if cancel.is_set() {
            return Err(Error::Cancelled);
        }
        if let Some(ahead) = &mut ahead {
            ahead.issue(&pieces, at, account);
        }
        match (piece, &mut ahead) {
            (Piece::Run(_), Some(ahead)) => {
                let answer = ahead.next()?;
                let framed = answer.framed?;
                out.write(&framed.bytes)?;
                entries.extend(framed.entries);
            }
            (Piece::Run(run), None) => {
                let mut framed = Framed {
                    bytes: std::mem::take(&mut buffer),
                    entries: Vec::new(),
                };
                run_of(changes, run, manner, &mut framed)?;
                out.write(&framed.bytes)?;
                entries.extend(framed.entries);
                buffer = framed.bytes;
                buffer.clear();
            }
            (Piece::Large(index), _) => {
                if let Some(change) = changes.get(*index) {
                    entries.extend(large(change, manner, out)?);
                }
            }
        }
    }
    let mut end = Vec::new();
    tar::end(&mut end);
    out.write(&end)?;
    repeat_content(&mut entries);
    Ok(entries)
}

/// Runs that are framed ahead of time.
struct Ahead {
    tasks: Sender<Task>,
    waiting: VecDeque<Receiver<Answer>>,
    most: usize,
    issued: usize,
}

impl Ahead {
    fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        changes: &'env [Change],
        manner: Manner,
        runs: usize,
    ) -> Result<Ahead, Error> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let readers = (2 * processors).min(READERS).min(runs);
        let (tasks, queue) = unbounded::<Task>();
        for _ in 0..readers {
            let queue: Receiver<Task> = queue.clone();
            std::thread::Builder::new()
                .name("layer-read".into())
                .spawn_scoped(scope, move || {
                    for Task {
                        run,
                        mut permit,
                        done,
                    } in queue
                    {
                        let mut framed = Framed {
                            bytes: permit
                                .as_mut()
                                .map(|p| std::mem::take(&mut p.bytes))
                                .unwrap_or_default(),
                            entries: Vec::new(),
                        };
                        let framed = run_of(changes, &run, manner, &mut framed).map(|()| framed);
                        // Nobody waits any more where the layer is given up.
                        let _ = done.send(Answer {
                            framed,
                            _permit: permit,
                        });
                    }
                })
                .map_err(|e| Error::Compress(io::Error::other(format!("start a thread: {e}"))))?;
        }
        Ok(Ahead {
            tasks,
            waiting: VecDeque::new(),
            most: readers * AHEAD,
            issued: 0,
        })
    }

    /// Hands out runs from piece `at` on as far as permits go; one at least.
    fn issue(&mut self, pieces: &[Piece], at: usize, account: &Account) {
        self.issued = self.issued.max(at);
        while self.waiting.len() < self.most {
            let Some(piece) = pieces.get(self.issued) else {
                return;
            };
            if let Piece::Run(run) = piece {
                let permit = account.spare();
                if permit.is_none() && !self.waiting.is_empty() {
                    return;
                }
                let (done, result) = bounded(1);
                let task = Task {
                    run: run.clone(),
                    permit,
                    done,
                };
                // The readers end only when this sender is gone.
                let _ = self.tasks.send(task);
                self.waiting.push_back(result);
            }
            self.issued += 1;
        }
    }

    fn next(&mut self) -> Result<Answer, Error> {
        self.waiting
            .pop_front()
            .and_then(|result| result.recv().ok())
            .ok_or_else(|| Error::Compress(io::Error::other("a reading thread panicked")))
    }
}

/// Frames a run.
fn run_of(
    changes: &[Change],
    run: &Range<usize>,
    Manner { times, table }: Manner,
    framed: &mut Framed,
) -> Result<(), Error> {
    for change in changes.get(run.clone()).unwrap_or_default() {
        let out = &mut framed.bytes;
        let path = &change.path;
        let unfit = |why: tar::Unfit| unfit(path, why.to_string());
        let node = match &change.action {
            Action::Delete if path.is_root() => continue,
            Action::Delete => {
                tar::whiteout(out, path, times.of_nothing()).map_err(unfit)?;
                Node::Delete
            }
            Action::Opaque(meta) => {
                let meta = times.stamp(meta);
                if !path.is_root() {
                    check_name(path)?;
                    tar::header(out, path, &meta, None, meta.mtime.secs).map_err(unfit)?;
                }
                tar::opaque(out, path, meta.mtime.secs).map_err(unfit)?;
                Node::Opaque(meta)
            }
            // The root has no name that every reader of layers takes.
            Action::Put { .. } if path.is_root() => continue,
            Action::Put { meta, source, link } => {
                check_name(path)?;
                let meta = times.stamp(meta);
                tar::header(out, path, &meta, link.as_ref(), meta.mtime.secs).map_err(unfit)?;
                let content = match (link, meta.kind) {
                    (None, Kind::File) => {
                        let at = out.len();
                        append_content(out, source.as_ref(), &meta)
                            .map_err(|e| read_error(path, e))?;
                        let id = match table {
                            Table::Wanted => Some(blake3::hash(&out[at..]).into()),
                            Table::Unwanted => None,
                        };
                        tar::pad(out, meta.size);
                        id
                    }
                    _ => None,
                };
                Node::Put {
                    meta,
                    content,
                    link: link.clone(),
                }
            }
        };
        if table == Table::Wanted {
            framed.entries.push(TocEntry {
                path: path.clone(),
                node,
            });
        }
    }
    Ok(())
}

/// Adds the content of a small file.
fn append_content(out: &mut Vec<u8>, source: Option<&Source>, meta: &Meta) -> io::Result<()> {
    let size = usize::try_from(meta.size).map_err(io::Error::other)?;
    let got = match source {
        None => 0,
        Some(Source::Bytes(bytes)) => {
            out.extend_from_slice(bytes);
            bytes.len()
        }
        Some(source @ (Source::File { .. } | Source::Live { .. })) => {
            let mut file = open(source)?;
            let at = out.len();
            // One byte more than there should be, so that one call sees the end as well.
            out.resize(at + size + 1, 0);
            let mut got = 0;
            while got <= size {
                match read(&mut file, &mut out[at + got..])? {
                    0 => break,
                    n => got += n,
                }
                if got == size {
                    break;
                }
            }
            out.truncate(at + got);
            got
        }
    };
    if got == size {
        Ok(())
    } else {
        Err(changed(meta.size, got as u64))
    }
}

/// Writes a large file.
fn large(
    change: &Change,
    Manner { times, table }: Manner,
    out: &mut impl Out,
) -> Result<Option<TocEntry>, Error> {
    let path = &change.path;
    let Action::Put {
        meta,
        source: Some(source),
        ..
    } = &change.action
    else {
        return Err(unfit(path, "it is no regular file".into()));
    };
    check_name(path)?;
    let meta = times.stamp(meta);
    let mut head = Vec::new();
    tar::header(&mut head, path, &meta, None, meta.mtime.secs)
        .map_err(|why| unfit(path, why.to_string()))?;
    out.write(&head)?;
    let mut hash = (table == Table::Wanted).then(blake3::Hasher::new);
    let mut take = |bytes: &[u8]| {
        if let Some(hash) = &mut hash {
            hash.update(bytes);
        }
    };
    match source {
        Source::Bytes(bytes) => {
            if bytes.len() as u64 != meta.size {
                return Err(read_error(path, changed(meta.size, bytes.len() as u64)));
            }
            out.write(bytes)?;
            take(bytes);
        }
        Source::File { .. } | Source::Live { .. } => {
            stream(path, source, meta.size, out, &mut take)?
        }
    }
    head.clear();
    tar::pad(&mut head, meta.size);
    out.write(&head)?;
    Ok(hash.map(|hash| TocEntry {
        path: path.clone(),
        node: Node::Put {
            meta,
            content: Some(ContentId::from(hash.finalize())),
            link: None,
        },
    }))
}

fn stream(
    path: &RelPath,
    source: &Source,
    size: u64,
    out: &mut impl Out,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), Error> {
    let file = open(source).and_then(Holes::new);
    let mut file = file.map_err(|e| read_error(path, e))?;
    let mut left = size;
    while left > 0 {
        let bytes = out
            .fill(left, |buffer| read(&mut file, buffer))?
            .map_err(|e| read_error(path, e))?;
        if bytes.is_empty() {
            return Err(read_error(path, changed(size, size - left)));
        }
        take(bytes);
        left -= bytes.len() as u64;
    }
    match read(&mut file, &mut [0]) {
        Ok(0) => Ok(()),
        Ok(more) => Err(read_error(path, changed(size, size + more as u64))),
        Err(e) => Err(read_error(path, e)),
    }
}

fn open(source: &Source) -> io::Result<File> {
    source
        .file()?
        .ok_or_else(|| io::Error::other("it is not a file on disk"))
}

fn read(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn changed(wanted: u64, got: u64) -> io::Error {
    io::Error::other(format!(
        "its size changed while it was read: {wanted} bytes were expected, there are {got}{}",
        if got > wanted { " or more" } else { "" }
    ))
}

fn read_error(path: &RelPath, source: io::Error) -> Error {
    Error::Io {
        action: "read",
        path: path.clone(),
        source,
    }
}

fn unfit(path: &RelPath, why: String) -> Error {
    Error::Unfit {
        path: path.clone(),
        why,
    }
}

fn check_name(path: &RelPath) -> Result<(), Error> {
    if path.name().starts_with(b".wh.") {
        let why = "a name that begins with `.wh.` marks a deletion there";
        return Err(unfit(path, why.into()));
    }
    Ok(())
}

/// Gives the further names of a file the content id of its first.
fn repeat_content(entries: &mut [TocEntry]) {
    let find = |entries: &[TocEntry], path: &RelPath| {
        let at = entries
            .binary_search_by(|entry| entry.path.cmp(path))
            .ok()?;
        match &entries.get(at)?.node {
            Node::Put { content, .. } => *content,
            _ => None,
        }
    };
    for at in 0..entries.len() {
        let Some(TocEntry {
            node: Node::Put {
                link: Some(first), ..
            },
            ..
        }) = entries.get(at)
        else {
            continue;
        };
        let id = find(entries, first);
        if let Some(TocEntry {
            node: Node::Put { content, .. },
            ..
        }) = entries.get_mut(at)
        {
            *content = id;
        }
    }
}

impl Times {
    /// Gives the metadata as the layer has it.
    pub fn stamp(self, meta: &Meta) -> Meta {
        let secs = match self {
            Times::Keep => meta.mtime.secs,
            Times::Clamp(latest) => meta.mtime.secs.min(latest),
            Times::Set(secs) => secs,
        };
        Meta {
            mtime: Time { secs, nanos: 0 },
            ..meta.clone()
        }
    }

    /// Gives the time of an entry that stands for something gone.
    fn of_nothing(self) -> i64 {
        match self {
            Times::Keep => 0,
            Times::Clamp(latest) => latest.min(0),
            Times::Set(secs) => secs,
        }
    }
}
