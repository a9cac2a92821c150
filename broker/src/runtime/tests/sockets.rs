//! Connections, and files sent through them.

use std::io::ErrorKind;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::join_all;
use vltava_protocol::encode::ExternalBytes;
use vltava_storage::io::{Disk, Durability, File, OpenMode};

use super::super::socket::is_cached;
use super::super::sync::yield_now;
use super::*;

#[test]
fn a_message_goes_there_and_back() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        let parts = ["one ", "", "two"].map(|part| Bytes::from_static(part.as_bytes()));
        client.send(parts.to_vec()).await.unwrap();
        server.readable().await.unwrap();
        assert_eq!(receive(&server, 7).await, "one two");
        let answer = vec![Bytes::from_static(b"answer")];
        server.send(answer).await.unwrap();
        assert_eq!(receive(&client, 6).await, "answer");
        assert_eq!(client.peer_address(), server.local_address());
        assert_eq!(client.local_address(), server.peer_address());
    });
}

#[test]
fn received_bytes_go_behind_what_the_buffer_holds() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        client.send(vec![Bytes::from_static(b"tail")]).await.unwrap();
        let mut buffer = BytesMut::with_capacity(64);
        buffer.extend_from_slice(b"head ");
        let (result, buffer) = server.receive(buffer).await;
        assert_eq!(result.unwrap(), 4);
        assert_eq!(buffer, "head tail");
    });
}

#[test]
fn much_in_many_parts_arrives_in_order_while_the_peer_is_slow() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        let all = Bytes::from(pattern(16 << 20));
        // More parts than one call of the kernel takes.
        let mut parts: Vec<Bytes> = (0..3000).map(|i| all.slice(i * 7..i * 7 + 7)).collect();
        parts.push(all.slice(21_000..));
        let sending = client.send(parts);
        let receiving = async {
            for _ in 0..20 {
                yield_now().await;
            }
            receive(&server, all.len()).await
        };
        let (sent, received) = join(sending, receiving).await;
        sent.unwrap();
        assert!(received == all);
    });
}

#[test]
fn close_ends_calls_under_way_and_later_ones() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        let (wakes, woken) = oneshot::channel();
        let waiting = server.clone();
        start.runtime.spawn(Queue::Foreground, async move {
            let receiving = waiting.receive(BytesMut::with_capacity(8));
            let ((received, _), readable) = join(receiving, waiting.readable()).await;
            wakes.send((received.ok(), readable.is_ok())).unwrap();
        });
        let stuck = server.clone();
        let (fails, failed) = oneshot::channel();
        start.runtime.spawn(Queue::Foreground, async move {
            // The peer does not read: this waits for room.
            let sent = stuck.send(vec![Bytes::from(vec![0; 64 << 20])]).await;
            fails.send(sent.is_err()).unwrap();
        });
        for _ in 0..10 {
            yield_now().await;
        }
        server.close();
        assert_eq!(woken.await, Ok((Some(0), true)));
        assert_eq!(failed.await, Ok(true));
        server.readable().await.unwrap();
        let (result, _) = server.receive(BytesMut::with_capacity(8)).await;
        assert_eq!(result.unwrap(), 0);
        assert!(server.send(vec![Bytes::from_static(b"x")]).await.is_err());
        server.close();
        drop(client);
    });
}

#[test]
fn a_peer_that_resets_is_an_error() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        server.send(vec![Bytes::from_static(b"unread")]).await.unwrap();
        client.readable().await.unwrap();
        drop(client); // Closed with bytes unread: a reset.
        server.readable().await.unwrap();
        let (result, _) = server.receive(BytesMut::with_capacity(8)).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn calls_that_are_given_up_leave_the_connection_well() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        for _ in 0..100 {
            begin_and_drop(server.receive(BytesMut::with_capacity(64))).await;
            begin_and_drop(server.readable()).await;
            yield_now().await;
            begin_and_drop(server.receive(BytesMut::with_capacity(64))).await;
        }
        for _ in 0..10 {
            yield_now().await;
        }
        client.send(vec![Bytes::from_static(b"still here")]).await.unwrap();
        assert_eq!(receive(&server, 10).await, "still here");
    });
}

#[test]
fn an_accept_that_is_given_up_takes_no_connection() {
    run(1, |start| async move {
        let network = start.runtime.network();
        let listener = network.listen(loopback()).await.unwrap();
        begin_and_drop(listener.accept()).await;
        yield_now().await;
        begin_and_drop(listener.accept()).await;
        for _ in 0..10 {
            yield_now().await;
        }
        let connecting = network.connect(listener.local_address());
        let (client, server) = join(connecting, listener.accept()).await;
        client.unwrap().send(vec![Bytes::from_static(b"x")]).await.unwrap();
        assert_eq!(receive(&server.unwrap(), 1).await, "x");
    });
}

