//! `shutter doctor`, and builds that find no root to run commands on, or no room for their bases: here,
//! without rights, in a user namespace, and in ordinary containers.

#[path = "common/base.rs"]
mod base;
#[path = "common/container.rs"]
mod container;
#[path = "common/dockerd.rs"]
#[allow(dead_code)]
mod dockerd;
#[path = "common/project.rs"]
mod project;

use project::Project;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// The beginning of a command that takes capabilities away, in a chroot that shows the same files.
macro_rules! in_chroot {
    () => {
        "exec unshare -m sh -c 'mount --rbind / /mnt && c=$1 && shift && \
         exec chroot /mnt setpriv --bounding-set=$c --inh-caps=$c \"$@\"' sh "
    };
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Runs a command behind another one that takes its rights away.
fn behind(words: &[&str], command: &Command) -> Output {
    let mut outer = Command::new(words[0]);
    outer
        .args(&words[1..])
        .arg(command.get_program())
        .args(command.get_args())
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env_remove("SOURCE_DATE_EPOCH");
    outer.output().expect("run it")
}

fn doctor(store: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    command.arg("doctor").arg("--cache-dir").arg(store);
    command.args(args);
    command
}

/// Gives what the doctor says, by root: whether it works, why not and the remedy.
fn by_root(text: &str) -> Vec<(String, bool, String)> {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let roots = value["roots"].as_array().expect("roots");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    roots
        .iter()
        .map(|root| {
            let said = format!("{} / {}", text(&root["why"]), text(&root["remedy"]));
            (
                text(&root["name"]),
                root["works"].as_bool().expect("works"),
                said,
            )
        })
        .collect()
}

const NOBODY: &[&str] = &[
    "setpriv",
    "--reuid=1000",
    "--clear-groups",
    "--no-new-privs",
];
/// Who is in a chroot can make no user namespace, so this is what there is without any.
const NO_RIGHTS: &[&str] = &["sh", "-c", concat!(in_chroot!(), "-all \"$@\""), "sh"];
const NO_MOUNTS: &[&str] = &["sh", "-c", concat!(in_chroot!(), "-sys_admin \"$@\""), "sh"];

#[test]
fn everything_works_for_root_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("not/yet");
    let (code, out, err) = told(&doctor(&store, &[]).output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.contains(&"overlay  yes"), "{out}");
    assert!(lines.contains(&"fuse     yes"), "{out}");
    assert!(lines.contains(&"chroot   yes"), "{out}");
    assert!(lines.contains(&"auto takes overlay"), "{out}");
    let last = lines.last().unwrap();
    let expected = format!(
        "the store lies in {} (as --cache-dir says), on ",
        store.display()
    );
    assert!(
        last.starts_with(&expected) && last.contains(" free"),
        "{last}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    let (code, out, _) = told(&doctor(&store, &["--rootfs=fuse"]).output().unwrap());
    assert_eq!(code, 0);
    assert!(
        out.starts_with("fuse     yes\n\na build takes fuse\n"),
        "{out}"
    );
    let args = ["--format=json"];
    let (code, out, _) = told(&doctor(&store, &args).output().unwrap());
    assert_eq!(code, 0);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["takes"], "overlay");
    assert!(value["store"]["free"].as_u64().unwrap() > 0);
    assert_eq!(value["store"]["path"], store.display().to_string());
}

#[test]
fn a_refusal_names_what_is_in_the_way_and_what_helps() {
    let dir = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).unwrap();
    // Where anybody may execute it.
    let program = dir.path().join("shutter");
    std::fs::copy(env!("CARGO_BIN_EXE_shutter"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["doctor", "--format=json", "--cache-dir"]);
    command.arg(dir.path().join("store"));
    type Case<'a> = (&'a [&'a str], i32, [(bool, &'a str); 2]);
    let cases: [Case<'_>; 2] = [
        (
            NO_MOUNTS,
            0,
            [
                (false, "CAP_SYS_ADMIN, which root here does not have"),
                (true, ""),
            ],
        ),
        (
            NO_RIGHTS,
            1,
            [
                (false, "capabilities.add: [SYS_ADMIN]"),
                (false, "for want of CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER"),
            ],
        ),
    ];
    for (words, code, [overlay, chroot]) in cases {
        let (got, out, err) = told(&behind(words, &command));
        assert_eq!((got, err.as_str()), (code, ""), "{words:?} {out}");
        let roots = by_root(&out);
        for (name, (works, said)) in [("overlay", overlay), ("chroot", chroot)] {
            let (_, does, got) = roots.iter().find(|root| root.0 == name).unwrap();
            assert_eq!(*does, works, "{words:?} {out}");
            assert!(got.contains(said), "{words:?} {name} {got}");
        }
    }
    // Nobody may write where the store would be.
    let (code, _, err) = told(&behind(NOBODY, &doctor(Path::new("/var/cache/x"), &[])));
    assert_eq!(code, 1);
    assert!(err.contains("use /var/cache/x as the store"), "{err}");
    assert!(err.contains("hint: --cache-dir"), "{err}");
}

