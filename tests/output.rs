//! Layouts and archives, written and read back by this program and by others.

use shutter::changeset::{Action, Change, Changeset, State};
use shutter::fs::{Meta, RelPath, Source, Time};
use shutter::layer::{PackOptions, Permits, Times, pack};
use shutter::oci::{Descriptor, Digest, Format, Image, Manifest, Platform, Reference, media};
use shutter::output::{self, Export, Finished};
use shutter::output::{open_layout, write_docker_tar, write_layout, write_oci_tar};
use shutter::progress::{Owner, Sink, Work};
use shutter::request::{Compression, Layout, Place};
use shutter::store::Blobs;
use shutter::store::Store;
use shutter::sys::Cancel;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn store(dir: &Path) -> Store {
    Store::open(&dir.join("store")).unwrap()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
    }
}

/// Makes an image with one file a layer; `word` makes it another image.
fn image(store: &Store, word: &str, layers: &[Compression], format: Format) -> Finished {
    let mut config = Image::scratch(&Platform::host());
    config.config.cmd = Some(vec!["/bin/sh".into()]);
    config.config.labels.insert("word".into(), word.into());
    let mut descriptors = Vec::new();
    let mut blobs = Vec::new();
    for (at, compression) in layers.iter().enumerate() {
        let content = format!("{word} {at}\n").into_bytes();
        let changeset = Changeset {
            changes: vec![Change {
                path: RelPath::clean(format!("file-{at}").as_bytes()).unwrap(),
                action: Action::Put {
                    meta: Meta::file(0o644, content.len() as u64, Time::default()),
                    source: Some(Source::Bytes(content.into())),
                    link: None,
                },
            }],
            state: State::Frozen,
        };
        let options = PackOptions {
            compression: *compression,
            format,
            times: Times::Keep,
            cancel: Cancel::new().unwrap(),
        };
        let span = Sink::none().span(Owner::Build, Work::Compress, "test", None);
        let packed = pack(&changeset, &options, store, &Permits::new(8), &span).unwrap();
        let blob = &packed.descriptor;
        blobs.push(store.blob(&blob.digest, blob.size).unwrap().unwrap());
        config.rootfs.diff_ids.push(packed.diff_id);
        config.history.push(Default::default());
        descriptors.push(packed.descriptor);
    }
    let config_bytes = config.to_bytes();
    let (config_type, manifest_type) = match format {
        Format::Oci => (media::OCI_CONFIG, media::OCI_MANIFEST),
        Format::Docker => (media::DOCKER_CONFIG, media::DOCKER_MANIFEST),
    };
    let manifest = Manifest {
        format,
        config: descriptor(config_type, &config_bytes),
        layers: descriptors,
        annotations: Default::default(),
    };
    let manifest_bytes = manifest.to_bytes();
    Finished {
        descriptor: descriptor(manifest_type, &manifest_bytes),
        manifest,
        manifest_bytes,
        config_bytes,
        blobs,
    }
}

fn names(all: &[&str]) -> Vec<Reference> {
    all.iter().map(|name| name.parse().unwrap()).collect()
}

