//! What a command may reach besides its root: the network, devices, the kernel.

use crate::bench::{Bench, busybox, in_child, mounts as mount_table, new_mounts, sh, tree};
use crate::mounts::{at, bind, refuse_call, tmpfs};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::thread::{CapabilitySet, CapabilitySets};
use shutter::plan::Network;
use shutter::sandbox::{Command, Exit};
use std::fs;
use std::net::TcpListener;

pub const CASES: &[(&str, fn())] = &[
    ("a_network_of_its_own", a_network_of_its_own),
    ("networks_that_are_refused", networks_that_are_refused),
    ("insecure_capabilities", insecure_capabilities),
    ("insecure_system_calls", insecure_system_calls),
    ("insecure_devices", insecure_devices),
    ("a_root_without_pivot_root", a_root_without_pivot_root),
];

fn alone(script: &str) -> Command {
    Command {
        network: Network::None,
        ..sh(script)
    }
}

fn insecure(script: &str) -> Command {
    Command {
        insecure: true,
        ..sh(script)
    }
}

fn a_network_of_its_own() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (script, expected) in [
        ("ip -o link | sed 's/:.*lo:.*UP.*/ lo up/'", "1 lo up\n"),
        (
            "ip link show | grep -c ': lo'; ip link show | grep -vc '^ '",
            "1\n1\n",
        ),
        ("wc -l < /proc/net/route; ip route | wc -l", "1\n0\n"),
        ("ls /sys/class/net", "lo\n"),
        ("ping -c 1 127.0.0.1 > /dev/null; echo $?", "0\n"),
        (
            "ping -c 1 192.0.2.1 2>&1 | grep -o 'Network.*'",
            "Network is unreachable\n",
        ),
        (
            "ip link add type dummy 2> /dev/null || echo refused",
            "refused\n",
        ),
    ] {
        let done = bench.run(&alone(script));
        assert_eq!(done.out, expected, "{script}: {}", done.err);
    }
    // It answers to itself, and does not reach the builder's.
    let script = "nc -l -p 4321 < /dev/null & for i in 1 2 3 4 5 6 7 8 9; do \
                  echo said | nc 127.0.0.1 4321 && break; usleep 100000; done; wait";
    assert_eq!(bench.run(&alone(script)).out, "said\n");
    let reach = format!("nc 127.0.0.1 {port} < /dev/null || echo refused");
    assert_eq!(bench.run(&alone(&reach)).out, "refused\n");
    let answer = std::thread::spawn(move || {
        use std::io::Write;
        listener
            .accept()
            .unwrap()
            .0
            .write_all(b"reached\n")
            .unwrap();
    });
    assert_eq!(bench.out(&reach), "reached\n");
    answer.join().unwrap();
    // Name servers are those that could be reached from elsewhere.
    let servers = bench.run(&alone("grep ^nameserver /etc/resolv.conf")).out;
    assert!(
        !servers.is_empty() && !servers.contains(" 127."),
        "{servers}"
    );
    assert_eq!(
        bench.run(&alone("head -1 /etc/hosts")).out,
        bench.out("head -1 /etc/hosts")
    );
}

/// Takes capabilities from this process and all it will start.
fn drop_capability(capability: CapabilitySet) {
    rustix::thread::remove_capability_from_bounding_set(capability).unwrap();
    let held = rustix::thread::capabilities(None).unwrap();
    let kept = held.permitted - capability;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).unwrap();
}

fn networks_that_are_refused() {
    in_child(|| {
        drop_capability(CapabilitySet::NET_ADMIN);
        let bench = Bench::new();
        let error = bench.try_run(&alone("true")).err().unwrap().to_string();
        assert!(error.contains("which takes CAP_NET_ADMIN"), "{error}");
        assert_eq!(bench.out("echo still"), "still\n");
    });
    in_child(|| {
        // The bound is the user namespace's own.
        let flags = rustix::thread::UnshareFlags::NEWUSER | rustix::thread::UnshareFlags::NEWNS;
        // SAFETY: there is one thread, and neither flag takes descriptors apart.
        unsafe { rustix::thread::unshare_unsafe(flags) }.unwrap();
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", "0 0 1").unwrap();
        fs::write("/proc/self/gid_map", "0 0 1").unwrap();
        fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
        let bench = Bench::new();
        let before = tree(&bench.root());
        let error = bench.try_run(&alone("true")).err().unwrap().to_string();
        assert!(error.contains("user.max_net_namespaces"), "{error}");
        assert_eq!(tree(&bench.root()), before);
    });
}

