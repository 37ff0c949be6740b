//! What is written of a tree.

use crate::git::{Daemon, Repository, Speaks, serve};
use crate::{Net, git, sample};
use rustix::mount::{MountFlags, UnmountFlags};
use shutter::fs::RelPath;
use shutter::git::{Checkout, Error, Repository as Kept, check_out, keep};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Everything below a directory: mode, target or content, and time where that is wanted.
fn listing(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if name == ".git" {
                continue;
            }
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_symlink() {
                std::fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if meta.is_dir() {
                todo.push(path.clone());
                Vec::new()
            } else {
                std::fs::read(&path).unwrap()
            };
            out.insert(name, (meta.permissions().mode(), content));
        }
    }
    out
}

#[test]
fn files_are_as_git_checks_them_out() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    repository
        .file(
            ".gitattributes",
            "*.bat text eol=crlf\n*.auto text=auto eol=crlf\n*.id ident\n*.u16 text working-tree-encoding=UTF-16LE\n*.lfs filter=lfs -text\n",
        )
        .file("w/a.bat", "one\ntwo\n")
        .file("w/.gitattributes", "plain.bat -text\n")
        .file("w/plain.bat", "one\n")
        .file("text.auto", "one\ntwo\n")
        .file("binary.auto", "one\0\ntwo\n")
        .file("x.id", "$Id$ and $Id: old $\n")
        .file("x.lfs", "version https://git-lfs.github.com/spec/v1\n")
        .file("empty", "");
    let utf16: Vec<u8> = "h\u{e4}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    repository.file("x.u16", &utf16);
    repository.commit("first");
    repository.git(&["gc", "-q"]);
    let clone = dir.path().join("clone");
    git::run(
        dir.path(),
        &[
            "clone",
            "-q",
            repository.dir.to_str().unwrap(),
            clone.to_str().unwrap(),
        ],
    );
    let daemon = Daemon::start(dir.path());
    let net = Net::new();
    let fetched = net
        .fetch(&format!("{}/r.git", daemon.url), None, dir.path())
        .unwrap();
    let out = dir.path().join("out");
    let checked = net.check_out(&fetched, &out).unwrap();
    assert_eq!(checked.notes, Vec::<String>::new());
    let (mine, theirs) = (listing(&out), listing(&clone));
    assert_eq!(
        mine.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    for (name, (mode, content)) in &mine {
        assert_eq!(*mode, theirs[name].0, "{name}");
        assert!(*content == theirs[name].1, "{name}");
        let time = out.join(name).symlink_metadata().unwrap().mtime();
        assert_eq!(time, 1_700_000_000, "{name}");
    }
    assert_eq!(mine["x.u16"].1, utf16);
    assert_eq!(mine["w/a.bat"].1, b"one\r\ntwo\r\n");
}

#[test]
fn one_directory_alone_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    repository.commit("first");
    let daemon = Daemon::start(dir.path());
    let net = Net::new();
    let fetched = net
        .fetch(&format!("{}/r.git", daemon.url), None, dir.path())
        .unwrap();
    let path = |text: &str| RelPath::clean(text.as_bytes()).unwrap();
    for (name, there) in [
        ("bin", true),
        ("deep/er", true),
        ("", true),
        ("README", false),
        ("out", false),
        ("no", false),
        ("bin/link", false),
    ] {
        assert_eq!(
            fetched
                .pack
                .has_directory(&fetched.oid, &path(name))
                .unwrap(),
            there,
            "{name}"
        );
    }
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    check_out(&Checkout {
        pack: &fetched.pack,
        commit: fetched.oid,
        dir: File::open(&out).unwrap().as_fd(),
        only: Some(&path("deep/er")),
        time: None,
        cancel: &net.cancel,
    })
    .unwrap();
    let names: Vec<String> = listing(&out).into_keys().collect();
    assert_eq!(names, ["deep", "deep/er", "deep/er/and", "deep/er/and/er"]);
}

#[test]
fn a_git_directory_is_a_repository() {
    for format in ["sha1", "sha256"] {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("r.git");
        std::fs::create_dir(&place).unwrap();
        git::run(
            &place,
            &["init", "-q", &format!("--object-format={format}")],
        );
        let repository = sample(dir.path());
        repository.file(".gitattributes", "README text eol=crlf\n");
        repository.commit("first");
        repository.file("README", "two\n");
        let second = repository.commit("second");
        repository.git(&["tag", "-a", "-m", "a tag", "v1"]);
        let tag = repository.git(&["rev-parse", "v1"]);
        let server = serve(dir.path(), Speaks::Two);
        let url = format!("http://{}/r.git", server.host);
        let net = Net::new();
        let mut packs = Vec::new();
        for (round, reference) in ["main", "v1", second.as_str()].into_iter().enumerate() {
            let fetched = net.fetch(&url, Some(reference), dir.path()).unwrap();
            let out = dir.path().join(format!("out-{format}-{round}"));
            let checked = net.check_out(&fetched, &out).unwrap();
            let at = RelPath::clean(b".git").unwrap();
            let kept = Kept {
                pack: &fetched.pack,
                checked: &checked,
                reference: fetched.reference.as_deref().map(|name| (name, fetched.oid)),
                url: "https://h/\"r\".git",
                submodules: &[],
                worktree: None,
                cancel: &net.cancel,
            };
            keep(File::open(&out).unwrap().as_fd(), &at, &kept).unwrap();
            let ask = |arguments: &[&str]| git::run(&out, arguments);
            ask(&["fsck", "--strict", "--full"]);
            assert_eq!(ask(&["status", "--porcelain"]), "");
            assert_eq!(ask(&["rev-parse", "HEAD"]), second);
            assert_eq!(ask(&["log", "--format=%s"]), "second");
            assert_eq!(ask(&["config", "remote.origin.url"]), "https://h/\"r\".git");
            assert_eq!(ask(&["rev-parse", "--is-shallow-repository"]), "true");
            match reference {
                "main" => assert_eq!(
                    ask(&["for-each-ref", "--format=%(refname)"]),
                    "refs/heads/main"
                ),
                "v1" => {
                    assert_eq!(ask(&["rev-parse", "v1"]), tag);
                    assert_eq!(ask(&["describe"]), "v1");
                }
                _ => assert_eq!(ask(&["for-each-ref"]), ""),
            }
            assert_eq!(ask(&["show", "HEAD:README"]), "two");
            packs.push(listing(&out.join(".git/objects/pack")));
        }
        // The same commit gives the same pack.
        assert!(packs[0] == packs[2]);
    }
}

