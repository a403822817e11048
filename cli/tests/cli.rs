//! The program as scripts see it: what it prints where, and how it ends. Needs no server.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::record::{Batch, BatchBuilder, Compression, NewRecord};
use carnax_core::segment::{PartitionBatches, SegmentWriter};
use carnax_core::time::Timestamp;

fn carnax(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carnax"));
    command
        .args(arguments)
        .env_remove("CARNAX_ENDPOINT")
        .env_remove("CARNAX_OBJECT_STORE")
        .stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn exit_codes_tell_wrong_usage_from_failure_and_from_what_may_work_later() {
    // Port 9 of loopback: nothing listens there.
    let away = ["--endpoint", "http://127.0.0.1:9", "--timeout", "0.3"];
    for (arguments, code) in [
        (vec!["--help"], 0),
        (vec!["topic"], 2),
        (vec!["consume", "t", "--from", "soon"], 2),
        (vec!["topic", "alter", "t"], 2),
        (vec!["wakeup", "put", "t", "w"], 2),
        (vec!["wakeup", "delete", "t", "not a name"], 1),
        (vec!["group", "reset", "g"], 2),
        (vec!["group", "commit", "g", "t/0=soon"], 2),
        (vec!["cluster", "settings", "producer.max"], 2),
        (vec!["topic", "describe", "not a name"], 1),
        (vec!["group", "describe", "not a name"], 1),
        (vec!["segment", "inspect", "there-is-no-such-file"], 1),
        ([&away[..], &["topic", "list"]].concat(), 3),
        ([&away[..], &["consume", "t"]].concat(), 3),
        ([&away[..], &["group", "reset", "g", "--to", "earliest"]].concat(), 3),
        ([&away[..], &["produce", "t"]].concat(), 3),
    ] {
        let output = carnax(&arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(output.stdout.is_empty(), code != 0, "{arguments:?}: data is for success");
        assert_eq!(said.is_empty(), code == 0, "{arguments:?}: {said}");
    }
    assert!(text(&carnax(&["--help"]).stdout).contains("Exit codes: 0 done"));
}

#[test]
fn the_doctor_goes_on_after_the_first_finding_and_says_what_to_do() {
    let arguments = ["--endpoint", "http://127.0.0.1:9", "--timeout", "0.2", "--output", "json", "doctor"];
    let store = ["--object-store", "memory://doctor"];
    let output = carnax(&[&arguments[..], &store].concat());
    assert_eq!(output.status.code(), Some(3));
    let findings: Vec<serde_json::Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a document a line"))
        .collect();
    let state = |check: &str| {
        let finding = findings.iter().find(|finding| finding["check"] == check).expect(check);
        (finding["ok"] == true, finding["advice"].is_string())
    };
    assert_eq!(state("endpoint http://127.0.0.1:9"), (false, true));
    assert_eq!(state("metadata quorum"), (false, true));
    assert_eq!(state("object store"), (true, false));
    assert_eq!(state("append and fetch"), (false, true));
}

#[test]
fn a_segment_is_shown_with_its_checksums_and_damage_is_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("segment");
    let mut object = segment();
    std::fs::write(&path, &object).expect("written");
    let inspect = |format: &str| {
        let path: &Path = &path;
        carnax(&["--output", format, "segment", "inspect", path.to_str().expect("UTF-8")])
    };
    let shown = text(&inspect("text").stdout);
    assert!(shown.contains("partition 3") && shown.contains("zstd") && !shown.contains("WRONG"), "{shown}");
    let output = inspect("json");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(report["slices"][0]["batches"][0]["offset_count"], 20);
    assert_eq!(report["slices"][0]["verified"], true);
    // In the records of the only batch.
    object[80] ^= 1;
    std::fs::write(&path, &object).expect("written");
    let output = inspect("json");
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(report["slices"][0]["verified"], false);
    assert!(
        report["slices"][0]["batches"][0]["problem"].is_string() && report["problem"].is_string(),
        "{report}"
    );
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_carnax"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("read");
    assert_eq!((child.wait().expect("ended").code(), said.as_str()), (Some(0), ""));
}

fn segment() -> Vec<u8> {
    let mut builder = BatchBuilder::new(100_000);
    for _ in 0..20 {
        let record = NewRecord {
            timestamp: Timestamp::from_millis(1_700_000_000_000),
            key: Some(b"key"),
            value: Some(b"a value that is long enough to be compressed"),
            headers: &[],
        };
        builder.push(&record).expect("there is room");
    }
    let topic = TopicId::from_parts(Timestamp::from_millis(1_700_000_000_000), 1);
    let batches = Batch::parse_all(builder.build(Compression::Zstd)).expect("a batch");
    let on = TopicPartition { topic, partition: PartitionIndex(3) };
    let mut writer = SegmentWriter::new();
    writer
        .push_unit(vec![PartitionBatches { on, batches, encoded_by_frontend: false }])
        .expect("there is room");
    writer.seal().chunks.concat()
}
