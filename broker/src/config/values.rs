//! What a node runs with: the defaults under the properties file, under `--set`, under the flags.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::broker::RACK_AWARE_SELECTOR;
use super::check::{self, InvalidValue};
use super::definitions::{
    broker_setting, broker_settings, family, group_settings, nearest, topic_setting, topic_settings,
};
use super::listeners::{self, Endpoint, HostAndPort, Listener, ListenerSettings, Listeners};
pub use super::origin::{Given, Origin};
use super::peers::{self, Peer};
use super::topic_values::TopicDefaults;
use super::{migration, properties};

/// The settings of a properties file, in order. The error names path and line.
pub fn from_properties(path: &str, text: &str) -> Result<Vec<Given>, ConfigError> {
    let shared: Arc<str> = Arc::from(path);
    let parsed = properties::parse(text)
        .map_err(|error| ConfigError(format!("{path}:{}: {error}", error.line)))?;
    let given = parsed.into_iter().map(|property| Given {
        name: property.name,
        value: property.value,
        origin: Origin::File { path: Arc::clone(&shared), line: property.line },
    });
    Ok(given.collect())
}

/// One thing that is wrong, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Everything that is wrong, a line each: a person mends a file in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The settings of a node, checked and typed. Immutable; each shard holds a clone.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: i32,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `log.dirs`: the data directory, as given.
    pub data_directory: String,
    /// `listeners` and `advertised.listeners`; at least one.
    pub listeners: Vec<Listener>,
    /// Which listener other nodes use.
    pub inter_broker_listener: String,
    /// `peers`, by their ids, this node among them; empty: it is alone.
    pub peers: Vec<Peer>,
    /// `peer.listener`: host (`None`: all interfaces) and port; `None`: as `peers` has it.
    pub peer_listener: Option<HostAndPort>,
    /// `node.replace.after.ms`; `None`: never.
    pub replace_node_after_ms: Option<u64>,
    /// `admin.listener`: host (`None`: all interfaces) and port.
    pub admin_listener: Option<HostAndPort>,
    /// `shard.balance.interval.ms`; 0: never.
    pub shard_balance_interval_ms: u64,
    /// `shards`; `None`: one for each core.
    pub shards: Option<u32>,
    /// `memory` in bytes; `None`: so much for each shard.
    pub memory_bytes: Option<u64>,
    /// `disk.reserve.bytes`.
    pub disk_reserve_bytes: u64,
    /// `write.max.bytes`.
    pub write_bytes_max: u64,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: u32,
    /// `max.connections`.
    pub connections_max: u32,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: u32,
    /// `connections.max.idle.ms`; `None`: for ever.
    pub connections_idle_ms_max: Option<u64>,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: u32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: u32,
    /// `max.request.partition.size.limit`.
    pub describe_partitions_max: u32,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `num.partitions`.
    pub partitions_default: i32,
    /// `default.replication.factor`.
    pub replication_factor_default: i16,
    /// `leader.imbalance.check.interval.seconds`; `None`: leaders stay where they are
    /// (`auto.leader.rebalance.enable`).
    pub leader_check_interval_s: Option<u64>,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// `log.verify.interval.ms`.
    pub verify_interval_ms: u64,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_ms_max: u64,
    /// `replica.selector.class` chooses by rack.
    pub reads_closest_replica: bool,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: u64,
    /// The `group.*` settings.
    pub groups: GroupSettings,
    /// The `offsets.*` settings.
    pub offsets: OffsetsSettings,
    /// What topics have where they say nothing.
    pub topic_defaults: TopicDefaults,
    /// What was given, by name: canonical values. For DescribeConfigs.
    pub(super) given: Arc<BTreeMap<&'static str, String>>,
}

/// Limits of classic groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u32,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: u32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: u32,
    /// `group.max.size`.
    pub members_max: u32,
}

/// Committed offsets and the topic that keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsSettings {
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: u32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub retention_ms: u64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// `offsets.topic.num.partitions`.
    pub topic_partitions: i32,
    /// `offsets.topic.replication.factor`; capped by the number of nodes when the topic is
    /// created.
    pub topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub topic_segment_bytes: u32,
}

