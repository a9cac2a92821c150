//! Starts the shards of one process, says what it found and chose, and stops it in order.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::{Either, select};

use crate::admin::server::ProcessProbe;
use crate::config::listeners::Endpoint;
use crate::config::values::BrokerConfig;
use crate::metadata::features::Levels;
use crate::net::counts::ConnectionCounts;
use crate::net::listener;
use crate::runtime::{
    self, DataDirectory, DataDirectoryError, Listener, MachineFacts, MachineRuntime, ProcessFacts,
    Recorder, ShardError, ShardStart, Shards, ShutdownSignals, StartError,
};
use crate::screen;
use crate::shard::{self, Blueprint, Ports, Shard, ShardFailure};

/// What a shard needs at least, in bytes: less would not hold a request and what answers it.
const SHARD_MEMORY_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// What a shard is given where nobody says: a quarter holds the largest request that is allowed by
/// default, and the batch cache, its half, a second or so of what one shard can take in. More would
/// serve readers further behind from memory, and is fresh memory for as long to each write.
const SHARD_MEMORY_BYTES_DEFAULT: u64 = 512 * 1024 * 1024;

/// The kernel takes rings apart a moment after their process was killed, and the sockets with them.
const LEFT_SOCKETS_TIME_MAX: Duration = Duration::from_secs(2);

/// Why the server does not run, in one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// A listener's address is not to be had.
    #[error("cannot listen on {address} for {purpose}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// What for, and which flag says where.
        purpose: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The machine refuses what a shard needs.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A shard ended with an error.
    #[error(transparent)]
    Shard(#[from] ShardError<ShardFailure>),
    /// Signals cannot be caught.
    #[error("signals cannot be caught: {0}")]
    Signals(std::io::Error),
}

/// What the server chose, beside its settings.
struct Chosen {
    shards: usize,
    memory_bytes: u64,
}

/// Runs a broker until it is told to stop. `started` is when the process began.
///
/// # Errors
/// Where it cannot start, or a shard fails.
pub fn run(config: BrokerConfig, started: Instant) -> Result<(), ServerError> {
    run_as(config, Levels::SERVED, started)
}

/// As [`run`], as a release that serves these feature levels: for tests of clusters whose nodes are
/// of several releases.
///
/// # Errors
/// As [`run`].
pub fn run_as(config: BrokerConfig, levels: Levels, started: Instant) -> Result<(), ServerError> {
    start_as(config, levels, started, None)?.wait()
}

/// A broker whose shards run.
#[derive(Debug)]
pub struct Server(Shards<ShardFailure>);

impl Server {
    /// Tells it to stop.
    pub fn stop(&self) {
        self.0.stop().request();
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// Where a shard failed.
    pub fn wait(self) -> Result<(), ServerError> {
        self.0.join()?;
        tracing::info!("stopped: all logs are closed");
        Ok(())
    }
}

/// Starts a broker. `recorder` sees what its rings do.
///
/// # Errors
/// Where it cannot start.
pub fn start(
    config: BrokerConfig,
    started: Instant,
    recorder: Option<Arc<dyn Recorder>>,
) -> Result<Server, ServerError> {
    start_as(config, Levels::SERVED, started, recorder)
}

fn start_as(
    mut config: BrokerConfig,
    levels: Levels,
    started: Instant,
    recorder: Option<Arc<dyn Recorder>>,
) -> Result<Server, ServerError> {
    let facts = runtime::probe();
    let chosen = choose(&config, &facts);
    // What the machine refuses is met before anything on disk is touched.
    runtime::check_limits(chosen.shards)?;
    check_listeners(&config)?;
    let directory = Arc::new(DataDirectory::open(Path::new(&config.data_directory))?);
    config.data_directory = directory.path().display().to_string();
    screen::show(&config, &facts, chosen.shards, chosen.memory_bytes, &directory);
    let signals = ShutdownSignals::install().map_err(ServerError::Signals)?;
    let options = runtime::Options { data_directory: directory, recorder };
    let shards = u64::try_from(chosen.shards).unwrap_or(u64::MAX);
    let blueprint = Blueprint {
        config: Arc::new(config),
        memory_bytes: usize::try_from(chosen.memory_bytes / shards).unwrap_or(usize::MAX),
        connections: ConnectionCounts::default(),
        levels,
    };
    let ports = shard::ports(chosen.shards);
    let running = runtime::run_shards(&options, ports, move |start, ports| {
        run_shard(start, ports, blueprint.clone(), signals.clone(), started)
    })?;
    Ok(Server(running))
}

fn choose(config: &BrokerConfig, facts: &MachineFacts) -> Chosen {
    let cores = facts.cores.len().max(1);
    let shards = config.shards.map_or(cores, |shards| usize::try_from(shards).unwrap_or(cores));
    let of_all = |bytes| u64::try_from(shards).unwrap_or(u64::MAX).saturating_mul(bytes);
    let usual = of_all(SHARD_MEMORY_BYTES_DEFAULT).min(facts.memory_bytes / 2);
    let memory_bytes = config.memory_bytes.unwrap_or(usual).max(of_all(SHARD_MEMORY_BYTES_MIN));
    Chosen { shards, memory_bytes }
}

/// An address that is taken is met before anything on disk is touched; so are two listeners of ours
/// with one address.
fn check_listeners(config: &BrokerConfig) -> Result<(), ServerError> {
    const CLIENTS: &str = "clients (--listen)";
    const ADMIN: &str = "metrics and health (--admin)";
    const PEERS: &str = "other nodes (--peers)";
    let failed = |endpoint: &Endpoint, purpose, error| ServerError::Listen {
        address: endpoint.to_string(),
        purpose,
        error,
    };
    let listeners = config.listeners.iter().map(|l| (l.bind.clone(), CLIENTS));
    let admin = shard::admin_endpoint(config).map(|endpoint| (endpoint, ADMIN));
    let peers = shard::peer_endpoint(config).map(|endpoint| (endpoint, PEERS));
    let mut wanted = Vec::new();
    for (endpoint, purpose) in listeners.chain(admin).chain(peers) {
        let address = listener::address(&endpoint).map_err(|e| failed(&endpoint, purpose, e))?;
        wanted.push((endpoint, purpose, address));
    }
    let deadline = Instant::now() + LEFT_SOCKETS_TIME_MAX;
    // A port may be had in IPv4 and in IPv6: each family for itself.
    for is_ipv4 in [true, false] {
        // Held until all are known to be free.
        let mut held = Vec::new();
        let family = wanted.iter().filter(|(_, _, address)| address.is_ipv4() == is_ipv4);
        for (endpoint, purpose, address) in family {
            held.push(bind(*address, deadline).map_err(|e| failed(endpoint, purpose, e))?);
        }
    }
    Ok(())
}

/// Takes an address; waits until the deadline for one that is in use.
fn bind(address: SocketAddr, deadline: Instant) -> io::Result<TcpListener> {
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound,
        }
    }
}

