//! Which root commands run on: what is asked for, or the fastest that works.

use super::{Error, Room, kept, space};
use crate::dockerfile::ast::{Kind, Span};
use crate::fs::Ids;
use crate::plan::{Network, Op, Plan, Step};
use crate::progress::{Level, Sink};
use crate::request::{Request, RootOwner, RootfsChoice};
use crate::rootfs::Entry;
use crate::rootfs::probe::{Finding, NotStarted, Place, Refusal, Rights, Verdict, try_root};
use crate::sandbox::{self, Command, Identity, Sandbox};
use crate::store::Trial;
use crate::sys::Cancel;

/// What was found of all roots in one place.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// One a root that was tried, the fastest first.
    pub findings: Vec<Finding>,
    /// What a build takes, if any works.
    pub takes: Option<RootfsChoice>,
    /// What is less than it should be for all commands.
    pub notes: Vec<String>,
}

/// Tries the root that is asked for, or all of them, as a build would: on the store's file system, with
/// a command started in each. No store is made and nothing is left; what a build in place would
/// replace is not touched.
pub fn diagnose(request: &Request, sandbox: &Sandbox, cancel: &Cancel) -> Result<Diagnosis, Error> {
    let trial = Trial::new(&request.store)
        .map_err(|e| Error::other(format!("use {} as the store", request.store.display()), e))?;
    let rights = Rights::read(&trial.dir, sandbox.no_users());
    let place = Place {
        scratch: &trial.dir,
        store: &request.store,
        owner: request.root_owner,
        rights: &rights,
    };
    let findings: Vec<Finding> = order(request)
        .iter()
        .map(|root| attempt(*root, &place, sandbox, Commands::Started, cancel).0)
        .collect();
    Ok(Diagnosis::new(findings, sandbox.notes().to_vec(), request))
}

impl Diagnosis {
    fn new(findings: Vec<Finding>, mut notes: Vec<String>, request: &Request) -> Diagnosis {
        let mut working = findings.iter().filter(|finding| finding.works());
        let takes = working.find(|finding| is_taken(finding.root, request));
        let full = space::check_trial(&request.store).err();
        let takes = takes.filter(|_| full.is_none());
        notes.extend(full.map(|error| error.to_string()));
        Diagnosis {
            takes: takes.map(|finding| finding.root),
            findings,
            notes,
        }
    }

    /// Takes in what somebody else found of some of the roots, for whom the notes do not hold.
    pub fn with(self, others: Vec<Finding>, request: &Request) -> Diagnosis {
        let mut findings = self.findings;
        for other in others {
            if let Some(own) = findings.iter_mut().find(|own| own.root == other.root) {
                *own = other;
            }
        }
        let found = Diagnosis::new(findings, Vec::new(), request);
        match found.takes {
            Some(RootfsChoice::Overlay | RootfsChoice::Fuse) => Diagnosis {
                notes: self.notes,
                ..found
            },
            _ => found,
        }
    }
}

/// Gives the roots that come into question, the best first: with one id alone only the builder's own
/// file system knows whose a file is, else overlay is the fastest.
fn order(request: &Request) -> Vec<RootfsChoice> {
    match request.rootfs {
        RootfsChoice::Auto => {
            let mut roots = RootfsChoice::ROOTS.to_vec();
            if Ids::here().are_one() {
                roots.sort_by_key(|root| *root != RootfsChoice::Fuse);
            }
            roots
        }
        root => vec![root],
    }
}

/// Tells whether a root that works is taken: in place only where the builder has its container for
/// itself, or where it was asked for.
fn is_taken(root: RootfsChoice, request: &Request) -> bool {
    root != RootfsChoice::InPlace
        || request.rootfs == RootfsChoice::InPlace
        || request.root_owner == RootOwner::Builder
}

