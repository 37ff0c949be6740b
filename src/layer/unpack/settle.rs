//! What only the layers below can answer: the metadata of directories that a layer has files in but
//! no entry for, where their names lead, which whiteouts mean anything, and hard links to files of
//! other layers. As a runtime does that unpacks one layer over the other.

use super::Error;
use super::files::{Files, Made, io_error, within};
use crate::fs::{Found, Kind, LastLink, Meta, Node, RelPath, Source, Time, Toc, TocEntry, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// A layer that is ready to be put in place.
pub(super) struct Settled {
    pub toc: Toc,
    /// Whether it would be the same over any other layers.
    pub alone: bool,
    /// Extended attributes that the file system refused.
    pub lost: Vec<String>,
}

/// Which whiteouts and opaque marks of a layer are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Those that hide something of the layers below.
    Meaning,
    /// All: what is below is not known, and is known to have what they hide.
    All,
}

/// Fits a layer's files to the tree below it.
pub(super) fn settle(mut files: Files, lower: &Tree, kept: Kept) -> Result<Settled, Error> {
    let mut alone = true;
    let root = RelPath::root();
    if kept == Kept::All && files.implied.remove(&root) {
        // Nothing is said of the root: it is what it is below.
        files.made.remove(&root);
    }
    alone &= relocate(&mut files, lower)?;
    alone &= borrow_dirs(&mut files, lower)?;
    alone &= late_links(&mut files, lower)?;
    let marks = hide(&mut files, lower, kept)?;
    alone &= marks.alone || kept == Kept::All;
    let toc = table(&files, &marks);
    let lost = files
        .placer
        .finish()
        .map_err(|e| io_error("set the times of directories in", &root, e))?;
    Ok(Settled { toc, alone, lost })
}

/// Tells whether the layer itself takes away what the layers below have at a path.
fn hidden(files: &Files, path: &RelPath) -> bool {
    let covers = |at: &RelPath| {
        files.deleted.contains(at)
            || (files.made.get(at)).is_some_and(|made| made.meta.kind != Kind::Dir)
    };
    covers(path)
        || path
            .ancestors()
            .any(|above| files.opaque.contains(&above) || covers(&above))
}

fn below(files: &Files, lower: &Tree, path: &RelPath) -> Option<Found> {
    match hidden(files, path) {
        true => None,
        false => lower.get(path),
    }
}

/// Moves what a layer has beneath a directory it has no entry for to where the name leads in the
/// layers below. Tells whether nothing was moved.
fn relocate(files: &mut Files, lower: &Tree) -> Result<bool, Error> {
    let mut alone = true;
    let mut todo: BTreeSet<RelPath> = files.implied.clone();
    let mut moves = 0;
    while let Some(dir) = todo.pop_first() {
        if !files.implied.contains(&dir) {
            continue;
        }
        let link = below(files, lower, &dir).is_some_and(|it| it.meta.kind == Kind::Symlink);
        if !link {
            continue;
        }
        moves += 1;
        let target = lower
            .resolve(&dir, LastLink::Follow)
            .ok()
            .filter(|to| moves < 1000 && !to.is_within(&dir) && !dir.is_within(to));
        let Some(target) = target else {
            return Err(files.refuse(&dir, "a symbolic link in a layer below leads nowhere"));
        };
        alone = false;
        move_into(files, &dir, &target)?;
        todo.extend(
            files
                .implied
                .iter()
                .filter(|it| it.is_within(&target))
                .cloned(),
        );
        todo.extend(target.ancestors().filter(|it| files.implied.contains(it)));
    }
    Ok(alone)
}

