//! DescribeCluster (key 60): nodes, controller, id (KIP-700).
//!
//! Versions: 1 kind of endpoint (KIP-919), 2 fenced brokers (KIP-1073).
//!
//! Ours: a node is fenced where neither the one that answers nor the leader of group 0 has a
//! session with it (`node/presence.rs`); there is no controller listener, so asking for its
//! endpoints is always the wrong endpoint.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use vltava_protocol::types::Str;

use super::Reply;
use super::context::Context;
use super::topology::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, Standpoint};
use crate::metadata::image::Image;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DESCRIBE_CLUSTER;

/// Brokers, as a kind of endpoint.
const BROKERS: i8 = 1;
/// Controllers.
const CONTROLLERS: i8 = 2;

/// Describes the cluster as it looks from the client's listener.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DescribeClusterRequest,
) -> Reply<DescribeClusterResponse> {
    let node = &context.services.node;
    let (image, present) = (node.image(), node.shown());
    let from = Standpoint { listener: &context.client.listener, present: &present };
    Reply::Now(answer(&image, node.controller_id(), from, &request))
}

fn answer(
    image: &Image,
    controller_id: i32,
    from: Standpoint<'_>,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return refused(
                ErrorCode::MISMATCHED_ENDPOINT_TYPE,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
                 type CONTROLLER",
            );
        }
        other => {
            let message = format!("Unsupported endpoint type {other}");
            return refused(ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, &message);
        }
    }
    let brokers = image.nodes().filter_map(|node| {
        let endpoint = node.endpoint(from.listener)?;
        let is_fenced = !from.present.contains(&node.id);
        (!is_fenced || request.include_fenced_brokers).then(|| DescribeClusterBroker {
            broker_id: node.id,
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
            rack: node.rack.clone(),
            is_fenced,
        })
    });
    let operations = match request.include_cluster_authorized_operations {
        true => CLUSTER_OPERATIONS,
        false => OPERATIONS_NOT_ASKED,
    };
    let cluster_id = image.cluster().map(|cluster| Str::from(cluster.id.to_string()));
    DescribeClusterResponse {
        cluster_id: cluster_id.unwrap_or_default(),
        controller_id,
        brokers: brokers.collect(),
        cluster_authorized_operations: operations,
        ..DescribeClusterResponse::default()
    }
}

fn refused(error_code: ErrorCode, message: &str) -> DescribeClusterResponse {
    DescribeClusterResponse {
        error_code,
        error_message: Some(Str::from(message)),
        ..DescribeClusterResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::handlers::topology::tests::cluster;

    fn described(
        image: &Image,
        listener: &str,
        request: &DescribeClusterRequest,
    ) -> DescribeClusterResponse {
        let present = BTreeSet::from([1]);
        answer(image, 1, Standpoint { listener, present: &present }, request)
    }

    fn asked(endpoint_type: i8) -> DescribeClusterRequest {
        DescribeClusterRequest { endpoint_type, ..Default::default() }
    }

    #[test]
    fn brokers_of_the_clients_listener() {
        let (image, _) = cluster(&[]);
        let found = described(&image, "PLAINTEXT", &asked(1));
        assert_eq!((found.error_code, found.controller_id), (ErrorCode::NONE, 1));
        assert_eq!((found.brokers[0].broker_id, found.brokers[0].port), (1, 9092));
        assert_eq!(found.cluster_authorized_operations, i32::MIN);
        assert!(described(&image, "INSIDE", &asked(1)).brokers.is_empty());
        let with =
            DescribeClusterRequest { include_cluster_authorized_operations: true, ..asked(1) };
        assert_eq!(described(&image, "PLAINTEXT", &with).cluster_authorized_operations, 8096);
    }

    #[test]
    fn controllers_are_elsewhere_and_others_unknown() {
        let (image, _) = cluster(&[]);
        let controllers = described(&image, "PLAINTEXT", &asked(2));
        assert_eq!(controllers.error_code, ErrorCode::MISMATCHED_ENDPOINT_TYPE);
        assert_eq!((controllers.controller_id, controllers.brokers.len()), (-1, 0));
        let other = described(&image, "PLAINTEXT", &asked(9));
        assert_eq!(other.error_code, ErrorCode::UNSUPPORTED_ENDPOINT_TYPE);
        assert_eq!(other.error_message, Some(Str::from_static("Unsupported endpoint type 9")));
    }

    #[test]
    fn a_node_that_is_not_there_is_fenced() {
        let (image, _) = cluster(&[]);
        let nobody = BTreeSet::new();
        let from = Standpoint { listener: "PLAINTEXT", present: &nobody };
        assert_eq!(answer(&image, 1, from, &asked(1)).brokers, []);
        let all = DescribeClusterRequest { include_fenced_brokers: true, ..asked(1) };
        let found = answer(&image, 1, from, &all);
        assert_eq!((found.brokers[0].broker_id, found.brokers[0].is_fenced), (1, true));
    }
}
