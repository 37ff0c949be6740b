//! Caches in object stores and in layouts: kept, found again by a machine that has nothing, left whole
//! by who is killed.

use super::fake::{Fake, reply};
use super::s3::{BUCKET, S3};
use super::trouble::warnings;
use super::{Made, Project, build, build_by, project, try_build};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const DOCKERFILE: &str = "\
FROM base AS tool
COPY large /large
RUN cat /large /large > /twice
FROM base
WORKDIR /work
RUN echo hello > greeting
COPY --from=tool /twice /large
COPY last last
";

/// Content that does not compress.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

fn with_large(bytes: usize) -> Project {
    let project = Project::new();
    project.file("Dockerfile", DOCKERFILE);
    project.file("large", noise(bytes)).file("last", "last\n");
    project
}

/// Builds with variables set.
pub fn build_with(project: &Project, store: &str, args: &[&str], env: &[(&str, &str)]) -> Made {
    let command = |mut command: Command| {
        command.envs(env.iter().copied());
        command
    };
    build_by(project, store, args, command)
}

/// A network of its own, joined with this one by one wire.
struct Wire {
    name: String,
    /// This end's address.
    here: String,
}

impl Wire {
    /// None where this may not be done.
    fn new() -> Option<Wire> {
        let number = std::process::id() % 60_000;
        let wire = Wire {
            name: format!("shutter{number}"),
            here: format!("10.{}.{}.1", 180 + number / 250 / 250, number / 250 % 250),
        };
        let there = format!("{}2/30", wire.here.strip_suffix('1')?);
        let (a, b) = (format!("sa{number}"), format!("sb{number}"));
        let ip = |args: &[&str]| {
            let mut command = Command::new("ip");
            command.args(args).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let here = format!("{}/30", wire.here);
        let all = ip(&["netns", "add", &wire.name])
            && ip(&["link", "add", &a, "type", "veth", "peer", "name", &b])
            && ip(&["link", "set", &b, "netns", &wire.name])
            && ip(&["addr", "add", &here, "dev", &a])
            && ip(&["link", "set", &a, "up"])
            && ip(&["-n", &wire.name, "addr", "add", &there, "dev", &b])
            && ip(&["-n", &wire.name, "link", "set", &b, "up"]);
        all.then_some(wire)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The wire goes with it.
        let args = ["netns", "del", &self.name];
        let _ = Command::new("ip").args(args).stderr(Stdio::null()).status();
    }
}

/// A machine that has nothing and reaches nothing but the server takes all of a build from there.
#[test]
fn an_empty_machine_builds_from_an_s3_server() {
    let server = S3::start();
    // So large that it goes up in parts, and twice that is.
    let project = with_large(6 << 20);
    let place = format!("s3://{BUCKET}/team/cache");
    let args = ["--cache", "--cache-repo", &place];
    let here = format!("http://127.0.0.1:{}", server.port);
    let first = build_with(&project, "store", &args, &S3::env(&here));
    assert_eq!(warnings(&first.said), Vec::<String>::new());
    assert_eq!(first.steps.made.len(), 6, "{:?}", first.steps);
    let objects = server.objects();
    let count = |part: &str| {
        let named = objects.iter().filter(|name| name.contains(part));
        named.count()
    };
    // A layer and a table a step, and the base's table; one key or two a step.
    assert_eq!(count("team/cache/blobs/sha256/"), 13, "{objects:#?}");
    assert!(count("team/cache/steps/") >= 6, "{objects:#?}");
    assert_eq!(count("team/cache/tables/"), 1, "{objects:#?}");

    let Some(wire) = Wire::new() else {
        let why = "it makes a network namespace with `ip`, for which it has to be root";
        super::skip::not_run("an_empty_machine_builds_from_an_s3_server", why);
        return;
    };
    let there = format!("http://{}:{}", wire.here, server.port);
    let env = S3::env(&there);
    let again = build_by(&project, "empty", &args, |own| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &wire.name]);
        command.arg(own.get_program()).args(own.get_args());
        command.envs(env);
        command
    });
    assert_eq!(warnings(&again.said), Vec::<String>::new());
    assert_eq!(again.steps.made, Vec::<String>::new());
    assert_eq!(again.digest, first.digest);

    // The last one's files are what a step is made of that has changed.
    let changed = DOCKERFILE.replace("COPY last last", "RUN cat /large | sha256sum > last");
    project.file("Dockerfile", changed);
    let more = build_with(&project, "third", &args, &S3::env(&here));
    assert_eq!(more.steps.made.len(), 1, "{:?}", more.steps);
    let plain = build(&project, "plain", &[]);
    assert_eq!(more.digest, plain.digest);
}

