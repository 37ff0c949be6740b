//! What surrounds the program: environment, working directory, user, container. Read once, here.

use super::parse::Called;
use crate::fs::mountinfo;
use crate::request;
use crate::sys::started_without_stdout;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Everything outside the command line that the meaning of flags depends on.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// The name the program was called by.
    pub called: Called,
    /// The environment.
    pub env: BTreeMap<OsString, OsString>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The effective user's number.
    pub uid: u32,
    /// What standard output is.
    pub stdout: Stdout,
    /// What tells that this is a container, where it is one.
    pub container: Option<String>,
    /// Where the program lies.
    pub program: Option<PathBuf>,
    /// Where something is mounted besides the root.
    pub volumes: Vec<PathBuf>,
    /// Whether the root directory is the executor's own image.
    pub own_image: bool,
}

/// What standard output is, as far as it matters to who writes an image there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdout {
    /// Something that takes bytes.
    Open,
    /// A terminal.
    Terminal,
    /// Nothing.
    Closed,
}

impl Stdout {
    fn look() -> Stdout {
        match std::io::stdout().is_terminal() {
            _ if started_without_stdout() => Stdout::Closed,
            true => Stdout::Terminal,
            false => Stdout::Open,
        }
    }
}

impl Surroundings {
    /// Looks around.
    pub fn read(called: Called) -> std::io::Result<Surroundings> {
        let env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let container = container(&env, Path::new("/"));
        Ok(Surroundings {
            called,
            env,
            cwd: std::env::current_dir()?,
            uid: rustix::process::geteuid().as_raw(),
            stdout: Stdout::look(),
            container,
            program: std::env::current_exe().ok(),
            volumes: volumes(),
            own_image: Path::new(request::OWN_IMAGE).exists(),
        })
    }

    /// Gives a variable that is set to something.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.env
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Gives a variable that is set to text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.var(name).and_then(OsStr::to_str)
    }

    /// Gives a variable as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from)
    }
}

fn volumes() -> Vec<PathBuf> {
    let points = mountinfo::points().into_iter().map(OsString::from_vec);
    let points = points.map(PathBuf::from);
    points.filter(|point| point != Path::new("/")).collect()
}

/// Names what tells that a root is a container's, by the signs kaniko goes by.
fn container(env: &BTreeMap<OsString, OsString>, root: &Path) -> Option<String> {
    if env
        .get(OsStr::new("container"))
        .is_some_and(|value| !value.is_empty())
    {
        return Some("the variable `container`".into());
    }
    const FILES: [&str; 4] = [
        ".dockerenv",
        "run/.containerenv",
        "__runsc_containers__",
        "var/run/secrets/kubernetes.io/serviceaccount",
    ];
    for file in FILES {
        if root.join(file).exists() {
            return Some(format!("/{file}"));
        }
    }
    const RUNTIMES: [&str; 9] = [
        "docker",
        "kubepods",
        "containerd",
        "libpod",
        "podman",
        "buildkit",
        "lxc",
        "garden",
        "ecs",
    ];
    for file in ["proc/self/cgroup", "proc/1/cgroup"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let parts = || text.split(['/', '\n']);
        if let Some(runtime) = RUNTIMES
            .iter()
            .find(|name| parts().any(|part| is_of(part, name)))
        {
            return Some(format!("`{runtime}` in /{file}"));
        }
    }
    let mounts = std::fs::read_to_string(root.join("proc/mounts")).unwrap_or_default();
    mounts
        .lines()
        .any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some("/") && words.next() == Some("overlay")
        })
        .then(|| "a root on overlay".into())
}

/// Tells whether a part of a control group's path is a container runtime's: its name alone, or with
/// what runtimes put behind it: a container's number, a class of pods, the kind of unit.
fn is_of(part: &str, runtime: &str) -> bool {
    let part = part.strip_prefix("cri-").unwrap_or(part);
    let Some(rest) = part.strip_prefix(runtime) else {
        return false;
    };
    let number = rest.strip_prefix(['-', '.']).unwrap_or_default();
    let digits = number.bytes().take_while(u8::is_ascii_hexdigit).count();
    rest.is_empty()
        || matches!(rest, ".slice" | ".payload")
        || digits >= 12
        || (runtime == "kubepods" && rest.starts_with('-'))
        || (runtime == "lxc" && rest.starts_with(".payload."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_known_by_their_signs() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("", "", None),
            (".dockerenv", "", Some("/.dockerenv")),
            ("run/.containerenv", "", Some("/run/.containerenv")),
            (
                "proc/1/cgroup",
                "0::/kubepods/burstable/x\n",
                Some("`kubepods` in /proc/1/cgroup"),
            ),
            ("proc/self/cgroup", "0::/user.slice\n", None),
            (
                "proc/mounts",
                "overlay / overlay rw,lowerdir=/x 0 0\n",
                Some("a root on overlay"),
            ),
            (
                "proc/mounts",
                "/dev/vda / ext4 rw 0 0\noverlay /mnt overlay rw 0 0\n",
                None,
            ),
            ("__runsc_containers__", "", Some("/__runsc_containers__")),
            (
                "proc/self/cgroup",
                "0::/system.slice/docker-0123456789abcdef.scope\n",
                Some("`docker` in /proc/self/cgroup"),
            ),
            (
                "proc/self/cgroup",
                "0::/kubepods-burstable-pod1.slice/cri-containerd-0123456789abcdef.scope\n",
                Some("`kubepods` in /proc/self/cgroup"),
            ),
            (
                "proc/self/cgroup",
                "0::/system.slice/docker-build.service\n",
                None,
            ),
            ("proc/self/cgroup", "0::/user.slice/app-specs.scope\n", None),
            (
                "proc/self/cgroup",
                "0::/system.slice/docker.service\n",
                None,
            ),
        ];
        for &(file, content, want) in cases {
            let root = tempfile::tempdir().unwrap();
            if !file.is_empty() {
                let path = root.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            let got = container(&BTreeMap::new(), root.path());
            assert_eq!(got.as_deref(), want, "{file}");
        }
        let env = BTreeMap::from([("container".into(), "podman".into())]);
        assert!(container(&env, Path::new("/nonexistent")).is_some());
    }
}
