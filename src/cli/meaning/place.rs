//! Where a build works: the directory of its store, and whose the root directory is that it runs in.

use crate::cli::flags::Typed;
use crate::cli::parse::{Called, Usage};
use crate::cli::surroundings::Surroundings;
use crate::request::{RootOwner, RootfsChoice};
use crate::store::{Fitness, fitness};
use std::path::{Path, PathBuf};

/// Where kaniko's image has the executor and what is its.
const KANIKO: &str = "/kaniko";
/// Where the store lies among an image's own files: in no directory that Dockerfiles clear, as they do
/// those of caches.
const IN_PLACE: &str = "/.shutter";
/// Where volumes for a cache are mounted.
const CACHE: &str = "/cache";
/// Where root's store lies on a machine.
const SYSTEM: &str = "/var/cache/shutter";

/// A place for the store, and what it was chosen for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Chosen {
    /// The directory.
    pub dir: PathBuf,
    /// Why there.
    pub why: Why,
    /// A store that can only be read, which is looked into besides.
    pub beside: Option<PathBuf>,
}

/// Why the store lies where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Why {
    /// --store says so.
    Named,
    /// --cache-dir says so.
    CacheDir,
    /// A volume is mounted there.
    Volume,
    /// It is the builder's own directory.
    Beside,
    /// It is where this user's programs keep what can be had again.
    Usual,
}

impl Chosen {
    /// Gives the reason in a word or two.
    pub fn why(&self) -> &'static str {
        match self.why {
            Why::Named => "as --store says",
            Why::CacheDir => "as --cache-dir says",
            Why::Volume => "a volume",
            Why::Beside => "beside the executor",
            Why::Usual => "the default",
        }
    }
}

/// Chooses where the store lies: where it is told to; else on a volume that is mounted at the usual
/// place; else in the builder's own directory; else where this user's caches are. What can only be read
/// there is looked into besides. A volume that cannot be used is told of.
pub(in crate::cli) fn store(
    typed: &Typed,
    around: &Surroundings,
    warnings: &mut Vec<String>,
) -> Chosen {
    choose(typed, around, &|dir| fitness(dir).ok(), warnings)
}

fn choose(
    typed: &Typed,
    around: &Surroundings,
    fitness: &dyn Fn(&Path) -> Option<Fitness>,
    warnings: &mut Vec<String>,
) -> Chosen {
    let mut beside = None;
    let named = typed.cache_dir.as_ref().map(|dir| around.cwd.join(dir));
    if let Some(dir) = &typed.store {
        let dir = around.cwd.join(dir);
        let beside = named.filter(|named| *named != dir);
        let why = Why::Named;
        return Chosen { dir, why, beside };
    }
    if let Some(dir) = named {
        match fitness(&dir) {
            Some(Fitness::ReadOnly) => beside = Some(dir),
            Some(Fitness::Taken(name)) if is_kanikos(&name) => {
                warnings.push(not_read(&dir, &name));
            }
            _ => {
                let why = Why::CacheDir;
                return Chosen { dir, why, beside };
            }
        }
    }
    let usual = usual(around);
    let is_volume = |dir: &Path| around.volumes.iter().any(|volume| volume == dir);
    // What is mounted somewhere on a machine is no sign of what it is for.
    if around.container.is_some() || around.called == Called::Executor {
        let own = around
            .volumes
            .iter()
            .any(|volume| usual.starts_with(volume));
        if own && usual != Path::new(CACHE) {
            let (dir, why) = (usual, Why::Volume);
            return Chosen { dir, why, beside };
        }
        let cache = Path::new(CACHE);
        if is_volume(cache) && typed.cache_dir.is_none() {
            match fitness(cache) {
                Some(Fitness::Fit) => {
                    let (dir, why) = (cache.to_owned(), Why::Volume);
                    return Chosen { dir, why, beside };
                }
                Some(Fitness::Taken(name)) if is_kanikos(&name) => {
                    warnings.push(not_read(cache, &name));
                }
                Some(Fitness::Taken(name)) => warnings.push(format!(
                    "the volume {CACHE} is not used as the store, since `{name}` is in it; --cache-dir \
                     names another directory"
                )),
                Some(Fitness::ReadOnly) => beside = Some(cache.to_owned()),
                None => {}
            }
        }
    }
    let (dir, why) = match kaniko_dir(typed, around) {
        Some(dir) => {
            let why = match is_volume(&dir) {
                true => Why::Volume,
                false => Why::Beside,
            };
            (dir.join("store"), why)
        }
        // Nothing can be written there.
        None if beside.as_ref() == Some(&usual) => (PathBuf::from(SYSTEM), Why::Usual),
        None if is_in_place(typed) && around.called != Called::Executor => {
            (PathBuf::from(IN_PLACE), Why::Usual)
        }
        None => (usual, Why::Usual),
    };
    Chosen { dir, why, beside }
}

