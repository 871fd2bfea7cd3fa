//! What of a configuration a running server cannot change: where it listens, where it keeps jobs, its limits.

use super::Config;
use crate::server::options::{BusOptions, Options};

macro_rules! changed {
    ($before:ident, $now:ident: $($key:literal $($field:ident).+;)*) => {
        [$(($key, $before.$($field).+ != $now.$($field).+)),*]
    };
}

impl Config {
    /// The keys of `[server]` that say something else than in `before`, and take effect only at a start.
    #[must_use]
    pub fn fixed_keys_changed(&self, before: &Self) -> Vec<&'static str> {
        let (log_before, log_now) = (&before.log, &self.log);
        let (before, now) = (&before.options, &self.options);
        let bus = bus(&before.bus, &now.bus);
        let options = changed!(before, now:
            "listen" listen;
            "allowed_hosts" allowed_hosts;
            "bodies_bytes_max" limits.bodies_bytes_max;
            "queued_bytes_max" limits.queued_bytes_max;
            "jobs_max" limits.jobs_max;
            "log_bytes_max" limits.log_bytes_max;
            "max_job_bytes" limits.job_bytes_max;
            "max_body_bytes" limits.body_bytes_max;
            "waiters_max" limits.waiters_max;
            "connections_max" limits.connections_max;
            "processors_max" limits.processors_max;
            "children_max" limits.children_max;
            "wait_max" limits.wait_max;
            "keys_max" limits.keys_max;
            "results_max" limits.results_max;
            "result_bytes_max" limits.result_bytes_max;
            "result_ttl" limits.result_ttl;
            "key_ttl" limits.key_ttl;
            "grace" grace;
            "slow_client_timeout" slow_client_timeout;
        );
        let log = changed!(log_before, log_now: "log_format" format;);
        let all = bus.into_iter().chain(options).chain(log);
        all.filter_map(|(key, changed)| changed.then_some(key)).collect()
    }

    /// This, but what a running server cannot change is as in `before`.
    #[must_use]
    pub fn with_fixed_keys_of(self, before: Self) -> Self {
        let mut log = before.log;
        log.level = self.log.level;
        Self {
            options: Options {
                policies: self.options.policies,
                routes: self.options.routes,
                ..before.options
            },
            log,
            file: self.file,
            written: self.written,
        }
    }
}

fn bus(before: &BusOptions, now: &BusOptions) -> [(&'static str, bool); 4] {
    let parts = |options: &BusOptions| match options {
        BusOptions::Log {
            data,
            segment_bytes,
            cache_bytes,
        } => Some((data.clone(), *segment_bytes, *cache_bytes)),
        BusOptions::Memory => None,
    };
    let (before, now) = (parts(before), parts(now));
    let differs = |part: fn(&(std::path::PathBuf, u64, usize)) -> String| match (&before, &now) {
        (Some(before), Some(now)) => part(before) != part(now),
        _ => false,
    };
    [
        ("bus", before.is_some() != now.is_some()),
        ("data", differs(|(data, _, _)| data.display().to_string())),
        ("segment_bytes", differs(|(_, bytes, _)| bytes.to_string())),
        ("cache_bytes", differs(|(_, _, bytes)| bytes.to_string())),
    ]
}
