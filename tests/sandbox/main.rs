//! Real commands in real roots: needs root, overlay and a static busybox.

#[path = "../common/harness.rs"]
mod harness;

mod bench;
mod mounts;
mod plain;
mod privileges;
mod traces;

use bench::{
    Bench, Ground, Killed, busybox, command, in_child, mounts as mount_table, new_mounts,
    processes_with, sh, tree, until,
};
use shutter::progress::Stream;
use shutter::rootfs::Entry;
use shutter::sandbox::{Error, Exit, Identity, Sandbox};
use shutter::sys::Cancel;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const CASES: &[(&str, fn())] = &[
    ("exit_codes_and_signals", || {
        exit_codes_and_signals(Ground::Overlay)
    }),
    ("exit_codes_and_signals_in_a_chroot", || {
        exit_codes_and_signals(Ground::Plain)
    }),
    ("streams_are_separate_and_whole", || {
        streams_are_separate_and_whole(Ground::Overlay)
    }),
    ("streams_are_separate_and_whole_in_a_chroot", || {
        streams_are_separate_and_whole(Ground::Plain)
    }),
    ("environment_and_arguments_arrive_as_given", || {
        environment_and_arguments(Ground::Overlay)
    }),
    (
        "environment_and_arguments_arrive_as_given_in_a_chroot",
        || environment_and_arguments(Ground::Plain),
    ),
    ("working_directory", || working_directory(Ground::Overlay)),
    ("working_directory_in_a_chroot", || {
        working_directory(Ground::Plain)
    }),
    ("programs_that_cannot_run", || {
        programs_that_cannot_run(Ground::Overlay)
    }),
    ("programs_that_cannot_run_in_a_chroot", || {
        programs_that_cannot_run(Ground::Plain)
    }),
    ("users_and_groups", || users_and_groups(Ground::Overlay)),
    ("users_and_groups_in_a_chroot", || {
        users_and_groups(Ground::Plain)
    }),
    ("capabilities", capabilities),
    ("system_calls", system_calls),
    ("what_a_command_sees", what_a_command_sees),
    ("process_one_is_out_of_reach", process_one_is_out_of_reach),
    ("orphans_are_reaped", orphans_are_reaped),
    ("what_runs_in_the_background_ends", || {
        what_runs_in_the_background_ends(Ground::Overlay)
    }),
    ("what_runs_in_the_background_ends_in_a_chroot", || {
        what_runs_in_the_background_ends(Ground::Plain)
    }),
    ("mount_points_are_taken_away", mount_points_are_taken_away),
    (
        "mount_points_leave_no_trace_in_an_overlay",
        mount_points_in_an_overlay,
    ),
    ("a_linked_resolv_conf", a_linked_resolv_conf),
    ("hostile_links", hostile_links),
    ("files_of_a_command", || files_of_a_command(Ground::Overlay)),
    ("files_of_a_command_in_a_chroot", || {
        files_of_a_command(Ground::Plain)
    }),
    ("cancel_ends_a_command", || {
        cancel_ends_a_command(Ground::Overlay)
    }),
    ("cancel_ends_a_command_in_a_chroot", || {
        cancel_ends_a_command(Ground::Plain)
    }),
    ("a_cancelled_build_starts_nothing", || {
        a_cancelled_build_starts_nothing(Ground::Overlay)
    }),
    ("a_cancelled_build_starts_nothing_in_a_chroot", || {
        a_cancelled_build_starts_nothing(Ground::Plain)
    }),
    ("commands_run_side_by_side", commands_run_side_by_side),
    ("large_requests", || large_requests(Ground::Overlay)),
    ("large_requests_in_a_chroot", || {
        large_requests(Ground::Plain)
    }),
    ("a_root_that_is_none", a_root_that_is_none),
    (
        "nothing_outlives_a_killed_builder",
        nothing_outlives_a_killed_builder,
    ),
    (
        "the_helper_ends_with_the_sandbox",
        the_helper_ends_with_the_sandbox,
    ),
    ("a_process_with_threads_is_refused", starting_with_threads),
    ("time_of_a_command", || time_of_a_command(Ground::Overlay)),
    ("time_of_a_command_in_a_chroot", || {
        time_of_a_command(Ground::Plain)
    }),
];

