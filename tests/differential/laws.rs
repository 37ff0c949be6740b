//! Laws that need no second builder: what may not change an image is changed, and the images compared.

use super::compare::{self, Verdict, What};
use super::listing::Listing;
use super::random::Random;
use super::rivals::{Bench, Made};
use super::script::{By, Case, From, Script, Stage, Step, Style};
use super::tree::{self, Entry};
use serde_json::Value;

/// One law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Built twice, the second time on a store that has everything or nothing: the same digest.
    Again,
    /// On one thread and on seven: the same digest.
    Threads,
    /// In one layer: the same files.
    SingleSnapshot,
    /// zstd in place of gzip, and another level: the same diff IDs.
    Compression,
    /// Docker's media types in place of OCI's: the same files and config.
    Format,
    /// Comments, blank lines, continued lines, keywords in small letters: the same layers.
    Style,
    /// Lines that end in CR LF: the same layers.
    Windows,
    /// Stages by other names: the same layers.
    Rename,
    /// One more stage that nothing needs: the same layers.
    Unreachable,
    /// COPY of several sources as several COPYs: the same files.
    Split,
    /// One more file in the context that .dockerignore names: the same layers.
    Ignored,
    /// A default of ARG given with the call: the same layers.
    BuildArg,
    /// `--target` of a stage, and a Dockerfile that ends there: the same layers.
    Target,
    /// `--exclude` of patterns, and the same in .dockerignore: the same files.
    Exclude,
    /// `--parents` of some files: what COPY of the whole context has of them and above them.
    Parents,
    /// A copy by hand of what a bind mount shows: the same files as by COPY.
    Bind,
    /// COPY from the context, and COPY from a stage that has copied it whole: the same files.
    Through,
    /// A stage cut in two, the second starting from the first: the same layers.
    Cut,
    /// A RUN that does nothing: the same files.
    Nothing,
}

pub const LAWS: [Law; 19] = [
    Law::Again,
    Law::Threads,
    Law::SingleSnapshot,
    Law::Compression,
    Law::Format,
    Law::Style,
    Law::Windows,
    Law::Rename,
    Law::Unreachable,
    Law::Split,
    Law::Ignored,
    Law::BuildArg,
    Law::Target,
    Law::Exclude,
    Law::Parents,
    Law::Bind,
    Law::Through,
    Law::Cut,
    Law::Nothing,
];

