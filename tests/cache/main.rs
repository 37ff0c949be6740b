//! The layer cache from outside: what is found, that it is right, and what goes wrong with places.

#[path = "../common/base.rs"]
mod base;
#[path = "../common/container.rs"]
mod container;
#[path = "../common/dockerd.rs"]
#[allow(dead_code)]
mod dockerd;
#[path = "../common/fake.rs"]
mod fake;
#[path = "../common/forward.rs"]
mod forward;
#[path = "../common/listing.rs"]
mod listing;
#[path = "../common/project.rs"]
mod project;
#[path = "../common/registry.rs"]
mod registry;
#[path = "../common/s3.rs"]
mod s3;
#[path = "../common/skip.rs"]
mod skip;

mod attempts;
mod edits;
mod explain;
mod faults;
mod inplace;
mod many;
mod mounts;
mod objects;
mod refusals;
mod secrets;
mod trouble;

use project::Project;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

/// What became of the steps of a build, by their text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    pub cached: Vec<String>,
    pub made: Vec<String>,
}

/// A build that ended well.
pub struct Made {
    pub steps: Steps,
    /// The manifest's digest.
    pub digest: String,
    /// Everything it said.
    pub said: String,
}

/// Builds into a layout with a store of that name; `--reproducible`, so that equal images have equal
/// digests.
pub fn build(project: &Project, store: &str, args: &[&str]) -> Made {
    build_by(project, store, args, |command| command)
}

/// Builds by a command made of the usual one.
pub fn build_by(
    project: &Project,
    store: &str,
    args: &[&str],
    by: impl FnOnce(Command) -> Command,
) -> Made {
    let (output, digest) = try_build_by(project, store, args, by);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
    Made {
        steps: steps(&said),
        digest: digest.expect("an image"),
        said,
    }
}

/// Builds, and gives the digest of the image if there is one.
pub fn try_build(project: &Project, store: &str, args: &[&str]) -> (Output, Option<String>) {
    try_build_by(project, store, args, |command| command)
}

fn try_build_by(
    project: &Project,
    store: &str,
    args: &[&str],
    by: impl FnOnce(Command) -> Command,
) -> (Output, Option<String>) {
    let layout = project.path("layout");
    let _ = std::fs::remove_dir_all(&layout);
    let mut command = project.command();
    command.args(["--log-format", "json", "--no-push", "--reproducible"]);
    command.arg("--cache-dir").arg(project.path(store));
    command.arg("--oci-layout-path").arg(&layout).args(args);
    let output = by(command).output().expect("run shutter");
    let index = std::fs::read(layout.join("index.json")).ok();
    let index: Option<Value> = index.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let digest = index.and_then(|index| Some(index["manifests"][0]["digest"].as_str()?.to_owned()));
    (output, digest)
}

/// Reads what became of the steps off a log. What changes the config alone is left out.
pub fn steps(said: &str) -> Steps {
    let mut out = Steps::default();
    for line in said.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let text = line["text"].as_str().unwrap_or_default().to_owned();
        let config = ["ENV", "LABEL", "ARG", "USER", "CMD", "EXPOSE", "SHELL"];
        if config.iter().any(|word| text.starts_with(word)) {
            continue;
        }
        match line["event"].as_str() {
            Some("step-cached") => out.cached.push(text),
            Some("step-started") => out.made.push(text),
            _ => {}
        }
    }
    out.cached.sort();
    out.made.sort();
    out
}

/// Gives the names and sizes of the blobs of a store.
fn blobs(store: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(store.join("blobs/sha256")).expect("blobs");
    let entries = entries.map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.metadata().expect("metadata").len())
        })
        .collect()
}

