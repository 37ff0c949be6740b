//! Extended attributes of a name in an open directory, without opening the file.
//!
//! `/proc/self/fd/N/NAME` with the `l*xattr` calls reaches a file of any kind, follows no link at
//! its end and needs no permission to read the file; kernels before 6.13 have no `*xattrat` calls.

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attributes by name, values are any bytes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Tells whether an image keeps an extended attribute.
///
/// It keeps `user.*`, `trusted.*`, `security.*` (file capabilities above all) and
/// `system.posix_acl_*`. It does not keep what belongs to the machine: `security.selinux`,
/// `security.ima`, `security.evm`, `security.apparmor`, and what overlayfs notes for itself
/// (`trusted.overlay.*`, `user.overlay.*`).
pub fn is_kept(name: &[u8]) -> bool {
    if is_overlay(name) {
        return false;
    }
    if let Some(rest) = name.strip_prefix(b"security.") {
        return !matches!(rest, b"selinux" | b"ima" | b"evm" | b"apparmor");
    }
    [&b"user."[..], b"trusted.", b"system.posix_acl_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Tells whether overlayfs keeps an extended attribute for itself.
pub(super) fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Names a file for the `l*xattr` calls; an empty name is the directory itself.
pub(super) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(if name.is_empty() { b"." } else { name });
    CString::new(path).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Reads what an image keeps and, apart, what overlayfs has noted; each sorted by name.
pub(super) fn read(path: &CStr) -> io::Result<(Xattrs, Xattrs)> {
    let (mut kept, mut overlay) = (Xattrs::new(), Xattrs::new());
    let mut names = [0; 1024];
    let names = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok((kept, overlay)),
        Ok(len) => names.get(..len).unwrap_or_default().to_vec(),
        Err(Errno::RANGE) => list_long(path)?,
        Err(error) => return Err(error.into()),
    };
    for name in names.split(|&c| c == 0).filter(|name| !name.is_empty()) {
        let list = match name {
            name if is_overlay(name) => &mut overlay,
            name if is_kept(name) => &mut kept,
            _ => continue,
        };
        if let Some(value) = value(path, name)? {
            list.push((name.to_vec(), value));
        }
    }
    kept.sort();
    overlay.sort();
    Ok((kept, overlay))
}

fn list_long(path: &CStr) -> io::Result<Vec<u8>> {
    // The kernel's own bound of a list.
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..])?;
    names.truncate(len);
    Ok(names)
}

fn value(path: &CStr, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut short = [0; 256];
    match rustix::fs::lgetxattr(path, name, &mut short[..]) {
        Ok(len) => return Ok(Some(short.get(..len).unwrap_or_default().to_vec())),
        // It went away since the list was made, or is not for us to read.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error.into()),
    }
    // The kernel's own bound of a value.
    let mut long = vec![0; 64 << 10];
    match rustix::fs::lgetxattr(path, name, &mut long[..]) {
        Ok(len) => {
            long.truncate(len);
            Ok(Some(long))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets an attribute of a file, not following a link.
pub(super) fn set(path: &CStr, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
}
