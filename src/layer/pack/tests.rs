use super::permits::{Account, Permits};
use super::tar::{self, Unfit};
use crate::fs::{Kind, Meta, RelPath, Time};

fn path(text: &str) -> RelPath {
    RelPath::clean(text.as_bytes()).unwrap()
}

fn header(path: &RelPath, meta: &Meta, link: Option<&RelPath>) -> Vec<u8> {
    let mut out = Vec::new();
    tar::header(&mut out, path, meta, link, meta.mtime.secs).unwrap();
    assert_eq!(out.len() % 512, 0);
    out
}

/// The records before the last block, as text.
fn records(bytes: &[u8]) -> String {
    if bytes.len() == 512 {
        return String::new();
    }
    assert_eq!(bytes[156], b'x');
    let size = std::str::from_utf8(&bytes[124..135]).unwrap();
    let size = usize::from_str_radix(size, 8).unwrap();
    String::from_utf8(bytes[512..512 + size].to_vec()).unwrap()
}

#[test]
fn a_plain_file_is_one_ustar_block() {
    let meta = Meta {
        uid: 1000,
        gid: 50,
        ..Meta::file(
            0o4755,
            11,
            Time {
                secs: 1_000_000_000,
                nanos: 5,
            },
        )
    };
    let block = header(&path("usr/bin/a"), &meta, None);
    assert_eq!(block.len(), 512);
    let table: &[(usize, &[u8])] = &[
        (0, b"usr/bin/a\0"),
        (100, b"0004755\0"),
        (108, b"0001750\0"),
        (116, b"0000062\0"),
        (124, b"00000000013\0"),
        (136, b"07346545000\0"),
        (156, b"0\0"),
        (257, b"ustar\x0000\0"),
        (329, b"0000000\x000000000\0"),
    ];
    for (at, wanted) in table {
        assert_eq!(&block[*at..*at + wanted.len()], *wanted, "at {at}");
    }
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| u64::from(if (148..156).contains(&at) { b' ' } else { byte }))
        .sum();
    assert_eq!(&block[148..156], format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn what_does_not_fit_is_a_record() {
    let epoch = Time::default();
    let file = Meta::file(0o644, 1, epoch);
    let long = "d/".repeat(60) + "f";
    let link = Meta {
        kind: Kind::Symlink,
        target: "é".into(),
        ..Meta::dir(0o777, epoch)
    };
    let xattrs = vec![
        (b"user.z".to_vec(), b"line\nbreak".to_vec()),
        (b"user.a".to_vec(), b"".to_vec()),
    ];
    let table: Vec<(&str, Meta, String)> = vec![
        ("f", file.clone(), String::new()),
        (&long, file.clone(), format!("131 path={long}\n")),
        ("ä", file.clone(), "11 path=ä\n".into()),
        ("l", link, "15 linkpath=é\n".into()),
        (
            "big",
            Meta {
                size: 8 << 30,
                ..file.clone()
            },
            "19 size=8589934592\n".into(),
        ),
        (
            "edge",
            Meta {
                size: (8 << 30) - 1,
                ..file.clone()
            },
            String::new(),
        ),
        (
            "ids",
            Meta {
                uid: 1 << 21,
                gid: u32::MAX,
                ..file.clone()
            },
            "18 gid=4294967295\n15 uid=2097152\n".into(),
        ),
        (
            "old",
            Meta {
                mtime: Time { secs: -5, nanos: 7 },
                ..file.clone()
            },
            "12 mtime=-5\n".into(),
        ),
        (
            "x",
            Meta {
                xattrs,
                ..file.clone()
            },
            "24 SCHILY.xattr.user.a=\n34 SCHILY.xattr.user.z=line\nbreak\n".into(),
        ),
        ("dir", Meta::dir(0o755, epoch), String::new()),
        (
            &long,
            Meta::dir(0o755, epoch),
            format!("132 path={long}/\n"),
        ),
    ];
    for (name, meta, wanted) in table {
        assert_eq!(records(&header(&path(name), &meta, None)), wanted, "{name}");
    }
}

#[test]
fn the_length_of_a_record_counts_itself() {
    for length in 1..=1200 {
        let meta = Meta {
            xattrs: vec![(b"user.v".to_vec(), vec![b'v'; length])],
            ..Meta::file(0o644, 0, Time::default())
        };
        let text = records(&header(&path("f"), &meta, None));
        let said: usize = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(said, text.len());
    }
}

#[test]
fn what_no_tar_holds_is_refused() {
    let mut out = Vec::new();
    let odd = Meta {
        xattrs: vec![(b"user.a=b".to_vec(), b"1".to_vec())],
        ..Meta::file(0o644, 0, Time::default())
    };
    assert_eq!(
        tar::header(&mut out, &path("f"), &odd, None, 0),
        Err(Unfit::Xattr(b"user.a=b".to_vec()))
    );
    let device = Meta {
        kind: Kind::Char,
        device: (1, 1 << 21),
        ..Meta::dir(0o600, Time::default())
    };
    assert_eq!(
        tar::header(&mut out, &path("f"), &device, None, 0),
        Err(Unfit::Device(1, 1 << 21))
    );
    assert!(out.is_empty());
}

#[test]
fn every_layer_may_hold_two_chunks_whatever_the_others_hold() {
    let permits = Permits::new(3);
    let accounts: Vec<Account> = (0..4).map(|_| Account::new(&permits, 1 << 20)).collect();
    let held: Vec<_> = accounts
        .iter()
        .flat_map(|account| [account.chunk(), account.chunk()])
        .collect();
    assert!(accounts[0].spare().is_none());
    assert_eq!(permits.most_used(), 8);
    std::thread::scope(|scope| {
        let third = scope.spawn(|| drop(accounts[0].chunk()));
        drop(held);
        third.join().unwrap();
    });
    assert!(accounts[0].spare().is_some());
}
