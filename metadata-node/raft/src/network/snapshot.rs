//! Snapshots on their way: chunks to a temporary file, fsync, check, rename, then installation.

use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::NodeId;
use carnax_core::problem::Problem;
use carnax_platform::rpc::{Channel, RequestStream};
use futures::stream::{self, StreamExt};
use openraft::errors::{NetworkError, RPCError, StreamingError};
use openraft::raft::SnapshotResponse;

use super::client::failed;
use super::envelope::{Desk, Envelope};
use super::messages::{SendSnapshot, SnapshotPart};
use crate::snapshot_store::{SnapshotData, SnapshotStore};
use crate::types::{Raft, Snapshot, Types, Vote};

const CHUNK_BYTES: usize = 1024 * 1024;

/// Sends a snapshot and waits until it is installed. Dropped half-way, the follower throws away what it has.
pub(super) async fn send(
    channel: &Channel,
    desk: &Desk,
    target: NodeId,
    vote: Vote,
    snapshot: Snapshot,
    deadline: Duration,
) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
    let unreadable = |error: &std::io::Error| StreamingError::from(RPCError::from(NetworkError::new(error)));
    let bytes = snapshot.snapshot.len().map_err(|error| unreadable(&error))?;
    let head = SnapshotPart::Head { vote, meta: snapshot.meta, bytes };
    let parts = stream::once(std::future::ready(head)).chain(chunks(snapshot.snapshot, bytes));
    let sealed = {
        let desk = desk.clone();
        parts.map(move |part| desk.seal(target, part))
    };
    let exchange = async {
        let mut replies =
            channel.bidirectional::<SendSnapshot>(sealed, deadline).await.map_err(|error| failed(&error))?;
        let ended = || NetworkError::from_string("the follower gave no answer to a snapshot");
        let reply = replies.next().await.ok_or_else(ended)?.map_err(|error| failed(&error))?;
        let (_, response) = desk.open(reply).map_err(|problem| failed(&problem.into()))?;
        Ok::<_, RPCError<Types>>(response)
    };
    let late =
        |_| RPCError::from(NetworkError::from_string(format!("snapshot not installed within {deadline:?}")));
    Ok(tokio::time::timeout(deadline, exchange).await.map_err(late)??)
}

/// The bytes of a snapshot in order; ends early if they cannot be read, which the follower notices.
fn chunks(data: SnapshotData, bytes: u64) -> impl futures::Stream<Item = SnapshotPart> + Send {
    stream::unfold((data, 0), move |(data, at)| async move {
        if at >= bytes {
            return None;
        }
        match data.chunk(at, CHUNK_BYTES).await {
            Ok(chunk) if !chunk.is_empty() => {
                let next = at + chunk.len() as u64;
                Some((SnapshotPart::Chunk(chunk), (data, next)))
            }
            Ok(_) => None,
            Err(error) => {
                tracing::error!(%error, "a snapshot cannot be read while it is sent");
                None
            }
        }
    })
}

/// Takes a snapshot from the leader and installs it.
pub(super) async fn receive(
    raft: Raft,
    desk: Desk,
    store: SnapshotStore,
    mut parts: RequestStream<Envelope<SnapshotPart>>,
) -> Result<Envelope<SnapshotResponse<Types>>, Problem> {
    let malformed = |why: String| Problem::new(ErrorCode::Malformed, why);
    let failed = |error: &std::io::Error| {
        Problem::new(ErrorCode::Unavailable, format!("snapshot not stored: {error}"))
    };
    let first = parts.next().await.ok_or_else(|| malformed("a snapshot without a head".to_owned()))??;
    let (leader, SnapshotPart::Head { vote, meta, bytes }) = desk.open(first)? else {
        return Err(malformed("a snapshot begins with its head".to_owned()));
    };
    let mut incoming = store.receive().await.map_err(|error| failed(&error))?;
    let mut received = 0;
    while let Some(part) = parts.next().await {
        let (_, SnapshotPart::Chunk(chunk)) = desk.open(part?)? else {
            return Err(malformed("a snapshot has one head".to_owned()));
        };
        received += chunk.len() as u64;
        if received > bytes {
            return Err(malformed(format!("a snapshot of {bytes} bytes has more")));
        }
        incoming.write(chunk).await.map_err(|error| failed(&error))?;
    }
    if received != bytes {
        return Err(malformed(format!("a snapshot of {bytes} bytes ended after {received}")));
    }
    let snapshot = incoming.finish().await.map_err(|error| failed(&error))?;
    let response = raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
    let response = response.map_err(|fatal| super::server::stopped(&fatal))?;
    Ok(desk.seal(leader, response))
}
