//! Packs, trees, attributes and submodules as a stranger may send them.

use super::checkout::{builtin_rules, converted, with_rules};
use super::pack::entries;
use super::*;
use crate::fs::RelPath;
use flate2::write::ZlibEncoder;
use gix_filter::Pipeline;
use gix_object::tree::EntryKind;
use std::fmt::Write as _;
use std::io::Write as _;

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
    gix_object::compute_hash(Format::Sha1, Kind::Blob, content.as_bytes()).unwrap()
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
                [head(7, delta.len()), oid.as_slice().to_vec(), zlib(delta)].concat()
            }
            Raw(bytes) => bytes.clone(),
        });
    }
    let mut hash = gix_hash::hasher(Format::Sha1);
    hash.update(&out);
    out.extend(hash.try_finalize().unwrap().as_slice());
    out
}

/// Gives the contents, in order; nothing where it is refused.
fn read(bytes: &[u8]) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let cancel = Cancel::new().unwrap();
    let mut source = bytes;
    let pack = Pack::receive(&mut source, dir.path(), Format::Sha1, &cancel).ok()?;
    let mut out: Vec<String> = pack
        .objects()
        .map(|name| {
            let content = pack.read(&name, pack.kind(&name)?, 1 << 20).ok()?;
            let content = String::from_utf8(content).unwrap();
            assert_eq!(oid(&content), name);
            assert_eq!(pack.size(&name).unwrap(), content.len() as u64);
            Some(content)
        })
        .collect::<Option<_>>()?;
    out.sort();
    out.dedup();
    Some(out.join(" "))
}

