//! What a build in place leaves as it is in the root, since it is not the image's, and what that
//! means for the image.

use super::{Error, Shared, one_root};
use crate::changeset::Changeset;
use crate::context::Context;
use crate::fs::{self, Kind, RelPath, Tree};
use crate::progress::Level;
use crate::request::{
    CachePlace, ContextSource, NamedContext, OWN_IMAGE, Output, Place, Request, RootfsChoice,
    SecretSource, SshSource,
};
use crate::rootfs::Guard;
use crate::store::Store;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Refuses a request that names the root directory itself.
pub(super) fn check(request: &Request) -> Result<(), Error> {
    match belongings(request)
        .iter()
        .find(|path| real(path).parent().is_none())
    {
        Some(path) => Err(Error::other(
            "build in place",
            format!(
                "/ itself is to be kept, since the build names it as {}: give it a directory of its own",
                path.display()
            ),
        )),
        None => Ok(()),
    }
}

/// Fails where a command in place has removed what the builder itself works with.
pub(super) fn check_own(shared: &Shared<'_>) -> Result<(), Error> {
    match one_root::is_one(shared) && !shared.scratch.dir.exists() {
        true => Err(Error::Removed {
            dir: shared.store.dir().to_owned(),
        }),
        false => Ok(()),
    }
}

/// Gives the error of a build as it is, or what is behind it where a command has removed what the builder
/// itself works with: something else may fail for it first.
pub(super) fn explained(shared: &Shared<'_>, error: Error) -> Error {
    match (error, check_own(shared)) {
        (error @ (Error::Run { .. } | Error::Cancelled), _) | (error, Ok(())) => error,
        (Error::Step { span, text, .. }, Err(removed)) => Error::step(span, &text, removed),
        (_, Err(removed)) => removed,
    }
}

/// Gives the mounts of the container that commands in place see instead of what the image has there, and
/// that no other container need have, and what they lack; the builder's own and the kernel's are not
/// among them.
pub(super) fn of_the_container(request: &Request, store: &Store) -> Vec<Vec<u8>> {
    // With one id files come out as somebody else's.
    let mut lacks: Vec<Vec<u8>> = Vec::new();
    if fs::Ids::here().are_one() {
        lacks.push(b"all ids but one".to_vec());
    }
    if request.rootfs == RootfsChoice::Chroot {
        lacks.push(b"/proc".to_vec());
    }
    if request.rootfs != RootfsChoice::InPlace {
        return lacks;
    }
    let own: Vec<PathBuf> = belongings(request)
        .iter()
        .map(|path| real(path))
        .chain([store.dir().to_owned(), PathBuf::from("/kaniko")])
        .collect();
    let mut out: Vec<Vec<u8>> = fs::mountinfo::points()
        .into_iter()
        .filter(|point| {
            let path = Path::new(OsStr::from_bytes(point));
            let is_kernels = RelPath::clean(point).is_none_or(|path| is_the_kernels(&path));
            !is_kernels && path.parent().is_some() && !own.iter().any(|own| path.starts_with(own))
        })
        .collect();
    out.extend(lacks);
    out.sort_unstable();
    out.dedup();
    out
}

/// Tells whether a path is the kernel's or the container's in any image.
fn is_the_kernels(path: &RelPath) -> bool {
    const OTHERS: [&[u8]; 6] = [
        b"proc",
        b"sys",
        b"dev",
        b"etc/hosts",
        b"etc/hostname",
        b"etc/resolv.conf",
    ];
    let within = |other: &&[u8]| RelPath::clean(other).is_some_and(|other| path.is_within(&other));
    OTHERS.iter().any(within)
}

/// Warns of what a tree has at a path that is kept, or below it. An empty directory is as good as none.
pub(super) fn warn_below(shared: &Shared<'_>, guard: &Guard, tree: &Tree) {
    let is_else = |path: &RelPath| {
        let found = tree.get(path);
        found.is_some_and(|found| found.meta.kind != Kind::Dir) || !tree.children(path).is_empty()
    };
    for path in guard.paths().filter(|path| !is_the_kernels(path)) {
        if is_else(path) {
            say_kept(shared, path);
        }
    }
}

/// Warns of changes that have no place in the root.
pub(super) fn warn(shared: &Shared<'_>, guard: &Guard, changes: &Changeset) {
    for change in &changes.changes {
        warn_of(shared, guard, &change.path);
    }
}

/// Warns of a path that has no place in the root.
pub(super) fn warn_of(shared: &Shared<'_>, guard: &Guard, path: &RelPath) {
    if !guard.covers(path) {
        return;
    }
    let above = path.ancestors().chain([path.clone()]);
    let kept = above.filter(|path| guard.paths().any(|kept| kept == path));
    for path in kept.filter(|path| !is_the_kernels(path)) {
        say_kept(shared, &path);
    }
}

