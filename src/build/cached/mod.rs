//! What of a build is found in the cache instead of made.
//!
//! Before anything runs the keys of all steps of all stages are known (`keys`) and looked up at once
//! (`places`); what is found decides which stages are wanted at all, and of which the files are
//! (`decide`). A layer that was found is fetched only where a command or a copy reads its files
//! (`held`). A step that was not found is looked up once more when its turn comes, by the content that
//! is really below it. Caches of commands go the same ways (`mounts`). `explain` says what would be
//! found, without a build.

mod decide;
mod explain;
mod held;
mod keys;
mod mounts;
mod places;
mod recipe;
mod seen;
mod write;

pub(super) use decide::{Decision, Found, Needs, decide, is_cached};
pub(super) use explain::explain;
pub use explain::{Difference, Explained, FileDifference, How, Nearest, Outcome, Told};
pub(super) use held::{Held, is_hidden};
pub(super) use keys::{Chain, Ground, chains, content, of_image, without_pinned};
pub(super) use mounts::{AllUsed, Used};
pub(super) use places::{Caching, Hit};
pub(super) use recipe::{CONTENT, Common, Known, recipe, takes};
pub(super) use seen::Seen;
pub(super) use write::{Job, Made, Writer, entry};

use super::base::{self, Key as BaseKey};
use super::resolve::Bases;
use super::wait::lock;
use super::{Clock, Error, Shared, deliver};
use crate::cache::{
    Access, InLayout, InObjects, InRegistry, IndexRead, Known as KnownPlace, Place,
};
use crate::context::Context;
use crate::fs::{Content, LayerView, RelPath, Toc, Tree};
use crate::net::{Client, Retry, Settings, SystemRoots};
use crate::oci::{Digest, Platform, Reference};
use crate::plan::{Plan, Step};
use crate::progress::{Level, Sink};
use crate::registry::Registry;
use crate::request::{CachePlace, ContextSource, NamedContext, Request, RootfsChoice};
use crate::store::Store;
use crate::sys::Cancel;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// All that is decided about a build before it runs.
#[derive(Default)]
pub(super) struct Decided {
    pub(super) stages: Vec<Decision>,
    pub(super) chains: Vec<Chain>,
    /// The tables of bases of which nothing else is wanted.
    pub(super) tables: BTreeMap<BaseKey, Vec<Toc>>,
    /// In place, what commands see of the container instead of the image.
    pub(super) kept: Vec<Vec<u8>>,
}

/// What a decision is made of.
pub(super) struct Question<'a> {
    pub(super) request: &'a Request,
    pub(super) plan: &'a Plan,
    pub(super) steps: &'a [Vec<Step>],
    pub(super) bases: &'a Bases,
    pub(super) context: &'a Context,
    pub(super) clock: &'a Clock,
    pub(super) ignored: &'a [RelPath],
    pub(super) store: &'a Store,
    pub(super) scratch: &'a Path,
    pub(super) seen: &'a Seen,
    pub(super) cancel: &'a Cancel,
}

/// Sets up the cache that a request asks for; none where it asks for none.
pub(super) fn caching(
    request: &Request,
    store: &Arc<Store>,
    sink: &Sink,
    cancel: &Cancel,
) -> Result<Option<Caching>, Error> {
    let Some(wanted) = &request.caching else {
        return Ok(None);
    };
    let mut wanted = wanted.clone();
    if request.single_snapshot && (wanted.copies || wanted.runs) {
        let text = "--single-snapshot makes one layer of all steps, of which none can be cached: --cache \
                    is without effect";
        sink.message(Level::Warn, text);
        (wanted.copies, wanted.runs) = (false, false);
    }
    if !wanted.copies && !wanted.runs && !wanted.mounts {
        return Ok(None);
    }
    if wanted.mounts && wanted.to.is_empty() && wanted.from.is_empty() {
        let text = "--cache-mounts is without effect: there is no place to restore caches from; give one by \
                    --cache-repo";
        sink.message(Level::Warn, text);
    }
    let mut far: Vec<KnownPlace> = Vec::new();
    let to = match wanted.writes {
        true => Access::Write,
        false => Access::Read,
    };
    let to = wanted.to.iter().map(|place| (place, to));
    let from = wanted.from.iter().map(|place| (place, Access::Read));
    for (place, access) in to.chain(from) {
        let place = open(request, store, place, cancel)?;
        far.push(KnownPlace::new(place, access));
    }
    Ok(Some(Caching::new(&wanted, far, sink, cancel)))
}

