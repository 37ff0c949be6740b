//! The helper: one thread, one `poll`, as many commands as there are.

use super::Error;
use super::init::{self, Streams};
use super::plain::{self, hunt};
use super::wire::{Failure, Job, Report, Status, Way, send};
use crate::fs::mountinfo;
use crate::plan::Network;
use crate::rootfs::FUSE_SOURCE;
use crate::sys::{self, Insn, Namespaced, NetworkNamespace};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// What the builder sends along to have a command run.
pub(super) struct Request {
    /// What connects the run with the builder.
    pub(super) streams: Streams,
    /// The job, as bytes.
    pub(super) job: OwnedFd,
    /// What the processes of the command are in. Of all that a job says this alone matters before
    /// there is a process to read it.
    around: Around,
}

/// What the processes of a command are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Around {
    /// Namespaces of their own.
    Namespaces(NetworkNamespace),
    /// Nothing of their own.
    Nothing,
}

/// Gives the byte that a request says by what the command's processes are in.
pub(super) fn around_byte(job: &Job) -> u8 {
    match (job.way, job.network) {
        (Way::Chroot | Way::Stay, _) => 2,
        (Way::Pivot, Network::Host) => 0,
        (Way::Pivot, Network::None) => 1,
    }
}

/// A command that runs.
struct Run {
    process: Pid,
    descriptor: OwnedFd,
    line: OwnedFd,
    around: Around,
    killed: bool,
}

/// Is the helper, until the builder is gone.
pub(super) fn main(builder: Pid, control: OwnedFd, filter: &[Insn]) -> ! {
    // A panic must not unwind into the builder's code, of which this is a copy.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let (helper, orphaned) = detach(builder)?;
        match serve(control, orphaned)? {
            Some(request) => match request.around {
                Around::Namespaces(_) => init::main(request, &helper, filter),
                Around::Nothing => plain::main(request, &helper, filter),
            },
            None => Ok::<_, io::Error>(()),
        }
    }));
    sys::exit_now(match ended {
        Ok(Ok(())) => 0,
        _ => 1,
    })
}

/// What the kernel tells the helper of the builder's end by.
const ORPHANED: Signal = Signal::USR1;

/// Ties the helper's life to the builder's and takes it out of the terminal's reach; gives a
/// descriptor of the helper, and one that can be read from once the builder is dead.
fn detach(builder: Pid) -> io::Result<(OwnedFd, UnixStream)> {
    let (orphaned, tell) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(ORPHANED.as_raw(), tell)?;
    rustix::process::set_parent_process_death_signal(Some(ORPHANED))?;
    if rustix::process::getppid() != Some(builder) {
        return Err(io::Error::other("the builder is gone"));
    }
    // The builder decides what a signal means; a terminal's would reach the commands otherwise.
    rustix::process::setsid()?;
    // What a keeper leaves behind that a command has killed comes to the helper.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    sys::ignore_signals(&[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT]);
    rustix::thread::set_name(c"shutter-helper")?;
    // The memory is a copy of the builder's: no command may look into it through process 1.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    rustix::process::chdir(c"/")?;
    let helper = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    Ok((helper, orphaned))
}

/// Ends the builder's own file systems. Of a builder that is killed a thread may be waiting for an answer
/// of one of them, which no signal ends; for as long as it waits the kernel waits for the builder,
/// whose other threads were to give that answer.
fn end_mounts() {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    for mount in mountinfo::mounts(&table) {
        if mount.kind == b"fuse" && mount.source == FUSE_SOURCE.as_bytes() {
            // The mount itself is in use, and goes with its namespace.
            let _ = rustix::mount::unmount(mount.point, UnmountFlags::FORCE);
        }
    }
}

