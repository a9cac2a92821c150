//! The machine's back end on the real machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, join, join_all, select};
use vltava_protocol::encode::ExternalBytes;
use vltava_storage::io::{
    AlignedBuffer, BLOCK_BYTES, Disk, Durability, File, IoErrorKind, OpenMode,
};

use super::mesh::mesh;
use super::sync::{Event, yield_now};
use super::*;

/// Runs one future on each of so many shards, over a directory of its own.
fn run<F>(shards: usize, make: impl Fn(ShardStart) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let directory = tempfile::tempdir().unwrap();
    run_over(options(directory.path()), shards, make);
}

fn options(path: &std::path::Path) -> Options {
    Options {
        data_directory: Arc::new(DataDirectory::open(path).unwrap()),
        recorder: None,
    }
}

fn run_over<F>(
    options: Options,
    shards: usize,
    make: impl Fn(ShardStart) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    let make = move |start, ()| {
        let shard = make(start);
        async move {
            shard.await;
            Ok::<(), String>(())
        }
    };
    let running = run_shards(&options, vec![(); shards], make).unwrap();
    running.join().unwrap();
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Both ends of a connection.
async fn connected(runtime: &MachineRuntime) -> (MachineConnection, MachineConnection) {
    let listener = runtime.network().listen(loopback()).await.unwrap();
    let address = listener.local_address();
    let (ours, theirs) = join(runtime.network().connect(address), listener.accept()).await;
    (ours.unwrap(), theirs.unwrap())
}

async fn receive_exactly(connection: &MachineConnection, len: usize) -> Bytes {
    let mut buffer = BytesMut::with_capacity(len);
    while buffer.len() < len {
        let (result, filled) = connection.receive(buffer).await;
        assert_ne!(result.unwrap(), 0, "ended after {} of {len}", filled.len());
        buffer = filled;
    }
    buffer.freeze()
}

#[test]
fn a_message_goes_there_and_back() {
    run(1, |start| async move {
        let (client, server) = connected(&start.runtime).await;
        client
            .send(vec![
                Bytes::from_static(b"one "),
                Bytes::new(),
                Bytes::from_static(b"two"),
            ])
            .await
            .unwrap();
        server.readable().await.unwrap();
        assert_eq!(receive_exactly(&server, 7).await, "one two");
        server
            .send(vec![Bytes::from_static(b"answer")])
            .await
            .unwrap();
        assert_eq!(receive_exactly(&client, 6).await, "answer");
        assert_eq!(client.peer_address(), server.local_address());
        assert_eq!(client.local_address(), server.peer_address());
        client.close();
        let (result, _) = server.receive(BytesMut::with_capacity(1)).await;
        assert_eq!(result.unwrap(), 0);
    });
}

#[test]
fn a_file_keeps_what_is_written() {
    run(1, |start| async move {
        let disk = start.runtime.disk();
        disk.create_dir("topic-0").await.unwrap();
        let file = disk.open("topic-0/log", OpenMode::Create).await.unwrap();
        file.allocate(0, 1 << 20).await.unwrap();
        let mut buffer = AlignedBuffer::new(3 * BLOCK_BYTES);
        buffer.append(&[7; BLOCK_BYTES + 9]);
        let blocks = buffer.blocks(0..BLOCK_BYTES + 9);
        file.write_at(blocks, 4096, Durability::Flushed)
            .await
            .unwrap();
        assert_eq!(file.len().await.unwrap(), 1 << 20);
        let read = file.read_at(4095, BLOCK_BYTES + 11).await.unwrap();
        assert_eq!(read[0], 0);
        assert!(read[1..BLOCK_BYTES + 10].iter().all(|byte| *byte == 7));
        assert_eq!(read[BLOCK_BYTES + 10], 0);
        file.set_len(4096 + 9).await.unwrap();
        assert_eq!(file.read_at(4096, 100).await.unwrap(), [7; 9][..]);
        file.sync().await.unwrap();
        disk.sync_dir("topic-0").await.unwrap();
    });
}
