//! A LocalStack: one that runs already, or one that is started here, on a port of its own.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use carnax_acceptance::cluster::S3Bucket;
use carnax_acceptance::wait;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;

use crate::python;

const START: &str = include_str!("../python/start.py");

/// How long `start.py` may take to end everything.
const TERMINATION: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// LocalStack looks for the service in here and checks nothing.
const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=test/20250101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A LocalStack whose S3 answers. One that was started here ends when this is dropped.
#[derive(Debug)]
pub struct LocalStack {
    endpoint: String,
    client: Client<HttpConnector, Full<Bytes>>,
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    child: Child,
    folder: TempDir,
}

impl LocalStack {
    /// Uses the one that `LOCALSTACK_ENDPOINT` names, else starts one, and waits until it has made a bucket.
    ///
    /// # Errors
    /// If it cannot be installed or started, or does not answer in time; the error says what to do.
    pub async fn find_or_start(bucket: &str) -> Result<Self> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut localstack = match std::env::var("LOCALSTACK_ENDPOINT") {
            Ok(endpoint) => {
                Self { endpoint: endpoint.trim_end_matches('/').to_owned(), client, started: None }
            }
            Err(_) => {
                let (endpoint, started) = tokio::task::spawn_blocking(start).await??;
                Self { endpoint, client, started: Some(started) }
            }
        };
        localstack.make_bucket(bucket).await?;
        localstack.call(http::Method::DELETE, &format!("/{bucket}")).await?;
        Ok(localstack)
    }

    /// Its URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// In words, where it comes from.
    pub fn origin(&self) -> String {
        match &self.started {
            Some(started) => format!("started here in host mode, process {}", started.child.id()),
            None => "found by LOCALSTACK_ENDPOINT".to_owned(),
        }
    }

    /// Whether it was running before.
    pub fn was_found(&self) -> bool {
        self.started.is_none()
    }

    /// A bucket, by its URL, as a cluster wants to know it.
    pub fn bucket(&self, url: &str) -> S3Bucket {
        S3Bucket {
            endpoint: self.endpoint.clone(),
            url: url.to_owned(),
            access_key: "test".to_owned(),
            secret_key: "test".to_owned(),
        }
    }

    /// The keys of the first thousand objects of a bucket.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub async fn keys(&self, bucket: &str) -> Result<Vec<String>> {
        let page = self.call(http::Method::GET, &format!("/{bucket}?list-type=2")).await?;
        let keys = page.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        Ok(keys.map(|(key, _)| key.to_owned()).collect())
    }

    /// Makes an empty object.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn make_object(&self, bucket: &str, key: &str) -> Result<()> {
        self.call(http::Method::PUT, &format!("/{bucket}/{key}")).await.map(drop)
    }

    /// The names of all buckets.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn buckets(&self) -> Result<Vec<String>> {
        let page = self.call(http::Method::GET, "/").await?;
        let names = page.split("<Name>").skip(1).filter_map(|rest| rest.split_once("</Name>"));
        Ok(names.map(|(name, _)| name.to_owned()).collect())
    }

    async fn make_bucket(&mut self, bucket: &str) -> Result<()> {
        wait::until("LocalStack makes a bucket", async || {
            if let Some(started) = &mut self.started {
                started.check()?;
            }
            Ok(self.call(http::Method::PUT, &format!("/{bucket}")).await.ok())
        })
        .await
        .with_context(|| format!("no S3 answers at {}", self.endpoint))?;
        Ok(())
    }

    /// Calls a function by its URL: the status, and the body.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call_function(
        &self,
        url: &str,
        method: http::Method,
        path: &str,
        body: &str,
    ) -> Result<(http::StatusCode, String)> {
        let url: http::Uri = url.parse()?;
        let host = url.authority().context("a function's URL has a host")?;
        // Which function is meant stands in the host; its name need not be known to this machine.
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint))
            .header(http::header::HOST, host.as_str())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_owned()))?;
        self.answer(request).await.with_context(|| format!("the function at {host} does not answer"))
    }

    async fn call(&self, method: http::Method, path: &str) -> Result<String> {
        let request = http::Request::builder()
            .method(&method)
            .uri(format!("{}{path}", self.endpoint))
            .header(http::header::AUTHORIZATION, AUTHORIZATION)
            .body(Full::default())?;
        let (status, body) = self.answer(request).await.with_context(|| format!("{method} {path}"))?;
        ensure!(status.is_success(), "{method} {path} was answered with {status}: {body}");
        Ok(body)
    }

    async fn answer(&self, request: http::Request<Full<Bytes>>) -> Result<(http::StatusCode, String)> {
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        });
        let (status, body) = answer.await.context("it took too long")??;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn start() -> Result<(String, Started)> {
    let python = python::with_localstack()?;
    let folder = tempfile::Builder::new().prefix("carnax-localstack-").tempdir()?;
    let at = |name: &str| folder.path().join(name);
    for name in ["files", "temporary"] {
        std::fs::create_dir(at(name))?;
    }
    std::fs::write(at("start.py"), START)?;
    let log = File::create(at("log")).context("cannot make a log")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let programs = python.parent().context("an interpreter lies in a folder")?;
    let child = Command::new(&python)
        .arg(at("start.py"))
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display()))
        .env("LANG", "C.UTF-8")
        .env("HOME", folder.path())
        .env("TMPDIR", at("temporary"))
        .env("FILESYSTEM_ROOT", at("files"))
        // An IPv4 address in plain form is ignored, and all addresses of the machine are listened on.
        .env("GATEWAY_LISTEN", format!("[::ffff:127.0.0.1]:{port}"))
        .env("LOCALSTACK_HOST", format!("localhost:{port}"))
        // Without this it takes some containers for its own and writes to folders of the system.
        .env("OVERRIDE_IN_DOCKER", "0")
        .env("DISABLE_EVENTS", "1")
        .env("SKIP_SSL_CERT_DOWNLOAD", "1")
        .env("DNS_ADDRESS", "0")
        .env("LAMBDA_RUNTIME_EXECUTOR", "process")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start LocalStack")?;
    Ok((format!("http://127.0.0.1:{port}"), Started { child, folder }))
}

impl Started {
    fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(15)..].join("\n");
            bail!("LocalStack ended by itself with {status}; its log ends with:\n{end}");
        }
        Ok(())
    }
}

impl Drop for Started {
    /// Closing the pipe ends it; its group is killed only if that does not help, while its id cannot belong to anyone else.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > TERMINATION {
                let group = format!("kill -KILL -- -{}", self.child.id());
                // There is nobody left to tell.
                let _ = Command::new("sh").args(["-c", &group]).status();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
