//! What a replica's group asks for and takes time: one thing after the other, in the order in which
//! it was asked for.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use vltava_storage::{ReplicatedBatches, StorageError};

use super::Replica;
use crate::raft::history::{Base, Mark};
use crate::raft::membership::ReplicaId;
use crate::raft::message::{Input, Message};
use crate::raft::node::Node;
use crate::raft::persisted::Persisted;
use crate::raft::position::Position;
use crate::raft::run::Run;
use crate::runtime::{Queue, Runtime};

/// How long to wait where a disk is full.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What of elections survives a restart.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptVote {
    pub(super) epoch: i32,
    pub(super) vote: Option<ReplicaId>,
    pub(super) generation: i32,
    pub(super) are_votes_lost: bool,
}

/// Something that is done in its turn.
#[derive(Debug)]
pub(super) enum Work {
    /// The journal is to have this before anything behind it is done.
    Vote(KeptVote),
    /// A mark of this replica's own, as leader.
    Mark(Mark),
    /// What a leader sent.
    Run { run: Run, batches: ReplicatedBatches },
    /// The log is cut, and then its marks.
    Cut(Position),
    /// The log becomes what the leader's is before this place; below `kept` it is already.
    Restore { base: Base, kept: i64 },
    /// What was lost of the log is there again.
    Regained,
    /// Something is said.
    Say { to: ReplicaId, message: Message },
}

impl Work {
    /// Whether it need not wait until the log is restored.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Vote(_) | Self::Say { .. })
    }
}

/// What waits to be done, and what the journal has.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    waiting: VecDeque<Work>,
    is_busy: bool,
    /// Nothing more is done: the replica leaves its group.
    is_over: bool,
    /// Nothing more can be done.
    has_failed: bool,
    /// How much of what waits, or is being done, cuts the log: what that says of its ends is of
    /// before.
    cuts: usize,
    /// Own marks that are not durable yet: batches behind them are not written.
    marks: usize,
    /// What the journal has, or gets next; `None` while nothing was ever kept.
    kept: Option<Persisted>,
    /// The replica has gone to another shard: nothing is done here any more.
    has_left: bool,
    /// While the log is restored: votes, and what is said. They do not wait for that, which waits
    /// for a leader, which may need them.
    beside: Option<VecDeque<Work>>,
    is_busy_beside: bool,
    has_failed_beside: bool,
}

impl Agenda {
    pub(super) fn new(kept: Option<Persisted>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Whether what the log says of its ends is to be believed.
    pub(super) fn is_log_settled(&self) -> bool {
        self.cuts == 0 && !self.has_left
    }

    /// Whether the log's queue may be written.
    pub(super) fn may_write(&self) -> bool {
        self.marks == 0 && self.is_log_settled()
    }

    /// Whether there is nothing to be done.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy && !self.is_busy_beside
    }

    /// The replica goes to another shard.
    pub(super) fn leave(&mut self) {
        self.has_left = true;
    }

    /// Whether it has.
    pub(super) fn has_left(&self) -> bool {
        self.has_left
    }

    /// Gives back what it took while there was something to be done.
    pub(super) fn tidy_up(&mut self) {
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    /// Nothing more is begun.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        self.waiting.clear();
        self.beside.iter_mut().for_each(VecDeque::clear);
    }

    /// Whether nothing more is begun.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether nothing is being done, and nothing more is begun.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_over && (!self.is_busy || self.has_failed) && !self.is_busy_beside
    }

    /// What the journal has; `None` while nothing was ever kept.
    pub(super) fn kept(&self) -> Option<&Persisted> {
        self.kept.as_ref()
    }

    /// From now on votes, and what is said, pass: those that wait for nothing else, too.
    fn begin_restore(&mut self) {
        let waits = self.waiting.iter().take_while(|work| work.may_pass()).count();
        self.beside = Some(self.waiting.drain(..waits).collect());
    }

    fn push(&mut self, work: Work) {
        let is_restore = |work: &Work| matches!(work, Work::Restore { .. });
        if work.may_pass() && self.waiting.iter().all(is_restore) {
            match &mut self.beside {
                Some(beside) => return beside.push_back(work),
                None => return self.waiting.push_back(work),
            }
        }
        match &work {
            Work::Cut(_) | Work::Restore { .. } => self.cuts += 1,
            Work::Mark(_) => self.marks += 1,
            _ => {}
        }
        self.waiting.push_back(work);
    }
}

