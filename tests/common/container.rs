//! Ordinary containers, with no right that an engine does not give by default.
#![allow(dead_code)]

use crate::dockerd::{self, Dockerd};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Who starts containers.
pub enum Engine {
    /// A daemon of the test's own.
    Docker(Dockerd),
    /// Podman, whose files lie in this directory.
    Podman(PathBuf),
}

impl Engine {
    /// Starts Docker's daemon.
    pub fn docker() -> Engine {
        Engine::Docker(dockerd::start("127.0.0.1:1"))
    }

    /// Makes podman's settings: it may raise no limits here and make no network.
    pub fn podman(dir: &Path) -> Engine {
        let dir = dir.join("podman");
        std::fs::create_dir(&dir).expect("a directory");
        let settings = "[containers]\ndefault_ulimits = []\nnetns = \"host\"\n[engine]\n\
                        cgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\n";
        std::fs::write(dir.join("containers.conf"), settings).expect("write");
        Engine::Podman(dir)
    }

    /// Runs the engine's client.
    pub fn call(&self, args: &[&OsStr]) -> Output {
        match self {
            Engine::Docker(daemon) => daemon.command().args(args).output().expect("run docker"),
            Engine::Podman(dir) => Command::new("podman")
                .env("CONTAINERS_CONF", dir.join("containers.conf"))
                .arg("--root")
                .arg(dir.join("root"))
                .arg("--runroot")
                .arg(dir.join("run"))
                .args(["--cgroup-manager=cgroupfs", "--runtime=runc"])
                .arg("--storage-driver=overlay")
                .args(args)
                .stdin(Stdio::null())
                .output()
                .expect("run podman"),
        }
    }

    fn said(&self, args: &[&OsStr]) -> String {
        let output = self.call(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// A running container, which is removed at the end.
pub struct Container {
    engine: Engine,
    id: String,
}

impl Container {
    /// Starts a container that does nothing, on a copy of a directory that has busybox in `bin`, with
    /// directories of the host as volumes, and with what the engine is told besides.
    pub fn start(
        engine: Engine,
        root: &Path,
        volumes: &[(&Path, &str)],
        more: &[&str],
    ) -> Container {
        std::fs::create_dir_all(root.join("work/dir")).expect("a directory");
        let tar = archive(root);
        let name = "localhost/ordinary:1";
        engine.said(&["import".as_ref(), tar.as_ref(), name.as_ref()]);
        let mut args: Vec<OsString> = ["run", "-d", "--network=host"].map(Into::into).to_vec();
        if let Engine::Podman(_) = engine {
            args.extend(["--cgroups=enabled", "--ulimit=host"].map(Into::into));
        }
        for (from, to) in volumes {
            args.push("-v".into());
            args.push(format!("{}:{to}", from.display()).into());
        }
        args.push("--workdir=/work/dir".into());
        args.extend(more.iter().map(OsString::from));
        args.extend([name, "/bin/busybox", "sleep", "100000"].map(Into::into));
        let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        let id = engine.said(&args);
        Container { engine, id }
    }

    /// Runs a command in it with these variables besides the container's.
    pub fn exec(&self, variables: &[(OsString, OsString)], command: &[OsString]) -> Output {
        let mut args: Vec<OsString> = vec!["exec".into()];
        for (name, value) in variables {
            let mut both = name.clone();
            both.push("=");
            both.push(value);
            args.extend(["-e".into(), both]);
        }
        args.push(self.id.clone().into());
        args.extend(command.iter().cloned());
        let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        self.engine.call(&args)
    }
}

impl Container {
    /// Tells what is other than in its image, as Docker lists it.
    pub fn changes(&self) -> String {
        let args = ["diff", &self.id].map(OsStr::new);
        let said = self.engine.said(&args);
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let args = ["rm", "-f", "-v", &self.id].map(OsStr::new);
        let _ = self.engine.call(&args);
    }
}

/// Gives the libraries that a program is linked with, its loader too.
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("run ldd");
    let text = String::from_utf8(listed.stdout).expect("text");
    let words = text.split_whitespace();
    let paths = words.filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

/// Puts what a program is linked with into a root, where the program looks for it.
pub fn install_libraries(program: &Path, root: &Path) {
    for library in libraries(program) {
        let to = root.join(library.strip_prefix("/").expect("an absolute path"));
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
        std::fs::copy(library, to).expect("copy a library");
    }
}

/// Packs a directory into an archive beside it.
pub fn archive(root: &Path) -> PathBuf {
    let tar = root.with_extension("tar");
    let made = Command::new("tar")
        .arg("-C")
        .arg(root)
        .arg("-cf")
        .arg(&tar)
        .arg(".")
        .status();
    assert!(made.expect("run tar").success());
    tar
}

/// Puts a program and what it is linked with into a directory that will be mounted at `at`; gives what
/// it is called by there.
pub fn portable(program: &Path, dir: &Path, at: &str) -> Vec<OsString> {
    let mut loader = None;
    for path in libraries(program) {
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, dir.join(name)).expect("copy a library");
        if name.as_encoded_bytes().starts_with(b"ld-") {
            loader = Some(format!("{at}/{}", name.display()));
        }
    }
    let name = program.file_name().expect("a name");
    std::fs::copy(program, dir.join(name)).expect("copy the program");
    vec![
        loader.expect("a loader").into(),
        "--library-path".into(),
        at.into(),
        format!("{at}/{}", name.display()).into(),
    ]
}
