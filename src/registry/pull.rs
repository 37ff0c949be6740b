//! Manifests and blobs from a registry.

use super::host::{Answer, Body, Call, Host, scope};
use super::{Direction, Error, Fetched, Inner};
use crate::net::header::{ACCEPT, HeaderName, IF_RANGE, RANGE};
use crate::net::{self, Attempts, BodyReader, Exchange, Method, Temporary};
use crate::oci::{
    Descriptor, Digest, Document, Index, MAX_MANIFEST, ManifestError, Platform, Reference, media,
};
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::sync::Arc;

/// How deep an index may lie within an index.
const MAX_DEPTH: usize = 3;

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Fetches a manifest, following an index to the platform; gives all on the way, the manifest last.
pub(super) fn manifests(
    inner: &Inner,
    image: &Reference,
    platform: &Platform,
) -> Result<Vec<Fetched>, Error> {
    let mut chain = Vec::new();
    let host = inner.host(&image.registry, Direction::Pull)?;
    let mut selector = image.selector();
    let mut expected = image.digest;
    for _ in 0..=MAX_DEPTH {
        let what = format!("pull manifest {}", named(image, &selector));
        let fetched = inner.client.retry(0, |_| {
            one_manifest(inner, &host, image, &selector, expected, &what)
        })?;
        let Document::Index(index) = &fetched.document else {
            chain.push(fetched);
            return Ok(chain);
        };
        let found = choose(index, platform).map_err(|have| Error::Platform {
            image: image.to_string(),
            wanted: platform.clone(),
            have,
        })?;
        selector = found.digest.to_string();
        expected = Some(found.digest);
        chain.push(fetched);
    }
    Err(Error::content(
        &format!("pull manifest {image}"),
        format!("indexes lie more than {MAX_DEPTH} deep within each other"),
    ))
}

/// Asks what a name stands for.
pub(super) fn digest(inner: &Inner, image: &Reference) -> Result<Option<Digest>, Error> {
    let host = inner.host(&image.registry, Direction::Pull)?;
    let selector = image.selector();
    let what = format!("look up {}", named(image, &selector));
    let path = format!("/v2/{}/manifests/{selector}", image.repository);
    let accept = || vec![(ACCEPT, ACCEPTED.to_owned())];
    let answer = inner.client.retry(0, |_| {
        ask(inner, &host, image, Method::HEAD, &what, &path, accept())
    })?;
    // Whatever else it says, a fetch says it better.
    if answer.response.status != 200 {
        return Ok(None);
    }
    let digest = answer.response.header("docker-content-digest");
    Ok(digest.and_then(|text| text.parse().ok()))
}

fn named(image: &Reference, selector: &str) -> String {
    match selector.contains(':') {
        true => format!("{}@{selector}", image.name()),
        false => format!("{}:{selector}", image.name()),
    }
}

fn one_manifest(
    inner: &Inner,
    host: &Host,
    image: &Reference,
    selector: &str,
    expected: Option<Digest>,
    what: &str,
) -> Result<Fetched, Error> {
    let path = format!("/v2/{}/manifests/{selector}", image.repository);
    let answer = get(
        inner,
        host,
        image,
        what,
        &path,
        vec![(ACCEPT, ACCEPTED.to_owned())],
    )?;
    if answer.response.status != 200 {
        return Err(answer.refused(what));
    }
    let response = answer.response;
    let media_type = response
        .header("content-type")
        .map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
    let claimed: Option<Digest> = response
        .header("docker-content-digest")
        .and_then(|text| text.parse().ok());
    let bytes = response
        .bytes(MAX_MANIFEST)
        .map_err(|e| Error::exchange(what, e))?;
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(Error::content(
            what,
            format!("it is over the bound of {MAX_MANIFEST} bytes"),
        ));
    }
    let digest = Digest::of(&bytes);
    if let Some(wanted) = expected.or(claimed)
        && wanted != digest
    {
        return Err(Error::content(
            what,
            format!("what came has digest {digest}, not {wanted}"),
        ));
    }
    if is_schema_1(&bytes, media_type.as_deref()) {
        return Err(Error::content(
            what,
            "it is in Docker's schema 1, which nobody makes any more and which is not supported; \
             push the image again with a current tool",
        ));
    }
    let document =
        Document::parse(&bytes, media_type.as_deref()).map_err(|source| Error::Manifest {
            what: what.to_owned(),
            source,
        })?;
    let media_type = match &document {
        Document::Manifest(manifest) => manifest.media_type().to_owned(),
        Document::Index(_) => media_type
            .filter(|own| own == media::OCI_INDEX || own == media::DOCKER_LIST)
            .unwrap_or_else(|| media::OCI_INDEX.to_owned()),
    };
    Ok(Fetched {
        descriptor: Descriptor {
            media_type,
            digest,
            size: bytes.len() as u64,
            urls: Vec::new(),
            annotations: Default::default(),
        },
        bytes,
        document,
    })
}

