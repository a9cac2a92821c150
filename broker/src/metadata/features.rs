//! Feature levels: one number for the whole cluster, which says what its nodes may write and say.
//!
//! A release serves a range of levels. What an older release could not read (a format on disk, a
//! record of group 0, a message between nodes) belongs to a level, and is written only where the
//! cluster's level has come to it: `image.level() >= N`, at the place where it is written. Reading
//! asks nothing. The level is raised by an operator, once every node serves the new one, and never
//! goes back; until then each node may go back to the release before.
//!
//! To Kafka's clients and tools it is the feature [`LEVEL`].

use std::fmt;

use super::image::{Cluster, Image};

/// The level's name among the cluster's features.
pub const LEVEL: &str = "vltava.level";

/// The level of a cluster that says none, and all that a node serves which says nothing.
pub const FIRST: i16 = 1;

/// The levels that a release serves: from, to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The lowest.
    pub min: i16,
    /// The highest.
    pub max: i16,
}

impl Levels {
    /// What this release serves.
    pub const SERVED: Self = Self { min: FIRST, max: FIRST };

    /// Whether there are such levels.
    pub fn are_possible(self) -> bool {
        (FIRST..=self.max).contains(&self.min)
    }

    /// Whether a node of such a release can be in a cluster at this level.
    pub fn serve(self, level: i16) -> bool {
        (self.min..=self.max).contains(&level)
    }

    /// That this release can be in a cluster at this level.
    ///
    /// # Errors
    /// It cannot: why, and what to do, in words for a person.
    pub fn check(self, level: i16) -> Result<(), String> {
        if level > self.max {
            return Err(format!(
                "the cluster is at feature level {level}, and this release serves {self}: it is \
                 too old; start one that serves {level}"
            ));
        }
        if level < self.min {
            return Err(format!(
                "the cluster is at feature level {level}, and this release serves {self}: it is \
                 too new; first run a release that serves {level} and {} on all nodes, and raise \
                 {LEVEL} with it",
                self.min
            ));
        }
        Ok(())
    }
}

impl Default for Levels {
    /// Of who says nothing.
    fn default() -> Self {
        Self { min: FIRST, max: FIRST }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "level {}", self.min),
            false => write!(f, "levels {} to {}", self.min, self.max),
        }
    }
}

impl Cluster {
    /// Its feature level.
    pub fn level(&self) -> i16 {
        self.features.get(LEVEL).copied().unwrap_or(FIRST)
    }

    /// The same cluster at another level. The first one stands nowhere: clusters were at it before
    /// there were levels.
    pub fn at_level(&self, level: i16) -> Self {
        let mut features = self.features.as_ref().clone();
        features.remove(LEVEL);
        if level != FIRST {
            features.insert(LEVEL.into(), level);
        }
        Self { features: features.into(), ..self.clone() }
    }
}

impl Image {
    /// The cluster's feature level: what its nodes may write and say.
    pub fn level(&self) -> i16 {
        self.cluster().map_or(FIRST, Cluster::level)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vltava_protocol::types::Uuid;

    use super::*;

    #[test]
    fn a_release_says_which_levels_it_is_too_old_or_too_new_for() {
        let levels = Levels { min: 2, max: 4 };
        for (level, wrong) in [(1, "too new"), (2, ""), (4, ""), (5, "too old"), (-1, "too new")] {
            let checked = levels.check(level);
            assert_eq!(checked.is_ok(), levels.serve(level), "{level}");
            assert!(checked.err().unwrap_or_default().contains(wrong), "{level}");
        }
        assert_eq!(format!("{levels}, {}", Levels::default()), "levels 2 to 4, level 1");
        assert!(levels.are_possible() && Levels::SERVED.are_possible());
        for (min, max) in [(0, 3), (3, 2), (-2, -1)] {
            assert!(!Levels { min, max }.are_possible());
        }
    }

    #[test]
    fn the_first_level_is_that_of_clusters_that_say_none() {
        let first = Cluster { id: Uuid(1), format_version: 1, features: Arc::default() };
        let other = [("other".into(), 7)].into();
        let with_other = Cluster { features: Arc::new(other), ..first.clone() };
        for cluster in [first, with_other] {
            let raised = cluster.at_level(3);
            assert_eq!((cluster.level(), raised.level()), (1, 3));
            assert_eq!(raised.features.len(), cluster.features.len() + 1);
            assert_eq!(raised.at_level(1), cluster);
        }
        assert_eq!(Image::default().level(), 1);
    }
}
