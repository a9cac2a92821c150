//! What the harness runs on, as the kernel tells it.

use std::fs;
use std::thread::available_parallelism;

use crate::result::Machine;

/// This machine. What the kernel does not tell stays empty, or 0.
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    Machine {
        processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default().to_owned(),
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        memory_bytes: kilobytes(&read("/proc/meminfo"), "MemTotal"),
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
    }
}

/// The value of the first line that is `name : value`.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The value of a line `name: number kB`, in bytes; 0 where there is none.
pub fn kilobytes(text: &str, name: &str) -> u64 {
    let number = field(text, name).and_then(|value| value.split_whitespace().next());
    number.and_then(|number| number.parse::<u64>().ok()).map_or(0, |number| number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let text = "processor\t: 0\nmodel name\t: A: B 2.5GHz\nMemTotal:  16 kB\n";
        assert_eq!(field(text, "model name"), Some("A: B 2.5GHz"));
        assert_eq!(kilobytes(text, "MemTotal"), 16 << 10);
        assert_eq!(kilobytes(text, "SwapTotal"), 0);
        assert!(machine().cores >= 1);
    }
}
