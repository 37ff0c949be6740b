//! What the caller asked for, validated, as plain data.

mod git;

pub use git::{CheckoutTimes, GitSource, PullMethod, Submodules, unescaped};

use crate::oci::{Format, Platform, Reference};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip at a level from 1 to 9.
    Gzip(u32),
    /// zstd at a level from 1 to 22.
    Zstd(i32),
}

/// Which root file system a build runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootfsChoice {
    /// The fastest that works here.
    Auto,
    /// Kernel overlay.
    Overlay,
    /// A file system of the builder's own, by way of FUSE.
    Fuse,
    /// A directory of its own, which commands enter by `chroot`.
    Chroot,
    /// The root directory that the builder itself runs in.
    InPlace,
}

impl RootfsChoice {
    /// All that are a root themselves, the fastest first.
    pub const ROOTS: [RootfsChoice; 4] = [
        RootfsChoice::Overlay,
        RootfsChoice::Fuse,
        RootfsChoice::InPlace,
        RootfsChoice::Chroot,
    ];

    /// Gives the name it is asked for by.
    pub fn name(self) -> &'static str {
        match self {
            RootfsChoice::Auto => "auto",
            RootfsChoice::Overlay => "overlay",
            RootfsChoice::Fuse => "fuse",
            RootfsChoice::Chroot => "chroot",
            RootfsChoice::InPlace => "inplace",
        }
    }

    /// Tells whether commands change files where they are, with nothing mounted.
    pub fn is_live(self) -> bool {
        matches!(self, RootfsChoice::Chroot | RootfsChoice::InPlace)
    }
}

/// Whose the root directory is that the builder runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootOwner {
    /// The builder's: a container made for it.
    Builder,
    /// That of a container in which other programs live too; a build in place has to be asked for.
    Container,
    /// The machine's: there is never a build in place.
    Machine,
}

/// How registries are talked to; hosts are compared with the registry part of a reference.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Plain HTTP when pushing.
    pub insecure_push: bool,
    /// Plain HTTP when pulling.
    pub insecure_pull: bool,
    /// Plain HTTP with these.
    pub insecure: Vec<String>,
    /// No certificate check when pushing.
    pub skip_tls_push: bool,
    /// No certificate check when pulling.
    pub skip_tls_pull: bool,
    /// No certificate check with these.
    pub skip_tls: Vec<String>,
    /// Further certificate authorities, a PEM file a registry.
    pub certificates: BTreeMap<String, PathBuf>,
    /// Client certificate and key, PEM files, a registry.
    pub client_certificates: BTreeMap<String, (PathBuf, PathBuf)>,
    /// How often a push is tried again after the built-in retries.
    pub push_retry: u32,
    /// Docker config directories and files to look for credentials in, nearest first.
    pub auth_files: Vec<PathBuf>,
    /// The text of DOCKER_AUTH_CONFIG; wins over files.
    pub auth_inline: Option<String>,
    /// Proxies by variable name in lower case: http_proxy, https_proxy, no_proxy, all_proxy.
    pub proxies: BTreeMap<String, String>,
    /// A PEM file of authorities that stands for the system's (SSL_CERT_FILE).
    pub certificate_file: Option<PathBuf>,
    /// Directories of authorities that stand for the system's (SSL_CERT_DIR).
    pub certificate_dirs: Vec<PathBuf>,
}

/// Where files of a build come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A git repository.
    Git(GitSource),
    /// An archive, or a single Dockerfile, at an http or https URL.
    Http(String),
    /// An archive on this machine, compressed or not.
    Archive(PathBuf),
    /// An archive on standard input, compressed or not.
    Stdin,
}

/// What a name after FROM or `--from=` stands for, instead of a stage or an image of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// Files.
    Files(ContextSource),
    /// An image in a registry.
    Image(Reference),
    /// An image in an OCI layout.
    Layout(Layout),
}

/// Bytes that no log, error or `Debug` output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub Vec<u8>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// Where a secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, which is read when the build starts.
    File(PathBuf),
    /// Here: it came from a variable.
    Value(Hidden),
}

/// Where an SSH agent's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// A running agent: its socket.
    Agent(PathBuf),
    /// Private key files, for which the builder is the agent.
    Keys(Vec<PathBuf>),
}