#[test]
fn a_place_that_cannot_become_a_store_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let cases = [
        ("file", "it is not a directory"),
        ("file/below", "it is not a directory"),
        ("", "there is `file`"),
    ];
    for (place, why) in cases {
        let store = dir.path().join(place);
        let (code, out, err) = told(&doctor(&store, &[]).output().unwrap());
        assert_eq!((code, out.as_str()), (1, ""), "{place} {err}");
        let named = format!("use {} as the store: ", store.display());
        assert!(err.contains(&named) && err.contains(why), "{place} {err}");
        assert!(err.contains("hint: --cache-dir"), "{place} {err}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// A base that nobody could pull.
const UNREACHABLE: &str = "FROM registry.invalid/nothing\nRUN true\n";

#[test]
fn without_a_root_a_build_fails_before_it_asks_for_anything() {
    let project = Project::new();
    project.file("Dockerfile", UNREACHABLE);
    let mut command = project.command();
    command.arg("--no-push");
    let (code, _, err) = told(&behind(NO_RIGHTS, &command));
    assert_eq!(code, 1, "{err}");
    for said in [
        "Dockerfile:2\n",
        ">>> RUN true",
        "error: there is no root file system here that commands could run on\n",
        "  overlay  no   mounting takes CAP_SYS_ADMIN",
        "  chroot   no   root here cannot give away files",
        "remedy: in a pod",
    ] {
        assert!(err.contains(said), "{said}: {err}");
    }
    assert!(!err.contains("registry.invalid/nothing:"), "{err}");

    // One that is asked for alone.
    command.arg("--rootfs=overlay");
    let (code, _, err) = told(&behind(NO_RIGHTS, &command));
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("error: overlay cannot be used here: mounting"),
        "{err}"
    );
    assert!(
        err.contains("\nhint: in a pod securityContext.privileged"),
        "{err}"
    );

    // Commands alone want a root, and of a base's triggers only the base tells.
    project.file("Dockerfile", "FROM base\nONBUILD RUN true\n");
    let layout = project.path("layout");
    let mut command = project.command();
    command
        .arg("--no-push")
        .arg("--oci-layout-path")
        .arg(&layout);
    let (code, _, err) = told(&behind(NO_RIGHTS, &command));
    assert_eq!(code, 0, "{err}");
    project.file("Dockerfile", "FROM trigger\n");
    let mut command = project.command();
    command.arg("--no-push").arg("--build-context");
    command.arg(format!("trigger=oci-layout://{}", layout.display()));
    let (code, _, err) = told(&behind(NO_RIGHTS, &command));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(">>> FROM trigger"), "{err}");
    assert!(
        err.contains("error: there is no root file system here"),
        "{err}"
    );
}

#[test]
fn a_root_that_is_not_overlay_is_announced_once() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN echo a > /a\nRUN cat /a\n");
    let out = project.path("out");
    for (words, args, said) in [
        (
            NO_MOUNTS,
            &[][..],
            "commands run in a chroot, without mounts (overlay: mounting takes CAP_SYS_ADMIN",
        ),
        (&["env"], &["--rootfs=fuse"], "commands run on FUSE\n"),
        (&["env"], &[], ""),
    ] {
        let mut command = project.command();
        command.arg("--no-push").arg("--oci-layout-path").arg(&out);
        command.args(args);
        let (code, _, err) = told(&behind(words, &command));
        assert_eq!(code, 0, "{err}");
        assert_eq!(
            err.matches("commands run").count(),
            usize::from(!said.is_empty()),
            "{err}"
        );
        assert!(err.contains(said), "{err}");
    }
}

/// Runs a command with a small file system in memory on the store's directory.
fn on_tmpfs(project: &Project, options: &str, fill: &str, command: &Command) -> Output {
    let store = project.path("store");
    std::fs::create_dir_all(&store).unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} none {store} && {fill} exec \"$0\" \"$@\"",
        store = store.display()
    );
    behind(&["unshare", "-m", "sh", "-c", &script], command)
}

