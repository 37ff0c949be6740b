//! Lengths of time on the command line.

use std::time::Duration;

/// Reads a length of time as Go writes it, `1h30m` or `1.5h`, with days and weeks besides, `7d` or `2w`;
/// none where it is none, or longer than 2^64 seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
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
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let scale = match unit {
            "w" => 604_800.0,
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_and_people_write_them() {
        for (text, millis) in [
            ("336h", Some(336 * 3_600_000)),
            ("336h0m0s", Some(336 * 3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5h", Some(5_400_000)),
            ("90s", Some(90_000)),
            ("100ms", Some(100)),
            ("7d", Some(7 * 86_400_000)),
            ("2w", Some(14 * 86_400_000)),
            ("1w1d", Some(8 * 86_400_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("1", None),
            ("h", None),
            ("d", None),
            ("1y", None),
            ("-1h", None),
            ("1h30", None),
            ("..h", None),
            ("99999999999999999999d", None),
            ("9999999999999999999w", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
