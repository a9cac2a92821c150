//! Fetches of one client from one topic, each for itself or in a session; all that comes is
//! checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use vltava::runtime::sim::MILLION;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic, PartitionData,
};
use vltava_protocol::types::{Str, Uuid};

use super::lookup::list_start;
use super::records::{self, Taken};
use super::session::{Asked, Session};
use super::{Topic, Workload, route};
use crate::checkers::{Partition, RecordId, Viewer, violation};
use crate::client::{CallError, Client, Leader};
use crate::promise;

/// Fetch names topics by id from this version on.
const BY_ID: i16 = 13;
/// Fetch knows sessions from this version on.
const SESSIONS: i16 = 7;
/// Fetch names the leader's epoch from this version on.
const LEADER_EPOCHS: i16 = 9;
/// Followers answer Fetch from this version on.
const FOLLOWERS: i16 = 11;
/// The epoch of a fetch that wants no session.
const NO_SESSION: i32 = -1;

/// What one fetch gave for a partition.
pub struct Fetched {
    /// Which.
    pub partition: Partition,
    /// The records, with their offsets.
    pub records: Vec<(i64, RecordId)>,
    /// Where to read next.
    pub next: i64,
    /// What was committed, where that was told.
    pub high_watermark: Option<i64>,
}

/// What is known of a partition when a fetch is sent: the answer cannot be older.
#[derive(Clone, Copy)]
pub struct Floors {
    /// The highest high watermark that anybody was told.
    pub high_watermark: i64,
    /// The highest log start.
    pub log_start: i64,
}

/// What one fetch asks one node for.
struct Wanted {
    positions: BTreeMap<i32, i64>,
    /// Of the leaders; -1: none is named.
    epochs: BTreeMap<i32, i32>,
    floors: BTreeMap<i32, Floors>,
    /// Who asks there.
    viewer: Viewer,
}

/// Fetches from one topic.
pub struct Fetcher<'a> {
    workload: &'a Workload,
    topic: &'a Topic,
    has_sessions: bool,
    /// With each node, where it has any.
    sessions: BTreeMap<SocketAddr, Session>,
    /// Where partitions are read; `None`: where they are led.
    near: Option<BTreeMap<i32, Leader>>,
}

/// A partition, as checkers name it.
fn key(topic: &Topic, index: i32) -> Partition {
    (Rc::clone(&topic.key), index)
}

impl<'a> Fetcher<'a> {
    /// A client's fetches from a topic; half of them use sessions.
    pub fn new(workload: &'a Workload, client: &mut Client, topic: &'a Topic) -> Self {
        let has_sessions = client.random.chance(MILLION / 2);
        Self { workload, topic, has_sessions, sessions: BTreeMap::new(), near: None }
    }

    /// The same, from any replicas that are in sync, of which each is another viewer: a follower
    /// knows a moment later what is committed (KIP-392).
    pub fn near(workload: &'a Workload, client: &mut Client, topic: &'a Topic) -> Self {
        Self { near: Some(BTreeMap::new()), ..Self::new(workload, client, topic) }
    }

    /// Fetches from partitions at these positions, from each where it is led, or near. A position
    /// below the log's start is answered with that start, and no records; a partition without a
    /// leader with nothing.
    pub async fn fetch(
        &mut self,
        client: &mut Client,
        positions: &BTreeMap<i32, i64>,
    ) -> Result<Vec<Fetched>, CallError> {
        let mut fetched = Vec::new();
        for (address, epochs) in self.places(client, positions).await? {
            let here = positions.iter().filter(|(index, _)| epochs.contains_key(index));
            let here: BTreeMap<i32, i64> = here.map(|(index, at)| (*index, *at)).collect();
            let viewer = self.viewer(client, address);
            let floors = self.floors(&viewer, &here);
            let wanted = Wanted { positions: here, epochs, floors, viewer };
            let some = self.fetch_at(client, address, wanted).await;
            if some.is_err() {
                client.forget_leaders();
                self.near.iter_mut().for_each(BTreeMap::clear);
            }
            fetched.extend(some?);
        }
        Ok(fetched)
    }

