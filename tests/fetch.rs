//! Builds whose files come from elsewhere: ADD of URLs and repositories, named contexts, build
//! contexts that are no directory.

#[path = "common/base.rs"]
mod base;
#[path = "common/fake.rs"]
mod fake;
#[path = "common/git.rs"]
mod git;
#[path = "common/listing.rs"]
mod listing;
#[path = "common/project.rs"]
mod project;
#[path = "common/registry.rs"]
mod registry;

use fake::{Asked, Fake, Reply, reply};
use git::{Daemon, Repository, Speaks};
use listing::{Listing, read_layout};
use project::{Project, mounts};
use shutter::context::Fetched;
use shutter::context::fetch::{Fetcher, Which};
use shutter::net::{Client, Retry, Settings};
use shutter::oci::Digest;
use shutter::plan::Remote;
use shutter::progress::{Owner, Sink, Work};
use shutter::request::{ContextSource, Request};
use shutter::sys::Cancel;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
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
fn files_at_urls() {
    let project = Project::new();
    let packed = gzip(&archive(&[("in/side", "inside")]));
    let server = serve(move |asked| match asked.path() {
        "/d/a.txt" => reply(200).body("hello"),
        "/dated" => reply(200)
            .with("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT")
            .body("dated"),
        "/sp%20ace" => reply(200).body("space"),
        "/x.tar.gz" => reply(200).body(packed.clone()),
        "/coded" => reply(200)
            .with("content-encoding", "gzip")
            .body(gzip(b"plain")),
        "/moved" => reply(302).with("location", "/d/a.txt"),
        "/named" => reply(200)
            .with("content-disposition", "attachment; filename=other")
            .body("named"),
        "/" => reply(200).body("root"),
        _ => reply(404),
    });
    let url = format!("http://{}", server.host);
    let digest = Digest::of(b"hello");
    project.file(
        "Dockerfile",
        format!(
            "FROM base AS first\nADD {url}/d/a.txt /first\n\
             FROM base\nCOPY --from=first /first /first\nARG NAME=a\n\
             ADD {url}/d/$NAME.txt /out/\n\
             ADD {url}/dated {url}/sp%20ace {url}/named {url}/ /many/\n\
             ADD --chmod=755 --chown=1000:50 {url}/d/a.txt /renamed\n\
             ADD --checksum={digest} {url}/d/a.txt /sum\n\
             ADD {url}/x.tar.gz /tar/\nADD --unpack {url}/x.tar.gz /untar/\n\
             ADD {url}/coded /coded\nADD {url}/moved /moved/\n\
             RUN stat -c '%n %a %u:%g %Y' /out/a.txt /many/* /renamed\n"
        ),
    );
    let context = project.path("context").display().to_string();
    let (image, printed) = build(&project, "out", &[&context], None);
    for (path, content) in [
        ("first", "hello"),
        ("out/a.txt", "hello"),
        ("many/dated", "dated"),
        ("many/sp ace", "space"),
        ("many/named", "named"),
        ("many/__unnamed__", "root"),
        ("renamed", "hello"),
        ("sum", "hello"),
        ("untar/in/side", "inside"),
        ("coded", "plain"),
        ("moved/moved", "hello"),
    ] {
        has(&image, path, content);
    }
    assert!(image.files.contains_key(&b"tar/x.tar.gz"[..]));
    assert_eq!(
        printed,
        "/out/a.txt 600 0:0 0\n/many/__unnamed__ 600 0:0 0\n/many/dated 600 0:0 1700000000\n\
         /many/named 600 0:0 0\n/many/sp ace 600 0:0 0\n/renamed 755 1000:50 0\n"
    );
    // Once each, however many steps and stages want it; with another checksum it is another thing.
    let mut lines = server.lines();
    lines.sort();
    let wanted = [
        "/",
        "/coded",
        "/d/a.txt",
        "/d/a.txt",
        "/d/a.txt",
        "/dated",
        "/moved",
        "/named",
        "/sp%20ace",
        "/x.tar.gz",
    ];
    let wanted: Vec<String> = wanted.iter().map(|path| format!("GET {path}")).collect();
    assert_eq!(lines, wanted);
}

#[test]
fn what_cannot_be_fetched_is_told_with_its_line() {
    let project = Project::new();
    let server = serve(|asked| match asked.path() {
        "/a" => reply(200).body("hello"),
        "/loop" => reply(302).with("location", "/loop"),
        "/elsewhere" => reply(302).with("location", "ftp://h/x"),
        "/denied" => reply(403),
        _ => reply(404),
    });
    let host = &server.host;
    let wrong = Digest::of(b"other");
    let right = Digest::of(b"hello");
    let table: &[(String, &[&str])] = &[
        (
            format!("ADD --checksum={wrong} http://{host}/a /x"),
            &["digest mismatch", &wrong.to_string(), &right.to_string()],
        ),
        (
            format!("ADD http://{host}/none?sig=s3cret /x"),
            &["/none?sig=REDACTED answered 404 Not Found"],
        ),
        (
            format!("ADD http://user:s3cret@{host}/denied /x"),
            &["REDACTED@", "answered 403 Forbidden"],
        ),
        (
            format!("ADD http://{host}/loop /x"),
            &["redirects for the 10th time"],
        ),
        (
            format!("ADD http://{host}/elsewhere /x"),
            &["redirects to `ftp://h/x`"],
        ),
        (
            format!("ADD http://{host}/none.git /x"),
            &["/none.git/info/refs", "404 Not Found"],
        ),
        ("ADD https://h:99999/x /x".into(), &["invalid port number"]),
    ];
    let context = project.path("context").display().to_string();
    for (line, wanted) in table {
        project.file("Dockerfile", format!("FROM scratch\n# here\n{line}\n"));
        let text = fails(&project, &[&context], None);
        assert!(text.contains("Dockerfile:3"), "{text}");
        // The excerpt shows the line as the user wrote it.
        let told: Vec<&str> = text.lines().filter(|l| !l.contains(">>>")).collect();
        let told = told.join("\n");
        for part in *wanted {
            assert!(told.contains(part), "`{part}` is not in: {text}");
        }
    }
}

