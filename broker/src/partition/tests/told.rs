//! A follower that is told by hand what leaders say, on a disk that is slow, full, or without
//! power.

use bytes::Bytes;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::encode::Records;
use vltava_storage::io::IoErrorKind;
use vltava_storage::io::fault_disk::Fault;

use super::groups::{Cluster, MS, NODES, PARTITION, id, tell};
use crate::peer::message::GroupMessage;
use crate::raft::history::{Base, Mark, What};
use crate::raft::membership::Membership;
use crate::raft::message::Message;
use crate::raft::position::Position;
use crate::raft::run::Run;
use crate::runtime::sim::DiskOptions;

const FOLLOWS: usize = 0;
/// In which an old leader wrote what no other has.
const OLD_EPOCH: i32 = 0;
/// In which the new leader leads, and what is committed was written.
const NEW_EPOCH: i32 = 4;
const FLUSH_MS: u64 = 100;

fn batch(offset: i64, epoch: i32) -> Bytes {
    let mut builder = BatchBuilder::new().position(offset, epoch);
    builder.append(1, None, Some(b"a record"), &[]).unwrap();
    Bytes::from(builder.build())
}

/// A leader says this.
fn say(cluster: &Cluster, body: Message, payload: Bytes) {
    let (from, to) = (id(1), id(FOLLOWS));
    let message = GroupMessage {
        group: PARTITION,
        from_disk: from.disk,
        to_disk: to.disk,
        generation: -1,
        body,
        payload: Records::from(payload),
    };
    cluster.replica(FOLLOWS).received(from.node, message);
}

/// That the log goes on like this.
fn append(cluster: &Cluster, epoch: i32, run: Run, committed: i64, payload: Bytes) {
    let high_watermark = i64::from(committed > 0);
    say(cluster, Message::Append { epoch, run, committed, high_watermark }, payload);
}

fn start_of(epoch: i32, index: i64) -> Mark {
    Mark { epoch, index, what: What::EpochStart }
}

fn slow() -> DiskOptions {
    let flush_ns = FLUSH_MS * MS..=FLUSH_MS * MS;
    DiskOptions { flush_ns, ..DiskOptions::default() }
}

fn nothing_at(at: Position) -> Run {
    Run { from: at, end: at, marks: Vec::new() }
}

/// The power fails while a restore waits for its turn behind votes that are written down: what the
/// log has is still what it had before, and not what the leader's snapshot speaks of.
#[test]
fn what_waits_to_be_restored_is_not_taken_for_the_leaders() {
    for cut_after_ms in (50..500).step_by(50) {
        tell(cut_after_ms, async move |mut cluster| {
            cluster.start(FOLLOWS).await;
            // As many marks as stand before the snapshot's base.
            let old = Position { epoch: OLD_EPOCH + 1, offset: 1, marks: 2 };
            let marks = vec![start_of(OLD_EPOCH, 0), start_of(OLD_EPOCH + 1, 2)];
            let run = Run { from: Position::ZERO, end: old, marks };
            append(&cluster, OLD_EPOCH + 1, run, 0, batch(0, OLD_EPOCH));
            cluster.sleep_ms(1_000).await;
            assert_eq!(cluster.replica(FOLLOWS).end(), 1);

            cluster.set_disk_options(FOLLOWS, slow());
            for epoch in NEW_EPOCH - 2..=NEW_EPOCH {
                append(&cluster, epoch, nothing_at(old), 0, Bytes::new());
            }
            let at = Position { epoch: NEW_EPOCH, offset: 1, marks: 2 };
            let members = Membership::new((0..NODES).map(id), []);
            let base = Box::new(Base { at, members, log_start: 0 });
            let snapshot = Message::Snapshot { epoch: NEW_EPOCH, base, high_watermark: 0 };
            say(&cluster, snapshot, Bytes::new());
            cluster.sleep_ms(cut_after_ms).await;
            cluster.kill(FOLLOWS);
            cluster.set_disk_options(FOLLOWS, DiskOptions::default());

            cluster.start(FOLLOWS).await;
            append(&cluster, NEW_EPOCH, nothing_at(at), at.index(), Bytes::new());
            cluster.sleep_ms(1_000).await;
            let shown = cluster.replica(FOLLOWS).high_watermark();
            assert_eq!(shown, 0, "what was never the leader's is served, after {cut_after_ms} ms");
        });
    }
}

