//! Reads partitions and prints what is in them: what `vltava consume` does with and without a
//! group.

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::Duration;

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_client::fetcher::{FetchOptions, Fetched, Fetcher};
use vltava_client::metadata::{NodeId, TopicPartition};
use vltava_client::offsets::{EARLIEST, LATEST};
use vltava_client::records::for_each_record;
use vltava_protocol::compression::Decompressor;
use vltava_protocol::messages::fetch::FetchRequest;
use vltava_protocol::types::Str;

use crate::cli::consume::Printer;
use crate::cli::error::CliError;
use crate::cli::position::Position;
use crate::cli::progress::Progress;

/// How long to wait where nothing says when to go on.
const PAUSE_MS_MAX: u64 = 100;

/// What is read, and how far.
pub(super) struct Reading {
    pub(super) cluster: Cluster,
    pub(super) topics: Vec<Str>,
    fetcher: Fetcher,
    printer: Printer,
    decompressor: Decompressor,
    /// Behind the last record that was printed.
    consumed: BTreeMap<TopicPartition, i64>,
    exit_at_end: bool,
    /// Where the partitions ended when reading began; only if that is where to stop.
    ends: Option<BTreeMap<TopicPartition, i64>>,
    progress: Option<Progress>,
    /// A broker does not answer, and that was said.
    is_cut_off: bool,
}

impl Reading {
    /// Nothing is read yet.
    pub(super) fn new(
        cluster: Cluster,
        printer: Printer,
        topics: Vec<Str>,
        exit_at_end: bool,
    ) -> Self {
        // A person who watches the records needs no progress.
        let progress = (!printer.output.is_terminal()).then(|| Progress::start("reading"));
        Self {
            cluster,
            topics,
            fetcher: Fetcher::new(FetchOptions::default()),
            printer,
            decompressor: Decompressor::new(),
            consumed: BTreeMap::new(),
            exit_at_end,
            ends: None,
            progress,
            is_cut_off: false,
        }
    }

