//! Settings of topics are altered.

use super::*;
use crate::cluster::alter_settings::SET;

#[test]
fn settings_are_changed_one_by_one() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("t", 1, 1));
    let ok = (ErrorCode::NONE, String::new());
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    assert_eq!(cluster.alter(&[("size", 0, Some("5"))]), ok);
    assert_eq!(cluster.alter(&[("policy", 2, Some(" compact , delete"))]), ok);
    assert_eq!(cluster.own("t"), [pair("policy", "delete,compact"), pair("size", "5")]);
    assert_eq!(cluster.alter(&[("policy", 3, Some("delete"))]), ok);
    assert_eq!(cluster.alter(&[("size", 1, None)]), ok);
    assert_eq!(cluster.own("t"), [pair("policy", "compact")]);
    assert_eq!(cluster.alter(&[("size", 1, None)]), ok, "removing what is not set is no error");
    assert_eq!(cluster.alter(&[("unknown", 1, None)]), ok);
}

#[test]
fn settings_are_replaced_all_at_once() {
    let mut cluster = Cluster::of(1);
    cluster.create(with_settings(topic("t", 1, 1), &[("size", Some("7")), ("policy", Some("x"))]));
    let resources = vec![resource(TOPIC_RESOURCE, "t", &[("size", SET, Some("8"))])];
    let real = Alteration { is_incremental: false, ..incremental(resources) };
    let tried = cluster.alter_all(Alteration { validate_only: true, ..real.clone() });
    assert_eq!(tried[0].error_code, ErrorCode::NONE);
    assert_eq!(cluster.own("t").len(), 2, "validate only");
    cluster.alter_all(real);
    assert_eq!(cluster.own("t"), [("size".to_string(), "8".to_string())]);
}

#[test]
fn changes_that_kafka_refuses() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("t", 1, 1));
    let mut refuse = |change: (&str, i8, Option<&str>), error, words: &str| {
        assert_eq!(cluster.alter(&[change]), (error, words.to_string()));
    };
    let (config, request) = (ErrorCode::INVALID_CONFIG, ErrorCode::INVALID_REQUEST);
    refuse(("size", 0, Some("x")), config, "Invalid value x for configuration size");
    refuse(("x", 0, Some("1")), config, "Unknown topic config name: x");
    let words = "Can't APPEND to key size because its type is not LIST.";
    refuse(("size", 2, Some("1")), config, words);
    let words = "Can't SUBTRACT to key size because its type is not LIST.";
    refuse(("size", 3, Some("1")), config, words);
    refuse(("size", 0, None), request, "Null value not supported for : size");
    refuse(("size", 9, Some("1")), request, "Unknown operations type 9");
    let twice = cluster.alter(&[("size", 0, Some("1")), ("size", 1, None)]);
    assert_eq!(twice, (request, "Error due to duplicate config keys".to_string()));
    assert!(cluster.own("t").is_empty());
}

#[test]
fn resources_that_cannot_be_altered() {
    let mut cluster = Cluster::of(1);
    let mut refuse = |kind, name: &str, error, words: &str| {
        let (found, told) = cluster.alter_resource(kind, name, &[]);
        assert_eq!(found, error, "{told}");
        assert!(told.contains(words), "{told}");
    };
    let (request, name) = (ErrorCode::INVALID_REQUEST, ErrorCode::INVALID_TOPIC_EXCEPTION);
    refuse(2, "", request, "Default topic resources are not allowed.");
    refuse(2, "a b", name, "Topic name is invalid");
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    refuse(2, "none", unknown, "The topic 'none' does not exist.");
    refuse(4, "1", request, "Cannot update these configs dynamically: []");
    refuse(4, "", request, "Cannot update these configs dynamically: []");
    refuse(4, "2", request, "Unexpected broker id, expected 1, but received 2");
    refuse(4, "x", request, "Node id must be an integer, but it is: x");
    refuse(8, "1", request, "Log levels cannot be altered");
    refuse(32, "g", request, "not supported yet");
    refuse(77, "g", request, "Unknown resource type 77");
}

