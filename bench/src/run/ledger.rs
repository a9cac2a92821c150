//! What was acknowledged, what was received, and whether the one is the other.

use crate::engine::client::Outcome;
use crate::engine::consumer::ReaderReport;
use crate::engine::producer::ProducerReport;
use crate::engine::queue::Acknowledged;
use crate::engine::verify::Counts;
use crate::engine::worker::WorkerReport;
use crate::report::figures::some;
use crate::result::Verification;

/// What one reader is to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Only what producers from this number on have written.
    pub first_producer: u32,
    /// Only these partitions; `None`: all.
    pub partitions: Option<Vec<u32>>,
}

impl Reading {
    fn holds(&self, producer: u32, partition: u32) -> bool {
        let partitions = self.partitions.as_ref();
        producer >= self.first_producer
            && partitions.is_none_or(|partitions| partitions.binary_search(&partition).is_ok())
    }
}

/// The books of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Producer, partition, and what was acknowledged of it there.
    acknowledged: Vec<(u32, u32, Acknowledged)>,
    /// Producer, partition, and how many records were sent again there without numbers.
    unnumbered: Vec<(u32, u32, u64)>,
    /// By number.
    readings: Vec<Reading>,
    surplus: u64,
    verification: Verification,
}

impl Ledger {
    /// There will be another reader: its number.
    pub fn add_reading(&mut self, reading: Reading) -> u32 {
        self.readings.push(reading);
        crate::engine::map::dense(self.readings.len() - 1)
    }

    /// How many records all readers are to receive, of which nobody has reported, if `more` are
    /// acknowledged beside those that are in the books, by producers whose numbers are higher.
    pub fn expected(&self, more: u64) -> u64 {
        let of = |reading: &Reading| -> u64 {
            let held = self.acknowledged.iter();
            let held = held.filter(|(producer, partition, _)| reading.holds(*producer, *partition));
            held.map(|(_, _, of)| of.sequence_end + of.bare).sum()
        };
        self.readings.iter().map(|reading| of(reading) + more).sum()
    }

    /// How many records were acknowledged, as far as anybody has reported.
    pub fn acknowledged(&self) -> u64 {
        self.verification.acknowledged
    }

    /// Something went wrong.
    pub fn fault(&mut self, what: &str) {
        self.verification.faults.push(what.to_owned());
    }

    /// Takes in what workers report: first what was written, then what was read.
    pub fn take_in(&mut self, reports: Vec<WorkerReport>) {
        let (mut producers, mut readers) = (Vec::new(), Vec::new());
        for report in reports {
            self.verification.reconnects += report.reconnects;
            for fault in report.faults {
                if !self.verification.faults.contains(&fault) {
                    self.verification.faults.push(fault);
                }
            }
            for outcome in report.outcomes {
                match outcome {
                    Outcome::Producer(producer) => producers.push(producer),
                    Outcome::Reader(reader) => readers.push(reader),
                }
            }
        }
        producers.into_iter().for_each(|producer| self.add_producer(producer));
        whole(readers).into_iter().for_each(|reader| self.add_reader(reader));
    }

    /// What is to be told.
    pub fn close(mut self) -> Verification {
        // What was not acknowledged may have been written all the same.
        if self.surplus > self.verification.may_repeat && self.verification.failed == 0 {
            let surplus = some(self.surplus, "record");
            self.fault(&format!("{surplus} received that nobody acknowledged"));
        }
        self.verification
    }

    fn add_producer(&mut self, report: ProducerReport) {
        let ProducerReport { number, failed, resent, may_repeat, acknowledged } = report;
        self.verification.failed += failed;
        for (partition, resent) in resent {
            self.verification.resent += resent;
            if may_repeat {
                self.unnumbered.push((number, partition, resent));
            }
        }
        for (partition, of) in acknowledged {
            self.verification.acknowledged += of.sequence_end + of.bare;
            self.acknowledged.push((number, partition, of));
        }
    }

