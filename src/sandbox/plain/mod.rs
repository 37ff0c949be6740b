//! Commands where nothing may be mounted and no namespace be made: an ordinary container.
//!
//! The helper forks a keeper for each command, which does outside of the root all that the kernel
//! does for a command with namespaces. It puts into the root what would be mounted (`places`), forks
//! the starter, ends every process that is left (`hunt`), and puts everything back. The starter
//! forks the command (`child`), is its parent and that of its orphans, and says how it ended.
//!
//! Whoever is killed, somebody is left to end the command: with the starter the command dies, and
//! what it started comes to the keeper; with the keeper, to the helper; with the helper, to the
//! builder. A keeper whose builder or helper is gone does its work to the end, so that only who kills
//! a keeper too leaves something in the root; where the root outlives the build a `journal` says what.

mod aside;
mod copy;
mod device;
pub(super) mod hunt;
pub(super) mod journal;
mod placed;
mod places;
mod spot;

use super::helper::Request;
use super::init::{self, Streams};
use super::prepare::{self, Prepared, check_memory, invalid, mounting};
use super::trees::ordered;
use super::wire::{Failure, Job, Report, Secrecy, Stand, StandIn, Status, Way, Writes, send, wipe};
use super::{Command, Error, What, attach, child};
use crate::plan::Network;
use crate::rootfs::Entry;
use crate::sys::{self, Fork, Insn};
use places::Places;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::CapabilitySet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// What cannot be as it should, by kind; each is said once in a build.
#[derive(Clone, Copy)]
enum Lack {
    Proc = 1,
    Devices = 2,
    Bound = 3,
    Memory = 4,
}

/// Describes a command that runs without mounts and namespaces of its own.
pub(super) fn prepare(command: &Command, entry: Entry<'_>) -> Result<Prepared, Error> {
    let (way, root) = match entry {
        Entry::Chroot(path) | Entry::Pivot(path) => (Way::Chroot, path),
        Entry::Stay => (Way::Stay, Path::new("/")),
    };
    let mut job = prepare::job(command, way, root)?;
    if command.network == Network::None {
        return Err(invalid(
            "run with --network=none",
            "a network of its own takes a namespace, and this place has none (in a container: give \
             it CAP_SYS_ADMIN and a seccomp profile with unshare, and use --rootfs=overlay)",
        ));
    }
    if command.insecure && !has_all()? {
        return Err(invalid(
            "run with --security=insecure",
            "this container has not the rights that the command would have (a privileged one has)",
        ));
    }
    let file = |path: &[u8], mode, content| Stand {
        path: path.to_vec(),
        what: StandIn::File {
            mode,
            uid: 0,
            gid: 0,
            content,
            secret: Secrecy::Open,
        },
    };
    if way == Way::Chroot {
        // The container's own files have them already.
        let resolvers = prepare::resolvers(command.network);
        job.stands.push(file(b"/etc/resolv.conf", 0o644, resolvers));
        // The host name cannot be set, so the builder's is what programs look for.
        let name = rustix::system::uname();
        let names = format!("{} {}", command.hostname, name.nodename().to_string_lossy());
        job.stands
            .push(file(b"/etc/hosts", 0o644, prepare::hosts(&names)));
    }
    for (path, mode, content) in &command.files {
        job.stands.push(file(path, *mode, content.clone()));
    }
    let mut descriptors = Vec::new();
    for mount in ordered(&command.mounts) {
        let bound = |descriptor: &OwnedFd| {
            let clone = descriptor.try_clone();
            clone.map_err(Error::setup(mounting(mount)))
        };
        let what = match &mount.what {
            What::Bind(source) => {
                descriptors.push(bound(source)?);
                StandIn::Bind(match mount.readonly {
                    true => Writes::Sealed,
                    false => Writes::Kept,
                })
            }
            What::Copy(source) => {
                descriptors.push(bound(source)?);
                StandIn::Bind(Writes::Lost)
            }
            What::Tmpfs { size } => {
                job.bounded |= size.is_some_and(|size| size > 0);
                StandIn::Empty
            }
            What::Memory {
                mode,
                uid,
                gid,
                content,
            } => {
                check_memory(mount, &content.0)?;
                StandIn::File {
                    mode: *mode & 0o777,
                    uid: *uid,
                    gid: *gid,
                    content: content.0.clone(),
                    secret: Secrecy::Secret,
                }
            }
        };
        job.stands.push(Stand {
            path: mount.target.clone(),
            what,
        });
    }
    Ok(Prepared {
        job,
        trees: descriptors,
    })
}

