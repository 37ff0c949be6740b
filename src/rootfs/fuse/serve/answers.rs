//! The answers to the kernel's requests, one a request.

use super::*;

/// Answers, or says why not.
macro_rules! answer {
    ($reply:ident, $done:expr) => {
        answer!($reply, $done, () => $reply.ok())
    };
    ($reply:ident, $result:expr, $value:pat => $send:expr) => {
        match $result {
            Ok($value) => $send,
            Err(error) => $reply.error(refusal(error)),
        }
    };
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        match self.passthrough {
            Some(depth) => {
                wanted |= InitFlags::FUSE_PASSTHROUGH;
                let _ = config.set_max_stack_depth(depth);
            }
            None => wanted |= InitFlags::FUSE_WRITEBACK_CACHE,
        }
        let offered = config.capabilities();
        if !offered.contains(InitFlags::FUSE_PASSTHROUGH) {
            self.passthrough = None;
        }
        // What is not there is done without.
        let _ = config.add_capabilities(wanted & offered);
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _next = self.next();
        let found = self.name(name).and_then(|()| {
            let mut table = self.files.table();
            match table.lookup(parent.0, name.as_bytes())? {
                Some(ino) => self.entry(&mut table, ino).map(Some),
                None => Ok(None),
            }
        });
        answer!(reply, found, found => match found {
            Some(entry) => send_entry(reply, &entry),
            // That there is nothing is worth remembering too.
            None => reply.entry(&ALWAYS, &NOTHING, Generation(0)),
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        let mut table = self.files.table();
        if let Ok(node) = table.node_mut(ino.0) {
            node.lookups = node.lookups.saturating_sub(count);
            if node.lookups == 0 && node.names == 0 {
                table.free(ino.0);
                self.files.sweep(&mut table);
            }
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _next = self.next();
        let mut table = self.files.table();
        let got = self.shown(&mut table, ino.0);
        drop(table);
        answer!(reply, got, (attr, ttl) => reply.attr(&ttl, &attr));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _next = self.next();
        let wanted = Wanted {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
            ctime,
        };
        answer!(reply, self.set(req, ino.0, &wanted), (attr, ttl) => reply.attr(&ttl, &attr));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let _next = self.next();
        let table = self.files.table();
        let target = table.node(ino.0).map(|node| node.meta.target.clone());
        drop(table);
        answer!(reply, target, target => reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _next = self.next();
        let made = self.name(name).and_then(|()| {
            let kind = match Mode::from_raw_mode(mode) {
                Mode::RegularFile => Kind::File,
                Mode::CharacterDevice => Kind::Char,
                Mode::BlockDevice => Kind::Block,
                Mode::Fifo | Mode::Socket => Kind::Fifo,
                _ => return Err(Errno::INVAL),
            };
            // That is how layers note that something is gone; overlay refuses it too.
            if kind == Kind::Char && rdev == 0 {
                return Err(Errno::PERM);
            }
            let mut meta = Meta::file(mode & 0o7777, 0, now());
            meta.kind = kind;
            if matches!(kind, Kind::Char | Kind::Block) {
                meta.device = device_of(rdev);
            }
            let body = match Mode::from_raw_mode(mode) {
                Mode::Socket => Body::Socket,
                Mode::RegularFile => {
                    let (number, _) = self.files.upper()?.create()?;
                    Body::File(Content::Own(number))
                }
                _ => Body::Other,
            };
            self.make(Asker::new(req, umask), parent.0, name, meta, body)
        });
        answer!(reply, made, entry => send_entry(reply, &entry));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _next = self.next();
        let made = self.name(name).and_then(|()| {
            let meta = Meta::dir(mode & 0o7777, now());
            self.make(Asker::new(req, umask), parent.0, name, meta, new_dir())
        });
        answer!(reply, made, entry => send_entry(reply, &entry));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _next = self.next();
        let done = self.change(|table| {
            table.unlink(parent.0, name.as_bytes())?;
            self.files.sweep(table);
            Ok(())
        });
        answer!(reply, done);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _next = self.next();
        let done = self.change(|table| table.rmdir(parent.0, name.as_bytes()));
        answer!(reply, done);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _next = self.next();
        let made = self.name(name).and_then(|()| {
            let mut meta = Meta::file(0o777, 0, now());
            meta.kind = Kind::Symlink;
            meta.target = target.as_os_str().as_bytes().to_vec();
            self.make(Asker::new(req, 0), parent.0, name, meta, Body::Other)
        });
        answer!(reply, made, entry => send_entry(reply, &entry));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _next = self.next();
        let from = (parent.0, name.as_bytes());
        let to = (newparent.0, newname.as_bytes());
        let known = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        let changed = |table: &mut Table| {
            if !(flags & !known).is_empty() {
                return Err(Errno::INVAL);
            }
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return table.exchange(from, to);
            }
            if flags.contains(RenameFlags::RENAME_NOREPLACE) && table.lookup(to.0, to.1)?.is_some()
            {
                return Err(Errno::EXIST);
            }
            table.rename(from, to)?;
            self.files.sweep(table);
            Ok(())
        };
        let done = self.name(newname).and_then(|()| self.change(changed));
        answer!(reply, done);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let _next = self.next();
        let made = self.name(newname).and_then(|()| {
            let (mut table, ino) = self.files.unbind(ino.0)?;
            table.link(ino, newparent.0, newname.as_bytes())?;
            self.entry(&mut table, ino)
        });
        answer!(reply, made, entry => send_entry(reply, &entry));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _next = self.next();
        let writer = writer(req);
        let open = move |opening: Opening<'_>, patience, reply: &ReplyOpen| {
            let back = |file: &File| reply.open_backing(file);
            opening.open(ino.0, flags, writer, patience, &back)
        };
        match open(self.opening(), Patience::None, &reply).transpose() {
            Some(opened) => send_opened(reply, opened),
            None => {
                let passthrough = self.passthrough.is_some();
                let files = Arc::clone(&self.files);
                let apart = move || {
                    let files = &*files;
                    let opening = Opening { files, passthrough };
                    let opened = open(opening, Patience::Any, &reply);
                    send_opened(reply, opened.and_then(|done| done.ok_or(Errno::IO)));
                };
                // Where there can be none, whoever asks gets an error for want of an answer.
                let _ = std::thread::Builder::new().spawn(apart);
            }
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let _next = self.next();
        let asker = Asker::new(req, umask);
        let made = self.create_file(asker, parent.0, name, mode, &|file| {
            reply.open_backing(file)
        });
        answer!(reply, made, (attr, handle, flags, backing) => match backing {
            Some(backing) => {
                reply.created_passthrough(&ALWAYS, &attr, Generation(0), handle, flags, &backing);
            }
            None => reply.created(&ALWAYS, &attr, Generation(0), handle, flags),
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _next = self.next();
        let file = self.files.file(&self.files.table(), ino.0);
        let read = file.and_then(|file| {
            let mut bytes = vec![0; size as usize];
            let mut filled = self.read_at_once(&file, &mut bytes, offset);
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset + filled as u64) {
                    Ok(0) => break,
                    Ok(got) => filled += got,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(errno(&error)),
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        });
        answer!(reply, read, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _next = self.next();
        let file = self.files.file(&self.files.table(), ino.0);
        if data.len() as u64 > SHORT {
            leave();
        }
        let written = file.and_then(|file| {
            file.write_all_at(data, offset)
                .map_err(|error| errno(&error))?;
            let mut table = self.files.table();
            let writer = match flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
                true => Writer::Plain,
                false => Writer::Trusted,
            };
            self.files.written(&mut table, ino.0, writer)?;
            let node = table.node_mut(ino.0)?;
            node.meta.size = node.meta.size.max(offset + data.len() as u64);
            node.blocks = None;
            stamp(node, self.files.truth, None);
            Ok(())
        });
        answer!(reply, written, () => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _next = self.next();
        let mut table = self.files.table();
        let closed = self.files.close(&mut table, ino.0, handle == WRITER);
        drop(table);
        drop(closed);
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _next = self.next();
        let number = self.next_listing.fetch_add(1, Ordering::Relaxed);
        self.listings().insert(number, Listing { names: None });
        let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
        reply.opened(FileHandle(number), flags);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _next = self.next();
        let read = self.read_dir(ino.0, handle, offset, &mut |table, ino, next, name| {
            let node = table.node(ino)?;
            let shown = node.group.map_or(ino, |group| group.shown);
            let kind = kind_of(node);
            Ok(!reply.add(INodeNo(shown), next, kind, OsStr::from_bytes(name)))
        });
        answer!(reply, read);
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _next = self.next();
        let read = self.read_dir(ino.0, handle, offset, &mut |table, ino, next, name| {
            let node = table.node_mut(ino)?;
            let (attr, ttl) = self.attr(node, ino)?;
            let name = OsStr::from_bytes(name);
            let full = reply.add(INodeNo(ino), next, name, &ttl, &attr, Generation(0));
            // The kernel does not count itself and what is above.
            if !full && name != "." && name != ".." {
                node.lookups += 1;
            }
            Ok(!full)
        });
        answer!(reply, read);
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _next = self.next();
        self.listings().remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // What a build has written is worthless after a crash, and package managers ask a lot. The
        // kernel takes this answer for a yes and does not ask again.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let Some(upper) = &self.files.upper else {
            return reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
        };
        answer!(reply, rustix::fs::fstatvfs(&upper.dir), got => reply.statfs(
            got.f_blocks,
            got.f_bfree,
            got.f_bavail,
            got.f_files,
            got.f_ffree,
            u32::try_from(got.f_bsize).unwrap_or(4096),
            255,
            u32::try_from(got.f_frsize).unwrap_or(4096),
        ));
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let _next = self.next();
        let done = self.change(|table| {
            let ino = table.current(ino.0);
            let node = table.node_mut(ino)?;
            let there = node.xattr(name.as_bytes()).is_some();
            if flags & libc::XATTR_CREATE != 0 && there {
                return Err(Errno::EXIST);
            }
            if flags & libc::XATTR_REPLACE != 0 && !there {
                return Err(Errno::NODATA);
            }
            match name.as_bytes() {
                list @ (acl::ACCESS | acl::DEFAULT) => acl::set(node, list, value)?,
                name => node.set_xattr(name, value),
            }
            node.ctime = now();
            table.touch(ino)
        });
        answer!(reply, done);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _next = self.next();
        let table = self.files.table();
        let value = table.node(table.current(ino.0)).and_then(|node| {
            let value = node.xattr(name.as_bytes()).ok_or(Errno::NODATA)?;
            Ok(value.to_vec())
        });
        drop(table);
        answer!(reply, value, value => send_xattr(reply, &value, size));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _next = self.next();
        let table = self.files.table();
        let names = table.node(table.current(ino.0)).map(|node| {
            let names = node.meta.xattrs.iter();
            names
                .flat_map(|(name, _)| [&name[..], &[0]].concat())
                .collect::<Vec<u8>>()
        });
        drop(table);
        answer!(reply, names, names => send_xattr(reply, &names, size));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _next = self.next();
        let done = self.change(|table| {
            let ino = table.current(ino.0);
            let node = table.node_mut(ino)?;
            let list = matches!(name.as_bytes(), acl::ACCESS | acl::DEFAULT);
            if !node.remove_xattr(name.as_bytes()) && !list {
                return Err(Errno::NODATA);
            }
            node.ctime = now();
            table.touch(ino)
        });
        answer!(reply, done);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.change(|table| {
            let file = self.files.file(table, ino.0)?;
            let flags = FallocateFlags::from_bits_retain(mode as u32);
            rustix::fs::fallocate(&file, flags, offset, length)?;
            self.rewritten(table, ino.0, writer(req))
        });
        answer!(reply, done);
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        use rustix::fs::{SeekFrom, seek};
        // What the kernel has not handed over yet would look like a hole; it then takes all for data.
        if self.files.truth == Truth::Kernel {
            return reply.error(fuser::Errno::ENOSYS);
        }
        let file = self.files.file(&self.files.table(), ino.0);
        let found = file.and_then(|file| {
            let at = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
            let to = match whence {
                libc::SEEK_DATA => SeekFrom::Data(at),
                libc::SEEK_HOLE => SeekFrom::Hole(at),
                _ => return Err(Errno::INVAL),
            };
            seek(&file, to)
        });
        answer!(reply, found, at => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)));
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _next = self.next();
        leave();
        let copied = self.files.upper().and_then(|_| {
            let (from, to) = {
                let table = self.files.table();
                (
                    self.files.file(&table, ino_in.0)?,
                    self.files.file(&table, ino_out.0)?,
                )
            };
            let (mut offset_in, mut offset_out) = (offset_in, offset_out);
            let most = usize::try_from(len.min(1 << 30)).unwrap_or(1 << 30);
            let done = rustix::fs::copy_file_range(
                &from,
                Some(&mut offset_in),
                &to,
                Some(&mut offset_out),
                most,
            )?;
            let mut table = self.files.table();
            self.rewritten(&mut table, ino_out.0, writer(req))?;
            Ok(done)
        });
        answer!(reply, copied, done => reply.written(u32::try_from(done).unwrap_or(u32::MAX)));
    }
}

impl Server {
    /// Reads what is in memory already, and gives how much; where there is more, which has to be waited
    /// for, the turn is another thread's.
    fn read_at_once(&self, file: &File, bytes: &mut [u8], offset: u64) -> usize {
        let size = bytes.len();
        let mut filled = 0;
        if !self.reads_wait.load(Ordering::Relaxed) {
            let bytes = &mut [io::IoSliceMut::new(bytes)];
            match preadv2(file, bytes, offset, ReadWriteFlags::NOWAIT) {
                Ok(got) => filled = got,
                Err(Errno::OPNOTSUPP) => self.reads_wait.store(true, Ordering::Relaxed),
                Err(_) => {}
            }
        }
        let is_long = match self.reads_wait.load(Ordering::Relaxed) {
            true => size as u64 > SHORT,
            false => filled < size && there_is_more(file, offset + filled as u64),
        };
        if is_long {
            leave();
        }
        filled
    }
}

fn there_is_more(file: &File, offset: u64) -> bool {
    file.metadata().is_ok_and(|meta| offset < meta.len())
}

fn send_opened(reply: ReplyOpen, opened: Result<Opened, Errno>) {
    answer!(reply, opened, (handle, flags, backing) => match backing {
        Some(backing) => reply.opened_passthrough(handle, flags, &backing),
        None => reply.opened(handle, flags),
    });
}

fn send_entry(reply: ReplyEntry, (attr, ttl): &(FileAttr, Duration)) {
    reply.entry_with_ttls(ttl, &ALWAYS, attr, Generation(0));
}

fn send_xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        _ => reply.error(fuser::Errno::ERANGE),
    }
}

/// What stands for nothing: an entry without a number.
const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};