/// Tells how a case breaks a law; `None` where the law says nothing of it.
pub fn check(law: Law, bench: &Bench, case: &Case, seed: u64) -> Option<Verdict> {
    let mut random = Random::new(seed ^ 0x1a3);
    const SAME: &[&str] = &["--reproducible"];
    let plain = |case: &Case, store: &str, flags: &[&str]| -> Made {
        bench.lay(case, Style::Plain);
        bench.build(case, store, flags)
    };
    let first = |flags: &[&str]| plain(case, "store", flags);
    Some(match law {
        Law::Again => {
            let fresh = format!("store-{seed}");
            let a = plain(case, &fresh, SAME);
            let b = plain(case, &fresh, SAME);
            let _ = std::fs::remove_dir_all(bench.path(&fresh));
            same_digest(&a, &b)
        }
        Law::Threads => {
            let count = ["1", "2", "7"];
            let (a, b) = (*random.one(&count), *random.one(&count));
            let a = first(&["--reproducible", "--threads", a]);
            same_digest(
                &a,
                &plain(case, "store", &["--reproducible", "--threads", b]),
            )
        }
        Law::SingleSnapshot => compare::outcomes(
            &first(&[]),
            &first(&["--single-snapshot"]),
            What::FilesAndConfig,
        ),
        Law::Compression => {
            let level = random.pick(&["1", "6", "19"]);
            let zstd = [
                "--reproducible",
                "--compression",
                "zstd",
                "--compression-level",
                level,
            ];
            let gzip = [
                "--reproducible",
                "--image-format",
                "oci",
                "--compression-level",
                "9",
            ];
            same_layers(&first(&gzip), &first(&zstd))
        }
        Law::Format => {
            let a = first(&["--reproducible", "--image-format", "docker"]);
            same_layers(&a, &first(&["--reproducible", "--image-format", "oci"]))
        }
        Law::Style => {
            let a = first(SAME);
            bench.lay(case, Style::Varied(Random::new(seed)));
            same_layers(&a, &bench.build(case, "store", SAME))
        }
        Law::Windows => {
            // A heredoc's body keeps its line ends.
            if case.dockerfile(Style::Plain).contains("<<") {
                return None;
            }
            let a = first(SAME);
            bench.lay(case, Style::Windows);
            same_layers(&a, &bench.build(case, "store", SAME))
        }
        Law::Rename => {
            let mut other = case.clone();
            for stage in &mut other.script.stages {
                stage.name = match &stage.name {
                    Some(name) => Some(format!("other-{}", name.to_lowercase())),
                    None if random.chance(50) => Some(format!("new{}", stage.id)),
                    None => None,
                };
            }
            same_layers(&first(SAME), &plain(&other, "store", SAME))
        }
        Law::Unreachable => {
            let mut other = case.clone();
            let steps = [
                "RUN exit 1",
                "COPY no-such-file /",
                "ADD nothing /",
                "COPY --from=base /none /",
            ];
            let stage = Stage {
                id: 99,
                name: Some("nobody".into()),
                from: From::Image("base"),
                steps: steps
                    .iter()
                    .map(|line| {
                        let (keyword, rest) = line.split_once(' ').expect("a keyword");
                        Step::Line(keyword, rest.into())
                    })
                    .collect(),
            };
            let at = random.below(other.script.stages.len());
            other.script.stages.insert(at, stage);
            same_layers(&first(SAME), &plain(&other, "store", SAME))
        }
        Law::Split => {
            let mut other = case.clone();
            for stage in &mut other.script.stages {
                let steps = std::mem::take(&mut stage.steps);
                stage.steps = steps.into_iter().flat_map(split).collect();
            }
            if count(&other) == count(case) {
                return None;
            }
            // A file that is put twice is another one the second time within one instruction; in a
            // step of its own it equals what is there, and stays that.
            compare::outcomes(
                &first(&[]),
                &plain(&other, "store", &[]),
                What::FilesAndConfigButLinks,
            )
        }
        Law::Ignored => {
            let mut base = case.clone();
            base.ignore.push("zz-ignored".into());
            let mut other = base.clone();
            let content = tree::What::File(0o600, b"never seen".to_vec());
            other.tree.push(Entry {
                path: "zz-ignored".into(),
                what: content,
            });
            same_layers(&plain(&base, "store", SAME), &plain(&other, "store", SAME))
        }
        Law::BuildArg => {
            let mut other = case.clone();
            let mut value = None;
            for stage in &mut other.script.stages {
                for step in &mut stage.steps {
                    if let Step::Line("ARG", text) = step
                        && let Some(("C", default)) = text.split_once('=')
                        && default.chars().all(char::is_alphanumeric)
                        && value.as_ref().is_none_or(|value| value == default)
                    {
                        value = Some(default.to_owned());
                        *text = "C".into();
                    }
                }
            }
            if case.build_args.iter().any(|(name, _)| name == "C") {
                return None;
            }
            other.build_args.push(("C".into(), value?));
            same_layers(&first(SAME), &plain(&other, "store", SAME))
        }
        Law::Target => {
            if case.script.stages.len() < 2 || case.target.is_some() {
                return None;
            }
            let at = random.below(case.script.stages.len() - 1);
            let (mut whole, mut cut) = (case.clone(), case.clone());
            whole.target = Some(case.script.stages[at].id);
            cut.script.stages.truncate(at + 1);
            same_layers(&plain(&whole, "store", SAME), &plain(&cut, "store", SAME))
        }
        Law::Exclude => {
            let own = [".dockerignore".to_owned()];
            let odd = |line: &&String| {
                !line.trim().is_empty()
                    && !line.contains(['#', '"', ' '])
                    && !line.starts_with(['/', '!'])
                    && !line.starts_with("./")
            };
            let lines: Vec<String> = case
                .ignore
                .iter()
                .filter(odd)
                .chain(&own)
                .cloned()
                .collect();
            let flags: Vec<String> = lines
                .iter()
                .map(|line| format!("--exclude={line}"))
                .collect();
            let mut excluded = probe(case, &[&format!("COPY {} . /all/", flags.join(" "))]);
            excluded.ignore.clear();
            let mut ignored = probe(case, &["COPY . /all/"]);
            ignored.ignore = lines;
            let (a, b) = (
                plain(&excluded, "store", &[]),
                plain(&ignored, "store", &[]),
            );
            compare::outcomes(&a, &b, What::Files)
        }
        Law::Parents => {
            let is_plain = |path: &&str| {
                path.chars()
                    .all(|c| c.is_alphanumeric() || "./_".contains(c))
            };
            let files: Vec<&str> = case
                .tree
                .iter()
                .filter(|entry| !matches!(entry.what, tree::What::Dir(_) | tree::What::Hard(_)))
                .map(|entry| entry.path.as_str())
                .filter(is_plain)
                .collect();
            if files.is_empty() {
                return None;
            }
            let chosen: Vec<&str> = (0..3).map(|_| *random.one(&files)).collect();
            let mut some = probe(
                case,
                &[&format!("COPY --parents {} /all/", chosen.join(" "))],
            );
            let mut all = probe(case, &["COPY . /all/"]);
            some.ignore.clear();
            all.ignore.clear();
            let (mut some, mut all) = (plain(&some, "store", &[]), plain(&all, "store", &[]));
            if let Ok(all) = &mut all {
                all.files.retain(|path, _| {
                    let path = String::from_utf8_lossy(path).into_owned();
                    let below = path.strip_prefix("all/").unwrap_or("");
                    chosen
                        .iter()
                        .any(|file| *file == below || file.starts_with(&format!("{below}/")))
                        || path == "all"
                });
            }
            without_links(&mut some);
            without_links(&mut all);
            compare::outcomes(&some, &all, What::Files)
        }
        Law::Bind => {
            let source = *random.one(&["dir", "dir/sub", "empty", "."]);
            let copied = probe(case, &[&format!("COPY {source} /all/")]);
            let by_hand = format!(
                "RUN --mount=type=bind,source={source},target=/bound cp -a /bound /all && chmod 755 /all"
            );
            let mut by_hand = probe(case, &[&by_hand]);
            by_hand.script.stages[0].from = From::Image("base");
            let (mut a, mut b) = (plain(&copied, "store", &[]), plain(&by_hand, "store", &[]));
            for made in [&mut a, &mut b] {
                // The directory itself is new in one and a copy in the other; links are cp's matter.
                without_links(made);
                if let Ok(made) = made {
                    made.files.retain(|path, _| path.starts_with(b"all/"));
                }
            }
            compare::outcomes(&a, &b, What::Files)
        }
        Law::Through => {
            let source = *random.one(&["dir", "dir/sub", "empty", "file", "dir/*", "d*", "*"]);
            let direct = probe(case, &[&format!("COPY {source} /all/")]);
            let mut through = probe(case, &[&format!("COPY --from=0 /{source} /all/")]);
            let mut first = probe(case, &["COPY . /"]).script.stages.remove(0);
            first.id = 7;
            through.script.stages.insert(0, first);
            let (a, b) = (plain(&direct, "store", &[]), plain(&through, "store", &[]));
            compare::outcomes(&a, &b, What::Files)
        }
        Law::Cut => {
            let place = random.below(case.script.stages.len());
            let stage = &case.script.stages[place];
            let has = |keyword: &str| {
                let mut lines = stage.steps.iter();
                lines.any(|step| matches!(step, Step::Line(other, _) if *other == keyword))
            };
            let triggers = stage
                .steps
                .iter()
                .any(|step| matches!(step, Step::Trigger(_)));
            // An ENTRYPOINT forgets the CMD of a base, and triggers fire in between.
            if stage.steps.len() < 2 || triggers || (has("CMD") && has("ENTRYPOINT")) {
                return None;
            }
            let at = random.between(1, stage.steps.len() - 1);
            let mut other = case.clone();
            let second = &mut other.script.stages[place];
            let steps = second.steps.split_off(at);
            let half = Stage {
                id: 98,
                name: Some("first-half".into()),
                from: std::mem::replace(&mut second.from, From::Stage(98, By::Lower)),
                steps: std::mem::replace(&mut second.steps, steps),
            };
            other.script.stages.insert(place, half);
            same_layers(&first(SAME), &plain(&other, "store", SAME))
        }
        Law::Nothing => {
            let mut other = case.clone();
            let full =
                |stage: &&mut Stage| stage.steps.iter().any(|step| matches!(step, Step::Run(_)));
            let stage = other.script.stages.iter_mut().rev().find(full)?;
            let is_run = |step: &Step| matches!(step, Step::Run(_));
            let at = stage.steps.iter().position(is_run)?;
            stage.steps.insert(at, Step::Line("RUN", "true".into()));
            compare::outcomes(
                &first(SAME),
                &plain(&other, "store", SAME),
                What::FilesAndConfig,
            )
        }
    })
}

