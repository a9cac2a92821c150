//! The machine's back end on the real machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod files;
mod rings;
mod shards;
mod sockets;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use vltava_storage::io::{AlignedBlocks, AlignedBuffer};

use super::*;

/// Runs one future on each of so many shards, over a directory of its own.
fn run<F>(shards: usize, make: impl Fn(ShardStart) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let directory = tempfile::tempdir().unwrap();
    run_over(&options(directory.path()), shards, make);
}

fn options(path: &Path) -> Options {
    Options { data_directory: Arc::new(DataDirectory::open(path).unwrap()), recorder: None }
}

fn run_over<F>(
    options: &Options,
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
    let running = run_shards(options, vec![(); shards], make).unwrap();
    running.join().unwrap();
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Runs a future on this thread.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(output) = polled {
            return output;
        }
        std::thread::park();
    }
}

/// Both ends of a connection.
async fn connected(runtime: &MachineRuntime) -> (MachineConnection, MachineConnection) {
    let listener = runtime.network().listen(loopback()).await.unwrap();
    let address = listener.local_address();
    let (ours, theirs) = join(runtime.network().connect(address), listener.accept()).await;
    (ours.unwrap(), theirs.unwrap())
}

/// Exactly so many bytes.
async fn receive(connection: &MachineConnection, len: usize) -> Bytes {
    let mut buffer = BytesMut::with_capacity(len);
    while buffer.len() < len {
        // A buffer's capacity may be more than was asked for.
        let (result, filled) = connection.receive(buffer).await;
        assert_ne!(result.unwrap(), 0, "ended after {} of {len}", filled.len());
        buffer = filled;
    }
    assert_eq!(buffer.len(), len, "more came than was sent");
    buffer.freeze()
}

/// Begins a future, and gives it up where it is not done at once.
async fn begin_and_drop(future: impl Future) {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _begun = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend((0u64..).flat_map(|i| (i * 0x9e37_79b9).to_le_bytes()).take(len));
    bytes
}

/// Whole blocks of these bytes.
fn blocks(bytes: &[u8]) -> AlignedBlocks {
    let mut buffer = AlignedBuffer::new(bytes.len());
    buffer.append(bytes);
    buffer.blocks(0..bytes.len())
}
