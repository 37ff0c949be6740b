mod args;
mod chmod;
mod copies;
mod graph;
mod idle;
mod mounts;

use super::*;
use crate::dockerfile;
use crate::oci::Config;
use crate::request::{Layout, NamedContext, Request};
use std::path::PathBuf;

fn request() -> Request {
    Request {
        platform: "linux/arm64".parse().unwrap(),
        ..Request::local(PathBuf::from("/c"), PathBuf::from("/c/Dockerfile"))
    }
}

fn with_args(pairs: &[(&str, &str)]) -> Request {
    Request {
        build_args: pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..request()
    }
}

fn base() -> Image {
    Image {
        config: Config {
            env: vec!["PATH=/bin".into()],
            cmd: Some(vec!["sh".into()]),
            ..Config::default()
        },
        ..Image::scratch(&"linux/arm64".parse().unwrap())
    }
}

fn plan(text: &str, request: &Request) -> Result<Plan, Error> {
    graph(&dockerfile::parse(text.as_bytes()).unwrap(), request)
}

/// Plans every stage, images in registries being `base`.
fn stages(text: &str, request: &Request, base: &Image) -> Result<Vec<Staged>, Error> {
    let plan = plan(text, request)?;
    let mut out: Vec<Staged> = Vec::new();
    for (place, stage) in plan.stages.iter().enumerate() {
        let none = Scope::default();
        let (image, scope) = match &stage.base {
            Base::Scratch => (None, &none),
            Base::Stage(other) => (Some(&out[*other].image), &out[*other].scope),
            Base::Image(_) | Base::Layout(_) | Base::Files(_) => (Some(base), &none),
        };
        let staged = steps(&plan, place, image, scope, request)?;
        out.push(staged);
    }
    Ok(out)
}

fn last(text: &str, request: &Request) -> Staged {
    stages(text, request, &base()).unwrap().pop().unwrap()
}

/// The config after `FROM base` and these lines.
fn config(text: &str) -> Config {
    last(&format!("FROM base\n{text}\n"), &request())
        .image
        .config
}

fn run(staged: &Staged, number: usize) -> &RunOp {
    let runs = staged.steps.iter().filter_map(|step| match &step.op {
        Op::Run(run) => Some(run),
        _ => None,
    });
    runs.collect::<Vec<_>>()[number]
}

fn copies(staged: &Staged) -> Vec<&CopyOp> {
    let copies = staged.steps.iter().filter_map(|step| match &step.op {
        Op::Copy(copy) => Some(copy),
        _ => None,
    });
    copies.collect()
}

