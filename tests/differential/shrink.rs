//! Makes a failing case small: leaves out one part after the other while it still fails.

use super::script::{Case, Step};

/// How many builds a reduction may take.
const TRIES: usize = 80;

/// Gives a smaller case that `fails` too.
pub fn shrink(case: &Case, fails: &mut dyn FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut tries = 0;
    loop {
        let before = tries;
        let mut smaller = false;
        for candidate in candidates(&best) {
            if tries >= TRIES {
                return best;
            }
            tries += 1;
            if fails(&candidate) {
                best = candidate;
                smaller = true;
                break;
            }
        }
        if !smaller || tries == before {
            return best;
        }
    }
}

/// Gives the cases with one part less, large parts first.
fn candidates(case: &Case) -> Vec<Case> {
    let mut out = Vec::new();
    let mut edit = |change: &dyn Fn(&mut Case)| {
        let mut next = case.clone();
        change(&mut next);
        out.push(next);
    };
    let stages = &case.script.stages;
    if stages.len() > 1 {
        for (at, stage) in stages.iter().enumerate() {
            if !case.script.is_used(stage.id) && case.target != Some(stage.id) {
                edit(&|case| drop(case.script.stages.remove(at)));
            }
        }
    }
    if case.target.is_some() {
        edit(&|case| case.target = None);
    }
    for (place, stage) in stages.iter().enumerate() {
        for at in (0..stage.steps.len()).rev() {
            edit(&|case| drop(case.script.stages[place].steps.remove(at)));
        }
    }
    if !case.ignore.is_empty() {
        edit(&|case| case.ignore.clear());
        for at in 0..case.ignore.len() {
            edit(&|case| drop(case.ignore.remove(at)));
        }
    }
    for (place, stage) in stages.iter().enumerate() {
        for (at, step) in stage.steps.iter().enumerate() {
            match step {
                Step::Run(run) => {
                    edit(&|case| {
                        if let Step::Run(run) = &mut case.script.stages[place].steps[at] {
                            run.here = None;
                            run.mounts.pop();
                        }
                    });
                    for n in (0..run.commands.len()).rev() {
                        edit(&|case| {
                            if let Step::Run(run) = &mut case.script.stages[place].steps[at] {
                                run.commands.remove(n);
                            }
                        });
                    }
                }
                Step::Copy(copy) => {
                    for n in 0..copy.sources.len() {
                        if copy.sources.len() + copy.heredocs.len() > 1 {
                            edit(&|case| {
                                if let Step::Copy(copy) = &mut case.script.stages[place].steps[at] {
                                    copy.sources.remove(n);
                                }
                            });
                        }
                    }
                    for n in 0..copy.flags.len() {
                        edit(&|case| {
                            if let Step::Copy(copy) = &mut case.script.stages[place].steps[at] {
                                copy.flags.remove(n);
                            }
                        });
                    }
                }
                Step::Line(..) | Step::Trigger(_) => {}
            }
        }
    }
    for at in (0..case.tree.len()).rev() {
        edit(&|case| drop(case.tree.remove(at)));
    }
    for at in 0..case.build_args.len() {
        edit(&|case| drop(case.build_args.remove(at)));
    }
    if !case.labels.is_empty() {
        edit(&|case| case.labels.clear());
    }
    if case.secret.is_some() {
        edit(&|case| case.secret = None);
    }
    for at in 0..case.script.head.len() {
        edit(&|case| drop(case.script.head.remove(at)));
    }
    out
}
