//! Blobs and manifests to a registry.

use super::host::{Answer, Body, Call, Host, lock, scope};
use super::{Direction, Error, Inner, Pushed};
use crate::net::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName};
use crate::net::{Exchange, Failure, Method, Temporary, Url};
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::Span;
use crate::store::UploadTurn;
use bytes::Bytes;
use std::cell::{Cell, OnceCell};
use std::io;
use std::path::{Path, PathBuf};

const OCTETS: &str = "application/octet-stream";

/// The sizes of pieces that an upload is cut into when it is refused whole, the first first.
const PIECES: [u64; 3] = [16 << 20, 4 << 20, 1 << 20];

/// One repository that is pushed to.
struct Target<'a> {
    inner: &'a Inner,
    host: &'a Host,
    image: &'a Reference,
    what: &'a str,
}

impl Target<'_> {
    fn call(
        &self,
        method: Method,
        url: Url,
        headers: Vec<(HeaderName, String)>,
        body: Body<'_>,
    ) -> Result<Answer, Error> {
        self.scoped(method, url, headers, body, None, Exchange::Usual)
    }

    fn scoped(
        &self,
        method: Method,
        url: Url,
        headers: Vec<(HeaderName, String)>,
        body: Body<'_>,
        from: Option<&Reference>,
        exchange: Exchange,
    ) -> Result<Answer, Error> {
        let mut scopes = vec![scope(&self.image.repository, "pull,push")];
        scopes.extend(from.map(|from| scope(&from.repository, "pull")));
        self.host.call(
            &self.inner.client,
            &self.inner.credentials,
            &Call {
                what: self.what,
                method,
                url,
                headers,
                body,
                repository: &self.image.repository,
                scopes,
                exchange,
            },
        )
    }

    fn url(&self, rest: &str) -> Result<Url, Error> {
        let path = format!("/v2/{}/{rest}", self.image.repository);
        self.host.url(&self.inner.client, &path)
    }

    fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = self.call(Method::HEAD, url, Vec::new(), Body::Nothing)?;
        match answer.response.status {
            200 => Ok(true),
            404 | 405 => Ok(false),
            _ => Err(answer.refused(self.what)),
        }
    }

    /// Starts an upload, or has the blob mounted.
    fn start(&self, mount: Option<(&Digest, &Reference)>) -> Result<Start, Error> {
        let mut url = self.url("blobs/uploads/")?;
        if let Some((digest, from)) = mount {
            url.query_pairs_mut()
                .append_pair("mount", &digest.to_string())
                .append_pair("from", &from.repository);
        }
        let from = mount.map(|(_, from)| from);
        let answer = self.scoped(
            Method::POST,
            url,
            Vec::new(),
            Body::Nothing,
            from,
            Exchange::Usual,
        )?;
        let response = &answer.response;
        match response.status {
            201 if mount.is_some() => {
                answer.response.discard();
                Ok(Start::Mounted)
            }
            202 => {
                let to = self.host.location(response).ok_or_else(|| {
                    Error::content(self.what, "the registry does not say where the upload goes")
                })?;
                let least = response
                    .header("oci-chunk-min-length")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0);
                answer.response.discard();
                Ok(Start::Upload(to, least))
            }
            _ => Err(answer.refused(self.what)),
        }
    }

    /// Has a blob mounted from another repository, where that may be done.
    fn mounts(&self, digest: &Digest, from: &Reference) -> Result<bool, Error> {
        match self.start(Some((digest, from))) {
            Ok(Start::Mounted) => Ok(true),
            // The file may be long in coming, and no upload waits for ever.
            Ok(Start::Upload(upload, _)) => {
                self.abandon(upload);
                Ok(false)
            }
            // What may not be mounted can still be uploaded.
            Err(e) if !e.is_temporary() && e.status().is_some() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Tells the registry that an upload will not be finished. It cleans up by itself, only later,
    /// so trouble does not matter.
    fn abandon(&self, upload: Url) {
        let left = self.scoped(
            Method::DELETE,
            upload,
            Vec::new(),
            Body::Nothing,
            None,
            Exchange::Farewell,
        );
        if let Ok(answer) = left {
            answer.response.discard();
        }
    }

    /// Sends the blob in one request.
    fn whole(&self, upload: &Url, source: &Source<'_>) -> Result<(), Error> {
        let answer = self.call(
            Method::PUT,
            finish(upload, &source.digest),
            vec![(CONTENT_TYPE, OCTETS.to_owned())],
            source.part(0, source.size),
        )?;
        self.finished(answer)
    }

    /// Sends the blob in pieces; keeps `upload` at where the next one goes.
    fn pieces(&self, upload: &mut Url, source: &Source<'_>, piece: u64) -> Result<(), Error> {
        let mut at = 0;
        while at < source.size {
            let length = piece.min(source.size - at);
            let answer = self.call(
                Method::PATCH,
                upload.clone(),
                vec![
                    (CONTENT_TYPE, OCTETS.to_owned()),
                    (CONTENT_RANGE, format!("{at}-{}", at + length - 1)),
                ],
                source.part(at, length),
            )?;
            if !matches!(answer.response.status, 201 | 202 | 204) {
                return Err(answer.refused(self.what));
            }
            if let Some(to) = self.host.location(&answer.response) {
                *upload = to;
            }
            answer.response.discard();
            at += length;
        }
        let to = finish(upload, &source.digest);
        let answer = self.call(Method::PUT, to, Vec::new(), Body::Nothing)?;
        self.finished(answer)
    }

    fn finished(&self, answer: Answer) -> Result<(), Error> {
        match answer.response.status {
            200 | 201 | 204 => {
                answer.response.discard();
                Ok(())
            }
            _ => Err(answer.refused(self.what)),
        }
    }
}

enum Start {
    Mounted,
    /// Where the upload goes, and the least size of its pieces.
    Upload(Url, u64),
}

/// A blob in a file.
struct Source<'a> {
    path: &'a Path,
    digest: Digest,
    size: u64,
    reached: &'a dyn Fn(u64),
}

