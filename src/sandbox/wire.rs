//! What the builder, the helper and process 1 tell each other.
//!
//! A job travels as bytes in a memory file, because a socket message is bounded and an environment
//! or a script is not. Reports travel back as short messages on a socket of the run's own.

use super::Error;
use super::scaffold::Kind;
use crate::plan::Network;
use std::io;

/// A command and the root it runs in, as process 1 or the keeper needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Job {
    /// How the root is entered.
    pub(super) way: Way,
    /// The root: a mount point where it is entered by a mount, else a directory.
    pub(super) root: Vec<u8>,
    /// Program and arguments.
    pub(super) args: Vec<Vec<u8>>,
    /// The environment.
    pub(super) env: Vec<Vec<u8>>,
    /// The working directory.
    pub(super) cwd: Vec<u8>,
    /// The host name.
    pub(super) hostname: Vec<u8>,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Which network it sees.
    pub(super) network: Network,
    /// Whether nothing is kept from it.
    pub(super) insecure: bool,
    /// Files to bind over what is at these paths: absolute inside the root, free of symlinks, there.
    pub(super) binds: Vec<File>,
    /// Files in `/dev`: relative to it.
    pub(super) devices: Vec<File>,
    /// What is mounted over all that, in order. The trees themselves come by the run's line.
    pub(super) targets: Vec<Target>,
    /// Where nothing can be mounted, what stands in for mounts, in order.
    pub(super) stands: Vec<Stand>,
    /// Whether a directory among them was to have a bound.
    pub(super) bounded: bool,
}

/// How a root is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    #[default]
    Pivot,
    Chroot,
    Stay,
}

/// Something that is put into the root itself while the command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    /// Where: absolute, inside the root; links are followed inside the root.
    pub(super) path: Vec<u8>,
    pub(super) what: StandIn,
}

/// What stands in for a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StandIn {
    /// What a descriptor is of, which comes by the run's line.
    Bind(Writes),
    /// An empty directory.
    Empty,
    /// A file.
    File {
        mode: u32,
        uid: u32,
        gid: u32,
        content: Vec<u8>,
        secret: Secrecy,
    },
}

/// What becomes of what the command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// It is thrown away, and nothing can be mounted where there is no place for it.
    Sealed,
    /// It is thrown away.
    Lost,
    /// It is in the source afterwards.
    Kept,
}

/// Whether a file may lie on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    Open,
    /// Not where that can be had.
    Secret,
}

/// The place of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Where: absolute inside the root, free of symlinks; there, unless it is in `/dev`.
    pub(super) path: Vec<u8>,
    /// What it is.
    pub(super) kind: Kind,
    /// What every mount of the tree gets: `MOUNT_ATTR_*`.
    pub(super) attributes: u32,
    /// How much of the tree is mounted.
    pub(super) part: Part,
}

/// How much of a tree is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// The one file in it, of the name `Part::NAME`.
    File,
}

impl Part {
    pub(super) const NAME: &str = "file";
}

/// One file that is there during the command only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: Vec<u8>,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

