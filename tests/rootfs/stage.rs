//! A base image of three layers, a root over it and the tree that describes it.

use crate::operations::{Op, Tolerance};
use rustix::mount::{MountFlags, OpenTreeFlags};
use shutter::changeset::{Action, Changeset, full_walk};
use shutter::fs::{
    self, Content, Firsts, Kind, LayerView, Meta, Node, RelPath, Source, Stat, Toc, TocEntry, Tree,
};
use shutter::rootfs::{Contents, Entry, Fuse, Guard, Live, Lower, Overlay, Rootfs};
use shutter::sys::Cancel;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Every sort of root.
pub const ALL: [Sort; 5] = [
    Sort::Overlay,
    Sort::Fuse,
    Sort::FusePlain,
    Sort::Chroot,
    Sort::InPlace,
];

/// A sort of root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Overlay,
    /// Where the kernel reads and writes contents itself.
    Fuse,
    /// Where it does not.
    FusePlain,
    Chroot,
    /// In the root of the process, which is a directory that it has locked itself into.
    InPlace,
}

impl Sort {
    pub fn name(self) -> &'static str {
        match self {
            Sort::Overlay => "overlay",
            Sort::Fuse => "fuse",
            Sort::FusePlain => "fuse_plain",
            Sort::Chroot => "chroot",
            Sort::InPlace => "in_place",
        }
    }

    /// Makes a root over layer directories.
    pub fn root(self, scratch: PathBuf, layers: Vec<PathBuf>) -> Box<dyn Rootfs> {
        let fuse = |layers: Vec<PathBuf>| {
            let top = top_of(layers.last());
            let lowers = layers.into_iter().map(Lower::from).collect();
            Fuse::new(scratch.clone(), lowers, top).expect("a root")
        };
        match self {
            Sort::Overlay => Box::new(Overlay::new(scratch, layers).expect("a root")),
            Sort::Fuse => Box::new(fuse(layers)),
            Sort::FusePlain => Box::new(fuse(layers).with_contents(Contents::Builder)),
            Sort::Chroot => {
                let lowers = layers.into_iter().map(|dir| Lower {
                    view: Some(Arc::new(view_of(&dir))),
                    dir,
                });
                let lowers: Vec<Lower> = lowers.collect();
                let cancel = Cancel::new().expect("a switch");
                Box::new(Live::chroot(scratch, &lowers, &top_of(None), &cancel).expect("a root"))
            }
            Sort::InPlace => Box::new(in_place(&scratch, &layers)),
        }
    }
}

pub struct Stage {
    pub root: Box<dyn Rootfs>,
    sort: Sort,
    pub tree: Tree,
    /// Before the directory, which is removed from outside.
    _out: Option<WayOut>,
    pub dir: tempfile::TempDir,
    base: Tree,
}

/// The variable that says where roots are made, in place of cargo's own directory.
pub const ROOM: &str = "SHUTTER_TEST_ROOM";

/// Makes a directory on a file system that can carry an upper directory.
pub fn directory() -> tempfile::TempDir {
    let dir = match std::env::var_os(ROOM) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    tempfile::tempdir_in(dir).expect("a directory")
}

pub fn scratch(dir: &Path) -> PathBuf {
    let scratch = dir.join("scratch");
    std::fs::create_dir(&scratch).expect("a directory");
    scratch
}

/// Gives the attribute by which a layer here hides what is below.
pub fn opaque() -> &'static str {
    match shutter::sys::in_user_namespace() {
        true => "user.overlay.opaque",
        false => "trusted.overlay.opaque",
    }
}

/// Makes layers of one file each: `file-N` with N in it.
pub fn thin_layers(dir: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|n| {
            let layer = dir.join(format!("layer-with-a-name-as-long-as-a-digest-{n:024}"));
            std::fs::create_dir(&layer).expect("a directory");
            std::fs::write(layer.join(format!("file-{n}")), n.to_string()).expect("a file");
            layer
        })
        .collect()
}

fn top_of(layer: Option<&PathBuf>) -> Meta {
    match layer {
        Some(layer) => {
            let fd: OwnedFd = std::fs::File::open(layer).expect("a directory").into();
            let stat = fs::stat_at(fd.as_fd(), b"").expect("stat");
            stat.expect("a directory").meta
        }
        None => Meta::dir(0o755, Default::default()),
    }
}

/// Locks the process into a directory, with `/proc` and a directory of the builder's own, and makes
/// the root there.
fn in_place(jail: &Path, layers: &[PathBuf]) -> Live {
    let mut tree = Tree::default();
    for layer in layers {
        tree.push(Arc::new(view_of(layer)));
    }
    for dir in ["proc", "builder", "left/over"] {
        std::fs::create_dir_all(jail.join(dir)).expect("a directory");
    }
    std::fs::write(jail.join("left/over/file"), "of an earlier build").expect("a file");
    let proc = jail.join("proc");
    rustix::mount::mount("proc", &proc, "proc", MountFlags::empty(), None).expect("mount /proc");
    rustix::process::chroot(jail).expect("chroot");
    std::env::set_current_dir("/").expect("enter the root");
    let cancel = Cancel::new().expect("a switch");
    let guard = Guard::default();
    Live::in_place("/builder".into(), &tree, &top_of(None), guard, &[], &cancel).expect("a root")
}

