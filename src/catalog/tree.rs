//! A persistent (structurally shared) column: leaves of 128 values under branches of 16, copied on write.
//!
//! Two snapshots share every leaf and branch that no update between them touched. Changing one value copies
//! one leaf, three branches and the root, whatever the length. Branches are narrow because copying one counts
//! a reference in each of its children, and each of those is a cache miss in a large column.

use std::ops::Range;
use std::sync::Arc;

/// Values in a leaf.
const LEAF: usize = 128;

/// Children of a branch below the root, which has as many as it takes.
const FAN_OUT: usize = 16;

/// A value that a [`Tree`] holds, and the summary that every leaf and branch keeps of its values.
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

/// A part of the column: a leaf, or a branch over parts of one kind. Indices count from its own first value.
trait Block<T: Entry>: Clone {
    /// Values below a full one.
    const SPAN: usize;
    /// Takes up to `SPAN` values, and adds their number to `len`; `None` where none are left.
    fn fill(values: &mut impl Iterator<Item = T>, len: &mut usize) -> Option<Self>;
    fn summary(&self) -> T::Summary;
    fn get(&self, index: usize) -> T;
    fn set(&mut self, index: usize, value: T);
    /// Adds the value at `index`, the first that is not there yet and below `SPAN`.
    fn push(&mut self, index: usize, value: T);
    /// Calls `fold` with summaries that together cover `range`, which is not all of it.
    fn summarize(&self, range: Range<usize>, fold: &mut impl FnMut(T::Summary));
    /// Calls `visit` with the values of `range` and their indices plus `base`, unless `enter` refuses.
    fn visit(
        &self,
        base: usize,
        range: Range<usize>,
        enter: &impl Fn(&T::Summary) -> bool,
        visit: &mut impl FnMut(usize, T),
    );
    fn each(&self, visit: &mut impl FnMut(T));
    /// Calls `visit` with the values that are not those of `other`, a block of the same length, and their indices
    /// plus `base`; does not look into what the two share.
    fn differences(&self, other: &Self, base: usize, visit: &mut impl FnMut(usize, T))
    where
        T: PartialEq;
    /// Bytes it holds, its own included.
    fn bytes(&self) -> usize;
}

#[derive(Clone)]
struct Leaf<T>([T; LEAF]);

impl<T: Entry> Block<T> for Leaf<T> {
    const SPAN: usize = LEAF;

    fn fill(values: &mut impl Iterator<Item = T>, len: &mut usize) -> Option<Self> {
        let mut leaf = [T::PAD; LEAF];
        let mut filled = 0;
        while let Some(value) = (filled < LEAF).then(|| values.next()).flatten() {
            leaf[filled] = value;
            filled += 1;
        }
        *len += filled;
        (filled > 0).then_some(Self(leaf))
    }

    fn summary(&self) -> T::Summary {
        T::summary(&self.0)
    }

    fn get(&self, index: usize) -> T {
        self.0[index]
    }

    fn set(&mut self, index: usize, value: T) {
        self.0[index] = value;
    }

    fn push(&mut self, index: usize, value: T) {
        self.0[index] = value;
    }

    fn summarize(&self, range: Range<usize>, fold: &mut impl FnMut(T::Summary)) {
        fold(T::summary(&self.0[range]));
    }

    fn visit(
        &self,
        base: usize,
        range: Range<usize>,
        _: &impl Fn(&T::Summary) -> bool,
        visit: &mut impl FnMut(usize, T),
    ) {
        range.for_each(|index| visit(base + index, self.0[index]));
    }

    fn each(&self, visit: &mut impl FnMut(T)) {
        self.0.iter().for_each(|&value| visit(value));
    }

