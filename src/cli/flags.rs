//! The one table of flags: the parser, the help and the list of what is refused are made of it.

mod table;

use crate::dockerfile::spelling;
use std::collections::BTreeMap;
use std::path::PathBuf;
pub(super) use table::FLAGS;

/// What was typed, flag by flag; nothing has been looked up or compared yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    pub context: Option<PathBuf>,
    pub positional: Option<PathBuf>,
    /// What was asked for and does not work yet.
    pub not_yet: Vec<&'static str>,
    pub context_sub_path: Option<PathBuf>,
    pub dockerfile: Option<PathBuf>,
    pub destinations: Vec<String>,
    pub targets: Vec<String>,
    pub build_args: Vec<String>,
    pub labels: Vec<String>,
    pub custom_platform: Option<String>,
    pub build_contexts: BTreeMap<String, String>,
    pub git: Vec<String>,
    pub secrets: Vec<String>,
    pub ssh: Vec<String>,
    pub allow: Vec<String>,
    pub cleanup: bool,
    pub ignore_paths: Vec<String>,
    pub ignore_var_run: bool,
    pub no_push: bool,
    pub outputs: Vec<String>,
    pub tar_path: Option<PathBuf>,
    pub oci_layout_path: Option<PathBuf>,
    pub digest_file: Option<PathBuf>,
    pub image_name_with_digest_file: Option<PathBuf>,
    pub image_name_tag_with_digest_file: Option<PathBuf>,
    pub metadata_file: Option<PathBuf>,
    pub image_format: Option<String>,
    pub compression: Option<String>,
    pub compression_level: Option<i64>,
    pub single_snapshot: bool,
    pub reproducible: bool,
    pub insecure: bool,
    pub insecure_pull: bool,
    pub insecure_registries: Vec<String>,
    pub skip_tls_verify: bool,
    pub skip_tls_verify_pull: bool,
    pub skip_tls_verify_registries: Vec<String>,
    pub registry_certificates: BTreeMap<String, String>,
    pub registry_client_certs: BTreeMap<String, String>,
    pub push_retry: Option<i64>,
    pub skip_push_permission_check: bool,
    pub store: Option<PathBuf>,
    pub cache: bool,
    pub cache_repo: Option<String>,
    pub cache_from: Vec<String>,
    pub cache_ttl: Option<String>,
    pub cache_copy_layers: Option<bool>,
    pub cache_run_layers: Option<bool>,
    pub cache_mounts: bool,
    pub no_push_cache: bool,
    pub cache_dir: Option<PathBuf>,
    pub max_size: Option<String>,
    pub max_age: Option<String>,
    pub dry_run: bool,
    pub repair: bool,
    pub images: Vec<String>,
    pub unpack: bool,
    pub json: bool,
    pub kaniko_dir: Option<PathBuf>,
    pub rootfs: Option<String>,
    pub threads: Option<i64>,
    pub force: bool,
    pub verbosity: Option<String>,
    pub log_format: Option<String>,
    pub log_timestamp: bool,
    pub timeline: Option<PathBuf>,
    pub help: bool,
    pub check_format: Option<String>,
    pub check_error: bool,
    pub step: Option<String>,
    /// Deprecated spellings that were used, with today's spelling.
    pub deprecated: Vec<(&'static str, &'static str)>,
}

/// What a flag takes, and which field of [`Typed`] that goes to.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// Go's truth values after `=`; alone it means true.
    Switch(fn(&mut Typed) -> &mut bool),
    /// Go's truth values after `=`; alone it means true. What it is without the flag is decided later.
    Chosen(fn(&mut Typed) -> &mut Option<bool>),
    /// Text; the last one counts.
    Text(fn(&mut Typed) -> &mut Option<String>),
    /// One of these; the last one counts.
    Choice(
        &'static [&'static str],
        fn(&mut Typed) -> &mut Option<String>,
    ),
    /// A whole number; the last one counts.
    Number(fn(&mut Typed) -> &mut Option<i64>),
    /// A path, which need not be UTF-8; the last one counts.
    Path(fn(&mut Typed) -> &mut Option<PathBuf>),
    /// Text, as often as wanted.
    List(fn(&mut Typed) -> &mut Vec<String>),
    /// Text with commas between, as often as wanted.
    CommaList(fn(&mut Typed) -> &mut Vec<String>),
    /// `key=value`, as often as wanted; the last of a key counts.
    Map(fn(&mut Typed) -> &mut BTreeMap<String, String>),
    /// A truth value that goes nowhere: see the status.
    NoSwitch,
    /// Any text that goes nowhere: see the status.
    NoText,
    /// One of these, and it goes nowhere: see the status.
    NoChoice(&'static [&'static str]),
}

