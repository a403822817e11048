//! The arguments of the program; each command's own stand beside the command.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use carnax::Client;
use clap::{Args, Parser, Subcommand};

use crate::command::{
    bench, cluster, completions, consume, demo, dev, doctor, group, produce, segment, token, topic, wakeup,
};
use crate::exit;
use crate::output::Format;

/// The environment variable that may hold the access token.
const TOKEN_VARIABLE: &str = "CARNAX_TOKEN";

/// Carnax: a distributed commit log in object storage
#[derive(Debug, Parser)]
#[command(name = "carnax", version, after_help = exit::HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where frontends listen; with several, the first one that works is used
    #[arg(
        long,
        global = true,
        env = "CARNAX_ENDPOINT",
        value_name = "URL[,URL…]",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) endpoint: Vec<String>,

    /// File with the access token to show; the variable CARNAX_TOKEN may hold the token itself
    #[arg(long, global = true, env = "CARNAX_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Who signs the certificates of https endpoints, PEM; without, those whom the operating system trusts
    #[arg(long, global = true, env = "CARNAX_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// How results are written to standard output
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) output: Format,

    /// How many seconds a call may take over all its retries
    #[arg(long, global = true, env = "CARNAX_TIMEOUT", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a metadata node and a frontend in this process, on a local folder
    #[command(after_help = exit::HELP)]
    Dev(dev::DevArguments),
    /// Write a sample and read it back, in one process, and check that nothing is lost
    #[command(after_help = exit::HELP)]
    Demo(demo::DemoArguments),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand, after_help = exit::HELP)]
    Topic(topic::Topic),
    /// Tell queues when a topic grows
    #[command(subcommand, after_help = exit::HELP)]
    Wakeup(wakeup::Wakeup),
    /// Append lines as records
    #[command(after_help = exit::HELP)]
    Produce(produce::Produce),
    /// Read records
    #[command(after_help = exit::HELP)]
    Consume(consume::Consume),
    /// Make, list, change and revoke access tokens
    #[command(subcommand, after_help = exit::HELP)]
    Token(token::Token),
    /// See consumer groups, move their offsets, delete them
    #[command(subcommand, after_help = exit::HELP)]
    Group(group::Group),
    /// See and change the metadata cluster and its settings
    #[command(subcommand, after_help = exit::HELP)]
    Cluster(cluster::Cluster),
    /// Look into segment objects
    #[command(subcommand, after_help = exit::HELP)]
    Segment(segment::Segment),
    /// Check a configuration from end to end, and say what is wrong
    #[command(after_help = exit::HELP)]
    Doctor(doctor::Doctor),
    /// Measure appends, end-to-end latency and catch-up, beside the raw object store
    #[command(after_help = exit::HELP)]
    Bench(bench::Bench),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

impl Global {
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        self.client_of(&self.endpoint)
    }

    pub(crate) fn client_of(&self, endpoints: &[String]) -> anyhow::Result<Client> {
        let request_timeout = self.timeout.min(Duration::from_secs(30));
        let mut builder = Client::builder()
            .endpoints(endpoints)
            .operation_timeout(self.timeout)
            .request_timeout(request_timeout);
        if let Some(token) = self.token()? {
            builder = builder.token(token);
        }
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path);
            let pem = pem.with_context(|| format!("the file {} cannot be read", path.display()))?;
            builder = builder.ca_certificates(pem);
        }
        Ok(builder.build()?)
    }

    fn token(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.token_file else { return Ok(std::env::var(TOKEN_VARIABLE).ok()) };
        let read = std::fs::read_to_string(path);
        read.map(Some).with_context(|| format!("the token file {} cannot be read", path.display()))
    }
}

/// A time in days, hours, minutes or seconds.
pub(crate) fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time as 30d, 12h, 15m or 90s".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "d" => 24 * 60 * 60,
        "h" => 60 * 60,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Seconds, perhaps with a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Bytes, perhaps with `KiB`, `MiB` or `GiB`.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        unit => return Err(format!("unknown unit {unit:?}: KiB, MiB or GiB")),
    };
    let number: usize = digits.trim().parse().map_err(|_| "not a number of bytes".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "too many bytes".to_owned())
}

/// A name and a value around the first equals sign.
pub(crate) fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_that_scripts_rely_on_are_understood() {
        Arguments::command().debug_assert();
        for line in [
            "carnax dev --dir DIR --listen 127.0.0.1:8080",
            "carnax topic create flights --partitions 12 --config retention.ms=604800000",
            "carnax produce flights --file flights.ndjson --key-field carrier",
            "carnax produce flights --key-separator :",
            "carnax consume flights --from earliest --until-end --output json",
            "carnax consume flights --partition 3 --from 41 --max-records 10",
            "carnax consume flights --from @1700000000000",
            "carnax consume flights --last 10",
            "carnax consume flights --follow",
            "carnax --endpoint http://a:1,http://b:2 cluster status",
            "carnax cluster transfer-leader --to 3",
            "carnax cluster settings",
            "carnax cluster maintenance",
            "carnax cluster upgrade --dry-run",
            "carnax cluster upgrade --to 6",
            "carnax cluster usage --last-month --output json",
            "carnax cluster verify --deep",
            "carnax cluster verify --metadata 127.0.0.1:7001,127.0.0.1:7002 --object-store s3://bucket/p --listing-only",
            "carnax cluster settings producer.max=1000 --reset idempotency.window.ms",
            "carnax group list --prefix bill",
            "carnax group offsets billing --topic flights --topic orders",
            "carnax group commit billing flights/0=41 flights/1=7",
            "carnax group reset billing --to earliest",
            "carnax group reset billing --to @1700000000000 --topic flights --partition 3 --execute",
            "carnax group reset billing --ago 7200 --execute",
            "carnax group reset billing --shift-by -10",
            "carnax group remove-member billing m-1",
            "carnax group delete billing",
            "carnax token create --description billing --grant read,write:topic/orders* --grant group:group/billing --expires-in 30d",
            "carnax --token-file /etc/carnax/token token list",
            "carnax token alter 6m3vx0kq1a2b3c4d --grant read:topic/* --never-expires --fetch-bytes-per-second 1000000",
            "carnax token revoke 6m3vx0kq1a2b3c4d",
            "carnax segment inspect 1/segments/2f/01HF7YAT00000000000000001A --object-store file:///tmp/x",
            "carnax bench --object-store memory://x --output json",
        ] {
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
        for line in [
            "carnax",
            "carnax consume t --from soon",
            "carnax consume t --follow --until-end",
            "carnax group reset g",
            "carnax group reset g --to noon",
            "carnax group reset g --to earliest --shift-by 1",
            "carnax group commit g",
            "carnax group commit g t=1",
            "carnax token create",
            "carnax token create --grant fly:cluster",
            "carnax token create --grant admin --expires-in soon",
            "carnax token alter x --expires-in 1d --never-expires",
            "carnax cluster settings producer.max",
            "carnax cluster verify --deep --listing-only",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        assert_eq!((bytes("17"), bytes("4KiB"), bytes("2 MiB")), (Ok(17), Ok(4_096), Ok(2 << 20)));
        assert!(bytes("4 parsecs").is_err() && bytes("-1").is_err());
        assert_eq!(
            (lifetime("30d"), lifetime("90s")),
            (Ok(Duration::from_secs(2_592_000)), Ok(Duration::from_secs(90)))
        );
        assert!(
            ["", "d", "1", "1y", "-1d", "1.5h", "99999999999999999d", "ä"]
                .iter()
                .all(|text| lifetime(text).is_err())
        );
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("-1").is_err());
    }
}
