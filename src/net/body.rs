use super::client::Inner;
use super::error::{Error, Failure, explain};
use super::redacted;
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What is sent with a request.
pub enum Upload<'a> {
    /// Nothing.
    Nothing,
    /// A few bytes.
    Bytes(Bytes),
    /// Part of a file, in large pieces.
    File {
        /// The file.
        path: &'a Path,
        /// Where the part begins.
        offset: u64,
        /// How long it is.
        length: u64,
        /// Is told the bytes of each piece when it is handed to the connection.
        sent: &'a mut dyn FnMut(u64),
    },
}

/// A response's body, as it comes.
///
/// A task beside reads ahead by a few pieces; dropping the reader ends it.
pub struct BodyReader {
    inner: Arc<Inner>,
    pieces: mpsc::Receiver<Result<Bytes, Error>>,
    current: Bytes,
}

/// How many pieces are read ahead; one is at most some 400 KiB.
const AHEAD: usize = 8;

impl BodyReader {
    pub(super) fn new(
        inner: Arc<Inner>,
        response: reqwest::Response,
        method: String,
        hold: Option<mpsc::Sender<io::Result<Bytes>>>,
    ) -> BodyReader {
        BodyReader {
            pieces: pieces(&inner, response, method, hold),
            inner,
            current: Bytes::new(),
        }
    }

    /// Gives the next piece, or none at the end.
    pub fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if self.inner.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        if !self.current.is_empty() {
            return Ok(Some(std::mem::take(&mut self.current)));
        }
        self.pieces.blocking_recv().transpose()
    }
}

/// Starts the task that reads a body.
pub(super) fn pieces(
    inner: &Arc<Inner>,
    response: reqwest::Response,
    method: String,
    hold: Option<mpsc::Sender<io::Result<Bytes>>>,
) -> mpsc::Receiver<Result<Bytes, Error>> {
    let (give, pieces) = mpsc::channel(AHEAD);
    let ended = inner.ended();
    let mut body = Body::new(inner, response, method);
    inner.spawn(async move {
        let _hold = hold;
        tokio::pin!(ended);
        loop {
            let piece = tokio::select! {
                biased;
                () = &mut ended => Err(Error::Cancelled),
                piece = body.next() => match piece.transpose() {
                    Some(piece) => piece,
                    None => return,
                },
            };
            let last = piece.is_err();
            if give.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    pieces
}

/// A body while it is read, that has to come at some pace. The time that its reader takes is not
/// counted.
pub(super) struct Body {
    response: reqwest::Response,
    method: String,
    idle: Duration,
    least: u64,
    /// What has come, and how long it was waited for, since it was last as much as it has to be.
    came: u64,
    waited: Duration,
}

impl Body {
    pub(super) fn new(inner: &Inner, response: reqwest::Response, method: String) -> Body {
        Body {
            response,
            method,
            idle: inner.settings.idle,
            least: inner.settings.least,
            came: 0,
            waited: Duration::ZERO,
        }
    }

    /// Gives the next piece, or none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let start = Instant::now();
        let left = self.idle.saturating_sub(self.waited);
        let piece = match tokio::time::timeout(left, self.response.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(e)) => {
                let (failure, why) = explain(e);
                return Err(self.failed(failure, why));
            }
            Err(_) => {
                let seconds = self.idle.as_secs();
                let why = match self.came {
                    0 => format!("nothing came for {seconds} s"),
                    came => format!("only {came} bytes came in {seconds} s"),
                };
                return Err(self.failed(Failure::Timeout(self.idle), why));
            }
        };
        self.came += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        self.waited += start.elapsed();
        if self.came >= self.least {
            (self.came, self.waited) = (0, Duration::ZERO);
        }
        Ok(piece)
    }

    fn failed(&self, failure: Failure, why: String) -> Error {
        Error::Exchange {
            method: self.method.clone(),
            url: redacted(self.response.url()),
            failure,
            why,
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.piece().map_err(io::Error::other)? {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
