//! The sources of a COPY or ADD: which are paths, and which are fetched.

use super::{CopySource, Remote};
use crate::dockerfile::check::{Hide, without_credentials};
use crate::oci::Digest;
use crate::request::GitSource;

/// The options of ADD that are about what it fetches, expanded.
pub(super) struct Options {
    /// `--checksum=`.
    pub(super) checksum: Option<String>,
    /// `--keep-git-dir`.
    pub(super) keep_git_dir: Option<bool>,
}

/// What is wrong with a source, and what to do.
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

impl<T: Into<String>> From<T> for Wrong {
    fn from(message: T) -> Wrong {
        Wrong {
            message: message.into(),
            hint: None,
        }
    }
}

/// Gives the sources in order; `add` is `None` for COPY, which fetches nothing.
pub(super) fn sources(paths: &[String], add: Option<&Options>) -> Result<Vec<CopySource>, Wrong> {
    let keeps = add.is_some_and(|add| add.keep_git_dir.is_some());
    let kinds: Vec<Kind> = paths.iter().map(|path| kind(path, keeps)).collect();
    let Some(add) = add else {
        return paths
            .iter()
            .zip(kinds)
            .map(|(path, kind)| match kind {
                Kind::Path => Ok(CopySource::Path(path.clone())),
                Kind::Url => Err(Wrong {
                    message: format!("source can't be a URL for COPY: {}", shown(path)),
                    hint: Some("ADD fetches URLs"),
                }),
                Kind::Git => Err(Wrong {
                    message: format!("source can't be a git ref for COPY: {}", shown(path)),
                    hint: Some("ADD fetches repositories"),
                }),
            })
            .collect();
    };
    if add.checksum.is_some() {
        match kinds.as_slice() {
            [Kind::Url | Kind::Git] => {}
            [Kind::Path] => return Err("checksum requires HTTP(S) or Git sources".into()),
            _ => return Err("checksum can't be specified for multiple sources".into()),
        }
    }
    if add.keep_git_dir.is_some()
        && let Some(at) = kinds.iter().position(|kind| *kind != Kind::Git)
    {
        return Err(format!("--keep-git-dir requires Git sources: {}", shown(&paths[at])).into());
    }
    paths
        .iter()
        .zip(kinds)
        .map(|(path, kind)| Ok(source(path, kind, add)?))
        .collect()
}

fn shown(path: &str) -> String {
    without_credentials(path, Hide::Query)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Path,
    Url,
    Git,
}

/// Tells what a source is; a URL that is to keep its `.git` is a repository whatever it ends with.
fn kind(source: &str, keeps_git: bool) -> Kind {
    let is_url = ["http://", "https://"]
        .iter()
        .any(|s| source.starts_with(s));
    match () {
        () if GitSource::is_git(source) || (is_url && keeps_git) => Kind::Git,
        () if is_url => Kind::Url,
        () => Kind::Path,
    }
}

fn source(path: &str, kind: Kind, add: &Options) -> Result<CopySource, String> {
    Ok(match kind {
        Kind::Path => CopySource::Path(path.to_owned()),
        Kind::Url => CopySource::Remote(Remote::Http {
            url: path.to_owned(),
            checksum: add.checksum.as_deref().map(digest).transpose()?,
        }),
        Kind::Git => {
            let mut source = GitSource::parse(path)?;
            if let Some(checksum) = &add.checksum {
                commit(checksum)?;
                match &source.checksum {
                    Some(other) if other != checksum => {
                        return Err(format!("checksum mismatch {checksum:?} != {other:?}"));
                    }
                    _ => source.checksum = Some(checksum.clone()),
                }
            }
            if let (Some(flag), Some(own)) = (add.keep_git_dir, source.keep_git_dir)
                && flag != own
            {
                return Err("inconsistent keep-git-dir configuration".into());
            }
            CopySource::Remote(Remote::Git {
                keep_git_dir: source.keep_git_dir.or(add.keep_git_dir) == Some(true),
                source,
            })
        }
    })
}

/// Reads the checksum of a file.
fn digest(text: &str) -> Result<Digest, String> {
    match text.split_once(':') {
        Some(("sha256", _)) => text.parse().map_err(|_| {
            format!("invalid checksum digest length or format: {text} (sha256: and 64 hexadecimal digits are wanted)")
        }),
        Some((algorithm @ ("sha384" | "sha512"), _)) => Err(format!(
            "unsupported digest algorithm: {algorithm} (sha256 is wanted)"
        )),
        _ => Err(format!(
            "invalid checksum digest format: {text} (sha256: and 64 hexadecimal digits are wanted)"
        )),
    }
}

/// Looks at the checksum of a repository: a commit, or the start of one.
fn commit(text: &str) -> Result<(), String> {
    let hex = text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if !hex || !(1..=64).contains(&text.len()) {
        return Err(format!(
            "invalid checksum {text:?} for Git URL, expected hex commit hash"
        ));
    }
    Ok(())
}
