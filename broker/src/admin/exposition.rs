//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use super::catalogue::{Kind, Metric};

/// The media type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that grows metric by metric.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a metric: its HELP and TYPE lines. Its samples follow.
    pub fn metric(&mut self, metric: &'static Metric) -> Samples<'_> {
        let Metric { name, help, .. } = metric;
        let kind = metric.kind.name();
        self.line(format_args!("# HELP {name} {}", EscapedHelp(help)));
        self.line(format_args!("# TYPE {name} {kind}"));
        Samples { page: self, metric }
    }

    /// A metric with one sample.
    pub fn single(&mut self, metric: &'static Metric, value: impl Display) {
        self.metric(metric).add(&[], value);
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Samples<'a> {
    page: &'a mut Page,
    metric: &'static Metric,
}

impl Samples<'_> {
    /// A counter or gauge with these values of its labels.
    pub fn add(&mut self, labels: &[&dyn Display], value: impl Display) {
        assert!(self.metric.kind != Kind::Histogram, "a histogram has buckets");
        self.sample("", labels, None, value);
    }

    /// A histogram: cumulative counts by upper bound (in ascending order, without infinity), and
    /// all of them.
    pub fn add_histogram(
        &mut self,
        labels: &[&dyn Display],
        buckets: &[(Seconds, u64)],
        sum: Seconds,
        count: u64,
    ) {
        assert!(self.metric.kind == Kind::Histogram, "no histogram");
        for (bound, below) in buckets {
            self.sample("_bucket", labels, Some(bound), below);
        }
        self.sample("_bucket", labels, Some(&"+Inf"), count);
        self.sample("_sum", labels, None, sum);
        self.sample("_count", labels, None, count);
    }

    fn sample(
        &mut self,
        suffix: &str,
        labels: &[&dyn Display],
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        let Metric { name, labels: names, .. } = self.metric;
        assert!(labels.len() == names.len(), "{name} has other labels");
        let own = names.iter().copied().zip(labels.iter().copied());
        let all = own.chain(bound.map(|bound| ("le", bound)));
        let text = &mut self.page.text;
        // Writing into a string does not fail.
        let _ = write!(text, "{name}{suffix}");
        let mut before = '{';
        for (label, value) in all {
            let _ = write!(text, "{before}{label}=\"");
            let _ = write!(Escaped(text), "{value}");
            text.push('"');
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        self.page.line(format_args!(" {value}"));
    }
}

/// A duration in microseconds, shown in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if micros == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{micros:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// Escapes what a label's value may not hold as it is.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// The text of HELP: quotes stand as they are there.
struct EscapedHelp(&'static str);

impl Display for EscapedHelp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Metric = Metric {
        name: "plain_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Plain \\ \"words\"\nin two lines.",
    };
    const LABELLED: Metric = Metric {
        name: "labelled",
        kind: Kind::Gauge,
        labels: &["group", "partition"],
        help: "Labelled.",
    };
    const TIMES: Metric =
        Metric { name: "times_seconds", kind: Kind::Histogram, labels: &["api"], help: "Times." };

    #[test]
    fn the_format_is_that_of_prometheus() {
        let mut page = Page::default();
        page.single(&PLAIN, 7);
        let mut samples = page.metric(&LABELLED);
        samples.add(&[&"a\\b\"c\nd{}", &0], -1);
        samples.add(&[&"ž", &1], Seconds(1_500_000));
        let buckets = [(Seconds(100), 1), (Seconds(1_000_000), 3)];
        page.metric(&TIMES).add_histogram(&[&"Fetch"], &buckets, Seconds(2_000_001), 4);
        let expected = r#"# HELP plain_total Plain \\ "words"\nin two lines.
# TYPE plain_total counter
plain_total 7
# HELP labelled Labelled.
# TYPE labelled gauge
labelled{group="a\\b\"c\nd{}",partition="0"} -1
labelled{group="ž",partition="1"} 1.5
# HELP times_seconds Times.
# TYPE times_seconds histogram
times_seconds_bucket{api="Fetch",le="0.0001"} 1
times_seconds_bucket{api="Fetch",le="1"} 3
times_seconds_bucket{api="Fetch",le="+Inf"} 4
times_seconds_sum{api="Fetch"} 2.000001
times_seconds_count{api="Fetch"} 4
"#;
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    #[should_panic(expected = "has other labels")]
    fn a_forgotten_label_is_our_mistake() {
        Page::default().single(&LABELLED, 1);
    }
}
