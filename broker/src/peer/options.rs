//! How connections between nodes behave: times, sizes, limits.

use std::time::Duration;

use super::frame::Limits;

/// See each field; [`Options::default`] is what a node runs with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often each node says to each other that it lives.
    pub heartbeat: Duration,
    /// A node that has not been heard of for more than so many of these is down. Counted in own
    /// beats, not in time: a process that was stopped itself finds what came meanwhile before it
    /// counts on.
    pub heartbeats_missed_max: u32,
    /// How often a lane that says nothing is used all the same.
    pub lane_check: Duration,
    /// A lane that was silent for so many checks is broken, whatever the heartbeats say.
    pub lane_checks_missed_max: u32,
    /// How long a node may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long it may take to answer a greeting; the same again for all lanes of a session.
    pub handshake_timeout: Duration,
    /// How long to wait after a first failure; twice as long after each further one.
    pub retry_min: Duration,
    /// At most.
    pub retry_max: Duration,
    /// How long to wait after a refusal: only an operator can help.
    pub refused_pause: Duration,
    /// Payload that one shard has waiting for one node, in bytes: who has more waits for room.
    pub window_bytes: usize,
    /// What has no payload and waits for one node, in bytes (estimated). It is never made to wait;
    /// a session in which more gathers ends.
    pub urgent_bytes_max: usize,
    /// Payload that is sent together before anything else has its turn, in bytes. One message may
    /// have more.
    pub turn_bytes: usize,
    /// What the kernel takes in and has not sent, on a lane, in bytes: nothing goes before that.
    pub unsent_bytes: u32,
    /// Payload that other shards of this process may owe one lane before it is read on, in bytes.
    pub forward_bytes_max: usize,
    /// Payload of one frame that is taken in, in bytes: more than any batch, or body of a request.
    pub payload_bytes_max: usize,
    /// Requests of one node that one shard answers at a time; more are refused as busy.
    pub requests_max: usize,
    /// Connections of one shard that have not said who they are; more are closed.
    pub handshakes_max: usize,
}

impl Default for Options {
    /// A dead node is noticed in 0.30 to 0.38 s (a killed process at once: its connections are
    /// closed), and a pause of 0.22 s is not noticed at all. Beats are nearly all that idle nodes
    /// pay for: more of them would notice no sooner.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(75),
            heartbeats_missed_max: 4,
            lane_check: Duration::from_secs(1),
            lane_checks_missed_max: 5,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(2),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_secs(1),
            refused_pause: Duration::from_secs(5),
            window_bytes: 8 << 20,
            urgent_bytes_max: 32 << 20,
            turn_bytes: 1 << 20,
            unsent_bytes: 256 << 10,
            forward_bytes_max: 8 << 20,
            payload_bytes_max: 128 << 20,
            requests_max: 64,
            handshakes_max: 256,
        }
    }
}

/// Before a connection has said who is at its other end, little is taken in.
pub(super) const GREETING_LIMITS: Limits =
    Limits { message_bytes_max: 16 << 10, payload_bytes_max: 0 };
/// The same on the connection for heartbeats.
pub(super) const CONTROL_LIMITS: Limits = Limits { message_bytes_max: 4 << 10, ..GREETING_LIMITS };
/// Messages of a lane, in bytes; what is sent together stays below a quarter of it, and one message
/// below half.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;

impl Options {
    pub(super) fn lane_limits(&self) -> Limits {
        Limits { message_bytes_max: MESSAGE_BYTES_MAX, payload_bytes_max: self.payload_bytes_max }
    }
}
