//! The registry client against Distribution's registry and against a server that misbehaves.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/registry.rs"]
mod real;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fake::{Asked, Fake, Reply, reply};
use shutter::net::{Retry, Settings};
use shutter::oci::{Descriptor, Digest, Document, Platform, Reference, media};
use shutter::progress::{Event, Owner, Sink, Span, Work};
use shutter::registry::{Error, Pushed, Registry};
use shutter::request::RegistryOptions;
use shutter::sys::Cancel;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn options() -> RegistryOptions {
    RegistryOptions {
        insecure_pull: true,
        insecure_push: true,
        ..RegistryOptions::default()
    }
}

fn client(options: RegistryOptions) -> Registry {
    client_with(options, Cancel::new().unwrap())
}

fn client_with(options: RegistryOptions, cancel: Cancel) -> Registry {
    let settings = Settings {
        retry: Retry {
            base: Duration::ZERO,
            ..Retry::default()
        },
        ..Settings::default()
    };
    Registry::with_settings(options, settings, cancel).unwrap()
}

fn image(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

fn span() -> Span {
    Sink::none().span(Owner::Build, Work::Push, "", None)
}

/// A blob in a file.
struct Blob {
    descriptor: Descriptor,
    file: tempfile::NamedTempFile,
    bytes: Vec<u8>,
}

fn blob(bytes: Vec<u8>) -> Blob {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    Blob {
        descriptor: descriptor(&bytes),
        file,
        bytes,
    }
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media::OCI_LAYER_GZIP.into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
    }
}

/// Bytes that differ from place to place.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

fn all(registry: &Registry, image: &Reference, blob: &Descriptor) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    registry
        .pull_blob(image, blob)
        .map_err(std::io::Error::other)?
        .read_to_end(&mut out)?;
    Ok(out)
}

fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    shutter::oci::Manifest {
        format: shutter::oci::Format::Oci,
        config: Descriptor {
            media_type: media::OCI_CONFIG.into(),
            ..config.clone()
        },
        layers: layers.to_vec(),
        annotations: Default::default(),
    }
    .to_bytes()
}

/// Says the whole of an error, sources included.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        out += &format!(": {e}");
        next = e.source();
    }
    out
}

fn auth_file(host: &str, entry: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, r#"{{"auths":{{"{host}":{entry}}}}}"#).unwrap();
    file
}

fn login(user: &str, password: &str) -> String {
    format!(
        r#"{{"auth":"{}"}}"#,
        STANDARD.encode(format!("{user}:{password}"))
    )
}

