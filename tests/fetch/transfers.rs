//! Transfers by themselves: what breaks off, stands still or finds no room.

use crate::fake::reply;
use crate::{archive, gzip, serve};
use shutter::context::Fetched;
use shutter::context::fetch::{Fetcher, Which};
use shutter::net::{Client, Retry, Settings};
use shutter::plan::Remote;
use shutter::progress::{Owner, Sink, Work};
use shutter::request::{ContextSource, Request};
use shutter::sys::Cancel;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
