use super::path::same_start;
use super::toc::{ContentId, Node};
use super::{Kind, Meta, RelPath, Source, Time, Toc};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How many symbolic links one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;
/// How many components may be waiting while links are followed: more than any path has.
const MAX_PARTS: usize = 1 << 16;

/// One layer as a tree sees it: its table of contents and where its files' content lies.
pub struct LayerView {
    /// The table.
    pub toc: Toc,
    /// Where the content is.
    pub content: Content,
}

/// Gives where the content of a path lies.
pub type FindSource = Arc<dyn Fn(&RelPath) -> Option<Source> + Send + Sync>;

/// Where the content of a layer's files lies.
pub enum Content {
    /// Beneath a directory, each file at its own path.
    Dir(Arc<OwnedFd>),
    /// One source a path, for a layer that has no directory of its own.
    Each(std::collections::HashMap<RelPath, Source>),
    /// Wherever a function says, by path; for a layer whose sources something else holds already.
    Of(FindSource),
}

/// The whole file system of an image as an index: layers one over the other, without a mount.
///
/// Cheap to clone. Whiteouts and opaque directories are taken into account everywhere.
#[derive(Clone, Default)]
pub struct Tree {
    layers: Vec<Arc<LayerView>>,
}

/// What a tree has at a path.
#[derive(Clone, Debug)]
pub struct Found {
    /// The metadata.
    pub meta: Meta,
    /// The content's BLAKE3, where it has been taken.
    pub content: Option<ContentId>,
    /// The first name in the same layer, where this one is a hard link.
    pub link: Option<RelPath>,
    /// The layer it comes from, 0 at the bottom.
    pub layer: usize,
}

/// What `resolve` does with a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// Follow it.
    Follow,
    /// Leave it.
    Keep,
}

impl Tree {
    /// Puts one more layer on top.
    pub fn push(&mut self, layer: Arc<LayerView>) {
        self.layers.push(layer);
    }

    /// Gives the layers, bottom first.
    pub fn layers(&self) -> &[Arc<LayerView>] {
        &self.layers
    }

    /// Looks a path up; symbolic links are not followed, also not on the way. The root is always there.
    pub fn get(&self, path: &RelPath) -> Option<Found> {
        for (at, layer) in self.layers.iter().enumerate().rev() {
            match layer.toc.find(path.as_bytes()) {
                Ok(own) => return found(layer.toc.node(own)?, at),
                Err(place) if hides(&layer.toc, path.as_bytes(), place) => return None,
                Err(_) => {}
            }
        }
        path.is_root().then(Found::root)
    }

    /// Follows symbolic links inside the root, on the way and at the end (`last_link` says whether
    /// at the end too); what does not exist stays as written. Gives up after 40 links.
    pub fn resolve(&self, path: &RelPath, last_link: LastLink) -> io::Result<RelPath> {
        let mut done = RelPath::root();
        // What is still to be walked, last component first.
        let mut todo: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        todo.reverse();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                done = done.parent().unwrap_or_default();
                continue;
            }
            let here = done.join(&name);
            let keep = todo.is_empty() && last_link == LastLink::Keep;
            let target = match self.get(&here) {
                Some(found) if found.meta.kind == Kind::Symlink && !keep => found.meta.target,
                _ => {
                    done = here;
                    continue;
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            // No file system gives such a target, but a damaged table may.
            if target.contains(&0) {
                return Err(rustix::io::Errno::INVAL.into());
            }
            if target.first() == Some(&b'/') {
                done = RelPath::root();
            }
            let parts = target.split(|&c| c == b'/').rev();
            todo.extend(
                parts
                    .filter(|part| !matches!(*part, b"" | b"."))
                    .map(<[u8]>::to_vec),
            );
            if todo.len() > MAX_PARTS {
                return Err(rustix::io::Errno::NAMETOOLONG.into());
            }
        }
        Ok(done)
    }

