//! Where images go: every kind of output, judged by other tools, and what is left when it fails.

#[path = "../common/base.rs"]
mod base;
#[path = "../common/listing.rs"]
mod listing;
#[path = "../common/project.rs"]
mod project;
#[path = "../common/registry.rs"]
mod registry;

mod failures;
mod streams;

use listing::{read_layout, read_tar};
use project::{Project, succeed};
use registry::run;
use serde_json::{Map, Value, json};
use shutter::oci::Digest;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A project whose image has a file of every kind, and hard links whose first name is gone.
fn rich() -> Project {
    let project = Project::new();
    for (name, content) in [("a", "linked"), ("c", "setuid"), ("sub/d", "deep")] {
        project.file(&format!("tree/{name}"), content);
    }
    for i in 0..600 {
        project.file(&format!("many/{}/{i}", i % 5), format!("{i}\n").repeat(i));
    }
    let long = format!("tree/{}", "l".repeat(150));
    project.file(&long, "long");
    let cap = project.path("context").join("tree/cap");
    fs::write(&cap, "cap").expect("write");
    // cap_net_raw, permitted and effective, as setcap writes it.
    let value = "0sAQAAAgAgAAAAAAAAAAAAAAAAAAA=";
    run(
        "setfattr",
        &["-n", "security.capability", "-v", value, &text(&cap)],
    );
    project.file(
        "Dockerfile",
        "FROM base\n\
         COPY --chown=5:6 tree /tree\n\
         COPY many /many\n\
         RUN ln /tree/a /tree/b && ln /tree/a /zz && mknod /pipe p && ln -s nowhere /link && \
         chown 12:34 /tree/c && chmod 4755 /tree/c && mkdir -m 1777 /sticky && \
         dd if=/dev/urandom of=/big bs=1024 count=3000 2>/dev/null\n\
         RUN rm /tree/a && rm -r /tree/sub && mkdir /tree/sub && touch /tree/sub/new\n",
    );
    project
}

fn text(path: &Path) -> String {
    path.to_str().expect("a name").to_owned()
}

/// Gives the extended attributes below a directory.
fn attributes(root: &Path) -> BTreeMap<PathBuf, String> {
    let kinds = "^(security|user|trusted)";
    let listed = run(
        "getfattr",
        &[
            "-RPhd",
            "-m",
            kinds,
            "-e",
            "hex",
            "--absolute-names",
            &text(root),
        ],
    );
    listed
        .split("\n\n")
        .filter_map(|part| part.strip_prefix("# file: ")?.split_once('\n'))
        .map(|(path, lines)| (path.into(), lines.trim().to_owned()))
        .collect()
}

/// Compares listings and says where they differ.
#[track_caller]
fn same<K: Ord + std::fmt::Debug>(left: &BTreeMap<K, Value>, right: &BTreeMap<K, Value>) {
    let keys = left.keys().chain(right.keys());
    let odd: Vec<String> = keys
        .filter(|key| left.get(key) != right.get(key))
        .take(5)
        .map(|key| format!("{key:?}: {:?} and {:?}", left.get(key), right.get(key)))
        .collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

/// Lists a directory as `listing` lists an image, with times and device numbers too.
fn walk(root: &Path) -> BTreeMap<Vec<u8>, Value> {
    let mut names: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut out = BTreeMap::new();
    let attributes = attributes(root);
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("list") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("look");
            let kind = meta.file_type();
            let mut value = Map::new();
            value.insert("uid".into(), json!(meta.uid()));
            value.insert("gid".into(), json!(meta.gid()));
            value.insert("mtime".into(), json!([meta.mtime(), meta.mtime_nsec()]));
            value.insert("rdev".into(), json!(meta.rdev()));
            let what = if kind.is_dir() {
                todo.push(path.clone());
                "dir"
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).expect("a target");
                value.insert("target".into(), json!(text(&target)));
                "symlink"
            } else if kind.is_fifo() {
                "fifo"
            } else if kind.is_char_device() {
                "char"
            } else {
                let content = fs::read(&path).expect("content");
                value.insert("size".into(), json!(content.len()));
                let digest = Digest::of(&content).hex();
                value.insert("sha256".into(), json!(digest));
                "file"
            };
            value.insert("type".into(), json!(what));
            if what != "symlink" {
                let mode = format!("{:04o}", meta.mode() & 0o7777);
                value.insert("mode".into(), json!(mode));
            }
            if let Some(attributes) = attributes.get(&path) {
                value.insert("attributes".into(), json!(attributes));
            }
            let below = path.strip_prefix(root).expect("below");
            if what != "dir" {
                let group = names.entry(meta.ino()).or_default();
                group.push(text(below));
            }
            value.insert("ino".into(), json!(meta.ino()));
            out.insert(below.as_os_str().as_bytes().to_vec(), value);
        }
    }
    out.into_iter()
        .map(|(path, mut value)| {
            let ino = value.remove("ino").and_then(|ino| ino.as_u64());
            if let Some(group) = ino.and_then(|ino| names.get_mut(&ino))
                && group.len() > 1
            {
                group.sort();
                value.insert("hard_links".into(), json!(group));
            }
            (path, Value::Object(value))
        })
        .collect()
}

