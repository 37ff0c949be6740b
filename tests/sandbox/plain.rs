//! Commands where nothing is mounted and no namespace made: what they see, what is left of them, and
//! what they may try.

use crate::bench::{
    Bench, Ground, Killed, assert_same, in_child, listing, processes_with, sh, until,
};
use crate::mounts::{
    at, bench, bind, fill, memory, mounting, readonly, refuse_call, run_without_trace, tmpfs,
};
use shutter::plan::Network;
use shutter::rootfs::Entry;
use shutter::sandbox::{Command, Exit, Sandbox, What};
use shutter::sys::Cancel;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

pub const CASES: &[(&str, fn())] = &[
    ("a_chroot_has_what_it_can_have", what_a_chroot_has),
    ("a_chroot_has_the_hosts_names", names_of_the_host),
    ("places_are_put_back", places_are_put_back),
    ("copies_are_thrown_away", copies_are_thrown_away),
    ("kept_directories_come_back", kept_directories),
    ("secrets_of_a_chroot_are_wiped", secrets_are_wiped),
    ("nothing_plain_outlives_its_run", nothing_outlives_a_run),
    ("nothing_plain_outlives_a_killed_builder", killed_builder),
    ("a_killed_helper_ends_a_command", killed_helper),
    ("a_session_that_began_outside", session_from_outside),
    ("staying_where_the_builder_is", staying),
    ("what_a_killed_keeper_left_is_repaired", repaired),
    ("what_takes_a_namespace_is_refused", refused),
    ("starting_where_nothing_may_be_mounted", starting),
];

/// Runs a script that must succeed and gives what it printed.
fn out(bench: &Bench, script: &str) -> String {
    let done = bench.sh(script);
    assert_eq!(done.exit, Exit::Code(0), "{script}: {}", done.err);
    done.out
}

fn what_a_chroot_has() {
    let bench = Bench::on(Ground::Plain, |root| {
        fill(root);
        fs::create_dir(root.join("dev")).unwrap();
        fs::write(root.join("dev/own"), "of the image").unwrap();
    });
    let before = listing(&bench.root());
    let script = "cd /dev; for f in *; do stat -c '%n %a %F' $f; done; echo x > null && \
                  head -c 3 zero | wc -c; head -c 5 /dev/urandom | wc -c; \
                  echo x > /dev/shm/x; mkdir /dev/new; touch /dev/new/x; ls /proc";
    let done = bench.sh(script);
    assert_eq!(
        done.out,
        "fd 777 symbolic link\nfull 666 character special file\n\
         null 666 character special file\nptmx 666 character special file\npts 755 directory\n\
         random 666 character special file\nshm 1777 directory\nstderr 777 symbolic link\n\
         stdin 777 symbolic link\nstdout 777 symbolic link\ntty 666 character special file\n\
         urandom 666 character special file\nzero 666 character special file\n3\n5\n",
        "{}",
        done.err
    );
    assert_same(&listing(&bench.root()), &before, "");
    out(&bench, "true");
    let warned = bench.warned.lock().unwrap();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("RUN has no /proc"), "{warned:?}");
}

fn names_of_the_host() {
    let bench = Bench::small(Ground::Plain);
    let hosts = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(out(&bench, "cat /etc/resolv.conf"), hosts);
    let script = "grep -qw $(hostname) /etc/hosts && grep -c sandbox-host /etc/hosts";
    assert_eq!(out(&bench, script), "1\n");
}

