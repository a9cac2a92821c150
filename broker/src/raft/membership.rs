//! Who belongs to a group, and which of them are enough.

use vltava_protocol::types::Uuid;

use super::quorum;

/// The most members of a group.
pub const MEMBERS_MAX: usize = 64;

/// A disk of a node. A wiped disk has another id: it has no vote until it is made a voter anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The node.
    pub node: i32,
    /// The disk's id, made when it was formatted.
    pub disk: Uuid,
}

/// One member, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    /// Who.
    pub id: ReplicaId,
    /// It votes, also once the change that is under way is through.
    pub is_voter: bool,
    /// It voted before the change that is under way.
    pub was_voter: bool,
    /// It gets the log, and has no vote once no change is under way.
    pub is_learner: bool,
}

impl Seat {
    const VOTES: u8 = 1;
    const VOTED: u8 = 2;
    const LEARNS: u8 = 4;
    /// All bits that mean something.
    pub const ROLES: u8 = Self::VOTES | Self::VOTED | Self::LEARNS;

    /// What it is, as bits: 1 it votes, 2 it voted, 4 it learns. Wherever a seat is written, on a
    /// disk or to a peer, it is by these.
    pub fn roles(&self) -> u8 {
        let role = |is: bool, bit| if is { bit } else { 0 };
        role(self.is_voter, Self::VOTES)
            | role(self.was_voter, Self::VOTED)
            | role(self.is_learner, Self::LEARNS)
    }

    /// The seat of this replica by such bits; others say nothing.
    pub fn with_roles(id: ReplicaId, roles: u8) -> Self {
        let is = |bit| roles & bit != 0;
        let (is_voter, was_voter) = (is(Self::VOTES), is(Self::VOTED));
        Self { id, is_voter, was_voter, is_learner: is(Self::LEARNS) }
    }
}

/// The members of a group, each once, by id. While a change is under way (somebody
/// [`Seat::was_voter`]) both the old voters and the new ones must agree (joint consensus, Ongaro
/// 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Membership {
    seats: Vec<Seat>,
}

impl Membership {
    /// Voters and learners; who is named as both votes.
    pub fn new(
        voters: impl IntoIterator<Item = ReplicaId>,
        learners: impl IntoIterator<Item = ReplicaId>,
    ) -> Self {
        let seat =
            |is_voter| move |id| Seat { id, is_voter, was_voter: false, is_learner: !is_voter };
        let voters = voters.into_iter().map(seat(true));
        Self::of_seats(voters.chain(learners.into_iter().map(seat(false))).collect())
    }

    /// These seats, sorted; of two for one id, the first.
    fn of_seats(mut seats: Vec<Seat>) -> Self {
        seats.sort_by_key(|seat| seat.id);
        seats.dedup_by_key(|seat| seat.id);
        seats.shrink_to_fit();
        Self { seats }
    }

    /// What a peer or a disk says; `None` where it cannot be: not sorted, too many, nobody who
    /// votes, or a seat that is nothing.
    pub fn from_seats(seats: Vec<Seat>) -> Option<Self> {
        let rises = seats.windows(2).all(|pair| pair[0].id < pair[1].id);
        let is_something = |seat: &Seat| {
            (seat.is_voter || seat.was_voter || seat.is_learner)
                && !(seat.is_voter && seat.is_learner)
        };
        let has_voter = seats.iter().any(|seat| seat.is_voter);
        let is_sound =
            rises && has_voter && seats.len() <= MEMBERS_MAX && seats.iter().all(is_something);
        is_sound.then_some(Self { seats })
    }

    /// All members, each once, by id.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// All members' ids.
    pub fn ids(&self) -> impl Iterator<Item = ReplicaId> + Clone {
        self.seats.iter().map(|seat| seat.id)
    }

