//! A worker of key compaction, as slow and as forgetful as one likes: rounds are planned, carried out object by object, and finished.

use std::collections::BTreeMap;

use carnax_core::metadata::{CompactionPlan, CompactionRound, FinishCompaction, PlanCompaction, SourceSlice};
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Reply, answer};

use crate::bucket::{Bucket, GRACE, Rewritten};
use crate::support::{Cluster, INCARNATION};

/// `min.compaction.lag.ms`.
pub(crate) const LAG: i64 = 500;
/// A worker has room for so many keys: rounds end within a slice.
const KEYS_MAX: usize = 2;

/// A round under way.
pub(crate) struct Round {
    pub(crate) plan: CompactionRound,
    log_time: i64,
    /// One past the newest record that it knows, and where that is by key.
    until: u64,
    newest: BTreeMap<u8, u64>,
    per_object: usize,
    /// Slices that are done.
    done: usize,
    tombstones_left: bool,
}

/// Rounds that were planned, the oldest first.
#[derive(Default)]
pub(crate) struct Rounds {
    pub(crate) under_way: Vec<Round>,
    pub(crate) finished: usize,
    /// Groups that were not what they had been.
    pub(crate) lost: usize,
    /// Slices of merges that were rewritten.
    pub(crate) merged_slices: usize,
}

impl Rounds {
    /// Plans a round, if there is one, whose objects each take so many slices.
    pub(crate) fn plan(&mut self, cluster: &Cluster, bucket: &Bucket, per_object: usize) {
        let now = Timestamp::from_millis(cluster.now);
        let plan = answer::plan_compaction(&cluster.state, &PlanCompaction { after: None }, now);
        let CompactionPlan { round: Some(plan), .. } = plan.unwrap() else { return };
        let (mut newest, mut until) = (BTreeMap::new(), plan.clean_until.0);
        for SourceSlice { slice, .. } in &plan.slices {
            let records = bucket.read(slice).expect("what was just planned is there");
            let new = plan.clean_until.0..plan.until.0;
            for record in records.iter().flatten().filter(|record| new.contains(&record.offset)) {
                assert!(cluster.now - slice.append_time.millis() >= LAG, "what is young is left alone");
                if newest.len() == KEYS_MAX && !newest.contains_key(&record.key) {
                    break;
                }
                newest.insert(record.key, record.offset);
                until = record.offset + 1;
            }
            if records.iter().flatten().any(|record| record.offset >= until.max(plan.clean_until.0)) {
                break;
            }
            until = until.max(slice.end_offset.0.min(plan.until.0));
        }
        let log_time = cluster.now;
        let (done, tombstones_left) = (0, false);
        self.under_way.push(Round { plan, log_time, until, newest, per_object, done, tombstones_left });
    }

    /// Writes one object of the oldest round, or finishes it.
    pub(crate) fn compact(&mut self, cluster: &mut Cluster, bucket: &mut Bucket) {
        if self.under_way.is_empty() {
            return;
        }
        let mut round = self.under_way.remove(0);
        let slices = &round.plan.slices[round.done..];
        let slices: Vec<SourceSlice> = slices.iter().take(round.per_object).copied().collect();
        if slices.first().is_none_or(|first| first.slice.base_offset.0 >= round.until) {
            return self.finish(cluster, &round);
        }
        let Some(read) = bucket.read_all(&slices) else {
            // It was replaced or dropped so long ago that a reader of the plan may not expect it.
            assert!(cluster.now - round.log_time >= GRACE);
            return;
        };
        let mut records = Vec::new();
        for record in read.into_iter().flatten() {
            let known = record.offset < round.until;
            let superseded = round.newest.get(&record.key).is_some_and(|newest| *newest > record.offset);
            let ripe = record.value.is_none() && record.offset < round.plan.tombstones_until.0;
            if known && (superseded || ripe) {
                continue;
            }
            round.tombstones_left |= known && record.value.is_none();
            records.push(Some(record));
        }
        if records.is_empty() {
            records.push(None);
        }
        round.done += slices.len();
        let merged = slices.iter().filter(|source| source.slice.rewritten).count();
        if bucket.replace(cluster, &[Rewritten { on: round.plan.on, slices, records }]) == [true] {
            self.merged_slices += merged;
            self.under_way.insert(0, round);
        } else {
            self.lost += 1;
        }
    }

    fn finish(&mut self, cluster: &mut Cluster, round: &Round) {
        let CompactionRound { on, follows, tombstones_until, .. } = round.plan;
        let clean_until = Offset(round.until);
        let tombstones_left = round.tombstones_left;
        let incarnation = INCARNATION;
        let request =
            FinishCompaction { incarnation, on, follows, clean_until, tombstones_until, tombstones_left };
        match cluster.one(Command::FinishCompaction(request)) {
            Ok(Reply::CompactionFinished(reply)) => self.finished += usize::from(reply.finished),
            other => panic!("{other:?}"),
        }
    }
}
