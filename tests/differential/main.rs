//! Generated builds: random contexts and Dockerfiles over the whole language, from seeds, built by
//! Shutter and by a second builder, or by Shutter in two ways that may make no difference.
//!
//! By itself each test runs the builds kept in `testdata/differential/cases`, which found something
//! once, and a fixed number of seeds. A seed means another build whenever the generator changes, so
//! what is found is kept made small, as a report shows it.
//!
//! With variables it runs as many as wanted:
//!
//! - `DIFFERENTIAL_CASES=1000`: so many cases in each test
//! - `DIFFERENTIAL_SEED=5000`: starting from this seed
//!
//! so that `DIFFERENTIAL_SEED=17 DIFFERENTIAL_CASES=1 cargo test --test differential NAME` repeats
//! one. A case that fails is made smaller before it is shown. A rival that is not installed is said
//! with a line that begins with `NOT RUN`.

#[path = "../common/base.rs"]
mod base;
#[path = "../common/dockerd.rs"]
mod dockerd;
#[path = "../common/listing.rs"]
mod listing;
#[path = "../common/skip.rs"]
mod skip;

mod compare;
mod features;
mod generate;
mod kept;
mod laws;
mod random;
mod rivals;
mod script;
mod shrink;
mod tree;
mod words;

use compare::{Verdict, What};
use features::Rival;
use laws::Law;
use random::Random;
use rivals::Bench;
use script::{Case, Style};
use std::path::Path;

/// Where the seeds start that a test takes by itself.
const START: u64 = 1;

/// How many comparisons of a hundred may be of two builds that fail.
const MOST_FAILING: usize = 33;

/// Where a case comes from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    Seed(u64),
    Kept(&'a [Law]),
}

#[test]
fn images_are_as_dockerds() {
    if !installed("dockerd", "images_are_as_dockerds") {
        return;
    }
    let bench = Bench::new();
    let docker = rivals::Docker::start(&bench);
    let mut built = 0;
    each("docker", Rival::Docker, 12, |case, _| {
        built += 1;
        if built % 50 == 0 {
            docker.prune();
        }
        let wrong = &mut |case: &Case| {
            bench.lay(case, Style::Plain);
            let own = bench.build(case, "store", &[]);
            compare::outcomes(
                &own,
                &docker.build(&bench, case),
                What::FilesAndConfigButLinks,
            )
        };
        vec![report(case, wrong)]
    });
}

#[test]
fn images_are_as_buildahs() {
    if !installed("buildah", "images_are_as_buildahs") {
        return;
    }
    let bench = Bench::new();
    let buildah = rivals::Buildah::start(&bench);
    each("buildah", Rival::Buildah, 2, |case, _| {
        let wrong = &mut |case: &Case| {
            bench.lay(case, Style::Plain);
            let own = bench.build(case, "store", &[]);
            compare::outcomes(&own, &buildah.build(&bench, case), What::FilesAndConfig)
        };
        vec![report(case, wrong)]
    });
}

#[test]
fn files_are_as_in_a_chroot() {
    let bench = Bench::new();
    each("chroot", Rival::Chroot, 12, |case, _| {
        let wrong = &mut |case: &Case| {
            bench.lay(case, Style::Plain);
            let own = bench.build(case, "store", &[]);
            compare::outcomes(&own, &rivals::in_chroot(&bench, case), What::Files)
        };
        vec![report(case, wrong)]
    });
}

#[test]
fn laws_hold() {
    let bench = Bench::new();
    each("laws", Rival::None, 16, |case, origin| {
        let (laws, seed) = match origin {
            Origin::Kept(laws) => (laws.to_vec(), 0),
            Origin::Seed(seed) => {
                let mut random = Random::new(!seed);
                // Another law for every seed, two for each.
                let law = |n: usize| {
                    laws::LAWS[(seed as usize + n * 7 + random.below(2)) % laws::LAWS.len()]
                };
                ((0..2).map(law).collect(), seed)
            }
        };
        let mut found = Vec::new();
        for law in laws {
            let mut said = false;
            let wrong = &mut |case: &Case| {
                let verdict = laws::check(law, &bench, case, seed);
                said |= verdict.is_some();
                verdict.unwrap_or_default()
            };
            let mut verdict = report(case, wrong);
            for why in &mut verdict.wrong {
                *why = format!("{law:?}: {why}");
            }
            if said {
                found.push(verdict);
            } else if let Origin::Kept(_) = origin {
                verdict.wrong.push(format!("{law:?} says nothing of it"));
                found.push(verdict);
            }
        }
        found
    });
}

