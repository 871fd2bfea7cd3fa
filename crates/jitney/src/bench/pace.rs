//! Intended times: an open loop sends when it is time, whether or not earlier answers are there.
//!
//! A latency counts from the intended time, so that a server that stalls is charged for all that would have
//! been sent meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::error::Error;
use super::progress::Progress;
use super::submits::{Callers, Submitted, Tally, join};
use super::wire::Connection;
use crate::clock::{Mono, SystemClock, after, between};

/// The shortest pause between two looks at the clock: what is due meanwhile is sent together.
const STEP: Duration = Duration::from_micros(100);

/// What is due when.
#[derive(Debug)]
struct Schedule {
    start: Mono,
    /// Per second.
    rate: u32,
    total: u64,
    next: AtomicU64,
    due: Semaphore,
}

impl Schedule {
    fn intended(&self, number: u64) -> Mono {
        let micros = u128::from(number) * 1_000_000 / u128::from(self.rate);
        after(
            self.start,
            Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)),
        )
    }

    fn due_after(&self, time: Duration) -> u64 {
        let due = time.as_micros() * u128::from(self.rate) / 1_000_000 + 1;
        u64::try_from(due).unwrap_or(u64::MAX).min(self.total)
    }

    /// How long nothing is due once `released` were: counted from the start, so that late timers do not add up.
    fn pause(&self, released: u64, now: Mono) -> Duration {
        between(now, self.intended(released)).max(STEP)
    }
}

/// Submits `rate` jobs a second for `duration`, each on a connection that is free, and waits for the answers; no
/// longer than as long again.
pub(super) async fn open_loop(
    callers: &Callers,
    rate: u32,
    duration: Duration,
    progress: &Arc<Progress>,
) -> Result<Submitted, Error> {
    let timer = Timer::new().map_err(|source| Error::io("cannot make a timer", source))?;
    let tally = Arc::new(Tally::new(SystemClock::new(), progress));
    let mut connections = Vec::new();
    for _ in 0..callers.connections {
        connections.push(Connection::open(callers.address).await?);
    }
    let total = duration.as_micros() * u128::from(rate) / 1_000_000;
    let schedule = Arc::new(Schedule {
        start: tally.now(),
        rate,
        total: u64::try_from(total).unwrap_or(u64::MAX),
        next: AtomicU64::new(0),
        due: Semaphore::new(0),
    });
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(call(
            connection,
            callers.clone(),
            Arc::clone(&schedule),
            Arc::clone(&tally),
        ));
    }
    let mut released = 0;
    while released < schedule.total {
        timer
            .wait(schedule.pause(released, tally.now()))
            .await
            .map_err(|source| Error::io("a timer failed", source))?;
        let due = schedule.due_after(between(schedule.start, tally.now()));
        schedule
            .due
            .add_permits(usize::try_from(due - released).unwrap_or(0));
        released = due;
    }
    // One more for each: it finds nothing to send, and ends.
    schedule
        .due
        .add_permits(usize::try_from(callers.connections).unwrap_or(0));
    let ended = tokio::time::timeout(duration, join(tasks)).await;
    ended.unwrap_or(Ok(()))?;
    let mut submitted = tally.take();
    let answered = submitted.answers + submitted.refused;
    if answered < schedule.total {
        submitted.refused += schedule.total - answered;
        let text = || "no answer in time: the server does not keep up with the rate".to_owned();
        submitted.refusal.get_or_insert_with(text);
    }
    Ok(submitted)
}

async fn call(
    mut connection: Connection,
    callers: Callers,
    schedule: Arc<Schedule>,
    tally: Arc<Tally>,
) -> Result<(), Error> {
    while let Ok(due) = schedule.due.acquire().await {
        due.forget();
        let number = schedule.next.fetch_add(1, Ordering::Relaxed);
        if number >= schedule.total {
            break;
        }
        let answer = connection.exchange(&callers.request).await?;
        let other = answer.status != callers.expected;
        tally.note(
            schedule.intended(number),
            other.then_some((answer.status, answer.body)),
        );
    }
    Ok(())
}

/// A timer that is exact to some ten microseconds, where tokio's counts whole milliseconds.
#[cfg(target_os = "linux")]
mod exact {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    #[derive(Debug)]
    pub(in crate::bench) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for descriptors that are not owned; this one is"
        )]
        pub(in crate::bench) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            Ok(Self(AsyncFd::new(timer)?))
        }

        pub(in crate::bench) async fn wait(&self, time: Duration) -> io::Result<()> {
            let zero = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let value = Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                // A timer of 0 would never fire.
                tv_nsec: i64::from(time.subsec_nanos().max(1)),
            };
            let once = Itimerspec {
                it_interval: zero,
                it_value: value,
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            let read = |fd: &OwnedFd| rustix::io::read(fd, &mut [0_u8; 8]).map_err(io::Error::from);
            self.0
                .async_io(tokio::io::Interest::READABLE, read)
                .await
                .map(drop)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod exact {
    use std::io;
    use std::time::Duration;

    #[derive(Debug)]
    pub(in crate::bench) struct Timer;

    impl Timer {
        pub(in crate::bench) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(in crate::bench) async fn wait(&self, time: Duration) -> io::Result<()> {
            tokio::time::sleep(time).await;
            Ok(())
        }
    }
}

pub(super) use exact::Timer;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_what_was_intended_until_then() {
        let schedule = Schedule {
            start: Mono(1_000),
            rate: 4_000,
            total: 10,
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
        };
        assert_eq!(schedule.intended(0), Mono(1_000));
        assert_eq!(schedule.intended(9), Mono(1_000 + 9 * 250));
        let due = |micros| schedule.due_after(Duration::from_micros(micros));
        assert_eq!([due(0), due(249), due(250), due(1_000_000)], [1, 1, 2, 10]);
    }

    /// Each pause was as long as the one between two jobs and began when the last had ended, late: at 100/s jobs were
    /// sent up to 10 ms after their time.
    #[test]
    fn a_late_timer_makes_the_next_one_no_later() {
        let schedule = Schedule {
            start: Mono(1_000),
            rate: 100,
            total: 10,
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
        };
        let pause = |released, now| schedule.pause(released, Mono(now)).as_micros();
        assert_eq!(pause(1, 1_000), 10_000);
        assert_eq!(pause(1, 1_900), 9_100);
        assert_eq!(pause(2, 11_700), 9_300);
        assert_eq!(pause(2, 30_000), STEP.as_micros());
    }
}
