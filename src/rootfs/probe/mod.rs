//! Which roots work here: each is really tried, in a directory of its own.

mod rights;
mod words;
#[cfg(test)]
mod words_tests;

pub use rights::{Filter, Label, Rights};

use super::dirs::{at, make_dir, open_dir, remove};
use super::{Entry, Error, Fuse, Live, Overlay, Rootfs, fuse};
use crate::fs::{Meta, RelPath, Time};
use crate::request::{RootOwner, RootfsChoice};
use crate::sys::Cancel;
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, StatVfsMountFlags, accessat, openat, statvfs,
};
use rustix::thread::CapabilitySet;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

/// What came of trying a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub root: RootfsChoice,
    /// Whether it works.
    pub verdict: Verdict,
    /// What is good to know, a sentence each.
    pub notes: Vec<String>,
}

/// Whether a root works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Works,
    /// It does not.
    Refused(Refusal),
}

/// Why a root does not work, in plain words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is in the way.
    pub why: String,
    /// What would help: a setting of the pod, a volume, a kernel.
    pub remedy: String,
}

impl Refusal {
    fn new(why: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal {
            why: why.into(),
            remedy: remedy.into(),
        }
    }
}

impl Finding {
    /// Tells whether the root works.
    pub fn works(&self) -> bool {
        self.verdict == Verdict::Works
    }
}

/// A failure to start a command in a root.
#[derive(Debug)]
pub struct NotStarted {
    /// What was tried.
    pub action: String,
    /// Why not.
    pub source: io::Error,
}

/// Starts a command that does nothing in a root and gives what is said of it.
pub type Start<'a> = &'a mut dyn FnMut(Entry<'_>) -> Result<Vec<String>, NotStarted>;

/// Where roots are tried, and by what rules.
pub struct Place<'a> {
    /// A directory to make scratch directories in, on the store's file system.
    pub scratch: &'a Path,
    /// The store's directory, as remedies name it.
    pub store: &'a Path,
    /// Whose the root directory is that the builder runs in.
    pub owner: RootOwner,
    /// What the builder may do.
    pub rights: &'a Rights,
}

/// Tries a root: makes it, writes to it through what is mounted, has a command started in it, and
/// sees whether what was written is told. Nothing is left of it. The builder's own root directory is not
/// touched.
///
/// `RootfsChoice::Auto` is none, and is taken for overlay.
pub fn try_root(
    choice: RootfsChoice,
    place: &Place<'_>,
    start: Start<'_>,
    cancel: &Cancel,
) -> Finding {
    let root = match choice {
        RootfsChoice::Auto => RootfsChoice::Overlay,
        root => root,
    };
    let scratch = place.scratch.join(format!("try-{}", root.name()));
    let tried = match root {
        RootfsChoice::InPlace => in_place(place, &scratch, start, cancel),
        _ => own_root(root, place, &scratch, start, cancel),
    };
    // What is left goes with the scratch directory above.
    let _ = remove(&scratch);
    let (verdict, notes) = match tried {
        Ok(notes) => (Verdict::Works, notes),
        Err(refusal) => (Verdict::Refused(refusal), Vec::new()),
    };
    Finding {
        root,
        verdict,
        notes,
    }
}

