//! One step of a task: a command or a check, with its name, its time and whether it passed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps of one task so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Done>,
}

#[derive(Debug)]
struct Done {
    name: &'static str,
    took: Duration,
    passed: bool,
}

impl Steps {
    /// Runs one step and notes how it went. A step that cannot run has failed, and says why.
    pub(crate) fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<bool>) -> bool {
        say(&format!("==> {name}"));
        let start = now();
        let passed = work().unwrap_or_else(|error| {
            say(&format!("{name}: {error:#}"));
            false
        });
        let took = now().duration_since(start);
        let verdict = if passed { "passed" } else { "FAILED" };
        say(&format!("<== {name}: {verdict} in {:.1} s", took.as_secs_f64()));
        self.done.push(Done { name, took, passed });
        passed
    }

    /// Prints the table of all steps. Whether all passed.
    pub(crate) fn finish(&self) -> bool {
        say(&self.table());
        self.done.iter().all(|step| step.passed)
    }

    fn table(&self) -> String {
        let mut table = String::from("\nstep          time      result\n");
        for step in &self.done {
            table.push_str(&row(
                step.name,
                step.took,
                if step.passed { "passed" } else { "FAILED" },
            ));
        }
        let total = self.done.iter().map(|step| step.took).sum();
        let failed = self.done.iter().filter(|step| !step.passed).count();
        let result = match failed {
            0 => "all passed".to_owned(),
            n => format!("{n} FAILED"),
        };
        table.push_str(&row("total", total, &result));
        table
    }
}

fn row(name: &str, took: Duration, result: &str) -> String {
    let mut row = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(row, "{name:<12}{:>7.1} s   {result}", took.as_secs_f64());
    row
}

/// `cargo` with these arguments, at the root, without standard input.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root).stdin(Stdio::null());
    command
}

/// Runs a command to its end. Whether it exited with 0.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run `{name}`: is it installed and in PATH?"))?;
    Ok(status.success())
}

/// A line for the person who runs the task.
#[expect(
    clippy::print_stdout,
    reason = "the output of a task is for a person at a terminal"
)]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "tasks time real work and have no simulated clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_task_and_is_named_in_the_table() {
        let mut steps = Steps::default();
        assert!(steps.run("first", || Ok(true)));
        assert!(steps.finish());
        assert!(!steps.run("second", || Ok(false)));
        assert!(!steps.finish());
        let table = steps.table();
        let line = |name: &str| {
            table
                .lines()
                .find(|line| line.starts_with(name))
                .map(str::to_owned)
        };
        assert!(line("first").unwrap().ends_with("passed"), "{table}");
        assert!(line("second").unwrap().ends_with("FAILED"), "{table}");
        assert!(line("total").unwrap().ends_with("1 FAILED"), "{table}");
    }

    #[test]
    fn a_step_that_cannot_run_has_failed() {
        let mut steps = Steps::default();
        assert!(!steps.run("missing", || anyhow::bail!("no such tool")));
        assert!(!steps.finish());
    }
}
