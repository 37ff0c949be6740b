//! Layers from tar to unpacked files: what must be refused, what must come out, and how layers fit
//! each other.

mod layers;
mod tar;

use layers::{
    Memory, check_overlay, check_toc, descriptor, gzip, image, path, refused, run, unpack, zstd_of,
};
use shutter::fs::{Kind, LastLink, Node, RelPath, Tree, walk};
use shutter::layer::{BaseLayer, Error, read_entries, unpack_all};
use shutter::oci::Digest;
use shutter::progress::{Owner, Sink};
use shutter::store::Store;
use shutter::sys::Cancel;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use tar::tar;

#[test]
fn hostile_entries_are_refused_by_name() {
    let long = vec![b'n'; 256];
    let deep = b"a/".repeat(2100);
    let huge_pax = tar().header(b"p", b'x', 2 << 20, b"");
    let mut bad_sum = tar().header(b"broken", b'0', 0, b"");
    bad_sum[0] = b'B';
    let mut sparse = tar().pax(
        b'x',
        &[
            (b"GNU.sparse.map", b"0,4,2,4"),
            (b"GNU.sparse.size", b"100"),
        ],
    );
    sparse = sparse.file("overlapping", "12345678");
    let many = |value: &[u8]| {
        tar().pax(
            b'x',
            &[(b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.size", value)],
        )
    };
    for (tar, name, why) in [
        (tar().file("../out", "x").end(), "../out", "`..`"),
        (tar().file("a/../../out", "x").end(), "a/../../out", "`..`"),
        (tar().file("/../out", "x").end(), "/../out", "`..`"),
        (tar().symlink("..", "x").end(), "..", "`..`"),
        (
            tar().hard("h", "../../etc/passwd").end(),
            "`h`",
            "hard link to `../../etc/passwd`",
        ),
        (tar().hard("h", "/nowhere").end(), "`h`", "nowhere"),
        (
            tar().file("a", "").hard("h", "a/../a").end(),
            "`h`",
            "a/../a",
        ),
        (
            tar().dir("d", 0o755).hard("h", "d").end(),
            "`h`",
            "hard link to a directory",
        ),
        (tar().hard("h", "h").end(), "`h`", "itself"),
        (
            tar().file("x", "").hard("h", ".wh.x").end(),
            "`h`",
            "nowhere",
        ),
        (
            tar().file("f", "").file("f/below", "").end(),
            "f/below",
            "not a directory",
        ),
        (
            tar().symlink("l", "l").file("l/x", "").end(),
            "l/x",
            "symbolic links",
        ),
        (tar().symlink("l", "").end(), "`l`", "usable target"),
        (tar().entry("odd", b'Q', b"").end(), "odd", "type `Q`"),
        (tar().entry("./", b'0', b"xx").end(), "./", "slash"),
        (tar().symlink("/", "x").end(), "`/`", "root"),
        (tar().file(".wh.", "").end(), ".wh.", "whiteout of no file"),
        (
            tar().file("a/.wh...", "").end(),
            "a/.wh...",
            "whiteout of no file",
        ),
        (
            tar().file(".wh.a/b", "").end(),
            ".wh.a/b",
            "whiteout is no directory",
        ),
        (
            tar().pax(b'x', &[(b"path", &long)]).file("x", "").end(),
            "nnn",
            "255",
        ),
        (
            tar().pax(b'x', &[(b"path", &deep)]).file("x", "").end(),
            "a/a/",
            "4096",
        ),
        (
            tar().pax(b'x', &[(b"path", b"a\0b")]).file("x", "").end(),
            "a\\x00b",
            "NUL",
        ),
        (
            tar()
                .pax(b'x', &[(b"uid", b"4294967295")])
                .file("u", "")
                .end(),
            "`u`",
            "uid",
        ),
        (
            tar().pax(b'x', &[(b"uid", b"-2")]).file("u", "").end(),
            "byte 0",
            "number",
        ),
        (
            tar().raw(&huge_pax).raw(&vec![0; 2 << 20]).end(),
            "byte 0",
            "1048576",
        ),
        (
            tar().entry("x", b'x', b"99 path=short\n").end(),
            "byte 0",
            "length",
        ),
        (tar().entry("x", b'x', b"0 =\n").end(), "byte 0", "length"),
        (
            tar().pax(b'x', &[(b"path", b"a")]).end(),
            "byte 1024",
            "without an entry",
        ),
        (tar().raw(&bad_sum).end(), "byte 0", "checksum"),
        (tar().raw(&[1; 300]).bytes, "byte 0", "within a header"),
        (
            tar().raw(&tar().header(b"cut", b'0', 5000, b"")).bytes,
            "`cut`",
            "ends within",
        ),
        (
            tar()
                .raw(&tar().header(b"cut", b'0', 5 << 20, b""))
                .raw(&vec![1; 2 << 20])
                .bytes,
            "`cut`",
            "ends within",
        ),
        (sparse.end(), "overlapping", "overlap"),
        (
            many(b"9000000000000000000").file("holes", "1").end(),
            "holes",
            "bytes of holes",
        ),
        (
            many(b"99999999999999999999").file("holes", "1").end(),
            "byte 0",
            "not a number",
        ),
        (
            many(b"100").file("holes", "12").end(),
            "holes",
            "not as long",
        ),
    ] {
        let text = refused(tar);
        assert!(
            text.contains(name) && text.contains(why),
            "{name}, {why}: {text}"
        );
    }
}

#[test]
fn links_never_lead_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("victim");
    std::fs::write(&target, "as it was").unwrap();
    let absolute = outside.path().to_str().unwrap().to_owned();
    let up = format!("{}{}", "../".repeat(12), &absolute[1..]);
    for link in [absolute.as_str(), up.as_str()] {
        let done = unpack(&[tar()
            .symlink("way", link)
            .file("way/victim", "written through it")
            .dir("way/new", 0o755)
            .symlink("way/again", "victim")
            .file("way/again", "replaces the link")
            .end()])
        .unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "as it was");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        let inside = format!("{absolute}/victim");
        assert_eq!(done.text(&inside).as_deref(), Some("written through it"));
        assert_eq!(
            done.text("way/victim").as_deref(),
            Some("written through it")
        );
        assert_eq!(done.text("way/again").as_deref(), Some("replaces the link"));
    }
    // A hard link to a link is the link, and never what it leads to.
    let done = unpack(&[tar().symlink("l", &absolute).hard("h", "l").end()]).unwrap();
    assert_eq!(done.tree.get(&path("h")).unwrap().meta.kind, Kind::Symlink);
}

