//! Files at URLs.

use crate::fake::reply;
use crate::listing::read_layout;
use crate::project::Project;
use crate::{archive, bare, build, fails, gzip, has, registry, said, serve};
use shutter::oci::Digest;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
