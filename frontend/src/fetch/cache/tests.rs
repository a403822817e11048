//! Goal: ranges are read right, seldom, and within the bound. Method: a counting store in memory.

use carnax_core::id::{Incarnation, SegmentId};
use carnax_object_store::{Failure, Fault, FaultStore, MemoryStore, Payload, Verb};

use super::*;
use crate::config::Settings;

const SIZE: u64 = 5 * BLOCK_BYTES + 100;

async fn cache(bytes_max: u64) -> (Arc<ReadCache>, Arc<FaultStore<MemoryStore>>, SegmentKey, Bytes) {
    let store = Arc::new(FaultStore::new(MemoryStore::new()));
    let key = SegmentKey::appended(Incarnation(1), SegmentId::from_bytes([3; 16]));
    let object: Bytes = (0..SIZE).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[2]).collect();
    store.put_if_absent(&key.to_string(), Payload::new(vec![object.clone()])).await.unwrap();
    let mut settings = Settings::new(Vec::new(), "memory://x".parse().unwrap()).fetch;
    settings.cache_bytes = bytes_max;
    let shared: Arc<dyn ObjectStore> = Arc::clone(&store) as Arc<_>;
    (Arc::new(ReadCache::new(shared, &settings, Arc::new(Metrics::new()))), store, key, object)
}

#[tokio::test]
async fn overlapping_ranges_are_read_once_and_neighbours_together() {
    let (cache, store, key, object) = cache(100 * BLOCK_BYTES).await;
    let read = async |start: u64, length: u64| {
        let range = ByteRange { start, length };
        let bytes = cache.read(key, SIZE, range, ReaderKind::Tail).await.unwrap();
        let (from, to) = (usize::try_from(start).unwrap(), usize::try_from(start + length).unwrap());
        assert_eq!(bytes, object.slice(from..to), "{range}");
    };
    read(2 * BLOCK_BYTES + 5, 10).await;
    assert_eq!(store.calls(Verb::Get), 1);
    tokio::join!(read(0, SIZE), read(BLOCK_BYTES - 1, 2), read(4 * BLOCK_BYTES, BLOCK_BYTES + 100));
    assert_eq!(store.calls(Verb::Get), 3, "the blocks before and behind the one that was there");
    read(1, SIZE - 2).await;
    assert_eq!(store.calls(Verb::Get), 3);
    let beyond = cache.read(key, SIZE, ByteRange { start: SIZE, length: 1 }, ReaderKind::Tail).await;
    assert!(matches!(beyond, Err(ReadError::Store(ObjectStoreError::ShortRead { .. }))));
}

#[tokio::test]
async fn failures_are_not_kept_and_an_abandoned_read_blocks_nobody() {
    let (cache, store, key, object) = cache(100 * BLOCK_BYTES).await;
    let range = ByteRange { start: 0, length: 7 };
    store.script(Verb::Get, [Fault::fail(Failure::Before), Fault::delay(Duration::from_secs(3_600))]);
    assert!(cache.read(key, SIZE, range, ReaderKind::Lagging).await.is_err());
    let abandoned = cache.read(key, SIZE, range, ReaderKind::Lagging);
    assert!(tokio::time::timeout(Duration::from_millis(20), abandoned).await.is_err());
    assert_eq!(cache.read(key, SIZE, range, ReaderKind::Tail).await.unwrap(), object.slice(..7));
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_first() {
    let (cache, store, key, object) = cache(3 * BLOCK_BYTES).await;
    let read = async |block: u64| {
        let range = ByteRange { start: block * BLOCK_BYTES, length: 1 };
        cache.read(key, SIZE, range, ReaderKind::Tail).await.unwrap();
        store.calls(Verb::Get)
    };
    assert_eq!((read(0).await, read(1).await, read(2).await), (1, 2, 3));
    assert_eq!(read(0).await, 3);
    assert_eq!(read(3).await, 4, "pushes out block 1");
    assert_eq!((read(0).await, read(2).await), (4, 4));
    assert_eq!(read(1).await, 5);
    assert!(cache.state().bytes <= 3 * BLOCK_BYTES);
    cache.insert_object(key, object);
    assert!(cache.state().bytes <= 3 * BLOCK_BYTES, "an object that is too large is not kept");
}

#[tokio::test]
async fn what_is_kept_or_handed_out_holds_no_more_memory_than_it_counts() {
    let (cache, _, key, _) = cache(100 * BLOCK_BYTES).await;
    let read = async |start: u64, length: u64| {
        cache.read(key, SIZE, ByteRange { start, length }, ReaderKind::Tail).await.unwrap()
    };
    let inside = |part: &Bytes, whole: &Bytes| whole.as_ptr_range().contains(&part.as_ptr());
    let run = read(0, 2 * BLOCK_BYTES).await;
    let block = read(BLOCK_BYTES, BLOCK_BYTES).await;
    assert!(!inside(&block, &run), "a block is evicted alone");
    let few = read(BLOCK_BYTES + 5, 10).await;
    assert!(!inside(&few, &block), "few bytes do not keep a block");
}
