//! The way to the controller, on whichever node it is.

use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use vltava_protocol::error_code::ErrorCode;

use super::peers::{ANSWER_TIME, CONTROLLER, CONTROLLER_FOR};
use super::view::Node;
use crate::cluster::controller::{Input, Reply, Sight};
use crate::coordinator::host::HostError;
use crate::metadata::image::PartitionId;
use crate::metadata::leaders::NOBODY;
use crate::partition::error::PartitionError;
use crate::partition::replica::Replica;
use crate::peer::peers::RequestError;
use crate::runtime::{Monotonic, Runtime};

/// What a node answers that has no controller, and knows none to pass the question on to. Nothing:
/// what became of it is not known.
const NOT_HERE: Bytes = Bytes::from_static(&[0xff; 8]);

/// Before it is looked again whether there is a controller.
const CONTROLLER_PAUSE: Duration = Duration::from_millis(50);

impl<R: Runtime> Node<R> {
    /// Asks the controller, once. Where it decided something, all shards of this node hold the
    /// image before this returns.
    pub async fn ask_controller(self: &Rc<Self>, input: Input) -> Result<Reply, ErrorCode> {
        self.ask_and_settle(input).await.map_err(|error| match error {
            // It may have led when it was asked, and not any more when that was to be committed.
            HostError::Loading
            | HostError::NotHere
            | HostError::Lost(PartitionError::NotLeader) => ErrorCode::NOT_CONTROLLER,
            HostError::Lost(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        })
    }

    /// The same for a client, which asked this node and need not know where the controller is:
    /// while there is none, it is waited for. REQUEST_TIMED_OUT after the deadline, and where it is
    /// not known what became of it: asked again, it might find what it has done itself.
    pub async fn ask_controller_until(
        self: &Rc<Self>,
        deadline: Monotonic,
        input: Input,
    ) -> Result<Reply, ErrorCode> {
        let runtime = &self.parts.runtime;
        let asking = async {
            loop {
                match self.ask_and_settle(input.clone()).await {
                    Err(HostError::NotHere | HostError::Loading) => {
                        runtime.sleep(CONTROLLER_PAUSE).await;
                    }
                    answer => break answer,
                }
            }
        };
        match runtime.before(deadline, asking).await {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(HostError::Lost(error))) if error != PartitionError::NotLeader => {
                Err(ErrorCode::KAFKA_STORAGE_ERROR)
            }
            _ => Err(ErrorCode::REQUEST_TIMED_OUT),
        }
    }

    async fn ask_and_settle(self: &Rc<Self>, input: Input) -> Result<Reply, HostError> {
        let (reply, end) = self.submit_to_controller(input).await?;
        self.settled_to(end).await;
        Ok(reply)
    }

    /// Asks the controller, wherever it is: its answer, and below which offset of group 0 what it
    /// decided stands.
    pub(super) async fn submit_to_controller(
        self: &Rc<Self>,
        input: Input,
    ) -> Result<(Reply, i64), HostError> {
        let own = self.parts.config.node_id;
        let leader = self.leader_of_group_0().filter(|leader| *leader != own);
        let up = self.peers().map(|peers| peers.up()).unwrap_or_default();
        if leader.is_none() {
            let id = PartitionId::CLUSTER_METADATA;
            let seeing = self.seeing(input.clone()).await;
            let submitted = self.parts.controllers.submit(id, seeing).await.await;
            match submitted {
                Err(HostError::NotHere) if !up.is_empty() => {}
                submitted => return Ok((submitted?, 0)),
            }
        }
        let Ok(bytes) = input.to_bytes() else { return Err(HostError::NotHere) };
        // Whoever is not there to be asked is asked through another, which may know better.
        let through = leader.filter(|leader| up.contains(leader)).or(up.first().copied());
        let Some(through) = through else { return Err(HostError::NotHere) };
        answered(self.try_peer(ANSWER_TIME, through, CONTROLLER, bytes).await)
    }

