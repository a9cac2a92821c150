use super::*;

fn file(text: &str) -> Vec<Given> {
    from_properties("server.properties", text).unwrap()
}

fn set(name: &str, value: &str) -> Given {
    Given { name: name.to_string(), value: value.to_string(), origin: Origin::Set }
}

fn flag(name: &str, value: &str) -> Given {
    let typed = value.trim_start_matches("PLAINTEXT://").into();
    Given { origin: Origin::Flag { name: "--flag", typed }, ..set(name, value) }
}

fn config(given: &[Given]) -> BrokerConfig {
    load(given).unwrap().config
}

fn errors(text: &str) -> String {
    load(&file(text)).unwrap_err().to_string()
}

#[test]
fn nothing_given_is_enough() {
    let Loaded { config, warnings } = load(&[]).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.node_id, 1);
    assert_eq!(config.data_directory, "data");
    assert_eq!(config.listeners[0].bind.port, 9092);
    assert_eq!(config.listeners[0].bind.host.as_deref(), Some("127.0.0.1"));
    assert_eq!(config.admin_listener, Some((Some("127.0.0.1".to_string()), 9644)));
    assert_eq!((config.shards, config.memory_bytes), (None, None));
    assert_eq!(config.request_bytes_max, 104_857_600);
    assert_eq!(config.write_bytes_max, 2 << 20);
    assert_eq!(config.offsets.retention_ms, 7 * 24 * 3_600_000);
    assert_eq!(config.connections_idle_ms_max, Some(600_000));
}

/// What `--node-id` and `--peers` alone say must do for clients on other machines.
#[test]
fn one_of_several_is_reached_as_its_peers_reach_it() {
    let several = |own: &str| set("peers", &format!("1@{own}:7641,2@10.0.0.2:7641"));
    let told = |given: &[Given]| {
        let listener = config(given).listeners.remove(0);
        (listener.bind.to_string(), listener.advertised.unwrap().to_string())
    };
    let both = |text: &str| (text.to_string(), text.to_string());
    assert_eq!(told(&[several("10.0.0.1")]), both("10.0.0.1:9092"));
    assert_eq!(told(&[several("[fd00::1]")]), both("[fd00::1]:9092"));
    let advertised = ("0.0.0.0:9092".to_string(), "a.example:9092".to_string());
    assert_eq!(told(&[several("a.example"), set("peer.listener", ":7641")]), advertised);
    let listeners = set("listeners", "PLAINTEXT://10.0.0.9:9095");
    assert_eq!(told(&[several("10.0.0.1"), listeners]), both("10.0.0.9:9095"));
    let (bind, _) = told(&[several("10.0.0.1"), set("advertised.listeners", "PLAINTEXT://b:1")]);
    assert_eq!(bind, "10.0.0.1:9092");
    assert_eq!(told(&[set("peers", "")]), both("127.0.0.1:9092"));
}

#[test]
fn the_admin_port_can_be_turned_off() {
    for nowhere in ["none", ""] {
        let config = config(&[flag("admin.listener", nowhere)]);
        assert_eq!(config.admin_listener, None, "{nowhere:?}");
    }
}

#[test]
fn flags_beat_set_and_set_beats_the_file() {
    let mut given = file("num.partitions=2\nnode.id=2\nbroker.rack=a\n");
    given.insert(0, flag("num.partitions", "4"));
    given.push(set("num.partitions", "3"));
    given.push(set("node.id", "3"));
    let config = config(&given);
    assert_eq!((config.partitions_default, config.node_id), (4, 3));
    assert_eq!(config.rack.as_deref(), Some("a"));
}

#[test]
fn in_one_place_the_later_counts() {
    assert_eq!(config(&file("num.partitions=2\nnum.partitions=5\n")).partitions_default, 5);
}