fn move_into(files: &mut Files, from: &RelPath, to: &RelPath) -> Result<(), Error> {
    let moved = |path: &RelPath| path.strip(from).map(|below| to.join_path(&below));
    let blocked = |files: &Files| {
        std::iter::once(to.clone())
            .chain(to.ancestors())
            .find(|at| (files.made.get(at)).is_some_and(|made| made.meta.kind != Kind::Dir))
    };
    if let Some(at) = blocked(files) {
        let why = format!("`{at}`, where it leads to, is not a directory");
        return Err(files.refuse(from, &why));
    }
    files.make_dirs(to)?;
    for old in within(&files.made, from) {
        let (Some(new), Some(made)) = (moved(&old), files.made.remove(&old)) else {
            continue;
        };
        let Made { meta, file } = made;
        let implied = files.implied.remove(&old);
        if meta.kind == Kind::Dir {
            match files.made.get(&new).map(|there| there.meta.kind) {
                Some(Kind::Dir) if implied => continue,
                Some(Kind::Dir) | None => {}
                Some(_) => files.clear(&new)?,
            }
            files.put(&new, &meta)?;
            files.insert_dir(new.clone(), meta);
            if implied {
                files.implied.insert(new);
            } else {
                files.implied.remove(&new);
            }
        } else {
            files.clear(&new)?;
            files
                .placer
                .rename(&old, &new)
                .map_err(|e| io_error("move", &old, e))?;
            files.made.insert(new, Made { meta, file });
        }
    }
    files
        .placer
        .remove(from)
        .map_err(|e| io_error("remove", from, e))?;
    let shift = |set: &mut BTreeSet<RelPath>| {
        let shifted = std::mem::take(set).into_iter();
        *set = shifted.map(|path| moved(&path).unwrap_or(path)).collect();
    };
    shift(&mut files.deleted);
    shift(&mut files.opaque);
    let dangling = std::mem::take(&mut files.dangling).into_iter();
    files.dangling = dangling
        .map(|(path, target)| {
            (
                moved(&path).unwrap_or(path),
                moved(&target).unwrap_or(target),
            )
        })
        .collect();
    Ok(())
}

/// Gives directories that have no entry what the layers below say of them. Tells whether the
/// layers below had nothing to say.
fn borrow_dirs(files: &mut Files, lower: &Tree) -> Result<bool, Error> {
    let mut alone = true;
    for dir in files.implied.clone() {
        let meta = match below(files, lower, &dir) {
            Some(found) if found.meta.kind == Kind::Dir && !lower.layers().is_empty() => {
                alone &= dir.is_root() && found.meta == Meta::dir(0o755, Time::default());
                found.meta
            }
            _ => Meta::dir(0o755, Time::default()),
        };
        files.put(&dir, &meta)?;
        files.insert_dir(dir, meta);
    }
    Ok(alone)
}

/// Makes hard links whose other name is in a layer below, as copies, or came later in the layer.
/// Tells whether there was none of the first.
fn late_links(files: &mut Files, lower: &Tree) -> Result<bool, Error> {
    let mut alone = true;
    let mut copies: BTreeMap<RelPath, RelPath> = BTreeMap::new();
    for (path, target) in std::mem::take(&mut files.dangling) {
        let first = match copies.get(&target) {
            Some(first) => Some(first.clone()),
            None => files.made.contains_key(&target).then(|| target.clone()),
        };
        if let Some(first) = first {
            if (files.made.get(&first)).is_none_or(|made| made.meta.kind == Kind::Dir) {
                return Err(files.refuse(&path, "it is a hard link to a directory"));
            }
            files.link_made(path, &first)?;
            continue;
        }
        let real = match target.parent() {
            Some(parent) => lower
                .resolve(&parent, LastLink::Follow)
                .map(|parent| parent.join(target.name()))
                .unwrap_or_else(|_| target.clone()),
            None => target.clone(),
        };
        let found = below(files, lower, &real).filter(|it| it.meta.kind != Kind::Dir);
        let Some(found) = found else {
            let why = format!("it is a hard link to `{target}`, which is nowhere");
            return Err(files.refuse(&path, &why));
        };
        alone = false;
        copy(files, &path, found, lower.source(&real))?;
        copies.insert(target, path);
    }
    Ok(alone)
}

fn copy(
    files: &mut Files,
    path: &RelPath,
    found: Found,
    source: Option<Source>,
) -> Result<(), Error> {
    let failed = |e| io_error("copy", path, e);
    let Found { meta, content, .. } = found;
    let mut content = content;
    if let Some(source) = source {
        let reader = source.open().map_err(failed)?;
        let mut reader = Hashing {
            inner: reader,
            hash: blake3::Hasher::new(),
        };
        files
            .placer
            .put(path, &meta, Some(&mut reader))
            .map_err(failed)?;
        content = Some(*reader.hash.finalize().as_bytes());
    } else {
        files.placer.put(path, &meta, None).map_err(failed)?;
    }
    let file = files.contents.len();
    files.contents.push(content);
    files.made.insert(path.clone(), Made { meta, file });
    Ok(())
}

