use super::Digest;
use std::fmt;
use std::str::FromStr;

/// The name of an image in a registry: `[registry/]repository[:tag][@digest]`.
///
/// Parsing follows the distribution project's grammar and Docker's defaults: no registry means
/// `docker.io`, one component there means `library/`, neither tag nor digest means `latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and port as written, `docker.io` where there was none.
    pub registry: String,
    /// The repository without registry, `library/debian`.
    pub repository: String,
    /// The tag; there is one wherever there is no digest.
    pub tag: Option<String>,
    /// The digest of the manifest.
    pub digest: Option<Digest>,
}

/// Why a text names no image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not an image reference: {why}")]
pub struct ReferenceError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl Reference {
    /// Gives `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Gives what a manifest is asked for by: the digest, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let wrong = |why: &str| ReferenceError {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse::<Digest>()
                        .map_err(|e| wrong(&e.to_string()))?,
                ),
            ),
            None => (text, None),
        };
        let (path, tag) = match rest.rfind(':') {
            Some(at) if !rest[at..].contains('/') => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            let first = tag.bytes().next();
            let ok = first.is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_')
                && tag.len() <= 128
                && tag
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c));
            if !ok {
                return Err(wrong(
                    "a tag has up to 128 letters, digits, `_`, `.`, `-` and starts with neither `.` nor `-`",
                ));
            }
        }
        let (registry, repository) = match path.split_once('/') {
            Some((host, rest))
                if host.contains(['.', ':'])
                    || host == "localhost"
                    || host.bytes().any(|c| c.is_ascii_uppercase()) =>
            {
                (host, rest.to_owned())
            }
            _ => ("docker.io", path.to_owned()),
        };
        let registry = if registry == "index.docker.io" {
            "docker.io"
        } else {
            registry
        };
        if !is_host(registry) {
            return Err(wrong(
                "the registry is no host with letters, digits, `.`, `-` and perhaps a port",
            ));
        }
        let repository = if registry == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if path.is_empty() || repository.ends_with('/') {
            return Err(wrong("there is no repository"));
        }
        if repository.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(wrong("a repository is written in lower case"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(wrong(
                "a repository's parts have lower-case letters and digits, with `.`, `_`, `__` or dashes between",
            ));
        }
        Ok(Reference {
            registry: registry.to_owned(),
            repository,
            tag: match (tag, digest) {
                (Some(tag), _) => Some(tag.to_owned()),
                (None, Some(_)) => None,
                (None, None) => Some("latest".into()),
            },
            digest,
        })
    }
}

/// Tells whether a text is a host with an optional port; an IPv6 address stands in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_is_good = port
        .is_none_or(|port| port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    port_is_good
        && match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|c| c.is_ascii_alphanumeric() || c == b'-')
            }),
        }
}

/// Tells whether a text is one part of a repository's path: runs of lower-case letters and digits
/// with one `.`, one or two `_`, or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(is_word)
        && text.ends_with(is_word)
        && text.split(is_word).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|c| c == b'-')
        })
}
