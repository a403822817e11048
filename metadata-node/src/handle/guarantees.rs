//! Producers, fencing tokens, and the settings that say how long they are remembered.

use carnax_core::metadata::{
    AlterSettings, DescribeFencingToken, DescribeProducer, DescribeSettings, PartitionFence,
    ProducerDescription, RaiseProducerEpoch, SetFencingToken, SettingsDescription,
};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Reply, answer};

use super::{Handle, mismatched, reply};

impl Handle {
    pub(crate) async fn raise_producer_epoch(
        &self,
        request: RaiseProducerEpoch,
    ) -> Result<ProducerDescription, Problem> {
        reply!(self, Command::RaiseProducerEpoch(request), ProducerEpochRaised)
    }

    pub(crate) async fn describe_producer(
        &self,
        request: DescribeProducer,
    ) -> Result<ProducerDescription, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::describe_producer(&view.state, &request))
    }

    pub(crate) async fn set_fencing_token(
        &self,
        request: SetFencingToken,
    ) -> Result<PartitionFence, Problem> {
        reply!(self, Command::SetFencingToken(request), FencingTokenSet)
    }

    pub(crate) async fn describe_fencing_token(
        &self,
        request: DescribeFencingToken,
    ) -> Result<PartitionFence, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::describe_fencing_token(&view.state, &request))
    }

    pub(crate) async fn alter_settings(
        &self,
        request: AlterSettings,
    ) -> Result<SettingsDescription, Problem> {
        reply!(self, Command::AlterSettings(request), SettingsAltered)
    }

    pub(crate) async fn describe_settings(
        &self,
        _: DescribeSettings,
    ) -> Result<SettingsDescription, Problem> {
        let view = self.linearizable().await?;
        Ok(answer::describe_settings(&view.state))
    }
}
