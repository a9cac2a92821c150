#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use vltava_protocol::messages::alter_partition_reassignments::ReassignableTopic;
use vltava_protocol::types::Str;

use super::*;
use crate::metadata::features::Levels;
use crate::metadata::image::{Cluster, Node, NodeState};

const TOPIC: Uuid = Uuid(7);

fn replica(node_id: i32) -> Replica {
    Replica { node_id, disk_id: Uuid(100 + u128::from(node_id.unsigned_abs())) }
}

fn replicas(nodes: &[i32]) -> Vec<Replica> {
    nodes.iter().copied().map(replica).collect()
}

fn nodes(replicas: &[Replica]) -> Vec<i32> {
    replicas.iter().map(|it| it.node_id).collect()
}

fn report(partition: &Partition, leader_epoch: i32) -> Report {
    let id = PartitionId { topic_id: TOPIC, index: 0 };
    Report { partition: id, changes: partition.changes, leader_epoch }
}

/// `replicas +adding -removing`
fn shown(partition: &Partition) -> String {
    let Partition { replicas, adding, removing, .. } = partition;
    format!("{:?} +{:?} -{:?}", nodes(replicas), nodes(adding), nodes(removing))
}

fn done(partition: &Partition) -> Partition {
    let led = lead(partition, &report(partition, 9)).unwrap().unwrap_or(partition.clone());
    let target: Vec<_> = led.target().copied().collect();
    complete(&led, &report(&led, 9), &target).unwrap()
}

#[test]
fn a_change_begins_and_ends() {
    let before = Partition::new(replicas(&[1, 2]));
    let moving = begin(&before, replicas(&[2, 3])).unwrap();
    assert_eq!(shown(&moving), "[2, 3, 1] +[3] -[1]");
    assert_eq!(nodes(moving.founders()), [1, 2]);
    assert_eq!(begin(&moving, replicas(&[2, 3])), None, "the same again");
    let after = done(&moving);
    assert_eq!(shown(&after), "[2, 3] +[] -[]");
    assert_eq!((nodes(after.founders()), after.before.clone()), (vec![1, 2], None));
    assert_eq!(cancel(&after), Err(NotChanging));
    // Another order takes nobody's work.
    let turned = begin(&after, replicas(&[3, 2])).unwrap();
    assert_eq!(shown(&turned), "[3, 2] +[] -[]");
    assert_eq!(cancel(&turned), Err(NotChanging));
}

#[test]
fn a_cancel_goes_back_the_same_way() {
    let before = Partition::new(replicas(&[1, 2]));
    let moving = begin(&before, replicas(&[2, 3])).unwrap();
    let back = cancel(&moving).unwrap().unwrap();
    assert_eq!(shown(&back), "[1, 2, 3] +[1] -[3]", "1 may have gone already");
    assert_eq!(cancel(&back), Ok(None), "it is on its way back");
    assert_eq!(shown(&done(&back)), "[1, 2] +[] -[]");
    // Where nobody came, whoever was to go may have gone.
    let fewer = begin(&Partition::new(replicas(&[1, 2, 3])), replicas(&[1, 2])).unwrap();
    assert_eq!(shown(&fewer), "[1, 2, 3] +[] -[3]");
    let back = cancel(&fewer).unwrap().unwrap();
    assert_eq!(shown(&back), "[1, 2, 3] +[3] -[]");
    // A change of mind, and then back to where all began.
    let other = begin(&moving, replicas(&[2, 4])).unwrap();
    assert_eq!(shown(&other), "[2, 4, 3, 1] +[4] -[3, 1]");
    let back = cancel(&other).unwrap().unwrap();
    assert_eq!(shown(&back), "[1, 2, 4, 3] +[1] -[4, 3]");
    // Another change instead of a cancel: that is cancelled to where the cancel led.
    let again = begin(&back, replicas(&[2, 5])).unwrap();
    assert_eq!(shown(&again), "[2, 5, 1, 4, 3] +[5] -[1, 4, 3]");
    assert_eq!(nodes(again.before.as_deref().unwrap()), [1, 2]);
}

