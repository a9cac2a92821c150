//! `vltava cluster add`, `drain` and `remove`: each says what is wanted, and waits until it is so.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::messages::unregister_broker::UnregisterBrokerRequest;
use vltava_protocol::types::Str;

use super::command::{AddArguments, DrainArguments, RemoveArguments};
use super::status::shortened;
use super::view::{self, NodeView, View};
use crate::cli::error::CliError;
use crate::cli::output::tell;
use crate::cluster::node_settings::{ADDRESS, STATE};

/// In IncrementalAlterConfigs: a node; to set.
const NODE: i8 = 4;
const SET: i8 = 0;
/// How often is looked.
const PERIOD: Duration = Duration::from_millis(500);

/// How far something is.
pub(super) enum Stand {
    Done,
    /// What is waited for, as a person reads it.
    Waiting(String),
}

pub(super) fn add(arguments: &AddArguments) -> Result<(), CliError> {
    let (id, address) = (arguments.node.id, &arguments.node.address);
    let mut cluster = arguments.cluster.connect()?;
    refuse_unreachable(&cluster.retry(view::view)?)?;
    set(&mut cluster, id, ADDRESS, address, format!("adding node {id}"))?;
    if arguments.no_wait {
        tell(&format!("node {id} may join: start it with --peers naming this cluster's nodes"));
        return Ok(());
    }
    wait(&mut cluster, |view| {
        let known = view.nodes.get(&id);
        let is_member = view.nodes.get(&id).is_some_and(|node| !node.role.is_empty());
        Ok(match known {
            None => Stand::Waiting(format!("node {id} is not known yet")),
            Some(node) if node.state == "expected" => Stand::Waiting(format!(
                "waiting for node {id}: start it with --node-id {id}, and --peers naming it \
                 ({id}@{address}) and a node of this cluster"
            )),
            Some(node) if !node.is_present => {
                Stand::Waiting(format!("node {id} has registered, and is not there now"))
            }
            Some(_) if !is_member => Stand::Waiting(format!("node {id} follows group 0 next")),
            Some(_) => Stand::Done,
        })
    })?;
    tell(&format!("node {id} has joined"));
    if cluster.retry(view::view)?.nodes.len() == 2 {
        tell(
            "of two nodes both vote: while either is down nothing can be decided, and what both \
             keep cannot be written; go on to three",
        );
    }
    Ok(())
}

/// A node that was started as one that is alone listens for no others: nobody could join it.
fn refuse_unreachable(view: &View) -> Result<(), CliError> {
    let mut alone = view.nodes.values().filter(|node| node.peer_address.is_empty());
    match alone.next().map(|node| node.id) {
        None => Ok(()),
        Some(id) => Err(CliError::new(format!("node {id} listens for no other nodes")).with_hint(
            format!("Start it again with --peers {id}@HOST:PORT first: naming itself."),
        )),
    }
}

pub(super) fn drain(arguments: &DrainArguments) -> Result<(), CliError> {
    let id = arguments.node;
    let mut cluster = arguments.cluster.connect()?;
    if arguments.undo {
        set(&mut cluster, id, STATE, "there", format!("taking node {id} back"))?;
        tell(&format!("node {id} may lead again"));
        return Ok(());
    }
    set(&mut cluster, id, STATE, "draining", format!("draining node {id}"))?;
    if arguments.no_wait {
        return Ok(());
    }
    let left = RefCell::new(Vec::new());
    wait(&mut cluster, |view| {
        let node = node(view, id)?;
        left.replace(node.leads_alone.clone());
        Ok(drained(view, node))
    })?;
    tell(&match left.take() {
        left if left.is_empty() => {
            format!("node {id} leads nothing: it can be stopped. When it is back it leads again")
        }
        left => format!(
            "node {id} leads only what no other node keeps: {}. It can be stopped; until it is \
             back, that can be neither written nor read",
            shortened(&left)
        ),
    });
    Ok(())
}

/// Whether a node leads nothing any more that another could. What no other keeps stays with it.
fn drained(view: &View, node: &NodeView) -> Stand {
    let id = node.id;
    let has_other_voter = view.quorum.voters.iter().any(|voter| *voter != id);
    let group_0 = view.quorum.leader == Some(id) && has_other_voter;
    let leads = node.leads - node.leads_alone.len() + usize::from(group_0);
    if leads == 0 || !node.is_present {
        return Stand::Done;
    }
    let ahead = &node.leads_ahead;
    Stand::Waiting(match ahead.is_empty() {
        true => format!("node {id} leads {leads}"),
        false => {
            format!("node {id} leads {leads}; no other replica is in sync of {}", shortened(ahead))
        }
    })
}