impl Source<'_> {
    fn part(&self, offset: u64, length: u64) -> Body<'_> {
        Body::File {
            path: self.path,
            offset,
            length,
            reached: self.reached,
        }
    }
}

fn finish(upload: &Url, digest: &Digest) -> Url {
    let mut to = upload.clone();
    to.query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    to
}

/// Sees to it that a repository has a blob.
pub(super) fn blob(
    inner: &Inner,
    image: &Reference,
    blob: &Descriptor,
    file: &dyn Fn() -> io::Result<PathBuf>,
    from: Option<&Reference>,
    span: &Span,
) -> Result<Pushed, Error> {
    let flight = inner.flight(image, &blob.digest);
    // Whoever asks for the same blob waits here for the one that pushes it.
    let mut there = lock(&flight);
    if *there {
        return Ok(Pushed::Existed);
    }
    let what = format!("push blob {} to {}", blob.digest, image.name());
    let host = inner.host(&image.registry, Direction::Push)?;
    let target = Target {
        inner,
        host: &host,
        image,
        what: &what,
    };
    // A blob that is sent twice is not shown as done twice.
    let shown = Cell::new(0);
    let reached = |at: u64| {
        if at > shown.get() {
            span.advance(at - shown.replace(at));
        }
    };
    let path: OnceCell<PathBuf> = OnceCell::new();
    let from =
        from.filter(|from| from.registry == image.registry && from.repository != image.repository);
    // Survives attempts: which of `PIECES`, none while the blob goes whole.
    let mut cut_into: Option<usize> = None;
    let pushed = inner.client.retry(inner.push_retry, |failed| {
        if target.has(&blob.digest)? {
            return Ok(Pushed::Existed);
        }
        // Other builds may be about to send the same.
        let turn = inner.store.get();
        let turn =
            turn.and_then(|store| store.upload_turn(&image.registry, &blob.digest, &inner.cancel));
        let sent_to = turn.as_ref().and_then(UploadTurn::sent_to);
        if sent_to.is_some() && target.has(&blob.digest)? {
            return Ok(Pushed::Existed);
        }
        let done = |pushed| {
            if let Some(turn) = &turn {
                turn.note(&image.repository);
            }
            Ok(pushed)
        };
        let other = sent_to.map(|repository| Reference {
            repository,
            ..image.clone()
        });
        let other = other.filter(|other| {
            let is_from = from.is_some_and(|from| from.repository == other.repository);
            other.repository != image.repository && !is_from
        });
        for from in from.into_iter().chain(&other).filter(|_| failed == 0) {
            if target.mounts(&blob.digest, from)? {
                return done(Pushed::Mounted);
            }
        }
        let path = match path.get() {
            Some(path) => path,
            None => {
                let found = file().map_err(|e| Error::content(&what, e.to_string()))?;
                path.get_or_init(|| found)
            }
        };
        let (mut upload, least) = match target.start(None)? {
            Start::Mounted => return Ok(Pushed::Mounted),
            Start::Upload(upload, least) => (upload, least),
        };
        let source = Source {
            path,
            digest: blob.digest,
            size: blob.size,
            reached: &reached,
        };
        loop {
            let sent = match cut_into.and_then(|at| PIECES.get(at)) {
                None => target.whole(&upload, &source),
                Some(&piece) => target.pieces(&mut upload, &source, piece.max(least)),
            };
            let error = match sent {
                Ok(()) => return done(Pushed::Uploaded),
                Err(error) => error,
            };
            let next = cut_into.map_or(0, |at| at + 1);
            if error.status() == Some(413) && next < PIECES.len() {
                cut_into = Some(next);
                target.abandon(upload);
                match target.start(None)? {
                    Start::Upload(to, _) => upload = to,
                    Start::Mounted => return Ok(Pushed::Mounted),
                }
                continue;
            }
            // A proxy that finds a body too large may hang up before its answer gets through.
            let hung_up = matches!(
                &error,
                Error::Exchange { source, .. } if source.failure() == Some(Failure::Cut)
            );
            if hung_up && failed > 0 && blob.size > PIECES[0] {
                cut_into.get_or_insert(0);
            }
            if !error.is_temporary() {
                target.abandon(upload);
            }
            return Err(error);
        }
    })?;
    *there = true;
    Ok(pushed)
}

