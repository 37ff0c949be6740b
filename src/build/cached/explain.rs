//! Why a step would be found in the cache or not.

use super::super::kept;
use super::super::wait::lock;
use super::keys::{Chain, content_changes};
use super::places::{Caching, Hit, Hits};
use super::{CONTENT, Common, Ground, Question, Seen, chains, decide, named};
use crate::cache::{Entry, Key, Part, Recipe};
use crate::changeset::{Action, Changeset};
use crate::context::{Context, Origin};
use crate::dockerfile::ast::Span;
use crate::fs::{ContentId, Kind, Node, RelPath};
use crate::oci::Platform;
use crate::plan::{Base, CopyOp, From, Op, Step};
use crate::store::Store;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// What would become of the steps of a build.
#[derive(Debug)]
pub struct Explained {
    /// The places that were asked, near to far; the first is the store.
    pub places: Vec<String>,
    /// When they were asked, in seconds since 1970.
    pub now: i64,
    /// How old an entry may be, in seconds.
    pub ttl: u64,
    /// The steps that change files, stage by stage.
    pub steps: Vec<Told>,
}

/// What would become of one step.
#[derive(Debug)]
pub struct Told {
    /// The number of the stage in the Dockerfile, from 0.
    pub stage: usize,
    /// Its name.
    pub stage_name: String,
    /// The number of the step among all that are told, from 1.
    pub number: usize,
    /// Where it is.
    pub span: Span,
    /// The instruction.
    pub text: String,
    /// Its key, where it is known before anything has run.
    pub key: Option<String>,
    /// What would become of it.
    pub outcome: Outcome,
}

/// What becomes of a step.
#[derive(Debug)]
pub enum Outcome {
    /// It is found, in this one of the places, and was made then.
    Hit(usize, i64),
    /// There is an entry, in this one of the places and made then, that counts only where what a command
    /// before it makes this time is the same as last time: it is looked up once that has run.
    Waits(usize, i64),
    /// It is carried out. The entry of the store that is nearest to it, where there is one.
    Miss(Option<Nearest>),
    /// Its key is not known before what it takes from is there.
    Unknown,
    /// Steps of its kind are not looked up.
    NotLookedUp,
}

/// An entry of the store that is for almost the same step.
#[derive(Debug)]
pub struct Nearest {
    /// Its instruction.
    pub text: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// How the step differs from it. Nothing where it is the step's own, which is too old or whose layer
    /// is gone.
    pub differs: Vec<Difference>,
    /// Which files are not the same, where that can be told, in order of paths.
    pub files: Vec<FileDifference>,
}

/// A part of a key that is not the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The part's name.
    pub part: String,
    /// How it differs.
    pub how: How,
}

/// A file that is not the same.
#[derive(Debug, PartialEq, Eq)]
pub struct FileDifference {
    /// Where the step puts it.
    pub path: RelPath,
    /// How it differs.
    pub how: How,
}

/// How something differs from what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It has another value.
    Other,
    /// It was not there.
    New,
    /// It is no longer there.
    Gone,
}

/// Looks all steps up and says what would become of each. Nothing is run, and no entry written.
pub(in crate::build) fn explain(caching: &Caching, question: &Question<'_>) -> Explained {
    let contexts = named(question.request);
    let ground = Ground {
        plan: question.plan,
        steps: question.steps,
        bases: question.bases,
        context: question.context,
        named: &contexts,
        identify: &|source| question.seen.identify(source),
        scratch: question.scratch,
        cancel: question.cancel,
    };
    let platform = Platform::host();
    let kept = kept::of_the_container(question.request, question.store);
    let common = Common {
        request: question.request,
        clock: question.clock,
        ignored: question.ignored,
        kept: &kept,
        platform: &platform,
    };
    let chains = chains(&ground, &common);
    let keys = decide::keys(question.steps, &chains, &caching.wanted);
    let hits = caching.probe(question.store, &keys);
    let anew = std::collections::BTreeSet::new();
    let found = decide::choose(question, &chains, &caching.wanted, &hits, &anew).found;
    let mut places = vec!["the store".to_owned()];
    places.extend(caching.far.iter().map(|place| place.place.name()));
    let asking = Asking {
        caching,
        question,
        hits: &hits,
        contexts: &contexts,
        entries: OnceCell::new(),
    };
    let mut steps = Vec::new();
    for (place, stage) in question.plan.stages.iter().enumerate() {
        for (at, step) in question.steps[place].iter().enumerate() {
            if matches!(step.op, Op::Config) {
                continue;
            }
            let recipe = recipe_of(&chains, place, at);
            let is_found = found[place].get(at).is_some_and(Option::is_some);
            steps.push(Told {
                stage: stage.index,
                stage_name: stage.name.clone(),
                number: steps.len() + 1,
                span: step.span,
                text: step.text.clone(),
                key: recipe.map(|recipe| recipe.key().hex()),
                outcome: asking.outcome(step, recipe, is_found),
            });
        }
    }
    Explained {
        places,
        now: caching.now,
        ttl: caching.wanted.ttl.as_secs(),
        steps,
    }
}

