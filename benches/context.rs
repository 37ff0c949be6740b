//! What a COPY costs in a context of 100,000 files: what it takes, not what is there.

use criterion::{Criterion, criterion_group, criterion_main};
use shutter::context::{Context, Dates, Origin, copy};
use shutter::fs::{Time, Tree};
use shutter::plan::{CopyOp, CopySource, From, Unpack};
use shutter::sys::Cancel;
use std::path::Path;

const DIRS: usize = 2_000;
const FILES: usize = 50;

/// Makes 100,000 files two levels deep, one in 200 of them a `package.json`, and ten at the top.
fn context() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    for n in 0..DIRS {
        let sub = dir.path().join(format!("part-{}/dir-{n}", n % 20));
        std::fs::create_dir_all(&sub).expect("a directory");
        for file in 0..FILES {
            let name = match (n % 4, file) {
                (0, 0) => "package.json".into(),
                _ => format!("file-{file}.js"),
            };
            std::fs::write(sub.join(name), "content").expect("a file");
        }
    }
    for n in 0..10 {
        std::fs::write(dir.path().join(format!("top-{n}.json")), "content").expect("a file");
    }
    dir
}

fn op(sources: &[&str], parents: bool, exclude: &[&str]) -> CopyOp {
    let path = |source: &&str| CopySource::Path((*source).to_owned());
    CopyOp {
        from: From::Context,
        sources: sources.iter().map(path).collect(),
        inline: Vec::new(),
        dest: "/x/".into(),
        chown: None,
        chmod: None,
        unpack: Unpack::Never,
        link: false,
        parents,
        exclude: exclude
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect(),
        instruction: "COPY",
    }
}

fn bench(c: &mut Criterion) {
    let dir = context();
    let scratch = tempfile::tempdir().expect("a directory");
    let cancel = Cancel::new().expect("a switch");
    let ignored = "**/.git\n**/*.log\n*.md\n!README.md\n**/node_modules\npart-1*\n!part-10/keep\n";
    let cases: &[(&str, CopyOp)] = &[
        ("10 files by pattern", op(&["top-*.json"], false, &[])),
        (
            "50 files of one directory",
            op(&["part-4/dir-4"], false, &[]),
        ),
        (
            "500 of 100,000 by --parents **",
            op(&["**/package.json"], true, &[]),
        ),
        (
            "500 left by --exclude",
            op(&["."], false, &["**", "!**/package.json"]),
        ),
        ("100,000 files", op(&["."], false, &[])),
    ];
    let mut group = c.benchmark_group("COPY");
    group.sample_size(10);
    for ignore in [None, Some(ignored)] {
        let file = dir.path().join(".dockerignore");
        if let Some(text) = ignore {
            std::fs::write(file, text).expect("an ignore file");
        }
        let context = Context::open(dir.path(), Path::new("/nowhere/Dockerfile")).expect("open");
        let from = Origin::Context(&context);
        let with = if ignore.is_some() {
            ", ignore file"
        } else {
            ""
        };
        for (name, op) in cases {
            group.bench_function(format!("{name}{with}"), |b| {
                b.iter(|| {
                    let now = Dates::made(Time::default());
                    let dest = Tree::default();
                    let (at, made) = (scratch.path(), &[]);
                    copy(op, &from, made, &dest, at, now, &cancel).expect("copy")
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
