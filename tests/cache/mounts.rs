//! Caches of commands that travel: restored where there are none, saved where they changed.

use super::fake::Fake;
use super::forward::forward;
use super::objects::build_with;
use super::s3::{BUCKET, S3};
use super::trouble::warnings;
use super::{Made, Project, build, registry, try_build};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where caches are saved.
enum Place {
    Registry(registry::Registry),
    Layout(tempfile::TempDir),
    Objects(S3),
}

impl Place {
    /// Does something with one of each kind.
    fn each(check: impl Fn(&Place) + Sync) {
        let kinds: [fn() -> Place; 3] = [
            || Place::Registry(registry::start()),
            || Place::Layout(tempfile::tempdir().expect("a directory")),
            || Place::Objects(S3::start()),
        ];
        std::thread::scope(|scope| {
            for kind in kinds {
                let check = &check;
                scope.spawn(move || check(&kind()));
            }
        });
    }

    fn flags(&self) -> Vec<String> {
        let name = match self {
            Place::Registry(registry) => format!("{}/cache", registry.host),
            Place::Layout(dir) => format!("oci:{}", dir.path().join("kept").display()),
            Place::Objects(_) => format!("s3://{BUCKET}/cache"),
        };
        let words = ["--insecure", "--cache-mounts", "--cache-repo", &name];
        words.map(str::to_owned).to_vec()
    }

    /// The endpoint of a server of objects.
    fn endpoint(&self) -> String {
        match self {
            Place::Objects(server) => format!("http://127.0.0.1:{}", server.port),
            Place::Registry(_) | Place::Layout(_) => String::new(),
        }
    }

    fn build(&self, project: &Project, store: &str, more: &[&str]) -> Made {
        let flags = self.flags();
        let args: Vec<&str> = flags.iter().map(String::as_str).collect();
        let endpoint = self.endpoint();
        let env = match self {
            Place::Objects(_) => &S3::env(&endpoint)[..],
            Place::Registry(_) | Place::Layout(_) => &[],
        };
        build_with(project, store, &[&args[..], more].concat(), env)
    }

    /// Gives the files that its blobs are.
    fn blobs(&self) -> Vec<PathBuf> {
        match self {
            Place::Registry(registry) => {
                let hexes = registry.hexes();
                hexes.iter().map(|hex| registry.blob_path(hex)).collect()
            }
            Place::Layout(dir) => {
                let all = std::fs::read_dir(dir.path().join("kept/blobs/sha256")).expect("blobs");
                all.map(|entry| entry.expect("an entry").path()).collect()
            }
            Place::Objects(server) => {
                let objects = server.objects().into_iter();
                let blobs = objects.filter(|name| name.starts_with("cache/"));
                blobs.map(|name| server.path(&name)).collect()
            }
        }
    }

    /// Gives how many bytes it keeps.
    fn size(&self) -> u64 {
        let blobs = self.blobs();
        let sizes = blobs
            .iter()
            .map(|path| path.metadata().expect("a blob").len());
        sizes.sum()
    }
}

/// A step that has a cache; another text is another step.
fn project(script: &str) -> Project {
    let project = Project::new();
    set(&project, "type=cache,target=/c", script);
    project
}

fn set(project: &Project, mount: &str, script: &str) {
    let text = format!("FROM base\nRUN --mount={mount} {script}\n");
    project.file("Dockerfile", text);
}

fn infos(made: &Made) -> String {
    let lines = made
        .said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let lines = lines.filter(|line| line["level"] == "info");
    let texts: Vec<String> = lines
        .filter_map(|line| Some(line["msg"].as_str()?.to_owned()))
        .filter(|text| text.contains("cache"))
        .collect();
    texts.join("\n")
}

const FILL: &str = "mkdir -p /c/d; for i in 1 2 3 4 5 6 7 8 9 10; do head -c 1000000 /dev/urandom > /c/d/$i; \
                    done; ln /c/d/1 /c/one; ln -s d/2 /c/two; chmod 2751 /c/d; touch -d '2001-02-03 04:05:06' /c/d/3";

#[test]
fn a_fresh_node_has_what_another_one_saved() {
    Place::each(|place| {
        // Whether or not steps are looked up too.
        for also in [&["--cache"][..], &[]] {
            check_fresh_node(place, also);
        }
    });
}

