//! Records that a real Kafka wrote: read, and written again byte for byte.

use super::*;

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<char> = hex.chars().collect();
    let byte = |pair: &[char]| {
        let pair: String = pair.iter().collect();
        u8::from_str_radix(&pair, 16).unwrap()
    };
    digits.chunks(2).map(byte).collect()
}

fn captured() -> Vec<KeyValue> {
    let text = include_str!("kafka_4_4_records.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let record = |line: &str| {
        let (key, value) = line.split_once(' ').unwrap();
        KeyValue { key: bytes(key), value: (value != "-").then(|| bytes(value)) }
    };
    lines.map(record).collect()
}

#[test]
fn what_kafka_wrote_is_read_and_written_again_byte_for_byte() {
    let log = captured();
    assert!(log.len() > 20);
    let mut last: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    for record in &log {
        last.insert(record.key.clone(), record.value.clone());
    }
    last.retain(|_, value| value.is_some());
    let machine = GroupMachine::new(Options::default(), &Memory::default());
    let state = replayed(&machine, &log);
    let ours = snapshot(&machine, &state, 3);
    let mut ours: BTreeMap<Bytes, Option<Bytes>> =
        ours.into_iter().map(|record| (record.key, record.value)).collect();
    // This group's last offset was deleted: Kafka has no record of it, though it would list it.
    assert!(ours.remove(&b"\0\x02\0\x06simple"[..]).is_some());
    assert_eq!(ours, last);
}

#[test]
fn members_that_kafka_knew_go_on_here() {
    let mut world = World::new();
    world.log = captured();
    world.restart();
    let group = world.session.group(&Str::from("s")).unwrap();
    assert_eq!((group.phase, group.generation), (Phase::Stable, 1));
    let member = group.static_members.get(&Str::from("A")).unwrap().clone();
    let error = world.beat_with(HeartbeatRequest {
        group_id: Str::from("s"),
        generation_id: 1,
        member_id: member,
        group_instance_id: Some(Str::from("A")),
    });
    assert_eq!(error, ErrorCode::NONE);
    let simple = world.offsets("");
    assert_eq!(simple, [("t".to_owned(), 0, 5)]);
}
