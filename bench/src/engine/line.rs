//! A client's way to one broker: a connection, and another one when that is lost, as Kafka's
//! clients do it.

use vltava_client::error::ClientError;
use vltava_protocol::types::Str;

use crate::engine::context::Context;
use crate::engine::link::Link;
use crate::engine::map::Node;
use crate::engine::poll::Token;

/// How long is waited before another attempt to connect.
const RECONNECT_NS: u64 = 100_000_000;

/// A connection that may be lost.
#[derive(Debug)]
pub struct Line {
    node: Node,
    token: Token,
    client_id: Str,
    link: Option<Link>,
    /// When it was lost.
    lost_ns: u64,
    retry_at_ns: u64,
}

impl Line {
    /// Connects, waiting for that.
    ///
    /// # Errors
    /// Where the broker cannot be reached.
    pub fn open(
        node: &Node,
        token: Token,
        client_id: &'static str,
        context: &Context,
    ) -> Result<Self, ClientError> {
        let client_id = Str::from_static(client_id);
        let link = Link::open(&node.address, &client_id)?;
        context.add(&link, token)?;
        let (node, link) = (node.clone(), Some(link));
        Ok(Self { node, token, client_id, link, lost_ns: 0, retry_at_ns: 0 })
    }

    /// The connection, while there is one.
    pub fn link(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// Whether there is one.
    pub fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Whether all that was queued has left, or is lost.
    pub fn is_flushed(&self) -> bool {
        self.link.as_ref().is_none_or(Link::is_flushed)
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// Where the connection is gone; [`Self::lose`] is to follow.
    pub fn flush(&mut self, context: &mut Context) -> Result<(), ClientError> {
        match &mut self.link {
            Some(link) => context.flush(link, self.token),
            None => Ok(()),
        }
    }

    /// Reads what has come; [`Context::received`] has it then.
    ///
    /// # Errors
    /// Where the connection is gone; [`Self::lose`] is to follow.
    pub fn receive(&mut self, context: &mut Context) -> Result<(), ClientError> {
        match &mut self.link {
            Some(link) => context.receive(link),
            None => Ok(()),
        }
    }

    /// The connection is gone.
    pub fn lose(&mut self, context: &mut Context) {
        self.link = None;
        self.lost_ns = context.now_ns;
        self.retry_at_ns = context.now_ns + RECONNECT_NS;
        context.stats.reconnects += 1;
    }

    /// When it is to be connected anew; the end of time where it is connected.
    pub fn due_ns(&self) -> u64 {
        if self.is_up() { u64::MAX } else { self.retry_at_ns }
    }

    /// Connects anew if it is due. Whether there is a connection now.
    ///
    /// # Errors
    /// Where that has failed for too long.
    pub fn revive(&mut self, context: &mut Context) -> Result<bool, ClientError> {
        if self.is_up() || context.now_ns < self.retry_at_ns {
            return Ok(self.is_up());
        }
        match Link::open(&self.node.address, &self.client_id) {
            Ok(link) => {
                context.add(&link, self.token)?;
                self.link = Some(link);
                Ok(true)
            }
            Err(error) if context.tick() - self.lost_ns > context.retry_ns => Err(error),
            Err(_) => {
                // Somebody else may lead by now.
                context.leaders.doubt();
                self.retry_at_ns = context.now_ns + RECONNECT_NS;
                Ok(false)
            }
        }
    }
}
