//! Which partition a keyed record belongs to: the same as with Kafka's Java clients.

use crate::id::PartitionIndex;

/// The partition of a key in a topic of `partition_count` partitions: `murmur2(key) & 0x7fffffff % partition_count`.
///
/// # Panics
/// If `partition_count` is 0: no topic has no partition.
pub fn partition_of(key: &[u8], partition_count: u32) -> PartitionIndex {
    assert!(partition_count > 0, "a topic has at least one partition");
    PartitionIndex((murmur2(key) & 0x7fff_ffff) % partition_count)
}

/// Austin Appleby's MurmurHash2, 32 bits, reading little-endian words, with the seed that Kafka's clients use.
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // The algorithm mixes in the length modulo 2³².
    let [a, b, c, d, ..] = (key.len() as u64).to_le_bytes();
    let mut hash = SEED ^ u32::from_le_bytes([a, b, c, d]);
    let (words, rest) = key.as_chunks();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own `UtilsTest.testMurmur2`, and others that its clients agree on.
    #[test]
    fn hashes_are_those_of_kafka() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
            ("string-f-24-chars-length", 124_730_809),
            ("string-fo-25-chars-length", 1_269_511_650),
            ("string-foo-26-chars-length", 119_165_628),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn negative_hashes_lose_their_sign_instead_of_being_negated() {
        let hash = i64::from(murmur2(b"21").cast_signed());
        assert!(hash < 0);
        assert_eq!(i64::from(partition_of(b"21", 12).0), (hash + (1 << 31)) % 12);
        assert_eq!(partition_of(b"", 1), PartitionIndex(0));
    }
}
