//! Raw Linux calls that no crate offers; the only room with `unsafe`.
//!
//! Each block says why it is there and why it is sound.

mod cancel;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod isal;
#[allow(unsafe_code)]
mod map;

pub use cancel::Cancel;
#[cfg(target_arch = "x86_64")]
pub use isal::Deflater;
pub use map::map_file;
