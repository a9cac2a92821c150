//! Sockets of one process on the simulated network: what rooms above get as `Runtime::network`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use vltava_protocol::encode::ExternalBytes;
use vltava_storage::io::fault_disk::FaultSource;

use super::disk::Pace;
use super::executor::ProcessId;
use super::fabric::{End, Fabric};
use crate::runtime::{Connection, Listener, Network};

/// Bytes of a file that are read, then sent, at a time.
const FILE_PIECE_BYTES: usize = 256 * 1024;

/// The network as one process sees it.
#[derive(Clone)]
pub struct SimNetwork {
    fabric: Fabric,
    process: ProcessId,
    host: IpAddr,
    pace: Pace,
}

impl SimNetwork {
    pub(super) fn new(fabric: Fabric, process: ProcessId, host: IpAddr, pace: Pace) -> Self {
        Self { fabric, process, host, pace }
    }

    /// The address that others know this one by: "any" and loopback are this host.
    fn routed(&self, address: SocketAddr) -> SocketAddr {
        let ip = address.ip();
        match ip.is_unspecified() || ip.is_loopback() {
            true => SocketAddr::new(self.host, address.port()),
            false => address,
        }
    }

    async fn wait(&self, duration_ns: u64) {
        let executor = &self.fabric.executor;
        executor.sleep_until(executor.now_ns() + duration_ns).await;
    }

    fn connection(&self, end: End, local: SocketAddr, peer: SocketAddr) -> SimConnection {
        SimConnection {
            handle: Rc::new(Handle {
                fabric: self.fabric.clone(),
                end,
                local,
                peer,
                pace: self.pace.clone(),
                is_detached: Cell::new(false),
            }),
        }
    }
}

impl Network for SimNetwork {
    type Listener = SimListener;
    type Connection = SimConnection;

    async fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        let (id, routed) = self.fabric.listen(self.process, self.routed(address))?;
        Ok(SimListener {
            network: self.clone(),
            id,
            address: SocketAddr::new(address.ip(), routed.port()),
        })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<SimConnection> {
        let to = self.routed(address);
        let (there_ns, back_ns) = (self.fabric.latency_ns(), self.fabric.latency_ns());
        self.wait(there_ns).await;
        if self.fabric.is_blocked(self.host, to.ip()) || self.fabric.is_blocked(to.ip(), self.host)
        {
            let timeout_ns = self.fabric.options.borrow().connect_timeout_ns;
            self.wait(timeout_ns).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let established = self.fabric.establish(self.process, self.host, to);
        let connection = established.map(|(end, near)| self.connection(end, near, to));
        self.wait(back_ns).await;
        connection
    }

    fn attach(&self, detached: DetachedConnection) -> SimConnection {
        self.connection(detached.end, detached.local, detached.peer)
    }
}

/// A listening socket. Dropping it turns away who waits to be accepted.
pub struct SimListener {
    network: SimNetwork,
    id: u64,
    address: SocketAddr,
}

impl Listener for SimListener {
    type Connection = SimConnection;

    async fn accept(&self) -> io::Result<SimConnection> {
        let network = &self.network;
        let (end, peer) = poll_fn(|context| network.fabric.poll_accept(self.id, context)).await?;
        let local = network.routed(self.address);
        Ok(network.connection(end, local, peer))
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.fabric.stop_listening(self.id);
    }
}

/// An established connection. When the last clone is dropped, it is closed.
#[derive(Clone)]
pub struct SimConnection {
    handle: Rc<Handle>,
}

struct Handle {
    fabric: Fabric,
    end: End,
    local: SocketAddr,
    peer: SocketAddr,
    pace: Pace,
    /// Another handle is to have this end.
    is_detached: Cell<bool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.is_detached.get() {
            self.fabric.close(self.end);
        }
    }
}

/// A connection that no shard serves. It ends with its process where none attaches it.
pub struct DetachedConnection {
    end: End,
    local: SocketAddr,
    peer: SocketAddr,
}

impl SimConnection {
    /// Sends no more, but still receives: a half-closed connection.
    pub fn finish(&self) {
        self.handle.fabric.finish(self.handle.end);
    }

    /// Breaks it, without a word to what is still under way.
    pub fn reset(&self) {
        self.handle.fabric.reset(self.handle.end);
    }

    /// Breaks it by chance, as networks do.
    fn maybe_reset(&self) {
        let fabric = &self.handle.fabric;
        let per_million = fabric.options.borrow().reset_per_million;
        if fabric.chance(per_million) {
            self.reset();
        }
    }

    async fn send_pieces(&self, parts: Vec<Bytes>, sending: &mut Sending) -> io::Result<()> {
        self.maybe_reset();
        let mut parts = VecDeque::from(parts);
        let Handle { fabric, end, .. } = &*self.handle;
        poll_fn(|context| {
            // Counted as begun even where the first poll sends nothing: a caller that gives up on a
            // send may not take it for granted that nothing left.
            sending.begun = true;
            fabric.poll_send(*end, &mut parts, context)
        })
        .await
    }
}

/// A send under way; knows how it ended.
struct Sending {
    fabric: Fabric,
    end: End,
    begun: bool,
}

impl Sending {
    fn new(handle: &Handle) -> Self {
        handle.fabric.begin_send(handle.end);
        Self { fabric: handle.fabric.clone(), end: handle.end, begun: false }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.fabric.end_send(self.end, self.begun);
    }
}

#[cfg(test)]
impl SimConnection {
    /// Waits until there is something to receive, or the peer is gone.
    pub(super) async fn readable(&self) {
        let Handle { fabric, end, .. } = &*self.handle;
        poll_fn(|context| fabric.poll_readable(*end, context)).await;
    }
}

impl Connection for SimConnection {
    type Detached = DetachedConnection;

    async fn receive(&self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let spare = buffer.capacity() - buffer.len();
        assert!(spare > 0, "a receive into a full buffer");
        let Handle { fabric, end, .. } = &*self.handle;
        let result = poll_fn(|context| {
            let into = |bytes: &[u8]| buffer.extend_from_slice(bytes);
            fabric.poll_receive(*end, spare, into, context)
        })
        .await;
        (result, buffer)
    }

    async fn send(&self, parts: Vec<Bytes>) -> io::Result<()> {
        let mut sending = Sending::new(&self.handle);
        let result = self.send_pieces(parts, &mut sending).await;
        sending.begun = false;
        result
    }

    /// What a connection holds here is on its way at once.
    fn keep_unsent_below(&self, _bytes: u32) {}

    async fn send_file(&self, range: &ExternalBytes) -> io::Result<()> {
        let mut sending = Sending::new(&self.handle);
        let (mut position, mut left) = (range.position, range.len);
        while left > 0 {
            let piece_bytes = left.min(FILE_PIECE_BYTES);
            self.handle.pace.read().await;
            let source = range.source.downcast_ref::<FaultSource>();
            let bytes = source.and_then(|source| source.read(position, piece_bytes));
            let Some(bytes) = bytes else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            self.send_pieces(vec![bytes], &mut sending).await?;
            position += piece_bytes as u64;
            left -= piece_bytes;
        }
        sending.begun = false;
        Ok(())
    }

    fn detach(self) -> DetachedConnection {
        let Handle { end, local, peer, is_detached, .. } = &*self.handle;
        is_detached.set(true);
        DetachedConnection { end: *end, local: *local, peer: *peer }
    }

    fn close(&self) {
        self.handle.fabric.close(self.handle.end);
    }

    fn peer_address(&self) -> SocketAddr {
        self.handle.peer
    }

    fn local_address(&self) -> SocketAddr {
        self.handle.local
    }
}
