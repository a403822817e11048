//! Losing all metadata nodes, and starting again from the bucket.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{MetadataNode, ProcessCluster, free_ports};
use crate::process::Process;

/// Longer than the interval of the archive in these clusters.
const SETTLE_MS: &str = "2000";

impl ProcessCluster {
    /// Kills all metadata nodes at the same moment and empties their disks.
    ///
    /// # Errors
    /// If one does not run.
    pub fn lose_all_nodes(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.process.send_kill()?;
        }
        for node in &mut self.nodes {
            node.process.reap();
        }
        (0..self.nodes.len()).try_for_each(|node| self.wipe_disk(node))
    }

    /// Adds a metadata node with an empty disk that is not on any list; it does not run yet. Gives its place.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn add_node(&mut self) -> Result<usize> {
        let ports = free_ports(2)?;
        let (address, http) = (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
        let number = self.nodes.len();
        let node = self.node(number, &address, &http, std::slice::from_ref(&address))?;
        self.nodes.push(node);
        Ok(number)
    }

    /// Restores from the bucket onto the empty disk of a node that does not run; gives what was printed.
    ///
    /// # Errors
    /// If nothing is restored.
    pub async fn restore(&self, node: usize, voters: usize) -> Result<Value> {
        let MetadataNode { address, disk, .. } = &self.nodes[node];
        let mut command = Command::new(&self.plan.binaries.node);
        command.args(["restore", "--output", "json", "--s3-path-style", "--settle-ms", SETTLE_MS]);
        command.args(["--object-store", self.object_store(), "--node-listen", address]);
        command.args(["--voters", &voters.to_string()]).arg("--dir").arg(disk);
        command.env_clear().envs(self.environment()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await?;
        let output = output.context("cannot start a restore")?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the restore ended with {}:\n{log}", output.status);
        serde_json::from_slice(&output.stdout).context("the report of a restore")
    }

    /// The nodes that ended by themselves since they were started; they count as stopped from now on.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn nodes_that_ended(&mut self) -> Result<Vec<usize>> {
        let mut ended = Vec::new();
        for (place, node) in self.nodes.iter_mut().enumerate() {
            if Process::has_ended(&mut node.process)? {
                ended.push(place);
            }
        }
        Ok(ended)
    }
}
