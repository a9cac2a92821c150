//! Short scenarios by hand, and peers that lie.

use super::world::{Random, World, id, ids};
use crate::raft::Refusal;
use crate::raft::history::{Base, History, Mark, What};
use crate::raft::membership::Membership;
use crate::raft::message::{Action, Input, Message};
use crate::raft::node::{Found, Node, Options, Role};
use crate::raft::position::Position;
use crate::raft::run::Run;

const OPTIONS: Options =
    Options { election_ms: 100, turn_ms: 20, rank: 0, retry_ms: 50, min_insync_replicas: 1 };

fn alone(epochs: &[(i32, i64)], end_offset: i64) -> Node {
    let mut node = Node::new(id(0), OPTIONS, 1, Found::alone(id(0), epochs, end_offset));
    let actions: Vec<Action> = node.start(0).into_iter().collect();
    assert!(actions.iter().any(|action| matches!(action, Action::WriteMark(_))));
    let marks = node.history().end().marks;
    let _ = node.step(0, Input::MarksFlushed { marks });
    node
}

fn three_members() -> Membership {
    Membership::new(ids(0..3), [])
}

fn step(node: &mut Node, input: Input) -> Vec<Action> {
    node.step(0, input).into_iter().collect()
}

fn three() -> World {
    let mut world = World::new(3, 3, OPTIONS, None);
    world.checks.min_insync_replicas = 1;
    world.calm();
    world.deadline(0);
    world.calm();
    assert!(world.is_leader(0));
    world
}

#[test]
fn a_sole_voter_leads_above_its_log_and_commits_what_is_flushed() {
    let mut node = alone(&[(2, 0), (4, 7)], 10);
    assert_eq!((node.role(), node.epoch(), node.high_watermark()), (Role::Leader, 5, 10));
    assert_eq!(node.deadline(), None);
    assert_eq!(step(&mut node, Input::Flushed { end_offset: 10 }), []);
    assert_eq!(step(&mut node, Input::Appended { offsets: 2 }), []);
    let raised = step(&mut node, Input::Flushed { end_offset: 12 });
    assert_eq!(raised, [Action::HighWatermark { offset: 12 }]);
    assert_eq!(alone(&[], 0).epoch(), 0);
    // Retention emptied it: what it had says which epoch comes next.
    assert_eq!((alone(&[(6, 30)], 30).epoch(), alone(&[(6, 30)], 30).high_watermark()), (7, 30));
}

#[test]
fn an_ended_log_leads_no_more_and_keeps_what_was_committed() {
    let mut node = alone(&[], 3);
    assert_eq!(step(&mut node, Input::LogEnded), [Action::RoleChanged]);
    assert_eq!((node.role(), node.high_watermark()), (Role::Ended, 3));
    assert!(!node.takes_writes());
}

/// A group of one may give an offset again: nobody has seen what was taken back.
#[test]
fn a_full_disk_alone_goes_on_in_its_epoch() {
    let mut node = alone(&[], 3);
    step(&mut node, Input::Appended { offsets: 5 });
    assert_eq!(step(&mut node, Input::TakenBack { end_offset: 3 }), []);
    assert_eq!((node.role(), node.epoch()), (Role::Leader, 0));
    step(&mut node, Input::Appended { offsets: 2 });
    let raised = step(&mut node, Input::Flushed { end_offset: 5 });
    assert_eq!(raised, [Action::HighWatermark { offset: 5 }]);
}

/// Somebody has seen it: then the leader leads no more, or, where nobody else can, in another
/// epoch.
#[test]
fn a_full_disk_with_others_ends_the_epoch() {
    let mut world = three();
    let epoch = world.node(0).unwrap().epoch();
    world.append(0);
    world.take_back(0);
    assert_eq!(world.node(0).unwrap().role(), Role::Follower);
    world.calm();
    // The others have what it took back.
    world.deadline(0);
    world.calm();
    assert!(world.leader().is_none());
    world.deadline(1);
    world.calm();
    assert!(world.is_leader(1) && world.node(1).unwrap().epoch() > epoch);
    assert_eq!(world.node(0).unwrap().high_watermark(), 1);

    let mut world = World::new(1, 2, OPTIONS, None);
    world.calm();
    assert!(world.change(0, &Membership::new(ids([0]), ids([1]))));
    world.calm();
    let epoch = world.node(0).unwrap().epoch();
    world.append(0);
    world.take_back(0);
    assert_eq!(world.node(0).unwrap().epoch(), epoch + 1);
    assert!(world.is_leader(0));
}

