//! The help, made of the table of flags.

use super::flags::{FLAGS, Flag, Group, Status, Verb};
use super::parse::Called;
use std::fmt::Write;

/// Gives the help of a command for lines of so many columns.
pub(super) fn help(called: Called, verb: Verb, columns: usize) -> String {
    let columns = columns.clamp(60, 100);
    match verb {
        Verb::Build => build(called, columns),
        Verb::Check => check(columns),
        Verb::Doctor => doctor(called, columns),
        Verb::CacheExplain => cache_explain(columns),
        Verb::StoreLs | Verb::StoreGc | Verb::StoreVerify => store(called, columns),
        Verb::Warm => warmer(called, columns),
    }
}

fn warmer(called: Called, columns: usize) -> String {
    let name = match called {
        Called::Shutter => "shutter warmer",
        Called::Executor => "warmer",
    };
    let mut out = String::from(
        "Fetches images into a store, for builds that have it as their --cache-dir.\n\n",
    );
    let _ = writeln!(
        out,
        "Usage:\n  {name} [FLAGS] --image IMAGE | --dockerfile FILE"
    );
    flags_of(Verb::Warm, columns, &mut out);
    out.push_str(
        "\nAn image is there whole or not at all. A build then asks the registry no more than what a tag\n\
         stands for, and nothing for a digest. The exit code is 1 where an image could not be had.\n",
    );
    out
}

fn store(called: Called, columns: usize) -> String {
    let name = match called {
        Called::Shutter => "shutter",
        Called::Executor => "executor",
    };
    let mut out = String::from(
        "Sees to the store of blobs, unpacked layers and caches, beside running builds.\n\n",
    );
    let _ = writeln!(
        out,
        "Usage:\n  {name} store ls [FLAGS]       say what is in it, and when it was wanted last\n  \
         {name} store gc [FLAGS]       take away what is over the limits, the longest unused first\n  \
         {name} store verify [FLAGS]   look whether all of it is right"
    );
    for verb in [Verb::StoreLs, Verb::StoreGc, Verb::StoreVerify] {
        let _ = writeln!(out, "\n{}:", verb.name());
        for flag in FLAGS {
            if flag.is_for(verb) && flag.group == Group::Store {
                describe(flag, verb, columns, &mut out);
            }
        }
    }
    let _ = writeln!(out, "\nAll of them:");
    for flag in FLAGS {
        if flag.is_for(Verb::StoreLs) && flag.group != Group::Store {
            describe(flag, Verb::StoreLs, columns, &mut out);
        }
    }
    out.push_str(
        "\nNothing goes that a running build has made or looked up, on this machine or on another that\n\
         has the same volume. The exit code is 1 where something is wrong or could not go, else 0.\n",
    );
    out
}

fn check(columns: usize) -> String {
    let mut out = String::from(
        "Checks a Dockerfile without building it: no rights, no network, no store.\n\n\
         Usage:\n  shutter check [FLAGS] [CONTEXT]\n",
    );
    flags_of(Verb::Check, columns, &mut out);
    out.push_str(
        "\nThe rules are those of BuildKit's build checks. `# check=skip=RULE,...;error=true` at the top\n\
         of the file, or the build arg BUILDKIT_DOCKERFILE_CHECK, leaves rules out and makes findings\n\
         an error. The exit code is 1 where they are one and where the Dockerfile has a mistake, else 0.\n",
    );
    out
}

fn cache_explain(columns: usize) -> String {
    let mut out = String::from(
        "Says which steps of a build would be found in the cache, and why the others would not.\n\n\
         Usage:\n  shutter cache explain [FLAGS] [CONTEXT]\n",
    );
    flags_of(Verb::CacheExplain, columns, &mut out);
    out.push_str(
        "\nThe flags are those of the build. Bases are asked for and keys looked up as the build does it;\n\
         nothing is run, pushed or unpacked. A step that is not found is compared with the entry of the\n\
         store that is nearest to it: other places can only be asked for a key.\n",
    );
    out
}

