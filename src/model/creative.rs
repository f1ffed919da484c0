//! The creative decoder, a multi-token-prediction module (Eq. 16): which of an item's creatives to show.
//!
//! Items are independent of one another here, so all slots of all beams run at once.

use super::blocks::{DecoderBlock, Packer, Scratch, SelfCache, Shape, Step};
use super::config::{BOC, ModelConfig};
use super::encoder::Embeddings;
use crate::catalog::Snapshot;
use crate::cpu::attention::KeyValues;
use crate::cpu::linear::{Epilogue, Linear, linear};
use crate::cpu::norm::rms_norm;
use crate::cpu::rotary::Rotary;
use crate::cpu::{Exec, Precision};
use crate::error::{RequestError, RequestErrorKind};

/// The creative decoder's weights.
pub struct CreativeDecoder {
    shape: Shape,
    hidden_norm: Vec<f32>,
    embed_norm: Vec<f32>,
    proj: Linear,
    block: DecoderBlock,
    norm: Vec<f32>,
    /// One head per code layer, [W, d].
    heads: Vec<Linear>,
}

/// Buffers of a pass over many items.
pub struct CreativeState {
    cross: KeyValues,
    cache: SelfCache,
    /// RMSNorm of the POI decoder's hidden state, [rows, d].
    hidden: Vec<f32>,
    /// [rows, 2d]
    input: Vec<f32>,
    x: Vec<f32>,
    logits: Vec<f32>,
    ancestors: Vec<u32>,
}

/// An item whose creative is to be chosen, and what is left of its creatives.
#[derive(Debug, Clone)]
struct Job {
    /// Index of the result.
    index: usize,
    /// Row of `hidden`.
    hidden: usize,
    /// The code chosen last.
    last_code: Option<u16>,
    /// Creatives whose codes start with the codes chosen so far, in catalog order.
    left: Vec<u32>,
    /// Row that ran this item at each position so far.
    path: Vec<u32>,
}

impl CreativeDecoder {
    /// Reads `creative.*` and `creative_head.weight`.
    pub fn load(packer: &Packer, config: &ModelConfig, shape: Shape) -> Self {
        let heads = packer.heads("creative_head.weight", config.codebook_size, shape.d);
        Self {
            shape,
            hidden_norm: packer.vector("creative.hidden_norm.weight"),
            embed_norm: packer.vector("creative.embed_norm.weight"),
            proj: packer.linear(&["creative.proj.weight".into()], 2 * shape.d),
            block: DecoderBlock::load(packer, "creative.block", shape),
            norm: packer.vector("creative.norm.weight"),
            heads,
        }
    }

    /// Room for `rows` items and `tokens` encoder tokens.
    pub fn state(
        &self,
        config: &ModelConfig,
        tokens: usize,
        rows: usize,
        precision: Precision,
    ) -> CreativeState {
        let Shape { d, heads, .. } = self.shape;
        CreativeState {
            cross: KeyValues::with_capacity(tokens, heads, d / heads, precision),
            cache: SelfCache::new(config.creative_code_layers, rows, d),
            hidden: vec![0.0; rows * d],
            input: vec![0.0; rows * 2 * d],
            x: vec![0.0; rows * d],
            logits: vec![0.0; rows * config.codebook_size],
            ancestors: vec![0; rows * config.creative_code_layers],
        }
    }

    /// Packs the keys and values of the encoder output `states` [n, d].
    pub fn begin(&self, exec: Exec, states: &[f32], projected: &mut [f32], state: &mut CreativeState) {
        self.block.fill_cross(exec, self.shape, states, projected, &mut state.cross);
    }

    /// Chooses a creative (row of the snapshot) for each of `items`, given the POI decoder's hidden state after
    /// the item's last code. No more items than `state` has rows for; every item has a creative.
    ///
    /// # Errors
    /// [`RequestErrorKind::NotFinite`] where the logit of a code that may follow is not finite.
    #[allow(clippy::too_many_arguments)]
    pub fn choose<'h>(
        &self,
        exec: Exec,
        config: &ModelConfig,
        embeddings: &Embeddings,
        rotary: &Rotary,
        snapshot: &Snapshot,
        items: impl Iterator<Item = (u32, &'h [f32])>,
        state: &mut CreativeState,
        scratch: &mut Scratch,
    ) -> Result<Vec<u32>, RequestError> {
        let d = self.shape.d;
        let mut chosen = Vec::new();
        let mut jobs: Vec<Job> = Vec::new();
        for (index, (item, hidden)) in items.enumerate() {
            let creatives = snapshot.creatives(item);
            chosen.push(creatives.start);
            let left: Vec<u32> = creatives.collect();
            if !decided(snapshot, &left) {
                let row = jobs.len();
                state.hidden[row * d..(row + 1) * d].copy_from_slice(hidden);
                jobs.push(Job::new(index, row, left));
            }
        }
        self.norm_hidden(exec, jobs.len(), state, scratch);
        for layer in 0..config.creative_code_layers {
            self.run_layer(exec, config, embeddings, rotary, layer, &mut jobs, state, scratch);
            for (row, job) in jobs.iter_mut().enumerate() {
                let logits = &state.logits[row * config.codebook_size..][..config.codebook_size];
                job.take_best(snapshot, layer, logits)?;
                chosen[job.index] = job.left[0];
            }
            jobs.retain(|job| !decided(snapshot, &job.left));
        }
        Ok(chosen)
    }

