//! "Did you mean": which known word was probably meant by an unknown one: one that is nearly written so, or a key that
//! others call so.

/// The known word that was probably meant, if one is near enough: at most a third of the longer word's letters are
/// wrong. Of two as near the first in the alphabet.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    let letters = written.chars().count();
    known
        .into_iter()
        .filter_map(|word| {
            let known = word.chars().count();
            let wrong_max = letters.max(known) / 3;
            // Each letter too many is a wrong one: most words need no closer look.
            if letters.abs_diff(known) > wrong_max {
                return None;
            }
            let wrong = strsim::damerau_levenshtein(&written, &word.to_ascii_lowercase());
            (wrong <= wrong_max).then_some((wrong, word))
        })
        .min()
        .map(|(_, word)| word)
}

/// What other servers, queues and people call a key; of several keys the first that is known where it was written.
const CALLED: &[(&str, &[&str])] = &[
    ("addr", &["listen"]),
    ("address", &["listen"]),
    ("attempts", &["max_attempts"]),
    ("backoff_ms", &["backoff"]),
    ("batch", &["max_jobs"]),
    ("batch_bytes", &["max_bytes"]),
    ("batch_delay", &["max_delay"]),
    ("batch_size", &["max_jobs"]),
    ("batch_size_max", &["max_jobs"]),
    ("batch_wait", &["max_delay"]),
    ("bind", &["listen"]),
    ("body_limit", &["max_body_bytes"]),
    ("data_dir", &["data"]),
    ("delay", &["max_delay"]),
    ("dir", &["data"]),
    ("directory", &["data"]),
    ("drain_timeout", &["grace"]),
    ("endpoint", &["path"]),
    ("flush_interval", &["max_delay"]),
    ("format", &["log_format"]),
    ("grace_period", &["grace"]),
    ("host", &["listen"]),
    ("hostname", &["allowed_hosts"]),
    ("hosts", &["allowed_hosts"]),
    ("idempotency_ttl", &["key_ttl"]),
    ("initial_backoff", &["backoff"]),
    ("lease_timeout", &["lease"]),
    ("level", &["log_level"]),
    ("linger", &["max_delay"]),
    ("linger_ms", &["max_delay"]),
    ("max_backoff", &["backoff_max"]),
    ("max_batch", &["max_jobs"]),
    ("max_batch_size", &["max_jobs"]),
    ("max_body_size", &["max_body_bytes"]),
    ("max_connections", &["connections_max"]),
    ("max_job_size", &["max_job_bytes"]),
    ("max_keys", &["keys_max"]),
    ("max_latency", &["max_delay"]),
    ("max_queue", &["jobs_max"]),
    ("max_results", &["results_max"]),
    ("max_retries", &["max_attempts"]),
    ("max_tries", &["max_attempts"]),
    ("max_wait", &["max_delay", "wait_max", "wait"]),
    ("min_batch_size", &["min_jobs"]),
    ("port", &["listen"]),
    ("queue", &["processor"]),
    ("queue_size", &["jobs_max"]),
    ("retention", &["result_ttl"]),
    ("retries", &["max_attempts"]),
    ("retry_backoff", &["backoff"]),
    ("retry_delay", &["backoff"]),
    ("retry_delay_max", &["backoff_max"]),
    ("retry_limit", &["max_attempts"]),
    ("route", &["path"]),
    ("shutdown_timeout", &["grace"]),
    ("storage", &["data"]),
    ("timeout", &["batch_timeout", "wait", "slow_client_timeout"]),
    ("topic", &["processor"]),
    ("tries", &["max_attempts"]),
    ("ttl", &["result_ttl"]),
    ("url", &["path"]),
    ("visibility_timeout", &["lease"]),
];

/// The known key that was probably meant: one that others call so, else one that is nearly written so.
#[must_use]
pub fn meant<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let folded = written.to_ascii_lowercase().replace('-', "_");
    let called = CALLED.iter().find(|(name, _)| *name == folded);
    let called = called.and_then(|(_, keys)| {
        let mut keys = keys.iter();
        keys.find_map(|key| known.clone().into_iter().find(|known| known == key))
    });
    called.or_else(|| nearest(written, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_call_a_key_names_it_where_it_is_known() {
        let processor = ["max_jobs", "max_attempts", "batch_timeout", "backoff"];
        assert_eq!(meant("batch_size", processor), Some("max_jobs"));
        assert_eq!(meant("Max-Retries", processor), Some("max_attempts"));
        assert_eq!(meant("timeout", processor), Some("batch_timeout"));
        assert_eq!(meant("timeout", ["path", "wait"]), Some("wait"));
        assert_eq!(meant("port", processor), None);
        assert_eq!(meant("max_job", processor), Some("max_jobs"));
    }

    #[test]
    fn a_near_word_is_found_and_a_far_one_is_not() {
        let known = ["processor", "group", "priority", "key"];
        assert_eq!(nearest("procesor", known), Some("processor"));
        assert_eq!(nearest("Proirity", known), Some("priority"));
        assert_eq!(nearest("kye", known), Some("key"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn short_names_that_share_nothing_are_not_near() {
        for (written, known, near) in [
            ("kt", "nd", false),
            ("b", "a", false),
            ("B", "b", true),
            ("order", "orders", true),
            ("paymnets", "payments", true),
            ("mail", "order", false),
        ] {
            assert_eq!(nearest(written, [known]).is_some(), near, "{written} {known}");
        }
        assert_eq!(nearest("orderz", ["orders", "ordera"]), Some("ordera"));
    }
}
