//! Repositories are fetched from git's own servers and checked out as git does it.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/git.rs"]
mod git;

use git::{Daemon, Repository, Speaks, serve};
use rustix::mount::{MountFlags, UnmountFlags};
use shutter::fs::RelPath;
use shutter::git::{
    Checked, Checkout, Error, Fetched, Login, Remote, Repository as Kept, Wanted, check_out, fetch,
    keep,
};
use shutter::net::{Client, Retry, Settings, Tls};
use shutter::request::Hidden;
use shutter::sys::Cancel;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

struct Net {
    client: Client,
    tls: Tls,
    cancel: Cancel,
}

impl Net {
    fn new() -> Net {
        let cancel = Cancel::new().unwrap();
        let settings = Settings {
            retry: Retry {
                base: Duration::ZERO,
                ..Retry::default()
            },
            ..Settings::default()
        };
        Net {
            client: Client::new(settings, cancel.clone()).unwrap(),
            tls: Tls::default(),
            cancel,
        }
    }

    fn remote<'a>(&'a self, url: &'a str) -> Remote<'a> {
        Remote {
            url,
            client: &self.client,
            tls: &self.tls,
            login: None,
            ssh: None,
            cancel: &self.cancel,
        }
    }

    fn fetch(&self, url: &str, reference: Option<&str>, dir: &Path) -> Result<Fetched, Error> {
        let wanted = Wanted {
            reference,
            checksum: None,
        };
        fetch(&self.remote(url), &wanted, dir, &|_| ())
    }

    fn check_out(&self, fetched: &Fetched, to: &Path) -> Result<Checked, Error> {
        std::fs::create_dir(to).unwrap();
        let dir = File::open(to).unwrap();
        check_out(&Checkout {
            pack: &fetched.pack,
            commit: fetched.oid,
            dir: dir.as_fd(),
            only: None,
            time: None,
            cancel: &self.cancel,
        })
    }
}

/// Everything below a directory: mode, target or content, and time where that is wanted.
fn listing(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if name == ".git" {
                continue;
            }
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_symlink() {
                std::fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if meta.is_dir() {
                todo.push(path.clone());
                Vec::new()
            } else {
                std::fs::read(&path).unwrap()
            };
            out.insert(name, (meta.permissions().mode(), content));
        }
    }
    out
}

/// A repository with a bit of everything.
fn sample(root: &Path) -> Repository {
    let repository = Repository::new(root.join("r.git"));
    repository
        .file("README", "one\n")
        .file("bin/run", "#!/bin/sh\n")
        .file("deep/er/and/er", vec![7; 300_000])
        .file("a b\u{e4}", "name\n");
    // Files that are nearly the same become deltas.
    for n in 0..20 {
        let text: String = (0..2000)
            .map(|line| format!("{line} {}\n", line * 7 % 97))
            .collect();
        repository.file(&format!("like/{n}"), format!("{text}{n}\n{text}"));
    }
    let bin = repository.dir.join("bin/run");
    std::fs::set_permissions(bin, PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("../README", repository.dir.join("bin/link")).unwrap();
    std::os::unix::fs::symlink("/etc", repository.dir.join("out")).unwrap();
    repository
}

#[test]
fn references_over_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    let first = repository.commit("first");
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "-a", "-m", "a tag", "heavy"]);
    repository.git(&["branch", "side"]);
    repository.git(&["update-ref", "refs/pull/7/head", &first]);
    repository.file("README", "two\n");
    let second = repository.commit("second");
    repository.git(&["branch", "both"]);
    repository.git(&["tag", "both", &first]);
    repository.git(&["gc", "-q", "--aggressive"]);
    let heavy = repository.git(&["rev-parse", "heavy"]);

    let two = serve(dir.path(), Speaks::Two);
    let zero = serve(dir.path(), Speaks::Zero);
    let daemon = Daemon::start(dir.path());
    let urls = [
        format!("http://{}/r.git", two.host),
        format!("http://{}/r.git/", zero.host),
        format!("{}/r.git", daemon.url),
    ];
    let table = [
        (None, &second, Some("refs/heads/main")),
        (Some("main"), &second, Some("refs/heads/main")),
        (Some("refs/heads/side"), &first, Some("refs/heads/side")),
        (Some("heads/side"), &first, Some("refs/heads/side")),
        (Some("light"), &first, Some("refs/tags/light")),
        (Some("heavy"), &heavy, Some("refs/tags/heavy")),
        (Some("refs/tags/heavy"), &heavy, Some("refs/tags/heavy")),
        (Some("both"), &second, Some("refs/heads/both")),
        (Some("tags/both"), &first, Some("refs/tags/both")),
        (Some("pull/7/head"), &first, Some("refs/pull/7/head")),
        (Some(&first), &first, None),
        (Some(&second), &second, None),
        (Some(&heavy), &heavy, None),
    ];
    let net = Net::new();
    for url in &urls {
        for (reference, oid, name) in &table {
            let fetched = net.fetch(url, *reference, dir.path());
            let fetched = fetched.unwrap_or_else(|e| panic!("{url} {reference:?}: {e}"));
            assert_eq!(fetched.oid.to_string(), **oid, "{url} {reference:?}");
            assert_eq!(fetched.reference.as_deref(), *name, "{url} {reference:?}");
            let commit = fetched.pack.peel(&fetched.oid).unwrap().to_string();
            assert!(commit == first || commit == second);
            // Nothing of the history comes along.
            let other = if commit == first { &second } else { &first };
            let other = shutter::git::Oid::from_hex(other.as_bytes()).unwrap();
            assert_eq!(fetched.pack.kind(&other), None, "{url} {reference:?}");
        }
        for reference in [
            "nothing",
            "-x",
            "--upload-pack=x",
            &first[..10],
            "refs/heads",
        ] {
            let error = net.fetch(url, Some(reference), dir.path()).err().unwrap();
            let text = error.to_string();
            assert!(
                text.contains(&format!("does not contain ref {reference}")),
                "{text}"
            );
        }
    }
}

