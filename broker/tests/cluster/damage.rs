//! A log that is damaged on one node, or gone, is taken anew from the others: nothing acknowledged
//! is lost, and the node leads again afterwards.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vltava_protocol::error_code::ErrorCode;

use crate::membership::{await_status, cluster, done, knows_one_other, named};
use crate::nodes::{NODES, Nodes, Place, seed};
use crate::producer::Random;
use crate::reassign;
use crate::support::wire;
use crate::view::{
    await_agreement, await_leader, await_replicas, connect, create_topic, create_topic_with,
    leader_of, partition, until,
};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "rotten";
/// Whose disk it is.
const NODE: i32 = 2;
/// The logs that are damaged, and the one that is gone.
const DAMAGED: &str = "rotten-0";
const GONE: &str = "rotten-1";
const METADATA: &str = "__cluster_metadata-0";

fn set_aside(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).expect("the data directory").flatten();
    entries.map(|entry| entry.path()).filter(|path| is_aside(path)).collect()
}

fn is_aside(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-damaged"))
}

/// Turns a bit of a record over that was flushed long ago.
fn damage(directory: &Path) {
    let mut segments: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the log")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    let segment = segments.last().expect("a segment");
    let mut bytes = fs::read(segment).expect("the segment");
    assert!(bytes[..200].iter().any(|byte| *byte != 0), "{} is empty", segment.display());
    bytes[70] ^= 1;
    fs::write(segment, bytes).expect("the segment again");
}

/// A bit of a batch in a closed segment is turned over on the disk of the leader, while it runs; a
/// follower that lacks that batch finds it, and the leader has it again from the third.
#[test]
fn rot_in_a_closed_segment_of_a_leader_is_mended_while_it_leads() {
    const RECORD_BYTES: usize = 64 << 10;
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(nodes.address(1), TOPIC, 1, 3, &[("segment.bytes", "1048576")]);
    for number in 0..64_u8 {
        until("nothing is written", || {
            let mut link = connect(leader_of(&addresses, TOPIC, 0)?).ok()?;
            let value = vec![number; RECORD_BYTES];
            let answer = wire::produce(&mut link, TOPIC, 0, wire::batch(&[&value])).ok()?;
            answer.error_code.is_none().then_some(())
        });
    }
    await_replicas(&addresses, TOPIC, 0, &NODES);
    // Nothing of it is in memory afterwards.
    nodes.kill_all();
    nodes.run_all();
    await_replicas(&addresses, TOPIC, 0, &NODES);
    let leader = await_leader(&addresses, TOPIC, 0, |_| true);
    let behind = NODES.into_iter().find(|node| *node != leader).expect("another");
    nodes.kill(behind);
    let lost = nodes.node(behind).data.join(DAMAGED);
    fs::remove_dir_all(lost).expect("the log that is to be gone");

    let segment = nodes.node(leader).data.join(DAMAGED).join("00000000000000000000.log");
    let before = fs::read(&segment).expect("the segment");
    let at = RECORD_BYTES * 3;
    let file = fs::OpenOptions::new().write(true).open(&segment).expect("the segment");
    file.write_all_at(&[before[at] ^ 1], at as u64).expect("a byte");
    file.sync_all().expect("on the disk");

    nodes.run(&[behind]);
    await_replicas(&addresses, TOPIC, 0, &NODES);
    assert_eq!(await_leader(&addresses, TOPIC, 0, |_| true), leader, "it leads on");
    let said = nodes.node(leader).said();
    assert!(said.contains("a record batch is not what was written"), "{said}");
    assert!(said.contains("was taken from another replica"), "{said}");
    assert!(fs::read(&segment).expect("the segment") == before, "the file is not what it was");
    let mut link = connect(leader_of(&addresses, TOPIC, 0).expect("a leader")).expect("a link");
    let records = wire::read_all(&mut link, TOPIC, 0).expect("all of it");
    assert_eq!(records.len(), 64);
    nodes.stop();
}

/// Whether a process has a file below this directory open.
fn has_open(process: u32, directory: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).expect("its descriptors");
    let mut files = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    files.any(|file| file.starts_with(directory))
}

