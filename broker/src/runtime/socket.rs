//! TCP on the shard's ring.
//!
//! Everything goes through the ring, where the requests of many connections share a system call,
//! but for `sendfile`: it is done at once where it cannot wait for the disk, and sockets are
//! non-blocking so that it does not wait for the peer either. A listening socket is one for all
//! shards of the process: whichever shard is idle takes the next connection, and a second process
//! that wants the same port is refused by the kernel.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use vltava_protocol::encode::ExternalBytes;

use super::file::{Descriptor, OpenFile};
use super::request::{Message, Request, SharedHandle, SocketAddress};
use super::ring::Ring;
use super::sync::yield_now;
use super::{Connection, Listener, Network};

/// Connections that wait to be accepted (the kernel's `somaxconn` may be less).
const BACKLOG: i32 = 4096;
/// How often the kernel asks again where nobody answers a connect: it gives up after 3 s, and so
/// does not keep what its caller gave up long before.
const CONNECT_RETRIES: u32 = 1;
/// What is sent from a file in one system call, between two looks at the other tasks.
const CHUNK_BYTES: usize = 256 << 10;
/// What is read ahead of a cold range at a time.
const READ_AHEAD_BYTES: u32 = 1 << 20;
/// How far apart the pages are that are tried for being in memory.
const PROBE_BYTES: u64 = 64 << 10;
/// The same on a kernel without `cachestat(2)`, where nothing else tells.
const PROBE_ALONE_BYTES: u64 = 16 << 10;

/// The listening sockets of this process, so that its shards share them.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<Vec<(SocketAddr, Weak<TcpListener>)>>);

impl Listeners {
    /// The socket that listens here; bound by the first shard that asks.
    fn listen(&self, address: SocketAddr) -> io::Result<Arc<TcpListener>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, listener)| listener.strong_count() > 0);
        let known = open.iter().find(|(known, _)| *known == address);
        if let Some(listener) = known.and_then(|(_, listener)| listener.upgrade()) {
            return Ok(listener);
        }
        let listener = TcpListener::bind(address)?;
        // SAFETY: takes no memory of ours. `bind` listens with a short backlog; this changes its
        // length.
        if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let listener = Arc::new(listener);
        // With port 0, each call takes another port; the one taken can be shared by its number.
        open.push((listener.local_addr()?, Arc::downgrade(&listener)));
        Ok(listener)
    }
}

/// The shard's sockets. A clone is the same.
#[derive(Clone, Debug)]
pub struct MachineNetwork {
    ring: Ring,
    listeners: Arc<Listeners>,
}

impl MachineNetwork {
    pub(super) fn new(ring: Ring, listeners: Arc<Listeners>) -> Self {
        Self { ring, listeners }
    }
}

impl Network for MachineNetwork {
    type Listener = MachineListener;
    type Connection = MachineConnection;

    async fn listen(&self, address: SocketAddr) -> io::Result<MachineListener> {
        let listener = self.listeners.listen(address)?;
        Ok(MachineListener { ring: self.ring.clone(), local: listener.local_addr()?, listener })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<MachineConnection> {
        let stream = Arc::new(new_socket(address)?);
        set_tcp_option(&stream, libc::TCP_SYNCNT, CONNECT_RETRIES);
        let request = Request::Connect {
            handle: Arc::clone(&stream) as SharedHandle,
            address: Box::new(SocketAddress::from(address)),
        };
        let (result, _) = self.ring.ask(request).await;
        result?;
        MachineConnection::new(self.ring.clone(), stream, address)
    }

    fn attach(&self, detached: DetachedConnection) -> MachineConnection {
        let DetachedConnection { stream, peer, local } = detached;
        MachineConnection(Rc::new(ConnectionState { ring: self.ring.clone(), stream, peer, local }))
    }
}

/// A listening socket, as one shard sees it.
#[derive(Debug)]
pub struct MachineListener {
    ring: Ring,
    listener: Arc<TcpListener>,
    local: SocketAddr,
}

impl Listener for MachineListener {
    type Connection = MachineConnection;

    async fn accept(&self) -> io::Result<MachineConnection> {
        loop {
            let request = Request::Accept {
                handle: Arc::clone(&self.listener) as SharedHandle,
                accepted: None,
            };
            let (result, request) = self.ring.ask(request).await;
            match result {
                Err(error) if is_passing(&error) => continue,
                result => result?,
            };
            let Request::Accept { accepted: Some(accepted), .. } = request else {
                unreachable!("an accept that succeeded has a descriptor");
            };
            let stream = TcpStream::from(accepted);
            // A peer that is gone again has no address any more: the next one, then.
            if let Ok(peer) = stream.peer_addr()
                && let Ok(connection) =
                    MachineConnection::new(self.ring.clone(), Arc::new(stream), peer)
            {
                return Ok(connection);
            }
        }
    }