#[test]
fn checksums_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    let commit = repository.commit("first");
    repository.git(&["tag", "-a", "-m", "a tag", "heavy"]);
    let heavy = repository.git(&["rev-parse", "heavy"]);
    let server = serve(dir.path(), Speaks::Two);
    let url = format!("http://{}/r.git", server.host);
    let other = "0123456789abcdef0123456789abcdef01234567";
    let net = Net::new();
    let table = [
        (Some("main"), commit.as_str(), true),
        (Some("main"), &commit[..7], true),
        (Some("heavy"), &heavy, true),
        (Some("heavy"), &commit, true),
        (Some(commit.as_str()), &commit[..1], true),
        (None, other, false),
        (Some("heavy"), other, false),
        (Some(&commit), other, false),
    ];
    for (reference, checksum, good) in table {
        let wanted = Wanted {
            reference,
            checksum: Some(checksum),
        };
        match fetch(&net.remote(&url), &wanted, dir.path(), &|_| ()) {
            Ok(_) => assert!(good, "{reference:?} {checksum}"),
            Err(error) => {
                assert!(!good, "{reference:?} {checksum}: {error}");
                let text = error.to_string();
                assert!(text.contains(checksum) && text.contains(&commit), "{text}");
            }
        }
    }
}

#[test]
fn a_commit_that_is_not_given_comes_with_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    let first = repository.commit("first");
    repository.file("README", "two\n");
    repository.commit("second");
    repository.git(&["checkout", "-q", "--orphan", "gone"]);
    let gone = repository.commit("gone");
    repository.git(&["checkout", "-q", "main"]);
    repository.git(&["branch", "-q", "-D", "gone"]);
    let server = serve(dir.path(), Speaks::Zero);
    let url = format!("http://{}/r.git", server.host);
    let net = Net::new();
    let fetched = net.fetch(&url, Some(&first), dir.path()).unwrap();
    let out = dir.path().join("out");
    net.check_out(&fetched, &out).unwrap();
    assert_eq!(std::fs::read(out.join("README")).unwrap(), b"one\n");
    let error = net.fetch(&url, Some(&gone), dir.path()).err().unwrap();
    assert!(
        error
            .to_string()
            .contains(&format!("does not give commit {gone}")),
        "{error}"
    );
    // The version before the last asks for it and hears that it is not had.
    let server = serve(dir.path(), Speaks::Two);
    let url = format!("http://{}/r.git", server.host);
    let missing = "0123456789abcdef0123456789abcdef01234567";
    let error = net.fetch(&url, Some(missing), dir.path()).err().unwrap();
    assert!(
        error.to_string().contains("does not give commit"),
        "{error}"
    );
}

