//! Every limit that two parts must agree on, with their relations checked when this crate is compiled.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Length of a topic's name in bytes (Kafka's limit).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 10_000;
/// Topics of a cluster.
pub const TOPICS_MAX: usize = 100_000;
/// Partitions of a cluster, over all topics.
pub const PARTITIONS_MAX: usize = 1_000_000;

/// Bytes of a record batch as it travels, header included.
pub const BATCH_BYTES_MAX: usize = 8 * MIB;
/// Default of the topic configuration `max.message.bytes`: bytes of a record batch (KIP-78's default with its overhead).
pub const BATCH_BYTES_DEFAULT: usize = MIB + 12;
/// Bytes of a record batch after decompression.
pub const BATCH_DECOMPRESSED_BYTES_MAX: usize = 64 * MIB;
/// Records in one record batch.
pub const BATCH_RECORDS_MAX: u32 = 1_000_000;
/// Headers of one record.
pub const RECORD_HEADERS_MAX: usize = 1_000;

/// Bytes of one HTTP request body.
pub const REQUEST_BODY_BYTES_MAX: usize = 16 * MIB;
/// Records in one append request in JSON or NDJSON.
pub const REQUEST_RECORDS_MAX: usize = 100_000;
/// Bytes that one fetch may ask for (it gets at least one whole batch).
pub const FETCH_BYTES_MAX: u64 = 16 * MIB as u64;
/// Bytes that a fetch gets that does not say how many it wants.
pub const FETCH_BYTES_DEFAULT: u64 = MIB as u64;
/// Records that one fetch may ask for.
pub const FETCH_RECORDS_MAX: u32 = 100_000;
/// The longest that a long-poll may wait.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(30);
/// Slices in one fetch plan.
pub const PLAN_SLICES_MAX: usize = 1_000;

/// Partitions that one append unit may touch.
pub const UNIT_PARTITIONS_MAX: usize = 1_000;
/// Units in one segment.
pub const SEGMENT_UNITS_MAX: usize = 4_096;
/// Bytes of a segment object, header and footer included.
pub const SEGMENT_BYTES_MAX: u64 = 256 * MIB as u64;
/// Slices in one segment.
pub const SEGMENT_SLICES_MAX: usize = 100_000;
/// Batches in one segment.
pub const SEGMENT_BATCHES_MAX: usize = 1_000_000;
/// Segments in one commit call.
pub const COMMIT_SEGMENTS_MAX: usize = 64;
/// Bytes of the commit command that one segment's units make.
pub const SEGMENT_COMMIT_BYTES_MAX: usize = 256 * KIB;

/// Bytes of one message of the metadata RPC.
pub const RPC_MESSAGE_BYTES_MAX: usize = 32 * MIB;
/// Bytes of one Raft log entry.
pub const COMMAND_BYTES_MAX: usize = 20 * MIB;

/// How long after its ULID time a segment may still be committed, at most and where `commit.deadline.ms` is not set.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// How far the clock of a ULID may run ahead of log time.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60);
/// How much older than log time an unreferenced object's ULID is before the object is an orphan, where `orphan.age.ms` is not
/// set.
pub const ORPHAN_AGE: Duration = Duration::from_secs(60 * 60);
/// How much later than its ULID says an object may appear and still be found: a process that stood still between making the id
/// and uploading the object.
pub const ORPHAN_DELAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Objects in one question for orphans.
pub const FIND_ORPHANS_MAX: usize = 1_000;
/// How long after its death an object may be deleted, where `delete.grace.ms` is not set: longer than any reader needs that planned
/// before.
pub const DELETE_GRACE: Duration = Duration::from_secs(15 * 60);
/// Dead objects in one answer.
pub const FIND_DEAD_MAX: usize = 1_000;
/// Segments and slices in one page of manifests.
pub const MANIFEST_ROWS_MAX: u32 = 20_000;
/// What a merge makes: slices of about so many bytes.
pub const MERGED_BYTES_TARGET: u64 = 128 * MIB as u64;
/// Slices from this size on are not merged any more.
pub const MERGED_BYTES_ENOUGH: u64 = MERGED_BYTES_TARGET / 4;
/// How many slices a merge waits for, where `merge.slices` is not set.
pub const MERGE_SLICES: u64 = 32;
/// Slices of one partition in one plan of a merge.
pub const MERGE_PART_SLICES_MAX: usize = 1_024;
/// Slices in one plan of a merge.
pub const MERGE_SLICES_MAX: usize = 20_000;
/// Partitions in one plan of a merge.
pub const MERGE_PARTS_MAX: usize = 1_000;
/// Slices in one plan of a key compaction.
pub const COMPACT_SLICES_MAX: usize = 50_000;
/// Keys that a key compaction tells apart in one round: what a map of as many hashes takes is bounded by 64 MiB.
pub const COMPACT_KEYS_MAX: usize = 900_000;
/// How long a partition is left alone after a key compaction, where `compact.interval.ms` is not set.
pub const COMPACT_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Slices in one manifest page.
pub const PAGE_SLICES_MAX: usize = 4_096;
/// How many old slices go into a manifest page, where `page.slices` is not set.
pub const PAGE_SLICES: u64 = 512;
/// Partitions whose log start moves by one command.
pub const RETAIN_PARTITIONS_MAX: usize = 10_000;
/// How long a worker has a maintenance job without reporting, in log time.
pub const JOB_LEASE: Duration = Duration::from_secs(60);
/// How long an idle session lives, in log time.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(60 * 60);
/// Sessions of a cluster.
pub const SESSIONS_MAX: usize = 100_000;