/// A configuration, and what the user should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run with.
    pub config: BrokerConfig,
    /// Settings that have no effect, a line each.
    pub warnings: Vec<String>,
}

/// Checks all that was given (in any order: file, `--set` and flags rank by their origin; within
/// one origin the later counts).
pub fn load(given: &[Given]) -> Result<Loaded, ConfigErrors> {
    let mut loader = Loader::default();
    for setting in given {
        loader.take(setting);
    }
    loader.drop_outranked();
    let config = loader.build();
    match config {
        Ok(config) if loader.errors.is_empty() => Ok(Loaded { config, warnings: loader.warnings }),
        Ok(_) => Err(ConfigErrors(loader.errors)),
        Err(error) => {
            let refused = loader.refused(&error);
            loader.errors.push(ConfigError(refused));
            Err(ConfigErrors(loader.errors))
        }
    }
}

/// Where clients connect, unless something else is said.
const CLIENTS_PORT: u16 = 9092;
/// What is longer than this is not repeated.
const NAME_BYTES_MAX: usize = 128;

/// What a name that is no setting of a node may have meant.
fn unknown(name: &str) -> String {
    if let Some(topic) = topic_setting(name) {
        let node = topic
            .synonyms
            .first()
            .map(|synonym| format!("; for all topics it is {}", synonym.name));
        return format!("{name} is a setting of topics{}", node.unwrap_or_default());
    }
    if group_settings().any(|group| group.name == name) {
        return format!("{name} is a setting of groups");
    }
    let known = broker_settings().map(|definition| definition.name);
    match nearest(name, known.chain(migration::ignored_names())) {
        Some(nearest) => format!("unknown setting {name}; did you mean {nearest}?"),
        None if name.len() > NAME_BYTES_MAX => {
            "unknown setting, with a name of absurd length".to_string()
        }
        None => format!("unknown setting {name}; `vltava config` lists all"),
    }
}

#[derive(Default)]
struct Loader {
    /// Canonical values with where they were given.
    values: BTreeMap<&'static str, (String, Origin)>,
    /// Names of Kafka's controller's listeners, where a migrated file has them.
    controller_names: Option<String>,
    warnings: Vec<String>,
    errors: Vec<ConfigError>,
}

impl Loader {
    fn take(&mut self, given: &Given) {
        let Given { name, value, origin } = given;
        let Some(definition) = broker_setting(name) else {
            self.take_foreign(given);
            return;
        };
        let canonical = match check::canonical(definition, value) {
            Ok(canonical) => canonical,
            Err(error) => {
                self.errors.push(ConfigError(origin.refusal(name, value, &error)));
                return;
            }
        };
        if !definition.in_effect {
            self.warnings.push(format!("{origin}: {name} has no effect in Vltava"));
        }
        match self.values.get(definition.name) {
            Some((_, known)) if known.rank() > origin.rank() => {}
            _ => {
                self.values.insert(definition.name, (canonical, origin.clone()));
            }
        }
    }

    /// Why the settings are refused, where one of them is named by who gave it.
    fn refused(&self, error: &InvalidValue) -> String {
        let given = error.setting().and_then(|name| {
            // The name itself, or another by which the setting was given.
            let own = self.values.get_key_value(name);
            let others = || family(name).into_iter();
            own.or_else(|| others().find_map(|other| self.values.get_key_value(other)))
        });
        match given {
            Some((name, (value, origin))) => origin.refusal(name, value, error),
            None => error.to_string(),
        }
    }

    /// A setting that is none of ours.
    fn take_foreign(&mut self, given: &Given) {
        let Given { name, value, origin } = given;
        if let Some(reason) = migration::refusal(name, value) {
            self.errors.push(ConfigError(format!("{origin}: {name}={value}: {reason}")));
        } else if migration::is_known_to_kafka(name) {
            if name == "controller.listener.names" {
                self.controller_names = Some(value.clone());
            }
            self.warnings.push(format!("{origin}: {name} has no effect in Vltava"));
        } else {
            self.errors.push(ConfigError(format!("{origin}: {}", unknown(name))));
        }
    }

