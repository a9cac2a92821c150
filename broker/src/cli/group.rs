//! `vltava group`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use vltava_client::assignor::{PROTOCOL_TYPE, decode_assignment};
use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_client::metadata::TopicPartition;
use vltava_client::offsets::LATEST;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_groups::{
    DescribeGroupsRequest, DescribedGroup, DescribedGroupMember,
};
use vltava_protocol::messages::list_groups::{ListGroupsRequest, ListedGroup};
use vltava_protocol::types::Str;

use crate::cli::arguments::{ClusterArguments, name};
use crate::cli::error::CliError;
use crate::cli::json::{self, Object};
use crate::cli::output::Output;
use crate::cli::progress::Progress;

/// What to do with groups.
#[derive(Debug, clap::Subcommand)]
pub enum GroupCommand {
    /// List groups with their state
    List(ListArguments),
    /// Show groups: members, and committed offset and lag of each partition
    Describe(DescribeArguments),
}

/// `vltava group list`.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    /// Print JSON, one line for each group
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// `vltava group describe`.
#[derive(Debug, clap::Args)]
pub struct DescribeArguments {
    /// The ids of the groups
    #[arg(required = true, value_name = "GROUP", value_parser = name)]
    groups: Vec<String>,
    /// Print JSON, one line for each group
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Does it.
pub(super) fn run(command: GroupCommand) -> Result<(), CliError> {
    match command {
        GroupCommand::List(arguments) => list(&arguments),
        GroupCommand::Describe(arguments) => describe(&arguments),
    }
}

fn list(arguments: &ListArguments) -> Result<(), CliError> {
    let _progress = Progress::start("listing groups");
    let mut cluster = arguments.cluster.connect()?;
    // Each broker knows the groups that it coordinates.
    let nodes: Vec<i32> = cluster.metadata().brokers.keys().copied().collect();
    let mut groups: BTreeMap<Str, ListedGroup> = BTreeMap::new();
    for node in nodes {
        let listed = cluster.retry(|cluster| {
            let response = cluster.call(node, &ListGroupsRequest::default())?;
            ClientError::check(response.error_code, None, "listing groups")?;
            Ok(response.groups)
        })?;
        groups.extend(listed.into_iter().map(|group| (group.group_id.clone(), group)));
    }
    let mut output = Output::stdout();
    if arguments.json {
        for group in groups.values() {
            let object = Object::new()
                .text("group", &group.group_id)
                .text("state", &group.group_state)
                .text("type", &group.group_type)
                .text("protocol_type", &group.protocol_type);
            output.line(&object.finish())?;
        }
    } else {
        let cells = |group: &ListedGroup| {
            let cells =
                [&group.group_id, &group.group_state, &group.group_type, &group.protocol_type];
            cells.map(|cell| or_dash(cell)).to_vec()
        };
        let rows: Vec<Vec<String>> = groups.values().map(cells).collect();
        output.table(&["GROUP", "STATE", "TYPE", "PROTOCOL TYPE"], &rows)?;
    }
    Ok(output.flush()?)
}

/// How far a group is in a partition.
struct Progressed {
    partition: TopicPartition,
    committed: Option<i64>,
    end: Option<i64>,
    member: Option<usize>,
}

impl Progressed {
    fn lag(&self) -> Option<i64> {
        Some(self.end?.saturating_sub(self.committed?).max(0))
    }
}

fn describe(arguments: &DescribeArguments) -> Result<(), CliError> {
    let _progress = Progress::start("describing groups");
    let mut cluster = arguments.cluster.connect()?;
    let mut output = Output::stdout();
    for (index, name) in arguments.groups.iter().enumerate() {
        let name = Str::from(name.as_str());
        let group = cluster.retry(|cluster| describe_one(cluster, &name))?;
        let positions = positions_of(&mut cluster, &group)?;
        // Kafka says so of a group that it has never heard of, in versions that have no error for
        // it.
        if group.group_state == "Dead" && positions.is_empty() {
            return Err(missing(&name));
        }
        if arguments.json {
            output.line(&as_json(&group, &positions))?;
            continue;
        }
        if index > 0 {
            output.line("")?;
        }
        show(&mut output, &group, &positions)?;
    }
    Ok(output.flush()?)
}

fn missing(name: &Str) -> CliError {
    CliError::new(format!("group {name} does not exist"))
        .with_hint("`vltava group list` shows what there is.")
}

fn describe_one(cluster: &mut Cluster, name: &Str) -> Result<DescribedGroup, ClientError> {
    let node = cluster.coordinator(name)?;
    let request =
        DescribeGroupsRequest { groups: vec![name.clone()], ..DescribeGroupsRequest::default() };
    let response = cluster.call(node, &request)?;
    let described = response.groups.into_iter().next();
    let described = described.ok_or_else(|| ClientError::Missing(format!("group {name}")))?;
    if described.error_code == ErrorCode::GROUP_ID_NOT_FOUND {
        return Err(ClientError::Missing(format!("group {name}")));
    }
    if described.error_code == ErrorCode::NOT_COORDINATOR {
        cluster.forget_coordinator(name);
    }
    let what = format!("describing group {name}");
    ClientError::check(described.error_code, described.error_message.as_ref(), what)?;
    Ok(described)
}

fn assignment_of(group: &DescribedGroup, member: &DescribedGroupMember) -> Vec<TopicPartition> {
    if group.protocol_type != PROTOCOL_TYPE {
        return Vec::new();
    }
    // What a member of another client put there is its own affair.
    decode_assignment(&member.member_assignment).unwrap_or_default()
}

fn positions_of(
    cluster: &mut Cluster,
    group: &DescribedGroup,
) -> Result<Vec<Progressed>, ClientError> {
    // Answers name topics by id: all must be known.
    cluster.refresh(None, false)?;
    let committed = cluster.committed_offsets(&group.group_id, None)?;
    let mut owners: BTreeMap<TopicPartition, usize> = BTreeMap::new();
    for (index, member) in group.members.iter().enumerate() {
        owners.extend(assignment_of(group, member).into_iter().map(|partition| (partition, index)));
    }
    let all: BTreeSet<TopicPartition> = committed.keys().chain(owners.keys()).cloned().collect();
    let led: Vec<(TopicPartition, i64)> = all
        .iter()
        .filter(|partition| cluster.metadata().leader(partition).is_some())
        .map(|partition| (partition.clone(), LATEST))
        .collect();
    let ends = cluster.list_offsets(&led)?;
    let progressed = all.into_iter().map(|partition| Progressed {
        committed: committed.get(&partition).copied(),
        end: ends.get(&partition).copied(),
        member: owners.get(&partition).copied(),
        partition,
    });
    Ok(progressed.collect())
}

fn show(
    output: &mut Output,
    group: &DescribedGroup,
    positions: &[Progressed],
) -> Result<(), CliError> {
    output.line(&format!("group     {}", group.group_id))?;
    output.line(&format!("state     {}", group.group_state))?;
    output.line(&format!("protocol  {}", or_dash(&group.protocol_data)))?;
    if !group.members.is_empty() {
        let member = |member: &DescribedGroupMember| {
            let partitions = assignment_of(group, member).len();
            vec![
                member.client_id.to_string(),
                member.client_host.to_string(),
                partitions.to_string(),
                member.member_id.to_string(),
            ]
        };
        let rows: Vec<Vec<String>> = group.members.iter().map(member).collect();
        output.line("")?;
        output.table(&["CLIENT", "HOST", "PARTITIONS", "MEMBER"], &rows)?;
    }
    if !positions.is_empty() {
        let number = |number: Option<i64>| number.map_or(String::from("-"), |n| n.to_string());
        let position = |at: &Progressed| {
            let member = at.member.and_then(|index| group.members.get(index));
            vec![
                at.partition.topic.to_string(),
                at.partition.partition.to_string(),
                number(at.committed),
                number(at.end),
                number(at.lag()),
                or_dash(member.map_or("", |member| member.member_id.as_str())),
            ]
        };
        let rows: Vec<Vec<String>> = positions.iter().map(position).collect();
        output.line("")?;
        let head = ["TOPIC", "PARTITION", "COMMITTED", "END OFFSET", "LAG", "MEMBER"];
        output.table(&head, &rows)?;
    }
    Ok(())
}

fn as_json(group: &DescribedGroup, positions: &[Progressed]) -> String {
    let number = |number: Option<i64>| number.map_or(String::from("null"), |n| n.to_string());
    let members = group.members.iter().map(|member| {
        let instance = member.group_instance_id.as_ref().map(|id| id.as_str());
        Object::new()
            .text("member", &member.member_id)
            .optional_text("instance", instance)
            .text("client", &member.client_id)
            .text("host", &member.client_host)
            .finish()
    });
    let positions = positions.iter().map(|at| {
        let member = at.member.and_then(|index| group.members.get(index));
        Object::new()
            .text("topic", &at.partition.topic)
            .raw("partition", at.partition.partition)
            .raw("committed", number(at.committed))
            .raw("end_offset", number(at.end))
            .raw("lag", number(at.lag()))
            .optional_text("member", member.map(|member| member.member_id.as_str()))
            .finish()
    });
    Object::new()
        .text("group", &group.group_id)
        .text("state", &group.group_state)
        .text("protocol_type", &group.protocol_type)
        .text("protocol", &group.protocol_data)
        .raw("members", json::array(members))
        .raw("partitions", json::array(positions))
        .finish()
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { String::from("-") } else { text.to_owned() }
}
