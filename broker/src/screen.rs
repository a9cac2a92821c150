//! What a person sees at start: what was found, what was chosen, and what the host should change.

use std::io::Write;

use crate::config::values::BrokerConfig;
use crate::runtime::{DataDirectory, MachineFacts};

/// Descriptors below which a busy broker may run out.
const DESCRIPTORS_WANTED: u64 = 65_536;
/// Descriptors that a partition takes which is written to and read.
const DESCRIPTORS_PER_PARTITION: u64 = 2;
/// Descriptors that a broker takes beside those of partitions, with some clients.
const DESCRIPTORS_BESIDE: u64 = 256;

/// Writes one line to standard output, at once.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason to stop serving.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Shows the screen.
pub fn show(
    config: &BrokerConfig,
    facts: &MachineFacts,
    shards: usize,
    memory_bytes: u64,
    directory: &DataDirectory,
) {
    let listeners: Vec<_> =
        config.listeners.iter().map(|listener| listener.bind.to_string()).collect();
    let writes = if directory.is_direct() {
        "past the page cache (O_DIRECT), flushed with each write"
    } else {
        "through the page cache, flushed with each write: this file system refuses O_DIRECT"
    };
    line(&format!("vltava {}", env!("CARGO_PKG_VERSION")));
    line(&format!("  node       {}, listening on {}", config.node_id, listeners.join(", ")));
    line(&format!("  data       {}; writes go {writes}", directory.path().display()));
    line(&format!(
        "  machine    {} cores, {} of memory, kernel {}",
        facts.cores.len(),
        size(facts.memory_bytes),
        facts.kernel
    ));
    line(&format!(
        "  chosen     {shards} shards, {} of memory for requests and cache",
        size(memory_bytes)
    ));
    for advice in advice(facts) {
        line(&format!("  advice     {advice}"));
    }
}

/// Shows what the host should change for so many partitions, where it should.
pub fn show_descriptors(partitions: usize, descriptors_max: u64) {
    let partitions = u64::try_from(partitions).unwrap_or(u64::MAX);
    let wanted = partitions.saturating_mul(DESCRIPTORS_PER_PARTITION) + DESCRIPTORS_BESIDE;
    if descriptors_max < wanted {
        line(&format!(
            "  advice     open files are limited to {descriptors_max}; {partitions} partitions, \
             all in use, take about {wanted} (ulimit -n, LimitNOFILE=)"
        ));
    }
}

fn advice(facts: &MachineFacts) -> Vec<String> {
    let mut advice = Vec::new();
    if facts.descriptors_max < DESCRIPTORS_WANTED {
        advice.push(format!(
            "open files are limited to {}; {DESCRIPTORS_WANTED} would serve many clients and \
             partitions (ulimit -n, LimitNOFILE=)",
            facts.descriptors_max
        ));
    }
    advice
}

fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if bytes >> shift > 0 {
            let tenths = (bytes >> (shift - 10)).saturating_mul(10) >> 10;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(8 * 1024 * 1024), "8.0 MiB");
        assert_eq!(size(25_200_000_000), "23.4 GiB");
    }
}
