//! A line a second while a run goes on.

use std::fmt::Write as _;
use std::io::Write;

use super::figures::{count, significant};
use crate::result::{Interval, Throughput};
use crate::run::Observer;

/// Writes what happens as it happens.
#[derive(Debug)]
pub struct Live<W> {
    out: W,
    label: String,
    /// When the last interval ended, in seconds.
    last_s: f64,
}

impl<W: Write> Live<W> {
    /// Lines of the run of `label` go to `out`: as a rule, standard error.
    pub fn new(out: W, label: &str) -> Self {
        Self { out, label: label.to_owned(), last_s: 0.0 }
    }

    /// Whoever reads along may be gone; the run goes on.
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{}: {text}", self.label);
    }
}

impl<W: Write> Observer for Live<W> {
    fn second(&mut self, interval: &Interval) {
        let seconds = interval.at_s - self.last_s;
        self.last_s = interval.at_s;
        if seconds > 0.0 {
            self.line(&line(interval, seconds));
        }
    }

    fn phase(&mut self, what: &str) {
        self.last_s = 0.0;
        self.line(what);
    }
}

fn line(interval: &Interval, seconds: f64) -> String {
    let mut text = format!("{:>4} s", moment(interval.at_s));
    let acknowledged = (interval.acknowledged_p50_us, interval.acknowledged_p99_us);
    let received = (interval.end_to_end_p50_us, interval.end_to_end_p99_us);
    through(&mut text, "acknowledged", &interval.produced, seconds, acknowledged);
    through(&mut text, "received", &interval.consumed, seconds, received);
    if let Some(cpu_s) = interval.broker_cpu_s {
        let _ = write!(text, " | broker {} cores", significant(cpu_s / seconds));
    }
    text
}

/// When an interval ended: as a rule, with a whole second.
fn moment(at_s: f64) -> String {
    match at_s.fract() {
        0.0 => format!("{at_s:.0}"),
        _ => format!("{at_s:.2}"),
    }
}

fn through(
    text: &mut String,
    what: &str,
    through: &Throughput,
    seconds: f64,
    percentiles: (Option<u64>, Option<u64>),
) {
    let rate = through.records as f64 / seconds;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let (rate, megabytes) = (rate.round() as u64, through.bytes as f64 / 1e6 / seconds);
    let (records, megabytes) = (count(rate), significant(megabytes));
    let _ = write!(text, " | {what} {records:>9}/s {megabytes:>5} MB/s");
    if let (Some(p50), Some(p99)) = percentiles {
        let (p50, p99) = (significant(p50 as f64 / 1e3), significant(p99 as f64 / 1e3));
        let _ = write!(text, ", p50 {p50}, p99 {p99} ms");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn each_second_is_a_line_with_rates_of_its_own_length() {
        let mut out = Vec::new();
        let mut live = Live::new(&mut out, "vltava");
        live.phase("measuring");
        let timeline = samples::run("vltava", 1.0).timeline;
        timeline.iter().step_by(2).take(2).for_each(|interval| live.second(interval));
        let text = String::from_utf8_lossy(&out);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "vltava: measuring");
        assert_eq!(
            lines[1],
            "vltava:    1 s | acknowledged    20,000/s  20.5 MB/s, p50 0.260, p99 4.50 ms | \
             received    20,000/s  20.5 MB/s, p50 0.400, p99 6.00 ms | broker 0.400 cores"
        );
        // Two seconds long, as one between was left out.
        assert!(lines[2].contains("10,000/s"), "{}", lines[2]);
        assert_eq!((moment(3.0), moment(0.094)), ("3".to_owned(), "0.09".to_owned()));
    }
}
