#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use proptest::prelude::*;

use super::*;

fn id(node: i32) -> ReplicaId {
    ReplicaId { node, disk: Uuid(0x0102_0304 + node.unsigned_abs() as u128) }
}

/// Everything that a value can hold.
fn example() -> Persisted {
    let members = Membership::new([id(1), id(2)], [id(3)]);
    let next = Membership::new([id(2), id(4)], []);
    let at = Position { epoch: 2, offset: 1000, marks: 7 };
    let mut history = History::new(Base { at, members: members.clone(), log_start: 10 });
    history.append_batches(5);
    history.append_mark(4, What::EpochStart);
    history.append_mark(4, What::Membership(Box::new(members.entering(&next))));
    history.append_batches(300);
    history.append_mark(4, What::LogStart(900));
    Persisted::of(6, Some(id(2)), false, &history)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// These bytes stand on disks.
#[test]
fn golden_bytes() {
    let small = Persisted {
        epoch: 0,
        vote: None,
        is_restoring: true,
        is_lost: true,
        are_votes_lost: false,
        generation: -1,
        promised: Position::ZERO,
        base: Base { at: Position::ZERO, members: Membership::new([id(1)], []), log_start: 0 },
        marks: Vec::new(),
    };
    let golden = concat!(
        "010a",
        "00000000",
        "ffffffff",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "01",
        "00000001",
        "00000000000000000000000001020305",
        "01",
        "00000000",
    );
    assert_eq!(hex(&small.to_bytes()), golden);
    let golden = concat!(
        // version, flags, epoch, vote
        "0101",
        "00000006",
        "00000002",
        "00000000000000000000000001020306",
        // base
        "00000002",
        "00000000000003e8",
        "0000000000000007",
        "000000000000000a",
        // its members
        "03",
        "00000001",
        "00000000000000000000000001020305",
        "01",
        "00000002",
        "00000000000000000000000001020306",
        "01",
        "00000003",
        "00000000000000000000000001020307",
        "04",
        // three marks: the start of epoch 4
        "00000003",
        "00000004",
        "00000000000003f4",
        "00",
        // members 1, 2 and learner 3 become 2 and 4
        "00000004",
        "00000000000003f5",
        "01",
        "03",
        "00000001",
        "00000000000000000000000001020305",
        "02",
        "00000002",
        "00000000000000000000000001020306",
        "03",
        "00000004",
        "00000000000000000000000001020308",
        "01",
        // the log starts at 900
        "00000004",
        "0000000000000522",
        "02",
        "0000000000000384",
    );
    assert_eq!(hex(&example().to_bytes()), golden);
    let promised = Position { epoch: 5, offset: 9, marks: 4 };
    let given_away = example().given_away(promised, Membership::new([id(1)], []));
    let golden = concat!(
        "0105",
        "00000006",
        "00000002",
        "00000000000000000000000001020306",
        // the promise
        "00000005",
        "0000000000000009",
        "0000000000000004",
        // what is known of the group: its members
        "ffffffff",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "01",
        "00000001",
        "00000000000000000000000001020305",
        "01",
        "00000000",
    );
    assert_eq!(hex(&given_away.to_bytes()), golden);
    let members = Membership::new([id(1)], []);
    let mut history =
        History::new(Base { at: Position::ZERO, members: members.clone(), log_start: 0 });
    history.append_mark(70_000, What::Forced(Box::new(members)));
    let forced = Persisted::of(70_000, None, false, &history);
    let forced = Persisted { generation: 70_000, are_votes_lost: true, ..forced };
    let golden = concat!(
        // version, flags, epoch, generation
        "0130",
        "00011170",
        "00011170",
        // base
        "ffffffff",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "01",
        "00000001",
        "00000000000000000000000001020305",
        "01",
        // a mark: the group begins anew with one member
        "00000001",
        "00011170",
        "0000000000000000",
        "03",
        "01",
        "00000001",
        "00000000000000000000000001020305",
        "01",
    );
    assert_eq!(hex(&forced.to_bytes()), golden);
    for value in [small, example(), given_away, forced] {
        assert_eq!(Persisted::from_bytes(&value.to_bytes()), Ok(value));
    }
}

#[test]
fn a_promise_is_never_less_than_an_earlier_one() {
    let members = || Membership::new([id(1)], []);
    let place = |epoch, offset| Position { epoch, offset, marks: 1 };
    assert!(!example().is_given_away());
    let first = example().given_away(place(5, 9), members());
    assert!(first.is_given_away());
    let second = first.given_away(place(5, 7), members());
    assert_eq!(second.promised, place(5, 9));
    assert_eq!(second.given_away(place(6, 0), members()).promised, place(6, 0));
}

#[test]
fn another_version_and_every_shorter_value_are_errors() {
    let mut bytes = example().to_bytes();
    for len in 0..bytes.len() {
        assert_eq!(Persisted::from_bytes(&bytes[..len]), Err(PersistedError::Damaged), "{len}");
    }
    bytes.push(0);
    assert_eq!(Persisted::from_bytes(&bytes), Err(PersistedError::Damaged));
    bytes[0] = 2;
    assert_eq!(Persisted::from_bytes(&bytes), Err(PersistedError::Version(2)));
}

proptest! {
    /// What is read is what a history can hold: it can be put together without a panic.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Persisted::from_bytes(&bytes));
    }

    #[test]
    fn changed_bytes_are_read_or_refused(
        changes in proptest::collection::vec((0_usize..400, any::<u8>()), 1..4),
        log_end in 0_i64..2000,
    ) {
        let mut bytes = example().to_bytes();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(read) = Persisted::from_bytes(&bytes) {
            prop_assert_eq!(Persisted::from_bytes(&read.to_bytes()), Ok(read.clone()));
            drop(super::super::recovery::recovered(read, log_end, &[(2, 0), (4, 1005)]));
        }
    }
}
