//! A RUN: its command in the stage's root.

use super::{BoxError, Running};
use crate::build::mounts::Ready;
use crate::build::{Error, kept, mounts, space};
use crate::changeset::Changeset;
use crate::context;
use crate::dockerfile::check::{Hide, without_credentials};
use crate::fs::{Ids, RelPath};
use crate::plan::{RunOp, Step};
use crate::progress::{Event, Level, Owner, StepId, Stream, Work};
use crate::sandbox::{Command, Exit, Identity};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

/// How many of a command's last lines an error keeps.
const LAST_LINES: usize = 20;
/// How many bytes of such a line.
const LINE_BYTES: usize = 2000;
/// What the host is called where the request does not say: what BuildKit calls it.
const HOSTNAME: &str = "buildkitsandbox";

impl Running<'_, '_> {
    pub(super) fn command(
        &mut self,
        id: StepId,
        step: &Step,
        run: &RunOp,
    ) -> Result<Changeset, Error> {
        let failed = |source: BoxError| Error::step(step.span, &step.text, source);
        let platform = &self.shared.request.platform;
        let ready = mounts::prepare(self.shared, platform, id, run).map_err(failed)?;
        let command = self.prepare(run, &ready).map_err(failed)?;
        let root = self.root.as_mut().ok_or_else(|| {
            Error::other("run a command", "its stage was given no root directory")
        })?;
        if let Some(path) = RelPath::clean(&command.cwd) {
            kept::warn_of(self.shared, &self.guard, &path);
        }
        root.begin().map_err(|e| failed(e.into()))?;
        let opened = root.root().map_err(|e| failed(e.into()))?;
        make_directory(opened, &command.cwd).map_err(|e| failed(e.into()))?;
        let mut last = Tail::default();
        let ran = {
            let _span = self.shared.sink.span(
                Owner::Step(id),
                Work::Run,
                &without_credentials(run.args.last().map_or("", String::as_str), Hide::User),
                None,
            );
            let sink = &self.shared.sink;
            let mut show = |stream, bytes: Vec<u8>| {
                if !bytes.is_empty() {
                    last.take(&bytes);
                    sink.send(Event::Output(id, stream, bytes));
                }
            };
            let mut masks = [(Stream::Out, ready.mask()), (Stream::Err, ready.mask())];
            let ran = self.shared.sandbox.run(
                root.entry(),
                &command,
                &mut |stream, bytes| {
                    for (of, mask) in &mut masks {
                        if *of == stream {
                            show(stream, mask.take(bytes));
                        }
                    }
                },
                &mut |text| sink.message(Level::Warn, text),
                self.shared.cancel,
            );
            for (stream, mask) in &mut masks {
                show(*stream, mask.rest());
            }
            ran
        };
        drop(command);
        ready.end();
        let code = match ran {
            Ok(Exit::Code(0)) => None,
            Ok(Exit::Code(code)) => Some(code),
            Ok(Exit::Signal(signal)) => Some(128 + signal),
            Ok(Exit::Cancelled) => {
                root.discard().map_err(|e| failed(e.into()))?;
                return Err(Error::Cancelled);
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = root.discard();
                return Err(failed(mounts::explained(error, &run.mounts, &self.tree)));
            }
        };
        if let Some(code) = code {
            space::tell_if_full(&self.shared.store, self.shared.sink);
            root.discard().map_err(|e| failed(e.into()))?;
            return Err(Error::Run {
                span: step.span,
                command: step.text.clone(),
                code,
                last: last.lines(),
            });
        }
        kept::check_own(self.shared).map_err(|e| failed(e.into()))?;
        let _span = self
            .shared
            .sink
            .span(Owner::Step(id), Work::Diff, "diff", None);
        let tracked = root.commit().map_err(|e| failed(e.into()))?;
        let tracked = tracked.with_owners_of(&self.tree, Ids::here());
        let tracked = self.heeded(tracked).map_err(failed)?;
        let before = tracked.files();
        let settled = tracked.settle(&self.tree).map_err(|e| failed(e.into()))?;
        self.is_exact = settled.files() == before;
        Ok(settled)
    }

    fn prepare(&self, run: &RunOp, ready: &Ready) -> Result<Command, BoxError> {
        let user = context::user(&run.user, &self.tree)?;
        let mut env: Vec<Vec<u8>> = run.env.iter().map(|e| e.clone().into_bytes()).collect();
        ready.add_variables(&mut env);
        if !env.iter().any(|entry| entry.starts_with(b"HOME=")) {
            env.push(format!("HOME={}", user.home).into_bytes());
        }
        Ok(Command {
            args: run.args.iter().map(|a| a.clone().into_bytes()).collect(),
            env,
            cwd: run.cwd.clone().into_bytes(),
            identity: Identity {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups,
            },
            files: run
                .script
                .iter()
                .map(|(name, text)| {
                    let path = format!("/dev/pipes/{name}").into_bytes();
                    (path, 0o755, text.clone().into_bytes())
                })
                .collect(),
            hostname: run.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned()),
            mounts: ready.mounts.clone(),
            network: run.network,
            insecure: run.insecure,
        })
    }
}

/// Makes a command's working directory where an image names one that it does not have, as runc does.
fn make_directory(root: BorrowedFd<'_>, path: &[u8]) -> std::io::Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
    use rustix::io::Errno;
    let open = |path: &RelPath| {
        openat2(
            root,
            path.as_path(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    };
    let path = RelPath::clean(path).ok_or(std::io::ErrorKind::InvalidInput)?;
    if path.is_root() || open(&path).is_ok() {
        return Ok(());
    }
    let mut at = RelPath::root();
    for name in path.components() {
        let parent = open(&at)?;
        at = at.join(name);
        match open(&at) {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                use std::os::unix::ffi::OsStrExt;
                let name = std::ffi::OsStr::from_bytes(name);
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                // The file mode creation mask may have taken bits away.
                rustix::fs::chmodat(
                    &parent,
                    name,
                    Mode::from_raw_mode(0o755),
                    rustix::fs::AtFlags::empty(),
                )?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The last lines of what a command printed.
#[derive(Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
}

impl Tail {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&c| c == b'\n') {
            if !self.open {
                if self.lines.len() == LAST_LINES {
                    self.lines.pop_front();
                }
                self.lines.push_back(Vec::new());
            }
            self.open = !piece.ends_with(b"\n");
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            if let Some(line) = self.lines.back_mut() {
                let room = LINE_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&text[..text.len().min(room)]);
            }
        }
    }

    fn lines(self) -> Vec<String> {
        self.lines
            .iter()
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    }
}
