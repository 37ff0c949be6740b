//! What a command mounts: kinds, places, order, and what is left of it.

use crate::bench::{
    Bench, Done, Ground, assert_same, busybox, in_child, listing, mounts as mount_table,
    new_mounts, sh,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, openat};
use shutter::request::Hidden;
use shutter::sandbox::{Command, Exit, MEMORY_LIMIT, Mount, What};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const CASES: &[(&str, fn())] = &[
    ("mounts_in_an_overlay", || every_mount(Ground::Overlay)),
    ("mounts_in_a_directory", || every_mount(Ground::Directory)),
    ("mounts_where_nothing_is_mounted", || {
        every_mount(Ground::Plain)
    }),
    ("mounts_on_an_older_kernel", mounts_on_an_older_kernel),
    ("hostile_targets", hostile_targets),
    ("what_can_be_bound", what_can_be_bound),
    ("a_socket_answers", || a_socket_answers(Ground::Overlay)),
    ("a_socket_answers_in_a_chroot", || {
        a_socket_answers(Ground::Plain)
    }),
    ("many_mounts", || many_mounts(Ground::Overlay)),
    ("many_places", || many_mounts(Ground::Plain)),
    ("what_becomes_of_mount_points", || {
        what_becomes_of_mount_points(Ground::Overlay);
    }),
    ("what_becomes_of_places", || {
        what_becomes_of_mount_points(Ground::Plain);
    }),
];

fn path_fd(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).unwrap()
}

pub fn bind(path: &Path) -> What {
    What::Bind(Arc::new(path_fd(path)))
}

pub fn tmpfs(size: Option<u64>) -> What {
    What::Tmpfs { size }
}

pub fn memory(mode: u32, content: &str) -> What {
    What::Memory {
        mode,
        uid: 5,
        gid: 6,
        content: Hidden(content.as_bytes().to_vec()),
    }
}

pub fn at(target: &str, what: What) -> Mount {
    Mount {
        target: target.as_bytes().to_vec(),
        what,
        readonly: false,
    }
}

pub fn readonly(target: &str, what: What) -> Mount {
    Mount {
        readonly: true,
        ..at(target, what)
    }
}

pub fn mounting(script: &str, mounts: Vec<Mount>) -> Command {
    Command {
        mounts,
        ..sh(script)
    }
}

