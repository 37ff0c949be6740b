//! A test program that speaks nextest's protocol, for tests that need a process of their own from
//! the first instruction on: a private mount namespace is taken before there is any thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// One test.
pub struct Case {
    /// Its name.
    pub name: String,
    /// What it does; it fails by a panic.
    pub run: Box<dyn Fn()>,
}

impl Case {
    /// Makes a test.
    pub fn new(name: impl Into<String>, run: impl Fn() + 'static) -> Case {
        Case {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// Takes a mount namespace whose mounts go with the process and are seen by nobody else.
pub fn private_mounts() {
    use rustix::mount::{MountPropagationFlags, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: no descriptor table is taken apart from other threads', and there are none yet.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace; the tests need root");
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .expect("make the mounts private");
}

/// Lists the tests or runs those that are asked for.
pub fn main(cases: Vec<Case>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // None is ignored, so `--list --ignored` prints nothing.
        for case in cases.iter().filter(|_| !has("--ignored")) {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |case: &Case| {
        names.is_empty()
            || names.iter().any(|name| match has("--exact") {
                true => case.name == **name,
                false => case.name.contains(name.as_str()),
            })
    };
    let mut failed = 0;
    for case in cases.iter().filter(|case| wanted(case)) {
        let passed = catch_unwind(AssertUnwindSafe(|| (case.run)())).is_ok();
        println!(
            "test {} ... {}",
            case.name,
            if passed { "ok" } else { "FAILED" }
        );
        failed += usize::from(!passed);
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
