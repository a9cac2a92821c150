//! One connection that never blocks: requests queue up and leave together, answers are read as
//! they come.
//!
//! An answer that is small is copied out of the thread's scratch; of a large one only what came
//! with others, and the rest is read into the buffer that its records are then parsed in.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use vltava_client::blocking::{Address, connect};
use vltava_client::connection::{Answer, Connection, FRAME_BYTES_MAX};
use vltava_client::error::ClientError;
use vltava_protocol::encode::Part;
use vltava_protocol::frame::{LENGTH_BYTES, frame_length};
use vltava_protocol::message::Request;
use vltava_protocol::types::Str;

use crate::engine::buffers::Buffers;

/// How long a broker may take to say what it serves.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// At most so many pieces leave with one call.
const PIECES: usize = 64;
/// At most so much is read before other connections have their turn.
const TURN_BYTES: usize = 4 << 20;

/// A connection whose versions are agreed.
#[derive(Debug)]
pub struct Link {
    address: Address,
    stream: TcpStream,
    connection: Connection,
    out: VecDeque<Bytes>,
    /// What of the first piece has left.
    out_sent: usize,
    /// The begin of an answer that has not even its length yet.
    prefix: Vec<u8>,
    frame: Option<Frame>,
    /// Bytes that have left, in all.
    pub sent_bytes: u64,
    /// Bytes that have come, in all.
    pub received_bytes: u64,
    /// Whether the poll was asked for room.
    pub wants_room: bool,
}

/// An answer that has come in part.
#[derive(Debug)]
struct Frame {
    bytes: BytesMut,
    filled: usize,
}

/// An answer, and the buffer that it stands in.
#[derive(Debug)]
pub struct Received {
    /// To be decoded.
    pub answer: Answer,
    /// To be given back to [`Buffers`] when all that was decoded is gone.
    pub frame: Bytes,
}

impl Link {
    /// Connects and asks what the broker serves, waiting for both; does not wait from then on.
    ///
    /// # Errors
    /// Where nobody listens, or it is no broker.
    pub fn open(address: &Address, client_id: &Str) -> Result<Self, ClientError> {
        let stream = connect(address).and_then(|stream| {
            stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
            Ok(stream)
        });
        let stream = stream.map_err(|source| failed(address, source))?;
        let mut link = Self {
            address: address.clone(),
            stream,
            connection: Connection::new(client_id.clone()),
            out: VecDeque::new(),
            out_sent: 0,
            prefix: Vec::new(),
            frame: None,
            sent_bytes: 0,
            received_bytes: 0,
            wants_room: false,
        };
        let mut buffers = Buffers::default();
        loop {
            let handshake = link.connection.handshake()?;
            link.queue(handshake)?;
            link.flush(&mut buffers)?;
            let mut received = VecDeque::new();
            while received.is_empty() {
                link.receive(&mut buffers, &mut received)?;
            }
            let Some(Received { answer, .. }) = received.pop_front() else {
                return Err(ClientError::Correlation);
            };
            if link.connection.shake(answer)? {
                break;
            }
        }
        link.stream.set_nonblocking(true).map_err(|source| failed(address, source))?;
        Ok(link)
    }

