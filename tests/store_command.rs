//! `shutter store`: what is told of a store, what goes and what stays beside running builds, what
//! `verify` finds; and that nothing is wrong in a store whenever somebody is killed.

#[path = "common/base.rs"]
mod base;
#[path = "common/project.rs"]
mod project;
#[path = "common/registry.rs"]
mod registry;

use project::{Project, succeed};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;
use shutter::oci::Digest;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

fn store(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    command
        .arg("store")
        .arg(args[0])
        .arg("--store")
        .arg(dir)
        .args(&args[1..]);
    command
}

/// Gives exit code, standard output and standard error.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    told(&store(dir, args).output().expect("run shutter"))
}

fn ls(dir: &Path) -> Vec<Value> {
    let output = succeed(&mut store(dir, &["ls", "--json"]));
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let items = value["items"].as_array().expect("items").clone();
    let sum: u64 = items.iter().filter_map(|item| item["bytes"].as_u64()).sum();
    assert_eq!(value["bytes"].as_u64(), Some(sum));
    items
}

/// Counts the things of a kind.
fn number(items: &[Value], kind: &str) -> usize {
    items.iter().filter(|item| item["kind"] == kind).count()
}

fn assert_right(dir: &Path) {
    let (code, out, err) = run(dir, &["verify"]);
    assert_eq!(code, 0, "{out}{err}");
}

/// A project whose build leaves everything in its store that a store can have.
fn project() -> Project {
    let project = Project::new();
    project.file("a", "content");
    project.file(
        "Dockerfile",
        "FROM base\nCOPY a /a\nRUN --mount=type=cache,id=things,target=/c echo x > /c/x; cp /a /b\n",
    );
    project
}

#[test]
fn what_is_there_is_told() {
    let project = project();
    let dir = project.path("store");
    for args in [&["ls"][..], &["gc", "--max-size=0"], &["verify"]] {
        let (code, out, err) = run(&dir, args);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(!dir.exists(), "{args:?} made a store");
    }
    project.build("out", &[]);
    let items = ls(&dir);
    for (kind, most) in [("blob", 5), ("layer", 1), ("toc", 3), ("cache", 1)] {
        assert_eq!(number(&items, kind), most, "{kind}: {items:#?}");
    }
    let cache = items.iter().find(|item| item["kind"] == "cache");
    assert_eq!(cache.expect("a cache")["id"], "things");
    for item in &items {
        assert!(item["bytes"].as_u64() > Some(0), "{item}");
        assert!(
            item["used"].as_str().is_some_and(|time| time > "2024"),
            "{item}"
        );
    }
    let (code, out, _) = run(&dir, &["ls"]);
    assert_eq!(code, 0);
    assert_eq!(out.lines().count(), items.len() + 1, "{out}");
    assert!(
        out.lines().last().expect("a line").contains("1 layer with"),
        "{out}"
    );
    assert_right(&dir);
}

#[test]
fn wrong_words_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let table: &[(&[&str], &str)] = &[
        (&["gc", "--max-size=much"], "--max-size: `much` is no size"),
        (&["gc", "--max-age=1y"], "--max-age: `1y` is no time"),
        (&["gc", "--repair"], "unknown flag --repair"),
        (&["ls", "more"], "store ls takes flags alone, not `more`"),
        (&["gc", "--target=x"], "which means nothing for a store"),
        (&["tidy"], "unknown command `store tidy`"),
    ];
    for (args, wanted) in table {
        let (code, _, err) = run(dir.path(), args);
        assert_eq!(code, 1, "{args:?}");
        assert!(err.contains(wanted), "{args:?}: {err}");
    }
}

/// Gives the digest of a layout's image.
fn manifest(layout: &Path) -> Digest {
    let index = fs::read(layout.join("index.json")).expect("read");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str();
    digest.expect("a digest").parse().expect("a digest")
}

/// Makes everything in a store look as if it was wanted so long ago.
fn age(dir: &Path, by: Duration) {
    let then = SystemTime::now() - by;
    for room in ["blobs/sha256", "tocs", "locks", "steps"] {
        for entry in fs::read_dir(dir.join(room)).into_iter().flatten().flatten() {
            set(&entry.path(), then);
        }
    }
    for cache in fs::read_dir(dir.join("caches"))
        .into_iter()
        .flatten()
        .flatten()
    {
        set(&cache.path().join("0/lock"), then);
    }
}

