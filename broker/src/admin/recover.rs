//! Group 0 without a majority: `GET /recover/NODE,NODE` says what would be done where these nodes
//! are gone for good, and POST does it. `vltava cluster recover` asks both.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::http::{Response, Status};
use super::view::View;
use crate::node::recover::{NoPlan, Plan};
use crate::runtime::Runtime;

/// Where it is asked.
pub const PATH: &str = "/recover/";

/// The plan; `None`: the path names no nodes.
pub async fn plan<R: Runtime>(view: &Rc<View<R>>, path: &str) -> Option<Response> {
    let gone = nodes(path)?;
    Some(told(view.parts.node.plan_recovery(&gone).await))
}

/// Does it.
pub async fn recover<R: Runtime>(view: &Rc<View<R>>, path: &str) -> Option<Response> {
    let gone = nodes(path)?;
    Some(told(view.parts.node.recover(&gone).await))
}

fn told(planned: Result<Plan, NoPlan>) -> Response {
    match planned {
        Ok(plan) => Response::text(Status::Ok, format!("{plan}\n")),
        Err(NoPlan::Led) => {
            Response::text(Status::NotFound, "the cluster's metadata has a leader\n")
        }
        Err(NoPlan::Refused(why)) => Response::text(Status::BadRequest, format!("{why}\n")),
    }
}

/// The nodes that the path names, at least one.
fn nodes(path: &str) -> Option<BTreeSet<i32>> {
    path.strip_prefix(PATH)?.split(',').map(|node| node.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_the_nodes_that_are_gone() {
        assert_eq!(nodes("/recover/2,3"), Some(BTreeSet::from([2, 3])));
        for other in ["/recover", "/recover/", "/recover/2,", "/recover/x", "/recovery/2"] {
            assert_eq!(nodes(other), None, "{other}");
        }
    }
}
