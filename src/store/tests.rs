use super::*;
use std::io::Write;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn names(dir: &Path) -> Vec<String> {
    let mut out: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    out.sort();
    out
}

fn descriptor(store: &Store, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/x".into(),
        digest: store.put(bytes).unwrap(),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
    }
}

#[test]
fn a_blob_is_there_whole_or_not_at_all() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello");
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"hel").unwrap();
    assert_eq!(store.blob(&digest, 5).unwrap(), None);
    ingest.write_all(b"lo").unwrap();
    assert_eq!(ingest.commit(Some(&digest)).unwrap(), (digest, 5));
    let path = store.blob(&digest, 5).unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"hello");

    let mut again = store.ingest().unwrap();
    again.write_all(b"hello").unwrap();
    assert_eq!(again.commit(None).unwrap(), (digest, 5));

    drop(store.ingest().unwrap());
    assert!(names(&store.session.own).is_empty());
}

#[test]
fn the_three_ways_in_agree() {
    let (_dir, store) = store();
    let bytes = vec![7; 300_000];
    let digest = store.put(&bytes).unwrap();
    let mut unhashed = store.ingest_unhashed().unwrap();
    unhashed.append(&bytes).unwrap();
    assert_eq!(unhashed.commit(None).unwrap(), (digest, 300_000));
    let mut told = store.ingest_unhashed().unwrap();
    told.append(&bytes).unwrap();
    assert_eq!(told.commit_as(&digest).unwrap(), 300_000);
}

#[test]
fn wrong_bytes_are_refused_by_name() {
    let (_dir, store) = store();
    let wanted = Digest::of(b"right");
    let mut ingest = store.ingest().unwrap();
    ingest.append(b"wrong").unwrap();
    let error = ingest.commit(Some(&wanted)).unwrap_err();
    let got = Digest::of(b"wrong");
    assert_eq!(
        error.to_string(),
        format!("blob {wanted} has digest {got} and 5 bytes")
    );
    assert_eq!(store.blob(&wanted, 5).unwrap(), None);
    assert_eq!(store.blob(&got, 5).unwrap(), None);
    assert!(names(&store.session.own).is_empty());
}

#[test]
fn a_blob_of_another_size_is_dropped_and_can_be_taken_in_again() {
    let (_dir, store) = store();
    let digest = store.put(b"content").unwrap();
    let path = blob_path(store.dir(), &digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"con").unwrap();
    assert_eq!(store.blob(&digest, 7).unwrap(), None);
    assert!(!path.exists());
    fs::write(&path, b"con").unwrap();
    store.put(b"content").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"content");
}

#[test]
fn a_layer_is_made_once() {
    let (_dir, store) = store();
    let (chain, cancel) = (Digest::of(b"chain"), Cancel::new().unwrap());
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| match store.layer(&chain, &cancel).unwrap() {
                LayerSlot::Ready(dir) => assert_eq!(fs::read(dir.join("f")).unwrap(), b"x"),
                LayerSlot::Vacant(slot) => {
                    made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    fs::write(slot.dir.join("f"), b"x").unwrap();
                    slot.commit().unwrap();
                }
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
}

#[test]
fn a_layer_given_up_is_vacant_again() {
    let (_dir, store) = store();
    let (chain, cancel) = (Digest::of(b"chain"), Cancel::new().unwrap());
    let LayerSlot::Vacant(slot) = store.layer(&chain, &cancel).unwrap() else {
        panic!("there before it was made");
    };
    fs::write(slot.dir.join("half"), b"x").unwrap();
    let dir = slot.dir.clone();
    drop(slot);
    assert!(!dir.exists());
    let LayerSlot::Vacant(slot) = store.layer(&chain, &cancel).unwrap() else {
        panic!("half a layer is in place");
    };
    assert!(names(&slot.dir).is_empty());
}

#[test]
fn who_waits_for_a_layer_hears_of_the_end() {
    let (_dir, store) = store();
    let (chain, cancel) = (Digest::of(b"chain"), Cancel::new().unwrap());
    let _held = store.layer(&chain, &cancel).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.layer(&chain, &cancel).map(|_| ()));
        cancel.cancel();
        let waited = waiting.join().unwrap();
        assert!(matches!(waited, Err(Error::Cancelled)), "{waited:?}");
    });
}