/// How git repositories are talked to.
#[derive(Clone, Debug, Default)]
pub struct GitOptions {
    /// What is shown to the host of the build context (GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD);
    /// no other host gets to see it.
    pub login: Option<GitLogin>,
    /// Whether the certificate of the build context's host is not checked.
    pub insecure_context: bool,
}

/// A user and a password. A token is a user without a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitLogin {
    /// The user.
    pub user: Hidden,
    /// The password.
    pub password: Hidden,
}

/// Where an output of one stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// Where a finished image goes besides registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A docker-archive.
    DockerTar(Place),
    /// An OCI layout, which may be there already.
    OciLayout(PathBuf),
    /// An OCI layout as an archive.
    OciTar(Place),
    /// The image's files, in a directory.
    Directory(PathBuf),
    /// The image's files, as an archive.
    RootTar(Place),
}

/// Where what steps made is kept, besides the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A repository of a registry; tag and digest do not matter.
    Registry(Reference),
    /// A directory with an OCI layout, or where one is to be.
    Layout(PathBuf),
    /// An object store.
    Objects(ObjectStore),
}

/// Which protocol an object store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Amazon's S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// A part of an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStore {
    /// Its protocol.
    pub kind: ObjectKind,
    /// As it was written.
    pub text: String,
    /// The bucket, or container.
    pub bucket: String,
    /// What names of objects begin with; empty for nothing.
    pub prefix: String,
    /// Credentials, endpoint and the like: the usual variables by their names in lower case, such as
    /// `aws_region`. Those that mean nothing are passed over.
    pub settings: BTreeMap<String, Hidden>,
}

impl ObjectStore {
    /// Gives the files that its settings name: keys and tokens, which are read when they are wanted.
    pub fn files(&self) -> Vec<PathBuf> {
        const FILES: [&str; 5] = [
            "aws_web_identity_token_file",
            "aws_container_authorization_token_file",
            "google_application_credentials",
            "google_service_account",
            "azure_federated_token_file",
        ];
        let values = FILES.iter().filter_map(|name| self.settings.get(*name));
        values
            .map(|Hidden(bytes)| PathBuf::from(String::from_utf8_lossy(bytes).into_owned()))
            .collect()
    }
}

/// What is looked up instead of made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caching {
    /// Where entries are read from and written to.
    pub to: Vec<CachePlace>,
    /// Where entries are only read from.
    pub from: Vec<CachePlace>,
    /// Whether entries are written to `to`; the store has them in any case.
    pub writes: bool,
    /// How old an entry may be.
    pub ttl: Duration,
    /// Whether COPY and ADD are looked up and kept.
    pub copies: bool,
    /// Whether RUN and WORKDIR are.
    pub runs: bool,
    /// Whether the caches of commands are restored and saved.
    pub mounts: bool,
}

/// One build.
#[derive(Clone, Debug)]
pub struct Request {
    /// The build context.
    pub context: ContextSource,
    /// The directory below the context's root that is the context; empty for the root.
    pub context_sub_path: PathBuf,
    /// The Dockerfile: absolute where it is on this machine, `/dev/stdin` for standard input; relative
    /// to the context's root where it is in a context that is fetched; or an http or https URL.
    pub dockerfile: PathBuf,
    /// Named contexts by name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// SSH agents by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// How git repositories are talked to.
    pub git: GitOptions,
    /// Whether a RUN may have `--security=insecure`.
    pub allow_insecure: bool,
    /// Where the image is pushed.
    pub destinations: Vec<Reference>,
    /// The image's names in archives and layouts: the destinations, whether or not they are pushed to.
    pub names: Vec<Reference>,
    /// Build arguments in order; the last of a name counts.
    pub build_args: Vec<(String, String)>,
    /// The stage to build, by name or number; the last where there is none.
    pub target: Option<String>,
    /// Labels to add.
    pub labels: Vec<(String, String)>,
    /// Where images are pulled for.
    pub platform: Platform,
    /// What to write besides pushing.
    pub outputs: Vec<Output>,
    /// Gets the manifest's digest.
    pub digest_file: Option<PathBuf>,
    /// Gets `repository@digest` lines.
    pub image_name_with_digest_file: Option<PathBuf>,
    /// Gets `repository:tag@digest` lines.
    pub image_name_tag_with_digest_file: Option<PathBuf>,
    /// Where the store lies.
    pub store: PathBuf,
    /// A store that is read besides, and never written to.
    pub beside: Option<PathBuf>,
    /// What is looked up instead of made again; none where all is made.
    pub caching: Option<Caching>,
    /// How layers are compressed.
    pub compression: Compression,
    /// The image's family of media types; the base's where there is none, OCI from scratch.
    pub format: Option<Format>,
    /// One layer for everything above the base.
    pub single_snapshot: bool,
    /// Same inputs, same image digest: all times of new layers, config and history are the epoch's.
    pub reproducible: bool,
    /// SOURCE_DATE_EPOCH: the seconds since 1970 that the image and what is copied into it are of, and
    /// that no file's time is later than.
    pub epoch: Option<i64>,
    /// Which root file system.
    pub rootfs: RootfsChoice,
    /// Whose the root directory is that the builder runs in.
    pub root_owner: RootOwner,
    /// Paths of this machine that a build in place leaves as they are, with all below them, besides
    /// the store, the contexts, the program itself and all else that is named here.
    pub keep: Vec<PathBuf>,
    /// Paths of the image that no step changes there, with all below them; in place they are kept too.
    pub ignore: Vec<PathBuf>,
    /// Whether a build in place removes its image's files from the root at the end.
    pub cleanup: bool,
    /// Whether destinations are asked for push permission first.
    pub check_push: bool,
    /// How registries are talked to.
    pub registry: RegistryOptions,
    /// Threads for hashing and compression; as many as processors where there is none.
    pub threads: Option<usize>,
}

