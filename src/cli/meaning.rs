//! What was typed to what is meant: defaults, environment, look-ups, and the rules between flags.

mod cache;
mod context;
mod export;
mod fields;
pub(in crate::cli) mod place;
mod registry;
mod secret;

use super::flags::Typed;
use super::parse::{Called, Usage, truth};
use super::surroundings::Surroundings;
use crate::build::{Again, Layers, Warm};
use crate::oci::{Format, Platform, Reference};
use crate::request::{Compression, EPOCH, Output, Request, RootfsChoice, parse_epoch, wrong_epoch};
use context::{Sources, scheme};
use export::Exports;
use place::Chosen;
use std::io::IsTerminal;
use std::path::PathBuf;

/// How much is logged; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verbosity {
    /// What ends the build.
    Error,
    /// What is off.
    Warn,
    /// What happens.
    Info,
    /// What happens in detail.
    Debug,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFormat {
    /// A live view.
    Live,
    /// Lines.
    Text,
    /// Lines with colours.
    Color,
    /// An object a line.
    Json,
}

/// What a log line starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Seconds since the start.
    Elapsed,
    /// The time of day, RFC 3339.
    Clock,
}

/// Where what commands print goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// To standard output.
    Stdout,
    /// To standard error, since an image is on standard output.
    Stderr,
}

/// What is asked of `cli` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// How much is logged.
    pub verbosity: Verbosity,
    /// How it is logged.
    pub format: LogFormat,
    /// What a line starts with.
    pub stamp: Stamp,
    /// Where what commands print goes.
    pub printed: Printed,
    /// Where the page of spans goes.
    pub timeline: Option<PathBuf>,
    /// Gets what was built as JSON.
    pub metadata_file: Option<PathBuf>,
    /// What the image is called at its destinations, whether or not it is pushed there.
    pub names: Vec<Reference>,
    /// Google Cloud Build's directory for results.
    pub builder_output: Option<PathBuf>,
    /// Kubernetes' file for a container's last words, where it wants the digest.
    pub termination_log: Option<PathBuf>,
    /// The working directory, which files are shown relative to.
    pub cwd: PathBuf,
    /// What is odd about the command line or the environment.
    pub warnings: Vec<String>,
}

/// Reads how to log off what was typed; this cannot fail, so that whatever fails can be shown.
pub(super) fn log_format(typed: &Typed, around: &Surroundings) -> LogFormat {
    match typed.log_format.as_deref() {
        Some("json") => LogFormat::Json,
        Some("text") => LogFormat::Text,
        Some(_) => LogFormat::Color,
        None if std::io::stderr().is_terminal()
            && around.text("TERM").is_some_and(|term| term != "dumb") =>
        {
            LogFormat::Live
        }
        None if around.called == Called::Executor && around.var("NO_COLOR").is_none() => {
            LogFormat::Color
        }
        None => LogFormat::Text,
    }
}