#[test]
fn configs() {
    let json = |text: &str| serde_json::to_value(config(text)).unwrap();
    let base = r#"{"Env":["PATH=/bin"],"Cmd":["sh"]"#;
    let table = [
        ("", ""),
        (
            "ENV a=1 b=2\nENV a=3",
            r#","Env":["PATH=/bin","a=3","b=2"]"#,
        ),
        ("ENV PATH=/x:$PATH", r#","Env":["PATH=/x:/bin"]"#),
        (
            "ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc",
            r#","Env":["PATH=/bin","abc=bye","def=hello","ghi=bye"]"#,
        ),
        (
            "ENV D old style value",
            r#","Env":["PATH=/bin","D=old style value"]"#,
        ),
        (
            "ARG U\nARG E=\nARG V=v/w.tar.gz\nENV a=${U:-dash} b=${E-no} c=${V##*/} d=$U x='$V'",
            r#","Env":["PATH=/bin","a=dash","b=","c=w.tar.gz","d=","x=$V"]"#,
        ),
        (
            "LABEL a=1 b=\"x y\" c='q'\nLABEL a=2",
            r#","Labels":{"a":"2","b":"x y","c":"q"}"#,
        ),
        (
            "CMD [\"x\"]\nENTRYPOINT [\"/bin/sh\"]",
            r#","Cmd":["x"],"Entrypoint":["/bin/sh"]"#,
        ),
        ("ENTRYPOINT [\"e\"]", r#","Cmd":null,"Entrypoint":["e"]"#),
        ("CMD echo hi $X", r#","Cmd":["/bin/sh","-c","echo hi $X"]"#),
        ("CMD []", r#","Cmd":[]"#),
        (
            "SHELL [\"/b\",\"-uc\"]\nCMD run me\nENTRYPOINT go",
            r#","Shell":["/b","-uc"],"Cmd":["/b","-uc","run me"],"Entrypoint":["/b","-uc","go"]"#,
        ),
        (
            "EXPOSE 80 443/tcp 53/UDP\nENV P=99\nEXPOSE $P 8000-8001",
            r#","Env":["PATH=/bin","P=99"],"ExposedPorts":{"80/tcp":{},"443/tcp":{},"53/udp":{},"99/tcp":{},"8000/tcp":{},"8001/tcp":{}}"#,
        ),
        (
            "VOLUME /v /w\nVOLUME [\"/x y\"]",
            r#","Volumes":{"/v":{},"/w":{},"/x y":{}}"#,
        ),
        (
            "ENV U=app\nUSER $U",
            r#","Env":["PATH=/bin","U=app"],"User":"app""#,
        ),
        (
            "WORKDIR /w/x\nWORKDIR y\nWORKDIR ../z",
            r#","WorkingDir":"/w/x/z""#,
        ),
        ("WORKDIR rel", r#","WorkingDir":"/rel""#),
        (
            "ENV P=/opt\nWORKDIR $P/${Q:-d}",
            r#","Env":["PATH=/bin","P=/opt"],"WorkingDir":"/opt/d""#,
        ),
        ("STOPSIGNAL SIGTERM", r#","StopSignal":"SIGTERM""#),
        ("STOPSIGNAL 9", r#","StopSignal":"9""#),
        (
            "HEALTHCHECK CMD true\nHEALTHCHECK NONE",
            r#","Healthcheck":{"Test":["NONE"]}"#,
        ),
        (
            "HEALTHCHECK --interval=5s --retries=4 CMD echo ok || exit 1",
            r#","Healthcheck":{"Test":["CMD-SHELL","echo ok || exit 1"],"Interval":5000000000,"Retries":4}"#,
        ),
        (
            "HEALTHCHECK CMD [\"a\",\"b\"]",
            r#","Healthcheck":{"Test":["CMD","a","b"]}"#,
        ),
        (
            "ONBUILD RUN echo x\nONBUILD COPY a /b",
            r#","OnBuild":["RUN echo x","COPY a /b"]"#,
        ),
    ];
    for (text, change) in table {
        let mut expected: serde_json::Value =
            serde_json::from_str(&format!("{base}{change}}}")).unwrap();
        if expected["Cmd"].is_null() {
            expected.as_object_mut().unwrap().remove("Cmd");
        }
        assert_eq!(json(text), expected, "{text}");
    }
    let author = last("FROM base\nMAINTAINER someone <a@b>\n", &request())
        .image
        .author;
    assert_eq!(author.as_deref(), Some("someone <a@b>"));
}

#[test]
fn scratch_has_a_path_and_a_working_directory() {
    let staged = last("FROM scratch\nENV A=1\n", &request());
    let config = &staged.image.config;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(config.env, [path, "A=1"]);
    assert_eq!(config.working_dir, "/");
    assert_eq!(staged.image.architecture, "arm64");
}

#[test]
fn mistakes_have_lines() {
    let table = [
        (
            "FROM base\nARG U\nENV a=\"${U:?must be set}\"",
            3,
            "failed to process \"\\\"${U:?must be set}\\\"\": U: must be set",
        ),
        ("FROM base\nEXPOSE 99999", 2, "invalid containerPort: 99999"),
        ("FROM base\nEXPOSE 80/x", 2, "invalid proto: x"),
        ("FROM base\nEXPOSE 9-8", 2, "invalid containerPort: 9-8"),
        (
            "FROM base\nVOLUME $nothing",
            2,
            "VOLUME specified can not be an empty string",
        ),
        ("FROM base\nSTOPSIGNAL nope", 2, "invalid signal: nope"),
        ("FROM $X", 1, "base name ($X) should not be blank"),
        (
            "FROM --platform=$X base",
            1,
            "empty platform value from expression $X",
        ),
        (
            "FROM base AS a\nCOPY --from=a /x /y",
            2,
            "circular dependency detected on stage: a",
        ),
        (
            "FROM base\nCOPY --from=0 /x /y",
            2,
            "circular dependency detected on stage: 0",
        ),
        (
            "FROM base AS a\nCOPY --from=b /x /y\nFROM a AS b",
            2,
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM base AS z\nRUN x\nCOPY --from=a /x /y\nFROM base AS a\nRUN --mount=from=b,target=/b x\nFROM base AS b\nCOPY --from=a /x /y",
            5,
            "circular dependency detected on stage: a",
        ),
        (
            "FROM base AS a\nRUN --mount=from=b,dst=/b x\nFROM base AS b\nFROM a",
            2,
            "cannot mount from stage \"b\" to \"/b\", stage needs to be defined before current command",
        ),
        (
            "FROM base AS a\nCOPY --from=b /x /y\nFROM base AS b\nFROM a",
            2,
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        ("FROM base\nCOPY --from=7 /x /y", 2, "invalid stage index 7"),
        (
            "FROM base\nRUN --security=insecure true",
            2,
            "RUN --security=insecure is not allowed",
        ),
        (
            "FROM base\nRUN --device=vendor.com/d=x true",
            2,
            "RUN --device is not yet supported",
        ),
        (
            "FROM base\nCOPY http://example.com/x /y",
            2,
            "source can't be a URL for COPY: http://example.com/x",
        ),
        (
            "FROM base AS a\nONBUILD RUN --device=d true\nFROM a",
            3,
            "trigger of a, `RUN --device=d true`: RUN --device is not yet supported",
        ),
    ];
    for (text, line, message) in table {
        let error = stages(text, &request(), &base()).unwrap_err();
        assert_eq!(error.message, message, "{text}");
        assert_eq!(error.span.map(|span| span.first), Some(line), "{text}");
    }
    let error = plan(
        "FROM base\nARG X\nFROM base AS x\nCOPY --from=$X a b",
        &request(),
    )
    .unwrap_err();
    assert!(
        error
            .message
            .starts_with("variable expansion is not supported for --from")
    );
    // What is not carried out is not refused.
    for text in [
        "FROM base AS a\nRUN --device=d true\nFROM base",
        "FROM base AS a\nCOPY --from=b /x /y\nFROM base AS b\nFROM base",
        "FROM base\nONBUILD RUN --device=d true",
        "FROM base\nRUN --network=default --security=sandbox true",
    ] {
        assert!(stages(text, &request(), &base()).is_ok(), "{text}");
    }
}

#[test]
fn working_directories_are_made_for_the_user() {
    let staged = last(
        "FROM base\nUSER app\nWORKDIR /a\nWORKDIR /\nRUN pwd\n",
        &request(),
    );
    let Op::Workdir { path, user } = &staged.steps[1].op else {
        panic!("{:?}", staged.steps[1].op);
    };
    assert_eq!((path.as_str(), user.as_str()), ("/a", "app"));
    assert!(matches!(staged.steps[2].op, Op::Config));
    assert_eq!(
        (run(&staged, 0).cwd.as_str(), run(&staged, 0).user.as_str()),
        ("/", "app")
    );
}

#[test]
fn labels_of_the_request_are_the_targets() {
    let request = Request {
        labels: vec![("a".into(), "2".into()), ("z".into(), "new".into())],
        ..request()
    };
    for text in ["FROM base AS x\nLABEL a=1\nFROM x", "FROM base\nLABEL a=1"] {
        let all = stages(text, &request, &base()).unwrap();
        let labels = &all.last().unwrap().image.config.labels;
        assert_eq!(labels.get("a").map(String::as_str), Some("2"), "{text}");
        assert_eq!(labels.len(), 2);
        if all.len() == 2 {
            assert_eq!(all[0].image.config.labels.len(), 1);
        }
    }
}

#[test]
fn long_files_are_planned_in_a_moment() {
    let lines = |line: &dyn Fn(usize) -> String| -> String { (0..20_000).map(line).collect() };
    for text in [
        format!(
            "FROM base\n{}RUN x\n",
            lines(&|n| format!("ENV V{n}=$V{} W=$V{n}\n", n / 2))
        ),
        format!(
            "FROM base\n{}RUN x\n",
            lines(&|n| format!("ARG V{n}=$V{}\n", n / 2))
        ),
        format!("FROM base\n{}", lines(&|n| format!("LABEL l{n}=x\n"))),
        format!(
            "{}FROM base\nARG V1\nRUN x",
            lines(&|n| format!("ARG V{n}=$V{}\n", n / 2))
        ),
        format!(
            "FROM base AS s\n{}",
            lines(&|n| format!("FROM s AS s{n}\nCOPY --from=s{} a b\n", n.max(1) - 1))
        )
        .replace("FROM s AS s0\nCOPY --from=s0 a b\n", "FROM s AS s0\n"),
        format!(
            "FROM base\n{}",
            lines(&|n| format!("COPY --from=s{} a b\nFROM base AS s{n}\n", n + 1))
        )
        .replace("--from=s20000", "--from=s1"),
    ] {
        // The processor's seconds: others may keep the machine busy.
        let spent = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
        let start = spent();
        let _ = stages(&text, &request(), &base());
        assert!(spent() - start < 10, "{}", &text[..60]);
    }
}
