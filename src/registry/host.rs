//! One registry as it is talked to: where it listens, what it wants to be shown, and the tokens it
//! gave.

use super::challenge::Challenge;
use super::credentials::{Credential, Credentials, Secret};
use super::{Direction, Error};
use crate::net::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use crate::net::{
    self, Client, Exchange, Failure, Method, Request, Response, Tls, Upload, Url, Verify,
};
use crate::request::RegistryOptions;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One registry in one direction.
pub(super) struct Host {
    /// As references name it.
    pub(super) name: String,
    /// Where it may listen, the likeliest first.
    candidates: Vec<Url>,
    plain: bool,
    pub(super) tls: Tls,
    session: Mutex<Option<Session>>,
    tokens: Mutex<HashMap<String, Slot>>,
}

/// A token for one set of scopes; locked while it is fetched, so that it is fetched once.
type Slot = Arc<Mutex<Option<Token>>>;

#[derive(Clone)]
struct Session {
    base: Url,
    challenge: Challenge,
}

#[derive(Clone)]
struct Token {
    header: String,
    expires: Instant,
}

/// A request to a registry.
pub(super) struct Call<'a> {
    /// What is tried, for errors.
    pub(super) what: &'a str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Body<'a>,
    /// The repository, for credentials.
    pub(super) repository: &'a str,
    /// What a token must allow.
    pub(super) scopes: Vec<String>,
    pub(super) exchange: Exchange,
}

/// What is sent; it can be sent again.
pub(super) enum Body<'a> {
    Nothing,
    Bytes(Bytes),
    File {
        path: &'a Path,
        offset: u64,
        length: u64,
        /// Is told how far in the file the sending has come.
        reached: &'a dyn Fn(u64),
    },
}

/// An answer with what was shown for it.
pub(super) struct Answer {
    pub(super) response: Response,
    /// What was sent, for errors.
    pub(super) told: String,
}

impl Answer {
    /// Makes an error of an answer that is a refusal.
    pub(super) fn refused(self, what: &str) -> Error {
        Error::refused(what, self.response, &self.told)
    }
}

/// The most bytes of a token server's answer.
const MAX_TOKEN: u64 = 1 << 20;

/// How long a token without `expires_in` lives (Docker's token specification).
const TOKEN_LIFE: u64 = 60;

/// Says which scope an action in a repository needs.
pub(super) fn scope(repository: &str, actions: &str) -> String {
    format!("repository:{repository}:{actions}")
}

/// Gives a registry's name in the form references have: without scheme and path, and Docker's
/// registry under its one name.
pub(super) fn registry_name(text: &str) -> &str {
    let text = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    match text.split('/').next().unwrap_or(text) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Tells whether a registry may speak plain HTTP without being named for it: this machine, a
/// `.local` name, a private address. TLS is tried first with these.
fn is_near(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|c| c.is_ascii_digit()) && !host.ends_with(':') => {
            host
        }
        _ => registry,
    };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".local") || host.ends_with(".localhost"),
    }
}

impl Host {
    pub(super) fn new(
        name: &str,
        direction: Direction,
        options: &RegistryOptions,
    ) -> Result<Host, Error> {
        let named = |list: &[String]| list.iter().any(|entry| registry_name(entry) == name);
        let (insecure, skip) = match direction {
            Direction::Pull => (options.insecure_pull, options.skip_tls_pull),
            Direction::Push => (options.insecure_push, options.skip_tls_push),
        };
        let insecure = insecure || named(&options.insecure);
        let schemes: &[&str] = match (insecure, is_near(name)) {
            (true, _) => &["http", "https"],
            (false, true) => &["https", "http"],
            (false, false) => &["https"],
        };
        let address = match name {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let candidates = schemes
            .iter()
            .map(|scheme| Url::parse(&format!("{scheme}://{address}/")))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| {
                Error::content(
                    &format!("find registry {name}"),
                    format!("that is no host: {e}"),
                )
            })?;
        Ok(Host {
            name: name.to_owned(),
            candidates,
            plain: schemes.contains(&"http"),
            tls: Tls {
                verify: match skip || named(&options.skip_tls) {
                    true => Verify::Skip,
                    false => Verify::Full,
                },
                roots: options
                    .certificates
                    .iter()
                    .filter(|(entry, _)| registry_name(entry) == name)
                    .map(|(_, path)| path.clone())
                    .collect(),
                identity: options
                    .client_certificates
                    .iter()
                    .find(|(entry, _)| registry_name(entry) == name)
                    .map(|(_, pair)| pair.clone()),
            },
            session: Mutex::new(None),
            tokens: Mutex::default(),
        })
    }

