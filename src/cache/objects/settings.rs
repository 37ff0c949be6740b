//! From variables to a store that can be asked.

use super::carrier::Carrier;
use crate::net::{Client, Url};
use crate::request::{Hidden, ObjectKind, ObjectStore as Wanted, RegistryOptions};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ObjectStore, Result, RetryConfig};
use std::str::FromStr;
use std::sync::Arc;

/// Makes the client of a store.
pub(super) fn store(
    wanted: &Wanted,
    registry: &RegistryOptions,
    client: &Client,
) -> Result<Arc<dyn ObjectStore>> {
    let carrier = Carrier::new(client, registry);
    let retry = client.settings().retry;
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: retry.base,
            max_backoff: retry.longest,
            base: 2.0,
        },
        max_retries: retry.attempts.saturating_sub(1) as usize,
        retry_timeout: retry.total,
    };
    match wanted.kind {
        ObjectKind::S3 => s3(wanted, carrier, retry),
        ObjectKind::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::new();
            for (key, value) in settings::<GoogleConfigKey>(wanted) {
                builder = builder.with_config(key, value);
            }
            let builder = builder.with_bucket_name(&wanted.bucket);
            let builder = builder.with_http_connector(carrier).with_retry(retry);
            Ok(Arc::new(builder.build()?))
        }
        ObjectKind::Azure => {
            let mut builder = MicrosoftAzureBuilder::new();
            // What its command line tools call the account.
            if let Some(account) = setting(wanted, "azure_storage_account") {
                builder = builder.with_account(account);
            }
            for (key, value) in settings::<AzureConfigKey>(wanted) {
                builder = builder.with_config(key, value);
            }
            let builder = builder.with_container_name(&wanted.bucket);
            let builder = builder.with_http_connector(carrier).with_retry(retry);
            Ok(Arc::new(builder.build()?))
        }
    }
}

fn s3(wanted: &Wanted, carrier: Carrier, retry: RetryConfig) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new();
    for (key, value) in settings::<AmazonS3ConfigKey>(wanted) {
        builder = builder.with_config(key, value);
    }
    let endpoint = ["s3_endpoint", "aws_endpoint_url_s3", "aws_endpoint_url"];
    let endpoint = endpoint.iter().find_map(|name| setting(wanted, name));
    let force = setting(wanted, "s3_force_path_style").and_then(|text| yes_or_no(&text));
    // Servers of one's own seldom have names for buckets; Amazon's certificate does not hold for
    // buckets with dots in their names.
    let by_path = force.unwrap_or(endpoint.is_some() || wanted.bucket.contains('.'));
    if let Some(endpoint) = endpoint {
        let endpoint = match endpoint.contains("://") {
            true => endpoint,
            false => format!("https://{endpoint}"),
        };
        let full = match by_path {
            true => endpoint,
            false => below(&endpoint, &wanted.bucket),
        };
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, full);
    }
    let builder = builder
        .with_bucket_name(&wanted.bucket)
        .with_virtual_hosted_style_request(!by_path)
        .with_http_connector(carrier)
        .with_retry(retry);
    Ok(Arc::new(builder.build()?))
}

/// Gives an endpoint with the bucket as the first part of the host's name.
fn below(endpoint: &str, bucket: &str) -> String {
    let Ok(mut url) = Url::parse(endpoint) else {
        return endpoint.to_owned();
    };
    let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
    match url.set_host(Some(&host)) {
        Ok(()) => url.as_str().trim_end_matches('/').to_owned(),
        Err(_) => endpoint.to_owned(),
    }
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

fn setting(wanted: &Wanted, name: &str) -> Option<String> {
    let Hidden(bytes) = wanted.settings.get(name)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// Gives the settings that mean something to a protocol.
fn settings<K: FromStr>(wanted: &Wanted) -> Vec<(K, String)> {
    let all = wanted.settings.iter();
    all.filter_map(|(name, Hidden(bytes))| {
        Some((
            name.parse().ok()?,
            String::from_utf8_lossy(bytes).into_owned(),
        ))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn buckets_as_hosts() {
        for (endpoint, full) in [
            ("http://s3.example:9000", "http://b.s3.example:9000"),
            ("https://s3.example/", "https://b.s3.example"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(below(endpoint, "b"), full, "{endpoint}");
        }
    }
}