    fn add_reader(&mut self, report: ReaderReport) {
        let Some(reading) = self.readings.get(crate::engine::map::index(report.reader)) else {
            return;
        };
        let held = self.acknowledged.iter().copied();
        let held = held.filter(|(producer, partition, _)| reading.holds(*producer, *partition));
        let unnumbered = self.unnumbered.iter();
        let unnumbered = unnumbered.filter(|(of, partition, _)| reading.holds(*of, *partition));
        self.verification.may_repeat += unnumbered.map(|(_, _, resent)| resent).sum::<u64>();
        let counts = report.verifier.finish(held);
        let Counts { received, repeated, out_of_order, corrupt, restamped, .. } = counts;
        let Counts { expected, missing, surplus, .. } = counts;
        self.verification.expected += expected;
        self.verification.received += received;
        self.verification.missing += missing;
        self.verification.repeated += repeated;
        self.verification.out_of_order += out_of_order;
        self.verification.corrupt += corrupt;
        self.verification.restamped += restamped;
        self.surplus += surplus;
    }
}

/// Reports of members of one group are of one reader.
fn whole(reports: Vec<ReaderReport>) -> Vec<ReaderReport> {
    let mut readers: Vec<ReaderReport> = Vec::new();
    for report in reports {
        match readers.iter_mut().find(|known| known.reader == report.reader) {
            Some(known) => known.verifier.merge(report.verifier),
            None => readers.push(report),
        }
    }
    readers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::payload::Seen;
    use crate::engine::verify::Verifier;

    fn ledger(failed: u64) -> Ledger {
        let mut ledger = Ledger::default();
        let of = |sequence_end| Acknowledged { sequence_end, bare: 0 };
        for (number, count) in [(0, 10), (1, 2)] {
            let acknowledged = vec![(0, of(count)), (1, of(count))];
            let (resent, may_repeat) = (vec![(0, number.into())], true);
            let report = ProducerReport { number, failed, resent, may_repeat, acknowledged };
            ledger.add_producer(report);
        }
        ledger
    }

    fn report(reader: u32, partitions: &[u32], count: u64) -> ReaderReport {
        let mut verifier = Verifier::new(2, 2);
        for partition in partitions {
            for sequence in 0..count {
                let seen = Seen::Whole { producer: 1, sequence, intended_ns: 0 };
                verifier.on_record(*partition, seen);
            }
        }
        ReaderReport { reader, verifier }
    }

    #[test]
    fn each_reader_is_held_to_what_it_reads() {
        let mut ledger = ledger(0);
        let late = Reading { first_producer: 1, partitions: None };
        let half = Reading { first_producer: 0, partitions: Some(vec![1]) };
        let (late, half) = (ledger.add_reading(late), ledger.add_reading(half));
        assert_eq!(ledger.expected(0), 4 + 12);
        assert_eq!(ledger.expected(5), 4 + 12 + 10);
        ledger.add_reader(report(late, &[0, 1], 2));
        ledger.add_reader(report(half, &[1], 2));
        let verification = ledger.close();
        assert_eq!((verification.acknowledged, verification.expected), (24, 16));
        assert_eq!((verification.received, verification.missing), (6, 10));
        assert_eq!(
            (verification.resent, verification.may_repeat),
            (1, 1),
            "it came to one of them"
        );
    }

    #[test]
    fn members_of_a_group_are_one_reader() {
        let mut ledger = ledger(0);
        let group = ledger.add_reading(Reading { first_producer: 1, partitions: None });
        let reports = vec![report(group, &[0], 2), report(group, &[1], 2)];
        whole(reports).into_iter().for_each(|reader| ledger.add_reader(reader));
        let verification = ledger.close();
        assert_eq!((verification.received, verification.expected), (4, 4));
        assert!(verification.is_sound(), "{verification:?}");
    }

    #[test]
    fn records_out_of_nowhere_are_a_fault_unless_some_have_failed() {
        for (failed, faults) in [(0, 1), (1, 0)] {
            let mut ledger = ledger(failed);
            let number = ledger.add_reading(Reading { first_producer: 1, partitions: None });
            ledger.add_reader(report(number, &[0, 1], 4));
            assert_eq!(ledger.close().faults.len(), faults);
        }
    }
}
