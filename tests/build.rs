//! The program from outside: builds with real registries, engines and signals.

#[path = "common/base.rs"]
mod base;
#[path = "common/dockerd.rs"]
mod dockerd;
#[path = "common/listing.rs"]
mod listing;
#[path = "common/project.rs"]
mod project;
#[path = "common/registry.rs"]
mod registry;
#[path = "common/skip.rs"]
mod skip;

use listing::read_layout;
use project::{Project, mounts, processes};
use serde_json::Value;
use shutter::sandbox::Machine;
use std::io::Read;
use std::process::{Command, Output};
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

#[test]
fn a_refused_machine_is_told_once_and_what_to_do() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN true\n");
    // No CAP_SYS_ADMIN: as in an ordinary container.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin"]);
    let built = project.command();
    command.arg(built.get_program()).args(built.get_args());
    command.args(["--rootfs=overlay", "--no-push"]);
    let output = command.output().expect("run setpriv");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("CAP_SYS_ADMIN"), "{text}");

    // A store on overlayfs, made in a mount namespace of its own.
    let script = "cd \"$0\" && mkdir l u w m && \
        mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && exec \"$@\" --cache-dir m/s";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(project.path(""));
    command.arg(built.get_program());
    let mut arguments = built.get_args();
    while let Some(argument) = arguments.next() {
        match argument == "--cache-dir" {
            true => drop(arguments.next()),
            false => drop(command.arg(argument)),
        }
    }
    command.args(["--rootfs=overlay", "--no-push"]);
    let output = command.output().expect("run unshare");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.matches("cannot be used here").count(), 1, "{text}");
    assert!(text.contains("--cache-dir"), "{text}");
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
        let command = project.command();
        let mut less = std::process::Command::new("setpriv");
        less.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
        less.arg(command.get_program()).args(command.get_args());
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
        let status = project
            .command()
            .args(["--insecure", "--insecure-pull", "--destination", &to])
            .output()
            .expect("run");
        assert!(
            status.status.success(),
            "{}",
            String::from_utf8_lossy(&status.stderr)
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
    let output = project
        .command()
        .args(["--insecure", "--insecure-pull", "--destination", &to])
        .output()
        .expect("run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(registry.has_tag("labels", "1"));
    let base = read_layout(&project.base);
    let digest = base.manifest["layers"][0]["digest"]
        .as_str()
        .expect("a digest");
    let blob = project.path("store/blobs").join(digest.replace(':', "/"));
    assert!(!blob.exists(), "the base's layer was fetched");
}

#[test]
fn signals_end_a_build_promptly_and_leave_nothing() {
    let project = Project::new();
    let registry = registry::start();
    let to = format!("{}/sig:1", registry.host);
    let marker = format!("{}7", std::process::id());
    project.file(
        "Dockerfile",
        format!("FROM base\nRUN echo up; (sleep {marker} &); sleep {marker}\n"),
    );
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = project.spawn(&["--insecure", "--destination", &to]);
        wait_for_line(&mut child, "up");
        let sent = Instant::now();
        kill(child.id(), signal);
        let status = child.wait().expect("wait");
        assert_eq!(status.code(), Some(code), "SIG{signal}");
        assert!(
            sent.elapsed() < Duration::from_secs(5),
            "SIG{signal} took {:?}",
            sent.elapsed()
        );
        assert_eq!(processes(&format!("sleep {marker}")), Vec::<String>::new());
        assert_eq!(mounts(project.dir.path()), Vec::<String>::new());
        assert!(!registry.has_tag("sig", "1"));
    }
}

