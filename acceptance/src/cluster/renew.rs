//! Other builds of the servers, one server at a time.

use anyhow::Result;

use super::ProcessCluster;
use crate::binaries::Binaries;

/// One server of a cluster, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// A metadata node.
    Node(usize),
    /// A frontend.
    Frontend(usize),
}

impl ProcessCluster {
    /// Ends a server in order, and starts what these binaries are in its place, with these variables more.
    ///
    /// # Errors
    /// If it does not end as asked, or cannot be started.
    pub async fn renew(
        &mut self,
        server: Server,
        binaries: &Binaries,
        variables: &[(&'static str, String)],
    ) -> Result<()> {
        self.plan.variables = variables.to_vec();
        let environment = self.environment();
        let (process, program) = match server {
            Server::Node(place) => (&mut self.nodes[place].process, &binaries.node),
            Server::Frontend(place) => (&mut self.frontends[place].process, &binaries.frontend),
        };
        if process.should_run() {
            process.terminate().await?;
        }
        process.replace(program, environment);
        process.start()
    }
}
