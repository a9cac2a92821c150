//! How nodes that have never been in a cluster come to be in one. Pure.
//!
//! A cluster forms once, when every node of `peers` is there and none has been in a cluster: the
//! one with the lowest id makes the cluster's id and writes down who founded it, before it tells
//! anybody. Whoever meets a node that is in a cluster joins that one. A founder is a disk, not a
//! number: a node whose disk was wiped since is none, and gets its vote from those that have one.

use std::collections::BTreeMap;

use vltava_protocol::types::Uuid;

use super::identity::{Founder, Founding};

/// What a node says of itself before it is known to be in the same cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its disk.
    pub disk_id: Uuid,
    /// The cluster it is in, and who founded that.
    pub founding: Option<Founding>,
}

/// What a node that is in no cluster does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Waits for a word of these nodes.
    Wait(Vec<i32>),
    /// Forms a cluster of all: under an id that it makes.
    Form(Vec<Founder>),
    /// Belongs to this one from now on.
    Join(Founding),
}

/// What the node does, by what it has heard of the others that `peers` names.
///
/// # Errors
/// In words for a person, where the others are in different clusters.
pub fn decide(
    own: Founder,
    peers: &[i32],
    heard: &BTreeMap<i32, Standing>,
) -> Result<Decision, String> {
    let mut formed = heard.iter().filter_map(|(id, said)| Some((id, said.founding.as_ref()?)));
    if let Some((first, founding)) = formed.next() {
        if let Some((other, its)) = formed.find(|(_, its)| its.cluster_id != founding.cluster_id) {
            return Err(format!(
                "node {first} is in cluster {}, and node {other} in cluster {}: peers names nodes \
                 of two clusters",
                founding.cluster_id, its.cluster_id
            ));
        }
        return Ok(Decision::Join(founding.clone()));
    }
    let others = || peers.iter().copied().filter(|id| *id != own.node_id);
    let missing: Vec<i32> = others().filter(|id| !heard.contains_key(id)).collect();
    if !missing.is_empty() {
        return Ok(Decision::Wait(missing));
    }
    match others().min() {
        Some(lowest) if lowest < own.node_id => Ok(Decision::Wait(vec![lowest])),
        _ => {
            let disk =
                |id| heard.get(&id).map(|said| Founder { node_id: id, disk_id: said.disk_id });
            let mut founders: Vec<Founder> = others().filter_map(disk).chain([own]).collect();
            founders.sort_unstable_by_key(|founder| founder.node_id);
            Ok(Decision::Form(founders))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const PEERS: [i32; 3] = [1, 2, 3];

    fn founder(node_id: i32) -> Founder {
        Founder { node_id, disk_id: Uuid(100 + u128::from(node_id.unsigned_abs())) }
    }

    fn founding(cluster: u128) -> Founding {
        Founding { cluster_id: Uuid(cluster), founders: PEERS.map(founder).to_vec() }
    }

    fn heard(said: &[(i32, Option<Founding>)]) -> BTreeMap<i32, Standing> {
        let standing = |(id, founding): &(i32, Option<Founding>)| {
            (*id, Standing { disk_id: founder(*id).disk_id, founding: founding.clone() })
        };
        said.iter().map(standing).collect()
    }

    fn decided(own: i32, said: &[(i32, Option<Founding>)]) -> Result<Decision, String> {
        decide(founder(own), &PEERS, &heard(said))
    }

    #[test]
    fn a_cluster_forms_when_all_are_there_and_by_the_lowest_only() {
        assert_eq!(decided(1, &[]), Ok(Decision::Wait(vec![2, 3])));
        assert_eq!(decided(1, &[(3, None)]), Ok(Decision::Wait(vec![2])));
        let all = PEERS.map(founder).to_vec();
        assert_eq!(decided(1, &[(2, None), (3, None)]), Ok(Decision::Form(all)));
        assert_eq!(decided(2, &[(1, None), (3, None)]), Ok(Decision::Wait(vec![1])));
        let alone = decide(founder(7), &[7], &BTreeMap::new());
        assert_eq!(alone, Ok(Decision::Form(vec![founder(7)])));
    }

    #[test]
    fn whoever_meets_a_cluster_joins_it_and_makes_none() {
        let of_2 = [(2, Some(founding(5))), (3, None)];
        assert_eq!(decided(1, &of_2), Ok(Decision::Join(founding(5))));
        assert_eq!(decided(3, &[(1, Some(founding(5)))]), Ok(Decision::Join(founding(5))));
    }

    #[test]
    fn nodes_of_two_clusters_are_refused() {
        let error = decided(1, &[(2, Some(founding(5))), (3, Some(founding(6)))]).unwrap_err();
        assert!(error.contains("node 2") && error.contains("node 3"), "{error}");
    }
}
