//! A client that knows which answer came to what, and notes what each has promised.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use vltava_client::connection::{Answer, Connection};
use vltava_protocol::encode::Part;
use vltava_protocol::message::Request;
use vltava_protocol::types::Str;

use crate::check::{AnswerId, Promise};

/// What all clients were promised.
#[derive(Debug, Default)]
pub struct Promises {
    promises: Mutex<BTreeMap<AnswerId, Promise>>,
    /// All connections, by their own addresses: the next must not have that of an earlier one.
    connections: Mutex<Vec<(SocketAddr, TcpStream)>>,
}

impl Promises {
    pub fn add(&self, answer: AnswerId, promise: Promise) {
        let known = self.promises.lock().unwrap().insert(answer, promise);
        assert!(known.is_none(), "{answer:?} came before");
    }

    /// A connection from an address that none had before. All are kept open; the system may give
    /// away again what belonged to one that the other side has ended.
    fn connect(&self, address: SocketAddr) -> TcpStream {
        let mut connections = self.connections.lock().unwrap();
        loop {
            let stream = TcpStream::connect(address).unwrap();
            let own = stream.local_addr().unwrap();
            let is_new = connections.iter().all(|(known, _)| *known != own);
            connections.push((own, stream.try_clone().unwrap()));
            if is_new {
                return stream;
            }
        }
    }

    pub fn take(&self) -> BTreeMap<AnswerId, Promise> {
        std::mem::take(&mut self.promises.lock().unwrap())
    }
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    connection: Connection,
}

impl Client {
    pub fn connect(address: SocketAddr, promises: &Promises) -> Self {
        let stream = promises.connect(address);
        stream.set_nodelay(true).unwrap();
        let peer = stream.local_addr().unwrap();
        let connection = Connection::new(Str::from("recorded"));
        let mut client = Self { stream, peer, connection };
        let handshake = client.connection.handshake().unwrap();
        client.write(&handshake);
        let answer = client.answer();
        assert!(client.connection.shake(answer).unwrap(), "our own version is known");
        client
    }

    /// Sends a request in a version that names topics by name; names its answer.
    pub fn send_at<R: Request>(&mut self, request: &R, version: i16) -> AnswerId {
        let parts = self.connection.request(request, version).unwrap();
        // Length, key and version stand before it.
        let frame = self.write(&parts);
        (self.peer, i32::from_be_bytes(frame[8..12].try_into().unwrap()))
    }

    /// Waits for the answer to the oldest request.
    pub fn receive<R: Request>(&mut self) -> R::Response {
        self.answer().decode::<R>().unwrap()
    }

    /// Sends a request and waits for its answer.
    pub fn call<R: Request>(&mut self, request: &R) -> (AnswerId, R::Response) {
        let version = self.connection.version::<R>().unwrap();
        self.call_at(request, version)
    }

    /// [`Self::call`] in a version.
    pub fn call_at<R: Request>(&mut self, request: &R, version: i16) -> (AnswerId, R::Response) {
        let answer = self.send_at(request, version);
        (answer, self.receive::<R>())
    }

    fn answer(&mut self) -> Answer {
        let mut buffer = [0; 4096];
        loop {
            if let Some(answer) = self.connection.next_answer().unwrap() {
                return answer;
            }
            let len = self.stream.read(&mut buffer).unwrap();
            assert!(len > 0, "the broker closed the connection");
            self.connection.received().extend_from_slice(&buffer[..len]);
        }
    }

    fn write(&mut self, parts: &[Part]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            match part {
                Part::Memory(memory) => bytes.extend_from_slice(memory),
                Part::External(_) => panic!("a request has no ranges of files"),
            }
        }
        self.stream.write_all(&bytes).unwrap();
        bytes
    }
}