/// Finds out what is meant.
pub(super) fn mean(typed: Typed, around: &Surroundings) -> Result<(Request, Options), Usage> {
    let mut warnings: Vec<String> = typed
        .deprecated
        .iter()
        .map(|(old, new)| format!("--{old} is deprecated: use --{new}"))
        .collect();
    environment_not_yet(around, &mut warnings)?;

    let no_push = switch(around, "KANIKO_NO_PUSH")?.unwrap_or(typed.no_push);
    let exports = export::exports(&typed, around)?;
    let destinations = typed
        .destinations
        .iter()
        .map(|text| reference("--destination", text))
        .collect::<Result<Vec<_>, _>>()?;
    let mut pushed = destinations;
    for name in &exports.push {
        if !pushed.contains(name) {
            pushed.push(name.clone());
        }
    }
    let mut named = pushed.clone();
    named.extend(exports.unpushed.iter().cloned());
    rules(&typed, &exports, &named, no_push)?;

    let Sources {
        context,
        sub_path,
        dockerfile,
        git,
    } = context::sources(&typed, around, &mut warnings)?;
    let mut build_args = build_args(&typed.build_args, around)?;
    let epoch = epoch(&mut build_args, around)?;
    let format = match typed.image_format.as_deref() {
        Some("docker") => Some(Format::Docker),
        Some(_) => Some(Format::Oci),
        // zstd has a media type in OCI alone.
        None if typed.compression.as_deref() == Some("zstd") || exports.wants_oci => {
            Some(Format::Oci)
        }
        None => None,
    };
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(|path| around.cwd.join(path));
    let place = place::store(&typed, around, &mut warnings);
    let request = Request {
        keep: kept(&typed, around),
        ignore: ignored(&typed)?,
        cleanup: typed.cleanup || switch(around, "KANIKO_CLEANUP")?.unwrap_or(false),
        contexts: context::named(&typed.build_contexts, around)?,
        secrets: secret::secrets(&typed.secrets, around, &mut warnings)?,
        ssh: secret::ssh(&typed.ssh, around)?,
        git,
        allow_insecure: secret::allow_insecure(&typed)?,
        build_args: build_args.clone(),
        target: typed.targets.first().cloned(),
        labels: labels(&typed.labels)?,
        platform: platform(typed.custom_platform.as_deref())?,
        names: match exports.names.is_empty() {
            true => named.clone(),
            false => exports.names,
        },
        outputs: exports.outputs,
        digest_file: local(absolute(&typed.digest_file), &typed.digest_file)?,
        image_name_with_digest_file: absolute(&typed.image_name_with_digest_file),
        image_name_tag_with_digest_file: absolute(&typed.image_name_tag_with_digest_file),
        store: place.dir,
        beside: place.beside,
        caching: cache::caching(&typed, &pushed, around)?,
        compression: compression(&typed)?,
        format,
        single_snapshot: typed.single_snapshot,
        reproducible: typed.reproducible,
        epoch,
        rootfs: rootfs(typed.rootfs.as_deref())?,
        root_owner: place::root_owner(&typed, around),
        check_push: !typed.skip_push_permission_check,
        registry: registry::registry(&typed, around)?,
        threads: threads(typed.threads)?,
        destinations: if no_push { Vec::new() } else { pushed },
        context,
        context_sub_path: sub_path,
        dockerfile,
    };
    place::check(request.rootfs, request.root_owner)?;
    if around.called == Called::Executor && !typed.force && around.container.is_none() {
        return Err(Usage::new(
            "this should run inside a container alone, and no sign of one was found",
        )
        .hint("run with --force if you are sure you want to continue"));
    }
    let options = Options {
        verbosity: verbosity(typed.verbosity.as_deref()),
        format: log_format(&typed, around),
        stamp: if typed.log_timestamp {
            Stamp::Clock
        } else {
            Stamp::Elapsed
        },
        printed: match export::on_stdout(&request.outputs) {
            0 => Printed::Stdout,
            _ => Printed::Stderr,
        },
        timeline: absolute(&typed.timeline),
        metadata_file: absolute(&typed.metadata_file),
        names: named,
        builder_output: around.path("BUILDER_OUTPUT"),
        termination_log: (around.called == Called::Executor && around.container.is_some())
            .then(|| PathBuf::from("/dev/termination-log")),
        cwd: around.cwd.clone(),
        warnings,
    };
    Ok((request, options))
}

