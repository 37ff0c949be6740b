//! The contract of every root: after any script of file operations, what was tracked equals what a
//! full walk of the root finds, and the stack shows the same files from then on.

#[path = "common/harness.rs"]
mod harness;
#[path = "rootfs/operations.rs"]
mod operations;
#[path = "rootfs/scripts.rs"]
mod scripts;
#[path = "rootfs/stage.rs"]
mod stage;
#[path = "rootfs/together.rs"]
mod together;
#[path = "common/user.rs"]
mod user;

use harness::Case;
use operations::{Op, Tolerance};
use shutter::changeset::Action;
use shutter::fs::RelPath;
use shutter::rootfs::{Error, Overlay, Rootfs};
use stage::{Sort, Stage};
use std::process::ExitCode;

fn main() -> ExitCode {
    harness::private_mounts();
    let mut cases = Vec::new();
    // A user may not do everything: no devices, no attributes that are root's, and on overlay no
    // directory of a layer is renamed. What is tracked must be right all the same.
    let by_user = shutter::sys::in_user_namespace();
    let strict = match by_user {
        true => Tolerance::Refusals,
        false => Tolerance::None,
    };
    if !by_user {
        for sort in ["overlay::", "fuse"] {
            let name = format!("in_a_user_namespace::{sort}");
            let name = name.trim_end_matches(':').to_owned();
            cases.push(Case::new(name, move || in_a_user_namespace(sort)));
        }
    }
    for sort in stage::ALL {
        let mut add = |name: &str, run: Box<dyn Fn()>| {
            cases.push(Case::new(format!("{}::{name}", sort.name()), run));
        };
        for (name, steps) in scripts::all() {
            // In the root of the process that would be `/proc` too.
            if sort == Sort::InPlace && name.starts_with("chown_all") {
                continue;
            }
            // The kernel numbers the two names differently where it copied the file up whole.
            let linked = ["link_of_metacopy", "linked_by_several"].contains(&name);
            if sort == Sort::Overlay && by_user && linked {
                continue;
            }
            let run = move || drop(Stage::new(sort).run(&steps, strict));
            add(&format!("script::{name}"), Box::new(run));
        }
        for seed in 1..=12 {
            let run = move || {
                println!("seed {seed}");
                Stage::new(sort).run(&operations::random(seed, 4, 25), Tolerance::Refusals);
            };
            add(&format!("random::{seed}"), Box::new(run));
        }
        let tests: [Test; 5] = [
            ("forks_are_apart", forks_are_apart),
            ("three_hundred_layers", three_hundred_layers),
            ("from_nothing", from_nothing),
            ("a_discarded_step_leaves_nothing", discard),
            ("an_idle_step_is_not_stacked", idle),
        ];
        // What lies in one directory cannot be taken back, and in place there is no second one.
        let fit = match sort {
            Sort::Overlay | Sort::Fuse | Sort::FusePlain => &tests[..],
            Sort::Chroot => &tests[..3],
            Sort::InPlace => &[],
        };
        for &(name, run) in fit {
            add(name, Box::new(move || run(sort)));
        }
    }
    for sort in [Sort::Fuse, Sort::FusePlain] {
        let name = format!("{}::no_thread_is_left", sort.name());
        cases.push(Case::new(name, move || no_thread_is_left(sort)));
        let name = format!("{}::who_reads_sees_what_is_written", sort.name());
        cases.push(Case::new(name, move || reads_and_writes(sort)));
    }
    cases.push(Case::new(
        "overlay::too_many_layers_are_refused_in_words",
        too_many_layers,
    ));
    for (name, steps) in scripts::all() {
        // Each root has done that by itself; three times it takes long.
        if name == "many_files" {
            continue;
        }
        cases.push(Case::new(format!("alike::script::{name}"), move || {
            alike(&steps, Tolerance::None);
        }));
    }
    for seed in 100..=120 {
        cases.push(Case::new(format!("alike::random::{seed}"), move || {
            alike(&operations::random(seed, 4, 40), Tolerance::Refusals);
        }));
    }
    harness::main(cases)
}