fn main() -> ExitCode {
    // The programs that tests of `kill -9` kill.
    let asked = std::env::var("SANDBOX_TEST").unwrap_or_default();
    match asked.split_once('=') {
        Some(("builder", seconds)) => return builder(seconds),
        Some(("plain", rest)) => {
            let (seconds, root) = rest.split_once(':').unwrap();
            return plain::builder(seconds, root);
        }
        _ => {}
    }
    harness::main(
        CASES
            .iter()
            .chain(mounts::CASES)
            .chain(traces::CASES)
            .chain(privileges::CASES)
            .chain(plain::CASES)
            .map(|(name, run)| harness::Case::new(*name, run))
            .collect(),
    )
}

fn exit_codes_and_signals(ground: Ground) {
    let bench = Bench::small(ground);
    for (script, expected) in [
        ("true", Exit::Code(0)),
        ("exit 1", Exit::Code(1)),
        ("exit 255", Exit::Code(255)),
        ("kill -9 $$", Exit::Signal(9)),
        ("kill -TERM $$", Exit::Signal(15)),
        ("kill -INT $$", Exit::Signal(2)),
        // Not ignored for being ignored in the builder.
        ("kill -PIPE $$", Exit::Signal(13)),
        ("kill -HUP $$", Exit::Signal(1)),
    ] {
        assert_eq!(bench.sh(script).exit, expected, "{script}");
    }
}

fn streams_are_separate_and_whole(ground: Ground) {
    let bench = Bench::small(ground);
    let script = match ground {
        Ground::Plain => "echo a; echo b >&2; echo c; echo d >&2; cat",
        // They lead through /proc.
        _ => "echo a; echo b >&2; echo c > /dev/stdout; echo d > /dev/stderr; cat",
    };
    let done = bench.sh(script);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("a\nc\n", "b\nd\n"));
    let done = bench.sh("head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2");
    assert_eq!((done.out.len(), done.err.len()), (3_000_000, 1_000_000));
}

fn environment_and_arguments(ground: Ground) {
    let bench = Bench::small(ground);
    let mut printing = command(&["env"]);
    printing.env = [&b"Z=1"[..], b"PATH=/bin", b"A=\xff b", b"Z2="]
        .map(<[u8]>::to_vec)
        .to_vec();
    let done = bench.run(&printing);
    assert_eq!(done.out, "Z=1\nPATH=/bin\nA=\u{fffd} b\nZ2=\n");
    let done = bench.run(&command(&["printf", "[%s]", "a b", "", "$x", "é"]));
    assert_eq!(done.out, "[a b][][$x][é]");
    assert_eq!(bench.out("umask"), "0022\n");
    if ground == Ground::Plain {
        return;
    }
    // Three streams and the directory that is read.
    let done = bench.run(&command(&["ls", "/proc/self/fd"]));
    assert_eq!(done.out, "0\n1\n2\n3\n");
    let done = bench.run(&command(&["grep", "Sig", "/proc/self/status"]));
    for mask in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(
            done.out.contains(&format!("{mask}:\t0000000000000000")),
            "{}",
            done.out
        );
    }
}

