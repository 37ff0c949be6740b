use super::*;
use crate::cli::parse::{Command, parse};
use crate::request::{ContextSource, Layout, NamedContext};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// A directory with a Dockerfile in `ctx`, and another in `.`.
pub(super) fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("ctx/sub")).unwrap();
    for file in ["Dockerfile", "ctx/Dockerfile", "ctx/sub/other"] {
        std::fs::write(dir.path().join(file), "FROM scratch\n").unwrap();
    }
    dir
}

pub(super) fn mean_in(
    dir: &Path,
    called: Called,
    args: &[&str],
    env: &[(&str, &str)],
) -> Result<(Request, Options), Usage> {
    let mut words: Vec<OsString> = args.iter().map(OsString::from).collect();
    if called == Called::Shutter {
        words.insert(0, "build".into());
    }
    let Command::Build(typed) = parse(called, &words)? else {
        panic!("{args:?} is no build");
    };
    let around = Surroundings {
        called,
        env: env.iter().map(|(k, v)| (k.into(), v.into())).collect(),
        cwd: dir.to_path_buf(),
        uid: 0,
        stdout: crate::cli::surroundings::Stdout::Open,
        container: Some("a test".into()),
        program: None,
        volumes: Vec::new(),
        own_image: false,
    };
    mean(*typed, &around)
}