/// What it has is committed, and was shown; but it does not know that before its leader says so.
#[test]
fn who_starts_again_tells_no_high_watermark_before_it_has_heard_of_it() {
    let mut world = three();
    world.append(0);
    world.calm();
    let known = |world: &World| {
        let node = world.node(1).unwrap();
        (node.knows_high_watermark(), node.high_watermark())
    };
    assert_eq!(known(&world), (true, 1));
    world.crash(1);
    world.start(1);
    assert_eq!(known(&world), (false, 0));
    world.calm();
    assert_eq!(known(&world), (true, 1));
}

/// It is told again who leads and what is committed, though its node was there all the time and the
/// group has nothing to say; also where it may not be elected, and where it led itself.
#[test]
fn who_is_opened_anew_within_a_session_is_told_again() {
    for is_learner in [false, true] {
        let mut world = three();
        if is_learner {
            assert!(world.change(0, &Membership::new(ids([0, 2]), ids([1]))));
            world.calm();
        }
        world.append(0);
        world.calm();
        world.reopen(1);
        world.calm();
        assert_eq!(world.node(1).unwrap().leader(), None);
        world.wait(1, 1000);
        world.calm();
        let node = world.node(1).unwrap();
        assert_eq!((node.leader(), node.high_watermark()), (Some(id(0)), 1), "{is_learner}");
        assert!(node.knows_high_watermark() && world.is_leader(0));
    }
    let mut world = three();
    world.reopen(0);
    world.calm();
    assert!(world.leader().is_none(), "the others were told");
    world.wait(1, 1000);
    world.calm();
    assert!(world.is_leader(1));
}

#[test]
fn an_idle_group_is_silent_and_has_no_deadline() {
    let world = three();
    assert!(world.wires.is_empty());
    for node in world.nodes() {
        assert_eq!(world.node(node).unwrap().deadline(), None, "{node}");
    }
}

/// A replica that was away does not make the others elect again (pre-vote).
#[test]
fn who_comes_back_does_not_disturb() {
    let mut world = three();
    let epoch = world.node(0).unwrap().epoch();
    for other in [0, 1] {
        world.set_cut(2, other, true);
    }
    world.calm();
    for _ in 0..5 {
        world.deadline(2);
    }
    assert_eq!(world.node(2).unwrap().epoch(), epoch);
    for other in [0, 1] {
        world.set_cut(2, other, false);
    }
    world.calm();
    assert!(world.is_leader(0) && world.node(0).unwrap().epoch() == epoch);
}

/// A candidate whose election came to nothing is beyond the leader that the others still have, and
/// can never follow it again: the leader makes way, though an idle group has nothing to say.
#[test]
fn who_stood_in_vain_is_not_left_behind() {
    let mut world = three();
    let epoch = world.node(0).unwrap().epoch();
    world.step(2, Input::Received { from: id(0), message: Message::TimeoutNow { epoch } });
    assert_eq!(world.node(2).unwrap().role(), Role::Candidate);
    for other in [0, 1] {
        world.lose(2, other);
    }
    world.calm();
    assert!(world.is_leader(0) && world.node(0).unwrap().epoch() == epoch);
    world.deadline(2);
    world.calm();
    let epochs = [0, 1, 2].map(|node| world.node(node).unwrap().epoch());
    assert!(world.leader().is_some() && epochs.iter().all(|it| *it > epoch), "{epochs:?}");
}

