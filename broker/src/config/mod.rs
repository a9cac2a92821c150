//! Every setting: its Kafka name, type, default, unit, scope and documentation, and the values that
//! follow from it. Values only: no I/O, and nothing here knows who uses a setting.
//!
//! - [`definitions`] is the one table (by scope in [`broker`], [`topic_defaults`], [`topic`],
//!   [`group`]); `vltava config`, `docs/configuration.md`, DescribeConfigs and validation are made
//!   from it. [`migration`] knows the settings of Kafka that have no effect here, and those that
//!   must not be ignored.
//! - [`properties`], [`listeners`] and [`peers`] parse; [`check`] validates one value, in Kafka's
//!   words; [`origin`] names what is refused in the words of the command line or the file it stood
//!   in.
//! - [`values`] is what the rooms are given at start ([`values::BrokerConfig`]), [`topic_values`]
//!   what a topic's log needs ([`topic_values::TopicConfig`]: the node's defaults under the topic's
//!   own settings). Both are immutable snapshots; they are `Send`, and every shard holds its own
//!   clone.
//! - [`describe`] answers DescribeConfigs as plain data; [`render`] writes documentation.

pub mod broker;
pub mod check;
pub mod definitions;
pub mod describe;
pub mod group;
pub mod listeners;
pub mod migration;
pub mod origin;
pub mod peers;
pub mod properties;
pub mod render;
pub mod topic;
pub mod topic_defaults;
pub mod topic_values;
pub mod values;
