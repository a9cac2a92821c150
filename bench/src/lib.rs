//! A load harness for brokers that speak Kafka's protocol.
//!
//! - [`scenario`]: what a run does, as a file says it.
//! - [`result`]: what it found.

pub mod result;
pub mod scenario;
