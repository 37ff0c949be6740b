//! Build checks: each rule with what must and what must not be found.

mod cases;

use cases::CASES;
use proptest::prelude::*;
use shutter::dockerfile;
use shutter::dockerfile::check::{Finding, Rule, masked, wanted};
use shutter::dockerfile::ignore::Ignore;
use shutter::oci::{Config, Image, Platform};
use shutter::plan::{self, Base};
use shutter::request::Request;
use std::path::PathBuf;

/// One Dockerfile and what is found in it: lines (first, last), rule and message.
struct Case {
    text: &'static str,
    found: &'static [(usize, usize, &'static str, &'static str)],
}

const fn case(
    text: &'static str,
    found: &'static [(usize, usize, &'static str, &'static str)],
) -> Case {
    Case { text, found }
}

fn request() -> Request {
    Request {
        platform: "linux/arm64".parse().unwrap(),
        ..Request::local(PathBuf::from("/c"), PathBuf::from("/c/Dockerfile"))
    }
}

/// Gives what the images of the cases bring: `known`, `shell` and `foreign` are known, others not.
fn image(base: &Base, platform: &Platform) -> Option<Image> {
    let Base::Image(name) = base else {
        return None;
    };
    let config = |config| Image {
        config,
        ..Image::scratch(platform)
    };
    match name.as_str() {
        "known" => Some(config(Config {
            env: vec!["FROM_BASE=x".into()],
            ..Config::default()
        })),
        "shell" => Some(config(Config {
            shell: Some(vec!["/bin/bash".into(), "-c".into()]),
            ..Config::default()
        })),
        "triggers" => Some(config(Config {
            on_build: vec!["ENV KEY a".into(), "CMD x".into()],
            ..Config::default()
        })),
        "foreign" => Some(Image::scratch(&"linux/s390x".parse::<Platform>().unwrap())),
        _ => None,
    }
}

fn check(text: &str, request: &Request, ignore: Option<&str>) -> (Vec<Finding>, Option<String>) {
    let dockerfile = dockerfile::parse(text.as_bytes()).expect(text);
    let ignore = ignore.map(|text| Ignore::parse(text.as_bytes()).unwrap());
    let checked = plan::check(&dockerfile, request, &image, ignore.as_ref());
    let options = plan::options(&dockerfile, request).expect(text);
    let (found, _) = wanted(checked.findings, &options, &dockerfile.exceptions);
    (found, checked.error.map(|error| error.message))
}

fn show(found: &[Finding]) -> Vec<(usize, usize, &'static str, String)> {
    let show = |f: &Finding| (f.span.first, f.span.last, f.rule.name(), f.message.clone());
    found.iter().map(show).collect()
}

#[test]
fn every_rule_finds_what_it_should_and_no_more() {
    let mut seen = std::collections::BTreeSet::new();
    for Case { text, found } in CASES.iter().filter(|case| !case.text.is_empty()) {
        let (got, error) = check(text, &request(), None);
        assert_eq!(error, None, "{text}");
        let expected: Vec<_> = found
            .iter()
            .map(|(first, last, rule, message)| (*first, *last, *rule, (*message).to_owned()))
            .collect();
        assert_eq!(show(&got), expected, "{text}");
        seen.extend(found.iter().map(|(_, _, rule, _)| *rule));
    }
    // These want more than a Dockerfile and have tests of their own.
    seen.extend(["CopyIgnoredFile", "InvalidDefaultArgInFrom"]);
    for rule in Rule::ALL {
        assert!(seen.contains(rule.name()), "{rule:?} has no test");
    }
}

