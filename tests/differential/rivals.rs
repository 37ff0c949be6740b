//! The builders: each gets a context and gives an image as it is compared, or why there is none.

use super::base;
use super::listing::{Listing, read_layout, read_saved};
use super::script::{Case, Form, Step, Style};
use super::tree;
use serde_json::{Map, Value, json};
use shutter::oci::Digest;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a builder made, or what it said in place of it.
pub type Made = Result<Listing, String>;

/// The base of the recorded builds, with a history: there are builders that need one.
const PLAIN: &str = r#"FROM scratch
ADD base.tar /
ENV PATH=/bin
CMD ["sh"]
"#;

/// A second base, with links, directories and metadata that the small one does not have, in two
/// layers, and with a config.
const RICH: &str = r#"FROM base
RUN mkdir -p /usr/lib /rich/dir /rich/later /opt; ln -s usr/lib /lib; ln -s dir /rich/dirlink; ln -s /rich/dir /rich/abs; \
    ln -s nowhere /rich/dangling; echo a > /rich/a; ln /rich/a /rich/b; echo l > /usr/lib/l; echo g > /rich/gone; \
    echo s > /rich/setuid; chmod 4755 /rich/setuid; mkfifo /rich/pipe; echo 'sp' > '/rich/sp ace'; chown 7:8 /rich/dir; \
    chmod 2775 /rich/dir; mkdir -p /rich/deep/er/still; echo x > /rich/deep/er/still/x
RUN rm /rich/gone; rm -rf /rich/deep/er; mkdir -p /rich/deep/er/anew; echo late > /rich/later/x
ENV A=rich GREETING="hello world"
LABEL k1=rich maintainer="nobody"
WORKDIR /opt
EXPOSE 8080
VOLUME /rich/later
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["env"]
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=10s CMD true
"#;

/// A third one, with triggers.
const TRIGGER: &str = r#"FROM base
ENV A=trigger
ONBUILD COPY file /onbuild/from-base
ONBUILD RUN echo "$A" > /onbuild/run; mkdir /onbuild/dir
ONBUILD ENV A=triggered B=${A}
ONBUILD WORKDIR /onbuild/dir
ONBUILD LABEL k1="$A"
"#;

