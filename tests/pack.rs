//! Layers as other programs read them, and what must be the same whatever the machine does.

use shutter::changeset::{Action, Change, Changeset, State};
use shutter::fs::{Kind, Meta, Node, RelPath, Source, Time};
use shutter::layer::{Error, PackOptions, Packed, Permits, Times, pack};
use shutter::oci::{Digest, Format};
use shutter::progress::{Event, Owner, Sink, Work};
use shutter::request::Compression;
use shutter::store::Store;
use shutter::sys::Cancel;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const CODECS: [Compression; 4] = [
    Compression::Gzip(1),
    Compression::Gzip(6),
    Compression::Zstd(1),
    Compression::Zstd(3),
];

fn path(text: &[u8]) -> RelPath {
    RelPath::clean(text).unwrap()
}

fn put(name: &[u8], meta: Meta, source: Option<Source>) -> Change {
    Change {
        path: path(name),
        action: Action::Put {
            meta,
            source,
            link: None,
        },
    }
}

fn bytes(name: &str, content: &[u8]) -> Change {
    let meta = Meta::file(0o644, content.len() as u64, time(1_600_000_000));
    put(name.as_bytes(), meta, Some(Source::Bytes(content.into())))
}

fn time(secs: i64) -> Time {
    Time { secs, nanos: 999 }
}

fn delete(name: &str) -> Change {
    Change {
        path: path(name.as_bytes()),
        action: Action::Delete,
    }
}

fn changeset(mut changes: Vec<Change>) -> Changeset {
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Changeset {
        changes,
        state: State::Frozen,
    }
}

/// Bytes that neither compress to nothing nor stay as they are, the same on every call.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 3 {
            0 => out.extend_from_slice(b"the quick brown fox "),
            _ => out.extend_from_slice(&state.to_le_bytes()),
        }
    }
    out.truncate(length);
    out
}

struct Kitchen {
    dir: tempfile::TempDir,
    store: Store,
    permits: Arc<Permits>,
    sink: Sink,
    advanced: Arc<AtomicU64>,
    options: PackOptions,
}

impl Kitchen {
    fn new() -> Kitchen {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let advanced = Arc::new(AtomicU64::new(0));
        let sum = Arc::clone(&advanced);
        Kitchen {
            dir,
            store,
            permits: Permits::new(2 * rayon::current_num_threads() + 8),
            sink: Sink::new(move |event| {
                if let Event::SpanProgress { bytes, .. } = event {
                    sum.fetch_add(bytes, Ordering::SeqCst);
                }
            }),
            advanced,
            options: PackOptions {
                compression: Compression::Gzip(1),
                format: Format::Oci,
                times: Times::Keep,
                cancel: Cancel::new().unwrap(),
            },
        }
    }

    fn try_pack(&self, changeset: &Changeset, options: &PackOptions) -> Result<Packed, Error> {
        let span = self.sink.span(Owner::Build, Work::Compress, "test", None);
        pack(changeset, options, &self.store, &self.permits, &span)
    }

    fn pack(&self, changeset: &Changeset, compression: Compression) -> Packed {
        let options = PackOptions {
            compression,
            ..self.options.clone()
        };
        self.try_pack(changeset, &options).unwrap()
    }

    fn blob(&self, packed: &Packed) -> PathBuf {
        let descriptor = &packed.descriptor;
        let blob = self.store.blob(&descriptor.digest, descriptor.size);
        blob.unwrap().unwrap()
    }

