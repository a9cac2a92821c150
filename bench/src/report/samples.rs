//! Runs that never took place, for tests.
#![allow(clippy::unwrap_used, reason = "only tests use this")]

use hdrhistogram::Histogram;

use crate::result::{
    FORMAT, HarnessUse, Interval, Latency, Machine, Network, Preparation, ProcessUse, RunResult,
    Throughput, Verification,
};
use crate::scenario::Scenario;

/// Ten seconds of 20,000 records a second; latencies grow with `slowness`, up to 5 ms times it.
pub fn run(label: &str, slowness: f64) -> RunResult {
    let text = "title = '1 KiB at 20,000/s'\nwhy = 'a <steady> stream'\n\
                [[producers]]\nrecords_per_second = 20000\n[[consumers]]\n";
    let latency = |most: f64| {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=1000).for_each(|step| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            histogram.record((f64::from(step) / 1000.0 * most) as u64 + 1).unwrap();
        });
        Latency::of(&histogram)
    };
    let second = Throughput { records: 20_000, bytes: 20_480_000 };
    let interval = |at: u32| Interval {
        at_s: f64::from(at),
        produced: second.clone(),
        consumed: second.clone(),
        acknowledged_p50_us: Some(u64::from(250 + 10 * (at % 3))),
        acknowledged_p99_us: Some(u64::from(4_000 + 500 * (at % 4))),
        end_to_end_p50_us: Some(400),
        end_to_end_p99_us: Some(6_000),
        broker_cpu_s: Some(0.4 * slowness),
    };
    RunResult {
        format: FORMAT,
        scenario: Scenario::parse(text).unwrap(),
        label: label.to_owned(),
        round: None,
        bootstrap: "127.0.0.1:9092".to_owned(),
        addresses: vec!["127.0.0.1:9092".to_owned()],
        command: None,
        began_ms: 1_795_287_971_000,
        measured_s: 10.0,
        machine: Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            memory_bytes: 24 << 30,
            kernel: "Linux 6.18".to_owned(),
        },
        produced: Throughput { records: 200_000, bytes: 204_800_000 },
        consumed: Throughput { records: 200_000, bytes: 204_800_000 },
        network: Network { sent_bytes: 208_000_000, received_bytes: 209_000_000 },
        acknowledged_us: latency(5_000.0 * slowness),
        acknowledged_by_class_us: Vec::new(),
        end_to_end_us: latency(7_000.0 * slowness),
        broker: Some(ProcessUse {
            cpu_s: 4.0 * slowness,
            memory_peak_bytes: 300 << 20,
            memory_bytes: 280 << 20,
            voluntary_switches: 100_000,
            involuntary_switches: 2_000,
            written_bytes: Some(210_000_000),
            read_bytes: Some(0),
        }),
        harness: HarnessUse { busiest_thread: 0.31, late_us: latency(90.0), ..Default::default() },
        preparation: Preparation::default(),
        unsent: 0,
        disk_sample_us: latency(120.0),
        timeline: (1..=10).map(interval).collect(),
        verification: Verification {
            acknowledged: 200_000,
            expected: 200_000,
            received: 200_000,
            ..Verification::default()
        },
    }
}
