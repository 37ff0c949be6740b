//! Which user and group ids there are where the builder is (user_namespaces(7)).

use std::sync::OnceLock;

/// Ids that exist, by their numbers inside of the builder's user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u32,
    /// What the first is outside.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// The users and groups that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Users.
    pub users: Vec<Range>,
    /// Groups.
    pub groups: Vec<Range>,
}

impl Ids {
    /// Gives those of this process. They are looked up once: no earlier than the process is in the user
    /// namespace it stays in.
    pub fn here() -> &'static Ids {
        static HERE: OnceLock<Ids> = OnceLock::new();
        HERE.get_or_init(Ids::read)
    }

    /// Reads those of this process as they are now; all where the kernel does not say.
    pub fn read() -> Ids {
        let read = |name| match std::fs::read_to_string(name) {
            Ok(text) => ranges(&text),
            Err(_) => vec![Range {
                first: 0,
                outside: 0,
                count: u32::MAX,
            }],
        };
        Ids {
            users: read("/proc/self/uid_map"),
            groups: read("/proc/self/gid_map"),
        }
    }

    /// Tells whether a user exists.
    pub fn holds_user(&self, uid: u32) -> bool {
        holds(&self.users, uid)
    }

    /// Tells whether a group exists.
    pub fn holds_group(&self, gid: u32) -> bool {
        holds(&self.groups, gid)
    }

    /// Tells whether a user and a group exist, so that a file can belong to them.
    pub fn hold(&self, uid: u32, gid: u32) -> bool {
        self.holds_user(uid) && self.holds_group(gid)
    }

    /// Gives what of an owner exists: the user and the group that a file can be given to.
    pub fn known(&self, uid: u32, gid: u32) -> (Option<u32>, Option<u32>) {
        (
            Some(uid).filter(|uid| self.holds_user(*uid)),
            Some(gid).filter(|gid| self.holds_group(*gid)),
        )
    }

    /// Tells whether every user and group exists.
    pub fn hold_all(&self) -> bool {
        let all = |ranges: &[Range]| ranges.iter().any(|r| (r.first, r.count) == (0, u32::MAX));
        all(&self.users) && all(&self.groups)
    }

    /// Gives a short name that those with the same maps have in common.
    pub fn mark(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(&(self.users.len() as u64).to_le_bytes());
        for range in self.users.iter().chain(&self.groups) {
            for number in [range.first, range.outside, range.count] {
                hash.update(&number.to_le_bytes());
            }
        }
        let hex = hash.finalize().to_hex();
        hex.get(..16).unwrap_or_default().to_owned()
    }

    /// Tells whether there is one user or one group alone: root.
    pub fn are_one(&self) -> bool {
        let count = |ranges: &[Range]| ranges.iter().map(|r| u64::from(r.count)).sum::<u64>();
        count(&self.users) <= 1 || count(&self.groups) <= 1
    }
}

fn holds(ranges: &[Range], id: u32) -> bool {
    ranges.iter().any(|range| {
        id.checked_sub(range.first)
            .is_some_and(|at| at < range.count)
    })
}

/// Reads a map; lines that are none are passed over.
fn ranges(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        Some(Range {
            first: fields.next()?.ok()?,
            outside: fields.next()?.ok()?,
            count: fields.next()?.ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_map() {
        let all = "         0          0 4294967295\n";
        let rootless = "0 1000 1\n1 100000 65535\n";
        let gap = "0 1000 1\n33 100000 1\n";
        let cases: [(&str, &[u32], &[u32], bool); 5] = [
            (all, &[0, 65535, 4_294_967_294], &[u32::MAX], false),
            (rootless, &[0, 1, 65535], &[65536, u32::MAX], false),
            (gap, &[0, 33], &[1, 32, 34], false),
            ("0 1000 1\n", &[0], &[1, 1000], true),
            ("nonsense\n", &[], &[0], true),
        ];
        for (text, there, missing, one) in cases {
            let ids = Ids {
                users: ranges(text),
                groups: ranges(text),
            };
            assert!(there.iter().all(|id| ids.hold(*id, *id)), "{text}");
            assert!(!missing.iter().any(|id| ids.hold(*id, *id)), "{text}");
            assert_eq!(ids.are_one(), one, "{text}");
        }
    }

    #[test]
    fn a_file_needs_both() {
        let ids = Ids {
            users: ranges("0 0 10"),
            groups: ranges("0 0 1"),
        };
        assert!(ids.hold(9, 0) && !ids.hold(0, 9) && ids.are_one());
    }
}
