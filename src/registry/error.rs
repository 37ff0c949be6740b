use crate::net::{self, Again, Failure, Response, Temporary};
use crate::oci::{ManifestError, Platform};
use serde::Deserialize;
use std::fmt;

/// What went wrong with a registry: which one, which repository, tag or digest, what it answered,
/// whether credentials were sent, and where they came from (never the secret itself).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The registry answered, but not with what was asked for.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// There was no answer, or it was cut off.
    #[error("{what}")]
    Exchange {
        /// What was tried, on which image or blob.
        what: String,
        /// What may help.
        hint: Option<&'static str>,
        /// What happened on the wire.
        source: Box<net::Error>,
    },
    /// The answer is not what it should be: another digest, another length, no manifest.
    #[error("{what}: {why}")]
    Content {
        /// What was tried, on which image or blob.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The bytes that came are no manifest that can be used.
    #[error("{what}")]
    Manifest {
        /// What was tried, on which image.
        what: String,
        /// Why not.
        source: ManifestError,
    },
    /// An index has no image for the platform.
    #[error("{image} has no image for {wanted}; it has {}", list(have))]
    Platform {
        /// The image.
        image: String,
        /// The platform that was asked for.
        wanted: Platform,
        /// The platforms the index has images for.
        have: Vec<Platform>,
    },
    /// Credentials could not be read.
    #[error("read credentials from {origin}: {why}")]
    Credentials {
        /// The file or the credential helper.
        origin: String,
        /// Why not; holds no secret.
        why: String,
    },
    /// The client could not be set up.
    #[error("set up the registry client")]
    Setup(#[source] Box<net::Error>),
}

/// An answer that is a refusal.
#[derive(Debug)]
pub struct Refused {
    /// What was tried, on which image or blob.
    pub what: String,
    /// Who answered, as a URL without secrets.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The registry's own error codes and messages.
    pub errors: Vec<(String, String)>,
    /// The beginning of the answer, where it is not in the registry's format.
    pub text: String,
    /// Whether credentials were sent and where they came from, or where they were looked for.
    pub credentials: String,
    /// What may help.
    pub hint: Option<&'static str>,
    /// What is known for another attempt, where one may help.
    pub again: Option<Again>,
}

/// The most of an error's body that is read.
const MAX_BODY: u64 = 64 << 10;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} answered {}", self.what, self.url, self.status)?;
        if let Some(reason) = reason(self.status) {
            write!(f, " {reason}")?;
        }
        for (at, (code, message)) in self.errors.iter().enumerate() {
            f.write_str(if at == 0 { " (" } else { ", " })?;
            f.write_str(code)?;
            if !message.is_empty() {
                write!(f, ": {message}")?;
            }
        }
        if !self.errors.is_empty() {
            f.write_str(")")?;
        } else if !self.text.is_empty() {
            write!(f, " ({})", self.text)?;
        }
        if matches!(self.status, 401 | 403 | 404) && !self.credentials.is_empty() {
            write!(f, "; {}", self.credentials)?;
        }
        Ok(())
    }
}

fn list(have: &[Platform]) -> String {
    if have.is_empty() {
        return "none that names a platform".into();
    }
    let names: Vec<String> = have.iter().map(Platform::to_string).collect();
    names.join(", ")
}

fn reason(status: u16) -> Option<&'static str> {
    net::StatusCode::from_u16(status).ok()?.canonical_reason()
}

impl Error {
    /// Gives the HTTP status the registry refused with.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused(refused) => Some(refused.status),
            _ => None,
        }
    }

    /// Gives what may help.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Refused(refused) => refused.hint,
            Error::Exchange { hint, .. } => *hint,
            _ => None,
        }
    }

    /// Tells whether the registry named this error code.
    pub fn has_code(&self, code: &str) -> bool {
        matches!(self, Error::Refused(r) if r.errors.iter().any(|(own, _)| own == code))
    }

    pub(super) fn content(what: &str, why: impl Into<String>) -> Error {
        Error::Content {
            what: what.to_owned(),
            why: why.into(),
        }
    }

    /// Wraps what happened on the wire.
    pub(super) fn exchange(what: &str, source: net::Error) -> Error {
        let hint = match source.failure() {
            _ if matches!(source, net::Error::Cancelled) => return Error::Cancelled,
            // Some servers of plain HTTP hang up on a handshake.
            Some(Failure::Connect) if !source.to_string().contains("tls handshake") => None,
            Some(Failure::Tls | Failure::Connect) => Some(
                "where the registry speaks plain HTTP, --insecure (push), --insecure-pull or \
                 --insecure-registry HOST allow that",
            ),
            Some(Failure::Certificate) => Some(
                "--registry-certificate HOST=FILE trusts another certificate, \
                 --skip-tls-verify-registry HOST does without",
            ),
            _ => None,
        };
        Error::Exchange {
            what: what.to_owned(),
            hint,
            source: Box::new(source),
        }
    }

    /// Makes an error of an answer, whose body it reads.
    pub(super) fn refused(what: &str, response: Response, credentials: &str) -> Error {
        let status = response.status;
        let again = response.again();
        let url = net::redacted(&response.url);
        let body = match response.bytes(MAX_BODY) {
            Ok(mut body) => {
                body.truncate(MAX_BODY as usize);
                body
            }
            Err(net::Error::Cancelled) => return Error::Cancelled,
            Err(_) => Vec::new(),
        };
        let errors = errors(&body);
        let text = if errors.is_empty() {
            first_words(&body)
        } else {
            String::new()
        };
        Error::Refused(Box::new(Refused {
            what: what.to_owned(),
            url,
            status,
            hint: hint(status),
            errors,
            text,
            credentials: credentials.to_owned(),
            again,
        }))
    }
}

impl Temporary for Error {
    fn again(&self) -> Option<Again> {
        match self {
            Error::Refused(refused) => refused.again,
            Error::Exchange { source, .. } => source.again(),
            _ => None,
        }
    }

    fn cancelled() -> Error {
        Error::Cancelled
    }
}

fn hint(status: u16) -> Option<&'static str> {
    Some(match status {
        401 => "log in to the registry, or check the user and the password",
        403 => "the account may not do this here",
        404 => "check the name; some registries say so too where one may not look",
        413 => "the registry, or a proxy before it, takes no body of this size",
        _ => return None,
    })
}

/// Reads the registry's own errors (OCI distribution specification, "Error Codes").
fn errors(body: &[u8]) -> Vec<(String, String)> {
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: serde_json::Value,
        #[serde(default)]
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct All {
        #[serde(default)]
        errors: Vec<One>,
    }
    let Ok(all) = serde_json::from_slice::<All>(body) else {
        return Vec::new();
    };
    all.errors
        .into_iter()
        .take(8)
        .map(|one| {
            let code = match one.code {
                serde_json::Value::String(code) => code,
                serde_json::Value::Null => "error".into(),
                other => other.to_string(),
            };
            (
                first_words(code.as_bytes()),
                first_words(one.message.unwrap_or_default().as_bytes()),
            )
        })
        .collect()
}

/// Gives the beginning of a text in one line and without control characters.
fn first_words(body: &[u8]) -> String {
    const MANY: usize = 200;
    let text = String::from_utf8_lossy(body.get(..4 * MANY).unwrap_or(body));
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        if out.chars().count() > MANY {
            out = out.chars().take(MANY).collect();
            out.push_str(" ...");
            break;
        }
    }
    out
}