    /// The offsets that a position means in each partition.
    pub(super) fn offsets_at(
        &mut self,
        partitions: &[TopicPartition],
        position: Position,
    ) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        let at =
            |timestamp| partitions.iter().map(|at| (at.clone(), timestamp)).collect::<Vec<_>>();
        match position {
            Position::Beginning => self.cluster.list_offsets(&at(EARLIEST)),
            Position::End => self.cluster.list_offsets(&at(LATEST)),
            Position::Offset(offset) => Ok(at(offset).into_iter().collect()),
            Position::BeforeEnd(count) => {
                let first = self.cluster.list_offsets(&at(EARLIEST))?;
                let mut offsets = self.cluster.list_offsets(&at(LATEST))?;
                for (partition, offset) in &mut offsets {
                    let first = first.get(partition).copied().unwrap_or(0);
                    *offset = offset.saturating_sub(count).max(first);
                }
                Ok(offsets)
            }
            Position::Time(timestamp) => {
                let mut offsets = self.cluster.list_offsets(&at(timestamp.max(0)))?;
                let end = self.cluster.list_offsets(&at(LATEST))?;
                for (partition, offset) in &mut offsets {
                    if *offset < 0 {
                        *offset = end.get(partition).copied().unwrap_or(0);
                    }
                }
                Ok(offsets)
            }
        }
    }

    /// Reads from these offsets on, and nothing else.
    pub(super) fn begin(
        &mut self,
        offsets: BTreeMap<TopicPartition, i64>,
    ) -> Result<(), ClientError> {
        self.stop();
        if self.exit_at_end {
            let partitions: Vec<_> = offsets.keys().cloned().collect();
            self.ends = Some(self.offsets_at(&partitions, Position::End)?);
        }
        for (partition, offset) in offsets {
            self.fetcher.set_position(partition, offset);
        }
        Ok(())
    }

    /// Reads nothing any more. What was printed stays known until it is taken.
    pub(super) fn stop(&mut self) {
        self.fetcher.clear();
        self.ends = None;
    }

    /// Where what was printed ends, in each partition where something was, since this was last
    /// asked.
    pub(super) fn take_consumed(&mut self) -> Vec<(TopicPartition, i64)> {
        std::mem::take(&mut self.consumed).into_iter().collect()
    }

    /// Whether all that was wanted was printed.
    pub(super) fn is_done(&self) -> bool {
        let is_at_end = |ends: &BTreeMap<TopicPartition, i64>| {
            ends.iter()
                .all(|(at, end)| self.fetcher.position(at).is_none_or(|offset| offset >= *end))
        };
        self.printer.is_done() || self.ends.as_ref().is_some_and(is_at_end)
    }

    /// Fetches from all leaders at once, and prints what comes. `reset`: where to go on if a
    /// position is not in the log; without it, one that is behind the log's end is an error.
    pub(super) fn fetch(&mut self, reset: Option<Position>) -> Result<(), CliError> {
        let now_ms = self.cluster.now_ms();
        let requests = self.fetcher.take_requests(now_ms, self.cluster.metadata());
        let mut waiting = Vec::new();
        for (node, request) in requests {
            match self.cluster.link(node).and_then(|link| link.send(&request)) {
                Ok(()) => waiting.push(node),
                Err(error) => self.lost(node, error)?,
            }
        }
        for node in waiting {
            match self.cluster.link(node).and_then(|link| link.receive::<FetchRequest>()) {
                Ok(response) => {
                    self.is_cut_off = false;
                    let now_ms = self.cluster.now_ms();
                    let metadata = self.cluster.metadata();
                    for fetched in self.fetcher.on_response(now_ms, node, response, metadata) {
                        self.take(fetched, reset)?;
                    }
                }
                Err(error) => self.lost(node, error)?,
            }
        }
        self.printer.flush()?;
        if self.fetcher.take_wants_metadata() {
            // Where nobody answers now, somebody may later.
            let _ = self.cluster.refresh(Some(&self.topics), false);
        }
        Ok(())
    }

    /// Waits until there is something to fetch again, or until `deadline_ms`. Returns at once where
    /// there is.
    pub(super) fn wait(&self, deadline_ms: Option<u64>) {
        let now_ms = self.cluster.now_ms();
        let wake_ms = [self.fetcher.next_deadline_ms(), deadline_ms].into_iter().flatten().min();
        let pause_ms =
            wake_ms.map_or(PAUSE_MS_MAX, |at| at.saturating_sub(now_ms).min(PAUSE_MS_MAX));
        if pause_ms > 0 && !self.is_done() {
            thread::sleep(Duration::from_millis(pause_ms));
        }
    }

    fn lost(&mut self, node: NodeId, error: ClientError) -> Result<(), CliError> {
        self.cluster.disconnect(node);
        let now_ms = self.cluster.now_ms();
        self.fetcher.on_disconnect(now_ms, node, self.cluster.metadata());
        if !error.is_retriable() {
            return Err(error.into());
        }
        if !self.is_cut_off {
            self.is_cut_off = true;
            eprintln!("vltava: {}; trying again", CliError::from(error).message());
        }
        Ok(())
    }

    fn take(&mut self, fetched: Fetched, reset: Option<Position>) -> Result<(), CliError> {
        match fetched {
            Fetched::Batches { partition, from_offset, bytes, .. } => {
                self.print(&partition, from_offset, &bytes)
            }
            Fetched::OutOfRange { partition, offset } => self.reset(partition, offset, reset),
            Fetched::Refused { partition, code } => {
                let refused = ClientError::check(code, None, format!("reading {partition}"));
                Ok(refused?)
            }
        }
    }

    fn print(
        &mut self,
        partition: &TopicPartition,
        from_offset: i64,
        bytes: &[u8],
    ) -> Result<(), CliError> {
        let Self { printer, decompressor, .. } = self;
        if printer.is_done() {
            return Ok(());
        }
        let mut failure: Option<io::Error> = None;
        let mut next_offset = from_offset;
        let mut records = 0;
        let read = for_each_record(bytes, from_offset, decompressor, |record| {
            next_offset = record.offset + 1;
            records += 1;
            printer.print(partition, &record).unwrap_or_else(|error| {
                failure = Some(error);
                std::ops::ControlFlow::Break(())
            })
        });
        if let Some(error) = failure {
            return Err(error.into());
        }
        let flow = read.map_err(|error| CliError::new(format!("reading {partition}: {error}")))?;
        if flow.is_continue() {
            // Behind control records at the end, too.
            next_offset = self.fetcher.position(partition).unwrap_or(next_offset);
        }
        if next_offset > from_offset {
            self.consumed.insert(partition.clone(), next_offset);
        }
        if let Some(progress) = &self.progress {
            progress.add(records, u64::try_from(bytes.len()).unwrap_or(0));
        }
        Ok(())
    }

    fn reset(
        &mut self,
        partition: TopicPartition,
        offset: i64,
        reset: Option<Position>,
    ) -> Result<(), CliError> {
        let at = |reading: &mut Self, position| {
            let offsets = reading.offsets_at(std::slice::from_ref(&partition), position)?;
            Ok::<i64, ClientError>(offsets.get(&partition).copied().unwrap_or(0))
        };
        let first = at(self, Position::Beginning)?;
        let target = if offset < first {
            first
        } else if let Some(position) = reset {
            at(self, position)?
        } else {
            let end = at(self, Position::End)?;
            let message = format!("{partition} has no offset {offset}: it has {first} to {end}");
            return Err(CliError::new(message));
        };
        eprintln!("{partition} has no offset {offset} any more, going on at {target}");
        self.fetcher.set_position(partition, target);
        Ok(())
    }
}
