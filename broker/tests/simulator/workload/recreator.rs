//! Creates a topic, writes and reads it, adds partitions, deletes it, and creates it again under
//! the same name: the new one has nothing of the former.
//!
//! A request whose answer was lost may take effect at any later time. So what deletes or writes
//! names the topic by its id; what creates may find that an earlier attempt has done it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use vltava::runtime::Runtime;
use vltava::runtime::sim::MILLION;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use vltava_protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::messages::produce::ProduceRequest;
use vltava_protocol::types::{Str, Uuid};

use super::consumer::read_topic;
use super::setup::{Described, describe};
use super::{RETRY, Topic, Workload, producer, records, route};
use crate::checkers::{Promise, RecordId, Written};
use crate::client::{CallError, Client};
use crate::promise;

/// `DeleteTopics` knows ids from this version on.
const DELETES_BY_ID: i16 = 6;
/// More partitions than this a topic does not get.
const PARTITIONS_MAX: i32 = 5;

struct Recreator<'a> {
    workload: &'a Workload,
    client: Client,
    name: Rc<str>,
    /// Ids of topics that were deleted.
    former: BTreeSet<Uuid>,
    /// An attempt to create may have succeeded, or may yet.
    creation_in_doubt: bool,
    topics_made: u64,
    /// Replicas of each partition of the topic that is there now.
    replication: i16,
    /// Counts the lives as a producer.
    producer: u64,
}

/// Makes and unmakes one topic until the run is to end.
pub async fn recreate(workload: &Workload, client: Client) {
    let name = Rc::from(format!("{}-topic", client.name));
    let mut recreator = Recreator {
        workload,
        client,
        name,
        former: BTreeSet::new(),
        creation_in_doubt: false,
        topics_made: 0,
        replication: 1,
        producer: workload.next_producer(),
    };
    while !workload.is_finishing() {
        let Some(mut topic) = recreator.create().await else {
            break;
        };
        for _ in 0..recreator.client.random.mostly_small(1..=8) {
            if recreator.work(&mut topic).await.is_err() {
                recreator.client.pause(RETRY).await;
            }
            let think = workload.swarm.think_max;
            recreator.client.pause(think * 5).await;
        }
        recreator.check_whole(&topic).await;
        if workload.is_finishing() {
            break;
        }
        recreator.delete(&topic).await;
    }
}