impl Takes {
    /// Tells whether the flag may stand alone.
    pub fn is_switch(&self) -> bool {
        matches!(self, Takes::Switch(_) | Takes::Chosen(_) | Takes::NoSwitch)
    }

    /// Tells whether the help says that it may be repeated.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Takes::List(_) | Takes::CommaList(_) | Takes::Map(_))
    }
}

/// How far a flag has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It does what its help says.
    Works,
    /// It is taken and changes nothing, because what it asks for is so in any case; the text says why.
    Always(&'static str),
    /// It is refused by name, except with these values (and `false` for a switch), which ask for
    /// nothing beyond what is so in any case.
    NotYet(&'static [&'static str]),
}

/// Where the help puts a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// What is built.
    Source,
    /// Where it goes.
    Output,
    /// How the image looks.
    Image,
    /// How registries are talked to.
    Registry,
    /// How the build runs.
    Run,
    /// What is shown.
    Show,
    /// What `check` and `doctor` say.
    Check,
    /// What `cache explain` and `store ls` say.
    Explain,
    /// What becomes of the store.
    Store,
}

impl Group {
    /// All groups in the order of the help, with their headings.
    pub const ALL: [(Group, &'static str); 9] = [
        (Group::Source, "What is built"),
        (Group::Output, "Where the image goes"),
        (Group::Image, "What the image looks like"),
        (Group::Registry, "Registries"),
        (Group::Run, "How the build runs"),
        (Group::Show, "What is shown"),
        (Group::Check, "What is told"),
        (Group::Explain, "What is told"),
        (Group::Store, "The store"),
    ];
}

/// A command that has flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Builds an image.
    Build,
    /// Checks a Dockerfile.
    Check,
    /// Says what commands could run on.
    Doctor,
    /// Says what a build would find in the cache.
    CacheExplain,
    /// Says what is in the store.
    StoreLs,
    /// Takes away what is too much in the store.
    StoreGc,
    /// Looks whether the store is right.
    StoreVerify,
    /// Fills a store with images.
    Warm,
}

impl Verb {
    /// Gives its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Build => "build",
            Verb::Check => "check",
            Verb::Doctor => "doctor",
            Verb::StoreLs => "store ls",
            Verb::StoreGc => "store gc",
            Verb::StoreVerify => "store verify",
            Verb::Warm => "warmer",
            Verb::CacheExplain => "cache explain",
        }
    }
}

/// The flags of a build that say which Dockerfile, and what it is built with.
const SOURCES: [&str; 8] = [
    "context",
    "context-sub-path",
    "dockerfile",
    "target",
    "build-arg",
    "build-context",
    "custom-platform",
    "help",
];

/// The flags that say where a build works and on what.
const PLACES: [&str; 7] = [
    "store",
    "cache-dir",
    "kaniko-dir",
    "rootfs",
    "force",
    "format",
    "help",
];

/// The flags of kaniko's warmer, besides those for registries, and one of our own.
const WARMER: [&str; 14] = [
    "image",
    "dockerfile",
    "build-arg",
    "custom-platform",
    "unpack",
    "store",
    "cache-dir",
    "cache-ttl",
    "force",
    "threads",
    "verbosity",
    "log-format",
    "log-timestamp",
    "help",
];

/// The flags for registries that are about pushing.
const PUSHES: [&str; 5] = [
    "insecure",
    "skip-tls-verify",
    "push-retry",
    "skip-push-permission-check",
    "push-ignore-immutable-tag-errors",
];

/// The flags that say where a store lies.
const STORES: [&str; 4] = ["store", "cache-dir", "kaniko-dir", "help"];

