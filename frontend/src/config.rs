//! What a user tunes: flags, each with an environment variable, parsed into typed values.

use std::time::Duration;

use carnax_core::limits;
use carnax_object_store::ObjectStoreUrl;
use carnax_platform::network::is_loopback;
use carnax_platform::tls::ClusterTlsSettings;
use clap::{Args, Command, FromArgMatches, Parser, ValueEnum};

use crate::access::Rule;
use crate::deliberate_bugs::DeliberateBugs;
use crate::ingest::IngestRules;
use crate::tls::HttpsSettings;

/// The command line of `carnax-frontend`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "carnax-frontend",
    version,
    about = "Serves the HTTP API of Carnax: appends, fetches, topics"
)]
pub struct Options {
    /// What the frontend works with.
    #[command(flatten)]
    pub settings: Settings,
    /// Which queues' messages become records of which topic, a JSON list of {"queue": ARN, "topic": name, "key": source,
    /// "dead_letters": URL}: the frontend polls them.
    #[arg(long, env = "CARNAX_INGEST", value_name = "JSON")]
    pub ingest: Option<IngestRules>,
}

/// A part that a frontend plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Serves the API. Without it, only health, metrics and the like are served.
    Serve,
    /// Does maintenance jobs.
    Maintain,
}

/// Who has to show an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessRule {
    /// Everybody.
    Tokens,
    /// Nobody: on loopback addresses alone.
    Open,
    /// Nobody, whoever can reach the frontend: they may read, change and delete everything.
    OpenToTheNetwork,
}

/// Settings of one frontend.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where to serve HTTP.
    #[arg(long, env = "CARNAX_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// Metadata nodes, separated by commas; some of them suffice.
    #[arg(long, env = "CARNAX_METADATA", value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    pub metadata: Vec<String>,
    /// Where segments are kept: s3://bucket/prefix, file:///dir or memory://name.
    #[arg(long, env = "CARNAX_OBJECT_STORE", value_name = "URL")]
    pub object_store: ObjectStoreUrl,
    /// Put the bucket into the path of S3 requests, as most servers that are not Amazon's want it.
    #[arg(long, env = "CARNAX_S3_PATH_STYLE")]
    pub s3_path_style: bool,
    /// What the frontend does: it serves the API, or maintains the log in the object store, or both.
    #[arg(
        long,
        env = "CARNAX_ROLES",
        value_name = "ROLE,…",
        value_delimiter = ',',
        default_value = "serve,maintain"
    )]
    pub roles: Vec<Role>,
    /// The URL of the SQS queue that says when there is maintenance to do; without one the frontend asks the metadata core.
    #[arg(long, env = "CARNAX_MAINTENANCE_QUEUE", value_name = "URL")]
    pub maintenance_queue: Option<String>,
    /// Who has to show an access token: by default everybody, but on a loopback address only once the cluster has a token.
    #[arg(long, env = "CARNAX_ACCESS", value_name = "RULE")]
    pub access: Option<AccessRule>,
    /// How records become segments.
    #[command(flatten)]
    pub append: AppendSettings,
    /// How records are read.
    #[command(flatten)]
    pub fetch: FetchSettings,
    /// How metadata nodes are called.
    #[command(flatten)]
    pub calls: CallSettings,
    /// How connections are served.
    #[command(flatten)]
    pub http: HttpSettings,
    /// The certificate that clients see.
    #[command(flatten)]
    pub https: HttpsSettings,
    /// The certificate that metadata nodes see.
    #[command(flatten)]
    pub tls: ClusterTlsSettings,
    /// Whether commits are watched only while somebody waits for one, so that nothing goes on between two requests: for
    /// places where a process stands still then.
    #[arg(skip)]
    pub watch_while_waited: bool,
    /// Queues that are polled, whose messages become records.
    #[arg(skip)]
    pub ingest: Option<IngestRules>,
    /// Mistakes for the simulation.
    #[arg(skip)]
    pub deliberate_bugs: DeliberateBugs,
}

/// How records become segments.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Append")]
pub struct AppendSettings {
    /// Bytes at which a segment is closed.
    #[arg(long, env = "CARNAX_SEGMENT_BYTES", value_name = "BYTES", default_value = "8MiB", value_parser = parse_segment_bytes)]
    pub segment_bytes: u64,
    /// How long a segment stays open, in milliseconds; 0 closes it as soon as it can be uploaded.
    #[arg(long = "linger-ms", env = "CARNAX_LINGER_MS", value_name = "MS", default_value = "250", value_parser = parse_millis)]
    pub linger: Duration,
    /// Segments that are uploaded at the same time.
    #[arg(long, env = "CARNAX_UPLOADS_MAX", value_name = "N", default_value = "8", value_parser = parse_count)]
    pub uploads_max: usize,
    /// How long the upload of a segment may take, in milliseconds.
    #[arg(long = "upload-deadline-ms", env = "CARNAX_UPLOAD_DEADLINE_MS", value_name = "MS", default_value = "10000", value_parser = parse_millis)]
    pub upload_deadline: Duration,
    /// How long a segment commit is tried, in milliseconds.
    #[arg(long = "commit-deadline-ms", env = "CARNAX_COMMIT_DEADLINE_MS", value_name = "MS", default_value = "8000", value_parser = parse_millis)]
    pub commit_deadline: Duration,
    /// How long a producer's request waits for the one before it that is still on its way, in milliseconds.
    #[arg(long = "sequence-hold-ms", env = "CARNAX_SEQUENCE_HOLD_MS", value_name = "MS", default_value = "200", value_parser = parse_millis)]
    pub sequence_hold: Duration,
    /// Bytes of appends in progress, beyond which new ones are answered 429.
    #[arg(long, env = "CARNAX_APPEND_MEMORY_BYTES", value_name = "BYTES", default_value = "256MiB", value_parser = parse_bytes)]
    pub append_memory_bytes: u64,
}