pub(super) fn remove(arguments: &RemoveArguments) -> Result<(), CliError> {
    let id = arguments.node;
    let mut cluster = arguments.cluster.connect()?;
    let known = cluster.retry(view::view)?;
    let Some(found) = known.nodes.get(&id) else {
        // Said again, by who does not know that it was done.
        tell(&format!("there is no node {id} in the cluster: nothing is to be done"));
        return Ok(());
    };
    if found.state == "expected" {
        unregister(&mut cluster, id)?;
        tell(&format!("node {id} is not expected any more"));
        return Ok(());
    }
    let value = if arguments.fewer_replicas { "removing-with-fewer-replicas" } else { "removing" };
    let removed = set(&mut cluster, id, STATE, value, format!("removing node {id}"));
    removed.map_err(|error| match error.message().contains("nodes would be left") {
        true => error.with_hint("`vltava cluster remove --fewer-replicas` keeps fewer of them."),
        false => error,
    })?;
    if arguments.no_wait {
        return Ok(());
    }
    wait(&mut cluster, |view| {
        let Some(node) = view.nodes.get(&id) else { return Ok(Stand::Done) };
        if node.state != "removing" {
            let message = format!("somebody has taken node {id} back: it is {}", node.state);
            return Err(CliError::new(message));
        }
        Ok(Stand::Waiting(match (leading(view, node), node.replicas) {
            (0, 0) => format!("node {id} leaves group 0"),
            (0, replicas) => format!("node {id} keeps {replicas} replicas"),
            (leads, replicas) => format!("node {id} leads {leads}, and keeps {replicas} replicas"),
        }))
    })?;
    tell(&format!("node {id} has left the cluster: it can be stopped, and its disk wiped"));
    Ok(())
}

/// Partitions that a node leads, with group 0.
fn leading(view: &View, node: &NodeView) -> usize {
    node.leads + usize::from(view.quorum.leader == Some(node.id))
}

fn node(view: &View, id: i32) -> Result<&NodeView, CliError> {
    let known = view.nodes.get(&id);
    known.ok_or_else(|| {
        CliError::new(format!("there is no node {id}"))
            .with_hint("`vltava cluster status` shows them.")
    })
}

/// Says what is wanted of a node.
fn set(
    cluster: &mut Cluster,
    id: i32,
    name: &'static str,
    value: &str,
    what: String,
) -> Result<(), CliError> {
    let config = AlterableConfig {
        name: Str::from_static(name),
        config_operation: SET,
        value: Some(Str::from(value)),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: NODE,
            resource_name: Str::from(id.to_string()),
            configs: vec![config],
        }],
        validate_only: false,
    };
    cluster.retry(|cluster| {
        let response = cluster.call_any(&request)?;
        let Some(answer) = response.responses.into_iter().next() else {
            return Err(ClientError::Missing(what.clone()));
        };
        ClientError::check(answer.error_code, answer.error_message.as_ref(), what.clone())
    })?;
    Ok(())
}

fn unregister(cluster: &mut Cluster, id: i32) -> Result<(), CliError> {
    let request = UnregisterBrokerRequest { broker_id: id };
    cluster.retry(|cluster| {
        let response = cluster.call_any(&request)?;
        let what = format!("unregistering node {id}");
        ClientError::check(response.error_code, response.error_message.as_ref(), what)
    })?;
    Ok(())
}

/// Looks until it is done, for as long as that takes; says what is waited for whenever that is
/// something else.
pub(super) fn wait(
    cluster: &mut Cluster,
    look: impl Fn(&View) -> Result<Stand, CliError>,
) -> Result<(), CliError> {
    let is_terminal = std::io::stderr().is_terminal();
    let mut said = String::new();
    loop {
        let view = cluster.retry(view::view)?;
        match look(&view)? {
            Stand::Done => return Ok(()),
            Stand::Waiting(what) if what != said => {
                // A person sees each line; a log of a script does, too.
                let moving = view.moving.len();
                let more = if moving > 0 { format!(" ({moving} moving)") } else { String::new() };
                tell(&format!("{}{what}{more}", if is_terminal { "... " } else { "" }));
                said = what;
            }
            Stand::Waiting(_) => {}
        }
        thread::sleep(PERIOD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cluster::view::QuorumView;

    #[test]
    fn a_node_is_drained_where_it_leads_only_what_no_other_keeps() {
        let quorum = |leader, voters: &[i32]| QuorumView {
            leader: Some(leader),
            voters: voters.to_vec(),
            ..QuorumView::default()
        };
        let alone = vec!["one-0".to_owned(), "one-1".to_owned()];
        let waits_for = |view: &View, node: &NodeView| match drained(view, node) {
            Stand::Done => None,
            Stand::Waiting(what) => Some(what),
        };
        let mut node = NodeView {
            id: 1,
            is_present: true,
            leads: 3,
            leads_alone: alone,
            leads_ahead: vec!["two-0".to_owned()],
            ..NodeView::default()
        };
        let mut view = View { quorum: quorum(2, &[1, 2, 3]), ..View::default() };
        let words = "node 1 leads 1; no other replica is in sync of two-0";
        assert_eq!(waits_for(&view, &node).as_deref(), Some(words));
        (node.leads, node.leads_ahead) = (2, Vec::new());
        assert_eq!(waits_for(&view, &node), None);
        view.quorum = quorum(1, &[1, 2, 3]);
        assert_eq!(waits_for(&view, &node).as_deref(), Some("node 1 leads 1"), "group 0");
        view.quorum = quorum(1, &[1]);
        assert_eq!(waits_for(&view, &node), None, "group 0 has nowhere to go");
        (node.leads, node.is_present) = (9, false);
        assert_eq!(waits_for(&view, &node), None, "it is gone");
    }
}
