use super::*;
use crate::oci::Descriptor;
use std::io::{Cursor, Read, Write};

struct One(Vec<u8>);

impl Blobs for One {
    fn open(&self, _: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.0.clone())))
    }
}

fn load(blob: Vec<u8>, tar: &[u8], growth: Growth) -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("store")).expect("a store");
    let cancel = Cancel::new().expect("a switch");
    let stop = Stop {
        cancel: &cancel,
        failed: AtomicBool::new(false),
    };
    let layer = BaseLayer {
        descriptor: Descriptor {
            media_type: String::new(),
            digest: Digest::of(&blob),
            size: blob.len() as u64,
            urls: Vec::new(),
            annotations: Default::default(),
        },
        diff_id: Digest::of(tar),
        chain_id: Digest::of(tar),
    };
    let shared = Shared {
        blobs: &One(blob),
        store: &store,
        sink: &Sink::none(),
        owner: Owner::Build,
        growth,
        kept: Kept::Meaning,
        stop: &stop,
    };
    shared.all(&[layer]).map(|_| ())
}

#[test]
fn a_bomb_is_refused_before_it_is_on_disk() {
    let growth = Growth {
        free: 4 << 20,
        times: 100,
    };
    let zeroes = vec![0; 32 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeroes).unwrap();
    for blob in [
        gzip.finish().unwrap(),
        zstd::encode_all(&zeroes[..], 1).unwrap(),
    ] {
        let error = load(blob.clone(), &zeroes, growth).unwrap_err();
        assert!(matches!(error, Error::Hostile { .. }), "{error:?}");
        assert!(error.to_string().contains("100 times"), "{error}");
        // The bound is what refuses it.
        load(blob, &zeroes, Growth::USUAL).unwrap();
    }
}

#[test]
fn damaged_compression_is_the_layers_fault() {
    let tar = vec![0; 1 << 20];
    for blob in [
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xff\xff\xff\xff\xff".to_vec(),
        b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x1f\x8b\x08".to_vec(),
        zstd::encode_all(&tar[..], 1).unwrap()[..20].to_vec(),
    ] {
        let error = load(blob, &tar, Growth::USUAL).unwrap_err();
        assert!(matches!(error, Error::Hostile { .. }), "{error:?}");
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}

#[test]
fn a_gzip_of_several_members_is_one_tar() {
    let tar = vec![0; 3000];
    let mut blob = Vec::new();
    for part in tar.chunks(1000) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(part).unwrap();
        blob.extend(gzip.finish().unwrap());
    }
    load(blob, &tar, Growth::USUAL).unwrap();
}

#[test]
fn a_lost_connection_is_no_fault_of_the_layer() {
    struct Cut;
    impl Blobs for Cut {
        fn open(&self, _: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
            struct Fails;
            impl Read for Fails {
                fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                    Err(io::ErrorKind::ConnectionReset.into())
                }
            }
            Ok(Box::new(Cursor::new(vec![0; 600 << 10]).chain(Fails)))
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("store")).expect("a store");
    let cancel = Cancel::new().expect("a switch");
    let layer = |n: u8| BaseLayer {
        descriptor: Descriptor {
            media_type: String::new(),
            digest: Digest([n; 32]),
            size: 1 << 20,
            urls: Vec::new(),
            annotations: Default::default(),
        },
        diff_id: Digest([n; 32]),
        chain_id: Digest([n; 32]),
    };
    let layers = [layer(1), layer(2), layer(3)];
    let got = unpack_all(&layers, &Cut, &store, &Sink::none(), Owner::Build, &cancel);
    let Err(Error::Base { source, .. }) = got.map(|_| ()) else {
        panic!("no layer is named");
    };
    match *source {
        Error::Read(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_layer_that_failed_is_named_not_one_given_up_for_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("store")).expect("a store");
    let cancel = Cancel::new().expect("a switch");
    let stop = Stop {
        cancel: &cancel,
        // Another layer has failed already.
        failed: AtomicBool::new(true),
    };
    let tar = vec![0; 1 << 20];
    let layer = BaseLayer {
        descriptor: Descriptor {
            media_type: String::new(),
            digest: Digest::of(&tar),
            size: tar.len() as u64,
            urls: Vec::new(),
            annotations: Default::default(),
        },
        diff_id: Digest::of(&tar),
        chain_id: Digest::of(&tar),
    };
    let shared = Shared {
        blobs: &One(tar),
        store: &store,
        sink: &Sink::none(),
        owner: Owner::Build,
        growth: Growth::USUAL,
        kept: Kept::Meaning,
        stop: &stop,
    };
    match shared.all(&[layer]).map(|_| ()) {
        Err(Error::Cancelled) => {}
        other => panic!("{other:?}"),
    }
}
