use super::rights::{Filter, Label, Rights};
use super::words::{live, mount};
use crate::request::RootfsChoice::{self, Chroot, Fuse, InPlace, Overlay};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::path::Path;

const STORE: &str = "/kaniko/store";

/// Root with all rights on a machine with all file systems.
fn all() -> Rights {
    Rights {
        uid: 0,
        held: CapabilitySet::all(),
        filter: Filter::Off,
        label: Label::Free,
        is_nested: false,
        no_users: None,
        file_systems: ["ext4", "overlay", "fuse"].map(str::to_owned).into(),
        below: "ext4".into(),
    }
}

/// As in Docker's and containerd's ordinary container.
fn ordinary() -> Rights {
    Rights {
        held: CapabilitySet::from_bits_retain(0xa804_25fb),
        filter: Filter::On,
        label: Label::AppArmor("docker-default".into()),
        below: "overlay".into(),
        ..all()
    }
}

fn with_mount() -> Rights {
    Rights {
        held: ordinary().held | CapabilitySet::SYS_ADMIN,
        ..ordinary()
    }
}

fn nobody() -> Rights {
    Rights {
        uid: 1000,
        held: CapabilitySet::empty(),
        ..all()
    }
}

#[test]
fn refused_mounts_are_told_apart() {
    const DEVICE: &str = "open /dev/fuse";
    type Case = (
        RootfsChoice,
        &'static str,
        Errno,
        Rights,
        &'static str,
        &'static str,
    );
    let selinux = || Label::Selinux("u:r:container_t:s0".into());
    let cases: Vec<Case> = vec![
        (
            Overlay,
            "mount",
            Errno::PERM,
            ordinary(),
            "mounting takes CAP_SYS_ADMIN, which root here does not have",
            "privileged: true",
        ),
        (
            Overlay,
            "mount",
            Errno::PERM,
            nobody(),
            "mounting takes CAP_SYS_ADMIN, which user 1000 here does not have",
            "privileged: true",
        ),
        (
            Overlay,
            "mount",
            Errno::PERM,
            Rights {
                no_users: Some("No space left on device (os error 28): the machine's sysctl user.max_user_namespaces is 0".into()),
                ..nobody()
            },
            "nor can it have a user namespace (no space left on device: the machine's sysctl user.max_user_namespaces is 0)",
            "another value of that sysctl on the node; or in a pod",
        ),
        (
            Overlay,
            "mount",
            Errno::PERM,
            Rights {
                no_users: Some("Operation not permitted (os error 1)".into()),
                ..ordinary()
            },
            "nor can it have a user namespace (the seccomp filter refuses it)",
            "privileged: true",
        ),
        (
            Overlay,
            "mount",
            Errno::ACCESS,
            with_mount(),
            "AppArmor's profile docker-default refuses to mount",
            "apparmor=unconfined; and give the store a volume: in a pod an emptyDir mounted at /kaniko/store",
        ),
        (
            Overlay,
            "mount",
            Errno::ACCESS,
            Rights {
                label: selinux(),
                ..with_mount()
            },
            "SELinux refuses to mount (u:r:container_t:s0)",
            "label=disable",
        ),
        (
            Overlay,
            "mount",
            Errno::PERM,
            with_mount(),
            "the seccomp filter refuses to mount",
            "seccompProfile and appArmorProfile of type Unconfined",
        ),
        (
            Overlay,
            "mount",
            Errno::PERM,
            Rights {
                label: Label::Free,
                ..with_mount()
            },
            "the seccomp filter refuses to mount",
            "seccompProfile of type Unconfined; docker run --security-opt seccomp=unconfined; and give",
        ),
        (
            Overlay,
            "mount",
            Errno::NOSYS,
            with_mount(),
            "the seccomp filter",
            "seccomp=unconfined",
        ),
        (
            Overlay,
            "mount",
            Errno::NOSYS,
            all(),
            "no calls to mount by",
            "gVisor",
        ),
        (
            Overlay,
            "mount",
            Errno::PERM,
            Rights {
                is_nested: true,
                ..all()
            },
            "refuses to mount in a user namespace",
            "Linux 5.11",
        ),
        (
            Fuse,
            "mount",
            Errno::PERM,
            Rights {
                is_nested: true,
                ..all()
            },
            "in a user namespace",
            "Linux 4.18",
        ),
        (
            Overlay,
            "mount",
            Errno::NODEV,
            all(),
            "this kernel has no overlay file system",
            "modprobe overlay",
        ),
        (
            Overlay,
            "mount (filesystem on /x not supported as upperdir)",
            Errno::INVAL,
            Rights {
                below: "overlay".into(),
                ..all()
            },
            "the store lies on overlayfs, which takes no upper directory",
            "an emptyDir mounted at /kaniko/store",
        ),
        (
            Overlay,
            "mount (upper fs does not support it)",
            Errno::INVAL,
            Rights {
                below: "nfs4".into(),
                ..all()
            },
            "the store lies on nfs4, which takes no upper directory: upper fs does not support it",
            "--cache-dir",
        ),
        (
            Overlay,
            "mount",
            Errno::PERM,
            all(),
            "mount: operation not permitted",
            "privileged: true",
        ),
        (
            Overlay,
            "create /kaniko/store/run/x",
            Errno::NOSPC,
            all(),
            "no space is left in /kaniko/store",
            "an emptyDir mounted at /kaniko/store",
        ),
        (
            Fuse,
            DEVICE,
            Errno::NOENT,
            all(),
            "there is no /dev/fuse here",
            "--device /dev/fuse",
        ),
        (
            Fuse,
            DEVICE,
            Errno::NOENT,
            ordinary(),
            "there is no /dev/fuse here, and mounting takes CAP_SYS_ADMIN",
            "--cap-add SYS_ADMIN",
        ),
        (
            Fuse,
            DEVICE,
            Errno::NOENT,
            Rights {
                file_systems: ["ext4".to_owned()].into(),
                ..all()
            },
            "the kernel has no FUSE",
            "modprobe fuse",
        ),
        (
            Fuse,
            DEVICE,
            Errno::NOENT,
            Rights {
                file_systems: Default::default(),
                ..all()
            },
            "there is no /dev/fuse here",
            "docker run --device",
        ),
        (
            Fuse,
            DEVICE,
            Errno::ACCESS,
            Rights {
                is_nested: true,
                ..all()
            },
            "may not open it",
            "mode 0666 for /dev/fuse on the node",
        ),
        (
            Fuse,
            DEVICE,
            Errno::NODEV,
            all(),
            "the kernel has no FUSE",
            "modprobe fuse",
        ),
        (
            Fuse,
            DEVICE,
            Errno::PERM,
            all(),
            "the container may not open it",
            "device plugin",
        ),
        (
            Fuse,
            "mount",
            Errno::ACCESS,
            with_mount(),
            "AppArmor's profile docker-default refuses to mount",
            "apparmor=unconfined",
        ),
    ];
    for (root, tried, errno, rights, why, remedy) in cases {
        let refusal = mount(root, tried, &errno.into(), &rights, Path::new(STORE));
        let case = format!("{root:?} {tried} {errno:?}: {refusal:?}");
        assert!(refusal.why.contains(why), "{case}");
        assert!(refusal.remedy.contains(remedy), "{case}");
        assert!(!case.contains("os error"), "{case}");
    }
}