fn check_fresh_node(place: &Place, also: &[&str]) {
    let project = Project::new();
    // One of its own, so that what is there of another one does not count.
    let id = format!("type=cache,target=/c,id=c{}", also.len());
    set(&project, &id, FILL);
    let first = place.build(&project, "first", also);
    assert_eq!(warnings(&first.said), Vec::<String>::new());
    assert!(
        infos(&first).contains("saved the cache /c"),
        "{}",
        first.said
    );
    let saved = place.size();
    assert!(saved > 10_000_000, "{saved}");
    let tests = "test $(ls /c/d | wc -l) = 10 -a $(stat -c %a /c/d) = 2751 -a /c/d/1 -ef /c/one \
                 -a $(readlink /c/two) = d/2 -a $(stat -c %Y /c/d/3) = $(date -d '2001-02-03 04:05:06' +%s)";
    set(&project, &id, tests);
    let second = place.build(&project, "second", also);
    let said = infos(&second);
    assert!(said.contains("restored the cache /c"), "{said}");
    // Nothing changed, so nothing is saved.
    assert!(!said.contains("saved"), "{said}");
    let more = place.size() - saved;
    assert!(more < 20_000, "{more}");
    // One tenth changed.
    let script = "head -c 1000000 /dev/urandom > /c/d/5; touch /c/d/*; mv /c/d/6 /c/d/six";
    set(&project, &id, script);
    let before = place.size();
    let third = place.build(&project, "second", also);
    let more = place.size() - before;
    assert!(
        (1_000_000..1_020_000).contains(&more),
        "{more}: {}",
        third.said
    );
    // By its id it is known elsewhere, and with another beginning or id it is another one.
    let own = format!("type=cache,target=/else,id=c{}", also.len());
    for (mount, files) in [
        (&own, 10),
        (&format!("{own}-other"), 0),
        (&format!("{own},mode=0700"), 0),
    ] {
        let script = format!("ls /else; test $(ls /else/d 2> /dev/null | wc -l) = {files}");
        set(&project, mount, &script);
        let _ = std::fs::remove_dir_all(project.path("fresh"));
        let fresh = place.build(&project, "fresh", also);
        assert_eq!(infos(&fresh).contains("restored"), files > 0, "{mount}");
    }
}

#[test]
fn what_is_not_wanted_is_neither_saved_nor_restored() {
    let project = project("echo x > /c/x");
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let to = ["--insecure", "--cache-repo", &repo];
    // Flags, whether the cache is saved, and whether a fresh node has it then.
    for (flags, saves, restores) in [
        (&["--cache"][..], false, false),
        (&["--cache-mounts", "--no-push-cache"], false, false),
        (&["--cache-mounts"], true, true),
        (&["--cache-mounts", "--cache-ttl=0s"], true, false),
        (&["--cache-mounts", "--single-snapshot"], true, true),
    ] {
        let args = [&to[..], flags].concat();
        for store in ["a", "b"] {
            let _ = std::fs::remove_dir_all(project.path(store));
        }
        let first = build(&project, "a", &args);
        assert_eq!(
            infos(&first).contains("saved the cache"),
            saves,
            "{flags:?}"
        );
        let second = build(&project, "b", &args);
        assert_eq!(infos(&second).contains("restored"), restores, "{flags:?}");
    }
    // A build that fails saves nothing.
    set(
        &project,
        "type=cache,target=/c,id=failed",
        "echo x > /c/x; false",
    );
    let args = [&to[..], &["--cache-mounts"]].concat();
    let (output, _) = try_build(&project, "a", &args);
    assert!(!output.status.success());
    set(&project, "type=cache,target=/c,id=failed", "! ls /c/x");
    build(&project, "c", &args);
}

#[test]
fn without_a_place_it_is_said() {
    let project = project("true");
    let made = build(&project, "store", &["--cache-mounts"]);
    let said = warnings(&made.said).join("\n");
    assert!(said.contains("--cache-mounts is without effect"), "{said}");
}

type Damage = fn(&[u8]) -> Vec<u8>;

const DAMAGES: [(&str, Damage); 4] = [
    ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
    ("empty", |_| Vec::new()),
    ("flipped", |bytes| {
        bytes.iter().map(|byte| byte ^ 1).collect()
    }),
    ("longer", |bytes| [bytes, b"more"].concat()),
];

#[test]
fn what_cannot_be_restored_begins_empty() {
    Place::each(|place| {
        for (what, damage) in DAMAGES {
            check_damaged(place, what, damage);
        }
    });
}

fn check_damaged(place: &Place, what: &str, damage: Damage) {
    let mount = format!("type=cache,target=/c,mode=0751,id={what}");
    let project = Project::new();
    let fill = "head -c 2000000 /dev/urandom > /c/x; echo y > /c/y";
    set(&project, &mount, fill);
    place.build(&project, "first", &[]);
    // The packs alone, which come last.
    for path in place.blobs() {
        let bytes = std::fs::read(&path).expect("a blob");
        if bytes.len() > 1_000_000 {
            std::fs::write(&path, damage(&bytes)).expect("damage");
        }
    }
    let test = "test $(ls -A /c | wc -l) = 0 -a $(stat -c %a /c) = 751; echo z > /c/z";
    set(&project, &mount, test);
    let second = place.build(&project, "second", &[]);
    let said = warnings(&second.said);
    assert_eq!(said.len(), 1, "{what}: {said:?}");
    assert!(
        said[0].contains("the cache /c could not be restored"),
        "{said:?}"
    );
    // What was saved instead is right.
    set(&project, &mount, "test $(cat /c/z) = z");
    let third = place.build(&project, "third", &[]);
    assert_eq!(warnings(&third.said), Vec::<String>::new());
}