fn working_directory(ground: Ground) {
    let bench = Bench::small(ground);
    let mut there = sh("pwd");
    there.cwd = b"/tmp".to_vec();
    assert_eq!(bench.run(&there).out, "/tmp\n");
    bench.out("mkdir -m 700 /closed");
    for (cwd, uid, expected) in [
        ("/missing", 0, Err(libc::ENOENT)),
        ("/bin/busybox", 0, Err(libc::ENOTDIR)),
        // Root could enter it, so the user starts there, as with Docker.
        ("/closed", 1000, Ok("/closed\n")),
    ] {
        let mut there = command(&["/bin/busybox", "pwd"]);
        there.cwd = cwd.as_bytes().to_vec();
        there.identity.uid = uid;
        match (bench.try_run(&there), expected) {
            (Ok(done), Ok(expected)) => assert_eq!(done.out, expected),
            (Err(Error::Setup { action, source }), Err(errno)) => {
                assert_eq!(action, format!("change to the working directory {cwd}"));
                assert_eq!(source.raw_os_error(), Some(errno));
            }
            (result, _) => panic!("{cwd}: {:?}", result.map(|done| done.exit)),
        }
    }
    assert!(!tree(&bench.root()).contains_key("proc"));
}

fn programs_that_cannot_run(ground: Ground) {
    let bench = Bench::small(ground);
    bench
        .out("echo x > /plain; printf '#!/nowhere\\n' > /lost; echo x > /odd; chmod +x /lost /odd");
    for (program, code, message) in [
        (
            "foo",
            127,
            "exec: \"foo\": executable file not found in $PATH\n",
        ),
        (
            "/foo",
            127,
            "exec: \"/foo\": stat /foo: no such file or directory\n",
        ),
        ("/plain", 126, "exec: \"/plain\": permission denied\n"),
        ("/tmp", 126, "exec: \"/tmp\": is a directory\n"),
        ("/lost", 255, "exec /lost: no such file or directory\n"),
        ("/odd", 255, "exec /odd: exec format error\n"),
    ] {
        let done = bench.run(&command(&[program]));
        assert_eq!((done.exit, done.err.as_str()), (Exit::Code(code), message));
    }
    let mut nothing = command(&[]);
    assert!(bench.try_run(&nothing).is_err());
    nothing.args = vec![b"a\0b".to_vec()];
    assert!(bench.try_run(&nothing).is_err());
}

fn users_and_groups(ground: Ground) {
    let bench = Bench::small(ground);
    for (uid, gid, groups, expected) in [
        (0, 0, vec![], "0 0 0"),
        (0, 0, vec![0, 5, 7], "0 0 0 5 7"),
        (1000, 1001, vec![], "1000 1001 1001"),
        (
            1000,
            1001,
            vec![20, 4_000_000_000],
            "1000 1001 1001 20 4000000000",
        ),
    ] {
        let mut who = sh("echo $(id -u) $(id -g) $(id -G); echo x >&2");
        who.identity = Identity { uid, gid, groups };
        let done = bench.run(&who);
        assert_eq!((done.out.trim(), done.err.as_str()), (expected, "x\n"));
    }
}

fn capabilities() {
    let bench = Bench::new();
    for (uid, own) in [(0, "00000000a80425fb"), (1000, "0000000000000000")] {
        let mut status = sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
        status.identity.uid = uid;
        let expected = format!(
            "CapInh:\t0000000000000000\nCapPrm:\t{own}\nCapEff:\t{own}\n\
             CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n"
        );
        assert_eq!(bench.run(&status).out, expected);
    }
}