/// What was there, by a name of it, and the commands that do something to the place.
fn places_are_put_back() {
    type Prepare = fn(&Path);
    let nothing: Prepare = |_| {};
    let file: Prepare = |root| {
        let path = root.join("etc/resolv.conf");
        fs::write(&path, "of the image").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o4751)).unwrap();
        std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o4751)).unwrap();
    };
    let link: Prepare = |root| {
        fs::create_dir_all(root.join("run/there")).unwrap();
        fs::write(root.join("run/there/stub"), "stub").unwrap();
        symlink("../run/there/stub", root.join("etc/resolv.conf")).unwrap();
    };
    let lost: Prepare = |root| {
        symlink("../run/nowhere/stub", root.join("etc/resolv.conf")).unwrap();
    };
    // What the command does, and the names that are other than before.
    let scripts: [(&str, &[&str]); 9] = [
        ("true", &[]),
        ("echo x > /etc/resolv.conf; chmod 600 /etc/hosts", &[]),
        ("rm /etc/resolv.conf /etc/hosts; rm -r /opt", &["etc"]),
        (
            "rm /etc/resolv.conf; ln -s /file /etc/resolv.conf; mkdir /etc/resolv.conf.d",
            &["etc", "etc/resolv.conf.d"],
        ),
        ("mv /opt /taken; mkdir /opt; echo x > /opt/x", &[]),
        ("rm -f /etc/hosts; mkdir -p /etc/hosts/a/b", &["etc"]),
        ("rm -rf /run /var/lib; ln -s /opt /var/lib", &["var"]),
        ("find / -name '.shutter*' -exec rm -rf {} +", &[]),
        ("kill -9 $PPID; sleep 100", &[]),
    ];
    for prepare in [nothing, file, link, lost] {
        for (script, expected) in &scripts {
            in_child(|| {
                let bench = Bench::on(Ground::Plain, |root| {
                    fill(root);
                    prepare(root);
                    for at in [7, 8, 9] {
                        let time = std::time::UNIX_EPOCH + Duration::new(at, 5);
                        for path in ["etc", "opt", "var"] {
                            let dir = fs::File::open(root.join(path)).unwrap();
                            dir.set_modified(time).unwrap();
                        }
                    }
                });
                let before = inodes(&bench.root());
                let linked = bench.root().join("etc/resolv.conf").is_symlink();
                let mounts = vec![at("/opt", tmpfs(None)), at("/var/lib", tmpfs(None))];
                bench.run(&mounting(script, mounts));
                let after = inodes(&bench.root());
                let differ: Vec<&str> = before
                    .keys()
                    .chain(after.keys())
                    .filter(|name| before.get(*name) != after.get(*name))
                    // The root itself, and what the command removed for good.
                    .filter(|name| !name.is_empty() && !name.starts_with("run"))
                    // A link to the place can be removed where there are mounts too.
                    .filter(|name| !(linked && *name == "etc/resolv.conf"))
                    .map(String::as_str)
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect();
                assert_eq!(&differ, expected, "{script}");
            });
        }
    }
}

/// Gives everything that can be seen of what is below a directory, numbers of inodes included.
fn inodes(directory: &Path) -> BTreeMap<String, String> {
    let mut found = listing(directory);
    for (name, said) in &mut found {
        let meta = fs::symlink_metadata(directory.join(name)).unwrap();
        said.push_str(&format!(" {}", meta.ino()));
    }
    found
}

/// Gives directories the time that scripts give them after they changed something in them.
fn still(bench: &Bench, directories: &[&str]) {
    for path in directories {
        let dir = fs::File::open(bench.root().join(path)).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_secs(9);
        dir.set_modified(time).unwrap();
    }
}

