use super::retry::{Again, Temporary};
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What kind of trouble an exchange ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: the name is unknown, nobody listens, no route.
    Connect,
    /// The other side's certificate, or ours, is not accepted.
    Certificate,
    /// The other side does not speak TLS, or none that is spoken here.
    Tls,
    /// Nothing came or went for so long; 0 where that is not known.
    Timeout(Duration),
    /// The connection ended in the middle.
    Cut,
    /// What came is not HTTP.
    Protocol,
}

/// What went wrong beneath HTTP; URLs in it are redacted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// No answer was had.
    #[error("{method} {url}: {why}")]
    Exchange {
        /// The request's method.
        method: String,
        /// The request's URL, redacted.
        url: String,
        /// What kind of trouble.
        failure: Failure,
        /// What the layers beneath say, outermost first.
        why: String,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects {why}")]
    Redirect {
        /// Where the redirect came from, redacted.
        url: String,
        /// Why it is not followed.
        why: String,
    },
    /// A file to be sent, or a certificate or key, could not be read.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("{path} cannot be used for TLS: {why}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A proxy's address cannot be used.
    #[error("proxy `{proxy}` cannot be used: {why}")]
    Proxy {
        /// The address, redacted.
        proxy: String,
        /// Why not.
        why: String,
    },
    /// The client could not be set up.
    #[error("set up the HTTP client: {0}")]
    Setup(String),
}

impl Error {
    /// Gives the kind of trouble of an exchange.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Error::Exchange { failure, .. } => Some(*failure),
            _ => None,
        }
    }
}

impl Error {
    /// Gives the same with the time that was lost by it and by what went before it.
    pub fn after(self, time: Duration) -> Error {
        match self {
            Error::Exchange {
                method,
                url,
                failure: Failure::Timeout(_),
                why,
            } => Error::Exchange {
                method,
                url,
                failure: Failure::Timeout(time),
                why,
            },
            other => other,
        }
    }
}

impl Temporary for Error {
    fn again(&self) -> Option<Again> {
        let stood_still = match self.failure()? {
            Failure::Connect | Failure::Cut => Duration::ZERO,
            Failure::Timeout(time) => time,
            Failure::Certificate | Failure::Tls | Failure::Protocol => return None,
        };
        Some(Again {
            after: None,
            stood_still,
        })
    }

    fn cancelled() -> Error {
        Error::Cancelled
    }
}

/// Says what an error of the library beneath means. The URL is taken out of it first.
pub(super) fn explain(error: reqwest::Error) -> (Failure, String) {
    let (connect, timeout) = (error.is_connect(), error.is_timeout());
    let error = error.without_url();
    let mut kind = if timeout {
        Failure::Timeout(Duration::ZERO)
    } else if connect {
        Failure::Connect
    } else {
        Failure::Cut
    };
    let mut causes: Vec<String> = Vec::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(cause) = next {
        // An `io::Error` around another error hides it from `source`.
        let inner = cause
            .downcast_ref::<io::Error>()
            .and_then(|e| e.get_ref())
            .map(|e| e as &(dyn StdError + 'static));
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            kind = of_tls(tls);
        } else if let Some(e) = cause.downcast_ref::<io::Error>()
            && e.kind() == io::ErrorKind::TimedOut
        {
            kind = Failure::Timeout(Duration::ZERO);
        }
        let text = cause.to_string();
        if text.contains("invalid HTTP") || text.contains("parse") && !connect {
            kind = Failure::Protocol;
        }
        let generic = text.starts_with("error sending request")
            || text.starts_with("client error (")
            || text.starts_with("request or response body error")
            || text.starts_with("error decoding response body");
        if !generic && causes.last() != Some(&text) {
            causes.push(text);
        }
        next = inner.or_else(|| cause.source());
    }
    // Outer messages often end in the inner one.
    let mut why = String::new();
    for cause in causes {
        if why.ends_with(&cause) {
            continue;
        }
        if !why.is_empty() {
            why.push_str(": ");
        }
        why.push_str(&cause);
    }
    if why.is_empty() {
        why.push_str("the connection ended");
    }
    (kind, why)
}

fn of_tls(error: &rustls::Error) -> Failure {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Failure::Certificate
        }
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::AccessDenied,
        ) => Failure::Certificate,
        _ => Failure::Tls,
    }
}

/// Gives an error with its causes, as one sentence.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let text = cause.to_string();
        // Some wrap what they also say.
        if !out.ends_with(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        at = cause.source();
    }
    out
}
