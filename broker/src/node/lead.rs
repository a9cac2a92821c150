//! Opens group 0 on this node, forms the cluster where there is none, and says who this node is.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::{Str, Uuid};
use vltava_storage::io::Disk;
use vltava_storage::{
    Log, LogOptions, StorageError, is_set_aside, load_journals, partition_directories,
};

use super::follow;
use super::form::{self, Decision};
use super::identity::{self, Founder, Founding, Identity};
use super::level::Ended;
use super::logs::open_or_create;
use super::options::{SettingsTable, controller_options};
use super::peers::{Common, founders};
use super::room::once_there_is_room;
use super::view::Node;
use crate::cluster::controller::{Controller, Input, Reply};
use crate::cluster::nodes::Registration;
use crate::coordinator::host::HostError;
use crate::metadata::features::FIRST;
use crate::metadata::image::{NodeEndpoint, PartitionId};
use crate::partition::error::PartitionError;
use crate::partition::kept::{self, Votes};
use crate::partition::replica::{GroupPlace, Replica};
use crate::partition::standstill::Standstill;
use crate::raft::membership::{Membership, ReplicaId};
use crate::runtime::{Monotonic, Queue, Runtime};

/// The log of group 0.
const LOG: &str = "__cluster_metadata-0";
/// How often the others are asked whether the cluster can form, and the controller whether it is
/// there.
const FORM_PERIOD: Duration = Duration::from_millis(50);
/// How often somebody is told what is waited for.
const WAITING_TOLD: Duration = Duration::from_secs(5);
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
) -> Result<(), Ended> {
    let identity = identify(node).await?;
    *node.identity.borrow_mut() = Some(identity.clone());
    let is_alone = node.parts.peers.is_none();
    if is_alone {
        check_alone(&identity)?;
    } else {
        meet(node, &identity).await?;
    }
    let open = async || Ok(open_log(node).await?);
    // Before there is a cluster: a directory that belongs to one has this log.
    let opened = Cell::new(Some(when_there_is_room(node, open).await?));
    let founding = found(node, &identity).await?;
    let take_place = async || {
        let log = match opened.take() {
            Some(log) => log,
            None => open_log(node).await?,
        };
        let (log, replicas) = with_votes(node, log, &founding).await?;
        join_group(node, log, &founding, replicas).await
    };
    let group = when_there_is_room(node, take_place).await?;
    let (id, parts) = (PartitionId::CLUSTER_METADATA, &node.parts);
    parts.partitions.ready(id, Rc::clone(&group));
    let settings = Rc::new(SettingsTable(parts.config.topic_defaults.clone()));
    let controller = Controller::new(controller_options(&parts.config), settings);
    let host = parts.controllers.add(id, controller, Rc::clone(&group));
    if is_alone && host.loaded(None).await.is_none() {
        let why = host.damage();
        return Err(why.unwrap_or_else(|| "the controller was stopped".to_owned()).into());
    }
    if !is_alone {
        let announcing = Rc::clone(node).announce_changes(id, Rc::clone(&group));
        parts.runtime.spawn(Queue::Control, announcing);
        let members = Rc::clone(node).see_to_members(Rc::clone(&group));
        parts.runtime.spawn(Queue::Control, members);
        parts.runtime.spawn(Queue::Control, Rc::clone(node).steward());
        // Not before the group hears of sessions that begin.
        node.know_logged(&group).await;
    }
    parts.runtime.spawn(Queue::Control, Rc::clone(node).watch_quorum());
    form(node, founding.cluster_id).await?;
    let registered_end = register(node, &identity, endpoints).await?;
    await_copy(node, &group, registered_end).await;
    follow::follow(Rc::clone(node), group, registered_end).await
}

/// Opens group 0's log, or takes its place in the group, as soon as the disk lets it.
async fn when_there_is_room<R: Runtime, T>(
    node: &Node<R>,
    act: impl AsyncFn() -> Result<T, PartitionError>,
) -> Result<T, String> {
    let what = "what this node knows of the cluster";
    let done = once_there_is_room(&node.parts.runtime, what, PartitionError::is_passing, act).await;
    done.map_err(|error| error.to_string())
}

/// Begins to talk to the other nodes, on all shards.
async fn meet<R: Runtime>(node: &Rc<Node<R>>, identity: &Identity) -> Result<(), String> {
    let loaded = load_journals(node.parts.runtime.disk()).await;
    let loaded = Arc::new(loaded.map_err(|error| error.to_string())?);
    let introduction = node.introduction(identity);
    let own = ReplicaId { node: identity.node_id, disk: identity.disk_id };
    let runtime = &node.parts.runtime;
    let standstill = Arc::new(Standstill::new(runtime.now()));
    runtime.spawn(Queue::Sessions, Arc::clone(&standstill).keep(runtime.clone()));
    let common = Common { loaded, introduction, throttles: Arc::default(), standstill };
    // Shard 0 last: sessions begin there.
    for shard in (0..node.parts.jobs.count()).rev() {
        let common = common.clone();
        let meet = move |node: Rc<Node<R>>| async move { node.meet(own, common).await };
        let met = node.on(shard, meet).await;
        met.unwrap_or_else(|| Err("a shard has ended".to_owned()))?;
    }
    node.know_configured();
    Ok(())
}

