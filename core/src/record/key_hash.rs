//! Keys as numbers, for maps that must not grow with the length of the keys.

use twox_hash::XxHash3_128;

/// XXH3-128 of a key. Two keys with the same hash are as good as impossible by chance; with a seed that nobody could foresee, also
/// by intent.
pub fn key_hash(seed: u64, key: &[u8]) -> u128 {
    XxHash3_128::oneshot_with_seed(seed, key)
}
