//! `RUN --mount` by the real program: what commands see, what is kept, and what must not be found
//! anywhere afterwards.

#[path = "common/base.rs"]
mod base;
#[path = "common/listing.rs"]
mod listing;
#[path = "common/project.rs"]
mod project;

use listing::read_layout;
use project::{Project, mounts, processes};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Gives the content of a file of an image that a shell wrote, by its hash.
fn has(project: &Project, out: &str, path: &str, content: &str) -> bool {
    let image = read_layout(&project.path(out));
    let digest = shutter::oci::Digest::of(content.as_bytes()).hex();
    image
        .files
        .get(path.as_bytes())
        .is_some_and(|file| file["sha256"] == digest)
}

/// Builds and gives what the build said where it failed.
fn fails(project: &Project, args: &[&str]) -> String {
    let (output, _) = project.try_build("failed", args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// Mode, owner, group, seconds and nanoseconds of the last change, content.
type Looks = (u32, u32, u32, i64, i64, Option<Vec<u8>>);

/// All that a directory has in it, as on disk: nothing may change it.
fn photograph(dir: &Path) -> BTreeMap<Vec<u8>, Looks> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("look at the context");
        if meta.is_dir() {
            let entries = fs::read_dir(&path).expect("list the context");
            todo.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let content = meta.is_file().then(|| fs::read(&path).expect("read"));
        let times = (meta.ctime(), meta.ctime_nsec());
        let owner = (meta.mode(), meta.uid(), meta.gid());
        let name = path.as_os_str().as_bytes().to_vec();
        out.insert(name, (owner.0, owner.1, owner.2, times.0, times.1, content));
    }
    out
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Lists a directory but for itself: everything that must be the same in two places.
const LIST: &str = "find . -mindepth 1 | sort | while read -r f; do s=-; [ -d \"$f\" ] || s=$(stat -c %s \"$f\"); \
                    h=-; [ -f \"$f\" ] && [ ! -L \"$f\" ] && h=$(md5sum < \"$f\"); \
                    echo \"$(stat -c '%N %f %u %g %Y' \"$f\") $s $h\"; done";

/// Fills a context with all that a context may have.
fn fill(project: &Project, owner: (u32, u32)) {
    for name in [
        "a",
        "b b",
        "dir/c",
        "dir/sub/d",
        "out/x",
        "out/keep/y",
        "out/z",
        "deep/er/e",
    ] {
        project.file(name, name.repeat(100));
    }
    project.file("large", vec![b'x'; 3 << 20]);
    project.file(
        ".dockerignore",
        "out\n!out/keep\nempty-but-for/left\n**/*.tmp\n",
    );
    project.file("dir/sub/left.tmp", "left out");
    project.file("empty-but-for/left/file", "left out");
    project.file("only/left.tmp", "left out");
    let context = project.path("context");
    symlink("dir/c", context.join("link")).expect("link");
    symlink("/nowhere", context.join("dir/dangling")).expect("link");
    fs::create_dir(context.join("empty")).expect("mkdir");
    fs::hard_link(context.join("a"), context.join("dir/hard")).expect("link");
    drop(std::os::unix::net::UnixListener::bind(context.join("dir/socket")).expect("a socket"));
    let fifo = Command::new("mkfifo").arg(context.join("fifo")).status();
    assert!(fifo.expect("run mkfifo").success());
    set_mode(&context.join("dir/c"), 0o4751);
    set_mode(&context.join("dir/sub"), 0o2750);
    set_mode(&context.join("empty"), 0o1777);
    let all = Command::new("chown")
        .args(["-hR", &format!("{}:{}", owner.0, owner.1)])
        .arg(&context)
        .status();
    assert!(all.expect("run chown").success());
    // Some belong to others.
    for name in ["b b", "dir/c", "link", "out/keep", "fifo"] {
        std::os::unix::fs::lchown(context.join(name), Some(5), Some(0)).expect("chown");
    }
    // Taken away by the change of owner.
    set_mode(&context.join("dir/c"), 0o4751);
    let touched = Command::new("find")
        .arg(&context)
        .args(["-exec", "touch", "-h", "-d", "@1500000000", "{}", "+"])
        .status();
    assert!(touched.expect("run find").success());
}

#[test]
fn a_command_sees_of_the_context_just_what_copy_takes() {
    for owner in [(0, 0), (1234, 0), (0, 99), (1234, 99)] {
        let project = Project::new();
        fill(&project, owner);
        set_mode(
            &project.path("context"),
            if owner.1 == 0 { 0o700 } else { 0o755 },
        );
        let before = photograph(&project.path("context"));
        let file = project.path("Dockerfile");
        let dockerfile = format!(
            "FROM base\nCOPY . /copied\n\
             RUN --mount=target=/ctx cd /ctx && ({LIST}) > /seen\n\
             RUN cd /copied && ({LIST}) > /expected\n\
             RUN diff /expected /seen\n\
             RUN --mount=target=/ctx test $(stat -c %u%g%a /ctx) = 00755\n\
             RUN --mount=target=/ctx test ! -e /ctx/dir/socket -a ! -e /ctx/only/left.tmp -a ! -e /ctx/out/x\n\
             RUN --mount=target=/ctx ! touch /ctx/new && ! rm /ctx/a && ! chmod 0 /ctx/a\n\
             RUN --mount=target=/ctx,source=dir/../dir cd /ctx && ({LIST}) > /seen\n\
             RUN cd /copied/dir && ({LIST}) > /expected && diff /expected /seen\n\
             RUN --mount=target=/f,source=link test \"$(stat -c '%a %u %g' /f)\" = '4751 0 0' && cmp /f /copied/dir/c\n\
             RUN --mount=target=/f,source=deep/er/e,rw echo new > /f\n\
             RUN --mount=target=/ctx,rw cd /ctx && ({LIST}) > /seen && \
               rm -r dir && echo changed > a && echo new > new && chmod 0 large\n\
             RUN cd /copied && ({LIST}) > /expected && diff /expected /seen\n\
             RUN --mount=target=/ctx,rw test -d /ctx/dir -a ! -e /ctx/new\n"
        );
        fs::write(&file, dockerfile).expect("write");
        project.build("out", &["--dockerfile", file.to_str().expect("a path")]);
        assert_eq!(photograph(&project.path("context")), before, "{owner:?}");
    }
}

#[test]
fn what_is_mounted_in_the_context_is_seen_too() {
    for owner in [0, 1234] {
        let project = Project::new();
        project.file("own", "own").file("here/hidden", "hidden");
        project.file("one", "");
        let context = project.path("context");
        let other = project.path("other");
        fs::create_dir(&other).expect("mkdir");
        fs::write(other.join("mounted"), "mounted").expect("write");
        fs::create_dir(other.join("sub")).expect("mkdir");
        fs::write(other.join("sub/more"), "more").expect("write");
        for path in [context.join("own"), other.join("mounted")] {
            chown(path, Some(owner), None).expect("chown");
        }
        project.file(
            "Dockerfile",
            "FROM base\n\
             RUN --mount=target=/c cat /c/own /c/here/mounted /c/here/sub/more /c/one > /got\n\
             RUN --mount=target=/c ls /c/here > /ls; stat -c %u%g /c/own /c/here/mounted > /owners\n",
        );
        // In a namespace of the build's own, so that nothing stays.
        let script = format!(
            "mount --bind {0} {1}/here && mount --bind {0}/mounted {1}/one && exec \"$@\"",
            other.display(),
            context.display()
        );
        let built = project.command();
        let output = Command::new("unshare")
            .args(["-m", "sh", "-ec", &script, "sh"])
            .arg(built.get_program())
            .args(built.get_args())
            .args(["--no-push", "--oci-layout-path"])
            .arg(project.path("out"))
            .output()
            .expect("run unshare");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(
            has(&project, "out", "got", "ownmountedmoremounted"),
            "{said}"
        );
        assert!(has(&project, "out", "ls", "mounted\nsub\n"));
        assert!(has(&project, "out", "owners", "00\n00\n"));
    }
}

#[test]
fn a_context_that_has_the_store_in_it_can_be_mounted() {
    let project = Project::new();
    project.file("a", "a").file(".dockerignore", "store\n");
    project.file(
        "Dockerfile",
        "FROM base\nRUN --mount=target=/c ls -a /c > /ls; cp /c/a /a\n",
    );
    chown(project.path("context/a"), Some(7), Some(7)).expect("chown");
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
    let base = format!("base=oci-layout://{}", project.base.display());
    let output = command
        .args(["build", "--no-push", "--log-format", "text", "--context"])
        .arg(project.path("context"))
        .arg("--cache-dir")
        .arg(project.path("context/store"))
        .args(["--build-context", &base, "--oci-layout-path"])
        .arg(project.path("out"))
        .output()
        .expect("run shutter");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(has(&project, "out", "a", "a"));
    assert!(has(
        &project,
        "out",
        "ls",
        ".\n..\n.dockerignore\nDockerfile\na\n"
    ));
    assert!(said.contains("is copied for RUN --mount"), "{said}");
}

#[test]
fn stages_and_images_are_seen_as_they_are() {
    let project = Project::new();
    project.file("a", "a");
    // What is mounted, and what must hold of it at /m.
    let table = [
        ("from=base", "test -x /m/bin/busybox"),
        ("from=ran,source=/o", "test \"$(cat /m/f)\" = ran"),
        ("from=ran,source=/o/f", "test \"$(cat /m)\" = ran"),
        ("from=copied", "test \"$(cat /m/a)\" = a -a ! -e /m/bin"),
        ("from=both", "test -e /m/a -a -e /m/o/f -a -d /m/w"),
        ("from=both,source=/up/../l", "test \"$(cat /m/f)\" = ran"),
        ("from=both,rw", "rm -r /m/o && echo new > /m/a"),
        ("from=both", "test \"$(cat /m/a)\" = a -a -e /m/o/f"),
        ("from=scratch", "test -z \"$(ls -A /m)\""),
        ("from=scratch,rw", "touch /m/x"),
        ("from=0,source=/o", "test -e /m/f && ! touch /m/g"),
    ];
    let runs: String = table
        .iter()
        .map(|(fields, command)| format!("RUN --mount=target=/m,{fields} {command}\n"))
        .collect();
    project.file(
        "Dockerfile",
        format!(
            "FROM base AS ran\nRUN mkdir /o && echo ran > /o/f\n\
             FROM scratch AS copied\nCOPY a /a\n\
             FROM ran AS both\nCOPY a /a\nWORKDIR /w\nRUN ln -s /o /l\nCOPY a /last\n\
             FROM base\n{runs}"
        ),
    );
    let image = read_layout(&project.build("out", &[]));
    assert!(!image.files.contains_key(&b"m"[..]), "no trace is left");
    assert_eq!(
        image.image["rootfs"]["diff_ids"].as_array().map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_source_that_is_not_there_is_named_with_its_line() {
    let project = Project::new();
    project
        .file("a", "a")
        .file("left/out", "x")
        .file(".dockerignore", "left\n");
    let table = [
        ("source=absent", "\"/absent\": not found"),
        ("source=a/b", "\"/a/b\": not found"),
        ("source=left/out", "\"/left/out\": not found"),
        ("from=base,source=/absent", "\"/absent\": not found"),
        ("from=scratch,source=/absent", "\"/absent\": not found"),
        (
            "type=cache,from=base,source=/absent",
            "\"/absent\": not found",
        ),
        (
            "type=cache,from=base,source=/bin/busybox",
            "begins with a directory",
        ),
        ("type=secret,id=none,required", "secret none: not found"),
        (
            "type=secret,id=none,env=X,required",
            "secret none: not found",
        ),
        ("type=ssh,required", "SSH agent default: not found"),
    ];
    for (fields, why) in table {
        let dockerfile = format!("FROM base\n\nRUN --mount=target=/m,{fields} true\n");
        project.file("Dockerfile", dockerfile);
        let said = fails(&project, &[]);
        assert!(
            said.contains(why) && said.contains("Dockerfile:3"),
            "{fields}: {said}"
        );
    }
}

#[test]
fn a_cache_is_kept_between_builds_and_in_no_layer() {
    let project = Project::new();
    project.file(
        "Dockerfile",
        "FROM base AS seed\nRUN mkdir -p /s/d && echo seed > /s/d/f && chmod 700 /s && chown 3:4 /s\n\
         FROM base\nARG N\n\
         RUN --mount=type=cache,target=/c cat /c/* 2>/dev/null; echo $N > /c/$N; ls /c > /all\n\
         RUN --mount=type=cache,id=/c,target=/d,ro ls /d > /again; ! touch /d/x\n\
         RUN --mount=type=cache,id=/c,target=/c --mount=type=cache,id=/c,target=/e,sharing=locked \
           touch /c/both && test -e /e/both && rm /e/both\n\
         RUN --mount=type=cache,id=s,target=/c,from=seed,source=/s \
           stat -c '%a %u %g' /c > /seeded; cat /c/d/f >> /seeded; echo $N >> /c/d/f\n\
         RUN --mount=type=cache,id=b,target=/c,from=base,source=/bin test -x /c/busybox -o -e /c/second && rm -rf /c/* && touch /c/second\n\
         RUN --mount=type=cache,id=b,target=/c,from=base,source=/bin test \"$(ls /c)\" = second\n\
         RUN --mount=type=cache,id=b,target=/c,from=base test -x /c/bin/busybox\n",
    );
    project.build("one", &["--build-arg", "N=1"]);
    assert!(has(&project, "one", "all", "1\n") && has(&project, "one", "again", "1\n"));
    assert!(has(&project, "one", "seeded", "700 3 4\nseed\n"));
    let two = read_layout(&project.path("one"));
    assert!(
        two.files.keys().all(|path| !path.starts_with(b"c")),
        "{:?}",
        two.files.keys()
    );

    // The stage is built again, with other times: its cache is the same one.
    project.build("two", &["--build-arg", "N=2", "--reproducible"]);
    assert!(has(&project, "two", "all", "1\n2\n"));
    assert!(has(&project, "two", "seeded", "700 3 4\nseed\n1\n"));
}

/// Starts a build whose command waits for the end of its standard input's stead, a file.
fn start(project: &Project, dockerfile: &str, out: &str) -> Child {
    let file = project.path(out).with_extension("Dockerfile");
    fs::write(&file, dockerfile).expect("write");
    let out = project.path(out);
    let _ = fs::remove_dir_all(&out);
    project.spawn(&[
        "--no-push",
        "--dockerfile",
        file.to_str().expect("a path"),
        "--oci-layout-path",
        out.to_str().expect("a path"),
    ])
}

/// Reads what a build says until a line has a word in it.
fn wait_for(child: &mut Child, word: &str) -> String {
    let mut lines = BufReader::new(child.stderr.as_mut().expect("piped"));
    let mut all = String::new();
    while !all.contains(word) {
        let read = lines.read_line(&mut all).expect("read");
        assert!(read > 0, "it ended without `{word}`: {all}");
    }
    all
}

fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child
        .stderr
        .as_mut()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("read");
    (child.wait().expect("wait").code(), said)
}

#[test]
fn builds_at_the_same_time_share_lock_and_part_their_caches() {
    let project = Project::new();
    // One holds the cache until a file in it tells it to end; the other comes meanwhile.
    let hold = |sharing: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/c,sharing={sharing} \
             --mount=type=cache,id=go,target=/go \
             echo holder > /c/holder; echo holding; until rm /go/end 2>/dev/null; do :; done\n"
        )
    };
    let go = "RUN --mount=type=cache,id=go,target=/go touch /go/end\n";
    for (held, wanted, seen) in [
        ("shared", "shared", "holder\n"),
        ("shared", "private", ""),
        ("locked", "private", ""),
        ("private", "shared", ""),
        // Of one cache, the mount that shares least counts.
        (
            "shared",
            "shared --mount=type=cache,id=/c,target=/e,sharing=private",
            "",
        ),
    ] {
        let mut holder = start(&project, &hold(held), "holder");
        wait_for(&mut holder, "holding");
        let other = format!(
            "FROM base\nRUN --mount=type=cache,target=/c,sharing={wanted} ls /c > /seen\n{go}"
        );
        let (code, said) = end(start(&project, &other, "other"));
        assert_eq!(code, Some(0), "{said}");
        assert!(
            has(&project, "other", "seen", seen),
            "{held}, {wanted}: {said}"
        );
        assert_eq!(end(holder).0, Some(0));
        let caches = project.path("store/caches");
        fs::remove_dir_all(&caches).expect("forget the caches");
        fs::create_dir(&caches).expect("forget the caches");
    }
    // A locked one is waited for, until it is free or the build is cancelled.
    let mut holder = start(&project, &hold("locked"), "holder");
    wait_for(&mut holder, "holding");
    let wants = "FROM base\nRUN --mount=type=cache,target=/c,sharing=locked ls /c > /seen\n";
    let mut patient = start(&project, wants, "patient");
    wait_for(&mut patient, "waiting for the cache");
    let mut cancelled = start(&project, wants, "cancelled");
    wait_for(&mut cancelled, "waiting for the cache");
    let pid = rustix::process::Pid::from_child(&cancelled);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    let (code, said) = end(cancelled);
    assert_eq!(code, Some(143), "{said}");
    let (code, said) = end(start(&project, &format!("FROM base\n{go}"), "go"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(end(patient).0, Some(0));
    assert_eq!(end(holder).0, Some(0));
    assert!(has(&project, "patient", "seen", "holder\n"));
    // A lock dies with its holder, whatever kills that.
    let mut holder = start(&project, &hold("locked"), "holder");
    wait_for(&mut holder, "holding");
    holder.kill().expect("kill");
    end(holder);
    let (code, said) = end(start(&project, wants, "after"));
    assert_eq!(code, Some(0), "{said}");
    assert!(has(&project, "after", "seen", "holder\n"), "{said}");
    nothing_is_left(&project);
}

#[test]
fn a_mount_that_does_not_fit_the_image_is_told_by_its_kind() {
    let project = Project::new();
    project.file("f", "f");
    for (mount, said) in [
        (
            "type=cache,target=/d/file",
            "`/d/file` is a file in the image, and a cache is a directory",
        ),
        (
            "type=tmpfs,target=/link",
            "`/link` is a file in the image, and a tmpfs is a directory",
        ),
        (
            "target=/d/file",
            "`/d/file` is a file in the image, and what is mounted is a directory",
        ),
        (
            "source=f,target=/d",
            "`/d` is a directory in the image, and what is mounted is a file",
        ),
        (
            "type=secret,id=S,target=/d",
            "`/d` is a directory in the image, and a secret is a file",
        ),
    ] {
        project.file(
            "Dockerfile",
            format!(
                "FROM base\nRUN mkdir /d; touch /d/file; ln -s d/file /link\nRUN --mount={mount} true\n"
            ),
        );
        let (output, _) = project.try_build("out", &["--secret", "id=S,env=PATH"]);
        let all = String::from_utf8_lossy(&output.stderr);
        let last = all.lines().last().unwrap_or_default();
        let wanted = format!("error: RUN --mount={mount} true: {said}");
        assert_eq!(last, wanted, "{all}");
    }
    nothing_is_left(&project);
}

/// After all builds: no process, no mount, no scratch directory.
fn nothing_is_left(project: &Project) {
    let dir = project.dir.path();
    assert_eq!(processes(&dir.to_string_lossy()), Vec::<String>::new());
    assert_eq!(mounts(dir), Vec::<String>::new());
    for room in ["run", "tmp"] {
        let left: Vec<_> = fs::read_dir(project.path("store").join(room))
            .expect("the store")
            .collect();
        assert!(left.is_empty(), "{room}: {left:?}");
    }
}

#[test]
fn a_cache_is_waited_for_by_one_build_s_own_stages_too() {
    let project = Project::new();
    // Each stage takes two locked caches, in another order; and counts up without a lock of its own.
    let stage = |name: &str, first: &str, second: &str| {
        format!(
            "FROM base AS {name}\nRUN --mount=type=cache,id={first},target=/x,sharing=locked \
             --mount=type=cache,id={second},target=/y,sharing=locked \
             for i in 1 2 3 4 5 6 7 8 9; do n=$(cat /{at}/n 2>/dev/null || echo 0); \
             echo $((n + 1)) > /{at}/n; done; touch /{name}\n",
            at = if first == "one" { "x" } else { "y" },
        )
    };
    project.file(
        "Dockerfile",
        format!(
            "{}{}{}FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n\
             RUN --mount=type=cache,id=one,target=/x cat /x/n > /n\n",
            stage("a", "one", "two"),
            stage("b", "two", "one"),
            stage("c", "one", "two")
        ),
    );
    project.build("out", &[]);
    assert!(has(&project, "out", "n", "27\n"));
}

#[test]
fn a_secret_is_seen_by_its_command_and_found_nowhere_afterwards() {
    let project = Project::new();
    let (one, two) = ("hunter2-from-a-file", "correct horse battery staple");
    let lines = "first line of three\n  second: line\nthird line, the last";
    fs::write(project.path("one"), format!("{one}\n")).expect("write");
    fs::write(project.path("lines"), lines).expect("write");
    project.file(
        "Dockerfile",
        "FROM base\n\
         RUN --mount=type=secret,id=one cat /run/secrets/one; cat /run/secrets/one >&2; \
           test $(stat -c %a%u%g /run/secrets/one) = 40000\n\
         RUN --mount=type=secret,id=one,target=/etc/deep/one,mode=0444,uid=5 \
           printf 'a'; printf 'hunter2-'; printf 'from-a-file'; printf 'hunter2'; set -x; \
           echo $(cat /etc/deep/one)\n\
         ENV TWO=other\n\
         RUN --mount=type=secret,id=two,env=TWO echo \"$TWO\" | md5sum > /two; echo \"<$TWO>\"; env; set\n\
         RUN test $TWO = other\n\
         RUN --mount=type=secret,id=lines cat /run/secrets/lines; grep second /run/secrets/lines\n\
         RUN --mount=type=secret,id=none ! ls /run/secrets\n\
         RUN --mount=type=secret,id=none,env=NONE test \"${NONE-unset}\" = ''\n\
         RUN --mount=type=cache,target=/c --mount=type=secret,id=one,target=/c/one test -s /c/one\n\
         RUN --mount=type=secret,id=two,env=TWO echo \"$TWO\" >&2; sh -c 'echo $0; exit 9' \"$TWO\"\n",
    );
    let secrets = [
        (
            "src",
            format!("id=one,src={}", project.path("one").display()),
        ),
        ("env", "id=two,env=THE_SECRET".to_owned()),
        (
            "src",
            format!("id=lines,src={}", project.path("lines").display()),
        ),
    ];
    let timeline = project.path("timeline.html");
    let run = |format: &str, out: &str| {
        let mut command = project.command();
        for (_, secret) in &secrets {
            command.arg("--secret").arg(secret);
        }
        command.env("THE_SECRET", two);
        command.args(["--no-push", "--log-format", format, "--oci-layout-path"]);
        command
            .arg(project.path(out))
            .arg("--timeline")
            .arg(&timeline);
        let output = command.output().expect("run shutter");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let logs = [run("text", "failed"), run("json", "failed")];
    for (code, said) in &logs {
        assert_eq!(*code, Some(9), "{said}");
        assert!(
            said.contains("a****hunter2") && said.contains("<****>"),
            "{said}"
        );
    }
    let dockerfile = project.path("context/Dockerfile");
    let text = fs::read_to_string(&dockerfile).expect("read");
    let (kept, _) = text.trim_end().rsplit_once('\n').expect("lines");
    fs::write(&dockerfile, kept).expect("write");
    let (code, said) = run("color", "out");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        read_layout(&project.path("out"))
            .files
            .contains_key(&b"two"[..])
    );
    let needles: Vec<&str> = [one, two]
        .into_iter()
        .chain(lines.lines().map(str::trim))
        .collect();
    for log in [&logs[0].1, &logs[1].1, &said] {
        for needle in &needles {
            assert!(!log.contains(needle), "{needle} is in the log: {log}");
        }
    }
    let page = fs::read(&timeline).expect("the timeline");
    assert!(!page.is_empty());
    // What failed leaves no image, not even a part of one.
    assert!(!project.path("failed").exists());
    for place in ["store", "out", "timeline.html"] {
        search(&project.path(place), &needles);
    }
    nothing_is_left(&project);
}

/// Looks for words in every file below a path, unpacked where it is a layer, and in every name.
fn search(path: &Path, needles: &[&str]) {
    let meta = fs::symlink_metadata(path);
    let meta = meta.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut texts = vec![path.as_os_str().as_bytes().to_vec()];
    if meta.is_dir() {
        for entry in fs::read_dir(path).expect("list") {
            search(&entry.expect("an entry").path(), needles);
        }
    } else if meta.is_file() {
        let bytes = fs::read(path).expect("read");
        let mut unpacked = Vec::new();
        if flate2::read::GzDecoder::new(&bytes[..])
            .read_to_end(&mut unpacked)
            .is_ok()
        {
            texts.push(unpacked);
        }
        texts.push(bytes);
    }
    for text in texts {
        for needle in needles {
            let found = text
                .windows(needle.len())
                .any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} is in {}", path.display());
        }
    }
}

/// Puts a program of this machine into the context, with its libraries.
fn bring(project: &Project, program: &str) {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let found = String::from_utf8(found.expect("run sh").stdout).expect("a path");
    let found = found.trim();
    let libraries = Command::new("ldd").arg(found).output().expect("run ldd");
    let text = String::from_utf8(libraries.stdout).expect("text");
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let name = Path::new(path)
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        project.file(
            &format!("lib/{name}"),
            fs::read(path).expect("read a library"),
        );
    }
    project.file(program, fs::read(found).expect("read the program"));
    set_mode(&project.path("context").join(program), 0o755);
    let loader = fs::read_dir(project.path("context/lib"))
        .expect("libraries")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.to_string_lossy().contains("ld-linux"))
        .expect("a loader");
    set_mode(&loader, 0o755);
    let loader = loader
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    project.file(
        "run",
        format!("#!/bin/sh\nl=/ctx/lib; exec $l/{loader} --library-path $l \"$@\"\n"),
    );
    set_mode(&project.path("context/run"), 0o755);
}

