//! CreateTopics: names, partitions, replicas, settings; each topic for itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
    CreateTopicsRequest, CreateTopicsResponse,
};
use vltava_protocol::types::{Str, Uuid};

use super::controller::{
    Controller, Decision, PARTITIONS_MAX, PARTITIONS_PER_REQUEST_MAX, Reply, refused,
};
use super::new_partitions::{self, Present, partition_records, too_many};
use super::refusal::{Refusal, repeated};
use super::state::State;
use crate::metadata::image::{Image, Settings};
use crate::metadata::records::{Record, TOPIC_RESOURCE};
use crate::metadata::topic_name::{self, CLUSTER_METADATA, collision_key};

/// Decides a request. Topics that are refused say why; the others are created.
pub(super) fn decide(
    controller: &Controller,
    state: &State,
    present: Present<'_>,
    request: CreateTopicsRequest,
    random: u128,
) -> Decision {
    if asked_partitions(&request) > PARTITIONS_PER_REQUEST_MAX {
        let message = "Excessively large number of partitions per request.";
        return refused(ErrorCode::POLICY_VIOLATION, message);
    }
    let duplicates = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let mut batch = Batch {
        controller,
        state,
        present,
        ids: TopicIds { random, made: 0 },
        records: Vec::new(),
        partitions: state.image().partition_count(),
        collisions: BTreeMap::new(),
    };
    let unique = request.topics.into_iter().filter(|topic| !duplicates.contains(&topic.name));
    let mut topics: Vec<CreatableTopicResult> = unique.map(|topic| batch.topic(topic)).collect();
    topics.extend(
        duplicates
            .iter()
            .map(|name| failure(name.clone(), Refusal::invalid_request("Duplicate topic name."))),
    );
    let records = if request.validate_only { Vec::new() } else { batch.records };
    (
        records,
        Reply::CreateTopics(CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }),
    )
}

/// How many partitions a request names; those it leaves to the default count as one, as in Kafka.
fn asked_partitions(request: &CreateTopicsRequest) -> usize {
    let of_topic = |topic: &CreatableTopic| match topic.assignments.len() {
        0 => usize::try_from(topic.num_partitions).unwrap_or(1),
        assigned => assigned,
    };
    request.topics.iter().map(of_topic).fold(0, usize::saturating_add)
}

fn failure(name: Str, Refusal { error, message }: Refusal) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error,
        error_message: Some(message),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}

/// One request's topics on their way.
struct Batch<'a> {
    controller: &'a Controller,
    state: &'a State,
    present: Present<'a>,
    ids: TopicIds,
    records: Vec<Record>,
    /// Partitions of the cluster, with those of this request.
    partitions: usize,
    /// New topics of this request, by what they collide under.
    collisions: BTreeMap<String, Str>,
}

