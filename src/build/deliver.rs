//! Where a finished image goes: outputs first, all at the same time, then the manifests.

use super::wait::lock;
use super::{Built, Error, Identity, Shared, layers};
use crate::changeset::{self, Change};
use crate::fs::{Found, Time};
use crate::output::{self, Export, Finished, Unseen};
use crate::progress::{Level, Owner, Work};
use crate::request::{Output, Place, Request};
use rustix::fs::Access;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Tells whether an output wants the blobs of all layers as files.
pub(super) fn wants_blobs(request: &Request) -> bool {
    request.outputs.iter().any(|output| match output {
        Output::DockerTar(_) | Output::OciLayout(_) | Output::OciTar(_) => true,
        Output::Directory(_) | Output::RootTar(_) => false,
    })
}

/// Tells whether an output wants the files of the whole image.
pub(super) fn wants_root(request: &Request) -> bool {
    request.outputs.iter().any(|output| match output {
        Output::Directory(_) | Output::RootTar(_) => true,
        Output::DockerTar(_) | Output::OciLayout(_) | Output::OciTar(_) => false,
    })
}

/// Tells whether anybody gets an image, or its digest; else no layer need be made.
pub(super) fn wants_image(request: &Request) -> bool {
    wants_blobs(request)
        || request.outputs.is_empty()
        || !request.destinations.is_empty()
        || request.digest_file.is_some()
        || request.image_name_with_digest_file.is_some()
        || request.image_name_tag_with_digest_file.is_some()
}

/// Finds out before the build whether its outputs can be written where they are wanted, and makes
/// the directories above files.
pub(super) fn check(request: &Request) -> Result<(), Error> {
    let notes = [
        ("--digest-file", &request.digest_file),
        (
            "--image-name-with-digest-file",
            &request.image_name_with_digest_file,
        ),
        (
            "--image-name-tag-with-digest-file",
            &request.image_name_tag_with_digest_file,
        ),
    ];
    for (flag, path) in notes {
        if let Some(path) = path {
            check_file(&format!("write {flag} {}", path.display()), path)?;
        }
    }
    for output in &request.outputs {
        let action = format!("write the {} {}", what(output), label(output));
        match output {
            Output::DockerTar(Place::File(path))
            | Output::OciTar(Place::File(path))
            | Output::RootTar(Place::File(path)) => check_file(&action, path)?,
            Output::DockerTar(Place::Stdout)
            | Output::OciTar(Place::Stdout)
            | Output::RootTar(Place::Stdout) => {}
            Output::OciLayout(dir) => check_dir(&action, dir)?,
            Output::Directory(dir) => {
                if std::fs::canonicalize(dir).is_ok_and(|dir| dir == Path::new("/")) {
                    let why =
                        "it is the root of this machine, whose files the image's would replace";
                    return Err(Error::other(action, why));
                }
                check_dir(&action, dir)?;
            }
        }
    }
    Ok(())
}

fn check_file(action: &str, path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        let why = "it is a directory; a file is wanted";
        return Err(Error::other(action, why));
    }
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).map_err(|e| Error::other(action, e))?;
        if !path.exists() {
            writable(action, parent)?;
        }
    }
    Ok(())
}

fn check_dir(action: &str, dir: &Path) -> Result<(), Error> {
    if dir.exists() && !dir.is_dir() {
        let why = "it is a file; a directory is wanted";
        return Err(Error::other(action, why));
    }
    match dir.ancestors().find(|above| above.exists()) {
        Some(there) => writable(action, there),
        None => Ok(()),
    }
}

/// Refuses a directory that nothing can be made in, on a read-only file system for one.
fn writable(action: &str, dir: &Path) -> Result<(), Error> {
    let dir = match dir.as_os_str().is_empty() {
        true => Path::new("."),
        false => dir,
    };
    rustix::fs::access(dir, Access::WRITE_OK).map_err(|errno| {
        let why = std::io::Error::from(errno);
        Error::other(action, format!("{}: {why}", dir.display()))
    })
}

