//! What each instruction makes of an image's config, and how Docker's tools write it in a history.

use crate::dockerfile::ast::{CommandLine, Healthcheck};
use crate::oci::{self, Config, Image, Platform};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt::Write;

/// Where programs are looked for when neither image nor Dockerfile says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Gives the image a stage starts with: from scratch, or the base without its triggers. `PATH` is
/// set in any case.
pub(super) fn start(base: Option<&Image>, platform: &Platform) -> (Image, Env) {
    let mut image = match base {
        Some(base) => base.clone(),
        None => {
            let mut image = Image::scratch(platform);
            image.config.working_dir = "/".into();
            image
        }
    };
    image.config.on_build.clear();
    let mut env = Env::of(&image.config);
    if !env.places.contains_key("PATH") {
        env.set(&mut image.config, "PATH", DEFAULT_PATH);
    }
    (image, env)
}

/// Puts the platform of the request on the image of the target: what a stage was built on may be for
/// another one. A platform that nobody asked for leaves the base's.
pub(super) fn finish(image: &mut Image, wanted: &Platform) {
    let mut platform = image.platform();
    if *wanted != Platform::host() {
        let same = platform.os == wanted.os && platform.architecture == wanted.architecture;
        let variant = match &wanted.variant {
            None if same => platform.variant,
            variant => variant.clone(),
        };
        platform = Platform {
            variant,
            ..wanted.clone()
        };
    }
    let platform = platform.normalized();
    image.os = platform.os;
    image.architecture = platform.architecture;
    image.variant = platform.variant;
}

/// Where a config's variables are in its `Env`.
pub(super) struct Env {
    places: HashMap<String, usize>,
}

impl Env {
    fn of(config: &Config) -> Env {
        let mut places = HashMap::new();
        for (place, entry) in config.env.iter().enumerate() {
            let name = entry.split('=').next().unwrap_or_default();
            places.entry(name.to_owned()).or_insert(place);
        }
        Env { places }
    }

    /// Sets a variable: in place where there is one of the name, else at the end.
    pub(super) fn set(&mut self, config: &mut Config, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        if let Some(&place) = self.places.get(name) {
            config.env[place] = entry;
        } else {
            self.places.insert(name.to_owned(), config.env.len());
            config.env.push(entry);
        }
    }
}

/// Gives the words of a command line as they are run: shell form goes through SHELL.
pub(super) fn command(config: &Config, line: &CommandLine) -> Vec<String> {
    match line {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) => with_shell(config, text),
    }
}

/// Puts SHELL before a text.
pub(super) fn with_shell(config: &Config, text: &str) -> Vec<String> {
    let mut words = match &config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    };
    words.push(text.to_owned());
    words
}

/// Gives the empty object that stands for a port or a volume.
pub(super) fn present() -> Value {
    Value::Object(Map::new())
}

/// Gives a path as seen from the working directory: absolute, cleaned by its text alone.
pub(super) fn join_path(working_dir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{working_dir}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Gives the destination of a COPY: like [`join_path`], with a slash at the end where it must be a
/// directory.
pub(super) fn join_dest(working_dir: &str, path: &str) -> String {
    let mut dest = join_path(working_dir, path);
    let directory = path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
    if directory && !dest.ends_with('/') {
        dest.push('/');
    }
    dest
}

/// Gives HEALTHCHECK as the config has it.
pub(super) fn healthcheck(check: &Healthcheck) -> oci::Healthcheck {
    match check {
        Healthcheck::None => oci::Healthcheck {
            test: vec!["NONE".into()],
            ..oci::Healthcheck::default()
        },
        Healthcheck::Check {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => oci::Healthcheck {
            test: match command {
                CommandLine::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
                CommandLine::Exec(words) => std::iter::once("CMD".to_owned())
                    .chain(words.iter().cloned())
                    .collect(),
            },
            interval: interval.unwrap_or(0),
            timeout: timeout.unwrap_or(0),
            start_period: start_period.unwrap_or(0),
            start_interval: start_interval.unwrap_or(0),
            retries: retries.unwrap_or(0),
        },
    }
}

/// Writes words the way Go prints a list of quoted strings: `["a" "b"]`.
pub(super) fn quoted(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// Writes a health check for a history.
pub(super) fn health_text(check: &oci::Healthcheck) -> String {
    let oci::Healthcheck {
        test,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    } = check;
    let mut out = format!("HEALTHCHECK {{Test:[{}]", test.join(" "));
    for (name, nanos) in [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
    ] {
        let _ = write!(out, " {name}:{}", duration(*nanos));
    }
    let _ = write!(out, " Retries:{retries}}}");
    out
}

/// Writes a duration the way Go does: `1h0m0s`, `1m30s`, `1.5s`, `20ms`.
fn duration(nanos: u64) -> String {
    fn decimal(nanos: u64, unit: u64, name: &str) -> String {
        let (whole, rest) = (nanos / unit, nanos % unit);
        let digits = unit.ilog10() as usize;
        let rest = format!("{rest:0digits$}");
        match rest.trim_end_matches('0') {
            "" => format!("{whole}{name}"),
            rest => format!("{whole}.{rest}{name}"),
        }
    }
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(nanos, 1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// Tells whether a text names a signal of Linux: a number, or a name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return number != 0;
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |start: &str, sign: char, most: u32| {
        name.strip_prefix(start)
            .and_then(|rest| rest.strip_prefix(sign))
            .and_then(|number| number.parse::<u32>().ok())
            .is_some_and(|number| (1..=most).contains(&number))
    };
    SIGNALS.contains(&name) || real_time("RTMIN", '+', 15) || real_time("RTMAX", '-', 14)
}

const SIGNALS: [&str; 38] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS",
    "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH",
    "XCPU", "XFSZ", "EMT",
];