    /// The logits [items, C_c, W] along a creative (row of the snapshot) of each of `items`, given the POI decoder's
    /// hidden state after the item's last code. No more items than `state` has rows for.
    #[allow(clippy::too_many_arguments)]
    pub fn logits_along<'h>(
        &self,
        exec: Exec,
        config: &ModelConfig,
        embeddings: &Embeddings,
        rotary: &Rotary,
        snapshot: &Snapshot,
        items: impl Iterator<Item = (u32, &'h [f32])>,
        state: &mut CreativeState,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let (d, w, layers) = (self.shape.d, config.codebook_size, config.creative_code_layers);
        let mut jobs = Vec::new();
        for (row, (creative, hidden)) in items.enumerate() {
            state.hidden[row * d..(row + 1) * d].copy_from_slice(hidden);
            jobs.push(Job::new(row, row, vec![creative]));
        }
        self.norm_hidden(exec, jobs.len(), state, scratch);
        let mut along = vec![0.0; jobs.len() * layers * w];
        for layer in 0..layers {
            self.run_layer(exec, config, embeddings, rotary, layer, &mut jobs, state, scratch);
            for (row, job) in jobs.iter_mut().enumerate() {
                along[(row * layers + layer) * w..][..w].copy_from_slice(&state.logits[row * w..][..w]);
                job.last_code = Some(snapshot.creative_codes(job.left[0])[layer]);
            }
        }
        along
    }

    /// RMSNorm of the first `rows` hidden states, in place.
    fn norm_hidden(&self, exec: Exec, rows: usize, state: &mut CreativeState, scratch: &mut Scratch) {
        let len = rows * self.shape.d;
        let normed = &mut scratch.normed[..len];
        rms_norm(exec, &state.hidden[..len], rows, &self.hidden_norm, self.shape.eps, normed);
        state.hidden[..len].copy_from_slice(normed);
    }

    /// Runs position `layer` of all jobs, leaving their logits in `state`.
    #[allow(clippy::too_many_arguments)]
    fn run_layer(
        &self,
        exec: Exec,
        config: &ModelConfig,
        embeddings: &Embeddings,
        rotary: &Rotary,
        layer: usize,
        jobs: &mut [Job],
        state: &mut CreativeState,
        scratch: &mut Scratch,
    ) {
        let (d, m) = (self.shape.d, jobs.len());
        let layers = config.creative_code_layers;
        for (row, job) in jobs.iter_mut().enumerate() {
            let token = job.last_code.map_or(BOC, |code| config.creative_token(layer - 1, code));
            let input = &mut state.input[row * 2 * d..(row + 1) * 2 * d];
            input[..d].copy_from_slice(&state.hidden[job.hidden * d..(job.hidden + 1) * d]);
            rms_norm(exec, embeddings.token(token), 1, &self.embed_norm, self.shape.eps, &mut input[d..]);
            job.path.push(row as u32);
            state.ancestors[row * layers..][..=layer].copy_from_slice(&job.path);
        }
        let x = &mut state.x[..m * d];
        linear(exec, &state.input[..m * 2 * d], m, &self.proj, Epilogue::Store, x);
        let step = Step {
            position: layer,
            rotary,
            cross: &state.cross,
            cache: &mut state.cache,
            first: 0,
            ancestors: &state.ancestors,
            ancestor_stride: layers,
        };
        self.block.project(exec, self.shape, x, m, scratch);
        self.block.run(exec, self.shape, x, m, step, scratch);
        let normed = &mut scratch.normed[..m * d];
        rms_norm(exec, x, m, &self.norm, self.shape.eps, normed);
        let logits = &mut state.logits[..m * config.codebook_size];
        linear(exec, normed, m, &self.heads[layer], Epilogue::Store, logits);
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let norms = (self.hidden_norm.len() + self.embed_norm.len() + self.norm.len()) * 4;
        norms + self.proj.bytes() + self.block.bytes() + self.heads.iter().map(Linear::bytes).sum::<usize>()
    }
}

impl Job {
    fn new(index: usize, hidden: usize, left: Vec<u32>) -> Self {
        Self { index, hidden, last_code: None, left, path: Vec::new() }
    }

    /// Keeps the creatives with the best code in `layer`: the arg-max of the logits, ties to the lowest code.
    fn take_best(&mut self, snapshot: &Snapshot, layer: usize, logits: &[f32]) -> Result<(), RequestError> {
        let code = |creative: u32| snapshot.creative_codes(creative)[layer];
        let mut best: Option<(f32, u16)> = None;
        for k in self.left.iter().map(|&creative| code(creative)) {
            let logit = logits[usize::from(k)];
            if !logit.is_finite() {
                return Err(RequestError::new(
                    RequestErrorKind::NotFinite,
                    "history",
                    format!("the logit of creative code {k} in layer {layer} is {logit}"),
                ));
            }
            if best.is_none_or(|(l, b)| logit > l || (logit == l && k < b)) {
                best = Some((logit, k));
            }
        }
        self.last_code = best.map(|(_, k)| k);
        let last_code = self.last_code;
        self.left.retain(|&creative| Some(code(creative)) == last_code);
        Ok(())
    }
}

/// Whether all of the creatives share their codes, so that there is nothing left to compute.
fn decided(snapshot: &Snapshot, creatives: &[u32]) -> bool {
    creatives.windows(2).all(|pair| snapshot.creative_codes(pair[0]) == snapshot.creative_codes(pair[1]))
}

impl CreativeState {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let floats = self.hidden.len() + self.input.len() + self.x.len() + self.logits.len();
        (floats + self.ancestors.len()) * 4 + self.cross.bytes() + self.cache.bytes()
    }
}
