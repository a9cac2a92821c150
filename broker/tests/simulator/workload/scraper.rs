//! Whoever watches the node: reads its metrics and its health.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use vltava::runtime::sim::SimConnection;
use vltava::runtime::{Connection, Network, Runtime};

use super::{RETRY, Workload};
use crate::client::{CallError, Client, within};
use crate::cluster::ADMIN_PORT;
use crate::promise;

/// The pages, and whether they may say that the node is not well.
const PAGES: [&str; 3] = ["/metrics", "/health", "/ready"];
/// A gauge that every page of metrics has.
const SURE_METRIC: &str = "\nvltava_";

/// Reads pages until the run is to end, and then until all are well.
pub async fn scrape(workload: &Workload, mut client: Client) {
    let mut well = 0;
    loop {
        let nodes: Vec<usize> = workload.cluster.nodes().collect();
        let Some(&next) = nodes.get(well / PAGES.len()) else { return };
        let page = match workload.is_finishing() {
            true => PAGES[well % PAGES.len()],
            false => *client.random.pick(&PAGES),
        };
        let asked_when_finishing = workload.is_finishing();
        let address = match workload.is_finishing() {
            true => workload.cluster.address(next),
            false => *client.random.pick(&workload.brokers),
        };
        match read_page(&client, address, page).await {
            Ok(true) if asked_when_finishing => well += 1,
            Ok(true) => client.pause(workload.swarm.think_max * 10).await,
            Ok(false) | Err(_) => client.pause(RETRY).await,
        }
    }
}

/// Asks the admin port of a node: head and body of the answer; `None` where the process ended
/// before it had answered.
pub async fn ask(
    client: &Client,
    mut address: SocketAddr,
    method: &str,
    path: &str,
) -> Result<Option<(String, String)>, CallError> {
    address.set_port(ADMIN_PORT);
    let asking = async {
        let connection = client.runtime.network().connect(address).await?;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\n\r\n");
        connection.send(vec![Bytes::from(request)]).await?;
        read_to_end(connection).await
    };
    let answer = within(&client.runtime, client.timeout, asking).await;
    let answer = String::from_utf8_lossy(&answer.ok_or(CallError::TimedOut)??).into_owned();
    let parts = answer.split_once("\r\n\r\n");
    Ok(parts.map(|(head, body)| (head.to_owned(), body.to_owned())))
}

/// Whether the page says that all is well.
async fn read_page(client: &Client, address: SocketAddr, page: &str) -> Result<bool, CallError> {
    let Some((head, body)) = ask(client, address, "GET", page).await? else {
        return Ok(false);
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    // A request that was held on its way may have come too late, in part.
    promise!(matches!(status, "200" | "503" | "408"), "{page} was answered with {head}");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let is_whole = length.and_then(|length| length.parse().ok()) == Some(body.len());
    if status == "200" && page == "/metrics" && is_whole {
        promise!(body.contains(SURE_METRIC), "a page of metrics without any: {body}");
        for line in body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            let is_number = value.parse::<f64>().is_ok_and(|value| value >= 0.0);
            promise!(is_number, "a metric that is no number, or a negative one: {line}");
        }
    }
    Ok(status == "200" && is_whole)
}

async fn read_to_end(connection: SimConnection) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        let (received, buffer) = connection.receive(BytesMut::with_capacity(4096)).await;
        if received? == 0 {
            return Ok(read);
        }
        read.extend_from_slice(&buffer);
    }
}
