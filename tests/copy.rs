//! COPY and ADD from outside: linked layers, picked files, and contexts that mean no good.

#[path = "common/base.rs"]
mod base;
#[path = "common/listing.rs"]
mod listing;
#[path = "common/project.rs"]
mod project;
#[path = "common/registry.rs"]
mod registry;

use listing::{Listing, read_layout};
use project::Project;
use rustix::fs::inotify;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

fn layers(image: &Listing) -> Vec<Value> {
    let ids = image.image["rootfs"]["diff_ids"].as_array();
    ids.expect("diff IDs").clone()
}

fn kind(image: &Listing, path: &str) -> Value {
    let file = image.files.get(path.as_bytes());
    file.map_or(Value::Null, |file| file["type"].clone())
}

/// A linked layer is the same on every base, and the base's files are not even fetched for it.
#[test]
fn a_linked_layer_needs_no_base() {
    let registry = registry::start();
    let host = registry.host.clone();
    let project = Project::new();
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-tls-verify=false"])
        .arg(format!("oci:{}", project.base.display()))
        .arg(format!("docker://{host}/base:1"))
        .status()
        .expect("run skopeo");
    assert!(copied.success());
    project.file("a", "a").file("dir/b", "b");
    let linked = "COPY --link a /new/a\nCOPY --link --chown=1:2 dir /tree\nENV A=b\n\
        COPY --link <<EOF /etc/x\nx\nEOF\n";
    project.file("Dockerfile", format!("FROM {host}/base:1\n{linked}"));
    let to = format!("{host}/linked:1");
    let output = project
        .command()
        .args(["--insecure", "--insecure-pull", "--destination", &to])
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(registry.has_tag("linked", "1"));
    let base = read_layout(&project.base);
    let digest = base.manifest["layers"][0]["digest"].as_str();
    let digest = digest.expect("a digest").replace(':', "/");
    let blob = project.path("store/blobs").join(digest);
    assert!(!blob.exists(), "the base's layer was fetched");

    project.file("Dockerfile", format!("FROM base\n{linked}"));
    let on_base = layers(&read_layout(&project.build("one", &[])));
    project.file("Dockerfile", format!("FROM base\nRUN touch /z\n{linked}"));
    let on_more = layers(&read_layout(&project.build("two", &[])));
    project.file("Dockerfile", format!("FROM scratch\n{linked}"));
    let on_nothing = layers(&read_layout(&project.build("three", &[])));
    assert_eq!(on_base.len(), 4);
    assert_eq!(on_base[1..], on_nothing);
    assert_eq!(on_more[2..], on_nothing);
}

/// What a command sees, what the image has, and what one layer of everything has, are one thing.
#[test]
fn a_linked_layer_goes_over_what_is_there() {
    let project = Project::new();
    project.file("a", "a").file("dir/in", "in");
    project.file(
        "Dockerfile",
        "FROM base\n\
         RUN ln -s /tree /lnk; mkdir -p /d/sub /m/sub; echo x > /d/sub/x; echo x > /f; echo x > /m/sub/x; chmod 700 /m\n\
         COPY --link a /lnk/a\n\
         COPY --link a /d\n\
         COPY --link dir /f\n\
         COPY --link dir /m/\n\
         COPY --link --chmod=600 a /lnk/b\n\
         RUN test -d /lnk && test ! -L /lnk && test -f /lnk/a && test ! -e /tree/a && test -f /lnk/b\n\
         RUN test -f /d && test -d /f && test -f /f/in && test -f /m/in && test -f /m/sub/x\n\
         RUN test $(stat -c %a /m) = 755 && test -f /tree/file\n",
    );
    let image = read_layout(&project.build("out", &[]));
    for (path, wanted) in [
        ("lnk", json!("dir")),
        ("lnk/a", json!("file")),
        ("tree/a", Value::Null),
        ("tree/file", json!("file")),
        ("d", json!("file")),
        ("d/sub", Value::Null),
        ("f", json!("dir")),
        ("f/in", json!("file")),
        ("m/in", json!("file")),
        ("m/sub/x", json!("file")),
    ] {
        assert_eq!(kind(&image, path), wanted, "{path}");
    }
    assert_eq!(image.files[&b"m"[..]]["mode"], "0755");
    let one = read_layout(&project.build("single", &["--single-snapshot"]));
    assert_eq!(one.files, image.files);
}

