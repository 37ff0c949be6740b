//! Edits: which steps they make anew, and that the image is what it is without a cache.

use super::{Project, build, registry};
use std::os::unix::fs::PermissionsExt;

const DOCKERFILE: &str = "\
ARG VERSION=1
FROM base AS tool
ARG VERSION
COPY src /src
RUN echo $VERSION > /version; cat /src/* > /tool
FROM base AS plane
RUN echo side > /side
FROM base
ENV GREETING=hello
WORKDIR /work
RUN echo $GREETING > greeting
COPY --from=tool /tool /bin/tool
RUN --mount=from=plane,target=/s cat /s/side > side
COPY --chown=1:2 last last
RUN --mount=type=bind,source=bound,target=/b ls /b > bound
COPY <<EOF /heredoc
text
EOF
RUN rm -rf /etc/passwd && mkdir -p /d/e && ln -s e /d/f
";

struct Edit {
    what: &'static str,
    /// Replaced in the Dockerfile.
    from: &'static str,
    to: &'static str,
    /// A file of the context and what it is then; a mode with `mode`.
    file: Option<(&'static str, &'static str)>,
    args: &'static [&'static str],
    /// How the steps begin that are made anew, in order of their text.
    made: &'static [&'static str],
}

const NONE: Edit = Edit {
    what: "",
    from: "",
    to: "",
    file: None,
    args: &[],
    made: &[],
};

/// All from a step of the last stage on.
const EDITS: &[Edit] = &[
    Edit {
        what: "nothing",
        ..NONE
    },
    Edit {
        what: "a comment",
        from: "FROM base AS plane",
        to: "# why\nFROM base AS plane",
        ..NONE
    },
    Edit {
        what: "the name of a stage",
        from: "plane",
        to: "plain",
        ..NONE
    },
    Edit {
        what: "white space",
        from: "WORKDIR /work",
        to: "WORKDIR   /work",
        ..NONE
    },
    Edit {
        what: "an unrelated file",
        file: Some(("other", "x")),
        ..NONE
    },
    Edit {
        what: "a time",
        file: Some(("last", "touch")),
        ..NONE
    },
    Edit {
        what: "a label",
        from: "ENV GREETING",
        to: "LABEL a=b\nENV GREETING",
        ..NONE
    },
    Edit {
        what: "the command of the image",
        from: "WORKDIR /work",
        to: "CMD [\"x\"]\nWORKDIR /work",
        ..NONE
    },
    Edit {
        what: "a proxy",
        args: &["--build-arg=http_proxy=http://127.0.0.1:9"],
        ..NONE
    },
    Edit {
        what: "an argument nobody has",
        args: &["--build-arg=NOBODY=1"],
        ..NONE
    },
    Edit {
        what: "an argument of another stage, of whose result nothing is taken",
        args: &["--build-arg=VERSION=2"],
        // What is copied from it is the same.
        made: &["RUN echo $VERSION"],
        ..NONE
    },
    Edit {
        what: "a file of the context",
        file: Some(("last", "new")),
        made: &[
            "COPY --chown",
            "COPY <<EOF",
            "RUN --mount=type=bind",
            "RUN rm",
        ],
        ..NONE
    },
    Edit {
        what: "the mode of a file",
        file: Some(("last", "mode")),
        made: &[
            "COPY --chown",
            "COPY <<EOF",
            "RUN --mount=type=bind",
            "RUN rm",
        ],
        ..NONE
    },
    Edit {
        what: "a file more in a directory",
        file: Some(("src/c", "c")),
        made: &[
            "COPY --chown",
            "COPY --from=tool",
            "COPY <<EOF",
            "COPY src",
            "RUN --mount=from=plane",
            "RUN --mount=type=bind",
            "RUN echo $VERSION",
            "RUN rm",
        ],
        ..NONE
    },
    Edit {
        what: "a file that a mount shows",
        file: Some(("bound/x", "x")),
        made: &["COPY <<EOF", "RUN --mount=type=bind", "RUN rm"],
        ..NONE
    },
    Edit {
        what: "a variable",
        from: "GREETING=hello",
        to: "GREETING=hi",
        made: &[
            "COPY --chown",
            "COPY --from=tool",
            "COPY <<EOF",
            "RUN --mount=from=plane",
            "RUN --mount=type=bind",
            "RUN echo $GREETING",
            "RUN rm",
        ],
        ..NONE
    },
    Edit {
        what: "a heredoc",
        from: "text\n",
        to: "texts\n",
        made: &["COPY <<EOF", "RUN rm"],
        ..NONE
    },
    Edit {
        what: "an owner",
        from: "--chown=1:2",
        to: "--chown=1:3",
        made: &[
            "COPY --chown",
            "COPY <<EOF",
            "RUN --mount=type=bind",
            "RUN rm",
        ],
        ..NONE
    },
    Edit {
        what: "the order of two steps",
        from: "WORKDIR /work\nRUN echo $GREETING > greeting",
        to: "RUN echo $GREETING > greeting\nWORKDIR /work",
        made: &[
            "COPY --chown",
            "COPY --from=tool",
            "COPY <<EOF",
            "RUN --mount=from=plane",
            "RUN --mount=type=bind",
            "RUN echo $GREETING",
            "RUN rm",
            "WORKDIR",
        ],
        ..NONE
    },
    Edit {
        what: "where a mount is",
        from: "target=/s cat /s/",
        to: "target=/t cat /t/",
        // It comes to the same.
        made: &["RUN --mount=from=plane"],
        ..NONE
    },
    Edit {
        what: "the mode of a directory that a mount shows",
        file: Some(("bound", "mode")),
        made: &["RUN --mount=type=bind"],
        ..NONE
    },
    Edit {
        what: "whether directories of the source are kept",
        from: "COPY --from=tool /tool /bin/tool",
        to: "COPY --from=tool --parents /tool /bin/tool",
        made: &[
            "COPY --chown",
            "COPY --from=tool",
            "COPY <<EOF",
            "RUN --mount=from=plane",
            "RUN --mount=type=bind",
            "RUN rm",
        ],
        ..NONE
    },
    Edit {
        what: "the network of a command",
        from: "RUN rm",
        to: "RUN --network=none rm",
        made: &["RUN --network=none rm"],
        ..NONE
    },
];

fn project() -> Project {
    let project = Project::new();
    project.file("Dockerfile", DOCKERFILE);
    project.file("src/a", "a\n").file("src/b", "b\n");
    project.file("last", "last\n").file("bound/f", "f\n");
    project
}

fn edit(project: &Project, edit: &Edit) {
    if !edit.from.is_empty() {
        assert!(DOCKERFILE.contains(edit.from), "{}", edit.what);
        project.file("Dockerfile", DOCKERFILE.replace(edit.from, edit.to));
    }
    if let Some((name, how)) = edit.file {
        let path = project.path("context").join(name);
        match how {
            "touch" => {
                registry::run(
                    "touch",
                    &["-d", "2001-02-03", path.to_str().expect("a path")],
                );
            }
            "mode" => {
                let mode = std::fs::Permissions::from_mode(0o711);
                std::fs::set_permissions(&path, mode).expect("a mode");
            }
            content => {
                project.file(name, content);
            }
        }
    }
}

/// What is changed is made anew, what is not is not, and the image is the one that is built without a
/// cache.
#[test]
fn edits_make_anew_what_they_change() {
    for one in EDITS {
        let project = project();
        build(&project, "store", &["--cache"]);
        edit(&project, one);
        let mut args = vec!["--cache"];
        args.extend(one.args);
        let got = build(&project, "store", &args);
        let made = &got.steps.made;
        let same = made.len() == one.made.len()
            && made
                .iter()
                .zip(one.made)
                .all(|(made, begin)| made.starts_with(begin));
        assert!(same, "{}: {made:?} instead of {:?}", one.what, one.made);
        let plain = build(&project, "other", one.args);
        assert_eq!(got.digest, plain.digest, "{}", one.what);
    }
}

/// A number that depends on the one before, evenly enough.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

/// A Dockerfile and a context that are changed at random, one change after the other.
struct Random {
    steps: Vec<(&'static str, u64)>,
    files: Vec<(&'static str, u64)>,
    arg: u64,
}

/// `%` is a number, `@` the same below 3.
const KINDS: [&str; 11] = [
    "RUN echo % >> /log",
    "COPY f@ /copied/%",
    "COPY dir /tree/%",
    "COPY --link f@ /linked/%",
    "WORKDIR /w/%",
    "ENV V=%",
    "RUN --mount=type=bind,target=/m cat /m/f@ /m/dir/* > /seen$V; echo $A >> /seen$V",
    "COPY --from=other /x /other/%",
    "RUN rm -rf /copied/% /tree/1 /log /w",
    "RUN rm -rf /linked /copied && mkdir /copied && echo % > /copied/new",
    "RUN find /copied /tree /linked /w /other /log /bin 2>/dev/null | sort > /found; true",
];
const FILES: [&str; 6] = ["f0", "f1", "f2", "dir/a", "dir/b", "unused"];

impl Random {
    fn new(dice: &mut Dice) -> Random {
        let steps = (0..6).map(|_| random_step(dice)).collect();
        let files = FILES.iter().map(|name| (*name, dice.roll(3))).collect();
        Random {
            steps,
            files,
            arg: 0,
        }
    }

    fn change(&mut self, dice: &mut Dice) {
        let at = dice.roll(self.steps.len() as u64) as usize;
        match dice.roll(6) {
            0 => self.steps[at] = random_step(dice),
            1 => self.steps.insert(at, random_step(dice)),
            2 if self.steps.len() > 3 => {
                self.steps.remove(at);
            }
            3 => self.steps.swap(0, at),
            4 => self.arg = dice.roll(3),
            _ => {
                let at = dice.roll(self.files.len() as u64) as usize;
                self.files[at].1 = dice.roll(3);
            }
        }
    }

    fn write(&self, project: &Project) -> String {
        let mut text =
            "FROM base AS other\nCOPY f0 /x\nRUN wc -c < /x > /y\nFROM base\nARG A\n".to_owned();
        for (kind, number) in &self.steps {
            let line = kind.replace('%', &number.to_string());
            text.push_str(&line.replace('@', &(number % 3).to_string()));
            text.push('\n');
        }
        project.file("Dockerfile", &text);
        for (name, content) in &self.files {
            project.file(name, "x".repeat(1 + *content as usize));
        }
        text
    }
}

fn random_step(dice: &mut Dice) -> (&'static str, u64) {
    (KINDS[dice.roll(KINDS.len() as u64) as usize], dice.roll(4))
}

/// Whatever is changed, the image is the one that is built without a cache; and what was just built is
/// found whole.
#[test]
fn random_edits_with_and_without_a_cache_give_the_same_image() {
    let seed = std::env::var("CACHE_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let rounds = std::env::var("CACHE_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut dice = Dice(seed.unwrap_or(1));
    let project = Project::new();
    let mut random = Random::new(&mut dice);
    let registry = registry::start();
    let repo = format!("--cache-repo={}/cache", registry.host);
    for round in 0..rounds.unwrap_or(25) {
        let text = random.write(&project);
        let arg = format!("--build-arg=A={}", random.arg);
        // On an empty node what is found has to be fetched; with its own store nothing has.
        let _ = std::fs::remove_dir_all(project.path("empty"));
        let args = ["--insecure", "--cache", &repo, &arg];
        let fetched = build(&project, "empty", &args);
        let cached = build(&project, "store", &["--cache", &arg]);
        let again = build(&project, "store", &["--cache", &arg]);
        assert_eq!(
            again.steps.made,
            Vec::<String>::new(),
            "round {round}:\n{text}"
        );
        let plain = build(&project, "plain", &[&arg]);
        assert_eq!(fetched.digest, plain.digest, "round {round}:\n{text}");
        assert_eq!(cached.digest, plain.digest, "round {round}:\n{text}");
        assert_eq!(again.digest, plain.digest, "round {round}:\n{text}");
        random.change(&mut dice);
    }
}
