//! Requests of libraries that bring their own and want somebody to carry them.

use super::body::pieces;
use super::client::{Client, Guard};
use super::error::Error;
use super::tls::Tls;
use super::{Method, redacted};
use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use url::Url;

/// What is handed to a connection at once.
const PIECE: usize = 256 << 10;

/// A request that is carried as it is: nothing is added to it but what HTTP wants, no redirect is
/// followed, and no attempt but one is made.
pub struct Carried<'a> {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// How TLS is spoken.
    pub tls: &'a Tls,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, in pieces.
    pub body: Vec<Bytes>,
}

/// What came for it; any status.
pub struct Answered {
    /// The status code.
    pub status: super::StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Incoming,
}

/// The body of an answer, as it comes.
pub struct Incoming(mpsc::Receiver<Result<Bytes, Error>>);

impl Incoming {
    /// Gives the next piece, or none at the end.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.0.poll_recv(context)
    }
}

impl Client {
    /// Carries a request, with the proxies, authorities and time limits of the settings. It has to be
    /// awaited in [`Client::wait`].
    pub async fn carry(&self, request: Carried<'_>) -> Result<Answered, Error> {
        let inner = &self.0;
        let Carried {
            method,
            url,
            tls,
            mut headers,
            body,
        } = request;
        let pool = inner.pool(&url, tls)?;
        let moved = Arc::new(AtomicU64::new(0));
        let guard = Guard {
            method: method.to_string(),
            url: redacted(&url),
            moved: Arc::clone(&moved),
            patience: inner.settings.answer,
        };
        let length: usize = body.iter().map(Bytes::len).sum();
        if length > 0 || matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut outgoing = pool.request(method.clone(), url).headers(headers);
        if length > 0 {
            let cut = body.into_iter().flat_map(|mut whole| {
                std::iter::from_fn(move || {
                    let piece = whole.split_to(whole.len().min(PIECE));
                    (!piece.is_empty()).then_some(piece)
                })
            });
            let told = cut.map(move |piece| {
                moved.fetch_add(1, Ordering::Relaxed);
                io::Result::Ok(piece)
            });
            outgoing = outgoing.body(reqwest::Body::wrap_stream(futures_util::stream::iter(told)));
        }
        let response = guard.answer(outgoing.send(), inner.ended()).await?;
        Ok(Answered {
            status: response.status(),
            headers: response.headers().clone(),
            body: Incoming(pieces(inner, response, method.to_string(), None)),
        })
    }

    /// Waits for work that carries requests, but not beyond the end of the build.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let ended = self.0.ended();
        self.0.block_on(async move {
            tokio::select! {
                biased;
                () = ended => Err(Error::Cancelled),
                done = work => Ok(done),
            }
        })
    }

    /// Starts work that carries requests and may outlive the caller.
    pub fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(work);
    }

    /// Waits as long as an answer asks for, where it does and all waits may take that long. To be
    /// awaited in [`Client::wait`].
    pub async fn heed(&self, answer: &Answered) {
        let text = |name| answer.headers.get(name).and_then(|v| v.to_str().ok());
        let asked =
            text("retry-after").and_then(|after| super::retry::seconds(after, text("date")));
        if let Some(wait) = asked.filter(|wait| *wait <= self.0.settings.retry.total) {
            tokio::time::sleep(wait).await;
        }
    }
}
