//! Moving layers into a root, as far as whole directories are one layer's.

use super::Guard;
use crate::changeset::{Action, Change};
use crate::fs::{Kind, LayerView, Node, RelPath, Tree};
use crate::rootfs::Error;
use crate::rootfs::dirs::{at, open_dir};
use rustix::fs::renameat;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// Moves directories out of a tree's lowest layers, of which `dirs` are the files, into a root that has
/// nothing in their place, and takes what they have in them off `changes`: their own metadata is still
/// to be set. What cannot be moved stays where it is, and is left to be copied.
pub(super) fn move_in(
    root: &OwnedFd,
    tree: &Tree,
    dirs: &[PathBuf],
    guard: &Guard,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    let layers = dirs
        .iter()
        .map(|dir| open_dir(dir))
        .collect::<Result<Vec<_>, _>>()?;
    let links: Vec<Vec<(RelPath, RelPath)>> =
        tree.layers().iter().take(layers.len()).map(links).collect();
    let mut done: BTreeSet<RelPath> = BTreeSet::new();
    let mut parent = RelPath::root();
    for change in changes.iter() {
        let path = &change.path;
        let is_dir = matches!(&change.action, Action::Put { meta, .. } if meta.kind == Kind::Dir);
        // Of what is in a directory that was moved nothing is left to do.
        if !is_dir || path.is_within(&parent) && done.contains(&parent) {
            continue;
        }
        let Some(owner) = sole_owner(tree, path, &links) else {
            continue;
        };
        if guard.keeps_below(path) || guard.covers(path) {
            continue;
        }
        let Some(layer) = layers.get(owner) else {
            continue;
        };
        // The directories above it have not been made yet.
        make_above(root, path)?;
        match renameat(layer, path.as_path(), root, path.as_path()) {
            Ok(()) => {
                done.insert(path.clone());
                parent = path.clone();
            }
            // Another file system, or a layer of the container's own overlay.
            Err(Errno::XDEV) => break,
            Err(_) => {}
        }
    }
    take_off(changes, &done);
    Ok(())
}

/// Takes what was moved off what is left to do.
fn take_off(changes: &mut Vec<Change>, done: &BTreeSet<RelPath>) {
    let moved = |path: &RelPath| path.ancestors().any(|dir| done.contains(&dir));
    changes.retain(|change| !moved(&change.path));
}

/// Gives the layer that alone has something below a directory, where that is one of those whose hard
/// `links` are given, nothing in it hides anything, and no file in it has a name elsewhere.
fn sole_owner(tree: &Tree, dir: &RelPath, links: &[Vec<(RelPath, RelPath)>]) -> Option<usize> {
    let mut owners = tree
        .layers()
        .iter()
        .enumerate()
        .filter(|(_, layer)| layer.toc.within(dir).next().is_some());
    let (owner, view) = owners.next()?;
    let links = links.get(owner)?;
    if owners.next().is_some() {
        return None;
    }
    // Its own directory is there only where the layer names it.
    view.toc.get(dir)?;
    // What hides one of them above hides all.
    let one = view.toc.within(dir).next()?.path;
    if tree.get(&one).is_none_or(|found| found.layer != owner) {
        return None;
    }
    let mut below = view.toc.within(dir);
    // What stands in for a device is a file.
    let hides = below.any(|entry| match entry.node {
        Node::Delete | Node::Opaque(_) => true,
        Node::Put { meta, .. } => matches!(meta.kind, Kind::Char | Kind::Block),
    });
    let mut links = links.iter();
    let is_tied = links.any(|(first, path)| first.is_within(dir) != path.is_within(dir));
    (!hides && !is_tied).then_some(owner)
}

/// Gives the hard links of a layer, with the first names of their files.
fn links(view: &Arc<LayerView>) -> Vec<(RelPath, RelPath)> {
    let links = view.toc.iter().filter_map(|entry| match entry.node {
        Node::Put { link, .. } => Some((link?, entry.path)),
        Node::Delete | Node::Opaque(_) => None,
    });
    links.collect()
}

