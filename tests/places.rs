//! Builds in ordinary containers, where nothing may be mounted: in place, and in a chroot. The images
//! are those that overlay makes, and what is not the image's stays as it was.

#[path = "common/base.rs"]
mod base;
#[path = "common/container.rs"]
mod container;
#[path = "common/dockerd.rs"]
#[allow(dead_code)]
mod dockerd;
#[path = "common/registry.rs"]
mod registry;

use container::{Container, Engine};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A container of a root like a builder's own image or an agent's, a directory that it shares with
/// this machine, and the program in it.
struct Place {
    container: Container,
    called: Vec<OsString>,
    /// The shared directory, at the same path on both sides.
    work: PathBuf,
    layout: PathBuf,
    _dir: tempfile::TempDir,
}

const FIRST: &str = "\
FROM base AS made
WORKDIR /made
RUN --mount=type=cache,target=/cached echo made > file; ln file hard; mkfifo pipe; echo 1 > /cached/one
RUN rm /tree/file; mkdir /etc/new; chmod 700 /etc/new
FROM base
COPY --from=made /made /copied
COPY of-the-context /
RUN --mount=from=made,source=/made,target=/m --mount=type=secret,id=token \\
    cp /m/file /again; wc -c < /run/secrets/token > /length; rm -rf /tree
RUN ! ls /kept /out /build.tar
";

