//! Where credentials come from: Docker's config files and credential helpers.

use super::Error;
use super::helper::{self, Answer};
use crate::sys::Cancel;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a registry is shown, and where it was found. It has no `Debug`, so that it cannot be
/// printed by accident.
#[derive(Clone)]
pub(super) struct Credential {
    pub(super) secret: Secret,
    /// The file or helper for reports; where was looked, if nothing was found.
    pub(super) origin: String,
}

#[derive(Clone, PartialEq)]
pub(super) enum Secret {
    /// Nothing was found.
    Anonymous,
    Basic {
        user: String,
        password: String,
    },
    /// A refresh token, to be traded for access tokens.
    Identity(String),
    /// An access token, to be shown as it is.
    Access(String),
}

impl Credential {
    /// Says what was sent, for errors.
    pub(super) fn told(&self) -> String {
        match &self.secret {
            Secret::Anonymous => format!("no credentials were sent: {}", self.origin),
            Secret::Basic { user, .. } => {
                format!("credentials of `{user}` from {} were sent", self.origin)
            }
            Secret::Identity(_) => format!("an identity token from {} was used", self.origin),
            Secret::Access(_) => format!("a registry token from {} was sent", self.origin),
        }
    }
}

/// Finds credentials; files are read when the first are asked for, helpers are asked once.
pub(super) struct Credentials {
    inline: Option<String>,
    paths: Vec<PathBuf>,
    files: Arc<OnceLock<Files>>,
    /// By helper and server.
    helpers: Arc<Mutex<HashMap<(String, String), Asked>>>,
    cancel: Cancel,
}

/// The config files, or which of them cannot be used, and why.
type Files = Result<Vec<ConfigFile>, (String, String)>;

/// What a helper said, once it did; locked while it is asked.
type Asked = Arc<Mutex<Option<Answer>>>;

/// The most bytes of a config file.
const MAX_CONFIG: u64 = 8 << 20;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RawConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<RawAuth>>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
struct RawAuth {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

struct ConfigFile {
    origin: String,
    config: RawConfig,
}

impl Credentials {
    pub(super) fn new(inline: Option<String>, paths: Vec<PathBuf>, cancel: Cancel) -> Credentials {
        Credentials {
            inline: inline.filter(|text| !text.trim().is_empty()),
            paths,
            files: Arc::default(),
            helpers: Arc::default(),
            cancel,
        }
    }

    /// Gives the same for another switch; what has been read or asked is known already.
    pub(super) fn again(&self, cancel: Cancel) -> Credentials {
        Credentials {
            inline: self.inline.clone(),
            paths: self.paths.clone(),
            files: Arc::clone(&self.files),
            helpers: Arc::clone(&self.helpers),
            cancel,
        }
    }

    /// Finds what to show a registry for a repository. The first source that has something for the
    /// registry wins; within a source, helpers named for the registry come before entries, these
    /// before the store for all registries, and a key with more of the repository before one with
    /// less.
    pub(super) fn of(&self, registry: &str, repository: &str) -> Result<Credential, Error> {
        let files = self.files.get_or_init(|| self.read()).as_ref();
        let files = files.map_err(|(origin, why)| Error::Credentials {
            origin: origin.clone(),
            why: why.clone(),
        })?;
        let keys = keys(registry, repository);
        let mut looked: Vec<String> = Vec::new();
        for file in files {
            if let Some(found) = self.in_file(file, registry, &keys, &mut looked)? {
                return Ok(found);
            }
        }
        let origin = if files.is_empty() {
            let places: Vec<String> = self.paths.iter().map(|p| p.display().to_string()).collect();
            match places.is_empty() {
                true => "no place to look for credentials is known".to_owned(),
                false => format!("there is no Docker config at {}", places.join(", ")),
            }
        } else {
            format!("none for {registry} in {}", looked.join(", "))
        };
        Ok(Credential {
            secret: Secret::Anonymous,
            origin,
        })
    }

    fn in_file(
        &self,
        file: &ConfigFile,
        registry: &str,
        keys: &[String],
        looked: &mut Vec<String>,
    ) -> Result<Option<Credential>, Error> {
        let ConfigFile { origin, config } = file;
        let helpers = config.cred_helpers.as_ref();
        let named = keys.iter().find_map(|key| {
            let (at, name) = helpers?.iter().find(|(at, _)| normal(at) == *key)?;
            Some((at, name))
        });
        if let Some((at, name)) = named {
            let told = format!("docker-credential-{name} (credHelpers of {origin})");
            match self.ask(name, server(registry, at), &told)? {
                Answer::Found(secret) => {
                    return Ok(Some(Credential {
                        secret,
                        origin: told,
                    }));
                }
                Answer::Nothing => looked.push(told),
                Answer::Missing => {
                    return Err(Error::Credentials {
                        origin: told,
                        why: "there is no such program on the PATH".into(),
                    });
                }
            }
        }
        looked.push(origin.clone());
        let auths = config.auths.as_ref();
        for key in keys {
            let entries = auths.into_iter().flatten();
            for (at, auth) in entries.filter(|(at, _)| normal(at) == *key) {
                let Some(auth) = auth else { continue };
                let secret = secret(auth).map_err(|why| Error::Credentials {
                    origin: origin.clone(),
                    why: format!("the entry `{at}` {why}"),
                })?;
                if secret != Secret::Anonymous {
                    return Ok(Some(Credential {
                        secret,
                        origin: origin.clone(),
                    }));
                }
            }
        }
        if let Some(name) = config
            .creds_store
            .as_deref()
            .filter(|name| !name.is_empty())
        {
            let told = format!("docker-credential-{name} (credsStore of {origin})");
            match self.ask(name, server(registry, registry), &told)? {
                Answer::Found(secret) => {
                    return Ok(Some(Credential {
                        secret,
                        origin: told,
                    }));
                }
                Answer::Nothing => looked.push(told),
                // A config that was copied from a desktop names a store that only that one has.
                Answer::Missing => looked.push(format!("{told}, which is not installed")),
            }
        }
        Ok(None)
    }

