//! The builder's side of one run: hands a job to the helper and what the command prints on.

use super::attach::BATCH;
use super::helper::around_byte;
use super::prepare::Prepared;
use super::wire::{REPORT_LIMIT, Report, Status, Way, Why, wipe};
use super::{Error, Exit};
use crate::progress::Stream;
use crate::sys::Cancel;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketFlags, SocketType,
};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How much is read from a pipe at once: all that it holds.
const CHUNK: usize = 64 * 1024;

/// The builder's ends of what a run is connected by.
struct Line {
    reports: OwnedFd,
    streams: Vec<(Stream, OwnedFd)>,
}

/// Takes what cannot be as it should, each kind by its number.
pub(super) type Warn<'a> = &'a mut dyn FnMut(i32, &str);

/// Runs a job to its end.
pub(super) fn run(
    control: &OwnedFd,
    prepared: Prepared,
    output: &mut dyn FnMut(Stream, &[u8]),
    warn: Warn<'_>,
    cancel: &Cancel,
) -> Result<Exit, Error> {
    let way = prepared.job.way;
    let line = submit(control, prepared)?;
    let outcome = line.follow(output, warn, cancel)?;
    outcome.exit(way)
}

/// What was said about a run.
#[derive(Default)]
struct Outcome {
    failed: Option<(String, Why)>,
    ended: Option<Status>,
    gone: Option<Status>,
    cancelled: bool,
}

impl Outcome {
    fn exit(self, way: Way) -> Result<Exit, Error> {
        if let Some((action, why)) = self.failed {
            return Err(Error::setup(action)(why.error()));
        }
        // What was put into the root for the command is still there then.
        if way != Way::Pivot && self.gone != Some(Status::Code(0)) {
            return Err(Error::Helper(
                "or the command's keeper was killed, by the command or for want of memory; what \
                 the command was given may still be in its root"
                    .to_owned(),
            ));
        }
        Ok(match (self.ended, self.cancelled, self.gone) {
            (Some(Status::Code(code)), ..) => Exit::Code(code),
            (Some(Status::Signal(signal)), ..) => Exit::Signal(signal),
            (None, true, _) => Exit::Cancelled,
            // Process 1 was killed, by the kernel for want of memory, say.
            (None, false, Some(Status::Signal(signal))) => Exit::Signal(signal),
            (None, false, Some(Status::Code(code))) => Exit::Code(code),
            (None, false, None) => return Err(Error::Helper("has died".to_owned())),
        })
    }
}

/// Sends a job to the helper, and the trees it mounts to process 1.
fn submit(control: &OwnedFd, prepared: Prepared) -> Result<Line, Error> {
    let Prepared { job, trees } = prepared;
    let connect = || -> io::Result<(Line, [OwnedFd; 4])> {
        let file = rustix::fs::memfd_create(c"shutter-job", MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        let mut bytes = job.encode();
        let written = file.write_all(&bytes);
        wipe(&mut bytes);
        written?;
        let (reports, line) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // They wait in the socket until process 1 is there to take them.
        for batch in trees.chunks(BATCH) {
            send(&reports, &[0], batch)?;
        }
        let (out, out_there) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, err_there) = pipe_with(PipeFlags::CLOEXEC)?;
        let streams = vec![(Stream::Out, out), (Stream::Err, err)];
        Ok((
            Line { reports, streams },
            [line, file.into(), out_there, err_there],
        ))
    };
    let (line, theirs) = connect().map_err(Error::setup("connect the command"))?;
    send(control, &[around_byte(&job)], &theirs)
        .map_err(|errno| Error::Helper(format!("does not answer: {errno}")))?;
    Ok(line)
}

/// Sends a message with descriptors, at most `BATCH`.
fn send(socket: &OwnedFd, message: &[u8], descriptors: &[OwnedFd]) -> Result<(), Errno> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(message)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

impl Line {
    /// Hands on what is printed until the helper says that nothing is left of the run, or is gone
    /// itself.
    fn follow(
        mut self,
        output: &mut dyn FnMut(Stream, &[u8]),
        warn: Warn<'_>,
        cancel: &Cancel,
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let mut buffer = vec![0; CHUNK];
        let failed = || Error::setup("read what the command prints");
        loop {
            let mut watched = vec![PollFd::new(&self.reports, PollFlags::IN)];
            for (_, pipe) in &self.streams {
                watched.push(PollFd::new(pipe, PollFlags::IN));
            }
            if !outcome.cancelled {
                watched.push(PollFd::new(cancel, PollFlags::IN));
            }
            rustix::io::retry_on_intr(|| poll(&mut watched, None)).map_err(failed())?;
            let ready: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
            let (reports, rest) = ready.split_first().unwrap_or((&false, &[]));
            let (pipes, cancelled) = rest.split_at(self.streams.len().min(rest.len()));

            let mut pipes = pipes.iter();
            let mut result = Ok(());
            self.streams.retain(|(stream, pipe)| {
                if pipes.next() != Some(&true) || result.is_err() {
                    return true;
                }
                match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut buffer)) {
                    Ok(0) => false,
                    Ok(read) => {
                        output(*stream, buffer.get(..read).unwrap_or_default());
                        true
                    }
                    Err(errno) => {
                        result = Err(errno);
                        true
                    }
                }
            });
            result.map_err(failed())?;
            if cancelled.contains(&true) {
                // The helper sees this and kills the namespace.
                let _ = rustix::net::shutdown(&self.reports, Shutdown::Write);
                outcome.cancelled = true;
            }
            if *reports && self.report(&mut outcome, warn)? {
                self.drain(output, &mut buffer).map_err(failed())?;
                return Ok(outcome);
            }
        }
    }

    /// Takes one report; tells whether it is the last.
    fn report(&self, outcome: &mut Outcome, warn: Warn<'_>) -> Result<bool, Error> {
        let mut message = vec![0; REPORT_LIMIT];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.reports, message.as_mut_slice(), RecvFlags::empty())
        });
        let length = match received {
            Ok((length, _)) => length,
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(Error::Helper(format!("cannot be heard: {errno}"))),
        };
        message.truncate(length);
        if message.is_empty() {
            return Ok(true);
        }
        match Report::decode(&message) {
            Some(Report::Failed { action, why }) => {
                outcome.failed.get_or_insert((action, why));
                Ok(false)
            }
            Some(Report::Warned { number, text }) => {
                warn(number, &text);
                Ok(false)
            }
            Some(Report::Ended(status)) => {
                outcome.ended = Some(status);
                Ok(false)
            }
            Some(Report::Gone(status)) => {
                outcome.gone = Some(status);
                Ok(true)
            }
            None => Err(Error::Helper("said something unknown".to_owned())),
        }
    }

    /// Hands on what is still in the pipes. Their end is not waited for: the command may have given
    /// them to somebody outside.
    fn drain(&self, output: &mut dyn FnMut(Stream, &[u8]), buffer: &mut [u8]) -> Result<(), Errno> {
        for (stream, pipe) in &self.streams {
            rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK)?;
            loop {
                match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut *buffer)) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(read) => output(*stream, buffer.get(..read).unwrap_or_default()),
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(())
    }
}
