//! The frontend as a Lambda function, under an emulator of the runtime API, on a cluster.

use anyhow::Result;
use carnax_lambda_runtime_emulator::FunctionSettings;

use crate::binaries;
use crate::cluster::ProcessCluster;

/// `carnax-lambda` in the role `http`.
///
/// # Errors
/// If it cannot be built.
pub fn carnax_lambda(cluster: &ProcessCluster) -> Result<FunctionSettings> {
    let nodes: Vec<&str> = cluster.nodes.iter().map(|node| node.address.as_str()).collect();
    let mut settings = FunctionSettings::new(binaries::lambda()?)
        .variable("CARNAX_LAMBDA_ROLE", "http")
        .variable("CARNAX_METADATA", nodes.join(","))
        .variable("CARNAX_ACCESS", "open-to-the-network")
        .variable("CARNAX_OBJECT_STORE", cluster.object_store())
        .variable("CARNAX_S3_PATH_STYLE", "true");
    settings.variables.extend(cluster.environment());
    settings.log = Some(cluster.log_of("lambda")?);
    Ok(settings)
}
