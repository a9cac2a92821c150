//! Where there are no network namespaces: relays on the loopback in front of each node, one for the
//! other nodes and one for clients. They keep what should be lost until it is lost no more, ends of
//! connections too, so that nobody hears of them, as when a cable is pulled.
//!
//! Which node has connected is known by its process: whose socket it is, and which data directory
//! it was started with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::nodes::{Behind, Place, free_address};

/// Whoever is no node.
const CLIENTS: i32 = -1;
/// What is passed on at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// A node that passes only so much.
struct Slow {
    bytes_per_s: f64,
    /// When all that it was given is through.
    through: Instant,
}

#[derive(Default)]
struct Faults {
    /// From whom to whom nothing passes.
    lost: BTreeSet<(i32, i32)>,
    slow: BTreeMap<i32, Slow>,
    /// The relays are to end.
    ended: bool,
}

#[derive(Default)]
struct Shared {
    /// The nodes, by their data directories.
    nodes: Mutex<BTreeMap<i32, PathBuf>>,
    faults: Mutex<Faults>,
    changed: Condvar,
}

/// In front of each node that lives here. They end with this, and with the nodes.
pub struct Relays {
    nodes: Vec<i32>,
    shared: Arc<Shared>,
    addresses: Mutex<Vec<SocketAddr>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of the socket at the other end of a connection.
fn socket_of(connection: &TcpStream) -> Option<String> {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let ends = [hex(connection.peer_addr().ok()?), hex(connection.local_addr().ok()?)];
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let words = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found =
        words.filter(|words| words.get(1..3) == Some(&[&ends[0], &ends[1]].map(|it| &**it)[..]));
    found.next()?.get(9).map(|number| format!("socket:[{number}]"))
}

impl Shared {
    /// The node that has connected; `None` where it is gone already.
    fn who(&self, connection: &TcpStream) -> Option<i32> {
        let socket = socket_of(connection)?;
        let nodes = locked(&self.nodes).clone();
        for process in fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()) {
            let Ok(line) = fs::read(process.join("cmdline")) else { continue };
            let mut words = line.split(|byte| *byte == 0);
            let node = nodes
                .iter()
                .find(|(_, data)| words.clone().any(|it| it == data.as_os_str().as_bytes()));
            let (Some((node, _)), Some(_)) = (node, words.next()) else { continue };
            let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
            if links.any(|link| link.as_os_str() == &*socket) {
                return Some(*node);
            }
        }
        None
    }

    /// Waits for as long as nothing passes from one node to another, and for as long as so many
    /// bytes take.
    fn pass(&self, from: i32, to: i32, bytes: usize) {
        let faults = locked(&self.faults);
        let is_lost = |faults: &mut Faults| !faults.ended && faults.lost.contains(&(from, to));
        let waited = self.changed.wait_while(faults, is_lost);
        let mut faults = waited.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut through = now;
        for node in [from, to] {
            if let Some(slow) = faults.slow.get_mut(&node) {
                let time = Duration::from_secs_f64(bytes as f64 / slow.bytes_per_s);
                slow.through = slow.through.max(now) + time;
                through = through.max(slow.through);
            }
        }
        drop(faults);
        thread::sleep(through - now);
    }

    /// Passes on what one node says on a connection, to its end.
    fn pump(&self, (from, mut source): (i32, &TcpStream), (to, mut target): (i32, &TcpStream)) {
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let read = source.read(&mut chunk).unwrap_or(0);
            self.pass(from, to, read);
            if read == 0 || target.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        for end in [source, target] {
            let _closed = end.shutdown(Shutdown::Both);
        }
    }

    /// One connection, to its end.
    fn relay(&self, (from, source): (i32, &TcpStream), (to, address): (i32, SocketAddr)) {
        // Neither the wish for a connection comes through, nor the answer to it.
        self.pass(from, to, 0);
        self.pass(to, from, 0);
        let Ok(target) = TcpStream::connect(address) else { return };
        for end in [source, &target] {
            end.set_nodelay(true).expect("a connection");
        }
        thread::scope(|scope| {
            scope.spawn(|| self.pump((to, &target), (from, source)));
            self.pump((from, source), (to, &target));
        });
    }
}

impl Relays {
    /// Between nodes of these numbers.
    pub fn new(nodes: &[i32]) -> Self {
        Self { nodes: nodes.to_vec(), shared: Arc::default(), addresses: Mutex::default() }
    }

    pub fn nodes(&self) -> std::vec::IntoIter<i32> {
        self.nodes.clone().into_iter()
    }

    /// Where a node lives that is to run behind a relay.
    pub fn place(&self, node: i32, directory: &Path) -> Place {
        let [address, listener, peer_listener] = [(); 3].map(|()| free_address());
        let behind = Some(Behind { address, listener, peer_listener });
        let place = Place { behind, ..Place::local(node, directory) };
        locked(&self.shared.nodes).insert(node, place.data.clone());
        self.listen(place.peer_address, (node, peer_listener), Shared::who);
        self.listen(address, (node, listener), |_, _| Some(CLIENTS));
        place
    }

    /// Passes on to a node what comes here, from whom this says.
    fn listen(
        &self,
        here: SocketAddr,
        to: (i32, SocketAddr),
        who: fn(&Shared, &TcpStream) -> Option<i32>,
    ) {
        let listener = TcpListener::bind(here).expect("a free port");
        locked(&self.addresses).push(here);
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for source in listener.incoming().map_while(Result::ok) {
                if locked(&shared.faults).ended {
                    break;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    if let Some(from) = who(&shared, &source) {
                        shared.relay((from, &source), to);
                    }
                });
            }
        });
    }

    pub fn lose_one_way(&self, from: i32, to: i32) {
        locked(&self.shared.faults).lost.insert((from, to));
    }

    pub fn cut_off_clients(&self, node: i32) {
        self.lose_one_way(CLIENTS, node);
    }

    pub fn slow_down(&self, node: i32, kilobytes: u32) {
        let bytes_per_s = f64::from(kilobytes) * 1000.0;
        let slow = Slow { bytes_per_s, through: Instant::now() };
        locked(&self.shared.faults).slow.insert(node, slow);
    }

    pub fn heal(&self) {
        let mut faults = locked(&self.shared.faults);
        faults.lost.clear();
        faults.slow.clear();
        self.shared.changed.notify_all();
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        locked(&self.shared.faults).ended = true;
        self.shared.changed.notify_all();
        for address in locked(&self.addresses).iter() {
            // Wakes who waits for the next one.
            let _connected = TcpStream::connect(address);
        }
    }
}
