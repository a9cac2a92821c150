//! Two nodes on real sockets.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::types::Uuid;

use super::{nothing, records, said};
use crate::metadata::image::PartitionId;
use crate::peer::SessionId;
use crate::peer::events::PeerEvents;
use crate::peer::greeting::{Introduction, Refusal};
use crate::peer::message::GroupMessage;
use crate::peer::options::Options;
use crate::peer::peers::Peers;
use crate::raft::message::Message;
use crate::runtime::jobs::{self, Jobs};
use crate::runtime::mesh::{MeshPort, mesh};
use crate::runtime::{
    DataDirectory, Listener, MachineRuntime, Network, Queue, Runtime, ShardStart, Shards, Stop,
    run_shards,
};

const PATIENCE: Duration = Duration::from_secs(20);
const PAYLOAD_BYTES: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Listens(SocketAddr),
    Up(usize),
    Down(usize),
    /// Shard, group, number, bytes of payload.
    Said(usize, i32, i64, usize),
}

#[derive(Clone)]
struct Reporter {
    shard: usize,
    shards: usize,
    told: mpsc::Sender<Told>,
}

impl PeerEvents for Reporter {
    fn admit(&self, _introduction: &Introduction) -> Result<(), Refusal> {
        Ok(())
    }

    async fn peer_up(&self, _session: SessionId, _introduction: &Arc<Introduction>) {
        self.told.send(Told::Up(self.shard)).unwrap();
    }

    async fn peer_down(&self, _session: SessionId) {
        // Nobody listens any more where the test has ended.
        let _ended = self.told.send(Told::Down(self.shard));
    }

    fn shard_of(&self, group: PartitionId) -> usize {
        group.index as usize % self.shards
    }

    async fn received(&self, _from: SessionId, messages: Vec<GroupMessage>) {
        for message in messages {
            let number = match message.body {
                Message::Append { committed, .. } => committed,
                Message::Flushed { index, .. } => index,
                _ => panic!("never said"),
            };
            let payload = message.payload.to_bytes().unwrap();
            assert!(payload.iter().all(|byte| *byte == number as u8), "another's payload");
            let told = Told::Said(self.shard, message.group.index, number, payload.len());
            self.told.send(told).unwrap();
        }
    }

    async fn requested(&self, _from: SessionId, kind: u16, body: Bytes) -> Bytes {
        assert_eq!(kind, 9);
        body
    }
}

type Node = Peers<MachineRuntime, Reporter>;
type Port = MeshPort<jobs::Message<Node>>;

fn introduction(node_id: i32, shards: usize) -> Arc<Introduction> {
    Arc::new(Introduction {
        protocol: (1, 1),
        feature_level: 1,
        cluster_id: None,
        node_id,
        disk_id: Uuid(node_id as u128),
        start: 1,
        shards: shards as u16,
        software: "test".into(),
        rack: None,
        endpoints: Vec::new(),
    })
}

/// Runs a node with so many shards; each does what `act` says once it is there.
fn run<F: Future<Output = ()> + 'static>(
    node_id: i32,
    shards: usize,
    directory: &std::path::Path,
    act: impl Fn(Rc<Node>, Stop) -> F + Clone + Send + 'static,
) -> (Shards<String>, mpsc::Receiver<Told>) {
    let options = crate::runtime::Options {
        data_directory: Arc::new(DataDirectory::open(directory).unwrap()),
        recorder: None,
    };
    let (told, hears) = mpsc::channel();
    let make = move |start: ShardStart, port: Port| {
        let ShardStart { runtime, shard, stop } = start;
        let (told, act) = (told.clone(), act.clone());
        async move {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let jobs = Jobs::new(port);
            let events = Reporter { shard, shards, told: told.clone() };
            let introduction = introduction(node_id, shards);
            // Who goes closes its connections; a machine that is busy says nothing for long.
            let options = Options { heartbeats_missed_max: 1000, ..Options::default() };
            let peers =
                Peers::new(runtime.clone(), Rc::clone(&jobs), events, introduction, options);
            runtime.spawn(Queue::Foreground, jobs.serve(runtime.clone(), Rc::clone(&peers)));
            // One shard accepts for all.
            if shard == 0 {
                let listener = runtime.network().listen(any).await.unwrap();
                told.send(Told::Listens(listener.local_address())).unwrap();
                runtime.spawn(Queue::Foreground, Rc::clone(&peers).accept(listener));
            }
            act(peers, stop).await;
            Ok::<(), String>(())
        }
    };
    (run_shards(&options, mesh(shards, 8), make).unwrap(), hears)
}

async fn until_up(peers: &Node, node: i32) {
    while peers.session(node).is_none() {
        peers.runtime.sleep_until(peers.runtime.now().after(Duration::from_millis(1))).await;
    }
}

#[test]
fn two_nodes_talk_over_real_sockets_and_see_each_other_go() {
    const MESSAGES: i64 = 60;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (second, hears) = run(2, 3, folders[1].path(), |_, stop| async move {
        stop.requested().await;
    });
    let Ok(Told::Listens(address)) = hears.recv_timeout(PATIENCE) else { panic!("no listener") };
    let (first, hears_first) = run(1, 2, folders[0].path(), move |peers, stop| async move {
        let own = peers.jobs.own();
        if own == 0 {
            peers.know(2, address);
        }
        until_up(&peers, 2).await;
        let answer = peers.request(2, 9, Bytes::from(vec![7; 100_000])).await.unwrap();
        assert_eq!(answer, vec![7; 100_000]);
        for number in 0..MESSAGES {
            // Groups 0 and 2 belong to shard 0 here; there, to shards 0 and 2.
            let group = (own + 2 * (number as usize % 2)) as i32;
            let body =
                Message::Append { epoch: 1, run: nothing(), committed: number, high_watermark: 0 };
            let payload = records(vec![number as u8; PAYLOAD_BYTES]);
            let room = peers.room(2, PAYLOAD_BYTES).await.unwrap();
            assert!(room.send(GroupMessage { payload, ..said(group, body) }));
        }
        stop.requested().await;
    });
    let (mut ups, mut last) = (0, std::collections::BTreeMap::new());
    let mut left = 2 * MESSAGES;
    while left > 0 {
        match hears.recv_timeout(PATIENCE).expect("all arrives") {
            Told::Up(_) => ups += 1,
            Told::Said(shard, group, number, bytes) => {
                assert_eq!((shard, bytes), (group as usize % 3, PAYLOAD_BYTES));
                let before = last.insert(group, number);
                assert_eq!(before.unwrap_or(number - 2) + 2, number, "group {group}");
                left -= 1;
            }
            told => panic!("{told:?}"),
        }
    }
    assert_eq!(ups, 3);
    first.stop().request();
    first.join().unwrap();
    drop(hears_first);
    for _ in 0..3 {
        assert!(matches!(hears.recv_timeout(PATIENCE), Ok(Told::Down(_))));
    }
    second.stop().request();
    second.join().unwrap();
}
