//! What RUN mounts while its command runs: each mount of the plan as the sandbox carries it out,
//! with all that has to be there, and be held, meanwhile.

mod caches;
mod mask;
mod secrets;
mod views;

pub(super) use mask::Mask;

use super::Shared;
use super::cached::{AllUsed, Used};
use super::stage::BoxError;
use crate::cache;
use crate::fs::{Kind, LastLink, RelPath, Tree};
use crate::oci::Platform;
use crate::plan::{Base, From, Mount, MountedFile, RunOp, Sharing};
use crate::progress::{Level, StepId};
use crate::request::Hidden;
use crate::sandbox::{self, What};
use crate::ssh::{self, Agent};
use crate::store::{Cache, CacheKey, CacheSharing};
use caches::Start;
use mask::Patterns;
use rustix::fs::{Mode, OFlags, open};
use secrets::Secrets;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use views::{Throwaway, Views, Wanted};

/// Why something cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The request lacks a secret that is required.
    #[error(
        "secret {0}: not found; give it by --secret id={0},src=FILE or --secret id={0},env=VARIABLE"
    )]
    NoSecret(String),
    /// A secret's file cannot be read.
    #[error("read secret {id} from {path}")]
    ReadSecret {
        /// Which secret.
        id: String,
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A secret is larger than secrets are.
    #[error("secret {0} has more than 500 KiB")]
    LargeSecret(String),
    /// A secret cannot be a variable.
    #[error("secret {0} has a NUL byte, which no variable can have")]
    NulInSecret(String),
    /// The request lacks an SSH agent that is required.
    #[error("SSH agent {0}: not found; give it by --ssh {0}=SOCKET or --ssh {0}=KEYFILE")]
    NoAgent(String),
    /// No agent can be had for a command.
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    /// A source cannot be opened.
    #[error("open {path}")]
    Source {
        /// The source as in the plan.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the context cannot be shown as root's.
    #[error("show {path} as root's")]
    Own {
        /// The file.
        path: RelPath,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that a cache begins with cannot be read.
    #[error("read {path}")]
    Hash {
        /// The file, as seen from the cache's source.
        path: RelPath,
        /// Why not.
        source: std::io::Error,
    },
    /// A cache cannot begin with a file.
    #[error("\"{0}\": a cache begins with a directory, and this is none")]
    NoDirectory(String),
    /// A directory cannot be mounted on a file.
    #[error("`{0}` is a file in the image, and {1} is a directory")]
    OnFile(String, &'static str),
    /// A file cannot be mounted on a directory.
    #[error("`{0}` is a directory in the image, and {1} is a file")]
    OnDirectory(String, &'static str),
    /// A path that no file can have.
    #[error("\"{0}\" has a NUL byte")]
    Nul(String),
    /// What is needed could not be made, which has been reported already, or the build is cancelled.
    #[error("cancelled")]
    Gone,
}

/// Says of a command that could not be started what of its mounts does not fit the image, where it is
/// that.
pub(super) fn explained(error: sandbox::Error, mounts: &[Mount], tree: &Tree) -> BoxError {
    let sandbox::Error::Setup { action, source } = &error else {
        return error.into();
    };
    let failed = action.strip_prefix("mount ");
    let what = mounts.iter().find_map(|mount| {
        let (target, what) = match mount {
            Mount::Bind { target, .. } => (target, "what is mounted"),
            Mount::Cache { target, .. } => (target, "a cache"),
            Mount::Tmpfs { target, .. } => (target, "a tmpfs"),
            Mount::Secret { file, .. } => (&file.as_ref()?.target, "a secret"),
            Mount::Ssh { file, .. } => (&file.target, "an agent's socket"),
        };
        (failed == Some(target)).then_some((target, what))
    });
    let Some((target, what)) = what else {
        return error.into();
    };
    let kind = RelPath::clean(target.as_bytes())
        .and_then(|path| tree.resolve(&path, LastLink::Follow).ok())
        .and_then(|path| tree.get(&path))
        .map(|found| found.meta.kind);
    match (source.kind(), kind) {
        (ErrorKind::NotADirectory, Some(Kind::File)) => Error::OnFile(target.clone(), what).into(),
        (ErrorKind::IsADirectory, Some(Kind::Dir)) => {
            Error::OnDirectory(target.clone(), what).into()
        }
        _ => error.into(),
    }
}

/// What the commands of a build mount in common.
#[derive(Default)]
pub(super) struct Common {
    secrets: Secrets,
    views: Views,
    /// The caches that are saved at the end.
    pub(super) used: AllUsed,
}

/// The mounts of one command, to be kept until it has ended.
pub(super) struct Ready {
    /// In the order in which they are written.
    pub(super) mounts: Vec<sandbox::Mount>,
    /// Variables to be set.
    variables: Vec<(String, Hidden)>,
    patterns: Arc<Patterns>,
    held: Held,
}

/// What goes when the command has ended.
#[derive(Default)]
struct Held {
    agents: Vec<Agent>,
    throwaways: Vec<Throwaway>,
    caches: BTreeMap<CacheKey, Cache>,
}

/// A cache that is still to be had.
struct WantedCache<'a> {
    place: usize,
    key: CacheKey,
    /// What it stands under in far places.
    far: cache::Key,
    start: Start,
    sharing: CacheSharing,
    target: &'a str,
    readonly: bool,
}

/// Makes a command's mounts ready. Caches that others use alone are waited for, last.
pub(super) fn prepare(
    shared: &Shared<'_>,
    platform: &Platform,
    step: StepId,
    run: &RunOp,
) -> Result<Ready, BoxError> {
    let mut making = Making {
        shared,
        platform,
        step,
        mounts: Vec::new(),
        variables: Vec::new(),
        caches: Vec::new(),
        held: Held::default(),
    };
    for (place, mount) in run.mounts.iter().enumerate() {
        making.take(place, mount)?;
    }
    making.take_caches()?;
    let Making {
        mut mounts,
        variables,
        held,
        ..
    } = making;
    mounts.sort_by_key(|(place, _)| *place);
    Ok(Ready {
        mounts: mounts.into_iter().map(|(_, mount)| mount).collect(),
        variables,
        patterns: shared.mounts.secrets.patterns(),
        held,
    })
}

struct Making<'a, 'env> {
    shared: &'a Shared<'env>,
    platform: &'a Platform,
    step: StepId,
    /// Each with its place in the order in which they are written.
    mounts: Vec<(usize, sandbox::Mount)>,
    variables: Vec<(String, Hidden)>,
    caches: Vec<WantedCache<'a>>,
    held: Held,
}

impl<'a> Making<'a, '_> {
    fn take(&mut self, place: usize, mount: &'a Mount) -> Result<(), BoxError> {
        match mount {
            Mount::Bind {
                target,
                from,
                source,
                writable,
            } => {
                let wanted = Wanted {
                    from,
                    platform: self.platform,
                    source,
                    step: self.step,
                };
                let views = &self.shared.mounts.views;
                let what = if !writable {
                    What::Bind(views.shared(self.shared, &wanted)?)
                } else if self.shared.request.rootfs.is_live() {
                    // The command gets a copy in any case.
                    What::Copy(views.shared(self.shared, &wanted)?)
                } else {
                    let (opened, throwaway) = views.writable(self.shared, &wanted)?;
                    self.held.throwaways.push(throwaway);
                    What::Bind(opened)
                };
                self.mount(place, target, what, !writable);
            }
            Mount::Cache {
                target,
                id,
                sharing,
                from,
                source,
                readonly,
                mode,
                uid,
                gid,
            } => {
                let start = match from {
                    None | Some(From::Base(Base::Scratch)) => Start::Empty(*mode, *uid, *gid),
                    Some(from) => caches::copy_of(self.shared, from, self.platform, source)?,
                };
                let beginning = start.identity();
                self.caches.push(WantedCache {
                    place,
                    key: CacheKey::new(id, &beginning),
                    far: cache::mount::key(id, &beginning, &self.platform.to_string()),
                    start,
                    sharing: match sharing {
                        // It lies in the command's root meanwhile.
                        Sharing::Shared if self.shared.request.rootfs.is_live() => {
                            CacheSharing::Locked
                        }
                        Sharing::Shared => CacheSharing::Shared,
                        Sharing::Private => CacheSharing::Private,
                        Sharing::Locked => CacheSharing::Locked,
                    },
                    target,
                    readonly: *readonly,
                });
            }
            Mount::Tmpfs {
                target,
                size,
                readonly,
            } => self.mount(place, target, What::Tmpfs { size: *size }, *readonly),
            Mount::Secret {
                id,
                file,
                env,
                required,
            } => self.secret(place, id, file.as_ref(), env.as_deref(), *required)?,
            Mount::Ssh { id, file, required } => self.ssh(place, id, file, *required)?,
        }
        Ok(())
    }

    fn mount(&mut self, place: usize, target: &str, what: What, readonly: bool) {
        let mount = sandbox::Mount {
            target: target.as_bytes().to_vec(),
            what,
            readonly,
        };
        self.mounts.push((place, mount));
    }

    fn secret(
        &mut self,
        place: usize,
        id: &str,
        file: Option<&MountedFile>,
        env: Option<&str>,
        required: bool,
    ) -> Result<(), Error> {
        let value = self
            .shared
            .mounts
            .secrets
            .get(id, &self.shared.request.secrets)?;
        if value.is_none() && required {
            return Err(Error::NoSecret(id.to_owned()));
        }
        if let Some(name) = env {
            // As with BuildKit, a variable of a secret that is not there is empty.
            let value = value.clone().unwrap_or(Hidden(Vec::new()));
            if value.0.contains(&0) {
                return Err(Error::NulInSecret(id.to_owned()));
            }
            self.variables.push((name.to_owned(), value));
        }
        if let (Some(file), Some(content)) = (file, value) {
            let what = What::Memory {
                mode: file.mode,
                uid: file.uid,
                gid: file.gid,
                content,
            };
            self.mount(place, &file.target, what, true);
        }
        Ok(())
    }

    fn ssh(
        &mut self,
        place: usize,
        id: &str,
        file: &MountedFile,
        required: bool,
    ) -> Result<(), Error> {
        let Some(source) = self.shared.request.ssh.get(id) else {
            return match required {
                true => Err(Error::NoAgent(id.to_owned())),
                false => Ok(()),
            };
        };
        let StepId { stage, step } = self.step;
        let name = format!("ssh-{stage}-{step}-{}", self.held.agents.len());
        let socket = ssh::Socket {
            dir: self.shared.scratch.dir.join(name),
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
        };
        let agent = Agent::start(source, socket)?;
        self.mount(
            place,
            &file.target,
            What::Bind(Arc::clone(&agent.socket)),
            false,
        );
        self.held.agents.push(agent);
        Ok(())
    }

    /// Takes the caches, all commands in the same order, so that no two wait for each other.
    fn take_caches(&mut self) -> Result<(), BoxError> {
        let mut wanted = std::mem::take(&mut self.caches);
        // Of a cache that is mounted more than once, the mount that shares least counts.
        wanted.sort_by(|a, b| a.key.cmp(&b.key).then(b.sharing.cmp(&a.sharing)));
        let shared = self.shared;
        for cache in wanted {
            let WantedCache {
                place,
                key,
                far,
                start,
                sharing,
                target,
                readonly,
            } = cache;
            let caching = shared.caching.filter(|caching| caching.wanted.mounts);
            // A cache that is mounted twice is the same at both places.
            let dir = match self.held.caches.get(&key) {
                Some(held) => held.dir.clone(),
                None => {
                    let waits = || {
                        let text = format!("waiting for the cache {target}, which is in use");
                        shared.sink.message(Level::Info, text);
                    };
                    let fill = |dir: &std::path::Path| {
                        if let Some(caching) = caching
                            && caching.restore(&far, target, dir, self.step, shared.cancel)?
                        {
                            return Ok(());
                        }
                        start.fill(dir, shared.cancel)
                    };
                    let cache = shared
                        .store
                        .cache(&key, sharing, &fill, &waits, shared.cancel)?;
                    let dir = cache.dir.clone();
                    self.held.caches.insert(key, cache);
                    dir
                }
            };
            if caching.is_some() && !readonly {
                let used = Used {
                    dir: dir.clone(),
                    sharing,
                    target: target.to_owned(),
                };
                shared.mounts.used.note(far, used);
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = open(&dir, flags, Mode::empty()).map_err(|errno| Error::Source {
                path: dir.display().to_string(),
                source: errno.into(),
            })?;
            self.mount(place, target, What::Bind(Arc::new(opened)), readonly);
        }
        Ok(())
    }
}

impl Ready {
    /// Adds the mounts' variables to an environment.
    pub(super) fn add_variables(&self, env: &mut Vec<Vec<u8>>) {
        let is = |entry: &[u8], name: &str| {
            let rest = entry.strip_prefix(name.as_bytes());
            rest.is_some_and(|rest| rest.first() == Some(&b'='))
        };
        for (name, Hidden(value)) in &self.variables {
            env.retain(|entry| !is(entry, name));
            env.push([name.as_bytes(), b"=", value].concat());
        }
    }

    /// Makes what takes secrets out of one of the command's streams.
    pub(super) fn mask(&self) -> Mask {
        Mask::new(Arc::clone(&self.patterns))
    }

    /// Lets go of everything once the command has ended.
    pub(super) fn end(self) {
        let Ready { mounts, held, .. } = self;
        // Before what they are of is unmounted.
        drop(mounts);
        drop(held);
    }
}