/// Leaves of a listing what an image's layers and a directory both tell.
fn common(files: &BTreeMap<Vec<u8>, Value>) -> BTreeMap<String, Value> {
    files
        .iter()
        .map(|(path, value)| {
            let mut value = value.clone();
            if let Some(fields) = value.as_object_mut() {
                for name in ["mtime", "rdev", "attributes", "xattrs"] {
                    fields.remove(name);
                }
            }
            (String::from_utf8_lossy(path).into_owned(), value)
        })
        .collect()
}

fn hidden(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .expect("list")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().expect("a name");
            name.as_bytes().starts_with(b".")
        })
        .collect()
}

#[test]
fn every_kind_at_once_is_what_other_tools_take() {
    let project = rich();
    let out = project.path("out");
    fs::create_dir(&out).expect("a directory");
    let to = |name: &str| text(&out.join(name));
    let output = succeed(project.command().args([
        "-o",
        &to("files"),
        "-o",
        &format!("type=tar,dest={}", to("files.tar")),
        "-o",
        &format!("type=docker,name=a.test/b:c,dest={}", to("docker.tar")),
        "-o",
        &format!("type=oci,name=a.test/b:c,dest={}", to("oci.tar")),
        "-o",
        &format!("type=oci,tar=false,dest={}", to("layout")),
        "--digest-file",
        &to("digest"),
        "--metadata-file",
        &to("metadata"),
    ]));
    assert!(output.stdout.is_empty());
    assert_eq!(hidden(&out), Vec::<PathBuf>::new());
    let stderr = String::from_utf8_lossy(&output.stderr);
    for name in ["files", "files.tar", "docker.tar", "oci.tar", "layout"] {
        assert!(stderr.contains(&to(name)), "{name}: {stderr}");
    }

    let image = read_layout(&out.join("layout"));
    let wanted = common(&image.files);
    assert!(wanted["tree/b"]["hard_links"] == json!(["tree/b", "zz"]) && wanted.len() > 600);
    assert!(!wanted.contains_key("tree/a") && !wanted.contains_key("tree/sub/d"));

    // The archive of files is the image's listing, also by times, and in order.
    let tar = fs::File::open(out.join("files.tar")).expect("open");
    same(&read_tar(tar), &image.files);
    let listed = run("tar", &["-tf", &to("files.tar")]);
    let listed: Vec<&str> = listed
        .lines()
        .map(|line| line.trim_end_matches('/'))
        .collect();
    let mut sorted: Vec<&str> = image
        .files
        .keys()
        .map(|path| std::str::from_utf8(path).expect("text"))
        .collect();
    sorted.sort_by_key(|path| path.split('/').collect::<Vec<_>>());
    assert_eq!(listed, sorted);

    // The directory is the image's listing, and what tar makes of the archive, and what umoci does.
    let files = walk(&out.join("files"));
    same(&common(&files), &wanted);
    assert!(files[&b"tree/cap"[..]]["attributes"].is_string());
    let unpacked = project.path("unpacked");
    fs::create_dir(&unpacked).expect("a directory");
    run(
        "tar",
        &[
            "-xpf",
            &to("files.tar"),
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "-C",
            &text(&unpacked),
        ],
    );
    same(&walk(&unpacked), &files);
    let bundle = text(&project.path("bundle"));
    let image_of = format!("{}:c", to("layout"));
    run("umoci", &["unpack", "--image", &image_of, &bundle]);
    same(&walk(&project.path("bundle/rootfs")), &files);

    // Digests are the same wherever one looks.
    let digest = fs::read_to_string(out.join("digest")).expect("a digest");
    let metadata: Value =
        serde_json::from_slice(&fs::read(out.join("metadata")).expect("metadata")).expect("JSON");
    assert_eq!(metadata["containerimage.digest"], json!(digest));
    assert_eq!(
        metadata["containerimage.config.digest"],
        image.manifest["config"]["digest"]
    );
    for archive in ["docker", "oci"] {
        let source = format!("{archive}-archive:{}", to(&format!("{archive}.tar")));
        let config = run("skopeo", &["inspect", "--config", "--raw", &source]);
        let config: Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!(config, image.image, "{archive}");
    }
    let tags = run("tar", &["-xOf", &to("docker.tar"), "manifest.json"]);
    assert!(tags.contains("a.test/b:c"), "{tags}");
}

