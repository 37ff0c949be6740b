//! Processes without exec: fork, clone, and what a child must put right before it executes.
//!
//! Forking by hand is sound only while a process has one thread: another thread may hold a lock
//! (the allocator's, say) that nobody would ever free in the child. Every function here that makes
//! a process checks that first, so none of them has to be `unsafe`.

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, waitpid};
use std::ffi::{CStr, CString};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The process that called; the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Namespaced {
    /// The process that called; the child's id and a descriptor of it.
    Parent(Pid, OwnedFd),
    /// The new process: process 1 of its own world.
    Child,
}

/// Which network a new process sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// That of the process that makes it.
    Shared,
    /// One of its own, with a loopback device that is off.
    Own,
}

/// Fails unless the process has exactly one thread.
fn single_threaded() -> Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.take(2).count();
    if threads == 1 {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Unsupported,
            "the process has more than one thread",
        ))
    }
}

/// Forks the process, which must have one thread.
pub fn fork() -> Result<Fork> {
    single_threaded()?;
    // SAFETY: std has no fork. With one thread no lock is held by anybody else, so the child may
    // go on running ordinary code; the child's copies of descriptors are its own.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .map(Fork::Parent)
            .ok_or_else(|| Error::other("fork gave no process id")),
    }
}

/// Forks the process, which must have one thread, into new mount, process id, IPC and host name
/// namespaces, and a new network namespace where that is asked for.
pub fn clone_into_namespaces(network: NetworkNamespace) -> Result<Namespaced> {
    single_threaded()?;
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::SIGCHLD
        | match network {
            NetworkNamespace::Shared => 0,
            NetworkNamespace::Own => libc::CLONE_NEWNET,
        };
    // SAFETY: no crate offers clone without a new stack. Without CLONE_VM and with a null stack it
    // is a fork: the child runs on its copy of this stack. The order of the further arguments
    // differs between architectures, but all are null. With one thread no lock is held by anybody
    // else. What the C library's own fork does besides concerns thread ids it remembers, which
    // matter to threads alone.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0usize, 0, 0, 0) };
    if pid == 0 {
        return Ok(Namespaced::Child);
    }
    if pid < 0 {
        return Err(Error::last_os_error());
    }
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Error::other("clone gave no process id"))?;
    // The child is ours and not waited for, so its id is still its own.
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => Ok(Namespaced::Parent(pid, descriptor)),
        Err(errno) => {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(errno.into())
        }
    }
}

/// Moves the process, which must have one thread, into a mount namespace of its own.
pub fn private_mount_namespace() -> Result<()> {
    single_threaded()?;
    // SAFETY: unsafe only because CLONE_FILES and CLONE_FS may part threads from each other; this
    // is neither, and there is one thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    Ok(())
}

/// Moves the process, which must have one thread, into a user namespace of its own, in which it has
/// all capabilities and, until maps are written, no id.
pub fn own_user_namespace() -> Result<()> {
    single_threaded()?;
    // SAFETY: unsafe only because CLONE_FILES and CLONE_FS may part threads from each other; this
    // is neither, and there is one thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) }?;
    Ok(())
}

/// Ends the process at once: nothing is unwound, dropped or flushed, as is right for a forked
/// child, whose copies of such things belong to its parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Has something found out in a process of its own, so that nothing of this one is changed by it, and gives
/// what it says. This process must have one thread.
pub fn apart(find: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let process = match fork()? {
        Fork::Child => {
            drop(ours);
            // A panic must not unwind into what is a copy here.
            let told = catch_unwind(AssertUnwindSafe(|| theirs.write_all(&find())));
            exit_now(i32::from(!matches!(told, Ok(Ok(())))))
        }
        Fork::Parent(process) => process,
    };
    drop(theirs);
    let mut told = Vec::new();
    let read = ours.read_to_end(&mut told);
    let ended = rustix::io::retry_on_intr(|| waitpid(Some(process), WaitOptions::empty()))?;
    read?;
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(told),
        _ => Err(Error::other("a process that was to find it out failed")),
    }
}

/// Replaces the program; comes back only with the reason why not.
pub fn execute(path: &CStr, args: &[CString], env: &[CString]) -> Error {
    let pointers = |strings: &[CString]| {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect::<Vec<_>>()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: std's own exec sorts the environment and drops what has no `=`. All pointers are to
    // strings that end with a NUL and outlive the call, and both arrays end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Error::last_os_error()
}

/// Makes every signal do its default again and blocks none.
pub fn reset_signals() {
    for signal in 1..=64 {
        set_handler(signal, libc::SIG_DFL);
    }
    // SAFETY: an all-zero set is a place to make an empty one in, and the pointers are to it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Has the kernel keep how children ended until they are waited for: whoever started this process may
/// have left SIGCHLD ignored.
pub fn keep_ended_children() {
    set_handler(libc::SIGCHLD, libc::SIG_DFL);
}

/// Ignores signals.
pub fn ignore_signals(signals: &[Signal]) {
    for signal in signals {
        set_handler(signal.as_raw(), libc::SIG_IGN);
    }
}

/// Sets SIG_DFL or SIG_IGN; a signal that cannot be handled stays as it is.
fn set_handler(signal: i32, handler: libc::sighandler_t) {
    // The kernel's `struct sigaction`: handler, flags, restorer, mask.
    let action: [u64; 4] = [handler as u64, 0, 0, 0];
    // SAFETY: the C library's own function refuses the two signals it uses itself, which may have
    // come ignored from whoever started the builder. The kernel only reads, as many bytes as the
    // structure has on 64-bit machines. Neither of the two handlers is code, so nothing can run
    // that is not safe in a signal handler.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null_mut::<u64>(),
            std::mem::size_of::<u64>(),
        )
    };
}

/// Marks all descriptors from this number on to be closed by exec.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: the call takes numbers only; it closes nothing now, it sets a flag.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return Ok(());
    }
    // Kernels before 5.11 do not know the flag.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|number: &i32| i64::from(*number) >= i64::from(first)) {
            // SAFETY: sets a flag on a number; one that is closed meanwhile gives EBADF.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Tells whether the processor runs 32-bit programs of its family too: many for AArch64 do not.
#[cfg(target_arch = "aarch64")]
pub fn runs_arm32() -> bool {
    const PER_LINUX32: libc::c_ulong = 8;
    let ask = || {
        // SAFETY: no crate offers personality. It changes nothing but how this thread, which ends
        // right after, sees the machine; where the processor has no 32-bit mode the kernel refuses.
        unsafe { libc::personality(PER_LINUX32) != -1 }
    };
    std::thread::spawn(ask).join().unwrap_or(false)
}

/// Tells whether the processor runs 32-bit programs of its family too: only AArch64 may.
#[cfg(not(target_arch = "aarch64"))]
pub fn runs_arm32() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test runner itself has more than one.
        let refused = std::thread::spawn(fork).join().expect("no panic");
        assert_eq!(
            refused.map_err(|error| error.kind()).expect_err("refused"),
            ErrorKind::Unsupported
        );
    }
}
