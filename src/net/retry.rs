use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Tells of an error whether trying again may help; trying again is a property of the error, not
/// of the call.
pub trait Temporary {
    /// Gives what is known for another attempt, where the same call may succeed later.
    fn again(&self) -> Option<Again>;

    /// Tells whether the same call may succeed later.
    fn is_temporary(&self) -> bool {
        self.again().is_some()
    }

    /// Makes the error that says that the build was cancelled.
    fn cancelled() -> Self;
}

/// What is known for another attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// How long the other side asks to wait.
    pub after: Option<Duration>,
    /// How long nothing moved before the error: that has been waited too.
    pub stood_still: Duration,
}

/// The attempts at one thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    /// How many failed.
    pub failed: u32,
    /// How long has been waited.
    pub waited: Duration,
}

impl Attempts {
    /// Counts one that failed; gives the wait before the next one, or none where it is time to give
    /// up.
    pub fn next(&mut self, retry: &Retry, again: &Again) -> Option<Duration> {
        self.failed += 1;
        self.waited += again.stood_still;
        let wait = retry.wait(self.failed, self.waited, again.after)?;
        self.waited += wait;
        Some(wait)
    }
}

/// How often and how long temporary errors are met with another attempt.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The most attempts, the first included.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles from then on.
    pub base: Duration,
    /// The longest wait between two attempts.
    pub longest: Duration,
    /// The longest all waits may take together, those for an answer that never came included.
    pub total: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 6,
            base: Duration::from_millis(400),
            longest: Duration::from_secs(20),
            total: Duration::from_secs(120),
        }
    }
}

impl Retry {
    /// Gives the wait after so many failed attempts when so much has been waited already, or none
    /// where it is time to give up. Half of a computed wait is left to chance, so that many clients
    /// do not come back at once; a wait the other side asked for is kept in full, unless it is
    /// longer than all waits may be.
    pub fn wait(&self, failed: u32, waited: Duration, asked: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let wait = match asked {
            Some(asked) => asked,
            None => {
                let doubled = self
                    .base
                    .saturating_mul(
                        1u32.checked_shl(failed.saturating_sub(1))
                            .unwrap_or(u32::MAX),
                    )
                    .min(self.longest);
                doubled / 2 + (doubled / 2).mul_f64(chance())
            }
        };
        (waited.checked_add(wait)? <= self.total).then_some(wait)
    }
}

/// Reads Retry-After: seconds, or a date that is compared with the answer's own.
pub(super) fn seconds(text: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(n) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(n));
    }
    let parse = |text: &str| jiff::fmt::rfc2822::parse(text).ok();
    let then = parse(text)?.timestamp();
    let now = date
        .and_then(parse)
        .map_or_else(jiff::Timestamp::now, |d| d.timestamp());
    Some(Duration::from_secs(
        u64::try_from(then.as_second() - now.as_second()).unwrap_or(0),
    ))
}

/// Gives a number from 0 to 1 that differs from call to call and process to process; the standard
/// library seeds its hashers from the system.
fn chance() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_wait_is_read_as_seconds_or_as_a_date() {
        let now = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        for (text, date, expected) in [
            ("120", None, Some(120)),
            (" 0 ", now, Some(0)),
            ("Wed, 21 Oct 2015 07:29:30 GMT", now, Some(90)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", now, Some(0)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", None, Some(0)),
            ("soon", now, None),
            ("", now, None),
        ] {
            let wait = expected.map(Duration::from_secs);
            assert_eq!(seconds(text, date), wait, "{text:?} at {date:?}");
        }
    }
}