    fn leader_of_group_0(&self) -> Option<i32> {
        let leader = self.leaders().leader(PartitionId::CLUSTER_METADATA)?.node_id;
        (leader != NOBODY).then_some(leader)
    }

    /// Another node's question to this node's controller; where that is elsewhere, and the question
    /// was not passed on before, to that.
    pub(super) async fn answer_controller(
        self: &Rc<Self>,
        from: i32,
        kind: u16,
        body: Bytes,
    ) -> Bytes {
        let Ok(input) = Input::from_bytes(&body) else { return Bytes::new() };
        let elsewhere = self.leader_of_group_0().filter(|it| *it != self.parts.config.node_id);
        if let Some(leader) = elsewhere {
            let may_pass_on = kind == CONTROLLER && leader != from;
            return match may_pass_on {
                true => self.pass_on(leader, body).await,
                false => NOT_HERE,
            };
        }
        let seeing = self.seeing(input).await;
        let submitted = self.parts.controllers.submit(PartitionId::CLUSTER_METADATA, seeing).await;
        let reply = match submitted.await {
            Ok(reply) => reply,
            Err(HostError::NotHere | HostError::Loading) => return NOT_HERE,
            Err(HostError::Lost(_)) => return Bytes::new(),
        };
        let Ok(reply) = reply.to_bytes() else { return Bytes::new() };
        let mut answer = BytesMut::with_capacity(8 + reply.len());
        answer.put_i64(self.group_0_end().await);
        answer.extend_from_slice(&reply);
        answer.freeze()
    }

    async fn pass_on(&self, leader: i32, question: Bytes) -> Bytes {
        match self.try_peer(ANSWER_TIME, leader, CONTROLLER_FOR, question).await {
            Ok(answer) => answer,
            Err(RequestError::Broken) => Bytes::new(),
            Err(_) => NOT_HERE,
        }
    }

    /// What this node's controller is asked: with what this node sees, where that matters.
    async fn seeing(self: &Rc<Self>, input: Input) -> Input {
        if self.parts.peers.is_none() || !input.is_about_sight() {
            return input;
        }
        let voters = |group: &Replica<R>| group.members().voters().map(|it| it.node).collect();
        let voters = self.of_group_0(voters).await.unwrap_or_default();
        input.seeing(Sight { present: self.present(), voters })
    }

    /// Below which offset group 0 is committed, as this node knows.
    async fn group_0_end(self: &Rc<Self>) -> i64 {
        self.of_group_0(|group| group.high_watermark()).await.unwrap_or(0)
    }

    /// Looks at this node's replica of group 0, on the shard that has it; `None`: there is none.
    async fn of_group_0<T: Send + 'static>(
        self: &Rc<Self>,
        look: impl FnOnce(&Replica<R>) -> T + Send + 'static,
    ) -> Option<T> {
        let looked = self.on(0, |node| {
            let group = node.parts.partitions.local(PartitionId::CLUSTER_METADATA);
            std::future::ready(group.ok().map(|group| look(&group)))
        });
        looked.await.flatten()
    }
}

/// An answer of another node's controller. [`HostError::NotHere`]: nobody was asked;
/// [`HostError::Lost`]: what became of it is not known.
fn answered(answer: Result<Bytes, RequestError>) -> Result<(Reply, i64), HostError> {
    let unknown = HostError::Lost(PartitionError::NotLeader);
    let answer = answer.map_err(|error| match error {
        RequestError::Broken => unknown.clone(),
        RequestError::Down | RequestError::Busy | RequestError::TooLong => HostError::NotHere,
    })?;
    if answer == NOT_HERE {
        return Err(HostError::NotHere);
    }
    let (end, reply) = answer.split_first_chunk::<8>().ok_or_else(|| unknown.clone())?;
    let reply = Reply::from_bytes(&answer.slice_ref(reply)).map_err(|_| unknown)?;
    Ok((reply, i64::from_be_bytes(*end)))
}