/// Tries a root that has a directory of its own.
fn own_root(
    root: RootfsChoice,
    place: &Place<'_>,
    scratch: &Path,
    start: Start<'_>,
    cancel: &Cancel,
) -> Result<Vec<String>, Refusal> {
    let worded = |error: Error| match root {
        RootfsChoice::Overlay | RootfsChoice::Fuse => mount_refused(root, &error, place),
        _ => live_refused(root, &error, place),
    };
    make_dir(scratch).map_err(worded)?;
    let dir = scratch.to_owned();
    let top = Meta::dir(0o755, Time::default());
    let mut notes = Vec::new();
    match root {
        RootfsChoice::Fuse => {
            let mut made = Fuse::new(dir, Vec::new(), top).map_err(worded)?;
            carry_out(&mut made, place, start).map_err(|e| e.worded(root, place))?;
            if !passes_through(scratch) {
                notes.push(
                    "the kernel leaves reading and writing to the builder (passthrough takes Linux 6.9 \
                     and no user namespace), so content is copied once more"
                        .into(),
                );
            }
        }
        RootfsChoice::Chroot | RootfsChoice::InPlace => {
            owners(scratch).map_err(worded)?;
            if root == RootfsChoice::Chroot && starts_nothing(scratch) {
                return Err(Refusal::new(
                    "the store's file system is mounted noexec, so no program starts there",
                    "a store on a file system without noexec",
                ));
            }
            let mut made = Live::chroot(dir, &[], &top, cancel).map_err(worded)?;
            let said = carry_out(&mut made, place, start).map_err(|e| e.worded(root, place))?;
            notes.extend(of_tracking(&made));
            notes.extend(of_files(scratch, place.rights));
            notes.extend(said);
        }
        RootfsChoice::Overlay | RootfsChoice::Auto => {
            let mut made = Overlay::new(dir, Vec::new()).map_err(worded)?;
            let said = carry_out(&mut made, place, start).map_err(|e| e.worded(root, place))?;
            let left_off = made.left_off();
            if left_off.contains(&"redirect_dir") || left_off.contains(&"metacopy") {
                notes.push(format!(
                    "the kernel leaves off {}, so what is renamed or given another owner is copied",
                    left_off.join(", ")
                ));
            }
            notes.extend(said);
        }
    }
    Ok(notes)
}

/// Tells whether the mount that a directory is in lets no program be started.
fn starts_nothing(dir: &Path) -> bool {
    statvfs(dir).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Tries whether the builder could build in its own root directory; what it would do there is tried
/// elsewhere.
fn in_place(
    place: &Place<'_>,
    scratch: &Path,
    start: Start<'_>,
    cancel: &Cancel,
) -> Result<Vec<String>, Refusal> {
    let root = RootfsChoice::InPlace;
    if place.owner == RootOwner::Machine {
        return Err(Refusal::new(
            "this is no container, and a build in place replaces every file of the root directory",
            "run it in a container of its own",
        ));
    }
    let mut staying = |_: Entry<'_>| start(Entry::Stay);
    let mut notes = own_root(root, place, scratch, &mut staying, cancel)?;
    let top = Path::new("/");
    // By asking: what is tried would show in the directory's time.
    let may = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, top, may, AtFlags::EACCESS)
        .map_err(at("create", top))
        .map_err(|error| live_refused(root, &error, place))?;
    if place.owner == RootOwner::Container {
        notes.insert(
            0,
            "it replaces every file of this container's root directory, so it has to be asked for: \
             --rootfs=inplace (auto takes it in the executor's own image)"
                .into(),
        );
    }
    Ok(notes)
}

/// What went wrong with a root that could be made.
enum Failed {
    Root(Error),
    Start(NotStarted),
    Untold,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Root(error)
    }
}

impl Failed {
    fn worded(self, root: RootfsChoice, place: &Place<'_>) -> Refusal {
        let mounts = matches!(root, RootfsChoice::Overlay | RootfsChoice::Fuse);
        match self {
            Failed::Root(error) if mounts => mount_refused(root, &error, place),
            Failed::Root(error) => live_refused(root, &error, place),
            Failed::Start(NotStarted { action, source }) => {
                let Place { rights, store, .. } = *place;
                match mounts {
                    true => words::mount(root, &action, &source, rights, store),
                    false => words::live(root, &action, &source, rights, store),
                }
            }
            Failed::Untold => Refusal::new(
                "what is written here is not told as it should be",
                "a store on another file system",
            ),
        }
    }
}

/// Writes a file through a root, has a command started in it, and looks whether the file is told.
fn carry_out(
    made: &mut dyn Rootfs,
    place: &Place<'_>,
    start: Start<'_>,
) -> Result<Vec<String>, Failed> {
    made.begin()?;
    let mut said = Ok(Vec::new());
    let written = write_through(made.root()?).map_err(at("write to", place.scratch));
    if written.is_ok() {
        said = start(made.entry()).map_err(Failed::Start);
    }
    // Without this a mount would be left to the end of the process.
    if written.is_err() || said.is_err() {
        let _ = made.discard();
    }
    written?;
    let said = said?;
    let changes = made.commit()?;
    let told = RelPath::clean(FILE.as_bytes()).is_some_and(|path| changes.get(&path).is_some());
    match told {
        true => Ok(said),
        false => Err(Failed::Untold),
    }
}

