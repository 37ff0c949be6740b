//! Builds that found something once, made small: `testdata/differential/cases`, a folder each, with
//! the Dockerfile and `case.json`:
//!
//! - `about`: what it was
//! - `rivals`: the tests that run it, of `docker`, `buildah`, `chroot`; none where only laws hold
//! - `laws`: the laws that it is held to
//! - `tree`: the context, as a report shows it (see [`tree::from_json`])
//! - `ignore`, `labels`, `build_args`: as the fields of [`Case`]
//!
//! A Dockerfile is kept as a report shows it: an instruction a line, heredocs apart, and all names of
//! stages, so that laws can take it to pieces as they do with what is generated.

use super::laws::{LAWS, Law};
use super::script::{By, Case, Copy, Form, From, Run, Script, Stage, Step};
use super::tree;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A build that is kept.
pub struct Kept {
    pub name: String,
    pub laws: Vec<Law>,
    pub case: Case,
    rivals: BTreeSet<String>,
}

/// Gives the builds kept for one test; those with laws for `laws`.
pub fn of(test: &str) -> Vec<Kept> {
    let mut all = all();
    all.retain(|kept| match test {
        "laws" => !kept.laws.is_empty(),
        rival => kept.rivals.contains(rival),
    });
    all
}

fn all() -> Vec<Kept> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/differential/cases");
    let entries = std::fs::read_dir(folder).expect("the cases that are kept");
    let mut all: Vec<Kept> = entries
        .map(|entry| read(&entry.expect("an entry").path()))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn read(dir: &Path) -> Kept {
    let name = dir.file_name().expect("a name").to_string_lossy();
    let text = |file: &str| {
        std::fs::read_to_string(dir.join(file)).unwrap_or_else(|e| panic!("{name}/{file}: {e}"))
    };
    let about: Value = serde_json::from_str(&text("case.json")).expect("JSON");
    let words = |key: &str| -> Vec<String> {
        let list = about[key].as_array().into_iter().flatten();
        list.map(|word| word.as_str().expect("a word").to_owned())
            .collect()
    };
    let pairs = |key: &str| -> Vec<(String, String)> {
        let map = about[key].as_object().into_iter().flatten();
        map.map(|(name, value)| (name.clone(), value.as_str().expect("a value").to_owned()))
            .collect()
    };
    let known = |word: &String| {
        let mut laws = LAWS.into_iter();
        laws.find(|law| format!("{law:?}") == *word)
            .unwrap_or_else(|| panic!("{name}: there is no law {word}"))
    };
    let rivals: BTreeSet<String> = words("rivals").into_iter().collect();
    for rival in &rivals {
        let is_known = ["docker", "buildah", "chroot"].contains(&rival.as_str());
        assert!(is_known, "{name}: there is no rival {rival}");
    }
    let kept = Kept {
        laws: words("laws").iter().map(known).collect(),
        case: Case {
            tree: tree::from_json(&about["tree"]),
            ignore: words("ignore"),
            build_args: pairs("build_args"),
            labels: pairs("labels"),
            secret: None,
            target: None,
            script: script(&text("Dockerfile")),
            used: BTreeSet::new(),
        },
        rivals,
        name: name.into_owned(),
    };
    let told = about["about"].as_str().is_some_and(|text| !text.is_empty());
    assert!(told, "{}: what was it?", kept.name);
    let used = !kept.rivals.is_empty() || !kept.laws.is_empty();
    assert!(used, "{}: nothing runs it", kept.name);
    kept
}

fn script(text: &str) -> Script {
    let mut script = Script {
        head: Vec::new(),
        stages: Vec::new(),
    };
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (keyword, rest) = line.split_once(' ').expect("a keyword");
        if keyword == "FROM" {
            let (from, name) = match rest.split_once(" AS ") {
                Some((from, name)) => (from, Some(name.to_owned())),
                None => (rest, None),
            };
            script.stages.push(Stage {
                id: script.stages.len(),
                name,
                from: from_word(from, &script.stages),
                steps: Vec::new(),
            });
            continue;
        }
        let mut rest = rest.to_owned();
        if let Some((_, word)) = line.split_once("<<") {
            let word: String = word.split_whitespace().next().unwrap_or("").into();
            let end = word.trim_start_matches('-').replace(['"', '\''], "");
            for line in lines.by_ref() {
                rest.push('\n');
                rest.push_str(line);
                if line == end {
                    break;
                }
            }
        }
        let Script { head, stages } = &mut script;
        if stages.is_empty() {
            head.push(line.to_owned());
            continue;
        }
        let step = step(keyword, rest, stages);
        stages.last_mut().expect("a stage").steps.push(step);
    }
    script
}

