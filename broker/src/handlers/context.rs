//! What a handler is given.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use vltava_protocol::api::ApiKey;
use vltava_protocol::compression::Decompressor;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::{Str, Uuid};

use super::client::Client;
use crate::cluster::controller::{self, Input, Reply};
use crate::config::values::BrokerConfig;
use crate::coordinator::hosts::Hosts;
use crate::groups::GroupMachine;
use crate::metadata::image::Topic;
use crate::metrics::ShardMetrics;
use crate::node::Node;
use crate::node::options::append_rules;
use crate::partition::client::Partitions;
use crate::partition::fetch_session::FetchSessions;
use crate::partition::validate::AppendRules;
use crate::runtime::log_limit::LogLimit;
use crate::runtime::{Monotonic, Runtime};

/// What a shard keeps to unfold the next batch into, in bytes: most fit.
const SCRATCH_BYTES_MAX: usize = 4 << 20;
/// How long it may hold more.
const SCRATCH_PERIOD: Duration = Duration::from_secs(10);

/// How long a request waits for a controller that says nothing of it itself: as long as Kafka's
/// clients wait for an answer, less what an answer takes.
const CONTROLLER_TIME: Duration = Duration::from_secs(29);
/// However little it says: a controller that is there does what it is asked, as in Kafka, and to
/// hear of it takes a moment.
const CONTROLLER_TIME_MIN: Duration = Duration::from_secs(2);

/// The client id of Kafka's own tools when they write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// The rules of each topic, with the version of the topic that they follow from.
pub type RulesByTopic = BTreeMap<Uuid, (Arc<Topic>, Rc<AppendRules>)>;

/// What one shard offers to all its handlers.
pub struct Services<R: Runtime> {
    /// The shard's executor.
    pub runtime: R,
    /// Settings, fixed at start.
    pub config: Arc<BrokerConfig>,
    /// The image of the cluster, and the way to its controller.
    pub node: Rc<Node<R>>,
    /// What this shard counts.
    pub metrics: Rc<ShardMetrics>,
    /// Lines about clients.
    pub log_limit: Rc<LogLimit>,
    /// All partitions of this node.
    pub partitions: Rc<Partitions<R>>,
    /// All group coordinators of this node.
    pub groups: Rc<Hosts<GroupMachine, R>>,
    /// Fetch sessions of this shard.
    pub fetch_sessions: RefCell<FetchSessions>,
    /// Unfolds compressed batches for validation.
    pub decompressor: RefCell<Decompressor>,
    /// What topics take, by topic id; see [`Services::append_rules`].
    pub append_rules: RefCell<RulesByTopic>,
    /// Producer ids handed to this shard by group 0, to give away.
    pub producer_ids: RefCell<std::ops::Range<i64>>,
}

/// One request, and everything its handler may use.
pub struct Context<R: Runtime> {
    /// The shard's services.
    pub services: Rc<Services<R>>,
    /// The connection.
    pub client: Rc<Client>,
    /// What the client calls itself.
    pub client_id: Option<Str>,
    /// The version of the request, and so of its answer.
    pub api_version: i16,
    /// When it was complete.
    pub received: Monotonic,
}

impl<R: Runtime> Context<R> {
    /// Whether this is one of Kafka's own tools, which may write to internal topics.
    pub fn is_admin_client(&self) -> bool {
        self.client_id.as_ref().is_some_and(|id| *id == ADMIN_CLIENT_ID)
    }

    /// Asks the controller, whichever node that is or will be. `timeout_ms` is how long the client
    /// says that it waits, where its request says that.
    pub async fn ask_controller(
        &self,
        timeout_ms: Option<i32>,
        input: Input,
    ) -> Result<Reply, ErrorCode> {
        let deadline = self.controller_deadline(timeout_ms);
        self.services.node.ask_controller_until(deadline, input).await
    }

    /// Until when this request may be answered, where the controller has its part in it.
    pub fn controller_deadline(&self, timeout_ms: Option<i32>) -> Monotonic {
        self.received.after(controller_time(timeout_ms))
    }
}

fn controller_time(timeout_ms: Option<i32>) -> Duration {
    let said = timeout_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    said.map_or(CONTROLLER_TIME, |said| said.max(CONTROLLER_TIME_MIN))
}

impl<R: Runtime> Services<R> {
    /// What the partitions of a topic take. Worked out once for each version of a topic.
    pub fn append_rules(&self, topic: &Arc<Topic>) -> Rc<AppendRules> {
        let mut known = self.append_rules.borrow_mut();
        if let Some((of, rules)) = known.get(&topic.id)
            && Arc::ptr_eq(of, topic)
        {
            return Rc::clone(rules);
        }
        if known.len() > self.node.image().topic_count() {
            // Topics that are gone.
            known.clear();
        }
        let rules = Rc::new(append_rules(&self.node.topic_config(topic)));
        known.insert(topic.id, (Arc::clone(topic), Rc::clone(&rules)));
        rules
    }

    /// Gives back, now and then, what large batches were unfolded into. Not after each of them:
    /// fresh memory costs more than to unfold.
    pub async fn give_scratch_back(self: Rc<Self>) {
        loop {
            self.runtime.sleep(SCRATCH_PERIOD).await;
            self.decompressor.borrow_mut().shrink(SCRATCH_BYTES_MAX);
        }
    }

    /// Counts a request that was answered.
    pub fn answered(&self, api_key: ApiKey, received: Monotonic, error_code: ErrorCode) {
        let latency = self.runtime.now().since(received);
        self.metrics.answered(api_key.0, latency, error_code.0);
    }

    /// A producer id that nobody has had: out of this shard's block, or of a new one from group 0.
    pub async fn next_producer_id(&self) -> Result<i64, ErrorCode> {
        loop {
            if let Some(id) = self.producer_ids.borrow_mut().next() {
                return Ok(id);
            }
            let (first, count) = match self.node.ask_controller(Input::AllocateProducerIds).await {
                Ok(Reply::ProducerIds { first, count }) => (first, count),
                other => return Err(controller::refusal(other).0),
            };
            // Another request may have got a block meanwhile: then this one's ids are never used,
            // as Kafka's may be.
            *self.producer_ids.borrow_mut() = first..first + count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_how_long_it_waits_for_the_controller() {
        for (said, seconds) in [(None, 29), (Some(60_000), 60), (Some(0), 2), (Some(-1), 2)] {
            assert_eq!(controller_time(said), Duration::from_secs(seconds), "{said:?}");
        }
    }
}