    fn local_address(&self) -> SocketAddr {
        self.local
    }
}

/// Errors of one connection that never came to be (`accept(2)`): the listening socket is well.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO | libc::ENETDOWN)
            | Some(libc::EHOSTDOWN | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENONET)
    )
}

/// An established connection.
#[derive(Clone, Debug)]
pub struct MachineConnection(Rc<ConnectionState>);

#[derive(Debug)]
struct ConnectionState {
    ring: Ring,
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl MachineConnection {
    fn new(ring: Ring, stream: Arc<TcpStream>, peer: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let local = stream.local_addr()?;
        Ok(Self(Rc::new(ConnectionState { ring, stream, peer, local })))
    }

    fn handle(&self) -> SharedHandle {
        Arc::clone(&self.0.stream) as SharedHandle
    }

    /// Waits until one of the events is there.
    async fn poll(&self, events: libc::c_short) -> io::Result<()> {
        let request =
            Request::Poll { handle: self.handle(), events: u32::from(events.cast_unsigned()) };
        let (result, _) = self.0.ring.ask(request).await;
        result.map(drop)
    }

    /// Makes sure that a range can be sent without waiting for the disk. Returns false where that
    /// is not known even after it was read.
    async fn bring_in(
        &self,
        file: &Arc<Descriptor>,
        position: u64,
        len: usize,
    ) -> io::Result<bool> {
        let read_ahead = |position| Request::ReadAhead {
            handle: Arc::clone(file) as SharedHandle,
            position,
            len: READ_AHEAD_BYTES,
        };
        // This window, and the next one while this is sent. Nobody has to wait for that: a request
        // that is dropped runs to its end.
        let (result, _) = self.0.ring.ask(read_ahead(position)).await;
        result?;
        drop(self.0.ring.ask(read_ahead(position + u64::from(READ_AHEAD_BYTES))));
        let last = Request::Read {
            handle: Arc::clone(file) as SharedHandle,
            buffer: BytesMut::with_capacity(1),
            len: 1,
            position: position + len as u64 - 1,
        };
        let (result, _) = self.0.ring.ask(last).await;
        result?;
        Ok(is_cached(&**file, position, len))
    }

    /// Sends a range by way of a buffer: where the page cache does not keep it.
    async fn send_copy(
        &self,
        file: &Arc<Descriptor>,
        position: u64,
        len: usize,
    ) -> io::Result<usize> {
        let request = Request::Read {
            handle: Arc::clone(file) as SharedHandle,
            buffer: BytesMut::with_capacity(len),
            len,
            position,
        };
        let (result, request) = self.0.ring.ask(request).await;
        let read = result?;
        let Request::Read { buffer, .. } = request else {
            unreachable!("the ring gives back what it was asked");
        };
        self.send(vec![buffer.freeze()]).await?;
        Ok(read)
    }
}

impl MachineConnection {
    /// Waits until there is something to receive, or the peer is gone; holds no buffer meanwhile.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.poll(libc::POLLIN | libc::POLLRDHUP).await
    }
}

