//! Runs seeds, and mutants over seeds, and says what came of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, bail};

use crate::checker::Violation;
use crate::mutants::{Mutant, Sabotage};
use crate::report::line;
use crate::world::{Run, World};

/// Happenings with faults in one run, unless the command line says otherwise.
const STEPS: u64 = 3_000;

/// A mutant must be caught within so many seeds.
const MUTANT_SEEDS: u64 = 200;

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    seeds: u64,
    first: Option<u64>,
    steps: u64,
    /// One seed, with its trace.
    only: Option<u64>,
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
                "--mutants" => parsed.mutants = true,
                "--mutant" => parsed.mutant = Some(value()?),
                "--help" | "-h" => parsed.help = true,
                other => bail!("unknown argument `{other}`\n{HELP}"),
            }
        }
        Ok(parsed)
    }
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
    line(&format!(
        "first seed {first}, {} seeds of {} steps",
        arguments.seeds, arguments.steps
    ));
    let (mut steps, mut jobs, mut boots, mut failed) = (0, 0, 0, 0_u64);
    for seed in first..first.saturating_add(arguments.seeds) {
        let run = run(seed, arguments.steps, mutant, false);
        (steps, jobs, boots) = (steps + run.steps, jobs + run.jobs, boots + run.boots);
        if run.violation.is_some() {
            failed += 1;
            say(&run, arguments.steps);
        }
    }
    line(&format!(
        "{} seeds, {steps} steps, {jobs} jobs, {boots} starts: {failed} failed",
        arguments.seeds
    ));
    failed == 0
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
