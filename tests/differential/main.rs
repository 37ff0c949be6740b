//! Generated builds: random contexts and Dockerfiles over the whole language, from seeds, built by
//! Shutter and by a second builder, or by Shutter in two ways that may make no difference.
//!
//! By itself each test runs a fixed number of seeds, and those of `testdata/differential/seeds.txt`.
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

mod compare;
mod features;
mod generate;
mod laws;
mod random;
mod rivals;
mod script;
mod shrink;
mod tree;
mod words;

use compare::What;
use features::Rival;
use random::Random;
use rivals::Bench;
use script::{Case, Style};
use std::collections::BTreeSet;
use std::path::Path;

/// Where the seeds start that a test takes by itself.
const START: u64 = 1;

#[test]
fn images_are_as_dockerds() {
    if !installed("dockerd", "images_are_as_dockerds") {
        return;
    }
    let bench = Bench::new();
    let docker = rivals::Docker::start(&bench);
    let mut built = 0;
    each_seed("docker", 12, |seed| {
        built += 1;
        if built % 50 == 0 {
            docker.prune();
        }
        let case = generate::case(seed, Rival::Docker);
        let wrong = &mut |case: &Case| {
            bench.lay(case, Style::Plain);
            let own = bench.build(case, "store", &[]);
            compare::outcomes(
                &own,
                &docker.build(&bench, case),
                What::FilesAndConfigButLinks,
            )
        };
        report(&case, wrong)
    });
}

#[test]
fn images_are_as_buildahs() {
    if !installed("buildah", "images_are_as_buildahs") {
        return;
    }
    let bench = Bench::new();
    let buildah = rivals::Buildah::start(&bench);
    each_seed("buildah", 2, |seed| {
        let case = generate::case(seed, Rival::Buildah);
        let wrong = &mut |case: &Case| {
            bench.lay(case, Style::Plain);
            let own = bench.build(case, "store", &[]);
            compare::outcomes(&own, &buildah.build(&bench, case), What::FilesAndConfig)
        };
        report(&case, wrong)
    });
}

#[test]
fn files_are_as_in_a_chroot() {
    let bench = Bench::new();
    each_seed("chroot", 12, |seed| {
        let case = generate::case(seed, Rival::Chroot);
        let wrong = &mut |case: &Case| {
            bench.lay(case, Style::Plain);
            let own = bench.build(case, "store", &[]);
            compare::outcomes(&own, &rivals::in_chroot(&bench, case), What::Files)
        };
        report(&case, wrong)
    });
}

#[test]
fn laws_hold() {
    let bench = Bench::new();
    each_seed("laws", 16, |seed| {
        let case = generate::case(seed, Rival::None);
        let mut random = Random::new(!seed);
        let mut found = Vec::new();
        // Another law for every seed, two for each.
        for n in 0..2 {
            let law = laws::LAWS[(seed as usize + n * 7 + random.below(2)) % laws::LAWS.len()];
            let wrong = &mut |case: &Case| laws::check(law, &bench, case, seed).unwrap_or_default();
            found.extend(
                report(&case, wrong)
                    .into_iter()
                    .map(|why| format!("{law:?}: {why}")),
            );
        }
        found
    });
}

/// Gives what is wrong with a case, made small.
fn report(case: &Case, wrong: &mut dyn FnMut(&Case) -> Vec<String>) -> Vec<String> {
    if std::env::var_os("DIFFERENTIAL_SHOW").is_some() {
        println!(
            "{}\n{}",
            case.dockerfile(Style::Plain),
            tree::shown(&case.tree)
        );
    }
    let mut found = wrong(case);
    if found.is_empty() {
        return found;
    }
    let small = shrink::shrink(case, &mut |case| {
        let now = wrong(case);
        let fails = !now.is_empty();
        if fails {
            found = now;
        }
        fails
    });
    found.push(format!(
        "flags {:?}, .dockerignore {:?}, context {}\n--- Dockerfile\n{}---",
        small.flags(Path::new("SECRET")),
        small.ignore,
        tree::shown(&small.tree),
        small.dockerfile(Style::Plain)
    ));
    found
}

/// Runs a test's seeds: those kept because they found something, then new ones.
fn each_seed(name: &str, usual: u64, mut run: impl FnMut(u64) -> Vec<String>) {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        )
    };
    let (count, start) = (number("DIFFERENTIAL_CASES"), number("DIFFERENTIAL_SEED"));
    let mut seeds = BTreeSet::new();
    if count.is_none() && start.is_none() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/differential/seeds.txt");
        let text = std::fs::read_to_string(file).expect("seeds.txt");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            if words.next() == Some(name) {
                seeds.insert(
                    words
                        .next()
                        .and_then(|seed| seed.parse().ok())
                        .expect("a seed"),
                );
            }
        }
    }
    let start = start.unwrap_or(START);
    seeds.extend(start..start + count.unwrap_or(usual));
    let mut failed = Vec::new();
    for seed in &seeds {
        let found = run(*seed);
        let outcome = if found.is_empty() {
            "same"
        } else {
            "DIFFERENT"
        };
        println!("{name} {seed} {outcome}");
        if !found.is_empty() {
            let found = format!("{name} {seed}:\n  {}", found.join("\n  "));
            println!("{found}");
            failed.push(found);
        }
    }
    println!("{name}: {} cases, {} different", seeds.len(), failed.len());
    assert!(
        failed.is_empty(),
        "{} of {} differ:\n{}",
        failed.len(),
        seeds.len(),
        failed.join("\n")
    );
}

/// Tells whether a rival is there, and says so where it is not.
fn installed(program: &str, test: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&paths)
        .chain(["/usr/sbin".into()])
        .any(|dir| dir.join(program).exists());
    if !there {
        println!("NOT RUN: {test}: `{program}` is not installed");
    }
    there
}
