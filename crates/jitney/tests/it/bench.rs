//! `jitney bench`: every scenario runs to its end, tells what it found, and leaves nothing behind.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::ServerProcess;

/// A scenario for so short a time that its figures mean nothing; that it has them is what is tested.
fn bench(directory: &Path, arguments: &[&str]) -> ServerProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitney"));
    command
        .arg("bench")
        .args(arguments)
        .env_clear()
        .current_dir(directory);
    ServerProcess::start(&mut command)
}

fn report(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let mut process = bench(directory.path(), &[arguments, &["--json"]].concat());
    let shown = process.rest();
    let (status, log) = process.wait();
    assert!(status.success(), "{shown}\n{log}");
    assert_eq!(log, "");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    serde_json::from_str(&shown).unwrap()
}

/// The figures of these names, none of them 0.
#[track_caller]
fn figures<const N: usize>(report: &Value, names: [&str; N]) -> [f64; N] {
    names.map(|name| {
        let value = report["figures"][name]["value"].as_f64();
        let value = value.unwrap_or_else(|| panic!("no figure `{name}` in {report:#}"));
        assert!(value > 0.0, "`{name}` in {report:#}");
        value
    })
}

#[test]
fn single_submits_are_compared_with_a_bare_server() {
    let report = report(&["async", "--duration", "200ms", "--connections", "4"]);
    let [submitted, bare, ratio] = figures(&report, ["submitted", "bare_http", "ratio"]);
    assert!((ratio - submitted / bare).abs() < 1e-9, "{report:#}");
    let [p50, max] = figures(&report, ["latency_p50", "latency_max"]);
    assert!(p50 <= max, "{report:#}");
    assert_eq!(report["figures"]["ratio"]["at_least"], 0.5);
}

#[test]
fn the_log_is_compared_with_a_bare_loop() {
    let report = report(&["log", "--duration", "100ms"]);
    let [bare, log, ratio] = figures(&report, ["bare_loop", "log", "ratio"]);
    assert!((ratio - log / bare).abs() < 1e-9, "{report:#}");
    figures(&report, ["log_on_one_thread"]);
}

#[test]
fn the_dispatcher_is_measured_with_as_many_pending_as_asked_for() {
    let report = report(&["dispatcher", "--duration", "20ms", "--pending", "1000,2000"]);
    figures(&report, ["step_at_1k", "step"]);
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_server_is_looked_at() {
    let report = report(&["idle", "--duration", "100ms"]);
    figures(&report, ["server_rss"]);
}

#[test]
fn people_get_a_page_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = bench(
        directory.path(),
        &["dispatcher", "--duration", "1ms", "--pending", "1000"],
    );
    let shown = process.rest();
    assert!(process.wait().0.success(), "{shown}");
    assert!(shown.starts_with("dispatcher on "), "{shown}");
    assert!(
        shown.contains("\n  step at 1k  ") && shown.contains(" ns/job"),
        "{shown}"
    );
}

#[test]
fn a_bench_that_is_stopped_leaves_neither_its_server_nor_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let process = bench(directory.path(), &["idle", "--duration", "5m"]);
    let made = || std::fs::read_dir(directory.path()).unwrap().next();
    // Its server is up once the log is there.
    let is_up = || made().is_some_and(|entry| entry.unwrap().path().join("data/lock").exists());
    let pause = Duration::from_millis(5);
    let up = (0..12_000).any(|_| {
        std::thread::park_timeout(pause);
        is_up()
    });
    assert!(up, "no server within a minute");
    process.signal(Signal::INT);
    let (status, text) = process.wait();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(made().is_none(), "{:?}", made());
}

#[test]
fn callers_that_wait_are_measured_in_a_closed_loop() {
    let report = report(&["sync", "--duration", "200ms", "--connections", "4"]);
    let [_, p50, p99] = figures(&report, ["done", "latency_p50", "latency_p99"]);
    assert!(p50 <= p99, "{report:#}");
    assert!(!report["histograms"]["batch_jobs"].as_object().unwrap().is_empty());
    assert!(
        !report["histograms"]["appends_per_sync_group"]
            .as_object()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn callers_that_wait_are_measured_in_an_open_loop() {
    let report = report(&[
        "sync",
        "--duration",
        "300ms",
        "--connections",
        "8",
        "--rate",
        "100",
    ]);
    let [done] = figures(&report, ["done"]);
    // 30 jobs within 0.3 s, the last of which is due at its end; a machine that is busy takes longer.
    assert!(done <= 110.0, "{report:#}");
    assert_eq!(report["figures"]["latency_p99"]["at_most"], 5.0);
}

#[test]
fn urgent_jobs_are_measured_alone_and_among_slow_ones() {
    let report = report(&["priority", "--duration", "900ms"]);
    figures(
        &report,
        ["capacity", "slow", "idle_p99", "realtime_p99", "realtime_to_idle"],
    );
}

#[test]
fn many_jobs_at_once_are_settled_as_fast_as_they_are_submitted() {
    let report = report(&["bulk", "--duration", "1s"]);
    let [submitted, settled, backlog] = figures(&report, ["submitted", "settled", "backlog_max"]);
    assert!(backlog <= 80_000.0, "{report:#}");
    // What is under way at the end is at most a bound's worth beside what is settled.
    assert!((submitted - settled).abs() <= 80_000.0, "{report:#}");
    figures(&report, ["latency_p50", "jobs_per_sync"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_backlog_is_filled_in_steps_and_turned_over() {
    let report = report(&["backlog", "--duration", "1s", "--pending", "500,1000"]);
    figures(&report, ["fill", "fill_more", "rss_peak", "settled"]);
}

#[test]
fn a_start_after_a_kill_finds_every_pending_job() {
    let report = report(&["recovery", "--pending", "1000", "--settled", "2000"]);
    assert_eq!(report["setting"]["pending"], "1000");
    let settled: f64 = report["setting"]["settled"].as_str().unwrap().parse().unwrap();
    assert!(settled >= 2000.0, "{report:#}");
    figures(&report, ["ready_after", "log"]);
}