    /// Lists a directory in order of names; nothing where it is no directory. A directory that a
    /// layer has files in but no entry for is listed where a layer below has it.
    pub fn children(&self, dir: &RelPath) -> Vec<(Vec<u8>, Found)> {
        self.list(&self.levels(dir), dir.as_bytes().len())
            .into_iter()
            .map(|(name, child)| (name.to_vec(), child.found))
            .collect()
    }

    /// Visits a path and everything below it in canonical order.
    pub fn walk(&self, top: &RelPath, visit: &mut dyn FnMut(&RelPath, &Found)) {
        let Some(found) = self.get(top) else { return };
        let is_dir = found.meta.kind == Kind::Dir;
        visit(top, &found);
        if is_dir {
            self.walk_below(top, &self.levels(top), visit);
        }
    }

    fn walk_below(&self, dir: &RelPath, levels: &[Level], visit: &mut dyn FnMut(&RelPath, &Found)) {
        // A stack of its own: how deep a layer nests is not for the layer to decide.
        let list = |dir: &RelPath, levels: &[Level]| self.list(levels, dir.as_bytes().len());
        let mut stack = vec![(dir.clone(), list(dir, levels).into_iter())];
        while let Some((dir, rest)) = stack.last_mut() {
            let Some((name, child)) = rest.next() else {
                stack.pop();
                continue;
            };
            let path = dir.join(name);
            visit(&path, &child.found);
            if child.found.meta.kind == Kind::Dir && !child.levels.is_empty() {
                let below = list(&path, &child.levels);
                stack.push((path, below.into_iter()));
            }
        }
    }

    /// Gives the parts of the layers that a directory's content is made of, top first.
    pub(super) fn levels(&self, dir: &RelPath) -> Vec<Level> {
        let path = dir.as_bytes();
        let mut out = Vec::new();
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let toc = &layer.toc;
            let closed = match toc.find(path) {
                Ok(own) => match toc.node(own) {
                    Some(Node::Put { meta, .. }) if meta.kind == Kind::Dir => hides(toc, path, own),
                    Some(Node::Opaque(_)) => true,
                    // Nothing can be below it, here or further down.
                    _ => break,
                },
                Err(place) => hides(toc, path, place),
            };
            let below = toc.below(path);
            if !below.is_empty() {
                out.push(Level { layer: at, below });
            }
            if closed {
                break;
            }
        }
        out
    }

    /// Merges what the levels of one directory have in it, in order of names.
    pub(super) fn list(&self, levels: &[Level], dir_len: usize) -> BTreeMap<&[u8], Child> {
        let mut names: BTreeMap<&[u8], Slot> = BTreeMap::new();
        for level in levels {
            let Some(layer) = self.layers.get(level.layer) else {
                continue;
            };
            for group in layer.toc.groups(level.below.clone(), dir_len) {
                // A damaged table may name what is no name.
                if !RelPath::is_name(group.name) {
                    continue;
                }
                let slot = names.entry(group.name).or_default();
                slot.add(layer, level.layer, group.own, group.below);
            }
        }
        names
            .into_iter()
            .filter_map(|(name, slot)| Some((name, slot.child()?)))
            .collect()
    }

    /// Merges what the levels of one directory say of one name in it.
    pub(super) fn pick_child(
        &self,
        levels: &[Level],
        dir_len: usize,
        name: &[u8],
    ) -> Option<Child> {
        let mut slot = Slot::default();
        let mut path: Vec<u8> = Vec::new();
        for level in levels {
            let Some(layer) = self.layers.get(level.layer) else {
                continue;
            };
            if path.is_empty() {
                // Every table has the directory at the same path.
                let dir = layer.toc.path(level.below.start).get(..dir_len)?;
                path.extend_from_slice(dir);
                if dir_len > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            }
            let own = layer.toc.find(&path).ok();
            let below = layer.toc.below(&path);
            slot.add(layer, level.layer, own, below);
            if slot.closed {
                break;
            }
        }
        slot.child()
    }

    /// Gives where the content of a regular file can be read.
    pub fn source(&self, path: &RelPath) -> Option<Source> {
        let found = self.get(path)?;
        if found.meta.kind != Kind::File {
            return None;
        }
        match &self.layers.get(found.layer)?.content {
            // A hard link is one on disk too, so every name will do.
            Content::Dir(dir) => Some(Source::File {
                dir: Arc::clone(dir),
                path: path.clone(),
            }),
            Content::Each(sources) => sources
                .get(path)
                .or_else(|| sources.get(found.link.as_ref()?))
                .cloned(),
            Content::Of(sources) => sources(path).or_else(|| sources(found.link.as_ref()?)),
        }
    }

    /// Reads a small file, following links; `None` where there is none. An error above `limit` bytes.
    pub fn read(&self, path: &RelPath, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let path = self.resolve(path, LastLink::Follow)?;
        let Some(source) = self.source(&path) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        source
            .open()?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{path} has more than {limit} bytes"),
            ));
        }
        Ok(Some(bytes))
    }
}