/// The way back from a directory that the process has locked itself into.
pub struct WayOut(OwnedFd);

impl Drop for WayOut {
    fn drop(&mut self) {
        rustix::process::fchdir(&self.0).expect("leave the root");
        rustix::process::chroot(".").expect("leave the root");
    }
}

/// Gives the directory that a step's commands would have as their root.
pub fn mounted(root: &dyn Rootfs) -> &Path {
    match root.entry() {
        Entry::Pivot(path) | Entry::Chroot(path) => path,
        Entry::Stay => Path::new("/"),
    }
}

impl Stage {
    pub fn new(sort: Sort) -> Stage {
        let dir = directory();
        let layers = base_layers(dir.path());
        let mut tree = Tree::default();
        for layer in &layers {
            tree.push(Arc::new(view_of(layer)));
        }
        Stage {
            _out: (sort == Sort::InPlace).then(|| {
                let root = std::fs::File::open("/").expect("the root");
                WayOut(root.into())
            }),
            root: sort.root(scratch(dir.path()), layers),
            sort,
            base: tree.clone(),
            tree,
            dir,
        }
    }

    /// Runs steps, and after each one compares what was tracked with a full walk. Gives what the
    /// layer of each step says.
    pub fn run(mut self, steps: &[Vec<Op>], tolerance: Tolerance) -> Vec<Vec<String>> {
        let mut told = Vec::new();
        let mut merged: Option<Changeset> = None;
        for (number, step) in steps.iter().enumerate() {
            let mut twin = self.root.fork().ok();
            assert!(twin.is_some() || self.sort == Sort::InPlace);
            self.root.begin().expect("begin");
            for op in step {
                match op.run(mounted(&*self.root)) {
                    Ok(()) => {}
                    Err(_) if tolerance == Tolerance::Refusals => {}
                    Err(error) => panic!("step {number}: {op:?}: {error}"),
                }
            }
            let walked = self.walk(&*self.root);
            let wanted = describe(&walked, Detail::All);
            drop(walked);

            let tracked = self
                .root
                .commit()
                .expect("commit")
                .settle(&self.tree)
                .expect("settle");
            let got = describe(&tracked, Detail::All);
            assert_same(
                &got,
                &wanted,
                &format!("step {number}, what was tracked"),
                step,
            );

            told.push(describe(&tracked, Detail::Timeless));

            // From here on the files are seen through the stack, and the tree says the same.
            let tracked = Arc::new(tracked);
            self.tree.push(Arc::new(tracked.view().expect("a view")));
            let left = describe(&self.walk(&*self.root), Detail::All);
            assert_same(
                &left,
                &[],
                &format!("step {number}, the stack after it"),
                step,
            );

            // Another root to which the changeset is applied shows the same.
            if let Some(twin) = &mut twin {
                twin.apply(&tracked, &Cancel::new().expect("a switch"))
                    .expect("apply");
                let left = describe(&self.walk(&**twin), Detail::All);
                assert_same(
                    &left,
                    &[],
                    &format!("step {number}, applied to a fork"),
                    step,
                );
            }
            let tracked = (*tracked).clone();

            merged = Some(match merged {
                None => tracked,
                Some(merged) => merged.merge(tracked).expect("merge"),
            });
        }
        let all = merged
            .unwrap_or_default()
            .settle(&self.base)
            .expect("settle");
        self.tree = self.base.clone();
        let wanted = describe(&self.walk(&*self.root), Detail::Merged);
        let got = describe(&all, Detail::Merged);
        assert_same(&got, &wanted, "all steps merged", &steps.concat());
        told
    }

    fn walk(&self, root: &dyn Rootfs) -> Changeset {
        let root = root
            .root()
            .expect("a root")
            .try_clone_to_owned()
            .expect("a descriptor");
        // Without what is mounted in it, which is not the root's.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let root = match self.sort {
            Sort::InPlace => rustix::mount::open_tree(&root, "", flags).expect("a clone"),
            _ => root,
        };
        let mut changes = full_walk(&Arc::new(root), &self.tree).expect("a walk");
        // What is the builder's is not the image's.
        let own: Vec<RelPath> = ["proc", "builder"]
            .iter()
            .filter_map(|name| RelPath::clean(name.as_bytes()))
            .collect();
        changes
            .changes
            .retain(|change| !own.iter().any(|own| change.path.is_within(own)));
        changes
    }
}

fn assert_same(got: &[String], wanted: &[String], what: &str, script: &[Op]) {
    if got == wanted {
        return;
    }
    let short = |script: &[Op]| match script.len() {
        0..200 => format!("{script:#?}"),
        n => format!("{n} operations"),
    };
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter()
            .filter(|line| !b.contains(line))
            .take(40)
            .cloned()
            .collect()
    };
    panic!(
        "{what}\nonly here: {:#?}\nonly in the full walk: {:#?}\nafter {}",
        only(got, wanted),
        only(wanted, got),
        short(script)
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    All,
    /// What can be said over several steps. A directory of which only the time changed is no
    /// change, so its time may be that of an earlier step; and a name that a later step brings in
    /// is not known to be one of an earlier step's file, so the content stands for the link.
    Merged,
    /// All but when: the times that a script leaves to the clock differ from run to run.
    Timeless,
}

