//! Flags, progress, reports, exit codes; the only printer and the only reader of the environment.

use std::ffi::OsString;

/// Runs the program; gives the exit code.
pub fn run(args: Vec<OsString>) -> u8 {
    let _ = args;
    todo!()
}
