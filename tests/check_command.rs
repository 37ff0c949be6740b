//! Build checks from outside: `shutter check`, and builds that warn of what they find.

#[path = "common/base.rs"]
mod base;
#[path = "common/project.rs"]
mod project;

use project::Project;
use serde_json::Value;
use shutter::dockerfile::check::Rule;
use std::path::Path;
use std::process::{Command, Output};

/// A directory to check, which anybody may read.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(dockerfile: &str) -> Place {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let place = Place { dir };
        place.file("Dockerfile", dockerfile);
        place
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().current_dir(self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let shutter = Path::new(env!("CARGO_BIN_EXE_shutter"));
        let output = self.command(shutter, args).output().unwrap();
        told(&output)
    }
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

const SECRETIVE: &str = "\
FROM scratch AS Base

ENV TOKEN=hunter2
CMD x
";

#[test]
fn findings_are_printed_for_people() {
    let place = Place::new(SECRETIVE);
    let (code, out, err) = place.run(&["check"]);
    assert_eq!(err, "");
    assert_eq!(
        out,
        "\
StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Stage name 'Base' should be lowercase
Dockerfile:1
--------------------
   1 | >>> FROM scratch AS Base
   2 |
   3 |     ENV TOKEN=***
--------------------

SecretsUsedInArgOrEnv - https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/
Do not use ARG or ENV instructions for sensitive data (ENV \"TOKEN\")
Dockerfile:3
--------------------
   1 |     FROM scratch AS Base
   2 |
   3 | >>> ENV TOKEN=***
   4 |     CMD x
--------------------

JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
Dockerfile:4
--------------------
   2 |
   3 |     ENV TOKEN=***
   4 | >>> CMD x
--------------------

Dockerfile: 3 findings
"
    );
    assert_eq!(code, 0);

    let place = Place::new("FROM debian\nRUN x\nFROM scratch AS a\nFROM debian\n");
    let (code, out, err) = place.run(&["check", "."]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (
            0,
            "Dockerfile: no findings\n\
             note: base images are not pulled for a check, so undefined variables were not looked for in \
             the stages of line 1, 4\n",
            ""
        )
    );
}

#[test]
fn findings_are_printed_for_programs() {
    let place = Place::new(SECRETIVE);
    let (code, out, err) = place.run(&["check", "--format", "json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(!out.contains("hunter2"));
    let object: Value = serde_json::from_str(&out).unwrap();
    let warnings = object["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 3);
    assert_eq!(
        warnings[1],
        serde_json::json!({
            "ruleName": "SecretsUsedInArgOrEnv",
            "description": Rule::SecretsUsedInArgOrEnv.description(),
            "url": "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/",
            "detail": "Do not use ARG or ENV instructions for sensitive data (ENV \"TOKEN\")",
            "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]},
        })
    );
    assert_eq!(object["sources"][0]["filename"], "Dockerfile");
    assert_eq!(object["sources"][0]["language"], "Dockerfile");
    let data = object["sources"][0]["data"].as_str().unwrap();
    use base64::Engine;
    let data = base64::engine::general_purpose::STANDARD
        .decode(data)
        .unwrap();
    assert_eq!(
        String::from_utf8(data).unwrap(),
        SECRETIVE.replace("hunter2", "***")
    );
    assert_eq!(object.get("buildError"), None);
}

#[test]
fn exit_codes_tell_what_somebody_said_is_wrong() {
    let bad = "FROM scratch AS A\n";
    for (text, args, expected) in [
        ("FROM scratch\n", &[][..], 0),
        ("FROM scratch\n", &["--error"], 0),
        (bad, &[], 0),
        (bad, &["--error"], 1),
        (bad, &["--error=false"], 0),
        (
            bad,
            &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"],
            1,
        ),
        (
            bad,
            &[
                "--error",
                "--build-arg",
                "BUILDKIT_DOCKERFILE_CHECK=skip=all",
            ],
            0,
        ),
        ("# check=error=true\nFROM scratch AS A\n", &[], 1),
        ("# check=error=true\nFROM scratch AS a\n", &[], 0),
        (
            "# check=error=true;skip=StageNameCasing\nFROM scratch AS A\n",
            &[],
            0,
        ),
        ("# check=error=maybe\nFROM scratch\n", &[], 1),
        ("FROM\n", &[], 1),
        ("FROM scratch\nCOPY --from=9 a b\n", &[], 1),
        (
            "FROM scratch AS a\nFROM scratch\nUSER ${x?}\n",
            &["--target=a"],
            0,
        ),
        ("FROM scratch AS a\nFROM scratch\nUSER ${x?}\n", &[], 1),
        ("FROM scratch\n", &["--target=nine"], 1),
        ("FROM scratch\n", &["-f", "nowhere"], 1),
        ("FROM scratch\n", &["--destination=x"], 1),
    ] {
        let place = Place::new(text);
        for format in ["text", "json"] {
            let mut all = vec!["check", "--format", format];
            all.extend(args);
            let (code, out, err) = place.run(&all);
            assert_eq!(code, expected, "{text:?} {all:?}: {out} {err}");
            assert!(code == 1 || err.is_empty(), "{text:?} {all:?}: {err}");
        }
    }
}

#[test]
fn mistakes_are_told_in_both_formats() {
    let place = Place::new("FROM scratch AS A\nRUM x\n");
    let (_, out, err) = place.run(&["check"]);
    assert_eq!(
        (out.as_str(), err.as_str()),
        (
            "\
Dockerfile:2
--------------------
   1 |     FROM scratch AS A
   2 | >>> RUM x
--------------------
error: unknown instruction: RUM
hint: did you mean RUN?
",
            ""
        )
    );
    let (_, out, _) = place.run(&["check", "--format=json"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        object["buildError"],
        serde_json::json!({
            "message": "unknown instruction: RUM (did you mean RUN?)",
            "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]},
        })
    );
    // A mistake that is no line's; what the text alone shows is told all the same.
    let place = Place::new("FROM scratch AS A\n");
    let (_, out, _) = place.run(&["check", "--format=json", "--target=b"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["warnings"][0]["ruleName"], "StageNameCasing");
    assert_eq!(object["buildError"]["location"], serde_json::json!({}));

    let place = Place::new("# check=skip=StageNameCassing\nFROM scratch AS A\n");
    let (code, out, err) = place.run(&["check"]);
    assert_eq!(code, 0);
    assert!(out.contains("StageNameCasing - "));
    assert_eq!(
        err,
        "warning: the check options name the rule `StageNameCassing`, which does not exist (did you \
         mean StageNameCasing?)\n"
    );
}

#[test]
fn a_check_needs_no_rights_no_store_and_no_network() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("FROM registry.invalid/nothing AS A\nCOPY left out /\n");
    place.file(".dockerignore", "left\n");
    let shutter = place.dir.path().join("shutter");
    std::fs::copy(env!("CARGO_BIN_EXE_shutter"), &shutter).unwrap();
    std::fs::set_permissions(&shutter, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command(Path::new("setpriv"), &[]);
    command
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(&shutter)
        .arg("check");
    let (code, out, err) = told(&command.output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("StageNameCasing - "), "{out}");
    assert!(
        out.contains("Attempting to Copy file \"left\" that is excluded by .dockerignore"),
        "{out}"
    );
    let entries = std::fs::read_dir(place.dir.path()).unwrap().count();
    assert_eq!(entries, 3, "nothing was made");
}

#[test]
fn bases_in_layouts_are_known() {
    let place = Place::new("FROM here AS a\nUSER $nobody$PATH\nFROM there\nUSER $nobody\n");
    let layout = base::make(place.dir.path());
    let context = format!("here=oci-layout://{}", layout.display());
    let (code, out, err) = place.run(&["check", "--build-context", &context]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(out.matches("UndefinedVar - ").count(), 1, "{out}");
    assert!(out.contains("   2 | >>> USER"), "{out}");
    assert!(out.contains("the stage of line 3"), "{out}");
}

#[test]
fn a_dockerfile_may_come_through_a_pipe() {
    use std::io::Write;
    use std::process::Stdio;
    let place = Place::new("FROM scratch\n");
    let shutter = Path::new(env!("CARGO_BIN_EXE_shutter"));
    let mut command = place.command(shutter, &["check", "-f", "/dev/stdin"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = piped.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"FROM scratch AS A\nRUM x\n").unwrap();
    drop(stdin);
    let (code, out, _) = told(&child.wait_with_output().unwrap());
    assert_eq!(code, 1);
    assert!(out.contains(">>> RUM x"), "{out}");

    // A shell's `<(command)`.
    let mut command = place.command(Path::new("bash"), &["-c"]);
    let script = format!("{} check -f <(echo FROM scratch AS A)", shutter.display());
    let (code, out, err) = told(&command.arg(script).output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains(">>> FROM scratch AS A"), "{out}");

    let (code, out, _) = place.run(&["check", "-f", "/dev/zero"]);
    assert_eq!(code, 1);
    assert_eq!(
        out,
        "error: read /dev/zero: it is neither a file nor a pipe\n"
    );
}

#[test]
fn a_build_warns_of_what_is_found_and_goes_on() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM scratch AS Unused\nENV a b\nFROM base\nENV TOKEN=hunter2\nLABEL a=$nothing b=$PATH c=$nothing\nCOPY left* /\n",
    );
    project.file(".dockerignore", "left\n");
    let (output, _) = project.try_build("text", &[]);
    let (code, _, err) = told(&output);
    assert_eq!(code, 0, "{err}");
    let plain: Vec<&str> = err
        .lines()
        .map(|line| line.split_once("] ").map_or(line, |(_, text)| text))
        .collect();
    let at = |start: &str| {
        let found = plain.iter().position(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no {start}: {err}"))
    };
    let file = project.path("context/Dockerfile").display().to_string();
    let secret = at("SecretsUsedInArgOrEnv: ");
    assert!(err.lines().nth(secret).unwrap().starts_with("WARN["));
    assert_eq!(
        plain[secret + 1..secret + 10],
        [
            "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/",
            &format!("{file}:4"),
            "--------------------",
            "   2 |     ENV a b",
            "   3 |     FROM base",
            "   4 | >>> ENV TOKEN=***",
            "   5 |     LABEL a=$nothing b=$PATH c=$nothing",
            "   6 |     COPY left* /",
            "--------------------",
        ]
    );
    // By line, each once, before anything is done; of stages that are not built the text alone.
    let undefined = at("UndefinedVar: Usage of undefined variable '$nothing'");
    assert!(at("StageNameCasing: ") < secret && secret < undefined);
    assert!(undefined < at("[1/"), "{err}");
    assert_eq!(err.matches("UndefinedVar: ").count(), 1, "{err}");
    assert_eq!(err.matches("LegacyKeyValueFormat").count(), 0, "{err}");

    let (output, _) = project.try_build("json", &["--log-format", "json"]);
    let (code, _, err) = told(&output);
    assert_eq!(code, 0, "{err}");
    let objects: Vec<Value> = err
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .filter(|object: &Value| object["event"] == "finding")
        .collect();
    assert_eq!(objects.len(), 3, "{err}");
    let undefined = &objects[2];
    assert_eq!(undefined["level"], "warning");
    assert_eq!(
        undefined["msg"],
        "UndefinedVar: Usage of undefined variable '$nothing'"
    );
    assert_eq!(undefined["rule"], "UndefinedVar");
    assert_eq!(
        undefined["url"],
        "https://docs.docker.com/go/dockerfile/rule/undefined-var/"
    );
    assert_eq!(undefined["file"], file);
    assert_eq!(
        (&undefined["line"], &undefined["last_line"]),
        (&5.into(), &5.into())
    );

    let (output, _) = project.try_build("quiet", &["--verbosity", "error"]);
    assert_eq!(told(&output), (0, String::new(), String::new()));
}

#[test]
fn a_build_ends_before_it_runs_anything_where_findings_are_an_error() {
    let project = Project::new();
    let text = "FROM base\nRUN echo ran\nCOPY left /\n";
    project.file(".dockerignore", "left\n");
    for (text, args, line) in [
        (
            format!("# check=error=true\n{text}"),
            &[][..],
            Some("Dockerfile:1"),
        ),
        (
            text.to_owned(),
            &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"],
            None,
        ),
    ] {
        project.file("Dockerfile", text);
        let (output, path) = project.try_build("out", args);
        let (code, out, err) = told(&output);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(
            err.contains("CopyIgnoredFile: Attempting to Copy file \"left\""),
            "{err}"
        );
        assert!(
            err.ends_with("error: lint violation found for rules: CopyIgnoredFile\n"),
            "{err}"
        );
        // What is reported last is where the file says so.
        let shown = err.matches("Dockerfile:1\n").count();
        assert_eq!(shown, usize::from(line.is_some()), "{err}");
        assert!(!err.contains("[1/"), "{err}");
        assert!(!path.exists());
    }
    project.file("Dockerfile", format!("# check=error=perhaps\n{text}"));
    let (output, _) = project.try_build("out", &[]);
    let (code, _, err) = told(&output);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("   1 | >>> # check=error=perhaps"), "{err}");
    assert!(
        err.contains("error: failed to parse check options: failed to parse check option"),
        "{err}"
    );
}

#[test]
fn a_build_reads_its_dockerfile_from_a_pipe_and_waits_for_no_one() {
    let project = Project::new();
    let fifo = project.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let to = fifo.clone();
    let writer = std::thread::spawn(move || std::fs::write(to, "FROM base\nENV a b\nRUN false\n"));
    let (output, _) = project.try_build("out", &["-f", &fifo.display().to_string()]);
    writer.join().unwrap().unwrap();
    let (code, _, err) = told(&output);
    assert_eq!(code, 1, "{err}");
    // A pipe is read once, and excerpts of findings are cut out of what was read.
    assert!(err.contains(">>> ENV a b"), "{err}");
    assert!(
        err.contains("error: `RUN false` ended with exit code 1"),
        "{err}"
    );
}
