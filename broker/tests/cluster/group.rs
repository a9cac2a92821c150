//! Members of a group that read a topic together, and know what was committed: nobody is told an
//! older offset than one that was acknowledged, nobody skips, and at one offset there is one value.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vltava_client::blocking::Link;
use vltava_client::error::ClientError;
use vltava_client::group::{GroupEvent, GroupOptions, GroupRequest, GroupResponse, Membership};
use vltava_client::metadata::{Metadata, TopicPartition};
use vltava_client::offsets;
use vltava_client::records::{for_each_record, next_offset};
use vltava_protocol::compression::Decompressor;
use vltava_protocol::messages::fetch::FetchRequest;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::messages::join_group::JoinGroupRequest;
use vltava_protocol::messages::leave_group::LeaveGroupRequest;
use vltava_protocol::messages::offset_commit::OffsetCommitRequest;
use vltava_protocol::messages::offset_fetch::OffsetFetchRequest;
use vltava_protocol::messages::sync_group::SyncGroupRequest;
use vltava_protocol::types::Str;

use crate::support::wire::{self, FETCH_VERSION};
use crate::view::{connect, metadata_of_any};

/// Before these versions a topic is told by its name.
const COMMIT_VERSION: i16 = 8;
const COMMITTED_VERSION: i16 = 7;
/// Of FindCoordinator, with one key.
const FIND_VERSION: i16 = 2;
const FETCH_WAIT_MS: i32 = 50;
/// As short as the broker allows.
const SESSION_MS: i32 = 6000;
/// Longer than a member may be busy with others than its coordinator.
const REBALANCE_MS: i32 = 20_000;
const HEARTBEAT_MS: u64 = 300;
/// Members wait for each other in a join.
const JOIN_TIME: Duration = Duration::from_secs(25);

/// What is known of one partition.
#[derive(Default)]
struct Known {
    /// The highest offset whose commit was acknowledged.
    acknowledged: Option<i64>,
    /// The highest that was sent.
    sent: Option<i64>,
    /// Hashes of values.
    read: BTreeMap<i64, u64>,
}

/// What all members know together.
pub struct Group {
    pub name: String,
    topic: Str,
    partitions: Vec<Mutex<Known>>,
    pub stop: AtomicBool,
}

fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Group {
    pub fn new(name: &str, topic: &str, partitions: i32) -> Self {
        Self {
            name: name.to_owned(),
            topic: Str::from(topic),
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            stop: AtomicBool::default(),
        }
    }

    fn with<T>(&self, partition: i32, act: impl FnOnce(&mut Known) -> T) -> T {
        let known = &self.partitions[partition as usize];
        act(&mut known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far each partition is committed.
    pub fn committed(&self) -> Vec<i64> {
        let committed = |partition| self.with(partition, |it| it.acknowledged.unwrap_or(0));
        (0..self.partitions.len() as i32).map(committed).collect()
    }

    /// The hashes of what was read of a partition, by offset.
    pub fn read(&self, partition: i32) -> BTreeMap<i64, u64> {
        self.with(partition, |it| it.read.clone())
    }

    /// What is wrong with what the members have read, as a partition's log holds it at the end.
    pub fn findings(&self, partition: i32, log: &[(i64, Vec<u8>)]) -> Vec<String> {
        let read = self.read(partition);
        let log: BTreeMap<i64, u64> = log.iter().map(|(at, value)| (*at, hash(value))).collect();
        let differs = read.iter().find(|(at, value)| log.get(at) != Some(value));
        let skipped = log.keys().find(|at| !read.contains_key(at));
        let name = &self.name;
        let differs = differs
            .map(|(at, _)| format!("group {name}, {partition}: another value was read at {at}"));
        let skipped = skipped.map(|at| format!("group {name}, {partition}: {at} was never read"));
        differs.into_iter().chain(skipped).collect()
    }
}

/// One member, which runs in a thread of its own.
struct Member<'a> {
    group: &'a Group,
    addresses: Vec<SocketAddr>,
    membership: Membership,
    began: Instant,
    metadata: Metadata,
    coordinator: Option<Link>,
    leaders: BTreeMap<i32, Link>,
    /// Where it is in what it has; `None` where it has not asked yet.
    positions: BTreeMap<i32, Option<i64>>,
    committed: BTreeMap<i32, i64>,
    decompressor: Decompressor,
}

/// Reads and commits until the group is told to stop, and leaves.
pub fn run(group: &Group, addresses: &[SocketAddr]) {
    let mut options = GroupOptions::new(Str::from(group.name.as_str()), vec![group.topic.clone()]);
    options.session_timeout_ms = SESSION_MS;
    options.rebalance_timeout_ms = REBALANCE_MS;
    options.heartbeat_interval_ms = HEARTBEAT_MS;
    let mut member = Member {
        group,
        addresses: addresses.to_vec(),
        membership: Membership::new(options),
        began: Instant::now(),
        metadata: Metadata::default(),
        coordinator: None,
        leaders: BTreeMap::new(),
        positions: BTreeMap::new(),
        committed: BTreeMap::new(),
        decompressor: Decompressor::new(),
    };
    while !group.stop.load(Ordering::Acquire) {
        member.turn();
        thread::sleep(Duration::from_millis(5));
    }
    member.leave();
}

impl Member<'_> {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn turn(&mut self) {
        if self.metadata.topics.is_empty() {
            self.look_around();
        }
        if self.coordinator.is_none() {
            self.coordinator = self.find();
        }
        if let Err(error) = self.belong() {
            assert!(error.is_retriable(), "group {}: {error:?}", self.group.name);
            let now = self.now_ms();
            let events = self.membership.on_disconnect(now);
            self.take(events);
        }
        let assigned: Vec<(i32, Option<i64>)> =
            self.positions.iter().map(|(at, position)| (*at, *position)).collect();
        for (partition, position) in assigned {
            let position = position.or_else(|| self.ask_where(partition));
            self.positions.insert(partition, position);
            if let Some(position) = position
                && self.read(partition, position).is_err()
            {
                self.leaders.clear();
                self.look_around();
            }
        }
        self.commit();
    }

    /// Asks the next node who leads.
    fn look_around(&mut self) {
        self.addresses.rotate_left(1);
        if let Some(metadata) = metadata_of_any(&self.addresses[..1]) {
            self.metadata = metadata;
        }
    }

    fn find(&mut self) -> Option<Link> {
        self.addresses.rotate_left(1);
        let mut link = connect(self.addresses[0]).ok()?;
        let key = Str::from(self.group.name.as_str());
        let request = FindCoordinatorRequest { key, ..FindCoordinatorRequest::default() };
        link.send_at(&request, FIND_VERSION).ok()?;
        let answer = link.receive::<FindCoordinatorRequest>().ok()?;
        let error = answer.error_code;
        assert!(error.is_none() || error.is_retriable(), "FindCoordinator: {error:?}");
        if !error.is_none() {
            return None;
        }
        let address = format!("{}:{}", answer.host, answer.port).parse().ok()?;
        let mut link = connect(address).ok()?;
        link.answer_within(JOIN_TIME).ok()?;
        Some(link)
    }

    /// Says to the coordinator what there is to say.
    fn belong(&mut self) -> Result<(), ClientError> {
        while let Some(link) = &mut self.coordinator {
            let now = self.began.elapsed().as_millis() as u64;
            let request = self.membership.take_request(now).expect("a request");
            let response = match request {
                None => return Ok(()),
                Some(GroupRequest::Join(it)) => {
                    GroupResponse::Join(link.call::<JoinGroupRequest>(&it)?)
                }
                Some(GroupRequest::Sync(it)) => {
                    GroupResponse::Sync(link.call::<SyncGroupRequest>(&it)?)
                }
                Some(GroupRequest::Heartbeat(it)) => {
                    GroupResponse::Heartbeat(link.call::<HeartbeatRequest>(&it)?)
                }
            };
            let now = self.now_ms();
            let events = self.membership.on_response(now, response, &self.metadata);
            self.take(events.expect("an assignment"));
        }
        Ok(())
    }

    fn take(&mut self, events: Vec<GroupEvent>) {
        for event in events {
            match event {
                GroupEvent::Assigned(partitions) => {
                    self.positions = partitions.iter().map(|at| (at.partition, None)).collect();
                    self.committed.clear();
                }
                // It may still commit, and a moment later it asks anew.
                GroupEvent::Revoked | GroupEvent::Lost => self.positions.clear(),
                GroupEvent::CoordinatorMoved => self.coordinator = None,
                GroupEvent::Refused(error) => panic!("group {}: {error:?}", self.group.name),
            }
        }
    }

    fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.group.topic.clone(), partition }
    }

    /// Where the group is in a partition, as its coordinator says.
    fn ask_where(&mut self, partition: i32) -> Option<i64> {
        let at = self.partition(partition);
        let name = Str::from(self.group.name.as_str());
        let asked = std::slice::from_ref(&at);
        let request =
            offsets::fetch_committed(COMMITTED_VERSION, &name, Some(asked), &self.metadata);
        let floor = self.group.with(partition, |it| it.acknowledged);
        let link = self.coordinator.as_mut()?;
        let answer = link
            .send_at(&request, COMMITTED_VERSION)
            .and_then(|()| link.receive::<OffsetFetchRequest>());
        let Ok(answer) = answer else {
            self.coordinator = None;
            return None;
        };
        let found = match offsets::committed(answer, &self.metadata) {
            Ok(found) => found.get(&at).copied(),
            Err(error) => {
                assert!(error.is_retriable(), "OffsetFetch: {error:?}");
                self.coordinator = None;
                return None;
            }
        };
        let ceiling = self.group.with(partition, |it| it.sent);
        assert!(
            floor <= found && found <= ceiling,
            "group {}, partition {partition}: told {found:?} as its offset, of which {floor:?} was \
             acknowledged, and {ceiling:?} sent",
            self.group.name
        );
        self.committed.insert(partition, found.unwrap_or(0));
        Some(found.unwrap_or(0))
    }

    fn read(&mut self, partition: i32, position: i64) -> Result<(), ClientError> {
        let leader = self.metadata.leader(&self.partition(partition)).map(|(leader, _)| leader);
        let broker = leader.and_then(|leader| self.metadata.brokers.get(&leader));
        let (Some(leader), Some(broker)) = (leader, broker) else {
            self.look_around();
            return Ok(());
        };
        let link = match self.leaders.entry(leader) {
            Entry::Occupied(link) => link.into_mut(),
            Entry::Vacant(place) => {
                let address = format!("{}:{}", broker.host, broker.port);
                place.insert(connect(address.parse().expect("an address"))?)
            }
        };
        let mut request = wire::fetch_request(&self.group.topic, partition, position);
        request.max_wait_ms = FETCH_WAIT_MS;
        link.send_at(&request, FETCH_VERSION)?;
        let mut answer = link.receive::<FetchRequest>()?;
        let data = answer.responses.remove(0).partitions.remove(0);
        if data.error_code.is_retriable() {
            self.look_around();
            return Ok(());
        }
        let name = &self.group.name;
        let error = data.error_code;
        assert!(error.is_none(), "group {name}, {partition} from {position}: {error:?}");
        let bytes = data.records.and_then(|records| records.to_bytes()).unwrap_or_default();
        let Some(next) = next_offset(&bytes) else { return Ok(()) };
        let mut expected = position;
        let group = self.group;
        let read = for_each_record(&bytes, position, &mut self.decompressor, |record| {
            let (offset, value) = (record.offset, hash(record.value.unwrap_or_default()));
            assert_eq!(offset, expected, "group {name}, {partition}: a read that skips");
            let before = group.with(partition, |it| it.read.insert(offset, value));
            assert!(
                before.is_none_or(|before| before == value),
                "group {name}, {partition}: two values at {offset}"
            );
            expected += 1;
            ControlFlow::Continue(())
        });
        let _to_the_end = read.expect("records that can be read");
        self.positions.insert(partition, Some(next));
        Ok(())
    }

    fn commit(&mut self) {
        let mut moved = Vec::new();
        for (partition, position) in &self.positions {
            if let Some(position) = position
                && self.committed.get(partition) != Some(position)
            {
                moved.push((self.partition(*partition), *position));
            }
        }
        let Some(link) = self.coordinator.as_mut().filter(|_| !moved.is_empty()) else { return };
        let request = offsets::commit(
            &self.membership.options().group,
            self.membership.generation(),
            self.membership.member_id(),
            None,
            &moved,
            &self.metadata,
        );
        let mut floors = BTreeMap::new();
        for (at, position) in &moved {
            let floor = self.group.with(at.partition, |it| {
                it.sent = it.sent.max(Some(*position));
                it.acknowledged
            });
            floors.insert(at.partition, floor);
        }
        let answer = link
            .send_at(&request, COMMIT_VERSION)
            .and_then(|()| link.receive::<OffsetCommitRequest>());
        let Ok(answer) = answer else {
            let now = self.now_ms();
            let events = self.membership.on_disconnect(now);
            return self.take(events);
        };
        for taken in &answer.topics[0].partitions {
            let partition = taken.partition_index;
            let error = taken.error_code;
            let (_, position) =
                moved.iter().find(|(at, _)| at.partition == partition).expect("it was sent");
            if error.is_none() {
                self.acknowledge(partition, *position, floors[&partition]);
            } else {
                let now = self.now_ms();
                let events = self.membership.on_commit_error(now, error);
                return self.take(events);
            }
        }
    }

    fn acknowledge(&mut self, partition: i32, position: i64, floor: Option<i64>) {
        assert!(
            Some(position) >= floor,
            "group {}, {partition}: a commit of {position} was taken after one of {floor:?}",
            self.group.name
        );
        self.committed.insert(partition, position);
        self.group.with(partition, |it| it.acknowledged = it.acknowledged.max(Some(position)));
    }

    fn leave(&mut self) {
        if let Some(link) = &mut self.coordinator
            && let Ok(version) = link.version::<LeaveGroupRequest>()
            && let Some(request) = self.membership.leave(version)
        {
            // Its session ends by itself where nobody hears this.
            drop(link.call(&request));
        }
    }
}