    /// Gives a URL of the registry's API; the first time this finds out where it listens.
    pub(super) fn url(&self, client: &Client, path: &str) -> Result<Url, Error> {
        let mut url = self.session(client)?.base;
        url.set_path(path);
        Ok(url)
    }

    /// Gives where an upload goes on. Behind a proxy that ends TLS some registries name themselves
    /// with `http`; that is the same place as this one.
    pub(super) fn location(&self, response: &Response) -> Option<Url> {
        let mut to = response.url.join(response.header("location")?).ok()?;
        if response.url.scheme() == "https"
            && to.scheme() == "http"
            && to.host() == response.url.host()
            && (to.port().is_none() || to.port() == response.url.port())
        {
            to.set_scheme("https").ok()?;
        }
        matches!(to.scheme(), "http" | "https").then_some(to)
    }

    fn session(&self, client: &Client) -> Result<Session, Error> {
        let mut session = lock(&self.session);
        if let Some(session) = &*session {
            return Ok(session.clone());
        }
        let found = self.ping(client)?;
        *session = Some(found.clone());
        Ok(found)
    }

    /// Asks `/v2/` at the candidates.
    fn ping(&self, client: &Client) -> Result<Session, Error> {
        let what = format!("reach registry {}", self.name);
        let mut first = None;
        for candidate in &self.candidates {
            let mut url = candidate.clone();
            url.set_path("/v2/");
            let response = match client.send(Request::new(Method::GET, url, &self.tls)) {
                Ok(response) => response,
                Err(e) => {
                    let speaks_tls = e.failure() == Some(Failure::Certificate);
                    let error = Error::exchange(&what, e);
                    if speaks_tls || matches!(error, Error::Cancelled | Error::Setup(_)) {
                        return Err(error);
                    }
                    // What the first candidate says is the one to tell.
                    first.get_or_insert(error);
                    continue;
                }
            };
            // A TLS server answers plain HTTP so.
            if response.status == 400 && candidate.scheme() == "http" && self.candidates.len() > 1 {
                first.get_or_insert(Error::refused(&what, response, ""));
                continue;
            }
            let challenge = match response.status {
                401 => Challenge::of(response.headers("www-authenticate")),
                408 | 425 | 429 | 500.. => return Err(Error::refused(&what, response, "")),
                _ => None,
            };
            let mut base = candidate.clone();
            // A redirect from http to https is followed for good.
            if base.host() == response.url.host() {
                base = response.url.clone();
                base.set_query(None);
            }
            response.discard();
            return Ok(Session {
                base,
                challenge: challenge.unwrap_or(Challenge::Open),
            });
        }
        Err(first.unwrap_or_else(|| Error::content(&what, "no address is known")))
    }

    /// Sends a request with what the registry wants to be shown. A refusal as unauthorized is met
    /// once with what its challenge asks for and, for tokens, a new one: they expire, even between
    /// the parts of an upload. Other statuses are the caller's.
    pub(super) fn call(
        &self,
        client: &Client,
        credentials: &Credentials,
        call: &Call<'_>,
    ) -> Result<Answer, Error> {
        let session = self.session(client)?;
        // An upload or a download may lead to a host that is not to see what this one is shown.
        if !net::trusts(&session.base, &call.url) {
            let response = self.send(client, call, None)?;
            return Ok(Answer {
                response,
                told: "no credentials go to another host".into(),
            });
        }
        let credential = credentials.of(&self.name, call.repository)?;
        let told = credential.told();
        let mut challenge = session.challenge;
        let mut again = false;
        loop {
            let header = self.header(client, &challenge, &credential, call)?;
            let response = self.send(client, call, header.as_deref())?;
            if response.status != 401 || again || call.exchange == Exchange::Farewell {
                return Ok(Answer { response, told });
            }
            again = true;
            match Challenge::of(response.headers("www-authenticate")) {
                Some(new) => challenge = new,
                None => return Ok(Answer { response, told }),
            }
            // The same again would be refused again.
            if challenge == Challenge::Basic
                && (header.is_some() || credential.secret == Secret::Anonymous)
            {
                return Ok(Answer { response, told });
            }
            let base = session.base.clone();
            *lock(&self.session) = Some(Session {
                base,
                challenge: challenge.clone(),
            });
            let slot = self.slot(&challenge, call);
            let mut token = lock(&slot);
            if token.as_ref().map(|t| &t.header) == header.as_ref() {
                *token = None;
            }
            response.discard();
        }
    }

