//! What a process may do here, as far as the kernel tells.

use crate::fs::mountinfo;
use rustix::thread::CapabilitySet;
use std::collections::BTreeSet;
use std::path::Path;

/// What stands between the builder and a root, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The effective user.
    pub uid: u32,
    /// The effective capabilities.
    pub held: CapabilitySet,
    /// Whether system calls are filtered.
    pub filter: Filter,
    /// Who else has a say.
    pub label: Label,
    /// Whether this is a user namespace within the machine's own.
    pub is_nested: bool,
    /// Why the builder could get no user namespace of its own, where it tried to.
    pub no_users: Option<String>,
    /// The kinds of file systems that the kernel knows now; modules may bring more.
    pub file_systems: BTreeSet<String>,
    /// The kind of file system that the store lies on; empty where it is not told.
    pub below: String,
}

/// Whether seccomp filters system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// It does.
    On,
    /// It does not, or nobody knows.
    Off,
}

/// Under which policy of the machine the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// None that would refuse anything.
    Free,
    /// A profile of AppArmor, by name.
    AppArmor(String),
    /// A context of SELinux.
    Selinux(String),
}

impl Rights {
    /// Reads them; `store` is a directory of the store, absolute and without symbolic links. `no_users`
    /// is what the sandbox says of user namespaces.
    pub fn read(store: &Path, no_users: Option<&str>) -> Rights {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        // AppArmor has a directory of its own where another module has the common file.
        let label = match text("/proc/self/attr/apparmor/current") {
            own if own.is_empty() => text("/proc/self/attr/current"),
            own => own,
        };
        let whole = ["0", "0", "4294967295"];
        let map = text("/proc/self/uid_map");
        Rights {
            uid: rustix::process::geteuid().as_raw(),
            held: rustix::thread::capabilities(None)
                .map_or(CapabilitySet::empty(), |sets| sets.effective),
            filter: filter(&text("/proc/self/status")),
            label: labelled(&label),
            is_nested: !map.is_empty() && !map.split_whitespace().eq(whole),
            no_users: no_users.map(str::to_owned),
            file_systems: file_systems(&text("/proc/filesystems")),
            below: mountinfo::holding(store).map_or(String::new(), |mount| {
                String::from_utf8_lossy(&mount.kind).into_owned()
            }),
        }
    }

    /// Tells whether this is root as on a machine of its own or in a privileged container.
    pub fn is_unlimited(&self) -> bool {
        self.uid == 0
            && self.has(CapabilitySet::SYS_ADMIN)
            && self.filter == Filter::Off
            && self.label == Label::Free
            && !self.is_nested
    }

    /// Tells whether the builder has a capability.
    pub fn has(&self, wanted: CapabilitySet) -> bool {
        self.held.contains(wanted)
    }
}

fn filter(status: &str) -> Filter {
    let mut lines = status.lines();
    match lines.find_map(|line| line.strip_prefix("Seccomp:")) {
        Some(mode) if mode.trim() == "2" => Filter::On,
        _ => Filter::Off,
    }
}

fn labelled(text: &str) -> Label {
    let text = text.trim_end_matches(['\0', '\n']).trim();
    match text.split_once(" (") {
        Some((profile, "enforce)")) => Label::AppArmor(profile.to_owned()),
        Some(_) => Label::Free,
        // user:role:type:level
        None if text.matches(':').count() >= 2 && !text.contains("unconfined") => {
            Label::Selinux(text.to_owned())
        }
        None => Label::Free,
    }
}

fn file_systems(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.split('\t').nth(1));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_filters_are_read() {
        let apparmor = |name: &str| Label::AppArmor(name.into());
        let cases = [
            ("", Label::Free),
            ("unconfined\n", Label::Free),
            ("docker-default (enforce)\n", apparmor("docker-default")),
            ("docker-default (complain)", Label::Free),
            (
                "system_u:system_r:container_t:s0:c1,c2\0",
                Label::Selinux("system_u:system_r:container_t:s0:c1,c2".into()),
            ),
            ("unconfined_u:unconfined_r:unconfined_t:s0", Label::Free),
            ("kernel", Label::Free),
        ];
        for (text, expected) in cases {
            assert_eq!(labelled(text), expected, "{text}");
        }
        assert_eq!(filter("Name:\tx\nSeccomp:\t2\n"), Filter::On);
        assert_eq!(filter("Seccomp:\t0\nSeccomp_filters:\t2\n"), Filter::Off);
        assert_eq!(filter(""), Filter::Off);
        let found = file_systems("nodev\tproc\n\text4\nnodev\toverlay\n");
        let expected = ["ext4", "overlay", "proc"].map(str::to_owned);
        assert_eq!(found, BTreeSet::from(expected));
    }
}
