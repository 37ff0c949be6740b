//! SHA-256 against BLAKE3, at the sizes of small files and of chunks.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shutter::oci::Digest;

fn hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    for size in [4 << 10, 64 << 10, 1 << 20] {
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n * 31 % 251) as u8).collect();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("sha256", size), &bytes, |b, bytes| {
            b.iter(|| Digest::of(bytes));
        });
        group.bench_with_input(BenchmarkId::new("blake3", size), &bytes, |b, bytes| {
            b.iter(|| blake3::hash(bytes));
        });
    }
    group.finish();
}

criterion_group!(benches, hash);
criterion_main!(benches);
