//! A test main for tests that must run before their process has a second thread.
//!
//! It speaks as much of libtest's protocol as cargo and nextest use: `--list --format terse`,
//! `--ignored`, `--exact NAME`, and filters. A single test runs in this very process, on its main
//! thread; several run one after the other, each in a process of its own.
#![allow(dead_code)]

use std::process::{Command, ExitCode, Stdio};

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

/// Is the main function of a test binary.
pub fn main(cases: Vec<Case>) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        if !has("--ignored") {
            for case in &cases {
                println!("{}: test", case.name);
            }
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| match has("--exact") {
        true => filters.iter().any(|filter| *filter == name),
        false => filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())),
    };
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|case| !has("--ignored") && wanted(&case.name))
        .collect();
    if let ([case], true) = (chosen.as_slice(), has("--exact")) {
        println!("test {}", case.name);
        (case.run)();
        return ExitCode::SUCCESS;
    }
    let failed = chosen.iter().filter(|case| !passes(&case.name)).count();
    println!(
        "\ntest result: {} passed; {failed} failed",
        chosen.len() - failed
    );
    ExitCode::from(u8::from(failed > 0))
}

fn passes(name: &str) -> bool {
    let output = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args(["--exact", name])
            .stdin(Stdio::null())
            .output()
    });
    match output {
        Ok(output) if output.status.success() => {
            println!("test {name} ... ok");
            true
        }
        Ok(output) => {
            println!("test {name} ... FAILED");
            for text in [output.stdout, output.stderr] {
                println!("{}", String::from_utf8_lossy(&text));
            }
            false
        }
        Err(error) => {
            println!("test {name} ... FAILED: {error}");
            false
        }
    }
}