#[test]
fn bases_need_a_name_without_build_arguments() {
    let text = "ARG TAG\nARG BASE\nFROM busybox:${TAG} AS Up\nARG X=UP\nFROM $BASE\nFROM ${BASE:-UP}\nFROM ${BASE:-A}\n";
    let request = Request {
        build_args: vec![("TAG".into(), "1".into()), ("BASE".into(), "b".into())],
        ..request()
    };
    let (found, error) = check(text, &request, None);
    assert_eq!(error, None);
    let mut found = show(&found);
    found.retain(|(_, _, rule, _)| *rule == "InvalidDefaultArgInFrom");
    let message = |name: &str| {
        format!("Default value for ARG {name} results in empty or invalid base image name")
    };
    let rule = "InvalidDefaultArgInFrom";
    assert_eq!(
        found,
        [
            (3, 3, rule, message("busybox:${TAG}")),
            (5, 5, rule, message("$BASE")),
            (7, 7, rule, message("${BASE:-A}")),
        ]
    );
}

#[test]
fn copies_of_what_the_ignore_file_leaves_out_are_found() {
    let text = "FROM scratch AS z\nFROM scratch AS a\nENV D=sub\nCOPY sub/a b /x/\nADD ./$D//b /x/\nCOPY --from=z sub /x\n\
                COPY <<sub /x\nsub\nCOPY . /x\nFROM scratch\nCOPY sub /\n";
    let lines = |ignore: &str| {
        let (found, error) = check(text, &request(), Some(ignore));
        assert_eq!(error, None);
        show(&found)
            .into_iter()
            .map(|(line, _, _, message)| (line, message))
            .collect::<Vec<_>>()
    };
    assert_eq!(lines("other\n"), []);
    let message = |verb: &str, file: &str| {
        format!("Attempting to {verb} file \"{file}\" that is excluded by .dockerignore")
    };
    assert_eq!(
        lines("sub\n"),
        [
            (4, message("Copy", "sub/a")),
            (5, message("Add", "sub/b")),
            (11, message("Copy", "sub")),
        ]
    );
    assert_eq!(lines("sub\n!sub/a\n"), [(5, message("Add", "sub/b"))]);
    let found = check(
        "FROM alpine\nCOPY $X /\nCOPY a /\n",
        &request(),
        Some("*\n"),
    )
    .0;
    assert_eq!(found.len(), 1);
    let all = lines("*\n");
    assert_eq!(
        all.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
        [4, 4, 5, 9, 11]
    );
}

#[test]
fn stages_that_are_not_built_are_checked_where_buildkit_does_so() {
    let text = "FROM scratch AS Unused\nMAINTAINER a\nENV a b\nCMD x\nFROM scratch AS used\nENV c d\nFROM used as last\n";
    let lines = |target: Option<&str>| {
        let request = Request {
            target: target.map(str::to_owned),
            ..request()
        };
        let (found, error) = check(text, &request, None);
        assert_eq!(error, None);
        let lines = show(&found)
            .into_iter()
            .map(|(line, _, rule, _)| (line, rule));
        lines.collect::<Vec<_>>()
    };
    let all = [
        (1, "StageNameCasing"),
        (2, "MaintainerDeprecated"),
        (3, "LegacyKeyValueFormat"),
        (4, "JSONArgsRecommended"),
        (6, "LegacyKeyValueFormat"),
        (7, "FromAsCasing"),
    ];
    assert_eq!(lines(None), all);
    let of_text = [all[0], all[1], all[4], all[5]];
    assert_eq!(lines(Some("last")), of_text);
    assert_eq!(lines(Some("used")), of_text);
    assert_eq!(
        lines(Some("unused")),
        [all[0], all[1], all[2], all[3], all[5]]
    );
}

#[test]
fn a_mistake_ends_a_check_with_what_was_found_before() {
    let (found, error) = check(
        "FROM scratch AS A\nCOPY --from=nine a b\nUSER ${x?no}\n",
        &request(),
        None,
    );
    assert_eq!(show(&found).len(), 1);
    assert_eq!(
        error.as_deref(),
        Some("failed to process \"${x?no}\": x: no")
    );
    let target = Request {
        target: Some("nine".into()),
        ..request()
    };
    let (found, error) = check("FROM scratch AS A\n", &target, None);
    assert_eq!(show(&found).len(), 1);
    assert_eq!(
        error.as_deref(),
        Some("target stage \"nine\" could not be found")
    );
}