fn what(output: &Output) -> &'static str {
    match output {
        Output::DockerTar(_) => "docker archive",
        Output::OciLayout(_) => "OCI layout",
        Output::OciTar(_) => "OCI archive",
        Output::Directory(_) => "image's files",
        Output::RootTar(_) => "archive of the image's files",
    }
}

fn label(output: &Output) -> String {
    match output {
        Output::DockerTar(Place::Stdout)
        | Output::OciTar(Place::Stdout)
        | Output::RootTar(Place::Stdout) => "to standard output".into(),
        Output::DockerTar(Place::File(path))
        | Output::OciTar(Place::File(path))
        | Output::RootTar(Place::File(path))
        | Output::OciLayout(path)
        | Output::Directory(path) => path.display().to_string(),
    }
}

/// Writes all outputs, each beside the others and beside the push of the config, and pushes the
/// manifests once everything is whole.
pub(super) fn deliver(shared: &Shared<'_>, image: Option<&Finished>) -> Result<Built, Error> {
    let config = image.map(|image| keep(shared, image)).transpose()?;
    let files = match wants_root(shared.request) {
        true => files(shared)?,
        false => Vec::new(),
    };
    // An image is in a layout only if it is in everything else too.
    let unseen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        if let (Some(image), Some(config)) = (image, &config) {
            scope.spawn(|| {
                let config = || Ok(config.clone());
                let blob = &image.manifest.config;
                let uploaded = layers::upload(shared, Owner::Build, blob, &config, None);
                shared.failure.check(uploaded)
            });
        }
        for output in &shared.request.outputs {
            let files = &files;
            if !matches!(output, Output::OciLayout(_)) {
                scope.spawn(move || shared.failure.check(write(shared, image, files, output)));
            }
        }
        scope.spawn(|| shared.failure.check(layouts(shared, image, &unseen)));
    });
    finished(shared)?;
    for layout in unseen.into_inner().unwrap_or_else(PoisonError::into_inner) {
        layout
            .publish()
            .map_err(|error| Error::other("write the OCI layout", error))?;
    }
    if let Some(image) = image {
        push(shared, image)?;
    }
    Ok(Built {
        image: image.map(|image| Identity {
            manifest: image.descriptor.clone(),
            config: image.manifest.config.digest,
        }),
        pushed: shared.request.destinations.clone(),
    })
}

/// Writes the image into all layouts as far as nobody sees it. One after the other, in order of
/// their names: each stays locked until all are published, and two builds must not wait for each
/// other.
fn layouts(
    shared: &Shared<'_>,
    image: Option<&Finished>,
    unseen: &Mutex<Vec<Unseen>>,
) -> Result<(), Error> {
    let dirs = shared
        .request
        .outputs
        .iter()
        .filter_map(|output| match output {
            Output::OciLayout(dir) => Some((std::path::absolute(dir).ok(), output, dir)),
            _ => None,
        });
    let mut dirs: Vec<_> = dirs.collect();
    dirs.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, output, dir) in dirs {
        let mut unseen = lock(unseen);
        // One by another name would be waited for without end.
        let place = std::fs::metadata(dir).map(|meta| (meta.dev(), meta.ino()));
        let same = |other: &Unseen| matches!((other.place(), &place), (Ok(a), Ok(b)) if a == *b);
        if unseen.iter().any(same) {
            continue;
        }
        let Some(image) = image else {
            return Err(no_image(output));
        };
        let layers = image.manifest.layers.iter();
        let total = layers.map(|layer| layer.size).sum();
        let span = shared
            .sink
            .span(Owner::Build, Work::Export, &label(output), Some(total));
        let export = Export {
            span: &span,
            cancel: shared.cancel,
        };
        let written = output::write_layout(image, &shared.request.names, dir, &export);
        unseen.push(written.map_err(|error| {
            span.fail();
            failed(output)(error)
        })?);
    }
    Ok(())
}

fn no_image(output: &Output) -> Error {
    Error::other(format!("write the {}", what(output)), "no image was made")
}

