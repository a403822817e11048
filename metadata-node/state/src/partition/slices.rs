//! The slices of one partition, in order of their offsets: a persistent tree that is only appended to at its right edge
//! and cut at its left one.
//!
//! Each node knows, of what lies below it, where it ends, its largest timestamp and how much is small. So a slice is found by
//! offset, by timestamp or by being small in as many steps as the tree is deep (four for sixteen million slices), whatever the order of the
//! timestamps. Leaves are full, since appends fill them one after the other: a slice costs little more than its own 40 bytes.
//! A clone shares all nodes; a change copies the path to the changed leaf.

use std::ops::ControlFlow;
use std::sync::Arc;

use carnax_core::limits;
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::time::Timestamp;

use crate::segment::SegmentNumber;

#[cfg(test)]
mod tests;

/// Slices in a leaf, branches in an inner node.
const FANOUT: usize = 64;

/// The contiguous bytes of one segment that hold the offsets `base .. base + records` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) base: Offset,
    pub(crate) segment: SegmentNumber,
    pub(crate) max_timestamp: Timestamp,
    /// First byte in the object; 32 bits do, since an object has at most 256 MiB.
    pub(crate) start: u32,
    pub(crate) length: u32,
    pub(crate) records: u32,
}

/// What a node knows of the slices below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// One past the last offset.
    pub(crate) end: Offset,
    pub(crate) max_timestamp: Timestamp,
    pub(crate) bytes: u64,
    pub(crate) slices: u64,
    /// Those that are worth merging: smaller than [`limits::MERGED_BYTES_ENOUGH`].
    pub(crate) small: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Slices {
    root: Node,
}

#[derive(Debug, Clone)]
enum Node {
    Leaf(Vec<Slice>),
    /// Never empty, and all branches are equally deep.
    Inner(Vec<Branch>),
}

#[derive(Debug, Clone)]
struct Branch {
    summary: Summary,
    node: Arc<Node>,
}

impl Slices {
    /// The whole: where it ends is `Offset::ZERO` if there is no slice.
    pub(crate) fn summary(&self) -> Summary {
        self.root.summary()
    }

    /// Puts a slice behind all others.
    pub(crate) fn push(&mut self, slice: Slice) {
        if let Some(sibling) = self.root.push(slice) {
            let root = std::mem::take(&mut self.root);
            self.root = Node::Inner(vec![root.into_branch(), sibling.into_branch()]);
        }
    }

    pub(crate) fn last(&self) -> Option<&Slice> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(slices) => return slices.last(),
                Node::Inner(branches) => node = &branches.last()?.node,
            }
        }
    }

    /// Makes the last slice longer, if there is one.
    pub(crate) fn extend_last(&mut self, length: u32, records: u32, max_timestamp: Timestamp) {
        self.root.extend_last(length, records, max_timestamp);
    }

    /// Drops every slice that lies wholly below an offset, telling of each.
    pub(crate) fn drop_below(&mut self, offset: Offset, dropped: &mut dyn FnMut(&Slice)) {
        self.root.drop_below(offset, dropped);
        self.root.lose_height();
    }

    /// Puts one slice into the place of those that it spans: their first offset and their end are its own.
    pub(crate) fn replace(&mut self, slice: Slice) {
        self.root.replace(&slice, true);
        self.root.lose_height();
    }

    /// The first slice that is small.
    pub(crate) fn first_small(&self) -> Option<&Slice> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(slices) => return slices.iter().find(|slice| slice.is_small()),
                Node::Inner(branches) => {
                    node = &branches.iter().find(|branch| branch.summary.small > 0)?.node;
                }
            }
        }
    }

    /// The bytes of the slices that reach beyond an offset.
    pub(crate) fn bytes_from(&self, offset: Offset) -> u64 {
        let (mut node, mut bytes) = (&self.root, 0_u64);
        loop {
            match node {
                Node::Leaf(slices) => {
                    let behind = slices.iter().filter(|slice| slice.end() > offset);
                    return behind.map(|slice| u64::from(slice.length)).fold(bytes, u64::saturating_add);
                }
                Node::Inner(branches) => {
                    let from = branches.partition_point(|branch| branch.summary.end <= offset);
                    let Some((first, behind)) = branches[from..].split_first() else { return bytes };
                    bytes = behind.iter().fold(bytes, |sum, branch| sum.saturating_add(branch.summary.bytes));
                    node = &first.node;
                }
            }
        }
    }

    /// The first slice with a record of this timestamp or a later one.
    pub(crate) fn first_reaching(&self, timestamp: Timestamp) -> Option<&Slice> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(slices) => return slices.iter().find(|slice| slice.max_timestamp >= timestamp),
                Node::Inner(branches) => {
                    node = &branches.iter().find(|branch| branch.summary.max_timestamp >= timestamp)?.node;
                }
            }
        }
    }

    /// Visits the slices that reach beyond an offset, in order, until told to stop.
    pub(crate) fn visit_from(&self, offset: Offset, visit: &mut dyn FnMut(&Slice) -> ControlFlow<()>) {
        let _stopped = self.root.visit_from(offset, visit);
    }

    /// The slices that reach beyond an offset, in order, at most so many.
    pub(crate) fn some_from(&self, offset: Offset, count: usize) -> Vec<Slice> {
        let mut found = Vec::new();
        self.visit_from(offset, &mut |slice| {
            if found.len() < count {
                found.push(*slice);
            }
            if found.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        found
    }

    /// Visits all slices in order.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&Slice)) {
        self.root.visit(visit);
    }

    /// What is wrong with the tree itself: a summary that is not its node's, a node that is too full, leaves of unequal depth.
    pub(crate) fn faults(&self) -> Vec<&'static str> {
        let mut faults = Vec::new();
        self.root.depth(&mut faults);
        faults
    }
}

