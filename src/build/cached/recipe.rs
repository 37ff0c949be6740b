//! What a step's key is made of: all that can change its result, and nothing else.
//!
//! Not in it: the value of a secret; what is only in the config (a step that has a variable has it in
//! its environment); the times of files that are copied, as with BuildKit; the proxies that a command
//! is given without an ARG; who shares a cache of a command.

use super::super::Clock;
use crate::cache::{Key, Recipe};
use crate::fs::RelPath;
use crate::layer::Times;
use crate::net::{Url, redacted};
use crate::oci::Platform;
use crate::plan::{
    Chmod, CopyOp, CopySource, From, Mount, MountedFile, Network, Op, Remote, RunOp, Unpack,
};
use crate::request::{CheckoutTimes, Compression, GitSource, Request, Submodules};

/// What the keys of all steps of a stage have in common.
pub(in crate::build) struct Common<'a> {
    pub(in crate::build) request: &'a Request,
    pub(in crate::build) clock: &'a Clock,
    pub(in crate::build) ignored: &'a [RelPath],
    /// In place, what commands see of the container instead of the image.
    pub(in crate::build) kept: &'a [Vec<u8>],
    /// What the stage is built for.
    pub(in crate::build) platform: &'a Platform,
}

/// The kind of knowledge that is the content of files of contexts.
pub(in crate::build) const CONTENT: &str = "content";

