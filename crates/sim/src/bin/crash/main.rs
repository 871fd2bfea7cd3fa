//! The crash test: the real server and real workers as processes, killed at random moments under load, and a
//! checker over the recorded history. `cargo xtask crash --rounds N` builds and runs it; docs/durability.md.
//!
//! The plan of a run follows from its seed. The moments do not: real processes are scheduled by a real machine.

mod bulk;
mod callers;
mod checker;
mod device;
mod embedded;
mod embedding;
mod full;
mod history;
mod operator;
mod order;
mod power;
mod report;
mod rng;
mod rounds;
mod server;
mod soak;
mod unsynced;
mod worker;
mod workers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use jitney::entropy::random_u64;
use tokio::signal::unix::{SignalKind, signal};

use checker::Verdict;
use embedded::EMBEDDED;
use history::Line;
use report::Figures;
use rounds::{KILLS, Plan};
use server::{CONFIG, Place};
use soak::SOAK;
use unsynced::UNSYNCED;
use workers::WORKER;

const USAGE: &str = "crash --jitney PATH [--rounds N] [--embedded N] [--seed S] [--power on [--control N]]";

/// What a run is started with.
#[derive(Debug)]
struct Options {
    rounds: u32,
    /// Rounds of a program with jitney inside; as many as of the server where nobody says.
    embedded: Option<u32>,
    seed: u64,
    jitney: PathBuf,
    /// Whether power cuts fall, in place of kills.
    power: bool,
    /// Rounds of the control, where power cuts fall.
    control: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match arguments.split_first() {
        Some((first, rest)) if first == WORKER => work(rest).await.map(|()| true),
        Some((first, rest)) if first == SOAK => unless_told(soak::run(rest)).await,
        Some((first, rest)) if first == EMBEDDED => embed(rest).await.map(|()| true),
        Some((first, rest)) if first == UNSYNCED => unsynced::become_program(rest).map(|()| true),
        _ => crash(&arguments).await,
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("crash: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn work(arguments: &[String]) -> Result<()> {
    let [name, manners, seed] = arguments else {
        bail!("a worker is started by the crash test, not by hand");
    };
    let options = worker::Options {
        name: name.clone(),
        manners: manners.clone(),
        seed: seed.parse()?,
    };
    worker::run(options).await
}

async fn embed(arguments: &[String]) -> Result<()> {
    let [number, last, seed] = arguments else {
        bail!("a program with jitney inside is started by the crash test, not by hand");
    };
    let options = embedded::Options {
        number: number.parse()?,
        last: last == "last",
        seed: seed.parse()?,
    };
    embedded::run(options).await
}

/// Whether all checks passed: of the server, then of a program with jitney inside.
async fn crash(arguments: &[String]) -> Result<bool> {
    let options = parse(arguments)?;
    let mut passed = true;
    if options.rounds > 0 {
        let test = if options.power { "powerloss" } else { "crash" };
        let run = async |directory: &Path| {
            let (lines, figures) = run(directory, &options).await?;
            let verdict = checker::check(&lines);
            Ok((lines, figures, verdict))
        };
        passed &= judged(test, options.rounds, options.seed, run).await?;
    }
    let rounds = options.embedded.unwrap_or(options.rounds);
    if rounds > 0 && !options.power {
        let run = async |directory: &Path| {
            let (lines, figures) = embedding::run(directory, rounds, options.seed).await?;
            let verdict = checker::check_callers(&lines);
            Ok((lines, figures, verdict))
        };
        passed &= judged("embedded crash", rounds, options.seed, run).await?;
    }
    Ok(passed)
}

/// Runs a test in a directory of its own, which is kept if a check fails. Whatever happens, every process is ended
/// first: they end when they are dropped.
async fn judged(
    test: &str,
    rounds: u32,
    seed: u64,
    run: impl AsyncFn(&Path) -> Result<(Vec<Line>, Figures, Verdict)>,
) -> Result<bool> {
    say(&format!("{test}: {rounds} rounds, seed {seed}"));
    let mut directory = tempfile::Builder::new().prefix("jitney-crash-").tempdir()?;
    let run = unless_told(run(directory.path())).await;
    let passed = run.map(|(lines, figures, verdict)| {
        say(&report::table(rounds, &figures, &verdict));
        if !verdict.findings.is_empty() {
            say(&report::stories(&lines, &verdict));
        }
        say(&report::closing(test, &verdict));
        verdict.findings.is_empty()
    });
    if !matches!(passed, Ok(true)) {
        directory.disable_cleanup(true);
        kept(directory.path(), seed);
    }
    passed
}

/// Ends early if this process is told to: what is dropped then ends every other one.
async fn unless_told<T>(run: impl Future<Output = Result<T>>) -> Result<T> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        run = run => run,
        _ = terminated.recv() => bail!("terminated"),
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn run(directory: &Path, options: &Options) -> Result<(Vec<Line>, Figures)> {
    if options.power {
        return power::run(directory, options).await;
    }
    let place = Place {
        directory: directory.to_owned(),
        jitney: options.jitney.clone(),
        data: PathBuf::from("data"),
        config: CONFIG,
        syncs: true,
    };
    let plan = Plan {
        rounds: options.rounds,
        seed: options.seed,
        blows: KILLS,
    };
    rounds::run(&place, None, plan).await
}

fn kept(directory: &Path, seed: u64) {
    say(&format!(
        "seed {seed}; data, history and logs are kept in {}",
        directory.display()
    ));
}

fn parse(arguments: &[String]) -> Result<Options> {
    let (mut rounds, mut embedded, mut seed, mut jitney) = (7, None, None, None);
    let (mut power, mut control) = (false, 5);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest
            .next()
            .with_context(|| format!("`{flag}` needs a value; {USAGE}"))?;
        let wrong = || format!("`{value}` is no value for `{flag}`");
        match flag.as_str() {
            "--rounds" => rounds = value.parse().with_context(wrong)?,
            "--embedded" => embedded = Some(value.parse().with_context(wrong)?),
            "--seed" => seed = Some(value.parse().with_context(wrong)?),
            "--control" => control = value.parse().with_context(wrong)?,
            "--power" => {
                power = match value.as_str() {
                    "on" => true,
                    "off" => false,
                    _ => bail!(wrong()),
                }
            }
            "--jitney" => jitney = Some(PathBuf::from(value)),
            _ => bail!("unknown flag `{flag}`; {USAGE}"),
        }
    }
    let jitney = jitney.with_context(|| format!("`--jitney` is missing; {USAGE}"))?;
    Ok(Options {
        rounds,
        embedded,
        seed: seed.unwrap_or_else(random_u64),
        power,
        control,
        jitney: jitney
            .canonicalize()
            .with_context(|| format!("there is no `{}`", jitney.display()))?,
    })
}

#[expect(clippy::print_stdout, reason = "the report is for a person at a terminal")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&arguments)
    }

    #[test]
    fn what_is_no_flag_is_an_error_that_names_it() {
        for (line, name) in [
            ("--round 3", "--round"),
            ("--rounds", "--rounds"),
            ("--rounds x", "`x`"),
            ("--power yes", "`yes`"),
            ("--embedded some", "`some`"),
            ("", "--jitney"),
            ("--jitney nowhere", "nowhere"),
        ] {
            let error = parsed(line).unwrap_err().to_string();
            assert!(error.contains(name), "{line}: {error}");
        }
    }

    #[test]
    fn a_seed_is_taken_as_it_is() {
        let options = parsed("--seed 7 --rounds 3 --jitney .").unwrap();
        assert_eq!((options.seed, options.rounds), (7, 3));
    }
}
