//! The function's process under the emulator of the runtime API.

use std::ops::Deref;
use std::time::{Duration, Instant};

use carnax_lambda_runtime_emulator::front::function_url;
use carnax_lambda_runtime_emulator::{self as emulator, FunctionSettings};
use serde_json::Value;

use super::core::Core;

const PATIENCE: Duration = Duration::from_secs(60);

/// A function that was started. Ends when it is dropped.
pub struct Function(emulator::Function);

impl Deref for Function {
    type Target = emulator::Function;

    fn deref(&self) -> &emulator::Function {
        &self.0
    }
}

impl Function {
    /// Starts the function's process as Lambda does, with variables beside those that every function has.
    pub async fn start(core: &Core, variables: &[(&str, &str)]) -> Self {
        let mut settings = FunctionSettings::new(env!("CARGO_BIN_EXE_carnax-lambda"))
            .variable("CARNAX_LAMBDA_ROLE", "http")
            .variable("CARNAX_METADATA", &core.address)
            .variable("CARNAX_ACCESS", "open-to-the-network")
            .variable("CARNAX_OBJECT_STORE", &core.object_store);
        for (name, value) in variables {
            settings = settings.variable(*name, *value);
        }
        Self(emulator::Function::start(&settings).await.unwrap())
    }

    /// Invokes the function with time to spare, and gives what it answers.
    pub async fn invoke(&self, payload: &Value) -> Value {
        self.0.invoke(payload).await.unwrap()
    }

    /// Creates a topic through the function, of role `http`, as soon as the metadata node leads: until then it hangs up on
    /// everyone.
    pub async fn until_created(&self, topic: &str, document: &str) {
        let create = function_url("PUT", &format!("/v1/topics/{topic}"), "", Some(document));
        let started = Instant::now();
        loop {
            let created = self.invoke(&create).await;
            if matches!(created["statusCode"].as_u64(), Some(200 | 201)) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{created}");
        }
    }
}