/// Directories that a step has to make are made as the kernel makes them: a set-group-ID directory
/// hands down its bit and, to those without an owner of their own, its group. As dockerd's BuildKit.
#[test]
fn new_directories_inherit_the_group_of_theirs() {
    let project = Project::new();
    project.file("a", "a").file("dir/b", "b").file("s/f", "f");
    let packed = Command::new("tar")
        .args(["--owner=0", "--group=0", "-cf", "implied.tar", "s/f"])
        .current_dir(project.path("context"))
        .status()
        .expect("run tar");
    assert!(packed.success());
    project.file(
        "Dockerfile",
        "FROM base\n\
         RUN mkdir /g && chown 7:8 /g && chmod 2775 /g\n\
         COPY a /g/deep/er/\n\
         COPY --chown=3:4 a /g/owned/a\n\
         COPY dir /g/tree/of\n\
         COPY --parents dir/b /g/parents/\n\
         ADD implied.tar /g/new/\n\
         ADD implied.tar /g/\n\
         WORKDIR /g/work/er\n\
         USER 5:6\n\
         WORKDIR /g/user/work\n",
    );
    let image = read_layout(&project.build("out", &[]));
    for (path, wanted) in [
        ("g", "2775 7:8"),
        ("g/deep", "2755 0:8"),
        ("g/deep/er", "2755 0:8"),
        ("g/deep/er/a", "0644 0:0"),
        ("g/owned", "2755 3:4"),
        ("g/tree", "2755 0:8"),
        ("g/tree/of", "2755 0:8"),
        ("g/parents", "2755 0:8"),
        ("g/new", "2755 0:8"),
        ("g/new/s", "2755 0:0"),
        ("g/s", "2755 0:0"),
        ("g/work", "2755 0:8"),
        ("g/work/er", "2755 0:8"),
        ("g/user", "2755 5:6"),
        ("g/user/work", "2755 5:6"),
    ] {
        let file = &image.files[path.as_bytes()];
        let text = |key: &str| {
            file[key]
                .as_str()
                .map_or(file[key].to_string(), str::to_owned)
        };
        let got = format!("{} {}:{}", text("mode"), text("uid"), text("gid"));
        assert_eq!(got, wanted, "{path}");
    }
}

/// A step costs what it takes, not what is in the context: of directories that have nothing to do with
/// it none is even opened, and of files that are not taken none is read.
#[test]
fn what_is_not_taken_is_not_opened() {
    let project = Project::new();
    project.file("used/deep/a.txt", "a").file("used/b.md", "b");
    project.file("top.json", "{}").file("decoy/in/c", "c");
    project.file("decoy/a.txt", "d").file("left.out", "e");
    let watched = ["decoy", "decoy/in", "decoy/in/c", "decoy/a.txt", "left.out"];
    let watch = Watch::new(watched.map(|path| project.path("context").join(path)));
    let copies: &[(&str, &str)] = &[
        ("COPY used /x/", ""),
        ("COPY used/deep/a.txt top.json /x/", ""),
        ("COPY used/*.md /x/", ""),
        ("COPY *.json /x/", ""),
        ("COPY --parents used/**/a.txt /x/", ""),
        ("COPY --parents ./used/./deep /x/", ""),
        ("COPY --link used /x", ""),
        ("ADD used /x/", ""),
        ("COPY --exclude=decoy --exclude=*.out . /x/", ""),
        ("COPY . /x/", "decoy\nleft.out\n"),
        ("COPY . /x/", "*\n!used\n!top.json\n"),
        ("COPY * /x/", "decoy\n*.out\n"),
        (
            "RUN --mount=type=bind,source=used,target=/x cp /x/b.md /y",
            "",
        ),
        ("WORKDIR /x", ""),
    ];
    for (n, (line, ignore)) in copies.iter().enumerate() {
        project.file("Dockerfile", format!("FROM base\n{line}\n"));
        project.file(".dockerignore", ignore);
        let out = project.build(&format!("out{n}"), &[]);
        assert_eq!(watch.opened(), Vec::<String>::new(), "{line}");
        let image = read_layout(&out);
        assert!(
            image.files.len() > read_layout(&project.base).files.len(),
            "{line}"
        );
    }
    // That it would be seen.
    project.file("Dockerfile", "FROM base\nCOPY . /x/\n");
    project.build("all", &[]);
    let opened = watch.opened();
    for path in watched {
        let path = project.path("context").join(path);
        assert!(opened.contains(&path.display().to_string()), "{opened:?}");
    }
}

/// Sees whether files are opened.
struct Watch {
    inotify: OwnedFd,
    paths: Vec<(i32, PathBuf)>,
}

impl Watch {
    fn new(paths: impl IntoIterator<Item = PathBuf>) -> Watch {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let fd = inotify::init(flags).expect("inotify");
        let add = |path: PathBuf| {
            let at = inotify::add_watch(&fd, &path, inotify::WatchFlags::OPEN);
            (at.expect("a watch"), path)
        };
        let paths = paths.into_iter().map(add).collect();
        Watch { inotify: fd, paths }
    }

