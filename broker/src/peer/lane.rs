//! The tasks of a link: one that writes, one for each lane that reads, one that sees whether lanes
//! still work.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use vltava_protocol::encode::Part;

use super::codec;
use super::end::SessionEnd;
use super::events::PeerEvents;
use super::frame::{Frame, FrameBuffer, FrameError, Kind};
use super::link::{Busy, Lane, Link, SessionId, asking_shard};
use super::message::GroupMessage;
use super::outbox::{Item, SMALL_BODY_BYTES};
use super::peers::Peers;
use crate::runtime::jobs::Pending;
use crate::runtime::{Connection, Queue, Runtime};

/// Hand-overs of one lane to other shards that are not done, at most.
const FORWARDS_MAX: usize = 64;

/// What a lane has handed to other shards, and how much of it they have not taken.
#[derive(Default)]
pub(super) struct Forwards {
    under_way: VecDeque<(usize, Pending<()>)>,
    bytes: usize,
}

impl Forwards {
    async fn add(&mut self, bytes: usize, pending: Pending<()>, bytes_max: usize) {
        self.bytes += bytes;
        self.under_way.push_back((bytes, pending));
        while self.bytes > bytes_max || self.under_way.len() > FORWARDS_MAX {
            let Some((bytes, pending)) = self.under_way.pop_front() else {
                return;
            };
            // A shard that has ended takes no more: the process is stopping.
            let _ended = pending.await;
            self.bytes -= bytes;
        }
    }
}

impl<R: Runtime, E: PeerEvents> Peers<R, E> {
    /// Sends what waits, on this shard's own lane, until the link ends.
    pub(super) async fn write_lane(self: Rc<Self>, link: Rc<Link<R>>, lane: Rc<Lane<R>>) {
        lane.socket.keep_unsent_below(self.options.unsent_bytes);
        while let Some(turn) = link.next_turn(self.options.turn_bytes).await {
            if let Err(error) = send(&lane.socket, turn.parts).await {
                return self.fail(link.id, error.into());
            }
            drop(turn.rooms);
        }
    }

    /// Reads a lane until the link ends.
    pub(super) async fn read_lane(self: Rc<Self>, link: Rc<Link<R>>, lane: Rc<Lane<R>>) {
        if let Err(why) = self.read_frames(&link, &lane).await {
            self.fail(link.id, why);
        }
    }

    async fn read_frames(
        self: &Rc<Self>,
        link: &Rc<Link<R>>,
        lane: &Lane<R>,
    ) -> Result<(), SessionEnd> {
        let mut frames = FrameBuffer::new(self.options.lane_limits());
        let mut forwards = Forwards::default();
        loop {
            let frame = loop {
                if let Some(frame) = frames.next_frame()? {
                    break frame;
                }
                lane.is_waiting.set(true);
                let (received, buffer) = lane.socket.receive(frames.room()?).await;
                lane.is_waiting.set(false);
                lane.silent_checks.set(0);
                frames.put_back(buffer);
                if received? == 0 {
                    return Err(SessionEnd::Closed);
                }
            };
            if !link.is_up() {
                return Ok(());
            }
            self.take_in(link, frame, &mut forwards).await?;
            self.runtime.yield_if_needed().await;
        }
    }

    async fn take_in(
        self: &Rc<Self>,
        link: &Rc<Link<R>>,
        frame: Frame,
        forwards: &mut Forwards,
    ) -> Result<(), SessionEnd> {
        match frame.kind {
            Kind::Groups => {
                let messages = codec::read_groups(&frame)?;
                drop(frame);
                self.deliver(link.id, messages, forwards).await;
            }
            Kind::Request => {
                let (id, kind) = codec::read_request(&frame.message)?;
                self.serve(link, id, kind, frame.payload);
            }
            Kind::Response => {
                let (id, is_busy) = codec::read_response(&frame.message)?;
                let answer = if is_busy { Err(Busy) } else { Ok(frame.payload) };
                self.answered(link, id, answer, forwards).await;
            }
            // It came: that is all it says.
            Kind::Heartbeat if codec::read_session(&frame)? == link.id.number => {}
            kind => return Err(FrameError::Unexpected(kind).into()),
        }
        Ok(())
    }

