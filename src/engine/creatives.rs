//! Which creatives have to be decided for some lists.

use std::collections::HashMap;

use crate::decode::search::CandidateList;
use crate::model::reward::Shown;

/// An item in a slot, with the decoder's state after its last code. Lists that descend from the same row there share
/// it, and so the creative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Decision {
    /// Row of the item in the snapshot.
    pub item: u32,
    /// Position of the decoder whose input is the item's last code.
    pub position: usize,
    /// The decoder's row there.
    pub row: u32,
}

/// The decision of each slot of a list, with `code_layers` positions an item.
pub(super) fn decisions(list: &CandidateList, code_layers: usize) -> impl Iterator<Item = Decision> {
    list.items.iter().enumerate().map(move |(slot, chosen)| {
        let position = (slot + 1) * code_layers;
        Decision { item: chosen.item, position, row: list.path[position] }
    })
}

/// The decisions of some lists, each once.
pub(super) struct Decisions {
    /// In the order of the lists and slots that need them first.
    pub all: Vec<Decision>,
    /// Of each slot of each list: which decision is its own.
    of_lists: Vec<Vec<usize>>,
}

impl Decisions {
    /// The decisions of `lists`, with `code_layers` positions an item.
    pub fn of(lists: &[CandidateList], code_layers: usize) -> Self {
        let mut all = Vec::new();
        let mut known: HashMap<Decision, usize> = HashMap::new();
        let of_lists = lists
            .iter()
            .map(|list| {
                decisions(list, code_layers)
                    .map(|decision| {
                        *known.entry(decision).or_insert_with(|| {
                            all.push(decision);
                            all.len() - 1
                        })
                    })
                    .collect()
            })
            .collect();
        Self { all, of_lists }
    }

    /// Items and creatives of each list, given the creative of each decision.
    pub fn shown(&self, creatives: &[u32]) -> Vec<Vec<Shown>> {
        let shown = |&index: &usize| Shown { item: self.all[index].item, creative: creatives[index] };
        self.of_lists.iter().map(|list| list.iter().map(shown).collect()).collect()
    }
}
