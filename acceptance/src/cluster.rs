//! All processes of a cluster: three metadata nodes and frontends, on an S3 server that lives in this process or elsewhere.

pub mod renew;
mod restore;
mod verify;

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use carnax::{Client, RetrySettings};
use carnax_core::metadata::{ClusterStatus, NodeRole};
use carnax_object_store::{ObjectStoreUrl, S3Settings, S3Store};
use carnax_s3_test_server::{ACCESS_KEY, BUCKET, S3TestServer, SECRET_KEY};
use tempfile::TempDir;

use crate::binaries::Binaries;
use crate::certificates::{self, Certificates};
use crate::process::Process;
use crate::wait;

/// Metadata nodes of a cluster.
pub const NODES: usize = 3;

/// Below the ports that systems give to outgoing connections: a node that is down must find its port free again.
const PORTS: std::ops::Range<u16> = 12_000..31_000;
const STARTS_MAX: usize = 3;

/// A bucket of an S3 server that does not live in this process.
#[derive(Debug, Clone)]
pub struct S3Bucket {
    /// URL of the server; buckets are named in paths.
    pub endpoint: String,
    /// The bucket and what all keys begin with: s3://bucket/prefix.
    pub url: String,
    /// Who asks.
    pub access_key: String,
    /// And proves it.
    pub secret_key: String,
}

/// What is configured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where records are to live; none for a server in this process.
    pub bucket: Option<S3Bucket>,
    /// The servers.
    pub binaries: Binaries,
    /// `--linger-ms` of the frontends.
    pub linger: Duration,
    /// Frontends that know all nodes.
    pub frontends: usize,
    /// URL of the SQS server that the metadata nodes tell of commits, if it is not that of the bucket.
    pub sqs_endpoint: Option<String>,
    /// URL of the queue that is told of maintenance, for workers elsewhere; without one the frontends maintain the log.
    pub maintenance_queue: Option<String>,
    /// What servers show each other and their clients; none for plain HTTP.
    pub certificates: Option<Certificates>,
    /// More variables of every server.
    pub variables: Vec<(&'static str, String)>,
}

impl Plan {
    /// Two frontends that linger little, on a store in this process.
    pub fn new(binaries: &Binaries) -> Self {
        Self {
            bucket: None,
            binaries: binaries.clone(),
            linger: Duration::from_millis(5),
            frontends: 2,
            sqs_endpoint: None,
            maintenance_queue: None,
            certificates: None,
            variables: Vec::new(),
        }
    }
}

/// A metadata node and its disk.
#[derive(Debug)]
pub struct MetadataNode {
    /// It.
    pub process: Process,
    /// Where other nodes and frontends reach it.
    pub address: String,
    /// Where it tells how it is.
    pub http: String,
    disk: PathBuf,
}

/// A frontend.
#[derive(Debug)]
pub struct Frontend {
    /// It.
    pub process: Process,
    /// Where clients reach it.
    pub address: String,
}

/// A running cluster. All its processes end when this is dropped; their logs stay unless [`end`](Self::end) was reached.
#[derive(Debug)]
pub struct ProcessCluster {
    /// Metadata nodes.
    pub nodes: Vec<MetadataNode>,
    /// Frontends.
    pub frontends: Vec<Frontend>,
    /// Processes that are clients.
    pub others: Vec<Process>,
    /// The object store, if it lives in this process.
    pub store: Option<S3TestServer>,
    bucket: S3Bucket,
    plan: Plan,
    /// None once it is kept.
    folder: Option<TempDir>,
    ended_well: bool,
}