/// Length of a group's name in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 249;
/// Length of a member id in bytes.
pub const MEMBER_ID_BYTES_MAX: usize = 128;
/// Length of a producer id in bytes: room for the ARN of a queue and a message group.
pub const PRODUCER_ID_BYTES_MAX: usize = 512;
/// Length of an idempotency key in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Length of a principal's name in bytes.
pub const PRINCIPAL_BYTES_MAX: usize = 256;
/// Length of a fencing token in bytes.
pub const FENCING_TOKEN_BYTES_MAX: usize = 64;

/// How many of its last replies a producer can get again, offsets included. More requests than this in flight may be
/// answered without offsets when they are repeated.
pub const PRODUCER_REPLIES: usize = 8;
/// Conditions of one append unit.
pub const UNIT_CONDITIONS_MAX: usize = 1_000;
/// Group offsets that move with one append unit, and those of one plain offset commit.
pub const GROUP_COMMIT_OFFSETS_MAX: usize = 1_000;
/// Length in bytes of what a client may say about a committed offset.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4_096;
/// Slices in the replies that producers and idempotency keys keep, over the whole cluster.
pub const REMEMBERED_SLICES_MAX: u64 = 4_000_000;

/// Groups of a cluster.
pub const GROUPS_MAX: usize = 100_000;
/// Members of one group.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
/// Members of all groups.
pub const MEMBERS_MAX: usize = 100_000;
/// Topics and patterns in the subscription of one member.
pub const SUBSCRIPTION_TOPICS_MAX: usize = 100;
/// Different patterns in the subscriptions of one group: each is tried on every topic.
pub const GROUP_PATTERNS_MAX: usize = 100;
/// Partitions that the members of one group may be assigned.
pub const GROUP_PARTITIONS_MAX: usize = 100_000;
/// Committed offsets of all groups.
pub const GROUP_OFFSETS_MAX: u64 = 10_000_000;
/// The shortest session of a group member.
pub const MEMBER_SESSION_MIN: Duration = Duration::from_secs(1);
/// The session of a group member that does not say how long it wants it (Kafka's `session.timeout.ms`).
pub const MEMBER_SESSION_DEFAULT: Duration = Duration::from_secs(45);
/// The longest session of a group member.
pub const MEMBER_SESSION_MAX: Duration = Duration::from_secs(30 * 60);
/// The longest time between two heartbeats of a member; a third of its session if that is shorter.
pub const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(3);

/// Length in bytes of the name of a wake-up.
pub const WAKEUP_NAME_BYTES_MAX: usize = 64;
/// Length in bytes of the URL of a queue.
pub const WAKEUP_QUEUE_BYTES_MAX: usize = 512;
/// Wake-ups of one topic.
pub const TOPIC_WAKEUPS_MAX: usize = 16;
/// Wake-ups of a cluster.
pub const WAKEUPS_MAX: usize = 10_000;
/// The longest time over which commits share one event.
pub const WAKEUP_WINDOW_MAX: Duration = Duration::from_secs(60);
/// The time over which commits share one event where none is said.
pub const WAKEUP_WINDOW_DEFAULT: Duration = Duration::from_millis(100);
/// Partitions in one event, so that it stays far below what a message of a queue may hold.
pub const EVENT_PARTITIONS_MAX: usize = 1_000;

