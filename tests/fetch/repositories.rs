//! Repositories that are added.

use crate::fake::reply;
use crate::git::{Daemon, Repository, Speaks};
use crate::project::Project;
use crate::{bare, build, fails, git, has, lacks, said, serve};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

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
        assert_eq!(text.contains("401 Unauthorized"), !code, "{text}");
        assert_eq!(text.contains("top:1"), code, "{text}");
        seen += usize::from(code);
    }
    assert_eq!((seen, commit.len()), (2, 40));
}
