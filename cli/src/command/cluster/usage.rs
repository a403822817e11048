//! `carnax cluster usage`: what was used, and what it costs.

use carnax::{Admin, TokenUsageResponse, TopicUsageResponse, UsageMonth, UsageResponse};
use clap::Args;

use crate::output::{Output, table};

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// Of the month before
    #[arg(long)]
    last_month: bool,
}

impl Usage {
    pub(crate) async fn run(self, admin: &Admin, out: &mut Output) -> anyhow::Result<()> {
        let month = if self.last_month { UsageMonth::Last } else { UsageMonth::This };
        Ok(out.show(&admin.usage(month).await?, show)?)
    }
}

fn show(usage: &UsageResponse) -> String {
    let (requests, cost) = (&usage.object_store_requests, &usage.cost);
    let mut text = format!(
        "month     {}\nrequests  {} PUT, {} GET, {} HEAD, {} LIST, {} DELETE: ${:.4}\nstorage   {} and {} to be deleted: ${:.4} a month\n",
        usage.month,
        requests.put,
        requests.get,
        requests.head,
        requests.list,
        requests.delete,
        cost.requests_dollars,
        bytes(usage.stored_bytes),
        bytes(usage.dead_bytes),
        cost.storage_dollars_per_month,
    );
    let traffic = &usage.traffic;
    text.push_str(&format!(
        "in        {} records, {}\nout       {} records, {}\n",
        traffic.records_in,
        bytes(traffic.bytes_in),
        traffic.records_out,
        bytes(traffic.bytes_out),
    ));
    if !usage.topics.is_empty() {
        let heading =
            ["topic", "records in", "in", "records out", "out", "stored", "requests ~", "dollars ~"];
        text.push('\n');
        text.push_str(&rows(&heading, usage.topics.iter().map(topic)));
    }
    if !usage.tokens.is_empty() {
        let heading = ["token", "records in", "in", "records out", "out", "requests ~", "dollars ~"];
        text.push('\n');
        text.push_str(&rows(&heading, usage.tokens.iter().map(token)));
    }
    text
}

fn rows(heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let heading = heading.iter().map(|&word| word.to_owned()).collect();
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

fn topic(usage: &TopicUsageResponse) -> Vec<String> {
    vec![
        usage.topic.to_string(),
        usage.traffic.records_in.to_string(),
        bytes(usage.traffic.bytes_in),
        usage.traffic.records_out.to_string(),
        bytes(usage.traffic.bytes_out),
        bytes(usage.stored_bytes),
        usage.object_store_requests.total().to_string(),
        format!("{:.4}", usage.cost.requests_dollars + usage.cost.storage_dollars_per_month),
    ]
}

fn token(usage: &TokenUsageResponse) -> Vec<String> {
    vec![
        usage.token.to_string(),
        usage.traffic.records_in.to_string(),
        bytes(usage.traffic.bytes_in),
        usage.traffic.records_out.to_string(),
        bytes(usage.traffic.bytes_out),
        usage.object_store_requests.total().to_string(),
        format!("{:.4}", usage.requests_dollars),
    ]
}

/// With one digit behind the point, in the largest unit of which there is one.
fn bytes(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_unit_that_people_use() {
        assert_eq!([0, 1_023, 1_024, 1_536].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB"]);
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }
}