fn make_above(root: &OwnedFd, path: &RelPath) -> Result<(), Error> {
    use rustix::fs::{Mode, mkdirat};
    let mut above: Vec<RelPath> = path.ancestors().filter(|dir| !dir.is_root()).collect();
    above.reverse();
    for dir in above {
        match mkdirat(root.as_fd(), dir.as_path(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(at("create", dir.as_path())(errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::make::fill;
    use super::*;
    use crate::fs::{Meta, Time};
    use crate::rootfs::dirs::view_of;
    use crate::sys::Cancel;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::process::Command;

    /// Makes layers by a script that runs in a directory with `0`, `1` and `2` in it.
    fn layers(script: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = (0..3).map(|n| dir.path().join(n.to_string())).collect();
        for layer in &layers {
            fs::create_dir(layer).unwrap();
        }
        let hide = "hide() { mknod $1 c 0 0; }; opaque() { mkdir -p $1; setfattr -n \
                    trusted.overlay.opaque -v y $1; };";
        let made = Command::new("sh")
            .args(["-ec", &format!("{hide} {script}")])
            .current_dir(dir.path())
            .status();
        assert!(made.unwrap().success(), "{script}");
        (dir, layers)
    }

    /// Lists a directory: path, mode, time, and content or number of names.
    fn listing(dir: &Path) -> Vec<String> {
        let script =
            "find . -printf '%P %y %m %T@ %n %l ' -type f -exec cat {} + -o -printf '\\n' | sort";
        let listed = Command::new("sh")
            .args(["-c", script])
            .current_dir(dir)
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_root_of_moved_layers_is_that_of_copied_ones() {
        // Layers, what is kept, and what is moved for certain.
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "mkdir -p 0/a/b 0/c; echo 1 > 0/a/b/f; ln -s f 0/a/b/l; chmod 711 0/a",
                &[],
                &["a/b/f"],
            ),
            (
                "mkdir -p 0/a/b 0/a/c 1/a/b; echo 1 > 0/a/b/f; echo 2 > 1/a/b/g; echo 3 > 0/a/c/h",
                &[],
                &["a/c/h"],
            ),
            ("mkdir -p 0/a/b 1/a; echo 1 > 0/a/b/f; hide 1/a/b", &[], &[]),
            (
                "mkdir -p 0/a/b 2/a/b; mkdir 1/a; echo 1 > 0/a/b/f; hide 1/a/b",
                &[],
                &[],
            ),
            ("mkdir -p 0/a/b; echo 1 > 0/a/b/f; opaque 1/a", &[], &[]),
            (
                "mkdir -p 0/a/b 1/a; echo 1 > 0/a/b/f; opaque 1/a/b; echo 2 > 1/a/b/g",
                &[],
                &[],
            ),
            (
                "mkdir -p 0/a 0/b 0/c; echo 1 > 0/a/f; ln 0/a/f 0/b/g; ln 0/a/f 0/c/h; echo 2 > 0/c/i",
                &[],
                &[],
            ),
            (
                "mkdir -p 0/a/b 1/c/d 2/e; echo 1 > 0/a/b/f; echo 2 > 1/c/d/f; echo 3 > 2/e/f",
                &[],
                &["a/b/f", "c/d/f"],
            ),
            (
                "mkdir -p 0/a/b 0/a/c; echo 1 > 0/a/b/f; echo 2 > 0/a/c/f",
                &["/a/b/kept"],
                &["a/c/f"],
            ),
            (
                "mkdir -p 0/a/b 1/a; echo 1 > 0/a/b/f; chmod 700 1/a",
                &[],
                &["a/b/f"],
            ),
        ];
        for (script, kept, moved) in table {
            let (dir, layers) = layers(script);
            let mut tree = Tree::default();
            for layer in &layers {
                tree.push(Arc::new(view_of(layer).unwrap()));
            }
            let guard = kept
                .iter()
                .fold(Guard::default(), |guard, path| guard.with(Path::new(path)));
            let top = Meta::dir(0o755, Time::default());
            let cancel = Cancel::new().unwrap();
            let root = |name: &str, movable: &[PathBuf]| {
                let path = dir.path().join(name);
                fs::create_dir(&path).unwrap();
                let fd: Arc<OwnedFd> = Arc::new(fs::File::open(&path).unwrap().into());
                fill(&fd, &tree, &top, &guard, movable, &cancel).unwrap();
                path
            };
            let number = |path: PathBuf| fs::symlink_metadata(path).unwrap().ino();
            let numbers: Vec<u64> = moved
                .iter()
                .map(|path| {
                    layers
                        .iter()
                        .map(|dir| dir.join(path))
                        .find(|path| path.exists())
                })
                .map(|path| number(path.unwrap()))
                .collect();
            let copied = listing(&root("copied", &[]));
            // The top layer is not to be moved.
            let path = root("moved", &layers[..2]);
            assert_eq!(listing(&path), copied, "{script}");
            for (moved, before) in moved.iter().zip(numbers) {
                assert_eq!(number(path.join(moved)), before, "{script}: {moved}");
            }
        }
    }
}
