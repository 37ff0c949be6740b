//! Images compared: files and config.

use super::listing::{Listing, shown};
use super::rivals::Made;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the engine makes for a RUN, and what lies in mounts.
const LEFT_OUT: [&str; 6] = [
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "proc",
    "sys",
    "dev",
];

/// The parts of a config that instructions set.
const CONFIG: [&str; 12] = [
    "Env",
    "Cmd",
    "Entrypoint",
    "User",
    "WorkingDir",
    "Labels",
    "Volumes",
    "ExposedPorts",
    "Healthcheck",
    "StopSignal",
    "Shell",
    "OnBuild",
];

/// What a comparison says.
#[derive(Default)]
pub struct Verdict {
    /// What differs.
    pub wrong: Vec<String>,
    /// Whether there is no image on either side, which says little.
    pub both_fail: bool,
}

/// Tells what differs between two outcomes; nothing where they agree.
pub fn outcomes(own: &Made, other: &Made, what: What) -> Verdict {
    let mut both_fail = false;
    let wrong = match (own, other) {
        (Ok(own), Ok(other)) => images(own, other, what),
        (Err(why), Err(_)) => {
            println!("  both fail: {}", why.lines().last().unwrap_or_default());
            both_fail = true;
            Vec::new()
        }
        (Ok(_), Err(why)) => vec![format!(
            "the first is built, the second fails: {}",
            end(why)
        )],
        (Err(why), Ok(_)) => vec![format!(
            "the second is built, the first fails: {}",
            end(why)
        )],
    };
    Verdict { wrong, both_fail }
}

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Files alone.
    Files,
    /// Files and the config.
    FilesAndConfig,
    /// The same, but one image may tie names together that the other does not: the second builder
    /// packs all that the kernel copied up, so a file of the base that got one more name, or the
    /// owner that it had, is in its layer again, where BuildKit and Shutter see that it has not
    /// changed and leave it out.
    FilesAndConfigButLinks,
}

pub fn images(own: &Listing, other: &Listing, what: What) -> Vec<String> {
    let mut out = files(&own.files, &other.files, what);
    if what != What::Files {
        let (own, other) = (config(&own.image), config(&other.image));
        let keys: BTreeSet<&String> = own.keys().chain(other.keys()).collect();
        for key in keys {
            let null = Value::Null;
            let (a, b) = (
                own.get(key).unwrap_or(&null),
                other.get(key).unwrap_or(&null),
            );
            if a != b {
                out.push(format!("config {key}: {a} and {b}"));
            }
        }
    }
    out
}

fn files(
    own: &BTreeMap<Vec<u8>, Value>,
    other: &BTreeMap<Vec<u8>, Value>,
    what: What,
) -> Vec<String> {
    let mut out = Vec::new();
    let paths: BTreeSet<&Vec<u8>> = own.keys().chain(other.keys()).collect();
    for path in paths.into_iter().filter(|path| !is_left_out(path)) {
        match (own.get(path), other.get(path)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                let (a, b) = (
                    a.as_object().expect("a file"),
                    b.as_object().expect("a file"),
                );
                let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                let of = |map: &Map<String, Value>, key: &String| {
                    map.get(key).map_or("nothing".into(), Value::to_string)
                };
                let links = |map: &Map<String, Value>| -> BTreeSet<String> {
                    let list = map.get("hard_links").and_then(Value::as_array);
                    let names = list.into_iter().flatten().filter_map(Value::as_str);
                    names.map(str::to_owned).collect()
                };
                for key in keys.into_iter().filter(|key| a.get(*key) != b.get(*key)) {
                    let (ours, theirs) = (links(a), links(b));
                    let more = ours.is_subset(&theirs) || theirs.is_subset(&ours);
                    if key == "hard_links" && more && what == What::FilesAndConfigButLinks {
                        continue;
                    }

                    out.push(format!(
                        "{} {key}: {} and {}",
                        shown(path),
                        of(a, key),
                        of(b, key)
                    ));
                }
            }
            (Some(a), None) => out.push(format!("{} is in the first alone: {a}", shown(path))),
            (None, Some(b)) => out.push(format!("{} is in the second alone: {b}", shown(path))),
            (None, None) => {}
        }
    }
    out
}

fn is_left_out(path: &[u8]) -> bool {
    LEFT_OUT.iter().any(|out| {
        let rest = path.strip_prefix(out.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// Gives the part of an image's document that instructions decide; what is empty is as good as not there.
pub fn config(image: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    for key in CONFIG {
        let value = &image["config"][key];
        let empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty() || (key, text.as_str()) == ("WorkingDir", "/"),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        // Some keep the slash that an empty variable leaves at the end of WORKDIR.
        let value = match value.as_str().and_then(|text| text.strip_suffix('/')) {
            Some(text) if key == "WorkingDir" => &json!(text),
            _ => value,
        };
        if !empty {
            out.insert(key.into(), sorted(value));
        }
    }
    if let Some(author) = image["author"].as_str().filter(|author| !author.is_empty()) {
        out.insert("author".into(), json!(author));
    }
    out
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map
                .iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            json!(ordered)
        }
        other => other.clone(),
    }
}

fn end(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n    ")
}
