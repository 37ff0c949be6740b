//! Repositories, with their submodules.

use super::{Error, Fetcher, Opened, below, make_dir, open_dir};
use crate::fs::{Meta, Placer, RelPath, Time};
use crate::git::{
    self, Checked, Checkout, Fetched, Login, Remote, Repository, Submodule, Wanted, shown,
};
use crate::net::{Tls, Url, Verify, trusts};
use crate::progress::Span;
use crate::request::{CheckoutTimes, ContextSource, GitSource, Submodules};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How deep submodules may lie in each other.
const MAX_DEPTH: usize = 32;
/// The most submodules of one source, all together.
const MAX_SUBMODULES: usize = 10_000;
/// How many submodules are fetched at a time.
const AT_ONCE: usize = 4;

/// What of a repository is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Its files.
    Files,
    /// Its files, and a `.git`; nothing of that where a directory of it is meant.
    Directory,
}

/// What is the same for a repository and all its submodules.
struct Job<'a> {
    fetcher: &'a Fetcher<'a>,
    source: &'a GitSource,
    keep: Keep,
    time: Option<Time>,
    root: &'a OwnedFd,
    packs: &'a Path,
    span: &'a Span,
    /// Submodules so far.
    count: AtomicUsize,
    notes: Mutex<Vec<String>>,
}

/// A repository that is checked out.
struct Place<'a> {
    remote: &'a str,
    /// Where its files are.
    path: RelPath,
    /// Where its `.git` is, or would be.
    git: RelPath,
    depth: usize,
}