#[test]
fn wrong_requests_say_what_and_how_to_put_it_right() {
    let dir = place();
    type Case = (
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
        &'static str,
    );
    let cases: &[Case] = &[
        (&["ctx"], &[], "there is no --destination"),
        (
            &["ctx", "--no-push"],
            &[("KANIKO_NO_PUSH", "false")],
            "there is no --destination",
        ),
        (
            &["ctx", "--no-push"],
            &[("KANIKO_NO_PUSH", "perhaps")],
            "KANIKO_NO_PUSH: `perhaps` is no truth value",
        ),
        (
            &["ctx", "-d=x", "-c=other"],
            &[],
            "the context is given twice: --context other and `ctx`",
        ),
        (&["none", "-d=x"], &[], "none: no such directory"),
        (&["Dockerfile", "-d=x"], &[], "Dockerfile: not a directory"),
        (
            &["-d=x", "-c=s3://b/k"],
            &[],
            "context: s3:// is not yet supported",
        ),
        (
            &["-d=x", "-c=https://a.blob.core.windows.net/b/c.tar.gz"],
            &[],
            "context: blobs of Azure are not yet supported",
        ),
        (&["-d=x", "-c=tar://none"], &[], "none: no such file"),
        (&["-d=x", "-c=tar://ctx"], &[], "an archive is wanted"),
        (
            &["-d=x", "-", "-f=-"],
            &[],
            "both the context and the Dockerfile",
        ),
        (
            &["-d=x", "ctx", "--context-sub-path=../c2"],
            &[],
            "--context-sub-path: ../c2 leads out of the context",
        ),
        (
            &["-d=x", "-", "--context-sub-path=a/../../b"],
            &[],
            "--context-sub-path: a/../../b leads out of the context",
        ),
        (
            &["ctx", "-d=x", "--git=branch"],
            &[],
            "--git: `branch` is not KEY=VALUE",
        ),
        (
            &["ctx", "-d=x", "--git=twig=x"],
            &[],
            "--git: unknown key `twig`",
        ),
        (
            &["ctx", "-d=x", "--git=depth=x"],
            &[],
            "--git depth: `x` is not a whole number",
        ),
        (&["ctx", "-d=x", "-f=none"], &[], "none nor at "),
        (
            &["ctx", "-d=x", "-f=ftp://x/y"],
            &[],
            "--dockerfile: ftp:// is not yet supported",
        ),
        (
            &["ctx", "-d=UP"],
            &[],
            "--destination: `UP` is not an image reference",
        ),
        (
            &[
                "ctx",
                "-d=a@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            ],
            &[],
            "a digest is the build's result",
        ),
        (
            &["ctx", "--no-push", "--image-name-with-digest-file=x"],
            &[],
            "--image-name-with-digest-file wants a --destination",
        ),
        (
            &["ctx", "--no-push", "--image-name-tag-with-digest-file=x"],
            &[],
            "--image-name-tag-with-digest-file wants a --destination",
        ),
        (
            &["ctx", "-d=x", "--compression=zstd", "--image-format=docker"],
            &[],
            "--compression=zstd and --image-format=docker exclude each other",
        ),
        (
            &["ctx", "-d=x", "--compression=zstd", "--tar-path=x"],
            &[],
            "--compression=zstd and --tar-path exclude each other",
        ),
        (
            &["ctx", "-d=x", "--tar-path=x", "--image-format=oci"],
            &[],
            "--tar-path and --image-format=oci exclude each other",
        ),
        (
            &["ctx", "-d=x", "--compression-level=10"],
            &[],
            "--compression-level: gzip has levels 1 to 9, not 10",
        ),
        (
            &[
                "ctx",
                "-d=x",
                "--compression=zstd",
                "--compression-level=23",
            ],
            &[],
            "zstd has levels 1 to 22",
        ),
        (&["ctx", "-d=x", "--target=a,b"], &[], "`b` is a second one"),
        (
            &["ctx", "-d=x", "--build-arg==v"],
            &[],
            "--build-arg: `=v` has no name",
        ),
        (
            &["ctx", "-d=x", "--label=novalue"],
            &[],
            "--label: `novalue` is not NAME=VALUE",
        ),
        (
            &["ctx", "-d=x", "--digest-file=https://x/y"],
            &[],
            "--digest-file: https:// is not yet supported",
        ),
        (
            &["ctx", "-d=x", "--registry-client-cert=h=/c"],
            &[],
            "--registry-client-cert: `h=/c` is not HOST=CERT,KEY",
        ),
        (
            &["ctx", "-d=x", "--build-context=a=docker-image://B"],
            &[],
            "--build-context a: `B` is not an image reference",
        ),
        (
            &["ctx", "-d=x", "--build-context=a=none"],
            &[],
            "--build-context a: ",
        ),
        (
            &["ctx", "-d=x", "--build-context=a=-"],
            &[],
            "--build-context a: only --context can be standard input",
        ),
        (
            &["ctx", "-d=x", "--build-context=a=target:b"],
            &[],
            "a target of a bake file",
        ),
        (
            &["ctx", "-d=x", "--build-context=a=s3://b"],
            &[],
            "--build-context a: s3:// is not yet supported",
        ),
        (
            &["ctx", "-d=x", "--build-context=a=oci-layout://d@sha256:1"],
            &[],
            "--build-context a: `sha256:1` is not a digest",
        ),
        (
            &["ctx", "-d=x", "--build-context=a=oci-layout://"],
            &[],
            "names no directory",
        ),
        (
            &["ctx", "-d=x", "--custom-platform=plan9/mips"],
            &[],
            "--custom-platform: plan9/mips is not yet supported: only linux is",
        ),
        (
            &["ctx", "-d=x", "--custom-platform=amiga"],
            &[],
            "--custom-platform: \"amiga\": unknown operating system or architecture",
        ),
        (
            &["ctx", "-d=x", "--custom-platform=linux/amd64,linux/arm64"],
            &[],
            "--custom-platform: \"linux/amd64,linux/arm64\" names several platforms: an image is for one",
        ),
        (
            &["ctx", "-d=x", "--custom-platform=linux/amd64(1)"],
            &[],
            "--custom-platform: \"amd64(1)\" is an invalid component of \"linux/amd64(1)\"",
        ),
        (
            &["ctx", "-d=x", "--custom-platform=linux/amd64/ x"],
            &[],
            "--custom-platform: \" x\" is an invalid component of \"linux/amd64/ x\"",
        ),
        (
            &["ctx", "-d=x", "--ignore-path=relative"],
            &[],
            "--ignore-path: `relative` is no absolute path below /",
        ),
        (
            &["ctx", "-d=x", "--ignore-path=/"],
            &[],
            "--ignore-path: `/` is no absolute path below /",
        ),
        (
            &["ctx", "-d=x"],
            &[("KANIKO_CLEANUP", "maybe")],
            "KANIKO_CLEANUP: `maybe` is no truth value",
        ),
        (
            &["ctx", "-d=x", "--rootfs=floppy"],
            &[],
            "--rootfs: `floppy` is neither auto, overlay, fuse, inplace nor chroot",
        ),
        (
            &["ctx", "-d=x", "--threads=0"],
            &[],
            "--threads: 0 is not from 1 to 1024",
        ),
        (
            &["ctx", "-d=x", "--push-retry=-1"],
            &[],
            "--push-retry: -1 is no count",
        ),
        (
            &["ctx", "-d=x"],
            &[("SOURCE_DATE_EPOCH", "noon")],
            "variable SOURCE_DATE_EPOCH: `noon` is not a number of seconds since 1970; the time of a context or stage is not yet supported",
        ),
        (
            &["ctx", "-d=x", "--build-arg=SOURCE_DATE_EPOCH=-1"],
            &[],
            "--build-arg SOURCE_DATE_EPOCH: `-1` is before 1970",
        ),
        (
            &["ctx", "-d=x"],
            &[("KANIKO_REGISTRY_MIRROR", "m")],
            "KANIKO_REGISTRY_MIRROR is not yet supported",
        ),
    ];
    for (args, env, want) in cases {
        match mean_in(dir.path(), Called::Shutter, args, env) {
            Ok(_) => panic!("{args:?} is taken"),
            Err(usage) => assert!(usage.message.contains(want), "{args:?}: {usage}"),
        }
    }
}

#[test]
fn what_is_typed_becomes_a_request() {
    let dir = place();
    let at = |path: &str| dir.path().join(path);
    let (request, options) = mean_in(
        dir.path(),
        Called::Shutter,
        &[
            "ctx",
            "-d=localhost:5000/a:v1",
            "-d=b",
            "--build-arg=A=1=2",
            "--build-arg=HOMELY",
            "--build-arg=UNSET",
            "--label=l=",
            "--target=final",
            "--compression=zstd",
            "--compression-level=-1",
            "--build-context=base=oci-layout://lay:out:v2",
            "--registry-client-cert=h:1=c.pem,/k.pem",
            "--oci-layout-path=out",
            "--timeline=t.html",
            "-v=debug",
            "--log-format=json",
            "--tarPath=",
            "--skip-push-permission-check",
            "--threads=3",
            "--custom-platform=",
            "--cache-dir=store",
        ],
        &[
            ("HOMELY", "yes"),
            ("SOURCE_DATE_EPOCH", "12"),
            ("HTTPS_PROXY", "up"),
            ("https_proxy", "low"),
            ("NO_PROXY", "n"),
            ("DOCKER_CONFIG", "/dc"),
            ("REGISTRY_AUTH_FILE", "/raf"),
            ("XDG_RUNTIME_DIR", "/run/u"),
            ("DOCKER_AUTH_CONFIG", "{}"),
            ("SSL_CERT_FILE", "/ca"),
            ("SSL_CERT_DIR", "/a:/b"),
            ("FF_KANIKO_ANYTHING", "1"),
        ],
    )
    .unwrap();
    assert_eq!(request.context, ContextSource::Directory(at("ctx")));
    assert_eq!(request.dockerfile, at("ctx/Dockerfile"));
    let names: Vec<String> = request
        .destinations
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["localhost:5000/a:v1", "docker.io/library/b:latest"]);
    assert_eq!(request.names, request.destinations);
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        request.build_args,
        [
            pair("A", "1=2"),
            pair("HOMELY", "yes"),
            pair("SOURCE_DATE_EPOCH", "12")
        ]
    );
    assert_eq!(request.labels, [pair("l", "")]);
    assert_eq!(request.target.as_deref(), Some("final"));
    assert_eq!(request.compression, Compression::Zstd(3));
    assert_eq!(request.format, Some(Format::Oci));
    let layout = Layout {
        dir: at("lay:out"),
        tag: Some("v2".into()),
        digest: None,
    };
    assert_eq!(request.contexts["base"], NamedContext::Layout(layout));
    assert_eq!(
        request.registry.client_certificates["h:1"],
        (at("c.pem"), "/k.pem".into())
    );
    assert_eq!(request.outputs, [Output::OciLayout(at("out"))]);
    assert_eq!(request.epoch, Some(12));
    assert!(!request.check_push);
    assert_eq!(request.threads, Some(3));
    assert_eq!(request.store, at("store"));
    let registry = &request.registry;
    assert_eq!(
        registry.proxies,
        BTreeMap::from([pair("https_proxy", "low"), pair("no_proxy", "n")])
    );
    let files: Vec<PathBuf> = ["/dc", "/raf", "/run/u/containers/auth.json"]
        .map(Into::into)
        .into();
    assert_eq!(registry.auth_files, files);
    assert_eq!(registry.auth_inline.as_deref(), Some("{}"));
    assert_eq!(registry.certificate_file, Some("/ca".into()));
    assert_eq!(
        registry.certificate_dirs,
        [PathBuf::from("/a"), "/b".into()]
    );
    assert_eq!(options.verbosity, Verbosity::Debug);
    assert_eq!(options.format, LogFormat::Json);
    assert_eq!(options.timeline, Some(at("t.html")));
    assert_eq!(
        options.warnings,
        ["--tarPath is deprecated: use --tar-path"]
    );
}

