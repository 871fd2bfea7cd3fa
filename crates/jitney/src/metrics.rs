//! Every metric: its name, unit, labels and help. Nowhere else is a metric named.
//!
//! In: counts, bumped by the driver's thread and by the HTTP edge; figures of the moment, taken at scrape
//! time. Out: the Prometheus text. Counters are plain atomics, so counting takes no lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::bus::Usage;
use crate::dispatcher::event::{ClosedBy, Ended, LaneStats};
use crate::job::{Cause, End, Priority, Status};

/// Upper bounds of the batch size histogram, jobs.
const BATCH_BOUNDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024];

/// Upper bounds of the request latency histogram, microseconds: half a millisecond, to a minute of long polls.
pub(crate) const LATENCY_BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 60_000_000,
];

/// The reasons why a batch closes, by [`closed_by_index`].
const CLOSED_BY: [&str; 7] = ["full", "bytes", "idle", "hint", "delay", "share", "alone"];

/// What sends a job back to its lane, by [`cause_index`].
const CAUSES: [&str; 7] = [
    "released",
    "undelivered",
    "expired",
    "crashed",
    "batch_failed",
    "error",
    "missing_outcome",
];

/// Counts since the start of the process. One per server; shared by the driver and the edge.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Jobs accepted and durable, by [`Priority::index`].
    submitted: [AtomicU64; 3],
    /// Submits that met an earlier one under the same id or key.
    replayed: AtomicU64,
    /// Jobs that went back to their lane, by cause.
    returned: [AtomicU64; 7],
    /// Batches handed out, by what closed them.
    batches: [AtomicU64; 7],
    /// Batches by size, by [`BATCH_BOUNDS`]; the last is for all above.
    batch_sizes: [AtomicU64; 11],
    /// Jobs in all of these batches.
    batch_jobs: AtomicU64,
    /// Settled outcomes that came under a token that no longer holds the job.
    late: AtomicU64,
    /// Connections accepted.
    connections: AtomicU64,
    /// Connections refused because too many were open.
    connections_refused: AtomicU64,
    /// Connections open now.
    connections_open: AtomicU64,
    /// Reloads of the configuration: in force, refused.
    reloads: [AtomicU64; 2],
}

/// How often one route answered with one status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCount {
    /// The route's template, so that ids make no labels.
    pub route: String,
    /// The HTTP status.
    pub status: u16,
    /// How often.
    pub count: u64,
}

/// How long requests of one class took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// What they were for.
    pub class: &'static str,
    /// How many took up to each bound, and how many more than the last.
    pub buckets: [u64; 16],
    /// All their time together.
    pub sum: Duration,
}

/// What is counted or measured only when someone looks.
#[derive(Debug, Default)]
pub struct Moment {
    /// The lanes; empty while the driver cannot be asked.
    pub lanes: Vec<LaneStats>,
    /// The server; `None` while the driver cannot be asked.
    pub server: Option<ServerMoment>,
    /// Requests by route and status.
    pub requests: Vec<RouteCount>,
    /// How long they took, by class.
    pub latencies: Vec<Latency>,
    /// Every limit in force.
    pub limits: Vec<Limit>,
    /// The longest wait that may be asked for.
    pub wait_max: Duration,
}

/// A limit in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its key in the configuration.
    pub name: &'static str,
    /// What it is, in its own unit.
    pub limit: u64,
    /// How much of it is in use now; `None` where it bounds one thing at a time, or is not known.
    pub used: Option<u64>,
}

/// The server as a whole.
#[derive(Clone, Copy, Debug)]
pub struct ServerMoment {
    /// How full the bus is.
    pub usage: Usage,
    /// Callers that wait for an outcome.
    pub waiters: u64,
    /// Whether it can take work.
    pub ready: bool,
}

impl Metrics {
    /// A job was accepted and is durable.
    pub fn submitted(&self, priority: Priority) {
        bump(&self.submitted[priority.index()]);
    }

