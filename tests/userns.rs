//! Builds by a user of no rights, in a user namespace of the builder's own.

#[path = "common/base.rs"]
mod base;
#[path = "common/project.rs"]
mod project;
#[path = "common/registry.rs"]
mod registry;
#[path = "common/user.rs"]
mod user;

use project::Project;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use user::Ids;

/// Makes a project that the user can read, with the program in it.
fn project(dockerfile: &str) -> Project {
    let project = Project::new();
    project.file("Dockerfile", dockerfile);
    user::settle(project.dir.path(), Path::new(env!("CARGO_BIN_EXE_shutter")));
    project
}

/// Builds into a layout of that name, as the user or as root, each with a store of its own.
fn build(project: &Project, by: Option<Ids>, root: &str, out: &str) -> Output {
    run(program(project, by).arg("build"), project, root, out)
}

fn program(project: &Project, by: Option<Ids>) -> Command {
    match by {
        Some(ids) => user::command(&project.path("shutter"), ids, project.dir.path()),
        None => Command::new(project.path("shutter")),
    }
}

fn run(command: &mut Command, project: &Project, root: &str, out: &str) -> Output {
    command
        .arg("--context")
        .arg(project.path("context"))
        .arg("--cache-dir")
        .arg(project.path(&format!("store-{out}")))
        .args(["--log-format", "text", "--reproducible", "--rootfs", root])
        .arg("--build-context")
        .arg(format!("base=oci-layout://{}", project.base.display()))
        .arg("--no-push")
        .arg("--oci-layout-path")
        .arg(project.path(out))
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .expect("run shutter")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Gives the digests of an image's layers.
fn layers(layout: &Path) -> Vec<String> {
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON")
    };
    let index = read(&layout.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
    let hex = digest.trim_start_matches("sha256:");
    let manifest = read(&layout.join("blobs/sha256").join(hex));
    let all = manifest["layers"].as_array().expect("layers").iter();
    all.map(|layer| layer["digest"].to_string()).collect()
}

/// Makes `base` an image with everything in it that takes rights to unpack.
fn odd_base(project: &Project) {
    use std::os::unix::fs::{PermissionsExt, chown};
    let tree = project.path("tree");
    let at = |name: &str| tree.join(name);
    std::fs::create_dir_all(at("s/dir")).expect("a directory");
    let files = [
        ("cap", 0, 0, 0o755),
        ("setuid", 33, 44, 0o4755),
        ("far", 100_000, 200_000, 0o600),
        ("far2", 100_000, 200_000, 0o644),
        ("linked", 5, 5, 0o644),
        ("gone", 0, 0, 0o644),
        ("dir/a", 7, 7, 0o644),
    ];
    for (name, uid, gid, mode) in files {
        let path = at(&format!("s/{name}"));
        std::fs::write(&path, name).expect("a file");
        chown(&path, Some(uid), Some(gid)).expect("an owner");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
    }
    // CAP_NET_RAW, in the second version of the format (capability.h).
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at("s/cap"), "security.capability", &capability, flags)
        .expect("a capability");
    std::fs::hard_link(at("s/linked"), at("s/linked2")).expect("a link");
    let node = |name: &str, kind, major, minor| {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, mode, device).expect("a node");
    };
    node("s/char", rustix::fs::FileType::CharacterDevice, 1, 3);
    node("s/block", rustix::fs::FileType::BlockDevice, 7, 1);
    node("s/fifo", rustix::fs::FileType::Fifo, 0, 0);
    let status = Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--mtime=@1600000000",
            "-C",
        ])
        .arg(&tree)
        .arg("-cf")
        .arg(project.path("context/odd.tar"))
        .arg("s")
        .status()
        .expect("run tar");
    assert!(status.success());
}

/// What a user builds is what root builds, to the byte.
#[test]
fn layers_are_those_that_root_makes() {
    let project = project(
        "FROM base AS odd\n\
         ADD odd.tar /\n\
         FROM odd\n\
         RUN touch /s/cap /s/setuid && chmod 640 /s/far && rm /s/gone && chmod 600 /s/fifo\n\
         RUN rm -rf /s/dir /tree && mkdir /s/dir /tree && echo x > /tree/new && rm /s/block /s/far2\n\
         RUN mkdir -p /n/m && chmod 1777 /n/m && chmod g+s /n && touch /n/g && mkfifo /n/p && \\\n\
             ln /n/g /n/h && ln -s g /n/l && setfattr -n user.a -v b /n/g || true\n\
         COPY --from=odd --chown=12:34 /s /from\n\
         COPY --from=odd /s /same\n\
         COPY --chown=100000:5 Dockerfile /copied\n",
    );
    odd_base(&project);
    let output = build(&project, None, "overlay", "root");
    assert!(output.status.success(), "{}", said(&output));
    let wanted = layers(&project.path("root"));
    for (ids, root, out) in [
        (Ids::Range, "overlay", "range-overlay"),
        (Ids::Range, "fuse", "range-fuse"),
        (Ids::One, "overlay", "one-overlay"),
        (Ids::One, "fuse", "one-fuse"),
    ] {
        let output = build(&project, Some(ids), root, out);
        assert!(output.status.success(), "{out}: {}", said(&output));
        assert_eq!(
            layers(&project.path(out)),
            wanted,
            "{out}: {}",
            said(&output)
        );
    }
}

