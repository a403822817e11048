//! What happens to clusters.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::id::{ClusterId, LogIndex, NodeId};
use carnax_core::limits::COMMAND_BYTES_MAX;
use carnax_core::metadata::OpenSession;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Entry, FeatureLevel, State};
use carnax_platform::clock::SystemClock;
use carnax_platform::network::TcpNetwork;
use carnax_platform::rpc::CallError;

use super::cluster::{
    DEADLINE, Rack, command, free_address, join, leader, propose_somehow, retry, wait_until,
};
use crate::network::{Connections, Desk};
use crate::settings::RaftSettings;

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_elect_propose_apply_and_read() {
    let rack = Rack::new();
    let nodes = rack.cluster().await;
    let leading = leader(&nodes).await;
    let mut watched = nodes[2].raft.watch_applied();
    let mut last = leading.propose("first").await.unwrap();
    for number in 0..20 {
        let next = leading.propose(&number.to_string()).await.unwrap();
        assert!(next.index > last.index && next.log_time >= last.log_time);
        last = next;
    }
    for node in &nodes {
        let view = node.raft.linearizable(DEADLINE).await.unwrap();
        assert!(view.applied >= last.index, "node {} shows what was acknowledged", node.raft.id());
    }
    assert!(watched.recv().await.unwrap().index <= last.index);

    let follower = nodes.iter().find(|node| !node.raft.leadership().leads).unwrap();
    let refused = follower.propose("not here").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotLeader);
    assert_eq!(refused.facts.leader_address.as_deref(), Some(leading.address.as_str()));
    assert!(leading.raft.peer_clocks().len() >= 2, "clocks are exchanged");
    assert_eq!(leading.raft.status().members.iter().filter(|member| member.voter).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_its_leader_and_takes_it_back() {
    let rack = Rack::new();
    let mut nodes = rack.cluster().await;
    let before = leader(&nodes).await.propose("before").await.unwrap();
    let position = nodes.iter().position(|node| node.raft.leadership().leads).unwrap();
    let old = nodes.remove(position);
    let (id, address) = (old.raft.id().0, old.address.clone());
    old.kill().await;

    let after = propose_somehow(&nodes, "after").await;
    assert!(after.index > before.index);
    let back = rack.start_at(id, &address).await;
    nodes.push(back);
    let view = retry("the node that came back reads", || nodes[2].raft.linearizable(DEADLINE)).await;
    assert!(view.applied >= after.index);

    let mut places = Vec::new();
    for node in nodes.drain(..) {
        places.push((node.raft.id().0, node.address.clone()));
        node.kill().await;
    }
    for (id, address) in places {
        nodes.push(rack.start_at(id, &address).await);
    }
    let again = propose_somehow(&nodes, "again").await;
    assert!(again.index > after.index, "the whole cluster restarted with its log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_fails_retryably_and_shows_nothing_uncommitted() {
    let rack = Rack::new();
    let nodes = rack.cluster().await;
    let old = leader(&nodes).await;
    let committed = old.propose("committed").await.unwrap();
    old.isolate();

    let (written, read) = tokio::join!(old.propose("lost"), old.raft.linearizable(DEADLINE));
    let written = written.unwrap_err();
    let read = read.unwrap_err();
    assert!(written.code.retryable() && read.code.retryable(), "{written} {read}");
    assert_eq!(read.code.side_effects(), SideEffects::None);
    assert_eq!(
        old.raft.state().applied,
        committed.index,
        "the isolated leader shows what was committed, no more"
    );

    let others: Vec<_> = nodes.iter().filter(|node| node.raft.id() != old.raft.id()).collect();
    wait_until("the majority has a leader", || others.iter().any(|node| node.raft.leadership().leads)).await;
    let leading = others.iter().find(|node| node.raft.leadership().leads).unwrap();
    let after = retry("the majority writes", || leading.propose("after")).await;
    old.reconnect();
    let view = retry("the old leader reads again", || old.raft.linearizable(DEADLINE)).await;
    assert!(view.applied >= after.index);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_commands_are_refused_and_those_that_never_left_say_so() {
    let rack = Rack::new();
    let nodes = rack.cluster().await;
    let old = leader(&nodes).await;
    old.isolate();
    let flood = (0..6_000).map(|_| old.raft.propose(command("flood"), Duration::from_millis(300)));
    let refused: Vec<_> =
        futures::future::join_all(flood).await.into_iter().map(|r| r.unwrap_err().code).collect();
    let count = |code| refused.iter().filter(|refused| **refused == code).count();
    assert!(count(ErrorCode::TooManyRequests) > 0);
    assert!(count(ErrorCode::NoQuorum) > 0, "waited in the queue and was never proposed");
    let unknown = count(ErrorCode::OutcomeUnknown);
    assert!(unknown < 4_000, "what was never proposed is not unknown: {unknown}");

    let huge = Command::OpenSession(OpenSession { frontend: "x".repeat(COMMAND_BYTES_MAX) });
    let others: Vec<_> = nodes.iter().filter(|node| node.raft.id() != old.raft.id()).collect();
    wait_until("the majority has a leader", || others.iter().any(|node| node.raft.leadership().leads)).await;
    let leading = others.iter().find(|node| node.raft.leadership().leads).unwrap();
    retry("the majority writes", || leading.propose("before")).await;
    let (large, small) = tokio::join!(leading.raft.propose(huge, DEADLINE), leading.propose("neighbour"));
    assert_eq!(large.unwrap_err().code, ErrorCode::TooLarge);
    small.unwrap();
}

#[tokio::test]
async fn a_message_for_another_node_or_cluster_is_refused() {
    let rack = Rack::new();
    let node = rack.start(1).await;
    let ask = async |cluster, to| {
        let desk = Desk::new(&RaftSettings::new(cluster, NodeId(9)), Arc::new(SystemClock::new()));
        let connections = Connections::new(desk, Arc::new(TcpNetwork), DEADLINE);
        match connections.read_index(to, &node.address, DEADLINE).await {
            Err(CallError::Refused(problem)) => problem.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(rack.cluster_id(), NodeId(2)).await, ErrorCode::Conflict);
    assert_eq!(ask(ClusterId::from_parts(Timestamp::EPOCH, 8), NodeId(1)).await, ErrorCode::Conflict);
    assert_eq!(
        ask(rack.cluster_id(), NodeId(1)).await,
        ErrorCode::NoQuorum,
        "it is heard, but leads nothing"
    );
    let alone = node.raft.linearizable(DEADLINE).await.unwrap_err();
    assert_eq!(alone.code, ErrorCode::NoQuorum);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_given_a_state_leads_and_others_join_it() {
    for rack in [Rack::new(), Rack::in_memory()] {
        let mut state = State::default();
        state.apply(LogIndex(1 << 32), &command_entry());
        let address = free_address();
        crate::seed(rack.storage(7), NodeId(7), &address, state.clone()).await.unwrap();
        let again = crate::seed(rack.storage(7), NodeId(7), &address, state).await;
        assert!(again.is_err(), "a state is never overwritten");
        let first = rack.start_at(7, &address).await;
        wait_until("the only voter leads", || first.raft.leadership().leads).await;
        let applied = first.propose("first").await.unwrap();
        assert!(applied.index > LogIndex(1 << 32), "{applied:?}");
        let second = rack.start(8).await;
        join(&first, &second).await;
        let last = first.propose("second").await.unwrap();
        let view = retry("the second node reads", || second.raft.linearizable(DEADLINE)).await;
        assert!(view.applied >= last.index);

        first.kill().await;
        second.kill().await;
        let first = rack.start_at(7, &address).await;
        wait_until("the state is there after a restart", || first.raft.state().applied >= applied.index)
            .await;
        first.kill().await;
    }
}

fn command_entry() -> Entry {
    Entry { level: FeatureLevel::CURRENT, log_time: Timestamp::EPOCH, commands: vec![command("x")] }
}
