//! Raw Linux calls that no crate offers; the only room with `unsafe`.
//!
//! Each block says why it is there and why it is sound.

mod cancel;

pub use cancel::Cancel;
