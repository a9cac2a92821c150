//! One connection over a blocking socket.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use vltava_protocol::encode::Part;
use vltava_protocol::message::Request;
use vltava_protocol::types::Str;

use crate::blocking::Address;
use crate::connection::{Answer, Connection};
use crate::error::ClientError;

/// How much is read at a time.
const READ_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take where nothing else is said.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// A connection whose versions are agreed.
#[derive(Debug)]
pub struct Link {
    address: Address,
    stream: TcpStream,
    connection: Connection,
    buffer: Box<[u8]>,
}

impl Link {
    /// Connects, and asks what the broker serves.
    pub fn open(address: &Address, client_id: &Str) -> Result<Self, ClientError> {
        let stream = connect(address).map_err(|source| failed(address, source))?;
        Self::agree(address, client_id, stream, ANSWER_TIMEOUT)
    }

    /// The same, where neither may take longer than this. So long may answers take, until
    /// [`Self::answer_within`] says otherwise.
    pub fn open_within(
        address: &Address,
        client_id: &Str,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let stream = connect_within(address, timeout).map_err(|source| failed(address, source))?;
        Self::agree(address, client_id, stream, timeout)
    }

    fn agree(
        address: &Address,
        client_id: &Str,
        stream: TcpStream,
        answer_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let mut link = Self {
            address: address.clone(),
            stream,
            connection: Connection::new(client_id.clone()),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        };
        link.answer_within(answer_timeout)?;
        match link.shake() {
            Ok(()) => Ok(link),
            // A web server, say.
            Err(ClientError::Frame(_) | ClientError::Correlation | ClientError::Decode { .. }) => {
                Err(ClientError::Foreign(address.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    /// Agrees on versions.
    fn shake(&mut self) -> Result<(), ClientError> {
        loop {
            let handshake = self.connection.handshake()?;
            self.write(&handshake)?;
            let answer = self.answer()?;
            if self.connection.shake(answer)? {
                return Ok(());
            }
        }
    }

    /// Where it goes.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether the other side has not closed it, as far as is known here. Where something came that
    /// nobody asked for, it is open.
    pub fn is_open(&self) -> bool {
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let is_open = match peeked {
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).is_ok() && is_open
    }

    /// How long answers may take from now on.
    pub fn answer_within(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let set = self.stream.set_read_timeout(Some(timeout));
        set.map_err(|source| failed(&self.address, source))
    }

    /// The highest version of a request that both sides know.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        self.connection.version::<R>()
    }

    /// Sends a request; its answer is to be received.
    pub fn send<R: Request>(&mut self, request: &R) -> Result<(), ClientError> {
        self.send_at(request, self.version::<R>()?)
    }

    /// Sends a request in a version of the caller's choice.
    pub fn send_at<R: Request>(&mut self, request: &R, version: i16) -> Result<(), ClientError> {
        let parts = self.connection.request(request, version)?;
        self.write(&parts)
    }

    /// Sends a request that is not answered.
    pub fn send_unanswered<R: Request>(&mut self, request: &R) -> Result<(), ClientError> {
        let version = self.version::<R>()?;
        let parts = self.connection.request_unanswered(request, version)?;
        self.write(&parts)
    }

    /// Waits for the answer to the oldest request, which was an `R`.
    pub fn receive<R: Request>(&mut self) -> Result<R::Response, ClientError> {
        self.answer()?.decode::<R>()
    }

    /// Sends a request and waits for its answer.
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        self.send(request)?;
        self.receive::<R>()
    }

    fn answer(&mut self) -> Result<Answer, ClientError> {
        loop {
            if let Some(answer) = self.connection.next_answer()? {
                return Ok(answer);
            }
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(ClientError::Closed(self.address.to_string())),
                Ok(count) => self.connection.received().extend_from_slice(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What a socket says when its time is up.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(failed(&self.address, io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Err(failed(&self.address, error)),
            }
        }
    }

    fn write(&mut self, parts: &[Part]) -> Result<(), ClientError> {
        for part in parts {
            let written = match part {
                Part::Memory(bytes) => self.stream.write_all(bytes),
                Part::External(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            written.map_err(|source| failed(&self.address, source))?;
        }
        Ok(())
    }
}

/// A socket without Nagle's delay, over whichever of the name's addresses answers first.
pub fn connect(address: &Address) -> io::Result<TcpStream> {
    connect_within(address, CONNECT_TIMEOUT)
}

fn connect_within(address: &Address, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket_address in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket_address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn failed(address: &Address, source: io::Error) -> ClientError {
    ClientError::Io { address: address.to_string(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_is_open_until_the_other_side_has_closed_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let address = Address { host: local.ip().to_string(), port: local.port() };
        let link = Link {
            stream: connect(&address).unwrap(),
            address,
            connection: Connection::new(Str::from_static("test")),
            buffer: Box::default(),
        };
        let (mut other, _) = listener.accept().unwrap();
        assert!(link.is_open());
        other.write_all(b"?").unwrap();
        // It is here when a byte of it can be looked at.
        link.stream.peek(&mut [0]).unwrap();
        assert!(link.is_open());
        (&link.stream).read_exact(&mut [0]).unwrap();
        drop(other);
        assert_eq!(link.stream.peek(&mut [0]).unwrap(), 0, "the end has come");
        assert!(!link.is_open());
    }
}
