//! Stages that take turns on the one root there is, in place.
//!
//! A stage has the root from its first command to its end. Before it takes it everything that it
//! will copy or mount from is complete, so that no stage waits for another one with the root in its
//! hands. What a later one still wants of its files is copied to a directory before it gives it up.

use super::wait::lock;
use super::{BoxError, Error, Shared, base, kept, space};
use crate::changeset::{self, Action, Changeset};
use crate::fs::{self, Content, LayerView, Meta, RelPath, Source, Tree};
use crate::layer::Unpacked;
use crate::oci::Digest;
use crate::plan::{self, Base};
use crate::progress::Level;
use crate::request::RootfsChoice;
use crate::rootfs::{Guard, Live, Rootfs};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The right to use the root, which one stage has at a time.
#[derive(Default)]
pub(super) struct OneRoot {
    turn: Mutex<()>,
    state: Mutex<State>,
}

/// What has become of the root.
#[derive(Default)]
struct State {
    /// Where the builder was, once a stage has had it.
    cwd: Option<PathBuf>,
    /// What has been warned of.
    warned: BTreeSet<RelPath>,
}

/// A stage's turn.
pub(super) struct Turn<'a> {
    _guard: MutexGuard<'a, ()>,
}

impl OneRoot {
    pub(super) fn turn(&self) -> Turn<'_> {
        Turn {
            _guard: lock(&self.turn),
        }
    }

    /// Tells whether a path is warned of for the first time.
    pub(super) fn is_news(&self, path: &RelPath) -> bool {
        lock(&self.state).warned.insert(path.clone())
    }
}

/// Tells whether stages take turns.
pub(super) fn is_one(shared: &Shared<'_>) -> bool {
    shared.request.rootfs == RootfsChoice::InPlace
}

/// Tells whether a stage's files are wanted after its end.
pub(super) fn is_wanted_later(shared: &Shared<'_>, place: usize) -> bool {
    let is_it = |base: &Base| matches!(base, Base::Stage(at) if *at == place);
    let based = shared.plan.stages.iter().any(|stage| is_it(&stage.base));
    let mut named = shared.steps.iter().flat_map(|steps| plan::bases(steps));
    based
        || named.any(|(_, base)| is_it(base))
        || (place == shared.plan.target && super::deliver::wants_root(shared.request))
}

