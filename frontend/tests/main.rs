//! The frontend through its real router, with a metadata node of one that answers on demand and an object store that
//! fails on demand.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(unreachable_pub, reason = "helpers of tests are shared between modules")]

mod frontend {
    pub mod fake_metadata;
    pub mod support;

    mod access;
    mod access_matrix;
    mod appends;
    mod bad_guarantees;
    mod bad_input;
    mod compacting;
    mod connections;
    mod console;
    mod fetches;
    mod group_input;
    mod groups;
    mod guarantees;
    mod ingest;
    mod maintenance;
    mod merging;
    mod paging;
    mod polling;
    mod quotas;
    mod round_trips;
    mod streams;
    mod usage;
    mod verifying;
    mod wakeups;
}
