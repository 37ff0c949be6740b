//! The table of contents of a layer that is unpacked already, from its files.

use super::Error;
use super::files::io_error;
use crate::fs::{Firsts, Kind, Node, RelPath, Source, Stat, Toc, TocEntry, stat, walk};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads a directory in overlay form and hashes every file.
pub(super) fn scan(dir: &Path) -> Result<Toc, Error> {
    let root = RelPath::root();
    let dir = File::open(dir).map_err(|e| io_error("open", &root, e))?;
    let dir = Arc::new(OwnedFd::from(dir));
    let all: Mutex<Vec<(RelPath, Stat, Node)>> = Mutex::default();
    let take = |_: &RelPath, entries: Vec<(RelPath, Stat)>| {
        let mut nodes = Vec::with_capacity(entries.len());
        for (path, stat) in entries {
            let node = node(&dir, &path, &stat)?;
            nodes.push((path, stat, node));
        }
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.append(&mut nodes);
        Ok(())
    };
    walk(dir.as_fd(), &root, &take).map_err(|e| io_error("read", &e.path, e.source))?;
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(stat) = stat(dir.as_fd(), &root).map_err(|e| io_error("read", &root, e))? {
        let node = node(&dir, &root, &stat).map_err(|e| io_error("read", &root, e))?;
        all.push((root, stat, node));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let mut firsts = Firsts::default();
    let mut entries = Vec::with_capacity(all.len());
    for (path, stat, mut node) in all {
        if let Node::Put { link, .. } = &mut node {
            *link = stat.shared().and_then(|file| firsts.tie(file, &path));
        }
        entries.push(TocEntry { path, node });
    }
    Ok(Toc::new(entries))
}

fn node(dir: &Arc<OwnedFd>, path: &RelPath, stat: &Stat) -> std::io::Result<Node> {
    if stat.is_whiteout() {
        return Ok(Node::Delete);
    }
    if stat.is_opaque() {
        return Ok(Node::Opaque(stat.meta.clone()));
    }
    let content = match stat.meta.kind {
        Kind::File => {
            let source = Source::File {
                dir: Arc::clone(dir),
                path: path.clone(),
            };
            let mut hash = blake3::Hasher::new();
            hash.update_reader(source.open()?)?;
            Some(*hash.finalize().as_bytes())
        }
        _ => None,
    };
    Ok(Node::Put {
        meta: stat.meta.clone(),
        content,
        link: None,
    })
}
