//! The cluster and its nodes: who there is, under which id, and who votes.
//!
//! Raft's own membership is the truth about votes; what is recorded here is what commands and descriptions need of it.

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, Incarnation, LogIndex, NodeId};
use carnax_core::limits;
use carnax_core::problem::Problem;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::entry::FeatureLevel;

/// A bootstrapped cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) incarnation: Incarnation,
    /// What every node of it knows.
    pub(crate) level: FeatureLevel,
    pub(crate) voters_wanted: u32,
    /// Whether the wanted number of voters was ever reached. It stays so: a cluster that later loses a node on purpose
    /// goes on.
    pub(crate) appends_open: bool,
    pub(crate) nodes: OrdMap<NodeId, Node>,
    /// The highest id ever given out.
    pub(crate) last_node: NodeId,
}

/// A metadata node that has an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where its RPC listens.
    pub address: String,
    /// The random number beside its log.
    pub disk: u128,
    /// Whether it votes.
    pub voter: bool,
}

impl Cluster {
    /// The id of the bootstrapping node.
    pub(crate) const FIRST_NODE: NodeId = NodeId(1);

    pub(crate) fn new(
        (id, incarnation): (ClusterId, Incarnation),
        level: FeatureLevel,
        voters_wanted: u32,
        address: &str,
        disk: u128,
    ) -> Result<Self, Problem> {
        check_address(address)?;
        if voters_wanted == 0 || usize::try_from(voters_wanted).is_ok_and(|wanted| wanted > limits::NODES_MAX)
        {
            let detail = format_args!("a cluster has 1 to {} voters", limits::NODES_MAX);
            return Err(Problem::new(ErrorCode::InvalidValue, detail));
        }
        let first = Node { address: address.to_owned(), disk, voter: true };
        Ok(Self {
            id,
            incarnation,
            level,
            voters_wanted,
            appends_open: voters_wanted <= 1,
            nodes: OrdMap::unit(Self::FIRST_NODE, first),
            last_node: Self::FIRST_NODE,
        })
    }

    pub(crate) fn node_of_disk(&self, disk: u128) -> Option<NodeId> {
        self.nodes.iter().find(|(_, node)| node.disk == disk).map(|(id, _)| *id)
    }

    /// Gives a disk its id: the log index, or one more than the last id where an entry registers several.
    pub(crate) fn register(&mut self, address: &str, disk: u128, index: LogIndex) -> Result<NodeId, Problem> {
        check_address(address)?;
        if let Some(known) = self.node_of_disk(disk) {
            if let Some(node) = self.nodes.get_mut(&known) {
                address.clone_into(&mut node.address);
            }
            return Ok(known);
        }
        if self.nodes.len() >= limits::NODES_MAX {
            let problem = Problem::new(ErrorCode::Conflict, "the cluster has as many nodes as it may");
            return Err(problem.with(|facts| facts.limit = Some(limits::NODES_MAX as u64)));
        }
        let id = NodeId(self.last_node.0.saturating_add(1).max(index.0));
        self.nodes.insert(id, Node { address: address.to_owned(), disk, voter: false });
        self.last_node = id;
        Ok(id)
    }

    pub(crate) fn deregister(&mut self, node: NodeId) -> Result<(), Problem> {
        self.nodes.remove(&node).map(drop).ok_or_else(|| not_found(node))
    }

    pub(crate) fn set_voters(&mut self, voters: &[NodeId]) -> Result<(), Problem> {
        if let Some(unknown) = voters.iter().find(|node| !self.nodes.contains_key(*node)) {
            return Err(not_found(*unknown));
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let mut count = 0;
        for id in ids {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.voter = voters.contains(&id);
                count += u32::from(node.voter);
            }
        }
        self.appends_open |= count >= self.voters_wanted;
        Ok(())
    }
}

fn not_found(node: NodeId) -> Problem {
    Problem::new(ErrorCode::NodeNotFound, format_args!("there is no node {node}"))
}

fn check_address(address: &str) -> Result<(), Problem> {
    if address.is_empty() || address.len() > limits::ADDRESS_BYTES_MAX {
        let detail = format_args!("an address has 1 to {} bytes", limits::ADDRESS_BYTES_MAX);
        return Err(Problem::new(ErrorCode::InvalidValue, detail));
    }
    Ok(())
}
