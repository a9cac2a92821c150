//! `vltava topic`.

use std::time::Duration;

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_client::metadata::{Topic, TopicPartition};
use vltava_client::offsets::{EARLIEST, LATEST};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use vltava_protocol::types::Str;

use crate::cli::arguments::{ClusterArguments, Pair, at_least_one, name};
use crate::cli::error::CliError;
use crate::cli::json::{self, Object};
use crate::cli::output::{Output, tell};
use crate::cli::progress::Progress;
use crate::config::definitions::{nearest, topic_setting, topic_settings};

/// In DescribeConfigs: a topic.
const RESOURCE_TOPIC: i8 = 2;
/// In DescribeConfigs: a value that was set for the topic itself.
const SOURCE_TOPIC: i8 = 1;
/// From this version on, DeleteTopics has a list of names or ids.
const DELETE_TOPICS_STATES: i16 = 6;
const TIMEOUT_MS_MAX: i32 = 30_000;
/// How long `describe` waits for leaders that are just being elected.
const ELECTION: Duration = Duration::from_secs(1);
/// For whoever names a topic that there is not, and has no use for one.
const LIST_TOPICS: &str = "`vltava topic list` shows what there is.";

/// Two replicas are a majority only together.
const OF_TWO: &str = "warning: a topic of two replicas is unavailable while either of their nodes \
                      is down; three go on with any two";

/// What to do with topics.
#[derive(Debug, clap::Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    Create(CreateArguments),
    /// List topics with their partitions and replication factor
    List(ListArguments),
    /// Show topics: their own settings, and each partition's leader, replicas and offsets
    Describe(DescribeArguments),
    /// Delete topics with all their records
    Delete(DeleteArguments),
}

