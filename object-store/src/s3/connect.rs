//! The client: where it finds the bucket and who it says it is.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient};
use aws_smithy_http_client::{Builder, tls};

use super::count::CountingClient;
use crate::requests::RequestCounter;

/// A request that cannot even connect for so long is tried again.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Connections kept open while nothing is asked.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// Servers that are not Amazon's take any region; this one is what they expect if they check signatures.
const REGION_DEFAULT: &str = "us-east-1";

/// How to reach a bucket, and with how much patience.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Whether the bucket stands in the path rather than in the host name.
    pub path_style: bool,
    /// How often a request is tried.
    pub tries_max: u32,
    /// How long one try may take, beside a second for each MiB that it moves.
    pub try_time: Duration,
    /// Where to go and with which credentials, instead of what the environment says.
    pub(crate) fixed: Option<(String, Credentials)>,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self { path_style: false, tries_max: 6, try_time: Duration::from_secs(10), fixed: None }
    }
}

impl S3Settings {
    /// For tests and tools: an endpoint URL and credentials that do not come from the environment; path style.
    pub fn fixed(endpoint: &str, access_key_id: &str, secret_access_key: &str) -> Self {
        let credentials = Credentials::builder()
            .access_key_id(access_key_id)
            .secret_access_key(secret_access_key)
            .provider_name("fixed")
            .build();
        Self { path_style: true, fixed: Some((endpoint.to_owned(), credentials)), ..Self::default() }
    }
}

pub(super) async fn client(settings: &S3Settings, counter: &Arc<RequestCounter>) -> Client {
    let http = Builder::new()
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let counted = CountingClient { inner: http.clone(), counter: Arc::clone(counter) };
    let shared = match &settings.fixed {
        Some((endpoint, credentials)) => fixed(http, endpoint, credentials.clone()),
        None => environment(http).await,
    };
    let config = aws_sdk_s3::config::Builder::from(&shared)
        .http_client(counted)
        .force_path_style(settings.path_style)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIME_MAX).build())
        // Every try has a deadline of its own, and bodies are checked by their length and by the checksums in them.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}

async fn environment(http: SharedHttpClient) -> SdkConfig {
    let found = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
    match found.region() {
        Some(_) => found,
        None => found.into_builder().region(Region::from_static(REGION_DEFAULT)).build(),
    }
}

fn fixed(http: SharedHttpClient, endpoint: &str, credentials: Credentials) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .sleep_impl(aws_sdk_s3::config::SharedAsyncSleep::new(TokioSleep))
        .region(Region::from_static(REGION_DEFAULT))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// Lets the SDK's few waits follow tokio's clock.
#[derive(Debug)]
struct TokioSleep;

impl aws_sdk_s3::config::AsyncSleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> aws_sdk_s3::config::Sleep {
        aws_sdk_s3::config::Sleep::new(tokio::time::sleep(duration))
    }
}