fn set(path: &Path, time: SystemTime) {
    let file = fs::File::open(path).expect("open");
    file.set_modified(time).expect("set the time");
}

#[test]
fn what_is_over_the_limits_goes_and_builds_make_it_again() {
    let project = project();
    let dir = project.path("store");
    let args = ["--reproducible", "--cache"];
    let first = project.build("first", &args);
    let before = ls(&dir);
    // A dry run tells and takes nothing.
    let (code, out, _) = run(&dir, &["gc", "--max-size=0", "--dry-run"]);
    assert_eq!(code, 0);
    let wanted = format!("would take {} things", before.len());
    assert!(out.contains(&wanted), "{out}");
    assert_eq!(ls(&dir), before);
    // Nothing is too much.
    for limits in [&["gc"][..], &["gc", "--max-size=1g", "--max-age=1h"]] {
        let (code, out, _) = run(&dir, limits);
        assert_eq!(code, 0);
        assert!(out.starts_with("took 0 things"), "{out}");
        assert_eq!(ls(&dir), before);
    }
    // By age: one toc is old.
    let toc = before
        .iter()
        .find(|item| item["kind"] == "toc")
        .expect("a toc");
    let path = dir.join("tocs").join(toc["name"].as_str().expect("a name"));
    set(&path, SystemTime::now() - Duration::from_secs(7200));
    let (code, out, _) = run(&dir, &["gc", "--max-age=1h"]);
    assert_eq!(code, 0);
    assert!(out.contains("took 1 thing "), "{out}");
    assert!(!path.exists());
    // By size: the longest unused first, until it is enough.
    let left = ls(&dir);
    let bytes =
        |items: &[Value]| -> u64 { items.iter().filter_map(|item| item["bytes"].as_u64()).sum() };
    let most = bytes(&left) - 1;
    let (code, ..) = run(&dir, &["gc", &format!("--max-size={most}")]);
    assert_eq!(code, 0);
    assert_eq!(ls(&dir), left[1..]);
    assert_right(&dir);
    let (code, out, err) = run(&dir, &["gc", "--max-size=0"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(ls(&dir), Vec::<Value>::new());
    for room in ["refs", "caches", "layers", "tmp", "run"] {
        assert_eq!(
            fs::read_dir(dir.join(room)).expect("list").count(),
            0,
            "{room}"
        );
    }
    assert_eq!(fs::read_dir(dir.join("locks")).expect("list").count(), 1);
    assert_right(&dir);
    let again = project.build("again", &args);
    let index = |layout: &Path| fs::read(layout.join("index.json")).expect("read");
    assert_eq!(index(&first), index(&again));
}

/// A build that runs until it is let go of. Its command waits for a file in a cache.
struct Held {
    child: Child,
    store: PathBuf,
}

impl Held {
    /// Starts it behind other words, and waits until its command runs.
    fn start(project: &Project, behind: &[&str]) -> Held {
        project.file(
            "Dockerfile",
            "FROM base\nCOPY a /a\nRUN --mount=type=cache,id=things,target=/c echo x > /c/x\n\
             RUN --mount=type=cache,id=hold,target=/h cp /a /b; echo is up; \
             while [ ! -e /h/go ]; do sleep 0.01; done; rm /h/go\nCOPY a /d\n",
        );
        let command = project.command();
        let program = command.get_program().to_owned();
        let mut outer = match behind {
            [] => Command::new(&program),
            [first, rest @ ..] => {
                let mut outer = Command::new(first);
                outer.args(rest).arg(&program);
                outer
            }
        };
        let mut child = outer
            .args(command.get_args())
            .args(["--no-push", "--oci-layout-path"])
            .arg(project.path("held-out"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run shutter");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while !line.trim_end().ends_with("is up") {
            line.clear();
            if out.read_line(&mut line).expect("read") == 0 {
                panic!("{}", told(&child.wait_with_output().expect("wait")).2);
            }
        }
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Held {
            child,
            store: project.path("store"),
        }
    }

    fn finish(self) {
        let caches = fs::read_dir(self.store.join("caches")).expect("list");
        let hold = caches
            .map(|entry| entry.expect("an entry").path())
            .find(|cache| fs::read(cache.join("id")).is_ok_and(|id| id == b"hold"));
        fs::write(hold.expect("the cache").join("0/files/go"), "").expect("let it go");
        let output = self.child.wait_with_output().expect("wait");
        let (code, out, err) = told(&output);
        assert_eq!(code, 0, "{out}{err}");
    }
}

#[test]
fn nothing_goes_that_a_running_build_needs() {
    for behind in [
        &[][..],
        // As another container on the same volume.
        &[
            "unshare",
            "--pid",
            "--fork",
            "--mount",
            "--mount-proc",
            "--uts",
            "--ipc",
        ],
    ] {
        let project = project();
        let dir = project.path("store");
        let warm = manifest(&project.build("warm", &[]));
        assert!(dir.join("blobs/sha256").join(warm.hex()).exists());
        // All that it looks up was wanted a day ago.
        age(&dir, Duration::from_secs(86_400));
        let held = Held::start(&project, behind);
        let (code, out, err) = run(&dir, &["gc", "--max-size=0", "--max-age=0s"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(
            out.contains("stay, since running builds may use them"),
            "{out}"
        );
        let left = ls(&dir);
        assert!(number(&left, "layer") > 0, "{left:#?}");
        // What it did not look up went, and the cache that nobody has locked any more.
        assert!(
            !dir.join("blobs/sha256").join(warm.hex()).exists(),
            "{left:#?}"
        );
        let caches = left.iter().filter(|item| item["kind"] == "cache");
        let caches: Vec<&Value> = caches.map(|item| &item["id"]).collect();
        assert_eq!(caches, ["hold"], "{left:#?}");
        held.finish();
        assert_right(&dir);
        // Then all of it goes.
        let (code, out, _) = run(&dir, &["gc", "--max-size=0"]);
        assert_eq!(code, 0, "{out}");
        assert_eq!(ls(&dir), Vec::<Value>::new());
    }
}

/// A damage: what is done to a store, where it is found, and what is said of it.
type Damage = (&'static str, fn(&Path), &'static str, &'static str);

fn first(dir: &Path, room: &str) -> PathBuf {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir.join(room))
        .expect("list")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.into_iter().next().expect("something in the room")
}

const DAMAGES: &[Damage] = &[
    (
        "a blob with other bytes",
        |dir| fs::write(first(dir, "blobs/sha256"), "other").expect("write"),
        "blobs/sha256/",
        "its content has digest sha256:",
    ),
    (
        "a blob by another name",
        |dir| fs::write(dir.join("blobs/sha256/x\x1b[31m\ny"), "").expect("write"),
        "blobs/sha256/x",
        "its name is not 64 hexadecimal digits",
    ),
    (
        "a link for a blob",
        |dir| {
            let name = format!("blobs/sha256/{}", "a".repeat(64));
            symlink("/etc/passwd", dir.join(name)).expect("link");
        },
        "blobs/sha256/aaaa",
        "it is no file",
    ),
    (
        "a short toc",
        |dir| {
            let path = first(dir, "tocs");
            let bytes = fs::read(&path).expect("read");
            fs::write(&path, &bytes[..bytes.len() / 2]).expect("write");
        },
        "tocs/",
        "",
    ),
    (
        "an empty toc",
        |dir| fs::write(first(dir, "tocs"), "").expect("write"),
        "tocs/",
        "",
    ),
    (
        "a note without its blob",
        |dir| {
            let note = first(&first(dir, "refs"), "");
            let blob = note.file_name().expect("a name");
            fs::remove_file(dir.join("blobs/sha256").join(blob)).expect("remove");
        },
        "refs/",
        "is not there",
    ),
    (
        "a note of no meaning",
        |dir| fs::write(first(&first(dir, "refs"), ""), "{").expect("write"),
        "refs/",
        "it cannot be read",
    ),
    (
        "a file for a layer",
        |dir| fs::write(dir.join("layers").join("b".repeat(64)), "").expect("write"),
        "layers/bbbb",
        "it is no directory",
    ),
    (
        "a layer by another name",
        |dir| fs::create_dir_all(dir.join("layers/..x/y")).expect("create"),
        "layers/..x",
        "its name is not 64 hexadecimal digits",
    ),
    (
        "something beside a cache's files",
        |dir| fs::write(first(dir, "caches").join("0/more"), "").expect("write"),
        "caches/",
        "no cache has anything of this name and kind",
    ),
    (
        "a step of no meaning",
        |dir| {
            fs::create_dir_all(dir.join("steps")).expect("create");
            fs::write(dir.join("steps").join("c".repeat(64)), "{").expect("write");
        },
        "steps/cccc",
        "it cannot be read",
    ),
    (
        "another kind of digest",
        |dir| fs::create_dir(dir.join("blobs/md5")).expect("create"),
        "blobs/md5",
        "nothing in a store has this name",
    ),
];

#[test]
fn damage_is_found_and_dropped() {
    let project = project();
    let dir = project.path("store");
    let args = ["--reproducible"];
    let wanted = fs::read(project.build("first", &args).join("index.json")).expect("read");
    for (name, damage, place, why) in DAMAGES {
        damage(&dir);
        let (code, out, err) = run(&dir, &["verify"]);
        assert_eq!((code, err.as_str()), (1, ""), "{name}: {out}");
        let line = out.lines().find(|line| line.starts_with(place));
        let line = line.unwrap_or_else(|| panic!("{name}: {out}"));
        assert!(line.contains(why), "{name}: {line}");
        assert!(!out.contains('\x1b'), "{name}: {out}");
        let (code, out, err) = run(&dir, &["verify", "--repair"]);
        assert_eq!((code, err.as_str()), (0, ""), "{name}: {out}");
        assert_right(&dir);
        let (output, path) = project.try_build(&format!("after {name}"), &args);
        assert!(output.status.success(), "{name}: {}", told(&output).2);
        assert_eq!(
            fs::read(path.join("index.json")).expect("read"),
            wanted,
            "{name}"
        );
    }
    // What is not the store's is not dropped.
    fs::write(dir.join("photo.jpg"), "x").expect("write");
    let (code, out, err) = run(&dir, &["verify", "--repair"]);
    assert_eq!(code, 1, "{out}");
    assert!(err.contains("photo.jpg is not the store's"), "{err}");
    assert!(dir.join("photo.jpg").exists());
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("photo.jpg"), "x").expect("write");
    for args in [
        &["ls"][..],
        &["gc", "--max-size=0"],
        &["verify"],
        &["verify", "--repair"],
    ] {
        let (code, _, err) = run(dir.path(), args);
        assert_eq!(code, 1, "{args:?}");
        assert!(err.contains("is no store: it has no version file"), "{err}");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
    let (code, _, err) = run(&dir.path().join("photo.jpg"), &["ls"]);
    assert_eq!(code, 1);
    assert!(err.contains("it is not a directory"), "{err}");
}

#[test]
fn who_may_not_read_a_store_is_told_so() {
    let project = project();
    project.build("out", &[]);
    let dir = project.path("store");
    for args in [&["ls"][..], &["gc", "--max-size=0"], &["verify"]] {
        let inner = store(&dir, args);
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--no-new-privs",
            ])
            .arg(inner.get_program())
            .args(inner.get_args());
        let (code, out, err) = told(&command.output().expect("run shutter"));
        // The way to the program may be closed already.
        assert!(
            code == 1 || code == 127 || code == 126,
            "{args:?}: {out}{err}"
        );
        assert!(
            err.to_lowercase().contains("permission denied"),
            "{args:?}: {err}"
        );
    }
    assert_right(&dir);
}

/// A mount that goes with the value.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        unmount(self.0, UnmountFlags::DETACH).expect("unmount");
    }
}

#[test]
fn a_full_store_is_made_room_in() {
    let dir = tempfile::tempdir().expect("a directory");
    mount(
        "tmpfs",
        dir.path(),
        "tmpfs",
        MountFlags::empty(),
        c"size=1m",
    )
    .expect("this test wants the right to mount a tmpfs");
    let _mounted = Mounted(dir.path());
    let path = dir.path().join("store");
    let opened = shutter::store::Store::open(&path).expect("open");
    let mut number = 0_u32;
    while opened.put(&number.to_le_bytes().repeat(4096)).is_ok() {
        number += 1;
    }
    assert!(number > 10);
    // It is open, so nothing goes that it made.
    let (code, out, err) = run(&path, &["gc", "--max-size=100k"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(ls(&path).len(), number as usize);
    drop(opened);
    let (code, out, err) = run(&path, &["gc", "--max-size=100k"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let left = ls(&path);
    assert!(!left.is_empty() && left.len() < 10, "{left:#?}");
    assert_right(&path);
}

#[test]
fn a_store_that_can_only_be_read_is_told_of() {
    let project = project();
    project.build("out", &[]);
    let dir = project.path("store");
    let seen = project.path("seen");
    fs::create_dir(&seen).expect("create");
    succeed(
        Command::new("mount")
            .args(["--bind", "-o", "ro"])
            .arg(&dir)
            .arg(&seen),
    );
    let _mounted = Mounted(&seen);
    assert_eq!(ls(&seen), ls(&dir));
    assert_right(&seen);
    let (code, _, err) = run(&seen, &["gc", "--max-size=0"]);
    assert_eq!(code, 1);
    assert!(err.to_lowercase().contains("read-only"), "{err}");
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn until(moment: Instant) {
    while Instant::now() < moment {
        std::thread::yield_now();
    }
}

/// Two builds and a collection, one of which is killed at some moment; then another is.
#[test]
fn whenever_somebody_is_killed_nothing_is_wrong() {
    let project = project();
    let dir = project.path("store");
    project.file("big", vec![7; 1 << 20]);
    project.file(
        "Dockerfile",
        "FROM base\nARG N\nCOPY a big /\nRUN --mount=type=cache,id=things,target=/c \
         echo $N > /c/$N; cat /big /big > /b$N\nRUN rm -r /big /tree; echo $N > /n\n",
    );
    let begun = Instant::now();
    project.build("first", &["--cache", "--build-arg=N=0"]);
    let whole = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..14_u64 {
        age(&dir, Duration::from_secs(3600));
        let build = |n: u64| {
            let arg = format!("--build-arg=N={n}");
            match n % 2 {
                0 => project.spawn(&["--no-push", "--cache", &arg]),
                _ => project.spawn(&["--no-push", &arg]),
            }
        };
        let mut running: Vec<Child> = (0..2).map(|n| build(numbers.next(3) + n)).collect();
        for _ in 0..2 {
            until(Instant::now() + Duration::from_micros(numbers.next(whole / 2)));
            let mut gc = store(&dir, &["gc", "--max-size=0"]);
            running.push(
                gc.stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("run"),
            );
        }
        // One or two of the four.
        let victims = [numbers.next(4), numbers.next(4)];
        until(Instant::now() + Duration::from_micros(numbers.next(whole)));
        for victim in victims {
            let child = &mut running[usize::try_from(victim).expect("small")];
            child.kill().expect("kill");
        }
        for (n, child) in running.into_iter().enumerate() {
            let killed = victims.contains(&u64::try_from(n).expect("small"));
            let output = child.wait_with_output().expect("wait");
            let (code, out, err) = told(&output);
            assert!(
                code == 0 || killed,
                "round {round}, process {n}: {out}{err}"
            );
        }
        assert_right(&dir);
    }
    let out = project.build("last", &["--cache", "--build-arg=N=9"]);
    let digest = manifest(&out);
    assert!(out.join("blobs/sha256").join(digest.hex()).exists());
    assert_right(&dir);
    for room in ["tmp", "run"] {
        assert_eq!(
            fs::read_dir(dir.join(room)).expect("list").count(),
            0,
            "{room}"
        );
    }
}

/// All at once on one store and one registry, with collections beside.
#[test]
fn fifty_builds_share_a_store_and_a_registry() {
    let project = project();
    let registry = registry::start();
    let host = registry.host.clone();
    let base = format!("{host}/base:1");
    project.file("Dockerfile", "FROM base\n");
    succeed(
        project
            .command()
            .args(["--insecure", "--destination", &base]),
    );
    project.file(
        "Dockerfile",
        format!("FROM {base}\nARG N\nCOPY a /a\nRUN echo $N > /n && cp /a /b\n"),
    );
    let dir = project.path("many");
    let builds: Vec<Child> = (0..50)
        .map(|n| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
            command
                .args([
                    "build",
                    "--cache",
                    "--no-push-cache",
                    "--insecure",
                    "--insecure-pull",
                    "--log-format",
                    "text",
                ])
                .arg("--context")
                .arg(project.path("context"))
                .arg("--store")
                .arg(&dir)
                .args([&format!("--build-arg=N={n}"), "--destination"])
                .arg(format!("{host}/many:{n}"));
            let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().expect("run shutter")
        })
        .collect();
    for _ in 0..5 {
        let (code, out, err) = run(&dir, &["gc", "--max-size=0"]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
    }
    for (n, child) in builds.into_iter().enumerate() {
        let output = child.wait_with_output().expect("wait");
        let (code, out, err) = told(&output);
        assert_eq!(code, 0, "build {n}: {out}{err}");
        assert!(registry.has_tag("many", &n.to_string()));
    }
    assert_right(&dir);
}
