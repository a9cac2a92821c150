//! Which plots a scenario has: latencies by percentile, and what happened second by second.

use super::plot::{Axis, Line, Look, Plot};
use super::scale::Scale;
use crate::report::figures;
use crate::report::groups::Group;
use crate::result::{Interval, Latency, RunResult};

type LatencyOf = fn(&RunResult) -> Option<&Latency>;
type ValueOf = fn(&Interval) -> Option<f64>;

/// All plots of a group for which there is something to draw.
pub fn plots(group: &Group<'_>) -> String {
    // A closed loop has none.
    let acknowledged: LatencyOf =
        |run| run.acknowledged_us.as_ref().filter(|_| !run.is_closed_loop());
    let end_to_end: LatencyOf = |run| run.end_to_end_us.as_ref().filter(|_| !run.is_closed_loop());
    let by_time = [
        throughput(group, "Acknowledged, MB/s", |interval| interval.produced.bytes),
        throughput(group, "Received, MB/s", |interval| interval.consumed.bytes),
        moments(group, "Acknowledgement, half of the records (p50), ms", |interval| {
            interval.acknowledged_p50_us.map(|us| us as f64)
        }),
        moments(group, "Acknowledgement, 99 of 100 records (p99), ms", |interval| {
            interval.acknowledged_p99_us.map(|us| us as f64)
        }),
        moments(group, "End to end, half of the records (p50), ms", |interval| {
            interval.end_to_end_p50_us.map(|us| us as f64)
        }),
        moments(group, "End to end, 99 of 100 records (p99), ms", |interval| {
            interval.end_to_end_p99_us.map(|us| us as f64)
        }),
        cpu(group),
    ];
    let mut text = "<div class=\"plots\">".to_owned();
    text += &curve(group, "How long until a record is acknowledged, ms", acknowledged).figure();
    text += &curve(group, "How long until a record is received, ms", end_to_end).figure();
    by_time.iter().for_each(|plot| text += &plot.figure());
    text + "</div>\n"
}

/// Latency by percentile, and beside it that of the disk.
fn curve(group: &Group<'_>, title: &str, of: LatencyOf) -> Plot {
    let mut lines = lines(group, |run| {
        let curve = of(run).map(|latency| latency.curve.clone()).unwrap_or_default();
        curve.into_iter().map(|(percentile, us)| (percentile, us as f64)).collect()
    });
    let is_drawn = lines.iter().any(|line| !line.points.is_empty());
    let disk = group.runs().find_map(|run| run.disk_sample_us.as_ref()).filter(|_| is_drawn);
    lines.extend(disk.map(|disk| Line {
        side: "the disk's own 4 KiB data-sync write".to_owned(),
        name: "the disk's own write".to_owned(),
        look: Look::Reference,
        points: disk.curve.iter().map(|(at, us)| (*at, *us as f64)).collect(),
    }));
    let count = group.runs().filter_map(of).map(|latency| latency.count).max();
    let heights = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    Plot {
        title: title.to_owned(),
        hint: "Lower is better. At 99 %: 99 of 100 records took this long or less. Each nine \
               along, and each tenfold up, takes the same room.",
        along: "share of records that took this long or less",
        x: Axis {
            scale: Scale::percentile(count.unwrap_or_default()),
            text: |percentile| format!("{} %", figures::plain(percentile)),
        },
        y: Axis { scale: Scale::logarithmic(heights), text: figures::milliseconds },
        lines,
    }
}

fn throughput(group: &Group<'_>, title: &str, bytes: fn(&Interval) -> u64) -> Plot {
    let lines = lines(group, |run| {
        // Where nothing ever came, there is nothing to show.
        let is_any = run.timeline.iter().any(|interval| bytes(interval) > 0);
        let rate = |(seconds, interval): (f64, &Interval)| {
            (interval.at_s, bytes(interval) as f64 / 1e6 / seconds)
        };
        timed(run).filter(|_| is_any).map(rate).collect()
    });
    over_time(title, "Higher is better.", figures::plain, Scale::linear, lines)
}

fn moments(group: &Group<'_>, title: &str, of: ValueOf) -> Plot {
    let lines = lines(group, |run| {
        let seconds = run.timeline.iter().filter(|_| !run.is_closed_loop());
        let points = seconds.filter_map(|interval| Some((interval, of(interval)?)));
        points.map(|(interval, us)| (interval.at_s, us)).collect()
    });
    let hint = "Lower is better. Second by second; each tenfold up takes the same room.";
    over_time(title, hint, figures::milliseconds, Scale::logarithmic, lines)
}

fn cpu(group: &Group<'_>) -> Plot {
    let lines = lines(group, |run| {
        let cores = |(seconds, interval): (f64, &Interval)| {
            Some((interval.at_s, interval.broker_cpu_s? / seconds))
        };
        timed(run).filter_map(cores).collect()
    });
    let hint = "Lower is better. 1 is one core without a pause.";
    over_time("CPU of the broker, cores", hint, figures::plain, Scale::linear, lines)
}

fn over_time(
    title: &str,
    hint: &'static str,
    text: fn(f64) -> String,
    scale: fn(std::vec::IntoIter<f64>) -> Scale,
    mut lines: Vec<Line>,
) -> Plot {
    // One moment is no line.
    lines.retain(|line| line.points.len() > 1);
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let heights: Vec<f64> = points().map(|point| point.1).collect();
    let x = Axis {
        scale: Scale::linear(points().map(|point| point.0)),
        text: |seconds| format!("{} s", figures::plain(seconds)),
    };
    let y = Axis { scale: scale(heights.into_iter()), text };
    Plot { title: title.to_owned(), hint, along: "since measuring began", x, y, lines }
}

/// A line for each run: each side has its colour.
fn lines(group: &Group<'_>, points: impl Fn(&RunResult) -> Vec<(f64, f64)>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, side) in group.sides.iter().enumerate() {
        for (round, run) in side.runs.iter().enumerate() {
            let look = if round == 0 { Look::Side(number) } else { Look::Again(number) };
            let name = match side.runs.len() {
                1 => side.label.to_owned(),
                _ => format!("{}, round {}", side.label, round + 1),
            };
            lines.push(Line { side: side.label.to_owned(), name, look, points: points(run) });
        }
    }
    lines
}

/// Intervals and how long each was, in seconds.
fn timed(run: &RunResult) -> impl Iterator<Item = (f64, &Interval)> {
    let begins = std::iter::once(0.0).chain(run.timeline.iter().map(|interval| interval.at_s));
    let lengths =
        begins.zip(&run.timeline).map(|(begin, interval)| (interval.at_s - begin, interval));
    lengths.filter(|(seconds, _)| *seconds > 0.0)
}
