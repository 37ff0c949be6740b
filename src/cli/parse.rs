//! Argv to what was typed; nothing is looked up here.

use super::flags::{self, FLAGS, Flag, Status, Takes, Typed, Verb};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A mistake on the command line or in the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Usage {
    /// What is wrong; names the flag.
    pub message: String,
    /// At most one hint.
    pub hint: Option<String>,
}

impl Usage {
    /// Makes a mistake without a hint.
    pub fn new(message: impl Into<String>) -> Usage {
        Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// Adds the hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Usage {
        self.hint = Some(hint.into());
        self
    }
}

/// The name the program is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// Its own: commands, then flags.
    Shutter,
    /// kaniko's: flags come directly.
    Executor,
}

/// What the program is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Build an image.
    Build(Box<Typed>),
    /// Check a Dockerfile.
    Check(Box<Typed>),
    /// Say what commands could run on.
    Doctor(Box<Typed>),
    /// Say what a build would find in the cache.
    CacheExplain(Box<Typed>),
    /// See to the store.
    Store(Verb, Box<Typed>),
    /// Fill a store with images.
    Warm(Box<Typed>),
    /// Print the version.
    Version,
    /// Print the help of a command.
    Help(Verb),
}

/// Reads the name the program is called by off the first argument.
pub(super) fn called(program: Option<&OsString>) -> Called {
    match program.map(Path::new).and_then(Path::file_name) {
        Some(name) if name == OsStr::new("executor") => Called::Executor,
        _ if is_warmer(program) => Called::Executor,
        _ => Called::Shutter,
    }
}

/// Tells whether the program is called by the name of kaniko's warmer.
pub(super) fn is_warmer(program: Option<&OsString>) -> bool {
    let name = program.map(Path::new).and_then(Path::file_name);
    name == Some(OsStr::new("warmer"))
}

/// kaniko's further commands, which are refused by name.
const COMMANDS_NOT_YET: [&str; 3] = ["login", "push", "bake"];

/// Reads argv without its first word.
pub(super) fn parse(called: Called, args: &[OsString]) -> Result<Command, Usage> {
    let first = args.first().and_then(|word| word.to_str());
    let rest = args.get(1..).unwrap_or_default();
    match (called, first) {
        (_, Some("version")) => Ok(Command::Version),
        (_, Some("help")) => Ok(Command::Help(Verb::Build)),
        (Called::Executor, Some(word)) if COMMANDS_NOT_YET.contains(&word) => Err(Usage::new(
            format!("`executor {word}` is not yet supported"),
        )),
        (_, Some("doctor")) => with_flags(called, Verb::Doctor, rest),
        (_, Some("store")) => of_the_store(called, rest),
        (_, Some("warmer")) => with_flags(called, Verb::Warm, rest),
        (Called::Executor, _) => with_flags(called, Verb::Build, args),
        (Called::Shutter, Some("build")) => with_flags(called, Verb::Build, rest),
        (Called::Shutter, Some("check")) => with_flags(called, Verb::Check, rest),
        (Called::Shutter, Some("cache")) => match rest.first().and_then(|word| word.to_str()) {
            Some("explain") => {
                with_flags(called, Verb::CacheExplain, rest.get(1..).unwrap_or_default())
            }
            Some("-h" | "--help" | "help") => Ok(Command::Help(Verb::CacheExplain)),
            Some(word) => Err(Usage::new(format!("unknown command `cache {word}`"))
                .hint("the command is `shutter cache explain`")),
            None => Err(Usage::new("there is no command behind `cache`")
                .hint("try `shutter cache explain --help`")),
        },
        (Called::Shutter, Some("-h" | "--help")) => Ok(Command::Help(Verb::Build)),
        (Called::Shutter, Some("--version" | "-V")) => Ok(Command::Version),
        (Called::Shutter, Some(word)) if COMMANDS_NOT_YET.contains(&word) => {
            Err(Usage::new(format!("`shutter {word}` is not yet supported")))
        }
        (Called::Shutter, Some(word)) if word.starts_with('-') => {
            Err(Usage::new(format!("there is a flag {word} but no command"))
                .hint("did you mean `shutter build`?"))
        }
        (Called::Shutter, _) => match args.first() {
            Some(word) => Err(
                Usage::new(format!("unknown command `{}`", word.to_string_lossy()))
                    .hint("the commands are build, check, doctor, cache, store, warmer, version and help"),
            ),
            None => Err(Usage::new("there is no command").hint(
                "try `shutter build --help`; the commands are build, check, doctor, cache, store, warmer, version and help",
            )),
        },
    }
}