/// Tells whether the builder may do what a privileged container may.
fn has_all() -> Result<bool, Error> {
    let held = rustix::thread::capabilities(None)
        .map_err(Error::setup("read the builder's capabilities"))?;
    Ok(held.permitted.contains(CapabilitySet::SYS_ADMIN))
}

/// Tells whether a run is still wanted.
struct Watch<'a> {
    line: &'a OwnedFd,
    helper: &'a OwnedFd,
}

impl Watch<'_> {
    /// Fails once the builder has hung up, or with its helper is gone.
    fn check(&self) -> io::Result<()> {
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match rustix::io::retry_on_intr(|| poll(&mut self.watched(), Some(&at_once)))? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    fn watched(&self) -> [PollFd<'_>; 2] {
        [
            PollFd::new(self.line, PollFlags::RDHUP),
            PollFd::new(self.helper, PollFlags::IN),
        ]
    }

    /// Waits for the end of a process, or that the run is not wanted any more.
    fn wait(&self, process: &OwnedFd) -> io::Result<()> {
        let [line, helper] = self.watched();
        let mut watched = [line, helper, PollFd::new(process, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut watched, None))?;
        Ok(())
    }
}

/// Is the keeper: carries a request out and ends the process. The code is 0 where nothing of the
/// command is left running and what could be put back was, whatever was reported.
pub(super) fn main(request: Request, helper: &OwnedFd, filter: &[Insn]) -> ! {
    let Request { streams, job, .. } = request;
    let kept = keep(job, &streams, helper, filter);
    sys::exit_now(init::conclude(&streams, kept.map(|()| None)))
}

/// The starter, as the keeper has it.
struct Starter {
    process: Pid,
    descriptor: OwnedFd,
    /// Lets it begin.
    go: OwnedFd,
}

