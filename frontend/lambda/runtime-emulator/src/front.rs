//! Events as the HTTP fronts of Lambda make them, of requests with a JSON body or none.

use serde_json::{Value, json};

const TYPE: &str = "content-type";
const JSON: &str = "application/json";

/// Of a function URL; an HTTP API of API Gateway makes the same, with its stage.
pub fn function_url(method: &str, path: &str, query: &str, body: Option<&str>) -> Value {
    v2("$default", method, path, query, body)
}

/// Of an HTTP API of API Gateway.
pub fn v2(stage: &str, method: &str, path: &str, query: &str, body: Option<&str>) -> Value {
    let path = if stage == "$default" { path.to_owned() } else { format!("/{stage}{path}") };
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
        "headers": {TYPE: JSON, "host": "id.lambda-url.us-east-1.on.aws"},
        "requestContext": {
            "accountId": "1", "apiId": "id", "domainName": "id.lambda-url.us-east-1.on.aws", "domainPrefix": "id",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"},
            "requestId": "r", "routeKey": "$default", "stage": stage, "time": "12/Mar/2020:19:03:58 +0000", "timeEpoch": 1,
        },
        "body": body, "isBase64Encoded": false,
    })
}

/// Of a REST API of API Gateway.
pub fn v1(stage: &str, method: &str, path: &str, query: &[(&str, &str)]) -> Value {
    let query: serde_json::Map<String, Value> =
        query.iter().map(|(name, value)| ((*name).to_owned(), json!([value]))).collect();
    json!({
        "resource": "/{proxy+}", "path": path, "httpMethod": method,
        "headers": {"Host": "api.example"}, "multiValueHeaders": {"Host": ["api.example"]},
        "queryStringParameters": null, "multiValueQueryStringParameters": query,
        "pathParameters": null, "stageVariables": null,
        "requestContext": {
            "accountId": "1", "resourceId": "r", "stage": stage, "requestId": "r", "resourcePath": "/{proxy+}",
            "httpMethod": method, "apiId": "id", "path": format!("/{stage}{path}"), "identity": {"sourceIp": "127.0.0.1"},
        },
        "body": null, "isBase64Encoded": false,
    })
}

/// Of an application load balancer.
pub fn load_balancer(method: &str, path: &str, query: &[(&str, &str)]) -> Value {
    let query: serde_json::Map<String, Value> =
        query.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/x/1"}},
        "httpMethod": method, "path": path, "queryStringParameters": query,
        "headers": {"host": "lb.example"}, "body": "", "isBase64Encoded": false,
    })
}