/// A directory with the bases, a store and room for contexts.
pub struct Bench {
    dir: tempfile::TempDir,
    plain: PathBuf,
    rich: PathBuf,
    trigger: PathBuf,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        base::make(dir.path());
        let bench = Bench {
            plain: dir.path().join("plain"),
            rich: dir.path().join("rich"),
            trigger: dir.path().join("trigger"),
            dir,
        };
        let context = bench.path("bases");
        std::fs::create_dir(&context).expect("a context");
        std::fs::rename(bench.path("base.tar"), context.join("base.tar")).expect("rename");
        for (text, out) in [
            (PLAIN, &bench.plain),
            (RICH, &bench.rich),
            (TRIGGER, &bench.trigger),
        ] {
            std::fs::write(context.join("Dockerfile"), text).expect("write");
            let mut command = bench.shutter(&context, "store");
            let output = command.arg("--oci-layout-path").arg(out).output();
            let output = output.expect("run shutter");
            assert!(output.status.success(), "a base: {}", said(&output));
        }
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives the bases by name.
    pub fn bases(&self) -> [(&'static str, &Path); 3] {
        [
            ("base", &self.plain),
            ("rich", &self.rich),
            ("trigger", &self.trigger),
        ]
    }

    /// Writes the context of a case, with the Dockerfile in some style.
    pub fn lay(&self, case: &Case, style: Style) -> PathBuf {
        let context = self.path("context");
        tree::lay(&case.tree, &case.ignore, &context);
        std::fs::write(
            self.path("secret"),
            case.secret.as_deref().unwrap_or_default(),
        )
        .expect("write");
        // Beside the context, so that what .dockerignore says of it does not matter.
        std::fs::write(self.path("Dockerfile"), case.dockerfile(style)).expect("write");
        context
    }

    /// Gives the program with context, store and bases set, the Dockerfile being the context's own
    /// or the one beside it.
    fn shutter(&self, context: &Path, store: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shutter"));
        command
            .args(["build", "--no-push", "--log-format", "text", "--context"])
            .arg(context);
        command.arg("--cache-dir").arg(self.path(store));
        for (name, layout) in self.bases() {
            if layout.join("index.json").exists() {
                command.arg("--build-context");
                command.arg(format!("{name}=oci-layout://{}", layout.display()));
            }
        }
        command.env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Builds what `lay` laid.
    pub fn build(&self, case: &Case, store: &str, flags: &[&str]) -> Made {
        let out = self.path("out");
        let _ = std::fs::remove_dir_all(&out);
        let mut command = self.shutter(&self.path("context"), store);
        command.arg("--dockerfile").arg(self.path("Dockerfile"));
        command
            .arg("--oci-layout-path")
            .arg(&out)
            .args(case.flags(&self.path("secret")))
            .args(flags);
        let output = command.output().expect("run shutter");
        let said = said(&output);
        assert!(!said.contains("panicked"), "{said}");
        match output.status.success() {
            true => Ok(read_layout(&out)),
            false => Err(said),
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Gives a base as an archive that engines load.
fn archive(bench: &Bench, name: &str, layout: &Path) -> PathBuf {
    let archive = bench.path(&format!("{name}.docker.tar"));
    let from = format!("oci:{}", layout.display());
    let to = format!(
        "docker-archive:{}:localhost/{name}:latest",
        archive.display()
    );
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", &from, &to])
        .output();
    let copied = copied.expect("these tests need `skopeo` to be installed");
    assert!(copied.status.success(), "{}", said(&copied));
    archive
}

/// The BuildKit in a dockerd.
pub struct Docker {
    daemon: super::dockerd::Dockerd,
}

impl Docker {
    pub fn start(bench: &Bench) -> Docker {
        let daemon = super::dockerd::start("127.0.0.1:1");
        for (name, layout) in bench.bases() {
            let archive = archive(bench, name, layout);
            let loaded = daemon.docker(&["load", "-q", "-i", &archive.display().to_string()]);
            assert!(loaded.status.success(), "{}", said(&loaded));
            let tagged = daemon.docker(&["tag", &format!("localhost/{name}:latest"), name]);
            assert!(tagged.status.success(), "{}", said(&tagged));
        }
        Docker { daemon }
    }

    pub fn build(&self, bench: &Bench, case: &Case) -> Made {
        let file = bench.path("Dockerfile").display().to_string();
        let context = bench.path("context").display().to_string();
        let flags = case.flags(&bench.path("secret"));
        let mut args = vec![
            "build",
            "--no-cache",
            "--network=host",
            "--progress=plain",
            "-t",
            "made",
            "-f",
            &file,
        ];
        args.extend(flags.iter().map(String::as_str));
        args.push(&context);
        let output = self.daemon.docker(&args);
        if !output.status.success() {
            return Err(said(&output));
        }
        let saved = self.daemon.docker(&["save", "made"]);
        if said(&saved).contains("empty export") {
            // An image without a layer cannot be saved.
            let inspected = self.daemon.docker(&["inspect", "made"]);
            let all: Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
            let image = json!({"config": all[0]["Config"], "author": all[0]["Author"]});
            return Ok(Listing {
                image,
                manifest: Value::Null,
                files: BTreeMap::new(),
            });
        }
        assert!(saved.status.success(), "{}", said(&saved));
        let _ = self.daemon.docker(&["rmi", "-f", "made"]);
        Ok(read_saved(saved.stdout.as_slice()))
    }

    /// Frees what builds have left.
    pub fn prune(&self) {
        let _ = self.daemon.docker(&["builder", "prune", "-af"]);
    }
}

/// buildah, with a storage of its own.
pub struct Buildah {
    root: PathBuf,
}

impl Buildah {
    pub fn start(bench: &Bench) -> Buildah {
        let buildah = Buildah {
            root: bench.path("buildah"),
        };
        for (name, layout) in bench.bases() {
            let archive = archive(bench, name, layout);
            let pulled = buildah.run(&[
                "pull",
                "-q",
                &format!("docker-archive:{}", archive.display()),
            ]);
            assert!(pulled.status.success(), "{}", said(&pulled));
        }
        buildah
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new("buildah")
            .arg("--root")
            .arg(self.root.join("root"))
            .arg("--runroot")
            .arg(self.root.join("run"))
            .args(["--storage-driver", "overlay"])
            .args(args)
            .output()
            .expect("run buildah")
    }

    pub fn build(&self, bench: &Bench, case: &Case) -> Made {
        let file = bench.path("Dockerfile").display().to_string();
        let context = bench.path("context").display().to_string();
        let flags = case.flags(&bench.path("secret"));
        let mut args = vec![
            "bud",
            "-q",
            "--no-cache",
            "--layers=false",
            "--isolation=oci",
            "--runtime=runc",
        ];
        args.extend([
            "--network=host",
            "--format=docker",
            "--identity-label=false",
            "--pull-never",
            "-t",
            "made",
            "-f",
            &file,
        ]);
        args.extend(flags.iter().map(String::as_str));
        args.push(&context);
        let output = self.run(&args);
        if !output.status.success() {
            return Err(said(&output));
        }
        let out = bench.path("buildah.docker.tar");
        let _ = std::fs::remove_file(&out);
        let pushed = self.run(&[
            "push",
            "-q",
            "made",
            &format!("docker-archive:{}:made:latest", out.display()),
        ]);
        assert!(pushed.status.success(), "{}", said(&pushed));
        let _ = self.run(&["rmi", "-f", "made"]);
        let mut image = read_saved(std::fs::File::open(&out).expect("the archive"));
        // It leaves the directory behind that it has mounted something in.
        image.files.remove(b"run".as_slice());
        Ok(image)
    }
}

/// Runs the commands of a case that has nothing else, one after the other, in a chroot, and lists
/// what is there afterwards.
pub fn in_chroot(bench: &Bench, case: &Case) -> Made {
    let [stage] = case.script.stages.as_slice() else {
        panic!("one stage alone runs in a chroot");
    };
    let super::script::From::Image(name) = stage.from else {
        panic!("what runs in a chroot starts from a base");
    };
    let base = read_base(bench, name);
    let root = bench.path("chroot");
    let _ = std::fs::remove_dir_all(&root);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(base)
        .arg(&root)
        .status()
        .expect("run cp");
    assert!(copied.success(), "copy the base");
    for step in &stage.steps {
        let Step::Run(run) = step else {
            panic!("only commands run in a chroot");
        };
        let end = if matches!(run.form, Form::Heredoc | Form::Script) {
            "\n"
        } else {
            "; "
        };
        let mut script = run.commands.clone();
        script.push("true".into());
        let mut script = script.join(end);
        if let Some((command, end, text)) = &run.here {
            script.push_str(&format!("; {command}\n{text}\n{end}\n"));
        }
        let workdir = if name == "rich" { "/opt" } else { "/" };
        let home = home_of_root(&root);
        let ran = Command::new("/usr/sbin/chroot")
            .arg(&root)
            .args([
                "/bin/sh",
                "-c",
                &format!("umask 022; cd {workdir}; {}", script),
            ])
            .env_clear()
            .envs([("PATH", "/bin"), ("HOME", &home)])
            .output()
            .expect("run chroot");
        if !ran.status.success() {
            return Err(said(&ran));
        }
    }
    let mut files = BTreeMap::new();
    let mut names: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    list(&root, &root, &mut files, &mut names);
    for (path, file) in &mut files {
        let at = root.join(std::ffi::OsStr::from_bytes(path));
        let meta = at.symlink_metadata().expect("metadata");
        let mut group = names[&(meta.dev(), meta.ino())].clone();
        group.sort();
        if group.len() > 1
            && !meta.is_dir()
            && let Some(file) = file.as_object_mut()
        {
            file.insert("hard_links".into(), json!(group));
        }
    }
    Ok(Listing {
        image: Value::Null,
        manifest: Value::Null,
        files,
    })
}

/// Gives where root is at home, as engines look it up before each command: `/` where /etc/passwd does
/// not say, or an earlier command has removed it.
fn home_of_root(root: &Path) -> String {
    let shown = Command::new("/usr/sbin/chroot")
        .arg(root)
        .args(["/bin/cat", "/etc/passwd"])
        .output()
        .expect("run chroot");
    let users = String::from_utf8_lossy(&shown.stdout).into_owned();
    let home = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [_, _, "0", _, _, home, ..] => Some((*home).to_owned()),
            _ => None,
        }
    });
    home.unwrap_or("/".into())
}

/// Gives the directory that a base is unpacked in, which is made at the first call.
fn read_base(bench: &Bench, name: &str) -> PathBuf {
    let dir = bench.path(&format!("unpacked-{name}"));
    if !dir.exists() {
        let layout = bench
            .bases()
            .into_iter()
            .find(|base| base.0 == name)
            .expect("a base")
            .1;
        let bundle = bench.path(&format!("bundle-{name}"));
        // Its reference is empty, which umoci does not take.
        let tagged = bench.path(&format!("tagged-{name}"));
        let copied = Command::new("skopeo")
            .args(["copy", "--quiet"])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("oci:{}:it", tagged.display()))
            .output()
            .expect("these tests need `skopeo` to be installed");
        assert!(copied.status.success(), "{}", said(&copied));
        let unpacked = Command::new("umoci")
            .args(["unpack", "--image"])
            .arg(format!("{}:it", tagged.display()))
            .arg(&bundle)
            .output()
            .expect("these tests need `umoci` to be installed");
        assert!(unpacked.status.success(), "{}", said(&unpacked));
        std::fs::rename(bundle.join("rootfs"), &dir).expect("rename");
    }
    dir
}

fn list(
    root: &Path,
    dir: &Path,
    files: &mut BTreeMap<Vec<u8>, Value>,
    names: &mut BTreeMap<(u64, u64), Vec<String>>,
) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let meta = path.symlink_metadata().expect("metadata");
        let kind = meta.file_type();
        let mut value = Map::new();
        value.insert("uid".into(), json!(meta.uid()));
        value.insert("gid".into(), json!(meta.gid()));
        let what = if kind.is_dir() {
            list(root, &path, files, names);
            "dir"
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).expect("a target");
            value.insert(
                "target".into(),
                json!(super::listing::shown(target.as_os_str().as_bytes())),
            );
            "symlink"
        } else if kind.is_fifo() {
            "fifo"
        } else if kind.is_char_device() {
            "char"
        } else if kind.is_block_device() {
            "block"
        } else {
            let content = std::fs::read(&path).expect("content");
            value.insert("size".into(), json!(content.len()));
            value.insert("sha256".into(), json!(Digest::of(&content).hex()));
            "file"
        };
        if what != "symlink" {
            value.insert(
                "mode".into(),
                json!(format!("{:04o}", meta.mode() & 0o7777)),
            );
        }
        value.insert("type".into(), json!(what));
        let name = path
            .strip_prefix(root)
            .expect("below")
            .as_os_str()
            .as_bytes()
            .to_vec();
        names
            .entry((meta.dev(), meta.ino()))
            .or_default()
            .push(super::listing::shown(&name));
        files.insert(name, Value::Object(value));
    }
}
