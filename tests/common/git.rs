//! Real repositories for tests, served by git's own daemon and by `git http-backend`.
#![allow(dead_code)]

use crate::fake::{Asked, Fake, Reply, reply};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A repository with a working tree.
pub struct Repository {
    pub dir: PathBuf,
}

/// Gives git without the configuration of who runs the tests, at a fixed time.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .args([
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.invalid",
        ])
        .args([
            "-c",
            "init.defaultBranch=main",
            "-c",
            "protocol.file.allow=always",
        ])
        .stdin(Stdio::null());
    command
}

/// Runs git and gives what it printed.
pub fn run(dir: &Path, arguments: &[&str]) -> String {
    let output = git(dir)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("these tests need `git` to be installed: {e}"));
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Repository {
    /// Makes an empty repository.
    pub fn new(dir: PathBuf) -> Repository {
        std::fs::create_dir_all(&dir).unwrap();
        run(&dir, &["init", "-q"]);
        Repository { dir }
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        run(&self.dir, arguments)
    }

    /// Writes a file.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Repository {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// Commits everything, and gives the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Puts an object of any content in, and gives its name.
    pub fn object(&self, kind: &str, content: &[u8]) -> String {
        let mut child = git(&self.dir)
            .args(["hash-object", "-t", kind, "-w", "--literally", "--stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes a commit of a tree given as `MODE NAME OBJECT` entries, whatever they are, and points a
    /// branch to it.
    pub fn odd_commit(&self, branch: &str, entries: &[(&str, &[u8], &str)]) -> String {
        let mut tree = Vec::new();
        for (mode, name, oid) in entries {
            tree.extend_from_slice(mode.as_bytes());
            tree.push(b' ');
            tree.extend_from_slice(name);
            tree.push(0);
            for pair in oid.as_bytes().chunks(2) {
                let hex = std::str::from_utf8(pair).unwrap();
                tree.push(u8::from_str_radix(hex, 16).unwrap());
            }
        }
        let tree = self.object("tree", &tree);
        let commit = format!(
            "tree {tree}\nauthor T <t> 1700000000 +0000\ncommitter T <t> 1700000000 +0000\n\nodd\n"
        );
        let commit = self.object("commit", commit.as_bytes());
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        commit
    }
}

/// A running `git daemon`.
pub struct Daemon {
    /// `git://127.0.0.1:PORT`
    pub url: String,
    child: Child,
}

impl Daemon {
    /// Serves every repository below a directory.
    pub fn start(root: &Path) -> Daemon {
        loop {
            let port = {
                let free = TcpListener::bind("127.0.0.1:0").unwrap();
                free.local_addr().unwrap().port()
            };
            // `git daemon` is a wrapper that would outlive its own end.
            let mut child = Command::new(exec_path().join("git-daemon"))
                .args(["--reuseaddr", "--export-all", "--listen=127.0.0.1"])
                .arg(format!("--port={port}"))
                .arg(format!("--base-path={}", root.display()))
                .arg(root)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", "safe.directory")
                .env("GIT_CONFIG_VALUE_0", "*")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("these tests need `git-daemon` to be installed");
            let end = Instant::now() + Duration::from_secs(20);
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Daemon {
                        url: format!("git://127.0.0.1:{port}"),
                        child,
                    };
                }
                assert!(Instant::now() < end, "git-daemon does not listen");
                std::thread::yield_now();
            }
            // Somebody took the port; another one is free.
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exec_path() -> PathBuf {
    let output = Command::new("git").arg("--exec-path").output();
    let output = output.expect("these tests need `git` to be installed");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Which version of the protocol a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// The one that it is asked for.
    Two,
    /// The one before, whatever it is asked for.
    Zero,
}

/// Serves every repository below a directory over http.
pub fn serve(root: &Path, speaks: Speaks) -> Fake {
    let root = root.to_owned();
    Fake::start(move |asked| backend(&root, asked, speaks))
}

/// Answers a request as `git http-backend` does.
pub fn backend(root: &Path, asked: &Asked, speaks: Speaks) -> Reply {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let mut command = git(root);
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &asked.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(kind) = asked.header("content-type") {
        command.env("CONTENT_TYPE", kind);
    }
    if let (Speaks::Two, Some(version)) = (speaks, asked.header("git-protocol")) {
        command.env("GIT_PROTOCOL", version);
    }
    command.env("CONTENT_LENGTH", asked.body.len().to_string());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let body = asked.body.clone();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&body);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let out = output.stdout;
    let end = out.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return reply(500);
    };
    let head = String::from_utf8_lossy(&out[..end]).into_owned();
    let mut status = 200;
    let mut headers = Vec::new();
    for line in head.lines() {
        let (name, value) = line.split_once(':').unwrap();
        match name {
            "Status" => status = value.trim()[..3].parse().unwrap(),
            name => headers.push((name.to_owned(), value.trim().to_owned())),
        }
    }
    let mut answer = reply(status).body(&out[end + 4..]);
    for (name, value) in headers {
        answer = answer.with(&name, value);
    }
    answer
}
