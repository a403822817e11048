//! Members of a group, and callers that are none, that read and write in one unit: over plain HTTP, through one frontend or
//! the other.
//!
//! Members hold partitions and note when; loners share a group without members and fight for every step.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use carnax_core::http::{
    AssignmentResponse, AtomicAppendResponse, CommitOffsetsResponse, GroupOffsetsResponse, HeartbeatRequest,
    LeftGroupResponse, header,
};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use crate::history::{Act, Append, AppendOutcome, Hold, Output, Partition, Recorder};
use crate::hosts::Ended;
use crate::http::{Call, Failure};
use crate::scenario::{FAULTS, FRONTENDS, HANDLED, HEALING, INPUT, PARTITIONS, place};
use crate::world::{SplitMix, now};

const MEMBERS_GROUP: &str = "members";
const LONERS_GROUP: &str = "loners";
const SESSION: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_millis(1_200);
/// Records that one output stands for at most.
const STEP_MAX: u64 = 5;

/// Joins, works, sleeps, leaves and dies until the faults end.
pub(crate) async fn belong(name: &'static str, seed: u64, recorder: Recorder) -> Ended {
    let mut random = SplitMix(seed);
    crate::clients::create_topics(random.next()).await?;
    let mut lives = 0;
    while now() < FAULTS {
        lives += 1;
        // Some come back under the id that they had.
        let id = if random.chance(500) { name.to_owned() } else { format!("{name}-{lives}") };
        let mut member = Member::new(id, SplitMix(random.next()), recorder.clone());
        member.live().await?;
        member.keep(&[]);
        tokio::time::sleep(random.between(Duration::ZERO, SESSION)).await;
    }
    Ok(())
}

/// Reads and writes in one unit, without being a member of anything.
pub(crate) async fn go_alone(seed: u64, recorder: Recorder) -> Ended {
    let mut random = SplitMix(seed);
    crate::clients::create_topics(random.next()).await?;
    while now() < FAULTS {
        let partition = u32::try_from(random.below(u64::from(PARTITIONS)))?;
        if let Some((from, end)) = committed(LONERS_GROUP, partition, &mut random).await {
            // The longer it thinks, the more others have done.
            tokio::time::sleep(random.between(Duration::ZERO, Duration::from_millis(80))).await;
            let output = step(partition, from, end, PARTITIONS, &mut random);
            if let Some(output) = output {
                let call = output_call(LONERS_GROUP, None, partition, from, output, &mut random)?;
                // Nobody tries again: if it was done, the next look shows it.
                let sent: Result<AtomicAppendResponse, Failure> = send(&call, &mut random).await;
                note(&recorder, output, sent.ok().as_ref());
            }
        }
        tokio::time::sleep(random.between(Duration::ZERO, Duration::from_millis(200))).await;
    }
    Ok(())
}

/// Up to where the inputs of all outputs are committed, once the cluster serves again.
pub(crate) async fn read_committed(seed: u64, recorder: &Recorder) -> Ended {
    let mut random = SplitMix(seed);
    for (group, first) in [(MEMBERS_GROUP, 0), (LONERS_GROUP, PARTITIONS)] {
        for partition in 0..PARTITIONS {
            let end = loop {
                match committed(group, partition, &mut random).await {
                    Some((from, _)) => break from.unwrap_or(0),
                    None if now() > FAULTS + HEALING => return Err("offsets cannot be read".into()),
                    None => tokio::time::sleep(HEARTBEAT).await,
                }
            };
            recorder.lock().handled.insert(HANDLED + first + partition, end);
        }
    }
    Ok(())
}

struct Member {
    id: String,
    epoch: u32,
    assignment_epoch: u64,
    next_heartbeat: Duration,
    /// When it must stop, if nothing is answered until then.
    until: Duration,
    /// Partitions, with the number and the beginning of the tenure.
    held: BTreeMap<Partition, (u64, Duration)>,
    random: SplitMix,
    recorder: Recorder,
}

impl Member {
    fn new(id: String, random: SplitMix, recorder: Recorder) -> Self {
        let (held, zero) = (BTreeMap::new(), Duration::ZERO);
        Self { id, epoch: 0, assignment_epoch: 0, next_heartbeat: zero, until: zero, held, random, recorder }
    }