    /// Where to fetch these partitions, with the epochs to name.
    async fn places(
        &mut self,
        client: &mut Client,
        positions: &BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<SocketAddr, BTreeMap<i32, i32>>, CallError> {
        let Some(near) = &mut self.near else {
            return route::by_leader(client, self.topic, positions.keys().copied()).await;
        };
        if positions.keys().any(|index| !near.contains_key(index)) {
            near.extend(route::some_replicas(client, self.topic).await?);
        }
        let mut places: BTreeMap<SocketAddr, BTreeMap<i32, i32>> = BTreeMap::new();
        for index in positions.keys() {
            if let Some(Leader { address, epoch }) = near.get(index) {
                places.entry(*address).or_default().insert(*index, *epoch);
            }
        }
        if places.is_empty() {
            client.leave_home();
        }
        Ok(places)
    }

    fn viewer(&self, client: &Client, address: SocketAddr) -> Viewer {
        match self.near {
            Some(_) => Some(Rc::from(format!("{} at {address}", client.name))),
            None => self.topic.viewer(client),
        }
    }

    async fn fetch_at(
        &mut self,
        client: &mut Client,
        address: SocketAddr,
        wanted: Wanted,
    ) -> Result<Vec<Fetched>, CallError> {
        let (_, mut least) = self.workload.swarm.least_versions();
        if self.has_sessions {
            least = least.max(SESSIONS);
            self.sessions.entry(address).or_default();
        }
        if wanted.epochs.values().any(|epoch| *epoch >= 0) {
            least = least.max(LEADER_EPOCHS);
        }
        if self.near.is_some() {
            least = least.max(FOLLOWERS);
        }
        let bytes_max = i32::try_from(client.random.mostly_small(1..=1 << 20)).unwrap_or(1);
        let limits = FetchRequest {
            max_wait_ms: i32::try_from(client.random.mostly_small(0..=2000)).unwrap_or(0),
            min_bytes: i32::try_from(client.random.mostly_small(0..=4096)).unwrap_or(0),
            max_bytes: bytes_max,
            ..FetchRequest::default()
        };
        let (topic, session) = (self.topic, &mut self.sessions.get_mut(&address));
        let (positions, epochs) = (&wanted.positions, &wanted.epochs);
        let make = |version| {
            let asked = match session {
                Some(session) => session.ask(positions, epochs, version >= BY_ID),
                None => Asked {
                    id: 0,
                    epoch: NO_SESSION,
                    named: positions.clone(),
                    forgotten: Vec::new(),
                },
            };
            request(topic, version, limits, &asked, epochs)
        };
        let answer = client.call_at(address, least, make).await;
        if let (Err(_), Some(session)) = (&answer, self.sessions.get_mut(&address)) {
            session.restart();
        }
        let answer = answer?;
        if !self.is_sound(client, address, &answer) {
            return Ok(Vec::new());
        }
        let (mut fetched, behind) = self.take_in(client, address, &wanted, &answer);
        for index in behind {
            fetched.extend(self.reset(client, index, wanted.positions[&index]).await?);
        }
        Ok(fetched)
    }

    fn floors(&self, viewer: &Viewer, positions: &BTreeMap<i32, i64>) -> BTreeMap<i32, Floors> {
        let offsets = self.workload.checkers.offsets.borrow();
        let starts = self.workload.checkers.starts.borrow();
        let floors = positions.keys().map(|&index| {
            let partition = key(self.topic, index);
            let high_watermark = offsets.floor(viewer, &partition);
            (index, Floors { high_watermark, log_start: starts.floor(viewer, &partition) })
        });
        floors.collect()
    }

    /// Whether the answer as a whole is not an error. The node may have forgotten a session, but
    /// never its epoch.
    fn is_sound(&mut self, client: &Client, address: SocketAddr, answer: &FetchResponse) -> bool {
        let error = answer.error_code;
        if error.is_none() {
            return true;
        }
        promise!(
            error.is_retriable() && error != ErrorCode::INVALID_FETCH_SESSION_EPOCH,
            "{}: Fetch: {}",
            client.name,
            error.name()
        );
        if let Some(session) = self.sessions.get_mut(&address) {
            session.restart();
        }
        false
    }

    /// Checks and takes what came. Gives also the partitions whose positions are behind their log.
    fn take_in(
        &mut self,
        client: &mut Client,
        address: SocketAddr,
        wanted: &Wanted,
        answer: &FetchResponse,
    ) -> (Vec<Fetched>, Vec<i32>) {
        let mut session = self.sessions.remove(&address);
        let mut missing = wanted.floors.clone();
        let (mut fetched, mut behind) = (Vec::new(), Vec::new());
        // A partition answered an error, or its leader does not know what is committed.
        let mut is_vague = false;
        for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let index = data.partition_index;
            if missing.remove(&index).is_none() {
                violation(format!("{}: partition {index} was not asked for", client.name))
            }
            let taken = self.take_partition(client, wanted, data);
            // What a new leader does not know it does not tell.
            let known = |told| if told == -1 { i64::MAX } else { told };
            let ends = (known(data.high_watermark), known(data.log_start_offset));
            // Also where what came with it had rotted.
            let told = data.error_code.is_none().then_some(ends);
            if let Some(session) = &mut session {
                session.tell(index, told);
            }
            match taken {
                Ok(taken) => {
                    // A log whose start is not known may serve nothing below a later one.
                    is_vague |= taken.high_watermark.is_none() || data.log_start_offset < 0;
                    fetched.push(taken);
                }
                Err(ErrorCode::OFFSET_OUT_OF_RANGE) => behind.push(index),
                Err(_) => {
                    is_vague = true;
                    client.forget_leader(&key(self.topic, index));
                    if let Some(near) = &mut self.near {
                        near.remove(&index);
                    }
                }
            }
        }
        for (&index, floors) in &missing {
            let partition = key(self.topic, index);
            match &session {
                Some(session) => {
                    session.check_left_out(&partition, floors);
                    is_vague |= session.was_told_nothing(index);
                }
                None => violation(format!("{}: nothing is said of {partition:?}", client.name)),
            }
        }
        if let Some(mut session) = session {
            session.answered(answer.session_id);
            self.sessions.insert(address, session);
        }
        if !is_vague && behind.is_empty() && fetched.iter().all(|f| f.records.is_empty()) {
            check_nothing(self.topic, wanted);
        }
        (fetched, behind)
    }

