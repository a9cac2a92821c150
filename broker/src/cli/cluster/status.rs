//! `vltava cluster status`.

use std::io::Write;

use super::command::StatusArguments;
use super::view::{self, NodeView, View};
use crate::cli::error::CliError;
use crate::cli::json::{self, Object};
use crate::cli::output::Output;
use crate::cli::progress::Progress;

/// Partitions that are named; the others are counted.
const NAMED_MAX: usize = 10;

pub(super) fn run(arguments: &StatusArguments) -> Result<(), CliError> {
    let view = {
        let _progress = Progress::start("asking the cluster");
        let mut cluster = arguments.cluster.connect()?;
        cluster.retry(view::view)?
    };
    let mut output = Output::stdout();
    match arguments.json {
        true => output.line(&as_json(&view))?,
        false => show(&mut output, &view)?,
    }
    Ok(output.flush()?)
}

fn show(output: &mut Output, view: &View) -> std::io::Result<()> {
    output.line(&format!("cluster     {}", view.id))?;
    let quorum = &view.quorum;
    let numbers = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
    let mut group = match quorum.leader {
        Some(leader) => format!("led by node {leader}, epoch {}", quorum.epoch),
        None => "has no leader: a majority of its voters is not there".to_owned(),
    };
    if !quorum.voters.is_empty() {
        group += &format!("; voters {}", numbers(&quorum.voters));
    }
    if !quorum.learners.is_empty() {
        group += &format!("; learners {}", numbers(&quorum.learners));
    }
    output.line(&format!("group 0     {group}"))?;
    output.line(&format!("partitions  {}", partitions(view)))?;
    for (what, named) in
        [("no leader", &view.offline), ("behind", &view.under_replicated), ("moving", &view.moving)]
    {
        if !named.is_empty() {
            output.line(&format!("{what:<11} {}", shortened(named)))?;
        }
    }
    output.line("")?;
    let head = [
        "NODE", "STATE", "LEADS", "REPLICAS", "GROUP 0", "CLIENTS", "NODES", "RACK", "SOFTWARE",
        "DISKS",
    ];
    output.table(&head, &view.nodes.values().map(row).collect::<Vec<_>>())
}

fn partitions(view: &View) -> String {
    let View { partitions, under_replicated, offline, moving, .. } = view;
    let parts = [
        (offline.len(), "without a leader"),
        (under_replicated.len(), "under-replicated"),
        (moving.len(), "moving"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    match parts.is_empty() {
        true => format!("{partitions}, all with all of their replicas"),
        false => format!("{partitions}, of which {}", parts.join(", ")),
    }
}

pub(super) fn shortened(named: &[String]) -> String {
    let shown = named.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(" ");
    match named.len().checked_sub(NAMED_MAX) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}

/// What a person reads of a node's state: that it is gone comes first.
fn state(node: &NodeView) -> String {
    match (node.is_present, node.state.as_str()) {
        (_, "expected") => "expected".to_owned(),
        (true, state) => state.to_owned(),
        (false, "there") => "gone".to_owned(),
        (false, state) => format!("gone, {state}"),
    }
}

fn row(node: &NodeView) -> Vec<String> {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    vec![
        node.id.to_string(),
        state(node),
        node.leads.to_string(),
        node.replicas.to_string(),
        or_dash(node.role),
        or_dash(&node.address),
        or_dash(&node.peer_address),
        or_dash(node.rack.as_deref().unwrap_or_default()),
        or_dash(&node.software),
        or_dash(&node.disks.join(" ")),
    ]
}

fn as_json(view: &View) -> String {
    let strings = |of: &[String]| json::array(of.iter().map(|text| json::string(text)));
    let nodes = view.nodes.values().map(|node| {
        Object::new()
            .raw("id", node.id)
            .text("state", &node.state)
            .raw("present", node.is_present)
            .raw("leads", node.leads)
            .raw("replicas", node.replicas)
            .text("group_0", node.role)
            .text("address", &node.address)
            .text("peer_address", &node.peer_address)
            .optional_text("rack", node.rack.as_deref())
            .text("software", &node.software)
            .raw("disks", strings(&node.disks))
            .finish()
    });
    let quorum = &view.quorum;
    let leader = quorum.leader.map_or("null".to_owned(), |leader| leader.to_string());
    let group_0 = Object::new()
        .raw("leader", leader)
        .raw("epoch", quorum.epoch)
        .raw("voters", json::array(&quorum.voters))
        .raw("learners", json::array(&quorum.learners));
    Object::new()
        .text("cluster", &view.id)
        .raw("group_0", group_0.finish())
        .raw("nodes", json::array(nodes))
        .raw("partitions", view.partitions)
        .raw("offline", strings(&view.offline))
        .raw("under_replicated", strings(&view.under_replicated))
        .raw("moving", strings(&view.moving))
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_first() {
        let mut view = View { partitions: 7, ..View::default() };
        assert_eq!(partitions(&view), "7, all with all of their replicas");
        view.under_replicated = vec!["t-0".to_owned(); 12];
        view.offline = vec!["u-1".to_owned()];
        assert_eq!(partitions(&view), "7, of which 1 without a leader, 12 under-replicated");
        assert!(shortened(&view.under_replicated).ends_with("t-0 and 2 more"));
        assert_eq!(shortened(&view.offline), "u-1");
    }

    #[test]
    fn a_nodes_state_in_words() {
        let node = |state: &str, is_present| NodeView {
            state: state.to_owned(),
            is_present,
            ..NodeView::default()
        };
        assert_eq!(state(&node("there", true)), "there");
        assert_eq!(state(&node("there", false)), "gone");
        assert_eq!(state(&node("removing", false)), "gone, removing");
        assert_eq!(state(&node("expected", false)), "expected");
    }

    #[test]
    fn json_is_one_line() {
        let node = NodeView { id: 4, state: "there".to_owned(), ..NodeView::default() };
        let view = View { nodes: [(4, node)].into(), ..View::default() };
        let text = as_json(&view);
        assert!(text.contains(r#""group_0":{"leader":null,"epoch":0,"voters":[],"learners":[]}"#));
        assert!(text.contains(r#""nodes":[{"id":4,"state":"there","present":false"#), "{text}");
    }
}
