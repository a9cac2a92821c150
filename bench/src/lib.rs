//! A load harness for brokers that speak Kafka's protocol.
//!
//! - [`scenario`]: what a run does, as a file says it.
//! - [`result`]: what it found. [`measures`]: its figures, and which way each is better.
//! - [`run`]: from one to the other. [`topics`] are what it makes for it, and
//!   [`groups`] what its consumers leave behind.
//! - [`cli`]: the command line; [`shorthand`]: scenarios without a file.
//! - [`engine`]: who makes the load.
//! - [`observe`]: what else is known: the machine, processes, the disk.
//! - [`search`]: the highest rate that holds a latency. [`compare`]: two brokers in turn, which
//!   [`launch`] starts; [`ratio`]: how their figures compare.
//! - [`interrupt`]: signals, and what is ended and deleted then.
//! - [`report`]: what a person sees of it.
#![forbid(unsafe_code)]

pub mod cli;
pub mod compare;
pub mod engine;
pub mod groups;
pub mod interrupt;
pub mod launch;
pub mod measures;
pub mod observe;
pub mod ratio;
pub mod report;
pub mod result;
pub mod run;
pub mod scenario;
pub mod search;
pub mod shorthand;
pub mod topics;