/// Reads what is to be done with the store.
fn of_the_store(called: Called, args: &[OsString]) -> Result<Command, Usage> {
    let rest = args.get(1..).unwrap_or_default();
    let what = args.first().map(|word| word.to_string_lossy());
    match what.as_deref() {
        Some("ls") => with_flags(called, Verb::StoreLs, rest),
        Some("gc") => with_flags(called, Verb::StoreGc, rest),
        Some("verify") => with_flags(called, Verb::StoreVerify, rest),
        Some("-h" | "--help" | "help") => Ok(Command::Help(Verb::StoreLs)),
        Some(word) => Err(Usage::new(format!("unknown command `store {word}`"))
            .hint("the commands are store ls, store gc and store verify")),
        None => Err(Usage::new("there is no command after `store`")
            .hint("the commands are store ls, store gc and store verify")),
    }
}

/// Reads a command's flags and words.
fn with_flags(called: Called, verb: Verb, args: &[OsString]) -> Result<Command, Usage> {
    let mut typed = Typed::default();
    let matches = parser(verb)
        .try_get_matches_from(args)
        .map_err(|error| refusal(&error, verb))?;
    for flag in FLAGS.iter().filter(|flag| flag.is_for(verb)) {
        let spellings = std::iter::once(&flag.long).chain(flag.aliases);
        for spelling in spellings {
            let Some(values) = matches.get_many::<OsString>(spelling) else {
                continue;
            };
            if *spelling != flag.long {
                typed.deprecated.push((spelling, flag.long));
            }
            for value in values {
                if (verb, flag.long) == (Verb::Warm, "cache-ttl") {
                    lifetime(value)?;
                    continue;
                }
                take(flag, spelling, value, &mut typed)?;
            }
        }
    }
    not_yet(&typed.not_yet)?;
    if typed.help {
        return Ok(Command::Help(verb));
    }
    let mut words = matches
        .get_many::<OsString>(POSITIONAL)
        .into_iter()
        .flatten();
    if let Some(word) = words.next() {
        if !matches!(verb, Verb::Build | Verb::Check | Verb::CacheExplain) {
            let (name, word) = (verb.name(), word.to_string_lossy());
            return Err(Usage::new(format!(
                "{name} takes flags alone, not `{word}`"
            )));
        }
        if called == Called::Executor {
            return Err(Usage::new(format!(
                "unknown command `{}` for executor",
                word.to_string_lossy()
            ))
            .hint("the context goes with --context"));
        }
        typed.positional = Some(PathBuf::from(word));
    }
    if let Some(word) = words.next() {
        return Err(Usage::new(format!(
            "there is one context, and `{}` is a second one",
            word.to_string_lossy()
        ))
        .hint("a value of a flag that holds spaces wants quotes"));
    }
    Ok(match verb {
        Verb::Build => Command::Build(Box::new(typed)),
        Verb::Check => Command::Check(Box::new(typed)),
        Verb::Doctor => Command::Doctor(Box::new(typed)),
        Verb::CacheExplain => Command::CacheExplain(Box::new(typed)),
        Verb::StoreLs | Verb::StoreGc | Verb::StoreVerify => Command::Store(verb, Box::new(typed)),
        Verb::Warm => Command::Warm(Box::new(typed)),
    })
}

/// Checks how long kaniko's warmer would take an image for fresh. Here a tag is always asked for, and
/// what has a digest does not age.
fn lifetime(value: &OsStr) -> Result<(), Usage> {
    let text = value.to_string_lossy();
    match super::duration::duration(&text) {
        Some(_) => Ok(()),
        None => Err(Usage::new(format!(
            "--cache-ttl: `{text}` is no time: 336h or 7d is wanted"
        ))),
    }
}

/// Refuses the flags that do not work yet, all at once and by name.
fn not_yet(flags: &[&str]) -> Result<(), Usage> {
    let names: Vec<String> = flags.iter().map(|flag| format!("--{flag}")).collect();
    match names.as_slice() {
        [] => Ok(()),
        [one] => Err(Usage::new(format!("flag {one} is not yet supported")).hint("leave it out")),
        many => Err(
            Usage::new(format!("flags {} are not yet supported", many.join(", ")))
                .hint("leave them out"),
        ),
    }
}

const POSITIONAL: &str = "<context>";

/// Makes clap's parser of the table. Every spelling is an argument of its own, so that deprecated
/// ones can be told apart; every argument may be repeated, as in Go.
fn parser(verb: Verb) -> clap::Command {
    let mut parser = clap::Command::new("shutter")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true);
    for flag in FLAGS.iter().filter(|flag| flag.is_for(verb)) {
        for spelling in std::iter::once(&flag.long).chain(flag.aliases) {
            let arg = clap::Arg::new(*spelling)
                .long(*spelling)
                .action(clap::ArgAction::Append)
                .value_parser(clap::value_parser!(OsString));
            let arg = match flag.short {
                Some(short) if *spelling == flag.long => arg.short(short),
                _ => arg,
            };
            parser = parser.arg(if flag.takes.is_switch() {
                arg.num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
            } else {
                // Go takes the next word as the value whatever it looks like.
                arg.num_args(1).allow_hyphen_values(true)
            });
        }
    }
    parser.arg(
        clap::Arg::new(POSITIONAL)
            .action(clap::ArgAction::Append)
            .num_args(0..)
            .value_parser(clap::value_parser!(OsString)),
    )
}