    /// The tar, decompressed by a program that is not ours and checked against the diff ID.
    fn tar(&self, packed: &Packed, compression: Compression) -> Vec<u8> {
        let program = match compression {
            Compression::Gzip(_) => "gzip",
            Compression::Zstd(_) => "zstd",
        };
        let tar = output(
            Command::new(program)
                .arg("-dc")
                .stdin(File::open(self.blob(packed)).unwrap()),
        );
        assert_eq!(Digest::of(&tar), packed.diff_id);
        assert_eq!(tar.len() as u64, packed.raw);
        tar
    }
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// Runs a Python program on a file; gives what it prints.
fn python(program: &str, file: &Path) -> String {
    let printed = output(Command::new("python3").args(["-c", program]).arg(file));
    String::from_utf8(printed).unwrap()
}

/// One of everything, beside real files for the content.
fn zoo(dir: &Path) -> Changeset {
    let real = noise(7, 700_000);
    fs::write(dir.join("real"), &real).unwrap();
    let root: Arc<std::os::fd::OwnedFd> = Arc::new(File::open(dir).unwrap().into());
    let source = Source::File {
        dir: root,
        path: path(b"real"),
    };
    let special = |kind, device, target: &[u8]| Meta {
        kind,
        device,
        target: target.to_vec(),
        ..Meta::dir(0o620, time(5))
    };
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(120));
    let capability = b"\x01\0\0\x02\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let mut hardlink = put(b"b/second", Meta::file(0o4755, 700_000, time(9)), None);
    if let Action::Put { link, .. } = &mut hardlink.action {
        *link = Some(path(b"b/first"));
    }
    changeset(vec![
        put(b"", Meta::dir(0o755, time(1)), None),
        put(b"b", Meta::dir(0o1777, time(2)), None),
        put(
            b"b/first",
            Meta::file(0o4755, 700_000, time(9)),
            Some(source),
        ),
        hardlink,
        delete("b/gone"),
        put(b"c-null", special(Kind::Char, (1, 3), b""), None),
        put(b"d-block", special(Kind::Block, (259, 70_000), b""), None),
        put(b"e-fifo", special(Kind::Fifo, (0, 0), b""), None),
        put(
            b"f-link",
            special(Kind::Symlink, (0, 0), b"../b/first"),
            None,
        ),
        put("g-größe".as_bytes(), Meta::file(0o644, 0, time(-4)), None),
        put(
            b"h-cap",
            Meta {
                uid: 3_000_000,
                xattrs: vec![(b"security.capability".to_vec(), capability)],
                ..Meta::file(0o755, 3, time(3))
            },
            Some(Source::Bytes(b"cap"[..].into())),
        ),
        put(&[b'i', 0xff, 0xfe], Meta::file(0o644, 0, time(3)), None),
        put(long.as_bytes(), Meta::file(0o600, 0, time(3)), None),
    ])
}

const LIST: &str = r#"
import sys, tarfile
with tarfile.open(sys.argv[1]) as tar:
    for m in tar:
        x = {k[13:]: v.encode("utf-8", "surrogateescape") for k, v in m.pax_headers.items() if k.startswith("SCHILY")}
        print(m.name.encode("utf-8", "surrogateescape"), m.type.decode(), oct(m.mode), m.uid, m.gid, m.size, int(m.mtime),
              m.linkname, m.devmajor, m.devminor, x or "")
"#;

#[test]
fn other_programs_read_what_was_written() {
    let kitchen = Kitchen::new();
    let changes = zoo(kitchen.dir.path());
    let packed = kitchen.pack(&changes, Compression::Gzip(1));
    let blob = kitchen.blob(&packed);
    let wanted = [
        "b'b' 5 0o1777 0 0 0 2  0 0 ",
        "b'b/first' 0 0o4755 0 0 700000 9  0 0 ",
        "b'b/.wh.gone' 0 0o0 0 0 0 0  0 0 ",
        "b'b/second' 1 0o4755 0 0 0 9 b/first 0 0 ",
        "b'c-null' 3 0o620 0 0 0 5  1 3 ",
        "b'd-block' 4 0o620 0 0 0 5  259 70000 ",
        &format!(
            "b'{}/{}' 0 0o600 0 0 0 3  0 0 ",
            "d".repeat(90),
            "n".repeat(120)
        ),
        "b'e-fifo' 6 0o620 0 0 0 5  0 0 ",
        "b'f-link' 2 0o620 0 0 0 5 ../b/first 0 0 ",
        "b'g-gr\\xc3\\xb6\\xc3\\x9fe' 0 0o644 0 0 0 -4  0 0 ",
        "b'h-cap' 0 0o755 3000000 0 3 3  0 0 {'security.capability': b'\\x01\\x00\\x00\\x02\\n\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'}",
        "b'i\\xff\\xfe' 0 0o644 0 0 0 3  0 0 ",
    ];
    let mut listed: Vec<String> = python(LIST, &blob).lines().map(str::to_owned).collect();
    // The order is the table of contents' own affair.
    listed.sort();
    let mut wanted: Vec<&str> = wanted.to_vec();
    wanted.sort_unstable();
    assert_eq!(listed, wanted);

    let names = output(
        Command::new("tar")
            .args(["--quoting-style=literal", "-tzf"])
            .arg(&blob),
    );
    assert_eq!(names.split(|&c| c == b'\n').count() - 1, wanted.len());
    let content = output(
        Command::new("tar")
            .args(["-xOzf"])
            .arg(&blob)
            .arg("b/first"),
    );
    assert_eq!(content, noise(7, 700_000));
    assert_eq!(packed.entries, wanted.len() as u64);
    assert_eq!(
        kitchen.advanced.load(Ordering::SeqCst),
        kitchen.tar(&packed, Compression::Gzip(1)).len() as u64
    );
}

