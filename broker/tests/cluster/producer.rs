//! An idempotent producer that knows every acknowledgement, and follows its partition's leader.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use vltava_client::error::ClientError;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::produce::ProduceRequest;

use crate::check::{Acknowledged, Ledger, value};
use crate::support::wire::{self, PRODUCE_VERSION};
use crate::view::{self, PATIENCE, connect, leader_of};

/// As many requests as Kafka remembers batches of a producer.
const IN_FLIGHT_MAX: usize = 5;
/// Records of one batch.
const RECORDS_MAX: u64 = 8;

/// Small, seeded, good enough to choose sizes and moments (xorshift).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// When a record is written: what is old goes by retention, in runs that last for long.
pub fn now_ms() -> i64 {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    clock.as_millis() as i64
}

/// A batch that is sent until it is acknowledged.
struct Pending {
    bytes: Bytes,
    first: u64,
    count: u64,
}

/// What all producers are told.
#[derive(Default)]
pub struct Orders {
    /// To send nothing new until this is taken back.
    pub pause: AtomicBool,
    /// To send nothing new, and to end once all is acknowledged.
    pub stop: AtomicBool,
}

impl Orders {
    fn may_send(&self) -> bool {
        !self.pause.load(Ordering::Acquire) && !self.stop.load(Ordering::Acquire)
    }
}

pub struct Producer {
    number: usize,
    partition: i32,
    /// Number of the next record, so also how many there are.
    next: u64,
    acknowledged: Vec<Acknowledged>,
    topic: &'static str,
    id: i64,
    epoch: i16,
    random: Random,
    pending: VecDeque<Pending>,
}

impl Producer {
    pub fn new(
        addresses: &[SocketAddr],
        topic: &'static str,
        partition: i32,
        number: usize,
        random: Random,
    ) -> Self {
        let answer = view::until("a producer gets no id", || {
            let mut link = addresses.iter().find_map(|address| connect(*address).ok())?;
            let answer = link.call(&InitProducerIdRequest::default()).ok()?;
            answer.error_code.is_none().then_some(answer)
        });
        Self {
            number,
            partition,
            next: 0,
            acknowledged: Vec::new(),
            topic,
            id: answer.producer_id,
            epoch: answer.producer_epoch,
            random,
            pending: VecDeque::new(),
        }
    }

    /// Writes until it is told to stop and all is acknowledged. Counts in `total` what is.
    pub fn run(mut self, addresses: &[SocketAddr], orders: &Orders, total: &AtomicU64) -> Ledger {
        let mut addresses = addresses.to_vec();
        let mut progress = Instant::now();
        while !self.pending.is_empty() || !orders.stop.load(Ordering::Acquire) {
            if self.pending.is_empty() && orders.pause.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(5));
                progress = Instant::now();
                continue;
            }
            let before = self.acknowledged.len();
            let ended = leader_of(&addresses, self.topic, self.partition)
                .map(|leader| self.connection(leader, orders, total));
            if self.acknowledged.len() > before {
                progress = Instant::now();
            }
            assert!(
                progress.elapsed() < PATIENCE,
                "producer {} gets nothing acknowledged by partition {}: {ended:?}",
                self.number,
                self.partition
            );
            // Somebody else may know better who leads, or will know in a moment.
            addresses.rotate_left(1);
            thread::sleep(Duration::from_millis(5));
        }
        Ledger {
            producer: self.number,
            partition: self.partition,
            sent: self.next,
            acknowledged: self.acknowledged,
        }
    }

    /// One connection to a leader, to its end. What the last one left unanswered goes first.
    fn connection(
        &mut self,
        leader: SocketAddr,
        orders: &Orders,
        total: &AtomicU64,
    ) -> Result<(), ClientError> {
        let mut link = connect(leader)?;
        let request = |batch: &Pending, partition| {
            wire::produce_request(self.topic, partition, -1, batch.bytes.clone())
        };
        for pending in &self.pending {
            link.send_at(&request(pending, self.partition), PRODUCE_VERSION)?;
        }
        let mut sent = self.pending.len();
        loop {
            if orders.may_send() && sent < IN_FLIGHT_MAX {
                self.add_batch();
                let pending = self.pending.back().expect("just added");
                link.send_at(&request(pending, self.partition), PRODUCE_VERSION)?;
                sent += 1;
                // Sometimes one at a time, sometimes as many as may be.
                if self.random.below(3) == 0 {
                    continue;
                }
            }
            if sent == 0 {
                return Ok(());
            }
            let mut answer = link.receive::<ProduceRequest>()?;
            sent -= 1;
            let answer = answer.responses.remove(0).partition_responses.remove(0);
            let (number, partition) = (self.number, self.partition);
            if !answer.error_code.is_none() {
                let error = answer.error_code;
                assert!(
                    error.is_retriable(),
                    "producer {number}, partition {partition}: {error:?}"
                );
                return ClientError::check(error, answer.error_message.as_ref(), "a batch");
            }
            let Pending { first, count, .. } = self.pending.pop_front().expect("it was sent");
            let offset = answer.base_offset;
            self.acknowledged.push(Acknowledged { offset, first, count });
            total.fetch_add(count, Ordering::Release);
        }
    }

    fn add_batch(&mut self) {
        let (first, count) = (self.next, 1 + self.random.below(RECORDS_MAX));
        let mut builder = BatchBuilder::new().producer(self.id, self.epoch, first as i32);
        let now_ms = now_ms();
        for number in first..first + count {
            let size = self.random.below(if number % 97 == 0 { 60_000 } else { 600 }) as usize;
            let value = value(self.number, number, size);
            builder.append(now_ms, None, Some(&value), &[]).expect("a small record");
        }
        self.next += count;
        self.pending.push_back(Pending { bytes: Bytes::from(builder.build()), first, count });
    }
}