/// A command sees ids as in any container, and no process of others.
#[test]
fn a_command_has_ids_and_processes_of_its_own() {
    let project = project(
        "FROM base\n\
         RUN touch /f && chown 65535:65535 /f && [ \"$(stat -c %u:%g /f)\" = 65535:65535 ]\n\
         RUN [ \"$(ls -d /proc/[0-9]* | wc -l)\" -le 8 ]\n\
         RUN echo > /dev/null && ! touch /sys/kernel/x\n\
         RUN --network=none [ \"$(ls /sys/class/net)\" = lo ]\n\
         USER 1234:4321\n\
         RUN [ \"$(id -u):$(id -g)\" = 1234:4321 ]\n",
    );
    for root in ["overlay", "fuse"] {
        let output = build(&project, Some(Ids::Range), root, root);
        assert!(output.status.success(), "{root}: {}", said(&output));
        assert!(!said(&output).contains("WARN"), "{}", said(&output));
    }
}

/// Where a part of `/proc` is hidden, as in most containers, commands have what is left of it.
#[test]
fn a_hidden_part_of_proc_stays_hidden() {
    let project = project(
        "FROM base\n\
         RUN [ -d /proc/self ] && [ -z \"$(ls /proc/sys/debug)\" ]\n\
         RUN ! echo x > /proc/sys/kernel/hostname\n",
    );
    let mut inner = user::command(&project.path("shutter"), Ids::Range, project.dir.path());
    inner.arg("build");
    let mut outer = Command::new("unshare");
    outer
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t tmpfs -o ro hidden /proc/sys/debug && exec \"$0\" \"$@\"")
        .arg(inner.get_program())
        .args(inner.get_args());
    let output = run(&mut outer, &project, "overlay", "out");
    assert!(output.status.success(), "{}", said(&output));
    let warning = "a part of /proc is hidden here";
    assert_eq!(
        said(&output).matches(warning).count(),
        1,
        "{}",
        said(&output)
    );
}

/// One id is said once, with the remedy; so is a user who is not there.
#[test]
fn one_id_is_told_of() {
    let project = project("FROM base\nRUN true\nRUN id\nUSER 1000\nRUN true\n");
    let output = build(&project, Some(Ids::One), "overlay", "out");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("there is one user id").count(), 1, "{said}");
    assert!(
        said.contains("/etc/subuid has no range for shutter-test"),
        "{said}"
    );
    assert!(
        said.contains("run as user 1000 and group 1000: there is no such id"),
        "{said}"
    );
}

/// Root of a container that may not mount, but may make user namespaces, has all its ids in one.
#[test]
fn root_without_the_right_to_mount_keeps_its_ids() {
    let project = project(
        "FROM base\n\
         RUN touch /f && chown 70000:70000 /f && [ \"$(stat -c %u:%g /f)\" = 70000:70000 ]\n",
    );
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"])
        .arg(project.path("shutter"))
        .arg("build");
    let output = run(&mut command, &project, "overlay", "out");
    assert!(output.status.success(), "{}", said(&output));
}

/// Who cannot keep owners shares with root what is right for both, and nothing of what commands made that
/// saw others.
#[test]
fn a_cache_shared_with_root_gives_everybody_the_own_image() {
    let project = project(
        "FROM base AS odd\n\
         ADD odd.tar /\n\
         FROM odd\n\
         COPY --chown=12:34 Dockerfile /copied\n\
         COPY --from=odd --chown=100000:5 /s /from\n\
         WORKDIR /work\n\
         RUN stat -c '%n %u:%g' /s/setuid /s/linked /copied > owners\n\
         RUN touch /s/far /plain; chown 7:8 /plain 2> /dev/null || echo refused > /plain\n\
         COPY --from=odd /s /same\n\
         RUN wc -l owners > lines\n",
    );
    odd_base(&project);
    let everybody = [None, Some(Ids::One), Some(Ids::Range)];
    let plain = everybody.map(|by| {
        let out = format!("plain-{by:?}");
        let output = build(&project, by, "overlay", &out);
        assert!(output.status.success(), "{by:?}: {}", said(&output));
        layers(&project.path(&out))
    });
    // What this is about: one sees other owners, who has a range sees the same.
    assert_ne!(plain[0], plain[1]);
    assert_eq!(plain[0], plain[2]);
    // How many steps are found by those who come after others: all, or those before the first command.
    for order in [[(0, 0), (1, 4), (2, 8)], [(1, 0), (2, 4), (0, 8)]] {
        let registry = registry::start();
        let repo = format!("--cache-repo={}/cache", registry.host);
        let cached = |round: &str, who: usize, found: usize| {
            let out = format!("{round}-{who}-{}", order[0].0);
            let mut command = program(&project, everybody[who]);
            let command = command.args(["build", "--cache", "--insecure", &repo]);
            let command = command.env("HOME", project.dir.path());
            let output = run(command, &project, "overlay", &out);
            let said = said(&output);
            assert!(output.status.success(), "{out}: {said}");
            assert_eq!(layers(&project.path(&out)), plain[who], "{out}: {said}");
            assert_eq!(said.matches("cached: ").count(), found, "{out}: {said}");
            assert!(!said.contains("cannot be used"), "{out}: {said}");
        };
        for (who, found) in order {
            cached("first", who, found);
        }
        for (who, _) in order {
            cached("again", who, 8);
        }
    }
}
