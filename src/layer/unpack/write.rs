//! Writing small files on a few threads: the names are made in order elsewhere, so that only
//! content, owner, mode and time are left to do.

use super::Error;
use super::files::{Fault, io_error, read_or_write};
use crate::fs::{ContentId, Dir, Meta, RelPath};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

/// Files are handed over so many at a time; each holds a descriptor until it is written.
const FILES: usize = 32;
/// Bytes of content handed over at a time, at least.
const BYTES: usize = 512 << 10;
/// How many threads write.
const THREADS: usize = 2;

/// Some files and their content.
#[derive(Default)]
struct Batch {
    content: Vec<u8>,
    files: Vec<Job>,
}

struct Job {
    number: usize,
    file: File,
    dir: Arc<Dir>,
    path: RelPath,
    meta: Meta,
    bytes: Range<usize>,
}

type Written = Result<Vec<(usize, ContentId)>, Error>;

/// Threads that write files.
pub(super) struct Writers<'scope> {
    batch: Batch,
    out: Sender<Batch>,
    spare: Receiver<Batch>,
    threads: Vec<ScopedJoinHandle<'scope, Written>>,
}

impl<'scope> Writers<'scope> {
    pub fn start<'env>(scope: &'scope Scope<'scope, 'env>) -> Writers<'scope> {
        let (out, batches) = bounded::<Batch>(1);
        let (used, spare) = bounded(THREADS + 2);
        let threads = (0..THREADS)
            .map(|_| {
                let (batches, used) = (batches.clone(), used.clone());
                scope.spawn(move || {
                    let mut ids = Vec::new();
                    for mut batch in batches {
                        write(&mut batch, &mut ids)?;
                        batch.content.clear();
                        let _ = used.try_send(batch);
                    }
                    Ok(ids)
                })
            })
            .collect();
        Writers {
            batch: Batch::default(),
            out,
            spare,
            threads,
        }
    }

    /// Takes over a small file that has just been made, with its content.
    pub fn small(
        &mut self,
        number: usize,
        file: File,
        dir: Arc<Dir>,
        path: &RelPath,
        meta: &Meta,
        content: &mut dyn Read,
    ) -> Result<(), Error> {
        let start = self.batch.content.len();
        content
            .read_to_end(&mut self.batch.content)
            .map_err(|e| read_or_write(path, Fault::Read(e)))?;
        let bytes = start..self.batch.content.len();
        self.batch.files.push(Job {
            number,
            file,
            dir,
            path: path.clone(),
            meta: meta.clone(),
            bytes,
        });
        if self.batch.files.len() >= FILES || self.batch.content.len() >= BYTES {
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        let next = self.spare.try_recv().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batch, next);
        // Where all writers have failed, `finish` says why.
        let _ = self.out.send(batch);
    }

    /// Waits until everything is written; gives the content ids by number.
    pub fn finish(mut self) -> Written {
        self.flush();
        drop(self.out);
        let mut ids = Vec::new();
        let mut failed = None;
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(more)) => ids.extend(more),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        failed.map_or(Ok(ids), Err)
    }
}

fn write(batch: &mut Batch, ids: &mut Vec<(usize, ContentId)>) -> Result<(), Error> {
    for job in batch.files.drain(..) {
        let bytes = batch.content.get(job.bytes.clone()).unwrap_or_default();
        let mut file = &job.file;
        file.write_all(bytes)
            .and_then(|()| job.dir.seal(file, &job.meta))
            .map_err(|error: io::Error| io_error("write", &job.path, error))?;
        ids.push((job.number, *blake3::hash(bytes).as_bytes()));
    }
    Ok(())
}
