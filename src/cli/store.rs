//! `shutter store`: what is in the store, taking away what is too much, and whether it is right.
//!
//! `store ls --json` prints one object:
//!
//! ```text
//! {
//!   "store": path,
//!   "bytes": number,
//!   "items": [{"kind": "blob|layer|toc|step|name|contents|cache", "name", "id"?, "bytes", "used": RFC 3339 or null}]
//! }
//! ```
//!
//! The items are in the order in which `store gc` takes them away.

use super::FAILURE;
use super::flags::{Typed, Verb};
use super::meaning::LogFormat;
use super::meaning::place::{self, Chosen};
use super::parse::Usage;
use super::report::{self, Report};
use super::show::log::count;
use super::show::text::{self, Colours};
use super::surroundings::Surroundings;
use crate::fs::Time;
use crate::sandbox::{Sandbox, Users};
use crate::store::{self, Bytes, Collected, Doing, Item, Kind, Limits, Stays, Store};
use crate::sys::Cancel;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Why there is nothing to tell.
enum Failure {
    Usage(Usage),
    Store(store::Error),
    /// A signal came: its number.
    Signal(i32),
}

/// Carries out a command for the store; gives the exit code: 1 where something is wrong.
pub(super) fn run(verb: Verb, typed: Typed, around: &Surroundings) -> u8 {
    let mut warnings = Vec::new();
    let chosen = place::store(&typed, around, &mut warnings);
    for warning in warnings {
        report::warn(&warning);
    }
    // Files of a layer that an ordinary user unpacked belong to ids which are that user's in a user
    // namespace alone. Where there is none the files that can be seen are seen to.
    let _sandbox = (around.uid != 0).then(|| Sandbox::start_as(Users::Own));
    let done = match verb {
        Verb::StoreGc => collect(&typed, &chosen),
        Verb::StoreVerify => verify(&typed, &chosen),
        _ => list(&typed, &chosen),
    };
    let report = match done {
        Ok(code) => return code,
        Err(Failure::Usage(usage)) => Report::usage(&usage),
        Err(Failure::Signal(signal)) => {
            report::print(&Report::cancelled(signal), LogFormat::Text);
            return u8::try_from(signal).map_or(FAILURE, |number| 128 | number);
        }
        Err(Failure::Store(error)) => Report::error("", &error),
    };
    report::print(&report, LogFormat::Text);
    FAILURE
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        Failure::Store(error)
    }
}

/// Does something that signals end.
fn until_a_signal<T>(work: impl FnOnce(&Cancel) -> Result<T, store::Error>) -> Result<T, Failure> {
    let listening = Cancel::new().and_then(|cancel| {
        let signal = super::listen(&cancel)?;
        Ok((cancel, signal))
    });
    let (cancel, signal) =
        listening.map_err(|e| Failure::Usage(Usage::new(format!("listen for signals: {e}"))))?;
    match work(&cancel) {
        Err(store::Error::Cancelled) => Err(Failure::Signal(signal.load(Ordering::SeqCst))),
        other => Ok(other?),
    }
}

fn list(typed: &Typed, chosen: &Chosen) -> Result<u8, Failure> {
    let stock = store::stock(&chosen.dir)?;
    let total = stock.bytes();
    let told = match typed.json {
        true => {
            let items: Vec<Value> = stock.items.iter().map(object).collect();
            let store = chosen.dir.to_string_lossy();
            format!(
                "{:#}\n",
                json!({"store": store, "bytes": total, "items": items})
            )
        }
        false => {
            let mut items = stock.items;
            items.sort_by(|a, b| (a.kind, b.used, &a.name).cmp(&(b.kind, a.used, &b.name)));
            for_people(&items, total, &chosen.dir)
        }
    };
    super::print(&told);
    Ok(0)
}

fn object(item: &Item) -> Value {
    let mut out = Map::new();
    out.insert("kind".into(), item.kind.name().into());
    out.insert("name".into(), item.name.clone().into());
    if let Some(id) = &item.id {
        out.insert("id".into(), id.clone().into());
    }
    out.insert("bytes".into(), item.bytes.into());
    out.insert("used".into(), stamp(item.used).into());
    Value::Object(out)
}

/// Gives a time as RFC 3339; nothing where it was never noted.
fn stamp(used: Time) -> Option<String> {
    let nanos = i32::try_from(used.nanos).ok()?;
    let time = jiff::Timestamp::new(used.secs, nanos).ok()?;
    (used != Time::default()).then(|| format!("{time:.3}"))
}

fn for_people(items: &[Item], total: u64, dir: &Path) -> String {
    let mut out = String::new();
    let dir = text::line(dir.to_string_lossy().as_bytes(), Colours::Drop);
    for item in items {
        row(&mut out, item);
    }
    let kinds = Kind::ALL.iter().filter_map(|kind| {
        let of_it = items.iter().filter(|item| item.kind == *kind);
        let number = of_it.clone().count();
        let bytes: u64 = of_it.map(|item| item.bytes).sum();
        (number > 0).then(|| format!("{} with {}", count(number, kind.name()), Bytes(bytes)))
    });
    let kinds: Vec<String> = kinds.collect();
    let _ = match kinds.is_empty() {
        true => writeln!(out, "the store {dir} has nothing"),
        false => writeln!(
            out,
            "the store {dir} has {}: {}",
            Bytes(total),
            kinds.join(", ")
        ),
    };
    out
}

