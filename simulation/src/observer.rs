//! Asks metadata nodes again and again which objects they refer to, as `carnax cluster verify` does, so that whoever knows when
//! objects were deleted can tell whether that was too early.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carnax_core::id::SegmentNumber;
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{ListManifests, ListPages};
use carnax_object_store::{GetRange, ObjectStore};
use carnax_platform::rpc::{CallError, Channel, ChannelSettings};

use crate::bucket::RemoteStore;
use crate::history::{Alive, Recorder};
use crate::hosts::Ended;
use crate::scenario::{FAULTS, NODES};
use crate::world::{BEGINNING, SimulatedNetwork, SplitMix, now};

const DEADLINE: Duration = Duration::from_secs(2);
/// More than there are of anything here.
const ROWS: u32 = 1_000;
/// After the faults, so long is it gone on: the last reader reads then.
const AFTERWARDS: Duration = Duration::from_secs(19);

/// Asks until some time after the faults.
pub(crate) async fn observe(seed: u64, recorder: Recorder) -> Ended {
    let mut random = SplitMix(seed);
    let mut observer = Observer { store: RemoteStore::new()?, pages: BTreeMap::new(), recorder };
    while now() < FAULTS + AFTERWARDS {
        let node = NODES[usize::try_from(random.below(NODES.len() as u64))?];
        let settings = ChannelSettings::default();
        let channel = Channel::new(Arc::new(SimulatedNetwork), &format!("{node}:7001"), &settings)?;
        if let Err(error) = observer.ask(&channel).await {
            tracing::debug!(%error, node, "nothing is observed");
        }
        tokio::time::sleep(random.between(Duration::from_millis(50), Duration::from_millis(250))).await;
    }
    Ok(())
}

struct Observer {
    store: RemoteStore,
    /// What stands in the pages that were read.
    pages: BTreeMap<String, Vec<String>>,
    recorder: Recorder,
}

impl Observer {
    async fn ask(&mut self, channel: &Channel) -> Result<(), CallError> {
        let (mut from, mut objects, mut log_time) = (Some(SegmentNumber(0)), BTreeSet::new(), None);
        let asked = now();
        while let Some(first) = from {
            let list =
                channel.call(ListManifests { from: first, rows: ROWS, slices: false }, DEADLINE).await?;
            objects.extend(list.manifests.iter().map(|manifest| manifest.key.to_string()));
            (from, log_time) = (list.next, log_time.or(Some(list.log_time)));
        }
        let pages = channel.call(ListPages { after: None, limit: ROWS }, DEADLINE).await?;
        for listed in pages.pages {
            let name = listed.page.key.to_string();
            if !self.pages.contains_key(&name) {
                let read = self.store.get(&name, GetRange::WholeUpTo(listed.page.size)).await;
                let page = read.ok().and_then(|(bytes, _)| ManifestPage::decode(&bytes).ok());
                let of_page = |page: ManifestPage| -> Vec<String> {
                    page.slices().iter().map(|slice| slice.segment.to_string()).collect()
                };
                self.pages.extend(page.map(|page| (name.clone(), of_page(page))));
            }
            objects.extend(self.pages.get(&name).into_iter().flatten().cloned());
            objects.insert(name);
        }
        let log_time = log_time.unwrap_or(BEGINNING).since(BEGINNING);
        let mut history = self.recorder.lock();
        for object in objects {
            let alive = history.alive.entry(object).or_default();
            *alive = Alive { asked: asked.max(alive.asked), log_time: log_time.max(alive.log_time) };
        }
        Ok(())
    }
}