fn doctor(called: Called, columns: usize) -> String {
    let name = match called {
        Called::Shutter => "shutter",
        Called::Executor => "executor",
    };
    let mut out = String::from(
        "Tries what commands could run on here, and says what would help where they could not.\n\n",
    );
    let _ = writeln!(out, "Usage:\n  {name} doctor [FLAGS]");
    flags_of(Verb::Doctor, columns, &mut out);
    out.push_str(
        "\nEverything is tried on the file system of the store, and nothing is left there. The exit code\n\
         is 0 where a build can run commands, else 1.\n",
    );
    out
}

/// Appends the flags that work, group by group.
fn flags_of(verb: Verb, columns: usize, out: &mut String) {
    for (group, heading) in Group::ALL {
        let wanted =
            |flag: &&Flag| flag.group == group && flag.status == Status::Works && flag.is_for(verb);
        let mut flags = FLAGS.iter().filter(wanted).peekable();
        if flags.peek().is_some() {
            let _ = writeln!(out, "\n{heading}:");
        }
        for flag in flags {
            describe(flag, verb, columns, out);
        }
    }
}

fn build(called: Called, columns: usize) -> String {
    let mut out = String::new();
    out.push_str("Builds a container image from a Dockerfile, without a daemon.\n\n");
    out.push_str(match called {
        Called::Shutter => {
            "Usage:\n  shutter build [FLAGS] [CONTEXT]\n  shutter check [FLAGS] [CONTEXT]\n  shutter doctor [FLAGS]\n  \
             shutter cache explain [FLAGS] [CONTEXT]\n  \
             shutter store ls|gc|verify [FLAGS]\n  \
             shutter warmer [FLAGS]\n  \
             shutter version\n  \
             shutter help\n"
        }
        Called::Executor => {
            "Usage:\n  executor [FLAGS]\n  executor doctor [FLAGS]\n  executor store ls|gc|verify [FLAGS]\n  executor version\n  executor help\n"
        },
    });
    flags_of(Verb::Build, columns, &mut out);
    out.push_str("\nAccepted and without effect, because it is so in any case:\n");
    for flag in FLAGS {
        if let Status::Always(why) = flag.status {
            let _ = writeln!(out, "      --{}", flag.long);
            wrap(why, 10, columns, &mut out);
        }
    }
    out.push_str("\nKnown from kaniko and not yet supported:\n");
    let names: Vec<String> = FLAGS
        .iter()
        .filter(|flag| matches!(flag.status, Status::NotYet(_)))
        .map(|flag| format!("--{}", flag.long))
        .collect();
    wrap(&names.join(", "), 6, columns, &mut out);
    out.push_str(
        "\nA switch takes a truth value after an equals sign: --no-push=false. The exit code is that\n\
         of a RUN that failed, else 1; 130 or 143 after a signal.\n",
    );
    out
}

fn describe(flag: &Flag, verb: Verb, columns: usize, out: &mut String) {
    match flag.short {
        Some(short) => {
            let _ = write!(out, "  -{short}, --{}", flag.long);
        }
        None => {
            let _ = write!(out, "      --{}", flag.long);
        }
    }
    if !flag.value.is_empty() {
        let _ = write!(out, " {}", flag.value);
    }
    if flag.takes.is_repeatable() {
        out.push_str("  (repeatable)");
    }
    out.push('\n');
    wrap(flag.help_for(verb), 10, columns, out);
}

/// Appends a text as indented lines that break between words.
pub(super) fn wrap(text: &str, indent: usize, columns: usize, out: &mut String) {
    let mut used = 0;
    for word in text.split_whitespace() {
        let wide = word.chars().count();
        if used == 0 {
            let _ = write!(out, "{:indent$}{word}", "");
            used = indent + wide;
        } else if used + 1 + wide > columns {
            let _ = write!(out, "\n{:indent$}{word}", "");
            used = indent + wide;
        } else {
            let _ = write!(out, " {word}");
            used += 1 + wide;
        }
    }
    out.push('\n');
}