#[test]
fn traps_in_a_tree_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    repository.commit("first");
    let blob = repository.object("blob", b"#!/bin/sh\n");
    let link = repository.object("blob", b"/etc");
    let empty = repository.object("blob", b"");
    let inner = repository.git(&["rev-parse", "HEAD:bin"]);
    let mut branches = Vec::new();
    for (name, entries) in [
        ("dotgit", vec![("100644", &b".git"[..], blob.as_str())]),
        ("dotgitdir", vec![("40000", b".git", &inner)]),
        ("upper", vec![("40000", b".GiT", &inner)]),
        ("short", vec![("40000", b"git~1", &inner)]),
        ("dots", vec![("100644", b"..", &blob)]),
        ("slash", vec![("100644", b"../../escaped", &blob)]),
        (
            "twice",
            vec![("120000", b"a", &link), ("40000", b"a", &inner)],
        ),
        (
            "twice2",
            vec![("40000", b"a", &inner), ("120000", b"a", &link)],
        ),
        ("nolink", vec![("120000", b"a", &empty)]),
        (
            "missing",
            vec![("100644", b"a", "0123456789abcdef0123456789abcdef01234567")],
        ),
        ("kind", vec![("40000", b"a", &blob)]),
        ("mode", vec![("10644", b"a", &blob)]),
        ("long", vec![("100644", &[b'x'; 300], &blob)]),
    ] {
        repository.odd_commit(name, &entries);
        branches.push(name);
    }
    // Nothing on the server looks at what it sends.
    let daemon = Daemon::start(dir.path());
    let net = Net::new();
    for branch in branches {
        let out = dir.path().join(format!("out-{branch}"));
        let got = net
            .fetch(&format!("{}/r.git", daemon.url), Some(branch), dir.path())
            .and_then(|fetched| net.check_out(&fetched, &out).map(drop));
        let error = got.expect_err(branch).to_string();
        assert!(!error.is_empty(), "{branch}");
        assert!(!dir.path().join("escaped").exists() && !Path::new("/etc/run").exists());
    }
}

#[test]
fn trees_that_say_more_than_any_disk_holds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::new(dir.path().join("r.git"));
    repository.file("a", "a");
    repository.commit("first");
    let mut tree = repository.object("blob", b"boom\n");
    let mut mode = "100644";
    // Twelve floors of thirty rooms each.
    for _ in 0..12 {
        let mut bytes = Vec::new();
        for room in 10..40 {
            bytes.extend_from_slice(format!("{mode} {room}\0").as_bytes());
            for pair in tree.as_bytes().chunks(2) {
                bytes.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
            }
        }
        tree = repository.object("tree", &bytes);
        mode = "40000";
    }
    let commit = format!("tree {tree}\nauthor T <t> 1 +0000\ncommitter T <t> 1 +0000\n\nx\n");
    let commit = repository.object("commit", commit.as_bytes());
    repository.git(&["update-ref", "refs/heads/bomb", &commit]);
    let daemon = Daemon::start(dir.path());
    let net = Net::new();
    let fetched = net
        .fetch(&format!("{}/r.git", daemon.url), Some("bomb"), dir.path())
        .unwrap();
    // Ended from outside, it ends at once and says so.
    let cancel = net.cancel.clone();
    let out = dir.path().join("out");
    let ended = std::thread::scope(|scope| {
        scope.spawn(move || {
            while std::fs::read_dir(&out).map_or(0, Iterator::count) < 1 {
                std::thread::yield_now();
            }
            cancel.cancel();
        });
        net.check_out(&fetched, &dir.path().join("out"))
    });
    assert!(matches!(ended, Err(Error::Cancelled)));
}

#[test]
fn a_disk_that_is_full_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    let noise: Vec<u8> = (0..100_000u32)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes())
        .collect();
    repository.file("noise", noise);
    repository.commit("first");
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    rustix::mount::mount("tmpfs", &small, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    let daemon = Daemon::start(dir.path());
    let got = Net::new().fetch(&format!("{}/r.git", daemon.url), None, &small);
    let left = std::fs::read_dir(&small).unwrap().count();
    rustix::mount::unmount(&small, UnmountFlags::empty()).unwrap();
    match got.err().expect("an error") {
        Error::Io { path, source, .. } => {
            assert!(path.starts_with(&small), "{}", path.display());
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        }
        other => panic!("{other}"),
    }
    assert_eq!(left, 0);
}
