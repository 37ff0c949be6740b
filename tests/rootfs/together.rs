//! What several do with one file at the same time. Where the kernel reads a layer's file for somebody,
//! a root on FUSE gives it another node when it is changed; nobody may see that.

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;

/// How many do a thing at once.
const SEVERAL: usize = 4;

fn one(file: &mut File) -> io::Result<()> {
    file.read_exact(&mut [0])
}

/// Opens a file and reads a byte of it.
fn reader(path: &Path) -> io::Result<File> {
    let mut file = File::open(path)?;
    one(&mut file)?;
    Ok(file)
}

fn append(to: &Path, what: &[u8]) -> io::Result<()> {
    File::options().append(true).open(to)?.write_all(what)
}

fn beside(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Has several do a thing at once, each with its number.
fn at_once(each: impl Fn(usize) -> io::Result<()> + Sync) -> io::Result<()> {
    let all = Barrier::new(SEVERAL);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SEVERAL)
            .map(|number| {
                let (all, each) = (&all, &each);
                scope.spawn(move || {
                    all.wait();
                    each(number)
                })
            })
            .collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        // All of them, whatever became of the first.
        results.collect::<Vec<_>>().into_iter().collect()
    })
}

pub fn link_while_read(path: &Path, name: &Path, keeps: bool) -> io::Result<()> {
    let mut first = reader(path)?;
    std::fs::hard_link(path, name)?;
    let mut second = reader(name)?;
    append(name, b"by the second name")?;
    append(path, b"by the first")?;
    let read = std::fs::read(path)?;
    assert_eq!(read, std::fs::read(name)?, "two names, one file");
    assert!(read.ends_with(b"by the second nameby the first"));
    let mut rest = Vec::new();
    second.read_to_end(&mut rest)?;
    assert!(rest.ends_with(b"by the second nameby the first"));
    std::fs::remove_file(if keeps { name } else { path })?;
    one(&mut first)
}

pub fn write_at_once(path: &Path) -> io::Result<()> {
    let mut first = reader(path)?;
    at_once(|number| {
        let file = File::options().read(true).write(true).open(path)?;
        file.write_all_at(&[b'0' + number as u8], number as u64)
    })?;
    let written: Vec<u8> = (0..SEVERAL).map(|number| b'0' + number as u8).collect();
    assert!(std::fs::read(path)?.starts_with(&written));
    one(&mut first)
}

pub fn link_at_once(path: &Path) -> io::Result<()> {
    let mut first = reader(path)?;
    at_once(|number| std::fs::hard_link(path, beside(path, number)))?;
    let links = 1 + SEVERAL as u64;
    assert_eq!(path.metadata()?.nlink(), links);
    assert_eq!(first.metadata()?.nlink(), links);
    append(path, b"by the first name")?;
    let read = std::fs::read(path)?;
    for number in 0..SEVERAL {
        assert_eq!(std::fs::read(beside(path, number))?, read);
    }
    one(&mut first)
}

pub fn link_by_descriptor(path: &Path, name: &Path) -> io::Result<()> {
    let first = reader(path)?;
    let by = format!("/proc/self/fd/{}", first.as_raw_fd());
    rustix::fs::linkat(CWD, by, CWD, name, AtFlags::SYMLINK_FOLLOW)?;
    assert_eq!(first.metadata()?.nlink(), 2);
    drop(first);
    append(path, b"by the first name")?;
    assert_eq!(std::fs::read(path)?, std::fs::read(name)?);
    assert!(std::fs::read(name)?.ends_with(b"by the first name"));
    Ok(())
}

