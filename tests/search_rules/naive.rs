//! The rules of allocation read literally: every candidate is looked at for every code of every step, weights are
//! plain powers, probabilities plain quotients. Slow, and written apart from the engine.

use bidslate::catalog::{Columns, ItemKind};
use bidslate::decode::search::SearchRules;
use bidslate::request::{BidAggregate, BidScope};

/// A list, or part of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// ln z of every step.
    pub ln_zs: Vec<f64>,
    /// Every code chosen, those of a dropped item included.
    pub codes: Vec<u16>,
    /// Rows of the items, and ln z of each.
    pub items: Vec<(u32, f64)>,
    pub finished: bool,
    /// What the steps' ln z rest on: only where this is the same are two scores the same to the bit.
    chances: Vec<Vec<f64>>,
}

impl State {
    pub fn score(&self) -> f64 {
        self.ln_zs.iter().sum()
    }

    pub fn rows(&self) -> Vec<u32> {
        self.items.iter().map(|&(row, _)| row).collect()
    }
}

/// One search: the items of a request and its rules.
pub struct Naive<'a> {
    pub columns: &'a Columns,
    pub rules: &'a SearchRules,
    /// Rows named as candidates, eligible or not.
    pub candidates: Vec<u32>,
    /// Rows of the organic items, all of which may be shown.
    pub organic: Vec<u32>,
    pub excluded: Option<u32>,
    pub logit: &'a dyn Fn(&[u16], u16) -> f32,
}

/// Bid after pacing, in micros; 0 for organic items.
pub fn bid(columns: &Columns, row: u32) -> u64 {
    let row = row as usize;
    let advertiser = columns.advertisers.as_ref().map(|of| of[row]);
    let at = columns.advertiser_ids.iter().flatten().position(|&id| Some(id) == advertiser);
    let pacing = match (at, &columns.advertiser_pacing) {
        (Some(at), Some(pacing)) => f64::from(pacing[at]),
        _ => 1.0,
    };
    match columns.kinds[row] {
        ItemKind::Ad => (columns.bid_micros[row] as f64 * pacing) as u64,
        ItemKind::Organic => 0,
    }
}

/// Whether an item may be shown at all.
pub fn may_be_shown(columns: &Columns, row: u32) -> bool {
    let at = row as usize;
    let active = columns.active.as_ref().is_none_or(|active| active[at]);
    let creatives = columns.creative_offsets[at + 1] > columns.creative_offsets[at];
    let width = columns.embeddings.len() / columns.ids.len();
    let finite = columns.embeddings[at * width..(at + 1) * width].iter().all(|x| x.is_finite());
    let advertiser = columns.advertisers.as_ref().map(|of| of[at]);
    let account = columns.advertiser_ids.iter().flatten().position(|&id| Some(id) == advertiser);
    let spent = match (account, &columns.advertiser_budget_micros) {
        (Some(account), Some(budgets)) => budgets[account] == 0,
        _ => false,
    };
    let ad = columns.kinds[at] == ItemKind::Ad;
    active && creatives && finite && !(ad && (spent || bid(columns, row) < columns.reserve_micros[at]))
}

pub fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Whether the list keeps to the policy, looked at as a whole.
pub fn keeps_policy(rules: &SearchRules, is_ad: &[bool]) -> bool {
    let slots: Vec<usize> = (0..is_ad.len()).filter(|&slot| is_ad[slot]).collect();
    let policy = &rules.policy;
    slots.len() <= policy.max_ads.unwrap_or(usize::MAX)
        && slots.iter().all(|&slot| slot >= policy.first_ad_slot)
        && slots.windows(2).all(|pair| (pair[0] + 1..pair[1]).len() >= policy.min_gap)
}