const TWO_STAGES: &str = "\
FROM base AS tool
COPY src /src
RUN cat /src/* > /tool && echo made
FROM base
ENV GREETING=hello
WORKDIR /work
RUN echo $GREETING > greeting
COPY --from=tool /tool /bin/tool
COPY last last
";

fn two_stages() -> Project {
    let project = Project::new();
    project.file("Dockerfile", TWO_STAGES);
    project.file("src/a", "a\n").file("src/b", "b\n");
    project.file("last", "last\n");
    project
}

/// On an empty node, a build in which nothing changed fetches nothing but entries.
#[test]
fn a_build_in_which_nothing_changed_fetches_no_layer() {
    let project = two_stages();
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let tag = format!("{}/image:1", registry.host);
    let args = ["--insecure", "--cache", "--cache-repo", &repo];
    let first = build(&project, "store", &args);
    assert_eq!(first.steps.cached, Vec::<String>::new());
    assert_eq!(first.steps.made.len(), 6, "{:?}", first.steps);
    // Pushed, and not as a layout, which would want the blobs.
    let pushed = |store: &str| {
        let mut command = project.command();
        command
            .args(["--log-format", "json", "--reproducible"])
            .args(args);
        command.args(["--destination", &tag]);
        command.arg("--cache-dir").arg(project.path(store));
        command.arg("--digest-file").arg(project.path("digest"));
        let output = project::succeed(&mut command);
        let digest = std::fs::read_to_string(project.path("digest")).expect("a digest");
        (steps(&String::from_utf8_lossy(&output.stderr)), digest)
    };
    let (again, digest) = pushed("empty");
    // The other stage is not looked at.
    assert_eq!(again.made, Vec::<String>::new());
    assert_eq!(again.cached.len(), 4, "{again:?}");
    assert_eq!(digest, first.digest);
    let layers = std::fs::read_dir(project.path("empty/layers")).expect("layers");
    assert_eq!(layers.count(), 0);
    // Config, manifest, and the base's layer, which is in a layout and pushed from there.
    let blobs = blobs(&project.path("empty"));
    assert_eq!(blobs.len(), 3, "{blobs:?}");
}

#[test]
fn what_is_not_wanted_is_not_looked_up() {
    let project = two_stages();
    let all = build(&project, "store", &["--cache"]);
    for (args, made) in [
        (&["--cache"][..], &[][..]),
        // Without the flag all is made.
        (&[], &["COPY", "COPY", "COPY", "RUN", "RUN", "WORKDIR"]),
        (
            &["--cache", "--cache-ttl=0s"],
            &["COPY", "COPY", "COPY", "RUN", "RUN", "WORKDIR"],
        ),
        (
            &["--cache", "--cache-copy-layers=false"],
            &["COPY", "COPY", "COPY"],
        ),
        (
            &["--cache", "--cache-run-layers=false"],
            &["RUN", "RUN", "WORKDIR"],
        ),
        (
            &["--cache", "--compression=zstd"],
            &["COPY", "COPY", "COPY", "RUN", "RUN", "WORKDIR"],
        ),
    ] {
        let got = build(&project, "store", args);
        let words: Vec<&str> = got
            .steps
            .made
            .iter()
            .filter_map(|text| text.split(' ').next())
            .collect();
        assert_eq!(words, made, "{args:?}");
        if !args.contains(&"--compression=zstd") {
            assert_eq!(got.digest, all.digest, "{args:?}");
        }
    }
}

/// Whoever comes second waits for the first and takes what that one made.
#[test]
fn two_equal_builds_at_once_do_the_work_once() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=cache,target=/c,sharing=locked echo x >> /c/log; sleep 0.3; wc -l < /c/log > /n\n\
         RUN --mount=type=cache,target=/c,sharing=locked echo y >> /c/log; wc -l < /c/log >> /n\n",
    );
    let threads = 6;
    let digests: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                let project = &project;
                scope.spawn(move || {
                    let mut command = project.command();
                    let layout = project.path(&format!("layout{number}"));
                    command.args(["--no-push", "--cache", "--reproducible"]);
                    command.arg("--oci-layout-path").arg(&layout);
                    project::succeed(&mut command);
                    let index = std::fs::read(layout.join("index.json")).expect("an index");
                    String::from_utf8_lossy(&index).into_owned()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("join"))
            .collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let log = registry::run(
        "sh",
        &[
            "-c",
            &format!(
                "cat {}/caches/*/*/files/log",
                project.path("store").display()
            ),
        ],
    );
    assert_eq!(log, "x\ny\n");
}

