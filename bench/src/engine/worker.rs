//! One thread: its clients, and the loop that serves them.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError, Sender, TryRecvError};

use thiserror::Error;
use vltava_client::error::ClientError;

use crate::engine::client::{Client, ClientPlan, Outcome};
use crate::engine::clock::Clock;
use crate::engine::context::Context;
use crate::engine::map::{Map, dense, index};
use crate::engine::poll::Readiness;
use crate::engine::stats::{Delta, Window};

const SECOND_NS: u64 = 1_000_000_000;
/// How often the crew hears how far a worker is, and the worker what the crew wants.
const PROGRESS_NS: u64 = 10_000_000;

/// What the crew tells a worker.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Load begins and ends then.
    Begin(Window),
    /// Whatever is missing now stays missing.
    Finish,
}

/// What a worker tells its crew.
#[derive(Debug)]
pub enum Event {
    /// It is connected.
    Ready {
        /// Its thread, by the kernel's number, where that is known.
        thread_id: Option<u32>,
    },
    /// It could not be.
    Failed(ClientError),
    /// How far it is.
    Progress(Progress),
    /// A second is over.
    Second(Box<Delta>),
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records acknowledged.
    pub acknowledged: u64,
    /// When the last ones were.
    pub last_acknowledgement_ns: u64,
    /// Records received.
    pub received: u64,
    /// When the last one was.
    pub last_receipt_ns: u64,
    /// Clients that read, and have not given up.
    pub readers: usize,
    /// Clients that are not where they are to be before load begins.
    pub unsettled: usize,
    /// Clients that have something left to be sent or answered.
    pub unfinished: usize,
}

/// What a worker has to say at its end.
#[derive(Debug)]
pub struct WorkerReport {
    /// What became of each client.
    pub outcomes: Vec<Outcome>,
    /// What went wrong.
    pub faults: Vec<String>,
    /// Connections that were lost.
    pub reconnects: u64,
    /// What has not been handed over.
    pub rest: Delta,
}

/// Why a worker ended before its time.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The system.
    #[error("waiting for sockets: {0}")]
    Poll(#[from] std::io::Error),
    /// The crew is gone.
    #[error("the run was given up")]
    Alone,
}

impl<T> From<SendError<T>> for WorkerError {
    fn from(_: SendError<T>) -> Self {
        Self::Alone
    }
}

/// A worker's end of its two channels.
#[derive(Debug)]
pub struct Wires {
    /// Which worker it is.
    pub number: usize,
    /// What it is told.
    pub commands: Receiver<Command>,
    /// Where it tells.
    pub events: Sender<(usize, Event)>,
}

struct Worker {
    wires: Wires,
    context: Context,
    clients: Vec<Client>,
    /// When each wants its turn, though nothing happens.
    due_ns: Vec<u64>,
    next_progress_ns: u64,
    /// Which second it is in, of how many.
    second: u32,
    ready: Vec<Readiness>,
}

/// Works until the crew says that it is finished.
///
/// # Errors
/// The system's, and the crew's end.
pub fn work(
    plans: Vec<ClientPlan>,
    clock: Clock,
    map: Arc<Map>,
    retry_ns: u64,
    wires: Wires,
) -> Result<WorkerReport, WorkerError> {
    let context = Context::new(clock, map, retry_ns)?;
    let clients = (0..)
        .zip(plans)
        .map(|(number, plan)| Client::open(plan, number, &context))
        .collect::<Result<Vec<Client>, ClientError>>();
    let clients = match clients {
        Ok(clients) => clients,
        Err(error) => {
            wires.events.send((wires.number, Event::Failed(error)))?;
            return Err(WorkerError::Alone);
        }
    };
    wires.events.send((wires.number, Event::Ready { thread_id: thread_id() }))?;
    let mut worker = Worker {
        due_ns: vec![0; clients.len()],
        wires,
        context,
        clients,
        next_progress_ns: 0,
        second: 0,
        ready: Vec::new(),
    };
    let ran = worker.run();
    // However it ended: members leave their groups.
    let report = worker.report();
    ran.map(|()| report)
}

