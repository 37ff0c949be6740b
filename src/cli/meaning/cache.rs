//! What is looked up instead of made again.

use crate::cli::flags::Typed;
use crate::cli::parse::Usage;
use crate::oci::Reference;
use crate::request::{CachePlace, Caching};
use std::time::Duration;

/// How old an entry may be where nothing is said: two weeks, as with kaniko.
const TTL: Duration = Duration::from_secs(336 * 3600);

pub(super) fn caching(typed: &Typed, pushed: &[Reference]) -> Result<Option<Caching>, Usage> {
    let to = match (&typed.cache_repo, pushed.first()) {
        (Some(text), _) => Some(place("--cache-repo", text)?),
        (None, Some(destination)) => Some(CachePlace::Registry(Reference {
            repository: format!("{}/cache", destination.repository),
            tag: None,
            digest: None,
            ..destination.clone()
        })),
        (None, None) => None,
    };
    let from = typed.cache_from.iter();
    let from = from.map(|text| place("--cache-from", text));
    let from = from.collect::<Result<_, _>>()?;
    let ttl = match &typed.cache_ttl {
        Some(text) => duration(text).ok_or_else(|| {
            Usage::new(format!(
                "--cache-ttl: `{text}` is no time: numbers with h, m or s are wanted, such as 1h30m"
            ))
        })?,
        None => TTL,
    };
    if !typed.cache {
        return Ok(None);
    }
    Ok(Some(Caching {
        to: to.into_iter().collect(),
        from,
        writes: !typed.no_push_cache,
        ttl,
        copies: typed.cache_copy_layers.unwrap_or(true),
        runs: typed.cache_run_layers.unwrap_or(true),
    }))
}

/// Reads a place of the cache: a repository.
fn place(flag: &str, text: &str) -> Result<CachePlace, Usage> {
    let reference = super::reference(flag, text)?;
    if reference.digest.is_some() {
        return Err(Usage::new(format!(
            "{flag}: `{text}` is an image: a repository is wanted, without a digest"
        )));
    }
    Ok(CachePlace::Registry(Reference {
        tag: None,
        ..reference
    }))
}

/// Reads a time as Go writes it: `336h`, `1h30m`, `1.5h`, `90s`, `100ms`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..end)?.parse().ok()?;
        rest = rest.get(end..)?;
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match rest.get(..end)? {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number * unit;
        rest = rest.get(end..)?;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn times_as_go_writes_them() {
        for (text, millis) in [
            ("336h", Some(336 * 3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5h", Some(5_400_000)),
            ("90s", Some(90_000)),
            ("100ms", Some(100)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("1", None),
            ("h", None),
            ("1d", None),
            ("-1h", None),
            ("1h30", None),
            ("..h", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