    fn differences(&self, other: &Self, base: usize, visit: &mut impl FnMut(usize, T))
    where
        T: PartialEq,
    {
        for (index, (&value, old)) in self.0.iter().zip(&other.0).enumerate() {
            if value != *old {
                visit(base + index, value);
            }
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

#[derive(Clone)]
struct Branch<T: Entry, B> {
    children: Vec<Arc<B>>,
    summaries: Vec<T::Summary>,
}

impl<T: Entry, B: Block<T>> Branch<T, B> {
    fn fill_up_to(limit: usize, values: &mut impl Iterator<Item = T>, len: &mut usize) -> Self {
        let mut branch = Self { children: Vec::new(), summaries: Vec::new() };
        while branch.children.len() < limit {
            let Some(child) = B::fill(values, len) else { break };
            branch.summaries.push(child.summary());
            branch.children.push(Arc::new(child));
        }
        branch
    }

    /// The children that `range` touches, each with the part of it that lies inside, counted from its start.
    fn parts(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        // Of an empty range nothing: its end is not past its start, so it has no last child.
        let end = if range.is_empty() { 0 } else { range.end.div_ceil(B::SPAN) };
        (range.start / B::SPAN..end).map(move |child| {
            let start = child * B::SPAN;
            (child, range.start.max(start) - start..range.end.min(start + B::SPAN) - start)
        })
    }
}

impl<T: Entry, B: Block<T>> Block<T> for Branch<T, B> {
    const SPAN: usize = FAN_OUT * B::SPAN;

    fn fill(values: &mut impl Iterator<Item = T>, len: &mut usize) -> Option<Self> {
        let branch = Self::fill_up_to(FAN_OUT, values, len);
        (!branch.children.is_empty()).then_some(branch)
    }

    fn summary(&self) -> T::Summary {
        T::join(&self.summaries)
    }

    fn get(&self, index: usize) -> T {
        self.children[index / B::SPAN].get(index % B::SPAN)
    }

    fn set(&mut self, index: usize, value: T) {
        let child = index / B::SPAN;
        let block = Arc::make_mut(&mut self.children[child]);
        block.set(index % B::SPAN, value);
        self.summaries[child] = block.summary();
    }

    fn push(&mut self, index: usize, value: T) {
        let child = index / B::SPAN;
        if let Some(block) = self.children.get_mut(child) {
            let block = Arc::make_mut(block);
            block.push(index % B::SPAN, value);
            self.summaries[child] = block.summary();
        } else if let Some(block) = B::fill(&mut std::iter::once(value), &mut 0) {
            self.summaries.push(block.summary());
            self.children.push(Arc::new(block));
        }
    }

    fn summarize(&self, range: Range<usize>, fold: &mut impl FnMut(T::Summary)) {
        for (child, part) in Self::parts(range) {
            if part.len() == B::SPAN {
                fold(self.summaries[child]);
            } else {
                self.children[child].summarize(part, fold);
            }
        }
    }

    fn visit(
        &self,
        base: usize,
        range: Range<usize>,
        enter: &impl Fn(&T::Summary) -> bool,
        visit: &mut impl FnMut(usize, T),
    ) {
        for (child, part) in Self::parts(range) {
            if enter(&self.summaries[child]) {
                self.children[child].visit(base + child * B::SPAN, part, enter, visit);
            }
        }
    }

    fn each(&self, visit: &mut impl FnMut(T)) {
        self.children.iter().for_each(|child| child.each(visit));
    }

    fn differences(&self, other: &Self, base: usize, visit: &mut impl FnMut(usize, T))
    where
        T: PartialEq,
    {
        for (index, (child, old)) in self.children.iter().zip(&other.children).enumerate() {
            if !Arc::ptr_eq(child, old) {
                child.differences(old, base + index * B::SPAN, visit);
            }
        }
    }

    fn bytes(&self) -> usize {
        /// The two counts that stand before a shared value.
        const COUNTS: usize = 2 * size_of::<usize>();
        let children: usize = self.children.iter().map(|child| COUNTS + child.bytes()).sum();
        let pointers = self.children.capacity() * size_of::<Arc<B>>();
        size_of::<Self>() + pointers + self.summaries.capacity() * size_of::<T::Summary>() + children
    }
}

type Root<T> = Branch<T, Branch<T, Branch<T, Branch<T, Leaf<T>>>>>;

/// A persistent column of `T`; cloning it is one reference count.
#[derive(Clone)]
pub(super) struct Tree<T: Entry> {
    len: usize,
    root: Arc<Root<T>>,
}

impl<T: Entry> Tree<T> {
    /// A column of the values of `values`, in order.
    pub(super) fn from_values(values: impl IntoIterator<Item = T>) -> Self {
        let mut len = 0;
        let root = Branch::fill_up_to(usize::MAX, &mut values.into_iter(), &mut len);
        Self { len, root: Arc::new(root) }
    }

    /// The value at `index`, which must be below the column's length.
    pub(super) fn get(&self, index: usize) -> T {
        debug_assert!(index < self.len);
        self.root.get(index)
    }

    /// Replaces the value at `index`; snapshots that share this column keep the old one.
    pub(super) fn set(&mut self, index: usize, value: T) {
        assert!(index < self.len, "index {index} of a column of {}", self.len);
        Arc::make_mut(&mut self.root).set(index, value);
    }

    /// Adds a value behind the last; snapshots that share this column do not have it.
    pub(super) fn push(&mut self, value: T) {
        Arc::make_mut(&mut self.root).push(self.len, value);
        self.len += 1;
    }

    /// Bytes it holds, those that it shares with other snapshots included.
    pub(super) fn bytes(&self) -> usize {
        self.root.bytes()
    }

    /// All values, in order.
    pub(super) fn to_vec(&self) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len + LEAF);
        self.root.each(&mut |value| values.push(value));
        values.truncate(self.len);
        values
    }

    /// Calls `visit` with every value that is not the one of `other`, a column of the same length, and its index, in
    /// order; does not look into what the two columns share.
    pub(super) fn differences(&self, other: &Self, mut visit: impl FnMut(usize, T))
    where
        T: PartialEq,
    {
        self.root.differences(&other.root, 0, &mut visit);
    }

    /// Calls `fold` with the summaries that together cover `range` (clipped to the column), in order: those
    /// of whole children where they fit, and of parts of the two leaves at the ends, made anew.
    pub(super) fn summarize(&self, range: Range<usize>, fold: &mut impl FnMut(T::Summary)) {
        self.root.summarize(range.start..range.end.min(self.len), fold);
    }

    /// Calls `visit` with every value of `range` (clipped to the column) and its index, in order, leaving out
    /// leaves and branches whose summary `enter` refuses.
    pub(super) fn visit(
        &self,
        range: Range<usize>,
        enter: impl Fn(&T::Summary) -> bool,
        mut visit: impl FnMut(usize, T),
    ) {
        self.root.visit(0, range.start..range.end.min(self.len), &enter, &mut visit);
    }
}
