//! Files at URLs.

use super::{Error, Fetcher, Input, Opened, archive};
use crate::context::Fetched;
use crate::fs::{Meta, RelPath, Source, Time};
use crate::net::header::{AUTHORIZATION, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use crate::net::{self, Attempts, BodyReader, Client, Method, Response, Temporary, Tls, Url};
use crate::oci::{Digest, Sha256};
use crate::progress::Span;
use crate::request::unescaped;
use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// So many bytes are progress, after which failures are counted anew.
const PROGRESS: u64 = 1 << 20;
/// The most times one body is resumed.
const MAX_RESUMED: u32 = 100;
/// The name of the file that holds a body while nobody needs to know another.
const FILE: &str = "file";

/// A file that was fetched.
pub struct Downloaded {
    /// What it is called.
    pub name: Vec<u8>,
    /// Its metadata.
    pub meta: Meta,
    dir: Arc<OwnedFd>,
    place: RelPath,
}

impl Downloaded {
    /// Gives it as `copy` takes it.
    pub(super) fn fetched(&self) -> Fetched {
        Fetched::File {
            name: self.name.clone(),
            meta: self.meta.clone(),
            source: self.source(),
        }
    }

    pub(super) fn source(&self) -> Source {
        Source::File {
            dir: Arc::clone(&self.dir),
            path: self.place.clone(),
        }
    }
}

impl Fetcher<'_> {
    /// Fetches a file into a directory and verifies it. Its mode and time are as BuildKit has them:
    /// 0600, and what the server says or else 1970.
    pub(super) fn file(
        &self,
        url: &str,
        checksum: Option<&Digest>,
        room: &Path,
        span: &Span,
    ) -> Result<Downloaded, Error> {
        let at = self.place(url)?;
        let path = room.join(FILE);
        let got = self.client.retry(0, |_| {
            let mut body = Body::open(self.client, &at)?;
            let mut file = File::create(&path).map_err(|e| Error::write(&at.shown, room, e))?;
            let time = body.time;
            let (digest, size) = keep(&mut body, &mut file, &at, room, span)?;
            Ok((digest, size, time))
        });
        let verified = got.and_then(|(digest, size, time)| match checksum {
            Some(wanted) if *wanted != digest => Err(Error::Checksum {
                url: at.shown.clone(),
                wanted: *wanted,
                got: digest,
            }),
            _ => Ok((size, time)),
        });
        let (size, time) = verified.inspect_err(|_| {
            let _ = std::fs::remove_file(&path);
        })?;
        Ok(Downloaded {
            name: name_of(&at.url),
            meta: Meta::file(0o600, size, time),
            dir: Arc::new(super::open_dir(room)?),
            place: RelPath::root().join(FILE.as_bytes()),
        })
    }

    /// Unpacks an archive at a URL as it comes.
    pub(super) fn unpack_url(&self, url: &str, room: &Path, span: &Span) -> Result<Opened, Error> {
        let at = self.place(url)?;
        let mut attempt = 0;
        self.client.retry(0, |_| {
            attempt += 1;
            let room = room.join(attempt.to_string());
            super::make_dir(&room)?;
            let body = Body::open(self.client, &at)?;
            let time = body.time;
            let unpacked = archive::unpack(body, &at.shown, &room, time, span, self.cancel);
            unpacked.inspect_err(|_| {
                let _ = crate::store::remove_tree(&room);
            })
        })
    }

    pub(super) fn unpack(
        &self,
        input: Input<'_>,
        of: &str,
        room: &Path,
        span: &Span,
    ) -> Result<Opened, Error> {
        archive::unpack(input, of, room, Time::default(), span, self.cancel)
    }

    /// Fetches a small text whole.
    pub fn text(&self, url: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let at = self.place(url)?;
        self.client.retry(0, |_| {
            let mut body = Body::open(self.client, &at)?;
            let mut out = Vec::new();
            let read = body.by_ref().take(limit + 1).read_to_end(&mut out);
            read.map_err(|e| at.failed(e))?;
            match out.len() as u64 > limit {
                true => Err(Error::Url {
                    url: at.shown.clone(),
                    why: format!("it has more than {limit} bytes"),
                }),
                false => Ok(out),
            }
        })
    }

    fn place(&self, text: &str) -> Result<Place, Error> {
        let wrong = |url: String, why: String| Error::Url { url, why };
        let url = Url::parse(text)
            .map_err(|e| wrong("(a URL that cannot be read)".into(), e.to_string()))?;
        let shown = net::redacted(&url);
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong(shown, "it is not at http or https".into()));
        }
        let mut headers = HeaderMap::new();
        if let Some(value) = self.authorization(&url)? {
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Place {
            url,
            shown,
            headers,
        })
    }

    /// Gives what the request's secrets show to a host, as BuildKit names them.
    fn authorization(&self, url: &Url) -> Result<Option<HeaderValue>, Error> {
        let host = url.host_str().unwrap_or_default();
        let header = self.secret(&format!("HTTP_AUTH_HEADER_{host}"))?;
        let token = self.secret(&format!("HTTP_AUTH_TOKEN_{host}"))?;
        let value = match (token, header) {
            // Of both, the token is what BuildKit sends.
            (Some(token), _) => [b"Bearer ", token.0.trim_ascii()].concat(),
            (None, Some(header)) => header.0.trim_ascii().to_vec(),
            (None, None) => return Ok(None),
        };
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| Error::Url {
            url: net::redacted(url),
            why: format!("the secret for {host} cannot be sent: it has control characters"),
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Where something is fetched from.
struct Place {
    url: Url,
    shown: String,
    headers: HeaderMap,
}

impl Place {
    /// Makes an error of what happened while a body was read.
    fn failed(&self, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(own) => own,
            Err(error) => Error::Url {
                url: self.shown.clone(),
                why: error.to_string(),
            },
        }
    }
}

/// Writes a body to a file; gives its digest and size.
fn keep(
    body: &mut Body<'_>,
    file: &mut File,
    at: &Place,
    room: &Path,
    span: &Span,
) -> Result<(Digest, u64), Error> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => return Ok((hash.finish(), size)),
            Ok(n) => n,
            Err(error) => return Err(at.failed(error)),
        };
        hash.update(&buffer[..n]);
        file.write_all(&buffer[..n])
            .map_err(|e| Error::write(&at.shown, room, e))?;
        size += n as u64;
        span.advance(n as u64);
    }
}