    /// One life; ends with its death, its leaving, its expulsion or the end of the faults.
    async fn live(&mut self) -> Ended {
        if !self.join().await? {
            return Ok(());
        }
        loop {
            match self.random.below(400) {
                _ if now() > FAULTS => return self.leave().await,
                0..5 => return self.leave().await,
                5..10 => return Ok(()),
                10..15 => {
                    let held = self.held.clone();
                    tokio::time::sleep(self.random.between(SESSION / 4, SESSION * 2)).await;
                    // It wakes up and goes on with what it knew.
                    for (partition, (tenure, _)) in held {
                        self.act(partition, tenure).await?;
                    }
                }
                _ => tokio::time::sleep(self.random.between(Duration::ZERO, HEARTBEAT / 2)).await,
            }
            if now() >= self.next_heartbeat && !self.heartbeat().await? {
                return Ok(());
            }
            let held: Vec<(Partition, u64)> =
                self.held.iter().map(|(partition, (tenure, _))| (*partition, *tenure)).collect();
            let chosen = usize::try_from(self.random.below(2 * held.len() as u64))?;
            if let Some((partition, tenure)) = held.get(chosen).filter(|_| now() < self.until) {
                self.act(*partition, *tenure).await?;
            }
        }
    }

    async fn join(&mut self) -> Result<bool, Box<dyn std::error::Error>> {
        let request = json!({
            "member": self.id,
            "topics": [INPUT],
            "session_timeout_ms": u64::try_from(SESSION.as_millis())?,
        });
        let call = Call::post(format!("/v1/groups/{MEMBERS_GROUP}/members"), &request)?;
        while now() < FAULTS {
            let sent = now();
            match send::<AssignmentResponse>(&call, &mut self.random).await {
                Ok(assignment) => {
                    self.follow(sent, &assignment);
                    return Ok(true);
                }
                Err(_) => tokio::time::sleep(HEARTBEAT).await,
            }
        }
        Ok(false)
    }

    /// False if the member is none any more.
    async fn heartbeat(&mut self) -> Result<bool, Box<dyn std::error::Error>> {
        let request = HeartbeatRequest { epoch: self.epoch, assignment_epoch: self.assignment_epoch };
        let path = format!("/v1/groups/{MEMBERS_GROUP}/members/{}/heartbeat", self.id);
        let sent = now();
        match send::<AssignmentResponse>(&Call::post(path, &request)?, &mut self.random).await {
            Ok(assignment) => self.follow(sent, &assignment),
            Err(failure) if matches!(failure.code(), Some("unknown_member" | "fenced")) => return Ok(false),
            Err(_) => self.next_heartbeat = now() + HEARTBEAT / 4,
        }
        Ok(true)
    }

    fn follow(&mut self, sent: Duration, assignment: &AssignmentResponse) {
        let named = assignment.assignment.iter().filter(|topic| topic.topic.as_str() == INPUT);
        let given: Vec<Partition> =
            named.flat_map(|topic| topic.partitions.iter().map(|partition| partition.0)).collect();
        self.keep(&given);
        let changed = self.assignment_epoch != assignment.assignment_epoch;
        (self.epoch, self.assignment_epoch) = (assignment.epoch, assignment.assignment_epoch);
        self.until = sent + Duration::from_millis(assignment.session_timeout_ms);
        if now() < self.until {
            let mut history = self.recorder.lock();
            for partition in given {
                self.held.entry(partition).or_insert_with(|| {
                    history.tenures += 1;
                    (history.tenures, now())
                });
            }
        }
        self.next_heartbeat = if changed { now() } else { sent + HEARTBEAT };
    }

    /// Lets go of everything else; of everything if the session is over.
    fn keep(&mut self, kept: &[Partition]) {
        let (now, until) = (now(), self.until);
        let over = self.held.extract_if(.., |partition, _| !kept.contains(partition) || until <= now);
        let holds =
            over.map(|(partition, (tenure, from))| Hold { partition, tenure, from, until: now.min(until) });
        self.recorder.lock().holds.extend(holds);
    }

    async fn leave(&mut self) -> Ended {
        self.keep(&[]);
        let path = format!("/v1/groups/{MEMBERS_GROUP}/members/{}?epoch={}", self.id, self.epoch);
        // If nobody hears of it, the session ends by itself.
        let _ = send::<LeftGroupResponse>(&Call::delete(path), &mut self.random).await;
        Ok(())
    }

