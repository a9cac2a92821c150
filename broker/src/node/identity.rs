//! Who this node is: `meta.properties` in the data directory, in the form that Kafka gives it.
//!
//! Written once, when the directory is first used: a directory with logs and without it is not
//! taken for an empty one.

use vltava_protocol::types::Uuid;
use vltava_storage::io::{AlignedBuffer, Disk, Durability, File, IoError, IoErrorKind, OpenMode};

use super::room::once_there_is_room;
use crate::metadata::features::FIRST;
use crate::runtime::Runtime;

/// The file.
const FILE: &str = "meta.properties";
/// Its name while it is written.
const FILE_NEW: &str = "meta.properties.tmp";
/// The version of its format that this program writes and reads: Kafka's, for clusters without
/// ZooKeeper.
const VERSION: &str = "1";
/// Longer than any such file, in bytes: of a hundred founders.
const FILE_BYTES_MAX: usize = 8192;
/// What Kafka writes into a data directory and this program does not: as it formats it, and beside
/// the log of its own group 0.
const KAFKAS: [&str; 2] = ["bootstrap.checkpoint", "__cluster_metadata-0/quorum-state"];

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number in the cluster.
    pub node_id: i32,
    /// Its data directory: a wiped disk is another disk.
    pub disk_id: Uuid,
    /// The cluster it belongs to, once it does.
    pub founding: Option<Founding>,
    /// The highest feature level that the node has acted at.
    pub level: i16,
    /// Who founded the cluster alone is not alone in it any more: from then on its disk keeps what
    /// it voted. Noted of nobody else.
    pub shares_votes: bool,
}

/// How a cluster began: who has a vote in group 0 as long as its log says nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// The cluster.
    pub cluster_id: Uuid,
    /// By their numbers; never empty.
    pub founders: Vec<Founder>,
}

/// A node that was there when its cluster formed, with the disk that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founder {
    /// The node.
    pub node_id: i32,
    /// Its disk.
    pub disk_id: Uuid,
}

/// That no Kafka broker has used the directory. Kafka's `meta.properties` looks much like ours:
/// a node would take Kafka's number for its own.
///
/// # Errors
/// In words for a person.
pub async fn check_not_kafkas<D: Disk>(disk: &D) -> Result<(), String> {
    for file in KAFKAS {
        if disk.open(file, OpenMode::Read).await.is_ok() {
            return Err(format!(
                "the data directory is a Kafka broker's (it has {file}): give the node an empty one"
            ));
        }
    }
    Ok(())
}

