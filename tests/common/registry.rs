//! Starts Distribution's registry for tests, on a free port of the loopback, and ends it on drop.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a registry is to be reached.
#[derive(Default)]
pub struct Setup {
    /// User and password, for Basic.
    pub login: Option<(String, String)>,
    /// Certificate and key of the server.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Authority that clients' certificates have to come from.
    pub client_ca: Option<PathBuf>,
    /// Whether it notes what it is asked.
    pub notes_requests: bool,
}

/// A running registry.
pub struct Registry {
    /// `127.0.0.1:PORT`
    pub host: String,
    child: Child,
    dir: tempfile::TempDir,
}

impl Registry {
    /// Gives where the registry keeps a blob, by the hexadecimal digits of its digest.
    pub fn blob_path(&self, hex: &str) -> PathBuf {
        self.dir
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    /// Gives what it was asked so far, where it notes that: `GET /v2/...`.
    pub fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("access")).unwrap();
        let asked = log.lines().filter_map(|line| line.split('"').nth(1));
        asked
            .map(|asked| asked.trim_end_matches(" HTTP/1.1").to_owned())
            .filter(|asked| !asked.ends_with(" /v2/"))
            .collect()
    }

    /// Gives the hexadecimal digits of the digests of all blobs and manifests that it keeps.
    pub fn hexes(&self) -> Vec<String> {
        let all = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        let mut out = Vec::new();
        for first in std::fs::read_dir(all).into_iter().flatten().flatten() {
            let found = std::fs::read_dir(first.path()).into_iter().flatten();
            out.extend(
                found
                    .flatten()
                    .map(|e| e.file_name().to_string_lossy().into_owned()),
            );
        }
        out
    }

    /// Gives the directory that has all of it.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Tells whether a repository has a tag.
    pub fn has_tag(&self, repository: &str, tag: &str) -> bool {
        self.dir
            .path()
            .join("data/docker/registry/v2/repositories")
            .join(repository)
            .join("_manifests/tags")
            .join(tag)
            .join("current/link")
            .exists()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that the tests need and gives what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("these tests need `{program}` to be installed: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Starts a registry without login and TLS.
pub fn start() -> Registry {
    start_with(&Setup::default())
}

/// Starts a registry.
pub fn start_with(setup: &Setup) -> Registry {
    // Between the probe of a free port and the registry's own bind another process may take it.
    for _ in 0..5 {
        if let Some(registry) = try_start(setup) {
            return registry;
        }
    }
    panic!("no registry came up");
}

fn try_start(setup: &Setup) -> Option<Registry> {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let host = format!("127.0.0.1:{port}");
    let mut config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: {}}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: {host}\n",
        !setup.notes_requests,
        dir.path().join("data").display()
    );
    if let Some((certificate, key)) = &setup.tls {
        let _ = write!(
            config,
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        );
        if let Some(ca) = &setup.client_ca {
            let _ = writeln!(config, "    clientcas: [{}]", ca.display());
        }
    }
    if let Some((user, password)) = &setup.login {
        let path = dir.path().join("htpasswd");
        let line = run("htpasswd", &["-nbB", "-C", "4", user, password]);
        std::fs::write(&path, line).unwrap();
        let _ = write!(
            config,
            "auth:\n  htpasswd: {{realm: test, path: {}}}\n",
            path.display()
        );
    }
    let file = dir.path().join("config.yml");
    std::fs::write(&file, config).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(dir.path().join("access")).unwrap())
        .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
        .spawn()
        .unwrap_or_else(|e| panic!("these tests need `docker-registry` to be installed: {e}"));
    let mut registry = Registry { host, child, dir };
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if TcpStream::connect(&registry.host).is_ok() {
            return Some(registry);
        }
        if registry.child.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::yield_now();
    }
    None
}

/// Certificates for tests: an authority, a server on the loopback and a client.
pub struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    /// Makes them with openssl.
    pub fn make() -> Certificates {
        let dir = tempfile::tempdir().unwrap();
        let made = Certificates { dir };
        let path = |name: &str| made.path(name).to_str().unwrap().to_owned();
        let new = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let mut ca = vec!["req", "-x509", "-subj", "/CN=test authority", "-days", "2"];
        let (ca_key, ca_cert) = (path("ca.key"), path("ca.pem"));
        ca.extend(new);
        ca.extend(["-keyout", &ca_key, "-out", &ca_cert]);
        run("openssl", &ca);
        for (name, extensions) in [
            (
                "server",
                "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n",
            ),
            ("client", "extendedKeyUsage=clientAuth\n"),
        ] {
            let (key, request, cert, ext) = (
                path(&format!("{name}.key")),
                path(&format!("{name}.csr")),
                path(&format!("{name}.pem")),
                path(&format!("{name}.ext")),
            );
            let subject = format!("/CN={name}");
            let mut ask = vec!["req", "-subj", &subject];
            ask.extend(new);
            ask.extend(["-keyout", &key, "-out", &request]);
            run("openssl", &ask);
            std::fs::write(&ext, extensions).unwrap();
            run(
                "openssl",
                &[
                    "x509",
                    "-req",
                    "-in",
                    &request,
                    "-CA",
                    &ca_cert,
                    "-CAkey",
                    &ca_key,
                    "-CAcreateserial",
                    "-days",
                    "2",
                    "-extfile",
                    &ext,
                    "-out",
                    &cert,
                ],
            );
        }
        // What people make in a hurry: authority and server in one.
        let (key, cert) = (path("self.key"), path("self.pem"));
        let mut one = vec!["req", "-x509", "-subj", "/CN=self", "-days", "2"];
        one.extend(["-addext", "subjectAltName=IP:127.0.0.1"]);
        one.extend(new);
        one.extend(["-keyout", &key, "-out", &cert]);
        run("openssl", &one);
        made
    }

    /// Gives a file: `ca`, `server`, `client`, `self` with `.pem` or `.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives certificate and key by name.
    pub fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        )
    }
}