#[test]
fn notes_name_blobs_that_are_there() {
    let (_dir, store) = store();
    let diff_id = Digest::of(b"tar");
    assert_eq!(store.blobs_of(&diff_id).unwrap(), []);
    let mut blobs = vec![descriptor(&store, b"one"), descriptor(&store, b"two")];
    for blob in &blobs {
        store.note_blob(&diff_id, blob).unwrap();
        store.note_blob(&diff_id, blob).unwrap();
    }
    blobs.sort_by_key(|blob| blob.digest);
    assert_eq!(store.blobs_of(&diff_id).unwrap(), blobs);
    fs::remove_file(blob_path(store.dir(), &blobs[0].digest)).unwrap();
    let note = store
        .dir()
        .join("refs")
        .join(diff_id.hex())
        .join("a".repeat(64));
    fs::write(note, b"{").unwrap();
    assert_eq!(store.blobs_of(&diff_id).unwrap(), blobs[1..]);
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let table: &[(&str, &str, &str)] = &[
        (
            "photo.jpg",
            "x",
            "it has no version file and is not empty: there is `photo.jpg`",
        ),
        (
            "version",
            "other 9\n",
            "its version file says `other 9`, `shutter store 1` is wanted",
        ),
    ];
    for (name, content, why) in table {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), content).unwrap();
        let error = Store::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(names(dir.path()), [*name]);
    }
}

#[test]
fn opening_clears_what_nobody_holds_and_keeps_what_somebody_does() {
    let (_dir, store) = store();
    let scratch = store.scratch().unwrap();
    fs::write(scratch.dir.join("busy"), b"x").unwrap();
    let mut ingest = store.ingest().unwrap();
    ingest.append(b"slow").unwrap();
    fs::create_dir_all(store.dir().join("run/dead/upper/a/b")).unwrap();
    fs::write(store.dir().join("run/dead/upper/a/b/c"), b"x").unwrap();
    fs::create_dir(store.dir().join("tmp/dead")).unwrap();
    fs::write(store.dir().join("tmp/stray"), b"x").unwrap();

    drop(Store::open(store.dir()).unwrap());
    assert_eq!(names(&store.dir().join("run")).len(), 1);
    assert_eq!(names(&store.dir().join("tmp")).len(), 1);
    assert!(scratch.dir.join("busy").exists());
    ingest.commit(Some(&Digest::of(b"slow"))).unwrap();
    scratch.remove().unwrap();
    let dir = store.dir().to_owned();
    drop(store);
    assert!(names(&dir.join("run")).is_empty());
    assert!(names(&dir.join("tmp")).is_empty());
}

#[test]
fn many_may_open_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/store");
    std::thread::scope(|scope| {
        for n in 0..8_u8 {
            let path = &path;
            scope.spawn(move || {
                let store = Store::open(path).unwrap();
                let scratch = store.scratch().unwrap();
                store.put(&[n]).unwrap();
                assert!(scratch.dir.is_dir());
            });
        }
    });
    assert_eq!(names(&path.join("blobs/sha256")).len(), 8);
    assert!(names(&path.join("tmp")).is_empty());
}