#[test]
fn little_room_is_seen_before_it_hurts() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN true\n");
    let mut command = project.command();
    command.arg("--no-push");
    let store = project.path("store");

    let (code, _, err) = told(&on_tmpfs(&project, "size=64m", "", &command));
    assert_eq!(code, 0, "{err}");
    let warned = format!("the store {} has no more than", store.display());
    assert_eq!(err.matches(&warned).count(), 1, "{err}");
    assert!(err.contains("(--cache-dir)"), "{err}");

    let (code, _, err) = told(&on_tmpfs(&project, "size=2m", "", &command));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("the base images need about"), "{err}");
    assert!(err.contains(&store.display().to_string()), "{err}");
    assert!(err.contains("larger volume (--cache-dir)"), "{err}");
    assert!(!err.contains("unpack"), "{err}");

    // Not even what would work can be tried: no other root is taken for it.
    for bound in ["nr_inodes=20", "nr_inodes=40", "size=512k"] {
        let full = "which is too little for any command";
        let (code, _, err) = told(&on_tmpfs(&project, bound, "", &command));
        assert_eq!(code, 1, "{bound}: {err}");
        assert!(
            err.contains(full) && !err.contains("commands run"),
            "{bound}: {err}"
        );
        let asked = doctor(&store, &["--format=json"]);
        let (code, out, _) = told(&on_tmpfs(&project, bound, "", &asked));
        assert!(
            code == 1 && out.contains(full) && out.contains("\"takes\": null"),
            "{out}"
        );
    }

    let (code, _, err) = told(&on_tmpfs(&project, "size=2g,nr_inodes=3000", "", &command));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("more files: a build may want more"), "{err}");
}

/// Wherever room ends, the error says where, or it is the command's own.
#[test]
fn a_full_store_is_named() {
    let project = Project::new();
    let mut noise = vec![0; 24 << 20];
    let mut source = std::fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut source, &mut noise).unwrap();
    project.file("big", noise);
    let store = project.path("store").display().to_string();
    for (dockerfile, options, code) in [
        ("FROM base\nCOPY big /big\n", "size=16m", 1),
        (
            "FROM base\nRUN head -c 30000000 /dev/urandom > /x\n",
            "size=40m",
            1,
        ),
        (
            "FROM base\nRUN head -c 50000000 /dev/urandom > /x\n",
            "size=40m",
            1,
        ),
        (
            "FROM base\nRUN i=0; while [ $i -lt 4000 ]; do : > /f$i || exit 1; i=$((i+1)); done\n",
            "nr_inodes=900",
            1,
        ),
        ("FROM base\nRUN true\n", "nr_inodes=20", 1),
    ] {
        project.file("Dockerfile", dockerfile);
        let mut command = project.command();
        command.arg("--no-push");
        let (got, _, err) = told(&on_tmpfs(&project, options, "", &command));
        assert_eq!(got, code, "{dockerfile}{err}");
        let error = err.split("error: ").last().unwrap_or_default();
        let warned = format!("the store {store}, which commands write to, is full");
        assert!(
            error.contains(&store) || err.contains(&warned),
            "{dockerfile}{err}"
        );
    }
}