#[test]
fn throttles_are_a_nodes_own_or_of_all() {
    use crate::cluster::dynamic_settings::{FOLLOWER_RATE, LEADER_RATE, rate};
    let mut cluster = Cluster::of(2);
    let directories = "replica.alter.log.dirs.io.max.bytes.per.second";
    let mut alter = |name: &str, changes: &[(&str, i8, Option<&str>)]| {
        let error = cluster.alter_resource(4, name, changes).0;
        let image = cluster.state.image();
        (error, [1, 2].map(|id| rate(image, id, FOLLOWER_RATE)), rate(image, 1, LEADER_RATE))
    };
    let (none, wrong) = (ErrorCode::NONE, ErrorCode::INVALID_REQUEST);
    let all = [(FOLLOWER_RATE, 1, None), (LEADER_RATE, 1, None), (directories, 1, None)];
    assert_eq!(alter("1", &all), (none, [None; 2], None), "what was never set");
    let set = |rate| [(FOLLOWER_RATE, 0, Some(rate))];
    assert_eq!(alter("", &set("7")), (none, [Some(7); 2], None));
    assert_eq!(alter("2", &set(" 5 ")), (none, [Some(7), Some(5)], None));
    assert_eq!(alter("1", &[(LEADER_RATE, 0, Some("0"))]), (none, [Some(7), Some(5)], Some(0)));
    let same = ([Some(7), Some(5)], Some(0));
    for rate in ["-1", "x", ""] {
        assert_eq!(alter("1", &set(rate)).0, wrong, "{rate}");
    }
    assert_eq!(
        alter("1", &[(FOLLOWER_RATE, 2, Some("9"))]).0,
        ErrorCode::INVALID_CONFIG,
        "no list"
    );
    assert_eq!(alter("9", &set("9")).0, ErrorCode::BROKER_ID_NOT_REGISTERED);
    assert_eq!(alter("1", &[(directories, 0, Some("9"))]), (wrong, same.0, same.1));
    assert_eq!(alter("1", &[all[0], ("log.dirs", 1, None)]), (wrong, same.0, same.1));
    assert_eq!(alter("2", &all), (none, [Some(7); 2], Some(0)), "all nodes' is left");
    assert_eq!(alter("1", &all), (none, [Some(7); 2], None));
    assert_eq!(alter("", &all), (none, [None; 2], None));
}

#[test]
fn defaults_of_topics_are_altered_while_nodes_run() {
    use crate::cluster::dynamic_settings::{
        FOLLOWER_RATE, MIN_INSYNC_REPLICAS, UNCLEAN_LEADER_ELECTION, topic_defaults,
    };
    let (least, unclean) = (MIN_INSYNC_REPLICAS, UNCLEAN_LEADER_ELECTION);
    let mut cluster = Cluster::of(2);
    let mut alter = |name: &str, changes: &[(&str, i8, Option<&str>)]| {
        let (error, told) = cluster.alter_resource(4, name, changes);
        let of = |id| topic_defaults(cluster.state.image(), id);
        let shown = [1, 2].map(|id| {
            let pairs: Vec<String> =
                of(id).iter().map(|(name, it)| format!("{name}={it}")).collect();
            pairs.join(" ")
        });
        (error, told, shown)
    };
    let all = [(least, 0, Some(" 2 ")), (unclean, 0, Some("TRUE")), (FOLLOWER_RATE, 0, Some("7"))];
    let (error, told, shown) = alter("", &all);
    assert_eq!(error, ErrorCode::NONE, "{told}");
    let both = format!("{least}=2 {unclean}=true");
    assert_eq!(shown, [both.clone(), both.clone()]);
    assert_eq!(alter("2", &[(unclean, 0, Some("false"))]).0, ErrorCode::NONE);
    let own = format!("{least}=2 {unclean}=false");
    for (name, setting, value, expected) in [
        ("", least, "0", ErrorCode::INVALID_REQUEST),
        ("", least, "x", ErrorCode::INVALID_REQUEST),
        ("", least, "2147483648", ErrorCode::INVALID_REQUEST),
        ("", unclean, "maybe", ErrorCode::INVALID_REQUEST),
        ("1", least, "2", ErrorCode::INVALID_CONFIG),
        ("9", unclean, "true", ErrorCode::BROKER_ID_NOT_REGISTERED),
    ] {
        let (error, told, shown) = alter(name, &[(setting, 0, Some(value))]);
        assert_eq!(error, expected, "{name} {setting}={value}: {told}");
        assert_eq!(shown, [both.clone(), own.clone()], "{name} {setting}={value}");
    }
    assert_eq!(alter("", &[(least, 1, None), (unclean, 1, None)]).2[1], format!("{unclean}=false"));
}

#[test]
fn a_list_does_not_outgrow_a_record() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("t", 1, 1));
    let long = "x".repeat(20_000);
    assert_eq!(cluster.alter(&[("policy", 2, Some(&long))]).0, ErrorCode::NONE);
    let other = format!("{long}y");
    assert_eq!(cluster.alter(&[("policy", 2, Some(&other))]).0, ErrorCode::INVALID_CONFIG);
    assert_eq!(cluster.own("t")[0].1, format!("delete,{long}"));
}

#[test]
fn a_resource_that_stands_twice_is_refused_twice() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("t", 1, 1));
    let one = || resource(TOPIC_RESOURCE, "t", &[("size", 0, Some("1"))]);
    let altered = cluster.alter_all(incremental(vec![one(), one()]));
    let errors: Vec<_> = altered.iter().map(|altered| altered.error_code).collect();
    assert_eq!(errors, [ErrorCode::INVALID_REQUEST; 2]);
    assert!(cluster.own("t").is_empty());
}
