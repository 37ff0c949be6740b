use super::*;

#[test]
fn arguments() {
    let text = "ARG IMG=base\nARG V=outer\nARG W=$V/x\nARG T=unused\n\
                FROM ${IMG}:$V AS first\n\
                RUN one\nARG V\nARG W\nARG A\nARG B=dflt C=$B\nRUN two\n\
                FROM first\nRUN three\nARG TARGETPLATFORM\nARG TARGETARCH\nARG BUILDOS\nRUN four\n";
    let request = with_args(&[
        ("A", "0"),
        ("A", "a"),
        ("B", "b"),
        ("http_proxy", "http://p"),
    ]);
    let plan = plan(text, &request).unwrap();
    assert_eq!(plan.stages[0].base, Base::Image("base:outer".into()));
    let all = stages(text, &request, &base()).unwrap();
    let proxy = ["HTTP_PROXY=http://p", "http_proxy=http://p"];
    let env = |extra: &[&'static str]| [&["PATH=/bin"], extra, &proxy].concat();
    assert_eq!(run(&all[0], 0).env, env(&[]));
    let args = ["V=outer", "W=outer/x", "A=a", "B=b", "C=b"];
    assert_eq!(run(&all[0], 1).env, env(&args));
    // A stage has the arguments of the stage it starts from.
    assert_eq!(run(&all[1], 0).env, env(&args));
    let more = [
        "TARGETPLATFORM=linux/arm64",
        "TARGETARCH=arm64",
        "BUILDOS=linux",
    ];
    assert_eq!(run(&all[1], 1).env, env(&[&args[..], &more].concat()));
    // Neither arguments nor proxies are in the config; arguments are in the history.
    assert_eq!(all[1].image.config.env, ["PATH=/bin"]);
    let history: Vec<&str> = all[0]
        .steps
        .iter()
        .map(|step| step.history.as_str())
        .collect();
    assert_eq!(
        history,
        [
            "RUN /bin/sh -c one",
            "ARG V=outer",
            "ARG W=outer/x",
            "ARG A=a",
            "ARG B=b C=b",
            "RUN |5 V=outer W=outer/x A=a B=b C=b /bin/sh -c two",
        ]
    );
}

#[test]
fn env_and_arg_of_one_name() {
    let staged = last(
        "FROM base\nARG X=arg\nENV X=env\nRUN one\nARG Y=late\nRUN two\nARG N\nRUN three\n",
        &with_args(&[("X", "flag")]),
    );
    assert_eq!(run(&staged, 0).env, ["PATH=/bin", "X=env"]);
    assert_eq!(run(&staged, 1).env, ["PATH=/bin", "X=env", "Y=late"]);
    let history = &staged.steps.last().unwrap().history;
    assert_eq!(history, "RUN |3 X=env Y=late N= /bin/sh -c three");
}

#[test]
fn arguments_that_are_there_by_themselves() {
    let request = Request {
        platform: "linux/arm/v7".parse().unwrap(),
        target: Some("Out".into()),
        ..with_args(&[
            ("TARGETOS", "mine"),
            ("BUILDKIT_SANDBOX_HOSTNAME", "box-1"),
            ("BUILDKIT_CACHE_MOUNT_NS", "team"),
            ("BUILDKIT_SBOM_SCAN_STAGE", "true"),
            ("SOURCE_DATE_EPOCH", "7"),
            ("no_proxy", ""),
            ("All_Proxy", "http://a"),
        ])
    };
    let text = "FROM base AS out\nRUN one\nARG TARGETPLATFORM\nARG TARGETOS\nARG TARGETOSVERSION\nARG TARGETARCH\n\
                ARG TARGETVARIANT\nARG TARGETSTAGE\nARG BUILDOSVERSION\nARG BUILDKIT_SBOM_SCAN_STAGE\nARG SOURCE_DATE_EPOCH\nARG ALL_PROXY\n\
                RUN --mount=type=cache,target=/c --mount=type=cache,id=x,target=/d two\n";
    let staged = last(text, &request);
    let proxies = ["ALL_PROXY=http://a", "all_proxy=http://a"];
    assert_eq!(run(&staged, 0).env, [&["PATH=/bin"][..], &proxies].concat());
    assert_eq!(run(&staged, 0).hostname.as_deref(), Some("box-1"));
    let host = [
        "PATH=/bin",
        "TARGETPLATFORM=linux/arm/v7",
        "TARGETOS=mine",
        "TARGETOSVERSION=",
        "TARGETARCH=arm",
        "TARGETVARIANT=v7",
        "TARGETSTAGE=Out",
        "BUILDOSVERSION=",
        "SOURCE_DATE_EPOCH=7",
    ];
    assert_eq!(run(&staged, 1).env, [&host[..], &proxies].concat());
    assert!(staged.steps.last().unwrap().history.starts_with(
        "RUN |10 TARGETPLATFORM=linux/arm/v7 TARGETOS=mine TARGETOSVERSION= TARGETARCH=arm TARGETVARIANT=v7 \
         TARGETSTAGE=Out BUILDOSVERSION= BUILDKIT_SBOM_SCAN_STAGE=true SOURCE_DATE_EPOCH=7 ALL_PROXY= "
    ));
    let ids = run(&staged, 1).mounts.iter().map(|mount| match mount {
        Mount::Cache { id, .. } => id.as_str(),
        _ => "",
    });
    assert_eq!(ids.collect::<Vec<_>>(), ["team//c", "team/x"]);
    assert_eq!(
        run(&last("FROM base\nRUN x", &with_args(&[])), 0).hostname,
        None
    );
    for (name, wrong) in [
        ("a b", true),
        ("a\nb", true),
        ("x.y-z_1", false),
        ("", false),
    ] {
        let request = with_args(&[("BUILDKIT_SANDBOX_HOSTNAME", name)]);
        let error = stages("FROM base\nRUN x", &request, &base()).err();
        assert_eq!(error.is_some(), wrong, "{name}");
    }
}

#[test]
fn the_epoch_may_be_a_default_of_the_dockerfile() {
    let text = "ARG SOURCE_DATE_EPOCH=12\nFROM base\nARG SOURCE_DATE_EPOCH\nRUN x";
    let said = Request {
        epoch: Some(5),
        ..with_args(&[("SOURCE_DATE_EPOCH", "5")])
    };
    for (text, request, expected) in [
        (text, &request(), Some(12)),
        (text, &said, None),
        (text, &with_args(&[("SOURCE_DATE_EPOCH", "")]), None),
        ("ARG SOURCE_DATE_EPOCH\nFROM base", &request(), None),
        ("ARG SOURCE_DATE_EPOCH=\nFROM base", &request(), None),
        ("FROM base\nARG SOURCE_DATE_EPOCH=12", &request(), None),
    ] {
        assert_eq!(plan(text, request).unwrap().epoch, expected, "{text}");
    }
    let staged = last(text, &request());
    assert_eq!(run(&staged, 0).env, ["PATH=/bin", "SOURCE_DATE_EPOCH=12"]);
    for (value, why) in [
        (
            "context",
            "`context` is not a number of seconds since 1970; the time of a context or stage is not yet supported",
        ),
        (
            "99999999999999",
            "`99999999999999` seconds after 1970 is later than the year 9999",
        ),
        ("-5", "`-5` is before 1970"),
    ] {
        let text = format!("ARG A\nARG SOURCE_DATE_EPOCH={value}\nFROM base");
        let error = plan(&text, &request()).unwrap_err();
        assert_eq!(error.message, format!("invalid SOURCE_DATE_EPOCH: {why}"));
        assert_eq!(error.span.map(|span| span.first), Some(2));
    }
}

#[test]
fn build_args_without_effect() {
    let idle = |text: &str, args: &[(&str, &str)]| {
        idle_args(
            &dockerfile::parse(text.as_bytes()).unwrap(),
            &with_args(args),
        )
    };
    let none: [&str; 0] = [];
    assert_eq!(
        idle(
            "ARG A\nFROM a\nARG B",
            &[("A", "1"), ("B", "2"), ("Https_Proxy", "x")]
        ),
        none
    );
    assert_eq!(
        idle(
            "FROM a",
            &[
                ("A", "1"),
                ("BUILDKIT_NO_SUCH", "1"),
                ("BUILDKIT_SYNTAX", "x")
            ]
        ),
        [
            "no ARG declares the build args A, BUILDKIT_NO_SUCH: they have no effect",
            "the build args BUILDKIT_SYNTAX are not yet supported: they have no effect",
        ]
    );
    for (frontend, told) in [
        ("docker/dockerfile:1", false),
        ("docker.io/docker/dockerfile", false),
        ("docker/dockerfile-upstream:master-labs opt", false),
        ("mirror.example/docker/dockerfile:1", false),
        ("other/frontend:2 opt=1", true),
        ("docker/Dockerfile", true),
    ] {
        let said = idle(&format!("# syntax={frontend}\nFROM a"), &[]);
        let name = frontend.split(' ').next().unwrap();
        let expected =
            format!("the frontend {name} of `# syntax=` is not yet supported: it has no effect");
        assert_eq!(said, Vec::from_iter(told.then_some(expected)), "{frontend}");
    }
    assert_eq!(
        idle("FROM a", &[("BUILDKIT_SYNTAX", "docker/dockerfile:1.7")]),
        none
    );
    assert_eq!(
        idle(
            "FROM a",
            &[
                ("BUILDKIT_INLINE_CACHE", "0"),
                ("SOURCE_DATE_EPOCH", "1"),
                ("BUILDKIT_SANDBOX_HOSTNAME", "h")
            ]
        ),
        none
    );
}