/// A disk is full for what a new leader's words cut away a moment later: the log goes on behind the
/// cut as if that had never been.
#[test]
fn what_finds_no_room_in_front_of_a_cut_says_nothing_of_what_is_behind() {
    tell(1, async move |mut cluster| {
        cluster.start(FOLLOWS).await;
        let first = Position { epoch: OLD_EPOCH, offset: 1, marks: 1 };
        let marks = vec![start_of(OLD_EPOCH, 0)];
        let run = Run { from: Position::ZERO, end: first, marks };
        append(&cluster, OLD_EPOCH, run, 0, batch(0, OLD_EPOCH));
        cluster.sleep_ms(1_000).await;
        assert_eq!(cluster.replica(FOLLOWS).end(), 1);

        cluster.set_disk_options(FOLLOWS, slow());
        let disk = cluster.disk(FOLLOWS);
        disk.inject(Fault::Fail { at: disk.operations(), kind: IoErrorKind::Full });
        let second = Position { offset: 2, ..first };
        let run = Run { from: first, end: second, marks: Vec::new() };
        append(&cluster, OLD_EPOCH, run, 0, batch(1, OLD_EPOCH));
        cluster.sleep_ms(FLUSH_MS / 10).await;
        let end = Position { epoch: NEW_EPOCH, offset: 2, marks: 2 };
        let run = Run { from: first, end, marks: vec![start_of(NEW_EPOCH, first.index())] };
        append(&cluster, NEW_EPOCH, run, 0, batch(1, NEW_EPOCH));
        cluster.sleep_ms(10 * FLUSH_MS).await;
        append(&cluster, NEW_EPOCH, nothing_at(end), end.index(), Bytes::new());
        cluster.sleep_ms(1_000).await;
        let replica = cluster.replica(FOLLOWS);
        assert_eq!((replica.ended(), replica.end(), replica.high_watermark()), (None, 2, 1));
        let epochs = replica.log_to_read().epochs();
        assert_eq!(epochs, [(OLD_EPOCH, 0), (NEW_EPOCH, 1)]);
    });
}

/// A cut leaves a mark, and takes batches in front of it that were not written yet: the mark goes,
/// too, in a cut behind that one, and until then nothing is said of marks.
#[test]
fn a_mark_that_stands_behind_what_a_cut_takes_goes_with_it() {
    for seed in 1..60 {
        tell(seed, async move |mut cluster| {
            cluster.start(FOLLOWS).await;
            let first = Position { epoch: OLD_EPOCH, offset: 1, marks: 1 };
            let run = Run { from: Position::ZERO, end: first, marks: vec![start_of(OLD_EPOCH, 0)] };
            append(&cluster, OLD_EPOCH, run, 0, batch(0, OLD_EPOCH));
            cluster.sleep_ms(1_000).await;

            // Now the log takes longer than the marks, now the marks do.
            let flush_ns = MS..=4 * FLUSH_MS * MS;
            cluster.set_disk_options(FOLLOWS, DiskOptions { flush_ns, ..DiskOptions::default() });
            let second = Position { offset: 2, ..first };
            let run = Run { from: first, end: second, marks: Vec::new() };
            append(&cluster, OLD_EPOCH, run, 0, batch(1, OLD_EPOCH));
            cluster.sleep_ms(1).await;
            let moved = Mark { epoch: OLD_EPOCH, index: 4, what: What::LogStart(0) };
            let third = Position { offset: 3, marks: 2, ..first };
            let fourth = Position { offset: 4, ..third };
            let run = Run { from: second, end: fourth, marks: vec![moved.clone()] };
            let two = [batch(2, OLD_EPOCH), batch(3, OLD_EPOCH)].concat();
            append(&cluster, OLD_EPOCH, run, 0, two.into());
            cluster.sleep_ms(FLUSH_MS).await;
            let end = Position { epoch: NEW_EPOCH, offset: 3, marks: 3 };
            let start = start_of(NEW_EPOCH, third.index());
            let run = Run { from: third, end, marks: vec![start.clone()] };
            append(&cluster, NEW_EPOCH, run, 0, Bytes::new());
            cluster.sleep_ms(20 * FLUSH_MS).await;

            let run = Run { from: first, end, marks: vec![moved, start] };
            let two = [batch(1, OLD_EPOCH), batch(2, OLD_EPOCH)].concat();
            append(&cluster, NEW_EPOCH, run, end.index(), two.into());
            cluster.sleep_ms(20 * FLUSH_MS).await;
            append(&cluster, NEW_EPOCH, nothing_at(end), end.index(), Bytes::new());
            cluster.sleep_ms(1_000).await;
            let replica = cluster.replica(FOLLOWS);
            assert_eq!((replica.ended(), replica.end(), replica.high_watermark()), (None, 3, 1));
        });
    }
}