impl Job {
    /// Gives the job as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        // With room for all, so that no copy of a secret stays behind where it grew.
        let size = |list: &[Vec<u8>]| list.iter().map(|item| item.len() + 8).sum::<usize>();
        let files = |list: &[File]| {
            let each = list
                .iter()
                .map(|file| file.path.len() + file.content.len() + 24);
            each.sum::<usize>()
        };
        let targets = self.targets.iter().map(|target| target.path.len() + 24);
        let room = size(&self.args) + size(&self.env) + files(&self.binds) + files(&self.devices);
        let stands = self.stands.iter().map(|stand| {
            let content = match &stand.what {
                StandIn::File { content, .. } => content.len(),
                StandIn::Bind(_) | StandIn::Empty => 0,
            };
            stand.path.len() + content + 48
        });
        let room = room + self.root.len() + self.cwd.len() + self.groups.len() * 4 + 256;
        let room = room + targets.sum::<usize>() + stands.sum::<usize>();
        let mut out = Writer(Vec::with_capacity(room));
        out.number(match self.way {
            Way::Pivot => 0,
            Way::Chroot => 1,
            Way::Stay => 2,
        });
        out.bytes(&self.root);
        out.list(&self.args, |out, arg| out.bytes(arg));
        out.list(&self.env, |out, variable| out.bytes(variable));
        out.bytes(&self.cwd);
        out.bytes(&self.hostname);
        out.number(self.uid);
        out.number(self.gid);
        out.list(&self.groups, |out, group| out.number(*group));
        out.flag(self.network == Network::None);
        out.flag(self.insecure);
        for files in [&self.binds, &self.devices] {
            out.list(files, |out, file| {
                out.bytes(&file.path);
                out.number(file.mode);
                out.bytes(&file.content);
            });
        }
        out.list(&self.targets, |out, target| {
            out.bytes(&target.path);
            out.flag(target.kind == Kind::Directory);
            out.number(target.attributes);
            out.flag(target.part == Part::File);
        });
        out.list(&self.stands, |out, stand| {
            out.bytes(&stand.path);
            match &stand.what {
                StandIn::Bind(Writes::Sealed) => out.number(0),
                StandIn::Bind(Writes::Lost) => out.number(1),
                StandIn::Bind(Writes::Kept) => out.number(2),
                StandIn::Empty => out.number(3),
                StandIn::File {
                    mode,
                    uid,
                    gid,
                    content,
                    secret,
                } => {
                    out.number(4);
                    for number in [mode, uid, gid] {
                        out.number(*number);
                    }
                    out.bytes(content);
                    out.flag(*secret == Secrecy::Secret);
                }
            }
        });
        out.flag(self.bounded);
        out.0
    }

    /// Reads a job back; `None` where the bytes are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Job> {
        let mut from = Reader(bytes);
        let file = |from: &mut Reader<'_>| {
            Some(File {
                path: from.bytes()?,
                mode: from.number()?,
                content: from.bytes()?,
            })
        };
        let target = |from: &mut Reader<'_>| {
            Some(Target {
                path: from.bytes()?,
                kind: if from.flag()? {
                    Kind::Directory
                } else {
                    Kind::File
                },
                attributes: from.number()?,
                part: if from.flag()? {
                    Part::File
                } else {
                    Part::Whole
                },
            })
        };
        let stand = |from: &mut Reader<'_>| {
            Some(Stand {
                path: from.bytes()?,
                what: match from.number()? {
                    0 => StandIn::Bind(Writes::Sealed),
                    1 => StandIn::Bind(Writes::Lost),
                    2 => StandIn::Bind(Writes::Kept),
                    3 => StandIn::Empty,
                    4 => StandIn::File {
                        mode: from.number()?,
                        uid: from.number()?,
                        gid: from.number()?,
                        content: from.bytes()?,
                        secret: match from.flag()? {
                            false => Secrecy::Open,
                            true => Secrecy::Secret,
                        },
                    },
                    _ => return None,
                },
            })
        };
        let job = Job {
            way: match from.number()? {
                0 => Way::Pivot,
                1 => Way::Chroot,
                2 => Way::Stay,
                _ => return None,
            },
            root: from.bytes()?,
            args: from.list(Reader::bytes)?,
            env: from.list(Reader::bytes)?,
            cwd: from.bytes()?,
            hostname: from.bytes()?,
            uid: from.number()?,
            gid: from.number()?,
            groups: from.list(Reader::number)?,
            network: if from.flag()? {
                Network::None
            } else {
                Network::Host
            },
            insecure: from.flag()?,
            binds: from.list(file)?,
            devices: from.list(file)?,
            targets: from.list(target)?,
            stands: from.list(stand)?,
            bounded: from.flag()?,
        };
        from.0.is_empty().then_some(job)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    fn length(&mut self, length: usize) {
        self.0.extend((length as u64).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend(bytes);
    }

    fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Writer, &T)) {
        self.length(items.len());
        for item in items {
            each(self, item);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn flag(&mut self) -> Option<bool> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        match byte {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn length(&mut self) -> Option<usize> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        usize::try_from(u64::from_le_bytes(*number)).ok()
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn list<T>(&mut self, each: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.length()?;
        (0..length).map(|_| each(self)).collect()
    }
}

/// Overwrites what may have been a secret and is not needed any more.
pub(super) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Else the compiler may see that nobody reads it.
    std::hint::black_box(bytes);
}

/// What comes back during a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// A step of the set-up failed and the command does not run, or one of what comes after it.
    Failed { action: String, why: Why },
    /// Something cannot be as it should; what the number says is said once in a build.
    Warned { number: i32, text: String },
    /// The command ended.
    Ended(Status),
    /// The namespace is empty and gone; nothing follows. How process 1 ended.
    Gone(Status),
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// By this error of the kernel's.
    Errno(i32),
    /// In words.
    Words(String),
}

