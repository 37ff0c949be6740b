use super::body::{Body, BodyReader, Upload};
use super::error::{Error, Failure, chain, explain};
use super::proxy::Proxies;
use super::retry::{Again, Attempts, Retry, Temporary};
use super::tls::{self, Authorities, SystemRoots, Tls};
use super::{Method, StatusCode, redacted};
use crate::sys::Cancel;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HeaderMap, HeaderName, HeaderValue};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use url::Url;

/// How the client behaves towards everybody.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Proxies by variable name in lower case: http_proxy, https_proxy, no_proxy, all_proxy.
    pub proxies: BTreeMap<String, String>,
    /// The authorities that stand for the system's.
    pub system_roots: SystemRoots,
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long an answer may be awaited while nothing is sent. It is long: a registry hashes a
    /// large upload before it answers.
    pub answer: Duration,
    /// How long the next `least` bytes of a body may take.
    pub idle: Duration,
    /// How many bytes of a body have to come in `idle`, at most all that is left of it.
    pub least: u64,
    /// How long a [`Exchange::Farewell`] may take.
    pub farewell: Duration,
    /// What temporary errors are met with.
    pub retry: Retry,
    /// Is told when a call is to be tried again for the first time.
    pub notice: Notice,
}

/// Takes a sentence that somebody should read while they wait.
#[derive(Clone)]
pub struct Notice(pub Arc<dyn Fn(&str) + Send + Sync>);

impl Default for Notice {
    fn default() -> Notice {
        Notice(Arc::new(|_| ()))
    }
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notice")
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            proxies: BTreeMap::new(),
            system_roots: SystemRoots::default(),
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(300),
            idle: Duration::from_secs(60),
            // A server of git may have nothing to say for minutes but that it is still there.
            least: 1,
            farewell: Duration::from_secs(3),
            retry: Retry::default(),
            notice: Notice::default(),
        }
    }
}

/// Whether a cancelled build still sends the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exchange {
    /// It does not.
    #[default]
    Usual,
    /// It does, to leave the other side tidy, and waits only briefly.
    Farewell,
}

/// One request.
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// How TLS is spoken.
    pub tls: &'a Tls,
    /// The headers, without Content-Length.
    pub headers: HeaderMap,
    /// The body.
    pub upload: Upload<'a>,
    /// Whether a cancelled build still sends it.
    pub exchange: Exchange,
}

impl<'a> Request<'a> {
    /// Makes a request without headers and body.
    pub fn new(method: Method, url: Url, tls: &'a Tls) -> Request<'a> {
        Request {
            method,
            url,
            tls,
            headers: HeaderMap::new(),
            upload: Upload::Nothing,
            exchange: Exchange::Usual,
        }
    }

    /// Adds a header; a value that no header may have is left out.
    pub fn header(mut self, name: HeaderName, value: &str) -> Request<'a> {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// Sets the body.
    pub fn upload(mut self, upload: Upload<'a>) -> Request<'a> {
        self.upload = upload;
        self
    }
}

/// An answer whose body has not been read yet; any status.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Where the answer came from, after redirects.
    pub url: Url,
    inner: Arc<Inner>,
    method: String,
    response: reqwest::Response,
    /// Keeps an unfinished upload from being torn down before an early answer has been read.
    hold: Option<mpsc::Sender<io::Result<Bytes>>>,
}

/// The client; clones share connections.
#[derive(Clone)]
pub struct Client(pub(super) Arc<Inner>);

/// What tells one connection pool from another.
type Pool = (Option<Tls>, Option<String>);

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) cancel: Cancel,
    proxies: Proxies,
    authorities: Arc<Authorities>,
    ended: watch::Receiver<bool>,
    pools: Mutex<HashMap<Pool, reqwest::Client>>,
    /// Ends the thread that watches the switch.
    quit: Cancel,
    /// Always there until drop.
    runtime: Option<Runtime>,
}

/// Pieces of an uploaded file.
const PIECE: u64 = 512 << 10;

/// How often it is looked, while an answer is awaited, whether something still goes out.
const LOOKS: u32 = 10;

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;

impl Client {
    /// Makes a client; nothing is sent, and no certificate is read, before the first request.
    pub fn new(settings: Settings, cancel: Cancel) -> Result<Client, Error> {
        let authorities = Arc::new(Authorities::new(settings.system_roots.clone()));
        Client::of(settings, authorities, cancel)
    }

    /// Makes the same client again for another switch. Authorities that have been read are not read
    /// again.
    pub fn again(&self, cancel: Cancel) -> Result<Client, Error> {
        let authorities = Arc::clone(&self.0.authorities);
        Client::of(self.0.settings.clone(), authorities, cancel)
    }

