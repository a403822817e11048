//! A topic in memory behind the HTTP API, with a hook before every append.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use carnax::{
    AppendResponse, AppendResult, AtomicAppendResponse, AtomicAppendResult, ErrorCode, FencingToken,
    FencingTokenResponse, Offset, PartitionIndex, Timestamp, TopicId, TopicResponse,
};
use carnax_core::http::{
    AppendHead, OffsetResponse, PartitionFrame, PartitionOffsetResponse, PartitionResponse,
    RaiseEpochRequest, SetFencingTokenRequest, TopicOffsetsResponse, read_envelope, read_frames,
};
use carnax_core::record::{Batch, set_base_offset};
use http::{Method, Response};
use http_body_util::Full;

use crate::producers::{Known, Producers, Stamp};
use crate::server::{Reply, Seen};

/// The records of one partition, as values.
pub(crate) type Values = Vec<String>;

#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) log_start: u64,
    pub(crate) next: u64,
    pub(crate) batches: Vec<(u64, Bytes)>,
    pub(crate) token: Option<FencingToken>,
}

/// Shared with the script of a server.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) topic_id: TopicId,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) config: Vec<(String, String)>,
    pub(crate) producers: Producers,
    /// What was sent under each idempotency key, and its answer.
    keys: BTreeMap<String, (Bytes, AtomicAppendResponse)>,
    /// The last group offsets that moved.
    pub(crate) moved: Option<carnax_core::http::AppendGroupOffsets>,
}

impl Log {
    pub(crate) fn new(partitions: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            topic_id: topic_id(1),
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            config: Vec::new(),
            producers: Producers::default(),
            keys: BTreeMap::new(),
            moved: None,
        })))
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn values(&self, partition: usize) -> Values {
        self.change(|state| {
            let batches = state.partitions[partition].batches.iter();
            let batches = batches.map(|(_, bytes)| Batch::parse_next(&mut bytes.clone()).unwrap().unwrap());
            let records =
                batches.flat_map(|batch| batch.records().unwrap().map(Result::unwrap).collect::<Vec<_>>());
            records.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
        })
    }

    /// Does what a frontend would do.
    pub(crate) fn serve(&self, seen: &Seen) -> Reply {
        let mut state = self.0.lock().unwrap();
        let known = seen.header("carnax-topic-id");
        if known.is_some_and(|id| id != state.topic_id.to_string()) {
            return Reply::problem(ErrorCode::TopicRecreated, |_| {});
        }
        let parts: Vec<&str> = seen.path.split('/').collect();
        match (&seen.method, parts.as_slice()) {
            (&Method::GET, ["", "v1", "topics", _]) => Reply::json(&state.describe()),
            (&Method::POST, ["", "v1", "topics", _, "records"]) => {
                state.append(seen, &read_frames(seen.body.clone()).unwrap())
            }
            (&Method::POST, ["", "v1", "topics", _, "partitions", partition, "records"]) => {
                let partition = PartitionIndex(partition.parse().unwrap());
                state.append(seen, &[PartitionFrame { partition, batches: seen.body.clone() }])
            }
            (&Method::GET, ["", "v1", "topics", _, "partitions", partition, "records"]) => {
                state.fetch(seen, partition.parse().unwrap())
            }
            (&Method::GET, ["", "v1", "topics", _, "partitions", partition, "offsets"]) => {
                state.offset(seen.param("at").unwrap(), partition.parse().unwrap())
            }
            (&Method::GET, ["", "v1", "topics", _, "offsets"]) => state.offsets(seen.param("at").unwrap()),
            (&Method::POST, ["", "v1", "append"]) => state.append_atomically(seen),
            (&Method::POST, ["", "v1", "producers", id, "epoch"]) => {
                let request: RaiseEpochRequest = serde_json::from_slice(&seen.body).unwrap();
                state.producers.raise(id, request.from)
            }
            (&Method::GET, ["", "v1", "producers", id]) => state.producers.describe(id),
            (method, ["", "v1", "topics", _, "partitions", partition, "fencing-token"]) => {
                state.fence(method, seen, partition.parse().unwrap())
            }
            _ => Reply::problem(ErrorCode::RouteNotFound, |_| {}),
        }
    }
}

