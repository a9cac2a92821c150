//! What can be asked of a shard's ring: each request owns the memory that the kernel may touch
//! until it is done.

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use io_uring::{opcode, squeue, types};
use vltava_storage::io::{AlignedBlocks, AlignedBuffer};

use super::recorder::Operation;

/// An open descriptor that requests hold on to, so that its number is not given away under them.
pub(super) trait Handle: AsRawFd + Send + Sync + 'static {
    /// Its path relative to the data directory; empty for what is no file.
    fn path(&self) -> &str {
        ""
    }

    /// Who is at the other end, where it is a connection.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

impl Handle for std::net::TcpStream {
    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }
}

impl Handle for std::net::TcpListener {}
impl Handle for OwnedFd {}

/// A shared [`Handle`].
pub(super) type SharedHandle = Arc<dyn Handle>;

/// The longest vector of buffers the kernel takes at once (`IOV_MAX`).
const PARTS_AT_ONCE_MAX: usize = 1024;
/// The longest single write or read; the kernel takes 2 GiB less a page.
const BYTES_PER_REQUEST_MAX: usize = 1 << 30;
/// Modes of what is made, cut by the process's umask.
const FILE_MODE: libc::mode_t = 0o640;
const DIRECTORY_MODE: libc::mode_t = 0o750;

/// What the ring is asked to do.
pub(super) enum Request {
    /// Waits until one of the events (`POLLIN` ...) is there.
    Poll { handle: SharedHandle, events: u32 },
    /// Receives into the spare capacity of the buffer, waiting until there is something.
    Receive { handle: SharedHandle, buffer: BytesMut },
    /// Sends what is left of the message; less only where the connection ends, or the message has
    /// very many parts.
    Send { handle: SharedHandle, message: Box<Message> },
    /// Waits for a connection.
    Accept { handle: SharedHandle, accepted: Option<OwnedFd> },
    /// Connects.
    Connect { handle: SharedHandle, address: Box<SocketAddress> },
    /// Writes blocks from `done` on; `position` is where the first of them belongs.
    Write {
        handle: SharedHandle,
        blocks: AlignedBlocks,
        done: usize,
        position: u64,
        data_sync: bool,
        /// The parts of what is left, where there are several.
        vectors: Vec<libc::iovec>,
    },
    /// Reads into the spare capacity of the buffer, up to `len` bytes.
    Read { handle: SharedHandle, buffer: BytesMut, len: usize, position: u64 },
    /// Reads blocks behind what is filled of the buffer.
    ReadBlocks { handle: SharedHandle, buffer: AlignedBuffer, len: usize, position: u64 },
    /// Starts reading a range into the page cache.
    ReadAhead { handle: SharedHandle, position: u64, len: u32 },
    /// Opens a file of a directory.
    Open { directory: SharedHandle, path: CString, flags: i32, opened: Option<OwnedFd> },
    /// Allocates a range and extends the file to its end.
    Allocate { handle: SharedHandle, position: u64, len: u64 },
    /// Cuts or extends a file (Linux 6.9).
    SetLength { handle: SharedHandle, len: u64 },
    /// Makes data and metadata durable.
    Sync { handle: SharedHandle },
    /// Renames within a directory tree.
    Rename { directory: SharedHandle, from: CString, to: CString },
    /// Removes a file or an empty directory.
    Remove { directory: SharedHandle, path: CString, is_directory: bool },
    /// Makes a directory.
    CreateDirectory { directory: SharedHandle, path: CString },
}

