//! A user namespace of the builder's own, where it may not mount as who it is.
//!
//! In there the builder is root, over what the ids that it could get own. A process that stays
//! outside writes the maps: with `newuidmap` and `newgidmap`, which give a user the ranges that
//! `/etc/subuid` and `/etc/subgid` name for it (subuid(5)), or by itself where the builder is root
//! already, in a container that may not mount. Without either there is one id.

use crate::fs::{Ids, Range};
use crate::sys::{self, Fork};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::CapabilitySet;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// How many ranges a map has at most here; the kernel takes 340 and `newuidmap` what fits a call.
const MOST_RANGES: usize = 100;

/// Why there is one id alone.
pub(super) type OneId = String;

/// Enters a user namespace, if things can be mounted there: else nothing is changed, and the reason is
/// given. To be called before any thread. Gives why there is one id alone, where that is so.
pub(super) fn enter() -> Result<Option<OneId>, String> {
    rehearse()?;
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let failed = |error: io::Error| error.to_string();
    let ids = Ids::read();
    let builder = rustix::process::getpid();
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let writer = match sys::fork().map_err(failed)? {
        Fork::Child => {
            drop(ours);
            write_maps_of(builder, theirs, &ids, uid, gid)
        }
        Fork::Parent(writer) => writer,
    };
    drop(theirs);
    let entered = sys::own_user_namespace();
    let mut said = String::new();
    let written = match &entered {
        Ok(()) => ours
            .write_all(b"go")
            .and_then(|()| ours.shutdown(std::net::Shutdown::Write))
            .and_then(|()| ours.read_to_string(&mut said).map(drop)),
        Err(_) => Ok(()),
    };
    drop(ours);
    wait_for(writer);
    entered.map_err(failed)?;
    written.map_err(failed)?;
    let why = match said.as_str() {
        "" => None,
        why => Some(why.to_owned()),
    };
    if why.is_some() {
        one_id(uid, gid).map_err(failed)?;
    }
    Ok(why)
}

/// Tries all of it in a process of its own, since who has entered a user namespace cannot go back.
fn rehearse() -> Result<(), String> {
    let tried = sys::apart(|| try_to_mount().err().unwrap_or_default().into_bytes());
    match tried {
        Ok(why) if why.is_empty() => Ok(()),
        Ok(why) => Err(String::from_utf8_lossy(&why).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn try_to_mount() -> Result<(), String> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    sys::own_user_namespace().map_err(|error| match remedy() {
        Some(remedy) => format!("{error}: {remedy}"),
        None => error.to_string(),
    })?;
    let mounted = || -> io::Result<()> {
        one_id(uid, gid)?;
        super::private_mounts().map_err(|(_, error)| error)?;
        Ok(mount("tmpfs", "/", "tmpfs", MountFlags::empty(), c"")?)
    };
    mounted().map_err(|error| match remedy() {
        Some(remedy) => format!("mount in it: {error}: {remedy}"),
        None => format!("mount in it: {error}"),
    })
}

/// Gives the machine's setting that forbids user namespaces.
fn remedy() -> Option<&'static str> {
    let says = |name: &str, value: &str| {
        std::fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == value)
    };
    [
        (
            "user/max_user_namespaces",
            "0",
            "the machine's sysctl user.max_user_namespaces is 0",
        ),
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "the machine's sysctl kernel.unprivileged_userns_clone is 0",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "the machine's sysctl kernel.apparmor_restrict_unprivileged_userns is 1",
        ),
    ]
    .into_iter()
    .find(|(name, value, _)| says(name, value))
    .map(|(_, _, remedy)| remedy)
}

/// Maps the builder to root, and nobody else. The kernel lets anybody do so who gives up changing
/// groups. A map that is there already stays.
fn one_id(uid: u32, gid: u32) -> io::Result<()> {
    if Ids::read().groups.is_empty() {
        // Absent before Linux 3.19.
        match std::fs::write("/proc/self/setgroups", "deny") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1\n"))?;
    }
    if Ids::read().users.is_empty() {
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    }
    Ok(())
}

fn wait_for(process: Pid) {
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(process), WaitOptions::empty()));
}

/// Is the process that writes the builder's maps once that is in its namespace; says why it could not.
fn write_maps_of(builder: Pid, mut line: UnixStream, ids: &Ids, uid: u32, gid: u32) -> ! {
    let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut go = Vec::new();
        match line.read_to_end(&mut go) {
            Ok(2) => {}
            // It is not in its namespace, or gone.
            _ => return,
        }
        if let Err(why) = write_maps(builder, ids, uid, gid) {
            let _ = line.write_all(why.as_bytes());
        }
    }));
    sys::exit_now(i32::from(written.is_err()))
}

