use super::*;
use crate::dockerfile;
use crate::oci::Config;
use crate::request::{
    Compression, ContextSource, Layout, NamedContext, RegistryOptions, Request, RootfsChoice,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn request() -> Request {
    Request {
        context: ContextSource::Directory(PathBuf::from("/c")),
        context_sub_path: PathBuf::new(),
        dockerfile: PathBuf::from("/c/Dockerfile"),
        contexts: BTreeMap::new(),
        secrets: BTreeMap::new(),
        ssh: BTreeMap::new(),
        git: Default::default(),
        allow_insecure: false,
        destinations: Vec::new(),
        names: Vec::new(),
        build_args: Vec::new(),
        target: None,
        labels: Vec::new(),
        platform: "linux/arm64".parse().unwrap(),
        outputs: Vec::new(),
        digest_file: None,
        image_name_with_digest_file: None,
        image_name_tag_with_digest_file: None,
        store: PathBuf::from("/s"),
        compression: Compression::Gzip(1),
        format: None,
        single_snapshot: false,
        reproducible: false,
        epoch: None,
        rootfs: RootfsChoice::Auto,
        check_push: false,
        registry: RegistryOptions::default(),
        threads: None,
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
            "RUN --device is not yet supported",
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

/// The mounts of one RUN in a stage with a variable and a working directory.
fn mounts(text: &str) -> Result<Vec<Mount>, Error> {
    let text = format!(
        "FROM base AS tool\nFROM base\nENV V=v T=cache\nWORKDIR /w\nRUN {text} true\nFROM base AS later\n"
    );
    let request = Request {
        target: Some("1".into()),
        ..request()
    };
    let staged = stages(&text, &request, &base())?.pop().unwrap();
    Ok(run(&staged, 0).mounts.clone())
}

#[test]
fn mounts_of_run() {
    let file = |target: &str, mode| MountedFile {
        target: target.into(),
        mode,
        uid: 0,
        gid: 0,
    };
    let bind = |target: &str, from, source: &str, writable| Mount::Bind {
        target: target.into(),
        from,
        source: source.into(),
        writable,
    };
    let cache = |target: &str, id: &str| Mount::Cache {
        target: target.into(),
        id: id.into(),
        sharing: Sharing::Shared,
        from: None,
        source: "/".into(),
        readonly: false,
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
    let tmpfs = |target: &str, size, readonly| Mount::Tmpfs {
        target: target.into(),
        size,
        readonly,
    };
    let secret = |id: &str, file, env: Option<&str>, required| Mount::Secret {
        id: id.into(),
        file,
        env: env.map(str::to_owned),
        required,
    };
    let ssh = |id: &str, file, required| Mount::Ssh {
        id: id.into(),
        file,
        required,
    };
    let tool = || From::Base(Base::Stage(0));
    let table = [
        ("target=/x", bind("/x", From::Context, "/", false)),
        (
            "type=bind,dst=x/../y,src=../a/./b,rw",
            bind("/w/y", From::Context, "/a/b", true),
        ),
        (
            "destination=/$V/,source=/${V}s,readwrite=1",
            bind("/v", From::Context, "/vs", true),
        ),
        (
            "target=.,ro=false,readonly",
            bind("/w", From::Context, "/", false),
        ),
        ("source=a", bind("/w", From::Context, "/a", false)),
        (
            "from=tool,target=/x,readonly=false",
            bind("/x", tool(), "/", true),
        ),
        (
            "FROM=Tool,TYPE=BIND,Target=/x",
            bind("/x", tool(), "/", false),
        ),
        ("from=0,target=/x", bind("/x", tool(), "/", false)),
        (
            "from=img:1,target=/x",
            bind("/x", From::Base(Base::Image("img:1".into())), "/", false),
        ),
        (
            "from=scratch,target=/x",
            bind("/x", From::Base(Base::Scratch), "/", false),
        ),
        (
            "\\\"target=/a,b\\\"",
            bind("/a,b", From::Context, "/", false),
        ),
        ("type=$T,target=/c", cache("/c", "/c")),
        ("type=cache,target=c/d/", cache("/w/c/d", "c/d")),
        ("type=cache,id=$V,target=/c/,id=$V-2", cache("/c", "v-2")),
        (
            "type=cache,target=/c,sharing=LOCKED,from=tool,source=/s,ro,mode=0700,uid=5,gid=6",
            Mount::Cache {
                target: "/c".into(),
                id: "/c".into(),
                sharing: Sharing::Locked,
                from: Some(tool()),
                source: "/s".into(),
                readonly: true,
                mode: 0o700,
                uid: 5,
                gid: 6,
            },
        ),
        ("type=tmpfs,target=/t", tmpfs("/t", None, false)),
        (
            "type=tmpfs,target=t,size=1.5m,ro",
            tmpfs("/w/t", Some(1_572_864), true),
        ),
        (
            "type=tmpfs,target=/t,size=0,from=tool",
            tmpfs("/t", None, false),
        ),
        (
            "type=secret,id=a/b",
            secret("a/b", Some(file("/run/secrets/b", 0o400)), None, false),
        ),
        (
            "type=secret,target=/x/tok,required",
            secret("tok", Some(file("/x/tok", 0o400)), None, true),
        ),
        (
            "type=secret,src=s,dst=x,required=false",
            secret("s", Some(file("/x", 0o400)), None, false),
        ),
        (
            "type=secret,id=s,env=TOKEN,required=true",
            secret("s", None, Some("TOKEN"), true),
        ),
        (
            "type=secret,id=s,env=TOKEN,target=/x,mode=0440,uid=1,gid=2",
            secret(
                "s",
                Some(MountedFile {
                    target: "/x".into(),
                    mode: 0o440,
                    uid: 1,
                    gid: 2,
                }),
                Some("TOKEN"),
                false,
            ),
        ),
        (
            "type=ssh",
            ssh("default", file("/run/buildkit/ssh_agent.0", 0o600), false),
        ),
        (
            "type=ssh,id=k,target=/s,required,uid=7,mode=0666",
            ssh(
                "k",
                MountedFile {
                    target: "/s".into(),
                    mode: 0o666,
                    uid: 7,
                    gid: 0,
                },
                true,
            ),
        ),
    ];
    for (text, expected) in table {
        let got = mounts(&format!("--mount={text}"));
        assert_eq!(got, Ok(vec![expected]), "{text}");
    }
    let several =
        mounts("--mount=type=ssh --mount=type=ssh,id=b --mount=type=secret,id=s").unwrap();
    assert_eq!(
        several,
        [
            ssh("default", file("/run/buildkit/ssh_agent.0", 0o600), false),
            ssh("b", file("/run/buildkit/ssh_agent.1", 0o600), false),
            secret("s", Some(file("/run/secrets/s", 0o400)), None, false),
        ]
    );
}

#[test]
fn mounts_that_are_wrong() {
    let table = [
        (
            "type=bnd",
            "unsupported mount type \"bnd\" (did you mean bind?)",
        ),
        ("type=zzzzzz", "unsupported mount type \"zzzzzz\""),
        (
            "tpye=bind",
            "unexpected key 'tpye' in 'tpye=bind' (did you mean type?)",
        ),
        ("nonsense=1", "unexpected key 'nonsense' in 'nonsense=1'"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("target=/x,", "invalid field '' must be a key=value pair"),
        (
            "type=cache,required",
            "unexpected key 'required' for mount type 'cache'",
        ),
        (
            "required=1,type=secret,id=x",
            "unexpected key 'required' for mount type 'bind' (type= goes before the other fields)",
        ),
        (
            "type=cache,size=1m",
            "unexpected key 'size' for mount type 'cache'",
        ),
        ("target=/x,ro=maybe", "invalid value for ro: maybe"),
        ("target=/x,readwrite=", "invalid value for readwrite: "),
        (
            "type=secret,id=x,required=2",
            "invalid value for required: 2",
        ),
        (
            "type=tmpfs,target=/x,size=big",
            "invalid value for size: big",
        ),
        (
            "type=cache,target=/x,sharing=lockd",
            "unsupported sharing value \"lockd\" (did you mean locked?)",
        ),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid"),
        ("type=cache,target=/x,gid=x", "invalid value x for gid"),
        (
            "target=/x,mode=0755",
            "mode not allowed for \"bind\" type mounts",
        ),
        (
            "type=tmpfs,target=/x,uid=1",
            "uid not allowed for \"tmpfs\" type mounts",
        ),
        (
            "target=/x,gid=1",
            "gid not allowed for \"bind\" type mounts",
        ),
        (
            "type=secret,id=x,from=tool",
            "secret mount should not have a from",
        ),
        (
            "type=secret,id=x,sharing=shared",
            "secret mount should not define sharing",
        ),
        (
            "type=secret",
            "invalid secret mount. one of source, target required",
        ),
        (
            "type=secret,id=a,source=b",
            "both source and id can't be set",
        ),
        ("type=secret,id=x,env=", "invalid value for env: "),
        ("type=ssh,source=x", "ssh does not support source"),
        (
            "target=/x,sharing=private",
            "invalid cache sharing set for bind mount",
        ),
        ("target=/", "invalid mount target \"/\""),
        ("type=cache,target=..", "invalid mount target \"/\""),
        ("type=tmpfs,target=/a/..", "invalid mount target \"/\""),
        (
            "target=${X:?need it}",
            "failed to process \"${X:?need it}\": X: need it",
        ),
        (
            "from=later,target=/x",
            "cannot mount from stage \"later\" to \"/x\", stage needs to be defined before current command",
        ),
    ];
    for (text, expected) in table {
        let error = mounts(&format!("--mount='{text}'")).unwrap_err();
        let hint = error.hint.map(|hint| format!(" ({hint})"));
        let told = format!("{}{}", error.message, hint.unwrap_or_default());
        assert_eq!(told, expected, "{text}");
    }
}

#[test]
fn what_runs_are_allowed() {
    let allowed = Request {
        allow_insecure: true,
        ..request()
    };
    let staged = last(
        "FROM base\nRUN --security=insecure --network=none a\nRUN --network=host --security=sandbox b\n\
         RUN --network=default --mount=type=ssh --mount=type=secret,id=x c\nENV SSH_AUTH_SOCK=/mine\n\
         RUN --mount=type=ssh,target=/s d\n",
        &allowed,
    );
    let seen: Vec<_> = (0..4)
        .map(|n| (run(&staged, n).network, run(&staged, n).insecure))
        .collect();
    assert_eq!(
        seen,
        [
            (Network::None, true),
            (Network::Host, false),
            (Network::Host, false),
            (Network::Host, false),
        ]
    );
    assert_eq!(
        run(&staged, 2).env,
        ["PATH=/bin", "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"]
    );
    assert_eq!(run(&staged, 3).env, ["PATH=/bin", "SSH_AUTH_SOCK=/mine"]);
    // Flags are in no history.
    assert_eq!(staged.steps[2].history, "RUN /bin/sh -c c");
}

#[test]
fn fetched_sources() {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let http = |url: &str, checksum: Option<&str>| {
        CopySource::Remote(Remote::Http {
            url: url.into(),
            checksum: checksum.map(|digest| digest.parse().unwrap()),
        })
    };
    let git = |text: &str, checksum: Option<&str>, keep_git_dir| {
        let mut source = crate::request::GitSource::parse(text).unwrap();
        source.checksum = checksum.map(str::to_owned);
        CopySource::Remote(Remote::Git {
            source,
            keep_git_dir,
        })
    };
    let path = |path: &str| CopySource::Path(path.into());
    let table = [
        ("http://h/a /x", vec![http("http://h/a", None)]),
        ("https://h/a$V /x", vec![http("https://h/av", None)]),
        (
            "a http://h/a b https://h/r.git#main /x/",
            vec![
                path("a"),
                http("http://h/a", None),
                path("b"),
                git("https://h/r.git#main", None, false),
            ],
        ),
        (
            "--checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85$F http://h/a /x",
            vec![http("http://h/a", Some(digest))],
        ),
        ("--checksum= http://h/a /x", vec![http("http://h/a", None)]),
        (
            "--checksum=0123abc git@h:r.git /x",
            vec![git("git@h:r.git", Some("0123abc"), false)],
        ),
        (
            "--keep-git-dir ssh://h/r /x",
            vec![git("ssh://h/r", None, true)],
        ),
        (
            "--keep-git-dir=false git://h/r /x",
            vec![git("git://h/r", None, false)],
        ),
        (
            "--keep-git-dir https://h/r /x",
            vec![git("https://h/r", None, true)],
        ),
    ];
    let plan = |text: &str| {
        let text = format!("FROM base\nENV V=v F=5\n{text}\n");
        stages(&text, &request(), &base()).map(|mut all| all.pop().unwrap())
    };
    for (text, expected) in table {
        let staged = plan(&format!("ADD {text}")).unwrap();
        assert_eq!(copies(&staged)[0].sources, expected, "{text}");
    }
    for (text, expected) in [
        (
            "ADD --checksum=$V http://h/a /x",
            "invalid checksum digest format: v (sha256: and 64 hexadecimal digits are wanted)",
        ),
        (
            "ADD --checksum=sha256:12 http://h/a /x",
            "invalid checksum digest length or format: sha256:12 (sha256: and 64 hexadecimal digits are wanted)",
        ),
        (
            "ADD --checksum=sha512:12 http://h/a /x",
            "unsupported digest algorithm: sha512 (sha256 is wanted)",
        ),
        (
            "ADD --checksum=sha256:12 a /x",
            "checksum requires HTTP(S) or Git sources",
        ),
        (
            "ADD --checksum=sha256:12 http://h/a http://h/b /x/",
            "checksum can't be specified for multiple sources",
        ),
        (
            "ADD --checksum=main git@h:r.git /x",
            "invalid checksum \"main\" for Git URL, expected hex commit hash",
        ),
        (
            "ADD --keep-git-dir a /x",
            "--keep-git-dir requires Git sources: a",
        ),
        (
            "COPY http://h/a$V /x",
            "source can't be a URL for COPY: http://h/av",
        ),
        (
            "COPY https://h/a.git /x",
            "source can't be a git ref for COPY: https://h/a.git",
        ),
    ] {
        assert_eq!(plan(text).unwrap_err().message, expected, "{text}");
    }
}

#[test]
fn options_of_copy_and_add() {
    let text = "FROM base\nENV V=v\n\
                COPY --link --parents --exclude=*.$V --exclude=x --chown=1 a b /d/\n\
                ADD --link --exclude=$V --unpack http://h/a /d/\nCOPY --link=false a /d\n";
    let staged = last(text, &request());
    let seen: Vec<_> = copies(&staged)
        .iter()
        .map(|copy| (copy.link, copy.parents, copy.exclude.join(" "), copy.unpack))
        .collect();
    assert_eq!(
        seen,
        [
            (true, true, "*.v x".to_owned(), Unpack::Never),
            (true, false, "v".to_owned(), Unpack::All),
            (false, false, String::new(), Unpack::Never),
        ]
    );
    let history: Vec<&str> = staged.steps[1..]
        .iter()
        .map(|step| step.history.as_str())
        .collect();
    assert_eq!(
        history,
        [
            "COPY --parents --chown=1 a b /d/",
            "ADD http://h/a /d/",
            "COPY a /d"
        ]
    );
}

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
        let hint = meant(&Base::Image(name.into()), &dockerfile);
        assert_eq!(hint.as_deref(), expected, "{name}");
    }
    assert_eq!(meant(&Base::Files("bulider".into()), &dockerfile), None);
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
fn heredocs_of_run() {
    let text = "FROM base\n\
                RUN <<EOF\none\n  $two\nEOF\n\
                RUN <<-\"EOT\"\n\t#!/bin/x\n\tthree\nEOT\n\
                RUN <<A cat - <<B > /two\na\nA\nb\nB\n\
                RUN [\"x\", \"$y\"]\n";
    let staged = last(text, &request());
    assert_eq!(run(&staged, 0).args, ["/bin/sh", "-c", "one\n  $two\n"]);
    assert_eq!(run(&staged, 0).script, None);
    assert_eq!(run(&staged, 1).args, ["/bin/sh", "-c", "/dev/pipes/EOT"]);
    let script = ("EOT".to_owned(), "#!/bin/x\nthree\n".to_owned());
    assert_eq!(run(&staged, 1).script, Some(script));
    assert_eq!(
        run(&staged, 2).args,
        ["/bin/sh", "-c", "<<A cat - <<B > /two\na\nA\nb\nB"]
    );
    assert_eq!(run(&staged, 3).args, ["x", "$y"]);
}

#[test]
fn copies_are_expanded() {
    let text = "FROM base\nENV a=1 o=app\nWORKDIR /w\n\
                COPY --chown=$o:50 --chmod=7${a}0 f$a g .\n\
                ADD --unpack=false t.tar /x/\nADD t.tar y\n\
                COPY <<EOF <<-\"RAW\" /two/\nv=$a \\$a \"q\"\nEOF\n\tr=$a\nRAW\n\
                COPY [\"a b\", \"$a/\"]\nCOPY x sub/.\n";
    let staged = last(text, &request());
    let path = |source: &CopySource| match source {
        CopySource::Path(path) => path.clone(),
        CopySource::Remote(_) => panic!("not fetched"),
    };
    let seen: Vec<_> = copies(&staged)
        .iter()
        .map(|copy| {
            (
                copy.instruction,
                copy.sources.iter().map(path).collect::<Vec<_>>().join(","),
                copy.dest.as_str(),
                copy.unpack,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("COPY", "f1,g".to_owned(), "/w/", Unpack::Never),
            ("ADD", "t.tar".to_owned(), "/x/", Unpack::Never),
            ("ADD", "t.tar".to_owned(), "/w/y", Unpack::Local),
            ("COPY", String::new(), "/two/", Unpack::Never),
            ("COPY", "a b".to_owned(), "/w/1/", Unpack::Never),
            ("COPY", "x".to_owned(), "/w/sub/", Unpack::Never),
        ]
    );
    let first = copies(&staged)[0];
    assert_eq!(first.chown.as_deref(), Some("app:50"));
    assert_eq!(first.chmod.as_deref(), Some("710"));
    assert_eq!(
        copies(&staged)[3].inline,
        [
            ("EOF".to_owned(), b"v=1 $a \"q\"\n".to_vec()),
            ("RAW".to_owned(), b"r=$a\n".to_vec()),
        ]
    );
    let history: Vec<&str> = staged.steps[2..]
        .iter()
        .map(|step| step.history.as_str())
        .collect();
    assert_eq!(history[0], "COPY --chown=app:50 --chmod=710 f1 g .");
    assert_eq!(history[3], "COPY <<EOF <<RAW /two/");
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
            "trigger `ONBUILD RUN x` of the base image: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "FROM x",
            "trigger `FROM x` of the base image: FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "RUN a\nRUN b",
            "trigger `RUN a\nRUN b` of the base image: onbuild trigger should be a single expression",
        ),
    ] {
        let error = with("middle", &[trigger]).unwrap_err();
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
        let start = std::time::Instant::now();
        let _ = stages(&text, &request(), &base());
        assert!(start.elapsed().as_secs() < 10, "{}", &text[..60]);
    }
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