/// Makes an image of what the program is linked with; gives the daemon and the program's place.
fn image() -> (dockerd::Dockerd, tempfile::TempDir) {
    let daemon = dockerd::start("127.0.0.1:1");
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    for dir in ["tmp", "etc", "kaniko", "usr/bin"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    container::install_libraries(Path::new(env!("CARGO_BIN_EXE_shutter")), &root);
    for place in ["kaniko/executor", "usr/bin/shutter"] {
        std::fs::copy(env!("CARGO_BIN_EXE_shutter"), root.join(place)).unwrap();
    }
    // What tells that everything here is the executor's own.
    std::fs::write(root.join(".shutter-executor-image"), "").unwrap();
    let tar = container::archive(&root);
    std::fs::remove_dir_all(&root).unwrap();
    let imported = daemon.docker(&["import", tar.to_str().unwrap(), "ordinary"]);
    assert!(imported.status.success(), "{imported:?}");
    (daemon, scratch)
}

#[test]
fn containers_get_the_root_that_their_rights_allow() {
    let (daemon, _scratch) = image();
    let said = daemon.docker(&["run", "--rm", "ordinary", "/usr/bin/shutter", "doctor"]);
    let (code, out, _) = told(&said);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.starts_with("overlay  no   mounting takes CAP_SYS_ADMIN, which"),
        "{out}"
    );
    assert!(out.contains("\nauto takes chroot\n"), "{out}");
    // What the doctor says is what a build does.
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN echo a > /a\nRUN cat /a\n");
    let base = format!("{}:/base:ro", project.base.display());
    let context = format!("{}:/workspace", project.path("context").display());
    for (program, said) in [
        (&["/kaniko/executor"][..], "commands run in place"),
        (&["/usr/bin/shutter", "build"], "commands run in a chroot"),
    ] {
        let mut words = vec![
            "run",
            "--rm",
            "--network=none",
            "-v",
            &base,
            "-v",
            &context,
            "ordinary",
        ];
        words.extend(program);
        words.extend([
            "--no-push",
            "--context=dir:///workspace",
            "--log-format=text",
        ]);
        words.push("--build-context=base=oci-layout:///base");
        let (code, out, err) = told(&daemon.docker(&words));
        assert_eq!((code, out.as_str()), (0, "a\n"), "{err}");
        assert_eq!(err.matches(said).count(), 1, "{err}");
    }
    const CHROOT_ONLY: &[&str] = &["--cap-drop=SYS_CHROOT"];
    const MOUNT: &[&str] = &["--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined"];
    const VOLUME: &[&str] = &[
        "--cap-add=SYS_ADMIN",
        "--security-opt=apparmor=unconfined",
        "-v",
        "/cache",
    ];
    const FUSE: &[&str] = &[
        "--cap-add=SYS_ADMIN",
        "--security-opt=apparmor=unconfined",
        "--device=/dev/fuse",
    ];
    type Case = (
        &'static [&'static str],
        &'static str,
        Option<&'static str>,
        &'static str,
        &'static [(&'static str, bool, &'static str)],
    );
    let cases: &[Case] = &[
        (
            &[],
            "/usr/bin/shutter",
            Some("chroot"),
            "/var/cache/shutter",
            &[
                (
                    "overlay",
                    false,
                    "CAP_SYS_ADMIN, which root here does not have, nor can it have a user namespace (the seccomp filter refuses it) / in a pod",
                ),
                (
                    "fuse",
                    false,
                    "there is no /dev/fuse here, and mounting takes CAP_SYS_ADMIN",
                ),
                ("fuse", false, "--device /dev/fuse --cap-add SYS_ADMIN"),
                ("inplace", true, ""),
                ("chroot", true, ""),
            ],
        ),
        (
            &[],
            "/kaniko/executor",
            Some("inplace"),
            "/kaniko/store",
            &[("inplace", true, ""), ("chroot", true, "")],
        ),
        (
            CHROOT_ONLY,
            "/usr/bin/shutter",
            None,
            "/var/cache/shutter",
            &[
                ("inplace", true, ""),
                (
                    "chroot",
                    false,
                    "for want of CAP_SYS_CHROOT / in a pod no capabilities.drop: [ALL]",
                ),
            ],
        ),
        (
            &["--cap-drop=ALL"],
            "/kaniko/executor",
            None,
            "/kaniko/store",
            &[
                ("inplace", false, "for want of CAP_CHOWN"),
                (
                    "chroot",
                    false,
                    "capabilities.add: [CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID, SYS_CHROOT]",
                ),
            ],
        ),
        (
            &["--read-only", "-v", "/cache"],
            "/kaniko/executor",
            Some("chroot"),
            "/cache",
            &[
                ("inplace", false, "readOnlyRootFilesystem"),
                ("chroot", true, ""),
            ],
        ),
        (
            &["--user=1000", "-v", "/tmp"],
            "/usr/bin/shutter --cache-dir=/tmp",
            None,
            "/tmp",
            &[],
        ),
        (
            MOUNT,
            "/kaniko/executor",
            Some("inplace"),
            "/kaniko/store",
            &[
                (
                    "overlay",
                    false,
                    "the store lies on overlayfs, which takes no upper directory",
                ),
                ("overlay", false, "an emptyDir mounted at /kaniko/store"),
                (
                    "fuse",
                    false,
                    "there is no /dev/fuse here / docker run --device /dev/fuse; in a pod a device",
                ),
            ],
        ),
        // As where pods have no seccomp profile by default: a user namespace can be had.
        (
            &["--security-opt=seccomp=unconfined"],
            "/kaniko/executor",
            Some("inplace"),
            "/kaniko/store",
            &[("overlay", false, "an emptyDir mounted at /kaniko/store")],
        ),
        (
            &["--security-opt=seccomp=unconfined"],
            "/usr/bin/shutter",
            Some("chroot"),
            "/var/cache/shutter",
            &[(
                "overlay",
                false,
                "an emptyDir mounted at /var/cache/shutter",
            )],
        ),
        (
            &["--security-opt=seccomp=unconfined", "-v", "/cache"],
            "/kaniko/executor",
            Some("overlay"),
            "/cache",
            &[("overlay", true, "")],
        ),
        (
            VOLUME,
            "/kaniko/executor",
            Some("overlay"),
            "/cache",
            &[("overlay", true, "")],
        ),
        (
            FUSE,
            "/usr/bin/shutter",
            Some("fuse"),
            "/var/cache/shutter",
            &[("overlay", false, "overlayfs"), ("fuse", true, "")],
        ),
    ];
    for (args, program, takes, store, expected) in cases {
        let mut words = vec!["run", "--rm", "--network=host"];
        words.extend(*args);
        words.push("ordinary");
        let (program, more) = program.split_once(' ').unwrap_or((program, ""));
        words.extend([program, "doctor", "--format=json"]);
        words.extend(more.split_whitespace());
        let (code, out, err) = told(&daemon.docker(&words));
        let case = format!("{args:?} {program}: {out}{err}");
        if args.contains(&"--user=1000") {
            // A volume is its image's directory's owner's.
            assert_eq!(code, 1, "{case}");
            continue;
        }
        assert_eq!(code, i32::from(takes.is_none()), "{case}");
        let roots = by_root(&out);
        let value: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["takes"].as_str(), *takes, "{case}");
        assert_eq!(value["store"]["path"], *store, "{case}");
        // Docker lets root make devices, and the doctor does not say otherwise.
        if !args.contains(&"--cap-drop=ALL") {
            assert!(!out.contains("device nodes"), "{case}");
        }
        for (name, works, said) in *expected {
            let (_, does, got) = roots.iter().find(|root| root.0 == *name).unwrap();
            assert_eq!(does, works, "{name} {case}");
            assert!(got.contains(said), "{name} {said} {case}");
        }
    }
}

