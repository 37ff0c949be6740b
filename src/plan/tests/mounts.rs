use super::*;
use proptest::prelude::*;

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
            "type=cache,target=/c,sharing=LOCKED,from=tool,source=/s,ro,mode=07700,uid=5,gid=6",
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
        (
            "type=zzzzzz",
            "unsupported mount type \"zzzzzz\" (bind, cache, secret, ssh and tmpfs are)",
        ),
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
        (
            "target=/x,ro=maybe",
            "invalid value for ro: maybe (true and false are)",
        ),
        (
            "target=/x,readwrite=",
            "invalid value for readwrite:  (true and false are)",
        ),
        (
            "type=secret,id=x,required=2",
            "invalid value for required: 2 (true and false are)",
        ),
        (
            "type=tmpfs,target=/x,size=big",
            "invalid value for size: big (a size is written as in 64m or 1.5g)",
        ),
        (
            "type=cache,target=/x,sharing=lockd",
            "unsupported sharing value \"lockd\" (did you mean locked?)",
        ),
        (
            "type=cache,target=/x,mode=9",
            "invalid value 9 for mode (an octal mode is wanted, as in mode=0755)",
        ),
        (
            "type=cache,target=/x,uid=-1",
            "invalid value -1 for uid (the number of a user is wanted)",
        ),
        (
            "type=cache,target=/x,gid=x",
            "invalid value x for gid (the number of a group is wanted)",
        ),
        (
            "type=cache,target=/x,uid=4294967295",
            "invalid value 4294967295 for uid (4294967294 is the highest)",
        ),
        (
            "type=secret,id=s,gid=4294967295",
            "invalid value 4294967295 for gid (4294967294 is the highest)",
        ),
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
            "invalid secret mount. one of source, target required (write type=secret,id=ID)",
        ),
        (
            "type=secret,id=a,source=b",
            "both source and id can't be set",
        ),
        (
            "type=secret,id=x,env=",
            "invalid value for env:  (write env=NAME)",
        ),
        ("type=ssh,source=x", "ssh does not support source"),
        (
            "target=/x,sharing=private",
            "invalid cache sharing set for bind mount",
        ),
        ("target=/", "invalid mount target \"/\""),
        (
            "type=cache,target=/x,sharing=x",
            "unsupported sharing value \"x\" (locked, private and shared are)",
        ),
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

proptest! {
    /// Whatever the fields are, a mount is one that can be made, or there is a message.
    #[test]
    fn no_fields_make_it_panic(
        fields in proptest::collection::vec(
            ("(type|from|source|target|dst|ro|rw|id|sharing|required|size|mode|uid|gid|env|.{0,3})", "(=(bind|cache|tmpfs|secret|ssh|1|0755|1.5g|/a/../..|\\PC{0,6}))?"),
            0..5,
        ),
    ) {
        let fields: Vec<String> = fields
            .into_iter()
            .map(|(key, value)| format!("{key}{value}"))
            .collect();
        let text = format!("FROM base\nRUN --mount='{}' x\n", fields.join(","));
        let Ok(dockerfile) = dockerfile::parse(text.as_bytes()) else {
            return Ok(());
        };
        let Ok(plan) = graph(&dockerfile, &request()) else {
            return Ok(());
        };
        let Ok(staged) = steps(&plan, 0, Some(&base()), &Scope::default(), &request()) else {
            return Ok(());
        };
        for step in &staged.steps {
            let Op::Run(run) = &step.op else { continue };
            for mount in &run.mounts {
                let target = match mount {
                    Mount::Bind { target, .. }
                    | Mount::Cache { target, .. }
                    | Mount::Tmpfs { target, .. } => Some(target),
                    Mount::Secret { file, .. } => file.as_ref().map(|file| &file.target),
                    Mount::Ssh { file, .. } => Some(&file.target),
                };
                if let Some(target) = target {
                    prop_assert!(target.len() > 1 && target.starts_with('/'), "{target}");
                    prop_assert!(!target.split('/').any(|part| part == ".."), "{target}");
                }
            }
        }
    }
}
