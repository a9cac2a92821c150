//! A node of one shard that has nobody beside it: what most tests of one room need.

use std::future::Future;

use vltava_storage::io::fault_disk::FaultDisk;

use super::options::SimulationOptions;
use super::simulation::{SimRuntime, Simulation};

/// Of virtual time.
const TIME_MAX_NS: u64 = 3_600_000_000_000;

/// Runs a story on such a node, with its disk, to the end.
///
/// # Panics
/// Where it does not end.
pub fn run_alone<F: Future<Output = ()> + 'static>(
    seed: u64,
    story: impl FnOnce(SimRuntime, FaultDisk) -> F,
) {
    let simulation = Simulation::new(SimulationOptions::new(seed));
    let host = simulation.add_host();
    let disk = simulation.disk(host);
    let runtime = simulation.start(host, 1).remove(0);
    let run = simulation.executor().run(TIME_MAX_NS, story(runtime, disk));
    run.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    simulation.close();
}
