//! Who may make which call.

/// Who may make a call, where the cluster speaks TLS: the names in the caller's certificate say which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Frontends, workers, and the commands of people.
    Frontends,
    /// Metadata nodes.
    Nodes,
    /// Both.
    All,
}

impl Callers {
    /// Whether one who is a metadata node, a frontend, both or neither is among them.
    pub const fn include(self, node: bool, frontend: bool) -> bool {
        match self {
            Self::Frontends => frontend,
            Self::Nodes => node,
            Self::All => node || frontend,
        }
    }

    /// Who they are, for an error.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frontends => "frontends",
            Self::Nodes => "metadata nodes",
            Self::All => "members of the cluster",
        }
    }
}
