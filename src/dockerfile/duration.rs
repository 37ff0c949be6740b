//! Durations in Go's syntax (`1h30m`, `1.5s`, `-3us`), as HEALTHCHECK's flags have them.

use super::spelling::quote;

/// Parses a duration into nanoseconds; the error is Go's text.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                return Err(format!(
                    "time: unknown unit {} in duration {}",
                    quote(unit),
                    quote(text)
                ));
            }
        };
        // Nineteen digits hold every i64; more of them before the point is too much, behind it too fine.
        if whole.trim_start_matches('0').len() > 19 {
            return Err(invalid());
        }
        let number = |digits: &str| {
            digits
                .bytes()
                .fold(0i128, |n, d| n * 10 + i128::from(d - b'0'))
        };
        total += number(whole) * scale;
        let fraction = fraction.get(..15).unwrap_or(fraction);
        let places = u32::try_from(fraction.len()).unwrap_or(0);
        total += number(fraction) * scale / 10i128.pow(places);
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = after;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map_err(|_| invalid())
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("5m", Ok(300_000_000_000)),
            ("1h30m", Ok(5_400_000_000_000)),
            ("1.5s", Ok(1_500_000_000)),
            (".5s", Ok(500_000_000)),
            ("2us", Ok(2_000)),
            ("2µs", Ok(2_000)),
            ("-1ms", Ok(-1_000_000)),
            ("+1ns", Ok(1)),
            ("9223372036854775807ns", Ok(i64::MAX)),
            (
                "9223372036854775808ns",
                Err("time: invalid duration \"9223372036854775808ns\""),
            ),
            (
                "99999999999999999999999999h",
                Err("time: invalid duration \"99999999999999999999999999h\""),
            ),
            ("", Err("time: invalid duration \"\"")),
            ("-", Err("time: invalid duration \"-\"")),
            (".s", Err("time: invalid duration \".s\"")),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("5x", Err("time: unknown unit \"x\" in duration \"5x\"")),
            ("5s3", Err("time: missing unit in duration \"5s3\"")),
        ] {
            assert_eq!(parse(text), expected.map_err(str::to_owned), "{text}");
        }
    }
}
