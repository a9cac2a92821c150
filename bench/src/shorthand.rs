//! Scenarios that need no file: what the flags of a command say.

use clap::{Args, ValueEnum};

use crate::scenario::{
    Acks, Codec, Consumers, Fill, From, Producers, RunTime, Scenario, Size, Topics,
};

/// Which of the simple scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only producers.
    Produce,
    /// Only consumers, of what is written beforehand.
    Consume,
    /// Producers, and consumers that keep up.
    Both,
    /// The same at a fixed rate: how long a record takes from one to the other.
    EndToEnd,
}

/// What may differ from the defaults.
#[derive(Clone, Debug, Args)]
pub struct Shorthand {
    /// Records a second, of all producers together; without it, as many as the broker takes
    #[arg(long, value_name = "RATE")]
    records_per_second: Option<f64>,
    /// Bytes of each record's value
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    record_bytes: u32,
    /// Topics
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    topics: u32,
    /// Partitions of each topic
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    partitions: u32,
    /// Replicas of each partition; -1: the broker's default
    #[arg(long, value_name = "COUNT", default_value_t = -1, allow_negative_numbers = true)]
    replication_factor: i16,
    /// Producers
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    producers: u32,
    /// Which acknowledgement counts
    #[arg(long, value_enum, default_value_t = AcksName::All)]
    acks: AcksName,
    /// How long a batch waits for more records, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    linger_ms: f64,
    /// A batch's largest size, in bytes before compression
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    batch_bytes: u32,
    /// Requests that each producer may have under way to a broker
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    in_flight: u32,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = CodecName::None)]
    codec: CodecName,
    /// How much of a value is random, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    entropy: f64,
    /// Different keys; 0: none
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    keys: u32,
    /// Producers number their batches
    #[arg(long)]
    idempotent: bool,
    /// Consumers
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    consumers: u32,
    /// Groups that share the consumers; 0: each reads everything
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    groups: u32,
    /// What `consume` writes beforehand, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000_000)]
    fill_bytes: u64,
    /// Connections that are open beside, and do nothing
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    idle_connections: u32,
    /// Seconds measured; `consume` ends when all is read
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration: f64,
    /// Seconds under load before that
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    warm_up: f64,
    /// Threads that make the load; 0: one for each core
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    threads: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AcksName {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CodecName {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Shorthand {
    /// The scenario that the flags say.
    pub fn scenario(&self, kind: Kind) -> Scenario {
        let writes = kind != Kind::Consume;
        let reads = kind != Kind::Produce;
        let run = RunTime {
            warm_up_s: if writes { self.warm_up } else { 0.0 },
            duration_s: self.duration,
            threads: self.threads,
            ..RunTime::default()
        };
        let (bytes, record_bytes) = (self.fill_bytes, Size::Fixed(self.record_bytes));
        let fill = Fill { bytes, record_bytes, batch_bytes: 1 << 20 };
        Scenario {
            title: self.title(kind),
            why: String::new(),
            run,
            topics: Topics {
                count: self.topics,
                partitions: self.partitions,
                replication_factor: self.replication_factor,
                ..Topics::default()
            },
            fill: (!writes).then_some(fill),
            restart: None,
            start: false,
            producers: writes.then(|| self.producers(kind)).into_iter().collect(),
            consumers: reads.then(|| self.consumers(kind)).into_iter().collect(),
            idle_connections: self.idle_connections,
        }
    }

    fn title(&self, kind: Kind) -> String {
        let what = match kind {
            Kind::Produce => "produce",
            Kind::Consume => "consume",
            Kind::Both => "produce and consume",
            Kind::EndToEnd => "end to end",
        };
        let rate = self.rate(kind).map_or(String::new(), |rate| format!(", {rate} a second"));
        format!("{what}, {} B{rate}", self.record_bytes)
    }

    fn rate(&self, kind: Kind) -> Option<f64> {
        let default = (kind == Kind::EndToEnd).then_some(1000.0);
        self.records_per_second.or(default)
    }

    fn producers(&self, kind: Kind) -> Producers {
        Producers {
            count: self.producers,
            records_per_second: self.rate(kind),
            record_bytes: Size::Fixed(self.record_bytes),
            keys: self.keys,
            entropy: self.entropy,
            codec: match self.codec {
                CodecName::None => Codec::None,
                CodecName::Gzip => Codec::Gzip,
                CodecName::Snappy => Codec::Snappy,
                CodecName::Lz4 => Codec::Lz4,
                CodecName::Zstd => Codec::Zstd,
            },
            acks: match self.acks {
                AcksName::None => Acks::None,
                AcksName::Leader => Acks::Leader,
                AcksName::All => Acks::All,
            },
            linger_ms: self.linger_ms,
            batch_bytes: self.batch_bytes,
            in_flight: self.in_flight,
            idempotent: self.idempotent,
        }
    }

    fn consumers(&self, kind: Kind) -> Consumers {
        Consumers {
            count: self.consumers,
            groups: self.groups,
            from: if kind == Kind::Consume { From::Beginning } else { From::End },
            ..Consumers::default()
        }
    }
}
