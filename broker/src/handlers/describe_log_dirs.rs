//! DescribeLogDirs (key 35): what lies in the data directory (KIP-113).
//!
//! Versions: 2 flexible, 3 top-level error, 4 space of the volume (KIP-827), 5 cordoned directories
//! (KIP-1066: none here).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use vltava_protocol::types::Str;
use vltava_storage::io::Disk;

use super::Reply;
use super::context::Context;
use crate::partition::client::Partitions;
use crate::partition::request::PartitionId;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DESCRIBE_LOG_DIRS;

/// Asks every shard for the sizes of its logs.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DescribeLogDirsRequest,
) -> Reply<DescribeLogDirsResponse> {
    let wanted: Option<BTreeSet<(Str, i32)>> = request.topics.map(|topics| {
        let pairs = topics.into_iter().flat_map(|topic| {
            let name = topic.topic;
            topic.partitions.into_iter().map(move |index| (name.clone(), index))
        });
        pairs.collect()
    });
    let partitions = &context.services.partitions;
    let mut started = Vec::new();
    for shard in 0..partitions.shard_count() {
        let job = |partitions: &Rc<Partitions<R>>| {
            let sizes = sizes(partitions);
            async move { Ok(sizes) }
        };
        started.push(partitions.on_shard(shard, job).await);
    }
    let mut topics: BTreeMap<Str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for sizes in started {
        for (partition, bytes) in sizes.await.unwrap_or_default() {
            let image = context.services.node.image();
            let Some(topic) = image.topic_by_id(partition.topic_id) else {
                continue;
            };
            let pair = (topic.name.clone(), partition.index);
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(&pair)) {
                topics.entry(pair.0).or_default().push(DescribeLogDirsPartition {
                    partition_index: partition.index,
                    partition_size: i64::try_from(bytes).unwrap_or(i64::MAX),
                    ..DescribeLogDirsPartition::default()
                });
            }
        }
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic { name, partitions }
    });
    let topics = topics.collect();
    Reply::Now(DescribeLogDirsResponse {
        results: vec![directory(&context, topics).await],
        ..DescribeLogDirsResponse::default()
    })
}

fn sizes<R: Runtime>(partitions: &Rc<Partitions<R>>) -> Vec<(PartitionId, u64)> {
    let local = partitions.all_local();
    local.into_iter().map(|(id, replica)| (id, replica.size_bytes())).collect()
}

async fn directory<R: Runtime>(
    context: &Context<R>,
    topics: Vec<DescribeLogDirsTopic>,
) -> DescribeLogDirsResult {
    let bytes = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    let space = context.services.runtime.disk().space().await;
    let (total_bytes, usable_bytes, error_code) = match space {
        Ok(space) => (bytes(space.total), bytes(space.free), ErrorCode::NONE),
        Err(_) => (-1, -1, ErrorCode::KAFKA_STORAGE_ERROR),
    };
    DescribeLogDirsResult {
        error_code,
        log_dir: context.services.config.data_directory.as_str().into(),
        topics,
        total_bytes,
        usable_bytes,
        ..DescribeLogDirsResult::default()
    }
}