    /// One output, or a commit that moves nothing.
    async fn act(&mut self, partition: Partition, tenure: u64) -> Ended {
        let Some((from, end)) = committed(MEMBERS_GROUP, partition, &mut self.random).await else {
            return Ok(());
        };
        let member = Some((self.id.as_str(), self.epoch));
        let sent = now();
        let accepted = match step(partition, from, end, 0, &mut self.random) {
            Some(output) if self.random.chance(800) => {
                let call = output_call(MEMBERS_GROUP, member, partition, from, output, &mut self.random)?;
                let mut answer = send::<AtomicAppendResponse>(&call, &mut self.random).await;
                if matches!(&answer, Err(failure) if failure.code().is_none()) {
                    answer = send(&call, &mut self.random).await;
                }
                note(&self.recorder, output, answer.as_ref().ok());
                answer.is_ok()
            }
            _ => {
                let call = commit_call(&self.id, self.epoch, partition, from)?;
                send::<CommitOffsetsResponse>(&call, &mut self.random).await.is_ok()
            }
        };
        if accepted {
            self.recorder.lock().acts.push(Act { partition, tenure, sent, answered: now() });
        }
        Ok(())
    }
}

async fn send<T: DeserializeOwned>(call: &Call, random: &mut SplitMix) -> Result<T, Failure> {
    call.send(FRONTENDS[usize::from(random.chance(500))], PATIENCE).await
}

/// What is committed of a partition of the input, and where the partition ends.
async fn committed(group: &str, partition: Partition, random: &mut SplitMix) -> Option<(Option<u64>, u64)> {
    let call = Call::get(format!("/v1/groups/{group}/offsets?topic={INPUT}"));
    let page: GroupOffsetsResponse = send(&call, random).await.ok()?;
    let entry = page.offsets.into_iter().find(|entry| entry.partition.0 == partition)?;
    Some((entry.offset.map(|offset| offset.0), entry.high_watermark.0))
}

/// The next output of a partition of the input; none if there is nothing to read.
fn step(
    partition: Partition,
    from: Option<u64>,
    end: u64,
    first: u32,
    random: &mut SplitMix,
) -> Option<Output> {
    let from = from.unwrap_or(0);
    let to = end.min(from + 1 + random.below(STEP_MAX));
    (from < to).then_some(Output { partition: HANDLED + first + partition, from, to })
}

/// An output and the offset that it moves, in one unit.
fn output_call(
    group: &str,
    member: Option<(&str, u32)>,
    partition: Partition,
    from: Option<u64>,
    output: Output,
    random: &mut SplitMix,
) -> Result<Call, serde_json::Error> {
    let (topic, index) = place(output.partition);
    let value = BASE64_STANDARD.encode(output.value().to_be_bytes());
    let moved = json!({"topic": INPUT, "partition": partition, "from": from, "to": output.to});
    let mut moves = json!({"group": group, "offsets": [moved]});
    if let Some((member, epoch)) = member {
        (moves["member"], moves["epoch"]) = (Json::from(member), Json::from(epoch));
    }
    let body = json!({"records": [{"topic": topic, "partition": index, "value": value}], "group": moves});
    let call = Call::post("/v1/append?encoding=base64".to_owned(), &body)?;
    Ok(call.header(header::IDEMPOTENCY_KEY, format_args!("{group}-{:x}", random.next())))
}

fn commit_call(
    member: &str,
    epoch: u32,
    partition: Partition,
    committed: Option<u64>,
) -> Result<Call, serde_json::Error> {
    let offset = json!({"topic": INPUT, "partition": partition, "offset": committed, "from": committed});
    let body = json!({"member": member, "epoch": epoch, "offsets": [offset]});
    Call::post(format!("/v1/groups/{MEMBERS_GROUP}/offsets"), &body)
}

/// An output that was acknowledged is an append like any other.
fn note(recorder: &Recorder, output: Output, answer: Option<&AtomicAppendResponse>) {
    let Some(result) = answer.and_then(|answer| answer.results.first()) else { return };
    recorder.lock().appends.push(Append {
        parts: [(output.partition, vec![output.value()])].into(),
        outcome: AppendOutcome::Acknowledged {
            base_offsets: [(output.partition, result.base_offset.0)].into(),
        },
        ended: now(),
        ..Append::default()
    });
}