/// Length in bytes of the public part of an access token.
pub const TOKEN_ID_BYTES_MAX: usize = 32;
/// The shortest secret of an access token, in bytes.
pub const TOKEN_SECRET_BYTES_MIN: usize = 32;
/// The longest secret of an access token, in bytes.
pub const TOKEN_SECRET_BYTES_MAX: usize = 128;
/// Length in bytes of what is said about an access token.
pub const TOKEN_DESCRIPTION_BYTES_MAX: usize = 256;
/// Grants of one access token.
pub const TOKEN_GRANTS_MAX: usize = 64;
/// Access tokens of a cluster.
pub const TOKENS_MAX: usize = 10_000;
/// Tokens on one page of a list.
pub const TOKENS_PAGE_MAX: u32 = 1_000;
/// How exactly the last use of a token is known.
pub const TOKEN_USE_GRAIN: Duration = Duration::from_secs(60 * 60);

/// Topics, and tokens, in one report of what was used.
pub const USAGE_REPORT_ROWS_MAX: usize = 1_000;
/// Topics, and tokens, on one page of what was used.
pub const USAGE_PAGE_MAX: u32 = 1_000;
/// Processes whose last report is remembered; beyond it, the one that was silent longest is forgotten.
pub const USAGE_REPORTERS_MAX: usize = 10_000;
/// How long a process is remembered after its last report, in log time. None repeats a report for so long.
pub const USAGE_REPORTER_EXPIRY: Duration = Duration::from_secs(60 * 60);
/// How long a process repeats a report before it gives it up.
pub const USAGE_REPEAT_MAX: Duration = Duration::from_secs(30 * 60);

/// Metadata nodes of a cluster, learners included.
pub const NODES_MAX: usize = 64;
/// Length in bytes of an address, and of the name of a frontend.
pub const ADDRESS_BYTES_MAX: usize = 512;

const _: () = {
    assert!(BATCH_BYTES_DEFAULT <= BATCH_BYTES_MAX);
    assert!(BATCH_BYTES_MAX <= REQUEST_BODY_BYTES_MAX);
    assert!(BATCH_BYTES_MAX as u64 <= FETCH_BYTES_MAX);
    assert!(BATCH_BYTES_MAX <= BATCH_DECOMPRESSED_BYTES_MAX);
    assert!(REQUEST_BODY_BYTES_MAX as u64 * 2 <= SEGMENT_BYTES_MAX);
    assert!(SEGMENT_COMMIT_BYTES_MAX * COMMIT_SEGMENTS_MAX <= COMMAND_BYTES_MAX);
    assert!(COMMAND_BYTES_MAX < RPC_MESSAGE_BYTES_MAX);
    assert!(UNIT_PARTITIONS_MAX <= SEGMENT_SLICES_MAX);
    assert!(MERGED_BYTES_TARGET < SEGMENT_BYTES_MAX);
    assert!(MERGE_PARTS_MAX <= SEGMENT_SLICES_MAX && MERGE_PART_SLICES_MAX <= MERGE_SLICES_MAX);
    assert!(COMMIT_DEADLINE.as_secs() < SESSION_EXPIRY.as_secs());
    assert!(COMMIT_DEADLINE.as_secs() + CLOCK_AHEAD_MAX.as_secs() < ORPHAN_AGE.as_secs());
    assert!(TOPIC_PARTITIONS_MAX as usize <= PARTITIONS_MAX);
    assert!(MEMBER_SESSION_MIN.as_secs() <= MEMBER_SESSION_DEFAULT.as_secs());
    assert!(MEMBER_SESSION_DEFAULT.as_secs() <= MEMBER_SESSION_MAX.as_secs());
    assert!(GROUP_MEMBERS_MAX <= MEMBERS_MAX);
    assert!(USAGE_REPEAT_MAX.as_secs() < USAGE_REPORTER_EXPIRY.as_secs());
    assert!(SUBSCRIPTION_TOPICS_MAX <= GROUP_PATTERNS_MAX);
};