#[test]
fn packs_are_read() {
    let long = "0123456789abcdef".repeat(0x1000);
    let table = [
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
        let got = got.expect(want);
        match want {
            "&" => assert_eq!(got, format!("{long} {long}x")),
            want => assert_eq!(got, want),
        }
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
        (vec![], "it is empty"),
        // Named for its base, which is named for it; that each is there whole, too, is no use.
        (
            vec![
                Named(oid("ab"), delta(2, 1, &[0x90, 1])),
                Named(oid("a"), longer("a", "b")),
                blob("a"),
            ],
            "an object is made of itself",
        ),
    ];
    for (pieces, want) in table {
        let got = read(&pack(pieces.len(), &pieces));
        assert!(got.is_none(), "{want}");
    }

    let good = pack(1, &[blob("abc")]);
    for end in 0..good.len() {
        assert_eq!(read(&good[..end]), None, "{end}");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let got = read(&bad);
        assert_eq!(got, None, "{at}");
    }
    // More than there is, and more than any memory holds.
    for count in [2, u32::MAX as usize] {
        let got = read(&pack(count, &[blob("abc")]));
        assert_eq!(got, None, "{count}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let oid = oid("x");
    let one = |mode: &str, name: &[u8]| {
        let mut bytes = [mode.as_bytes(), b" ", name, b"\0"].concat();
        bytes.extend_from_slice(&[7; 20]);
        entries(&oid, &bytes).map(|entries| entries[0].mode.kind())
    };
    for name in [
        &b"a"[..],
        b".gitignore",
        b".git2",
        b"git~2",
        b"..a",
        b"\xff",
        b"a b",
        b"a:b",
        b"con",
    ] {
        let kind = one("100644", name).unwrap();
        assert_eq!(kind, EntryKind::Blob, "{}", name.escape_ascii());
    }
    for name in [
        &b""[..],
        b".",
        b"..",
        b"a/b",
        b".git",
        b".GIT",
        b".git ",
        b".git...",
        b".gIt::x",
        b"git~1",
        b".g\xe2\x80\x8cit",
    ] {
        assert!(one("100644", name).is_err(), "{}", name.escape_ascii());
    }
    assert!(one("120000", b".gitmodules").is_err());
    for (mode, want) in [
        ("100664", EntryKind::Blob),
        ("100755", EntryKind::BlobExecutable),
        ("120000", EntryKind::Link),
        ("40000", EntryKind::Tree),
        ("160000", EntryKind::Commit),
    ] {
        assert_eq!(one(mode, b"a").unwrap(), want);
    }
    for mode in ["", "x", "10000", "99999999999"] {
        assert!(one(mode, b"a").is_err(), "{mode}");
    }
}

/// Writes a content by the attributes of the root and of `sub`.
fn written(root: &str, sub: &str, path: &str, content: &[u8]) -> (Vec<u8>, Option<String>) {
    let mut all = Default::default();
    let path = RelPath::clean(path.as_bytes()).unwrap();
    let dir = RelPath::root().join(b"sub");
    let mut rules = builtin_rules(&mut all).unwrap();
    rules = with_rules(&rules, &RelPath::root(), root.as_bytes(), &mut all).unwrap();
    if path.is_within(&dir) {
        rules = with_rules(&rules, &dir, sub.as_bytes(), &mut all).unwrap();
    }
    let mut pipeline = Pipeline::new(Default::default(), Format::Sha1, Default::default());
    let oid = gix_object::compute_hash(Format::Sha1, Kind::Blob, content).unwrap();
    let got = converted(content, &path, &oid, &rules, &all, &mut pipeline);
    let (content, note) = got.unwrap();
    (content.into_owned(), note)
}

#[test]
fn attributes_say_how_a_file_is_written() {
    let root = "\
# a comment
*.bat text eol=crlf
*.auto text=auto eol=crlf
*.crlf crlf eol=crlf
*.bin binary eol=crlf
*.raw eol=crlf -text
*.lone eol=crlf
*.id ident
*.u16 working-tree-encoding=UTF-16
*.u8 working-tree-encoding=UTF-8
/top.txt text eol=crlf
sub/only.txt text eol=crlf
deep/**/x text eol=crlf
dir/ text eol=crlf
!not text eol=crlf
\"a b\\101.q\" text eol=crlf
[attr]dos text eol=crlf
*.dos dos
*.twice text eol=crlf
*.twice !eol
*.lf text eol=lf
*.filter filter=lfs -text
";
    let sub = "*.bat -text\n[attr]none text\n/here text eol=crlf\n";
    // Whether LF becomes CR LF in text, and in what is none.
    let table = [
        ("a.bat", (true, true)),
        ("x/a.bat", (true, true)),
        ("sub/a.bat", (false, false)),
        ("sub/x/a.bat", (false, false)),
        ("a.auto", (true, false)),
        ("a.crlf", (true, true)),
        ("a.bin", (false, false)),
        ("a.raw", (false, false)),
        ("a.lone", (true, true)),
        ("top.txt", (true, true)),
        ("x/top.txt", (false, false)),
        ("sub/only.txt", (true, true)),
        ("x/sub/only.txt", (false, false)),
        ("deep/x", (true, true)),
        ("deep/a/b/x", (true, true)),
        ("dir/x", (false, false)),
        ("not", (false, false)),
        ("!not", (false, false)),
        ("a bA.q", (true, true)),
        ("a.dos", (true, true)),
        ("a.twice", (false, false)),
        ("a.lf", (false, false)),
        ("a.filter", (false, false)),
        ("sub/here", (true, true)),
        ("sub/x/here", (false, false)),
    ];
    for (name, want) in table {
        let has = |content: &[u8]| written(root, sub, name, content).0.contains(&b'\r');
        assert_eq!((has(b"a\n"), has(b"a\0\n")), want, "{name}");
    }
    assert_eq!(written(root, sub, "a.u8", b"\xff").0, b"\xff");
    assert_eq!(written(root, sub, "a.c", b"$Id$\n").0, b"$Id$\n");
    let circle = "[attr]a b\n[attr]b a text\nx a eol=crlf\n";
    assert_eq!(written(circle, "", "x", b"\n").0, b"\r\n");
}

#[test]
fn contents_are_written_as_git_does() {
    let root = "*.crlf text eol=crlf\n*.auto text=auto eol=crlf\n*.id ident\n*.16 working-tree-encoding=UTF-16\n*.16le working-tree-encoding=utf-16le\n*.16be working-tree-encoding=UTF-16BE\n*.16bom working-tree-encoding=UTF-16BE-BOM\n*.latin working-tree-encoding=latin1\n*.odd text eol=crlf working-tree-encoding=EBCDIC\n";
    let table: [(&[u8], &[u8], &[u8]); 8] = [
        (b"a\nb\n", b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r\nb\n", b"a\r\nb\r\n", b"a\r\nb\n"),
        (b"a\rb\n", b"a\rb\r\n", b"a\rb\n"),
        (b"a\0\n", b"a\0\r\n", b"a\0\n"),
        (b"a\r\n", b"a\r\n", b"a\r\n"),
        (b"none", b"none", b"none"),
        (b"", b"", b""),
        (b"\n\n", b"\r\n\r\n", b"\r\n\r\n"),
    ];
    for (content, always, if_text) in table {
        for (name, want) in [("a.crlf", always), ("a.auto", if_text), ("a", content)] {
            let got = written(root, "", name, content).0;
            assert_eq!(got, want, "{} {name}", content.escape_ascii());
        }
    }
    let table = [
        ("a $Id$ b", "a {} b"),
        ("$Id: 0123 $", "{}"),
        ("$Id:$", "{}"),
        ("$Id$$Id$", "{}{}"),
        ("$Id: a b c $", "$Id: a b c $"),
        ("$Id: x\n$", "$Id: x\n$"),
        ("$Id: open", "$Id: open"),
        ("$Identity$", "$Identity$"),
        ("$I$", "$I$"),
    ];
    for (content, want) in table {
        let want = want.replace("{}", &format!("$Id: {} $", oid(content)));
        let got = written(root, "", "a.id", content.as_bytes()).0;
        assert_eq!(String::from_utf8_lossy(&got), want, "{content}");
    }
    let table: [(&str, &[u8]); 4] = [
        ("a.16", b"\xff\xfeh\0\xe4\0=\xd8\0\xde"),
        ("a.16le", b"h\0\xe4\0=\xd8\0\xde"),
        ("a.16be", b"\0h\0\xe4\xd8=\xde\0"),
        ("a.16bom", b"\xfe\xff\0h\0\xe4\xd8=\xde\0"),
    ];
    for (name, want) in table {
        let got = written(root, "", name, "h\u{e4}\u{1f600}".as_bytes());
        assert_eq!(got, (want.to_vec(), None), "{name}");
    }
    assert_eq!(written(root, "", "a.latin", "\u{e4}".as_bytes()).0, b"\xe4");
    let notes: [(&str, &[u8], &[u8], &str); 3] = [
        ("a.odd", b"x\n", b"x\r\n", "EBCDIC"),
        ("a.16", b"\xff", b"\xff", "UTF-16"),
        ("a.latin", b"\xff", b"\xff", "latin1"),
    ];
    for (name, content, want, encoding) in notes {
        let (got, note) = written(root, "", name, content);
        assert_eq!(got, want, "{name}");
        let want = format!(
            "/{name}: its working-tree-encoding {encoding} cannot be written; it stays UTF-8"
        );
        assert_eq!(note, Some(want));
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
