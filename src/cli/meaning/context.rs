//! Where files come from: the context, the named contexts, the Dockerfile.

use super::plain;
use crate::cli::flags::Typed;
use crate::cli::parse::{Called, Usage, truth};
use crate::cli::surroundings::Surroundings;
use crate::oci::{Digest, Reference};
use crate::request::{
    ContextSource, GitLogin, GitOptions, GitSource, Hidden, Layout, NamedContext, PullMethod,
};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Azure's hosts of blobs, which want a signature that is not made here.
const AZURE: [&str; 4] = [
    ".blob.core.windows.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.cloudapi.de",
];

/// The context and its Dockerfile.
pub(super) struct Sources {
    /// The context.
    pub context: ContextSource,
    /// The directory of it that is the context; empty where `context` is that directory itself.
    pub sub_path: PathBuf,
    /// As `Request::dockerfile`.
    pub dockerfile: PathBuf,
    /// As `Request::git`.
    pub git: GitOptions,
}

/// Finds out what is built.
pub(super) fn sources(
    typed: &Typed,
    around: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<Sources, Usage> {
    let given = given(typed, around)?;
    let source = source("context", &given, around)?;
    if source == ContextSource::Stdin && typed.dockerfile.as_deref() == Some(Path::new("-")) {
        return Err(Usage::new(
            "standard input cannot be both the context and the Dockerfile",
        ));
    }
    let git = Git::read(&typed.git)?;
    let options = GitOptions {
        login: git_login(around),
        insecure_context: git.insecure,
    };
    let sub_path = typed.context_sub_path.as_deref().unwrap_or(Path::new(""));
    // kaniko appends it whether or not it starts with a slash.
    let sub_path = sub_path.strip_prefix("/").unwrap_or(sub_path);
    if sub_path
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return Err(Usage::new(format!(
            "--context-sub-path: {} leads out of the context",
            sub_path.display()
        )));
    }
    match source {
        ContextSource::Directory(mut dir) => {
            git.unused(warnings);
            if sub_path != Path::new("") {
                dir.push(sub_path);
            }
            let dir = directory("context", dir)?;
            Ok(Sources {
                dockerfile: dockerfile(typed, around, &dir)?,
                context: ContextSource::Directory(dir),
                sub_path: PathBuf::new(),
                git: options,
            })
        }
        mut fetched => {
            match &mut fetched {
                ContextSource::Git(source) => git.apply(source),
                _ => git.unused(warnings),
            }
            Ok(Sources {
                context: fetched,
                sub_path: sub_path.to_owned(),
                dockerfile: dockerfile_in_fetched(typed, around)?,
                git: options,
            })
        }
    }
}

fn given(typed: &Typed, around: &Surroundings) -> Result<PathBuf, Usage> {
    match (&typed.context, &typed.positional) {
        (Some(flag), Some(word)) if flag != word => Err(Usage::new(format!(
            "the context is given twice: --context {} and `{}`",
            flag.display(),
            word.display()
        ))),
        (Some(path), _) | (None, Some(path)) => Ok(path.clone()),
        (None, None) => Ok(match around.called {
            Called::Executor => PathBuf::from("/workspace/"),
            Called::Shutter => PathBuf::from("."),
        }),
    }
}

/// Splits `scheme://rest`.
pub(super) fn scheme(path: &Path) -> Option<(&str, &str)> {
    let (scheme, rest) = path.to_str()?.split_once("://")?;
    let is_scheme = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    is_scheme.then_some((scheme, rest))
}

/// Finds out what a context's name means; directories are looked for later.
fn source(label: &str, given: &Path, around: &Surroundings) -> Result<ContextSource, Usage> {
    let text = given.to_str().unwrap_or_default();
    match scheme(given) {
        Some(("dir", rest)) => Ok(ContextSource::Directory(around.cwd.join(rest))),
        Some(("tar", "stdin")) => Ok(ContextSource::Stdin),
        Some(("tar", rest)) => archive(label, around.cwd.join(rest)).map(ContextSource::Archive),
        Some(("git", rest)) if around.called == Called::Executor => kaniko_git(label, rest, around),
        _ if GitSource::is_git(text) => git(label, text),
        Some(("http" | "https", _)) => {
            let host = url::Url::parse(text).ok();
            let host = host.as_ref().and_then(url::Url::host_str).unwrap_or("");
            if AZURE.iter().any(|suffix| host.ends_with(suffix)) && !text.contains('?') {
                return Err(
                    Usage::new(format!("{label}: blobs of Azure are not yet supported"))
                        .hint("a URL with a signature (SAS) is"),
                );
            }
            Ok(ContextSource::Http(text.to_owned()))
        }
        Some((scheme, _)) => Err(
            Usage::new(format!("{label}: {scheme}:// is not yet supported"))
                .hint("PATH, dir://, tar://, git://, https:// and http:// are"),
        ),
        None if text == "-" => Ok(ContextSource::Stdin),
        None => {
            let path = around.cwd.join(given);
            // As Docker takes it, where there is no such directory.
            if text.starts_with("github.com/") && !path.exists() {
                return git(label, &format!("https://{text}"));
            }
            Ok(ContextSource::Directory(path))
        }
    }
}