/// The log of a leader is gone under it: once while it is written, and its end shows at the next
/// segment; once at rest, when its files are not open. Another leads then, and whoever asks the
/// first one is told so, and not what it still has.
#[test]
fn whoever_can_write_its_log_no_more_leads_no_more() {
    const RECORD_BYTES: usize = 64 << 10;
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    for (topic, is_at_rest) in [("written", false), ("at-rest", true)] {
        create_topic_with(nodes.address(1), topic, 1, 3, &[("segment.bytes", "1048576")]);
        let write = |count: usize| {
            for _ in 0..count {
                until("nothing is written", || {
                    let mut link = connect(leader_of(&addresses, topic, 0)?).ok()?;
                    let value = vec![1; RECORD_BYTES];
                    let answer = wire::produce(&mut link, topic, 0, wire::batch(&[&value])).ok()?;
                    answer.error_code.is_none().then_some(())
                });
            }
        };
        write(2);
        let leader = await_leader(&addresses, topic, 0, |_| true);
        let broker = nodes.node(leader);
        let (process, log) = (broker.process_id(), broker.data.join(format!("{topic}-0")));
        let mut link = connect(nodes.address(leader)).expect("a link");
        until("its files stay open", || (!is_at_rest || !has_open(process, &log)).then_some(()));
        fs::remove_dir_all(&log).expect("the log that is to be gone");
        write(40);
        await_leader(&addresses, topic, 0, |node| node != leader);
        let told = wire::fetch(&mut link, topic, 0, 2).expect("an answer").error_code;
        assert_eq!(told, ErrorCode::NOT_LEADER_OR_FOLLOWER, "{topic}, node {leader}");
        nodes.stop_node(leader);
        nodes.node(leader).run();
        await_replicas(&addresses, topic, 0, &NODES);
    }
    nodes.stop();
}

/// Both copies of what each shard has voted.
fn votes(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).expect("the data directory").flatten();
    let is_votes = |path: &PathBuf| {
        path.file_name().is_some_and(|it| it.to_string_lossy().contains("-votes-"))
    };
    let files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_votes).collect();
    assert!(files.len() >= 2, "{files:?}");
    files
}

/// Writes nonsense over all of them.
fn lose_votes(data: &Path) {
    for file in votes(data) {
        let length = fs::metadata(&file).expect("a file").len() as usize;
        fs::write(&file, vec![0x5a; length]).expect("it can be written");
    }
}

/// All that a node knew of its votes is gone, also on the cluster's metadata: it votes again once
/// it has everything anew, and once all others have said which epochs they know.
#[test]
fn a_node_that_has_lost_its_votes_gets_them_back() {
    let mut nodes = Nodes::start();
    create_topic(nodes.address(1), TOPIC, PARTITIONS);
    create_topic_with(nodes.address(1), "one", 3, 1, &[]);
    await_agreement(&nodes.addresses(), &[TOPIC, "one"]);
    let work = Work::begin(nodes.by_number(), TOPIC, &Random(seed()));
    work.await_progress();
    work.await_group();
    nodes.kill(NODE);
    work.await_takeover(NODE);
    let data = nodes.node(NODE).data.clone();
    lose_votes(&data);
    nodes.run_all();
    work.await_progress();
    work.await_whole();
    until("what was set aside is still there", || set_aside(&data).is_empty().then_some(()));
    let said = nodes.node(NODE).said();
    for words in [
        "what this replica voted is lost",
        "what this node voted on the cluster's metadata is lost",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // What nobody else keeps is as it was: no other vote could count twice.
    await_agreement(&nodes.addresses(), &[TOPIC, "one"]);
    // Its word counts again: with another node away, every write needs it.
    nodes.kill(1);
    work.await_progress();
    nodes.run_all();
    work.await_whole();
    let history = work.end();
    println!("lost votes: {} records", history.check());
    nodes.stop();
}

/// A partition was on one node, and is on three now: where the first one finds nothing of what it
/// voted, it is not alone again, but waits for the others, and has what they have.
#[test]
fn who_began_alone_and_lost_its_votes_is_not_alone_again() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(nodes.address(1), TOPIC, 3, 1, &[]);
    let is_its = |number: &i32| {
        let found = partition(&addresses, TOPIC, *number);
        found.is_some_and(|it| it.replicas == [NODE])
    };
    let number = until("no partition is on that node", || (0..3).find(is_its));
    let write = || {
        until("nothing is written", || {
            let mut link = connect(leader_of(&addresses, TOPIC, number)?).ok()?;
            let answer = wire::produce(&mut link, TOPIC, number, wire::batch(&[b"it"])).ok()?;
            answer.error_code.is_none().then_some(())
        });
    };
    write();
    reassign::begin(nodes.address(1), TOPIC, &[(number, Some(vec![NODE, 1, 3]))].into());
    await_replicas(&addresses, TOPIC, number, &NODES);
    until("its move is still listed", || {
        addresses.iter().all(|it| reassign::listed(*it, TOPIC) == Some(vec![])).then_some(())
    });

    nodes.kill(NODE);
    await_leader(&nodes.others(NODE), TOPIC, number, |node| node != NODE);
    write();
    for file in votes(&nodes.node(NODE).data) {
        fs::remove_file(&file).expect("it can be removed");
    }
    nodes.run(&[NODE]);
    await_replicas(&addresses, TOPIC, number, &NODES);
    let said = nodes.node(NODE).said();
    let name = format!("{TOPIC}-{number}");
    let has = |words: &str| said.lines().any(|it| it.contains(words) && it.contains(&name));
    assert!(has("what this replica voted is lost") && has("votes again"), "{said}");

    // Its word counts again, and what it leads is what all have.
    nodes.kill(1);
    write();
    let mut link =
        connect(leader_of(&addresses, TOPIC, number).expect("a leader")).expect("a link");
    assert_eq!(wire::read_all(&mut link, TOPIC, number).expect("all of it").len(), 3);
    nodes.run_all();
    nodes.stop();
}

