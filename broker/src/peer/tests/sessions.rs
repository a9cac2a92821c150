//! Sessions as they should be: found, kept, used, ended.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use vltava_protocol::types::Uuid;

use super::cluster::{Cluster, MS, PORT, Told, check_diary, large, small, tell};
use crate::peer::greeting::{Introduction, Refusal, RefusalCode};
use crate::peer::peers::RequestError;
use crate::runtime::sim::{Crash, HARNESS, NetworkOptions, SimulationOptions};
use crate::runtime::{Connection, Network, Runtime};

fn calm(seed: u64) -> SimulationOptions {
    SimulationOptions::new(seed)
}

/// Small windows, partial sends, late segments; nothing breaks.
pub(super) fn stormy(seed: u64) -> SimulationOptions {
    let network = NetworkOptions {
        spike_per_million: 20_000,
        spike_ns_max: 20 * MS,
        window_bytes: 512..=65_536,
        piece_bytes_max: 4000,
        partial_per_million: 100_000,
        ..NetworkOptions::default()
    };
    SimulationOptions { network, ..SimulationOptions::new(seed) }
}

async fn two(mut cluster: Cluster) -> Cluster {
    cluster.start(0).await;
    cluster.start(1).await;
    cluster.all_up(1000).await;
    cluster
}

#[test]
fn nodes_find_each_other_whoever_comes_first() {
    for (seed, shards) in [(1, [1, 1]), (2, [2, 3]), (3, [5, 1]), (4, [1, 4])] {
        for first in [0, 1] {
            tell(calm(seed), &shards, |mut cluster| async move {
                cluster.start(first).await;
                cluster.sleep_ms(5000).await;
                cluster.start(1 - first).await;
                // The second one's greeting cuts the first one's pause short.
                let ms = cluster.until(1000, |it| it.is_up(0, 1) && it.is_up(1, 0)).await;
                assert!(ms < 60, "{ms} ms");
                let of = |index: usize, shard| {
                    cluster.shard(index, shard).session(2 - index as i32).unwrap().number
                };
                assert!((0..shards[0]).all(|shard| of(0, shard) == of(1, 0)));
                cluster.sleep_ms(20_000).await;
                assert_eq!((cluster.downs(0), cluster.downs(1)), (0, 0));
                cluster.nodes.iter().for_each(check_diary);
            });
        }
    }
}

#[test]
fn what_is_said_arrives_once_in_order_on_the_shard_of_its_group() {
    for (seed, shards) in [(1, [1, 1]), (2, [2, 3]), (3, [3, 2]), (4, [1, 4])] {
        tell(stormy(seed), &shards, |cluster| async move {
            let cluster = two(cluster).await;
            for from in [0, 1] {
                let peer = 2 - from as i32;
                for number in 0..100 {
                    for group in 0..6 {
                        let shard = group as usize % shards[from];
                        let peers = cluster.shard(from, shard);
                        if (number + i64::from(group)) % 3 == 0 {
                            let bytes = 1 + (number as usize * 37) % 5000;
                            let room = peers.room(peer, 6000).await.unwrap();
                            assert_eq!(room.bytes(), 6000);
                            assert!(room.send(large(group, number, bytes)));
                        } else {
                            assert!(peers.send(peer, small(group, number)));
                        }
                    }
                }
            }
            cluster
                .until(60_000, |it| it.said_to(0).len() == 600 && it.said_to(1).len() == 600)
                .await;
            cluster.nodes.iter().for_each(check_diary);
            assert_eq!((cluster.downs(0), cluster.downs(1)), (0, 0));
        });
    }
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        tell(stormy(seed), &[2, 2], |cluster| async move {
            let cluster = two(cluster).await;
            for number in 0..20 {
                cluster.shard(0, 1).send(2, small(1, number));
            }
            cluster.until(5000, |it| it.said_to(1).len() == 20).await;
        })
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_killed_process_is_seen_at_once_and_found_again() {
    for victim in [0, 1] {
        tell(calm(7), &[2, 2], |cluster| async move {
            let (mut cluster, other) = (two(cluster).await, 1 - victim);
            let before = cluster.shard(other, 0).session(1 + victim as i32).unwrap();
            cluster.kill(victim, Crash::Process);
            let ms = cluster.until(1000, |it| it.downs(other) == 2).await;
            assert!(ms <= 2, "{ms} ms");
            assert!(!cluster.shard(other, 1).send(before.node, small(0, 0)));
            cluster.sleep_ms(3000).await;
            cluster.start(victim).await;
            let ms = cluster.until(2000, |it| it.is_up(0, 1) && it.is_up(1, 0)).await;
            assert!(ms < 60, "{ms} ms");
            let after = cluster.shard(other, 0).session(1 + victim as i32).unwrap();
            assert!(after.number > before.number);
            check_diary(&cluster.nodes[other]);
        });
    }
}

/// Two processes with one data directory, or a copy: only the one that was started last gets
/// sessions, so they do not end each other's in turn.
#[test]
fn of_two_with_one_disk_the_earlier_stays_outside() {
    tell(calm(9), &[1, 1], |cluster| async move {
        let mut cluster = two(cluster).await;
        let here = Rc::clone(cluster.shard(0, 0));
        let link = here.link_of(here.session(2).unwrap()).unwrap();
        let of = |start| Introduction { start, ..link.introduction.as_ref().clone() };
        let start = link.introduction.start;
        let refusal = here.judge(&of(start - 1)).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::DUPLICATE_NODE);
        for started in [start, start + 1] {
            assert!(here.judge(&of(started)).is_ok(), "it may be the same, started again");
        }
        cluster.kill(1, Crash::Process);
        cluster.until(1000, |it| it.downs(0) == 1).await;
        assert!(here.judge(&of(start - 1)).is_ok(), "its clock was set back");
    });
}