    /// Many jobs became durable: how many of each priority, by [`Priority::index`].
    pub fn submitted_many(&self, counts: [u64; 3]) {
        for (submitted, count) in self.submitted.iter().zip(counts) {
            submitted.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// A submit met an earlier one under the same id or key.
    pub fn replayed(&self) {
        bump(&self.replayed);
    }

    /// A job went back to its lane.
    pub fn returned(&self, cause: Cause) {
        bump(&self.returned[cause_index(cause)]);
    }

    /// An outcome came under a token that no longer holds its job.
    pub fn late(&self) {
        bump(&self.late);
    }

    /// A batch was handed out.
    pub fn batch(&self, closed_by: ClosedBy, jobs: u64) {
        bump(&self.batches[closed_by_index(closed_by)]);
        let bucket = BATCH_BOUNDS
            .iter()
            .position(|bound| jobs <= *bound)
            .unwrap_or(BATCH_BOUNDS.len());
        bump(&self.batch_sizes[bucket]);
        self.batch_jobs.fetch_add(jobs, Ordering::Relaxed);
    }

    /// The configuration was read again, and is in force or was refused.
    pub fn reloaded(&self, in_force: bool) {
        bump(&self.reloads[usize::from(!in_force)]);
    }

    /// A connection was accepted.
    pub fn connection_opened(&self) {
        bump(&self.connections);
        bump(&self.connections_open);
    }

    /// An accepted connection ended.
    pub fn connection_closed(&self) {
        self.connections_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        self.connections_open.load(Ordering::Relaxed)
    }

    /// A connection was refused because too many were open.
    pub fn connection_refused(&self) {
        bump(&self.connections_refused);
    }

    /// The Prometheus text of all counts and of this moment.
    #[must_use]
    pub fn render(&self, moment: Moment) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape {
            counts: self.snapshot(),
            moment,
        }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("writing into a string cannot fail");
        text
    }

    fn snapshot(&self) -> Counts {
        Counts {
            submitted: read(&self.submitted),
            replayed: self.replayed.load(Ordering::Relaxed),
            returned: read(&self.returned),
            batches: read(&self.batches),
            batch_sizes: read(&self.batch_sizes),
            batch_jobs: self.batch_jobs.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            connections_refused: self.connections_refused.load(Ordering::Relaxed),
            connections_open: self.connections_open.load(Ordering::Relaxed),
            reloads: read(&self.reloads),
        }
    }
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|at| counters[at].load(Ordering::Relaxed))
}

const fn cause_index(cause: Cause) -> usize {
    match cause {
        Cause::Released => 0,
        Cause::Undelivered => 1,
        Cause::Expired => 2,
        Cause::Crashed => 3,
        Cause::BatchFailed => 4,
        Cause::Error => 5,
        Cause::MissingOutcome => 6,
    }
}

const fn closed_by_index(closed_by: ClosedBy) -> usize {
    match closed_by {
        ClosedBy::Full => 0,
        ClosedBy::Bytes => 1,
        ClosedBy::Idle => 2,
        ClosedBy::Hint => 3,
        ClosedBy::Delay => 4,
        ClosedBy::Share => 5,
        ClosedBy::Alone => 6,
    }
}

/// [`Metrics`], read once.
#[derive(Debug)]
struct Counts {
    submitted: [u64; 3],
    replayed: u64,
    returned: [u64; 7],
    batches: [u64; 7],
    batch_sizes: [u64; 11],
    batch_jobs: u64,
    late: u64,
    connections: u64,
    connections_refused: u64,
    connections_open: u64,
    reloads: [u64; 2],
}

/// One scrape.
#[derive(Debug)]
struct Scrape {
    counts: Counts,
    moment: Moment,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.jobs(&mut out)?;
        self.batches(&mut out)?;
        self.lanes(&mut out)?;
        self.http(&mut out)?;
        out.counters(
            "jitney_config_reloads",
            "Reloads of the configuration, by what became of them",
            "result",
            &pairs(&["in_force", "refused"], &self.counts.reloads),
        )?;
        self.limits(&mut out)?;
        if let Some(moment) = &self.moment.server {
            server(&mut out, moment)?;
        }
        Ok(())
    }
}

impl Scrape {
    fn jobs(&self, out: &mut Out<'_>) -> fmt::Result {
        let priorities = Priority::ALL.map(Priority::name);
        out.counters(
            "jitney_jobs_submitted",
            "Jobs accepted and durable",
            "priority",
            &pairs(&priorities, &self.counts.submitted),
        )?;
        out.counter(
            "jitney_jobs_replayed",
            "Submits that met an earlier one under the same id or idempotency key",
            self.counts.replayed,
        )?;
        self.ended(out)?;
        out.counters(
            "jitney_jobs_returned",
            "Jobs that went back to their lane",
            "cause",
            &pairs(&CAUSES, &self.counts.returned),
        )?;
        out.counter(
            "jitney_outcomes_late",
            "Outcomes that came under a token that no longer held the job",
            self.counts.late,
        )
    }

