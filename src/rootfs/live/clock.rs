//! When a step began, by the clock that files get their times from.

use crate::fs::Time;
use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;

/// How far a file's time may lag behind the clock, in nanoseconds: a few ticks of the slowest kernel.
const SLACK: i64 = 50_000_000;
/// An expiry that never comes, in seconds.
const NEVER: i64 = 1 << 40;

/// From when on a file's time of last change says that this step changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// From this time on.
    Time(Time),
    /// Somebody has set the clock: every file may have changed.
    Ever,
}

impl Since {
    pub(super) fn covers(self, ctime: Time) -> bool {
        match self {
            Since::Time(start) => (ctime.secs, ctime.nanos) >= (start.secs, start.nanos),
            Since::Ever => true,
        }
    }
}

/// A clock that notices when it is set.
#[derive(Debug)]
pub(super) struct Clock {
    /// A timer that the kernel cancels when the clock jumps.
    timer: OwnedFd,
    start: Time,
}

impl Clock {
    pub(super) fn new() -> io::Result<Clock> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let mut clock = Clock {
            timer: timerfd_create(TimerfdClockId::Realtime, flags)?,
            start: Time::default(),
        };
        clock.start()?;
        Ok(clock)
    }

    /// Begins a step now.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let never = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: NEVER,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&self.timer, flags, &never)?;
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let (secs, nanos) = match now.tv_nsec < SLACK {
            true => (now.tv_sec - 1, now.tv_nsec + 1_000_000_000 - SLACK),
            false => (now.tv_sec, now.tv_nsec - SLACK),
        };
        self.start = Time {
            secs,
            nanos: u32::try_from(nanos).unwrap_or_default(),
        };
        Ok(())
    }

    /// Gives what of all files can have been changed since the step began.
    pub(super) fn since(&self) -> Since {
        let mut expired = [0_u8; 8];
        match rustix::io::read(&self.timer, &mut expired) {
            Err(Errno::AGAIN) => Since::Time(self.start),
            _ => Since::Ever,
        }
    }
}
