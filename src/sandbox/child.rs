//! The command's own process, from the fork to the exec.

use super::init::Streams;
use super::wire::{Failure, Job, Way};
use crate::sys::{self, Insn};
use rustix::fs::{Access, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

/// Docker's default capabilities: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
/// SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const CAPABILITIES: u64 = 0xa804_25fb;

/// Where a command's own process is when it begins.
pub(super) enum Inside {
    /// In the command's root.
    Here,
    /// Outside; this directory becomes its root.
    Chroot(OwnedFd),
}

/// Becomes the command.
pub(super) fn main(
    job: &Job,
    inside: &Inside,
    streams: &Streams,
    stdin: &OwnedFd,
    filter: &[Insn],
) -> ! {
    match become_command(job, inside, streams, stdin, filter) {
        Ok(refusal) => {
            // What a shell would do; nobody is left to tell when this fails.
            let _ = rustix::io::write(rustix::stdio::stderr(), refusal.message.as_bytes());
            sys::exit_now(refusal.code)
        }
        Err(failure) => {
            failure.report(&streams.line);
            sys::exit_now(1)
        }
    }
}

/// Why a program was not executed, in Docker's words and with Docker's exit code.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: i32,
    message: String,
}

fn become_command(
    job: &Job,
    inside: &Inside,
    streams: &Streams,
    stdin: &OwnedFd,
    filter: &[Insn],
) -> Result<Refusal, Failure> {
    let strings = |list: &[Vec<u8>]| -> Result<Vec<CString>, Failure> {
        list.iter()
            .map(|string| CString::new(string.as_slice()))
            .collect::<Result<_, _>>()
            .map_err(Failure::of("pass the arguments and the environment"))
    };
    let (args, env) = (strings(&job.args)?, strings(&job.env)?);

    let parent = rustix::process::getppid();
    rustix::process::setsid().map_err(Failure::of("start a session"))?;
    connect(job, streams, stdin).map_err(Failure::of("connect the standard streams"))?;
    sys::close_on_exec_from(3).map_err(Failure::of("close what the builder has open"))?;
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Inside::Chroot(root) = inside {
        // After what reads /proc, which need not be in there.
        rustix::process::fchdir(root)
            .and_then(|()| rustix::process::chroot(c"."))
            .and_then(|()| rustix::process::chdir(c"/"))
            .map_err(Failure::of(
                "enter the root by chroot, which takes CAP_SYS_CHROOT",
            ))?;
    }

    // As runc: a directory that only root may enter is fine, and so is one that only the user may
    // (root squashed on a network file system).
    let entered = rustix::process::chdir(job.cwd.as_slice());
    let directory = || {
        let cwd = String::from_utf8_lossy(&job.cwd);
        Failure::of(format!("change to the working directory {cwd}"))
    };
    if let Err(errno) = entered
        && !matches!(errno, Errno::ACCESS | Errno::PERM)
    {
        return Err(directory()(errno));
    }
    // While there is still the capability it takes: `no_new_privs` stays off, sudo has to work.
    if !job.insecure {
        match sys::install_filter(filter) {
            // Where it cannot be had the container's own has to do.
            Err(error) if job.way != Way::Pivot && is_refusal(&error) => {}
            other => other.map_err(Failure::of("install the system call filter"))?,
        }
    }
    let kept = match job.insecure {
        true => rustix::thread::capabilities(None)
            .map_err(Failure::of("read the builder's capabilities"))?
            .permitted
            .bits(),
        false => CAPABILITIES,
    };
    match drop_bounding(kept) {
        // Without CAP_SETPCAP the bound is the container's; what root holds is less all the same.
        Err(error) if job.way != Way::Pivot && is_refusal(&error) => {}
        other => other.map_err(Failure::of("drop capabilities"))?,
    }
    take_identity(job, kept).map_err(Failure::of("become the user"))?;
    if job.way != Way::Pivot {
        // Not earlier: who changes its user loses it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(Failure::of("tie the command to its parent"))?;
        if rustix::process::getppid() != parent {
            sys::exit_now(1);
        }
    }
    if entered.is_err() {
        rustix::process::chdir(job.cwd.as_slice()).map_err(|errno| directory()(errno))?;
    }

    let program = job.args.first().map_or(&b""[..], Vec::as_slice);
    let path = match find(program, search_path(&job.env)) {
        Ok(path) => path,
        Err(refusal) => return Ok(refusal),
    };
    let shown = String::from_utf8_lossy(&path).into_owned();
    let path = CString::new(path).map_err(Failure::of("pass the program"))?;
    let error = sys::execute(&path, &args, &env);
    Ok(Refusal {
        code: 255,
        message: format!("exec {shown}: {}\n", words(&error)),
    })
}

fn connect(job: &Job, streams: &Streams, stdin: &OwnedFd) -> io::Result<()> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(&streams.out)?;
    rustix::stdio::dup2_stderr(&streams.err)?;
    if job.uid != 0 {
        // Else the user could not open /dev/stdout, which leads to the pipe.
        for pipe in [&streams.out, &streams.err] {
            rustix::fs::fchown(pipe, Some(Uid::from_raw(job.uid)), None)?;
        }
    }
    Ok(())
}