#[test]
fn defaults_depend_on_the_name_the_program_is_called_by() {
    let dir = place();
    let executor =
        |args: &[&str], env: &[(&str, &str)]| mean_in(dir.path(), Called::Executor, args, env);
    let (request, options) = executor(&["-c=dir://ctx", "--no-push"], &[("HOME", "/h")]).unwrap();
    // As kaniko has it, the working directory's Dockerfile comes first.
    assert_eq!(request.dockerfile, dir.path().join("Dockerfile"));
    assert_eq!(request.store, Path::new("/cache"));
    let files: Vec<PathBuf> = ["/h/.docker", "/kaniko/.docker"].map(Into::into).into();
    assert_eq!(request.registry.auth_files, files);
    assert!(options.termination_log.is_some());
    assert_eq!(options.format, LogFormat::Color);
    let error = executor(&["--no-push"], &[]);
    if !Path::new("/workspace").is_dir() {
        assert_eq!(
            error.unwrap_err().message,
            "context /workspace/: no such directory"
        );
    }
    let (request, _) = executor(
        &[
            "-c=ctx",
            "--context-sub-path=/sub",
            "-f=other",
            "--no-push",
            "-d=x",
        ],
        &[],
    )
    .unwrap();
    assert_eq!(
        request.context,
        ContextSource::Directory(dir.path().join("ctx/sub"))
    );
    assert_eq!(request.dockerfile, dir.path().join("ctx/sub/other"));
    assert!(request.destinations.is_empty());
    assert_eq!(request.names.len(), 1);
    let (request, _) = executor(&["-c=ctx", "--no-push", "--tar-path=t"], &[]).unwrap();
    // An archive holds no media types, so it does not decide the format of what is pushed.
    assert_eq!(request.format, None);
    assert_eq!(request.compression, Compression::Gzip(1));

    let shutter = |env: &[(&str, &str)]| {
        mean_in(dir.path(), Called::Shutter, &["--no-push"], env)
            .unwrap()
            .0
    };
    assert_eq!(
        shutter(&[]).context,
        ContextSource::Directory(dir.path().into())
    );
    assert_eq!(shutter(&[]).store, Path::new("/var/cache/shutter"));
    assert_eq!(
        shutter(&[("XDG_CACHE_HOME", "/xdg")]).store,
        Path::new("/xdg/shutter")
    );
}