impl Fetcher<'_> {
    /// Fetches a repository and checks it out below `room`.
    pub(super) fn repository(
        &self,
        source: &GitSource,
        keep: Keep,
        room: &Path,
        span: &Span,
    ) -> Result<Opened, Error> {
        let (tree, packs) = (room.join("tree"), room.join("packs"));
        make_dir(&tree)?;
        make_dir(&packs)?;
        let root = open_dir(&tree)?;
        let time = match source.times {
            CheckoutTimes::Commit => None,
            CheckoutTimes::Checkout => Some(now()),
        };
        let job = Job {
            fetcher: self,
            source,
            keep: match source.subdirectory {
                Some(_) => Keep::Files,
                None => keep,
            },
            time,
            root: &root,
            packs: &packs,
            span,
            count: AtomicUsize::new(0),
            notes: Mutex::default(),
        };
        job.check_out_all()?;
        // What was checked out is all that is needed.
        let _ = crate::store::remove_tree(&packs);
        let dir = match &source.subdirectory {
            None => root.as_fd().try_clone_to_owned(),
            Some(dir) => Ok(below(root.as_fd(), Path::new(dir), &shown(&source.remote))?),
        };
        let notes = job.notes.into_inner();
        Ok(Opened {
            dir: Arc::new(dir.map_err(|e| Error::io("open", &tree, e))?),
            dockerfile: None,
            notes: notes.unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// Gives how a remote is spoken with, and what is shown to it. What is meant for the source of
    /// a repository goes to its submodules on the same host alone; what is meant for the build
    /// context goes to that host alone.
    fn manners(&self, remote: &str, source: &str) -> Result<(Tls, Option<Login>), Error> {
        let url = |text: &str| Url::parse(text).ok().filter(|url| url.has_host());
        let mut tls = Tls::default();
        let Some(own) = url(remote) else {
            return Ok((tls, None));
        };
        let host = match own.port() {
            Some(port) => format!("{}:{port}", own.host_str().unwrap_or_default()),
            None => own.host_str().unwrap_or_default().to_owned(),
        };
        let is_like = |other: &str| url(other).is_some_and(|other| trusts(&other, &own));
        let is_context = match &self.request.context {
            ContextSource::Git(context) => is_like(&context.remote),
            _ => false,
        };
        if is_context && self.request.git.insecure_context {
            tls.verify = Verify::Skip;
        }
        let of_host = format!(".{host}");
        let suffixes = match is_like(source) {
            true => vec![of_host.as_str(), ""],
            false => vec![of_host.as_str()],
        };
        for suffix in suffixes {
            if let Some(header) = self.secret(&format!("GIT_AUTH_HEADER{suffix}"))? {
                return Ok((tls, Some(Login::Header(header))));
            }
            if let Some(token) = self.secret(&format!("GIT_AUTH_TOKEN{suffix}"))? {
                let login = Login::Basic {
                    user: crate::request::Hidden(b"x-access-token".to_vec()),
                    password: crate::request::Hidden(token.0.trim_ascii().to_vec()),
                };
                return Ok((tls, Some(login)));
            }
        }
        let login = self.request.git.login.as_ref().filter(|_| is_context);
        let login = login.map(|login| Login::Basic {
            user: login.user.clone(),
            password: login.password.clone(),
        });
        Ok((tls, login))
    }
}

fn now() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    Time {
        secs: i64::try_from(now.as_secs()).unwrap_or(0),
        nanos: now.subsec_nanos(),
    }
}

impl Job<'_> {
    fn check_out_all(&self) -> Result<(), Error> {
        let source = self.source;
        let wanted = Wanted {
            reference: source.reference.as_deref(),
            checksum: source.checksum.as_deref(),
        };
        let fetched = self.fetch(&source.remote, &wanted)?;
        // Where the directory is one in the repository, only that is written.
        let only = source
            .subdirectory
            .as_ref()
            .and_then(|dir| RelPath::clean(dir.as_bytes()));
        let only = match only {
            Some(dir) if fetched.pack.has_directory(&fetched.oid, &dir)? => Some(dir),
            _ => None,
        };
        let place = Place {
            remote: &source.remote,
            path: RelPath::root(),
            git: RelPath::root().join(b".git"),
            depth: 0,
        };
        self.check_out(&place, &fetched, only.as_ref())
    }

    fn fetch(&self, remote: &str, wanted: &Wanted<'_>) -> Result<Fetched, Error> {
        let Fetcher {
            client,
            request,
            cancel,
        } = self.fetcher;
        let (tls, login) = self.fetcher.manners(remote, &self.source.remote)?;
        let remote = Remote {
            url: remote,
            client,
            tls: &tls,
            login: login.as_ref(),
            ssh: request.ssh.get("default"),
            cancel,
        };
        let moved = |bytes| self.span.advance(bytes);
        git::fetch(&remote, wanted, self.packs, &moved).map_err(|error| match error {
            git::Error::Cancelled => Error::Cancelled,
            other => Error::Git(other),
        })
    }

    /// Checks a repository out, and its submodules below it.
    fn check_out(
        &self,
        place: &Place<'_>,
        fetched: &Fetched,
        only: Option<&RelPath>,
    ) -> Result<(), Error> {
        let dir = crate::fs::open_dir(self.root.as_fd(), &place.path)
            .map_err(|e| Error::write(&shown(place.remote), self.packs, e))?;
        let checked = git::check_out(&Checkout {
            pack: &fetched.pack,
            commit: fetched.oid,
            dir: dir.as_fd(),
            only,
            time: self.time,
            cancel: self.fetcher.cancel,
        });
        let checked = checked.map_err(|error| self.failed(place, error))?;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.extend(checked.notes.iter().cloned());
        drop(notes);
        let below = match self.source.submodules {
            Submodules::Fetch => self.submodules(place, &checked)?,
            Submodules::Skip => Vec::new(),
        };
        if self.keep == Keep::Directory {
            self.keep(place, fetched, &checked, &below)?;
        }
        Ok(())
    }

    /// Disk that is full is told as such.
    fn failed(&self, place: &Place<'_>, error: git::Error) -> Error {
        match error {
            git::Error::Cancelled => Error::Cancelled,
            git::Error::CheckOut { source, .. } | git::Error::Io { source, .. }
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Error::write(&shown(place.remote), self.packs, source)
            }
            other => Error::Git(other),
        }
    }

    /// Fetches and checks out the submodules; gives names and remotes of those that were.
    fn submodules(
        &self,
        place: &Place<'_>,
        checked: &Checked,
    ) -> Result<Vec<(RelPath, String)>, Error> {
        if checked.submodules.is_empty() {
            return Ok(Vec::new());
        }
        let wrong = |why: String| Error::Submodules {
            remote: shown(place.remote),
            why,
        };
        let count = self
            .count
            .fetch_add(checked.submodules.len(), Ordering::Relaxed);
        if place.depth >= MAX_DEPTH || count + checked.submodules.len() > MAX_SUBMODULES {
            return Err(wrong("it has too many submodules".into()));
        }
        let text = checked.modules.as_deref().unwrap_or_default();
        let modules = git::submodules(text).map_err(|why| wrong(format!(".gitmodules: {why}")))?;
        let modules: BTreeMap<&RelPath, &Submodule> = modules
            .iter()
            .filter_map(|module| Some((module.path.as_ref()?, module)))
            .collect();
        let mut todo = Vec::new();
        for (path, commit) in &checked.submodules {
            let module = modules.get(path);
            let Some((module, url)) = module.and_then(|one| Some((*one, one.url.as_ref()?))) else {
                return Err(wrong(format!(
                    "No url found for submodule path '{}' in .gitmodules",
                    String::from_utf8_lossy(path.as_bytes())
                )));
            };
            if module.is_left_out {
                continue;
            }
            let remote = git::submodule_url(place.remote, url)
                .map_err(|why| wrong(format!("submodule {path}: its URL: {why}")))?;
            todo.push((path, commit, module, remote));
        }
        let next = AtomicUsize::new(0);
        let first: Mutex<Option<Error>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(todo.len()) {
                scope.spawn(|| {
                    while let Some((path, commit, module, remote)) =
                        todo.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let one = Place {
                            remote,
                            path: place.path.join_path(path),
                            git: place.git.join(b"modules").join_path(&module.name),
                            depth: place.depth + 1,
                        };
                        let done = self.submodule(&one, &commit.to_string());
                        if let Err(error) = done {
                            next.store(todo.len(), Ordering::Relaxed);
                            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                            first.get_or_insert(error);
                        }
                    }
                });
            }
        });
        match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(todo
                .into_iter()
                .map(|(_, _, module, remote)| (module.name.clone(), remote))
                .collect()),
        }
    }

    fn submodule(&self, place: &Place<'_>, commit: &str) -> Result<(), Error> {
        let wanted = Wanted {
            reference: Some(commit),
            checksum: None,
        };
        self.fetch(place.remote, &wanted)
            .and_then(|fetched| self.check_out(place, &fetched, None))
            .map_err(|error| match error {
                Error::Cancelled => Error::Cancelled,
                other => Error::Submodule {
                    path: place.path.to_string(),
                    source: Box::new(other),
                },
            })
    }

    /// Makes the `.git` of a repository, and the file that a submodule has instead.
    fn keep(
        &self,
        place: &Place<'_>,
        fetched: &Fetched,
        checked: &Checked,
        below: &[(RelPath, String)],
    ) -> Result<(), Error> {
        let failed = |e| Error::write(&shown(place.remote), self.packs, e);
        let mut placer = Placer::new(self.root.as_fd()).map_err(failed)?;
        let own = |meta: Meta| Meta {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..meta
        };
        let up = |path: &RelPath| "../".repeat(path.components().count());
        let text = |path: &RelPath| String::from_utf8_lossy(path.as_bytes()).into_owned();
        let mut above: Vec<RelPath> = place.git.ancestors().collect();
        above.reverse();
        for dir in above.iter().filter(|dir| !dir.is_root()) {
            let meta = own(Meta::dir(0o755, checked.time));
            placer.put(dir, &meta, None).map_err(failed)?;
        }
        let is_submodule = !place.path.is_root();
        if is_submodule {
            let link = format!("gitdir: {}{}\n", up(&place.path), text(&place.git));
            let meta = own(Meta::file(0o644, link.len() as u64, checked.time));
            let path = place.path.join(b".git");
            let mut content = link.as_bytes();
            placer
                .put(&path, &meta, Some(&mut content))
                .map_err(failed)?;
        }
        // What was put into it has changed its time.
        let meta = own(Meta::dir(0o755, checked.time));
        placer.put(&place.path, &meta, None).map_err(failed)?;
        // The directories that submodules share were made by whichever came first.
        for (name, _) in below {
            let modules = place.git.join(b"modules");
            let mut dirs: Vec<RelPath> = modules.join_path(name).ancestors().collect();
            dirs.reverse();
            for dir in dirs.iter().filter(|dir| dir.is_within(&modules)) {
                let meta = own(Meta::dir(0o755, checked.time));
                placer.put(dir, &meta, None).map_err(failed)?;
            }
        }
        let names: Vec<(RelPath, String)> = below
            .iter()
            .map(|(name, remote)| (name.clone(), shown(remote)))
            .collect();
        let kept = git::keep(
            self.root.as_fd(),
            &place.git,
            &Repository {
                pack: &fetched.pack,
                checked,
                reference: fetched.reference.as_deref().map(|name| (name, fetched.oid)),
                url: &shown(place.remote),
                submodules: &names,
                worktree: is_submodule.then(|| up(&place.git) + &text(&place.path)),
                cancel: self.fetcher.cancel,
            },
        );
        kept.map_err(|error| self.failed(place, error))?;
        placer.finish().map_err(failed).map(drop)
    }
}