const SECOND: &str = "\
FROM base
RUN --mount=type=cache,target=/cached cat /cached/one > /one
RUN test ! -e /again && test ! -e /copied && ls -A / | wc -l > /tmp/number; rm /tmp/number
CMD [\"second\"]
";

impl Place {
    /// Starts a container, with what the engine is told besides.
    fn new(more: &[&str]) -> Place {
        Place::by(|_| Engine::docker(), more)
    }

    fn by(engine: fn(&Path) -> Engine, more: &[&str]) -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let [work, agent, program] = ["work", "agent", "program"].map(|name| dir.path().join(name));
        let made = [
            &work,
            &program,
            &agent.join("bin"),
            &agent.join("kept/context"),
            &agent.join("usr/lib/jvm"),
        ];
        for dir in made {
            std::fs::create_dir_all(dir).expect("a directory");
        }
        // Once as the image's, and once where no build comes.
        for to in [agent.join("bin/busybox"), program.join("busybox")] {
            std::fs::copy("/bin/busybox", to).expect("busybox");
        }
        std::fs::write(agent.join("usr/lib/jvm/java"), "of the agent").expect("write");
        std::fs::write(agent.join("kept/secret"), "s3cret token").expect("write");
        std::fs::write(agent.join("kept/context/of-the-context"), "copied").expect("write");
        std::fs::write(agent.join("kept/context/Dockerfile"), FIRST).expect("write");
        for (name, text) in [("first", FIRST), ("second", SECOND)] {
            let context = work.join(name);
            std::fs::create_dir(&context).expect("a directory");
            std::fs::write(context.join("Dockerfile"), text).expect("write");
            std::fs::write(context.join("of-the-context"), "copied").expect("write");
        }
        std::fs::write(work.join("secret"), "s3cret token").expect("write");
        let called = container::portable(
            Path::new(env!("CARGO_BIN_EXE_shutter")),
            &program,
            "/program",
        );
        let layout = base::make(&work);
        let inside = work.display().to_string();
        let volumes = [(work.as_path(), inside.as_str()), (&program, "/program")];
        Place {
            container: Container::start(engine(dir.path()), &agent, &volumes, more),
            called,
            work,
            layout,
            _dir: dir,
        }
    }

    /// Gives the words of a build of a context; the image goes to a layout in the shared directory.
    fn words(&self, root: &str, context: &str, name: &str, more: &[&str]) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["build".into()];
        words.extend(["--context", context, "--rootfs", root, "--reproducible"].map(Into::into));
        words.extend(["--log-format", "text", "--no-push"].map(Into::into));
        let layout = format!("base=oci-layout://{}", self.layout.display());
        words.extend(["--build-context".into(), layout.into()]);
        words.extend(["--oci-layout-path".into(), self.work.join(name).into()]);
        words.extend(more.iter().map(OsString::from));
        words
    }

    fn build(&self, root: &str, context: &str, name: &str, more: &[&str]) -> Output {
        let words = self.called.iter().cloned();
        let words: Vec<OsString> = words.chain(self.words(root, context, name, more)).collect();
        self.container.exec(&[], &words)
    }

    /// Builds with this machine's rights on overlay.
    fn outside(&self, context: &str, name: &str, more: &[&str]) {
        let store = tempfile::tempdir().expect("a directory");
        let done = Command::new(env!("CARGO_BIN_EXE_shutter"))
            .args(self.words("overlay", context, name, more))
            .arg("--cache-dir")
            .arg(store.path())
            .output()
            .expect("run shutter");
        succeeded(&done);
    }

    /// Builds a Dockerfile in place and on overlay, which must make the same image; gives what was said in
    /// place.
    fn same(&self, name: &str, text: &str, inside: &[&str], more: &[&str]) -> String {
        let context = self.work.join(name);
        std::fs::create_dir(&context).expect("a directory");
        self.same_in(&context, name, text, inside, more)
    }

    /// Does that in a context that is there.
    fn same_in(
        &self,
        context: &Path,
        name: &str,
        text: &str,
        inside: &[&str],
        more: &[&str],
    ) -> String {
        std::fs::write(context.join("Dockerfile"), text).expect("write");
        let context = context.display().to_string();
        let (here, there) = (format!("{name}-in"), format!("{name}-out"));
        let done = self.build("inplace", &context, &here, &[inside, more].concat());
        succeeded(&done);
        self.outside(&context, &there, more);
        assert_eq!(self.digest(&here), self.digest(&there), "{text}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    }

    /// Gives the digest of an image in the shared directory.
    fn digest(&self, name: &str) -> String {
        let index = std::fs::read(self.work.join(name).join("index.json")).expect("an index");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
        index["manifests"][0]["digest"]
            .as_str()
            .expect("a digest")
            .to_owned()
    }

    fn sh(&self, script: &str) -> String {
        let words = ["/program/busybox", "sh", "-c", script].map(OsString::from);
        let done = self.container.exec(&[], &words);
        succeeded(&done);
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

fn succeeded(done: &Output) {
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

#[test]
fn one_container_builds_in_place_again_and_again() {
    let place = Place::new(&[]);
    let secret = "--secret=id=token,src=/kept/secret";
    let here = ["--cache-dir=/store", secret, "--tar-path=/out/build.tar"];
    succeeded(&place.build("inplace", "/kept/context", "first-in", &here));
    let first = place.work.join("first").display().to_string();
    let outside = format!(
        "--secret=id=token,src={}",
        place.work.join("secret").display()
    );
    place.outside(&first, "first-out", &[&outside]);
    assert_eq!(place.digest("first-in"), place.digest("first-out"));
    // What was named is there, the rest is the image's.
    let there = place.sh("ls /kept/context /out; cat /again; ls /usr/lib/jvm 2>&1 || true");
    assert!(there.contains("build.tar\nmade\n"), "{there}");
    assert!(
        there.contains("of-the-context") && !there.contains("java"),
        "{there}"
    );
    // On top of an image that deletes what is below it.
    let above = format!(
        "--build-context=above=oci-layout://{}",
        place.work.join("first-in").display()
    );
    let text = "FROM above\nRUN mkdir /tree && echo new > /tree/new; ls /copied > /listed\n";
    place.same("third", text, &["--cache-dir=/store"], &[&above]);
    // Another image stands on the layers that the first one's files were moved out of.
    let again = format!(
        "--build-context=again=oci-layout://{}",
        place.layout.display()
    );
    let text = "FROM base\nRUN rm -r /tree\n\
                RUN --mount=from=again,target=/o cp -r /o/tree /again\n";
    place.same("fourth", text, &["--cache-dir=/store"], &[&again]);
    let second = place.work.join("second").display().to_string();
    let more = ["--cache-dir=/store", "--cleanup"];
    succeeded(&place.build("inplace", &second, "second-in", &more));
    // Its cache had what the first build left there.
    let fill = place.work.join("first").display().to_string();
    let store = tempfile::tempdir().expect("a directory");
    let shared = format!("--cache-dir={}", store.path().display());
    for (context, name, more) in [
        (&fill, "fill", &[outside.as_str()][..]),
        (&second, "second-out", &[]),
    ] {
        let done = Command::new(env!("CARGO_BIN_EXE_shutter"))
            .args(place.words("overlay", context, name, more))
            .arg(&shared)
            .output()
            .expect("run shutter");
        succeeded(&done);
    }
    assert_eq!(place.digest("second-in"), place.digest("second-out"));
    let left = place.sh("/program/busybox ls -A /");
    let left: Vec<&str> = left
        .lines()
        .filter(|name| {
            ![
                "dev",
                "etc",
                "proc",
                "sys",
                "program",
                "tmp",
                "work",
                ".dockerenv",
            ]
            .contains(name)
        })
        .collect();
    assert_eq!(left, ["store"], "{left:?}");
}

#[test]
fn a_chroot_leaves_the_agent_as_it_was() {
    let place = Place::new(&[]);
    place.sh("ln -s java /usr/lib/jvm/link; mknod /node p; chmod 4711 /usr/lib/jvm/java");
    let store = format!("--cache-dir={}", place.work.join("store").display());
    // The store of the last two makes its own directory new.
    place.sh("mkdir /store");
    // All that is there, with times, but for what is shared with this machine.
    let shared = place.work.display();
    let listing = || {
        let found = place.sh(&format!(
            "find / -xdev \\( -path /store -o -path {shared} \\) -prune -o \
             -exec stat -c '%N %F %a %u:%g %s %y' {{}} + | sort; \
             find / -xdev \\( -path /store -o -path {shared} \\) -prune -o -type f \
             -exec sha256sum {{}} + | sort"
        ));
        let lines: BTreeSet<String> = found.lines().map(str::to_owned).collect();
        lines
    };
    let before = (listing(), place.container.changes());
    assert!(
        before
            .0
            .iter()
            .any(|line| line.ends_with("  /usr/lib/jvm/java"))
    );
    let secret = "--secret=id=token,src=/kept/secret";
    let first = place.work.join("first").display().to_string();
    let outside = format!(
        "--secret=id=token,src={}",
        place.work.join("secret").display()
    );
    place.outside(&first, "outside", &[&outside]);
    // What is asked for, and where the store lies.
    let table = [
        ("chroot", store.as_str()),
        ("chroot", "--cache-dir=/store"),
        ("auto", "--cache-dir=/store"),
    ];
    for (number, (root, store)) in table.into_iter().enumerate() {
        let name = format!("first-{number}");
        succeeded(&place.build(root, "/kept/context", &name, &[secret, store]));
        assert_eq!(place.digest(&name), place.digest("outside"), "{root}");
        let after = listing();
        let other: Vec<&String> = after.symmetric_difference(&before.0).collect();
        assert_eq!(other, Vec::<&String>::new(), "{root} {store}");
    }
    let changes = place.container.changes();
    let other: Vec<&str> = changes
        .lines()
        .filter(|line| !line.contains(" /store") && !before.1.contains(line))
        .collect();
    assert_eq!(other, Vec::<&str>::new());
}

#[test]
fn what_a_build_names_is_neither_removed_nor_in_the_image() {
    let place = Place::new(&[]);
    place.sh(
        "cd /kept; mkdir extra sub sub/part; echo x > extra/x; echo y > sub/other; \
         echo 'FROM base' > elsewhere; echo 'RUN echo 1 > /one; ln /one /two' >> elsewhere; \
         echo one > /kept/elsewhere.dockerignore; cd sub/part; /program/busybox tar -cf /kept/c.tar .",
    );
    let store = "--cache-dir=/store";
    // Context, more flags, and what is there after it.
    let table: &[(&str, &[&str], &str)] = &[
        (
            "/kept/context",
            &["--dockerfile=/kept/elsewhere"],
            "/kept/elsewhere /kept/elsewhere.dockerignore /kept/context/of-the-context",
        ),
        (
            "/kept/context",
            &[
                "--dockerfile=/kept/elsewhere",
                "--build-context=extra=/kept/extra",
            ],
            "/kept/extra/x",
        ),
        (
            "/kept/sub",
            &["--dockerfile=/kept/elsewhere", "--context-sub-path=part"],
            "/kept/sub/other /kept/sub/part",
        ),
        (
            "tar:///kept/c.tar",
            &["--dockerfile=elsewhere"],
            "/kept/c.tar",
        ),
    ];
    for (number, (context, more, there)) in table.iter().enumerate() {
        // What a build names is all that the one before has left.
        place.sh(
            "mkdir -p /kept/context /kept/extra /kept/sub/part; cd /kept; echo x > extra/x; \
             echo y > sub/other; echo c > context/of-the-context; \
             printf 'FROM base\\nRUN echo 1 > /one; ln /one /two\\n' > elsewhere; \
             echo one > elsewhere.dockerignore; cp elsewhere sub/part; \
             /program/busybox tar -C /kept -cf c.tar elsewhere",
        );
        let more = [&[store], *more].concat();
        let done = place.build("inplace", context, &format!("named-{number}"), &more);
        succeeded(&done);
        place.sh(&format!("/program/busybox ls -d {there} /one"));
        assert_eq!(
            place.digest(&format!("named-{number}")),
            place.digest("named-0")
        );
    }
    let refused = place.build("inplace", "/", "all", &[store, "--dockerfile=/one"]);
    assert!(!refused.status.success());
    place.sh("/program/busybox cp /program/busybox /busybox; printf 'FROM base\\nRUN true\\n' > /Dockerfile");
    let refused = place.build("inplace", "/", "all", &[store]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("/ itself is to be kept"), "{said}");
    place.sh("/program/busybox ls -d /busybox /one");
    // Without a command there is nothing in the root to be removed.
    place.sh(
        "/program/busybox mkdir -p /plain; printf 'FROM base\\nENV A=b\\n' > /plain/Dockerfile",
    );
    succeeded(&place.build("inplace", "/plain", "plain", &[store, "--cleanup"]));
    place.sh("/program/busybox ls -d /busybox /one");
}

#[test]
fn images_with_flags_of_their_own_are_as_on_overlay() {
    let place = Place::new(&[]);
    // Dockerfile, flags, and what is said of it.
    let table: &[(&str, &[&str], &str)] = &[
        (
            "FROM base AS a\nRUN echo a > /f; mkdir /d\nFROM base AS b\nRUN echo b > /f; echo x > /x\n\
             FROM a\nCOPY --from=b /x /x\n",
            &["--single-snapshot"],
            "",
        ),
        (
            "FROM base\nRUN mkdir /cache; echo 1 > /cache/f; ln /cache/f /z\nRUN touch /cache/g\n",
            &["--ignore-path=/cache"],
            "",
        ),
        (
            "FROM base\nWORKDIR /program\nRUN true\n",
            &[],
            "/program is a mount of this container",
        ),
        // Size and time tell nothing.
        (
            "FROM base\nRUN echo BASE > /tree/file; touch -d @1700000000 /tree/file; \
             echo 1 > /f; touch -d @5 /f\nRUN echo 2 > /f; touch -d @5 /f\n",
            &[],
            "",
        ),
    ];
    for (number, (text, more, says)) in table.iter().enumerate() {
        let said = place.same(
            &format!("flags-{number}"),
            text,
            &["--cache-dir=/store"],
            more,
        );
        // Once, where it is to be said.
        assert!(says.is_empty() || said.matches(says).count() == 1, "{said}");
    }
}

#[test]
fn what_is_mounted_over_a_file_of_the_base_says_nothing_of_the_image() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (name, text) in [
        (
            "passwd",
            "root:x:0:0::/root:/bin/sh\nthere:x:7:7::/:/bin/sh\n",
        ),
        ("group", "root:x:0:\nthere:x:7:\n"),
        ("other", "of the container"),
    ] {
        std::fs::write(dir.path().join(name), text).expect("write");
    }
    let volume = |name: &str, to: &str| format!("--volume={}:{to}:ro", at(name));
    let mounts = [
        volume("passwd", "/etc/passwd"),
        volume("group", "/etc/group"),
        volume("other", "/tree/file"),
    ];
    let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
    let place = Place::new(&mounts);
    // Its files are moved into the root as far as they can be.
    let text = "FROM base\nRUN echo 1 > /one\nCOPY --chown=app:app of-the-context /copied\n\
                USER app\nRUN id -u > /tmp/user; touch -r /bin /tmp/user\n";
    let context = place.work.join("over");
    std::fs::create_dir(&context).expect("a directory");
    std::fs::write(context.join("of-the-context"), "copied").expect("write");
    let said = place.same_in(&context, "over", text, &["--cache-dir=/store"], &[]);
    assert_eq!(
        said.matches("/etc/passwd is a mount of this container")
            .count(),
        1,
        "{said}"
    );
    let there = place.sh("cat /tmp/user /etc/passwd /tree/file");
    assert!(
        there.starts_with("1000\n") && there.ends_with("of the container"),
        "{there}"
    );
}

#[test]
fn clearing_the_caches_of_an_image_leaves_the_store() {
    let place = Place::new(&[]);
    let text = "FROM base\nRUN mkdir -p /var/cache/apt/archives /root/.cache/x && touch /var/cache/apt/y\n\
                RUN rm -rf /var/cache/* /root/.cache ~/.cache /tmp/* /var/tmp/*; echo 1 > /one\n";
    place.same("caches", text, &[], &[]);
    place.same("again", text, &[], &[]);
    assert!(place.sh("ls -A /").contains(".shutter\n"));
}

#[test]
fn what_a_push_wants_is_read_before_the_base_comes() {
    let made = registry::Certificates::make();
    let registry = registry::start_with(&registry::Setup {
        login: Some(("me".into(), "pass".into())),
        tls: Some(made.pair("server")),
        client_ca: None,
        notes_requests: false,
    });
    let place = Place::new(&["--env=HOME=/root", "--env=PATH=/bin:/agent"]);
    std::fs::copy(made.path("ca.pem"), place.work.join("ca.pem")).expect("copy");
    // The agent's own authorities and the program that gives its credentials: what the image has in
    // their places, if anything, is not to be used.
    place.sh(&format!(
        "mkdir -p /etc/ssl/certs /agent /root/.docker && \
         cp {}/ca.pem /etc/ssl/certs/ca-certificates.crt && \
         echo '{{\"credHelpers\": {{\"{}\": \"test\"}}}}' > /root/.docker/config.json && \
         printf '#!/program/busybox sh\\necho {{\\\"Username\\\": \\\"me\\\", \\\"Secret\\\": \\\"pass\\\"}}\\n' \
         > /agent/docker-credential-test && chmod 755 /agent/docker-credential-test",
        place.work.display(),
        registry.host
    ));
    let context = place.work.join("pushed");
    std::fs::create_dir(&context).expect("a directory");
    // Nothing is there to be pushed before the command has ended.
    let text = "FROM base AS made\nRUN ! test -e /agent && ! test -e /etc/ssl && echo 1 > /one\n\
                FROM scratch\nCOPY --from=made /one /\n";
    std::fs::write(context.join("Dockerfile"), text).expect("write");
    let layout = format!("base=oci-layout://{}", place.layout.display());
    let words = [
        "build",
        "--context",
        &context.display().to_string(),
        "--rootfs=inplace",
        "--cache-dir=/store",
        "--build-context",
        &layout,
        "--skip-push-permission-check",
        "--destination",
        &format!("{}/some/image:1", registry.host),
    ]
    .map(OsString::from);
    let words: Vec<OsString> = place.called.iter().cloned().chain(words).collect();
    succeeded(&place.container.exec(&[], &words));
    assert!(registry.has_tag("some/image", "1"));
}

#[test]
fn a_base_that_does_not_fit_is_refused_before_anything_is_removed() {
    // The root directory of the machine has too much room for this, so the base says that it is large.
    let place = Place::new(&[]);
    let large = place.work.join("large");
    let script = "cp -r \"$1\" \"$2\" && cd \"$2\" && python3 - <<'END'\n\
        import json, hashlib\n\
        path = lambda digest: 'blobs/' + digest.replace(':', '/')\n\
        index = json.load(open('index.json'))\n\
        manifest = json.load(open(path(index['manifests'][0]['digest'])))\n\
        manifest['layers'][0]['size'] = 1 << 50\n\
        text = json.dumps(manifest).encode()\n\
        digest = hashlib.sha256(text).hexdigest()\n\
        open('blobs/sha256/' + digest, 'wb').write(text)\n\
        index['manifests'][0].update(digest='sha256:' + digest, size=len(text))\n\
        json.dump(index, open('index.json', 'w'))\nEND\n";
    let made = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&place.layout, &large])
        .status();
    assert!(made.expect("run sh").success());
    let context = place.work.join("first").display().to_string();
    let base = format!("--build-context=base=oci-layout://{}", large.display());
    let store = format!("--cache-dir={}", place.work.join("store").display());
    let before = place.container.changes();
    for root in ["inplace", "chroot"] {
        let done = place.build(root, &context, "large", &[&base, &store]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let expected = match root {
            "inplace" => "error: the root directory has ",
            _ => "error: the store ",
        };
        assert!(!done.status.success() && said.contains(expected), "{said}");
        assert!(said.contains("free, and "), "{said}");
        assert_eq!(place.container.changes(), before);
    }
}

#[test]
fn a_root_without_room_for_a_bases_files_is_left_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let [context, program, store] =
        ["context", "program", "store"].map(|name| dir.path().join(name));
    for dir in [&context, &program, &store] {
        std::fs::create_dir(dir).expect("a directory");
    }
    std::fs::copy("/bin/busybox", program.join("busybox")).expect("busybox");
    std::fs::write(context.join("Dockerfile"), "FROM base\nRUN echo 1 > /one\n").expect("write");
    base::make(dir.path());
    let called = container::portable(
        Path::new(env!("CARGO_BIN_EXE_shutter")),
        &program,
        "/program",
    );
    // A root directory of its own with a bound, and volumes.
    let script = "mkdir \"$0/root\" && mount -t tmpfs -o $1 none \"$0/root\" && cd \"$0/root\" && \
        mkdir old proc dev program context base store && echo old > old/file && \
        mount -t proc none proc && mount --rbind /dev dev && for d in program context base store; do \
        mount --bind \"$0/$d\" $d || exit 1; done; shift; chroot . \"$@\"; code=$?; \
        ls old 2> /dev/null; cat one; exit $code";
    // The bound, what is left, and what is said.
    let table = [
        ("nr_inodes=100", "file\n", " in place the base image needs "),
        ("size=1m", "file\n", " in place the base image needs "),
        ("nr_inodes=3000,size=16m", "1\n", ""),
    ];
    for (bound, left, says) in table {
        let done = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(dir.path())
            .arg(bound)
            .args(&called)
            .args([
                "build",
                "--force",
                "--rootfs=inplace",
                "--no-push",
                "--context=/context",
            ])
            .args([
                "--cache-dir=/store",
                "--build-context=base=oci-layout:///base",
            ])
            .output()
            .expect("run unshare");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(
            String::from_utf8_lossy(&done.stdout),
            left,
            "{bound}: {said}"
        );
        assert_eq!(done.status.success(), says.is_empty(), "{bound}: {said}");
        assert!(said.contains(says), "{bound}: {said}");
        std::fs::remove_dir(dir.path().join("root")).expect("remove");
    }
}

#[test]
fn who_may_not_make_devices_leaves_no_stand_ins_to_who_may() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let layout = base::make(dir.path());
    let build = |program: &[&str], text: &str, base: &str, more: &[&str]| {
        std::fs::create_dir_all(at("context")).expect("a directory");
        std::fs::write(dir.path().join("context/Dockerfile"), text).expect("write");
        let words = [program, &[env!("CARGO_BIN_EXE_shutter"), "build"], more].concat();
        let done = Command::new(words[0])
            .args(&words[1..])
            .args([
                "--context",
                &at("context"),
                "--no-push",
                "--log-format=text",
            ])
            .args(["--build-context", &format!("base=oci-layout://{base}")])
            .output();
        let done = done.expect("run shutter");
        succeeded(&done);
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    };
    let store = |name: &str| format!("--cache-dir={}", at(name));
    let made = format!("--oci-layout-path={}", at("made"));
    let node = "FROM base\nRUN mknod /node c 1 3\n";
    build(
        &["env"],
        node,
        &layout.display().to_string(),
        &[&store("first"), &made],
    );
    let look = "FROM base\nRUN stat -c 'it is a %F' /node\n";
    let fewer = ["setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod"];
    let copy = "FROM base\nCOPY Dockerfile /copied\n";
    let said = build(&fewer, copy, &at("made"), &[&store("shared")]);
    assert!(said.contains("does not keep device nodes"), "{said}");
    // Nor does a command of such a builder want it; the image has it all the same.
    let told = "FROM base\nRUN ! test -e /node && echo 1 > /one\n";
    let kept = format!("--oci-layout-path={}", at("kept"));
    let chroot = [&store("shared"), &kept, "--rootfs=chroot"];
    build(&fewer, told, &at("made"), &chroot);
    let seen = [&store("second"), "--rootfs=overlay"];
    let said = build(
        &["env"],
        "FROM base\nRUN stat -c '%F' /node; ls /one\n",
        &at("kept"),
        &seen,
    );
    assert!(
        said.contains("character special file\n") && said.contains("/one\n"),
        "{said}"
    );
    let said = build(
        &["env"],
        look,
        &at("made"),
        &[&store("shared"), "--rootfs=overlay"],
    );
    assert!(said.contains("it is a character special file"), "{said}");
}

