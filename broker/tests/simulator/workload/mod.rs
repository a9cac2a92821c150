//! What clients do, each in its own process, until the run says that it is enough.

mod admin;
mod consumer;
mod fetch;
mod group;
mod keeper;
mod lookup;
mod mover;
mod operator;
mod producer;
mod records;
mod recreator;
mod route;
mod scraper;
mod session;
mod setup;
mod shard_mover;
mod throttler;
mod tuner;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use vltava::runtime::sim::{HostId, Purpose, Random, SimRuntime, Simulation};
use vltava::runtime::{Queue, Runtime};
use vltava_protocol::messages::create_topics::CreatableTopicConfig;
use vltava_protocol::types::{Str, Uuid};

pub use self::consumer::{ReadThrough, read_through};
pub use self::records::unpack;
pub use self::scraper::ask;
pub use self::setup::create_topics;
use crate::checkers::{Checkers, Partition, Viewer};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::swarm::Swarm;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Idempotent, acks=all.
    ProducerAll,
    /// Idempotent, acks=1.
    ProducerOne,
    /// Neither idempotent nor repeating: each record once, or never.
    ProducerPlain,
    /// Reads partitions from their start.
    Consumer,
    /// Joins a group, reads what it is given, commits.
    Member,
    /// Creates and deletes topics.
    Admin,
    /// Deletes records of the topics of the run, and changes their settings.
    Tuner,
    /// Makes one topic again and again, and uses it.
    Recreator,
    /// Commits offsets without being a member, and deletes groups.
    Keeper,
    /// Reads metrics and health.
    Scraper,
    /// Moves replicas of the topics of the run from node to node, and takes that back.
    Mover,
    /// Moves partitions between shards.
    ShardMover,
    /// Lets nodes come and go.
    Operator,
    /// Throttles replicas that move.
    Throttler,
}

/// A topic of the run.
pub struct Topic {
    /// Its name.
    pub name: Rc<str>,
    /// What checkers call it: no other topic is called so, also if it has the same name later.
    pub key: Rc<str>,
    /// Its id, once it is created.
    pub id: Cell<Uuid>,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each of them has.
    pub replication: i16,
}

impl Topic {
    /// Its partitions, as checkers name them.
    pub fn all(&self) -> impl Iterator<Item = Partition> + '_ {
        (0..self.partitions).map(|partition| (Rc::clone(&self.key), partition))
    }

    /// As whom a client sees high watermarks and starts of this topic.
    pub fn viewer(&self, client: &Client) -> Viewer {
        client.only_broker().is_none().then(|| Rc::from(client.name.as_str()))
    }
}

/// What all clients of a run share. A clone is the same one.
#[derive(Clone)]
pub struct Workload {
    /// The run.
    pub simulation: Simulation,
    /// What was drawn for it.
    pub swarm: Rc<Swarm>,
    /// Who watches.
    pub checkers: Checkers,
    /// The nodes.
    pub cluster: Cluster,
    /// Where they listen.
    pub brokers: Rc<[SocketAddr]>,
    /// What is written to and read from.
    pub topics: Rc<[Topic]>,
    /// Whether clients should come to an end: what is under way is finished, nothing new begins.
    finishing: Rc<Cell<bool>>,
    /// Clients that have not finished, by name.
    busy: Rc<RefCell<BTreeMap<String, HostId>>>,
    producers_made: Rc<Cell<u64>>,
    /// Partitions that went from shard to shard.
    pub moved: Rc<Cell<u64>>,
    /// Nodes that came, and that left.
    pub came: Rc<Cell<u64>>,
    pub left: Rc<Cell<u64>>,
}

impl Workload {
    /// A workload without clients.
    pub fn new(
        simulation: &Simulation,
        swarm: &Rc<Swarm>,
        checkers: &Checkers,
        cluster: &Cluster,
    ) -> Self {
        let topics = swarm.topics.iter().zip(&swarm.shape.replication).enumerate();
        let topics = topics.map(|(number, (&partitions, &replication))| {
            let name: Rc<str> = Rc::from(format!("topic-{number}"));
            let (key, id) = (Rc::clone(&name), Cell::new(Uuid::ZERO));
            Topic { key, name, id, partitions, replication }
        });
        if swarm.retention_deletes {
            checkers.starts.borrow_mut().retention_may_delete();
        }
        Self {
            simulation: simulation.clone(),
            swarm: Rc::clone(swarm),
            checkers: checkers.clone(),
            cluster: cluster.clone(),
            brokers: cluster.addresses(),
            topics: topics.collect(),
            finishing: Rc::default(),
            busy: Rc::default(),
            producers_made: Rc::default(),
            moved: Rc::default(),
            came: Rc::default(),
            left: Rc::default(),
        }
    }

