//! The soak: one server under mixed load for minutes or hours, and what it takes of the machine meanwhile. C42 of the
//! conformance list: memory, open files, threads and disk stay where they are, latency does not drift, and a backlog
//! of a million jobs takes no more memory than its index. `cargo xtask soak --minutes N`; docs/durability.md.

mod load;
mod verdict;
mod watch;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jitney::client::Submit;
use jitney::entropy::random_u64;
use jitney::job::Priority;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::rng::Rng;
use crate::say;
use crate::server::{Place, Server};
use load::Shared;
use watch::sample;

/// The argument that makes this program run the soak.
pub(crate) const SOAK: &str = "soak";

const USAGE: &str = "crash soak --jitney PATH [--minutes N] [--rate N] [--backlog N] [--seed S]";

/// Results and keys go within seconds and segments are small, so that everything that must be let go is let go many
/// times in a short run, and the log moves through hundreds of segments.
const CONFIG: &str = r#"
[server]
max_job_bytes = "16KiB"
max_body_bytes = "256KiB"
segment_bytes = "2MiB"
cache_bytes = "1MiB"
result_ttl = "10s"
key_ttl = "20s"
grace = "2s"

[processor.steady]
max_jobs = 16
lease = "2s"

[processor.wild]
max_jobs = 16
lease = "2s"
max_attempts = 1000
max_crashes = 1000
backoff = "20ms"
backoff_max = "200ms"

[processor.backlog]
max_jobs = 1000
"#;
/// Of that configuration, bytes.
const SEGMENT_BYTES: u64 = 2 << 20;
const CACHE_BYTES: u64 = 1 << 20;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);
/// Until everything has been let go at least once, and the allocator has what it needs.
const WARM_UP: Duration = Duration::from_secs(60);
/// Jobs that lie in a paused lane all the time: no segment may stay for the sake of one.
const PARKED: u32 = 200;
/// A lane that is empty by then is not stuck.
const DRAIN_WITHIN: Duration = Duration::from_mins(5);
/// Jobs of the backlog per request.
const BACKLOG_CALL: u64 = 1_000;

/// What a run is started with.
struct Options {
    minutes: u64,
    /// Jobs per second.
    rate: u64,
    /// Jobs of the backlog at the end.
    backlog: u64,
    seed: u64,
    jitney: PathBuf,
}

/// Whether nothing grew.
pub(crate) async fn run(arguments: &[String]) -> Result<bool> {
    let options = parse(arguments)?;
    let (minutes, rate) = (options.minutes, options.rate);
    say(&format!(
        "soak: {minutes} min, {rate} jobs/s, seed {}",
        options.seed
    ));
    let directory = tempfile::Builder::new().prefix("jitney-soak-").tempdir()?;
    let place = Place {
        directory: directory.path().to_owned(),
        jitney: options.jitney.clone(),
        data: PathBuf::from("data"),
        config: CONFIG,
        syncs: true,
    };
    let soaked = soak(&place, &options).await;
    if soaked.is_err() {
        say(&format!("the server's log ends:\n{}", place.log_end()));
    }
    soaked
}

async fn soak(place: &Place, options: &Options) -> Result<bool> {
    place.prepare()?;
    let mut rng = Rng::new(options.seed);
    let server = place.start().await?;
    let (current, client) = channel::channel(load::client(server.url())?);
    let shared = Arc::new(Shared::new(client));
    park(&shared).await?;

    let mut tasks = JoinSet::new();
    load::start(&shared, options.rate, &mut rng, &mut tasks);
    workers::start(&shared, &mut rng, &mut tasks);
    // One death of the server while it warms up: what comes after it is the process that is watched.
    sleep(WARM_UP / 2).await;
    server.kill().await?;
    let mut server = place.start().await?;
    current.send_replace(load::client(server.url())?);
    sleep(WARM_UP / 2).await;
    let mut samples = Vec::new();
    let end = Instant::now() + Duration::from_secs(options.minutes * 60).saturating_sub(WARM_UP);
    shared.window();
    while Instant::now() < end {
        sleep(EVERY).await;
        server.alive()?;
        ensure!(
            tasks.try_join_next().is_none(),
            "a part of the load ended by itself"
        );
        let taken = sample(&server, place, &shared).await?;
        if samples.len() % 12 == 0 {
            say(&taken.line());
        }
        samples.push(taken);
    }
    shared.stop_load();
    let backlog = backlog(&server, place, &shared, options.backlog).await?;
    drain(&shared).await?;
    tasks.shutdown().await;
    let verdicts = verdict::of(&samples, backlog, &shared);
    server.stop().await?;
    say("");
    for verdict in &verdicts {
        say(&verdict.line());
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.passed).count();
    say(&format!(
        "\nsoak: {} passed, {failed} failed",
        verdicts.len() - failed
    ));
    Ok(failed == 0)
}

