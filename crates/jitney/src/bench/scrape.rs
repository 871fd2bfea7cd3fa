//! What the server counted, from its /metrics.

use std::collections::BTreeMap;

/// The samples of one scrape, by name and labels as they stand in the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    pub(super) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(samples.filter_map(sample).collect())
    }

    /// The sum of a metric over all of its labels.
    pub(super) fn sum(&self, name: &str) -> f64 {
        let of = self.0.iter().filter(|(sample, _)| {
            let rest = sample.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        });
        of.map(|(_, value)| value).sum()
    }

    /// How many samples of a histogram lie in each bucket, by upper bound, less those of an earlier scrape.
    /// Empty buckets are left out.
    pub(super) fn histogram(&self, name: &str, before: &Self) -> Vec<(String, f64)> {
        let prefix = format!("{name}_bucket{{le=\"");
        let mut buckets: Vec<(f64, String, f64)> = Vec::new();
        for (sample, value) in &self.0 {
            let Some(bound) = sample
                .strip_prefix(&prefix)
                .and_then(|rest| rest.strip_suffix("\"}"))
            else {
                continue;
            };
            let earlier = before.0.get(sample).copied().unwrap_or_default();
            let order = bound.parse().unwrap_or(f64::INFINITY);
            buckets.push((order, bound.to_owned(), value - earlier));
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut below = 0.0;
        let mut counts = Vec::new();
        for (order, bound, total) in buckets {
            let bound = match order.is_finite() {
                true => bound.trim_end_matches(".0").to_owned(),
                false => "more".to_owned(),
            };
            let count = total - std::mem::replace(&mut below, total);
            if count > 0.0 {
                counts.push((bound, count));
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_buckets_are_those_of_the_time_between() {
        let text = |low: u32, all: u32| {
            format!(
                "# TYPE x counter\nx_total{{a=\"1\"}} 3\nx_total{{a=\"2\"}} 4\nx_total_more 9\n\
                 b_bucket{{le=\"1.0\"}} {low}\nb_bucket{{le=\"16.0\"}} {low}\nb_bucket{{le=\"+Inf\"}} {all}\n"
            )
        };
        let (before, after) = (Scrape::parse(&text(1, 2)), Scrape::parse(&text(5, 9)));
        assert!((after.sum("x_total") - 7.0).abs() < 1e-9);
        let expected = [("1".to_owned(), 4.0), ("more".to_owned(), 3.0)];
        assert_eq!(after.histogram("b", &before), expected);
    }
}