fn is_schema_1(bytes: &[u8], media_type: Option<&str>) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        schema_version: u32,
    }
    media_type.is_some_and(|own| own.starts_with("application/vnd.docker.distribution.manifest.v1"))
        || serde_json::from_slice::<Head>(bytes).is_ok_and(|head| head.schema_version == 1)
}

/// Chooses the entry of an index that serves a platform best: the very variant, then one without
/// a variant, then any that is accepted, then for `arm` the highest variant below. Of equals the
/// first. Where no entry names a platform and there is one only, it is that.
pub fn choose<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, Vec<Platform>> {
    fn arm(p: &Platform) -> Option<u32> {
        match (p.architecture.as_str(), p.variant.as_deref()) {
            ("arm", Some(variant)) => variant.strip_prefix('v')?.parse().ok(),
            ("arm", None) => Some(7),
            _ => None,
        }
    }
    let rank = |own: &Platform| {
        if wanted.accepts(own) {
            if own.variant == wanted.variant {
                return Some(0);
            }
            return Some(if own.variant.is_none() { 1 } else { 2 });
        }
        match (arm(wanted), arm(own)) {
            (Some(able), Some(needs)) if own.os == wanted.os && needs < able => {
                Some(3 + able - needs)
            }
            _ => None,
        }
    };
    let best = index
        .manifests
        .iter()
        .filter_map(|(descriptor, own)| Some((rank(own.as_ref()?)?, descriptor)))
        .min_by_key(|(rank, _)| *rank);
    if let Some((_, found)) = best {
        return Ok(found);
    }
    match index.manifests.as_slice() {
        [(only, None)] => Ok(only),
        // Attestations are listed as images for `unknown/unknown`.
        all => Err(all
            .iter()
            .filter_map(|(_, own)| own.clone())
            .filter(|own| own.os != "unknown")
            .collect()),
    }
}

fn get(
    inner: &Inner,
    host: &Host,
    image: &Reference,
    what: &str,
    path: &str,
    headers: Vec<(HeaderName, String)>,
) -> Result<Answer, Error> {
    ask(inner, host, image, Method::GET, what, path, headers)
}

fn ask(
    inner: &Inner,
    host: &Host,
    image: &Reference,
    method: Method,
    what: &str,
    path: &str,
    headers: Vec<(HeaderName, String)>,
) -> Result<Answer, Error> {
    host.call(
        &inner.client,
        &inner.credentials,
        &Call {
            what,
            method,
            url: host.url(&inner.client, path)?,
            headers,
            body: Body::Nothing,
            repository: &image.repository,
            scopes: vec![scope(&image.repository, "pull")],
            exchange: Exchange::Usual,
        },
    )
}

/// Fetches a small blob whole and verifies it.
pub(super) fn small(
    inner: &Arc<Inner>,
    image: &Reference,
    blob: &Descriptor,
) -> Result<Vec<u8>, Error> {
    let what = blob_named(image, blob);
    if blob.size > MAX_MANIFEST {
        return Err(Error::Manifest {
            what,
            source: ManifestError::Limit(format!(
                "its {} bytes are over the bound of {MAX_MANIFEST}",
                blob.size
            )),
        });
    }
    let mut reader = BlobReader::open(inner, image, blob)?;
    let mut bytes = Vec::new();
    while let Some(piece) = reader.piece()? {
        bytes.extend_from_slice(&piece);
    }
    let digest = Digest::of(&bytes);
    if digest != blob.digest {
        return Err(Error::content(
            &what,
            format!("what came has digest {digest}"),
        ));
    }
    Ok(bytes)
}

fn blob_named(image: &Reference, blob: &Descriptor) -> String {
    format!("pull blob {} of {}", blob.digest, image.name())
}

/// A blob as a stream that goes on where it was cut off. It gives the stated number of bytes or an
/// error; it does not look at the digest, which its reader has to do anyway.
pub(super) struct BlobReader {
    inner: Arc<Inner>,
    host: Arc<Host>,
    image: Reference,
    blob: Descriptor,
    what: String,
    /// Bytes that came so far, `rest` included.
    at: u64,
    rest: Bytes,
    body: Option<BodyReader>,
    /// Names the bytes at the server, so that a later part is of the same.
    tag: Option<String>,
    /// Those since `mark`.
    attempts: Attempts,
    mark: u64,
    resumed: u32,
}

/// So many bytes are progress, after which failures are counted anew.
const PROGRESS: u64 = 1 << 20;

/// The most times one blob is resumed, however much came in between.
const MAX_RESUMED: u32 = 100;

impl BlobReader {
    pub(super) fn open(
        inner: &Arc<Inner>,
        image: &Reference,
        blob: &Descriptor,
    ) -> Result<BlobReader, Error> {
        let mut reader = BlobReader {
            inner: inner.clone(),
            host: inner.host(&image.registry, Direction::Pull)?,
            image: image.clone(),
            blob: blob.clone(),
            what: blob_named(image, blob),
            at: 0,
            rest: Bytes::new(),
            body: None,
            tag: None,
            attempts: Attempts::default(),
            mark: 0,
            resumed: 0,
        };
        inner.client.retry(0, |_| reader.request())?;
        Ok(reader)
    }