fn recipe_of(chains: &[Chain], place: usize, step: usize) -> Option<&Recipe> {
    chains.get(place)?.steps.get(step)?.as_ref()
}

struct Asking<'a> {
    caching: &'a Caching,
    question: &'a Question<'a>,
    hits: &'a Hits,
    contexts: &'a BTreeMap<String, Arc<Context>>,
    /// The entries of the store, once somebody wants them.
    entries: OnceCell<Vec<Entry>>,
}

impl Asking<'_> {
    fn outcome(&self, step: &Step, recipe: Option<&Recipe>, is_found: bool) -> Outcome {
        if !decide::is_cached(&step.op, &self.caching.wanted) {
            return Outcome::NotLookedUp;
        }
        let Some(recipe) = recipe else {
            return Outcome::Unknown;
        };
        let place = |hit: &Hit| hit.place.map_or(0, |place| place + 1);
        match self.hits.get(&recipe.key()) {
            Some(hit) if is_found => Outcome::Hit(place(hit), hit.entry.created),
            Some(hit) => Outcome::Waits(place(hit), hit.entry.created),
            None => Outcome::Miss(self.nearest(step, recipe)),
        }
    }

    /// Finds the entry that differs least: of the same instruction, of one that takes the same to the
    /// same place, or of one that stood on the same.
    fn nearest(&self, step: &Step, recipe: &Recipe) -> Option<Nearest> {
        let store = self.question.store;
        let entries = self.entries.get_or_init(|| entries(store));
        let alike = |entry: &&Entry| {
            let same = |name: &str| {
                let own = values(recipe.parts(), name);
                !own.is_empty() && own == values(&entry.parts, name)
            };
            same("kind")
                && (entry.step == step.text
                    || same("argument")
                    || same("destination")
                    || same("parent"))
        };
        let nearest = entries.iter().filter(alike).min_by_key(|entry| {
            let number = differences(recipe.parts(), &entry.parts).len();
            let is_other = entry.step != step.text;
            (number, is_other, std::cmp::Reverse(entry.created))
        })?;
        let differs = differences(recipe.parts(), &nearest.parts);
        let files = match &step.op {
            Op::Copy(copy) if differs.iter().any(|it| it.part == CONTENT) => {
                self.files(copy, nearest).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Some(Nearest {
            text: nearest.step.clone(),
            created: nearest.created,
            differs,
            files,
        })
    }

    /// Compares what a COPY takes with what the layer of an entry has.
    fn files(&self, copy: &CopyOp, entry: &Entry) -> Option<Vec<FileDifference>> {
        let context = match &copy.from {
            From::Context => self.question.context,
            From::Base(Base::Files(name)) => self.contexts.get(name)?,
            From::Base(_) => return None,
        };
        let layer = entry.layer.as_ref()?;
        let toc = self.question.store.toc(&layer.diff_id).ok()??;
        let Question {
            scratch, cancel, ..
        } = self.question;
        let changes = content_changes(copy, &Origin::Context(context), &[], scratch, cancel)?;
        let now = contents(&changes, self.question.seen);
        let mut before: BTreeMap<RelPath, What> = BTreeMap::new();
        for entry in toc.iter() {
            if let Node::Put { meta, content, .. } = entry.node
                && meta.kind != Kind::Dir
            {
                before.insert(entry.path, (content, meta.target));
            }
        }
        let paths: BTreeSet<&RelPath> = now.keys().chain(before.keys()).collect();
        let differs = paths.into_iter().filter_map(|path| {
            let how = match (now.get(path), before.get(path)) {
                (Some(now), Some(before)) if now == before => return None,
                (Some(_), Some(_)) => How::Other,
                (Some(_), None) => How::New,
                (None, _) => How::Gone,
            };
            let path = path.clone();
            Some(FileDifference { path, how })
        });
        Some(differs.collect())
    }
}

/// What is in a file: its content, or its target.
type What = (Option<ContentId>, Vec<u8>);

fn contents(changes: &Changeset, seen: &Seen) -> BTreeMap<RelPath, What> {
    use rayon::prelude::*;
    let found: Mutex<BTreeMap<RelPath, What>> = Mutex::default();
    let mut links: Vec<(&RelPath, &RelPath)> = Vec::new();
    for change in &changes.changes {
        if let Action::Put {
            link: Some(first), ..
        } = &change.action
        {
            links.push((&change.path, first));
        }
    }
    changes.changes.par_iter().for_each(|change| {
        let Action::Put {
            meta, source, link, ..
        } = &change.action
        else {
            return;
        };
        if meta.kind == Kind::Dir || link.is_some() {
            return;
        }
        let content = source
            .as_ref()
            .and_then(|source| seen.identify(source).ok());
        let what = (content, meta.target.clone());
        lock(&found).insert(change.path.clone(), what);
    });
    let mut found = found.into_inner().unwrap_or_default();
    for (path, first) in links {
        if let Some(what) = found.get(first).cloned() {
            found.insert(path.clone(), what);
        }
    }
    found
}

/// Reads all entries of the store, each once. What cannot be read is left out.
fn entries(store: &Store) -> Vec<Entry> {
    let mut out: BTreeMap<(i64, Vec<Key>), Entry> = BTreeMap::new();
    let mut take = |name: &str, bytes: &[u8]| {
        if let Ok(key) = name.parse()
            && let Ok(entry) = Entry::parse(bytes, &key)
        {
            out.insert((entry.created, entry.keys.clone()), entry);
        }
    };
    // Without them there is nothing near.
    let _ = store.look_at_steps(&mut take);
    out.into_values().collect()
}

fn values<'a>(parts: &'a [Part], name: &str) -> Vec<&'a [u8; 32]> {
    let same = parts.iter().filter(|part| part.name == name);
    same.map(|part| &part.value).collect()
}

