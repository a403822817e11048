//! A function that answers with its event; `{"fail": WHY}` fails, `{"end": STATUS}` ends the process.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Value>| {
        if let Some(why) = event.payload["fail"].as_str() {
            return Err(Error::from(why));
        }
        if let Some(status) = event.payload["end"].as_i64() {
            std::process::exit(i32::try_from(status)?);
        }
        Ok(event.payload)
    }))
    .await
}
