//! Checks the contract of `MessageQueue` on every implementation: each story runs on queues in memory, then on the same queues
//! behind a server of SQS on loopback, spoken to by the AWS SDK. Time is a clock that only the story moves.

mod stories;
mod world;

use world::on_both;

#[tokio::test]
async fn what_is_sent_is_received_until_it_is_deleted() {
    on_both(stories::what_is_sent_is_received_until_it_is_deleted).await;
}

#[tokio::test]
async fn a_message_comes_again_when_its_visibility_time_is_over() {
    on_both(stories::a_message_comes_again_when_its_visibility_time_is_over).await;
}

#[tokio::test]
async fn a_group_is_delivered_in_order_to_one_receiver_at_a_time() {
    on_both(stories::a_group_is_delivered_in_order_to_one_receiver_at_a_time).await;
}

#[tokio::test]
async fn a_repeat_within_five_minutes_is_accepted_and_never_delivered() {
    on_both(stories::a_repeat_within_five_minutes_is_accepted_and_never_delivered).await;
}

#[tokio::test]
async fn what_nobody_deletes_goes_to_the_dead_letters() {
    on_both(stories::what_nobody_deletes_goes_to_the_dead_letters).await;
}

#[tokio::test]
async fn a_receive_that_waits_gets_what_is_sent_meanwhile() {
    on_both(stories::a_receive_that_waits_gets_what_is_sent_meanwhile).await;
}

#[tokio::test]
async fn what_breaks_a_limit_is_refused_and_named() {
    on_both(stories::what_breaks_a_limit_is_refused_and_named).await;
}
