//! The ways to a repository: http, git's own daemon, ssh.
//!
//! The protocol is spoken over a pair of ends, one to read from and one to write to. Over http a
//! question is sent when it is whole, which is when it is flushed, and what is read next is its answer.

use super::address::Address;
use super::{Error, Login, Remote, shown};
use crate::net::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use crate::net::{self, Method, Request, Response, Upload, Url, trusts};
use crate::request::SshSource;
use crate::sys::Cancel;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gix_protocol::transport::Protocol;
use gix_protocol::transport::client::git::{ConnectMode, blocking_io::Connection};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::cell::RefCell;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

const VERSION: HeaderName = HeaderName::from_static("git-protocol");
/// The most bytes that a server may say before the pack: references, of which there may be millions.
const MAX_TALK: u64 = 256 << 20;

/// An open way to one repository.
#[derive(Clone)]
pub(super) struct Wire<'a>(Rc<RefCell<Shared<'a>>>);

struct Shared<'a> {
    /// The remote as it may be shown.
    remote: String,
    way: Way<'a>,
    /// Who is told of bytes as they come.
    moved: &'a dyn Fn(u64),
    /// What was written and not yet sent.
    question: Vec<u8>,
    /// Why the last exchange failed: the protocol's code passes on only that it did.
    trouble: Option<Error>,
    version: Protocol,
    /// How many bytes may still come.
    allowance: u64,
}

enum Way<'a> {
    /// A request each question.
    Http(Http<'a>),
    /// One connection for all of them.
    Stream(Stream<'a>),
}

/// What the protocol is spoken over.
pub(super) type Ends<'a> = Connection<BufReader<Wire<'a>>, Wire<'a>>;

impl<'a> Wire<'a> {
    /// Opens the way.
    pub(super) fn open(
        remote: &Remote<'a>,
        moved: &'a dyn Fn(u64),
    ) -> Result<(Wire<'a>, Ends<'a>), Error> {
        let (address, login) = Address::parse(remote.url)?;
        let mut daemon = None;
        let way = match address {
            Address::Http(url) => {
                let login = remote.login.cloned().or(login);
                Way::Http(Http::open(remote, url, login)?)
            }
            Address::Daemon { host, port, path } => {
                let stream = Stream::daemon(remote, &host, port)?;
                daemon = Some((path, host, (port != 9418).then_some(port)));
                Way::Stream(stream)
            }
            Address::Ssh {
                user,
                host,
                port,
                path,
            } => {
                let place = match user {
                    Some(user) => format!("{user}@{host}"),
                    None => host,
                };
                Way::Stream(Stream::ssh(remote, &place, port, &path)?)
            }
        };
        let wire = Wire(Rc::new(RefCell::new(Shared {
            remote: shown(remote.url),
            way,
            moved,
            question: Vec::new(),
            trouble: None,
            version: Protocol::V2,
            allowance: MAX_TALK,
        })));
        let (path, host, mode) = match daemon {
            Some((path, host, port)) => (path, Some((host, port)), ConnectMode::Daemon),
            None => (String::new(), None, ConnectMode::Process),
        };
        let input = BufReader::with_capacity(1 << 16, wire.clone());
        let output = wire.clone();
        let ends = Connection::new(input, output, Protocol::V2, path, host, mode, false);
        Ok((wire, ends))
    }

    /// Notes which version the server speaks.
    pub(super) fn speak(&self, version: Protocol) {
        self.0.borrow_mut().version = version;
    }

    /// Lets the server say as much as it wants from here on.
    pub(super) fn expect_pack(&self) {
        self.0.borrow_mut().allowance = u64::MAX;
    }

    /// Notes why what is under way fails.
    pub(super) fn fail(&self, error: Error) {
        self.0.borrow_mut().trouble = Some(error);
    }

    /// Gives why the last exchange failed, where it did.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.0.borrow_mut().trouble.take()
    }
}

