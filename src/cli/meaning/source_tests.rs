//! Contexts, secrets and SSH agents, from the command line to the request.

use super::tests::{mean_in, place};
use crate::cli::parse::Called;
use crate::request::{ContextSource, GitSource, Hidden, NamedContext, SecretSource, SshSource};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn secrets_come_from_files_and_variables() {
    let dir = place();
    let at = |path: &str| dir.path().join(path);
    for file in ["file", "BOTH", "a,b"] {
        std::fs::write(at(file), "in a file").unwrap();
    }
    let env = [("VAR", "hush"), ("BOTH", "hush"), ("EMPTY", "")];
    let mean = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| format!("--secret={arg}")).collect();
        let mut words = vec!["ctx", "-d=x"];
        words.extend(args.iter().map(String::as_str));
        mean_in(dir.path(), Called::Executor, &["-c=ctx", "-d=x"], &env).unwrap();
        mean_in(dir.path(), Called::Shutter, &words, &env)
    };
    let file = |name: &str| SecretSource::File(at(name));
    let value = |text: &str| SecretSource::Value(Hidden(text.into()));
    for (text, want) in [
        ("id=VAR", value("hush")),
        ("id=BOTH", value("hush")),
        ("id=EMPTY", value("")),
        ("id=file", file("file")),
        ("id=x,src=file", file("file")),
        ("id=x,source=file,type=file", file("file")),
        (r#"id=x,"src=a,b""#, file("a,b")),
        ("id=x,env=VAR", value("hush")),
        ("type=env,id=x,src=VAR", value("hush")),
        ("type=env,id=VAR", value("hush")),
        ("type=file,id=BOTH", file("BOTH")),
        ("ID=x,Env=UNSET", value("")),
    ] {
        let (request, options) = mean(&[text]).unwrap();
        let got: Vec<_> = request.secrets.into_values().collect();
        assert_eq!(got, [want], "{text}");
        assert_eq!(options.warnings.is_empty(), !text.contains("UNSET"));
    }
    for (args, want) in [
        (&["src=file"][..], "there is no id"),
        (&["id=x,hunter2"], "a field is not KEY=VALUE"),
        (&["id=x,value=hunter2"], "unknown key `value`"),
        (&["id=x,type=hunter2"], "neither file nor env"),
        (&["id=x,src=file,env=VAR"], "src and env exclude each other"),
        (&["id=x,type=file,env=VAR"], "type=file and env exclude"),
        (&["id=x,src=none"], "none: no such file"),
        (&["id=nowhere"], "nowhere: no such file"),
        (&["id=x,src=ctx"], "a file is wanted"),
        (&["id=x,src=file", "id=x,env=VAR"], "id `x` is given twice"),
    ] {
        let usage = mean(args).unwrap_err();
        assert!(usage.message.contains(want), "{args:?}: {usage}");
        let told = format!("{} {:?}", usage.message, usage.hint);
        assert!(
            !told.contains("hunter2") && !told.contains("hush"),
            "{told}"
        );
    }
}

#[test]
fn ssh_agents_are_sockets_or_keys() {
    let dir = place();
    let at = |path: &str| dir.path().join(path);
    let _socket = std::os::unix::net::UnixListener::bind(at("agent")).unwrap();
    for key in ["k1", "k2"] {
        std::fs::write(at(key), "").unwrap();
    }
    let agent = at("agent");
    let env = [("SSH_AUTH_SOCK", agent.to_str().unwrap())];
    let mean = |args: &[&str], env: &[(&str, &str)]| {
        let args = [&["ctx", "-d=x"], args].concat();
        mean_in(dir.path(), Called::Shutter, &args, env)
    };
    let keys = SshSource::Keys(vec![at("k1"), at("k2")]);
    for (arg, id, want) in [
        ("--ssh=default", "default", SshSource::Agent(agent.clone())),
        ("--ssh=", "default", SshSource::Agent(agent.clone())),
        ("--ssh=deploy", "deploy", SshSource::Agent(agent.clone())),
        ("--ssh=a=agent", "a", SshSource::Agent(agent.clone())),
        ("--ssh=a=k1,k2", "a", keys),
    ] {
        let request = mean(&[arg], &env).unwrap().0;
        assert_eq!(request.ssh, BTreeMap::from([(id.into(), want)]), "{arg}");
    }
    for (args, want) in [
        (
            &["--ssh=default"][..],
            "--ssh default: SSH_AUTH_SOCK is not set",
        ),
        (&["--ssh=a=none"], "none: no such file"),
        (&["--ssh=a=ctx"], "a file is wanted"),
        (&["--ssh=a=k1,agent"], "which goes with nothing else"),
        (&["--ssh=a=k1", "--ssh=a=k2"], "id `a` is given twice"),
        (&["--allow=device"], "--allow: `device` is neither"),
    ] {
        let usage = mean(args, &[]).unwrap_err();
        assert!(usage.message.contains(want), "{args:?}: {usage}");
    }
    for (args, want) in [
        (&[][..], false),
        (&["--allow=network.host"], false),
        (&["--allow=network.host", "--allow=security.insecure"], true),
        (&["--allow=network.host,security.insecure"], true),
    ] {
        assert_eq!(mean(args, &[]).unwrap().0.allow_insecure, want, "{args:?}");
    }
}

