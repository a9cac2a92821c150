//! Nodes of two releases are one cluster: it goes on at the older one's feature level while nodes
//! are upgraded one by one, and goes back; the level is raised when all serve the higher one, and
//! from then on refuses who does not.
//!
//! The older release is this one, which serves one level. The newer one is this program, too, told
//! by its test to serve more ([`as_a_node`]): nobody else can tell it.
//!
//! - `VLTAVA_OLDER_BIN`: a binary of an earlier commit, which serves the same level, as the older
//!   release: then what the two write and say is really two programs'.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use vltava::cli::serve::Serve;
use vltava::metadata::features::{LEVEL, Levels};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use vltava_protocol::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes, free_address, options, peers};
use crate::producer::Random;
use crate::support::Broker;
use crate::view::{PATIENCE, await_agreement, connect, create_topic, until};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "upgraded";
/// Names the levels that [`as_a_node`] claims: `1-2`.
const CLAIM: &str = "VLTAVA_TEST_LEVELS";
/// Names a binary that is the older release in place of this one.
const OLDER: &str = "VLTAVA_OLDER_BIN";
/// What the older release serves.
const OLD: Levels = Levels::SERVED;
/// And the newer one.
const NEW: Levels = Levels { min: OLD.max, max: OLD.max + 1 };

/// What stands behind the name of the program that this one stands in for.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    serve: Serve,
}

/// No test: this program, started as a node that claims other levels than the release serves.
#[test]
fn as_a_node() {
    let Ok(claim) = std::env::var(CLAIM) else { return };
    let (min, max) = claim.split_once('-').expect("from-to");
    let level = |text: &str| text.parse().expect("a level");
    let levels = Levels { min: level(min), max: level(max) };
    let words = std::env::args().skip_while(|word| word != "serve");
    let Arguments { serve } = Arguments::parse_from(words);
    if let Err(error) = serve.run_as(levels, Instant::now()) {
        eprintln!("vltava: {error}");
        std::process::exit(1);
    }
}

