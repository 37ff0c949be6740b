use super::*;
use crate::cli::flags::{Group, find};
use crate::cli::help::help;

fn words(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

fn typed(args: &[&str]) -> Result<Typed, Usage> {
    match parse(Called::Executor, &words(args))? {
        Command::Build(typed) => Ok(*typed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_come_in_every_way_go_takes_them() {
    for args in [
        &["--context", "/x"][..],
        &["--context=/x"],
        &["-c", "/x"],
        &["-c/x"],
        &["-c=/x"],
        &["-c", "/y", "--context=/x"],
    ] {
        let got = typed(args).unwrap();
        assert_eq!(got.context.as_deref(), Some(Path::new("/x")), "{args:?}");
    }
    // Whatever follows is the value.
    let got = typed(&["--build-arg", "--insecure", "--label", "-x=y"]).unwrap();
    assert_eq!(got.build_args, ["--insecure"]);
    assert_eq!(got.labels, ["-x=y"]);
    assert!(!got.insecure);
    let got = typed(&[
        "-d",
        "a",
        "--destination=b",
        "-d=c",
        "--target=x,y",
        "--target",
        "z",
    ])
    .unwrap();
    assert_eq!(got.destinations, ["a", "b", "c"]);
    assert_eq!(got.targets, ["x", "y", "z"]);
    let got = typed(&[
        "--registry-certificate=a=/x",
        "--registry-certificate",
        "b:5000=/y=z",
    ])
    .unwrap();
    assert_eq!(got.registry_certificates["b:5000"], "/y=z");
    assert_eq!(got.registry_certificates.len(), 2);
}

#[test]
fn switches_take_go_truth_values_after_an_equals_sign() {
    for (args, want) in [
        (&["--no-push"][..], true),
        (&["--no-push=true"], true),
        (&["--no-push=T"], true),
        (&["--no-push=1"], true),
        (&["--no-push=false"], false),
        (&["--no-push=F"], false),
        (&["--no-push", "--no-push=0"], false),
        (&[], false),
    ] {
        assert_eq!(typed(args).unwrap().no_push, want, "{args:?}");
    }
    assert_eq!(
        typed(&["--no-push=yes"]).unwrap_err().message,
        "--no-push=yes: true or false is wanted (also t, f, 1, 0)"
    );
    // A truth value in the next word is a word of its own, as in Go.
    assert!(typed(&["--no-push", "false"]).is_err());
}

#[test]
fn deprecated_spellings_work_and_are_noted() {
    let got = typed(&["--tarPath=/x", "--snapshotMode=redo"]).unwrap();
    assert_eq!(got.tar_path.as_deref(), Some(Path::new("/x")));
    assert_eq!(
        got.deprecated,
        [("tarPath", "tar-path"), ("snapshotMode", "snapshot-mode")]
    );
}

#[test]
fn a_path_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let odd = OsStr::from_bytes(b"--context=/\xff");
    let Ok(Command::Build(typed)) = parse(Called::Executor, &[odd.into()]) else {
        panic!("refused");
    };
    assert_eq!(typed.context.unwrap().as_os_str().as_bytes(), b"/\xff");
    let odd = OsStr::from_bytes(b"--label=a=\xff");
    let error = parse(Called::Executor, &[odd.into()]).unwrap_err();
    assert!(
        error.message.contains("--label") && error.message.contains("not UTF-8"),
        "{error}"
    );
}

#[test]
fn no_flag_that_does_nothing_yet_is_taken() {
    for flag in FLAGS {
        let Status::NotYet(unless) = flag.status else {
            continue;
        };
        for name in std::iter::once(&flag.long).chain(flag.aliases) {
            let arg = match flag.takes.is_switch() {
                true => format!("--{name}"),
                false => format!("--{name}=x"),
            };
            let error = typed(&[&arg]).unwrap_err();
            assert_eq!(error.message, format!("flag --{name} is not yet supported"));
        }
        let harmless: &[&str] = if flag.takes.is_switch() {
            &["false", "0"]
        } else {
            unless
        };
        for value in harmless {
            let arg = format!("--{}={value}", flag.long);
            assert_eq!(typed(&[&arg]), Ok(typed(&[]).unwrap()), "{arg}");
        }
    }
}

#[test]
fn flags_without_effect_set_nothing() {
    for flag in FLAGS
        .iter()
        .filter(|flag| matches!(flag.status, Status::Always(_)))
    {
        let values: &[&str] = match flag.takes {
            Takes::NoChoice(choices) => choices,
            _ => &["true", "false"],
        };
        for value in values {
            let arg = format!("--{}={value}", flag.long);
            assert_eq!(typed(&[&arg]), Ok(typed(&[]).unwrap()), "{arg}");
        }
    }
    assert_eq!(
        typed(&["--snapshot-mode=fast"]).unwrap_err().message,
        "--snapshot-mode: `fast` is none of full, redo, time"
    );
}

#[test]
fn every_flag_of_kaniko_is_known() {
    let list = include_str!("../../testdata/kaniko-flags.txt");
    let mut number = 0;
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split(' ').collect();
        let [name, short, takes] = parts[..] else {
            panic!("{line}");
        };
        let flag = find(name).unwrap_or_else(|| panic!("--{name} is unknown"));
        let wanted = (short != "-").then(|| short.chars().next().unwrap());
        assert_eq!(flag.short, wanted, "{name}");
        assert_eq!(flag.takes.is_switch(), takes == "switch", "{name}");
        number += 1;
    }
    assert_eq!(number, 69);
}

#[test]
fn the_table_is_well_formed_and_all_of_it_is_in_the_help() {
    let text = help(Called::Shutter, Verb::Build, 80);
    let check = help(Called::Shutter, Verb::Check, 80);
    let mut seen = std::collections::BTreeSet::new();
    for flag in FLAGS {
        for name in std::iter::once(&flag.long).chain(flag.aliases) {
            assert!(seen.insert((*name).to_owned()), "--{name} is there twice");
        }
        if let Some(short) = flag.short {
            assert!(seen.insert(short.to_string()), "-{short} is there twice");
        }
        let works = flag.status == Status::Works;
        assert_eq!(works, !flag.help.is_empty(), "{}", flag.long);
        assert!(
            !works || flag.takes.is_switch() == flag.value.is_empty(),
            "{}",
            flag.long
        );
        for (verb, text) in [(Verb::Build, &text), (Verb::Check, &check)] {
            // A name may be the start of another one.
            let told = text.contains(&format!("--{} ", flag.long))
                || text.contains(&format!("--{}\n", flag.long))
                || text.contains(&format!("--{},", flag.long));
            assert_eq!(told, flag.is_for(verb), "{verb:?} --{}", flag.long);
        }
        assert!(Group::ALL.iter().any(|(group, _)| *group == flag.group));
    }
    for line in text.lines().chain(check.lines()) {
        assert!(line.len() <= 100, "{line}");
    }
    assert!(text.contains(
        "  -d, --destination IMAGE  (repeatable)\n          Image reference to push to\n"
    ));
    assert!(help(Called::Executor, Verb::Build, 80).contains("  executor [FLAGS]\n"));
}

#[test]
fn a_check_has_the_flags_that_mean_something_for_it() {
    let check = |args: &[&str]| -> Result<Typed, Usage> {
        let mut all = words(&["check"]);
        all.extend(words(args));
        match parse(Called::Shutter, &all)? {
            Command::Check(typed) => Ok(*typed),
            other => panic!("{other:?}"),
        }
    };
    let got = check(&[
        "--format=json",
        "--error",
        "-f",
        "x",
        "--target=t",
        "--build-arg=A=b",
        "dir",
    ])
    .unwrap();
    assert_eq!(got.check_format.as_deref(), Some("json"));
    assert!(got.check_error);
    assert_eq!(got.dockerfile.as_deref(), Some(Path::new("x")));
    assert_eq!(got.positional.as_deref(), Some(Path::new("dir")));
    for (args, message, hint) in [
        (
            &["--destination=x"][..],
            "unknown flag --destination",
            "it is a flag of `shutter build`, which means nothing for a check",
        ),
        (
            &["--formt=x"],
            "unknown flag --formt",
            "did you mean --format?",
        ),
    ] {
        let usage = check(args).unwrap_err();
        assert_eq!(usage.message, message);
        assert_eq!(usage.hint.as_deref(), Some(hint));
    }
    let usage = check(&["--format=yaml"]).unwrap_err();
    assert_eq!(usage.message, "--format: `yaml` is none of text, json");
    // A build has none of them.
    let usage = typed(&["--error"]).unwrap_err();
    assert_eq!(usage.message, "unknown flag --error");
}

#[test]
fn explaining_has_the_flags_of_a_build_and_two_of_its_own() {
    let explain = |args: &[&str]| {
        let mut all = words(&["cache"]);
        all.extend(words(args));
        parse(Called::Shutter, &all)
    };
    let args = ["explain", "--step=3", "--json", "--build-arg=A=b", "dir"];
    let Ok(Command::CacheExplain(got)) = explain(&args) else {
        panic!("{:?}", explain(&args));
    };
    assert_eq!(got.step.as_deref(), Some("3"));
    assert!(got.json);
    assert_eq!(got.build_args, ["A=b"]);
    assert_eq!(got.positional.as_deref(), Some(Path::new("dir")));
    for args in [&["--help"][..], &["explain", "--help"], &["help"]] {
        assert_eq!(explain(args), Ok(Command::Help(Verb::CacheExplain)));
    }
    for (args, message) in [
        (&[][..], "there is no command behind `cache`"),
        (&["ls"], "unknown command `cache ls`"),
        (&["explain", "--format=json"], "unknown flag --format"),
        (&["explain", "--stepp=1"], "unknown flag --stepp"),
    ] {
        assert_eq!(explain(args).unwrap_err().message, message);
    }
    for flag in ["--step=3", "--json"] {
        let name = flag.split('=').next().unwrap_or_default();
        assert_eq!(
            typed(&[flag]).unwrap_err().message,
            format!("unknown flag {name}")
        );
    }
    let text = help(Called::Shutter, Verb::CacheExplain, 80);
    for part in [
        "shutter cache explain [FLAGS] [CONTEXT]",
        "--step STEP",
        "--cache-repo",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn unknown_flags_get_the_nearest_name() {
    for (name, want) in [
        ("destnation", Some("destination")),
        ("dest", Some("destination")),
        ("contxt", Some("context")),
        ("nopush", Some("no-push")),
        ("zzzzzzzz", None),
        ("x", None),
    ] {
        assert_eq!(flags::nearest(name, Verb::Build), want, "{name}");
    }
}
