use super::*;
use crate::cache::{File, Named};
use crate::changeset::content_hash;
use crate::oci::Reference;
use crate::progress::{Owner, Sink, Span, Work};
use crate::sys::Cancel;
use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

/// A place in memory that counts what it is sent.
#[derive(Default)]
struct Memory {
    named: Mutex<HashMap<String, Named>>,
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    sent: Mutex<u64>,
}

impl Place for Memory {
    fn name(&self) -> String {
        "memory".into()
    }

    fn find(&self, kind: Kind, key: &Key) -> Result<Option<Named>, crate::cache::Error> {
        Ok(self.named.lock().unwrap().get(&kind.name(key)).cloned())
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, crate::cache::Error> {
        let bytes = self.blobs.lock().unwrap().get(&blob.digest).cloned();
        Ok(Box::new(io::Cursor::new(bytes.unwrap_or_default())))
    }

    fn put(
        &self,
        keys: &[Key],
        named: &Named,
        file: File<'_>,
        _: Option<&Reference>,
        _: &Span,
    ) -> Result<(), crate::cache::Error> {
        for blob in &named.blobs {
            let mut blobs = self.blobs.lock().unwrap();
            blobs.entry(blob.digest).or_insert_with(|| {
                let bytes = std::fs::read(file(blob).unwrap()).unwrap();
                *self.sent.lock().unwrap() += bytes.len() as u64;
                bytes
            });
        }
        for key in keys {
            let name = named.kind.name(key);
            self.named.lock().unwrap().insert(name, named.clone());
        }
        Ok(())
    }
}

impl Memory {
    /// Saves a directory; gives how many bytes were sent.
    fn save(&self, dir: &Path) -> u64 {
        let cancel = Cancel::new().unwrap();
        let key = key("id", b"empty", "linux/amd64");
        let before = Saved::find(self, &key).unwrap();
        let index = before
            .as_ref()
            .map(|saved| saved.fetch_index(&|blob| self.open(blob)).unwrap());
        let look = look(dir, &|source| content_hash(source), &cancel).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let before = before.as_ref().zip(index.as_ref());
        let packed = pack(&look, before, scratch.path(), 7, &cancel).unwrap();
        look.is_unchanged().unwrap();
        let span = Sink::none().span(Owner::Build, Work::Push, "cache", None);
        let sent = *self.sent.lock().unwrap();
        let file = |blob: &Descriptor| Ok(packed.files[&blob.digest].clone());
        self.put(&[key], &packed.saved.named(), &file, None, &span)
            .unwrap();
        *self.sent.lock().unwrap() - sent
    }

