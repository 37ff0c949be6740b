//! Secrets, SSH agents and what a build may do beyond the usual. No message shows a secret.

use super::fields::fields;
use crate::cli::flags::Typed;
use crate::cli::parse::Usage;
use crate::cli::surroundings::Surroundings;
use crate::request::{Hidden, SecretSource, SshSource};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Finds out where secrets come from: `id=ID[,src=FILE|,env=NAME][,type=file|env]`. Without a source
/// it is the variable of that name where there is one, else the file.
pub(super) fn secrets(
    given: &[String],
    around: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, SecretSource>, Usage> {
    let mut out = BTreeMap::new();
    for text in given {
        let (id, source) = secret(text, around, warnings)?;
        if out.contains_key(&id) {
            return Err(Usage::new(format!("--secret: id `{id}` is given twice")));
        }
        out.insert(id, source);
    }
    Ok(out)
}

#[derive(Default)]
struct Spec {
    id: String,
    kind: Option<Kind>,
    file: String,
    env: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Env,
}

fn secret(
    text: &str,
    around: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<(String, SecretSource), Usage> {
    const FORM: &str = "id=ID[,src=FILE|,env=NAME][,type=file|env] is wanted";
    let mut spec = Spec::default();
    let parts =
        fields(text).ok_or_else(|| Usage::new("--secret: a double quote has no end").hint(FORM))?;
    for part in parts {
        // Whoever puts a secret itself here must not find it in a log.
        let Some((key, value)) = part.split_once('=') else {
            return Err(Usage::new("--secret: a field is not KEY=VALUE").hint(FORM));
        };
        match key.to_ascii_lowercase().as_str() {
            "id" => spec.id = value.to_owned(),
            "src" | "source" => spec.file = value.to_owned(),
            "env" => spec.env = value.to_owned(),
            "type" => {
                spec.kind = Some(match value {
                    "file" => Kind::File,
                    "env" => Kind::Env,
                    _ => return Err(Usage::new("--secret: the type is neither file nor env")),
                });
            }
            key => {
                return Err(Usage::new(format!("--secret: unknown key `{key}`")).hint(FORM));
            }
        }
    }
    let Spec {
        id,
        kind,
        file,
        env,
    } = spec;
    if id.is_empty() {
        return Err(Usage::new("--secret: there is no id").hint(FORM));
    }
    let wrong = |why: &str| Err(Usage::new(format!("--secret {id}: {why}")));
    let set = |name: &str| around.env.contains_key(OsStr::new(name));
    let (kind, name) = match (kind, file.as_str(), env.as_str()) {
        (_, file, env) if !file.is_empty() && !env.is_empty() => {
            return wrong("src and env exclude each other");
        }
        (Some(Kind::File), "", env) if !env.is_empty() => {
            return wrong("type=file and env exclude each other");
        }
        // `type=env,src=NAME` is Docker's older way to say it.
        (Some(kind), "", "") => (kind, id.as_str()),
        (Some(kind), file, "") => (kind, file),
        (_, "", "") if set(&id) => (Kind::Env, id.as_str()),
        (_, "", "") => (Kind::File, id.as_str()),
        (_, file, "") => (Kind::File, file),
        (_, _, env) => (Kind::Env, env),
    };
    let source = match kind {
        Kind::Env => {
            let value = around.env.get(OsStr::new(name));
            if value.is_none() {
                warnings.push(format!(
                    "--secret {id}: the variable {name} is not set, so the secret is empty"
                ));
            }
            let bytes = value.map(|value| value.as_bytes().to_vec());
            SecretSource::Value(Hidden(bytes.unwrap_or_default()))
        }
        Kind::File => SecretSource::File(file_of(&around.cwd.join(name), "--secret", &id)?),
    };
    Ok((id, source))
}

fn file_of(path: &Path, flag: &str, id: &str) -> Result<PathBuf, Usage> {
    let wrong = |why: String| Usage::new(format!("{flag} {id}: {}: {why}", path.display()));
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(wrong("it is a directory; a file is wanted".into())),
        Ok(_) => Ok(path.to_owned()),
        Err(error) => Err(wrong(super::plain(&error, "no such file"))),
    }
}

/// Finds out where the keys of SSH agents are: `ID[=SOCKET|=KEY[,KEY]]`, by default in the agent
/// that `SSH_AUTH_SOCK` names.
pub(super) fn ssh(
    given: &[String],
    around: &Surroundings,
) -> Result<BTreeMap<String, SshSource>, Usage> {
    let mut out = BTreeMap::new();
    for text in given {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        let id = if id.is_empty() { "default" } else { id };
        let paths: Vec<PathBuf> = paths
            .split(',')
            .filter(|path| !path.is_empty())
            .map(|path| around.cwd.join(path))
            .collect();
        let source = match paths.is_empty() {
            true => {
                let socket = around.path("SSH_AUTH_SOCK").ok_or_else(|| {
                    Usage::new(format!("--ssh {id}: SSH_AUTH_SOCK is not set")).hint(format!(
                        "start ssh-agent, or give {id}=SOCKET or {id}=KEYFILE"
                    ))
                })?;
                if !is_socket(&socket, id)? {
                    return Err(Usage::new(format!(
                        "--ssh {id}: SSH_AUTH_SOCK names {}, which is no socket",
                        socket.display()
                    )));
                }
                SshSource::Agent(socket)
            }
            false => of_paths(paths, id)?,
        };
        if out.contains_key(id) {
            return Err(Usage::new(format!("--ssh: id `{id}` is given twice")));
        }
        out.insert(id.to_owned(), source);
    }
    Ok(out)
}

fn of_paths(paths: Vec<PathBuf>, id: &str) -> Result<SshSource, Usage> {
    for path in &paths {
        if is_socket(path, id)? {
            return match paths.len() {
                1 => Ok(SshSource::Agent(path.clone())),
                _ => Err(Usage::new(format!(
                    "--ssh {id}: {} is an agent's socket, which goes with nothing else",
                    path.display()
                ))),
            };
        }
    }
    Ok(SshSource::Keys(paths))
}

fn is_socket(path: &Path, id: &str) -> Result<bool, Usage> {
    let path = file_of(path, "--ssh", id)?;
    Ok(std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket()))
}

/// Tells whether a RUN may have `--security=insecure`. The network is the builder's in any case.
pub(super) fn allow_insecure(typed: &Typed) -> Result<bool, Usage> {
    let mut insecure = false;
    for word in &typed.allow {
        match word.as_str() {
            "security.insecure" => insecure = true,
            "network.host" => {}
            _ => {
                return Err(Usage::new(format!(
                    "--allow: `{word}` is neither security.insecure nor network.host"
                )));
            }
        }
    }
    Ok(insecure)
}