/// A replica that was not open when it was asked is asked again, also where another one never
/// rests.
#[test]
fn who_was_not_there_is_asked_again_while_others_are_busy() {
    let mut world = three();
    world.flap(0, 2);
    for _ in 0..2 {
        world.deliver(2, 0);
        world.deliver(0, 2);
    }
    world.lose(0, 2);
    world.lose(2, 0);
    for _ in 0..20 {
        world.append(0);
        world.flush_all(0);
        // Never all of it: more is under way at any time.
        world.append(0);
        for _ in 0..2 {
            world.deliver(0, 1);
            world.flush_all(1);
            world.deliver(1, 0);
        }
        world.wait(0, OPTIONS.retry_ms / 2);
    }
    world.calm();
    let end = |node| world.node(node).unwrap().history().end();
    assert_eq!(end(2), end(0));
}

#[test]
fn a_leader_without_a_majority_leads_no_more() {
    let mut world = three();
    for other in [1, 2] {
        world.set_cut(0, other, true);
        world.deliver(other, 0);
    }
    assert_eq!(world.node(0).unwrap().role(), Role::Follower);
    // It says so, where it is heard: the others need not wait.
    world.calm();
    assert!(world.node(1).unwrap().deadline().is_some());
}

#[test]
fn leadership_is_handed_over_without_an_elections_wait() {
    let mut world = three();
    let now = world.now;
    world.append(0);
    world.hand_over(0, 2);
    assert!(!world.node(0).unwrap().takes_writes());
    world.calm();
    assert!(world.is_leader(2));
    assert_eq!(world.now, now);
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let mut world = three();
    let mut node = world.node(0).unwrap().clone();
    let next = Membership::new(ids([0, 1]), []);
    assert_eq!(node.hand_over(0, id(0)).err(), Some(Refusal::NoVoter));
    assert_eq!(node.hand_over(0, id(7)).err(), Some(Refusal::NoVoter));
    // Nobody can talk to these.
    let strange = Membership::new(ids([0, 7, 8]), []);
    assert_eq!(node.change_members(0, &strange).err(), Some(Refusal::NoQuorum));
    assert_eq!(node.change_members(0, &Membership::default()).err(), Some(Refusal::NoQuorum));
    assert!(node.change_members(0, &next).is_ok());
    assert_eq!(node.change_members(0, &next).err(), Some(Refusal::ChangeUnderWay));
    let mut follower = world.node(1).unwrap().clone();
    assert_eq!(follower.change_members(0, &next).err(), Some(Refusal::NotLeader));
    // A new leader's epoch is not committed: it cannot know what is under way.
    world.crash(0);
    world.flush_all(1);
    while let Some((from, to)) = world.wires.keys().next().copied() {
        world.deliver(from, to);
    }
    world.deadline(1);
    for _ in 0..10 {
        if !world.is_leader(1) {
            world.deliver(1, 2);
            world.deliver(2, 1);
        }
    }
    let mut node = world.node(1).unwrap().clone();
    let next = Membership::new(ids([1, 2]), []);
    assert_eq!(node.change_members(0, &next).err(), Some(Refusal::ChangeUnderWay));
}

/// More marks than are kept: old ones are known by their sum, and who lacks them takes a snapshot.
#[test]
fn a_long_history_is_cut_short() {
    let mut world = three();
    for other in [0, 1] {
        world.set_cut(2, other, true);
    }
    world.calm();
    for _ in 0..200 {
        let mut node = world.node(0).unwrap().clone();
        assert!(node.move_log_start(0, 0).is_ok());
        world.move_log_start(0, 0);
        world.calm();
    }
    let marks = world.node(0).unwrap().history().marks().len();
    assert!((64..=66).contains(&marks), "{marks}");
    for other in [0, 1] {
        world.set_cut(2, other, false);
    }
    world.calm();
    assert!(world.checks.snapshots > 0);
    assert_eq!(world.node(2).unwrap().history().end(), world.node(0).unwrap().history().end());
}