/// Commands that mean harm: root, command, and what the build says of it; nothing where it is none of
/// the command's business how it ends.
const ATTACKS: &[(&str, &str, &str)] = &[
    // Forks without end.
    ("inplace", "f() { f | f & }; f; f; true", ""),
    ("chroot", "f() { f | f & }; f; f; true", ""),
    // Renames under the tracker, and goes on when the command has ended.
    (
        "inplace",
        "mkdir /r; cd /r; for i in 1 2 3; do echo $i > a$i; \
         (while :; do mv a$i b$i; mv b$i a$i; done) > /dev/null 2>&1 & done; \
         n=0; while [ $n -lt 500 ]; do n=$((n+1)); mv /r /s; mv /s /r; done",
        "",
    ),
    // Kills everybody that it can see.
    ("chroot", "kill -9 -1; echo on", ""),
    // Holds files that are gone.
    (
        "inplace",
        "(exec 3> /held; rm /held; exec sleep 1000) & rm -rf /tree; echo > /new",
        "",
    ),
    // Writes to what is the kernel's.
    (
        "inplace",
        "echo 1 > /proc/sys/kernel/panic",
        "ended with exit code",
    ),
    (
        "inplace",
        "echo x > /sys/kernel/uevent_helper",
        "ended with exit code",
    ),
    // Fills the file system that the store lies on.
    ("chroot", "cat /dev/zero > /zeros", "ended with exit code 1"),
    // Takes the store away, and its own shell.
    (
        "inplace",
        "rm -rf /store /etc /bin 2> /dev/null; true",
        "a command has removed /store, where the builder itself works",
    ),
];

