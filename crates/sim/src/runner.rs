//! Runs seeds, on all cores, and mutants over seeds, and says what came of them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jitney::clock::{Clock, SystemClock, between};

use crate::checker::Violation;
use crate::mutants::{Mutant, Sabotage};
use crate::report::line;
use crate::world::{Run, World};

/// Happenings with faults in one run, unless the command line says otherwise.
const STEPS: u64 = 3_000;

/// A mutant must be caught within so many seeds.
const MUTANT_SEEDS: u64 = 200;

/// In a soak one seed in so many lives longer.
const LONG_EVERY: u64 = 8;

/// How much longer it lives.
const LONG_TIMES: u64 = 4;

/// Where a soak keeps the seeds that failed, unless the command line says otherwise.
const KEPT: &str = "target/sim-failed.txt";

/// A soak says so often how far it is.
const WORD_EVERY: Duration = Duration::from_mins(1);

/// What the command line says.
#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    seeds: u64,
    first: Option<u64>,
    steps: u64,
    /// One seed, with its trace.
    only: Option<u64>,
    /// Fresh seeds for so long, instead of a number of them.
    soak: Option<Duration>,
    /// The file to which the seeds that fail are added.
    keep: Option<String>,
    threads: usize,
    mutants: bool,
    /// Only the mutants with this in their name.
    mutant: Option<String>,
    help: bool,
}

const HELP: &str = "usage: cargo xtask sim [options]
  --seeds N      run N seeds (default 200)
  --first S      the first of them (default: a fresh one, which is printed)
  --fresh        a fresh first seed (the default, said aloud)
  --seed S       run this seed alone and print its trace
  --steps N      happenings with faults per run (default 3000)
  --threads N    run so many seeds at once (default: one per core)
  --soak HOURS   go on with fresh seeds for so long, or until it is stopped; every eighth lives four times as long,
                 and those that fail are added to target/sim-failed.txt
  --keep FILE    add the seeds that fail to this file
  --mutants      run each mutant until a seed catches it, 200 at most
  --mutant NAME  with --mutants or --seed: only this one";

impl Arguments {
    /// Reads the words of the command line.
    ///
    /// # Errors
    /// If a word is not known, or its number is missing.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut parsed = Self {
            seeds: 200,
            first: None,
            steps: STEPS,
            only: None,
            soak: None,
            keep: None,
            threads: thread::available_parallelism().map_or(1, usize::from),
            mutants: false,
            mutant: None,
            help: false,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("`{word}` wants a value"));
            match word.as_str() {
                "--seeds" => parsed.seeds = value()?.parse().context("--seeds")?,
                "--first" => parsed.first = Some(value()?.parse().context("--first")?),
                "--fresh" => parsed.first = None,
                "--seed" => parsed.only = Some(value()?.parse().context("--seed")?),
                "--steps" => parsed.steps = value()?.parse().context("--steps")?,
                "--threads" => parsed.threads = value()?.parse::<usize>().context("--threads")?.max(1),
                "--soak" => parsed.soak = Some(hours(&value()?)?),
                "--keep" => parsed.keep = Some(value()?),
                "--mutants" => parsed.mutants = true,
                "--mutant" => parsed.mutant = Some(value()?),
                "--help" | "-h" => parsed.help = true,
                other => bail!("unknown argument `{other}`\n{HELP}"),
            }
        }
        Ok(parsed)
    }
}

fn hours(text: &str) -> Result<Duration> {
    let hours: f64 = text.parse().context("--soak")?;
    Duration::try_from_secs_f64(hours * 3600.0).context("--soak")
}

/// Runs one seed. The same seed, steps and mutant give the same run, to the last bit of its trace.
#[must_use]
pub fn run_seed(seed: u64, steps: u64, mutant: Option<Mutant>) -> Run {
    run(seed, steps, mutant, false)
}

/// Does what the command line says; `true` if all is well.
#[must_use]
pub fn main_with(arguments: &Arguments) -> bool {
    if arguments.help {
        line(HELP);
        return true;
    }
    if arguments.mutants {
        return run_mutants(arguments);
    }
    let named = |name: &String| {
        Mutant::all()
            .into_iter()
            .find(|mutant| mutant.name().contains(name))
    };
    let mutant = arguments.mutant.as_ref().and_then(named);
    if let Some(seed) = arguments.only {
        let run = run(seed, arguments.steps, mutant, true);
        say(&run, arguments.steps);
        return run.violation.is_none();
    }
    // 32 bits are easy to copy by hand.
    let first = arguments
        .first
        .unwrap_or_else(|| jitney::entropy::random_u64() >> 32);
    let long = match arguments.soak {
        None => format!("{} seeds of {} steps", arguments.seeds, arguments.steps),
        Some(soak) => format!("for {} min or until it is stopped", soak.as_secs() / 60),
    };
    line(&format!("first seed {first}, {long}"));
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(first);
    let clock = SystemClock::new();
    let begun = clock.now().mono;
    let elapsed = || between(begun, clock.now().mono);
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                while let Some((seed, steps)) = draw(arguments, &next, first, elapsed()) {
                    let run = run(seed, steps, mutant, false);
                    let mut totals = totals.lock().expect("no thread panics with the totals in hand");
                    totals.count(&run, steps, arguments, elapsed());
                }
            });
        }
    });
    let totals = totals
        .into_inner()
        .expect("no thread panics with the totals in hand");
    line(&totals.text());
    totals.failed == 0
}