fn failed(output: &Output) -> impl Fn(output::Error) -> Error {
    move |error| match error {
        output::Error::Cancelled => Error::Cancelled,
        error => Error::other(format!("write the {}", what(output)), error),
    }
}

/// Pushes the manifest under every name.
fn push(shared: &Shared<'_>, image: &Finished) -> Result<(), Error> {
    std::thread::scope(|scope| {
        for destination in &shared.request.destinations {
            scope.spawn(move || {
                let _pass = shared.gates.uploads.enter();
                if shared.cancel.is_set() {
                    return;
                }
                let label = destination.to_string();
                let _span = shared.sink.span(Owner::Build, Work::Push, &label, None);
                let pushed = shared.registry.push_manifest(
                    destination,
                    image.manifest.media_type(),
                    &image.manifest_bytes,
                );
                shared.failure.check(pushed.map_err(Error::Registry));
            });
        }
    });
    finished(shared)
}

/// Tells of the first failure, and of the end of the build.
fn finished(shared: &Shared<'_>) -> Result<(), Error> {
    match shared.failure.take() {
        Some(error) => Err(error),
        None if shared.cancel.is_set() => Err(Error::Cancelled),
        None => Ok(()),
    }
}

/// Puts config and manifest into the store; gives the config's file.
fn keep(shared: &Shared<'_>, image: &Finished) -> Result<PathBuf, Error> {
    let keep = |bytes: &[u8]| {
        shared
            .store
            .put(bytes)
            .map_err(|e| Error::other("keep the image", e))
    };
    let config = keep(&image.config_bytes)?;
    keep(&image.manifest_bytes)?;
    shared
        .store
        .blob(&config, image.config_bytes.len() as u64)
        .map_err(|e| Error::other("find the config", e))?
        .ok_or_else(|| Error::other("find the config", "it is no longer in the store"))
}

/// Gives all files of the image, with the times that its layers have.
fn files(shared: &Shared<'_>) -> Result<Vec<Change>, Error> {
    let done = shared.done[shared.plan.target].wait();
    let done = done.ok_or(Error::Cancelled)?;
    let below = done.base_layers();
    let time = |found: &Found| match found.layer < below {
        true => Time {
            secs: found.meta.mtime.secs,
            nanos: 0,
        },
        false => shared.clock.times.stamp(&found.meta).mtime,
    };
    Ok(changeset::whole(&done.tree, &time))
}

fn write(
    shared: &Shared<'_>,
    image: Option<&Finished>,
    files: &[Change],
    output: &Output,
) -> Result<(), Error> {
    let place = label(output);
    let layers = image.map_or(&[][..], |image| &image.manifest.layers);
    let total = match output {
        Output::Directory(_) | Output::RootTar(_) => changeset::content_size(files),
        Output::DockerTar(_) | Output::OciLayout(_) | Output::OciTar(_) => {
            layers.iter().map(|layer| layer.size).sum()
        }
    };
    let span = shared
        .sink
        .span(Owner::Build, Work::Export, &place, Some(total));
    let export = &Export {
        span: &span,
        cancel: shared.cancel,
    };
    let names = &shared.request.names;
    let written = match (output, image) {
        (Output::DockerTar(place), Some(image)) => {
            output::write_docker_tar(image, names, place, export)
        }
        (Output::OciTar(place), Some(image)) => output::write_oci_tar(image, names, place, export),
        // Layouts are written by themselves.
        (Output::OciLayout(_), Some(_)) => Ok(()),
        (Output::DockerTar(_) | Output::OciTar(_) | Output::OciLayout(_), None) => {
            return Err(no_image(output));
        }
        (Output::RootTar(place), _) => {
            output::write_root_tar(files, &shared.gates.permits, place, export)
        }
        (Output::Directory(dir), _) => output::write_directory(files, dir, export).map(|lost| {
            if !lost.is_empty() {
                let text = format!(
                    "the file system of {place} cannot keep the extended attributes {}",
                    lost.join(", ")
                );
                shared.sink.message(Level::Warn, text);
            }
        }),
    };
    written.map_err(|error| {
        span.fail();
        failed(output)(error)
    })
}
