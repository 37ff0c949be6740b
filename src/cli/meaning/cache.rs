//! What is looked up instead of made again, and where.

use super::context::clean;
use crate::cli::duration::duration;
use crate::cli::flags::Typed;
use crate::cli::parse::Usage;
use crate::cli::surroundings::Surroundings;
use crate::oci::Reference;
use crate::request::{CachePlace, Caching, Hidden, ObjectKind, ObjectStore};
use std::collections::BTreeMap;
use std::time::Duration;

/// How old an entry may be where nothing is said: two weeks, as with kaniko.
const TTL: Duration = Duration::from_secs(336 * 3600);

pub(super) fn caching(
    typed: &Typed,
    pushed: &[Reference],
    around: &Surroundings,
) -> Result<Option<Caching>, Usage> {
    let place = |flag: &str, text: &str| place(flag, text, around);
    let to = match (&typed.cache_repo, pushed.first()) {
        (Some(text), _) => Some(place("--cache-repo", text)?),
        (None, Some(destination)) => Some(CachePlace::Registry(Reference {
            repository: format!("{}/cache", destination.repository),
            tag: None,
            digest: None,
            ..destination.clone()
        })),
        (None, None) => None,
    };
    let from = typed.cache_from.iter();
    let from = from.map(|text| place("--cache-from", text));
    let from = from.collect::<Result<_, _>>()?;
    let ttl = match &typed.cache_ttl {
        Some(text) => duration(text).ok_or_else(|| {
            Usage::new(format!(
                "--cache-ttl: `{text}` is no time: numbers with h, m or s are wanted, such as 1h30m"
            ))
        })?,
        None => TTL,
    };
    if !typed.cache && !typed.cache_mounts {
        return Ok(None);
    }
    Ok(Some(Caching {
        to: to.into_iter().collect(),
        from,
        writes: !typed.no_push_cache,
        ttl,
        copies: typed.cache && typed.cache_copy_layers.unwrap_or(true),
        runs: typed.cache && typed.cache_run_layers.unwrap_or(true),
        mounts: typed.cache_mounts,
    }))
}

/// Reads a place of the cache: a repository, `oci:DIR`, `s3://BUCKET[/PREFIX]`, `gs://BUCKET[/PREFIX]`,
/// `azblob://CONTAINER[/PREFIX]`, or what kaniko takes for Azure's contexts:
/// `https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]`.
fn place(flag: &str, text: &str, around: &Surroundings) -> Result<CachePlace, Usage> {
    if let Some(dir) = text.strip_prefix("oci:") {
        if dir.is_empty() {
            return Err(Usage::new(format!("{flag}: `{text}` names no directory")));
        }
        return Ok(CachePlace::Layout(clean(&around.cwd.join(dir))));
    }
    if let Some(Address { kind, rest, more }) = object_store(text) {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['?', '#', '@']) || prefix.contains(['?', '#']) {
            return Err(Usage::new(format!(
                "{flag}: `{text}` names no bucket: {} is wanted",
                match kind {
                    ObjectKind::S3 => "s3://BUCKET[/PREFIX]",
                    ObjectKind::Gcs => "gs://BUCKET[/PREFIX]",
                    ObjectKind::Azure => "azblob://CONTAINER[/PREFIX]",
                }
            )));
        }
        let mut settings = settings(kind, around);
        let more = more.into_iter();
        settings.extend(more.map(|(key, value)| (key, Hidden(value.into_bytes()))));
        return Ok(CachePlace::Objects(ObjectStore {
            kind,
            text: text.trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            settings,
        }));
    }
    let reference = super::reference(flag, text)?;
    if reference.digest.is_some() {
        return Err(Usage::new(format!(
            "{flag}: `{text}` is an image: a repository is wanted, without a digest"
        )));
    }
    Ok(CachePlace::Registry(Reference {
        tag: None,
        ..reference
    }))
}

