//! One reader of everything, or of a part that nobody shares: a consumer by itself.

use std::sync::Arc;

use vltava_client::error::ClientError;

use crate::engine::context::Context;
use crate::engine::fetch::FetchLane;
use crate::engine::map::{Map, dense, index};
use crate::engine::poll::Token;
use crate::engine::reader::Reader;
use crate::engine::stats::Window;
use crate::engine::verify::Verifier;
use crate::scenario::Consumers;

/// What one consumer is to do.
#[derive(Clone, Debug)]
pub struct ConsumerPlan {
    /// Which reader it is, of the run's.
    pub reader: u32,
    /// What its class is like.
    pub class: Arc<Consumers>,
    /// What it reads.
    pub partitions: Vec<u32>,
    /// Where each partition begins for it, by the partition's number.
    pub offsets: Arc<Vec<i64>>,
    /// Producers have numbers below this.
    pub producers: u32,
    /// Whether a partition that begins behind offset 0 is not expected from its first record on:
    /// where the run's settings have old records deleted.
    pub may_begin_late: bool,
    /// Where each partition ends, for one that is done when it has come there.
    pub ends: Option<Arc<Vec<i64>>>,
}

/// What a reader has found.
#[derive(Clone, Debug)]
pub struct ReaderReport {
    /// Which reader.
    pub reader: u32,
    /// What it has received.
    pub verifier: Verifier,
}

/// A consumer at work.
#[derive(Debug)]
pub struct Consumer {
    plan: ConsumerPlan,
    fetching: Fetching,
    reader: Reader,
    is_broken: bool,
}

impl Consumer {
    /// Connects to all nodes, waiting for that.
    ///
    /// # Errors
    /// Where one cannot be reached, or does not know what is needed.
    pub fn open(plan: ConsumerPlan, client: u32, context: &Context) -> Result<Self, ClientError> {
        let mut verifier = Verifier::new(context.map.partitions.len(), plan.producers);
        for (partition, offset) in (0..).zip(&*plan.offsets) {
            if let Some(offset) =
                u64::try_from(*offset).ok().filter(|at| plan.may_begin_late && *at > 0)
            {
                verifier.begins_late(partition, offset);
            }
        }
        let mut fetching = Fetching::open(client, &plan.class, context)?;
        fetching.assign(&plan.partitions, &plan.offsets, &context.map);
        Ok(Self { plan, fetching, reader: Reader { verifier }, is_broken: false })
    }

    /// Load begins, and ends, at these moments.
    pub fn begin(&mut self, window: Window) {
        self.fetching.window = Some(window);
    }

    /// Does what is due; when to be called again though no answer comes.
    pub fn turn(&mut self, context: &mut Context) -> u64 {
        if self.is_broken {
            return u64::MAX;
        }
        match self.fetching.turn(context) {
            Ok(next_ns) => next_ns,
            Err(error) => self.give_up(&error, context),
        }
    }

    /// Something may be done with a connection; [`Self::turn`] is to follow.
    pub fn on_ready(&mut self, link: u32, readable: bool, context: &mut Context) {
        if readable
            && !self.is_broken
            && let Err(error) = self.fetching.receive(link, &mut self.reader, context)
        {
            self.give_up(&error, context);
        }
    }

    /// Whether it has come to the end, where that is known; else it never has anything left to do.
    pub fn is_done(&self) -> bool {
        let ends = self.plan.ends.as_ref().filter(|_| !self.is_broken);
        ends.is_none_or(|ends| {
            let end = |partition: u32| ends.get(index(partition)).copied().unwrap_or_default();
            self.fetching.positions().all(|(partition, offset)| offset >= end(partition))
        })
    }

    /// Whether it has given up.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// What it has found.
    pub fn finish(self) -> ReaderReport {
        ReaderReport { reader: self.plan.reader, verifier: self.reader.verifier }
    }

    fn give_up(&mut self, error: &ClientError, context: &mut Context) -> u64 {
        context.stats.fault(format!("a consumer gave up: {error}"));
        self.is_broken = true;
        u64::MAX
    }
}