/// Finds out what a store is to be filled with.
pub(super) fn warm(typed: &Typed, around: &Surroundings) -> Result<(Warm, Options), Usage> {
    if typed.images.is_empty() && typed.dockerfile.is_none() {
        return Err(Usage::new("there is neither an --image nor a --dockerfile"));
    }
    let mut warnings: Vec<String> = typed
        .deprecated
        .iter()
        // kaniko's warmer knows no other spelling.
        .filter(|(old, _)| *old != "customPlatform")
        .map(|(old, new)| format!("--{old} is deprecated: use --{new}"))
        .collect();
    environment_not_yet(around, &mut warnings)?;
    let image = |text: &String| {
        let parsed: Result<Reference, _> = text.parse();
        parsed.map_err(|error| Usage::new(format!("--image: {error}")))
    };
    let images = typed.images.iter().map(image).collect::<Result<_, _>>()?;
    let dockerfile = match &typed.dockerfile {
        Some(path) if scheme(path).is_some() => path.clone(),
        Some(path) => around.cwd.join(path),
        None => PathBuf::new(),
    };
    let told = typed.cache_dir.as_ref().or(typed.store.as_ref());
    let store = match told {
        Some(dir) => around.cwd.join(dir),
        None if around.called == Called::Executor => PathBuf::from("/cache"),
        None => place::store(typed, around, &mut warnings).dir,
    };
    let request = Request {
        build_args: build_args(&typed.build_args, around)?,
        platform: platform(typed.custom_platform.as_deref())?,
        registry: registry::registry(typed, around)?,
        threads: threads(typed.threads)?,
        store,
        ..Request::local(around.cwd.clone(), dockerfile)
    };
    let warm = Warm {
        request,
        bases: typed.dockerfile.is_some(),
        images,
        again: match typed.force {
            true => Again::Check,
            false => Again::Trust,
        },
        layers: match typed.unpack {
            true => Layers::Unpack,
            false => Layers::Keep,
        },
    };
    let options = Options {
        verbosity: verbosity(typed.verbosity.as_deref()),
        format: log_format(typed, around),
        stamp: if typed.log_timestamp {
            Stamp::Clock
        } else {
            Stamp::Elapsed
        },
        printed: Printed::Stdout,
        timeline: None,
        metadata_file: None,
        names: Vec::new(),
        builder_output: None,
        termination_log: None,
        cwd: around.cwd.clone(),
        warnings,
    };
    Ok((warm, options))
}

/// Finds out where a build would work: a request of which that alone is meant, why the store lies where
/// it does, and what is to be warned of.
pub(super) fn place(
    typed: &Typed,
    around: &Surroundings,
) -> Result<(Request, Chosen, Vec<String>), Usage> {
    let mut warnings = Vec::new();
    let chosen = place::store(typed, around, &mut warnings);
    let request = Request {
        store: chosen.dir.clone(),
        beside: chosen.beside.clone(),
        rootfs: rootfs(typed.rootfs.as_deref())?,
        root_owner: place::root_owner(typed, around),
        ..Request::local(around.cwd.clone(), PathBuf::from("Dockerfile"))
    };
    Ok((request, chosen, warnings))
}

/// Refuses variables that would change the outcome, and warns of those that would show more.
fn environment_not_yet(around: &Surroundings, warnings: &mut Vec<String>) -> Result<(), Usage> {
    for name in ["KANIKO_REGISTRY_MIRROR", "KANIKO_REGISTRY_MAP"] {
        if around.var(name).is_some() {
            return Err(Usage::new(format!(
                "the variable {name} is not yet supported"
            )));
        }
    }
    for name in ["KANIKO_PRINT_PLAN", "KANIKO_TELEMETRY_ENDPOINT"] {
        if around.var(name).is_some() {
            warnings.push(format!("the variable {name} is not yet supported"));
        }
    }
    Ok(())
}

/// The rules between flags.
fn rules(
    typed: &Typed,
    exports: &Exports,
    named: &[Reference],
    no_push: bool,
) -> Result<(), Usage> {
    if named.is_empty() {
        if !no_push && !exports.is_given {
            return Err(Usage::new("there is no --destination")
                .hint("give one, or --output, or --no-push to push nothing"));
        }
        for (file, flag) in [
            (
                &typed.image_name_with_digest_file,
                "image-name-with-digest-file",
            ),
            (
                &typed.image_name_tag_with_digest_file,
                "image-name-tag-with-digest-file",
            ),
        ] {
            if file.is_some() {
                return Err(Usage::new(format!("--{flag} wants a --destination")));
            }
        }
    }
    let zstd = typed.compression.as_deref() == Some("zstd");
    // An archive of Docker's that an --output asks for is bound by the same rules.
    let tar = exports
        .outputs
        .iter()
        .any(|output| matches!(output, Output::DockerTar(_)));
    let flag = match typed.tar_path {
        Some(_) => "--tar-path",
        None => "--output type=docker",
    };
    match typed.image_format.as_deref() {
        Some("docker") if zstd => {
            return Err(Usage::new(
                "--compression=zstd and --image-format=docker exclude each other",
            )
            .hint("Docker's media types have no zstd; use --image-format=oci"));
        }
        Some("oci") if tar => {
            return Err(
                Usage::new(format!("{flag} and --image-format=oci exclude each other"))
                    .hint("--oci-layout-path and --output type=oci write an OCI image"),
            );
        }
        _ => {}
    }
    if zstd && tar {
        return Err(
            Usage::new(format!("--compression=zstd and {flag} exclude each other"))
                .hint("--oci-layout-path and --output type=oci write an OCI image"),
        );
    }
    if let [_, second, ..] = typed.targets.as_slice() {
        return Err(Usage::new(format!(
            "--target: several targets are not yet supported, and `{second}` is a second one"
        )));
    }
    Ok(())
}

