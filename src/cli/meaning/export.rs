//! Where the image goes: `--output`, spelled as Docker's buildx does, beside kaniko's flags.

use super::context::clean;
use super::fields::fields;
use crate::cli::flags::Typed;
use crate::cli::parse::{Usage, truth};
use crate::cli::surroundings::{Stdout, Surroundings};
use crate::oci::Reference;
use crate::request::{Output, Place};
use std::path::{Path, PathBuf};

/// All that `--output`, `--tar-path` and `--oci-layout-path` say.
#[derive(Default)]
pub(super) struct Exports {
    /// What to write.
    pub outputs: Vec<Output>,
    /// The names that archives and layouts get; the destinations where there are none.
    pub names: Vec<Reference>,
    /// Where to push to besides the destinations.
    pub push: Vec<Reference>,
    /// Names of images that are not pushed.
    pub unpushed: Vec<Reference>,
    /// Whether `--output` was given at all.
    pub is_given: bool,
    /// Whether one of them is an OCI image by what it is called.
    pub wants_oci: bool,
}

/// What `type=` can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Docker,
    Oci,
    Local,
    Tar,
    Image,
    Registry,
    CacheOnly,
}

const KINDS: [(&str, Kind); 7] = [
    ("docker", Kind::Docker),
    ("oci", Kind::Oci),
    ("local", Kind::Local),
    ("tar", Kind::Tar),
    ("image", Kind::Image),
    ("registry", Kind::Registry),
    ("cacheonly", Kind::CacheOnly),
];

/// Attributes that buildx has an output for and that are one for the build here.
const ELSEWHERE: [(&str, &str); 5] = [
    ("compression", "--compression says it for the whole image"),
    (
        "compression-level",
        "--compression-level says it for the whole image",
    ),
    (
        "oci-mediatypes",
        "--image-format says it for the whole image",
    ),
    (
        "rewrite-timestamp",
        "SOURCE_DATE_EPOCH does it for the whole image",
    ),
    (
        "registry.insecure",
        "--insecure or --insecure-registry say it",
    ),
];

/// One `--output`, as typed.
struct Spec<'a> {
    kind: Kind,
    name: &'a str,
    dest: Option<String>,
    names: Vec<Reference>,
    tar: Option<bool>,
    push: Option<bool>,
}

/// Finds out where the image goes besides the destinations.
pub(super) fn exports(typed: &Typed, around: &Surroundings) -> Result<Exports, Usage> {
    let mut out = Exports::default();
    if let Some(dir) = &typed.oci_layout_path {
        out.outputs.push(Output::OciLayout(around.cwd.join(dir)));
    }
    if let Some(path) = &typed.tar_path {
        let place = place(around, path);
        out.outputs.push(Output::DockerTar(place));
    }
    for text in typed.outputs.iter().filter(|text| !text.is_empty()) {
        out.is_given = true;
        add(spec(text)?, typed, around, &mut out)?;
    }
    check(&out, typed, around)?;
    Ok(out)
}

fn spec(text: &str) -> Result<Spec<'static>, Usage> {
    let parts = fields(text)
        .ok_or_else(|| Usage::new(format!("--output: `{text}`: a double quote has no end")))?;
    let short = |kind, name| Spec {
        kind,
        name,
        dest: Some(text.to_owned()),
        names: Vec::new(),
        tar: None,
        push: None,
    };
    if let [one] = parts.as_slice()
        && one == text
        && !text.starts_with("type=")
        // A directory of that name is not what anybody means.
        && !text.starts_with("dest=")
    {
        return Ok(match text {
            "-" => short(Kind::Tar, "tar"),
            _ => short(Kind::Local, "local"),
        });
    }
    let mut kind = None;
    let mut attributes = Vec::new();
    for part in &parts {
        let Some((key, value)) = part.split_once('=') else {
            return Err(
                Usage::new(format!("--output: `{part}` is not KEY=VALUE")).hint(
                    "type=docker|oci|local|tar|image|registry,dest=... is wanted, or a directory",
                ),
            );
        };
        let key = key.trim().to_ascii_lowercase();
        if key == "type" {
            kind = Some(
                KINDS
                    .into_iter()
                    .find(|(name, _)| *name == value)
                    .ok_or_else(|| {
                        Usage::new(format!("--output: unknown type `{value}`")).hint(
                            "the types are docker, oci, local, tar, image, registry and cacheonly",
                        )
                    })?,
            );
        } else {
            attributes.push((key, value));
        }
    }
    let (name, kind) = kind.ok_or_else(|| {
        Usage::new(format!("--output: `{text}` has no type"))
            .hint("type=docker|oci|local|tar|image|registry,dest=... is wanted, or a directory")
    })?;
    let mut spec = Spec {
        kind,
        name,
        dest: None,
        names: Vec::new(),
        tar: None,
        push: None,
    };
    for (key, value) in attributes {
        attribute(&mut spec, &key, value)?;
    }
    Ok(spec)
}