/// Compares what two keys are made of, in the order of the first.
fn differences(now: &[Part], before: &[Part]) -> Vec<Difference> {
    let mut out: Vec<Difference> = Vec::new();
    for Part { name, .. } in now.iter().chain(before) {
        if out.iter().any(|known| known.part == *name) {
            continue;
        }
        let (is, was) = (values(now, name), values(before, name));
        let how = match (is.is_empty(), was.is_empty()) {
            _ if is == was => continue,
            (false, true) => How::New,
            (true, _) => How::Gone,
            (false, false) => How::Other,
        };
        // A part that is missing is said by its own name.
        let is_told = |other: &Difference| {
            let bare = |name: &str| name.strip_prefix("no ").unwrap_or(name).to_owned();
            bare(&other.part) == bare(name)
        };
        if !out.iter().any(is_told) {
            let part = name.clone();
            out.push(Difference { part, how });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_once() {
        let recipe = |parts: &[(&str, &str)]| {
            let mut recipe = Recipe::default();
            for (name, value) in parts {
                recipe.add(*name, value);
            }
            recipe.parts().to_vec()
        };
        type Parts = &'static [(&'static str, &'static str)];
        type Wanted = &'static [(&'static str, How)];
        let table: [(Parts, Parts, Wanted); 7] = [
            (&[], &[], &[]),
            (&[("x", "1")], &[("x", "1")], &[]),
            (&[("x", "1")], &[("x", "2")], &[("x", How::Other)]),
            (&[("x", "1")], &[], &[("x", How::New)]),
            (&[], &[("x", "1")], &[("x", How::Gone)]),
            (
                &[("x", "1"), ("x", "2")],
                &[("x", "2"), ("x", "1")],
                &[("x", How::Other)],
            ),
            (&[("no x", "")], &[("x", "1")], &[("no x", How::New)]),
        ];
        for (now, before, wanted) in table {
            let got = differences(&recipe(now), &recipe(before));
            let got: Vec<(&str, How)> = got.iter().map(|it| (it.part.as_str(), it.how)).collect();
            assert_eq!(got, wanted, "{now:?} {before:?}");
        }
    }
}
