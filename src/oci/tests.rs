use super::*;

fn digest_of(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

#[test]
fn reads_references() {
    let a = digest_of('a');
    let with_digest = format!("r.example/x@{a}");
    let with_both = format!("r.example:5000/x/y:t@{a}");
    for (text, registry, repository, tag, digest) in [
        (
            "debian",
            "docker.io",
            "library/debian",
            Some("latest"),
            false,
        ),
        (
            "debian:12",
            "docker.io",
            "library/debian",
            Some("12"),
            false,
        ),
        ("me/app", "docker.io", "me/app", Some("latest"), false),
        (
            "docker.io/debian",
            "docker.io",
            "library/debian",
            Some("latest"),
            false,
        ),
        (
            "index.docker.io/me/x:y",
            "docker.io",
            "me/x",
            Some("y"),
            false,
        ),
        ("localhost/x", "localhost", "x", Some("latest"), false),
        (
            "localhost:5000/x:y",
            "localhost:5000",
            "x",
            Some("y"),
            false,
        ),
        ("UPPER/x", "UPPER", "x", Some("latest"), false),
        ("[::1]:5000/x", "[::1]:5000", "x", Some("latest"), false),
        (
            "r.example/a/b/c:1.2-3_4",
            "r.example",
            "a/b/c",
            Some("1.2-3_4"),
            false,
        ),
        (
            "r.example/a--b/c__d.e",
            "r.example",
            "a--b/c__d.e",
            Some("latest"),
            false,
        ),
        (&with_digest, "r.example", "x", None, true),
        (&with_both, "r.example:5000", "x/y", Some("t"), true),
    ] {
        let read: Reference = text.parse().unwrap();
        assert_eq!(read.registry, registry, "{text}");
        assert_eq!(read.repository, repository, "{text}");
        assert_eq!(read.tag.as_deref(), tag, "{text}");
        assert_eq!(read.digest.is_some(), digest, "{text}");
        let again: Reference = read.to_string().parse().unwrap();
        assert_eq!(again, read, "{text}");
    }
}

#[test]
fn refuses_what_is_no_reference() {
    let long_tag = format!("x:{}", "t".repeat(129));
    let long_name = format!("r.example/{}", "a".repeat(256));
    let a = digest_of('a');
    let upper = format!("x@{}", digest_of('A'));
    let two = format!("x@{a}@{a}");
    for text in [
        "",
        ":",
        "/",
        "@",
        ":tag",
        "x:",
        "x/",
        "/x",
        "x//y",
        "r.example/",
        "r.example//x",
        "X",
        "me/App",
        "x:-t",
        "x:.t",
        "x:a b",
        "x y",
        "x@sha256:abc",
        "x@md5:abc",
        "-x",
        "x-",
        "x..y",
        "x___y",
        "x._y",
        "a/../b",
        "./x",
        "../x",
        "r.example:/x",
        "r.example:99999/x",
        "r.example:5000:5000/x",
        "r..example/x",
        "-r.example/x",
        "r.exa_mple/x",
        "[::1/x",
        "[x]:1/x",
        "user@r.example/x",
        "https://r.example/x",
        "r.example/x?y",
        "r.example/x%2fy",
        "ä",
        "x:ä",
        "r.ä/x",
        &long_tag,
        &long_name,
        &upper,
        &two,
    ] {
        let error = text.parse::<Reference>().unwrap_err();
        assert_eq!(error.text, text);
    }
}

#[test]
fn reads_digests() {
    let a = digest_of('a');
    assert_eq!(a.parse::<Digest>().unwrap().to_string(), a);
    assert_eq!(
        Digest::of(b"").to_string(),
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    for text in [
        "",
        "sha256:",
        "sha256:aa",
        "SHA256:aa",
        &a[7..],
        &digest_of('A'),
        &digest_of('g'),
        &format!("{a}a"),
        &a.replace("256", "512"),
        &format!("sha256:{}", "ä".repeat(32)),
    ] {
        assert_eq!(
            text.parse::<Digest>(),
            Err(DigestError(text.to_owned())),
            "{text}"
        );
    }
}

#[test]
fn reads_platforms() {
    for (text, wanted) in [
        ("linux/amd64", Some("linux/amd64")),
        ("Linux/X86_64", Some("linux/amd64")),
        ("linux/aarch64", Some("linux/arm64")),
        ("linux/arm/V7", Some("linux/arm/v7")),
        ("linux/armhf", Some("linux/arm/v7")),
        ("linux/i386", Some("linux/386")),
        ("linux", None),
        ("", None),
        ("/", None),
        ("linux/", None),
        ("/amd64", None),
        ("linux/arm/", None),
        ("linux/arm/v7/x", None),
    ] {
        let read = text.parse::<Platform>().ok().map(|p| p.to_string());
        assert_eq!(read.as_deref(), wanted, "{text}");
    }
    for (own, other, wanted) in [
        ("linux/arm64", "linux/arm64/v8", true),
        ("linux/arm64/v9", "linux/arm64", false),
        ("linux/amd64", "linux/amd64/v2", true),
        ("linux/arm/v6", "linux/arm/v7", false),
        ("linux/amd64", "windows/amd64", false),
    ] {
        let read = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(read(own).accepts(&read(other)), wanted, "{own} {other}");
    }
}

fn descriptor(media_type: &str) -> String {
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{}","size":3}}"#,
        digest_of('b')
    )
}

#[test]
fn tells_documents_apart() {
    let config = descriptor(media::OCI_CONFIG);
    let body = format!(r#""schemaVersion":2,"config":{config},"layers":[{config}]"#);
    let list = format!(r#""schemaVersion":2,"manifests":[{config}]"#);
    let oci = Some(Format::Oci);
    let docker = Some(Format::Docker);
    for (fields, own, told, wanted) in [
        (&body, media::OCI_MANIFEST, None, oci),
        (&body, media::DOCKER_MANIFEST, None, docker),
        (
            &body,
            media::OCI_MANIFEST,
            Some(media::DOCKER_MANIFEST),
            oci,
        ),
        (&body, "", Some(media::DOCKER_MANIFEST), docker),
        (&body, "", Some("application/json"), oci),
        (&body, "", None, oci),
        (&list, media::OCI_INDEX, None, None),
        (&list, media::DOCKER_LIST, Some("text/plain"), None),
        (&list, "", None, None),
    ] {
        // Neither absent nor empty says anything.
        let absent = match own {
            "" => format!("{{{fields}}}"),
            _ => format!(r#"{{"mediaType":"{own}",{fields}}}"#),
        };
        for text in [absent, format!(r#"{{"mediaType":"{own}",{fields}}}"#)] {
            match Document::parse(text.as_bytes(), told).unwrap() {
                Document::Manifest(m) => assert_eq!(Some(m.format), wanted, "{text}"),
                Document::Index(_) => assert_eq!(None, wanted, "{text}"),
            }
        }
    }
}

#[test]
fn takes_nulls_where_go_writes_them() {
    let config = descriptor(media::DOCKER_CONFIG);
    let nulls = config.replace('}', r#","urls":null,"annotations":null}"#);
    let text =
        format!(r#"{{"schemaVersion":2,"config":{nulls},"layers":null,"annotations":null}}"#);
    let Document::Manifest(read) = Document::parse(text.as_bytes(), None).unwrap() else {
        panic!("an index");
    };
    assert!(read.layers.is_empty() && read.annotations.is_empty());
    let text = br#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}"#;
    assert_eq!(
        Document::parse(text, None).unwrap(),
        Document::Index(Index {
            manifests: Vec::new()
        })
    );

    for text in [
        r#"{}"#,
        r#"{"architecture":null,"os":null,"config":null,"rootfs":null,"history":null,"created":null}"#,
        r#"{"rootfs":{"type":"layers","diff_ids":null}}"#,
        r#"{"config":{"User":null,"ExposedPorts":null,"Env":null,"Entrypoint":null,"Cmd":null,
            "Healthcheck":null,"Volumes":null,"WorkingDir":null,"OnBuild":null,"Labels":null,
            "StopSignal":null,"Shell":null,"ArgsEscaped":null}}"#,
        r#"{"config":{"Healthcheck":{"Test":null,"Interval":null,"Retries":null}}}"#,
        r#"{"history":[{"created":null,"created_by":null,"empty_layer":null}]}"#,
    ] {
        let read: Image = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(read.rootfs.diff_ids.is_empty(), "{text}");
        assert_eq!(read.config.env("PATH"), None, "{text}");
    }
}

#[test]
fn keeps_what_it_does_not_know_in_a_config() {
    let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b","PATH=/x=y"],"Hostname":"h","Volumes":{"/v":{}}},"rootfs":{"type":"layers","diff_ids":[]},"history":[],"moby.buildkit.x":{"y":[1]}}"#;
    let read: Image = serde_json::from_str(text).unwrap();
    assert_eq!(read.config.env("PATH"), Some("/x=y"));
    let value: serde_json::Value = serde_json::from_slice(&read.to_bytes()).unwrap();
    let wanted: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(value, wanted);
    for number in [
        &"4".repeat(105),
        "0.1",
        "123456789012345678901",
        "1.7976931348623157e308",
    ] {
        let text = format!(r#"{{"architecture":"a","os":"o","x":[{number}]}}"#);
        let read: Image = serde_json::from_str(&text).unwrap();
        let again: Image = serde_json::from_slice(&read.to_bytes()).unwrap();
        assert_eq!(again, read, "{number}");
    }
}

#[test]
fn refuses_documents_out_of_bounds() {
    let config = descriptor(media::OCI_CONFIG);
    let many = vec![config.as_str(); 1001].join(",");
    let huge = config.replace(":3}", ":2000000000000000}");
    let negative = config.replace(":3}", ":-3}");
    let odd = config.replace("sha256", "sha999");
    let manifest = |config: &str, layers: &str| {
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
    };
    for (text, wanted) in [
        (String::new(), "EOF"),
        ("[]".into(), "not an image manifest"),
        ("{}".into(), "schemaVersion"),
        ("nonsense".into(), "not an image manifest"),
        (r#"{"schemaVersion":2}"#.into(), "config"),
        (r#"{"mediaType":"text/html"}"#.into(), "text/html"),
        (manifest(&config, &many), "more than 1000"),
        (manifest(&config, &huge), "2000000000000000"),
        (manifest(&huge, ""), "2000000000000000"),
        (manifest(&negative, ""), "invalid value"),
        (manifest(&odd, ""), "sha999"),
        (" ".repeat((8 << 20) + 1), "bound"),
        ("[".repeat(100_000), "not an image manifest"),
    ] {
        let error = Document::parse(text.as_bytes(), None)
            .unwrap_err()
            .to_string();
        let start: String = text.chars().take(80).collect();
        assert!(error.contains(wanted), "{start}: {error}");
    }
}

#[test]
fn writes_manifests_the_same_way_each_time() {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        media::OCI_MANIFEST,
        descriptor(media::OCI_CONFIG),
        descriptor(media::OCI_LAYER_GZIP)
    );
    let Document::Manifest(read) = Document::parse(text.as_bytes(), None).unwrap() else {
        panic!("an index");
    };
    assert_eq!(read.to_bytes(), text.as_bytes());
}

#[test]
fn chains_layers() {
    let ids = [Digest::of(b"a"), Digest::of(b"b")];
    let chain = Image::chain_ids(&ids);
    assert_eq!(chain[0], ids[0]);
    assert_eq!(
        chain[1],
        Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes())
    );
}