/// Who this node is, by its data directory; a directory that was never used gets an identity.
async fn identify<R: Runtime>(node: &Node<R>) -> Result<Identity, Ended> {
    let (disk, node_id) = (node.parts.runtime.disk(), node.parts.config.node_id);
    let found = identity::read(disk).await?;
    check_there(disk, found.as_ref()).await?;
    match found {
        Some(found) if found.node_id == node_id => Ok(found),
        Some(Identity { node_id: owner, .. }) => {
            let why = format!(
                "the data directory belongs to node {owner}, and node.id is {node_id}: give each \
                 node a directory of its own"
            );
            Err(Ended::Unfit(why))
        }
        None => {
            let disk_id = node.random_uuid();
            let (founding, level, shares_votes) = (None, FIRST, false);
            let made = Identity { node_id, disk_id, founding, level, shares_votes };
            identity::write(&node.parts.runtime, &made).await?;
            Ok(made)
        }
    }
}

/// A node that has others beside it, and is not told of them, would elect itself, and acknowledge
/// what they know nothing of.
fn check_alone(identity: &Identity) -> Result<(), Ended> {
    let Some(founding) = &identity.founding else { return Ok(()) };
    let own = Founder { node_id: identity.node_id, disk_id: identity.disk_id };
    if !identity.shares_votes && founding.founders == [own] {
        return Ok(());
    }
    Err(Ended::Unfit(format!(
        "the data directory is that of a node of cluster {}, which has others: name them, and this \
         node, in peers (--peers)",
        founding.cluster_id
    )))
}

