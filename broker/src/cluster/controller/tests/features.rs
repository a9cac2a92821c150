//! The feature level: who may raise it, when, and who is refused for it.

use vltava_protocol::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};

use super::*;
use crate::metadata::features::LEVEL;
use crate::metadata::image::{Node, NodeState};

const UPGRADE: i8 = 1;
const DOWNGRADES: [i8; 2] = [2, 3];

pub(super) fn request(validate_only: bool, level: i16, kind: i8) -> UpdateFeaturesRequest {
    let update = FeatureUpdateKey {
        feature: Str::from_static(LEVEL),
        max_version_level: level,
        upgrade_type: kind,
        ..FeatureUpdateKey::default()
    };
    UpdateFeaturesRequest {
        feature_updates: vec![update],
        validate_only,
        ..UpdateFeaturesRequest::default()
    }
}

impl Cluster {
    fn update(&mut self, request: UpdateFeaturesRequest) -> (ErrorCode, String) {
        match self.ask(Input::UpdateFeatures(request)) {
            Reply::UpdateFeatures(response) => (response.error_code, text(response.error_message)),
            other => panic!("{other:?}"),
        }
    }

    fn raise(&mut self, level: i16) -> (ErrorCode, String) {
        self.update(request(false, level, UPGRADE))
    }

    /// Registers a node whose release serves these levels.
    fn start(&mut self, node_id: i32, min: i16, max: i16) -> Reply {
        let levels = Levels { min, max };
        self.ask(Input::RegisterNode(Registration { levels, ..registration(node_id) }))
    }

    fn level(&self) -> i16 {
        self.state.image().level()
    }
}

fn is_refused(reply: &Reply) -> bool {
    matches!(reply, Reply::Refused { error: ErrorCode::UNSUPPORTED_VERSION, .. })
}

const DONE: (ErrorCode, String) = (ErrorCode::NONE, String::new());

#[test]
fn the_level_is_raised_once_all_nodes_serve_it_and_never_goes_back() {
    let mut cluster = Cluster::of(3);
    assert_eq!(cluster.level(), 1);
    for upgraded in 1..=3 {
        let (error, why) = cluster.raise(2);
        assert_eq!(error, ErrorCode::INVALID_UPDATE_VERSION);
        assert!(why.contains(&format!("Broker {upgraded} only supports versions 1-1.")), "{why}");
        cluster.start(upgraded, 1, 2);
    }
    // As it was, and back to the older release: nothing has happened yet.
    assert_eq!(cluster.raise(1), DONE);
    cluster.start(2, 1, 1);
    assert!(cluster.raise(2).1.contains("Broker 2"));
    cluster.start(2, 1, 2);
    assert_eq!(cluster.update(request(true, 2, UPGRADE)), DONE);
    assert_eq!(cluster.level(), 1, "it was only to be checked");
    assert_eq!(cluster.raise(2), DONE);
    assert_eq!(cluster.level(), 2);
    assert_eq!(cluster.raise(2), DONE);
    // From now on nobody who does not serve it.
    let refused = cluster.start(2, 1, 1);
    assert!(is_refused(&refused), "{refused:?}");
    assert!(is_refused(&cluster.start(4, 3, 5)));
    assert_eq!(cluster.state.image().node(2).unwrap().levels, Levels { min: 1, max: 2 });
    assert!(matches!(cluster.start(4, 2, 5), Reply::Registered { .. }));
    for kind in [UPGRADE].into_iter().chain(DOWNGRADES) {
        let (error, why) = cluster.update(request(false, 1, kind));
        assert_eq!(error, ErrorCode::INVALID_UPDATE_VERSION, "{why}");
    }
    assert_eq!(cluster.level(), 2);
}

#[test]
fn what_is_no_update_is_refused_as_kafka_refuses_it() {
    let mut cluster = Cluster::of(1);
    cluster.start(1, 1, 3);
    let mut of_kafka = request(false, 2, UPGRADE);
    of_kafka.feature_updates[0].feature = Str::from_static("metadata.version");
    let mut both = request(false, 2, UPGRADE);
    both.feature_updates.extend(of_kafka.feature_updates.clone());
    let cases = [
        (of_kafka, "The cluster has one feature"),
        (both, "for feature metadata.version"),
        (request(false, 2, 0), "given upgrade type"),
        (request(false, 2, 4), "given upgrade type"),
        (request(false, 2, 2), "Can't downgrade to a newer version."),
        (request(false, 0, UPGRADE), "without setting the upgrade type"),
        (request(false, -1, 3), "never goes back"),
        (request(false, 4, UPGRADE), "Broker 1 only supports versions 1-3."),
    ];
    for (request, words) in cases {
        let (error, why) = cluster.update(request);
        assert_eq!(error, ErrorCode::INVALID_UPDATE_VERSION, "{why}");
        assert!(why.starts_with("The update failed for all features since"), "{why}");
        assert!(why.contains(words), "{why}");
    }
    assert_eq!(cluster.level(), 1, "all or nothing");
    assert_eq!(cluster.raise(3), DONE);
}

#[test]
fn a_cluster_begins_at_the_level_that_its_founders_serve() {
    let mut cluster = Cluster::empty();
    cluster.ask(Input::Form { cluster_id: Uuid(9), level: 4 });
    assert_eq!(cluster.level(), 4);
    assert!(is_refused(&cluster.start(1, 1, 3)));
    assert!(matches!(cluster.start(2, 1, 4), Reply::Registered { .. }));
    for (min, max) in [(0, 4), (4, 3)] {
        let refused = cluster.start(3, min, max);
        let wrong = ErrorCode::INVALID_REGISTRATION;
        assert!(matches!(refused, Reply::Refused { error, .. } if error == wrong), "{refused:?}");
    }
}

#[test]
fn a_node_that_was_never_seen_keeps_nobody_from_raising_the_level() {
    let mut cluster = Cluster::of(1);
    cluster.start(1, 1, 2);
    let seen = cluster.state.image().node(1).unwrap().clone();
    let (state, disks) = (NodeState::Expected, Vec::new());
    let unseen = Node { id: 2, state, disks, levels: Levels::default(), ..seen };
    let (key, value) = Record::Node(2, Some(unseen)).encode().unwrap();
    cluster.controller.replay(&mut cluster.state, &KeyValue { key, value }, 0, 0).unwrap();
    assert_eq!(cluster.raise(2), DONE);
    assert!(is_refused(&cluster.start(2, 1, 1)));
}

#[test]
fn who_reads_the_log_learns_when_the_level_can_be_raised() {
    let mut cluster = Cluster::of(2);
    let mut notes_of = |input: Input| {
        let outcome =
            cluster.controller.handle(&cluster.state, &mut (), Ticket(0), input, Now::default());
        for record in &outcome.records {
            cluster.controller.replay(&mut cluster.state, record, 0, 0).unwrap();
        }
        outcome.notes
    };
    let start = |node_id, max| {
        let levels = Levels { min: 1, max };
        Input::RegisterNode(Registration { levels, ..registration(node_id) })
    };
    assert_eq!(notes_of(start(1, 2)), Vec::<String>::new());
    let possible = notes_of(start(2, 3));
    assert!(possible[0].contains("every node serves feature level 2"), "{possible:?}");
    assert_eq!(notes_of(start(2, 3)), Vec::<String>::new(), "said once");
    let raised = notes_of(Input::UpdateFeatures(request(false, 2, UPGRADE)));
    assert_eq!(raised, ["the cluster's feature level is raised: 1 to 2"]);
    assert_eq!(notes_of(start(1, 2)), Vec::<String>::new());
}
