//! The function as Lambda runs it: the real binary, which asks an emulator of the runtime API for events, a real metadata node
//! of one, and a folder for an object store.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(unreachable_pub, reason = "helpers of tests are shared between modules")]

mod lambda {
    pub mod core;
    pub mod runtime;

    mod http;
    mod ingest;
    mod maintenance;
}
