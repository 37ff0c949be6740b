//! Laws that need no second builder: what may not change an image is changed, and the images compared.

use super::compare::{self, What};
use super::listing::Listing;
use super::random::Random;
use super::rivals::{Bench, Made};
use super::script::{Case, From, Stage, Step, Style};
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
}

pub const LAWS: [Law; 13] = [
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
];

/// Tells how a case breaks a law; `None` where the law says nothing of it.
pub fn check(law: Law, bench: &Bench, case: &Case, seed: u64) -> Option<Vec<String>> {
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
            compare::outcomes(
                &first(&[]),
                &plain(&other, "store", &[]),
                What::FilesAndConfig,
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
    })
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

fn same_digest(a: &Made, b: &Made) -> Vec<String> {
    let mut out = same_layers(a, b);
    if let (Ok(a), Ok(b)) = (a, b)
        && (a.manifest != b.manifest || a.image != b.image)
    {
        out.push(format!(
            "the documents differ:\n  {}\n  {}\n  {}\n  {}",
            a.manifest, b.manifest, a.image, b.image
        ));
    }
    out
}

/// The same layers, and the same config where instructions decide it.
fn same_layers(a: &Made, b: &Made) -> Vec<String> {
    let mut out = compare::outcomes(a, b, What::FilesAndConfig);
    if let (Ok(a), Ok(b)) = (a, b) {
        let layers = |image: &Listing| -> Value { image.image["rootfs"]["diff_ids"].clone() };
        if layers(a) != layers(b) {
            out.push(format!(
                "the layers differ: {} and {}",
                layers(a),
                layers(b)
            ));
        }
    }
    out
}
