//! Where to begin to read, and in which partitions.

use std::str::FromStr;

use crate::cli::arguments::whole_number;
use crate::cli::timestamp;

/// Where to begin in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// At the first record.
    Beginning,
    /// Behind the last.
    End,
    /// At an offset.
    Offset(i64),
    /// So many offsets before the end.
    BeforeEnd(i64),
    /// At the first record of this time or later, in milliseconds since 1970.
    Time(i64),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || String::from("write beginning, end, an offset, -N or time:WHEN");
        let offset = |digits: &str| whole_number(digits).map_err(|_| wrong());
        match text {
            "beginning" | "earliest" => Ok(Self::Beginning),
            "end" | "latest" => Ok(Self::End),
            _ => {
                if let Some(when) = text.strip_prefix("time:") {
                    return timestamp::parse(when).map(Self::Time);
                }
                if let Some(digits) = text.strip_prefix("offset:") {
                    return offset(digits).map(Self::Offset);
                }
                match text.strip_prefix('-') {
                    Some(digits) => offset(digits).map(Self::BeforeEnd),
                    None => offset(text).map(Self::Offset),
                }
            }
        }
    }
}

/// Partitions by number, as `0,2,5-7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionList(pub(super) Vec<i32>);

/// More than a topic has.
const PARTITIONS_MAX: usize = 100_000;

impl FromStr for PartitionList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || String::from("write numbers and ranges, such as 0,2,5-7");
        let number = |digits: &str| whole_number::<i32>(digits).map_err(|_| wrong());
        let mut partitions = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first)?..=number(last)?;
            if range.is_empty() {
                return Err(wrong());
            }
            partitions.extend(range.take(PARTITIONS_MAX));
            if partitions.len() >= PARTITIONS_MAX {
                return Err(wrong());
            }
        }
        partitions.sort_unstable();
        partitions.dedup();
        Ok(Self(partitions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read() {
        for (text, position) in [
            ("beginning", Position::Beginning),
            ("end", Position::End),
            ("earliest", Position::Beginning),
            ("latest", Position::End),
            ("offset:17", Position::Offset(17)),
            ("17", Position::Offset(17)),
            ("-3", Position::BeforeEnd(3)),
            ("time:5", Position::Time(5)),
            ("time:1970-01-01T00:00:01Z", Position::Time(1000)),
        ] {
            assert_eq!(text.parse(), Ok(position));
        }
        for text in ["", "x", "offset:", "offset:-1", "-", "--1", "+1", "time:", "start"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn lists_of_partitions_are_read() {
        assert_eq!("3".parse(), Ok(PartitionList(vec![3])));
        assert_eq!("5-7,0,2,6".parse(), Ok(PartitionList(vec![0, 2, 5, 6, 7])));
        for text in ["", "a", "1,", "3-1", "-1", "1-", "0-2147483647"] {
            assert!(text.parse::<PartitionList>().is_err(), "{text}");
        }
    }
}
