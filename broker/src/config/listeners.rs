//! `listeners`, `advertised.listeners` and what belongs to them, as Kafka has them: named, each
//! with a protocol.

use std::fmt;

use super::check::InvalidValue;

/// Where a listener is bound, or how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, in upper case.
    pub name: String,
    /// Host name or address (IPv6 without brackets); `None`: all interfaces, or whichever the host
    /// is known by.
    pub host: Option<String>,
    /// Port; 0 takes a free one.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            None => write!(f, "0.0.0.0:{}", self.port),
            Some(address) if address.contains(':') => write!(f, "[{address}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

/// A listener that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it is bound.
    pub bind: Endpoint,
    /// How clients reach it; `None` where `advertised.listeners` is given and leaves it out. A host
    /// of `None`, or port 0, stands for what is known only once it is bound.
    pub advertised: Option<Endpoint>,
}

/// What the settings about listeners come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// In the order of `listeners`; at least one.
    pub listeners: Vec<Listener>,
    /// Which of them other nodes use.
    pub inter_broker_name: String,
    /// Names in `listeners` that are Kafka's controller's, and not opened.
    pub left_out: Vec<String>,
}

/// The settings about listeners, as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerSettings<'a> {
    /// `listeners`.
    pub listeners: &'a str,
    /// `advertised.listeners`, where given.
    pub advertised: Option<&'a str>,
    /// `listener.security.protocol.map`.
    pub protocol_map: &'a str,
    /// `inter.broker.listener.name`, where given.
    pub inter_broker_name: Option<&'a str>,
    /// `controller.listener.names`, where given: of Kafka's nodes that are broker and controller.
    pub controller_names: Option<&'a str>,
}

const LISTENERS: &str = "listeners";
const ADVERTISED: &str = "advertised.listeners";
const PROTOCOL_MAP: &str = "listener.security.protocol.map";
const INTER_BROKER: &str = "inter.broker.listener.name";

/// Checks the settings against each other.
pub fn resolve(settings: &ListenerSettings<'_>) -> Result<Listeners, InvalidValue> {
    let controller_names: Vec<String> = settings
        .controller_names
        .unwrap_or_default()
        .split(',')
        .map(|name| name.trim().to_ascii_uppercase())
        .collect();
    let protocols = protocol_map(settings.protocol_map)?;
    let (left_out, bound): (Vec<_>, Vec<_>) = endpoints(LISTENERS, settings.listeners)?
        .into_iter()
        .partition(|endpoint| controller_names.contains(&endpoint.name));
    if bound.is_empty() {
        return Err(invalid(LISTENERS, settings.listeners, "there must be one for clients"));
    }
    for endpoint in &bound {
        check_protocol(&protocols, endpoint, settings.listeners)?;
    }
    for (index, endpoint) in bound.iter().enumerate() {
        let is_taken = |other: &Endpoint| other.port == endpoint.port && endpoint.port != 0;
        if bound[..index].iter().any(|other| is_taken(other) && shares_host(other, endpoint)) {
            return Err(invalid(
                LISTENERS,
                settings.listeners,
                "each listener must have a different port",
            ));
        }
    }
    let advertised = match settings.advertised {
        Some(text) => Some(advertised(text, &bound, &controller_names)?),
        None => None,
    };
    let listeners: Vec<Listener> = bound
        .into_iter()
        .map(|bind| {
            let advertised = match &advertised {
                Some(given) => given.iter().find(|endpoint| endpoint.name == bind.name).cloned(),
                None => Some(advertised_as_bound(&bind)),
            };
            Listener { bind, advertised }
        })
        .collect();
    let inter_broker_name = inter_broker_name(settings, &listeners)?;
    let left_out = left_out.into_iter().map(|endpoint| endpoint.name).collect();
    Ok(Listeners { listeners, inter_broker_name, left_out })
}

/// A host, or all interfaces (`None`), and a port.
pub type HostAndPort = (Option<String>, u16);

/// `host:port`, as of the flags `--listen` and `--admin`; `[::1]:9092` for IPv6, an empty host for
/// all interfaces.
pub fn host_and_port(name: &str, text: &str) -> Result<HostAndPort, InvalidValue> {
    let expected = || invalid(name, text, "expected HOST:PORT");
    let (host, port) = text.trim().rsplit_once(':').ok_or_else(expected)?;
    let port: u16 = port.parse().map_err(|_| expected())?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']').ok_or_else(expected)?,
        // An IPv6 address without brackets would leave it open where the port begins.
        None if host.contains(':') => return Err(expected()),
        None => host,
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if !host.chars().all(is_host) {
        return Err(expected());
    }
    Ok((Some(host.to_string()).filter(|host| !host.is_empty()), port))
}

fn invalid(name: &str, value: &str, reason: &str) -> InvalidValue {
    InvalidValue::new(name, value, reason)
}

