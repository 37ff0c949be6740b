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
    set_attributes(tree, &attributes, libc::AT_RECURSIVE)
}

/// Makes a mount that is nowhere yet read-only and shows its files with the owners that a user
/// namespace gives them: who is some user in there is seen as whom that user is outside. Needs
/// Linux 5.12 and a file system that can do it.
pub fn map_owners(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(Error::other)?,
    };
    set_attributes(mount, &attributes, 0)
}

fn set_attributes(tree: BorrowedFd<'_>, attributes: &libc::mount_attr, flags: i32) -> Result<()> {
    // SAFETY: rustix does not wrap mount_setattr. The path is an empty string that ends with a NUL,
    // the structure is the kernel's first version of it, whose size is said, and both outlive the
    // call, which only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attributes),
            size_of_val(attributes),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}
