//! Starts a Docker daemon of a test's own, without network set-up, and ends it on drop.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A running daemon.
pub struct Dockerd {
    host: String,
    dir: tempfile::TempDir,
    child: Child,
}

/// Starts a daemon that talks plain HTTP with one registry.
pub fn start(registry: &str) -> Dockerd {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let host = format!("unix://{}", at("socket"));
    let log = std::fs::File::create(dir.path().join("log")).expect("a log");
    let child = Command::new("dockerd")
        .args([
            "--data-root",
            &at("data"),
            "--exec-root",
            &at("exec"),
            "--pidfile",
            &at("pid"),
        ])
        .args([
            "--host",
            &host,
            "--iptables=false",
            "--bridge=none",
            "--insecure-registry",
            registry,
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|e| panic!("this test needs `dockerd` (docker.io) to be installed: {e}"));
    let daemon = Dockerd { host, dir, child };
    let end = Instant::now() + Duration::from_secs(60);
    // The client waits for the socket's answer; before there is a socket it says so at once.
    while !daemon.docker(&["info"]).status.success() {
        let log = || std::fs::read_to_string(daemon.dir.path().join("log")).unwrap_or_default();
        assert!(Instant::now() < end, "dockerd did not start: {}", log());
        std::thread::yield_now();
    }
    daemon
}

impl Dockerd {
    /// Runs the client.
    pub fn docker(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("run docker")
    }

    /// Gives the client as it is called.
    pub fn command(&self) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command
            .args(["-H", &self.host])
            // The client's own default is the builder before BuildKit.
            .env("DOCKER_BUILDKIT", "1")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
        unmount_below(self.dir.path());
    }
}

/// Takes away what the daemon left mounted, so that its directory can go.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.display().to_string();
    for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if at.starts_with(&dir) {
            let _ = Command::new("umount").args(["-l", at]).status();
        }
    }
}
