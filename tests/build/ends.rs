//! Builds that are ended from outside.

use crate::project::{Project, mounts, processes, succeed};
use crate::{push_base, registry};
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn signals_end_a_build_promptly_and_leave_nothing() {
    let project = Project::new();
    let registry = registry::start();
    let to = format!("{}/sig:1", registry.host);
    let marker = format!("{}7", std::process::id());
    project.file(
        "Dockerfile",
        format!("FROM base\nRUN echo up; (sleep {marker} &); sleep {marker}\n"),
    );
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)] {
        let mut child = project.spawn(&["--insecure", "--destination", &to]);
        wait_for_line(&mut child, "up");
        let sent = Instant::now();
        kill(child.id(), signal);
        let status = child.wait().expect("wait");
        assert_eq!(status.code(), Some(code), "SIG{signal}");
        assert!(
            sent.elapsed() < Duration::from_secs(30),
            "SIG{signal} took {:?}",
            sent.elapsed()
        );
        assert_eq!(processes(&format!("sleep {marker}")), Vec::<String>::new());
        assert_eq!(mounts(project.dir.path()), Vec::<String>::new());
        assert!(!registry.has_tag("sig", "1"));
    }
}

/// Whoever ends a build does not wait until all is printed that its command had to say.
#[test]
fn a_signal_ends_a_build_whose_command_never_stops_talking() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN yes a\n");
    let log = project.path("log");
    let mut child = project
        .command()
        .arg("--no-push")
        .stdout(std::fs::File::create(&log).expect("create"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("run shutter");
    // By then the command is far ahead.
    while std::fs::metadata(&log).expect("look").len() < 256 << 10 {
        assert!(child.try_wait().expect("wait").is_none(), "it ended early");
        std::thread::yield_now();
    }
    let sent = Instant::now();
    kill(child.id(), "TERM");
    let output = child.wait_with_output().expect("wait");
    let took = sent.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    let wanted = "that commands printed before the signal are left out";
    assert!(said.contains(wanted), "{said}");
}

#[test]
fn killed_at_any_moment_the_next_build_works() {
    let project = Project::new();
    let registry = registry::start();
    let host = registry.host.clone();
    push_base(&project, &host);
    project.file("src/a", vec![7; 3 << 20]);
    project.file(
        "Dockerfile",
        format!("FROM {host}/base:1\nCOPY src /src\nRUN cat /src/a /src/a > /b\nRUN echo {0} > /c; sleep 0.0{0}\nRUN rm -r /src /tree\n", 3),
    );
    let to = format!("{host}/killed:1");
    let args = ["--insecure", "--insecure-pull", "--destination", &to];
    let begin = Instant::now();
    succeed(project.command().args(args));
    let whole = begin.elapsed();
    let mut seed = u64::from(std::process::id());
    for round in 0..10 {
        if round % 3 == 0 {
            std::fs::remove_dir_all(project.path("store")).expect("empty the store");
        }
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let moment = whole.mul_f64((seed >> 33) as f64 / f64::from(u32::MAX >> 1));
        let tag = format!("{host}/killed{round}:1");
        let root = ["--rootfs=overlay", "--rootfs=fuse"][round % 2];
        let more = ["--insecure", "--insecure-pull", "--destination", &tag, root];
        let mut child = project.spawn(&more);
        let start = Instant::now();
        while start.elapsed() < moment && child.try_wait().expect("wait").is_none() {
            std::thread::yield_now();
        }
        kill(child.id(), "KILL");
        child.wait().expect("wait");
        // What is left goes as soon as the kernel has told the helper.
        let end = Instant::now() + Duration::from_secs(10);
        let store = project.path("store").display().to_string();
        while !processes(&store).is_empty() {
            assert!(
                Instant::now() < end,
                "left running: {:?}",
                processes(&store)
            );
            std::thread::yield_now();
        }
        assert_eq!(mounts(project.dir.path()), Vec::<String>::new());
        if registry.has_tag(&format!("killed{round}"), "1") {
            let whole = Command::new("skopeo")
                .args([
                    "copy",
                    "--quiet",
                    "--src-tls-verify=false",
                    &format!("docker://{tag}"),
                ])
                .arg(format!(
                    "dir:{}",
                    project.path(&format!("copy{round}")).display()
                ))
                .status()
                .expect("run skopeo");
            assert!(
                whole.success(),
                "the tag of round {round} points to something incomplete"
            );
        }
        let output = project.command().args(args).arg(root).output();
        let output = output.expect("run");
        assert!(
            output.status.success(),
            "after round {round} ({moment:?}, seed {seed}): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let runs = std::fs::read_dir(project.path("store/run")).map_or(0, Iterator::count);
        assert_eq!(runs, 0, "scratch directories are left");
    }
}

/// A command that fills the disk of the store gets an error; the build ends with it, leaves nothing
/// mounted, and the next one on the same disk works.
#[test]
fn a_full_disk_ends_a_build_and_not_the_next_one() {
    for root in ["overlay", "fuse"] {
        let project = Project::new();
        project.file("full", "FROM base\nRUN cat /dev/zero > /fill\n");
        project.file("next", "FROM base\nRUN echo fine > /fine\n");
        let script = "store=$0/store; mkdir \"$store\"; mount -t tmpfs -o size=16m tmpfs \"$store\"; \
            \"$@\" -f full --no-push >&2; echo first $?; grep -c \"$store/\" /proc/self/mounts; \
            \"$@\" -f next --no-push >&2; echo next $?";
        let built = project.command();
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(project.path(""))
            .arg(built.get_program())
            .args(built.get_args())
            .arg(format!("--rootfs={root}"))
            .output()
            .expect("run unshare");
        let said = String::from_utf8_lossy(&output.stderr);
        let ends = String::from_utf8_lossy(&output.stdout);
        let ends: Vec<&str> = ends.lines().collect();
        assert_eq!(ends, ["first 1", "0", "next 0"], "{root}: {said}");
        let wanted = "No space left on device";
        assert!(said.contains(wanted), "{root}: {said}");
    }
}

fn kill(pid: u32, signal: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .output();
}

/// Reads a build's standard output until a line has come.
fn wait_for_line(child: &mut std::process::Child, line: &str) {
    let out = child.stdout.as_mut().expect("a pipe");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(line) {
        assert_eq!(
            out.read(&mut byte).expect("read"),
            1,
            "it ended early: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.push(byte[0]);
    }
}