    fn of(
        settings: Settings,
        authorities: Arc<Authorities>,
        cancel: Cancel,
    ) -> Result<Client, Error> {
        let setup = |e: io::Error| Error::Setup(e.to_string());
        let proxies = Proxies::new(&settings.proxies)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("net")
            .enable_all()
            .build()
            .map_err(setup)?;
        let (tell, ended) = watch::channel(false);
        let quit = Cancel::new().map_err(setup)?;
        watch_switch(cancel.clone(), quit.clone(), tell).map_err(setup)?;
        Ok(Client(Arc::new(Inner {
            authorities,
            settings,
            cancel,
            proxies,
            ended,
            pools: Mutex::default(),
            quit,
            runtime: Some(runtime),
        })))
    }

    /// Reads the system's authorities now, for whom they will be gone when they are first wanted. What is
    /// wrong with them is told then.
    pub fn read_authorities(&self) {
        self.0.authorities.read();
    }

    /// Gives the settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Sends a request and gives the answer, whatever its status, once its head is there.
    /// Redirects are followed; on the way to another host neither credentials nor a client
    /// certificate go along.
    pub fn send(&self, mut request: Request<'_>) -> Result<Response, Error> {
        let mut tls = request.tls.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.0.exchange(&mut request, &tls)?;
            let redirect = matches!(response.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.header("location").filter(|_| redirect) else {
                return Ok(response);
            };
            let wrong = |why: String| Error::Redirect {
                url: redacted(&response.url),
                why,
            };
            let next = response
                .url
                .join(location)
                .map_err(|e| wrong(format!("to where no URL leads: {e}")))?;
            if !matches!(next.scheme(), "http" | "https") {
                return Err(wrong(format!("to `{}`", redacted(&next))));
            }
            if response.status == 303 && request.method != Method::HEAD {
                request.method = Method::GET;
                request.upload = Upload::Nothing;
            }
            if !trusts(&request.url, &next) {
                request.headers.remove(AUTHORIZATION);
                request.headers.remove(COOKIE);
                tls.identity = None;
            }
            request.url = next;
            response.discard();
        }
        Err(Error::Redirect {
            url: redacted(&request.url),
            why: format!("for the {MAX_REDIRECTS}th time in a row"),
        })
    }

    /// Calls again after temporary errors, as the settings' [`Retry`] allows and `extra` times
    /// more; `call` gets the number of attempts that failed so far.
    pub fn retry<T, E: Temporary + std::error::Error>(
        &self,
        extra: u32,
        mut call: impl FnMut(u32) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut retry = self.0.settings.retry;
        retry.attempts = retry.attempts.saturating_add(extra);
        let mut attempts = Attempts::default();
        loop {
            let error = match call(attempts.failed) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = error.again();
            let Some(wait) = again.and_then(|again| attempts.next(&retry, &again)) else {
                return Err(error);
            };
            if attempts.failed == 1 {
                (self.0.settings.notice.0)(&format!("{}; it is tried again", chain(&error)));
            }
            if self.sleep(wait).is_err() {
                return Err(E::cancelled());
            }
        }
    }

    /// Waits, but not beyond the end of the build.
    pub fn sleep(&self, time: Duration) -> Result<(), Error> {
        let ended = self.0.ended();
        self.0.block_on(async move {
            tokio::select! {
                biased;
                () = ended => Err(Error::Cancelled),
                () = tokio::time::sleep(time) => Ok(()),
            }
        })
    }
}

/// Tells whether what is meant for one URL's host may go to the other's: same host and port, or
/// the same host's usual ports, and not from TLS to plain text.
pub fn trusts(from: &Url, to: &Url) -> bool {
    from.host() == to.host()
        && (from.port_or_known_default() == to.port_or_known_default()
            || from.port().is_none() && to.port().is_none())
        && !(from.scheme() == "https" && to.scheme() == "http")
}

impl Inner {
    fn runtime(&self) -> Result<&Runtime, Error> {
        self.runtime
            .as_ref()
            .ok_or_else(|| Error::Setup("the client has been shut down".into()))
    }

