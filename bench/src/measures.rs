//! The figures of a run, each with its unit and which way is better: what tables, pages and
//! comparisons are made of.

use crate::result::{Footprint, Latency, ProcessUse, Restarted, RunResult, Throughput};

/// Memory is told for each of so many things, or more.
const MANY: u64 = 500;

/// One figure.
#[derive(Debug)]
pub struct Measure {
    /// What it is of.
    pub name: &'static str,
    /// Its unit, after the name.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// Whether a page shows it first.
    pub is_headline: bool,
    /// Whether it is a latency, of which a run that did not hold its rate knows a bound only.
    pub is_latency: bool,
    /// It, where it was measured.
    pub value: fn(&RunResult) -> Option<f64>,
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More of it.
    More,
    /// Less of it.
    Less,
    /// Neither: it says under which circumstances the others came about.
    Neither,
}

impl Measure {
    const fn new(
        name: &'static str,
        unit: &'static str,
        better: Better,
        value: fn(&RunResult) -> Option<f64>,
    ) -> Self {
        Self { name, unit, better, is_headline: false, is_latency: false, value }
    }

    const fn headline(mut self) -> Self {
        self.is_headline = true;
        self
    }

    const fn latency(mut self) -> Self {
        self.is_latency = true;
        self
    }

    /// Whether it is at least what this run says, not that.
    pub fn is_bound(&self, result: &RunResult) -> bool {
        self.is_latency && result.is_overloaded()
    }

    /// What it is in this run, where it was measured.
    pub fn of(&self, result: &RunResult) -> Option<f64> {
        (self.value)(result).filter(|value| value.is_finite())
    }
}

