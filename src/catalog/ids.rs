//! From external ids to rows.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Rows by external id: a hash table of rows alone (five bytes a slot), the ids stay in their column.
///
/// The hash is seeded anew in every process, so ids cannot be chosen to collide; nothing that a response
/// holds depends on it.
#[derive(Clone)]
pub(super) struct IdMap {
    seed: u64,
    rows: HashTable<u32>,
}

impl IdMap {
    /// The map of `ids`.
    ///
    /// # Errors
    /// The two rows of the first id found twice.
    pub(super) fn new(ids: &[u64]) -> Result<Self, [u32; 2]> {
        let seed = RandomState::new().hash_one(0);
        let mut map = Self { seed, rows: HashTable::with_capacity(ids.len()) };
        for row in 0..ids.len() as u32 {
            map.insert(ids, row).map_err(|earlier| [earlier, row])?;
        }
        Ok(map)
    }

    /// The row of `id`.
    pub(super) fn find(&self, ids: &[u64], id: u64) -> Option<u32> {
        self.rows.find(mix(self.seed, id), |&row| ids[row as usize] == id).copied()
    }

    /// Bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.rows.allocation_size()
    }

    /// Adds `row` under `ids[row]`; `Err` is the row that has this id already.
    pub(super) fn insert(&mut self, ids: &[u64], row: u32) -> Result<(), u32> {
        let id = ids[row as usize];
        if let Some(earlier) = self.find(ids, id) {
            return Err(earlier);
        }
        let seed = self.seed;
        self.rows.insert_unique(mix(seed, id), row, |&row| mix(seed, ids[row as usize]));
        Ok(())
    }
}

/// The finalizer of splitmix64 over the seeded id: every bit of the hash depends on every bit of the id.
fn mix(seed: u64, id: u64) -> u64 {
    let mut z = id ^ seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
