//! Where random numbers come from.

use std::fmt::Debug;

/// A source of randomness. A component, so that a simulation can draw from its seed.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Fills the buffer with fresh random bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// A fresh random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A fresh random number.
    fn next_u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// The operating system's entropy, fresh for each call: a virtual machine that is restored from a snapshot repeats
/// every generator that lives in its memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    /// If the operating system has no entropy to give; no id would be unique then.
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives entropy");
    }
}