/// From its next start on the node is of a release that serves these levels.
fn set_release(broker: &mut Broker, levels: Levels) {
    let claim = format!("{CLAIM}={}-{}", levels.min, levels.max);
    let program = std::env::current_exe().expect("this program").display().to_string();
    let words = ["env", &claim, &program, "--exact", "versions::as_a_node", "--nocapture", "--"];
    let older = std::env::var(OLDER).ok();
    // In place of the program that is named behind it.
    let in_place = older.as_deref().map(|it| ["sh", "-c", r#"shift; exec "$0" "$@""#, it]);
    let wrapper = match levels == OLD {
        true => in_place.as_ref().map_or(&[][..], |words| &words[..]),
        false => &words[..],
    };
    broker.options.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
}

/// Three of the older release.
fn start_old() -> Nodes {
    let mut nodes = Nodes::places(&[], crate::nodes::Place::local);
    NODES.into_iter().for_each(|node| set_release(nodes.node(node), OLD));
    nodes.run_all();
    nodes
}

fn change_release(nodes: &mut Nodes, node: i32, levels: Levels) {
    nodes.stop_node(node);
    set_release(nodes.node(node), levels);
    nodes.node(node).run();
}

/// What a node says of features.
fn features(address: SocketAddr) -> Option<ApiVersionsResponse> {
    let request = ApiVersionsRequest {
        client_software_name: Str::from_static("vltava-test"),
        client_software_version: Str::from_static("1.0"),
        ..ApiVersionsRequest::default()
    };
    connect(address).ok()?.call(&request).ok()
}

/// What a node serves, and what the cluster is at, as it has it.
fn levels(address: SocketAddr) -> Option<(Levels, i16)> {
    let said = features(address)?;
    let (supported, finalized) = (&said.supported_features[0], &said.finalized_features[0]);
    assert!(supported.name == LEVEL && finalized.name == LEVEL);
    assert_eq!(finalized.min_version_level, finalized.max_version_level);
    assert_eq!(said.finalized_features_epoch, i64::from(finalized.max_version_level));
    let served = Levels { min: supported.min_version, max: supported.max_version };
    Some((served, finalized.max_version_level))
}

fn await_level(addresses: &[SocketAddr], level: i16) {
    until("the nodes are at another level", || {
        let is_there = |address: &SocketAddr| levels(*address).is_some_and(|it| it.1 == level);
        addresses.iter().all(is_there).then_some(())
    });
}

/// Asks to raise the level, by one node or another.
fn raise(addresses: &[SocketAddr], level: i16, validate_only: bool) -> (ErrorCode, String) {
    let update = FeatureUpdateKey {
        feature: Str::from_static(LEVEL),
        max_version_level: level,
        ..FeatureUpdateKey::default()
    };
    let request = UpdateFeaturesRequest {
        feature_updates: vec![update],
        validate_only,
        ..UpdateFeaturesRequest::default()
    };
    let mut turned = addresses.to_vec();
    until("nobody can be asked", || {
        turned.rotate_left(1);
        let answer = connect(turned[0]).ok()?.call(&request).ok()?;
        let words = answer.error_message.map_or(String::new(), |words| words.to_string());
        (!answer.error_code.is_retriable()).then_some((answer.error_code, words))
    })
}

/// Tries to start a node, which must say why it does not.
fn is_refused(broker: &mut Broker, words: &str) {
    let status = broker.try_run().expect_err("it serves");
    assert_eq!(status.code(), Some(1), "{}", broker.said());
    let errors = broker.errors();
    let line = errors.lines().last().unwrap_or_default();
    assert!(line.contains(words), "{line}");
}

#[test]
fn a_cluster_is_upgraded_node_by_node_under_load() {
    let mut nodes = start_old();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    let work = Work::begin(nodes.by_number(), TOPIC, &Random(0x9e37_79b9_7f4a_7c15));
    work.await_progress();
    for node in NODES {
        let (error, words) = raise(&addresses, NEW.max, false);
        assert_eq!(error, ErrorCode::INVALID_UPDATE_VERSION);
        assert!(words.contains(&format!("Broker {node} only supports versions 1-1")), "{words}");
        change_release(&mut nodes, node, NEW);
        work.await_whole();
        work.await_progress();
        let mixed = levels(nodes.address(node)).expect("an answer");
        assert_eq!(mixed, (NEW, OLD.max), "node {node} is new, and the cluster at the old level");
        if node == 2 {
            // Back to the old release, and on again: nothing has happened that it could not read.
            change_release(&mut nodes, node, OLD);
            work.await_whole();
            work.await_progress();
            assert_eq!(levels(nodes.address(node)), Some((OLD, OLD.max)));
            change_release(&mut nodes, node, NEW);
            work.await_whole();
            work.await_progress();
        }
    }
    if std::env::var_os(OLDER).is_some() {
        go_back_and_on(&mut nodes, &work);
    }
    let said: String = NODES.map(|node| nodes.node(node).errors()).concat();
    assert!(said.contains("every node serves feature level 2"), "nobody is told that it can be");
    assert_eq!(raise(&addresses, NEW.max, true), (ErrorCode::NONE, String::new()));
    await_level(&addresses, OLD.max);
    assert_eq!(raise(&addresses, NEW.max, false), (ErrorCode::NONE, String::new()));
    await_level(&addresses, NEW.max);
    work.await_whole();
    work.await_progress();
    refuse_others(&mut nodes, &work);
    // The level is what the directories and the log say, not what was in memory.
    nodes.kill_all();
    nodes.run_all();
    await_level(&addresses, NEW.max);
    work.await_whole();
    work.await_progress();
    work.end().check();
    nodes.stop();
}

/// All go back to the older release, one by one, and on again.
fn go_back_and_on(nodes: &mut Nodes, work: &Work) {
    for levels in [OLD, NEW] {
        for node in NODES {
            change_release(nodes, node, levels);
            work.await_whole();
            work.await_progress();
            work.await_group();
        }
    }
}

/// Once the level is raised, releases that do not serve it stay outside.
fn refuse_others(nodes: &mut Nodes, work: &Work) {
    let others = nodes.others(3);
    // By what its own directory says.
    nodes.stop_node(3);
    set_release(nodes.node(3), OLD);
    is_refused(nodes.node(3), "the cluster is at feature level 2, and this release serves level 1");
    let newest = Levels { min: NEW.max + 1, max: NEW.max + 2 };
    set_release(nodes.node(3), newest);
    is_refused(nodes.node(3), "and this release serves levels 3 to 4: it is too new");
    // By the others, where its directory says nothing.
    let data = nodes.directory.join("old-and-empty");
    std::fs::create_dir(&data).expect("a directory for the data");
    let mut known = nodes.peer_addresses.clone();
    known.last_mut().expect("three").1 = free_address();
    let mut old = Broker::new(options(3, &peers(&known)), &data);
    set_release(&mut old, OLD);
    let (ready, _errors) = old.begin();
    says(&old, &["no session with a node", "the cluster is at feature level 2, and node 3"]);
    says(nodes.node(1), &["refused a node", "the cluster is at feature level 2, and node 3"]);
    assert!(ready.try_recv().is_err(), "it serves:\n{}", old.said());
    assert!(old.stop().success(), "{}", old.said());
    work.await_progress();
    assert!(others.iter().all(|address| levels(*address).is_some_and(|it| it.1 == NEW.max)));
    set_release(nodes.node(3), NEW);
    nodes.node(3).run();
    work.await_whole();
    work.await_progress();
}

/// Waits until the process has said something of this kind.
fn says(broker: &Broker, words: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    let has_said = |line: &str| words.iter().all(|word| line.contains(word));
    while !broker.errors().lines().any(has_said) {
        assert!(Instant::now() < deadline, "not said: {words:?}; but:\n{}", broker.said());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cluster_begins_at_the_level_that_all_of_its_founders_serve() {
    let mut nodes = Nodes::places(&[], crate::nodes::Place::local);
    NODES.into_iter().zip([NEW, OLD, NEW]).for_each(|(node, levels)| {
        set_release(nodes.node(node), levels);
    });
    nodes.run_all();
    let addresses = nodes.addresses();
    create_topic(addresses[1], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    await_level(&addresses, OLD.max);
    nodes.stop();
    let mut nodes = Nodes::places(&[], crate::nodes::Place::local);
    NODES.into_iter().for_each(|node| set_release(nodes.node(node), NEW));
    nodes.run_all();
    await_level(&nodes.addresses(), NEW.max);
    nodes.stop();
}
