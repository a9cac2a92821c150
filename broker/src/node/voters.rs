//! Who is in group 0: its leader makes its members what the image asks for, one step at a time.

use std::rc::Rc;
use std::time::Duration;

use super::identity::{self, Identity};
use super::view::Node;
use crate::cluster::quorum::{Members, Sight, wanted};
use crate::metadata::image::{PartitionId, Replica as Place};
use crate::partition::kept::{self, Votes};
use crate::partition::replica::{Replica, Standing};
use crate::raft::membership::{Membership, ReplicaId};
use crate::runtime::{Monotonic, Runtime};

/// How often the leader looks at the members.
const PERIOD: Duration = Duration::from_millis(250);

/// What the leader of group 0 sees.
struct Seen<'a, R: Runtime> {
    node: &'a Node<R>,
    standings: &'a [Standing],
}

impl<R: Runtime> Sight for Seen<'_, R> {
    fn is_caught_up(&self, member: &Place) -> bool {
        let of = |standing: &&Standing| place(standing.id) == *member;
        let standing = self.standings.iter().find(of);
        standing.is_some_and(|it| it.is_caught_up) && self.node.is_there(*member)
    }

    fn is_gone_for_long(&self, node_id: i32) -> bool {
        self.node.is_gone_for_long(node_id)
    }
}

fn place(id: ReplicaId) -> Place {
    Place { node_id: id.node, disk_id: id.disk }
}

fn replica_id(place: Place) -> ReplicaId {
    ReplicaId { node: place.node_id, disk: place.disk_id }
}

impl<R: Runtime> Node<R> {
    /// Whether a node is there, with this disk.
    pub(super) fn is_there(&self, place: Place) -> bool {
        let Some(near) = self.surroundings() else { return false };
        place == self::place(near.own)
            || near
                .peers
                .introduction_of(place.node_id)
                .is_some_and(|it| it.disk_id == place.disk_id)
    }

    /// Sees to the members of group 0 while this node leads it, for as long as the process lives.
    /// On shard 0.
    pub(super) async fn see_to_members(self: Rc<Self>, group: Rc<Replica<R>>) {
        let runtime = &self.parts.runtime;
        loop {
            runtime.sleep(PERIOD).await;
            self.note_absences();
            let Some(standings) = group.standings() else { continue };
            let next = self.next_members(&group, &standings);
            let is_noted = self.has_noted_shared(next.as_ref().unwrap_or(&group.members())).await;
            if let Some(next) = next.filter(|_| is_noted) {
                self.change_members(&group, &next);
            }
        }
    }

    /// The members that group 0 is to have next, where they are others and may be changed.
    fn next_members(&self, group: &Replica<R>, standings: &[Standing]) -> Option<Membership> {
        let own = self.surroundings()?.own;
        let members = group.members();
        let image = self.image();
        if members.is_joint() || image.cluster().is_none() {
            return None;
        }
        let now = Members {
            voters: members.voters().map(place).collect(),
            learners: members.learners().map(place).collect(),
        };
        let sight = Seen { node: self, standings };
        let Members { voters, learners } = wanted(&image, &now, place(own), &sight);
        let ids = |places: Vec<Place>| places.into_iter().map(replica_id);
        let next = Membership::new(ids(voters), ids(learners));
        (next != members).then_some(next)
    }

    fn change_members(&self, group: &Replica<R>, next: &Membership) {
        let shown = |ids: &mut dyn Iterator<Item = ReplicaId>| {
            ids.map(|id| id.node.to_string()).collect::<Vec<_>>().join(" ")
        };
        let (voters, learners) = (shown(&mut next.voters()), shown(&mut next.learners()));
        match group.change_members(next) {
            Ok(()) => tracing::info!(voters, learners, "the members of group 0 change"),
            Err(why) => tracing::debug!(?why, voters, learners, "group 0 cannot change now"),
        }
    }

    /// Whether group 0 may have these members, as far as it is noted who may lose votes: who
    /// founded the cluster alone keeps none at first, and notes it before others vote beside it.
    /// Should nothing be kept at a later start, it is lost.
    async fn has_noted_shared(&self, next: &Membership) -> bool {
        let Some(own) = self.surroundings().map(|near| near.own) else { return true };
        let known = self.identity.borrow().clone();
        let began_alone = |it: &Identity| {
            let founding = it.founding.as_ref();
            founding.is_some_and(|it| matches!(it.founders[..], [one] if one.node_id == own.node))
        };
        let known = known.filter(|it| began_alone(it) && !it.shares_votes);
        let Some(known) = known.filter(|_| !next.is_sole_voter(&own)) else { return true };
        // What it keeps since it has learners is durable: nothing looks lost from now on.
        let is_kept = self.surroundings().is_some_and(|near| {
            kept::votes(&near, PartitionId::CLUSTER_METADATA, false) == Votes::Known
        });
        if !is_kept {
            return false;
        }
        let noted = Identity { shares_votes: true, ..known };
        match identity::write(&self.parts.runtime, &noted).await {
            Ok(()) => {
                *self.identity.borrow_mut() = Some(noted);
                true
            }
            Err(error) => {
                tracing::warn!(error, "that others vote, too, cannot be noted; trying again");
                false
            }
        }
    }

    /// Notes since when nodes of the image are gone.
    fn note_absences(&self) {
        let (image, present, now) = (self.image(), self.present(), self.parts.runtime.now());
        let mut absent = self.absent_since.borrow_mut();
        absent.retain(|id, _| image.node(*id).is_some() && !present.contains(id));
        for node in image.nodes().filter(|node| !present.contains(&node.id)) {
            absent.entry(node.id).or_insert(now);
        }
    }

    /// Whether a node is gone for longer than it is waited for, as this node has seen.
    pub(super) fn is_gone_for_long(&self, node_id: i32) -> bool {
        let Some(time) = self.parts.config.replace_node_after_ms else { return false };
        let since: Option<Monotonic> = self.absent_since.borrow().get(&node_id).copied();
        let now = self.parts.runtime.now();
        since.is_some_and(|since| now.since(since) >= Duration::from_millis(time))
    }
}
