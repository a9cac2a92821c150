//! `vltava cluster balance`: moves replicas until the nodes have equally many, and waits until that
//! is done.

use std::collections::BTreeMap;
use std::io::Write;

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignablePartitionResponse,
    ReassignableTopic,
};
use vltava_protocol::types::Str;

use super::change::{Stand, wait};
use super::command::BalanceArguments;
use super::view::{self, View};
use crate::cli::error::CliError;
use crate::cli::output::{Output, tell};
use crate::cluster::placement::Candidate;
use crate::cluster::spread::spread;

const TIMEOUT_MS: i32 = 30_000;

/// A partition that moves.
struct Move {
    topic: Str,
    partition: i32,
    before: Vec<i32>,
    after: Vec<i32>,
}

impl Move {
    fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    /// The order alone takes no time.
    fn copies(&self) -> bool {
        self.after.iter().any(|id| !self.before.contains(id))
    }
}

pub(super) fn run(arguments: &BalanceArguments) -> Result<(), CliError> {
    let mut cluster = arguments.cluster.connect()?;
    let known = cluster.retry(view::view)?;
    if !known.moving.is_empty() && !arguments.dry_run {
        let message = format!("{} partitions are moving already", known.moving.len());
        let hint = "Wait until they are there: `vltava cluster status` shows them.";
        return Err(CliError::new(message).with_hint(hint));
    }
    let moves = planned(&cluster, &known);
    if arguments.dry_run {
        return show(&moves);
    }
    if moves.is_empty() {
        tell("replicas and leaders are spread evenly");
        return Ok(());
    }
    let (all, mut done) = (moves.len(), 0);
    for part in moves.chunks(arguments.at_a_time.into()) {
        alter(&mut cluster, part)?;
        let names: Vec<String> = part.iter().map(Move::name).collect();
        wait(&mut cluster, |view| {
            let moving = names.iter().filter(|name| view.moving.contains(name)).count();
            Ok(match moving {
                0 => Stand::Done,
                moving => {
                    let there = done + part.len() - moving;
                    Stand::Waiting(format!("{there} of {all} partitions are where they are to be"))
                }
            })
        })?;
        done += part.len();
    }
    tell(&format!(
        "{all} partitions have moved. Leaders go where they are preferred within some minutes; at \
         once with kafka-leader-election --election-type preferred --all-topic-partitions"
    ));
    Ok(())
}

/// What is to move: between nodes that are there to stay, of partitions that somebody leads and of
/// which nothing moves.
fn planned(cluster: &Cluster, known: &View) -> Vec<Move> {
    let takes_part = known.nodes.values().filter(|node| node.is_present && node.state == "there");
    let nodes: Vec<Candidate> = takes_part
        .map(|node| Candidate { id: node.id, rack: node.rack.as_deref().map(Str::from) })
        .collect();
    let mut all = Vec::new();
    for (topic, partitions) in &cluster.metadata().topics {
        for (partition, said) in &partitions.partitions {
            let named = format!("{topic}-{partition}");
            if said.leader.is_some() && !known.moving.contains(&named) {
                all.push((topic.clone(), *partition, said.replicas.clone()));
            }
        }
    }
    let before: Vec<Vec<i32>> = all.iter().map(|(_, _, replicas)| replicas.clone()).collect();
    let moves = spread(&nodes, &before).into_iter();
    let named = moves.map(|(at, after)| {
        let (topic, partition, before) = all[at].clone();
        Move { topic, partition, before, after }
    });
    named.collect()
}

fn show(moves: &[Move]) -> Result<(), CliError> {
    let mut output = Output::stdout();
    if moves.is_empty() {
        output.line("nothing would move: replicas and leaders are spread evenly")?;
        return Ok(output.flush()?);
    }
    let copied = moves.iter().filter(|it| it.copies()).count();
    output
        .line(&format!("{} partitions would change, of which {copied} are copied", moves.len()))?;
    output.line("")?;
    let numbers = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let row = |it: &Move| vec![it.name(), numbers(&it.before), numbers(&it.after)];
    output.table(&["PARTITION", "NODES", "BECOME"], &moves.iter().map(row).collect::<Vec<_>>())?;
    Ok(output.flush()?)
}

fn alter(cluster: &mut Cluster, moves: &[Move]) -> Result<(), CliError> {
    let mut topics: BTreeMap<Str, Vec<ReassignablePartition>> = BTreeMap::new();
    for Move { topic, partition, after, .. } in moves {
        let replicas = Some(after.clone());
        let moved = ReassignablePartition { partition_index: *partition, replicas };
        topics.entry(topic.clone()).or_default().push(moved);
    }
    let topics =
        topics.into_iter().map(|(name, partitions)| ReassignableTopic { name, partitions });
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms: TIMEOUT_MS,
        topics: topics.collect(),
        ..AlterPartitionReassignmentsRequest::default()
    };
    cluster.retry(|cluster| {
        let response = cluster.call_any(&request)?;
        let what = || "moving partitions".to_owned();
        ClientError::check(response.error_code, response.error_message.as_ref(), what())?;
        for topic in &response.responses {
            // What was deleted meanwhile need not move.
            let is_there = |it: &&ReassignablePartitionResponse| {
                it.error_code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            };
            for partition in topic.partitions.iter().filter(is_there) {
                let what = format!("moving {}-{}", topic.name, partition.partition_index);
                let message = partition.error_message.as_ref();
                ClientError::check(partition.error_code, message, what)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}