/// Finds the root of a build and says so where it is not overlay. `span` is the first command's.
pub(super) fn choose(
    request: &Request,
    sandbox: &Sandbox,
    room: &Room,
    span: Option<Span>,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<RootfsChoice, Error> {
    space::check_trial(room.store.dir())?;
    let scratch = room.scratch.dir.as_path();
    let rights = Rights::read(scratch, sandbox.no_users());
    let place = Place {
        scratch,
        store: room.store.dir(),
        owner: request.root_owner,
        rights: &rights,
    };
    let mut findings = Vec::new();
    for root in &order(request) {
        // Where nothing limits root, who may mount may start commands too, and a build need not wait
        // until one has ended.
        let commands = match rights.is_unlimited() && !root.is_live() {
            true => Commands::Trusted,
            false => Commands::Started,
        };
        let (finding, said) = attempt(*root, &place, sandbox, commands, cancel);
        if cancel.is_set() {
            return Err(Error::Cancelled);
        }
        if !finding.works() || !is_taken(*root, request) {
            findings.push(finding);
            continue;
        }
        if *root == RootfsChoice::InPlace {
            kept::check(request)?;
        }
        if let Some(text) = announcement(*root, &findings) {
            sink.message(Level::Info, text);
        }
        // In its own user namespace.
        let lacks = match root {
            RootfsChoice::Overlay | RootfsChoice::Fuse => sandbox.notes(),
            _ => &[],
        };
        for text in lacks.iter().cloned().chain(said) {
            sink.message(Level::Warn, text);
        }
        return Ok(*root);
    }
    Err(Error::NoRoot { span, findings })
}

/// Says which root was taken, and why no faster one.
fn announcement(root: RootfsChoice, before: &[Finding]) -> Option<String> {
    let taken = match root {
        RootfsChoice::Auto | RootfsChoice::Overlay => return None,
        RootfsChoice::Fuse => "commands run on FUSE",
        RootfsChoice::InPlace => "commands run in place, in this container's own root directory",
        RootfsChoice::Chroot => "commands run in a chroot, without mounts",
    };
    let why: Vec<String> = before
        .iter()
        .map(|finding| match &finding.verdict {
            Verdict::Refused(Refusal { why, .. }) => format!("{}: {why}", finding.root.name()),
            Verdict::Works => format!("{}: not asked for", finding.root.name()),
        })
        .collect();
    Some(match why.is_empty() {
        true => taken.to_owned(),
        false => format!("{taken} ({})", why.join("; ")),
    })
}

/// Says that nothing works, and where one root alone was tried, why that does not.
pub(super) fn refused(findings: &[Finding]) -> String {
    match findings {
        [
            Finding {
                root,
                verdict: Verdict::Refused(refusal),
                ..
            },
        ] => format!("{} cannot be used here: {}", root.name(), refusal.why),
        _ => "there is no root file system here that commands could run on".to_owned(),
    }
}

/// Whether a root is tried with a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commands {
    Started,
    Trusted,
}

/// Tries a root with a command that is not there: what comes before it is found out is all that a
/// root can lack. Gives besides what the sandbox warns of, which it does once.
fn attempt(
    root: RootfsChoice,
    place: &Place<'_>,
    sandbox: &Sandbox,
    commands: Commands,
    cancel: &Cancel,
) -> (Finding, Vec<String>) {
    let mut all = Vec::new();
    let mut start = |entry: Entry<'_>| {
        let mut said = Vec::new();
        if commands == Commands::Trusted {
            return Ok(said);
        }
        let command = Command {
            args: vec![b"/.nothing".to_vec()],
            env: Vec::new(),
            cwd: b"/".to_vec(),
            identity: Identity::default(),
            files: Vec::new(),
            hostname: "localhost".to_owned(),
            mounts: Vec::new(),
            network: Network::Host,
            insecure: false,
        };
        let mut warn = |text: &str| said.push(text.to_owned());
        let ended = sandbox.run(entry, &command, &mut |_, _| (), &mut warn, cancel);
        ended.map_err(not_started)?;
        all.extend(said.iter().cloned());
        Ok(said)
    };
    let finding = try_root(root, place, &mut start, cancel);
    (finding, all)
}

fn not_started(error: sandbox::Error) -> NotStarted {
    match error {
        sandbox::Error::Setup { action, source } => NotStarted { action, source },
        error => NotStarted {
            action: "start a command".to_owned(),
            source: std::io::Error::other(error),
        },
    }
}

/// Gives the lines of the first command that a plan will run, triggers of bases left out.
pub(super) fn first_command(plan: &Plan) -> Option<Span> {
    let mut instructions = plan.stages.iter().flat_map(|stage| &stage.instructions);
    instructions
        .find(|instruction| matches!(instruction.kind, Kind::Run(_)))
        .map(|instruction| instruction.span)
}

/// Gives the lines of the first command among planned steps.
pub(super) fn first_run(steps: &[Vec<Step>]) -> Option<Span> {
    let mut steps = steps.iter().flatten();
    steps
        .find(|step| matches!(step.op, Op::Run(_)))
        .map(|step| step.span)
}
