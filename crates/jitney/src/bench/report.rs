//! What a bench found: figures with their units and targets, histograms, and what must be known beside them.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::figure;

/// The outcome of one bench.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// The machine, and where on it server and load ran.
    pub machine: String,
    /// How it was run: parameters that the figures depend on.
    pub setting: Vec<(&'static str, String)>,
    /// In the order in which they are shown.
    pub figures: Vec<Figure>,
    /// How many of which size.
    pub histograms: Vec<Counts>,
    /// What a reader must know to read the figures right.
    pub notes: Vec<String>,
}

/// One number.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The name for programs.
    pub name: &'static str,
    /// What it is.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
    /// What it should be.
    pub target: Option<Target>,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Jobs per second.
    JobsPerSecond,
    /// Jobs.
    Jobs,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// Microseconds of processor time per job.
    CpuMicros,
    /// Nanoseconds per job.
    NanosPerJob,
    /// Bytes per job.
    BytesPerJob,
    /// Mebibytes.
    Mebibytes,
    /// A part of something, 1 being all of it.
    Ratio,
    /// A percentage.
    Percent,
    /// How often per second.
    PerSecond,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

/// A histogram by upper bound.
#[derive(Clone, Debug)]
pub struct Counts {
    /// The name for programs.
    pub name: &'static str,
    /// Upper bound and count, from the smallest; empty buckets are left out.
    pub buckets: Vec<(String, f64)>,
}

impl Unit {
    /// As it is written behind a number.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::JobsPerSecond => "jobs/s",
            Self::Jobs => "jobs",
            Self::Millis => "ms",
            Self::Seconds => "s",
            Self::CpuMicros => "us CPU/job",
            Self::NanosPerJob => "ns/job",
            Self::BytesPerJob => "B/job",
            Self::Mebibytes => "MiB",
            Self::Ratio => "x",
            Self::Percent => "%",
            Self::PerSecond => "/s",
        }
    }
}

impl Target {
    /// Whether the value is as it should be.
    #[must_use]
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl Report {
    pub(super) fn new(scenario: &'static str, machine: String) -> Self {
        Self {
            scenario,
            machine,
            setting: Vec::new(),
            figures: Vec::new(),
            histograms: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, name: &'static str, value: impl ToString) {
        self.setting.push((name, value.to_string()));
    }

    pub(super) fn add(&mut self, name: &'static str, value: f64, unit: Unit) {
        self.figures.push(Figure {
            name,
            value,
            unit,
            target: None,
        });
    }

    pub(super) fn aim(&mut self, name: &'static str, value: f64, unit: Unit, target: Target) {
        self.add(name, value, unit);
        self.target(name, target);
    }

    /// Says what a figure that is there should be.
    pub(super) fn target(&mut self, name: &str, target: Target) {
        for figure in self.figures.iter_mut().filter(|figure| figure.name == name) {
            figure.target = Some(target);
        }
    }

    /// The percentiles of a latency, microseconds, under names for p50, p99, p99.9 and the maximum.
    pub(super) fn latency(&mut self, names: [&'static str; 4], latency: &Histogram<u64>) {
        let values = [0.5, 0.99, 0.999, 1.0].map(|quantile| latency.value_at_quantile(quantile));
        for (name, micros) in names.into_iter().zip(values) {
            self.add(name, figure(micros) / 1e3, Unit::Millis);
        }
    }

    /// One figure.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<f64> {
        let found = self.figures.iter().find(|figure| figure.name == name);
        found.map(|figure| figure.value)
    }

    /// For programs: one object.
    #[must_use]
    pub fn json(&self) -> Value {
        let texts = |pairs: &[(&'static str, String)]| -> Map<String, Value> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect()
        };
        let figures: Map<_, _> = self
            .figures
            .iter()
            .map(|figure| (figure.name.to_owned(), figure.json()))
            .collect();
        let histograms: Map<_, _> = self
            .histograms
            .iter()
            .map(|counts| (counts.name.to_owned(), counts.json()))
            .collect();
        json!({
            "scenario": self.scenario,
            "machine": self.machine,
            "setting": texts(&self.setting),
            "figures": figures,
            "histograms": histograms,
            "notes": self.notes,
        })
    }

    /// For people: one line a figure.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{} on {}\n", self.scenario, self.machine);
        let setting: Vec<_> = self
            .setting
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        text.push_str(&format!("  {}\n\n", setting.join(", ")));
        let width = self
            .figures
            .iter()
            .map(|figure| figure.name.len())
            .max()
            .unwrap_or(0);
        for figure in &self.figures {
            let name = figure.name.replace('_', " ");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<width$}  {}", figure.text());
        }
        for counts in &self.histograms {
            let _ = writeln!(text, "\n  {}, up to: how many", counts.name.replace('_', " "));
            text.push_str(&counts.text());
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n  note: {note}");
        }
        text
    }
}

impl Figure {
    fn json(&self) -> Value {
        let mut json = json!({ "value": self.value, "unit": self.unit.name() });
        match self.target {
            Some(Target::AtLeast(least)) => json["at_least"] = json!(least),
            Some(Target::AtMost(most)) => json["at_most"] = json!(most),
            None => {}
        }
        json
    }