fn copies_are_thrown_away() {
    let (bench, source) = bench(Ground::Plain);
    still(&bench, &["", "tmp"]);
    fs::hard_link(source.join("a"), source.join("sub/deep/a2")).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    for number in 0..300 {
        fs::write(source.join(format!("sub/{number}")), number.to_string()).unwrap();
    }
    fs::set_permissions(source.join("sub"), PermissionsExt::from_mode(0o2751)).unwrap();
    let before = inodes(&source);
    let copy = |path: &Path| {
        let What::Bind(opened) = bind(path) else {
            unreachable!()
        };
        What::Copy(opened)
    };
    for (mounts, script, expected) in [
        (
            vec![readonly("/ctx", bind(&source))],
            "echo x > /ctx/a; rm -r /ctx/sub; cat /ctx/a; cat /ctx/run | head -1",
            "x\n#!/bin/sh\n",
        ),
        (
            vec![at("/ctx", copy(&source))],
            "cat /ctx/sub/299; stat -c '%a %h' /ctx/sub /ctx/a /ctx/sub/deep/a2; \
             du -k /ctx/sparse | cut -f1; echo x >> /ctx/new",
            "2992751 3\n644 2\n644 2\n0\n",
        ),
        (
            vec![at("/file", copy(&source.join("a")))],
            "cat /file; echo x > /file; chmod 0 /file",
            "A",
        ),
        (
            vec![readonly("/ctx", bind(&source))],
            "mv /ctx /tmp/x; mkdir /ctx; echo x > /ctx/x; cat /tmp/x/a; touch -d @9 /tmp /",
            "A",
        ),
        (
            vec![at("/ctx/x", tmpfs(None)), at("/ctx", copy(&source))],
            "ls -A /ctx/x; rm -rf /ctx; touch /ctx; touch -d @9 /",
            "",
        ),
    ] {
        let done = run_without_trace(&bench, &mounting(script, mounts)).unwrap();
        assert_eq!(done.out, expected, "{script}: {}", done.err);
        assert_same(&inodes(&source), &before, script);
    }
}

fn kept_directories() {
    let (bench, _) = bench(Ground::Plain);
    still(&bench, &["", "bin"]);
    // On the root's own file system, and on another one.
    let far = tempfile::tempdir_in("/var/tmp").unwrap();
    let near = bench.directory.path().join("caches");
    for around in [near.as_path(), far.path()] {
        let cache = around.join("cache");
        fs::create_dir_all(cache.join("sub")).unwrap();
        fs::write(cache.join("kept"), "kept").unwrap();
        fs::write(cache.join("sub/gone"), "gone").unwrap();
        fs::set_permissions(&cache, PermissionsExt::from_mode(0o2770)).unwrap();
        let twice = || vec![at("/c", bind(&cache)), at("/opt", bind(&cache))];
        let steps: [(&str, &str, &[&str]); 7] = [
            (
                "stat -c %a /c; cat /c/kept; rm -r /c/sub; mkdir /c/new; echo 1 > /c/new/x",
                "2770\nkept",
                &["kept", "new", "new/x"],
            ),
            (
                "cat /opt/new/x; echo 2 > /opt/new/x; ls /c/new",
                "1\nx\n",
                &["kept", "new", "new/x"],
            ),
            (
                "mv /c /bin/d; cat /bin/d/new/x; touch -d @9 / /bin",
                "2\n",
                &["kept", "new", "new/x"],
            ),
            ("rm -rf /c/* /opt/*; ln -s a /c/l; exit 3", "", &["l"]),
            ("ln /c/l /c/m; touch -h -d @5 /c/l", "", &["l", "m"]),
            ("kill -9 $PPID; sleep 10", "", &["l", "m"]),
            ("rm -rf /c; touch /c; touch -d @9 /", "", &[]),
        ];
        for (script, expected, left) in steps {
            let done = run_without_trace(&bench, &mounting(script, twice())).unwrap();
            assert_eq!(done.out, expected, "{script}: {}", done.err);
            let names: Vec<String> = listing(&cache)
                .into_keys()
                .filter(|n| !n.is_empty())
                .collect();
            assert_eq!(names, left, "{script}");
            let mode = fs::metadata(&cache).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o2770, "{script}");
        }
    }
}

