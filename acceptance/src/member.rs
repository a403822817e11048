//! A member of a group over plain HTTP: it heartbeats, commits, and writes outputs in the name of what it holds. What it
//! held and what was accepted of it, it notes by the one clock of this process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carnax::{ErrorCode, PartitionIndex};
use carnax_core::http::{
    AssignmentResponse, AtomicAppendResponse, CommitOffsetsRequest, CommitOffsetsResponse,
    GroupOffsetsResponse, HeartbeatRequest, JoinGroupRequest, LeftGroupResponse, OffsetEntry,
};
use carnax_core::name::MemberId;
use carnax_core::offset::Offset;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::{Api, Call, Failure};
use crate::ownership::{Act, Hold, Notes, Place, Tenure};
use crate::random::Random;

/// How long a member may be silent.
pub const SESSION: Duration = Duration::from_secs(6);
const HEARTBEAT: Duration = Duration::from_millis(1_000);
/// After so many tries without an answer nobody knows what became of an act.
const TRIES: usize = 4;

/// What a group reads, and where its outputs go: one partition for each partition that it reads.
#[derive(Debug)]
pub struct Plan {
    /// The group.
    pub group: String,
    /// Topics with their partitions.
    pub topics: Vec<(String, u32)>,
    /// The topic of the outputs.
    pub outputs: String,
    /// Records in each partition.
    pub inputs: u64,
}

impl Plan {
    /// The number of a partition over all topics.
    pub fn place(&self, topic: &str, partition: PartitionIndex) -> Option<Place> {
        let mut before = 0;
        for (name, partitions) in &self.topics {
            if name == topic {
                return Some(before + usize::try_from(partition.0).ok()?);
            }
            before += usize::try_from(*partitions).ok()?;
        }
        None
    }

    /// All partitions of all topics.
    pub fn places(&self) -> impl Iterator<Item = (&str, PartitionIndex)> {
        self.topics.iter().flat_map(|(name, partitions)| {
            (0..*partitions).map(|partition| (name.as_str(), PartitionIndex(partition)))
        })
    }

    fn of(&self, place: Place) -> (&str, PartitionIndex) {
        self.places().nth(place).unwrap_or(("", PartitionIndex(0)))
    }
}

/// What all members share.
#[derive(Debug)]
pub struct Shared {
    /// What they do.
    pub plan: Plan,
    api: Api,
    started: Instant,
    state: Mutex<State>,
}

/// What was noted.
#[derive(Debug, Default)]
pub struct State {
    /// For the check.
    pub notes: Notes,
    /// What is held now, by member.
    pub held: BTreeMap<String, Held>,
    /// How often what was refused.
    pub refused: BTreeMap<String, usize>,
    /// Members that were told to be none any more although they had not left.
    pub expelled: usize,
    tenures: Tenure,
}

/// What one member holds now.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its epoch.
    pub epoch: u32,
    /// Until when, unless a heartbeat is answered.
    pub until: Instant,
    /// Partitions, with the number and the beginning of the tenure.
    pub places: BTreeMap<Place, (Tenure, Instant)>,
}

impl Shared {
    /// Nothing happened yet.
    pub fn new(plan: Plan, api: Api) -> Self {
        Self { plan, api: api.with_timeout(SESSION / 3), started: Instant::now(), state: Mutex::default() }
    }

    /// What was noted so far.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member that is gone for whatever reason holds nothing.
    pub fn let_go_of_all(&self, member: &str) {
        self.keep(member, &BTreeSet::new());
    }

    /// Lets go of everything else.
    fn keep(&self, member: &str, kept: &BTreeSet<Place>) {
        let now = Instant::now();
        let mut state = self.lock();
        let State { held, notes, .. } = &mut *state;
        let Some(held) = held.get_mut(member) else { return };
        let over = held.places.extract_if(.., |place, _| !kept.contains(place) || held.until <= now);
        for (place, (tenure, from)) in over {
            let (from, until) = (from - self.started, now.min(held.until) - self.started);
            let owner = owner(member, held.epoch);
            notes.holds.push(Hold { place, owner, tenure, from, until });
        }
        if held.places.is_empty() && kept.is_empty() {
            state.held.remove(member);
        }
    }