#[test]
fn a_node_without_power_is_down_after_five_beats() {
    for seed in 0..10 {
        tell(calm(800 + seed), &[1, 1], |cluster| async move {
            let mut cluster = two(cluster).await;
            cluster.sleep_ms(777).await;
            cluster.kill(1, Crash::Power);
            let ms = cluster.until(1000, |it| it.downs(0) == 1).await;
            assert!(ms <= 390, "{ms} ms");
        });
    }
}

#[test]
fn silence_in_one_direction_ends_it_in_both_and_it_heals() {
    for (from, to) in [(0, 1), (1, 0)] {
        tell(calm(9), &[2, 1], |cluster| async move {
            let cluster = two(cluster).await;
            let hosts = [cluster.nodes[from].host, cluster.nodes[to].host];
            cluster.simulation.block(hosts[0], hosts[1]);
            let ms = cluster.until(1000, |it| it.downs(0) == 2 && it.downs(1) == 1).await;
            assert!((290..=390).contains(&ms), "{ms} ms");
            cluster.sleep_ms(10_000).await;
            assert!(!cluster.is_up(0, 1) && !cluster.is_up(1, 0));
            cluster.simulation.unblock_all();
            let ms = cluster.until(5000, |it| it.is_up(0, 1) && it.is_up(1, 0)).await;
            assert!(ms < 5000, "{ms} ms");
            cluster.nodes.iter().for_each(check_diary);
        });
    }
}

#[test]
fn a_short_pause_is_forgiven_and_an_own_long_one_blames_nobody() {
    tell(calm(10), &[2, 2], |cluster| async move {
        let cluster = two(cluster).await;
        let host = cluster.nodes[1].host;
        for _ in 0..5 {
            cluster.simulation.pause(host);
            cluster.sleep_ms(220).await;
            cluster.simulation.resume(host);
            cluster.sleep_ms(500).await;
        }
        assert_eq!((cluster.downs(0), cluster.downs(1)), (0, 0));
    });
    tell(calm(11), &[1, 1], |mut cluster| async move {
        // This one waits long for others: only the paused node could be mistaken.
        cluster.nodes[0].options.heartbeats_missed_max = 1000;
        let cluster = two(cluster).await;
        let host = cluster.nodes[1].host;
        cluster.simulation.pause(host);
        cluster.sleep_ms(5000).await;
        cluster.simulation.resume(host);
        cluster.sleep_ms(2000).await;
        assert_eq!((cluster.downs(0), cluster.downs(1)), (0, 0));
    });
    tell(calm(12), &[1, 1], |cluster| async move {
        let cluster = two(cluster).await;
        let host = cluster.nodes[1].host;
        cluster.simulation.pause(host);
        cluster.until(400, |it| it.downs(0) == 1).await;
        cluster.sleep_ms(5000).await;
        cluster.simulation.resume(host);
        cluster.until(1500, |it| it.is_up(0, 1) && it.is_up(1, 0)).await;
        assert_eq!(cluster.downs(1), 1);
        cluster.nodes.iter().for_each(check_diary);
    });
}