/// What a command wrote is a layer of the store as it lies there, and what nobody sees of the cache is
/// not fetched.
#[test]
fn a_rebuild_unpacks_and_fetches_no_more_than_it_reads() {
    let project = Project::new();
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let args = ["--insecure", "--cache", "--cache-repo", &repo, "--no-push"];
    let dockerfile = |last: &str| {
        let text = format!(
            "FROM base\nCOPY debs /debs\nRUN cat /debs/* > /installed && rm -rf /debs\nCOPY app /app\nRUN {last}\n"
        );
        project.file("Dockerfile", text);
    };
    dockerfile("true");
    project.file("debs/one", "1\n").file("debs/two", "2\n");
    project.file("app", "first\n");
    let built = |store: &str, more: &[&str]| {
        let mut command = project.command();
        command.args(["--log-format", "json"]).args(args).args(more);
        command.arg("--cache-dir").arg(project.path(store));
        let output = project::succeed(&mut command);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    built("store", &[]);
    // One of the base, one of the RUN; no other is unpacked.
    let layers = |store: &str| {
        let entries = std::fs::read_dir(project.path(store).join("layers")).expect("layers");
        entries.count()
    };
    assert_eq!(layers("store"), 2);
    project.file("app", "second\n");
    dockerfile("cat /installed /app > /both; test ! -e /debs");
    for (store, args) in [("empty", &["--no-push-cache"][..]), ("store", &[])] {
        let steps = steps(&built(store, args));
        assert_eq!(steps.cached.len(), 2, "{store}: {steps:?}");
        // The COPY that was taken away again is not there; what this build made is.
        assert_eq!(layers(store), 3, "{store}");
    }
}

/// An argument that an ARG declares is the command's, whatever it is called.
#[test]
fn a_declared_proxy_is_an_argument() {
    let project = Project::new();
    let text = "FROM base\nARG http_proxy\nRUN echo $http_proxy > /proxy\n";
    project.file("Dockerfile", text);
    let one = build(
        &project,
        "store",
        &["--cache", "--build-arg=http_proxy=http://a"],
    );
    let two = build(
        &project,
        "store",
        &["--cache", "--build-arg=http_proxy=http://b"],
    );
    assert_eq!(two.steps.cached, Vec::<String>::new());
    assert_ne!(one.digest, two.digest);
}

/// Commands that are to run each time do, also where only their files are wanted.
#[test]
fn commands_that_are_not_cached_run() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base AS b\nRUN cat /proc/sys/kernel/random/uuid > /x\nFROM scratch\nCOPY --from=b /x /x\n",
    );
    let args = ["--cache", "--cache-run-layers=false"];
    let digests: Vec<String> = (0..2)
        .map(|_| build(&project, "store", &args).digest)
        .collect();
    assert_ne!(digests[0], digests[1]);
    // With them it is one image, without an epoch too.
    let mut images = Vec::new();
    for _ in 0..3 {
        let layout = project.path("plain");
        let _ = std::fs::remove_dir_all(&layout);
        let mut command = project.command();
        command
            .args(["--no-push", "--cache", "--oci-layout-path"])
            .arg(&layout);
        project::succeed(&mut command);
        images.push(std::fs::read_to_string(layout.join("index.json")).expect("an index"));
    }
    assert_eq!(images[0], images[1]);
    assert_eq!(images[1], images[2]);
}

/// What is fetched and can be nothing else is found before anything is fetched.
#[test]
fn pinned_sources_are_not_fetched_again() {
    let project = Project::new();
    let content = b"content\n";
    let digest = registry::run("sh", &["-c", "echo content | sha256sum | cut -c1-64"]);
    let server = fake::Fake::start(move |_| fake::reply(200).body(&content[..]));
    let text = format!(
        "FROM base\nADD --checksum=sha256:{} http://{}/x /x\nRUN cat /x > /y\n",
        digest.trim(),
        server.host
    );
    project.file("Dockerfile", text);
    let first = build(&project, "store", &["--cache"]);
    let asked = server.asked().len();
    let again = build(&project, "store", &["--cache"]);
    assert_eq!(again.digest, first.digest);
    assert_eq!(again.steps.made, Vec::<String>::new());
    assert_eq!(server.asked().len(), asked);
}

/// A layer that occurs twice is there twice.
#[test]
fn a_layer_may_occur_twice() {
    let project = Project::new();
    let text = "FROM base\nRUN mkdir /t && echo 0 > /t/f\nRUN echo 1 > /t/f\nRUN echo 2 > /t/f\nRUN echo 1 > /t/f\n";
    project.file("Dockerfile", text);
    build(&project, "store", &["--cache"]);
    project.file("Dockerfile", format!("{text}RUN cat /t/f > /o\n"));
    for args in [
        &["--cache"][..],
        &["--cache", "--rootfs=fuse"],
        &["--cache", "--rootfs=chroot"],
    ] {
        let cached = build(&project, "store", args);
        let plain = build(&project, "plain", &args[1..]);
        assert_eq!(cached.digest, plain.digest, "{args:?}");
    }
}

/// What no layer has of a step, later ones may have seen: it is carried out each time.
#[test]
fn steps_that_wrote_to_ignored_paths_are_not_kept() {
    let project = Project::new();
    let text = |last: &str| {
        let text =
            format!("FROM base\nRUN mkdir /ign; echo 1 > /ign/a\nRUN cat /ign/a > /o; {last}\n");
        project.file("Dockerfile", text);
    };
    let args = ["--cache", "--ignore-path=/ign"];
    text("true");
    build(&project, "store", &args);
    text(":");
    let again = build(&project, "store", &args);
    assert_eq!(again.steps.made.len(), 2, "{:?}", again.steps);
    assert_eq!(again.digest, build(&project, "plain", &args[1..]).digest);
}
