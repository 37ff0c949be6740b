//! The warmer, and builds that have what it filled beside their own store.

#[path = "common/base.rs"]
mod base;
#[path = "common/project.rs"]
mod project;
#[path = "common/registry.rs"]
mod registry;

use project::{Project, succeed};
use registry::{Registry, Setup};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn started() -> Registry {
    registry::start_with(&Setup {
        notes_requests: true,
        ..Setup::default()
    })
}

/// Pushes an image of a base and a layer of its own; gives its digest.
fn push(project: &Project, host: &str, name: &str) -> String {
    let digest = project.path("digest");
    project.file(name, name);
    project.file("Dockerfile", format!("FROM base\nCOPY {name} /{name}\n"));
    let image = format!("{host}/{name}:1");
    succeed(
        project
            .command()
            .args(["--insecure", "--destination", &image, "--digest-file"])
            .arg(&digest),
    );
    fs::read_to_string(digest).expect("read")
}

/// Gives the command of the warmer, called as kaniko's is.
fn warmer(project: &Project, cache: &Path, args: &[&str]) -> Command {
    let program = project.path("warmer");
    if !program.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_shutter"), &program).expect("link");
    }
    let mut command = Command::new(program);
    command
        .arg("--insecure-pull")
        .arg("--cache-dir")
        .arg(cache)
        .args(args);
    command
        .env_remove("SOURCE_DATE_EPOCH")
        .env_remove("KANIKO_DIR");
    command
}

/// Gives a build with a store of its own that has a cache directory beside.
fn build(project: &Project, cache: &Path, store: &str, out: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    command
        .arg("build")
        .arg("--context")
        .arg(project.path("context"))
        .arg("--store")
        .arg(project.path(store))
        .arg("--cache-dir")
        .arg(cache)
        .args([
            "--log-format",
            "text",
            "--insecure-pull",
            "--no-push",
            "--reproducible",
        ])
        .arg("--oci-layout-path")
        .arg(project.path(out))
        .env_remove("SOURCE_DATE_EPOCH");
    command
}

fn index(layout: &Path) -> Value {
    let bytes = fs::read(layout.join("index.json")).expect("read");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A directory seen under another name, where it can only be read.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn of(project: &Project, dir: &Path, name: &str) -> ReadOnly {
        let seen = project.path(name);
        fs::create_dir(&seen).expect("create");
        succeed(
            Command::new("mount")
                .args(["--bind", "-o", "ro"])
                .arg(dir)
                .arg(&seen),
        );
        ReadOnly(seen)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).expect("unmount");
    }
}