fn system_calls() {
    let bench = Bench::new();
    for (script, works) in [
        ("mount -t tmpfs x /tmp", false),
        ("umount /proc", false),
        ("unshare -m true", false),
        ("unshare -U true", false),
        ("hostname other", false),
        ("echo 1 > /proc/sys/kernel/panic", false),
        ("echo b > /proc/sysrq-trigger", false),
        ("echo x >> /etc/hosts", false),
        ("touch /sys/x", false),
        // A device node may be made, for it may belong into the image, but nobody gets to the device.
        ("mknod /tmp/null c 1 3", true),
        ("mknod /tmp/null2 c 1 3; echo x > /tmp/null2", false),
        ("mknod /dev/null2 c 1 3; echo x > /dev/null2", false),
        ("mknod /dev/shm/null c 1 3; echo x > /dev/shm/null", false),
        ("head -c 1 /dev/zero > /dev/null", true),
        ("chroot / /bin/true", true),
        ("chown 5:5 /tmp && chmod 4755 /tmp", true),
        ("linux32 uname -m", true),
        ("echo hi | cat > /dev/null", true),
    ] {
        let done = bench.sh(script);
        assert_eq!(done.exit == Exit::Code(0), works, "{script}: {}", done.err);
    }
    let done = bench.sh("unshare -m true");
    assert!(done.err.contains("Operation not permitted"), "{}", done.err);
    let done = bench.sh("linux32 uname -m");
    assert!(matches!(done.out.trim(), "i686" | "armv8l"), "{}", done.out);
}

fn what_a_command_sees() {
    let bench = Bench::new();
    assert_eq!(bench.out("echo $$; hostname"), "2\nsandbox-host\n");
    assert_eq!(
        bench.out("cat /etc/hosts").lines().next(),
        Some("127.0.0.1\tlocalhost sandbox-host")
    );
    assert_eq!(
        bench.out("cat /etc/resolv.conf"),
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    );
    let listing = "cd /dev; for f in *; do stat -c '%n %a %F' $f; done";
    assert_eq!(
        bench.out(listing),
        "fd 777 symbolic link\nfull 666 character special file\nmqueue 1777 directory\n\
         null 666 character special file\nptmx 777 symbolic link\npts 755 directory\n\
         random 666 character special file\nshm 1777 directory\nstderr 777 symbolic link\n\
         stdin 777 symbolic link\nstdout 777 symbolic link\ntty 666 character special file\n\
         urandom 666 character special file\nzero 666 character special file\n"
    );
    assert_eq!(
        bench.out("cat /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware"),
        "0\n"
    );
    assert_eq!(bench.out("set -- /proc/[0-9]*; echo $#"), "2\n");
    // Only what was made for it is mounted, nothing of the machine.
    let mounts = bench.out("cut -d' ' -f2 /proc/mounts");
    for mount in mounts.lines() {
        let known = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/resolv.conf"]
            .iter()
            .any(|at| mount.starts_with(at));
        assert!(known || mount == "/", "{mounts}");
    }
    assert_eq!(mounts.lines().filter(|mount| *mount == "/dev").count(), 1);
}

fn process_one_is_out_of_reach() {
    let bench = Bench::new();
    for script in [
        "cat /proc/1/environ",
        "ls /proc/1/root/",
        "readlink /proc/1/fd/1",
        "cat /proc/1/mem",
        "kill -9 1; kill -TERM 1; sleep 0; kill -0 1 && exit 1",
    ] {
        assert_ne!(bench.sh(script).exit, Exit::Code(0), "{script}");
    }
    // It is alive after the signals.
    assert_eq!(bench.sh("kill -9 1; kill -0 1").exit, Exit::Code(0));
}

fn orphans_are_reaped() {
    let bench = Bench::new();
    let script = "for i in 1 2 3 4 5; do (sh -c 'exit 3' &) ; done; \
                  while [ \"$(ls -d /proc/[0-9]* | wc -l)\" -gt 4 ]; do :; done; echo reaped";
    assert_eq!(bench.out(script), "reaped\n");
}

fn what_runs_in_the_background_ends(ground: Ground) {
    let bench = Bench::small(ground);
    let before = Instant::now();
    let marker = match ground {
        Ground::Plain => "1234568",
        _ => "1234567",
    };
    let done = bench.sh(&format!(
        "sleep {marker} & setsid sleep {marker} & trap '' TERM; echo started"
    ));
    assert_eq!((done.exit, done.out.as_str()), (Exit::Code(0), "started\n"));
    assert!(before.elapsed() < Duration::from_secs(60));
    assert_eq!(processes_with(marker), Vec::<String>::new());
}

