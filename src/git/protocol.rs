//! git's protocol 2 (gitprotocol-v2(5)), and the one before it (gitprotocol-pack(5)) for servers
//! that know no other, as much of both as a clone needs.

use super::packet::{Packet, Packets, delimiter, flush, line};
use super::wire::Wire;
use super::{Error, Format, Oid, Remote, shown};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// The most references of a repository that are looked at.
const MAX_REFS: usize = 4 << 20;
/// The most lines before a pack or list begins.
const MAX_LINES: usize = 1 << 20;
const AGENT: &str = concat!("agent=shutter/", env!("CARGO_PKG_VERSION"));

/// A reference of a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// Its full name.
    pub name: String,
    /// What it points to.
    pub oid: Oid,
    /// What that points to, where it is an annotated tag.
    pub peeled: Option<Oid>,
    /// The name of the reference that it stands for, where it stands for one.
    pub target: Option<String>,
}

/// How much of a history is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The commits that are wanted alone.
    One,
    /// All that leads to them.
    All,
}

/// A conversation with a remote.
pub struct Session<'a> {
    remote: Remote<'a>,
    wire: Wire<'a>,
    dialect: Dialect,
    format: Format,
}

enum Dialect {
    Two {
        capabilities: BTreeMap<String, String>,
    },
    Zero {
        capabilities: Vec<String>,
        refs: Vec<Ref>,
    },
}

impl<'a> Session<'a> {
    /// Greets the remote.
    pub fn open(remote: &Remote<'a>) -> Result<Session<'a>, Error> {
        let (wire, greeting) = Wire::open(remote)?;
        let (dialect, format) = Greeting {
            packets: Packets::new(greeting),
            remote: remote.url,
        }
        .read()?;
        Ok(Session {
            remote: remote.clone(),
            wire,
            dialect,
            format,
        })
    }

    /// Gives what the repository names its objects by.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Gives the references whose names begin with one of the prefixes.
    pub fn refs(&mut self, prefixes: &[&str]) -> Result<Vec<Ref>, Error> {
        let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let capabilities = match &self.dialect {
            Dialect::Zero { refs, .. } => {
                let refs = refs.iter().filter(|one| wanted(&one.name));
                return Ok(refs.cloned().collect());
            }
            Dialect::Two { capabilities } => capabilities,
        };
        if !capabilities.contains_key("ls-refs") {
            return Err(self.odd("it lists no references"));
        }
        let mut question = Vec::new();
        self.command(&mut question, "ls-refs");
        line(&mut question, "peel");
        line(&mut question, "symrefs");
        for prefix in prefixes {
            line(&mut question, &format!("ref-prefix {prefix}"));
        }
        flush(&mut question);
        let mut packets = Packets::new(self.wire.ask(&question, 2)?);
        let mut out = Vec::new();
        loop {
            let packet = packets.line().map_err(|e| self.failed(e))?;
            match packet {
                Some(Packet::Data(text)) => {
                    let text = self.said(text)?;
                    if let Some(one) = listed(&text).ok_or_else(|| self.odd_line(&text))?
                        && wanted(&one.name)
                    {
                        out.push(one);
                    }
                }
                Some(Packet::Flush) => return Ok(out),
                _ => return Err(self.cut()),
            }
            if out.len() > MAX_REFS {
                return Err(self.odd("it has too many references"));
            }
        }
    }

    /// Asks for objects and gives the pack with them as it comes. `wants` are names of commits or
    /// tags; what they point to comes along.
    pub fn fetch(&mut self, wants: &[Oid], depth: Depth) -> Result<impl Read + use<'a>, Error> {
        match &self.dialect {
            Dialect::Two { capabilities } => {
                let shallow = capabilities
                    .get("fetch")
                    .ok_or_else(|| self.odd("it gives no objects"))?
                    .split(' ')
                    .any(|feature| feature == "shallow");
                self.fetch_two(wants, depth, shallow)
            }
            Dialect::Zero { .. } => self.fetch_zero(wants, depth),
        }
    }

    /// Tells whether the remote is known to refuse an object that is wanted by its name.
    pub fn refuses(&self, oid: &Oid) -> bool {
        match &self.dialect {
            // Servers of this version give whatever they have, but for a few.
            Dialect::Two { .. } => false,
            Dialect::Zero { capabilities, refs } => {
                let any = capabilities.iter().any(|own| {
                    own == "allow-reachable-sha1-in-want" || own == "allow-any-sha1-in-want"
                });
                !any && !refs.iter().any(|one| one.oid == *oid)
            }
        }
    }

