//! The program from outside: builds with real registries, engines and signals.

#[path = "../common/base.rs"]
mod base;
#[path = "../common/dockerd.rs"]
mod dockerd;
#[path = "../common/listing.rs"]
mod listing;
#[path = "../common/project.rs"]
mod project;
#[path = "../common/registry.rs"]
mod registry;
#[path = "../common/skip.rs"]
mod skip;

mod ends;
mod engines;
mod platforms;

use listing::read_layout;
use project::{Project, succeed};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

fn layers(image: &listing::Listing) -> &Value {
    &image.image["rootfs"]["diff_ids"]
}

#[test]
fn the_same_build_has_the_same_layers_whatever_the_thread_count() {
    let project = Project::new();
    for i in 0..300 {
        project.file(
            &format!("src/d{}/f{i}", i % 7),
            format!("{i}\n").repeat(i * 10),
        );
    }
    project.file("big", vec![b'x'; 5 << 20]);
    project.file(
        "Dockerfile",
        "FROM base\nCOPY src /src\nWORKDIR /made/here\nCOPY big /deep/er/big\nCOPY <<EOF /heredoc\nhi\nEOF\n",
    );
    for compression in ["gzip", "zstd"] {
        let mut seen = None;
        for (n, threads) in ["1", "2", "7"].iter().enumerate() {
            let args = ["--threads", threads, "--compression", compression];
            let image = read_layout(&project.build(&format!("{compression}{n}"), &args));
            let now = (layers(&image).clone(), image.manifest["layers"].clone());
            assert_eq!(
                seen.get_or_insert(now.clone()),
                &now,
                "{compression}, {threads} threads"
            );
            std::fs::remove_dir_all(project.path("store")).expect("empty the store");
        }
    }
}

#[test]
fn a_reproducible_build_has_the_same_image_digest() {
    let project = Project::new();
    project.file("a", "a");
    project.file(
        "Dockerfile",
        "FROM base\nCOPY a /a\nRUN date > /dev/null; echo x > /x; mkdir /y\nRUN rm /x\n",
    );
    let index = |out: &str, args: &[&str]| {
        std::fs::read(project.build(out, args).join("index.json")).expect("an index")
    };
    for (name, args) in [
        ("r", &["--reproducible"][..]),
        ("e", &["--build-arg", "SOURCE_DATE_EPOCH=1600000000"][..]),
    ] {
        let first = index(&format!("{name}1"), args);
        // Another second, so that times that leak would show.
        let now = Instant::now();
        while now.elapsed() < Duration::from_millis(1100) {
            std::thread::yield_now();
        }
        assert_eq!(first, index(&format!("{name}2"), args), "{args:?}");
    }
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let project = Project::new();
    // Each stage waits for the other over the loopback network: one after another would never end.
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("an address").port()
    };
    project.file(
        "Dockerfile",
        format!(
            "FROM base AS a\nRUN echo ping | timeout 20 nc -l -p {port} > /got\n\
             FROM base AS b\nRUN until echo pong | nc 127.0.0.1 {port} > /got; do :; done\n\
             FROM base\nCOPY --from=a /got /a\nCOPY --from=b /got /b\n"
        ),
    );
    let image = read_layout(&project.build("out", &[]));
    assert_eq!(image.files[&b"a"[..]]["size"], 5);
    assert_eq!(image.files[&b"b"[..]]["size"], 5);
}

#[test]
fn an_image_may_have_more_than_127_layers() {
    let project = Project::new();
    let runs: String = (0..135)
        .map(|i| format!("RUN echo {i} > /f{i}\n"))
        .collect();
    project.file("Dockerfile", format!("FROM base\n{runs}"));
    let image = read_layout(&project.build("out", &[]));
    assert_eq!(layers(&image).as_array().map(Vec::len), Some(136));
    project.file(
        "Dockerfile",
        "FROM deep\nRUN test $(ls / | grep -c '^f[0-9]') = 135 && rm /f7\n",
    );
    let deep = format!("deep=oci-layout://{}", project.path("out").display());
    let image = read_layout(&project.build("out2", &["--build-context", &deep]));
    assert!(!image.files.contains_key(&b"f7"[..]));
    assert!(image.files.contains_key(&b"f134"[..]));
}