/// A directory that was used, and has no group 0 any more, is not taken for an empty one: a new
/// group 0 would know none of the topics whose logs are here. Neither is one that has lost its
/// identity: the cluster would not know the disk.
async fn check_there<D: Disk>(disk: &D, identity: Option<&Identity>) -> Result<(), String> {
    let directories = partition_directories(disk).await.map_err(|error| error.to_string())?;
    // A stop may come between the one that was damaged and the one that takes its place.
    let topic_id = PartitionId::CLUSTER_METADATA.topic_id;
    let aside = is_set_aside(disk, LOG, topic_id).await.map_err(|error| error.to_string())?;
    let is_there = aside || directories.iter().any(|directory| directory == LOG);
    match (identity, directories.first()) {
        (Some(Identity { founding: Some(_), .. }), _) if !is_there => Err(
            "it is missing, and meta.properties says that the directory was used: put it back, \
                 or give the node an empty directory"
                .to_owned(),
        ),
        (Some(_), _) if is_there => Ok(()),
        (_, Some(found)) if !is_there => Err(format!(
            "it is missing, and the directory has logs, as {found}: put it back, or give the node \
             an empty directory"
        )),
        (None, Some(_)) => Err(
            "meta.properties is missing, and says which node and disk this is: put it back, or \
             give the node an empty directory"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

async fn open_log<R: Runtime>(node: &Node<R>) -> Result<Log<R::Disk>, StorageError> {
    let options = log_options();
    let topic_id = PartitionId::CLUSTER_METADATA.topic_id;
    let opened = open_or_create(&node.parts.logs, LOG, topic_id, options.clone(), |_| true).await;
    match opened {
        // Where nobody else has it, the journal knows nothing of the group either.
        Err(error) => node.begin_anew(PartitionId::CLUSTER_METADATA, LOG, options, error).await,
        opened => opened,
    }
}

/// The controller writes its live state again when a segment is closed; nothing else deletes here.
fn log_options() -> LogOptions {
    LogOptions { segment_bytes: SEGMENT_BYTES, deletes: false, ..LogOptions::default() }
}

/// The log, and who belongs to the group where this node has lost what it voted in it: then the
/// log is worth nothing, and begins anew once others lead.
async fn with_votes<R: Runtime>(
    node: &Node<R>,
    log: Log<R::Disk>,
    founding: &Founding,
) -> Result<(Log<R::Disk>, Vec<ReplicaId>), PartitionError> {
    let id = PartitionId::CLUSTER_METADATA;
    let founders = Membership::new(founders(founding), []);
    // Who is alone keeps nothing, and loses nothing.
    let shares_votes = node.identity.borrow().as_ref().is_some_and(|it| it.shares_votes);
    let near = node.surroundings().filter(|near| shares_votes || !founders.is_alone(&near.own));
    let Some(near) = near else { return Ok((log, Vec::new())) };
    let votes = kept::votes(&near, id, log.end() == 0 && !shares_votes);
    if votes == Votes::Known {
        return Ok((log, Vec::new()));
    }
    tracing::error!(
        "what this node voted on the cluster's metadata is lost: its copy is set aside, and taken \
         anew from the other nodes once they lead; it has no vote before all of them were heard"
    );
    let replicas = node.members_elsewhere(near.own).await;
    if votes == Votes::Unsure {
        return Ok((log, replicas));
    }
    log.close().await?;
    kept::note_votes_lost(&near, id, founders).await?;
    let replaced = Log::replace(&node.parts.logs, LOG, id.topic_id, log_options()).await?;
    Ok((replaced, replicas))
}

async fn join_group<R: Runtime>(
    node: &Node<R>,
    log: Log<R::Disk>,
    founding: &Founding,
    replicas: Vec<ReplicaId>,
) -> Result<Rc<Replica<R>>, PartitionError> {
    let (runtime, name) = (node.parts.runtime.clone(), LOG.to_owned());
    let Some(surroundings) = node.surroundings() else {
        return Ok(Replica::alone(runtime, name, log, 1));
    };
    let founders = Membership::new(founders(founding), []);
    let before = founders.ids().take_while(|id| *id != surroundings.own).count();
    let place = GroupPlace {
        partition: PartitionId::CLUSTER_METADATA,
        founders,
        replicas,
        rank: u32::try_from(before).unwrap_or(u32::MAX),
        named: None,
        surroundings,
    };
    Replica::join(runtime, name, log, 1, place).await
}

/// The cluster that this node is in; one that is in none forms one, or joins that of the others.
async fn found<R: Runtime>(node: &Node<R>, identity: &Identity) -> Result<Founding, String> {
    if let Some(founding) = &identity.founding {
        return Ok(founding.clone());
    }
    let Identity { node_id, disk_id, .. } = *identity;
    let own = Founder { node_id, disk_id };
    let peers: Vec<i32> = node.parts.config.peers.iter().map(|peer| peer.node_id).collect();
    let runtime = &node.parts.runtime;
    let (mut heard, mut told) = (BTreeMap::new(), None);
    let founding = loop {
        match form::decide(own, &peers, &heard)? {
            Decision::Form(founders) => {
                break Founding { cluster_id: node.random_uuid(), founders };
            }
            Decision::Join(founding) => break founding,
            Decision::Wait(missing) => {
                if told.is_none_or(|at| runtime.now().since(at) >= WAITING_TOLD) {
                    told = Some(runtime.now());
                    let why = node.why_missing(&missing);
                    tracing::info!(
                        nodes = ?missing, why = why.as_deref(),
                        "waiting for these nodes, to form a cluster with them or to join theirs"
                    );
                }
            }
        }
        runtime.sleep(FORM_PERIOD).await;
        for id in peers.iter().filter(|id| **id != node_id) {
            match node.ask_standing(*id).await {
                Some(standing) => heard.insert(*id, standing),
                None => heard.remove(id),
            };
        }
    };
    let made = Identity { founding: Some(founding.clone()), ..identity.clone() };
    identity::write(runtime, &made).await?;
    *node.identity.borrow_mut() = Some(made.clone());
    if let Some(surroundings) = node.surroundings() {
        surroundings.peers.introduce(node.introduction(&made)).await;
        tracing::info!(cluster = %founding.cluster_id, "this node is in a cluster");
    }
    Ok(founding)
}

/// Sees to it that group 0 begins with the cluster.
async fn form<R: Runtime>(node: &Rc<Node<R>>, own: Uuid) -> Result<(), String> {
    let level = node.level_to_form_at();
    let is_full = |error: &HostError| matches!(error, HostError::Lost(why) if why.is_passing());
    let ask = async || ask(node, Input::Form { cluster_id: own, level }).await;
    let what = "that the cluster is formed";
    let formed = once_there_is_room(&node.parts.runtime, what, is_full, ask).await;
    match formed.map_err(|error| error.to_string())?.0 {
        Reply::Formed { cluster_id } if cluster_id == own => Ok(()),
        Reply::Formed { cluster_id } => Err(format!(
            "the data directory belongs to cluster {own}, and group 0 is of cluster {cluster_id}"
        )),
        other => Err(format!("the cluster did not form: {other:?}")),
    }
}

/// Tells the controller that this node has started. A full disk must not keep a node from serving
/// reads: without space for the record, what was registered at an earlier start stands. Returns
/// below which offset of group 0 it stands.
async fn register<R: Runtime>(
    node: &Rc<Node<R>>,
    identity: &Identity,
    endpoints: Vec<NodeEndpoint>,
) -> Result<i64, Ended> {
    let registration = Registration {
        node_id: identity.node_id,
        rack: node.parts.config.rack.as_deref().map(Str::from),
        endpoints,
        disks: vec![identity.disk_id],
        peer_endpoint: node.parts.peers.as_ref().map(|with| with.advertised.clone()),
        levels: node.parts.levels,
    };
    let mut told: Option<Monotonic> = None;
    let answer = loop {
        match ask(node, Input::RegisterNode(registration.clone())).await {
            Ok((Reply::Refused { error: ErrorCode::BROKER_ID_NOT_REGISTERED, message }, _)) => {
                // Whoever adds it need not start it again.
                let runtime = &node.parts.runtime;
                if told.is_none_or(|at| runtime.now().since(at) >= WAITING_TOLD) {
                    told = Some(runtime.now());
                    tracing::warn!("waiting to be one of the cluster: {message}");
                }
                runtime.sleep(FORM_PERIOD).await;
            }
            answer => break answer,
        }
    };
    match answer {
        Ok((Reply::Registered { .. }, end)) => Ok(end),
        Ok((Reply::Refused { error: ErrorCode::UNSUPPORTED_VERSION, message }, _)) => {
            Err(Ended::Unfit(message.to_string()))
        }
        Ok((other, _)) => Err(format!("this node was not registered: {other:?}").into()),
        Err(error @ HostError::Lost(PartitionError::Full)) => {
            tracing::warn!(%error, "this node goes on as it was last registered");
            Ok(0)
        }
        Err(error) => Err(error.to_string().into()),
    }
}

/// Waits until this node's copy of group 0 reaches so far: whoever is served finds this node among
/// those of the cluster. As in [`register`], a full disk, which takes nothing more of the group, is
/// no reason to wait.
async fn await_copy<R: Runtime>(node: &Node<R>, group: &Replica<R>, end: i64) {
    let runtime = &node.parts.runtime;
    loop {
        let before = group.high_watermark();
        if before >= end {
            return;
        }
        runtime.in_time(WAITING_TOLD, group.committed_beyond(before)).await;
        if group.high_watermark() > before {
            continue;
        }
        // An error is said elsewhere, and often enough.
        drop(node.parts.logs.refresh_space().await);
        if before > 0 && node.parts.logs.is_low() {
            tracing::warn!("no space for what the cluster has decided: this node goes on without");
            return;
        }
        tracing::info!(copied = before, end, "waiting for what the cluster has decided");
    }
}

/// Asks the controller until it is there: it may be elected only now. The answer, and below which
/// offset of group 0 what it decided stands.
async fn ask<R: Runtime>(node: &Rc<Node<R>>, input: Input) -> Result<(Reply, i64), HostError> {
    let runtime = &node.parts.runtime;
    let mut told = runtime.now();
    loop {
        match node.submit_to_controller(input.clone()).await {
            // It may also have led when it was asked, and not any more when that was to be
            // committed. Both questions may be asked twice.
            Err(
                HostError::NotHere
                | HostError::Loading
                | HostError::Lost(PartitionError::NotLeader),
            ) if node.parts.peers.is_some() => {
                if runtime.now().since(told) >= WAITING_TOLD {
                    told = runtime.now();
                    tracing::info!("no node leads the cluster: it takes a majority of its nodes");
                }
                runtime.sleep(FORM_PERIOD).await;
            }
            Err(error @ HostError::Lost(PartitionError::NoDescriptor))
                if node.parts.peers.is_some() =>
            {
                if runtime.now().since(told) >= WAITING_TOLD {
                    told = runtime.now();
                    tracing::warn!(%error, "waiting for a descriptor to be free");
                }
                runtime.sleep(FORM_PERIOD).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
#[cfg(feature = "simulator")]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::runtime::sim::run_alone;

    #[test]
    fn a_stop_between_the_damaged_log_and_the_new_one_is_none_that_lost_it() {
        run_alone(1, |runtime, faults| async move {
            let founding = Founding { cluster_id: Uuid(1), founders: Vec::new() };
            let (founding, level, shares_votes) = (Some(founding), FIRST, false);
            let own = Identity { node_id: 1, disk_id: Uuid(2), founding, level, shares_votes };
            assert!(check_there(runtime.disk(), Some(&own)).await.is_err(), "it is gone");
            let topic_id = PartitionId::CLUSTER_METADATA.topic_id;
            faults.put(&format!("{LOG}.{:032x}-damaged/vltava-checkpoint", topic_id.0), b"damaged");
            check_there(runtime.disk(), Some(&own)).await.unwrap();
        });
    }
}