/// An idle replica is about 1 KiB in all.
/// Leaders that never came to commit anything have left marks: they go in parts.
#[test]
fn many_marks_are_not_sent_at_once() {
    let mut history =
        History::new(Base { at: Position::ZERO, members: three_members(), log_start: 0 });
    (0..1000).for_each(|epoch| drop(history.append_mark(epoch, What::EpochStart).clone()));
    history.append_batches(7);
    let found = Found { epoch: 999, end_offset: 7, ..Found::nothing(history) };
    let mut node = Node::new(id(0), OPTIONS, 1, found);
    drop(node.start(0));
    step(&mut node, Input::PeerUp(1));
    drop(node.step(1000, Input::Deadline));
    for (epoch, is_pre) in [(1000, true), (1000, false)] {
        let message = Message::VoteReply { epoch, is_pre, is_granted: true };
        drop(node.step(1000, Input::Received { from: id(1), message }));
    }
    step(&mut node, Input::MarksFlushed { marks: 1001 });
    assert_eq!((node.role(), node.flushed()), (Role::Leader, 1008));
    let nothing = Message::Diverged { epoch: 1000, rejected: 1007, end: Position::ZERO };
    step(&mut node, Input::Received { from: id(1), message: nothing });
    let (mut sent, mut parts) = (0, 0);
    while node.next_for(&id(1)) != Some(1008) {
        let until = node.sends_until(&id(1));
        let Some(Message::Append { run, .. }) = node.append_for(id(1), until) else { panic!() };
        assert!(run.marks.len() <= 128, "{}", run.marks.len());
        (sent, parts) = (sent + run.marks.len(), parts + 1);
        let message = Message::Flushed { epoch: 1000, index: run.end.index() };
        step(&mut node, Input::Received { from: id(1), message });
    }
    // The first only asks.
    assert_eq!((sent, parts), (1001, 9));
}

#[test]
fn a_node_is_small() {
    assert!(size_of::<Node>() <= 560, "{}", size_of::<Node>());
    let actions = size_of::<crate::raft::actions::Actions>();
    assert!(actions <= 512, "{actions}");
}

fn position(random: &mut Random) -> Position {
    let number = |random: &mut Random| match random.below(12) {
        0 => i64::MAX,
        1 => i64::MIN,
        2 => -1,
        _ => random.below(6) as i64,
    };
    let epoch = random.below(8) as i32 - 2;
    Position { epoch, offset: number(random), marks: number(random) }
}

fn any_run(random: &mut Random) -> Run {
    let mut marks = Vec::new();
    let from = position(random);
    let mut end = from;
    for _ in 0..random.below(4) {
        let more = random.below(3) as i64;
        end.offset = end.offset.saturating_add(more);
        let what = match random.below(4) {
            0 => What::EpochStart,
            1 => What::LogStart(random.below(9) as i64),
            2 => What::Membership(Box::new(Membership::new(ids(0..random.below(4) as i32), []))),
            _ => What::EpochStart,
        };
        let epoch = end.epoch + i32::from(what == What::EpochStart);
        marks.push(Mark { epoch, index: end.offset.saturating_add(end.marks), what });
        end = Position { epoch, offset: end.offset, marks: end.marks.saturating_add(1) };
    }
    match random.below(10) {
        0 => end = position(random),
        1 => marks.reverse(),
        _ => {}
    }
    Run { from, end, marks }
}

fn anything(random: &mut Random) -> Message {
    let epoch = match random.below(20) {
        0 => i32::MAX,
        1 => i32::MAX - 1,
        2 => -1,
        _ => random.below(12) as i32,
    };
    let (a, b) = (random.below(30) as i64 - 2, random.below(30) as i64 - 2);
    match random.below(9) {
        0 => Message::Vote {
            epoch,
            is_pre: random.one_in(2),
            is_transfer: random.one_in(2),
            log_end: position(random),
        },
        1 => Message::VoteReply { epoch, is_pre: random.one_in(2), is_granted: random.one_in(2) },
        2..=4 => {
            let run = any_run(random);
            Message::Append { epoch, run, committed: a, high_watermark: b }
        }
        5 => {
            let members = Membership::new(ids(0..random.below(4) as i32), []);
            let base = Box::new(Base { at: position(random), members, log_start: a });
            Message::Snapshot { epoch, base, high_watermark: b }
        }
        6 if random.one_in(2) => Message::Committed { epoch, committed: a, high_watermark: b },
        6 => Message::Flushed { epoch, index: a },
        7 => Message::Diverged { epoch, rejected: a, end: position(random) },
        _ if random.one_in(2) => Message::TimeoutNow { epoch },
        _ => Message::Resigned { epoch },
    }
}