fn insecure_capabilities() {
    let held = rustix::thread::capabilities(None).unwrap().permitted.bits();
    let all = format!("{held:016x}");
    let expected = format!(
        "CapInh:\t{all}\nCapPrm:\t{all}\nCapEff:\t{all}\nCapBnd:\t{all}\nCapAmb:\t{all}\n\
         NoNewPrivs:\t0\nSeccomp:\t0\n"
    );
    in_child(|| {
        let bench = Bench::new();
        for uid in [0, 1000] {
            let mut status = insecure("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
            status.identity.uid = uid;
            assert_eq!(bench.run(&status).out, expected, "{uid}");
        }
    });
    // No more than the builder has.
    in_child(|| {
        drop_capability(CapabilitySet::SYS_TIME);
        let bench = Bench::new();
        let done = bench.run(&insecure("grep -E '^Cap(Eff|Bnd)' /proc/self/status"));
        let less = held & !CapabilitySet::SYS_TIME.bits();
        assert_eq!(
            done.out,
            format!("CapEff:\t{less:016x}\nCapBnd:\t{less:016x}\n")
        );
    });
}

fn insecure_system_calls() {
    let bench = Bench::new();
    let (before, mounted) = (tree(&bench.root()), mount_table());
    for script in [
        "mount -t tmpfs x /tmp && touch /tmp/x",
        "unshare -m true",
        "hostname other",
        "umount /proc",
        "cat /proc/sys/kernel/panic > /tmp/v; cat /tmp/v > /proc/sys/kernel/panic; rm /tmp/v",
        "grep ' /sys sysfs rw,' /proc/mounts",
        "! grep -E ' /(proc|sys)/' /proc/mounts",
        "ls /sys/firmware /proc/irq",
        // The namespace's own network can be changed, the builder's is left alone.
    ] {
        let done = bench.run(&insecure(script));
        assert_eq!(
            done.exit,
            Exit::Code(0),
            "{script}: {}{}",
            done.out,
            done.err
        );
        assert_eq!(new_mounts(&mounted), Vec::<String>::new(), "{script}");
        let names = |tree: &std::collections::BTreeMap<String, (i64, i64)>| {
            tree.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&tree(&bench.root())), names(&before), "{script}");
    }
    let mut own = insecure("ip link add type dummy && ip link show dummy0 > /dev/null; echo $?");
    own.network = Network::None;
    assert_eq!(bench.run(&own).out.lines().last().map(str::len), Some(1));
    // The next one is none the wiser.
    let done = bench.sh("mount -t tmpfs x /tmp");
    assert_ne!(done.exit, Exit::Code(0));
}