    /// Asks for the bytes from where the stream stands.
    fn request(&mut self) -> Result<(), Error> {
        self.body = None;
        let mut headers = Vec::new();
        if self.at > 0 {
            headers.push((RANGE, format!("bytes={}-", self.at)));
            if let Some(tag) = &self.tag {
                headers.push((IF_RANGE, tag.clone()));
            }
        }
        let path = format!("/v2/{}/blobs/{}", self.image.repository, self.blob.digest);
        let answer = get(
            &self.inner,
            &self.host,
            &self.image,
            &self.what,
            &path,
            headers,
        )?;
        let response = &answer.response;
        let first = match response.status {
            200 => 0,
            206 => {
                let range = response.header("content-range").unwrap_or_default();
                let start = range
                    .strip_prefix("bytes ")
                    .and_then(|range| range.split('-').next())
                    .and_then(|start| start.parse::<u64>().ok());
                if start != Some(self.at) {
                    return Err(Error::content(
                        &self.what,
                        format!(
                            "asked for the bytes from {} on, the registry sent `{range}`",
                            self.at
                        ),
                    ));
                }
                self.at
            }
            _ => return Err(answer.refused(&self.what)),
        };
        if let Some(length) = response.length()
            && first.checked_add(length) != Some(self.blob.size)
        {
            return Err(self.wrong_size(first.saturating_add(length)));
        }
        // A weak tag does not vouch for single bytes.
        self.tag = response
            .header("etag")
            .filter(|tag| !tag.starts_with("W/"))
            .map(str::to_owned);
        let mut body = answer.response.reader();
        // A server that ignores ranges begins anew; what is known is passed over.
        let mut known = self.at - first;
        while known > 0 {
            let piece = body.piece().map_err(|e| Error::exchange(&self.what, e))?;
            let mut piece = piece.ok_or_else(|| self.cut(self.at - known))?;
            let over = known.min(piece.len() as u64);
            piece.advance(over as usize);
            known -= over;
            if !piece.is_empty() {
                self.take(piece)?;
            }
        }
        self.body = Some(body);
        Ok(())
    }

    fn take(&mut self, piece: Bytes) -> Result<(), Error> {
        self.at += piece.len() as u64;
        if self.at > self.blob.size {
            return Err(Error::content(
                &self.what,
                format!("more came than the stated {} bytes", self.blob.size),
            ));
        }
        self.rest = piece;
        Ok(())
    }

    fn wrong_size(&self, size: u64) -> Error {
        Error::content(
            &self.what,
            format!(
                "the registry has {size} bytes of it, the manifest says {}",
                self.blob.size
            ),
        )
    }

    fn cut(&self, at: u64) -> Error {
        Error::exchange(
            &self.what,
            net::Error::Exchange {
                method: "GET".into(),
                url: format!("/v2/{}/blobs/{}", self.image.repository, self.blob.digest),
                failure: net::Failure::Cut,
                why: format!("it ended after {at} of {} bytes", self.blob.size),
            },
        )
    }

    /// Gives the next piece, or none at the end.
    pub(super) fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if !self.rest.is_empty() {
                return Ok(Some(std::mem::take(&mut self.rest)));
            }
            let next = match &mut self.body {
                None if self.at == self.blob.size => return Ok(None),
                None => Err(self.cut(self.at)),
                Some(body) => body.piece().map_err(|e| Error::exchange(&self.what, e)),
            };
            if self.at == self.blob.size {
                // All is here; whether the connection ends well does not matter, but a longer
                // body does.
                self.body = None;
                if let Ok(Some(piece)) = next {
                    self.take(piece)?;
                }
                return Ok(None);
            }
            match next {
                Ok(Some(piece)) => self.take(piece)?,
                Ok(None) => self.resume(self.cut(self.at))?,
                Err(e) => self.resume(e)?,
            }
        }
    }

    fn resume(&mut self, mut error: Error) -> Result<(), Error> {
        self.body = None;
        if self.at - self.mark >= PROGRESS {
            self.mark = self.at;
            self.attempts = Attempts::default();
        }
        loop {
            let again = error.again().filter(|_| self.resumed < MAX_RESUMED);
            let retry = self.inner.client.settings().retry;
            let Some(wait) = again.and_then(|again| self.attempts.next(&retry, &again)) else {
                return Err(error);
            };
            self.resumed += 1;
            let slept = self.inner.client.sleep(wait);
            slept.map_err(|e| Error::exchange(&self.what, e))?;
            match self.request() {
                Ok(()) => return Ok(()),
                Err(e) => error = e,
            }
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.rest.is_empty() {
            match self.piece().map_err(io::Error::other)? {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
