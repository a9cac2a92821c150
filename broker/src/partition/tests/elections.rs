//! More groups want a leader than may be elected at a time.

use std::cell::Cell;
use std::rc::Rc;

use super::groups::{Cluster, ELECTIONS_MAX, NODES, tell};
use crate::partition::replica::Replica;
use crate::runtime::sim::SimRuntime;

const GROUPS: i32 = 30;

/// How many groups are led by a node that runs.
fn led(cluster: &Cluster) -> usize {
    let leads = |replica: &Replica<SimRuntime>| replica.leads().is_some();
    let nodes = (0..NODES).filter_map(|index| cluster.partitions(index));
    nodes.map(|partitions| partitions.local_where(leads).len()).sum()
}

/// Each group comes to have a leader, at the start and where those of a node are gone: never are
/// more elections under way than may be, all get their turn, and all turns are given back.
#[test]
fn all_groups_get_their_turn() {
    let most = Rc::new(Cell::new(0));
    for seed in 1..6 {
        let waited = Rc::clone(&most);
        tell(seed, async move |mut cluster| {
            cluster.groups = GROUPS;
            for index in 0..NODES {
                cluster.start(index).await;
            }
            let loads = |cluster: &Cluster| {
                let loads: Vec<_> =
                    (0..NODES).filter_map(|index| cluster.elections(index)).collect();
                for (under_way, waiting) in &loads {
                    assert!(*under_way <= ELECTIONS_MAX, "{under_way} at a time");
                    waited.set(waited.get().max(*waiting));
                }
                loads
            };
            let is_at_rest = |cluster: &Cluster| {
                let loads = loads(cluster);
                loads.iter().all(|load| *load == (0, 0)) && led(cluster) == GROUPS as usize
            };
            cluster.until(10_000, "all groups have leaders", is_at_rest).await;
            let victim = cluster.leader().unwrap();
            cluster.kill(victim);
            cluster.until(10_000, "all groups have leaders again", is_at_rest).await;
        });
    }
    assert!(most.get() > 0, "nobody had to wait");
}

/// Who reaches no majority asks for no turn: it would keep it from those that may be elected.
#[test]
fn who_cannot_be_elected_takes_no_turn() {
    tell(1, async |mut cluster| {
        cluster.groups = GROUPS;
        cluster.start(0).await;
        for _ in 0..1_000 {
            assert_eq!(cluster.elections(0), Some((0, 0)));
            cluster.sleep_ms(1).await;
        }
    });
}