impl Request {
    /// The entry for the submission queue. Its pointers lead into memory on the heap that `self`
    /// owns: they stay good when `self` moves, until it is dropped or changed.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        match self {
            Self::Poll { handle, events } => {
                opcode::PollAdd::new(descriptor(handle), *events).build()
            }
            Self::Receive { handle, buffer } => {
                let spare = buffer.spare_capacity_mut();
                let len = length(spare.len());
                opcode::Recv::new(descriptor(handle), spare.as_mut_ptr().cast(), len).build()
            }
            Self::Send { handle, message } => {
                let header = message.header();
                opcode::SendMsg::new(descriptor(handle), header)
                    .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned())
                    .build()
            }
            Self::Accept { handle, .. } => {
                opcode::Accept::new(descriptor(handle), ptr::null_mut(), ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Self::Connect { handle, address } => {
                let (address, len) = address.as_raw();
                opcode::Connect::new(descriptor(handle), address, len).build()
            }
            _ => self.file_entry(),
        }
    }

    /// [`Request::entry`] of what moves the bytes of files.
    fn file_entry(&mut self) -> squeue::Entry {
        match self {
            Self::Write { handle, blocks, done, position, data_sync, vectors } => {
                let (handle, at) = (descriptor(handle), *position + *done as u64);
                let flags = if *data_sync { libc::RWF_DSYNC } else { 0 };
                if let Some(only) = blocks.only() {
                    assert!(*done < only.len(), "a write of nothing");
                    let (start, len) = (only[*done..].as_ptr(), length(only.len() - *done));
                    return opcode::Write::new(handle, start, len)
                        .offset(at)
                        .rw_flags(flags)
                        .build();
                }
                collect_left(blocks, *done, vectors);
                opcode::Writev::new(handle, vectors.as_ptr(), length(vectors.len()))
                    .offset(at)
                    .rw_flags(flags)
                    .build()
            }
            Self::Read { handle, buffer, len, position } => {
                let spare = buffer.spare_capacity_mut();
                let len = length(spare.len().min(*len));
                opcode::Read::new(descriptor(handle), spare.as_mut_ptr().cast(), len)
                    .offset(*position)
                    .build()
            }
            Self::ReadBlocks { handle, buffer, len, position } => {
                let len = length(buffer.remaining().min(*len));
                opcode::Read::new(descriptor(handle), buffer.spare(), len).offset(*position).build()
            }
            Self::ReadAhead { handle, position, len } => {
                let len = libc::off_t::from(*len);
                opcode::Fadvise::new(descriptor(handle), len, libc::POSIX_FADV_WILLNEED)
                    .offset(*position)
                    .build()
            }
            _ => self.name_entry(),
        }
    }

    /// [`Request::entry`] of what concerns names and sizes.
    fn name_entry(&self) -> squeue::Entry {
        match self {
            Self::Open { directory, path, flags, .. } => {
                opcode::OpenAt::new(descriptor(directory), path.as_ptr())
                    .flags(*flags | libc::O_CLOEXEC)
                    .mode(FILE_MODE)
                    .build()
            }
            Self::Allocate { handle, position, len } => {
                opcode::Fallocate::new(descriptor(handle), *len).offset(*position).build()
            }
            Self::SetLength { handle, len } => {
                opcode::Ftruncate::new(descriptor(handle), *len).build()
            }
            Self::Sync { handle } => opcode::Fsync::new(descriptor(handle)).build(),
            Self::Rename { directory, from, to } => {
                let directory = descriptor(directory);
                opcode::RenameAt::new(directory, from.as_ptr(), directory, to.as_ptr()).build()
            }
            Self::Remove { directory, path, is_directory } => {
                opcode::UnlinkAt::new(descriptor(directory), path.as_ptr())
                    .flags(if *is_directory { libc::AT_REMOVEDIR } else { 0 })
                    .build()
            }
            Self::CreateDirectory { directory, path } => {
                opcode::MkDirAt::new(descriptor(directory), path.as_ptr())
                    .mode(DIRECTORY_MODE)
                    .build()
            }
            Self::Poll { .. }
            | Self::Receive { .. }
            | Self::Send { .. }
            | Self::Accept { .. }
            | Self::Connect { .. }
            | Self::Write { .. }
            | Self::Read { .. }
            | Self::ReadBlocks { .. }
            | Self::ReadAhead { .. } => unreachable!("made before"),
        }
    }

    /// Whether it may wait for a peer for ever: such a request is cancelled where nobody waits for
    /// it any more. The others end by themselves.
    pub(super) fn is_endless(&self) -> bool {
        matches!(
            self,
            Self::Poll { .. }
                | Self::Receive { .. }
                | Self::Send { .. }
                | Self::Accept { .. }
                | Self::Connect { .. }
        )
    }

    /// Whether it moves much: few of these are in the kernel's hands at a time.
    pub(super) fn is_bulk(&self) -> bool {
        matches!(self, Self::ReadBlocks { .. })
    }

    /// What a [`super::recorder::Recorder`] sees. `flags` are those of the entry itself.
    pub(super) fn operation(&self, flags: i32) -> Operation {
        let name = |path: &CString| path.to_string_lossy().into_owned();
        match self {
            Self::Write { handle, blocks, done, position, .. } => Operation::Write {
                path: handle.path().to_owned(),
                descriptor: handle.as_raw_fd(),
                position: *position + *done as u64,
                content: blocks.to_vec().split_off(*done),
                data_sync: flags & libc::RWF_DSYNC != 0,
            },
            Self::Sync { handle } => {
                Operation::Sync { path: handle.path().to_owned(), descriptor: handle.as_raw_fd() }
            }
            Self::Open { path, flags, .. } => {
                Operation::Open { path: name(path), create: flags & libc::O_CREAT != 0 }
            }
            Self::Rename { from, to, .. } => Operation::Rename { from: name(from), to: name(to) },
            Self::Remove { path, .. } => Operation::Remove { path: name(path) },
            Self::CreateDirectory { path, .. } => Operation::CreateDirectory { path: name(path) },
            Self::Allocate { handle, position, len } => Operation::Allocate {
                path: handle.path().to_owned(),
                descriptor: handle.as_raw_fd(),
                position: *position,
                len: *len,
            },
            Self::SetLength { handle, len } => Operation::SetLength {
                path: handle.path().to_owned(),
                descriptor: handle.as_raw_fd(),
                len: *len,
            },
            Self::Read { .. } | Self::ReadBlocks { .. } => Operation::Other("read"),
            Self::ReadAhead { .. } => Operation::Other("read-ahead"),
            Self::Poll { .. } => Operation::Other("poll"),
            Self::Receive { .. } => Operation::Other("receive"),
            Self::Send { handle, message } => {
                Operation::Send { peer: handle.peer(), content: message.left().concat() }
            }
            Self::Accept { .. } => Operation::Accept,
            Self::Connect { .. } => Operation::Other("connect"),
        }
    }
}

