//! Fifty members of one group join, leave, die and sleep at random; what they held and what was accepted of them must fit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::{Client, ErrorCode, PartitionIndex, Start};
use carnax_core::http::{GroupOffsetsResponse, GroupResponse};
use carnax_core::metadata::GroupPhase;
use carnax_core::name::MemberId;
use carnax_core::record::{BatchBuilder, Compression, NewRecord};
use carnax_core::time::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Sizes, create_client};
use crate::api::{Api, Call};
use crate::cluster::ProcessCluster;
use crate::member::{Member, Order, Plan, SESSION, Shared};
use crate::ownership::{self, Output, Place};
use crate::random::Random;
use crate::report::Report;
use crate::wait::{self, PATIENCE};

const MEMBERS: usize = 50;
const TOPICS: [(&str, u32); 3] = [("cargo-air", 50), ("cargo-rail", 30), ("cargo-sea", 20)];
const OUTPUTS: &str = "handled";
const GROUP: &str = "handlers";
/// Records of each partition: more than a group handles while this runs.
const INPUTS: u64 = 2_000;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("groups");
    let mut cluster = sizes.cluster(Duration::from_millis(5)).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    create_client(&cluster, &[1]).await?;
    fill(&client).await?;
    let api = Api::new(cluster.frontends.iter().map(|frontend| frontend.address.clone()));
    let topics = TOPICS.map(|(name, partitions)| (name.to_owned(), partitions));
    let plan = Plan { group: GROUP.into(), topics: topics.into(), outputs: OUTPUTS.into(), inputs: INPUTS };
    let shared = Arc::new(Shared::new(plan, api.clone()));

    let mut crowd = Crowd::new(&shared, sizes.seed);
    crowd.fill().await?;
    for _ in 0..sizes.rounds {
        crowd.change().await?;
    }
    report.say(crowd.describe(sizes.rounds));
    crowd.fill().await?;
    let before = all_is_well(&api, &shared, &mut crowd).await.context("after quiet")?;
    lose_the_leader(&mut cluster, &mut crowd).await?;
    let after = all_is_well(&api, &shared, &mut crowd).await.context("with another leader")?;
    ensure!(before == after, "a change of the leader changed the group:\n{before:?}\n{after:?}");
    report.say(format!(
        "after quiet all {} partitions are held, each by one of {MEMBERS} members, balanced to within one; the metadata leader \
         was killed, and nobody was expelled",
        shared.plan.places().count()
    ));
    let stale = crowd.stale_are_refused(&api).await?;
    report.say(format!("{stale} commits and outputs of members that had left or died were all refused"));
    crowd.end().await?;
    judge(&client, &api, &shared, &mut report).await?;
    cluster.end()?;
    Ok(report)
}

async fn fill(client: &Client) -> Result<()> {
    let mut places = 0;
    for (topic, partitions) in TOPICS {
        client.admin().create_topic(topic, partitions, &[]).await.context("cannot create a topic")?;
        let mut batch = BatchBuilder::new(1024 * 1024);
        for number in 0..INPUTS {
            let value = number.to_string();
            let value = Some(value.as_bytes());
            batch.push(&NewRecord { timestamp: Timestamp::EPOCH, key: None, value, headers: &[] })?;
        }
        let batch = batch.build(Compression::None);
        for partition in (0..partitions).map(PartitionIndex) {
            client.raw().append(topic, partition, batch.clone()).await.context("cannot write the inputs")?;
        }
        places += partitions;
    }
    client.admin().create_topic(OUTPUTS, places, &[]).await.context("cannot create a topic")?;
    Ok(())
}

/// All members, alive or not, and who tells them what to do.
struct Crowd {
    shared: Arc<Shared>,
    random: Random,
    slots: Vec<Option<Living>>,
    names: usize,
    /// Members that are gone, with their last epoch.
    gone: Vec<(MemberId, u32)>,
    counts: BTreeMap<&'static str, usize>,
}

struct Living {
    id: MemberId,
    orders: mpsc::Sender<Order>,
    life: JoinHandle<Result<()>>,
}

impl Crowd {
    fn new(shared: &Arc<Shared>, seed: u64) -> Self {
        let slots = std::iter::repeat_with(|| None).take(MEMBERS).collect();
        let (random, counts) = (Random::new(seed), BTreeMap::new());
        Self { shared: Arc::clone(shared), random, slots, names: 0, gone: Vec::new(), counts }
    }

    /// Lets somebody join in every empty place.
    async fn fill(&mut self) -> Result<()> {
        for slot in 0..MEMBERS {
            if self.slots[slot].is_none() {
                self.join(slot)?;
            }
        }
        self.check().await
    }

