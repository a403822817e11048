//! Holding the bucket against the manifests, with the command line.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ProcessCluster;
use crate::binaries;

/// As much of a report as is needed here.
#[derive(Debug, Deserialize)]
pub struct Verified {
    /// What was looked at.
    pub checked: Checked,
    /// Objects that nothing refers to, by why they are there.
    pub unreferenced: Map<String, Value>,
}

/// How much was looked at.
#[derive(Debug, Deserialize)]
pub struct Checked {
    /// Objects of records.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
}

impl ProcessCluster {
    /// Runs `carnax cluster verify --deep`.
    ///
    /// # Errors
    /// If anything is wrong with the log.
    pub async fn verify_deep(&self) -> Result<Verified> {
        let program = tokio::task::spawn_blocking(binaries::command_line).await??;
        let nodes: Vec<&str> = self.nodes.iter().map(|node| node.address.as_str()).collect();
        let mut command = Command::new(program);
        command.args(["--output", "json", "cluster", "verify", "--deep", "--s3-path-style"]);
        command.args(["--metadata", &nodes.join(","), "--object-store", self.object_store()]);
        command.env_clear().envs(self.environment()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await?;
        let output = output.context("cannot start the verification")?;
        let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the verification ended with {}:\n{log}\n{said}", output.status);
        serde_json::from_str(&said).context("the report of a verification")
    }
}
