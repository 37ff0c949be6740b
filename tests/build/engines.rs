//! Images that other engines take.

use crate::project::{Project, succeed};
use crate::{dockerd, registry};
use std::process::Command;

#[test]
fn an_archive_loads_into_podman() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base\nRUN echo from the archive > /said\nCMD [\"cat\", \"/said\"]\n",
    );
    let tar = project.path("image.tar");
    succeed(
        project
            .command()
            .args([
                "--no-push",
                "--destination",
                "localhost/shutter/archive:1",
                "--tar-path",
            ])
            .arg(&tar),
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
        succeed(&mut command);
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