fn secrets_are_wiped() {
    let (bench, _) = bench(Ground::Plain);
    let script = "cat /run/secrets/x; ln /run/secrets/x /kept; mv /run/secrets/x /moved";
    let mounts = vec![at("/run/secrets/x", memory(0o400, "secret-value"))];
    assert_eq!(bench.run(&mounting(script, mounts)).out, "secret-value");
    assert_eq!(fs::read_to_string(bench.root().join("kept")).unwrap(), "");
    assert!(!bench.root().join("moved").exists());
    assert!(!bench.root().join("run").exists());
    // It was in memory, since the root is.
    assert_eq!(bench.warned.lock().unwrap().len(), 1);
    let disk = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = disk.path().join("root");
    fs::create_dir(&root).unwrap();
    fill(&root);
    let before = listing(&root);
    let mut warned = Vec::new();
    for _ in 0..2 {
        let mounts = vec![at("/etc/tok", memory(0o440, "secret-value"))];
        let mut printed = Vec::new();
        let exit = bench.sandbox.run(
            Entry::Chroot(&root),
            &mounting("stat -c '%a %u %g' /etc/tok; cat /etc/tok", mounts),
            &mut |_, bytes| printed.extend_from_slice(bytes),
            &mut |text| warned.push(text.to_owned()),
            &Cancel::new().unwrap(),
        );
        assert_eq!(exit.unwrap(), Exit::Code(0));
        assert_eq!(String::from_utf8_lossy(&printed), "440 5 6\nsecret-value");
    }
    assert_same(&listing(&root), &before, "");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("the secret /etc/tok lies on a disk"));
}

fn nothing_outlives_a_run() {
    let bench = Bench::small(Ground::Plain);
    let marker = "2718281";
    // With whom: what bounds the processes of a user does not bound root's.
    let cases = [
        // Forked twice, in a session of its own, deaf, with the pipes.
        (
            &[0, 4321][..],
            format!("(setsid sh -c 'trap \"\" TERM HUP; (sleep {marker} &) & sleep {marker}' &)"),
        ),
        // Each in a session of its own, starting two others.
        (
            &[4321],
            format!(
                "cat > /tmp/n <<'END'\n#!/bin/sh\nsetsid /tmp/n {marker} &\n\
                 setsid /tmp/n {marker} &\nEND\nchmod +x /tmp/n; ulimit -u 200; \
                 (/tmp/n {marker} &)"
            ),
        ),
        // A bomb of one group.
        (
            &[4321],
            "ulimit -u 200; b() { b | b & }; b 2> /dev/null".to_owned(),
        ),
        (
            &[0],
            format!("sleep {marker} & kill -9 $PPID; sleep {marker}"),
        ),
        (
            &[0, 4321],
            format!("(setsid sh -c 'kill -STOP $$; sleep {marker}' &)"),
        ),
    ];
    for (users, script) in &cases {
        for uid in *users {
            let mut command = sh(script);
            command.identity.uid = *uid;
            let before = Instant::now();
            bench.run(&command);
            assert_eq!(processes_with(marker), Vec::<String>::new(), "{script}");
            assert_eq!(processes_with("/tmp/n"), Vec::<String>::new(), "{script}");
            assert!(before.elapsed() < Duration::from_secs(60), "{script}");
        }
    }
    // Who kills the keeper has not succeeded.
    let before = listing(&bench.root());
    let script = format!("sleep {marker} & (setsid sleep {marker} &); sleep {marker}");
    let error = {
        // The keeper is the parent of the command's parent, which a chroot does not show; so from
        // outside.
        let cancel = Cancel::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                until(|| processes_with(marker).len() >= 3);
                for keeper in named("shutter-keeper") {
                    let _ = rustix::process::kill_process(keeper, rustix::process::Signal::KILL);
                }
            });
            bench.try_run_until(&sh(&script), &cancel)
        })
    };
    let error = error.map(|done| done.exit).unwrap_err().to_string();
    assert!(error.contains("keeper was killed"), "{error}");
    assert_eq!(processes_with(marker), Vec::<String>::new());
    // Of a root that is thrown away then.
    assert!(listing(&bench.root()) != before);
}

/// Gives the descendants of this process of a name, the helper's included.
fn named(name: &str) -> Vec<rustix::process::Pid> {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let comm = fs::read_to_string(path.join("comm")).ok()?;
            let id = path.file_name()?.to_str()?.parse().ok()?;
            let mut at: i32 = id;
            while at > 0 && u32::try_from(at).ok()? != std::process::id() {
                let stat = fs::read_to_string(format!("/proc/{at}/stat")).ok()?;
                at = stat
                    .rsplit_once(')')?
                    .1
                    .split_whitespace()
                    .nth(1)?
                    .parse()
                    .ok()?;
            }
            (at > 0 && comm.trim() == name)
                .then(|| rustix::process::Pid::from_raw(id))
                .flatten()
        })
        .collect()
}