/// Whoever ends a build does not wait until all is printed that its command had to say.
#[test]
fn a_signal_ends_a_build_whose_command_never_stops_talking() {
    let project = Project::new();
    project.file("Dockerfile", "FROM base\nRUN yes a\n");
    let log = project.path("log");
    let mut child = project
        .command()
        .arg("--no-push")
        .stdout(std::fs::File::create(&log).expect("create"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("run shutter");
    // By then the command is far ahead.
    while std::fs::metadata(&log).expect("look").len() < 256 << 10 {
        assert!(child.try_wait().expect("wait").is_none(), "it ended early");
        std::thread::yield_now();
    }
    let sent = Instant::now();
    kill(child.id(), "TERM");
    let output = child.wait_with_output().expect("wait");
    let took = sent.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    let wanted = "that commands printed before the signal are left out";
    assert!(said.contains(wanted), "{said}");
}

#[test]
fn killed_at_any_moment_the_next_build_works() {
    let project = Project::new();
    let registry = registry::start();
    let host = registry.host.clone();
    push_base(&project, &host);
    project.file("src/a", vec![7; 3 << 20]);
    project.file(
        "Dockerfile",
        format!("FROM {host}/base:1\nCOPY src /src\nRUN cat /src/a /src/a > /b\nRUN echo {0} > /c; sleep 0.0{0}\nRUN rm -r /src /tree\n", 3),
    );
    let to = format!("{host}/killed:1");
    let args = ["--insecure", "--insecure-pull", "--destination", &to];
    let begin = Instant::now();
    let output = project.command().args(args).output().expect("run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let whole = begin.elapsed();
    let mut seed = u64::from(std::process::id());
    for round in 0..10 {
        if round % 3 == 0 {
            std::fs::remove_dir_all(project.path("store")).expect("empty the store");
        }
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let moment = whole.mul_f64((seed >> 33) as f64 / f64::from(u32::MAX >> 1));
        let tag = format!("{host}/killed{round}:1");
        let mut child = project.spawn(&["--insecure", "--insecure-pull", "--destination", &tag]);
        let start = Instant::now();
        while start.elapsed() < moment && child.try_wait().expect("wait").is_none() {
            std::thread::yield_now();
        }
        kill(child.id(), "KILL");
        child.wait().expect("wait");
        // What is left goes as soon as the kernel has told the helper.
        let end = Instant::now() + Duration::from_secs(10);
        let store = project.path("store").display().to_string();
        while !processes(&store).is_empty() {
            assert!(
                Instant::now() < end,
                "left running: {:?}",
                processes(&store)
            );
            std::thread::yield_now();
        }
        assert_eq!(mounts(project.dir.path()), Vec::<String>::new());
        if registry.has_tag(&format!("killed{round}"), "1") {
            let whole = Command::new("skopeo")
                .args([
                    "copy",
                    "--quiet",
                    "--src-tls-verify=false",
                    &format!("docker://{tag}"),
                ])
                .arg(format!(
                    "dir:{}",
                    project.path(&format!("copy{round}")).display()
                ))
                .status()
                .expect("run skopeo");
            assert!(
                whole.success(),
                "the tag of round {round} points to something incomplete"
            );
        }
        let output = project.command().args(args).output().expect("run");
        assert!(
            output.status.success(),
            "after round {round} ({moment:?}, seed {seed}): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let runs = std::fs::read_dir(project.path("store/run")).map_or(0, Iterator::count);
        assert_eq!(runs, 0, "scratch directories are left");
    }
}

#[test]
fn an_archive_loads_into_podman() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base\nRUN echo from the archive > /said\nCMD [\"cat\", \"/said\"]\n",
    );
    let tar = project.path("image.tar");
    let output = project
        .command()
        .args([
            "--no-push",
            "--destination",
            "localhost/shutter/archive:1",
            "--tar-path",
        ])
        .arg(&tar)
        .output()
        .expect("run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Without more rights than a test may have: no limits raised, no network of its own.
    let settings = project.path("containers.conf");
    let text = "[containers]\ndefault_ulimits = []\nnetns = \"host\"\n[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\n";
    std::fs::write(&settings, text).expect("write");
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", &settings);
        command
            .arg("--root")
            .arg(project.path("podman"))
            .arg("--runroot")
            .arg(project.path("podman-run"));
        command
            .args([
                "--cgroup-manager=cgroupfs",
                "--runtime=runc",
                "--storage-driver=vfs",
            ])
            .args(args);
        let output = command.output().expect("run podman");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.success(),
            said + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let loaded = podman(&["load", "-q", "-i", &tar.display().to_string()]);
    assert!(loaded.0, "{}", loaded.1);
    let ran = podman(&[
        "run",
        "--rm",
        "--network=host",
        "--cgroups=enabled",
        "--ulimit=host",
        "localhost/shutter/archive:1",
    ]);
    assert!(ran.0 && ran.1.contains("from the archive"), "{}", ran.1);
}

#[test]
fn an_image_is_pulled_loaded_and_run_by_dockerd() {
    let project = Project::new();
    let registry = registry::start();
    let host = registry.host.clone();
    project.file("app/said", "from the registry\n");
    // The mode of /tmp is lost by engines where a layer names a file in it and not the directory.
    project.file(
        "Dockerfile",
        "FROM base\nCOPY app /app\nRUN echo x > /tmp/x; rm /tree/file; mkdir /new && ln -s /app/said /new/link\nUSER app\n\
         CMD [\"sh\", \"-c\", \"cat /new/link; stat -c %a /tmp; id -u; ls /tree\"]\n",
    );
    let daemon = dockerd::start(&host);
    let tar = project.path("image.tar").display().to_string();
    for compression in ["gzip", "zstd"] {
        let reference = format!("{host}/team/app:{compression}");
        let mut command = project.command();
        command.args([
            "--insecure",
            "--compression",
            compression,
            "--destination",
            &reference,
        ]);
        if compression == "gzip" {
            command.args(["--tar-path", &tar]);
        }
        let output = command.output().expect("run");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let ways: &[&[&str]] = match compression {
            "gzip" => &[&["pull", "-q", &reference], &["load", "-q", "-i", &tar]],
            // This daemon knows no zstd; podman and skopeo do.
            _ => &[],
        };
        for way in ways {
            let got = daemon.docker(way);
            assert!(
                got.status.success(),
                "{way:?}: {}",
                String::from_utf8_lossy(&got.stderr)
            );
            let ran = daemon.docker(&["run", "--rm", "--network=host", &reference]);
            let said = String::from_utf8_lossy(&ran.stdout);
            assert_eq!(
                said,
                "from the registry\n1777\n1000\nlink\nsub\n",
                "{}",
                String::from_utf8_lossy(&ran.stderr)
            );
            daemon.docker(&["rmi", "-f", &reference]);
        }
        let inspected = Command::new("skopeo")
            .args([
                "inspect",
                "--tls-verify=false",
                &format!("docker://{reference}"),
            ])
            .output()
            .expect("run skopeo");
        assert!(
            inspected.status.success(),
            "{}",
            String::from_utf8_lossy(&inspected.stderr)
        );
    }
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

fn kill(pid: u32, signal: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .output();
}

/// Reads a build's standard output until a line has come.
fn wait_for_line(child: &mut std::process::Child, line: &str) {
    let out = child.stdout.as_mut().expect("a pipe");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(line) {
        assert_eq!(
            out.read(&mut byte).expect("read"),
            1,
            "it ended early: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.push(byte[0]);
    }
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

#[test]
fn images_for_other_platforms_are_made_where_nothing_foreign_runs() {
    let project = Project::new();
    // One that no emulator is made for.
    let foreign = "linux/sparc64";
    project.file("a", "a");
    project.file(
        "Dockerfile",
        "FROM --platform=$BUILDPLATFORM base AS make\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
         FROM scratch\nCOPY --from=make /arch /\nCOPY a /\n",
    );
    let args = ["--custom-platform", foreign];
    let image = read_layout(&project.build("out", &args));
    let architecture = foreign.trim_start_matches("linux/");
    assert_eq!(image.image["architecture"], architecture);
    assert_eq!(image.files[&b"arch"[..]]["size"], architecture.len() + 1);
    project.file("Dockerfile", "FROM scratch\nCOPY a /\n\nRUN [\"/a\"]\n");
    let (output, _) = project.try_build("none", &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "Dockerfile:4",
        foreign,
        "qemu-user-static",
        "$BUILDPLATFORM",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert!(!said.contains("[1/2]"), "something ran: {said}");
}

/// Runs a program in a mount namespace of its own in which the kernel has an emulator for s390x: a
/// program that copies what it is to run. Gives `None`, and says why, where there can be none.
fn with_emulator(project: &Project, flags: &str, program: &Command) -> Option<Output> {
    // Where nobody else has binfmt_misc mounted, the entry goes with this mount, whatever happens.
    const SCRIPT: &str = r#"
table=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc binfmt_misc $table || exit 99
printf '%s' "$ENTRY" > $table/register || exit 99
"$@"
code=$?
echo -1 > $table/$NAME
exit $code
"#;
    let emulator = project.path("cp");
    let busybox = std::env::var("BUSYBOX").unwrap_or("/bin/busybox".into());
    std::fs::copy(busybox, &emulator).expect("busybox, which copies by that name");
    let name = format!("shutter-test-{}", std::process::id());
    let magic = "\\x7fELF\\x02\\x02\\x01".to_owned() + &"\\x00".repeat(10) + "\\x02\\x00\\x16";
    let entry = format!(":{name}:M::{magic}::{}:{flags}", emulator.display());
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", SCRIPT, "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .envs([("ENTRY", &entry), ("NAME", &name)])
        .output()
        .expect("run unshare");
    if output.status.code() == Some(99) {
        let why = "binfmt_misc cannot be had";
        skip::not_run("commands_for_other_platforms_run_by_emulators", why);
        return None;
    }
    Some(output)
}

/// A command for another machine, that nothing but an emulator can run, in a root that has nothing
/// else in it.
#[test]
fn commands_for_other_platforms_run_by_emulators() {
    let project = Project::new();
    let mut header = [0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x02\x01");
    header[16..20].copy_from_slice(&[0, 2, 0, 0x16]);
    project.file("foreign", header);
    project.file(
        "Dockerfile",
        "FROM scratch\nCOPY --chmod=755 foreign /bin/foreign\nRUN [\"/bin/foreign\", \"/ran\"]\n",
    );
    let out = project.path("out");
    let mut command = project.command();
    command
        .args(["--no-push", "--custom-platform=linux/s390x"])
        .arg("--oci-layout-path")
        .arg(&out);
    let Some(built) = with_emulator(&project, "F", &command) else {
        return;
    };
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    let image = read_layout(&out);
    assert_eq!(image.image["architecture"], "s390x");
    let (ran, foreign) = (&image.files[&b"ran"[..]], &image.files[&b"bin/foreign"[..]]);
    assert_eq!(ran["sha256"], foreign["sha256"]);

    // One that the kernel looks for in the image's own root is none; another one may be there.
    let platform = "linux/s390x".parse().expect("a platform");
    if Machine::probe().runs(&platform) {
        return;
    }
    let refused = with_emulator(&project, "", &command).expect("as before");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("no emulator for it"), "{said}");
}
