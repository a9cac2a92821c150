//! Who is there: what Kafka says of brokers that are not fenced.
//!
//! Each node knows with whom it has a session itself. Clients are told more, since a node may be
//! reached by clients and not by every other node: who is there as the leader of group 0 sees it,
//! which says so to all, and each who hears it passes it on. Where a node sees less than a majority
//! of the cluster, it is the one that is cut off, and knows nothing of the others: clients are told
//! of all, as by a broker of Kafka that does not reach its controller, and find out who answers.
//! Where it knows of no leader, it names one of the other replicas: who asks the node again that it
//! asked last, as librdkafka does, would otherwise never ask another.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::types::Str;

use super::messages;
use super::peers::{PRESENCE, SOFTWARE};
use super::view::Node;
use crate::metadata::image::{Image, PartitionId};
use crate::runtime::{Queue, Runtime};

/// How long clients are sent to the same node, by one that is cut off.
const ELSEWHERE_TURN: Duration = Duration::from_secs(1);

/// Who is there, as a leader of group 0 said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Who said so; -1: nobody, or this node, which leads no more.
    pub by: i32,
    /// In its epoch of group 0; of this,
    pub epoch: i32,
    /// so many times.
    pub version: u32,
    /// The nodes.
    pub nodes: BTreeSet<i32>,
}

impl Default for Presence {
    fn default() -> Self {
        Self { by: -1, epoch: -1, version: 0, nodes: BTreeSet::new() }
    }
}

impl Presence {
    fn is_newer_than(&self, other: &Self) -> bool {
        (self.epoch, self.version) > (other.epoch, other.version)
    }
}

/// Those that have been there.
fn all(image: &Image) -> impl Iterator<Item = i32> {
    image.nodes().filter(|node| !node.disks.is_empty()).map(|node| node.id)
}

/// Whether a node is the one that is cut off, which has a session with `seen`, itself among them.
fn is_cut_off(own: i32, seen: &BTreeSet<i32>, heard: &Presence, image: &Image) -> bool {
    let is_few = 2 * all(image).filter(|id| seen.contains(id)).count() <= all(image).count();
    is_few && heard.by != own
}

/// Whom clients are told of by such a node.
fn shown(own: i32, mut seen: BTreeSet<i32>, heard: &Presence, image: &Image) -> BTreeSet<i32> {
    match is_cut_off(own, &seen, heard, image) {
        true => seen.extend(all(image)),
        false => seen.extend(&heard.nodes),
    }
    seen
}

/// Where a client may go on that came to a node which is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    own: i32,
    /// Nobody knows who of the others is there: each has its turn.
    turn: usize,
}

impl Elsewhere {
    /// Which of the nodes that keep a partition.
    pub fn of(self, replicas: &[i32]) -> Option<i32> {
        let others: Vec<i32> = replicas.iter().copied().filter(|node| *node != self.own).collect();
        others.get(self.turn.checked_rem(others.len())?).copied()
    }
}

impl<R: Runtime> Node<R> {
    /// The nodes that this one reaches: itself, and those with which it has a session.
    pub fn present(&self) -> BTreeSet<i32> {
        let mut present = self.surroundings().map(|near| near.peers.up()).unwrap_or_default();
        present.insert(self.parts.config.node_id);
        present
    }

    /// The nodes that clients are told of. What two nodes tell may for a moment not be the same.
    pub fn shown(&self) -> BTreeSet<i32> {
        let (seen, own) = (self.present(), self.parts.config.node_id);
        match self.parts.peers {
            Some(_) => shown(own, seen, &self.presence.borrow(), &self.image()),
            None => seen,
        }
    }