    pub(super) fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.runtime()?.block_on(work)
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(work);
        }
    }

    /// Becomes ready when the build is cancelled.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            if ended.wait_for(|set| *set).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Gives the connection pool for a URL.
    pub(super) fn pool(&self, url: &Url, tls: &Tls) -> Result<reqwest::Client, Error> {
        let proxy = self.proxies.of(url);
        let secure = url.scheme() == "https" || proxy.is_some_and(|p| p.starts_with("https:"));
        let key = (secure.then(|| tls.clone()), proxy.map(str::to_owned));
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key) {
            return Ok(pool.clone());
        }
        let config = if secure {
            tls::config(tls, &self.authorities)?
        } else {
            tls::none()?
        };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(self.settings.connect)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("shutter/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(|e| Error::Proxy {
                proxy: Url::parse(proxy).map_or_else(|_| "(not shown)".into(), |u| redacted(&u)),
                why: explain(e).1,
            })?);
        }
        let pool = builder.build().map_err(|e| Error::Setup(explain(e).1))?;
        pools.insert(key, pool.clone());
        Ok(pool)
    }

    fn exchange(self: &Arc<Self>, request: &mut Request<'_>, tls: &Tls) -> Result<Response, Error> {
        if request.exchange == Exchange::Usual && self.cancel.is_set() {
            return Err(Error::Cancelled);
        }
        let pool = self.pool(&request.url, tls)?;
        let mut headers = request.headers.clone();
        let moved = Arc::new(AtomicU64::new(0));
        let guard = Guard {
            method: request.method.to_string(),
            url: redacted(&request.url),
            moved: moved.clone(),
            patience: match request.exchange {
                Exchange::Usual => self.settings.answer,
                Exchange::Farewell => self.settings.farewell,
            },
        };
        let ended = self.ended();
        let farewell = request.exchange == Exchange::Farewell;
        let ended = async move {
            if farewell {
                std::future::pending::<()>().await;
            }
            ended.await;
        };
        let mut outgoing = pool.request(request.method.clone(), request.url.clone());
        let (response, hold) = match &mut request.upload {
            Upload::Nothing => {
                if matches!(request.method, Method::POST | Method::PUT | Method::PATCH) {
                    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                }
                let answer = outgoing.headers(headers).send();
                (self.block_on(guard.answer(answer, ended))?, None)
            }
            Upload::Bytes(bytes) => {
                let answer = outgoing.headers(headers).body(bytes.clone()).send();
                (self.block_on(guard.answer(answer, ended))?, None)
            }
            Upload::File {
                path,
                offset,
                length,
                sent,
            } => {
                let file = open(path, *offset)?;
                // The body is a stream, which has no length of its own; with this header the
                // transfer is not chunked.
                headers.insert(CONTENT_LENGTH, HeaderValue::from(*length));
                let (give, take) = mpsc::channel::<io::Result<Bytes>>(4);
                let stream = futures_util::stream::unfold(take, move |mut take| {
                    let moved = moved.clone();
                    async move {
                        let piece = take.recv().await?;
                        moved.fetch_add(1, Ordering::Relaxed);
                        Some((piece, take))
                    }
                });
                outgoing = outgoing
                    .headers(headers)
                    .body(reqwest::Body::wrap_stream(stream));
                let mut answer = self.runtime()?.spawn(guard.answer(outgoing.send(), ended));
                let fed = self.feed(file, path, *length, &give, &mut answer, *sent)?;
                let response = match fed {
                    Some(early) => early,
                    None => self.block_on(async { answer.await.unwrap_or_else(|e| lost(&e)) })?,
                };
                (response, Some(give))
            }
        };
        Ok(Response {
            status: response.status().as_u16(),
            url: response.url().clone(),
            inner: self.clone(),
            method: request.method.to_string(),
            response,
            hold,
        })
    }

    /// Reads the file on this thread and hands its pieces to the connection; stops when the answer
    /// comes before all of it is sent, and gives that.
    fn feed(
        &self,
        mut file: File,
        path: &Path,
        length: u64,
        give: &mpsc::Sender<io::Result<Bytes>>,
        answer: &mut tokio::task::JoinHandle<Result<reqwest::Response, Error>>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<Option<reqwest::Response>, Error> {
        let mut left = length;
        while left > 0 {
            let wanted = left.min(PIECE);
            let mut piece = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
            let read = (&mut file)
                .take(wanted)
                .read_to_end(&mut piece)
                .and_then(|n| match n as u64 == wanted {
                    true => Ok(()),
                    false => Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("it is shorter than the {length} bytes it should have"),
                    )),
                });
            if let Err(source) = read {
                answer.abort();
                return Err(Error::File {
                    path: path.to_owned(),
                    source,
                });
            }
            let early = self.block_on(async {
                tokio::select! {
                    biased;
                    early = &mut *answer => early.unwrap_or_else(|e| lost(&e)).map(Some),
                    // The receiver goes only when the request ends, and then the answer tells.
                    Ok(()) = give.send(Ok(Bytes::from(piece))) => Ok(None),
                }
            })?;
            if early.is_some() {
                return Ok(early);
            }
            sent(wanted);
            left -= wanted;
        }
        Ok(None)
    }
}

fn open(path: &Path, offset: u64) -> Result<File, Error> {
    File::open(path)
        .and_then(|mut file| {
            if offset > 0 {
                file.seek(SeekFrom::Start(offset))?;
            }
            Ok(file)
        })
        .map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
}

