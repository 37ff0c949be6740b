//! `RUN --mount` by the real program: what commands see, what is kept, and what must not be found
//! anywhere afterwards.

#[path = "../common/base.rs"]
mod base;
#[path = "../common/listing.rs"]
mod listing;
#[path = "../common/project.rs"]
mod project;

mod caches;
mod secrets;

use listing::read_layout;
use project::{Project, mounts, processes};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command};

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
