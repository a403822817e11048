//! Crashes of the log on a disk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::OpenLogError;

const BYTES: usize = 700;
/// Set for the child process that runs into a full disk.
const FULL_DISK: &str = "CARNAX_TEST_FULL_DISK";

fn open(directory: &Path) -> Result<DiskLog, OpenLogError> {
    DiskLog::open(directory, Flushes::default())
}

/// A log on disk: the first ten entries acknowledged, ten more written that count as not acknowledged.
struct Written {
    directory: TempDir,
    file: PathBuf,
    /// Bytes of the file that an acknowledged fsync covers.
    acknowledged: u64,
    end: u64,
}

async fn written() -> Written {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path()).unwrap();
    log.save_vote(&vote(3)).await.unwrap();
    append(&mut log, entries(0..10, BYTES)).await.unwrap().await.unwrap().unwrap();
    let file = wal_file(directory.path());
    let acknowledged = fs::metadata(&file).unwrap().len();
    append(&mut log, entries(10..20, BYTES)).await.unwrap().await.unwrap().unwrap();
    let end = fs::metadata(&file).unwrap().len();
    drop(log);
    Written { directory, file, acknowledged, end }
}

fn wal_file(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).max().unwrap()
}

impl Written {
    /// What a crash left behind, after `damage` to the bytes that were not acknowledged.
    async fn after(&self, damage: impl FnOnce(&File)) -> Result<u64, OpenLogError> {
        let copy = tempfile::tempdir().unwrap();
        let file = copy.path().join(self.file.file_name().unwrap());
        fs::copy(&self.file, &file).unwrap();
        damage(&OpenOptions::new().write(true).open(&file).unwrap());
        let mut log = open(copy.path())?;
        assert_eq!(log.read_vote().await.unwrap(), Some(vote(3)), "the vote is kept");
        let held = held(&mut log, BYTES).await;
        assert!(held >= 10, "what was acknowledged is there: {held}");
        // And the log goes on where it ends.
        append(&mut log, entries(held..held + 3, BYTES)).await.unwrap().await.unwrap().unwrap();
        Ok(held)
    }

    /// Where a disk may tear: at its sectors and pages, and at the ends of what was acknowledged and written.
    fn tears(&self) -> Vec<u64> {
        let mut tears: Vec<u64> = (self.acknowledged..=self.end).filter(|at| at % 512 == 0).collect();
        tears.extend([self.acknowledged, self.acknowledged + 1, self.end - 1, self.end]);
        tears
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_wherever_it_tore() {
    let written = written().await;
    for tear in written.tears() {
        let cut = written.after(|file| file.set_len(tear).unwrap()).await.unwrap();
        assert_eq!(cut == 20, tear == written.end, "torn at {tear}");
        // The length reached the disk, the bytes did not.
        let zeros = |file: &File| {
            file.set_len(tear).unwrap();
            file.set_len(written.end).unwrap();
        };
        whole_or_refused(written.after(zeros).await);
    }
}

/// A record that is there in part, with bytes behind it: nobody can tell that it was never acknowledged, so the log may
/// refuse, if it says what to do.
fn whole_or_refused(opened: Result<u64, OpenLogError>) {
    match opened {
        Ok(held) => assert!(held <= 20),
        Err(error @ OpenLogError::Damaged { .. }) => {
            assert!(error.to_string().contains("let an empty one join"), "{error}");
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn lost_pages_before_others_never_lose_or_invent_an_entry() {
    let written = written().await;
    for page in [512, 4_096] {
        let first = written.acknowledged / page;
        for number in first..=written.end / page {
            let start = (number * page).max(written.acknowledged);
            let end = ((number + 1) * page).min(written.end);
            let lose = |file: &File| {
                let zeros = vec![0; usize::try_from(end.saturating_sub(start)).unwrap()];
                file.write_all_at(&zeros, start).unwrap();
            };
            whole_or_refused(written.after(lose).await);
        }
    }
}

#[tokio::test]
async fn a_log_in_use_or_damaged_before_its_end_says_what_to_do() {
    let written = written().await;
    let holder = open(written.directory.path()).unwrap();
    let second = open(written.directory.path()).unwrap_err();
    assert!(matches!(second, OpenLogError::InUse { .. }), "{second:?}");
    drop(holder);

    let flipped = |file: &File| file.write_all_at(&[0xff; 16], written.acknowledged / 2).unwrap();
    let damaged = written.after(flipped).await.unwrap_err();
    assert!(matches!(damaged, OpenLogError::Damaged { .. }), "{damaged:?}");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_full_disk() {
    if let Some(directory) = std::env::var_os(FULL_DISK) {
        return fill(Path::new(&directory)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    // A limit on the size of a file stands for a full disk: the write fails in the same place.
    let run = "trap '' XFSZ; ulimit -f 200; exec \"$0\" --exact log_store::tests::disk::what_was_acknowledged_survives_a_full_disk";
    let child = Command::new("sh")
        .args(["-c", run])
        .arg(std::env::current_exe().unwrap())
        .env(FULL_DISK, directory.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let acknowledged: u64 =
        fs::read_to_string(directory.path().join("acknowledged")).unwrap().parse().unwrap();
    assert!(acknowledged > 0);
    let mut log = open(&directory.path().join("log")).unwrap();
    assert!(held(&mut log, BYTES).await >= acknowledged);
}

/// Writes until the disk is full; leaves behind how many entries were acknowledged.
async fn fill(directory: &Path) {
    let mut log = open(&directory.join("log")).unwrap();
    let mut acknowledged = 0;
    loop {
        let flushed = append(&mut log, entries(acknowledged..acknowledged + 10, BYTES)).await;
        let Ok(flushed) = flushed else { break };
        if !matches!(flushed.await, Ok(Ok(()))) {
            break;
        }
        acknowledged += 10;
        assert!(acknowledged < 100_000, "the limit holds");
    }
    assert!(log.save_vote(&vote(9)).await.is_err(), "a log that failed takes no vote");
    fs::write(directory.join("acknowledged"), acknowledged.to_string()).unwrap();
}
