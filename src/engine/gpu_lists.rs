//! Candidate lists on their way to the reward model on the GPU, and back.

use std::collections::HashMap;

use super::gpu_batch::{Lists, Part};
use super::task::{Context, Generated, Task, is_finite, slot_values};
use crate::catalog::{ItemKind, Snapshot};
use crate::cuda::reward_choice::multipliers;
use crate::cuda::scoring::{ListsInput, Scored};
use crate::decode::search::CandidateList;
use crate::error::RequestError;
use crate::model::reward::Shown;

/// The lists as the reward model reads them; requests that failed have none.
pub(super) fn lists_input(
    parts: &[Part],
    per_request: usize,
    lists: &[Lists],
    shown: &[Result<Vec<Vec<Shown>>, RequestError>],
) -> ListsInput {
    let slots = parts.iter().map(|(task, _)| task.resolved.rules.list_len).max().unwrap_or(1);
    let mut input = ListsInput::new(parts.len(), per_request, slots);
    let mut columns = Columns::default();
    for (request, (task, _)) in parts.iter().enumerate() {
        input.objectives.extend(multipliers(&task.request.objective));
        let (Ok(lists), Ok(shown)) = (&lists[request], &shown[request]) else { continue };
        for (index, (list, shown)) in lists.iter().zip(shown).enumerate() {
            let at = request * per_request + index;
            input.lengths[at] = list.items.len() as i32;
            input.scores[at] = list.score;
            for (slot, (chosen, shown)) in list.items.iter().zip(shown).enumerate() {
                let row = at * slots + slot;
                input.ln_z[row] = chosen.ln_z;
                input.items[row] = columns.item(task.context, shown.item, &mut input);
                input.creatives[row] = columns.creative(task.context.snapshot, shown.creative, &mut input);
            }
        }
    }
    input
}

/// What was found of one request, from what the device says about the batch.
pub(super) fn assemble(
    task: &Task,
    request: usize,
    lists: Vec<CandidateList>,
    shown: Vec<Vec<Shown>>,
    input: &ListsInput,
    scored: &Scored,
) -> Result<Generated, RequestError> {
    let first = request * input.per_request;
    let rewards = scored.rewards[first..first + lists.len()].to_vec();
    is_finite("objective", "the reward of a list", rewards.iter().copied())?;
    let rates = &scored.rates[request * input.slots..];
    let winner = scored.winner[request] as usize - first;
    let rates: Vec<f64> = shown[winner].iter().zip(rates).map(|(_, &rate)| f64::from(rate)).collect();
    is_finite("payment", "the payment network's rate", rates.iter().copied())?;
    let is_ad = |item: u32| task.context.snapshot.kind(item) == ItemKind::Ad;
    let rates =
        shown[winner].iter().zip(rates).map(|(s, rate)| if is_ad(s.item) { rate } else { 0.0 }).collect();
    let probabilities = scored.probabilities.each_ref().map(|p| &p[..]);
    let values = shown
        .iter()
        .enumerate()
        .map(|(list, shown)| {
            let row = (first + list) * input.slots;
            slot_values(task.context, shown, probabilities, row..row + shown.len())
        })
        .collect();
    Ok(Generated { lists, shown, values, rewards, winner, rates, logits: None, tensors: None })
}

/// Which items and creatives of the snapshot are uploaded, and where they stand.
#[derive(Default)]
pub(super) struct Columns {
    items: HashMap<u32, u32>,
    creatives: HashMap<u32, u32>,
}

impl Columns {
    /// The row of an item in the columns of `input`, where it is put if it is new.
    pub fn item(&mut self, context: Context, item: u32, input: &mut ListsInput) -> u32 {
        let (snapshot, d_item) = (context.snapshot, context.config.item_embedding_size);
        let next = self.items.len() as u32;
        *self.items.entry(item).or_insert_with(|| {
            let start = input.embeddings.len();
            input.embeddings.resize(start + d_item, 0.0);
            snapshot.embedding(item, &mut input.embeddings[start..]);
            input.item_codes.extend_from_slice(snapshot.codes(item));
            input.bids.push(snapshot.bid(item).0);
            next
        })
    }

    /// The row of a creative in the columns of `input`, where it is put if it is new.
    pub fn creative(&mut self, snapshot: &Snapshot, creative: u32, input: &mut ListsInput) -> u32 {
        let next = self.creatives.len() as u32;
        *self.creatives.entry(creative).or_insert_with(|| {
            input.creative_codes.extend_from_slice(snapshot.creative_codes(creative));
            next
        })
    }
}
