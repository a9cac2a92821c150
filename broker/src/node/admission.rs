//! Which other nodes this one talks to: those that the image has, and where it says they are.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use super::follow;
use super::view::Node;
use crate::cluster::nodes::is_no_member;
use crate::metadata::image::{Image, NodeEndpoint, PartitionId, PeerEndpoint};
use crate::partition::replica::Replica;
use crate::peer::greeting::{Introduction, Refusal, RefusalCode};
use crate::runtime::{Queue, Runtime};

/// How often is looked whether a host's name is resolved.
const RESOLVE_STEP: Duration = Duration::from_millis(20);
/// How often a name is resolved again, while there is no session with its node.
const RESOLVE_AGAIN: Duration = Duration::from_secs(5);

/// The listener for other nodes, among those that a node introduces itself with.
pub const PEER_LISTENER: &str = "PEERS";

/// Where nodes are.
pub type Addresses = BTreeMap<i32, PeerEndpoint>;

impl<R: Runtime> Node<R> {
    /// Whether a node may be talked to: it is in the image, or in group 0. While this node knows no
    /// cluster, or hears no leader of group 0, any may. One that has moved is looked for where it
    /// says it is.
    pub(super) fn admit(self: &Rc<Self>, introduction: &Introduction) -> Result<(), Refusal> {
        let (image, id) = (self.image(), introduction.node_id);
        if let Some(cluster) = image.cluster().filter(|_| self.is_stranger(&image, id)) {
            let words = is_no_member(id, cluster.id);
            return Err(Refusal::new(RefusalCode::UNKNOWN_NODE, words));
        }
        // Also one that has just started hears so where the others are: it has no image yet.
        let own = |endpoint: &&NodeEndpoint| endpoint.listener == PEER_LISTENER;
        if let Some(endpoint) = introduction.endpoints.iter().find(own) {
            let NodeEndpoint { host, port, .. } = endpoint.clone();
            self.look_for(id, &PeerEndpoint { host, port });
        }
        Ok(())
    }

    /// Looks for the nodes that the configuration names.
    pub(super) fn know_configured(self: &Rc<Self>) {
        let config = &self.parts.config;
        for peer in config.peers.iter().filter(|peer| peer.node_id != config.node_id) {
            let endpoint = PeerEndpoint { host: peer.host.as_str().into(), port: peer.port };
            self.look_for(peer.node_id, &endpoint);
        }
    }

    /// Looks for the nodes that this node's copy of group 0 names. After a restart there is no
    /// image before the group has a leader, and the configuration may name nodes that have gone,
    /// and not those that have come: a majority that did not find itself would elect nobody.
    pub(super) async fn know_logged(self: &Rc<Self>, group: &Replica<R>) {
        for (id, endpoint) in follow::logged_addresses(group).await {
            // What the configuration says, or a node itself, is newer.
            let is_known = self.addresses.borrow().contains_key(&id);
            if id != self.parts.config.node_id && !is_known {
                self.look_for(id, &endpoint);
            }
        }
    }

    /// Whether a node is none of the cluster's. Founders are, before they have registered. A node
    /// that hears no leader of group 0 cannot know: its copy may be old, and the one that is not in
    /// it may lead by now.
    fn is_stranger(&self, image: &Image, id: i32) -> bool {
        let Ok(group) = self.parts.partitions.local(PartitionId::CLUSTER_METADATA) else {
            return image.node(id).is_none();
        };
        image.node(id).is_none()
            && group.live_leader().is_some_and(|leader| leader.node != id)
            && !group.members().ids().any(|member| member.node == id)
    }

    /// Looks for the nodes of a new image where it says they are, and talks no more to those that
    /// it does not name. On shard 0.
    pub(super) fn know_peers(self: &Rc<Self>, image: &Image) {
        let own = self.parts.config.node_id;
        let before = std::mem::take(&mut *self.image_addresses.borrow_mut());
        for node in image.nodes().filter(|node| node.id != own) {
            let Some(endpoint) = &node.peer_endpoint else { continue };
            self.image_addresses.borrow_mut().insert(node.id, endpoint.clone());
            if before.get(&node.id) != Some(endpoint) {
                self.look_for(node.id, endpoint);
            }
        }
        if image.cluster().is_none() {
            return;
        }
        let is_there = image.node(own).is_some();
        if self.was_there.replace(is_there) && !is_there {
            tracing::warn!("this node was taken out of the cluster: stop it, and wipe its disk");
        }
        self.forget_strangers(image);
    }

    /// Talks no more to who is none of the cluster's.
    pub(super) fn forget_strangers(&self, image: &Image) {
        let Some(near) = self.surroundings().filter(|_| image.cluster().is_some()) else { return };
        let others = near.peers.status().into_iter().map(|status| status.node);
        for id in others.filter(|id| self.is_stranger(image, *id)) {
            self.addresses.borrow_mut().remove(&id);
            near.peers.forget(id);
        }
    }

    /// From now on the node is looked for at this address.
    fn look_for(self: &Rc<Self>, id: i32, endpoint: &PeerEndpoint) {
        let (Some(near), Some(with)) = (self.surroundings(), &self.parts.peers) else { return };
        let former = self.addresses.borrow_mut().insert(id, endpoint.clone());
        if former.as_ref() == Some(endpoint) {
            return;
        }
        match endpoint.host.parse::<IpAddr>() {
            Ok(address) => near.peers.know(id, SocketAddr::new(address, endpoint.port)),
            Err(_) => {
                let looking = Rc::clone(self).look_up(id, endpoint.clone(), with.resolve);
                self.parts.runtime.spawn(Queue::Control, looking);
            }
        }
    }

    /// Looks for a node by its host's name, for as long as it is not looked for elsewhere: while it
    /// is not there, the name may come to mean another address.
    async fn look_up(
        self: Rc<Self>,
        id: i32,
        endpoint: PeerEndpoint,
        resolve: fn(&str, u16) -> io::Result<SocketAddr>,
    ) {
        let Some(near) = self.surroundings() else { return };
        let is_wanted = || self.addresses.borrow().get(&id) == Some(&endpoint);
        let (mut known, mut is_told) = (None, false);
        while is_wanted() {
            if near.peers.session(id).is_none() {
                match self.resolved(endpoint.clone(), resolve).await {
                    Ok(address) if is_wanted() && known != Some(address) => {
                        (known, is_told) = (Some(address), false);
                        near.peers.know(id, address);
                    }
                    Ok(_) => {}
                    Err(error) if !std::mem::replace(&mut is_told, true) => {
                        let host = &endpoint.host;
                        tracing::warn!(node = id, %host, %error, "a node's address is not found");
                    }
                    Err(_) => {}
                }
            }
            self.parts.runtime.sleep(RESOLVE_AGAIN).await;
        }
    }

    /// The address of a host's name: asked for beside the shard, since that may take long.
    async fn resolved(
        &self,
        endpoint: PeerEndpoint,
        resolve: fn(&str, u16) -> io::Result<SocketAddr>,
    ) -> io::Result<SocketAddr> {
        let (sender, resolved) = mpsc::channel();
        let ask = move || sender.send(resolve(&endpoint.host, endpoint.port));
        // There may be no thread for it.
        std::thread::Builder::new().spawn(ask)?;
        loop {
            match resolved.try_recv() {
                Ok(found) => return found,
                Err(mpsc::TryRecvError::Empty) => self.parts.runtime.sleep(RESOLVE_STEP).await,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}
