//! UpdateFeatures: raises the cluster's feature level, where all its nodes serve the new one
//! (KIP-584, KIP-778).
//!
//! There is one feature, `vltava.level` ([`crate::metadata::features`]). It is raised for good:
//! nobody knows what nodes have written since, so going back is refused whatever kind of downgrade
//! is asked for. Nodes that were added and never seen do not count: they are judged when they
//! register.

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::update_features::{
    FeatureUpdateKey, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use vltava_protocol::types::Str;

use super::controller::{Decision, Reply};
use super::refusal::Refusal;
use crate::metadata::features::{LEVEL, Levels};
use crate::metadata::image::{Image, Node};
use crate::metadata::records::Record;

/// Kinds of updates, from the first to the last.
const UPGRADE: i8 = 1;
const UNSAFE_DOWNGRADE: i8 = 3;

/// All updates or none, as in Kafka.
pub(super) fn update(image: &Image, request: &UpdateFeaturesRequest) -> Decision {
    let mut level = image.level();
    for update in &request.feature_updates {
        match updated(image, level, update) {
            Ok(updated) => level = updated,
            Err(refusal) => return (Vec::new(), Reply::UpdateFeatures(refused(&refusal))),
        }
    }
    let is_kept = request.validate_only || level == image.level();
    let cluster = image.cluster().filter(|_| !is_kept);
    let records = cluster.map(|cluster| Record::Cluster(cluster.at_level(level)));
    (records.into_iter().collect(), Reply::UpdateFeatures(UpdateFeaturesResponse::default()))
}

fn refused(refusal: &Refusal) -> UpdateFeaturesResponse {
    let words = "The update failed for all features since the following feature had an error:";
    UpdateFeaturesResponse {
        error_code: refusal.error,
        error_message: Some(Str::from(format!("{words} {}", refusal.message))),
        ..UpdateFeaturesResponse::default()
    }
}

/// The level after an update.
fn updated(image: &Image, current: i16, update: &FeatureUpdateKey) -> Result<i16, Refusal> {
    let wanted = update.max_version_level;
    let invalid = |why: &str| {
        let (feature, error) = (&update.feature, ErrorCode::INVALID_UPDATE_VERSION);
        let words = format!("Invalid update version {wanted} for feature {feature}. {why}");
        Err(Refusal::new(error, words))
    };
    if update.feature != LEVEL {
        return invalid(&format!("The cluster has one feature, {LEVEL}, and not this one."));
    }
    if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&update.upgrade_type) {
        return invalid("The controller does not support the given upgrade type.");
    }
    let is_upgrade = update.upgrade_type == UPGRADE;
    if wanted < current && is_upgrade {
        return invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to \
             either safe or unsafe downgrade.",
        );
    }
    if wanted < current {
        return invalid(
            "The level never goes back: what nodes have written since it was raised may not be \
             readable below it.",
        );
    }
    if wanted > current && !is_upgrade {
        return invalid("Can't downgrade to a newer version.");
    }
    match counted(image).find(|node| !node.levels.serve(wanted)) {
        Some(Node { id, levels: Levels { min, max }, .. }) if wanted > current => {
            invalid(&format!("Broker {id} only supports versions {min}-{max}."))
        }
        _ => Ok(wanted),
    }
}

/// The nodes that a level must suit: all that were ever there, and so have a disk.
fn counted(image: &Image) -> impl Iterator<Item = &Node> + Clone {
    image.nodes().filter(|node| !node.disks.is_empty())
}

/// What was decided about the level, and what can be decided now, for whoever reads the broker's
/// log. `image` is before it.
pub(super) fn notes(image: &Image, decided: &[Record]) -> Vec<String> {
    let mut notes = Vec::new();
    for record in decided {
        match record {
            Record::Cluster(cluster) if image.cluster().is_some() => {
                let (from, to) = (image.level(), cluster.level());
                if from != to {
                    notes.push(format!("the cluster's feature level is raised: {from} to {to}"));
                }
            }
            Record::Node(id, node) => notes.extend(raisable(image, *id, node.as_ref())),
            _ => {}
        }
    }
    notes
}

/// Where every node serves a higher level than the cluster's, now that this one does or has gone.
fn raisable(image: &Image, id: i32, node: Option<&Node>) -> Option<String> {
    let before = counted(image).map(|node| node.levels.max).min();
    let others = counted(image).filter(|other| other.id != id);
    let possible = others.chain(node).map(|node| node.levels.max).min()?;
    let is_news = possible > image.level() && before.is_none_or(|before| before < possible);
    is_news.then(|| {
        format!(
            "every node serves feature level {possible}, and the cluster is at {}: once no node \
             is to go back to an older release, raise {LEVEL}",
            image.level()
        )
    })
}
