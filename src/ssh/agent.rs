//! SSH agents for commands: a socket that lives as long as the command, behind which an agent of
//! the caller's or the builder itself answers.
//!
//! Commands may list keys and sign with them, as with BuildKit; everything else an agent can do
//! (adding, removing and locking keys, extensions) fails.

use super::Error;
use super::key::{self, Key};
use super::wire::{Reader, number, string};
use crate::fs::Ids;
use crate::request::SshSource;
use crate::sys::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle, Scope};

/// The longest message, as in OpenSSH.
const LONGEST: u32 = 256 << 10;
/// How many connections there may be at a time.
const CONNECTIONS: usize = 64;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Where an agent listens, and who may reach it.
#[derive(Clone, Debug)]
pub struct Socket {
    /// The directory that it lies in, which must not be there yet.
    pub dir: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A socket for one command, gone when this is dropped.
pub struct Agent {
    /// The socket, for mounting.
    pub socket: Arc<OwnedFd>,
    dir: PathBuf,
    end: Cancel,
    thread: Option<JoinHandle<()>>,
}

/// Who answers.
enum Behind {
    Agent(PathBuf),
    Keys(Vec<Key>),
}

impl Agent {
    /// Starts to answer at a new socket.
    ///
    /// Fails where the caller's agent is none, and where a file holds no key that can be used.
    pub fn start(source: &SshSource, at: Socket) -> Result<Agent, Error> {
        let behind = match source {
            SshSource::Keys(files) => {
                let keys: Result<Vec<Key>, Error> = files.iter().map(|f| key::read(f)).collect();
                Behind::Keys(keys?)
            }
            SshSource::Agent(path) => {
                check(path).map_err(|source| Error::Agent {
                    path: path.clone(),
                    source,
                })?;
                Behind::Agent(path.clone())
            }
        };
        let failed = |source| Error::Socket {
            dir: at.dir.clone(),
            source,
        };
        std::fs::create_dir(&at.dir).map_err(failed)?;
        let (listener, socket) = listen(&at).map_err(failed)?;
        let end = Cancel::new().map_err(failed)?;
        let switch = end.clone();
        let thread = Builder::new()
            .name("ssh-agent".into())
            .spawn(move || serve(&listener, &behind, &switch))
            .map_err(failed)?;
        Ok(Agent {
            socket: Arc::new(socket),
            dir: at.dir,
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed; the command's own end is what counts.
            let _ = thread.join();
        }
        // What cannot be removed goes with the scratch directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Finds out whether there is a socket at a path.
fn check(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path)?.file_type().is_socket() {
        true => Ok(()),
        false => Err(io::Error::other("it is no socket")),
    }
}

fn listen(at: &Socket) -> io::Result<(UnixListener, OwnedFd)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = open(&at.dir, flags | OFlags::DIRECTORY, Mode::empty())?;
    // The name of a socket may have no more than 107 bytes; a store's has as many as it likes.
    let path = PathBuf::from(format!("/proc/self/fd/{}/agent", opened.as_raw_fd()));
    let listener = UnixListener::bind(&path)?;
    let (uid, gid) = Ids::here().known(at.uid, at.gid);
    std::os::unix::fs::chown(&path, uid, gid)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(at.mode & 0o777))?;
    listener.set_nonblocking(true)?;
    let socket = open(&path, flags | OFlags::NOFOLLOW, Mode::empty())?;
    Ok((listener, socket))
}

/// Answers until the end.
fn serve(listener: &UnixListener, behind: &Behind, end: &Cancel) {
    let open = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        while wait(listener, PollFlags::IN, end).is_ok() {
            match listener.accept() {
                Ok((stream, _)) if open.load(Ordering::Relaxed) < CONNECTIONS => {
                    connect(scope, stream, behind, end, &open);
                }
                Ok(_) => {}
                // It went away before it was taken.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // There is no descriptor left: one may be soon.
                Err(_) => pause(end),
            }
        }
    });
}

