//! `vltava cluster recover`: where nodes are gone for good, and a majority with them. First the
//! cluster's metadata, asked of the admin port of a node that is left; then the partitions, each by
//! an election without a majority (ElectLeaders). Says what will be done, and asks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use vltava_protocol::types::Str;

use super::command::RecoverArguments;
use super::view::{self, View};
use crate::admin::pages::CLUSTER;
use crate::cli::error::CliError;
use crate::cli::output::tell;

/// In ElectLeaders.
const UNCLEAN: i8 = 1;
/// How long elections of one step may take.
const ELECTION_TIME_MS: i32 = 20_000;
/// Partitions of one step.
const STEP: usize = 100;
/// How often is looked, and how often, whether what can be elected by itself was.
const PERIOD: Duration = Duration::from_millis(250);
const LOOKS: u32 = 20;
/// How long the admin port may take.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Partitions that are named; the others are counted.
const NAMED_MAX: usize = 20;

pub(super) fn run(arguments: &RecoverArguments) -> Result<(), CliError> {
    let gone: BTreeSet<i32> = arguments.gone.iter().copied().collect();
    // Without a majority a node that has just started may serve no clients yet.
    if let Ok(cluster) = arguments.cluster.connect() {
        check_same(arguments, &cluster)?;
    }
    recover_metadata(arguments, &gone)?;
    let mut cluster = arguments.cluster.connect()?;
    check_same(arguments, &cluster)?;
    recover_partitions(arguments, &gone, &mut cluster)?;
    tell(&format!(
        "next: the cluster still counts {}. Start each of them with an empty data directory, or \
         take it out: vltava cluster remove NODE",
        listed(&gone)
    ));
    Ok(())
}

/// That what is asked of an admin port, and what of brokers, is asked of one cluster.
fn check_same(arguments: &RecoverArguments, cluster: &Cluster) -> Result<(), CliError> {
    let (status, there) = ask_admin(&arguments.admin, "GET", CLUSTER)
        .map_err(|error| unreachable(arguments, error))?;
    let here = cluster.metadata().cluster_id.as_deref().unwrap_or_default();
    if status == 200 && there != here {
        let message = format!(
            "the admin port {} is of cluster {there}, and the brokers are of cluster {here}",
            arguments.admin
        );
        return Err(CliError::new(message)
            .with_hint("Name one node by both --admin and --bootstrap, one that is left."));
    }
    Ok(())
}

fn unreachable(arguments: &RecoverArguments, error: io::Error) -> CliError {
    CliError::new(format!("the admin port {} does not answer: {error}", arguments.admin))
        .with_hint("Run it on a node that is left, or name its admin port with --admin.")
}

/// Group 0, where it has no majority.
fn recover_metadata(arguments: &RecoverArguments, gone: &BTreeSet<i32>) -> Result<(), CliError> {
    let nodes: Vec<String> = gone.iter().map(i32::to_string).collect();
    let path = format!("/recover/{}", nodes.join(","));
    let unreachable = |error| unreachable(arguments, error);
    match ask_admin(&arguments.admin, "GET", &path).map_err(unreachable)? {
        (200, plan) => {
            tell(&plan);
            confirm(arguments, "Recover the cluster's metadata?")?;
        }
        // It has a leader.
        (404, _) => return Ok(()),
        (_, why) => return Err(CliError::new(why)),
    }
    match ask_admin(&arguments.admin, "POST", &path).map_err(unreachable)? {
        (200 | 404, _) => {
            tell("the cluster's metadata has a leader again");
            Ok(())
        }
        (_, why) => Err(CliError::new(why)),
    }
}

/// The partitions of which a majority is gone.
fn recover_partitions(
    arguments: &RecoverArguments,
    gone: &BTreeSet<i32>,
    cluster: &mut Cluster,
) -> Result<(), CliError> {
    let offline = offline(cluster, gone)?;
    let Offline { nobody_left, others_missing, left } = &offline;
    if !nobody_left.is_empty() {
        tell(&format!(
            "lost altogether, since {} kept all replicas: {} (delete the topics, and \
             make them anew)",
            listed(gone),
            shortened(nobody_left)
        ));
    }
    if !others_missing.is_empty() {
        tell(&format!(
            "left alone, since other nodes that kept them are not there either: {}",
            shortened(others_missing)
        ));
    }
    if left.is_empty() {
        tell("no partition is to be given a leader");
        return Ok(());
    }
    tell(&format!(
        "{} partitions have no leader: {}",
        left.len(),
        shortened(
            &left.iter().map(|(topic, index)| format!("{topic}-{index}")).collect::<Vec<_>>()
        )
    ));
    tell(&format!(
        "of each the replica that is left and has most will lead; lost: records that only {} \
         had",
        listed(gone)
    ));
    confirm(arguments, "Give them leaders?")?;
    let mut failed = Vec::new();
    for (done, step) in left.chunks(STEP).enumerate() {
        failed.extend(elect(cluster, step)?);
        let done = (done * STEP + step.len()).min(left.len());
        tell(&format!("{} of {} partitions have a leader", done - failed.len(), left.len()));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(CliError::new(format!("no leader yet: {}", shortened(&failed)))),
    }
}