fn lost<T>(error: &tokio::task::JoinError) -> Result<T, Error> {
    Err(Error::Setup(format!("the exchange was lost: {error}")))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quit.cancel();
        // A look-up of a name may still be under way and cannot be ended.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts a thread that tells the runtime of the switch. The runtime could wait for a descriptor
/// itself, but only unsafely.
fn watch_switch(cancel: Cancel, quit: Cancel, tell: watch::Sender<bool>) -> io::Result<()> {
    std::thread::Builder::new()
        .name("net-cancel".into())
        .spawn(move || {
            let mut both = [
                PollFd::new(&cancel, PollFlags::IN),
                PollFd::new(&quit, PollFlags::IN),
            ];
            while !cancel.is_set() && !quit.is_set() {
                match poll(&mut both, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return,
                }
            }
            let _ = tell.send(cancel.is_set());
        })
        .map(drop)
}

/// Watches over one exchange until the head of the answer is there.
pub(super) struct Guard {
    pub(super) method: String,
    pub(super) url: String,
    /// Changes when a piece of the body goes out.
    pub(super) moved: Arc<AtomicU64>,
    pub(super) patience: Duration,
}

impl Guard {
    pub(super) async fn answer(
        self,
        answer: impl Future<Output = reqwest::Result<reqwest::Response>>,
        ended: impl Future<Output = ()>,
    ) -> Result<reqwest::Response, Error> {
        tokio::pin!(answer, ended);
        let fail = |failure, why| Error::Exchange {
            method: self.method.clone(),
            url: self.url.clone(),
            failure,
            why,
        };
        let mut seen = (self.moved.load(Ordering::Relaxed), Instant::now());
        loop {
            tokio::select! {
                biased;
                () = &mut ended => return Err(Error::Cancelled),
                answer = &mut answer => return answer.map_err(|e| {
                    let (failure, why) = explain(e);
                    fail(failure, why)
                }),
                () = tokio::time::sleep(self.patience / LOOKS) => {
                    let moved = self.moved.load(Ordering::Relaxed);
                    if moved != seen.0 {
                        seen = (moved, Instant::now());
                    } else if seen.1.elapsed() >= self.patience {
                        let seconds = self.patience.as_secs();
                        return Err(fail(
                            Failure::Timeout(self.patience),
                            format!("no answer for {seconds} s"),
                        ));
                    }
                }
            }
        }
    }
}

impl Response {
    /// Gives a header's value, where it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Gives all values of a header that are text.
    pub fn headers<'r>(&'r self, name: &str) -> impl Iterator<Item = &'r str> + use<'r> {
        self.response
            .headers()
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
    }

    /// Gives the status with its words.
    pub fn status_words(&self) -> String {
        let words = StatusCode::from_u16(self.status).ok();
        match words.and_then(|status| status.canonical_reason()) {
            Some(words) => format!("{} {words}", self.status),
            None => self.status.to_string(),
        }
    }

    /// Gives what is known for another attempt, where the status says that the same may succeed
    /// later: the server is busy, or one behind it out of reach.
    pub fn again(&self) -> Option<Again> {
        matches!(self.status, 408 | 425 | 429 | 500 | 502..=504 | 506..=599).then(|| Again {
            after: self
                .header("retry-after")
                .and_then(|text| super::retry::seconds(text, self.header("date"))),
            stood_still: Duration::ZERO,
        })
    }

    /// Gives the length of the body where the answer says it.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Reads the body whole; one that is longer than `limit` bytes is read no further and comes
    /// back with at least one byte more than the limit.
    pub fn bytes(self, limit: u64) -> Result<Vec<u8>, Error> {
        let Response {
            inner,
            method,
            response,
            hold,
            ..
        } = self;
        let _hold = hold;
        let ended = inner.ended();
        let mut body = Body::new(&inner, response, method);
        inner.block_on(async {
            tokio::pin!(ended);
            let mut out = Vec::new();
            while out.len() as u64 <= limit {
                let piece = tokio::select! {
                    biased;
                    () = &mut ended => return Err(Error::Cancelled),
                    piece = body.next() => piece?,
                };
                match piece {
                    Some(bytes) => out.extend_from_slice(&bytes),
                    None => break,
                }
            }
            Ok(out)
        })
    }

    /// Throws the body away; a short one is read, so that the connection can be used again.
    pub fn discard(self) {
        if self.length().is_some_and(|n| n <= 64 << 10) {
            let _ = self.bytes(64 << 10);
        }
    }

    /// Gives the body as a stream.
    pub fn reader(self) -> BodyReader {
        BodyReader::new(self.inner, self.response, self.method, self.hold)
    }
}