impl Slice {
    /// One past the last offset.
    pub(crate) fn end(&self) -> Offset {
        Offset(self.base.0.saturating_add(u64::from(self.records)))
    }

    /// How new its newest record is; records without a timestamp are as new as their append.
    pub(crate) fn latest(&self, append_time: Timestamp) -> Timestamp {
        if self.max_timestamp < Timestamp::EPOCH { append_time } else { self.max_timestamp }
    }

    /// Whether a merge may take it.
    pub(crate) fn is_small(&self) -> bool {
        u64::from(self.length) < limits::MERGED_BYTES_ENOUGH
    }

    pub(crate) fn bytes(&self) -> ByteRange {
        ByteRange { start: u64::from(self.start), length: u64::from(self.length) }
    }
}

impl Summary {
    const EMPTY: Self =
        Self { end: Offset::ZERO, max_timestamp: Timestamp::MIN, bytes: 0, slices: 0, small: 0 };

    fn then(self, next: Self) -> Self {
        Self {
            end: self.end.max(next.end),
            max_timestamp: self.max_timestamp.max(next.max_timestamp),
            bytes: self.bytes.saturating_add(next.bytes),
            slices: self.slices.saturating_add(next.slices),
            small: self.small.saturating_add(next.small),
        }
    }

    fn of(slice: &Slice) -> Self {
        Self {
            end: slice.end(),
            max_timestamp: slice.max_timestamp,
            bytes: u64::from(slice.length),
            slices: 1,
            small: u64::from(slice.is_small()),
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

impl Node {
    fn summary(&self) -> Summary {
        match self {
            Self::Leaf(slices) => slices.iter().map(Summary::of).fold(Summary::EMPTY, Summary::then),
            Self::Inner(branches) => {
                branches.iter().map(|branch| branch.summary).fold(Summary::EMPTY, Summary::then)
            }
        }
    }

    fn into_branch(self) -> Branch {
        Branch { summary: self.summary(), node: Arc::new(self) }
    }

    /// Puts a slice at the right edge; a full node answers with a new sibling to its right.
    fn push(&mut self, slice: Slice) -> Option<Self> {
        match self {
            Self::Leaf(slices) if slices.len() < FANOUT => {
                push_tightly(slices, slice);
                None
            }
            Self::Leaf(_) => Some(Self::Leaf(vec![slice])),
            Self::Inner(branches) => {
                let last = branches.last_mut()?;
                let Some(sibling) = Arc::make_mut(&mut last.node).push(slice) else {
                    last.summary = last.summary.then(Summary::of(&slice));
                    return None;
                };
                let branch = sibling.into_branch();
                if branches.len() < FANOUT {
                    push_tightly(branches, branch);
                    return None;
                }
                Some(Self::Inner(vec![branch]))
            }
        }
    }

    fn extend_last(&mut self, length: u32, records: u32, max_timestamp: Timestamp) {
        match self {
            Self::Leaf(slices) => {
                if let Some(last) = slices.last_mut() {
                    last.length = last.length.saturating_add(length);
                    last.records = last.records.saturating_add(records);
                    last.max_timestamp = last.max_timestamp.max(max_timestamp);
                }
            }
            Self::Inner(branches) => {
                if let Some(last) = branches.last_mut() {
                    let node = Arc::make_mut(&mut last.node);
                    node.extend_last(length, records, max_timestamp);
                    last.summary = node.summary();
                }
            }
        }
    }

    fn drop_below(&mut self, offset: Offset, dropped: &mut dyn FnMut(&Slice)) {
        match self {
            Self::Leaf(slices) => {
                let kept_from = slices.partition_point(|slice| slice.end() <= offset);
                slices.drain(..kept_from).for_each(|slice| dropped(&slice));
                slices.shrink_to_fit();
            }
            Self::Inner(branches) => {
                let kept_from = branches.partition_point(|branch| branch.summary.end <= offset);
                branches.drain(..kept_from).for_each(|branch| branch.node.visit(dropped));
                if let Some(first) = branches.first_mut().filter(|first| first.node.begins_below(offset)) {
                    let node = Arc::make_mut(&mut first.node);
                    node.drop_below(offset, dropped);
                    first.summary = node.summary();
                }
            }
        }
    }

    /// Takes out every slice that begins within the new one, and puts that in (`with`) or leaves a gap for it to the left.
    fn replace(&mut self, new: &Slice, with: bool) {
        match self {
            Self::Leaf(slices) => {
                let from = slices.partition_point(|slice| slice.base < new.base);
                let to = slices.partition_point(|slice| slice.base < new.end());
                slices.splice(from..to, with.then_some(*new));
                slices.shrink_to_fit();
            }
            Self::Inner(branches) => {
                let from = branches.partition_point(|branch| branch.summary.end <= new.base);
                let to = branches.partition_point(|branch| branch.summary.end < new.end()) + 1;
                let to = to.min(branches.len());
                for (place, branch) in (from..).zip(&mut branches[from..to]) {
                    let node = Arc::make_mut(&mut branch.node);
                    node.replace(new, with && place == from);
                    branch.summary = node.summary();
                }
                branches.retain(|branch| branch.summary.slices > 0);
                join_neighbours(branches, from);
            }
        }
    }

    /// Slices of a leaf, or branches of an inner node.
    fn len(&self) -> usize {
        match self {
            Self::Leaf(slices) => slices.len(),
            Self::Inner(branches) => branches.len(),
        }
    }

    /// Takes in what lies to the right, of the same depth.
    fn take_in(&mut self, right: &Self) {
        match (self, right) {
            (Self::Leaf(own), Self::Leaf(others)) => own.extend_from_slice(others),
            (Self::Inner(own), Self::Inner(others)) => own.extend_from_slice(others),
            _ => unreachable!("branches of a node are equally deep"),
        }
    }

    /// Whether the first slice lies wholly below an offset.
    fn begins_below(&self, offset: Offset) -> bool {
        match self {
            Self::Leaf(slices) => slices.first().is_some_and(|slice| slice.end() <= offset),
            Self::Inner(branches) => branches.first().is_some_and(|branch| branch.node.begins_below(offset)),
        }
    }

    /// Takes away levels that no longer branch.
    fn lose_height(&mut self) {
        while let Self::Inner(branches) = self {
            *self = match branches.len() {
                0 => Self::default(),
                1 => branches.pop().map(|only| Arc::unwrap_or_clone(only.node)).unwrap_or_default(),
                _ => return,
            };
        }
    }

    fn visit(&self, visit: &mut dyn FnMut(&Slice)) {
        match self {
            Self::Leaf(slices) => slices.iter().for_each(visit),
            Self::Inner(branches) => branches.iter().for_each(|branch| branch.node.visit(visit)),
        }
    }

    fn visit_from(
        &self,
        offset: Offset,
        visit: &mut dyn FnMut(&Slice) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Self::Leaf(slices) => {
                let from = slices.partition_point(|slice| slice.end() <= offset);
                slices.iter().skip(from).try_for_each(visit)
            }
            Self::Inner(branches) => {
                let from = branches.partition_point(|branch| branch.summary.end <= offset);
                branches.iter().skip(from).try_for_each(|branch| branch.node.visit_from(offset, visit))
            }
        }
    }

    fn depth(&self, faults: &mut Vec<&'static str>) -> usize {
        let Self::Inner(branches) = self else {
            return 0;
        };
        if branches.is_empty() || branches.len() > FANOUT {
            faults.push("an inner node with no branch or too many");
        }
        if branches.iter().any(|branch| branch.summary != branch.node.summary()) {
            faults.push("a summary that is not its node's");
        }
        if branches.iter().any(|branch| matches!(&*branch.node, Self::Leaf(slices) if slices.is_empty() || slices.len() > FANOUT)) {
            faults.push("a leaf with no slice or too many");
        }
        let depths: Vec<usize> = branches.iter().map(|branch| branch.node.depth(faults)).collect();
        if depths.windows(2).any(|pair| pair[0] != pair[1]) {
            faults.push("leaves of unequal depth");
        }
        depths.first().map_or(0, |depth| depth + 1)
    }
}

/// Joins nodes that a replacement has left nearly empty with their neighbours, from the place before `from` on as far as it
/// reached.
fn join_neighbours(branches: &mut Vec<Branch>, from: usize) {
    let first = from.saturating_sub(1);
    for place in [first, first + 1] {
        while place + 1 < branches.len()
            && branches[place].node.len() + branches[place + 1].node.len() <= FANOUT / 2
        {
            let right = branches.remove(place + 1);
            let left = &mut branches[place];
            Arc::make_mut(&mut left.node).take_in(&right.node);
            left.summary = left.summary.then(right.summary);
        }
    }
}

/// Grows by a quarter instead of doubling: most partitions are small, and there may be a million of them.
fn push_tightly<T>(items: &mut Vec<T>, item: T) {
    if items.len() == items.capacity() {
        items.reserve_exact((items.len() / 4).clamp(1, FANOUT));
    }
    items.push(item);
}
