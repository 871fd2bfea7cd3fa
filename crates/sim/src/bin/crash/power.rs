//! The power-loss test: rounds of the crash test whose data lies on a disk that loses its power, and before them
//! the control, the same without syncs, which must lose acknowledged jobs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jitney::clock::{Clock, SystemClock, between};

use crate::checker;
use crate::device::Device;
use crate::full;
use crate::history::{self, Line};
use crate::report::Figures;
use crate::rng::Rng;
use crate::rounds::{self, Blow, CUTS, Plan};
use crate::server::{CONFIG, Place};
use crate::{Options, say};

/// Room on the device for the segments that there always are, and for the filesystem's own.
const BYTES: u64 = 256 << 20;
/// Room for the jobs of a round, which are all kept, three times: what copying forward may leave.
const ROUND_BYTES: u64 = 12 << 20;

/// Runs the control, then the rounds.
pub(crate) async fn run(directory: &Path, options: &Options) -> Result<(Vec<Line>, Figures)> {
    let mut rng = Rng::new(options.seed);
    control(directory, options, &mut rng).await?;
    let full = directory.join("full");
    std::fs::create_dir(&full)?;
    full::run(&place(&full, options))
        .await
        .context("on a full disk")?;
    let plan = Plan {
        rounds: options.rounds,
        seed: options.seed,
        blows: CUTS,
    };
    let place = place(directory, options);
    let mut device = Device::create(directory, BYTES + u64::from(options.rounds) * ROUND_BYTES).await?;
    let clock = SystemClock::new();
    let start = clock.now().mono;
    let run = rounds::run(&place, Some(&mut device), plan).await?;
    let took = between(start, clock.now().mono);
    say(&format!(
        "{} rounds took {:.1} s\n",
        options.rounds,
        took.as_secs_f64()
    ));
    Ok(run)
}

/// Each round in a directory of its own: after a loss there is nothing to go on with.
async fn control(directory: &Path, options: &Options, rng: &mut Rng) -> Result<()> {
    let mut lossy = 0;
    for round in 1..=options.control {
        let directory = directory.join(format!("control-{round}"));
        std::fs::create_dir(&directory)?;
        let lost = control_round(&directory, options, rng.next()).await?;
        say(&format!("control without syncs, round {round}: {lost}"));
        lossy += u32::from(lost.is_loss());
        std::fs::remove_dir_all(&directory)?;
    }
    say(&format!(
        "control without syncs: acknowledged jobs were lost in {lossy} of {} rounds\n",
        options.control
    ));
    anyhow::ensure!(
        options.control == 0 || lossy > 0,
        "the control lost nothing: a missing sync would not be noticed here"
    );
    Ok(())
}

/// What a cut took that was acknowledged.
enum Lost {
    Jobs {
        lost: u64,
        of: u64,
    },
    /// The server did not even start again.
    All(String),
}

impl Lost {
    const fn is_loss(&self) -> bool {
        match self {
            Self::Jobs { lost, .. } => *lost > 0,
            Self::All(_) => true,
        }
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Jobs { lost, of } => write!(f, "{lost} of {of} acknowledged jobs were lost"),
            Self::All(why) => write!(f, "the data cannot be read any more: {why}"),
        }
    }
}

async fn control_round(directory: &Path, options: &Options, seed: u64) -> Result<Lost> {
    let place = Place {
        syncs: false,
        ..place(directory, options)
    };
    let mut device = Device::create(directory, BYTES).await?;
    let plan = Plan {
        rounds: 1,
        seed,
        blows: &[Blow::Power],
    };
    let run = rounds::run(&place, Some(&mut device), plan).await;
    match run {
        Ok((lines, _)) => {
            let verdict = checker::check(&lines);
            Ok(Lost::Jobs {
                lost: verdict.lost,
                of: verdict.acknowledged,
            })
        }
        // Only after the cut: before it, nothing excuses a server that does not start.
        Err(error) if was_cut(directory)? => Ok(Lost::All(format!("{error:#}"))),
        Err(error) => Err(error),
    }
}

fn was_cut(directory: &Path) -> Result<bool> {
    let lines = history::read_all(directory)?;
    Ok(lines.iter().any(|line| line.event == history::Event::Cut))
}

fn place(directory: &Path, options: &Options) -> Place {
    Place {
        directory: directory.to_owned(),
        jitney: options.jitney.clone(),
        // Not the root of the filesystem: that the folder is there must be durable too.
        data: PathBuf::from(Device::MOUNT).join("data"),
        config: CONFIG,
        syncs: true,
    }
}
