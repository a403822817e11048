//! The task that sends: takes what is due, keeps a bounded number of requests in flight, answers every record once.

use std::collections::BTreeMap;
use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::http::{AppendResponse, PartitionFrame};
use carnax_core::id::PartitionIndex;
use carnax_core::offset::Offset;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::queue::{Draft, Pending};
use super::{ProduceError, Shared, encode};
use crate::error::RequestError;
use crate::raw::Append;
use crate::retry::Operation;

/// A request that came to its end.
struct Settled {
    oldest: u64,
    partitions: Vec<PartitionIndex>,
    /// Records that have to be routed again.
    returned: BTreeMap<PartitionIndex, Vec<Pending>>,
}

/// Runs until the producer is closed and everything is answered.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut in_flight: JoinSet<Settled> = JoinSet::new();
    let mut reroutes = 0;
    loop {
        start_requests(&shared, &mut in_flight);
        let (stale, finished, next_look) = {
            let queues = shared.lock();
            (queues.stale, queues.is_finished(), queues.next_look())
        };
        if stale && in_flight.is_empty() {
            reroutes += 1;
            reroute(&shared, reroutes).await;
            continue;
        }
        if finished && in_flight.is_empty() {
            return;
        }
        let full = in_flight.len() >= shared.settings.max_in_flight;
        let look = next_look.filter(|_| !full);
        tokio::select! {
            biased;
            Some(settled) = in_flight.join_next() => {
                if settle(&shared, settled) {
                    reroutes = 0;
                }
            }
            () = shared.wake.notified() => {}
            () = sleep_until(look) => {}
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn start_requests(shared: &Arc<Shared>, in_flight: &mut JoinSet<Settled>) {
    while in_flight.len() < shared.settings.max_in_flight {
        let (draft, expired) = shared.lock().take_request(Instant::now());
        if !expired.is_empty() {
            let waited = shared.settings.delivery_timeout;
            expired.into_iter().for_each(|record| fail(shared, record, ProduceError::Expired { waited }));
            shared.tell_progress();
        }
        let Some(draft) = draft else { return };
        let shared = Arc::clone(shared);
        in_flight.spawn(async move { Box::pin(send(&shared, draft)).await });
    }
}

/// Takes note of an end; tells whether no record has to be routed again.
fn settle(shared: &Shared, settled: Result<Settled, JoinError>) -> bool {
    let settled = match settled {
        Ok(settled) => settled,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return true,
    };
    let stale = !settled.returned.is_empty();
    {
        let mut queues = shared.lock();
        queues.settle(settled.oldest, &settled.partitions, settled.returned);
        queues.stale |= stale;
    }
    shared.tell_progress();
    !stale
}

fn fail(shared: &Shared, record: Pending, error: ProduceError) {
    shared.memory.add_permits(record.charge as usize);
    record.answer(Err(error));
}

/// Sends one request until it is done or may not be repeated, and answers its records.
async fn send(shared: &Shared, draft: Draft) -> Settled {
    let (route, batch_bytes) = {
        let queues = shared.lock();
        (queues.route(), queues.batch_bytes())
    };
    let oldest = draft.records().map(|record| record.sequence).min().unwrap_or_default();
    let accepted = draft.records().map(|record| record.accepted).min().unwrap_or_else(Instant::now);
    let partitions = draft.parts.keys().copied().collect();
    let routed_by = draft.routed.then_some(route.partition_count);
    let mut parts = BTreeMap::new();
    let mut frames = Vec::new();
    for (partition, records) in draft.parts {
        let (batches, taken, left) = encode::encode(records, batch_bytes, shared.settings.compression);
        left.into_iter().for_each(|(record, error)| fail(shared, record, error));
        if !taken.is_empty() {
            frames.push(PartitionFrame { partition, batches });
            parts.insert(partition, taken);
        }
        // Compression takes a while: let others have the thread between partitions.
        tokio::task::yield_now().await;
    }
    if frames.is_empty() {
        return Settled { oldest, partitions, returned: BTreeMap::new() };
    }
    let append = Append { topic: shared.topic.clone(), topic_id: Some(route.topic_id), routed_by, frames };
    let operation = Operation {
        deadline: accepted + shared.settings.delivery_timeout,
        attempt_timeout: shared.settings.request_timeout,
        repeat_unknown: shared.settings.retry_unknown_outcomes,
        leave: Some(ErrorCode::StaleRouting),
    };
    let result = shared.client.raw().append_with(&append, operation).await;
    let returned = answer(shared, parts, result);
    Settled { oldest, partitions, returned }
}

/// Answers the records of a request; gives back those that have to be routed again.
fn answer(
    shared: &Shared,
    parts: BTreeMap<PartitionIndex, Vec<Pending>>,
    result: Result<AppendResponse, RequestError>,
) -> BTreeMap<PartitionIndex, Vec<Pending>> {
    let response = match result {
        Ok(response) => response,
        Err(error) if error.is(ErrorCode::StaleRouting) => return parts,
        Err(error) => {
            let error = ProduceError::Request(Arc::new(error));
            parts.into_values().flatten().for_each(|record| fail(shared, record, error.clone()));
            return BTreeMap::new();
        }
    };
    for (partition, records) in parts {
        let result = response.results.iter().find(|result| result.partition == partition);
        let result = result.filter(|result| u32::try_from(records.len()) == Ok(result.count));
        let Some(result) = result else {
            let reason = format!("answer to an append does not name the records of partition {partition}");
            let error = RequestError::Answer { endpoint: shared.topic.to_string(), status: 200, reason };
            let error = ProduceError::Request(Arc::new(error));
            records.into_iter().for_each(|record| fail(shared, record, error.clone()));
            continue;
        };
        for (offset, record) in (result.base_offset.0..).zip(records) {
            shared.memory.add_permits(record.charge as usize);
            record.stored(partition, Offset(offset), result.append_time);
        }
    }
    BTreeMap::new()
}

/// Asks how many partitions the topic has now, and routes again. If nobody knows, nothing that waits can be sent.
async fn reroute(shared: &Shared, attempt: u32) {
    if attempt > 1 {
        tokio::time::sleep(shared.client.backoff(attempt - 1)).await;
    }
    match Box::pin(shared.client.ask_route(&shared.topic)).await {
        Ok(route) => shared.lock().reroute(route),
        Err(error) => {
            let error = ProduceError::Request(Arc::new(error));
            let records = {
                let mut queues = shared.lock();
                queues.stale = false;
                queues.take_all()
            };
            records.into_iter().for_each(|(_, record)| fail(shared, record, error.clone()));
            shared.tell_progress();
        }
    }
}
