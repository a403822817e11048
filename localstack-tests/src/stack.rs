//! LocalStack, a bucket in it, and a cluster that keeps its records there.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use carnax_acceptance::binaries::Binaries;
use carnax_acceptance::cluster::{Plan, ProcessCluster};

use crate::localstack::LocalStack;

const FRONTENDS: usize = 2;

/// All of it. Everything that was started ends when this is dropped, the cluster before what it stands on.
#[derive(Debug)]
pub struct Stack {
    /// Metadata nodes and frontends.
    pub cluster: ProcessCluster,
    /// Where the records live.
    pub localstack: LocalStack,
    /// The bucket.
    pub bucket: String,
}

impl Stack {
    /// Builds what is missing, and waits until everything is ready.
    ///
    /// # Errors
    /// If anything does not start.
    pub async fn start() -> Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let bucket = format!("carnax-{}-{}", std::process::id(), now.as_millis());
        let binaries = tokio::task::spawn_blocking(Binaries::of_this_build).await??;
        let localstack = LocalStack::find_or_start(&bucket).await?;
        let plan = Plan {
            bucket: Some(localstack.bucket(&bucket)),
            binaries,
            linger: Duration::from_millis(5),
            frontends: FRONTENDS,
        };
        let cluster = ProcessCluster::start(&plan).await?;
        Ok(Self { cluster, localstack, bucket })
    }
}
