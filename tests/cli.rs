//! The program's command line from outside: exit codes and what is said, for what fails before
//! anything is built.

#[path = "common/fake.rs"]
mod fake;

use fake::{Fake, reply};
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

const SHUTTER: &str = env!("CARGO_BIN_EXE_shutter");

/// Runs the program under a name, in a directory with a Dockerfile and a clean environment.
fn run(name: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    Command::new(SHUTTER)
        .arg0(name)
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(dir.path())
        .output()
        .unwrap()
}

#[test]
fn wrong_command_lines_end_with_1_and_say_why() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("shutter", &[], &["there is no command"]),
        (
            "shutter",
            &["frobnicate"],
            &["unknown command `frobnicate`"],
        ),
        (
            "shutter",
            &["--destination=x"],
            &["did you mean `shutter build`?"],
        ),
        (
            "shutter",
            &["push"],
            &["`shutter push` is not yet supported"],
        ),
        (
            "executor",
            &["login", "x"],
            &["`executor login` is not yet supported"],
        ),
        (
            "executor",
            &["bake"],
            &["`executor bake` is not yet supported"],
        ),
        (
            "executor",
            &["frobnicate"],
            &["unknown command `frobnicate` for executor"],
        ),
        (
            "/kaniko/executor",
            &["--destinatoin=x"],
            &["unknown flag --destinatoin", "did you mean --destination?"],
        ),
        (
            "shutter",
            &["build", "--destinatoin", "x"],
            &["did you mean --destination?"],
        ),
        ("shutter", &["build", "-Z"], &["unknown flag -Z"]),
        (
            "shutter",
            &["build", "."],
            &["there is no --destination", "--no-push"],
        ),
        (
            "shutter",
            &["build", "--destination"],
            &["--destination wants a value"],
        ),
        (
            "shutter",
            &["build", "--no-push=perhaps"],
            &["--no-push=perhaps: true or false"],
        ),
        (
            "shutter",
            &["build", "--no-push", "--dryrun"],
            &["flag --dryrun is not yet supported"],
        ),
        (
            "shutter",
            &["build", "--no-push", "--secret", "id=x"],
            &["--secret x: ", "/x: no such file"],
        ),
        (
            "shutter",
            &["build", "--no-push", "--verbosity=loud"],
            &["--verbosity: `loud` is none of trace, debug"],
        ),
        (
            "shutter",
            &["build", "--no-push", "empty"],
            &["there is no Dockerfile at", "empty/Dockerfile"],
        ),
        (
            "shutter",
            &["build", "--no-push", "-f", "x", "empty"],
            &["/x nor at ", "/empty/x"],
        ),
        (
            "shutter",
            &["build", "--no-push", "nowhere"],
            &["nowhere: no such directory"],
        ),
        (
            "shutter",
            &["build", "--no-push", "-c", "gs://b/o"],
            &["context: gs:// is not yet supported"],
        ),
        (
            "shutter",
            &["build", "--no-push", "a", "b"],
            &["`b` is a second one"],
        ),
        (
            "shutter",
            &["build", "--no-push", "--threads=many"],
            &["--threads: `many` is not a whole number"],
        ),
    ];
    for (name, args, fragments) in cases {
        let output = run(name, args, &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: ") || stderr.contains("m: "),
            "{name} {args:?}: {stderr}"
        );
        assert!(output.stdout.is_empty(), "{name} {args:?}");
        for fragment in *fragments {
            assert!(stderr.contains(fragment), "{name} {args:?}: {stderr}");
        }
        let hints = stderr
            .lines()
            .filter(|line| line.starts_with("hint: "))
            .count();
        assert!(
            hints <= 1 && stderr.lines().count() == 1 + hints,
            "{name} {args:?}: {stderr}"
        );
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for (name, args, fragment) in [
        (
            "shutter",
            &["version"][..],
            concat!("shutter ", env!("CARGO_PKG_VERSION"), "\n"),
        ),
        ("shutter", &["--version"], "shutter "),
        ("executor", &["version"], "shutter "),
        ("shutter", &["help"], "shutter build [FLAGS] [CONTEXT]"),
        ("shutter", &["--help"], "--destination IMAGE"),
        ("shutter", &["build", "--help"], "--timeline FILE"),
        (
            "shutter",
            &["build", "-h", "--no-push"],
            "not yet supported",
        ),
        ("shutter", &["build", "--help"], "cacheonly (nothing)"),
        (
            "shutter",
            &["check", "--help"],
            "Build context: a directory (default: `.`)\n",
        ),
        (
            "shutter",
            &["check", "--help"],
            "then in the context; `-` is standard\n",
        ),
        ("executor", &["--help"], "executor [FLAGS]"),
    ] {
        let output = run(name, args, &[]);
        assert_eq!(output.status.code(), Some(0), "{name} {args:?}");
        assert!(output.stderr.is_empty(), "{name} {args:?}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(fragment), "{name} {args:?}: {stdout}");
    }
}

#[test]
fn in_a_log_of_objects_errors_are_objects_too() {
    for args in [
        &["build", "--log-format=json", "--no-push", "nowhere"][..],
        &["build", "--log-format", "json", "--unknown"],
    ] {
        let output = run("shutter", args, &[]);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let object: serde_json::Value = serde_json::from_str(&stderr).unwrap();
        assert_eq!(object["level"], "error", "{stderr}");
        assert_eq!(object["exit_code"], 1, "{stderr}");
        assert!(object["msg"].as_str().unwrap().len() > 5, "{stderr}");
    }
}

#[test]
fn the_environment_is_checked_like_flags() {
    for (env, fragment) in [
        (
            &[("SOURCE_DATE_EPOCH", "yesterday")][..],
            "SOURCE_DATE_EPOCH: `yesterday`",
        ),
        (&[("KANIKO_NO_PUSH", "0")], "there is no --destination"),
        (
            &[("KANIKO_REGISTRY_MAP", "a=b")],
            "KANIKO_REGISTRY_MAP is not yet supported",
        ),
    ] {
        let output = run("shutter", &["build", "--no-push", "."], env);
        assert_eq!(output.status.code(), Some(1), "{env:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(fragment), "{env:?}: {stderr}");
    }
}

/// Runs a build in a directory of its own with something on standard input.
fn build(args: &[&str], stdin: Stdio) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("ctx")).unwrap();
    std::fs::write(dir.path().join("ctx/file"), "content").unwrap();
    let output = Command::new(SHUTTER)
        .args(["build", "--cache-dir", "store", "--log-format", "text"])
        .args(args)
        .env_clear()
        .current_dir(dir.path())
        .stdin(stdin)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[test]
fn a_dockerfile_comes_from_standard_input_or_a_url() {
    let text = "FROM scratch\nCOPY file /\n";
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    drop(writer);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    let args = ["--no-push", "ctx", "-f", "-"];
    for stdin in [Stdio::from(reader), Stdio::from(file)] {
        let (code, said) = build(&args, stdin);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("COPY file /"), "{said}");
    }
    let (code, said) = build(&args, Stdio::null());
    assert_eq!(code, Some(1));
    assert!(said.contains("read /dev/stdin: it is neither"), "{said}");

    let fake = Fake::start(move |asked| match asked.path() {
        "/moved" => reply(302).with("location", "/Dockerfile"),
        "/Dockerfile" => reply(200).body(text),
        _ => reply(404),
    });
    let url = |path: &str| format!("http://user:hush@{}/{path}", fake.host);
    for path in ["Dockerfile", "moved"] {
        let (code, said) = build(&["--no-push", "ctx", "-f", &url(path)], Stdio::null());
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = build(&["--no-push", "ctx", "-f", &url("none")], Stdio::null());
    assert_eq!(code, Some(1));
    assert!(
        said.contains("/none answered 404") && !said.contains("hush"),
        "{said}"
    );
}

#[test]
fn who_waits_for_a_registry_is_told_so() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = port.local_addr().unwrap().to_string();
    drop(port);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    let mut child = Command::new(SHUTTER)
        .args(["build", "--cache-dir", "store", "--log-format", "text", "."])
        .args(["-d", &format!("{host}/a:b")])
        .current_dir(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The warning comes at once; what is waited for after it is not.
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = said
        .map(Result::unwrap)
        .find(|line| line.contains("it is tried again"));
    child.kill().unwrap();
    child.wait().unwrap();
    let warning = warning.unwrap();
    assert!(
        warning.contains(&host) && warning.contains("refused"),
        "{warning}"
    );
}
