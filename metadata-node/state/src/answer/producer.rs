//! What the state says of producers, fencing tokens and settings.

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{
    DescribeFencingToken, DescribeProducer, PartitionFence, ProducerDescription, SettingsDescription,
};
use carnax_core::problem::Problem;

use crate::State;

/// Describes a producer.
///
/// # Errors
/// `unknown_producer`.
pub fn describe_producer(
    _state: &State,
    _request: &DescribeProducer,
) -> Result<ProducerDescription, Problem> {
    Err(Problem::new(ErrorCode::Unavailable, "not there yet"))
}

/// Tells the fencing token of a partition.
///
/// # Errors
/// `topic_not_found`, `topic_recreated`, `partition_not_found`.
pub fn describe_fencing_token(
    _state: &State,
    _request: &DescribeFencingToken,
) -> Result<PartitionFence, Problem> {
    Err(Problem::new(ErrorCode::Unavailable, "not there yet"))
}

/// Tells what was set.
pub fn describe_settings(state: &State) -> SettingsDescription {
    state.settings.describe()
}
