//! The code prefixes that several searches of one request run, each of them once.
//!
//! A state of the POI decoder depends on the history and on the codes before it, on no bid. So searches under other bids
//! can share the rows that the decoder ran for one another. [`Prefixes`] names every prefix by a number for good, and
//! says which row holds it as long as there is one.

use std::collections::HashMap;

use super::search::Row;

/// A prefix, by number; the empty one is 0.
pub type Prefix = u32;

const EMPTY: Prefix = 0;

/// Prefixes, and the rows that hold some of them.
pub struct Prefixes {
    /// A prefix and one code more.
    longer: HashMap<(Prefix, u16), Prefix>,
    /// Most rows at a position.
    capacity: usize,
    /// The rows that [`Prefixes::forget`] leaves at each position.
    kept: Vec<usize>,
    levels: Vec<Level>,
}

/// The rows at one position.
#[derive(Default)]
struct Level {
    rows: HashMap<Prefix, u32>,
    prefixes: Vec<Prefix>,
    last_codes: Vec<Option<u16>>,
    /// [rows][position]: the rows that ran the shorter prefixes.
    paths: Vec<u32>,
}

/// A row as a search sees it: the row that ran the prefix without the last code, and that code; none at position 0.
pub type Entry = Option<(u32, u16)>;

impl Prefixes {
    /// No prefixes, with room for `capacity` rows at each of `positions` positions.
    pub fn new(positions: usize, capacity: usize) -> Self {
        let levels = std::iter::repeat_with(Level::default).take(positions).collect();
        Self { longer: HashMap::new(), capacity, kept: vec![0; positions], levels }
    }

    /// Rows at a position.
    pub fn rows(&self, position: usize) -> usize {
        self.levels[position].prefixes.len()
    }

    /// How many prefixes there were so far, the empty one included.
    pub fn count(&self) -> usize {
        self.longer.len() + 1
    }

    /// The prefix that a row holds.
    pub fn prefix(&self, position: usize, row: u32) -> Prefix {
        self.levels[position].prefixes[row as usize]
    }

    /// The row of each entry, into `out`; prefixes that no row holds get one behind those that are there. False, and
    /// nothing is changed, where there is no room for these.
    pub fn enter(&mut self, position: usize, entries: &[Entry], out: &mut Vec<u32>) -> bool {
        let names: Vec<Prefix> = entries.iter().map(|&entry| self.name(position, entry)).collect();
        let level = &mut self.levels[position];
        let new = names.iter().filter(|name| !level.rows.contains_key(*name)).count();
        if level.prefixes.len() + new > self.capacity {
            return false;
        }
        out.clear();
        for (&name, &entry) in names.iter().zip(entries) {
            let row = match self.levels[position].rows.get(&name) {
                Some(&row) => row,
                None => self.push(position, name, entry),
            };
            out.push(row);
        }
        true
    }

    fn name(&mut self, position: usize, entry: Entry) -> Prefix {
        let Some((parent, code)) = entry else { return EMPTY };
        let next = self.longer.len() as Prefix + 1;
        *self.longer.entry((self.levels[position - 1].prefixes[parent as usize], code)).or_insert(next)
    }

    fn push(&mut self, position: usize, name: Prefix, entry: Entry) -> u32 {
        let (shorter, rest) = self.levels.split_at_mut(position);
        let level = &mut rest[0];
        if let (Some((parent, _)), Some(before)) = (entry, shorter.last()) {
            let at = parent as usize * (position - 1);
            level.paths.extend_from_slice(&before.paths[at..at + position - 1]);
            level.paths.push(parent);
        }
        let row = level.prefixes.len() as u32;
        level.rows.insert(name, row);
        level.prefixes.push(name);
        level.last_codes.push(entry.map(|(_, code)| code));
        row
    }

    /// The rows at a position from `first` on, as the decoder runs them.
    pub fn rows_from(&self, position: usize, first: usize) -> impl Iterator<Item = Row<'_>> {
        let level = &self.levels[position];
        let row = move |row: usize| Row {
            last_code: level.last_codes[row],
            path: &level.paths[row * position..(row + 1) * position],
        };
        (first..level.prefixes.len()).map(row)
    }

    /// Leaves the rows that are there now whenever rows are forgotten.
    pub fn keep(&mut self) {
        self.kept = self.levels.iter().map(|level| level.prefixes.len()).collect();
    }

    /// Forgets the rows that came after [`Prefixes::keep`]; the prefixes keep their numbers.
    pub fn forget(&mut self) {
        for (position, (level, &kept)) in self.levels.iter_mut().zip(&self.kept).enumerate() {
            level.prefixes.truncate(kept);
            level.last_codes.truncate(kept);
            level.paths.truncate(kept * position);
            level.rows.retain(|_, row| (*row as usize) < kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(prefixes: &mut Prefixes, position: usize, entries: &[Entry]) -> Option<Vec<u32>> {
        let mut rows = Vec::new();
        prefixes.enter(position, entries, &mut rows).then_some(rows)
    }

    fn paths(prefixes: &Prefixes, position: usize, first: usize) -> Vec<(Option<u16>, Vec<u32>)> {
        prefixes.rows_from(position, first).map(|row| (row.last_code, row.path.to_vec())).collect()
    }

    #[test]
    fn each_prefix_has_one_row() {
        let mut prefixes = Prefixes::new(3, 4);
        assert_eq!(enter(&mut prefixes, 0, &[None]), Some(vec![0]));
        assert_eq!(enter(&mut prefixes, 0, &[None]), Some(vec![0]));
        assert_eq!(enter(&mut prefixes, 1, &[Some((0, 7)), Some((0, 5))]), Some(vec![0, 1]));
        assert_eq!(enter(&mut prefixes, 1, &[Some((0, 5)), Some((0, 6))]), Some(vec![1, 2]));
        assert_eq!(enter(&mut prefixes, 2, &[Some((2, 7)), Some((1, 7))]), Some(vec![0, 1]));
        assert_eq!(paths(&prefixes, 0, 0), [(None, vec![])]);
        assert_eq!(paths(&prefixes, 2, 0), [(Some(7), vec![0, 2]), (Some(7), vec![0, 1])]);
        assert_eq!((prefixes.count(), prefixes.rows(1)), (6, 3));
    }

    #[test]
    fn a_search_that_does_not_fit_changes_nothing() {
        let mut prefixes = Prefixes::new(2, 2);
        enter(&mut prefixes, 0, &[None]);
        enter(&mut prefixes, 1, &[Some((0, 1))]);
        prefixes.keep();
        enter(&mut prefixes, 1, &[Some((0, 2))]);
        assert_eq!(enter(&mut prefixes, 1, &[Some((0, 1)), Some((0, 3))]), None);
        assert_eq!(prefixes.rows(1), 2);
        let known = prefixes.prefix(1, 0);
        prefixes.forget();
        assert_eq!(enter(&mut prefixes, 1, &[Some((0, 3)), Some((0, 1))]), Some(vec![1, 0]));
        assert_eq!(prefixes.prefix(1, 0), known);
        // The one that did not fit, and the one that was forgotten, are still counted once.
        assert_eq!(enter(&mut prefixes, 1, &[Some((0, 2))]), None);
        assert_eq!(prefixes.count(), 4);
    }
}
