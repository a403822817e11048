//! What the state says of producers, fencing tokens and settings.

use carnax_core::metadata::{
    DescribeFencingToken, DescribeProducer, PartitionFence, ProducerDescription, SettingsDescription,
};
use carnax_core::problem::Problem;

use crate::State;
use crate::producer::{Producer, unknown};

/// Describes a producer.
///
/// # Errors
/// `unknown_producer`.
pub fn describe_producer(state: &State, request: &DescribeProducer) -> Result<ProducerDescription, Problem> {
    let known = state.producers.get(&request.producer);
    known.map(Producer::describe).ok_or_else(|| unknown(&request.producer))
}

/// Tells the fencing token of a partition.
///
/// # Errors
/// `topic_not_found`, `topic_recreated`, `partition_not_found`.
pub fn describe_fencing_token(
    state: &State,
    request: &DescribeFencingToken,
) -> Result<PartitionFence, Problem> {
    let (topic_id, topic) = state.topics.resolve(&request.topic)?;
    let partition = topic.partition(request.partition)?;
    let token = partition.fencing_token.clone();
    Ok(PartitionFence { topic_id, token, high_watermark: partition.high_watermark })
}

/// Tells what was set.
pub fn describe_settings(state: &State) -> SettingsDescription {
    state.settings.describe()
}
