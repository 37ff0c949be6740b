//! Repositories are fetched from git's own servers and checked out as git does it.

#[path = "../common/fake.rs"]
mod fake;
#[path = "../common/git.rs"]
mod git;

mod servers;
mod trees;

use git::{Daemon, Repository, Speaks, serve};
use shutter::git::{Checked, Checkout, Error, Fetched, Remote, Wanted, check_out, fetch};
use shutter::net::{Client, Retry, Settings, Tls};
use shutter::sys::Cancel;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
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
