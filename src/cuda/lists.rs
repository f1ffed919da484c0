//! How lists lie in device memory.

use super::launch::Buffer;

/// Most slots of a list: one thread of a warp takes one.
pub const MAX_SLOTS: usize = 32;

/// Lists of up to `slots` slots. Whatever belongs to a slot stands in row `list * slots + slot` of its array; rows
/// beyond a list's length hold nothing.
#[derive(Debug, Clone, Copy)]
pub struct Lists<'a> {
    /// Number of lists, of all requests together.
    pub count: usize,
    /// Room of each, up to [`MAX_SLOTS`].
    pub slots: usize,
    /// Filled slots of each list; [`NO_LIST`] where a search ended with fewer lists than there is room for.
    pub lengths: &'a Buffer<i32>,
}

/// Length of a list that does not exist: it cannot win, while an empty list can.
pub const NO_LIST: i32 = -1;

impl<'a> Lists<'a> {
    /// `count` lists of up to `slots` slots with these lengths.
    pub fn new(count: usize, slots: usize, lengths: &'a Buffer<i32>) -> Self {
        assert!((1..=MAX_SLOTS).contains(&slots) && lengths.len() >= count);
        Self { count, slots, lengths }
    }

    /// Rows of the lists' arrays.
    pub fn rows(&self) -> usize {
        self.count * self.slots
    }
}
