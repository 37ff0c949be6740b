//! Ends everything that descends from this process, where no namespace does it.
//!
//! This process adopts orphans (`PR_SET_CHILD_SUBREAPER`), so nothing gets out of its descent,
//! whatever sessions and parents it makes for itself. All are stopped before the first is killed,
//! again and again until there is nobody new: what is stopped does not fork. A signal to a process
//! group comes to all of it at once, forks under way included, so most who fork in a race end there.

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, wait, waitpid,
};
use std::collections::{HashMap, HashSet};
use std::io;
use std::thread::sleep;
use std::time::Duration;

/// How long the killed have to end before they are looked for again.
const PAUSE: Duration = Duration::from_millis(1);

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    id: Pid,
    parent: i32,
    group: i32,
    session: i32,
    dead: bool,
}

/// The descendants as they were seen.
struct Seen {
    processes: Vec<Process>,
    /// Whether nobody can have been missed: a process whose parent ended while the others were looked
    /// at seems to descend from nobody.
    whole: bool,
}

/// Kills and reaps all descendants of this process, except these children and theirs. Comes back
/// when none is left, or with an error where one cannot be killed.
pub(in crate::sandbox) fn end_all(except: &[Pid]) -> io::Result<()> {
    loop {
        // Whoever descends from this process does so by a child of it, so this is exact.
        if except.is_empty() && matches!(wait(WaitOptions::NOHANG), Err(Errno::CHILD)) {
            return Ok(());
        }
        let left = descendants(except)?;
        if left.processes.is_empty() && left.whole && !except.is_empty() {
            return Ok(());
        }
        for process in left.processes.iter().filter(|process| process.dead) {
            if process.parent == getpid().as_raw_pid() {
                let _ = waitpid(Some(process.id), WaitOptions::NOHANG);
            }
        }
        let stopped = stop(except)?;
        let mut refused = None;
        let mut killed = stopped.is_empty();
        for process in &stopped {
            match kill_process(*process, Signal::KILL) {
                Err(Errno::PERM) => refused = Some(Errno::PERM),
                _ => killed = true,
            }
        }
        if let (Some(errno), false) = (refused, killed) {
            return Err(errno.into());
        }
        sleep(PAUSE);
    }
}

/// Stops the descendants until no more appear; gives them.
fn stop(except: &[Pid]) -> io::Result<HashSet<Pid>> {
    let session = session()?;
    let mut stopped = HashSet::new();
    loop {
        let seen = descendants(except)?;
        let mut fresh = !seen.whole;
        for process in seen.processes {
            if process.dead || !stopped.insert(process.id) {
                continue;
            }
            fresh = true;
            // A session that was begun by a descendant has nobody else in it.
            if process.session != session
                && let Some(group) = Pid::from_raw(process.group)
            {
                let _ = kill_process_group(group, Signal::STOP);
            }
            let _ = kill_process(process.id, Signal::STOP);
        }
        if !fresh {
            return Ok(stopped);
        }
    }
}

/// Gives this process's session; 0 where that was begun outside of this PID namespace, as the kernel
/// has it. `getsid` of rustix takes no 0.
fn session() -> io::Result<i32> {
    let own = parse(getpid().as_raw_pid(), &std::fs::read("/proc/self/stat")?);
    let own = own.ok_or_else(|| io::Error::other("/proc/self/stat does not say the session"))?;
    Ok(own.session)
}

fn descendants(except: &[Pid]) -> io::Result<Seen> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that is gone meanwhile has nothing to read.
        if let Ok(stat) = std::fs::read(format!("/proc/{id}/stat")) {
            all.extend(parse(id, &stat));
        }
    }
    let known: HashSet<i32> = all.iter().map(|one| one.id.as_raw_pid()).collect();
    // The parent of the first process, and of one that came from outside, is none.
    let whole = all
        .iter()
        .all(|one| one.parent == 0 || known.contains(&one.parent));
    Ok(Seen {
        processes: below(getpid().as_raw_pid(), all, except),
        whole,
    })
}

/// Gives those that descend from a process.
fn below(top: i32, all: Vec<Process>, except: &[Pid]) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all {
        if !except.contains(&process.id) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let mut found: Vec<Process> = children.remove(&top).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let more = children.remove(&process.id.as_raw_pid());
        found.extend(more.unwrap_or_default());
        next += 1;
    }
    found
}

/// Reads what the kernel says of a process (proc_pid_stat(5)). Its name may have anything in it.
fn parse(id: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    Some(Process {
        id: Pid::from_raw(id)?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        session: fields.next()?.parse().ok()?,
        dead: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: i32, parent: i32) -> Process {
        Process {
            id: Pid::from_raw(id).unwrap(),
            parent,
            group: id,
            session: 1,
            dead: false,
        }
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let read = |stat: &str| parse(7, stat.as_bytes());
        let expected = Process {
            group: 5,
            ..process(7, 3)
        };
        assert_eq!(read("7 (sh) S 3 5 1 0 -1 4194560"), Some(expected.clone()));
        assert_eq!(read("7 (a) Z 9 9) R 3 5 1 0"), Some(expected.clone()));
        let dead = Process {
            dead: true,
            ..expected
        };
        assert_eq!(read("7 (x y) Z 3 5 1"), Some(dead));
        for stat in ["", "7 (sh", "7 (sh) S 3 5", "7 (sh) S x 5 1"] {
            assert_eq!(read(stat), None, "{stat}");
        }
    }

    #[test]
    fn descendants_are_found_whatever_their_order() {
        let all = [(9, 4), (2, 1), (3, 1), (4, 3), (5, 2), (6, 9), (7, 8)];
        let all = || all.map(|(id, parent)| process(id, parent)).to_vec();
        let ids = |top, except: &[i32]| {
            let except: Vec<Pid> = except.iter().filter_map(|id| Pid::from_raw(*id)).collect();
            let mut ids: Vec<i32> = below(top, all(), &except)
                .iter()
                .map(|process| process.id.as_raw_pid())
                .collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(1, &[]), [2, 3, 4, 5, 6, 9]);
        assert_eq!(ids(1, &[3]), [2, 5]);
        assert_eq!(ids(3, &[]), [4, 6, 9]);
        assert!(ids(6, &[]).is_empty());
    }
}
