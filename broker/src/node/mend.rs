//! Damage in open logs that other nodes keep, too, is made good; elsewhere it is told.

use std::rc::Rc;

use super::view::Node;
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// Looks at what somebody suspects, and mends what is damaged, in the logs of this shard: to be
    /// called about once a second.
    pub(super) async fn mend_logs(self: &Rc<Self>) {
        for (id, replica) in self.parts.partitions.local_where(|replica| replica.has_rot()) {
            for damage in replica.look_at_suspects().await {
                tracing::error!(
                    partition = replica.name(), %damage,
                    "a record batch is not what was written; docs/operations.md, \"A damaged log\""
                );
                self.note_damage(id, damage.offset);
            }
            for damage in replica.mend().await {
                tracing::info!(
                    partition = replica.name(),
                    offset = damage.offset,
                    "what was damaged was taken from another replica, and is what was written again"
                );
                self.forget_damage(id, damage.offset);
            }
            self.parts.runtime.yield_if_needed().await;
        }
    }
}
