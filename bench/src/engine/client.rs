//! Whoever a worker serves.

use vltava_client::error::ClientError;

use crate::engine::consumer::{Consumer, ConsumerPlan, ReaderReport};
use crate::engine::context::Context;
use crate::engine::group::{Member, MemberPlan};
use crate::engine::producer::{Producer, ProducerPlan, ProducerReport};
use crate::engine::stats::Window;

/// What a client is to do.
#[derive(Clone, Debug)]
pub enum ClientPlan {
    /// Write.
    Producer(ProducerPlan),
    /// Read.
    Consumer(ConsumerPlan),
    /// Read, together with others.
    Member(MemberPlan),
}

/// A client at work.
pub enum Client {
    /// It writes.
    Producer(Box<Producer>),
    /// It reads.
    Consumer(Box<Consumer>),
    /// It reads, together with others.
    Member(Box<Member>),
}

/// What became of a client.
#[derive(Debug)]
pub enum Outcome {
    /// One that has written.
    Producer(ProducerReport),
    /// One that has read.
    Reader(ReaderReport),
}

impl Client {
    /// Connects it, waiting for that. `number` is its number in this worker.
    ///
    /// # Errors
    /// Where the cluster cannot be reached, or does not know what is needed.
    pub fn open(plan: ClientPlan, number: u32, context: &Context) -> Result<Self, ClientError> {
        match plan {
            ClientPlan::Producer(plan) => {
                Ok(Self::Producer(Box::new(Producer::open(plan, number, context)?)))
            }
            ClientPlan::Consumer(plan) => {
                Ok(Self::Consumer(Box::new(Consumer::open(plan, number, context)?)))
            }
            ClientPlan::Member(plan) => {
                Ok(Self::Member(Box::new(Member::open(plan, number, context)?)))
            }
        }
    }

    /// Load begins, and ends, then.
    pub fn begin(&mut self, window: Window) {
        match self {
            Self::Producer(producer) => producer.begin(window),
            Self::Consumer(consumer) => consumer.begin(window),
            Self::Member(member) => member.begin(window),
        }
    }

    /// Does what is due; when to be called again though nothing happens.
    pub fn turn(&mut self, context: &mut Context) -> u64 {
        match self {
            Self::Producer(producer) => producer.turn(context),
            Self::Consumer(consumer) => consumer.turn(context),
            Self::Member(member) => member.turn(context),
        }
    }

    /// Something may be done with one of its connections.
    pub fn on_ready(&mut self, link: u32, readable: bool, context: &mut Context) {
        match self {
            Self::Producer(producer) => producer.on_ready(link, readable, context),
            Self::Consumer(consumer) => consumer.on_ready(link, readable, context),
            Self::Member(member) => member.on_ready(link, readable, context),
        }
    }

    /// Whether load may begin, for its part.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Producer(_) | Self::Consumer(_) => true,
            Self::Member(member) => member.is_settled(),
        }
    }

    /// Whether it reads, and has not given up.
    pub fn is_reading(&self) -> bool {
        match self {
            Self::Producer(_) => false,
            Self::Consumer(consumer) => !consumer.is_broken(),
            Self::Member(member) => !member.is_broken(),
        }
    }

    /// Whether it has nothing left to do, as far as it knows.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Producer(producer) => producer.is_done(),
            Self::Consumer(consumer) => consumer.is_done(),
            // Only the crew knows how much there is to be read.
            Self::Member(_) => true,
        }
    }

    /// What became of it.
    pub fn finish(self, context: &mut Context) -> Outcome {
        match self {
            Self::Producer(producer) => Outcome::Producer(producer.finish(context)),
            Self::Consumer(consumer) => Outcome::Reader(consumer.finish()),
            Self::Member(member) => Outcome::Reader(member.finish(context)),
        }
    }
}
