//! Opens group 0 on this node, forms the cluster where there is none, and says who this node is.

use std::rc::Rc;

use vltava_protocol::types::Str;
use vltava_storage::io::{Disk, OpenMode};
use vltava_storage::{LogOptions, StorageError, partition_directories};

use super::follow;
use super::identity::{self, Identity};
use super::logs::open_or_create;
use super::options::{SettingsTable, controller_options};
use super::view::Node;
use crate::cluster::controller::{Controller, Input, Reply};
use crate::cluster::nodes::Registration;
use crate::coordinator::host::HostError;
use crate::metadata::image::{NodeEndpoint, PartitionId};
use crate::partition::error::PartitionError;
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

/// The log of group 0.
const LOG: &str = "__cluster_metadata-0";
/// What Kafka's own group 0 has beside its log, and ours has not.
const KAFKAS: &str = "__cluster_metadata-0/quorum-state";
/// A segment of it is closed at this size, in bytes, and the live state written again.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Opens group 0, registers this node, and follows the group: to be called on shard 0. `endpoints`
/// is how clients reach this node.
///
/// # Errors
/// In words for a person; it completes only with one.
pub async fn lead<R: Runtime>(
    node: &Rc<Node<R>>,
    endpoints: Vec<NodeEndpoint>,
) -> Result<(), String> {
    let found = identity::read(node.parts.runtime.disk()).await?;
    check_there(node, found.is_some()).await?;
    let group = open_group(node).await.map_err(|error| error.to_string())?;
    let (id, parts) = (PartitionId::CLUSTER_METADATA, &node.parts);
    parts.partitions.ready(id, Rc::clone(&group));
    let settings = Rc::new(SettingsTable(parts.config.topic_defaults.clone()));
    let controller = Controller::new(controller_options(&parts.config), settings);
    let host = parts.controllers.add(id, controller, Rc::clone(&group));
    if host.loaded(None).await.is_none() {
        return Err(host.damage().unwrap_or_else(|| "the controller was stopped".to_owned()));
    }
    let identity = identify(node, found).await?;
    register(node, identity, endpoints).await?;
    follow::follow(Rc::clone(node), group).await
}

/// A directory that was used, and has no group 0 any more, is not taken for an empty one: a new
/// group 0 would know none of the topics whose logs are here.
async fn check_there<R: Runtime>(node: &Node<R>, has_identity: bool) -> Result<(), String> {
    let directories = partition_directories(node.parts.runtime.disk()).await;
    let directories = directories.map_err(|error| error.to_string())?;
    if directories.iter().any(|directory| directory == LOG) {
        let kafkas = node.parts.runtime.disk().open(KAFKAS, OpenMode::Read).await;
        return match kafkas {
            Ok(_) => {
                Err("a Kafka broker has used the data directory: give the node an empty one"
                    .to_owned())
            }
            Err(_) => Ok(()),
        };
    }
    match directories.first() {
        _ if has_identity => Err(
            "it is missing, and meta.properties says that the directory was used: put it back, \
                 or give the node an empty directory"
                .to_owned(),
        ),
        Some(found) => Err(format!(
            "it is missing, and the directory has logs, as {found}: put it back, or give the node \
             an empty directory"
        )),
        None => Ok(()),
    }
}

async fn open_group<R: Runtime>(node: &Node<R>) -> Result<Rc<Replica<R>>, StorageError> {
    // The controller writes its live state again when a segment is closed; nothing else deletes
    // here.
    let options =
        LogOptions { segment_bytes: SEGMENT_BYTES, deletes: false, ..LogOptions::default() };
    let runtime = node.parts.runtime.clone();
    let topic_id = PartitionId::CLUSTER_METADATA.topic_id;
    let log = open_or_create(&node.parts.logs, LOG, topic_id, options, |_| true).await?;
    Ok(Replica::new(runtime, LOG.to_owned(), log, 1))
}

/// Who this node is, by its data directory: forms the cluster, and writes the identity, where there
/// is none yet.
async fn identify<R: Runtime>(node: &Node<R>, found: Option<Identity>) -> Result<Identity, String> {
    let (disk, node_id) = (node.parts.runtime.disk(), node.parts.config.node_id);
    if let Some(found) = found.filter(|found| found.node_id != node_id) {
        let owner = found.node_id;
        return Err(format!(
            "the data directory belongs to node {owner}, and node.id is {node_id}"
        ));
    }
    let cluster_id = found.map_or_else(|| node.random_uuid(), |found| found.cluster_id);
    let formed = ask(node, Input::Form { cluster_id }).await.map_err(|error| error.to_string())?;
    let Reply::Formed { cluster_id } = formed else {
        return Err(format!("the cluster did not form: {formed:?}"));
    };
    match found {
        Some(found) if found.cluster_id == cluster_id => Ok(found),
        Some(found) => Err(format!(
            "the data directory belongs to cluster {}, and group 0 is of cluster {cluster_id}",
            found.cluster_id
        )),
        None => {
            let made = Identity { cluster_id, node_id, disk_id: node.random_uuid() };
            identity::write(disk, &made).await?;
            Ok(made)
        }
    }
}

/// Tells the controller that this node has started. A full disk must not keep a node from serving
/// reads: without space for the record, what was registered at an earlier start stands.
async fn register<R: Runtime>(
    node: &Node<R>,
    identity: Identity,
    endpoints: Vec<NodeEndpoint>,
) -> Result<(), String> {
    let registration = Registration {
        node_id: identity.node_id,
        rack: node.parts.config.rack.as_deref().map(Str::from),
        endpoints,
        disks: vec![identity.disk_id],
    };
    match ask(node, Input::RegisterNode(registration)).await {
        Ok(Reply::Registered { .. }) => Ok(()),
        Ok(other) => Err(format!("this node was not registered: {other:?}")),
        Err(error @ HostError::Lost(PartitionError::Full)) => {
            tracing::warn!(%error, "this node goes on as it was last registered");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn ask<R: Runtime>(node: &Node<R>, input: Input) -> Result<Reply, HostError> {
    node.parts.controllers.submit(PartitionId::CLUSTER_METADATA, input).await.await
}
