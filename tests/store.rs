//! The store against what happens to processes and disks: kill -9, neighbours, no space.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use shutter::oci::Digest;
use shutter::store::{Error, LayerSlot, Store};
use shutter::sys::Cancel;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Names what a child process is to do; `child` is the only reader.
const ROLE: &str = "STORE_TEST_ROLE";
const DIR: &str = "STORE_TEST_DIR";

/// Runs this test program again in a role, and waits for the line that says it is under way.
fn start(role: &str, dir: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("under way") {
        line.clear();
        assert_ne!(
            out.read_line(&mut line).unwrap(),
            0,
            "the child ended early"
        );
    }
    (child, out)
}

fn say(word: &str) {
    println!("{word}");
    std::io::stdout().flush().unwrap();
}

/// Blocks until the parent lets go.
fn wait() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// Plays a role where the environment names one; as a test of its own it has nothing to do.
#[test]
fn child() {
    let (Ok(role), Ok(dir)) = (std::env::var(ROLE), std::env::var(DIR)) else {
        return;
    };
    let store = Store::open(Path::new(&dir)).unwrap();
    match role.as_str() {
        "dies holding everything" => {
            let mut ingest = store.ingest().unwrap();
            ingest.write_all(b"half").unwrap();
            let LayerSlot::Vacant(slot) = store
                .layer(&Digest::of(b"chain"), &Cancel::new().unwrap())
                .unwrap()
            else {
                panic!("the layer is there");
            };
            fs::write(slot.dir.join("half"), b"x").unwrap();
            let scratch = store.scratch().unwrap();
            fs::create_dir_all(scratch.dir.join("upper/a/b")).unwrap();
            say("under way");
            wait();
        }
        "ingests" => {
            say("under way");
            wait();
            for n in 0..200_u32 {
                let mut ingest = store.ingest().unwrap();
                ingest.write_all(&n.to_le_bytes().repeat(100)).unwrap();
                ingest.commit(None).unwrap();
            }
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn what_a_killed_process_left_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (mut child, _out) = start("dies holding everything", &path);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(fs::read_dir(path.join("run")).unwrap().count(), 0);

    let store = Store::open(&path).unwrap();
    let LayerSlot::Vacant(slot) = store
        .layer(&Digest::of(b"chain"), &Cancel::new().unwrap())
        .unwrap()
    else {
        panic!("half a layer is in place");
    };
    assert_eq!(fs::read_dir(&slot.dir).unwrap().count(), 0);
    slot.commit().unwrap();
    drop(store);
    for room in ["tmp", "run", "blobs/sha256"] {
        assert_eq!(fs::read_dir(path.join(room)).unwrap().count(), 0, "{room}");
    }
}

#[test]
fn two_processes_ingest_the_same_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut children: Vec<_> = (0..2).map(|_| start("ingests", &path)).collect();
    for (child, _) in &mut children {
        drop(child.stdin.take());
    }
    for (mut child, mut out) in children {
        std::io::copy(&mut out, &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    let store = Store::open(&path).unwrap();
    for n in 0..200_u32 {
        let bytes = n.to_le_bytes().repeat(100);
        let blob = store.blob(&Digest::of(&bytes), bytes.len() as u64).unwrap();
        assert_eq!(fs::read(blob.unwrap()).unwrap(), bytes);
    }
    assert_eq!(
        fs::read_dir(path.join("blobs/sha256")).unwrap().count(),
        200
    );
}

/// A tmpfs that goes with the value.
struct Tmpfs<'a>(&'a Path);

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        unmount(self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn removal_does_not_enter_a_mount() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let scratch = store.scratch().unwrap();
    let (run, point) = (scratch.dir.clone(), scratch.dir.join("merged"));
    fs::create_dir_all(scratch.dir.join("a/b")).unwrap();
    fs::create_dir(&point).unwrap();
    fs::write(scratch.dir.join("a/file"), b"x").unwrap();
    mount("tmpfs", &point, "tmpfs", MountFlags::empty(), None)
        .expect("this test wants the right to mount a tmpfs");
    let tmpfs = Tmpfs(&point);
    fs::write(point.join("keep"), b"x").unwrap();
    scratch.remove().unwrap_err();
    assert!(!run.join("a").exists());
    assert!(point.join("keep").exists());
    drop(tmpfs);
    drop(Store::open(store.dir()).unwrap());
    assert!(!run.exists());
}

#[test]
fn what_an_overlay_shows_of_lower_layers_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["lower/a/b/c/d", "lower/a/e", "upper", "work", "merged"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("lower/a/b/c/file"), b"x").unwrap();
    let layers = ["lower", "upper", "work"].map(|name| at(name).display().to_string());
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layers[0], layers[1], layers[2]
    );
    let options = std::ffi::CString::new(options).unwrap();
    mount(
        "overlay",
        at("merged"),
        "overlay",
        MountFlags::empty(),
        &*options,
    )
    .expect("this test wants the right to mount an overlay");
    let merged = at("merged");
    let _mounted = Tmpfs(&merged);
    // Deeper than what may be open at once, in the upper layer.
    let deep = merged.join("a/b").join(vec!["d"; 1500].join("/"));
    fs::create_dir_all(deep).unwrap();
    shutter::store::remove_tree(&at("merged/a")).unwrap();
    assert_eq!(fs::read_dir(at("merged")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    mount(
        "tmpfs",
        dir.path(),
        "tmpfs",
        MountFlags::empty(),
        c"size=1m",
    )
    .expect("this test wants the right to mount a tmpfs");
    let _tmpfs = Tmpfs(dir.path());
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    let error = store.put(&vec![1; 2 << 20]).unwrap_err();
    assert!(matches!(error, Error::Full { .. }));
    let wanted = format!(
        "no space left for the store {}: free some there or put the store elsewhere",
        path.canonicalize().unwrap().display()
    );
    assert_eq!(error.to_string(), wanted);

    let mut ingest = store.ingest().unwrap();
    let error = ingest.write_all(&vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(Error::from_io(error).unwrap().to_string(), wanted);
    drop(ingest);
    store.put(&vec![1; 256 << 10]).unwrap();
    assert_eq!(fs::read_dir(path.join("blobs/sha256")).unwrap().count(), 1);
}
