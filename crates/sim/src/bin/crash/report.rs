//! What a run prints: its figures, each check, and the whole history of what went wrong.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use crate::checker::{self, Verdict};
use crate::history::Line;

/// Findings that are named without their history.
const NAMED_MAX: usize = 20;
/// Lines of history per finding.
const LINES_MAX: usize = 200;

/// What was done to the processes.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Of the server.
    pub(crate) kills: u32,
    /// Of the server's disk.
    pub(crate) cuts: u32,
    pub(crate) worker_kills: u32,
    /// By SIGTERM.
    pub(crate) stops: u32,
    /// The longest from the start of a server until it was ready.
    pub(crate) recovery_max: Duration,
}

/// The figures of a run, then each check with the number of things it looked at.
pub(crate) fn table(rounds: u32, figures: &Figures, verdict: &Verdict) -> String {
    let rows = [
        ("rounds", u64::from(rounds).to_string()),
        ("jobs acknowledged", verdict.acknowledged.to_string()),
        ("  of them lost", verdict.lost.to_string()),
        ("results checked", verdict.results.to_string()),
        ("deliveries", verdict.deliveries.to_string()),
        ("  of them again", verdict.again.to_string()),
        ("power cuts", figures.cuts.to_string()),
        ("server kills", figures.kills.to_string()),
        ("worker kills", figures.worker_kills.to_string()),
        ("stops by SIGTERM", figures.stops.to_string()),
        (
            "recovery, longest",
            format!("{} ms", figures.recovery_max.as_millis()),
        ),
    ];
    let mut text = String::new();
    // Writing to a string cannot fail.
    // What there is none of in this test is left out.
    let said = |(name, value): &(&str, String)| value != "0" || name.contains("lost");
    for (name, value) in rows.iter().filter(|row| said(row)) {
        let _ = writeln!(text, "{name:<20}{value:>10}");
    }
    text.push('\n');
    for (check, looked_at, found) in verdict.checks() {
        let word = if found == 0 { "ok" } else { "FAILED" };
        let _ = writeln!(text, "{word:<8}{looked_at:>8}  {}", check.text());
    }
    text
}

/// The last line: how many checks passed and failed.
pub(crate) fn closing(test: &str, verdict: &Verdict) -> String {
    let failed = verdict.checks().filter(|(_, _, found)| *found > 0).count();
    let passed = verdict.checks().count() - failed;
    format!("{test}: {passed} passed, {failed} failed")
}

/// The first finding of each check with the history of what it is about; some of the rest by name.
pub(crate) fn stories(lines: &[Line], verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut told = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) = verdict
        .findings
        .iter()
        .partition(|finding| told.insert(finding.check));
    // Writing to a string cannot fail.
    for finding in first {
        let _ = writeln!(text, "\n{}: {}", finding.check.text(), finding.subject);
        let _ = writeln!(text, "  {}", finding.text);
        for line in checker::story(lines, &finding.subject)
            .into_iter()
            .take(LINES_MAX)
        {
            let event = serde_json::to_string(&line.event).unwrap_or_default();
            let _ = writeln!(text, "    {} {:<8} {event}", line.at, line.by);
        }
    }
    if !rest.is_empty() {
        let _ = writeln!(text, "\nand {} findings more:", rest.len());
    }
    for finding in rest.into_iter().take(NAMED_MAX) {
        let _ = writeln!(
            text,
            "  {:?} {}: {}",
            finding.check, finding.subject, finding.text
        );
    }
    text
}