/// Reads kaniko's variables: a token is a user without a password.
fn git_login(around: &Surroundings) -> Option<GitLogin> {
    let text = |name| around.text(name).unwrap_or_default();
    let (user, password) = match text("GIT_TOKEN") {
        "" => (text("GIT_USERNAME"), text("GIT_PASSWORD")),
        token => (token, ""),
    };
    let hidden = |text: &str| Hidden(text.as_bytes().to_vec());
    (!user.is_empty() || !password.is_empty()).then(|| GitLogin {
        user: hidden(user),
        password: hidden(password),
    })
}

fn git(label: &str, text: &str) -> Result<ContextSource, Usage> {
    GitSource::parse(text)
        .map(ContextSource::Git)
        .map_err(|why| Usage::new(format!("{label}: {why}")))
}

/// Reads what follows kaniko's `git://`: to kaniko the scheme says what it is, and not how it is
/// fetched.
fn kaniko_git(label: &str, rest: &str, around: &Surroundings) -> Result<ContextSource, Usage> {
    let method = match around.text("GIT_PULL_METHOD") {
        Some("http") => PullMethod::Http,
        _ => PullMethod::Https,
    };
    GitSource::parse_kaniko(rest, method)
        .map(ContextSource::Git)
        .map_err(|why| Usage::new(format!("{label}: {why}")))
}

fn archive(label: &str, path: PathBuf) -> Result<PathBuf, Usage> {
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Err(Usage::new(format!(
            "{label} {}: it is a directory; an archive is wanted",
            path.display()
        ))),
        Ok(_) => Ok(path),
        Err(error) => Err(Usage::new(format!(
            "{label} {}: {}",
            path.display(),
            plain(&error, "no such file")
        ))),
    }
}

fn directory(label: &str, dir: PathBuf) -> Result<PathBuf, Usage> {
    match std::fs::metadata(&dir) {
        Ok(meta) if meta.is_dir() => Ok(clean(&dir)),
        Ok(_) => Err(Usage::new(format!(
            "{label} {}: not a directory",
            dir.display()
        ))),
        Err(error) => Err(Usage::new(format!(
            "{label} {}: {}",
            dir.display(),
            plain(&error, "no such directory")
        ))),
    }
}

/// Drops `.` parts and doubled slashes; `..` stays, for what is before it may be a link.
pub(super) fn clean(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| !matches!(part, Component::CurDir))
        .collect()
}

/// Standard input as a path: what reads it need not know that it is none.
const STDIN: &str = "/dev/stdin";

fn dockerfile(typed: &Typed, around: &Surroundings, context: &Path) -> Result<PathBuf, Usage> {
    if let Some(path) = elsewhere(typed)? {
        return Ok(path);
    }
    let candidates = match &typed.dockerfile {
        Some(path) => vec![around.cwd.join(path), context.join(path)],
        None if around.called == Called::Executor => {
            vec![around.cwd.join("Dockerfile"), context.join("Dockerfile")]
        }
        // Where nothing was typed, the working directory's Dockerfile has nothing to do with the
        // context of `shutter build CONTEXT`.
        None => vec![context.join("Dockerfile")],
    };
    let mut candidates: Vec<PathBuf> = candidates.iter().map(|path| clean(path)).collect();
    candidates.dedup();
    for path in &candidates {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                if typed.dockerfile.is_some() && candidates.len() == 1 {
                    return Err(Usage::new(format!(
                        "dockerfile {}: is a directory",
                        path.display()
                    )));
                }
            }
            Ok(_) => return Ok(path.clone()),
            Err(error) if super::is_missing(&error) => {}
            Err(error) => {
                return Err(Usage::new(format!(
                    "dockerfile {}: {}",
                    path.display(),
                    plain(&error, "no such file")
                )));
            }
        }
    }
    let tried: Vec<String> = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Err(Usage::new(format!(
        "there is no Dockerfile at {}",
        tried.join(" nor at ")
    ))
    .hint("--dockerfile names it, --context the directory it belongs to"))
}

/// Gives the Dockerfile of a context that is not here yet: absolute where it is on this machine,
/// else relative to that context.
fn dockerfile_in_fetched(typed: &Typed, around: &Surroundings) -> Result<PathBuf, Usage> {
    if let Some(path) = elsewhere(typed)? {
        return Ok(path);
    }
    let name = typed.dockerfile.as_deref();
    let here = match (name, around.called) {
        (None, Called::Shutter) => None,
        (name, _) => Some(around.cwd.join(name.unwrap_or(Path::new("Dockerfile")))),
    };
    Ok(match here.filter(|path| path.is_file()) {
        Some(path) => clean(&path),
        None => name.unwrap_or(Path::new("Dockerfile")).to_owned(),
    })
}