/// A project of one small layer.
fn small() -> Project {
    let project = Project::new();
    project.file("a", "content");
    project.file("Dockerfile", "FROM base\nCOPY --chown=1:2 a /dir/a\n");
    project
}

#[test]
fn a_directory_keeps_what_is_there_and_follows_no_link() {
    let project = small();
    project.file(
        "Dockerfile",
        "FROM scratch\nCOPY a /dir/a\nCOPY a /dir/deep/b\nCOPY a /file\nCOPY a /other\n",
    );
    let (out, victim) = (project.path("out"), project.path("victim"));
    fs::create_dir_all(out.join("other/full")).expect("directories");
    fs::create_dir(&victim).expect("a directory");
    fs::write(out.join("mine"), "mine").expect("write");
    fs::write(victim.join("file"), "theirs").expect("write");
    std::os::unix::fs::symlink(&victim, out.join("dir")).expect("a link");
    std::os::unix::fs::symlink(victim.join("file"), out.join("file")).expect("a link");
    let link = project.path("link");
    std::os::unix::fs::symlink("out", &link).expect("a link");
    // The directory itself may be a link: that is the caller's own.
    for at in [&out, &link] {
        succeed(project.command().arg("-o").arg(at));
        let read = |path: &str| fs::read_to_string(out.join(path)).expect(path);
        assert_eq!(read("mine"), "mine");
        for path in ["dir/a", "dir/deep/b", "file", "other"] {
            assert_eq!(read(path), "content");
        }
        assert!(
            !fs::symlink_metadata(out.join("dir"))
                .expect("look")
                .is_symlink()
        );
        assert!(
            !fs::symlink_metadata(out.join("file"))
                .expect("look")
                .is_symlink()
        );
        assert_eq!(fs::read(victim.join("file")).expect("read"), b"theirs");
        assert_eq!(fs::read_dir(&victim).expect("list").count(), 1);
    }
}

#[test]
fn files_alone_cost_no_layers() {
    let project = small();
    let spec = text(&project.path("out"));
    let metadata = text(&project.path("metadata"));
    let output = succeed(
        project
            .command()
            .args(["-o", &spec, "--metadata-file", &metadata]),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("built the image's files in "), "{said}");
    assert_eq!(fs::read_to_string(&metadata).expect("read"), "{}\n");
    assert_eq!(
        fs::read(project.path("out/dir/a")).expect("read"),
        b"content"
    );
    // The base's only blob.
    let blobs = fs::read_dir(project.path("store/blobs/sha256")).expect("list");
    assert_eq!(blobs.count(), 1);
    // Its digest is asked for: then it is an image after all.
    let digest = text(&project.path("digest"));
    let one = |args: &[&str]| {
        succeed(
            project
                .command()
                .args(["--reproducible", "--digest-file", &digest])
                .args(args),
        );
        fs::read_to_string(&digest).expect("read")
    };
    assert_eq!(one(&["-o", &spec]), one(&["--no-push"]));
}

