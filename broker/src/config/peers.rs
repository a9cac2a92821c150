//! `peers`: the nodes that form a cluster, and where each of them listens for the others.

use std::collections::BTreeSet;

use super::check::InvalidValue;
use super::listeners;

/// The setting.
const PEERS: &str = "peers";

/// A node of the cluster, as `peers` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its `node.id`.
    pub node_id: i32,
    /// Host name or address at which it listens for other nodes (IPv6 without brackets).
    pub host: String,
    /// Port of the same.
    pub port: u16,
}

/// The nodes of `ID@HOST:PORT`, separated by commas, by their ids. This node is among them, each
/// stands there once, and no two at one address.
///
/// # Errors
/// [`InvalidValue::Value`], with what is wrong.
pub fn parse(text: &str, own: i32) -> Result<Vec<Peer>, InvalidValue> {
    let refused = |value: &str, reason: String| InvalidValue::new(PEERS, value, reason);
    let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
    let mut peers = elements.map(peer).collect::<Result<Vec<_>, _>>()?;
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for Peer { node_id, host, port } in &peers {
        if !ids.insert(node_id) {
            return Err(refused(text, format!("node {node_id} stands there twice")));
        }
        if !addresses.insert((host, port)) {
            return Err(refused(text, format!("two nodes have the address {host}:{port}")));
        }
    }
    if !ids.contains(&own) {
        let reason = format!("this node, {own} by node.id, is not among them");
        return Err(refused(text, reason));
    }
    peers.sort_unstable_by_key(|peer| peer.node_id);
    Ok(peers)
}

fn peer(element: &str) -> Result<Peer, InvalidValue> {
    let expected = || InvalidValue::new(PEERS, element, "expected ID@HOST:PORT");
    let (id, address) = element.split_once('@').ok_or_else(expected)?;
    let node_id = id.parse().ok().filter(|id| *id >= 0).ok_or_else(expected)?;
    let (host, port) = listeners::host_and_port(PEERS, address).map_err(|_| expected())?;
    let host = host.filter(|_| port > 0).ok_or_else(expected)?;
    Ok(Peer { node_id, host, port })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn nodes_stand_in_the_order_of_their_ids() {
        let peers = parse(" 3@c.example:7644, 1@10.0.0.1:7644,2@[::1]:7644", 2).unwrap();
        let found: Vec<_> = peers.iter().map(|p| (p.node_id, p.host.as_str(), p.port)).collect();
        assert_eq!(found, [(1, "10.0.0.1", 7644), (2, "::1", 7644), (3, "c.example", 7644)]);
    }

    #[test]
    fn what_cannot_be_a_cluster_is_refused() {
        let reasons = [
            ("1@a:1,1@b:1", "node 1 stands there twice"),
            ("1@a:1,2@a:1", "two nodes have the address a:1"),
            ("2@a:1", "this node, 1 by node.id, is not among them"),
            ("a:1", "expected ID@HOST:PORT"),
            ("-1@a:1", "expected ID@HOST:PORT"),
            ("1@:1", "expected ID@HOST:PORT"),
            ("1@a:0", "expected ID@HOST:PORT"),
            ("1@a", "expected ID@HOST:PORT"),
        ];
        for (text, reason) in reasons {
            assert_eq!(parse(text, 1).unwrap_err().reason(), reason, "{text}");
        }
    }
}