impl State {
    fn describe(&self) -> TopicResponse {
        let bounds = self.partitions.iter().enumerate().map(|(index, partition)| PartitionResponse {
            partition: PartitionIndex(u32::try_from(index).unwrap()),
            log_start_offset: Offset(partition.log_start),
            high_watermark: Offset(partition.next),
            bytes: 0,
        });
        TopicResponse {
            name: "t".parse().unwrap(),
            topic_id: self.topic_id,
            partitions: u32::try_from(self.partitions.len()).unwrap(),
            config: self.config.iter().cloned().collect(),
            created: Timestamp::EPOCH,
            partition_offsets: bounds.collect(),
        }
    }

    fn append(&mut self, seen: &Seen, frames: &[PartitionFrame]) -> Reply {
        let stamp = Stamp::of(seen);
        match stamp.as_ref().map(|stamp| self.producers.look_up(stamp, seen)) {
            None | Some(Known::New) => {}
            Some(Known::Duplicate(results)) => return self.answer(&results, true),
            Some(Known::Refused(reply)) => return reply,
        }
        let count = self.partitions.len().to_string();
        if seen.header("carnax-partition-count").is_some_and(|routed_by| routed_by != count) {
            return Reply::problem(ErrorCode::StaleRouting, |_| {});
        }
        if let Some(gap) = stamp.as_ref().and_then(|stamp| self.producers.gap(stamp)) {
            return gap;
        }
        let results: Vec<_> = frames.iter().map(|frame| self.append_frame(frame)).collect();
        if let Some(stamp) = stamp {
            self.producers.accept(stamp, seen, results.clone());
        }
        self.answer(&results, false)
    }

    fn answer(&self, results: &[AtomicAppendResult], duplicate: bool) -> Reply {
        let results = results.iter().map(|result| AppendResult {
            partition: result.partition,
            base_offset: result.base_offset,
            count: result.count,
            append_time: result.append_time,
        });
        Reply::json(&AppendResponse { results: results.collect(), duplicate, topic_id: self.topic_id })
    }

    fn append_atomically(&mut self, seen: &Seen) -> Reply {
        let key = seen.header("idempotency-key").unwrap().to_owned();
        match self.keys.get(&key) {
            Some((body, answer)) if *body == seen.body => {
                return Reply::json(&AtomicAppendResponse { duplicate: true, ..answer.clone() });
            }
            Some(_) => return Reply::problem(ErrorCode::BodyMismatch, |_| {}),
            None => {}
        }
        let (head, batches) = read_envelope(seen.body.clone()).unwrap();
        if let Some(refused) = self.check(&head) {
            return refused;
        }
        let frames = head.parts.iter().zip(batches);
        let frames = frames.map(|(part, batches)| PartitionFrame { partition: part.partition, batches });
        let results = frames.map(|frame| self.append_frame(&frame)).collect();
        let answer = AtomicAppendResponse { results, duplicate: false };
        self.moved = head.group;
        self.keys.insert(key, (seen.body.clone(), answer.clone()));
        Reply::json(&answer)
    }

    fn check(&self, head: &AppendHead) -> Option<Reply> {
        let count = u32::try_from(self.partitions.len()).unwrap();
        for part in &head.parts {
            if part.topic_id.is_some_and(|id| id != self.topic_id) {
                return Some(Reply::problem(ErrorCode::TopicRecreated, |_| {}));
            }
            if part.partition_count.is_some_and(|routed_by| routed_by != count) {
                return Some(Reply::problem(ErrorCode::StaleRouting, |_| {}));
            }
        }
        head.conditions.iter().find_map(|condition| {
            let partition = &self.partitions[condition.partition.0 as usize];
            let failed = |expected: String, actual: String| {
                (expected != actual).then(|| {
                    Reply::problem(ErrorCode::ConditionFailed, |facts| {
                        (facts.expected, facts.actual) = (Some(expected), Some(actual));
                    })
                })
            };
            let text = |token: Option<&FencingToken>| token.map_or("none".to_owned(), ToString::to_string);
            let offset = condition.expected_next_offset;
            let offset = offset.and_then(|offset| failed(offset.to_string(), partition.next.to_string()));
            let token = condition.fencing_token.as_ref();
            offset.or_else(|| failed(text(token), text(partition.token.as_ref())).filter(|_| token.is_some()))
        })
    }

