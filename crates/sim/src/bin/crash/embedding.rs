//! Rounds of a program with jitney inside: each process is killed under load, or while it opens, and the next goes on
//! in the same directory; the last one ends and reads everything.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jitney::clock::{Clock, SystemClock, between};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::embedded::{EMBEDDED, OPEN};
use crate::history::{self, Line};
use crate::report::Figures;
use crate::rng::Rng;

/// A process that is not open by then hangs.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// What the last process may take.
const LAST_WITHIN: Duration = Duration::from_secs(120);

/// Kills so many processes, one after the other, and reads their history.
pub(crate) async fn run(directory: &Path, rounds: u32, seed: u64) -> Result<(Vec<Line>, Figures)> {
    let mut rng = Rng::new(seed);
    let mut figures = Figures::default();
    let clock = SystemClock::new();
    for round in 1..=rounds {
        let start = clock.now().mono;
        let mut child = spawn(directory, round, false, rng.next())?;
        if rng.percent(20) {
            let moment = rng.millis(0, 30);
            sleep(moment).await;
        } else {
            opened(&mut child)
                .await
                .with_context(|| format!("in round {round}"))?;
            figures.recovery_max = figures.recovery_max.max(between(start, clock.now().mono));
            let load = rng.millis(50, 900);
            sleep(load).await;
            if let Some(status) = child.try_wait()? {
                bail!("in round {round} the program ended by itself ({status}); it says why above");
            }
        }
        child.kill().await.context("cannot kill the program")?;
        figures.kills += 1;
    }
    let mut child = spawn(directory, rounds + 1, true, rng.next())?;
    let status = timeout(LAST_WITHIN, child.wait())
        .await
        .context("the last program does not end")??;
    ensure!(
        status.success(),
        "the last program ended with {status}; it says why above"
    );
    Ok((history::read_all(directory)?, figures))
}

fn spawn(directory: &Path, number: u32, last: bool, seed: u64) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program")?;
    Command::new(&program)
        .args([EMBEDDED, &number.to_string(), if last { "last" } else { "load" }])
        .arg(seed.to_string())
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the program with jitney inside")
}

async fn opened(child: &mut Child) -> Result<()> {
    let stdout = child.stdout.take().context("the program's output is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    match timeout(OPEN_WITHIN, lines.next_line()).await {
        Ok(Ok(Some(line))) if line == OPEN => Ok(()),
        Ok(line) => bail!("the program ended before it was open ({line:?}); it says why above"),
        Err(_) => bail!("the program is not open after {OPEN_WITHIN:?}"),
    }
}