#[test]
fn files_are_as_git_checks_them_out() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    repository
        .file(
            ".gitattributes",
            "*.bat text eol=crlf\n*.auto text=auto eol=crlf\n*.id ident\n*.u16 text working-tree-encoding=UTF-16LE\n*.lfs filter=lfs -text\n",
        )
        .file("w/a.bat", "one\ntwo\n")
        .file("w/.gitattributes", "plain.bat -text\n")
        .file("w/plain.bat", "one\n")
        .file("text.auto", "one\ntwo\n")
        .file("binary.auto", "one\0\ntwo\n")
        .file("x.id", "$Id$ and $Id: old $\n")
        .file("x.lfs", "version https://git-lfs.github.com/spec/v1\n")
        .file("empty", "");
    let utf16: Vec<u8> = "h\u{e4}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    repository.file("x.u16", &utf16);
    repository.commit("first");
    repository.git(&["gc", "-q"]);
    let clone = dir.path().join("clone");
    git::run(
        dir.path(),
        &[
            "clone",
            "-q",
            repository.dir.to_str().unwrap(),
            clone.to_str().unwrap(),
        ],
    );
    let daemon = Daemon::start(dir.path());
    let net = Net::new();
    let fetched = net
        .fetch(&format!("{}/r.git", daemon.url), None, dir.path())
        .unwrap();
    let out = dir.path().join("out");
    let checked = net.check_out(&fetched, &out).unwrap();
    assert_eq!(checked.notes, Vec::<String>::new());
    let (mine, theirs) = (listing(&out), listing(&clone));
    assert_eq!(
        mine.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    for (name, (mode, content)) in &mine {
        assert_eq!(*mode, theirs[name].0, "{name}");
        assert!(*content == theirs[name].1, "{name}");
        let time = out.join(name).symlink_metadata().unwrap().mtime();
        assert_eq!(time, 1_700_000_000, "{name}");
    }
    assert_eq!(mine["x.u16"].1, utf16);
    assert_eq!(mine["w/a.bat"].1, b"one\r\ntwo\r\n");
}

#[test]
fn one_directory_alone_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    repository.commit("first");
    let daemon = Daemon::start(dir.path());
    let net = Net::new();
    let fetched = net
        .fetch(&format!("{}/r.git", daemon.url), None, dir.path())
        .unwrap();
    let path = |text: &str| RelPath::clean(text.as_bytes()).unwrap();
    for (name, there) in [
        ("bin", true),
        ("deep/er", true),
        ("", true),
        ("README", false),
        ("out", false),
        ("no", false),
        ("bin/link", false),
    ] {
        assert_eq!(
            fetched
                .pack
                .has_directory(&fetched.oid, &path(name))
                .unwrap(),
            there,
            "{name}"
        );
    }
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    check_out(&Checkout {
        pack: &fetched.pack,
        commit: fetched.oid,
        dir: File::open(&out).unwrap().as_fd(),
        only: Some(&path("deep/er")),
        time: None,
        cancel: &net.cancel,
    })
    .unwrap();
    let names: Vec<String> = listing(&out).into_keys().collect();
    assert_eq!(names, ["deep", "deep/er", "deep/er/and", "deep/er/and/er"]);
}

