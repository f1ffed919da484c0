//! Token-level bidding, beam search over codes, and the greedy choice of creatives.

use super::files::{Item, Model};
use super::network::Network;
use super::request::{Policy, Request};

pub fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// ln(b^alpha + beta) of a bid in bid units, `None` where that weight is 0. 0^alpha is 0 for every alpha.
pub fn ln_weight(bid: f64, alpha: f64, beta: f64) -> Option<f64> {
    if bid == 0.0 {
        return (beta > 0.0).then(|| beta.ln());
    }
    let ln_power = alpha * bid.ln();
    if beta == 0.0 {
        return Some(ln_power);
    }
    let (high, low) = if ln_power > beta.ln() { (ln_power, beta.ln()) } else { (beta.ln(), ln_power) };
    Some(high + (low - high).exp().ln_1p())
}

/// ln z of each code from its logit and its ln w; masked codes (`None`) stay masked.
pub fn ln_z(logits: &[f64], ln_weights: &[Option<f64>]) -> Vec<Option<f64>> {
    let sums: Vec<Option<f64>> = logits.iter().zip(ln_weights).map(|(l, w)| w.map(|w| l + w)).collect();
    let top = sums.iter().flatten().cloned().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = top + sums.iter().flatten().map(|s| (s - top).exp()).sum::<f64>().ln();
    sums.iter().map(|s| s.map(|s| s - log_sum)).collect()
}

/// Whether an ad may stand in `slot` after the slots before it (true = ad).
pub fn ad_allowed(policy: &Policy, before: &[bool], slot: usize) -> bool {
    assert_eq!(before.len(), slot);
    let ads = before.iter().filter(|&&is_ad| is_ad).count();
    let gap_kept = match before.iter().rposition(|&is_ad| is_ad) {
        Some(last) => before[last + 1..].len() >= policy.min_gap,
        None => true,
    };
    ads < policy.max_ads && gap_kept && slot >= policy.first_ad_slot
}

/// The bid that counts: an organic item has none.
fn bid_of(item: &Item) -> u64 {
    if item.is_ad { item.bid } else { 0 }
}

/// The one of `rows` with the highest bid; ties by splitmix64(tie_seed xor id).
pub fn highest_bid(items: &[Item], rows: &[usize], tie_seed: u64) -> usize {
    *rows.iter().max_by_key(|&&row| (bid_of(&items[row]), splitmix64(tie_seed ^ items[row].id))).unwrap()
}

/// A beam: the list so far and the item being built.
#[derive(Debug, Clone)]
pub struct Beam {
    /// Sum of ln z over every step taken, those of a dropped item included.
    pub score: f64,
    /// Catalog rows of the chosen items.
    pub rows: Vec<usize>,
    /// ln z of each chosen item: the sum over its codes.
    pub ln_zs: Vec<f64>,
    prefix: Vec<u16>,
    prefix_ln_z: f64,
    finished: bool,
}

/// A continuation of beam `q`; `code` `None` is k = -1, with ln z = 0.
struct Continuation {
    q: usize,
    code: Option<usize>,
    ln_z: f64,
    score: f64,
}

/// A search over one request's items.
pub struct Search<'a> {
    pub model: &'a Model,
    pub request: &'a Request,
    /// A row that may not be used: the item left out of a counterfactual.
    pub without: Option<usize>,
}