impl Worker {
    fn run(&mut self) -> Result<(), WorkerError> {
        loop {
            let now_ns = self.context.tick();
            if now_ns >= self.next_progress_ns {
                self.next_progress_ns = now_ns + PROGRESS_NS;
                match self.wires.commands.try_recv() {
                    Ok(Command::Begin(window)) => self.begin(window),
                    Ok(Command::Finish) => return Ok(()),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => return Err(WorkerError::Alone),
                }
                self.tell(Event::Progress(self.progress()))?;
            }
            self.turn_over_seconds()?;
            for client in 0..self.clients.len() {
                if self.due_ns[client] <= self.context.now_ns {
                    self.due_ns[client] = self.clients[client].turn(&mut self.context);
                }
            }
            let soonest_ns = self.due_ns.iter().copied().min().unwrap_or(u64::MAX);
            let until_ns = soonest_ns.min(self.next_progress_ns);
            self.wait(until_ns)?;
        }
    }

    /// Waits for sockets, and lets their clients do what can be done.
    fn wait(&mut self, until_ns: u64) -> Result<(), WorkerError> {
        let timeout_ns = until_ns.saturating_sub(self.context.clock.now_ns());
        self.ready.clear();
        self.ready.extend(self.context.poll.wait(timeout_ns)?);
        self.context.tick();
        for ready in &self.ready {
            let client = index(ready.token.client);
            if let Some(waiting) = self.clients.get_mut(client) {
                waiting.on_ready(ready.token.link, ready.readable, &mut self.context);
                self.due_ns[client] = 0;
            }
        }
        Ok(())
    }

    fn begin(&mut self, window: Window) {
        self.context.stats.window = window;
        self.clients.iter_mut().for_each(|client| client.begin(window));
        self.due_ns.fill(0);
    }

    /// Hands over what happened in seconds that are over.
    fn turn_over_seconds(&mut self) -> Result<(), WorkerError> {
        let Window { from_ns, to_ns, .. } = self.context.stats.window;
        loop {
            let begin_ns = from_ns.saturating_add(u64::from(self.second) * SECOND_NS);
            let end_ns = begin_ns.saturating_add(SECOND_NS).min(to_ns);
            if begin_ns >= to_ns || self.context.now_ns < end_ns {
                return Ok(());
            }
            self.second += 1;
            let delta = self.context.stats.turn_over(self.second);
            self.tell(Event::Second(Box::new(delta)))?;
        }
    }

    fn progress(&self) -> Progress {
        let stats = &self.context.stats;
        Progress {
            acknowledged: stats.acknowledged,
            last_acknowledgement_ns: stats.last_acknowledgement_ns,
            received: stats.received,
            last_receipt_ns: stats.last_receipt_ns,
            readers: self.clients.iter().filter(|client| client.is_reading()).count(),
            unsettled: self.clients.iter().filter(|client| !client.is_settled()).count(),
            unfinished: self.clients.iter().filter(|client| !client.is_done()).count(),
        }
    }

    fn tell(&self, event: Event) -> Result<(), WorkerError> {
        Ok(self.wires.events.send((self.wires.number, event))?)
    }

    fn report(mut self) -> WorkerReport {
        let context = &mut self.context;
        let outcomes = self.clients.into_iter().map(|client| client.finish(context)).collect();
        WorkerReport {
            outcomes,
            faults: context.stats.take_faults(),
            reconnects: context.stats.reconnects,
            rest: context.stats.turn_over(dense(usize::MAX)),
        }
    }
}

/// The number of this thread.
fn thread_id() -> Option<u32> {
    let link = fs::read_link("/proc/thread-self").ok()?;
    link.file_name()?.to_str()?.parse().ok()
}