#[test]
fn a_store_where_no_program_starts_is_named() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN true\n");
    let store = project.path("store");
    std::fs::create_dir(&store).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "noexec", "tmpfs"]);
    project::succeed(mount.arg(&store));
    let (code, out, err) = told(&doctor(&store, &["--rootfs=chroot"]).output().unwrap());
    let mut command = project.command();
    let built = told(
        &command
            .args(["--no-push", "--rootfs=chroot"])
            .output()
            .unwrap(),
    );
    // Where a mount is put above it that does not matter.
    let mounted = told(&project.command().arg("--no-push").output().unwrap());
    project::succeed(Command::new("umount").arg(&store));
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("is mounted noexec, so no program starts there"),
        "{out}"
    );
    assert!(
        built.0 != 0 && built.2.contains("mounted noexec"),
        "{built:?}"
    );
    assert_eq!(mounted.0, 0, "{mounted:?}");
}

#[test]
fn who_starts_a_build_may_ignore_how_children_end() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN test -e /bin\nRUN exit 7\n");
    let mut build = project.command();
    build.arg("--no-push");
    let ignoring = ["env", "--ignore-signal=CHLD"];
    let (_, out, err) = told(&behind(&ignoring, &doctor(&project.path("store"), &[])));
    assert!(!format!("{out}{err}").contains("child processes"), "{out}");
    let (code, _, err) = told(&behind(&ignoring, &build));
    assert_eq!(code, 7, "{err}");
    assert!(err.contains("`RUN exit 7` ended with exit code 7"), "{err}");
}

#[test]
fn too_few_threads_are_told_before_anything_is_done() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN true\n");
    let mut build = project.command();
    build.arg("--no-push");
    let store = project.path("other");
    for command in [&build, &doctor(&store, &[])] {
        // Nobody else is this user, whose threads are counted.
        let limited = [
            "setpriv",
            "--reuid=54321",
            "--clear-groups",
            "prlimit",
            "--nproc=12",
        ];
        let (code, out, err) = told(&behind(&limited, command));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("threads and processes"), "{err}");
        assert!(
            err.contains("--pids-limit") && !err.contains("panicked"),
            "{err}"
        );
    }
}