fn open(
    request: &Request,
    store: &Arc<Store>,
    place: &CachePlace,
    cancel: &Cancel,
) -> Result<Box<dyn Place>, Error> {
    Ok(match place {
        CachePlace::Registry(repository) => {
            let writer = client(request, repository, &WRITES, cancel)?;
            writer.share(store);
            Box::new(InRegistry {
                reader: client(request, repository, &READS, cancel)?,
                writer,
                repository: repository.clone(),
            })
        }
        CachePlace::Layout(dir) => Box::new(InLayout {
            dir: dir.clone(),
            cancel: cancel.clone(),
            read: IndexRead::default(),
        }),
        CachePlace::Objects(objects) => {
            let options = &request.registry;
            let failed = |e| Error::other("set up the client of the cache", e);
            let client = |patience| -> Result<Client, Error> {
                let settings = Settings {
                    proxies: options.proxies.clone(),
                    system_roots: SystemRoots {
                        file: options.certificate_file.clone(),
                        dirs: options.certificate_dirs.clone(),
                    },
                    ..settings(patience)
                };
                let client = Client::new(settings, cancel.clone()).map_err(failed)?;
                if request.rootfs == RootfsChoice::InPlace {
                    client.read_authorities();
                }
                Ok(client)
            };
            let objects = InObjects::new(objects, options, client(&READS)?, client(&WRITES)?);
            Box::new(objects.map_err(|e| Error::other("set up the cache", e))?)
        }
    })
}

/// How patient a client of the cache is: attempts, and how long an answer may take.
struct Patience {
    attempts: u32,
    answer: Duration,
}

/// Who waits for an answer could be building.
const READS: Patience = Patience {
    attempts: 2,
    answer: Duration::from_secs(10),
};
/// Nobody waits, and a registry hashes what it was sent before it answers.
const WRITES: Patience = Patience {
    attempts: 3,
    answer: Duration::from_secs(30),
};

fn settings(patience: &Patience) -> Settings {
    Settings {
        connect: Duration::from_secs(5),
        answer: patience.answer,
        idle: Duration::from_secs(20),
        least: 64 << 10,
        retry: Retry {
            attempts: patience.attempts,
            base: Duration::from_millis(200),
            longest: Duration::from_secs(2),
            total: Duration::from_secs(5),
        },
        ..Settings::default()
    }
}

fn client(
    request: &Request,
    repository: &Reference,
    patience: &Patience,
    cancel: &Cancel,
) -> Result<Registry, Error> {
    let settings = settings(patience);
    // What holds for pushing holds for the cache's repository, as with kaniko.
    let mut options = request.registry.clone();
    options.insecure_pull |= options.insecure_push;
    options.skip_tls_pull |= options.skip_tls_push;
    let client = Registry::with_settings(options, settings, cancel.clone())
        .map_err(|e| Error::other("set up the client of the cache", e))?;
    if request.rootfs == RootfsChoice::InPlace {
        // What is wrong with them is told when the cache is asked, without which a build goes on.
        let _ = client.read_ahead(std::slice::from_ref(repository));
    }
    Ok(client)
}

/// Decides about a build that looks nothing up.
pub(super) fn without(plan: &Plan, steps: &[Vec<Step>], request: &Request) -> Decided {
    let found = steps.iter().map(|steps| vec![None; steps.len()]).collect();
    let mut stages = decide(plan, steps, found, of_target(request));
    for stage in &mut stages {
        stage.is_wanted = true;
        // Files are unpacked in any case, or not at all.
        if stage.needs == Needs::Tree {
            stage.needs = Needs::Files;
        }
    }
    Decided {
        stages,
        ..Decided::default()
    }
}

/// Gives what outputs want of the target's files.
fn of_target(request: &Request) -> Needs {
    match deliver::wants_root(request) {
        true => Needs::Files,
        false => Needs::Nothing,
    }
}