fn layout(dir: &Path, tag: Option<&str>, digest: Option<Digest>) -> Layout {
    Layout {
        dir: dir.to_owned(),
        tag: tag.map(str::to_owned),
        digest,
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Calls a writer with a span that nobody sees and a switch that stays off.
fn export<T>(write: impl FnOnce(&Export<'_>) -> T) -> T {
    let span = Sink::none().span(Owner::Build, Work::Export, "test", None);
    let cancel = Cancel::new().unwrap();
    write(&Export {
        span: &span,
        cancel: &cancel,
    })
}

fn put_layout(image: &Finished, names: &[Reference], dir: &Path) -> Result<(), output::Error> {
    export(|export| write_layout(image, names, dir, export)?.publish())
}

fn put_docker_tar(image: &Finished, names: &[Reference], file: &Path) -> Result<(), output::Error> {
    let place = Place::File(file.to_owned());
    export(|export| write_docker_tar(image, names, &place, export))
}

const GZIP: Compression = Compression::Gzip(1);
const ZSTD: Compression = Compression::Zstd(3);

#[test]
fn a_layout_is_written_added_to_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let out = dir.path().join("out/layout");
    let host = Platform::host();
    let one = image(&store, "one", &[GZIP, ZSTD], Format::Oci);
    let two = image(&store, "two", &[GZIP], Format::Oci);
    put_layout(&one, &names(&["registry.test/a:v1"]), &out).unwrap();

    let only = open_layout(&layout(&out, None, None), &host).unwrap();
    assert_eq!(only.manifest, one.manifest);
    assert_eq!(only.config, one.config_bytes);
    assert_eq!(only.descriptor.digest, one.descriptor.digest);
    for (blob, file) in one.manifest.layers.iter().zip(&one.blobs) {
        let mut bytes = Vec::new();
        only.open(blob).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, fs::read(file).unwrap());
        let there = out.join("blobs/sha256").join(blob.digest.hex());
        assert_eq!(
            fs::metadata(there).unwrap().ino(),
            fs::metadata(file).unwrap().ino()
        );
    }

    put_layout(&two, &names(&["registry.test/a:v2"]), &out).unwrap();
    put_layout(&one, &names(&["registry.test/a:v3"]), &out).unwrap();
    put_layout(&two, &names(&["registry.test/a:v1"]), &out).unwrap();
    for (tag, wanted) in [("v1", &two), ("v2", &two), ("v3", &one)] {
        let found = open_layout(&layout(&out, Some(tag), None), &host).unwrap();
        assert_eq!(found.manifest, wanted.manifest, "{tag}");
    }
    let full = layout(&out, Some("registry.test/a:v3"), None);
    assert_eq!(open_layout(&full, &host).unwrap().manifest, one.manifest);
    let digest = layout(&out, None, Some(one.descriptor.digest));
    assert_eq!(open_layout(&digest, &host).unwrap().manifest, one.manifest);

    let mut left: Vec<String> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["blobs", "index.json", "oci-layout"]);

    let target = |tag| format!("oci:{}:{tag}", out.display());
    for tag in ["v1", "v3"] {
        let raw = run("skopeo", &["inspect", "--raw", &target(tag)]);
        let wanted = if tag == "v3" { &one } else { &two };
        assert_eq!(raw.as_bytes(), wanted.manifest_bytes);
    }
    let copy = format!("dir:{}", dir.path().join("copy").display());
    run(
        "skopeo",
        &["copy", "--insecure-policy", &target("v3"), &copy],
    );
}

#[test]
fn an_index_by_platform_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let out = dir.path().join("layout");
    let image = image(&store, "one", &[GZIP], Format::Oci);
    put_layout(&image, &[], &out).unwrap();
    let entry = |platform: &str, descriptor: &Descriptor| {
        let mut value = serde_json::to_value(descriptor).unwrap();
        let platform: Platform = platform.parse().unwrap();
        value["platform"] = serde_json::json!({
            "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
        });
        value
    };
    let other = descriptor(media::OCI_MANIFEST, b"absent");
    let nested = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_INDEX,
        "manifests": [
            entry("unknown/unknown", &other),
            entry("linux/riscv64", &other),
            entry(&Platform::host().to_string(), &image.descriptor),
        ],
    });
    let nested = nested.to_string().into_bytes();
    let descriptor = descriptor(media::OCI_INDEX, &nested);
    let blob = out.join("blobs/sha256").join(descriptor.digest.hex());
    fs::write(blob, &nested).unwrap();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(out.join("index.json"), index.to_string()).unwrap();
    let open = |platform: &Platform| open_layout(&layout(&out, None, None), platform);
    assert_eq!(open(&Platform::host()).unwrap().manifest, image.manifest);
    let error = open(&"linux/s390x".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with(&format!(
            "the index has no image for linux/s390x; its platforms are unknown/unknown, linux/riscv64, {}",
            Platform::host()
        )),
        "{error}"
    );

    // The same entries in index.json itself.
    fs::write(out.join("index.json"), &nested).unwrap();
    assert_eq!(open(&Platform::host()).unwrap().manifest, image.manifest);
    let error = open(&"linux/s390x".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the layout has no image for linux/s390x"),
        "{error}"
    );
}

