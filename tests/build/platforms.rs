//! Images and commands for other platforms.

use crate::listing::read_layout;
use crate::project::{self, Project};
use crate::skip;
use shutter::sandbox::Machine;
use std::process::{Command, Output};

#[test]
fn a_refused_machine_is_told_once_and_what_to_do() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN true\n");
    let built = project.command();
    let mut command = project::without_mounts(&built);
    command.args(["--rootfs=overlay", "--no-push"]);
    let output = command.output().expect("run setpriv");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("CAP_SYS_ADMIN"), "{text}");

    // A store on overlayfs, made in a mount namespace of its own.
    let script = "cd \"$0\" && mkdir l u w m && \
        mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && exec \"$@\" --cache-dir m/s";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(project.path(""));
    command.arg(built.get_program());
    let mut arguments = built.get_args();
    while let Some(argument) = arguments.next() {
        match argument == "--cache-dir" {
            true => drop(arguments.next()),
            false => drop(command.arg(argument)),
        }
    }
    command.args(["--rootfs=overlay", "--no-push"]);
    let output = command.output().expect("run unshare");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.matches("cannot be used here").count(), 1, "{text}");
    assert!(text.contains("--cache-dir"), "{text}");
}

#[test]
fn images_for_other_platforms_are_made_where_nothing_foreign_runs() {
    let project = Project::new();
    // One that no emulator is made for.
    let foreign = "linux/sparc64";
    project.file("a", "a");
    project.file(
        "Dockerfile",
        "FROM --platform=$BUILDPLATFORM base AS make\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
         FROM scratch\nCOPY --from=make /arch /\nCOPY a /\n",
    );
    let args = ["--custom-platform", foreign];
    let image = read_layout(&project.build("out", &args));
    let architecture = foreign.trim_start_matches("linux/");
    assert_eq!(image.image["architecture"], architecture);
    assert_eq!(image.files[&b"arch"[..]]["size"], architecture.len() + 1);
    project.file("Dockerfile", "FROM scratch\nCOPY a /\n\nRUN [\"/a\"]\n");
    let (output, _) = project.try_build("none", &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "Dockerfile:4",
        foreign,
        "qemu-user-static",
        "$BUILDPLATFORM",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert!(!said.contains("[1/2]"), "something ran: {said}");
}

/// Runs a program in a mount namespace of its own in which the kernel has an emulator for s390x: a
/// program that copies what it is to run. Gives `None`, and says why, where there can be none.
fn with_emulator(project: &Project, flags: &str, program: &Command) -> Option<Output> {
    // Where nobody else has binfmt_misc mounted, the entry goes with this mount, whatever happens.
    const SCRIPT: &str = r#"
table=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc binfmt_misc $table || exit 99
printf '%s' "$ENTRY" > $table/register || exit 99
"$@"
code=$?
echo -1 > $table/$NAME
exit $code
"#;
    let emulator = project.path("cp");
    let busybox = std::env::var("BUSYBOX").unwrap_or("/bin/busybox".into());
    std::fs::copy(busybox, &emulator).expect("busybox, which copies by that name");
    let name = format!("shutter-test-{}", std::process::id());
    let magic = "\\x7fELF\\x02\\x02\\x01".to_owned() + &"\\x00".repeat(10) + "\\x02\\x00\\x16";
    let entry = format!(":{name}:M::{magic}::{}:{flags}", emulator.display());
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", SCRIPT, "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .envs([("ENTRY", &entry), ("NAME", &name)])
        .output()
        .expect("run unshare");
    if output.status.code() == Some(99) {
        let why = "binfmt_misc cannot be had";
        skip::not_run("commands_for_other_platforms_run_by_emulators", why);
        return None;
    }
    Some(output)
}

/// A command for another machine, that nothing but an emulator can run, in a root that has nothing
/// else in it.
#[test]
fn commands_for_other_platforms_run_by_emulators() {
    let project = Project::new();
    let mut header = [0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
    header[16..20].copy_from_slice(&[0, 2, 0, 0x16]);
    project.file("foreign", header);
    project.file(
        "Dockerfile",
        "FROM scratch\nCOPY --chmod=755 foreign /bin/foreign\nRUN [\"/bin/foreign\", \"/ran\"]\n",
    );
    let out = project.path("out");
    let mut command = project.command();
    command
        .args(["--no-push", "--custom-platform=linux/s390x"])
        .arg("--oci-layout-path")
        .arg(&out);
    let Some(built) = with_emulator(&project, "F", &command) else {
        return;
    };
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    let image = read_layout(&out);
    assert_eq!(image.image["architecture"], "s390x");
    let (ran, foreign) = (&image.files[&b"ran"[..]], &image.files[&b"bin/foreign"[..]]);
    assert_eq!(ran["sha256"], foreign["sha256"]);

    // One that the kernel looks for in the image's own root is none; another one may be there.
    let platform = "linux/s390x".parse().expect("a platform");
    if Machine::probe().runs(&platform) {
        return;
    }
    let refused = with_emulator(&project, "", &command).expect("as before");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("no emulator for it"), "{said}");
}