fn attribute(spec: &mut Spec<'_>, key: &str, value: &str) -> Result<(), Usage> {
    use Kind::{CacheOnly, Docker, Image, Local, Oci, Registry, Tar};
    let label = format!("--output type={}", spec.name);
    let switch = || {
        truth(value)
            .ok_or_else(|| Usage::new(format!("{label}: {key}={value}: true or false is wanted")))
    };
    match (key, spec.kind) {
        ("dest", Docker | Oci | Local | Tar) => {
            spec.dest = Some(value.to_owned()).filter(|dest| !dest.is_empty());
        }
        ("name", Docker | Oci | Image | Registry) => {
            for name in value.split(',').filter(|name| !name.is_empty()) {
                spec.names.push(super::reference(&label, name)?);
            }
        }
        ("tar", Docker | Oci) => spec.tar = Some(switch()?),
        ("push", Image | Registry) => spec.push = Some(switch()?),
        // One platform is built, and that is never split.
        ("platform-split", Local) => {
            switch()?;
        }
        (_, CacheOnly) => {
            return Err(Usage::new(format!("{label}: it has no attribute `{key}`")));
        }
        _ => {
            let usage = Usage::new(format!("{label}: attribute `{key}` is not supported"));
            return Err(match ELSEWHERE.iter().find(|(name, _)| *name == key) {
                Some((_, hint)) => usage.hint(*hint),
                None => usage,
            });
        }
    }
    Ok(())
}

fn add(
    spec: Spec<'_>,
    typed: &Typed,
    around: &Surroundings,
    out: &mut Exports,
) -> Result<(), Usage> {
    let label = format!("--output type={}", spec.name);
    let file = |dest: Option<&str>| match dest {
        None | Some("-") => Place::Stdout,
        Some(path) => place(around, Path::new(path)),
    };
    let dir = |dest: Option<&str>| match dest {
        None => Err(Usage::new(format!("{label} wants dest=DIRECTORY"))),
        Some("-") => Err(
            Usage::new(format!("{label}: a directory cannot go to standard output"))
                .hint("type=tar can"),
        ),
        Some(path) => Ok(around.cwd.join(path)),
    };
    let dest = spec.dest.as_deref();
    match spec.kind {
        Kind::Docker if spec.tar == Some(false) => {
            return Err(Usage::new(format!("{label},tar=false is not supported"))
                .hint("type=oci,tar=false writes a directory"));
        }
        Kind::Docker if dest.is_none() => {
            return Err(Usage::new(format!(
                "{label} wants dest=FILE, or dest=- for standard output: there is no Docker to load into"
            ))
            .hint("--output type=docker,dest=- with `| docker load` does"));
        }
        Kind::Docker => out.outputs.push(Output::DockerTar(file(dest))),
        Kind::Oci => {
            out.wants_oci = true;
            out.outputs.push(match spec.tar {
                Some(false) => Output::OciLayout(dir(dest)?),
                _ => Output::OciTar(file(dest)),
            });
        }
        Kind::Local => out.outputs.push(Output::Directory(dir(dest)?)),
        Kind::Tar => out.outputs.push(Output::RootTar(file(dest))),
        Kind::Image | Kind::Registry => {
            let push = spec.push.unwrap_or(spec.kind == Kind::Registry);
            if push && spec.names.is_empty() && typed.destinations.is_empty() {
                return Err(Usage::new(format!("{label} wants name=IMAGE to push to")));
            }
            if !push && !typed.destinations.is_empty() {
                return Err(Usage::new(format!(
                    "{label} without push=true and --destination exclude each other"
                ))
                .hint("a destination is pushed to; name=IMAGE just names"));
            }
            let names = if push {
                &mut out.push
            } else {
                &mut out.unpushed
            };
            names.extend(spec.names);
            return Ok(());
        }
        Kind::CacheOnly => return Ok(()),
    }
    if !spec.names.is_empty() {
        if !out.names.is_empty() && out.names != spec.names {
            return Err(Usage::new(
                "--output: archives with different names are not yet supported",
            ));
        }
        out.names = spec.names;
    }
    Ok(())
}