/// What files are known by that a step takes from somewhere: what kind of knowledge it is, and the hash.
pub(in crate::build) type Known = (&'static str, [u8; 32]);

/// Tells what the files are that a COPY would take, or a mount would show.
pub(in crate::build) type Taken<'a> = &'a dyn Fn(&CopyOp) -> Option<Known>;

/// Gives what a step's key is made of on top of what `parent` names. None for a step that changes no
/// file, and where something is not known.
pub(in crate::build) fn recipe(
    op: &Op,
    common: &Common<'_>,
    parent: Key,
    taken: Taken<'_>,
) -> Option<Recipe> {
    let mut recipe = match op {
        Op::Config => return None,
        Op::Run(_) => Recipe::of("run"),
        Op::Copy(_) => Recipe::of("copy"),
        Op::Workdir { .. } => Recipe::of("workdir"),
    };
    // A linked layer is the same whatever it is put on.
    let is_linked = matches!(op, Op::Copy(copy) if copy.is_linked());
    if !is_linked {
        recipe.add_hash("parent", parent.0);
        recipe.add("platform", common.platform.to_string());
    }
    match common.request.compression {
        Compression::Gzip(level) => recipe.add("compression", format!("gzip {level}")),
        Compression::Zstd(level) => recipe.add("compression", format!("zstd {level}")),
    }
    let times = match common.clock.times {
        Times::Keep => "keep".to_owned(),
        Times::Clamp(to) => format!("clamp {to}"),
        Times::Set(to) => format!("set {to}"),
    };
    recipe.add("times", times);
    for path in common.ignored {
        recipe.add("ignored path", path.as_bytes());
    }
    match op {
        Op::Config => {}
        Op::Run(run) => command(&mut recipe, run, common, taken)?,
        Op::Copy(copy) => copied(&mut recipe, copy, common, taken)?,
        Op::Workdir { path, user } => {
            recipe.add("path", path);
            recipe.add("user", user);
            date(&mut recipe, common, false);
        }
    }
    Some(recipe)
}

/// Adds the time of what a step makes by itself.
fn date(recipe: &mut Recipe, common: &Common<'_>, is_linked: bool) {
    let time = match is_linked {
        true => common.clock.epoch,
        false => common.clock.now,
    };
    recipe.add("date", time.secs.to_le_bytes());
    let copied = common.clock.copied.map(|time| time.secs.to_le_bytes());
    recipe.add_optional("date of copies", copied);
}

fn command(recipe: &mut Recipe, run: &RunOp, common: &Common<'_>, taken: Taken<'_>) -> Option<()> {
    let RunOp {
        args,
        env,
        proxies,
        cwd,
        user,
        hostname,
        script,
        mounts,
        network,
        insecure,
    } = run;
    for arg in args {
        recipe.add("argument", arg);
    }
    let mut variables: Vec<(&str, &str)> = env
        .iter()
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
        // Where a build reaches the network does not change what it finds there.
        .filter(|(name, _)| !proxies.iter().any(|proxy| proxy == name))
        .collect();
    variables.sort_unstable();
    for (name, value) in variables {
        recipe.add(format!("variable {name}"), value);
    }
    recipe.add("working directory", cwd);
    recipe.add("user", user);
    recipe.add_optional("host name", hostname.as_ref());
    if let Some((name, text)) = script {
        recipe.add("name of the script", name);
        recipe.add("script", text);
    }
    let network = match network {
        Network::Host => "host",
        Network::None => "none",
    };
    recipe.add("network", network);
    recipe.add("rights", if *insecure { "all" } else { "usual" });
    for path in common.kept {
        recipe.add("path of the container", path);
    }
    for mount in mounts {
        mounted(recipe, mount, common, taken)?;
    }
    Some(())
}

fn mounted(
    recipe: &mut Recipe,
    mount: &Mount,
    common: &Common<'_>,
    taken: Taken<'_>,
) -> Option<()> {
    let file = |recipe: &mut Recipe, file: &MountedFile| {
        let MountedFile {
            target,
            mode,
            uid,
            gid,
        } = file;
        recipe.add("target", target);
        recipe.add("owner and mode", format!("{uid}:{gid} {mode:o}"));
    };
    match mount {
        Mount::Bind {
            target,
            from,
            source,
            writable,
        } => {
            recipe.add("mount", "bind");
            recipe.add("target", target);
            recipe.add("source", source);
            recipe.add("writable", [u8::from(*writable)]);
            let (kind, hash) = taken(&shown(from, source))?;
            recipe.add_hash(kind, hash);
        }
        Mount::Cache {
            target,
            id,
            sharing: _,
            from,
            source,
            readonly,
            mode,
            uid,
            gid,
        } => {
            recipe.add("mount", "cache");
            recipe.add("target", target);
            recipe.add("id", id);
            recipe.add("source", source);
            recipe.add("read-only", [u8::from(*readonly)]);
            recipe.add("owner and mode", format!("{uid}:{gid} {mode:o}"));
            if let Some(from) = from {
                let (kind, hash) = taken(&shown(from, source))?;
                recipe.add_hash(kind, hash);
            }
        }
        Mount::Tmpfs {
            target,
            size,
            readonly,
        } => {
            recipe.add("mount", "tmpfs");
            recipe.add("target", target);
            recipe.add_optional("size", size.map(u64::to_le_bytes));
            recipe.add("read-only", [u8::from(*readonly)]);
        }
        Mount::Secret {
            id,
            file: at,
            env,
            required: _,
        } => {
            recipe.add("mount", "secret");
            recipe.add("id", id);
            if let Some(at) = at {
                file(recipe, at);
            }
            recipe.add_optional("name of the variable", env.as_ref());
            let there = common.request.secrets.contains_key(id);
            recipe.add("given", [u8::from(there)]);
        }
        Mount::Ssh {
            id,
            file: at,
            required: _,
        } => {
            recipe.add("mount", "ssh");
            recipe.add("id", id);
            file(recipe, at);
            let there = common.request.ssh.contains_key(id);
            recipe.add("given", [u8::from(there)]);
        }
    }
    Some(())
}

/// Gives the COPY that takes what a mount shows.
fn shown(from: &From, source: &str) -> CopyOp {
    CopyOp {
        sources: vec![CopySource::Path(literal(source))],
        // With the directory itself, whose mode is seen too.
        parents: source != "/",
        ..bare(from.clone())
    }
}

/// Gives the pattern that means a path and nothing else.
fn literal(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Gives what a step takes from somewhere, as COPYs, in the order in which its recipe asks.
pub(in crate::build) fn takes(op: &Op) -> Vec<CopyOp> {
    match op {
        Op::Config | Op::Workdir { .. } => Vec::new(),
        Op::Copy(copy) if copy.sources.is_empty() => Vec::new(),
        Op::Copy(copy) => vec![copy.clone()],
        Op::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Bind { from, source, .. } => Some(shown(from, source)),
                Mount::Cache {
                    from: Some(from),
                    source,
                    ..
                } => Some(shown(from, source)),
                Mount::Cache { from: None, .. }
                | Mount::Tmpfs { .. }
                | Mount::Secret { .. }
                | Mount::Ssh { .. } => None,
            })
            .collect(),
    }
}

