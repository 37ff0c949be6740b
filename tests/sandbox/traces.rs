//! What mounts leave to others: no change of a step, no secret, nothing of a command beside.

use crate::bench::{Bench, listing, processes_with, sh, until};
use crate::mounts::{at, bind, fill, memory, mounting, readonly, source, tmpfs};
use rustix::fs::{CWD, FileType, Mode};
use shutter::changeset::Action;
use shutter::fs::{Meta, Time};
use shutter::progress::Stream;
use shutter::request::RootfsChoice;
use shutter::rootfs::Entry;
use shutter::sandbox::{Exit, Mount, What};
use shutter::sys::Cancel;
use std::collections::HashMap;
use std::fs;

pub const CASES: &[(&str, fn())] = &[
    (
        "mount_points_are_no_changes_of_a_step",
        mount_points_are_no_changes,
    ),
    ("secrets_are_nobody_elses", secrets_are_nobody_elses),
    (
        "mounts_of_commands_side_by_side",
        mounts_of_commands_side_by_side,
    ),
];

fn mount_points_are_no_changes() {
    // The sandbox and its process come before the root's threads.
    let bench = Bench::with(|_| {});
    let lower = bench.directory.path().join("image");
    fs::create_dir(&lower).unwrap();
    fill(&lower);
    let source = source(&bench);
    let scratch = bench.directory.path().join("stage");
    fs::create_dir(&scratch).unwrap();
    let top = Meta::dir(0o755, Time::default());
    let mut root = shutter::rootfs::create(
        RootfsChoice::Overlay,
        scratch,
        vec![lower.clone().into()],
        top,
        &Cancel::new().unwrap(),
    )
    .unwrap();
    let everywhere = || {
        vec![
            readonly("/ctx", bind(&source)),
            at("/var/lib/cache", bind(&source.join("sub"))),
            at("/opt", tmpfs(None)),
            at("/opt/in/it", tmpfs(None)),
            at("/etc/tok", memory(0o644, "m")),
            at("/run/secrets/x", memory(0o644, "m")),
            at("/lost", tmpfs(None)),
        ]
    };
    for (script, expected) in [
        ("true", vec![]),
        (
            "echo x > /opt/x; echo y > /var/y; rm /file",
            vec!["/file", "/var", "/var/y"],
        ),
    ] {
        root.begin().unwrap();
        let Entry::Pivot(path) = root.entry() else {
            panic!("an overlay is entered by a mount");
        };
        let exit = bench
            .sandbox
            .run(
                Entry::Pivot(path),
                &mounting(script, everywhere()),
                &mut |_, bytes| panic!("{}", String::from_utf8_lossy(bytes)),
                &mut |_| {},
                &Cancel::new().unwrap(),
            )
            .unwrap();
        assert_eq!(exit, Exit::Code(0), "{script}");
        let changes = root.commit().unwrap().changes;
        // Directories that were copied up are named too, as they were.
        let changed: Vec<String> = changes
            .iter()
            .filter(|change| {
                let was = fs::symlink_metadata(lower.join(change.path.as_path()));
                let Action::Put { meta, .. } = &change.action else {
                    return true;
                };
                !was.is_ok_and(|was| {
                    use std::os::unix::fs::MetadataExt;
                    was.is_dir()
                        && meta.mode == was.mode() & 0o7777
                        && meta.mtime.secs == was.mtime()
                        && i64::from(meta.mtime.nanos) == was.mtime_nsec()
                })
            })
            .map(|change| change.path.to_string())
            .collect();
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(changed, expected, "{script}");
    }
}

