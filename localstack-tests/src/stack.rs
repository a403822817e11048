//! LocalStack, what the templates make in it, and a cluster that keeps its records there.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use carnax_acceptance::binaries::Binaries;
use carnax_acceptance::cluster::{Plan, ProcessCluster};

use crate::localstack::LocalStack;
use crate::templates::{Outputs, Templates};

const FRONTENDS: usize = 2;

/// All of it. Everything that was started ends when this is dropped, the cluster before what it stands on.
#[derive(Debug)]
pub struct Stack {
    /// Metadata nodes and frontends.
    pub cluster: ProcessCluster,
    /// Bucket, queues, functions.
    pub outputs: Outputs,
    /// What made them.
    pub templates: Made,
    /// Where they are.
    pub localstack: LocalStack,
}

/// Templates that were applied. In a LocalStack that was there before, what they made is taken away when this is dropped.
#[derive(Debug)]
pub struct Made {
    /// The templates.
    pub templates: Templates,
    destroy: bool,
}

impl Stack {
    /// Builds what is missing, and waits until everything is ready.
    ///
    /// # Errors
    /// If anything does not start.
    pub async fn start() -> Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let name = format!("carnax-{}-{}", std::process::id(), now.as_millis() % 100_000);
        let binaries = tokio::task::spawn_blocking(Binaries::of_this_build).await??;
        let localstack = LocalStack::find_or_start(&name).await?;
        let (endpoint, destroy) = (localstack.endpoint().to_owned(), localstack.was_found());
        let (made, outputs) = blocking(move || {
            let mut made = Made { templates: Templates::new(&endpoint, &name)?, destroy };
            let outputs = made.templates.apply_storage_and_queues()?;
            Ok((made, outputs))
        })
        .await?;
        let plan = Plan {
            bucket: Some(localstack.bucket(&outputs.object_store)),
            binaries,
            linger: Duration::from_millis(5),
            frontends: FRONTENDS,
            sqs_endpoint: None,
            maintenance_queue: outputs.maintenance_queue.map(|queue| queue.url),
            certificates: None,
            variables: Vec::new(),
        };
        let cluster = ProcessCluster::start(&plan).await?;
        let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address.clone()).collect();
        let (templates, outputs) = blocking(move || {
            let mut made = made;
            let outputs = made.templates.apply(&addresses)?;
            Ok((made, outputs))
        })
        .await?;
        Ok(Self { cluster, outputs, templates, localstack })
    }
}

impl Made {
    /// Takes away what was made.
    ///
    /// # Errors
    /// If Terraform fails.
    pub fn destroy(&mut self) -> Result<()> {
        self.destroy = false;
        self.templates.destroy()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.destroy {
            // There is nobody left to tell.
            let _ = self.templates.destroy();
        }
    }
}

/// Terraform takes its time.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}