fn keep(job: OwnedFd, streams: &Streams, helper: &OwnedFd, filter: &[Insn]) -> Result<(), Failure> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(Failure::of("adopt what the command leaves behind"))?;
    let _ = rustix::thread::set_name(c"shutter-keeper");
    rustix::process::umask(Mode::empty());
    let watch = Watch {
        line: &streams.line,
        helper,
    };
    let mut job = init::read(job).map_err(Failure::of("read the command"))?;
    let binds = job
        .stands
        .iter()
        .filter(|stand| matches!(stand.what, StandIn::Bind(_)));
    let sources = attach::receive(&streams.line, binds.count())
        .map_err(Failure::of("receive what the command mounts"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let shown = String::from_utf8_lossy(&job.root).into_owned();
    let root = openat(CWD, job.root.as_slice(), flags, Mode::empty())
        .map_err(Failure::of(format!("open the root {shown}")))?;
    // Copying takes threads, and forking takes that there never were any.
    let starter = fork(&mut job, &root, streams, filter)?;
    job.env.iter_mut().for_each(|variable| wipe(variable));
    let mut places = Places::new(&job, root)?;
    let put = places.put_all(&mut job, sources, &watch);
    for (lack, text) in places.lacks() {
        let number = lack as i32;
        send(&streams.line, &Report::Warned { number, text });
    }
    let ran = put.and_then(|()| run(starter, streams, &watch));
    let ended = hunt::end_all(&[]).map_err(Failure::of(
        "end what the command left running, which takes CAP_KILL",
    ));
    if places.has_secrets() {
        drain(streams, &watch);
    }
    let back = places.restore();
    match ran.and(ended).and(back) {
        // It is not wanted any more, whatever came of it.
        Err(_) if watch.check().is_err() => {}
        Err(failure) => failure.report(&streams.line),
        Ok(()) => {}
    }
    Ok(())
}

/// Waits until the builder has read what the command printed. A command may have put pages of a file
/// into a pipe (`sendfile`), which change there when the file is overwritten.
fn drain(streams: &Streams, watch: &Watch<'_>) {
    for pipe in [&streams.out, &streams.err] {
        while watch.check().is_ok() && rustix::io::ioctl_fionread(pipe).is_ok_and(|left| left > 0) {
            sleep(Duration::from_millis(1));
        }
    }
}

/// Lets the starter begin and waits until it is done or the run not wanted.
fn run(starter: Starter, streams: &Streams, watch: &Watch<'_>) -> Result<(), Failure> {
    let action = || Failure::of("start the command");
    let Starter {
        process,
        descriptor,
        go,
    } = starter;
    watch.check().map_err(action())?;
    rustix::io::write(&go, &[1]).map_err(Failure::of("let the command begin"))?;
    watch.wait(&descriptor).map_err(action())?;
    if let Ok(Some((_, status))) = rustix::process::waitpid(Some(process), WaitOptions::NOHANG)
        && status.terminating_signal().is_some()
    {
        // The command has killed its parent, and that was its own end.
        send(&streams.line, &Report::Ended(Status::of(status)));
    }
    Ok(())
}

/// Forks the starter, which waits to be let go.
fn fork(
    job: &mut Job,
    root: &OwnedFd,
    streams: &Streams,
    filter: &[Insn],
) -> Result<Starter, Failure> {
    let (wait, go) =
        pipe_with(PipeFlags::CLOEXEC).map_err(Failure::of("connect the command's starter"))?;
    let keeper = rustix::process::getpid();
    match sys::fork().map_err(Failure::of("fork the command's starter"))? {
        Fork::Parent(process) => Ok(Starter {
            process,
            descriptor: rustix::process::pidfd_open(process, PidfdFlags::empty())
                .map_err(Failure::of("watch the command's starter"))?,
            go,
        }),
        Fork::Child => {
            drop(go);
            let ended = start(job, root, streams, filter, keeper, &wait);
            sys::exit_now(init::conclude(streams, ended))
        }
    }
}

/// Is the starter: waits for the word, and then for the command and its orphans.
fn start(
    job: &mut Job,
    root: &OwnedFd,
    streams: &Streams,
    filter: &[Insn],
    keeper: Pid,
    wait: &OwnedFd,
) -> Result<Option<Status>, Failure> {
    let tied = || -> io::Result<bool> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(rustix::process::getppid() == Some(keeper))
    };
    let tied = tied().map_err(Failure::of("tie the command to its keeper"))?;
    places::forget(job);
    let mut word = [0];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(wait, &mut word));
    if !tied || read != Ok(1) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let stdin =
        openat(CWD, c"/dev/null", flags, Mode::empty()).map_err(Failure::of("open /dev/null"))?;
    let inside = match job.way {
        Way::Chroot => child::Inside::Chroot(
            root.as_fd()
                .try_clone_to_owned()
                .map_err(Failure::of("keep the root open"))?,
        ),
        Way::Pivot | Way::Stay => child::Inside::Here,
    };
    match sys::fork().map_err(Failure::of("fork the command"))? {
        Fork::Child => child::main(job, &inside, streams, &stdin, filter),
        Fork::Parent(command) => {
            job.env.iter_mut().for_each(|variable| wipe(variable));
            init::reap(command).map(Some)
        }
    }
}
