//! Headers alone, a layer of one file, and a layer of many small files on disk.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shutter::changeset::{Action, Change, Changeset, State};
use shutter::fs::{Meta, RelPath, Source, Time};
use shutter::layer::{PackOptions, Permits, Times, pack, tar};
use shutter::oci::Format;
use shutter::progress::{Owner, Sink, Work};
use shutter::request::Compression;
use shutter::store::Store;
use shutter::sys::Cancel;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const FILES: usize = 5000;

fn headers(c: &mut Criterion) {
    let path = RelPath::clean(b"usr/lib/x86_64-linux-gnu/libexample.so.1.2.3").unwrap();
    let long = RelPath::clean("directory/".repeat(12).as_bytes()).unwrap();
    let meta = Meta::file(0o644, 12345, Time::default());
    let mut out = Vec::new();
    let mut group = c.benchmark_group("tar header");
    for (name, path) in [("ustar", &path), ("pax", &long)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                tar::header(&mut out, path, &meta, None, 0)
            });
        });
    }
    group.finish();
}

fn layers(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let files = dir.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let root: Arc<OwnedFd> = Arc::new(File::open(dir.path()).unwrap().into());
    let changes: Vec<Change> = (0..FILES)
        .map(|n| {
            let name = format!("files/{n:06}");
            let content = format!("{n} ").repeat(400);
            std::fs::write(dir.path().join(&name), &content).unwrap();
            let path = RelPath::clean(name.as_bytes()).unwrap();
            Change {
                path: path.clone(),
                action: Action::Put {
                    meta: Meta::file(0o644, content.len() as u64, Time::default()),
                    source: Some(Source::File {
                        dir: Arc::clone(&root),
                        path,
                    }),
                    link: None,
                },
            }
        })
        .collect();
    let options = PackOptions {
        compression: Compression::Gzip(1),
        format: Format::Oci,
        times: Times::Keep,
        cancel: Cancel::new().unwrap(),
    };
    let permits = Permits::new(2 * rayon::current_num_threads() + 8);
    let span = Sink::none().span(Owner::Build, Work::Compress, "bench", None);
    let mut group = c.benchmark_group("layer");
    group.sample_size(10);
    for (name, count) in [("one file", 1), ("many files", FILES)] {
        let changeset = Changeset {
            changes: changes.iter().take(count).cloned().collect(),
            state: State::Frozen,
        };
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                pack(&changeset, &options, &store, &permits, &span)
                    .unwrap()
                    .raw
            });
        });
    }
    group.finish();
}

criterion_group!(benches, headers, layers);
criterion_main!(benches);