    fn fence(&mut self, method: &Method, seen: &Seen, index: usize) -> Reply {
        let partition = &mut self.partitions[index];
        if method == Method::PUT {
            let request: SetFencingTokenRequest = serde_json::from_slice(&seen.body).unwrap();
            if request.from.is_some_and(|from| from != partition.token) {
                let actual = partition.token.as_ref().map_or("none".to_owned(), ToString::to_string);
                return Reply::problem(ErrorCode::ConditionFailed, |facts| facts.actual = Some(actual));
            }
            partition.token = request.token;
        }
        let high_watermark = Offset(partition.next);
        Reply::json(&FencingTokenResponse { token: partition.token.clone(), high_watermark })
    }

    fn append_frame(&mut self, frame: &PartitionFrame) -> AtomicAppendResult {
        let topic_id = self.topic_id;
        let partition = &mut self.partitions[frame.partition.0 as usize];
        let base_offset = Offset(partition.next);
        for batch in Batch::parse_all(frame.batches.clone()).unwrap() {
            batch.verify_records().unwrap();
            let count = batch.offset_count();
            let mut bytes = BytesMut::from(batch.into_bytes());
            set_base_offset(&mut bytes, Offset(partition.next));
            partition.batches.push((partition.next, bytes.freeze()));
            partition.next += u64::from(count);
        }
        let count = u32::try_from(partition.next - base_offset.0).unwrap();
        AtomicAppendResult {
            topic: None,
            topic_id,
            partition: frame.partition,
            base_offset,
            count,
            append_time: Timestamp::from_millis(1),
        }
    }

    fn fetch(&self, seen: &Seen, index: usize) -> Reply {
        let partition = &self.partitions[index];
        let offset: u64 = seen.param("offset").unwrap().parse().unwrap();
        let bounds = |code| {
            Reply::problem(code, |facts| {
                facts.log_start_offset = Some(Offset(partition.log_start));
                facts.high_watermark = Some(Offset(partition.next));
            })
        };
        if offset < partition.log_start {
            return bounds(ErrorCode::OffsetBelowLogStart);
        }
        if offset > partition.next {
            return bounds(ErrorCode::OffsetAboveHighWatermark);
        }
        let max_bytes: usize = seen.param("max_bytes").unwrap().parse().unwrap();
        let mut next = offset;
        let mut body = BytesMut::new();
        let ends = partition.batches.iter().skip(1).map(|(base, _)| *base).chain([partition.next]);
        for ((_, bytes), end) in partition.batches.iter().zip(ends).filter(|(_, end)| *end > offset) {
            if !body.is_empty() && body.len() + bytes.len() > max_bytes {
                break;
            }
            body.extend_from_slice(bytes);
            next = end;
        }
        let answer = Response::builder()
            .header("carnax-next-offset", next)
            .header("carnax-high-watermark", partition.next)
            .header("carnax-log-start-offset", partition.log_start)
            .header("carnax-caught-up", (next == partition.next).to_string())
            .header("carnax-topic-id", self.topic_id.to_string());
        Reply::Answer(answer.body(Full::new(body.freeze())).unwrap())
    }

    fn offset(&self, at: &str, index: usize) -> Reply {
        Reply::json(&OffsetResponse { offset: self.find(at, index), timestamp: None })
    }

    fn offsets(&self, at: &str) -> Reply {
        let found = (0..).zip(0..self.partitions.len()).map(|(partition, index)| PartitionOffsetResponse {
            partition: PartitionIndex(partition),
            offset: self.find(at, index),
            timestamp: None,
        });
        Reply::json(&TopicOffsetsResponse { topic_id: self.topic_id, offsets: found.collect() })
    }

    fn find(&self, at: &str, index: usize) -> Offset {
        let partition = &self.partitions[index];
        Offset(match at {
            "earliest" => partition.log_start,
            "latest" => partition.next,
            // Records are stamped with their offsets here.
            timestamp => timestamp.parse::<u64>().unwrap().clamp(partition.log_start, partition.next),
        })
    }
}

pub(crate) fn topic_id(number: u128) -> TopicId {
    TopicId::from_parts(Timestamp::from_millis(1_700_000_000_000), number)
}
