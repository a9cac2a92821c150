//! Who this node is: `meta.properties` in the data directory, in the form that Kafka gives it.
//!
//! Written once, when the directory is first used: a directory with logs and without it is not
//! taken for an empty one.

use vltava_protocol::types::Uuid;
use vltava_storage::io::{AlignedBuffer, Disk, Durability, File, IoError, IoErrorKind, OpenMode};

/// The file.
const FILE: &str = "meta.properties";
/// Its name while it is written.
const FILE_NEW: &str = "meta.properties.tmp";
/// The version of its format that this program writes and reads: Kafka's, for clusters without
/// ZooKeeper.
const VERSION: &str = "1";
/// Longer than any such file, in bytes.
const FILE_BYTES_MAX: usize = 4096;

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster_id: Uuid,
    /// Its number in the cluster.
    pub node_id: i32,
    /// Its data directory: a wiped disk is another disk.
    pub disk_id: Uuid,
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
    Ok(Identity {
        cluster_id: id("cluster.id")?,
        node_id: value("node.id")?.parse().map_err(|_| "node.id is no number")?,
        disk_id: id("directory.id")?,
    })
}

fn render(identity: &Identity) -> String {
    let Identity { cluster_id, node_id, disk_id } = identity;
    format!(
        "version={VERSION}\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={disk_id}\n"
    )
}

/// Writes who this node is: durable when it returns, and never half there.
///
/// # Errors
/// In words for a person.
pub async fn write<D: Disk>(disk: &D, identity: &Identity) -> Result<(), String> {
    let text = render(identity);
    let written = async {
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
        disk.rename(FILE_NEW, FILE).await?;
        disk.sync_dir("").await
    };
    written.await.map_err(|error: IoError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let identity = Identity { cluster_id: Uuid(5), node_id: 7, disk_id: Uuid(u128::MAX) };
        assert_eq!(parse(&render(&identity)), Ok(identity));
    }

    #[test]
    fn another_version_is_refused() {
        let text = render(&Identity { cluster_id: Uuid(1), node_id: 1, disk_id: Uuid(2) });
        let newer = text.replace("version=1", "version=2");
        assert!(parse(&newer).is_err_and(|error| error.contains("version 2")));
        assert!(parse("").is_err());
    }
}
