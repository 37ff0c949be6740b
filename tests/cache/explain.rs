//! `shutter cache explain`: what a build would find, and which part of a key is another one.

use super::{Project, build, project, registry};
use serde_json::Value;
use std::process::Command;

const TEXT: &str = "\
FROM base AS tool
ARG VERSION=1
COPY src /src
RUN echo $VERSION > /version
FROM base
WORKDIR /work
COPY --chmod=0644 src /src
RUN --mount=type=cache,target=/c cat /src/a > a
COPY --from=tool /version /version
";

fn sources() -> Project {
    let project = Project::new();
    project.file("Dockerfile", TEXT);
    project.file("src/a", "a\n").file("src/b", "b\n");
    project
}

fn command(project: &Project, store: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    command.args(["cache", "explain", "--context"]);
    command.arg(project.path("context"));
    command.arg("--cache-dir").arg(project.path(store));
    command.arg("--build-context");
    command.arg(format!("base=oci-layout://{}", project.base.display()));
    // As `build` of these tests does.
    command.arg("--reproducible").args(args);
    command.env_remove("SOURCE_DATE_EPOCH");
    command
}

fn explain(project: &Project, store: &str, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    let output = project::succeed(&mut command(project, store, &args));
    serde_json::from_slice(&output.stdout).expect("an object")
}

/// Gives each step's first word with what becomes of it, and how it differs from the nearest entry.
fn outcomes(told: &Value) -> Vec<String> {
    let steps = told["steps"].as_array().expect("steps");
    let one = |step: &Value| {
        let text = step["text"].as_str().expect("a text");
        let word = text.split(' ').next().unwrap_or_default();
        let outcome = step["outcome"].as_str().expect("an outcome");
        let list = |name: &str, of: &str| -> Vec<String> {
            let list = step["nearest"][name].as_array().cloned();
            let list = list.unwrap_or_default();
            let said = |it: &Value| {
                format!(
                    "{} {}",
                    it["how"].as_str().unwrap(),
                    it[of].as_str().unwrap()
                )
            };
            list.iter().map(said).collect()
        };
        let differs = [list("differs", "part"), list("files", "path")].concat();
        match differs.is_empty() {
            true => format!("{word} {outcome}"),
            false => format!("{word} {outcome}: {}", differs.join(", ")),
        }
    };
    steps.iter().map(one).collect()
}