fn descriptor(handle: &SharedHandle) -> types::Fd {
    types::Fd(handle.as_raw_fd())
}

/// A length as the kernel takes it; longer ones are cut, which makes a short read or write of them.
#[expect(clippy::cast_possible_truncation, reason = "cut to far below 4 GiB just before")]
fn length(len: usize) -> u32 {
    len.min(BYTES_PER_REQUEST_MAX) as u32
}

/// The parts of blocks behind the first `done` bytes, as many as go at once.
fn collect_left(blocks: &AlignedBlocks, done: usize, vectors: &mut Vec<libc::iovec>) {
    assert!(done < blocks.len(), "a write of nothing");
    let mut skip = done;
    vectors.clear();
    for part in blocks.parts() {
        let left = part.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(part.len());
        if !left.is_empty() && vectors.len() < PARTS_AT_ONCE_MAX {
            let iov_base = left.as_ptr().cast_mut().cast();
            vectors.push(libc::iovec { iov_base, iov_len: left.len() });
        }
    }
}

/// Parts on their way to a socket.
pub(super) struct Message {
    parts: Vec<Bytes>,
    /// Parts sent completely.
    first: usize,
    vectors: Vec<libc::iovec>,
    header: Option<libc::msghdr>,
}

impl Message {
    /// A message of these parts, in this order.
    pub(super) fn new(parts: Vec<Bytes>) -> Self {
        Self { parts, first: 0, vectors: Vec::new(), header: None }
    }

    /// Whether all is sent.
    pub(super) fn is_done(&self) -> bool {
        self.parts[self.first..].iter().all(Bytes::is_empty)
    }

    /// So many bytes of what was left are sent.
    pub(super) fn advance(&mut self, mut sent: usize) {
        while self.first < self.parts.len() {
            let part = &mut self.parts[self.first];
            if part.len() > sent {
                part.advance(sent);
                return;
            }
            sent -= part.len();
            *part = Bytes::new();
            self.first += 1;
        }
        assert!(sent == 0, "more was sent than was there");
    }

    /// What is left, as much of it as goes at once.
    fn left(&self) -> &[Bytes] {
        let left = &self.parts[self.first..];
        &left[..left.len().min(PARTS_AT_ONCE_MAX)]
    }

    /// What is left, as `sendmsg` takes it.
    fn header(&mut self) -> *const libc::msghdr {
        self.vectors.clear();
        let left = self.parts[self.first..].iter().take(PARTS_AT_ONCE_MAX);
        self.vectors.extend(left.map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        }));
        let header = self.header.insert(libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: self.vectors.as_mut_ptr(),
            msg_iovlen: self.vectors.len(),
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        });
        ptr::from_ref(header)
    }
}

/// An address as the kernel takes it.
pub(super) enum SocketAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(libc::sockaddr_in {
                sin_family: FAMILY_V4,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::V6(libc::sockaddr_in6 {
                sin6_family: FAMILY_V6,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is 2")]
const FAMILY_V4: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "it is 10")]
const FAMILY_V6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;

impl SocketAddress {
    /// Where it is and how long it is; good while `self` neither moves nor goes.
    #[expect(clippy::cast_possible_truncation, reason = "sizes of 16 and 28 bytes")]
    pub(super) fn as_raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(address) => {
                (ptr::from_ref(address).cast(), size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            Self::V6(address) => {
                (ptr::from_ref(address).cast(), size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }
}