    /// Of settings that stand for each other, keeps those of the highest origin: `--set
    /// log.retention.hours` beats the file's `log.retention.ms`, though within one origin
    /// milliseconds go before hours.
    fn drop_outranked(&mut self) {
        let names: Vec<&'static str> = self.values.keys().copied().collect();
        for name in names {
            let rank_max = family(name)
                .iter()
                .filter_map(|member| self.values.get(member).map(|(_, origin)| origin.rank()))
                .max();
            if self.values.get(name).is_some_and(|(_, origin)| Some(origin.rank()) < rank_max) {
                self.values.remove(name);
            }
        }
    }

    /// What was given for the first of a family that was given; else the default.
    fn text(&self, name: &'static str) -> Option<&str> {
        let given = family(name)
            .into_iter()
            .find_map(|member| self.values.get(member).map(|(value, _)| value.as_str()));
        given.or_else(|| broker_setting(name).and_then(|definition| definition.default))
    }

    fn number<T: TryFrom<i64>>(&self, name: &'static str) -> Result<T, InvalidValue> {
        let text = self.text(name).unwrap_or_default();
        let out_of_range = || InvalidValue::new(name, text, "Value must be at least 0");
        text.parse::<i64>()
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(out_of_range)
    }

    fn boolean(&self, name: &'static str) -> Result<bool, InvalidValue> {
        check::boolean(name, self.text(name).unwrap_or_default())
    }

    fn size(&self, name: &'static str) -> Result<u64, InvalidValue> {
        check::size(name, self.text(name).unwrap_or_default())
    }

    fn non_empty(&self, name: &'static str) -> Option<&str> {
        self.text(name).filter(|text| !text.is_empty())
    }

    fn build(&mut self) -> Result<BrokerConfig, InvalidValue> {
        self.check_node_ids()?;
        self.listen_beside_peers()?;
        let topic_defaults = self.topic_defaults()?;
        let Listeners { listeners, inter_broker_name, left_out } = self.listeners()?;
        for name in left_out {
            self.warnings
                .push(format!("listener {name} is not opened: the controller has none of its own"));
        }
        let admin_listener = self.admin_listener(&listeners)?;
        let write_bytes_max = self.size("write.max.bytes")?;
        if !WRITE_BYTES.contains(&write_bytes_max) {
            let (least, most) = (WRITE_BYTES.start() >> 10, WRITE_BYTES.end() >> 20);
            let reason = format!("must be between {least}KiB and {most}MiB");
            return Err(InvalidValue::new("write.max.bytes", write_bytes_max, reason));
        }
        let given = self.values.iter().map(|(name, (value, _))| (*name, value.clone())).collect();
        Ok(BrokerConfig {
            node_id: self.number("node.id")?,
            rack: self.non_empty("broker.rack").map(str::to_string),
            data_directory: self.data_directory()?,
            listeners,
            inter_broker_listener: inter_broker_name,
            peers: self.peers()?,
            peer_listener: self.peer_listener()?,
            replace_node_after_ms: self.number("node.replace.after.ms").ok(),
            admin_listener,
            shard_balance_interval_ms: self.number("shard.balance.interval.ms")?,
            shards: self.text("shards").map(|_| self.number("shards")).transpose()?,
            memory_bytes: self.text("memory").map(|_| self.memory()).transpose()?,
            disk_reserve_bytes: self.size("disk.reserve.bytes")?,
            write_bytes_max,
            request_bytes_max: self.number("socket.request.max.bytes")?,
            connections_max: self.number("max.connections")?,
            connections_per_ip_max: self.number("max.connections.per.ip")?,
            connections_idle_ms_max: self.number("connections.max.idle.ms").ok(),
            fetch_bytes_max: self.number("fetch.max.bytes")?,
            fetch_sessions_max: self.number("max.incremental.fetch.session.cache.slots")?,
            describe_partitions_max: self.number("max.request.partition.size.limit")?,
            auto_create_topics: self.boolean("auto.create.topics.enable")?,
            delete_topics: self.boolean("delete.topic.enable")?,
            partitions_default: self.number("num.partitions")?,
            replication_factor_default: self.number("default.replication.factor")?,
            leader_check_interval_s: match self.boolean("auto.leader.rebalance.enable")? {
                true => Some(self.number("leader.imbalance.check.interval.seconds")?),
                false => None,
            },
            retention_check_interval_ms: self.number("log.retention.check.interval.ms")?,
            verify_interval_ms: self.number("log.verify.interval.ms")?,
            replica_lag_ms_max: self.number("replica.lag.time.max.ms")?,
            reads_closest_replica: self.non_empty("replica.selector.class")
                == Some(RACK_AWARE_SELECTOR),
            producer_id_expiration_ms: self.number("producer.id.expiration.ms")?,
            groups: self.groups()?,
            offsets: self.offsets()?,
            topic_defaults,
            given: Arc::new(given),
        })
    }