    fn restore(&self, dir: &Path) -> Result<Restored, Error> {
        let key = key("id", b"empty", "linux/amd64");
        let saved = Saved::find(self, &key).unwrap().unwrap();
        restore(
            &|blob| self.open(blob),
            &saved,
            dir,
            &Cancel::new().unwrap(),
        )
    }
}

fn shell(dir: &Path, script: &str) {
    let mut command = Command::new("sh");
    command.arg("-ec").arg(script).current_dir(dir);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// Says everything of a directory that is to be kept.
fn told(dir: &Path) -> String {
    let script = "find . -printf '%P %y %m %U %G %T@ %n %l ' \\( -type f -printf '%s ' -exec sha256sum {} \\; \
                  -o -printf '\\n' \\) | sort; getfattr -Rdhm - . 2>/dev/null; getcap -r . ";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

const FILES: &str = "
    mkdir -p a/b 'with space'; chmod 2750 a; chown 7:8 a/b
    echo one > a/one; ln a/one a/b/again; cp a/one copy; : > empty
    chmod 4711 copy; chown 5:6 empty
    ln -s /nowhere/at/all link; ln -s a dir; mkfifo fifo
    head -c 3000000 /dev/urandom > large; chmod 0 large
    echo x > 'with space/x y'; setfattr -n user.colour -v red 'with space/x y'
    touch -d '2001-02-03 04:05:06.123456789' copy a; touch -h -d '2002-03-04 05:06:07.5' link
    cp /bin/true able; setcap cap_net_raw=ep able
    touch -d '2003-03-04 05:06:07.987654321' .; chmod 1777 .
";

#[test]
fn what_was_saved_is_restored() {
    let memory = Memory::default();
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    shell(here.path(), FILES);
    memory.save(here.path());
    let restored = memory.restore(there.path()).unwrap();
    assert_eq!(restored.lost, Vec::<String>::new());
    let wanted = told(here.path());
    assert!(wanted.contains("987654321"), "{wanted}");
    assert_eq!(told(there.path()), wanted);
    let again = [there.path().join("a/one"), there.path().join("a/b/again")];
    let [one, again] = again.map(|path| path.metadata().unwrap());
    assert_eq!(one.ino(), again.ino());
    assert_eq!(
        there.path().metadata().unwrap().permissions().mode() & 0o7777,
        0o1777
    );
    // What has just been restored is what the place has.
    assert_eq!(memory.save(there.path()), 0);
}

#[test]
fn what_a_place_has_is_not_sent_again() {
    let memory = Memory::default();
    let here = tempfile::tempdir().unwrap();
    let dir = here.path();
    let megabytes = 12;
    shell(
        dir,
        &format!("for i in $(seq {megabytes}); do head -c 1000000 /dev/urandom > f$i; done"),
    );
    let all = memory.save(dir);
    assert!(all > megabytes * 1_000_000, "{all}");
    // Scripts, and the most that may be sent for them, tables aside.
    for (script, most) in [
        ("true", 0),
        ("touch f*", 0),
        (
            "for f in f1*; do mv $f renamed-$f; done; cp f2 f2.copy; ln f3 f3.link",
            0,
        ),
        ("rm f4 f5", 0),
        ("head -c 1000000 /dev/urandom > new", 1_000_000),
        ("echo end >> f6", 1_000_003),
    ] {
        shell(dir, script);
        let sent = memory.save(dir);
        assert!(sent <= most + 20_000, "{script}: {sent} bytes");
        let there = tempfile::tempdir().unwrap();
        memory.restore(there.path()).unwrap();
        assert_eq!(told(there.path()), told(dir), "{script}");
    }
    // Little is left of most packs: those go.
    shell(dir, "ls | tail -n +4 | xargs rm");
    memory.save(dir);
    let there = tempfile::tempdir().unwrap();
    let restored = memory.restore(there.path()).unwrap();
    assert!(restored.bytes < 6_000_000, "{}", restored.bytes);
    assert_eq!(told(there.path()), told(dir));
}

#[test]
fn small_packs_become_one() {
    let memory = Memory::default();
    let here = tempfile::tempdir().unwrap();
    let mut most = 0;
    for number in 0..60 {
        std::fs::write(here.path().join(number.to_string()), [number; 1000]).unwrap();
        memory.save(here.path());
        let key = key("id", b"empty", "linux/amd64");
        let saved = Saved::find(&memory, &key).unwrap().unwrap();
        most = most.max(saved.packs.len());
    }
    assert!((10..=18).contains(&most), "{most}");
    let there = tempfile::tempdir().unwrap();
    memory.restore(there.path()).unwrap();
    assert_eq!(told(there.path()), told(here.path()));
}

#[test]
fn what_is_damaged_is_not_restored() {
    let here = tempfile::tempdir().unwrap();
    shell(here.path(), FILES);
    let memory = Memory::default();
    memory.save(here.path());
    let whole = memory.blobs.lock().unwrap().clone();
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [(&str, Damage); 5] = [
        ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("cut by one", |bytes| bytes[..bytes.len() - 1].to_vec()),
        ("gone", |_| Vec::new()),
        ("flipped", |bytes| {
            bytes.iter().map(|byte| byte ^ 1).collect()
        }),
        ("longer", |bytes| [bytes, b"more"].concat()),
    ];
    for (what, damage) in damages {
        for (digest, bytes) in &whole {
            let mut blobs = whole.clone();
            blobs.insert(*digest, damage(bytes));
            *memory.blobs.lock().unwrap() = blobs;
            let there = tempfile::tempdir().unwrap();
            let result = memory.restore(there.path());
            assert!(result.is_err(), "{what}: {digest}");
        }
    }
    // Packs that are whole, but not those of the index.
    let key = key("id", b"empty", "linux/amd64");
    *memory.blobs.lock().unwrap() = whole;
    let mut saved = Saved::find(&memory, &key).unwrap().unwrap();
    saved.packs.reverse();
    saved.packs.push(saved.toc.clone());
    let there = tempfile::tempdir().unwrap();
    let cancel = Cancel::new().unwrap();
    assert!(restore(&|blob| memory.open(blob), &saved, there.path(), &cancel).is_err());
}

#[test]
fn what_changes_meanwhile_is_not_saved() {
    let here = tempfile::tempdir().unwrap();
    let cancel = Cancel::new().unwrap();
    for script in [
        "echo other > file",
        "rm file",
        "echo new > new",
        "chmod 700 file",
        "mkdir dir",
        "mv file other",
    ] {
        let dir = here.path().join(script.replace(' ', "-"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("file"), "content\n").unwrap();
        let look = look(&dir, &|source| content_hash(source), &cancel).unwrap();
        look.is_unchanged().unwrap();
        shell(&dir, script);
        assert!(
            matches!(look.is_unchanged(), Err(Error::Changed(_))),
            "{script}"
        );
    }
}

#[test]
fn an_index_is_read_as_it_was_written() {
    let index = Index {
        packs: vec![
            vec![([1; 32], 5), ([2; 32], 0)],
            Vec::new(),
            vec![([3; 32], u64::MAX)],
        ],
    };
    let bytes = index.to_bytes();
    assert_eq!(Index::parse(&bytes), Some(index));
    for length in 0..bytes.len() {
        assert_eq!(Index::parse(&bytes[..length]), None, "{length}");
    }
    assert_eq!(Index::parse(&[&bytes[..], b"x"].concat()), None);
}
