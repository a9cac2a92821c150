//! The checker on recordings made by hand: one log, one producer, and what may go wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use vltava::runtime::Operation;
use vltava_protocol::batch_builder::BatchBuilder;

use crate::check::{Promise, Report, check};
use crate::tape::Event;

const LOG: &str = "topic-0/00000000000000000000.log";
const DIRECTORY: i32 = 10;
const ROOT: i32 = 11;
const FILE: i32 = 12;
const BLOCK_BYTES: usize = 4096;

fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7))
}

/// A recording that is being made.
#[derive(Default)]
struct Hand {
    events: Vec<Event>,
    promises: BTreeMap<(SocketAddr, i32), Promise>,
    next: u64,
}

impl Hand {
    /// With a directory and an empty log, whose names are durable.
    fn with_log() -> Self {
        let mut hand = Self::default();
        hand.create_directory();
        hand.sync(".", ROOT);
        hand.create(LOG, FILE);
        hand.sync("topic-0", DIRECTORY);
        hand
    }

    fn create_directory(&mut self) {
        self.does(Operation::CreateDirectory { path: "topic-0".to_owned() }, 0);
        self.does(Operation::Open { path: "topic-0".to_owned(), create: false }, DIRECTORY);
    }

    fn create(&mut self, path: &str, descriptor: i32) {
        self.does(Operation::Open { path: path.to_owned(), create: true }, descriptor);
    }

    fn begins(&mut self, operation: Operation) -> u64 {
        self.next += 1;
        self.events.push(Event::Submitted(0, self.next, operation));
        self.next
    }

    fn ends(&mut self, id: u64, result: i32) {
        self.events.push(Event::Completed(0, id, result));
    }

    fn does(&mut self, operation: Operation, result: i32) {
        let id = self.begins(operation);
        self.ends(id, result);
    }

    fn sync(&mut self, path: &str, descriptor: i32) {
        self.does(Operation::Sync { path: path.to_owned(), descriptor }, 0);
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.does(Operation::Rename { from: from.to_owned(), to: to.to_owned() }, 0);
    }

    /// Promises a batch of one record in the next answer, and sends that.
    fn answers(&mut self, base_offset: i64) {
        let correlation_id = i32::try_from(self.promises.len()).unwrap();
        let promise = Promise::Batch {
            directory: "topic-0".to_owned(),
            base_offset,
            bytes: value(base_offset),
        };
        self.promises.insert((peer(), correlation_id), promise);
        let content = [4_u32.to_be_bytes(), correlation_id.to_be_bytes()].concat();
        self.does(Operation::Send { peer: Some(peer()), content }, 8);
    }

    fn report(&self) -> Report {
        check(&self.events, &self.promises)
    }

    /// What is wrong, where exactly one thing is.
    fn wrong(&self) -> String {
        let mut violations = self.report().violations;
        assert_eq!(violations.len(), 1, "{violations:#?}");
        violations.remove(0)
    }
}

fn value(offset: i64) -> Vec<u8> {
    format!("value {offset} .").into_bytes()
}

