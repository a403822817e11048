//! The task that speaks for a member: joins, and sends heartbeats, one request at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::http::{AssignmentResponse, HeartbeatRequest, JoinGroupRequest, LeftGroupResponse};
use carnax_core::name::{GroupName, MemberId};
use http::Method;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::membership::{Action, Membership};
use crate::client::Client;
use crate::error::RequestError;
use crate::retry::Operation;
use crate::transport::ApiRequest;

/// The longest pause between attempts of a member that wants to join.
const JOIN_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What the speaker and the holder share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) group: GroupName,
    pub(super) member: MemberId,
    /// Whether the caller chose the member's id, so that another process may have the same.
    pub(super) chosen: bool,
    pub(super) join: JoinGroupRequest,
    pub(super) membership: Mutex<Membership>,
    /// There is something for the holder to look at.
    pub(super) changed: Notify,
    /// There is something for the speaker to say.
    pub(super) wake: Notify,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a refusal that says that this member is none any more; tells whether it is one.
    pub(super) fn note_expulsion(&self, epoch: u32, error: &RequestError) -> bool {
        let expelled = error.is(ErrorCode::UnknownMember) || error.is(ErrorCode::Fenced);
        if expelled {
            tracing::warn!(group = %self.group, member = %self.member, epoch, %error, "no member any more");
            let now = Instant::now();
            if self.chosen && error.is(ErrorCode::Fenced) {
                self.lock().replaced(epoch, now, Arc::new(error.clone()));
            } else {
                self.lock().expelled(epoch, now);
            }
            self.changed.notify_one();
            self.wake.notify_one();
        }
        expelled
    }

    async fn send_join(&self, patience: Duration) -> Result<AssignmentResponse, RequestError> {
        let request = ApiRequest::new(Method::POST, format!("/v1/groups/{}/members", self.group));
        self.client.execute(&request.json(&self.join)?, operation(patience)).await?.json()
    }

    async fn send_heartbeat(
        &self,
        heartbeat: HeartbeatRequest,
        patience: Duration,
    ) -> Result<AssignmentResponse, RequestError> {
        let path = format!("/v1/groups/{}/members/{}/heartbeat", self.group, self.member);
        let request = ApiRequest::new(Method::POST, path).json(&heartbeat)?;
        self.client.execute(&request, operation(patience)).await?.json()
    }

    /// Leaves the group; with no epoch, whichever the member has.
    pub(super) async fn send_leave(&self, epoch: Option<u32>) -> Result<LeftGroupResponse, RequestError> {
        let query = epoch.map(|epoch| format!("?epoch={epoch}")).unwrap_or_default();
        let path = format!("/v1/groups/{}/members/{}{query}", self.group, self.member);
        let request = ApiRequest::new(Method::DELETE, path);
        self.client.execute(&request, self.client.operation(true)).await?.json()
    }
}

/// Joins and heartbeats may be repeated, whatever became of the first.
fn operation(patience: Duration) -> Operation {
    let deadline = Instant::now() + patience;
    Operation { deadline, attempt_timeout: patience, repeat_unknown: true, leave: None }
}

/// Speaks until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut failures = 0;
    loop {
        let now = Instant::now();
        let action = {
            let mut membership = shared.lock();
            let action = membership.next(now);
            // A loss by the clock is news, too.
            if membership.epoch(now).is_none() {
                shared.changed.notify_one();
            }
            action
        };
        let failure = match action {
            Action::Join { patience } => join(&shared, patience).await,
            Action::Heartbeat { epoch, assignment_epoch, patience } => {
                heartbeat(&shared, HeartbeatRequest { epoch, assignment_epoch }, patience).await
            }
            Action::Wait(until) => {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = shared.wake.notified() => {}
                }
                continue;
            }
            Action::Idle => {
                shared.wake.notified().await;
                continue;
            }
        };
        match failure {
            None => failures = 0,
            Some(error) => {
                failures += 1;
                let pause = shared.client.backoff(failures).max(error.retry_after().unwrap_or_default());
                tracing::debug!(group = %shared.group, ?pause, %error, "group request failed, trying again");
                shared.lock().failed(Instant::now() + pause.min(JOIN_PAUSE_MAX));
            }
        }
    }
}

/// Tells why to try again, if it did not work.
async fn join(shared: &Shared, patience: Duration) -> Option<RequestError> {
    let sent = Instant::now();
    match Box::pin(shared.send_join(patience)).await {
        Ok(answer) => {
            let (epoch, assignment_epoch) = (answer.epoch, answer.assignment_epoch);
            tracing::info!(group = %shared.group, member = %shared.member, epoch, assignment_epoch, "joined group");
            if shared.lock().joined(sent, &answer) {
                shared.changed.notify_one();
            }
            None
        }
        Err(error) if error.retryable() => Some(error),
        Err(error) => {
            shared.lock().refused(Arc::new(error));
            shared.changed.notify_one();
            None
        }
    }
}

/// Tells why to try again, if it did not work. What is no answer of the group does not end the session: time does.
async fn heartbeat(shared: &Shared, said: HeartbeatRequest, patience: Duration) -> Option<RequestError> {
    let sent = Instant::now();
    match Box::pin(shared.send_heartbeat(said, patience)).await {
        Ok(answer) => {
            if shared.lock().heartbeat_answered(sent, Instant::now(), &answer) {
                shared.changed.notify_one();
            }
            None
        }
        Err(error) if shared.note_expulsion(said.epoch, &error) => None,
        Err(error) => Some(error),
    }
}
