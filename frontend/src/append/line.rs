//! One task that every unit passes, from the open segment to its answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::Incarnation;
use carnax_core::limits;
use carnax_core::metadata::{SegmentCommit, SegmentOutcome, UnitCommit, UnitOutcome};
use carnax_core::problem::Problem;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinHandle};
use tokio::time::Instant;

use super::accumulate::{Close, Content, OpenSegment, Submission, when_to_close};
use super::acknowledge::{UnitAck, outcome_unknown, pretend_accepted};
use super::commit::{CommitEnd, Committer};
use super::sequence::Sequencer;
use super::upload::{Epoch, Upload, UploadedSegment, upload};
use super::{AppendContext, Arrival};
use crate::deliberate_bugs::DeliberateBug;
use crate::metrics::Metrics;
use crate::usage::Usage;

/// How often a segment is uploaded under a new id since the metadata core found the last one too old.
const UPLOADS_OF_A_SEGMENT_MAX: u32 = 3;

/// A closed segment on its way.
#[derive(Debug)]
struct Travelling {
    /// Position in the order of closing.
    number: u64,
    acks: Vec<UnitAck>,
    stage: Stage,
    uploads: u32,
}

#[derive(Debug)]
enum Stage {
    Waiting(Upload),
    Uploading(AbortHandle),
    Uploaded(UploadedSegment),
}

/// The one thing that is done with the session at a time.
enum SessionWork {
    Opened(Result<(), Problem>),
    Committed(Vec<Travelling>, CommitEnd),
}

type UploadEnd = (u64, Result<Result<UploadedSegment, Problem>, JoinError>);

struct Line {
    context: Arc<AppendContext>,
    epoch: Epoch,
    started: Instant,
    /// Requests that wait for their predecessors before they join the open segment.
    sequencer: Sequencer<Submission>,
    open: OpenSegment,
    opened_at: Instant,
    next_number: u64,
    /// In the order of closing, without those that are being committed.
    travelling: VecDeque<Travelling>,
    uploads: FuturesUnordered<BoxFuture<'static, UploadEnd>>,
    /// None while it is at work.
    committer: Option<Committer>,
    session_work: Option<BoxFuture<'static, (Committer, SessionWork)>>,
    no_more: bool,
}