/// A file that the executor's own image has and no other. Who copies the executor into an image of tools
/// does not copy this, since there those tools are not to be replaced; a build in place keeps it.
pub const OWN_IMAGE: &str = "/.shutter-executor-image";

/// The name of the variable and build argument that says which time an image is of.
pub const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Reads seconds since 1970, up to the year 9999: later times have no RFC 3339 form.
pub fn parse_epoch(text: &str) -> Option<i64> {
    let seconds = text.parse::<i64>().ok();
    seconds.filter(|seconds| (0..=253_402_300_799).contains(seconds))
}

/// Says why a text is no time that an image can be of.
pub fn wrong_epoch(text: &str) -> String {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    match (is_number, text.starts_with('-')) {
        (true, false) => format!("`{text}` seconds after 1970 is later than the year 9999"),
        (true, true) => format!("`{text}` is before 1970"),
        // BuildKit takes the name of a context or stage for the time of that.
        (false, _) => format!(
            "`{text}` is not a number of seconds since 1970; the time of a context or stage is not yet supported"
        ),
    }
}

impl Request {
    /// Makes the request to build a Dockerfile in a directory for this machine and to bring the image
    /// nowhere, with nothing else said.
    pub fn local(dir: PathBuf, dockerfile: PathBuf) -> Request {
        Request {
            context: ContextSource::Directory(dir),
            context_sub_path: PathBuf::new(),
            dockerfile,
            contexts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            git: GitOptions::default(),
            allow_insecure: false,
            destinations: Vec::new(),
            names: Vec::new(),
            build_args: Vec::new(),
            target: None,
            labels: Vec::new(),
            platform: Platform::host(),
            outputs: Vec::new(),
            digest_file: None,
            image_name_with_digest_file: None,
            image_name_tag_with_digest_file: None,
            store: PathBuf::new(),
            beside: None,
            caching: None,
            compression: Compression::Gzip(1),
            format: None,
            single_snapshot: false,
            reproducible: false,
            epoch: None,
            rootfs: RootfsChoice::Auto,
            root_owner: RootOwner::Machine,
            keep: Vec::new(),
            ignore: Vec::new(),
            cleanup: false,
            check_push: false,
            registry: RegistryOptions::default(),
            threads: None,
        }
    }

    /// Gives the value of a build argument; the last of a name counts.
    pub fn build_arg(&self, name: &str) -> Option<&str> {
        let args = self.build_args.iter().rev();
        args.map(|(key, value)| (key, value.as_str()))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// An OCI layout on disk, as `oci-layout://DIR[:TAG][@DIGEST]` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The directory.
    pub dir: PathBuf,
    /// The value of `org.opencontainers.image.ref.name`, where one of several is meant.
    pub tag: Option<String>,
    /// The manifest's digest, where that is given.
    pub digest: Option<crate::oci::Digest>,
}
