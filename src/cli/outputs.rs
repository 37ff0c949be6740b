//! The small files that say what was built: digest, image names, results for the surroundings.

use super::meaning::Options;
use crate::build::{Built, Identity};
use crate::oci::Reference;
use crate::request::Request;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{flag}: write {path}")]
pub(super) struct Error {
    /// The flag or variable that wants it.
    flag: &'static str,
    /// Which file.
    path: PathBuf,
    /// Why not.
    source: io::Error,
}

/// Writes what the request and the surroundings want written after a build. Each file is put in
/// place by a rename, so that a reader finds all of it or none.
pub(super) fn write(request: &Request, options: &Options, built: &Built) -> Result<(), Error> {
    // Every note but the metadata is of an image; where one is asked for there is an image.
    let digest = built
        .image
        .as_ref()
        .map(|image| image.manifest.digest.to_string());
    let digest = digest.unwrap_or_default();
    let lines = |line: &dyn Fn(&Reference) -> String| -> String {
        options.names.iter().map(line).collect()
    };
    let files = [
        ("--digest-file", &request.digest_file, digest.clone()),
        (
            "--image-name-with-digest-file",
            &request.image_name_with_digest_file,
            lines(&|name| format!("{}@{digest}\n", go_name(name))),
        ),
        (
            "--image-name-tag-with-digest-file",
            &request.image_name_tag_with_digest_file,
            lines(&|name| format!("{}{}@{digest}\n", go_name(name), tag(name))),
        ),
    ];
    for (flag, path, text) in files {
        if let Some(path) = path {
            replace(path, text.as_bytes()).map_err(|source| Error {
                flag,
                path: path.clone(),
                source,
            })?;
        }
    }
    if let Some(path) = &options.metadata_file {
        let text = metadata(options, built).to_string() + "\n";
        replace(path, text.as_bytes()).map_err(|source| Error {
            flag: "--metadata-file",
            path: path.clone(),
            source,
        })?;
    }
    if let Some(dir) = &options.builder_output
        && !built.pushed.is_empty()
    {
        let path = dir.join("images");
        let text: String = built
            .pushed
            .iter()
            .map(|name| {
                let name = format!("{}{}", go_name(name), tag(name));
                serde_json::json!({"name": name, "digest": digest}).to_string() + "\n"
            })
            .collect();
        append(&path, text.as_bytes()).map_err(|source| Error {
            flag: "BUILDER_OUTPUT",
            path,
            source,
        })?;
    }
    if let Some(path) = &options.termination_log
        && built.image.is_some()
    {
        // Kubernetes mounts this file where it wants last words, and does not want it replaced;
        // not having one, or not being allowed to write, is no fault of the build.
        let file = std::fs::OpenOptions::new().write(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(digest.as_bytes()));
    }
    Ok(())
}

/// Says what was built under the names that buildx has for it.
fn metadata(options: &Options, built: &Built) -> serde_json::Value {
    let mut out = serde_json::Map::new();
    let Some(Identity { manifest, config }) = &built.image else {
        return out.into();
    };
    let mut put = |key: &str, value: serde_json::Value| out.insert(key.into(), value);
    put("containerimage.config.digest", config.to_string().into());
    let descriptor = serde_json::json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest.to_string(),
        "size": manifest.size,
    });
    put("containerimage.descriptor", descriptor);
    put("containerimage.digest", manifest.digest.to_string().into());
    let names: Vec<String> = options.names.iter().map(ToString::to_string).collect();
    if !names.is_empty() {
        put("image.name", names.join(",").into());
    }
    out.into()
}

/// Gives `registry/repository` as go-containerregistry spells it, which kaniko's readers expect.
fn go_name(name: &Reference) -> String {
    match name.registry.as_str() {
        "docker.io" => format!("index.docker.io/{}", name.repository),
        _ => name.name(),
    }
}

fn tag(name: &Reference) -> String {
    match &name.tag {
        Some(tag) => format!(":{tag}"),
        None => String::new(),
    }
}