    fn take_partition(
        &self,
        client: &Client,
        wanted: &Wanted,
        data: &PartitionData,
    ) -> Result<Fetched, ErrorCode> {
        let partition = key(self.topic, data.partition_index);
        let position = wanted.positions[&data.partition_index];
        let floors = wanted.floors[&data.partition_index];
        let error = data.error_code;
        if !error.is_none() {
            promise!(
                error.is_retriable() || error == ErrorCode::OFFSET_OUT_OF_RANGE,
                "Fetch of {partition:?}@{position}: {}",
                error.name()
            );
            return Err(error);
        }
        let checkers = &self.workload.checkers;
        // A new leader may not know it, and says nothing then.
        let told = if data.high_watermark < 0 { i64::MAX } else { data.high_watermark };
        let is_known = data.high_watermark >= 0;
        promise!(
            is_known || client.only_broker().is_none(),
            "{partition:?}: no high watermark is told"
        );
        let mut offsets = checkers.offsets.borrow_mut();
        let viewer = &wanted.viewer;
        if is_known {
            offsets.check_high_watermark(viewer, &partition, floors.high_watermark, told);
        }
        drop(offsets);
        let mut starts = checkers.starts.borrow_mut();
        if data.log_start_offset >= 0 {
            // Old versions do not say.
            starts.check_told(viewer, &partition, floors.log_start, data.log_start_offset);
        }
        let bytes = data.records.as_ref().and_then(|records| records.to_bytes());
        let bytes = bytes.unwrap_or_default();
        if !bytes.is_empty() {
            starts.check_served(&partition, floors.log_start, position);
        }
        let may_be_damaged = checkers.rot.borrow().is_known(&self.topic.name, partition.1);
        let Taken { records, next, is_damaged } =
            records::take_in(checkers, &partition, position, told, may_be_damaged, &bytes);
        if is_damaged && records.is_empty() {
            return Err(ErrorCode::CORRUPT_MESSAGE);
        }
        Ok(Fetched { partition, records, next, high_watermark: is_known.then_some(told) })
    }

    /// Goes on at the log's start, which must lie above the position.
    async fn reset(
        &self,
        client: &mut Client,
        index: i32,
        position: i64,
    ) -> Result<Option<Fetched>, CallError> {
        let start = list_start(self.workload, client, self.topic, index).await?;
        let partition = key(self.topic, index);
        // Who leads may be another by now than the follower heard of, and not know it yet.
        let start = start.filter(|start| self.near.is_none() || *start > position);
        Ok(start.map(|start| {
            promise!(
                start > position,
                "{partition:?}@{position} is out of range, and the log starts at {start}"
            );
            Fetched { partition, records: Vec::new(), next: start, high_watermark: None }
        }))
    }
}

/// Nothing was served: so there is nothing, as far as was known.
fn check_nothing(topic: &Topic, wanted: &Wanted) {
    for (&index, &position) in &wanted.positions {
        let committed = wanted.floors[&index].high_watermark;
        promise!(
            position >= committed,
            "nothing is served, but {:?}@{position} is committed up to {committed}",
            key(topic, index)
        );
    }
}

fn request(
    topic: &Topic,
    version: i16,
    limits: FetchRequest,
    asked: &Asked,
    epochs: &BTreeMap<i32, i32>,
) -> FetchRequest {
    let partitions = asked.named.iter().map(|(&partition, &fetch_offset)| FetchPartition {
        partition,
        fetch_offset,
        current_leader_epoch: epochs.get(&partition).copied().unwrap_or(-1),
        partition_max_bytes: limits.max_bytes,
        ..FetchPartition::default()
    });
    let partitions: Vec<FetchPartition> = partitions.collect();
    let (name, id) = match version < BY_ID {
        true => (Str::from(&*topic.name), Uuid::ZERO),
        false => (Str::EMPTY, topic.id.get()),
    };
    let mut request = FetchRequest { session_id: asked.id, session_epoch: asked.epoch, ..limits };
    if !partitions.is_empty() {
        request.topics = vec![FetchTopic { topic: name.clone(), topic_id: id, partitions }];
    }
    if !asked.forgotten.is_empty() {
        let partitions = asked.forgotten.clone();
        request.forgotten_topics_data =
            vec![ForgottenTopic { topic: name, topic_id: id, partitions }];
    }
    request
}
