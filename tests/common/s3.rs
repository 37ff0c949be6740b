//! A real S3 server, which checks signatures and keeps objects as files.
#![allow(dead_code)]

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::path::PathBuf;

pub const KEY: &str = "test-key";
pub const SECRET: &str = "test-secret";
pub const BUCKET: &str = "builds";

/// A running server with one bucket; it ends with the test.
pub struct S3 {
    pub port: u16,
    dir: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

impl S3 {
    /// Starts one on all addresses of this machine.
    pub fn start() -> S3 {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join(BUCKET)).expect("a bucket");
        let files = s3s_fs::FileSystem::new(dir.path()).expect("a file system");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("0.0.0.0:0"))
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        S3 {
            port,
            dir,
            runtime: Some(runtime),
        }
    }

    /// Gives the names of all objects of the bucket.
    pub fn objects(&self) -> Vec<String> {
        let top = self.dir.path().join(BUCKET);
        let mut out = Vec::new();
        let mut dirs = vec![top.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).expect("list").flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => {
                        let name = path.strip_prefix(&top).expect("below");
                        out.push(name.to_string_lossy().into_owned());
                    }
                }
            }
        }
        out.sort();
        out
    }

    /// Gives what a program has to have in its environment to use it at this endpoint.
    pub fn env(endpoint: &str) -> [(&str, &str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "eu-north-1"),
            ("AWS_ENDPOINT_URL", endpoint),
        ]
    }

    /// Gives where an object is kept.
    pub fn path(&self, object: &str) -> PathBuf {
        self.dir.path().join(BUCKET).join(object)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
