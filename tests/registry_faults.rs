//! The registry client against a server that misbehaves.

#[path = "common/client.rs"]
mod client;
#[path = "common/fake.rs"]
mod fake;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::*;
use fake::{Asked, Fake, Reply, reply};
use shutter::net::Retry;
use shutter::oci::{Digest, Platform, media};
use shutter::progress::{Event, Owner, Sink, Work};
use shutter::registry::{Error, Pushed, Registry};
use shutter::request::RegistryOptions;
use shutter::sys::Cancel;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Answers the look at `/v2/` and leaves the rest to the test.
fn fake(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::start(move |asked| match asked.target.as_str() {
        "/v2/" => reply(200),
        _ => answer(asked),
    })
}

/// Counts calls.
fn counter() -> (Arc<AtomicUsize>, impl Fn() -> usize + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let own = count.clone();
    (count, move || own.fetch_add(1, Ordering::SeqCst))
}

#[test]
fn tries_again_what_may_pass() {
    let bytes = manifest(&descriptor(b"c"), &[]);
    for failures in [vec![429], vec![500, 500], vec![502, 503, 504], vec![408]] {
        let (_, next) = counter();
        let (list, body) = (failures.clone(), bytes.clone());
        let server = fake(move |_| match list.get(next()) {
            Some(429) => reply(429).with("Retry-After", "0"),
            Some(&status) => reply(status).body("oh no"),
            None => reply(200).body(body.clone()),
        });
        let fetched = client(options())
            .pull_manifest(&image(&server.host, "a:b"), &Platform::host())
            .unwrap();
        assert_eq!(fetched.bytes, bytes);
        assert_eq!(server.asked().len(), failures.len() + 1);
    }
}