/// All of them, in the order in which they are shown.
pub const MEASURES: &[Measure] = &[
    Measure::new("acknowledged", "MB/s", Better::More, |run| megabytes(run, &run.produced))
        .headline(),
    Measure::new("acknowledged", "records/s", Better::More, |run| records(run, &run.produced)),
    Measure::new("received", "MB/s", Better::More, |run| megabytes(run, &run.consumed)).headline(),
    Measure::new("received", "records/s", Better::More, |run| records(run, &run.consumed)),
    Measure::new("acknowledgement, p50", "ms", Better::Less, |run| acknowledged(run, "50"))
        .headline()
        .latency(),
    Measure::new("acknowledgement, p99", "ms", Better::Less, |run| acknowledged(run, "99"))
        .headline()
        .latency(),
    Measure::new("acknowledgement, p99.9", "ms", Better::Less, |run| acknowledged(run, "99.9"))
        .latency(),
    Measure::new("acknowledgement, longest", "ms", Better::Less, |run| {
        timed(run, run.acknowledged_us.as_ref()).map(longest)
    })
    .latency(),
    Measure::new("acknowledgement, producers 1, p50", "ms", Better::Less, |run| {
        class(run, 0, "50")
    })
    .latency(),
    Measure::new("acknowledgement, producers 1, p99", "ms", Better::Less, |run| {
        class(run, 0, "99")
    })
    .latency(),
    Measure::new("acknowledgement, producers 2, p50", "ms", Better::Less, |run| {
        class(run, 1, "50")
    })
    .latency(),
    Measure::new("acknowledgement, producers 2, p99", "ms", Better::Less, |run| {
        class(run, 1, "99")
    })
    .latency(),
    Measure::new("acknowledgement, producers 3, p50", "ms", Better::Less, |run| {
        class(run, 2, "50")
    })
    .latency(),
    Measure::new("acknowledgement, producers 3, p99", "ms", Better::Less, |run| {
        class(run, 2, "99")
    })
    .latency(),
    Measure::new("end to end, p50", "ms", Better::Less, |run| end_to_end(run, "50"))
        .headline()
        .latency(),
    Measure::new("end to end, p99", "ms", Better::Less, |run| end_to_end(run, "99"))
        .headline()
        .latency(),
    Measure::new("end to end, p99.9", "ms", Better::Less, |run| end_to_end(run, "99.9")).latency(),
    Measure::new("end to end, longest", "ms", Better::Less, |run| {
        timed(run, run.end_to_end_us.as_ref()).map(longest)
    })
    .latency(),
    Measure::new(
        "closed loop, not a latency: acknowledgement, p50",
        "ms",
        Better::Neither,
        |run| percentile(run.acknowledged_us.as_ref().filter(|_| run.is_closed_loop()), "50"),
    ),
    Measure::new(
        "closed loop, not a latency: acknowledgement, p99",
        "ms",
        Better::Neither,
        |run| percentile(run.acknowledged_us.as_ref().filter(|_| run.is_closed_loop()), "99"),
    ),
    Measure::new("disk's own 4 KiB data-sync write, p50", "ms", Better::Neither, |run| {
        percentile(run.disk_sample_us.as_ref(), "50")
    }),
    Measure::new("disk's own 4 KiB data-sync write, p99", "ms", Better::Neither, |run| {
        percentile(run.disk_sample_us.as_ref(), "99")
    }),
    Measure::new("disk's own sequential read", "MB/s", Better::Neither, |run| {
        restart(run, |restart| restart.disk_read_mb_s)
    }),
    Measure::new("start on an empty disk: first answer", "ms", Better::Less, |run| {
        run.preparation.started_s.filter(|_| is_quiet(run)).map(|seconds| seconds * 1e3)
    })
    .headline(),
    Measure::new("start on its data: first answer", "ms", Better::Less, |run| {
        restart(run, |restart| Some(restart.answered_s * 1e3))
    }),
    Measure::new("start on its data: each partition led", "ms", Better::Less, |run| {
        restart(run, |restart| Some(restart.led_s * 1e3))
    }),
    Measure::new("start on its data: first acknowledgement", "ms", Better::Less, |run| {
        restart(run, |restart| Some(restart.acknowledged_s * 1e3))
    })
    .headline(),
    Measure::new("topics made, each partition led", "ms", Better::Less, |run| {
        let is_told = is_quiet(run) || partitions(run) >= MANY;
        run.preparation.topics_s.filter(|_| is_told).map(|seconds| seconds * 1e3)
    }),
    Measure::new("never sent, for lack of room", "records", Better::Less, |run| {
        (run.unsent > 0).then_some(run.unsent as f64)
    }),
    Measure::new("broker's CPU", "s/GB", Better::Less, RunResult::broker_cpu_s_per_gb).headline(),
    Measure::new(
        "broker's CPU",
        "s/million records",
        Better::Less,
        RunResult::broker_cpu_s_per_million,
    ),
    Measure::new("broker's CPU", "cores", Better::Less, |run| {
        broker(run, |broker| broker.cpu_s / run.measured_s)
    }),
    Measure::new("broker's peak memory", "MiB", Better::Less, |run| {
        broker(run, |broker| mebibytes(broker.memory_peak_bytes))
    })
    .headline(),
    Measure::new("broker's memory at the end", "MiB", Better::Less, |run| {
        broker(run, |broker| mebibytes(broker.memory_bytes))
    }),
    Measure::new("broker's memory for each partition", "KiB", Better::Less, |run| {
        let of = |memory: &Footprint| (memory.at_first_bytes, memory.with_topics_bytes);
        each(run, partitions(run), of)
    }),
    Measure::new("broker's memory for each idle connection", "KiB", Better::Less, |run| {
        let of =
            |memory: &Footprint| (memory.before_connections_bytes, memory.with_connections_bytes);
        each(run, run.scenario.idle_connections.into(), of)
    }),
    Measure::new("broker's context switches", "/s", Better::Less, |run| {
        let switches =
            |broker: &ProcessUse| broker.voluntary_switches + broker.involuntary_switches;
        broker(run, |broker| switches(broker) as f64 / run.measured_s)
    }),
    Measure::new("broker wrote to the disk", "MB/s", Better::Less, |run| {
        let bytes = run.broker.as_ref()?.written_bytes?;
        Some(bytes as f64 / 1e6 / run.measured_s)
    }),
    Measure::new("broker read from the disk", "MB/s", Better::Less, |run| {
        let bytes = run.broker.as_ref()?.read_bytes?;
        Some(bytes as f64 / 1e6 / run.measured_s)
    }),
    Measure::new("went to the broker", "MB/s", Better::Neither, |run| {
        network(run, run.network.sent_bytes)
    }),
    Measure::new("came from the broker", "MB/s", Better::Neither, |run| {
        network(run, run.network.received_bytes)
    }),
    Measure::new("harness: busiest thread", "% of its time", Better::Neither, |run| {
        Some(run.harness.busiest_thread * 100.0)
    }),
    Measure::new(
        "harness: the same, waiting for a core",
        "% of its time",
        Better::Neither,
        |run| Some(run.harness.busiest_thread_waited * 100.0),
    ),
    Measure::new("harness: records sent late, p99", "ms", Better::Neither, |run| {
        percentile(run.harness.late_us.as_ref(), "99")
    }),
];

fn megabytes(run: &RunResult, through: &Throughput) -> Option<f64> {
    (through.records > 0).then(|| through.bytes as f64 / 1e6 / run.measured_s)
}

fn records(run: &RunResult, through: &Throughput) -> Option<f64> {
    (through.records > 0).then(|| through.records as f64 / run.measured_s)
}

fn acknowledged(run: &RunResult, name: &str) -> Option<f64> {
    percentile(timed(run, run.acknowledged_us.as_ref()), name)
}

