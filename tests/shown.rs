//! What a build and a check show of a Dockerfile: all of it but what is secret.

#[path = "common/base.rs"]
mod base;
#[path = "common/fake.rs"]
mod fake;
#[path = "common/listing.rs"]
mod listing;
#[path = "common/project.rs"]
mod project;

use base64::Engine;
use fake::{Fake, reply};
use project::Project;
use std::process::Output;

const SECRET: &str = "hunter2";

fn said(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// Serves `/a.txt` to everybody, and nothing else.
fn server() -> Fake {
    Fake::start(|asked| match asked.path() {
        "/a.txt" => reply(200).body("hello"),
        _ => reply(404),
    })
}

#[test]
fn a_build_shows_nothing_secret() {
    let server = server();
    let host = &server.host;
    // The Dockerfile, the exit code, and what is shown all the same.
    let cases: &[(String, i32, &[&str])] = &[
        (
            "FROM base\nENV API_TOKEN=hunter2 B=c\nCOPY nothere /\n".into(),
            1,
            &["] ENV API_TOKEN=***", "2 |     ENV API_TOKEN=***"],
        ),
        (
            "ARG DB_PASSWORD=hunter2\nFROM base\nENV A=b \\\n  API_TOKEN=hunter2\nRUN exit 3\n"
                .into(),
            3,
            &["] ENV A=b   API_TOKEN=***", "1 |     ARG DB_PASSWORD=***"],
        ),
        ("ENV API_TOKEN=hunter2\nFOO\n".into(), 1, &["API_TOKEN=***"]),
        (
            format!("FROM base\nADD http://me:hunter2@{host}/a.txt?sig=hunter2&ref=one /q\n"),
            0,
            &["a.txt?sig=REDACTED&ref=one /q"],
        ),
        (
            format!("FROM base\nADD http://me:hunter2@{host}/none?sig=hunter2 /q\n"),
            1,
            &["http://REDACTED@", "404"],
        ),
        (
            format!(
                "FROM base\nARG GIVEN\nADD --chown=0:0 http://me:$GIVEN@{host}/a.txt?a=$GIVEN /q\n"
            ),
            0,
            &["http://REDACTED@"],
        ),
        (
            format!("FROM base\nARG GIVEN\nCOPY http://me:$GIVEN@{host}/a.txt?a=$GIVEN /q\n"),
            1,
            &["source can't be a URL for COPY: http://REDACTED@"],
        ),
        (
            format!("FROM base\nADD https://me:hunter2@{host}/a.git#main:$OH /q\n"),
            1,
            &["ADD https://REDACTED@"],
        ),
        (
            format!("FROM base\nRUN echo http://me:hunter2@{host} > /dev/null; exit 4\n"),
            4,
            &["RUN echo http://REDACTED@"],
        ),
    ];
    for (number, (text, code, shown)) in cases.iter().enumerate() {
        let project = Project::new();
        project.file("Dockerfile", text);
        let page = project.path("timeline.html");
        for format in ["text", "json"] {
            let args = [
                "-v",
                "trace",
                "--log-format",
                format,
                "--build-arg",
                "GIVEN=hunter2",
                "--timeline",
            ];
            let out = format!("{format}{number}");
            let (output, layout) =
                project.try_build(&out, &[&args[..], &[page.to_str().unwrap()]].concat());
            let said = said(&output);
            assert_eq!(output.status.code(), Some(*code), "{text}{said}");
            assert!(!said.contains(SECRET), "{text}{said}");
            if format == "text" {
                for shown in *shown {
                    assert!(said.contains(shown), "{shown}:\n{text}{said}");
                }
            }
            if let Ok(page) = std::fs::read_to_string(&page) {
                assert!(!page.contains(SECRET), "the timeline of {text}");
            }
            if *code == 0 {
                let image = listing::read_layout(&layout);
                let history = image.image["history"].to_string();
                assert!(!history.contains("me:hunter2"), "{history}");
                assert!(history.contains("http://REDACTED@"), "{history}");
            }
        }
    }
}

#[test]
fn a_check_shows_nothing_secret() {
    for (text, kept) in [
        ("ENV API_TOKEN=hunter2\nFOO\n", "ENV API_TOKEN=***\nFOO\n"),
        (
            "FROM scratch\nENV API_TOKEN=hunter2\nFROM\n",
            "FROM scratch\nENV API_TOKEN=***\nFROM\n",
        ),
        (
            "FROM scratch\nADD http://me:hunter2@h/a?b=hunter2 /\nFOO\n",
            "FROM scratch\nADD http://REDACTED@h/a?b=REDACTED /\nFOO\n",
        ),
    ] {
        let project = Project::new();
        project.file("Dockerfile", text);
        for format in ["text", "json"] {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_shutter"));
            command.args(["check", "--format", format, "--context"]);
            command.arg(project.path("context"));
            let output = command.output().unwrap();
            let said = said(&output);
            assert!(!said.contains(SECRET), "{said}");
            if format == "json" {
                let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                let data = object["sources"][0]["data"].as_str().unwrap();
                let data = base64::engine::general_purpose::STANDARD.decode(data);
                assert_eq!(String::from_utf8(data.unwrap()).unwrap(), kept);
            }
        }
    }
}
