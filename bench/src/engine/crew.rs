//! The workers of a run, seen from outside.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use vltava_client::error::ClientError;

use crate::engine::client::ClientPlan;
use crate::engine::clock::Clock;
use crate::engine::map::Map;
use crate::engine::stats::{Delta, Window};
use crate::engine::worker::{Command, Event, Progress, Wires, WorkerError, WorkerReport, work};
use crate::interrupt::is_interrupted;

/// Why a crew cannot work.
#[derive(Debug, Error)]
pub enum CrewError {
    /// A thread could not be made.
    #[error("no thread for a worker: {0}")]
    Thread(#[from] io::Error),
    /// The cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
    /// A worker has panicked: a fault of the harness.
    #[error("a worker has panicked, which is a fault of this harness")]
    Panic,
}

#[derive(Debug)]
struct Hired {
    commands: Sender<Command>,
    thread: JoinHandle<Result<WorkerReport, WorkerError>>,
    thread_id: Option<u32>,
    progress: Progress,
}

/// Workers that are connected.
#[derive(Debug)]
pub struct Crew {
    workers: Vec<Hired>,
    events: Receiver<(usize, Event)>,
}

impl Crew {
    /// Starts a worker for each entry, and waits until all are connected.
    ///
    /// # Errors
    /// Where one is not.
    pub fn hire(
        plans: Vec<Vec<ClientPlan>>,
        clock: Clock,
        map: &Arc<Map>,
        retry_ns: u64,
    ) -> Result<Self, CrewError> {
        let (sender, events) = channel();
        let mut workers = Vec::new();
        for (number, plans) in plans.into_iter().enumerate() {
            let (commands, receiver) = channel();
            let wires = Wires { number, commands: receiver, events: sender.clone() };
            let map = Arc::clone(map);
            let thread = thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(plans, clock, map, retry_ns, wires))?;
            let progress =
                Progress { unfinished: usize::MAX, unsettled: usize::MAX, ..Progress::default() };
            workers.push(Hired { commands, thread, thread_id: None, progress });
        }
        let mut crew = Self { workers, events };
        let mut missing = crew.workers.len();
        while missing > 0 {
            match crew.events.recv() {
                Ok((number, Event::Ready { thread_id })) => {
                    crew.workers[number].thread_id = thread_id;
                    missing -= 1;
                }
                Ok((_, Event::Failed(error))) => return Err(error.into()),
                Ok((_, Event::Progress(_) | Event::Second(_))) => {}
                Err(_) => return Err(crew.bury()),
            }
        }
        Ok(crew)
    }

    /// Load begins and ends then.
    pub fn begin(&self, window: Window) {
        for worker in &self.workers {
            // One that is gone shows when it is waited for.
            let _ = worker.commands.send(Command::Begin(window));
        }
    }

    /// Load begins now, and ends when nothing is left to do.
    pub fn begin_at_once(&self, clock: Clock) {
        let start_ns = clock.now_ns();
        self.begin(Window { start_ns, from_ns: u64::MAX, to_ns: u64::MAX });
    }

    /// Whether no client has anything left to do.
    pub fn is_finished(&self) -> bool {
        self.progress().unfinished == 0
    }

    /// Whether load may begin, for all that its clients know.
    pub fn is_settled(&self) -> bool {
        self.progress().unsettled == 0
    }

    /// Waits a while for the next second of some worker to be over.
    ///
    /// # Errors
    /// Where a worker has ended, or a signal has come.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<Delta>, CrewError> {
        if self.workers.iter().any(|worker| worker.thread.is_finished()) {
            return Err(self.bury());
        }
        if is_interrupted() {
            return Err(CrewError::Interrupted);
        }
        match self.events.recv_timeout(patience) {
            Ok((number, Event::Progress(progress))) => {
                self.workers[number].progress = progress;
                Ok(None)
            }
            Ok((_, Event::Second(delta))) => Ok(Some(*delta)),
            Ok((_, Event::Failed(error))) => Err(error.into()),
            Ok((_, Event::Ready { .. })) | Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.bury()),
        }
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The kernel's numbers of their threads.
    pub fn thread_ids(&self) -> Vec<u32> {
        self.workers.iter().filter_map(|worker| worker.thread_id).collect()
    }

    /// How far all of them are together.
    pub fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        for Hired { progress, .. } in &self.workers {
            sum.acknowledged += progress.acknowledged;
            let last_ns = progress.last_acknowledgement_ns;
            sum.last_acknowledgement_ns = sum.last_acknowledgement_ns.max(last_ns);
            sum.received += progress.received;
            sum.last_receipt_ns = sum.last_receipt_ns.max(progress.last_receipt_ns);
            sum.readers += progress.readers;
            sum.unsettled = sum.unsettled.saturating_add(progress.unsettled);
            sum.unfinished = sum.unfinished.saturating_add(progress.unfinished);
        }
        sum
    }

    /// Ends the work.
    ///
    /// # Errors
    /// Where a worker has ended before.
    pub fn finish(self) -> Result<Vec<WorkerReport>, CrewError> {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Finish);
        }
        let joined = self.workers.into_iter().map(|worker| match worker.thread.join() {
            Ok(report) => Ok(report?),
            Err(_) => Err(CrewError::Panic),
        });
        joined.collect()
    }

    /// Why a worker has ended.
    fn bury(&mut self) -> CrewError {
        for worker in self.workers.drain(..).filter(|worker| worker.thread.is_finished()) {
            match worker.thread.join() {
                Ok(Err(error)) => return error.into(),
                Ok(Ok(_)) => {}
                Err(_) => return CrewError::Panic,
            }
        }
        WorkerError::Alone.into()
    }
}