/// Gives a COPY of nothing that stands for itself.
fn bare(from: From) -> CopyOp {
    CopyOp {
        link: true,
        ..CopyOp::nothing(from)
    }
}

fn copied(recipe: &mut Recipe, copy: &CopyOp, common: &Common<'_>, taken: Taken<'_>) -> Option<()> {
    let CopyOp {
        from: _,
        sources,
        inline,
        dest,
        chown,
        chmod,
        unpack,
        link: _,
        parents,
        exclude,
        instruction: _,
    } = copy;
    recipe.add("destination", dest);
    recipe.add_optional("--chown", chown.as_ref());
    recipe.add_optional("--chmod", chmod.as_ref().map(Chmod::text));
    let unpack = match unpack {
        Unpack::Never => "never",
        Unpack::Local => "local",
        Unpack::All => "all",
    };
    recipe.add("unpacks", unpack);
    recipe.add("--link", [u8::from(copy.is_linked())]);
    recipe.add("--parents", [u8::from(*parents)]);
    date(recipe, common, copy.is_linked());
    for (name, content) in inline {
        recipe.add("name of a heredoc", name);
        recipe.add("heredoc", content);
    }
    // What is fetched is known by what it must be.
    for source in sources {
        match source {
            CopySource::Path(path) => recipe.add("source", path),
            CopySource::Remote(Remote::Http { url, checksum }) => {
                // Without what may be secret in it.
                let shown = Url::parse(url)
                    .map(|url| redacted(&url))
                    .unwrap_or_default();
                recipe.add("URL", shown);
                recipe.add_optional("checksum", checksum.map(|digest| digest.0));
            }
            CopySource::Remote(Remote::Git {
                source,
                keep_git_dir,
            }) => repository(recipe, source, *keep_git_dir),
        }
    }
    for pattern in exclude {
        recipe.add("--exclude", pattern);
    }
    if !sources.is_empty() {
        let (kind, hash) = taken(copy)?;
        recipe.add_hash(kind, hash);
    }
    Some(())
}

fn repository(recipe: &mut Recipe, source: &GitSource, keep_git_dir: bool) {
    let GitSource {
        remote,
        reference,
        subdirectory,
        checksum,
        keep_git_dir: _,
        submodules,
        times,
    } = source;
    recipe.add("repository", crate::git::shown(remote));
    recipe.add_optional("reference", reference.as_ref());
    recipe.add_optional("subdirectory", subdirectory.as_ref());
    recipe.add_optional("checksum", checksum.as_ref());
    recipe.add("keeps .git", [u8::from(keep_git_dir)]);
    recipe.add("submodules", [u8::from(*submodules == Submodules::Fetch)]);
    recipe.add("times", [u8::from(*times == CheckoutTimes::Commit)]);
}

/// Tells whether what is fetched for a source can be nothing else than the last time.
pub(in crate::build) fn is_pinned(remote: &Remote) -> bool {
    match remote {
        Remote::Http { checksum, .. } => checksum.is_some(),
        Remote::Git { source, .. } => source.reference.as_ref().is_some_and(|reference| {
            matches!(reference.len(), 40 | 64) && reference.bytes().all(|c| c.is_ascii_hexdigit())
        }),
    }
}

/// Gives a COPY that takes the same files to the same place and does nothing with them.
pub(in crate::build) fn without_changes(copy: &CopyOp, from: From) -> CopyOp {
    CopyOp {
        sources: copy.sources.clone(),
        dest: copy.dest.clone(),
        parents: copy.parents,
        exclude: copy.exclude.clone(),
        ..bare(from)
    }
}