/// Gives everything below a directory with its times, as far as a write would show.
fn picture(dir: &Path) -> String {
    let output = succeed(
        Command::new("find")
            .arg(dir)
            .args(["-printf", "%P %s %T@ %C@\n"]),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn a_warmed_build_asks_for_no_more_than_what_a_tag_stands_for() {
    let project = Project::new();
    let registry = started();
    let host = registry.host.clone();
    let pinned = push(&project, &host, "one");
    push(&project, &host, "two");
    push(&project, &host, "three");
    project.file(
        "Dockerfile",
        format!(
            "ARG NAME=none\nFROM {host}/one@{pinned} AS unused\nFROM {host}/$NAME:1 AS first\n\
             FROM {host}/one@{pinned}\nCOPY --from={host}/three:1 /three /\nCOPY --from=first /two /\n\
             RUN cat /one /two /three > /all\n"
        ),
    );
    let cold = project.path("cold");
    fs::create_dir(&cold).expect("create");
    let wanted = {
        let mut command = build(&project, &cold, "cold-store", "cold-out");
        succeed(command.args(["--build-arg", "NAME=two"]));
        index(&project.path("cold-out"))
    };
    for (way, flags) in [("kept", &[][..]), ("unpacked", &["--unpack"])] {
        let cache = project.path(way);
        let dockerfile = project.path("context").join("Dockerfile");
        let text = dockerfile.to_str().expect("UTF-8");
        let mut args = vec!["-f", text, "--build-arg=NAME=two", "--cache-ttl=336h"];
        args.extend(flags);
        let before = registry.requests().len();
        let output = succeed(&mut warmer(&project, &cache, &args));
        assert!(
            said(&output).contains("/two:1 is in the store: 2 layers"),
            "{}",
            said(&output)
        );
        assert!(registry.requests().len() > before);
        succeed(
            Command::new(env!("CARGO_BIN_EXE_shutter"))
                .args(["store", "verify", "--store"])
                .arg(&cache),
        );
        // Warm again: what is there is not fetched.
        let before = registry.requests().len();
        succeed(&mut warmer(&project, &cache, &args));
        let asked = registry.requests().split_off(before);
        assert!(
            asked.iter().all(|asked| asked.starts_with("HEAD ")),
            "{asked:?}"
        );

        let seen = ReadOnly::of(&project, &cache, &format!("{way}-seen"));
        let was = picture(&cache);
        let before = registry.requests().len();
        let mut command = build(
            &project,
            &seen.0,
            &format!("{way}-store"),
            &format!("{way}-out"),
        );
        succeed(command.args(["--build-arg", "NAME=two"]));
        let mut asked = registry.requests().split_off(before);
        asked.sort();
        assert_eq!(
            asked,
            ["HEAD /v2/three/manifests/1", "HEAD /v2/two/manifests/1"],
            "{way}"
        );
        assert_eq!(index(&project.path(&format!("{way}-out"))), wanted);
        assert_eq!(picture(&cache), was, "{way}");
        let own = project.path(&format!("{way}-store")).join("layers");
        let unpacked = fs::read_dir(own).expect("list").count();
        match flags {
            [] => assert!(unpacked > 0),
            _ => assert_eq!(unpacked, 0),
        }
    }
}

#[test]
fn a_digest_needs_no_registry() {
    let project = Project::new();
    let registry = started();
    let host = registry.host.clone();
    let pinned = push(&project, &host, "one");
    let image = format!("{host}/one@{pinned}");
    let cache = project.path("cache");
    succeed(&mut warmer(&project, &cache, &["--image", &image]));
    drop(registry);
    project.file("Dockerfile", format!("FROM {image}\nRUN cp /one /two\n"));
    let output = build(&project, &cache, "store", "out")
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", said(&output));
    // Alone it is the store itself, where it can be written to.
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    command
        .arg("build")
        .arg("--context")
        .arg(project.path("context"));
    command
        .arg("--cache-dir")
        .arg(&cache)
        .args(["--no-push", "--insecure-pull"]);
    succeed(&mut command);
}

#[test]
fn a_tag_that_moved_is_followed() {
    let project = Project::new();
    let registry = started();
    let host = registry.host.clone();
    push(&project, &host, "one");
    let cache = project.path("cache");
    let image = format!("{host}/one:1");
    succeed(&mut warmer(&project, &cache, &["-i", &image]));
    project.file("Dockerfile", "FROM base\nRUN echo moved > /moved\n");
    succeed(
        project
            .command()
            .args(["--insecure", "--destination", &image]),
    );
    project.file("Dockerfile", format!("FROM {image}\nRUN cat /moved\n"));
    let output = build(&project, &cache, "store", "out")
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn one_image_that_cannot_be_had_keeps_no_other_from_coming() {
    let project = Project::new();
    let registry = started();
    let host = registry.host.clone();
    push(&project, &host, "one");
    push(&project, &host, "two");
    let cache = project.path("cache");
    // The registry has lost a layer of the second.
    let lost = fs::read(project.path("context/two")).expect("read");
    assert_eq!(lost, b"two");
    let none = format!("{host}/none:1");
    let (one, two) = (format!("{host}/one:1"), format!("{host}/two:1"));
    let manifest = manifest_of(&project, &registry, "two");
    let hex = manifest["layers"][1]["digest"].as_str().expect("a digest")[7..].to_owned();
    fs::remove_file(registry.blob_path(&hex)).expect("remove");
    let output = warmer(&project, &cache, &["-i", &none, "-i", &one, "-i", &two])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("none") && text.contains(&hex), "{text}");
    // The first is there whole; of the other one there is no name and no manifest.
    assert_eq!(fs::read_dir(cache.join("names")).expect("list").count(), 1);
    let before = registry.requests().len();
    project.file("Dockerfile", format!("FROM {one}\nRUN cat /one\n"));
    succeed(&mut build(&project, &cache, "store", "out"));
    let asked = registry.requests().split_off(before);
    assert_eq!(asked, ["HEAD /v2/one/manifests/1"]);
}

fn manifest_of(project: &Project, registry: &Registry, name: &str) -> Value {
    let into = project.path(&format!("copied-{name}"));
    succeed(
        Command::new("skopeo")
            .args(["copy", "--src-tls-verify=false"])
            .arg(format!("docker://{}/{name}:1", registry.host))
            .arg(format!("dir:{}", into.display())),
    );
    let bytes = fs::read(into.join("manifest.json")).expect("read");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[test]
fn a_damaged_volume_costs_a_fetch_and_no_more() {
    let project = Project::new();
    let registry = started();
    let host = registry.host.clone();
    push(&project, &host, "one");
    let cache = project.path("cache");
    let image = format!("{host}/one:1");
    succeed(&mut warmer(&project, &cache, &["-i", &image]));
    // Every blob is shorter, or gone.
    for (number, entry) in fs::read_dir(cache.join("blobs/sha256"))
        .expect("list")
        .enumerate()
    {
        let path = entry.expect("an entry").path();
        match number % 2 {
            0 => fs::remove_file(&path).expect("remove"),
            _ => {
                fs::remove_file(&path).expect("remove");
                fs::write(&path, "x").expect("write");
            }
        }
    }
    project.file("Dockerfile", format!("FROM {image}\nRUN cat /one\n"));
    let output = build(&project, &cache, "store", "out")
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", said(&output));
    // The warmer mends it.
    succeed(&mut warmer(&project, &cache, &["-i", &image, "--force"]));
    let (code, text) = {
        let output = Command::new(env!("CARGO_BIN_EXE_shutter"))
            .args(["store", "verify", "--repair", "--store"])
            .arg(&cache)
            .output()
            .expect("run");
        (output.status.code(), said(&output))
    };
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn what_kanikos_warmer_filled_is_told_of() {
    let project = Project::new();
    let cache = project.path("cache");
    fs::create_dir_all(cache.join(format!("sha256:{}", "a".repeat(64)))).expect("create");
    project.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    command
        .arg("build")
        .arg("--context")
        .arg(project.path("context"))
        .arg("--cache-dir");
    command
        .arg(&cache)
        .arg("--no-push")
        .env("XDG_CACHE_HOME", project.path("home"));
    let output = command.output().expect("run");
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("is of kaniko's warmer"),
        "{}",
        said(&output)
    );
    assert_eq!(fs::read_dir(&cache).expect("list").count(), 1);
    // A volume of something else is refused by name.
    let foreign = project.path("foreign");
    fs::create_dir(&foreign).expect("create");
    fs::write(foreign.join("photo.jpg"), "x").expect("write");
    let output = build(&project, &foreign, "store", "out")
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("nothing is read from"),
        "{}",
        said(&output)
    );
}

#[test]
fn wrong_words_are_refused() {
    let project = Project::new();
    let cache = project.path("cache");
    let table: &[(&[&str], &str)] = &[
        (&[], "there is neither an --image nor a --dockerfile"),
        (
            &["--image", "A B"],
            "--image: `A B` is not an image reference",
        ),
        (
            &["--image", "a", "--cache-ttl", "long"],
            "--cache-ttl: `long` is no time",
        ),
        (&["--destination", "a"], "unknown flag --destination"),
        (&["--image", "a", "b"], "warmer takes flags alone, not `b`"),
        (&["--dockerfile", "/not/there"], "/not/there"),
    ];
    for (args, wanted) in table {
        let output = warmer(&project, &cache, args).output().expect("run");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            said(&output).contains(wanted),
            "{args:?}: {}",
            said(&output)
        );
    }
}

/// What was built on a volume is found by builds that can only read it, and nothing is written there.
#[test]
fn steps_of_a_volume_are_found() {
    let project = Project::new();
    let registry = started();
    let pinned = push(&project, &registry.host, "one");
    project.file("source", "source\n");
    let dockerfile = |last: &str| {
        let host = &registry.host;
        format!(
            "FROM {host}/one@{pinned} AS first\nCOPY source /\nRUN cat /one /source > /first\n\
             FROM {host}/one@{pinned}\nRUN echo two > /two\nCOPY --from=first /first /\n{last}\n"
        )
    };
    project.file("Dockerfile", dockerfile("RUN cat /two /first > /all"));
    let volume = project.path("volume");
    let fill = |last: &str, out: &str| {
        project.file("Dockerfile", dockerfile(last));
        let mut command = build(&project, &volume, "volume", out);
        said(&succeed(command.arg("--cache")))
    };
    let first = "RUN cat /two /first > /all";
    let text = fill(first, "filled");
    assert!(!text.contains("cached:"), "{text}");
    let seen = ReadOnly::of(&project, &volume, "seen");
    let before = picture(&volume);
    let again = |store: &str, out: &str| {
        let mut command = build(&project, &seen.0, store, out);
        said(&succeed(command.arg("--cache")))
    };
    let text = again("own", "same");
    assert_eq!(text.matches("cached: ").count(), 3, "{text}");
    assert_eq!(
        index(&project.path("filled"))["manifests"][0]["digest"],
        index(&project.path("same"))["manifests"][0]["digest"]
    );
    // What is changed is made on top of what is there.
    project.file("Dockerfile", dockerfile("RUN cat /first /two > /all"));
    let text = again("other", "changed");
    assert_eq!(text.matches("cached: ").count(), 2, "{text}");
    assert_eq!(picture(&volume), before);
    fill("RUN cat /first /two > /all", "right");
    assert_eq!(
        index(&project.path("right"))["manifests"][0]["digest"],
        index(&project.path("changed"))["manifests"][0]["digest"]
    );
}