/// Starts both, and waits until each was refused, or refuses, with these words.
async fn refused(mut cluster: Cluster, words: [&'static str; 2]) -> Cluster {
    cluster.start(0).await;
    cluster.start(1).await;
    for (index, words) in words.into_iter().enumerate() {
        let says = |it: &Cluster| it.shard(index, 0).status()[0].last_words.clone();
        cluster.until(1000, |it| !says(it).is_empty()).await;
        assert!(says(&cluster).contains(words), "{index}: {}", says(&cluster));
    }
    cluster.sleep_ms(20_000).await;
    assert!(!cluster.is_up(0, 1) && !cluster.is_up(1, 0));
    assert!(cluster.nodes.iter().all(|node| node.diary.told.borrow().is_empty()));
    cluster
}

#[test]
fn another_cluster_is_refused() {
    tell(calm(13), &[1, 1], |mut cluster| async move {
        cluster.nodes[1].cluster = Some(Uuid(6));
        let words = "node 2 belongs to cluster AAAAAAAAAAAAAAAAAAAABg";
        let mut cluster = refused(cluster, [words, "node 1 belongs to cluster"]).await;
        let says = cluster.shard(1, 0).status()[0].last_words.clone();
        assert!(says.contains("--peers"), "what to do: {says}");
        // One that belongs to none yet is the caller's to judge.
        cluster.kill(1, Crash::Process);
        cluster.nodes[1].cluster = None;
        cluster.start(1).await;
        cluster.all_up(10_000).await;
    });
}

#[test]
fn a_version_that_cannot_talk_is_refused() {
    tell(calm(14), &[1, 1], |mut cluster| async move {
        cluster.nodes[0].protocol = (2, 4);
        let words = "no common version of the protocol between nodes";
        let mut cluster = refused(cluster, [words, words]).await;
        cluster.kill(1, Crash::Process);
        cluster.nodes[1].protocol = (1, 2);
        cluster.start(1).await;
        cluster.all_up(10_000).await;
    });
}

#[test]
fn whom_the_caller_refuses_is_refused() {
    for refuses in [0, 1] {
        tell(calm(15), &[1, 1], |cluster| async move {
            let refusal = Refusal::new(RefusalCode::UNKNOWN_NODE, "not one of ours");
            let diary = Rc::clone(&cluster.nodes[refuses].diary);
            *diary.admits.borrow_mut() = Rc::new(move |_| Err(refusal.clone()));
            let cluster = refused(cluster, ["not one of ours", "not one of ours"]).await;
            *diary.admits.borrow_mut() = Rc::new(|_| Ok(()));
            cluster.all_up(10_000).await;
        });
    }
}

#[test]
fn a_second_node_of_a_number_is_refused_while_the_first_lives() {
    // Nodes 1 and 2, and a third that says it is node 2, with another disk.
    tell(calm(16), &[1, 1, 1], |mut cluster| async move {
        cluster.nodes[2].id = 2;
        cluster.start(0).await;
        cluster.start(1).await;
        cluster.until(1000, |it| it.is_up(0, 1)).await;
        cluster.start(2).await;
        cluster.until(1000, |it| !it.shard(2, 0).status()[0].last_words.is_empty()).await;
        let says = cluster.shard(2, 0).status()[0].last_words.clone();
        assert!(says.contains("node 2 runs with disk") && says.contains("--node-id"), "{says}");
        cluster.sleep_ms(20_000).await;
        assert_eq!((cluster.downs(0), cluster.downs(1)), (0, 0));
        assert!(cluster.nodes[2].diary.told.borrow().is_empty());
        // The first is gone for good: whether the wiped disk may come is the caller's to say.
        cluster.kill(1, Crash::Process);
        let address = cluster.address(2);
        cluster.shard(0, 0).know(2, address);
        cluster.until(12_000, |it| it.is_up(2, 0)).await;
        check_diary(&cluster.nodes[0]);
    });
}

#[test]
fn votes_do_not_wait_behind_megabytes() {
    let network = NetworkOptions { window_bytes: 65_536..=65_536, ..NetworkOptions::default() };
    // Each piece takes 5 ms and more: about 13 MB/s.
    let network = NetworkOptions { latency_ns: 5 * MS..=5 * MS, ..network };
    let options = SimulationOptions { network, ..calm(17) };
    tell(options, &[1, 1], |cluster| async move {
        let cluster = two(cluster).await;
        let peers = cluster.shard(0, 0);
        for number in 0..100 {
            let room = peers.room(2, 1 << 20).await.unwrap();
            room.send(large(1, number, 1 << 20));
        }
        assert!(cluster.said_to(1).len() < 95, "all of it has left already");
        peers.send(2, small(1, 100));
        peers.send(2, small(2, 0));
        let before = cluster.said_to(1).len();
        cluster.until(5000, |it| it.said_to(1).contains(&(2, 0))).await;
        let between = cluster.said_to(1).len() - before;
        assert!(between <= 3, "{between} payloads before a vote");
        cluster.until(60_000, |it| it.said_to(1).contains(&(1, 100))).await;
        check_diary(&cluster.nodes[1]);
        assert_eq!((cluster.downs(0), cluster.downs(1)), (0, 0), "nobody was taken for dead");
    });
}

#[test]
fn who_takes_nothing_in_slows_the_sender_down() {
    // The window, a turn, and what the network holds; and what may wait for another shard of the
    // receiver, where that owns the group.
    for (shards, shard, most) in [([2, 1], 1, 11), ([1, 2], 0, 20)] {
        tell(calm(18), &shards, |cluster| async move {
            let cluster = two(cluster).await;
            let diary = Rc::clone(&cluster.nodes[1].diary);
            let peers = Rc::clone(cluster.shard(0, shard));
            diary.holds.set(true);
            let sent = Rc::new(std::cell::Cell::new(0));
            let count = Rc::clone(&sent);
            cluster.simulation.executor().spawn(HARNESS, async move {
                for number in 0..200 {
                    let room = peers.room(2, 1 << 20).await.unwrap();
                    room.send(large(1, number, 1 << 20));
                    count.set(number + 1);
                }
            });
            cluster.sleep_ms(10_000).await;
            assert!((8..=most).contains(&sent.get()), "{} MiB", sent.get());
            assert!(cluster.shard(0, shard).room(2, 1 << 20).now_or_never().is_none());
            let others = (0..shards[0]).filter(|other| *other != shard);
            for other in others {
                let room = cluster.shard(0, other).room(2, 1 << 20).now_or_never();
                assert!(room.flatten().is_some(), "another shard's is its own");
            }
            assert_eq!(cluster.downs(0), 0, "slow is not dead");
            diary.holds.set(false);
            cluster.until(60_000, |it| it.said_to(1).len() == 200).await;
            check_diary(&cluster.nodes[1]);
        });
    }
}

#[test]
fn who_waits_for_room_learns_that_the_node_is_down() {
    tell(calm(19), &[1, 1], |cluster| async move {
        let mut cluster = two(cluster).await;
        let peers = Rc::clone(cluster.shard(0, 0));
        let all = peers.room(2, 64 << 20).await.unwrap();
        let waiting = Rc::clone(&peers);
        let learned = Rc::new(std::cell::Cell::new(false));
        let learns = Rc::clone(&learned);
        cluster.simulation.executor().spawn(HARNESS, async move {
            assert!(waiting.room(2, 1).await.is_none());
            learns.set(true);
        });
        cluster.sleep_ms(1000).await;
        assert!(!learned.get());
        cluster.kill(1, Crash::Process);
        cluster.sleep_ms(10).await;
        assert!(learned.get());
        assert!(!all.send(large(1, 0, 10)), "of a session that is over");
    });
}

#[test]
fn too_much_that_cannot_wait_ends_the_session() {
    tell(calm(20), &[1, 1], |mut cluster| async move {
        cluster.nodes[0].options.urgent_bytes_max = 100_000;
        let cluster = two(cluster).await;
        cluster.nodes[1].diary.holds.set(true);
        for number in 0.. {
            if !cluster.shard(0, 0).send(2, small(1, number)) {
                break;
            }
            if number % 100 == 0 {
                cluster.sleep_ms(1).await;
            }
        }
        cluster.nodes[1].diary.holds.set(false);
        let says = cluster.shard(0, 0).status()[0].last_words.clone();
        assert!(says.contains("bytes of messages wait"), "{says}");
        cluster.all_up(2000).await;
        cluster.nodes.iter().for_each(check_diary);
    });
}

#[test]
fn rooms_ask_rooms() {
    tell(stormy(21), &[2, 3], |mut cluster| async move {
        cluster.nodes[1].options.requests_max = 2;
        let mut cluster = two(cluster).await;
        let body = Bytes::from_static(b"abc");
        let answer = cluster.shard(0, 1).request(2, 3, body.clone()).await;
        assert_eq!(answer, Ok(Bytes::from_static(b"\x01cba")));
        let long: Bytes = (0..1_000_000u32).map(|index| index as u8).collect();
        let answer = cluster.shard(1, 2).request(1, 0, long.clone()).await.unwrap();
        assert!(answer[0] == 2 && answer[1..].iter().rev().eq(long.iter()));
        // Two wait; a third is one too many for that shard.
        let slow = |peers: Rc<_>| {
            let body = body.clone();
            async move { crate::peer::peers::Peers::request(&peers, 2, 500, body).await }
        };
        let peers = Rc::clone(cluster.shard(0, 1));
        let first = futures_util::future::join(slow(Rc::clone(&peers)), slow(Rc::clone(&peers)));
        let third = async {
            cluster.sleep_ms(200).await;
            peers.request(2, 1, body.clone()).await
        };
        let ((first, second), third) = futures_util::future::join(first, third).await;
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        assert_eq!(third, Err(RequestError::Busy));
        let under_way = slow(Rc::clone(&peers));
        let kill = async {
            cluster.sleep_ms(100).await;
            cluster.kill(1, Crash::Process);
        };
        let (broken, ()) = futures_util::future::join(under_way, kill).await;
        assert_eq!(broken, Err(RequestError::Broken));
        assert_eq!(peers.request(2, 1, body.clone()).await, Err(RequestError::Down));
    });
}

#[test]
fn a_forgotten_node_and_one_that_stops_are_gone() {
    tell(calm(22), &[1, 2], |cluster| async move {
        let cluster = two(cluster).await;
        cluster.shard(0, 0).forget(2);
        cluster.until(10, |it| it.downs(0) == 1 && it.downs(1) == 2).await;
        assert!(cluster.shard(0, 0).status().is_empty());
        cluster.shard(0, 0).know(2, cluster.address(1));
        cluster.all_up(2000).await;
        cluster.nodes[1].life.iter().for_each(|peers| peers.stop());
        cluster.until(10, |it| it.downs(0) == 2).await;
        cluster.sleep_ms(5000).await;
        assert!(!cluster.is_up(0, 1));
        cluster.nodes.iter().for_each(check_diary);
    });
}

#[test]
fn strangers_at_the_listener_disturb_nobody() {
    tell(calm(23), &[2, 2], |mut cluster| async move {
        cluster.nodes[1].options.handshakes_max = 3;
        let cluster = two(cluster).await;
        let runtime = cluster.simulation.start(cluster.simulation.add_host(), 1).remove(0);
        let address = std::net::SocketAddr::new(cluster.address(1).ip(), PORT);
        let mut open = Vec::new();
        let garbage: [&[u8]; 5] = [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 10, 0, 0, 0],
            &[6, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        ];
        for round in 0..20 {
            let socket = runtime.network().connect(address).await.unwrap();
            let bytes = garbage[round % garbage.len()].to_vec();
            // It may be closed already.
            let _sent = socket.send(vec![bytes.into()]).await;
            open.push(socket);
            cluster.sleep_ms(50).await;
        }
        cluster.sleep_ms(10_000).await;
        for socket in open {
            let (result, _) = socket.receive(bytes::BytesMut::with_capacity(10)).await;
            assert!(matches!(result, Ok(0) | Err(_)), "a stranger was answered");
        }
        assert_eq!((cluster.downs(0), cluster.downs(1)), (0, 0));
        {
            let told = cluster.nodes[1].diary.told.borrow();
            assert!(told.iter().all(|(_, told)| matches!(told, Told::Up { .. })));
        }
        // Nor later: their places are free again.
        cluster.shard(0, 0).forget(2);
        cluster.sleep_ms(100).await;
        cluster.shard(0, 0).know(2, cluster.address(1));
        cluster.all_up(2000).await;
    });
}
