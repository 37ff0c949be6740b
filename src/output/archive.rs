//! An archive of an image: what Docker's and OCI's have in common.

use super::stream::{Stream, copy};
use super::{Error, failed};
use crate::fs::{Meta, RelPath};
use crate::layer::tar;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// A tar whose entries belong to root and are of 1970: the same image is the same archive.
pub(super) struct Archive<'s, 'a> {
    pub(super) out: &'s mut Stream<'a>,
}

impl Archive<'_, '_> {
    fn header(&mut self, name: &str, meta: &Meta) -> io::Result<()> {
        let path = RelPath::clean(name.as_bytes()).unwrap_or_default();
        let mut head = Vec::new();
        tar::header(&mut head, &path, meta, None, 0).map_err(io::Error::other)?;
        self.out.write_all(&head)
    }

    fn file_header(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.header(name, &Meta::file(0o644, size, Default::default()))
    }

    /// Adds a directory.
    pub(super) fn directory(&mut self, name: &str) -> Result<(), Error> {
        let written = self.header(name, &Meta::dir(0o755, Default::default()));
        written.map_err(|e| self.out.failed("write", Path::new(name))(e))
    }

    /// Adds a file that is in memory.
    pub(super) fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let size = bytes.len() as u64;
        let written = self
            .file_header(name, size)
            .and_then(|()| self.out.write_all(bytes))
            .and_then(|()| self.pad(size));
        written.map_err(|e| self.out.failed("write", Path::new(name))(e))
    }

    /// Adds a blob as it is.
    pub(super) fn blob(&mut self, name: &str, size: u64, blob: &Path) -> Result<(), Error> {
        let mut file = File::open(blob).map_err(failed("open", blob))?;
        let written = self
            .file_header(name, size)
            .and_then(|()| self.out.copy(&mut file))
            .and_then(|copied| check(copied, size))
            .and_then(|()| self.pad(size));
        written.map_err(|e| self.out.failed("put into the archive", blob)(e))
    }

    /// Adds what a reader gives, whose size is known.
    pub(super) fn stream(
        &mut self,
        name: &str,
        size: u64,
        source: &mut dyn Read,
    ) -> io::Result<()> {
        self.file_header(name, size)?;
        let copied = copy(&mut source.take(size + 1), &mut self.out)?;
        check(copied, size)?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.out.write_all(&vec![0; tar::padding(size)])
    }

    /// Ends the archive.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        let mut end = Vec::new();
        tar::end(&mut end);
        let written = self.out.write_all(&end);
        written.map_err(|e| self.out.failed("write", Path::new("the end"))(e))
    }
}

fn check(copied: u64, size: u64) -> io::Result<()> {
    match copied == size {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "it has {copied} bytes or more, {size} were expected"
        ))),
    }
}