#[test]
fn a_bad_layout_is_refused_with_a_reason() {
    type Spoil = fn(&Path, &Finished);
    fn blob_of(dir: &Path, digest: &Digest) -> PathBuf {
        dir.join("blobs/sha256").join(digest.hex())
    }
    let table: &[(Spoil, &str)] = &[
        (
            |dir, _| fs::remove_file(dir.join("oci-layout")).unwrap(),
            "it is no OCI layout: it has no file `oci-layout`",
        ),
        (
            |dir, _| fs::write(dir.join("oci-layout"), "{}").unwrap(),
            "its file `oci-layout` says no version",
        ),
        (
            |dir, _| fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"2.0"}"#).unwrap(),
            "its version is `2.0`, 1.0.0 is wanted",
        ),
        (
            |dir, _| fs::write(dir.join("index.json"), "[").unwrap(),
            "index.json: not an image manifest or index",
        ),
        (
            |dir, _| fs::write(dir.join("index.json"), vec![b' '; 9 << 20]).unwrap(),
            "index.json: it has more than 8388608 bytes",
        ),
        (
            |dir, _| fs::write(dir.join("index.json"), r#"{"manifests":[]}"#).unwrap(),
            "the layout has no image",
        ),
        (
            |dir, image| fs::remove_file(blob_of(dir, &image.descriptor.digest)).unwrap(),
            "the layout lacks blob sha256:",
        ),
        (
            |dir, image| {
                let path = blob_of(dir, &image.manifest.config.digest);
                fs::write(path, "{}").unwrap();
            },
            "its digest is sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        ),
        (
            |dir, image| {
                let path = blob_of(dir, &image.descriptor.digest);
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            },
            "open ",
        ),
        (
            |dir, _| {
                let text = fs::read_to_string(dir.join("index.json")).unwrap();
                let evil = "sha256:../../../../../../etc/passwd";
                let at = text.find("sha256:").unwrap();
                let text = text.replace(&text[at..at + 71], evil);
                fs::write(dir.join("index.json"), text).unwrap();
            },
            "is not a digest",
        ),
    ];
    for (spoil, wanted) in table {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let out = dir.path().join("layout");
        let image = image(&store, "one", &[GZIP], Format::Oci);
        put_layout(&image, &names(&["a:v1"]), &out).unwrap();
        spoil(&out, &image);
        let error = open_layout(&layout(&out, None, None), &Platform::host());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error} has no {wanted}");
    }
}

#[test]
fn one_of_several_must_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let out = dir.path().join("layout");
    for tag in ["v1", "v2"] {
        let image = image(&store, tag, &[GZIP], Format::Docker);
        put_layout(&image, &names(&[&format!("a:{tag}")]), &out).unwrap();
    }
    let table = [
        (
            None,
            None,
            "the layout has several images, name one; its tags are v1, v2",
        ),
        (
            Some("v3"),
            None,
            "the layout has no image tagged `v3`; its tags are v1, v2",
        ),
        (
            None,
            Some(Digest::of(b"other")),
            "the layout has no manifest sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa",
        ),
    ];
    for (tag, digest, wanted) in table {
        let error = open_layout(&layout(&out, tag, digest), &Platform::host()).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {wanted}", out.display()));
    }
}