#[test]
fn secrets_are_shown_to_the_hosts_that_they_are_for() {
    let project = Project::new();
    let server = serve(|asked| match asked.header("authorization") {
        Some("Bearer s3cret") if asked.path() == "/token" => reply(200).body("token"),
        Some("Digest x") if asked.path() == "/header" => reply(200).body("header"),
        None if asked.path() == "/open" => reply(200).body("open"),
        _ => reply(401),
    });
    let port = server.host.split(':').next_back().unwrap();
    std::fs::write(project.path("token"), "s3cret\n").unwrap();
    project.file(
        "Dockerfile",
        format!(
            "FROM scratch\nADD http://127.0.0.1:{port}/token /token\n\
             ADD http://127.1:{port}/token /token2\nADD http://localhost:{port}/header /header\n"
        ),
    );
    let context = project.path("context").display().to_string();
    let secret = format!(
        "id=HTTP_AUTH_TOKEN_127.0.0.1,src={}",
        project.path("token").display()
    );
    let mut command = bare(&project);
    command.args([&context, "--secret", &secret]);
    command.args(["--secret", "id=HTTP_AUTH_HEADER_localhost,env=HEADER"]);
    command.env("HEADER", "Digest x").arg("--oci-layout-path");
    let output = command.arg(project.path("out")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    has(&read_layout(&project.path("out")), "header", "header");
    project.file(
        "Dockerfile",
        format!("FROM scratch\nADD http://localhost:{port}/token /token\n"),
    );
    let text = fails(&project, &[&context, "--secret", &secret], None);
    assert!(
        text.contains("401 Unauthorized") && !text.contains("s3cret"),
        "{text}"
    );
}

/// A repository with a submodule that has one itself.
fn with_submodules(root: &Path) -> (Repository, String) {
    let inner = Repository::new(root.join("group/inner"));
    inner.file("in", "inner").commit("inner");
    let middle = Repository::new(root.join("group/middle"));
    middle.file("mid", "middle");
    let url = inner.dir.display().to_string();
    middle.git(&["submodule", "add", "-q", &url, "deep/er"]);
    middle.git(&[
        "config",
        "-f",
        ".gitmodules",
        "submodule.deep/er.url",
        "../inner",
    ]);
    middle.commit("middle");
    let outer = Repository::new(root.join("group/outer"));
    outer.file("top", "outer").file("docs/page", "page");
    let url = middle.dir.display().to_string();
    outer.git(&[
        "submodule",
        "add",
        "-q",
        "--name",
        "the/name",
        &url,
        "sub/mid",
    ]);
    outer.git(&[
        "config",
        "-f",
        ".gitmodules",
        "submodule.the/name.url",
        "./../middle",
    ]);
    std::fs::set_permissions(outer.dir.join("top"), PermissionsExt::from_mode(0o755)).unwrap();
    let commit = outer.commit("outer");
    // The submodules go on without being asked for.
    for repository in [&inner, &middle] {
        repository.file("later", "later").commit("later");
    }
    (outer, commit)
}

#[test]
fn repositories_with_submodules() {
    let project = Project::new();
    let root = project.path("repositories");
    let (_, commit) = with_submodules(&root);
    let daemon = Daemon::start(&root);
    let url = format!("{}/group/outer", daemon.url);
    project.file(
        "Dockerfile",
        format!(
            "FROM base\nADD {url} /whole\nADD {url}#main:docs /docs/\nADD {url}?submodules=false&ref={commit} /alone\n\
             ADD --keep-git-dir {url} /kept\nADD --checksum={} {url}#main:sub/mid /mid\n\
             ADD --keep-git-dir --chown=1000:1000 {url}#:docs /nogit\n\
             RUN stat -c '%n %a %u:%g %Y' /whole /whole/top /whole/sub/mid/mid /whole/sub /nogit/page\n",
            &commit[..10]
        ),
    );
    let context = project.path("context").display().to_string();
    let (image, printed) = build(&project, "out", &[&context], None);
    for (path, content) in [
        ("whole/top", "outer"),
        ("whole/sub/mid/mid", "middle"),
        ("whole/sub/mid/deep/er/in", "inner"),
        ("docs/page", "page"),
        ("alone/top", "outer"),
        ("kept/sub/mid/deep/er/in", "inner"),
        ("kept/.git/HEAD", &format!("{commit}\n")),
        ("mid/mid", "middle"),
        ("nogit/page", "page"),
    ] {
        has(&image, path, content);
    }
    for path in [
        "whole/.git",
        "whole/sub/mid/.git",
        "whole/sub/mid/later",
        "alone/sub/mid/mid",
        "docs/docs",
        "nogit/.git",
    ] {
        lacks(&image, path);
    }
    assert_eq!(image.files[&b"alone/sub/mid"[..]]["type"], "dir");
    assert_eq!(
        printed,
        "/whole 755 0:0 1700000000\n/whole/top 755 0:0 1700000000\n/whole/sub/mid/mid 644 0:0 1700000000\n\
         /whole/sub 755 0:0 1700000000\n/nogit/page 644 1000:1000 1700000000\n"
    );
    // The same again, with other connections, is the same image to the byte.
    std::fs::remove_dir_all(project.path("store")).unwrap();
    let (again, _) = build(&project, "out2", &[&context], None);
    assert_eq!(again.manifest["layers"], image.manifest["layers"]);
}

#[test]
fn kept_repositories_are_usable() {
    let project = Project::new();
    let root = project.path("repositories");
    let (_, commit) = with_submodules(&root);
    let daemon = Daemon::start(&root);
    let url = format!("{}/group/outer", daemon.url);
    project.file(
        "Dockerfile",
        format!("FROM scratch\nADD {url}?keep-git-dir=true&branch=main /\n"),
    );
    let context = project.path("context").display().to_string();
    let files = project.path("files");
    let target = format!("type=local,dest={}", files.display());
    let (_, _) = build(&project, "out", &[&context, "--output", &target], None);
    let ask = |dir: &Path, arguments: &[&str]| git::run(dir, arguments);
    for (dir, subject) in [
        ("", "outer"),
        ("sub/mid", "middle"),
        ("sub/mid/deep/er", "inner"),
    ] {
        let dir = files.join(dir);
        ask(&dir, &["fsck", "--strict"]);
        assert_eq!(ask(&dir, &["log", "--format=%s"]), subject);
        assert_eq!(ask(&dir, &["status", "--porcelain"]), "", "{subject}");
    }
    assert_eq!(ask(&files, &["rev-parse", "HEAD"]), commit);
    assert_eq!(ask(&files, &["rev-parse", "refs/heads/main"]), commit);
    let status = ask(&files, &["submodule", "status", "--recursive"]);
    assert_eq!(status.lines().count(), 2, "{status}");
    assert!(
        status
            .lines()
            .all(|line| !line.starts_with(['-', '+', 'U'])),
        "{status}"
    );
    assert_eq!(
        ask(&files, &["config", "submodule.the/name.url"]),
        format!("{}/group/middle", daemon.url)
    );
}

#[test]
fn submodules_that_are_traps() {
    let project = Project::new();
    let root = project.path("repositories");
    let other = Repository::new(root.join("other"));
    let inner = other.file("x", "x").commit("x");
    let repository = Repository::new(root.join("r"));
    repository.file("a", "a");
    repository.commit("a");
    let link = repository.object("blob", b"/etc");
    let a = repository.git(&["rev-parse", "HEAD:a"]);
    let modules = |text: &str| repository.object("blob", text.as_bytes());
    let trap = |branch: &str, text: &str, name: &[u8]| {
        let text = modules(text);
        repository.odd_commit(
            branch,
            &[
                ("100644", b".gitmodules", &text),
                ("100644", b"a", &a),
                ("160000", name, &inner),
            ],
        );
    };
    let daemon = Daemon::start(&root);
    let secret = project.path("secret");
    std::fs::create_dir(&secret).unwrap();
    let here = other.dir.display();
    trap(
        "name",
        "[submodule \"../../x\"]\npath = s\nurl = ../other\n",
        b"s",
    );
    trap(
        "path",
        "[submodule \"x\"]\npath = ../s\nurl = ../other\n",
        b"s",
    );
    trap(
        "option",
        "[submodule \"x\"]\npath = s\nurl = -u./payload\n",
        b"s",
    );
    trap(
        "command",
        "[submodule \"x\"]\npath = s\nurl = ../other\nupdate = !touch /tmp/x\n",
        b"s",
    );
    trap(
        "file",
        &format!("[submodule \"x\"]\npath = s\nurl = file://{here}\n"),
        b"s",
    );
    trap(
        "local",
        &format!("[submodule \"x\"]\npath = s\nurl = {here}\n"),
        b"s",
    );
    trap(
        "above",
        "[submodule \"x\"]\npath = s\nurl = ../../../other\n",
        b"s",
    );
    trap(
        "ext",
        "[submodule \"x\"]\npath = s\nurl = \"ext::sh -c touch% /tmp/x\"\n",
        b"s",
    );
    trap("nourl", "[submodule \"x\"]\npath = s\n", b"s");
    trap(
        "unknown",
        "[submodule \"x\"]\npath = t\nurl = ../other\n",
        b"s",
    );
    trap(
        "gone",
        "[submodule \"x\"]\npath = s\nurl = ../nothing\n",
        b"s",
    );
    trap(
        "ssh",
        "[submodule \"x\"]\npath = s\nurl = ssh://-oProxyCommand=touch/x\n",
        b"s",
    );
    trap("none", "[submodule \"x\"]\npath = s\nurl = -x\n", b".git");
    let text = modules("[submodule \"x\"]\npath = s\nurl = ../other\n");
    repository.odd_commit(
        "link",
        &[
            ("100644", b".gitmodules", &text),
            ("120000", b"s", &link),
            ("160000", b"s", &inner),
        ],
    );
    let table = [
        ("name", "the submodule name `../../x` is suspicious"),
        ("path", "suspicious path"),
        ("option", "suspicious url"),
        ("command", "suspicious update"),
        ("file", "submodule /s"),
        ("local", "neither a URL nor relative"),
        ("above", "leads above the host"),
        ("ext", "neither a URL nor relative"),
        (
            "nourl",
            "No url found for submodule path 's' in .gitmodules",
        ),
        (
            "unknown",
            "No url found for submodule path 's' in .gitmodules",
        ),
        ("gone", "submodule /s"),
        ("ssh", "submodule /s"),
        ("none", "has the name `.git`"),
        ("link", "has the name `s` twice"),
    ];
    let context = project.path("context").display().to_string();
    for (branch, wanted) in table {
        project.file(
            "Dockerfile",
            format!("FROM scratch\nADD {}/r#{branch} /\n", daemon.url),
        );
        let text = fails(&project, &[&context], None);
        assert!(
            text.contains(wanted) && text.contains("Dockerfile:2"),
            "{branch}: {text}"
        );
    }
    // Left out on purpose is no mistake.
    trap(
        "out",
        "[submodule \"x\"]\npath = s\nurl = ../nothing\nupdate = none\n",
        b"s",
    );
    project.file(
        "Dockerfile",
        format!("FROM scratch\nADD {}/r#out /\n", daemon.url),
    );
    has(&build(&project, "out", &[&context], None).0, "a", "a");
}

#[test]
fn directories_of_a_repository_do_not_lead_out() {
    let project = Project::new();
    let root = project.path("repositories");
    let repository = Repository::new(root.join("r"));
    repository.file("real/x", "x");
    symlink("/etc", repository.dir.join("etc")).unwrap();
    symlink("../../..", repository.dir.join("up")).unwrap();
    symlink("real", repository.dir.join("alias")).unwrap();
    repository.commit("x");
    let daemon = Daemon::start(&root);
    let context = project.path("context").display().to_string();
    let table = [
        ("etc", "directory etc of git://127.0.0.1:"),
        ("up", "leads out of it"),
        ("../r", "leads out of the repository"),
        ("none", "directory none of git://127.0.0.1:"),
        ("real/x", "directory real/x of git://127.0.0.1:"),
    ];
    for (dir, wanted) in table {
        project.file(
            "Dockerfile",
            format!("FROM scratch\nADD {}/r#:{dir} /\n", daemon.url),
        );
        let text = fails(&project, &[&context], None);
        assert!(text.contains(wanted), "{dir}: {text}");
    }
    project.file(
        "Dockerfile",
        format!("FROM scratch\nADD {}/r#:alias /\n", daemon.url),
    );
    has(&build(&project, "out", &[&context], None).0, "x", "x");
}

#[test]
fn private_repositories() {
    let project = Project::new();
    let root = project.path("repositories");
    let (_, commit) = with_submodules(&root);
    let server = {
        let root = root.clone();
        serve(move |asked| {
            // x-access-token:s3cret, tok: and u:p
            let known = [
                "Basic eC1hY2Nlc3MtdG9rZW46czNjcmV0",
                "Basic dG9rOg==",
                "Basic dTpw",
            ];
            match asked.header("authorization") {
                Some(shown) if known.contains(&shown) => git::backend(&root, asked, Speaks::Two),
                _ => reply(401).with("www-authenticate", "Basic realm=x"),
            }
        })
    };
    let url = format!("http://{}/group/outer.git", server.host);
    symlink("outer", root.join("group/outer.git")).unwrap();
    std::fs::write(project.path("token"), "s3cret\n").unwrap();
    let token = project.path("token").display().to_string();
    let context = project.path("context").display().to_string();
    project.file("Dockerfile", format!("FROM scratch\nADD {url} /\n"));
    let text = fails(&project, &[&context], None);
    assert!(
        text.contains("401 Unauthorized") && text.contains("GIT_AUTH_TOKEN"),
        "{text}"
    );
    for id in [
        "GIT_AUTH_TOKEN".to_owned(),
        format!("GIT_AUTH_TOKEN.{}", server.host),
    ] {
        let secret = format!("id={id},src={token}");
        let (image, _) = build(&project, "out", &[&context, "--secret", &secret], None);
        has(&image, "sub/mid/deep/er/in", "inner");
    }
    // kaniko's variables are for the context alone, whatever the Dockerfile names.
    let text = {
        let mut command = bare(&project);
        command.arg(&context).env("GIT_TOKEN", "tok");
        said(&command.output().unwrap())
    };
    assert!(text.contains("401 Unauthorized"), "{text}");
    let mut seen = 0;
    for (variables, code) in [
        (&[("GIT_TOKEN", "tok")][..], true),
        (&[("GIT_USERNAME", "u"), ("GIT_PASSWORD", "p")], true),
        (&[("GIT_USERNAME", "u")], false),
    ] {
        let mut command = bare(&project);
        command
            .args([&url, "-f", "top"])
            .envs(variables.iter().copied());
        let output = command.output().unwrap();
        // `top` is no Dockerfile, which is found out once the context is there.
        let text = said(&output);
        assert_eq!(text.contains("401"), !code, "{text}");
        assert_eq!(text.contains("top:1"), code, "{text}");
        seen += usize::from(code);
    }
    assert_eq!((seen, commit.len()), (2, 40));
}

#[test]
fn named_contexts_of_files() {
    let project = Project::new();
    let root = project.path("repositories");
    let repository = Repository::new(root.join("r"));
    repository
        .file("repo", "repo")
        .file(".dockerignore", "repo\n");
    repository.commit("x");
    let daemon = Daemon::start(&root);
    let tar = gzip(&archive(&[
        ("from/tar", "tar"),
        (".dockerignore", "from\n"),
    ]));
    std::fs::write(project.path("x.tar.gz"), &tar).unwrap();
    let server = serve(move |_| reply(200).body(tar.clone()));
    let dir = project.path("other");
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    std::fs::write(dir.join("bin/tool"), "#!/bin/sh\necho tool\n").unwrap();
    std::fs::set_permissions(dir.join("bin/tool"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(dir.join("left-out"), "x").unwrap();
    std::fs::write(dir.join(".dockerignore"), "left-out\n").unwrap();
    std::os::unix::fs::chown(dir.join("bin"), Some(1000), Some(1000)).unwrap();
    symlink("bin/tool", dir.join("link")).unwrap();
    project.file(
        "Dockerfile",
        "FROM other AS files\nENV A=b\n\
         FROM base\n\
         COPY --from=other link /copied/\nCOPY --from=other / /all/\n\
         COPY --from=files /bin/tool /staged\n\
         COPY --from=repo . /repo/\nCOPY --from=web context /web.tar.gz\nCOPY --from=tar from/tar /\n\
         RUN --mount=from=other,target=/m /m/bin/tool && ls -A /m && stat -c '%u %a' /m/bin\n\
         RUN --mount=from=repo,source=repo,target=/r cat /r\n",
    );
    let context = project.path("context").display().to_string();
    let named = [
        format!("--build-context=other={}", dir.display()),
        format!("--build-context=repo={}/r", daemon.url),
        format!("--build-context=web=http://{}/x.tar.gz", server.host),
        format!(
            "--build-context=tar=tar://{}",
            project.path("x.tar.gz").display()
        ),
        "--build-context=unused=http://127.0.0.1:1/x".into(),
    ];
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let args = [&[context.as_str()], &named[..]].concat();
    let (image, printed) = build(&project, "out", &args, None);
    has(&image, "copied/link", "#!/bin/sh\necho tool\n");
    has(&image, "all/bin/tool", "#!/bin/sh\necho tool\n");
    has(&image, "staged", "#!/bin/sh\necho tool\n");
    has(&image, "repo/repo", "repo");
    has(&image, "tar", "tar");
    assert!(image.files.contains_key(&b"web.tar.gz"[..]));
    lacks(&image, "all/left-out");
    assert_eq!(
        printed.trim_end(),
        "tool\n.dockerignore\nbin\nlink\n0 755\nrepo"
    );
    assert_eq!(server.lines().len(), 1);

    // By itself it is an image of one layer, with no config but what the stage adds.
    let args = [&args[..], &["--target", "files"]].concat();
    let (image, _) = build(&project, "files", &args, None);
    assert_eq!(image.manifest["layers"].as_array().unwrap().len(), 1);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        image.image["config"]["Env"],
        serde_json::json!([path, "A=b"])
    );
    let history: Vec<&str> = image.image["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["created_by"].as_str().unwrap())
        .collect();
    assert_eq!(history, ["FROM other AS files", "ENV A=b"]);
    has(&image, "bin/tool", "#!/bin/sh\necho tool\n");
    lacks(&image, "left-out");
    assert_eq!(image.files[&b"bin"[..]]["uid"], 0);
    // With RUN on top, and in one layer.
    project.file(
        "Dockerfile",
        "FROM busy\nRUN rm /bin/[\nCOPY Dockerfile /d\n",
    );
    let busy = project.path("busy");
    std::fs::create_dir_all(busy.join("bin")).unwrap();
    for name in ["sh", "rm", "["] {
        std::fs::copy("/bin/busybox", busy.join("bin").join(name)).unwrap();
    }
    let named = format!("--build-context=busy={}", busy.display());
    for (flag, layers) in [("--no-push", 3), ("--single-snapshot", 1)] {
        let (image, _) = build(&project, flag, &[&context, &named, flag], None);
        assert_eq!(image.manifest["layers"].as_array().unwrap().len(), layers);
        assert!(image.files.contains_key(&b"bin/sh"[..]) && image.files.contains_key(&b"d"[..]));
        lacks(&image, "bin/[");
    }
}

/// The files of a context with a bit of everything.
const CONTEXT: [(&str, &str); 7] = [
    (
        "Dockerfile",
        "FROM base\nCOPY . /all/\nRUN cat /all/a; stat -c '%n %u %a' /all/a /all/d/b\n",
    ),
    ("a", "one"),
    ("d/b", "two"),
    ("d/link@", "../a"),
    ("secret", "secret"),
    (".dockerignore", "secret\n"),
    ("sub/Dockerfile", "FROM base\nCOPY . /sub/\n"),
];

#[test]
fn contexts_that_are_archives() {
    let project = Project::new();
    let plain = archive(&CONTEXT);
    let check = |image: &Listing, printed: &str| {
        has(image, "all/d/b", "two");
        lacks(image, "all/secret");
        assert_eq!(image.files[&b"all/d/link"[..]]["target"], "../a");
        assert_eq!(printed, "one/all/a 0 640\n/all/d/b 0 640\n");
    };
    let mut packed = vec![("plain", plain.clone()), ("gzip", gzip(&plain))];
    for program in ["xz", "bzip2", "zstd"] {
        let mut child = Command::new(program)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect(program);
        child.stdin.take().unwrap().write_all(&plain).unwrap();
        packed.push((program, child.wait_with_output().unwrap().stdout));
    }
    for (kind, bytes) in &packed {
        let path = project.path(kind);
        std::fs::write(&path, bytes).unwrap();
        let url = format!("tar://{}", path.display());
        let (image, printed) = build(&project, "out", &["--context", &url], None);
        check(&image, &printed);
        let (image, printed) = build(&project, "out", &["-"], Some(bytes));
        check(&image, &printed);
    }
    let (image, printed) = build(
        &project,
        "out",
        &["--context", "tar://stdin"],
        Some(&packed[1].1),
    );
    check(&image, &printed);
    let served = packed[1].1.clone();
    let server = serve(move |asked| match asked.path() {
        "/c.tar.gz" => reply(200).body(served.clone()),
        "/Dockerfile" => reply(200).body("FROM base\nCOPY . /c/\n"),
        "/other" => reply(200).body("FROM base\nCOPY d/b /fetched\n"),
        _ => reply(404),
    });
    let url = format!("http://{}", server.host);
    let (image, printed) = build(&project, "out", &[&format!("{url}/c.tar.gz")], None);
    check(&image, &printed);
    // A part of it.
    let args = [&format!("{url}/c.tar.gz"), "--context-sub-path", "sub"];
    let (image, _) = build(&project, "out", &args, None);
    has(&image, "sub/Dockerfile", CONTEXT[6].1);
    lacks(&image, "sub/a");
    // Another Dockerfile: of the context, of this machine, from standard input, at a URL.
    let args = [&format!("{url}/c.tar.gz"), "-f", "sub/Dockerfile"];
    has(&build(&project, "out", &args, None).0, "sub/a", "one");
    let own = project.path("own");
    std::fs::write(&own, "FROM base\nCOPY a /mine\n").unwrap();
    let args = [&format!("{url}/c.tar.gz"), "-f", own.to_str().unwrap()];
    has(&build(&project, "out", &args, None).0, "mine", "one");
    let args = [&format!("{url}/c.tar.gz"), "-f", "-"];
    let (image, _) = build(&project, "out", &args, Some(b"FROM base\nCOPY a /typed\n"));
    has(&image, "typed", "one");
    project.file("d/b", "local");
    let context = project.path("context").display().to_string();
    let args = [context.as_str(), "-f", &format!("{url}/other")];
    has(&build(&project, "out", &args, None).0, "fetched", "local");
    // Its own ignore file counts more.
    std::fs::write(project.path("own.dockerignore"), "a\n").unwrap();
    let args = [&format!("{url}/c.tar.gz"), "-f", own.to_str().unwrap()];
    let text = fails(&project, &args, None);
    assert!(
        text.contains("\"/a\": not found: the ignore file leaves it out"),
        "{text}"
    );
    // A single Dockerfile is a context by itself.
    let (image, _) = build(&project, "out", &[&format!("{url}/Dockerfile")], None);
    has(&image, "c/context", "FROM base\nCOPY . /c/\n");
    let (image, _) = build(
        &project,
        "out",
        &["-"],
        Some(b"FROM base\nRUN echo x > /x\n"),
    );
    has(&image, "x", "x\n");
}

#[test]
fn contexts_that_are_repositories() {
    let project = Project::new();
    let root = project.path("repositories");
    let repository = Repository::new(root.join("r.git"));
    for (name, content) in CONTEXT {
        if !name.ends_with('@') {
            repository.file(name, content);
        }
    }
    let commit = repository.commit("x");
    repository.git(&["tag", "v1"]);
    repository.file("a", "later").commit("y");
    let daemon = Daemon::start(&root);
    let server = git::serve(&root, Speaks::Two);
    let http = format!("http://{}/r.git", server.host);
    for (context, a) in [
        (format!("{}/r.git", daemon.url), "later"),
        (format!("{http}#v1"), "one"),
        (format!("{http}#{commit}"), "one"),
        (format!("{http}?ref=v1"), "one"),
    ] {
        let (image, printed) = build(&project, "out", &[&context], None);
        has(&image, "all/d/b", "two");
        has(&image, "all/a", a);
        lacks(&image, "all/secret");
        lacks(&image, "all/.git");
        assert!(printed.starts_with(a), "{printed}");
    }
    let (image, _) = build(&project, "out", &[&format!("{http}#v1:sub")], None);
    has(&image, "sub/Dockerfile", CONTEXT[6].1);
    lacks(&image, "sub/a");
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
    let (image, _) = build(
        &project,
        "out",
        &[&[http.as_str()], &keep[..]].concat(),
        None,
    );
    assert!(image.files.contains_key(&b"all/.git/HEAD"[..]));
    // kaniko's form, which is fetched over http here.
    let executor = project.path("executor");
    symlink(env!("CARGO_BIN_EXE_shutter"), &executor).unwrap();
    for (rest, a) in [
        ("".to_owned(), "later"),
        ("#refs/tags/v1".into(), "one"),
        (format!("#refs/heads/main#{commit}"), "one"),
    ] {
        let mut command = Command::new(&executor);
        command.args(["--force", "--no-push", "--context"]);
        command.arg(format!("git://{}/r.git{rest}", server.host));
        command.arg("--cache-dir").arg(project.path("store"));
        command.arg(format!(
            "--build-context=base=oci-layout://{}",
            project.base.display()
        ));
        command.arg("--oci-layout-path").arg(project.path("kaniko"));
        command
            .env("GIT_PULL_METHOD", "http")
            .current_dir(project.dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        has(&read_layout(&project.path("kaniko")), "all/a", a);
        std::fs::remove_dir_all(project.path("kaniko")).unwrap();
    }
    // A mistake in a Dockerfile that is not here is shown all the same.
    repository.file("bad/Dockerfile", "FROM base\nRUN exit 3\n");
    repository.file("Dockerfile", "FROM base\n\nNONSENSE\n");
    repository.commit("bad");
    let text = fails(&project, &[&http], None);
    assert!(
        text.contains("Dockerfile:3") && text.contains(">>> NONSENSE"),
        "{text}"
    );
    let text = fails(&project, &[&http, "-f", "none"], None);
    assert!(text.contains("read none of the build context"), "{text}");
    let text = fails(&project, &[&format!("{http}#none")], None);
    assert!(text.contains("does not contain ref none"), "{text}");
    let output = run(&project, "failed", &[&format!("{http}#:bad")], None);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(
        said(&output).contains(">>> RUN exit 3"),
        "{}",
        said(&output)
    );
}

#[test]
fn contexts_that_are_traps() {
    let project = Project::new();
    std::fs::write(project.path("victim"), "FROM base\nCOPY . /x\n").unwrap();
    let dockerfile = ("Dockerfile", "FROM base\nCOPY . /x\n");
    let outside = project.path("victim").display().to_string();
    let etc = project.path("etc");
    std::fs::create_dir(&etc).unwrap();
    let out = etc.display().to_string();
    let table: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![dockerfile, ("../escaped", "x")], "entry `../escaped`"),
        (
            vec![dockerfile, ("a/../../escaped", "x")],
            "entry `a/../../escaped`",
        ),
        (
            vec![dockerfile, ("l@", &out), ("l/escaped", "x")],
            "what it is in is no directory",
        ),
        (
            vec![dockerfile, ("f", "x"), ("f/escaped", "x")],
            "what it is in is no directory",
        ),
        (
            vec![("Dockerfile@", &outside)],
            "read Dockerfile of the build context",
        ),
        (
            vec![("Dockerfile@", "../../../../victim")],
            "read Dockerfile of the build context",
        ),
        (vec![("a", "x")], "read Dockerfile of the build context"),
    ];
    for (entries, wanted) in table {
        let bytes = archive(&entries);
        let text = fails(&project, &["-"], Some(&bytes));
        assert!(text.contains(wanted), "{entries:?}: {text}");
        assert!(!project.path("escaped").exists() && !etc.join("escaped").exists());
        assert!(!project.path("store/run/escaped").exists());
    }
    // A link to a file of this machine is as good as none in a context, an absolute name is below it.
    let (image, _) = build(
        &project,
        "out",
        &["-"],
        Some(&archive(&[
            dockerfile,
            (".dockerignore@", &outside),
            ("/abs", "x"),
        ])),
    );
    has(&image, "x/abs", "x");
    let half = &gzip(&archive(&[dockerfile, ("big", &"x".repeat(100_000))]))[..120];
    let text = fails(&project, &["-"], Some(half));
    assert!(text.contains("unpack standard input"), "{text}");
    let mut damaged = gzip(&archive(&[dockerfile, ("big", "x")]));
    damaged[40] ^= 0xff;
    let text = fails(&project, &["-"], Some(&damaged));
    assert!(text.contains("standard input"), "{text}");
    let bytes = archive(&[dockerfile, ("l@", "/etc")]);
    let text = fails(&project, &["-", "--context-sub-path", "l"], Some(&bytes));
    assert!(text.contains("directory l of the build context"), "{text}");
    let text = fails(&project, &["--context", "s3://bucket/x"], None);
    assert!(text.contains("s3:// is not yet supported"), "{text}");
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
        assert!(sent.elapsed() < Duration::from_secs(10), "{args:?}");
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

#[test]
fn certificates_are_checked() {
    let project = Project::new();
    let at = |name: &str| project.path(name).display().to_string();
    let papers = registry::Certificates::make();
    let (cert, key) = papers.pair("server");
    let files = project.path("served");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(
        files.join("a"),
        "HTTP/1.0 200 ok\r\nContent-Length: 5\r\n\r\nhello",
    )
    .unwrap();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let mut server = Command::new("openssl")
        .args(["s_server", "-HTTP", "-quiet", "-accept", &port.to_string()])
        .arg("-key")
        .arg(key)
        .arg("-cert")
        .arg(cert)
        .current_dir(&files)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run openssl");
    let end = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("localhost", port)).is_err() {
        assert!(Instant::now() < end, "openssl does not listen");
        std::thread::yield_now();
    }
    project.file(
        "Dockerfile",
        format!("FROM scratch\nADD https://localhost:{port}/a /a\n"),
    );
    let context = at("context");
    let text = fails(&project, &[&context], None);
    assert!(text.contains("certificate"), "{text}");
    let mut command = bare(&project);
    command
        .arg(&context)
        .env("SSL_CERT_FILE", papers.path("ca.pem"));
    let output = command
        .arg("--oci-layout-path")
        .arg(at("out"))
        .output()
        .unwrap();
    let _ = server.kill();
    let _ = server.wait();
    assert!(output.status.success(), "{}", said(&output));
    has(&read_layout(&PathBuf::from(at("out"))), "a", "hello");
}

/// Attempts share the time there is: a server that says nothing is not waited for again and again.
#[test]
fn a_silent_server_is_waited_for_once() {
    let head = "HTTP/1.1 200 ok\r\nETag: \"1\"\r\nContent-Length: 9\r\n\r\nhalf";
    for (answer, wanted, asked) in [
        ("", "no answer for 0 s", 2),
        (head, "no answer for 0 s", 2),
        // Nothing names these bytes, so they cannot be gone on with.
        (
            "HTTP/1.1 200 ok\r\nContent-Length: 9\r\n\r\nhalf",
            "nothing came for 0 s",
            2,
        ),
    ] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = silent.local_addr().unwrap();
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        // It ends with the test's process.
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in silent.incoming() {
                let mut stream = stream.unwrap();
                let number = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                if number == 0 || !answer.contains("ETag") {
                    let mut asked = [0; 4096];
                    let _ = stream.read(&mut asked);
                    let _ = stream.write_all(answer.as_bytes());
                }
                open.push(stream);
            }
        });
        let time = Duration::from_millis(400);
        let desk = Desk::with(Settings {
            answer: time,
            idle: time,
            retry: Retry {
                base: Duration::ZERO,
                total: time * 3 / 2,
                ..Retry::default()
            },
            ..Settings::default()
        });
        let error = desk.file(&format!("http://{host}/file")).unwrap_err();
        assert!(error.contains(wanted), "{answer}: {error}");
        assert_eq!(
            count.load(std::sync::atomic::Ordering::SeqCst),
            asked,
            "{answer}"
        );
    }
}

