//! Shards together: their start and end, and what they say to each other.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use futures_util::future::join_all;
use vltava_storage::io::{Disk, Durability, File, OpenMode};

use super::super::mesh::mesh;
use super::super::sync::yield_now;
use super::*;

#[test]
fn more_shards_than_cores() {
    run(5, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        let sent = Bytes::from(vec![u8::try_from(start.shard).unwrap(); 5]);
        client.send(vec![sent.clone()]).await.unwrap();
        assert_eq!(receive(&server, 5).await, sent);
    });
}

#[test]
fn every_shard_takes_connections_of_one_socket() {
    const CONNECTIONS: usize = 40;
    let directory = tempfile::tempdir().unwrap();
    let ports = mesh::<SocketAddr>(3, 4);
    let running = run_shards(&options(directory.path()), ports, |start, port| async move {
        let network = start.runtime.network().clone();
        if start.shard == 2 {
            // Each says where it listens; they share one socket, but the kernel hands
            // connections out to who waits.
            let (_, first) = port.receive().await;
            let mut takers = BTreeSet::new();
            for _ in 0..CONNECTIONS {
                let client = network.connect(first).await.unwrap();
                takers.insert(receive(&client, 1).await[0]);
            }
            assert_eq!(takers.len(), 2, "one shard took them all");
            start.stop.request();
            return Ok::<(), String>(());
        }
        let listener = if start.shard == 0 {
            let listener = network.listen(loopback()).await.unwrap();
            port.send(1, listener.local_address()).await.unwrap();
            listener
        } else {
            let (_, address) = port.receive().await;
            let listener = network.listen(address).await.unwrap();
            port.send(2, address).await.unwrap();
            listener
        };
        let shard = Bytes::from(vec![u8::try_from(start.shard).unwrap()]);
        start.runtime.spawn(Queue::Foreground, async move {
            while let Ok(server) = listener.accept().await {
                server.send(vec![shard.clone()]).await.unwrap();
            }
        });
        start.stop.requested().await;
        Ok(())
    });
    running.unwrap().join().unwrap();
}

#[test]
fn messages_cross_in_order_under_pressure() {
    const MESSAGES: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    // Queues of two: senders wait most of the time.
    let ports = mesh::<u64>(3, 2);
    let running = run_shards(&options(directory.path()), ports, |start, port| async move {
        let sending = async {
            for i in 0..MESSAGES {
                for to in 0..port.shards() {
                    port.send(to, i).await.unwrap();
                }
            }
        };
        let receiving = async {
            let mut next = vec![0; port.shards()];
            for i in 0..MESSAGES * port.shards() as u64 {
                let (from, message) = port.receive().await;
                assert_eq!(message, next[from], "of shard {from}");
                next[from] += 1;
                if i % 100 == 0 {
                    start.runtime.yield_if_needed().await;
                }
            }
        };
        join(sending, receiving).await;
        // Others may still want to send to this one.
        Ok::<(), String>(())
    });
    running.unwrap().join().unwrap();
}

#[test]
fn sleeping_shards_wake_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let ports = mesh::<u32>(2, 1);
    let running = run_shards(&options(directory.path()), ports, |start, port| async move {
        for round in 0..2_000 {
            if start.shard == 0 {
                port.send(1, round).await.unwrap();
                assert_eq!(port.receive().await, (1, round));
            } else {
                assert_eq!(port.receive().await, (0, round));
                port.send(0, round).await.unwrap();
            }
        }
        Ok::<(), String>(())
    });
    running.unwrap().join().unwrap();
}

#[test]
fn time_goes_on_and_random_bits_differ() {
    run(1, |start| async move {
        let runtime = start.runtime;
        let before = (runtime.now(), Instant::now());
        let deadline = before.0.after(Duration::from_millis(3));
        runtime.sleep_until(deadline).await;
        assert!(runtime.now() >= deadline);
        assert!(before.1.elapsed() >= Duration::from_millis(3));
        runtime.sleep_until(before.0).await; // In the past: at once.
        assert!(runtime.wall_clock_ms() > 1_700_000_000_000);
        let drawn: BTreeSet<u64> = (0..1000).map(|_| runtime.random_u64()).collect();
        assert_eq!(drawn.len(), 1000);
    });
}