/// The next seed, and for how many steps it lives; `None`: that was all.
fn draw(arguments: &Arguments, next: &AtomicU64, first: u64, elapsed: Duration) -> Option<(u64, u64)> {
    let seed = next.fetch_add(1, Ordering::Relaxed);
    let at = seed - first;
    match arguments.soak {
        None => (at < arguments.seeds).then_some((seed, arguments.steps)),
        Some(soak) => {
            let times = if at.is_multiple_of(LONG_EVERY) {
                LONG_TIMES
            } else {
                1
            };
            (elapsed < soak).then_some((seed, arguments.steps * times))
        }
    }
}

/// What came of all seeds so far.
#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    steps: u64,
    jobs: u64,
    boots: u64,
    failed: u64,
    /// When the last word was said, after the beginning.
    said: Duration,
}

impl Totals {
    fn count(&mut self, run: &Run, steps: u64, arguments: &Arguments, elapsed: Duration) {
        self.seeds += 1;
        self.steps += run.steps;
        self.jobs += run.jobs;
        self.boots += run.boots;
        if run.violation.is_some() {
            self.failed += 1;
            say(run, steps);
            let kept = arguments.soak.map(|_| KEPT);
            if let Some(path) = arguments.keep.as_deref().or(kept)
                && let Err(error) = keep(path, run, steps)
            {
                line(&format!("  it is not kept: {path}: {error}"));
            }
        }
        if arguments.soak.is_some() && elapsed - self.said >= WORD_EVERY {
            self.said = elapsed;
            line(&format!("{} min: {}", elapsed.as_secs() / 60, self.text()));
        }
    }

    fn text(&self) -> String {
        let Self {
            seeds,
            steps,
            jobs,
            boots,
            failed,
            ..
        } = self;
        format!("{seeds} seeds, {steps} steps, {jobs} jobs, {boots} starts: {failed} failed")
    }
}

/// Adds a seed that failed to a file, with what replays it.
fn keep(path: &str, run: &Run, steps: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let violation = run
        .violation
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    writeln!(
        file,
        "cargo xtask sim --seed {} --steps {steps}  # {violation}",
        run.seed
    )
}

fn run(seed: u64, steps: u64, mutant: Option<Mutant>, verbose: bool) -> Run {
    // A panic inside jitney is a finding like any other.
    let lived = catch_unwind(AssertUnwindSafe(|| {
        World::new(seed, Sabotage(mutant), verbose).run(steps)
    }));
    lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Violation::new("panic", text.unwrap_or_else(|| "of an unknown kind".to_owned()));
        Run {
            seed,
            violation: Some(violation),
            hash: 0,
            steps: 0,
            jobs: 0,
            boots: 0,
        }
    })
}

fn say(run: &Run, steps: u64) {
    let Run {
        seed,
        hash,
        jobs,
        boots,
        ..
    } = run;
    match &run.violation {
        None => line(&format!(
            "seed {seed}: ok, {} steps, {jobs} jobs, {boots} starts, trace {hash:016x}",
            run.steps
        )),
        Some(violation) => {
            line(&format!("seed {seed}: VIOLATED {violation}"));
            line(&format!(
                "  replay: cargo xtask sim --seed {seed} --steps {steps}"
            ));
        }
    }
}

/// Every mutant must be caught; prints which seed and rule did.
fn run_mutants(arguments: &Arguments) -> bool {
    let first = arguments.first.unwrap_or(1);
    let wanted = |mutant: &Mutant| {
        arguments
            .mutant
            .as_ref()
            .is_none_or(|name| mutant.name().contains(name))
    };
    std::panic::set_hook(Box::new(|_| {}));
    let mut survivors = 0_u64;
    for mutant in Mutant::all().into_iter().filter(wanted) {
        let mut seeds = first..first + MUTANT_SEEDS;
        let caught =
            seeds.find_map(|seed| Some((seed, run_seed(seed, arguments.steps, Some(mutant)).violation?)));
        let name = mutant.name();
        match caught {
            Some((seed, violation)) => {
                line(&format!(
                    "{name:<32} caught by seed {seed:>4}: {}",
                    violation.rule
                ));
            }
            None => {
                survivors += 1;
                line(&format!("{name:<32} SURVIVED {MUTANT_SEEDS} seeds"));
            }
        }
    }
    drop(std::panic::take_hook());
    survivors == 0
}
