//! A load harness for brokers that speak Kafka's protocol.
//!
//! - [`scenario`]: what a run does, as a file says it.
//! - [`result`]: what it found.
//! - [`run`]: from one to the other. [`topics`] are what it makes for it.
//! - [`cli`]: the command line; [`shorthand`]: scenarios without a file.
//! - [`engine`]: who makes the load.
//! - [`observe`]: what else is known: the machine, processes, the disk.
#![forbid(unsafe_code)]

pub mod cli;
pub mod engine;
pub mod observe;
pub mod result;
pub mod run;
pub mod scenario;
pub mod shorthand;
pub mod topics;