    /// Something happens to somebody, and a moment passes.
    async fn change(&mut self) -> Result<()> {
        let pause = self.random.millis(20..250);
        tokio::time::sleep(pause).await;
        let slot = self.random.below(MEMBERS);
        let Some(living) = self.slots[slot].take() else { return self.join(slot) };
        let what = match self.random.below(100) {
            0..30 => "left",
            30..55 => "died",
            _ => "slept",
        };
        *self.counts.entry(what).or_default() += 1;
        match what {
            "left" => {
                self.bury(&living);
                living.orders.send(Order::Leave).await?;
                living.life.await??;
            }
            "died" => {
                self.bury(&living);
                living.life.abort();
                // An error of before is not lost; that it was aborted is known.
                if let Ok(ended) = living.life.await {
                    ended?;
                }
                self.shared.let_go_of_all(living.id.as_str());
            }
            _ => {
                let longest = u64::try_from(SESSION.as_millis())? * 2;
                let pause = self.random.millis(500..longest);
                // One that sleeps already has enough to do.
                let _ = living.orders.try_send(Order::Sleep(pause));
                self.slots[slot] = Some(living);
            }
        }
        self.check().await
    }

    fn join(&mut self, slot: usize) -> Result<()> {
        // Some come again under the name that they had.
        let known = self.random.chance(40).then(|| self.random.pick(&self.gone).cloned()).flatten();
        let alive = |id: &MemberId| self.slots.iter().flatten().any(|living| living.id == *id);
        let id = match known {
            Some((id, _)) if !alive(&id) => {
                self.gone.retain(|(gone, _)| *gone != id);
                id
            }
            _ => {
                self.names += 1;
                format!("member-{:03}", self.names).parse()?
            }
        };
        *self.counts.entry("joined").or_default() += 1;
        let member = Member::new(&self.shared, id.clone(), slot % 2 == 1, self.random.draw());
        let (orders, receiver) = mpsc::channel(1);
        let life = tokio::spawn(member.live(receiver));
        self.slots[slot] = Some(Living { id, orders, life });
        Ok(())
    }

    fn bury(&mut self, living: &Living) {
        let state = self.shared.lock();
        if let Some(held) = state.held.get(living.id.as_str()) {
            self.gone.push((living.id.clone(), held.epoch));
        }
    }

    /// That nobody ended by himself.
    async fn check(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            if let Some(living) = slot.take_if(|living| living.life.is_finished()) {
                living.life.await?.with_context(|| format!("{} ended by itself", living.id))?;
            }
        }
        Ok(())
    }

    /// Those that are gone try to commit and to write with what they remember.
    async fn stale_are_refused(&mut self, api: &Api) -> Result<usize> {
        let mut refused = 0;
        for (member, epoch) in &self.gone {
            let (topic, partition) = (TOPICS[0].0, PartitionIndex(0));
            let offset = json!({"topic": topic, "partition": partition, "offset": 0});
            let commit = json!({"member": member, "epoch": epoch, "number": 1_000_000, "offsets": [offset]});
            let moved = json!({"topic": topic, "partition": partition, "from": 0, "to": 1});
            let output = json!({
                "records": [{"topic": OUTPUTS, "partition": 0, "value": "stale"}],
                "group": {"group": GROUP, "member": member, "epoch": epoch, "offsets": [moved]},
            });
            let calls = [
                Call::post(format!("/v1/groups/{GROUP}/offsets"), &commit)?,
                Call::post("/v1/append", &output)?,
            ];
            for call in calls {
                let failure = match api.call::<serde_json::Value>(refused % api.count(), &call).await {
                    Ok(answer) => anyhow::bail!("{member} is gone, and was answered {answer}"),
                    Err(failure) => failure,
                };
                let right = failure.is(ErrorCode::UnknownMember) || failure.is(ErrorCode::Fenced);
                ensure!(right, "{member} is gone, and was refused for another reason: {failure}");
                refused += 1;
            }
        }
        ensure!(refused > 0, "nobody is gone: this proves nothing");
        Ok(refused)
    }

    async fn end(mut self) -> Result<()> {
        for living in self.slots.iter_mut().filter_map(Option::take) {
            living.orders.send(Order::Leave).await?;
            living.life.await??;
        }
        Ok(())
    }

    fn describe(&self, changes: usize) -> String {
        let expelled = self.shared.lock().expelled;
        let count = |what| self.counts.get(what).copied().unwrap_or(0);
        format!(
            "{changes} changes: {} members joined, {} left, {} died, {} times one slept for up to {} s (a session lasts {} s), \
             {expelled} times one was expelled and joined again",
            count("joined"),
            count("left"),
            count("died"),
            count("slept"),
            2 * SESSION.as_secs(),
            SESSION.as_secs()
        )
    }
}

type Assignment = BTreeMap<String, (u32, BTreeSet<Place>)>;

