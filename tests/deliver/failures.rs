//! Outputs of builds that do not come to their end.

use crate::project::{Project, succeed};
use crate::registry::run;
use crate::{hidden, small, text};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn what_cannot_be_written_is_said_before_anything_is_built() {
    let project = small();
    fs::write(project.path("file"), "").expect("write");
    let at = |name: &str| text(&project.path(name));
    for (spec, why) in [
        (
            format!("type=local,dest={}", at("file")),
            "a directory is wanted",
        ),
        (
            format!("type=oci,tar=false,dest={}", at("file")),
            "a directory is wanted",
        ),
        (
            format!("type=tar,dest={}", at("context")),
            "a file is wanted",
        ),
        (
            format!("type=tar,dest={}/below", at("file")),
            "write the archive",
        ),
        ("/".to_owned(), "it is the root of this machine"),
        (
            "type=local,dest=/proc/sys/none".to_owned(),
            "/proc/sys/none: ",
        ),
    ] {
        let output = project.command().args(["-o", &spec]).output().expect("run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{spec}: {said}");
        assert!(said.contains(why), "{spec}: {said}");
        assert!(!said.contains("COPY"), "{spec}: {said}");
    }
}

/// Runs a build in a mount namespace of its own whose `/mnt` is so large; gives what it said and what
/// is in `/mnt` afterwards.
fn on_a_small_disk(project: &Project, size: &str, specs: &[&str]) -> (String, String) {
    let script =
        "mount -t tmpfs -o size=$0 tmpfs /mnt && { \"$@\"; echo \"code $?\" >&2; ls -A /mnt; }";
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, size])
        .arg(project.command().get_program())
        .args(project.command().get_args())
        .args(specs.iter().flat_map(|spec| ["-o", spec]))
        .output()
        .expect("run unshare");
    (
        String::from_utf8_lossy(&output.stderr).into_owned(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left_on_it() {
    let project = Project::new();
    let noise: Vec<u8> = (0..3_u64 << 20)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    project.file("big", noise);
    project.file("Dockerfile", "FROM base\nCOPY big /big\n");
    for (spec, left) in [
        ("type=docker,dest=/mnt/x.tar", ""),
        ("type=oci,dest=/mnt/x.tar", ""),
        ("type=tar,dest=/mnt/x.tar", ""),
        ("type=oci,tar=false,dest=/mnt/layout", ""),
        // What is written of a directory stays.
        ("type=local,dest=/mnt/dir", "dir\n"),
    ] {
        let (said, listed) = on_a_small_disk(&project, "2m", &[spec]);
        assert!(said.contains("code 1"), "{spec}: {said}");
        assert!(said.contains("No space left on device"), "{spec}: {said}");
        assert!(said.contains("/mnt/"), "{spec}: {said}");
        assert_eq!(listed, left, "{spec}");
    }
    let (said, listed) = on_a_small_disk(&project, "9m", &["type=oci,dest=/mnt/x.tar"]);
    assert!(said.contains("code 0"), "{said}");
    assert_eq!(listed, "x.tar\n");
}

/// A layout shows an image only once every other output has it.
#[test]
fn a_build_that_fails_is_in_no_layout() {
    let project = Project::new();
    project.file("big", vec![7; 3 << 20]);
    project.file("Dockerfile", "FROM base\nCOPY big /big\n");
    let layout = project.path("layout");
    let there = format!("type=oci,tar=false,name=x:1,dest={}", text(&layout));
    let specs = ["type=tar,dest=/mnt/x.tar", &there];
    let (said, listed) = on_a_small_disk(&project, "2m", &specs);
    assert!(said.contains("code 1"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(listed, "");
    assert!(!layout.exists());
    let (said, listed) = on_a_small_disk(&project, "20m", &specs);
    assert!(said.contains("code 0"), "{said}");
    assert_eq!(listed, "x.tar\n");
    assert!(layout.join("index.json").exists());
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    let project = Project::new();
    // Holes cost nothing until they are written out.
    project.file(
        "Dockerfile",
        "FROM base\nRUN dd if=/dev/zero of=/big bs=1 count=1 seek=4294967295 2>/dev/null\n",
    );
    let out = project.path("out");
    fs::create_dir(&out).expect("a directory");
    let spec = format!("type=tar,dest={}", out.join("x.tar").display());
    let child = project.spawn(&["-o", &spec]);
    let begun = Instant::now();
    while hidden(&out).is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing is written"
        );
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    run("kill", &["-TERM", &pid]);
    let output = child.wait_with_output().expect("wait");
    assert_eq!(
        output.status.code(),
        Some(143),
        "{:?}",
        output.status.signal()
    );
    assert_eq!(fs::read_dir(&out).expect("list").count(), 0);
}

#[test]
fn a_damaged_blob_of_the_base_is_fetched_again_or_named() {
    let project = small();
    let to = |name: &str| format!("type=docker,dest={}", project.path(name).display());
    succeed(project.command().args(["-o", &to("one.tar")]));
    // The base's layer is the largest blob.
    let blobs = fs::read_dir(project.path("store/blobs/sha256")).expect("list");
    let blobs = blobs.map(|entry| entry.expect("an entry").path());
    let size = |path: &PathBuf| fs::metadata(path).expect("look").len();
    let blob = blobs.max_by_key(size).expect("a blob");
    let whole = fs::read(&blob).expect("read");
    let damage = || {
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        fs::remove_file(&blob).expect("remove");
        fs::write(&blob, bytes).expect("write");
    };
    damage();
    succeed(project.command().args(["-o", &to("two.tar")]));
    assert!(fs::read(&blob).expect("read") == whole);
    let source = format!("docker-archive:{}", project.path("two.tar").display());
    let copy = format!("dir:{}", project.path("copy").display());
    run("skopeo", &["copy", "--insecure-policy", &source, &copy]);

    damage();
    let name = blob.file_name().expect("a name").to_str().expect("text");
    fs::remove_file(project.base.join("blobs/sha256").join(name)).expect("remove");
    let output = project.command().args(["-o", &to("three.tar")]).output();
    let output = output.expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("fetch layer sha256:{name}")),
        "{said}"
    );
    assert!(!project.path("three.tar").exists());
}