    /// Who votes, also once the change that is under way is through.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaId> + Clone {
        self.seats.iter().filter(|seat| seat.is_voter).map(|seat| seat.id)
    }

    /// Who voted before the change that is under way.
    pub fn outgoing(&self) -> impl Iterator<Item = ReplicaId> + Clone {
        self.seats.iter().filter(|seat| seat.was_voter).map(|seat| seat.id)
    }

    /// Who has no vote once no change is under way.
    pub fn learners(&self) -> impl Iterator<Item = ReplicaId> + Clone {
        self.seats.iter().filter(|seat| seat.is_learner).map(|seat| seat.id)
    }

    /// Whether a change is under way.
    pub fn is_joint(&self) -> bool {
        self.seats.iter().any(|seat| seat.was_voter)
    }

    /// Whether this replica has a vote.
    pub fn is_voter(&self, id: &ReplicaId) -> bool {
        self.seats.iter().any(|seat| seat.id == *id && (seat.is_voter || seat.was_voter))
    }

    /// Whether this replica is the only one that has a vote.
    pub fn is_sole_voter(&self, id: &ReplicaId) -> bool {
        let others = self.seats.iter().filter(|seat| seat.id != *id);
        self.is_voter(id) && !others.clone().any(|seat| seat.is_voter || seat.was_voter)
    }

    /// Whether nobody else belongs to the group: what this replica's log holds, nobody has seen.
    pub fn is_alone(&self, id: &ReplicaId) -> bool {
        self.seats.len() == 1 && self.is_sole_voter(id)
    }

    /// Whether those for which `agrees` are a majority, of the old voters and of the new ones.
    pub fn is_quorum(&self, agrees: impl Fn(&ReplicaId) -> bool) -> bool {
        let value = |id: &ReplicaId| i64::from(agrees(id));
        self.reached(1, value) == Some(1)
    }

    /// The largest value that enough voters have reached: a majority, and as many as
    /// `min_insync_replicas` asks for (or all, where they are fewer); of the old voters and of the
    /// new ones.
    pub fn reached(
        &self,
        min_insync_replicas: usize,
        value_of: impl Fn(&ReplicaId) -> i64,
    ) -> Option<i64> {
        let new = reached_among(self.voters(), min_insync_replicas, &value_of)?;
        if !self.is_joint() {
            return Some(new);
        }
        let old = reached_among(self.outgoing(), min_insync_replicas, &value_of)?;
        Some(old.min(new))
    }

    /// The members while the change to `next` is under way: nothing is decided without both. Where
    /// the voters stay the same, that is `next`: one step is enough.
    pub fn entering(&self, next: &Self) -> Self {
        if self.voters().eq(next.voters()) {
            return next.left();
        }
        let mut seats: Vec<Seat> = next.left().seats;
        for id in self.voters() {
            match seats.iter_mut().find(|seat| seat.id == id) {
                Some(seat) => seat.was_voter = true,
                None => {
                    let (is_voter, is_learner) = (false, false);
                    seats.push(Seat { id, is_voter, was_voter: true, is_learner });
                }
            }
        }
        Self::of_seats(seats)
    }

    /// The members once the change that is under way is through.
    pub fn left(&self) -> Self {
        let stays = |seat: &&Seat| seat.is_voter || seat.is_learner;
        let seats = self.seats.iter().filter(stays);
        Self { seats: seats.map(|seat| Seat { was_voter: false, ..*seat }).collect() }
    }
}

