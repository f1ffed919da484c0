//! What a request admits.

use crate::data::{Ask, Catalog};
use crate::draw::Stream;

/// What a request can show: ads that bid at least their reserve, and organic items in their order.
#[derive(Debug)]
pub struct Feasible {
    /// Items that may be shown as ads.
    pub ads: Vec<usize>,
    /// Organic items, in order.
    pub organic: Vec<usize>,
    ask: Shape,
}

/// Slots and where ads may stand in them.
#[derive(Debug, Clone, Copy)]
struct Shape {
    list_len: usize,
    max_ads: usize,
    min_gap: usize,
    first_ad_slot: usize,
}

impl Feasible {
    /// What `ask` admits.
    pub fn new(catalog: &Catalog, ask: &Ask) -> Self {
        let takes_part = |&&item: &&usize| catalog.items[item].ad.is_some_and(|ad| ad.takes_part());
        let ads: Vec<usize> = ask.ads.iter().filter(takes_part).copied().collect();
        let shape = Shape {
            list_len: ask.list_len,
            max_ads: ask.policy.max_ads.unwrap_or(usize::MAX).min(ads.len()).min(ask.list_len),
            min_gap: ask.policy.min_gap,
            first_ad_slot: ask.policy.first_ad_slot,
        };
        Self { ads, organic: ask.organic.clone(), ask: shape }
    }

    /// The most ads that a list can hold.
    pub fn most_ads(&self) -> usize {
        (0..=self.ask.max_ads).rev().find(|&ads| self.slack(ads).is_some()).unwrap_or(0)
    }

    /// Slots of a list with that many ads: fewer than asked for where organic items run out.
    pub fn slots(&self, ads: usize) -> usize {
        self.ask.list_len.min(ads + self.organic.len())
    }

    /// Slots that `ads` ads at their closest leave free to stand between or behind them; none where they do not fit.
    fn slack(&self, ads: usize) -> Option<usize> {
        let taken = if ads == 0 { 0 } else { self.ask.first_ad_slot + ads + (ads - 1) * self.ask.min_gap };
        self.slots(ads).checked_sub(taken)
    }

    /// Slots for `ads` ads that fit, uniform over all such sets.
    pub fn random_ad_slots(&self, ads: usize, draws: &mut Stream) -> Vec<usize> {
        let slack = self.slack(ads).unwrap_or(0);
        // A set of slots is a choice of where the ads stand among themselves and the free slots.
        let mut order: Vec<usize> = (0..slack + ads).collect();
        draws.shuffle(&mut order);
        let mut chosen = order[..ads].to_vec();
        chosen.sort_unstable();
        self.spread(&chosen)
    }

    /// Every set of slots for `ads` ads.
    pub fn all_ad_slots(&self, ads: usize) -> Vec<Vec<usize>> {
        let Some(slack) = self.slack(ads) else { return Vec::new() };
        let mut sets = vec![Vec::new()];
        for ad in 0..ads {
            let from = |set: &Vec<usize>| set.last().map_or(0, |last| last + 1);
            sets = sets
                .iter()
                .flat_map(|set: &Vec<usize>| {
                    (from(set)..=slack + ad).map(|next| [set.as_slice(), &[next]].concat())
                })
                .collect();
        }
        sets.iter().map(|set| self.spread(set)).collect()
    }

    /// Slots of ads that stand at `chosen` once gaps and the slots before the first ad are taken out.
    fn spread(&self, chosen: &[usize]) -> Vec<usize> {
        let gaps = (0..).map(|ad| self.ask.first_ad_slot + ad * self.ask.min_gap);
        chosen.iter().zip(gaps).map(|(slot, before)| slot + before).collect()
    }
}

/// The items of a list with `ads` in the slots `ad_slots` (ascending) and organic items in all others.
pub fn assemble(slots: usize, ads: &[usize], ad_slots: &[usize], organic: &[usize]) -> Vec<usize> {
    let (mut ads, mut organic) = (ads.iter(), organic.iter());
    (0..slots)
        .filter_map(|slot| if ad_slots.contains(&slot) { ads.next() } else { organic.next() })
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::draw;

    fn feasible(list_len: usize, max_ads: usize, min_gap: usize, first: usize, organic: usize) -> Feasible {
        let ask = Shape { list_len, max_ads, min_gap, first_ad_slot: first };
        Feasible { ads: (0..max_ads).collect(), organic: (100..100 + organic).collect(), ask }
    }

    #[test]
    fn sets_of_slots_are_all_that_the_policy_admits() {
        for (list_len, max_ads, min_gap, first) in [(10, 4, 1, 1), (7, 3, 2, 0), (5, 5, 0, 0), (6, 2, 3, 2)] {
            let shape = feasible(list_len, max_ads, min_gap, first, 20);
            for ads in 0..=max_ads {
                let by_hand: Vec<Vec<usize>> = (0_u32..1 << list_len)
                    .map(|bits| (0..list_len).filter(|slot| bits >> slot & 1 == 1).collect::<Vec<usize>>())
                    .filter(|set| set.len() == ads && set.iter().all(|&slot| slot >= first))
                    .filter(|set| set.windows(2).all(|pair| pair[1] - pair[0] > min_gap))
                    .collect();
                let mut sets = shape.all_ad_slots(ads);
                sets.sort();
                let mut expected = by_hand;
                expected.sort();
                assert_eq!(sets, expected, "{list_len} {ads} {min_gap} {first}");
            }
        }
    }

    #[test]
    fn random_sets_are_uniform() {
        let shape = feasible(7, 2, 1, 1, 20);
        let mut draws = draw::stream(1, "test", "");
        let mut counts = HashMap::<Vec<usize>, usize>::new();
        (0..30_000).for_each(|_| *counts.entry(shape.random_ad_slots(2, &mut draws)).or_default() += 1);
        let all = shape.all_ad_slots(2);
        assert_eq!(counts.len(), all.len());
        let expected = 30_000 / all.len();
        assert!(counts.values().all(|&n| n.abs_diff(expected) < expected / 8), "{counts:?}");
    }

    #[test]
    fn lists_shrink_where_organic_items_run_out() {
        let shape = feasible(10, 4, 1, 1, 3);
        assert_eq!(shape.most_ads(), 3);
        assert_eq!(shape.slots(3), 6);
        assert_eq!(shape.all_ad_slots(3), [[1, 3, 5]]);
        assert_eq!(feasible(10, 4, 1, 1, 0).most_ads(), 0);
        assert_eq!(feasible(10, 4, 0, 0, 0).most_ads(), 4);
    }
}