/// Waits until the group is stable and what members hold is what the group says; then it is complete and balanced.
async fn all_is_well(api: &Api, shared: &Shared, crowd: &mut Crowd) -> Result<Assignment> {
    let assignment = wait::until("the group is stable", async || {
        crowd.check().await?;
        let call = Call::get(format!("/v1/groups/{GROUP}"));
        let Ok(group) = api.call::<GroupResponse>(0, &call).await else { return Ok(None) };
        let said = said(shared, &group)?;
        let calm = group.phase == GroupPhase::Stable && group.members.len() == MEMBERS;
        Ok((calm && said == held(shared)).then_some(said))
    })
    .await
    .with_context(|| format!("members hold {:?}", held(shared)))?;
    let places = assignment.iter().map(|(member, (_, places))| (member.clone(), places.clone())).collect();
    ownership::check_balance(&places, shared.plan.places().count())?;
    Ok(assignment)
}

fn said(shared: &Shared, group: &GroupResponse) -> Result<Assignment> {
    let mut said = Assignment::new();
    for member in &group.members {
        let mut places = BTreeSet::new();
        for topic in &member.assignment {
            for partition in &topic.partitions {
                let place = shared.plan.place(topic.topic.as_str(), *partition);
                places.insert(place.context("only what was asked for is assigned")?);
            }
        }
        said.insert(member.member.to_string(), (member.epoch, places));
    }
    Ok(said)
}

fn held(shared: &Shared) -> Assignment {
    let now = tokio::time::Instant::now();
    let state = shared.lock();
    let alive = state.held.iter().filter(|(_, held)| held.until > now);
    alive
        .map(|(member, held)| (member.clone(), (held.epoch, held.places.keys().copied().collect())))
        .collect()
}

async fn lose_the_leader(cluster: &mut ProcessCluster, crowd: &mut Crowd) -> Result<()> {
    let leader = cluster.leader().await?;
    cluster.nodes[leader].process.kill()?;
    let next = cluster.leader().await.context("nobody leads")?;
    ensure!(next != leader, "the leader is dead and leads");
    cluster.nodes[leader].process.start()?;
    cluster.wait_for_voters().await?;
    cluster.wait_ready().await?;
    // Whoever is expelled by the new leader is expelled by now.
    tokio::time::sleep(SESSION + SESSION / 2).await;
    crowd.check().await
}

/// Judges what was noted, by itself and against the log of the outputs.
async fn judge(client: &Client, api: &Api, shared: &Shared, report: &mut Report) -> Result<()> {
    let (notes, refused) = {
        let state = shared.lock();
        (state.notes.clone(), state.refused.clone())
    };
    ownership::check(&notes)?;
    let outputs = read_outputs(client).await?;
    ownership::check_outputs(&notes, &outputs)?;
    for (topic, _) in TOPICS {
        let call = Call::get(format!("/v1/groups/{GROUP}/offsets?topic={topic}&limit=1000"));
        let page: GroupOffsetsResponse = api.call(0, &call).await?;
        for entry in page.offsets {
            let place = shared.plan.place(topic, entry.partition).context("a partition of ours")?;
            let written = outputs.get(&place).map_or(0, Vec::len) as u64;
            let committed = entry.offset.map_or(0, |offset| offset.0);
            ensure!(
                written == committed,
                "{topic}/{}: {written} outputs, committed {committed}",
                entry.partition
            );
        }
    }
    let moved = notes.acts.iter().filter(|act| act.moved.is_some()).count();
    report.say(format!(
        "{} tenures, none of them at once with another of its partition; {moved} outputs and {} commits were accepted, all of \
         owners; refused: {refused:?}; {} outputs are stored, one for each input, in order of the owners",
        notes.holds.len(),
        notes.acts.len() - moved,
        outputs.values().map(Vec::len).sum::<usize>()
    ));
    ensure!(moved > 0, "nothing was handled: this proves nothing");
    Ok(())
}

async fn read_outputs(client: &Client) -> Result<BTreeMap<Place, Vec<Output>>> {
    let topic = client.admin().describe_topic(OUTPUTS).await?;
    let wanted: u64 = topic.partition_offsets.iter().map(|bounds| bounds.high_watermark.0).sum();
    let mut consumer = client.consumer(OUTPUTS).start(Start::Earliest).build().await?;
    let mut outputs: BTreeMap<Place, Vec<Output>> = BTreeMap::new();
    let mut read = 0;
    while read < wanted {
        let records = consumer.poll(5_000, PATIENCE).await?;
        ensure!(!records.is_empty(), "nothing came for {PATIENCE:?}");
        for record in records {
            let value = record.value.context("a record has a value")?;
            let text = std::str::from_utf8(&value)?;
            let (tenure, input) = text.split_once(' ').with_context(|| format!("no output: {text}"))?;
            let output = Output { tenure: tenure.parse()?, input: input.parse()? };
            outputs.entry(usize::try_from(record.partition.0)?).or_default().push(output);
            read += 1;
        }
    }
    Ok(outputs)
}
