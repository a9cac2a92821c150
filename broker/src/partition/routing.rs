//! Which shard owns which partition, as work is sent there: the table may change between two looks.
//!
//! What must hold when a partition moves: once a shard has told the old owner that it sends no more
//! work for the partition there, none of it is on its way behind those words. So whoever looks a
//! shard up keeps the [`Routing`] that it looked at until its work stands in the mesh; a shard that
//! takes another table waits for all that look at the old one ([`Routings::set`]).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;

use super::request::PartitionId;
use crate::metadata::shard_table::ShardTable;

/// A table, as one shard looks at it.
pub struct Routing {
    table: Arc<ShardTable>,
    /// Dropped with the last that looks.
    _last: oneshot::Sender<()>,
}

impl Routing {
    /// Which shard owns a partition.
    pub fn shard_of(&self, partition: PartitionId) -> usize {
        self.table.shard_of(partition)
    }

    /// The table itself.
    pub fn table(&self) -> &Arc<ShardTable> {
        &self.table
    }
}

/// The table of a shard, and whoever looks at an older one.
pub struct Routings {
    now: RefCell<(Rc<Routing>, oneshot::Receiver<()>)>,
}

impl Routings {
    /// The first table.
    pub fn new(table: Arc<ShardTable>) -> Self {
        Self { now: RefCell::new(begin(table)) }
    }

    /// The table of now: to be kept until what is sent by it stands in the mesh.
    pub fn now(&self) -> Rc<Routing> {
        Rc::clone(&self.now.borrow().0)
    }

    /// Another table from this call on; what it returns completes when nobody looks at the one
    /// before it.
    pub fn set(&self, table: Arc<ShardTable>) -> impl Future<Output = ()> + use<> {
        let (before, released) = self.now.replace(begin(table));
        drop(before);
        async move {
            // It is only ever dropped.
            let _released = released.await;
        }
    }
}

fn begin(table: Arc<ShardTable>) -> (Rc<Routing>, oneshot::Receiver<()>) {
    let (last, released) = oneshot::channel();
    (Rc::new(Routing { table, _last: last }), released)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::BTreeMap;
    use std::num::NonZeroUsize;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_new_table_is_waited_for_by_those_that_look_at_the_old_one() {
        let table = |shards| {
            let shards = NonZeroUsize::new(shards).unwrap();
            Arc::new(ShardTable::new(shards, BTreeMap::new()))
        };
        let routings = Routings::new(table(2));
        let (first, second) = (routings.now(), routings.now());
        let mut set = pin!(routings.set(table(3)));
        assert_eq!(routings.now().table().shards(), 3, "from the call on");
        let mut context = Context::from_waker(Waker::noop());
        assert!(set.as_mut().poll(&mut context).is_pending());
        assert_eq!(first.table().shards(), 2);
        drop(first);
        assert!(set.as_mut().poll(&mut context).is_pending());
        drop(second);
        assert_eq!(set.as_mut().poll(&mut context), Poll::Ready(()));
        // Nobody looked at the one in between.
        let mut set = pin!(routings.set(table(4)));
        assert_eq!(set.as_mut().poll(&mut context), Poll::Ready(()));
    }
}