/// `vltava topic create`.
#[derive(Debug, clap::Args)]
pub struct CreateArguments {
    /// The topic's name
    #[arg(value_name = "TOPIC", value_parser = name)]
    name: String,
    /// How many partitions [default: the broker's num.partitions]
    #[arg(long, short, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = at_least_one::<i32>)]
    partitions: Option<i32>,
    /// How many replicas of each partition [default: the broker's default.replication.factor]
    #[arg(long, short, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = at_least_one::<i16>)]
    replication_factor: Option<i16>,
    /// A setting of the topic, such as retention.ms=86400000; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    config: Vec<Pair>,
    /// Do nothing, and succeed, where the topic exists already
    #[arg(long)]
    if_not_exists: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// `vltava topic list`.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    /// Also list the brokers' own topics, such as __consumer_offsets
    #[arg(long)]
    internal: bool,
    /// Print JSON, one line for each topic
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// `vltava topic describe`.
#[derive(Debug, clap::Args)]
pub struct DescribeArguments {
    /// The topics' names
    #[arg(required = true, value_name = "TOPIC", value_parser = name)]
    names: Vec<String>,
    /// Print JSON, one line for each topic
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// `vltava topic delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArguments {
    /// The topics' names
    #[arg(required = true, value_name = "TOPIC", value_parser = name)]
    names: Vec<String>,
    /// Do nothing, and succeed, where a topic does not exist
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Does it.
pub(super) fn run(command: TopicCommand) -> Result<(), CliError> {
    match command {
        TopicCommand::Create(arguments) => create(&arguments),
        TopicCommand::List(arguments) => list(&arguments),
        TopicCommand::Describe(arguments) => describe(&arguments),
        TopicCommand::Delete(arguments) => delete(&arguments),
    }
}

fn create(arguments: &CreateArguments) -> Result<(), CliError> {
    let _progress = Progress::start(format!("creating topic {}", arguments.name));
    let mut cluster = arguments.cluster.connect()?;
    let configs = arguments.config.iter().map(|pair| CreatableTopicConfig {
        name: Str::from(pair.name.as_str()),
        value: Some(Str::from(pair.value.as_str())),
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Str::from(arguments.name.as_str()),
            num_partitions: arguments.partitions.unwrap_or(-1),
            replication_factor: arguments.replication_factor.unwrap_or(-1),
            configs: configs.collect(),
            ..CreatableTopic::default()
        }],
        timeout_ms: request_timeout_ms(&arguments.cluster),
        ..CreateTopicsRequest::default()
    };
    let what = format!("creating topic {}", arguments.name);
    // By an attempt of which nothing was heard.
    let mut is_perhaps_done = false;
    let created = cluster.retry(|cluster| {
        let response = cluster.call_controller(&request).inspect_err(|error| {
            is_perhaps_done |= !matches!(error, ClientError::NoBroker(_));
        })?;
        let Some(topic) = response.topics.into_iter().next() else {
            return Err(ClientError::Missing(what.clone()));
        };
        let is_fine = arguments.if_not_exists || is_perhaps_done;
        if is_fine && topic.error_code == ErrorCode::TOPIC_ALREADY_EXISTS {
            return Ok(None);
        }
        is_perhaps_done |= topic.error_code == ErrorCode::REQUEST_TIMED_OUT;
        ClientError::check(topic.error_code, topic.error_message.as_ref(), what.clone())?;
        Ok(Some(topic))
    });
    let created = created.map_err(|error| match unknown_setting(&arguments.config) {
        Some(hint) if is_refused(&error, ErrorCode::INVALID_CONFIG) => {
            CliError::from(error).with_hint(hint)
        }
        _ => error.into(),
    })?;
    if created.as_ref().is_some_and(|topic| topic.replication_factor == 2) {
        tell(OF_TWO);
    }
    let mut output = Output::stdout();
    match created {
        None if arguments.json => output
            .line(&Object::new().text("topic", &arguments.name).raw("created", false).finish())?,
        None => output.line(&format!("topic {} exists already", arguments.name))?,
        Some(topic) if arguments.json => {
            let object = Object::new()
                .text("topic", &topic.name)
                .raw("created", true)
                .text("id", &topic.topic_id.to_string())
                .raw("partitions", topic.num_partitions)
                .raw("replication_factor", topic.replication_factor);
            output.line(&object.finish())?;
        }
        // A broker below version 5 does not say how many it made.
        Some(topic) if topic.num_partitions < 0 => {
            output.line(&format!("created topic {}", topic.name))?;
        }
        Some(topic) => output.line(&format!(
            "created topic {}: partitions {}, replication factor {}",
            topic.name, topic.num_partitions, topic.replication_factor
        ))?,
    }
    Ok(std::io::Write::flush(&mut output)?)
}

fn is_refused(error: &ClientError, why: ErrorCode) -> bool {
    matches!(error, ClientError::Broker { code, .. } if *code == why)
}

/// What a name that is no setting of a topic may have meant.
fn unknown_setting(given: &[Pair]) -> Option<String> {
    let unknown = given.iter().find(|pair| topic_setting(&pair.name).is_none())?;
    let names = topic_settings().map(|definition| definition.name);
    let nearest = nearest(&unknown.name, names)?;
    Some(format!("Did you mean {nearest}? `vltava config` lists the settings of topics."))
}

fn list(arguments: &ListArguments) -> Result<(), CliError> {
    let _progress = Progress::start("listing topics");
    let mut cluster = arguments.cluster.connect()?;
    cluster.refresh(None, false)?;
    let topics = cluster.metadata().topics.iter();
    let shown = topics.filter(|(_, topic)| arguments.internal || !topic.is_internal);
    let mut output = Output::stdout();
    if arguments.json {
        for (name, topic) in shown {
            let object = Object::new()
                .text("topic", name)
                .text("id", &topic.id.to_string())
                .raw("partitions", topic.partitions.len())
                .raw("replication_factor", replication_factor(topic))
                .raw("internal", topic.is_internal);
            output.line(&object.finish())?;
        }
    } else {
        let row = |(name, topic): (&Str, &Topic)| {
            let partitions = topic.partitions.len().to_string();
            vec![name.to_string(), partitions, replication_factor(topic).to_string()]
        };
        let rows: Vec<_> = shown.map(row).collect();
        output.table(&["TOPIC", "PARTITIONS", "REPLICATION"], &rows)?;
    }
    Ok(std::io::Write::flush(&mut output)?)
}

fn replication_factor(topic: &Topic) -> usize {
    topic.partitions.values().map(|partition| partition.replicas.len()).max().unwrap_or(0)
}

/// The offsets between which a partition has records; not known while it has no leader.
struct Range {
    first: Option<i64>,
    end: Option<i64>,
}

fn describe(arguments: &DescribeArguments) -> Result<(), CliError> {
    let _progress = Progress::start("describing topics");
    let mut cluster = arguments.cluster.connect()?;
    let names: Vec<Str> = arguments.names.iter().map(|name| Str::from(name.as_str())).collect();
    cluster.await_topics(&names, false)?;
    let mut output = Output::stdout();
    for (index, name) in names.iter().enumerate() {
        let configs = configs_of(&mut cluster, name)?;
        let ranges = ranges_of(&mut cluster, name)?;
        let Some(topic) = cluster.metadata().topics.get(name) else {
            return Err(ClientError::Missing(format!("topic {name}")).into());
        };
        if arguments.json {
            output.line(&as_json(name, topic, &ranges, &configs))?;
        } else {
            if index > 0 {
                output.line("")?;
            }
            show(&mut output, name, topic, &ranges, &configs)?;
        }
    }
    Ok(std::io::Write::flush(&mut output)?)
}

/// The settings that were made for the topic itself.
fn configs_of(cluster: &mut Cluster, name: &Str) -> Result<Vec<(Str, Option<Str>)>, ClientError> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: name.clone(),
            configuration_keys: None,
        }],
        ..DescribeConfigsRequest::default()
    };
    let response = cluster.call_any(&request)?;
    let mut configs = Vec::new();
    for result in response.results {
        let what = format!("asking for the settings of topic {name}");
        ClientError::check(result.error_code, result.error_message.as_ref(), what)?;
        let own = result.configs.into_iter().filter(|config| config.config_source == SOURCE_TOPIC);
        configs.extend(own.map(|config| (config.name, config.value)));
    }
    configs.sort();
    Ok(configs)
}