#[test]
fn the_table_says_what_the_tar_says() {
    let kitchen = Kitchen::new();
    let packed = kitchen.pack(&zoo(kitchen.dir.path()), Compression::Gzip(1));
    let kept = kitchen.store.toc(&packed.diff_id).unwrap().unwrap();
    assert_eq!(kept.iter().count() as u64, packed.entries);
    let id: [u8; 32] = blake3::hash(&noise(7, 700_000)).into();
    for name in ["b/first", "b/second"] {
        let Some(Node::Put { meta, content, .. }) = kept.get(&path(name.as_bytes())) else {
            panic!("{name} is missing");
        };
        assert_eq!(
            (content, meta.mtime),
            (Some(id), Time { secs: 9, nanos: 0 })
        );
    }
    assert_eq!(kept.get(&path(b"b/gone")), Some(Node::Delete));
    assert_eq!(kept.get(&RelPath::root()), None);
}

/// Sizes around every border: blocks, chunks, runs, large files.
fn borders() -> Changeset {
    let sizes = [
        0, 1, 511, 512, 513, 262_143, 262_144, 262_145, 1_048_575, 1_048_576, 1_048_577, 4_194_304,
        9_000_001,
    ];
    let mut changes: Vec<Change> = sizes
        .iter()
        .map(|&size| bytes(&format!("size-{size:08}"), &noise(size as u64, size)))
        .collect();
    changes.extend((0..1000).map(|n| bytes(&format!("many/{n:04}"), &noise(n, 300))));
    changeset(changes)
}

#[test]
fn decompressors_agree_and_gzip_is_one_member() {
    let kitchen = Kitchen::new();
    let changes = borders();
    let mut diff_ids = Vec::new();
    for codec in CODECS {
        let packed = kitchen.pack(&changes, codec);
        kitchen.tar(&packed, codec);
        let blob = kitchen.blob(&packed);
        match codec {
            Compression::Gzip(_) => {
                output(
                    Command::new("gzip")
                        .args(["-t"])
                        .stdin(File::open(&blob).unwrap()),
                );
                let one = r#"
import sys, zlib
d = zlib.decompressobj(31)
b = open(sys.argv[1], "rb").read()
n = len(d.decompress(b))
print(n, d.eof, len(d.unused_data))"#;
                assert_eq!(python(one, &blob), format!("{} True 0\n", packed.raw));
            }
            Compression::Zstd(_) => {
                output(
                    Command::new("zstd")
                        .args(["-tq"])
                        .stdin(File::open(&blob).unwrap()),
                );
            }
        }
        diff_ids.push(packed.diff_id);
    }
    diff_ids.dedup();
    assert_eq!(diff_ids.len(), 1);
}

/// Prints digests where the environment says so; as a test of its own it has nothing to do.
#[test]
fn child() {
    if std::env::var_os("PACK_TEST_CHILD").is_none() {
        return;
    }
    let kitchen = Kitchen::new();
    let changes = borders();
    for codec in CODECS {
        println!("digest {}", kitchen.pack(&changes, codec).descriptor.digest);
    }
    std::io::stdout().flush().unwrap();
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let run = |threads: &str| {
        let printed = output(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child", "--nocapture", "--test-threads=1"])
                .env("PACK_TEST_CHILD", "1")
                .env("RAYON_NUM_THREADS", threads),
        );
        let printed = String::from_utf8(printed).unwrap();
        let digests: Vec<String> = printed
            .lines()
            .filter_map(|line| Some(line.split_once("digest ")?.1.to_owned()))
            .collect();
        assert_eq!(digests.len(), CODECS.len(), "{printed}");
        digests
    };
    let one = run("1");
    assert_eq!(one, run("2"));
    assert_eq!(one, run("5"));
}

#[test]
fn times_are_kept_clamped_or_set() {
    let kitchen = Kitchen::new();
    let changes = changeset(vec![
        delete("gone"),
        put(b"new", Meta::file(0o644, 0, time(2000)), None),
        put(b"old", Meta::file(0o644, 0, time(10)), None),
    ]);
    let table = [
        (Times::Keep, "0 2000 10\n"),
        (Times::Clamp(1000), "0 1000 10\n"),
        (Times::Set(1000), "1000 1000 1000\n"),
    ];
    for (times, wanted) in table {
        let options = PackOptions {
            times,
            ..kitchen.options.clone()
        };
        let packed = kitchen.try_pack(&changes, &options).unwrap();
        let list = "import sys,tarfile; print(*[int(m.mtime) for m in tarfile.open(sys.argv[1])])";
        let printed = python(list, &kitchen.blob(&packed));
        assert_eq!(printed, wanted, "{times:?}");
    }
}

#[test]
fn an_empty_layer_is_two_blocks() {
    let kitchen = Kitchen::new();
    let packed = kitchen.pack(&changeset(Vec::new()), Compression::Gzip(1));
    assert_eq!(kitchen.tar(&packed, Compression::Gzip(1)), [0; 1024]);
}