fn step(keyword: &str, rest: String, stages: &[Stage]) -> Step {
    let known = KEYWORDS.into_iter().find(|known| *known == keyword);
    let keyword = known.unwrap_or_else(|| panic!("there is no instruction {keyword}"));
    let words: Vec<&str> = rest.split(' ').collect();
    let count = words
        .iter()
        .take_while(|word| word.starts_with("--"))
        .count();
    let (flags, words) = words.split_at(count);
    // What is quoted, in a list or goes over lines stays text.
    let is_plain = !rest.contains('\n') && !words.first().is_some_and(|word| word.starts_with('['));
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match keyword {
        "ONBUILD" => {
            let (keyword, rest) = rest.split_once(' ').expect("an instruction");
            Step::Trigger(Box::new(step(keyword, rest.to_owned(), stages)))
        }
        "COPY" | "ADD" if is_plain && !rest.contains(['"', '\'', '\\']) => {
            let (dest, sources) = words.split_last().expect("a destination");
            let from = flags.iter().find_map(|flag| flag.strip_prefix("--from="));
            let mut flags = flags.to_vec();
            flags.retain(|flag| !flag.starts_with("--from="));
            Step::Copy(Copy {
                keyword,
                flags: owned(&flags),
                from: from.map(|from| from_word(from, stages)),
                sources: owned(sources),
                dest: (*dest).to_owned(),
                json: false,
                heredocs: Vec::new(),
            })
        }
        "RUN" if is_plain => {
            let (mounts, flags): (Vec<&str>, Vec<&str>) =
                flags.iter().partition(|flag| flag.starts_with("--mount="));
            let mount = |text: &&str| {
                let text = text.trim_start_matches("--mount=");
                let from = text
                    .split(',')
                    .find_map(|field| field.strip_prefix("from="));
                match from {
                    Some(from) => (
                        text.replace(&format!("from={from}"), "from=@"),
                        Some(from_word(from, stages)),
                    ),
                    None => (text.to_owned(), None),
                }
            };
            let command = words.join(" ");
            // Written again with every command.
            let command = command.strip_suffix("; true").unwrap_or(&command);
            Step::Run(Run {
                flags: owned(&flags),
                mounts: mounts.iter().map(mount).collect(),
                form: Form::Shell,
                commands: vec![command.to_owned()],
                here: None,
            })
        }
        keyword => Step::Line(keyword, rest),
    }
}

fn from_word(word: &str, stages: &[Stage]) -> From {
    for image in ["base", "rich", "trigger"] {
        if word == image {
            return From::Image(image);
        }
    }
    if word == "scratch" {
        return From::Scratch;
    }
    if let Some(name) = word
        .strip_prefix("${")
        .and_then(|word| word.strip_suffix('}'))
    {
        return From::Arg(name.to_owned());
    }
    for Stage { id, name, .. } in stages {
        let name = name.as_deref().unwrap_or("");
        let by = match word {
            word if word == id.to_string() => By::Number,
            word if word == name => By::Name,
            word if word == name.to_lowercase() => By::Lower,
            word if word == name.to_uppercase() => By::Upper,
            _ => continue,
        };
        return From::Stage(*id, by);
    }
    panic!("there is no stage {word}");
}

/// What is kept is written again as it was read.
#[test]
fn kept_builds_are_read_whole() {
    for kept in all() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/differential/cases")
            .join(&kept.name)
            .join("Dockerfile");
        let text = std::fs::read_to_string(file).expect("the Dockerfile");
        let written = kept.case.dockerfile(super::script::Style::Plain);
        let is_same = |(a, b): (&str, &str)| a == b || b.strip_suffix("; true") == Some(a);
        let (a, b) = (text.lines(), written.lines());
        assert!(
            text.lines().count() == written.lines().count() && a.zip(b).all(is_same),
            "{}:\n{text}\nis written\n{written}",
            kept.name
        );
        let tree = tree::shown(&kept.case.tree);
        let again = tree::from_json(&serde_json::from_str(&tree).expect("JSON"));
        assert_eq!(again, kept.case.tree, "{}", kept.name);
    }
}
