//! What was asked, and what is to go wrong.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The kinds of request that are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// `SendMessage`
    Send,
    /// `SendMessageBatch`
    SendBatch,
    /// `ReceiveMessage`
    Receive,
    /// `DeleteMessage`
    Delete,
    /// `DeleteMessageBatch`
    DeleteBatch,
    /// `ChangeMessageVisibilityBatch`
    ExtendBatch,
    /// `GetQueueUrl`
    QueueUrl,
    /// `GetQueueAttributes`
    QueueAttributes,
}

/// What befalls one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: for scripts in which only some requests fail.
    None,
    /// 400 `RequestThrottled`; nothing is done.
    Throttle,
    /// 500 `InternalFailure`; nothing is done.
    Fail,
    /// 403 `AccessDeniedException`; nothing is done.
    Deny,
    /// It is done, and the connection closes without an answer.
    LoseAnswer,
    /// Nothing is done, and no answer comes: until the client hangs up.
    Hold,
    /// It is done, and no answer comes: until the client hangs up.
    HoldAnswer,
}

impl Action {
    /// From the header that names it, as `AmazonSQS.SendMessage`.
    pub(crate) fn named(target: &str) -> Option<Self> {
        Some(match target.strip_prefix("AmazonSQS.")? {
            "SendMessage" => Self::Send,
            "SendMessageBatch" => Self::SendBatch,
            "ReceiveMessage" => Self::Receive,
            "DeleteMessage" => Self::Delete,
            "DeleteMessageBatch" => Self::DeleteBatch,
            "ChangeMessageVisibilityBatch" => Self::ExtendBatch,
            "GetQueueUrl" => Self::QueueUrl,
            "GetQueueAttributes" => Self::QueueAttributes,
            _ => return None,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Script {
    actions: Mutex<BTreeMap<Action, Requests>>,
    held: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Requests {
    arrived: u64,
    faults: VecDeque<Fault>,
}

impl Script {
    pub(crate) fn add(&self, action: Action, faults: impl IntoIterator<Item = Fault>) {
        self.actions().entry(action).or_default().faults.extend(faults);
    }

    pub(crate) fn requests(&self, action: Action) -> u64 {
        self.actions().get(&action).map_or(0, |requests| requests.arrived)
    }

    pub(crate) fn requests_total(&self) -> u64 {
        self.actions().values().map(|requests| requests.arrived).sum()
    }

    /// Counts a request and tells what befalls it.
    pub(crate) fn next(&self, action: Action) -> Fault {
        let mut actions = self.actions();
        let requests = actions.entry(action).or_default();
        requests.arrived += 1;
        requests.faults.pop_front().unwrap_or(Fault::None)
    }

    /// Waits for ever, and counts as held until it is dropped.
    pub(crate) async fn hold(&self) {
        self.held.send_modify(|held| *held += 1);
        let _held = Held(&self.held);
        std::future::pending::<()>().await;
    }

    pub(crate) async fn until_held(&self, count: usize) {
        let mut held = self.held.subscribe();
        // It fails only without a sender, which is here.
        let _ = held.wait_for(|held| *held == count).await;
    }

    fn actions(&self) -> MutexGuard<'_, BTreeMap<Action, Requests>> {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Held<'a>(&'a watch::Sender<usize>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}