fn ranges_of(cluster: &mut Cluster, name: &Str) -> Result<Vec<(i32, Range)>, ClientError> {
    let partitions: Vec<TopicPartition> = cluster.metadata().partitions_of(name);
    // That some have none is what is to be shown.
    let _ = cluster.await_leaders(&partitions, ELECTION);
    let metadata = cluster.metadata();
    let led: Vec<_> = partitions.iter().filter(|at| metadata.leader(at).is_some()).collect();
    let at = |timestamp| led.iter().map(|&at| (at.clone(), timestamp)).collect::<Vec<_>>();
    let first = cluster.list_offsets(&at(EARLIEST))?;
    let end = cluster.list_offsets(&at(LATEST))?;
    let range = |at: &TopicPartition| {
        let range = Range { first: first.get(at).copied(), end: end.get(at).copied() };
        (at.partition, range)
    };
    Ok(partitions.iter().map(range).collect())
}

fn show(
    output: &mut Output,
    name: &Str,
    topic: &Topic,
    ranges: &[(i32, Range)],
    configs: &[(Str, Option<Str>)],
) -> Result<(), CliError> {
    output.line(&format!("topic {name}"))?;
    output.line(&format!("id    {}", topic.id))?;
    for (name, value) in configs {
        let value = value.as_ref().map_or("(hidden)", |value| value.as_str());
        output.line(&format!("set   {name}={value}"))?;
    }
    output.line("")?;
    let rows: Vec<Vec<String>> = ranges
        .iter()
        .filter_map(|(number, range)| {
            let partition = topic.partitions.get(number)?;
            Some(vec![
                number.to_string(),
                partition.leader.map_or(String::from("none"), |leader| leader.to_string()),
                partition.leader_epoch.to_string(),
                nodes(&partition.replicas),
                nodes(&partition.in_sync),
                known(range.first, "-"),
                known(range.end, "-"),
            ])
        })
        .collect();
    let head =
        ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC", "FIRST OFFSET", "END OFFSET"];
    Ok(output.table(&head, &rows)?)
}