    fn ended(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut metric =
            out.0
                .encode_descriptor("jitney_jobs_ended", "Jobs that ended", None, MetricType::Counter)?;
        for lane in &self.moment.lanes {
            let Ended { ok, error, failed } = lane.ended;
            for (end, ended) in [(End::Ok, ok), (End::Error, error), (End::Failed, failed)] {
                let [processor, priority] = lane_labels(lane);
                let status = ("status", Status::from(end).name().to_owned());
                count(metric.encode_family(&[processor, priority, status])?, ended)?;
            }
        }
        Ok(())
    }

    fn batches(&self, out: &mut Out<'_>) -> fmt::Result {
        out.counters(
            "jitney_batches",
            "Batches handed out, by what closed them",
            "closed_by",
            &pairs(&CLOSED_BY, &self.counts.batches),
        )?;
        let mut metric =
            out.0
                .encode_descriptor("jitney_batch_jobs", "Jobs per batch", None, MetricType::Histogram)?;
        let buckets: Vec<_> = BATCH_BOUNDS
            .iter()
            .map(|bound| float(*bound))
            .chain([f64::INFINITY])
            .zip(self.counts.batch_sizes)
            .collect();
        let count = self.counts.batch_sizes.iter().sum();
        metric.encode_histogram::<NoLabelSet>(float(self.counts.batch_jobs), count, &buckets, None)
    }

