//! Images on standard output.

use crate::project::{Project, succeed};
use crate::registry::run;
use crate::small;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

#[test]
fn standard_output_has_the_image_and_nothing_else() {
    let project = small();
    let dockerfile = "FROM base\nCOPY --chown=1:2 a /dir/a\nRUN echo printed; echo too >&2\n";
    project.file("Dockerfile", dockerfile);
    for (to_stdout, to_file) in [
        (&["-o", "-"][..], "type=tar"),
        (&["-o", "type=oci,dest=-"], "type=oci"),
        (&["--tar-path=/dev/stdout", "--no-push"], "type=docker"),
    ] {
        let file = project.path("file");
        let spec = format!("{to_file},dest={}", file.display());
        let common = ["--reproducible", "-v", "debug"];
        succeed(project.command().args(common).args(["-o", &spec]));
        let wanted = fs::read(&file).expect("an archive");
        let piped = succeed(project.command().args(common).args(to_stdout));
        assert!(piped.stdout == wanted, "{to_stdout:?}");
        assert!(!piped.stderr.is_empty());
        // A regular file as standard output, which has something in it already.
        let appended = project.path("appended");
        fs::write(&appended, "before").expect("write");
        let mut options = fs::OpenOptions::new();
        let out = options.append(true).open(&appended).expect("open");
        succeed(project.command().args(common).args(to_stdout).stdout(out));
        let got = fs::read(&appended).expect("read");
        assert!(got == [&b"before"[..], &wanted].concat(), "{to_stdout:?}");
    }
    let listed = Command::new("sh")
        .arg("-c")
        .arg("\"$@\" | tar -tv --full-time --utc")
        .arg("sh")
        .arg(project.command().get_program())
        .args(project.command().get_args())
        .args(["-o", "-", "--reproducible"])
        .output()
        .expect("run");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    // New files are of the epoch; those of the base are as old as there.
    let line = |name: &str| {
        let end = format!(" {name}");
        let line = listed.lines().find(|line| line.ends_with(&end));
        line.unwrap_or_else(|| panic!("{listed}")).to_owned()
    };
    assert!(line("dir/a").starts_with("-rw-r--r-- 1/2"), "{listed}");
    assert!(line("dir/a").contains(" 1970-01-01 00:00:00 "), "{listed}");
    assert!(line("dir/").contains(" 1970-01-01 00:00:00 "), "{listed}");
    assert!(!line("bin/busybox").contains(" 1970-"), "{listed}");
}

#[test]
fn a_terminal_gets_no_image() {
    let project = small();
    let command = project.command();
    let line: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().expect("text").to_owned())
        .collect();
    let line = format!("{} -o -", line.join(" "));
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("run script");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("an image is not written to a terminal"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_closed_standard_output_gets_no_image() {
    let project = small();
    let command = project.command();
    let output = Command::new("sh")
        .args(["-c", "exec \"$@\" >&-", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .args(["-o", "-"])
        .output()
        .expect("run sh");
    let said = String::from_utf8_lossy(&output.stderr);
    let wanted = "an image cannot be written to standard output: it is closed";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_reader_that_goes_is_told_of() {
    let project = Project::new();
    project.file("big", vec![7; 8 << 20]);
    project.file("Dockerfile", "FROM base\nCOPY big /big\n");
    for spec in ["-", "type=docker,dest=-"] {
        let mut child = project.spawn(&["-o", spec]);
        let mut some = [0; 100];
        let mut out = child.stdout.take().expect("piped");
        out.read_exact(&mut some).expect("some of it");
        drop(out);
        let output = child.wait_with_output().expect("wait");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("standard output: its reader ended before it had all of the image"),
            "{said}"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_signal_ends_a_build_whose_reader_is_asleep() {
    let project = Project::new();
    project.file("big", vec![7; 8 << 20]);
    project.file("Dockerfile", "FROM base\nCOPY big /big\n");
    let mut child = project.spawn(&["-o", "-"]);
    let mut some = [0; 1];
    let mut out = child.stdout.take().expect("piped");
    out.read_exact(&mut some).expect("some of it");
    run("kill", &["-TERM", &child.id().to_string()]);
    assert_eq!(child.wait().expect("wait").code(), Some(143));
}
