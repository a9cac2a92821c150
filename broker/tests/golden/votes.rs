//! What the journal of votes keeps of each group: epoch, vote and marks.

use vltava::raft::history::{Base, History, What};
use vltava::raft::membership::{Membership, ReplicaId};
use vltava::raft::persisted::Persisted;
use vltava::raft::position::Position;
use vltava_protocol::types::Uuid;

use crate::golden_lines;

fn id(node: i32) -> ReplicaId {
    ReplicaId { node, disk: Uuid(u128::from(node.unsigned_abs()) << 64) }
}

fn examples() -> Vec<(&'static str, Persisted)> {
    let members = Membership::new([1, 2, 3].map(id), []);
    let next = Membership::new([2, 3, 4].map(id), [id(5)]);
    let base = |at| Base { at, members: members.clone(), log_start: 0 };
    let first = History::new(base(Position::ZERO));
    let mut history = History::new(base(Position { epoch: 2, offset: 1000, marks: 7 }));
    history.append_batches(5);
    history.append_mark(4, What::EpochStart);
    history.append_mark(4, What::Membership(Box::new(members.entering(&next))));
    history.append_batches(300);
    history.append_mark(4, What::LogStart(900));
    let mut named = history.clone();
    named.append_mark(65_542, What::Forced(Box::new(Membership::new([id(1)], [id(2)]))));
    let promised = Position { epoch: 4, offset: 1305, marks: 10 };
    vec![
        ("new", Persisted::of(0, None, false, &first)),
        ("voted", Persisted::of(3, Some(id(2)), false, &first)),
        ("restoring", Persisted::of(3, Some(id(2)), true, &first)),
        ("marked", Persisted::of(6, Some(id(1)), false, &history)),
        (
            "given-away",
            Persisted::of(6, Some(id(1)), false, &history).given_away(promised, members),
        ),
        ("lost", Persisted { is_lost: true, ..Persisted::of(6, Some(id(1)), false, &history) }),
        ("named", Persisted { generation: 65_542, ..Persisted::of(65_542, None, false, &named) }),
        (
            "votes-lost",
            Persisted { are_votes_lost: true, ..Persisted::of(-1, None, false, &first) },
        ),
    ]
}

#[test]
fn votes_and_marks() {
    let encoded =
        |(name, it): &(&'static str, Persisted)| (*name, vec![Some(it.to_bytes().into())]);
    let written: Vec<_> = examples().iter().map(encoded).collect();
    let golden = golden_lines("disk/v1/votes-and-marks", &written);
    for ((name, kept), parts) in examples().into_iter().zip(golden) {
        let [Some(bytes)] = &parts[..] else { panic!("{name}: bytes") };
        assert_eq!(Persisted::from_bytes(bytes), Ok(kept), "{name}");
    }
}
