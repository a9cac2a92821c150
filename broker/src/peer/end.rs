//! Why a session ended, or did not come about.

use std::io;
use std::time::Duration;

use super::frame::FrameError;
use super::greeting::Refusal;

/// See each.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The other side closed a connection: it stops, was killed, or ends the session.
    #[error("it closed a connection")]
    Closed,
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came makes no sense.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// No heartbeat came.
    #[error("nothing was heard of it for {} ms", .0.as_millis())]
    Silent(Duration),
    /// A lane on which nothing came.
    #[error("nothing came on lane {lane} for {} s", .time.as_secs())]
    LaneSilent {
        /// Which.
        lane: u16,
        /// How long.
        time: Duration,
    },
    /// It took too long.
    #[error("{0} took too long")]
    Late(&'static str),
    /// It does not want to talk to this node.
    #[error("it refuses this node: {0}; {advice}", advice = .0.code.advice())]
    RefusedThere(Refusal),
    /// This node does not want to talk to it.
    #[error("this node refuses it: {0}")]
    RefusedHere(Refusal),
    /// It had begun a newer one.
    #[error("it begins another session")]
    Replaced,
    /// More messages gathered than it takes.
    #[error("{0} bytes of messages wait for it")]
    Overflow(usize),
    /// It was taken out of the cluster.
    #[error("it is no longer one of this node's peers")]
    Forgotten,
    /// This process stops.
    #[error("this node stops")]
    Stopping,
    /// The other side stops, and has said so.
    #[error("it stops")]
    Goodbye,
}

impl SessionEnd {
    /// Whether nothing is wrong: an operator wanted it so.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::Stopping | Self::Goodbye | Self::Forgotten | Self::Replaced)
    }
}