    /// Where clients may find what nobody leads as far as this node knows; `None`: nowhere else,
    /// since it would know.
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        self.parts.peers.as_ref()?;
        let (seen, own) = (self.present(), self.parts.config.node_id);
        let turn = u128::from(self.parts.runtime.now().0) / ELSEWHERE_TURN.as_nanos();
        let elsewhere = Elsewhere { own, turn: usize::try_from(turn).unwrap_or(0) };
        is_cut_off(own, &seen, &self.presence.borrow(), &self.image()).then_some(elsewhere)
    }

    /// The node that leads a partition, for clients: where that is one of those they are told of.
    pub fn leader_shown(&self, id: PartitionId) -> Option<i32> {
        let leader = self.leaders().leader(id).map(|leader| leader.node_id);
        leader.filter(|leader| self.shown().contains(leader))
    }

    /// Says to all who is there, where this node leads group 0; on shard 0. To be called whenever
    /// it begins to lead, leads no more, or reaches others than before.
    pub(super) fn say_presence(self: &Rc<Self>) {
        let by = self.parts.config.node_id;
        let leads = self.parts.partitions.local(PartitionId::CLUSTER_METADATA);
        let leads = leads.ok().and_then(|group| group.leads());
        let said = self.presence.borrow().clone();
        let version = said.version.saturating_add(1);
        let now = match leads {
            Some(epoch) => {
                let version = if said.epoch == epoch { version } else { 0 };
                Presence { by, epoch, version, nodes: self.present() }
            }
            None if said.by == by => Presence { by: -1, version, nodes: BTreeSet::new(), ..said },
            None => return,
        };
        if (now.by, now.epoch, &now.nodes) == (said.by, said.epoch, &said.nodes) {
            return;
        }
        // At once: what is said in the next moment goes on from this.
        self.note_presence(now.clone());
        let node = Rc::clone(self);
        self.parts.runtime.spawn(Queue::Control, async move { node.spread_presence(now).await });
    }

    /// What a leader of group 0 has said, which another node may have passed on.
    async fn hear_presence(self: Rc<Self>, said: Presence) {
        if said.is_newer_than(&self.presence.borrow()) {
            self.note_presence(said.clone());
            self.spread_presence(said).await;
        }
    }

    /// Says to all shards, and to all nodes, what was said on this one.
    async fn spread_presence(self: Rc<Self>, said: Presence) {
        let heard = said.clone();
        self.on_all(move |node| {
            node.note_presence(heard);
            std::future::ready(())
        })
        .await;
        if said.by >= 0
            && let Ok(bytes) = messages::presence_to_bytes(&said)
        {
            self.tell_each(PRESENCE, bytes).await;
        }
    }

    fn note_presence(&self, said: Presence) {
        let mut heard = self.presence.borrow_mut();
        if said.is_newer_than(&heard) {
            *heard = said;
        }
    }

    /// What this shard has heard of who is there, for a node that was not there to hear it.
    pub(super) async fn pass_presence_on(self: &Rc<Self>, to: i32) {
        let heard = self.presence.borrow().clone();
        if heard.by >= 0
            && let Ok(bytes) = messages::presence_to_bytes(&heard)
        {
            self.tell(to, PRESENCE, bytes).await;
        }
    }

    pub(super) async fn answer_presence(self: Rc<Self>, from: i32, body: &Bytes) -> Bytes {
        match messages::presence_from_bytes(body) {
            Ok(said) => self.hear_presence(said).await,
            Err(error) => tracing::warn!(node = from, %error, "a list of nodes is unreadable"),
        }
        Bytes::new()
    }

    /// The programs that they run.
    pub fn software(&self) -> BTreeMap<i32, Str> {
        let near = self.surroundings();
        let introduction = |id: &i32| near.as_ref()?.peers.introduction_of(*id);
        let others = self.present().into_iter().filter_map(|id| {
            let software = introduction(&id)?.software.clone();
            Some((id, software))
        });
        let own = (self.parts.config.node_id, Str::from_static(SOFTWARE));
        others.chain([own]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vltava_protocol::types::Uuid;

    use super::*;
    use crate::metadata::features::Levels;
    use crate::metadata::image::{self as metadata, Cluster, NodeState};
    use crate::metadata::records::{FORMAT_VERSION, Record};

    /// The nodes 1 to 5, and 9, which was added and never seen.
    fn image() -> Image {
        let mut image = Image::default();
        let features = Arc::default();
        let formed = Cluster { id: Uuid(9), format_version: FORMAT_VERSION, features };
        image.apply(Record::Cluster(formed)).unwrap();
        for id in [1, 2, 3, 4, 5, 9] {
            let disks = if id == 9 { Vec::new() } else { vec![Uuid(7)] };
            let node = metadata::Node {
                id,
                epoch: 0,
                rack: None,
                endpoints: Vec::new(),
                disks,
                peer_endpoint: None,
                state: NodeState::There,
                levels: Levels::default(),
            };
            image.apply(Record::Node(id, Some(node))).unwrap();
        }
        image
    }

    /// Of node 1: whom it sees, who said that who is there; whom clients are told of.
    type Row = (&'static [i32], i32, &'static [i32], &'static [i32]);
    const SHOWN: [Row; 7] = [
        (&[1, 2, 3, 4, 5], 2, &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]),
        // 5 is gone.
        (&[1, 2, 3, 4], 2, &[1, 2, 3, 4], &[1, 2, 3, 4]),
        // 5 is there, and out of reach only of this node.
        (&[1, 2, 3, 4], 2, &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]),
        // Nothing was heard yet.
        (&[1, 2, 3], -1, &[], &[1, 2, 3]),
        // It is cut off.
        (&[1, 2], 3, &[1, 2, 3], &[1, 2, 3, 4, 5]),
        (&[1], -1, &[], &[1, 2, 3, 4, 5]),
        // It leads group 0, whose members are not all nodes.
        (&[1], 1, &[1], &[1]),
    ];

    #[test]
    fn clients_are_told_of_whom_the_leader_of_group_0_sees() {
        let image = image();
        for (seen, by, said, expected) in SHOWN {
            let nodes = said.iter().copied().collect();
            let heard = Presence { by, epoch: 3, version: 1, nodes };
            let shown = shown(1, seen.iter().copied().collect(), &heard, &image);
            assert!(shown.iter().eq(expected), "{seen:?}, {by} said {said:?}: {shown:?}");
        }
    }

    #[test]
    fn who_comes_to_a_node_that_is_cut_off_is_sent_to_each_other_replica_in_turn() {
        let of = |turn, replicas: &[i32]| Elsewhere { own: 2, turn }.of(replicas);
        assert_eq!([0, 1, 2].map(|turn| of(turn, &[1, 2, 3])), [Some(1), Some(3), Some(1)]);
        assert_eq!([of(0, &[2]), of(1, &[])], [None, None]);
    }

    #[test]
    fn newer_is_what_a_later_leader_says_or_the_same_says_later() {
        let of = |epoch, version| Presence { epoch, version, ..Presence::default() };
        for (one, other) in [((1, 0), (0, 9)), ((1, 2), (1, 1))] {
            assert!(of(one.0, one.1).is_newer_than(&of(other.0, other.1)));
            assert!(!of(other.0, other.1).is_newer_than(&of(one.0, one.1)));
        }
        assert!(!of(1, 1).is_newer_than(&of(1, 1)));
    }
}