#[test]
fn images_without_a_tag_are_named_by_their_digests() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let out = dir.path().join("layout");
    let host = Platform::host();
    let put = |text: &str, tags: &[&str]| {
        let image = image(&store, text, &[GZIP], Format::Oci);
        put_layout(&image, &names(tags), &out).unwrap();
        image.descriptor.digest
    };
    let asked = |tag, digest| match open_layout(&layout(&out, tag, digest), &host) {
        Ok(image) => Ok(image.descriptor.digest),
        Err(error) => Err(error.to_string()),
    };
    let said = |wanted: String| Err(format!("{}: {wanted}", out.display()));

    let one = put("one", &[]);
    assert_eq!(asked(None, None), Ok(one));
    let none = "the layout has no image tagged `v1`";
    assert_eq!(
        asked(Some("v1"), None),
        said(format!(
            "{none}; it names no tags; without one there are @{one}"
        ))
    );

    let two = put("two", &["a:v2"]);
    let names = format!("its tags are v2; without one there are @{one}");
    assert_eq!(asked(Some("v1"), None), said(format!("{none}; {names}")));
    let several = format!("the layout has several images, name one; {names}");
    assert_eq!(asked(None, None), said(several));
    assert_eq!(asked(None, Some(one)), Ok(one));
    assert_eq!(asked(Some("v2"), None), Ok(two));

    let latest = put("three", &["a:latest"]);
    assert_eq!(asked(None, None), Ok(latest));
}

#[test]
fn what_is_no_layout_is_not_written_into() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let image = image(&store, "one", &[GZIP], Format::Oci);
    let out = dir.path().join("home");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("diary"), "x").unwrap();
    let error = put_layout(&image, &[], &out).unwrap_err();
    assert!(error.to_string().contains("it is no OCI layout"), "{error}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn an_archive_is_what_skopeo_takes() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let table = [
        (Format::Docker, vec![GZIP, GZIP]),
        (Format::Oci, vec![GZIP, ZSTD, GZIP]),
        (Format::Oci, vec![]),
    ];
    for (at, (format, layers)) in table.into_iter().enumerate() {
        let mut image = image(&store, &format!("a{at}"), &layers, format);
        // The same layer twice is one file.
        if let (Some(layer), Some(blob)) = (image.manifest.layers.first(), image.blobs.first()) {
            let (layer, blob) = (layer.clone(), blob.clone());
            image.manifest.layers.push(layer);
            image.blobs.push(blob);
            let mut config: Image = serde_json::from_slice(&image.config_bytes).unwrap();
            config.rootfs.diff_ids.push(config.rootfs.diff_ids[0]);
            config.history.push(Default::default());
            image.config_bytes = config.to_bytes();
            image.manifest.config = descriptor(media::DOCKER_CONFIG, &image.config_bytes);
        }
        let file = dir.path().join(format!("{at}.tar"));
        let tags = ["docker.io/library/a:v1", "registry.test:5000/b/c:v2"];
        put_docker_tar(&image, &names(&tags), &file).unwrap();
        let source = format!("docker-archive:{}", file.display());
        let config = run("skopeo", &["inspect", "--config", "--raw", &source]);
        assert_eq!(config.as_bytes(), image.config_bytes);
        let copy = format!("dir:{}", dir.path().join(format!("copy-{at}")).display());
        run("skopeo", &["copy", "--insecure-policy", &source, &copy]);
        let listed = run("tar", &["-tf", file.to_str().unwrap()]);
        let mut wanted = layers.len() + 2;
        assert_eq!(listed.lines().count(), wanted, "{listed}");
        wanted = listed.lines().filter(|name| name.ends_with(".tar")).count();
        assert_eq!(wanted, layers.iter().filter(|&&c| c == ZSTD).count());
    }
    assert!(fs::read_dir(dir.path()).unwrap().all(|entry| {
        !entry
            .unwrap()
            .file_name()
            .as_encoded_bytes()
            .starts_with(b".")
    }));
}