/// The same of the cluster's metadata: one node founded the cluster, which has three now.
#[test]
fn who_founded_the_cluster_alone_and_lost_its_votes_is_not_alone_again() {
    let mut nodes = Nodes::places(&[], Place::local);
    for node in NODES {
        knows_one_other(&mut nodes, node, 1);
    }
    nodes.run(&[1]);
    for node in [2, 3] {
        done(&cluster(&nodes, &["add", "--no-wait", &named(&nodes, node)]));
        nodes.run(&[node]);
    }
    await_status(&nodes, &[r#""voters":[1,2,3],"learners":[]"#]);
    // Node 1 says so as soon as it has begun: what is decided behind that is decided by all three.
    create_topic_with(nodes.address(1), "before", 1, 1, &[]);
    nodes.kill(1);
    create_topic_with(nodes.address(2), TOPIC, 1, 2, &[]);
    for file in votes(&nodes.node(1).data) {
        fs::remove_file(&file).expect("it can be removed");
    }
    nodes.run(&[1]);
    await_agreement(&nodes.addresses(), &[TOPIC]);
    let said = nodes.node(1).said();
    assert!(said.contains("voted on the cluster's metadata is lost"), "{said}");
    // Its word counts again, and it knows what was decided without it.
    await_status(&nodes, &[r#""voters":[1,2,3],"learners":[]"#]);
    nodes.kill(2);
    create_topic_with(nodes.address(1), "again", 1, 2, &[]);
    nodes.run(&[2]);
    nodes.stop();
}

#[test]
fn a_damaged_log_is_taken_anew_from_the_others() {
    let mut nodes = Nodes::start();
    create_topic(nodes.address(1), TOPIC, PARTITIONS);
    await_agreement(&nodes.addresses(), &[TOPIC]);
    let work = Work::begin(nodes.by_number(), TOPIC, &Random(seed()));
    work.await_progress();
    work.await_group();

    nodes.kill(NODE);
    work.await_takeover(NODE);
    let data = nodes.node(NODE).data.clone();
    damage(&data.join(DAMAGED));
    damage(&data.join(METADATA));
    fs::remove_dir_all(data.join(GONE)).expect("the log that is to be gone");
    nodes.run_all();
    work.await_progress();
    work.await_whole();
    until("what was set aside is still there", || set_aside(&data).is_empty().then_some(()));
    for partition in [DAMAGED, GONE, METADATA] {
        let said = nodes.node(NODE).said();
        let has =
            |words: &str| said.lines().any(|line| line.contains(words) && line.contains(partition));
        assert!(has("taken anew from the other replicas"), "{partition}: {said}");
        assert!(has("votes again"), "{partition}: {said}");
    }

    // Its word counts again: with another node away, every write needs it.
    nodes.kill(1);
    work.await_progress();
    nodes.run_all();
    work.await_whole();
    for node in NODES {
        assert!(nodes.node(node).is_running(), "node {node} ended by itself");
    }
    let history = work.end();
    println!("damaged logs: {} records", history.check());
    nodes.stop();
}