#[test]
fn gives_up_in_the_end() {
    let server = fake(|_| reply(503).body("<html>down\n  for maintenance</html>"));
    let error = client(options())
        .pull_manifest(&image(&server.host, "a:b"), &Platform::host())
        .unwrap_err();
    assert_eq!(error.status(), Some(503));
    assert!(
        error.to_string().contains("down for maintenance"),
        "{error}"
    );
    assert_eq!(server.asked().len(), Retry::default().attempts as usize);

    // What will not pass is not tried again, and neither is what takes longer than is allowed.
    for refuse in [
        reply(400),
        reply(404),
        reply(501),
        reply(429).with("Retry-After", "86400"),
    ] {
        let refuse = Mutex::new(Some(refuse));
        let server = fake(move |_| refuse.lock().unwrap().take().unwrap_or(reply(418)));
        client(options())
            .pull_manifest(&image(&server.host, "a:b"), &Platform::host())
            .unwrap_err();
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn resumes_a_cut_blob() {
    #[derive(Clone, Copy, Debug)]
    enum Way {
        /// Parts as asked for.
        Ranges,
        /// All of it each time.
        Whole,
        /// Parts, without a tag.
        Untagged,
    }
    for way in [Way::Ranges, Way::Whole, Way::Untagged] {
        let bytes = noise(900_000);
        let (body, (_, next)) = (bytes.clone(), counter());
        let server = fake(move |asked| {
            let start: usize = asked.header("range").map_or(0, |r| {
                r["bytes=".len()..].trim_end_matches('-').parse().unwrap()
            });
            let answer = match (way, start) {
                (Way::Whole, _) | (_, 0) => reply(200).body(body.clone()),
                _ => reply(206)
                    .with(
                        "Content-Range",
                        format!("bytes {start}-{}/{}", body.len() - 1, body.len()),
                    )
                    .body(&body[start..]),
            };
            let answer = match way {
                Way::Untagged => answer,
                _ => answer.with("ETag", "\"x\""),
            };
            match next() {
                0 => answer.cut_after(100_000),
                1 => reply(503),
                2 => answer.cut_after(300_000),
                _ => answer,
            }
        });
        let got = all(
            &client(options()),
            &image(&server.host, "a:b"),
            &descriptor(&bytes),
        )
        .unwrap();
        assert!(got == bytes, "{way:?}");
        let asked = server.asked();
        assert_eq!(asked.len(), 4, "{way:?}");
        assert_eq!(asked[0].header("range"), None);
        assert!(asked[3].header("range").is_some());
        let tagged = !matches!(way, Way::Untagged);
        assert_eq!(asked[3].header("if-range").is_some(), tagged, "{way:?}");
    }
}

#[test]
fn refuses_a_blob_of_another_size() {
    let bytes = noise(10_000);
    for (name, answer) in [
        ("longer", reply(200).body(noise(10_001))),
        ("shorter", reply(200).body(noise(9_999))),
        ("endless", reply(200).body(noise(50_000)).chunked()),
        ("one more", reply(200).body(noise(10_001)).chunked()),
        (
            "elsewhere",
            reply(206)
                .with("Content-Range", "bytes 5-9/10")
                .body(&bytes[5..]),
        ),
    ] {
        let answer = Mutex::new(Some(answer));
        let server = fake(move |_| answer.lock().unwrap().take().unwrap_or(reply(418)));
        let error = all(
            &client(options()),
            &image(&server.host, "a:b"),
            &descriptor(&bytes),
        )
        .unwrap_err();
        assert!(error.to_string().contains("bytes"), "{name}: {error}");
        assert_eq!(server.asked().len(), 1, "{name}");
    }
}

#[test]
fn refuses_wrong_digests_and_strange_documents() {
    let good = manifest(&descriptor(b"c"), &[]);
    let other = Digest::of(b"other");
    let schema_1 = br#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#;
    for (name, tag, answer, wanted) in [
        (
            "by digest",
            format!("a@{other}"),
            reply(200).body(good.clone()),
            "digest",
        ),
        (
            "by header",
            "a:b".into(),
            reply(200)
                .with("Docker-Content-Digest", other.to_string())
                .body(good.clone()),
            "digest",
        ),
        (
            "schema 1",
            "a:b".into(),
            reply(200).body(&schema_1[..]),
            "schema 1",
        ),
        (
            "signed schema 1",
            "a:b".into(),
            reply(200)
                .with(
                    "Content-Type",
                    "application/vnd.docker.distribution.manifest.v1+prettyjws",
                )
                .body("{}"),
            "schema 1",
        ),
        (
            "a portal",
            "a:b".into(),
            reply(200).body("<html>"),
            "manifest",
        ),
        (
            "too long",
            "a:b".into(),
            reply(200).body(vec![b' '; (8 << 20) + 1]),
            "bound",
        ),
    ] {
        let answer = Mutex::new(Some(answer));
        let server = fake(move |_| answer.lock().unwrap().take().unwrap_or(reply(418)));
        let error = client(options())
            .pull_manifest(&image(&server.host, &tag), &Platform::host())
            .unwrap_err();
        let text = told(&error);
        assert!(text.contains(wanted), "{name}: {text}");
        assert!(text.contains(&server.host), "{name}: {text}");
        assert_eq!(server.asked().len(), 1, "{name}");
    }
    let server = fake(|_| reply(200).body("abd"));
    let error = client(options())
        .pull_small(&image(&server.host, "a:b"), &descriptor(b"abc"))
        .unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");
}

#[test]
fn follows_an_index_to_the_platform() {
    let bytes = manifest(&descriptor(b"c"), &[]);
    let digest = Digest::of(&bytes);
    let entry = |digest: &Digest, platform: &str| {
        format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":1,"platform":{platform}}}"#,
            media::OCI_MANIFEST
        )
    };
    let other = Digest::of(b"other");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{},{},{},{}]}}"#,
        media::OCI_INDEX,
        entry(
            &other,
            r#"{"os":"linux","architecture":"arm","variant":"v6"}"#
        ),
        entry(&other, r#"{"os":"windows","architecture":"amd64"}"#),
        entry(&digest, r#"{"os":"linux","architecture":"s390x"}"#),
        entry(&other, r#"{"os":"unknown","architecture":"unknown"}"#),
    );
    let server =
        fake(
            move |asked| match asked.target.ends_with(":b") || asked.target.ends_with("/b") {
                true => reply(200)
                    .with("Content-Type", media::OCI_INDEX)
                    .body(index.clone()),
                false => reply(200).body(bytes.clone()),
            },
        );
    let registry = client(options());
    let target = image(&server.host, "a:b");
    let fetched = registry
        .pull_manifest(&target, &"linux/s390x".parse().unwrap())
        .unwrap();
    assert_eq!(fetched.descriptor.digest, digest);
    assert_eq!(
        server.lines(),
        [
            "GET /v2/a/manifests/b".to_owned(),
            format!("GET /v2/a/manifests/{digest}")
        ]
    );
    let text = registry
        .pull_manifest(&target, &"linux/riscv64".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        format!(
            "{target} has no image for linux/riscv64; it has linux/arm/v6, windows/amd64, linux/s390x"
        )
    );
}

/// A registry that wants tokens from a server of its own, and counts what the tokens are good for.
fn token_registry(
    check: impl Fn(&Asked) -> Result<(), u16> + Send + Sync + 'static,
    answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Fake {
    let given = AtomicUsize::new(0);
    Fake::start(move |asked| {
        if asked.path() == "/token" {
            return match check(asked) {
                Err(status) => reply(status),
                Ok(()) => {
                    let n = given.fetch_add(1, Ordering::SeqCst);
                    reply(200).body(format!(r#"{{"token":"t{n}","expires_in":300}}"#))
                }
            };
        }
        let host = asked.header("host").unwrap();
        // The first token stops being good after one use.
        let good = match asked.header("authorization") {
            Some("Bearer t0") => {
                given.load(Ordering::SeqCst) == 1 && asked.header("range").is_none()
            }
            Some(other) => other.starts_with("Bearer t"),
            None => false,
        };
        match good {
            true => answer(asked),
            false => reply(401).with(
                "WWW-Authenticate",
                format!(r#"Bearer realm="http://{host}/token?x=y",service="the service""#),
            ),
        }
    })
}

#[test]
fn gets_tokens_with_a_password() {
    let bytes = manifest(&descriptor(b"c"), &[]);
    let server = token_registry(
        |asked| {
            let wanted = format!("Basic {}", STANDARD.encode("me:secret"));
            (asked.header("authorization") == Some(wanted.as_str()))
                .then_some(())
                .ok_or(401)
        },
        move |_| reply(200).body(bytes.clone()),
    );
    let file = auth_file(&server.host, &login("me", "secret"));
    let registry = client(RegistryOptions {
        auth_files: vec![file.path().into()],
        ..options()
    });
    let target = image(&server.host, "a/b:c");
    for _ in 0..3 {
        registry.pull_manifest(&target, &Platform::host()).unwrap();
    }
    let asked = server.asked();
    let tokens: Vec<&Asked> = asked.iter().filter(|a| a.path() == "/token").collect();
    assert_eq!(tokens.len(), 1, "one token serves all");
    assert_eq!(
        tokens[0].target,
        "/token?x=y&service=the+service&scope=repository%3Aa%2Fb%3Apull&account=me"
    );

    let nobody = client(options());
    let text = told(
        &nobody
            .pull_manifest(&target, &Platform::host())
            .unwrap_err(),
    );
    for part in ["token", "repository:a/b:pull", "401", "no credentials"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn trades_an_identity_token() {
    let bytes = manifest(&descriptor(b"c"), &[]);
    let server = token_registry(
        |asked| {
            let body = String::from_utf8_lossy(&asked.body).into_owned();
            let good = asked.method == "POST"
                && asked.header("authorization").is_none()
                && body.contains("grant_type=refresh_token")
                && body.contains("refresh_token=the-identity")
                && body.contains("scope=repository%3Aa%2Fb%3Apull")
                && body.contains("service=the+service");
            good.then_some(()).ok_or(400)
        },
        move |_| reply(200).body(bytes.clone()),
    );
    for entry in [
        r#"{"identitytoken":"the-identity"}"#.to_owned(),
        login("<token>", "the-identity"),
    ] {
        let registry = client(RegistryOptions {
            auth_inline: Some(format!(r#"{{"auths":{{"{}":{entry}}}}}"#, server.host)),
            ..options()
        });
        registry
            .pull_manifest(&image(&server.host, "a/b:c"), &Platform::host())
            .unwrap();
    }
}

#[test]
fn gets_a_new_token_in_the_middle() {
    let bytes = noise(200_000);
    let body = bytes.clone();
    let (_, next) = counter();
    let server = token_registry(
        |_| Ok(()),
        move |asked| match (next(), asked.header("range")) {
            (0, _) => reply(200).body(body.clone()).cut_after(50_000),
            (_, Some(range)) => {
                let start: usize = range["bytes=".len()..]
                    .trim_end_matches('-')
                    .parse()
                    .unwrap();
                let to = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
                reply(206).with("Content-Range", to).body(&body[start..])
            }
            _ => reply(418),
        },
    );
    let got = all(
        &client(options()),
        &image(&server.host, "a:b"),
        &descriptor(&bytes),
    )
    .unwrap();
    assert!(got == bytes);
    let tokens = server
        .asked()
        .iter()
        .filter(|a| a.path() == "/token")
        .count();
    assert_eq!(tokens, 2);
}

#[test]
fn asks_for_both_repositories_when_mounting() {
    let server = token_registry(
        |_| Ok(()),
        |asked| match asked.method.as_str() {
            "HEAD" => reply(404),
            _ => reply(201).with("Location", "/x"),
        },
    );
    let layer = blob(noise(10));
    let pushed = client(options())
        .push_blob(
            &image(&server.host, "to:x"),
            &layer.descriptor,
            layer.file.path(),
            Some(&image(&server.host, "from:x")),
            &span(),
        )
        .unwrap();
    assert_eq!(pushed, Pushed::Mounted);
    let both = "scope=repository%3Ato%3Apull%2Cpush&scope=repository%3Afrom%3Apull";
    let lines = server.lines();
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("GET /token") && l.contains(both)),
        "{lines:?}"
    );
    let digest = layer.descriptor.digest;
    assert!(
        lines.contains(&format!(
            "POST /v2/to/blobs/uploads/?mount={}&from=from",
            digest.to_string().replace(':', "%3A")
        )),
        "{lines:?}"
    );
}

#[test]
fn keeps_credentials_to_itself_on_redirects() {
    let bytes = noise(5_000);
    let body = bytes.clone();
    let elsewhere = Fake::start(move |_| reply(200).body(body.clone()));
    let to = format!("http://{}/blob?X-Amz-Signature=s3cret", elsewhere.host);
    let server = Fake::start(
        move |asked| match (asked.header("authorization"), asked.path()) {
            (None, _) => reply(401).with("WWW-Authenticate", "Basic realm=x"),
            (_, "/v2/") => reply(200),
            (_, "/here") => reply(307).with("Location", to.clone()),
            _ => reply(302).with("Location", "/here"),
        },
    );
    let file = auth_file(
        &format!("http://{}/v2/", server.host),
        &login("me", "secret"),
    );
    let registry = client(RegistryOptions {
        auth_files: vec![file.path().into()],
        ..options()
    });
    let target = image(&server.host, "a:b");
    let got = all(&registry, &target, &descriptor(&bytes)).unwrap();
    assert!(got == bytes);
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);
    assert!(
        server
            .asked()
            .iter()
            .all(|a| a.header("authorization").is_some())
    );

    // An error names the place, not the signature.
    let error = all(&registry, &target, &descriptor(&noise(4_000))).unwrap_err();
    assert!(!error.to_string().contains("s3cret"));
    drop(elsewhere);
    let error = all(&registry, &target, &descriptor(&bytes)).unwrap_err();
    let text = told(&error);
    assert!(
        !text.contains("s3cret") && text.contains("REDACTED"),
        "{text}"
    );
}

#[test]
fn ends_a_loop_of_redirects() {
    let server = fake(|asked| reply(302).with("Location", asked.target.clone()));
    let error = client(options())
        .pull_manifest(&image(&server.host, "a:b"), &Platform::host())
        .unwrap_err();
    assert!(told(&error).contains("redirects"), "{}", told(&error));
}

/// A registry that takes uploads, as far as `allow` lets it, and keeps what came.
fn taking(
    allow: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
) -> (Fake, Arc<Mutex<Vec<u8>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let own = kept.clone();
    let server = fake(move |asked| {
        if let Some(refused) = allow(asked) {
            return refused;
        }
        match asked.method.as_str() {
            "HEAD" => reply(404),
            "POST" => {
                own.lock().unwrap().clear();
                // Relative, with a query that has to be kept.
                reply(202).with("Location", "../../../up/1?_state=abc%3D")
            }
            "PATCH" => {
                own.lock().unwrap().extend_from_slice(&asked.body);
                reply(202).with("Location", "/up/2?_state=def%3D")
            }
            "PUT" => {
                own.lock().unwrap().extend_from_slice(&asked.body);
                reply(201)
            }
            _ => reply(204),
        }
    });
    (server, kept)
}

#[test]
fn follows_relative_locations_with_their_query() {
    let (server, kept) = taking(|_| None);
    let layer = blob(noise(1_500_000));
    let moved = Arc::new(AtomicU64::new(0));
    let own = moved.clone();
    let sink = Sink::new(move |event| {
        if let Event::SpanProgress { bytes, .. } = event {
            own.fetch_add(bytes, Ordering::Relaxed);
        }
    });
    let span = sink.span(Owner::Build, Work::Push, "", None);
    let pushed = client(options())
        .push_blob(
            &image(&server.host, "a/b:c"),
            &layer.descriptor,
            layer.file.path(),
            None,
            &span,
        )
        .unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    assert!(*kept.lock().unwrap() == layer.bytes);
    assert_eq!(moved.load(Ordering::Relaxed), 1_500_000);
    let digest = layer.descriptor.digest;
    let encoded = digest.to_string().replace(':', "%3A");
    assert_eq!(
        server.lines(),
        [
            format!("HEAD /v2/a/b/blobs/{digest}"),
            "POST /v2/a/b/blobs/uploads/".into(),
            format!("PUT /v2/a/up/1?_state=abc%3D&digest={encoded}"),
        ]
    );
}

#[test]
fn starts_a_failed_upload_again() {
    let (_, next) = counter();
    let (server, kept) = taking(move |asked| match asked.method.as_str() {
        "PUT" => match next() {
            0 => Some(reply(500)),
            1 => Some(reply(201).hang_up()),
            _ => None,
        },
        _ => None,
    });
    let layer = blob(noise(700_000));
    let push = |registry: &Registry| {
        registry.push_blob(
            &image(&server.host, "a:b"),
            &layer.descriptor,
            layer.file.path(),
            None,
            &span(),
        )
    };
    push(&client(options())).unwrap();
    assert!(*kept.lock().unwrap() == layer.bytes);
}

#[test]
fn cuts_a_blob_that_is_too_large_whole() {
    let (server, kept) =
        taking(|asked| (asked.body.len() > 2 << 20).then(|| reply(413).body("too large")));
    let layer = blob(noise(5_000_000));
    let registry = client(options());
    registry
        .push_blob(
            &image(&server.host, "a:b"),
            &layer.descriptor,
            layer.file.path(),
            None,
            &span(),
        )
        .unwrap();
    assert!(*kept.lock().unwrap() == layer.bytes);
    let asked = server.asked();
    let ranges: Vec<&str> = asked
        .iter()
        .filter(|a| a.method == "PATCH")
        .filter_map(|a| a.header("content-range"))
        .collect();
    assert_eq!(
        &ranges[2..],
        [
            "0-1048575",
            "1048576-2097151",
            "2097152-3145727",
            "3145728-4194303",
            "4194304-4999999"
        ]
    );
}

#[test]
fn hears_a_refusal_that_comes_before_the_body_is_read() {
    let refusal = r#"{"errors":[{"code":"DENIED","message":"quota"}]}"#;
    let (server, _) =
        taking(move |asked| (asked.method == "PUT").then(|| reply(403).body(refusal).hasty()));
    let layer = blob(noise(30_000_000));
    let error = client(options())
        .push_blob(
            &image(&server.host, "a:b"),
            &layer.descriptor,
            layer.file.path(),
            None,
            &span(),
        )
        .unwrap_err();
    assert!(error.has_code("DENIED"), "{}", told(&error));
    assert_eq!(server.lines().last().map(|l| &l[..6]), Some("DELETE"));
}

#[test]
fn takes_an_upload_back_when_cancelled() {
    let cancel = Cancel::new().unwrap();
    let own = cancel.clone();
    let (server, _) = taking(move |asked| {
        (asked.method == "PUT").then(|| {
            own.cancel();
            reply(200).silent()
        })
    });
    let registry = client_with(options(), cancel);
    let layer = blob(noise(1000));
    let error = registry
        .push_blob(
            &image(&server.host, "a:b"),
            &layer.descriptor,
            layer.file.path(),
            None,
            &span(),
        )
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    let lines = server.lines();
    assert_eq!(
        lines.last().map(String::as_str),
        Some("DELETE /v2/up/1?_state=abc%3D"),
        "{lines:?}"
    );
}

#[test]
fn ends_waits_when_cancelled() {
    let cancel = Cancel::new().unwrap();
    let own = cancel.clone();
    let server = fake(move |_| {
        own.cancel();
        reply(429).with("Retry-After", "100")
    });
    let error = client_with(options(), cancel)
        .pull_manifest(&image(&server.host, "a:b"), &Platform::host())
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
}

#[test]
fn checks_a_push_once() {
    let (server, _) = taking(|_| None);
    let registry = client(options());
    let target = image(&server.host, "a/b:c");
    registry.check_push(&target).unwrap();
    registry.check_push(&target).unwrap();
    assert_eq!(
        server.lines(),
        [
            "POST /v2/a/b/blobs/uploads/",
            "DELETE /v2/a/up/1?_state=abc%3D"
        ]
    );
    let (server, _) = taking(|_| {
        Some(reply(403).body(r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#))
    });
    let text = told(
        &registry
            .check_push(&image(&server.host, "a/b:c"))
            .unwrap_err(),
    );
    for part in ["403", "DENIED: not yours", "a/b"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn names_the_flag_for_a_plain_registry() {
    // What speaks no TLS hangs up; a proxy leads a far name to it.
    let proxy = Fake::start(|_| reply(200).body("hello"));
    let text = told(
        &client(RegistryOptions {
            proxies: [("https_proxy".to_owned(), format!("http://{}", proxy.host))].into(),
            ..Default::default()
        })
        .check_push(&image("registry.example:5000", "a:b"))
        .unwrap_err(),
    );
    for part in ["registry.example:5000", "--insecure"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn goes_through_a_proxy() {
    let bytes = manifest(&descriptor(b"c"), &[]);
    let proxy = Fake::start(move |_| reply(200).body(bytes.clone()));
    client(RegistryOptions {
        proxies: [(
            "http_proxy".to_owned(),
            format!("http://me:pw@{}", proxy.host),
        )]
        .into(),
        ..options()
    })
    .pull_manifest(&image("registry.example", "a:b"), &Platform::host())
    .unwrap();
    let asked = proxy.asked();
    let last = asked.last().unwrap();
    assert_eq!(last.target, "http://registry.example/v2/a/manifests/b");
    assert_eq!(
        last.header("proxy-authorization").unwrap(),
        format!("Basic {}", STANDARD.encode("me:pw"))
    );
}
