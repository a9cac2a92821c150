//! Looks whether one core of this node is hot while another is not, and moves a partition from the
//! one to the other: what and when stands in `metadata/shard_balance.rs`.

use std::rc::Rc;
use std::time::Duration;

use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::metadata::shard_balance::{Balancer, ShardLoad};
use crate::runtime::Runtime;

/// Partitions of a shard that are told of: a shard that is made hot by more than these together is
/// not made cool by moving one.
const PARTITIONS_MAX: usize = 64;

/// What a shard has done since it started.
struct Done {
    processor_us: u64,
    partitions: Vec<(PartitionId, u64)>,
}

/// Balances the shards for as long as the process lives: to be run on shard 0.
pub async fn run<R: Runtime>(node: Rc<Node<R>>) {
    let period_ms = node.parts.config.shard_balance_interval_ms;
    if period_ms == 0 || node.parts.jobs.count() < 2 {
        return;
    }
    node.all_serving().await;
    let runtime = node.parts.runtime.clone();
    let (mut balancer, mut before) = (Balancer::default(), None::<Vec<Done>>);
    loop {
        let looked = runtime.now();
        runtime.sleep_until(looked.after(Duration::from_millis(period_ms))).await;
        let Some(done) = node.done_everywhere().await else { return };
        let time_us = u64::try_from(runtime.now().since(looked).as_micros()).unwrap_or(u64::MAX);
        let Some(earlier) = before.replace(done) else { continue };
        let later = before.iter().flatten();
        let loads: Vec<_> = earlier.iter().zip(later).map(|(a, b)| load(a, b, time_us)).collect();
        let Some((partition, to)) = balancer.look(&loads) else { continue };
        node.balance(partition, to, &loads).await;
        // What the move itself took is no load, and who has what is another.
        before = None;
    }
}

/// What lies between two looks.
fn load(before: &Done, after: &Done, time_us: u64) -> ShardLoad {
    let busy_us = after.processor_us.saturating_sub(before.processor_us);
    let earlier = |id: &PartitionId| {
        let found = before.partitions.binary_search_by(|(known, _)| known.cmp(id));
        found.map_or(0, |at| before.partitions[at].1)
    };
    let since = after.partitions.iter().map(|(id, work)| (*id, work.saturating_sub(earlier(id))));
    let mut partitions: Vec<_> = since.filter(|(_, work)| *work > 0).collect();
    let work = partitions.iter().map(|(_, work)| work).sum();
    partitions.sort_unstable_by_key(|(id, work)| (std::cmp::Reverse(*work), *id));
    partitions.truncate(PARTITIONS_MAX);
    partitions.retain(|(id, _)| *id != PartitionId::CLUSTER_METADATA);
    ShardLoad { busy: busy_us.saturating_mul(1000) / time_us.max(1), partitions, work }
}

impl<R: Runtime> Node<R> {
    /// What each shard has done so far; `None` where the process stops.
    async fn done_everywhere(self: &Rc<Self>) -> Option<Vec<Done>> {
        self.on_all(|node| std::future::ready(node.done())).await.into_iter().collect()
    }

    fn done(&self) -> Done {
        // In the order of their ids.
        let partitions = self.parts.partitions.all_local();
        let partitions = partitions.iter().map(|(id, replica)| (*id, replica.work()));
        let processor_us = self.parts.runtime.processor_us();
        Done { processor_us, partitions: partitions.filter(|(_, work)| *work > 0).collect() }
    }

    async fn balance(self: &Rc<Self>, id: PartitionId, to: usize, loads: &[ShardLoad]) {
        let image = self.image();
        let topic = image.topic_by_id(id.topic_id);
        let partition = topic.map_or_else(String::new, |topic| topic.log_name(id.index));
        drop(image);
        let busy: Vec<u64> = loads.iter().map(|load| load.busy / 10).collect();
        match self.move_partition(id, to).await {
            Ok(moved) => {
                let pause_us = u64::try_from(moved.pause.as_micros()).unwrap_or(u64::MAX);
                tracing::info!(
                    partition, from = moved.from, to, pause_us, busy_percent = ?busy,
                    "a partition left a hot core"
                );
            }
            Err(error) => {
                tracing::info!(partition, to, %error, "a partition stays on its hot core for now");
            }
        }
    }
}