impl<R: Runtime> Replica<R> {
    /// Does it behind all that was asked for before.
    pub(super) fn in_turn(&self, work: Work) {
        let mut agenda = self.agenda.borrow_mut();
        if agenda.is_over {
            return;
        }
        agenda.kept.get_or_insert_with(|| kept_before(&work, &self.raft.borrow()));
        match work {
            // What is said behind nothing is said at once. So is that it leads no more: that
            // promises nothing, and where a disk has failed nothing behind that is ever said.
            Work::Say { to, message } if !agenda.is_busy || is_resignation(&message) => {
                drop(agenda);
                return self.say(to, message);
            }
            work => agenda.push(work),
        }
        self.is_tidy.set(false);
        if std::mem::replace(&mut agenda.is_busy, true) {
            drop(agenda);
            return self.go_on_beside();
        }
        if let Some(replica) = self.this.upgrade() {
            self.runtime.spawn(Queue::Foreground, async move { replica.carry_out().await });
        }
    }

    async fn carry_out(&self) {
        loop {
            let next = self.agenda.borrow_mut().waiting.pop_front();
            let Some(work) = next else {
                self.agenda.borrow_mut().is_busy = false;
                self.agenda_changes.notify();
                return;
            };
            let cut_end = match &work {
                Work::Cut(to) => Some(to.offset),
                Work::Restore { base, .. } => Some(base.at.offset),
                _ => None,
            };
            let is_mark = matches!(work, Work::Mark(_));
            let done = self.carry_out_one(work).await;
            {
                let mut agenda = self.agenda.borrow_mut();
                agenda.cuts -= usize::from(cut_end.is_some());
                agenda.marks -= usize::from(is_mark);
            }
            if self.agenda.borrow().is_over {
                continue;
            }
            if let Err(error) = done {
                self.agenda.borrow_mut().has_failed = true;
                // Nothing behind it may happen: the agenda stays busy for ever.
                tracing::error!(
                    partition = self.name, %error,
                    "a replica takes no part in its group until a restart"
                );
                return self.step(Input::LogEnded);
            }
            if let Some(end) = cut_end {
                self.tell_ends(end);
            }
            if is_mark {
                self.write_queued();
            }
        }
    }

    async fn carry_out_one(&self, work: Work) -> Result<(), StorageError> {
        match work {
            Work::Vote(vote) => self.keep_vote(vote).await,
            Work::Mark(mark) => self.keep_mark(mark).await,
            Work::Run { run, batches } => self.take_run(run, batches).await,
            Work::Cut(to) => self.once_there_is_room(async || self.cut(to).await).await,
            Work::Restore { base, kept } => {
                self.agenda.borrow_mut().begin_restore();
                self.go_on_beside();
                let restore = async || self.restore(base.clone(), kept).await;
                let restored = self.once_there_is_room(restore).await;
                self.end_beside().await?;
                restored
            }
            Work::Regained => self.regained().await,
            Work::Say { to, message } => {
                self.say(to, message);
                Ok(())
            }
        }
    }

    /// Starts the task for what passes a restore, where there is something and it does not run.
    fn go_on_beside(&self) {
        {
            let mut agenda = self.agenda.borrow_mut();
            let has_some = agenda.beside.as_ref().is_some_and(|beside| !beside.is_empty());
            let may_go_on = has_some && !agenda.has_failed_beside;
            if !may_go_on || std::mem::replace(&mut agenda.is_busy_beside, true) {
                return;
            }
        }
        let Some(replica) = self.this.upgrade() else { return };
        self.runtime.spawn(Queue::Foreground, async move {
            loop {
                let next = replica.next_beside();
                let done = match next {
                    Some(Work::Vote(vote)) => replica.keep_vote(vote).await,
                    Some(Work::Say { to, message }) => {
                        replica.say(to, message);
                        Ok(())
                    }
                    _ => return,
                };
                if done.is_err() {
                    // The journal has ended: what stands behind the restore is never done, either.
                    {
                        let mut agenda = replica.agenda.borrow_mut();
                        (agenda.is_busy_beside, agenda.has_failed_beside) = (false, true);
                    }
                    replica.agenda_changes.notify();
                    return replica.step(Input::LogEnded);
                }
            }
        });
    }

