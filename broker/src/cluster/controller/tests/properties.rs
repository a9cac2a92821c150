//! Whatever is asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Names that meet each other often.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]", Just("a.b".to_string()), Just("a_b".to_string()), "[./x]{0,3}"]
}

fn setting() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("size"), Just("policy"), Just("x")]
}

fn value() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop_oneof![Just("1"), Just("a,b"), Just("")])
}

fn nodes() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(0..4, 0..3)
}

fn create() -> impl Strategy<Value = Input> {
    let new_topic = (
        name(),
        -2..4,
        -2..4_i16,
        prop::collection::vec((-1..3, nodes()), 0..3),
        prop::collection::vec((setting(), value()), 0..3),
    )
        .prop_map(|(name, partitions, replication, assigned, settings)| {
            let assigned: Vec<(i32, &[i32])> =
                assigned.iter().map(|(index, nodes)| (*index, nodes.as_slice())).collect();
            let topic = topic(&name, partitions, replication);
            with_settings(with_assignments(topic, &assigned), &settings)
        });
    (prop::collection::vec(new_topic, 0..4), any::<bool>(), 0..50_u128).prop_map(
        |(topics, validate_only, random)| Input::CreateTopics {
            request: CreateTopicsRequest { topics, validate_only, ..Default::default() },
            random,
        },
    )
}

fn delete() -> impl Strategy<Value = Input> {
    prop::collection::vec((prop::option::of(name()), 0..2_u128), 0..3).prop_map(|all| {
        let state = |(name, id): (Option<String>, u128)| DeleteTopicState {
            name: name.map(Str::from),
            topic_id: Uuid(id),
        };
        let topics = all.into_iter().map(state).collect();
        Input::DeleteTopics(DeleteTopicsRequest { topics, ..Default::default() })
    })
}

fn grow() -> impl Strategy<Value = Input> {
    (name(), -1..6, prop::option::of(prop::collection::vec(nodes(), 0..3))).prop_map(
        |(name, count, assigned)| {
            let assigned: Option<Vec<&[i32]>> =
                assigned.as_ref().map(|all| all.iter().map(Vec::as_slice).collect());
            let topics = vec![growth(&name, count, assigned.as_deref())];
            Input::CreatePartitions(CreatePartitionsRequest { topics, ..Default::default() })
        },
    )
}

fn alter() -> impl Strategy<Value = Input> {
    let change = (setting(), -1..5_i8, value());
    let kind = prop_oneof![4 => Just(TOPIC_RESOURCE), 1 => any::<i8>()];
    (kind, name(), prop::collection::vec(change, 0..3), any::<bool>()).prop_map(
        |(kind, name, changes, is_incremental)| {
            let resources = vec![resource(kind, &name, &changes)];
            Input::AlterSettings(Alteration { is_incremental, ..incremental(resources) })
        },
    )
}

/// Inputs as they may come.
fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => create(),
        2 => delete(),
        2 => grow(),
        3 => alter(),
        1 => Just(Input::AllocateProducerIds),
        1 => ((-1..4), (0..3_i16), (0..5_i16)).prop_map(|(id, min, max)| {
            let levels = Levels { min, max };
            Input::RegisterNode(Registration { levels, ..registration(id) })
        }),
        1 => (any::<bool>(), 0..5_i16, 0..4_i8).prop_map(|(validate_only, level, kind)| {
            Input::UpdateFeatures(features::request(validate_only, level, kind))
        }),
        1 => Just(Input::Form { cluster_id: Uuid(10), level: 1 }),
    ]
}

proptest! {
    /// Whatever is asked: no panic, every decision can be replayed, names and ids stay unique, and
    /// the state can be written down and read again, in pieces of any size.
    #[test]
    fn any_inputs_leave_a_state_that_can_be_kept(
        inputs in prop::collection::vec(input(), 0..60),
        formed in any::<bool>(),
        piece in 1..9_usize,
    ) {
        let mut cluster = if formed { Cluster::of(2) } else { Cluster::empty() };
        for input in inputs {
            cluster.ask(input);
        }
        let image = cluster.state.image();
        let ids: BTreeSet<Uuid> = image.topics().map(|topic| topic.id).collect();
        prop_assert_eq!(ids.len(), image.topic_count());
        for topic in image.topics() {
            prop_assert!(Arc::ptr_eq(image.topic_by_id(topic.id).unwrap(), topic));
            prop_assert!(topic.partition_count() > 0);
        }
        let mut again = State::default();
        let mut after = None;
        for pieces in 0.. {
            assert!(pieces < 1000, "a snapshot without an end");
            let records = cluster.controller.snapshot(&cluster.state, after.as_ref(), piece);
            let Some(last) = records.last() else { break };
            after = Some(last.key.clone());
            for record in &records {
                cluster.controller.replay(&mut again, record, 0, 0).unwrap();
            }
        }
        prop_assert!(again == cluster.state);
    }
}