/// A connection that no ring serves. Dropping it closes it.
#[derive(Debug)]
pub struct DetachedConnection {
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Connection for MachineConnection {
    type Detached = DetachedConnection;

    async fn receive(&self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        assert!(buffer.capacity() > buffer.len(), "no room to receive into");
        loop {
            let request = Request::Receive { handle: self.handle(), buffer };
            let (result, request) = self.0.ring.ask(request).await;
            let Request::Receive { buffer: filled, .. } = request else {
                unreachable!("the ring gives back what it was asked");
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => buffer = filled,
                // A kernel that takes the socket's own flag for the request's.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.readable().await {
                        return (Err(error), filled);
                    }
                    buffer = filled;
                }
                result => return (result, filled),
            }
        }
    }

    async fn send(&self, parts: Vec<Bytes>) -> io::Result<()> {
        let mut message = Box::new(Message::new(parts));
        while !message.is_done() {
            let request = Request::Send { handle: self.handle(), message };
            let (result, request) = self.0.ring.ask(request).await;
            let Request::Send { message: rest, .. } = request else {
                unreachable!("the ring gives back what it was asked");
            };
            message = rest;
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => message.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A kernel that takes the socket's own flag for the request's.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.poll(libc::POLLOUT).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn keep_unsent_below(&self, bytes: u32) {
        set_tcp_option(&self.0.stream, libc::TCP_NOTSENT_LOWAT, bytes);
    }

    async fn send_file(&self, range: &ExternalBytes) -> io::Result<()> {
        let Some(open) = range.source.downcast_ref::<OpenFile>() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file of this runtime"));
        };
        let file = open.cached(&self.0.ring).await?;
        let mut sent = 0;
        while sent < range.len {
            let position = range.position + sent as u64;
            let len = CHUNK_BYTES.min(range.len - sent);
            let at_once =
                is_cached(&*file, position, len) || self.bring_in(&file, position, len).await?;
            let result = if at_once {
                send_cached(&self.0.stream, &file, position, len)
            } else {
                self.send_copy(&file, position, len).await
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(some) => sent += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.poll(libc::POLLOUT).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            yield_now().await;
        }
        Ok(())
    }

    fn detach(self) -> DetachedConnection {
        let ConnectionState { stream, peer, local, .. } = &*self.0;
        DetachedConnection { stream: Arc::clone(stream), peer: *peer, local: *local }
    }

    fn close(&self) {
        // An error says that it is closed already.
        drop(self.0.stream.shutdown(std::net::Shutdown::Both));
    }

    fn peer_address(&self) -> SocketAddr {
        self.0.peer
    }

    fn local_address(&self) -> SocketAddr {
        self.0.local
    }
}

/// Sets an option that TCP can do without: a kernel that refuses it behaves as it always did.
fn set_tcp_option(stream: &TcpStream, option: libc::c_int, value: u32) {
    let len = libc::socklen_t::try_from(size_of::<u32>()).unwrap_or_default();
    let (descriptor, value) = (stream.as_raw_fd(), (&raw const value).cast());
    // SAFETY: the kernel reads one number of ours, of the length that it is told.
    unsafe { libc::setsockopt(descriptor, libc::IPPROTO_TCP, option, value, len) };
}

fn new_socket(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: takes no memory of ours.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else knows it.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(socket) }))
}

/// Sends what is in the page cache; never waits for the peer.
fn send_cached(
    stream: &TcpStream,
    file: &Descriptor,
    position: u64,
    len: usize,
) -> io::Result<usize> {
    let mut offset = libc::off_t::try_from(position)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: both descriptors are open, and `offset` is ours.
    let sent =
        unsafe { libc::sendfile(stream.as_raw_fd(), file.as_raw_fd(), &raw mut offset, len) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Whether a range can be read without waiting for the disk, as far as that can be known: it may be
/// evicted the moment after.
pub(super) fn is_cached(file: &impl AsRawFd, position: u64, len: usize) -> bool {
    let end = position + len as u64;
    let step = match all_pages_present(file, position, end) {
        Some(false) => return false,
        Some(true) => PROBE_BYTES,
        None => PROBE_ALONE_BYTES,
    };
    // A page that is present may still be on its way from the disk: reading a byte of it, without
    // waiting, tells.
    let mut at = position;
    while at < end {
        if !is_readable_now(file, at) {
            return false;
        }
        at += step;
    }
    is_readable_now(file, end - 1)
}

/// What `cachestat(2)` (Linux 6.5) says; `None` where it says nothing.
fn all_pages_present(file: &impl AsRawFd, position: u64, end: u64) -> Option<bool> {
    const CACHESTAT: libc::c_long = 451; // The same number on every architecture.
    const PAGE_BYTES: u64 = 4096;
    static MISSING: AtomicBool = AtomicBool::new(false);

    #[repr(C)]
    struct Range {
        position: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Pages {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }

    if MISSING.load(Ordering::Relaxed) {
        return None;
    }
    let len = end - position;
    let range = Range { position, len };
    let mut pages = Pages::default();
    // SAFETY: the kernel reads one structure and fills the other, both of the layout it expects.
    let result =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut pages, 0) };
    if result != 0 {
        MISSING.store(true, Ordering::Relaxed);
        return None;
    }
    Some(pages.cached >= end.div_ceil(PAGE_BYTES) - position / PAGE_BYTES)
}

/// Whether the byte at this position is in memory.
fn is_readable_now(file: &impl AsRawFd, position: u64) -> bool {
    let Ok(offset) = libc::off_t::try_from(position) else {
        return false;
    };
    let mut byte = 0u8;
    let vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: the vector leads to one byte of ours.
    let read =
        unsafe { libc::preadv2(file.as_raw_fd(), &raw const vector, 1, offset, libc::RWF_NOWAIT) };
    read == 1
}