async fn run_shard(
    start: ShardStart,
    ports: Ports<MachineRuntime>,
    blueprint: Blueprint,
    signals: ShutdownSignals,
    started: Instant,
) -> Result<(), ShardFailure> {
    let ShardStart { runtime, shard: number, stop, .. } = start;
    let shard = Shard::build(runtime.clone(), ports, blueprint).await?;
    let acceptors = shard.listen().await?;
    let mut admin = None;
    if number == 0 {
        admin = shard.serve_admin(process_probe(&runtime, started)).await?;
    }
    let addresses: Vec<_> =
        acceptors.iter().map(|acceptor| acceptor.socket.local_address()).collect();
    let announcing = async {
        if number == 0 {
            announce(&shard, &addresses, admin, started).await;
        }
    };
    let host = host_name();
    let serving = shard.run(acceptors, &host, announcing);
    let stopping = async {
        if number == 0 {
            let signalled = pin!(runtime.shutdown_signal(&signals));
            select(signalled, pin!(stop.requested())).await;
            stop.request();
        } else {
            stop.requested().await;
        }
    };
    let result = match select(pin!(serving), pin!(stopping)).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), _)) => Ok(()),
    };
    stop.request();
    if number == 0 {
        let _unheard = runtime::notify_service_manager("STOPPING=1");
        if result.is_ok() {
            tracing::info!("stopping");
        }
    }
    shard.close().await;
    result
}

/// This machine's name, as other machines may know it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// What the admin port says about the process.
fn process_probe(runtime: &MachineRuntime, started: Instant) -> ProcessProbe {
    let started_at = SystemTime::now().checked_sub(started.elapsed());
    let since_1970 = started_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let started_at_s = since_1970.unwrap_or_default().as_secs();
    let runtime = runtime.clone();
    Box::new(move || {
        let runtime = runtime.clone();
        Box::pin(async move { ProcessFacts { started_at_s, ..runtime.process_facts().await } })
    })
}

/// Says that it is ready, once all shards are.
async fn announce(
    shard: &Shard<MachineRuntime>,
    addresses: &[SocketAddr],
    admin: Option<SocketAddr>,
    started: Instant,
) {
    let services = &shard.services;
    services.node.all_serving().await;
    let limit = services.runtime.process_facts().await.descriptors_max;
    screen::show_descriptors(services.node.image().partition_count(), limit);
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let admin = admin.map_or(String::new(), |admin| format!(", admin on http://{admin}"));
    let listening = addresses.join(", ");
    // A number in JSON, too: 128 bits would be text there.
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    screen::line(&format!("vltava is ready on {listening}{admin} ({elapsed_ms} ms)"));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listening, elapsed_ms, "ready");
    if let Err(error) = runtime::notify_service_manager("READY=1") {
        tracing::warn!(%error, "the service manager could not be told that the broker is ready");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::config::values::load;

    const MIB: u64 = 1 << 20;

    fn chosen(cores: usize, memory_bytes: u64, set: Option<u64>) -> (usize, u64) {
        let mut config = load(&[]).unwrap().config;
        config.memory_bytes = set;
        let cores = (0..cores).collect();
        let facts =
            MachineFacts { cores, memory_bytes, descriptors_max: 1024, kernel: String::new() };
        let Chosen { shards, memory_bytes } = choose(&config, &facts);
        (shards, memory_bytes / MIB)
    }

    #[test]
    fn memory_goes_by_shards_and_leaves_half_of_the_machine() {
        assert_eq!(chosen(2, 24 << 30, None), (2, 1024));
        assert_eq!(chosen(64, 512 << 30, None), (64, 32 * 1024));
        assert_eq!(chosen(16, 4 << 30, None), (16, 2048));
        assert_eq!(chosen(16, 512 * MIB, None), (16, 16 * 32), "less would hold no request");
        assert_eq!(chosen(2, 24 << 30, Some(6 << 30)), (2, 6 * 1024));
    }
}
