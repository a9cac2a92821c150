//! Leaders by decision, where a majority of a partition's replicas is gone: who is left is asked
//! what it has, and the controller names the one that has most (`cluster::name_leader`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;

use super::messages;
use super::peers::LEFT;
use super::view::Node;
use crate::cluster::controller::{Input, Reply, refusal};
use crate::cluster::name_leader::Nomination;
use crate::metadata::image::{Partition, PartitionId, Replica as ImageReplica, Topic};
use crate::partition::left::{Left, Prospect, prospect};
use crate::partition::replica::Named;
use crate::raft::membership::ReplicaId;
use crate::runtime::{Monotonic, Runtime};

/// Partitions that are asked for in one message.
const ASKED_MAX: usize = 1000;
/// After so long without a leader one is named where the topic allows it: a node that is restarted
/// is back before, and Kafka's controller waits as long for a broker.
const UNCLEAN_AFTER: Duration = Duration::from_secs(9);
/// How often it is looked whether a partition has a leader now.
const PAUSE: Duration = Duration::from_millis(100);

/// Since when partitions have no leader, as this node sees it.
pub(super) type Leaderless = BTreeMap<PartitionId, Monotonic>;

/// What the nodes that are there say of a partition that they keep.
#[derive(Default)]
struct Answers {
    left: Vec<Left>,
    /// Those that say nothing.
    silent: BTreeSet<i32>,
}

/// What came of an election without a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elected {
    /// The partition has a leader.
    Leads,
    /// It had one.
    NotNeeded,
    /// Nobody is left who could.
    Nobody,
    /// This node is there, and could not say in time what it has.
    Unsure(i32),
    /// The time was over before.
    NotInTime,
}

impl<R: Runtime> Node<R> {
    /// Who was named to lead a partition, as its replicas take it.
    pub(super) fn named(&self, partition: &Partition) -> Option<Named> {
        let named = partition.named?;
        let ids = |replicas: &[ImageReplica]| -> Vec<ReplicaId> {
            self.membership(replicas.iter()).ids().collect()
        };
        let leader = ids(&[named.replica]).first().copied()?;
        let learners = ids(&partition.replicas).into_iter().filter(|id| *id != leader).collect();
        Some(Named { epoch: named.epoch, leader, learners })
    }

    /// Tells the replicas of this shard who may belong to their groups, and who was named to lead
    /// them.
    pub(super) fn hear_of_named(&self, topic: &Topic) {
        for (index, partition) in topic.indexed_partitions() {
            if let Ok(replica) = self.parts.partitions.local(topic.partition_id(index)) {
                let members = self.membership(partition.replicas.iter());
                replica.narrow(&members.ids().collect::<Vec<_>>());
            }
            let Some(named) = self.named(partition) else { continue };
            // Where it is being opened it hears so there.
            drop(self.parts.partitions.when_here(topic.partition_id(index), move |replica| {
                replica.hear_of_named(&named);
                Ok(())
            }));
        }
    }

    /// Gives a partition that has none a leader, also where that takes a decision.
    pub async fn elect_unclean(self: &Rc<Self>, id: PartitionId, deadline: Monotonic) -> Elected {
        let runtime = &self.parts.runtime;
        let asked = BTreeSet::from([id]);
        let mut has_waited = false;
        loop {
            let prospects = self.prospects(&asked).await;
            match prospects.get(&id) {
                Some((Prospect::Led, _)) if !has_waited => return Elected::NotNeeded,
                Some((Prospect::Led, _)) if self.leader_there(id).is_some() => {
                    return Elected::Leads;
                }
                Some((Prospect::Nobody, _)) | None => return Elected::Nobody,
                Some((Prospect::Needs(leader), left)) => {
                    // Where another decision came before, or nobody answers, the next look tells.
                    let _taken = self.name_leader(id, *leader, left).await;
                }
                // It may be opening its log.
                Some((Prospect::Unsure(node), _)) if runtime.now() >= deadline => {
                    return Elected::Unsure(*node);
                }
                Some((Prospect::Led | Prospect::Elects | Prospect::Unsure(_), _)) => {}
            }
            has_waited = true;
            if runtime.now() >= deadline {
                return Elected::NotInTime;
            }
            runtime.sleep(PAUSE).await;
        }
    }

    /// Where this node leads group 0: names leaders of partitions that have had none for a while,
    /// where their topics allow that.
    pub(super) async fn elect_where_allowed(self: &Rc<Self>, leaderless: &mut Leaderless) {
        let (image, now) = (self.image(), self.parts.runtime.now());
        let (leaders, present) = (self.leaders(), self.present());
        let has_leader = |id: PartitionId| {
            leaders.leader(id).is_some_and(|leader| present.contains(&leader.node_id))
        };
        let mut due = BTreeSet::new();
        let mut seen = Leaderless::new();
        for topic in image.topics() {
            let without: Vec<PartitionId> =
                topic.partition_ids().filter(|id| !has_leader(*id)).collect();
            if without.is_empty() || !self.topic_config(topic).unclean_leader_election {
                continue;
            }
            for id in without {
                let since = leaderless.get(&id).copied().unwrap_or(now);
                seen.insert(id, since);
                if now.since(since) >= UNCLEAN_AFTER {
                    due.insert(id);
                }
            }
        }
        *leaderless = seen;
        if due.is_empty() {
            return;
        }
        for (id, (prospect, left)) in self.prospects(&due).await {
            if let Prospect::Needs(leader) = prospect {
                // The next look tells.
                let _taken = self.name_leader(id, leader, &left).await;
            }
        }
    }