/// `NAME://host:port`, separated by commas; each name once.
fn endpoints(setting: &str, text: &str) -> Result<Vec<Endpoint>, InvalidValue> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        let expected = || invalid(setting, element, "expected NAME://host:port");
        let (name, address) = element.split_once("://").ok_or_else(expected)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(expected());
        }
        let (host, port) = host_and_port(setting, address).map_err(|_| expected())?;
        let name = name.to_ascii_uppercase();
        if endpoints.iter().any(|endpoint| endpoint.name == name) {
            return Err(invalid(setting, text, "each listener must have a different name"));
        }
        endpoints.push(Endpoint { name, host, port });
    }
    Ok(endpoints)
}

/// Whether two endpoints on one port meet: an IPv4 and an IPv6 address may share one, as in Kafka.
fn shares_host(one: &Endpoint, other: &Endpoint) -> bool {
    match (&one.host, &other.host) {
        (Some(one), Some(other)) => one.contains(':') == other.contains(':'),
        _ => true,
    }
}

fn protocol_map(text: &str) -> Result<Vec<(String, String)>, InvalidValue> {
    let mut map = Vec::new();
    for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        let Some((name, protocol)) = element.split_once(':') else {
            return Err(invalid(PROTOCOL_MAP, text, "expected NAME:PROTOCOL"));
        };
        map.push((name.trim().to_ascii_uppercase(), protocol.trim().to_ascii_uppercase()));
    }
    Ok(map)
}

fn check_protocol(
    protocols: &[(String, String)],
    endpoint: &Endpoint,
    listeners: &str,
) -> Result<(), InvalidValue> {
    let name = &endpoint.name;
    let protocol = protocols.iter().find(|(known, _)| known == name).map(|(_, protocol)| protocol);
    match protocol.map(String::as_str) {
        Some("PLAINTEXT") => Ok(()),
        Some(other) => {
            let reason = format!("listener {name} is {other}: only PLAINTEXT is served yet");
            Err(invalid(LISTENERS, listeners, &reason))
        }
        None => {
            let reason =
                format!("no security protocol is given for listener {name} in {PROTOCOL_MAP}");
            Err(invalid(LISTENERS, listeners, &reason))
        }
    }
}

fn advertised(
    text: &str,
    bound: &[Endpoint],
    controller_names: &[String],
) -> Result<Vec<Endpoint>, InvalidValue> {
    let mut given = endpoints(ADVERTISED, text)?;
    given.retain(|endpoint| !controller_names.contains(&endpoint.name));
    for endpoint in &given {
        if !bound.iter().any(|listener| listener.name == endpoint.name) {
            let reason = format!("listener {} does not stand in {LISTENERS}", endpoint.name);
            return Err(invalid(ADVERTISED, text, &reason));
        }
        match endpoint.host.as_deref() {
            None => {
                return Err(invalid(ADVERTISED, text, "a host is needed: clients connect to it"));
            }
            Some("0.0.0.0" | "::") => {
                return Err(invalid(ADVERTISED, text, "clients cannot connect to 0.0.0.0 or [::]"));
            }
            Some(_) => {}
        }
    }
    if given.is_empty() {
        return Err(invalid(ADVERTISED, text, "there must be one for clients"));
    }
    Ok(given)
}

/// What is bound to all interfaces is advertised by a name that only the running host knows.
fn advertised_as_bound(bind: &Endpoint) -> Endpoint {
    let host = bind.host.clone().filter(|host| host != "0.0.0.0" && host != "::");
    Endpoint { host, ..bind.clone() }
}

