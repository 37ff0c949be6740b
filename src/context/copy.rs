use super::chmod::Chmod;
use super::target::{NewDir, Target};
use super::view::{Inode, Item};
use super::{Error, Fetched, Origin, clean, owner, unpack};
use crate::changeset::Changeset;
use crate::dockerfile::ignore;
use crate::fs::{Kind, Meta, RelPath, Source, Time, Tree};
use crate::plan::{CopyOp, CopySource, Unpack};
use crate::sys::Cancel;
use std::collections::HashMap;
use std::path::Path;

/// Carries out a COPY or ADD on paper: what it would put where on `dest`, as a changeset that is not
/// settled yet. No root is needed. `fetched` are the remote sources in their order. `scratch` is an empty directory for what is unpacked from
/// archives; it must live as long as the changeset's sources. `now` is the time of directories and
/// files that the step itself makes.
///
/// Directories that have to be made are root's, or whom `--chown` names, with mode 0755 or what
/// `--chmod` says. The destination itself and what lies above it stay as they are where they exist;
/// a directory inside a copied one hands its metadata on, as with BuildKit.
pub fn copy(
    op: &CopyOp,
    from: &Origin<'_>,
    fetched: &[Fetched],
    dest: &Tree,
    scratch: &Path,
    now: Time,
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
        // Not carried out yet; `plan` refuses them.
        link: _,
        parents: _,
        exclude: _,
        instruction: _,
    } = op;
    // Nor are sources that are fetched.
    let _ = fetched;
    let mut work = Work {
        target: Target::new(dest),
        dest: clean(written)?,
        into: written.ends_with('/'),
        chown: chown
            .as_deref()
            .map(|spec| owner::chown(spec, dest))
            .transpose()?,
        chmod: chmod.as_deref().map(Chmod::parse).transpose()?,
        now,
        inodes: 0,
    };
    let mut archives = 0;
    for source in sources {
        let CopySource::Path(source) = source else {
            continue;
        };
        for name in select(source, from)? {
            if cancel.is_set() {
                return Err(Error::Cancelled);
            }
            let path = from.resolve(&name)?;
            let Some(item) = from.get(&path)? else {
                return Err(match from.is_left_out(&path) {
                    true => Error::LeftOut(name),
                    false => Error::NotFound(name),
                });
            };
            if *unpack != Unpack::Never && item.meta.kind == Kind::File {
                let content = from.source(&path);
                let room = scratch.join(archives.to_string());
                archives += 1;
                if work.unpack(&path, content.as_ref(), &room, cancel)? {
                    continue;
                }
            }
            let below = match item.meta.kind {
                Kind::Dir => from.below(&path)?,
                _ => Vec::new(),
            };
            // A directory that the ignore file leaves out is there only for what is kept in it.
            if item.meta.kind == Kind::Dir && below.is_empty() && from.is_hollow(&path) {
                if ignore::has_wildcards(source) {
                    continue;
                }
                return Err(Error::LeftOut(name));
            }
            work.place(name.name(), &item, below, |path| from.source(path))?;
        }
    }
    for (name, content) in inline {
        let meta = Meta::file(0o644, content.len() as u64, now);
        let item = Item {
            path: RelPath::root(),
            meta,
            inode: None,
        };
        let content = Source::Bytes(content.as_slice().into());
        let name = clean(name)?;
        work.place(name.name(), &item, Vec::new(), |_| Some(content.clone()))?;
    }
    Ok(work.target.finish())
}

/// Gives the paths a source means: itself, or what its pattern matches, in order; links are not
/// followed yet.
fn select(source: &str, from: &Origin<'_>) -> Result<Vec<RelPath>, Error> {
    let cleaned = clean(source)?;
    if !ignore::has_wildcards(source) {
        return Ok(vec![cleaned]);
    }
    let parts: Vec<&[u8]> = cleaned.components().collect();
    let is_pattern = |part: &[u8]| ignore::has_wildcards(&String::from_utf8_lossy(part));
    let fixed = parts.iter().take_while(|part| !is_pattern(part)).count();
    let mut base = RelPath::root();
    for part in &parts[..fixed] {
        base = base.join(part);
    }
    let mut found = vec![from.resolve(&base)?];
    for (depth, part) in parts.iter().enumerate().skip(fixed) {
        let last = depth + 1 == parts.len();
        let mut next = Vec::new();
        for dir in &found {
            for (name, kind) in from.children(dir)? {
                // The way to a match does not lead through links.
                if !last && kind != Kind::Dir {
                    continue;
                }
                let matches = ignore::glob(part, &name).map_err(|error| Error::Pattern {
                    pattern: source.to_owned(),
                    source: error,
                })?;
                if matches {
                    next.push(dir.join(&name));
                }
            }
        }
        found = next;
    }
    Ok(found)
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
    now: Time,
    /// The last inode number given.
    inodes: u64,
}

impl Work<'_> {
    fn new_dir(&self) -> NewDir {
        let mode = match &self.chmod {
            Some(chmod) => chmod.apply(0o755, true),
            None => 0o755,
        };
        NewDir::of(mode, self.chown.unwrap_or((0, 0)), self.now)
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
        source: impl Fn(&RelPath) -> Option<Source>,
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
        source: &impl Fn(&RelPath) -> Option<Source>,
        names: &mut HashMap<Inode, u64>,
    ) -> Result<(), Error> {
        let meta = self.meta(&item.meta);
        let there = self.target.get(&to).map(|meta| meta.kind);
        match (meta.kind, there) {
            (Kind::Dir, None | Some(Kind::Dir)) => self.target.put_dir(to, meta),
            (Kind::Dir, Some(_)) => return Err(Error::OverFile(to)),
            (_, Some(Kind::Dir)) => return Err(Error::OverDirectory(to)),
            (kind, _) => {
                let content = match kind {
                    Kind::File => Some(source(&item.path).ok_or_else(|| {
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
    fn unpack(
        &mut self,
        path: &RelPath,
        content: Option<&Source>,
        room: &Path,
        cancel: &Cancel,
    ) -> Result<bool, Error> {
        let Some(content) = content else {
            return Ok(false);
        };
        if !unpack::is_archive(path, content)? {
            return Ok(false);
        }
        let to = self.target.resolve(&RelPath::root(), &self.dest)?;
        let new = self.implied();
        self.target.make_directories(&to, &new)?;
        unpack::unpack(self, path, content, &to, room, cancel)?;
        Ok(true)
    }

    /// Gives an archive entry's metadata as it is put.
    pub(super) fn unpacked(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        if let Some((uid, gid)) = self.chown {
            meta.uid = uid;
            meta.gid = gid;
        }
        meta
    }

    /// Gives what a directory is like that an archive needs and does not have.
    pub(super) fn implied(&self) -> NewDir {
        NewDir::of(0o755, self.chown.unwrap_or((0, 0)), self.now)
    }
}