#[test]
fn the_executor_stays_inside_containers_unless_forced() {
    let dir = place();
    let run = |called: Called, args: &[&str]| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let Ok(Command::Build(typed)) = parse(called, &args) else {
            panic!("no build");
        };
        let around = Surroundings {
            called,
            env: BTreeMap::new(),
            cwd: dir.path().to_path_buf(),
            uid: 0,
            stdout: crate::cli::surroundings::Stdout::Open,
            container: None,
            program: None,
            volumes: Vec::new(),
            own_image: false,
        };
        mean(*typed, &around)
    };
    let error = run(Called::Executor, &["-c=ctx", "--no-push"]).unwrap_err();
    assert!(error.hint.unwrap().contains("--force"));
    assert!(run(Called::Executor, &["-c=ctx", "--no-push", "--force"]).is_ok());
    assert!(run(Called::Shutter, &["build", "ctx", "--no-push"]).is_ok());

    // Nor is a machine's own root ever built in, unless forced.
    let shutter = |args: &[&str]| {
        let mut words = vec!["build", "ctx", "--no-push"];
        words.extend(args);
        run(Called::Shutter, &words)
    };
    let error = shutter(&["--rootfs=inplace"]).unwrap_err();
    assert!(error.message.contains("no sign of a container"));
    assert!(error.hint.unwrap().contains("--force"));
    let (request, _) = shutter(&["--rootfs=inplace", "--force"]).unwrap();
    assert_eq!(request.rootfs, RootfsChoice::InPlace);
    let (request, _) = shutter(&["--rootfs=chroot"]).unwrap();
    assert_eq!(request.rootfs, RootfsChoice::Chroot);
}
