//! A root to run commands in, and what the tests look at it with.

use shutter::progress::Stream;
use shutter::rootfs::Entry;
use shutter::sandbox::{Command, Error, Exit, Identity, Sandbox};
use shutter::sys::Cancel;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A sandbox and a busybox root on an overlay.
pub struct Bench {
    pub sandbox: Sandbox,
    pub directory: tempfile::TempDir,
    pub ground: Ground,
    /// What was warned of.
    pub warned: std::sync::Mutex<Vec<String>>,
}

/// What a root lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// An overlay.
    Overlay,
    /// A directory that is mounted.
    Directory,
    /// A directory, entered without a mount.
    Plain,
}

pub struct Done {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::small(Ground::Overlay)
    }

    pub fn small(ground: Ground) -> Bench {
        Bench::on(ground, |lower| {
            fs::create_dir(lower.join("bin")).unwrap();
            fs::create_dir(lower.join("etc")).unwrap();
            fs::create_dir(lower.join("tmp")).unwrap();
            fs::set_permissions(lower.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
            busybox(lower);
        })
    }

    /// Makes a root whose lower directory is filled by `fill`.
    pub fn with(fill: impl FnOnce(&Path)) -> Bench {
        Bench::on(Ground::Overlay, fill)
    }

    /// Makes a root on something; the directory or lower directory is filled by `fill`.
    pub fn on(ground: Ground, fill: impl FnOnce(&Path)) -> Bench {
        // Before the first thread.
        let sandbox = Sandbox::start().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        rustix::mount::mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        for name in ["lower", "upper", "work", "root"] {
            fs::create_dir(at(name)).unwrap();
        }
        fill(&at("lower"));
        match ground {
            Ground::Plain => {}
            Ground::Directory => rustix::mount::mount_bind(at("lower"), at("root")).unwrap(),
            Ground::Overlay => {
                let options = format!(
                    "lowerdir={},upperdir={},workdir={}",
                    at("lower").display(),
                    at("upper").display(),
                    at("work").display()
                );
                let options = std::ffi::CString::new(options).unwrap();
                rustix::mount::mount(
                    "overlay",
                    at("root"),
                    "overlay",
                    rustix::mount::MountFlags::empty(),
                    options.as_c_str(),
                )
                .unwrap();
            }
        }
        Bench {
            sandbox,
            directory,
            ground,
            warned: Default::default(),
        }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join(match self.ground {
            Ground::Overlay | Ground::Directory => "root",
            Ground::Plain => "lower",
        })
    }

    pub fn entry<'a>(&self, root: &'a Path) -> Entry<'a> {
        match self.ground {
            Ground::Overlay | Ground::Directory => Entry::Pivot(root),
            Ground::Plain => Entry::Chroot(root),
        }
    }

    pub fn try_run(&self, command: &Command) -> Result<Done, Error> {
        self.try_run_until(command, &Cancel::new().unwrap())
    }

    pub fn try_run_until(&self, command: &Command, cancel: &Cancel) -> Result<Done, Error> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let root = self.root();
        let exit = self.sandbox.run(
            self.entry(&root),
            command,
            &mut |stream, bytes| match stream {
                Stream::Out => out.extend(bytes),
                Stream::Err => err.extend(bytes),
            },
            &mut |text| self.warned.lock().unwrap().push(text.to_owned()),
            cancel,
        )?;
        Ok(Done {
            exit,
            out: String::from_utf8_lossy(&out).into_owned(),
            err: String::from_utf8_lossy(&err).into_owned(),
        })
    }

    pub fn run(&self, command: &Command) -> Done {
        self.try_run(command).unwrap()
    }

    pub fn sh(&self, script: &str) -> Done {
        self.run(&sh(script))
    }

    /// Gives what a script printed, which must have succeeded.
    pub fn out(&self, script: &str) -> String {
        let done = self.sh(script);
        assert_eq!(
            done.exit,
            Exit::Code(0),
            "{script}: {}{}",
            done.out,
            done.err
        );
        done.out
    }

    /// Gives every path in the overlay's upper directory.
    pub fn upper(&self) -> Vec<String> {
        let upper = self.directory.path().join("upper");
        tree(&upper)
            .into_keys()
            .filter(|path| !path.is_empty())
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for path in [self.root(), self.directory.path().to_owned()] {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

pub fn busybox(root: &Path) {
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = std::process::Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .unwrap();
    for name in String::from_utf8(list.stdout).unwrap().lines() {
        let _ = symlink("busybox", root.join("bin").join(name));
    }
}

/// Gives paths below a directory with their modification times.
pub fn tree(directory: &Path) -> BTreeMap<String, (i64, i64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(directory).unwrap().display().to_string();
        found.insert(name, (meta.mtime(), meta.mtime_nsec()));
        if meta.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found
}

/// Gives all that can be seen of what is below a directory, but access times.
pub fn listing(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match meta.is_file() {
            true => blake3::hash(&fs::read(&path).unwrap()).to_string(),
            false => String::new(),
        };
        let name = path.strip_prefix(directory).unwrap().display().to_string();
        let said = format!(
            "{:o} {}:{} {} {}.{} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        found.insert(name, said);
        if meta.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found
}

/// Compares listings, and shows of two that differ where.
pub fn assert_same(after: &BTreeMap<String, String>, before: &BTreeMap<String, String>, of: &str) {
    let names: BTreeSet<&String> = after.keys().chain(before.keys()).collect();
    let differ: Vec<_> = names
        .into_iter()
        .filter(|name| after.get(*name) != before.get(*name))
        .map(|name| (name, after.get(name), before.get(name)))
        .collect();
    assert!(differ.is_empty(), "{of}: {differ:#?}");
}

pub fn command(args: &[&str]) -> Command {
    Command {
        args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/bin".to_vec()],
        cwd: b"/".to_vec(),
        identity: Identity::default(),
        files: Vec::new(),
        hostname: "sandbox-host".to_owned(),
        mounts: Vec::new(),
        network: Default::default(),
        insecure: false,
    }
}

pub fn sh(script: &str) -> Command {
    command(&["sh", "-c", script])
}

/// Runs a closure in a forked child of this single-threaded process.
pub fn in_child(test: impl FnOnce()) {
    match shutter::sys::fork().unwrap() {
        shutter::sys::Fork::Parent(child) => {
            let (_, status) =
                rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())
                    .unwrap()
                    .unwrap();
            assert_eq!(status.exit_status(), Some(0));
        }
        shutter::sys::Fork::Child => {
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_ok();
            shutter::sys::exit_now(i32::from(!passed));
        }
    }
}

/// Gives the command lines of processes that contain a text.
pub fn processes_with(text: &str) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| line.contains(text))
        .collect()
}

/// Waits until something is so.
///
/// # Panics
///
/// Panics if it is not so within half a minute.
#[track_caller]
pub fn until(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "this does not come");
        std::thread::yield_now();
    }
}

/// Gives the mounts there are.
pub fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().map(str::to_owned).collect()
}

/// Gives the mounts there are now and were not before. Some may have gone meanwhile that are none
/// of this process's doing: of those that it was born with, with their directories.
pub fn new_mounts(before: &BTreeSet<String>) -> Vec<String> {
    mounts().difference(before).cloned().collect()
}

/// A process that is killed at the end, whatever the end is.
pub struct Killed(pub std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