/// Runs a command that does not end in a plain root and says when it runs.
pub fn builder(seconds: &str, root: &str) -> std::process::ExitCode {
    let sandbox = Sandbox::start().unwrap();
    let root = Path::new(root);
    let mut tell = |_: shutter::progress::Stream, bytes: &[u8]| {
        use std::io::Write;
        std::io::stdout().write_all(bytes).unwrap();
    };
    let script = format!("sleep {seconds} & (setsid sleep {seconds} &); echo started; sleep 9999");
    let mounts = vec![
        at("/opt", tmpfs(None)),
        at("/c", bind(&root.join("../cache"))),
        at("/file", memory(0o644, "secret")),
    ];
    let command = mounting(&script, mounts);
    let cancel = Cancel::new().unwrap();
    let entry = Entry::Chroot(root);
    let done = sandbox.run(entry, &command, &mut tell, &mut |_| {}, &cancel);
    std::process::ExitCode::from(u8::from(done.is_err()))
}

fn killed_builder() {
    let marker = "1618033";
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    fs::create_dir_all(scratch.path().join("cache/sub")).unwrap();
    fs::create_dir(&root).unwrap();
    fill(&root);
    // But for its own time: the cache in it was moved and is back.
    let inodes_below = || {
        let mut found = inodes(scratch.path());
        found.remove("");
        found
    };
    let before = inodes_below();
    let builder = std::process::Command::new(std::env::current_exe().unwrap())
        .env(
            "SANDBOX_TEST",
            format!("plain={marker}:{}", root.to_str().unwrap()),
        )
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut builder = Killed(builder);
    let mut out = BufReader::new(builder.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    assert!(root.join("c/sub").exists());
    drop(builder);
    // The keeper has the pipe too, so its end is the keeper's.
    out.read_to_string(&mut line).unwrap();
    assert_eq!(processes_with(marker), Vec::<String>::new());
    assert_same(&inodes_below(), &before, "");
}

fn killed_helper() {
    let bench = Bench::on(Ground::Plain, fill);
    let before = inodes(&bench.root());
    let marker = "5772156";
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            until(|| processes_with(marker).len() >= 3);
            for helper in named("shutter-helper") {
                let _ = rustix::process::kill_process(helper, rustix::process::Signal::KILL);
            }
        });
        let script = format!("(setsid sleep {marker} &); sleep {marker}; exit 3");
        bench.try_run(&mounting(&script, vec![at("/opt", tmpfs(None))]))
    });
    let error = error.map(|done| done.exit).unwrap_err().to_string();
    assert!(error.contains("helper"), "{error}");
    assert_eq!(processes_with(marker), Vec::<String>::new());
    assert_same(&inodes(&bench.root()), &before, "");
}

/// In a PID namespace without a session of its own, as a pod's debugger or `nsenter` has it, the
/// kernel calls the session 0.
fn session_from_outside() {
    for name in [
        "a_killed_helper_ends_a_command",
        "nothing_plain_outlives_its_run",
    ] {
        let done = std::process::Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{name}: {said}");
    }
}

