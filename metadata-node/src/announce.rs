//! The leader tells queues about commits.
//!
//! ```text
//!  commit ──▶ wait for the window ──▶ send events to the queue ──▶ move the cursor through the log
//! ```
//!
//! What is to be told follows from the state alone (high watermarks above the cursors of the wake-ups), so that a leader
//! which dies between any two of these steps leaves nothing undone: the next one looks at every wake-up when it begins to
//! lead. Notices of commits only say where to look again. A queue that fails is tried again with growing pauses, and holds
//! up no other.
//!
//! No queue is asked anything while nobody commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carnax_core::id::TopicId;
use carnax_core::metadata::CommitEvent;
use carnax_core::name::WakeupName;
use carnax_metadata_state::Command;
use carnax_metadata_state::answer::{self, Announcement};
use carnax_queue::{OutgoingMessage, Queues, send_one};
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::handle::Handle;

/// The pause after the first failure of a queue; doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Queues that are sent to at the same time.
const SENDS_MAX: usize = 32;
/// How often the age of the oldest wake-up at work is exported.
const EXPORT: Duration = Duration::from_millis(500);

type Key = (TopicId, WakeupName);

/// Announces commits while this node leads, until `shutdown`.
pub(crate) async fn run(handle: Handle, queues: Arc<dyn Queues>, shutdown: CancellationToken) {
    let mut leadership = handle.raft().watch_leadership();
    loop {
        let leads = leadership.borrow_and_update().leads;
        let leading = async {
            if leads {
                lead(&handle, &queues).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = leading => {}
        }
        handle.metrics().wakeups.age.set(0);
    }
}

/// Announces until the feed of commits ends. Dropping the future stops what is being sent.
async fn lead(handle: &Handle, queues: &Arc<dyn Queues>) {
    let mut notices = std::pin::pin!(handle.watch_commits());
    let mut teller = Teller {
        handle: handle.clone(),
        queues: Arc::clone(queues),
        sends: Arc::new(Semaphore::new(SENDS_MAX)),
        busy: BTreeMap::new(),
        again: BTreeSet::new(),
        tasks: JoinSet::new(),
    };
    loop {
        tokio::select! {
            // The first notice comes at once and says that everything may have changed.
            notice = notices.next() => {
                let Some(Ok(notice)) = notice else { return };
                handle.raft().state_with(notice.applied).await;
                if notice.lagged || notice.partitions.is_empty() {
                    teller.look_at(None);
                } else {
                    let topics: BTreeSet<_> = notice.partitions.iter().map(|grown| grown.topic).collect();
                    topics.into_iter().for_each(|topic| teller.look_at(Some(topic)));
                }
            }
            Some(done) = teller.tasks.join_next() => match done {
                Ok(key) => teller.done(key),
                Err(error) => {
                    // A bug: all begin anew, with another feed.
                    tracing::error!(%error, "telling a queue about commits failed");
                    return;
                }
            },
            () = tokio::time::sleep(EXPORT), if !teller.busy.is_empty() => {}
        }
        teller.export();
    }
}

/// What is told at the moment.
struct Teller {
    handle: Handle,
    queues: Arc<dyn Queues>,
    sends: Arc<Semaphore>,
    /// Wake-ups at work, and since when.
    busy: BTreeMap<Key, Instant>,
    /// Those of them whose topics grew meanwhile.
    again: BTreeSet<Key>,
    tasks: JoinSet<Key>,
}

impl Teller {
    /// Sets the wake-ups of a topic to work, or all of them.
    fn look_at(&mut self, topic: Option<TopicId>) {
        for key in answer::wakeups(&self.handle.raft().state().state, topic) {
            if self.busy.contains_key(&key) {
                self.again.insert(key);
            } else {
                self.begin(key);
            }
        }
    }

    fn begin(&mut self, key: Key) {
        self.busy.insert(key.clone(), Instant::now());
        let one = One {
            handle: self.handle.clone(),
            queues: Arc::clone(&self.queues),
            sends: Arc::clone(&self.sends),
        };
        self.tasks.spawn(async move {
            one.tell_all(&key).await;
            key
        });
    }

    fn done(&mut self, key: Key) {
        self.busy.remove(&key);
        if self.again.remove(&key) {
            self.begin(key);
        }
    }

    fn export(&self) {
        let oldest = self.busy.values().min().map_or(Duration::ZERO, Instant::elapsed);
        self.handle.metrics().wakeups.age.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }
}

/// Works for one wake-up.
struct One {
    handle: Handle,
    queues: Arc<dyn Queues>,
    sends: Arc<Semaphore>,
}

impl One {
    /// Tells the queue until nothing is left to be told.
    async fn tell_all(&self, (topic, name): &Key) {
        let mut pause = None;
        while let Some(next) = self.pending(*topic, name) {
            let window = Duration::from_millis(u64::from(next.window_ms));
            tokio::time::sleep(pause.unwrap_or(window)).await;
            let Ok(_permit) = self.sends.acquire().await else { return };
            // With what was committed meanwhile.
            let Some(announcement) = self.pending(*topic, name) else { return };
            let told = self.tell(*topic, name, &announcement).await;
            let result = if told.is_ok() { "sent" } else { "failed" };
            self.handle.metrics().wakeups.attempts.with_label_values(&[result]).inc();
            pause = told.err().map(|error| {
                let pause = pause.map_or(PAUSE_MIN, |last: Duration| (last * 2).min(PAUSE_MAX));
                let queue = &announcement.queue;
                tracing::warn!(error, wakeup = %name, %topic, queue, ?pause, "a queue was not told of commits; trying again");
                pause
            });
        }
    }

    fn pending(&self, topic: TopicId, name: &WakeupName) -> Option<Announcement> {
        answer::announcement(&self.handle.raft().state().state, topic, name)
    }

    async fn tell(&self, topic: TopicId, name: &WakeupName, told: &Announcement) -> Result<(), String> {
        let queue = self.queues.open(&told.queue).await.map_err(|error| error.to_string())?;
        for (place, event) in told.events.iter().enumerate() {
            send_one(&*queue, &message(event, told, place)?).await.map_err(|error| error.to_string())?;
            let partitions = event.partitions.iter().map(|range| (range.partition, range.to)).collect();
            let (wakeup, version) = (name.clone(), told.version);
            let confirm = Command::ConfirmAnnouncement { topic, wakeup, version, partitions };
            self.handle.propose(confirm).await.map_err(|problem| problem.to_string())?;
        }
        Ok(())
    }
}

fn message(event: &CommitEvent, told: &Announcement, place: usize) -> Result<OutgoingMessage, String> {
    let body = serde_json::to_string(event).map_err(|error| error.to_string())?;
    let message = OutgoingMessage { id: "event".to_owned(), body, ..OutgoingMessage::default() };
    if !told.queue.ends_with(".fifo") {
        return Ok(message);
    }
    // What is sent again after an answer was lost may arrive twice all the same: it tells of another place in the log.
    let deduplication = format!("{}-{}-{}-{place}", event.topic_id, told.version, event.log_index);
    let group = Some(event.topic_id.to_string());
    Ok(OutgoingMessage { group, deduplication: Some(deduplication), ..message })
}
