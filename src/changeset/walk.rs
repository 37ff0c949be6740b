use super::compare::{content_id, same_meta};
use super::{Action, Change, Changeset, Error, State};
use crate::fs::{self, Firsts, Found, Kind, RelPath, Source, Stat, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Compares a whole root with a tree, file by file and byte by byte, and gives the settled changeset
/// between them: the slow obvious way, by which every way of tracking is judged.
pub fn full_walk(root: &Arc<OwnedFd>, tree: &Tree) -> Result<Changeset, Error> {
    let now = everything(root)?;
    let mut before: BTreeMap<RelPath, Found> = BTreeMap::new();
    tree.walk(&RelPath::root(), &mut |path, found| {
        before.insert(path.clone(), found.clone());
    });

    let mut changed: BTreeMap<&RelPath, Option<&Stat>> = BTreeMap::new();
    for (path, stat) in &now {
        if !is_same(path, stat, before.get(path), root, tree)? {
            changed.insert(path, Some(stat));
        }
    }
    for path in before.keys() {
        let parent = path.parent().and_then(|parent| now.get(&parent));
        // Below something that is gone, or no directory any more, nothing more is said.
        let told = parent.is_some_and(|parent| parent.meta.kind == Kind::Dir);
        if told && !now.contains_key(path) {
            changed.insert(path, None);
        }
    }
    let mut above: BTreeSet<RelPath> = BTreeSet::new();
    for path in changed.keys() {
        // Where a directory is in already, all above it are.
        let parents = path.ancestors().filter(|dir| !dir.is_root());
        for dir in parents {
            if !above.insert(dir) {
                break;
            }
        }
    }
    for (path, stat) in above.iter().filter_map(|path| now.get_key_value(path)) {
        changed.insert(path, Some(stat));
    }

    let mut firsts = Firsts::default();
    let mut changes = Vec::new();
    for (path, stat) in changed {
        let action = match stat {
            None => Action::Delete,
            Some(stat) => put(path, stat, root, &mut firsts),
        };
        changes.push(Change {
            path: path.clone(),
            action,
        });
    }
    Ok(Changeset {
        changes,
        state: State::Live,
    })
}

fn put(path: &RelPath, stat: &Stat, root: &Arc<OwnedFd>, firsts: &mut Firsts) -> Action {
    let link = stat.shared().and_then(|file| firsts.tie(file, path));
    let has_content = stat.meta.kind == Kind::File && link.is_none();
    Action::Put {
        meta: stat.meta.clone(),
        source: has_content.then(|| source(path, root)),
        link,
    }
}

fn source(path: &RelPath, root: &Arc<OwnedFd>) -> Source {
    Source::File {
        dir: Arc::clone(root),
        path: path.clone(),
    }
}

fn is_same(
    path: &RelPath,
    stat: &Stat,
    before: Option<&Found>,
    root: &Arc<OwnedFd>,
    tree: &Tree,
) -> Result<bool, Error> {
    let Some(before) = before else {
        return Ok(false);
    };
    if !same_meta(&stat.meta, &before.meta) {
        return Ok(false);
    }
    if stat.meta.kind != Kind::File {
        return Ok(true);
    }
    let old = match (before.content, tree.source(path)) {
        (Some(old), _) => old,
        (None, Some(old)) => content_id(path, &old)?,
        (None, None) => return Ok(false),
    };
    Ok(content_id(path, &source(path, root))? == old)
}

/// Looks at every file of a root.
fn everything(root: &Arc<OwnedFd>) -> Result<BTreeMap<RelPath, Stat>, Error> {
    let failed = |path: &RelPath, source| Error::Io {
        action: "look at",
        path: path.clone(),
        source,
    };
    let all: Mutex<BTreeMap<RelPath, Stat>> = Mutex::default();
    let visit = |_: &RelPath, entries: Vec<(RelPath, Stat)>| {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(entries);
        Ok(())
    };
    fs::walk(root.as_fd(), &RelPath::root(), &visit)
        .map_err(|error| failed(&error.path, error.source))?;
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let top = RelPath::root();
    match fs::stat(root.as_fd(), &top).map_err(|source| failed(&top, source))? {
        Some(stat) => {
            all.insert(top, stat);
            Ok(all)
        }
        None => Err(failed(&top, std::io::ErrorKind::NotADirectory.into())),
    }
}