/// Lays jobs into a lane from which nobody may take them.
async fn park(shared: &Shared) -> Result<()> {
    let client = shared.client();
    client.pause_lane("parked", Priority::Normal).await?;
    for n in 0..PARKED {
        client
            .submit(Submit::json("parked", &(n, "x".repeat(4_000)))?)
            .await?;
    }
    Ok(())
}

/// Jobs that nobody works on: their number, and what memory the server took for them.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    jobs: u64,
    before_kib: u64,
    after_kib: u64,
}

async fn backlog(server: &Server, place: &Place, shared: &Shared, jobs: u64) -> Result<Backlog> {
    let before = sample(server, place, shared).await?;
    let client = shared.client();
    for call in 0..jobs / BACKLOG_CALL {
        let submits = (0..BACKLOG_CALL).map(|n| Submit::json("backlog", &(call * BACKLOG_CALL + n)));
        let entries = client
            .submit_many(submits.collect::<Result<Vec<_>, _>>()?)
            .await?;
        if let Some(problem) = entries.iter().find_map(|entry| entry.as_ref().err()) {
            bail!("a job of the backlog was refused: {problem}");
        }
    }
    let after = sample(server, place, shared).await?;
    say(&format!("{}, with a backlog of {jobs} jobs", after.line()));
    Ok(Backlog {
        jobs,
        before_kib: before.rss_kib,
        after_kib: after.rss_kib,
    })
}

/// Lets everything that there is be worked off.
async fn drain(shared: &Arc<Shared>) -> Result<()> {
    let client = shared.client();
    client.resume_lane("parked", Priority::Normal).await?;
    let mut crew = JoinSet::new();
    workers::start_drainers(shared, &mut crew);
    let empty = async {
        while watch::unsettled(&client).await? > 0 {
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    };
    let emptied: Result<Result<()>, _> = timeout(DRAIN_WITHIN, empty).await;
    emptied.context("not every job was worked off in time")?
}

fn parse(arguments: &[String]) -> Result<Options> {
    let (mut minutes, mut rate, mut backlog) = (10, 500, 1_000_000);
    let (mut seed, mut jitney) = (None, None);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest
            .next()
            .with_context(|| format!("`{flag}` needs a value; {USAGE}"))?;
        let wrong = || format!("`{value}` is no value for `{flag}`");
        match flag.as_str() {
            "--minutes" => minutes = value.parse().with_context(wrong)?,
            "--rate" => rate = value.parse().with_context(wrong)?,
            "--backlog" => backlog = value.parse().with_context(wrong)?,
            "--seed" => seed = Some(value.parse().with_context(wrong)?),
            "--jitney" => jitney = Some(PathBuf::from(value)),
            _ => bail!("unknown flag `{flag}`; {USAGE}"),
        }
    }
    ensure!(
        (3..=24 * 60).contains(&minutes),
        "`--minutes` is from 3, of which one is for warming up, to 1440"
    );
    ensure!((1..=10_000).contains(&rate), "`--rate` is from 1 to 10000");
    let jitney = jitney.with_context(|| format!("`--jitney` is missing; {USAGE}"))?;
    Ok(Options {
        minutes,
        rate,
        backlog,
        seed: seed.unwrap_or_else(random_u64),
        jitney: jitney.canonicalize()?,
    })
}
