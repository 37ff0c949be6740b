//! Steps that are found by builds in place, each in a root of its own: what is there is what was made
//! there, and the images are those that are made on overlay.

use super::s3::{BUCKET, S3};
use super::trouble::warnings;
use super::{Project, build_by, container, registry};
use std::path::Path;
use std::process::Command;

/// Starts a program in a root directory that is empty but for the project's directory, which is where
/// it is outside, and the program.
const SCRIPT: &str = "\
dir=$1; shift; mkdir -p \"$dir/root\" && mount -t tmpfs -o mode=755 root \"$dir/root\" && \
cd \"$dir/root\" && mkdir -p proc dev program old \".$dir\" && echo old > old/file && \
mount -t proc proc proc && mount --rbind /dev dev && mount --bind \"$dir/program\" program && \
mount --bind \"$dir\" \".$dir\" && exec chroot . \"$@\"";

/// Makes a command of the usual one that builds in place in a root of its own.
pub fn in_place(project: &Project, usual: &Command) -> Command {
    let program = project.path("program");
    if !program.exists() {
        std::fs::create_dir(&program).expect("a directory");
    }
    let called = container::portable(
        Path::new(env!("CARGO_BIN_EXE_shutter")),
        &program,
        "/program",
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", SCRIPT, "sh"]);
    command.arg(project.dir.path()).args(called);
    command.args(usual.get_args());
    command.args(["--rootfs=inplace", "--force"]);
    for (name, value) in usual.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

const CHAIN: &str = "\
FROM base
RUN echo one > /one; rm /tree/file
COPY a /a
WORKDIR /work
RUN cat /one /a > both; ! ls /old
";
const STAGES: &str = "\
FROM base AS tool
COPY a /src/a
RUN cat /src/* > /tool; rm -r /tree
FROM base AS other
RUN echo other > /second; mkdir -p /d/e; ln /second /d/e/link
FROM base
COPY --from=tool /tool /bin/tool
COPY --from=other /d /d
RUN cat /bin/tool /d/e/link > /last; ls /tree
";
/// Dockerfile, how many steps it has, and which of them are found when the file `a` is another.
const TABLE: [(&str, usize, &str); 2] = [
    (CHAIN, 4, "RUN echo one > /one; rm /tree/file"),
    (
        STAGES,
        6,
        "RUN echo other > /second; mkdir -p /d/e; ln /second /d/e/link",
    ),
];

fn check(
    project: &Project,
    place: &str,
    env: &[(&str, &str)],
    (text, steps, stays): (&str, usize, &str),
) {
    project.file("Dockerfile", text).file("a", "a\n");
    let args = ["--insecure", "--cache", "--cache-repo", place];
    let plain = || {
        let _ = std::fs::remove_dir_all(project.path("plain"));
        super::build(project, "plain", &["--rootfs=overlay"]).digest
    };
    let build = |store: &str, wanted: &str| {
        let made = build_by(project, store, &args, |mut usual| {
            usual.envs(env.iter().copied());
            in_place(project, &usual)
        });
        let what = format!("{store} {place}: {text}");
        assert_eq!(warnings(&made.said), Vec::<String>::new(), "{what}");
        assert_eq!(made.digest, wanted, "{what}");
        made.steps
    };
    let wanted = plain();
    let first = build("store", &wanted);
    assert_eq!(first.cached, Vec::<String>::new());
    assert_eq!(first.made.len(), steps, "{first:?}");
    // With the far place at hand, and with it alone.
    for store in ["store", "empty"] {
        let again = build(store, &wanted);
        assert_eq!(again.made, Vec::<String>::new(), "{store} {place}: {text}");
    }
    // The last step stands on layers that were never in this root.
    for store in ["store", "new"] {
        let (above, _) = text.trim_end().rsplit_once('\n').expect("lines");
        let last = "find /one /a /bin/tool /d /tree -type f 2> /dev/null | sort | xargs cat";
        let last = format!("RUN {last} > /{store}; ! ls /src /second /old");
        project.file("Dockerfile", format!("{above}\n{last}\n"));
        let changed = build(store, &plain());
        assert_eq!(changed.made, [last], "{place}: {text}");
    }
    project.file("Dockerfile", text).file("a", "another\n");
    let changed = build("fresh", &plain());
    assert_eq!(changed.cached, [stays], "{place}: {changed:?}");
}

#[test]
fn builds_in_place_find_what_they_made_in_a_registry() {
    for row in TABLE {
        let registry = registry::start();
        let place = format!("{}/cache", registry.host);
        check(&Project::new(), &place, &[], row);
    }
}

#[test]
fn builds_in_place_find_what_they_made_in_a_layout() {
    for row in TABLE {
        let project = Project::new();
        let place = format!("oci:{}", project.path("kept").display());
        check(&project, &place, &[], row);
    }
}

#[test]
fn builds_in_place_find_what_they_made_in_an_object_store() {
    for row in TABLE {
        let server = S3::start();
        let endpoint = format!("http://127.0.0.1:{}", server.port);
        let place = format!("s3://{BUCKET}/cache");
        check(&Project::new(), &place, &S3::env(&endpoint), row);
    }
}
