use super::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

/// Size, and where a block of data stands.
const CASES: &[(u64, &[u64])] = &[
    (0, &[]),
    (5, &[0]),
    (1 << 20, &[]),
    (1 << 20, &[0]),
    (1 << 20, &[1 << 19]),
    (1 << 20, &[(1 << 20) - 10]),
    ((1 << 20) + 7, &[0, 1 << 16, (1 << 16) + 4096, 1 << 18]),
    (1 << 34, &[0, 1 << 33]),
];

fn make(size: u64, data: &[u64]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    for at in data {
        file.seek(SeekFrom::Start(*at)).expect("seek");
        file.write_all(&vec![b'x'; 4096.min((size - at) as usize)])
            .expect("write");
    }
    file.set_len(size).expect("a size");
    file.rewind().expect("rewind");
    file
}

#[test]
fn holes_read_as_zeroes() {
    for (size, data) in CASES.iter().filter(|(size, _)| *size < 1 << 30) {
        let mut plain = Vec::new();
        make(*size, data).read_to_end(&mut plain).expect("read");
        let mut read = Vec::new();
        let mut holes = Holes::new(make(*size, data)).expect("open");
        assert_eq!(holes.size(), *size);
        holes.read_to_end(&mut read).expect("read");
        assert!(read == plain, "{size} {data:?}");
    }
}

#[test]
fn holes_are_copied_as_such() {
    for (size, data) in CASES {
        let mut to = tempfile::tempfile().expect("a file");
        let mut holes = Holes::new(make(*size, data)).expect("open");
        let mut passed = 0;
        loop {
            match holes.copy_on(&mut to, 1000).expect("copy") {
                0 => break,
                more => passed += more,
            }
        }
        assert_eq!(passed, *size);
        to.set_len(*size).expect("a size");
        assert!(to.metadata().expect("stat").blocks() <= 64 * (1 + data.len() as u64));
        for at in data.iter().chain(&[0, 5, 1 << 17]) {
            let read = |file: &mut File| {
                let mut piece = vec![0; 8192];
                file.seek(SeekFrom::Start(*at)).expect("seek");
                let got = file.read(&mut piece).expect("read");
                piece.truncate(got);
                piece
            };
            assert_eq!(read(&mut to), read(&mut make(*size, data)), "{size} {at}");
        }
    }
}

#[test]
fn a_file_that_shrinks_ends_early() {
    let file = make(1 << 20, &[0, 1 << 19]);
    let same = file.try_clone().expect("clone");
    let mut holes = Holes::new(file).expect("open");
    same.set_len(100).expect("a size");
    let mut to = tempfile::tempfile().expect("a file");
    let ended = loop {
        match holes.copy_on(&mut to, 1 << 20) {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    assert!(ended.is_err());
    let file = make(1 << 20, &[0, 1 << 19]);
    let same = file.try_clone().expect("clone");
    let mut holes = Holes::new(file).expect("open");
    same.set_len(2 << 20).expect("a size");
    let mut read = Vec::new();
    holes.read_to_end(&mut read).expect("read");
    assert_eq!(read.len(), 2 << 20);
}
