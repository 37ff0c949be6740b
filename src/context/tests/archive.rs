use super::*;
use std::io::Write;

/// One header of an archive, in the oldest format, with its content.
fn entry(name: &str, kind: u8, mode: u32, target: &str, content: &str) -> Vec<u8> {
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

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
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
    let changeset = copy(
        op,
        from,
        &[],
        &base(),
        scratch.path(),
        Dates::made(NOW),
        &Cancel::new().unwrap(),
    )
    .unwrap();
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
    let done = copy(
        &op,
        &from,
        &[],
        &base(),
        scratch.path(),
        Dates::made(NOW),
        &cancel,
    );
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
