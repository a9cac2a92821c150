//! A majority of the nodes is gone for good, with their disks: what is left goes on.

use std::fs;
use std::process::Output;

use crate::nodes::{Nodes, vltava};
use crate::support::{get, wire};
use crate::view::{
    await_partition, await_replicas, connect, create_topic_with, leader_of, partition, until,
};

const TOPIC: &str = "left";
const PARTITIONS: i32 = 4;

/// `vltava cluster recover` without these nodes, asked of one that is left.
fn recover(nodes: &mut Nodes, left: i32, gone: &[&str]) -> Output {
    let (admin, bootstrap) = (nodes.node(left).admin.to_string(), nodes.address(left).to_string());
    let mut arguments = vec!["cluster", "recover", "--yes", "--admin", &admin, "-b", &bootstrap];
    arguments.extend(gone);
    vltava(&arguments)
}

/// `vltava cluster status`, in JSON.
fn status(bootstrap: &str) -> String {
    let output = vltava(&["cluster", "status", "--json", "-b", bootstrap]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(nodes: &Nodes, number: i32, value: &str) {
    let addresses = nodes.addresses();
    until("nothing can be written", || {
        let mut link = connect(leader_of(&addresses, TOPIC, number)?).ok()?;
        let answer = wire::produce(&mut link, TOPIC, number, wire::batch(&[value.as_bytes()]));
        answer.ok()?.error_code.is_none().then_some(())
    });
}

/// All that is there: something always is, though a new leader may not be ready to give it.
fn read(nodes: &Nodes, number: i32) -> Vec<String> {
    let addresses = nodes.addresses();
    until("nothing can be read", || {
        let mut link = connect(leader_of(&addresses, TOPIC, number)?).ok()?;
        let values = wire::read_all(&mut link, TOPIC, number).ok()?;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let texts: Vec<String> = values.iter().map(|(_, value)| text(value)).collect();
        (!texts.is_empty()).then_some(texts)
    })
}

#[test]
fn a_majority_that_is_gone_for_good_is_gone_on_without() {
    let mut nodes = Nodes::start();
    create_topic_with(nodes.address(1), TOPIC, PARTITIONS, 3, &[]);
    create_topic_with(nodes.address(1), "one", 1, 1, &[]);
    for number in 0..PARTITIONS {
        await_partition(&nodes.addresses(), TOPIC, number, |it| it.in_sync.len() == 3);
        write(&nodes, number, "before");
    }
    let refused = recover(&mut nodes, 1, &["2", "3"]);
    assert!(said(&refused).contains("node 2 is there: it is not gone"), "{}", said(&refused));

    nodes.kill(2);
    nodes.kill(3);
    let admin = nodes.node(1).admin;
    until("node 1 has no plan", || {
        let (status, said) = get(admin, "/recover/2,3").ok()?;
        // Not even for the moment in which it takes one of them for the leader.
        assert_ne!(status, 404, "{said}");
        (status == 200).then_some(())
    });
    nodes.wipe(2);
    nodes.wipe(3);
    let refused = until("node 1 does not find out", || {
        let output = recover(&mut nodes, 1, &["2"]);
        said(&output).contains("node 3 is not there either").then_some(output)
    });
    assert_eq!(refused.status.code(), Some(1));
    // Nobody leads group 0 who could say so: the nodes that are gone are shown as gone regardless.
    let shown = status(&nodes.address(1).to_string());
    for (node, is_present) in [(1, true), (2, false), (3, false)] {
        let expected = format!(r#""id":{node},"state":"there","present":{is_present}"#);
        assert!(shown.contains(&expected), "{expected}: {shown}");
    }
    // Also one that was started again since, and serves no clients.
    nodes.kill(1);
    let (ready, _errors) = nodes.node(1).begin();
    let done = until("node 1 does not go on alone", || {
        let output = recover(&mut nodes, 1, &["2", "3"]);
        output.status.success().then_some(output)
    });
    let words = said(&done);
    for expected in [
        "nodes 1, 2, 3 vote, and 2, 3 are gone",
        "node 1 becomes the only voter",
        "must not run again with the disks that they had",
        "next: the cluster still counts nodes 2, 3",
    ] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    ready.recv().expect("it serves");
    for number in 0..PARTITIONS {
        assert_eq!(read(&nodes, number), ["before"]);
        write(&nodes, number, "alone");
    }

    // Others take the places of those that are gone: then it is a cluster as before.
    nodes.run(&[2, 3]);
    for number in 0..PARTITIONS {
        await_replicas(&nodes.addresses(), TOPIC, number, &[1, 2, 3]);
    }
    until("the others get no vote", || {
        let status = status(&nodes.bootstrap());
        let is_whole = status.contains(r#""voters":[1,2,3],"learners":[]"#);
        (is_whole && status.contains(r#""moving":[]"#)).then_some(())
    });
    nodes.kill(1);
    for number in 0..PARTITIONS {
        write(&nodes, number, "again");
        assert_eq!(read(&nodes, number), ["before", "alone", "again"]);
    }
    nodes.run(&[1]);
    assert!(partition(&nodes.addresses(), TOPIC, 0).is_some());
    nodes.stop();
}

/// Two that were stopped in order are gone as well as two that were killed, and asking once is
/// enough, though whoever controls the cluster from then on has not looked yet who is there.
#[test]
fn nodes_that_were_stopped_are_gone() {
    let mut nodes = Nodes::start();
    create_topic_with(nodes.address(1), TOPIC, 1, 3, &[]);
    await_partition(&nodes.addresses(), TOPIC, 0, |it| it.in_sync.len() == 3);
    write(&nodes, 0, "before");
    nodes.stop_node(2);
    nodes.stop_node(3);
    let done = recover(&mut nodes, 1, &["2", "3"]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(read(&nodes, 0), ["before"]);
    nodes.stop();
}

/// One node is gone, one missed the last records, and the third has them in a log that cannot be
/// opened for now: nobody is named, and what it has is there once it can be.
#[test]
fn who_is_there_and_cannot_say_what_it_has_is_not_gone() {
    let mut nodes = Nodes::start();
    create_topic_with(nodes.address(1), TOPIC, 1, 3, &[]);
    await_partition(&nodes.addresses(), TOPIC, 0, |it| it.in_sync.len() == 3);
    write(&nodes, 0, "before");
    nodes.kill(1);
    write(&nodes, 0, "later");
    nodes.kill(2);
    nodes.kill(3);
    nodes.wipe(3);
    let log = nodes.node(2).data.join(format!("{TOPIC}-0"));
    let (segment, aside) = (log.join("00000000000000000000.log"), log.join("aside"));
    fs::rename(&segment, &aside).expect("its segment");
    fs::create_dir(&segment).expect("what cannot be read");
    nodes.run(&[1, 2]);
    let refused = recover(&mut nodes, 1, &["3"]);
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("Node 2 is there, keeps the partition, and cannot say"), "{words}");
    nodes.kill(2);
    fs::remove_dir(&segment).expect("what cannot be read");
    fs::rename(&aside, &segment).expect("its segment");
    nodes.run(&[2]);
    assert_eq!(read(&nodes, 0), ["before", "later"]);
    nodes.run(&[3]);
    nodes.stop();
}