    fn lanes(&self, out: &mut Out<'_>) -> fmt::Result {
        type Column = (&'static str, &'static str, fn(&LaneStats) -> u64);
        let gauges: [Column; 6] = [
            ("jitney_lane_queued_jobs", "Jobs ready to go", |lane| lane.queued),
            ("jitney_lane_running_jobs", "Jobs leased to workers", |lane| {
                lane.running
            }),
            (
                "jitney_lane_retrying_jobs",
                "Jobs that wait for their next try",
                |lane| lane.retrying,
            ),
            (
                "jitney_lane_paused",
                "Whether the lane hands nothing out until it is resumed",
                |lane| u64::from(lane.paused),
            ),
            ("jitney_lane_workers", "Workers of the processor", |lane| {
                u64::from(lane.workers)
            }),
            (
                "jitney_lane_workers_not_ready",
                "Workers of the processor that cannot start their program",
                |lane| u64::from(lane.workers_not_ready),
            ),
        ];
        for (name, help, value) in gauges {
            let mut metric = out.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for lane in &self.moment.lanes {
                metric
                    .encode_family(&lane_labels(lane))?
                    .encode_gauge(&signed(value(lane)))?;
            }
        }
        let mut metric = out.0.encode_descriptor(
            "jitney_lane_oldest_job_age",
            "How long the oldest queued job has waited",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for lane in &self.moment.lanes {
            let age = lane.oldest_age.unwrap_or(Duration::ZERO).as_secs_f64();
            metric.encode_family(&lane_labels(lane))?.encode_gauge(&age)?;
        }
        let counters: [Column; 3] = [
            (
                "jitney_lane_jobs_arrived",
                "Jobs that arrived in the lane",
                |lane| lane.arrived,
            ),
            (
                "jitney_lane_jobs_dispatched",
                "Jobs handed out, each delivery counted",
                |lane| lane.dispatched,
            ),
            ("jitney_lane_jobs_ended", "Jobs of the lane that ended", |lane| {
                lane.ended.all()
            }),
        ];
        for (name, help, value) in counters {
            let mut metric = out.0.encode_descriptor(name, help, None, MetricType::Counter)?;
            for lane in &self.moment.lanes {
                count(metric.encode_family(&lane_labels(lane))?, value(lane))?;
            }
        }
        Ok(())
    }

    fn http(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut metric = out.0.encode_descriptor(
            "jitney_http_requests",
            "Answers by route template and status",
            None,
            MetricType::Counter,
        )?;
        for request in &self.moment.requests {
            let labels = [
                ("route", request.route.clone()),
                ("status", request.status.to_string()),
            ];
            count(metric.encode_family(&labels)?, request.count)?;
        }
        self.latencies(out)?;
        out.counter(
            "jitney_http_connections",
            "Connections accepted",
            self.counts.connections,
        )?;
        out.counter(
            "jitney_http_connections_refused",
            "Connections refused because too many were open",
            self.counts.connections_refused,
        )?;
        out.gauge(
            "jitney_http_open_connections",
            "Connections open now",
            self.counts.connections_open,
        )
    }
}

impl Scrape {
    fn latencies(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut metric = out.0.encode_descriptor(
            "jitney_http_request_duration",
            "From the end of a request's head to its answer, waits included",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for latency in &self.moment.latencies {
            let bounds = LATENCY_BOUNDS_US.iter().map(|bound| float(*bound) / 1e6);
            let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(latency.buckets).collect();
            let count = latency.buckets.iter().sum();
            metric
                .encode_family(&[("class", latency.class)])?
                .encode_histogram::<NoLabelSet>(latency.sum.as_secs_f64(), count, &buckets, None)?;
        }
        Ok(())
    }

    fn limits(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut metric = out.0.encode_descriptor(
            "jitney_limit",
            "Each limit in force, in its own unit; durations in seconds",
            None,
            MetricType::Gauge,
        )?;
        for limit in &self.moment.limits {
            metric
                .encode_family(&[("name", limit.name)])?
                .encode_gauge(&signed(limit.limit))?;
        }
        metric
            .encode_family(&[("name", "wait_max")])?
            .encode_gauge(&self.moment.wait_max.as_secs_f64())?;
        let mut metric = out.0.encode_descriptor(
            "jitney_limit_used",
            "How much of a limit is in use now",
            None,
            MetricType::Gauge,
        )?;
        for limit in &self.moment.limits {
            if let Some(used) = limit.used {
                metric
                    .encode_family(&[("name", limit.name)])?
                    .encode_gauge(&signed(used))?;
            }
        }
        Ok(())
    }
}

fn server(out: &mut Out<'_>, moment: &ServerMoment) -> fmt::Result {
    let usage = &moment.usage;
    out.gauge(
        "jitney_waiters",
        "Callers that wait for an outcome now",
        moment.waiters,
    )?;
    out.gauge(
        "jitney_ready",
        "1 if the server can take work",
        u64::from(moment.ready),
    )?;
    out.gauge("jitney_unsettled_jobs", "Jobs without outcome", usage.unsettled)?;
    out.gauge(
        "jitney_results",
        "Finished jobs that are still readable",
        usage.results,
    )?;
    out.gauge(
        "jitney_results_bytes",
        "Bytes of their results",
        usage.result_bytes,
    )?;
    out.counter(
        "jitney_results_evicted",
        "Results that gave way before their time",
        usage.results_evicted,
    )?;
    out.gauge(
        "jitney_idempotency_keys",
        "Idempotency keys remembered",
        usage.keys,
    )?;
    out.gauge(
        "jitney_log_disk_bytes",
        "Bytes on disk, spare segments included",
        usage.disk_bytes,
    )?;
    out.gauge(
        "jitney_log_spare_bytes",
        "Bytes of spare segments",
        usage.spare_bytes,
    )?;
    out.gauge(
        "jitney_log_live_bytes",
        "Bytes of the log that matter",
        usage.live_bytes,
    )?;
    out.counter("jitney_log_groups", "Commit groups written", usage.groups)?;
    group_sizes(out, usage)?;
    out.counter("jitney_log_syncs", "Syncs made", usage.syncs)
}

fn group_sizes(out: &mut Out<'_>, usage: &Usage) -> fmt::Result {
    let mut metric = out.0.encode_descriptor(
        "jitney_log_group_appends",
        "Appends that share a commit group",
        None,
        MetricType::Histogram,
    )?;
    let sizes = &usage.group_sizes;
    let (buckets, above) = sizes.buckets();
    let buckets = buckets.map(|(bound, groups)| (float(bound), groups));
    let buckets: Vec<_> = buckets.chain([(f64::INFINITY, above)]).collect();
    let groups = sizes.groups.iter().sum();
    metric.encode_histogram::<NoLabelSet>(float(sizes.appends), groups, &buckets, None)
}

/// The encoder, with the few shapes that are used here.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        count(metric, value)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, amount) in values {
            count(metric.encode_family(&[(label, *value)])?, *amount)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&signed(value))
    }
}