#[test]
fn removal_stays_inside_and_reaches_any_depth() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("keep"), b"x").unwrap();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
    fs::create_dir(top.join("closed")).unwrap();
    fs::write(top.join("closed/file"), b"x").unwrap();
    fs::set_permissions(
        top.join("closed"),
        std::os::unix::fs::PermissionsExt::from_mode(0o000),
    )
    .unwrap();
    // Deeper than PATH_MAX and than any stack of frames or descriptors.
    let mut at: std::os::fd::OwnedFd = fs::File::open(&top).unwrap().into();
    for _ in 0..1100 {
        mkdirat(&at, "deeper", Mode::RWXU).unwrap();
        mkdirat(&at, "e", Mode::RWXU).unwrap();
        at = openat(
            &at,
            "deeper",
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap();
    }
    drop(at);
    remove_tree(&top).unwrap();
    assert!(!top.exists());
    assert!(outside.join("keep").exists());
    remove_tree(&top).unwrap();
}

/// Fills a cache with its ordinal number.
fn counting(made: &std::sync::atomic::AtomicUsize) -> impl Fn(&Path) -> Filled + '_ {
    |dir| {
        let n = made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(fs::write(dir.join("n"), n.to_string())?)
    }
}

type Filled = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[test]
fn a_cache_is_kept_and_shared_as_asked() {
    use CacheSharing::{Locked, Private, Shared};
    // What is held when another one comes, what that one wants, and the number of the copy it gets.
    let table: &[(&[CacheSharing], CacheSharing, &str)] = &[
        (&[], Shared, "0"),
        (&[], Private, "0"),
        (&[], Locked, "0"),
        (&[Shared], Shared, "0"),
        (&[Shared], Private, "1"),
        (&[Private], Private, "1"),
        (&[Private, Private], Private, "2"),
        (&[Locked], Shared, "1"),
        (&[Private, Shared], Shared, "1"),
    ];
    for (held, wanted, expected) in table {
        let (_dir, store) = store();
        let (key, cancel) = (CacheKey::new("id", b""), Cancel::new().unwrap());
        let made = std::sync::atomic::AtomicUsize::new(0);
        let fill = counting(&made);
        let take = |sharing| {
            let cache = store.cache(&key, sharing, &fill, &|| panic!("waits"), &cancel);
            cache.unwrap()
        };
        let holders: Vec<Cache> = held.iter().map(|sharing| take(*sharing)).collect();
        let got = take(*wanted);
        let number = fs::read_to_string(got.dir.join("n")).unwrap();
        assert_eq!(number, *expected, "{held:?}, {wanted:?}");
        fs::write(got.dir.join("kept"), b"x").unwrap();
        drop((holders, got));
        let copies = made.load(std::sync::atomic::Ordering::SeqCst);
        // Another opening of the store, as another build has it, finds them all.
        let other = Store::open(store.dir()).unwrap();
        let again: Vec<Cache> = (0..copies)
            .map(|_| other.cache(&key, Private, &fill, &|| (), &cancel).unwrap())
            .collect();
        assert_eq!(made.load(std::sync::atomic::Ordering::SeqCst), copies);
        assert!(again.iter().any(|cache| cache.dir.join("kept").exists()));
    }
}

#[test]
fn keys_tell_ids_and_beginnings_apart() {
    let table: &[(&str, &[u8])] = &[("a", b""), ("a", b"b"), ("ab", b""), ("", b"ab")];
    for (at, one) in table.iter().enumerate() {
        for other in &table[at + 1..] {
            let (one, other) = (CacheKey::new(one.0, one.1), CacheKey::new(other.0, other.1));
            assert_ne!(one, other);
        }
    }
}

#[test]
fn a_locked_cache_is_waited_for() {
    let (_dir, store) = store();
    let (key, cancel) = (CacheKey::new("id", b""), Cancel::new().unwrap());
    let (said, heard) = std::sync::mpsc::channel();
    let held = store
        .cache(&key, CacheSharing::Shared, &|_| Ok(()), &|| (), &cancel)
        .unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let waits = || said.send(()).unwrap();
            store.cache(&key, CacheSharing::Locked, &|_| Ok(()), &waits, &cancel)
        });
        heard.recv().unwrap();
        let dir = held.dir.clone();
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap().dir, dir);
    });
}

