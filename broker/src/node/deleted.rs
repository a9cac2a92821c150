//! Logs of topics that were deleted while this node was not there.

use vltava_protocol::types::Uuid;
use vltava_storage::{partition_directories, remove_damaged_of_gone, remove_log, topic_id_of};

use super::view::Node;
use crate::metadata::image::{Image, PartitionId};
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// Removes the logs of topics that this image does not have. Before any log is opened, and only
    /// where the image has all that was decided until this node came: what is not in it was
    /// deleted. Where the cluster's metadata was once recovered without a majority, it may have
    /// forgotten topics: then they stay.
    pub(super) async fn remove_deleted(&self, image: &Image, group: &Replica<R>) {
        let disk = self.parts.runtime.disk();
        let is_gone = |id: Uuid| {
            id != PartitionId::CLUSTER_METADATA.topic_id && image.topic_by_id(id).is_none()
        };
        let mut gone: Vec<(String, Uuid)> = Vec::new();
        match partition_directories(disk).await {
            Ok(directories) => {
                for directory in directories {
                    // One that is damaged is kept, for whoever wants to look into it.
                    let found = topic_id_of(&self.parts.logs, &directory).await.ok().flatten();
                    gone.extend(found.filter(|id| is_gone(*id)).map(|id| (directory, id)));
                }
            }
            Err(error) => return tracing::warn!(%error, "the data directory cannot be listed"),
        }
        if group.generation() >= 0 {
            for (directory, topic_id) in gone {
                tracing::warn!(
                    directory, %topic_id,
                    "the log of a topic that the cluster does not know, whose metadata was \
                     recovered without a majority: it is kept, and may be removed by hand"
                );
            }
            return;
        }
        for (directory, topic_id) in gone {
            match remove_log(&self.parts.logs, &directory, topic_id).await {
                Ok(()) => tracing::info!(
                    directory, %topic_id,
                    "the log of a topic that was deleted while this node was away is removed"
                ),
                Err(error) => tracing::warn!(
                    directory, %error,
                    "the log of a topic that was deleted cannot be removed; the next start tries \
                     again"
                ),
            }
        }
        if let Err(error) = remove_damaged_of_gone(disk, is_gone).await {
            tracing::warn!(%error, "what was set aside of deleted topics cannot be removed");
        }
    }
}
