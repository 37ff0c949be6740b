//! Raw Linux calls that no crate offers; the only room with `unsafe`.
//!
//! Each block says why it is there and why it is sound.
#![allow(unsafe_code)]

mod cancel;
#[cfg(target_arch = "x86_64")]
mod isal;
mod map;
mod memory;
mod mount;
mod network;
mod process;
mod seccomp;
mod stdout;
mod users;

pub use cancel::Cancel;
#[cfg(target_arch = "x86_64")]
pub use isal::Deflater;
pub use map::map_file;
pub use memory::give_back_memory;
pub use mount::{map_owners, set_mount_attributes};
pub use network::loopback_up;
pub use process::{
    Fork, Namespaced, NetworkNamespace, apart, clone_into_namespaces, close_on_exec_from, execute,
    exit_now, fork, ignore_signals, keep_ended_children, own_user_namespace,
    private_mount_namespace, reset_signals, runs_arm32,
};
pub use seccomp::{Insn, install_filter};
pub use stdout::started_without_stdout;
pub use users::{in_user_namespace, user_namespace};
