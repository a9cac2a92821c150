//! A small Kafka client over `vltava-protocol`.