fn is_missing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// Words an I/O error without its number; `missing` is said where nothing is there.
fn plain(error: &std::io::Error, missing: &str) -> String {
    if is_missing(error) {
        return missing.to_owned();
    }
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn build_args(given: &[String], around: &Surroundings) -> Result<Vec<(String, String)>, Usage> {
    let mut out = Vec::with_capacity(given.len());
    for arg in given {
        match arg.split_once('=') {
            Some(("", _)) => {
                return Err(Usage::new(format!("--build-arg: `{arg}` has no name")));
            }
            Some((name, value)) => out.push((name.to_owned(), value.to_owned())),
            None if arg.is_empty() => {
                return Err(Usage::new("--build-arg: the name is empty"));
            }
            // A name that the environment does not have is as if it were not given, as in BuildKit.
            None => {
                if let Some(value) = around.env.get(std::ffi::OsStr::new(arg)) {
                    let value = value.to_str().ok_or_else(|| {
                        Usage::new(format!(
                            "--build-arg {arg}: the environment's value is not UTF-8"
                        ))
                    })?;
                    out.push((arg.clone(), value.to_owned()));
                }
            }
        }
    }
    Ok(out)
}

fn labels(given: &[String]) -> Result<Vec<(String, String)>, Usage> {
    given
        .iter()
        .map(|label| match label.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Usage::new(format!("--label: `{label}` is not NAME=VALUE"))),
        })
        .collect()
}

fn reference(flag: &str, text: &str) -> Result<Reference, Usage> {
    let reference: Reference = text
        .parse()
        .map_err(|error| Usage::new(format!("{flag}: {error}")))?;
    if reference.digest.is_some() {
        return Err(Usage::new(format!(
            "{flag}: `{text}` has a digest, and a digest is the build's result"
        )));
    }
    Ok(reference)
}

fn platform(given: Option<&str>) -> Result<Platform, Usage> {
    let host = Platform::host();
    let Some(text) = given else {
        return Ok(host);
    };
    let wanted = crate::plan::platform(text).map_err(|(error, hint)| {
        let usage = Usage::new(format!("--custom-platform: {error}"));
        match hint {
            Some(hint) => usage.hint(hint),
            None => usage,
        }
    })?;
    if wanted.os != host.os {
        return Err(Usage::new(format!(
            "--custom-platform: {wanted} is not yet supported: only {} is",
            host.os
        )));
    }
    Ok(wanted.normalized())
}

/// Refuses a URL where a file is wanted.
fn local(file: Option<PathBuf>, typed: &Option<PathBuf>) -> Result<Option<PathBuf>, Usage> {
    match typed.as_deref().and_then(scheme) {
        Some((scheme, _)) => Err(Usage::new(format!(
            "--digest-file: {scheme}:// is not yet supported"
        ))),
        None => Ok(file),
    }
}

fn compression(typed: &Typed) -> Result<Compression, Usage> {
    let level = typed.compression_level.filter(|level| *level > 0);
    let within = |name: &str, most: i64, default: i64| match level {
        None => Ok(default),
        Some(level) if level <= most => Ok(level),
        Some(level) => Err(Usage::new(format!(
            "--compression-level: {name} has levels 1 to {most}, not {level}"
        ))),
    };
    // Both numbers are bounded by what is above.
    match typed.compression.as_deref() {
        Some("zstd") => Ok(Compression::Zstd(within("zstd", 22, 3)? as i32)),
        _ => Ok(Compression::Gzip(within("gzip", 9, 1)? as u32)),
    }
}