/// Who may not get in builds without, and says why once.
#[test]
fn a_wrong_key_costs_a_rebuild() {
    let server = S3::start();
    let project = with_large(1000);
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let place = format!("s3://{BUCKET}");
    let args = ["--cache", "--cache-repo", &place];
    let mut env = S3::env(&endpoint);
    env[1].1 = "another";
    let made = build_with(&project, "store", &args, &env);
    let warnings = warnings(&made.said);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&place), "{warnings:?}");
    assert!(
        warnings[0].contains("SignatureDoesNotMatch"),
        "{warnings:?}"
    );
    assert!(!made.said.contains("another"), "{}", made.said);
    assert_eq!(made.digest, build(&project, "plain", &[]).digest);
}

/// Objects by path.
type Kept = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Keeps objects by path, as any of the three protocols has them put and got in one piece.
fn objects() -> (Fake, Kept) {
    let kept = Kept::default();
    let all = Arc::clone(&kept);
    let fake = Fake::start(move |asked| {
        let mut all = all.lock().unwrap();
        // As who encodes more than need be means it.
        let path = asked.path().replace("%2F", "/").replace("%2E", ".");
        let dated = |reply: super::fake::Reply| {
            reply
                .with("etag", "\"1\"")
                .with("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        };
        match asked.method.as_str() {
            "PUT" => {
                all.insert(path, asked.body.clone());
                dated(reply(201))
            }
            _ => match all.get(&path) {
                Some(body) if asked.method == "HEAD" => {
                    dated(reply(200)).with("content-length", body.len().to_string())
                }
                Some(body) => dated(reply(200)).body(body.clone()),
                None => reply(404),
            },
        }
    });
    (fake, kept)
}

/// The other two protocols, whose servers are not to be had: what is put is found again.
#[test]
fn google_and_azure() {
    for (place, env, prefix) in [
        (
            "gs://builds/cache",
            vec![("GOOGLE_BEARER_TOKEN", "a token"), ("GOOGLE_BASE_URL", "@")],
            "/builds/cache/",
        ),
        (
            "azblob://builds/cache",
            vec![
                ("AZURE_STORAGE_ACCOUNT", "account"),
                ("AZURE_STORAGE_ACCESS_KEY", "a2V5"),
                ("AZURE_STORAGE_ENDPOINT", "@"),
            ],
            "/builds/cache/",
        ),
    ] {
        let (fake, kept) = objects();
        let endpoint = format!("http://{}", fake.host);
        let env: Vec<(&str, &str)> = env
            .into_iter()
            .map(|(name, value)| {
                (
                    name,
                    if value == "@" {
                        endpoint.as_str()
                    } else {
                        value
                    },
                )
            })
            .collect();
        let project = with_large(1000);
        let args = ["--cache", "--cache-repo", place];
        let first = build_with(&project, "store", &args, &env);
        assert_eq!(warnings(&first.said), Vec::<String>::new(), "{place}");
        let names: Vec<String> = kept.lock().unwrap().keys().cloned().collect();
        assert!(
            names.iter().all(|name| name.starts_with(prefix)),
            "{names:?}"
        );
        let again = build_with(&project, "empty", &args, &env);
        assert_eq!(again.steps.made, Vec::<String>::new(), "{place}");
        assert_eq!(again.digest, first.digest);
        assert_eq!(warnings(&again.said), Vec::<String>::new(), "{place}");
    }
}

#[test]
fn places_that_are_none() {
    let project = with_large(10);
    for (place, said) in [
        ("oci:", "names no directory"),
        ("s3://", "s3://BUCKET[/PREFIX] is wanted"),
        ("gs:///prefix", "gs://BUCKET[/PREFIX] is wanted"),
        ("azblob://", "azblob://CONTAINER[/PREFIX] is wanted"),
        ("azblob://container", "azblob://container: set it up"),
        (
            "https://account.blob.core.windows.net/",
            "azblob://CONTAINER",
        ),
    ] {
        for flag in ["--cache-repo", "--cache-from"] {
            let (output, _) = try_build(&project, "store", &["--cache", flag, place]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{place}: {text}");
            assert!(text.contains(said), "{place}: {text}");
        }
    }
}

/// A layout on disk is a place as any other, and an ordinary one.
#[test]
fn a_layout_is_a_place() {
    let project = with_large(100_000);
    let dir = project.path("kept");
    let place = format!("oci:{}", dir.display());
    let args = ["--cache", "--cache-repo", &place];
    let first = build(&project, "store", &args);
    assert_eq!(warnings(&first.said), Vec::<String>::new());
    let again = build(&project, "empty", &["--cache", "--cache-from", &place]);
    assert_eq!(again.steps.made, Vec::<String>::new());
    assert_eq!(again.digest, first.digest);
    // Others read it too.
    let index = std::fs::read(dir.join("index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    for entry in index["manifests"].as_array().expect("manifests") {
        let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str();
        let name = format!("oci:{}:{}", dir.display(), name.expect("a name"));
        super::registry::run("skopeo", &["inspect", "--raw", &name]);
    }
    // A directory that is something else stays what it is.
    let other = project.path("context");
    let place = format!("oci:{}", other.display());
    let made = build(&project, "fresh", &["--cache", "--cache-repo", &place]);
    let said = warnings(&made.said);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("something else's"), "{said:?}");
    assert!(!other.join("index.json").exists());
}

/// Eight builds of different things write to one layout while others are killed: nothing is lost of who
/// lived, and all that is there is whole.
#[test]
fn a_layout_outlives_who_writes_to_it() {
    let project = Project::new();
    project.file("large", noise(1 << 20));
    let kept = project.path("kept");
    let place = format!("oci:{}", kept.display());
    let count = 8;
    let dockerfile = |number: usize| {
        let text = format!("FROM base\nCOPY large /{number}\nRUN echo {number} > /number\n");
        let name = format!("Dockerfile.{number}");
        project.file(&name, text);
        project.path("context").join(name)
    };
    let files: Vec<_> = (0..count).map(dockerfile).collect();
    let command = |number: usize| {
        let mut command = project.command();
        command.args([
            "--no-push",
            "--reproducible",
            "--cache",
            "--cache-repo",
            &place,
        ]);
        command.arg("--dockerfile").arg(&files[number]);
        command
            .arg("--cache-dir")
            .arg(project.path(&format!("store{number}")));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("start")
    };
    let mut children: Vec<_> = (0..count).map(command).collect();
    // Half are killed once something is there.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !kept.join("index.json").exists() && std::time::Instant::now() < end {
        std::thread::yield_now();
    }
    for child in children.iter_mut().step_by(2) {
        let _ = child.kill();
    }
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().expect("wait");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(number % 2 == 0 || output.status.success(), "{said}");
        assert!(!said.contains("goes on without"), "{said}");
    }
    for entry in std::fs::read_dir(kept.join("blobs/sha256")).expect("blobs") {
        let path = entry.expect("an entry").path();
        let hex = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let path = path.to_string_lossy().into_owned();
        let sum = super::registry::run("sha256sum", &[&path]);
        assert!(sum.starts_with(&hex), "{path}");
    }
    for number in (1..count).step_by(2) {
        let file = files[number].to_string_lossy().into_owned();
        let args = ["--cache", "--cache-repo", &place, "--dockerfile", &file];
        let made = build(&project, "empty", &args);
        assert_eq!(made.steps.made, Vec::<String>::new(), "{number}");
    }
}

/// A file system of few bytes.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_layout_that_is_full_costs_a_warning() {
    let project = with_large(300_000);
    let small = Small(project.path("small"));
    std::fs::create_dir(&small.0).expect("a directory");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=128k", "none"]);
    project::succeed(mount.arg(&small.0));
    let place = format!("oci:{}", small.0.join("cache").display());
    let args = ["--cache", "--cache-repo", &place];
    let made = build(&project, "store", &args);
    let said = warnings(&made.said);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("No space left"), "{said:?}");
    let again = build(&project, "empty", &args);
    assert_eq!(again.digest, made.digest);
    assert_eq!(made.digest, build(&project, "plain", &[]).digest);
    // Nothing half made stays behind.
    let kept = std::fs::read_dir(small.0.join("cache")).expect("list");
    let names = kept.map(|entry| entry.expect("an entry").file_name());
    let names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    let is_making = |name: &String| name.starts_with(".shutter-");
    assert!(!names.iter().any(is_making), "{names:?}");
}