fn mount_points_are_taken_away() {
    let bench = Bench::with(|lower| {
        fs::create_dir(lower.join("bin")).unwrap();
        busybox(lower);
    });
    let (before, mounted) = (tree(&bench.root()), mount_table());
    assert_eq!(bench.out("ls /"), "bin\ndev\netc\nproc\nsys\n");
    assert_eq!(tree(&bench.root()), before);
    assert_eq!(new_mounts(&mounted), Vec::<String>::new());
    // What the command itself makes stays.
    bench.out("echo x > /etc/new; touch -d @1000 /etc");
    let after = tree(&bench.root());
    let names: Vec<_> = after
        .keys()
        .filter(|name| !before.contains_key(*name))
        .collect();
    assert_eq!(names, ["etc", "etc/new"]);
    assert_eq!(after["etc"], (1000, 0));
    assert_eq!(
        fs::metadata(bench.root().join("etc")).unwrap().mode() & 0o7777,
        0o755
    );
}

fn mount_points_in_an_overlay() {
    let bench = Bench::new();
    let before = tree(&bench.root());
    bench.out("true");
    assert_eq!(tree(&bench.root()), before);
    // The directory was copied up; nothing is in it, no whiteout either.
    assert_eq!(bench.upper(), ["etc"]);
    bench.out("rm -r /tmp");
    assert_eq!(bench.upper(), ["etc", "tmp"]);
    let whiteout = fs::symlink_metadata(bench.directory.path().join("upper/tmp")).unwrap();
    assert!(whiteout.file_type().is_char_device());
}

fn a_linked_resolv_conf() {
    let bench = Bench::new();
    fs::create_dir(bench.root().join("run")).unwrap();
    symlink(
        "../run/systemd/resolve/stub",
        bench.root().join("etc/resolv.conf"),
    )
    .unwrap();
    let before = tree(&bench.root());
    assert_eq!(
        bench.out("cat /etc/resolv.conf"),
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    );
    assert_eq!(tree(&bench.root()), before);
}

fn hostile_links() {
    let outside = tempfile::tempdir().unwrap();
    for (name, target) in [
        ("proc", "../../.."),
        ("proc", "/"),
        ("sys", "/bin"),
        ("dev", outside.path().to_str().unwrap()),
        ("proc", "proc"),
    ] {
        let bench_root = |lower: &Path| {
            fs::create_dir(lower.join("bin")).unwrap();
            busybox(lower);
            symlink(target, lower.join(name)).unwrap();
        };
        // One sandbox a process, so each case has its own.
        in_child(|| {
            let bench = Bench::with(bench_root);
            let before = tree(&bench.root());
            let error = bench
                .try_run(&sh("true"))
                .map(|done| done.exit)
                .unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("mount /{name}: ")),
                "{error}"
            );
            assert_eq!(tree(&bench.root()), before);
        });
    }
    let bench = Bench::with(|lower| {
        fs::create_dir(lower.join("bin")).unwrap();
        busybox(lower);
        symlink("../../../../../..", lower.join("etc")).unwrap();
    });
    // Inside of the root `..` stops at the root.
    let before = tree(&bench.root());
    assert_eq!(bench.out("ls / | grep -c -e hosts -e resolv.conf"), "2\n");
    assert_eq!(tree(&bench.root()), before);
    assert!(!Path::new("/hosts").exists());
}