fn end_to_end(run: &RunResult, name: &str) -> Option<f64> {
    percentile(timed(run, run.end_to_end_us.as_ref()), name)
}

/// Of a class of producers that writes at a rate, in a run that has several.
fn class(run: &RunResult, class: usize, name: &str) -> Option<f64> {
    run.scenario.producers.get(class)?.records_per_second?;
    percentile(run.acknowledged_by_class_us.get(class)?.as_ref(), name)
}

/// A latency that is one: not that of a closed loop.
fn timed<'a>(run: &RunResult, latency: Option<&'a Latency>) -> Option<&'a Latency> {
    latency.filter(|_| !run.is_closed_loop())
}

fn percentile(latency: Option<&Latency>, name: &str) -> Option<f64> {
    let us = latency?.percentiles.get(name).copied()?;
    Some(us as f64 / 1e3)
}

fn longest(latency: &Latency) -> f64 {
    latency.max as f64 / 1e3
}

fn broker(run: &RunResult, value: impl Fn(&ProcessUse) -> f64) -> Option<f64> {
    run.broker.as_ref().map(value)
}

/// Whether nobody writes or reads in it: what comes before is what it is about.
fn is_quiet(run: &RunResult) -> bool {
    run.scenario.producers.is_empty() && run.scenario.consumers.is_empty()
}

fn partitions(run: &RunResult) -> u64 {
    let topics = &run.scenario.topics;
    u64::from(topics.count) * u64::from(topics.partitions)
}

fn restart(run: &RunResult, value: impl Fn(&Restarted) -> Option<f64>) -> Option<f64> {
    run.preparation.restart.as_ref().and_then(value)
}

/// What the broker's memory grew by for each of many things, in KiB; of few, it says nothing.
fn each(run: &RunResult, count: u64, of: impl Fn(&Footprint) -> (u64, u64)) -> Option<f64> {
    let (before, after) = run.preparation.memory.as_ref().map(of)?;
    (count >= MANY).then(|| after.saturating_sub(before) as f64 / 1024.0 / count as f64)
}

fn network(run: &RunResult, bytes: u64) -> Option<f64> {
    (bytes > 0 && run.measured_s > 0.0).then(|| bytes as f64 / 1e6 / run.measured_s)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use crate::result::Preparation;

    fn shown(run: &RunResult) -> Vec<(&'static str, f64)> {
        let values = MEASURES.iter().filter_map(|measure| Some((measure.name, measure.of(run)?)));
        values.filter(|(name, _)| name.contains("start on") || name.contains("for each")).collect()
    }

    #[test]
    fn a_closed_loop_has_no_latency_that_is_judged() {
        let mut run = samples::run("a", 1.0);
        run.acknowledged_by_class_us = vec![run.acknowledged_us.clone(), None];
        let told = |run: &RunResult, name: &str| {
            let values = MEASURES.iter().filter(|measure| measure.of(run).is_some());
            values.filter(|measure| measure.name.starts_with(name)).count()
        };
        assert_eq!((told(&run, "acknowledgement"), told(&run, "closed loop")), (6, 0));
        run.scenario.producers[0].records_per_second = None;
        assert_eq!((told(&run, "acknowledgement"), told(&run, "closed loop")), (0, 2));
        assert_eq!(told(&run, "end to end"), 0);
        let closed = MEASURES.iter().filter(|measure| measure.name.starts_with("closed loop"));
        assert!(closed.into_iter().all(|it| it.better == Better::Neither && !it.is_headline));
    }

    #[test]
    fn what_comes_before_is_told_where_it_is_what_matters() {
        let mut run = samples::run("a", 1.0);
        let memory = Footprint {
            at_first_bytes: 10 << 20,
            with_topics_bytes: 30 << 20,
            before_connections_bytes: 40 << 20,
            with_connections_bytes: 60 << 20,
        };
        let restart = Restarted { acknowledged_s: 0.5, ..Restarted::default() };
        run.preparation = Preparation {
            started_s: Some(0.02),
            topics_s: Some(3.0),
            restart: None,
            memory: Some(memory),
        };
        assert_eq!(shown(&run), [], "it has clients, and few partitions");
        (run.scenario.topics.partitions, run.scenario.idle_connections) = (1024, 2048);
        let each =
            ["broker's memory for each partition", "broker's memory for each idle connection"];
        assert_eq!(shown(&run), [(each[0], 20.0), (each[1], 10.0)]);
        run.preparation.restart = Some(restart);
        assert!(shown(&run).contains(&("start on its data: first acknowledgement", 500.0)));
        (run.scenario.producers, run.scenario.consumers) = (Vec::new(), Vec::new());
        assert!(shown(&run).contains(&("start on an empty disk: first answer", 20.0)));
    }
}
