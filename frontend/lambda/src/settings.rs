//! What is configured, from the environment of the function: the settings of the frontend, with defaults that suit Lambda.

use std::time::Duration;

use carnax_frontend::ingest::IngestRules;
use carnax_frontend::{AccessRule, Settings};
use clap::{Parser, ValueEnum};

/// The part that the function plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Answers HTTP requests.
    Http,
    /// Turns the messages of SQS queues into records.
    SqsIngest,
    /// Does maintenance jobs, woken by a queue or a schedule.
    Maintenance,
}

/// How answers travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Responses {
    /// Whole, as all fronts take them. A stream of events is cut when the invocation's time is up.
    Buffered,
    /// As they come: for function URLs with the invoke mode `RESPONSE_STREAM` alone.
    Streamed,
}

/// The frontend of Carnax as an AWS Lambda function
#[derive(Debug, Clone, Parser)]
#[command(name = "carnax-lambda", version)]
pub(crate) struct Arguments {
    /// The part that this function plays.
    #[arg(long, env = "CARNAX_LAMBDA_ROLE", value_enum, default_value = "http")]
    pub(crate) role: Role,
    /// How answers travel.
    #[arg(long, env = "CARNAX_LAMBDA_RESPONSES", value_enum, default_value = "buffered")]
    pub(crate) responses: Responses,
    /// How long before the end of an invocation nobody waits for records any longer, in milliseconds; answers must be complete
    /// when three quarters of that are over.
    #[arg(long = "margin-ms", env = "CARNAX_LAMBDA_MARGIN_MS", value_name = "MS", default_value = "500", value_parser = millis)]
    pub(crate) margin: Duration,
    /// How long a frontend may have stood still and still be used, in milliseconds.
    #[arg(long = "stale-ms", env = "CARNAX_LAMBDA_STALE_MS", value_name = "MS", default_value = "30000", value_parser = millis)]
    pub(crate) stale: Duration,
    /// Which queue belongs to which topic: a JSON list of {"queue": ARN, "topic": name, "key": source, "dead_letters": URL}.
    #[arg(long, env = "CARNAX_INGEST", value_name = "JSON", required_if_eq("role", "sqs-ingest"))]
    pub(crate) ingest: Option<IngestRules>,
    /// The frontend.
    #[command(flatten)]
    pub(crate) frontend: Settings,
}

impl Arguments {
    /// Puts the defaults of Lambda where the variables of the environment say nothing: no linger, since nobody shares a segment
    /// with a single request, shares of the function's memory, and nobody is let in without a token.
    pub(crate) fn for_lambda(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let unset = |name: &str| variable(name).is_none();
        self.frontend.watch_while_waited = true;
        if unset("CARNAX_LINGER_MS") {
            self.frontend.append.linger = Duration::ZERO;
        }
        if unset("CARNAX_ACCESS") {
            // It listens on no address of its own, and whoever fronts it brings requests from everywhere.
            self.frontend.access = Some(AccessRule::Tokens);
        }
        let mebibytes = variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").and_then(|text| text.parse::<u64>().ok());
        let Some(bytes) = mebibytes.map(|mebibytes| mebibytes.saturating_mul(1 << 20)) else { return self };
        // Of the rest lives everything else. The least for appends is twice the largest body.
        let frontend = &mut self.frontend;
        if unset("CARNAX_APPEND_MEMORY_BYTES") {
            frontend.append.append_memory_bytes =
                (bytes / 4).max(frontend.http.body_bytes_max.saturating_mul(2));
        }
        if unset("CARNAX_FETCH_MEMORY_BYTES") {
            frontend.fetch.fetch_memory_bytes = (bytes / 4).max(1 << 25);
        }
        if unset("CARNAX_CACHE_BYTES") {
            frontend.fetch.cache_bytes = (bytes / 8).max(1 << 20);
        }
        self
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|_| "a whole number of milliseconds".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may")]

    use super::*;

    const LINE: [&str; 5] =
        ["carnax-lambda", "--metadata", "a:1,b:2", "--object-store", "s3://bucket/prefix"];

    #[test]
    fn a_function_lingers_not_and_takes_shares_of_its_memory_unless_it_is_told_otherwise() {
        let parsed = Arguments::try_parse_from(LINE).unwrap();
        let memory = |name: &str| (name == "AWS_LAMBDA_FUNCTION_MEMORY_SIZE").then(|| "512".to_owned());
        let small = parsed.clone().for_lambda(memory);
        assert_eq!(small.frontend.append.linger, Duration::ZERO);
        assert_eq!(small.frontend.append.append_memory_bytes, 128 << 20);
        assert_eq!(small.frontend.fetch.cache_bytes, 64 << 20);
        assert!(small.frontend.watch_while_waited);
        assert_eq!(small.frontend.access, Some(AccessRule::Tokens));

        let told = parsed.clone().for_lambda(|_| Some("512".to_owned()));
        assert_eq!(told.frontend.append.linger, Duration::from_millis(250));
        assert_eq!(told.frontend.fetch.cache_bytes, parsed.frontend.fetch.cache_bytes);
        assert!(Arguments::try_parse_from([&LINE[..], &["--role", "cook"]].concat()).is_err());
        assert!(
            Arguments::try_parse_from([&LINE[..], &["--role", "sqs-ingest"]].concat()).is_err(),
            "by which rules?"
        );
    }
}
