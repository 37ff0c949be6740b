//! Commands in an ordinary container with Docker's default profile, where nothing may be mounted.
//!
//! Outside, a daemon of the test's own makes an image of busybox and what this very program is linked
//! with, and starts the program in it; inside, the program carries one case out.

#[path = "sandbox/bench.rs"]
#[allow(dead_code)]
mod bench;
#[path = "common/dockerd.rs"]
#[allow(dead_code)]
mod dockerd;
#[path = "common/harness.rs"]
mod harness;
#[path = "common/container.rs"]
mod ordinary;

use bench::{assert_same, busybox, listing, sh};
use shutter::request::Hidden;
use shutter::rootfs::Entry;
use shutter::sandbox::{Command, Error, Exit, Mount, Sandbox, What};
use shutter::sys::Cancel;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Name, what `docker run` is told besides, and what is done inside.
type Inside = (&'static str, &'static [&'static str], fn());

const INSIDE: &[Inside] = &[
    ("a_chroot", &[], chroot),
    (
        "a_chroot_without_nodes",
        &["--cap-drop=MKNOD"],
        without_nodes,
    ),
    (
        "a_chroot_with_few_rights",
        &[
            "--cap-drop=ALL",
            "--cap-add=CHOWN",
            "--cap-add=DAC_OVERRIDE",
            "--cap-add=FOWNER",
            "--cap-add=SETUID",
            "--cap-add=SETGID",
            "--cap-add=SYS_CHROOT",
            "--cap-add=KILL",
        ],
        few_rights,
    ),
    ("staying", &[], staying),
    ("a_bomb", &["--pids-limit=200"], bomb),
    ("killing_everybody", &[], killing),
];

const INNER: &str = "CONTAINER_TEST";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(INNER) {
        let (_, _, run) = INSIDE.iter().find(|(known, ..)| *known == name).unwrap();
        run();
        return ExitCode::SUCCESS;
    }
    harness::main(vec![harness::Case::new("in_an_ordinary_container", all)])
}

/// Starts every case in a container of its own.
fn all() {
    let daemon = dockerd::start("127.0.0.1:1");
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    for dir in ["bin", "lib64", "lib", "tmp", "etc", "below/deep"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("below/file"), "of the image").unwrap();
    fs::write(root.join("below/deep/file"), "deep").unwrap();
    busybox(&root);
    let program = std::env::current_exe().unwrap();
    ordinary::install_libraries(&program, &root);
    let tar = ordinary::archive(&root);
    let imported = daemon.docker(&["import", tar.to_str().unwrap(), "ordinary"]);
    assert!(imported.status.success(), "{imported:?}");
    for (name, more, _) in INSIDE {
        let program = format!("{}:/program:ro", program.display());
        let (case, path) = (format!("{INNER}={name}"), "PATH=/bin");
        let mut args = vec!["run", "--rm", "--network=host", "-v", &program];
        args.extend(["-e", case.as_str(), "-e", path]);
        args.extend(*more);
        args.extend(["ordinary", "/program"]);
        let done = daemon.docker(&args);
        assert!(
            done.status.success(),
            "{name}: {}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

struct Ran {
    exit: Result<Exit, Error>,
    printed: String,
    warned: Vec<String>,
}

fn run(sandbox: &Sandbox, entry: Entry<'_>, command: &Command) -> Ran {
    let (mut printed, mut warned) = (Vec::new(), Vec::new());
    let exit = sandbox.run(
        entry,
        command,
        &mut |_, bytes| printed.extend_from_slice(bytes),
        &mut |text| warned.push(text.to_owned()),
        &Cancel::new().unwrap(),
    );
    Ran {
        exit,
        printed: String::from_utf8_lossy(&printed).into_owned(),
        warned,
    }
}

fn bound(path: &Path) -> Arc<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH;
    Arc::new(rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap())
}

fn at(target: &str, what: What) -> Mount {
    Mount {
        target: target.as_bytes().to_vec(),
        what,
        readonly: false,
    }
}

fn secret(text: &str) -> What {
    What::Memory {
        mode: 0o400,
        uid: 0,
        gid: 0,
        content: Hidden(text.as_bytes().to_vec()),
    }
}

fn mounting(script: &str, mounts: Vec<Mount>) -> Command {
    Command {
        mounts,
        ..sh(script)
    }
}

/// Makes a root for a chroot.
fn root() -> std::path::PathBuf {
    let root = Path::new("/store/root");
    for dir in ["bin", "etc", "tmp", "opt"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("opt/file"), "of the root").unwrap();
    busybox(root);
    root.to_owned()
}

/// How many processes there are, this one alone if all is well.
fn processes() -> usize {
    let names = fs::read_dir("/proc").unwrap();
    names
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                return false;
            };
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let comm = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            // The helper is there for the next command.
            !stat.contains(") Z ") && !stat.is_empty() && comm != "shutter-helper\n"
        })
        .count()
}