#[test]
fn a_git_directory_is_a_repository() {
    for format in ["sha1", "sha256"] {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("r.git");
        std::fs::create_dir(&place).unwrap();
        git::run(
            &place,
            &["init", "-q", &format!("--object-format={format}")],
        );
        let repository = sample(dir.path());
        repository.file(".gitattributes", "README text eol=crlf\n");
        repository.commit("first");
        repository.file("README", "two\n");
        let second = repository.commit("second");
        repository.git(&["tag", "-a", "-m", "a tag", "v1"]);
        let tag = repository.git(&["rev-parse", "v1"]);
        let server = serve(dir.path(), Speaks::Two);
        let url = format!("http://{}/r.git", server.host);
        let net = Net::new();
        let mut packs = Vec::new();
        for (round, reference) in ["main", "v1", second.as_str()].into_iter().enumerate() {
            let fetched = net.fetch(&url, Some(reference), dir.path()).unwrap();
            let out = dir.path().join(format!("out-{format}-{round}"));
            let checked = net.check_out(&fetched, &out).unwrap();
            let at = RelPath::clean(b".git").unwrap();
            let kept = Kept {
                pack: &fetched.pack,
                checked: &checked,
                reference: fetched.reference.as_deref().map(|name| (name, fetched.oid)),
                url: "https://h/\"r\".git",
                submodules: &[],
                worktree: None,
                cancel: &net.cancel,
            };
            keep(File::open(&out).unwrap().as_fd(), &at, &kept).unwrap();
            let ask = |arguments: &[&str]| git::run(&out, arguments);
            ask(&["fsck", "--strict", "--full"]);
            assert_eq!(ask(&["status", "--porcelain"]), "");
            assert_eq!(ask(&["rev-parse", "HEAD"]), second);
            assert_eq!(ask(&["log", "--format=%s"]), "second");
            assert_eq!(ask(&["config", "remote.origin.url"]), "https://h/\"r\".git");
            assert_eq!(ask(&["rev-parse", "--is-shallow-repository"]), "true");
            match reference {
                "main" => assert_eq!(
                    ask(&["for-each-ref", "--format=%(refname)"]),
                    "refs/heads/main"
                ),
                "v1" => {
                    assert_eq!(ask(&["rev-parse", "v1"]), tag);
                    assert_eq!(ask(&["describe"]), "v1");
                }
                _ => assert_eq!(ask(&["for-each-ref"]), ""),
            }
            assert_eq!(ask(&["show", "HEAD:README"]), "two");
            packs.push(listing(&out.join(".git/objects/pack")));
        }
        // The same commit gives the same pack.
        assert!(packs[0] == packs[2]);
    }
}

#[test]
fn traps_in_a_tree_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    repository.commit("first");
    let blob = repository.object("blob", b"#!/bin/sh\n");
    let link = repository.object("blob", b"/etc");
    let empty = repository.object("blob", b"");
    let inner = repository.git(&["rev-parse", "HEAD:bin"]);
    let mut branches = Vec::new();
    for (name, entries) in [
        ("dotgit", vec![("100644", &b".git"[..], blob.as_str())]),
        ("dotgitdir", vec![("40000", b".git", &inner)]),
        ("upper", vec![("40000", b".GiT", &inner)]),
        ("short", vec![("40000", b"git~1", &inner)]),
        ("dots", vec![("100644", b"..", &blob)]),
        ("slash", vec![("100644", b"../../escaped", &blob)]),
        (
            "twice",
            vec![("120000", b"a", &link), ("40000", b"a", &inner)],
        ),
        (
            "twice2",
            vec![("40000", b"a", &inner), ("120000", b"a", &link)],
        ),
        ("nolink", vec![("120000", b"a", &empty)]),
        (
            "missing",
            vec![("100644", b"a", "0123456789abcdef0123456789abcdef01234567")],
        ),
        ("kind", vec![("40000", b"a", &blob)]),
        ("mode", vec![("10644", b"a", &blob)]),
        ("long", vec![("100644", &[b'x'; 300], &blob)]),
    ] {
        repository.odd_commit(name, &entries);
        branches.push(name);
    }
    // Nothing on the server looks at what it sends.
    let daemon = Daemon::start(dir.path());
    let net = Net::new();
    for branch in branches {
        let out = dir.path().join(format!("out-{branch}"));
        let got = net
            .fetch(&format!("{}/r.git", daemon.url), Some(branch), dir.path())
            .and_then(|fetched| net.check_out(&fetched, &out).map(drop));
        let error = got.expect_err(branch).to_string();
        assert!(!error.is_empty(), "{branch}");
        assert!(!dir.path().join("escaped").exists() && !Path::new("/etc/run").exists());
    }
}

