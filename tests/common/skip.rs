//! Tests that cannot run here.

use std::io::Write;

/// Says that a test, or a part of it, does not run here and why; `scripts/test` reads it in the file
/// that NOT_RUN names, and fails for what is not in its list.
pub fn not_run(test: &str, why: &str) {
    let line = format!("NOT RUN: {test}: {why}\n");
    eprint!("{line}");
    let Some(list) = std::env::var_os("NOT_RUN") else {
        return;
    };
    let file = std::fs::File::options()
        .append(true)
        .create(true)
        .open(list);
    // One call, so that lines of several tests do not mix.
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("write the list of what does not run");
}
