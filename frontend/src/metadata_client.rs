//! Calls metadata nodes.
//!
//! Any node answers queries: the client sticks to one and goes on to the next when it fails. Commands go to the leader
//! as far as one is known. A single try is shorter than the whole call, so that a node that was stopped, and neither
//! answers nor hangs up, does not use up the time of all.
//!
//! Never decides what a failure means for an append: that is the business of `append::commit`.

pub(crate) mod feed;
pub(crate) mod topics;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::metadata::{Call, StreamCall};
use carnax_core::problem::Problem;
use carnax_platform::network::Network;
use carnax_platform::rpc::{CallError, Channel, ChannelSettings, ReplyStream};
use tokio::time::Instant;

use crate::config::CallSettings;

/// Leaders that are remembered beside the configured nodes.
const LEARNED_MAX: usize = 64;
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(500);

/// Why a command has no reply.
#[derive(Debug, Clone)]
pub(crate) enum CommandError {
    /// It was not done and will not be.
    NotDone(Problem),
    /// It was refused when it was sent again; a try before, which had no answer, may have been done.
    RefusedRepeat(Problem),
    /// It may have been done, or may still be.
    Unknown(Problem),
}

/// Calls metadata nodes; shared by everything in a frontend.
#[derive(Debug)]
pub(crate) struct MetadataClient {
    network: Arc<dyn Network>,
    settings: CallSettings,
    nodes: Mutex<Nodes>,
}

#[derive(Debug)]
struct Nodes {
    configured: Vec<Channel>,
    /// Leaders that are not in the configured list, by address.
    learned: BTreeMap<String, Channel>,
    /// Which configured node gets queries, and commands while no leader is known.
    current: usize,
    leader: Option<Channel>,
}

