//! Putting a seccomp filter on the calling thread.

use std::io::{Error, Result};

/// One instruction of classic BPF, as the kernel takes it (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// Instructions to skip where a test holds.
    pub jt: u8,
    /// Instructions to skip where it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Puts a filter on the calling thread and all it will start; there is no way back. Needs
/// CAP_SYS_ADMIN, since it does not set `no_new_privs`.
pub fn install_filter(program: &[Insn]) -> Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: `Insn` has the layout of `sock_filter`, the kernel only reads through the pointer
        // and only during the call, and it checks the program.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        }
    };
    // Without this flag kernels before 5.16 slow the thread down against speculative store bypass.
    if install(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) == 0 || install(0) == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}
