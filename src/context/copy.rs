use super::owner::Names;
use super::pick::Pick;
use super::select::{self, Selected};
use super::target::{NewDir, Target};
use super::view::{Inode, Item};
use super::{Error, Fetched, Origin, clean, owner, pick, unpack};
use crate::changeset::Changeset;
use crate::dockerfile::ignore::{self, Ignore};
use crate::fs::{Kind, Meta, RelPath, Source, Time, Tree};
use crate::plan::{Chmod, CopyOp, CopySource, Unpack};
use crate::sys::Cancel;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Carries out a COPY or ADD on paper: what it would put where on `dest`, as a changeset that is not
/// settled yet. No root is needed. `fetched` are the remote sources in their order. `scratch` is an
/// empty directory for what is unpacked from archives; it must live as long as the changeset's
/// sources.
///
/// Directories that have to be made are root's, or whom `--chown` names, with mode 0755 or what an
/// octal `--chmod` says. The destination itself and what lies above it stay as they are where they
/// exist; a directory inside a copied one hands its metadata on, as with BuildKit.
///
/// A linked one ([`CopyOp::is_linked`]) takes no notice of `dest`: what it puts, it puts on nothing,
/// and it is to be settled against nothing. The patterns of `--exclude` are asked for what is in a
/// directory that is copied, not for what is named as a source or matches a source's wildcard, and
/// not for what is in an archive: so it is with BuildKit.
pub fn copy(
    op: &CopyOp,
    from: &Origin<'_>,
    fetched: &[Fetched],
    dest: &Tree,
    scratch: &Path,
    dates: Dates,
    cancel: &Cancel,
) -> Result<Changeset, Error> {
    let CopyOp {
        from: _,
        sources,
        inline,
        dest: written,
        chown,
        chmod,
        unpack,
        link: _,
        parents,
        exclude,
        instruction: _,
    } = op;
    let nothing = Tree::default();
    let (dest, names) = if op.is_linked() {
        (&nothing, Names::Nowhere("with --link"))
    } else if dest.layers().is_empty() {
        (dest, Names::Nowhere("in a stage that starts from scratch"))
    } else {
        (dest, Names::Tree(dest))
    };
    let chown = chown.as_deref().filter(|chown| !chown.is_empty());
    let mut work = Work {
        target: Target::new(dest),
        dest: clean(written)?,
        into: written.ends_with('/'),
        chown: chown.map(|spec| owner::chown(spec, names)).transpose()?,
        chmod: chmod.clone(),
        dates,
        inodes: 0,
        scratch,
        archives: 0,
        cancel,
    };
    let without = pick::without(exclude)?;
    let mut fetched = fetched.iter();
    for (number, source) in sources.iter().enumerate() {
        if cancel.is_set() {
            return Err(Error::Cancelled);
        }
        match source {
            CopySource::Path(source) => {
                let selected = match parents {
                    true => select::with_parents(source, from, &without)?,
                    false => select::plain(source, from, &without)?,
                };
                work.source(source, &selected, from, *unpack)?;
            }
            CopySource::Remote(_) => match fetched.next() {
                Some(fetched) => work.fetched(fetched, &without, *unpack)?,
                None => return Err(Error::NotFetched(number + 1)),
            },
        }
    }
    for (name, content) in inline {
        let meta = Meta::file(0o644, content.len() as u64, dates.made);
        let name = clean(name)?;
        work.file(name.name(), meta, Source::Bytes(content.as_slice().into()))?;
    }
    Ok(work.target.finish())
}

/// The times of what a COPY or ADD puts somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Dates {
    /// Of directories and files that the step itself makes.
    pub made: Time,
    /// Of what is copied, where that is not the source's; what is in an archive keeps its own.
    pub copied: Option<Time>,
}

impl Dates {
    /// Leaves what is copied its times.
    pub fn made(time: Time) -> Dates {
        Dates {
            made: time,
            copied: None,
        }
    }
}

/// One COPY under way.
pub(super) struct Work<'a> {
    pub(super) target: Target<'a>,
    /// The destination as written, cleaned.
    dest: RelPath,
    /// Whether it must be a directory.
    into: bool,
    chown: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    dates: Dates,
    /// The last inode number given.
    inodes: u64,
    scratch: &'a Path,
    /// How many archives have been unpacked.
    archives: u64,
    cancel: &'a Cancel,
}