fn staying() {
    let sandbox = Sandbox::start().unwrap();
    let place = tempfile::tempdir().unwrap();
    let at_ = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let cache = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "before").unwrap();
    fs::create_dir(place.path().join("dir")).unwrap();
    fs::write(place.path().join("dir/x"), "before").unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let before = inodes(place.path());
    let root = fs::metadata("/").unwrap();
    let mut warned = Vec::new();
    let mut run = |command: Command| {
        let mut printed = Vec::new();
        let exit = sandbox.run(
            Entry::Stay,
            &Command {
                env: vec![b"PATH=/bin:/usr/bin".to_vec()],
                ..command
            },
            &mut |_, bytes| printed.extend_from_slice(bytes),
            &mut |text| warned.push(text.to_owned()),
            &Cancel::new().unwrap(),
        );
        (
            exit.unwrap(),
            String::from_utf8_lossy(&printed).into_owned(),
        )
    };
    let mut secret = mounting(
        &format!(
            "cat {0}; readlink {0} | cut -c 1-9; cat {0} > /dev/null; ls -A {1}",
            at_("file"),
            at_("dir")
        ),
        vec![
            at(&at_("file"), memory(0o440, "secret\n")),
            at(&at_("dir"), bind(cache.path())),
        ],
    );
    secret.identity.gid = 6;
    secret.identity.uid = 4321;
    fs::set_permissions(cache.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(cache.path().join("cached"), "").unwrap();
    assert_eq!(
        run(secret),
        (Exit::Code(0), "secret\n/dev/shm/\ncached\n".to_owned())
    );
    let mut script = sh("");
    script.args = vec![b"/dev/pipes/EOF".to_vec()];
    let text = "#!/bin/sh\necho $0\ngrep -E '^Cap(Eff|Bnd)|^NoNew' /proc/self/status\n";
    script.files = vec![(b"/dev/pipes/EOF".to_vec(), 0o755, text.into())];
    let (exit, printed) = run(script);
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(
        printed,
        "/dev/pipes/EOF\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\n"
    );
    // The builder and its helpers cannot be looked into.
    let look = format!(
        "for p in {} $PPID; do cat /proc/$p/environ 2> /dev/null && echo $p; done; true",
        std::process::id()
    );
    assert_eq!(run(sh(&look)), (Exit::Code(0), String::new()));
    assert_same(&inodes(place.path()), &before, "");
    assert!(cache.path().join("cached").exists());
    assert_eq!(
        fs::metadata("/").unwrap().modified().unwrap(),
        root.modified().unwrap()
    );
    for dir in ["/", "/dev", "/dev/shm", place.path().to_str().unwrap()] {
        let left = fs::read_dir(dir).unwrap().flatten();
        let left: Vec<_> = left
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with(".shutter") || name == "pipes")
            .collect();
        assert_eq!(left, Vec::<String>::new(), "{dir}");
    }
    assert_eq!(warned, Vec::<String>::new());
}

fn repaired() {
    let sandbox = Sandbox::start().unwrap();
    let marker = "6931471";
    let place = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let at_ = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(place.path().join("file"), "before").unwrap();
    fs::create_dir(place.path().join("dir")).unwrap();
    fs::write(place.path().join("dir/x"), "before").unwrap();
    fs::create_dir(cache.path().join("files")).unwrap();
    let before = [inodes(place.path()), inodes(cache.path())];
    let script = format!("rm -rf {}; sleep {marker}", at_("dir"));
    let mut command = mounting(
        &script,
        vec![
            at(&at_("dir"), tmpfs(None)),
            at(&at_("file"), memory(0o400, "secret")),
            at(&at_("new"), bind(&cache.path().join("files"))),
        ],
    );
    command.env = vec![b"PATH=/bin:/usr/bin".to_vec()];
    let exit = std::thread::scope(|scope| {
        scope.spawn(|| {
            until(|| !processes_with(marker).is_empty());
            for keeper in named("shutter-keeper") {
                let _ = rustix::process::kill_process(keeper, rustix::process::Signal::KILL);
            }
        });
        let cancel = Cancel::new().unwrap();
        sandbox.run(Entry::Stay, &command, &mut |_, _| {}, &mut |_| {}, &cancel)
    });
    assert!(exit.is_err());
    assert_eq!(processes_with(marker), Vec::<String>::new());
    assert!(cache.path().join("files").symlink_metadata().is_err());
    let repaired = shutter::sandbox::repair().unwrap();
    assert!(repaired.contains(&at_("file").into()), "{repaired:?}");
    let after = [inodes(place.path()), inodes(cache.path())];
    for (mut after, mut before) in after.into_iter().zip(before) {
        // Its own time is not what is put back.
        after.remove("");
        before.remove("");
        assert_same(&after, &before, "");
    }
    assert!(
        !shutter::sandbox::repair()
            .unwrap()
            .contains(&at_("file").into())
    );
}