    fn next_beside(&self) -> Option<Work> {
        let mut agenda = self.agenda.borrow_mut();
        let next = agenda.beside.as_mut().and_then(VecDeque::pop_front);
        agenda.is_busy_beside = next.is_some();
        if next.is_none() {
            self.agenda_changes.notify();
        }
        next
    }

    /// What passed is done; from here on all is in one row again.
    async fn end_beside(&self) -> Result<(), StorageError> {
        loop {
            let changed = self.agenda_changes.listen();
            if !self.agenda.borrow().is_busy_beside {
                break;
            }
            changed.await;
        }
        let mut agenda = self.agenda.borrow_mut();
        agenda.beside = None;
        if agenda.has_failed_beside { Err(StorageError::Closed) } else { Ok(()) }
    }

    /// Does it again where a disk was full, until it is not, or something has rotted, until it is
    /// mended: nothing has changed then, and what stands behind it may not happen before.
    async fn once_there_is_room(
        &self,
        act: impl AsyncFn() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        loop {
            match act().await {
                Err(error @ (StorageError::Full(_) | StorageError::NoDescriptor(_))) => {
                    tracing::warn!(
                        partition = self.name, %error,
                        "a replica waits for room for what its group asks for"
                    );
                }
                // Others keep it, too, and it is mended beside this (`mend`).
                Err(StorageError::Corrupt(damage)) if self.suspect(damage.offset) => {
                    tracing::warn!(
                        partition = self.name, %damage,
                        "a replica waits until what has rotted is mended"
                    );
                }
                done => return done,
            }
            self.runtime.sleep(ROOM_PAUSE).await;
            if self.agenda.borrow().is_over {
                return Err(StorageError::Closed);
            }
        }
    }

    /// Changes what is kept, durably.
    pub(super) async fn keep(
        &self,
        change: impl FnOnce(&mut Persisted),
    ) -> Result<(), StorageError> {
        let Some(surroundings) = &self.surroundings else {
            return Ok(());
        };
        {
            let mut agenda = self.agenda.borrow_mut();
            let is_settled = agenda.is_log_settled();
            let Some(kept) = &mut agenda.kept else {
                return Ok(());
            };
            change(kept);
            // What the group knows by its sum only need not be kept one by one. Where a cut or a
            // restore waits, the log is not the group's yet: it must not be taken for that.
            let raft = self.raft.borrow();
            let base = raft.history().base();
            let is_behind = !kept.is_restoring && base.at.index() > kept.base.at.index();
            if is_settled && is_behind && kept.marks_end() >= base.at.marks {
                kept.marks.retain(|mark| mark.index >= base.at.index());
                kept.base = base.clone();
            }
        }
        // All that is kept by now, each time: a vote may have passed.
        let all = || self.agenda.borrow().kept.as_ref().map(|kept| Bytes::from(kept.to_bytes()));
        let set = async || surroundings.journal.set(self.key(), all()).await;
        self.once_there_is_room(set).await
    }

    async fn keep_vote(&self, vote: KeptVote) -> Result<(), StorageError> {
        self.keep(|kept| {
            (kept.epoch, kept.vote) = (vote.epoch, vote.vote);
            (kept.generation, kept.are_votes_lost) = (vote.generation, vote.are_votes_lost);
        })
        .await
    }

    async fn keep_mark(&self, mark: Mark) -> Result<(), StorageError> {
        self.keep(|kept| kept.marks.push(mark)).await?;
        // Where a cut waits the group may not know the mark any more: it hears behind that.
        if self.agenda.borrow().is_log_settled() {
            self.tell_marks();
        }
        // What is flushed here may be sent: a new leader's epoch waits for it.
        self.replicate_to_all();
        Ok(())
    }