struct SystemAgent(Child);

impl Drop for SystemAgent {
    fn drop(&mut self) {
        self.0.kill().expect("end the agent");
        self.0.wait().expect("wait for the agent");
    }
}

#[test]
fn a_command_has_the_ssh_agents_it_asks_for() {
    let project = Project::new();
    bring(&project, "ssh-add");
    let (key, other) = (project.path("key"), project.path("other"));
    for (path, comment) in [(&key, "the key"), (&other, "the other")] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
            .arg(path)
            .status();
        assert!(made.expect("run ssh-keygen").success());
    }
    let socket = project.path("agent");
    let mut agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .expect("run ssh-agent");
    agent
        .stdout
        .as_mut()
        .expect("piped")
        .read_exact(&mut [0])
        .expect("it is there");
    let _agent = SystemAgent(agent);
    let added = Command::new("ssh-add")
        .env("SSH_AUTH_SOCK", &socket)
        .arg("-q")
        .arg(&key)
        .status();
    assert!(added.expect("run ssh-add").success());
    let add = "/ctx/run /ctx/ssh-add";
    project.file(
        "Dockerfile",
        format!(
            "FROM base\n\
             RUN --mount=target=/ctx --mount=type=ssh {add} -l > /default; \
               test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0; \
               stat -c '%F %a %u %g' $SSH_AUTH_SOCK > /st\n\
             RUN --mount=target=/ctx --mount=type=ssh,id=keys,target=/s,mode=0666,uid=7 \
               --mount=type=ssh {add} -l > /keys; echo $SSH_AUTH_SOCK > /first; \
               stat -c '%a %u %g' /s >> /first; ls /run/buildkit >> /first; ! {add} -D\n\
             USER 1000\nRUN --mount=target=/ctx --mount=type=ssh,uid=1000 {add} -l\nUSER 0\n\
             ENV SSH_AUTH_SOCK=/elsewhere\n\
             RUN --mount=target=/ctx --mount=type=ssh,target=/elsewhere {add} -l\n\
             RUN --mount=type=ssh,id=absent test ! -e /run/buildkit\n\
             RUN test ! -e /run/buildkit -a ! -e /s -a ! -e /elsewhere\n"
        ),
    );
    let default = format!("default={}", socket.display());
    let keys = format!("keys={},{}", key.display(), other.display());
    project.build("out", &["--ssh", &default, "--ssh", &keys]);
    assert!(has(&project, "out", "st", "socket 600 0 0\n"));
    assert!(has(&project, "out", "first", "/s\n666 7 0\nssh_agent.1\n"));
    for (path, keys) in [("default", vec![&key]), ("keys", vec![&key, &other])] {
        let lines: String = keys
            .iter()
            .map(|key| {
                let public = key.with_extension("pub");
                let shown = Command::new("ssh-keygen").arg("-lf").arg(public).output();
                String::from_utf8(shown.expect("run ssh-keygen").stdout).expect("text")
            })
            .collect();
        assert!(has(&project, "out", path, &lines), "{path}: {lines}");
    }
    nothing_is_left_but(&project, &["ssh-agent"]);

    let encrypted = project.path("encrypted");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "passphrase", "-f"])
        .arg(&encrypted)
        .status();
    assert!(made.expect("run ssh-keygen").success());
    let spec = format!("default={}", encrypted.display());
    let said = fails(&project, &["--ssh", &spec]);
    assert!(
        said.contains("encrypted") && said.contains("Dockerfile:2"),
        "{said}"
    );
}

