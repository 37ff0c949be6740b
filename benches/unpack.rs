//! How long a layer of many small files takes from blob to unpacked, and how long a lookup takes.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shutter::fs::{Meta, Node, RelPath, Time, Toc, TocEntry};
use shutter::layer::{BaseLayer, Blobs, unpack_all};
use shutter::oci::{Descriptor, Digest};
use shutter::progress::{Owner, Sink};
use shutter::store::Store;
use shutter::sys::Cancel;
use std::io::{self, Read};

const FILES: usize = 10_000;

struct One(Vec<u8>);

impl Blobs for One {
    fn open(&self, _: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }
}

fn header(name: &str, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644");
    put(124, &format!("{size:011o}"));
    put(136, "00000000001");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// Files of 5 kB, 40 in a directory.
fn tar() -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..FILES {
        out.extend(header(&format!("usr/share/d{:05}/f{n:07}", n / 40), 5000));
        let line = format!("{:x}\n", n.wrapping_mul(0x9e37_79b9));
        out.extend(line.bytes().cycle().take(5120));
    }
    out.extend([0; 1024]);
    out
}

fn unpack(c: &mut Criterion) {
    let tar = tar();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &tar).expect("memory");
    let blob = gzip.finish().expect("memory");
    let layer = BaseLayer {
        descriptor: Descriptor {
            media_type: String::new(),
            digest: Digest::of(&blob),
            size: blob.len() as u64,
            urls: Vec::new(),
            annotations: Default::default(),
        },
        diff_id: Digest::of(&tar),
        chain_id: Digest::of(&tar),
    };
    let blobs = One(blob);
    let mut group = c.benchmark_group("unpack");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(tar.len() as u64));
    group.bench_function("10,000 files of 5 kB", |b| {
        b.iter_batched(
            || {
                let dir = tempfile::tempdir().expect("a directory");
                let store = Store::open(&dir.path().join("store")).expect("a store");
                (dir, store)
            },
            |(dir, store)| {
                let cancel = Cancel::new().expect("a switch");
                let layers = std::slice::from_ref(&layer);
                let sink = Sink::none();
                let got = unpack_all(layers, &blobs, &store, &sink, Owner::Build, &cancel);
                (got.map(|all| all.len()).expect("a layer"), dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn toc(c: &mut Criterion) {
    let entry = |n: usize| TocEntry {
        path: RelPath::clean(format!("usr/share/d{:05}/f{n:07}", n / 40).as_bytes())
            .expect("clean"),
        node: Node::Put {
            meta: Meta::file(0o644, n as u64, Time::default()),
            content: Some([7; 32]),
            link: None,
        },
    };
    let toc = Toc::new((0..162_000).map(entry).collect());
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("toc");
    std::fs::write(&file, toc.as_bytes()).expect("a file");
    c.bench_function("open a toc of 162,000", |b| {
        b.iter(|| Toc::open(&file).expect("a toc").len());
    });
    let toc = Toc::open(&file).expect("a toc");
    let mut n = 0;
    c.bench_function("look up in a toc of 162,000", |b| {
        b.iter(|| {
            n = (n + 7919) % 162_000;
            toc.get(&entry(n).path)
        });
    });
}

criterion_group!(benches, unpack, toc);
criterion_main!(benches);