fn files_of_a_command(ground: Ground) {
    let bench = Bench::small(ground);
    let before = tree(&bench.root());
    let mut script = command(&["/dev/pipes/EOF"]);
    script.identity.uid = 1000;
    script.files = vec![
        (
            b"/dev/pipes/EOF".to_vec(),
            0o755,
            b"#!/bin/sh\necho $0; cat /opt/a/b\n".to_vec(),
        ),
        (b"/opt/a/b".to_vec(), 0o644, b"content".to_vec()),
    ];
    let done = bench.run(&script);
    assert_eq!(
        (done.exit, done.out.as_str(), done.err.as_str()),
        (Exit::Code(0), "/dev/pipes/EOF\ncontent", "")
    );
    assert_eq!(tree(&bench.root()), before);
    script.files = vec![(b"/bin/busybox/x".to_vec(), 0o644, Vec::new())];
    assert!(bench.try_run(&script).is_err());
    assert_eq!(tree(&bench.root()), before);
}

fn cancel_ends_a_command(ground: Ground) {
    let bench = Bench::small(ground);
    let cancel = Cancel::new().unwrap();
    let before = Instant::now();
    let marker = match ground {
        Ground::Plain => "7654322",
        _ => "7654321",
    };
    let mut out = Vec::new();
    let switch = cancel.clone();
    let exit = bench
        .sandbox
        .run(
            bench.entry(&bench.root()),
            &sh(&format!(
                "trap '' TERM INT; sleep {marker} & echo started; sleep {marker}"
            )),
            &mut |_, bytes| {
                out.extend(bytes);
                switch.cancel();
            },
            &mut |_| {},
            &cancel,
        )
        .unwrap();
    assert_eq!((exit, out.as_slice()), (Exit::Cancelled, &b"started\n"[..]));
    assert!(before.elapsed() < Duration::from_secs(30));
    assert_eq!(processes_with(marker), Vec::<String>::new());
    assert!(!tree(&bench.root()).contains_key("proc"));
    // The helper is none the worse for it.
    assert_eq!(bench.out("echo next"), "next\n");
}

fn a_cancelled_build_starts_nothing(ground: Ground) {
    let bench = Bench::small(ground);
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let done = bench.try_run_until(&sh("echo x > /made"), &cancel).unwrap();
    assert_eq!(done.exit, Exit::Cancelled);
    assert!(bench.upper().is_empty());
}

fn commands_run_side_by_side() {
    let bench = Bench::new();
    // Mount points are there for all, so that no command takes away another's.
    for path in ["proc", "sys", "dev"] {
        fs::create_dir(bench.root().join(path)).unwrap();
    }
    for path in ["etc/hosts", "etc/resolv.conf"] {
        fs::write(bench.root().join(path), b"").unwrap();
    }
    bench.out("mkfifo /tmp/a /tmp/b");
    std::thread::scope(|scope| {
        // Each waits for the other, so neither could end alone.
        let one = scope.spawn(|| bench.out("echo 1 > /tmp/a; cat /tmp/b"));
        let two = scope.spawn(|| bench.out("cat /tmp/a; echo 2 > /tmp/b"));
        assert_eq!(
            (one.join().unwrap().as_str(), two.join().unwrap().as_str()),
            ("2\n", "1\n")
        );
        let many: Vec<_> = (0..16)
            .map(|number| {
                let bench = &bench;
                scope.spawn(move || bench.sh(&format!("echo {number}; exit {number}")))
            })
            .collect();
        for (number, thread) in (0..).zip(many) {
            let done = thread.join().unwrap();
            assert_eq!(
                (done.exit, done.out),
                (Exit::Code(number), format!("{number}\n"))
            );
        }
    });
}

fn large_requests(ground: Ground) {
    let bench = Bench::small(ground);
    let mut large = sh("echo ${#LARGE}; wc -c < /dev/pipes/EOF");
    large
        .env
        .push([b"LARGE=".to_vec(), vec![b'x'; 100_000]].concat());
    large
        .env
        .extend((0..3000).map(|number| format!("V{number}=value").into_bytes()));
    large.files = vec![(b"/dev/pipes/EOF".to_vec(), 0o755, vec![b'#'; 8 << 20])];
    let done = bench.run(&large);
    assert_eq!(done.out, format!("100000\n{}\n", 8 << 20));
    // The kernel refuses one string of more than 128 KiB.
    large.env.push(vec![b'x'; 200_000]);
    let done = bench.run(&large);
    assert_eq!(
        (done.exit, done.err.as_str()),
        (Exit::Code(255), "exec /bin/sh: argument list too long\n")
    );
}