fn row(out: &mut String, item: &Item) {
    let name = match item.kind {
        // As logs and registries call it.
        Kind::Blob => format!("sha256:{}", item.name),
        _ => item.name.clone(),
    };
    let id = item.id.as_deref().unwrap_or_default();
    let id = text::ellipsis(&text::line(id.as_bytes(), Colours::Drop), 60);
    let (size, used) = (Bytes(item.bytes).to_string(), stamp(item.used));
    let used = used.as_deref().unwrap_or("unknown");
    let line = format!("{:8} {size:>9}  {used:24}  {name} {id}", item.kind.name());
    let _ = writeln!(out, "{}", line.trim_end());
}

fn collect(typed: &Typed, chosen: &Chosen) -> Result<u8, Failure> {
    let limits = limits(typed).map_err(Failure::Usage)?;
    let dir = text::line(chosen.dir.to_string_lossy().as_bytes(), Colours::Drop);
    // No store is made for it.
    if !store::is_there(&chosen.dir)? {
        super::print(&format!("the store {dir} has nothing\n"));
        return Ok(0);
    }
    let doing = match typed.dry_run {
        true => Doing::Tell,
        false => Doing::Take,
    };
    let done = until_a_signal(|cancel| Store::open(&chosen.dir)?.collect(&limits, doing, cancel))?;
    super::print(&told(&done, doing, &dir));
    for error in &done.failed {
        report::print(&Report::error("", error), LogFormat::Text);
    }
    Ok(if done.failed.is_empty() { 0 } else { FAILURE })
}

fn told(done: &Collected, doing: Doing, dir: &str) -> String {
    let mut out = String::new();
    for item in &done.taken {
        row(&mut out, item);
    }
    let (freed, left) = (Bytes(done.freed), Bytes(done.left));
    let number = done.taken.len();
    let what = match number {
        1 => "1 thing".to_owned(),
        _ => format!("{number} things"),
    };
    let _ = match doing {
        Doing::Take => writeln!(
            out,
            "took {what} and freed {freed}; the store {dir} has {left}"
        ),
        Doing::Tell => writeln!(
            out,
            "would take {what} and free {freed}; the store {dir} would have {left}"
        ),
    };
    if !done.used.is_empty() {
        let bytes = done.used.iter().map(|item| item.bytes).sum();
        let _ = writeln!(
            out,
            "{} more that are over the limits stay, since running builds may use them",
            Bytes(bytes)
        );
    }
    out
}

fn verify(typed: &Typed, chosen: &Chosen) -> Result<u8, Failure> {
    let dir = text::line(chosen.dir.to_string_lossy().as_bytes(), Colours::Drop);
    let faults = until_a_signal(|cancel| store::verify(&chosen.dir, cancel))?;
    let mut out = String::new();
    for fault in &faults {
        let line = format!("{}: {}", fault.place.display(), fault.why);
        let _ = writeln!(out, "{}", text::line(line.as_bytes(), Colours::Drop));
    }
    let number = faults.len();
    let _ = match number {
        0 => writeln!(out, "the store {dir} is right"),
        1 => writeln!(out, "1 thing is wrong in the store {dir}"),
        _ => writeln!(out, "{number} things are wrong in the store {dir}"),
    };
    if number == 0 || !typed.repair {
        if number > 0 {
            out.push_str("store verify --repair drops what is wrong\n");
        }
        super::print(&out);
        return Ok(if number == 0 { 0 } else { FAILURE });
    }
    let stays = Store::open(&chosen.dir)?.repair(faults)?;
    let _ = writeln!(out, "dropped {} of them", number - stays.len());
    super::print(&out);
    for (fault, why) in &stays {
        let place = chosen.dir.join(&fault.place);
        let report = match why {
            Stays::Failed(error) => Report::error("", error),
            Stays::Foreign => Report::usage(&Usage::new(format!(
                "{} is not the store's: remove it, or move it away",
                place.display()
            ))),
        };
        report::print(&report, LogFormat::Text);
    }
    Ok(if stays.is_empty() { 0 } else { FAILURE })
}

fn limits(typed: &Typed) -> Result<Limits, Usage> {
    let size = typed.max_size.as_deref().map(|text| {
        size(text).ok_or_else(|| {
            Usage::new(format!(
                "--max-size: `{text}` is no size: 500m, 10g, 1.5GB, 10GiB or a number of bytes is wanted"
            ))
        })
    });
    let age = typed.max_age.as_deref().map(|text| {
        super::duration::duration(text).ok_or_else(|| {
            Usage::new(format!(
                "--max-age: `{text}` is no time: 7d, 24h or 1h30m is wanted"
            ))
        })
    });
    Ok(Limits {
        size: size.transpose()?,
        age: age.transpose()?,
    })
}

/// Reads a number of bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let scale: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let mut part = 0_u128;
    let mut parts = 1_u128;
    for digit in fraction.bytes() {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        // What is finer than that is less than a byte.
        if parts < 1_000_000_000_000_000 {
            part = part * 10 + u128::from(digit);
            parts *= 10;
        }
    }
    let part = part * u128::from(scale) / parts;
    whole.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("0", Some(0)),
            ("12", Some(12)),
            ("500m", Some(500_000_000)),
            ("10g", Some(10_000_000_000)),
            ("10G", Some(10_000_000_000)),
            ("1.5GB", Some(1_500_000_000)),
            ("1.5 GiB", Some(1_610_612_736)),
            ("10GiB", Some(10_737_418_240)),
            ("2Ki", Some(2048)),
            ("0.5k", Some(500)),
            ("", None),
            ("g", None),
            (".5g", None),
            ("1.g", None),
            ("1.2.3g", None),
            ("-1", None),
            ("10 apples", None),
            ("99999999999999999999", None),
            ("99999999999t", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text), expected, "{text}");
        }
    }
}
