//! How registries are talked to, from flags and the environment.

use super::context::clean;
use crate::cli::flags::Typed;
use crate::cli::parse::{Called, Usage};
use crate::cli::surroundings::Surroundings;
use crate::request::RegistryOptions;
use std::collections::BTreeMap;
use std::path::PathBuf;

pub(super) fn registry(typed: &Typed, around: &Surroundings) -> Result<RegistryOptions, Usage> {
    let push_retry = typed.push_retry.unwrap_or(0);
    let path = |file: &str| around.cwd.join(file);
    let mut client_certificates = BTreeMap::new();
    for (host, files) in &typed.registry_client_certs {
        let (cert, key) = files
            .split_once(',')
            .filter(|(cert, key)| !cert.is_empty() && !key.is_empty() && !key.contains(','))
            .ok_or_else(|| {
                Usage::new(format!(
                    "--registry-client-cert: `{host}={files}` is not HOST=CERT,KEY"
                ))
            })?;
        client_certificates.insert(host.clone(), (path(cert), path(key)));
    }
    Ok(RegistryOptions {
        insecure_push: typed.insecure,
        insecure_pull: typed.insecure_pull,
        insecure: typed.insecure_registries.clone(),
        skip_tls_push: typed.skip_tls_verify,
        skip_tls_pull: typed.skip_tls_verify_pull,
        skip_tls: typed.skip_tls_verify_registries.clone(),
        certificates: typed
            .registry_certificates
            .iter()
            .map(|(host, file)| (host.clone(), path(file)))
            .collect(),
        client_certificates,
        push_retry: u32::try_from(push_retry)
            .map_err(|_| Usage::new(format!("--push-retry: {push_retry} is no count")))?,
        auth_files: auth_files(around),
        auth_inline: around.text("DOCKER_AUTH_CONFIG").map(str::to_owned),
        proxies: proxies(around),
        certificate_file: around.path("SSL_CERT_FILE"),
        certificate_dirs: around
            .var("SSL_CERT_DIR")
            .map(|dirs| std::env::split_paths(dirs).collect())
            .unwrap_or_default(),
    })
}

/// Where credentials may lie, nearest first: Docker's directory, then podman's files.
fn auth_files(around: &Surroundings) -> Vec<PathBuf> {
    let mut out = Vec::new();
    match around.path("DOCKER_CONFIG") {
        Some(dir) => out.push(dir),
        None => {
            let home = around.path("HOME");
            if let Some(home) = home.or((around.uid == 0).then(|| "/root".into())) {
                out.push(home.join(".docker"));
            }
        }
    }
    out.extend(around.path("REGISTRY_AUTH_FILE"));
    if let Some(dir) = around.path("XDG_RUNTIME_DIR") {
        out.push(dir.join("containers/auth.json"));
    }
    if around.called == Called::Executor {
        out.push("/kaniko/.docker".into());
    }
    let mut seen = Vec::new();
    for path in out {
        let path = clean(&around.cwd.join(path));
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
    seen
}

/// Proxies by lower-case name; the lower-case variable counts more, as in curl and Go.
fn proxies(around: &Surroundings) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for name in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
        let upper = name.to_ascii_uppercase();
        if let Some(value) = around.text(name).or_else(|| around.text(&upper)) {
            out.insert(name.to_owned(), value.to_owned());
        }
    }
    out
}
