//! Crashes of the memory disk.

use std::time::Duration;

use futures::FutureExt;

use super::*;

const BYTES: usize = 100;

#[tokio::test]
async fn a_crash_loses_what_was_not_fsynced_and_nothing_else() {
    for kept in 0..=5 {
        let disk = MemoryDisk::new();
        let mut log = MemoryLog::open(disk.clone(), Flushes::default());
        log.save_vote(&vote(3)).await.unwrap();
        append(&mut log, entries(0..10, BYTES)).await.unwrap().await.unwrap().unwrap();

        disk.set_fsync_delay(Duration::from_secs(3_600));
        let lost = append(&mut log, entries(10..15, BYTES)).await.unwrap();
        assert_eq!(held(&mut log, BYTES).await, 15, "what was appended can be read at once");
        disk.crash(kept);

        let mut log = MemoryLog::open(disk.clone(), Flushes::default());
        assert_eq!(held(&mut log, BYTES).await, 10 + kept as u64);
        assert_eq!(log.read_vote().await.unwrap(), Some(vote(3)));
        append(&mut log, entries([], BYTES)).await.unwrap();
        assert!(lost.now_or_never().is_none(), "a lost write is not acknowledged");
    }
}

#[tokio::test]
async fn after_a_failed_write_or_fsync_nothing_is_acknowledged_until_the_disk_is_opened_again() {
    let faults: [fn(&MemoryDisk); 2] = [MemoryDisk::fail_fsync, |disk| disk.fill_up_after(5 * (BYTES + 64))];
    for fault in faults {
        let disk = MemoryDisk::new();
        let mut log = MemoryLog::open(disk.clone(), Flushes::default());
        append(&mut log, entries(0..10, BYTES)).await.unwrap().await.unwrap().unwrap();
        fault(&disk);
        let failed = match append(&mut log, entries(10..20, BYTES)).await {
            Ok(flushed) => flushed.await.unwrap().is_err(),
            Err(_) => true,
        };
        assert!(failed);
        let refused = log.save_vote(&vote(9)).await;
        assert!(refused.is_err(), "a broken log takes no vote: it could be forgotten");

        disk.crash(0);
        let mut log = MemoryLog::open(disk, Flushes::default());
        assert_eq!(held(&mut log, BYTES).await, 10);
        append(&mut log, entries(10..20, BYTES)).await.unwrap().await.unwrap().unwrap();
        assert_eq!(held(&mut log, BYTES).await, 20);
    }
}

#[tokio::test]
async fn an_fsync_that_hangs_is_seen() {
    let (disk, flushes) = (MemoryDisk::new(), Flushes::default());
    let mut log = MemoryLog::open(disk.clone(), flushes.clone());
    append(&mut log, entries(0..1, BYTES)).await.unwrap().await.unwrap().unwrap();
    assert_eq!(flushes.oldest(), None);
    disk.set_fsync_delay(Duration::from_secs(3_600));
    append(&mut log, entries(1..2, BYTES)).await.unwrap();
    let before = flushes.oldest().unwrap();
    append(&mut log, entries(2..3, BYTES)).await.unwrap();
    assert!(flushes.oldest().unwrap() > before, "the oldest one counts, and it grows older");
}
