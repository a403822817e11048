//! The client: where it finds the queue and who it says it is.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::{Builder, tls};

use crate::error::Failure;
use crate::limits;

/// A request that cannot even connect for so long fails.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Connections kept open while nothing is asked.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// Servers that are not Amazon's take any region; this one is what they expect if they check signatures.
const REGION_DEFAULT: &str = "us-east-1";

/// How to reach a queue, and with how much patience.
#[derive(Debug, Clone)]
pub struct SqsSettings {
    /// How long a request may take, beside the wait of a receive.
    pub try_time: Duration,
    /// Where to go and with which credentials, instead of what the environment says.
    fixed: Option<(String, Credentials)>,
}

impl Default for SqsSettings {
    fn default() -> Self {
        Self { try_time: Duration::from_secs(10), fixed: None }
    }
}

impl SqsSettings {
    /// For tests and tools: an endpoint URL and credentials that do not come from the environment.
    pub fn fixed(endpoint: &str, access_key_id: &str, secret_access_key: &str) -> Self {
        let credentials = Credentials::builder()
            .access_key_id(access_key_id)
            .secret_access_key(secret_access_key)
            .provider_name("fixed")
            .build();
        Self { fixed: Some((endpoint.to_owned(), credentials)), ..Self::default() }
    }
}

pub(super) fn check_url(url: &str) -> Result<(), Failure> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match rest.and_then(|rest| rest.rsplit_once('/')) {
        Some((place, name)) if !place.is_empty() => limits::check_queue_name(name),
        _ => Err(Failure::invalid("a queue's URL is http(s)://HOST/ACCOUNT/NAME")),
    }
}

pub(super) async fn client(url: &str, settings: &SqsSettings) -> Client {
    let http = Builder::new()
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let shared = match &settings.fixed {
        Some((endpoint, credentials)) => fixed(http, endpoint, credentials.clone()),
        None => environment(http, url).await,
    };
    let config = aws_sdk_sqs::config::Builder::from(&shared)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIME_MAX).build())
        // Every call has a deadline of its own; a receive that waits is not a stalled one.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build();
    Client::from_conf(config)
}

async fn environment(http: SharedHttpClient, url: &str) -> SdkConfig {
    // Without the SDK's last resort, which asks the machine's metadata service: to open a queue asks nobody.
    let region = RegionProviderChain::first_try(region_of(url))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(Region::from_static(REGION_DEFAULT));
    aws_config::defaults(BehaviorVersion::latest()).http_client(http).region(region).load().await
}

/// The region in the URL of a queue of Amazon's.
fn region_of(url: &str) -> Option<Region> {
    let host = url.split_once("://")?.1.split_once('/')?.0;
    let (region, rest) = host.strip_prefix("sqs.")?.split_once('.')?;
    rest.starts_with("amazonaws.com").then(|| Region::new(region.to_owned()))
}

fn fixed(http: SharedHttpClient, endpoint: &str, credentials: Credentials) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .sleep_impl(aws_sdk_sqs::config::SharedAsyncSleep::new(TokioSleep))
        .region(Region::from_static(REGION_DEFAULT))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// Lets the SDK's few waits follow tokio's clock.
#[derive(Debug)]
struct TokioSleep;

impl aws_sdk_sqs::config::AsyncSleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> aws_sdk_sqs::config::Sleep {
        aws_sdk_sqs::config::Sleep::new(tokio::time::sleep(duration))
    }
}

#[test]
fn the_region_of_a_queue_stands_in_its_url() {
    let region = |url| region_of(url).map(|region| region.to_string());
    assert_eq!(region("https://sqs.eu-west-1.amazonaws.com/1/q").as_deref(), Some("eu-west-1"));
    assert_eq!(region("https://sqs.cn-north-1.amazonaws.com.cn/1/q").as_deref(), Some("cn-north-1"));
    assert_eq!(region("http://127.0.0.1:4566/000000000000/q"), None);
    assert_eq!(region("https://sqs.eu-west-1.example.com/1/q"), None);
    for bad in ["", "q", "sqs://h/q", "https://h", "https:///q", "https://h/1/", "https://h/1/a b"] {
        assert!(check_url(bad).is_err(), "{bad:?}");
    }
    check_url("http://127.0.0.1:4566/000000000000/orders.fifo").expect("a queue's URL");
}
