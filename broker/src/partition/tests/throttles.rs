//! Replicas that are not in sync are sent what they lack no faster than throttles let it, and no
//! write waits for a throttle.

use super::groups::{Cluster, MS, NODES, id, tell, tell_of};
use crate::partition::replica::Replica;
use crate::partition::replica::members::{Approach, Stand};
use crate::partition::throttle::{Listed, Throttled};
use crate::raft::membership::ReplicaId;
use crate::runtime::sim::SimRuntime;

/// What each write has.
const VALUE_BYTES: usize = 32 << 10;
const RATE: u64 = 512 << 10;

const LEADERS: fn() -> Throttled =
    || Throttled { leaders: Listed::All, followers: Listed::default() };
const FOLLOWERS: fn() -> Throttled =
    || Throttled { leaders: Listed::default(), followers: Listed::All };

async fn begin(cluster: &mut Cluster, writes: usize) -> usize {
    for index in 0..NODES {
        cluster.start(index).await;
    }
    cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
    write(cluster, writes).await;
    cluster.leader().expect("it has just written")
}

async fn write(cluster: &Cluster, writes: usize) {
    for _ in 0..writes {
        cluster.write(&"x".repeat(VALUE_BYTES)).await;
    }
}

fn set_rates(cluster: &Cluster, bytes_per_s: Option<u64>) {
    for index in 0..NODES {
        cluster.throttles(index).leader.set_rate(bytes_per_s);
        cluster.throttles(index).follower.set_rate(bytes_per_s);
    }
}

fn next_step(
    replica: &Replica<SimRuntime>,
    target: &[ReplicaId],
    approach: &mut Approach,
) -> Stand {
    replica.approach(target, replica.leads().unwrap(), approach)
}

/// What a new replica lacks takes as long as the rate says, on either side; who writes meanwhile
/// waits for none of it.
#[test]
fn a_new_replica_learns_at_the_rate_while_writes_go_on() {
    for (seed, throttled) in [(1, LEADERS), (2, FOLLOWERS), (3, LEADERS), (4, FOLLOWERS)] {
        tell_of(seed, 2, async move |mut cluster| {
            let leader = begin(&mut cluster, 64).await;
            let replica = cluster.replica(leader);
            replica.set_throttled(throttled());
            set_rates(&cluster, Some(RATE));
            let now_ms = || cluster.simulation.executor().now_ns() / MS;
            let target: Vec<ReplicaId> = (0..NODES).map(id).collect();
            let (began, mut approach, mut slowest) = (now_ms(), Approach::default(), 0);
            while next_step(&replica, &target, &mut approach) != Stand::There {
                let writes = now_ms();
                cluster.write("meanwhile").await;
                slowest = slowest.max(now_ms() - writes);
                cluster.sleep_ms(20).await;
            }
            let took_ms = now_ms() - began;
            // Four seconds of the rate.
            assert!((3_700..=4_800).contains(&took_ms), "{took_ms} ms");
            assert!(slowest < 50, "a write took {slowest} ms");
        });
    }
}

/// So does what it takes as it is, where the leader's marks no longer tell it apart.
#[test]
fn a_log_that_is_taken_as_it_is_comes_at_the_rate() {
    for (seed, throttled) in [(1, LEADERS), (2, FOLLOWERS)] {
        tell(seed, async move |mut cluster| {
            begin(&mut cluster, 4).await;
            let away = (0..NODES).find(|index| Some(*index) != cluster.leader()).unwrap();
            cluster.kill(away);
            write(&cluster, 70).await;
            let leader = cluster.leader().unwrap();
            assert_eq!(cluster.replica(leader).delete_records(10).await, Ok(10));
            cluster.replica(leader).set_throttled(throttled());
            set_rates(&cluster, Some(RATE));
            cluster.start(away).await;
            cluster.sleep_ms(3_000).await;
            assert!(cluster.replica(away).high_watermark() < 74, "faster than the rate");
            let has_all = |cluster: &Cluster| cluster.replica(away).high_watermark() == 74;
            cluster.until(3_000, "it has all there is", has_all).await;
        });
    }
}

/// A voter that lags is throttled where the others are enough for every write, and is not where
/// they wait for it.
#[test]
fn no_write_waits_for_a_throttle() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            let leader = begin(&mut cluster, 1).await;
            let [second, third] = [1, 2].map(|at| (leader + at) % NODES);
            cluster.kill(third);
            write(&cluster, 20).await;
            for (index, throttled) in [(leader, LEADERS()), (second, LEADERS())] {
                cluster.replica(index).set_throttled(throttled);
            }
            set_rates(&cluster, Some(0));
            cluster.start(third).await;
            cluster.sleep_ms(5_000).await;
            assert!(cluster.replica(third).high_watermark() < 21, "it is throttled");
            // Who is in sync is not.
            cluster.write("with the second").await;
            cluster.kill(second);
            cluster.write("with the third").await;
            assert!(cluster.replica(third).high_watermark() > 20, "it got what was lacking");
        });
    }
}

/// Where a leader may send nothing, that is so of those partitions alone that list it.
#[test]
fn a_leader_that_is_not_listed_is_not_throttled() {
    tell_of(8, 2, async |mut cluster| {
        let leader = begin(&mut cluster, 64).await;
        let replica = cluster.replica(leader);
        replica.set_throttled(FOLLOWERS());
        set_rates(&cluster, Some(RATE << 4));
        cluster.throttles(leader).leader.set_rate(Some(0));
        let target: Vec<ReplicaId> = (0..NODES).map(id).collect();
        let mut approach = Approach::default();
        for _ in 0..100 {
            if next_step(&replica, &target, &mut approach) == Stand::There {
                return;
            }
            cluster.sleep_ms(20).await;
        }
        panic!("it is not sent what it lacks");
    });
}

/// A throttle that is taken back ends at once what waits for it.
#[test]
fn a_throttle_is_taken_back() {
    tell_of(7, 2, async |mut cluster| {
        let leader = begin(&mut cluster, 64).await;
        let replica = cluster.replica(leader);
        replica.set_throttled(LEADERS());
        set_rates(&cluster, Some(1));
        let target: Vec<ReplicaId> = (0..NODES).map(id).collect();
        let mut approach = Approach::default();
        for _ in 0..100 {
            assert_eq!(next_step(&replica, &target, &mut approach), Stand::UnderWay);
            cluster.sleep_ms(20).await;
        }
        set_rates(&cluster, None);
        for _ in 0..50 {
            if next_step(&replica, &target, &mut approach) == Stand::There {
                return;
            }
            cluster.sleep_ms(20).await;
        }
        panic!("it does not end");
    });
}
