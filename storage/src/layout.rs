//! Names of files and directories: Kafka's own, and what we add.

use vltava_protocol::types::Uuid;

/// Kafka's file with the topic's id.
pub const PARTITION_METADATA: &str = "partition.metadata";
/// Kafka's file with the epochs and their start offsets. For Kafka's tools: ours is in
/// [`CHECKPOINT`].
pub const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
/// Our own file: all that recovery needs, checksummed.
pub const CHECKPOINT: &str = "vltava-checkpoint";
/// Our own file: the log is empty, and begins as this says, whatever else is there.
pub const RESET: &str = "vltava-reset";
/// Begins the names of the files with flushed ends, one for each shard, in the data directory.
pub const FLUSHED_NOTES: &str = "vltava-flushed-";
/// Begins the names of the files with what groups set, two for each shard, in the data directory.
pub const VOTES: &str = "vltava-votes-";
/// The file with the partitions that are on another shard than the computed one.
pub const SHARDS: &str = "vltava-shards";
/// Ends the name of a file that is not whole yet.
pub const TEMPORARY: &str = ".tmp";
/// Ends the name of a partition's directory that is not whole yet.
pub const NEW: &str = ".new";
/// Ends the name of a partition's directory that is being deleted. Kafka's.
pub const DELETED: &str = "-delete";
/// Ends the name of a directory that was set aside.
const DAMAGED: &str = "-damaged";
/// A name of most file systems takes so many bytes.
const NAME_BYTES_MAX: usize = 255;

/// A partition's directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionName {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

/// What a directory under the data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryKind {
    /// A partition.
    Partition(PartitionName),
    /// Half created, or half deleted: to be removed at start.
    Leftover,
    /// Not ours.
    Other,
}

/// What the directory of this name is.
pub fn directory_kind(name: &str) -> DirectoryKind {
    if name.ends_with(DELETED) || name.ends_with(NEW) {
        return DirectoryKind::Leftover;
    }
    let Some((topic, number)) = name.rsplit_once('-') else {
        return DirectoryKind::Other;
    };
    match number.parse::<i32>() {
        Ok(partition) if !topic.is_empty() && partition.to_string() == number => {
            DirectoryKind::Partition(PartitionName { topic: topic.to_owned(), partition })
        }
        _ => DirectoryKind::Other,
    }
}

/// The directory in which a partition is made, before it has its own name. Short, however long the
/// topic's name is.
pub(crate) fn new_directory(directory: &str, topic_id: Uuid) -> String {
    let number = directory.rsplit_once('-').map_or("", |(_, number)| number);
    format!("{:032x}-{number}{NEW}", topic_id.0)
}

/// What a partition's directory is called while it is deleted, cut to what a file system takes (as
/// Kafka does).
pub(crate) fn deleted_directory(directory: &str, topic_id: Uuid) -> String {
    with_suffix(directory, topic_id, DELETED)
}

/// What it is called where it was damaged, and another stands in its place.
pub(crate) fn damaged_directory(directory: &str, topic_id: Uuid) -> String {
    with_suffix(directory, topic_id, DAMAGED)
}

/// The topic's id in such a name, and what the directory is called while it is deleted.
pub(crate) fn parse_damaged(name: &str) -> Option<(Uuid, String)> {
    let rest = name.strip_suffix(DAMAGED)?;
    let (_, id) = rest.rsplit_once('.').filter(|(_, id)| id.len() == 32)?;
    let id = u128::from_str_radix(id, 16).ok()?;
    Some((Uuid(id), format!("{rest}{DELETED}")))
}

fn with_suffix(directory: &str, topic_id: Uuid, suffix: &str) -> String {
    let suffix = format!(".{:032x}{suffix}", topic_id.0);
    let mut end = directory.len().min(NAME_BYTES_MAX - suffix.len());
    while !directory.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &directory[..end])
}

/// `vltava-votes-3-a` and `vltava-votes-3-b`: the two copies of what the groups of a shard set.
pub(crate) fn votes_files(shard: u32) -> [String; 2] {
    ["a", "b"].map(|copy| format!("{VOTES}{shard}-{copy}"))
}

/// The shard in such a name.
pub(crate) fn shard_of_votes(name: &str) -> Option<u32> {
    let (shard, _) = name.strip_prefix(VOTES)?.split_once('-')?;
    let shard = shard.parse().ok()?;
    votes_files(shard).iter().any(|file| file == name).then_some(shard)
}

/// `00000000000000000042.log`
pub fn log_file(base_offset: i64) -> String {
    format!("{base_offset:020}.log")
}