/// How records are read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fetch")]
pub struct FetchSettings {
    /// Bytes of objects that are kept in memory.
    #[arg(long, env = "CARNAX_CACHE_BYTES", value_name = "BYTES", default_value = "256MiB", value_parser = parse_bytes)]
    pub cache_bytes: u64,
    /// Bytes of fetches in progress, beyond which new ones are answered 429.
    #[arg(long, env = "CARNAX_FETCH_MEMORY_BYTES", value_name = "BYTES", default_value = "256MiB", value_parser = parse_bytes)]
    pub fetch_memory_bytes: u64,
    /// Reads of the object store at the same time for readers at the end of their partition.
    #[arg(long, env = "CARNAX_TAIL_READS_MAX", value_name = "N", default_value = "32", value_parser = parse_count)]
    pub tail_reads_max: usize,
    /// Reads of the object store at the same time for readers that lag behind.
    #[arg(long, env = "CARNAX_LAGGING_READS_MAX", value_name = "N", default_value = "16", value_parser = parse_count)]
    pub lagging_reads_max: usize,
    /// How long one read of the object store may take, in milliseconds.
    #[arg(long = "read-deadline-ms", env = "CARNAX_READ_DEADLINE_MS", value_name = "MS", default_value = "10000", value_parser = parse_millis)]
    pub read_deadline: Duration,
    /// How often a silent stream of events sends a comment, in milliseconds.
    #[arg(long = "stream-heartbeat-ms", env = "CARNAX_STREAM_HEARTBEAT_MS", value_name = "MS", default_value = "15000", value_parser = parse_millis)]
    pub stream_heartbeat: Duration,
}

/// How metadata nodes are called.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Metadata")]
pub struct CallSettings {
    /// How long a question may take over all nodes, in milliseconds.
    #[arg(long = "metadata-deadline-ms", env = "CARNAX_METADATA_DEADLINE_MS", value_name = "MS", default_value = "8000", value_parser = parse_millis)]
    pub deadline: Duration,
    /// How long one node may take before the next one is asked, in milliseconds.
    #[arg(long = "metadata-try-ms", env = "CARNAX_METADATA_TRY_MS", value_name = "MS", default_value = "2000", value_parser = parse_millis)]
    pub try_timeout: Duration,
    /// How old what is known of a topic may be, in milliseconds.
    #[arg(long = "topic-cache-ms", env = "CARNAX_TOPIC_CACHE_MS", value_name = "MS", default_value = "10000", value_parser = parse_millis)]
    pub topic_cache: Duration,
}

/// How connections are served.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// Connections at the same time; one more is answered 503.
    #[arg(long, env = "CARNAX_CONNECTIONS_MAX", value_name = "N", default_value = "10000", value_parser = parse_count)]
    pub connections_max: usize,
    /// Bytes of a request body.
    #[arg(long, env = "CARNAX_BODY_BYTES_MAX", value_name = "BYTES", default_value = "16MiB", value_parser = parse_body_bytes)]
    pub body_bytes_max: u64,
    /// How long a request's header may take to arrive, in milliseconds; idle connections live as long.
    #[arg(long = "header-timeout-ms", env = "CARNAX_HEADER_TIMEOUT_MS", value_name = "MS", default_value = "60000", value_parser = parse_millis)]
    pub header_timeout: Duration,
    /// How long a request's body may take to arrive, in milliseconds.
    #[arg(long = "body-timeout-ms", env = "CARNAX_BODY_TIMEOUT_MS", value_name = "MS", default_value = "30000", value_parser = parse_millis)]
    pub body_timeout: Duration,
    /// How long a client may take no bytes of an answer that waits for it, in milliseconds; silent streams may go on.
    #[arg(long = "write-timeout-ms", env = "CARNAX_WRITE_TIMEOUT_MS", value_name = "MS", default_value = "30000", value_parser = parse_millis)]
    pub write_timeout: Duration,
    /// How long requests in progress may take once the frontend is told to stop, in milliseconds.
    #[arg(long = "drain-ms", env = "CARNAX_DRAIN_MS", value_name = "MS", default_value = "30000", value_parser = parse_millis)]
    pub drain: Duration,
}