    /// Hands messages to the shards that own their groups.
    pub(super) async fn deliver(
        self: &Rc<Self>,
        from: SessionId,
        messages: Vec<GroupMessage>,
        forwards: &mut Forwards,
    ) {
        let mut by_shard: BTreeMap<usize, Vec<GroupMessage>> = BTreeMap::new();
        for message in messages {
            // A table that is wrong for a moment must not lead to a shard that does not exist.
            let shard = self.events.shard_of(message.group) % self.jobs.count();
            by_shard.entry(shard).or_default().push(message);
        }
        for (shard, messages) in by_shard {
            if shard == self.jobs.own() {
                self.events.received(from, messages).await;
                continue;
            }
            let bytes = |message: &GroupMessage| message.payload.len() + message.wire_bytes();
            let bytes = messages.iter().map(bytes).sum();
            let job = move |peers: &Rc<Self>| {
                let peers = Rc::clone(peers);
                async move {
                    // What overtook the end of its session is too late.
                    if peers.session(from.node) == Some(from) {
                        peers.events.received(from, messages).await;
                    }
                }
            };
            let pending = self.jobs.start(shard, job).await;
            forwards.add(bytes, pending, self.options.forward_bytes_max).await;
        }
    }

    /// Hands an answer to the shard that asked: the other node has only lanes of its own to send it
    /// by.
    async fn answered(
        self: &Rc<Self>,
        link: &Rc<Link<R>>,
        id: u64,
        answer: Result<Bytes, Busy>,
        forwards: &mut Forwards,
    ) {
        let (shard, from) = (asking_shard(id), link.id);
        if shard == self.jobs.own() || shard >= self.jobs.count() {
            return link.answered(id, answer);
        }
        let bytes = answer.as_ref().map_or(0, Bytes::len);
        let job = move |peers: &Rc<Self>| {
            if let Some(link) = peers.link_of(from) {
                link.answered(id, answer);
            }
            std::future::ready(())
        };
        let pending = self.jobs.start(shard, job).await;
        forwards.add(bytes, pending, self.options.forward_bytes_max).await;
    }

    /// Answers a request, in a task of its own.
    fn serve(self: &Rc<Self>, link: &Rc<Link<R>>, id: u64, kind: u16, body: Bytes) {
        if link.serving.get() >= self.options.requests_max {
            let busy = Item::Response { id, is_busy: true, body: Bytes::new() };
            return self.say(link, busy);
        }
        link.serving.set(link.serving.get() + 1);
        let (peers, link) = (Rc::clone(self), Rc::clone(link));
        self.runtime.spawn(Queue::Control, async move {
            let body = peers.events.requested(link.id, kind, body).await;
            let room = match body.len() > SMALL_BODY_BYTES {
                true => link.window.take(body.len()).await,
                false => None,
            };
            link.serving.set(link.serving.get() - 1);
            let answer = Item::Response { id, is_busy: false, body };
            // Where there is no room any more, there is no link either.
            let waiting_bytes = link.push(answer, room);
            peers.check_overflow(&link, waiting_bytes);
        });
    }

    /// Has something said that is never made to wait.
    pub(super) fn say(self: &Rc<Self>, link: &Rc<Link<R>>, item: Item) {
        let waiting_bytes = link.push(item, None);
        self.check_overflow(link, waiting_bytes);
    }

    fn check_overflow(self: &Rc<Self>, link: &Rc<Link<R>>, waiting_bytes: usize) {
        if waiting_bytes > self.options.urgent_bytes_max && link.end_early() {
            self.fail(link.id, SessionEnd::Overflow(waiting_bytes));
        }
    }

    /// Uses this shard's lane where it says nothing, and ends the session where one on which the
    /// other side does the same has gone silent: a connection may break without a word while that
    /// for heartbeats works on.
    pub(super) async fn watch_lanes(self: Rc<Self>, link: Rc<Link<R>>) {
        let period = self.options.lane_check;
        loop {
            if self.runtime.in_time(period, link.ended.wait()).await.is_some() {
                return;
            }
            if link.is_idle() {
                self.say(&link, Item::Heartbeat { session: link.id.number });
            }
            for lane in link.lanes() {
                let is_used = lane.number < link.introduction.shards;
                if !is_used || !lane.is_waiting.get() {
                    continue;
                }
                let checks = lane.silent_checks.get() + 1;
                lane.silent_checks.set(checks);
                if checks > self.options.lane_checks_missed_max {
                    let (lane, time) = (lane.number, period * checks);
                    return self.fail(link.id, SessionEnd::LaneSilent { lane, time });
                }
            }
        }
    }
}

/// Sends parts in order: what is in memory together, from where it lies.
async fn send<C: Connection>(socket: &C, parts: Vec<Part>) -> std::io::Result<()> {
    let mut in_memory = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Part::Memory(bytes) if bytes.is_empty() => {}
            Part::Memory(bytes) => in_memory.push(bytes),
            Part::External(range) => {
                if !in_memory.is_empty() {
                    socket.send(std::mem::take(&mut in_memory)).await?;
                }
                socket.send_file(&range).await?;
            }
        }
    }
    match in_memory.is_empty() {
        true => Ok(()),
        false => socket.send(in_memory).await,
    }
}