#[cfg(test)]
mod tests {
    use super::{Common, recipe};
    use crate::build::Clock;
    use crate::cache::Key;
    use crate::fs::RelPath;
    use crate::plan::{
        Base, Chmod, CopyOp, CopySource, From, Mount, MountedFile, Network, Op, RunOp, Sharing,
        Unpack,
    };
    use crate::request::Request;

    fn run() -> RunOp {
        let file = MountedFile {
            target: "/run/secrets/x".into(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        };
        let context = From::Context;
        RunOp {
            args: vec!["/bin/sh".into(), "-c".into(), "true".into()],
            env: vec!["PATH=/bin".into(), "A=b".into(), "no_proxy=x".into()],
            proxies: vec!["no_proxy".into()],
            cwd: "/".into(),
            user: "app".into(),
            hostname: None,
            script: Some(("EOF".into(), "#!/bin/sh\n".into())),
            mounts: vec![
                Mount::Bind {
                    target: "/b".into(),
                    from: context.clone(),
                    source: "/src".into(),
                    writable: false,
                },
                Mount::Cache {
                    target: "/c".into(),
                    id: "c".into(),
                    sharing: Sharing::Shared,
                    from: Some(From::Base(Base::Stage(0))),
                    source: "/".into(),
                    readonly: false,
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                },
                Mount::Tmpfs {
                    target: "/t".into(),
                    size: Some(1),
                    readonly: false,
                },
                Mount::Secret {
                    id: "x".into(),
                    file: Some(file.clone()),
                    env: Some("X".into()),
                    required: true,
                },
                Mount::Ssh {
                    id: "default".into(),
                    file,
                    required: false,
                },
            ],
            network: Network::Host,
            insecure: false,
        }
    }

    fn copy(link: bool) -> CopyOp {
        CopyOp {
            from: From::Context,
            sources: vec![CopySource::Path("a".into())],
            inline: vec![("h".into(), b"text".to_vec())],
            dest: "/dest/".into(),
            chown: Some("1:2".into()),
            chmod: (!link).then(|| Chmod::parse("u=rwX").expect("a mode")),
            unpack: Unpack::Never,
            link,
            parents: false,
            exclude: vec!["*.o".into()],
            instruction: "COPY",
        }
    }

    /// What keys are made of, and how. Where this changes the version of the format has to change too, or
    /// steps are found that were made of something else.
    #[test]
    fn recipes_are_what_they_were() {
        let request = Request::local("/context".into(), "Dockerfile".into());
        let platform = "linux/amd64".parse().expect("a platform");
        let ignored = [RelPath::clean(b"var/run").expect("a path")];
        let kept = [b"/data".to_vec()];
        let clock = Clock::new(&request, Some(1), None);
        let common = Common {
            request: &request,
            clock: &clock,
            ignored: &ignored,
            kept: &kept,
            platform: &platform,
        };
        let parent = Key([1; 32]);
        let workdir = Op::Workdir {
            path: "/w".into(),
            user: String::new(),
        };
        let golden = [
            (
                Op::Run(run()),
                "1aa3ee4577d70d6923cd69feebc7ba5f85a6526fb3b0bb273342fccd92a61235",
            ),
            (
                Op::Copy(copy(false)),
                "15cf1e0c6d33538224e9d82e7da723aed12f54cc91ef549df612087fca33f7f7",
            ),
            (
                Op::Copy(copy(true)),
                "6d53495e53d48ef56f769cc565f63f186c0a0ed9175204f79a314017b30bfa42",
            ),
            (
                workdir,
                "bf71363055cd96ea414d357abbba5993325b7c151e5cf1e8a2ea2285134209b0",
            ),
        ];
        for (op, key) in golden {
            let made = recipe(&op, &common, parent, &|_| Some(("content", [2; 32])));
            let made = made.expect("a recipe");
            let names: Vec<&str> = made.parts().iter().map(|part| part.name.as_str()).collect();
            assert_eq!(made.key().hex(), key, "{names:?}");
        }
    }
}