#[test]
fn an_archive_that_fails_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let image = image(&store, "one", &[GZIP], Format::Docker);
    let file = dir.path().join("image.tar");
    fs::write(&file, "before").unwrap();
    fs::remove_file(&image.blobs[0]).unwrap();
    let error = put_docker_tar(&image, &[], &file).unwrap_err();
    assert!(error.to_string().starts_with("open "), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"before");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn an_oci_archive_is_what_skopeo_and_podman_take() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for (at, (layers, tags)) in [
        (
            vec![GZIP, ZSTD],
            &["registry.test/a:v1", "registry.test/b:v2"][..],
        ),
        (vec![GZIP], &[]),
        (vec![], &["a:v1"]),
    ]
    .into_iter()
    .enumerate()
    {
        let image = image(&store, &format!("a{at}"), &layers, Format::Oci);
        let file = dir.path().join(format!("{at}.tar"));
        let place = Place::File(file.clone());
        let names = names(tags);
        export(|export| write_oci_tar(&image, &names, &place, export)).unwrap();
        let again = dir.path().join("again.tar");
        let place = Place::File(again.clone());
        export(|export| write_oci_tar(&image, &names, &place, export)).unwrap();
        assert!(fs::read(&file).unwrap() == fs::read(&again).unwrap());
        let tags = tags
            .iter()
            .map(|tag| tag.rsplit_once(':').map_or("", |it| it.1));
        let tags: Vec<&str> = if tags.len() == 0 {
            vec![""]
        } else {
            tags.collect()
        };
        for tag in tags {
            let source = format!("oci-archive:{}:{tag}", file.display());
            let source = source.trim_end_matches(':');
            let raw = run("skopeo", &["inspect", "--raw", source]);
            assert_eq!(raw.as_bytes(), image.manifest_bytes, "{source}");
            let copy = format!(
                "dir:{}",
                dir.path().join(format!("copy-{at}-{tag}")).display()
            );
            run("skopeo", &["copy", "--insecure-policy", source, &copy]);
        }
        let unpacked = dir.path().join(format!("unpacked-{at}"));
        fs::create_dir(&unpacked).unwrap();
        run(
            "tar",
            &[
                "-xf",
                file.to_str().unwrap(),
                "-C",
                unpacked.to_str().unwrap(),
            ],
        );
        let digest = layout(&unpacked, None, Some(image.descriptor.digest));
        assert_eq!(
            open_layout(&digest, &Platform::host()).unwrap().manifest,
            image.manifest
        );
    }
}

#[test]
fn a_layout_mends_what_is_damaged_and_takes_back_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let one = image(&store, "one", &[GZIP, ZSTD], Format::Oci);
    let out = dir.path().join("layout");
    put_layout(&one, &[], &out).unwrap();
    let blob = out
        .join("blobs/sha256")
        .join(one.manifest.layers[0].digest.hex());
    let size = fs::metadata(&blob).unwrap().len() as usize;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, vec![0; size]).unwrap();
    put_layout(&one, &[], &out).unwrap();
    assert_eq!(fs::read(&blob).unwrap(), fs::read(&one.blobs[0]).unwrap());
    // Once more: everything is there, by the same inodes.
    put_layout(&one, &[], &out).unwrap();
    let count = |dir: &Path| fs::read_dir(dir.join("blobs/sha256")).unwrap().count();
    assert_eq!(count(&out), 4);

    // A second image that fails leaves the first alone, and a fresh layout leaves nothing.
    let two = image(&store, "two", &[GZIP, GZIP], Format::Oci);
    fs::remove_file(&two.blobs[1]).unwrap();
    let before = fs::read(out.join("index.json")).unwrap();
    let error = put_layout(&two, &[], &out).unwrap_err();
    assert!(error.to_string().starts_with("open "), "{error}");
    assert_eq!(fs::read(out.join("index.json")).unwrap(), before);
    assert_eq!(count(&out), 4);
    let fresh = dir.path().join("fresh");
    put_layout(&two, &[], &fresh).unwrap_err();
    assert!(!fresh.exists());
}

