//! Contexts that are no directory.

use crate::fake::reply;
use crate::git::{Daemon, Repository, Speaks};
use crate::listing::{Listing, read_layout};
use crate::project::Project;
use crate::{archive, build, fails, git, gzip, has, lacks, run, said, serve};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

#[test]
fn named_contexts_of_files() {
    let project = Project::new();
    let root = project.path("repositories");
    let repository = Repository::new(root.join("r"));
    repository
        .file("repo", "repo")
        .file(".dockerignore", "repo\n");
    repository.commit("x");
    let daemon = Daemon::start(&root);
    let tar = gzip(&archive(&[
        ("from/tar", "tar"),
        (".dockerignore", "from\n"),
    ]));
    std::fs::write(project.path("x.tar.gz"), &tar).unwrap();
    let server = serve(move |_| reply(200).body(tar.clone()));
    let dir = project.path("other");
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    std::fs::write(dir.join("bin/tool"), "#!/bin/sh\necho tool\n").unwrap();
    std::fs::set_permissions(dir.join("bin/tool"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(dir.join("left-out"), "x").unwrap();
    std::fs::write(dir.join(".dockerignore"), "left-out\n").unwrap();
    std::os::unix::fs::chown(dir.join("bin"), Some(1000), Some(1000)).unwrap();
    symlink("bin/tool", dir.join("link")).unwrap();
    project.file(
        "Dockerfile",
        "FROM other AS files\nENV A=b\n\
         FROM base\n\
         COPY --from=other link /copied/\nCOPY --from=other / /all/\n\
         COPY --from=files /bin/tool /staged\n\
         COPY --from=repo . /repo/\nCOPY --from=web context /web.tar.gz\nCOPY --from=tar from/tar /\n\
         RUN --mount=from=other,target=/m /m/bin/tool && ls -A /m && stat -c '%u %a' /m/bin\n\
         RUN --mount=from=repo,source=repo,target=/r cat /r\n",
    );
    let context = project.path("context").display().to_string();
    let named = [
        format!("--build-context=other={}", dir.display()),
        format!("--build-context=repo={}/r", daemon.url),
        format!("--build-context=web=http://{}/x.tar.gz", server.host),
        format!(
            "--build-context=tar=tar://{}",
            project.path("x.tar.gz").display()
        ),
        "--build-context=unused=http://127.0.0.1:1/x".into(),
    ];
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let args = [&[context.as_str()], &named[..]].concat();
    let (image, printed) = build(&project, "out", &args, None);
    has(&image, "copied/link", "#!/bin/sh\necho tool\n");
    has(&image, "all/bin/tool", "#!/bin/sh\necho tool\n");
    has(&image, "staged", "#!/bin/sh\necho tool\n");
    has(&image, "repo/repo", "repo");
    has(&image, "tar", "tar");
    assert!(image.files.contains_key(&b"web.tar.gz"[..]));
    lacks(&image, "all/left-out");
    assert_eq!(
        printed.trim_end(),
        "tool\n.dockerignore\nbin\nlink\n0 755\nrepo"
    );
    assert_eq!(server.lines().len(), 1);

    // By itself it is an image of one layer, with no config but what the stage adds.
    let args = [&args[..], &["--target", "files"]].concat();
    let (image, _) = build(&project, "files", &args, None);
    assert_eq!(image.manifest["layers"].as_array().unwrap().len(), 1);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        image.image["config"]["Env"],
        serde_json::json!([path, "A=b"])
    );
    let history: Vec<&str> = image.image["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["created_by"].as_str().unwrap())
        .collect();
    assert_eq!(history, ["FROM other AS files", "ENV A=b"]);
    has(&image, "bin/tool", "#!/bin/sh\necho tool\n");
    lacks(&image, "left-out");
    assert_eq!(image.files[&b"bin"[..]]["uid"], 0);
    // With RUN on top, and in one layer.
    project.file(
        "Dockerfile",
        "FROM busy\nRUN rm /bin/[\nCOPY Dockerfile /d\n",
    );
    let busy = project.path("busy");
    std::fs::create_dir_all(busy.join("bin")).unwrap();
    for name in ["sh", "rm", "["] {
        std::fs::copy("/bin/busybox", busy.join("bin").join(name)).unwrap();
    }
    let named = format!("--build-context=busy={}", busy.display());
    for (flag, layers) in [("--no-push", 3), ("--single-snapshot", 1)] {
        let (image, _) = build(&project, flag, &[&context, &named, flag], None);
        assert_eq!(image.manifest["layers"].as_array().unwrap().len(), layers);
        assert!(image.files.contains_key(&b"bin/sh"[..]) && image.files.contains_key(&b"d"[..]));
        lacks(&image, "bin/[");
    }
}

/// The files of a context with a bit of everything.
const CONTEXT: [(&str, &str); 7] = [
    (
        "Dockerfile",
        "FROM base\nCOPY . /all/\nRUN cat /all/a; stat -c '%n %u %a' /all/a /all/d/b\n",
    ),
    ("a", "one"),
    ("d/b", "two"),
    ("d/link@", "../a"),
    ("secret", "secret"),
    (".dockerignore", "secret\n"),
    ("sub/Dockerfile", "FROM base\nCOPY . /sub/\n"),
];

#[test]
fn contexts_that_are_archives() {
    let project = Project::new();
    let plain = archive(&CONTEXT);
    let check = |image: &Listing, printed: &str| {
        has(image, "all/d/b", "two");
        lacks(image, "all/secret");
        assert_eq!(image.files[&b"all/d/link"[..]]["target"], "../a");
        assert_eq!(printed, "one/all/a 0 640\n/all/d/b 0 640\n");
    };
    let mut packed = vec![("plain", plain.clone()), ("gzip", gzip(&plain))];
    for program in ["xz", "bzip2", "zstd"] {
        let mut child = Command::new(program)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect(program);
        child.stdin.take().unwrap().write_all(&plain).unwrap();
        packed.push((program, child.wait_with_output().unwrap().stdout));
    }
    for (kind, bytes) in &packed {
        let path = project.path(kind);
        std::fs::write(&path, bytes).unwrap();
        let url = format!("tar://{}", path.display());
        let (image, printed) = build(&project, "out", &["--context", &url], None);
        check(&image, &printed);
        let (image, printed) = build(&project, "out", &["-"], Some(bytes));
        check(&image, &printed);
    }
    let (image, printed) = build(
        &project,
        "out",
        &["--context", "tar://stdin"],
        Some(&packed[1].1),
    );
    check(&image, &printed);
    let served = packed[1].1.clone();
    let server = serve(move |asked| match asked.path() {
        "/c.tar.gz" => reply(200).body(served.clone()),
        "/Dockerfile" => reply(200).body("FROM base\nCOPY . /c/\n"),
        "/other" => reply(200).body("FROM base\nCOPY d/b /fetched\n"),
        _ => reply(404),
    });
    let url = format!("http://{}", server.host);
    let (image, printed) = build(&project, "out", &[&format!("{url}/c.tar.gz")], None);
    check(&image, &printed);
    // A part of it.
    let args = [&format!("{url}/c.tar.gz"), "--context-sub-path", "sub"];
    let (image, _) = build(&project, "out", &args, None);
    has(&image, "sub/Dockerfile", CONTEXT[6].1);
    lacks(&image, "sub/a");
    // Another Dockerfile: of the context, of this machine, from standard input, at a URL.
    let args = [&format!("{url}/c.tar.gz"), "-f", "sub/Dockerfile"];
    has(&build(&project, "out", &args, None).0, "sub/a", "one");
    let own = project.path("own");
    std::fs::write(&own, "FROM base\nCOPY a /mine\n").unwrap();
    let args = [&format!("{url}/c.tar.gz"), "-f", own.to_str().unwrap()];
    has(&build(&project, "out", &args, None).0, "mine", "one");
    let args = [&format!("{url}/c.tar.gz"), "-f", "-"];
    let (image, _) = build(&project, "out", &args, Some(b"FROM base\nCOPY a /typed\n"));
    has(&image, "typed", "one");
    project.file("d/b", "local");
    let context = project.path("context").display().to_string();
    let args = [context.as_str(), "-f", &format!("{url}/other")];
    has(&build(&project, "out", &args, None).0, "fetched", "local");
    // Its own ignore file counts more.
    std::fs::write(project.path("own.dockerignore"), "a\n").unwrap();
    let args = [&format!("{url}/c.tar.gz"), "-f", own.to_str().unwrap()];
    let text = fails(&project, &args, None);
    assert!(
        text.contains("\"/a\": not found: the ignore file leaves it out"),
        "{text}"
    );
    // A single Dockerfile is a context by itself.
    let (image, _) = build(&project, "out", &[&format!("{url}/Dockerfile")], None);
    has(&image, "c/context", "FROM base\nCOPY . /c/\n");
    let (image, _) = build(
        &project,
        "out",
        &["-"],
        Some(b"FROM base\nRUN echo x > /x\n"),
    );
    has(&image, "x", "x\n");
}

#[test]
fn contexts_that_are_repositories() {
    let project = Project::new();
    let root = project.path("repositories");
    let repository = Repository::new(root.join("r.git"));
    for (name, content) in CONTEXT {
        if !name.ends_with('@') {
            repository.file(name, content);
        }
    }
    let commit = repository.commit("x");
    repository.git(&["tag", "v1"]);
    repository.file("a", "later").commit("y");
    let daemon = Daemon::start(&root);
    let server = git::serve(&root, Speaks::Two);
    let http = format!("http://{}/r.git", server.host);
    for (context, a) in [
        (format!("{}/r.git", daemon.url), "later"),
        (format!("{http}#v1"), "one"),
        (format!("{http}#{commit}"), "one"),
        (format!("{http}?ref=v1"), "one"),
    ] {
        let (image, printed) = build(&project, "out", &[&context], None);
        has(&image, "all/d/b", "two");
        has(&image, "all/a", a);
        lacks(&image, "all/secret");
        lacks(&image, "all/.git");
        assert!(printed.starts_with(a), "{printed}");
    }
    let (image, _) = build(&project, "out", &[&format!("{http}#v1:sub")], None);
    has(&image, "sub/Dockerfile", CONTEXT[6].1);
    lacks(&image, "sub/a");
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
    let (image, _) = build(
        &project,
        "out",
        &[&[http.as_str()], &keep[..]].concat(),
        None,
    );
    assert!(image.files.contains_key(&b"all/.git/HEAD"[..]));
    // kaniko's form, which is fetched over http here.
    let executor = project.path("executor");
    symlink(env!("CARGO_BIN_EXE_shutter"), &executor).unwrap();
    for (rest, a) in [
        ("".to_owned(), "later"),
        ("#refs/tags/v1".into(), "one"),
        (format!("#refs/heads/main#{commit}"), "one"),
    ] {
        let mut command = Command::new(&executor);
        command.args(["--force", "--no-push", "--context"]);
        command.arg(format!("git://{}/r.git{rest}", server.host));
        command.arg("--cache-dir").arg(project.path("store"));
        command.arg(format!(
            "--build-context=base=oci-layout://{}",
            project.base.display()
        ));
        command.arg("--oci-layout-path").arg(project.path("kaniko"));
        command
            .env("GIT_PULL_METHOD", "http")
            .current_dir(project.dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        has(&read_layout(&project.path("kaniko")), "all/a", a);
        std::fs::remove_dir_all(project.path("kaniko")).unwrap();
    }
    // A mistake in a Dockerfile that is not here is shown all the same.
    repository.file("bad/Dockerfile", "FROM base\nRUN exit 3\n");
    repository.file("Dockerfile", "FROM base\n\nNONSENSE\n");
    repository.commit("bad");
    let text = fails(&project, &[&http], None);
    assert!(
        text.contains("Dockerfile:3") && text.contains(">>> NONSENSE"),
        "{text}"
    );
    let text = fails(&project, &[&http, "-f", "none"], None);
    assert!(text.contains("read none of the build context"), "{text}");
    let text = fails(&project, &[&format!("{http}#none")], None);
    assert!(text.contains("does not contain ref none"), "{text}");
    let output = run(&project, "failed", &[&format!("{http}#:bad")], None);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(
        said(&output).contains(">>> RUN exit 3"),
        "{}",
        said(&output)
    );
}

#[test]
fn contexts_that_are_traps() {
    let project = Project::new();
    std::fs::write(project.path("victim"), "FROM base\nCOPY . /x\n").unwrap();
    let dockerfile = ("Dockerfile", "FROM base\nCOPY . /x\n");
    let outside = project.path("victim").display().to_string();
    let etc = project.path("etc");
    std::fs::create_dir(&etc).unwrap();
    let out = etc.display().to_string();
    let table: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![dockerfile, ("../escaped", "x")], "entry `../escaped`"),
        (
            vec![dockerfile, ("a/../../escaped", "x")],
            "entry `a/../../escaped`",
        ),
        (
            vec![dockerfile, ("l@", &out), ("l/escaped", "x")],
            "what it is in is no directory",
        ),
        (
            vec![dockerfile, ("f", "x"), ("f/escaped", "x")],
            "what it is in is no directory",
        ),
        (
            vec![("Dockerfile@", &outside)],
            "read Dockerfile of the build context",
        ),
        (
            vec![("Dockerfile@", "../../../../victim")],
            "read Dockerfile of the build context",
        ),
        (vec![("a", "x")], "read Dockerfile of the build context"),
    ];
    for (entries, wanted) in table {
        let bytes = archive(&entries);
        let text = fails(&project, &["-"], Some(&bytes));
        assert!(text.contains(wanted), "{entries:?}: {text}");
        assert!(!project.path("escaped").exists() && !etc.join("escaped").exists());
        assert!(!project.path("store/run/escaped").exists());
    }
    // A link to a file of this machine is as good as none in a context, an absolute name is below it.
    let (image, _) = build(
        &project,
        "out",
        &["-"],
        Some(&archive(&[
            dockerfile,
            (".dockerignore@", &outside),
            ("/abs", "x"),
        ])),
    );
    has(&image, "x/abs", "x");
    let half = &gzip(&archive(&[dockerfile, ("big", &"x".repeat(100_000))]))[..120];
    let text = fails(&project, &["-"], Some(half));
    assert!(text.contains("unpack standard input"), "{text}");
    let mut damaged = gzip(&archive(&[dockerfile, ("big", "x")]));
    damaged[40] ^= 0xff;
    let text = fails(&project, &["-"], Some(&damaged));
    assert!(text.contains("standard input"), "{text}");
    let bytes = archive(&[dockerfile, ("l@", "/etc")]);
    let text = fails(&project, &["-", "--context-sub-path", "l"], Some(&bytes));
    assert!(text.contains("directory l of the build context"), "{text}");
    let text = fails(&project, &["--context", "s3://bucket/x"], None);
    assert!(text.contains("s3:// is not yet supported"), "{text}");
}
