//! The table of docs/performance.md: runs every bench that has a target, and prints its rows.
//!
//! Each figure is the median of its runs. Nothing else should run on the machine meanwhile.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::crash::target;
use crate::step::{cargo, say, succeeds};

/// A bench, and the figures of it that stand in the table.
struct Row {
    /// After `jitney bench`.
    arguments: &'static [&'static str],
    /// Name in the report, and what it is called in the table.
    figures: &'static [(&'static str, &'static str)],
    /// Most runs: some take long.
    runs_max: usize,
}

const ROWS: &[Row] = &[
    Row {
        arguments: &["log", "--duration", "20s"],
        figures: &[
            (
                "log",
                "log: 256-byte jobs, append + settle, 128 per commit, both durable",
            ),
            ("ratio", "log: of a bare loop that writes and syncs as many bytes"),
            (
                "ratio_on_one_thread",
                "log: the same, without a thread for the disk",
            ),
        ],
        runs_max: 5,
    },
    Row {
        arguments: &["dispatcher", "--duration", "5s"],
        figures: &[
            ("step_at_1k", "dispatcher: enqueue, lease and settle, 1k pending"),
            ("step_at_1m", "dispatcher: the same, 1M pending"),
            ("step_at_10m", "dispatcher: the same, 10M pending"),
            (
                "throughput_at_1m",
                "dispatcher: throughput at 1M pending, of that at 1k",
            ),
        ],
        runs_max: 5,
    },
    Row {
        arguments: &["async", "--duration", "30s"],
        figures: &[
            ("submitted", "`async`: single submits, 256 connections, no worker"),
            ("ratio", "`async`: of a bare axum handler"),
            (
                "cpu_ratio",
                "`async`: processor time per job, the bare handler's of ours",
            ),
        ],
        runs_max: 3,
    },
    Row {
        arguments: &["bulk", "--duration", "30s"],
        figures: &[
            (
                "settled",
                "`bulk`: NDJSON of 100 in, leases of 1,000 out, settled",
            ),
            ("backlog_max", "`bulk`: backlog"),
            ("server_cpu_per_job", "`bulk`: processor time of the server"),
        ],
        runs_max: 3,
    },
    Row {
        arguments: &["bulk", "--duration", "30s", "--no-pin"],
        figures: &[("settled", "`bulk`: the same, server and load on both cores")],
        runs_max: 3,
    },
    Row {
        arguments: &["sync", "--duration", "15s"],
        figures: &[
            ("done", "`sync`: closed loop, 64 callers, one worker"),
            ("latency_p99", "`sync`: closed loop, p99"),
        ],
        runs_max: 5,
    },
    Row {
        arguments: &["sync", "--duration", "15s", "--rate", "5000"],
        figures: &[
            ("latency_p50", "`sync`: open loop at 5,000/s, p50"),
            ("latency_p99", "`sync`: open loop at 5,000/s, p99"),
        ],
        runs_max: 5,
    },
    Row {
        arguments: &["priority", "--duration", "30s"],
        figures: &[
            (
                "realtime_p99",
                "`priority`: REALTIME p99, SLOW at 80 % of 4 slots, handler 1 ms",
            ),
            ("realtime_to_idle", "`priority`: of the same without SLOW"),
        ],
        runs_max: 3,
    },
    Row {
        arguments: &["backlog", "--duration", "10s"],
        figures: &[
            (
                "memory_per_job",
                "memory per pending job, (peak at 3M - at 1M) / 2M",
            ),
            ("settled", "`backlog`: turned over, 3M pending"),
        ],
        runs_max: 3,
    },
    Row {
        arguments: &["recovery"],
        figures: &[("ready_after", "recovery: 1M pending and 4M settled")],
        runs_max: 3,
    },
    Row {
        arguments: &["recovery", "--pending", "10000000"],
        figures: &[("ready_after", "recovery: 10M pending")],
        runs_max: 1,
    },
    Row {
        arguments: &["idle", "--duration", "30s"],
        figures: &[
            ("server_cpu", "idle server: processor time"),
            ("server_rss", "idle server: memory"),
            ("wake_ups", "idle server: threads woken"),
        ],
        runs_max: 3,
    },
];

/// `[--runs N] [SCENARIO ...]`: all of them, or those that are named.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<bool> {
    let (runs, only) = read(arguments)?;
    let mut build = cargo(
        root,
        &[
            "build",
            "--release",
            "--locked",
            "--package",
            "jitney",
            "--bin",
            "jitney",
        ],
    );
    if !succeeds(&mut build)? {
        return Ok(false);
    }
    let program = target()?.join("release/jitney");
    let mut table =
        String::from("| figure | target | measured | runs | command |\n| --- | --- | --- | --- | --- |\n");
    let mut machine = String::new();
    let mut failed = 0;
    for row in ROWS
        .iter()
        .filter(|row| only.is_empty() || only.iter().any(|name| name == row.arguments[0]))
    {
        // One that fails does not take hours of others with it.
        match measure(&program, row, runs) {
            Ok((lines, on)) => {
                say(&lines);
                table.push_str(&lines);
                machine = on;
            }
            Err(error) => {
                say(&format!("failed: {error:#}"));
                failed += 1;
            }
        }
    }
    say(&format!("\nOn {machine}:\n\n{table}"));
    Ok(failed == 0)
}