impl Why {
    /// Tells what an error says.
    pub(super) fn of(error: &io::Error) -> Why {
        match error.raw_os_error() {
            Some(errno) => Why::Errno(errno),
            None => Why::Words(error.to_string()),
        }
    }

    /// Gives it as an error again.
    pub(super) fn error(self) -> io::Error {
        match self {
            Why::Errno(errno) => io::Error::from_raw_os_error(errno),
            Why::Words(words) => io::Error::new(io::ErrorKind::InvalidInput, words),
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Code(i32),
    Signal(i32),
}

impl Status {
    /// Reads what `wait` gave.
    pub(super) fn of(status: rustix::process::WaitStatus) -> Status {
        match status.terminating_signal() {
            Some(signal) => Status::Signal(signal),
            None => Status::Code(status.exit_status().unwrap_or(0)),
        }
    }
}

/// Longest report, with room for an action that names a long path.
pub(super) const REPORT_LIMIT: usize = 8192;

impl Report {
    /// Gives the report as one message.
    pub(super) fn encode(&self) -> Vec<u8> {
        let both;
        let (tag, number, text) = match self {
            Report::Failed {
                action,
                why: Why::Errno(errno),
            } => (0, *errno, action.as_str()),
            Report::Failed {
                action,
                why: Why::Words(words),
            } => {
                // The length of the first tells where the second begins.
                let length = action.len().min(REPORT_LIMIT / 2);
                both = [action.get(..length).unwrap_or_default(), words].concat();
                (6, i32::try_from(length).unwrap_or(0), both.as_str())
            }
            Report::Warned { number, text } => (5, *number, text.as_str()),
            Report::Ended(Status::Code(code)) => (1, *code, ""),
            Report::Ended(Status::Signal(signal)) => (2, *signal, ""),
            Report::Gone(Status::Code(code)) => (3, *code, ""),
            Report::Gone(Status::Signal(signal)) => (4, *signal, ""),
        };
        let mut message = vec![tag];
        message.extend(number.to_le_bytes());
        message.extend(text.as_bytes());
        message.truncate(REPORT_LIMIT);
        message
    }

    /// Reads a message.
    pub(super) fn decode(message: &[u8]) -> Option<Report> {
        let (tag, rest) = message.split_first()?;
        let (number, text) = rest.split_first_chunk()?;
        let number = i32::from_le_bytes(*number);
        Some(match tag {
            0 => Report::Failed {
                action: String::from_utf8_lossy(text).into_owned(),
                why: Why::Errno(number),
            },
            5 => Report::Warned {
                number,
                text: String::from_utf8_lossy(text).into_owned(),
            },
            6 => {
                let (action, words) = text.split_at_checked(usize::try_from(number).ok()?)?;
                Report::Failed {
                    action: String::from_utf8_lossy(action).into_owned(),
                    why: Why::Words(String::from_utf8_lossy(words).into_owned()),
                }
            }
            1 => Report::Ended(Status::Code(number)),
            2 => Report::Ended(Status::Signal(number)),
            3 => Report::Gone(Status::Code(number)),
            4 => Report::Gone(Status::Signal(number)),
            _ => return None,
        })
    }
}

/// A step of the set-up that failed in a child.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) action: String,
    pub(super) why: Why,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Setup { action, source } => Failure {
                action,
                why: Why::of(&source),
            },
            Error::Helper(words) => Failure {
                action: "ask the sandbox helper".to_owned(),
                why: Why::Words(words),
            },
        }
    }
}