/// `00000000000000000042.index`
pub fn offset_index_file(base_offset: i64) -> String {
    format!("{base_offset:020}.index")
}

/// `00000000000000000042.timeindex`
pub fn time_index_file(base_offset: i64) -> String {
    format!("{base_offset:020}.timeindex")
}

/// `00000000000000000042.snapshot`: the state of producers just before that offset.
pub fn snapshot_file(offset: i64) -> String {
    format!("{offset:020}.snapshot")
}

/// The offset in a name like `00000000000000000042.log`, where it has this extension and 20 digits.
pub fn offset_of(name: &str, extension: &str) -> Option<i64> {
    let (digits, found) = name.split_once('.')?;
    let is_offset = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if found == extension && is_offset { digits.parse().ok() } else { None }
}

/// The text of Kafka's `partition.metadata`.
pub(crate) fn partition_metadata(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {}", base64url(topic_id))
}

/// A UUID as Kafka writes it: base64url without padding, 22 characters.
pub(crate) fn base64url(id: Uuid) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 128 bits are 21 digits of 6 bits and 2 bits that begin a 22nd.
    let digits = (0..22).map(|at| {
        let shift = 122 - 6 * i32::min(at, 20);
        let bits = match at {
            21 => id.0 << 4,
            _ => id.0 >> shift,
        };
        char::from(ALPHABET[(bits & 63) as usize])
    });
    digits.collect()
}

/// The UUID in the text of a `partition.metadata` of version 0.
pub(crate) fn parse_partition_metadata(text: &str) -> Option<Uuid> {
    let mut lines = text.lines();
    if lines.next()?.trim() != "version: 0" {
        return None;
    }
    let id = lines.next()?.strip_prefix("topic_id: ")?.trim();
    let mut value: u128 = 0;
    let mut digits = 0;
    for byte in id.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        digits += 1;
        value = match digits {
            1..=21 => (value << 6) | u128::from(digit),
            22 => (value << 2) | u128::from(digit >> 4),
            _ => return None,
        };
    }
    (digits == 22).then_some(Uuid(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_told_apart() {
        let partition = |topic: &str, partition| {
            DirectoryKind::Partition(PartitionName { topic: topic.to_owned(), partition })
        };
        assert_eq!(directory_kind("a-b-0"), partition("a-b", 0));
        assert_eq!(directory_kind("__consumer_offsets-49"), partition("__consumer_offsets", 49));
        for other in ["a", "a-", "-0", "a-01", "a-x", "a--", "lost+found", "a-+1"] {
            assert_eq!(directory_kind(other), DirectoryKind::Other, "{other}");
        }
        let id = Uuid(7);
        for directory in ["a-0".to_owned(), format!("{}-123", "t".repeat(249))] {
            let deleted = deleted_directory(&directory, id);
            let new = new_directory(&directory, id);
            assert!(deleted.len() <= 255 && new.len() <= 255);
            assert_eq!(directory_kind(&deleted), DirectoryKind::Leftover);
            assert_eq!(directory_kind(&new), DirectoryKind::Leftover);
        }
    }

    #[test]
    fn shards_are_read_from_names() {
        assert_eq!(votes_files(12), ["vltava-votes-12-a", "vltava-votes-12-b"]);
        assert_eq!(votes_files(12).map(|name| shard_of_votes(&name)), [Some(12); 2]);
        for other in ["vltava-votes-12", "vltava-votes-1-c", "vltava-votes-01-a", "x-1-a"] {
            assert_eq!(shard_of_votes(other), None, "{other}");
        }
        assert_eq!(shard_of_votes("vltava-votes-1-a.tmp"), None);
    }

    #[test]
    fn offsets_are_read_from_names() {
        assert_eq!(offset_of(&log_file(42), "log"), Some(42));
        assert_eq!(offset_of(&log_file(i64::MAX), "log"), Some(i64::MAX));
        for other in ["42.log", "00000000000000000042.index", "0000000000000000004x.log", "log"] {
            assert_eq!(offset_of(other, "log"), None);
        }
    }

    #[test]
    fn uuids_are_written_as_kafka_does() {
        // What Kafka's Uuid prints for these two.
        assert_eq!(base64url(Uuid(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        let id = Uuid(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        assert_eq!(base64url(id), "ASNFZ4mrze_-3LqYdlQyEA");
        assert_eq!(parse_partition_metadata(&partition_metadata(id)), Some(id));
        for bad in ["", "version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ", "version: 0\ntopic_id: A"] {
            assert_eq!(parse_partition_metadata(bad), None);
        }
    }
}
