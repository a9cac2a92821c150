//! A member that lacks much is sent all of it, also of what its leader has in files only.

use super::groups::{Cluster, NODES, tell};

const VALUE_BYTES: usize = 10 << 10;
/// Several messages' worth.
const WRITES: usize = 400;

async fn lack_much(cluster: &mut Cluster) -> usize {
    for index in 0..NODES {
        cluster.start(index).await;
    }
    cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
    let away = (cluster.leader().unwrap() + 1) % NODES;
    cluster.kill(away);
    for _ in 0..WRITES {
        cluster.write(&"x".repeat(VALUE_BYTES)).await;
    }
    // Nothing is in memory any more.
    for index in (0..NODES).filter(|index| *index != away) {
        cluster.kill(index);
        cluster.start(index).await;
    }
    away
}

#[test]
fn who_lacks_much_gets_it_from_files() {
    for reads_past_cache in [true, false] {
        tell(1, async move |mut cluster| {
            for index in 0..NODES {
                cluster.disk(index).set_reads_past_cache(reads_past_cache);
            }
            let away = lack_much(&mut cluster).await;
            cluster.start(away).await;
            let has_all =
                |cluster: &Cluster| cluster.replica(away).high_watermark() == WRITES as i64;
            cluster.until(20_000, "it has all", has_all).await;
        });
    }
}