/// Pushes an image of two blobs and pulls it again.
fn round_trip(registry: &Registry, host: &str) {
    let target = image(host, "team/app:v1");
    registry.check_push(&target).unwrap();
    let config = blob(br#"{"os":"linux","architecture":"amd64"}"#.to_vec());
    let layer = blob(noise(3_000_001));
    for part in [&config, &layer] {
        let push =
            || registry.push_blob(&target, &part.descriptor, part.file.path(), None, &span());
        assert_eq!(push().unwrap(), Pushed::Uploaded);
        assert_eq!(push().unwrap(), Pushed::Existed);
    }
    let bytes = manifest(&config.descriptor, &[layer.descriptor.clone()]);
    let digest = registry
        .push_manifest(&target, media::OCI_MANIFEST, &bytes)
        .unwrap();
    assert_eq!(digest, Digest::of(&bytes));

    let fetched = registry.pull_manifest(&target, &Platform::host()).unwrap();
    assert_eq!(fetched.bytes, bytes);
    assert_eq!(fetched.descriptor.digest, digest);
    let Document::Manifest(read) = fetched.document else {
        panic!("an index came back");
    };
    assert_eq!(
        registry.pull_small(&target, &read.config).unwrap(),
        config.bytes
    );
    assert!(all(registry, &target, &read.layers[0]).unwrap() == layer.bytes);

    let by_digest = image(host, &format!("team/app@{digest}"));
    let again = registry
        .pull_manifest(&by_digest, &Platform::host())
        .unwrap();
    assert_eq!(again.bytes, bytes);
}

#[test]
fn pushes_and_pulls_with_a_plain_registry() {
    let server = real::start();
    round_trip(&client(options()), &server.host);
    // On the loopback plain HTTP needs no flag.
    let fresh = client(RegistryOptions::default());
    let target = image(&server.host, "team/app:v1");
    fresh.pull_manifest(&target, &Platform::host()).unwrap();
}

#[test]
fn pushes_and_pulls_with_a_login() {
    let server = real::start_with(&real::Setup {
        login: Some(("me".into(), "pa:ss".into())),
        ..Default::default()
    });
    let file = auth_file(&server.host, &login("me", "pa:ss"));
    round_trip(
        &client(RegistryOptions {
            auth_files: vec!["/nonexistent".into(), file.path().into()],
            ..options()
        }),
        &server.host,
    );

    let target = image(&server.host, "team/app:v1");
    let nobody = client(RegistryOptions {
        auth_files: vec!["/nonexistent".into()],
        ..options()
    });
    let text = told(&nobody.check_push(&target).unwrap_err());
    for part in [
        "401",
        "UNAUTHORIZED",
        "team/app",
        "no credentials",
        "/nonexistent",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let file = auth_file(&server.host, &login("me", "wrong-secret"));
    let wrong = client(RegistryOptions {
        auth_files: vec![file.path().into()],
        ..options()
    });
    let text = told(&wrong.check_push(&target).unwrap_err());
    let origin = file.path().to_str().unwrap();
    for part in ["401", "`me`", origin] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("wrong-secret"), "{text}");
}

#[test]
fn speaks_tls() {
    let certificates = real::Certificates::make();
    let server = real::start_with(&real::Setup {
        tls: Some(certificates.pair("server")),
        ..Default::default()
    });
    let target = image(&server.host, "a/b:c");

    // Not trusted, and no falling back to plain HTTP.
    for options in [RegistryOptions::default(), options()] {
        let text = told(&client(options).check_push(&target).unwrap_err());
        assert!(
            text.contains("certificate") && text.contains("--registry-certificate"),
            "{text}"
        );
    }
    let own = RegistryOptions {
        certificates: [(server.host.clone(), certificates.path("ca.pem"))].into(),
        ..Default::default()
    };
    round_trip(&client(own), &server.host);
    client(RegistryOptions {
        skip_tls_push: true,
        ..Default::default()
    })
    .check_push(&target)
    .unwrap();
    client(RegistryOptions {
        skip_tls: vec![format!("https://{}", server.host)],
        ..options()
    })
    .check_push(&target)
    .unwrap();

    let text = told(
        &client(RegistryOptions {
            certificates: [(server.host.clone(), "/nonexistent.pem".into())].into(),
            ..Default::default()
        })
        .check_push(&target)
        .unwrap_err(),
    );
    assert!(text.contains("/nonexistent.pem"), "{text}");
}

#[test]
fn shows_a_client_certificate() {
    let certificates = real::Certificates::make();
    let server = real::start_with(&real::Setup {
        tls: Some(certificates.pair("server")),
        client_ca: Some(certificates.path("ca.pem")),
        ..Default::default()
    });
    let target = image(&server.host, "a/b:c");
    let own = RegistryOptions {
        certificates: [(server.host.clone(), certificates.path("ca.pem"))].into(),
        ..Default::default()
    };
    client(own.clone()).check_push(&target).unwrap_err();
    client(RegistryOptions {
        client_certificates: [(server.host.clone(), certificates.pair("client"))].into(),
        ..own
    })
    .check_push(&target)
    .unwrap();
}

#[test]
fn trusts_the_very_certificate_that_was_named() {
    let certificates = real::Certificates::make();
    let server = real::start_with(&real::Setup {
        tls: Some(certificates.pair("self")),
        ..Default::default()
    });
    let own = RegistryOptions {
        certificates: [(server.host.clone(), certificates.path("self.pem"))].into(),
        ..Default::default()
    };
    client(own.clone())
        .check_push(&image(&server.host, "a/b:c"))
        .unwrap();
    // Its name is still looked at.
    let port = server.host.rsplit_once(':').unwrap().1;
    let other = format!("localhost:{port}");
    let text = told(
        &client(RegistryOptions {
            certificates: [(other.clone(), certificates.path("self.pem"))].into(),
            ..Default::default()
        })
        .check_push(&image(&other, "a/b:c"))
        .unwrap_err(),
    );
    assert!(text.contains("certificate"), "{text}");
}

#[test]
fn mounts_from_another_repository() {
    let server = real::start();
    let registry = client(options());
    let source = image(&server.host, "source:x");
    let layer = blob(noise(100_000));
    let push = |to: &Reference, from: Option<&Reference>| {
        registry
            .push_blob(to, &layer.descriptor, layer.file.path(), from, &span())
            .unwrap()
    };
    assert_eq!(push(&source, None), Pushed::Uploaded);
    let target = image(&server.host, "target:x");
    assert_eq!(push(&target, Some(&source)), Pushed::Mounted);
    assert!(all(&registry, &target, &layer.descriptor).unwrap() == layer.bytes);
    // A source without the blob is no trouble, nor is one of another registry.
    let empty = image(&server.host, "empty:x");
    let other = image("other.example", "source:x");
    assert_eq!(
        push(&image(&server.host, "target2:x"), Some(&empty)),
        Pushed::Uploaded
    );
    assert_eq!(
        push(&image(&server.host, "target3:x"), Some(&other)),
        Pushed::Uploaded
    );
}

#[test]
fn pushes_a_blob_once_for_all_threads() {
    let server = real::start();
    let registry = client(options());
    let target = image(&server.host, "one/flight:x");
    let layer = blob(noise(2_000_000));
    let uploads = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let pushed = registry
                    .push_blob(&target, &layer.descriptor, layer.file.path(), None, &span())
                    .unwrap();
                uploads.fetch_add(usize::from(pushed == Pushed::Uploaded), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(uploads.into_inner(), 1);
}

#[test]
fn says_what_is_not_there() {
    let server = real::start();
    let registry = client(options());
    let target = image(&server.host, "no/such:tag");
    let error = registry
        .pull_manifest(&target, &Platform::host())
        .unwrap_err();
    assert_eq!(error.status(), Some(404));
    let text = told(&error);
    for part in [
        server.host.as_str(),
        "no/such:tag",
        "404",
        "MANIFEST_UNKNOWN",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = told(&registry.pull_small(&target, &descriptor(b"x")).unwrap_err());
    assert!(text.contains(&Digest::of(b"x").to_string()), "{text}");
}

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

/// Prints how fast it goes; run with `--ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn measure() {
    let server = real::start();
    let registry = client(options());
    let target = image(&server.host, "fast:x");
    let small: Vec<Blob> = (0..20).map(|n| blob(noise(1000 + n))).collect();
    registry.check_push(&target).unwrap();
    let start = Instant::now();
    for one in &small {
        registry
            .push_blob(&target, &one.descriptor, one.file.path(), None, &span())
            .unwrap();
    }
    println!("20 small blobs: {:?}", start.elapsed());
    let (server, _) = taking(|_| None);
    let fake = image(&server.host, "fast:x");
    let start = Instant::now();
    for one in &small {
        registry
            .push_blob(&fake, &one.descriptor, one.file.path(), None, &span())
            .unwrap();
    }
    println!(
        "the same to a server that does nothing: {:?}",
        start.elapsed()
    );
    let large = blob(noise(256 << 20));
    let start = Instant::now();
    registry
        .push_blob(&target, &large.descriptor, large.file.path(), None, &span())
        .unwrap();
    println!("256 MiB up: {:?}", start.elapsed());
    let start = Instant::now();
    let mut from = registry.pull_blob(&target, &large.descriptor).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut n = 0;
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => break,
            more => n += more,
        }
    }
    println!("{n} bytes down: {:?}", start.elapsed());
}