/// Tells whether a name in a directory is what kaniko's warmer calls an image.
fn is_kanikos(name: &str) -> bool {
    name.starts_with("sha256:")
}

fn not_read(dir: &Path, name: &str) -> String {
    format!(
        "nothing is read from {}, since what is in it (`{name}`) is of kaniko's warmer; `shutter warmer` \
         fills another directory with the same images",
        dir.display()
    )
}

/// Tells whether the builder is to build in the root directory itself.
fn is_in_place(typed: &Typed) -> bool {
    typed.rootfs.as_deref() == Some(RootfsChoice::InPlace.name())
}

/// Gives where the store lies where nothing speaks for another place.
fn usual(around: &Surroundings) -> PathBuf {
    if around.called == Called::Executor {
        return PathBuf::from(CACHE);
    }
    // An XDG path that is not absolute is to be ignored.
    let xdg = around
        .path("XDG_CACHE_HOME")
        .filter(|dir| dir.is_absolute());
    match (xdg, around.path("HOME")) {
        (Some(dir), _) => dir.join("shutter"),
        (None, Some(home)) if around.uid != 0 => home.join(".cache/shutter"),
        (None, _) => PathBuf::from(SYSTEM),
    }
}

/// Gives the builder's own directory: as the flag or the variable says, or kaniko's where the program
/// lies in that.
pub(super) fn kaniko_dir(typed: &Typed, around: &Surroundings) -> Option<PathBuf> {
    let told = typed.kaniko_dir.clone().or_else(|| {
        let kaniko = around.called == Called::Executor;
        kaniko.then(|| around.path("KANIKO_DIR")).flatten()
    });
    match told {
        Some(dir) => Some(around.cwd.join(dir)),
        None => is_in_kaniko(around).then(|| PathBuf::from(KANIKO)),
    }
}

fn is_in_kaniko(around: &Surroundings) -> bool {
    around.program.as_deref().and_then(Path::parent) == Some(Path::new(KANIKO))
}

/// Tells whose the root directory is: the builder's own where that is the executor's own image and the
/// program lies in kaniko's directory of it.
pub(super) fn root_owner(typed: &Typed, around: &Surroundings) -> RootOwner {
    match &around.container {
        None if !typed.force => RootOwner::Machine,
        None => RootOwner::Container,
        Some(_) if around.own_image && is_in_kaniko(around) => RootOwner::Builder,
        Some(_) => RootOwner::Container,
    }
}

