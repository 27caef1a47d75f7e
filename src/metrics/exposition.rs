//! Numbers with names and labels → the text that Prometheus reads (exposition format 0.0.4). Pure.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// What a number means over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; starts at zero with the daemon.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl MetricKind {
    /// As the format and the documentation have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The name and meaning of a metric.
#[derive(Debug)]
pub struct Metric {
    /// With its unit at the end.
    pub name: &'static str,
    /// What it does over time.
    pub kind: MetricKind,
    /// Names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// For people, a sentence.
    pub help: &'static str,
}

impl Metric {
    pub(super) const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Counter, labels, help }
    }

    pub(super) const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Gauge, labels, help }
    }

    pub(super) const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Histogram, labels, help }
    }
}

/// A page under way. The format wants all samples of a metric together, callers have them by datastore: so they are gathered by name.
#[derive(Debug, Default)]
pub struct Exposition {
    metrics: BTreeMap<&'static str, (&'static Metric, String)>,
}

impl Exposition {
    /// Adds a sample of a counter or gauge; `values` are those of the metric's labels.
    pub fn sample(&mut self, metric: &'static Metric, values: &[&str], number: impl Display) {
        let labels = labels_of(metric, values);
        self.line(metric, "", &labels, None, number);
    }

    /// Adds a histogram: how many were at most how long (`None`: all), and how long all took together in seconds.
    pub(super) fn histogram(
        &mut self,
        metric: &'static Metric,
        values: &[&str],
        upto: &[(Option<f64>, u64)],
        sum_seconds: f64,
    ) {
        let labels = labels_of(metric, values);
        for (bound, count) in upto {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |seconds| seconds.to_string());
            self.line(metric, "_bucket", &labels, Some(&bound), count);
        }
        self.line(metric, "_sum", &labels, None, sum_seconds);
        self.line(metric, "_count", &labels, None, upto.last().map_or(0, |(_, count)| *count));
    }

    fn line(&mut self, metric: &'static Metric, suffix: &str, labels: &str, bound: Option<&str>, number: impl Display) {
        let (_, text) = self.metrics.entry(metric.name).or_insert_with(|| (metric, String::new()));
        let bound = bound.map(|bound| format!("le=\"{bound}\""));
        let all: Vec<&str> =
            [Some(labels).filter(|labels| !labels.is_empty()), bound.as_deref()].into_iter().flatten().collect();
        let all = if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}{suffix}{all} {number}", metric.name);
    }

    /// The page.
    pub fn into_text(self) -> String {
        let mut page = String::new();
        for (name, (metric, samples)) in self.metrics {
            let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", metric.kind.word());
            page.push_str(&samples);
        }
        page
    }
}

fn labels_of(metric: &Metric, values: &[&str]) -> String {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let labels = metric.labels.iter().zip(values).map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    labels.collect::<Vec<_>>().join(",")
}

/// A label's value as the format wants it: backslash, quote and newline escaped, everything else as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    static SIZE: Metric = Metric::gauge("size_bytes", &["store", "group"], "How large; a \\ and a\nnew line.");
    static STARTS: Metric = Metric::counter("a_starts_total", &[], "How often.");
    static TIME: Metric = Metric::histogram("time_seconds", &["place"], "How long.");

    #[test]
    fn samples_of_a_metric_stand_together_and_labels_are_escaped() {
        let mut page = Exposition::default();
        page.sample(&SIZE, &["one", "a\"b\\c\nd"], 5);
        page.sample(&STARTS, &[], 1);
        page.sample(&SIZE, &["two", "ä"], 1.5);
        page.histogram(&TIME, &["x"], &[(Some(0.001), 1), (Some(1.0), 3), (None, 4)], 7.25);
        let want = "\
# HELP a_starts_total How often.
# TYPE a_starts_total counter
a_starts_total 1
# HELP size_bytes How large; a \\\\ and a\\nnew line.
# TYPE size_bytes gauge
size_bytes{store=\"one\",group=\"a\\\"b\\\\c\\nd\"} 5
size_bytes{store=\"two\",group=\"ä\"} 1.5
# HELP time_seconds How long.
# TYPE time_seconds histogram
time_seconds_bucket{place=\"x\",le=\"0.001\"} 1
time_seconds_bucket{place=\"x\",le=\"1\"} 3
time_seconds_bucket{place=\"x\",le=\"+Inf\"} 4
time_seconds_sum{place=\"x\"} 7.25
time_seconds_count{place=\"x\"} 4
";
        assert_eq!(page.into_text(), want);
    }
}