    fn take(&self, member: &str, epoch: u32, until: Instant, given: &BTreeSet<Place>) {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        let held = Held { epoch, until, places: BTreeMap::new() };
        let held = state.held.entry(member.to_owned()).or_insert(held);
        (held.epoch, held.until) = (epoch, until);
        for place in given {
            held.places.entry(*place).or_insert_with(|| {
                state.tenures += 1;
                (state.tenures, now)
            });
        }
    }

    fn refused(&self, failure: &Failure) {
        let code = failure.problem().map_or("no answer", |problem| problem.code.as_str());
        *self.lock().refused.entry(code.to_owned()).or_default() += 1;
    }
}

/// What the driver of a scenario tells a member.
#[derive(Debug)]
pub enum Order {
    /// Leave in order.
    Leave,
    /// Be silent for a while, and then go on as if nothing had happened.
    Sleep(Duration),
}

/// One life of a member.
#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    id: MemberId,
    by_pattern: bool,
    random: Random,
    frontend: usize,
    epoch: u32,
    assignment_epoch: u64,
    next_heartbeat: Instant,
    number: u64,
    /// What is committed in what it holds, as far as it knows.
    committed: BTreeMap<Tenure, Option<u64>>,
    /// Acts of this member of which nobody knows what became.
    unsettled: BTreeSet<Place>,
}

