//! Network devices.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

/// Turns the loopback device of this process's network namespace on, which gives it its addresses.
/// Needs CAP_NET_ADMIN.
pub fn loopback_up() -> Result<()> {
    // Any socket will do to talk to the namespace's devices.
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: the structure is plain numbers, arrays of them and a pointer, for which zeros are
    // valid.
    let mut device: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in device.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // SAFETY: no crate wraps these two requests. Each takes a pointer to an `ifreq`, which outlives
    // the call; the first writes the union's flags, so they may be read afterwards.
    unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut device) != 0 {
            return Err(Error::last_os_error());
        }
        device.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const device,
        ) != 0
        {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}