/// Reads who this node is; `None` where the directory has never been used.
///
/// # Errors
/// In words for a person: the file cannot be read, or is of another version.
pub async fn read<D: Disk>(disk: &D) -> Result<Option<Identity>, String> {
    let file = match disk.open(FILE, OpenMode::Read).await {
        Ok(file) => file,
        Err(IoError { kind: IoErrorKind::NotFound, .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let bytes = file.read_at(0, FILE_BYTES_MAX).await.map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{FILE} is not text"))?;
    parse(text).map(Some).map_err(|what| format!("{FILE}: {what}"))
}

fn parse(text: &str) -> Result<Identity, String> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        line.map(str::trim).ok_or(format!("{name} is missing"))
    };
    let version = value("version")?;
    if version != VERSION {
        return Err(format!("version {version}; this program knows version {VERSION}"));
    }
    let id = |name: &str| value(name)?.parse().map_err(|_| format!("{name} is no id"));
    let node_id = value("node.id")?.parse().map_err(|_| "node.id is no number")?;
    let disk_id = id("directory.id")?;
    let founding = match value("cluster.id") {
        Err(_) => None,
        Ok(_) => Some(Founding {
            cluster_id: id("cluster.id")?,
            // A node that formed its cluster alone, or did so before there were others.
            founders: match value("founders") {
                Err(_) => vec![Founder { node_id, disk_id }],
                Ok(list) => founders(list).ok_or("founders is no list of node@disk")?,
            },
        }),
    };
    let level = match value("feature.level") {
        Err(_) => FIRST,
        Ok(level) => level.parse().map_err(|_| "feature.level is no number")?,
    };
    let shares_votes = value("votes.shared").is_ok_and(|value| value == "true");
    Ok(Identity { node_id, disk_id, founding, level, shares_votes })
}

fn founders(list: &str) -> Option<Vec<Founder>> {
    let founder = |element: &str| {
        let (node, disk) = element.split_once('@')?;
        Some(Founder { node_id: node.parse().ok()?, disk_id: disk.parse().ok()? })
    };
    list.split(',').map(founder).collect()
}

fn render(identity: &Identity) -> String {
    let Identity { node_id, disk_id, founding, level, shares_votes } = identity;
    let mut text = format!("version={VERSION}\nnode.id={node_id}\ndirectory.id={disk_id}\n");
    if let Some(Founding { cluster_id, founders }) = founding {
        let founders: Vec<_> =
            founders.iter().map(|at| format!("{}@{}", at.node_id, at.disk_id)).collect();
        text += &format!("cluster.id={cluster_id}\nfounders={}\n", founders.join(","));
    }
    // Before there were levels, all were at the first one.
    if *level != FIRST {
        text += &format!("feature.level={level}\n");
    }
    if *shares_votes {
        text += "votes.shared=true\n";
    }
    text
}

/// Writes who this node is: durable when it returns, and never half there. On a full disk waits for
/// room.
///
/// # Errors
/// In words for a person.
pub async fn write<R: Runtime>(runtime: &R, identity: &Identity) -> Result<(), String> {
    let is_full = |error: &IoError| error.kind == IoErrorKind::Full;
    let write = async || write_once(runtime.disk(), identity).await;
    let written = once_there_is_room(runtime, "who this node is", is_full, write).await;
    written.map_err(|error| error.to_string())
}

async fn write_once<D: Disk>(disk: &D, identity: &Identity) -> Result<(), IoError> {
    let text = render(identity);
    match disk.remove_file(FILE_NEW).await {
        Err(error) if error.kind != IoErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(FILE_NEW, OpenMode::Create).await?;
    let mut buffer = AlignedBuffer::new(text.len());
    buffer.append(text.as_bytes());
    file.write_at(buffer.blocks(0..text.len()), 0, Durability::Written).await?;
    file.set_len(text.len() as u64).await?;
    file.sync().await?;
    disk.rename_durably(FILE_NEW, FILE, "").await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let founder = |node_id, disk| Founder { node_id, disk_id: Uuid(disk) };
        let alone = Founding { cluster_id: Uuid(5), founders: vec![founder(7, u128::MAX)] };
        let three = vec![founder(1, 11), founder(2, 12), founder(7, u128::MAX)];
        let three = Founding { founders: three, ..alone.clone() };
        for (founding, level) in [(None, 1), (Some(alone.clone()), 1), (Some(three), 300)] {
            let disk_id = Uuid(u128::MAX);
            for shares_votes in [false, true] {
                let founding = founding.clone();
                let identity = Identity { node_id: 7, disk_id, founding, level, shares_votes };
                assert_eq!(parse(&render(&identity)), Ok(identity));
            }
        }
        let (cluster, disk) = (Uuid(5), Uuid(u128::MAX));
        let older = format!("version=1\ncluster.id={cluster}\nnode.id=7\ndirectory.id={disk}\n");
        assert_eq!(parse(&older).map(|found| found.founding), Ok(Some(alone)));
    }

    #[test]
    fn another_version_is_refused() {
        let (node_id, disk_id, founding) = (1, Uuid(2), None);
        let text = render(&Identity { node_id, disk_id, founding, level: 1, shares_votes: false });
        let newer = text.replace("version=1", "version=2");
        assert!(parse(&newer).is_err_and(|error| error.contains("version 2")));
        assert!(parse("").is_err());
        let wrong = format!("{text}feature.level=two\n");
        assert!(parse(&wrong).is_err_and(|error| error.contains("feature.level")));
    }

    /// Files of a founder of three, and of who founded a cluster alone that has others by now.
    #[test]
    fn golden_files_are_read_and_written() {
        let founder = |node_id, disk: u128| Founder { node_id, disk_id: Uuid(disk << 64) };
        let identity = |founders, level, shares_votes| {
            let founding = Some(Founding { cluster_id: Uuid(7 << 64), founders });
            Identity { node_id: 2, disk_id: Uuid(12 << 64), founding, level, shares_votes }
        };
        let three = vec![founder(1, 11), founder(2, 12), founder(3, 13)];
        for (name, identity) in [
            ("meta.properties", identity(three, 2, false)),
            ("meta.properties.shared", identity(vec![founder(2, 12)], 1, true)),
        ] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/disk/v1");
            let path = format!("{folder}/{name}");
            if std::env::var("VLTAVA_GOLDEN").is_ok_and(|mode| mode == "rewrite") {
                std::fs::write(&path, render(&identity)).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap();
            assert_eq!(golden, render(&identity));
            assert_eq!(parse(&golden), Ok(identity));
        }
    }
}