impl Search<'_> {
    fn ads(&self) -> Vec<usize> {
        self.request.ads.iter().cloned().filter(|&row| Some(row) != self.without).collect()
    }

    fn organic(&self) -> Vec<usize> {
        self.request.organic.iter().cloned().filter(|&row| Some(row) != self.without).collect()
    }

    /// Rows that may fill the beam's next slot, whatever their codes.
    fn eligible(&self, beam: &Beam) -> Vec<usize> {
        let before: Vec<bool> = beam.rows.iter().map(|&row| self.model.items[row].is_ad).collect();
        let mut rows = Vec::new();
        if ad_allowed(&self.request.policy, &before, beam.rows.len()) {
            rows.extend(self.ads().into_iter().filter(|row| !beam.rows.contains(row)));
        }
        rows.extend(self.organic().into_iter().find(|row| !beam.rows.contains(row)));
        rows
    }

    /// A(q, k).
    fn with_code(&self, beam: &Beam, code: usize) -> Vec<usize> {
        let mut start = beam.prefix.clone();
        start.push(code as u16);
        self.eligible(beam)
            .into_iter()
            .filter(|&row| self.model.items[row].codes.starts_with(&start))
            .collect()
    }

    /// The aggregate bid of a set of rows, in bid units.
    fn aggregate(&self, rows: &[usize]) -> f64 {
        let bids = rows.iter().map(|&row| bid_of(&self.model.items[row]));
        let micros = if self.request.mean {
            bids.sum::<u64>() as f64 / rows.len() as f64
        } else {
            bids.max().unwrap() as f64
        };
        micros / self.model.config.bid_unit_micros as f64
    }

    /// ln w(q, k), `None` where the code is masked.
    fn ln_weight(&self, beam: &Beam, code: usize) -> Option<f64> {
        let own = self.with_code(beam, code);
        if own.is_empty() {
            return None;
        }
        let rows = if self.request.code_scope {
            let layer = beam.prefix.len();
            let all = self.ads().into_iter().chain(self.organic());
            all.filter(|&row| self.model.items[row].codes[layer] as usize == code).collect()
        } else {
            own
        };
        ln_weight(self.aggregate(&rows), self.request.alpha, self.request.beta)
    }

    /// Codes of the beam's items and of the one being built.
    fn codes(&self, beam: &Beam) -> Vec<u16> {
        let mut codes: Vec<u16> =
            beam.rows.iter().flat_map(|&row| self.model.items[row].codes.iter().cloned()).collect();
        codes.extend(&beam.prefix);
        codes
    }

    fn continuations(&self, network: &mut Network, q: usize, beam: &Beam) -> Vec<Continuation> {
        let stay = Continuation { q, code: None, ln_z: 0.0, score: beam.score };
        if beam.finished {
            return vec![stay];
        }
        let width = self.model.config.codebook_size;
        let ln_weights: Vec<Option<f64>> = (0..width).map(|code| self.ln_weight(beam, code)).collect();
        if ln_weights.iter().all(Option::is_none) {
            return vec![stay];
        }
        let ln_zs = ln_z(&network.poi_logits(&self.codes(beam)), &ln_weights);
        let open = ln_zs.iter().enumerate().filter_map(|(code, ln_z)| ln_z.map(|ln_z| (code, ln_z)));
        open.map(|(code, ln_z)| Continuation { q, code: Some(code), ln_z, score: beam.score + ln_z })
            .collect()
    }

    /// ln z of the item in slot `slot` of a list of these rows: -infinity where one of its codes is masked.
    pub fn item_ln_z(&self, network: &mut Network, rows: &[usize], slot: usize) -> f64 {
        let mut beam = Beam {
            score: 0.0,
            rows: rows[..slot].to_vec(),
            ln_zs: Vec::new(),
            prefix: Vec::new(),
            prefix_ln_z: 0.0,
            finished: false,
        };
        let mut sum = 0.0;
        for &code in &self.model.items[rows[slot]].codes {
            let width = self.model.config.codebook_size;
            let ln_weights: Vec<Option<f64>> = (0..width).map(|code| self.ln_weight(&beam, code)).collect();
            let ln_zs = ln_z(&network.poi_logits(&self.codes(&beam)), &ln_weights);
            sum += ln_zs[code as usize].unwrap_or(f64::NEG_INFINITY);
            beam.prefix.push(code);
        }
        sum
    }

    fn extend(&self, beam: &Beam, continuation: &Continuation) -> Beam {
        let mut next = beam.clone();
        next.score = continuation.score;
        let Some(code) = continuation.code else {
            next.finished = true;
            next.prefix.clear();
            next.prefix_ln_z = 0.0;
            return next;
        };
        next.prefix.push(code as u16);
        next.prefix_ln_z += continuation.ln_z;
        if next.prefix.len() == self.model.config.poi_code_layers {
            let rows = self.with_code(beam, code);
            next.rows.push(highest_bid(&self.model.items, &rows, self.request.tie_seed));
            next.ln_zs.push(next.prefix_ln_z);
            next.prefix.clear();
            next.prefix_ln_z = 0.0;
        }
        next
    }

    /// The beams after the last step, best first, and the smallest relative gap between a kept and a dropped
    /// continuation.
    pub fn run(&self, network: &mut Network) -> (Vec<Beam>, f64) {
        let empty = Beam {
            score: 0.0,
            rows: Vec::new(),
            ln_zs: Vec::new(),
            prefix: Vec::new(),
            prefix_ln_z: 0.0,
            finished: false,
        };
        let (mut beams, mut margin) = (vec![empty], f64::INFINITY);
        for _ in 0..self.request.list_len * self.model.config.poi_code_layers {
            let mut all: Vec<Continuation> = Vec::new();
            for (q, beam) in beams.iter().enumerate() {
                all.extend(self.continuations(network, q, beam));
            }
            all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.q.cmp(&b.q)).then(a.code.cmp(&b.code)));
            let kept = self.request.beam_width;
            if all.len() > kept {
                margin = margin.min(relative_gap(all[kept - 1].score, all[kept].score));
            }
            all.truncate(kept);
            beams =
                all.iter().map(|continuation| self.extend(&beams[continuation.q], continuation)).collect();
        }
        (beams, margin)
    }

    /// Index of the creative of the beam's item in slot `i`, and the smallest gap between its logits and the next.
    pub fn creative(&self, network: &mut Network, beam: &Beam, i: usize) -> (usize, f64) {
        let item = &self.model.items[beam.rows[i]];
        if item.creatives.len() == 1 {
            return (0, f64::INFINITY);
        }
        let codes: Vec<u16> =
            beam.rows[..=i].iter().flat_map(|&row| self.model.items[row].codes.iter().cloned()).collect();
        let hidden = network.hidden(&codes);
        let (mut prefix, mut margin): (Vec<u16>, f64) = (Vec::new(), f64::INFINITY);
        for layer in 0..self.model.config.creative_code_layers {
            let logits = network.creative_logits(&hidden, &prefix);
            let extending = item.creatives.iter().filter(|creative| creative.codes.starts_with(&prefix));
            let mut allowed: Vec<u16> = extending.map(|creative| creative.codes[layer]).collect();
            allowed.sort();
            allowed.dedup();
            // A stable sort keeps the lowest code first among equal logits.
            allowed.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            if allowed.len() > 1 {
                margin = margin.min(relative_gap(logits[allowed[0] as usize], logits[allowed[1] as usize]));
            }
            prefix.push(allowed[0]);
        }
        (item.creatives.iter().position(|creative| creative.codes == prefix).unwrap(), margin)
    }
}

/// |a - b| over the larger of 1 and the numbers' own size.
pub fn relative_gap(a: f64, b: f64) -> f64 {
    (a - b).abs() / a.abs().max(b.abs()).max(1.0)
}