/// Takes all capabilities but these from the bounding set; those that the kernel does not know end
/// the list.
fn drop_bounding(kept: u64) -> io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if kept & (1 << number) == 0 => {
                rustix::thread::remove_capability_from_bounding_set(capability)?;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// Becomes the user. A user has no capabilities, except in an insecure command, where as with
/// BuildKit every user has all of them and hands them on.
fn take_identity(job: &Job, kept: u64) -> io::Result<()> {
    let groups: Vec<Gid> = job.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(job.uid), Gid::from_raw(job.gid));
    match rustix::thread::set_thread_groups(&groups) {
        // Who is somebody already need not be able to become it.
        Err(Errno::PERM) if is_already(job) => {}
        other => other?,
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_keep_capabilities(job.insecure)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // Of a user's the kernel has kept none. Root keeps these, of those the builder has.
    let held = rustix::thread::capabilities(None)?;
    let kept = CapabilitySet::from_bits_retain(held.permitted.bits() & kept);
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: match job.insecure {
                true => kept,
                false => CapabilitySet::empty(),
            },
        },
    )?;
    // A kernel without ambient capabilities has none to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    if job.insecure {
        for bit in (0..64).map(|number| 1 << number) {
            if kept.bits() & bit != 0 {
                let capability = CapabilitySet::from_bits_retain(bit);
                rustix::thread::configure_capability_in_ambient_set(capability, true)?;
            }
        }
    }
    Ok(())
}

/// Tells whether the process has a user and group already.
fn is_already(job: &Job) -> bool {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    (uid.as_raw(), gid.as_raw()) == (job.uid, job.gid)
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Gives the value of PATH; the last counts.
fn search_path(env: &[Vec<u8>]) -> &[u8] {
    env.iter()
        .rev()
        .find_map(|variable| variable.strip_prefix(b"PATH="))
        .unwrap_or_default()
}

/// Finds a program as Docker does: a name with a slash is a path, another is looked for in the
/// absolute directories of the search path.
fn find(program: &[u8], search: &[u8]) -> Result<Vec<u8>, Refusal> {
    let refuse = |code, why: String| Refusal {
        code,
        message: format!("exec: \"{}\": {why}\n", String::from_utf8_lossy(program)),
    };
    if !program.contains(&b'/') {
        return search
            .split(|byte| *byte == b':')
            .filter(|directory| directory.starts_with(b"/") && !program.is_empty())
            .map(|directory| [directory, b"/", program].concat())
            .find(|path| executable(path).is_ok())
            .ok_or_else(|| refuse(127, "executable file not found in $PATH".to_owned()));
    }
    match executable(program) {
        Ok(()) => Ok(program.to_vec()),
        Err(error @ (Errno::NOENT | Errno::NOTDIR)) => {
            let shown = String::from_utf8_lossy(program);
            Err(refuse(
                127,
                format!("stat {shown}: {}", words(&error.into())),
            ))
        }
        Err(error) => Err(refuse(126, words(&error.into()))),
    }
}

fn executable(path: &[u8]) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::access(path, Access::EXEC_OK)
}

/// Gives an error's text as Docker prints it: no capital, no number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn programs_are_found_as_docker_finds_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        for (name, mode) in [("run", 0o755), ("plain", 0o644)] {
            std::fs::write(at(name), b"").expect("a file");
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).expect("a mode");
        }
        std::fs::create_dir(at("sub")).expect("a directory");
        let here = directory.path().display().to_string();
        let search = format!(":relative:/nowhere:{here}");
        let none = |name| format!("exec: \"{name}\": executable file not found in $PATH\n");
        let cases = [
            ("run".to_owned(), Ok(at("run"))),
            (at("run"), Ok(at("run"))),
            ("plain".to_owned(), Err((127, none("plain")))),
            ("sub".to_owned(), Err((127, none("sub")))),
            ("foo".to_owned(), Err((127, none("foo")))),
            (String::new(), Err((127, none("")))),
            (
                at("plain"),
                Err((
                    126,
                    format!("exec: \"{}\": permission denied\n", at("plain")),
                )),
            ),
            (
                at("sub"),
                Err((126, format!("exec: \"{}\": is a directory\n", at("sub")))),
            ),
            (
                at("foo"),
                Err((
                    127,
                    format!(
                        "exec: \"{0}\": stat {0}: no such file or directory\n",
                        at("foo")
                    ),
                )),
            ),
        ];
        for (program, expected) in cases {
            let found = find(program.as_bytes(), search.as_bytes());
            let expected = expected
                .map(String::into_bytes)
                .map_err(|(code, message)| Refusal { code, message });
            assert_eq!(found, expected, "{program}");
        }
    }

    #[test]
    fn the_last_path_counts() {
        let env = |list: &[&str]| {
            list.iter()
                .map(|v| v.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        for (list, expected) in [
            (&["A=1", "PATH=/a", "PATH=/b"][..], "/b"),
            (&["PATHS=/a"], ""),
            (&["PATH="], ""),
        ] {
            assert_eq!(search_path(&env(list)), expected.as_bytes());
        }
    }
}
