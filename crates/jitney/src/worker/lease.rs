//! A lease that is kept alive: heartbeats at a third of its term, until it is let go.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::client::{Client, Error, Extended};
use crate::job::JobId;

/// The shortest pause between two heartbeats, whatever the server says: no busy loop.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// After a failed heartbeat the next comes soon, but not sooner than a server can restart.
const PAUSE_AFTER_FAILURE_MAX: Duration = Duration::from_secs(1);

/// Extends a lease while it lives; dropping it ends the heartbeats.
#[derive(Debug)]
pub(crate) struct HeldLease {
    lost: Arc<Lost>,
    _stop: DropGuard,
}

/// Which jobs of a lease are no longer its worker's.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    all: CancellationToken,
    jobs: Mutex<HashSet<JobId>>,
}

impl HeldLease {
    /// Begins to extend. The task ends when this is dropped, or when all is lost.
    pub(crate) fn hold(client: Client, lease: Arc<str>, term: Duration) -> Self {
        let lost = Arc::new(Lost::default());
        let stop = CancellationToken::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(extend(client, lease, term, Arc::clone(&lost))),
        );
        Self {
            lost,
            _stop: stop.drop_guard(),
        }
    }

    /// What is lost of it, also later.
    pub(crate) fn lost(&self) -> &Arc<Lost> {
        &self.lost
    }
}

impl Lost {
    /// Whether the job is lost.
    pub(crate) fn contains(&self, id: JobId) -> bool {
        self.all.is_cancelled() || self.lock().contains(&id)
    }

    /// Every job is lost.
    pub(crate) fn lose_all(&self) {
        self.all.cancel();
    }

    /// Ends when every job is lost.
    pub(crate) async fn all_lost(&self) {
        self.all.cancelled().await;
    }

    fn lose(&self, extended: &Extended) {
        let mut jobs = self.lock();
        jobs.extend(extended.lost.iter().chain(&extended.cancelled));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<JobId>> {
        // A set is whole after each of its operations, so that a panic elsewhere leaves it usable.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn extend(client: Client, lease: Arc<str>, mut term: Duration, lost: Arc<Lost>) {
    let mut failures = 0_u32;
    loop {
        let pause = if failures == 0 {
            term / 3
        } else {
            (term / 10).min(PAUSE_AFTER_FAILURE_MAX)
        };
        sleep(pause.max(PAUSE_MIN)).await;
        let patience = (term / 3).max(PAUSE_MIN);
        match timeout(patience, client.extend(&lease)).await {
            Ok(Ok(extended)) => {
                failures = 0;
                term = Duration::from_millis(extended.expires_in_ms);
                lost.lose(&extended);
            }
            Ok(Err(Error::Refused(problem))) if is_gone(&problem.code) => {
                // Also how a lease ends whose last settle is on its way.
                debug!(%lease, code = %problem.code, "lease ended");
                lost.lose_all();
                return;
            }
            Ok(Err(_)) if client.is_over() => return,
            Ok(Err(error)) => {
                if failures == 0 {
                    warn!(%lease, error = error.told(), "heartbeat failed, trying on");
                }
                failures += 1;
            }
            Err(_) => failures += 1,
        }
    }
}

/// Whether a refusal says that the lease is no more.
pub(crate) fn is_gone(code: &str) -> bool {
    matches!(code, "lease_lost" | "unknown_lease")
}