/// Says, once, that a path of the image is something else's in the root.
fn say_kept(shared: &Shared<'_>, path: &RelPath) {
    if shared.one_root.is_news(path) {
        let text = format!(
            "/{path} is a mount of this container, or named by the build: commands in place see that \
             and not what the image has there, and what they write to it is not in the image"
        );
        shared.sink.message(Level::Warn, text);
    }
}

/// Gives what is the builder's in the root: itself, and what it reads and writes there.
pub(super) fn guard(shared: &Shared<'_>) -> Guard {
    let mut guard = Guard::default()
        .with(shared.store.dir())
        .with(&shared.scratch.dir)
        .with(Path::new("/kaniko"))
        .with(Path::new(OWN_IMAGE));
    let here = std::env::current_exe();
    let own = here.into_iter().chain(belongings(shared.request));
    for path in own.chain(shared.request.ignore.iter().cloned()) {
        guard = guard.with(&real(&path)).with(&path);
    }
    let named = shared
        .request
        .contexts
        .keys()
        .filter_map(|name| shared.named(name));
    let contexts: Vec<Arc<Context>> = named.chain([Arc::clone(&shared.context)]).collect();
    for context in contexts {
        let link = format!("/proc/self/fd/{}", context.dir.as_raw_fd());
        if let Ok(path) = std::fs::read_link(link) {
            guard = guard.with(&path);
        }
    }
    guard
}

/// Gives the same path without symbolic links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let mut above = path.ancestors();
    let found = above.find_map(|above| Some((above, above.canonicalize().ok()?)));
    match found.and_then(|(above, real)| Some(real.join(path.strip_prefix(above).ok()?))) {
        Some(real) => real,
        None => path.to_owned(),
    }
}

/// Gives the files that a request names: what is read when it is wanted, and what is written at the
/// end.
fn belongings(request: &Request) -> Vec<PathBuf> {
    let mut out = request.keep.clone();
    out.extend(request.beside.clone());
    if request.dockerfile.is_absolute() {
        out.push(request.dockerfile.clone());
        let mut ignore = request.dockerfile.clone().into_os_string();
        ignore.push(".dockerignore");
        out.push(ignore.into());
    }
    let mut sources = vec![&request.context];
    for secret in request.secrets.values() {
        match secret {
            SecretSource::File(path) => out.push(path.clone()),
            SecretSource::Value(_) => {}
        }
    }
    for agent in request.ssh.values() {
        match agent {
            SshSource::Agent(socket) => out.push(socket.clone()),
            SshSource::Keys(keys) => out.extend(keys.iter().cloned()),
        }
    }
    for output in &request.outputs {
        match output {
            Output::DockerTar(place) | Output::OciTar(place) | Output::RootTar(place) => {
                match place {
                    Place::File(path) => out.push(path.clone()),
                    Place::Stdout => {}
                }
            }
            Output::OciLayout(dir) | Output::Directory(dir) => out.push(dir.clone()),
        }
    }
    for file in [
        &request.digest_file,
        &request.image_name_with_digest_file,
        &request.image_name_tag_with_digest_file,
    ] {
        out.extend(file.iter().cloned());
    }
    if let Some(caching) = &request.caching {
        for place in caching.to.iter().chain(&caching.from) {
            match place {
                CachePlace::Layout(dir) => out.push(dir.clone()),
                CachePlace::Objects(objects) => out.extend(objects.files()),
                CachePlace::Registry(_) => {}
            }
        }
    }
    for named in request.contexts.values() {
        match named {
            NamedContext::Layout(layout) => out.push(layout.dir.clone()),
            NamedContext::Files(source) => sources.push(source),
            NamedContext::Image(_) => {}
        }
    }
    for source in sources {
        match source {
            ContextSource::Directory(path) | ContextSource::Archive(path) => out.push(path.clone()),
            ContextSource::Git(_) | ContextSource::Http(_) | ContextSource::Stdin => {}
        }
    }
    let registry = &request.registry;
    out.extend(registry.certificates.values().cloned());
    for (certificate, key) in registry.client_certificates.values() {
        out.extend([certificate.clone(), key.clone()]);
    }
    // An image may have the same paths, which are its own where nothing of the builder's is there.
    let found = [&registry.auth_files, &registry.certificate_dirs];
    let found = found
        .into_iter()
        .flatten()
        .chain(&registry.certificate_file);
    out.extend(found.filter(|path| path.exists()).cloned());
    out
}
