//! One producer: takes up records when their time has come, and sends them as batches.
//!
//! What is refused for now, or lost with a connection, is sent again as Kafka's clients do it: in
//! order, before anything else of its partition. What is refused for good has failed, and spoils
//! the run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use vltava_client::error::ClientError;
use vltava_protocol::compression::Compressor;

use crate::engine::class::Class;
use crate::engine::clock::nanoseconds;
use crate::engine::context::Context;
use crate::engine::lane::{Lane, Outcome};
use crate::engine::leaders::ASK_AGAIN_NS;
use crate::engine::map::{Map, dense, index};
use crate::engine::pacer::Pacer;
use crate::engine::payload::Values;
use crate::engine::poll::Token;
use crate::engine::queue::{Acknowledged, Queues, Record};
use crate::engine::random::Random;
use crate::engine::stats::Window;

/// What a producer holds at most, in bytes, before it lets records wait outside: as Java's
/// `buffer.memory`.
const BUFFER_BYTES_MAX: usize = 32 << 20;
/// Where records linger, they are taken up so many times meanwhile: who wakes for each record of a
/// fast open loop does little else. But at least so often.
const LINGER_TICKS: u64 = 5;
const TICK_NS_MAX: u64 = 500_000;
/// How often batches that are to be sent again are looked at: each waits for the one before.
const RETURN_NS: u64 = 2_000_000;
/// Records taken up before others have their turn.
const TURN_RECORDS: usize = 4096;

/// What one producer is to do.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Its number: no other producer of the run has it.
    pub number: u32,
    /// What its class is like.
    pub class: Arc<Class>,
    /// Which of its class it is.
    pub place: u32,
    /// How many bytes of values it writes, and then no more.
    pub bytes_max: Option<u64>,
    /// Producer id and epoch, where it is idempotent.
    pub identity: Option<(i64, i16)>,
}

/// What became of a producer's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerReport {
    /// The producer's number.
    pub number: u32,
    /// Records refused, or not answered.
    pub failed: u64,
    /// Records that were sent again, by partition.
    pub resent: Vec<(u32, u64)>,
    /// Whether they may have been kept twice: they were not numbered.
    pub may_repeat: bool,
    /// What was acknowledged, by partition.
    pub acknowledged: Vec<(u32, Acknowledged)>,
}

/// A producer at work.
pub struct Producer {
    plan: ProducerPlan,
    lanes: Vec<Lane>,
    /// The leaders by which work is divided among them; `None`: not yet.
    leaders_version: Option<u32>,
    queues: Queues,
    /// Partitions with batches that are to be sent again, and when.
    returned: BTreeMap<u32, u64>,
    /// When the batch of a partition has waited enough, in order.
    lingering: VecDeque<(u64, u32)>,
    linger_ns: u64,
    /// Records that linger are taken up so often, all that are due.
    tick_ns: u64,
    values: Values,
    random: Random,
    /// Where records without a key go.
    sticky: u32,
    pacer: Option<Pacer>,
    window: Option<Window>,
    /// Bytes of values that are left to be written, where that is bounded.
    left: Option<u64>,
    /// Since when a request could be sent.
    free_ns: u64,
    failed: u64,
    has_ended: bool,
    is_broken: bool,
}

impl Producer {
    /// Connects to all nodes, waiting for that.
    ///
    /// # Errors
    /// Where one cannot be reached, or does not know what is needed.
    pub fn open(plan: ProducerPlan, client: u32, context: &Context) -> Result<Self, ClientError> {
        let class = &plan.class.spec;
        let lanes = (0..)
            .zip(&context.map.nodes)
            .map(|(link, node)| Lane::open(node, Token { client, link }, &plan.class, context));
        let lanes = lanes.collect::<Result<Vec<Lane>, ClientError>>()?;
        let linger_ns = nanoseconds(class.linger_ms / 1e3);
        let codec = plan.class.codec;
        let compressor = Compressor::new(codec, None)
            .map_err(|error| ClientError::Missing(format!("codec {}: {error}", codec.name())))?;
        let seed = u64::from(plan.number) + 1;
        let count = context.map.partitions.len();
        Ok(Self {
            lanes,
            leaders_version: None,
            queues: Queues::new(plan.number, count, class.batch_bytes, plan.identity, compressor),
            returned: BTreeMap::new(),
            lingering: VecDeque::new(),
            linger_ns,
            tick_ns: (linger_ns / LINGER_TICKS).min(TICK_NS_MAX),
            values: Values::new(&plan.class.pool, seed),
            random: Random::new(!seed),
            // Producers that start together do not all begin with the same partition.
            sticky: plan.place % dense(count).max(1),
            pacer: None,
            window: None,
            left: plan.bytes_max,
            free_ns: 0,
            failed: 0,
            has_ended: false,
            is_broken: false,
            plan,
        })
    }