#[test]
fn trees_that_say_more_than_any_disk_holds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::new(dir.path().join("r.git"));
    repository.file("a", "a");
    repository.commit("first");
    let mut tree = repository.object("blob", b"boom\n");
    let mut mode = "100644";
    // Twelve floors of thirty rooms each.
    for _ in 0..12 {
        let mut bytes = Vec::new();
        for room in 10..40 {
            bytes.extend_from_slice(format!("{mode} {room}\0").as_bytes());
            for pair in tree.as_bytes().chunks(2) {
                bytes.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
            }
        }
        tree = repository.object("tree", &bytes);
        mode = "40000";
    }
    let commit = format!("tree {tree}\nauthor T <t> 1 +0000\ncommitter T <t> 1 +0000\n\nx\n");
    let commit = repository.object("commit", commit.as_bytes());
    repository.git(&["update-ref", "refs/heads/bomb", &commit]);
    let daemon = Daemon::start(dir.path());
    let net = Net::new();
    let fetched = net
        .fetch(&format!("{}/r.git", daemon.url), Some("bomb"), dir.path())
        .unwrap();
    // Ended from outside, it ends at once and says so.
    let cancel = net.cancel.clone();
    let out = dir.path().join("out");
    let ended = std::thread::scope(|scope| {
        scope.spawn(move || {
            while std::fs::read_dir(&out).map_or(0, Iterator::count) < 1 {
                std::thread::yield_now();
            }
            cancel.cancel();
        });
        net.check_out(&fetched, &dir.path().join("out"))
    });
    assert!(matches!(ended, Err(Error::Cancelled)));
}

#[test]
fn servers_that_fail() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    repository.commit("first");
    let root = dir.path().to_owned();
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let server = fake::Fake::start(move |asked| {
        let path = asked.path().to_owned();
        if path.starts_with("/private/") {
            let right = asked.header("authorization") == Some("Basic dXNlcjpzM2NyZXQ=");
            if !right {
                return fake::reply(401).with("www-authenticate", "Basic realm=x");
            }
            let mut asked = asked.clone();
            asked.target = asked.target.replacen("/private", "", 1);
            return git::backend(&root, &asked, Speaks::Two);
        }
        if path.starts_with("/moved/") {
            let to = asked.target.replacen("/moved", "/private", 1);
            return fake::reply(301).with("location", to);
        }
        if path.starts_with("/loop/") {
            return fake::reply(302).with("location", asked.target.clone());
        }
        if path.starts_with("/page/") {
            return fake::reply(200)
                .with("content-type", "text/html")
                .body("<html>");
        }
        if path.starts_with("/cut/") || path.starts_with("/once/") {
            let mut inner = asked.clone();
            inner.target = inner
                .target
                .replacen("/cut", "", 1)
                .replacen("/once", "", 1);
            let answer = git::backend(&root, &inner, Speaks::Two);
            let again = tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let asks_objects = asked.body.windows(5).any(|five| five == b"fetch");
            return match asks_objects && (path.starts_with("/cut/") || again < 4) {
                true => answer.cut_after(500),
                false => answer,
            };
        }
        if path.starts_with("/busy/") {
            return fake::reply(503);
        }
        git::backend(&root, asked, Speaks::Two)
    });
    let base = format!("http://{}", server.host);
    let net = Net::new();
    let get = |url: &str| {
        net.fetch(url, None, dir.path())
            .map(|fetched| fetched.pack.len())
    };
    let error = |path: &str| get(&format!("{base}{path}")).unwrap_err().to_string();

    assert!(error("/private/r.git").contains(
        "answered 401 Unauthorized; a repository that is not there for everybody wants a token"
    ));
    assert!(
        error("/none.git")
            .contains("/none.git/info/refs?service=git-upload-pack answered 404 Not Found")
    );
    assert!(error("/page/r.git").contains("`text/html`"));
    assert!(error("/loop/r.git").contains("redirects"));
    assert!(error("/busy/r.git").contains("503"));
    let cut = error("/cut/r.git");
    assert!(cut.contains("git-upload-pack"), "{cut}");
    assert!(get(&format!("{base}/once/r.git")).unwrap() > 20);

    // With a password all goes well, and no message shows one.
    let with = |login: &str, path: &str| format!("http://{login}@{}{path}", server.host);
    assert!(get(&with("user:s3cret", "/private/r.git")).unwrap() > 20);
    assert!(get(&with("user:s3cret", "/moved/r.git")).unwrap() > 20);
    let wrong = get(&with("user:s3cretly", "/private/r.git"))
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("401") && !wrong.contains("s3cret"),
        "{wrong}"
    );
    let hidden = |text: &str| Hidden(text.as_bytes().to_vec());
    for login in [
        Login::Basic {
            user: hidden("user"),
            password: hidden("s3cret"),
        },
        Login::Header(hidden("Basic dXNlcjpzM2NyZXQ=\n")),
    ] {
        let url = format!("{base}/private/r.git");
        let remote = Remote {
            login: Some(&login),
            ..net.remote(&url)
        };
        let wanted = Wanted {
            reference: None,
            checksum: None,
        };
        assert!(fetch(&remote, &wanted, dir.path(), &|_| ()).is_ok());
        assert!(!format!("{login:?}").contains("s3cret"));
    }
    // What is left of attempts that failed is not there.
    let left = std::fs::read_dir(dir.path()).unwrap();
    let packs = left.filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("pack-")
    });
    assert_eq!(packs.count(), 5);

    let nobody = get("git://127.0.0.1:1/r.git").unwrap_err().to_string();
    assert_eq!(nobody, "connect to git://127.0.0.1:1/r.git");
    let daemon = Daemon::start(dir.path());
    let missing = get(&format!("{}/none.git", daemon.url))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("says: access denied or repository not exported"),
        "{missing}"
    );
}

