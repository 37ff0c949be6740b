//! One HTTP client: TLS, proxies, retry, redaction.
//!
//! [`Client`] is blocking for its callers and has a small tokio runtime of its own behind it, the
//! only one of the program. It speaks HTTP/1.1 over pooled connections: one connection an exchange
//! moves large bodies faster than HTTP/2's flow control does. Redirects are followed here and not
//! by the library beneath, so that neither credentials nor a client certificate reach another host.
//! Libraries with requests of their own have them carried ([`Carried`]) over the same connections.
//! A [`Cancel`](crate::sys::Cancel) ends every exchange and every wait at once.

mod body;
mod carry;
mod client;
mod error;
mod proxy;
mod redact;
mod retry;
mod tls;

pub use body::{BodyReader, Upload};
pub use carry::{Answered, Carried, Incoming};
pub use client::{Client, Exchange, Notice, Request, Response, Settings, trusts};
pub use error::{Error, Failure, chain};
pub use redact::redacted;
pub use reqwest::header;
pub use reqwest::{Method, StatusCode};
pub use retry::{Again, Attempts, Retry, Temporary};
pub use tls::{SystemRoots, Tls, Verify};
pub use url::Url;

#[cfg(test)]
mod tests;
