//! Servers that fail, and such as are none.

use crate::git::{Daemon, Speaks};
use crate::{Net, fake, git, sample};
use shutter::git::{Login, Remote, Wanted, fetch};
use shutter::request::Hidden;

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
    assert!(error("/busy/r.git").contains("answered 503 Service Unavailable"));
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
        wrong.contains("401 Unauthorized") && !wrong.contains("s3cret"),
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
