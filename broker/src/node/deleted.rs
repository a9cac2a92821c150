//! Logs of topics that were deleted while this node was not there.

use vltava_storage::{partition_directories, remove_log, topic_id_of};

use super::view::Node;
use crate::metadata::image::{Image, PartitionId};
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// Removes the logs of topics that this image does not have. Before any log is opened, and only
    /// where the image has all that was decided until this node came: what is not in it was deleted.
    /// Where the cluster's metadata was once recovered without a majority, it may have forgotten
    /// topics: then they stay.
    pub(super) async fn remove_deleted(&self, image: &Image, group: &Replica<R>) {
        let directories = match partition_directories(self.parts.runtime.disk()).await {
            Ok(directories) => directories,
            Err(error) => return tracing::warn!(%error, "the data directory cannot be listed"),
        };
        for directory in directories {
            // One that is damaged is kept, for whoever wants to look into it.
            let Ok(Some(id)) = topic_id_of(&self.parts.logs, &directory).await else { continue };
            if id == PartitionId::CLUSTER_METADATA.topic_id || image.topic_by_id(id).is_some() {
                continue;
            }
            if group.generation() >= 0 {
                tracing::warn!(
                    directory, topic_id = %id,
                    "the log of a topic that the cluster does not know, whose metadata was \
                     recovered without a majority: it is kept, and may be removed by hand"
                );
                continue;
            }
            match remove_log(&self.parts.logs, &directory, id).await {
                Ok(()) => tracing::info!(
                    directory, topic_id = %id,
                    "the log of a topic that was deleted while this node was away is removed"
                ),
                Err(error) => tracing::warn!(
                    directory, %error,
                    "the log of a topic that was deleted cannot be removed; the next start tries \
                     again"
                ),
            }
        }
    }
}
