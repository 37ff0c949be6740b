use super::*;
use crate::request::{ContextSource, GitSource, Hidden, SecretSource, SshSource};

#[test]
fn what_nothing_takes_is_told() {
    let with = |secrets: &[&str], ssh: &[&str], contexts: &[&str]| {
        let value = SecretSource::Value(Hidden(Vec::new()));
        let agent = SshSource::Agent("/s".into());
        let context = |name: &&str| match name.split_once('=') {
            Some((name, image)) => (name.to_owned(), NamedContext::Image(image.parse().unwrap())),
            None => {
                let files = ContextSource::Directory("/d".into());
                ((*name).to_owned(), NamedContext::Files(files))
            }
        };
        Request {
            secrets: secrets
                .iter()
                .map(|id| ((*id).to_owned(), value.clone()))
                .collect(),
            ssh: ssh
                .iter()
                .map(|id| ((*id).to_owned(), agent.clone()))
                .collect(),
            contexts: contexts.iter().map(context).collect(),
            ..request()
        }
    };
    let git = Request {
        context: ContextSource::Git(GitSource::new("ssh://git@h/r")),
        ..with(&[], &["default"], &[])
    };
    let base = Image {
        config: Config {
            on_build: vec!["RUN --mount=type=secret,id=triggered x".into()],
            ..Config::default()
        },
        ..base()
    };
    let table: &[(&str, Request, &[&str])] = &[
        ("FROM a", with(&[], &[], &[]), &[]),
        (
            "FROM a\nRUN --mount=type=secret,id=npm --mount=type=ssh x",
            with(&["nmp", "npm", "far-away"], &["default", "other"], &[]),
            &[
                "no RUN mounts the secret far-away, which has no effect",
                "no RUN mounts the secret nmp, which has no effect (did you mean npm?)",
                "no RUN mounts the SSH agent other, which has no effect",
            ],
        ),
        (
            "FROM a AS unused\nRUN --mount=type=secret,source=one --mount=type=secret,dst=/x/two y\n\
             FROM a\nONBUILD RUN --mount=type=ssh,id=three x",
            with(&["one", "two"], &["three"], &[]),
            &[],
        ),
        ("FROM a", with(&["triggered"], &[], &[]), &[]),
        // What a variable comes to where nothing is built is not known.
        (
            "FROM a AS unused\nRUN --mount=type=secret,id=$A x\nFROM a",
            with(&["one"], &[], &[]),
            &[],
        ),
        ("FROM a", git, &[]),
        ("FROM a\nADD git@h:r /", with(&[], &["default"], &[]), &[]),
        (
            "FROM base\nCOPY --from=src a /\nRUN --mount=from=tool,target=/x y\nFROM a AS target",
            with(
                &[],
                &[],
                &[
                    "base=b",
                    "src",
                    "target",
                    "bsae",
                    "a:latest",
                    "docker.io/library/tool",
                ],
            ),
            &[
                "no FROM and no --from names the build context bsae, which has no effect (did you mean base?)",
            ],
        ),
        (
            "ARG V=ase\nFROM b$V",
            with(&[], &[], &["base=b", "other"]),
            &[],
        ),
        (
            "FROM scratch\nCOPY --from=context a /",
            with(&[], &[], &["scratch", "Context"]),
            &[
                "Context is never a build context of that name, so that --build-context Context has no effect",
                "scratch is never a build context of that name, so that --build-context scratch has no effect",
            ],
        ),
    ];
    for (text, request, expected) in table {
        let dockerfile = dockerfile::parse(text.as_bytes()).unwrap();
        let plan = graph(&dockerfile, request).unwrap();
        let staged = stages(text, request, &base).unwrap();
        assert_eq!(
            unused(&dockerfile, request, &plan, &staged),
            *expected,
            "{text}"
        );
    }
}
