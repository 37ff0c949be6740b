//! Law: any pack is taken in or refused, without a panic; every object of one that is taken in can be
//! read, and what is read has the name that the object has. Input: objects in a few bytes each, so
//! that deltas meet bases; after a leading 0, a pack's bytes as they are but for the sum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shutter::git::{Format, Hasher, Oid, receive};
use shutter::sys::Cancel;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A file in memory where there is room for one.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    dir.join(format!("shutter-fuzz-{}.pack", std::process::id()))
});
static CANCEL: LazyLock<Cancel> = LazyLock::new(|| Cancel::new().expect("a pipe"));

/// Compresses nothing: what zlib calls a stored block.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    let mut out = vec![0x78, 1, 1];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(bytes);
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// Writes `number` as a pack has it before an object, after `first` bits of it with `high` above them.
fn sized(high: u8, number: usize) -> Vec<u8> {
    let mut out = vec![high << 4 | (number & 15) as u8];
    let mut rest = number >> 4;
    while rest > 0 {
        if let Some(last) = out.last_mut() {
            *last |= 0x80;
        }
        out.push((rest & 0x7f) as u8);
        rest >>= 7;
    }
    out
}

fn number(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

fn name(kind: &str, content: &[u8]) -> Option<Oid> {
    let mut hash = Hasher::object(Format::Sha1, kind, content.len() as u64);
    hash.update(content);
    hash.finish().ok()
}

/// An object that was written.
struct Done {
    offset: usize,
    kind: &'static str,
    content: Vec<u8>,
}

/// Makes a pack of a description: for each object a byte of its type and its lies, one of its base or
/// its length, and its bytes.
fn pack(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut done: Vec<Done> = Vec::new();
    let mut count = 0u32;
    while let [what, more, tail @ ..] = rest {
        let (content, tail) = tail.split_at((*more as usize & 31).min(tail.len()));
        rest = tail;
        let offset = 12 + body.len();
        let lie = usize::from(*what >> 4 == 15);
        count += 1;
        let kinds = [(1, "commit"), (2, "tree"), (3, "blob"), (4, "tag")];
        let base = done.len().checked_sub(1 + (*more as usize >> 5));
        match (what & 7, base.and_then(|at| done.get(at))) {
            (kind @ (6 | 7), Some(base)) => {
                // What the delta makes: a piece of the base, and then some.
                let piece = base.content.len().min(usize::from(*what >> 4));
                let mut made = base.content[..piece].to_vec();
                made.extend(content);
                let mut delta = number(base.content.len() + lie);
                delta.extend(number(made.len()));
                if piece > 0 {
                    delta.extend([0x90, piece as u8]);
                }
                if !content.is_empty() {
                    delta.push(content.len() as u8);
                    delta.extend(content);
                }
                body.extend(sized(kind, delta.len()));
                if kind == 6 {
                    let mut back = offset - base.offset;
                    let mut bytes = vec![(back & 0x7f) as u8];
                    while back > 0x7f {
                        back = (back >> 7) - 1;
                        bytes.insert(0, (back & 0x7f) as u8 | 0x80);
                    }
                    body.extend(bytes);
                } else if let Some(oid) = name(base.kind, &base.content) {
                    body.extend(oid.as_bytes());
                }
                body.extend(stored(&delta));
                let kind = base.kind;
                done.push(Done {
                    offset,
                    kind,
                    content: made,
                });
            }
            (kind, _) => {
                // A delta of nothing that was written, of itself at times, or no delta at all.
                body.extend(sized(kind, content.len() + lie));
                match kind {
                    6 => body.push(*more >> 5),
                    7 => body.extend([*more; 20]),
                    _ => {}
                }
                body.extend(stored(content));
                if let Some((_, kind)) = kinds.iter().find(|(number, _)| *number == kind) {
                    let content = content.to_vec();
                    done.push(Done {
                        offset,
                        kind,
                        content,
                    });
                }
            }
        }
    }
    let mut out = b"PACK\0\0\0\x02".to_vec();
    out.extend(count.to_be_bytes());
    out.extend(body);
    out
}

fuzz_target!(|bytes: &[u8]| {
    let mut all = match bytes {
        [0, rest @ ..] => rest.to_vec(),
        _ => pack(bytes),
    };
    let mut hash = Hasher::new(Format::Sha1);
    hash.update(&all);
    let Ok(sum) = hash.finish() else { return };
    all.write_all(sum.as_bytes()).expect("room");
    let mut source = all.as_slice();
    let _ = std::fs::remove_file(&*FILE);
    let read = receive(
        &mut source,
        "https://h/a.git",
        &FILE,
        Format::Sha1,
        &CANCEL,
        &|_| (),
    );
    let Ok(pack) = read else { return };
    for (oid, kind) in pack.objects() {
        let content = pack.read(&oid, kind, u64::MAX).expect("an object");
        assert_eq!(name(kind.name(), &content), Some(oid));
        if let Ok(size) = pack.size(&oid) {
            assert_eq!(size, content.len() as u64);
            let mut streamed = Vec::new();
            let mut stream = pack.open(&oid).expect("a blob");
            stream.read_to_end(&mut streamed).expect("its content");
            assert_eq!(streamed, content);
        }
    }
});