/// Looks all steps up and decides what is made.
pub(super) fn ask(caching: &Caching, question: &Question<'_>) -> Decided {
    let Question {
        request,
        plan,
        steps,
        bases,
        store,
        ..
    } = question;
    let named = named(request);
    let ground = Ground {
        plan,
        steps,
        bases,
        context: question.context,
        named: &named,
        identify: &|source| question.seen.identify(source),
        scratch: question.scratch,
        cancel: question.cancel,
    };
    let platform = Platform::host();
    let kept = super::kept::of_the_container(request, store);
    let common = Common {
        request,
        clock: question.clock,
        ignored: question.ignored,
        kept: &kept,
        platform: &platform,
    };
    let chains = chains(&ground, &common);
    let keys = decide::keys(steps, &chains, &caching.wanted);
    let mut hits = caching.probe(store, &keys);
    let mut anew: BTreeSet<usize> = BTreeSet::new();
    loop {
        let chosen = decide::choose(question, &chains, &caching.wanted, &hits, &anew);
        let mut stages = decide(plan, steps, chosen.found, of_target(request));
        // Whoever takes from a stage that is made anew takes what it makes this time; and so it is where
        // commands are to run in any case.
        let more: BTreeSet<usize> = (0..stages.len())
            .filter(|at| chosen.ran[*at] && (stages[*at].is_wanted || !caching.wanted.runs))
            .filter(|at| !anew.contains(at))
            .collect();
        if !more.is_empty() {
            anew.extend(more);
            continue;
        }
        // What is known of a base by its tables need not be unpacked.
        let mut tables: BTreeMap<BaseKey, Vec<Toc>> = BTreeMap::new();
        for place in (0..stages.len()).rev() {
            if stages[place].needs != Needs::Tree || !stages[place].is_wanted {
                continue;
            }
            let stage = &plan.stages[place];
            let Some(key) = base::key(&stage.base, &stage.platform) else {
                continue;
            };
            if tables.contains_key(&key) {
                continue;
            }
            let layers = layers(bases, &key);
            match caching.tables(store, &layers) {
                Some(found) => {
                    tables.insert(key, found);
                }
                None => stages[place].needs = Needs::Files,
            }
        }
        let lost = tocs(caching, store, &stages);
        if lost.is_empty() {
            for stage in stages.iter().filter(|stage| stage.is_wanted) {
                for held in stage.held() {
                    caching.keep_found(store, &held.hit);
                }
            }
            return Decided {
                stages,
                chains,
                tables,
                kept,
            };
        }
        for (hit, why) in lost {
            caching.refuse(store, &hit, &why);
            hits.remove(&hit.key);
        }
    }
}

/// Gives chain IDs and diff IDs of a base's layers, bottom first.
pub(super) fn layers(bases: &Bases, key: &BaseKey) -> Vec<(Digest, Digest)> {
    let layers = bases.get(key).into_iter().flat_map(|base| &base.layers);
    layers
        .map(|layer| (layer.chain_id, layer.diff_id))
        .collect()
}

/// Gives the tree of an image and of all that was found in a stage on it, and which of its layers is the
/// first that was found; none where it is not known before anything is unpacked.
pub(super) fn tree_below(shared: &Shared<'_>, place: usize) -> Option<(Tree, usize)> {
    let stage = shared.plan.stages.get(place)?;
    let key = base::key(&stage.base, &stage.platform)?;
    let layers = layers(&shared.bases.resolved, &key);
    let tables = shared.caching?.tables(&shared.store, &layers)?;
    let first = tables.len();
    let mut tree = Tree::default();
    let found = shared.decided.stages.get(place)?.held();
    let found = found.map(|held| held.toc().cloned());
    for toc in tables.into_iter().map(Some).chain(found) {
        tree.push(Arc::new(LayerView {
            toc: toc?,
            content: Content::Of(Arc::new(|_| None)),
        }));
    }
    Some((tree, first))
}

/// Has the tables of all layers that a tree is made of in the store; gives what has none, and
/// why.
fn tocs(caching: &Caching, store: &Store, stages: &[Decision]) -> Vec<(Hit, String)> {
    let lost: Mutex<Vec<(Hit, String)>> = Mutex::default();
    std::thread::scope(|scope| {
        for stage in stages {
            if !stage.is_wanted || stage.needs == Needs::Nothing {
                continue;
            }
            for held in stage.held() {
                let lost = &lost;
                scope.spawn(move || {
                    if let Err(why) = held.find_toc(caching, store) {
                        lock(lost).push((held.hit.clone(), why.to_string()));
                    }
                });
            }
        }
    });
    lost.into_inner().unwrap_or_default()
}

/// Opens the named contexts that are directories of this machine. What is wrong with one is told when
/// it is wanted.
fn named(request: &Request) -> BTreeMap<String, Arc<Context>> {
    let mut out = BTreeMap::new();
    for (name, context) in &request.contexts {
        if let NamedContext::Files(ContextSource::Directory(dir)) = context
            && let Ok(context) = Context::named(dir)
        {
            out.insert(name.clone(), Arc::new(context));
        }
    }
    out
}