/// Whatever peers say, a node does not panic, and what it showed stays.
#[test]
fn peers_may_say_anything() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut node = three().node(random.below(3) as i32).unwrap().clone();
        let mut shown = node.high_watermark();
        for now in 0..150 {
            let input = match random.below(12) {
                0 => Input::Deadline,
                1 => Input::PeerUp(random.below(5) as i32),
                2 => Input::PeerDown(random.below(5) as i32),
                3 => Input::Flushed { end_offset: node.history().end().offset },
                4 => Input::MarksFlushed { marks: node.history().end().marks },
                5 if node.takes_writes() => Input::Appended { offsets: 1 },
                _ => {
                    let from = id(random.below(5) as i32);
                    Input::Received { from, message: anything(&mut random) }
                }
            };
            let actions = node.step(now * 100, input);
            for action in actions {
                if let Action::Replicate { to } = action {
                    drop(node.append_for(to, node.history().end().index()));
                }
            }
            assert!(node.high_watermark() >= shown, "seed {seed}");
            shown = node.high_watermark();
        }
    }
}

/// A snapshot says that all before its base is chosen. One with fewer offsets than were shown
/// already, and more marks for it, is none that a leader can have.
#[test]
fn a_snapshot_before_what_was_shown_is_a_contradiction() {
    let members = three_members();
    let nothing = Base { at: Position::ZERO, members: members.clone(), log_start: 0 };
    let found = Found::nothing(History::new(nothing));
    let mut node = Node::new(id(1), OPTIONS, 1, found);
    drop(node.start(0));
    step(&mut node, Input::PeerUp(0));
    let said = |message| Input::Received { from: id(0), message };
    let append = |epoch, from, end, index| {
        let marks = vec![Mark { epoch, index, what: What::EpochStart }];
        let (committed, high_watermark) = (0, 0);
        Message::Append { epoch, run: Run { from, end, marks }, committed, high_watermark }
    };
    let end = Position { epoch: 0, offset: 5, marks: 1 };
    step(&mut node, said(append(0, Position::ZERO, end, 0)));
    step(&mut node, Input::MarksFlushed { marks: 1 });
    step(&mut node, Input::Flushed { end_offset: 5 });
    step(&mut node, said(Message::Committed { epoch: 0, committed: 6, high_watermark: 5 }));
    assert_eq!(node.high_watermark(), 5);
    let at = Position { epoch: 0, offset: 0, marks: 9 };
    let base = Box::new(Base { at, members, log_start: 0 });
    let told = step(&mut node, said(Message::Snapshot { epoch: 0, base, high_watermark: 5 }));
    assert_eq!(told, [Action::Contradiction { index: 9 }]);
    assert_eq!(node.history().end(), end);
    // Else this would cut what was shown.
    let end = Position { epoch: 1, offset: 0, marks: 10 };
    step(&mut node, said(append(1, at, end, 9)));
    assert_eq!(node.high_watermark(), 5);
}

/// What a replica told others of its log does not hold once that is lost. Until it has it again it
/// votes for nobody, or the only other one that has it might not be asked.
#[test]
fn who_has_lost_its_log_has_no_say_until_it_has_it_again() {
    let mut world = three();
    world.loses_logs = true;
    world.set_cut(0, 2, true);
    world.set_cut(1, 2, true);
    world.append(0);
    world.calm();
    // Chosen by 0 and 1, of which one goes, and the other has nothing of it any more.
    let chosen = world.node(0).unwrap().committed();
    world.crash_and_lose(1);
    world.crash(0);
    world.set_cut(1, 2, false);
    world.set_cut(0, 2, false);
    for node in [2, 1, 2, 1] {
        world.deadline(node);
        world.calm();
        assert_eq!(world.leader(), None);
    }
    world.start(0);
    for node in [1, 2, 0] {
        world.calm();
        world.deadline(node);
    }
    world.calm();
    assert!(world.is_leader(0));
    let [lost, leader] = [1, 0].map(|node| world.node(node).unwrap());
    assert_eq!((lost.history(), lost.committed()), (leader.history(), leader.committed()));
    assert!(leader.committed() > chosen && !world.replica(1).disk.is_lost);
    // It votes again.
    world.crash(0);
    world.calm();
    world.deadline(2);
    world.calm();
    assert!(world.leader().is_some());
}

