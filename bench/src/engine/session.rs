//! A fetch session (KIP-227): the broker remembers what a consumer reads, so that a request names
//! only what has changed. Pure.

use crate::engine::map::index;

/// Consumers of fewer partitions name all of them each time, as librdkafka does.
const PARTITIONS_MIN: usize = 16;
/// The epoch of a request that names all, and begins a session.
const FIRST_EPOCH: i32 = 0;
/// That of one that wants no session.
const NO_EPOCH: i32 = -1;

/// What a consumer reads from one broker, and what the broker knows of that.
#[derive(Debug)]
pub struct Session {
    /// In ascending order.
    partitions: Vec<u32>,
    id: i32,
    /// That of the last request, until it is answered; then that of the next.
    epoch: i32,
    /// The next request names all, whatever a request that is under way is answered.
    names_all: bool,
    /// Where each partition was asked for last, by its dense number; -1: it was not.
    asked: Vec<i64>,
    /// Partitions that have moved on since they were asked for.
    changed: Vec<u32>,
    /// Where the next request that names all begins, so that no partition is always first.
    first: usize,
}

/// What the next request is to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The session's id and epoch.
    pub session: (i32, i32),
    /// Partitions, and from where.
    pub partitions: Vec<(u32, i64)>,
}

impl Session {
    /// Of a run with so many partitions; it reads none of them yet.
    pub fn new(partition_count: usize) -> Self {
        Self {
            partitions: Vec::new(),
            id: 0,
            epoch: FIRST_EPOCH,
            names_all: true,
            asked: vec![-1; partition_count],
            changed: Vec::new(),
            first: 0,
        }
    }

    /// Reads these from now on, and no others.
    pub fn assign(&mut self, partitions: Vec<u32>) {
        self.partitions = partitions;
        self.first = 0;
        self.restart();
    }

    /// Whether it reads anything.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// The next request names all. The broker forgets the session that it replaces.
    pub fn restart(&mut self) {
        self.names_all = true;
    }

    /// The connection is gone, and with it what the broker knew.
    pub fn lose(&mut self) {
        self.id = 0;
        self.restart();
    }

    /// What to ask for now; `positions` are by dense number.
    pub fn ask(&mut self, positions: &[i64]) -> Names {
        let position = |partition: u32| positions.get(index(partition)).copied().unwrap_or(-1);
        if !self.names_all && self.id != 0 {
            let mut partitions = Vec::with_capacity(self.changed.len());
            for partition in self.changed.drain(..) {
                let offset = position(partition);
                self.asked[index(partition)] = offset;
                partitions.push((partition, offset));
            }
            return Names { session: (self.id, self.epoch), partitions };
        }
        self.names_all = false;
        self.epoch = FIRST_EPOCH;
        self.changed.clear();
        self.asked.fill(-1);
        let (behind, before) = self.partitions.split_at(self.first);
        let all: Vec<(u32, i64)> =
            before.iter().chain(behind).map(|at| (*at, position(*at))).collect();
        for (partition, offset) in &all {
            self.asked[index(*partition)] = *offset;
        }
        self.first = (self.first + 1) % self.partitions.len().max(1);
        let wants_session = self.partitions.len() >= PARTITIONS_MIN;
        let epoch = if wants_session { FIRST_EPOCH } else { NO_EPOCH };
        Names { session: (self.id, epoch), partitions: all }
    }

    /// The broker has answered, in this session; 0: in none.
    pub fn on_answer(&mut self, id: i32) {
        self.id = if self.partitions.len() >= PARTITIONS_MIN { id } else { 0 };
        self.epoch = match (self.id, self.epoch) {
            (0, _) => FIRST_EPOCH,
            // 0 would begin a session.
            (_, i32::MAX) => 1,
            (_, epoch) => epoch + 1,
        };
    }

    /// Where a partition was asked for; `None`: it was not.
    pub fn asked(&self, partition: u32) -> Option<i64> {
        self.asked.get(index(partition)).copied().filter(|offset| *offset >= 0)
    }

    /// A partition has moved on.
    pub fn move_on(&mut self, partition: u32) {
        self.changed.push(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many() -> (Session, Vec<i64>) {
        let mut session = Session::new(100);
        session.assign((0..100).collect());
        (session, (0..100).collect())
    }

    #[test]
    fn a_session_names_only_what_has_moved_on() {
        let (mut session, mut positions) = many();
        let all = session.ask(&positions);
        assert_eq!((all.session, all.partitions.len()), ((0, 0), 100));
        session.on_answer(7);
        (positions[3], positions[90]) = (44, 99);
        session.move_on(3);
        session.move_on(90);
        assert_eq!(session.asked(3), Some(3));
        let next = session.ask(&positions);
        assert_eq!(next, Names { session: (7, 1), partitions: vec![(3, 44), (90, 99)] });
        assert_eq!((session.asked(3), session.asked(4)), (Some(44), Some(4)));
        session.on_answer(7);
        assert_eq!(session.ask(&positions), Names { session: (7, 2), partitions: vec![] });
    }

    #[test]
    fn a_session_that_ends_is_begun_anew_with_all_names() {
        let (mut session, positions) = many();
        session.ask(&positions);
        session.on_answer(7);
        session.restart();
        let all = session.ask(&positions);
        assert_eq!((all.session, all.partitions.len()), ((7, 0), 100), "in place of the old one");
        session.on_answer(8);
        session.lose();
        assert_eq!(session.ask(&positions).session, (0, 0));
        session.on_answer(0);
        assert_eq!(session.ask(&positions).partitions.len(), 100, "the broker has none");
    }

    #[test]
    fn a_request_under_way_does_not_put_off_a_restart() {
        let (mut session, positions) = many();
        session.ask(&positions);
        session.restart();
        session.on_answer(7);
        let all = session.ask(&positions);
        assert_eq!((all.session, all.partitions.len()), ((7, 0), 100));
        session.on_answer(7);
        assert_eq!(session.ask(&positions).session, (7, 1));
    }

    #[test]
    fn few_partitions_are_named_each_time_in_turn() {
        let mut session = Session::new(9);
        session.assign(vec![2, 5]);
        let positions = [0, 0, 20, 0, 0, 50, 0, 0, 0];
        assert_eq!(session.ask(&positions).partitions, [(2, 20), (5, 50)]);
        session.on_answer(0);
        let second = session.ask(&positions);
        assert_eq!(second, Names { session: (0, -1), partitions: vec![(5, 50), (2, 20)] });
        assert_eq!(session.asked(0), None);
    }
}