#[test]
fn a_whole_file_of_kafka_is_understood() {
    let text = "
        process.roles=broker,controller
        node.id=7
        controller.quorum.voters=7@localhost:9093
        listeners=PLAINTEXT://:9092,CONTROLLER://:9093
        inter.broker.listener.name=PLAINTEXT
        advertised.listeners=PLAINTEXT://kafka.example:9092
        controller.listener.names=CONTROLLER
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
        num.network.threads=3
        num.io.threads=8
        socket.send.buffer.bytes=102400
        socket.request.max.bytes=104857600
        log.dirs=/var/lib/kafka
        num.partitions=3
        log.retention.hours=24
        log.segment.bytes=2097152
        log.cleaner.threads=2
    ";
    let Loaded { config, warnings } = load(&file(text)).unwrap();
    assert_eq!(config.node_id, 7);
    assert_eq!(config.data_directory, "/var/lib/kafka");
    assert_eq!(config.listeners.len(), 1);
    let advertised = config.listeners[0].advertised.clone().unwrap();
    assert_eq!(advertised.host.as_deref(), Some("kafka.example"));
    let topic = config.topic_defaults.resolve(std::iter::empty());
    assert_eq!((topic.retention_ms, topic.segment_bytes), (Some(86_400_000), 2_097_152));
    assert!(warnings.iter().any(|line| line.contains(":10: num.network.threads has no effect")));
    assert!(warnings.iter().any(|line| line.contains("listener CONTROLLER is not opened")));
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_known_one() {
    assert_eq!(
        errors("num.partition=3\n"),
        "server.properties:1: unknown setting num.partition; did you mean num.partitions?"
    );
    assert!(
        errors("retention.ms=3\n")
            .contains("is a setting of topics; for all topics it is log.retention.ms")
    );
    assert!(errors("share.heartbeat.interval.ms=3\n").contains("is a setting of groups"));
    let long = format!("{}=1", "x".repeat(1_000_000));
    assert!(errors(&long).len() < 200);
}

#[test]
fn every_error_is_told_at_once() {
    let lines = errors("num.partition=3\nnode.id=x\nauthorizer.class.name=A\nlisteners=SSL://:1\n");
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(
        lines.contains(
            "server.properties:2: node.id=x: expected a whole number, at most 2147483647"
        )
    );
    assert!(lines.contains("only PLAINTEXT is served yet"));
}

#[test]
fn a_refusal_names_what_was_typed_and_where() {
    let refused = |given: &[Given]| load(given).unwrap_err().to_string();
    for (given, said) in [
        (flag("memory", "1"), "--flag 1: must be at least 64MiB"),
        (set("memory", "1"), "--set memory=1: must be at least 64MiB"),
        (flag("shards", "0"), "--flag 0: value must be at least 1"),
        (flag("log.dirs", ""), "--flag \"\": a directory is needed"),
        (flag("log.dirs", "a,b"), "--flag a,b: only one directory is supported yet"),
        (
            flag("advertised.listeners", "PLAINTEXT://0.0.0.0:1"),
            "--flag 0.0.0.0:1: clients cannot connect to 0.0.0.0 or [::]",
        ),
        (set("log.cleanup.policy", "x,"), "--set log.cleanup.policy=x,: string must be one of:"),
        (set("log.roll.hours", "0"), "--set log.roll.hours=0: value must be at least 1"),
        (set("broker.id", "x"), "--set broker.id=x: expected a whole number, at most 2147483647"),
    ] {
        let lines = refused(&[given]);
        assert!(lines.starts_with(said), "{lines}");
    }
    for (text, said) in [
        ("\nmemory=1", "server.properties:2: memory=1: must be at least 64MiB"),
        ("log.retention.ms=0", "server.properties:1: log.retention.ms=0: must be unlimited (-1)"),
        ("log.dir=/a,/b", "server.properties:1: log.dir=/a,/b: only one directory"),
        (
            "listeners=A://:7\nlistener.security.protocol.map=A:PLAINTEXT\nadmin.listener=:7",
            "server.properties:3: admin.listener=:7: clients connect there",
        ),
        ("listeners=SSL://:1", "server.properties:1: listeners=SSL://:1: listener SSL is SSL: "),
        (
            "log.roll.hours=9223372036854775807",
            "server.properties:1: log.roll.hours=9223372036854775807: expected a whole number",
        ),
    ] {
        let lines = errors(text);
        assert!(lines.starts_with(said), "{lines}");
    }
    assert_eq!(
        errors("foo=1"),
        "server.properties:1: unknown setting foo; `vltava config` lists all"
    );
}

#[test]
fn invalid_values_are_refused() {
    for text in [
        "num.partitions=0",
        "offsets.topic.num.partitions=0",
        "log.dirs=/a,/b",
        "log.dirs=",
        "shards=0",
        "memory=1MiB",
        "memory=lots",
        "write.max.bytes=1",
        "write.max.bytes=1GiB",
        "socket.request.max.bytes=0",
        "group.min.session.timeout.ms=9000\ngroup.max.session.timeout.ms=8000",
        "node.id=1\nbroker.id=2",
        "log.retention.ms=0",
        "log.segment.bytes=1",
        "admin.listener=nowhere",
        "log.cleaner.min.compaction.lag.ms=5\nlog.cleaner.max.compaction.lag.ms=1",
    ] {
        assert!(load(&file(text)).is_err(), "{text}");
    }
}

#[test]
fn milliseconds_go_before_minutes_before_hours_within_one_origin() {
    let retention = |given: &[Given]| {
        config(given).topic_defaults.value("retention.ms").map(str::to_string).unwrap()
    };
    assert_eq!(retention(&file("log.retention.hours=1\nlog.retention.minutes=2")), "120000");
    assert_eq!(retention(&file("log.retention.hours=1\nlog.retention.ms=7")), "7");
    assert_eq!(retention(&file("log.retention.hours=-1")), "-1");
    let mut given = file("log.retention.ms=7");
    given.push(set("log.retention.hours", "1"));
    assert_eq!(retention(&given), "3600000", "what stands nearer to the user counts");
}

#[test]
fn aliases_mean_the_same_setting() {
    let mut given = file("broker.id=4\nlog.dir=/old\n");
    let aliased = config(&given);
    assert_eq!((aliased.node_id, aliased.data_directory.as_str()), (4, "/old"));
    assert_eq!(aliased.value("node.id"), Some("4"));
    assert_eq!(aliased.value("log.dirs"), Some("/old"));
    given.push(flag("node.id", "5"));
    given.push(flag("log.dirs", "/new"));
    let flagged = config(&given);
    assert_eq!((flagged.node_id, flagged.data_directory.as_str()), (5, "/new"));
    assert_eq!(flagged.value("broker.id"), Some("5"));
}

#[test]
fn negative_idle_time_and_empty_admin_mean_never() {
    let config = config(&file("connections.max.idle.ms=-1\nadmin.listener=\n"));
    assert_eq!(config.connections_idle_ms_max, None);
    assert_eq!(config.admin_listener, None);
}

#[test]
fn a_broken_file_names_its_line() {
    let error = from_properties("f", "a=1\nb=\\u00").unwrap_err();
    assert_eq!(error.to_string(), "f:2: \\u must be followed by four hexadecimal digits");
}
