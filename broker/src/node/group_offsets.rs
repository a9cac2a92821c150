//! Ends the offsets that groups keep of topics which were deleted while their coordinator could not
//! hear of it: it was loading, or the process was down.

use std::rc::Rc;

use vltava_protocol::types::Str;

use super::view::Node;
use crate::coordinator::host::Host;
use crate::groups::{GroupMachine, Input, State};
use crate::runtime::Runtime;

/// After each load of a group coordinator, compares the topics that it keeps offsets of with those
/// that there are. To be spawned once for each coordinator; ends with it.
pub(super) async fn compare_after_loads<R: Runtime>(
    node: Rc<Node<R>>,
    host: Rc<Host<GroupMachine, R>>,
) {
    let names = |state: &State| state.topics().cloned().collect::<Vec<Str>>();
    let mut seen = None;
    while let Some(load) = host.loaded(seen).await {
        seen = Some(load);
        let kept = host.read(names).unwrap_or_default();
        // An image older than the log would lack topics whose offsets the log has.
        node.settled().await;
        for name in kept {
            let id = node.image().topic(&name).map(|topic| topic.id);
            // Where the coordinator is lost meanwhile, the next load begins again.
            drop(host.submit(Input::TopicFound { name, id }).await);
        }
    }
}