#[test]
fn the_build_argument_takes_the_place_of_the_directive() {
    let text = "#!/bin/x\n# check=skip=all\nFROM scratch AS A\n";
    let found = |value: Option<&str>| {
        let build_args =
            value.map(|value| ("BUILDKIT_DOCKERFILE_CHECK".to_owned(), value.to_owned()));
        let request = Request {
            build_args: build_args.into_iter().collect(),
            ..request()
        };
        let dockerfile = dockerfile::parse(text.as_bytes()).unwrap();
        plan::options(&dockerfile, &request).map(|_| check(text, &request, None).0.len())
    };
    assert_eq!(found(None), Ok(0));
    assert_eq!(found(Some("")), Ok(1));
    assert_eq!(found(Some("error=true")), Ok(1));
    assert_eq!(found(Some("skip=StageNameCasing")), Ok(0));
    let error = found(Some("nonsense")).unwrap_err();
    assert_eq!(
        (error.span, error.message.as_str()),
        (
            None,
            "build argument BUILDKIT_DOCKERFILE_CHECK: invalid check option \"nonsense\""
        )
    );
    let text = "# syntax=x\n# check=skip=A;leave=B\nFROM scratch\n";
    let dockerfile = dockerfile::parse(text.as_bytes()).unwrap();
    let error = plan::options(&dockerfile, &request()).unwrap_err();
    assert_eq!(error.span.map(|span| span.first), Some(2));
    assert_eq!(
        error.message,
        "failed to parse check options: invalid check option \"leave\""
    );
}

/// Words that Dockerfiles are made of, good ones and bad ones.
const WORDS: &[&str] = &[
    "FROM",
    "from",
    "As",
    "scratch",
    "known",
    "alpine",
    "a",
    "context",
    "--platform=$TARGETPLATFORM",
    "--platform=linux/arm64",
    "ARG",
    "ENV",
    "X",
    "X=$X",
    "TOKEN=x",
    "${X:-$Y}",
    "${X?}",
    "RUN",
    "COPY",
    "<<E",
    "E",
    "CMD",
    "[\"x\"]",
    "LABEL",
    "EXPOSE",
    "80/TCP",
    "1:2",
    "WORKDIR",
    "MAINTAINER",
    "HEALTHCHECK",
    "NONE",
    "ONBUILD",
    "STOPSIGNAL",
    "# check=skip=all",
    "# check=x",
    "#",
    "# escape=`",
    "\\",
    "`",
    "\n",
    "\n",
    "\n",
    "\n\n",
    " ",
    "'",
    "\"",
    "é",
    "\r",
];

proptest! {
    #[test]
    fn any_file_is_checked_within_its_lines(
        words in proptest::collection::vec((proptest::sample::select(WORDS), "[ \n]"), 0..60)
    ) {
        let text: String = words.iter().flat_map(|(word, after)| [*word, after.as_str()]).collect();
        let text = format!("FROM known AS b\n{text}");
        let lines = text.split('\n').count();
        let Ok(dockerfile) = dockerfile::parse(text.as_bytes()) else {
            return Ok(());
        };
        let ignore = Ignore::parse(b"*\n!x").unwrap();
        let checked = plan::check(&dockerfile, &request(), &image, Some(&ignore));
        let spans = checked.findings.iter().map(|f| f.span);
        let spans = spans.chain(checked.unknown).chain(checked.error.and_then(|e| e.span));
        for span in spans {
            prop_assert!(span.first >= 1 && span.first <= span.last && span.last <= lines, "{span:?}");
        }
        let hidden = masked(text.as_bytes());
        prop_assert_eq!(hidden.split('\n').count(), lines);
        let hidden: Vec<&str> = hidden.split('\n').collect();
        for finding in &checked.findings {
            let lines = hidden[finding.span.first - 1..finding.span.last].join("\n");
            let secret = finding.rule == Rule::SecretsUsedInArgOrEnv;
            prop_assert!(!secret || !lines.contains("TOKEN=x"), "{}", lines);
        }
    }
}