/// Gives what is wrong with a case, made small.
fn report(case: &Case, wrong: &mut dyn FnMut(&Case) -> Verdict) -> Verdict {
    if std::env::var_os("DIFFERENTIAL_SHOW").is_some() {
        println!(
            "{}\n{}",
            case.dockerfile(Style::Plain),
            tree::shown(&case.tree)
        );
    }
    let mut found = wrong(case);
    if found.wrong.is_empty() {
        return found;
    }
    let small = shrink::shrink(case, &mut |case| {
        let now = wrong(case);
        let fails = !now.wrong.is_empty();
        if fails {
            found = now;
        }
        fails
    });
    found.wrong.push(format!(
        "flags {:?}, .dockerignore {:?}, context\n{}\n--- Dockerfile\n{}---",
        small.flags(Path::new("SECRET")),
        small.ignore,
        tree::shown(&small.tree),
        small.dockerfile(Style::Plain)
    ));
    found
}

/// Runs a test's cases: those kept because they found something, then those of seeds.
fn each(
    name: &str,
    rival: Rival,
    usual: u64,
    mut run: impl FnMut(&Case, Origin<'_>) -> Vec<Verdict>,
) {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        )
    };
    let (count, start) = (number("DIFFERENTIAL_CASES"), number("DIFFERENTIAL_SEED"));
    let mut tally = Tally::default();
    if count.is_none() && start.is_none() {
        for kept in kept::of(name) {
            tally.count(name, &kept.name, run(&kept.case, Origin::Kept(&kept.laws)));
        }
    }
    let start = start.unwrap_or(START);
    for seed in start..start + count.unwrap_or(usual) {
        let case = generate::case(seed, rival);
        tally.count(name, &seed.to_string(), run(&case, Origin::Seed(seed)));
    }
    tally.end(name);
}

/// What the comparisons of a test have said.
#[derive(Default)]
struct Tally {
    cases: usize,
    compared: usize,
    both_fail: usize,
    failed: Vec<String>,
}

impl Tally {
    fn count(&mut self, name: &str, case: &str, verdicts: Vec<Verdict>) {
        self.cases += 1;
        self.compared += verdicts.len();
        self.both_fail += verdicts.iter().filter(|verdict| verdict.both_fail).count();
        let found: Vec<String> = verdicts
            .into_iter()
            .flat_map(|verdict| verdict.wrong)
            .collect();
        let outcome = if found.is_empty() {
            "same"
        } else {
            "DIFFERENT"
        };
        println!("{name} {case} {outcome}");
        if !found.is_empty() {
            let found = format!("{name} {case}:\n  {}", found.join("\n  "));
            println!("{found}");
            self.failed.push(found);
        }
    }

    fn end(self, name: &str) {
        let Tally {
            cases,
            compared,
            both_fail,
            failed,
        } = self;
        let share = 100 * both_fail / compared.max(1);
        println!(
            "{name}: {cases} cases, {} different; of {compared} comparisons {both_fail} ({share} %) \
             have no image on either side",
            failed.len()
        );
        assert!(
            failed.is_empty(),
            "{} of {cases} differ:\n{}",
            failed.len(),
            failed.join("\n")
        );
        // A few say nothing of the share.
        assert!(
            compared < 9 || share <= MOST_FAILING,
            "{share} % of the comparisons have no image on either side: what is compared then?"
        );
    }
}

/// Tells whether a rival is there, and says so where it is not.
fn installed(program: &str, test: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&paths)
        .chain(["/usr/sbin".into()])
        .any(|dir| dir.join(program).exists());
    if !there {
        skip::not_run(test, &format!("`{program}` is not installed"));
    }
    there
}
