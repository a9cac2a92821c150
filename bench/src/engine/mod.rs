//! The load: threads with an epoll loop each, connections of their own, and nothing shared while
//! they work.
//!
//! - [`crew`]: the threads, seen from outside; [`gather`]: what they say, put together.
//!   [`worker`]: one of them; [`client`]: whom it serves.
//! - [`producer`]: one of a [`class`]; takes up records when their time has come ([`pacer`]), and
//!   queues them in batches ([`queue`], [`batch`]); [`lane`]: its connection to one broker.
//! - [`consumer`]: fetches ([`fetch`]: its connection to one broker); [`reader`] reads what came,
//!   and [`verify`] knows whether it is what was sent.
//! - [`group`]: consumers that are one reader together, on whichever threads; [`seat`]: the
//!   membership of one of them.
//! - [`payload`]: what records carry, so that they can be checked; [`lengths`]: how long they are.
//! - [`mod@line`]: a way to one broker, made anew where it is lost; [`leaders`]: who leads what,
//!   asked again where that is in doubt; [`session`]: what a broker remembers of a consumer's
//!   fetches.
//! - [`link`]: a connection that does not block; [`poll`]: waiting for many; [`buffers`].
//! - [`map`]: partitions by dense numbers; [`stats`]: what is counted; [`clock`]; [`random`];
//!   [`context`]: what the clients of a worker share.

pub mod batch;
pub mod buffers;
pub mod class;
pub mod client;
pub mod clock;
pub mod consumer;
pub mod context;
pub mod crew;
pub mod fetch;
pub mod gather;
pub mod group;
pub mod lane;
pub mod leaders;
pub mod lengths;
pub mod line;
pub mod link;
pub mod map;
pub mod pacer;
pub mod payload;
pub mod poll;
pub mod producer;
pub mod queue;
pub mod random;
pub mod reader;
pub mod seat;
pub mod session;
pub mod stats;
pub mod verify;
pub mod worker;