#[test]
fn what_a_root_without_mounts_lacks_is_named() {
    let without = |lost: CapabilitySet| Rights {
        held: ordinary().held.difference(lost),
        ..ordinary()
    };
    let none = || without(CapabilitySet::all());
    let chroot = || without(CapabilitySet::SYS_CHROOT);
    let (chown, enter) = ("give away files", "enter the root");
    type Case = (
        RootfsChoice,
        &'static str,
        Errno,
        Rights,
        &'static str,
        &'static str,
    );
    let cases: Vec<Case> = vec![
        (
            Chroot,
            enter,
            Errno::PERM,
            chroot(),
            "root here cannot enter the root, for want of CAP_SYS_CHROOT",
            "capabilities.add: [SYS_CHROOT]",
        ),
        (
            Chroot,
            chown,
            Errno::PERM,
            none(),
            "CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT",
            "no capabilities.drop: [ALL]",
        ),
        (
            InPlace,
            chown,
            Errno::PERM,
            none(),
            "CAP_FOWNER, CAP_SETGID, CAP_SETUID",
            "[CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID]",
        ),
        (
            Chroot,
            chown,
            Errno::PERM,
            nobody(),
            "user 1000 cannot give away files, which takes the rights of root",
            "runAsUser: 0",
        ),
        (
            InPlace,
            "create files",
            Errno::ROFS,
            ordinary(),
            "the file system can only be read",
            "readOnlyRootFilesystem",
        ),
        (
            Chroot,
            chown,
            Errno::INVAL,
            Rights {
                is_nested: true,
                ..all()
            },
            "has not the users that images have",
            "newuidmap",
        ),
        (
            InPlace,
            chown,
            Errno::PERM,
            chroot(),
            "give away files: operation not permitted",
            "runAsUser: 0",
        ),
        (
            Chroot,
            "write files",
            Errno::NOSPC,
            ordinary(),
            "no space is left in /kaniko/store",
            "emptyDir",
        ),
    ];
    for (root, tried, errno, rights, why, remedy) in cases {
        let refusal = live(root, tried, &errno.into(), &rights, Path::new(STORE));
        let case = format!("{root:?} {tried} {errno:?}: {refusal:?}");
        assert!(refusal.why.contains(why), "{case}");
        assert!(refusal.remedy.contains(remedy), "{case}");
    }
}