/// Runs until `submissions` is closed and everything that was taken is answered.
pub(crate) async fn run_line(context: Arc<AppendContext>, mut submissions: mpsc::Receiver<Arrival>) {
    let mut line = Line::new(context);
    loop {
        let again_after = line.advance();
        if line.is_done() {
            return;
        }
        let timer = async {
            match again_after {
                Some(rest) => tokio::time::sleep(rest).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            (committer, work) = next_work(&mut line.session_work) => {
                line.session_work = None;
                line.committer = Some(committer);
                line.session_worked(work, &mut submissions);
            }
            Some(end) = line.uploads.next() => line.uploaded(end, &mut submissions),
            arrived = submissions.recv(), if !line.no_more => match arrived {
                Some(arrived) => line.take_all(arrived),
                None => line.no_more = true,
            },
            () = timer => {}
        }
    }
}

async fn next_work<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

impl Line {
    fn new(context: Arc<AppendContext>) -> Self {
        let epoch = Epoch::default();
        let committer = Committer::new(Arc::clone(&context), epoch.clone());
        let spread = context.entropy.next_u64();
        let sequencer = Sequencer::new(context.settings.sequence_hold);
        Self {
            context,
            epoch,
            started: Instant::now(),
            sequencer,
            open: OpenSegment::new(spread),
            opened_at: Instant::now(),
            next_number: 0,
            travelling: VecDeque::new(),
            uploads: FuturesUnordered::new(),
            committer: Some(committer),
            session_work: None,
            no_more: false,
        }
    }

    fn is_done(&self) -> bool {
        let is_empty = self.open.is_empty() && self.sequencer.is_empty() && self.travelling.is_empty();
        self.no_more && is_empty && self.session_work.is_none()
    }

    /// Takes requests that came together: one segment takes all of them, if it can.
    fn take_all(&mut self, arrived: Arrival) {
        if !self.open.has_room_for(&arrived) {
            self.close();
        }
        arrived.into_iter().for_each(|submission| self.take(submission));
    }

    /// Takes one request: it joins the open segment, unless its producer's request before it is still to come.
    fn take(&mut self, submission: Submission) {
        let stamp = match &submission.content {
            Content::Own(unit) => unit.commit.producer.clone(),
            Content::Shared(_) => None,
        };
        let Some(stamp) = stamp else { return self.accumulate(submission) };
        let passing = self.sequencer.arrive(&stamp, submission, self.started.elapsed());
        if passing.is_empty() {
            self.context.metrics.sequence_holds.inc();
        }
        passing.into_iter().for_each(|submission| self.accumulate(submission));
    }

    /// Accumulates what has waited for its predecessors long enough; says how long the others may.
    fn let_go_of_held(&mut self) -> Option<Duration> {
        let now = self.started.elapsed();
        let passing = if self.no_more { self.sequencer.release() } else { self.sequencer.expire(now) };
        passing.into_iter().for_each(|submission| self.accumulate(submission));
        self.sequencer.next_deadline().map(|until| until.saturating_sub(now))
    }

    fn accumulate(&mut self, submission: Submission) {
        if !self.open.has_room_for(std::slice::from_ref(&submission)) {
            self.close();
        }
        if self.open.is_empty() {
            self.opened_at = Instant::now();
        }
        self.open.push(submission);
    }

    /// Does all that can be done now; says after what time there is more to do although nothing happens.
    fn advance(&mut self) -> Option<Duration> {
        let held_for = self.let_go_of_held();
        let close_after = self.close_if_due();
        self.start_uploads();
        self.start_session_work();
        [held_for, close_after].into_iter().flatten().min()
    }

    fn close_if_due(&mut self) -> Option<Duration> {
        let waiting = self.travelling.iter().any(|segment| matches!(segment.stage, Stage::Waiting(_)));
        let slot_free = !waiting && self.uploads.len() < self.context.settings.uploads_max;
        let fill = self.open.fill(self.opened_at.elapsed());
        match when_to_close(fill, &self.context.settings, slot_free) {
            Close::Now => self.close(),
            // Nothing more will come: there is nothing to linger for.
            Close::After(_) if self.no_more => self.close(),
            Close::After(rest) => return Some(rest),
            Close::Later => {}
        }
        None
    }

    fn close(&mut self) {
        let spread = self.context.entropy.next_u64();
        let closed = std::mem::replace(&mut self.open, OpenSegment::new(spread)).close();
        if closed.units.is_empty() {
            return;
        }
        let number = self.next_number;
        self.next_number += 1;
        let stage = Stage::Waiting(Upload::Closed(closed.units));
        self.travelling.push_back(Travelling { number, acks: closed.acks, stage, uploads: 0 });
    }

    fn start_uploads(&mut self) {
        if !self.epoch.is_known() {
            return;
        }
        let free = self.context.settings.uploads_max.saturating_sub(self.uploads.len());
        let waiting = self.travelling.iter_mut().filter(|segment| matches!(segment.stage, Stage::Waiting(_)));
        for segment in waiting.take(free) {
            let (context, epoch) = (Arc::clone(&self.context), self.epoch.clone());
            let stage = std::mem::replace(&mut segment.stage, Stage::Waiting(Upload::Closed(Vec::new())));
            let Stage::Waiting(what) = stage else { continue };
            let task: JoinHandle<_> =
                self.context.tasks.spawn(async move { upload(&context, &epoch, what).await });
            segment.stage = Stage::Uploading(task.abort_handle());
            segment.uploads += 1;
            let number = segment.number;
            self.uploads.push(Box::pin(async move { (number, task.await) }));
        }
    }

    fn start_session_work(&mut self) {
        if self.travelling.is_empty() {
            return;
        }
        let Some(mut committer) = self.committer.take() else { return };
        if !self.epoch.is_known() {
            self.session_work = Some(Box::pin(async move {
                let opened = committer.open().await;
                (committer, SessionWork::Opened(opened))
            }));
            return;
        }
        let batch = self.take_uploaded();
        if batch.is_empty() {
            self.committer = Some(committer);
            return;
        }
        self.session_work = Some(Box::pin(async move {
            let commits = batch.iter().filter_map(Travelling::commit).collect();
            let uploaded_under = batch.iter().filter_map(Travelling::uploaded_under).collect();
            let end = committer.commit(&uploaded_under, commits).await;
            (committer, SessionWork::Committed(batch, end))
        }));
    }

    /// Everything uploaded up to the first segment that is not.
    fn take_uploaded(&mut self) -> Vec<Travelling> {
        let uploaded = self
            .travelling
            .iter()
            .take(limits::COMMIT_SEGMENTS_MAX)
            .take_while(|segment| matches!(segment.stage, Stage::Uploaded(_)))
            .count();
        let mut batch: Vec<Travelling> = self.travelling.drain(..uploaded).collect();
        if self.context.bugs.makes(DeliberateBug::AcknowledgeBeforeCommit) {
            for ack in batch.iter_mut().flat_map(|segment| std::mem::take(&mut segment.acks)) {
                pretend_accepted(ack, self.context.clock.wall());
            }
        }
        batch
    }

    fn uploaded(&mut self, (number, result): UploadEnd, submissions: &mut mpsc::Receiver<Arrival>) {
        let Some(at) = self.travelling.iter().position(|segment| segment.number == number) else { return };
        match result {
            Ok(Ok(uploaded)) => self.travelling[at].stage = Stage::Uploaded(uploaded),
            Ok(Err(problem)) => self.fail_from(at, &problem, submissions),
            Err(error) => {
                tracing::error!(%error, "an upload ended without a result");
                let problem =
                    Problem::new(ErrorCode::ObjectStoreUnavailable, "the upload of the records failed");
                self.fail_from(at, &problem, submissions);
            }
        }
    }

    fn session_worked(&mut self, work: SessionWork, submissions: &mut mpsc::Receiver<Arrival>) {
        match work {
            SessionWork::Opened(Ok(())) => {}
            SessionWork::Opened(Err(problem)) => self.fail_from(0, &problem, submissions),
            SessionWork::Committed(batch, CommitEnd::Decided(outcomes)) => self.decided(batch, outcomes),
            SessionWork::Committed(batch, CommitEnd::NotDone(problem)) => {
                batch.into_iter().for_each(|segment| self.fail(segment, &problem));
                self.fail_from(0, &problem, submissions);
            }
            SessionWork::Committed(batch, CommitEnd::Unknown) => {
                batch.into_iter().for_each(|segment| self.fail(segment, &outcome_unknown()));
                let behind = Problem::new(
                    ErrorCode::Unavailable,
                    "an append before this one has an unknown outcome; this one was not sent",
                );
                self.fail_from(0, &behind, submissions);
            }
        }
    }

    /// Answers every unit; segments whose id was too old go back to the head of the line, in order.
    fn decided(&mut self, batch: Vec<Travelling>, outcomes: Vec<SegmentOutcome>) {
        let mut stale = Vec::new();
        let mut outcomes = outcomes.into_iter();
        for mut segment in batch {
            match outcomes.next() {
                Some(SegmentOutcome::Decided(units)) => self.acknowledge(segment, units),
                Some(SegmentOutcome::Refused(problem)) => {
                    let again =
                        problem.code == ErrorCode::StaleSegment && segment.uploads < UPLOADS_OF_A_SEGMENT_MAX;
                    match segment.stage {
                        Stage::Uploaded(uploaded) if again => {
                            segment.stage = Stage::Waiting(Upload::Again(uploaded.object));
                            stale.push(segment);
                        }
                        stage => self.fail(Travelling { stage, ..segment }, &problem),
                    }
                }
                None => self.fail(segment, &outcome_unknown()),
            }
        }
        for segment in stale.into_iter().rev() {
            self.travelling.push_front(segment);
        }
    }

    /// Answers every unit of a segment, and lets those go on that waited for one of them.
    fn acknowledge(&mut self, segment: Travelling, units: Vec<UnitOutcome>) {
        let metrics = &self.context.metrics;
        if let Stage::Uploaded(uploaded) = &segment.stage {
            metrics.segments.inc();
            metrics.appended_bytes.inc_by(uploaded.object.payload.length());
        }
        if let Stage::Uploaded(uploaded) = &segment.stage {
            count_usage(&self.context.usage, (&uploaded.object.units, &segment.acks), &units);
        }
        let mut units = units.into_iter();
        let mut passing = Vec::new();
        for ack in segment.acks {
            let Some(outcome) = units.next() else {
                ack.failed(&outcome_unknown());
                continue;
            };
            count(&outcome, &ack, metrics);
            if let Some(stamp) = &ack.producer {
                passing.extend(self.sequencer.decided(stamp, &outcome));
            }
            ack.decided(outcome);
        }
        passing.into_iter().for_each(|submission| self.accumulate(submission));
    }

    fn fail(&mut self, segment: Travelling, problem: &Problem) {
        if let Stage::Uploading(task) = &segment.stage {
            task.abort();
        }
        self.fail_units(segment.acks, problem);
    }

    fn fail_units(&mut self, acks: Vec<UnitAck>, problem: &Problem) {
        for ack in acks {
            if let Some(stamp) = &ack.producer {
                self.sequencer.failed(stamp, problem);
            }
            ack.failed(problem);
        }
    }

    /// Fails a segment and everything behind it that was not sent: what was closed, what is open, what waits. What is held
    /// for its predecessor stays held.
    fn fail_from(&mut self, at: usize, problem: &Problem, submissions: &mut mpsc::Receiver<Arrival>) {
        for segment in self.travelling.split_off(at) {
            self.fail(segment, problem);
        }
        let spread = self.context.entropy.next_u64();
        let open = std::mem::replace(&mut self.open, OpenSegment::new(spread));
        self.fail_units(open.close().acks, problem);
        // Only what waits now: what comes later was sent after these answers.
        for _ in 0..submissions.len() {
            let Ok(arrived) = submissions.try_recv() else { return };
            for submission in arrived {
                let _ = submission.reply.send(Err(problem.clone()));
            }
        }
    }
}

impl Travelling {
    fn commit(&self) -> Option<SegmentCommit> {
        let Stage::Uploaded(uploaded) = &self.stage else { return None };
        Some(SegmentCommit {
            segment: uploaded.key.segment,
            size: uploaded.object.payload.length(),
            units: uploaded.object.units.clone(),
        })
    }

    fn uploaded_under(&self) -> Option<Incarnation> {
        let Stage::Uploaded(uploaded) = &self.stage else { return None };
        Some(uploaded.key.incarnation)
    }
}

/// Counts what is in the log now that was not before.
fn count_usage(usage: &Usage, (units, acks): (&[UnitCommit], &[UnitAck]), outcomes: &[UnitOutcome]) {
    for ((unit, ack), outcome) in units.iter().zip(acks).zip(outcomes) {
        let UnitOutcome::Accepted { .. } = outcome else { continue };
        for slice in &unit.slices {
            usage.appended(slice.topic, slice.records.into(), slice.bytes.length);
        }
        for (token, records, bytes) in ack.by_token(&unit.slices) {
            usage.appended_with(token, records, bytes);
        }
    }
}

fn count(outcome: &UnitOutcome, ack: &UnitAck, metrics: &Metrics) {
    match outcome {
        UnitOutcome::Accepted { .. } => metrics.appended_units.inc(),
        UnitOutcome::Duplicate { .. } => {
            let by = if ack.producer.is_some() { "producer" } else { "key" };
            metrics.duplicates.with_label_values(&[by]).inc();
        }
        UnitOutcome::Refused(problem) => {
            metrics.units_refused.with_label_values(&[problem.code.as_str()]).inc();
        }
    }
}