fn nothing_is_left_but(project: &Project, programs: &[&str]) {
    let dir = project.dir.path().to_string_lossy().into_owned();
    let left: Vec<String> = processes(&dir)
        .into_iter()
        .filter(|line| !programs.iter().any(|program| line.contains(program)))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(mounts(project.dir.path()), Vec::<String>::new());
}

#[test]
fn a_build_that_is_cancelled_while_mounts_are_made_leaves_nothing() {
    let project = Project::new();
    for i in 0..3000 {
        project.file(&format!("d{}/f{i}", i % 30), "x");
        chown(
            project.path(&format!("context/d{}/f{i}", i % 30)),
            Some(i),
            None,
        )
        .expect("chown");
    }
    let dockerfile = "FROM base\nRUN --mount=target=/c,rw --mount=type=ssh,id=k \
                      --mount=type=cache,target=/x sleep 1000\n";
    let key = project.path("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("run ssh-keygen").success());
    let file = project.path("Dockerfile");
    fs::write(&file, dockerfile).expect("write");
    let key = format!("k={}", key.display());
    let mut child = project.spawn(&[
        "--no-push",
        "--dockerfile",
        file.to_str().expect("a path"),
        "--ssh",
        &key,
    ]);
    wait_for(&mut child, "[1/1] RUN");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    let (code, said) = end(child);
    assert_eq!(code, Some(143), "{said}");
    nothing_is_left(&project);
}
