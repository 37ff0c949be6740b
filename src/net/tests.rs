use super::proxy::Proxies;
use super::tls::Authorities;
use super::*;
use crate::sys::Cancel;
use std::collections::BTreeMap;
use std::time::Duration;

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[test]
fn hides_secrets_of_urls() {
    for (text, shown) in [
        ("https://a.example/b/c", "https://a.example/b/c"),
        (
            "https://me:secret@a.example/b",
            "https://REDACTED@a.example/b",
        ),
        (
            "https://a/b?X-Amz-Signature=s&sig=t&digest=sha256:1&token=u#v",
            "https://a/b?X-Amz-Signature=REDACTED&sig=REDACTED&digest=sha256:1&token=REDACTED",
        ),
        (
            "https://a/t?service=s&scope=repository:a:pull&account=me",
            "https://a/t?service=s&scope=repository:a:pull&account=REDACTED",
        ),
        ("https://a/b?", "https://a/b"),
        ("https://a/b?flag", "https://a/b?flag"),
    ] {
        assert_eq!(redacted(&url(text)), shown, "{text}");
    }
}

#[test]
fn chooses_a_proxy() {
    let proxies = |list: &[(&str, &str)]| {
        let map: BTreeMap<String, String> = list
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Proxies::new(&map)
    };
    let except =
        ".in.example, out.example,10.0.0.0/8 ,192.168.1.1,*.star.example,port.example:81,fd00::/8";
    let some = proxies(&[
        ("http_proxy", "plain:1"),
        ("https_proxy", "https://secure:2"),
        ("no_proxy", except),
    ])
    .unwrap();
    for (target, wanted) in [
        ("http://a.example/", Some("http://plain:1")),
        ("https://a.example/", Some("https://secure:2")),
        ("https://localhost:5000/", None),
        ("https://127.0.0.1:5000/", None),
        ("https://[::1]/", None),
        ("https://x.in.example/", None),
        ("https://in.example/", Some("https://secure:2")),
        ("https://out.example/", None),
        ("https://x.out.example/", None),
        ("https://knockout.example/", Some("https://secure:2")),
        ("https://10.1.2.3/", None),
        ("https://11.1.2.3/", Some("https://secure:2")),
        ("https://192.168.1.1/", None),
        ("https://192.168.1.2/", Some("https://secure:2")),
        ("https://x.star.example/", None),
        ("http://port.example:81/", None),
        ("http://port.example/", Some("http://plain:1")),
        ("http://[fd12::1]/", None),
        ("http://[fe80::1]/", Some("http://plain:1")),
    ] {
        assert_eq!(some.of(&url(target)), wanted, "{target}");
    }
    let all = proxies(&[("all_proxy", "http://p")]).unwrap();
    assert_eq!(all.of(&url("https://a/")), Some("http://p"));
    let none = proxies(&[("all_proxy", "http://p"), ("no_proxy", "*")]).unwrap();
    assert_eq!(none.of(&url("https://a/")), None);
    assert_eq!(proxies(&[]).unwrap().of(&url("https://a/")), None);
    for wrong in ["socks5://me:secret@p:1", "http://me:secret@p:x"] {
        let error = proxies(&[("http_proxy", wrong)]).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn knows_where_credentials_may_go() {
    for (from, to, wanted) in [
        ("https://a/x", "https://a/y", true),
        ("https://a/x", "https://a:443/y", true),
        ("https://a/x", "https://a:444/y", false),
        ("https://a/x", "https://b/x", false),
        ("https://a/x", "http://a/x", false),
        ("http://a/x", "https://a/x", true),
        ("http://a:80/x", "https://a:8443/x", false),
        ("http://a:5000/x", "http://a:5000/x", true),
    ] {
        assert_eq!(trusts(&url(from), &url(to)), wanted, "{from} {to}");
    }
}

#[test]
fn waits_longer_each_time_within_bounds() {
    let second = Duration::from_secs(1);
    let retry = Retry {
        attempts: 5,
        base: second,
        longest: 3 * second,
        total: 10 * second,
    };
    for (failed, least, most) in [(1, 0.5, 1.0), (2, 1.0, 2.0), (3, 1.5, 3.0), (4, 1.5, 3.0)] {
        let wait = retry.wait(failed, Duration::ZERO, None).unwrap();
        let wait = wait.as_secs_f64();
        assert!((least..=most).contains(&wait), "{failed}: {wait}");
    }
    assert_eq!(retry.wait(5, Duration::ZERO, None), None);
    assert_eq!(retry.wait(1, 10 * second, None), None);
    assert_eq!(
        retry.wait(1, Duration::ZERO, Some(7 * second)),
        Some(7 * second)
    );
    assert_eq!(retry.wait(1, 4 * second, Some(7 * second)), None);
    assert_eq!(retry.wait(1, second, Some(Duration::MAX)), None);
    let eager = Retry {
        attempts: u32::MAX,
        ..retry
    };
    assert!(eager.wait(1_000_000, Duration::ZERO, None).is_some());
}

#[test]
fn does_nothing_once_cancelled() {
    let cancel = Cancel::new().unwrap();
    let client = Client::new(Settings::default(), cancel.clone()).unwrap();
    cancel.cancel();
    assert!(matches!(
        client.sleep(Duration::from_secs(1000)),
        Err(Error::Cancelled)
    ));
    let tls = Tls::default();
    let request = Request::new(Method::GET, url("http://127.0.0.1:1/"), &tls);
    assert!(matches!(client.send(request), Err(Error::Cancelled)));
}

#[test]
fn says_why_there_is_no_connection() {
    let client = Client::new(Settings::default(), Cancel::new().unwrap()).unwrap();
    // Bound, but nobody listens on it any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for scheme in ["http", "https"] {
        let tls = Tls::default();
        let at = url(&format!("{scheme}://127.0.0.1:{port}/a?sig=secret"));
        let Err(error) = client.send(Request::new(Method::GET, at, &tls)) else {
            panic!("somebody answered");
        };
        assert_eq!(error.failure(), Some(Failure::Connect));
        assert!(error.is_temporary());
        let text = error.to_string();
        assert!(
            text.contains("refused") && !text.contains("secret"),
            "{text}"
        );
    }
}

#[test]
fn names_files_that_are_no_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, broken) = (dir.path().join("empty.pem"), dir.path().join("broken.pem"));
    std::fs::write(&empty, "nothing").unwrap();
    std::fs::write(
        &broken,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let missing = dir.path().join("missing.pem");
    for path in [&empty, &broken, &missing] {
        let root = Tls {
            roots: vec![path.clone()],
            ..Tls::default()
        };
        let identity = Tls {
            identity: Some((path.clone(), path.clone())),
            ..Tls::default()
        };
        for tls in [root, identity] {
            let error = tls::config(&tls, &Authorities::new(SystemRoots::default()))
                .unwrap_err()
                .to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        // Whoever names authorities of his own gets no others in silence.
        let system = SystemRoots {
            file: Some(path.clone()),
            dirs: Vec::new(),
        };
        let error = tls::config(&Tls::default(), &Authorities::new(system)).unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

/// Answers one request with so many bytes, one at a time.
fn drip(bytes: usize) -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 1024]).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        connection.set_nodelay(true).unwrap();
        // Whoever waits for a reader that has nothing to say waits for the end of the connection.
        connection
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        for _ in 0..bytes {
            if connection.write_all(b"x").is_err() || matches!(connection.read(&mut [0]), Ok(0)) {
                return;
            }
        }
    });
    at
}

#[test]
fn a_body_has_to_come_at_its_pace() {
    let tls = Tls::default();
    let get = |bytes, least, idle, is_read: bool| {
        let settings = Settings {
            idle: Duration::from_millis(idle),
            least,
            ..Settings::default()
        };
        let client = Client::new(settings, Cancel::new().unwrap()).unwrap();
        let at = url(&format!("http://{}/", drip(bytes)));
        let response = client.send(Request::new(Method::GET, at, &tls)).unwrap();
        if !is_read {
            return response.bytes(1 << 20).map(|body| body.len());
        }
        let mut reader = response.reader();
        let mut all = 0;
        while let Some(piece) = reader.piece()? {
            all += piece.len();
        }
        Ok(all)
    };
    for is_read in [false, true] {
        // All that is left is enough.
        assert_eq!(get(3, 1000, 10_000, is_read).unwrap(), 3);
        let error = get(1_000_000, 1000, 300, is_read).unwrap_err();
        assert!(matches!(error.failure(), Some(Failure::Timeout(_))));
        let text = error.to_string();
        assert!(text.contains("only ") && text.contains("bytes"), "{text}");
    }
}
