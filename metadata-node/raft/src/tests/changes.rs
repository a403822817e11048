//! Snapshots, changes of the membership, and leaders that go.

use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::NodeId;

use super::cluster::{DEADLINE, Rack, join, leader, propose_somehow, retry, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_catches_up_by_snapshot_and_may_lead_when_an_old_one_is_removed() {
    let mut rack = Rack::new();
    rack.adjust = |settings| {
        settings.snapshot_log_bytes = 4 * 1024;
        settings.log_entries_kept = 8;
    };
    let nodes = rack.cluster().await;
    let leading = leader(&nodes).await;
    let purged = || leading.raft.status().purged.is_some_and(|purged| purged.0 > 20);
    let mut last = leading.propose("first").await.unwrap();
    for number in 0.. {
        if purged() {
            break;
        }
        assert!(number < 10_000, "the log is never purged: {:?}", leading.raft.status());
        last = leading.propose(&number.to_string()).await.unwrap();
    }

    let joined = rack.start(44).await;
    join(leading, &joined).await;
    let view = retry("the new node reads", || joined.raft.linearizable(DEADLINE)).await;
    assert!(view.applied >= last.index);
    assert!(joined.raft.status().snapshot.is_some(), "it came by snapshot: the log before it is gone");

    retry("leadership moves", || leading.raft.transfer_leadership(Some(joined.raft.id()), DEADLINE)).await;
    wait_until("the new node leads", || joined.raft.leadership().leads).await;
    let removed = leading.raft.id();
    let refused = leading.raft.remove(removed, DEADLINE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotLeader);
    retry("the old leader is removed", || joined.raft.remove(removed, DEADLINE)).await;
    let members: Vec<NodeId> = joined.raft.status().members.iter().map(|member| member.node).collect();
    assert_eq!(members.len(), 3);
    assert!(!members.contains(&removed));
    let after = retry("the cluster goes on", || joined.propose("after")).await;
    assert!(after.index > last.index);
    let unknown = joined.raft.promote(NodeId(99), DEADLINE).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NodeNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_left_half_way_is_finished_by_the_next_leader() {
    let rack = Rack::new();
    let nodes = rack.cluster().await;
    let old = leader(&nodes).await;
    let mut others = nodes.iter().filter(|node| node.raft.id() != old.raft.id());
    let (next, leaving) = (others.next().unwrap(), others.next().unwrap().raft.id());
    old.raft.half_remove(leaving).await;
    retry("leadership moves", || old.raft.transfer_leadership(Some(next.raft.id()), DEADLINE)).await;
    wait_until("the next one leads", || next.raft.leadership().leads).await;

    retry("it goes on", || next.propose("after")).await;
    let stuck = next.raft.add_learner(NodeId(44), "127.0.0.1:1", DEADLINE).await.unwrap_err();
    assert_eq!(stuck.code, ErrorCode::Conflict, "{stuck}");
    retry("the change is finished", || next.raft.finish_change(DEADLINE)).await;
    wait_until("it is known", || !next.raft.status().membership_changes).await;
    assert!(next.raft.status().members.iter().all(|member| member.node != leaving), "it was to leave");
    retry("another change is made", || next.raft.add_learner(NodeId(44), "127.0.0.1:1", DEADLINE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_hangs_hands_over_and_says_that_it_cannot_go_on() {
    let mut rack = Rack::in_memory();
    rack.adjust = |settings| settings.fsync_age_max = Duration::from_millis(400);
    let nodes = rack.cluster().await;
    let old = leader(&nodes).await;
    let before = old.propose("before").await.unwrap();
    rack.memory(old.raft.id().0).set_fsync_delay(Duration::from_secs(3_600));
    // A majority of the other two commits it: a hanging disk alone shows to nobody.
    let hung = old.propose("hung").await;
    let reason = tokio::time::timeout(DEADLINE * 5, old.raft.fatal()).await.unwrap();
    assert!(reason.contains("fsync"), "{reason}");
    wait_until("another node leads", || {
        nodes.iter().any(|node| node.raft.id() != old.raft.id() && node.raft.leadership().leads)
    })
    .await;
    assert!(hung.is_err() || hung.is_ok_and(|applied| applied.index > before.index));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_says_so_and_the_others_go_on() {
    let rack = Rack::in_memory();
    let nodes = rack.cluster().await;
    let before = propose_somehow(&nodes, "before").await;
    let failing = leader(&nodes).await.raft.id();
    let failing = nodes.iter().find(|node| node.raft.id() == failing).unwrap();
    rack.memory(failing.raft.id().0).fail_fsync();
    let lost = failing.propose("lost").await;
    assert!(lost.is_err() || lost.is_ok_and(|applied| applied.index > before.index));
    let reason = tokio::time::timeout(DEADLINE * 5, failing.raft.fatal()).await.unwrap();
    assert!(reason.contains("EIO"), "{reason}");
    let after = propose_somehow(&nodes, "after").await;
    assert!(after.index > before.index);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_core_panics_says_so() {
    let rack = Rack::new();
    let node = rack.start(1).await;
    node.raft.panic_core().await;
    let reason = tokio::time::timeout(DEADLINE * 5, node.raft.fatal()).await.unwrap();
    assert!(reason.contains("panicked"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_crash_of_all_disks_at_once() {
    let rack = Rack::in_memory();
    let mut nodes = rack.cluster().await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        for number in 0..10 {
            let name = format!("record {round}.{number}");
            acknowledged.push((propose_somehow(&nodes, &name).await.index, name));
        }
        // From here on nothing reaches a disk in time.
        for node in &nodes {
            rack.memory(node.raft.id().0).set_fsync_delay(Duration::from_secs(3_600));
        }
        let lost =
            leader(&nodes).await.raft.propose(super::cluster::command("lost"), Duration::from_millis(100));
        assert_eq!(lost.await.unwrap_err().code, ErrorCode::OutcomeUnknown);

        let mut places = Vec::new();
        for node in nodes.drain(..) {
            let disk = rack.memory(node.raft.id().0);
            places.push((node.raft.id().0, node.address.clone()));
            disk.crash(0);
            node.kill().await;
            disk.crash(0);
            disk.set_fsync_delay(Duration::ZERO);
        }
        for (id, address) in places {
            nodes.push(rack.start_at(id, &address).await);
        }
        propose_somehow(&nodes, "afterwards").await;
        for node in &nodes {
            let view = retry("every node reads", || node.raft.linearizable(DEADLINE)).await;
            assert!(view.applied > acknowledged.last().unwrap().0);
            let disk = rack.memory(node.raft.id().0);
            for (index, name) in &acknowledged {
                assert!(disk.holds(index.0, name.as_bytes()), "{name} at {index} on node {}", node.raft.id());
            }
        }
    }
}