fn chroot() {
    let sandbox = Sandbox::start().unwrap();
    let root = root();
    let before = listing(&root);
    let refused = run(&sandbox, Entry::Pivot(&root), &sh("true")).exit;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("CAP_SYS_ADMIN"), "{refused}");
    let cache = Path::new("/store/cache");
    fs::create_dir(cache).unwrap();
    let context = Path::new("/store/context");
    fs::create_dir_all(context.join("sub")).unwrap();
    fs::write(context.join("sub/a"), "A").unwrap();
    let script = "id -u; head -c 3 /dev/zero | wc -c; echo x > /dev/null; \
                  grep -c -w $(hostname) /etc/hosts; cat /ctx/sub/a /run/secrets/x; \
                  echo 1 > /cache/x; ls -A /opt; (setsid sleep 1000 &)";
    let done = run(
        &sandbox,
        Entry::Chroot(&root),
        &mounting(
            script,
            vec![
                at("/opt", What::Tmpfs { size: None }),
                at("/cache", What::Bind(bound(cache))),
                at("/ctx", What::Copy(bound(context))),
                at("/run/secrets/x", secret("secret\n")),
            ],
        ),
    );
    assert_eq!(done.exit.unwrap(), Exit::Code(0), "{}", done.printed);
    assert_eq!(done.printed, "0\n3\n1\nAsecret\n");
    let about: Vec<&str> = done
        .warned
        .iter()
        .map(|text| text.split(',').next().unwrap())
        .collect();
    assert_eq!(
        about,
        [
            "RUN has no /proc",
            "the secret /run/secrets/x lies on a disk while its command runs"
        ]
    );
    assert_eq!(fs::read_to_string(cache.join("x")).unwrap(), "1\n");
    assert_same(&listing(&root), &before, "the root");
    assert_eq!(fs::read_dir("/store").unwrap().count(), 3);
    assert_eq!(processes(), 1);
}

fn without_nodes() {
    let sandbox = Sandbox::start().unwrap();
    let root = root();
    let before = listing(&root);
    let script = "echo x > /dev/null; ls /dev/zero 2> /dev/null || echo none";
    let done = run(&sandbox, Entry::Chroot(&root), &sh(script));
    assert_eq!(done.printed, "none\n");
    assert!(
        done.warned
            .iter()
            .any(|text| text.contains("lacks CAP_MKNOD"))
    );
    assert_same(&listing(&root), &before, "the root");
}

fn few_rights() {
    let sandbox = Sandbox::start().unwrap();
    let root = root();
    for (uid, expected) in [(0, "0\n"), (1000, "1000\n")] {
        let mut who = sh("id -u; (setsid sleep 1000 &)");
        who.identity.uid = uid;
        let done = run(&sandbox, Entry::Chroot(&root), &who);
        assert_eq!(done.exit.unwrap(), Exit::Code(0), "{}", done.printed);
        assert_eq!(done.printed, expected);
        assert_eq!(processes(), 1);
    }
}

