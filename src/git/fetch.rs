//! From a reference to the pack with its commit, by git's protocol 2 or the one before it.

use super::pack::{self, Pack};
use super::wire::{Ends, Wire};
use super::{Error, Format, Oid, Remote, shown};
use crate::sys::Cancel;
use gix_error::Error as Trouble;
use gix_protocol::fetch::{Arguments, Response};
use gix_protocol::handshake::Ref;
use gix_protocol::ls_refs::RefPrefixes;
use gix_protocol::transport::packetline::read::{self, ProgressAction};
use gix_protocol::transport::{Protocol, Service};
use gix_protocol::{Command, Handshake, LsRefsCommand};
use gix_utils::progress::Discard;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const AGENT: &str = concat!("shutter/", env!("CARGO_PKG_VERSION"));

/// What is asked of a server's abilities for one question and one pack.
const FEATURES: [&str; 6] = [
    "multi_ack_detailed",
    "side-band-64k",
    "side-band",
    "ofs-delta",
    "shallow",
    "object-format",
];

/// Which commit is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Branch, tag, full reference or commit; the remote's HEAD where there is none.
    pub reference: Option<&'a str>,
    /// The commit, or the start of it, that it must be.
    pub checksum: Option<&'a str>,
}

/// A commit that is here.
pub struct Fetched {
    /// The objects.
    pub pack: Pack,
    /// The commit, or the tag that leads to it.
    pub oid: Oid,
    /// The full name of the reference that it was found by.
    pub reference: Option<String>,
}

/// Fetches one commit into files below `dir`: alone where the remote gives it alone, else with all of
/// the history. Temporary trouble is met with further attempts. `moved` is told of bytes as they come.
pub fn fetch<'a>(
    remote: &Remote<'a>,
    wanted: &Wanted<'_>,
    dir: &Path,
    moved: &'a dyn Fn(u64),
) -> Result<Fetched, Error> {
    remote.client.retry(0, |_| {
        // Every attempt has a directory to itself, of which nothing stays where it fails.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let own = dir.join(format!("pack-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&own).map_err(|source| Error::Io {
            action: "make",
            path: own.clone(),
            source,
        })?;
        // The library asserts some of what is in the hands of the server alone.
        let done = catch_unwind(AssertUnwindSafe(|| once(remote, wanted, &own, moved)));
        let done = done.unwrap_or_else(|_| {
            Err(Error::Protocol {
                remote: shown(remote.url),
                why: "it does not speak as a git server does".into(),
            })
        });
        done.inspect_err(|_| drop(std::fs::remove_dir_all(&own)))
    })
}

fn once<'a>(
    remote: &Remote<'a>,
    wanted: &Wanted<'_>,
    dir: &Path,
    moved: &'a dyn Fn(u64),
) -> Result<Fetched, Error> {
    let mut session = Session::open(remote, moved)?;
    let (oid, reference) = match wanted.reference.and_then(commit_name) {
        Some(oid) => {
            check(remote, wanted.checksum, &oid, None)?;
            if oid.kind() != session.format {
                return Err(Error::NotGiven {
                    remote: shown(remote.url),
                    commit: oid,
                    message: format!("its objects have {} names", session.format),
                });
            }
            (oid, None)
        }
        None => {
            let found = find(&mut session, remote, wanted.reference)?;
            check(remote, wanted.checksum, &found.oid, found.peeled.as_ref())?;
            (found.oid, Some(found.name))
        }
    };
    let pack = objects(session, remote, &oid, dir, moved)?;
    Ok(Fetched {
        pack,
        oid,
        reference,
    })
}

/// Reads a whole name of an object, in lower case as everybody writes them.
fn commit_name(text: &str) -> Option<Oid> {
    let is_plain = !text.bytes().any(|c| c.is_ascii_uppercase());
    Oid::from_hex(text.as_bytes()).ok().filter(|_| is_plain)
}

/// How much of a history is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// The commits that are wanted alone.
    One,
    /// All that leads to them.
    All,
}

/// A conversation with a remote.
struct Session<'a> {
    remote: String,
    cancel: &'a Cancel,
    wire: Wire<'a>,
    ends: Ends<'a>,
    greeting: Handshake,
    /// What the repository names its objects by.
    format: Format,
}

