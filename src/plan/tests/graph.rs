use super::*;
use crate::request::ContextSource;
use std::collections::BTreeMap;

#[test]
fn mounts_make_needs() {
    let text = "FROM base AS tool\nFROM base AS unused\n\
                FROM base\nRUN --mount=from=tool,target=/x --mount=type=cache,from=img,target=/c a\n";
    let planned = plan(text, &request()).unwrap();
    assert_eq!(planned.stages.len(), 2);
    assert_eq!(planned.stages[1].needs, [0]);
    let staged = last(text, &request());
    let named: Vec<_> = bases(&staged.steps).map(|(_, base)| base.clone()).collect();
    assert_eq!(named, [Base::Stage(0), Base::Image("img".into())]);
    let circle = plan(
        "FROM base AS a\nRUN --mount=from=a,target=/x a\n",
        &request(),
    );
    assert_eq!(
        circle.unwrap_err().message,
        "circular dependency detected on stage: a"
    );
}

#[test]
fn stages_are_found_and_pruned() {
    let text = "FROM base AS root\n\
                FROM root AS left\nRUN l\n\
                FROM Root AS Unused\nRUN u\n\
                FROM other/image:1\nCOPY --from=LEFT /l /\nCOPY --from=0 /r /\nCOPY --from=tool:2 /t /\n";
    let plan = plan(text, &request()).unwrap();
    let seen: Vec<_> = plan
        .stages
        .iter()
        .map(|stage| {
            (
                stage.index,
                stage.name.as_str(),
                stage.base.clone(),
                stage.needs.clone(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0, "root", Base::Image("base".into()), vec![]),
            (1, "left", Base::Stage(0), vec![0]),
            (3, "3", Base::Image("other/image:1".into()), vec![0, 1]),
        ]
    );
    assert_eq!(plan.target, 2);
    let staged = last(text, &request());
    let from: Vec<&From> = copies(&staged).iter().map(|copy| &copy.from).collect();
    assert_eq!(
        from,
        [
            &From::Base(Base::Stage(1)),
            &From::Base(Base::Stage(0)),
            &From::Base(Base::Image("tool:2".into())),
        ]
    );
    assert_eq!(
        bases(&staged.steps)
            .map(|(_, base)| base.clone())
            .collect::<Vec<_>>(),
        [Base::Stage(1), Base::Stage(0), Base::Image("tool:2".into())]
    );
}

#[test]
fn images_that_may_be_misspelled() {
    let text = "FROM base AS builder\nFROM base";
    let dockerfile = dockerfile::parse(text.as_bytes()).unwrap();
    for (name, expected) in [
        ("bulider", Some("did you mean builder?")),
        ("Builder2", Some("did you mean builder?")),
        ("debain", Some("did you mean debian?")),
        ("debian", None),
        ("registry/team/app:1", None),
    ] {
        let hint = meant(
            &Base::Image(name.into()),
            dockerfile.stages[0].span,
            &dockerfile,
        );
        assert_eq!(hint.as_deref(), expected, "{name}");
    }
    let named = Span { first: 3, last: 3 };
    for (name, expected) in [
        ("bulider", Some("did you mean builder?")),
        ("bse", Some("no stage and no --build-context is called bse")),
        ("team/bse", None),
        ("bse:1", None),
        ("host.example", None),
    ] {
        let hint = meant(&Base::Image(name.into()), named, &dockerfile);
        assert_eq!(hint.as_deref(), expected, "{name}");
    }
    let files = Base::Files("bulider".into());
    assert_eq!(meant(&files, named, &dockerfile), None);
}

#[test]
fn targets() {
    let text = "FROM base AS build\nFROM base AS Test\nFROM base";
    let index = |target: &str| {
        let request = Request {
            target: Some(target.into()),
            ..request()
        };
        plan(text, &request).map(|plan| plan.stages[plan.target].index)
    };
    for (target, expected) in [("build", 0), ("TEST", 1), ("2", 2), ("", 2)] {
        assert_eq!(index(target), Ok(expected), "{target}");
    }
    let error = index("biuld").unwrap_err();
    assert_eq!(error.message, "target stage \"biuld\" could not be found");
    assert_eq!(error.hint.as_deref(), Some("did you mean build?"));
    assert_eq!(index("zzzzz").unwrap_err().hint, None);
    assert!(index("3").is_err());
}

#[test]
fn a_later_stage_of_the_name_of_an_image_is_no_circle() {
    let plan = plan("FROM alpine AS base\nFROM base AS alpine", &request()).unwrap();
    assert_eq!(plan.stages[0].base, Base::Image("alpine".into()));
    assert_eq!(plan.stages[1].base, Base::Stage(0));
}

#[test]
fn named_contexts_of_every_kind() {
    let files = NamedContext::Files(ContextSource::Directory("/d".into()));
    let image = NamedContext::Image("docker.io/real/image:2".parse().unwrap());
    let named = |name: &str, context: &NamedContext| (name.to_owned(), context.clone());
    let request = Request {
        contexts: BTreeMap::from([
            named("files", &files),
            named("image", &image),
            named("docker.io/library/golang:1.25", &image),
            // A name that an image's stands for is not looked up again.
            named("real/image:2", &files),
            named("scratch", &files),
            named("stage", &image),
        ]),
        ..request()
    };
    let real = || Base::Image("docker.io/real/image:2".into());
    for (text, expected) in [
        ("FROM files", Base::Files("files".into())),
        ("FROM image", real()),
        ("FROM golang:1.25", real()),
        ("FROM golang:1.24", Base::Image("golang:1.24".into())),
        ("FROM real/image:2", Base::Files("real/image:2".into())),
        ("FROM scratch", Base::Scratch),
        ("FROM base AS files\nRUN x", Base::Files("files".into())),
        ("FROM base AS stage\nRUN x", real()),
        // A stage of that name counts more where it is not replaced itself.
        ("FROM files AS golang\nFROM golang", Base::Stage(0)),
    ] {
        let plan = plan(text, &request).unwrap();
        let last = plan.stages.last().unwrap();
        assert_eq!(last.base, expected, "{text}");
        assert_eq!(last.replaced, text.contains("RUN"), "{text}");
    }
    let text = "FROM base AS stage\nRUN x\nFROM base\nCOPY --from=files a /a\nCOPY --from=stage b /b\n\
                RUN --mount=from=image,target=/x --mount=type=cache,from=files,target=/y x\n";
    let staged = last(text, &request);
    let named: Vec<_> = bases(&staged.steps).map(|(_, base)| base.clone()).collect();
    let files = || Base::Files("files".into());
    assert_eq!(named, [files(), Base::Stage(0), real(), files()]);
    // What replaces a stage is as it is: no triggers, no steps.
    let mut base = base();
    base.config.on_build = vec!["RUN y".into()];
    let all = stages(text, &request, &base).unwrap();
    assert!(all[0].steps.is_empty());
}

#[test]
fn named_contexts() {
    let layout = Layout {
        dir: "/l".into(),
        tag: None,
        digest: None,
    };
    let names = ["other/image:1", "debian", "stage", "tool"];
    let request = Request {
        contexts: names
            .iter()
            .map(|name| ((*name).to_owned(), NamedContext::Layout(layout.clone())))
            .collect(),
        ..request()
    };
    let table = [
        ("FROM other/image:1", Base::Layout("other/image:1".into())),
        ("FROM debian:latest", Base::Layout("debian".into())),
        (
            "FROM docker.io/library/debian",
            Base::Layout("debian".into()),
        ),
        ("FROM debian:12", Base::Image("debian:12".into())),
        (
            "FROM base AS stage\nRUN never",
            Base::Layout("stage".into()),
        ),
        ("FROM scratch", Base::Scratch),
    ];
    for (text, expected) in table {
        let plan = plan(text, &request).unwrap();
        assert_eq!(plan.stages[0].base, expected, "{text}");
    }
    let staged = last("FROM base AS stage\nRUN never\n", &request);
    assert!(staged.steps.is_empty());
    let staged = last(
        "FROM base\nCOPY --from=tool /a /b\nCOPY --from=scratch /a /b\n",
        &request,
    );
    assert_eq!(
        copies(&staged)[0].from,
        From::Base(Base::Layout("tool".into()))
    );
    assert_eq!(copies(&staged)[1].from, From::Base(Base::Scratch));
}

#[test]
fn triggers_fire_once_and_first() {
    let text = "FROM base AS tool\nFROM base AS b\nONBUILD RUN echo fired\nONBUILD COPY --from=tool /x /x\n\
                FROM b AS c\nRUN after\nFROM c\nRUN last\n";
    let all = stages(text, &request(), &base()).unwrap();
    let texts = |staged: &Staged| -> Vec<String> {
        staged
            .steps
            .iter()
            .map(|step| step.history.clone())
            .collect()
    };
    assert_eq!(
        texts(&all[1]),
        ["ONBUILD RUN echo fired", "ONBUILD COPY --from=tool /x /x"]
    );
    assert_eq!(
        texts(&all[2]),
        [
            "RUN /bin/sh -c echo fired",
            "COPY /x /x",
            "RUN /bin/sh -c after"
        ]
    );
    assert_eq!(all[2].steps[0].span.first, 5);
    assert_eq!(copies(&all[2])[0].from, From::Base(Base::Stage(0)));
    assert_eq!(texts(&all[3]), ["RUN /bin/sh -c last"]);
    assert!(all[2].image.config.on_build.is_empty());

    let mut image = base();
    image.config.on_build = vec!["COPY --from=tool:1 . /x".into(), "ENV A=1".into()];
    let staged = stages("FROM base\n", &request(), &image)
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(
        bases(&staged.steps)
            .map(|(_, base)| base.clone())
            .collect::<Vec<_>>(),
        [Base::Image("tool:1".into())]
    );
    assert_eq!(staged.image.config.env, ["PATH=/bin", "A=1"]);
    image.config.on_build = vec!["NOPE x".into()];
    let error = stages("FROM base\n", &request(), &image).unwrap_err();
    assert_eq!(error.span.map(|span| span.first), Some(1));
}

#[test]
fn triggers_of_a_base_may_need_what_nothing_else_does() {
    let text = "FROM base AS tool\nRUN t\nFROM other AS unused\nFROM parent AS middle\nFROM middle\n\
                FROM chained\nFROM parent\n";
    let with = |target: &str, triggers: &[&str]| {
        let request = Request {
            target: Some(target.into()),
            ..request()
        };
        let given = |base: &Base, _: &Platform| match base {
            Base::Image(name) if name == "parent" => {
                triggers.iter().map(|text| (*text).to_owned()).collect()
            }
            _ => Vec::new(),
        };
        let dockerfile = dockerfile::parse(text.as_bytes()).unwrap();
        graph_with(&dockerfile, &request, &given).map(|plan| {
            let stages = plan.stages.iter().map(|stage| {
                let names = stage.names.iter().map(|named| named.base.clone());
                (stage.index, stage.needs.clone(), names.collect::<Vec<_>>())
            });
            stages.collect::<Vec<_>>()
        })
    };
    let image = |name: &str| Base::Image(name.into());
    assert_eq!(
        with("middle", &["RUN x", "COPY . /src"]).unwrap(),
        [(2, vec![], vec![])]
    );
    assert_eq!(
        with(
            "middle",
            &[
                "COPY --from=tool /a /b",
                "RUN --mount=from=1,target=/x --mount=from=img,target=/y x"
            ]
        )
        .unwrap(),
        [
            (0, vec![], vec![]),
            (1, vec![], vec![]),
            (2, vec![0, 1], vec![image("img")]),
        ]
    );
    // They fire once, not in what starts from the stage.
    assert_eq!(
        with("3", &["COPY --from=tool /a /b"]).unwrap(),
        [
            (0, vec![], vec![]),
            (2, vec![0], vec![]),
            (3, vec![1], vec![]),
        ]
    );
    for (trigger, expected) in [
        (
            "COPY --from=middle /a /b",
            "cannot copy from stage \"middle\", it needs to be defined before current stage \"middle\"",
        ),
        ("COPY --from=9 /a /b", "invalid stage index 9"),
        (
            "COPY --from=$X /a /b",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        ("RUN --device=x y", "RUN --device is not yet supported"),
        (
            "ONBUILD RUN x",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "RUN a\nRUN b",
            "onbuild trigger should be a single expression",
        ),
    ] {
        let error = with("middle", &[trigger]).unwrap_err();
        let expected = format!("trigger of parent, `{trigger}`: {expected}");
        assert_eq!(error.message, expected, "{trigger}");
        assert_eq!(error.span.map(|span| span.first), Some(4), "{trigger}");
    }
}

#[test]
fn triggers_of_every_kind_fire() {
    let text = "# escape=`\nFROM base AS tool\nFROM base AS b\nARG W=b\nENV V=b\n\
                ONBUILD ENV V=c\nONBUILD ARG W=c\nONBUILD WORKDIR /w/$V\nONBUILD USER u\n\
                ONBUILD COPY <<E <<-\"F\" ./\n$V\nE\n\t$V\nF\n\
                ONBUILD RUN <<E\necho $V\nE\n\
                ONBUILD RUN --mount=from=tool,target=t --network=none [\"x\"]\n\
                ONBUILD ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 http://h/a /\n\
                ONBUILD LABEL l=$W\nONBUILD CMD c\nONBUILD ENTRYPOINT [\"e\"]\nONBUILD SHELL [\"/sh\"]\n\
                ONBUILD EXPOSE 80\nONBUILD VOLUME /v\nONBUILD STOPSIGNAL 9\nONBUILD HEALTHCHECK NONE\n\
                FROM b\n";
    let all = stages(text, &request(), &base()).unwrap();
    assert_eq!(all[1].image.config.on_build.len(), 16);
    let child = &all[2];
    let history: Vec<&str> = child
        .steps
        .iter()
        .map(|step| step.history.as_str())
        .collect();
    assert_eq!(
        history,
        [
            "ENV V=c",
            "ARG W=c",
            "WORKDIR /w/c",
            "USER u",
            "COPY <<E <<F ./",
            "RUN |1 W=c /bin/sh -c echo $V\n",
            "RUN |1 W=c x",
            "ADD http://h/a /",
            "LABEL l=c",
            "CMD [\"/bin/sh\" \"-c\" \"c\"]",
            "ENTRYPOINT [\"e\"]",
            "SHELL [/sh]",
            "EXPOSE [80/tcp]",
            "VOLUME [/v]",
            "STOPSIGNAL 9",
        ]
        .iter()
        .copied()
        .chain(["HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"])
        .collect::<Vec<_>>()
    );
    assert_eq!(
        copies(child)[0].inline,
        [
            ("E".to_owned(), b"c\n".to_vec()),
            ("F".to_owned(), b"$V\n".to_vec())
        ]
    );
    assert_eq!(
        run(child, 1).mounts,
        [Mount::Bind {
            target: "/w/c/t".into(),
            from: From::Base(Base::Stage(0)),
            source: "/".into(),
            writable: false,
        }]
    );
    assert_eq!(run(child, 1).network, Network::None);
    assert!(child.image.config.on_build.is_empty());
    assert!(
        child
            .steps
            .iter()
            .all(|step| step.span == child.steps[0].span)
    );
}

#[test]
fn platforms() {
    let text = "FROM --platform=$BUILDPLATFORM base AS a\nFROM a\nFROM --platform=linux/s390x base\nFROM --platform=riscv64 base";
    let all = |target: &str| {
        let request = Request {
            target: Some(target.into()),
            ..request()
        };
        let plan = plan(text, &request).unwrap();
        plan.stages[plan.target].platform.to_string()
    };
    let host = crate::oci::Platform::host().to_string();
    assert_eq!(all("a"), host);
    assert_eq!(all("1"), host);
    assert_eq!(all("2"), "linux/s390x");
    assert_eq!(all("3"), "linux/riscv64");
    for (platform, message) in [
        (
            "amd46",
            "failed to parse platform amd46: \"amd46\": unknown operating system or architecture (did you mean amd64?)",
        ),
        (
            "linux/",
            "failed to parse platform linux/: \"\" is an invalid component of \"linux/\": letters, digits, and any of `_.-` are wanted",
        ),
        (
            "linux/amd64,linux/arm64",
            "failed to parse platform linux/amd64,linux/arm64: \"linux/amd64,linux/arm64\" names several platforms: an image is for one",
        ),
        (
            "a/b/c/d",
            "failed to parse platform a/b/c/d: `a/b/c/d` is not a platform: os/architecture[/variant] is wanted, such as linux/amd64",
        ),
    ] {
        let error = plan(&format!("FROM --platform={platform} base"), &request()).unwrap_err();
        let hint = error
            .hint
            .map(|hint| format!(" ({hint})"))
            .unwrap_or_default();
        assert_eq!(format!("{}{hint}", error.message), message);
    }
    let staged = last(text, &request());
    assert_eq!(staged.steps.len(), 0);
}

#[test]
fn the_image_is_for_the_platform_that_was_asked_for() {
    let host = Platform::host().to_string();
    let image = |architecture: &str, variant: Option<&str>| Image {
        architecture: architecture.into(),
        variant: variant.map(str::to_owned),
        ..base()
    };
    let (amd64, arm64) = (image("amd64", None), image("arm64", Some("v8")));
    for (wanted, text, base, expected) in [
        ("linux/arm/v7", "FROM scratch", &amd64, "linux/arm/v7"),
        (
            "linux/arm/v7",
            "FROM --platform=$BUILDPLATFORM scratch",
            &amd64,
            "linux/arm/v7",
        ),
        (
            "linux/arm64",
            "FROM --platform=$BUILDPLATFORM base",
            &amd64,
            "linux/arm64",
        ),
        ("linux/arm64", "FROM base", &arm64, "linux/arm64"),
        (
            "linux/arm/v6",
            "FROM base",
            &image("arm", Some("v7")),
            "linux/arm/v6",
        ),
        (
            "linux/s390x",
            "FROM base AS a\nFROM a",
            &arm64,
            "linux/s390x",
        ),
        // Nobody asked for a platform: the base's stays.
        (
            &host,
            "FROM --platform=linux/arm64 base",
            &arm64,
            "linux/arm64",
        ),
        (
            &host,
            "FROM --platform=linux/arm base",
            &image("arm", None),
            "linux/arm/v7",
        ),
    ] {
        let request = Request {
            platform: wanted.parse().unwrap(),
            ..request()
        };
        let staged = stages(text, &request, base).unwrap();
        let platform = staged.last().unwrap().image.platform();
        assert_eq!(platform.to_string(), expected, "{text} for {wanted}");
    }
}
