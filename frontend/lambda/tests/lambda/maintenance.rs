//! Role `maintenance`: an event, whatever it says, is a reason to do what is due.

use std::time::{Duration, Instant};

use bytes::Bytes;
use carnax_core::id::{Incarnation, SegmentId};
use carnax_core::object_key::SegmentKey;
use carnax_core::time::Timestamp;
use carnax_lambda_runtime_emulator::front::function_url;
use carnax_object_store::{ObjectStoreSettings, open};
use serde_json::json;

use super::core;
use super::runtime::Function;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_behind_is_collected_by_a_message_or_a_schedule_and_records_stay() {
    let core = core::start().await;
    let http = Function::start(&core, &[]).await;
    http.until_created("t", "{\"partitions\":1}").await;
    let settings = json!({ "settings": {
        "commit.deadline.ms": 1_000, "orphan.age.ms": 1_500, "orphan.scan.interval.ms": 1_000,
    } });
    let altered =
        http.invoke(&function_url("PATCH", "/v1/cluster/settings", "", Some(&settings.to_string()))).await;
    assert_eq!(altered["statusCode"], 200, "{altered}");
    let records = json!({ "records": [{ "value": "kept" }] }).to_string();
    let appended = http.invoke(&function_url("POST", "/v1/topics/t/records", "", Some(&records))).await;
    assert_eq!(appended["statusCode"], 200, "{appended}");

    let store = open(&core.object_store.parse().unwrap(), &ObjectStoreSettings::default()).await.unwrap();
    let function = Function::start(&core, &[("CARNAX_LAMBDA_ROLE", "maintenance")]).await;
    let message = json!({ "Records": [{ "messageId": "m", "body": "{\"job\":\"collect_orphans\"}" }] });
    let schedule = json!({ "detail-type": "Scheduled Event" });
    for (random, event) in [(1, &message), (2, &schedule)] {
        let key = SegmentKey::appended(Incarnation(1), SegmentId::from_parts(now(), random)).to_string();
        store.put_if_absent(&key, Bytes::from_static(b"left behind").into()).await.unwrap();
        let started = Instant::now();
        loop {
            let answer = function.invoke(event).await;
            assert!(answer.get("batchItemFailures").is_none(), "{answer}");
            if answer["deleted"].as_u64() >= Some(1) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{answer}");
            // Orphans are looked for where somebody writes.
            let appended =
                http.invoke(&function_url("POST", "/v1/topics/t/records", "", Some(&records))).await;
            assert_eq!(appended["statusCode"], 200, "{appended}");
        }
        assert!(store.head(&key).await.is_err());
    }
    let path = "/v1/topics/t/partitions/0/records";
    let read = http.invoke(&function_url("GET", path, "offset=0", None)).await;
    assert!(read["body"].as_str().unwrap().contains("kept"), "{read}");
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap())
}