#[test]
fn servers_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4);
    let head = line("# service=git-upload-pack\n") + "0000";
    let oid = "0123456789abcdef0123456789abcdef01234567";
    let can = "multi_ack_detailed side-band-64k shallow symref=HEAD:refs/heads/main";
    let zero = format!(
        "{head}{}0000",
        line(&format!("{oid} HEAD\0{can}\n")) + &line(&format!("{oid} refs/heads/main\n"))
    );
    let two = line("version 2\n") + &line("ls-refs\n") + &line("fetch=shallow\n") + "0000";
    let band = |number: u8, text: &str| line(&format!("{}{text}", number as char));
    let refs = line(&format!("{oid} HEAD\n")) + "0000";
    let pack = line("packfile\n");
    let nak = line("NAK\n");
    // What it greets with, what it answers to everything, and what is said of it.
    let table: Vec<(&str, String, &str)> = vec![
        ("", String::new(), "ended too early"),
        ("00", String::new(), "ended too early"),
        ("zzzz", String::new(), ""),
        ("0003", String::new(), ""),
        ("fff1", String::new(), ""),
        ("0000", String::new(), ""),
        ("0004", String::new(), ""),
        ("0001", String::new(), ""),
        ("000bversio", String::new(), "ended too early"),
        ("000eversion 9\n", String::new(), ""),
        ("0010ERR go away\n", String::new(), "says: go away"),
        (&zero, String::new(), "ended too early"),
        (&zero, "0000".into(), ""),
        (&zero, "0004".into(), ""),
        (&zero, "0001".into(), ""),
        (&zero, "00000004".into(), ""),
        (&zero, "00000000".into(), ""),
        (&zero, nak.clone() + "0004", ""),
        (&zero, nak.clone() + "0000", ""),
        (&zero, nak.clone() + &band(3, "no disk\n"), "says: no disk"),
        (&zero, nak.clone() + &band(9, "x"), ""),
        (&zero, nak.clone() + &band(1, "PACK"), ""),
        (&zero, line("ACK x\n"), ""),
        (&zero, line("shallow x\n") + "0000", ""),
        (
            &zero,
            line(&format!("ERR upload-pack: not our ref {oid}")),
            "does not give",
        ),
        (&two, String::new(), "ended too early"),
        (&two, "0004".into(), ""),
        (&two, line("x\n") + "0000", ""),
        (&two, line(&format!("{oid}\n")) + "0000", ""),
        (
            &two,
            line(&format!("{oid} HEAD symref-target:\n")) + "0000",
            "",
        ),
        (
            &two,
            line("unborn HEAD symref-target:refs/heads/main\n") + "0000",
            "it may be empty",
        ),
        (&two, "0000".into(), "it may be empty"),
        (&two, refs.clone(), ""),
        (&two, refs.clone() + &pack, ""),
        (&two, line("ERR \u{1b}[2Jgo\n"), "says:  [2Jgo"),
    ];
    for (greeting, answer, want) in table {
        let (said, told) = (greeting.to_owned(), answer.clone());
        let server = fake::Fake::start(move |asked| {
            let (kind, body) = match asked.method.as_str() {
                "GET" => ("advertisement", said.clone()),
                _ => ("result", told.clone()),
            };
            fake::reply(200)
                .with(
                    "content-type",
                    format!("application/x-git-upload-pack-{kind}"),
                )
                .body(body)
        });
        let url = format!("http://{}/r.git", server.host);
        let got = Net::new().fetch(&url, None, dir.path());
        let text = got.err().expect("an error").to_string();
        assert!(text.contains(want), "{greeting:?} {answer:?}: {text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_disk_that_is_full_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    let noise: Vec<u8> = (0..100_000u32)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes())
        .collect();
    repository.file("noise", noise);
    repository.commit("first");
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    rustix::mount::mount("tmpfs", &small, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    let daemon = Daemon::start(dir.path());
    let got = Net::new().fetch(&format!("{}/r.git", daemon.url), None, &small);
    let left = std::fs::read_dir(&small).unwrap().count();
    rustix::mount::unmount(&small, UnmountFlags::empty()).unwrap();
    match got.err().expect("an error") {
        Error::Io { path, source, .. } => {
            assert!(path.starts_with(&small), "{}", path.display());
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        }
        other => panic!("{other}"),
    }
    assert_eq!(left, 0);
}

#[test]
fn ssh_is_spoken_by_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let repository = sample(dir.path());
    let commit = repository.commit("first");
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {0}\necho \"sock=$SSH_AUTH_SOCK proto=$GIT_PROTOCOL\" >> {0}\ncase \"$*\" in *nobody@*) echo 'nobody: Permission denied (publickey).' >&2; exit 255;; esac\nfor last; do :; done\nexec sh -c \"$last\"\n",
        log.display()
    );
    std::fs::write(bin.join("ssh"), script).unwrap();
    std::fs::set_permissions(bin.join("ssh"), PermissionsExt::from_mode(0o755)).unwrap();
    let old = std::env::var("PATH").unwrap();
    // SAFETY: a test has its process to itself, and there is no other thread yet.
    unsafe {
        std::env::set_var("PATH", format!("{}:{old}", bin.display()));
        std::env::set_var("GIT_CONFIG_COUNT", "1");
        std::env::set_var("GIT_CONFIG_KEY_0", "safe.directory");
        std::env::set_var("GIT_CONFIG_VALUE_0", "*");
    }
    let net = Net::new();
    let path = repository.dir.display();
    let agent = shutter::request::SshSource::Agent("/run/agent".into());
    let url = format!("git@example.invalid:{path}");
    let remote = Remote {
        ssh: Some(&agent),
        ..net.remote(&url)
    };
    let wanted = Wanted {
        reference: None,
        checksum: None,
    };
    let fetched = fetch(&remote, &wanted, dir.path(), &|_| ()).unwrap();
    assert_eq!(fetched.oid.to_string(), commit);
    let keys = shutter::request::SshSource::Keys(vec!["/k1".into(), "/k2".into()]);
    let url = format!("ssh://me@example.invalid:2222{path}");
    let remote = Remote {
        ssh: Some(&keys),
        ..net.remote(&url)
    };
    fetch(&remote, &wanted, dir.path(), &|_| ()).unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    let options = "-o SendEnv=GIT_PROTOCOL -o BatchMode=yes -o StrictHostKeyChecking=accept-new";
    let want = format!(
        "{options} git@example.invalid git-upload-pack '{path}'\nsock=/run/agent proto=version=2\n\
         {options} -o IdentitiesOnly=yes -i /k1 -i /k2 -p 2222 me@example.invalid git-upload-pack '{path}'\n"
    );
    assert!(log.starts_with(&want), "{log}");
    let error = net
        .fetch("nobody@example.invalid:x", None, dir.path())
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "nobody@example.invalid:x: nobody: Permission denied (publickey)."
    );
    for hostile in [
        "git@-oProxyCommand=touch:x",
        "ssh://-oProxyCommand=touch/x",
        "git@h:-x",
    ] {
        let error = net.fetch(hostile, None, dir.path()).err().unwrap();
        assert!(matches!(error, Error::Address { .. }), "{hostile}: {error}");
    }
}
