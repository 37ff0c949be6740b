//! Opening a file: by whom its content is read and written from then on.

use super::*;

/// What opening a file takes.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    pub files: &'a Files,
    /// Whether the kernel is to read and write the contents itself.
    pub passthrough: bool,
}

/// Whether somebody may be waited for who himself waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not by a thread that answers.
    None,
    Any,
}

impl Opening<'_> {
    /// Opens a file; nothing where somebody would have to be waited for.
    pub fn open(
        &self,
        ino: Ino,
        flags: OpenFlags,
        writer: Writer,
        patience: Patience,
        back: &dyn Fn(&File) -> io::Result<BackingId>,
    ) -> Result<Option<Opened>, Errno> {
        let truncates = flags.0 & libc::O_TRUNC != 0;
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY || truncates;
        let (mut table, now_at) = match writes {
            true => self.files.own(ino, if truncates { 0 } else { u64::MAX })?,
            false => {
                let table = self.files.table();
                let now_at = table.current(ino);
                (table, now_at)
            }
        };
        // The kernel looks the path up anew.
        if now_at != ino {
            return Err(Errno::STALE);
        }
        let mut file = None;
        if truncates {
            let written = self.files.is_written_directly(&table, ino);
            match (written, patience) {
                (false, _) => file = Some(self.files.cut(&mut table, ino, 0, writer)?),
                (true, Patience::None) => return Ok(None),
                // The kernel holds the file for whoever writes to it, and may have to ask for what he
                // writes, which takes the table.
                (true, Patience::Any) => {
                    let cut = self.files.file(&table, ino)?;
                    drop(table);
                    rustix::fs::ftruncate(&cut, 0)?;
                    table = self.files.table();
                    self.files.was_cut(&mut table, ino, 0, writer)?;
                    file = Some(cut);
                }
            }
        }
        self.opened(&mut table, ino, file, writes, back).map(Some)
    }

    /// Opens a file whose content is where it has to be.
    pub fn opened(
        &self,
        table: &mut Table,
        ino: Ino,
        file: Option<Arc<File>>,
        writes: bool,
        back: &dyn Fn(&File) -> io::Result<BackingId>,
    ) -> Result<Opened, Errno> {
        let node = table.node(ino)?;
        let open = node.open.as_ref();
        let known = open.and_then(|open| open.backing.clone());
        // A node of which somebody has handles of the one sort gets no handle of the other.
        let first = open.is_none_or(|open| open.handles == 0);
        let small = !writes && node.meta.size <= SMALL;
        let own = matches!(node.content(), Some(Content::Own(_)));
        // What has several names must be able to get other content under all of them.
        let bound = own || node.names <= 1;
        let direct = first && self.passthrough && !small && bound;
        let mut file = match (file, &known) {
            (Some(file), _) => Some(file),
            (None, Some(_)) if !writes => None,
            // It is opened when it is read: what is read often is in the kernel's cache.
            (None, _) if small => None,
            (None, _) => Some(self.files.file(table, ino)?),
        };
        let backing = match (&known, &file) {
            (Some(_), _) => known,
            (None, Some(file)) if direct => back(file).ok().map(Arc::new),
            _ => None,
        };
        if backing.is_some() && !writes && !own {
            // The kernel has it.
            file = None;
        }
        let node = table.node_mut(ino)?;
        let alone = node.open.as_ref().is_none_or(|open| open.writers == 0);
        if let (true, true, Some(file)) = (writes && alone, node.time_ahead, &file) {
            rustix::fs::futimens(file, &modified(node.meta.mtime))?;
            node.time_ahead = false;
        }
        let mut flags = FopenFlags::FOPEN_NOFLUSH;
        match &backing {
            Some(_) if writes && node.lends_rights() => flags |= FopenFlags::FOPEN_DIRECT_IO,
            Some(_) => {}
            None => flags |= FopenFlags::FOPEN_KEEP_CACHE,
        }
        let open = node.open.get_or_insert_default();
        open.handles += 1;
        open.writers += u32::from(writes);
        if open.file.is_none() {
            open.file = file;
        }
        open.backing.clone_from(&backing);
        table.writers += usize::from(writes);
        let handle = if writes { WRITER } else { READER };
        Ok((handle, flags, backing))
    }
}

impl Files {
    /// Gives a file another length.
    pub fn cut(
        &self,
        table: &mut Table,
        ino: Ino,
        size: u64,
        writer: Writer,
    ) -> Result<Arc<File>, Errno> {
        let file = self.file(table, ino)?;
        rustix::fs::ftruncate(&file, size)?;
        self.was_cut(table, ino, size, writer)?;
        Ok(file)
    }

    fn was_cut(&self, table: &mut Table, ino: Ino, size: u64, writer: Writer) -> Result<(), Errno> {
        self.written(table, ino, writer)?;
        stamp(table.node_mut(ino)?, self.truth, Some(size));
        Ok(())
    }

    /// Tells whether the kernel may be writing to a file for somebody.
    fn is_written_directly(&self, table: &Table, ino: Ino) -> bool {
        let open = table.node(ino).ok().and_then(|node| node.open.as_ref());
        open.is_some_and(|open| open.backing.is_some() && open.writers > 0)
    }
}