/// Checks that the credentials may push to a repository.
pub(super) fn check(inner: &Inner, image: &Reference) -> Result<(), Error> {
    let name = image.name();
    if lock(&inner.checked).contains(&name) {
        return Ok(());
    }
    let what = format!("check that {name} can be pushed to");
    let host = inner.host(&image.registry, Direction::Push)?;
    let target = Target {
        inner,
        host: &host,
        image,
        what: &what,
    };
    let started = inner.client.retry(0, |_| target.start(None))?;
    if let Start::Upload(upload, _) = started {
        target.abandon(upload);
    }
    lock(&inner.checked).insert(name);
    Ok(())
}

/// How often a manifest is put whose blobs the registry has and does not know.
const UNSETTLED: u32 = 4;

/// Has a manifest put again that was refused for blobs that are there: some registries do not see one
/// for a moment while somebody else puts the same one into the same repository.
fn unsettled(error: Error, failed: u32) -> Error {
    match error {
        Error::Refused(mut refused) if failed + 1 < UNSETTLED => {
            let codes = ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "DIGEST_INVALID"];
            let mut errors = refused.errors.iter();
            if errors.any(|(code, _)| codes.contains(&code.as_str())) {
                refused.again.get_or_insert_default();
            }
            Error::Refused(refused)
        }
        other => other,
    }
}

/// Puts a manifest.
pub(super) fn manifest(
    inner: &Inner,
    image: &Reference,
    media_type: &str,
    bytes: &[u8],
) -> Result<Digest, Error> {
    let digest = Digest::of(bytes);
    let (selector, name) = match &image.tag {
        Some(tag) => (tag.clone(), format!("{}:{tag}", image.name())),
        None => (digest.to_string(), format!("{}@{digest}", image.name())),
    };
    let what = format!("push manifest {name}");
    if let (None, Some(wanted)) = (&image.tag, image.digest)
        && wanted != digest
    {
        return Err(Error::content(
            &what,
            format!("the image has another digest than the one it is to be named by, {wanted}"),
        ));
    }
    let host = inner.host(&image.registry, Direction::Push)?;
    let target = Target {
        inner,
        host: &host,
        image,
        what: &what,
    };
    let body = Bytes::copy_from_slice(bytes);
    let put = inner.client.retry(inner.push_retry, |failed| {
        let answer = target.call(
            Method::PUT,
            target.url(&format!("manifests/{selector}"))?,
            vec![(CONTENT_TYPE, media_type.to_owned())],
            Body::Bytes(body.clone()),
        )?;
        if !matches!(answer.response.status, 200 | 201 | 202 | 204) {
            return Err(unsettled(answer.refused(&what), failed));
        }
        let claimed: Option<Digest> = answer
            .response
            .header("docker-content-digest")
            .and_then(|text| text.parse().ok());
        answer.response.discard();
        match claimed {
            Some(claimed) if claimed != digest => Err(Error::content(
                &what,
                format!("the registry keeps it as {claimed}, not as {digest}"),
            )),
            _ => Ok(()),
        }
    });
    if put.is_err() {
        // Blobs may have gone in the meantime; the next push has to look.
        inner.forget_flights(image);
    }
    put.map(|()| digest)
}