/// Gives the descriptors of this process and its descendants that lead to something whose name
/// contains a text.
fn descriptors_with(text: &str) -> Vec<String> {
    let parents: HashMap<u32, u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|process| {
            let process = process.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            let (_, fields) = stat.rsplit_once(')')?;
            Some((process, fields.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let ours = |process: &u32| {
        let mut at = Some(process);
        while let Some(process) = at {
            if *process == std::process::id() {
                return true;
            }
            at = parents.get(process);
        }
        false
    };
    let mut found = Vec::new();
    for process in parents.keys().filter(|process| ours(process)) {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
        for descriptor in descriptors.into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(descriptor.path())
                && target.to_string_lossy().contains(text)
            {
                found.push(format!("{process}: {}", target.display()));
            }
        }
    }
    found
}

/// Cancels at the end, whatever the end is.
struct Cancelled<'a>(&'a Cancel);

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn secrets_are_nobody_elses() {
    let bench = Bench::with(|root| {
        fill(root);
        // So that two commands can be in it at once.
        for path in ["proc", "sys", "dev"] {
            fs::create_dir(root.join(path)).unwrap();
        }
        fs::create_dir_all(root.join("run/secrets")).unwrap();
        for path in ["etc/hosts", "etc/resolv.conf", "run/secrets/x"] {
            fs::write(root.join(path), "").unwrap();
        }
    });
    let marker = "5926535";
    let secret = format!("secret-{marker}-value");
    let mut keeper = mounting(
        &format!("cat /run/secrets/x; echo $TOKEN; cat; sleep {marker}"),
        vec![at("/run/secrets/x", memory(0o400, &secret))],
    );
    if let Some(Mount {
        what: What::Memory { uid, .. },
        ..
    }) = keeper.mounts.first_mut()
    {
        *uid = 0;
    }
    keeper.env.push(format!("TOKEN={secret}").into_bytes());
    // What debug output there is of a command does not name what it mounts.
    assert!(!format!("{:?}", keeper.mounts).contains(marker));
    let cancel = Cancel::new().unwrap();
    std::thread::scope(|scope| {
        let (said, heard) = std::sync::mpsc::channel::<Vec<u8>>();
        let (bench, keeper, cancel) = (&bench, &keeper, &cancel);
        let kept = scope.spawn(move || {
            let mut tell = |_: Stream, bytes: &[u8]| said.send(bytes.to_vec()).unwrap();
            let root = bench.root();
            bench
                .sandbox
                .run(Entry::Pivot(&root), keeper, &mut tell, &mut |_| {}, cancel)
                .unwrap()
        });
        let ended = Cancelled(cancel);
        let mut out = Vec::new();
        while !out.ends_with(b"value\n") {
            out.extend(heard.recv().unwrap());
        }
        assert_eq!(String::from_utf8_lossy(&out), format!("{secret}{secret}\n"));
        // Another command of the same root, with all that it may look at.
        for insecure in [false, true] {
            let mut thief = sh(&format!(
                "cat /run/secrets/x /proc/[0-9]*/root/run/secrets/x /proc/[0-9]*/environ \
                 /proc/[0-9]*/cwd/run/secrets/x 2> /dev/null < /dev/null \
                 | grep -ac {marker}-value; cat /proc/[0-9]*/mountinfo | grep -c secrets; \
                 ls /run/secrets"
            ));
            thief.insecure = insecure;
            assert_eq!(bench.run(&thief).out, "0\n0\nx\n");
        }
        // Nobody has the job any more; the helper may not have come to closing it yet.
        until(|| descriptors_with("shutter-job").is_empty());
        assert_eq!(descriptors_with("shutter-job"), Vec::<String>::new());
        assert_eq!(fs::read(bench.root().join("run/secrets/x")).unwrap(), b"");
        drop(ended);
        assert_eq!(kept.join().unwrap(), Exit::Cancelled);
    });
    assert_eq!(processes_with(marker), Vec::<String>::new());
    assert_eq!(bench.sh("cat /run/secrets/x").out, "");
    // Where the kernel can it keeps them out of swap.
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut version = kernel
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    if (version.next(), version.next()) >= (Some(6), Some(4)) {
        let command = mounting(
            "grep -c '/run/secrets/x .* tmpfs .*noswap' /proc/self/mountinfo",
            vec![at("/run/secrets/x", memory(0o400, "x"))],
        );
        assert_eq!(bench.run(&command).out, "1\n");
    }
}

fn mounts_of_commands_side_by_side() {
    let bench = Bench::with(|root| {
        fill(root);
        for path in ["proc", "sys", "dev", "m"] {
            fs::create_dir(root.join(path)).unwrap();
        }
        for path in ["etc/hosts", "etc/resolv.conf"] {
            fs::write(root.join(path), "").unwrap();
        }
    });
    let before = listing(&bench.root());
    let cache = bench.directory.path().join("cache");
    fs::create_dir(&cache).unwrap();
    rustix::fs::mknodat(
        CWD,
        cache.join("one"),
        FileType::Fifo,
        Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    std::thread::scope(|scope| {
        // The same cache at once: one waits for the other in it.
        let run = |script: &str, own: &str| {
            let mounts = vec![at("/m", bind(&cache)), at("/file", memory(0o644, own))];
            bench.run(&mounting(script, mounts)).out
        };
        let one = scope.spawn(move || run("cat /m/one; cat /file", "1"));
        let two = scope.spawn(move || run("cat /file > /m/one; cat /file", "2"));
        assert_eq!(one.join().unwrap(), "21");
        assert_eq!(two.join().unwrap(), "2");
        let many: Vec<_> = (0..16)
            .map(|number| {
                let (bench, cache) = (&bench, &cache);
                scope.spawn(move || {
                    let own = number.to_string();
                    let mounts = vec![
                        at("/m", bind(cache)),
                        at("/opt", tmpfs(None)),
                        at("/file", memory(0o644, &own)),
                    ];
                    let script = format!("touch /m/{own} /opt/{own}; ls /opt; cat /file");
                    (own, bench.run(&mounting(&script, mounts)).out)
                })
            })
            .collect();
        for thread in many {
            let (own, out) = thread.join().unwrap();
            assert_eq!(out, format!("{own}\n{own}"));
        }
    });
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 17);
    assert_eq!(listing(&bench.root()), before);
}