/// A body as it comes, whose transfer goes on where it was cut off, and which is decompressed where
/// the server says that it compressed it for the way.
struct Body<'a> {
    /// When the server says it was changed; 1970 where it does not.
    time: Time,
    content: Content<'a>,
}

enum Content<'a> {
    Plain(Transfer<'a>),
    Gzip(Box<MultiGzDecoder<Transfer<'a>>>),
}

impl<'a> Body<'a> {
    fn open(client: &'a Client, at: &'a Place) -> Result<Body<'a>, Error> {
        let (transfer, time, packed) = Transfer::open(client, at)?;
        Ok(Body {
            time,
            content: match packed {
                true => Content::Gzip(Box::new(MultiGzDecoder::new(transfer))),
                false => Content::Plain(transfer),
            },
        })
    }
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Content::Plain(transfer) => transfer.read(out),
            Content::Gzip(decoder) => decoder.read(out),
        }
    }
}

struct Transfer<'a> {
    client: &'a Client,
    at: &'a Place,
    body: BodyReader,
    rest: Bytes,
    /// Bytes that came so far.
    offset: u64,
    /// What names these very bytes at the server.
    tag: Option<String>,
    /// Those since `mark`.
    attempts: Attempts,
    mark: u64,
    resumed: u32,
}

impl<'a> Transfer<'a> {
    fn open(client: &'a Client, at: &'a Place) -> Result<(Transfer<'a>, Time, bool), Error> {
        let response = ask(client, at, HeaderMap::new())?;
        if response.status != 200 {
            return Err(refused(at, response));
        }
        let time = response
            .header("last-modified")
            .and_then(|text| jiff::fmt::rfc2822::parse(text).ok())
            .map(|time| Time {
                secs: time.timestamp().as_second(),
                nanos: 0,
            });
        let packed = response
            .header("content-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
        let transfer = Transfer {
            client,
            at,
            tag: tag_of(&response),
            body: response.reader(),
            rest: Bytes::new(),
            offset: 0,
            attempts: Attempts::default(),
            mark: 0,
            resumed: 0,
        };
        Ok((transfer, time.unwrap_or_default(), packed))
    }

    /// Goes on after a failure, or gives the reason why not.
    fn resume(&mut self, mut error: Error) -> Result<(), Error> {
        let Some(tag) = self.tag.clone() else {
            return Err(error);
        };
        if self.offset - self.mark >= PROGRESS {
            (self.mark, self.attempts) = (self.offset, Attempts::default());
        }
        loop {
            let Some(again) = error.again().filter(|_| self.resumed < MAX_RESUMED) else {
                return Err(error);
            };
            let retry = self.client.settings().retry;
            let Some(wait) = self.attempts.next(&retry, &again) else {
                // Whoever fetches it all again has waited as long too.
                return Err(match error {
                    Error::Exchange(source) => Error::exchange(source.after(self.attempts.waited)),
                    other => other,
                });
            };
            self.resumed += 1;
            self.client.sleep(wait).map_err(Error::exchange)?;
            match self.ask_for_rest(&tag) {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
    }

    fn ask_for_rest(&mut self, tag: &str) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        let range = format!("bytes={}-", self.offset);
        for (name, value) in [(RANGE, range.as_str()), (IF_RANGE, tag)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        let response = ask(self.client, self.at, headers)?;
        let starts = |response: &Response| {
            let range = response.header("content-range")?.strip_prefix("bytes ")?;
            range.split('-').next()?.parse::<u64>().ok()
        };
        let changed = || Error::Changed {
            url: self.at.shown.clone(),
        };
        let mut known = match response.status {
            206 if starts(&response) == Some(self.offset) => 0,
            206 => return Err(changed()),
            // It begins anew: the same again, or something else.
            200 if tag_of(&response).as_deref() == Some(tag) => self.offset,
            200 => return Err(changed()),
            _ => return Err(refused(self.at, response)),
        };
        let mut body = response.reader();
        while known > 0 {
            let piece = body.piece().map_err(Error::exchange)?;
            let mut piece = piece.ok_or_else(changed)?;
            let over = known.min(piece.len() as u64);
            piece.advance(over as usize);
            known -= over;
            self.rest = piece;
        }
        self.offset += self.rest.len() as u64;
        self.body = body;
        Ok(())
    }
}

impl Read for Transfer<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.body.piece() {
                Ok(Some(piece)) => {
                    self.offset += piece.len() as u64;
                    self.rest = piece;
                }
                Ok(None) => return Ok(0),
                Err(error) => self
                    .resume(Error::exchange(error))
                    .map_err(io::Error::other)?,
            }
        }
        let n = out.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}

/// Gives what names the very bytes of an answer: a weak tag does not vouch for single ones.
fn tag_of(response: &Response) -> Option<String> {
    response
        .header("etag")
        .filter(|tag| !tag.starts_with("W/"))
        .map(str::to_owned)
}

fn ask(client: &Client, at: &Place, more: HeaderMap) -> Result<Response, Error> {
    let tls = Tls::default();
    let mut request = net::Request::new(Method::GET, at.url.clone(), &tls);
    request.headers = at.headers.clone();
    request.headers.extend(more);
    client.send(request).map_err(Error::exchange)
}

fn refused(at: &Place, response: Response) -> Error {
    let asked = at.shown.clone();
    let from = net::redacted(&response.url);
    let refused = Error::Refused {
        url: match from == asked || at.url.username() != "" {
            true => asked,
            false => format!("{asked} (at {from})"),
        },
        status: response.status_words(),
        again: response.again(),
    };
    response.discard();
    refused
}

/// Gives what a file at a URL is called, as BuildKit finds it: the last part of the path.
fn name_of(url: &Url) -> Vec<u8> {
    let path = unescaped(url.path()).unwrap_or_default();
    let last = path.trim_end_matches('/').rsplit('/').next();
    let name = match last.unwrap_or_default() {
        "" => "__unnamed__",
        name => name.trim(),
    };
    let odd = !RelPath::is_name(name.as_bytes()) || name.chars().any(char::is_control);
    match odd {
        true => b"download".to_vec(),
        false => name.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_what_buildkit_calls_them() {
        let table = [
            ("http://h/a/b.txt", "b.txt"),
            ("http://h/a/b.txt?x=/y#z", "b.txt"),
            ("http://h/a/", "a"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/a%20b", "a b"),
            ("http://h/%20a%20", "a"),
            ("http://h/a%2Fb", "b"),
            ("http://h/a/%2e%2e", "__unnamed__"),
            ("http://h/x%2F..", "download"),
            ("http://h/a%00b", "download"),
            ("http://h/a%0Ab", "download"),
            ("http://h/%e8%b3%87.txt", "\u{8cc7}.txt"),
            ("http://h/%ff", "__unnamed__"),
        ];
        for (url, want) in table {
            let name = name_of(&Url::parse(url).unwrap());
            assert_eq!(String::from_utf8_lossy(&name), want, "{url}");
        }
    }
}