impl ProcessCluster {
    /// Starts all processes, and waits until all are ready and all nodes vote.
    ///
    /// # Errors
    /// If a process ends by itself, or nothing is ready in time.
    pub async fn start(plan: &Plan) -> Result<Self> {
        for _ in 1..STARTS_MAX {
            let mut cluster = Self::new(plan).await?;
            match cluster.start_all().await {
                // Somebody was faster to take a port that was seen free.
                Err(error) if format!("{error:#}").contains("in use") => cluster.ended_well = true,
                Err(error) => return Err(error),
                Ok(()) => return Ok(cluster),
            }
        }
        let mut cluster = Self::new(plan).await?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    async fn new(plan: &Plan) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("carnax-acceptance-").tempdir()?;
        let (store, bucket) = match &plan.bucket {
            Some(bucket) => (None, bucket.clone()),
            None => {
                let store = S3TestServer::start().await;
                let bucket = bucket_of(&store);
                (Some(store), bucket)
            }
        };
        let mut cluster = Self {
            nodes: Vec::new(),
            frontends: Vec::new(),
            others: Vec::new(),
            store,
            bucket,
            plan: plan.clone(),
            folder: Some(folder),
            ended_well: false,
        };
        let ports = free_ports(2 * NODES)?;
        let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let (rpc, http) = addresses.split_at(NODES);
        for (number, (address, http)) in rpc.iter().zip(http).enumerate() {
            let node = cluster.node(number, address, http, rpc)?;
            cluster.nodes.push(node);
        }
        for _ in 0..plan.frontends {
            cluster.add_frontend(rpc)?;
        }
        Ok(cluster)
    }

    fn node(&self, number: usize, address: &str, http: &str, bootstrap: &[String]) -> Result<MetadataNode> {
        let name = format!("node-{number}");
        let disk = self.folder()?.join(format!("{name}-disk"));
        let mut arguments = vec![
            ("--node-listen", address.to_owned()),
            ("--http-listen", http.to_owned()),
            ("--dir", disk.display().to_string()),
            ("--bootstrap", bootstrap.join(",")),
        ];
        arguments.extend(self.plan.certificates.iter().flat_map(Certificates::node_flags));
        let process = self.process(&name, &self.plan.binaries.node, &arguments)?;
        Ok(MetadataNode { process, address: address.to_owned(), http: http.to_owned(), disk })
    }

