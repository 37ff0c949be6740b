use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

/// Reads a regular file without having the file system read its holes, which are zeroes.
pub struct Holes {
    file: File,
    at: u64,
    /// The stretch of data that is read, or that comes next.
    data: Range<u64>,
    /// Where the file ended when it was opened; what is behind is read as it comes.
    end: u64,
}

impl Holes {
    /// Starts at the beginning of a file.
    pub fn new(file: File) -> io::Result<Holes> {
        let stat = rustix::fs::fstat(&file)?;
        let end = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(u64::MAX);
        let mut holes = Holes {
            file,
            at: 0,
            data: 0..end,
            end,
        };
        // Only a file that takes less than its size can have any.
        if blocks.saturating_mul(512) < end {
            holes.data = holes.stretch(0)?;
            holes.seek(holes.data.start)?;
        }
        Ok(holes)
    }

    /// Gives the next stretch of data, without reading it: where it starts and ends; empty at the
    /// end. What lies before it is a hole.
    fn next_data(&mut self) -> io::Result<Range<u64>> {
        if self.at >= self.data.end && self.at < self.end {
            self.data = self.stretch(self.at)?;
            self.seek(self.data.start)?;
        }
        Ok(self.at.max(self.data.start)..self.data.end.max(self.at))
    }

    /// Gives the file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives how long the file was when it was opened.
    pub fn size(&self) -> u64 {
        self.end
    }

    /// Copies what comes next to the same place in another file, inside of the kernel: holes, which
    /// are passed over, and up to so many bytes of data. Gives how far it came; 0 at the end.
    pub fn copy_on(&mut self, to: &mut File, most: u64) -> io::Result<u64> {
        let from = self.at;
        let data = self.next_data()?;
        self.at = data.start;
        if !data.is_empty() {
            seek(&*to, SeekFrom::Start(data.start))?;
            let most = most.min(data.end - data.start);
            let copied = io::copy(&mut (&self.file).take(most), to)?;
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += copied;
        }
        Ok(self.at - from)
    }

    /// Finds the data at or behind a place. A file system that cannot tell says it is all data.
    fn stretch(&self, at: u64) -> io::Result<Range<u64>> {
        let start = match seek(&self.file, SeekFrom::Data(at)) {
            Ok(start) => start.min(self.end),
            Err(Errno::NXIO) => return Ok(self.end..self.end),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(at..self.end),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.end);
        Ok(start..end.min(self.end))
    }

    fn seek(&self, to: u64) -> io::Result<()> {
        seek(&self.file, SeekFrom::Start(to))?;
        Ok(())
    }
}

impl Read for Holes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let data = self.next_data()?;
        let room = |len: u64| usize::try_from(len).unwrap_or(usize::MAX).min(out.len());
        let hole = data.start - self.at;
        let got = if hole > 0 {
            let hole = room(hole);
            out.get_mut(..hole).unwrap_or_default().fill(0);
            hole
        } else if data.is_empty() {
            // Behind the end: nothing, or what has been added meanwhile.
            self.file.read(out)?
        } else {
            let most = room(data.end - data.start);
            self.file.read(out.get_mut(..most).unwrap_or_default())?
        };
        self.at += got as u64;
        Ok(got)
    }
}