/// What is written to a root that is tried.
const FILE: &str = "written";

fn write_through(root: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let fd = openat(root, FILE, flags, Mode::from_raw_mode(0o644))?;
    std::fs::File::from(fd).write_all(b"written\n")
}

/// Gives the first error of the system's in a chain.
fn system_error(error: &Error) -> io::Error {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        next = error.source();
    }
    io::Error::other(error.to_string())
}

fn mount_refused(root: RootfsChoice, error: &Error, place: &Place<'_>) -> Refusal {
    let tried = match error {
        Error::Mount { action, .. } => action.clone(),
        other => other.to_string(),
    };
    words::mount(
        root,
        &tried,
        &system_error(error),
        place.rights,
        place.store,
    )
}

fn live_refused(root: RootfsChoice, error: &Error, place: &Place<'_>) -> Refusal {
    // The path would be one that is gone by now.
    let tried = match error {
        Error::Io { action, .. } => format!("{action} files"),
        Error::Changeset(_) => "give files their owners and modes".to_owned(),
        other => other.to_string(),
    };
    words::live(
        root,
        &tried,
        &system_error(error),
        place.rights,
        place.store,
    )
}

/// Tells whether the kernel reads and writes content itself on FUSE.
fn passes_through(scratch: &Path) -> bool {
    let depth = open_dir(scratch).map(|dir| {
        use std::os::fd::AsFd;
        fuse::passthrough(&[dir.as_fd()])
    });
    matches!(depth, Ok(Some(_))) && is_at_least(6, 9)
}

/// Tells whether the kernel says that it is of this version or a later one.
fn is_at_least(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Says how what a command changes is found.
fn of_tracking(made: &Live) -> Option<String> {
    let limit = || {
        let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok()?;
        text.trim().parse::<u64>().ok()
    };
    match (made.is_watched(), limit()) {
        (true, Some(limit)) => Some(format!(
            "inotify watches: {limit}; where an image has more directories, all of them are looked at \
             after every command"
        )),
        (true, None) => None,
        (false, _) => Some(
            "inotify is refused, so all directories are looked at after every command (its bounds are \
             fs.inotify.max_user_instances and max_user_watches on the node)"
                .into(),
        ),
    }
}

/// Tries to do with a file what an image's files take: to give it to another user, and to change and
/// open what is another user's.
fn owners(scratch: &Path) -> Result<(), Error> {
    use rustix::fs::{Gid, Uid, chmodat, chownat};
    let path = scratch.join("owned");
    std::fs::write(&path, "").map_err(at("write", &path))?;
    let (user, group) = (Some(Uid::from_raw(1)), Some(Gid::from_raw(1)));
    chownat(CWD, &path, user, group, AtFlags::empty()).map_err(at("give away", &path))?;
    for mode in [0o4755, 0] {
        let mode = Mode::from_raw_mode(mode);
        chmodat(CWD, &path, mode, AtFlags::empty()).map_err(at("change", &path))?;
    }
    std::fs::write(&path, "x").map_err(at("write", &path))
}

/// Says which files of an image cannot be made here.
fn of_files(scratch: &Path, rights: &Rights) -> Vec<String> {
    let mut out = Vec::new();
    let node = scratch.join("null");
    let null = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o666);
    let made = rustix::fs::mknodat(CWD, &node, FileType::CharacterDevice, mode, null);
    if made.is_err() {
        out.push(
            match rights.is_nested {
                true => {
                    "device nodes cannot be made in a user namespace: commands lack those of the base"
                }
                false => {
                    "device nodes cannot be made here (CAP_MKNOD): commands lack those of the base"
                }
            }
            .into(),
        );
    }
    if !rights.has(CapabilitySet::SETFCAP) {
        out.push("files cannot be given capabilities here (CAP_SETFCAP): a base that has some cannot be used".into());
    }
    out
}