#[test]
fn tasks_of_all_queues_run() {
    run(1, |start| async move {
        let mut done = Vec::new();
        for queue in [Queue::Foreground, Queue::Control, Queue::Recovery, Queue::Background] {
            let (sender, receiver) = oneshot::channel();
            let runtime = start.runtime.clone();
            start.runtime.spawn(queue, async move {
                runtime.yield_if_needed().await;
                sender.send(queue).unwrap();
            });
            done.push(receiver);
        }
        for receiver in done {
            receiver.await.unwrap();
        }
    });
}

#[test]
fn a_task_that_computes_for_long_holds_nobody_up() {
    // Each of these queues in turn has a task that never waits; what the others do goes on.
    let busy = [Queue::Background, Queue::Control, Queue::Foreground];
    for busy in busy {
        run(1, move |start| async move {
            let done = Rc::new(Cell::new(false));
            let computing = {
                let (runtime, done) = (start.runtime.clone(), Rc::clone(&done));
                async move {
                    while !done.get() {
                        runtime.yield_if_needed().await;
                    }
                }
            };
            start.runtime.spawn(busy, computing);
            let (client, server) = connected(&start.runtime).await;
            for _ in 0..20 {
                client.send(vec![Bytes::from_static(b"x")]).await.unwrap();
                receive(&server, 1).await;
            }
            for queue in [Queue::Recovery, Queue::Background, Queue::Control] {
                let (sender, receiver) = oneshot::channel();
                start.runtime.spawn(queue, async move { sender.send(()).unwrap() });
                receiver.await.unwrap();
            }
            let later = start.runtime.now().after(Duration::from_millis(2));
            start.runtime.sleep_until(later).await;
            done.set(true);
        });
    }
}

#[test]
fn connections_that_are_always_busy_leave_time_for_other_queues() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        start.runtime.spawn(Queue::Foreground, async move {
            loop {
                client.send(vec![Bytes::from_static(b"x")]).await.unwrap();
                receive(&server, 1).await;
            }
        });
        for _ in 0..20 {
            let (sender, receiver) = oneshot::channel();
            start.runtime.spawn(Queue::Background, async move { sender.send(()).unwrap() });
            receiver.await.unwrap();
        }
    });
}

#[test]
fn timers_go_off_in_order_and_may_be_given_up() {
    run(1, |start| async move {
        let runtime = start.runtime;
        let now = runtime.now();
        let at = |ms| now.after(Duration::from_millis(ms));
        let order = Rc::new(RefCell::new(Vec::new()));
        // Far enough that all of them have begun before the first goes off, on a busy machine, too.
        let sleeping = [400, 100, 250, 50].map(|ms| {
            let (order, sleep) = (Rc::clone(&order), runtime.sleep_until(at(ms)));
            async move {
                sleep.await;
                order.borrow_mut().push(ms);
            }
        });
        begin_and_drop(runtime.sleep_until(at(1))).await;
        begin_and_drop(runtime.sleep_until(at(60_000))).await;
        join_all(sleeping).await;
        assert_eq!(*order.borrow(), [50, 100, 250, 400]);
        assert!(runtime.now() >= at(400));
    });
}

#[test]
fn other_threads_wake_tasks_of_a_shard() {
    run(2, |_start| async move {
        let (requests, receiver) =
            std::sync::mpsc::channel::<futures_channel::oneshot::Sender<u64>>();
        let other = std::thread::spawn(move || {
            for (i, answer) in (0..).zip(receiver) {
                answer.send(i).unwrap();
            }
        });
        for i in 0..3_000 {
            let (answer, answered) = futures_channel::oneshot::channel();
            requests.send(answer).unwrap();
            if i % 3 == 0 {
                yield_now().await; // So that it meets the shard awake as well as asleep.
            }
            assert_eq!(answered.await.unwrap(), i);
        }
        drop(requests);
        other.join().unwrap();
    });
}

#[test]
fn the_first_shard_that_fails_ends_them_all() {
    let directory = tempfile::tempdir().unwrap();
    let running = run_shards(&options(directory.path()), vec![(); 3], |start, ()| async move {
        if start.shard == 1 {
            yield_now().await;
            return Err("no".to_owned());
        }
        start.stop.requested().await;
        Ok(())
    });
    let error = running.unwrap().join().unwrap_err();
    assert_eq!(error.to_string(), "shard 1: no");
}