#[test]
fn contexts_come_from_many_places() {
    use Called::{Executor, Shutter};
    let dir = place();
    let at = |path: &str| dir.path().join(path);
    std::fs::write(at("ctx.tar"), "").unwrap();
    let git = |remote: &str, reference: Option<&str>, subdirectory: Option<&str>| {
        ContextSource::Git(GitSource {
            reference: reference.map(Into::into),
            subdirectory: subdirectory.map(Into::into),
            ..GitSource::new(remote)
        })
    };
    let http = |url: &str| ContextSource::Http(url.into());
    let commit = "0123456789012345678901234567890123456789";
    let long = format!("-c=git://h/r#refs/heads/m#{commit}");
    let (alone, with_branch) = ([long.as_str()], [long.as_str(), "--git=branch=b"]);
    let cases: Vec<(Called, &[&str], ContextSource)> = vec![
        (Shutter, &["ctx"], ContextSource::Directory(at("ctx"))),
        (
            Shutter,
            &["-c=dir://ctx"],
            ContextSource::Directory(at("ctx")),
        ),
        (Shutter, &["-"], ContextSource::Stdin),
        (Executor, &["-c=tar://stdin"], ContextSource::Stdin),
        (
            Executor,
            &["-c=tar://ctx.tar"],
            ContextSource::Archive(at("ctx.tar")),
        ),
        (Shutter, &["https://h/x.tar.gz"], http("https://h/x.tar.gz")),
        (
            Shutter,
            &["https://a.blob.core.windows.net/b?sig=x"],
            http("https://a.blob.core.windows.net/b?sig=x"),
        ),
        (
            Shutter,
            &["https://h/r.git#v1:sub"],
            git("https://h/r.git", Some("v1"), Some("sub")),
        ),
        (Shutter, &["git://h/r"], git("git://h/r", None, None)),
        (
            Shutter,
            &["github.com/a/b"],
            git("https://github.com/a/b", None, None),
        ),
        (Executor, &["-c=git://h/r"], git("https://h/r", None, None)),
        (
            Executor,
            &["-c=git://h/r.git#refs/heads/m"],
            git("https://h/r.git", Some("refs/heads/m"), None),
        ),
        (Executor, &alone, git("https://h/r", Some(commit), None)),
        (
            Executor,
            &[
                "-c=git://h/r",
                "--git=branch=b",
                "--git=depth=1",
                "--git=single-branch=true",
            ],
            git("https://h/r", Some("b"), None),
        ),
        (
            Executor,
            &with_branch,
            git("https://h/r", Some(commit), None),
        ),
    ];
    for (called, args, want) in cases {
        let words = [&["--no-push"], args].concat();
        let (request, options) = mean_in(dir.path(), called, &words, &[]).unwrap();
        assert_eq!(request.context, want, "{args:?}");
        assert_eq!(options.warnings, Vec::<String>::new(), "{args:?}");
    }
    let (request, _) = mean_in(
        dir.path(),
        Executor,
        &["--no-push", "-c=git://h/r"],
        &[("GIT_PULL_METHOD", "http")],
    )
    .unwrap();
    assert_eq!(request.context, git("http://h/r", None, None));
    let (_, options) = mean_in(
        dir.path(),
        Shutter,
        &["--no-push", "ctx", "--git=branch=b"],
        &[],
    )
    .unwrap();
    assert!(options.warnings[0].contains("--git has no effect"));

    // Where the Dockerfile is looked for when the context is not here yet.
    for (called, args, want) in [
        (Shutter, &["-"][..], Path::new("Dockerfile").to_owned()),
        (Shutter, &["-", "-f=sub/other"], "sub/other".into()),
        (Shutter, &["-", "-f=ctx/Dockerfile"], at("ctx/Dockerfile")),
        (Shutter, &["ctx", "-f=-"], "/dev/stdin".into()),
        (Shutter, &["ctx", "-f=https://h/D"], "https://h/D".into()),
        (Shutter, &["-", "-f=http://h/D"], "http://h/D".into()),
        (Shutter, &["git://h/r", "-f=-"], "/dev/stdin".into()),
        (Executor, &["-c=git://h/r"], at("Dockerfile")),
    ] {
        let words = [&["--no-push", "--context-sub-path=/"], args].concat();
        let (request, _) = mean_in(dir.path(), called, &words, &[]).unwrap();
        assert_eq!(request.dockerfile, want, "{args:?}");
        assert_eq!(request.context_sub_path, Path::new(""));
    }

    let (request, _) = mean_in(
        dir.path(),
        Shutter,
        &[
            "--no-push",
            "ctx",
            "--build-context=dir=ctx/sub",
            "--build-context=img=docker-image://alpine:3",
            "--build-context=git=git@h:r#x",
            "--build-context=web=http://h/a.tgz",
            "--build-context=tar=tar://ctx.tar",
        ],
        &[],
    )
    .unwrap();
    let files = |source| NamedContext::Files(source);
    assert_eq!(
        request.contexts,
        BTreeMap::from([
            ("dir".into(), files(ContextSource::Directory(at("ctx/sub")))),
            (
                "img".into(),
                NamedContext::Image("alpine:3".parse().unwrap())
            ),
            ("git".into(), files(git("git@h:r", Some("x"), None))),
            ("web".into(), files(http("http://h/a.tgz"))),
            ("tar".into(), files(ContextSource::Archive(at("ctx.tar")))),
        ])
    );
}
