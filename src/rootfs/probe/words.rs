//! A refusal of the kernel's in plain words, with what would help.

use super::Refusal;
use super::rights::{Filter, Label, Rights};
use crate::request::RootfsChoice;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::io;
use std::path::Path;

/// What a live root cannot do without, by name.
const FOR_FILES: [(CapabilitySet, &str); 6] = [
    (CapabilitySet::CHOWN, "CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "FOWNER"),
    (CapabilitySet::SETGID, "SETGID"),
    (CapabilitySet::SETUID, "SETUID"),
    (CapabilitySet::SYS_CHROOT, "SYS_CHROOT"),
];

const MOUNT: &str = "in a pod securityContext.privileged: true, or capabilities.add: [SYS_ADMIN] with \
                     seccompProfile and appArmorProfile of type Unconfined; docker run --privileged, or \
                     --cap-add SYS_ADMIN --security-opt apparmor=unconfined";
const BOTH: &str = "in a pod securityContext.privileged: true, or capabilities.add: [SYS_ADMIN] with \
                    seccompProfile and appArmorProfile of type Unconfined and a device plugin that hands \
                    out /dev/fuse; docker run --privileged, or --device /dev/fuse --cap-add SYS_ADMIN \
                    --security-opt apparmor=unconfined";
const DEVICE: &str = "docker run --device /dev/fuse; in a pod a device plugin that hands out /dev/fuse, or \
                      securityContext.privileged: true";

/// Words what came of trying to mount. `tried` is what was tried, with what the kernel said besides;
/// `store` is where the scratch directory lies. The remedy names what is known to be in the way behind
/// that, too.
pub(super) fn mount(
    root: RootfsChoice,
    tried: &str,
    error: &io::Error,
    rights: &Rights,
    store: &Path,
) -> Refusal {
    let refusal = refused(root, tried, error, rights, store);
    let volume = volume(store);
    match root == RootfsChoice::Overlay && rights.below == "overlay" && refusal.remedy != volume {
        true => Refusal::new(refusal.why, format!("{}; and {volume}", refusal.remedy)),
        false => refusal,
    }
}

fn refused(
    root: RootfsChoice,
    tried: &str,
    error: &io::Error,
    rights: &Rights,
    store: &Path,
) -> Refusal {
    let errno = Errno::from_io_error(error);
    if root == RootfsChoice::Fuse && tried == crate::rootfs::fuse::OPEN_DEVICE {
        return device(error, errno, rights);
    }
    let is_refused = matches!(errno, Some(Errno::PERM | Errno::ACCESS));
    if is_refused && !rights.has(CapabilitySet::SYS_ADMIN) {
        return no_right(rights);
    }
    match (errno, &rights.label) {
        (Some(Errno::ACCESS), Label::AppArmor(profile)) => Refusal::new(
            format!("AppArmor's profile {profile} refuses to {tried}"),
            "in a pod securityContext.appArmorProfile of type Unconfined; docker run --security-opt \
             apparmor=unconfined",
        ),
        (Some(Errno::ACCESS), Label::Selinux(context)) => Refusal::new(
            format!("SELinux refuses to {tried} ({context})"),
            "in a pod securityContext.seLinuxOptions.type: spc_t; docker run --security-opt label=disable",
        ),
        (Some(Errno::PERM | Errno::NOSYS), _) if rights.filter == Filter::On => Refusal::new(
            format!("the seccomp filter refuses to {tried}"),
            match rights.label {
                // It has its say after the filter.
                Label::AppArmor(_) => {
                    "in a pod securityContext.seccompProfile and appArmorProfile of type Unconfined; \
                     docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
                }
                _ => {
                    "in a pod securityContext.seccompProfile of type Unconfined; docker run \
                     --security-opt seccomp=unconfined"
                }
            },
        ),
        (Some(Errno::PERM), _) if rights.is_nested => Refusal::new(
            format!("the kernel refuses to {tried} in a user namespace"),
            match (root, tried == "mount") {
                (RootfsChoice::Overlay, true) => "Linux 5.11 or later, or no user namespace",
                (_, true) => "Linux 4.18 or later, or no user namespace",
                _ => "no user namespace, and there the right to mount",
            },
        ),
        (Some(Errno::NOSYS), _) => Refusal::new(
            "this kernel, or the sandbox it runs in, has no calls to mount by",
            "an ordinary Linux kernel; with gVisor a container with capabilities.add: [SYS_ADMIN]",
        ),
        (Some(Errno::NODEV), _) => {
            let name = root.name();
            Refusal::new(
                format!("this kernel has no {name} file system"),
                format!("load it on the node: modprobe {name}"),
            )
        }
        (Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::REMOTE | Errno::XDEV), _)
            if root == RootfsChoice::Overlay =>
        {
            let below = match rights.below.as_str() {
                "" => "a file system",
                "overlay" => "overlayfs",
                kind => kind,
            };
            let why = match tried.strip_prefix("mount (") {
                Some(said) if rights.below != "overlay" => {
                    format!(": {}", said.trim_end_matches(')'))
                }
                _ => String::new(),
            };
            Refusal::new(
                format!("the store lies on {below}, which takes no upper directory{why}",),
                volume(store),
            )
        }
        _ => other(tried, error, store, MOUNT),
    }
}

