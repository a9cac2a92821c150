//! A load harness for brokers that speak Kafka's protocol.
//!
//! - [`scenario`]: what a run does, as a file says it.
//! - [`result`]: what it found. [`measures`]: its figures, and which way each is better.
//! - [`ratio`]: how figures of runs that took turns compare.
//! - [`report`]: what a person sees of it.

pub mod measures;
pub mod ratio;
pub mod report;
pub mod result;
pub mod scenario;