#[test]
fn after_a_command_that_means_harm_the_next_build_works() {
    let place = Place::new(&["--pids-limit=300", "--tmpfs=/small:size=96m,exec,dev"]);
    let second = place.work.join("plain");
    std::fs::create_dir(&second).expect("a directory");
    let text = "FROM base\nRUN echo well > /well; rm -r /tree\n";
    std::fs::write(second.join("Dockerfile"), text).expect("write");
    let second = second.display().to_string();
    place.outside(&second, "outside", &[]);
    let wanted = place.digest("outside");
    let attack = place.work.join("attack");
    std::fs::create_dir(&attack).expect("a directory");
    let context = attack.display().to_string();
    for (number, (root, script, says)) in ATTACKS.iter().enumerate() {
        let text = format!("FROM base\nRUN {script}\n");
        std::fs::write(attack.join("Dockerfile"), text).expect("write");
        let store = match *root {
            "chroot" => "--cache-dir=/small/store",
            _ => "--cache-dir=/store",
        };
        let done = place.build(root, &context, &format!("attack-{number}"), &[store]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!said.contains("panicked"), "{script}: {said}");
        let ended = match says.is_empty() {
            true => {
                done.status.success() || said.contains("error: ") || done.status.code() == Some(137)
            }
            false => !done.status.success() && said.contains(says),
        };
        assert!(ended, "{script}: {:?}: {said}", done.status);
        let name = format!("after-{number}");
        let done = place.build(root, &second, &name, &[store]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "after {script}: {said}");
        assert_eq!(place.digest(&name), wanted, "after {script}");
    }
}