#[test]
fn nobody_listens_there() {
    run(1, |start| async move {
        let network = start.runtime.network();
        let address = network.listen(loopback()).await.unwrap().local_address();
        let error = network.connect(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn version_6_addresses_work() {
    run(1, |start| async move {
        let network = start.runtime.network();
        let Ok(listener) = network.listen("[::1]:0".parse().unwrap()).await else {
            return; // A machine without them.
        };
        let connecting = network.connect(listener.local_address());
        let (client, server) = join(connecting, listener.accept()).await;
        assert_eq!(client.unwrap().local_address(), server.unwrap().peer_address());
    });
}

#[test]
fn a_port_that_another_process_uses_is_refused_and_our_shards_share_one() {
    run(1, |start| async move {
        let address = start.runtime.network().listen(loopback()).await.unwrap();
        let address = address.local_address();
        // Dropped, so free again.
        let first = start.runtime.network().listen(address).await.unwrap();
        let shared = start.runtime.network().listen(address).await.unwrap();
        // Another set of shards is as good as another process.
        std::thread::spawn(move || {
            run(2, move |start| async move {
                let error = start.runtime.network().listen(address).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AddrInUse);
            });
        })
        .join()
        .unwrap();
        drop(first);
        let connecting = start.runtime.network().connect(address);
        let (client, server) = join(connecting, shared.accept()).await;
        assert_eq!(client.unwrap().peer_address(), server.unwrap().local_address());
    });
}

#[test]
fn hundreds_of_connections_at_once() {
    run(1, |start| async move {
        let network = start.runtime.network();
        let listener = network.listen(loopback()).await.unwrap();
        let address = listener.local_address();
        let runtime = start.runtime.clone();
        start.runtime.spawn(Queue::Foreground, async move {
            while let Ok(server) = listener.accept().await {
                runtime.spawn(Queue::Foreground, async move {
                    server.readable().await.unwrap();
                    let received = receive(&server, 100).await;
                    server.send(vec![received]).await.unwrap();
                });
            }
        });
        let clients = (0..300u16).map(|i| async move {
            let client = network.connect(address).await.unwrap();
            let sent = Bytes::from(i.to_le_bytes().repeat(50));
            client.send(vec![sent.clone()]).await.unwrap();
            assert_eq!(receive(&client, 100).await, sent);
        });
        join_all(clients).await;
    });
}

const FILE_BYTES: usize = 5 << 20;

/// A file of [`pattern`], as a range to send.
async fn file(runtime: &MachineRuntime, name: &str) -> (MachineFile, ExternalBytes) {
    let file = runtime.disk().open(name, OpenMode::Create).await.unwrap();
    let bytes = pattern(FILE_BYTES);
    file.write_at(blocks(&bytes), 0, Durability::Flushed).await.unwrap();
    let range = ExternalBytes { source: file.source(), position: 4097, len: FILE_BYTES - 5000 };
    (file, range)
}

/// Throws a file out of the page cache.
async fn evict(runtime: &MachineRuntime, directory: &Path, name: &str) {
    let file = runtime.disk().open(name, OpenMode::Read).await.unwrap();
    file.sync().await.unwrap();
    let path = directory.join(name);
    let status = std::process::Command::new("dd")
        .arg(format!("of={}", path.display()))
        .args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_range_of_a_file_is_sent_from_the_cache_and_from_the_disk() {
    let directory = tempfile::tempdir_in(".").unwrap();
    let path = directory.path().to_owned();
    run_over(&options(directory.path()), 1, move |start| {
        let path = path.clone();
        async move {
            let (client, server) = connected(&start.runtime).await;
            let (written, range) = file(&start.runtime, "log").await;
            let expected = pattern(FILE_BYTES)[4097..FILE_BYTES - 903].to_vec();
            // Written past the page cache, then from it, then thrown out of it.
            for round in ["direct", "cached", "evicted"] {
                let cached = std::fs::File::open(path.join("log")).unwrap();
                let in_cache = || is_cached(&cached, 0, FILE_BYTES);
                if round == "cached" {
                    written.read_at(0, FILE_BYTES).await.unwrap();
                    assert!(in_cache(), "{round}");
                }
                if round == "evicted" {
                    evict(&start.runtime, &path, "log").await;
                    assert!(!in_cache(), "{round}");
                }
                let (sent, received) =
                    join(server.send_file(&range), receive(&client, range.len)).await;
                sent.unwrap();
                assert!(received == expected, "{round}");
            }
        }
    });
}

#[test]
fn a_file_shorter_than_its_range_is_an_error() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        let (_file, mut range) = file(&start.runtime, "log").await;
        range.len = FILE_BYTES;
        let sending = server.send_file(&range);
        let (sent, _) = join(sending, receive(&client, FILE_BYTES - 4097)).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_removed_file_is_sent_from_any_shard() {
    let ranges = mesh::mesh::<ExternalBytes>(2, 1);
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let running = run_shards(&options, ranges, |start, port| async move {
        if start.shard == 0 {
            let (file, range) = file(&start.runtime, "log").await;
            start.runtime.disk().remove_file("log").await.unwrap();
            drop(file);
            port.send(1, range).await.unwrap();
            start.stop.requested().await;
        } else {
            let (_, range) = port.receive().await;
            let (client, server) = connected(&start.runtime).await;
            let (sent, received) =
                join(server.send_file(&range), receive(&client, range.len)).await;
            sent.unwrap();
            assert!(received == pattern(FILE_BYTES)[4097..FILE_BYTES - 903]);
            start.stop.request();
        }
        Ok::<(), String>(())
    });
    running.unwrap().join().unwrap();
}

#[test]
fn what_is_no_file_is_not_sent() {
    run(1, |start| async move {
        let (_client, server) = connected(&start.runtime).await;
        let range = ExternalBytes { source: Arc::new(7), position: 0, len: 1 };
        let error = server.send_file(&range).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody_else() {
    run(1, |start| async move {
        let (slow, sends) = connected(&start.runtime).await;
        let (_file, range) = file(&start.runtime, "log").await;
        let ranges = vec![range; 10];
        start.runtime.spawn(Queue::Foreground, async move {
            for range in ranges {
                if sends.send_file(&range).await.is_err() {
                    return;
                }
            }
        });
        let (client, server) = connected(&start.runtime).await;
        for _ in 0..100 {
            server.send(vec![Bytes::from_static(b"x")]).await.unwrap();
            assert_eq!(receive(&client, 1).await, "x");
        }
        let until = start.runtime.now().after(Duration::from_millis(1));
        start.runtime.sleep_until(until).await;
        slow.close();
        slow.readable().await.unwrap();
    });
}
