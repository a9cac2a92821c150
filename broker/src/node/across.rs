//! What a shard of this node has the others do.

use std::rc::Rc;

use super::view::Node;
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// Does something on a shard; `None` where that has ended.
    pub(super) async fn on<A, F>(
        self: &Rc<Self>,
        shard: usize,
        work: impl FnOnce(Rc<Self>) -> F + Send + 'static,
    ) -> Option<A>
    where
        A: Send + 'static,
        F: Future<Output = A> + 'static,
    {
        if shard == self.parts.jobs.own() {
            return Some(work(Rc::clone(self)).await);
        }
        let job = move |node: &Rc<Self>| work(Rc::clone(node));
        self.parts.jobs.start(shard, job).await.await
    }

    /// Does it on all shards at once; what came of it on each, in their order, as by [`Node::on`].
    pub(super) async fn on_all<A, F>(
        self: &Rc<Self>,
        work: impl FnOnce(Rc<Self>) -> F + Clone + Send + 'static,
    ) -> Vec<Option<A>>
    where
        A: Send + 'static,
        F: Future<Output = A> + 'static,
    {
        let (own, count) = (self.parts.jobs.own(), self.parts.jobs.count());
        let mut started = Vec::with_capacity(count);
        for shard in (0..count).filter(|shard| *shard != own) {
            let work = work.clone();
            let job = move |node: &Rc<Self>| work(Rc::clone(node));
            started.push(self.parts.jobs.start(shard, job).await);
        }
        let here = work(Rc::clone(self)).await;
        let mut all = Vec::with_capacity(count);
        for done in started {
            all.push(done.await);
        }
        all.insert(own, Some(here));
        all
    }
}