/// Partitions without a leader.
#[derive(Default)]
struct Offline {
    /// Of no replica is the node left.
    nobody_left: Vec<String>,
    /// Nodes are missing that were not named.
    others_missing: Vec<String>,
    /// What is left of these can lead.
    left: Vec<(Str, i32)>,
}

/// What has no leader, once those have one that elect it by themselves.
fn offline(cluster: &mut Cluster, gone: &BTreeSet<i32>) -> Result<Offline, CliError> {
    let mut before = usize::MAX;
    for look in 0.. {
        let view = cluster.retry(view::view)?;
        let present = |id: &i32| view.nodes.get(id).is_some_and(|node| node.is_present);
        // Who controls the cluster since a moment ago takes all for there until it has looked.
        if let Some(there) = gone.iter().find(|id| present(id)) {
            if look < LOOKS {
                thread::sleep(PERIOD);
                continue;
            }
            return Err(CliError::new(format!("node {there} is there: it is not gone")).with_hint(
                "Where it was started again with an empty disk, stop it until this is done.",
            ));
        }
        // A cluster that has just got a controller elects leaders in the next moments, and who led
        // before is told for a moment longer.
        let is_at_rest = view.quorum.leader.is_some() && view.offline.len() >= before;
        let is_settled = view.offline.is_empty() || is_at_rest;
        if look >= LOOKS || is_settled && look >= LOOKS / 2 {
            return Ok(sorted_out(cluster, &view, gone));
        }
        before = view.offline.len();
        thread::sleep(PERIOD);
    }
    Ok(Offline::default())
}

fn sorted_out(cluster: &Cluster, view: &View, gone: &BTreeSet<i32>) -> Offline {
    let mut offline = Offline::default();
    let is_present = |id: &i32| view.nodes.get(id).is_some_and(|node| node.is_present);
    for (name, topic) in &cluster.metadata().topics {
        for (index, partition) in &topic.partitions {
            if partition.leader.is_some() {
                continue;
            }
            let named = format!("{name}-{index}");
            let mut replicas = partition.replicas.iter();
            if partition.replicas.iter().all(|id| gone.contains(id)) {
                offline.nobody_left.push(named);
            } else if !replicas.all(|id| is_present(id) || gone.contains(id)) {
                offline.others_missing.push(named);
            } else {
                offline.left.push((name.clone(), *index));
            }
        }
    }
    offline
}

/// Those that have no leader afterwards, with the reason.
fn elect(cluster: &mut Cluster, partitions: &[(Str, i32)]) -> Result<Vec<String>, CliError> {
    let mut topics: BTreeMap<Str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in partitions {
        topics.entry(topic.clone()).or_default().push(*index);
    }
    let asked = topics.into_iter().map(|(topic, partitions)| TopicPartitions { topic, partitions });
    let request = ElectLeadersRequest {
        election_type: UNCLEAN,
        topic_partitions: Some(asked.collect()),
        timeout_ms: ELECTION_TIME_MS,
    };
    let response = cluster.retry(|cluster| {
        let response = cluster.call_any(&request)?;
        ClientError::check(response.error_code, None, "electing leaders".to_owned())?;
        Ok::<_, ClientError>(response)
    })?;
    let failed = response.replica_election_results.iter().flat_map(|topic| {
        let is_failed = |code: ErrorCode| !code.is_none() && code != ErrorCode::ELECTION_NOT_NEEDED;
        let failed = topic.partition_result.iter().filter(move |it| is_failed(it.error_code));
        failed.map(|it| {
            let why = it.error_message.as_deref().unwrap_or(it.error_code.message());
            format!("{}-{} ({why})", topic.topic, it.partition_id)
        })
    });
    Ok(failed.collect())
}

/// Asks whoever sits there, unless nobody is to be asked.
fn confirm(arguments: &RecoverArguments, question: &str) -> Result<(), CliError> {
    if arguments.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::new("nobody is there to be asked").with_hint("Say --yes."));
    }
    let mut errors = io::stderr();
    // Where it cannot be shown, nobody answers yes.
    let _shown = write!(errors, "{question} Type yes to go on: ").and_then(|()| errors.flush());
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(CliError::new("nothing more was done")),
    }
}

/// The status, and what was said.
fn ask_admin(address: &str, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let said = answer.split_once("\r\n\r\n").map_or("", |(_, said)| said);
    Ok((status, said.trim_end().to_owned()))
}

/// "node 2", or "nodes 2, 3".
fn listed(nodes: &BTreeSet<i32>) -> String {
    let numbers = nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    if nodes.len() == 1 { format!("node {numbers}") } else { format!("nodes {numbers}") }
}

fn shortened(named: &[String]) -> String {
    let shown = named.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match named.len().checked_sub(NAMED_MAX) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}
