//! Linearizable reads: on the leader and on followers.
//!
//! A read learns an index that no acknowledged command lies beyond, waits until this node has applied it, and reads. All
//! reads that wait at the same moment share one round to learn it. A round begins after the reads that it serves, or it
//! would prove nothing for them.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, NodeId};
use carnax_core::problem::Problem;
use carnax_platform::rpc::CallError;
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ForwardToLeader, LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::network::Connections;
use crate::state_machine::StateView;
use crate::types::{Raft, Types};

/// Reads that may wait for a round.
const WAITING_MAX: usize = 65_536;
/// Rounds under way.
const ROUNDS_MAX: usize = 4;
/// How long a follower waits for the leader's answer.
const ROUND_DEADLINE: Duration = Duration::from_secs(2);

type Answer = oneshot::Sender<Result<LogIndex, Problem>>;

/// Takes reads to the rounds. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    waiting: mpsc::Sender<Answer>,
    view: watch::Receiver<Arc<StateView>>,
}

impl Reader {
    /// A reader and the work that it needs done.
    pub(crate) fn new(
        raft: Raft,
        connections: Connections,
        view: watch::Receiver<Arc<StateView>>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        (Self { waiting, view }, serve(raft, connections, queue, stop))
    }

    /// The state with everything that was acknowledged before the call.
    pub(crate) async fn linearizable(&self, deadline: Duration) -> Result<Arc<StateView>, Problem> {
        let read = async {
            let (answer, index) = oneshot::channel();
            self.waiting.try_send(answer).map_err(|_| overloaded())?;
            let index = index.await.map_err(|_| stopped())??;
            let mut view = self.view.clone();
            let view = view.wait_for(|view| view.applied >= index).await.map_err(|_| stopped())?;
            Ok(Arc::clone(&view))
        };
        let late =
            |_| Problem::new(ErrorCode::NoQuorum, format!("no quorum answered a read within {deadline:?}"));
        tokio::time::timeout(deadline, read).await.map_err(late)?
    }
}

async fn serve(
    raft: Raft,
    connections: Connections,
    mut queue: mpsc::Receiver<Answer>,
    stop: CancellationToken,
) {
    let mut rounds = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(()) = rounds.next(), if !rounds.is_empty() => {}
            first = queue.recv(), if rounds.len() < ROUNDS_MAX => {
                let Some(first) = first else { return };
                let mut waiting = vec![first];
                while let Ok(next) = queue.try_recv() {
                    waiting.push(next);
                }
                rounds.push(round(&raft, &connections, waiting));
            }
        }
    }
}

async fn round(raft: &Raft, connections: &Connections, waiting: Vec<Answer>) {
    let index = read_index(raft, connections).await;
    for answer in waiting {
        // Fails if the read has given up.
        let _ = answer.send(index.clone());
    }
}

async fn read_index(raft: &Raft, connections: &Connections) -> Result<LogIndex, Problem> {
    let (leader, address) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.ok_or_else(no_leader)?;
        if leader == metrics.id {
            (None, String::new())
        } else {
            let peer = metrics.membership_config.get_node(&leader).ok_or_else(no_leader)?;
            (Some(NodeId(leader)), peer.address.clone())
        }
    };
    let Some(leader) = leader else { return leader_read_index(raft).await.map(LogIndex) };
    connections.read_index(leader, &address, ROUND_DEADLINE).await.map_err(|error| match error {
        CallError::Refused(problem) => problem,
        // A read changes nothing: whether it was seen does not matter.
        unanswered @ (CallError::NotSent { .. } | CallError::NoAnswer { .. }) => {
            Problem::new(ErrorCode::NoQuorum, format!("the leader does not answer: {unanswered}"))
        }
    })
}

/// The index, if this node leads and a quorum confirms it.
pub(crate) async fn leader_read_index(raft: &Raft) -> Result<u64, Problem> {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(linearizer.read_log_id().index()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(not_leader(&forward))
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing))) => {
            Err(Problem::new(ErrorCode::NoQuorum, missing))
        }
        Err(RaftError::Fatal(fatal)) => Err(Problem::new(ErrorCode::Unavailable, fatal)),
    }
}

/// Somebody else leads, or (openraft names nobody) nobody can say so now.
pub(crate) fn not_leader(forward: &ForwardToLeader<Types>) -> Problem {
    let Some(leader) = forward.leader_id else { return no_leader() };
    Problem::new(ErrorCode::NotLeader, format!("node {leader} leads")).with(|facts| {
        facts.leader = Some(NodeId(leader));
        facts.leader_address = forward.leader_node.as_ref().map(|peer| peer.address.clone());
    })
}

pub(crate) fn no_leader() -> Problem {
    Problem::new(ErrorCode::NoQuorum, "no leader that a quorum has confirmed is known now")
}

pub(crate) fn stopped() -> Problem {
    Problem::new(ErrorCode::Unavailable, "the node has stopped")
}

fn overloaded() -> Problem {
    Problem::new(ErrorCode::TooManyRequests, "too many reads wait")
}
