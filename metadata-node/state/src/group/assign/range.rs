//! Range, as in Kafka: each topic alone, its partitions in contiguous ranges to its members in order of their ids, the first
//! members getting one more where they cannot get the same.

use carnax_core::id::TopicPartition;

use super::{Input, Kind, partition_of};

pub(super) fn assign(input: &Input, kinds: &[Kind]) -> Vec<Vec<TopicPartition>> {
    let mut assigned = vec![Vec::new(); input.members.len()];
    for kind in kinds {
        let members = u32::try_from(kind.members.len()).expect("a group has few members");
        for topic in &kind.topics {
            let (topic, partitions) = input.topics[*topic];
            let (each, one_more) = (partitions / members, partitions % members);
            let mut next = 0;
            for (place, member) in (0..).zip(&kind.members) {
                let end = next + each + u32::from(place < one_more);
                if next == end {
                    break;
                }
                assigned[*member].extend((next..end).map(|partition| partition_of(topic, partition)));
                next = end;
            }
        }
    }
    assigned
}
