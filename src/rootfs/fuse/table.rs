//! The union in memory: directories merged from the layers as they are looked at, and what the step
//! has made of them.

use super::node::{Body, Content, Dir, Group, Ino, Name, Node, ROOT, now};
use crate::fs::{Below, Kind, LayerView, Levels, Meta, Tree};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// The layers below, with what is found out about them once for all roots over them.
#[derive(Clone, Default)]
pub(super) struct Base {
    pub tree: Tree,
    links: Vec<Arc<OnceLock<HashMap<usize, u32>>>>,
}

impl Base {
    pub fn push(&mut self, layer: Arc<LayerView>) {
        self.tree.push(layer);
        self.links.push(Arc::default());
    }

    /// Gives the first name of the hard links that an entry is one of, by its index, and how many
    /// they are.
    fn links(&self, layer: usize, entry: usize, linked: bool) -> Option<(usize, u32)> {
        let toc = &self.tree.layers().get(layer)?.toc;
        let counts = self.links.get(layer)?.get_or_init(|| toc.link_counts());
        let first = match linked {
            true => toc.first_name(entry)?,
            false => entry,
        };
        Some((first, *counts.get(&first)?))
    }
}

/// All nodes of one mount.
pub(super) struct Table {
    pub base: Base,
    nodes: Vec<Slot>,
    free: Vec<Ino>,
    /// By layer and first name.
    groups: HashMap<(usize, usize), Ino>,
    /// Numbers of own files that no node has any more.
    pub dropped: Vec<u64>,
    /// How many handles are open that can be written to.
    pub writers: usize,
    /// Files that the kernel still has ready though nobody has them open, oldest first; some may be
    /// open again.
    pub idle: VecDeque<Ino>,
}

enum Slot {
    Node(Box<Node>),
    Free,
    /// The number is only shown.
    Shown,
}

impl Table {
    pub fn new(base: Base, top: Meta) -> Table {
        let mut root = Node::new(top, Body::Other, ROOT);
        root.body = dir(base.tree.top());
        root.lookups = 1;
        Table {
            base,
            nodes: vec![Slot::Shown, Slot::Node(Box::new(root))],
            free: Vec::new(),
            groups: HashMap::new(),
            dropped: Vec::new(),
            writers: 0,
            idle: VecDeque::new(),
        }
    }