fn connect<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    stream: UnixStream,
    behind: &'env Behind,
    end: &'env Cancel,
    open: &'scope AtomicUsize,
) {
    open.fetch_add(1, Ordering::Relaxed);
    let started = Builder::new()
        .name("ssh-agent".into())
        .spawn_scoped(scope, move || {
            // Whichever side it ended on, the connection is over.
            let _ = converse(stream, behind, end);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    if started.is_err() {
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers the requests of one connection, one after another, until the other side closes it.
fn converse(stream: UnixStream, behind: &Behind, end: &Cancel) -> io::Result<()> {
    let mut line = Line::new(stream, end)?;
    // Connected when it is first needed, so that a refused request bothers nobody.
    let mut agent: Option<Line<'_>> = None;
    while let Some(request) = line.receive()? {
        let allowed = matches!(request.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)));
        let answer = match behind {
            _ if !allowed => vec![FAILURE],
            Behind::Keys(keys) => answer(&request, keys).unwrap_or(vec![FAILURE]),
            Behind::Agent(path) => {
                let agent = match &mut agent {
                    Some(agent) => agent,
                    none => none.insert(Line::new(reach(path, end)?, end)?),
                };
                agent.send(&request)?;
                agent.receive()?.ok_or(ErrorKind::UnexpectedEof)?
            }
        };
        line.send(&answer)?;
    }
    Ok(())
}

/// Connects to an agent, which may have so many waiting that there is no room for one more.
fn reach(path: &Path, end: &Cancel) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::AGAIN | Errno::INTR) if !end.is_set() => pause(end),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Answers one message, its length taken off, as the agent of some keys; `None` where the request
/// cannot be fulfilled.
pub fn answer(request: &[u8], keys: &[Key]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match request.split_first()? {
        (&REQUEST_IDENTITIES, _) => {
            out.push(IDENTITIES_ANSWER);
            number(&mut out, keys.len());
            for key in keys {
                string(&mut out, &key.public);
                string(&mut out, &key.comment);
            }
        }
        (&SIGN_REQUEST, rest) => {
            let mut reader = Reader(rest);
            let (public, message) = (reader.string()?, reader.string()?);
            let flags = reader.number()?;
            let key = keys.iter().find(|key| key.public == public)?;
            out.push(SIGN_RESPONSE);
            string(&mut out, &key.sign(message, flags)?);
        }
        _ => return None,
    }
    Some(out)
}

/// A connection that messages go over; it ends with the command.
struct Line<'a> {
    stream: UnixStream,
    end: &'a Cancel,
}

