use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Tells of an error whether trying again may help; trying again is a property of the error, not
/// of the call.
pub trait Temporary {
    /// Tells whether the same call may succeed later.
    fn is_temporary(&self) -> bool;

    /// Gives how long the other side asked to wait.
    fn retry_after(&self) -> Option<Duration>;

    /// Gives how long nothing moved before the error: that has been waited too.
    fn stood_still(&self) -> Duration;

    /// Makes the error that says that the build was cancelled.
    fn cancelled() -> Self;
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

/// Gives a number from 0 to 1 that differs from call to call and process to process; the standard
/// library seeds its hashers from the system.
fn chance() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
