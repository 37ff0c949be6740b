//! A small HTTP server that answers as a test tells it to, also wrongly.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(own, _)| own == name).map(|(_, v)| v.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// An answer.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Hang up after so many bytes of the body.
    cut: Option<usize>,
    /// Send the body without a length, in chunks.
    chunked: bool,
    /// Send nothing and hold the connection until the client ends it.
    silent: bool,
    /// Send nothing and end the connection.
    hangs_up: bool,
    /// Answer before the body of the request is read.
    hasty: bool,
    /// Send the body byte by byte, some dozens of them a second.
    drips: bool,
}

pub fn reply(status: u16) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: Vec::new(),
        cut: None,
        chunked: false,
        silent: false,
        hangs_up: false,
        hasty: false,
        drips: false,
    }
}

impl Reply {
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self
    }

    pub fn cut_after(mut self, bytes: usize) -> Reply {
        self.cut = Some(bytes);
        self
    }

    /// Other bytes, as many.
    pub fn turned(mut self) -> Reply {
        self.body.iter_mut().for_each(|byte| *byte ^= 1);
        self
    }

    pub fn chunked(mut self) -> Reply {
        self.chunked = true;
        self
    }

    pub fn hang_up(mut self) -> Reply {
        self.hangs_up = true;
        self
    }

    /// Takes effect for bodies over 16 MiB only, which the answer is then given without.
    pub fn hasty(mut self) -> Reply {
        self.hasty = true;
        self
    }

    pub fn drip(mut self) -> Reply {
        self.drips = true;
        self
    }

    /// Gives how many bytes its body has.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    pub fn silent(mut self) -> Reply {
        self.silent = true;
        self
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A running server.
pub struct Fake {
    /// `127.0.0.1:PORT`
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    ended: Arc<AtomicBool>,
    threads: Option<std::thread::JoinHandle<()>>,
}

impl Fake {
    /// Starts a server.
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answer: Arc<Answer> = Arc::new(answer);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let threads = {
            let (asked, open, ended) = (asked.clone(), open.clone(), ended.clone());
            std::thread::spawn(move || {
                std::thread::scope(|scope| {
                    for stream in listener.incoming() {
                        if ended.load(Ordering::SeqCst) {
                            for stream in open.lock().unwrap().iter() {
                                let _ = stream.shutdown(Shutdown::Both);
                            }
                            return;
                        }
                        let stream = stream.unwrap();
                        open.lock().unwrap().push(stream.try_clone().unwrap());
                        let (answer, asked) = (answer.clone(), asked.clone());
                        scope.spawn(move || {
                            let _ = serve(&stream, &*answer, &asked);
                            let _ = stream.shutdown(Shutdown::Both);
                        });
                    }
                });
            })
        };
        Fake {
            host,
            asked,
            open,
            ended,
            threads: Some(threads),
        }
    }

    /// Gives what was asked so far, but for the first look at `/v2/`.
    pub fn asked(&self) -> Vec<Asked> {
        let all = self.asked.lock().unwrap();
        all.iter().filter(|a| a.target != "/v2/").cloned().collect()
    }

    /// Gives the same as `METHOD TARGET`.
    pub fn lines(&self) -> Vec<String> {
        let line = |a: &Asked| format!("{} {}", a.method, a.target);
        self.asked().iter().map(line).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.host);
        if let Some(threads) = self.threads.take() {
            let _ = threads.join();
        }
    }
}

fn serve(stream: &TcpStream, answer: &Answer, log: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut writer = stream;
    stream.set_nodelay(true)?;
    loop {
        // The beginning of a TLS handshake.
        if reader.fill_buf()?.first().is_none_or(|&b| b == 0x16) {
            return Ok(());
        }
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Ok(());
        };
        let mut asked = Asked {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let header = (name.to_ascii_lowercase(), value.trim().to_owned());
            asked.headers.push(header);
        }
        let length: u64 = asked
            .header("content-length")
            .map_or(0, |n| n.parse().unwrap());
        if length > 16 << 20 {
            let early = answer(&asked);
            if early.hasty {
                log.lock().unwrap().push(asked);
                let head = format!(
                    "HTTP/1.1 {} x\r\ncontent-length: {}\r\n\r\n",
                    early.status,
                    early.body.len()
                );
                writer.write_all(head.as_bytes())?;
                writer.write_all(&early.body)?;
                // Bytes that nobody has read would make the end of the connection a reset.
                let mut rest = [0; 1 << 12];
                while reader.read(&mut rest)? > 0 {}
                return Ok(());
            }
        }
        let mut body = Vec::new();
        (&mut reader).take(length).read_to_end(&mut body)?;
        asked.body = body;
        log.lock().unwrap().push(asked.clone());
        let reply = answer(&asked);
        if reply.hangs_up {
            return Ok(());
        }
        if reply.silent {
            let _ = reader.fill_buf();
            return Ok(());
        }
        let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if reply.chunked {
            head += "transfer-encoding: chunked\r\n";
        } else if !reply.headers.iter().any(|(n, _)| n == "content-length") {
            head += &format!("content-length: {}\r\n", reply.body.len());
        }
        head += "\r\n";
        writer.write_all(head.as_bytes())?;
        if asked.method == "HEAD" {
            continue;
        }
        if reply.chunked {
            for piece in reply.body.chunks(1000) {
                write!(writer, "{:x}\r\n", piece.len())?;
                writer.write_all(piece)?;
                writer.write_all(b"\r\n")?;
            }
            writer.write_all(b"0\r\n\r\n")?;
            continue;
        }
        if reply.drips {
            // Whoever waits for a client that has nothing to say waits for the end of the connection.
            let pause = std::time::Duration::from_millis(20);
            stream.set_read_timeout(Some(pause))?;
            for byte in &reply.body {
                writer.write_all(&[*byte])?;
                if let Ok([]) = reader.fill_buf() {
                    return Ok(());
                }
            }
            stream.set_read_timeout(None)?;
            continue;
        }
        match reply.cut {
            Some(cut) => {
                writer.write_all(&reply.body[..cut.min(reply.body.len())])?;
                return Ok(());
            }
            None => writer.write_all(&reply.body)?,
        }
    }
}