fn staying() {
    let sandbox = Sandbox::start().unwrap();
    let cache = Path::new("/store/cache");
    fs::create_dir_all(cache).unwrap();
    fs::write(cache.join("kept"), "kept").unwrap();
    // The first is a directory of a lower layer of the container's overlay, which cannot be moved.
    let seen = || {
        let mut seen = listing(Path::new("/below"));
        seen.extend(listing(cache));
        seen.extend([(
            "/".to_owned(),
            format!("{:?}", fs::metadata("/").unwrap().modified()),
        )]);
        seen
    };
    for what in [
        || What::Tmpfs { size: None },
        || What::Bind(bound(Path::new("/store/cache"))),
        || What::Copy(bound(Path::new("/store/cache"))),
    ] {
        for target in ["/below", "/below/deep", "/below/new/place"] {
            let before = seen();
            let script = format!(
                "ls -A {target}; cat /run/x; echo $0; touch {target}/made && rm {target}/made; \
                 grep CapEff /proc/self/status; rm -f /run/x"
            );
            let mounts = vec![at(target, what()), at("/run/x", secret("secret\n"))];
            let mut command = mounting("", mounts);
            let text = format!("#!/bin/sh\n{script}\n").into_bytes();
            command.files = vec![(b"/dev/pipes/EOF".to_vec(), 0o755, text)];
            command.args = vec![b"/dev/pipes/EOF".to_vec()];
            let done = run(&sandbox, Entry::Stay, &command);
            assert_eq!(done.exit.unwrap(), Exit::Code(0), "{}", done.printed);
            let kept = match what() {
                What::Tmpfs { .. } => "",
                _ => "kept\n",
            };
            let expected = format!("{kept}secret\n/dev/pipes/EOF\nCapEff:\t00000000a80425fb\n");
            assert_eq!(done.printed, expected, "{target}");
            assert_eq!(done.warned, Vec::<String>::new());
            let after = seen();
            assert_same(
                &without_cache_time(after),
                &without_cache_time(before),
                target,
            );
        }
    }
    // What the container's runtime has mounted stays where it is.
    let mounts = vec![at("/etc/hosts", secret("x"))];
    let refused = run(&sandbox, Entry::Stay, &mounting("true", mounts)).exit;
    let refused = format!("{:?}", refused.unwrap_err());
    assert!(refused.contains("of the container's own"), "{refused}");
    assert_eq!(processes(), 1);
}

/// The script writes into the cache and so gives it a new time.
fn without_cache_time(
    mut seen: std::collections::BTreeMap<String, String>,
) -> std::collections::BTreeMap<String, String> {
    seen.remove("");
    seen
}

fn bomb() {
    let sandbox = Sandbox::start().unwrap();
    let root = root();
    for script in [
        "b() { b | b & }; b 2> /dev/null",
        "printf '#!/bin/sh\\nsetsid /tmp/n &\\nsetsid /tmp/n &\\n' > /tmp/n; chmod +x /tmp/n; \
         (/tmp/n 2> /dev/null &)",
    ] {
        for entry in [Entry::Chroot(&root), Entry::Stay] {
            let done = run(&sandbox, entry, &sh(script));
            assert!(done.exit.is_ok(), "{:?}", done.exit);
            assert_eq!(processes(), 1);
        }
    }
}

/// In a process id namespace of its own, with the builder as its first process, nobody can kill that.
fn killing() {
    let sandbox = Sandbox::start().unwrap();
    let script = "(setsid sh -c 'sleep 1000' &); sleep 1000 & kill -9 -1; sleep 1000";
    let done = run(&sandbox, Entry::Stay, &sh(script));
    let error = done.exit.unwrap_err().to_string();
    assert!(error.contains("helper"), "{error}");
    assert_eq!(processes(), 1);
}
