//! The recorded builds: each Dockerfile is built by the real program and the image compared with
//! what BuildKit made of it. `testdata/conformance/README.md` says what the files mean.

#[path = "common/base.rs"]
mod base;
#[path = "common/container.rs"]
mod container;
#[path = "common/dockerd.rs"]
#[allow(dead_code)]
mod dockerd;
#[path = "common/listing.rs"]
mod listing;
#[path = "common/registry.rs"]
mod registry;
#[path = "common/user.rs"]
mod user;

use container::{Container, Engine};
use listing::{Listing, compare, read_layout};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where an image goes and how it comes back for the comparison.
enum Way<'a> {
    Registry(&'a str),
    Layout(&'a Path),
    /// The same, built on another root.
    On(&'static str, &'a Path),
    /// The same in a container, where the program is called by these words.
    In(&'a Container, &'a [OsString], &'static str, &'a Path),
    /// The same, by a user of no rights.
    User(user::Ids, &'static str, &'a Path),
}

/// What cannot be as recorded where nothing can be mounted and no namespace be made: what is in the
/// result, or the error, instead.
const WITHOUT_MOUNTS: &[(&[&str], &str, &str)] = &[
    // A copy that is thrown away, which can be written to.
    (
        &["chroot", "inplace"],
        "mount-bind-ro",
        "/changed/r: recorded",
    ),
    // An ordinary directory.
    (
        &["chroot", "inplace"],
        "mount-tmpfs",
        "/changed/fs/sha256: recorded",
    ),
    (
        &["chroot", "inplace"],
        "run-network-none",
        "takes a namespace",
    ),
    // A symbolic link to where nothing is ever on a disk.
    (&["inplace"], "mount-secret", "/changed/st/sha256: recorded"),
];

/// What cannot be as recorded where there is one id alone.
const WITH_ONE_ID: &[(&[&str], &str, &str)] = &[
    // Nothing can be given to who is not there.
    (BOTH, "copy-from-stage", "chown: /o/p/f: Invalid argument"),
    (BOTH, "run-chown-base", "chown: /tree: Invalid argument"),
    (BOTH, "run-modes", "chown: /t: Invalid argument"),
    // A cache and a secret that say whose they are belong to root.
    (BOTH, "mount-cache", "/changed/st/sha256: recorded"),
    (BOTH, "mount-secret", "/changed/st/sha256: recorded"),
    // Nobody else can run anything.
    (
        BOTH,
        "run-user",
        "run as user 1000 and group 1000: there is no",
    ),
    (
        BOTH,
        "run-user-group",
        "run as user 1000 and group 50: there is no",
    ),
    (
        BOTH,
        "run-user-num",
        "run as user 1234 and group 4321: there is no",
    ),
    (
        BOTH,
        "stage-from-stage-config",
        "run as user 1000 and group 1000",
    ),
    (
        BOTH,
        "workdir-user",
        "run as user 1000 and group 1000: there is no",
    ),
];

/// The roots of builds with one id.
const BOTH: &[&str] = &["one id", "one id on fuse"];

#[test]
fn images_pushed_to_a_registry_are_as_recorded() {
    let registry = registry::start();
    let host = registry.host.clone();
    let work = tempfile::tempdir().expect("a directory");
    let layout = base::make(work.path());
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-tls-verify=false"])
        .arg(format!("oci:{}", layout.display()))
        .arg(format!("docker://{host}/base:1"))
        .status()
        .expect("run skopeo");
    assert!(copied.success(), "skopeo puts the base into the registry");
    run_all(work.path(), &layout, &Way::Registry(&host));
}

#[test]
fn images_in_a_layout_are_as_recorded() {
    let work = tempfile::tempdir().expect("a directory");
    let layout = base::make(work.path());
    run_all(work.path(), &layout, &Way::Layout(&layout));
}

#[test]
fn images_built_on_fuse_are_as_recorded() {
    on_root("fuse");
}

#[test]
fn images_built_in_a_chroot_are_as_recorded() {
    on_root("chroot");
}

#[test]
fn images_built_in_place_in_dockers_container_are_as_recorded() {
    in_container("inplace", |_| Engine::docker());
}

#[test]
fn images_built_in_a_chroot_in_dockers_container_are_as_recorded() {
    in_container("chroot", |_| Engine::docker());
}

#[test]
fn images_built_in_place_in_podmans_container_are_as_recorded() {
    in_container("inplace", Engine::podman);
}

#[test]
fn images_built_in_a_chroot_in_podmans_container_are_as_recorded() {
    in_container("chroot", Engine::podman);
}

/// Builds in a container with no more rights than an engine gives by default.
fn in_container(root: &'static str, engine: impl Fn(&Path) -> Engine) {
    let dir = tempfile::tempdir().expect("a directory");
    let (work, agent, program) = ("work", "agent", "program");
    let [work, agent, program] = [work, agent, program].map(|name| dir.path().join(name));
    for dir in [&work, &program, &agent.join("bin")] {
        std::fs::create_dir_all(dir).expect("a directory");
    }
    std::fs::copy("/bin/busybox", agent.join("bin/busybox")).expect("busybox");
    std::fs::write(agent.join("tools"), "of the agent").expect("write");
    let called = container::portable(
        Path::new(env!("CARGO_BIN_EXE_shutter")),
        &program,
        "/program",
    );
    let layout = base::make(&work);
    let inside = work.display().to_string();
    let volumes = [(work.as_path(), inside.as_str()), (&program, "/program")];
    let container = Container::start(engine(dir.path()), &agent, &volumes, &[]);
    run_all(&work, &layout, &Way::In(&container, &called, root, &layout));
}

fn on_root(root: &'static str) {
    let work = tempfile::tempdir().expect("a directory");
    let layout = base::make(work.path());
    run_all(work.path(), &layout, &Way::On(root, &layout));
}

#[test]
fn images_built_by_a_user_are_as_recorded() {
    by_user(user::Ids::Range, "overlay");
}

#[test]
fn images_built_by_a_user_on_fuse_are_as_recorded() {
    by_user(user::Ids::Range, "fuse");
}

#[test]
fn images_built_with_one_id_are_as_recorded() {
    by_user(user::Ids::One, "overlay");
}

#[test]
fn images_built_with_one_id_on_fuse_are_as_recorded() {
    by_user(user::Ids::One, "fuse");
}

fn by_user(ids: user::Ids, root: &'static str) {
    let work = tempfile::tempdir().expect("a directory");
    user::settle(work.path(), Path::new(env!("CARGO_BIN_EXE_shutter")));
    let layout = base::make(work.path());
    run_all(work.path(), &layout, &Way::User(ids, root, &layout));
}

fn run_all(work: &Path, layout: &Path, way: &Way<'_>) {
    let base = read_layout(layout);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/conformance/cases");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("the cases")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort();
    assert_eq!(names.len(), 129, "every recorded build is here");
    let only = std::env::var("CASE").ok();
    let mut failures = Vec::new();
    for name in names
        .iter()
        .filter(|n| only.as_ref().is_none_or(|only| only == *n))
    {
        let root = match way {
            Way::On(root, _) | Way::In(_, _, root, _) => root,
            Way::User(user::Ids::Range, root, _) => root,
            Way::User(user::Ids::One, "fuse", _) => "one id on fuse",
            Way::User(user::Ids::One, ..) => "one id",
            Way::Registry(_) | Way::Layout(_) => "overlay",
        };
        let otherwise = WITHOUT_MOUNTS
            .iter()
            .chain(WITH_ONE_ID)
            .find(|(roots, known, _)| roots.contains(&root) && known == name);
        match (
            run_one(&folder.join(name), name, work, &base, way),
            otherwise,
        ) {
            (Ok(()), None) => {}
            (Err(why), Some((.., wanted))) if why.contains(wanted) => {}
            (Err(why), _) => failures.push(format!("{name}: {why}")),
            (Ok(()), Some(_)) => failures.push(format!("{name}: as recorded after all")),
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} differ:\n{}",
        failures.len(),
        names.len(),
        failures.join("\n")
    );
}

fn run_one(
    case: &Path,
    name: &str,
    work: &Path,
    base: &Listing,
    way: &Way<'_>,
) -> Result<(), String> {
    let read = |file: &str| -> Option<Value> {
        let text = std::fs::read(case.join(file)).ok()?;
        Some(serde_json::from_slice(&text).expect("JSON"))
    };
    let call = read("case.json").expect("case.json");
    let context = work.join("context");
    let _ = std::fs::remove_dir_all(&context);
    copy_tree(&case.join("context"), &context);
    let reference = match way {
        Way::Registry(host) => format!("{host}/base:1"),
        Way::Layout(_) | Way::On(..) | Way::In(..) | Way::User(..) => "base".into(),
    };
    let dockerfile = context.join("Dockerfile");
    let text = std::fs::read(&dockerfile).expect("the Dockerfile");
    std::fs::write(&dockerfile, replace(&text, b"@BASE@", reference.as_bytes())).expect("write");
    for (path, mode) in call["modes"].as_object().into_iter().flatten() {
        use std::os::unix::fs::PermissionsExt;
        let mode = mode.as_str().expect("a mode").trim_start_matches("0o");
        let mode = u32::from_str_radix(mode, 8).expect("an octal mode");
        std::fs::set_permissions(context.join(path), std::fs::Permissions::from_mode(mode))
            .expect("chmod");
    }
    for (path, target) in call["links"].as_object().into_iter().flatten() {
        let target = target.as_str().expect("a target");
        std::os::unix::fs::symlink(target, context.join(path)).expect("a symbolic link");
    }
    let out = work.join("out");
    let _ = std::fs::remove_dir_all(&out);
    let ran = build(&call, &context, work, way, name, &out);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let code = ran.status.code();
    if call["expect"] == "error" {
        let wanted = call["exit_code"].as_i64().map_or(1, |code| code as i32);
        let nothing = match way {
            Way::Registry(host) => !fetch(host, name, &out),
            Way::Layout(_) | Way::On(..) | Way::In(..) | Way::User(..) => !out.exists(),
        };
        let message = call["message"].as_str().expect("a message");
        // Behind the excerpt, which has the words of the Dockerfile.
        let lines: Vec<&str> = said.lines().collect();
        let error = lines.iter().rposition(|line| line.starts_with("error: "));
        let error = error.map_or(String::new(), |at| lines[at..].join("\n"));
        return if code == Some(wanted) && nothing && error.contains(message) {
            Ok(())
        } else {
            Err(format!(
                "exit {code:?}, wanted {wanted}; nothing left: {nothing}; wanted {message:?}; {said}"
            ))
        };
    }
    if code != Some(0) {
        return Err(format!("exit {code:?}: {said}"));
    }
    if let Way::Registry(host) = way
        && !fetch(host, name, &out)
    {
        return Err("the registry does not have it".into());
    }
    let Some(expected) = read("expected.json") else {
        return Ok(());
    };
    let image = read_layout(&out);
    let base_id = &base.image["rootfs"]["diff_ids"][0];
    let on_base = &image.image["rootfs"]["diff_ids"][0] == base_id;
    let empty = BTreeMap::new();
    let mut got = compare(if on_base { &base.files } else { &empty }, &image.files);
    let mut config = image.image["config"].clone();
    if let Some(env) = config["Env"].as_array_mut() {
        env.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    got["config"] = config;
    got["author"] = image.image.get("author").cloned().unwrap_or(Value::Null);
    let mut expected = expected;
    // The recorded Dockerfile has another name of the base in it where it was copied itself.
    for files in [&mut expected, &mut got] {
        for (path, file) in files["changed"].as_object_mut().into_iter().flatten() {
            if let (true, Some(file)) = (path.ends_with("Dockerfile"), file.as_object_mut()) {
                file.remove("size");
                file.remove("sha256");
            }
        }
    }
    let mut wrong = Vec::new();
    differences("", &sorted(&expected), &sorted(&got), &mut wrong);
    check_layers(&image, &mut wrong);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

/// Manifest, config and history must tell the same story.
fn check_layers(image: &Listing, wrong: &mut Vec<String>) {
    let layers = image.manifest["layers"].as_array().map_or(0, Vec::len);
    let diff_ids = image.image["rootfs"]["diff_ids"]
        .as_array()
        .map_or(0, Vec::len);
    if layers != diff_ids {
        wrong.push(format!("{layers} layers and {diff_ids} diff IDs"));
    }
}

fn build(
    call: &Value,
    context: &Path,
    work: &Path,
    way: &Way<'_>,
    name: &str,
    out: &Path,
) -> Output {
    let mut command = match way {
        Way::User(ids, ..) => {
            give(context);
            user::command(&work.join("shutter"), *ids, work)
        }
        _ => Command::new(env!("CARGO_BIN_EXE_shutter")),
    };
    command.arg("build").arg("--context").arg(context);
    command
        .arg("--cache-dir")
        .arg(work.join("store"))
        .args(["--log-format", "text"]);
    for (key, value) in call["build_args"].as_object().into_iter().flatten() {
        command
            .arg("--build-arg")
            .arg(format!("{key}={}", value.as_str().expect("text")));
    }
    for (key, value) in call["labels"].as_object().into_iter().flatten() {
        command
            .arg("--label")
            .arg(format!("{key}={}", value.as_str().expect("text")));
    }
    for (id, value) in call["secrets"].as_object().into_iter().flatten() {
        let variable = format!("SECRET_{id}");
        command
            .arg("--secret")
            .arg(format!("id={id},env={variable}"))
            .env(&variable, value.as_str().expect("text"));
    }
    if let Some(target) = call["target"].as_str() {
        command.args(["--target", target]);
    }
    match way {
        Way::Registry(host) => {
            command
                .arg("--destination")
                .arg(format!("{host}/case/{name}:latest"));
            command.args(["--insecure", "--insecure-pull"]);
        }
        Way::Layout(base) | Way::On(_, base) | Way::In(.., base) | Way::User(.., base) => {
            if let Way::On(root, _) | Way::In(_, _, root, _) | Way::User(_, root, _) = way {
                command.args(["--rootfs", root]);
            }
            command.arg("--no-push").arg("--oci-layout-path").arg(out);
            command
                .arg("--build-context")
                .arg(format!("base=oci-layout://{}", base.display()));
        }
    }
    let Way::In(container, called, ..) = way else {
        return command.output().expect("run shutter");
    };
    let variables: Vec<(OsString, OsString)> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    let words = called.iter().cloned();
    let words: Vec<OsString> = words
        .chain(command.get_args().map(OsString::from))
        .collect();
    container.exec(&variables, &words)
}

/// Gives a directory with all that is in it to the user.
fn give(dir: &Path) {
    let owner = format!("{0}:{0}", user::UID);
    let status = Command::new("chown")
        .args(["-hR", &owner])
        .arg(dir)
        .status()
        .expect("run chown");
    assert!(status.success(), "chown {}", dir.display());
}

fn fetch(host: &str, name: &str, out: &Path) -> bool {
    let _ = std::fs::remove_dir_all(out);
    Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{host}/case/{name}:latest"))
        .arg(format!("oci:{}", out.display()))
        .output()
        .expect("run skopeo")
        .status
        .success()
}

fn differences(at: &str, expected: &Value, got: &Value, out: &mut Vec<String>) {
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                let (x, y) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
                differences(&format!("{at}/{key}"), x, y, out);
            }
        }
        _ if expected != got => out.push(format!("{at}: recorded {expected}, built {got}")),
        _ => {}
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            json!(ordered)
        }
        other => other.clone(),
    }
}

fn replace(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn copy_tree(from: &Path, to: &PathBuf) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .expect("run cp");
    assert!(status.success(), "copy {}", from.display());
}
