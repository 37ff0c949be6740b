//! The registry client against Distribution's registry.

#[path = "common/client.rs"]
mod client;
#[path = "common/registry.rs"]
mod real;

use client::*;
use shutter::oci::{Digest, Document, Platform, Reference, media};
use shutter::registry::{Pushed, Registry};
use shutter::request::RegistryOptions;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    let bytes = manifest(&config.descriptor, std::slice::from_ref(&layer.descriptor));
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