/// Where a user namespace allows mounts, but not what else a command wants, nothing is given up for one.
#[test]
fn what_mounts_nothing_is_built_as_who_the_builder_is() {
    let place = Place::by(Engine::podman, &[]);
    let context = place.work.join("devices");
    std::fs::create_dir(&context).expect("a directory");
    let text = "FROM base\nRUN mknod /null c 1 3 && mknod /disk b 7 0\n\
                RUN head -c 100 /dev/zero > /zeros && echo lost > /dev/null && test -c /dev/null\n";
    std::fs::write(context.join("Dockerfile"), text).expect("write");
    let context = context.display().to_string();
    let store = format!("--cache-dir={}", place.work.join("store").display());
    let done = place.build("auto", &context, "inside", &[&store]);
    succeeded(&done);
    place.outside(&context, "outside", &[]);
    assert_eq!(place.digest("inside"), place.digest("outside"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("commands run in a chroot"), "{said}");
    assert!(!said.contains("CAP_MKNOD"), "{said}");
    // The doctor says what a build does.
    let doctor = ["doctor", &store].map(OsString::from);
    let words: Vec<OsString> = place.called.iter().cloned().chain(doctor).collect();
    let told = place.container.exec(&[], &words);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("auto takes chroot"), "{told}");
    assert!(!told.contains("CAP_MKNOD"), "{told}");
}