/// Puts clap's refusals into our words.
fn refusal(error: &clap::Error, verb: Verb) -> Usage {
    let arg = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.as_str(),
        _ => "",
    };
    // "--context <context>..." names the argument as usage lines do.
    let name = arg.split([' ', '=', '[']).next().unwrap_or(arg);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let usage = Usage::new(format!("unknown flag {name}"));
            let plain = name.trim_start_matches('-');
            let of_build = |flag: &Flag| flag.is_for(Verb::Build) && flag.long == plain;
            match flags::nearest(plain, verb) {
                _ if verb != Verb::Build && FLAGS.iter().any(of_build) => {
                    let what = match verb {
                        Verb::Doctor => "the doctor",
                        Verb::StoreLs | Verb::StoreGc | Verb::StoreVerify => "a store",
                        Verb::Warm => "the warmer",
                        Verb::CacheExplain => "an explanation",
                        Verb::Build | Verb::Check => "a check",
                    };
                    usage.hint(format!(
                        "it is a flag of `shutter build`, which means nothing for {what}"
                    ))
                }
                Some(long) => usage.hint(format!("did you mean --{long}?")),
                None => usage.hint("--help lists all flags"),
            }
        }
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            Usage::new(format!("flag {name} wants a value"))
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or("the command line is wrong");
            Usage::new(line.trim_start_matches("error: "))
        }
    }
}

/// Puts one value where it belongs, or refuses it.
fn take(
    flag: &'static Flag,
    spelling: &'static str,
    value: &OsStr,
    typed: &mut Typed,
) -> Result<(), Usage> {
    if let Takes::Path(field) = flag.takes {
        if value.is_empty() {
            // Scripts pass `--tar-path="$UNSET"`; Go takes that as not given.
            *field(typed) = None;
        } else {
            *field(typed) = Some(PathBuf::from(value));
        }
        return Ok(());
    }
    let text = value.to_str().ok_or_else(|| {
        Usage::new(format!(
            "--{spelling}: `{}` is not UTF-8",
            value.to_string_lossy()
        ))
    })?;
    let switch = || {
        truth(text).ok_or_else(|| {
            Usage::new(format!(
                "--{spelling}={text}: true or false is wanted (also t, f, 1, 0)"
            ))
        })
    };
    let choice = |choices: &[&str]| {
        if choices.contains(&text) {
            Ok(())
        } else {
            Err(Usage::new(format!(
                "--{spelling}: `{text}` is none of {}",
                choices.join(", ")
            )))
        }
    };
    if let Status::NotYet(unless) = flag.status {
        let harmless = match flag.takes.is_switch() {
            true => !switch()?,
            false => unless.contains(&text),
        };
        return match harmless {
            true => Ok(()),
            false => {
                if !typed.not_yet.contains(&spelling) {
                    typed.not_yet.push(spelling);
                }
                Ok(())
            }
        };
    }
    match flag.takes {
        Takes::Switch(field) => *field(typed) = switch()?,
        Takes::Chosen(field) => *field(typed) = Some(switch()?),
        Takes::Text(field) => *field(typed) = Some(text.to_owned()).filter(|t| !t.is_empty()),
        Takes::Choice(choices, field) => {
            choice(choices)?;
            *field(typed) = Some(text.to_owned());
        }
        Takes::Number(field) => {
            let number = text
                .parse()
                .map_err(|_| Usage::new(format!("--{spelling}: `{text}` is not a whole number")))?;
            *field(typed) = Some(number);
        }
        Takes::List(field) => field(typed).push(text.to_owned()),
        Takes::CommaList(field) => field(typed).extend(
            text.split(',')
                .filter(|word| !word.is_empty())
                .map(str::to_owned),
        ),
        Takes::Map(field) => {
            let (key, value) = text
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.is_empty())
                .ok_or_else(|| {
                    Usage::new(format!("--{spelling}: `{text}` is not {}", flag.value))
                })?;
            field(typed).insert(key.to_owned(), value.to_owned());
        }
        Takes::NoSwitch => {
            switch()?;
        }
        Takes::NoChoice(choices) => choice(choices)?,
        // Handled above.
        Takes::Path(_) | Takes::NoText => {}
    }
    Ok(())
}

/// Reads a truth value as Go's strconv does.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
