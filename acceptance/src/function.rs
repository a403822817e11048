//! The frontend as a Lambda function, under an emulator of the runtime API, on a cluster.

use anyhow::Result;
use carnax_lambda_runtime_emulator::FunctionSettings;
use serde_json::{Value, json};

use crate::binaries;
use crate::cluster::ProcessCluster;

/// `carnax-lambda` in the role `http`.
///
/// # Errors
/// If it cannot be built.
pub fn carnax_lambda(cluster: &ProcessCluster) -> Result<FunctionSettings> {
    let nodes: Vec<&str> = cluster.nodes.iter().map(|node| node.address.as_str()).collect();
    let mut settings = FunctionSettings::new(binaries::lambda()?)
        .variable("CARNAX_LAMBDA_ROLE", "http")
        .variable("CARNAX_METADATA", nodes.join(","))
        .variable("CARNAX_OBJECT_STORE", cluster.object_store())
        .variable("CARNAX_S3_PATH_STYLE", "true");
    settings.variables.extend(cluster.environment());
    settings.log = Some(cluster.log_of("lambda")?);
    Ok(settings)
}

/// A request as the event of a function URL.
pub fn url_event(method: &str, path: &str, document: &Value) -> Value {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "id.lambda-url.us-east-1.on.aws"},
        "requestContext": {
            "accountId": "1", "apiId": "id", "domainName": "id.lambda-url.us-east-1.on.aws", "domainPrefix": "id",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"},
            "requestId": "r", "routeKey": "$default", "stage": "$default", "time": "12/Mar/2020:19:03:58 +0000", "timeEpoch": 1,
        },
        "body": document.to_string(), "isBase64Encoded": false,
    })
}
