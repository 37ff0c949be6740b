use super::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::os::unix::net::UnixListener;

#[test]
fn nothing_from_outside_reaches_the_image() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let dir = context(&[
        "etc/passwd 644 mine",
        "proc/self/environ 644 mine too",
        "up -> ../../../etc",
        "abs -> /etc/passwd",
        "magic -> /proc/self/environ",
        "cwd -> /proc/self/cwd/secret",
        "d/ 755",
        "d/f 644 f",
    ]);
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    symlink(outside.path(), dir.path().join("d/out")).unwrap();
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    // Links lead on, but from the root of the context.
    check(
        &[
            ("COPY ../../../etc/passwd /n", Ok(&["n 644 0:0 mine"])),
            ("COPY up/passwd /n", Ok(&["n 644 0:0 mine"])),
            ("COPY up/../../../../etc/passwd /n", Ok(&["n 644 0:0 mine"])),
            ("COPY abs /n", Ok(&["n 644 0:0 mine"])),
            ("COPY magic /n", Ok(&["n 644 0:0 mine too"])),
            (
                "COPY --parents up/./passwd /n",
                Ok(&["n/ 755 0:0", "n/passwd 644 0:0 mine"]),
            ),
            ("COPY up* /n/", Ok(&["n/ 755 0:0", "n/passwd 644 0:0 mine"])),
        ],
        &from,
        &base(),
    );
    for source in [
        "out",
        "out/secret",
        "file",
        "cwd",
        "o*",
        "out/*",
        "d/out/secret",
    ] {
        let error = carry_out(&op(&[source], "/n"), &from, &base()).unwrap_err();
        assert!(error.contains("not found"), "{source}: {error}");
    }
    // What is only passed by stays a link.
    let got = carry_out(&op(&["d"], "/n"), &from, &base()).unwrap();
    let link = format!("n/out -> {}", outside.path().display());
    assert_eq!(got, ["n/ 755 0:0", "n/f 644 0:0 f", &link]);
}

#[test]
fn what_is_no_file_is_called_by_its_name() {
    let dir = context(&["d/f 644 f"]);
    let at = |name: &str| dir.path().join(name);
    let _socket = UnixListener::bind(at("sock")).unwrap();
    let _other = UnixListener::bind(at("d/sock")).unwrap();
    symlink("sock", at("ln")).unwrap();
    symlink("two", at("one")).unwrap();
    symlink("/three/four", at("two")).unwrap();
    let node = |name: &str, kind, device| {
        mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o644), device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("gone", FileType::CharacterDevice, 0);
    node("e", FileType::Fifo, 0);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    check(
        &[
            (
                "COPY sock /",
                Err("\"/sock\" is a socket, and an image holds none"),
            ),
            (
                "COPY ln /",
                Err("\"/ln\" is a socket, and an image holds none"),
            ),
            ("COPY d /d", Ok(&["d/ 755 0:0", "d/f 644 0:0 f"])),
            ("COPY fifo /", Ok(&["fifo Fifo 644 0:0"])),
            ("ADD fifo /", Ok(&["fifo Fifo 644 0:0"])),
            ("COPY null /n", Ok(&["n Char 644 0:0"])),
            (
                "COPY gone /n",
                Err("/n would be a character device 0:0, which stands for a deletion"),
            ),
            (
                "COPY one /n",
                Err(
                    "\"/one\": not found: \"/two\" is a symbolic link to \"/three/four\", and that is not there",
                ),
            ),
            ("COPY e/x /n", Err("\"/e/x\": not found")),
        ],
        &Origin::Context(&context),
        &base(),
    );
}

/// A file that is something else once its content is read.
#[test]
fn a_context_that_changes_is_noticed() {
    let dir = context(&["a 644 four", "b/c 644 four"]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let scratch = tempfile::tempdir().unwrap();
    let op = instruction("COPY a b /x/");
    let made = make(&op, &from, &[], &base(), &scratch).unwrap();
    let read = |path: &str| {
        let Some(Action::Put { source, .. }) = made.get(&clean(path).unwrap()) else {
            panic!("{path} is put");
        };
        source
            .as_ref()
            .unwrap()
            .file()
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(read("x/a"), Ok(()));
    let at = |name: &str| dir.path().join(name);
    for replace in [
        &|| symlink("/etc/passwd", at("a")).unwrap(),
        &|| std::fs::create_dir(at("a")).unwrap(),
        &|| mknodat(CWD, at("a"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
        &|| {
            let zero = rustix::fs::makedev(1, 5);
            mknodat(
                CWD,
                at("a"),
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o644),
                zero,
            )
            .unwrap();
        },
        &|| drop(UnixListener::bind(at("a")).unwrap()),
    ] as [&dyn Fn(); 5]
    {
        let _ = std::fs::remove_dir(at("a"));
        let _ = std::fs::remove_file(at("a"));
        replace();
        assert!(read("x/a").is_err());
    }
    // A directory on the way that becomes a link leads nowhere either.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("c"), "four").unwrap();
    std::fs::remove_dir_all(at("b")).unwrap();
    symlink(elsewhere.path(), at("b")).unwrap();
    assert!(read("x/c").is_err());
}

/// What is below a directory that does not exist is not asked for, but what a `..` leads back to is.
#[test]
fn links_lead_on_by_way_of_what_does_not_exist() {
    let dest = tree(&[
        "dir/ 755",
        "dir/l -> ../to",
        "to/ 755",
        "a -> none/../dir/l",
        "b -> no/x/y/../../../dir/l/z",
    ]);
    let dir = context(&["f 644 f"]);
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    check(
        &[
            ("COPY f /a/", Ok(&["to/f 644 0:0 f"])),
            (
                "COPY f /a/n/m/",
                Ok(&["to/n/ 755 0:0", "to/n/m/ 755 0:0", "to/n/m/f 644 0:0 f"]),
            ),
            ("COPY f /b/", Ok(&["to/z/ 755 0:0", "to/z/f 644 0:0 f"])),
        ],
        &Origin::Context(&context),
        &dest,
    );
}

#[test]
fn depth_costs_no_stack() {
    let dir = context(&[]);
    let mut at = rustix::fs::open(dir.path(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    let depth = 500;
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    assert_eq!(
        carry_out(&op(&["."], "/x"), &from, &base()).unwrap().len(),
        depth + 1
    );
    let got = carry_out(&instruction("COPY --parents **/none /x"), &from, &base());
    assert_eq!(got.unwrap(), ["x/ 755 0:0"]);
}

#[test]
fn an_ignore_file_is_a_file() {
    for (kind, expected) in [
        (FileType::Fifo, Some("it is no regular file")),
        (FileType::Directory, Some("it is no regular file")),
        (FileType::RegularFile, None),
    ] {
        let dir = context(&["a 644 a"]);
        let at = dir.path().join(".dockerignore");
        match kind {
            FileType::Directory => std::fs::create_dir(at).unwrap(),
            kind => mknodat(CWD, at, kind, Mode::from_raw_mode(0o644), 0).unwrap(),
        }
        let opened = Context::open(dir.path(), Path::new("/nowhere/Dockerfile"));
        let said = opened.err().map(|error| {
            let source = std::error::Error::source(&error).unwrap();
            source.to_string()
        });
        assert_eq!(said.as_deref(), expected, "{kind:?}");
    }
}
