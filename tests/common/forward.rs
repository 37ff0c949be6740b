//! Hands requests on to a real server, for a fake one that breaks some of them.
#![allow(dead_code)]

use super::fake::{Asked, Reply, reply};
use std::io::{Read, Write};
use std::net::TcpStream;

/// Gives a real server's answer.
pub fn forward(host: &str, asked: &Asked) -> Reply {
    try_forward(host, asked).unwrap_or_else(|_| reply(502))
}

fn try_forward(host: &str, asked: &Asked) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(host)?;
    // By the older protocol, which has no chunks.
    let mut head = format!("{} {} HTTP/1.0\r\n", asked.method, asked.target);
    for (name, value) in &asked.headers {
        if !matches!(name.as_str(), "connection" | "te" | "expect") {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head += "connection: close\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    stream.write_all(&asked.body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok()).unwrap_or(502);
    let mut out = reply(status);
    for line in lines {
        if let Some((name, value)) = line.split_once(':') {
            let name = name.trim().to_ascii_lowercase();
            let is_ours = matches!(
                name.as_str(),
                "connection" | "keep-alive" | "transfer-encoding"
            );
            // What is cut or longer says so by itself.
            if !is_ours && (name != "content-length" || asked.method == "HEAD") {
                out = out.with(&name, value.trim());
            }
        }
    }
    Ok(out.body(&bytes[end + 4..]))
}
