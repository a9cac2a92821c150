//! A group of consumers, which together are one reader.

use std::sync::Arc;

use vltava_client::error::ClientError;
use vltava_client::metadata::Metadata;
use vltava_protocol::types::Str;

use crate::engine::consumer::{ConsumerPlan, Fetching, ReaderReport};
use crate::engine::context::Context;
use crate::engine::map::{Node, index};
use crate::engine::poll::Token;
use crate::engine::reader::Reader;
use crate::engine::seat::{Seat, links_of_member, options};
use crate::engine::stats::Window;
use crate::engine::verify::Verifier;

/// What a group is to do.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// What it reads as a whole.
    pub reader: ConsumerPlan,
    /// Its name.
    pub name: Str,
    /// How many members it has.
    pub members: u32,
    /// Who coordinates it.
    pub coordinator: Node,
    /// Of its topics.
    pub metadata: Arc<Metadata>,
}

struct Member {
    fetching: Fetching,
    seat: Seat,
}

/// A group at work.
pub struct Group {
    plan: GroupPlan,
    members: Vec<Member>,
    links_of_member: u32,
    reader: Reader,
    is_broken: bool,
}

impl Group {
    /// Connects its members, waiting for that. They join when they have their turn.
    ///
    /// # Errors
    /// Where a broker cannot be reached, or does not know what is needed.
    pub fn open(plan: GroupPlan, client: u32, context: &Context) -> Result<Self, ClientError> {
        let links_of_member = links_of_member(&context.map);
        let member = |number: u32| {
            let first_link = number * links_of_member;
            let token = Token { client, link: first_link + links_of_member - 1 };
            let options = options(&plan.name, &context.map);
            Ok(Member {
                fetching: Fetching::open(client, first_link, &plan.reader.class, context)?,
                seat: Seat::open(&plan.coordinator, token, options, &plan.metadata, context)?,
            })
        };
        let members = (0..plan.members).map(member).collect::<Result<_, ClientError>>()?;
        let verifier = Verifier::new(context.map.partitions.len(), plan.reader.producers);
        Ok(Self { plan, members, links_of_member, reader: Reader { verifier }, is_broken: false })
    }

    /// Load begins, and ends, at these moments.
    pub fn begin(&mut self, window: Window) {
        self.members.iter_mut().for_each(|member| member.fetching.window = Some(window));
    }

    /// Whether each partition is some member's.
    pub fn is_settled(&self) -> bool {
        let assigned: usize =
            self.members.iter().map(|member| member.fetching.positions().count()).sum();
        self.members.iter().all(|member| member.seat.is_settled)
            && assigned == self.plan.reader.partitions.len()
    }

    /// Does what is due; when to be called again though no answer comes.
    pub fn turn(&mut self, context: &mut Context) -> u64 {
        let mut next_ns = u64::MAX;
        if self.is_broken {
            return next_ns;
        }
        for member in &mut self.members {
            let seat = member.seat.turn(&member.fetching, context);
            let due = seat.and_then(|seat_ns| Ok(seat_ns.min(member.fetching.turn(context)?)));
            match due {
                Ok(due_ns) => next_ns = next_ns.min(due_ns),
                Err(error) => {
                    self.give_up(&error, context);
                    return u64::MAX;
                }
            }
        }
        next_ns
    }

    /// Something may be done with a connection; [`Self::turn`] is to follow.
    pub fn on_ready(&mut self, link: u32, readable: bool, context: &mut Context) {
        let (number, link) = (link / self.links_of_member, link % self.links_of_member);
        let Some(member) = self.members.get_mut(index(number)) else {
            return;
        };
        if !readable || self.is_broken {
            return;
        }
        let Member { fetching, seat } = member;
        let received = if link + 1 == self.links_of_member {
            seat.receive(fetching, &self.plan.reader.offsets, context)
        } else {
            fetching.receive(link, &mut self.reader, context)
        };
        if let Err(error) = received {
            self.give_up(&error, context);
        }
    }

    /// Whether it has given up.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// What it has found. Its members leave.
    pub fn finish(self, context: &mut Context) -> ReaderReport {
        for Member { fetching, seat } in self.members {
            seat.leave(&fetching, context);
        }
        ReaderReport { reader: self.plan.reader.reader, verifier: self.reader.verifier }
    }

    fn give_up(&mut self, error: &ClientError, context: &mut Context) {
        context.stats.fault(format!("a group gave up: {error}"));
        self.is_broken = true;
    }
}