/// Who has lost its votes does nothing before all others have said which epochs they know: it may
/// have voted in each of them.
#[test]
fn who_has_lost_its_votes_votes_in_no_epoch_again() {
    let mut world = three();
    let led = world.node(0).unwrap().epoch();
    // 2 votes for 1, and who led before hears nothing of that.
    world.set_cut(0, 1, true);
    world.set_cut(0, 2, true);
    world.calm();
    for _ in 0..4 {
        world.deadline(1);
        world.calm();
    }
    let voted = world.replica(2).disk.epoch;
    assert!(world.is_leader(1) && voted > led);
    world.set_cut(1, 2, true);
    world.crash_and_lose_all(2);
    world.set_cut(0, 2, false);
    for _ in 0..4 {
        world.deadline(0);
        world.deadline(2);
        world.calm();
        let (candidate, lost) = (world.node(0).unwrap(), world.node(2).unwrap());
        assert_ne!((candidate.role(), lost.leader()), (Role::Leader, Some(id(0))));
        assert!(world.replica(2).disk.are_votes_lost);
    }
    world.set_cut(1, 2, false);
    world.calm();
    let disk = &world.replica(2).disk;
    assert!(!disk.are_votes_lost && disk.epoch >= voted && disk.vote == Some(id(2)));
    world.set_cut(0, 1, false);
    for node in [1, 2, 1, 0, 1] {
        world.calm();
        world.deadline(node);
    }
    world.calm();
    assert!(world.is_leader(1) && !world.replica(2).disk.is_lost);
    assert_eq!(world.node(2).unwrap().history(), world.node(1).unwrap().history());
}

/// A leader is named where a majority is gone; who comes back gives up what it lacks, and has no
/// say before it has something of what began there.
#[test]
fn who_comes_back_to_a_named_leader_gives_up_what_it_lacks() {
    let mut world = three();
    world.append(0);
    world.calm();
    world.crash(2);
    world.calm();
    world.append(0);
    world.append(0);
    world.calm();
    let agreed = world.node(1).unwrap().high_watermark();
    world.crash(0);
    world.crash(1);
    world.start(2);
    world.generation = -1;
    assert_eq!(world.name_leader(), Some(2));
    world.calm();
    assert!(world.is_leader(2) && world.node(2).unwrap().high_watermark() < agreed);
    world.append(2);
    world.calm();
    // They have not heard of it: they go on among themselves, and disturb nobody.
    world.start(0);
    world.start(1);
    for node in [0, 1, 0] {
        world.calm();
        world.deadline(node);
    }
    world.calm();
    assert!(world.is_leader(2) && world.nodes().filter(|node| world.is_leader(*node)).count() == 2);
    // Both have: and elect nobody, where the one that was named is gone.
    world.crash(2);
    world.tell(0);
    world.tell(1);
    for node in [0, 1, 0, 1] {
        world.calm();
        world.deadline(node);
    }
    assert_eq!(world.leader(), None);
    world.start(2);
    world.calm();
    let (leader, other) = (world.node(2).unwrap(), world.node(0).unwrap());
    assert!(world.is_leader(2));
    assert_eq!(leader.history(), other.history());
    assert_eq!(leader.high_watermark(), other.high_watermark());
    // They vote once it makes them voters.
    assert!(world.change(2, &Membership::new(ids(0..3), [])));
    world.calm();
    world.crash(2);
    world.calm();
    world.deadline(0);
    world.calm();
    assert!(world.is_leader(0));
}

