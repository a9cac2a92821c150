//! Whatever clients do, in whatever order, and whenever leadership goes: what the room promises
//! holds after every step (`World::check`), everybody is answered in the end, and the log gives the
//! state.

use proptest::prelude::*;
use vltava_protocol::types::Uuid;

use super::*;

/// What a client, an administrator, time or fate does. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Join { group: u8, client: u8, instance: Option<u8>, version: i16, metadata: u8 },
    Rejoin { who: u8, metadata: u8 },
    Sync { who: u8, old: bool },
    Beat { who: u8 },
    Leave { who: u8 },
    Commit { who: u8, topic: u8, partition: i32 },
    CommitAlone { group: u8, topic: u8, retention_ms: i64 },
    DeleteGroup { group: u8 },
    DeleteTopic { topic: u8 },
    Tick { ms: u64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let small = || 0_u8..3;
    let instance = prop::option::of(small());
    let join = (small(), any::<u8>(), instance, 0_i16..10, 0_u8..4).prop_map(
        |(group, client, instance, version, metadata)| Step::Join {
            group,
            client,
            instance,
            version,
            metadata,
        },
    );
    let rejoin = (any::<u8>(), 0_u8..4).prop_map(|(who, metadata)| Step::Rejoin { who, metadata });
    let sync =
        (any::<u8>(), prop::bool::weighted(0.1)).prop_map(|(who, old)| Step::Sync { who, old });
    let commit = (any::<u8>(), small(), 0_i32..3)
        .prop_map(|(who, topic, partition)| Step::Commit { who, topic, partition });
    let retention_ms = prop_oneof![Just(-1_i64), 0_i64..100_000];
    let alone = (small(), small(), retention_ms)
        .prop_map(|(group, topic, retention_ms)| Step::CommitAlone { group, topic, retention_ms });
    let ms = prop_oneof![0_u64..100, 0_u64..15_000, 0_u64..700_000];
    prop_oneof![
        6 => join,
        6 => rejoin,
        8 => sync,
        6 => any::<u8>().prop_map(|who| Step::Beat { who }),
        2 => any::<u8>().prop_map(|who| Step::Leave { who }),
        4 => commit,
        2 => alone,
        1 => small().prop_map(|group| Step::DeleteGroup { group }),
        1 => small().prop_map(|topic| Step::DeleteTopic { topic }),
        8 => ms.prop_map(|ms| Step::Tick { ms }),
        1 => Just(Step::Restart),
    ]
}

/// A client that remembers what it was told.
#[derive(Clone, Debug)]
struct Known {
    ask: Ask,
    member: Str,
    generation: i32,
    waits: Option<Ticket>,
}

struct Crowd {
    world: World,
    known: Vec<Known>,
    /// By group: the generations that were announced, with the protocol and leader of each.
    generations: BTreeMap<(Str, i32), (Option<Str>, Str)>,
}

fn name(prefix: &str, number: u8) -> Str {
    Str::from(format!("{prefix}{number}"))
}

fn metadata(ask: Ask, choice: u8) -> Ask {
    let sticky = Bytes::from_static(b"unreadable");
    match choice {
        0 => ask.reads(&["t0", "t1"]),
        1 => ask.speaks(&[("range", subscription(&["t2"])), ("sticky", sticky)]),
        2 => ask.speaks(&[("sticky", sticky), ("range", subscription(&["t0"]))]),
        _ => ask.speaks(&[("sticky", sticky)]),
    }
}

/// The rebalance timeout of all members, in ms: as long as a join or a sync may wait.
const WAIT_MS_MAX: i32 = 30_000;

impl Crowd {
    fn new() -> Self {
        let world = World::with(|options| {
            options.group_members_max = 4;
            options.offsets_retention_ms = 1_000_000;
        });
        Self { world, known: Vec::new(), generations: BTreeMap::new() }
    }

