//! Builds whose files come from elsewhere: ADD of URLs and repositories, named contexts, build
//! contexts that are no directory.

#[path = "../common/base.rs"]
mod base;
#[path = "../common/fake.rs"]
mod fake;
#[path = "../common/git.rs"]
mod git;
#[path = "../common/listing.rs"]
mod listing;
#[path = "../common/project.rs"]
mod project;
#[path = "../common/registry.rs"]
mod registry;

mod contexts;
mod repositories;
mod transfers;
mod urls;

use fake::{Asked, Fake, Reply, reply};
use listing::{Listing, read_layout};
use project::{Project, mounts};
use shutter::oci::Digest;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Gives the program without a context.
fn bare(project: &Project) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    command.arg("build").arg("--cache-dir");
    command.arg(project.path("store"));
    command.args(["--log-format", "text", "--no-push"]);
    command.arg(format!(
        "--build-context=base=oci-layout://{}",
        project.base.display()
    ));
    command.env_remove("SOURCE_DATE_EPOCH");
    command.stdin(Stdio::null());
    command
}

/// Builds with these arguments and what is fed to standard input.
fn run(project: &Project, out: &str, args: &[&str], stdin: Option<&[u8]>) -> Output {
    let mut command = bare(project);
    // A layout that is there would be added to.
    let _ = std::fs::remove_dir_all(project.path(out));
    command.arg("--oci-layout-path").arg(project.path(out));
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if stdin.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().expect("run shutter");
    if let Some(bytes) = stdin {
        let mut pipe = child.stdin.take().expect("a pipe");
        let bytes = bytes.to_vec();
        std::thread::spawn(move || pipe.write_all(&bytes));
    }
    child.wait_with_output().expect("wait")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Builds and gives the image and what commands printed.
fn build(project: &Project, out: &str, args: &[&str], stdin: Option<&[u8]>) -> (Listing, String) {
    let output = run(project, out, args, stdin);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (read_layout(&project.path(out)), printed)
}

/// Builds and gives why that failed; nothing of it may be left.
fn fails(project: &Project, args: &[&str], stdin: Option<&[u8]>) -> String {
    let output = run(project, "failed", args, stdin);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    let left = std::fs::read_dir(project.path("store/run")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{args:?}");
    text
}

fn has(image: &Listing, path: &str, content: &str) {
    let file = image.files.get(path.as_bytes());
    let file = file.unwrap_or_else(|| {
        panic!(
            "{path} is not there: {:?}",
            image
                .files
                .keys()
                .map(|k| String::from_utf8_lossy(k).into_owned())
                .collect::<Vec<_>>()
        )
    });
    let digest = Digest::of(content.as_bytes()).hex();
    assert_eq!(file["sha256"], digest, "{path}");
}

fn lacks(image: &Listing, path: &str) {
    assert!(
        !image.files.contains_key(path.as_bytes()),
        "{path} is there"
    );
}

/// Makes an archive of names and contents; a name that ends with `@` is a link.
fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        if let Some(name) = name.strip_suffix('@') {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            set_name(&mut header, name);
            header.set_link_name(content).unwrap();
            header.set_cksum();
            builder.append(&header, &[][..]).unwrap();
        } else {
            header.set_size(content.len() as u64);
            set_name(&mut header, name);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// Writes a name as it is, also one that no archive should have.
fn set_name(header: &mut tar::Header, name: &str) {
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn serve(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::start(answer)
}

#[test]
fn a_fetch_ends_with_the_build() {
    let project = Project::new();
    let server = serve(|_| reply(200).silent());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = format!("git://{}/r", silent.local_addr().unwrap());
    let url = format!("http://{}/x", server.host);
    let context = project.path("context").display().to_string();
    for (line, args) in [
        (format!("ADD {url} /x"), vec![context.clone()]),
        (format!("ADD {daemon} /x"), vec![context.clone()]),
        (String::new(), vec![url.clone()]),
        (String::new(), vec![daemon.clone()]),
        (String::new(), vec!["-".to_owned()]),
        (
            String::new(),
            vec![context.clone(), "-f".into(), url.clone()],
        ),
    ] {
        project.file("Dockerfile", format!("FROM scratch\n{line}\n"));
        let mut command = bare(&project);
        command
            .args(&args)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It is at it once its scratch directory is there.
        let end = Instant::now() + Duration::from_secs(20);
        while std::fs::read_dir(project.path("store/run")).map_or(0, Iterator::count) == 0 {
            assert!(
                Instant::now() < end && child.try_wait().unwrap().is_none(),
                "{args:?}"
            );
            std::thread::yield_now();
        }
        let sent = Instant::now();
        let _ = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(130),
            "{args:?}: {}",
            said(&output)
        );
        assert!(sent.elapsed() < Duration::from_secs(30), "{args:?}");
        assert_eq!(
            std::fs::read_dir(project.path("store/run"))
                .unwrap()
                .count(),
            0,
            "{args:?}"
        );
        assert_eq!(mounts(project.dir.path()), Vec::<String>::new());
    }
}