fn insecure_devices() {
    let bench = Bench::with(|root| {
        fs::create_dir(root.join("bin")).unwrap();
        busybox(root);
        let device = makedev(1, 5);
        let mode = Mode::from_raw_mode(0o666);
        mknodat(
            CWD,
            root.join("zero"),
            FileType::CharacterDevice,
            mode,
            device,
        )
        .unwrap();
    });
    let script =
        "cd /dev; stat -c '%n %a %F %t:%T' kmsg cuse fuse kvm net/tun loop-control loop0 loop7";
    assert_eq!(
        bench.run(&insecure(script)).out,
        "kmsg 666 character special file 1:b\ncuse 666 character special file a:cb\n\
         fuse 666 character special file a:e5\nkvm 666 character special file a:e8\n\
         net/tun 666 character special file a:c8\nloop-control 666 character special file a:ed\n\
         loop0 666 block special file 7:0\nloop7 666 block special file 7:7\n"
    );
    // Those that every command has are there too.
    let script =
        "head -c 2 /dev/zero | wc -c; echo x > /dev/null; ls /dev/pts/ptmx; tty; ls -l /dev/fd/0";
    assert!(
        bench
            .run(&insecure(script))
            .out
            .starts_with("2\n/dev/pts/ptmx\nnot a tty\n")
    );
    let directory = bench.directory.path().join("source");
    fs::create_dir(&directory).unwrap();
    let device = makedev(1, 3);
    let mode = Mode::from_raw_mode(0o666);
    mknodat(
        CWD,
        directory.join("null"),
        FileType::CharacterDevice,
        mode,
        device,
    )
    .unwrap();
    // Wherever a node lies it is a device: made, in the root, in a mount.
    let script = "mknod /null c 1 3 && echo x > /null && rm /null && head -c 2 /zero | wc -c && \
                  echo x > /ctx/null && mknod /t/null c 1 3 && echo x > /t/null && \
                  mknod /dev/own c 1 3 && echo x > /dev/own && echo done";
    let mut everywhere = insecure(script);
    everywhere.mounts = vec![at("/ctx", bind(&directory)), at("/t", tmpfs(None))];
    let done = bench.run(&everywhere);
    assert_eq!(done.out, "2\ndone\n", "{}", done.err);
    // For another command they are files.
    let done = bench.sh("head -c 1 /zero; echo x > /ctx/null");
    assert_eq!(
        (done.exit, done.out.as_str()),
        (Exit::Code(1), ""),
        "{}",
        done.err
    );
}

/// Docker's default profile forbids the call even with CAP_SYS_ADMIN.
fn a_root_without_pivot_root() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        in_child(|| {
            let scratch = tempfile::tempdir().unwrap();
            let odd = scratch.path().join("with space");
            fs::create_dir(&odd).unwrap();
            refuse_call(libc::SYS_pivot_root, errno);
            let bench = Bench::new();
            rustix::mount::mount(
                "tmpfs",
                &odd,
                "tmpfs",
                rustix::mount::MountFlags::empty(),
                None,
            )
            .unwrap();
            let (before, mounted) = (tree(&bench.root()), mount_table());
            let known = [
                "/",
                "/dev",
                "/proc",
                "/sys",
                "/etc/hosts",
                "/etc/resolv.conf",
            ];
            let listed = bench.out("cut -d' ' -f2 /proc/mounts");
            assert_eq!(listed.lines().next(), Some("/"), "{listed}");
            for point in listed.lines() {
                let below = known.iter().skip(1).any(|at| point.starts_with(at));
                assert!(below || point == "/", "{listed}");
            }
            assert_eq!(
                bench.out("ls /; cd ..; ls -d bin"),
                "bin\ndev\netc\nproc\nsys\ntmp\nbin\n"
            );
            // Nor is anything left of the old root for somebody who may unmount.
            let done = bench.run(&insecure(
                "umount -l / 2> /dev/null; wc -l < /proc/self/mountinfo; ls /work 2>&1",
            ));
            assert!(done.out.contains("No such file"), "{}", done.out);
            assert_eq!(bench.sh("umount /").exit, Exit::Code(1));
            assert_eq!(tree(&bench.root()), before);
            assert_eq!(new_mounts(&mounted), Vec::<String>::new());
            // A directory that is no mount is refused as ever.
            let plain = bench.directory.path().join("lower");
            let error = bench
                .sandbox
                .run(
                    shutter::rootfs::Entry::Pivot(&plain),
                    &sh("true"),
                    &mut |_, _| {},
                    &mut |_| {},
                    &shutter::sys::Cancel::new().unwrap(),
                )
                .unwrap_err()
                .to_string();
            let expected = format!("make {} the root (pivot_root: ", plain.display());
            assert!(error.starts_with(&expected), "{error}");
            rustix::mount::unmount(&odd, rustix::mount::UnmountFlags::DETACH).unwrap();
        });
    }
}