/// One flag.
#[derive(Clone, Copy)]
pub(super) struct Flag {
    /// The name without the dashes.
    pub long: &'static str,
    /// The one-letter form.
    pub short: Option<char>,
    /// Deprecated spellings; each use is warned of.
    pub aliases: &'static [&'static str],
    /// What it takes and sets.
    pub takes: Takes,
    /// What the help calls its value; empty for a switch.
    pub value: &'static str,
    /// What it does, default included.
    pub help: &'static str,
    /// Where the help puts it.
    pub group: Group,
    /// How far it has come.
    pub status: Status,
}

impl Flag {
    /// Gives what it does for a command: a check fetches nothing.
    pub fn help_for(&self, verb: Verb) -> &'static str {
        match (verb, self.long) {
            (Verb::Check, "context") => "Build context: a directory (default: `.`)",
            (Verb::Check, "dockerfile") => {
                "Dockerfile, looked up as given, then in the context; `-` is standard input (default: \
                 Dockerfile)"
            }
            (Verb::Check, "build-context") => {
                "What FROM and --from know by this name, as for a build; only an oci-layout://DIR is \
                 looked at"
            }
            (Verb::Warm, "dockerfile") => {
                "Fetch the images that the stages of this one name; also http(s)://"
            }
            (Verb::Warm, "build-arg") => "Value of an ARG in front of FROM",
            (Verb::Warm, "custom-platform") => {
                "Platform of the images (default: this machine's, or what a FROM says)"
            }
            (Verb::Warm, "cache-dir") => {
                "The store to be filled (default: /cache as warmer and executor, else as for a build)"
            }
            (Verb::Warm, "store") => "The same",
            (Verb::Warm, "force") => {
                "Read what is there already, and fetch again what is not as it should be"
            }
            (Verb::Doctor, "format") => "How it is printed (default: text)",
            (Verb::Doctor, "rootfs") => {
                "Try this one alone: overlay, fuse, inplace or chroot (default: auto, which is all of them)"
            }
            (Verb::Doctor, "force") => {
                "Say what could be done in place even where this does not look like a container"
            }
            _ => self.help,
        }
    }

    /// Tells whether a command has the flag.
    pub fn is_for(&self, verb: Verb) -> bool {
        match verb {
            Verb::Build => !matches!(self.group, Group::Check | Group::Store | Group::Explain),
            Verb::CacheExplain => !matches!(self.group, Group::Check | Group::Store),
            Verb::Warm => {
                WARMER.contains(&self.long)
                    || self.group == Group::Registry && !PUSHES.contains(&self.long)
            }
            Verb::StoreLs => STORES.contains(&self.long) || self.long == "json",
            Verb::StoreVerify => STORES.contains(&self.long) || self.long == "repair",
            Verb::StoreGc => {
                STORES.contains(&self.long)
                    || ["max-size", "max-age", "dry-run"].contains(&self.long)
            }
            Verb::Doctor => PLACES.contains(&self.long),
            Verb::Check => self.group == Group::Check || SOURCES.contains(&self.long),
        }
    }

    const fn short(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }

    const fn aliases(mut self, aliases: &'static [&'static str]) -> Flag {
        self.aliases = aliases;
        self
    }
}

#[cfg(test)]
/// Finds a flag by its name or a deprecated spelling, without the dashes.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS
        .iter()
        .find(|flag| flag.long == name || flag.aliases.contains(&name))
}

/// Finds what somebody may have meant by an unknown name: the one flag that starts with it, else
/// the nearest within a third of its length.
pub(super) fn nearest(name: &str, verb: Verb) -> Option<&'static str> {
    let flags = || FLAGS.iter().filter(|flag| flag.is_for(verb));
    let mut starting = flags().filter(|flag| flag.long.starts_with(name));
    if name.len() >= 3
        && let (Some(flag), None) = (starting.next(), starting.next())
    {
        return Some(flag.long);
    }
    let mut names: Vec<&str> = flags().map(|flag| flag.long).collect();
    names.sort_unstable();
    spelling::nearest_within(name, &names, (name.len() / 3).max(1))
}