    pub fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        match usize::try_from(ino).ok().and_then(|at| self.nodes.get(at)) {
            Some(Slot::Node(node)) => Ok(node),
            _ => Err(Errno::STALE),
        }
    }

    pub fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        match usize::try_from(ino)
            .ok()
            .and_then(|at| self.nodes.get_mut(at))
        {
            Some(Slot::Node(node)) => Ok(node),
            _ => Err(Errno::STALE),
        }
    }

    pub fn dir(&self, ino: Ino) -> Result<&Dir, Errno> {
        self.node(ino)?.dir().ok_or(Errno::NOTDIR)
    }

    pub fn dir_mut(&mut self, ino: Ino) -> Result<&mut Dir, Errno> {
        self.node_mut(ino)?.dir_mut().ok_or(Errno::NOTDIR)
    }

    /// Finds a name in a directory.
    pub fn lookup(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Ino>, Errno> {
        let dir = self.dir(parent)?;
        if let Some(name) = dir.names.get(name) {
            return Ok(name.ino);
        }
        if dir.levels.is_empty() {
            return Ok(None);
        }
        match self.base.tree.pick(&dir.levels, name) {
            Some(below) => self.load(parent, name.into(), below).map(Some),
            None => Ok(None),
        }
    }

    /// Brings in everything the layers have in a directory.
    pub fn list(&mut self, ino: Ino) -> Result<(), Errno> {
        let levels = std::mem::take(&mut self.dir_mut(ino)?.levels);
        if levels.is_empty() {
            return Ok(());
        }
        for (name, below) in self.base.tree.list_levels(&levels) {
            if !self.dir(ino)?.names.contains_key(&name[..]) {
                self.load(ino, name.into(), below)?;
            }
        }
        Ok(())
    }

    fn load(&mut self, parent: Ino, name: Box<[u8]>, below: Below) -> Result<Ino, Errno> {
        let Below {
            found,
            entry,
            levels,
        } = below;
        let body = match found.meta.kind {
            Kind::Dir => dir(levels),
            Kind::File => Body::File(Content::Below {
                layer: u32::try_from(found.layer).map_err(|_| Errno::OVERFLOW)?,
                entry: u32::try_from(entry).map_err(|_| Errno::OVERFLOW)?,
            }),
            _ => Body::Other,
        };
        let mut group = None;
        if found.meta.kind != Kind::Dir {
            let links = self.base.links(found.layer, entry, found.link.is_some());
            if let Some((first, names)) = links {
                let shown = match self.groups.get(&(found.layer, first)) {
                    Some(shown) => *shown,
                    None => {
                        self.nodes.push(Slot::Shown);
                        let shown = self.nodes.len() as Ino - 1;
                        self.groups.insert((found.layer, first), shown);
                        shown
                    }
                };
                group = Some(Group { shown, names });
            }
        }
        let mut node = Node::new(found.meta, body, parent);
        node.ctime = node.meta.mtime;
        node.group = group;
        let ino = self.add(node);
        let name_of = Name {
            ino: Some(ino),
            new: false,
        };
        self.dir_mut(parent)?.names.insert(name, name_of);
        Ok(ino)
    }

    fn add(&mut self, node: Node) -> Ino {
        let slot = Slot::Node(Box::new(node));
        if let Some(ino) = self.free.pop()
            && let Some(place) = usize::try_from(ino)
                .ok()
                .and_then(|at| self.nodes.get_mut(at))
        {
            *place = slot;
            return ino;
        }
        self.nodes.push(slot);
        self.nodes.len() as Ino - 1
    }

    /// Notes that the step has changed a node: it no longer is what a layer has.
    pub fn touch(&mut self, ino: Ino) -> Result<(), Errno> {
        let node = self.node_mut(ino)?;
        node.touched = true;
        node.group = None;
        let parent = node.parent;
        if ino != ROOT {
            self.stir(parent);
        }
        Ok(())
    }

    /// Notes that something in a directory has changed, up to the root.
    pub fn stir(&mut self, dir: Ino) {
        let mut at = dir;
        // A removed directory has no way up; so has one whose parent is gone.
        while let Ok(node) = self.node_mut(at) {
            let parent = node.parent;
            match node.dir_mut() {
                Some(dir) if !dir.stirred => dir.stirred = true,
                _ => break,
            }
            if at == ROOT {
                break;
            }
            at = parent;
        }
    }

    /// Sets the times of a directory in which something has been made or removed.
    fn changed(&mut self, dir: Ino) -> Result<(), Errno> {
        let node = self.node_mut(dir)?;
        let now = now();
        node.meta.mtime = now;
        node.ctime = now;
        node.touched = true;
        self.stir(dir);
        let parent = self.node(dir)?.parent;
        if dir != ROOT {
            self.stir(parent);
        }
        Ok(())
    }

    /// Makes a file of any kind in a directory in which the name is free.
    pub fn make(&mut self, parent: Ino, name: &[u8], meta: Meta, body: Body) -> Result<Ino, Errno> {
        if self.lookup(parent, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        if self.node(parent)?.names == 0 {
            return Err(Errno::NOENT);
        }
        let mut node = Node::new(meta, body, parent);
        node.touched = true;
        let ino = self.add(node);
        self.put(parent, name, ino)?;
        self.changed(parent)?;
        Ok(ino)
    }

    /// Puts a node at a name.
    fn put(&mut self, parent: Ino, name: &[u8], ino: Ino) -> Result<(), Errno> {
        let is_dir = {
            let node = self.node_mut(ino)?;
            node.parent = parent;
            node.is_dir()
        };
        let dir = self.dir_mut(parent)?;
        let new = Name {
            ino: Some(ino),
            new: true,
        };
        dir.names.insert(name.into(), new);
        dir.subdirs += u32::from(is_dir);
        self.stir(parent);
        Ok(())
    }

    /// Takes a name away; what it stood for stays.
    fn take(&mut self, parent: Ino, name: &[u8], ino: Ino) -> Result<(), Errno> {
        let is_dir = self.node(ino)?.is_dir();
        let dir = self.dir(parent)?;
        let below = match dir.names.get(name) {
            Some(name) if !name.new => true,
            // Listed once, a directory no longer knows what was below a name.
            _ => {
                dir.merged
                    && (dir.levels.is_empty() || self.base.tree.pick(&dir.levels, name).is_some())
            }
        };
        let dir = self.dir_mut(parent)?;
        dir.subdirs = dir.subdirs.saturating_sub(u32::from(is_dir));
        if below {
            let gone = Name {
                ino: None,
                new: true,
            };
            dir.names.insert(name.into(), gone);
        } else {
            dir.names.remove(name);
        }
        self.stir(parent);
        Ok(())
    }

    /// Takes note that a node has a name less.
    fn lose(&mut self, ino: Ino) -> Result<(), Errno> {
        let node = self.node_mut(ino)?;
        node.ctime = now();
        node.names = match node.is_dir() {
            true => 0,
            false => node.names.saturating_sub(1),
        };
        if node.names > 0 {
            self.touch(ino)?;
        } else {
            self.free(ino);
        }
        Ok(())
    }

    /// Forgets a node that has no name and that nobody knows.
    pub fn free(&mut self, ino: Ino) {
        let Ok(node) = self.node(ino) else { return };
        let open = node.open.as_ref().is_some_and(|open| open.handles > 0);
        if node.names > 0 || node.lookups > 0 || open || node.copying || ino == ROOT {
            return;
        }
        let successor = node.successor;
        if let Some(Content::Own(number)) = node.content() {
            self.dropped.push(number);
        }
        if let Some(slot) = usize::try_from(ino)
            .ok()
            .and_then(|at| self.nodes.get_mut(at))
        {
            *slot = Slot::Free;
            self.free.push(ino);
        }
        if let Some(successor) = successor
            && let Ok(node) = self.node_mut(successor)
        {
            node.lookups = node.lookups.saturating_sub(1);
            self.free(successor);
        }
    }

    pub fn unlink(&mut self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?.ok_or(Errno::NOENT)?;
        if self.node(ino)?.is_dir() {
            return Err(Errno::ISDIR);
        }
        self.take(parent, name, ino)?;
        self.changed(parent)?;
        self.lose(ino)
    }

    pub fn rmdir(&mut self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?.ok_or(Errno::NOENT)?;
        self.check_empty(ino)?;
        self.take(parent, name, ino)?;
        self.changed(parent)?;
        self.lose(ino)
    }

    fn check_empty(&mut self, dir: Ino) -> Result<(), Errno> {
        self.list(dir)?;
        let mut names = self.dir(dir)?.names.values();
        match names.any(|name| name.ino.is_some()) {
            true => Err(Errno::NOTEMPTY),
            false => Ok(()),
        }
    }

    /// Gives a file one more name.
    pub fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        let node = self.node(ino)?;
        if node.is_dir() {
            return Err(Errno::PERM);
        }
        if node.names == 0 {
            return Err(Errno::NOENT);
        }
        if self.lookup(parent, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.touch(ino)?;
        let node = self.node_mut(ino)?;
        node.names = node.names.checked_add(1).ok_or(Errno::MLINK)?;
        node.ctime = now();
        self.put(parent, name, ino)?;
        self.changed(parent)
    }

    /// Moves what has a name to another, over whatever is there.
    pub fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Result<(), Errno> {
        let ino = self.lookup(from.0, from.1)?.ok_or(Errno::NOENT)?;
        let target = self.lookup(to.0, to.1)?;
        if target == Some(ino) {
            return Ok(());
        }
        if let Some(target) = target {
            match (self.node(ino)?.is_dir(), self.node(target)?.is_dir()) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) => self.check_empty(target)?,
                (false, false) => {}
            }
            self.take(to.0, to.1, target)?;
            self.lose(target)?;
        }
        self.take(from.0, from.1, ino)?;
        self.put(to.0, to.1, ino)?;
        self.moved(ino)?;
        self.changed(from.0)?;
        self.changed(to.0)
    }

    /// Puts what two names stand for in each other's place.
    pub fn exchange(&mut self, a: (Ino, &[u8]), b: (Ino, &[u8])) -> Result<(), Errno> {
        let first = self.lookup(a.0, a.1)?.ok_or(Errno::NOENT)?;
        let second = self.lookup(b.0, b.1)?.ok_or(Errno::NOENT)?;
        if first == second {
            return Ok(());
        }
        self.take(a.0, a.1, first)?;
        self.take(b.0, b.1, second)?;
        self.put(a.0, a.1, second)?;
        self.put(b.0, b.1, first)?;
        self.moved(first)?;
        self.moved(second)?;
        self.changed(a.0)?;
        self.changed(b.0)
    }

    fn moved(&mut self, ino: Ino) -> Result<(), Errno> {
        self.node_mut(ino)?.ctime = now();
        match self.node(ino)?.is_dir() {
            true => Ok(()),
            // What has another name is another file than its hard links below, as on overlay.
            false => self.touch(ino),
        }
    }

    /// Puts another node, which is like it, in a node's place, and gives it: who has the old one open
    /// reads on there.
    pub fn replace(&mut self, ino: Ino, content: Content) -> Result<Ino, Errno> {
        let old = self.node(ino)?;
        // Opened while it had one name, and given another only after it was copied up.
        if old.names != 1 {
            return Err(Errno::BUSY);
        }
        let parent = self.parent_of(ino).ok_or(Errno::BUSY)?;
        let old = self.node(ino)?;
        let mut node = Node::new(old.meta.clone(), Body::File(content), parent);
        (node.atime, node.ctime) = (old.atime, old.ctime);
        node.touched = true;
        node.is_successor = true;
        // The old one knows it.
        node.lookups = 1;
        let new = self.add(node);
        let names = &mut self.dir_mut(parent)?.names;
        if let Some(name) = names.values_mut().find(|name| name.ino == Some(ino)) {
            name.ino = Some(new);
        }
        self.stir(parent);
        let old = self.node_mut(ino)?;
        old.names = 0;
        old.successor = Some(new);
        Ok(new)
    }

    /// Gives the node that stands for a node now: itself, or what has taken its name.
    pub fn current(&self, ino: Ino) -> Ino {
        let mut at = ino;
        while let Ok(node) = self.node(at)
            && let Some(successor) = node.successor
        {
            at = successor;
        }
        at
    }

    /// Finds the directory in which a file with one name has it: not always the one it was last
    /// given a name in, for that name may be the one that is gone.
    fn parent_of(&self, ino: Ino) -> Option<Ino> {
        let has = |dir: &Dir| dir.names.values().any(|name| name.ino == Some(ino));
        let last = self.node(ino).ok()?.parent;
        if self.dir(last).is_ok_and(has) {
            return Some(last);
        }
        let at = self.nodes.iter().position(|slot| match slot {
            Slot::Node(node) => node.dir().is_some_and(has),
            _ => false,
        })?;
        Ino::try_from(at).ok()
    }
}

fn dir(levels: Levels) -> Body {
    Body::Dir(Box::new(Dir {
        merged: !levels.is_empty(),
        levels,
        ..Dir::default()
    }))
}

/// Makes the body of a directory that no layer has.
pub(super) fn new_dir() -> Body {
    dir(Levels::default())
}
