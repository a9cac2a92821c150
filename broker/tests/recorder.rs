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
#[path = "recorder/file.rs"]
mod file;
#[path = "recorder/shadow.rs"]
mod shadow;
mod support;
#[path = "recorder/tape.rs"]
mod tape;
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
