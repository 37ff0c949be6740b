//! What is read before anything runs: Dockerfiles, words, ignore files and manifests.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shutter::dockerfile::ignore::Ignore;
use shutter::dockerfile::{parse, words};
use shutter::oci::{Descriptor, Digest, Document, Format, Manifest, media};

/// Stages of the Dockerfile; each has every kind of line that costs something to read.
const STAGES: usize = 50;
const LAYERS: usize = 127;

fn dockerfile() -> String {
    let mut text = String::from("# syntax=docker/dockerfile:1\nARG BASE=debian\n");
    for n in 0..STAGES {
        text.push_str(&format!(
            r#"FROM ${{BASE}}:{n} AS stage{n}
ARG VERSION="1.{n}" TARGETARCH
ENV PATH=/opt/$VERSION/bin:$PATH NAME='a b' \
    OTHER=${{VERSION:-none}}
# A comment between the lines.
RUN apt-get update && \
    # and one within
    apt-get install -y --no-install-recommends build-essential && \
    rm -rf /var/lib/apt/lists/*
COPY --chown=1000:1000 src/*.c include/ /usr/src/
COPY <<"EOF" /etc/motd
hello $NAME
EOF
HEALTHCHECK --interval=5m --timeout=3s CMD curl -f http://localhost/ || exit 1
CMD ["/usr/bin/program", "--flag", "value {n}"]
"#
        ));
    }
    text
}

fn manifest() -> Vec<u8> {
    let blob = |media_type: &str, n: usize| Descriptor {
        media_type: media_type.into(),
        digest: Digest::of(&n.to_le_bytes()),
        size: n as u64,
        urls: Vec::new(),
        annotations: Default::default(),
    };
    let manifest = Manifest {
        format: Format::Oci,
        config: blob(media::OCI_CONFIG, 0),
        layers: (1..=LAYERS)
            .map(|n| blob(media::OCI_LAYER_GZIP, n))
            .collect(),
        annotations: Default::default(),
    };
    manifest.to_bytes()
}

fn texts(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let text = dockerfile();
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("dockerfile", |b| {
        b.iter(|| parse(text.as_bytes()).unwrap().stages.len());
    });
    let manifest = manifest();
    group.throughput(Throughput::Bytes(manifest.len() as u64));
    group.bench_function("manifest", |b| {
        b.iter(|| Document::parse(&manifest, None).unwrap());
    });
    group.finish();
}

fn small_things(c: &mut Criterion) {
    let env = |name: &str| (name != "UNSET").then(|| "/usr/local/bin:/usr/bin".to_owned());
    let word = r#"/opt/${VERSION:-1}/bin:$PATH:"quoted $NAME":${PATH##*/}:${UNSET:+set}"#;
    c.bench_function("expand a word", |b| {
        b.iter(|| words::word(word, '\\', &env).unwrap().text.len());
    });
    let ignore =
        Ignore::parse(b"**/*.o\ntarget\n!target/keep\n.git\n**/node_modules/**\n").unwrap();
    let paths: Vec<String> = (0..1000)
        .map(|n| format!("src/room{}/deep/er/file{n}.rs", n % 10))
        .collect();
    c.bench_function("ignore 1000 paths", |b| {
        b.iter(|| {
            let left_out = paths
                .iter()
                .filter(|path| ignore.is_ignored(path.as_bytes()));
            left_out.count()
        });
    });
}

criterion_group!(benches, texts, small_things);
criterion_main!(benches);
