//! A persistent (structurally shared) column: leaves of 256 values under nodes of 256 leaves, copied on write.
//!
//! Two snapshots share every leaf and node that no update between them touched, so changing one value of a
//! column of millions copies one leaf, one node and the root: microseconds, whatever the length.

use std::ops::Range;
use std::sync::Arc;

/// Values in a leaf, and leaves in a node.
pub(super) const FAN_OUT: usize = 256;

/// Values below one node.
const NODE: usize = FAN_OUT * FAN_OUT;

/// A value that a [`Tree`] holds, and the summary that every leaf and node keeps of its values.
pub(super) trait Entry: Copy {
    /// What is kept of a run of values; `()` where nothing is asked of runs.
    type Summary: Copy + Default;
    /// Fills the last leaf beyond the column's end; must not change a summary.
    const PAD: Self;
    /// The summary of a run of values.
    fn summary(values: &[Self]) -> Self::Summary;
    /// The summary of several runs, from theirs.
    fn join(parts: &[Self::Summary]) -> Self::Summary;
}

/// Declares types that need no summary.
macro_rules! plain_entries {
    ($($type:ty => $pad:expr),*) => {$(
        impl $crate::catalog::tree::Entry for $type {
            type Summary = ();
            const PAD: Self = $pad;
            fn summary(_: &[Self]) {}
            fn join(_: &[()]) {}
        }
    )*};
}
pub(super) use plain_entries;

plain_entries!(u64 => 0, bool => false);

type Leaf<T> = Arc<[T; FAN_OUT]>;

#[derive(Clone)]
struct Node<T: Entry> {
    leaves: Vec<Leaf<T>>,
    summaries: Vec<T::Summary>,
}

#[derive(Clone)]
struct Root<T: Entry> {
    nodes: Vec<Arc<Node<T>>>,
    summaries: Vec<T::Summary>,
}

/// A persistent column of `T`; cloning it is one reference count.
#[derive(Clone)]
pub(super) struct Tree<T: Entry> {
    len: usize,
    root: Arc<Root<T>>,
}

impl<T: Entry> Tree<T> {
    /// A column of the values of `values`, in order.
    pub(super) fn from_values(values: impl IntoIterator<Item = T>) -> Self {
        let mut values = values.into_iter();
        let mut root = Root { nodes: Vec::new(), summaries: Vec::new() };
        let mut len = 0;
        loop {
            let node = Node::fill(&mut values, &mut len);
            if node.leaves.is_empty() {
                break;
            }
            root.summaries.push(T::join(&node.summaries));
            root.nodes.push(Arc::new(node));
        }
        Self { len, root: Arc::new(root) }
    }

    /// The value at `index`, which must be below the column's length.
    pub(super) fn get(&self, index: usize) -> T {
        debug_assert!(index < self.len);
        self.root.nodes[index / NODE].leaves[index / FAN_OUT % FAN_OUT][index % FAN_OUT]
    }

    /// Replaces the value at `index`; snapshots that share this column keep the old one.
    pub(super) fn set(&mut self, index: usize, value: T) {
        assert!(index < self.len, "index {index} of a column of {}", self.len);
        let (n, l, i) = (index / NODE, index / FAN_OUT % FAN_OUT, index % FAN_OUT);
        let root = Arc::make_mut(&mut self.root);
        let node = Arc::make_mut(&mut root.nodes[n]);
        let leaf = Arc::make_mut(&mut node.leaves[l]);
        leaf[i] = value;
        node.summaries[l] = T::summary(&leaf[..]);
        root.summaries[n] = T::join(&node.summaries);
    }

    /// All values, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        let leaves = self.root.nodes.iter().flat_map(|node| &node.leaves);
        leaves.flat_map(|leaf| leaf.iter().copied()).take(self.len)
    }

    /// Calls `fold` with the summaries that together cover `range` (clipped to the column), in order.
    ///
    /// At most 2 x 256 leaf summaries, the summaries of whole nodes, and two partial leaves, summarized anew.
    pub(super) fn summarize(&self, range: Range<usize>, fold: &mut impl FnMut(T::Summary)) {
        let range = range.start..range.end.min(self.len);
        let mut at = range.start;
        while at < range.end {
            let (n, l) = (at / NODE, at / FAN_OUT % FAN_OUT);
            if at % NODE == 0 && at + NODE <= range.end {
                fold(self.root.summaries[n]);
                at += NODE;
            } else if at % FAN_OUT == 0 && at + FAN_OUT <= range.end {
                fold(self.root.nodes[n].summaries[l]);
                at += FAN_OUT;
            } else {
                let (start, end) = (at % FAN_OUT, FAN_OUT.min(at % FAN_OUT + range.end - at));
                fold(T::summary(&self.root.nodes[n].leaves[l][start..end]));
                at += end - start;
            }
        }
    }

    /// Calls `visit` with every value of `range` (clipped to the column) and its index, in order, leaving out
    /// leaves and nodes whose summary `enter` refuses.
    pub(super) fn visit(
        &self,
        range: Range<usize>,
        enter: impl Fn(&T::Summary) -> bool,
        mut visit: impl FnMut(usize, T),
    ) {
        let range = range.start..range.end.min(self.len);
        let mut at = range.start;
        while at < range.end {
            let (n, l) = (at / NODE, at / FAN_OUT % FAN_OUT);
            if !enter(&self.root.summaries[n]) {
                at = (n + 1) * NODE;
                continue;
            }
            let end = range.end.min((at / FAN_OUT + 1) * FAN_OUT);
            let node = &self.root.nodes[n];
            if enter(&node.summaries[l]) {
                for index in at..end {
                    visit(index, node.leaves[l][index % FAN_OUT]);
                }
            }
            at = end;
        }
    }
}

impl<T: Entry> Node<T> {
    /// Takes up to a node's worth of values, adding their number to `len`; no leaves where none are left.
    fn fill(values: &mut impl Iterator<Item = T>, len: &mut usize) -> Self {
        let mut node = Self { leaves: Vec::new(), summaries: Vec::new() };
        while node.leaves.len() < FAN_OUT {
            let mut leaf = [T::PAD; FAN_OUT];
            let mut filled = 0;
            for (slot, value) in leaf.iter_mut().zip(values.by_ref()) {
                *slot = value;
                filled += 1;
            }
            if filled == 0 {
                break;
            }
            *len += filled;
            node.summaries.push(T::summary(&leaf));
            node.leaves.push(Arc::new(leaf));
            if filled < FAN_OUT {
                break;
            }
        }
        node
    }
}