/// Writes a file beside its place and renames it into place. What is no regular file (a pipe,
/// /dev/stdout) is written to instead.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(meta) if !meta.is_file() => return std::fs::write(path, bytes),
        _ => {}
    }
    // A link keeps its place and its target gets the content.
    let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let dir = place.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = dir.join(beside);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, &place));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::meaning::{self, Options};
    use crate::cli::parse::{Called, Command, parse};
    use crate::cli::surroundings::Surroundings;
    use crate::oci::{Descriptor, Digest};

    /// Means a command line in a directory that has a Dockerfile.
    fn meant(dir: &Path, args: &[&str]) -> (Request, Options) {
        std::fs::write(dir.join("Dockerfile"), "FROM scratch\n").unwrap();
        let args: Vec<_> = std::iter::once("build")
            .chain(args.iter().copied())
            .map(Into::into)
            .collect();
        let Ok(Command::Build(typed)) = parse(Called::Shutter, &args) else {
            panic!("{args:?} is no build");
        };
        let around = Surroundings {
            called: Called::Shutter,
            env: Default::default(),
            cwd: dir.to_path_buf(),
            uid: 0,
            stdout: crate::cli::surroundings::Stdout::Open,
            container: None,
            program: None,
            volumes: Vec::new(),
            own_image: false,
        };
        meaning::mean(*typed, &around).unwrap()
    }

    fn built(pushed: &[Reference]) -> Built {
        Built {
            image: Some(Identity {
                manifest: Descriptor {
                    media_type: "application/x".into(),
                    digest: Digest::of(b""),
                    size: 7,
                    urls: Vec::new(),
                    annotations: Default::default(),
                },
                config: Digest::of(b"config"),
            }),
            pushed: pushed.to_vec(),
        }
    }

    #[test]
    fn notes_of_a_build_are_as_kaniko_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let (request, mut options) = meant(
            dir.path(),
            &[
                "-d=localhost:5000/a/b:v1",
                "-d=debian",
                "--digest-file=sub/digest",
                "--image-name-with-digest-file=names",
                "--image-name-tag-with-digest-file=tags",
                "--metadata-file=meta.json",
            ],
        );
        options.builder_output = Some(dir.path().to_path_buf());
        options.termination_log = Some(dir.path().join("last-words"));
        std::fs::write(dir.path().join("last-words"), "").unwrap();
        let built = built(&request.destinations[..1]);
        let digest = Digest::of(b"");
        write(&request, &options, &built).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("sub/digest"), digest.to_string());
        assert_eq!(read("last-words"), digest.to_string());
        assert_eq!(
            read("names"),
            format!("localhost:5000/a/b@{digest}\nindex.docker.io/library/debian@{digest}\n")
        );
        assert_eq!(
            read("tags"),
            format!(
                "localhost:5000/a/b:v1@{digest}\nindex.docker.io/library/debian:latest@{digest}\n"
            )
        );
        assert_eq!(
            read("images"),
            format!("{{\"name\":\"localhost:5000/a/b:v1\",\"digest\":\"{digest}\"}}\n")
        );
        let metadata: serde_json::Value = serde_json::from_str(&read("meta.json")).unwrap();
        assert_eq!(
            metadata,
            serde_json::json!({
                "containerimage.config.digest": Digest::of(b"config").to_string(),
                "containerimage.descriptor": {
                    "mediaType": "application/x", "digest": digest.to_string(), "size": 7,
                },
                "containerimage.digest": digest.to_string(),
                "image.name": "localhost:5000/a/b:v1,docker.io/library/debian:latest",
            })
        );
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(
            !left
                .iter()
                .any(|name| name.to_string_lossy().ends_with(".tmp")),
            "{left:?}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_with_its_flag() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        let (request, options) = meant(dir.path(), &["-d=x/y", "--digest-file=taken"]);
        let built = built(&[]);
        let error = write(&request, &options, &built).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "--digest-file: write {}",
                dir.path().join("taken").display()
            )
        );
    }
}
