//! Dockerfiles, and what is found in them.

use crate::{Case, case};

pub const CASES: &[Case] = &[
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