#[test]
fn blobs_that_are_not_what_was_promised_are_refused() {
    let good = tar().file("f", vec![7; 70_000]).end();
    let blob = gzip(&good);
    let mut flipped = blob.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = blob.clone();
    longer.push(0);
    let other = gzip(&tar().file("g", "").end());
    let shorter = blob[..blob.len() - 9].to_vec();
    for (served, why) in [
        (flipped, "refused"),
        (longer, "longer than"),
        (shorter, "refused"),
        (other, "refused"),
        (Vec::new(), "refused"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let layer = BaseLayer {
            descriptor: descriptor(&blob),
            diff_id: Digest::of(&good),
            chain_id: Digest::of(&good),
        };
        let mut memory = Memory::default();
        memory.blobs.insert(layer.descriptor.digest, served);
        let Err(error) = run(&store, std::slice::from_ref(&layer), &memory) else {
            panic!("it was not refused");
        };
        assert!(matches!(error, Error::Hostile { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
        // Nothing of it is left, and the next try works.
        assert!(
            store
                .blob(&layer.descriptor.digest, layer.descriptor.size)
                .unwrap()
                .is_none()
        );
        memory.blobs.insert(layer.descriptor.digest, blob.clone());
        run(&store, &[layer], &memory).unwrap();
    }
    // The compressed bytes are right, the tar is another.
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let (mut layers, memory) = image(&[good]);
    layers[0].diff_id = Digest([1; 32]);
    let Err(error) = run(&store, &layers, &memory) else {
        panic!("it was not refused");
    };
    assert!(
        error.to_string().contains("the image says sha256:0101"),
        "{error}"
    );
}

#[test]
fn names_and_values_may_be_any_bytes() {
    let capability = b"\x01\0\0\x02\x0a\n\0\0\n\0\0\0\0\0\0\0\0\0\0\0";
    let longest = [b'n'; 255];
    let mut deep = b"d/".repeat(100);
    deep.extend_from_slice(&longest);
    let done = unpack(&[tar()
        .pax(
            b'x',
            &[
                (b"SCHILY.xattr.security.capability", capability),
                (b"SCHILY.xattr.user.note", b"a=b\nc"),
                (b"SCHILY.xattr.security.selinux", b"not kept"),
                (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
                (b"mtime", b"-1.25"),
            ],
        )
        .file("ping", "x")
        .file(b"new\nline \xff\xfe", "y")
        .pax(b'x', &[(b"path", &deep), (b"mtime", b"12.000000001")])
        .file("short", "z")
        .entry(
            "././@LongLink",
            b'L',
            &[&deep[100..deep.len() - 1], b"2\0"].concat(),
        )
        .file("short", "w")
        .end()])
    .unwrap();
    let meta = done.tree.get(&path("ping")).unwrap().meta;
    assert_eq!(
        meta.xattrs,
        [
            (b"security.capability".to_vec(), capability.to_vec()),
            (b"user.note".to_vec(), b"a=b\nc".to_vec()),
        ]
    );
    assert_eq!((meta.mtime.secs, meta.mtime.nanos), (-2, 750_000_000));
    assert!(done.tree.get(&path(b"new\nline \xff\xfe")).is_some());
    let meta = done.tree.get(&path(&deep)).unwrap().meta;
    assert_eq!((meta.mtime.secs, meta.mtime.nanos), (12, 1));
}

#[test]
fn every_kind_comes_out_with_its_metadata() {
    let mut made = tar()
        .dir("./", 0o700)
        .dir("sticky", 0o1777)
        .dir("group/", 0o2775);
    made.mode = 0o4755;
    made.uid = 1000;
    let made = made
        .file("sticky/suid", "s")
        .file("group/in", "g")
        .dir("group/sub", 0o755)
        .entry("fifo", b'6', b"")
        .entry("char", b'3', b"")
        .entry("block", b'4', b"")
        .hard("sticky/again", "/sticky/suid")
        .hard("a-first", "./sticky/suid")
        .file("big", vec![3; 3 << 20])
        .file("twice", "one")
        .dir("twice", 0o711)
        .file("twice/in", "in")
        .file("dir-then-file/in", "in")
        .file("dir-then-file", "file")
        .end();
    let done = unpack(&[made]).unwrap();
    let get = |at: &str| done.tree.get(&path(at)).unwrap();
    assert_eq!(
        (done.mode(""), done.mode("sticky"), done.mode("group")),
        // The archive's own top says 0700; the root directory is left alone.
        (0o755, 0o1777, 0o2775)
    );
    let suid = get("sticky/suid").meta;
    assert_eq!((suid.mode, suid.uid, suid.gid), (0o4755, 1000, 1000));
    assert_eq!(get("sticky/again").link, Some(path("a-first")));
    assert_eq!(get("a-first").link, None);
    assert_eq!(get("char").meta.device, (1, 3));
    assert_eq!(
        (get("block").meta.kind, get("fifo").meta.kind),
        (Kind::Block, Kind::Fifo)
    );
    assert_eq!(get("twice").meta.mode, 0o711);
    assert_eq!(done.text("dir-then-file").as_deref(), Some("file"));
    assert!(done.tree.get(&path("dir-then-file/in")).is_none());
}

#[test]
fn sparse_files_of_every_format_read_as_they_were() {
    let mut want = vec![0u8; 5000];
    want[1000..1004].copy_from_slice(b"data");
    want[4000..4002].copy_from_slice(b"xy");
    let mut old = tar().header(b"old", b'S', 6, b"");
    old[257..265].copy_from_slice(b"ustar  \0");
    old[345..386].fill(0);
    for (at, number) in [(386, 1000), (398, 4), (410, 4000), (422, 2), (483, 5000)] {
        old[at..at + 11].copy_from_slice(format!("{number:011o}").as_bytes());
    }
    tar::seal(&mut old);
    let mut map = b"2\n1000\n4\n4000\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"dataxy");
    let done = unpack(&[tar()
        .raw(&old)
        .data(b"dataxy")
        .pax(
            b'x',
            &[
                (b"GNU.sparse.size", b"5000"),
                (b"GNU.sparse.offset", b"1000"),
                (b"GNU.sparse.numbytes", b"4"),
                (b"GNU.sparse.offset", b"4000"),
                (b"GNU.sparse.numbytes", b"2"),
            ],
        )
        .file("v00", "dataxy")
        .pax(
            b'x',
            &[
                (b"GNU.sparse.size", b"5000"),
                (b"GNU.sparse.name", b"v01"),
                (b"GNU.sparse.map", b"1000,4,4000,2"),
            ],
        )
        .file("GNUSparseFile.1/v01", "dataxy")
        .pax(
            b'x',
            &[
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", b"v10"),
                (b"GNU.sparse.realsize", b"5000"),
            ],
        )
        .file("GNUSparseFile.1/v10", map)
        .file("after", "it")
        .end()])
    .unwrap();
    for name in ["old", "v00", "v01", "v10"] {
        let got = done.tree.read(&path(name), 1 << 20).unwrap().expect(name);
        assert!(got == want, "{name}");
    }
    assert_eq!(done.text("after").as_deref(), Some("it"));
}

#[test]
fn layers_hide_what_is_below() {
    let done = unpack(&[
        tar()
            .file("a/x", "1")
            .file("a/y", "1")
            .file("b/x", "1")
            .file("c/x", "1")
            .file("d", "1")
            .end(),
        tar()
            .file("a/.wh.x", "")
            .file("b/new", "2")
            .file("b/.wh..wh..opq", "")
            .file("c/new", "2")
            .file(".wh.c", "")
            .file(".wh.d", "")
            .file("e/.wh.nothing", "")
            .file(".wh.unknown", "")
            .file(".wh..wh.plnk/7", "")
            .end(),
        tar().file("d/e", "3").file("b/x", "3").end(),
    ])
    .unwrap();
    assert_eq!(
        done.paths(),
        [
            "/", "/a", "/a/y", "/b", "/b/new", "/b/x", "/c", "/c/new", "/d", "/d/e", "/e",
        ]
    );
    let toc = &done.layers[1].view.toc;
    check_overlay(&done);
    assert!(matches!(toc.get(&path("c")), Some(Node::Opaque(_))));
    assert!(matches!(toc.get(&path("b")), Some(Node::Opaque(_))));
    assert_eq!(toc.get(&path("unknown")), None);
    assert_eq!(toc.get(&path("e/nothing")), None);
    // Order within a layer means nothing: what it puts stays.
    let done = unpack(&[
        tar().file("f", "1").end(),
        tar().file("f", "2").file(".wh.f", "").end(),
        tar().file(".wh.f", "").file("f", "3").end(),
        tar().dir("g", 0o755).file(".wh..wh..opq", "").end(),
    ])
    .unwrap();
    assert_eq!(done.paths(), ["/", "/g"]);
    assert_eq!(done.layers[2].view.toc.len(), 2);
    check_overlay(&done);
}

#[test]
fn layers_lean_on_those_below() {
    let mut base = tar()
        .dir("tmp", 0o1777)
        .dir("usr", 0o755)
        .dir("usr/lib", 0o750)
        .symlink("lib", "usr/lib")
        .symlink("deep", "/lib/sub");
    base.uid = 42;
    let base = base.file("usr/lib/old", "old").end();
    let upper = tar()
        .file("tmp/t", "t")
        .file("lib/new", "new")
        .file("lib/.wh.gone", "")
        .file("deep/er/x", "x")
        .hard("usr/lib/linked", "usr/lib/old")
        .hard("usr/lib/linked2", "lib/old")
        .hard("early", "late")
        .file("late", "late")
        .end();
    let tars = [base.clone(), upper.clone()];
    let done = unpack(&tars).unwrap();
    check_overlay(&done);
    assert_eq!(done.mode("tmp"), 0o1777);
    assert_eq!(done.mode("usr/lib"), 0o750);
    assert_eq!(
        done.tree.get(&path("lib")).unwrap().meta.kind,
        Kind::Symlink
    );
    assert_eq!(done.text("usr/lib/new").as_deref(), Some("new"));
    assert_eq!(done.text("usr/lib/sub/er/x").as_deref(), Some("x"));
    assert_eq!(done.text("early").as_deref(), Some("late"));
    let top = &done.layers[1];
    let Some(Node::Put {
        meta,
        content,
        link,
    }) = top.view.toc.get(&path("usr/lib/linked"))
    else {
        panic!("the hard link is not there");
    };
    assert_eq!((meta.uid, link), (42, None));
    assert_eq!(content, Some(*blake3::hash(b"old").as_bytes()));
    assert_eq!(
        std::fs::read(top.dir.join("usr/lib/linked")).unwrap(),
        b"old"
    );
    assert_eq!(
        std::fs::read(top.dir.join("usr/lib/linked2")).unwrap(),
        b"old"
    );
    assert!(!top.dir.join("lib").exists());
    let resolved = done
        .tree
        .resolve(&path("deep/er/x"), LastLink::Follow)
        .unwrap();
    assert_eq!(resolved, path("usr/lib/sub/er/x"));
    // The same upper layer alone is another one, and its table is not mixed up with this one's.
    let (mut layers, memory) = image(&tars);
    layers.remove(0);
    layers[0].chain_id = layers[0].diff_id;
    let Err(error) = run(&done.store, &layers, &memory) else {
        panic!("there is nothing to link to");
    };
    assert!(error.to_string().contains("usr/lib/linked"), "{error}");
    let other = tar()
        .dir("tmp", 0o755)
        .symlink("lib", "usr/lib")
        .file("usr/lib/old", "other")
        .end();
    let (layers, memory) = image(&[other, upper]);
    let again = run(&done.store, &layers, &memory).unwrap();
    let Some(Node::Put { meta, .. }) = again[1].view.toc.get(&path("tmp")) else {
        panic!("no tmp");
    };
    assert_eq!(meta.mode, 0o755);
}

#[test]
fn what_the_store_has_is_not_fetched_again() {
    let tars: Vec<Vec<u8>> = (0..9)
        .map(|n| {
            tar()
                .file(format!("f{n}"), n.to_string())
                .file("same", n.to_string())
                .end()
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let (layers, memory) = image(&tars);
    let first = run(&store, &layers[..6], &memory).unwrap();
    assert_eq!(memory.opened.load(Ordering::Relaxed), 6);
    let second = run(&store, &layers, &memory).unwrap();
    assert_eq!(memory.opened.load(Ordering::Relaxed), 9);
    assert_eq!(first[3].dir, second[3].dir);
    let mut tree = Tree::default();
    second
        .iter()
        .for_each(|layer| tree.push(layer.view.clone()));
    assert_eq!(
        tree.read(&path("same"), 9).unwrap().as_deref(),
        Some(&b"8"[..])
    );
    // A layer that has lost its files is made from its blob; a table that is lost, from the files.
    std::fs::remove_dir_all(&second[1].dir).unwrap();
    let tocs = store.dir().join("tocs");
    for toc in std::fs::read_dir(&tocs).unwrap() {
        std::fs::remove_file(toc.unwrap().path()).unwrap();
    }
    let third = run(&store, &layers, &memory).unwrap();
    assert_eq!(memory.opened.load(Ordering::Relaxed), 9);
    for (old, new) in second.iter().zip(&third) {
        check_toc(&new.dir, &new.view.toc);
        assert!(old.view.toc.iter().eq(new.view.toc.iter()));
    }
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let (layers, memory) = image(&[tar().file("f", "x").end()]);
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let got = unpack_all(
        &layers,
        &memory,
        &store,
        &Sink::none(),
        Owner::Build,
        &cancel,
    );
    assert!(matches!(got.map(|_| ()), Err(Error::Cancelled)));
    assert_eq!(
        std::fs::read_dir(store.dir().join("layers"))
            .unwrap()
            .count(),
        0
    );
}

/// Archives of other programs; each prints its own to standard output, run in a directory that has
/// one of everything.
#[test]
fn archives_of_other_programs_come_out_the_same() {
    let python = "import sys,tarfile
t=tarfile.open(fileobj=sys.stdout.buffer,mode='w|',format=tarfile.PAX_FORMAT)
t.add('.')
t.close()";
    let dir = tempfile::tempdir().unwrap();
    let shell = |script: &str| {
        let out = std::process::Command::new("sh")
            .args(["-ec", script])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        out.stdout
    };
    shell(
        "mkdir -p a/b; echo text >a/b/f; ln a/b/f a/hard; ln -s ../b a/sym; mkfifo p; chmod 4711 a/hard
        n=$(printf '%0240d' 1); mkdir -p $n/$n; echo long >$n/$n/$n; truncate -s 3M sparse
        echo end >>sparse; head -c 2000000 /dev/zero >big; touch -d 1960-01-01 old; echo x >old2
        touch -d '2020-01-01 00:00:00.123456789' old2; chown 3000000000:5 old2",
    );
    for script in [
        "tar --format=gnu -c .",
        "tar --format=posix -c .",
        "tar --format=gnu -Sc .",
        "tar --format=posix -Sc .",
        "tar --format=posix --sparse-version=0.1 -Sc .",
        "tar --format=posix --sparse-version=0.0 -Sc .",
        "tar -C a --format=ustar -c .",
        "tar -C a --format=v7 -c --exclude p .",
        &format!("python3 -c \"{python}\""),
    ] {
        let done = unpack(&[shell(script)]).unwrap_or_else(|e| panic!("{script}: {e}"));
        let top = match script.contains("-C a") {
            true => dir.path().join("a"),
            false => dir.path().to_owned(),
        };
        let root = std::fs::File::open(&top).unwrap();
        let seen = Mutex::new(1);
        let check = |_: &RelPath, entries: Vec<(RelPath, shutter::fs::Stat)>| {
            for (path, stat) in entries {
                *seen.lock().unwrap() += 1;
                let mut got = done
                    .tree
                    .get(&path)
                    .unwrap_or_else(|| panic!("{script}: {path}"));
                if !script.contains("posix") && !script.contains("python") {
                    got.meta.mtime.nanos = stat.meta.mtime.nanos;
                }
                if script.contains("python") {
                    // It writes times as floating point numbers.
                    let off = got.meta.mtime.nanos.abs_diff(stat.meta.mtime.nanos);
                    assert!(
                        !(1_000_000..=999_000_000).contains(&off),
                        "{script}: {path}"
                    );
                    got.meta.mtime = stat.meta.mtime;
                }
                assert_eq!(got.meta, stat.meta, "{script}: {path}");
                if stat.meta.kind == Kind::File {
                    let want = std::fs::read(top.join(path.as_path())).unwrap();
                    let id = *blake3::hash(&want).as_bytes();
                    assert_eq!(got.content, Some(id), "{script}: {path}");
                }
            }
            Ok(())
        };
        walk(root.as_fd(), &RelPath::root(), &check).unwrap();
        assert_eq!(*seen.lock().unwrap(), done.paths().len(), "{script}");
    }
}

#[test]
fn entries_are_read_without_a_disk() {
    let bytes = tar()
        .dir("d", 0o755)
        .file("d/f", "x")
        .file("d/.wh.g", "")
        .hard("h", "d/f")
        .end();
    for bytes in [bytes.clone(), gzip(&bytes), zstd_of(&bytes)] {
        let entries = read_entries(&bytes).unwrap();
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[2].path, path("d/g"));
        assert_eq!(entries[2].node, Node::Delete);
    }
    assert!(read_entries(&bytes[..700]).is_err());
    assert!(read_entries(b"").unwrap().is_empty());
}