/// The epoch: a build argument counts more than the environment, whose variable is a build argument
/// too, as with Docker's tools. An empty value is none.
fn epoch(
    build_args: &mut Vec<(String, String)>,
    around: &Surroundings,
) -> Result<Option<i64>, Usage> {
    let given = build_args.iter().rev().find(|(name, _)| name == EPOCH);
    let (text, whence) = match (given, around.var(EPOCH)) {
        (Some((_, value)), _) => (value.clone(), "--build-arg"),
        (None, Some(value)) => (value.to_string_lossy().into_owned(), "variable"),
        (None, None) => return Ok(None),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let Some(seconds) = parse_epoch(&text) else {
        return Err(Usage::new(format!(
            "{whence} {EPOCH}: {}",
            wrong_epoch(&text)
        )));
    };
    if given.is_none() {
        build_args.push((EPOCH.to_owned(), text));
    }
    Ok(Some(seconds))
}

/// Gives what the program itself writes in the end.
fn kept(typed: &Typed, around: &Surroundings) -> Vec<PathBuf> {
    let files = [&typed.timeline, &typed.metadata_file];
    let files = files
        .into_iter()
        .flatten()
        .map(|path| around.cwd.join(path));
    // All of it, whatever part of it is built.
    let context = typed.context.as_ref().or(typed.positional.as_ref());
    let context = context.and_then(|path| {
        let text = path.to_str().unwrap_or_default();
        let path = text
            .strip_prefix("dir://")
            .map_or(path.as_path(), std::path::Path::new);
        let path = around.cwd.join(path);
        (typed.context_sub_path.is_some() && path.is_dir()).then_some(path)
    });
    files
        .chain(context)
        .chain(around.path("BUILDER_OUTPUT"))
        .chain(place::kaniko_dir(typed, around))
        .chain([PathBuf::from("/dev/termination-log")])
        .collect()
}

fn ignored(typed: &Typed) -> Result<Vec<PathBuf>, Usage> {
    let var_run = typed.ignore_var_run.then(|| PathBuf::from("/var/run"));
    let mut out: Vec<PathBuf> = var_run.into_iter().collect();
    for text in &typed.ignore_paths {
        let path = PathBuf::from(text);
        if !path.is_absolute() || path.parent().is_none() {
            let text = format!("--ignore-path: `{text}` is no absolute path below /");
            return Err(Usage::new(text));
        }
        out.push(path);
    }
    Ok(out)
}

/// Reads a variable that is a switch, where it is set.
fn switch(around: &Surroundings, name: &str) -> Result<Option<bool>, Usage> {
    let wrong = |text| Usage::new(format!("{name}: `{text}` is no truth value"));
    let read = |text| truth(text).ok_or_else(|| wrong(text));
    around.text(name).map(read).transpose()
}

fn rootfs(given: Option<&str>) -> Result<RootfsChoice, Usage> {
    match given {
        None | Some("auto") => Ok(RootfsChoice::Auto),
        Some("overlay") => Ok(RootfsChoice::Overlay),
        Some("fuse") => Ok(RootfsChoice::Fuse),
        Some("inplace") => Ok(RootfsChoice::InPlace),
        Some("chroot") => Ok(RootfsChoice::Chroot),
        Some(name) => Err(Usage::new(format!(
            "--rootfs: `{name}` is neither auto, overlay, fuse, inplace nor chroot"
        ))),
    }
}

fn threads(given: Option<i64>) -> Result<Option<usize>, Usage> {
    match given {
        None => Ok(None),
        Some(count @ 1..=1024) => Ok(usize::try_from(count).ok()),
        Some(count) => Err(Usage::new(format!(
            "--threads: {count} is not from 1 to 1024"
        ))),
    }
}

fn verbosity(given: Option<&str>) -> Verbosity {
    match given {
        Some("trace" | "debug") => Verbosity::Debug,
        Some("warn") => Verbosity::Warn,
        Some("error" | "fatal" | "panic") => Verbosity::Error,
        _ => Verbosity::Info,
    }
}

#[cfg(test)]
#[path = "meaning_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "meaning/source_tests.rs"]
mod source_tests;