impl Recreator<'_> {
    /// Creates the topic, however long it takes; `None` where the run is to end.
    async fn create(&mut self) -> Option<Topic> {
        let partitions = i32::try_from(self.client.random.between(1..=3)).unwrap_or(1);
        self.replication = self.workload.swarm.shape.draw_replication(&mut self.client.random);
        let mut is_made = false;
        while !self.workload.is_finishing() {
            if !is_made {
                is_made = self.try_create(partitions).await.unwrap_or(false);
            }
            if is_made && let Ok(Some(topic)) = self.learn().await {
                return Some(topic);
            }
            self.client.pause(RETRY).await;
        }
        None
    }

    /// Whether the topic exists now.
    async fn try_create(&mut self, partitions: i32) -> Result<bool, CallError> {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: Str::from(&*self.name),
                num_partitions: partitions,
                replication_factor: self.replication,
                configs: self.workload.topic_configs(|name| !name.starts_with("retention")),
                ..CreatableTopic::default()
            }],
            timeout_ms: 30_000,
            validate_only: false,
        };
        let in_doubt = std::mem::replace(&mut self.creation_in_doubt, true);
        let answer = self.client.call(2, |_| request).await?;
        let error = answer.topics.first().map(|topic| topic.error_code);
        match error.unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR) {
            ErrorCode::NONE => {
                // An earlier attempt may still be on its way.
                self.creation_in_doubt = in_doubt;
                Ok(true)
            }
            ErrorCode::TOPIC_ALREADY_EXISTS => {
                promise!(in_doubt, "{} was deleted, and exists", self.name);
                Ok(true)
            }
            error => {
                promise!(error.is_retriable(), "CreateTopics {}: {}", self.name, error.name());
                Ok(false)
            }
        }
    }

    /// Finds out what was created; `None` where the node cannot say now.
    async fn learn(&mut self) -> Result<Option<Topic>, CallError> {
        let name = Rc::clone(&self.name);
        let described = match describe(&mut self.client, &name).await? {
            Described::There { id, partitions } => (id, partitions),
            // Another node than the one that made it may not have heard of it.
            Described::NotThere if self.client.only_broker().is_none() => return Ok(None),
            Described::NotThere => {
                promise!(false, "{name} was created, and is not there");
                return Ok(None);
            }
            Described::NotNow => return Ok(None),
        };
        let (id, partitions) = described;
        if self.former.contains(&id) && self.client.only_broker().is_none() {
            return Ok(None);
        }
        promise!(!self.former.contains(&id), "{name} was deleted, and is back as {id}");
        self.topics_made += 1;
        let key = Rc::from(format!("{name}#{}", self.topics_made));
        let replication = self.replication;
        let topic = Topic { name, key, id: Cell::new(id), partitions, replication };
        // Nobody has written to it yet.
        let whole = read_topic(self.workload, &mut self.client, &topic).await;
        for (partition, log) in whole {
            promise!(
                log.start == 0 && log.records.is_empty(),
                "{partition:?} is new, and holds {} records from {} on",
                log.records.len(),
                log.start
            );
        }
        Ok(Some(topic))
    }

    async fn work(&mut self, topic: &mut Topic) -> Result<(), CallError> {
        if self.client.random.chance(MILLION / 8) && topic.partitions < PARTITIONS_MAX {
            return self.add_partition(topic).await;
        }
        if self.client.random.chance(MILLION / 4) {
            self.check_whole(topic).await;
            return Ok(());
        }
        self.write(topic).await
    }

    /// Writes one batch, once: its records stand there once, or, where the answer is lost, perhaps.
    async fn write(&mut self, topic: &Topic) -> Result<(), CallError> {
        let random = &mut self.client.random;
        let index = random.index(topic.partitions.unsigned_abs() as usize);
        let index = i32::try_from(index).unwrap_or(0);
        let Some(leader) = route::leader(&mut self.client, topic, index).await? else {
            self.client.pause(RETRY).await;
            return Ok(());
        };
        let random = &mut self.client.random;
        let partition = (Rc::clone(&topic.key), index);
        let count = random.mostly_small(1..=self.workload.swarm.batch_records_max);
        let written =
            Written { producer: self.producer, sequence: None, promise: Promise::Flushed };
        let ids: Vec<RecordId> = {
            let mut acks = self.workload.checkers.acks.borrow_mut();
            (0..count).map(|_| acks.send(&partition, written)).collect()
        };
        let now_ms = self.client.runtime.wall_clock_ms();
        let swarm = &self.workload.swarm;
        let bytes = records::build(random, (-1, -1, -1), &ids, swarm, now_ms);
        let make = producer::request(topic, index, bytes, -1);
        let asked = self.client.call_at::<ProduceRequest>(leader.address, producer::BY_ID, make);
        let answer = asked.await.inspect_err(|_| self.client.forget_leaders())?;
        let told = answer.responses.iter().flat_map(|topic| &topic.partition_responses).next();
        let error = told.map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |told| told.error_code);
        promise!(
            error.is_none()
                || error.is_retriable()
                    && (error != ErrorCode::UNKNOWN_TOPIC_ID
                        || self.client.only_broker().is_none()),
            "Produce to {partition:?}: {}",
            error.name()
        );
        if !error.is_none() {
            self.client.forget_leader(&partition);
        }
        if let Some(told) = told.filter(|_| error.is_none()) {
            let mut acks = self.workload.checkers.acks.borrow_mut();
            for (offset, id) in (told.base_offset..).zip(ids) {
                acks.acknowledge(&partition, id, offset);
            }
        }
        Ok(())
    }

    /// Adds one partition. Attempts whose answers were lost may have added it already.
    async fn add_partition(&mut self, topic: &mut Topic) -> Result<(), CallError> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: Str::from(&*topic.name),
                count: topic.partitions + 1,
                assignments: None,
            }],
            timeout_ms: 30_000,
            validate_only: false,
        };
        let answer = self.client.call(0, |_| request).await?;
        let error = answer.results.first().map(|result| result.error_code);
        let error = error.unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR);
        promise!(
            error.is_none() || error.is_retriable() || error == ErrorCode::INVALID_PARTITIONS,
            "CreatePartitions of {}: {}",
            topic.key,
            error.name()
        );
        if error.is_none() {
            topic.partitions += 1;
        }
        Ok(())
    }

    /// Reads the whole topic, however long it takes, and checks it.
    async fn check_whole(&mut self, topic: &Topic) {
        let whole = read_topic(self.workload, &mut self.client, topic).await;
        let acks = self.workload.checkers.acks.borrow();
        for (partition, log) in whole {
            acks.check_whole(&partition, log.start, &log.records);
        }
    }

    /// Deletes the topic, however long it takes.
    async fn delete(&mut self, topic: &Topic) {
        let mut in_doubt = false;
        loop {
            let state =
                DeleteTopicState { topic_id: topic.id.get(), ..DeleteTopicState::default() };
            let request = DeleteTopicsRequest {
                topics: vec![state],
                timeout_ms: 30_000,
                ..DeleteTopicsRequest::default()
            };
            let answer = self.client.call(DELETES_BY_ID, |_| request).await;
            let error = answer.ok().and_then(|answer| Some(answer.responses.first()?.error_code));
            match error {
                Some(ErrorCode::NONE) => break,
                Some(ErrorCode::UNKNOWN_TOPIC_ID) => {
                    promise!(in_doubt, "{} exists, and cannot be deleted", topic.key);
                    break;
                }
                other => promise!(
                    other.is_none_or(ErrorCode::is_retriable),
                    "DeleteTopics of {}: {other:?}",
                    topic.key
                ),
            }
            in_doubt = true;
            self.client.pause(RETRY).await;
        }
        self.former.insert(topic.id.get());
        let deleted_at = self.client.home();
        let told = describe(&mut self.client, &topic.name).await;
        let is_there = matches!(told, Ok(Described::There { id, .. }) if id == topic.id.get());
        promise!(
            !is_there || self.client.home() != deleted_at,
            "{} was deleted, and is there",
            topic.key
        );
    }
}
