use super::*;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// What is done to the file `f` once it was looked at.
type Edit = fn(&Path);

const NOTICED: &str =
    "/f of the build context was changed during the build; build again when nothing writes to it";

#[test]
fn a_file_that_was_seen_is_that_file_or_none() {
    let table: &[(&str, Edit, Option<&str>)] = &[
        ("nothing", |_| {}, None),
        ("read", |f| drop(std::fs::read(f).unwrap()), None),
        (
            "a file beside it",
            |f| std::fs::write(f.with_file_name("g"), "g").unwrap(),
            None,
        ),
        (
            "content",
            |f| std::fs::write(f, "two2").unwrap(),
            Some(NOTICED),
        ),
        (
            "longer",
            |f| std::fs::write(f, "three").unwrap(),
            Some(NOTICED),
        ),
        (
            "content, with the old time",
            |f| {
                let time = std::fs::metadata(f).unwrap().modified().unwrap();
                std::fs::write(f, "two2").unwrap();
                File::open(f).unwrap().set_modified(time).unwrap();
            },
            Some(NOTICED),
        ),
        (
            "another file by that name",
            |f| {
                let other = f.with_file_name("other");
                std::fs::write(&other, "two2").unwrap();
                std::fs::rename(other, f).unwrap();
            },
            Some(NOTICED),
        ),
        ("gone", |f| std::fs::remove_file(f).unwrap(), Some(NOTICED)),
        (
            "a directory",
            |f| {
                std::fs::remove_file(f).unwrap();
                std::fs::create_dir(f).unwrap();
            },
            Some("it is no regular file any more"),
        ),
        (
            "its mode",
            |f| std::fs::set_permissions(f, PermissionsExt::from_mode(0o600)).unwrap(),
            Some(NOTICED),
        ),
    ];
    for (what, edit, expected) in table {
        let dir = tempfile::tempdir().unwrap();
        let source = seen(dir.path());
        settle(dir.path());
        edit(&dir.path().join("f"));
        let error = source.open().err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), *expected, "{what}");
    }
}

#[test]
fn what_is_written_while_it_is_read_is_noticed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let source = seen(dir.path());
    settle(dir.path());
    let mut content = source.open().unwrap();
    let file = source.file().unwrap().unwrap();
    let mut first = [0; 1];
    content.read_exact(&mut first).unwrap();
    let mut writer = OpenOptions::new()
        .write(true)
        .open(dir.path().join("f"))
        .unwrap();
    writer.write_all(b"two2").unwrap();
    let mut rest = Vec::new();
    let error = content.read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.to_string(), NOTICED);
    assert_eq!(source.is_intact(&file).unwrap_err().to_string(), NOTICED);
}

/// Makes a file `f` and gives it as it is seen now.
fn seen(dir: &Path) -> Source {
    std::fs::write(dir.join("f"), "one1").unwrap();
    let dir = Arc::new(File::open(dir).unwrap().into());
    let stamp = stat(std::os::fd::AsFd::as_fd(&dir), &path("f")).unwrap();
    Source::Seen(Arc::new(Seen {
        dir,
        path: path("f"),
        stamp: stamp.unwrap().stamp(),
    }))
}

/// Waits until the kernel's clock of files has gone on, which it does every few milliseconds.
fn settle(dir: &Path) {
    let f = std::fs::metadata(dir.join("f"))
        .unwrap()
        .modified()
        .unwrap();
    loop {
        std::fs::write(dir.join("clock"), "").unwrap();
        if std::fs::metadata(dir.join("clock"))
            .unwrap()
            .modified()
            .unwrap()
            > f
        {
            return;
        }
    }
}
