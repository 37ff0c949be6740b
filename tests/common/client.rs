//! Registry clients, references and blobs for tests.
#![allow(dead_code)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shutter::net::{Retry, Settings};
use shutter::oci::{Descriptor, Digest, Reference, media};
use shutter::progress::{Owner, Sink, Span, Work};
use shutter::registry::Registry;
use shutter::request::RegistryOptions;
use shutter::sys::Cancel;
use std::io::{Read, Write};
use std::time::Duration;

pub fn options() -> RegistryOptions {
    RegistryOptions {
        insecure_pull: true,
        insecure_push: true,
        ..RegistryOptions::default()
    }
}

pub fn client(options: RegistryOptions) -> Registry {
    client_with(options, Cancel::new().unwrap())
}

pub fn client_with(options: RegistryOptions, cancel: Cancel) -> Registry {
    let settings = Settings {
        retry: Retry {
            base: Duration::ZERO,
            ..Retry::default()
        },
        ..Settings::default()
    };
    Registry::with_settings(options, settings, cancel).unwrap()
}

pub fn image(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

pub fn span() -> Span {
    Sink::none().span(Owner::Build, Work::Push, "", None)
}

/// A blob in a file.
pub struct Blob {
    pub descriptor: Descriptor,
    pub file: tempfile::NamedTempFile,
    pub bytes: Vec<u8>,
}

pub fn blob(bytes: Vec<u8>) -> Blob {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    Blob {
        descriptor: descriptor(&bytes),
        file,
        bytes,
    }
}

pub fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media::OCI_LAYER_GZIP.into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
    }
}

/// Bytes that differ from place to place.
pub fn noise(length: usize) -> Vec<u8> {
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

pub fn all(registry: &Registry, image: &Reference, blob: &Descriptor) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    registry
        .pull_blob(image, blob)
        .map_err(std::io::Error::other)?
        .read_to_end(&mut out)?;
    Ok(out)
}

pub fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
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
pub fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        out += &format!(": {e}");
        next = e.source();
    }
    let error = error.downcast_ref::<shutter::registry::Error>();
    if let Some(hint) = error.and_then(shutter::registry::Error::hint) {
        out += &format!("\nhint: {hint}");
    }
    out
}

pub fn auth_file(host: &str, entry: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, r#"{{"auths":{{"{host}":{entry}}}}}"#).unwrap();
    file
}

pub fn login(user: &str, password: &str) -> String {
    format!(
        r#"{{"auth":"{}"}}"#,
        STANDARD.encode(format!("{user}:{password}"))
    )
}