#[test]
fn on_another_file_system_a_layout_is_copied_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let one = image(&store, "one", &[GZIP], Format::Oci);
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let out = other.path().join("layout");
    let blob = out
        .join("blobs/sha256")
        .join(one.manifest.layers[0].digest.hex());
    let wanted = fs::read(&one.blobs[0]).unwrap();
    put_layout(&one, &[], &out).unwrap();
    assert_eq!(fs::read(&blob).unwrap(), wanted);
    let inode = fs::metadata(&blob).unwrap().ino();
    put_layout(&one, &[], &out).unwrap();
    assert_eq!(
        fs::metadata(&blob).unwrap().ino(),
        inode,
        "it is copied once"
    );
    fs::write(&blob, vec![0; wanted.len()]).unwrap();
    put_layout(&one, &[], &out).unwrap();
    assert_eq!(fs::read(&blob).unwrap(), wanted);
}

#[test]
fn waiting_for_a_layout_ends_with_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let one = image(&store, "one", &[GZIP], Format::Oci);
    let out = dir.path().join("layout");
    put_layout(&one, &[], &out).unwrap();
    let held = fs::File::open(&out).unwrap();
    held.lock().unwrap();
    let span = Sink::none().span(Owner::Build, Work::Export, "test", None);
    let cancel = Cancel::new().unwrap();
    let export = Export {
        span: &span,
        cancel: &cancel,
    };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| write_layout(&one, &[], &out, &export));
        cancel.cancel();
        let error = waiting.join().unwrap().err().expect("no lock was had");
        assert_eq!(error.to_string(), "cancelled");
    });
}

/// Until it is published an image is in no layout, and what is given up leaves nothing.
#[test]
fn an_image_that_is_not_published_is_not_seen() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let one = image(&store, "one", &[GZIP], Format::Oci);
    let two = image(&store, "two", &[GZIP], Format::Oci);
    let out = dir.path().join("layout");
    let unseen =
        |image: &Finished| export(|export| write_layout(image, &[], &out, export)).unwrap();
    drop(unseen(&one));
    assert!(!out.exists());
    put_layout(&one, &[], &out).unwrap();
    let listed = |at: &Path| fs::read_dir(at).unwrap().count();
    let before = (
        fs::read(out.join("index.json")).unwrap(),
        listed(&out.join("blobs/sha256")),
    );
    let held = unseen(&two);
    assert_eq!(fs::read(out.join("index.json")).unwrap(), before.0);
    drop(held);
    assert_eq!(listed(&out.join("blobs/sha256")), before.1);
    unseen(&two).publish().unwrap();
    assert_ne!(fs::read(out.join("index.json")).unwrap(), before.0);
}

#[test]
fn a_pipe_that_nobody_reads_ends_with_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let one = image(&store, "one", &[GZIP], Format::Oci);
    let fifo = dir.path().join("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    let span = Sink::none().span(Owner::Build, Work::Export, "test", None);
    let place = Place::File(fifo.clone());
    let cancel = Cancel::new().unwrap();
    let export = Export {
        span: &span,
        cancel: &cancel,
    };
    // Nobody opens it.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| write_oci_tar(&one, &[], &place, &export));
        cancel.cancel();
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "cancelled");
    });
    // Somebody reads it to its end.
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| fs::read(&fifo).unwrap());
        put_docker_tar(&one, &[], &fifo).unwrap();
        assert!(reading.join().unwrap().len() > 2048);
    });
    // Somebody opens it and goes.
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| drop(fs::File::open(&fifo).unwrap()));
        let result = put_docker_tar(&one, &[], &fifo);
        reading.join().unwrap();
        if let Err(error) = result {
            assert!(
                error.to_string().contains("its reader ended before"),
                "{error}"
            );
        }
    });
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(
        &fs::symlink_metadata(&fifo).unwrap().file_type()
    ));
}

#[test]
fn links_to_files_keep_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let one = image(&store, "one", &[GZIP], Format::Docker);
    let (link, file) = (dir.path().join("link"), dir.path().join("file"));
    fs::write(&file, "before").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    put_docker_tar(&one, &[], &link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::metadata(&file).unwrap().len() > 2048);
    // A device is written to, not replaced.
    put_docker_tar(&one, &[], Path::new("/dev/null")).unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}