struct Hashing {
    inner: Box<dyn Read + Send>,
    hash: blake3::Hasher,
}

impl Read for Hashing {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let len = self.inner.read(out)?;
        self.hash.update(&out[..len]);
        Ok(len)
    }
}

/// What of the layers below a layer takes away, as it is on disk.
struct Marks {
    deleted: BTreeSet<RelPath>,
    opaque: BTreeSet<RelPath>,
    alone: bool,
}

/// Puts whiteouts and opaque marks where there is something to hide.
///
/// A whiteout of nothing is left out: overlayfs would show it in a directory that no layer below
/// has. A whiteout of a directory that the layer also puts is an opaque directory.
fn hide(files: &mut Files, lower: &Tree, kept: Kept) -> Result<Marks, Error> {
    let wanted = std::mem::take(&mut files.deleted);
    let mut opaque = std::mem::take(&mut files.opaque);
    let mut marks = Marks {
        deleted: BTreeSet::new(),
        opaque: BTreeSet::new(),
        // What is left out here might mean something elsewhere.
        alone: wanted.is_empty() && opaque.is_empty(),
    };
    let mut gone = BTreeSet::new();
    let mut sort = |path: RelPath, opaque: &mut BTreeSet<RelPath>| {
        match files.made.get(&path).map(|made| made.meta.kind) {
            Some(Kind::Dir) => opaque.insert(path),
            Some(_) => false,
            None => gone.insert(path),
        };
    };
    for path in wanted {
        sort(path, &mut opaque);
    }
    // Overlayfs never takes a root for opaque, so what is in it goes one by one.
    if opaque.remove(&RelPath::root()) {
        for (name, _) in lower.children(&RelPath::root()) {
            sort(RelPath::root().join(&name), &mut opaque);
        }
    }
    // In canonical order, so that the marks above a path are known when its turn comes.
    for path in &opaque {
        let there = |found: Found| found.meta.kind == Kind::Dir;
        let means = kept == Kept::All || lower.get(path).is_some_and(there);
        if covered(files, &marks, path) || !means {
            continue;
        }
        files
            .placer
            .opaque(path)
            .map_err(|e| io_error("hide what is below", path, e))?;
        marks.opaque.insert(path.clone());
    }
    for path in gone {
        let means = kept == Kept::All || lower.get(&path).is_some();
        if covered(files, &marks, &path) || !means {
            continue;
        }
        files
            .placer
            .whiteout(&path)
            .map_err(|e| io_error("hide", &path, e))?;
        marks.deleted.insert(path);
    }
    Ok(marks)
}

/// Tells whether something above a path hides what the layers below have there already.
fn covered(files: &Files, marks: &Marks, path: &RelPath) -> bool {
    path.ancestors().any(|above| {
        marks.opaque.contains(&above)
            || marks.deleted.contains(&above)
            || (files.made.get(&above)).is_some_and(|made| made.meta.kind != Kind::Dir)
    })
}

fn table(files: &Files, marks: &Marks) -> Toc {
    let mut first: Vec<Option<&RelPath>> = vec![None; files.contents.len()];
    let mut entries = Vec::with_capacity(files.made.len() + marks.deleted.len());
    for (path, made) in &files.made {
        let meta = made.meta.clone();
        let node = if marks.opaque.contains(path) {
            Node::Opaque(meta)
        } else {
            let link = match first.get_mut(made.file) {
                Some(name @ None) => {
                    *name = Some(path);
                    None
                }
                Some(Some(name)) => Some((*name).clone()),
                None => None,
            };
            Node::Put {
                meta,
                content: files.contents.get(made.file).copied().flatten(),
                link,
            }
        };
        let path = path.clone();
        entries.push(TocEntry { path, node });
    }
    entries.extend(marks.deleted.iter().map(|path| TocEntry {
        path: path.clone(),
        node: Node::Delete,
    }));
    Toc::new(entries)
}
