//! What a step costs: begin, commit and settle, over a stack of ten layers.

use criterion::{BatchSize, Criterion};
use shutter::fs::{Content, Kind, LayerView, Meta, Node, RelPath, Time, Toc, TocEntry, Tree};
use shutter::rootfs::{Entry, Overlay, Rootfs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[path = "../tests/common/harness.rs"]
mod harness;

fn main() {
    harness::private_mounts();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let layers: Vec<PathBuf> = (0..10).map(|n| layer(dir.path(), n)).collect();
    let mut tree = Tree::default();
    for layer in &layers {
        tree.push(Arc::new(view(layer)));
    }
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).expect("a directory");
    let root = Overlay::new(scratch, layers).expect("a root");

    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    for files in [1, 10_000] {
        criterion.bench_function(&format!("begin and commit, {files} files"), |bencher| {
            bencher.iter_batched(
                || root.fork().expect("fork"),
                |mut root| {
                    root.begin().expect("begin");
                    change(&*root, files);
                    root.commit().expect("commit")
                },
                BatchSize::PerIteration,
            );
        });
        criterion.bench_function(&format!("settle, {files} files"), |bencher| {
            let mut root = root.fork().expect("fork");
            root.begin().expect("begin");
            change(&*root, files);
            let changeset = root.commit().expect("commit");
            bencher.iter_batched(
                || changeset.clone(),
                |changeset| changeset.settle(&tree).expect("settle"),
                BatchSize::PerIteration,
            );
        });
        criterion.bench_function(&format!("apply, {files} files"), |bencher| {
            let mut source = root.fork().expect("fork");
            source.begin().expect("begin");
            change(&*source, files);
            let changeset = source
                .commit()
                .expect("commit")
                .settle(&tree)
                .expect("settle");
            bencher.iter_batched(
                || root.fork().expect("fork"),
                |mut root| {
                    root.apply(&changeset, &shutter::sys::Cancel::new().expect("a switch"))
                        .expect("apply")
                },
                BatchSize::PerIteration,
            );
        });
    }
    criterion.final_summary();
}

fn change(root: &dyn Rootfs, files: usize) {
    let Entry::Pivot(top) = root.entry() else {
        panic!("an overlay is entered by a mount");
    };
    for n in 0..files {
        let dir = top.join(format!("layer-{}/dir-{}", n % 10, n / 10 % 100));
        std::fs::write(dir.join(format!("file-{}", n / 1000)), "new content").expect("write");
    }
}

fn layer(dir: &Path, number: usize) -> PathBuf {
    let layer = dir.join(number.to_string());
    for n in 0..100 {
        let dir = layer.join(format!("layer-{number}/dir-{n}"));
        std::fs::create_dir_all(&dir).expect("a directory");
        for n in 0..10 {
            std::fs::write(dir.join(format!("file-{n}")), "old").expect("a file");
        }
    }
    layer
}

/// Describes a layer as if it had a hundred times as many files as are there.
fn view(layer: &Path) -> LayerView {
    let number = layer
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let path = |text: String| RelPath::clean(text.as_bytes()).expect("no NUL");
    let put = |path: RelPath, meta: Meta| TocEntry {
        path,
        node: Node::Put {
            meta,
            content: None,
            link: None,
        },
    };
    let mut entries = Vec::new();
    for n in 0..1000 {
        let dir = path(format!("layer-{number}/dir-{n}"));
        for n in 0..100 {
            let meta = Meta {
                kind: Kind::File,
                ..Meta::file(0o644, 3, Time::default())
            };
            entries.push(put(dir.join(format!("file-{n}").as_bytes()), meta));
        }
        entries.push(put(dir, Meta::dir(0o755, Time::default())));
    }
    let dir = std::fs::File::open(layer).expect("a directory");
    LayerView {
        toc: Toc::new(entries),
        content: Content::Dir(Arc::new(dir.into())),
    }
}