    /// Gives what has been opened since the last call.
    fn opened(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut out = BTreeSet::new();
        while let Ok(event) = events.next() {
            // What is seen in a directory is watched itself or is not of interest.
            if event.file_name().is_none() {
                let of = self.paths.iter().find(|(at, _)| *at == event.wd());
                out.extend(of.map(|(_, path)| path.display().to_string()));
            }
        }
        out.into_iter().collect()
    }
}

/// Mistakes and bad intentions end a build with the line and the file they are about.
#[test]
fn what_cannot_be_copied_is_told_by_name() {
    let project = Project::new();
    let at = |name: &str| project.path("context").join(name);
    project.file("a", "a").file("wh/.wh.a", "");
    std::os::unix::fs::symlink("/gone/away", at("ln")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(at("sock")).expect("a socket");
    std::fs::write(at("bad.tar"), bad_archive()).expect("write");
    for (step, wanted) in [
        ("COPY sock /", "\"/sock\" is a socket"),
        (
            "COPY ln /",
            "\"/ln\" is a symbolic link to \"/gone/away\", and that is not there",
        ),
        (
            "COPY wh /",
            "/.wh.a cannot be put into a layer: a name that begins with `.wh.` marks a deletion",
        ),
        (
            "ADD bad.tar /",
            "unpack /bad.tar: entry `../../a`: its name has a `..`",
        ),
        ("COPY --parents no/where /x", "\"/no/where\": not found"),
        ("COPY --chmod=u=q a /x", "invalid chmod parameter: 'u=q'"),
        ("COPY --exclude=[ . /x", "syntax error in pattern"),
        (
            "COPY --link --chown=app a /x",
            "`app` cannot be looked up with --link: use numbers",
        ),
    ] {
        project.file("Dockerfile", format!("FROM base\n\n{step}\n"));
        let (output, _) = project.try_build("out", &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{step}: {said}");
        assert!(said.contains(wanted), "{step}: {said}");
        assert!(said.contains("Dockerfile:3"), "{step}: {said}");
    }
}

/// A file with a hole of 64 MB takes no such place in a root, and has all its bytes in the image.
#[test]
fn holes_stay_holes_in_the_root() {
    let project = Project::new();
    let size: u64 = 64 << 20;
    let file = std::fs::File::create(project.path("context/sparse")).expect("a file");
    std::os::unix::fs::FileExt::write_at(&file, b"end", size - 3).expect("write");
    project.file(
        "Dockerfile",
        "FROM base\nCOPY sparse /s\n\
         RUN test $(stat -c %s /s) = 67108864 && test $(tail -c 3 /s) = end && test $(stat -c %b /s) -lt 1000\n",
    );
    let image = read_layout(&project.build("out", &["--compression", "zstd"]));
    assert_eq!(image.files[&b"s"[..]]["size"], size);
}

/// An archive that fills the disk fails by its name and leaves nothing there.
#[test]
fn an_archive_that_fills_the_disk_is_told_by_name() {
    let project = Project::new();
    let zeros = std::fs::File::create(project.path("zeros")).expect("a file");
    zeros.set_len(64 << 20).expect("a size");
    let packed = Command::new("tar")
        .args(["--gzip", "--create", "--file"])
        .arg(project.path("context/bomb.tgz"))
        .arg("-C")
        .arg(project.path(""))
        .arg("zeros")
        .status()
        .expect("run tar");
    assert!(packed.success());
    project.file("Dockerfile", "FROM scratch\nADD bomb.tgz /x/\n");
    std::fs::create_dir(project.path("store")).expect("a directory");
    // The mount is seen by this one build and goes with it.
    let build = project.command();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=16m tmpfs \"$0\" && \"$@\"; code=$?; du -s \"$0\" >&2; exit $code")
        .arg(project.path("store"))
        .arg(build.get_program())
        .args(build.get_args())
        .arg("--no-push")
        .output()
        .expect("run unshare");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let wanted = "unpack /bomb.tgz: entry `/zeros`: No space left on device";
    assert!(said.contains(wanted), "{said}");
    let left: u64 = said
        .lines()
        .find_map(|line| line.strip_suffix(&format!("\t{}", project.path("store").display())))
        .and_then(|size| size.parse().ok())
        .expect("a size");
    assert!(left < 1000, "{said}");
}

/// An archive of one entry that climbs out.
fn bad_archive() -> Vec<u8> {
    let mut head = [0; 512];
    let mut put = |at: usize, text: &str| {
        head[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, "../../a");
    put(100, "0000644");
    put(124, "00000000000");
    put(136, "00000000001");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
    head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut out = head.to_vec();
    out.resize(2048, 0);
    out
}