    /// Load begins, and ends, at these moments.
    pub fn begin(&mut self, window: Window) {
        self.window = Some(window);
        let class = &self.plan.class.spec;
        self.pacer = class.records_per_second.map(|rate| {
            let count = f64::from(class.count);
            let phase = f64::from(self.plan.place) / count;
            Pacer::new(rate / count, phase, window.start_ns, window.to_ns)
        });
    }

    /// Whether nothing is left to be sent or to be answered.
    pub fn is_done(&self) -> bool {
        let is_idle = self.queues.records() == 0 && self.lanes.iter().all(Lane::is_idle);
        self.is_broken || (self.has_ended && is_idle)
    }

    /// Does what is due; when to be called again without an answer coming in.
    pub fn turn(&mut self, context: &mut Context) -> u64 {
        let Some(window) = self.window.filter(|_| !self.is_broken) else {
            return u64::MAX;
        };
        if context.now_ns < window.start_ns {
            return window.start_ns;
        }
        if self.leaders_version != Some(context.leaders.version) {
            self.deal(context);
        }
        let mut next_ns = if self.has_ended { u64::MAX } else { self.take_up(window, context) };
        self.end_lingering(context);
        self.list_returned(context);
        for at in 0..self.lanes.len() {
            let lane = &mut self.lanes[at];
            let sticky = &mut self.sticky;
            let count = dense(self.queues.partition_count()).max(1);
            // A batch each, in turn.
            let move_on = |partition| {
                if partition == *sticky {
                    *sticky = (*sticky + 1) % count;
                }
            };
            let sent = lane.send(&mut self.queues, self.has_ended, context, move_on);
            match sent {
                Ok(outcome) => self.take_in(outcome, context),
                Err(error) => {
                    self.give_up(&error.to_string(), context);
                    return u64::MAX;
                }
            }
        }
        if self.pacer.is_none() && !self.has_ended && self.is_hungry() {
            next_ns = context.now_ns;
        }
        let lingering = self.lingering.front().map_or(u64::MAX, |(due_ns, _)| *due_ns);
        let returned = self.returned.values().copied().min().unwrap_or(u64::MAX);
        let lanes = self.lanes.iter().map(Lane::due_ns).min().unwrap_or(u64::MAX);
        next_ns.min(lingering).min(returned).min(lanes)
    }

    /// Something may be done with a connection; [`Self::turn`] is to follow.
    pub fn on_ready(&mut self, link: u32, readable: bool, context: &mut Context) {
        let was_blocked = self.is_blocked();
        let Some(lane) = self.lanes.get_mut(index(link)) else {
            return;
        };
        if !readable || self.is_broken {
            return;
        }
        let received = lane.receive(&mut self.queues, context);
        if was_blocked {
            self.free_ns = context.now_ns;
        }
        match received {
            Ok(outcome) => self.take_in(outcome, context),
            Err(error) => self.give_up(&error.to_string(), context),
        }
    }

    /// What became of its records.
    pub fn finish(mut self, context: &mut Context) -> ProducerReport {
        if !self.is_done() {
            self.give_up("records were not answered in time", context);
        }
        ProducerReport {
            number: self.plan.number,
            failed: self.failed,
            resent: self.queues.resent().collect(),
            may_repeat: !self.plan.class.spec.idempotent,
            acknowledged: self.queues.acknowledged().collect(),
        }
    }

    /// Takes up what is due; when there may be more.
    fn take_up(&mut self, window: Window, context: &mut Context) -> u64 {
        let is_over = context.now_ns >= window.to_ns;
        // What cannot leave need not be taken up: whoever wakes for each record of a fast open loop
        // does little else.
        if self.is_blocked() && !is_over {
            return window.to_ns;
        }
        for _ in 0..TURN_RECORDS {
            let is_hungry = self.lanes.iter().any(Lane::is_hungry);
            let is_full = self.queues.bytes() >= BUFFER_BYTES_MAX;
            if self.left == Some(0) || (is_over && (is_full || self.pacer.is_none())) {
                self.end(context);
                return u64::MAX;
            }
            // Whatever waits outside now is taken up when an answer has made room.
            if is_full {
                return window.to_ns;
            }
            let intended_ns = match &mut self.pacer {
                Some(pacer) => match pacer.take(context.now_ns) {
                    Some(intended_ns) => intended_ns,
                    None if is_over => {
                        self.end(context);
                        return u64::MAX;
                    }
                    None => return pacer.wake_ns(context.now_ns, self.tick_ns),
                },
                None if is_hungry => context.now_ns,
                None => return window.to_ns,
            };
            self.append(intended_ns, context);
        }
        context.tick()
    }

    /// Whether nothing could be sent now.
    fn is_blocked(&self) -> bool {
        !self.lanes.iter().any(Lane::may_take)
    }