fn a_root_that_is_none() {
    let bench = Bench::new();
    let run = |root: &Path| {
        bench
            .sandbox
            .run(
                Entry::Pivot(root),
                &sh("true"),
                &mut |_, _| {},
                &mut |_| {},
                &Cancel::new().unwrap(),
            )
            .unwrap_err()
            .to_string()
    };
    assert!(run(Path::new("/nowhere")).starts_with("open the root /nowhere: "));
    let plain = bench.directory.path().join("lower");
    assert!(run(&plain).starts_with(&format!("make {} the root: ", plain.display())));
    assert!(!tree(&plain).contains_key("proc"));
    assert_eq!(bench.out("echo still"), "still\n");
}

/// Runs a command that does not end and says when it runs.
fn builder(seconds: &str) -> ExitCode {
    let bench = Bench::new();
    let mut tell = |_: Stream, bytes: &[u8]| {
        use std::io::Write;
        std::io::stdout().write_all(bytes).unwrap();
    };
    let script = format!(
        "sleep {seconds} & cat /m /t/b/busybox | wc -c > /t/x; echo started; sleep {seconds}"
    );
    let everything = mounts::mounting(
        &script,
        vec![
            mounts::at("/m", mounts::memory(0o644, "secret")),
            mounts::at("/t", mounts::tmpfs(None)),
            mounts::at("/t/b", mounts::bind(&bench.root().join("bin"))),
        ],
    );
    bench
        .sandbox
        .run(
            Entry::Pivot(&bench.root()),
            &everything,
            &mut tell,
            &mut |_| {},
            &Cancel::new().unwrap(),
        )
        .unwrap();
    ExitCode::SUCCESS
}

fn nothing_outlives_a_killed_builder() {
    let marker = "3141592";
    // Of a killed process nobody takes the directory away.
    let scratch = tempfile::tempdir().unwrap();
    let builder = std::process::Command::new(std::env::current_exe().unwrap())
        .env("SANDBOX_TEST", format!("builder={marker}"))
        .env("TMPDIR", scratch.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut builder = Killed(builder);
    let mut out = BufReader::new(builder.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    // The shell and a sleep or two; one that is being executed has no command line for a moment.
    until(|| processes_with(marker).len() >= 2);
    drop(builder);
    // Helper and process 1 have the pipe too, so its end is their end.
    out.read_to_string(&mut line).unwrap();
    until(|| processes_with(marker).is_empty());
    let scratch = scratch.path().to_str().unwrap();
    assert!(mount_table().iter().all(|mount| !mount.contains(scratch)));
}

fn children() -> String {
    fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap()
}

fn the_helper_ends_with_the_sandbox() {
    assert_eq!(children(), "");
    let sandbox = Sandbox::start().unwrap();
    let helper = children().trim().to_owned();
    let name = || fs::read_to_string(format!("/proc/{helper}/comm")).unwrap();
    until(|| name() == "shutter-helper\n");
    drop(sandbox);
    assert_eq!(children(), "");
}

fn starting_with_threads() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let error = Sandbox::start().err().expect("refused");
    assert!(
        error.to_string().contains("more than one thread"),
        "{error}"
    );
    drop(stop);
    let _ = thread.join().unwrap();
}

fn time_of_a_command(ground: Ground) {
    let bench = Bench::small(ground);
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let before = Instant::now();
            assert_eq!(bench.run(&command(&["/bin/true"])).exit, Exit::Code(0));
            before.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "20 runs of /bin/true: fastest {:?}, median {:?}, slowest {:?}",
        times[0], times[10], times[19]
    );
}