/// Forgets which names are one file.
fn without_links(made: &mut Made) {
    let files = made.iter_mut().flat_map(|made| made.files.values_mut());
    for file in files.filter_map(Value::as_object_mut) {
        file.remove("hard_links");
    }
}

/// Gives a build on nothing, with the context of a case and a few instructions.
fn probe(case: &Case, lines: &[&str]) -> Case {
    let steps = lines.iter().map(|line| {
        let (keyword, rest) = line.split_once(' ').expect("a keyword");
        let keyword = if keyword == "RUN" { "RUN" } else { "COPY" };
        Step::Line(keyword, rest.into())
    });
    let stage = Stage {
        id: 0,
        name: None,
        from: From::Scratch,
        steps: steps.collect(),
    };
    Case {
        script: Script {
            head: Vec::new(),
            stages: vec![stage],
        },
        build_args: Vec::new(),
        target: None,
        ..case.clone()
    }
}

fn count(case: &Case) -> usize {
    case.script
        .stages
        .iter()
        .map(|stage| stage.steps.len())
        .sum()
}

/// Cuts a COPY of several sources into one COPY each.
fn split(step: Step) -> Vec<Step> {
    match step {
        Step::Copy(copy) if copy.sources.len() > 1 && copy.heredocs.is_empty() => copy
            .sources
            .iter()
            .map(|source| {
                let mut one = copy.clone();
                one.sources = vec![source.clone()];
                Step::Copy(one)
            })
            .collect(),
        step => vec![step],
    }
}

fn same_digest(a: &Made, b: &Made) -> Verdict {
    let mut out = same_layers(a, b);
    if let (Ok(a), Ok(b)) = (a, b)
        && (a.manifest != b.manifest || a.image != b.image)
    {
        out.wrong.push(format!(
            "the documents differ:\n  {}\n  {}\n  {}\n  {}",
            a.manifest, b.manifest, a.image, b.image
        ));
    }
    out
}

/// The same layers, and the same config where instructions decide it.
fn same_layers(a: &Made, b: &Made) -> Verdict {
    let mut out = compare::outcomes(a, b, What::FilesAndConfig);
    if let (Ok(a), Ok(b)) = (a, b) {
        let layers = |image: &Listing| -> Value { image.image["rootfs"]["diff_ids"].clone() };
        if layers(a) != layers(b) {
            out.wrong.push(format!(
                "the layers differ: {} and {}",
                layers(a),
                layers(b)
            ));
        }
    }
    out
}