/// All outputs have what COPY took, whoever writes to the context meanwhile; those that read it again
/// say so where they cannot.
#[test]
fn what_changes_during_the_build_is_in_every_output_or_in_none() {
    const DIRECT: &str = "FROM base\nCOPY f /f\nRUN --mount=type=bind,source=pipe,target=/pipe cat /pipe/p; cat /f >/seen\n";
    const BY_STAGE: &str = "FROM scratch AS a\nCOPY f /f\nFROM base\n\
        RUN --mount=type=bind,source=pipe,target=/pipe cat /pipe/p\nCOPY --from=a /f /f\n";
    let said = "/f of the build context was changed during the build; build again when nothing writes to it";
    let table: [(&str, &str, Option<&str>); 5] = [
        ("type=oci,tar=false,dest=OUT", DIRECT, None),
        ("type=tar,dest=OUT", DIRECT, Some(said)),
        ("type=local,dest=OUT", DIRECT, Some(said)),
        ("type=oci,dest=OUT", BY_STAGE, Some(said)),
        ("type=tar,dest=OUT", BY_STAGE, Some(said)),
    ];
    for (spec, dockerfile, wanted) in table {
        let project = Project::new();
        project.file("f", "one1").file("Dockerfile", dockerfile);
        project
            .file(".dockerignore", "Dockerfile\n")
            .file("pipe/x", "");
        let pipe = project.path("context").join("pipe/p");
        run("mkfifo", &[&text(&pipe)]);
        let spec = spec.replace("OUT", &text(&project.path("out")));
        let mut child = project.spawn(&["-o", &spec]);
        // Once the command reads, COPY is done, and what it took is in the root.
        let writer = loop {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
            match rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()) {
                Ok(fd) => break Some(fd),
                Err(_) if child.try_wait().expect("wait").is_some() => break None,
                Err(_) => std::thread::yield_now(),
            }
        };
        project.file("f", "two2");
        drop(writer);
        let output = child.wait_with_output().expect("wait");
        let error = String::from_utf8_lossy(&output.stderr);
        match wanted {
            None => {
                assert!(output.status.success(), "{spec}: {error}");
                let image = read_layout(&project.path("out"));
                assert_eq!(
                    image.files[&b"f"[..]]["sha256"],
                    image.files[&b"seen"[..]]["sha256"]
                );
            }
            Some(wanted) => {
                assert_eq!(output.status.code(), Some(1), "{spec}: {error}");
                assert!(error.contains(wanted), "{spec}: {error}");
            }
        }
    }
}

#[test]
fn an_image_is_pushed_and_written_at_once() {
    let registry = registry::start();
    let project = small();
    let name = format!("{}/team/app:1", registry.host);
    let file = text(&project.path("x.tar"));
    succeed(project.command().args([
        "-o",
        &format!("type=registry,name={name}"),
        "-o",
        &format!("type=docker,dest={file}"),
        "-o",
        &text(&project.path("files")),
    ]));
    assert!(registry.has_tag("team/app", "1"));
    let tags = run("tar", &["-xOf", &file, "manifest.json"]);
    assert!(tags.contains(&name), "{tags}");
    let config = |source: &str| {
        let args = ["inspect", "--tls-verify=false", "--config", "--raw", source];
        run("skopeo", &args)
    };
    assert_eq!(
        config(&format!("docker://{name}")),
        config(&format!("docker-archive:{file}"))
    );
    // An output that fails keeps the tag away.
    let output = project
        .command()
        .args([
            "-o",
            &format!("type=registry,name={}/team/app:2", registry.host),
        ])
        .args(["-o", "type=docker,dest=/dev/full"])
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("write /dev/full: No space left"), "{said}");
    assert!(!registry.has_tag("team/app", "2"));
}

#[test]
fn podman_loads_both_archives() {
    let project = small();
    let at = |name: &str| text(&project.path(name));
    succeed(project.command().args([
        "-o",
        &format!("type=docker,name=a.test/b:c,dest={}", at("docker")),
        "-o",
        &format!("type=oci,name=a.test/b:c,dest={}", at("oci")),
    ]));
    let (root, state) = (at("podman"), at("podman-state"));
    let places = [
        "--root",
        &root,
        "--runroot",
        &state,
        "--storage-driver",
        "vfs",
    ];
    for archive in ["docker", "oci"] {
        let podman = |args: &[&str]| run("podman", &[&places[..], args].concat());
        let said = podman(&["load", "-i", &at(archive)]);
        assert!(said.contains("a.test/b:c"), "{archive}: {said}");
        podman(&["rmi", "-a", "-f"]);
    }
}

#[test]
fn a_secret_is_in_no_log_and_no_timeline() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base\nRUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN && exit 3\n",
    );
    let page = text(&project.path("page.html"));
    for format in ["text", "json"] {
        let output = project
            .command()
            .args(["--secret", "id=TOKEN", "-v", "trace", "--timeline", &page])
            .args(["--no-push", "--log-format", format])
            .env("TOKEN", "hunter2-and-more")
            .output()
            .expect("run");
        assert_eq!(output.status.code(), Some(3));
        let said = String::from_utf8_lossy(&output.stderr);
        let page = fs::read_to_string(&page).expect("a page");
        assert!(said.contains("****"), "{said}");
        assert!(!said.contains("hunter2") && !page.contains("hunter2"));
    }
}
