//! Replicas of one partition come and go, while nodes lose their power at any moment.

use super::groups::{Cluster, NODES, id, tell_of};
use crate::partition::replica::members::{Approach, Stand};
use crate::raft::membership::{Membership, ReplicaId};

/// How often a leader looks how far its group is, in milliseconds.
const LOOK_MS: u64 = 20;

struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Brings the group to these replicas, as whoever leads does; meanwhile up to `kills` nodes lose
/// their power, one at a time.
async fn bring(
    cluster: &mut Cluster,
    target: &[usize],
    chance: &mut Chance,
    mut kills: u64,
    written: &mut u64,
) {
    let target: Vec<ReplicaId> = target.iter().copied().map(id).collect();
    let (mut approach, mut of, mut down) = (Approach::default(), None, None);
    for _ in 0..3000 {
        if let Some(leader) = cluster.leader() {
            let replica = cluster.replica(leader);
            let led = (leader, replica.leads());
            if of.replace(led) != Some(led) {
                approach = Approach::default();
            }
            let epoch = replica.leads().unwrap();
            if replica.approach(&target, epoch, &mut approach) == Stand::There && down.is_none() {
                return;
            }
            if chance.below(3) == 0 && cluster.try_write(leader, &value(*written)).await.is_ok() {
                *written += 1;
            }
        }
        match down {
            Some(index) if chance.below(10) == 0 => {
                cluster.start(index).await;
                down = None;
            }
            None if kills > 0 && chance.below(8) == 0 => {
                let index = usize::try_from(chance.below(NODES as u64)).unwrap();
                cluster.kill(index);
                (down, kills) = (Some(index), kills - 1);
            }
            _ => {}
        }
        cluster.sleep_ms(LOOK_MS).await;
    }
    panic!("it does not come to {target:?}");
}

fn value(number: u64) -> String {
    format!("value {number} ")
}

async fn check(cluster: &Cluster, target: &[usize], written: u64) {
    let end = cluster.leader().map(|leader| cluster.replica(leader).end());
    let has_all = |cluster: &Cluster| {
        target.iter().all(|index| Some(cluster.replica(*index).high_watermark()) == end)
    };
    cluster.until(10_000, "all have it", has_all).await;
    let first = cluster.served(target[0]).await;
    for index in target {
        assert_eq!(first, cluster.served(*index).await);
    }
    let text = String::from_utf8_lossy(&first).into_owned();
    for number in 0..written {
        assert!(text.contains(&value(number)), "{number} is lost");
    }
}

/// From two nodes to others and back, each time with whoever goes giving away what it has: also
/// when it comes back it has nothing but what it promised.
#[test]
fn replicas_move_and_nothing_is_lost_whoever_loses_its_power() {
    for seed in 1..30 {
        let kills = seed % 4;
        tell_of(seed, 2, async move |mut cluster| {
            let (mut chance, mut written) = (Chance(seed), 0);
            for index in 0..NODES {
                cluster.start(index).await;
            }
            cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
            for number in 0..20 {
                cluster.write(&value(number)).await;
                written = number + 1;
            }
            let targets: [&[usize]; 6] = [&[1, 2], &[0, 2], &[0], &[0, 1], &[2, 0], &[1]];
            let mut before: &[usize] = &[0, 1];
            for target in targets {
                bring(&mut cluster, target, &mut chance, kills, &mut written).await;
                check(&cluster, target, written).await;
                for gone in before.iter().copied().filter(|index| !target.contains(index)) {
                    let replica = cluster.replica(gone);
                    replica.leave_group().await;
                    let members = Membership::new(target.iter().copied().map(id), []);
                    replica.give_away(members).await.unwrap();
                    drop(replica);
                    // As after a restart of its process: an empty log, and what was promised.
                    cluster.kill(gone);
                    cluster.start(gone).await;
                    let replica = cluster.replica(gone);
                    assert_eq!((replica.end(), replica.leads()), (0, None));
                }
                cluster.write(&value(written)).await;
                written += 1;
                before = target;
            }
        });
    }
}

/// A leader that was deposed in between, or whose node is behind with the metadata, moves nothing.
#[test]
fn a_record_of_another_epoch_moves_nothing() {
    tell_of(1, 2, async |mut cluster| {
        for index in 0..NODES {
            cluster.start(index).await;
        }
        cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
        let replica = cluster.replica(cluster.leader().unwrap());
        let (epoch, before) = (replica.leads().unwrap(), replica.members());
        let (target, mut approach) = ([id(0), id(1), id(2)], Approach::default());
        for other in [-1, epoch - 1, epoch + 1] {
            assert_eq!(replica.approach(&target, other, &mut approach), Stand::NotLeading);
            assert_eq!(replica.members(), before);
        }
        assert_eq!(replica.approach(&target, epoch, &mut approach), Stand::UnderWay);
        assert_ne!(replica.members(), before);
    });
}

/// A change that was begun and given up leaves nothing behind, whoever leads.
#[test]
fn a_change_is_taken_back_from_wherever_it_stands() {
    for seed in 1..20 {
        tell_of(seed, 2, async move |mut cluster| {
            let (mut chance, mut written) = (Chance(seed), 0);
            for index in 0..NODES {
                cluster.start(index).await;
            }
            cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
            for number in 0..10 {
                cluster.write(&value(number)).await;
                written = number + 1;
            }
            for _ in 0..4 {
                let mut approach = Approach::default();
                for _ in 0..chance.below(8) {
                    if let Some(leader) = cluster.leader() {
                        let target = [id(1), id(2)];
                        let replica = cluster.replica(leader);
                        let epoch = replica.leads().unwrap();
                        let _stand = replica.approach(&target, epoch, &mut approach);
                    }
                    cluster.sleep_ms(chance.below(2 * LOOK_MS)).await;
                }
                bring(&mut cluster, &[0, 1], &mut chance, seed % 2, &mut written).await;
                check(&cluster, &[0, 1], written).await;
            }
        });
    }
}
