use super::*;
use crate::net::chain;
use std::io::Write;

/// One header of an archive, in the oldest format, with its content.
pub(super) fn entry(name: &str, kind: u8, mode: u32, target: &str, content: &str) -> Vec<u8> {
    let mut head = [0_u8; 512];
    let put = |head: &mut [u8; 512], at: usize, text: &str| {
        head[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(&mut head, 0, name);
    put(&mut head, 100, &format!("{mode:07o}"));
    put(&mut head, 108, &format!("{:07o}", 12));
    put(&mut head, 116, &format!("{:07o}", 34));
    put(&mut head, 124, &format!("{:011o}", content.len()));
    put(&mut head, 136, &format!("{:011o}", 1_000_000_000));
    put(&mut head, 148, "        ");
    head[156] = kind;
    put(&mut head, 157, target);
    put(&mut head, 257, "ustar\u{0}00");
    let sum: u32 = head.iter().map(|c| u32::from(*c)).sum();
    put(&mut head, 148, &format!("{sum:06o}\u{0} "));
    let mut out = head.to_vec();
    out.extend_from_slice(content.as_bytes());
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub(super) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn a_date_for_what_is_copied_is_not_for_archives() {
    let dir = context(&["d/f 644 f", "d/l -> f"]);
    std::fs::write(
        dir.path().join("t.tar"),
        archive(&[entry("in", b'0', 0o644, "", "i")]),
    )
    .unwrap();
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let (made, copied) = (Time { secs: 7, nanos: 0 }, Time { secs: 9, nanos: 0 });
    let mut op = op(&["d", "t.tar"], "/new/at/");
    op.unpack = Unpack::Local;
    op.inline = vec![("doc".into(), b"x".to_vec())];
    for (date, expected) in [(None, None), (Some(copied), Some(9))] {
        let scratch = tempfile::tempdir().unwrap();
        let dates = Dates { made, copied: date };
        let cancel = Cancel::new().unwrap();
        let done = copy(&op, &from, &[], &base(), scratch.path(), dates, &cancel).unwrap();
        let time = |path: &str| match done.get(&RelPath::clean(path.as_bytes()).unwrap()) {
            Some(Action::Put { meta, .. }) => Some(meta.mtime.secs),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(time("new"), Some(7));
        assert_eq!(time("new/at/in"), Some(1_000_000_000));
        for path in ["new/at/f", "new/at/l", "new/at/doc"] {
            match expected {
                Some(secs) => assert_eq!(time(path), Some(secs), "{path}"),
                None => assert_ne!(time(path), Some(9), "{path}"),
            }
        }
    }
}

#[test]
fn a_link_of_an_archive_has_all_permissions() {
    let dir = context(&[]);
    let bytes = archive(&[
        entry("l", b'2', 0o644, "f", ""),
        entry("h", b'1', 0o600, "l", ""),
    ]);
    std::fs::write(dir.path().join("t.tar"), bytes).unwrap();
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let mut op = op(&["t.tar"], "/");
    op.unpack = Unpack::Local;
    let scratch = tempfile::tempdir().unwrap();
    let (from, cancel) = (Origin::Context(&context), Cancel::new().unwrap());
    let dates = Dates::made(Time::default());
    let done = copy(&op, &from, &[], &base(), scratch.path(), dates, &cancel).unwrap();
    match done.get(&RelPath::clean(b"l").unwrap()) {
        Some(Action::Put { meta, .. }) => assert_eq!(meta.mode, 0o777),
        other => panic!("{other:?}"),
    }
}

#[test]
fn archives_are_unpacked() {
    let plain = archive(&[
        entry("./", b'5', 0o700, "", ""),
        entry("tree/", b'5', 0o755, "", ""),
        entry("tree/file", b'0', 0o600, "", "new"),
        entry("t/", b'5', 0o750, "", ""),
        entry("t/f", b'0', 0o640, "", "f"),
        entry("t/l", b'2', 0o777, "f", ""),
        entry("t/h", b'1', 0o640, "t/f", ""),
        entry("deep/er/x", b'0', 0o644, "", "x"),
    ]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let dir = context(&["fake.tar.gz 644 no archive at all"]);
    let packed = [
        ("t.tar", plain.clone()),
        ("t.tar.gz", gzip.finish().unwrap()),
        ("t.tar.zst", zstd::encode_all(&*plain, 1).unwrap()),
    ];
    for (name, bytes) in &packed {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let from = Origin::Context(&context);
    let below = |to: &str, owner: &str, implied: &str| {
        [
            format!("{to}deep/ 755 {implied}"),
            format!("{to}deep/er/ 755 {implied}"),
            format!("{to}deep/er/x 644 {owner} x"),
            format!("{to}t/ 750 {owner}"),
            format!("{to}t/f 640 {owner} f"),
            format!("{to}t/h = {to}t/f"),
            format!("{to}t/l -> f"),
            format!("{to}tree/ 755 {owner}"),
            format!("{to}tree/file 600 {owner} new"),
        ]
    };
    for (name, _) in &packed {
        let mut op = op(&[name], "/x/");
        op.unpack = Unpack::Local;
        let got = carry_out(&op, &from, &base()).unwrap();
        assert_eq!(got[0], "x/ 755 0:0");
        assert_eq!(got[1..], below("x/", "12:34", "0:0"), "{name}");
        op.chown = Some("3:4".into());
        let got = carry_out(&op, &from, &base()).unwrap();
        assert_eq!(got[0], "x/ 755 3:4");
        assert_eq!(got[1..], below("x/", "3:4", "0:0"), "{name}");
    }
    // A directory that is there takes on what the archive says of it, but the root does not.
    let mut op = op(&["t.tar"], "/");
    op.unpack = Unpack::Local;
    let got = carry_out(&op, &from, &base()).unwrap();
    assert_eq!(got, below("", "12:34", "0:0"));
    op.sources = vec![CopySource::Path("fake.tar.gz".into())];
    let got = carry_out(&op, &from, &base()).unwrap();
    assert_eq!(got, ["fake.tar.gz 644 0:0 no archive at all"]);
    op.unpack = Unpack::Never;
    op.sources = vec![CopySource::Path("t.tar.gz".into())];
    let paths = carry_out_paths(&op, &from);
    assert_eq!(paths, ["t.tar.gz"]);
}

fn carry_out_paths(op: &CopyOp, from: &Origin<'_>) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let changeset = make(op, from, &[], &base(), &scratch).unwrap();
    let path = |change: &crate::changeset::Change| {
        String::from_utf8_lossy(change.path.as_bytes()).into_owned()
    };
    changeset.changes.iter().map(path).collect()
}

#[test]
fn a_cancelled_build_unpacks_nothing() {
    let dir = context(&[]);
    let archive = archive(&[entry("f", b'0', 0o644, "", "x")]);
    std::fs::write(dir.path().join("t.tar"), archive).unwrap();
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let mut op = op(&["t.tar"], "/");
    op.unpack = Unpack::Local;
    let (scratch, cancel) = (tempfile::tempdir().unwrap(), Cancel::new().unwrap());
    cancel.cancel();
    let from = Origin::Context(&context);
    let dates = Dates::made(NOW);
    let done = copy(&op, &from, &[], &base(), scratch.path(), dates, &cancel);
    assert!(matches!(done, Err(Error::Cancelled)));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn archives_stay_inside_the_destination() {
    let cases: &[(Vec<Vec<u8>>, &[&str])] = &[
        (
            vec![
                entry("esc", b'2', 0o777, "../../../etc", ""),
                entry("esc/passwd", b'0', 0o644, "", "x"),
            ],
            &[
                "x/ 755 0:0",
                "x/esc -> ../../../etc",
                "x/etc/ 755 0:0",
                "x/etc/passwd 644 12:34 x",
            ],
        ),
        (
            vec![
                entry("esc", b'2', 0o777, "/etc", ""),
                entry("esc/passwd", b'0', 0o644, "", "x"),
            ],
            &[
                "x/ 755 0:0",
                "x/esc -> /etc",
                "x/etc/ 755 0:0",
                "x/etc/passwd 644 12:34 x",
            ],
        ),
        (
            // A directory that becomes a file and a directory again is a new one.
            vec![
                entry("d/", b'5', 0o755, "", ""),
                entry("d/f", b'0', 0o644, "", "x"),
                entry("d", b'0', 0o644, "", "y"),
                entry("d", b'5', 0o711, "", ""),
            ],
            &["x/ 755 0:0", "x/d/ 711 12:34"],
        ),
    ];
    for (entries, expected) in cases {
        let dir = context(&[]);
        std::fs::write(dir.path().join("t.tar"), archive(entries)).unwrap();
        let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
        let mut op = op(&["t.tar"], "/x");
        op.unpack = Unpack::Local;
        let got = carry_out(&op, &Origin::Context(&context), &base()).unwrap();
        assert_eq!(&got, expected);
    }
    let refused: &[Vec<Vec<u8>>] = &[
        vec![
            entry("a", b'0', 0o644, "", "x"),
            entry("../../a", b'0', 0o644, "", "x"),
        ],
        vec![entry("h", b'1', 0o644, "no/such", "")],
        vec![entry("h", b'1', 0o644, "../../../etc/passwd", "")],
    ];
    for entries in refused {
        let dir = context(&[]);
        std::fs::write(dir.path().join("t.tar"), archive(entries)).unwrap();
        let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
        let mut op = op(&["t.tar"], "/x");
        op.unpack = Unpack::Local;
        match carry_out(&op, &Origin::Context(&context), &base()) {
            Err(error) => assert_eq!(error, "unpack /t.tar"),
            // Clamped to the destination will do as well.
            Ok(lines) => assert!(lines.iter().all(|line| line.starts_with("x/")), "{lines:?}"),
        }
    }
}

#[test]
fn a_directory_over_what_was_hidden_is_opaque() {
    let dir = context(&[]);
    let bytes = archive(&[
        entry("sub", b'0', 0o644, "", "x"),
        entry("sub", b'5', 0o755, "", ""),
    ]);
    std::fs::write(dir.path().join("t.tar"), bytes).unwrap();
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let mut op = op(&["t.tar"], "/tree");
    op.unpack = Unpack::Local;
    let got = carry_out(&op, &Origin::Context(&context), &base()).unwrap();
    assert_eq!(got, ["tree/sub/ opaque 755 12:34"]);
}

#[test]
fn a_hard_link_to_a_file_of_the_image_takes_the_file_along() {
    let dir = context(&[]);
    let bytes = archive(&[entry("again", b'1', 0o644, "file", "")]);
    std::fs::write(dir.path().join("t.tar"), bytes).unwrap();
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let mut op = op(&["t.tar"], "/tree");
    op.unpack = Unpack::Local;
    let got = carry_out(&op, &Origin::Context(&context), &base()).unwrap();
    // The two are one file, which is what the archive says last.
    assert_eq!(got, ["tree/again 644 12:34 base", "tree/file = tree/again"]);
}

/// Unpacks one archive into `/tree` of the base image.
fn unpack(entries: &[Vec<u8>], chown: Option<&str>) -> Result<Vec<String>, String> {
    let dir = context(&[]);
    std::fs::write(dir.path().join("t.tar"), archive(entries)).unwrap();
    let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
    let mut op = instruction("ADD t.tar /tree");
    op.chown = chown.map(str::to_owned);
    let scratch = tempfile::tempdir().unwrap();
    let from = Origin::Context(&context);
    match make(&op, &from, &[], &base(), &scratch) {
        Ok(changeset) => Ok(lines(&changeset)),
        Err(error) => Err(chain(&error)),
    }
}

#[test]
fn hostile_archives() {
    let file = |name: &str| entry(name, b'0', 0o644, "", "x");
    let link = |name: &str, target: &str| entry(name, b'2', 0o777, target, "");
    let hard = |name: &str, target: &str| entry(name, b'1', 0o600, target, "");
    let dir = |name: &str| entry(name, b'5', 0o711, "", "");
    let node = |name: &str, kind: u8, device: (u8, u8)| {
        let mut block = entry(name, kind, 0o644, "", "");
        block[329..337].copy_from_slice(format!("{:07o}\0", device.0).as_bytes());
        block[337..345].copy_from_slice(format!("{:07o}\0", device.1).as_bytes());
        block[148..156].fill(b' ');
        let sum: u32 = block[..512].iter().map(|c| u32::from(*c)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    };
    type Case<'a> = (&'a str, Vec<Vec<u8>>, Result<&'a [&'a str], &'a str>);
    let table: &[Case<'_>] = &[
        // Nothing gets above the destination.
        (
            "up",
            vec![file("a"), file("../a")],
            Err("unpack /t.tar: entry `../a`: its name has a `..`"),
        ),
        (
            "up in the middle",
            vec![file("a"), file("b/../../a")],
            Err("unpack /t.tar: entry `b/../../a`: its name has a `..`"),
        ),
        (
            "absolute",
            vec![file("/etc/passwd")],
            Ok(&["tree/etc/ 755 0:0", "tree/etc/passwd 644 12:34 x"]),
        ),
        (
            "through a link that was there",
            vec![file("../lnk/a")],
            Err("unpack /t.tar: entry `../lnk/a`: its name has a `..`"),
        ),
        (
            "through a link up",
            vec![link("l", "../../.."), file("l/etc/passwd")],
            Ok(&[
                "tree/etc/ 755 0:0",
                "tree/etc/passwd 644 12:34 x",
                "tree/l -> ../../..",
            ]),
        ),
        (
            "through two links",
            vec![link("a", "b/.."), link("b", "/etc"), file("a/passwd")],
            Ok(&[
                "tree/a -> b/..",
                "tree/b -> /etc",
                "tree/passwd 644 12:34 x",
            ]),
        ),
        (
            "in a circle",
            vec![link("a", "b"), link("b", "a"), file("a/f")],
            Err("resolve /a: Too many levels of symbolic links (os error 40)"),
        ),
        (
            "a hard link out",
            vec![hard("h", "../../etc/passwd")],
            Err(
                "unpack /t.tar: entry `h`: it is a hard link to `../../etc/passwd`, which is not inside the archive's root",
            ),
        ),
        (
            "a hard link out through a link",
            vec![link("l", "/"), hard("h", "l/../etc/passwd")],
            Err(
                "unpack /t.tar: entry `h`: it is a hard link to `l/../etc/passwd`, which is not inside the archive's root",
            ),
        ),
        (
            "a hard link through a link",
            vec![link("l", "/"), hard("h", "l/etc/passwd")],
            Err("unpack /t.tar: /h is a hard link to /l/etc/passwd, which is no file there"),
        ),
        (
            "a hard link to a directory",
            vec![dir("d"), hard("h", "d")],
            Err("unpack /t.tar: /h is a hard link to /d, which is no file there"),
        ),
        // The link's header says what the file is.
        (
            "hard links",
            vec![file("a"), hard("b", "a"), hard("c", "b")],
            Ok(&["tree/a 600 12:34 x", "tree/b = tree/a", "tree/c = tree/a"]),
        ),
        (
            "a hard link to itself",
            vec![file("a"), hard("a", "a")],
            Ok(&["tree/a 600 12:34 x"]),
        ),
        (
            "a hard link over a directory that has its file",
            vec![file("d/f"), hard("d", "d/f")],
            Ok(&["tree/d 600 12:34 x"]),
        ),
        // What was there gives way, link or not.
        (
            "over a link",
            vec![file("link")],
            Ok(&["tree/link 644 12:34 x"]),
        ),
        (
            "a directory over a link",
            vec![dir("link"), file("link/f")],
            Ok(&["tree/link/ 711 12:34", "tree/link/f 644 12:34 x"]),
        ),
        (
            "a file over a directory",
            vec![file("sub")],
            Ok(&["tree/sub 644 12:34 x"]),
        ),
        (
            "a directory over a directory",
            vec![dir("sub")],
            Ok(&["tree/sub/ 711 12:34"]),
        ),
        (
            "below a file",
            vec![file("file/x")],
            Err("mkdir /tree/file: not a directory"),
        ),
        // Nodes.
        (
            "a fifo",
            vec![node("p", b'6', (0, 0))],
            Ok(&["tree/p Fifo 644 12:34"]),
        ),
        (
            "devices",
            vec![node("b", b'4', (7, 0)), node("c", b'3', (1, 3))],
            Ok(&["tree/b Block 644 12:34", "tree/c Char 644 12:34"]),
        ),
        (
            "a whiteout of overlayfs",
            vec![node("file", b'3', (0, 0))],
            Err("/tree/file would be a character device 0:0, which stands for a deletion"),
        ),
        // A name is a name here; making a layer of it is what fails.
        (
            "a whiteout of layers",
            vec![file(".wh.file")],
            Ok(&["tree/.wh.file 644 12:34 x"]),
        ),
        (
            "an unknown type",
            vec![file("a"), entry("b", b'Z', 0o644, "", "")],
            Err("unpack /t.tar: entry `b`: its type `Z` is not known"),
        ),
        (
            "an end in the middle",
            vec![
                file("a"),
                entry("b", b'0', 0o644, "", &"x".repeat(3000))[..600].to_vec(),
            ],
            Err("unpack /t.tar: entry `/b`: the archive ends within entry `b`"),
        ),
    ];
    for (name, entries, expected) in table {
        let expected = expected
            .map(|lines| lines.iter().map(|line| (*line).to_owned()).collect())
            .map_err(str::to_owned);
        assert_eq!(unpack(entries, None), expected, "{name}");
    }
    let got = unpack(&[file("deep/a"), hard("b", "deep/a")], Some("app"));
    let owned: &[&str] = &[
        "tree/b 600 1000:1000 x",
        "tree/deep/ 755 0:0",
        "tree/deep/a = tree/b",
    ];
    assert_eq!(got.unwrap(), owned);
}

/// One PAX header with these records.
fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + rest.to_string().len();
        length = rest + length.to_string().len();
        text.push_str(&format!("{length} {key}={value}\n"));
    }
    entry("pax", b'x', 0o644, "", &text)
}

#[test]
fn archives_are_bounded() {
    // A file that is all hole: 1 MiB costs nothing, and 1 EiB is refused before anything is written.
    let sparse = |size: &str| {
        let head = pax(&[
            ("GNU.sparse.major", "0"),
            ("GNU.sparse.minor", "1"),
            ("GNU.sparse.name", "hole"),
            ("GNU.sparse.size", size),
            ("GNU.sparse.numblocks", "1"),
            ("GNU.sparse.map", &format!("{size},0")),
        ]);
        vec![head, entry("hole", b'0', 0o644, "", "")]
    };
    let got = unpack(&sparse("1048576"), None).unwrap();
    assert_eq!(got[0].len(), "tree/hole 644 12:34 ".len() + (1 << 20));
    assert_eq!(
        unpack(&sparse("1152921504606846976"), None).unwrap_err(),
        "unpack /t.tar: the bytes of holes are too many for one archive"
    );
    // Times that no file has are taken for none.
    for (time, secs) in [
        ("-5", 0),
        ("99999999999", 0),
        ("1700000000.5", 1_700_000_000),
    ] {
        let dir = context(&[]);
        let entries = [pax(&[("mtime", time)]), entry("f", b'0', 0o644, "", "x")];
        std::fs::write(dir.path().join("t.tar"), archive(&entries)).unwrap();
        let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let from = Origin::Context(&context);
        let op = instruction("ADD t.tar /");
        let made = make(&op, &from, &[], &base(), &scratch).unwrap();
        let Some(Action::Put { meta, .. }) = made.get(&clean("f").unwrap()) else {
            panic!("f is put");
        };
        assert_eq!(meta.mtime.secs, secs, "{time}");
    }
}

#[test]
fn every_compression_is_known_by_its_content() {
    let plain = archive(&[entry("f", b'0', 0o640, "", "x")]);
    let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let packed = [
        plain.clone(),
        bzip.finish().unwrap(),
        xz.finish().unwrap(),
        gzip.finish().unwrap(),
        zstd::encode_all(&*plain, 1).unwrap(),
    ];
    for bytes in &packed {
        let dir = context(&[]);
        // Whatever it is called.
        std::fs::write(dir.path().join("picture.png"), bytes).unwrap();
        let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
        let from = Origin::Context(&context);
        let got = carry_out(&instruction("ADD picture.png /x"), &from, &base());
        assert_eq!(got.unwrap(), ["x/ 755 0:0", "x/f 640 12:34 x"]);
        // Patterns of --exclude and modes are not for what is in it.
        let text = "ADD --exclude=* --chmod=600 picture.png /x";
        let got = carry_out(&instruction(text), &from, &base());
        assert_eq!(got.unwrap(), ["x/ 755 0:0", "x/f 640 12:34 x"]);
    }
    for no_archive in ["", "x", &"\0".repeat(1024), "BZh9nothing", "\u{1f}\u{8b}"] {
        let dir = context(&[]);
        std::fs::write(dir.path().join("f"), no_archive).unwrap();
        let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).unwrap();
        let got = carry_out(
            &instruction("ADD f /x"),
            &Origin::Context(&context),
            &base(),
        );
        assert_eq!(got.unwrap(), [format!("x 644 0:0 {no_archive}")]);
    }
}
