//! Build checks: each rule with what must and what must not be found.

use proptest::prelude::*;
use shutter::dockerfile::check::{Finding, Rule, masked, wanted};
use shutter::dockerfile::ignore::Ignore;
use shutter::dockerfile::{self};
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

const CASES: &[Case] = &[
    // StageNameCasing
    case(
        "FROM scratch AS Base\nFROM scratch AS other-1\nFROM scratch\n",
        &[(
            1,
            1,
            "StageNameCasing",
            "Stage name 'Base' should be lowercase",
        )],
    ),
    // FromAsCasing
    case(
        "\nFROM scratch as a\nFROM scratch AS b\nFROM \\\n scratch As c\n",
        &[
            (
                2,
                2,
                "FromAsCasing",
                "'as' and 'FROM' keywords' casing do not match",
            ),
            (
                4,
                5,
                "FromAsCasing",
                "'As' and 'FROM' keywords' casing do not match",
            ),
        ],
    ),
    case(
        "from scratch AS a\nfrom scratch as b\nfrom scratch\n",
        &[(
            1,
            1,
            "FromAsCasing",
            "'AS' and 'from' keywords' casing do not match",
        )],
    ),
    // A FROM that is neither is another rule's business.
    case(
        "From scratch as a\nFROM scratch AS b\n",
        &[(
            1,
            1,
            "ConsistentInstructionCasing",
            "Command 'From' should match the case of the command majority (uppercase)",
        )],
    ),
    // NoEmptyContinuation: the line that ends the instruction.
    case(
        "FROM scratch\nCOPY a \\\n\n  .\nCOPY a \\\n# a comment\n .\nRUN <<E \\\n\nE\nx\nE\n",
        &[
            (4, 4, "NoEmptyContinuation", "Empty continuation line"),
            (10, 10, "NoEmptyContinuation", "Empty continuation line"),
        ],
    ),
    // ConsistentInstructionCasing
    case(
        "arg V\nFROM scratch\ncopy a /a\nCOPY a /b\nRuN x\nonbuild RUN y\n",
        &[
            (
                3,
                3,
                "ConsistentInstructionCasing",
                "Command 'copy' should match the case of the command majority (uppercase)",
            ),
            (
                5,
                5,
                "ConsistentInstructionCasing",
                "Command 'RuN' should match the case of the command majority (uppercase)",
            ),
            (
                6,
                6,
                "ConsistentInstructionCasing",
                "Command 'onbuild' should match the case of the command majority (uppercase)",
            ),
        ],
    ),
    case(
        "FROM scratch\ncopy a /a\ncopy a /b\n",
        &[(
            1,
            1,
            "ConsistentInstructionCasing",
            "Command 'FROM' should match the case of the command majority (lowercase)",
        )],
    ),
    case("from scratch\ncopy a /a\nonbuild RUN x\n", &[]),
    // DuplicateStageName, ReservedStageName
    case(
        "FROM scratch AS a\nFROM scratch AS b\nFROM scratch AS A\n",
        &[
            (
                3,
                3,
                "StageNameCasing",
                "Stage name 'A' should be lowercase",
            ),
            (
                3,
                3,
                "DuplicateStageName",
                "Duplicate stage name \"a\", stage names should be unique",
            ),
        ],
    ),
    case(
        "FROM alpine AS context\nFROM alpine AS scratch\nFROM alpine AS scratched\n",
        &[
            (
                1,
                1,
                "ReservedStageName",
                "Stage name should not use the same name as reserved stage \"context\"",
            ),
            (
                2,
                2,
                "ReservedStageName",
                "Stage name should not use the same name as reserved stage \"scratch\"",
            ),
        ],
    ),
    // JSONArgsRecommended
    case(
        "FROM alpine\nCMD my-cmd\nFROM alpine\nENTRYPOINT my \\\n cmd\nFROM alpine\nCMD [\"x\"]\nENTRYPOINT [\"y\"]\nRUN z\nHEALTHCHECK CMD z\n",
        &[
            (
                2,
                2,
                "JSONArgsRecommended",
                "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ),
            (
                4,
                5,
                "JSONArgsRecommended",
                "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
            ),
        ],
    ),
    case(
        "FROM alpine AS a\nSHELL [\"bash\", \"-c\"]\nCMD x\nFROM a\nCMD y\nFROM shell\nCMD z\nONBUILD CMD x\n",
        &[],
    ),
    // MaintainerDeprecated
    case(
        "FROM scratch\nMAINTAINER me@example.com\nLABEL org.opencontainers.image.authors=me@example.com\n",
        &[(
            2,
            2,
            "MaintainerDeprecated",
            "Maintainer instruction is deprecated in favor of using label",
        )],
    ),
    // UndefinedArgInFrom
    case(
        "ARG VERSION=1\nARG EMPTY\nFROM node:1${VARIANT} AS a\nFROM node:${VERSIO}1\nFROM node:$VERSION$EMPTY\n\
         FROM --platform=$BUILDPLATFORM a\nFROM --platform=${BUILDPLATFOR:-linux/amd64} alpine\nFROM x:$TARGETARCH\n",
        &[
            (
                3,
                3,
                "UndefinedArgInFrom",
                "FROM argument 'VARIANT' is not declared",
            ),
            (
                4,
                4,
                "UndefinedArgInFrom",
                "FROM argument 'VERSIO' is not declared (did you mean VERSION?)",
            ),
            (
                7,
                7,
                "UndefinedArgInFrom",
                "FROM argument 'BUILDPLATFOR' is not declared (did you mean BUILDPLATFORM?)",
            ),
        ],
    ),
    // WorkdirRelativePath
    case(
        "FROM known AS a\nWORKDIR app\nWORKDIR other\nFROM a\nWORKDIR x\nFROM known\nWORKDIR /abs\nWORKDIR x\n\
         FROM known\nENV D=/d E=e\nWORKDIR $D/x\nFROM known\nENV E=e/../f\nWORKDIR $E\n",
        &[
            (
                2,
                2,
                "WorkdirRelativePath",
                "Relative workdir \"app\" can have unexpected results if the base image changes",
            ),
            (
                14,
                14,
                "WorkdirRelativePath",
                "Relative workdir \"e/../f\" can have unexpected results if the base image changes",
            ),
        ],
    ),
    // UndefinedVar
    case(
        "FROM known AS a\nCOPY $foo .\nARG foo\nCOPY $foo .\nCOPY $foos .\nFROM a\nCOPY $foo $FROM_BASE /x$FROM_BAS/\n\
         ENV PATH=$PAHT:/app P=${PATH}\nRUN echo $nothing\nCMD [\"$nothing\"]\nLABEL l=$nothing m='$quoted' n=\\$escaped\n\
         USER ${nothing:-me}\nEXPOSE $nothing 80\n",
        &[
            (2, 2, "UndefinedVar", "Usage of undefined variable '$foo'"),
            (5, 5, "UndefinedVar", "Usage of undefined variable '$foos'"),
            (
                7,
                7,
                "UndefinedVar",
                "Usage of undefined variable '$FROM_BAS' (did you mean $FROM_BASE?)",
            ),
            (
                8,
                8,
                "UndefinedVar",
                "Usage of undefined variable '$PAHT' (did you mean $PATH?)",
            ),
            (
                11,
                11,
                "UndefinedVar",
                "Usage of undefined variable '$nothing'",
            ),
            (
                12,
                12,
                "UndefinedVar",
                "Usage of undefined variable '$nothing'",
            ),
        ],
    ),
    case(
        "ARG global=1\nFROM scratch\nLABEL a=$global\nARG d=$later\nCOPY <<EOF <<\"RAW\" /x/\n$inside\nEOF\n$raw\nRAW\n\
         ENV a=1 b=$a\nARG global\nLABEL a=$global b=$a\nVOLUME /$vol\nSTOPSIGNAL ${sig:-9}\nLABEL c=$BUILDKIT_SBOM_SCAN_STAGE\n",
        &[
            (
                3,
                3,
                "UndefinedVar",
                "Usage of undefined variable '$global'",
            ),
            (4, 4, "UndefinedVar", "Usage of undefined variable '$later'"),
            (
                5,
                9,
                "UndefinedVar",
                "Usage of undefined variable '$inside'",
            ),
            // A pair sees the variables as they were before the line.
            (
                10,
                10,
                "UndefinedVar",
                "Usage of undefined variable '$a' (did you mean $d?)",
            ),
            (13, 13, "UndefinedVar", "Usage of undefined variable '$vol'"),
            (14, 14, "UndefinedVar", "Usage of undefined variable '$sig'"),
        ],
    ),
    // What an unknown base sets is not missed, and what is made of it is no mistake.
    case(
        "FROM alpine AS a\nCOPY $foo .\nENV PATH=$PAHT:/app\nEXPOSE 80 x$PORT $PORT/UDP\nSTOPSIGNAL $SIG\nENV X=${MUST?}\n\
         WORKDIR $APP\nWORKDIR x\nFROM a\nLABEL a=$MUST\nFROM scratch\nLABEL a=$MUST\n",
        &[(
            12,
            12,
            "UndefinedVar",
            "Usage of undefined variable '$MUST'",
        )],
    ),
    // MultipleInstructionsDisallowed: the one without effect.
    case(
        "FROM scratch AS a\nCMD [\"a\"]\nCMD [\"b\"]\nCMD [\"c\"]\nENTRYPOINT [\"a\"]\nHEALTHCHECK NONE\nENTRYPOINT [\"b\"]\n\
         HEALTHCHECK CMD x\nFROM a\nCMD [\"d\"]\nENTRYPOINT [\"c\"]\n",
        &[
            (
                2,
                2,
                "MultipleInstructionsDisallowed",
                "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            ),
            (
                3,
                3,
                "MultipleInstructionsDisallowed",
                "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            ),
            (
                5,
                5,
                "MultipleInstructionsDisallowed",
                "Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used",
            ),
            (
                6,
                6,
                "MultipleInstructionsDisallowed",
                "Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used",
            ),
        ],
    ),
    // LegacyKeyValueFormat
    case(
        "FROM scratch\nENV DIR /a=b\nENV DIR=/a b=c\nLABEL a \\\n b\nLABEL a=\"b c\"\nENV \"x\"=y\n",
        &[
            (
                2,
                2,
                "LegacyKeyValueFormat",
                "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ),
            (
                4,
                5,
                "LegacyKeyValueFormat",
                "\"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
            ),
        ],
    ),
    // InvalidBaseImagePlatform
    case(
        "FROM foreign\nFROM known\n",
        &[(
            1,
            1,
            "InvalidBaseImagePlatform",
            "Base image foreign was pulled with platform \"linux/s390x\", expected \"linux/arm64\" for current build",
        )],
    ),
    // What is copied from is for the platform of the build, whatever the stage is for.
    case(
        "ARG A=s390x\nFROM --platform=linux/$A scratch\nCOPY --from=foreign a /\nRUN --mount=from=foreign,target=/x --mount=from=known,target=/y z\n",
        &[
            (
                3,
                3,
                "InvalidBaseImagePlatform",
                "Base image foreign was pulled with platform \"linux/s390x\", expected \"linux/arm64\" for current build",
            ),
            (
                4,
                4,
                "InvalidBaseImagePlatform",
                "Base image foreign was pulled with platform \"linux/s390x\", expected \"linux/arm64\" for current build",
            ),
        ],
    ),
    // RedundantTargetPlatform
    case(
        "FROM --platform=$TARGETPLATFORM alpine AS a\nFROM --platform=${TARGETPLATFORM} alpine\nFROM --platform=$BUILDPLATFORM alpine\n\
         FROM --platform=$TARGETPLATFORM$TARGETVARIANT alpine\nFROM --platform=linux/$TARGETARCH alpine\n",
        &[
            (
                1,
                1,
                "RedundantTargetPlatform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            (
                2,
                2,
                "RedundantTargetPlatform",
                "Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior",
            ),
        ],
    ),
    // SecretsUsedInArgOrEnv: names, never values.
    case(
        "ARG AWS_KEY=global\nFROM scratch\nARG AWS_SECRET_ACCESS_KEY=s3cret\nENV A=b TOKEN=s3cret \\\n  PASSWORD=s3cret\nARG MONKEY PUBLIC_KEY\n\
         LABEL TOKEN=x\n",
        &[
            (
                3,
                3,
                "SecretsUsedInArgOrEnv",
                "Do not use ARG or ENV instructions for sensitive data (ARG \"AWS_SECRET_ACCESS_KEY\")",
            ),
            (
                4,
                5,
                "SecretsUsedInArgOrEnv",
                "Do not use ARG or ENV instructions for sensitive data (ENV \"TOKEN\")",
            ),
            (
                4,
                5,
                "SecretsUsedInArgOrEnv",
                "Do not use ARG or ENV instructions for sensitive data (ENV \"PASSWORD\")",
            ),
        ],
    ),
    // InvalidDefaultArgInFrom
    case(
        "ARG TAG\nARG VARIANT\nARG GOOD=latest\nFROM busybox:stable${VARIANT}\nFROM busybox:${GOOD}\nFROM alpine:${TAG:-3.14}\nFROM busybox:${TAG}x\n",
        &[],
    ),
    // FromPlatformFlagConstDisallowed
    case(
        "FROM --platform=linux/amd64 alpine AS base\nFROM --platform=linux/amd64 alpine AS build_amd64\n\
         FROM --platform=linux/arm64 alpine AS on-linux\nFROM --platform=arm64 alpine\nFROM --platform=$BUILDPLATFORM alpine\n",
        &[
            (
                1,
                1,
                "FromPlatformFlagConstDisallowed",
                "FROM --platform flag should not use constant value \"linux/amd64\"",
            ),
            (
                4,
                4,
                "FromPlatformFlagConstDisallowed",
                "FROM --platform flag should not use constant value \"arm64\"",
            ),
        ],
    ),
    // InvalidDefinitionDescription
    case(
        "# check=experimental=all\n\n# not a description\nFROM scratch AS base\n# base is one\nFROM scratch AS Base2\n# base2 is one\nFROM scratch AS base2\n\n\
         # apart\n\nARG A\n# apart\n#\nARG A\n# A is one\nARG A\n# it\nARG A=1\n# more\n# B is one\nARG A B\n# none\nARG A B\n# free\nFROM scratch\n# free\nRUN x\n",
        &[
            (
                4,
                4,
                "InvalidDefinitionDescription",
                "Comment for FROM should follow the format: `# base <description>`",
            ),
            (
                6,
                6,
                "StageNameCasing",
                "Stage name 'Base2' should be lowercase",
            ),
            (
                6,
                6,
                "InvalidDefinitionDescription",
                "Comment for FROM should follow the format: `# base2 <description>`",
            ),
            (
                8,
                8,
                "DuplicateStageName",
                "Duplicate stage name \"base2\", stage names should be unique",
            ),
            (
                19,
                19,
                "InvalidDefinitionDescription",
                "Comment for ARG should follow the format: `# A <description>`",
            ),
            (
                24,
                24,
                "InvalidDefinitionDescription",
                "Comment for ARG should follow the format: `# <arg_key> <description>`",
            ),
        ],
    ),
    case("# not a description\nFROM scratch AS base\n", &[]),
    // ExposeProtoCasing, ExposeInvalidFormat
    case(
        "FROM scratch\nENV P=443/TCP\nEXPOSE 80/TcP 80/tcp 90/udp 100-102\nEXPOSE $P\nEXPOSE 127.0.0.1:80:80 5000:5000/UDP [::1]:1:1\nEXPOSE :80\n",
        &[
            (
                3,
                3,
                "ExposeProtoCasing",
                "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
            ),
            (
                4,
                4,
                "ExposeProtoCasing",
                "Defined protocol '443/TCP' in EXPOSE instruction should be lowercase",
            ),
            (
                5,
                5,
                "ExposeInvalidFormat",
                "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
            ),
            (
                5,
                5,
                "ExposeProtoCasing",
                "Defined protocol '5000:5000/UDP' in EXPOSE instruction should be lowercase",
            ),
            (
                5,
                5,
                "ExposeInvalidFormat",
                "EXPOSE instruction should not define an IP address or host-port mapping, found '5000:5000/UDP'",
            ),
            (
                5,
                5,
                "ExposeInvalidFormat",
                "EXPOSE instruction should not define an IP address or host-port mapping, found '[::1]:1:1'",
            ),
        ],
    ),
    // UnreadFlag
    case(
        "FROM scratch\nSTOPSIGNAL --x=secret 9\nHEALTHCHECK --interval=5s NONE\n",
        &[
            (2, 2, "UnreadFlag", "STOPSIGNAL does not use the flag --x"),
            (
                3,
                3,
                "UnreadFlag",
                "HEALTHCHECK does not use the flag --interval",
            ),
        ],
    ),
    // Triggers count where they fire.
    case(
        "FROM scratch AS a\nONBUILD ENV KEY a\nONBUILD CMD x\nFROM a\nCMD [\"y\"]\nFROM triggers\n",
        &[
            (
                4,
                4,
                "LegacyKeyValueFormat",
                "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ),
            (
                4,
                4,
                "SecretsUsedInArgOrEnv",
                "Do not use ARG or ENV instructions for sensitive data (ENV \"KEY\")",
            ),
            (
                4,
                4,
                "JSONArgsRecommended",
                "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ),
            (
                4,
                4,
                "MultipleInstructionsDisallowed",
                "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            ),
            (
                6,
                6,
                "LegacyKeyValueFormat",
                "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ),
            (
                6,
                6,
                "SecretsUsedInArgOrEnv",
                "Do not use ARG or ENV instructions for sensitive data (ENV \"KEY\")",
            ),
            (
                6,
                6,
                "JSONArgsRecommended",
                "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ),
        ],
    ),
    // The same thing twice in a line is told once.
    case(
        "FROM scratch\nLABEL a=$x b=$x\n",
        &[(2, 2, "UndefinedVar", "Usage of undefined variable '$x'")],
    ),
    case("", &[]),
];

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
