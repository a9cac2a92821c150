//! This node and the cluster's feature level ([`crate::metadata::features`]): it acts at no level
//! that its release does not serve, and notes the highest that it has acted at in its data
//! directory. A release that does not serve that one refuses the directory, and touches nothing in
//! it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::identity::{self, Identity};
use super::view::Node;
use crate::metadata::features::Levels;
use crate::metadata::image::Image;
use crate::peer::greeting::{Introduction, Refusal, RefusalCode};
use crate::runtime::Runtime;

/// Between two attempts to note a level, on a disk that is full or fails.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a node does not go on, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its group 0 cannot be used.
    Group0(String),
    /// Its release, or its number, is not one for its cluster, or its data directory.
    Unfit(String),
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self::Group0(why)
    }
}

/// The highest levels that other nodes serve, as they said it last. On shard 0.
pub(super) type HeardLevels = RefCell<BTreeMap<i32, i16>>;

impl<R: Runtime> Node<R> {
    /// That this program, and this release, may use the data directory at all: to be asked before
    /// anything else is done with it.
    ///
    /// # Errors
    /// It may not, or the directory does not say.
    pub async fn check_directory(&self) -> Result<(), Ended> {
        let disk = self.parts.runtime.disk();
        identity::check_not_kafkas(disk).await.map_err(Ended::Unfit)?;
        let found = identity::read(disk).await?;
        let noted = found.map_or(Ok(()), |found| self.parts.levels.check(found.level));
        noted.map_err(Ended::Unfit)
    }

    /// The highest level that this node has acted at: where it has no image yet, or an old one,
    /// the one that its directory names.
    fn level_known(&self) -> i16 {
        let noted = self.identity.borrow().as_ref().map_or(0, |identity| identity.level);
        noted.max(self.image().level())
    }

    /// That a node serves the cluster's level. To be asked on shard 0.
    pub(super) fn admit_level(&self, introduction: &Introduction) -> Result<(), Refusal> {
        let served = i16::try_from(introduction.feature_level).unwrap_or(i16::MAX);
        let level = self.level_known();
        let Introduction { node_id, software, .. } = introduction;
        self.heard_levels.borrow_mut().insert(*node_id, served);
        if served >= level {
            return Ok(());
        }
        let words = format!(
            "the cluster is at feature level {level}, and node {node_id} ({software}) serves up to \
             {served}"
        );
        Err(Refusal::new(RefusalCode::VERSION, words))
    }

    /// The level at which a new cluster begins: the highest that all serve who were heard of. All
    /// founders were when it was founded.
    pub(super) fn level_to_form_at(&self) -> i16 {
        let Levels { min, max } = self.parts.levels;
        let heard = self.heard_levels.borrow();
        heard.values().copied().fold(max, i16::min).max(min)
    }

    /// Before anything acts at the level of an image: this release serves it, and from now on the
    /// directory is one of that level. Keeps trying where the disk does not take that.
    pub(super) async fn settle_level(&self, image: &Image) -> Result<(), Ended> {
        let level = image.level();
        self.parts.levels.check(level).map_err(Ended::Unfit)?;
        let known = self.identity.borrow().clone();
        let Some(known) = known.filter(|known| known.level < level) else { return Ok(()) };
        let noted = Identity { level, ..known };
        let runtime = &self.parts.runtime;
        let mut is_told = false;
        while let Err(error) = identity::write(runtime, &noted).await {
            if !is_told {
                tracing::warn!(level, error, "the feature level cannot be noted; trying again");
                is_told = true;
            }
            runtime.sleep(AGAIN).await;
        }
        *self.identity.borrow_mut() = Some(noted);
        tracing::info!(level, "this node is at the cluster's feature level");
        Ok(())
    }
}