fn count(mut metric: MetricEncoder<'_>, value: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

fn lane_labels(lane: &LaneStats) -> [(&'static str, String); 2] {
    [
        ("processor", lane.processor.as_str().to_owned()),
        ("priority", lane.priority.name().to_owned()),
    ]
}

fn pairs<'a, const N: usize>(names: &[&'a str; N], values: &[u64; N]) -> [(&'a str, u64); N] {
    std::array::from_fn(|at| (names[at], values[at]))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Exact up to 2^32, and the few values above that are sums where the last digits do not matter.
fn float(value: u64) -> f64 {
    let high = u32::try_from(value >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::job::Processor;

    fn lane() -> LaneStats {
        LaneStats {
            paused: false,
            processor: Processor::parse("orders").unwrap(),
            priority: Priority::Normal,
            queued: 3,
            running: 2,
            retrying: 1,
            dead: 0,
            oldest_age: Some(Duration::from_millis(1500)),
            workers: 4,
            workers_not_ready: 1,
            not_ready: Some(("w-9".into(), "gone".into())),
            dispatched: 10,
            arrived: 12,
            ended: Ended {
                ok: 5,
                error: 2,
                failed: 1,
            },
            rate_in: 2.0,
            rate_out: 1.0,
            predicted_wait: None,
        }
    }

    #[test]
    fn the_text_says_what_was_counted() {
        let metrics = Metrics::default();
        metrics.submitted(Priority::Normal);
        metrics.submitted(Priority::Normal);
        metrics.returned(Cause::MissingOutcome);
        metrics.batch(ClosedBy::Idle, 3);
        metrics.batch(ClosedBy::Full, 64);
        metrics.batch(ClosedBy::Full, 5000);
        metrics.connection_opened();
        let text = metrics.render(Moment {
            lanes: vec![lane()],
            server: None,
            requests: vec![RouteCount {
                route: "/v1/jobs/{id}".to_owned(),
                status: 200,
                count: 7,
            }],
            latencies: vec![Latency {
                class: "submit",
                buckets: std::array::from_fn(|at| u64::from(at == 1)),
                sum: Duration::from_micros(750),
            }],
            limits: vec![
                Limit {
                    name: "jobs_max",
                    limit: 100,
                    used: Some(6),
                },
                Limit {
                    name: "children_max",
                    limit: 10,
                    used: None,
                },
            ],
            wait_max: Duration::from_mins(5),
        });
        for line in [
            "jitney_jobs_submitted_total{priority=\"NORMAL\"} 2",
            "jitney_jobs_ended_total{processor=\"orders\",priority=\"NORMAL\",status=\"processed_ok\"} 5",
            "jitney_jobs_ended_total{processor=\"orders\",priority=\"NORMAL\",status=\"processed_error\"} 2",
            "jitney_jobs_ended_total{processor=\"orders\",priority=\"NORMAL\",status=\"batch_failed\"} 1",
            "jitney_lane_jobs_ended_total{processor=\"orders\",priority=\"NORMAL\"} 8",
            "jitney_jobs_returned_total{cause=\"missing_outcome\"} 1",
            "jitney_batches_total{closed_by=\"full\"} 2",
            "jitney_batch_jobs_bucket{le=\"4.0\"} 1",
            "jitney_batch_jobs_bucket{le=\"64.0\"} 2",
            "jitney_batch_jobs_bucket{le=\"+Inf\"} 3",
            "jitney_batch_jobs_sum 5067.0",
            "jitney_lane_queued_jobs{processor=\"orders\",priority=\"NORMAL\"} 3",
            "jitney_lane_oldest_job_age_seconds{processor=\"orders\",priority=\"NORMAL\"} 1.5",
            "jitney_lane_workers_not_ready{processor=\"orders\",priority=\"NORMAL\"} 1",
            "jitney_lane_jobs_dispatched_total{processor=\"orders\",priority=\"NORMAL\"} 10",
            "jitney_http_requests_total{route=\"/v1/jobs/{id}\",status=\"200\"} 7",
            "jitney_http_open_connections 1",
            "jitney_http_request_duration_seconds_bucket{le=\"0.0005\",class=\"submit\"} 0",
            "jitney_http_request_duration_seconds_bucket{le=\"0.001\",class=\"submit\"} 1",
            "jitney_http_request_duration_seconds_bucket{le=\"+Inf\",class=\"submit\"} 1",
            "jitney_http_request_duration_seconds_sum{class=\"submit\"} 0.00075",
            "jitney_limit{name=\"jobs_max\"} 100",
            "jitney_limit{name=\"wait_max\"} 300.0",
            "jitney_limit_used{name=\"jobs_max\"} 6",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
        }
        assert!(
            !text.contains("jitney_limit_used{name=\"children_max\"}"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