/// Gives a Dockerfile that is no file of the context or of this machine.
fn elsewhere(typed: &Typed) -> Result<Option<PathBuf>, Usage> {
    let Some(given) = &typed.dockerfile else {
        return Ok(None);
    };
    if given == Path::new("-") {
        return Ok(Some(STDIN.into()));
    }
    match scheme(given) {
        Some(("http" | "https", _)) => Ok(Some(given.clone())),
        Some((scheme, _)) => Err(Usage::new(format!(
            "--dockerfile: {scheme}:// is not yet supported"
        ))
        .hint("a path, - for standard input, https:// and http:// are")),
        None => Ok(None),
    }
}

/// Finds out what the named contexts are.
pub(super) fn named(
    given: &BTreeMap<String, String>,
    around: &Surroundings,
) -> Result<BTreeMap<String, NamedContext>, Usage> {
    let mut out = BTreeMap::new();
    for (name, text) in given {
        let label = format!("--build-context {name}");
        let context = match text.split_once("://") {
            Some(("oci-layout", rest)) => NamedContext::Layout(layout(&label, rest, around)?),
            Some(("docker-image", rest)) => {
                let image: Result<Reference, _> = rest.parse();
                let image = image.map_err(|error| Usage::new(format!("{label}: {error}")))?;
                NamedContext::Image(image)
            }
            _ if text.starts_with("target:") => {
                return Err(Usage::new(format!(
                    "{label}: `{text}` names a target of a bake file, and there is none"
                )));
            }
            _ => NamedContext::Files(match source(&label, Path::new(text), around)? {
                ContextSource::Stdin => {
                    return Err(Usage::new(format!(
                        "{label}: only --context can be standard input"
                    )));
                }
                ContextSource::Directory(dir) => {
                    ContextSource::Directory(directory(&format!("{label}:"), dir)?)
                }
                other => other,
            }),
        };
        out.insert(name.clone(), context);
    }
    Ok(out)
}

fn layout(label: &str, text: &str, around: &Surroundings) -> Result<Layout, Usage> {
    let (rest, digest) = match text.rsplit_once('@') {
        Some((rest, digest)) => {
            let digest: Digest = digest
                .parse()
                .map_err(|error| Usage::new(format!("{label}: {error}")))?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (dir, tag) = match rest.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') && !tag.is_empty() => (dir, Some(tag)),
        _ => (rest, None),
    };
    if dir.is_empty() {
        return Err(Usage::new(format!(
            "{label}: `oci-layout://{text}` names no directory"
        )));
    }
    Ok(Layout {
        dir: around.cwd.join(dir),
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// kaniko's `--git KEY=VALUE`.
struct Git {
    branch: Option<String>,
    insecure: bool,
    is_given: bool,
}

impl Git {
    fn read(given: &[String]) -> Result<Git, Usage> {
        let mut branch = None;
        let mut insecure = false;
        for text in given {
            let Some((key, value)) = text.split_once('=') else {
                return Err(Usage::new(format!("--git: `{text}` is not KEY=VALUE")));
            };
            let switch = || {
                truth(value).ok_or_else(|| {
                    Usage::new(format!("--git {key}: `{value}` is neither true nor false"))
                })
            };
            match key {
                "branch" => branch = Some(value.to_owned()).filter(|name| !name.is_empty()),
                // One commit is fetched, and nothing before it.
                "single-branch" => {
                    switch()?;
                }
                "depth" => {
                    let _: i64 = value.parse().map_err(|_| {
                        Usage::new(format!("--git depth: `{value}` is not a whole number"))
                    })?;
                }
                // Submodules are fetched in any case, as BuildKit has it.
                "recurse-submodules" => {
                    switch()?;
                }
                "insecure-skip-tls" => insecure = switch()?,
                _ => {
                    return Err(Usage::new(format!("--git: unknown key `{key}`")).hint(
                        "the keys are branch, single-branch, depth, recurse-submodules and \
                         insecure-skip-tls",
                    ));
                }
            }
        }
        Ok(Git {
            branch,
            insecure,
            is_given: !given.is_empty(),
        })
    }

    /// A branch counts more than the reference of the URL, and less than a commit.
    fn apply(self, source: &mut GitSource) {
        let is_commit = |text: &String| {
            matches!(text.len(), 40 | 64) && text.bytes().all(|c| c.is_ascii_hexdigit())
        };
        if let Some(branch) = self.branch
            && !source.reference.as_ref().is_some_and(is_commit)
        {
            source.reference = Some(branch);
        }
    }

    fn unused(&self, warnings: &mut Vec<String>) {
        if self.is_given {
            warnings.push("--git has no effect: the context is no git repository".into());
        }
    }
}
