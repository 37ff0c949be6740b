use super::Error;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Whether a server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Against the roots, and the host's name.
    #[default]
    Full,
    /// Not at all: whoever answers is believed.
    Skip,
}

/// How TLS is spoken with one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Whether the server's certificate is checked.
    pub verify: Verify,
    /// Certificate authorities, or certificates of servers themselves, beside the system's: PEM
    /// files.
    pub roots: Vec<PathBuf>,
    /// Client certificate chain and key, PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Certificate authorities that stand for the system's; where there are neither, the usual places
/// are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemRoots {
    /// A PEM file, which has to be usable.
    pub file: Option<PathBuf>,
    /// Directories of PEM files; what cannot be used in them is passed over.
    pub dirs: Vec<PathBuf>,
}

/// Where distributions keep the bundle of all authorities; the first that is there counts.
const BUNDLES: [&str; 6] = [
    // Debian, Alpine, Arch.
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora.
    "/etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE.
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where single authorities lie, where there is no bundle.
const DIRECTORY: &str = "/etc/ssl/certs";

/// The authorities that are believed everywhere, read once.
pub(super) struct Authorities {
    system: SystemRoots,
    read: Mutex<Option<Result<RootCertStore, Unusable>>>,
}

/// The file that could not be used, and why.
type Unusable = (PathBuf, String);

impl Authorities {
    pub(super) fn new(system: SystemRoots) -> Authorities {
        Authorities {
            system,
            read: Mutex::default(),
        }
    }

    /// Reads them where that has not been done. What is wrong with them is told when they are wanted.
    pub(super) fn read(&self) {
        // It is the same error.
        let _ = self.roots();
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match &mut *read {
            Some(read) => read,
            none => none.insert(match system_roots(&self.system) {
                Ok(roots) => Ok(roots),
                Err(Error::Pem { path, why }) => Err((path, why)),
                Err(Error::File { path, source }) => Err((path, source.to_string())),
                Err(other) => return Err(other),
            }),
        };
        match read {
            Ok(roots) => Ok(roots.clone()),
            Err((path, why)) => Err(unusable(path, why)),
        }
    }
}

/// Reads the system's authorities, or those that stand for them; where there are none, gives the
/// ones compiled in: an image made from scratch has no bundle.
fn system_roots(system: &SystemRoots) -> Result<RootCertStore, Error> {
    use rustls_native_certs::load_certs_from_paths;
    let mut roots = RootCertStore::empty();
    if let Some(file) = &system.file {
        // Who names a file must not get other authorities in silence.
        let (usable, _) = roots.add_parsable_certificates(certificates(file)?);
        if usable == 0 {
            return Err(unusable(
                file,
                "there is no certificate of an authority in it",
            ));
        }
    }
    let mut add = |file: Option<&Path>, dir: Option<&Path>| {
        roots.add_parsable_certificates(load_certs_from_paths(file, dir).certs);
    };
    for dir in &system.dirs {
        add(None, Some(dir));
    }
    if *system == SystemRoots::default() {
        match BUNDLES
            .map(Path::new)
            .into_iter()
            .find(|file| file.is_file())
        {
            Some(file) => add(Some(file), None),
            None => add(None, Some(Path::new(DIRECTORY))),
        }
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

/// Makes the configuration of TLS.
pub(super) fn config(tls: &Tls, system: &Authorities) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Setup(e.to_string()))?;
    let trust = match tls.verify {
        Verify::Skip => Trust::Any,
        Verify::Full => {
            let mut roots = system.roots()?;
            let mut own = Vec::new();
            for path in &tls.roots {
                for certificate in certificates(path)? {
                    roots
                        .add(certificate.clone())
                        .map_err(|e| unusable(path, &e.to_string()))?;
                    own.push(certificate);
                }
            }
            let roots = Arc::new(roots);
            let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|e| Error::Setup(e.to_string()))?;
            Trust::Usual { inner, own }
        }
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Check { provider, trust }));
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|e| pem(key, e, "a private key"))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| unusable(certificate, &e.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Makes a configuration that accepts no certificate at all, for clients that never speak TLS; it
/// spares them reading the system's certificates.
pub(super) fn none() -> Result<ClientConfig, Error> {
    Ok(
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Setup(e.to_string()))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    )
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|e| pem(path, e, "a certificate"))?;
    if all.is_empty() {
        return Err(unusable(path, "there is no certificate in PEM form in it"));
    }
    Ok(all)
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::Pem {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

fn pem(path: &Path, error: PemError, wanted: &str) -> Error {
    match error {
        PemError::Io(source) => Error::File {
            path: path.to_owned(),
            source: io::Error::new(source.kind(), source.to_string()),
        },
        PemError::NoItemsFound => {
            unusable(path, &format!("there is not {wanted} in PEM form in it"))
        }
        other => unusable(path, &other.to_string()),
    }
}

/// How the certificate of a server is checked; that the server holds its key is seen to in any case.
#[derive(Debug)]
struct Check {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

#[derive(Debug)]
enum Trust {
    /// Any certificate.
    Any,
    /// The usual check, which also takes a certificate that the user named himself.
    ///
    /// What `openssl req -x509` makes is a certificate authority and the server's certificate in
    /// one. The check beneath refuses such a server although the user said to trust this very
    /// certificate; that alone is forgiven here: validity is looked at before, and the name is looked
    /// at after.
    Usual {
        inner: Arc<WebPkiServerVerifier>,
        own: Vec<CertificateDer<'static>>,
    },
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Usual { inner, own } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let answer =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let is_own = || own.iter().any(|own| own.as_ref() == end_entity.as_ref());
        match &answer {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(why)))
                if why.0.to_string().contains("CaUsedAsEndEntity") && is_own() =>
            {
                let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
