//! What a checker that knows every acknowledgement, and everything that was served meanwhile, finds
//! wrong with a log.

use std::collections::BTreeMap;

/// Offsets and values, as they were read.
pub type Read = Vec<(i64, Vec<u8>)>;

/// No more is told of one partition: one fault makes many.
const FINDINGS_MAX: usize = 12;

/// A run of records that was acknowledged.
#[derive(Clone, Copy)]
pub struct Acknowledged {
    /// Offset of its first record.
    pub offset: i64,
    /// Number of the same.
    pub first: u64,
    pub count: u64,
}

/// What a producer knows, which numbers its records from 0 on.
#[derive(Clone, Default)]
pub struct Ledger {
    pub producer: usize,
    pub partition: i32,
    /// How many it has sent; all of them are to be there.
    pub sent: u64,
    pub acknowledged: Vec<Acknowledged>,
}

/// The value of a record: whose it is and which, and something to fill it.
pub fn value(producer: usize, number: u64, filled: usize) -> Vec<u8> {
    format!("{producer} {number} {}", "x".repeat(filled)).into_bytes()
}

/// Whose a record is, and which.
fn origin(value: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut words = text.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn short(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(24)]).into_owned()
}

/// What is wrong with a partition: `log` is what it holds at the end, `served` what was read
/// meanwhile, each by somebody who asked for no record twice. Nothing, where all is well.
pub fn findings(partition: i32, ledgers: &[Ledger], log: &Read, served: &[Read]) -> Vec<String> {
    let mine: BTreeMap<usize, &Ledger> = ledgers
        .iter()
        .filter(|ledger| ledger.partition == partition)
        .map(|ledger| (ledger.producer, ledger))
        .collect();
    let mut found = Vec::new();
    check_offsets(0, log, &mut found);
    let places = check_origins(&mine, log, &mut found);
    for ledger in mine.values() {
        check_ledger(ledger, &places, &mut found);
    }
    for (reader, read) in (0..).zip(served) {
        check_served(reader, read, log, &mut found);
    }
    found.truncate(FINDINGS_MAX);
    found.into_iter().map(|what| format!("partition {partition}: {what}")).collect()
}

/// Offsets have no gap, from the first on.
fn check_offsets(first: i64, read: &Read, found: &mut Vec<String>) {
    for (expected, (offset, value)) in (first..).zip(read) {
        if *offset != expected {
            let value = short(value);
            found.push(format!("a skip or a step back: {offset} ({value}) stands at {expected}"));
            return;
        }
    }
}

/// Where each record stands, of each producer.
type Places = BTreeMap<(usize, u64), i64>;

fn check_origins(mine: &BTreeMap<usize, &Ledger>, log: &Read, found: &mut Vec<String>) -> Places {
    let mut places = Places::new();
    let mut last: BTreeMap<usize, u64> = BTreeMap::new();
    for (offset, value) in log {
        let origin = origin(value);
        let sent = |(producer, number): &(usize, u64)| {
            mine.get(producer).is_some_and(|ledger| *number < ledger.sent)
        };
        let Some((producer, number)) = origin.filter(sent) else {
            found.push(format!("from nowhere: {} at {offset}", short(value)));
            continue;
        };
        if let Some(before) = places.insert((producer, number), *offset) {
            found.push(format!("duplicate: {producer}/{number} at {before} and {offset}"));
        } else if last.get(&producer).is_some_and(|last| *last > number) {
            found.push(format!("reordered: {producer}/{number} at {offset}, behind a later one"));
        }
        last.insert(producer, number);
    }
    places
}

fn check_ledger(ledger: &Ledger, places: &Places, found: &mut Vec<String>) {
    let producer = ledger.producer;
    let at = |number: u64| places.get(&(producer, number)).copied();
    let lost: Vec<u64> = (0..ledger.sent).filter(|number| at(*number).is_none()).collect();
    if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
        let count = lost.len();
        found.push(format!("lost: {count} of producer {producer}, from {first} to {last}"));
    }
    for run in &ledger.acknowledged {
        for number in run.first..run.first + run.count {
            let expected = run.offset + (number - run.first) as i64;
            if let Some(at) = at(number).filter(|at| *at != expected) {
                found.push(format!(
                    "inconsistent offset: {producer}/{number} was acknowledged at {expected}, \
                     and stands at {at}"
                ));
                return;
            }
        }
    }
}

/// What was shown stays, where it was shown.
fn check_served(reader: usize, read: &Read, log: &Read, found: &mut Vec<String>) {
    let mut own = Vec::new();
    check_offsets(0, read, &mut own);
    let values: BTreeMap<i64, &Vec<u8>> = log.iter().map(|(at, value)| (*at, value)).collect();
    for (offset, value) in read {
        let now = values.get(offset);
        if now.is_none_or(|now| *now != value) {
            let now = now.map_or("nothing".to_owned(), |now| short(now));
            let then = short(value);
            own.push(format!("two values at one offset, {offset}: {then} then, {now} now"));
            break;
        }
    }
    found.extend(own.into_iter().map(|what| format!("reader {reader}: {what}")));
}

fn ledger(sent: u64) -> Ledger {
    let acknowledged = vec![Acknowledged { offset: 0, first: 0, count: sent }];
    Ledger { producer: 7, partition: 2, sent, acknowledged }
}

fn log(numbers: &[u64]) -> Read {
    (0..).zip(numbers.iter().map(|number| value(7, *number, 3))).collect()
}

#[track_caller]
fn finds(log: &Read, served: &[Read], what: &[&str]) {
    let found = findings(2, &[ledger(4), Ledger::default()], log, served);
    assert_eq!(found.len(), what.len(), "{found:?}");
    for (found, what) in found.iter().zip(what) {
        assert!(found.contains(what), "{found}");
    }
}

#[test]
fn the_checker_finds_what_it_should() {
    let whole = log(&[0, 1, 2, 3]);
    finds(&whole, &[whole.clone(), whole[..2].to_vec()], &[]);
    finds(&log(&[0, 1, 2]), &[], &["lost: 1 of producer 7, from 3 to 3"]);
    finds(&log(&[0, 1, 2, 2, 3]), &[], &["duplicate: 7/2 at 2 and 3", "inconsistent offset: 7/2"]);
    finds(&log(&[0, 2, 1, 3]), &[], &["reordered: 7/1 at 2", "inconsistent offset: 7/1"]);
    finds(&log(&[0, 1, 2, 3, 4]), &[], &["from nowhere: 7 4 xxx at 4"]);
    let mut gap = whole.clone();
    gap[3].0 = 4;
    finds(&gap, &[], &["a skip or a step back: 4", "inconsistent offset: 7/3"]);
    let mut skipped = whole.clone();
    skipped.remove(1);
    finds(&whole, &[skipped], &["reader 0: a skip or a step back: 2"]);
    let mut back = whole[..3].to_vec();
    back.push(whole[1].clone());
    finds(&whole, &[back], &["reader 0: a skip or a step back: 1"]);
    let mut other = whole.clone();
    other[1].1 = value(7, 9, 3);
    finds(&whole, &[whole.clone(), other], &["reader 1: two values at one offset, 1"]);
    finds(
        &whole,
        &[log(&[0, 1, 2, 3, 4])],
        &["two values at one offset, 4: 7 4 xxx then, nothing"],
    );
}