impl<'a> Session<'a> {
    /// Greets the remote.
    fn open(remote: &Remote<'a>, moved: &'a dyn Fn(u64)) -> Result<Session<'a>, Error> {
        let (wire, ends) = Wire::open(remote, moved)?;
        let mut session = Session {
            remote: shown(remote.url),
            cancel: remote.cancel,
            wire,
            ends,
            greeting: Handshake::default(),
            format: Format::Sha1,
        };
        // Nobody is asked for credentials: what there is to show is shown by the wire.
        let greeting = gix_protocol::handshake(
            &mut session.ends,
            Service::UploadPack,
            |_| Ok(None),
            Vec::new(),
            &mut Discard,
        );
        session.greeting = greeting.map_err(|error| session.failed(&error))?;
        session.wire.speak(session.greeting.server_protocol_version);
        if let Some(name) = session.object_format() {
            session.format = match &*name {
                "sha1" => Format::Sha1,
                "sha256" => Format::Sha256,
                _ => return Err(session.odd(format!("its objects are named by `{name}`"))),
            };
        }
        Ok(session)
    }

    fn object_format(&self) -> Option<String> {
        let format = self.greeting.capabilities.capability("object-format")?;
        Some(format.value()?.escape_ascii().to_string())
    }

    /// Gives the references whose names begin with one of the prefixes, and others where the server
    /// does not ask.
    fn refs(&mut self, prefixes: &[&str]) -> Result<Vec<Ref>, Error> {
        if let Some(refs) = &self.greeting.refs {
            return Ok(refs.clone());
        }
        let mut wanted = RefPrefixes::new();
        wanted.extend(prefixes.iter().map(|&prefix| prefix.into()));
        let agent = ("agent", Some(AGENT.to_owned()));
        LsRefsCommand::new(Some(wanted), &self.greeting.capabilities, agent)
            .invoke_blocking(&mut self.ends, &mut Discard, false)
            .map_err(|error| self.failed(&error))
    }

    /// Tells whether the server says beforehand that it does not give an object.
    fn refuses(&self, oid: &Oid) -> bool {
        let Some(refs) = &self.greeting.refs else {
            // Servers of version 2 give whatever they have, but for a few.
            return false;
        };
        let can = |name| self.greeting.capabilities.contains(name);
        !can("allow-reachable-sha1-in-want")
            && !can("allow-any-sha1-in-want")
            && !refs.iter().any(|one| one.unpack().1 == Some(oid))
    }

    /// Fetches commits into a directory.
    fn take(&mut self, wants: &[Oid], depth: Depth, dir: &Path) -> Result<Pack, Error> {
        let version = self.greeting.server_protocol_version;
        let mut features = Command::Fetch.default_features(version, &self.greeting.capabilities);
        // The library asks for all that the server can do, of which some changes what a depth means.
        features.retain(|(name, _)| FEATURES.contains(name));
        features.push(("agent", Some(AGENT.to_owned())));
        if version != Protocol::V2
            && let Some(format) = self.object_format()
        {
            features.push(("object-format", Some(format)));
        }
        Response::check_required_features(version, &features)
            .map_err(|error| self.failed(&error))?;
        let mut arguments = Arguments::new(version, features, false);
        if depth == Depth::One && arguments.can_use_shallow() {
            arguments.deepen(1);
        }
        for want in wants {
            arguments.want(want);
        }
        self.receive(&mut arguments, version, dir)
            .map_err(|error| match self.failed(&error) {
                Error::Said { remote, message }
                    if message.contains("not our ref")
                        || message.contains("unadvertised object") =>
                {
                    let named = wants
                        .iter()
                        .find(|want| message.contains(&want.to_string()));
                    match named.or(wants.first()) {
                        Some(&commit) => Error::NotGiven {
                            remote,
                            commit,
                            message,
                        },
                        None => Error::Said { remote, message },
                    }
                }
                Error::Io { source, .. } => Error::Io {
                    action: "write",
                    path: dir.to_owned(),
                    source,
                },
                other => other,
            })
    }

    fn receive(
        &mut self,
        arguments: &mut Arguments,
        version: Protocol,
        dir: &Path,
    ) -> Result<Pack, Trouble> {
        let answer = arguments.send(&mut self.ends, true);
        let mut answer = answer.map_err(Trouble::from_error)?;
        if !Response::from_line_reader(version, &mut answer, true, false)?.has_pack() {
            return Err(gix_error::message("its answer has no pack").into());
        }
        self.wire.expect_pack();
        let (wire, remote) = (self.wire.clone(), self.remote.clone());
        answer.set_progress_handler(Some(Box::new(move |is_error, text| {
            if is_error {
                wire.fail(said(&remote, text));
                return ProgressAction::Break(());
            }
            ProgressAction::Continue(())
        })));
        Pack::receive(&mut answer, dir, self.format, self.cancel)
    }

    /// Makes an error of one of the protocol's: what lies behind it says more, where there is something.
    fn failed(&self, error: &Trouble) -> Error {
        if self.cancel.is_set() {
            return Error::Cancelled;
        }
        if let Some(error) = error.downcast_any_ref::<read::Error>() {
            return said(&self.remote, &error.message);
        }
        if let Some(trouble) = self.wire.trouble() {
            return trouble;
        }
        let source = pack::as_io(error);
        match source.kind() {
            io::ErrorKind::StorageFull => Error::Io {
                action: "write",
                path: "a pack".into(),
                source,
            },
            _ => self.odd(pack::said(error)),
        }
    }

    fn odd(&self, why: String) -> Error {
        Error::Protocol {
            remote: self.remote.clone(),
            why,
        }
    }
}