    fn tell_marks(&self) {
        let marks = self.agenda.borrow().kept.as_ref().map_or(0, Persisted::marks_end);
        self.step(Input::MarksFlushed { marks });
    }

    /// Batches go into the log's queue; a mark is durable before what stands behind it.
    async fn take_run(&self, run: Run, mut batches: ReplicatedBatches) -> Result<(), StorageError> {
        drop(batches.split_before(run.from.offset));
        for (offset, mark) in run.marks_with_offsets() {
            if !self.take_batches(batches.split_before(offset)) {
                return Ok(());
            }
            self.keep_mark(mark.clone()).await?;
        }
        self.take_batches(batches);
        Ok(())
    }

    /// Puts batches into the log's queue; whether it took them. Where it cannot, the group hears of
    /// it, and what is missing is sent again.
    fn take_batches(&self, batches: ReplicatedBatches) -> bool {
        if batches.is_empty() {
            return true;
        }
        let bytes = batches.bytes() as u64;
        let now_ms = self.runtime.wall_clock_ms();
        let taken = self.log.append_replicated(batches, self.replicated_class, now_ms);
        match self.heed_end(taken) {
            Ok(taken) => {
                self.count_appended(taken.base_offset, taken.last_offset, bytes);
                self.write_queued();
                true
            }
            // What they continue was lost before, and the group has heard of it.
            Err(StorageError::NotContinued { .. }) => false,
            Err(error) => {
                tracing::debug!(partition = self.name, %error, "a leader's batches were not taken");
                self.taken_back();
                false
            }
        }
    }

    /// The log lost what was to be written: with it goes what a leader sent behind it. Where a cut
    /// waits the group is further already, and hears behind that where the log ends; what stands in
    /// front of the cut continues nothing now, and is not taken.
    pub(super) fn taken_back(&self) {
        if !self.agenda.borrow().is_log_settled() {
            return;
        }
        let is_behind = |work: &Work| matches!(work, Work::Run { .. });
        self.agenda.borrow_mut().waiting.retain(|work| !is_behind(work));
        self.step(Input::TakenBack { end_offset: self.log.end() });
    }

    async fn cut(&self, to: Position) -> Result<(), StorageError> {
        if self.log.end() > to.offset {
            self.cut_log(to.offset).await?;
        }
        let is_kept = |mark: &Mark| mark.index < to.index();
        let is_longer = |kept: &Persisted| !kept.marks.iter().all(is_kept);
        if self.agenda.borrow().kept.as_ref().is_some_and(is_longer) {
            self.keep(|kept| kept.marks.retain(is_kept)).await?;
        }
        Ok(())
    }

    /// The log was cut, and was to end at this offset: says where it does. The group may be
    /// further already, with what waits behind the cut.
    fn tell_ends(&self, expected: i64) {
        if !self.agenda.borrow().is_log_settled() {
            return;
        }
        // What was not written yet went with the cut, also where it was to stay.
        if self.log.end() < expected {
            self.taken_back();
            // With it marks may go, in a cut that waits now: behind that it is said.
            if !self.agenda.borrow().is_log_settled() {
                return;
            }
        }
        self.tell_marks();
        self.step(Input::Flushed { end_offset: self.log.flushed_end() });
        self.write_queued();
    }
}

fn is_resignation(message: &Message) -> bool {
    matches!(message, Message::Resigned { .. })
}

/// What is to be kept of a group of which nothing was, as it is before this: a group of one kept
/// nothing, and its log says what was before.
fn kept_before(work: &Work, group: &Node) -> Persisted {
    let mut kept = Persisted::of(-1, None, false, group.history());
    kept.marks.retain(|mark| match work {
        // A leader's message may bring the vote, and marks that stand behind it.
        Work::Vote(vote) => mark.epoch < vote.epoch && mark.index < group.flushed(),
        Work::Mark(first) => mark.index < first.index,
        Work::Run { run, .. } => mark.index < run.from.index(),
        _ => true,
    });
    kept
}
