//! The ring and its executor, without a shard around them, in each of the ring's modes.

use std::io::Write;
use std::os::unix::net::UnixStream;

use futures_util::future::join_all;
use vltava_storage::io::{AlignedBuffer, BLOCK_BYTES};

use super::super::executor::Executor;
use super::super::request::{Handle, Request, SharedHandle};
use super::super::ring::Ring;
use super::super::setup::Mode;
use super::super::sync::yield_now;
use super::*;

const MODES: [Mode; 3] = [Mode::Deferred, Mode::Cooperative, Mode::Plain];

impl Handle for UnixStream {}
impl Handle for std::fs::File {}

/// Runs with a small ring, which must be empty afterwards.
fn with_ring<F: Future<Output = ()> + 'static>(mode: Mode, test: impl Fn(Ring) -> F) {
    let ring = Ring::small(4, 8, mode).unwrap();
    Executor::new(ring.clone()).unwrap().run(test(ring.clone()));
    assert_eq!((ring.in_flight(), ring.remembered()), (0, 0));
}

fn sleeping() -> (UnixStream, SharedHandle) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, Arc::new(theirs))
}

fn poll(handle: &SharedHandle) -> Request {
    Request::Poll { handle: Arc::clone(handle), events: u32::from(libc::POLLIN.cast_unsigned()) }
}

#[test]
fn more_requests_than_either_queue_holds() {
    for mode in MODES {
        with_ring(mode, |ring| async move {
            let (mut writer, handle) = sleeping();
            let waiting: Vec<_> = (0..500).map(|_| ring.ask(poll(&handle))).collect();
            while ring.in_flight() < 500 {
                yield_now().await;
            }
            // All complete at once.
            writer.write_all(b"x").unwrap();
            for (result, _) in join_all(waiting).await {
                assert_eq!(result.unwrap(), 1, "{mode:?}");
            }
        });
    }
}

#[test]
fn many_reads_of_a_file() {
    for mode in MODES {
        with_ring(mode, |ring| async move {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&pattern(1 << 20)).unwrap();
            let file: SharedHandle = Arc::new(file);
            let reads = (0..300usize).map(|i| {
                ring.ask(Request::Read {
                    handle: Arc::clone(&file),
                    buffer: BytesMut::with_capacity(64),
                    len: 10,
                    position: i as u64 * 1000,
                })
            });
            let expected = pattern(1 << 20);
            for (i, (result, request)) in join_all(reads).await.into_iter().enumerate() {
                assert_eq!(result.unwrap(), 10);
                let Request::Read { buffer, .. } = request else { unreachable!("what was asked") };
                assert_eq!(buffer, expected[i * 1000..i * 1000 + 10], "{mode:?} {i}");
            }
        });
    }
}

/// Few of those that move much are with the kernel at a time, and the others do not wait for them.
#[test]
fn what_moves_much_goes_out_a_few_at_a_time() {
    for mode in MODES {
        with_ring(mode, |ring| async move {
            let (_writer, handle) = sleeping();
            let read = || {
                let buffer = AlignedBuffer::new(BLOCK_BYTES);
                let len = BLOCK_BYTES;
                // Of a socket: it waits.
                ring.ask(Request::ReadBlocks {
                    handle: Arc::clone(&handle),
                    buffer,
                    len,
                    position: 0,
                })
            };
            let mut reads: Vec<_> = (0..30).map(|_| read()).collect();
            let (mut other, theirs) = sleeping();
            let waiting = ring.ask(poll(&theirs));
            while ring.in_flight() < 9 {
                yield_now().await;
            }
            yield_now().await;
            assert_eq!((ring.in_flight(), ring.remembered()), (9, 31), "{mode:?}");
            other.write_all(b"x").unwrap();
            waiting.await.0.unwrap();
            // Given up before they went out.
            reads.truncate(20);
            drop(_writer);
            for (result, _) in join_all(reads).await {
                assert_eq!(result.unwrap(), 0, "{mode:?}");
            }
        });
    }
}

#[test]
fn what_is_given_up_is_cancelled_and_forgotten() {
    for mode in MODES {
        with_ring(mode, |ring| async move {
            let (_writer, handle) = sleeping();
            drop(ring.ask(poll(&handle))); // Before it went out.
            let kept = ring.ask(poll(&handle));
            let mut given_up: Vec<_> = (0..20).map(|_| ring.ask(poll(&handle))).collect();
            while ring.in_flight() < 21 {
                yield_now().await;
            }
            given_up.clear();
            while ring.remembered() > 1 {
                yield_now().await;
            }
            drop(kept);
        });
    }
}

#[test]
fn a_task_is_woken_that_sleeps_while_the_thread_does() {
    for mode in MODES {
        with_ring(mode, |ring| async move {
            let (mut writer, handle) = sleeping();
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            let other = std::thread::spawn(move || {
                while receiver.recv().is_ok() {
                    writer.write_all(b"x").unwrap();
                }
            });
            for _ in 0..1000 {
                let mut waiting = ring.ask(poll(&handle));
                begin_and_drop(&mut waiting).await;
                sender.send(()).unwrap();
                let (result, _) = waiting.await;
                result.unwrap();
                let request = Request::Receive {
                    handle: Arc::clone(&handle),
                    buffer: BytesMut::with_capacity(1),
                };
                let (result, _) = ring.ask(request).await;
                assert_eq!(result.unwrap(), 1);
            }
            drop(sender);
            other.join().unwrap();
        });
    }
}

#[test]
fn a_shutdown_answers_who_waits() {
    for mode in MODES {
        with_ring(mode, |ring| async move {
            let (_writer, handle) = sleeping();
            let mut waiting: Vec<_> = (0..10).map(|_| ring.ask(poll(&handle))).collect();
            while ring.in_flight() < 10 {
                yield_now().await;
            }
            waiting.push(ring.ask(poll(&handle))); // Not submitted yet.
            ring.shut_down();
            waiting.push(ring.ask(poll(&handle))); // Too late.
            for (result, _) in join_all(waiting).await {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
            }
        });
    }
}