    fn admin_listener(&self, listeners: &[Listener]) -> Result<Option<HostAndPort>, InvalidValue> {
        const NAME: &str = "admin.listener";
        let is_given = |text: &&str| !text.eq_ignore_ascii_case("none");
        let Some(text) = self.non_empty(NAME).filter(is_given) else {
            return Ok(None);
        };
        let (host, port) = listeners::host_and_port(NAME, text)?;
        let is_taken = |listener: &Listener| listener.bind.host == host && port != 0;
        if listeners.iter().any(|listener| is_taken(listener) && listener.bind.port == port) {
            let reason = "clients connect there; it takes a port of its own";
            return Err(InvalidValue::new(NAME, text, reason));
        }
        Ok(Some((host, port)))
    }

    fn peers(&self) -> Result<Vec<Peer>, InvalidValue> {
        let own = self.number("node.id")?;
        self.non_empty("peers").map_or(Ok(Vec::new()), |text| peers::parse(text, own))
    }

    /// Clients of one of several nodes must reach all of them: where nobody says how, they find
    /// this one as its peers do.
    fn listen_beside_peers(&mut self) -> Result<(), InvalidValue> {
        let Some((_, origin)) = self.values.get("peers").cloned() else { return Ok(()) };
        if self.values.contains_key("listeners") {
            return Ok(());
        }
        let own: i32 = self.number("node.id")?;
        let own = self.peers()?.into_iter().find(|peer| peer.node_id == own);
        let Some(known_as) = own.map(|own| Some(own.host)) else { return Ok(()) };
        let at = |host| {
            let endpoint = Endpoint { name: String::new(), host, port: CLIENTS_PORT };
            (format!("PLAINTEXT://{endpoint}"), origin.clone())
        };
        let bound = self.peer_listener()?.map_or_else(|| known_as.clone(), |(host, _)| host);
        self.values.insert("listeners", at(bound));
        self.values.entry("advertised.listeners").or_insert_with(|| at(known_as));
        Ok(())
    }

    fn peer_listener(&self) -> Result<Option<HostAndPort>, InvalidValue> {
        const NAME: &str = "peer.listener";
        let Some(text) = self.non_empty(NAME) else { return Ok(None) };
        if self.non_empty("peers").is_none() {
            return Err(InvalidValue::new(NAME, text, "there are no others without peers"));
        }
        listeners::host_and_port(NAME, text).map(Some)
    }

    fn groups(&self) -> Result<GroupSettings, InvalidValue> {
        let settings = GroupSettings {
            initial_rebalance_delay_ms: self.number("group.initial.rebalance.delay.ms")?,
            session_timeout_ms_min: self.number("group.min.session.timeout.ms")?,
            session_timeout_ms_max: self.number("group.max.session.timeout.ms")?,
            members_max: self.number("group.max.size")?,
        };
        if settings.session_timeout_ms_min > settings.session_timeout_ms_max {
            return Err(InvalidValue::Conflict(
                "group.max.session.timeout.ms must not be less than group.min.session.timeout.ms"
                    .to_string(),
            ));
        }
        Ok(settings)
    }

    fn offsets(&self) -> Result<OffsetsSettings, InvalidValue> {
        let minutes: u64 = self.number("offsets.retention.minutes")?;
        Ok(OffsetsSettings {
            metadata_bytes_max: self.number("offset.metadata.max.bytes")?,
            retention_ms: minutes.saturating_mul(60 * 1000),
            retention_check_interval_ms: self.number("offsets.retention.check.interval.ms")?,
            topic_partitions: self.number("offsets.topic.num.partitions")?,
            topic_replication_factor: self.number("offsets.topic.replication.factor")?,
            topic_segment_bytes: self.number("offsets.topic.segment.bytes")?,
        })
    }

