//! What was accepted once stays accepted once, whoever leads.

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{
    DescribeProducer, IdempotencyStamp, ProducerStamp, RaiseProducerEpoch, SequenceMode, UnitCommit,
    UnitOutcome,
};

use crate::cluster::TestCluster;
use crate::writer::Writer;

fn by_producer(epoch: u32, sequence: u128) -> UnitCommit {
    let producer = "p".parse().unwrap();
    let (mode, body_hash) = (SequenceMode::Contiguous, [7; 16]);
    let producer = Some(ProducerStamp { producer, epoch, sequence, mode, body_hash });
    UnitCommit { producer, ..UnitCommit::default() }
}

fn by_key(body_hash: [u8; 16]) -> UnitCommit {
    let key = "k".parse().unwrap();
    let idempotency = Some(IdempotencyStamp { principal: String::new(), key, body_hash });
    UnitCommit { idempotency, ..UnitCommit::default() }
}

/// That a unit was recognised, with the answer that it got at first.
fn assert_repeats(first: &UnitOutcome, repeat: &UnitOutcome) {
    let UnitOutcome::Accepted { slices, append_time } = first else { panic!("{first:?}") };
    let (slices, append_time) = (slices.clone(), *append_time);
    assert_eq!(*repeat, UnitOutcome::Duplicate { slices, append_time });
}

fn refused(outcome: &UnitOutcome) -> ErrorCode {
    let UnitOutcome::Refused(problem) = outcome else { panic!("{outcome:?}") };
    problem.code
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_recognised_and_old_epochs_fenced_whoever_leads() {
    let mut cluster = TestCluster::start(3).await;
    let mut writer = Writer::open(&cluster, "t").await;
    let first = writer.commit_unit(&cluster, by_producer(0, 0)).await;
    let keyed = writer.commit_unit(&cluster, by_key([1; 16])).await;
    let second = writer.commit_unit(&cluster, by_producer(0, 1)).await;

    let leader = cluster.leader().await;
    cluster.kill_node(leader);
    // Another frontend, which knows nothing of the first.
    let mut writer = Writer::open(&cluster, "t").await;
    assert_repeats(&first, &writer.commit_unit(&cluster, by_producer(0, 0)).await);
    assert_repeats(&keyed, &writer.commit_unit(&cluster, by_key([1; 16])).await);
    assert_eq!(refused(&writer.commit_unit(&cluster, by_key([2; 16])).await), ErrorCode::BodyMismatch);
    assert_repeats(&second, &writer.commit_unit(&cluster, by_producer(0, 1)).await);
    assert_eq!(refused(&writer.commit_unit(&cluster, by_producer(0, 3)).await), ErrorCode::SequenceGap);

    let raise = RaiseProducerEpoch { producer: "p".parse().unwrap(), from: Some(0) };
    let raised = cluster.call(raise.clone()).await.unwrap();
    assert_eq!(raised.epoch, 1);
    assert_eq!(raised.before.as_ref().and_then(|before| before.last_sequence), Some(1));
    cluster.start_node(leader);
    cluster.wait_for_voters(3).await;
    cluster.stop_node(cluster.leader().await).await;
    assert_eq!(cluster.call(raise).await.unwrap(), raised, "the call is repeated in safety");
    assert_eq!(refused(&writer.commit_unit(&cluster, by_producer(0, 2)).await), ErrorCode::Fenced);
    let next = writer.commit_unit(&cluster, by_producer(1, 0)).await;
    assert!(matches!(next, UnitOutcome::Accepted { .. }), "{next:?}");
    let described = cluster.call(DescribeProducer { producer: "p".parse().unwrap() }).await.unwrap();
    assert_eq!((described.epoch, described.last_sequence), (1, Some(0)));
}