impl Member {
    /// A member that has not joined yet; by pattern or by names of topics.
    pub fn new(shared: &Arc<Shared>, id: MemberId, by_pattern: bool, seed: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            id,
            by_pattern,
            random: Random::new(seed),
            frontend: 0,
            epoch: 0,
            assignment_epoch: 0,
            next_heartbeat: Instant::now(),
            number: 0,
            committed: BTreeMap::new(),
            unsettled: BTreeSet::new(),
        }
    }

    /// Joins, and works until it is told to leave. Dropping the future is the death of the member.
    ///
    /// # Errors
    /// What no member may be told.
    pub async fn live(mut self, mut orders: mpsc::Receiver<Order>) -> Result<()> {
        self.join().await?;
        loop {
            let work = Instant::now() + self.random.millis(100..500);
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Sleep(duration)) => self.sleep(duration).await?,
                    Some(Order::Leave) | None => return self.leave().await,
                },
                () = tokio::time::sleep_until(self.next_heartbeat.min(work)) => {}
            }
            if self.next_heartbeat <= Instant::now() {
                self.heartbeat().await?;
            } else {
                self.work().await?;
            }
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/groups/{}{rest}", self.shared.plan.group)
    }

    /// No call has to go where the last one went.
    fn next_frontend(&mut self) -> usize {
        self.frontend = (self.frontend + 1) % self.shared.api.count();
        self.frontend
    }

    async fn join(&mut self) -> Result<()> {
        let mut request = JoinGroupRequest { member: Some(self.id.clone()), ..JoinGroupRequest::default() };
        request.session_timeout_ms = Some(u64::try_from(SESSION.as_millis())?);
        if self.by_pattern {
            request.patterns = vec![format!("{}*", common_prefix(&self.shared.plan.topics)).parse()?];
        } else {
            let names = self.shared.plan.topics.iter();
            request.topics = names.map(|(name, _)| name.parse()).collect::<Result<_, _>>()?;
        }
        let call = Call::post(self.path("/members"), &request)?;
        loop {
            let (sent, frontend) = (Instant::now(), self.next_frontend());
            match self.shared.api.call::<AssignmentResponse>(frontend, &call).await {
                Ok(assignment) => return self.follow(sent, &assignment),
                Err(failure) if failure.retryable() => tokio::time::sleep(HEARTBEAT / 10).await,
                Err(failure) => return Err(failure).context("cannot join"),
            }
        }
    }

    async fn heartbeat(&mut self) -> Result<()> {
        let request = HeartbeatRequest { epoch: self.epoch, assignment_epoch: self.assignment_epoch };
        let call = Call::post(self.path(&format!("/members/{}/heartbeat", self.id)), &request)?;
        let (sent, frontend) = (Instant::now(), self.next_frontend());
        match self.shared.api.call::<AssignmentResponse>(frontend, &call).await {
            Ok(assignment) => self.follow(sent, &assignment),
            Err(failure) if failure.retryable() => {
                self.next_heartbeat = Instant::now() + HEARTBEAT / 10;
                Ok(())
            }
            Err(failure) if failure.is(ErrorCode::UnknownMember) || failure.is(ErrorCode::Fenced) => {
                self.shared.let_go_of_all(self.id.as_str());
                self.shared.lock().expelled += 1;
                self.join().await
            }
            Err(failure) => Err(failure).context("a heartbeat failed for good"),
        }
    }

    /// Holds what it is given, and nothing else.
    fn follow(&mut self, sent: Instant, assignment: &AssignmentResponse) -> Result<()> {
        let mut given = BTreeSet::new();
        for topic in &assignment.assignment {
            for partition in &topic.partitions {
                let place = self.shared.plan.place(topic.topic.as_str(), *partition);
                given.insert(place.with_context(|| format!("{topic:?} was not asked for"))?);
            }
        }
        self.shared.keep(self.id.as_str(), &given);
        if assignment.epoch != self.epoch {
            (self.epoch, self.number) = (assignment.epoch, 0);
        }
        let changed = assignment.assignment_epoch != self.assignment_epoch;
        self.assignment_epoch = assignment.assignment_epoch;
        let until = sent + Duration::from_millis(assignment.session_timeout_ms);
        if until > Instant::now() {
            self.shared.take(self.id.as_str(), self.epoch, until, &given);
        }
        // What was let go of is wanted elsewhere.
        self.next_heartbeat = if changed { Instant::now() } else { sent + HEARTBEAT };
        Ok(())
    }

    async fn leave(&mut self) -> Result<()> {
        self.shared.let_go_of_all(self.id.as_str());
        let call = Call::delete(self.path(&format!("/members/{}?epoch={}", self.id, self.epoch)));
        let frontend = self.next_frontend();
        match self.shared.api.call::<LeftGroupResponse>(frontend, &call).await {
            // If nobody heard of it, the session ends by itself.
            Err(failure) if !failure.retryable() => Err(failure).context("cannot leave"),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Wakes up, perhaps when its time is over, and acts on what it knew before.
    async fn sleep(&mut self, duration: Duration) -> Result<()> {
        let held = self.held();
        tokio::time::sleep(duration).await;
        for (place, tenure) in held.into_iter().take(3) {
            // Unless it came to itself meanwhile and holds the partition anew.
            let holds_anew = |held: &(Place, Tenure)| held.0 == place && held.1 != tenure;
            if !self.held().iter().any(holds_anew) {
                self.act(place, tenure, true).await?;
            }
        }
        Ok(())
    }

    fn held(&self) -> Vec<(Place, Tenure)> {
        let state = self.shared.lock();
        let held = state.held.get(self.id.as_str()).filter(|held| held.until > Instant::now());
        let places = held.map(|held| held.places.iter().map(|(place, (tenure, _))| (*place, *tenure)));
        places.map(Iterator::collect).unwrap_or_default()
    }

    async fn work(&mut self) -> Result<()> {
        let held = self.held();
        match self.random.pick(&held) {
            Some((place, tenure)) => self.act(*place, *tenure, false).await,
            None => Ok(()),
        }
    }

    /// An output, or a commit that moves nothing. `stale`: it may be that somebody else holds the partition by now.
    async fn act(&mut self, place: Place, tenure: Tenure, stale: bool) -> Result<()> {
        let Some(committed) = self.committed(place, tenure, stale).await? else { return Ok(()) };
        let (sent, owner) = (self.shared.started.elapsed(), owner(self.id.as_str(), self.epoch));
        let moves = committed.is_none() || self.random.chance(75);
        if moves && committed.unwrap_or(0) >= self.shared.plan.inputs {
            return Ok(());
        }
        let to = committed.map_or(1, |offset| offset + 1);
        let done = if moves {
            self.output(place, tenure, committed, to).await?
        } else {
            self.commit(place, committed).await?
        };
        match done {
            Ok(()) => {
                let answered = self.shared.started.elapsed();
                let moved = moves.then_some(to - 1);
                let act = Act { place, owner, tenure, sent, answered, moved };
                self.shared.lock().notes.acts.push(act);
                self.committed.insert(tenure, if moves { Some(to) } else { committed });
            }
            Err(failure) => self.not_done(place, tenure, stale, &failure)?,
        }
        Ok(())
    }

    /// Refusals are what is to be expected of one who holds nothing any more.
    fn not_done(&mut self, place: Place, tenure: Tenure, stale: bool, failure: &Failure) -> Result<()> {
        self.shared.refused(failure);
        self.committed.remove(&tenure);
        let held_all_the_time = self.held().contains(&(place, tenure));
        if failure.retryable() {
            self.unsettled.insert(place);
        } else if held_all_the_time && !stale && !self.unsettled.remove(&place) {
            bail!("{} holds partition {place}, and was refused: {failure}", self.id);
        }
        Ok(())
    }

    /// What is committed in a partition, or none if nobody knows.
    async fn committed(&mut self, place: Place, tenure: Tenure, stale: bool) -> Result<Option<Option<u64>>> {
        if let Some(committed) = self.committed.get(&tenure) {
            return Ok(Some(*committed));
        }
        if stale {
            return Ok(None);
        }
        let (topic, partition) = self.shared.plan.of(place);
        let call = Call::get(self.path(&format!("/offsets?topic={topic}&limit=1000")));
        let frontend = self.next_frontend();
        let page: GroupOffsetsResponse = match self.shared.api.call(frontend, &call).await {
            Ok(page) => page,
            Err(failure) if failure.retryable() => return Ok(None),
            Err(failure) => return Err(failure).context("cannot read offsets"),
        };
        let entry = page.offsets.iter().find(|entry| entry.partition == partition);
        let committed = entry.context("the partition has an entry")?.offset.map(|offset| offset.0);
        self.committed.insert(tenure, committed);
        Ok(Some(committed))
    }

    async fn output(
        &mut self,
        place: Place,
        tenure: Tenure,
        from: Option<u64>,
        to: u64,
    ) -> Result<Result<(), Failure>> {
        let (topic, partition) = self.shared.plan.of(place);
        let value = format!("{tenure} {}", to - 1);
        let moved = json!({"topic": topic, "partition": partition, "from": from, "to": to});
        let Self { id, epoch, .. } = self;
        let body = json!({
            "records": [{"topic": self.shared.plan.outputs, "partition": place, "value": value}],
            "group": {"group": self.shared.plan.group, "member": id, "epoch": epoch, "offsets": [moved]},
        });
        let key = format!("{id}-{:016x}", self.random.draw());
        let call = Call::post("/v1/append", &body)?.header(carnax_core::http::header::IDEMPOTENCY_KEY, key);
        Ok(self.try_some_times::<AtomicAppendResponse>(&call).await?.map(drop))
    }

    async fn commit(&mut self, place: Place, committed: Option<u64>) -> Result<Result<(), Failure>> {
        self.number += 1;
        let (topic, partition) = self.shared.plan.of(place);
        let offset = committed.map(Offset);
        let entry = OffsetEntry {
            topic: topic.parse()?,
            topic_id: None,
            partition,
            offset,
            from: Some(offset),
            metadata: format!("{} {}", self.id, self.number),
        };
        let request = CommitOffsetsRequest {
            member: Some(self.id.clone()),
            epoch: Some(self.epoch),
            number: Some(self.number),
            offsets: vec![entry],
        };
        let call = Call::post(self.path("/offsets"), &request)?;
        Ok(self.try_some_times::<CommitOffsetsResponse>(&call).await?.map(drop))
    }

    /// The same call, to one frontend after the other, until one gives a definite answer; heartbeats go on meanwhile.
    async fn try_some_times<T: serde::de::DeserializeOwned>(
        &mut self,
        call: &Call,
    ) -> Result<Result<T, Failure>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let frontend = self.next_frontend();
            match self.shared.api.call(frontend, call).await {
                Err(failure) if failure.retryable() && tries < TRIES => {
                    tokio::time::sleep(HEARTBEAT / 20).await;
                }
                answer => return Ok(answer),
            }
            if self.next_heartbeat <= Instant::now() {
                self.heartbeat().await?;
            }
        }
    }
}

/// One life of a member.
fn owner(member: &str, epoch: u32) -> String {
    format!("{member} in epoch {epoch}")
}

fn common_prefix(topics: &[(String, u32)]) -> &str {
    let first = topics.first().map_or("", |(name, _)| name.as_str());
    let ends = first.char_indices().map(|(end, _)| end).rev();
    let mut shared = ends.filter_map(|end| first.get(..end));
    shared.find(|prefix| topics.iter().all(|(name, _)| name.starts_with(prefix))).unwrap_or("")
}