/// Makes the root show a stage's tree, of which `files` are the lowest layers. `dir` is an empty
/// directory. What the layers' files are after it is found in the root.
pub(super) fn take(
    shared: &Shared<'_>,
    place: usize,
    tree: &mut Tree,
    files: &[Unpacked],
    dir: PathBuf,
) -> Result<(Live, Guard), BoxError> {
    let dirs: Vec<PathBuf> = files.iter().map(|layer| layer.dir.clone()).collect();
    let movable = match is_sole_user(shared, place) && is_in_the_root(shared.store.dir())? {
        true => shared.store.take_layers(&dirs)?.unwrap_or_default(),
        false => Vec::new(),
    };
    if movable.is_empty() {
        space::check_in_place(shared, tree)?;
    }
    let top = match tree.get(&RelPath::root()) {
        Some(found) => found.meta,
        None => Meta::dir(0o755, shared.clock.now),
    };
    let guard = kept::guard(shared);
    // The next stage finds it gone.
    lock(&shared.one_root.state)
        .cwd
        .get_or_insert_with(|| std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")));
    let root = Live::in_place(dir, tree, &top, guard, &movable, shared.cancel)?;
    let guard = root.guard().clone();
    for path in root.hiding() {
        let text = format!(
            "/{path} is a directory here, since something is mounted in it, and not what the image has \
             there: what commands in place write to it is not in the image"
        );
        shared.sink.message(Level::Warn, text);
    }
    kept::warn_below(shared, &guard, tree);
    if !movable.is_empty() {
        let content = Arc::new(root.root()?.try_clone_to_owned()?);
        let mut moved = Tree::default();
        for (number, layer) in tree.layers().iter().enumerate() {
            moved.push(match movable.get(number) {
                Some(dir) => Arc::new(LayerView {
                    toc: layer.toc.clone(),
                    content: Content::Of(content_of_moved(&content, dir, &guard)?),
                }),
                None => Arc::clone(layer),
            });
        }
        *tree = moved;
    }
    Ok((root, guard))
}

/// Gives where the content of a layer is whose files were moved into the root: there, but for what is
/// something else's there, which was left in the layer's directory.
fn content_of_moved(
    root: &Arc<OwnedFd>,
    dir: &Path,
    guard: &Guard,
) -> std::io::Result<fs::FindSource> {
    let (root, guard) = (Arc::clone(root), guard.clone());
    let left: Arc<OwnedFd> = Arc::new(std::fs::File::open(dir)?.into());
    Ok(Arc::new(move |path: &RelPath| {
        let dir = match guard.covers(path) {
            true => &left,
            false => &root,
        };
        Some(Source::File {
            dir: Arc::clone(dir),
            path: path.clone(),
        })
    }))
}

/// Tells whether a directory is on the root's own mount, so that files can be moved out of it.
pub(super) fn is_in_the_root(dir: &Path) -> std::io::Result<bool> {
    let mount = |path: &Path| {
        let opened = std::fs::File::open(path)?;
        Ok::<_, std::io::Error>(fs::glance_at(opened.as_fd(), b"")?.mount)
    };
    Ok(mount(dir)? == mount(Path::new("/"))?)
}

/// Tells whether nobody but the stage at a place, while it has the root, reads its base's files.
fn is_sole_user(shared: &Shared<'_>, place: usize) -> bool {
    let Some(stage) = shared.plan.stages.get(place) else {
        return false;
    };
    let Some(key) = base::key(&stage.base, &stage.platform) else {
        return false;
    };
    let is_the_base = |base: &Base, platform| base::key(base, platform).as_ref() == Some(&key);
    // Another image may stand on the same layers.
    let resolved = &shared.bases.resolved;
    let layers = |key| resolved.get(key).into_iter().flat_map(|base| &base.layers);
    let own: BTreeSet<&Digest> = layers(&key).map(|layer| &layer.chain_id).collect();
    let others = resolved.keys().filter(|other| **other != key);
    let mut others = others.flat_map(layers);
    let stages = shared.plan.stages.iter();
    let based = stages.filter(|other| is_the_base(&other.base, &other.platform));
    let platform = &shared.request.platform;
    let mut named = shared.steps.iter().flat_map(|steps| plan::bases(steps));
    based.count() == 1
        && !others.any(|layer| own.contains(&layer.chain_id))
        && !named.any(|(_, base)| is_the_base(base, platform))
        && !is_wanted_later(shared, place)
}

/// Leaves the root to whoever comes next, once a build is over: without the image's files where the
/// request says so, and with the directory that the container starts commands in.
pub(super) fn end(shared: &Shared<'_>) -> Result<(), Error> {
    let Some(cwd) = lock(&shared.one_root.state).cwd.take() else {
        return Ok(());
    };
    if shared.request.cleanup {
        Live::clean(kept::guard(shared)).map_err(|e| Error::other("clean the root up", e))?;
    }
    std::fs::create_dir_all(&cwd)
        .and_then(|()| std::env::set_current_dir(&cwd))
        .map_err(|e| Error::other(format!("make {} again", cwd.display()), e))
}

/// Has changes take the content of files from others that have it, by path.
pub(super) fn take_content_of(changes: &mut Changeset, others: &Changeset) {
    for change in &mut changes.changes {
        let Action::Put {
            source: Some(source @ Source::Live { .. }),
            ..
        } = &mut change.action
        else {
            continue;
        };
        if let Some(Action::Put {
            source: Some(other),
            ..
        }) = others.get(&change.path)
        {
            *source = other.clone();
        }
    }
}

/// Copies the content of what a stage changed out of the root, into an empty directory, and gives
/// the same changes with that content.
pub(super) fn keep(
    shared: &Shared<'_>,
    changes: Changeset,
    dir: &Path,
) -> Result<Changeset, BoxError> {
    let fd: Arc<OwnedFd> = Arc::new(std::fs::File::open(dir)?.into());
    Live::copy_out(&fd, &changes, shared.cancel)?;
    let mut kept = changes;
    kept.state = changeset::State::Frozen;
    for change in &mut kept.changes {
        if let Action::Put {
            source: Some(source),
            ..
        } = &mut change.action
        {
            *source = Source::File {
                dir: Arc::clone(&fd),
                path: change.path.clone(),
            };
        }
    }
    Ok(kept)
}