impl Shared<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        if self.allowance == 0 {
            return Err(Error::Protocol {
                remote: self.remote.clone(),
                why: "it says too much before the pack".into(),
            });
        }
        let most = out
            .len()
            .min(usize::try_from(self.allowance).unwrap_or(usize::MAX));
        let out = &mut out[..most];
        let read = match &mut self.way {
            Way::Http(http) => http.answer.read(out).map_err(|error| http.broken(error))?,
            Way::Stream(stream) => stream.read(out)?,
        };
        if read == 0 {
            // Everything git says has an end of its own; this is noted for whoever needs more.
            self.trouble = Some(Error::Cut {
                remote: self.remote.clone(),
            });
        }
        self.allowance = self.allowance.saturating_sub(read as u64);
        (self.moved)(read as u64);
        Ok(read)
    }

    fn send(&mut self) -> Result<(), Error> {
        let question = std::mem::take(&mut self.question);
        self.trouble = None;
        match &mut self.way {
            _ if question.is_empty() => Ok(()),
            Way::Http(http) => http.ask(question, self.version),
            Way::Stream(stream) => stream.send(&question),
        }
    }

    /// Keeps an error for who knows what to make of it.
    fn keep<T>(&mut self, result: Result<T, Error>) -> io::Result<T> {
        result.map_err(|error| {
            let text = error.to_string();
            self.trouble = Some(error);
            io::Error::other(text)
        })
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut shared = self.0.borrow_mut();
        let read = shared.read(out);
        shared.keep(read)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().question.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut shared = self.0.borrow_mut();
        let sent = shared.send();
        shared.keep(sent)
    }
}

/// A repository behind http.
struct Http<'a> {
    remote: Remote<'a>,
    base: Url,
    authorization: Option<HeaderValue>,
    answer: Box<dyn Read>,
}