/// Fills a root: directories of various modes, a file, links.
pub fn fill(root: &Path) {
    for (path, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("tmp", 0o1777),
        ("opt", 0o711),
        ("opt/old", 0o755),
        ("var", 0o755),
        ("var/lib", 0o700),
    ] {
        fs::create_dir(root.join(path)).unwrap();
        fs::set_permissions(root.join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    fs::write(root.join("file"), "of the root").unwrap();
    fs::write(root.join("opt/file"), "of the root").unwrap();
    for (path, target) in [
        ("up", "../../../../../../../../tmp/sandbox-outside"),
        ("abs", "/opt"),
        ("lost", "made/by/link"),
        ("loop", "loop"),
        ("into", "ctx/sub"),
        ("self", "/proc/self/fd"),
    ] {
        symlink(target, root.join(path)).unwrap();
    }
    busybox(root);
}

/// Makes a source beside the root: files, directories, a link out of it, a device.
pub fn source(bench: &Bench) -> PathBuf {
    let source = bench.directory.path().join("source");
    fs::create_dir_all(source.join("sub/deep")).unwrap();
    fs::write(source.join("a"), "A").unwrap();
    fs::write(source.join("sub/b"), "B").unwrap();
    fs::write(source.join("run"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(source.join("run"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("/opt", source.join("link")).unwrap();
    symlink("../../../../../../../..", source.join("out")).unwrap();
    let mode = Mode::from_raw_mode(0o666);
    let device = makedev(1, 3);
    mknodat(
        CWD,
        source.join("null"),
        FileType::CharacterDevice,
        mode,
        device,
    )
    .unwrap();
    source
}

pub fn bench(ground: Ground) -> (Bench, PathBuf) {
    let bench = Bench::on(ground, fill);
    let source = source(&bench);
    (bench, source)
}

/// Runs a command, which must leave the root as it was.
pub fn run_without_trace(bench: &Bench, command: &Command) -> Result<Done, String> {
    let (before, mounted) = (listing(&bench.root()), mount_table());
    let done = bench.try_run(command).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        match source {
            Some(source) => format!("{error} / {source}"),
            None => error.to_string(),
        }
    });
    let script = String::from_utf8_lossy(command.args.last().unwrap());
    assert_same(&listing(&bench.root()), &before, &script);
    assert_eq!(new_mounts(&mounted), Vec::<String>::new());
    done
}

/// Mounts, a script and what it prints.
type Case<'a> = (Vec<Mount>, &'a str, &'a str);

/// What scripts have in them that need a real mount: they look at it, or at what the kernel forbids
/// in it.
const MOUNTED: [&str; 6] = [
    "/proc/mounts",
    "df -k",
    "/ctx/null",
    "/t/null",
    "touch /t/x; echo $?",
    "echo x > /ctx/a;",
];

fn every_mount(ground: Ground) {
    let (bench, source) = bench(ground);
    let sub = source.join("sub");
    let file = source.join("a");
    let none = "/nothing/here";
    let cases: Vec<Case<'_>> = vec![
        // A directory: on nothing, far below nothing, over something, named oddly.
        (vec![readonly("/ctx", bind(&source))], "cat /ctx/a", "A"),
        (
            vec![readonly("/new/deep/ctx", bind(&source))],
            "cat /new/deep/ctx/sub/b; stat -c %a /new /new/deep",
            "B755\n755\n",
        ),
        (vec![readonly("/opt", bind(&sub))], "ls /opt", "b\ndeep\n"),
        (
            vec![readonly("opt/./../ctx//x/", bind(&sub))],
            "cat /ctx/x/b",
            "B",
        ),
        // A file: on nothing, over something.
        (vec![readonly("/ctx/x", bind(&file))], "cat /ctx/x", "A"),
        (vec![readonly("/file", bind(&file))], "cat /file", "A"),
        (
            vec![readonly("/etc/hosts", bind(&file))],
            "cat /etc/hosts",
            "A",
        ),
        // Read-only means it, and writable too.
        (
            vec![readonly("/ctx", bind(&source))],
            "echo x > /ctx/a; touch /ctx/new; mkdir /ctx/dir; chmod 700 /ctx; cat /ctx/a",
            "A",
        ),
        (
            vec![at("/ctx", bind(&source))],
            "echo w > /ctx/w && cat /ctx/w && rm /ctx/w",
            "w\n",
        ),
        (
            vec![at("/file", bind(&file))],
            "echo C > /file; cat /file; printf A > /file",
            "C\n",
        ),
        // Devices in it are files, what can be executed is.
        (
            vec![at("/ctx", bind(&source))],
            "echo x > /ctx/null; echo $?; /ctx/run",
            "1\nran\n",
        ),
        // Memory: bounded, of the mode of what it hides, without devices.
        (
            vec![at("/t", tmpfs(Some(1 << 20)))],
            "echo x > /t/f; df /t | tail -1 | cut -d' ' -f1; stat -c %a /t; \
             grep -o ' /t tmpfs rw,nosuid,nodev,[a-z]*,size=1024k' /proc/mounts; \
             dd if=/dev/zero of=/t/z bs=1M count=2 2> /dev/null; echo $?",
            "tmpfs\n1777\n /t tmpfs rw,nosuid,nodev,relatime,size=1024k\n1\n",
        ),
        (
            vec![
                at("/opt", tmpfs(None)),
                at("/var/lib", tmpfs(Some(0))),
                at("/tmp", tmpfs(None)),
            ],
            "stat -c '%a %u %g' /opt /var/lib /tmp; ls /opt",
            "711 0 0\n700 0 0\n1777 0 0\n",
        ),
        (
            vec![at("/t", tmpfs(None))],
            "mknod /t/null c 1 3; echo x > /t/null; echo $?",
            "1\n",
        ),
        (
            vec![readonly("/t", tmpfs(None))],
            "touch /t/x; echo $?",
            "1\n",
        ),
        // A file in memory: as it was asked for, anywhere, not to be written to.
        (
            vec![at("/run/secrets/x", memory(0o440, "secret"))],
            "stat -c '%a %u %g %s' /run/secrets/x; cat /run/secrets/x; echo x > /run/secrets/x; \
             grep -o '/run/secrets/x tmpfs ro,nosuid,nodev,noexec' /proc/mounts",
            "440 5 6 6\nsecret/run/secrets/x tmpfs ro,nosuid,nodev,noexec\n",
        ),
        (
            vec![
                at("/dev/x/y", memory(0o644, "d")),
                at("/etc/tok", memory(0o644, "e")),
                at("/root/.netrc", memory(0o7644, "r")),
                at("/file", memory(0o644, "f")),
                at("/dev/null", memory(0o644, "n")),
            ],
            "cat /dev/x/y /etc/tok /root/.netrc /file /dev/null; stat -c %a /root/.netrc",
            "derfn644\n",
        ),
        (
            vec![at("/x", memory(0o755, "#!/bin/sh\necho ran\n"))],
            "/x",
            "ran\n",
        ),
        (vec![at("/x", memory(0o644, ""))], "stat -c %s /x", "0\n"),
        // In each other, whatever the order they are written in.
        (
            vec![
                at("/t/in/file", memory(0o644, "m")),
                readonly("/t/in/dir/ctx", bind(&source)),
                at("/t/in/dir", tmpfs(None)),
                at("/t", tmpfs(None)),
            ],
            "cat /t/in/file /t/in/dir/ctx/a; ls -R /t | head -4; grep -c ' /t' /proc/mounts",
            "mA/t:\nin\n\n/t/in:\n4\n",
        ),
        (
            vec![
                readonly("/ctx", bind(&source)),
                at("/ctx/sub", tmpfs(None)),
                at("/ctx/a", memory(0o644, "m")),
            ],
            "touch /ctx/sub/x && ls /ctx/sub && cat /ctx/a",
            "x\nm",
        ),
        // On one target there is only the last, whatever its kind.
        (
            vec![
                at("/x", memory(0o644, "m")),
                at("/x/y", tmpfs(None)),
                readonly("/x", bind(&source)),
                at("/x/", tmpfs(None)),
            ],
            "ls -A /x; grep -c ' /x' /proc/mounts",
            "y\n2\n",
        ),
        // In what every command has.
        (
            vec![
                at("/dev/shm", tmpfs(Some(4096))),
                readonly("/dev/new/dir", bind(&sub)),
                at("/sys/kernel", tmpfs(None)),
            ],
            "df -k /dev/shm | awk 'NR == 2 { print $2 }'; cat /dev/new/dir/b; ls -A /sys/kernel; \
             echo x > /dev/null",
            "4\nB",
        ),
        (vec![readonly("/dev", bind(&sub))], "ls /dev", "b\ndeep\n"),
        // Links lead somewhere inside of the root, and from one mount into another.
        (vec![at("/abs", tmpfs(None))], "ls -A /opt", ""),
        (
            vec![readonly("/abs/ctx", bind(&sub))],
            "cat /opt/ctx/b",
            "B",
        ),
        (
            vec![readonly("/lost", bind(&sub))],
            "cat /made/by/link/b",
            "B",
        ),
        (
            vec![at("/lost/x", memory(0o644, "m"))],
            "cat /made/by/link/x",
            "m",
        ),
        (
            vec![
                readonly("/ctx", bind(&source)),
                at("/into/b", memory(0o644, "m")),
                at("/ctx/link/made/x", memory(0o644, "n")),
                at("/ctx/out/ctx/a", memory(0o644, "o")),
            ],
            "cat /ctx/sub/b /opt/made/x /ctx/a",
            "mno",
        ),
        (
            vec![at("/up", tmpfs(None))],
            "grep -o ' /tmp/sandbox-outside ' /proc/mounts",
            " /tmp/sandbox-outside \n",
        ),
        // A failing command leaves as little.
        (
            vec![at(none, tmpfs(None)), at("/x/y", memory(0o600, "m"))],
            "echo failed; exit 3",
            "failed\n",
        ),
    ];
    for (mounts, script, expected) in cases {
        if ground == Ground::Plain && MOUNTED.iter().any(|part| script.contains(part)) {
            continue;
        }
        let beside = listing(&source);
        let done = run_without_trace(&bench, &mounting(script, mounts)).expect(script);
        assert_eq!(done.out, expected, "{script}: {}", done.err);
        let after = listing(&source);
        let names = |list: &std::collections::BTreeMap<String, String>| {
            list.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(&beside), "{script}");
    }
    assert!(!Path::new("/tmp/sandbox-outside").exists());
}

/// Makes a system call fail for this process and all it will start.
pub fn refuse_call(number: i64, errno: i32) {
    use shutter::sys::Insn;
    let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
    // Load the number; is it this one? Then the error, else allow.
    let program = [
        insn(0x20, 0, 0, 0),
        insn(0x15, 0, 1, u32::try_from(number).unwrap()),
        insn(0x06, 0, 0, 0x0005_0000 | u32::try_from(errno).unwrap()),
        insn(0x06, 0, 0, 0x7fff_0000),
    ];
    shutter::sys::install_filter(&program).unwrap();
}

fn mounts_on_an_older_kernel() {
    // Before 5.12 a tree cannot be given attributes ahead; a seccomp profile from before it says no.
    in_child(|| {
        refuse_call(libc::SYS_mount_setattr, libc::ENOSYS);
        every_mount(Ground::Overlay);
    });
    in_child(|| {
        refuse_call(libc::SYS_mount_setattr, libc::EPERM);
        what_can_be_bound();
    });
    // Before 5.2 there is no such thing at all.
    in_child(|| {
        refuse_call(libc::SYS_open_tree, libc::ENOSYS);
        let (bench, source) = bench(Ground::Overlay);
        let command = mounting("true", vec![at("/a/b", bind(&source))]);
        let error = run_without_trace(&bench, &command).err().unwrap();
        assert!(error.contains("mount /a/b: this kernel"), "{error}");
    });
}

fn hostile_targets() {
    let (bench, source) = bench(Ground::Overlay);
    let sub = source.join("sub");
    let file = source.join("a");
    let long = "x".repeat(300);
    let cases: Vec<(Vec<Mount>, &str)> = vec![
        (vec![at("/", tmpfs(None))], "mount /: the root itself"),
        (vec![at("", tmpfs(None))], "mount : the root itself"),
        (
            vec![at("/opt/../..", bind(&sub))],
            "mount /opt/../..: the root",
        ),
        (
            vec![at("/ctx", bind(&source)), at("/ctx/out", tmpfs(None))],
            "the root itself",
        ),
        (vec![at("/", bind(&file))], "mount /: the root itself"),
        (
            vec![at("/proc", tmpfs(None))],
            "mount /proc: nothing can be",
        ),
        (
            vec![at("/proc/self", bind(&sub))],
            "mount /proc/self: nothing can",
        ),
        (
            vec![at("/self/9", memory(0o644, "m"))],
            "mount /self/9: nothing can be",
        ),
        (
            vec![at("/dev/fd/9", memory(0o644, "m"))],
            "mount /dev/fd/9: Too many levels",
        ),
        (
            vec![at("/dev/null/x", tmpfs(None))],
            "mount /dev/null/x: Not a directory",
        ),
        (vec![at("/dev/null", tmpfs(None))], "mount /dev/null: "),
        (
            vec![at("/dev", memory(0o644, "m"))],
            "mount /dev: Is a directory",
        ),
        (vec![at("/sys/new", tmpfs(None))], "mount /sys/new: "),
        (
            vec![at("/file", tmpfs(None))],
            "mount /file: Not a directory",
        ),
        (
            vec![at("/file/x", memory(0o644, "m"))],
            "mount /file/x: Not a directory",
        ),
        (
            vec![at("/opt", memory(0o644, "m"))],
            "mount /opt: Is a directory",
        ),
        (vec![at("/opt", bind(&file))], "mount /opt: Is a directory"),
        (
            vec![at("/new/x", tmpfs(None)), at("/opt/file/x", tmpfs(None))],
            "mount /opt/file/x: ",
        ),
        (
            vec![at("/loop", tmpfs(None))],
            "mount /loop: Too many levels",
        ),
        (
            vec![at("/a/b", tmpfs(None)), at(&long, tmpfs(None))],
            "File name too long",
        ),
        (vec![at("/a\0b", tmpfs(None))], "mount /a"),
        (
            vec![
                readonly("/ctx", bind(&source)),
                at("/ctx/missing", tmpfs(None)),
            ],
            "mount /ctx/missing: /ctx can only be read, and has no directory missing to mount it on",
        ),
        (
            vec![
                readonly("/ctx", bind(&source)),
                at("/into/x/y", memory(0o644, "m")),
            ],
            "mount /into/x/y: /ctx/sub can only be read, and has no directory x",
        ),
        (
            vec![readonly("/t", tmpfs(None)), at("/t/x", memory(0o644, "m"))],
            "mount /t/x: /t can only be read, and has no file x to mount it on",
        ),
        (
            vec![at("/m", memory(0o644, "m")), at("/m/x", tmpfs(None))],
            "mount /m/x: Not a directory",
        ),
        (
            vec![at("/m", memory(0o644, &"x".repeat(MEMORY_LIMIT + 1)))],
            "mount /m: it has 512001 bytes, and a file in memory at most 512000",
        ),
    ];
    for (mounts, expected) in cases {
        let error = run_without_trace(&bench, &mounting("echo ran", mounts))
            .map(|done| done.out)
            .expect_err(expected);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // The largest there can be.
    let large = "x".repeat(MEMORY_LIMIT);
    let command = mounting("wc -c < /m", vec![at("/m", memory(0o644, &large))]);
    assert_eq!(bench.run(&command).out, "512000\n");
}

/// What lies on file systems of other kinds, and what is mounted below what is bound.
fn what_can_be_bound() {
    use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
    let (bench, source) = bench(Ground::Overlay);
    let mounted = source.join("sub/deep");
    let strict = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", &mounted, "tmpfs", strict, None).unwrap();
    fs::write(mounted.join("x"), "X").unwrap();
    fs::copy(source.join("run"), mounted.join("run")).unwrap();
    fs::set_permissions(mounted.join("run"), PermissionsExt::from_mode(0o4755)).unwrap();
    let mode = Mode::from_raw_mode(0o666);
    let device = makedev(1, 3);
    mknodat(
        CWD,
        mounted.join("null"),
        FileType::CharacterDevice,
        mode,
        device,
    )
    .unwrap();
    let before = mount_table();
    for (mounts, script, expected) in [
        // Read-only to the last.
        (
            vec![readonly("/ctx", bind(&source))],
            "echo x > /ctx/sub/deep/x; touch /ctx/sub/deep/y; cat /ctx/sub/deep/x",
            "X",
        ),
        (
            vec![at("/ctx", bind(&source))],
            "echo Y > /ctx/sub/deep/x && cat /ctx/sub/deep/x; printf X > /ctx/sub/deep/x; \
             echo x > /ctx/sub/deep/null; echo $?",
            "Y\n1\n",
        ),
        // What is mounted below a mount is something that can be mounted on.
        (
            vec![
                readonly("/ctx", bind(&source)),
                at("/ctx/sub/deep/x", memory(0o644, "m")),
            ],
            "cat /ctx/sub/deep/x",
            "m",
        ),
    ] {
        let done = run_without_trace(&bench, &mounting(script, mounts)).expect(script);
        assert_eq!(done.out, expected, "{script}: {}", done.err);
    }
    let executed = bench.run(&mounting("/x/run", vec![at("/x", bind(&mounted))]));
    // Where the kernel cannot give and take attributes at once it takes none.
    match executed.exit {
        Exit::Code(0) => assert_eq!(executed.out, "ran\n"),
        exit => assert_eq!(exit, Exit::Code(126), "{}", executed.err),
    }
    // The builder's own mounts have kept theirs.
    assert_eq!(new_mounts(&before), Vec::<String>::new());

    // A mount that cannot be written to cannot be in there either.
    let fixed = bench.directory.path().join("fixed");
    fs::create_dir(&fixed).unwrap();
    mount_bind(&source, &fixed).unwrap();
    mount_remount(&fixed, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
    let done = bench.run(&mounting("touch /x/y", vec![at("/x", bind(&fixed))]));
    assert_eq!(done.exit, Exit::Code(1), "{}", done.err);
    let command = mounting(
        "true",
        vec![at("/x", bind(&fixed)), at("/x/no", tmpfs(None))],
    );
    let error = run_without_trace(&bench, &command).err().unwrap();
    assert!(error.contains("/x can only be read"), "{error}");

    // What is mounted nowhere.
    let tree = {
        use rustix::mount::{
            FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen,
        };
        let fs = fsopen("tmpfs", FsOpenFlags::empty()).unwrap();
        fsconfig_create(fs.as_fd()).unwrap();
        fsmount(fs.as_fd(), FsMountFlags::empty(), MountAttrFlags::empty()).unwrap()
    };
    rustix::fs::mkdirat(&tree, "dir", Mode::from_raw_mode(0o755)).unwrap();
    let dir = openat(&tree, "dir", OFlags::PATH, Mode::empty()).unwrap();
    let command = mounting(
        "echo made > /x/f",
        vec![at("/x", What::Bind(Arc::new(dir)))],
    );
    for _ in 0..2 {
        match run_without_trace(&bench, &command) {
            Ok(done) => assert_eq!(done.exit, Exit::Code(0), "{}", done.err),
            Err(error) => assert!(error.contains("takes Linux 6.15"), "{error}"),
        }
    }
    for file in ["sub/deep", "fixed"] {
        let at = match file {
            "fixed" => fixed.clone(),
            file => source.join(file),
        };
        rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn a_socket_answers(ground: Ground) {
    let (bench, source) = bench(ground);
    let path = source.join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    let command = mounting(
        "test -S /dev/log && logger -t name hello",
        vec![at("/dev/log", bind(&path))],
    );
    let done = bench.run(&command);
    assert_eq!(done.exit, Exit::Code(0), "{}", done.err);
    let mut message = [0; 256];
    let length = socket.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..length]);
    assert!(message.ends_with("name: hello"), "{message}");
}

fn many_mounts(ground: Ground) {
    let (bench, source) = bench(ground);
    let mounts = (0..300)
        .map(|number| match number % 3 {
            0 => at(
                &format!("/many/{number}"),
                memory(0o644, &number.to_string()),
            ),
            1 => readonly(&format!("/many/{number}"), bind(&source.join("a"))),
            _ => at(&format!("/many/{number}/dir"), tmpfs(Some(4096))),
        })
        .collect();
    let script = "cd /many; cat 0 3 297 1; ls -d */dir | wc -l; ls | wc -l";
    let done = run_without_trace(&bench, &mounting(script, mounts)).unwrap();
    assert_eq!(done.out, "03297A100\n300\n", "{}", done.err);
}

/// What the command did to the places of its mounts, and to what had to be made around them.
fn what_becomes_of_mount_points(ground: Ground) {
    let cases: [(&str, &str, &[&str]); 6] = [
        ("/new/ctx", "true", &[]),
        // Nothing can be done to the place itself.
        (
            "/new/ctx",
            "rm -r /new; mv /new/ctx /new/other; rmdir /new/ctx",
            &[],
        ),
        ("/new/ctx", "echo x > /new/own", &["new", "new/own"]),
        ("/new/a/ctx", "mv /new/a /new/b", &["new", "new/b"]),
        (
            "/new/a/ctx",
            "mkdir /new/a/ctx/in /new/a/own",
            &["new", "new/a", "new/a/own"],
        ),
        (
            "/opt/ctx",
            "touch -d @1000 /opt; mkdir -m 700 /opt/ctx2",
            &["opt", "opt/ctx2"],
        ),
    ];
    for (target, script, expected) in cases {
        in_child(|| {
            let bench = Bench::on(ground, fill);
            let before = listing(&bench.root());
            bench.run(&mounting(script, vec![at(target, tmpfs(None))]));
            let after = listing(&bench.root());
            let changed: Vec<&str> = after
                .iter()
                .filter(|(name, said)| before.get(*name) != Some(said))
                .map(|(name, _)| name.as_str())
                .filter(|name| !name.is_empty())
                .collect();
            assert_eq!(changed, expected, "{script}");
            assert!(
                before.keys().all(|name| after.contains_key(name)),
                "{script}"
            );
        });
    }
    // A place in something that is mounted stays there, as with BuildKit.
    let bench = Bench::on(ground, fill);
    let source = source(&bench);
    let mounts = vec![
        at("/cache", bind(&source)),
        at("/cache/new/in", tmpfs(None)),
    ];
    let done = run_without_trace(&bench, &mounting("touch /cache/new/in/x", mounts)).unwrap();
    assert_eq!(done.exit, Exit::Code(0), "{}", done.err);
    assert_eq!(fs::read_dir(source.join("new/in")).unwrap().count(), 0);
}
