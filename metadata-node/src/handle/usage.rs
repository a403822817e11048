//! What is used.

use carnax_core::metadata::{DescribeUsage, ReportUsage, UsageDescription, UsageMonth, UsageReported};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Reply, answer};

use super::{Handle, mismatched, reply};
use crate::usage::OwnUsage;

impl Handle {
    pub(crate) fn own_usage(&self) -> &OwnUsage {
        &self.0.usage
    }

    pub(crate) async fn report_usage(&self, request: ReportUsage) -> Result<UsageReported, Problem> {
        reply!(self, Command::ReportUsage(request), UsageReported)
    }

    /// Told by the leader alone, which adds what it has not reported of its own.
    pub(crate) async fn describe_usage(&self, request: DescribeUsage) -> Result<UsageDescription, Problem> {
        let view = self.linearizable_at_leader().await?;
        let usage = answer::describe_usage(&view.state, &request, self.0.stamper.wall());
        let usage = self.counted(usage)?;
        Ok(match request.month {
            UsageMonth::This => {
                let own = self.0.usage.unreported(&view.state);
                UsageDescription { requests: usage.requests.plus(own), ..usage }
            }
            UsageMonth::Last => usage,
        })
    }
}
