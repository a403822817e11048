//! Speaks to the server as a client does that sends one message at a time: what the contract of queues does not touch.

use std::sync::Arc;

use carnax_platform::clock::SystemClock;
use carnax_queue::MemoryQueue;
use carnax_sqs_test_server::{Action, Fault, SqsTestServer};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

async fn ask(server: &SqsTestServer, action: &str, input: &Value) -> (u16, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = Request::post(server.endpoint())
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", format!("AmazonSQS.{action}"))
        .body(Full::from(input.to_string()));
    let response = client.request(request.expect("a request")).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn a_queue_is_found_by_name_and_takes_and_gives_one_message() {
    let queue = MemoryQueue::new("events.fifo", Arc::new(SystemClock::new())).expect("a queue's name");
    let server = SqsTestServer::start([Arc::new(queue)]).await;
    let (status, found) = ask(&server, "GetQueueUrl", &json!({ "QueueName": "events.fifo" })).await;
    assert_eq!((status, &found["QueueUrl"]), (200, &json!(server.queue_url("events.fifo"))));
    let url = &found["QueueUrl"];

    let ungrouped = json!({ "QueueUrl": url, "MessageBody": "one" });
    let (status, refused) = ask(&server, "SendMessage", &ungrouped).await;
    assert_eq!((status, &refused["__type"]), (400, &json!("com.amazonaws.sqs#InvalidParameterValue")));
    let message = json!({
        "QueueUrl": url, "MessageBody": "one", "MessageGroupId": "g", "MessageDeduplicationId": "d",
        "MessageAttributes": {
            "shown": { "DataType": "String", "StringValue": "1" },
            "hidden": { "DataType": "String", "StringValue": "2" },
        },
    });
    let (status, sent) = ask(&server, "SendMessage", &message).await;
    assert_eq!(status, 200, "{sent}");

    let receive = json!({
        "QueueUrl": url, "MessageAttributeNames": ["shown"], "MessageSystemAttributeNames": ["SequenceNumber"],
    });
    let (_, received) = ask(&server, "ReceiveMessage", &receive).await;
    let received = &received["Messages"][0];
    assert_eq!((&received["Body"], &received["MessageId"]), (&json!("one"), &sent["MessageId"]));
    assert_eq!(
        received["Attributes"],
        json!({ "SequenceNumber": sent["SequenceNumber"] }),
        "what was asked for"
    );
    let shown = json!({ "shown": { "DataType": "String", "StringValue": "1" } });
    assert_eq!(received["MessageAttributes"], shown, "what was asked for");

    let (_, held) = ask(&server, "GetQueueAttributes", &json!({ "QueueUrl": url })).await;
    assert_eq!(held["Attributes"]["ApproximateNumberOfMessagesNotVisible"], "1");
    assert_eq!(held["Attributes"]["FifoQueue"], "true");
    let deletion = json!({ "QueueUrl": url, "ReceiptHandle": received["ReceiptHandle"] });
    server.script(Action::Delete, [Fault::Throttle]);
    assert_eq!(ask(&server, "DeleteMessage", &deletion).await.0, 400);
    assert_eq!(ask(&server, "DeleteMessage", &deletion).await.0, 200);
    let (_, held) = ask(&server, "GetQueueAttributes", &json!({ "QueueUrl": url })).await;
    assert_eq!(held["Attributes"]["ApproximateNumberOfMessagesNotVisible"], "0");
    assert_eq!((server.requests(Action::Delete), server.requests_total()), (2, 8));

    let (status, unknown) = ask(&server, "PurgeQueue", &json!({ "QueueUrl": url })).await;
    assert_eq!((status, &unknown["__type"]), (400, &json!("com.amazonaws.sqs#InvalidAction")));
}