impl Naive<'_> {
    pub fn is_ad(&self, row: u32) -> bool {
        self.columns.kinds[row as usize] == ItemKind::Ad
    }

    fn codes(&self, row: u32) -> &[u16] {
        let layers = self.rules.code_layers;
        &self.columns.codes[row as usize * layers..(row as usize + 1) * layers]
    }

    /// The ads that the request may show at all.
    fn ads(&self) -> impl Iterator<Item = u32> {
        let shown = |row: &u32| may_be_shown(self.columns, *row) && Some(*row) != self.excluded;
        self.candidates.iter().copied().filter(shown)
    }

    /// What may fill the next slot, whatever its codes.
    fn eligible(&self, state: &State) -> Vec<u32> {
        let used = state.rows();
        let mut with_ad: Vec<bool> = used.iter().map(|&row| self.is_ad(row)).collect();
        with_ad.push(true);
        let allowed = keeps_policy(self.rules, &with_ad);
        let ads = self.ads().filter(|row| allowed && !used.contains(row));
        ads.chain(self.organic.iter().copied().find(|row| !used.contains(row))).collect()
    }

    fn aggregate(&self, rows: &[u32]) -> f64 {
        let bids: Vec<u64> = rows.iter().map(|&row| bid(self.columns, row)).collect();
        let micros = match self.rules.aggregate {
            BidAggregate::Max => *bids.iter().max().unwrap() as f64,
            BidAggregate::Mean => bids.iter().sum::<u64>() as f64 / bids.len() as f64,
        };
        micros / self.rules.bid_unit as f64
    }

    /// What stands behind code `k`, and its weight w.
    fn weight(&self, state: &State, k: u16) -> (Vec<u32>, f64) {
        let layers = self.rules.code_layers;
        let layer = state.codes.len() % layers;
        let prefix = [&state.codes[state.codes.len() - layer..], &[k]].concat();
        let behind: Vec<u32> =
            self.eligible(state).into_iter().filter(|&row| self.codes(row).starts_with(&prefix)).collect();
        if behind.is_empty() {
            return (behind, 0.0);
        }
        let b = match self.rules.scope {
            BidScope::Prefix => self.aggregate(&behind),
            BidScope::Code => {
                let all = self.ads().chain(self.organic.iter().copied());
                self.aggregate(&all.filter(|&row| self.codes(row)[layer] == k).collect::<Vec<_>>())
            }
        };
        let power = if b == 0.0 { 0.0 } else { b.powf(self.rules.alpha) };
        (behind, power + self.rules.beta)
    }

    /// Whether no item that may come next is behind code `k`.
    pub fn nothing_behind(&self, state: &State, k: u16) -> bool {
        self.weight(state, k).0.is_empty()
    }

    /// e^logit w of every unmasked code; none where the list ends here.
    fn weighed(&self, state: &State) -> Vec<(u16, f64)> {
        if state.finished || state.items.len() == self.rules.list_len {
            return Vec::new();
        }
        let weigh = |k: u16| {
            let (_, w) = self.weight(state, k);
            (k, f64::from((self.logit)(&state.codes, k)).exp() * w)
        };
        (0..self.rules.codebook_size as u16).map(weigh).filter(|&(_, x)| x > 0.0).collect()
    }

    /// z of every unmasked code.
    pub fn z(&self, state: &State) -> Vec<(u16, f64)> {
        let weighed = self.weighed(state);
        let sum: f64 = weighed.iter().map(|&(_, x)| x).sum();
        weighed.into_iter().map(|(k, x)| (k, x / sum)).collect()
    }

    /// `state` with code `k`, whose probability is `z`.
    pub fn follow(&self, state: &State, k: u16, z: f64) -> State {
        let mut next = state.clone();
        next.ln_zs.push(z.ln());
        if (state.codes.len() + 1).is_multiple_of(self.rules.code_layers) {
            let (behind, _) = self.weight(state, k);
            let rank = |&row: &u32| {
                let id = self.columns.ids[row as usize];
                (bid(self.columns, row), splitmix64(self.rules.tie_seed ^ id))
            };
            let item = behind.into_iter().max_by_key(rank).unwrap();
            let own = next.ln_zs[next.ln_zs.len() - self.rules.code_layers..].iter().sum();
            next.items.push((item, own));
        }
        next.codes.push(k);
        next
    }

    /// Every list there is, in no order.
    pub fn all_lists(&self) -> Vec<State> {
        let (mut open, mut done) = (vec![State::default()], Vec::new());
        while let Some(state) = open.pop() {
            let ways = self.z(&state);
            if ways.is_empty() {
                done.push(state);
            } else {
                open.extend(ways.into_iter().map(|(k, z)| self.follow(&state, k, z)));
            }
        }
        done
    }

    /// What a step's ln z rests on, to the bit; nothing where there was no other way and ln z is exactly 0.
    fn chance(&self, state: &State, k: u16) -> Option<Vec<f64>> {
        let weighed = self.weighed(state);
        let chosen = weighed.iter().find(|&&(code, _)| code == k).map(|&(_, x)| x);
        let all = weighed.iter().map(|&(_, x)| x).chain(chosen);
        (weighed.len() > 1).then(|| all.collect())
    }

    /// Beam search; false where an order rested on less than what rounding can move.
    pub fn beam_search(&self) -> (Vec<State>, bool) {
        let (mut beams, mut sure) = (vec![State::default()], true);
        for _ in 0..self.rules.list_len * self.rules.code_layers {
            // In the order of (beam, code), which a stable sort keeps among equals.
            let mut next: Vec<State> = Vec::new();
            for beam in &beams {
                let ways = self.z(beam);
                if ways.is_empty() {
                    next.push(State { finished: true, ..beam.clone() });
                }
                for (k, z) in ways {
                    let mut after = self.follow(beam, k, z);
                    after.chances.extend(self.chance(beam, k));
                    next.push(after);
                }
            }
            next.sort_by(|a, b| b.score().total_cmp(&a.score()));
            let apart = |a: &State, b: &State| a.score() - b.score() > 1e-9 * (1.0 + a.score().abs());
            let certain = |pair: &[State]| apart(&pair[0], &pair[1]) || pair[0].chances == pair[1].chances;
            // Beyond the last beam kept, those that rounding could move before it.
            let last = &next[next.len().min(self.rules.beam_width) - 1];
            let near = next.iter().take_while(|state| !apart(last, state)).count();
            sure &= next[..near].windows(2).all(certain);
            next.truncate(self.rules.beam_width);
            beams = next;
        }
        (beams, sure)
    }
}