impl Failure {
    /// Makes a function that turns a failure into the failure of an action.
    pub(super) fn of<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Failure {
        let action = action.into();
        move |error| Failure {
            action,
            why: Why::of(&error.into()),
        }
    }

    /// Tells the builder.
    pub(super) fn report(self, line: &std::os::fd::OwnedFd) {
        let Failure { action, why } = self;
        send(line, &Report::Failed { action, why });
    }
}

/// Sends a report. A builder that is gone cannot be told anything, and its end is seen elsewhere.
pub(super) fn send(line: &std::os::fd::OwnedFd, report: &Report) {
    let message = report.encode();
    let _ = rustix::io::retry_on_intr(|| {
        rustix::net::send(line, &message, rustix::net::SendFlags::NOSIGNAL)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        let file = |path: &[u8], content: &[u8]| File {
            path: path.to_vec(),
            mode: 0o755,
            content: content.to_vec(),
        };
        let target = |path: &[u8], kind, part| Target {
            path: path.to_vec(),
            kind,
            attributes: 15,
            part,
        };
        Job {
            root: b"/r".to_vec(),
            args: vec![b"sh".to_vec(), b"-c".to_vec(), b"\xff".to_vec()],
            env: vec![b"A=1".to_vec(), b"".to_vec()],
            cwd: b"/".to_vec(),
            hostname: b"h".to_vec(),
            uid: 1,
            gid: 2,
            groups: vec![3, u32::MAX],
            network: Network::None,
            insecure: true,
            binds: vec![file(b"/etc/hosts", b"x")],
            devices: vec![file(b"pipes/EOF", &[0; 300])],
            targets: vec![
                target(b"/cache", Kind::Directory, Part::Whole),
                target(b"/run/secrets/x", Kind::File, Part::File),
            ],
            way: Way::Stay,
            stands: [
                StandIn::Bind(Writes::Sealed),
                StandIn::Bind(Writes::Lost),
                StandIn::Bind(Writes::Kept),
                StandIn::Empty,
                StandIn::File {
                    mode: 0o400,
                    uid: 1,
                    gid: 2,
                    content: vec![b's'; 99],
                    secret: Secrecy::Secret,
                },
            ]
            .map(|what| Stand {
                path: b"/x".to_vec(),
                what,
            })
            .to_vec(),
            bounded: true,
        }
    }

    #[test]
    fn a_job_comes_back_as_it_was() {
        let bytes = job().encode();
        assert_eq!(Job::decode(&bytes), Some(job()));
        for short in 0..bytes.len() {
            assert_eq!(Job::decode(&bytes[..short]), None, "{short} bytes");
        }
        assert_eq!(Job::decode(&[bytes, vec![0]].concat()), None);
        assert_eq!(Job::decode(&[0xff; 64]), None);
    }

    #[test]
    fn a_report_comes_back_as_it_was() {
        let reports = [
            Report::Failed {
                action: "mount /proc".to_owned(),
                why: Why::Errno(20),
            },
            Report::Failed {
                action: "mount /x".to_owned(),
                why: Why::Words("it is no place".to_owned()),
            },
            Report::Warned {
                number: 3,
                text: "there is no /proc".to_owned(),
            },
            Report::Ended(Status::Code(255)),
            Report::Ended(Status::Signal(9)),
            Report::Gone(Status::Code(0)),
            Report::Gone(Status::Signal(15)),
        ];
        for report in reports {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        for message in [&b""[..], b"\x00", b"\x07\x00\x00\x00\x00"] {
            assert_eq!(Report::decode(message), None);
        }
    }
}