/// A leader forgets what a member told it in an earlier session: the member's disk may have.
#[test]
fn a_leader_counts_nothing_that_was_said_before_a_loss() {
    let mut world = three();
    world.loses_logs = true;
    let before = world.node(0).unwrap().committed();
    // What 1 has on its disk, and has told 0 of; then it is gone. 2 is slow.
    world.append(0);
    world.deliver_all(0, 1);
    world.flush_all(1);
    world.deliver_all(1, 0);
    world.crash_and_lose(1);
    world.deliver_all(1, 0);
    world.flush_all(0);
    assert_eq!(world.node(0).unwrap().committed(), before, "it is on one disk");
    world.calm();
    assert!(world.node(0).unwrap().committed() > before);
    let [lost, leader] = [1, 0].map(|node| world.node(node).unwrap());
    assert_eq!(lost.history(), leader.history());
    assert!(!world.replica(1).disk.is_lost);
}

/// Who has asked for votes by a log, and takes back the end of it, is not elected by those votes.
#[test]
fn votes_for_a_log_that_is_taken_back_elect_nobody() {
    let mut world = three();
    world.append(0);
    for other in [1, 2] {
        world.deliver_all(0, other);
    }
    world.flush_all(0);
    world.flush_all(2);
    world.deliver_all(2, 0);
    let committed = world.node(0).unwrap().committed();
    world.crash(0);
    world.deliver_all(0, 1);
    world.deliver_all(0, 2);
    world.deadline(1);
    while world.node(1).unwrap().role() != Role::Candidate {
        world.deliver_all(1, 2);
        world.deliver_all(2, 1);
    }
    world.deliver_all(1, 2);
    world.take_back(1);
    assert!(world.node(1).unwrap().history().end().index() < committed, "it has it");
    world.deliver_all(2, 1);
    assert!(!world.is_leader(1));
}

/// Whoever is sent what stands before its log's beginning lacks what its history says that it has:
/// it does not ask for votes.
#[test]
fn who_is_being_filled_asks_for_no_votes() {
    let mut world = three();
    for other in [0, 1] {
        world.set_cut(2, other, true);
    }
    world.append(0);
    world.calm();
    world.compact(0);
    world.set_cut(2, 0, false);
    world.set_cut(2, 1, false);
    while !world.replica(2).disk.is_restoring {
        for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
            world.deliver(from, to);
        }
    }
    world.crash(0);
    world.deliver_all(0, 2);
    world.deliver_all(1, 2);
    assert!(world.replica(2).disk.is_restoring);
    for _ in 0..5 {
        world.deadline(2);
        assert_eq!(world.node(2).unwrap().role(), Role::Follower);
    }
}

/// A follower that knows to be committed what it has only in memory is told a snapshot: what stands
/// before that counts once it is on the disk.
#[test]
fn a_snapshot_makes_nothing_durable() {
    let members = Membership::new(ids(0..3), []);
    let base = |at| Base { at, members: members.clone(), log_start: 0 };
    let history = History::new(base(Position::ZERO));
    let found =
        Found { epoch: 1, vote: None, history, end_offset: 0, is_lost: false, generation: -1 };
    let mut node = Node::new(id(0), OPTIONS, 1, found);
    let _ = node.start(0);
    let _ = step(&mut node, Input::PeerUp(1));
    let place = |offset, marks| Position { epoch: 1, offset, marks };
    let begins = Mark { epoch: 1, index: 0, what: What::EpochStart };
    let run = Run { from: Position::ZERO, end: place(10, 1), marks: vec![begins] };
    let message = Message::Append { epoch: 1, run, committed: 11, high_watermark: 10 };
    let _ = step(&mut node, Input::Received { from: id(1), message });
    let _ = step(&mut node, Input::MarksFlushed { marks: 1 });
    let _ = step(&mut node, Input::Flushed { end_offset: 4 });
    assert_eq!((node.committed(), node.high_watermark()), (11, 4));
    let base = Box::new(base(place(10, 2)));
    let message = Message::Snapshot { epoch: 1, base, high_watermark: 10 };
    let done = step(&mut node, Input::Received { from: id(1), message });
    assert_eq!(done, [Action::Restore { kept: 4 }]);
    assert_eq!(node.high_watermark(), 4);
    let done = step(&mut node, Input::Flushed { end_offset: 10 });
    assert!(done.contains(&Action::HighWatermark { offset: 10 }), "{done:?}");
}

