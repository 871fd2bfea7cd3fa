//! What every scenario needs: its options, a place, a server, and the account of what that used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Options;
use super::error::Error;
use super::figure;
use super::machine::{self, Cores};
use super::process::{Launch, Process, Sample};
use super::progress::Progress;
use super::report::{Counts, Report, Unit};
use super::scratch::Scratch;
use crate::clock::{SystemClock, between};

/// The surroundings of one run.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) options: &'a Options,
    pub(super) clock: SystemClock,
    pub(super) progress: Arc<Progress>,
    /// Shared with what runs on a thread of its own and may end after this.
    pub(super) scratch: Arc<Scratch>,
    /// Where server and load run; `None` where they run anywhere.
    pub(super) cores: Option<Cores>,
}

impl<'a> Context<'a> {
    pub(super) fn new(options: &'a Options, progress: &Arc<Progress>, pin: bool) -> Result<Self, Error> {
        let cores = if options.pin && pin {
            machine::cores()
        } else {
            None
        };
        if let Some(cores) = cores {
            machine::pin(cores.load).map_err(|source| Error::io("cannot choose a core", source))?;
        }
        Ok(Self {
            options,
            clock: SystemClock::new(),
            progress: Arc::clone(progress),
            scratch: Arc::new(Scratch::new(&options.directory)?),
            cores,
        })
    }

    /// A server with an empty log, or the one that is there already.
    pub(super) async fn server(&self, config: &str) -> Result<Process, Error> {
        match self.options.address {
            Some(address) => Ok(Process::running(address)),
            None => self.own_server(config, "data").await,
        }
    }

    /// A server with its log in a folder of that name; the bench can kill it and ask what it uses.
    pub(super) async fn own_server(&self, config: &str, data: &str) -> Result<Process, Error> {
        if self.options.address.is_some() {
            return Err(Error::Usage(
                "this needs a server of its own, without --url".to_owned(),
            ));
        }
        let config = match &self.options.config {
            Some(config) => config.clone(),
            None => self.scratch.write("bench.toml", config)?,
        };
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--data", data, "--config"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(config.display().to_string());
        self.progress.begin("starting a server");
        Process::start(&self.launch(arguments)).await
    }

    /// The bare HTTP server.
    pub(super) async fn yardstick(&self) -> Result<Process, Error> {
        Process::start(&self.launch(vec!["bench-yardstick".to_owned()])).await
    }

    fn launch(&self, arguments: Vec<String>) -> Launch<'_> {
        Launch {
            program: &self.options.program,
            arguments,
            directory: PathBuf::from(self.scratch.path()),
            cores: self.cores,
        }
    }

    /// A report with what all reports have.
    pub(super) fn report(&self, scenario: &'static str) -> Report {
        let model = machine::cpu_model().unwrap_or_else(|| "an unknown processor".to_owned());
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let machine = match self.cores {
            Some(Cores { server, load }) => format!("{model}, server on core {server}, load on core {load}"),
            None => format!("{model}, {count} cores for server and load"),
        };
        let mut report = Report::new(scenario, machine);
        report.set("seconds", self.options.duration.as_secs_f64());
        report.set("payload bytes", self.options.payload_bytes);
        if cfg!(debug_assertions) {
            report
                .notes
                .push("this is a debug build: its figures say nothing".to_owned());
        }
        report
    }

    /// What the server used between two samples, per job, and how it grouped its work.
    pub(super) fn account(&self, report: &mut Report, before: &Sample, after: &Sample, jobs: f64) {
        let time = between(before.at, after.at);
        let jobs = jobs.max(1.0);
        if let (Some(from), Some(to)) = (&before.used, &after.used) {
            let cpu = to.cpu.saturating_sub(from.cpu);
            report.add(
                "server_cpu_per_job",
                cpu.as_secs_f64() * 1e6 / jobs,
                Unit::CpuMicros,
            );
            report.add("server_cpu", share(cpu, time), Unit::Percent);
            report.add(
                "server_rss_peak",
                figure(to.rss_peak) / figure(1 << 20),
                Unit::Mebibytes,
            );
        }
        if let (Some(from), Some(to)) = (&before.load, &after.load) {
            let load = share(to.cpu.saturating_sub(from.cpu), time);
            report.add("load_cpu", load, Unit::Percent);
            if self.cores.is_some() && load > 97.0 {
                report
                    .notes
                    .push("the load used all of its core: the server may be faster than this".to_owned());
            }
        }
        let between = |name| after.counts.sum(name) - before.counts.sum(name);
        let syncs = between("jitney_log_syncs_total");
        report.add(
            "syncs",
            syncs / time.as_secs_f64().max(f64::EPSILON),
            Unit::PerSecond,
        );
        report.add("jobs_per_sync", jobs / syncs.max(1.0), Unit::Jobs);
        for (name, metric) in [
            ("batch_jobs", "jitney_batch_jobs"),
            ("appends_per_sync_group", "jitney_log_group_appends"),
        ] {
            let buckets = after.counts.histogram(metric, &before.counts);
            if !buckets.is_empty() {
                report.histograms.push(Counts { name, buckets });
            }
        }
    }
}

/// A part of the time of one core, percent.
pub(super) fn share(cpu: Duration, time: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / time.as_secs_f64().max(f64::EPSILON)
}