impl Batch<'_> {
    fn topic(&mut self, topic: CreatableTopic) -> CreatableTopicResult {
        let name = topic.name.detached();
        match self.create(&name, topic) {
            Ok(created) => created,
            Err(refusal) => failure(name, refusal),
        }
    }

    fn create(
        &mut self,
        name: &Str,
        topic: CreatableTopic,
    ) -> Result<CreatableTopicResult, Refusal> {
        self.check_name(name)?;
        let settings = self.settings(topic.configs)?;
        let topic_id = self.ids.next(self.state.image());
        let replicas = self.replicas(
            topic_id,
            &topic.assignments,
            topic.num_partitions,
            topic.replication_factor,
        )?;
        self.partitions = self.partitions.saturating_add(replicas.len());
        if self.partitions > PARTITIONS_MAX {
            self.partitions -= replicas.len();
            return Err(too_many());
        }
        if let Some(key) = collision_key(name) {
            self.collisions.insert(key, name.clone());
        }
        let replication_factor = replicas.first().map_or(0, Vec::len);
        let created = CreatableTopicResult {
            name: name.clone(),
            topic_id,
            num_partitions: i32::try_from(replicas.len()).unwrap_or(i32::MAX),
            replication_factor: i16::try_from(replication_factor).unwrap_or(i16::MAX),
            ..CreatableTopicResult::default()
        };
        self.records.push(Record::Topic(topic_id, Some(name.clone())));
        if !settings.is_empty() {
            self.records.push(Record::Settings((TOPIC_RESOURCE, name.clone()), settings));
        }
        let image = self.state.image();
        self.records.extend(partition_records(image, topic_id, 0, replicas));
        Ok(created)
    }

    fn check_name(&self, name: &Str) -> Result<(), Refusal> {
        if self.state.image().topic(name).is_some() {
            let message = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ErrorCode::TOPIC_ALREADY_EXISTS, message));
        }
        if name.as_str() == CLUSTER_METADATA {
            let message = format!("Creation of internal topic {CLUSTER_METADATA} is prohibited.");
            return Err(Refusal::invalid_request(message));
        }
        let invalid = |message: String| Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message);
        topic_name::validate(name).map_err(invalid)?;
        let in_request = collision_key(name).and_then(|key| self.collisions.get(&key));
        match self.state.colliding(name).or(in_request) {
            Some(other) => {
                Err(invalid(format!("Topic '{name}' collides with existing topic: {other}")))
            }
            None => Ok(()),
        }
    }

    fn settings(&self, configs: Vec<CreatableTopicConfig>) -> Result<Settings, Refusal> {
        let invalid = |message: String| Refusal::new(ErrorCode::INVALID_CONFIG, message);
        let null: Vec<&str> = configs
            .iter()
            .filter(|config| config.value.is_none())
            .map(|config| config.name.as_str())
            .collect();
        if !null.is_empty() {
            let names = null.join(",");
            return Err(invalid(format!("Null value not supported for topic configs: {names}")));
        }
        let given = configs
            .into_iter()
            .filter_map(|config| Some((config.name.detached(), config.value?.detached())));
        let settings: Settings = Arc::new(given.collect());
        self.controller.topic_settings.validate(&settings).map_err(invalid)?;
        Ok(settings)
    }

    /// The nodes of each partition: those the client names, or those that are chosen for it.
    fn replicas(
        &self,
        topic_id: Uuid,
        assignments: &[CreatableReplicaAssignment],
        partitions: i32,
        replication_factor: i16,
    ) -> Result<Vec<Vec<i32>>, Refusal> {
        let image = self.state.image();
        if !assignments.is_empty() {
            check_unsaid(partitions, replication_factor)?;
            return new_partitions::assigned(image, self.present, assignments);
        }
        if replication_factor < -1 || replication_factor == 0 {
            let message = "Replication factor must be larger than 0, or -1 to use the default \
                           value.";
            return Err(Refusal::new(ErrorCode::INVALID_REPLICATION_FACTOR, message));
        }
        if partitions < -1 || partitions == 0 {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(Refusal::new(ErrorCode::INVALID_PARTITIONS, message));
        }
        let options = &self.controller.options;
        let partitions = if partitions == -1 { options.partitions_default } else { partitions };
        let replication_factor = match replication_factor {
            -1 => options.replication_factor_default,
            given => given,
        };
        let count = usize::try_from(partitions).unwrap_or(1);
        if count > PARTITIONS_MAX {
            return Err(too_many());
        }
        let chosen =
            new_partitions::chosen(image, self.present, topic_id, 0..count, replication_factor);
        chosen.map_err(|Refusal { error, message }| {
            let failed = format!("Unable to replicate the partition {replication_factor} time(s)");
            Refusal::new(error, format!("{failed}: {message}"))
        })
    }
}

/// Counts must be left open where every replica is named.
fn check_unsaid(partitions: i32, replication_factor: i16) -> Result<(), Refusal> {
    if replication_factor != -1 {
        let message = "A manual partition assignment was specified, but replication factor was not \
                       set to -1.";
        return Err(Refusal::invalid_request(message));
    }
    if partitions != -1 {
        let message = "A manual partition assignment was specified, but numPartitions was not set \
                       to -1.";
        return Err(Refusal::invalid_request(message));
    }
    Ok(())
}

/// Ids for new topics, made from random bits: like Kafka's, of version 4, and never beginning with
/// a dash, which tools would take for an option.
struct TopicIds {
    random: u128,
    made: u64,
}

impl TopicIds {
    fn next(&mut self, image: &Image) -> Uuid {
        loop {
            self.made += 1;
            let id = Uuid(with_version_4(scrambled(self.random, self.made)));
            let is_dash_first = id.0 >> 122 == 62;
            if !is_dash_first && image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }
}

fn with_version_4(bits: u128) -> u128 {
    let cleared = bits & !(0xf << 76) & !(0b11 << 62);
    cleared | 4 << 76 | 0b10 << 62
}

/// The `made`-th value of a sequence that `random` begins: two steps of SplitMix64.
#[expect(clippy::cast_possible_truncation, reason = "takes both halves apart")]
fn scrambled(random: u128, made: u64) -> u128 {
    let step = |seed: u64| {
        let mut hash = seed.wrapping_add(made.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    };
    u128::from(step((random >> 64) as u64)) << 64 | u128::from(step(random as u64))
}