    /// Asks a helper, once for each server.
    fn ask(&self, name: &str, server: &str, origin: &str) -> Result<Answer, Error> {
        let cell = self
            .helpers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((name.to_owned(), server.to_owned()))
            .or_default()
            .clone();
        let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = &*cell {
            return Ok(answer.clone());
        }
        let answer = helper::ask(name, server, origin, &self.cancel)?;
        *cell = Some(answer.clone());
        Ok(answer)
    }

    fn read(&self) -> Result<Vec<ConfigFile>, (String, String)> {
        let mut files = Vec::new();
        if let Some(text) = &self.inline {
            let origin = "DOCKER_AUTH_CONFIG".to_owned();
            match serde_json::from_str(text) {
                Ok(config) => files.push(ConfigFile { origin, config }),
                Err(e) => return Err((origin, told(&e))),
            }
        }
        for path in &self.paths {
            let (path, bytes) = match read(path) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(e) => return Err((path.display().to_string(), e.to_string())),
            };
            let origin = path.display().to_string();
            // Docker itself leaves an empty file behind now and then.
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match serde_json::from_slice(&bytes) {
                Ok(config) => files.push(ConfigFile { origin, config }),
                Err(e) => return Err((origin, told(&e))),
            }
        }
        Ok(files)
    }
}

/// Says what is wrong with a config without quoting it: the value in question may be a secret.
fn told(error: &serde_json::Error) -> String {
    format!(
        "line {}, column {}: not a Docker config",
        error.line(),
        error.column()
    )
}

fn read(path: &Path) -> std::io::Result<Option<(PathBuf, Vec<u8>)>> {
    let path = match path.is_dir() {
        true => path.join("config.json"),
        false => path.to_owned(),
    };
    let mut bytes = Vec::new();
    match std::fs::File::open(&path) {
        Ok(file) => file.take(MAX_CONFIG).read_to_end(&mut bytes)?,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    Ok(Some((path, bytes)))
}

/// Gives the keys under which credentials for a repository may stand, most specific first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let hosts: &[&str] = match registry {
        "docker.io" => &["index.docker.io", "docker.io", "registry-1.docker.io"],
        other => &[other],
    };
    let mut keys = Vec::new();
    let mut path = repository;
    loop {
        for host in hosts {
            keys.push(match path.is_empty() {
                true => (*host).to_owned(),
                false => format!("{host}/{path}"),
            });
        }
        if path.is_empty() {
            return keys;
        }
        path = path.rsplit_once('/').map_or("", |(rest, _)| rest);
    }
}

/// Gives a config's key without scheme and API version: `https://index.docker.io/v1/` is
/// `index.docker.io`.
fn normal(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    key.strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key)
}

/// Gives the name a helper knows a registry by.
fn server<'a>(registry: &str, key: &'a str) -> &'a str {
    match registry {
        "docker.io" => "https://index.docker.io/v1/",
        _ => key,
    }
}

fn secret(auth: &RawAuth) -> Result<Secret, &'static str> {
    fn text(value: &Option<String>) -> Option<&str> {
        value.as_deref().filter(|text| !text.is_empty())
    }
    if let Some(token) = text(&auth.identitytoken) {
        return Ok(Secret::Identity(token.to_owned()));
    }
    if let Some(token) = text(&auth.registrytoken) {
        return Ok(Secret::Access(token.to_owned()));
    }
    if let Some(both) = text(&auth.auth) {
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let bytes = LENIENT
            .decode(both.trim())
            .map_err(|_| "has an `auth` that is not base64")?;
        let both = String::from_utf8(bytes).map_err(|_| "has an `auth` that is not text")?;
        let (user, password) = both
            .split_once(':')
            .ok_or("has an `auth` without a colon between user and password")?;
        return Ok(basic(user, password.trim_end_matches('\0')));
    }
    match (text(&auth.username), text(&auth.password)) {
        (Some(user), Some(password)) => Ok(basic(user, password)),
        _ => Ok(Secret::Anonymous),
    }
}

/// Makes a secret of a user and a password; under the user `<token>` stands an identity token.
pub(super) fn basic(user: &str, password: &str) -> Secret {
    match user {
        "<token>" => Secret::Identity(password.to_owned()),
        _ => Secret::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        },
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
