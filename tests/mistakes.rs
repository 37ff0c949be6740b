//! What somebody sees whose Dockerfile is wrong: the real program's words, the line, and one hint.

use std::path::Path;
use std::process::Command;

/// A Dockerfile (`@` names one of `testdata/parser`), the line that is shown (0 where the mistake is
/// the whole file's), the message, and the hint.
type Case = (&'static str, usize, &'static str, &'static str);

const CASES: &[Case] = &[
    // Files that trip parsers up.
    (
        "@17_slashslash_syntax",
        1,
        "unknown instruction: //syntax=docker/dockerfile:1",
        "a comment begins with #",
    ),
    (
        "@18_shebang",
        5,
        "unknown instruction: b",
        "if the line above goes on here, it must end with \\",
    ),
    (
        "@19_unknown",
        2,
        "unknown instruction: FOO",
        "did you mean FROM?",
    ),
    (
        "@24_heredoc_unterminated",
        2,
        "unterminated heredoc",
        "a line with nothing but EOF ends it",
    ),
    (
        "@29_empty",
        0,
        "file with no instructions",
        "FROM IMAGE is the least that one has",
    ),
    ("@31_dup_flag", 2, "duplicate flag specified: --chown", ""),
    (
        "@32_unknown_flag",
        2,
        "unknown flag: --foo",
        "did you mean --from?",
    ),
    (
        "@37_onbuild_bad",
        2,
        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        "",
    ),
    (
        "@40_escape_dup",
        2,
        "only one escape parser directive can be used",
        "",
    ),
    (
        "@46_from_variants",
        1,
        "invalid name for build stage: \"1bad\", name can't start with a number or contain symbols",
        "",
    ),
    (
        "@47_cr_only",
        1,
        "FROM requires either one or three arguments",
        "lines end here with carriage returns alone; line feeds are wanted",
    ),
    ("@05_run_mounts", 2, "RUN --device is not yet supported", ""),
    (
        "@06_copy_flags",
        2,
        "circular dependency detected on stage: b",
        "a stage takes from stages that stand before it",
    ),
    // What an instruction may be missing.
    (
        "FROM a\nRUN x &&\napt-get install y",
        3,
        "unknown instruction: apt-get",
        "if the line above goes on here, it must end with \\",
    ),
    (
        "# escape=`\nFROM a\nRUN x &&\napt-get install y",
        4,
        "unknown instruction: apt-get",
        "if the line above goes on here, it must end with `",
    ),
    (
        "RUN x\nFROM a",
        1,
        "no build stage in current context",
        "FROM goes before it: only ARG may stand before the first FROM",
    ),
    (
        "ARG A",
        0,
        "dockerfile contains no stages to build",
        "it wants a FROM",
    ),
    (
        "FROM a b",
        1,
        "FROM requires either one or three arguments",
        "write FROM IMAGE, or FROM IMAGE AS NAME",
    ),
    (
        "FROM a\nCOPY x",
        2,
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        "write COPY SOURCE... DESTINATION",
    ),
    (
        "FROM a\nCOPY --chown root a b",
        2,
        "missing a value on flag: --chown",
        "write --chown=VALUE",
    ),
    (
        "FROM a\nCOPY --chwon=root a b",
        2,
        "unknown flag: --chwon",
        "did you mean --chown?",
    ),
    (
        "FROM a\nCOPY --link=yes a b",
        2,
        "expecting boolean value for flag --link, not: yes",
        "true and false are",
    ),
    (
        "FROM a\nENV A",
        2,
        "ENV must have two arguments",
        "write ENV A=VALUE",
    ),
    (
        "FROM a\nENV A=b c",
        2,
        "Syntax error - can't find = in \"c\". Must be of the form: name=value",
        "a value with blanks goes in double quotes",
    ),
    (
        "FROM a\nLABEL",
        2,
        "LABEL requires at least one argument",
        "write LABEL NAME=VALUE",
    ),
    (
        "FROM a\nSHELL bash",
        2,
        "SHELL requires the arguments to be in JSON form",
        "write SHELL [\"/bin/bash\", \"-c\"]",
    ),
    (
        "FROM a\nCMD [\"a\", 1]",
        2,
        "when using JSON array syntax, arrays must be comprised of strings only",
        "put every element in double quotes",
    ),
    (
        "FROM a\nHEALTHCHECK --interval=5 CMD x",
        2,
        "time: missing unit in duration \"5\"",
        "a time is written as in 30s or 1m30s",
    ),
    (
        "FROM a\nRUN --network=bridge x",
        2,
        "invalid network mode \"bridge\"",
        "default, none and host are",
    ),
    (
        "FROM a\nRUN --security=all x",
        2,
        "security \"all\" is not valid",
        "sandbox and insecure are",
    ),
    (
        "FROM a\nRUN --security=insecure x",
        2,
        "RUN --security=insecure is not allowed",
        "`--allow security.insecure` allows it",
    ),
    // What a mount may be missing: those on scratch need nothing to be looked at.
    (
        "FROM scratch\nRUN --mount=type=cahce,target=/x y",
        2,
        "unsupported mount type \"cahce\"",
        "did you mean cache?",
    ),
    (
        "FROM scratch\nRUN --mount=target=/x,from=$Y z",
        2,
        "'from' doesn't support variable expansion, define alias stage instead",
        "",
    ),
    (
        "FROM scratch\nRUN --mount=type=secret z",
        2,
        "invalid secret mount. one of source, target required",
        "write type=secret,id=ID",
    ),
    (
        "FROM scratch\nRUN --mount=type=tmpfs true",
        2,
        "invalid mount target \"/\"",
        "target= is missing",
    ),
    (
        "FROM scratch\nRUN --mount=type=bogus,target=/x y",
        2,
        "unsupported mount type \"bogus\"",
        "bind, cache, secret, ssh and tmpfs are",
    ),
    // What an ONBUILD brings is nowhere in the stage that it fires in.
    (
        "FROM scratch AS b\nONBUILD RUN --mount=type=cahce,target=/x y\nFROM b",
        3,
        "trigger of b, `RUN --mount=type=cahce,target=/x y`: unsupported mount type \"cahce\"",
        "did you mean cache?",
    ),
    (
        "FROM scratch AS b\nONBUILD ENV API_TOKEN=hunter2 ${X:?no}=1\nFROM b",
        3,
        "trigger of b, `ENV API_TOKEN=***`: failed to process \"${X:?no}\": X: no",
        "",
    ),
    // Names and values.
    (
        "FROM $BASE",
        1,
        "base name ($BASE) should not be blank",
        "FROM sees the ARGs before the first FROM: give one a default there, or use --build-arg",
    ),
    (
        "FROM --platform=amd46 scratch",
        1,
        "failed to parse platform amd46: \"amd46\": unknown operating system or architecture",
        "did you mean amd64?",
    ),
    (
        "FROM scratch\nCOPY --from=3 a b",
        2,
        "invalid stage index 3",
        "stages are counted from 0, in the order of their FROMs",
    ),
    (
        "FROM scratch\nCOPY http://h/a b",
        2,
        "source can't be a URL for COPY: http://h/a",
        "ADD fetches URLs",
    ),
    (
        "FROM scratch\nADD --checksum=md5:1 http://h/a b",
        2,
        "invalid checksum digest format: md5:1 (sha256: and 64 hexadecimal digits are wanted)",
        "",
    ),
    // What is wrong with a COPY is known before anything runs.
    (
        "FROM scratch\nRUN x\nCOPY --chmod=u+q a b",
        3,
        "invalid chmod parameter: 'u+q'",
        "octal modes are (644), and symbolic ones (u=rwX,go=rX)",
    ),
    (
        "FROM scratch\nRUN x\nADD --chmod=99999 a b",
        3,
        "invalid chmod parameter: '99999'. it should be octal string and between 0 and 07777",
        "octal modes are (644), and symbolic ones (u=rwX,go=rX)",
    ),
    (
        "FROM scratch\nRUN x\nCOPY [ab /x",
        3,
        "syntax error in pattern: \"[ab\"",
        "",
    ),
    (
        "FROM scratch\nRUN x\nCOPY --parents a/./[ab /x",
        3,
        "syntax error in pattern: \"[ab\"",
        "",
    ),
    (
        "FROM scratch\nRUN x\nCOPY --exclude=[ab c /x",
        3,
        "syntax error in pattern: \"[ab\"",
        "",
    ),
    (
        "FROM scratch\nENV A=\"${B:?say what}\"",
        2,
        "failed to process \"\\\"${B:?say what}\\\"\": B: say what",
        "",
    ),
    (
        "FROM scratch\nENV A=\"b",
        2,
        "failed to process \"\\\"b\": unexpected end of statement while looking for matching double-quote",
        "",
    ),
    (
        "FROM scratch\nEXPOSE 80:90:x",
        2,
        "invalid IP address: 80",
        "",
    ),
    (
        "FROM scratch\nSTOPSIGNAL TERMINATE",
        2,
        "invalid signal: TERMINATE",
        "",
    ),
];

#[test]
fn mistakes_are_told_with_line_and_hint() {
    let dir = tempfile::tempdir().expect("a directory");
    let parser = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/parser");
    let mut failed = Vec::new();
    for (text, line, message, hint) in CASES {
        let text = match text.strip_prefix('@') {
            Some(case) => std::fs::read(parser.join(case)).expect(case),
            None => text.as_bytes().to_vec(),
        };
        std::fs::write(dir.path().join("Dockerfile"), &text).expect("write");
        let output = Command::new(env!("CARGO_BIN_EXE_shutter"))
            .args(["build", "--no-push", "--log-format", "text", "--context"])
            .arg(dir.path())
            .arg("--cache-dir")
            .arg(dir.path().join("store"))
            .current_dir(dir.path())
            .output()
            .expect("run shutter");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said
            .lines()
            .filter(|line| !line.starts_with("WARN"))
            .collect();
        // The place, then the excerpt, then what is wrong.
        let (place, marked, file) = match line {
            0 => (None, None, "Dockerfile: "),
            line => (Some(format!("Dockerfile:{line}")), Some(*line), ""),
        };
        let mut wanted = vec![format!("error: {file}{message}")];
        if !hint.is_empty() {
            wanted.push(format!("hint: {hint}"));
        }
        let row = said.iter().find(|line| line.contains(">>>"));
        let row = row.and_then(|row| row.split('|').next()?.trim().parse().ok());
        let right = said.ends_with(&wanted.iter().map(String::as_str).collect::<Vec<_>>())
            && row == marked
            && place.is_none_or(|place| said.first() == Some(&place.as_str()));
        if !right {
            let text = String::from_utf8_lossy(&text);
            failed.push(format!(
                "{text}\n--- wanted at {line}: {wanted:#?}\n--- got: {said:#?}"
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
