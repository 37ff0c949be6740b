//! Packs as a stranger may send them.

use super::*;
use flate2::write::ZlibEncoder;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

/// An object in a pack.
enum Piece {
    /// Type, the size that it says, content.
    Whole(u8, usize, Vec<u8>),
    /// How far back its base is, and the delta.
    Back(u64, Vec<u8>),
    /// How many objects back its base is, and the delta.
    Nth(usize, Vec<u8>),
    /// The base, and the delta.
    Named(Oid, Vec<u8>),
    Raw(Vec<u8>),
}
use Piece::{Back, Named, Nth, Raw, Whole};

fn blob(content: &str) -> Piece {
    Whole(3, content.len(), content.into())
}

fn oid(content: &str) -> Oid {
    let mut hash = Hasher::object(Format::Sha1, "blob", content.len() as u64);
    hash.update(content.as_bytes());
    hash.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn head(kind: u8, size: usize) -> Vec<u8> {
    let mut out = vec![kind << 4 | (size & 15) as u8];
    if size > 15 {
        out[0] |= 0x80;
        out.extend(varint(size as u64 >> 4));
    }
    out
}

/// A delta of a base of `from` bytes that makes `to` bytes by `ops`.
fn delta(from: u64, to: u64, ops: &[u8]) -> Vec<u8> {
    [varint(from), varint(to), ops.to_vec()].concat()
}

/// A delta that puts `more` after the whole of `base`.
fn longer(base: &str, more: &str) -> Vec<u8> {
    let mut ops = vec![0x90, base.len() as u8, more.len() as u8];
    ops.extend(more.as_bytes());
    delta(base.len() as u64, (base.len() + more.len()) as u64, &ops)
}

fn pack(count: usize, pieces: &[Piece]) -> Vec<u8> {
    let mut out = b"PACK\0\0\0\x02".to_vec();
    out.extend((count as u32).to_be_bytes());
    let mut offsets = Vec::new();
    let offset_delta = |back: u64, delta: &[u8]| {
        let mut bytes = vec![back as u8 & 0x7f];
        let mut rest = back;
        while rest > 0x7f {
            rest = (rest >> 7) - 1;
            bytes.insert(0, rest as u8 | 0x80);
        }
        [head(6, delta.len()), bytes, zlib(delta)].concat()
    };
    for (at, piece) in pieces.iter().enumerate() {
        offsets.push(out.len() as u64);
        out.extend(match piece {
            Whole(kind, size, content) => [head(*kind, *size), zlib(content)].concat(),
            Back(back, delta) => offset_delta(*back, delta),
            Nth(back, delta) => offset_delta(offsets[at] - offsets[at - back], delta),
            Named(oid, delta) => {
                [head(7, delta.len()), oid.as_bytes().to_vec(), zlib(delta)].concat()
            }
            Raw(bytes) => bytes.clone(),
        });
    }
    let mut hash = Hasher::new(Format::Sha1);
    hash.update(&out);
    out.extend(hash.finish().unwrap().as_bytes());
    out
}

/// Gives the contents, in order, or what is wrong with it.
fn read(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let cancel = Cancel::new().unwrap();
    let file = dir.path().join("pack");
    let mut source = bytes;
    let pack = match receive(
        &mut source,
        "https://h/a",
        &file,
        Format::Sha1,
        &cancel,
        &|_| (),
    ) {
        Ok(pack) => pack,
        Err(error) => return format!("!{error}"),
    };
    assert_eq!(pack.len(), pack.objects().count());
    let mut out: Vec<String> = pack
        .objects()
        .map(|(name, kind)| {
            let content = String::from_utf8(pack.read(&name, kind, 1 << 20).unwrap()).unwrap();
            let mut streamed = String::new();
            let mut stream = pack.open(&name).unwrap();
            stream.read_to_string(&mut streamed).unwrap();
            assert_eq!(oid(&content), name);
            assert_eq!(
                (&streamed, pack.size(&name).unwrap()),
                (&content, content.len() as u64)
            );
            content
        })
        .collect();
    out.sort();
    out.join(" ")
}

#[test]
fn packs_are_read() {
    let long = "0123456789abcdef".repeat(0x1000);
    let table = [
        (vec![], ""),
        (vec![blob("a"), blob(""), blob("b")], " a b"),
        (vec![blob("a"), blob("a")], "a"),
        (
            vec![
                blob("a"),
                Nth(1, longer("a", "b")),
                Nth(1, longer("ab", "c")),
            ],
            "a ab abc",
        ),
        (
            vec![
                blob("a"),
                Nth(1, longer("a", "b")),
                Nth(2, longer("a", "c")),
            ],
            "a ab ac",
        ),
        // A base may come later where it is named, and be a delta itself.
        (
            vec![
                Named(oid("ab"), longer("ab", "c")),
                Named(oid("a"), longer("a", "b")),
                blob("a"),
            ],
            "a ab abc",
        ),
        // What it is a delta of is made of it, too.
        (
            vec![
                Named(oid("ab"), delta(2, 1, &[0x90, 1])),
                Named(oid("a"), longer("a", "b")),
                blob("a"),
            ],
            "a ab",
        ),
        (
            vec![
                blob("abc"),
                Named(oid("ab"), delta(2, 1, &[0x90, 1])),
                Named(oid("a"), longer("a", "b")),
                Nth(3, delta(3, 2, &[0x90, 2])),
            ],
            "a ab abc",
        ),
        (
            vec![blob("abc"), Nth(1, delta(3, 2, &[0x91, 2, 1, 0x91, 0, 1]))],
            "abc ca",
        ),
        (vec![blob("abc"), Nth(1, delta(3, 0, &[]))], " abc"),
        // A length of nothing is 64 KiB.
        (
            vec![
                blob(&long),
                Nth(1, delta(0x10000, 0x10001, &[0x80, 1, b'x'])),
            ],
            "&",
        ),
    ];
    for (pieces, want) in table {
        let got = read(&pack(pieces.len(), &pieces));
        let got = match want {
            "&" => {
                assert_eq!(got, format!("{long} {long}x"));
                continue;
            }
            _ => got,
        };
        assert_eq!(got, want);
    }
}

#[test]
fn packs_that_are_none_are_refused() {
    let whole = |kind, size, content: &[u8]| vec![Whole(kind, size, content.to_vec())];
    let of_abc = |delta: Vec<u8>| vec![blob("abc"), Nth(1, delta)];
    let back = |back| vec![blob("abc"), Back(back, longer("abc", "d"))];
    let mut chain = vec![blob("a")];
    chain.extend((0..9000).map(|_| Nth(1, delta(1, 1, &[1, b'a']))));
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let table: Vec<(Vec<Piece>, &str)> = vec![
        (whole(0, 1, b"a"), "it has an object of type 0"),
        (whole(5, 1, b"a"), "it has an object of type 5"),
        (whole(3, 2, b"a"), "an object is shorter than it says"),
        (whole(3, 1, b"ab"), "an object is longer than it says"),
        (
            whole(3, 0, &[0; 1 << 20]),
            "an object is longer than it says",
        ),
        (
            vec![Raw(vec![0x31, b'a', b'b', b'c', b'd'])],
            "an object cannot be decompressed",
        ),
        (
            vec![Raw([&[0xb1][..], &huge].concat())],
            "an object is too large",
        ),
        (
            vec![Raw([&[0x61][..], &huge].concat())],
            "a delta's base is too far away",
        ),
        (back(0), "a delta's base is not before it"),
        (back(1), "a delta has no base"),
        (back(1000), "a delta's base is not before it"),
        (
            vec![Named(oid("z"), longer("z", "d"))],
            "1 deltas have no base",
        ),
        (
            vec![
                Named(oid("y"), longer("y", "d")),
                Named(oid("yd"), longer("yd", "e")),
            ],
            "2 deltas have no base",
        ),
        (vec![Back(12, longer("z", "d"))], "a delta has no base"),
        (of_abc(longer("ab", "c")), "a delta is of another base"),
        (of_abc(vec![]), "a delta ends in the middle"),
        (of_abc(vec![3, 0x80]), "a delta ends in the middle"),
        (
            of_abc(delta(3, 2, &[0x93, 0])),
            "a delta ends in the middle",
        ),
        (
            of_abc(delta(3, 2, &[2, b'a'])),
            "a delta ends in the middle",
        ),
        (of_abc(delta(3, 2, &[0])), "a delta ends in the middle"),
        (
            of_abc(delta(3, 4, &[0x90, 4])),
            "a delta copies what is not there",
        ),
        (
            of_abc(delta(3, 4, &[0x9f, 255, 255, 255, 255, 1])),
            "a delta copies what is not there",
        ),
        (
            of_abc(delta(3, 2, &[0x90, 3])),
            "a delta makes more than it says",
        ),
        (
            of_abc(delta(3, 4, &[0x90, 3])),
            "a delta makes less than it says",
        ),
        (
            of_abc(delta(3, 1 << 40, &[])),
            "a delta makes too large an object",
        ),
        (
            of_abc([&[3][..], &huge].concat()),
            "a delta has a number out of bounds",
        ),
        (chain, "a chain of deltas is too long"),
    ];
    for (pieces, want) in table {
        let got = read(&pack(pieces.len(), &pieces));
        assert_eq!(got, format!("!the pack that was sent: {want}"));
    }

    let good = pack(1, &[blob("abc")]);
    let cut = "!https://h/a: the connection ended too early";
    for end in 0..good.len() {
        assert_eq!(read(&good[..end]), cut, "{end}");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let got = read(&bad);
        assert!(got.starts_with('!'), "{at}: {got}");
    }
    // More than there is, and more than any memory holds.
    for count in [2, u32::MAX as usize] {
        let got = read(&pack(count, &[blob("abc")]));
        assert!(got.starts_with('!'), "{got}");
    }
}

#[test]
fn gitmodules_of_any_size_are_bounded() {
    let mut text = String::new();
    for number in 0..20_000 {
        writeln!(
            text,
            "[submodule \"{number}\"]\npath = {number}\nurl = ../x"
        )
        .unwrap();
    }
    let said = submodules(text.as_bytes()).unwrap_err();
    assert_eq!(said, "there are more than 10000 submodules");
}
