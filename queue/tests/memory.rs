//! How `MemoryQueue` waits, on time that passes only when everybody waits. What it does otherwise is in the contract.

use std::sync::Arc;
use std::time::Duration;

use carnax_platform::clock::SystemClock;
use carnax_queue::{Depth, MemoryQueue, MessageQueue, OutgoingMessage, Receive};
use tokio::time::Instant;

const WAIT: Duration = Duration::from_secs(20);

fn receive(visibility: Duration) -> Receive {
    Receive { messages_max: 10, wait: WAIT, visibility }
}

#[tokio::test(start_paused = true)]
async fn a_receive_ends_with_its_wait_or_when_a_visibility_time_is_over() {
    let queue = MemoryQueue::new("jobs", Arc::new(SystemClock::new())).expect("a queue's name");
    let begin = Instant::now();
    assert_eq!(queue.receive(receive(WAIT)).await, Ok(vec![]));
    assert_eq!(begin.elapsed().as_secs(), 20, "nothing came");

    let message =
        OutgoingMessage { id: "a".to_owned(), body: "one".to_owned(), ..OutgoingMessage::default() };
    queue.send(&[message]).await.expect("a good message");
    let visibility = Duration::from_secs(7);
    let first = queue.receive(receive(visibility)).await.expect("a receive");
    assert_eq!(queue.depth(), Depth { visible: 0, in_flight: 1 });
    let begin = Instant::now();
    let second = queue.receive(receive(visibility)).await.expect("a receive");
    assert_eq!(begin.elapsed().as_secs(), 7, "it waited for the message in flight");
    assert_eq!((second[0].id.as_str(), second[0].receive_count), (first[0].id.as_str(), 2));

    let begin = Instant::now();
    let give_back = [(second[0].receipt.clone(), Duration::ZERO)];
    let (third, given_back) =
        tokio::join!(biased; queue.receive(receive(visibility)), queue.extend(&give_back));
    assert!(given_back.expect("a batch")[0].is_ok());
    assert_eq!((third.expect("a receive")[0].receive_count, begin.elapsed()), (3, Duration::ZERO));
}
