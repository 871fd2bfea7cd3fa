//! A run: load, and in each round one blow at a random moment; then everything is drained, read and checked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jitney::client::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::callers::{self, Caller, Shared};
use crate::checker;
use crate::device::Device;
use crate::history::{self, Event, Line, Recorder};
use crate::operator::Operator;
use crate::report::Figures;
use crate::rng::Rng;
use crate::server::{Place, Server};
use crate::workers::{GOOD, WILD, Workers};

/// Callers at once.
const CALLERS: usize = 32;
/// Worker processes at once.
const WORKERS: usize = 3;
/// Submits, of one job or many, that a round may make, so that a run is bounded in count and not only in time.
const ROUND_SUBMITS: usize = 400;
/// After the last round: until callers have their answers, and until the lanes are empty.
const DRAIN_WITHIN: Duration = Duration::from_secs(90);
/// Reads at once, at the end.
const READERS: usize = 16;

/// What happens at the end of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// `kill -9` of the server.
    Server,
    /// The same, and again while it recovers.
    ServerTwice,
    /// `kill -9` of one worker.
    OneWorker,
    /// Of all workers.
    AllWorkers,
    /// Of the server and of a worker.
    Both,
    /// SIGTERM to the server, which stops by itself.
    Stop,
    /// SIGTERM twice: the server goes at once.
    StopAtOnce,
    /// The power of the server's disk.
    Power,
    /// The same, and again while it recovers.
    PowerTwice,
    /// The same, and all workers are killed.
    PowerAndWorkers,
    /// `kill -9` of the server, and soon after it has recovered the power goes.
    ServerThenPower,
}

/// What falls upon processes.
pub(crate) const KILLS: &[Blow] = &[
    Blow::Server,
    Blow::ServerTwice,
    Blow::Stop,
    Blow::StopAtOnce,
    Blow::Both,
    Blow::AllWorkers,
    Blow::OneWorker,
];

/// What falls upon a disk.
pub(crate) const CUTS: &[Blow] = &[
    Blow::Power,
    Blow::Power,
    Blow::Power,
    Blow::PowerTwice,
    Blow::PowerAndWorkers,
    Blow::ServerThenPower,
];

/// What a run consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seed: u64,
    /// Each falls once, in random order, before one falls again.
    pub(crate) blows: &'static [Blow],
}

/// Runs it all in the directory of the place, and reads the history. With a device the data lies on it.
pub(crate) async fn run(
    place: &Place,
    device: Option<&mut Device>,
    plan: Plan,
) -> Result<(Vec<Line>, Figures)> {
    let mut run = Run::start(place, device, plan.seed).await?;
    let mut callers = run.callers();
    let mut deck = Vec::new();
    for round in 1..=plan.rounds {
        run.workers.fill(WORKERS, WILD)?;
        run.shared.budget.add_permits(ROUND_SUBMITS);
        let load = run.rng.millis(100, 1_200);
        sleep(load).await;
        run.all_well(&mut callers)?;
        if deck.is_empty() {
            deck = run.shuffled(plan.blows);
        }
        let blow = deck.pop().context("the deck was filled")?;
        run.note(&format!("round {round}: {blow:?}"))?;
        run.strike(blow)
            .await
            .with_context(|| format!("in round {round}, {blow:?}"))?;
    }
    run.drain(callers).await?;
    run.read_all().await?;
    run.note("the last stop")?;
    run.stop().await?;
    // What was true before a stop is true after it.
    run.restart().await?;
    run.read_all().await?;
    run.stop().await?;
    run.figures.cuts = run.device.as_deref().map_or(0, |device| device.cuts);
    Ok((history::read_all(&place.directory)?, run.figures))
}

struct Run<'a> {
    place: Place,
    device: Option<&'a mut Device>,
    rng: Rng,
    recorder: Arc<Recorder>,
    server: Option<Server>,
    current: watch::Sender<Option<Client>>,
    shared: Arc<Shared>,
    workers: Workers,
    figures: Figures,
}

impl<'a> Run<'a> {
    async fn start(place: &Place, device: Option<&'a mut Device>, seed: u64) -> Result<Self> {
        let mut rng = Rng::new(seed);
        place.prepare()?;
        let recorder = Arc::new(Recorder::open(&place.directory, "callers")?);
        let (current, server) = watch::channel(None);
        let mut run = Self {
            place: place.clone(),
            device,
            shared: Arc::new(Shared::new(Arc::clone(&recorder), server, 1)),
            workers: Workers::new(place.clone(), rng.fork()),
            rng,
            recorder,
            server: None,
            current,
            figures: Figures::default(),
        };
        run.restart().await?;
        Ok(run)
    }

