//! The groups of a run, deleted after it with what they have committed.

use std::thread;
use std::time::{Duration, Instant};

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_groups::DeleteGroupsRequest;
use vltava_protocol::types::Str;

/// How long members may take to leave.
const EMPTY_WITHIN: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);

/// Deletes them, as soon as their members have left. One that is gone already is no error.
///
/// # Errors
/// What the cluster says.
pub fn delete(cluster: &mut Cluster, names: &[Str]) -> Result<(), ClientError> {
    let began = Instant::now();
    for name in names {
        loop {
            let node = cluster.try_coordinator(name)?;
            let request = DeleteGroupsRequest { groups_names: vec![name.clone()] };
            let response = cluster.call(node, &request)?;
            let code = response.results.first().map_or(ErrorCode::NONE, |result| result.error_code);
            if code == ErrorCode::GROUP_ID_NOT_FOUND {
                break;
            }
            let may_pass = code == ErrorCode::NON_EMPTY_GROUP || code.is_retriable();
            if may_pass && began.elapsed() < EMPTY_WITHIN {
                cluster.forget_coordinator(name);
                thread::sleep(PAUSE);
                continue;
            }
            ClientError::check(code, None, format!("deleting group {name}"))?;
            break;
        }
    }
    Ok(())
}
