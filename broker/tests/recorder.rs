//! A whole broker under a recorder of what its rings are asked: nothing is acknowledged before it
//! would survive a power failure, and no name is relied upon before its directory is synced.
//!
//! The recording is then damaged, one way at a time (the flag of the data sync taken off, a
//! directory's syncs left out, an answer sent early): the checker must see each.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "recorder/check.rs"]
mod check;
#[path = "recorder/client.rs"]
mod client;
#[path = "recorder/damage.rs"]
mod damage;
#[path = "recorder/file.rs"]
mod file;
#[path = "recorder/shadow.rs"]
mod shadow;
mod support;
#[path = "recorder/tape.rs"]
mod tape;
#[path = "recorder/tests.rs"]
mod tests;
#[path = "recorder/workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use check::{AnswerId, Promise, check};
use client::Promises;
use tape::{Event, Tape};
use vltava::config::values::{self, Given, Origin};
use vltava::runtime::{Operation, Recorder};
use vltava::server::{self, Server};

type AllPromises = BTreeMap<AnswerId, Promise>;

fn start(data: &Path, shards: usize, tape: &Arc<Tape>) -> (Server, SocketAddr) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, support::free_port()));
    let given = [
        ("log.dirs", data.display().to_string()),
        ("listeners", format!("PLAINTEXT://{address}")),
        ("admin.listener", "none".to_owned()),
        ("shards", shards.to_string()),
        ("memory", "512MiB".to_owned()),
        ("offsets.topic.num.partitions", "3".to_owned()),
    ];
    let given =
        given.map(|(name, value)| Given { name: name.to_owned(), value, origin: Origin::Set });
    let config = values::load(&given).unwrap().config;
    let recorder = Arc::clone(tape) as Arc<dyn Recorder>;
    tape.expect_start();
    let server = server::start(config, Instant::now(), Some(recorder)).unwrap();
    tape.wait_until_accepting(shards);
    (server, address)
}

/// Two rounds of everything, with an orderly stop, and so many shards, in each.
fn record(shards: [usize; 2]) -> (Vec<Event>, AllPromises) {
    let (tape, promises) = (Arc::new(Tape::default()), Promises::default());
    let directory = support::directory();
    for (round, shards) in shards.into_iter().enumerate() {
        let (server, address) = start(directory.path(), shards, &tape);
        if round == 0 {
            workload::set_up(address, &promises);
        }
        workload::run(address, i32::try_from(round).unwrap(), &promises);
        server.stop();
        server.wait().unwrap();
    }
    (tape.take(), promises.take())
}

/// A recording that is sound, and shows what it is to show.
fn record_soundly(shards: [usize; 2]) -> (Vec<Event>, AllPromises) {
    let (events, promises) = record(shards);
    let report = check(&events, &promises);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert_eq!(report.kept, promises.len());
    assert!(report.kept > 400, "{} promises", report.kept);
    let submitted = |wanted: &dyn Fn(&Operation) -> bool| {
        events.iter().filter(|e| matches!(e, Event::Submitted(_, _, o) if wanted(o))).count()
    };
    let rolls = submitted(&|operation| {
        matches!(operation, Operation::Open { path, create: true }
            if path.starts_with("rolling-") && path.ends_with(".log"))
    });
    assert!(rolls >= 8, "{rolls} rolls");
    let zeros = submitted(&|operation| {
        matches!(operation, Operation::Write { path, content, .. }
            if path.ends_with(".log") && content.iter().all(|byte| *byte == 0))
    });
    assert!(zeros > 0, "no zeros were written ahead of a log");
    let deletions = submitted(
        &|operation| matches!(operation, Operation::Rename { to, .. } if to.ends_with("-delete")),
    );
    assert_eq!(deletions, 12, "partitions deleted");
    (events, promises)
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable_on_one_shard() {
    record_soundly([1, 2]);
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable_on_five_shards() {
    record_soundly([5, 1]);
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable_on_two_shards() {
    let (events, promises) = record_soundly([2, 5]);
    let early = "answered too early";
    let logs = damage::without_data_sync(&events, ".log");
    let report = check(&logs, &promises);
    assert!(report.says(early), "log writes without the flag");
    // Only what a later sync of the file made up for, when its segment was closed.
    assert!(report.kept < promises.len() / 20, "{} of {} kept", report.kept, promises.len());

    let report = check(&damage::without_data_sync(&events, ".tmp"), &promises);
    assert!(report.says("before its content is durable"), "{:#?}", report.violations);

    let report = check(&damage::without(&events, damage::is_file_sync), &promises);
    assert!(report.says("before its content is durable"), "{:#?}", report.violations);

    let report = check(&damage::without(&events, damage::is_directory_sync), &promises);
    assert!(report.says("its name may be lost"), "{:#?}", report.violations);
    assert_eq!(report.kept, 0);

    // A partition's directory, whose name is durable.
    let inner = |operation: &Operation| {
        damage::is_directory_sync(operation)
            && matches!(operation, Operation::Sync { path, .. } if path.starts_with("rolling-"))
    };
    let report = check(&damage::without(&events, inner), &promises);
    assert!(report.says("rolling-0 has no batch at"), "{:#?}", report.violations);
    assert!(report.says("removed while"), "{:#?}", report.violations);
    assert!(report.says("rolling-0 begins at None"), "{:#?}", report.violations);

    let mut answered_early = 0;
    for (answer, promise) in promises.iter().step_by(20) {
        let Promise::Batch { directory, base_offset, bytes } = promise else {
            continue;
        };
        if let Some(events) = damage::answered_early(&events, *answer, bytes) {
            let words = format!("{early}: {directory} has no batch at {base_offset}");
            assert!(check(&events, &promises).says(&words), "{answer:?} {promise:?}");
            answered_early += 1;
        }
    }
    assert!(answered_early > 5, "{answered_early}");
}
