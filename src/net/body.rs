use super::client::Inner;
use super::error::{Error, Failure, explain};
use super::redacted;
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
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
    mut response: reqwest::Response,
    method: String,
    hold: Option<mpsc::Sender<io::Result<Bytes>>>,
) -> mpsc::Receiver<Result<Bytes, Error>> {
    let (give, pieces) = mpsc::channel(AHEAD);
    let idle = inner.settings.idle;
    let ended = inner.ended();
    inner.spawn(async move {
        let _hold = hold;
        tokio::pin!(ended);
        loop {
            let piece = tokio::select! {
                biased;
                () = &mut ended => Err(Error::Cancelled),
                piece = tokio::time::timeout(idle, response.chunk()) => match piece {
                    Ok(Ok(Some(bytes))) => Ok(bytes),
                    Ok(Ok(None)) => return,
                    Ok(Err(e)) => {
                        let (failure, why) = explain(e);
                        Err(failed(&method, &response, failure, why))
                    }
                    Err(_) => Err(failed(
                        &method,
                        &response,
                        Failure::Timeout(idle),
                        format!("nothing came for {} s", idle.as_secs()),
                    )),
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

fn failed(method: &str, response: &reqwest::Response, failure: Failure, why: String) -> Error {
    Error::Exchange {
        method: method.to_owned(),
        url: redacted(response.url()),
        failure,
        why,
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