impl Line<'_> {
    fn new(stream: UnixStream, end: &Cancel) -> io::Result<Line<'_>> {
        stream.set_nonblocking(true)?;
        Ok(Line { stream, end })
    }

    /// Gives the next message; `None` where the other side is done.
    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        if !self.fill(&mut length)? {
            return Ok(None);
        }
        let length = u32::from_be_bytes(length);
        if length == 0 || length > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; usize::try_from(length).unwrap_or(0)];
        match self.fill(&mut message)? {
            true => Ok(Some(message)),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads as much as there is room for; false where there is nothing any more.
    fn fill(&mut self, into: &mut [u8]) -> io::Result<bool> {
        let mut done = 0;
        while let Some(room) = into.get_mut(done..).filter(|room| !room.is_empty()) {
            match self.stream.read(room) {
                Ok(0) if done == 0 => return Ok(false),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    wait(&self.stream, PollFlags::IN, self.end)?;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut framed = Vec::with_capacity(message.len() + 4);
        string(&mut framed, message);
        let mut rest = framed.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    wait(&self.stream, PollFlags::OUT, self.end)?;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Waits until a socket is ready; an error at the end.
fn wait(socket: &impl std::os::fd::AsFd, what: PollFlags, end: &Cancel) -> io::Result<()> {
    let mut watched = [PollFd::new(socket, what), PollFd::new(end, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut watched, None))?;
    match end.is_set() {
        true => Err(ErrorKind::Interrupted.into()),
        false => Ok(()),
    }
}

/// Waits a moment, or until the end.
fn pause(end: &Cancel) {
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    // Waiting less is no harm.
    let _ = poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&moment));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn at(dir: PathBuf) -> Socket {
        Socket {
            dir,
            mode: 0o640,
            uid: 5,
            gid: 6,
        }
    }

    /// Runs a program against an agent's socket; gives whether it went well and what it said.
    fn run(agent: &Agent, program: &str, args: &[&str], input: &[u8]) -> (bool, String) {
        // By a short name, as a command sees it.
        let socket = agent.dir.with_file_name("link");
        let _ = std::fs::remove_file(&socket);
        std::os::unix::fs::symlink(agent.dir.join("agent"), &socket).unwrap();
        let mut child = Command::new(program)
            .args(args)
            .env("SSH_AUTH_SOCK", socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    fn generate(path: &Path, args: &[&str]) {
        let _ = std::fs::remove_file(path);
        let status = Command::new("ssh-keygen")
            .args(["-q", "-C", "a comment", "-f"])
            .arg(path)
            .args(args)
            .status()
            .unwrap();
        assert!(status.success(), "{args:?}");
    }

    /// Signs by an agent and has the signature checked.
    fn sign_and_verify(agent: &Agent, key: &Path) -> Result<(), String> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let public = text(key.with_extension("pub"));
        let args = ["-Y", "sign", "-n", "file", "-f", &public];
        let (ok, signature) = run(agent, "ssh-keygen", &args, b"message");
        if !ok {
            return Err(signature);
        }
        // The remark about the agent that was asked comes with it.
        let at = signature.find("-----BEGIN").ok_or("no signature")?;
        let end = signature
            .find("-----END SSH SIGNATURE-----")
            .ok_or("no end")?;
        let place = text(key.with_extension("sig"));
        let signature = format!("{}-----END SSH SIGNATURE-----\n", &signature[at..end]);
        std::fs::write(&place, signature).unwrap();
        let allowed = text(key.with_extension("allowed"));
        let known = std::fs::read_to_string(&public).unwrap();
        std::fs::write(&allowed, format!("me {known}")).unwrap();
        let args = [
            "-Y", "verify", "-n", "file", "-I", "me", "-s", &place, "-f", &allowed,
        ];
        match run(agent, "ssh-keygen", &args, b"message") {
            (true, _) => Ok(()),
            (false, said) => Err(said),
        }
    }

    #[test]
    fn the_builder_signs_with_keys_in_files() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        // How a key is made, and what the list of keys says of it.
        let table: &[(&[&str], &str)] = &[
            (&["-t", "ed25519", "-N", ""], "(ED25519)"),
            (&["-t", "rsa", "-b", "2048", "-N", ""], "2048"),
            (&["-t", "rsa", "-b", "3072", "-N", "", "-m", "PEM"], "3072"),
            (
                &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PKCS8"],
                "(RSA)",
            ),
            (&["-t", "ecdsa", "-b", "256", "-N", ""], "(ECDSA)"),
            (&["-t", "ecdsa", "-b", "384", "-N", ""], "(ECDSA)"),
            (
                &["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PKCS8"],
                "(ECDSA)",
            ),
        ];
        for (args, listed) in table {
            generate(&key, args);
            let source = SshSource::Keys(vec![key.clone()]);
            let agent = Agent::start(&source, at(dir.path().join("socket"))).unwrap();
            let (ok, list) = run(&agent, "ssh-add", &["-l"], b"");
            assert!(ok && list.contains(listed), "{args:?}: {list}");
            for _ in 0..3 {
                assert_eq!(sign_and_verify(&agent, &key), Ok(()), "{args:?}");
            }
        }
    }

    #[test]
    fn unusable_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let table: &[(&[&str], &str)] = &[
            (&["-t", "ed25519", "-N", "passphrase"], "encrypted"),
            (
                &["-t", "rsa", "-b", "2048", "-N", "passphrase", "-m", "PEM"],
                "encrypted",
            ),
            (
                &["-t", "ecdsa", "-b", "521", "-N", ""],
                "ecdsa-sha2-nistp521",
            ),
            (&["-t", "rsa", "-b", "1024", "-N", ""], "2048 to 4096"),
            (
                &["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PEM"],
                "EC PRIVATE KEY",
            ),
        ];
        for (args, why) in table {
            generate(&key, args);
            let source = SshSource::Keys(vec![key.clone()]);
            let started = Agent::start(&source, at(dir.path().join("socket")));
            let error = started.err().unwrap().to_string();
            assert!(error.contains(key.to_str().unwrap()), "{error}");
            assert!(error.contains(why), "{args:?}: {error}");
        }
    }

    /// An agent of the system's, ended when dropped.
    struct System(Child, PathBuf);

    impl Drop for System {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn system_agent(dir: &Path) -> System {
        let path = dir.join("system");
        let mut child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says where it is once it is there.
        let mut said = [0; 1];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        System(child, path)
    }

    #[test]
    fn an_agent_of_the_callers_is_asked_and_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (key, other) = (dir.path().join("key"), dir.path().join("other"));
        generate(&key, &["-t", "ed25519", "-N", ""]);
        generate(&other, &["-t", "ed25519", "-N", ""]);
        let system = system_agent(dir.path());
        let added = Command::new("ssh-add")
            .env("SSH_AUTH_SOCK", &system.1)
            .arg("-q")
            .arg(&key)
            .status();
        assert!(added.unwrap().success());
        let source = SshSource::Agent(system.1.clone());
        // Longer than the name of a socket may be.
        let long = dir.path().join("long".repeat(30));
        let agent = Agent::start(&source, at(long)).unwrap();
        assert_eq!(sign_and_verify(&agent, &key), Ok(()));
        for args in [&["-D"][..], &["-x"], &[other.to_str().unwrap()]] {
            assert!(!run(&agent, "ssh-add", args, b"x\nx\n").0, "{args:?}");
        }
        let (ok, list) = run(&agent, "ssh-add", &["-l"], b"");
        assert!(ok && list.lines().count() == 1, "{list}");
    }

    #[test]
    fn the_socket_is_as_asked_and_goes_with_everything_behind_it() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let source = SshSource::Keys(Vec::new());
        let place = dir.path().join("socket");
        let agent = Agent::start(&source, at(place.clone())).unwrap();
        let meta = std::fs::metadata(place.join("agent")).unwrap();
        let has = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        assert_eq!(has, (0o640, 5, 6));
        // Connections that say nothing, half of a message, or nonsense.
        let mut open = Vec::new();
        for bytes in [&b""[..], &[0, 0, 0, 9, 11], &[0xff; 64], &[0; 8]] {
            let mut stream = UnixStream::connect(place.join("agent")).unwrap();
            stream.write_all(bytes).unwrap();
            open.push(stream);
        }
        let mut stream = UnixStream::connect(place.join("agent")).unwrap();
        stream.write_all(&[0, 0, 0, 1, 17]).unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0, 0, 0, 1, FAILURE]);
        drop(agent);
        assert!(!place.exists());
        assert_eq!(stream.read(&mut answer).unwrap(), 0);
    }
}