    /// What becomes of these partitions, by what is left of each.
    async fn prospects(
        self: &Rc<Self>,
        partitions: &BTreeSet<PartitionId>,
    ) -> BTreeMap<PartitionId, (Prospect, Vec<Left>)> {
        let mut answers = self.ask_who_is_left(partitions).await;
        let prospects = partitions.iter().map(|id| {
            let Answers { left, silent } = answers.remove(id).unwrap_or_default();
            // Whoever was last heard of as leader may lead no more: it says so itself.
            let leader = self.leader_there(*id);
            let is_asked = |node: i32| left.iter().any(|left| left.id.node == node);
            let prospect = match leader.is_some_and(|node| !is_asked(node)) {
                true => Prospect::Led,
                false => prospect(&left, &silent),
            };
            (*id, (prospect, left))
        });
        prospects.collect()
    }

    /// Has the controller name a leader for a partition of which these are left.
    ///
    /// # Errors
    /// Where the controller cannot be asked.
    pub async fn name_leader(
        self: &Rc<Self>,
        partition: PartitionId,
        leader: ReplicaId,
        left: &[Left],
    ) -> Result<bool, ErrorCode> {
        let Some((_, known)) = self.partition_now(partition) else {
            return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        };
        let nomination = Nomination {
            partition,
            changes: known.changes,
            newest_epoch: left.iter().map(|left| left.epoch).max().unwrap_or(-1),
            leader: ImageReplica { node_id: leader.node, disk_id: leader.disk },
        };
        match self.ask_controller(Input::NameLeader(nomination)).await {
            Ok(Reply::Noted { is_taken }) => Ok(is_taken),
            other => Err(refusal(other).0),
        }
    }

    /// Asks all nodes that are there what they have of these partitions.
    async fn ask_who_is_left(
        self: &Rc<Self>,
        partitions: &BTreeSet<PartitionId>,
    ) -> BTreeMap<PartitionId, Answers> {
        let (image, own) = (self.image(), self.parts.config.node_id);
        let mut asked: BTreeMap<i32, Vec<PartitionId>> = BTreeMap::new();
        for id in partitions {
            let topic = image.topic_by_id(id.topic_id);
            let partition = topic.and_then(|topic| topic.partition(id.index));
            for node in partition.map(Partition::node_ids).unwrap_or_default() {
                asked.entry(node).or_default().push(*id);
            }
        }
        let present = self.present();
        asked.retain(|node, _| present.contains(node));
        let mut answers: BTreeMap<PartitionId, Answers> = BTreeMap::new();
        for (node, ids) in &asked {
            for id in ids {
                answers.entry(*id).or_default().silent.insert(*node);
            }
        }
        let asking = asked.into_iter();
        let asking = asking.map(|(node, ids)| async move {
            if node == own {
                return self.left_here(&ids).await;
            }
            let mut all = Vec::new();
            for ids in ids.chunks(ASKED_MAX) {
                let Ok(question) = messages::who_is_left_to_bytes(ids) else { continue };
                let Some(answer) = self.ask_peer(node, LEFT, question).await else { continue };
                all.extend(messages::left_from_bytes(node, &answer).unwrap_or_default());
            }
            all
        });
        for (id, found) in futures_util::future::join_all(asking).await.into_iter().flatten() {
            let answers = answers.entry(id).or_default();
            answers.silent.remove(&found.id.node);
            answers.left.push(found);
        }
        answers
    }

    /// Another node asks.
    pub(super) async fn answer_left(self: &Rc<Self>, body: &Bytes) -> Bytes {
        let Ok(asked) = messages::who_is_left_from_bytes(body) else { return Bytes::new() };
        let left = self.left_here(&asked).await;
        messages::left_to_bytes(&left).unwrap_or_default()
    }

    /// What this node has of these partitions, on any shard.
    async fn left_here(self: &Rc<Self>, asked: &[PartitionId]) -> Vec<(PartitionId, Left)> {
        let asked: Arc<[PartitionId]> = asked.into();
        let left = self.on_all(move |node| std::future::ready(node.left_on_shard(&asked))).await;
        // A shard that has ended has nothing.
        left.into_iter().flatten().flatten().collect()
    }

    fn left_on_shard(&self, asked: &[PartitionId]) -> Vec<(PartitionId, Left)> {
        let left = asked
            .iter()
            .filter_map(|id| Some((*id, self.parts.partitions.local(*id).ok()?.left()?)));
        left.collect()
    }
}