fn inter_broker_name(
    settings: &ListenerSettings<'_>,
    listeners: &[Listener],
) -> Result<String, InvalidValue> {
    let advertised = || listeners.iter().filter(|listener| listener.advertised.is_some());
    let names = || advertised().map(|listener| listener.bind.name.as_str());
    match settings.inter_broker_name.map(str::trim).filter(|name| !name.is_empty()) {
        Some(given) => {
            let name = given.to_ascii_uppercase();
            if names().any(|known| known == name) {
                Ok(name)
            } else {
                Err(invalid(INTER_BROKER, given, "must be the name of an advertised listener"))
            }
        }
        None => {
            let name = names().find(|name| *name == "PLAINTEXT").or_else(|| names().next());
            Ok(name.unwrap_or_default().to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "PLAINTEXT:PLAINTEXT,SSL:SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT";

    fn settings<'a>(listeners: &'a str, advertised: Option<&'a str>) -> ListenerSettings<'a> {
        ListenerSettings { listeners, advertised, protocol_map: MAP, ..Default::default() }
    }

    fn endpoint(name: &str, host: Option<&str>, port: u16) -> Endpoint {
        Endpoint { name: name.to_string(), host: host.map(str::to_string), port }
    }

    #[test]
    fn one_listener_is_advertised_as_it_is_bound() {
        let resolved = resolve(&settings("PLAINTEXT://127.0.0.1:9092", None)).unwrap();
        let here = endpoint("PLAINTEXT", Some("127.0.0.1"), 9092);
        let expected = [Listener { bind: here.clone(), advertised: Some(here) }];
        assert_eq!(resolved.listeners, expected);
        assert_eq!(resolved.inter_broker_name, "PLAINTEXT");
    }

    #[test]
    fn all_interfaces_have_no_host_to_advertise() {
        for text in ["PLAINTEXT://:9092", "PLAINTEXT://0.0.0.0:9092", "plaintext://[::]:9092"] {
            let resolved = resolve(&settings(text, None)).unwrap();
            assert_eq!(resolved.listeners[0].advertised, Some(endpoint("PLAINTEXT", None, 9092)));
        }
    }

    #[test]
    fn listeners_have_names_and_their_own_advertised_address() {
        let text = "PLAINTEXT://:9092, inside://[::1]:9094";
        let advertised = "INSIDE://ten.example:1,PLAINTEXT://kafka.example:2";
        let resolved = resolve(&settings(text, Some(advertised))).unwrap();
        let expected = [
            Listener {
                bind: endpoint("PLAINTEXT", None, 9092),
                advertised: Some(endpoint("PLAINTEXT", Some("kafka.example"), 2)),
            },
            Listener {
                bind: endpoint("INSIDE", Some("::1"), 9094),
                advertised: Some(endpoint("INSIDE", Some("ten.example"), 1)),
            },
        ];
        assert_eq!(resolved.listeners, expected);
    }

    #[test]
    fn a_listener_may_stay_unadvertised() {
        let text = "PLAINTEXT://:9092,INSIDE://:9094";
        let resolved = resolve(&settings(text, Some("INSIDE://a:1"))).unwrap();
        assert_eq!(resolved.listeners[0].advertised, None);
        assert_eq!(resolved.inter_broker_name, "INSIDE");
    }

    #[test]
    fn kafkas_controller_listener_is_left_out() {
        let given = ListenerSettings {
            controller_names: Some("CONTROLLER"),
            ..settings("PLAINTEXT://:9092,CONTROLLER://:9093", None)
        };
        let resolved = resolve(&given).unwrap();
        assert_eq!(resolved.listeners.len(), 1);
        assert_eq!(resolved.left_out, ["CONTROLLER"]);
        let alone = ListenerSettings { listeners: "CONTROLLER://:9093", ..given };
        assert!(resolve(&alone).is_err());
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_reason() {
        for (listeners, advertised, reason) in [
            ("", None, "there must be one for clients"),
            ("SSL://:9092", None, "listener SSL is SSL: only PLAINTEXT is served yet"),
            ("OTHER://:9092", None, "no security protocol is given for listener OTHER"),
            ("PLAINTEXT://:9092,INSIDE://:9092", None, "a different port"),
            ("PLAINTEXT://:9092,plaintext://:9093", None, "a different name"),
            ("PLAINTEXT:9092", None, "expected NAME://host:port"),
            ("PLAINTEXT://host", None, "expected NAME://host:port"),
            ("PLAINTEXT://host:99999", None, "expected NAME://host:port"),
            ("PLAINTEXT://::1:9092", None, "expected NAME://host:port"),
            ("PLAINTEXT://a b:9092", None, "expected NAME://host:port"),
            ("PLAINTEXT://:9092", Some("INSIDE://a:1"), "does not stand in listeners"),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://0.0.0.0:1"), "cannot connect to 0.0.0.0"),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://:1"), "a host is needed"),
            ("PLAINTEXT://:9092", Some(""), "there must be one for clients"),
        ] {
            let error = resolve(&settings(listeners, advertised)).unwrap_err().to_string();
            assert!(error.contains(reason), "{listeners} {advertised:?}: {error}");
        }
    }

    #[test]
    fn ports_may_be_shared_by_ipv4_and_ipv6_and_by_zero() {
        assert!(resolve(&settings("PLAINTEXT://127.0.0.1:1,INSIDE://[::1]:1", None)).is_ok());
        assert!(resolve(&settings("PLAINTEXT://:0,INSIDE://:0", None)).is_ok());
    }

    #[test]
    fn the_inter_broker_listener_must_exist() {
        let base = settings("PLAINTEXT://:9092,INSIDE://:9094", None);
        let inside = ListenerSettings { inter_broker_name: Some("inside"), ..base };
        assert_eq!(resolve(&inside).unwrap().inter_broker_name, "INSIDE");
        let missing = ListenerSettings { inter_broker_name: Some("NOWHERE"), ..base };
        assert!(resolve(&missing).is_err());
    }
}
