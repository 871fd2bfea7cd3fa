//! The simulation simulates: a seed is a whole run, sound seeds pass, and mutants do not.

use sim::{BusMutant, DiskMutant, Mutant, PortMutant, run_seed};

/// Less than on the command line: this runs unoptimised, with every test.
const STEPS: u64 = 1_200;

#[test]
fn a_seed_is_the_same_run_to_the_last_bit_of_its_trace() {
    let hashes: Vec<_> = (1..=8)
        .map(|seed| {
            let (first, again) = (run_seed(seed, STEPS, None), run_seed(seed, STEPS, None));
            assert_eq!(first.hash, again.hash, "seed {seed}");
            assert_eq!(first.steps, again.steps, "seed {seed}");
            first.hash
        })
        .collect();
    assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]), "{hashes:?}");
}

#[test]
fn twenty_seeds_break_no_promise() {
    let mut jobs = 0;
    let mut boots = 0;
    for seed in 1..=20 {
        let run = run_seed(seed, STEPS, None);
        assert_eq!(
            run.violation, None,
            "cargo xtask sim --seed {seed} --steps {STEPS}"
        );
        (jobs, boots) = (jobs + run.jobs, boots + run.boots);
    }
    assert!(
        jobs > 1_000 && boots > 40,
        "{jobs} jobs and {boots} starts prove little"
    );
}

fn catches(mutant: Mutant, rules: &[&str]) {
    let caught = (1..=60).find_map(|seed| run_seed(seed, STEPS, Some(mutant)).violation);
    let rule = caught.expect("a mutant must be caught").rule;
    assert!(rules.contains(&rule), "{} is caught by `{rule}`", mutant.name());
}

#[test]
fn a_result_that_is_told_before_it_is_durable_is_caught() {
    catches(Mutant::Bus(BusMutant::NotifyBeforeDurable), &["durable", "early"]);
}

#[test]
fn outcomes_matched_by_position_are_caught() {
    catches(
        Mutant::Port(PortMutant::ResultsByPosition),
        &["why", "misdelivered"],
    );
}

#[test]
fn a_disk_that_is_never_synced_is_caught() {
    catches(Mutant::Disk(DiskMutant::NeverSync), &["lost", "start", "token"]);
}