/// Takes a path for what it leads to: standard output has several.
fn place(around: &Surroundings, path: &Path) -> Place {
    let path = around.cwd.join(path);
    if is_stdout(&path) {
        Place::Stdout
    } else {
        Place::File(path)
    }
}

fn is_stdout(path: &Path) -> bool {
    ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]
        .iter()
        .any(|name| path == Path::new(name))
}

/// Counts the outputs that go to standard output.
pub(super) fn on_stdout(outputs: &[Output]) -> usize {
    let on_stdout = outputs.iter().filter(|output| {
        matches!(
            output,
            Output::DockerTar(Place::Stdout)
                | Output::OciTar(Place::Stdout)
                | Output::RootTar(Place::Stdout)
        )
    });
    on_stdout.count()
}

/// Refuses outputs that get in each other's way, and a terminal.
fn check(exports: &Exports, typed: &Typed, around: &Surroundings) -> Result<(), Usage> {
    let on_stdout = on_stdout(&exports.outputs);
    if on_stdout > 1 {
        return Err(Usage::new("two outputs cannot both go to standard output"));
    }
    let refused = match around.stdout {
        Stdout::Terminal if on_stdout == 1 => Some("an image is not written to a terminal"),
        Stdout::Closed if on_stdout == 1 => {
            Some("an image cannot be written to standard output: it is closed")
        }
        Stdout::Terminal | Stdout::Closed | Stdout::Open => None,
    };
    if let Some(why) = refused {
        return Err(Usage::new(why).hint("give a file, or a pipe"));
    }
    let outputs = exports.outputs.iter().filter_map(|output| match output {
        Output::DockerTar(Place::File(path))
        | Output::OciTar(Place::File(path))
        | Output::RootTar(Place::File(path))
        | Output::OciLayout(path)
        | Output::Directory(path) => Some(path.clone()),
        Output::DockerTar(Place::Stdout)
        | Output::OciTar(Place::Stdout)
        | Output::RootTar(Place::Stdout) => None,
    });
    let notes = [
        &typed.digest_file,
        &typed.image_name_with_digest_file,
        &typed.image_name_tag_with_digest_file,
        &typed.timeline,
        &typed.metadata_file,
    ];
    let notes = notes
        .into_iter()
        .flatten()
        .map(|path| around.cwd.join(path));
    let outputs: Vec<PathBuf> = outputs.map(|path| clean(&path)).collect();
    let notes: Vec<PathBuf> = notes.map(|path| clean(&path)).collect();
    if on_stdout == 1 && outputs.iter().chain(&notes).any(|path| is_stdout(path)) {
        return Err(Usage::new(
            "standard output is taken by the image, and nothing else can go there",
        ));
    }
    let is_stream =
        |path: &Path| std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
    for (at, path) in outputs.iter().enumerate() {
        let mut others = outputs[at + 1..].iter().chain(&notes);
        if others.any(|other| other == path) && !is_stream(path) {
            return Err(Usage::new(format!(
                "two outputs cannot both be {}",
                path.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