#[test]
fn only_the_newest_leader_is_believed_and_only_of_the_newest_decision() {
    let before = Partition::new(replicas(&[1, 2]));
    let moving = begin(&before, replicas(&[2, 3])).unwrap();
    let target = replicas(&[3, 2]);
    assert_eq!(complete(&moving, &report(&moving, 5), &target), Err(NotTaken), "nobody leads");
    let led = lead(&moving, &report(&moving, 5)).unwrap().unwrap();
    assert_eq!(lead(&led, &report(&led, 5)), Ok(None));
    assert_eq!(lead(&led, &report(&led, 4)), Err(NotTaken));
    assert_eq!(complete(&led, &report(&led, 5), &replicas(&[1, 2])), Err(NotTaken));
    let newer = lead(&led, &report(&led, 6)).unwrap().unwrap();
    assert_eq!(complete(&newer, &report(&newer, 5), &target), Err(NotTaken), "an older leader");
    // Back, and the same again: what was reported of the first time does not count.
    let back = cancel(&newer).unwrap().unwrap();
    assert_eq!(complete(&back, &report(&newer, 6), &target), Err(NotTaken));
    let again = begin(&back, replicas(&[2, 3])).unwrap();
    assert_eq!(complete(&again, &report(&newer, 6), &target), Err(NotTaken));
    assert_eq!(lead(&again, &report(&again, 5)), Err(NotTaken), "known to be older");
    let after = complete(&again, &report(&again, 6), &target).unwrap();
    assert_eq!(nodes(&after.replicas), [2, 3]);
    assert_eq!(complete(&after, &report(&after, 6), &target), Err(NotTaken), "twice");
    let next = begin(&after, replicas(&[1, 2])).unwrap();
    assert_eq!(lead(&next, &report(&next, 5)), Err(NotTaken), "also of the next change");
}

fn node(id: i32, state: NodeState) -> Record {
    let disks = if state == NodeState::Expected { vec![] } else { vec![replica(id).disk_id] };
    let node = Node {
        id,
        epoch: 0,
        rack: None,
        endpoints: vec![],
        disks,
        peer_endpoint: None,
        state,
        levels: Levels::default(),
    };
    Record::Node(id, Some(node))
}

fn image(partition: Partition) -> Image {
    let mut image = Image::default();
    let cluster = Cluster { id: Uuid(1), format_version: 1, features: <_>::default() };
    let id = PartitionId { topic_id: TOPIC, index: 0 };
    let nodes = (1..7).map(|id| node(id, NodeState::There));
    let records = [Record::Cluster(cluster)]
        .into_iter()
        .chain(nodes)
        .chain([node(7, NodeState::Expected), Record::Topic(TOPIC, Some(Str::from("t")))])
        .chain([Record::Partition(id, partition)]);
    for record in records {
        image.apply(record).unwrap();
    }
    image
}

fn ask(image: &Image, asked: Option<&[i32]>, keeps_factor: bool) -> (ErrorCode, String) {
    let partition =
        ReassignablePartition { partition_index: 0, replicas: asked.map(<[i32]>::to_vec) };
    let request = AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: !keeps_factor,
        topics: vec![ReassignableTopic { name: Str::from("t"), partitions: vec![partition] }],
        ..AlterPartitionReassignmentsRequest::default()
    };
    let (records, reply) = decide(image, request);
    let Reply::AlterReassignments(response) = reply else { panic!("{reply:?}") };
    let result = &response.responses[0].partitions[0];
    assert!(result.error_code.is_none() || records.is_empty());
    let message = result.error_message.as_ref().map(|text| text.to_string());
    (result.error_code, message.unwrap_or_default())
}

#[test]
fn kafkas_refusals() {
    let image = image(Partition::new(replicas(&[1, 2])));
    let invalid = ErrorCode::INVALID_REPLICA_ASSIGNMENT;
    for (asked, keeps_factor, error) in [
        (None, false, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS),
        (Some(&[][..]), false, invalid),
        (Some(&[1, 1]), false, invalid),
        (Some(&[1, 99]), false, invalid),
        (Some(&[1, -1]), false, invalid),
        (Some(&[1, 7]), false, invalid),
        (Some(&[1]), true, ErrorCode::INVALID_REPLICATION_FACTOR),
        (Some(&[1]), false, ErrorCode::NONE),
        (Some(&[2, 3]), true, ErrorCode::NONE),
        (Some(&[1, 2]), true, ErrorCode::NONE),
    ] {
        assert_eq!(ask(&image, asked, keeps_factor).0, error, "{asked:?}");
    }
    let (_, message) = ask(&image, Some(&[1]), true);
    assert_eq!(message, "The replication factor is changed from 2 to 1");
}

