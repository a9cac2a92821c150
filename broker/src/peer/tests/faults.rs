//! Three nodes under everything that a network and a kernel can do, from seeds.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use vltava_protocol::encode::{ExternalBytes, Part, Records};

use super::Dice;
use super::cluster::{Cluster, MS, check_diary, large, small, tell};
use super::sessions::stormy;
use crate::peer::SessionId;
use crate::peer::lane::Forwards;
use crate::peer::message::GroupMessage;
use crate::runtime::Connection;
use crate::runtime::sim::{Crash, HARNESS, NetworkOptions, SimulationOptions};

/// Has every shard that is up say something to every node, of groups of its own.
fn talk(cluster: &Cluster, numbers: &mut [i64; 256], dice: &mut Dice) {
    for (from, node) in cluster.nodes.iter().enumerate() {
        for (shard, peers) in node.life.iter().enumerate() {
            for to in (0..3).filter(|to| *to != from) {
                let id = cluster.nodes[to].id;
                // One group for each triple; its number goes up also while nobody hears it.
                let group = ((from * 8 + to) * 4 + shard) as i32;
                let number = &mut numbers[group as usize];
                let bytes = dice.roll(20_000) as usize;
                let was_taken = match dice.roll(3) {
                    0 => peers
                        .room(id, bytes)
                        .now_or_never()
                        .flatten()
                        .is_some_and(|room| room.send(large(group, *number, bytes))),
                    _ => peers.send(id, small(group, *number)),
                };
                *number += i64::from(was_taken);
            }
        }
    }
}

async fn disturb(cluster: &mut Cluster, dice: &mut Dice, calm: &NetworkOptions) {
    let victim = dice.roll(3) as usize;
    let other = (victim + 1 + dice.roll(2) as usize) % 3;
    let (host, other) = (cluster.nodes[victim].host, cluster.nodes[other].host);
    match dice.roll(7) {
        0 => cluster.simulation.block(host, other),
        1 => {
            cluster.simulation.block(host, other);
            cluster.simulation.block(other, host);
        }
        2 => cluster.simulation.unblock_all(),
        3 => {
            cluster.simulation.pause(host);
            cluster.sleep_ms(dice.roll(700)).await;
            cluster.simulation.resume(host);
        }
        4 => {
            let reset_per_million = dice.roll(3) as u32 * 2000;
            let spike_ns_max = dice.roll(300) * MS;
            cluster.simulation.set_network_options(NetworkOptions {
                reset_per_million,
                spike_ns_max,
                ..calm.clone()
            });
        }
        _ => {
            let how = if dice.roll(2) == 0 { Crash::Process } else { Crash::Power };
            cluster.kill(victim, how);
            check_life(cluster, victim);
            cluster.sleep_ms(dice.roll(800)).await;
            cluster.start(victim).await;
        }
    }
}

/// A life has ended: what it was told is checked, and forgotten.
fn check_life(cluster: &Cluster, index: usize) {
    check_diary(&cluster.nodes[index]);
    cluster.nodes[index].diary.told.borrow_mut().clear();
}

fn run(seed: u64) -> u64 {
    let options = stormy(seed);
    let calm = options.network.clone();
    let shards = [1 + seed as usize % 3, 1 + seed as usize / 3 % 3, 2];
    tell(options, &shards, |mut cluster| async move {
        let (mut dice, mut numbers) = (Dice(seed * 2 + 1), [0; 256]);
        for index in 0..3 {
            cluster.start(index).await;
        }
        for _ in 0..25 {
            disturb(&mut cluster, &mut dice, &calm).await;
            for _ in 0..dice.roll(20) {
                talk(&cluster, &mut numbers, &mut dice);
                cluster.sleep_ms(dice.roll(60)).await;
            }
        }
        cluster.simulation.unblock_all();
        cluster.simulation.set_network_options(calm);
        // Whatever was: in the end they talk.
        cluster.all_up(30_000).await;
        cluster.sleep_ms(2000).await;
        cluster.all_up(1000).await;
        let before: Vec<_> = (0..3).map(|index| cluster.said_to(index).len()).collect();
        talk(&cluster, &mut numbers, &mut dice);
        let expected: Vec<usize> = (0..3)
            .map(|to| (0..3).filter(|from| *from != to).map(|from| shards[from]).sum())
            .collect();
        cluster
            .until(5000, |it| (0..3).all(|to| it.said_to(to).len() == before[to] + expected[to]))
            .await;
        (0..3).for_each(|index| check_diary(&cluster.nodes[index]));
    })
}

