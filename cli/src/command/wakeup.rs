//! `carnax wakeup`: queues that are told when a topic grows.

use std::time::Duration;

use carnax::WakeupDescription;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::arguments::Global;
use crate::output::{Output, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Wakeup {
    /// Tell an SQS queue about commits to a topic from now on; an existing wake-up is changed and goes on where it was
    Put(Put),
    /// List the wake-ups of a topic, with what is still to be told
    List(List),
    /// End a wake-up
    Delete(Named),
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    named: Named,
    /// URL of the queue
    #[arg(long, value_name = "URL")]
    queue: String,
    /// Milliseconds over which commits share an event; 100 if absent
    #[arg(long, value_name = "MS")]
    window_ms: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Name of the topic
    topic: String,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Name of the topic
    topic: String,
    /// Name of the wake-up
    wakeup: String,
}

impl Wakeup {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let admin = global.client()?.admin();
        match self {
            Self::Put(Put { named: Named { topic, wakeup }, queue, window_ms }) => {
                let window = window_ms.map(|millis| Duration::from_millis(u64::from(millis)));
                out.show(&admin.put_wakeup(&topic, &wakeup, &queue, window).await?, summary)?;
            }
            Self::List(List { topic }) => {
                let wakeups = admin.wakeups(&topic).await?;
                if out.is_json() {
                    for wakeup in &wakeups {
                        out.json(wakeup)?;
                    }
                } else {
                    let heading =
                        ["wake-up", "queue", "window ms", "pending records"].map(str::to_owned).to_vec();
                    let rows: Vec<_> = std::iter::once(heading).chain(wakeups.iter().map(row)).collect();
                    out.bytes(table(&rows).as_bytes())?;
                }
            }
            Self::Delete(Named { topic, wakeup }) => {
                admin.delete_wakeup(&topic, &wakeup).await?;
                out.show(&json!({ "name": wakeup }), |_| format!("ended {wakeup} of {topic}\n"))?;
            }
        }
        Ok(())
    }
}

fn row(wakeup: &WakeupDescription) -> Vec<String> {
    let WakeupDescription { name, queue, window_ms, pending_records, .. } = wakeup;
    vec![name.to_string(), queue.clone(), window_ms.to_string(), pending_records.to_string()]
}

fn summary(wakeup: &WakeupDescription) -> String {
    let WakeupDescription { name, queue, window_ms, pending_records, .. } = wakeup;
    format!("{name}: tells {queue} within {window_ms} ms, {pending_records} records pending\n")
}