/// The largest value that enough of these have reached.
fn reached_among(
    ids: impl Iterator<Item = ReplicaId> + Clone,
    min_insync_replicas: usize,
    value_of: impl Fn(&ReplicaId) -> i64,
) -> Option<i64> {
    let needed = quorum::needed(ids.clone().count(), min_insync_replicas);
    // A closure by reference can be copied with the iterator.
    let value_of = &value_of;
    quorum::reached_by(needed, ids.map(move |id| value_of(&id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(nodes: &str) -> Vec<ReplicaId> {
        let id = |node: &str| node.parse().map(|node| ReplicaId { node, disk: Uuid(7) });
        nodes.split_whitespace().filter_map(|node| id(node).ok()).collect()
    }

    /// `voters`, `voters + learners`, or `voters < old voters + learners` while that changes.
    fn members(text: &str) -> Membership {
        let (voting, learners) = text.split_once('+').unwrap_or((text, ""));
        let Some((new, old)) = voting.split_once('<') else {
            return Membership::new(ids(voting), ids(learners));
        };
        Membership::new(ids(old), []).entering(&Membership::new(ids(new), ids(learners)))
    }

    fn shown(members: &Membership) -> String {
        let names = |ids: &mut dyn Iterator<Item = ReplicaId>| {
            ids.map(|id| id.node.to_string()).collect::<Vec<_>>().join(" ")
        };
        let mut text = names(&mut members.voters());
        if members.is_joint() {
            text = format!("{text} < {}", names(&mut members.outgoing()));
        }
        let learners = names(&mut members.learners());
        if learners.is_empty() { text } else { format!("{text} + {learners}") }
    }

    /// members, who agrees, whether that is enough
    const QUORUMS: &[(&str, &str, bool)] = &[
        ("", "1 2 3", false),
        ("1", "", false),
        ("1", "1", true),
        ("1", "2 3", false),
        ("1 2", "1", false),
        ("1 2", "1 2", true),
        ("1 2 3", "2", false),
        ("1 2 3", "2 3", true),
        ("1 2 3", "3 4 5", false),
        ("1 2 3 4", "1 2", false),
        ("1 2 3 4", "1 2 4", true),
        ("1 2 3 4 5", "1 2", false),
        ("1 2 3 4 5", "1 2 5", true),
        // learners have no vote
        ("1 2 3 + 4 5", "1 4 5", false),
        ("1 2 3 + 4 5", "1 2", true),
        ("1 + 2", "2", false),
        // both halves of a change must agree
        ("1 2 3 < 1", "1", false),
        ("1 2 3 < 1", "2 3", false),
        ("1 2 3 < 1", "1 2", true),
        ("3 4 5 < 1 2 3", "3 4 5", false),
        ("3 4 5 < 1 2 3", "1 2 3", false),
        ("3 4 5 < 1 2 3", "2 3 4", true),
        ("4 5 < 1 2 3", "1 2 4", false),
        ("4 5 < 1 2 3", "1 2 4 5", true),
        ("1 2 < 1 2 3 4 5", "1 2", false),
        ("1 2 < 1 2 3 4 5", "1 2 5", true),
        // who becomes a learner votes until then
        ("2 3 < 1 2 3 + 1", "2 3", true),
        ("2 < 1 2 3 + 1 3", "1 2", true),
        ("2 < 1 2 3 + 1 3", "1 3", false),
    ];

    /// members, min.insync.replicas, what each of 1 2 3 4 5 has flushed, what enough have
    const REACHED: &[(&str, usize, [i64; 5], Option<i64>)] = &[
        ("", 1, [9, 9, 9, 9, 9], None),
        ("1", 3, [7, 0, 0, 0, 0], Some(7)),
        ("1 2 3", 1, [9, 5, 3, 0, 0], Some(5)),
        ("1 2 3", 3, [9, 5, 3, 0, 0], Some(3)),
        ("1 2 3", 9, [9, 5, 3, 0, 0], Some(3)),
        ("1 2 3 + 4 5", 1, [9, 5, 3, 9, 9], Some(5)),
        ("1 2 3 4 5", 1, [9, 5, 3, 2, 1], Some(3)),
        ("1 2 3 4 5", 4, [9, 5, 3, 2, 1], Some(2)),
        // the lesser of both halves, each with as many as it has
        ("3 4 5 < 1 2", 1, [9, 8, 3, 2, 1], Some(2)),
        ("3 4 5 < 1 2", 2, [2, 9, 8, 7, 9], Some(2)),
        ("3 4 5 < 1 2", 3, [9, 8, 3, 2, 1], Some(1)),
        ("1 < 1 2 3", 1, [9, 1, 4, 0, 0], Some(4)),
    ];

    #[test]
    fn golden_table_of_quorums() {
        for (text, agree, is_enough) in QUORUMS {
            let agree = ids(agree);
            assert_eq!(members(text).is_quorum(|id| agree.contains(id)), *is_enough, "{text}");
        }
    }

    #[test]
    fn golden_table_of_what_is_reached() {
        for (text, least, flushed, reached) in REACHED {
            let flushed = |id: &ReplicaId| flushed[usize::try_from(id.node - 1).unwrap_or(0)];
            assert_eq!(members(text).reached(*least, flushed), *reached, "{text} min {least}");
        }
    }

    #[test]
    fn golden_table_of_changes() {
        // before, to be, while it changes, after
        let table = [
            ("1 2 3", "1 2 3", "1 2 3", "1 2 3"),
            ("1 2 3", "1 2 3 + 4", "1 2 3 + 4", "1 2 3 + 4"),
            ("1 2 3 + 4", "1 2 3", "1 2 3", "1 2 3"),
            ("1 2 3 + 4", "1 2 4", "1 2 4 < 1 2 3", "1 2 4"),
            ("1 2 3", "2 3 + 1", "2 3 < 1 2 3 + 1", "2 3 + 1"),
            ("1", "2", "2 < 1", "2"),
            ("1", "1 2 3 + 4 5", "1 2 3 < 1 + 4 5", "1 2 3 + 4 5"),
            // who is named as both votes
            ("1 2", "1 2 3 + 3", "1 2 3 < 1 2", "1 2 3"),
        ];
        for (before, next, during, after) in table {
            let entered = members(before).entering(&members(next));
            assert_eq!(shown(&entered), during, "{before} to {next}");
            assert_eq!(shown(&entered.left()), after, "{before} to {next}");
            let seats = entered.seats().to_vec();
            assert_eq!(Membership::from_seats(seats), Some(entered));
        }
    }

    #[test]
    fn who_is_alone() {
        let one = ids("1")[0];
        let table = [
            ("1", true, true),
            ("1 + 2", true, false),
            ("1 2", false, false),
            ("1 < 1 2", false, false),
            ("2 < 1", false, false),
            ("2", false, false),
        ];
        for (text, is_sole, is_alone) in table {
            let members = members(text);
            assert_eq!(members.is_sole_voter(&one), is_sole, "{text}");
            assert_eq!(members.is_alone(&one), is_alone, "{text}");
        }
    }

    #[test]
    fn seats_that_cannot_be_are_refused() {
        let seat = |node: i32, is_voter, was_voter, is_learner| {
            let id = ReplicaId { node, disk: Uuid(7) };
            Seat { id, is_voter, was_voter, is_learner }
        };
        let voter = |node| seat(node, true, false, false);
        for seats in [
            vec![],
            vec![voter(2), voter(1)],
            vec![voter(1), voter(1)],
            vec![seat(1, false, false, true)],
            vec![voter(1), seat(2, false, false, false)],
            vec![voter(1), seat(2, true, false, true)],
            (0..65).map(voter).collect(),
        ] {
            assert_eq!(Membership::from_seats(seats.clone()), None, "{seats:?}");
        }
        assert!(Membership::from_seats((0..64).map(voter).collect()).is_some());
    }
}