/// Words that there is no right to mount.
pub(super) fn no_right(rights: &Rights) -> Refusal {
    let who = match rights.uid {
        0 => "root here".to_owned(),
        uid => format!("user {uid} here"),
    };
    let why = format!("mounting takes CAP_SYS_ADMIN, which {who} does not have");
    match &rights.no_users {
        None => Refusal::new(why, MOUNT),
        Some(refused) => {
            let sysctl = match refused.contains("sysctl") {
                true => "another value of that sysctl on the node; or ",
                false => "",
            };
            let refused = without_number(refused);
            let refused = match refused.as_str() {
                "operation not permitted" if rights.filter == Filter::On => {
                    "the seccomp filter refuses it"
                }
                other => other,
            };
            Refusal::new(
                format!("{why}, nor can it have a user namespace ({refused})"),
                format!("{sysctl}{MOUNT}"),
            )
        }
    }
}

fn device(error: &io::Error, errno: Option<Errno>, rights: &Rights) -> Refusal {
    let refusal = match errno {
        // Where nobody may read what the kernel knows, nothing is said of it.
        Some(Errno::NOENT)
            if rights.file_systems.contains("fuse") || rights.file_systems.is_empty() =>
        {
            Refusal::new("there is no /dev/fuse here", DEVICE)
        }
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Refusal::new(
            "there is no /dev/fuse here, and the kernel has no FUSE",
            format!("load it on the node: modprobe fuse; then {DEVICE}"),
        ),
        Some(Errno::PERM) => Refusal::new(
            "/dev/fuse is there, and the container may not open it",
            DEVICE,
        ),
        Some(Errno::ACCESS) => Refusal::new(
            format!(
                "/dev/fuse is there, and user {} may not open it",
                rights.uid
            ),
            match rights.is_nested {
                true => "mode 0666 for /dev/fuse on the node: in a user namespace it is nobody's",
                false => "root, or mode 0666 for /dev/fuse",
            },
        ),
        _ => Refusal::new(
            format!("/dev/fuse cannot be opened: {}", plain(error)),
            DEVICE,
        ),
    };
    if rights.has(CapabilitySet::SYS_ADMIN) {
        return refusal;
    }
    let right = no_right(rights);
    Refusal::new(format!("{}, and {}", refusal.why, right.why), BOTH)
}

/// Words what came of trying a root without mounts: of making files in it, or of starting a command.
pub(super) fn live(
    root: RootfsChoice,
    tried: &str,
    error: &io::Error,
    rights: &Rights,
    store: &Path,
) -> Refusal {
    let errno = Errno::from_io_error(error);
    if errno == Some(Errno::INVAL) && rights.is_nested {
        return Refusal::new(
            format!(
                "nobody can {tried} here: this user namespace has not the users that images have"
            ),
            "a user namespace with a range of users (/etc/subuid and newuidmap), or none",
        );
    }
    let refused = matches!(errno, Some(Errno::PERM | Errno::ACCESS));
    let missing = missing(root, rights);
    if !refused || missing.is_empty() {
        let remedy =
            "root in the container (securityContext.runAsUser: 0) with Docker's default rights";
        return other(tried, error, store, remedy);
    }
    let names: Vec<String> = missing.iter().map(|name| format!("CAP_{name}")).collect();
    let names = names.join(", ");
    match rights.uid {
        0 => Refusal::new(
            format!("root here cannot {tried}, for want of {names}"),
            format!(
                "in a pod no capabilities.drop: [ALL], or besides it capabilities.add: [{0}]; docker run \
                 --cap-add for each of them",
                missing.join(", ")
            ),
        ),
        uid => Refusal::new(
            format!("user {uid} cannot {tried}, which takes the rights of root"),
            "in a pod securityContext.runAsUser: 0 (OpenShift: an SCC such as anyuid); docker run --user 0",
        ),
    }
}

/// Gives the capabilities that a live root wants and that are not there.
fn missing(root: RootfsChoice, rights: &Rights) -> Vec<&'static str> {
    let wanted = |set| root != RootfsChoice::InPlace || set != CapabilitySet::SYS_CHROOT;
    FOR_FILES
        .iter()
        .filter(|(set, _)| wanted(*set) && !rights.has(*set))
        .map(|(_, name)| *name)
        .collect()
}

/// Words what has little to do with rights.
fn other(tried: &str, error: &io::Error, store: &Path, remedy: &str) -> Refusal {
    let store_is = store.display();
    match Errno::from_io_error(error) {
        Some(Errno::ROFS) => Refusal::new(
            format!("{tried}: the file system can only be read"),
            "in a pod no readOnlyRootFilesystem: true, or a volume where it writes",
        ),
        Some(Errno::NOSPC | Errno::DQUOT) => Refusal::new(
            format!("{tried}: no space is left in {store_is}"),
            volume(store),
        ),
        Some(Errno::NOMEM | Errno::NFILE | Errno::MFILE) => Refusal::new(
            format!("{tried}: {}", plain(error)),
            "more memory, or more files that may be open at a time",
        ),
        _ => Refusal::new(format!("{tried}: {}", plain(error)), remedy),
    }
}

fn volume(store: &Path) -> String {
    let store = store.display();
    format!(
        "give the store a volume: in a pod an emptyDir mounted at {store}, docker run -v NAME:{store}; or \
         name a directory on one by --cache-dir"
    )
}

/// Words an I/O error without its number.
fn plain(error: &io::Error) -> String {
    without_number(&error.to_string())
}

/// Gives a text of the system's without the number of its error.
fn without_number(text: &str) -> String {
    let text = text.to_lowercase();
    match text.split_once(" (os error ") {
        Some((before, after)) => {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => text,
    }
}
