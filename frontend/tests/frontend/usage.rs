//! What a frontend counts and tells of it: its records, bytes and requests, each once, by topic.

use super::support::{start, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_and_fetched_is_told_by_topic_with_the_requests_that_it_took() {
    let frontend = start().await;
    frontend.create("a", 1).await;
    frontend.create("b", 1).await;
    for value in ["one", "two", "three"] {
        frontend.append("a", value).await.unwrap();
    }
    frontend.append("b", "four").await.unwrap();
    assert_eq!(frontend.values("a").await.len(), 3);
    let usage = frontend.get("/v1/usage").await.json();
    let topic = |at: usize, name: &str| usage["topics"][at]["traffic"][name].as_u64().unwrap();
    assert_eq!([topic(0, "records_in"), topic(0, "records_out")], [3, 3]);
    assert_eq!([topic(1, "records_in"), topic(1, "records_out")], [1, 0]);
    assert_eq!(topic(0, "bytes_in"), topic(0, "bytes_out"), "what went in came out");
    assert!(topic(0, "bytes_in") > topic(1, "bytes_in"));
    let segments = frontend.store.inner();
    let puts = usage["object_store_requests"]["put"].as_u64().unwrap();
    assert_eq!(puts, 5, "the incarnation, and a segment for each append: {segments:?}");
    let shared = |at: usize| usage["topics"][at]["object_store_requests"]["put"].as_u64().unwrap();
    assert!(shared(0) >= 3 && shared(0) + shared(1) <= puts);
    assert!(usage["cost"]["requests_dollars"].as_f64().unwrap() > 0.0);
    assert!(usage["stored_bytes"].as_u64().unwrap() >= topic(0, "bytes_in"));

    let again = frontend.get("/v1/usage").await.json();
    assert_eq!(again["traffic"], usage["traffic"], "nothing counts twice");
    let page = frontend.get("/v1/usage?limit=1").await.json();
    let next = page["next_after_topic"].as_str().unwrap();
    let page = frontend.get(&format!("/v1/usage?limit=1&after_topic={next}")).await.json();
    assert_eq!(page["topics"][0], usage["topics"][1]);
    let last = frontend.get("/v1/usage?month=last").await.json();
    assert_eq!(last["traffic"]["records_in"], 0);
    for wrong in ["month=next", "limit=0", "limit=1001", "after_topic=x"] {
        let answer = frontend.get(&format!("/v1/usage?{wrong}")).await;
        assert!(answer.status.is_client_error(), "{wrong}: {answer:?}");
    }

    let settings = r#"{"settings":{"price.put.nanodollars":"0","price.get.nanodollars":0}}"#;
    let changed = frontend.call("PATCH", "/v1/cluster/settings", &[], settings).await;
    assert_eq!(changed.json()["settings"]["price.put.nanodollars"], "0");
    assert_eq!(frontend.get("/v1/usage").await.json()["cost"]["requests_dollars"], 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frontend_that_drains_reports_what_it_used() {
    let frontend = start().await;
    frontend.create("a", 1).await;
    frontend.append("a", "one").await.unwrap();
    let metadata = frontend.metadata.clone();
    frontend.stop().await;
    until("the report is there", async || metadata.records_in() == 1).await;
}