/// The ends of names of Azure's hosts of blobs: its four clouds.
const AZURE_HOSTS: [&str; 4] = [
    ".blob.core.windows.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.cloudapi.de",
];

/// What the address of an object store says.
struct Address<'a> {
    kind: ObjectKind,
    /// Bucket and prefix.
    rest: &'a str,
    /// The settings that it stands for.
    more: Vec<(String, String)>,
}

/// Reads the address of an object store; none where it is something else's.
fn object_store(text: &str) -> Option<Address<'_>> {
    for (scheme, kind) in [
        ("s3://", ObjectKind::S3),
        ("gs://", ObjectKind::Gcs),
        ("azblob://", ObjectKind::Azure),
    ] {
        if let Some(rest) = text.strip_prefix(scheme) {
            let more = Vec::new();
            return Some(Address { kind, rest, more });
        }
    }
    let (host, rest) = text.strip_prefix("https://")?.split_once('/')?;
    let account = AZURE_HOSTS.iter().find_map(|end| host.strip_suffix(end))?;
    let settings = [
        ("azure_storage_account_name", account.to_owned()),
        ("azure_storage_endpoint", format!("https://{host}")),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value));
    Some(Address {
        kind: ObjectKind::Azure,
        rest,
        more: settings.into(),
    })
}

/// Takes the variables that say how a kind of object store is talked to.
fn settings(kind: ObjectKind, around: &Surroundings) -> BTreeMap<String, Hidden> {
    let (prefix, others): (&str, &[&str]) = match kind {
        ObjectKind::S3 => ("AWS_", &["S3_ENDPOINT", "S3_FORCE_PATH_STYLE"]),
        ObjectKind::Gcs => ("GOOGLE_", &[]),
        ObjectKind::Azure => ("AZURE_", &["IDENTITY_ENDPOINT"]),
    };
    let names = around.env.keys().filter_map(|name| name.to_str());
    let names = names.filter(|name| name.starts_with(prefix) || others.contains(name));
    let taken = names.filter_map(|name| {
        let value = Hidden(around.text(name)?.as_bytes().to_vec());
        Some((name.to_ascii_lowercase(), value))
    });
    let mut out: BTreeMap<String, Hidden> = taken.collect();
    if kind == ObjectKind::Gcs
        && !out.contains_key("google_application_credentials")
        && let Some(home) = around.path("HOME")
    {
        let file = home.join(".config/gcloud/application_default_credentials.json");
        if let Some(text) = file.to_str().filter(|_| file.exists()) {
            let name = "google_application_credentials".to_owned();
            out.insert(name, Hidden(text.as_bytes().to_vec()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Address, object_store};
    use crate::request::ObjectKind;

    #[test]
    fn addresses_of_object_stores() {
        let azure = ObjectKind::Azure;
        for (text, found) in [
            ("s3://b", Some((ObjectKind::S3, "b", None))),
            ("s3://b/p/q", Some((ObjectKind::S3, "b/p/q", None))),
            ("gs://b/p", Some((ObjectKind::Gcs, "b/p", None))),
            ("azblob://c", Some((azure, "c", None))),
            (
                "https://a.blob.core.windows.net/c/p",
                Some((azure, "c/p", Some("https://a.blob.core.windows.net"))),
            ),
            (
                "https://a.blob.core.usgovcloudapi.net/c",
                Some((azure, "c", Some("https://a.blob.core.usgovcloudapi.net"))),
            ),
            ("https://blob.core.windows.net/c", None),
            ("https://a.example/c", None),
            ("registry.example/s3/cache", None),
        ] {
            let got = object_store(text);
            let got = got.as_ref().map(|Address { kind, rest, more }| {
                let mut more = more.iter();
                let endpoint = more.find(|(key, _)| key == "azure_storage_endpoint");
                (*kind, *rest, endpoint.map(|(_, value)| value.as_str()))
            });
            assert_eq!(got, found, "{text}");
        }
    }
}