/// The rows of one bench, and the machine as it describes it.
fn measure(program: &Path, row: &Row, runs: usize) -> Result<(String, String)> {
    let mut reports = Vec::new();
    for number in 1..=runs.min(row.runs_max) {
        say(&format!(
            "==> jitney bench {} (run {number})",
            row.arguments.join(" ")
        ));
        reports.push(report(program, row.arguments)?);
    }
    let mut lines = String::new();
    for (name, title) in row.figures {
        lines.push_str(&line(row, name, title, &reports)?);
    }
    let machine = reports.iter().find_map(|report| report["machine"].as_str());
    Ok((lines, machine.unwrap_or_default().to_owned()))
}

fn read(arguments: &[String]) -> Result<(usize, Vec<String>)> {
    let mut runs = 3;
    let mut only = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--runs" {
            let text = rest.next().context("--runs needs a number")?;
            runs = text
                .parse()
                .with_context(|| format!("--runs is `{text}`, which is no number"))?;
            if runs == 0 {
                bail!("--runs 0 measures nothing");
            }
        } else if ROWS.iter().any(|row| row.arguments[0] == argument) {
            only.push(argument.clone());
        } else {
            bail!("`{argument}` is no scenario with a target");
        }
    }
    Ok((runs, only))
}

fn report(program: &Path, arguments: &[&str]) -> Result<Value> {
    let output = Command::new(program)
        .arg("bench")
        .args(arguments)
        .arg("--json")
        // Its logs go on the disk of the target directory.
        .arg("--data")
        .arg(program.parent().context("a program lies in a directory")?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", program.display()))?;
    if !output.status.success() {
        bail!("jitney bench {} failed: {}", arguments.join(" "), output.status);
    }
    serde_json::from_slice(&output.stdout).context("the bench printed what is no JSON")
}

/// A row of the table: the median of the runs, with the target that the bench knows.
fn line(row: &Row, name: &str, title: &str, reports: &[Value]) -> Result<String> {
    let figure = |report: &Value| report["figures"][name].clone();
    let mut values = Vec::new();
    for report in reports {
        let value = figure(report)["value"].as_f64();
        values.push(value.with_context(|| format!("`{}` has no figure `{name}`", row.arguments.join(" ")))?);
    }
    let first = reports.first().map(figure).unwrap_or_default();
    let target = match (first["at_least"].as_f64(), first["at_most"].as_f64()) {
        (Some(least), _) => format!(">= {}", number(least)),
        (None, Some(most)) => format!("<= {}", number(most)),
        (None, None) => String::new(),
    };
    let unit = first["unit"].as_str().unwrap_or_default();
    let command = row.arguments.join(" ");
    let (measured, runs) = (number(median(&mut values)), values.len());
    Ok(format!(
        "| {title} | {target} | {measured} {unit} | {runs} | `jitney bench {command}` |\n"
    ))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 if middle > 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Three digits that matter, thousands apart.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 || size == 0.0 => 2,
        _ => 3,
    };
    let plain = format!("{value:.digits$}");
    let whole = plain.find('.').unwrap_or(plain.len());
    let mut text = String::new();
    for (at, character) in plain.char_indices() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) && plain.as_bytes()[at - 1].is_ascii_digit()
        {
            text.push(',');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_has_the_median_of_its_runs_and_its_target() {
        let of = |value: f64| json!({"figures": {"done": {"value": value, "unit": "jobs/s", "at_least": 30000.0}}});
        let reports = [of(41_234.5), of(29_000.0), of(31_000.0)];
        let row = Row {
            arguments: &["sync", "--duration", "15s"],
            figures: &[],
            runs_max: 3,
        };
        let line = line(&row, "done", "closed loop", &reports).unwrap();
        let expected =
            "| closed loop | >= 30,000 | 31,000 jobs/s | 3 | `jitney bench sync --duration 15s` |\n";
        assert_eq!(line, expected);
        assert!(super::line(&row, "other", "x", &reports).is_err());
    }

    #[test]
    fn numbers_and_medians() {
        assert_eq!(
            [0.0, 0.0512, 0.5, 12.34, 999.6, 1_234_567.8].map(number),
            ["0.00", "0.051", "0.50", "12.3", "1,000", "1,234,568"]
        );
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        let read = |text: &str| read(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            read("--runs 5 sync log").unwrap(),
            (5, vec!["sync".to_owned(), "log".to_owned()])
        );
        assert_eq!(read("").unwrap(), (3, Vec::new()));
        for wrong in ["--runs", "--runs x", "--runs 0", "speed"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
