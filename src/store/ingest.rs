use super::Error;
use super::session::Session;
use crate::oci::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A blob on its way into the store. Dropping it throws it away.
pub struct Ingest {
    session: Arc<Session>,
    path: PathBuf,
    file: File,
    hash: Option<Sha256>,
    size: u64,
}

impl Ingest {
    pub(super) fn start(session: &Arc<Session>, hash: Option<Sha256>) -> Result<Ingest, Error> {
        let path = session.name();
        // Outputs may share the file by a hard link, so nobody gets to write to it.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(|e| session.fail("create", &path, e))?;
        Ok(Ingest {
            session: Arc::clone(session),
            path,
            file,
            hash,
            size: 0,
        })
    }

    /// Adds bytes; like `write_all` with the store's own error.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(|e| self.session.fail("write", &self.path, e))?;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Ends the blob, checks it against the expected digest and puts it in place. Gives digest and size.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let got = match self.hash.take() {
            Some(hash) => hash.finish(),
            None => self
                .read_back()
                .map_err(|e| self.session.fail("read back", &self.path, e))?,
        };
        if let Some(wanted) = expected
            && *wanted != got
        {
            return Err(Error::Mismatch {
                wanted: *wanted,
                got,
                size: self.size,
            });
        }
        let size = self.commit_as(&got)?;
        Ok((got, size))
    }

    /// Ends a blob whose digest the caller has taken over the very bytes written.
    pub fn commit_as(self, digest: &Digest) -> Result<u64, Error> {
        let place = super::blob_path(&self.session.store, digest);
        // Also over one that is there: its size says little of what is in it.
        self.session.place(&self.path, &place)?;
        Ok(self.size)
    }

    fn read_back(&mut self) -> io::Result<Digest> {
        self.file.rewind()?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(hash.finish()),
                Ok(n) => hash.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.append(buf).map_err(Error::into_io)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Once it is in place there is nothing by this name any more.
        let _ = fs::remove_file(&self.path);
    }
}
