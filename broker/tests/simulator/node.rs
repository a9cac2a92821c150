//! One life of a node: the real shards, composed as `server` composes them on a machine.

use std::cell::{Cell, RefCell};
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use vltava::config::values::{BrokerConfig, Given, Origin, load};
use vltava::metadata::features::Levels;
use vltava::net::counts::ConnectionCounts;
use vltava::runtime::sim::{Random, SimRuntime};
use vltava::runtime::{ProcessFacts, Queue, Runtime};
use vltava::shard::{self, Blueprint, Ports, Shard, ShardFailure};

/// Memory of one shard, in bytes.
const SHARD_MEMORY_BYTES: usize = 32 * 1024 * 1024;

/// A shard, for as long as its process lives.
type WeakShard = Weak<Shard<SimRuntime>>;

/// A node that was started.
pub struct Node {
    stops: RefCell<Vec<oneshot::Sender<()>>>,
    /// Shards that have not closed yet.
    open: Rc<Cell<usize>>,
    shards: Rc<RefCell<Vec<WeakShard>>>,
}

impl Node {
    /// Asks one of the shards, whichever, to stop in order. False where all were asked.
    pub fn stop_one(&self, random: &mut Random) -> bool {
        let mut stops = self.stops.borrow_mut();
        if stops.is_empty() {
            return false;
        }
        let which = random.index(stops.len());
        let stop = stops.swap_remove(which);
        // A shard that has ended by itself needs no asking.
        let _ = stop.send(());
        true
    }

    /// Whether all shards have closed.
    pub fn has_stopped(&self) -> bool {
        self.open.get() == 0
    }

    /// The shards that are built and not closed.
    pub fn shards(&self) -> Vec<Rc<Shard<SimRuntime>>> {
        self.shards.borrow().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Starts a node on these shards. `ended` is told where one of them ends unasked, and why.
pub fn start(
    runtimes: Vec<SimRuntime>,
    settings: &[(&str, String)],
    ended: impl Fn(String) + 'static,
) -> Node {
    let blueprint = Blueprint {
        config: Arc::new(config(runtimes.len(), settings)),
        memory_bytes: SHARD_MEMORY_BYTES,
        connections: ConnectionCounts::default(),
        levels: Levels::SERVED,
    };
    let open = Rc::new(Cell::new(runtimes.len()));
    let shards = Rc::new(RefCell::new(Vec::new()));
    let ended = Rc::new(ended);
    let mut stops = Vec::new();
    let ports = shard::ports(runtimes.len());
    for (number, (runtime, ports)) in runtimes.into_iter().zip(ports).enumerate() {
        let (stop, stopping) = oneshot::channel();
        stops.push(stop);
        let (open, ended, blueprint) = (Rc::clone(&open), Rc::clone(&ended), blueprint.clone());
        let (spawner, shards) = (runtime.clone(), Rc::clone(&shards));
        spawner.spawn(Queue::Control, async move {
            let built = |shard: &Rc<Shard<SimRuntime>>| {
                shards.borrow_mut().push(Rc::downgrade(shard));
            };
            let failed = |why: &ShardFailure| ended(format!("shard {number}: {why}"));
            let run = run_shard(runtime, number, ports, blueprint, built, failed, stopping);
            // It was told already.
            let _ = run.await;
            open.set(open.get() - 1);
        });
    }
    Node { stops: RefCell::new(stops), open, shards }
}

fn config(shards: usize, settings: &[(&str, String)]) -> BrokerConfig {
    let own = [("shards", shards.to_string())];
    let all = own.iter().chain(settings).map(|(name, value)| Given {
        name: (*name).to_owned(),
        value: value.clone(),
        origin: Origin::Set,
    });
    let given: Vec<Given> = all.collect();
    match load(&given) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("the node's settings: {errors}"),
    }
}

async fn run_shard(
    runtime: SimRuntime,
    number: usize,
    ports: Ports<SimRuntime>,
    blueprint: Blueprint,
    built: impl Fn(&Rc<Shard<SimRuntime>>),
    failed: impl Fn(&ShardFailure),
    stopping: oneshot::Receiver<()>,
) -> Result<(), ShardFailure> {
    let shard = Shard::build(runtime, ports, blueprint).await.inspect_err(&failed)?;
    built(&shard);
    let acceptors = shard.listen().await.inspect_err(&failed)?;
    if number == 0 {
        // There is no process to look at.
        let facts = || -> Pin<Box<dyn Future<Output = ProcessFacts>>> {
            Box::pin(ready(ProcessFacts::default()))
        };
        shard.serve_admin(Box::new(facts)).await.inspect_err(&failed)?;
    }
    let serving = shard.run(acceptors, "node", ready(()));
    let result = match select(pin!(serving), stopping).await {
        // The others do not stop with it here, so it may never come to close.
        Either::Left((ended, _)) => ended.inspect_err(&failed),
        Either::Right(_) => Ok(()),
    };
    shard.close().await;
    result
}