    fn send(
        &self,
        client: &Client,
        call: &Call<'_>,
        header: Option<&str>,
    ) -> Result<Response, Error> {
        let mut request = Request::new(call.method.clone(), call.url.clone(), &self.tls);
        request.exchange = call.exchange;
        for (name, value) in &call.headers {
            request = request.header(name.clone(), value);
        }
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        let sent = match call.body {
            Body::Nothing => client.send(request),
            Body::Bytes(ref bytes) => client.send(request.upload(Upload::Bytes(bytes.clone()))),
            Body::File {
                path,
                offset,
                length,
                reached,
            } => {
                let mut at = offset;
                client.send(request.upload(Upload::File {
                    path,
                    offset,
                    length,
                    sent: &mut |n| {
                        at += n;
                        reached(at);
                    },
                }))
            }
        };
        sent.map_err(|e| Error::exchange(call.what, e))
    }

    /// Gives the Authorization header for a call.
    fn header(
        &self,
        client: &Client,
        challenge: &Challenge,
        credential: &Credential,
        call: &Call<'_>,
    ) -> Result<Option<String>, Error> {
        match (challenge, &credential.secret) {
            (Challenge::Open, _) => Ok(None),
            (_, Secret::Access(token)) => Ok(Some(format!("Bearer {token}"))),
            (Challenge::Basic, Secret::Basic { user, password }) => Ok(Some(basic(user, password))),
            (Challenge::Basic, _) => Ok(None),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                _,
            ) => {
                let slot = self.slot(challenge, call);
                let mut token = lock(&slot);
                match &*token {
                    Some(token) if token.expires > Instant::now() => {
                        return Ok(Some(token.header.clone()));
                    }
                    _ if call.exchange == Exchange::Farewell => return Ok(None),
                    _ => {}
                }
                let scopes = wanted(&call.scopes, scope.as_deref());
                let fetched = self.token(client, realm, service.as_deref(), &scopes, credential)?;
                *token = Some(fetched.clone());
                Ok(Some(fetched.header))
            }
        }
    }

    fn slot(&self, challenge: &Challenge, call: &Call<'_>) -> Slot {
        let scope = match challenge {
            Challenge::Bearer { scope, .. } => scope.as_deref(),
            _ => None,
        };
        let key = wanted(&call.scopes, scope).join(" ");
        lock(&self.tokens).entry(key).or_default().clone()
    }

    /// Fetches a token (Docker's token and OAuth 2 specifications).
    fn token(
        &self,
        client: &Client,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        credential: &Credential,
    ) -> Result<Token, Error> {
        let what = format!(
            "get a token for {} of registry {}",
            scopes.join(" "),
            self.name
        );
        let url = Url::parse(realm)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| Error::content(&what, "the registry names no token server's URL"))?;
        if url.scheme() == "http" && !self.plain {
            return Err(Error::content(
                &what,
                format!("{} would get secrets over plain HTTP", net::redacted(&url)),
            ));
        }
        let get = |header: Option<String>| {
            let mut url = url.clone();
            {
                let mut query = url.query_pairs_mut();
                service.map(|service| query.append_pair("service", service));
                for scope in scopes {
                    query.append_pair("scope", scope);
                }
                if let Secret::Basic { user, .. } = &credential.secret {
                    query.append_pair("account", user);
                }
            }
            let mut request = Request::new(Method::GET, url, &self.tls);
            if let Some(header) = header {
                request = request.header(AUTHORIZATION, &header);
            }
            client.send(request)
        };
        let post = |grant: &[(&str, &str)]| {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(grant);
            form.append_pair("client_id", "shutter");
            service.map(|service| form.append_pair("service", service));
            form.append_pair("scope", &scopes.join(" "));
            let request = Request::new(Method::POST, url.clone(), &self.tls)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .upload(Upload::Bytes(form.finish().into()));
            client.send(request)
        };
        let fetch = || {
            let answer = match &credential.secret {
                Secret::Identity(token) => {
                    post(&[("grant_type", "refresh_token"), ("refresh_token", token)])
                }
                Secret::Basic { user, password } => match get(Some(basic(user, password))) {
                    Ok(answer) if matches!(answer.status, 404 | 405) => post(&[
                        ("grant_type", "password"),
                        ("username", user),
                        ("password", password),
                    ]),
                    answer => answer,
                },
                _ => get(None),
            };
            let response = answer.map_err(|e| Error::exchange(&what, e))?;
            if response.status != 200 {
                return Err(Error::refused(&what, response, &credential.told()));
            }
            response
                .bytes(MAX_TOKEN)
                .map_err(|e| Error::exchange(&what, e))
        };
        let body = client.retry(0, |_| fetch())?;
        #[derive(Deserialize)]
        struct Given {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
            #[serde(default)]
            expires_in: Option<f64>,
        }
        let given: Option<Given> = serde_json::from_slice(&body).ok();
        let life = given.as_ref().and_then(|given| given.expires_in);
        let token = given
            .and_then(|given| {
                let full = |token: &String| !token.is_empty();
                given
                    .token
                    .filter(full)
                    .or_else(|| given.access_token.filter(full))
            })
            .ok_or_else(|| Error::content(&what, "the token server's answer has no token"))?;
        let life = life.filter(|life| (1.0..1e9).contains(life));
        let life = life.map_or(TOKEN_LIFE, |life| life as u64);
        Ok(Token {
            header: format!("Bearer {token}"),
            // Some of it is left for the way there.
            expires: Instant::now() + Duration::from_secs(life - (life / 10).min(30)),
        })
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Gives the scopes of a call and those of a challenge that it did not think of.
fn wanted(scopes: &[String], challenge: Option<&str>) -> Vec<String> {
    let mut all = scopes.to_vec();
    for scope in challenge.unwrap_or_default().split(' ') {
        let covered = |own: &String| match (own.rsplit_once(':'), scope.rsplit_once(':')) {
            (Some((place, actions)), Some((other, needed))) => {
                place == other
                    && needed
                        .split(',')
                        .all(|n| actions.split(',').any(|a| a == n))
            }
            _ => false,
        };
        if !scope.is_empty() && !all.iter().any(covered) {
            all.push(scope.to_owned());
        }
    }
    all
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_near_registries() {
        for near in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "box.local",
            "box.local:80",
            "10.0.0.1:5000",
            "192.168.3.4",
            "172.16.0.1",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in [
            "docker.io",
            "local",
            "localhost.example.org:443",
            "172.32.0.1",
            "8.8.8.8",
            "x.locals",
        ] {
            assert!(!is_near(far), "{far}");
        }
    }

    #[test]
    fn adds_only_scopes_that_are_not_covered() {
        let own = vec!["repository:a:pull,push".to_owned()];
        for (challenge, wanted_scopes) in [
            (None, vec!["repository:a:pull,push"]),
            (Some(""), vec!["repository:a:pull,push"]),
            (Some("repository:a:pull"), vec!["repository:a:pull,push"]),
            (
                Some("repository:a:push,pull"),
                vec!["repository:a:pull,push"],
            ),
            (
                Some("repository:a:delete registry:catalog:*"),
                vec![
                    "repository:a:pull,push",
                    "repository:a:delete",
                    "registry:catalog:*",
                ],
            ),
        ] {
            assert_eq!(wanted(&own, challenge), wanted_scopes, "{challenge:?}");
        }
    }
}
