//! Bad input and bad surroundings against a real process: Kafka's own error or a closed connection,
//! bounded memory, and other clients that do not notice; or one clear line and nothing touched.
//!
//! `HOSTILE_BROKER=host:port` sends the malformed requests to that broker instead: how a real Kafka
//! is asked what it answers.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/refusals.rs"]
mod refusals;
#[path = "hostile/requests.rs"]
mod requests;
#[path = "hostile/space.rs"]
mod space;
#[path = "hostile/stopping.rs"]
mod stopping;
mod support;
#[path = "hostile/witness.rs"]
mod witness;