fn refused() {
    let bench = Bench::on(Ground::Plain, fill);
    let alone = Command {
        network: Network::None,
        ..sh("true")
    };
    let error = run_without_trace(&bench, &alone).err().unwrap();
    assert!(error.contains("run with --network=none"), "{error}");
    assert!(error.contains("--rootfs=overlay"), "{error}");
    let sub = bench.root().join("bin");
    for (mounts, expected) in [
        (vec![at("/", tmpfs(None))], "mount /: the root itself"),
        (
            vec![at("/proc", tmpfs(None))],
            "mount /proc: nothing can be",
        ),
        (
            vec![at("/self/9", memory(0o644, "m"))],
            "mount /self/9: nothing can be",
        ),
        (
            vec![at("/file", tmpfs(None))],
            "mount /file: Not a directory",
        ),
        (
            vec![at("/a/b", tmpfs(None)), at("/loop", tmpfs(None))],
            "mount /loop: Too many levels",
        ),
        (
            vec![at("/opt", memory(0o644, "m"))],
            "mount /opt: Is a directory",
        ),
        (
            vec![readonly("/ctx", bind(&sub)), at("/ctx/no", tmpfs(None))],
            "/ctx can only be read, and has no directory no",
        ),
    ] {
        let error = run_without_trace(&bench, &mounting("echo ran", mounts))
            .map(|done| done.out)
            .expect_err(expected);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let done = run_without_trace(&bench, &mounting("true", vec![at("/x", tmpfs(Some(4096)))]));
    assert!(done.is_ok());
    let warned = bench.warned.lock().unwrap().join("\n");
    assert!(warned.contains("its size is not bounded"), "{warned}");
}

/// As in a container with Docker's default profile.
fn starting() {
    in_child(|| {
        let held = rustix::thread::capabilities(None).unwrap();
        let docker = rustix::thread::CapabilitySet::from_bits_retain(0xa804_25fb);
        refuse_call(libc::SYS_mount, libc::EPERM);
        for number in 0..64 {
            let one = rustix::thread::CapabilitySet::from_bits_retain(1 << number);
            if !docker.contains(one)
                && rustix::thread::capability_is_in_bounding_set(one) == Ok(true)
            {
                rustix::thread::remove_capability_from_bounding_set(one).unwrap();
            }
        }
        let sets = rustix::thread::CapabilitySets {
            effective: held.permitted & docker,
            permitted: held.permitted & docker,
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let sandbox = Sandbox::start().unwrap();
        let root = tempfile::tempdir().unwrap();
        fill(root.path());
        let run = |entry, command: &Command| {
            let mut printed = Vec::new();
            let mut tell = |_, bytes: &[u8]| printed.extend_from_slice(bytes);
            let cancel = Cancel::new().unwrap();
            sandbox
                .run(entry, command, &mut tell, &mut |_| {}, &cancel)
                .map(|exit| (exit, String::from_utf8_lossy(&printed).into_owned()))
                .map_err(|error| error.to_string())
        };
        let error = run(Entry::Pivot(root.path()), &sh("true")).unwrap_err();
        assert!(error.contains("CAP_SYS_ADMIN"), "{error}");
        let who = "echo x > /dev/null; id -u; chown 5:5 /tmp; stat -c %u /tmp";
        let done = run(Entry::Chroot(root.path()), &sh(who)).unwrap();
        assert_eq!(done, (Exit::Code(0), "0\n5\n".to_owned()));
        let insecure = Command {
            insecure: true,
            ..sh("true")
        };
        let error = run(Entry::Chroot(root.path()), &insecure).unwrap_err();
        assert!(error.contains("a privileged one has"), "{error}");
    });
}
