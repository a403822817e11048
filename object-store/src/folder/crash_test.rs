//! Goal: what a folder store acknowledged is whole after its process was killed, and nothing else is visible in parts.
//! Method: a process of its own writes and reports what was acknowledged; it is killed at some moment of its work; the folder
//! is opened again and every object in it is compared with what its key says it must hold.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::*;
use crate::store::LIST_PAGE_KEYS_MAX;

const FOLDER: &str = "CARNAX_CRASH_TEST_FOLDER";
const WRITERS: u64 = 4;
const ROUNDS: u64 = 10;

#[tokio::test]
async fn a_killed_process_leaves_every_acknowledged_object_whole_and_no_part_of_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = BTreeSet::new();
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let before = counter(folder.path()).await;
        let (keys, increments) = write_until_killed(folder.path(), round, 5 + round * 3).await;
        acknowledged.extend(keys);
        let left = fs::read_dir(folder.path().join(".carnax/incoming")).expect("our own folder").count();
        interrupted += usize::from(left > 0);

        let store = FolderStore::open(folder.path()).await.expect("a killed process leaves no lock");
        let left = fs::read_dir(folder.path().join(".carnax/incoming")).expect("our own folder").count();
        assert_eq!(left, 0, "opening removes what was not published");
        let listed = check_all(&store).await;
        assert!(acknowledged.is_subset(&listed), "lost: {:?}", acknowledged.difference(&listed));
        drop(store);
        let after = counter(folder.path()).await;
        let possible = before + increments..=before + increments + 1;
        assert!(possible.contains(&after), "counted to {after}, not {possible:?}");
    }
    assert!(interrupted > 0, "no round killed a write half-way: the test shows nothing");
}

/// Starts the process, kills it once it has reported so many writes, and returns all that it reported: keys, and how many
/// increments of the counter.
async fn write_until_killed(folder: &Path, round: u64, reports: u64) -> (BTreeSet<String>, u64) {
    let mut child = Command::new(std::env::current_exe().expect("this test's own program"))
        .args([
            "--exact",
            "folder::crash_test::child_that_writes_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .env("CARNAX_CRASH_TEST_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program runs again");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let (mut keys, mut increments, mut seen) = (BTreeSet::new(), 0, 0);
    while let Some(line) = lines.next_line().await.expect("a pipe") {
        // A line that was cut by the kill is no report.
        let Some(report) = line.strip_prefix("report ").and_then(|rest| rest.strip_suffix(" end")) else {
            continue;
        };
        match report {
            "increment" => increments += 1,
            key => drop(keys.insert(key.to_owned())),
        }
        seen += 1;
        if seen == reports {
            child.start_kill().expect("it still runs");
        }
    }
    let status = child.wait().await.expect("it was started");
    assert!(!status.success() && seen >= reports, "it was killed, and did not fail before: {status}");
    (keys, increments)
}

/// Compares every object with what its key says, and returns the keys.
async fn check_all(store: &FolderStore) -> BTreeSet<String> {
    let mut keys: BTreeSet<String> = BTreeSet::new();
    loop {
        let after = keys.last().cloned().unwrap_or_default();
        let page = store.list("objects/", &after, LIST_PAGE_KEYS_MAX).await.expect("a list");
        for object in page.objects {
            let (bytes, _) =
                store.get(&object.key, GetRange::WholeUpTo(u64::MAX)).await.expect("it is listed");
            assert!(bytes == content(&object.key).to_bytes(), "{} is not what was written", object.key);
            keys.insert(object.key);
        }
        if !page.more {
            return keys;
        }
    }
}

async fn counter(folder: &Path) -> u64 {
    let store = FolderStore::open(folder).await.expect("a folder");
    match store.get("counter", GetRange::WholeUpTo(99)).await {
        Ok((bytes, _)) => std::str::from_utf8(&bytes).expect("digits").parse().expect("a whole number"),
        Err(ObjectStoreError::NotFound { .. }) => 0,
        Err(error) => panic!("{error:?}"),
    }
}

/// The object that belongs to a key: a few bytes to half a MiB, in chunks.
fn content(key: &str) -> Payload {
    let seed = crc32c::crc32c(key.as_bytes());
    let repetitions = 1 + usize::try_from(seed % 1_000).expect("small");
    let chunk = Bytes::from(format!("{key} {seed:08x} ").repeat(16));
    Payload::new(vec![chunk; repetitions])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only as the process that the crash test kills"]
async fn child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let round = std::env::var("CARNAX_CRASH_TEST_ROUND").expect("the crash test sets it");
    let store = FolderStore::open(PathBuf::from(folder)).await.expect("a folder");
    let counting = tokio::spawn(count(store.clone()));
    let writers = (0..WRITERS).map(|writer| {
        let (store, round) = (store.clone(), round.clone());
        tokio::spawn(async move {
            for number in 0_u64.. {
                let key = format!("objects/{round}/{}/{writer}-{number}", number % 3);
                store.put_if_absent(&key, content(&key)).await.expect("the key is free");
                report(&key);
            }
        })
    });
    futures::future::join_all(writers).await;
    counting.await.expect("it counts for ever");
}

async fn count(store: FolderStore) {
    loop {
        let (number, expected) = match store.get("counter", GetRange::WholeUpTo(99)).await {
            Ok((bytes, version)) => (
                std::str::from_utf8(&bytes).expect("digits").parse::<u64>().expect("a number"),
                Some(version),
            ),
            Err(_) => (0, None),
        };
        let next = Bytes::from((number + 1).to_string());
        store.compare_and_swap("counter", expected, next).await.expect("nobody else counts");
        report("increment");
    }
}

fn report(what: &str) {
    // One write a line, so that lines of several tasks do not mix.
    io::stdout().write_all(format!("report {what} end\n").as_bytes()).expect("the parent reads");
}
