//! Members of groups. A group as a whole is one reader; its members are dealt out to threads like
//! all other clients, and each knows what it has read itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vltava_client::error::ClientError;
use vltava_client::metadata::Metadata;
use vltava_protocol::types::Str;

use crate::engine::consumer::{ConsumerPlan, Fetching, ReaderReport};
use crate::engine::context::Context;
use crate::engine::map::{Node, dense, index};
use crate::engine::poll::Token;
use crate::engine::reader::Reader;
use crate::engine::seat::{Seat, options};
use crate::engine::stats::Window;
use crate::engine::verify::Verifier;

/// What the members of a group have in common.
#[derive(Debug)]
pub struct Group {
    /// What it reads as a whole.
    pub reader: ConsumerPlan,
    /// Its name.
    pub name: Str,
    /// Who coordinates it.
    pub coordinator: Node,
    /// Of its topics.
    pub metadata: Arc<Metadata>,
    /// How many partitions each member has, as it says itself.
    pub assigned: Vec<AtomicUsize>,
}

impl Group {
    /// Whether each partition is some member's.
    fn is_dealt_out(&self) -> bool {
        let assigned = self.assigned.iter().map(|count| count.load(Ordering::Relaxed));
        assigned.sum::<usize>() == self.reader.partitions.len()
    }
}

/// What one member is to do.
#[derive(Clone, Debug)]
pub struct MemberPlan {
    /// Its group.
    pub group: Arc<Group>,
    /// Which of its members it is.
    pub number: u32,
}

/// A member at work.
pub struct Member {
    plan: MemberPlan,
    fetching: Fetching,
    seat: Seat,
    /// The link of its seat: behind those to the nodes.
    seat_link: u32,
    reader: Reader,
    is_broken: bool,
}

impl Member {
    /// Connects it, waiting for that. It joins when it has its turn.
    ///
    /// # Errors
    /// Where a broker cannot be reached, or does not know what is needed.
    pub fn open(plan: MemberPlan, client: u32, context: &Context) -> Result<Self, ClientError> {
        let Group { reader, name, coordinator, metadata, .. } = &*plan.group;
        let seat_link = dense(context.map.nodes.len());
        let token = Token { client, link: seat_link };
        let options = options(name, &context.map);
        let verifier = Verifier::new(context.map.partitions.len(), reader.producers);
        Ok(Self {
            fetching: Fetching::open(client, &reader.class, context)?,
            seat: Seat::open(coordinator, token, options, metadata, context)?,
            seat_link,
            reader: Reader { verifier },
            is_broken: false,
            plan,
        })
    }

    /// Load begins, and ends, at these moments.
    pub fn begin(&mut self, window: Window) {
        self.fetching.window = Some(window);
    }

    /// Whether it has its partitions, and each of the group's is some member's.
    pub fn is_settled(&self) -> bool {
        self.seat.is_settled && self.plan.group.is_dealt_out()
    }

    /// Does what is due; when to be called again though no answer comes.
    pub fn turn(&mut self, context: &mut Context) -> u64 {
        if self.is_broken {
            return u64::MAX;
        }
        let seat = self.seat.turn(&self.fetching, context);
        match seat.and_then(|seat_ns| Ok(seat_ns.min(self.fetching.turn(context)?))) {
            Ok(due_ns) => due_ns,
            Err(error) => {
                self.give_up(&error, context);
                u64::MAX
            }
        }
    }

    /// Something may be done with a connection; [`Self::turn`] is to follow.
    pub fn on_ready(&mut self, link: u32, readable: bool, context: &mut Context) {
        if !readable || self.is_broken {
            return;
        }
        let received = if link == self.seat_link {
            let begin = &self.plan.group.reader.offsets;
            let heard = self.seat.receive(&mut self.fetching, begin, context);
            if let Some(assigned) = self.plan.group.assigned.get(index(self.plan.number)) {
                assigned.store(self.fetching.positions().count(), Ordering::Relaxed);
            }
            heard
        } else {
            self.fetching.receive(link, &mut self.reader, context)
        };
        if let Err(error) = received {
            self.give_up(&error, context);
        }
    }

    /// Whether it has given up.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// What it has found. It leaves.
    pub fn finish(self, context: &mut Context) -> ReaderReport {
        self.seat.leave(&self.fetching, context);
        let reader = self.plan.group.reader.reader;
        ReaderReport { reader, verifier: self.reader.verifier }
    }

    fn give_up(&mut self, error: &ClientError, context: &mut Context) {
        context.stats.fault(format!("a member of a group gave up: {error}"));
        self.is_broken = true;
    }
}