#[test]
fn who_waits_for_a_cache_hears_of_the_end() {
    let (_dir, store) = store();
    let (key, cancel) = (CacheKey::new("id", b""), Cancel::new().unwrap());
    let take =
        |waits: &dyn Fn()| store.cache(&key, CacheSharing::Locked, &|_| Ok(()), waits, &cancel);
    let _held = take(&|| ()).unwrap();
    let waited = take(&|| cancel.cancel());
    assert!(matches!(waited, Err(Error::Cancelled)), "{waited:?}");
}

#[test]
fn a_cache_is_filled_whole_or_not_at_all() {
    let (_dir, store) = store();
    let (key, cancel) = (CacheKey::new("id", b""), Cancel::new().unwrap());
    let half = |dir: &Path| -> Filled {
        fs::write(dir.join("half"), b"x")?;
        Err("no more".into())
    };
    let take = |fill: Fill<'_>| store.cache(&key, CacheSharing::Shared, fill, &|| (), &cancel);
    let error = take(&half).unwrap_err();
    assert_eq!(error.to_string(), "fill the new cache id");
    assert!(names(&store.session.own).is_empty());
    let cache = take(&|dir| Ok(fs::write(dir.join("all"), b"x")?)).unwrap();
    assert_eq!(names(&cache.dir), ["all"]);
}

#[test]
fn a_cache_is_made_once_however_many_come() {
    let (_dir, store) = store();
    let (key, cancel) = (CacheKey::new("id", b""), Cancel::new().unwrap());
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let fill = counting(&made);
                store
                    .cache(&key, CacheSharing::Shared, &fill, &|| (), &cancel)
                    .unwrap()
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
}

/// Takes everything away that may go; gives how many things went and how many stayed.
fn take_all(store: &Store) -> (usize, usize) {
    let limits = Limits {
        size: Some(0),
        age: None,
    };
    let cancel = Cancel::new().unwrap();
    let done = store.collect(&limits, Doing::Take, &cancel).unwrap();
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    assert_eq!(verify(store.dir(), &cancel).unwrap(), []);
    (done.taken.len(), done.used.len())
}

#[test]
fn what_somebody_looked_up_stays_until_the_store_is_closed() {
    let (_dir, store) = store();
    let (chain, cancel) = (Digest::of(b"chain"), Cancel::new().unwrap());
    let blobs: Vec<Descriptor> = [&b"one"[..], b"two"]
        .map(|bytes| descriptor(&store, bytes))
        .to_vec();
    for blob in &blobs {
        store.note_blob(&chain, blob).unwrap();
    }
    store.put_toc(&chain, &Toc::new(Vec::new())).unwrap();
    store.put_name("a/b:c", &chain).unwrap();
    let LayerSlot::Vacant(slot) = store.layer(&chain, &cancel).unwrap() else {
        panic!("there before it was made");
    };
    slot.commit().unwrap();
    let (path, everything) = (store.dir().to_owned(), 5);
    // Its own opening has made all of it.
    let other = Store::open(&path).unwrap();
    assert_eq!(take_all(&other), (0, everything));
    drop((store, other));
    let user = Store::open(&path).unwrap();
    assert!(user.blob(&blobs[0].digest, 3).unwrap().is_some());
    assert!(user.toc(&chain).unwrap().is_some());
    assert!(matches!(
        user.layer(&chain, &cancel).unwrap(),
        LayerSlot::Ready(_)
    ));
    // Who takes away began later, and again later.
    let taker = Store::open(&path).unwrap();
    assert_eq!(take_all(&taker), (2, 3));
    assert_eq!(user.blobs_of(&chain).unwrap(), blobs[..1]);
    drop(user);
    // The last look noted nothing anew: what was noted is older than this opening.
    let last = Store::open(&path).unwrap();
    assert_eq!(take_all(&last), (3, 0));
    assert!(names(&path.join(REFS)).is_empty());
    assert_eq!(names(&path.join(LOCKS)), ["gate"]);
}