impl<'a> Http<'a> {
    fn open(remote: &Remote<'a>, url: Url, login: Option<Login>) -> Result<Http<'a>, Error> {
        let mut http = Http {
            remote: remote.clone(),
            authorization: login.as_ref().and_then(authorization),
            base: url.clone(),
            answer: Box::new(io::empty()),
        };
        let mut greeting = below(&url, "info/refs");
        greeting
            .query_pairs_mut()
            .append_pair("service", "git-upload-pack");
        let mut request =
            Request::new(Method::GET, greeting, remote.tls).header(VERSION, "version=2");
        http.sign(&mut request);
        let response = remote.client.send(request).map_err(exchange)?;
        let response = http.accepted(response, "application/x-git-upload-pack-advertisement")?;
        // The server may have sent us elsewhere; all that follows is asked there.
        let Some(path) = response.url.path().strip_suffix("/info/refs") else {
            return Err(Error::Protocol {
                remote: shown(remote.url),
                why: format!("it redirects to {}", net::redacted(&response.url)),
            });
        };
        let mut base = response.url.clone();
        base.set_path(path);
        base.set_query(None);
        if !trusts(&url, &base) {
            http.authorization = None;
        }
        http.base = base;
        http.answer = without_heading(response.reader()).map_err(|error| http.broken(error))?;
        Ok(http)
    }

    /// Makes an error of one that came up while an answer was read.
    fn broken(&self, error: io::Error) -> Error {
        let kind = error.kind();
        let remote = shown(self.remote.url);
        match error.downcast::<net::Error>() {
            Ok(error) => exchange(error),
            Err(_) if kind == io::ErrorKind::UnexpectedEof => Error::Cut { remote },
            Err(error) => Error::Protocol {
                remote,
                why: error.to_string(),
            },
        }
    }

    fn sign(&self, request: &mut Request<'_>) {
        if let Some(value) = &self.authorization {
            request.headers.insert(AUTHORIZATION, value.clone());
        }
    }

    fn ask(&mut self, question: Vec<u8>, version: Protocol) -> Result<(), Error> {
        let url = below(&self.base, "git-upload-pack");
        let mut request = Request::new(Method::POST, url, self.remote.tls)
            .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(ACCEPT, "application/x-git-upload-pack-result")
            .upload(Upload::Bytes(question.into()));
        if version == Protocol::V2 {
            request = request.header(VERSION, "version=2");
        }
        self.sign(&mut request);
        let response = self.remote.client.send(request).map_err(exchange)?;
        let response = self.accepted(response, "application/x-git-upload-pack-result")?;
        self.answer = Box::new(response.reader());
        Ok(())
    }

    /// Gives an answer that is a success and of the type that was asked for.
    fn accepted(&self, response: Response, kind: &str) -> Result<Response, Error> {
        let url = net::redacted(&response.url);
        if response.status != 200 {
            let hint = match (response.status, self.authorization.is_some()) {
                (401, true) => "; the credentials that were sent are not accepted",
                (401, false) => {
                    "; a repository that is not there for everybody wants a token: for the build \
                     context GIT_TOKEN, for any --secret id=GIT_AUTH_TOKEN"
                }
                (403, true) => "; the account may not read this",
                (404, false) => "; some servers say so where a token is wanted, too",
                _ => "",
            };
            let refused = Error::Refused {
                url,
                status: response.status_words(),
                hint,
                again: response.again(),
            };
            response.discard();
            return Err(refused);
        }
        let found = response.header("content-type").unwrap_or_default();
        if found.split(';').next().map(str::trim) != Some(kind) {
            let why = format!(
                "{url} answers with `{}`, not as a git server does; it is no repository, or one \
                 that is only served as files",
                found.escape_default()
            );
            return Err(Error::Protocol {
                remote: shown(self.remote.url),
                why,
            });
        }
        Ok(response)
    }
}

/// Takes off the packet that says which service answers, and the end of it: the other ways have none.
fn without_heading(mut body: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut length = [0; 4];
    body.read_exact(&mut length)?;
    let digits = std::str::from_utf8(&length).unwrap_or_default();
    let size = u16::from_str_radix(digits, 16).unwrap_or(0);
    let mut line = vec![0; usize::from(size).saturating_sub(4)];
    body.read_exact(&mut line)?;
    if line.starts_with(b"# service=") {
        body.read_exact(&mut length)?;
        return Ok(Box::new(body));
    }
    let first = [&length[..], &line].concat();
    Ok(Box::new(Cursor::new(first).chain(body)))
}

fn below(base: &Url, name: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{name}", base.path().trim_end_matches('/')));
    url
}

fn exchange(error: net::Error) -> Error {
    match error {
        net::Error::Cancelled => Error::Cancelled,
        other => Error::Exchange(Box::new(other)),
    }
}

/// Gives the header that shows a login.
fn authorization(login: &Login) -> Option<HeaderValue> {
    let text = match login {
        Login::Header(value) => value.0.trim_ascii().to_vec(),
        Login::Basic { user, password } => {
            let pair = [&user.0[..], b":", &password.0[..]].concat();
            format!("Basic {}", STANDARD.encode(pair)).into_bytes()
        }
    };
    let mut value = HeaderValue::from_bytes(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A repository behind one connection.
struct Stream<'a> {
    remote: String,
    input: OwnedFd,
    output: OwnedFd,
    /// How long nothing may come.
    patience: Duration,
    cancel: &'a Cancel,
    /// Ended when the connection is.
    ssh: Option<Ssh>,
}

/// A running ssh.
struct Ssh {
    child: Child,
    errors: Option<ChildStderr>,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Stream<'a> {
    fn daemon(remote: &Remote<'a>, host: &str, port: u16) -> Result<Stream<'a>, Error> {
        let failed = |source| Error::Connect {
            remote: shown(remote.url),
            source,
        };
        let limit = remote.client.settings().connect;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in (host, port).to_socket_addrs().map_err(failed)? {
            match dial(&address, limit, remote.cancel) {
                Ok(socket) => {
                    let input = socket.try_clone().map_err(failed)?;
                    return Ok(Stream::new(remote, input, socket, None));
                }
                Err(_) if remote.cancel.is_set() => return Err(Error::Cancelled),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Host keys that are known are checked and others accepted: BuildKit asks the host for its key
    /// before each fetch, which is no better.
    fn ssh(
        remote: &Remote<'a>,
        place: &str,
        port: Option<u16>,
        path: &str,
    ) -> Result<Stream<'a>, Error> {
        let failed = |why: String| Error::Ssh {
            remote: shown(remote.url),
            why,
        };
        let mut command = Command::new("ssh");
        command
            .env("GIT_PROTOCOL", "version=2")
            .args(["-o", "SendEnv=GIT_PROTOCOL"])
            .args(["-o", "BatchMode=yes"])
            .args(["-o", "StrictHostKeyChecking=accept-new"]);
        match remote.ssh {
            Some(SshSource::Agent(socket)) => {
                command.env("SSH_AUTH_SOCK", socket);
            }
            Some(SshSource::Keys(keys)) => {
                command.args(["-o", "IdentitiesOnly=yes"]);
                for key in keys {
                    command.arg("-i").arg(key);
                }
            }
            None => {}
        }
        if let Some(port) = port {
            command.arg("-p").arg(port.to_string());
        }
        let quoted = path.replace('\'', "'\\''");
        command
            .arg(place)
            .arg(format!("git-upload-pack '{quoted}'"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed(
                "ssh remotes need the program `ssh`, which is not here; https needs nothing".into(),
            ),
            _ => failed(format!("run ssh: {error}")),
        })?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let ssh = Ssh {
            errors: child.stderr.take(),
            child,
        };
        let (Some(stdin), Some(stdout)) = pipes else {
            return Err(failed("run ssh: no pipes".into()));
        };
        let (input, output) = (OwnedFd::from(stdout), OwnedFd::from(stdin));
        for fd in [&input, &output] {
            rustix::io::ioctl_fionbio(fd, true)
                .map_err(|errno| failed(format!("run ssh: {errno}")))?;
        }
        if let Some(errors) = &ssh.errors {
            rustix::io::ioctl_fionbio(errors, true)
                .map_err(|errno| failed(format!("run ssh: {errno}")))?;
        }
        Ok(Stream::new(remote, input, output, Some(ssh)))
    }

    fn new(remote: &Remote<'a>, input: OwnedFd, output: OwnedFd, ssh: Option<Ssh>) -> Stream<'a> {
        Stream {
            remote: shown(remote.url),
            input,
            output,
            patience: remote.client.settings().answer,
            cancel: remote.cancel,
            ssh,
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let sent = wait(&self.output, PollFlags::OUT, self.patience, self.cancel)
                .and_then(|()| rustix::io::write(&self.output, bytes).map_err(io::Error::from));
            match sent {
                Ok(sent) => bytes = &bytes[sent.min(bytes.len())..],
                Err(e) if is_again(&e) => {}
                Err(_) if self.cancel.is_set() => return Err(Error::Cancelled),
                Err(error) => {
                    return Err(self.said().unwrap_or(Error::Connect {
                        remote: self.remote.clone(),
                        source: error,
                    }));
                }
            }
        }
        Ok(())
    }

    /// Gives what ssh has said on its standard error, as an error.
    fn said(&mut self) -> Option<Error> {
        let errors = self.ssh.as_mut()?.errors.as_mut()?;
        // It closes its outputs one after the other; a moment is enough for the second.
        let _ = wait(errors, PollFlags::IN, Duration::from_secs(2), self.cancel);
        let mut text = [0; 2000];
        let n = errors.read(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text[..n]);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let why = lines.join(" ").trim().to_owned();
        (!why.is_empty()).then(|| Error::Ssh {
            remote: self.remote.clone(),
            why,
        })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        loop {
            let read = wait(&self.input, PollFlags::IN, self.patience, self.cancel)
                .and_then(|()| rustix::io::read(&self.input, &mut *out).map_err(io::Error::from));
            match read {
                Err(e) if is_again(&e) => {}
                Err(_) if self.cancel.is_set() => return Err(Error::Cancelled),
                Err(source) => {
                    return Err(Error::Connect {
                        remote: self.remote.clone(),
                        source,
                    });
                }
                // The end; ssh may have said why.
                Ok(0) => return self.said().map_or(Ok(0), Err),
                Ok(n) => return Ok(n),
            }
        }
    }
}

fn is_again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Waits until a descriptor is ready, for so long at most, or until the build is cancelled.
fn wait(fd: &impl AsFd, events: PollFlags, patience: Duration, cancel: &Cancel) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let mut both = [PollFd::new(fd, events), PollFd::new(cancel, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| poll(&mut both, Some(&timeout)))?;
    if cancel.is_set() {
        return Err(io::Error::other("cancelled"));
    }
    match ready {
        0 => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nothing came for {} s", patience.as_secs()),
        )),
        _ => Ok(()),
    }
}

/// Connects, for so long at most, or until the build is cancelled.
fn dial(address: &SocketAddr, limit: Duration, cancel: &Cancel) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait(&socket, PollFlags::OUT, limit, cancel)?;
            sockopt::socket_error(&socket)??;
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(socket)
}
