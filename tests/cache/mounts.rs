//! Caches of commands that travel: restored where there are none, saved where they changed.

use super::trouble::warnings;
use super::{Made, Project, build, registry, try_build};
use std::process::{Command, Stdio};

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

/// Gives how many bytes a registry keeps.
fn size(registry: &registry::Registry) -> u64 {
    let paths = registry.hexes();
    let paths = paths.iter().map(|hex| registry.blob_path(hex));
    paths
        .map(|path| path.metadata().map_or(0, |meta| meta.len()))
        .sum()
}

const FILL: &str = "mkdir -p /c/d; for i in 1 2 3 4 5 6 7 8 9 10; do head -c 1000000 /dev/urandom > /c/d/$i; \
                    done; ln /c/d/1 /c/one; ln -s d/2 /c/two; chmod 2751 /c/d; touch -d '2001-02-03 04:05:06' /c/d/3";

#[test]
fn a_fresh_node_has_what_another_one_saved() {
    let project = project(FILL);
    // Whether or not steps are looked up too.
    for also in [&["--cache"][..], &[]] {
        let registry = registry::start();
        let repo = format!("{}/cache", registry.host);
        let flags = ["--insecure", "--cache-mounts", "--cache-repo", &repo];
        let args = [&flags[..], also].concat();
        let store = format!("first{}", also.len());
        let first = build(&project, &store, &args);
        assert_eq!(warnings(&first.said), Vec::<String>::new());
        assert!(
            infos(&first).contains("saved the cache /c"),
            "{}",
            first.said
        );
        let saved = size(&registry);
        assert!(saved > 10_000_000, "{saved}");
        let tests = "test $(ls /c/d | wc -l) = 10 -a $(stat -c %a /c/d) = 2751 -a /c/d/1 -ef /c/one \
                     -a $(readlink /c/two) = d/2 -a $(stat -c %Y /c/d/3) = $(date -d '2001-02-03 04:05:06' +%s)";
        set(&project, "type=cache,target=/c", tests);
        let store = format!("second{}", also.len());
        let second = build(&project, &store, &args);
        let said = infos(&second);
        assert!(said.contains("restored the cache /c"), "{said}");
        // Nothing changed, so nothing is saved.
        assert!(!said.contains("saved"), "{said}");
        let more = size(&registry) - saved;
        assert!(more < 20_000, "{more}");
        // One tenth changed.
        let script = "head -c 1000000 /dev/urandom > /c/d/5; touch /c/d/*; mv /c/d/6 /c/d/six";
        set(&project, "type=cache,target=/c", script);
        let before = size(&registry);
        let third = build(&project, &store, &args);
        let more = size(&registry) - before;
        assert!(
            (1_000_000..1_020_000).contains(&more),
            "{more}: {}",
            third.said
        );
        // By its id it is known elsewhere, and with another beginning or id it is another one.
        for (mount, files) in [
            ("type=cache,target=/else,id=/c", 10),
            ("type=cache,target=/else,id=other", 0),
            ("type=cache,target=/else,id=/c,mode=0700", 0),
        ] {
            let script = format!("ls /else; test $(ls /else/d 2> /dev/null | wc -l) = {files}");
            set(&project, mount, &script);
            let _ = std::fs::remove_dir_all(project.path("fresh"));
            let fresh = build(&project, "fresh", &args);
            assert_eq!(infos(&fresh).contains("restored"), files > 0, "{mount}");
        }
        set(&project, "type=cache,target=/c", FILL);
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

#[test]
fn what_cannot_be_restored_begins_empty() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [(&str, Damage); 4] = [
        ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("empty", |_| Vec::new()),
        ("flipped", |bytes| {
            bytes.iter().map(|byte| byte ^ 1).collect()
        }),
        ("longer", |bytes| [bytes, b"more"].concat()),
    ];
    let mount = "type=cache,target=/c,mode=0751";
    for (what, damage) in damages {
        let project = project("");
        set(
            &project,
            mount,
            "head -c 2000000 /dev/urandom > /c/x; echo y > /c/y",
        );
        let registry = registry::start();
        let repo = format!("{}/cache", registry.host);
        let args = ["--insecure", "--cache-mounts", "--cache-repo", &repo];
        build(&project, "first", &args);
        // The packs alone, which come last.
        for hex in registry.hexes() {
            let path = registry.blob_path(&hex);
            let bytes = std::fs::read(&path).expect("a blob");
            if bytes.len() > 1_000_000 {
                std::fs::write(&path, damage(&bytes)).expect("damage");
            }
        }
        set(
            &project,
            mount,
            "test $(ls -A /c | wc -l) = 0 -a $(stat -c %a /c) = 751; echo z > /c/z",
        );
        let second = build(&project, "second", &args);
        let said = warnings(&second.said);
        assert_eq!(said.len(), 1, "{what}: {said:?}");
        assert!(
            said[0].contains("the cache /c could not be restored"),
            "{said:?}"
        );
        // What was saved instead is right.
        set(&project, mount, "test $(cat /c/z) = z");
        build(&project, "third", &args);
    }
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

/// A registry may drop what it likes: what it has lost is sent again.
#[test]
fn a_pack_that_a_place_has_lost_is_sent_again() {
    let project = project("head -c 2000000 /dev/urandom > /c/x");
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let args = ["--insecure", "--cache-mounts", "--cache-repo", &repo];
    build(&project, "store", &args);
    for hex in registry.hexes() {
        let path = registry.blob_path(&hex);
        if path.metadata().expect("a blob").len() > 1_000_000 {
            std::fs::remove_file(path).expect("remove");
        }
    }
    set(&project, "type=cache,target=/c", "echo y > /c/y");
    let made = build(&project, "store", &args);
    assert_eq!(warnings(&made.said), Vec::<String>::new());
    set(
        &project,
        "type=cache,target=/c",
        "test $(cat /c/y) = y -a -s /c/x",
    );
    let made = build(&project, "fresh", &args);
    assert_eq!(warnings(&made.said), Vec::<String>::new());
}

/// Builds at once, with stores of their own and with one: whatever is saved last is whole.
#[test]
fn many_save_at_once() {
    let project = project("");
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let args = ["--insecure", "--cache-mounts", "--cache-repo", &repo];
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
                    .args(args);
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
        let made = build(&project, &format!("fresh-{sharing}"), &args);
        assert!(infos(&made).contains("restored the cache"), "{}", made.said);
    }
}

/// What is written to while it is saved is saved by who writes to it.
#[test]
fn a_cache_that_somebody_writes_to_is_left_alone() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let project = project("for i in $(seq 500); do echo $i > /c/$i; done");
    let registry = registry::start();
    let repo = format!("{}/cache", registry.host);
    let args = ["--insecure", "--cache-mounts", "--cache-repo", &repo];
    build(
        &project,
        "store",
        &["--cache-mounts", "--cache-repo", &repo, "--no-push-cache"],
    );
    let caches = std::fs::read_dir(project.path("store/caches")).expect("caches");
    let cache = caches
        .map(|e| e.expect("a cache").path())
        .next()
        .expect("a cache");
    let file = cache.join("0/files/1");
    let ended = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0u64;
            while !ended.load(Ordering::Relaxed) {
                number += 1;
                std::fs::write(&file, number.to_string()).expect("write");
            }
        });
        let made = build(&project, "store", &args);
        ended.store(true, Ordering::Relaxed);
        made
    });
    assert_eq!(warnings(&made.said), Vec::<String>::new());
    let said = infos(&made);
    assert!(
        said.contains("the cache /c is left to another build to save"),
        "{said}"
    );
    assert_eq!(registry.hexes(), Vec::<String>::new());
}