impl Settings {
    /// Defaults with what has none; environment variables play no part.
    ///
    /// # Panics
    /// Never: the defaults are valid, and the arguments are taken as they are.
    pub fn new(metadata: Vec<String>, object_store: ObjectStoreUrl) -> Self {
        let command = Self::augment_args(Command::new("carnax-frontend"));
        let command = command.mut_args(|argument| argument.env(None::<&str>));
        let arguments = ["carnax-frontend", "--metadata", "127.0.0.1:1", "--object-store", "memory://unset"];
        let matches = command.try_get_matches_from(arguments).expect("defaults are valid");
        let defaults = Self::from_arg_matches(&matches).expect("defaults are valid");
        Self { metadata, object_store, ..defaults }
    }

    /// The rule that holds on the address listened on; none where it forbids itself.
    pub(crate) fn access_rule(&self) -> Option<Rule> {
        match (self.access, is_loopback(&self.listen)) {
            (Some(AccessRule::Tokens), _) | (None, false) => Some(Rule::Everybody),
            (None, true) => Some(Rule::WhereThereAreTokens),
            (Some(AccessRule::Open), true) | (Some(AccessRule::OpenToTheNetwork), _) => Some(Rule::Nobody),
            (Some(AccessRule::Open), false) => None,
        }
    }

    /// The least memory for appends: JSON is held twice, as it came and as records.
    pub(crate) fn append_memory_bytes_min(&self) -> u64 {
        self.http.body_bytes_max.saturating_mul(2)
    }
}

fn parse_millis(text: &str) -> Result<Duration, String> {
    let millis: u64 = text.parse().map_err(|_| "a whole number of milliseconds".to_owned())?;
    Ok(Duration::from_millis(millis))
}

fn parse_count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| "a whole number from 1 to 1000000".to_owned())
}

fn parse_segment_bytes(text: &str) -> Result<u64, String> {
    parse_bytes_to(text, limits::SEGMENT_BYTES_MAX)
}

fn parse_body_bytes(text: &str) -> Result<u64, String> {
    parse_bytes_to(text, limits::REQUEST_BODY_BYTES_MAX as u64)
}

fn parse_bytes_to(text: &str, limit: u64) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes <= limit { Ok(bytes) } else { Err(format!("at most {limit} bytes")) }
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, unit)))
        .unwrap_or((text, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| (1..=1 << 40).contains(bytes))
        .ok_or_else(|| "bytes from 1 to 1024GiB, as 1048576 or 1MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_design_and_sizes_take_units() {
        let settings = Settings::new(vec!["a:1".to_owned()], "memory://x".parse().unwrap());
        assert_eq!(settings.append.segment_bytes, 8 << 20);
        assert_eq!(settings.append.linger, Duration::from_millis(250));
        assert!(settings.calls.deadline < Duration::from_secs(10));
        assert!(settings.calls.try_timeout * 3 < settings.calls.deadline);
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        for wrong in ["", "x", "-1", "0", "99999999999999999999", "9999999GiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_segment_bytes("256MiB"), Ok(limits::SEGMENT_BYTES_MAX));
        assert_eq!(parse_segment_bytes("257MiB"), Err("at most 268435456 bytes".to_owned()));
        assert!(settings.append.append_memory_bytes >= settings.append_memory_bytes_min());
    }

    #[test]
    fn nobody_is_let_in_from_the_network_without_a_token_unless_it_is_said_in_words() {
        let rule = |listen: &str, access: Option<AccessRule>| {
            let mut settings = Settings::new(vec!["a:1".to_owned()], "memory://x".parse().unwrap());
            (settings.listen, settings.access) = (listen.to_owned(), access);
            settings.access_rule()
        };
        let everywhere = ["127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080", "10.0.0.1:80", "frontend:80"];
        for listen in everywhere {
            assert_eq!(rule(listen, Some(AccessRule::Tokens)), Some(Rule::Everybody), "{listen}");
            assert_eq!(rule(listen, Some(AccessRule::OpenToTheNetwork)), Some(Rule::Nobody), "{listen}");
        }
        for listen in &everywhere[1..] {
            assert_eq!(rule(listen, None), Some(Rule::Everybody), "{listen}");
            assert_eq!(rule(listen, Some(AccessRule::Open)), None, "{listen}");
        }
        for listen in ["127.0.0.1:8080", "[::1]:8080", "localhost:0"] {
            assert_eq!(rule(listen, None), Some(Rule::WhereThereAreTokens), "{listen}");
            assert_eq!(rule(listen, Some(AccessRule::Open)), Some(Rule::Nobody), "{listen}");
        }
    }

    #[test]
    fn the_command_line_lists_several_metadata_nodes() {
        let line = [
            "carnax-frontend",
            "--metadata",
            "a:1,b:2",
            "--object-store",
            "file:///tmp/x",
            "--linger-ms",
            "5",
        ];
        let settings = Options::try_parse_from(line).unwrap().settings;
        assert_eq!(settings.metadata, ["a:1", "b:2"]);
        assert_eq!(settings.append.linger, Duration::from_millis(5));
    }
}
