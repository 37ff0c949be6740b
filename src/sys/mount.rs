//! Attributes of whole trees of mounts.

use rustix::mount::MountAttrFlags;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Gives every mount of a tree, from the one the descriptor is in downwards, attributes and takes
/// others away; what propagates to or from elsewhere does so no longer. Needs Linux 5.12; older
/// kernels refuse with ENOSYS.
pub fn set_mount_attributes(
    tree: BorrowedFd<'_>,
    set: MountAttrFlags,
    clear: MountAttrFlags,
) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set.bits().into(),
        attr_clr: clear.bits().into(),
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: rustix does not wrap mount_setattr. The path is an empty string that ends with a NUL,
    // the structure is the kernel's first version of it, whose size is said, and both outlive the
    // call, which only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}
