//! One block through each codec; the input is this program's own machine code.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shutter::layer::bench::block;
use shutter::request::Compression;

fn compress(c: &mut Criterion) {
    let program = std::env::current_exe()
        .and_then(std::fs::read)
        .unwrap_or_else(|e| panic!("read the program: {e}"));
    let input = &program[..program.len().min(1 << 20)];
    let mut group = c.benchmark_group("compress");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(input.len() as u64));
    let gzip = [1, 4, 6, 9].map(Compression::Gzip);
    let zstd = [1, 3, 9].map(Compression::Zstd);
    for codec in gzip.into_iter().chain(zstd) {
        let ratio = block(codec, input) as f64 / input.len() as f64;
        let name = BenchmarkId::new(format!("{codec:?}"), format!("ratio {ratio:.4}"));
        group.bench_function(name, |b| b.iter(|| block(codec, input)));
    }
    group.finish();
}

criterion_group!(benches, compress);
criterion_main!(benches);
