//! The rates of this node's replication throttles, as the image has them.

use super::view::Node;
use crate::cluster::dynamic_settings::{FOLLOWER_RATE, LEADER_RATE, rate};
use crate::metadata::image::Image;
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// All shards go by these from now on. On shard 0.
    pub(super) fn know_throttles(&self, image: &Image) {
        let Some(near) = self.surroundings() else { return };
        let (own, throttles) = (self.node_id(), &near.throttles.own);
        throttles.leader.set_rate(rate(image, own, LEADER_RATE));
        throttles.follower.set_rate(rate(image, own, FOLLOWER_RATE));
    }
}
