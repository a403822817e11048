//! A random number beside the log, so that an emptied disk is not taken for the node that it once was.
//!
//! The file holds one line, `carnax-disk 1 <32 hex digits>`, and once the disk has a node id a second one, `node <id>`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use carnax_core::id::NodeId;
use carnax_platform::entropy::Entropy;

const NAME: &str = "disk-id";
const MAGIC: &str = "carnax-disk 1";

/// Who a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskIdentity {
    directory: PathBuf,
    disk: u128,
    node: Option<NodeId>,
}

/// A disk that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DiskIdentityError {
    /// The node is known to have another disk.
    #[error(
        "this disk belongs to {}, not to node {expected}: an emptied or foreign disk must join as a new node",
        found.map_or_else(|| "no node".to_owned(), |node| format!("node {node}"))
    )]
    OtherNode {
        /// Who was to be started.
        expected: NodeId,
        /// Whose disk it is.
        found: Option<NodeId>,
    },
    /// The identity is there, but what it names is not.
    #[error("the identity in {} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refuses.
    #[error("the identity in {} cannot be accessed", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl DiskIdentity {
    /// Reads the identity in a directory; an empty directory (made if it does not exist) gets a fresh one, durably. Blocks.
    ///
    /// # Errors
    /// See [`DiskIdentityError`].
    pub fn open(directory: &Path, entropy: &dyn Entropy) -> Result<Self, DiskIdentityError> {
        let path = directory.join(NAME);
        let refused = |source| DiskIdentityError::Refused { path: path.clone(), source };
        fs::create_dir_all(directory).map_err(refused)?;
        match fs::read_to_string(&path) {
            Ok(text) => {
                let (disk, node) = parse(&text)
                    .ok_or_else(|| DiskIdentityError::Unreadable { path, reason: format!("{text:?}") })?;
                Ok(Self { directory: directory.to_owned(), disk, node })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let fresh = Self { directory: directory.to_owned(), disk: entropy.next_u128(), node: None };
                fresh.write().map_err(refused)?;
                Ok(fresh)
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// The random number.
    pub fn disk(&self) -> u128 {
        self.disk
    }

    /// The node whose disk it is, once it has joined a cluster.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Makes it the disk of a node, for ever and durably. Blocks.
    ///
    /// # Errors
    /// If it is another node's, or the file system refuses.
    pub fn assign(&mut self, node: NodeId) -> Result<(), DiskIdentityError> {
        if self.node.is_some() {
            return self.expect(node);
        }
        let assigned = Self { node: Some(node), ..self.clone() };
        let path = self.directory.join(NAME);
        assigned.write().map_err(|source| DiskIdentityError::Refused { path, source })?;
        *self = assigned;
        Ok(())
    }

    /// Makes sure that it is the disk of this node. A known id on an empty disk would forget its votes and vote twice.
    ///
    /// # Errors
    /// If it is not.
    pub fn expect(&self, node: NodeId) -> Result<(), DiskIdentityError> {
        if self.node == Some(node) {
            return Ok(());
        }
        Err(DiskIdentityError::OtherNode { expected: node, found: self.node })
    }

    fn write(&self) -> io::Result<()> {
        let mut text = format!("{MAGIC} {:032x}\n", self.disk);
        if let Some(node) = self.node {
            text.push_str(&format!("node {node}\n"));
        }
        let temporary = self.directory.join(format!("{NAME}.partial"));
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.directory.join(NAME))?;
        File::open(&self.directory)?.sync_all()
    }
}

fn parse(text: &str) -> Option<(u128, Option<NodeId>)> {
    let mut lines = text.lines();
    let disk = lines.next()?.strip_prefix(MAGIC)?.trim();
    let disk = u128::from_str_radix(disk, 16).ok()?;
    let node = match lines.next() {
        Some(line) => Some(NodeId(line.strip_prefix("node ")?.parse().ok()?)),
        None => None,
    };
    Some((disk, node))
}