    /// All who call, and the operator.
    fn callers(&mut self) -> JoinSet<Result<()>> {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(Caller::new(Arc::clone(&self.shared), self.rng.fork()).run());
        }
        callers.spawn(Operator::new(Arc::clone(&self.shared), self.rng.fork()).run());
        callers
    }

    fn shuffled(&mut self, blows: &[Blow]) -> Vec<Blow> {
        let mut deck = blows.to_vec();
        for last in (1..deck.len()).rev() {
            deck.swap(last, self.rng.index(last + 1));
        }
        deck
    }

    /// Nobody may end before it is told to, or struck.
    fn all_well(&mut self, callers: &mut JoinSet<Result<()>>) -> Result<()> {
        if let Some(ended) = callers.try_join_next() {
            ended?.context("a caller ended")?;
            bail!("a caller ended by itself");
        }
        self.workers.all_alive()?;
        match &mut self.server {
            Some(server) => server.alive(),
            None => Ok(()),
        }
    }

    async fn strike(&mut self, blow: Blow) -> Result<()> {
        match blow {
            Blow::Server => self.kill().await?,
            Blow::ServerTwice => {
                self.kill().await?;
                let mut child = self.place.spawn()?;
                let moment = self.in_recovery()?;
                sleep(moment).await;
                child.kill().await?;
                self.figures.kills += 1;
                self.note("killed again")?;
            }
            Blow::OneWorker => self.kill_worker().await?,
            Blow::AllWorkers => self.kill_workers().await?,
            Blow::Both => {
                self.kill_worker().await?;
                self.kill().await?;
            }
            Blow::Stop => self.stop().await?,
            Blow::StopAtOnce => {
                let pause = self.rng.millis(0, 100);
                let server = self.server.take().context("a server runs")?;
                server.stop_at_once(pause).await?;
                self.gone("stopped at once")?;
                self.figures.stops += 1;
            }
            Blow::Power => self.cut().await?,
            Blow::PowerTwice => {
                self.cut().await?;
                let child = self.place.spawn()?;
                let moment = self.in_recovery()?;
                sleep(moment).await;
                self.device()?.cut(child).await?;
                self.recorder.record(Event::Cut)?;
            }
            Blow::PowerAndWorkers => {
                self.kill_workers().await?;
                self.cut().await?;
            }
            Blow::ServerThenPower => {
                self.kill().await?;
                self.restart().await?;
                let load = self.rng.millis(0, 100);
                sleep(load).await;
                self.cut().await?;
            }
        }
        if self.server.is_none() {
            self.restart().await?;
        }
        Ok(())
    }

    /// A moment that may lie within a recovery.
    fn in_recovery(&mut self) -> Result<Duration> {
        let recovery = u64::try_from(self.figures.recovery_max.as_millis())?;
        Ok(self.rng.millis(0, recovery))
    }

    async fn kill_workers(&mut self) -> Result<()> {
        for _ in 0..WORKERS {
            self.kill_worker().await?;
        }
        Ok(())
    }

    async fn kill_worker(&mut self) -> Result<()> {
        self.figures.worker_kills += 1;
        self.workers.kill_one().await
    }

    async fn kill(&mut self) -> Result<()> {
        let server = self.server.take().context("a server runs")?;
        server.kill().await?;
        self.figures.kills += 1;
        self.gone("killed")
    }

    async fn cut(&mut self) -> Result<()> {
        let server = self.server.take().context("a server runs")?;
        server.cut(self.device()?).await?;
        self.recorder.record(Event::Cut)?;
        self.gone("cut")
    }

    fn device(&mut self) -> Result<&mut Device> {
        self.device.as_deref_mut().context("the data lies on a device")
    }

    async fn stop(&mut self) -> Result<()> {
        let server = self.server.take().context("a server runs")?;
        server.stop().await?;
        self.figures.stops += 1;
        self.gone("stopped")
    }

    fn gone(&self, how: &str) -> Result<()> {
        self.current.send_replace(None);
        self.note(how)
    }

    async fn restart(&mut self) -> Result<()> {
        let server = self.place.start().await?;
        self.figures.recovery_max = self.figures.recovery_max.max(server.took);
        self.note(&format!("ready at {} after {:?}", server.url(), server.took))?;
        self.current.send_replace(Some(callers::client(server.url())?));
        self.server = Some(server);
        Ok(())
    }

    /// Lets every caller get its answer, and workers that fail nothing empty the lanes.
    async fn drain(&mut self, mut callers: JoinSet<Result<()>>) -> Result<()> {
        self.note("drain")?;
        self.shared.budget.close();
        self.workers.kill_all().await?;
        self.workers.fill(WORKERS, GOOD)?;
        let answered = async {
            while let Some(ended) = callers.join_next().await {
                ended??;
            }
            Ok::<(), anyhow::Error>(())
        };
        timeout(DRAIN_WITHIN, answered)
            .await
            .context("callers still wait for an answer")??;
        let until = Instant::now() + DRAIN_WITHIN;
        while !self.is_empty().await? {
            if Instant::now() > until {
                // The checker says which jobs they are.
                return self.note("the lanes are not empty in time");
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.workers.all_alive()?;
        self.workers.kill_all().await
    }

    async fn is_empty(&self) -> Result<bool> {
        let client = self.current.borrow().clone().context("a server runs")?;
        callers::lanes_are_empty(&client).await
    }

    /// Reads every job there must be.
    async fn read_all(&self) -> Result<()> {
        let ids = checker::ids(&history::read_all(&self.place.directory)?);
        let client = self.current.borrow().clone().context("a server runs")?;
        let ids = Arc::new(ids);
        let mut readers = JoinSet::new();
        for reader in 0..READERS {
            let (ids, client, recorder) = (Arc::clone(&ids), client.clone(), Arc::clone(&self.recorder));
            readers.spawn(async move {
                for id in ids.iter().skip(reader).step_by(READERS) {
                    callers::read(&recorder, &client, id, true).await?;
                }
                Ok::<(), anyhow::Error>(())
            });
        }
        while let Some(ended) = readers.join_next().await {
            ended??;
        }
        Ok(())
    }

    fn note(&self, text: &str) -> Result<()> {
        self.recorder.record(Event::Note {
            text: text.to_owned(),
        })
    }
}