pub fn set_by_old_descriptor(path: &Path, name: &Path) -> io::Result<()> {
    let mut first = reader(path)?;
    std::fs::hard_link(path, name)?;
    let check = |mode| -> io::Result<()> {
        let of = |meta: &std::fs::Metadata| (meta.ino(), meta.nlink(), meta.mode() & 0o7777);
        let new = of(&path.metadata()?);
        assert_eq!([of(&first.metadata()?), of(&name.metadata()?)], [new; 2]);
        assert_eq!((new.1, new.2), (2, mode));
        Ok(())
    };
    rustix::fs::fchmod(&first, Mode::from_raw_mode(0o640))?;
    check(0o640)?;
    std::fs::set_permissions(name, std::os::unix::fs::PermissionsExt::from_mode(0o604))?;
    check(0o604)?;
    append(name, b"more")?;
    rustix::fs::fchown(&first, Some(rustix::fs::Uid::from_raw(3)), None)?;
    rustix::fs::fsetxattr(&first, "user.note", b"by the old one", XattrFlags::empty())?;
    let time = Timespec {
        tv_sec: 1_000_000,
        tv_nsec: 1,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::futimens(&first, &times)?;
    let mut value = [0; 32];
    let len = rustix::fs::getxattr(name, "user.note", &mut value)?;
    assert_eq!(value.get(..len), Some(&b"by the old one"[..]));
    let set = path.metadata()?;
    assert_eq!(
        (set.uid(), set.mtime(), set.mtime_nsec()),
        (3, 1_000_000, 1)
    );
    assert_eq!(name.metadata()?.uid(), 3);
    std::fs::remove_file(path)?;
    assert_eq!(name.metadata()?.nlink(), 1);
    std::fs::hard_link(name, path)?;
    one(&mut first)
}

pub fn rename_while_linked(path: &Path, to: &Path) -> io::Result<()> {
    let first = reader(path)?;
    let all = Barrier::new(2);
    let other = beside(path, 0);
    let linked = std::thread::scope(|scope| {
        let link = scope.spawn(|| {
            all.wait();
            std::fs::hard_link(path, &other)
        });
        all.wait();
        let renamed = std::fs::rename(path, to);
        renamed.map(|()| link.join().unwrap())
    })?;
    drop(first);
    append(to, b"by the new name")?;
    match linked {
        Ok(()) => {
            assert_eq!(std::fs::read(to)?, std::fs::read(&other)?);
            std::fs::remove_file(&other)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub fn cut_while_written(path: &Path, from: &Path) -> io::Result<()> {
    use rustix::fs::{Advice, fadvise};
    const ROUNDS: usize = 300;
    let from = File::open(from)?;
    // SAFETY: nobody shortens the file meanwhile.
    let map = unsafe { memmap2::Mmap::map(&from)? };
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    std::thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            (0..ROUNDS).try_for_each(|_| {
                let mut options = File::options();
                options.write(true).truncate(true).open(path).map(drop)
            })
        });
        for _ in 0..ROUNDS {
            // Not in memory, so that writing it has to wait for its being read.
            // SAFETY: the mapping is of a file that is only read.
            unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed)? };
            fadvise(&from, 0, None, Advice::DontNeed)?;
            file.write_all_at(&map, 0)?;
        }
        cutter.join().unwrap()
    })?;
    file.set_len(0)?;
    file.write_all_at(&map, 0)
}

pub fn move_while_listed(dir: &Path, to: &Path, count: usize) -> io::Result<()> {
    let name = |number: usize| format!("f{number}");
    // With attributes, which the kernel then asks for together with the names.
    let mut entries = std::fs::read_dir(dir)?;
    for entry in entries.by_ref().take(50) {
        entry?.metadata()?;
    }
    for number in 0..count {
        let (at, new) = (dir.join(name(number)), to.join(name(number)));
        if number % 2 == 0 {
            std::fs::rename(&at, &new)?;
        } else {
            std::fs::write(&new, format!("new {number}"))?;
            std::fs::rename(&new, &at)?;
        }
    }
    for entry in entries {
        let _ = entry?.metadata();
    }
    for number in 0..count {
        let at = dir.join(name(number));
        let (here, there) = match number % 2 {
            0 => (None, to.join(name(number)).exists()),
            _ => (Some(format!("new {number}")), true),
        };
        assert_eq!(std::fs::read_to_string(&at).ok(), here, "{}", at.display());
        assert!(there, "{}", at.display());
    }
    Ok(())
}