    fn memory(&self) -> Result<u64, InvalidValue> {
        let bytes = self.size("memory")?;
        if bytes < MEMORY_BYTES_LEAST {
            let reason = format!("must be at least {}MiB", MEMORY_BYTES_LEAST >> 20);
            return Err(InvalidValue::new("memory", bytes, reason));
        }
        Ok(bytes)
    }

    fn check_node_ids(&self) -> Result<(), InvalidValue> {
        let given = |name: &str| self.values.get(name).map(|(value, _)| value);
        match (given("node.id"), given("broker.id")) {
            (Some(node), Some(broker)) if node != broker => Err(InvalidValue::Conflict(format!(
                "node.id ({node}) and broker.id ({broker}) are the same setting; give one"
            ))),
            _ => Ok(()),
        }
    }

    fn data_directory(&self) -> Result<String, InvalidValue> {
        let text = self.text("log.dirs").unwrap_or_default();
        match text {
            "" => Err(InvalidValue::new("log.dirs", text, "a directory is needed")),
            // A comma separates directories, as in Kafka.
            _ if text.contains(',') => {
                Err(InvalidValue::new("log.dirs", text, "only one directory is supported yet"))
            }
            _ => Ok(text.to_string()),
        }
    }

    fn listeners(&self) -> Result<Listeners, InvalidValue> {
        listeners::resolve(&ListenerSettings {
            listeners: self.text("listeners").unwrap_or_default(),
            advertised: self.text("advertised.listeners"),
            protocol_map: self.text("listener.security.protocol.map").unwrap_or_default(),
            inter_broker_name: self.text("inter.broker.listener.name"),
            controller_names: self.controller_names.as_deref(),
        })
    }

    /// For each topic setting the first of its synonyms that was given, in the topic's unit.
    fn topic_defaults(&self) -> Result<TopicDefaults, InvalidValue> {
        let mut values = BTreeMap::new();
        for topic in topic_settings() {
            for synonym in topic.synonyms {
                let Some((value, _)) = self.values.get(synonym.name) else {
                    continue;
                };
                let value = scaled(value, synonym.factor);
                let is_retention = topic.name == "retention.ms";
                let value = if is_retention { retention(synonym.name, &value)? } else { value };
                // Told of the setting that was given, not of the one that it stands for.
                let canonical = check::canonical(topic, &value)
                    .map_err(|error| InvalidValue::new(synonym.name, &value, error.reason()))?;
                values.insert(topic.name, canonical);
                break;
            }
        }
        TopicDefaults::new(values)
    }
}

/// Less would leave no room for one request and one write.
const MEMORY_BYTES_LEAST: u64 = 64 << 20;

/// Less would make a write of each record; after more, a crash could leave more behind than
/// recovery should have to look through.
const WRITE_BYTES: RangeInclusive<u64> = 4096..=64 << 20;

fn scaled(value: &str, factor: i64) -> String {
    match value.parse::<i64>() {
        Ok(number) if factor != 1 => number.saturating_mul(factor).to_string(),
        _ => value.to_string(),
    }
}

/// Kafka's rule for the node's retention: any negative number is no limit, zero is none.
fn retention(name: &str, value: &str) -> Result<String, InvalidValue> {
    match value.parse::<i64>() {
        Ok(0) => {
            Err(InvalidValue::new(name, 0, "must be unlimited (-1) or, equal or greater than 1"))
        }
        Ok(..0) => Ok("-1".to_string()),
        _ => Ok(value.to_string()),
    }
}

impl BrokerConfig {
    /// The value that a node's setting has: what was given, else the default; `None` where there is
    /// neither.
    pub fn value(&self, name: &str) -> Option<&str> {
        let given = family_of_aliases(name).into_iter().find_map(|member| self.given.get(member));
        given
            .map(String::as_str)
            .or_else(|| broker_setting(name).and_then(|definition| definition.default))
    }
}

/// `node.id` and `broker.id` show the same value; `log.retention.ms` and `.hours` do not.
pub(super) fn family_of_aliases(name: &str) -> Vec<&'static str> {
    match name {
        "node.id" | "broker.id" | "log.dirs" | "log.dir" => family(name),
        _ => broker_setting(name).map(|definition| vec![definition.name]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
