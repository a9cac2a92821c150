//! A scenario in words.

use super::figures;
use crate::scenario::{
    Acks, Codec, Consumers, End, Fill, From, Producers, Restart, Scenario, Size, Topics, Weighted,
};

/// What a run does, a phrase for each part of it.
pub fn describe(scenario: &Scenario) -> Vec<String> {
    let mut phrases = vec![topics(&scenario.topics)];
    phrases.extend(scenario.fill.as_ref().map(fill));
    phrases.extend(scenario.restart.as_ref().map(restart));
    phrases.extend(scenario.producers.iter().map(producers));
    phrases.extend(scenario.consumers.iter().map(consumers));
    if scenario.idle_connections > 0 {
        let ask = if scenario.idle_connections == 1 { "asks" } else { "ask" };
        let idle = some(scenario.idle_connections, "connection");
        phrases.push(format!("{idle} that {ask} for nothing"));
    }
    let (warm_up, duration) = (scenario.run.warm_up_s, scenario.run.duration_s);
    let (warm_up_s, duration_s) = (figures::plain(warm_up), figures::plain(duration));
    phrases.push(match scenario.only_reads() {
        true => format!("measured until all of it is read, for {duration_s} s at most"),
        false if warm_up > 0.0 => {
            format!("measured for {duration_s} s, after {warm_up_s} s that do not count")
        }
        false => format!("measured for {duration_s} s"),
    });
    phrases
}

fn some(count: u32, what: &str) -> String {
    figures::some(count.into(), what)
}

fn topics(topics: &Topics) -> String {
    let partitions = some(topics.partitions, "partition");
    let mut text = match topics.count {
        1 => format!("1 topic with {partitions}"),
        count => format!("{} with {partitions} each", some(count, "topic")),
    };
    if topics.replication_factor > 1 {
        text += &format!(", {} replicas of each", topics.replication_factor);
    }
    for (name, value) in &topics.configs {
        text += &format!(", {name}={value}");
    }
    text
}

fn fill(fill: &Fill) -> String {
    let (total, each) = (figures::bytes(fill.bytes), size(&fill.record_bytes));
    format!("{total} of records of {each} written beforehand")
}

fn restart(restart: &Restart) -> String {
    let end = match restart.end {
        End::Stop => "stopped",
        End::Kill => "killed",
    };
    let cache = if restart.drop_page_cache { "; the page cache dropped in between" } else { "" };
    format!("the broker {end} then, and started again{cache}")
}

fn producers(producers: &Producers) -> String {
    let mut text = some(producers.count, "producer");
    text += match producers.count {
        1 => " writes ",
        _ => " write ",
    };
    text += &match producers.records_per_second {
        Some(rate) => format!("{} records/s of ", figures::plain(rate)),
        None => "as fast as answers come, records of ".to_owned(),
    };
    text += &size(&producers.record_bytes);
    text += &match producers.keys {
        0 => " without keys".to_owned(),
        keys => format!(" with {}", some(keys, "key")),
    };
    text += match producers.acks {
        Acks::None => ", acks=0",
        Acks::Leader => ", acks=1",
        Acks::All => ", acks=all",
    };
    text += &format!(", linger {} ms", figures::plain(producers.linger_ms));
    text += &format!(", batches of up to {}", figures::bytes(producers.batch_bytes.into()));
    text += &format!(", {} under way each", some(producers.in_flight, "request"));
    if producers.codec != Codec::None {
        let random = figures::plain(producers.entropy * 100.0);
        text += &format!(", {} ({random} % of each value is random)", codec(producers.codec));
    }
    if producers.idempotent {
        text += ", idempotent";
    }
    text
}

fn codec(codec: Codec) -> &'static str {
    match codec {
        Codec::None => "none",
        Codec::Gzip => "gzip",
        Codec::Snappy => "snappy",
        Codec::Lz4 => "lz4",
        Codec::Zstd => "zstd",
    }
}

fn size(size: &Size) -> String {
    match size {
        Size::Fixed(bytes) => figures::bytes((*bytes).into()),
        Size::Between { min, max } => format!("{min} to {max} bytes"),
        Size::LogNormal { median, p99 } => {
            format!("log-normal size (median {median} bytes, p99 {p99} bytes)")
        }
        Size::OneOf(sizes) => {
            let sum: f64 = sizes.iter().map(|size| f64::from(size.weight)).sum();
            let one = |size: &Weighted| {
                let percent = figures::plain(f64::from(size.weight) * 100.0 / sum);
                format!("{} bytes ({percent} %)", size.bytes)
            };
            sizes.iter().map(one).collect::<Vec<String>>().join(" or ")
        }
    }
}

fn consumers(consumers: &Consumers) -> String {
    let mut text = some(consumers.count, "consumer");
    text += &match (consumers.count, consumers.groups) {
        (1, 0) => " reads all of it".to_owned(),
        (_, 0) => ", each of all of it,".to_owned(),
        (_, groups) => format!(" in {},", some(groups, "group")),
    };
    text += match consumers.from {
        From::Beginning => " from the first record",
        From::End => " as it is written",
    };
    let rate = consumers.bytes_per_second;
    text += &rate.map_or_else(String::new, |rate| {
        format!(", {} MB/s each and no faster", figures::plain(rate / 1e6))
    });
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[test]
    fn what_only_reads_is_over_when_all_is_read() {
        let text = "title = 'x'\nrun = { warm_up_s = 0, duration_s = 60 }\n\
                    fill = { bytes = 1024 }\n[[consumers]]\n";
        let phrases = describe(&Scenario::parse(text).unwrap());
        let last = phrases.last().unwrap();
        assert_eq!(last, "measured until all of it is read, for 60 s at most");
    }

    #[test]
    fn a_scenario_reads_as_sentences() {
        let text = "title = 'x'\nidle_connections = 5000\n[topics]\ncount = 2\npartitions = 8\n\
                    [fill]\nbytes = 1073741824\n\
                    [restart]\nend = 'kill'\ndrop_page_cache = true\n\
                    [[producers]]\nrecords_per_second = 20000\ncodec = 'lz4'\nentropy = 0.5\n\
                    [[producers]]\ncount = 3\nkeys = 9\n\
                    record_bytes = [{ bytes = 100, weight = 3 }, { bytes = 9000, weight = 1 }]\n\
                    [[consumers]]\n[[consumers]]\ncount = 4\ngroups = 2\nfrom = 'beginning'\n";
        let phrases = describe(&Scenario::parse(text).unwrap());
        assert_eq!(
            phrases,
            [
                "2 topics with 8 partitions each",
                "1 GiB of records of 1 KiB written beforehand",
                "the broker killed then, and started again; the page cache dropped in between",
                "1 producer writes 20,000 records/s of 1 KiB without keys, acks=all, linger 0 ms, \
                 batches of up to 1 MiB, 5 requests under way each, lz4 (50 % of each value is \
                 random)",
                "3 producers write as fast as answers come, records of 100 bytes (75 %) or 9000 \
                 bytes (25 %) with 9 keys, acks=all, linger 0 ms, batches of up to 1 MiB, 5 \
                 requests under way each",
                "1 consumer reads all of it as it is written",
                "4 consumers in 2 groups, from the first record",
                "5,000 connections that ask for nothing",
                "measured for 10 s, after 3 s that do not count",
            ]
        );
    }
}
