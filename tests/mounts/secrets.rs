//! Secrets and SSH agents.

use crate::listing::read_layout;
use crate::project::{Project, mounts, processes};
use crate::{fails, has, nothing_is_left, set_mode};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
