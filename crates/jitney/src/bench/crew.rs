//! Workers that go on until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::error::Error;
use super::pace::Timer;
use super::process::Process;
use super::submits::join;
use super::worker::{Asks, Worker};

/// Workers under way.
#[derive(Debug)]
pub(super) struct Crew {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<(), Error>>,
}

impl Crew {
    /// So many workers that ask for the same; each batch takes its worker so long.
    pub(super) async fn start(
        server: &Process,
        workers: u32,
        asks: &Asks,
        handler: Option<Duration>,
    ) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let worker = Worker::connect(server.address, asks).await?;
            let timer = Timer::new().map_err(|source| Error::io("cannot make a timer", source))?;
            tasks.spawn(work(worker, timer, handler, Arc::clone(&stop)));
        }
        Ok(Self { stop, tasks })
    }

    /// They end once their polls come back; what they hold is settled.
    pub(super) async fn stop(self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Relaxed);
        join(self.tasks).await
    }
}

async fn work(
    mut worker: Worker,
    timer: Timer,
    handler: Option<Duration>,
    stop: Arc<AtomicBool>,
) -> Result<(), Error> {
    loop {
        let patient = !stop.load(Ordering::Relaxed);
        let turn = worker.poll(patient).await?;
        if turn.taken == 0 && !patient {
            return Ok(());
        }
        if let Some(time) = handler.filter(|_| turn.taken > 0) {
            timer
                .wait(time)
                .await
                .map_err(|source| Error::io("a timer failed", source))?;
        }
    }
}
