use super::*;
use std::io;

const DOCKERFILE: &str =
    "FROM debian\n\nRUN make \\\n  all \\\n  install\nCOPY a b\n\nCMD x\nUSER y\n";

fn reported(error: &build::Error) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Dockerfile");
    std::fs::write(&file, DOCKERFILE).unwrap();
    Report::build(error, &file, dir.path())
}

#[test]
fn a_command_that_failed_shows_place_output_and_code() {
    let error = build::Error::Run {
        span: Span { first: 3, last: 5 },
        command: "make \\\n  all install".into(),
        code: 7,
        last: vec!["cc -c x.c".into(), "\u{1b}[31merror\u{1b}[0m: no".into()],
    };
    assert_eq!(
        reported(&error).text(Colours::Drop),
        "\
Dockerfile:3
--------------------
   1 |     FROM debian
   2 |
   3 | >>> RUN make \\
   4 | >>>   all \\
   5 | >>>   install
   6 |     COPY a b
   7 |
--------------------
the last lines of its output:
  | cc -c x.c
  | error: no
error: `make \\ all install` ended with exit code 7
"
    );
    let killed = build::Error::Run {
        span: Span { first: 8, last: 8 },
        command: "x".into(),
        code: 137,
        last: vec![],
    };
    assert_eq!(
        reported(&killed).message,
        "`x` ended with exit code 137 (SIGKILL)"
    );
}

#[test]
fn causes_are_told_once_each() {
    #[derive(Debug, thiserror::Error)]
    #[error("read {path}: {source}")]
    struct Repeats {
        path: &'static str,
        source: io::Error,
    }
    let cause = || Repeats {
        path: "/x",
        source: io::Error::other("disk on fire"),
    };
    let error = build::Error::Step {
        span: Span { first: 6, last: 6 },
        text: "COPY a b".into(),
        source: Box::new(cause()),
        hint: None,
    };
    let report = reported(&error);
    assert_eq!(report.message, "COPY a b: read /x: disk on fire");
    let marked: Vec<usize> = report
        .place
        .unwrap()
        .excerpt
        .iter()
        .filter(|l| l.1 == Mark::Meant)
        .map(|l| l.0)
        .collect();
    assert_eq!(marked, [6]);
    let error = build::Error::Other {
        action: "push x".into(),
        source: Box::new(cause()),
    };
    let report = reported(&error);
    assert_eq!(
        report.text(Colours::Drop),
        "error: push x: read /x: disk on fire\n"
    );
}

#[test]
fn mistakes_in_a_dockerfile_have_their_hint() {
    let error = build::Error::Dockerfile(crate::dockerfile::Error {
        span: Some(Span { first: 9, last: 9 }),
        message: "unknown instruction: USR".into(),
        hint: Some("did you mean USER?".into()),
    });
    let report = reported(&error);
    assert_eq!(
        report.text(Colours::Drop),
        "\
Dockerfile:9
--------------------
   7 |
   8 |     CMD x
   9 | >>> USER y
--------------------
error: unknown instruction: USR
hint: did you mean USER?
"
    );
    let whole = build::Error::Dockerfile(crate::dockerfile::Error {
        span: None,
        message: "file with no instructions".into(),
        hint: None,
    });
    assert_eq!(
        reported(&whole).message,
        "Dockerfile: file with no instructions"
    );
}

#[test]
fn a_report_is_an_object_too() {
    let error = build::Error::Run {
        span: Span { first: 8, last: 8 },
        command: "x".into(),
        code: 3,
        last: vec!["y".into()],
    };
    let report = Report {
        code: Some(3),
        ..reported(&error)
    };
    assert_eq!(
        report.json("T".into()).to_string(),
        "{\"time\":\"T\",\"level\":\"error\",\"msg\":\"`x` ended with exit code 3\",\"file\":\"Dockerfile\",\
         \"line\":8,\"last_line\":8,\"excerpt\":[{\"line\":6,\"meant\":false,\"text\":\"COPY a b\"},\
         {\"line\":7,\"meant\":false,\"text\":\"\"},{\"line\":8,\"meant\":true,\"text\":\"CMD x\"},\
         {\"line\":9,\"meant\":false,\"text\":\"USER y\"}],\"output\":[\"y\"],\"exit_code\":3}"
    );
}

#[test]
fn odd_spans_do_no_harm() {
    for (first, last) in [
        (0, 0),
        (1, 1),
        (9, 10),
        (10, 10),
        (100, 200),
        (5, 2),
        (1, usize::MAX),
        (usize::MAX, usize::MAX),
    ] {
        let error = build::Error::Step {
            span: Span { first, last },
            text: "\u{1b}[2Jx".into(),
            source: "y".into(),
            hint: None,
        };
        let text = reported(&error).text(Colours::Drop);
        assert!(text.ends_with("error: x: y\n"), "{text}");
    }
}

#[test]
fn what_a_registry_refuses_has_its_remedy_as_hint() {
    let refused = || {
        crate::registry::Error::Refused(Box::new(crate::registry::Refused {
            what: "pull h/a:1".into(),
            url: "http://h/v2/a/manifests/1".into(),
            status: 404,
            errors: vec![],
            text: String::new(),
            credentials: String::new(),
            hint: Some("check the name"),
            again: None,
        }))
    };
    let step = |source: build::Error, hint: Option<&str>| build::Error::Step {
        span: Span { first: 6, last: 6 },
        text: "FROM h/a:1".into(),
        source: source.into(),
        hint: hint.map(str::to_owned),
    };
    let other = || build::Error::Other {
        action: "resolve h/a:1".into(),
        source: refused().into(),
    };
    for (error, hint) in [
        (build::Error::Registry(refused()), "check the name"),
        (other(), "check the name"),
        (
            step(build::Error::Registry(refused()), None),
            "check the name",
        ),
        (step(other(), None), "check the name"),
        (step(other(), Some("did you mean a?")), "did you mean a?"),
    ] {
        let report = reported(&error);
        assert_eq!(report.hint.as_deref(), Some(hint), "{error:?}");
        assert!(!report.message.contains("check"), "{}", report.message);
        assert!(report.message.ends_with("answered 404 Not Found"));
    }
}
