//! How a node with an empty disk gets an identity: it starts the cluster, or is let into it.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, NodeId};
use carnax_core::metadata::{AddNode, MembershipChanged};
use carnax_metadata_state::FeatureLevel;
use carnax_object_store::ObjectStoreError;
use carnax_platform::network::Network;
use carnax_platform::rpc::{CallError, Channel, ChannelSettings};

use crate::bootstrap::{self, BootstrapDocument, BootstrapError, Claim};
use crate::identity::Identity;
use crate::run::{Components, RunError};

/// How long one node may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks the bucket, then the cluster, until this disk has an identity. Safe to drop and to repeat.
pub(crate) async fn identity(
    components: &Components,
    listed: &[String],
    advertised: &str,
    (disk, level_max): (u128, FeatureLevel),
) -> Result<Identity, RunError> {
    let wanted = listed.iter().any(|address| address == advertised).then(|| {
        let now = components.clock.wall();
        let cluster = ClusterId::from_parts(now, components.entropy.next_u128());
        bootstrap::new_document(cluster, disk, advertised, listed, now)
    });
    let mut said = String::new();
    loop {
        let waits_for = match bootstrap::claim(&*components.object_store, wanted.clone(), disk).await {
            Ok(Claim::Won(document)) => return found(components, document).await,
            Ok(Claim::Taken(document)) => {
                match join(components, listed, &document, advertised, (disk, level_max)).await {
                    Ok(identity) => return Ok(identity),
                    Err(reason) => reason,
                }
            }
            Ok(Claim::Absent) => {
                "no cluster exists in this object store, and this node is not on the bootstrap list \
                                  of one (--bootstrap with its own address among them)"
                    .to_owned()
            }
            Err(BootstrapError::ObjectStore(error)) if error.is_transient() => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        if waits_for != said {
            tracing::info!(reason = %waits_for, "node waits to join");
            said = waits_for;
        }
        tokio::time::sleep(bootstrap::RETRY).await;
    }
}

async fn found(components: &Components, document: BootstrapDocument) -> Result<Identity, RunError> {
    loop {
        match bootstrap::write_incarnation(&*components.object_store, &document).await {
            Ok(()) => break,
            Err(BootstrapError::ObjectStore(error)) if retried(&error) => {
                tracing::info!(%error, "incarnation cannot be written yet");
                tokio::time::sleep(bootstrap::RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let (cluster, incarnation) = (document.cluster, document.incarnation);
    Ok(Identity { cluster, incarnation, node: NodeId(1), bootstrap: Some(document) })
}

fn retried(error: &ObjectStoreError) -> bool {
    error.is_transient()
}

/// Asks every node that might lead, or know who does.
async fn join(
    components: &Components,
    listed: &[String],
    document: &BootstrapDocument,
    advertised: &str,
    (disk, level_max): (u128, FeatureLevel),
) -> Result<Identity, String> {
    let mut addresses: Vec<String> = vec![document.address.clone()];
    addresses.extend(document.voters.iter().chain(listed).cloned());
    let mut asked: Vec<String> = Vec::new();
    let mut reason = "no node of the cluster is known".to_owned();
    while let Some(address) = addresses.pop() {
        if address == advertised || asked.contains(&address) {
            continue;
        }
        asked.push(address.clone());
        match ask(components, &address, advertised, (disk, level_max)).await {
            Ok(joined) => {
                let (cluster, incarnation) = (document.cluster, document.incarnation);
                return Ok(Identity { cluster, incarnation, node: joined.node, bootstrap: None });
            }
            Err(error) => {
                reason = error.to_string();
                if let CallError::Refused(problem) = error
                    && problem.code == ErrorCode::NotLeader
                {
                    addresses.extend(problem.facts.leader_address);
                }
            }
        }
    }
    Err(reason)
}

async fn ask(
    components: &Components,
    address: &str,
    advertised: &str,
    (disk, level_max): (u128, FeatureLevel),
) -> Result<MembershipChanged, CallError> {
    let network: Arc<dyn Network> = Arc::clone(&components.network);
    let channel = Channel::new(network, address, &ChannelSettings::default())
        .map_err(|error| CallError::NotSent { address: address.to_owned(), reason: error.to_string() })?;
    let request = AddNode {
        address: advertised.to_owned(),
        disk: Some(disk),
        promote: false,
        level_max: Some(level_max.0),
    };
    channel.call(request, DEADLINE).await
}