/// Starts and watches commands. Comes back with `None` when the builder is gone, and with a request
/// in the process that is to carry it out, where everything of the other commands is closed.
fn serve(control: OwnedFd, orphaned: UnixStream) -> io::Result<Option<Request>> {
    let mut runs: Vec<Run> = Vec::new();
    loop {
        let mut ready = wait(&control, &orphaned, &runs)?.into_iter();
        if ready.next().is_some_and(|events| !events.is_empty()) {
            end_mounts();
            return Ok(None);
        }
        let asked = ready.next().is_some_and(|events| !events.is_empty());
        let events: Vec<PollFlags> = ready.collect();
        let mut events = events.chunks(2);
        let all: Vec<Pid> = runs.iter().map(|run| run.process).collect();
        runs.retain_mut(|run| match events.next() {
            Some([ended, hung_up]) => {
                if !hung_up.is_empty() && !run.killed {
                    let signal = match run.around {
                        Around::Namespaces(_) => Signal::KILL,
                        // A keeper sees it itself, unless the command has stopped it.
                        Around::Nothing => Signal::CONT,
                    };
                    let _ = rustix::process::pidfd_send_signal(&run.descriptor, signal);
                    run.killed = true;
                }
                ended.is_empty() || !finish(run, &all)
            }
            _ => true,
        });
        if !asked {
            continue;
        }
        let Some(request) = receive(&control)? else {
            return Ok(None);
        };
        let started = match request.around {
            Around::Namespaces(network) => {
                sys::clone_into_namespaces(network).map_err(Failure::of(refusal(network)))
            }
            Around::Nothing => fork().map_err(Failure::of("fork the command's keeper")),
        };
        match started {
            Ok(Namespaced::Child) => return Ok(Some(request)),
            Ok(Namespaced::Parent(process, descriptor)) => runs.push(Run {
                process,
                descriptor,
                line: request.streams.line,
                around: request.around,
                killed: false,
            }),
            Err(failure) => {
                failure.report(&request.streams.line);
                send(&request.streams.line, &Report::Gone(Status::Code(1)));
            }
        }
    }
}

/// Forks a process that shares everything with the helper.
fn fork() -> io::Result<Namespaced> {
    Ok(match sys::fork()? {
        sys::Fork::Child => Namespaced::Child,
        sys::Fork::Parent(process) => {
            // It is not waited for yet, so its id is still its own.
            match rustix::process::pidfd_open(process, PidfdFlags::empty()) {
                Ok(descriptor) => Namespaced::Parent(process, descriptor),
                Err(errno) => {
                    let _ = rustix::process::kill_process(process, Signal::KILL);
                    let _ = rustix::process::waitpid(Some(process), WaitOptions::empty());
                    return Err(errno.into());
                }
            }
        }
    })
}

/// Says what was tried when namespaces were refused.
fn refusal(network: NetworkNamespace) -> &'static str {
    match network {
        NetworkNamespace::Shared => "make the command's namespaces",
        NetworkNamespace::Own => {
            "make the command's namespaces with a network of its own (as many as \
             user.max_net_namespaces says can be there)"
        }
    }
}

/// Waits until something happens; gives what: for the builder's end, for the control socket, then for the
/// process and the line of every run.
fn wait(control: &OwnedFd, orphaned: &UnixStream, runs: &[Run]) -> io::Result<Vec<PollFlags>> {
    let mut watched = vec![
        PollFd::new(orphaned, PollFlags::IN),
        PollFd::new(control, PollFlags::IN),
    ];
    for run in runs {
        watched.push(PollFd::new(&run.descriptor, PollFlags::IN));
        // Once it has hung up it would be ready for ever; the process is what is waited for then.
        watched.push(match run.killed {
            true => PollFd::new(&run.descriptor, PollFlags::empty()),
            false => PollFd::new(&run.line, PollFlags::RDHUP),
        });
    }
    rustix::io::retry_on_intr(|| poll(&mut watched, None))?;
    Ok(watched.iter().map(PollFd::revents).collect())
}

/// Reaps process 1 of a run, with which its namespaces ended, or its keeper, and says so; tells
/// whether it did. `all` are those of all runs.
fn finish(run: &Run, all: &[Pid]) -> bool {
    match rustix::process::waitpid(Some(run.process), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => {
            if run.around == Around::Nothing && status.exit_status() != Some(0) {
                // A keeper that came to its end has seen to this.
                if let Err(error) = hunt::end_all(all) {
                    Failure::from(Error::setup("end what a command left running")(error))
                        .report(&run.line);
                }
            }
            send(&run.line, &Report::Gone(Status::of(status)));
            true
        }
        Ok(None) | Err(Errno::INTR) => false,
        Err(_) => true,
    }
}

/// Receives a request; `None` at the end.
fn receive(control: &OwnedFd) -> io::Result<Option<Request>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            control,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten();
    if received.bytes == 0 {
        return Ok(None);
    }
    match (
        descriptors.next(),
        descriptors.next(),
        descriptors.next(),
        descriptors.next(),
    ) {
        (Some(line), Some(job), Some(out), Some(err))
            if !received.flags.contains(ReturnFlags::CTRUNC) =>
        {
            Ok(Some(Request {
                streams: Streams { line, out, err },
                job,
                around: match byte {
                    [0] => Around::Namespaces(NetworkNamespace::Shared),
                    [1] => Around::Namespaces(NetworkNamespace::Own),
                    _ => Around::Nothing,
                },
            }))
        }
        _ => Err(io::Error::other("a request without its descriptors")),
    }
}