#[test]
fn one_snapshot_has_the_same_files_as_many_layers() {
    let project = Project::new();
    project.file("a/b", "b");
    project.file(
        "Dockerfile",
        "FROM base\nCOPY a /a\nRUN rm -r /a && mkdir /a && echo c > /a/c && ln /a/c /a/d\nRUN rm /a/d /tree/file; mv /other /moved\n\
         WORKDIR /w\nRUN rmdir /w; echo w > /w; cp /tree/sub/deep /tree/file\n",
    );
    let many = read_layout(&project.build("many", &[]));
    let one = read_layout(&project.build("one", &["--single-snapshot"]));
    assert_eq!(many.files, one.files);
    assert_eq!(one.manifest["layers"].as_array().map(Vec::len), Some(2));
}

#[test]
fn every_line_of_a_talkative_command_is_printed_in_order() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base\nRUN seq 1 60000; printf end\nRUN echo next\n",
    );
    let (output, _) = project.try_build("out", &[]);
    assert!(output.status.success());
    let wanted: String = (1..=60000).map(|n| format!("{n}\n")).collect();
    let got = String::from_utf8_lossy(&output.stdout);
    assert!(got == wanted + "end\nnext\n", "{} bytes", got.len());
}

/// Without the right to mount a Dockerfile is built that has no commands; one that has some is told
/// what it takes.
#[test]
fn only_commands_need_the_right_to_mount() {
    let project = Project::new();
    project
        .file("a", "a")
        .file("Plain", "FROM base\nCOPY a /new/a\nWORKDIR /w\n");
    project.file("Dockerfile", "FROM base\nCOPY a /new/a\nRUN true\n");
    let plain = project.path("context/Plain");
    let whole = project.build(
        "whole",
        &["--reproducible", "--dockerfile", path_text(&plain)],
    );
    let fewer = |args: &[&str]| {
        let mut less = project::without_mounts(&project.command());
        less.args(args).output().expect("run setpriv (util-linux)")
    };
    let out = project.path("less");
    let built = fewer(&[
        "--reproducible",
        "--no-push",
        "--dockerfile",
        path_text(&plain),
        "--oci-layout-path",
        path_text(&out),
    ]);
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{said}");
    assert_eq!(read_layout(&out).manifest, read_layout(&whole).manifest);
    let refused = fewer(&["--no-push", "--rootfs=overlay"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("overlay cannot be used here"), "{said}");
    assert!(said.contains("CAP_SYS_ADMIN"), "{said}");
}

fn path_text(path: &std::path::Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_failed_run_shows_its_lines_and_its_exit_code() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base\n\nRUN echo one; echo two >&2; \\\n    exit 42\n",
    );
    let (output, out) = project.try_build("out", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(42), "{said}");
    for part in [
        "Dockerfile:3",
        ">>> RUN echo one",
        ">>>     exit 42",
        "two",
        "exit code 42",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert!(!out.exists());
}

#[test]
fn what_a_run_leaves_unchanged_is_no_layer() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN cat /tree/file > /k && touch -r /tree/file /k && cat /k > /tree/file && touch -r /k /tree/file && rm /k\nRUN true\n");
    let image = read_layout(&project.build("out", &[]));
    assert_eq!(layers(&image).as_array().map(Vec::len), Some(1));
    assert_eq!(image.image["history"].as_array().map(Vec::len), Some(2));
}

#[test]
fn network_files_are_there_and_in_no_layer() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN test -s /etc/hosts && test -e /etc/resolv.conf && test -c /dev/null && test -d /proc/self && test -d /sys/class && echo ok > /ok\n");
    let image = read_layout(&project.build("out", &[]));
    let names: Vec<String> = image
        .files
        .keys()
        .map(|k| String::from_utf8_lossy(k).into_owned())
        .collect();
    for gone in [
        "etc/hosts",
        "etc/resolv.conf",
        "etc/hostname",
        "proc",
        "sys",
        "dev",
    ] {
        assert!(!names.iter().any(|n| n == gone), "{gone} is in {names:?}");
    }
}

