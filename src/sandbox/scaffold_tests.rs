use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

/// A root with `links` (path, target), `directories` and `files`, beside a file that must not change.
fn root(directories: &[&str], files: &[&str], links: &[(&str, &str)]) -> tempfile::TempDir {
    let outer = tempfile::tempdir().expect("a directory");
    let root = outer.path().join("root");
    fs::create_dir(&root).expect("a root");
    for path in directories {
        fs::create_dir_all(root.join(path)).expect("a directory");
    }
    for path in files {
        fs::write(root.join(path), b"").expect("a file");
    }
    for (path, target) in links {
        symlink(target, root.join(path)).expect("a link");
    }
    outer
}

fn listing(directory: &Path) -> Vec<(String, i64, i64)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).expect("metadata");
        found.push((path.display().to_string(), meta.mtime(), meta.mtime_nsec()));
        if meta.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .expect("a directory")
                    .map(|entry| entry.expect("an entry").path()),
            );
        }
    }
    found.sort();
    found
}

#[test]
fn files_are_found_or_made_inside_the_root_and_taken_away() {
    type Case<'a> = (
        &'a [&'a str],
        &'a [&'a str],
        &'a [(&'a str, &'a str)],
        &'a str,
        &'a str,
    );
    let cases: &[Case<'_>] = &[
        (&[], &[], &[], "/etc/hosts", "/etc/hosts"),
        (&["etc"], &[], &[], "/etc/hosts", "/etc/hosts"),
        (&["etc"], &["etc/hosts"], &[], "/etc/hosts", "/etc/hosts"),
        (&[], &[], &[], "a/./b//c", "/a/b/c"),
        (
            &["etc"],
            &[],
            &[("etc/r", "../run/systemd/stub")],
            "/etc/r",
            "/run/systemd/stub",
        ),
        (
            &["etc", "run"],
            &[],
            &[("etc/r", "/run/r")],
            "/etc/r",
            "/run/r",
        ),
        (
            &["etc"],
            &[],
            &[("etc/r", "../../../../../../outside")],
            "/etc/r",
            "/outside",
        ),
        (&[], &[], &[("etc", "/../..")], "/etc/hosts", "/hosts"),
        (
            &["real"],
            &[],
            &[("etc", "real")],
            "/etc/hosts",
            "/real/hosts",
        ),
    ];
    for (directories, files, links, path, expected) in cases {
        let outer = root(directories, files, links);
        let before = listing(outer.path());
        let mut scaffold = Scaffold::new(&outer.path().join("root")).expect("a root");
        let found = scaffold.place(path.as_bytes(), Kind::File).expect(path);
        assert_eq!(String::from_utf8_lossy(&found.path), *expected);
        assert!(outer.path().join("root").join(&expected[1..]).is_file());
        scaffold.remove().expect("removal");
        assert_eq!(listing(outer.path()), before, "{path}");
    }
}

#[test]
fn what_cannot_be_mounted_over_is_refused() {
    let outer = root(
        &["etc/dir"],
        &["file"],
        &[("etc/loop", "loop"), ("proc", "../../.."), ("sys", "etc")],
    );
    let before = listing(outer.path());
    let mut scaffold = Scaffold::new(&outer.path().join("root")).expect("a root");
    for path in ["/etc/dir", "/etc/loop", "/file/x", "/", "/etc/.."] {
        scaffold.place(path.as_bytes(), Kind::File).expect_err(path);
    }
    for name in ["proc", "sys", "file"] {
        scaffold.directory(name).expect_err(name);
    }
    scaffold.remove().expect("removal");
    assert_eq!(listing(outer.path()), before);
}

#[test]
fn what_the_command_made_of_them_stays() {
    let outer = root(&[], &[], &[]);
    let root = outer.path().join("root");
    let mut scaffold = Scaffold::new(&root).expect("a root");
    scaffold.directory("proc").expect("a directory");
    scaffold.directory("dev").expect("a directory");
    for path in ["/etc/hosts", "/etc/full", "/etc/other"] {
        scaffold.place(path.as_bytes(), Kind::File).expect(path);
    }
    fs::write(root.join("etc/full"), b"x").expect("a write");
    fs::remove_file(root.join("etc/other")).expect("a removal");
    fs::create_dir(root.join("etc/other")).expect("a directory");
    fs::write(root.join("dev/null"), b"").expect("a write");
    let modified = fs::metadata(root.join("etc"))
        .expect("metadata")
        .mtime_nsec();
    scaffold.remove().expect("removal");
    let names: Vec<_> = listing(&root)
        .into_iter()
        .map(|(path, ..)| path.replace(&root.display().to_string(), ""))
        .collect();
    assert_eq!(
        names,
        ["", "/dev", "/dev/null", "/etc", "/etc/full", "/etc/other"]
    );
    assert_eq!(
        fs::metadata(root.join("etc"))
            .expect("metadata")
            .mtime_nsec(),
        modified
    );
}
