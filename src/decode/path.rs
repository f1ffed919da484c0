//! Token-level bidding along a list that is there already: the weights of its codes, and what z of one of its items is
//! under other bids.
//!
//! z of an item is a product over its own codes. What the bids of the beam's other items were worth does not enter it;
//! that they are used, and so no longer candidates, does.

use super::search::{Beam, CandidateList, Codes, Search};
use crate::error::RequestError;

impl Search<'_> {
    /// ln z of the item in slot `slot` of `list` under the bids of this search, bit for bit what a search with these
    /// bids would give it on the same path; -infinity where one of its codes is masked. The list may come from a search
    /// with other bids. `logits` are those `[W]` of a row at a step.
    ///
    /// # Errors
    /// [`NotFinite`](crate::error::RequestErrorKind::NotFinite) where the logit of a code that may follow is not
    /// finite.
    pub fn item_ln_z<'l>(
        &self,
        list: &CandidateList,
        slot: usize,
        logits: impl Fn(usize, u32) -> &'l [f32],
    ) -> Result<f64, RequestError> {
        let mut beam = Beam::default();
        self.open_slot(&mut beam);
        list.items[..slot].iter().for_each(|&chosen| self.show(&mut beam, chosen));
        let item_codes = self.codes_of(list.items[slot].item);
        let (mut ln_z, mut codes) = (0.0, Codes::default());
        for (layer, &code) in item_codes.iter().enumerate() {
            let step = slot * item_codes.len() + layer;
            let log_sum = self.weigh_codes(&beam, step, logits(step, list.path[step]), &mut codes)?;
            let found = codes.children.iter().zip(&codes.scores).find(|(child, _)| child.code == code);
            let Some((child, &score)) = found.filter(|(_, score)| **score > f64::NEG_INFINITY) else {
                return Ok(f64::NEG_INFINITY);
            };
            ln_z += score - log_sum;
            beam.prefix = child.prefix();
        }
        Ok(ln_z)
    }

    /// ln w of every code at every step of the items of `list`, [steps, W]; -infinity where a code is masked.
    ///
    /// # Errors
    /// None that a search for the same list had not met: weights do not depend on logits.
    pub fn ln_w_along(&self, list: &CandidateList, width: usize) -> Result<Vec<f32>, RequestError> {
        let logits = vec![0.0; width];
        let mut ln_w = Vec::with_capacity(list.path.len() * width);
        let (mut beam, mut codes) = (Beam::default(), Codes::default());
        self.open_slot(&mut beam);
        for &chosen in &list.items {
            for (layer, &code) in self.codes_of(chosen.item).iter().enumerate() {
                self.weigh_codes(&beam, layer, &logits, &mut codes)?;
                let row = ln_w.len();
                ln_w.resize(row + width, f32::NEG_INFINITY);
                for (child, &score) in codes.children.iter().zip(&codes.scores) {
                    ln_w[row + usize::from(child.code)] = score as f32;
                    if child.code == code {
                        beam.prefix = child.prefix();
                    }
                }
            }
            self.show(&mut beam, chosen);
        }
        Ok(ln_w)
    }
}
