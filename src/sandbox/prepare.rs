//! The builder's side of the set-up: describes a command as a job and sees to it that every place
//! it mounts something on is there.

use super::scaffold::{Kind, Scaffold};
use super::trees::{self, Tree};
use super::wire::{File, Job, Way};
use super::{Command, Error, Identity, MEMORY_LIMIT, Mount};
use crate::fs::Ids;
use crate::plan::Network;
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A command ready to be started.
pub(super) struct Prepared {
    /// What process 1 does.
    pub(super) job: Job,
    /// What it mounts, in the order of the job's targets.
    pub(super) trees: Vec<std::os::fd::OwnedFd>,
}

/// Describes a command and makes the mount points that its root lacks. They are to be taken away
/// again in any case.
pub(super) fn prepare(
    command: &Command,
    root: &Path,
    scaffold: &mut Scaffold,
) -> Result<Prepared, Error> {
    let mut job = job(command, Way::Pivot, root)?;
    for directory in ["proc", "sys", "dev"] {
        scaffold.directory(directory)?;
    }
    for (path, content) in [
        ("/etc/resolv.conf", resolvers(command.network)),
        ("/etc/hosts", hosts(&command.hostname)),
    ] {
        let place = scaffold.place(path.as_bytes(), Kind::File)?;
        // An image whose link leads to a device sees the device.
        if !place.later {
            job.binds.push(File {
                path: place.path,
                mode: 0o644,
                content,
            });
        }
    }
    for (path, mode, content) in &command.files {
        let file = |path| File {
            path,
            mode: *mode,
            content: content.clone(),
        };
        if let Some(path) = device(path) {
            job.devices.push(file(path));
            continue;
        }
        let place = scaffold.place(path, Kind::File)?;
        if place.later {
            return Err(invalid(
                &format!("mount {}", String::from_utf8_lossy(path)),
                "no file can be there",
            ));
        }
        job.binds.push(file(place.path));
    }
    let mut trees = Vec::new();
    for mount in trees::ordered(&command.mounts) {
        let Tree { target, tree } = trees::make(mount, command, scaffold)?;
        job.targets.push(target);
        trees.push(tree);
    }
    Ok(Prepared { job, trees })
}

/// Describes a command without any of its files and mounts; refuses what no program can be executed
/// with.
pub(super) fn job(command: &Command, way: Way, root: &Path) -> Result<Job, Error> {
    if command.args.is_empty() {
        return Err(invalid("execute the command", "it has no program"));
    }
    let has_nul = |string: &Vec<u8>| string.contains(&0);
    if command.args.iter().chain(&command.env).any(has_nul) || has_nul(&command.cwd) {
        return Err(invalid("execute the command", "it contains a NUL byte"));
    }
    let ids = Ids::here();
    let Identity { uid, gid, groups } = &command.identity;
    if !ids.hold(*uid, *gid) {
        return Err(invalid(
            &format!("run as user {uid} and group {gid}"),
            "there is no such id in this user namespace; more of them take a range in /etc/subuid and \
             /etc/subgid, and newuidmap",
        ));
    }
    let groups = groups.iter().copied();
    Ok(Job {
        way,
        root: root.as_os_str().as_bytes().to_vec(),
        args: command.args.clone(),
        env: command.env.clone(),
        cwd: command.cwd.clone(),
        hostname: command.hostname.clone().into_bytes(),
        uid: *uid,
        gid: *gid,
        groups: groups.filter(|group| ids.holds_group(*group)).collect(),
        network: command.network,
        insecure: command.insecure,
        ..Job::default()
    })
}

/// Says what making a mount is, for errors.
pub(super) fn mounting(mount: &Mount) -> String {
    format!("mount {}", String::from_utf8_lossy(&mount.target))
}

/// Refuses a file in memory that is too large for it.
pub(super) fn check_memory(mount: &Mount, content: &[u8]) -> Result<(), Error> {
    let length = content.len();
    match length > MEMORY_LIMIT {
        true => Err(invalid(
            &mounting(mount),
            format!("it has {length} bytes, and a file in memory at most {MEMORY_LIMIT}"),
        )),
        false => Ok(()),
    }
}

/// Gives the path of a file in `/dev`, relative to it; `None` for another place. A path with `..`
/// is another place and refused there.
fn device(path: &[u8]) -> Option<Vec<u8>> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = path.strip_prefix(b"dev/")?;
    let plain = path
        .split(|byte| *byte == b'/')
        .all(|name| !matches!(name, b"" | b"." | b".."));
    plain.then(|| path.to_vec())
}

/// Gives the list of name servers. Those of the host answer in there too where the network is the
/// host's.
pub(super) fn resolvers(network: Network) -> Vec<u8> {
    let hosts = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    match network {
        Network::Host => hosts,
        Network::None => reachable(&hosts),
    }
}

/// What BuildKit names where the host has no name server that could be reached from elsewhere.
const PUBLIC: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n\
                      nameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n";

/// Leaves out the name servers of a list that listen on the loopback device, as BuildKit does for a
/// network that is not the host's.
fn reachable(list: &[u8]) -> Vec<u8> {
    let server = |line: &[u8]| -> Option<IpAddr> {
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse().ok()
    };
    let mut kept = Vec::new();
    let mut any = false;
    for line in list.split_inclusive(|byte| *byte == b'\n') {
        match server(line) {
            Some(address) if address.is_loopback() => continue,
            Some(_) => any = true,
            None => {}
        }
        kept.extend_from_slice(line);
    }
    if !any {
        if kept.last().is_some_and(|byte| *byte != b'\n') {
            kept.push(b'\n');
        }
        kept.extend_from_slice(PUBLIC.as_bytes());
    }
    kept
}

pub(super) fn hosts(hostname: &str) -> Vec<u8> {
    format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
        .into_bytes()
}

/// Makes the error of something that cannot be asked for.
pub(super) fn invalid(action: &str, why: impl Into<String>) -> Error {
    Error::Setup {
        action: action.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, why.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_dev_are_told_from_others() {
        let cases: [(&[u8], Option<&[u8]>); 6] = [
            (b"/dev/pipes/EOF", Some(b"pipes/EOF")),
            (b"dev/x", Some(b"x")),
            (b"/device/x", None),
            (b"/dev/../etc/passwd", None),
            (b"/dev/", None),
            (b"/etc/hosts", None),
        ];
        for (path, expected) in cases {
            assert_eq!(device(path).as_deref(), expected);
        }
    }

    #[test]
    fn name_servers_of_the_loopback_device_are_left_out() {
        let public = |before: &str| format!("{before}{PUBLIC}");
        for (list, expected) in [
            (
                "search a\nnameserver 10.0.0.1\n",
                "search a\nnameserver 10.0.0.1\n".to_owned(),
            ),
            (
                "nameserver 127.0.0.53\nnameserver\t1.1.1.1\noptions x",
                "nameserver\t1.1.1.1\noptions x".to_owned(),
            ),
            ("nameserver ::1\nsearch a", public("search a\n")),
            ("", public("")),
            (
                "# nameserver 127.0.0.1\nnameserver nonsense\n",
                public("# nameserver 127.0.0.1\nnameserver nonsense\n"),
            ),
        ] {
            let kept = reachable(list.as_bytes());
            assert_eq!(String::from_utf8_lossy(&kept), expected, "{list:?}");
        }
    }
}