    /// Settings of the run's topics, those of them that are asked for.
    fn topic_configs(&self, is_asked: impl Fn(&str) -> bool) -> Vec<CreatableTopicConfig> {
        let configs = self.swarm.topic_configs.iter().filter(|(name, _)| is_asked(name));
        let configs = configs.map(|(name, value)| CreatableTopicConfig {
            name: Str::from_static(name),
            value: Some(Str::from(value.as_str())),
        });
        configs.collect()
    }

    /// A client on a host of its own.
    pub fn client(&self, name: &str) -> (HostId, Client) {
        let host = self.simulation.add_host();
        let runtime: SimRuntime = self.simulation.start(host, 1).remove(0);
        let seed = self.simulation.executor().seed();
        let random = Random::new(seed, Purpose::Workload, u64::from(host.0));
        let mut client = Client::new(runtime, random, name.to_owned(), Rc::clone(&self.brokers));
        client.timeout = self.swarm.client_timeout;
        (host, client)
    }

    /// Starts all clients that the swarm asks for.
    pub fn start(&self) {
        for (number, &role) in self.swarm.clients.iter().enumerate() {
            let name = format!("{role:?}-{number}");
            let (host, client) = self.client(&name);
            self.busy.borrow_mut().insert(name.clone(), host);
            let (workload, runtime) = (self.clone(), client.runtime.clone());
            runtime.spawn(Queue::Foreground, async move {
                workload.play(role, client).await;
                workload.busy.borrow_mut().remove(&name);
            });
        }
    }

    async fn play(&self, role: Role, client: Client) {
        match role {
            Role::ProducerAll | Role::ProducerOne | Role::ProducerPlain => {
                producer::produce(self, role, client).await;
            }
            Role::Consumer => consumer::consume(self, client).await,
            Role::Member => group::take_part(self, client).await,
            Role::Admin => admin::administrate(self, client).await,
            Role::Tuner => tuner::tune(self, client).await,
            Role::Recreator => recreator::recreate(self, client).await,
            Role::Keeper => keeper::keep(self, client).await,
            Role::Scraper => scraper::scrape(self, client).await,
            Role::Mover => mover::shift(self, client).await,
            Role::Operator => operator::operate(self, client).await,
            Role::Throttler => throttler::throttle(self, client).await,
            Role::ShardMover => shard_mover::move_partitions(self, client).await,
        }
    }

    /// The hosts of clients that have not finished.
    pub fn hosts(&self) -> Vec<HostId> {
        self.busy.borrow().values().copied().collect()
    }

    /// Whether clients should come to an end.
    pub fn is_finishing(&self) -> bool {
        self.finishing.get()
    }

    /// Asks clients to come to an end, and waits for it.
    pub async fn finish(&self) {
        self.finishing.set(true);
        let executor = self.simulation.executor();
        let mut told = 0;
        while !self.busy.borrow().is_empty() {
            executor.sleep_until(executor.now_ns() + 10_000_000).await;
            let waiting = self.busy.borrow().len();
            if waiting != told {
                let names: Vec<String> = self.busy.borrow().keys().cloned().collect();
                executor.note(&format!("waiting for {}", names.join(", ")));
                told = waiting;
            }
        }
    }

    /// Whether nobody writes any more.
    pub fn is_quiet(&self) -> bool {
        let busy = self.busy.borrow();
        self.is_finishing() && !busy.keys().any(|name| name.starts_with("Producer"))
    }

    /// The names of clients that have not finished.
    pub fn waiting_for(&self) -> String {
        let names: Vec<String> = self.busy.borrow().keys().cloned().collect();
        names.join(", ")
    }

    /// A number for one life of a producer.
    fn next_producer(&self) -> u64 {
        self.producers_made.set(self.producers_made.get() + 1);
        self.producers_made.get()
    }
}

/// How long a client waits, at most, before it tries again.
pub const RETRY: Duration = Duration::from_millis(500);
/// When nothing fails any more, what was asked has arrived by then.
const ARRIVAL: Duration = Duration::from_secs(20);
