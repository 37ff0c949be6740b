//! Docker's credential helpers: a program that is given a server's name and prints JSON.

use super::Error;
use super::credentials::{Secret, basic};
use crate::sys::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Deserialize;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a helper said.
#[derive(Clone)]
pub(super) enum Answer {
    Found(Secret),
    /// It has nothing for this server.
    Nothing,
    /// It is not installed.
    Missing,
}

/// How long a helper may take; some talk to a cloud.
const LIMIT: Duration = Duration::from_secs(30);

/// The most bytes a helper may print.
const MAX_OUTPUT: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Runs `docker-credential-NAME get`.
pub(super) fn ask(
    name: &str,
    server: &str,
    origin: &str,
    cancel: &Cancel,
) -> Result<Answer, Error> {
    let wrong = |why: String| Error::Credentials {
        origin: origin.to_owned(),
        why,
    };
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(wrong("that is not the name of a helper".into()));
    }
    let program = format!("docker-credential-{name}");
    run(Path::new(&program), server, origin, cancel)
}

/// Runs a helper; one without a slash is looked for on the PATH.
pub(super) fn run(
    program: &Path,
    server: &str,
    origin: &str,
    cancel: &Cancel,
) -> Result<Answer, Error> {
    let wrong = |why: String| Error::Credentials {
        origin: origin.to_owned(),
        why,
    };
    let mut child = match Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Answer::Missing),
        Err(e) => return Err(wrong(format!("start it: {e}"))),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A name is short enough for any pipe; a helper that does not read it says why itself.
        let _ = stdin.write_all(server.as_bytes());
    }
    let talked = talk(&mut child, cancel);
    if talked.is_err() {
        let _ = child.kill();
    }
    let status = child.wait();
    let (out, err) = talked.map_err(|stop| match stop {
        Stop::Cancelled => Error::Cancelled,
        Stop::Late => wrong(format!("it did not answer within {} s", LIMIT.as_secs())),
        Stop::Long => wrong(format!("it printed more than {MAX_OUTPUT} bytes")),
        Stop::Io(e) => wrong(format!("listen to it: {e}")),
    })?;
    let said = String::from_utf8_lossy(&out);
    // The status is lost where something else reaps children; then the output has to do.
    if status.as_ref().is_ok_and(|status| !status.success()) {
        let said = said.trim();
        // The protocol has no code for this, only these words.
        if said.contains("credentials not found") || said.contains("no credentials server URL") {
            return Ok(Answer::Nothing);
        }
        let told = match said.is_empty() {
            true => String::from_utf8_lossy(&err).trim().to_owned(),
            false => said.to_owned(),
        };
        let told: String = told.chars().take(500).collect();
        return Err(wrong(format!("it failed: {}", told.replace('\n', " "))));
    }
    let printed: Printed = serde_json::from_slice(&out)
        .map_err(|_| wrong("it did not print JSON with Username and Secret".into()))?;
    if printed.secret.is_empty() {
        return Ok(Answer::Nothing);
    }
    Ok(Answer::Found(basic(&printed.username, &printed.secret)))
}

enum Stop {
    Cancelled,
    Late,
    Long,
    Io(std::io::Error),
}

/// Reads both outputs to their ends.
fn talk(child: &mut Child, cancel: &Cancel) -> Result<(Vec<u8>, Vec<u8>), Stop> {
    let deadline = Instant::now() + LIMIT;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Stop::Io(ErrorKind::BrokenPipe.into()));
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut out_ended, mut err_ended) = (false, false);
    while !(out_ended && err_ended) {
        if cancel.is_set() {
            return Err(Stop::Cancelled);
        }
        let left = deadline
            .checked_duration_since(Instant::now())
            .ok_or(Stop::Late)?;
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(cancel, PollFlags::IN)];
        if !out_ended {
            fds.push(PollFd::new(&stdout, PollFlags::IN));
        }
        if !err_ended {
            fds.push(PollFd::new(&stderr, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(Stop::Io(e.into())),
        }
        let is_ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
        let out_ready = !out_ended && is_ready(fds.get(1));
        let err_ready = !err_ended && is_ready(fds.last());
        if out_ready {
            out_ended = take(&mut stdout, &mut out)?;
        }
        if err_ready {
            err_ended = take(&mut stderr, &mut err)?;
        }
    }
    Ok((out, err))
}

/// Reads what is there; tells whether that was the end.
fn take(from: &mut impl Read, into: &mut Vec<u8>) -> Result<bool, Stop> {
    let mut buf = [0; 4096];
    let n = match from.read(&mut buf) {
        Ok(n) => n,
        Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(false),
        Err(e) => return Err(Stop::Io(e)),
    };
    into.extend_from_slice(buf.get(..n).unwrap_or_default());
    match into.len() > MAX_OUTPUT {
        true => Err(Stop::Long),
        false => Ok(n == 0),
    }
}
