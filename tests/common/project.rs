//! A directory with a base, a store and a context, and the program run on them.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// One test's directory.
pub struct Project {
    pub dir: tempfile::TempDir,
    pub base: PathBuf,
}

impl Project {
    /// Makes a directory with the small base in it and an empty context.
    pub fn new() -> Project {
        let dir = tempfile::tempdir().expect("a directory");
        let base = super::base::make(dir.path());
        std::fs::create_dir(dir.path().join("context")).expect("a context");
        Project { dir, base }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the context.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Project {
        let path = self.path("context").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("write");
        self
    }

    /// Gives the program with context, store and base set.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
        command
            .arg("build")
            .arg("--context")
            .arg(self.path("context"));
        command.arg("--cache-dir").arg(self.path("store"));
        command.args(["--log-format", "text"]);
        command.arg("--build-context");
        command.arg(format!("base=oci-layout://{}", self.base.display()));
        command.env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Builds into an OCI layout of that name; what went wrong is in the panic.
    pub fn build(&self, out: &str, args: &[&str]) -> PathBuf {
        let (output, path) = self.try_build(out, args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        path
    }

    /// Builds into an OCI layout of that name.
    pub fn try_build(&self, out: &str, args: &[&str]) -> (Output, PathBuf) {
        let path = self.path(out);
        let mut command = self.command();
        command
            .arg("--no-push")
            .arg("--oci-layout-path")
            .arg(&path)
            .args(args);
        (command.output().expect("run shutter"), path)
    }

    /// Starts a build and gives it with its output piped.
    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command();
        command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("run shutter")
    }
}

/// Runs a command that has to succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    output
}

/// Gives the processes whose command line or name has `needle` in it, this test's own left out.
pub fn processes(needle: &str) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid
            .parse::<u32>()
            .is_ok_and(|pid| pid != std::process::id())
        {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(needle) {
                out.push(format!("{pid} {line}"));
            }
        }
    }
    out
}

/// Gives the mounts of this process's namespace below a directory.
pub fn mounts(below: &Path) -> Vec<String> {
    let below = below.to_string_lossy().into_owned();
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    text.lines()
        .filter(|line| line.contains(&below))
        .map(str::to_owned)
        .collect()
}

/// Gives the same command with the rights of an ordinary container: no CAP_SYS_ADMIN, and no user
/// namespace to be had.
#[allow(dead_code)]
pub fn without_mounts(command: &Command) -> Command {
    let mut less = Command::new("setpriv");
    less.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    less.args(["strace", "-f", "-o", "/dev/null", "-e", "trace=unshare"]);
    less.args(["-e", "inject=unshare:error=EPERM"]);
    less.arg(command.get_program()).args(command.get_args());
    less
}