impl Work<'_> {
    fn new_dir(&self) -> NewDir {
        let mode = self.chmod.as_ref().map_or(0o755, Chmod::made);
        NewDir::of(mode, self.chown, self.dates.made)
    }

    /// Copies what a source of the origin means.
    fn source(
        &mut self,
        written: &str,
        selected: &Selected<'_>,
        from: &Origin<'_>,
        unpack: Unpack,
    ) -> Result<(), Error> {
        if let Some((root, below)) = &selected.wanted {
            let wanted = from.resolve(root)?.join_path(below);
            if from.get(&wanted)?.is_none() {
                return Err(from.missing(&root.join_path(below), &wanted)?);
            }
        }
        for name in &selected.names {
            if self.cancel.is_set() {
                return Err(Error::Cancelled);
            }
            let path = from.resolve(name)?;
            let Some(item) = from.get(&path)? else {
                return Err(from.missing(name, &path)?);
            };
            if unpack != Unpack::Never && item.meta.kind == Kind::File {
                let content = from.source(&item);
                if self.unpack(&path, content.as_ref())? {
                    continue;
                }
            }
            let source = |item: &Item| from.source(item);
            if item.meta.kind != Kind::Dir {
                self.place(name.name(), &item, Vec::new(), source)?;
                continue;
            }
            let below = from.below(&path, &selected.pick)?;
            // A directory that the ignore file leaves out is there only for what is kept in it.
            match below.alive {
                true => self.place(name.name(), &item, below.items, source)?,
                false if ignore::has_wildcards(written) => {}
                false => return Err(Error::LeftOut(name.clone())),
            }
        }
        Ok(())
    }

    /// Copies what was fetched for a source.
    fn fetched(
        &mut self,
        fetched: &Fetched,
        without: &Ignore,
        unpack: Unpack,
    ) -> Result<(), Error> {
        match fetched {
            Fetched::File { name, meta, source } => {
                let path = RelPath::clean(name).unwrap_or_default();
                if unpack == Unpack::All && self.unpack(&path, Some(source))? {
                    return Ok(());
                }
                self.file(path.name(), meta.clone(), source.clone())
            }
            Fetched::Directory(context) => {
                let (from, root) = (Origin::Context(context), RelPath::root());
                let Some(item) = from.get(&root)? else {
                    return Err(Error::NotFound(root));
                };
                let below = from.below(&root, &Pick::all(without))?;
                self.place(b"", &item, below.items, |item| from.source(item))
            }
        }
    }

    /// Copies a file that has no origin.
    fn file(&mut self, name: &[u8], meta: Meta, content: Source) -> Result<(), Error> {
        let item = Item {
            path: RelPath::root(),
            meta,
            inode: None,
            stamp: None,
            bare: false,
        };
        self.place(name, &item, Vec::new(), |_| Some(content.clone()))
    }

    fn meta(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        if let Some((uid, gid)) = self.chown {
            meta.uid = uid;
            meta.gid = gid;
        }
        if let Some(chmod) = &self.chmod
            && meta.kind != Kind::Symlink
        {
            meta.mode = chmod.apply(meta.mode, meta.kind == Kind::Dir);
        }
        if let Some(date) = self.dates.copied {
            meta.mtime = date;
        }
        meta
    }

    pub(super) fn next_inode(&mut self) -> u64 {
        self.inodes += 1;
        self.inodes
    }

    /// Puts a file, or a directory's content, where the destination says. `name` is what the source
    /// was called, `below` what is below it.
    fn place(
        &mut self,
        name: &[u8],
        item: &Item,
        below: Vec<Item>,
        source: impl Fn(&Item) -> Option<Source>,
    ) -> Result<(), Error> {
        let root = RelPath::root();
        let new = self.new_dir();
        let ensure = if self.into {
            Some(self.dest.clone())
        } else {
            self.dest.parent()
        };
        if let Some(ensure) = ensure {
            let ensure = self.target.resolve(&root, &ensure)?;
            self.target.make_directories(&ensure, &new)?;
        }
        let mut to = self.target.resolve(&root, &self.dest)?;
        let there = self.target.get(&to).map(|meta| meta.kind);
        if item.meta.kind != Kind::Dir {
            if there == Some(Kind::Dir) && !name.is_empty() {
                to = to.join(name);
            }
            if let Some(parent) = to.parent() {
                self.target.make_directories(&parent, &new)?;
            }
            return self.put(to, item, &source, &mut HashMap::new());
        }
        match there {
            Some(Kind::Dir) => {}
            Some(_) => return Err(Error::OverFile(to)),
            None => {
                let made = new.at(item.meta.mtime);
                if let Some(parent) = to.parent() {
                    self.target.make_directories(&parent, &new)?;
                }
                self.target.make_directories(&to, &made)?;
            }
        }
        let mut names = HashMap::new();
        for below in below {
            let Some(rest) = below.path.strip(&item.path) else {
                continue;
            };
            self.put(to.join_path(&rest), &below, &source, &mut names)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        to: RelPath,
        item: &Item,
        source: &impl Fn(&Item) -> Option<Source>,
        names: &mut HashMap<Inode, u64>,
    ) -> Result<(), Error> {
        let meta = self.meta(&item.meta);
        check_kind(&to, &meta)?;
        let there = self.target.get(&to);
        match (meta.kind, there.as_ref().map(|meta| meta.kind)) {
            // A directory that only leads to what is copied has its mode from the source where it
            // is there already, and nothing else.
            (Kind::Dir, Some(Kind::Dir)) if item.bare => {
                if let Some(there) = there {
                    let mode = item.meta.mode;
                    self.target.put_dir(to, Meta { mode, ..there });
                }
            }
            (Kind::Dir, None | Some(Kind::Dir)) => self.target.put_dir(to, meta),
            (Kind::Dir, Some(_)) => return Err(Error::OverFile(to)),
            (_, Some(Kind::Dir)) => return Err(Error::OverDirectory(to)),
            (kind, _) => {
                let content = match kind {
                    Kind::File => Some(source(item).ok_or_else(|| {
                        Error::io("read", &item.path, std::io::ErrorKind::NotFound)
                    })?),
                    _ => None,
                };
                let inode = item.inode.as_ref().map(|inode| {
                    let inodes = &mut self.inodes;
                    *names.entry(inode.clone()).or_insert_with(|| {
                        *inodes += 1;
                        *inodes
                    })
                });
                self.target.put_other(to, meta, content, inode);
            }
        }
        Ok(())
    }

    /// Unpacks an archive into the destination; false where the file is none.
    fn unpack(&mut self, path: &RelPath, content: Option<&Source>) -> Result<bool, Error> {
        let Some(content) = content else {
            return Ok(false);
        };
        if !unpack::is_archive(path, content)? {
            return Ok(false);
        }
        let room: PathBuf = self.scratch.join(self.archives.to_string());
        self.archives += 1;
        let to = self.target.resolve(&RelPath::root(), &self.dest)?;
        let new = NewDir::of(0o755, self.chown, self.dates.made);
        self.target.make_directories(&to, &new)?;
        unpack::unpack(self, path, content, &to, &room, self.cancel)?;
        Ok(true)
    }

    /// Gives an archive entry's metadata as it is put.
    pub(super) fn unpacked(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        if let Some((uid, gid)) = self.chown {
            meta.uid = uid;
            meta.gid = gid;
        }
        if meta.kind == Kind::Symlink {
            // Whatever an archive says, a link on a disk has all permissions.
            meta.mode = 0o777;
        }
        meta
    }

    /// Gives what a directory is like that an archive needs and does not have: root's, whoever
    /// `--chown` names.
    pub(super) fn implied(&self) -> NewDir {
        NewDir::of(0o755, Some((0, 0)), self.dates.made)
    }
}

/// Refuses what would not be a file to those who take the layer up.
pub(super) fn check_kind(to: &RelPath, meta: &Meta) -> Result<(), Error> {
    if meta.kind == Kind::Char && meta.device == (0, 0) {
        return Err(Error::Whiteout(to.clone()));
    }
    Ok(())
}
