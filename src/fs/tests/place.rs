use super::*;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

fn times() -> Time {
    Time {
        secs: 1_500_000_000,
        nanos: 5,
    }
}

#[test]
fn what_is_put_is_what_is_found() {
    let top = tempfile::tempdir().unwrap();
    let root = File::open(top.path()).unwrap();
    let special = |kind, device| Meta {
        kind,
        device,
        uid: 3,
        gid: 4,
        ..Meta::dir(0o640, times())
    };
    let link = Meta {
        kind: Kind::Symlink,
        target: b"/nowhere\xff".to_vec(),
        uid: 9,
        ..Meta::dir(0o777, times())
    };
    let rich = Meta {
        uid: 5,
        gid: 6,
        xattrs: vec![
            (
                b"security.capability".to_vec(),
                b"\x01\0\0\x02\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
            ),
            (b"trusted.k".to_vec(), b"\n".to_vec()),
        ],
        ..Meta::file(0o6755, 3, times())
    };
    let group = Meta {
        gid: 77,
        xattrs: vec![(b"trusted.d".to_vec(), b"v".to_vec())],
        ..Meta::dir(0o2777, times())
    };
    let wanted: Vec<(&str, Meta)> = vec![
        ("", Meta::dir(0o711, times())),
        ("d", group),
        ("d/sub", Meta::dir(0o700, times())),
        ("d/sub/file", Meta::file(0o666, 3, times())),
        ("d/rich", rich),
        ("link", link),
        ("fifo", special(Kind::Fifo, (0, 0))),
        ("char", special(Kind::Char, (5, 300))),
    ];
    let mut placer = Placer::new(root.as_fd()).unwrap();
    for (at, meta) in &wanted {
        let mut content = &b"abc"[..];
        let content: Option<&mut dyn Read> = match meta.kind {
            Kind::File => Some(&mut content),
            _ => None,
        };
        placer.put(&path(at), meta, content).unwrap();
    }
    placer.link(&path("d/rich"), &path("again")).unwrap();
    placer.whiteout(&path("d/gone")).unwrap();
    placer.opaque(&path("d/sub")).unwrap();
    assert!(placer.finish().unwrap().is_empty());
    for (at, meta) in &wanted {
        let stat = stat(root.as_fd(), &path(at)).unwrap().unwrap();
        assert_eq!(stat.meta, *meta, "{at}");
    }
    let of = |at: &str| stat(root.as_fd(), &path(at)).unwrap().unwrap();
    assert_eq!(of("again").id, of("d/rich").id);
    assert_eq!(of("again").links, 2);
    assert!(of("d/gone").is_whiteout() && of("d/sub").is_opaque() && !of("d").is_opaque());
    assert_eq!(
        std::fs::read(top.path().join("d/sub/file")).unwrap(),
        b"abc"
    );
}

#[test]
fn what_stands_in_the_way_goes() {
    let top = tempfile::tempdir().unwrap();
    let root = File::open(top.path()).unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("safe"), "").unwrap();
    std::fs::create_dir_all(top.path().join("full/of/things")).unwrap();
    std::fs::write(top.path().join("full/of/file"), "").unwrap();
    std::os::unix::fs::symlink(outside.path(), top.path().join("full/way")).unwrap();
    std::os::unix::fs::symlink(outside.path(), top.path().join("way")).unwrap();
    let mut placer = Placer::new(root.as_fd()).unwrap();
    let file = Meta::file(0o600, 0, times());
    // Not through a link, wherever it leads.
    assert!(placer.put(&path("way/x"), &file, None).is_err());
    assert!(placer.link(&path("way/safe"), &path("x")).is_err());
    placer
        .put(&path("full/of"), &Meta::dir(0o755, times()), None)
        .unwrap();
    assert!(top.path().join("full/of/file").exists());
    placer.put(&path("full"), &file, None).unwrap();
    placer
        .put(&path("way"), &Meta::dir(0o755, times()), None)
        .unwrap();
    placer.put(&path("way/x"), &file, None).unwrap();
    placer.rename(&path("way"), &path("new")).unwrap();
    placer.remove(&path("nothing/here")).unwrap();
    placer.finish().unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(top.path().join("full").is_file());
    let moved = std::fs::metadata(top.path().join("new")).unwrap();
    assert_eq!((moved.mtime(), moved.mtime_nsec()), (1_500_000_000, 5));
}

#[test]
fn a_walk_sees_everything_once() {
    let top = tempfile::tempdir().unwrap();
    for n in 0..40 {
        let dir = top.path().join(format!("d{}/e{n}", n % 7));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("f"), "").unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(top.path().join("socket")).unwrap();
    let root = File::open(top.path()).unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    let take = |dir: &RelPath, entries: Vec<(RelPath, Stat)>| {
        let mut seen = seen.lock().unwrap();
        for (path, stat) in entries {
            assert_eq!(path.parent().as_ref(), Some(dir));
            seen.push((path, stat.links));
        }
        Ok(())
    };
    walk(root.as_fd(), &RelPath::root(), &take).unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort();
    assert_eq!(seen.len(), 7 + 40 + 40);
    seen.dedup();
    assert_eq!(seen.len(), 7 + 40 + 40);
    let failing = |_: &RelPath, _: Vec<(RelPath, Stat)>| Err(std::io::ErrorKind::Other.into());
    assert!(walk(root.as_fd(), &path("d1"), &failing).is_err());
}

#[test]
fn attributes_of_the_machine_are_not_kept() {
    for (name, kept) in [
        ("security.capability", true),
        ("security.custom", true),
        ("security.selinux", false),
        ("security.ima", false),
        ("security.evm", false),
        ("user.x", true),
        ("user.overlay.opaque", false),
        ("trusted.x", true),
        ("trusted.overlay.whiteout", false),
        ("system.posix_acl_access", true),
        ("system.posix_acl_default", true),
        ("system.nfs4_acl", false),
    ] {
        assert_eq!(is_kept(name.as_bytes()), kept, "{name}");
    }
}
