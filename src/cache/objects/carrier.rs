//! The requests of the library for object stores, over the program's own HTTP client.

use crate::net::{
    Answered, Carried, Client, Error as NetError, Failure, Incoming, Tls, Url, Verify,
};
use crate::request::RegistryOptions;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Carries requests, with the proxies and authorities that hold for registries.
#[derive(Clone)]
pub(super) struct Carrier {
    client: Client,
    /// Authorities by host.
    certificates: BTreeMap<String, PathBuf>,
    /// Hosts whose certificates are not checked.
    unchecked: Vec<String>,
}

impl Carrier {
    pub(super) fn new(client: &Client, options: &RegistryOptions) -> Carrier {
        Carrier {
            client: client.clone(),
            certificates: options.certificates.clone(),
            unchecked: options.skip_tls.clone(),
        }
    }

    fn tls(&self, url: &Url) -> Tls {
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        Tls {
            verify: match self.unchecked.contains(&host) {
                true => Verify::Skip,
                false => Verify::Full,
            },
            roots: self.certificates.get(&host).into_iter().cloned().collect(),
            identity: None,
        }
    }

    async fn carry(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url = Url::parse(&head.uri.to_string());
        let url = url.map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        let tls = self.tls(&url);
        let answered = self.client.carry(Carried {
            method: head.method,
            url,
            tls: &tls,
            headers: head.headers,
            body: collect(body),
        });
        let answered = answered.await.map_err(http_error)?;
        if matches!(answered.status.as_u16(), 429 | 503) {
            self.client.heed(&answered).await;
        }
        let Answered {
            status,
            headers,
            body,
        } = answered;
        let mut response = HttpResponse::new(HttpResponseBody::new(Pieces(body)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Carrier")
    }
}

impl HttpConnector for Carrier {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Carrier {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.carry(request))
    }
}

/// Takes a request's body, which is all there.
fn collect(mut body: HttpRequestBody) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut context = Context::from_waker(std::task::Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) {
        out.extend(frame.into_data());
    }
    out
}

/// An answer's body.
struct Pieces(Incoming);

impl Body for Pieces {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let piece = self.0.poll_piece(context);
        piece.map(|piece| Some(piece?.map(Frame::data).map_err(http_error)))
    }
}

/// Says what kind of trouble it was, by which the library goes for another attempt.
fn http_error(error: NetError) -> HttpError {
    let kind = match error.failure() {
        Some(Failure::Connect) => HttpErrorKind::Connect,
        Some(Failure::Timeout(_)) => HttpErrorKind::Timeout,
        Some(Failure::Cut) => HttpErrorKind::Interrupted,
        Some(Failure::Certificate | Failure::Tls | Failure::Protocol) | None => {
            HttpErrorKind::Unknown
        }
    };
    HttpError::new(kind, error)
}