    /// A member waits for the others, at most, as long as one rebalance may take.
    fn check_waits_end(&self) {
        let now_ms = self.world.now.monotonic_ms;
        for ticket in self.world.session.groups().values().flat_map(|group| {
            let members = group.members.values();
            members.flat_map(|member| {
                member.join.map(|join| join.ticket).into_iter().chain(member.sync)
            })
        }) {
            let asked_ms = self.world.asked_ms[&ticket];
            assert!(
                now_ms - asked_ms <= u64::from(WAIT_MS_MAX.unsigned_abs()),
                "{ticket:?} waits since {asked_ms}, now {now_ms}"
            );
        }
    }

    fn who(&self, who: u8) -> Option<usize> {
        (!self.known.is_empty()).then(|| usize::from(who) % self.known.len())
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Join { group, client, instance, version, metadata: choice } => {
                let client: &'static str = ["a", "b", "c", "d"][usize::from(client) % 4];
                let mut ask = metadata(ask(client), choice).version(version);
                ask.request.group_id = name("g", group);
                ask.request.group_instance_id = instance.map(|instance| name("i", instance));
                ask.request.rebalance_timeout_ms = WAIT_MS_MAX;
                let ticket = self.world.join(&ask);
                self.known.push(Known {
                    ask,
                    member: Str::EMPTY,
                    generation: -1,
                    waits: Some(ticket),
                });
                if self.known.len() > 8 {
                    self.known.remove(0);
                }
            }
            Step::Rejoin { who, metadata: choice } => {
                let Some(index) = self.who(who) else { return };
                let known = self.known[index].clone();
                let ask = metadata(known.ask, choice).member(&known.member);
                self.known[index].waits = Some(self.world.join(&ask));
            }
            Step::Sync { who, old } => {
                let Some(index) = self.who(who) else { return };
                let known = self.known[index].clone();
                let gives: Vec<(Str, String)> = self
                    .known
                    .iter()
                    .map(|known| (known.member.clone(), format!("for {:?}", known.member)))
                    .collect();
                let gives: Vec<(&Str, &str)> =
                    gives.iter().map(|(member, what)| (member, what.as_str())).collect();
                let generation = known.generation - i32::from(old);
                let mut request = sync_request(&known.member, generation, &gives);
                request.group_id = known.ask.request.group_id;
                request.protocol_name = None;
                request.protocol_type = None;
                let ticket = self.world.submit(Input::SyncGroup { request, api_version: 3 });
                self.known[index].waits = Some(ticket);
            }
            Step::Beat { who } => {
                let Some(index) = self.who(who) else { return };
                let known = self.known[index].clone();
                self.world.beat_with(HeartbeatRequest {
                    group_id: known.ask.request.group_id,
                    generation_id: known.generation,
                    member_id: known.member,
                    group_instance_id: known.ask.request.group_instance_id,
                });
            }
            Step::Leave { who } => {
                let Some(index) = self.who(who) else { return };
                let known = self.known.remove(index);
                let request = LeaveGroupRequest {
                    group_id: known.ask.request.group_id,
                    members: vec![identity(&known.member)],
                    ..LeaveGroupRequest::default()
                };
                self.world.leave_with(request, 5);
            }
            Step::Commit { who, topic, partition } => {
                let Some(index) = self.who(who) else { return };
                let known = self.known[index].clone();
                let group = known.ask.request.group_id;
                let topic = name("t", topic);
                let mut request =
                    commit_request(&group, &known.member, known.generation, &topic, 1);
                request.topics[0].partitions[0].partition_index = partition;
                self.world.commit_with(&request, 8);
            }
            Step::CommitAlone { group, topic, retention_ms } => {
                let topic = name("t", topic);
                let mut request = commit_request(&name("g", group), &Str::EMPTY, -1, &topic, 2);
                request.retention_time_ms = retention_ms;
                request.topics[0].topic_id = Uuid(u128::from(group));
                self.world.commit_with(&request, 4);
            }
            Step::DeleteGroup { group } => {
                let group_id = name("g", group);
                self.world.submit(Input::DeleteGroup { group_id });
            }
            Step::DeleteTopic { topic } => {
                let input = Input::TopicDeleted { name: name("t", topic), id: Uuid(1) };
                self.world.submit(input);
            }
            Step::Tick { ms } => self.world.tick(ms),
            Step::Restart => {
                self.world.restart();
                for known in &mut self.known {
                    known.waits = None;
                }
                // A generation that was lost before it was stable may be announced again.
                self.generations.clear();
            }
        }
    }

    fn forget_deleted(&mut self) {
        // A group that was deleted counts from the beginning again.
        let world = &self.world;
        let exists = |group: &Str| {
            world.state.group(group).is_some() || world.session.group(group).is_some()
        };
        self.generations.retain(|(group, _), _| exists(group));
    }

    /// Clients read what they were told.
    fn listen(&mut self) {
        self.forget_deleted();
        for known in &mut self.known {
            let Some(ticket) = known.waits.filter(|ticket| !self.world.is_open(*ticket)) else {
                continue;
            };
            known.waits = None;
            match self.world.replies.remove(&ticket) {
                Some(Reply::JoinGroup(response)) => {
                    if response.error_code == ErrorCode::UNKNOWN_MEMBER_ID {
                        known.member = Str::EMPTY;
                    } else if !response.member_id.is_empty() {
                        known.member = response.member_id.clone();
                    }
                    if response.error_code.is_none() {
                        known.generation = response.generation_id;
                        let group = known.ask.request.group_id.clone();
                        let told = (response.protocol_name, response.leader);
                        let key = (group, response.generation_id);
                        let first = self.generations.entry(key).or_insert_with(|| told.clone());
                        // A static leader that was replaced has another id now.
                        assert_eq!(first.0, told.0, "a generation speaks one protocol");
                    }
                }
                Some(Reply::SyncGroup(response)) => {
                    let assignment = String::from_utf8_lossy(&response.assignment);
                    let own = format!("for {:?}", known.member);
                    let is_static = known.ask.request.group_instance_id.is_some();
                    assert!(
                        assignment.is_empty() || is_static || assignment == own,
                        "{own} got {assignment}"
                    );
                }
                _ => {}
            }
        }
        self.forget_deleted();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_crowd_never_breaks_what_is_promised(
        steps in prop::collection::vec(step(), 1..120),
        records_max in 1_usize..50,
    ) {
        let mut crowd = Crowd::new();
        for step in steps {
            crowd.act(step);
            crowd.listen();
            crowd.check_waits_end();
            let world = &crowd.world;
            prop_assert_eq!(&replayed(&world.machine, &world.log), &world.state);
            let rewritten = snapshot(&world.machine, &world.state, records_max);
            prop_assert_eq!(&replayed(&world.machine, &rewritten), &world.state);
        }
        // When nobody does anything any more, all wait ends, groups empty, and offsets expire.
        crowd.world.tick(10_000_000);
        prop_assert!(crowd.world.open.is_empty());
        prop_assert_eq!(crowd.world.session.groups().len(), 0);
        prop_assert_eq!(crowd.world.state.group_count(), 0);
        prop_assert_eq!(crowd.world.state.bytes(), 0);
        prop_assert_eq!(crowd.world.session.bytes(), 0);
    }

    #[test]
    fn no_record_makes_replay_panic(
        records in prop::collection::vec(
            (prop_oneof![Just(0_u8), Just(1), Just(2), Just(3), any::<u8>()],
             prop::collection::vec(any::<u8>(), 0..40),
             prop::option::of((0_u8..6, prop::collection::vec(any::<u8>(), 0..80)))),
            1..40,
        ),
    ) {
        let machine = GroupMachine::new(Options::default(), &Memory::default());
        let mut state = State::default();
        for (kind, key, value) in records {
            let key: Vec<u8> = [0, kind].into_iter().chain(key).collect();
            let value = value.map(|(version, rest)| {
                let bytes: Vec<u8> = [0, version].into_iter().chain(rest).collect();
                Bytes::from(bytes)
            });
            let record = KeyValue { key: Bytes::from(key), value };
            let before = state.clone();
            if machine.replay(&mut state, &record, 0, 0).is_err() {
                prop_assert_eq!(&before, &state, "what cannot be read changes nothing");
            }
        }
        let rewritten = snapshot(&machine, &state, 7);
        prop_assert_eq!(replayed(&machine, &rewritten), state.clone());
        machine.lead(&state, &mut Session::default(), Now::default());
    }
}