    /// The highest version of a request that both sides know.
    ///
    /// # Errors
    /// There is none.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        self.connection.version::<R>()
    }

    /// Queues a request; [`Self::flush`] sends it.
    ///
    /// # Errors
    /// Where it cannot be said in this version.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), ClientError> {
        let parts = self.connection.request(request, version)?;
        self.queue(parts)
    }

    /// Likewise, where no answer will come.
    ///
    /// # Errors
    /// Where it cannot be said in this version.
    pub fn send_unanswered<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<(), ClientError> {
        let parts = self.connection.request_unanswered(request, version)?;
        self.queue(parts)
    }

    /// Whether all that was queued has left.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Sends what the socket takes. Buffers that have left whole go back.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn flush(&mut self, buffers: &mut Buffers) -> Result<(), ClientError> {
        while !self.out.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, bytes) in pieces.iter_mut().zip(&self.out) {
                let sent = if count == 0 { self.out_sent } else { 0 };
                *piece = IoSlice::new(&bytes[sent..]);
                count += 1;
            }
            match self.stream.write_vectored(&pieces[..count]) {
                Ok(0) => return Err(ClientError::Closed(self.address.to_string())),
                Ok(sent) => self.forget(sent, buffers),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(source) => return Err(failed(&self.address, source)),
            }
        }
        Ok(())
    }

    /// Reads what has come, and appends the answers that are whole.
    ///
    /// # Errors
    /// Where the connection is gone, or what comes is no answer.
    pub fn receive(
        &mut self,
        buffers: &mut Buffers,
        received: &mut VecDeque<Received>,
    ) -> Result<(), ClientError> {
        let mut total = 0;
        while total < TURN_BYTES {
            let (count, room) = match &mut self.frame {
                Some(frame) => {
                    let room = &mut frame.bytes[frame.filled..];
                    (self.stream.read(room), room.len())
                }
                None => (self.stream.read(buffers.scratch()), buffers.scratch().len()),
            };
            let count = match count {
                Ok(0) => return Err(ClientError::Closed(self.address.to_string())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(source) => return Err(failed(&self.address, source)),
            };
            total += count;
            self.received_bytes += count as u64;
            match &mut self.frame {
                Some(frame) => frame.filled += count,
                None => self.cut(count, buffers, received)?,
            }
            if let Some(frame) = self.frame.take_if(|frame| frame.filled == frame.bytes.len()) {
                self.complete(frame.bytes.freeze(), received)?;
            }
            // Less than there was room for: there is no more now.
            if count < room {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Cuts what is in the scratch into answers; the last one may be incomplete.
    fn cut(
        &mut self,
        count: usize,
        buffers: &mut Buffers,
        received: &mut VecDeque<Received>,
    ) -> Result<(), ClientError> {
        let mut at = 0;
        while at < count {
            while self.prefix.len() < LENGTH_BYTES && at < count {
                self.prefix.push(buffers.scratch()[at]);
                at += 1;
            }
            let Some(prefix) = self.prefix.first_chunk::<LENGTH_BYTES>() else {
                return Ok(());
            };
            let length = frame_length(*prefix, FRAME_BYTES_MAX)?;
            self.prefix.clear();
            let here = length.min(count - at);
            let mut bytes = buffers.take_filled(length);
            bytes[..here].copy_from_slice(&buffers.scratch()[at..at + here]);
            at += here;
            if here < length {
                self.frame = Some(Frame { bytes, filled: here });
                return Ok(());
            }
            self.complete(bytes.freeze(), received)?;
        }
        Ok(())
    }

    fn complete(
        &mut self,
        frame: Bytes,
        received: &mut VecDeque<Received>,
    ) -> Result<(), ClientError> {
        let answer = self.connection.answer(frame.clone())?;
        received.push_back(Received { answer, frame });
        Ok(())
    }

    fn queue(&mut self, parts: Vec<Part>) -> Result<(), ClientError> {
        for part in parts {
            match part {
                Part::Memory(bytes) if bytes.is_empty() => {}
                Part::Memory(bytes) => self.out.push_back(bytes),
                Part::External(_) => {
                    return Err(failed(&self.address, io::ErrorKind::Unsupported.into()));
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, sent: usize, buffers: &mut Buffers) {
        self.out_sent += sent;
        self.sent_bytes += sent as u64;
        while let Some(first) = self.out.front() {
            if self.out_sent < first.len() {
                return;
            }
            self.out_sent -= first.len();
            if let Some(bytes) = self.out.pop_front() {
                buffers.give_back(bytes);
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn failed(address: &Address, source: io::Error) -> ClientError {
    ClientError::Io { address: address.to_string(), source }
}

#[cfg(test)]
mod tests;