    fn command(&self, question: &mut Vec<u8>, name: &str) {
        line(question, &format!("command={name}"));
        line(question, AGENT);
        if let Dialect::Two { capabilities } = &self.dialect
            && capabilities.contains_key("object-format")
        {
            line(question, &format!("object-format={}", self.format.name()));
        }
        delimiter(question);
    }

    fn fetch_two(
        &mut self,
        wants: &[Oid],
        depth: Depth,
        shallow: bool,
    ) -> Result<Pieces<'a>, Error> {
        let mut question = Vec::new();
        self.command(&mut question, "fetch");
        line(&mut question, "ofs-delta");
        if depth == Depth::One && shallow {
            line(&mut question, "deepen 1");
        }
        for want in wants {
            line(&mut question, &format!("want {want}"));
        }
        line(&mut question, "done");
        flush(&mut question);
        let mut packets = Packets::new(self.wire.ask(&question, 2)?);
        for _ in 0..MAX_LINES {
            match packets.line().map_err(|e| self.failed(e))? {
                Some(Packet::Data(b"packfile")) => return Ok(self.pieces(packets, Band::Side)),
                Some(Packet::Data(text)) => {
                    // Sections that tell of things that are known: shallow-info, acknowledgments.
                    self.given(text, wants)?;
                }
                Some(Packet::Delimiter) => {}
                _ => return Err(self.cut()),
            }
        }
        Err(self.odd("its answer has no pack"))
    }

    fn fetch_zero(&mut self, wants: &[Oid], depth: Depth) -> Result<Pieces<'a>, Error> {
        let Dialect::Zero { capabilities, .. } = &self.dialect else {
            return Err(self.odd("it changed its protocol"));
        };
        let can = |name: &str| capabilities.iter().any(|own| own == name);
        let shallow = depth == Depth::One && can("shallow");
        let band = match () {
            () if can("side-band-64k") => Some("side-band-64k"),
            () if can("side-band") => Some("side-band"),
            () => None,
        };
        // Some servers give nothing to who cannot do the first of these.
        let mut own: Vec<String> = ["multi_ack_detailed", "multi_ack", "ofs-delta"]
            .into_iter()
            .filter(|name| can(name))
            .chain(band)
            .map(str::to_owned)
            .collect();
        if own.iter().any(|name| name == "multi_ack_detailed") {
            own.retain(|name| name != "multi_ack");
        }
        if capabilities
            .iter()
            .any(|own| own.starts_with("object-format="))
        {
            own.push(format!("object-format={}", self.format.name()));
        }
        own.push(AGENT.into());
        let mut question = Vec::new();
        for (at, want) in wants.iter().enumerate() {
            match at {
                0 => line(&mut question, &format!("want {want} {}", own.join(" "))),
                _ => line(&mut question, &format!("want {want}")),
            }
        }
        if shallow {
            line(&mut question, "deepen 1");
        }
        flush(&mut question);
        let mut packets = None;
        if shallow && !self.wire.forgets() {
            let mut first = Packets::new(self.wire.ask(&question, 0)?);
            self.pass_shallow(&mut first, wants)?;
            packets = Some(first);
            question.clear();
        }
        line(&mut question, "done");
        let answer = self.wire.ask(&question, 0)?;
        let mut packets = packets.unwrap_or_else(|| Packets::new(answer));
        if shallow && self.wire.forgets() {
            self.pass_shallow(&mut packets, wants)?;
        }
        let band = match band {
            Some(_) => Band::Side,
            None => Band::Bare,
        };
        for _ in 0..MAX_LINES {
            match packets.line().map_err(|e| self.failed(e))? {
                Some(Packet::Data(b"NAK")) => return Ok(self.pieces(packets, band)),
                Some(Packet::Data(text)) => self.given(text, wants)?,
                _ => return Err(self.cut()),
            }
        }
        Err(self.odd("its answer has no pack"))
    }

    /// Reads what is said of where the history is cut off.
    fn pass_shallow<R: Read>(&self, packets: &mut Packets<R>, wants: &[Oid]) -> Result<(), Error> {
        for _ in 0..MAX_LINES {
            match packets.line().map_err(|e| self.failed(e))? {
                Some(Packet::Flush) => return Ok(()),
                Some(Packet::Data(text)) => self.given(text, wants)?,
                _ => return Err(self.cut()),
            }
        }
        Err(self.odd("it does not say where the history is cut off"))
    }

    fn pieces(&self, packets: Packets<Box<dyn Read + 'a>>, band: Band) -> Pieces<'a> {
        Pieces {
            remote: self.remote.url.to_owned(),
            packets,
            band,
            rest: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    /// Finds out whether a line is a refusal.
    fn given(&self, text: &[u8], wants: &[Oid]) -> Result<(), Error> {
        match self.said(text) {
            Err(Error::Said { message, .. })
                if message.contains("not our ref") || message.contains("unadvertised object") =>
            {
                let named = wants
                    .iter()
                    .find(|want| message.contains(&want.to_string()));
                Err(match named.or(wants.first()) {
                    Some(commit) => Error::NotGiven {
                        remote: shown(self.remote.url),
                        commit: *commit,
                        message,
                    },
                    None => self.odd("it refuses what it was not asked for"),
                })
            }
            other => other.map(drop),
        }
    }

    fn said(&self, text: &[u8]) -> Result<String, Error> {
        said(self.remote.url, text)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::of_io(self.remote.url, error)
    }

    fn cut(&self) -> Error {
        Error::Cut {
            remote: shown(self.remote.url),
        }
    }

    fn odd(&self, why: impl Into<String>) -> Error {
        Error::Protocol {
            remote: shown(self.remote.url),
            why: why.into(),
        }
    }

    fn odd_line(&self, text: &str) -> Error {
        self.odd(format!("it lists the reference `{}`", text.escape_debug()))
    }
}

/// Gives a line as text; an error where it is one.
fn said(remote: &str, text: &[u8]) -> Result<String, Error> {
    let text = String::from_utf8_lossy(text);
    match text.strip_prefix("ERR ") {
        Some(message) => Err(Error::Said {
            remote: shown(remote),
            message: message
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(500)
                .collect(),
        }),
        None => Ok(text.into_owned()),
    }
}

/// Reads a line of `ls-refs`; nothing where it is about a reference that points nowhere yet.
fn listed(text: &str) -> Option<Option<Ref>> {
    let mut words = text.split(' ');
    let oid = words.next()?;
    let name = words.next().filter(|name| !name.is_empty())?;
    if oid == "unborn" {
        return Some(None);
    }
    let mut one = Ref {
        name: name.to_owned(),
        oid: Oid::parse(oid)?,
        peeled: None,
        target: None,
    };
    for word in words {
        if let Some(target) = word.strip_prefix("symref-target:") {
            one.target = Some(target.to_owned());
        } else if let Some(oid) = word.strip_prefix("peeled:") {
            one.peeled = Some(Oid::parse(oid)?);
        }
    }
    Some(Some(one))
}

/// What a server says first.
struct Greeting<'r, R> {
    packets: Packets<R>,
    remote: &'r str,
}

impl<R: Read> Greeting<'_, R> {
    fn read(mut self) -> Result<(Dialect, Format), Error> {
        let mut first = self.line()?;
        if first
            .as_deref()
            .is_some_and(|text| text.starts_with("# service="))
        {
            // Over http there is a heading, with an end of its own.
            self.line()?;
            first = self.line()?;
        }
        match first.as_deref() {
            Some("version 2") => self.two(),
            Some("version 1") => {
                let first = self.line()?;
                self.zero(first)
            }
            _ => self.zero(first),
        }
    }

    /// Gives the next line; nothing at the end of the message.
    fn line(&mut self) -> Result<Option<String>, Error> {
        let remote = self.remote;
        match self.packets.line() {
            Ok(Some(Packet::Data(text))) => said(remote, text).map(Some),
            Ok(Some(Packet::Flush)) => Ok(None),
            Ok(Some(_)) => Err(self.odd("it does not greet as a git server does")),
            Ok(None) => Err(Error::Cut {
                remote: shown(remote),
            }),
            Err(error) => Err(Error::of_io(remote, error)),
        }
    }

    fn two(mut self) -> Result<(Dialect, Format), Error> {
        let mut capabilities = BTreeMap::new();
        while let Some(text) = self.line()? {
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            capabilities.insert(name.to_owned(), value.to_owned());
            if capabilities.len() > 1000 {
                return Err(self.odd("it can do too much"));
            }
        }
        let format = self.format(capabilities.get("object-format").map(String::as_str))?;
        Ok((Dialect::Two { capabilities }, format))
    }

    fn zero(mut self, first: Option<String>) -> Result<(Dialect, Format), Error> {
        let mut capabilities: Vec<String> = Vec::new();
        let mut refs: Vec<Ref> = Vec::new();
        let mut next = first;
        let mut lines = 0;
        while let Some(text) = next {
            let mut text = text.as_str();
            if lines == 0
                && let Some((name, can)) = text.split_once('\0')
            {
                capabilities = can.split(' ').map(str::to_owned).collect();
                text = name;
            }
            lines += 1;
            if lines > MAX_REFS {
                return Err(self.odd("it has too many references"));
            }
            self.advertised(text, &mut refs)?;
            next = self.line()?;
        }
        for (name, target) in capabilities
            .iter()
            .filter_map(|own| own.strip_prefix("symref=")?.split_once(':'))
        {
            for one in refs.iter_mut().filter(|one| one.name == name) {
                one.target = Some(target.to_owned());
            }
        }
        let format = capabilities
            .iter()
            .find_map(|own| own.strip_prefix("object-format="));
        let format = self.format(format)?;
        Ok((Dialect::Zero { capabilities, refs }, format))
    }

    fn advertised(&self, text: &str, refs: &mut Vec<Ref>) -> Result<(), Error> {
        let odd = || self.odd(format!("it lists the reference `{}`", text.escape_debug()));
        let (oid, name) = text.split_once(' ').ok_or_else(odd)?;
        if oid == "shallow" {
            return Ok(());
        }
        let oid = Oid::parse(oid).ok_or_else(odd)?;
        match name.strip_suffix("^{}") {
            // What an empty repository says instead of a reference.
            Some("capabilities") => {}
            Some(name) => match refs.last_mut() {
                Some(last) if last.name == name => last.peeled = Some(oid),
                _ => return Err(odd()),
            },
            None => refs.push(Ref {
                name: name.to_owned(),
                oid,
                peeled: None,
                target: None,
            }),
        }
        Ok(())
    }

    fn format(&self, name: Option<&str>) -> Result<Format, Error> {
        match name {
            None => Ok(Format::Sha1),
            Some(name) => Format::of_name(name)
                .ok_or_else(|| self.odd(format!("its objects are named by `{name}`"))),
        }
    }

    fn odd(&self, why: impl Into<String>) -> Error {
        Error::Protocol {
            remote: shown(self.remote),
            why: why.into(),
        }
    }
}