/// Refuses to replace every file of a machine.
pub(super) fn check(rootfs: RootfsChoice, owner: RootOwner) -> Result<(), Usage> {
    match (rootfs, owner) {
        (RootfsChoice::InPlace, RootOwner::Machine) => Err(Usage::new(
            "--rootfs=inplace replaces every file of the root directory, and no sign of a container was \
             found",
        )
        .hint("run with --force if you are sure you want to lose this system")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::surroundings::Stdout;

    /// A container called by a name, with volumes, a program and variables.
    fn around(called: Called, volumes: &[&str], program: &str) -> Surroundings {
        Surroundings {
            called,
            env: [("HOME".into(), "/root".into())].into(),
            cwd: "/work".into(),
            uid: 0,
            stdout: Stdout::Open,
            container: Some("a test".into()),
            program: Some(program.into()),
            volumes: volumes.iter().map(PathBuf::from).collect(),
            own_image: true,
        }
    }

    #[test]
    fn in_place_the_store_is_in_no_directory_of_caches() {
        let typed = Typed {
            rootfs: Some("inplace".into()),
            ..Typed::default()
        };
        let cases: [(Called, &[&str], &str, &str); 4] = [
            (Called::Shutter, &[], "/usr/bin/shutter", "/.shutter"),
            (Called::Shutter, &["/cache"], "/usr/bin/shutter", "/cache"),
            (
                Called::Shutter,
                &["/var/cache"],
                "/usr/bin/shutter",
                "/var/cache/shutter",
            ),
            (Called::Executor, &[], "/kaniko/executor", "/kaniko/store"),
        ];
        for (called, volumes, program, expected) in cases {
            let around = around(called, volumes, program);
            let found = choose(&typed, &around, &|_| Some(Fitness::Fit), &mut Vec::new());
            assert_eq!(found.dir, Path::new(expected), "{volumes:?} {program}");
        }
    }

    #[test]
    fn the_store_lies_on_a_volume_or_beside_the_executor_or_where_it_did() {
        use Called::{Executor, Shutter};
        type Case = (
            Called,
            &'static [&'static str],
            &'static str,
            Option<Fitness>,
            &'static str,
            Why,
            usize,
        );
        let fit = || Some(Fitness::Fit);
        let cases: [Case; 11] = [
            (
                Executor,
                &[],
                "/kaniko/executor",
                None,
                "/kaniko/store",
                Why::Beside,
                0,
            ),
            (
                Executor,
                &["/kaniko"],
                "/kaniko/executor",
                None,
                "/kaniko/store",
                Why::Volume,
                0,
            ),
            (
                Executor,
                &["/cache"],
                "/kaniko/executor",
                fit(),
                "/cache",
                Why::Volume,
                0,
            ),
            (
                Executor,
                &["/cache"],
                "/kaniko/executor",
                Some(Fitness::ReadOnly),
                "/kaniko/store",
                Why::Beside,
                0,
            ),
            (
                Executor,
                &["/cache"],
                "/kaniko/executor",
                Some(Fitness::Taken("sha256:0".into())),
                "/kaniko/store",
                Why::Beside,
                1,
            ),
            (
                Executor,
                &[],
                "/usr/bin/executor",
                None,
                "/cache",
                Why::Usual,
                0,
            ),
            (
                Shutter,
                &[],
                "/usr/bin/shutter",
                None,
                "/var/cache/shutter",
                Why::Usual,
                0,
            ),
            (
                Shutter,
                &["/var/cache"],
                "/usr/bin/shutter",
                None,
                "/var/cache/shutter",
                Why::Volume,
                0,
            ),
            (
                Shutter,
                &["/cache", "/workspace"],
                "/usr/bin/shutter",
                fit(),
                "/cache",
                Why::Volume,
                0,
            ),
            (
                Shutter,
                &["/workspace"],
                "/kaniko/shutter",
                None,
                "/kaniko/store",
                Why::Beside,
                0,
            ),
            (
                Shutter,
                &["/cached"],
                "/usr/bin/shutter",
                fit(),
                "/var/cache/shutter",
                Why::Usual,
                0,
            ),
        ];
        for (called, volumes, program, fitness, dir, why, warned) in cases {
            let around = around(called, volumes, program);
            let mut warnings = Vec::new();
            let found = choose(
                &Typed::default(),
                &around,
                &|_| fitness.clone(),
                &mut warnings,
            );
            let read_only = fitness == Some(Fitness::ReadOnly);
            let expected = Chosen {
                dir: dir.into(),
                why,
                beside: read_only.then(|| CACHE.into()),
            };
            assert_eq!(found, expected, "{volumes:?} {program}");
            assert_eq!(warnings.len(), warned, "{warnings:?}");
        }
        let mut machine = around(Shutter, &["/cache"], "/usr/bin/shutter");
        machine.container = None;
        let found = choose(&Typed::default(), &machine, &|_| fit(), &mut Vec::new());
        assert_eq!(found.dir, Path::new("/var/cache/shutter"));
        let named = Typed {
            cache_dir: Some("here".into()),
            ..Typed::default()
        };
        let found = choose(&named, &machine, &|_| fit(), &mut Vec::new());
        assert_eq!((found.dir, found.why), ("/work/here".into(), Why::CacheDir));
        // What --cache-dir names, what is found there, the store and what is read besides.
        type Named = (
            Option<&'static str>,
            Fitness,
            &'static str,
            Option<&'static str>,
            usize,
        );
        let cases: [Named; 6] = [
            (None, Fitness::Fit, "/work/here", None, 0),
            (
                None,
                Fitness::ReadOnly,
                "/var/cache/shutter",
                Some("/work/here"),
                0,
            ),
            (
                None,
                Fitness::Taken("sha256:1".into()),
                "/var/cache/shutter",
                None,
                1,
            ),
            (
                None,
                Fitness::Taken("photo.jpg".into()),
                "/work/here",
                None,
                0,
            ),
            (
                Some("own"),
                Fitness::Fit,
                "/work/own",
                Some("/work/here"),
                0,
            ),
            (Some("/work/here"), Fitness::Fit, "/work/here", None, 0),
        ];
        for (store, fitness, dir, beside, warned) in cases {
            let typed = Typed {
                store: store.map(PathBuf::from),
                ..named.clone()
            };
            let mut warnings = Vec::new();
            let found = choose(&typed, &machine, &|_| Some(fitness.clone()), &mut warnings);
            assert_eq!(found.dir, Path::new(dir), "{fitness:?}");
            assert_eq!(
                found.beside.as_deref(),
                beside.map(Path::new),
                "{fitness:?}"
            );
            assert_eq!(warnings.len(), warned, "{warnings:?}");
        }
        let moved = Typed {
            kaniko_dir: Some("/builds/k".into()),
            ..Typed::default()
        };
        let found = choose(&moved, &machine, &|_| fit(), &mut Vec::new());
        assert_eq!(found.dir, Path::new("/builds/k/store"));
    }

    #[test]
    fn a_root_is_the_builders_where_it_lies_in_kanikos_directory() {
        let forced = Typed {
            force: true,
            ..Typed::default()
        };
        let plain = Typed::default();
        let here = |program| around(Called::Executor, &[], program);
        let outside = |program| Surroundings {
            container: None,
            ..here(program)
        };
        let (kaniko, other) = ("/kaniko/executor", "/usr/bin/executor");
        let copied = Surroundings {
            own_image: false,
            ..here(kaniko)
        };
        let cases = [
            (&plain, here(kaniko), RootOwner::Builder),
            (&plain, here(other), RootOwner::Container),
            (&plain, copied, RootOwner::Container),
            (&plain, outside(kaniko), RootOwner::Machine),
            (&forced, outside(kaniko), RootOwner::Container),
            (&forced, here(other), RootOwner::Container),
        ];
        for (typed, around, expected) in cases {
            assert_eq!(root_owner(typed, &around), expected, "{around:?}");
        }
        assert!(check(RootfsChoice::InPlace, RootOwner::Machine).is_err());
        assert!(check(RootfsChoice::InPlace, RootOwner::Container).is_ok());
        assert!(check(RootfsChoice::Auto, RootOwner::Machine).is_ok());
    }
}