#[test]
fn each_edit_is_named() {
    type Edit = fn(&Project);
    // What is edited, the build's flags, and what is told of the steps.
    let table: [(&str, Edit, &[&str], [&str; 6]); 9] = [
        (
            "nothing",
            |_| {},
            &[],
            [
                "COPY hit",
                "RUN hit",
                "WORKDIR hit",
                "COPY hit",
                "RUN hit",
                "COPY hit",
            ],
        ),
        (
            "an argument",
            |_| {},
            &["--build-arg", "VERSION=2"],
            [
                "COPY hit",
                "RUN miss: other variable VERSION",
                "WORKDIR hit",
                "COPY hit",
                "RUN hit",
                "COPY miss: other files",
            ],
        ),
        (
            "a file",
            |project| {
                project.file("src/a", "other\n").file("src/new", "");
                std::fs::remove_file(project.path("context/src/b")).expect("remove");
            },
            &[],
            [
                "COPY miss: other content, other /src/a, gone /src/b, new /src/new",
                "RUN miss: other parent",
                "WORKDIR hit",
                "COPY miss: other content, other /src/a, gone /src/b, new /src/new",
                "RUN miss: other parent",
                "COPY miss: other parent, other files",
            ],
        ),
        (
            "a mode",
            |project| {
                use std::os::unix::fs::PermissionsExt;
                let mode = std::fs::Permissions::from_mode(0o700);
                std::fs::set_permissions(project.path("context/src/a"), mode).expect("chmod");
            },
            &[],
            [
                "COPY miss: other content",
                "RUN miss: other parent",
                "WORKDIR hit",
                "COPY miss: other content",
                "RUN miss: other parent",
                "COPY miss: other parent, other files",
            ],
        ),
        (
            "a command",
            |project| {
                project.file("Dockerfile", TEXT.replace("cat /src/a", "tac /src/a"));
            },
            &[],
            [
                "COPY hit",
                "RUN hit",
                "WORKDIR hit",
                "COPY hit",
                "RUN miss: other argument",
                "COPY miss: other parent",
            ],
        ),
        (
            "a mount",
            |project| {
                project.file(
                    "Dockerfile",
                    TEXT.replace("type=cache,", "type=cache,id=x,"),
                );
            },
            &[],
            [
                "COPY hit",
                "RUN hit",
                "WORKDIR hit",
                "COPY hit",
                "RUN miss: other id",
                "COPY miss: other parent",
            ],
        ),
        (
            "an option",
            |project| {
                project.file("Dockerfile", TEXT.replace("0644", "0600"));
            },
            &[],
            [
                "COPY hit",
                "RUN hit",
                "WORKDIR hit",
                "COPY miss: other --chmod",
                "RUN miss: other parent",
                "COPY miss: other parent",
            ],
        ),
        (
            "how layers are compressed",
            |_| {},
            &["--compression=zstd"],
            [
                "COPY miss: other compression",
                "RUN miss: other parent, other compression",
                "WORKDIR miss: other compression",
                "COPY miss: other parent, other compression",
                "RUN miss: other parent, other compression",
                "COPY miss: other parent, other compression, other files",
            ],
        ),
        (
            "what is looked up",
            |_| {},
            &["--cache-run-layers=false"],
            [
                "COPY hit",
                "RUN not-looked-up",
                "WORKDIR not-looked-up",
                "COPY waits",
                "RUN not-looked-up",
                "COPY waits",
            ],
        ),
    ];
    for (what, edit, args, wanted) in table {
        let project = sources();
        build(&project, "store", &["--cache"]);
        edit(&project);
        let steps = project.path("store/steps");
        let names = || {
            let entries = std::fs::read_dir(&steps).expect("steps");
            let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let told = explain(&project, "store", args);
        let got = outcomes(&told);
        assert_eq!(got, wanted, "{what}");
        // Nothing is written, and a build does what was said.
        assert_eq!(names(), before, "{what}");
        let hits = got.iter().filter(|told| told.ends_with(" hit")).count();
        let made = build(&project, "store", &[&["--cache"], args].concat());
        assert!(made.steps.cached.len() <= 6, "{what}");
        assert!(
            made.steps.made.len() <= 6 - hits,
            "{what}: {:?}",
            made.steps
        );
    }
}

#[test]
fn far_places_are_asked_too() {
    let project = sources();
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let args = ["--insecure", "--cache-repo", &repo];
    build(&project, "store", &[&args[..], &["--cache"]].concat());
    let told = explain(&project, "empty", &args);
    for step in told["steps"].as_array().expect("steps") {
        assert_eq!(step["outcome"], "hit", "{step}");
        assert_eq!(step["place"], repo, "{step}");
        assert!(step["age"].as_u64().expect("an age") < 60, "{step}");
    }
    // Nothing was kept.
    let kept = std::fs::read_dir(project.path("empty/steps")).expect("steps");
    assert_eq!(kept.count(), 0);
    drop(registry);
    let told = explain(&project, "empty", &args);
    assert!(
        outcomes(&told).iter().all(|told| told.ends_with(" miss")),
        "{told}"
    );
}

#[test]
fn it_is_said_to_people() {
    let project = sources();
    build(&project, "store", &["--cache"]);
    project.file("src/a", "other\n");
    let say = |args: &[&str]| {
        let output = project::succeed(&mut command(&project, "store", args));
        String::from_utf8(output.stdout).expect("text")
    };
    let all = say(&[]);
    for part in [
        "stage tool\n",
        "   1  miss           COPY src /src\n",
        "the nearest in the store is the same instruction, ",
        "content: what it takes differs\n",
        "    /src/a differs\n",
        "below: step 1 is not found\n",
        "   3  hit            WORKDIR /work\n",
        "in the store, ",
    ] {
        assert!(all.contains(part), "{part:?}:\n{all}");
    }
    for (step, lines) in [
        ("3", "WORKDIR"),
        ("WORKDIR", "WORKDIR"),
        ("--from=tool", "COPY --from"),
    ] {
        let one = say(&["--step", step]);
        assert!(one.contains(lines) && !one.contains("   1  "), "{one}");
    }
    let old = say(&["--cache-ttl=0s", "--step", "3"]);
    assert!(old.contains("older than --cache-ttl allows"), "{old}");
    let output = command(&project, "store", &["--step", "nothing"]).output();
    let output = output.expect("run shutter");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no step is `nothing`"), "{said}");
}