#[test]
fn a_place_that_is_gone_costs_a_warning() {
    let project = project("echo x > /c/x");
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    drop(registry);
    let args = ["--insecure", "--cache-mounts", "--cache-repo", &repo];
    let made = build(&project, "store", &args);
    let said = warnings(&made.said);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("goes on without the cache"), "{said:?}");
}

/// A place may drop what it likes: what it has lost is sent again.
#[test]
fn a_pack_that_a_place_has_lost_is_sent_again() {
    Place::each(|place| {
        let project = project("head -c 2000000 /dev/urandom > /c/x");
        place.build(&project, "store", &[]);
        for path in place.blobs() {
            if path.metadata().expect("a blob").len() > 1_000_000 {
                std::fs::remove_file(path).expect("remove");
            }
        }
        let mount = "type=cache,target=/c";
        set(&project, mount, "echo y > /c/y");
        let made = place.build(&project, "store", &[]);
        assert_eq!(warnings(&made.said), Vec::<String>::new());
        set(&project, mount, "test $(cat /c/y) = y -a -s /c/x");
        let made = place.build(&project, "fresh", &[]);
        assert_eq!(warnings(&made.said), Vec::<String>::new());
    });
}

/// Builds at once, with stores of their own and with one: whatever is saved last is whole.
#[test]
fn many_save_at_once() {
    Place::each(check_many);
}

fn check_many(place: &Place) {
    let project = project("");
    let endpoint = place.endpoint();
    for sharing in ["shared", "private", "locked"] {
        let mount = format!("type=cache,target=/c,id={sharing},sharing={sharing}");
        let script = "mkdir -p /c/mine; for i in 1 2 3 4; do head -c 100000 /dev/urandom > /c/mine/$i; done; \
                      cat /c/mine/* | md5sum > /c/sum";
        set(&project, &mount, script);
        let children: Vec<_> = (0..6)
            .map(|number| {
                let mut command: Command = project.command();
                command
                    .args(["--no-push", "--log-format", "json"])
                    .args(place.flags());
                if let Place::Objects(_) = place {
                    command.envs(S3::env(&endpoint));
                }
                // Half of them in one store.
                let store = match number % 2 {
                    0 => "one".to_owned(),
                    _ => format!("{sharing}{number}"),
                };
                command.arg("--cache-dir").arg(project.path(&store));
                command.stderr(Stdio::piped()).stdout(Stdio::null());
                command.spawn().expect("run shutter")
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().expect("wait");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            assert_eq!(warnings(&said), Vec::<String>::new(), "{said}");
        }
        // Builds that share a cache write over each other's files; what was saved is one moment of it.
        let test = match sharing {
            "shared" => "test $(ls /c/mine | wc -l) = 4",
            _ => "cat /c/mine/* | md5sum | cmp - /c/sum",
        };
        set(&project, &mount, test);
        let made = place.build(&project, &format!("fresh-{sharing}"), &[]);
        assert!(infos(&made).contains("restored the cache"), "{}", made.said);
    }
}

/// What is written to while it is saved is saved by who writes to it.
#[test]
fn a_cache_that_somebody_writes_to_is_left_alone() {
    let project = project("for i in $(seq 500); do echo $i > /c/$i; done");
    let registry = registry::start();
    let host = registry.host.clone();
    let store = project.path("store/caches");
    // Between the two looks at the cache the place is asked what it has of it.
    let proxy = Fake::start(move |asked| {
        let caches = std::fs::read_dir(&store).into_iter().flatten();
        for cache in caches.map(|cache| cache.expect("a cache").path()) {
            if asked.path().contains("/manifests/mount-") {
                std::fs::write(cache.join("0/files/1"), "written meanwhile").expect("write");
            }
        }
        forward(&host, asked)
    });
    let repo = format!("{}/cache", proxy.host);
    let args = ["--insecure", "--cache-mounts", "--cache-repo", &repo];
    let none = format!("oci:{}", project.path("none").display());
    let first = ["--cache-mounts", "--no-push-cache", "--cache-repo", &none];
    build(&project, "store", &first);
    let made = build(&project, "store", &args);
    assert_eq!(warnings(&made.said), Vec::<String>::new());
    let said = infos(&made);
    assert!(
        said.contains("the cache /c is left to another build to save"),
        "{said}"
    );
    assert_eq!(registry.hexes(), Vec::<String>::new());
}
