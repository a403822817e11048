//! `carnax topic`: create, list, describe, alter, delete.

use carnax::{AlterTopic, TopicResponse};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::arguments::{Global, name_and_value};
use crate::exit::Usage;
use crate::output::{Output, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create a topic; an equal one that exists already is fine
    Create(Create),
    /// List topics
    List(List),
    /// Show a topic with its configuration and the bounds of its partitions
    Describe(Named),
    /// Change the configuration of a topic, or give it more partitions
    Alter(Alter),
    /// Delete a topic with all its records
    Delete(Named),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the topic
    topic: String,
    /// How many partitions
    #[arg(long, default_value = "1")]
    partitions: u32,
    /// Configuration by Kafka's names, such as retention.ms=604800000; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    config: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only topics whose names begin with this
    #[arg(long, default_value = "")]
    prefix: String,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Name of the topic
    topic: String,
}

#[derive(Debug, Args)]
pub(crate) struct Alter {
    /// Name of the topic
    topic: String,
    /// The new number of partitions: at least as many as now
    #[arg(long)]
    partitions: Option<u32>,
    /// Configuration to set; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    config: Vec<(String, String)>,
    /// Configuration to bring back to its default; may be repeated
    #[arg(long, value_name = "NAME")]
    reset: Vec<String>,
}

impl Topic {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let admin = global.client()?.admin();
        match self {
            Self::Create(Create { topic, partitions, config }) => {
                let config: Vec<(&str, &str)> =
                    config.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                out.show(&admin.create_topic(&topic, partitions, &config).await?, summary)?;
            }
            Self::List(List { prefix }) => {
                let topics = admin.list_topics(&prefix).await?;
                if out.is_json() {
                    for topic in &topics {
                        out.json(topic)?;
                    }
                } else {
                    let row = |topic: &TopicResponse| {
                        vec![topic.name.to_string(), topic.partitions.to_string(), topic.topic_id.to_string()]
                    };
                    let heading = ["topic", "partitions", "id"].map(str::to_owned).to_vec();
                    let rows: Vec<_> = std::iter::once(heading).chain(topics.iter().map(row)).collect();
                    out.bytes(table(&rows).as_bytes())?;
                }
            }
            Self::Describe(Named { topic }) => out.show(&admin.describe_topic(&topic).await?, whole)?,
            Self::Alter(Alter { topic, partitions, config, reset }) => {
                if partitions.is_none() && config.is_empty() && reset.is_empty() {
                    return Err(Usage(
                        "nothing to change: give --partitions, --config or --reset".to_owned(),
                    )
                    .into());
                }
                let mut change = AlterTopic::default();
                if let Some(partitions) = partitions {
                    change = change.partitions(partitions);
                }
                for (name, value) in config {
                    change = change.set(name, value);
                }
                for name in reset {
                    change = change.reset(name);
                }
                out.show(&admin.alter_topic(&topic, &change).await?, summary)?;
            }
            Self::Delete(Named { topic }) => {
                let topic_id = admin.delete_topic(&topic).await?;
                let document = json!({ "name": topic, "topic_id": topic_id });
                out.show(&document, |_| format!("deleted {topic} ({topic_id})\n"))?;
            }
        }
        Ok(())
    }
}

fn summary(topic: &TopicResponse) -> String {
    format!("{}: {} partitions, id {}\n", topic.name, topic.partitions, topic.topic_id)
}

fn whole(topic: &TopicResponse) -> String {
    let mut text = summary(topic);
    for (name, value) in &topic.config {
        text.push_str(&format!("  {name}={value}\n"));
    }
    let heading = ["partition", "log start", "high watermark", "bytes"].map(str::to_owned).to_vec();
    let rows = topic.partition_offsets.iter().map(|bounds| {
        vec![
            bounds.partition.to_string(),
            bounds.log_start_offset.to_string(),
            bounds.high_watermark.to_string(),
            bounds.bytes.to_string(),
        ]
    });
    text.push_str(&table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()));
    text
}