    /// A closed loop goes on where a connection could take another request.
    fn is_hungry(&self) -> bool {
        self.lanes.iter().any(Lane::is_hungry)
    }

    fn append(&mut self, intended_ns: u64, context: &mut Context) {
        if self.pacer.is_some() {
            let due_ns = self.free_ns.max(intended_ns + self.tick_ns);
            context.stats.taken_up_after(intended_ns, due_ns, context.now_ns);
        }
        let value = self.values.make();
        let keys = &self.plan.class.keys;
        let key = match dense(keys.len()) {
            0 => None,
            count => Some(&keys[index(self.random.below(count))]),
        };
        let partition = match key {
            Some((_, partition)) => *partition,
            None => self.sticky,
        };
        let timestamp = context.clock.wall_ms(intended_ns);
        let key_bytes = key.map(|(key, _)| &key[..]);
        let record = Record { timestamp, intended_ns, key: key_bytes, value };
        // A closed loop sends full batches only.
        let due_ns = if self.pacer.is_some() { intended_ns + self.linger_ns } else { u64::MAX };
        let begins =
            self.queues.append(partition, record, due_ns, &self.values, &mut context.buffers);
        let written = u64::try_from(value.len).unwrap_or(u64::MAX).max(1);
        self.left = self.left.map(|left| left.saturating_sub(written));
        if begins && due_ns != u64::MAX {
            self.lingering.push_back((due_ns, partition));
        }
        // Records without a key move on with the batch: what would not fit does not begin another.
        if key.is_none() && self.queues.is_filled_by(partition, value.len) {
            self.queues.let_go(partition);
            self.sticky = (self.sticky + 1) % dense(self.queues.partition_count()).max(1);
        }
        if self.queues.list_if_ready(partition, context.now_ns) {
            self.list(partition, &context.map);
        }
    }

    /// Gives what may leave to the connections of those who lead now.
    fn deal(&mut self, context: &Context) {
        self.leaders_version = Some(context.leaders.version);
        for (node, lane) in (0..).zip(&mut self.lanes) {
            lane.leads = context.map.partitions.iter().any(|place| place.node == node);
        }
        let ready: Vec<u32> = self.lanes.iter_mut().flat_map(Lane::take_ready).collect();
        ready.into_iter().for_each(|partition| self.list(partition, &context.map));
    }

    /// What came of batches that were under way.
    fn take_in(&mut self, outcome: Outcome, context: &Context) {
        self.failed += outcome.failed;
        for partition in outcome.returned {
            self.returned.insert(partition, context.now_ns + ASK_AGAIN_NS);
        }
    }

    /// Lists partitions whose batches are to be sent again now.
    fn list_returned(&mut self, context: &Context) {
        let due = self.returned.iter().filter(|(_, due_ns)| **due_ns <= context.now_ns);
        for partition in due.map(|(partition, _)| *partition).collect::<Vec<u32>>() {
            if !self.queues.has_returned(partition) {
                self.returned.remove(&partition);
                // What stands behind them has had nobody to list it.
                let limit_ns = if self.has_ended { u64::MAX } else { context.now_ns };
                if self.queues.list_if_ready(partition, limit_ns) {
                    self.list(partition, &context.map);
                }
                continue;
            }
            if self.queues.list_if_ready(partition, context.now_ns) {
                self.list(partition, &context.map);
            }
            self.returned.insert(partition, context.now_ns + RETURN_NS);
        }
    }

    fn list(&mut self, partition: u32, map: &Map) {
        let node = map.place(partition).map_or(0, |place| index(place.node));
        self.lanes[node].push(partition);
    }

    fn end_lingering(&mut self, context: &Context) {
        while let Some((due_ns, partition)) = self.lingering.front().copied() {
            if due_ns > context.now_ns {
                return;
            }
            self.lingering.pop_front();
            if self.queues.list_if_ready(partition, context.now_ns) {
                self.list(partition, &context.map);
            }
        }
    }

    /// Nothing more is taken up, and all batches may leave. What was due and found no room is never
    /// sent; that it has waited is not forgotten.
    fn end(&mut self, context: &mut Context) {
        self.has_ended = true;
        if let Some(pacer) = &mut self.pacer {
            while let Some(intended_ns) = pacer.take(u64::MAX) {
                context.stats.never_sent(self.plan.class.number, intended_ns, context.now_ns);
            }
        }
        self.lingering.clear();
        for partition in 0..dense(self.queues.partition_count()) {
            if self.queues.list_if_ready(partition, u64::MAX) {
                self.list(partition, &context.map);
            }
        }
    }

    /// The run has lost a producer.
    fn give_up(&mut self, why: &str, context: &mut Context) {
        context.stats.fault(format!("a producer gave up: {why}"));
        self.failed += self.queues.records();
        self.failed += self.lanes.iter().map(Lane::unanswered).sum::<u64>();
        self.is_broken = true;
    }
}