fn write_maps(builder: Pid, ids: &Ids, uid: u32, gid: u32) -> Result<(), String> {
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let wanted = CapabilitySet::SETUID | CapabilitySet::SETGID;
    if held.is_ok_and(|held| held.contains(wanted)) {
        let file = |name: &str| format!("/proc/{}/{name}", builder.as_raw_nonzero());
        return std::fs::write(file("gid_map"), all(&ids.groups))
            .and_then(|()| std::fs::write(file("uid_map"), all(&ids.users)))
            .map_err(|error| format!("write the map of ids: {error}"));
    }
    let name = user_name(uid);
    for (program, list, own) in [
        ("newuidmap", "/etc/subuid", uid),
        ("newgidmap", "/etc/subgid", gid),
    ] {
        let text = match std::fs::read_to_string(list) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("read {list}: {error}"));
            }
            text => text.unwrap_or_default(),
        };
        let ranges = subordinate(&text, name.as_deref(), uid);
        if ranges.is_empty() {
            let user = name.clone().unwrap_or_else(|| uid.to_string());
            return Err(format!("{list} has no range for {user}"));
        }
        let ranges = after_root(own, &ranges);
        let mut command = Command::new(program);
        command.arg(builder.as_raw_nonzero().to_string());
        for Range {
            first,
            outside,
            count,
        } in ranges
        {
            command.args([first, outside, count].map(|number| number.to_string()));
        }
        let ran = command
            .output()
            .map_err(|error| format!("run {program}: {error}"))?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            return Err(match said.trim() {
                "" => format!("{program} failed ({})", ran.status),
                said => said.lines().next().unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(())
}

/// Writes a map in which every id there is stays what it is.
fn all(ranges: &[Range]) -> String {
    let mut text = String::new();
    for Range { first, count, .. } in ranges {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{first} {first} {count}");
    }
    text
}

/// Gives the name of a user. One that only a directory service knows has none here, and ranges are
/// found by its number.
fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read("/etc/passwd").ok()?;
    name_in(&String::from_utf8_lossy(&text), uid)
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Gives what a list of subordinate ids has for a user: the first of each range and its length.
fn subordinate(list: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        let mine = Some(user) == name || user.parse() == Ok(uid);
        let range = (
            fields.next()?.parse().ok()?,
            fields.next()?.parse::<u32>().ok()?,
        );
        (mine && range.1 > 0).then_some(range)
    };
    list.lines().filter_map(line).take(MOST_RANGES).collect()
}

/// Puts ranges one after the other behind root, which is the user itself.
fn after_root(own: u32, ranges: &[(u32, u32)]) -> Vec<Range> {
    let mut out = vec![Range {
        first: 0,
        outside: own,
        count: 1,
    }];
    let mut first = 1_u32;
    for (outside, count) in ranges {
        let count = (*count).min(u32::MAX - first);
        if count > 0 {
            out.push(Range {
                first,
                outside: *outside,
                count,
            });
        }
        first += count;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let list = "# a comment\nann:100000:65536\nbob:165536:65536\n1001:500000:10\n\
                    ann:900000:5\nbob:x:1\nann:7:0\n";
        type Case<'a> = (Option<&'a str>, u32, &'a [(u32, u32)]);
        let table: [Case<'_>; 4] = [
            (Some("ann"), 1000, &[(100_000, 65536), (900_000, 5)]),
            (Some("bob"), 1001, &[(165_536, 65536), (500_000, 10)]),
            (None, 1001, &[(500_000, 10)]),
            (Some("eve"), 1002, &[]),
        ];
        for (name, uid, expected) in table {
            assert_eq!(subordinate(list, name, uid), expected, "{name:?}");
        }
    }

    #[test]
    fn ranges_follow_root() {
        let shown = |ranges: &[(u32, u32)]| {
            after_root(1000, ranges)
                .iter()
                .map(|r| (r.first, r.outside, r.count))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&[(100_000, 65536), (900_000, 5)]),
            [(0, 1000, 1), (1, 100_000, 65536), (65537, 900_000, 5)]
        );
        assert_eq!(
            shown(&[(5, u32::MAX), (5, 5)]),
            [(0, 1000, 1), (1, 5, u32::MAX - 1)]
        );
    }

    #[test]
    fn names_of_users() {
        let passwd = "root:x:0:0::/:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:\n";
        for (uid, name) in [(0, Some("root")), (1000, Some("ann")), (1, None)] {
            assert_eq!(name_in(passwd, uid).as_deref(), name);
        }
    }
}