    fn text(&self) -> String {
        let shown = format!("{:>11} {}", number(self.value), self.unit.name());
        let Some(target) = self.target else {
            return shown;
        };
        let (sign, bound) = match target {
            Target::AtLeast(least) => (">=", least),
            Target::AtMost(most) => ("<=", most),
        };
        let verdict = if target.is_met(self.value) {
            "met"
        } else {
            "missed"
        };
        format!("{shown:<24}  (target {sign} {}: {verdict})", number(bound))
    }
}

impl Counts {
    fn json(&self) -> Value {
        let buckets: Map<_, _> = self
            .buckets
            .iter()
            .map(|(bound, count)| (bound.clone(), json!(count)))
            .collect();
        Value::Object(buckets)
    }

    fn text(&self) -> String {
        const BAR: f64 = 40.0;
        let most = self.buckets.iter().map(|(_, count)| *count).fold(1.0, f64::max);
        let mut text = String::new();
        for (bound, count) in &self.buckets {
            let mut bar = String::new();
            while figure(u64::try_from(bar.len()).unwrap_or(u64::MAX)) < count / most * BAR {
                bar.push('#');
            }
            let _ = writeln!(text, "  {bound:>8}  {bar} {count}");
        }
        text
    }
}

/// Three or four digits that matter, thousands apart.
fn number(value: f64) -> String {
    let plain = match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    let (whole, part) = plain
        .split_once('.')
        .map_or((plain.as_str(), None), |(whole, part)| (whole, Some(part)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    part.map_or(grouped.clone(), |part| format!("{grouped}.{part}"))
}

/// A histogram of latencies up to ten minutes, microseconds, three digits.
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3)
        .expect("the bounds are in order, and three digits are allowed")
}

/// A latency for the histogram.
pub(super) fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_what_matters_of_them() {
        let shown = [
            0.0,
            0.0123,
            0.5,
            3.456,
            45.67,
            345.6,
            4_567.8,
            1_234_567.0,
            -1_234.0,
        ]
        .map(number);
        let expected = [
            "0.00",
            "0.012",
            "0.50",
            "3.46",
            "45.7",
            "346",
            "4,568",
            "1,234,567",
            "-1,234",
        ];
        assert_eq!(shown, expected);
    }

    /// As a bench would make it on a machine that everybody has.
    fn report() -> Report {
        let mut report = Report::new("sync", "A Processor, server on core 0, load on core 1".to_owned());
        report.set("seconds", 10);
        report.set("callers", 64);
        report.aim("done", 41_234.5, Unit::JobsPerSecond, Target::AtLeast(30_000.0));
        let mut latency = latencies();
        for millis in 1..=1_000 {
            latency.saturating_record(micros(Duration::from_micros(millis * 10)));
        }
        report.latency(
            ["latency_p50", "latency_p99", "latency_p999", "latency_max"],
            &latency,
        );
        report.target("latency_p99", Target::AtMost(5.0));
        report.add("jobs_per_sync", 12.25, Unit::Jobs);
        let buckets = vec![
            ("8".to_owned(), 10.0),
            ("16".to_owned(), 200.0),
            ("more".to_owned(), 1.0),
        ];
        report.histograms.push(Counts {
            name: "batch_jobs",
            buckets,
        });
        report.notes.push("the load used all of its core".to_owned());
        report
    }

    #[test]
    fn people_read_a_figure_a_line_with_its_target() {
        insta::assert_snapshot!(report().text());
    }

    #[test]
    fn programs_get_every_figure_by_its_name() {
        let json = serde_json::to_string_pretty(&report().json()).unwrap();
        insta::assert_snapshot!(json);
    }
}