/// What fetches with no wait between attempts, and a place for it.
struct Desk {
    client: Client,
    request: Request,
    cancel: Cancel,
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk::with(Settings {
            retry: Retry {
                base: Duration::ZERO,
                ..Retry::default()
            },
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> Desk {
        let cancel = Cancel::new().unwrap();
        Desk {
            client: Client::new(settings, cancel.clone()).unwrap(),
            request: Request::local("/".into(), "/none".into()),
            cancel,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            client: &self.client,
            request: &self.request,
            cancel: &self.cancel,
        }
    }

    /// Fetches a file; gives its content, or why there is none.
    fn file(&self, url: &str) -> Result<Vec<u8>, String> {
        let span = Sink::none().span(Owner::Build, Work::Fetch, "", None);
        let remote = Remote::Http {
            url: url.into(),
            checksum: None,
        };
        let room = self.dir.path().join(url.rsplit('/').next().unwrap());
        let got = self.fetcher().remote(&remote, &room, &span);
        match got.map_err(|e| e.to_string())?.fetched() {
            Fetched::File { source, .. } => {
                let mut out = Vec::new();
                source.open().unwrap().read_to_end(&mut out).unwrap();
                Ok(out)
            }
            Fetched::Directory(_) => panic!("a directory"),
        }
    }

    /// Unpacks a context; gives the content of a file of it, or why there is none.
    fn context(&self, url: &str, file: &str) -> Result<String, String> {
        let span = Sink::none().span(Owner::Build, Work::Fetch, "", None);
        let room = self.dir.path().join(url.rsplit('/').next().unwrap());
        let source = ContextSource::Http(url.into());
        let opened = self.fetcher().context(&source, Which::Main, &room, &span);
        let opened = opened.map_err(|e| e.to_string())?;
        let path = format!("/proc/self/fd/{}/{file}", opened.dir.as_raw_fd());
        std::fs::read_to_string(path).map_err(|e| e.to_string())
    }
}

#[test]
fn transfers_that_break_off_go_on() {
    // Bytes that differ from place to place, so that a gap would be seen.
    let whole: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    let packed = gzip(&archive(&[
        ("first", "one"),
        ("big", &"x".repeat(3_000_000)),
        ("last", "two"),
    ]));
    let (served, archived) = (whole.clone(), packed.clone());
    let state: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let server = serve(move |asked| {
        let mut state = state.lock().unwrap();
        let count = state.entry(asked.path().to_owned()).or_default();
        *count += 1;
        let start = asked.header("range").and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        let part = |start: usize, tag: &str, body: &[u8]| {
            reply(206)
                .with("etag", tag)
                .with(
                    "content-range",
                    format!("bytes {start}-{}/{}", body.len() - 1, body.len()),
                )
                .body(&body[start..])
        };
        let all = || reply(200).body(served.clone());
        match (asked.path(), start) {
            // Comes in pieces, each of which breaks off.
            ("/pieces", None) => all().with("etag", "\"1\"").cut_after(300_000),
            ("/pieces", Some(start)) => {
                assert_eq!(asked.header("if-range"), Some("\"1\""));
                let answer = part(start, "\"1\"", &served);
                match served.len() - start > 300_000 {
                    true => answer.cut_after(300_000),
                    false => answer,
                }
            }
            // Knows no ranges.
            ("/again", _) if *count == 1 => all().with("etag", "\"1\"").cut_after(300_000),
            ("/again", _) => all().with("etag", "\"1\""),
            // Has no tag, or a weak one: it begins anew.
            ("/untagged", None) if *count == 1 => all().cut_after(300_000),
            ("/weak", None) if *count == 1 => all().with("etag", "W/\"1\"").cut_after(300_000),
            ("/untagged" | "/weak", None) => all(),
            // Becomes something else meanwhile.
            ("/changes", None) if *count == 1 => reply(200)
                .with("etag", "\"old\"")
                .body(vec![7; 500_000])
                .cut_after(300_000),
            ("/changes", _) => all().with("etag", "\"new\""),
            // Gives another part than was asked for.
            ("/shifted", None) if *count == 1 => all().with("etag", "\"1\"").cut_after(300_000),
            ("/shifted", Some(start)) => part(start - 8, "\"1\"", &served),
            ("/shifted", None) => all().with("etag", "\"1\""),
            ("/busy", _) if *count < 3 => reply(503).with("retry-after", "0"),
            ("/busy", _) => all(),
            ("/dies", _) => all().with("etag", "\"1\"").cut_after(0),
            ("/ends", _) => reply(200).hang_up(),
            ("/c1", None) => reply(200)
                .with("etag", "\"1\"")
                .body(archived.clone())
                .cut_after(1000),
            ("/c1", Some(start)) => part(start, "\"1\"", &archived),
            ("/c2", _) if *count == 1 => reply(200).body(archived.clone()).cut_after(1000),
            ("/c2", _) => reply(200).body(archived.clone()),
            ("/c3", _) => reply(200).body(archived.clone()).cut_after(1000),
            _ => reply(404),
        }
    });
    let desk = Desk::new();
    let url = |path: &str| format!("http://{}{path}", server.host);
    for path in [
        "/pieces",
        "/again",
        "/untagged",
        "/weak",
        "/changes",
        "/shifted",
        "/busy",
    ] {
        let got = desk
            .file(&url(path))
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(got == whole, "{path}: {} bytes", got.len());
    }
    for path in ["/dies", "/ends"] {
        let why = desk.file(&url(path)).unwrap_err();
        assert!(why.contains(&format!("GET {}", url(path))), "{why}");
        assert!(!desk.dir.path().join(&path[1..]).join("file").exists());
    }
    for path in ["/c1", "/c2"] {
        assert_eq!(
            desk.context(&url(path), "last").as_deref(),
            Ok("two"),
            "{path}"
        );
    }
    let why = desk.context(&url("/c3"), "last").unwrap_err();
    assert!(why.contains("GET http://"), "{why}");
    let left = std::fs::read_dir(desk.dir.path().join("c3"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[test]
fn a_disk_that_is_full_is_told_as_such() {
    let desk = Desk::new();
    let small = desk.dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = |arguments: &[&str]| {
        let status = Command::new(arguments[0]).args(&arguments[1..]).status();
        assert!(status.expect("run").success(), "{arguments:?}");
    };
    let at = small.display().to_string();
    mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", &at]);
    // It never ends by itself.
    let endless = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = endless.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = endless.accept().unwrap();
        let mut asked = [0; 4096];
        let _ = stream.read(&mut asked);
        let _ = stream.write_all(b"HTTP/1.1 200 ok\r\n\r\n");
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    let span = Sink::none().span(Owner::Build, Work::Fetch, "", None);
    let remote = Remote::Http {
        url: format!("http://{host}/endless"),
        checksum: None,
    };
    let got = desk.fetcher().remote(&remote, &small.join("room"), &span);
    let why = got.err().expect("an error").to_string();
    let empty = std::fs::read_dir(small.join("room")).unwrap().count();
    mount(&["umount", &at]);
    server.join().unwrap();
    assert!(why.contains("no space left for http://127.0.0.1"), "{why}");
    assert_eq!(empty, 0);
}