impl Found {
    /// The root of a tree that says nothing of its root.
    fn root() -> Found {
        Found {
            meta: Meta::dir(0o755, Time::default()),
            content: None,
            link: None,
            layer: 0,
        }
    }
}

/// A part of one layer: entries below some directory.
#[derive(Clone)]
pub(super) struct Level {
    layer: usize,
    below: Range<usize>,
}

/// A name in a directory, with what its own content is made of.
pub(super) struct Child {
    pub found: Found,
    /// Its entry in the table of its layer.
    pub entry: usize,
    pub levels: Vec<Level>,
}

/// A name in a directory while the layers are merged.
#[derive(Default)]
struct Slot {
    found: Option<(Found, usize)>,
    levels: Vec<Level>,
    closed: bool,
}

impl Slot {
    /// Takes in what the next layer below says of the name.
    fn add(&mut self, layer: &LayerView, at: usize, own: Option<usize>, below: Range<usize>) {
        if self.closed {
            return;
        }
        let mut nested = true;
        if let Some((own, node)) = own.and_then(|own| Some((own, layer.toc.node(own)?))) {
            let dir = match &node {
                Node::Put { meta, .. } => meta.kind == Kind::Dir,
                Node::Opaque(_) => true,
                Node::Delete => false,
            };
            self.closed = !dir || matches!(node, Node::Opaque(_));
            nested = dir;
            if self.found.is_none() {
                self.found = found(node, at).map(|found| (found, own));
            }
        }
        if nested && !below.is_empty() {
            self.levels.push(Level { layer: at, below });
        }
    }

    fn child(self) -> Option<Child> {
        let (found, entry) = self.found?;
        Some(Child {
            found,
            entry,
            levels: self.levels,
        })
    }
}

fn found(node: Node, layer: usize) -> Option<Found> {
    let (meta, content, link) = match node {
        Node::Put {
            meta,
            content,
            link,
        } => (meta, content, link),
        Node::Opaque(meta) => (meta, None, None),
        Node::Delete => return None,
    };
    Some(Found {
        meta,
        content,
        link,
        layer,
    })
}

/// Tells whether a table hides what the layers below have at a path, which stands or would stand at
/// `place`: by a whiteout, an opaque directory or something that is no directory
/// above it.
fn hides(toc: &Toc, path: &[u8], place: usize) -> bool {
    // A directory above the path that has an entry stands before `place`, and so does everything
    // in it: the entry just before is in that directory or is it.
    let Some(before) = place.checked_sub(1).map(|at| toc.path(at)) else {
        return false;
    };
    let common = same_start(before, path);
    let opens = |at: usize| match toc.node(at) {
        Some(Node::Put { meta, .. }) => meta.kind == Kind::Dir,
        Some(Node::Opaque(_)) | Some(Node::Delete) => false,
        None => true,
    };
    let ends = (0..=common.min(path.len())).filter(|&at| {
        at == 0 || path.get(at) == Some(&b'/') && matches!(before.get(at), None | Some(b'/'))
    });
    let mut above = ends
        .map(|at| &path[..at])
        .filter(|dir| dir.len() < path.len());
    above.any(|dir| toc.find(dir).is_ok_and(|own| !opens(own)))
}
