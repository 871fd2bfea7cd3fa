//! Counts answers by route and status, and how long they took by kind of request.
//!
//! The routes of one app are fixed, so that counting takes no lock; those that a reload brings count on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

use super::error::Problem;
use crate::metrics::{LATENCY_BOUNDS_US, Latency, RouteCount};

/// What requests are for, as far as it says how long they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Submits, also those that wait for the outcome.
    Submit,
    /// Routes of the configuration; most wait.
    Route,
    /// Jobs read, also waited for.
    Job,
    /// Polls; most wait for a batch.
    Lease,
    /// Settles.
    Settle,
    /// Heartbeats.
    Extend,
    /// All else.
    Other,
}

const CLASSES: [(Class, &str); 7] = [
    (Class::Submit, "submit"),
    (Class::Route, "route"),
    (Class::Job, "job"),
    (Class::Lease, "lease"),
    (Class::Settle, "settle"),
    (Class::Extend, "extend"),
    (Class::Other, "other"),
];

/// Answers and how long they took.
#[derive(Debug)]
pub(super) struct RequestCounts {
    /// By the path as the router matches it; also those of routes that are gone.
    routes: HashMap<String, Counted>,
    /// Which of them a request is for.
    paths: matchit::Router<Counted>,
    /// Requests that matched nothing.
    other: Counted,
    /// By [`CLASSES`].
    times: Arc<[Times; CLASSES.len()]>,
}

/// One route. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    /// The path as its owner wrote it.
    template: String,
    class: Class,
    /// One counter per status, from 100 on.
    statuses: Arc<[AtomicU64]>,
}

/// How long requests of a class took: one counter per bound, and one for all above.
#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Class {
    fn of_own(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("jobs") => Self::Submit,
            Some("{id}") => Self::Job,
            Some("lease") => Self::Lease,
            Some("settle") => Self::Settle,
            Some("extend") => Self::Extend,
            _ => Self::Other,
        }
    }
}

impl Counted {
    fn new(template: String, class: Class) -> Self {
        let statuses = (100..=599).map(|_| AtomicU64::new(0)).collect();
        Self {
            template,
            class,
            statuses,
        }
    }

    fn bump(&self, status: StatusCode) {
        let at = usize::from(status.as_u16().saturating_sub(100));
        if let Some(counter) = self.statuses.get(at) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self, counts: &mut Vec<RouteCount>) {
        for (status, counter) in (100..=599).zip(&*self.statuses) {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                counts.push(RouteCount {
                    route: self.template.clone(),
                    status,
                    count,
                });
            }
        }
    }
}

impl Times {
    fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl RequestCounts {
    /// Counters for jitney's own paths, and for the routes: what the router matches, and their templates.
    pub(super) fn new<'a>(
        own: impl Iterator<Item = &'a str>,
        routes: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let own = own.map(|path| {
            (
                path.to_owned(),
                Counted::new(path.to_owned(), Class::of_own(path)),
            )
        });
        let routes = routes.map(|(matched, template)| (matched, Counted::new(template, Class::Route)));
        let routes: HashMap<_, _> = own.chain(routes).collect();
        Self {
            paths: paths(&routes, routes.keys().map(String::as_str)),
            routes,
            other: Counted::new("other".to_owned(), Class::Other),
            times: Arc::default(),
        }
    }

    /// The same counters, and new ones for routes that it does not have. What was once counted stays, so that no
    /// counter goes back.
    pub(super) fn with<'a>(
        &self,
        own: impl Iterator<Item = &'a str>,
        routes: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let mut all = self.routes.clone();
        let mut served: HashSet<String> = own.map(str::to_owned).collect();
        for (matched, template) in routes {
            served.insert(matched.clone());
            all.entry(matched)
                .or_insert_with(|| Counted::new(String::new(), Class::Route))
                .template = template;
        }
        Self {
            paths: paths(&all, served.iter().map(String::as_str)),
            routes: all,
            other: self.other.clone(),
            times: Arc::clone(&self.times),
        }
    }

    /// What a request to this path counts for.
    pub(super) fn of(&self, path: &str) -> &Counted {
        self.paths.at(path).map_or(&self.other, |found| found.value)
    }

    /// Counts an answer that took so long from the end of the request's head.
    pub(super) fn count(&self, counted: &Counted, status: StatusCode, took: Duration) {
        counted.bump(status);
        for ((class, _), times) in CLASSES.iter().zip(&*self.times) {
            if *class == counted.class {
                times.add(took);
            }
        }
    }

    /// Counts a refusal that came before a request was one.
    pub(super) fn count_unmatched(&self, problem: &Problem) {
        let status = StatusCode::from_u16(problem.code.status());
        self.count(&self.other, status.unwrap_or_default(), Duration::ZERO);
    }

    /// All counts that are not zero.
    pub(super) fn read(&self) -> Vec<RouteCount> {
        let mut counts = Vec::new();
        for counted in self.routes.values() {
            counted.read(&mut counts);
        }
        self.other.read(&mut counts);
        counts.sort_by(|a, b| (&a.route, a.status).cmp(&(&b.route, b.status)));
        counts
    }

    /// How long requests took, by class.
    pub(super) fn latencies(&self) -> Vec<Latency> {
        CLASSES
            .iter()
            .zip(&*self.times)
            .map(|((_, name), times)| Latency {
                class: name,
                buckets: times
                    .buckets
                    .each_ref()
                    .map(|bucket| bucket.load(Ordering::Relaxed)),
                sum: Duration::from_micros(times.sum_us.load(Ordering::Relaxed)),
            })
            .collect()
    }
}

/// Matches paths as the router does, which is made of the same.
fn paths<'a>(
    routes: &HashMap<String, Counted>,
    served: impl Iterator<Item = &'a str>,
) -> matchit::Router<Counted> {
    let mut paths = matchit::Router::new();
    for path in served {
        if let Some(counted) = routes.get(path) {
            paths
                .insert(path, counted.clone())
                .expect("the router takes the same paths");
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_for_its_class_and_its_time() {
        let own = ["/v1/jobs", "/v1/jobs/{id}", "/metrics"];
        let counts = RequestCounts::new(
            own.into_iter(),
            [("/p0".to_owned(), "/orders".to_owned())].into_iter(),
        );
        let count = |path, took| counts.count(counts.of(path), StatusCode::OK, took);
        count("/v1/jobs", Duration::from_micros(500));
        count("/v1/jobs", Duration::from_micros(501));
        count("/p0", Duration::from_secs(3_600));
        count("/nowhere", Duration::ZERO);
        let latencies = counts.latencies();
        let of = |class: &str| latencies.iter().find(|latency| latency.class == class).unwrap();
        assert_eq!(of("submit").buckets[..3], [1, 1, 0]);
        assert_eq!(of("submit").sum, Duration::from_micros(1_001));
        assert_eq!(of("route").buckets.last(), Some(&1));
        assert_eq!(of("other").buckets[0], 1);
        assert_eq!(of("job").buckets.iter().sum::<u64>(), 0);
    }
}