#[test]
fn a_base_in_the_store_is_not_fetched_again() {
    let registry = registry::start();
    let host = registry.host.clone();
    let project = Project::new();
    push_base(&project, &host);
    project.file(
        "Dockerfile",
        format!("FROM {host}/base:1\nRUN echo 1 > /1\n"),
    );
    let push = |tag: &str| {
        let to = format!("{host}/out:{tag}");
        succeed(
            project
                .command()
                .args(["--insecure", "--insecure-pull", "--destination", &to]),
        );
    };
    push("1");
    // Without its blobs the registry could not give them again.
    let store = read_layout(&project.base);
    let digest = store.manifest["layers"][0]["digest"]
        .as_str()
        .expect("a digest")
        .replace("sha256:", "");
    let blob = registry.blob_path(&digest);
    std::fs::rename(&blob, blob.with_extension("away")).expect("hide the blob");
    let to = format!("{host}/out:1");
    let output = project
        .command()
        .args(["--insecure", "--insecure-pull", "--destination", &to])
        .output()
        .expect("run");
    std::fs::rename(blob.with_extension("away"), &blob).expect("bring it back");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_build_that_changes_no_file_fetches_no_layer() {
    let registry = registry::start();
    let host = registry.host.clone();
    let project = Project::new();
    push_base(&project, &host);
    project.file(
        "Dockerfile",
        format!("FROM {host}/base:1\nENV A=b\nLABEL c=d\nCMD [\"e\"]\n"),
    );
    let to = format!("{host}/labels:1");
    succeed(
        project
            .command()
            .args(["--insecure", "--insecure-pull", "--destination", &to]),
    );
    assert!(registry.has_tag("labels", "1"));
    let base = read_layout(&project.base);
    let digest = base.manifest["layers"][0]["digest"]
        .as_str()
        .expect("a digest");
    let blob = project.path("store/blobs").join(digest.replace(':', "/"));
    assert!(!blob.exists(), "the base's layer was fetched");
}

fn push_base(project: &Project, host: &str) {
    let status = Command::new("skopeo")
        .args([
            "copy",
            "--quiet",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ])
        .arg(format!("oci:{}", project.base.display()))
        .arg(format!("docker://{host}/base:1"))
        .status()
        .expect("run skopeo");
    assert!(status.success());
}

#[test]
fn triggers_of_a_base_bring_what_they_need() {
    let registry = registry::start();
    let host = registry.host.clone();
    let project = Project::new();
    push_base(&project, &host);
    let parent = format!("{host}/parent:1");
    let run = |args: &[&str]| {
        let output = project
            .command()
            .args(["--insecure", "--insecure-pull"])
            .args(args)
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    };
    project.file(
        "Dockerfile",
        format!(
            "FROM base\nONBUILD COPY --from=tool /made /from-stage\n\
             ONBUILD RUN --mount=from={host}/base:1,target=/mnt cp /mnt/tree/file /from-image; echo $0 > /ran\n\
             ONBUILD COPY <<E /inline\nhi\nE\n"
        ),
    );
    run(&["--destination", &parent]);
    // Nothing but the trigger needs the stage.
    project.file(
        "Dockerfile",
        format!("FROM base AS tool\nRUN echo made > /made\nFROM {parent}\nRUN cat /from-stage /inline > /both\n"),
    );
    let out = project.path("out");
    run(&["--no-push", "--oci-layout-path", &out.display().to_string()]);
    let image = read_layout(&out);
    for (name, size) in [("from-stage", 5), ("inline", 3), ("both", 8)] {
        assert_eq!(image.files[name.as_bytes()]["size"], size, "{name}");
    }
    assert!(image.files.contains_key(&b"from-image"[..]));
    assert_eq!(image.image["config"].get("OnBuild"), None);
}