#[test]
fn what_cannot_be_packed_is_named() {
    let kitchen = Kitchen::new();
    let dir = kitchen.dir.path();
    fs::write(dir.join("five"), b"12345").unwrap();
    fs::write(dir.join("large"), vec![1; 600_000]).unwrap();
    let root: Arc<std::os::fd::OwnedFd> = Arc::new(File::open(dir).unwrap().into());
    let live = |name: &[u8], size| {
        let source = Source::File {
            dir: Arc::clone(&root),
            path: path(name),
        };
        put(name, Meta::file(0o644, size, time(0)), Some(source))
    };
    let odd = Meta {
        xattrs: vec![(b"user.a=b".to_vec(), Vec::new())],
        ..Meta::file(0o644, 0, time(0))
    };
    let table: Vec<(Change, &str)> = vec![
        (
            live(b"five", 4),
            "read /five: its size changed while it was read: 4 bytes were expected, there are 5 or more",
        ),
        (
            live(b"five", 6),
            "read /five: its size changed while it was read: 6 bytes were expected, there are 5",
        ),
        (
            live(b"large", 599_999),
            "read /large: its size changed while it was read: 599999 bytes were expected, there are 600000 or more",
        ),
        (
            live(b"large", 600_001),
            "read /large: its size changed while it was read: 600001 bytes were expected, there are 600000",
        ),
        (
            live(b"absent", 1),
            "read /absent: No such file or directory (os error 2)",
        ),
        (
            bytes("d/.wh.x", b""),
            "/d/.wh.x cannot be put into a layer: a name that begins with `.wh.` marks a deletion there",
        ),
        (
            put(b"f", odd, None),
            "/f cannot be put into a layer: a tar cannot hold an extended attribute named `user.a=b`",
        ),
    ];
    for (change, wanted) in table {
        let error = kitchen
            .try_pack(&changeset(vec![change]), &kitchen.options)
            .err()
            .unwrap();
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text = format!("{text}: {source}");
        }
        assert_eq!(text, wanted);
    }
    let named = bytes("d/.whatever", b"");
    kitchen.pack(&changeset(vec![named]), Compression::Gzip(1));
}

#[test]
fn an_error_late_in_a_layer_leaves_nothing() {
    let kitchen = Kitchen::new();
    let mut changes = borders().changes;
    let absent = Source::File {
        dir: Arc::new(File::open(kitchen.dir.path()).unwrap().into()),
        path: path(b"absent"),
    };
    changes.push(put(b"zzz", Meta::file(0o644, 1, time(0)), Some(absent)));
    assert!(
        kitchen
            .try_pack(&changeset(changes), &kitchen.options)
            .is_err()
    );
    kitchen.options.cancel.cancel();
    let error = kitchen
        .try_pack(&borders(), &kitchen.options)
        .err()
        .unwrap();
    assert!(matches!(error, Error::Cancelled));
    let store = kitchen.store.dir();
    assert_eq!(fs::read_dir(store.join("blobs/sha256")).unwrap().count(), 0);
    for session in fs::read_dir(store.join("tmp")).unwrap() {
        let session = session.unwrap().path();
        assert_eq!(fs::read_dir(session).unwrap().count(), 0);
    }
}

#[test]
fn memory_stays_within_the_permits_of_all_layers() {
    let kitchen = Kitchen::new();
    let file = kitchen.dir.path().join("sparse");
    File::create(&file).unwrap().set_len(100 << 20).unwrap();
    let root: Arc<std::os::fd::OwnedFd> = Arc::new(File::open(kitchen.dir.path()).unwrap().into());
    let source = Source::File {
        dir: root,
        path: path(b"sparse"),
    };
    let changes = changeset(vec![put(
        b"sparse",
        Meta::file(0o644, 100 << 20, time(0)),
        Some(source),
    )]);
    let permits = Permits::new(10);
    let before = peak();
    std::thread::scope(|scope| {
        for codec in [
            Compression::Gzip(1),
            Compression::Zstd(1),
            Compression::Gzip(2),
        ] {
            let (kitchen, permits, changes) = (&kitchen, &permits, &changes);
            scope.spawn(move || {
                let options = PackOptions {
                    compression: codec,
                    ..kitchen.options.clone()
                };
                let span = Sink::none().span(Owner::Build, Work::Compress, "test", None);
                pack(changes, &options, &kitchen.store, permits, &span).unwrap();
            });
        }
    });
    // Two chunks a layer may exceed the bound: 2 MiB, 8 MiB and 2 MiB.
    assert!(permits.most_used() <= 10 + 12, "{}", permits.most_used());
    let grown = peak() - before;
    assert!(grown < 120 << 20, "{} MiB more", grown >> 20);
}

/// The most memory this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() << 10
}