#[test]
fn clocks_that_differ_change_nothing() {
    let (_dir, store) = store();
    let (path, blob) = (store.dir().to_owned(), descriptor(&store, b"one"));
    drop(store);
    // Another machine was a day ahead; by its clock the blob is of yesterday, or of tomorrow.
    let day = std::time::Duration::from_secs(86_400);
    let now = std::time::SystemTime::now();
    let set = |place: &Path, time| fs::File::open(place).unwrap().set_modified(time).unwrap();
    for (gate, noted) in [
        (now + day, now),
        (now + day, now - day),
        (now - day, now + 2 * day),
    ] {
        set(&path.join(gate::GATE), gate);
        set(&blob_path(&path, &blob.digest), noted);
        let user = Store::open(&path).unwrap();
        assert!(user.blob(&blob.digest, 3).unwrap().is_some());
        // Made anew by somebody whose clock is right.
        let maker = Store::open(&path).unwrap();
        maker.ingest().unwrap().commit(None).unwrap();
        let mut again = maker.ingest().unwrap();
        again.append(b"one").unwrap();
        again.commit(None).unwrap();
        drop(maker);
        let taker = Store::open(&path).unwrap();
        take_all(&taker);
        assert!(blob_path(&path, &blob.digest).exists());
    }
}

#[test]
fn who_waits_for_a_lock_that_is_taken_away_waits_for_the_next() {
    let (_dir, store) = store();
    let (chain, cancel) = (Digest::of(b"chain"), Cancel::new().unwrap());
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let LayerSlot::Vacant(slot) = store.layer(&chain, &cancel).unwrap() else {
                        panic!("nobody commits");
                    };
                    let number = made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    assert_eq!(number, 0, "two have the same lock");
                    made.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    drop(slot);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..50 {
                // As a collection does with a lock that nobody has.
                let path = store.dir().join(LOCKS).join(chain.hex());
                if let Some(_lock) = abandoned(&path) {
                    let _ = fs::remove_file(&path);
                }
            }
        });
    });
}

#[test]
fn what_is_read_beside_is_neither_written_nor_taken_away() {
    let (_dir, other) = store();
    let (chain, cancel) = (Digest::of(b"chain"), Cancel::new().unwrap());
    let blob = descriptor(&other, b"one");
    let unread = descriptor(&other, b"three");
    other.note_blob(&chain, &blob).unwrap();
    let LayerSlot::Vacant(slot) = other.layer(&chain, &cancel).unwrap() else {
        panic!("there before it was made");
    };
    let layer = slot.commit().unwrap();
    let path = other.dir().to_owned();
    drop(other);
    let (_own, mut store) = store();
    store.look_beside(&path).unwrap();
    assert_eq!(store.blob(&blob.digest, 4).unwrap(), None);
    assert_eq!(
        store.blob(&blob.digest, 3).unwrap(),
        Some(blob_path(&path, &blob.digest))
    );
    assert_eq!(store.blobs_of(&chain).unwrap(), std::slice::from_ref(&blob));
    let LayerSlot::Ready(found) = store.layer(&chain, &cancel).unwrap() else {
        panic!("it is there beside");
    };
    assert_eq!(found, layer);
    assert!(store.take_layers(&[layer]).unwrap().is_none());
    let taker = Store::open(&path).unwrap();
    assert_eq!(take_all(&taker), (1, 2));
    assert!(!blob_path(&path, &unread.digest).exists());
    // One that is damaged is not taken for what it should be, and not removed.
    let place = blob_path(&path, &blob.digest);
    fs::remove_file(&place).unwrap();
    fs::write(&place, b"two").unwrap();
    assert_eq!(store.check_blob(&blob.digest, 3, &cancel).unwrap(), None);
    assert_eq!(store.blob(&blob.digest, 3).unwrap(), None);
    assert!(place.exists());
    drop((store, taker));
    let missing = Store::open(&path).unwrap().look_beside(&path.join("none"));
    assert!(matches!(missing, Err(Error::Foreign { .. })), "{missing:?}");
}
