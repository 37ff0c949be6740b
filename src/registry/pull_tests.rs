use super::*;

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

fn index(entries: &[Option<&str>]) -> Index {
    Index {
        manifests: entries
            .iter()
            .enumerate()
            .map(|(at, entry)| {
                let descriptor = Descriptor {
                    media_type: media::OCI_MANIFEST.into(),
                    digest: Digest::of(at.to_string().as_bytes()),
                    size: at as u64,
                    urls: Vec::new(),
                    annotations: Default::default(),
                };
                (descriptor, entry.map(platform))
            })
            .collect(),
    }
}

#[test]
fn chooses_the_best_image_for_a_platform() {
    for (wanted, entries, chosen) in [
        ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some(1)),
        ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
        ("linux/amd64", &["linux/amd64/v3"], Some(0)),
        (
            "linux/amd64/v2",
            &["linux/amd64", "linux/amd64/v2"],
            Some(1),
        ),
        (
            "linux/amd64/v2",
            &["linux/amd64/v3", "linux/amd64"],
            Some(1),
        ),
        ("linux/arm64", &["linux/arm64/v8"], Some(0)),
        ("linux/arm64/v8", &["linux/arm64"], Some(0)),
        ("linux/arm64", &["linux/arm64/v9"], None),
        (
            "linux/arm/v7",
            &["linux/arm/v5", "linux/arm/v6", "linux/arm64"],
            Some(1),
        ),
        ("linux/arm/v6", &["linux/arm/v7", "linux/arm/v5"], Some(1)),
        ("linux/arm/v5", &["linux/arm/v7"], None),
        ("linux/amd64", &["windows/amd64"], None),
        ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
        ("linux/amd64", &[], None),
    ] {
        let all: Vec<_> = entries.iter().copied().map(Some).collect();
        let got = choose(&index(&all), &platform(wanted)).ok().map(|d| d.size);
        assert_eq!(got, chosen, "{wanted} of {entries:?}");
    }
    let only = index(&[None]);
    assert!(choose(&only, &platform("linux/amd64")).is_ok());
    let two = index(&[None, None, Some("unknown/unknown"), Some("linux/s390x")]);
    let have = choose(&two, &platform("linux/amd64")).unwrap_err();
    assert_eq!(have, [platform("linux/s390x")]);
}