/// Runs all tests of a sort of root as a user of no rights, in a user namespace with a range of ids.
fn in_a_user_namespace(sort: &str) {
    let work = tempfile::tempdir().expect("a directory");
    let this = std::env::current_exe().expect("this program");
    let this = user::settle(work.path(), &this);
    let room = work.path().join("roots");
    std::fs::create_dir(&room).expect("a directory");
    std::os::unix::fs::chown(&room, Some(user::UID), Some(user::UID)).expect("an owner");
    let output = user::command("unshare".as_ref(), user::Ids::Range, work.path())
        .args(["--user", "--map-root-user", "--map-auto", "--mount"])
        .arg(this)
        .arg(sort)
        .env(stage::ROOM, &room)
        .env("TMPDIR", &room)
        .output()
        .expect("run unshare");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A test that makes sense on several sorts of root.
type Test = (&'static str, fn(Sort));

/// Every sort of root gives the same layers.
fn alike(steps: &[Vec<Op>], tolerance: Tolerance) {
    let wanted = Stage::new(Sort::Overlay).run(steps, tolerance);
    // A file that was there before has several names in a directory, where all change with one. On
    // overlay the one that changes is from then on a file of its own.
    let written = format!("{steps:?}");
    let links = ["Link(", "links", "ChownAll"];
    let sorts: &[Sort] = match links.iter().any(|word| written.contains(word)) {
        true => &[Sort::Fuse, Sort::FusePlain],
        // In place comes last: there is no second root there.
        false => &[Sort::Fuse, Sort::FusePlain, Sort::Chroot, Sort::InPlace],
    };
    for &sort in sorts {
        let got = Stage::new(sort).run(steps, tolerance);
        for (number, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            assert_eq!(got, wanted, "step {number} on {}", sort.name());
        }
    }
}

fn path(text: &str) -> RelPath {
    RelPath::clean(text.as_bytes()).expect("no NUL")
}

fn write(root: &dyn Rootfs, name: &str, text: &str) {
    Op::Write(name.into(), text.into())
        .run(stage::mounted(root))
        .expect("write");
}

/// Reads a file of a root between steps.
fn read(root: &dyn Rootfs, name: &str) -> Option<String> {
    use std::io::Read;
    let dir = root
        .root()
        .expect("a root")
        .try_clone_to_owned()
        .expect("a descriptor");
    let source = shutter::fs::Source::File {
        dir: dir.into(),
        path: path(name),
    };
    let mut text = String::new();
    source.open().ok()?.read_to_string(&mut text).expect("text");
    Some(text)
}

fn forks_are_apart(sort: Sort) {
    let mut stage = Stage::new(sort);
    let first = &mut *stage.root;
    first.begin().expect("begin");
    write(first, "common", "c");
    first.commit().expect("commit");
    let mut second = first.fork().expect("fork");
    let mut third = second.fork().expect("fork of a fork");
    for (root, name) in [(&mut *first, "1"), (&mut *second, "2"), (&mut *third, "3")] {
        root.begin().expect("begin");
        write(root, "own", name);
    }
    for (root, name) in [(&mut *first, "1"), (&mut *second, "2"), (&mut *third, "3")] {
        let changeset = root.commit().expect("commit");
        let mut paths = changeset.changes.iter().map(|change| &change.path);
        assert!(paths.any(|changed| *changed == path("own")), "{name}");
        assert_eq!(read(root, "own").as_deref(), Some(name));
        assert_eq!(read(root, "common").as_deref(), Some("c"));
    }
}

fn discard(sort: Sort) {
    let mut stage = Stage::new(sort);
    let root = &mut *stage.root;
    root.begin().expect("begin");
    write(root, "gone", "x");
    root.discard().expect("discard");
    assert_eq!(read(root, "gone"), None);
    root.begin().expect("begin");
    write(root, "gone too", "x");
    root.begin()
        .expect("a step that was not committed is discarded");
    write(root, "kept", "x");
    let changeset = root.commit().expect("commit");
    let paths: Vec<&RelPath> = changeset
        .changes
        .iter()
        .map(|change| &change.path)
        .collect();
    assert_eq!(paths, [&path("kept")]);
}

fn three_hundred_layers(sort: Sort) {
    let dir = stage::directory();
    let layers = stage::thin_layers(dir.path(), 300);
    let mut root = sort.root(stage::scratch(dir.path()), layers);
    root.begin().expect("begin");
    write(&*root, "file-7", "new");
    Op::Unlink("file-8".into())
        .run(stage::mounted(&*root))
        .expect("unlink");
    let changeset = root.commit().expect("commit");
    let changes = changeset.changes.iter();
    let changed: Vec<&RelPath> = changes.map(|change| &change.path).collect();
    let wanted = ["file-7", "file-8"].map(path);
    match sort {
        // What was made right before the step may be named as well.
        Sort::Chroot | Sort::InPlace => {
            assert!(wanted.iter().all(|path| changed.contains(&path)));
        }
        _ => assert_eq!(changed, wanted.iter().collect::<Vec<_>>()),
    }
    for (name, content) in [
        ("file-0", Some("0")),
        ("file-7", Some("new")),
        ("file-8", None),
        ("file-299", Some("299")),
    ] {
        assert_eq!(read(&*root, name).as_deref(), content, "{name}");
    }
}

fn too_many_layers() {
    let dir = stage::directory();
    let layers = stage::thin_layers(dir.path(), 501);
    let mut root = Overlay::new(stage::scratch(dir.path()), layers).expect("a root");
    match root.begin() {
        Err(Error::Refused { why, .. }) => assert!(why.contains("501 layers"), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn from_nothing(sort: Sort) {
    let dir = stage::directory();
    let mut root = sort.root(stage::scratch(dir.path()), Vec::new());
    assert_eq!(read(&*root, "a"), None);
    root.begin().expect("begin");
    write(&*root, "a", "1");
    let changeset = root.commit().expect("commit");
    let changeset = changeset.settle(&Default::default()).expect("settle");
    assert_eq!(changeset.changes.len(), 1);
    assert_eq!(read(&*root, "a").as_deref(), Some("1"));
}

/// The threads that answer for a mount end with it, also where a step was left half done and a file
/// in it is still open.
fn no_thread_is_left(sort: Sort) {
    let answering = || {
        std::fs::read_dir("/proc/self/task")
            .expect("threads")
            .filter_map(|entry| std::fs::read(entry.ok()?.path().join("comm")).ok())
            .filter(|name| name.starts_with(b"fuser"))
            .count()
    };
    let mut stage = Stage::new(sort);
    for _ in 0..3 {
        stage.root.begin().expect("begin");
        write(&*stage.root, "new", "x");
        stage.root.commit().expect("commit");
        assert!(read(&*stage.root, "new").is_some());
    }
    stage.root.begin().expect("begin");
    let open = std::fs::File::open(stage::mounted(&*stage.root).join("new")).expect("open");
    let Stage { root, .. } = stage;
    drop(root);
    assert!(answering() > 0, "somebody has a file open");
    drop(open);
    let start = std::time::Instant::now();
    while answering() > 0 {
        assert!(start.elapsed().as_secs() < 20, "{} are left", answering());
        std::thread::yield_now();
    }
}

/// Whether a file is read by way of the kernel's cache, past it, or both by turns: who reads sees what
/// was written, and a time that was set stays until somebody writes.
fn reads_and_writes(sort: Sort) {
    use std::fs::{File, OpenOptions, read};
    use std::io::Write;
    use std::os::unix::fs::{FileExt, MetadataExt};
    let mut stage = Stage::new(sort);
    stage.root.begin().expect("begin");
    let root = stage::mounted(&*stage.root);
    let write = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options
    };
    // Of a layer and new; long and short.
    std::fs::write(root.join("short"), "a").expect("write");
    std::fs::write(root.join("long"), vec![b'a'; 200_000]).expect("write");
    for name in ["file", "short", "long"] {
        let path = root.join(name);
        let set_time = || {
            use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
            let past = Timespec {
                tv_sec: 1_000_000_000,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: past,
                last_modification: past,
            };
            utimensat(CWD, &path, &times, AtFlags::empty()).expect("set times");
        };
        let size = path.metadata().expect("a file").len() as usize;
        let mut wanted = read(&path).expect("read");
        // Read before, and written by itself.
        let file = write().open(&path).expect("open");
        file.write_all_at(b"b", 0).expect("write");
        drop(file);
        wanted[0] = b'b';
        assert_eq!(read(&path).expect("read"), wanted, "{name}");
        // Written while it is read, by call and by mapped page.
        let reader = File::open(&path).expect("open");
        let mut got = vec![0; size];
        reader.read_exact_at(&mut got, 0).expect("read");
        let mut file = write().append(true).open(&path).expect("open");
        file.write_all(b"end").expect("append");
        wanted.extend(b"end");
        got.resize(size + 3, 0);
        reader.read_exact_at(&mut got, 0).expect("read");
        assert_eq!(got, wanted, "{name}");
        let file = write().open(&path).expect("open");
        // SAFETY: nobody shortens the file.
        let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.expect("map");
        map[0] = b'c';
        wanted[0] = b'c';
        reader.read_exact_at(&mut got, 0).expect("read");
        assert_eq!(got, wanted, "{name}");
        map.flush().expect("flush");
        drop((map, file, reader));
        assert_eq!(read(&path).expect("read"), wanted, "{name}");
        // Set with nobody there, opened, and written to at last.
        set_time();
        drop(write().open(&path).expect("open"));
        assert_eq!(path.metadata().expect("a file").mtime(), 1_000_000_000);
        assert_eq!(read(&path).expect("read"), wanted, "{name}");
        let file = write().open(&path).expect("open");
        file.write_all_at(b"d", 0).expect("write");
        drop(file);
        assert!(path.metadata().expect("a file").mtime() > 1_000_000_000);
        set_time();
        File::open(&path).expect("open");
        wanted[0] = b'd';
        assert_eq!(read(&path).expect("read"), wanted, "{name}");
    }
    let changes = stage.root.commit().expect("commit").changes;
    for name in ["file", "short", "long"] {
        let change = changes.iter().find(|change| change.path == path(name));
        let action = &change.expect("changed").action;
        let Action::Put { meta, .. } = action else {
            panic!("{action:?}");
        };
        assert_eq!(meta.mtime.secs, 1_000_000_000, "{name}");
    }
}

fn idle(sort: Sort) {
    let mut stage = Stage::new(sort);
    let root = &mut *stage.root;
    for _ in 0..3 {
        root.begin().expect("begin");
        assert!(root.commit().expect("commit").is_empty());
    }
    let left = std::fs::read_dir(stage.dir.path().join("scratch")).expect("a directory");
    let mut left: Vec<_> = left
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.sort();
    match sort {
        Sort::Overlay => assert_eq!(left, ["merged", "spare"]),
        Sort::Fuse | Sort::FusePlain => assert_eq!(left, ["merged"]),
        Sort::Chroot | Sort::InPlace => unreachable!("nothing is stacked there"),
    }
}