impl MetadataClient {
    /// A client of the nodes at `addresses`. Connects to nobody yet.
    ///
    /// # Errors
    /// An address that is none, or no address at all.
    pub(crate) fn new(
        network: Arc<dyn Network>,
        addresses: &[String],
        settings: CallSettings,
    ) -> std::io::Result<Self> {
        if addresses.is_empty() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no metadata node is named"));
        }
        let connect = |address: &String| channel(&network, address);
        let configured = addresses.iter().map(connect).collect::<Result<_, _>>()?;
        let nodes = Nodes { configured, learned: BTreeMap::new(), current: 0, leader: None };
        Ok(Self { network, settings, nodes: Mutex::new(nodes) })
    }

    /// Asks until a node answers, at most for the deadline of the settings. Dropping the future gives up.
    ///
    /// # Errors
    /// A refusal of the question itself as it came; `no_quorum` if no node could answer in time.
    pub(crate) async fn query<C: Call + Clone>(&self, question: C) -> Result<C::Reply, Problem> {
        let end = Instant::now() + self.settings.deadline;
        let mut back_off = BackOff::new(self.nodes().configured.len());
        loop {
            let (position, node) = self.current();
            let error = match node.call(question.clone(), self.try_timeout(end)).await {
                Ok(answer) => return Ok(answer),
                Err(CallError::Refused(problem)) if !another_node_may_know(problem.code) => {
                    return Err(problem);
                }
                Err(error) => error,
            };
            tracing::debug!(%error, call = C::NAME, "a metadata node could not answer");
            self.leave(position);
            if !back_off.wait_until(end).await {
                return Err(no_quorum(C::NAME, &error));
            }
        }
    }

    /// Sends a command until it is decided, at most for the deadline of the settings. A try without an answer ends it,
    /// since sending it again might do it twice. Dropping the future leaves its outcome unknown.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub(crate) async fn command<C: Call + Clone>(&self, command: C) -> Result<C::Reply, CommandError> {
        let end = Instant::now() + self.settings.deadline;
        let mut back_off = BackOff::new(self.nodes().configured.len());
        loop {
            let error = match self.try_command(command.clone(), end.duration_since(Instant::now())).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Refused(problem)) if problem.code.side_effects() == SideEffects::Possible => {
                    return Err(CommandError::Unknown(problem));
                }
                Err(CallError::Refused(problem)) if !another_node_may_know(problem.code) => {
                    return Err(CommandError::NotDone(problem));
                }
                Err(error @ CallError::NoAnswer { .. }) => {
                    return Err(CommandError::Unknown(Problem::new(ErrorCode::OutcomeUnknown, &error)));
                }
                Err(error) => error,
            };
            if !back_off.wait_until(end).await {
                return Err(CommandError::NotDone(no_quorum(C::NAME, &error)));
            }
        }
    }

    /// Sends a command that may be done twice until it is decided, at most for the deadline of the settings: a try without
    /// an answer is followed by another. Dropping the future leaves its outcome unknown.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub(crate) async fn repeat<C: Call + Clone>(&self, command: C) -> Result<C::Reply, CommandError> {
        let end = Instant::now() + self.settings.deadline;
        let mut back_off = BackOff::new(self.nodes().configured.len());
        let mut unanswered = None;
        loop {
            let error = match self.try_command(command.clone(), self.try_timeout(end)).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Refused(problem)) if !another_node_may_know(problem.code) => {
                    return Err(match unanswered {
                        Some(_) => CommandError::RefusedRepeat(problem),
                        None => CommandError::NotDone(problem),
                    });
                }
                Err(error) => error,
            };
            tracing::debug!(%error, call = C::NAME, "a command was not decided");
            match &error {
                CallError::NoAnswer { .. } => {
                    unanswered = Some(Problem::new(ErrorCode::OutcomeUnknown, &error));
                }
                CallError::Refused(problem) if problem.code.side_effects() == SideEffects::Possible => {
                    unanswered = Some(problem.clone());
                }
                _ => {}
            }
            if !back_off.wait_until(end).await {
                return Err(match unanswered {
                    Some(problem) => CommandError::Unknown(problem),
                    None => CommandError::NotDone(no_quorum(C::NAME, &error)),
                });
            }
        }
    }

    /// Sends a command once, to the leader as far as known, and learns from the failure who else to send it to.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn try_command<C: Call>(
        &self,
        command: C,
        timeout: Duration,
    ) -> Result<C::Reply, CallError> {
        let (position, current) = self.current();
        let node = self.nodes().leader.clone().unwrap_or(current);
        let result = node.call(command, timeout).await;
        match &result {
            Err(CallError::Refused(problem)) if problem.code == ErrorCode::NotLeader => {
                self.learn_leader(problem.facts.leader_address.as_deref(), node.address(), position);
            }
            Err(CallError::Refused(problem)) if !another_node_may_know(problem.code) => {}
            Err(_) => self.learn_leader(None, node.address(), position),
            Ok(_) => {}
        }
        result
    }

    /// Opens a stream at the current node; a failure makes the next node the current one.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn stream<C: StreamCall>(&self, question: C) -> Result<ReplyStream<C::Item>, CallError> {
        let (position, node) = self.current();
        let result = node.stream(question, self.settings.try_timeout).await;
        if result.is_err() {
            self.leave(position);
        }
        result
    }

    fn current(&self) -> (usize, Channel) {
        let nodes = self.nodes();
        (nodes.current, nodes.configured[nodes.current].clone())
    }

    /// Makes the next node the current one, unless somebody else did already.
    fn leave(&self, position: usize) {
        let mut nodes = self.nodes();
        if nodes.current == position {
            nodes.current = (position + 1) % nodes.configured.len();
        }
    }

    /// Remembers who leads, or that `refused_by` does not.
    fn learn_leader(&self, address: Option<&str>, refused_by: &str, position: usize) {
        let mut nodes = self.nodes();
        let known = nodes.leader.as_ref().map(Channel::address);
        if known.is_some_and(|known| known != refused_by) {
            return;
        }
        nodes.leader = address
            .filter(|address| *address != refused_by)
            .and_then(|address| self.channel_to(&mut nodes, address));
        if nodes.leader.is_none() && nodes.current == position {
            nodes.current = (position + 1) % nodes.configured.len();
        }
    }

    fn channel_to(&self, nodes: &mut Nodes, address: &str) -> Option<Channel> {
        if let Some(known) = nodes.configured.iter().find(|node| node.address() == address) {
            return Some(known.clone());
        }
        if let Some(known) = nodes.learned.get(address) {
            return Some(known.clone());
        }
        let learned = channel(&self.network, address).ok()?;
        if nodes.learned.len() >= LEARNED_MAX {
            nodes.learned.clear();
        }
        nodes.learned.insert(address.to_owned(), learned.clone());
        Some(learned)
    }

    fn try_timeout(&self, end: Instant) -> Duration {
        end.duration_since(Instant::now()).min(self.settings.try_timeout)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommandError {
    /// What to tell the client.
    pub(crate) fn into_problem(self) -> Problem {
        match self {
            Self::NotDone(problem) | Self::RefusedRepeat(problem) | Self::Unknown(problem) => problem,
        }
    }
}

/// Waits longer from round to round; within the first round over all nodes it does not wait.
#[derive(Debug)]
pub(crate) struct BackOff {
    at_once: usize,
    next: Duration,
}

impl BackOff {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { at_once: nodes.saturating_sub(1), next: BACK_OFF_MIN }
    }

    /// Waits before the next try; false if `end` would be reached before.
    pub(crate) async fn wait_until(&mut self, end: Instant) -> bool {
        if self.at_once > 0 {
            self.at_once -= 1;
            return Instant::now() < end;
        }
        let wait = self.next;
        self.next = (wait * 2).min(BACK_OFF_MAX);
        if Instant::now() + wait >= end {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }
}

/// Whether a refusal is about the node rather than about the question.
pub(crate) fn another_node_may_know(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeader
            | ErrorCode::NoQuorum
            | ErrorCode::Unavailable
            | ErrorCode::Draining
            | ErrorCode::OutcomeUnknown
            | ErrorCode::TooManyRequests
    )
}

fn channel(network: &Arc<dyn Network>, address: &str) -> std::io::Result<Channel> {
    Channel::new(Arc::clone(network), address, &ChannelSettings::default())
}

pub(crate) fn no_quorum(call: &str, error: &CallError) -> Problem {
    Problem::new(ErrorCode::NoQuorum, format!("no metadata node could answer {call}; the last said: {error}"))
        .with(|facts| facts.retry_after_seconds = Some(1))
}