fn known(offset: Option<i64>, unknown: &str) -> String {
    offset.map_or(String::from(unknown), |offset| offset.to_string())
}

fn nodes(nodes: &[i32]) -> String {
    let nodes: Vec<String> = nodes.iter().map(i32::to_string).collect();
    nodes.join(",")
}

fn as_json(
    name: &Str,
    topic: &Topic,
    ranges: &[(i32, Range)],
    configs: &[(Str, Option<Str>)],
) -> String {
    let partitions = ranges.iter().filter_map(|(number, range)| {
        let partition = topic.partitions.get(number)?;
        let object = Object::new()
            .raw("partition", number)
            .raw(
                "leader",
                partition.leader.map_or(String::from("null"), |leader| leader.to_string()),
            )
            .raw("leader_epoch", partition.leader_epoch)
            .raw("replicas", json::array(&partition.replicas))
            .raw("in_sync", json::array(&partition.in_sync))
            .raw("first_offset", known(range.first, "null"))
            .raw("end_offset", known(range.end, "null"));
        Some(object.finish())
    });
    let settings = configs.iter().fold(Object::new(), |object, (name, value)| {
        object.optional_text(name, value.as_ref().map(|value| value.as_str()))
    });
    Object::new()
        .text("topic", name)
        .text("id", &topic.id.to_string())
        .raw("internal", topic.is_internal)
        .raw("configs", settings.finish())
        .raw("partitions", json::array(partitions))
        .finish()
}

fn delete(arguments: &DeleteArguments) -> Result<(), CliError> {
    let _progress = Progress::start("deleting topics");
    let mut cluster = arguments.cluster.connect()?;
    let timeout_ms = request_timeout_ms(&arguments.cluster);
    for name in &arguments.names {
        let what = format!("deleting topic {name}");
        let deleted = cluster.retry(|cluster| {
            let response = cluster
                .call_controller_with(|version| delete_request(name, version, timeout_ms))?;
            let Some(topic) = response.responses.into_iter().next() else {
                return Err(ClientError::Missing(what.clone()));
            };
            let unknown = topic.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            if unknown && arguments.if_exists {
                return Ok(false);
            }
            if unknown {
                return Err(ClientError::Missing(format!("topic {name}")));
            }
            ClientError::check(topic.error_code, topic.error_message.as_ref(), what.clone())?;
            Ok(true)
        });
        let deleted = deleted.map_err(|error| match error {
            ClientError::Missing(_) => CliError::from(error).with_hint(LIST_TOPICS),
            error => error.into(),
        })?;
        let mut output = Output::stdout();
        let done = if deleted { "deleted topic" } else { "there was no topic" };
        output.line(&format!("{done} {name}"))?;
        std::io::Write::flush(&mut output)?;
    }
    Ok(())
}

/// How long a broker may take for one request: no longer than all of it may.
fn request_timeout_ms(arguments: &ClusterArguments) -> i32 {
    i32::try_from(arguments.timeout_ms()).unwrap_or(TIMEOUT_MS_MAX).min(TIMEOUT_MS_MAX)
}

fn delete_request(name: &str, version: i16, timeout_ms: i32) -> DeleteTopicsRequest {
    let name = Str::from(name);
    let mut request = DeleteTopicsRequest { timeout_ms, ..DeleteTopicsRequest::default() };
    if version < DELETE_TOPICS_STATES {
        request.topic_names.push(name);
    } else {
        request.topics.push(DeleteTopicState { name: Some(name), ..DeleteTopicState::default() });
    }
    request
}