/// Makes an error of what a server says.
fn said(remote: &str, message: &[u8]) -> Error {
    Error::Said {
        remote: remote.to_owned(),
        message: String::from_utf8_lossy(message.trim_ascii())
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(500)
            .collect(),
    }
}

/// What a reference means.
struct Found {
    /// Its full name, or that of the one that it stands for.
    name: String,
    /// What it points to.
    oid: Oid,
    /// What that points to, where it is an annotated tag.
    peeled: Option<Oid>,
}

/// Finds what a reference means: in full, else a branch, else a tag, as BuildKit does.
fn find(
    session: &mut Session<'_>,
    remote: &Remote<'_>,
    name: Option<&str>,
) -> Result<Found, Error> {
    let names = match name {
        None => vec!["HEAD".to_owned()],
        Some(name) => ["refs/", "refs/heads/", "refs/tags/"]
            .map(|prefix| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name)))
            .to_vec(),
    };
    let prefixes: Vec<&str> = names.iter().map(String::as_str).collect();
    let refs = session.refs(&prefixes)?;
    for name in &names {
        for one in &refs {
            let (own, oid, peeled) = one.unpack();
            if own == name.as_str()
                && let Some(oid) = oid
            {
                let target = match one {
                    Ref::Symbolic { target, .. } => target.to_string(),
                    _ => name.clone(),
                };
                return Ok(Found {
                    name: target,
                    oid: oid.to_owned(),
                    peeled: peeled.map(ToOwned::to_owned),
                });
            }
        }
    }
    let is_short =
        |name: &str| (4..40).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_hexdigit());
    Err(Error::NoReference {
        remote: shown(remote.url),
        reference: name.unwrap_or("HEAD").to_owned(),
        hint: match name {
            None => "; it may be empty",
            Some(name) if is_short(name) => "; a commit is wanted with all of its digits",
            Some(_) => "",
        },
    })
}

/// Compares with the commit that is wanted, or with the tag of it.
fn check(
    remote: &Remote<'_>,
    wanted: Option<&str>,
    oid: &Oid,
    peeled: Option<&Oid>,
) -> Result<(), Error> {
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let all: Vec<String> = [Some(oid), peeled]
        .into_iter()
        .flatten()
        .map(Oid::to_string)
        .collect();
    if all.iter().any(|own| own.starts_with(wanted)) {
        return Ok(());
    }
    Err(Error::Checksum {
        remote: shown(remote.url),
        wanted: wanted.to_owned(),
        got: all.join(" or "),
    })
}

fn objects<'a>(
    mut session: Session<'a>,
    remote: &Remote<'a>,
    oid: &Oid,
    dir: &Path,
    moved: &'a dyn Fn(u64),
) -> Result<Pack, Error> {
    let refused = if session.refuses(oid) {
        "no reference points to it".to_owned()
    } else {
        match session.take(&[*oid], Depth::One, dir) {
            Err(Error::NotGiven { message, .. }) => message,
            other => return other,
        }
    };
    // A server that does not give what no reference points to may give what leads there.
    drop(session);
    let mut session = Session::open(remote, moved)?;
    let refs = session.refs(&["refs/heads/", "refs/tags/"])?;
    let is_wanted =
        |name: &[u8]| name.starts_with(b"refs/heads/") || name.starts_with(b"refs/tags/");
    let mut wants: Vec<Oid> = refs
        .iter()
        .map(Ref::unpack)
        .filter_map(|(name, oid, _)| oid.filter(|_| is_wanted(name)))
        .map(ToOwned::to_owned)
        .collect();
    wants.sort_unstable();
    wants.dedup();
    let not_given = |message| Error::NotGiven {
        remote: shown(remote.url),
        commit: *oid,
        message,
    };
    if wants.is_empty() {
        return Err(not_given(refused));
    }
    let pack = session.take(&wants, Depth::All, dir)?;
    match pack.kind(oid) {
        Some(_) => Ok(pack),
        None => Err(not_given("no branch and no tag leads to it".into())),
    }
}