#[test]
fn shards_end_with_requests_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let running = run_shards(&options(directory.path()), vec![(); 2], |start, ()| async move {
        let (client, server) = connected(&start.runtime).await;
        let runtime = start.runtime.clone();
        start.runtime.spawn(Queue::Foreground, async move {
            let (result, _) = server.receive(BytesMut::with_capacity(1 << 16)).await;
            assert!(result.is_err(), "{}", runtime.random_u64());
            drop(client);
        });
        for _ in 0..5 {
            yield_now().await;
        }
        Ok::<(), String>(())
    });
    running.unwrap().join().unwrap();
    // What they held is free again.
    DataDirectory::open(directory.path()).unwrap();
}

#[test]
fn a_termination_signal_is_waited_for() {
    let signals = ShutdownSignals::install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let running = run_shards(&options(directory.path()), vec![(); 2], move |start, ()| {
        let signals = signals.clone();
        async move {
            if start.shard == 0 {
                let waiting = start.runtime.shutdown_signal(&signals);
                let kill = async {
                    yield_now().await;
                    let own = std::process::id().to_string();
                    Command::new("kill").args(["-TERM", &own]).status().unwrap();
                };
                join(waiting, kill).await.0.unwrap();
                start.stop.request();
            }
            start.stop.requested().await;
            Ok::<(), String>(())
        }
    });
    running.unwrap().join().unwrap();
}

/// Runs one test of this file in a process of its own, where it finds `CHILD` set.
fn in_a_process_of_its_own(test: &str) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("runtime::tests::shards::{test}"), "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap()
}

const CHILD: &str = "VLTAVA_TEST_CHILD";

#[test]
fn shards_that_have_ended_leave_nothing_behind() {
    if std::env::var_os(CHILD).is_none() {
        let ended = in_a_process_of_its_own("shards_that_have_ended_leave_nothing_behind");
        assert!(ended.status.success(), "{ended:?}");
        return;
    }
    let held = || {
        let count = |path| std::fs::read_dir(path).unwrap().count();
        (count("/proc/self/fd"), count("/proc/self/task"))
    };
    let round = || {
        run(2, |start| async move {
            let (client, server) = connected(&start.runtime).await;
            let name = format!("log-{}", start.shard);
            let file = start.runtime.disk().open(&name, OpenMode::Create).await.unwrap();
            file.write_at(blocks(&[1]), 0, Durability::Flushed).await.unwrap();
            file.read_at(0, 1).await.unwrap();
            start.runtime.disk().list("").await.unwrap();
            // Tasks that wait for ever, each for something else, hold on to all of it.
            let runtime = start.runtime.clone();
            start.runtime.spawn(Queue::Foreground, async move {
                let _held = (client, file);
                let deadline = runtime.now().after(Duration::from_secs(3600));
                runtime.sleep_until(deadline).await;
            });
            let runtime = start.runtime.clone();
            start.runtime.spawn(Queue::Control, async move {
                let _held = runtime;
                server.readable().await.unwrap();
            });
            let runtime = start.runtime.clone();
            start.runtime.spawn(Queue::Background, async move {
                let _held = runtime;
                std::future::pending::<()>().await;
            });
            yield_now().await;
        });
    };
    let (_, threads) = held();
    // Threads that have nothing left to do end a moment later.
    let settled = |expected: &dyn Fn((usize, usize)) -> bool| {
        let patience = Instant::now() + Duration::from_secs(10);
        while !expected(held()) && Instant::now() < patience {
            std::thread::yield_now();
        }
        held()
    };
    round();
    round();
    let (descriptors, _) = settled(&|(_, now)| now == threads);
    for _ in 0..5 {
        round();
    }
    let allowed = (descriptors, threads);
    assert_eq!(settled(&|now| now == allowed), allowed);
}

#[test]
fn a_panic_in_a_task_ends_the_process() {
    if std::env::var_os(CHILD).is_some() {
        run(1, |start| async move {
            start.runtime.spawn(Queue::Control, async { panic!("on purpose") });
            start.stop.requested().await;
        });
        return;
    }
    let status = in_a_process_of_its_own("a_panic_in_a_task_ends_the_process");
    assert!(!status.status.success());
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(said.contains("on purpose"), "{said}");
}