    /// Adds a frontend that asks these metadata nodes, and gives its place; it does not run yet.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn add_frontend(&mut self, metadata: &[String]) -> Result<usize> {
        let number = self.frontends.len();
        let address = format!("127.0.0.1:{}", free_ports(1)?[0]);
        let mut arguments = vec![
            ("--listen", address.clone()),
            ("--metadata", metadata.join(",")),
            ("--linger-ms", self.plan.linger.as_millis().to_string()),
        ];
        arguments.extend(self.plan.certificates.iter().flat_map(Certificates::frontend_flags));
        let name = format!("frontend-{number}");
        let process = self.process(&name, &self.plan.binaries.frontend, &arguments)?;
        self.frontends.push(Frontend { process, address });
        Ok(number)
    }

    /// Starts a process that is a client.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_other(
        &mut self,
        name: &str,
        program: &std::path::Path,
        flags: &[(&str, String)],
    ) -> Result<()> {
        let flags = flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
        let mut process = Process::new(name, program, flags.collect(), Vec::new(), self.folder()?);
        process.start()?;
        self.others.push(process);
        Ok(())
    }

    fn process(&self, name: &str, program: &std::path::Path, flags: &[(&str, String)]) -> Result<Process> {
        let mut arguments: Vec<String> =
            flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]).collect();
        let object_store = self.object_store().to_owned();
        arguments.extend(["--object-store".to_owned(), object_store, "--s3-path-style".to_owned()]);
        Ok(Process::new(name, program, arguments, self.environment(), self.folder()?))
    }

    /// The URL of the object store.
    pub fn object_store(&self) -> &str {
        &self.bucket.url
    }

    /// The object store, as the servers see it.
    ///
    /// # Errors
    /// None that can happen.
    pub async fn open_object_store(&self) -> Result<S3Store> {
        let S3Bucket { endpoint, url, access_key, secret_key } = &self.bucket;
        let ObjectStoreUrl::S3 { bucket, prefix } = url.parse()? else { bail!("{url} is not a bucket") };
        Ok(S3Store::open(&bucket, &prefix, S3Settings::fixed(endpoint, access_key, secret_key)).await)
    }

    /// The variables of every server.
    pub fn environment(&self) -> Vec<(String, String)> {
        let sqs = self.plan.sqs_endpoint.as_deref().map(|endpoint| ("AWS_ENDPOINT_URL_SQS", endpoint));
        let environment = [
            // Of S3, and of SQS where the same server has it.
            ("AWS_ENDPOINT_URL", self.bucket.endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", &self.bucket.access_key),
            ("AWS_SECRET_ACCESS_KEY", &self.bucket.secret_key),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("RUST_BACKTRACE", "1"),
            ("CARNAX_LOG", "info"),
            // So that what is lost with all metadata disks is seen to be little, and that a cluster is soon idle.
            ("CARNAX_BACKUP_INTERVAL_MS", "500"),
            ("NO_COLOR", "1"),
        ];
        let queue = self.plan.maintenance_queue.as_deref();
        let maintained_elsewhere =
            queue.map(|url| [("CARNAX_MAINTENANCE_QUEUE", url), ("CARNAX_ROLES", "serve")]);
        let more = self.plan.variables.iter().map(|(name, value)| (*name, value.as_str()));
        let environment =
            environment.into_iter().chain(sqs).chain(maintained_elsewhere.into_iter().flatten()).chain(more);
        environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Where a process writes its log that is started elsewhere for this cluster.
    ///
    /// # Errors
    /// None that can happen.
    pub fn log_of(&self, name: &str) -> Result<PathBuf> {
        Ok(self.folder()?.join(format!("{name}.log")))
    }

    fn folder(&self) -> Result<&std::path::Path> {
        Ok(self.folder.as_ref().context("the folder is there as long as the cluster")?.path())
    }

    /// Starts every process that does not run, and waits until all are ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_all(&mut self) -> Result<()> {
        for process in self.processes().filter(|process| !process.should_run()) {
            process.start()?;
        }
        self.wait_for_voters().await?;
        self.wait_ready().await
    }

    /// All processes.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let nodes = self.nodes.iter_mut().map(|node| &mut node.process);
        nodes.chain(self.frontends.iter_mut().map(|frontend| &mut frontend.process)).chain(&mut self.others)
    }

    /// Waits until every process that should run says that it is ready.
    ///
    /// # Errors
    /// If one ends by itself or is not ready in time.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let certificates = self.plan.certificates.clone();
        let nodes = self.nodes.iter().map(|node| (&node.process, &node.http, None));
        let frontends = self.frontends.iter();
        let frontends =
            frontends.map(|frontend| (&frontend.process, &frontend.address, certificates.as_ref()));
        let running = nodes.chain(frontends).filter(|(process, ..)| process.should_run());
        let waiting: Vec<(String, String, Option<&Certificates>)> = running
            .map(|(process, address, secure)| (process.name().to_owned(), address.clone(), secure))
            .collect();
        for (name, address, secure) in waiting {
            wait::until(&format!("{name} is ready"), async || {
                self.processes().try_for_each(Process::check)?;
                Ok(is_ready(&address, secure).await?.then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until a leader says that all nodes vote and nobody else is left.
    ///
    /// # Errors
    /// As [`wait_ready`](Self::wait_ready).
    pub async fn wait_for_voters(&mut self) -> Result<ClusterStatus> {
        let leads_all = |status: &ClusterStatus| {
            let voters = status.nodes.iter().filter(|node| node.role == NodeRole::Voter).count();
            status.leader.is_some()
                && status.leader == status.answered_by
                && voters == NODES
                && status.nodes.len() == NODES
        };
        self.wait_for_status("all nodes vote", leads_all).await
    }

    /// The place of the node that leads, once a running node says that it does.
    ///
    /// # Errors
    /// As [`wait_ready`](Self::wait_ready).
    pub async fn leader(&mut self) -> Result<usize> {
        let leads = |status: &ClusterStatus| status.leader.is_some() && status.leader == status.answered_by;
        let status = self.wait_for_status("a node leads", leads).await?;
        let leader = status.nodes.iter().find(|node| Some(node.node) == status.leader);
        let address = &leader.context("the leader is a member")?.address;
        let place = self.nodes.iter().position(|node| node.address == *address);
        place.with_context(|| format!("no node listens at {address}"))
    }

    async fn wait_for_status(
        &mut self,
        what: &str,
        holds: impl Fn(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus> {
        wait::until(what, async || {
            self.processes().try_for_each(Process::check)?;
            for node in self.nodes.iter().filter(|node| node.process.should_run()) {
                let Some((200, body)) = wait::get(&node.http, "/v1/cluster").await else { continue };
                let status: ClusterStatus = serde_json::from_str(&body).context("status of a cluster")?;
                if holds(&status) {
                    return Ok(Some(status));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Empties the disk of a node that does not run.
    ///
    /// # Errors
    /// If it runs.
    pub fn wipe_disk(&mut self, node: usize) -> Result<()> {
        let node = &self.nodes[node];
        ensure!(!node.process.should_run(), "{} runs", node.process.name());
        std::fs::remove_dir_all(&node.disk).context("cannot wipe a disk")?;
        tracing::info!(process = node.process.name(), "disk wiped");
        Ok(())
    }

    /// A client of these frontends, the first one first.
    ///
    /// # Errors
    /// None that can happen.
    pub fn client(&self, frontends: &[usize]) -> Result<Client> {
        let addresses: Vec<String> =
            frontends.iter().map(|place| self.frontends[*place].address.clone()).collect();
        let builder = match &self.plan.certificates {
            Some(certificates) => Certificates::client(&addresses, certificates.authorities()?)?,
            None => Client::builder().endpoints(addresses.iter().map(|address| format!("http://{address}"))),
        };
        Ok(builder.endpoint_rest(Duration::from_secs(2)).build()?)
    }

    /// A client of one frontend that never tries anything twice.
    ///
    /// # Errors
    /// None that can happen.
    pub fn one_try_client(&self, frontend: usize) -> Result<Client> {
        let longer_than_any_call = Duration::from_secs(600);
        let retry = RetrySettings { backoff_min: longer_than_any_call, backoff_max: longer_than_any_call };
        let endpoint = format!("http://{}", self.frontends[frontend].address);
        Ok(Client::builder().endpoints([endpoint]).retry(retry).build()?)
    }

    /// Checks that every process that should run does and that none ever panicked; then ends them, and throws the logs away.
    ///
    /// # Errors
    /// If one did not live well.
    pub fn end(mut self) -> Result<()> {
        for process in self.processes() {
            process.check()?;
            if let Some((_, panic)) = process.log().split_once("panicked at") {
                bail!(
                    "{} panicked at {}",
                    process.name(),
                    panic.lines().take(5).collect::<Vec<_>>().join("\n")
                );
            }
        }
        self.ended_well = true;
        Ok(())
    }
}

impl Drop for ProcessCluster {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take().filter(|_| !self.ended_well) {
            let kept = folder.keep();
            // Where standard error is closed, nobody wants to know.
            let _ = writeln!(std::io::stderr(), "logs and disks are kept in {}", kept.display());
        }
    }
}

async fn is_ready(address: &str, secure: Option<&Certificates>) -> Result<bool> {
    match secure {
        Some(files) => Ok(certificates::get(address, "/readyz", &files.authorities()?).await.is_ok()),
        None => Ok(wait::get(address, "/readyz").await.is_some_and(|(status, _)| status == 200)),
    }
}

fn bucket_of(store: &S3TestServer) -> S3Bucket {
    S3Bucket {
        endpoint: store.endpoint(),
        url: format!("s3://{BUCKET}/acceptance"),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
    }
}

/// Free ports. They are bound together, so that they differ, and released.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let width = u64::from(PORTS.end - PORTS.start);
    let start = u16::try_from(RandomState::new().hash_one(std::process::id()) % width)?;
    let candidates = (PORTS.start + start..PORTS.end).chain(PORTS.start..PORTS.start + start);
    let bound: Vec<TcpListener> =
        candidates.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    ensure!(bound.len() == count, "no free ports on loopback");
    bound.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
