//! User namespaces: whether this process is in one, and those that nobody lives in, for mounts that
//! show other owners.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Tells whether this process is in a user namespace other than the machine's first, and so has its
/// capabilities over no more than what belongs to that.
pub fn in_user_namespace() -> bool {
    // The kernel gives the first one a number of its own (`PROC_USER_INIT_INO`). A map says less: one
    // of all ids can be had in a further one too.
    const FIRST: &str = "user:[4026531837]";
    match std::fs::read_link("/proc/self/ns/user") {
        Ok(name) => name.as_os_str() != FIRST,
        // A kernel without user namespaces, or no /proc.
        Err(_) => false,
    }
}

/// Makes a user namespace with the given maps, in the form of `/proc/PID/uid_map`
/// (user_namespaces(7)). Refused where the process may not make one, or may not give it such maps.
pub fn user_namespace(users: &str, groups: &str) -> Result<OwnedFd> {
    // A child of another thread at the same time would hold this pipe open as this one would that
    // one's, and both would wait for ever.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = clone_idle(&read, &write)?;
    drop(read);
    let made = || -> Result<OwnedFd> {
        let of = |name: &str| format!("/proc/{}/{name}", child.as_raw_nonzero());
        std::fs::write(of("uid_map"), users)?;
        std::fs::write(of("gid_map"), groups)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(open(of("ns/user"), flags, Mode::empty())?)
    };
    let made = made();
    // At the end of its pipe the child ends.
    drop(write);
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            _ => return made,
        }
    }
}

/// Makes a process in a new user namespace that does nothing until the other end of a pipe is
/// closed, or is gone with this process.
fn clone_idle(read: &OwnedFd, write: &OwnedFd) -> Result<Pid> {
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    let (read, write) = (read.as_raw_fd(), write.as_raw_fd());
    // SAFETY: std has no such call. Without CLONE_VM and with a null stack it is a fork; the order of
    // the further arguments differs between architectures, but all are null. Other threads may hold
    // locks that nobody frees in the child, which takes none: it makes plain system calls on numbers
    // and on one byte of its own until it ends, calls no other function that could take one, and
    // unwinds nothing. All signals are blocked around the call, so that no handler runs in the child;
    // the sets are zeroed places of the right size, which the calls fill in.
    let pid = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let pid = libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0usize, 0, 0, 0);
        if pid == 0 {
            let mut byte = 0_u8;
            libc::syscall(libc::SYS_close, write);
            libc::syscall(libc::SYS_read, read, &raw mut byte, 1usize);
            loop {
                libc::syscall(libc::SYS_exit_group, 0);
            }
        }
        let error = Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if pid < 0 {
            return Err(error);
        }
        pid
    };
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Error::other("clone gave no process id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_made_while_there_are_threads_and_leaves_no_process() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let map = "5 0 1\n0 5 1\n";
                    user_namespace(map, map).unwrap();
                });
            }
        });
        assert!(user_namespace("nonsense", "0 0 1").is_err());
        let left = waitpid(None, WaitOptions::NOHANG);
        assert_eq!(left.err(), Some(Errno::CHILD));
    }
}