#[test]
fn in_a_session_nothing_is_lost_and_in_the_end_all_talk() {
    for seed in 1..=30 {
        // The last that is shown is the one that failed.
        println!("seed {seed}");
        run(seed);
    }
}

#[test]
fn a_run_with_faults_repeats() {
    assert_eq!(run(77), run(77));
}

#[test]
fn a_lane_that_breaks_ends_the_session_at_once() {
    for (at, how) in [(0, "reset"), (1, "reset"), (0, "garbage"), (1, "garbage")] {
        tell(SimulationOptions::new(4), &[2, 2], |mut cluster| async move {
            cluster.start(0).await;
            cluster.start(1).await;
            cluster.all_up(1000).await;
            let peers = Rc::clone(cluster.shard(at, 1));
            let id = peers.session(2 - at as i32).unwrap();
            let lane = peers.link_of(id).unwrap().lanes().remove(0);
            match how {
                "reset" => lane.socket.reset(),
                _ => lane.socket.send(vec![Bytes::from_static(&[0xff; 20])]).await.unwrap(),
            }
            let ms = cluster.until(1000, |it| it.downs(0) == 2 && it.downs(1) == 2).await;
            assert!(ms <= 2, "{ms} ms");
            cluster.all_up(1000).await;
            cluster.nodes.iter().for_each(check_diary);
        });
    }
}

#[test]
fn a_payload_that_cannot_be_read_ends_the_session() {
    tell(SimulationOptions::new(5), &[1, 1], |mut cluster| async move {
        cluster.start(0).await;
        cluster.start(1).await;
        cluster.all_up(1000).await;
        let peers = Rc::clone(cluster.shard(0, 0));
        let room = peers.room(2, 100).await.unwrap();
        let part = Part::External(ExternalBytes { source: Arc::new(()), position: 0, len: 100 });
        let payload = Records { parts: vec![part] };
        assert!(room.send(GroupMessage { payload, ..large(1, 0, 0) }));
        // What follows may not be taken for the payload that never came.
        peers.send(2, small(1, 1));
        cluster.until(100, |it| it.downs(0) == 1 && it.downs(1) == 1).await;
        assert!(cluster.said_to(1).is_empty());
        cluster.all_up(1000).await;
    });
}

#[test]
fn what_overtakes_the_end_of_its_session_on_the_way_to_another_shard_is_dropped() {
    tell(SimulationOptions::new(6), &[1, 2], |mut cluster| async move {
        cluster.start(0).await;
        cluster.start(1).await;
        cluster.all_up(1000).await;
        let peers = Rc::clone(cluster.shard(1, 0));
        let id = peers.session(1).unwrap();
        let former = SessionId { number: id.number - 1, ..id };
        for (session, came) in [(former, 0), (id, 1)] {
            let mut forwards = Forwards::default();
            peers.deliver(session, vec![small(1, 0)], &mut forwards).await;
            cluster.sleep_ms(1).await;
            assert_eq!(cluster.said_to(1).len(), came);
        }
    });
}

#[test]
fn a_lane_that_goes_silent_ends_the_session() {
    // Heartbeats arrive; one lane's other end has stopped to say anything.
    tell(stormy(3), &[2, 2], |mut cluster| async move {
        cluster.nodes[1].options.lane_check = std::time::Duration::from_secs(3600);
        cluster.start(0).await;
        cluster.start(1).await;
        cluster.until(1000, |it| it.is_up(0, 1) && it.is_up(1, 0)).await;
        let ms = cluster.until(10_000, |it| it.downs(0) == 2).await;
        assert!((5000..=7000).contains(&ms), "{ms} ms");
        let says = cluster.shard(0, 0).status()[0].last_words.clone();
        assert!(says.contains("nothing came on lane"), "{says}");
        let keep = Rc::clone(cluster.shard(0, 0));
        cluster.simulation.executor().spawn(HARNESS, async move { drop(keep) });
    });
}
