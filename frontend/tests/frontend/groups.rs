//! Goal: group calls do what they say, whichever of two frontends each goes to, and an answer that is lost on the way to a
//! frontend harms nobody. Method: real HTTP against the real state machine, which loses commands and replies on demand.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::group_input::post;
use super::support::{Frontend, start, start_over, start_with};

const MEMBERS: &str = "/v1/groups/g/members";
const OFFSETS: &str = "/v1/groups/g/offsets";
const RESET: &str = "/v1/groups/g/offsets/reset";

async fn done(frontend: &Frontend, path: &str, body: Value) -> Value {
    let answer = post(frontend, path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
    answer.json()
}

async fn beat(frontend: &Frontend, member: &str, of: &Value) -> Value {
    let body = json!({"epoch": of["epoch"], "assignment_epoch": of["assignment_epoch"]});
    done(frontend, &format!("{MEMBERS}/{member}/heartbeat"), body).await
}

/// The partitions of an assignment to one topic.
fn held(assignment: &Value) -> Vec<u64> {
    let topics = assignment.as_array().unwrap();
    let numbers = topics.iter().flat_map(|topic| topic["partitions"].as_array().unwrap());
    numbers.map(|number| number.as_u64().unwrap()).collect()
}

fn one(partition: u64, offset: u64) -> Value {
    json!([{"topic": "t", "partition": partition, "offset": offset}])
}

/// Appends records with these timestamps to a partition.
async fn append(frontend: &Frontend, partition: u64, timestamps: &[i64]) {
    let records: Vec<_> = timestamps.iter().map(|time| json!({"value": "v", "timestamp": time})).collect();
    done(frontend, &format!("/v1/topics/t/partitions/{partition}/records"), json!({"records": records}))
        .await;
}

/// What is committed, by partition.
async fn committed(frontend: &Frontend) -> Vec<Value> {
    let answer = frontend.get(&format!("{OFFSETS}?topic=t")).await.json();
    answer["offsets"].as_array().unwrap().iter().map(|offset| offset["offset"].clone()).collect()
}

async fn two() -> (Frontend, Frontend) {
    let one = start().await;
    let other = start_over(one.metadata.clone(), one.store.clone(), |_| {}).await;
    (one, other)
}

#[tokio::test]
async fn two_members_hand_partitions_over_and_only_owners_commit() {
    let (a, b) = two().await;
    a.create("t", 4).await;
    let join = |member: &str| json!({"member": member, "topics": ["t"], "client": "test"});
    let first = done(&a, MEMBERS, join("m1")).await;
    assert_eq!((held(&first["assignment"]), &first["member"]), (vec![0, 1, 2, 3], &json!("m1")));
    assert_eq!((&first["epoch"], &first["session_timeout_ms"]), (&json!(1), &json!(45_000)));
    assert_eq!(done(&b, MEMBERS, join("m1")).await, first, "joining again is joining once");
    let second = done(&b, MEMBERS, join("m2")).await;
    assert_eq!(held(&second["assignment"]), [] as [u64; 0], "nothing before it is let go of");
    let told = beat(&b, "m1", &first).await;
    assert_eq!(held(&told["assignment"]).len(), 2);
    assert_eq!(held(&beat(&a, "m2", &second).await["assignment"]).len(), 0, "told is not let go of");
    let group = b.get("/v1/groups/g").await.json();
    assert_eq!(group["phase"], "rebalancing");
    assert_eq!(held(&group["members"][0]["releasing"]), held(&group["members"][1]["awaiting"]));
    let first = beat(&a, "m1", &told).await;
    let second = beat(&b, "m2", &second).await;
    let mut all = [held(&first["assignment"]), held(&second["assignment"])].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!(a.get("/v1/groups/g").await.json()["phase"], "stable");

    let (mine, theirs) = (held(&first["assignment"])[0], held(&second["assignment"])[0]);
    append(&a, mine, &[1, 2, 3]).await;
    let by = |member: &str, epoch: &Value, number: u64, offsets: Value| json!({"member": member, "epoch": epoch, "number": number, "offsets": offsets});
    let epoch = &first["epoch"];
    let ignored = |answer: &Value| answer["ignored"].as_bool().unwrap();
    assert!(!ignored(&done(&b, OFFSETS, by("m1", epoch, 2, one(mine, 2))).await));
    assert!(ignored(&done(&a, OFFSETS, by("m1", epoch, 1, one(mine, 1))).await));
    post(&a, OFFSETS, by("m1", epoch, 3, one(theirs, 0))).await.problem("not_owner");
    post(&a, OFFSETS, by("m1", &json!(0), 3, one(mine, 3))).await.problem("fenced");
    post(&a, OFFSETS, by("m3", epoch, 1, one(mine, 3))).await.problem("unknown_member");
    post(&a, OFFSETS, json!({"offsets": one(mine, 3)})).await.problem("not_owner");
    post(&a, RESET, json!({"to": "earliest", "dry_run": true})).await.problem("group_not_empty");
    a.call("DELETE", "/v1/groups/g", &[], "").await.problem("group_not_empty");
    let offsets = b.get(OFFSETS).await.json();
    assert_eq!((&offsets["lag"], offsets["offsets"].as_array().unwrap().len()), (&json!(1), 1));
    assert_eq!(
        (&offsets["offsets"][0]["offset"], &offsets["offsets"][0]["owner"]),
        (&json!(2), &json!("m1"))
    );

    let leave = async |path: &str| a.call("DELETE", &format!("{MEMBERS}/{path}"), &[], "").await;
    leave("m1?epoch=0").await.problem("fenced");
    assert_eq!(leave("m1?epoch=1").await.json()["was_member"], true);
    assert_eq!(leave("m1?epoch=1").await.json()["was_member"], false);
    let body = json!({"epoch": 1, "assignment_epoch": first["assignment_epoch"]});
    post(&b, &format!("{MEMBERS}/m1/heartbeat"), body).await.problem("unknown_member");
    assert_eq!(held(&beat(&b, "m2", &second).await["assignment"]), [0, 1, 2, 3]);
    assert_eq!(leave("m2").await.json()["was_member"], true);
    assert_eq!(a.get("/v1/groups/g").await.json()["phase"], "empty");
    assert_eq!(a.call("DELETE", "/v1/groups/g", &[], "").await.json()["offsets"], 1);
    a.get("/v1/groups/g").await.problem("group_not_found");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_member_without_an_id_gets_one_and_lists_come_in_pages() {
    let frontend = start().await;
    frontend.create("t", 3).await;
    frontend.create("other", 2).await;
    let ids = [done(&frontend, MEMBERS, json!({"patterns": ["t*"]})).await, {
        done(&frontend, MEMBERS, json!({"patterns": ["t*"]})).await
    }];
    assert_ne!(ids[0]["member"], ids[1]["member"]);
    for group in ["g1", "g2", "h1"] {
        let path = format!("/v1/groups/{group}/offsets");
        let entry =
            |topic: &str, partition: u32| json!({"topic": topic, "partition": partition, "offset": 0});
        let offsets = json!([entry("t", 0), entry("t", 2), entry("other", 1)]);
        done(&frontend, &path, json!({"offsets": offsets})).await;
    }
    let names = async |query: &str| {
        let page = frontend.get(&format!("/v1/groups{query}")).await.json();
        let groups = page["groups"].as_array().unwrap().clone();
        let names: Vec<_> = groups.iter().map(|group| group["group"].as_str().unwrap().to_owned()).collect();
        (names.join(" "), page["next_after"].clone())
    };
    assert_eq!(names("").await, ("g g1 g2 h1".to_owned(), Value::Null));
    assert_eq!(names("?prefix=g&limit=2").await, ("g g1".to_owned(), json!("g1")));
    assert_eq!(names("?prefix=g&limit=2&after=g1").await, ("g2".to_owned(), Value::Null));
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = frontend.get(&format!("/v1/groups/g1/offsets?limit=1{after}")).await.json();
        let offset = &page["offsets"][0];
        seen.push(format!("{}/{}", offset["topic"].as_str().unwrap(), offset["partition"]));
        let Some(next) = page["next_after"].as_str() else { break };
        after = format!("&after={next}");
    }
    seen.sort();
    assert_eq!(seen, ["other/1", "t/0", "t/2"]);
    let count = async |query: &str| {
        let page = frontend.get(&format!("/v1/groups/g1/offsets{query}")).await.json();
        page["offsets"].as_array().unwrap().len()
    };
    assert_eq!((count("?topic=t").await, count("?topic=t,other").await), (3, 5), "all of a named topic");
    assert_eq!(count("?topic=t&topic=other").await, 5);
    frontend.get("/v1/groups/g1/offsets?topic=t,none").await.problem("topic_not_found");
    frontend.stop().await;
}

#[tokio::test]
async fn what_may_be_done_twice_is_sent_again_and_the_rest_is_told() {
    let frontend = start_with(|settings| settings.calls.deadline = Duration::from_secs(2)).await;
    let metadata = frontend.metadata.clone();
    frontend.create("t", 2).await;
    append(&frontend, 0, &[1, 2, 3]).await;
    for was_done in [true, false] {
        metadata.lose_group_command(was_done);
        let joined = done(&frontend, MEMBERS, json!({"member": "m", "topics": ["t"]})).await;
        assert_eq!((&joined["epoch"], held(&joined["assignment"])), (&json!(1), vec![0, 1]));
    }
    let by = |number: u64, offset: u64| json!({"member": "m", "epoch": 1, "number": number, "offsets": one(0, offset)});
    metadata.lose_group_command(true);
    assert_eq!(done(&frontend, OFFSETS, by(1, 1)).await["ignored"], true);
    metadata.lose_group_command(false);
    assert_eq!(done(&frontend, OFFSETS, by(2, 2)).await["ignored"], false);
    assert_eq!(committed(&frontend).await, [json!(2), Value::Null]);
    metadata.lose_group_command(true);
    frontend.call("DELETE", &format!("{MEMBERS}/m?epoch=1"), &[], "").await.json();
    assert_eq!(frontend.get("/v1/groups/g").await.json()["phase"], "empty");

    let moved = |from: Value, to: u64| json!({"offsets": [{"topic": "t", "partition": 0, "offset": to, "from": from}]});
    metadata.lose_group_command(false);
    done(&frontend, OFFSETS, moved(json!(2), 3)).await;
    metadata.lose_group_command(true);
    let problem = post(&frontend, OFFSETS, moved(json!(3), 1)).await.problem("outcome_unknown");
    assert_eq!(problem["side_effects"], "possible");
    assert_eq!(committed(&frontend).await[0], 1, "it was the frontend's own first try that moved it");
    metadata.lose_group_command(false);
    post(&frontend, OFFSETS, json!({"offsets": one(0, 2)})).await.problem("outcome_unknown");
    assert_eq!(committed(&frontend).await[0], 1, "what cannot be told from its repeat is not sent again");
    let problem = post(&frontend, OFFSETS, moved(json!(2), 3)).await.problem("condition_failed");
    assert_eq!((&problem["expected"], &problem["actual"]), (&json!("2"), &json!("1")));
    let problem = post(&frontend, OFFSETS, moved(Value::Null, 3)).await.problem("condition_failed");
    assert_eq!((&problem["expected"], &problem["actual"]), (&json!("none"), &json!("1")));
    metadata.lose_quorum(true);
    post(&frontend, MEMBERS, json!({"topics": ["t"]})).await.problem("no_quorum");
    metadata.lose_quorum(false);
    frontend.stop().await;
}

#[tokio::test]
async fn a_topic_that_was_created_again_is_another_one_to_a_group() {
    let (a, b) = two().await;
    a.create("t", 2).await;
    let old = a.get("/v1/topics/t").await.json()["topic_id"].clone();
    done(&a, OFFSETS, json!({"offsets": one(1, 0)})).await;
    b.call("DELETE", "/v1/topics/t", &[], "").await.json();
    assert_eq!(a.get(OFFSETS).await.json()["offsets"], json!([]), "offsets go with their topic");
    // One frontend makes it again; the other still knows another topic by that name, and finds out by itself.
    b.create("t", 3).await;
    done(&a, OFFSETS, json!({"offsets": one(1, 0)})).await;
    assert_eq!(committed(&a).await, [Value::Null, json!(0), Value::Null]);
    let named =
        |id: &Value| json!({"offsets": [{"topic": "t", "topic_id": id, "partition": 0, "offset": 0}]});
    let problem = post(&a, OFFSETS, named(&old)).await.problem("topic_recreated");
    assert_ne!(problem["topic_id"], old);
    done(&b, OFFSETS, named(&problem["topic_id"])).await;
    a.call("DELETE", "/v1/topics/t", &[], "").await.json();
    post(&b, OFFSETS, json!({"offsets": one(1, 0)})).await.problem("topic_not_found");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_reset_shows_or_moves_offsets_of_a_group_without_members() {
    let (a, b) = two().await;
    a.create("t", 2).await;
    append(&a, 0, &[1_000, 2_000, 3_000, 4_000]).await;
    append(&a, 1, &[2_500]).await;
    post(&a, RESET, json!({"to": "earliest"})).await.problem("group_not_found");
    post(&a, RESET, json!({"to": "earliest", "topics": ["none"]})).await.problem("topic_not_found");
    let far = json!({"to": "earliest", "topics": ["t"], "partitions": [0, 2]});
    post(&a, RESET, far).await.problem("partition_not_found");
    let tos = |answer: &Value| -> Vec<Value> {
        answer["offsets"].as_array().unwrap().iter().map(|offset| offset["to"].clone()).collect()
    };
    let show =
        async |to: Value| tos(&done(&b, RESET, json!({"to": to, "topics": ["t"], "dry_run": true})).await);
    assert_eq!(show(json!("earliest")).await, [0, 0]);
    assert_eq!(show(json!("latest")).await, [4, 1]);
    assert_eq!(show(json!({"offset": 2})).await, [2, 1], "moved to the nearest end");
    assert_eq!(show(json!({"offset": u64::MAX})).await, [4, 1]);
    assert_eq!(show(json!({"timestamp": 2_001})).await, [2, 0]);
    assert_eq!(show(json!({"timestamp": 3_500})).await, [3, 1]);
    assert_eq!(show(json!({"timestamp": i64::MAX})).await, [4, 1]);
    assert_eq!(show(json!({"duration_ms": 60_000})).await, [4, 1], "the records are from 1970");
    assert_eq!(show(json!({"duration_ms": u64::MAX})).await, [0, 0]);
    assert_eq!(show(json!({"shift_by": 1})).await, [] as [u64; 0], "nothing is committed to shift");
    a.get("/v1/groups/g").await.problem("group_not_found");

    let reset = done(&a, RESET, json!({"to": {"offset": 3}, "topics": ["t"], "partitions": [0]})).await;
    assert_eq!((&reset["dry_run"], &reset["offsets"][0]["from"]), (&json!(false), &Value::Null));
    assert_eq!(committed(&b).await, [json!(3), Value::Null]);
    for (by, to) in [(-2, 1), (2, 3), (-100, 0), (i64::MAX, 4)] {
        assert_eq!(tos(&done(&b, RESET, json!({"to": {"shift_by": by}})).await), [to]);
    }
    a.call("DELETE", "/v1/topics/t/partitions/0/records?before=2", &[], "").await.json();
    assert_eq!(show(json!({"offset": 0})).await, [2, 0]);
    assert_eq!(show(json!({"timestamp": 0})).await, [2, 0]);
    done(&a, MEMBERS, json!({"member": "m", "topics": ["other"]})).await;
    post(&b, RESET, json!({"to": "earliest"})).await.problem("group_not_empty");
    assert_eq!(committed(&b).await[0], 4);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn offsets_of_a_large_topic_are_looked_up_and_reset_in_several_commits() {
    let frontend = start().await;
    frontend.create("t", 1_500).await;
    append(&frontend, 1_200, &[1_000, 2_000]).await;
    let found = frontend.get("/v1/topics/t/offsets?at=1500").await.json();
    assert_eq!(found["offsets"].as_array().unwrap().len(), 1_500);
    let expected = json!({"partition": 1_200, "offset": 1, "timestamp": 2_000});
    assert_eq!(
        (&found["offsets"][1_200], &found["offsets"][7]),
        (&expected, &json!({"partition": 7, "offset": 0}))
    );
    let reset = done(&frontend, RESET, json!({"to": "latest", "topics": ["t"]})).await;
    assert_eq!(reset["offsets"].as_array().unwrap().len(), 1_500);
    assert_eq!(frontend.get("/v1/groups/g").await.json()["offsets"], 1_500);
    assert_eq!(frontend.get(&format!("{OFFSETS}?limit=5000")).await.json()["lag"], 0);
    frontend.stop().await;
}