/// Writes a changeset down, a line a change.
fn describe(changeset: &Changeset, detail: Detail) -> Vec<String> {
    changeset
        .changes
        .iter()
        .map(|change| match &change.action {
            Action::Delete => format!("{:?} deleted", change.path),
            Action::Opaque(_) => format!("{:?} opaque", change.path),
            Action::Put { meta, source, link } => {
                let mut meta = meta.clone();
                if detail == Detail::Merged && meta.kind == Kind::Dir {
                    meta.mtime = Default::default();
                }
                // What a script sets is long past.
                if detail == Detail::Timeless && meta.mtime.secs > 1 << 30 {
                    meta.mtime = Default::default();
                }
                let (source, link) = match link.as_ref().map(|first| changeset.get(first)) {
                    Some(Some(Action::Put { source, .. })) if detail == Detail::Merged => {
                        (source, &None)
                    }
                    _ => (source, link),
                };
                let content = source.as_ref().map(hash);
                format!(
                    "{:?} {meta:?} link {link:?} content {content:?}",
                    change.path
                )
            }
        })
        .collect()
}

fn hash(source: &Source) -> String {
    let mut content = Vec::new();
    source
        .open()
        .and_then(|mut reader| reader.read_to_end(&mut content))
        .unwrap_or_else(|error| panic!("{source:?}: {error}"));
    format!(
        "{} bytes, {}",
        content.len(),
        blake3::hash(&content).to_hex()
    )
}

/// Describes a layer directory in overlay form.
fn view_of(dir: &Path) -> LayerView {
    let dir: OwnedFd = std::fs::File::open(dir).expect("a directory").into();
    let all: Mutex<Vec<(RelPath, Stat)>> = Mutex::default();
    let visit = |_: &RelPath, entries: Vec<(RelPath, Stat)>| {
        all.lock().expect("no panic").extend(entries);
        Ok(())
    };
    fs::walk(dir.as_fd(), &RelPath::root(), &visit).expect("walk");
    let mut all = all.into_inner().expect("no panic");
    let top = fs::stat_at(dir.as_fd(), b"")
        .expect("stat")
        .expect("a directory");
    all.push((RelPath::root(), top));
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let mut firsts = Firsts::default();
    let mut entries = Vec::new();
    for (path, stat) in all {
        let node = if stat.is_whiteout() {
            Node::Delete
        } else if stat.is_opaque() {
            Node::Opaque(stat.meta)
        } else {
            Node::Put {
                link: stat.shared().and_then(|file| firsts.tie(file, &path)),
                meta: stat.meta,
                content: None,
            }
        };
        entries.push(TocEntry { path, node });
    }
    LayerView {
        toc: Toc::new(entries),
        content: Content::Dir(Arc::new(dir)),
    }
}

/// Makes the base: files of every kind, and whiteouts and an opaque directory in the upper layers.
fn base_layers(dir: &Path) -> Vec<PathBuf> {
    use Op::*;
    let scripts: [Vec<Op>; 3] = [
        vec![
            Write("file".into(), "content".into()),
            Mkdir("dir".into()),
            Write("dir/a".into(), "aaaa".into()),
            Write("dir/b".into(), "bbbb".into()),
            Symlink("a".into(), "dir/link".into()),
            Mkdir("dir/sub".into()),
            Write("dir/sub/deep".into(), "deep".into()),
            Mkdir("tree".into()),
            Mkdir("tree/sub".into()),
            Write("tree/sub/file".into(), "low".into()),
            Write("tree/one".into(), "low".into()),
            Mkdir("links".into()),
            Write("links/one".into(), "linked".into()),
            Link("links/one".into(), "links/two".into()),
            Mkdir("replaced".into()),
            Write("replaced/old".into(), "old".into()),
            Write("hidden".into(), "hidden".into()),
            Mkdir("tmp".into()),
            Chmod("tmp".into(), 0o1777),
        ],
        vec![
            Char("hidden".into(), 0, 0),
            Mkdir("replaced".into()),
            Xattr("replaced".into(), opaque(), "y".into()),
            Write("replaced/new".into(), "new".into()),
            Mkdir("tree".into()),
            Write("tree/one".into(), "high".into()),
            Chmod("tree/one".into(), 0o755),
        ],
        vec![
            Mkdir("tree".into()),
            Mkdir("tree/sub".into()),
            Write("tree/sub/top".into(), "top".into()),
            Fifo("fifo".into()),
        ],
    ];
    let make = |(number, script): (usize, &Vec<Op>)| {
        let layer = dir.join(format!("layer-{number}"));
        std::fs::create_dir(&layer).expect("a directory");
        for op in script {
            op.run(&layer)
                .unwrap_or_else(|error| panic!("{op:?}: {error}"));
        }
        layer
    };
    scripts.iter().enumerate().map(make).collect()
}