/// How a pack is wrapped.
enum Band {
    /// In packets, whose first byte tells the pack from progress and errors.
    Side,
    /// Not at all.
    Bare,
}

/// A pack as it comes.
struct Pieces<'a> {
    remote: String,
    packets: Packets<Box<dyn Read + 'a>>,
    band: Band,
    rest: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Pieces<'_> {
    fn next(&mut self) -> io::Result<()> {
        self.rest.clear();
        self.at = 0;
        let remote = &self.remote;
        match self.packets.next() {
            Ok(Some(Packet::Data([1, piece @ ..]))) => self.rest.extend_from_slice(piece),
            // Progress.
            Ok(Some(Packet::Data([2, ..]))) => {}
            Ok(Some(Packet::Data([3, message @ ..]))) => {
                let message = [b"ERR ", message.trim_ascii()].concat();
                return match said(remote, &message) {
                    Err(error) => Err(io::Error::other(error)),
                    Ok(_) => Ok(()),
                };
            }
            Ok(Some(Packet::Flush | Packet::End)) => self.ended = true,
            Ok(Some(Packet::Data([]))) => {}
            Ok(Some(_)) => {
                return Err(io::Error::other(Error::Protocol {
                    remote: shown(remote),
                    why: "a piece of the pack is none".into(),
                }));
            }
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(io::Error::other(Error::of_io(remote, error))),
        }
        Ok(())
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Band::Bare = self.band {
            let remote = &self.remote;
            let read = self.packets.get_mut().read(out);
            return read.map_err(|error| io::Error::other(Error::of_io(remote, error)));
        }
        while self.at == self.rest.len() && !self.ended {
            self.next()?;
        }
        let left = self.rest.get(self.at..).unwrap_or_default();
        let n = left.len().min(out.len());
        out[..n].copy_from_slice(&left[..n]);
        self.at += n;
        Ok(n)
    }
}
