//! A test main for tests that must run before their process has a second thread.
//!
//! It speaks as much of libtest's protocol as cargo and nextest use: `--list --format terse`,
//! `--ignored`, `--exact NAME`, and filters. A single test runs in this very process, on its main
//! thread; several run one after the other, each in a process of its own.

use std::process::{Command, ExitCode, Stdio};

/// One test: its name and what it does; it fails by panicking.
pub type Case = (&'static str, fn());

/// Is the main function of a test binary.
pub fn main(cases: &[Case]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        if !has("--ignored") {
            for (name, _) in cases {
                println!("{name}: test");
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
        .filter(|(name, _)| !has("--ignored") && wanted(name))
        .collect();
    if let ([(name, test)], true) = (chosen.as_slice(), has("--exact")) {
        println!("test {name}");
        test();
        return ExitCode::SUCCESS;
    }
    let failed = chosen.iter().filter(|(name, _)| !passes(name)).count();
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
