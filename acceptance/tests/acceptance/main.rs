//! Every scenario at a small size, on the built binaries.
//!
//! Goal: the promises hold for real processes that are really killed. Method: each test runs a cluster of its own on loopback;
//! the same scenarios at full size are run by the binary `carnax-acceptance` (`docs/proving-it.md`).

use std::sync::Arc;

use anyhow::Result;
use carnax_acceptance::binaries::Binaries;
use carnax_acceptance::flights::Flights;
use carnax_acceptance::scenario::{Scenario, Sizes};

/// One cluster at a time: more would only wait for each other's disks.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn passes(scenario: Scenario, rounds: usize) -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let flights = Arc::new(Flights::sample()?);
    let binaries = Binaries::of_this_build()?;
    let sizes = Sizes { binaries, old_binaries: None, flights, rounds, chunk: 10, seed: 1, output: None };
    scenario.run(&sizes).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn flights_written_through_two_frontends_come_back_through_both_in_order() -> Result<()> {
    passes(Scenario::Flights, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_with_a_leader_a_frontend_and_a_disk() -> Result<()> {
    passes(Scenario::Failover, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_refuses_within_ten_seconds_and_shows_nothing() -> Result<()> {
    passes(Scenario::Minority, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_gives_no_stale_answer() -> Result<()> {
    passes(Scenario::StaleLeader, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_sees_what_was_just_appended_elsewhere() -> Result<()> {
    passes(Scenario::ReadYourWrites, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_asks_nothing_of_the_object_store() -> Result<()> {
    passes(Scenario::Idle, 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_survives_the_death_of_all_processes() -> Result<()> {
    passes(Scenario::RestartAll, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_restored_from_its_bucket_and_gives_no_offset_out_twice() -> Result<()> {
    passes(Scenario::Restore, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing() -> Result<()> {
    passes(Scenario::RollingRestart, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_under_load_loses_and_doubles_nothing_and_has_no_way_back() -> Result<()> {
    passes(Scenario::Upgrade, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gets_its_quota_and_others_do_not_notice() -> Result<()> {
    passes(Scenario::Quota, 15).await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_their_authority_are_replaced_and_no_append_fails() -> Result<()> {
    passes(Scenario::Certificates, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_writers_wins_and_a_fenced_one_never_gets_through() -> Result<()> {
    passes(Scenario::Conditional, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_partition_is_held_by_two_members_of_a_group() -> Result<()> {
    passes(Scenario::Groups, 60).await
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotent_producers_store_each_record_once_whoever_is_killed() -> Result<()> {
    passes(Scenario::Idempotent, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_processed_and_written_counts_once_whoever_is_killed() -> Result<()> {
    passes(Scenario::ExactlyOnce, 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_told_of_every_commit_whoever_leads() -> Result<()> {
    passes(Scenario::Wakeups, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_woken_counts_everything_once_whenever_it_is_killed() -> Result<()> {
    passes(Scenario::WokenConsumer, 40).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_appends_to_the_same_cluster_as_the_process() -> Result<()> {
    passes(Scenario::ColdStarts, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_stood_still_acknowledges_nothing_that_is_not_stored() -> Result<()> {
    passes(Scenario::FrozenFunction, 6).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lags_gets_the_right_records_or_is_told_that_they_are_gone() -> Result<()> {
    passes(Scenario::LongLife, 6).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_are_written_merged_and_expired_at_a_steady_rate() -> Result<()> {
    passes(Scenario::Steady, 6).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_half_of_all_requests_delays_and_loses_nothing() -> Result<()> {
    passes(Scenario::Throttled, 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_counts_every_request_that_reaches_its_bucket() -> Result<()> {
    passes(Scenario::Usage, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_past_is_paged_out_and_read_at_both_ends() -> Result<()> {
    passes(Scenario::History, 2_000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_works_in_a_browser_and_runs_nothing_that_a_record_contains() -> Result<()> {
    if std::env::var("CARNAX_BROWSER").is_ok_and(|browser| browser == "skip") {
        return Ok(());
    }
    passes(Scenario::Console, 1).await
}