/// Nobody leads: who should rather lead asks for votes first. In a new group the others leave it
/// the time to ask again: they may not have theirs yet as it first asks.
#[test]
fn who_should_rather_lead_asks_first() {
    let members = Membership::new(ids(0..3), []);
    let base = Base { at: Position::ZERO, members, log_start: 0 };
    let deadline = |rank, epoch, is_led| {
        let found = Found { epoch, ..Found::nothing(History::new(base.clone())) };
        let mut node = Node::new(id(0), Options { rank, ..OPTIONS }, 1, found);
        let _ = node.start(0);
        if is_led {
            let run = Run { from: Position::ZERO, end: Position::ZERO, marks: Vec::new() };
            let message = Message::Append { epoch, run, committed: 0, high_watermark: 0 };
            let _ = step(&mut node, Input::PeerUp(1));
            let _ = step(&mut node, Input::Received { from: id(1), message });
            assert_eq!((node.leader(), node.deadline()), (Some(id(1)), None));
            let _ = step(&mut node, Input::PeerDown(1));
        }
        node.deadline().unwrap()
    };
    for (rank, epoch, is_led, waits) in [
        (0, -1, false, 20..40),
        (1, -1, false, 220..240),
        (0, 3, false, 20..40),
        (2, 3, false, 60..80),
        (0, 3, true, 20..40),
        (1, 3, true, 40..60),
        (2, 3, true, 60..80),
    ] {
        let at = deadline(rank, epoch, is_led);
        assert!(waits.contains(&at), "rank {rank}, epoch {epoch}, led {is_led}: {at}");
    }
}

/// A disk that gave its log away comes back with nothing: whoever counts on what it had, and does
/// not know that the group went on without it, gets no vote of it, and it asks for none.
#[test]
fn who_gave_its_log_away_keeps_what_it_promised() {
    let members = Membership::new(ids(0..3), []);
    let history =
        || History::new(Base { at: Position::ZERO, members: members.clone(), log_start: 0 });
    let found = || Found { epoch: 4, ..Found::nothing(history()) };
    let place = |epoch, offset, marks| Position { epoch, offset, marks };
    let granted = |node: &mut Node, log_end| {
        let vote = Message::Vote { epoch: 9, is_pre: true, is_transfer: false, log_end };
        let said = step(node, Input::Received { from: id(1), message: vote });
        let [Action::Send { message: Message::VoteReply { is_granted, .. }, .. }] = said[..] else {
            panic!("{said:?}")
        };
        is_granted
    };
    let mut forgetful = Node::new(id(0), OPTIONS, 1, found());
    assert!(granted(&mut forgetful, place(3, 5, 2)), "what a promise is there to prevent");
    let mut node = Node::new(id(0), OPTIONS, 1, found());
    node.promise(place(3, 7, 2));
    let _ = node.start(0);
    for (log_end, is_enough) in [
        (place(3, 6, 2), false),
        (place(2, 99, 9), false),
        (Position::ZERO, false),
        (place(3, 7, 2), true),
        (place(4, 0, 3), true),
    ] {
        assert_eq!(granted(&mut node, log_end), is_enough, "{log_end:?}");
    }
    let _ = step(&mut node, Input::PeerUp(1));
    let _ = step(&mut node, Input::PeerUp(2));
    let _ = node.step(1_000_000, Input::Deadline);
    assert_eq!(node.role(), Role::Follower, "it asks for no vote");
    // Also where it would be enough by itself.
    let alone = Base { at: Position::ZERO, members: Membership::new([id(0)], []), log_start: 0 };
    let found = Found { epoch: 4, ..Found::nothing(History::new(alone)) };
    let mut node = Node::new(id(0), OPTIONS, 1, found);
    node.promise(place(3, 7, 2));
    let _ = node.start(0);
    assert_eq!(node.role(), Role::Follower);
}