#[test]
fn nothing_moves_to_a_node_that_is_being_removed() {
    let mut image = image(Partition::new(replicas(&[1, 2])));
    for id in [2, 3] {
        image.apply(node(id, NodeState::Removing)).unwrap();
    }
    let (error, message) = ask(&image, Some(&[1, 3]), true);
    assert_eq!(error, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    assert!(message.contains("broker 3, which is being removed"), "{message}");
    for asked in [&[2, 1][..], &[1, 4]] {
        assert_eq!(ask(&image, Some(asked), true).0, ErrorCode::NONE, "{asked:?}");
    }
}

#[test]
fn a_wiped_disk_is_not_what_is_meant_by_its_node() {
    let gone = Replica { node_id: 2, disk_id: Uuid(5) };
    let partition = Partition::new(vec![replica(1), gone]);
    let image = image(partition.clone());
    assert_eq!(on_disks(&image, &partition, &[2, 1]), replicas(&[2, 1]));
    let healed = begin(&partition, replicas(&[1, 2])).unwrap();
    assert_eq!(healed.removing, [gone]);
    assert_eq!(healed.node_ids(), [1, 2]);
}

#[derive(Clone, Debug)]
enum Step {
    Begin(Vec<i32>),
    Cancel,
    /// By a leader of this epoch, of this many decisions ago.
    Lead(i32, i32),
    Complete(i32, i32),
}

fn step() -> impl Strategy<Value = Step> {
    let target = prop::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 1..=4).prop_shuffle();
    prop_oneof![
        2 => target.prop_map(Step::Begin),
        1 => Just(Step::Cancel),
        2 => (0..6, 0..2).prop_map(|(epoch, late)| Step::Lead(epoch, late)),
        2 => (0..6, 0..2).prop_map(|(epoch, late)| Step::Complete(epoch, late)),
    ]
}

proptest! {
    /// Whatever is decided, and in which order: the record holds together, says what a cancel goes
    /// back to, and can be completed.
    #[test]
    fn any_decisions_leave_a_record_that_can_be_completed(
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut partition = Partition::new(replicas(&[1, 2, 3]));
        // All that may be members by what was decided and not completed since.
        let mut members: BTreeSet<Replica> = partition.replicas.iter().copied().collect();
        let mut settled = partition.replicas.clone();
        for step in steps {
            let old = partition.clone();
            match step {
                Step::Begin(target) => {
                    if let Some(next) = begin(&partition, replicas(&target)) {
                        partition = next;
                    }
                    prop_assert_eq!(
                        nodes(&partition.target().copied().collect::<Vec<_>>()), target
                    );
                }
                Step::Cancel => match cancel(&partition) {
                    Ok(Some(next)) => {
                        partition = next;
                        prop_assert!(partition.target().eq(&settled));
                    }
                    Ok(None) => prop_assert!(partition.target().eq(&settled)),
                    Err(NotChanging) => prop_assert!(!partition.is_changing()),
                },
                Step::Lead(epoch, late) => {
                    let report = Report { changes: old.changes - late, ..report(&old, epoch) };
                    if let Ok(Some(next)) = lead(&partition, &report) {
                        prop_assert!(late == 0 && next.is_changing());
                        partition = next;
                    }
                }
                Step::Complete(epoch, late) => {
                    let report = Report { changes: old.changes - late, ..report(&old, epoch) };
                    let target: Vec<_> = partition.target().copied().collect();
                    if let Ok(next) = complete(&partition, &report, &target) {
                        prop_assert!(late == 0 && epoch == old.leader_epoch);
                        prop_assert!(!next.is_changing());
                        members = next.replicas.iter().copied().collect();
                        partition = next;
                    }
                }
            }
            members.extend(&partition.replicas);
            if !partition.is_changing() {
                settled = partition.replicas.clone();
            }
            let named: BTreeSet<Replica> = partition.replicas.iter().copied().collect();
            prop_assert_eq!(&named, &members, "who may be a member is named, and nobody else");
            prop_assert!(partition.leader_epoch >= old.leader_epoch);
            prop_assert_eq!(nodes(partition.founders()).len(), 3);
            // The image takes it, and it can be done.
            image(partition.clone());
            if partition.is_changing() {
                let led = Partition { leader_epoch: 0, ..partition.clone() };
                let after = done(&led);
                prop_assert!(!after.is_changing());
            }
        }
    }
}
