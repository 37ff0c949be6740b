//! Raw Linux calls that no crate offers; the only room with `unsafe`.
//!
//! Each block says why it is there and why it is sound.

mod cancel;
#[allow(unsafe_code)]
mod map;

pub use cancel::Cancel;
pub use map::map_file;