/// A log of so many batches, as blocks.
fn blocks(batches: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for offset in 0..batches {
        let mut builder = BatchBuilder::new().position(offset, 0);
        builder.append(0, None, Some(&value(offset)), &[]).unwrap();
        bytes.extend(builder.build());
    }
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

fn write(batches: i64, data_sync: bool) -> Operation {
    let content = blocks(batches);
    Operation::Write { path: LOG.to_owned(), descriptor: FILE, position: 0, content, data_sync }
}

const WRITTEN: i32 = 4096;

#[test]
fn a_write_with_its_flag_may_be_answered_when_it_is_done() {
    let mut hand = Hand::with_log();
    hand.does(write(1, true), WRITTEN);
    hand.answers(0);
    hand.does(write(2, true), WRITTEN);
    hand.answers(1);
    hand.answers(0);
    let report = hand.report();
    assert_eq!((report.violations.as_slice(), report.kept), (&[][..], 3));
}

#[test]
fn a_write_that_is_under_way_is_no_ground_for_an_answer() {
    let mut hand = Hand::with_log();
    let id = hand.begins(write(1, true));
    hand.answers(0);
    hand.ends(id, WRITTEN);
    assert_eq!(hand.wrong(), "answered too early: topic-0 has no batch at 0");
}

#[test]
fn without_the_flag_it_takes_a_sync_that_began_when_the_write_was_done() {
    for (is_after, is_done) in [(true, true), (true, false), (false, true)] {
        let mut hand = Hand::with_log();
        let sync = Operation::Sync { path: LOG.to_owned(), descriptor: FILE };
        let write = hand.begins(write(1, false));
        let id = if is_after {
            hand.ends(write, WRITTEN);
            hand.begins(sync)
        } else {
            let id = hand.begins(sync);
            hand.ends(write, WRITTEN);
            id
        };
        if is_done {
            hand.ends(id, 0);
        }
        hand.answers(0);
        assert_eq!(hand.report().says("answered too early"), !(is_after && is_done));
    }
}

#[test]
fn what_failed_or_fell_short_is_not_there() {
    for result in [-5, 0, 30] {
        let mut hand = Hand::with_log();
        hand.does(write(1, true), result);
        hand.answers(0);
        assert_eq!(hand.wrong(), "answered too early: topic-0 has no batch at 0");
    }
    let mut hand = Hand::with_log();
    hand.does(write(1, false), WRITTEN);
    hand.does(Operation::Sync { path: LOG.to_owned(), descriptor: FILE }, -5);
    hand.answers(0);
    assert!(hand.report().says("answered too early"));
}

#[test]
fn a_hole_in_front_hides_what_follows() {
    let mut hand = Hand::with_log();
    let mut content = blocks(2);
    content[20] ^= 1;
    let damaged = Operation::Write {
        path: LOG.to_owned(),
        descriptor: FILE,
        position: 0,
        content,
        data_sync: true,
    };
    hand.does(damaged, WRITTEN);
    hand.answers(1);
    assert_eq!(hand.wrong(), "answered too early: topic-0 has no batch at 1");
}

#[test]
fn what_was_answered_is_neither_changed_nor_cut() {
    let mut hand = Hand::with_log();
    hand.does(write(2, true), WRITTEN);
    hand.answers(1);
    let mut content = blocks(2);
    content[30] ^= 1;
    let changed = Operation::Write {
        path: LOG.to_owned(),
        descriptor: FILE,
        position: 0,
        content,
        data_sync: true,
    };
    let cut = Operation::SetLength { path: LOG.to_owned(), descriptor: FILE, len: 50 };
    for wrong in [changed, cut] {
        let mut hand =
            Hand { events: hand.events.clone(), promises: hand.promises.clone(), next: 50 };
        hand.does(wrong, WRITTEN);
        hand.sync(LOG, FILE);
        assert_eq!(hand.wrong(), format!("{LOG}: changes batches that were acknowledged"));
    }
}

#[test]
fn a_file_whose_name_may_be_lost_holds_nothing() {
    for (name_synced, directory_synced) in [(false, true), (true, false), (true, true)] {
        let mut hand = Hand::default();
        hand.create_directory();
        hand.create(LOG, FILE);
        if name_synced {
            hand.sync("topic-0", DIRECTORY);
        }
        if directory_synced {
            hand.sync(".", ROOT);
        }
        hand.does(write(1, true), WRITTEN);
        hand.answers(0);
        let is_certain = name_synced && directory_synced;
        assert_eq!(hand.report().says("answered too early"), !is_certain);
        assert_eq!(hand.report().says("its name may be lost"), !is_certain);
    }
}

#[test]
fn a_rename_comes_after_the_content_and_before_the_sync_of_its_directory() {
    let (temporary, name) = ("topic-0/checkpoint.tmp", "topic-0/checkpoint");
    for (data_sync, directory_sync) in [(false, true), (true, false), (true, true)] {
        let mut hand = Hand::with_log();
        hand.create(temporary, 20);
        let content = vec![7; BLOCK_BYTES];
        let path = temporary.to_owned();
        hand.does(
            Operation::Write { path, descriptor: 20, position: 0, content, data_sync },
            WRITTEN,
        );
        hand.rename(temporary, name);
        if directory_sync {
            hand.sync("topic-0", DIRECTORY);
        }
        hand.does(Operation::Remove { path: "topic-0/older.snapshot".to_owned() }, 0);
        let report = hand.report();
        assert_eq!(report.says("before its content is durable"), !data_sync);
        assert_eq!(report.says("removed while"), !directory_sync);
        assert_eq!(report.says("its name may be lost"), !directory_sync);
    }
}

#[test]
fn a_name_that_was_given_again_is_not_certain_until_it_is_synced() {
    let mut hand = Hand::with_log();
    hand.does(write(1, true), WRITTEN);
    hand.does(Operation::Remove { path: LOG.to_owned() }, 0);
    hand.create(LOG, FILE);
    hand.does(write(1, true), WRITTEN);
    hand.answers(0);
    assert!(hand.report().says("answered too early"));
}

#[test]
fn an_answer_that_nobody_saw_leave_proves_nothing() {
    let mut hand = Hand::with_log();
    hand.does(write(1, true), WRITTEN);
    hand.answers(0);
    hand.events.retain(|e| !matches!(e, Event::Submitted(_, _, Operation::Send { .. })));
    assert!(hand.wrong().starts_with("no answer "));
}

#[test]
fn answers_that_leave_in_pieces_are_known_by_their_beginning() {
    let mut hand = Hand::with_log();
    hand.does(write(1, true), WRITTEN);
    hand.answers(0);
    // The second answer, cut behind its length: no client can know yet what it answers.
    let answer = [4_u32.to_be_bytes(), 1_i32.to_be_bytes()].concat();
    let send = |content: &[u8]| Operation::Send { peer: Some(peer()), content: content.to_vec() };
    hand.does(send(&answer[..4]), 4);
    let write = hand.begins(write(2, true));
    hand.does(send(&answer[4..]), 4);
    hand.ends(write, WRITTEN);
    let promise =
        Promise::Batch { directory: "topic-0".to_owned(), base_offset: 1, bytes: value(1) };
    hand.promises.insert((peer(), 1), promise);
    assert_eq!(hand.wrong(), "answered too early: topic-0 has no batch at 1");
}