/// The fetches of one consumer, whoever gives it its partitions.
#[derive(Debug)]
pub struct Fetching {
    class: Arc<Consumers>,
    lanes: Vec<FetchLane>,
    /// By partition; -1: it is not this consumer's.
    positions: Vec<i64>,
    /// The leaders by which they are divided among connections.
    leaders_version: u32,
    /// Load begins and ends then; `None`: not yet known.
    pub window: Option<Window>,
    /// A slow consumer asks again only then.
    allowed_ns: u64,
}

impl Fetching {
    /// Connects to all nodes, with a link for each, from 0 on.
    ///
    /// # Errors
    /// Where one cannot be reached, or does not know what is needed.
    pub fn open(
        client: u32,
        class: &Arc<Consumers>,
        context: &Context,
    ) -> Result<Self, ClientError> {
        let lanes = (0..)
            .zip(&context.map.nodes)
            .map(|(link, node)| FetchLane::open(node, Token { client, link }, context));
        Ok(Self {
            class: Arc::clone(class),
            lanes: lanes.collect::<Result<Vec<FetchLane>, ClientError>>()?,
            positions: vec![-1; context.map.partitions.len()],
            leaders_version: context.leaders.version,
            window: None,
            allowed_ns: 0,
        })
    }

    /// Reads these partitions from now on, and no others; `offsets` are by partition.
    pub fn assign(&mut self, partitions: &[u32], offsets: &[i64], map: &Map) {
        self.positions.fill(-1);
        for partition in partitions {
            let offset = offsets.get(index(*partition)).copied().unwrap_or_default();
            self.positions[index(*partition)] = offset;
        }
        self.deal(map);
    }

    /// Gives each connection those partitions that its broker leads.
    fn deal(&mut self, map: &Map) {
        let partitions: Vec<u32> = self.positions().map(|(partition, _)| partition).collect();
        for (node, lane) in (0..).zip(&mut self.lanes) {
            let is_here =
                |partition: &&u32| map.place(**partition).is_some_and(|place| place.node == node);
            lane.assign(partitions.iter().filter(is_here).copied().collect());
        }
    }

    /// Where it stands, in each partition that it reads.
    pub fn positions(&self) -> impl Iterator<Item = (u32, i64)> {
        let all = self.positions.iter().enumerate();
        all.filter(|(_, offset)| **offset >= 0).map(|(at, offset)| (dense(at), *offset))
    }

    /// Asks wherever nothing is asked for. When to be called again though no answer comes.
    ///
    /// # Errors
    /// Where a connection is gone.
    pub fn turn(&mut self, context: &mut Context) -> Result<u64, ClientError> {
        let Some(window) = self.window else {
            return Ok(u64::MAX);
        };
        // When load is over, a slow consumer is slow no more.
        let allowed_ns = window.start_ns.max(self.allowed_ns.min(window.to_ns));
        if context.now_ns < allowed_ns {
            return Ok(allowed_ns);
        }
        if self.leaders_version != context.leaders.version {
            self.leaders_version = context.leaders.version;
            self.deal(&context.map);
        }
        let mut next_ns = u64::MAX;
        for lane in &mut self.lanes {
            next_ns = next_ns.min(lane.ask(&self.class, &self.positions, context)?);
        }
        Ok(next_ns)
    }

    /// Reads what has come on a connection, asks for what is next, and checks what has come.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn receive(
        &mut self,
        lane: u32,
        reader: &mut Reader,
        context: &mut Context,
    ) -> Result<(), ClientError> {
        let Some(lane) = self.lanes.get_mut(index(lane)) else {
            return Ok(());
        };
        let arrived = lane.receive(&mut self.positions, context)?;
        if let Some(rate) = self.class.bytes_per_second {
            let pause_ns = crate::engine::clock::nanoseconds(arrived.bytes() as f64 / rate);
            self.allowed_ns = self.allowed_ns.max(context.now_ns).saturating_add(pause_ns);
        }
        let asked = self.turn(context);
        arrived.check(reader, context);
        asked.map(drop)
    }
}
