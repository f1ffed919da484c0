//! The device memory of a batch of searches.

use std::sync::Arc;

use super::SearchLimits;
use super::layout::{self, BEAM_WORDS, Progress, RULES, SUMS, TALLY_WORDS, TERMS};
use crate::cuda::launch::{Buffer, Stream};
use crate::error::DeviceError;

/// Device memory; `kernels/search.cuh` tells what each holds.
pub(super) struct Tables {
    pub rules: Buffer<u32>,
    pub terms: Buffer<f64>,
    pub seeds: Buffer<u64>,
    pub organic: Buffer<u32>,
    pub organic_ids: Buffer<u64>,
    pub ln_w: Buffer<f64>,
    pub tally: Buffer<u64>,
    pub progress: Buffer<u32>,
    pub beams: Buffer<u32>,
    pub sums: Buffer<f64>,
    pub rows: Buffer<u32>,
    pub chosen: Buffer<u32>,
    pub chosen_ln_z: Buffer<f64>,
    pub ln_z: Buffer<f64>,
    pub best: Buffer<u64>,
    pub tokens: Buffer<u32>,
    pub position: Buffer<u32>,
    pub counts: Buffer<u32>,
    pub items: Buffer<u32>,
    pub list_ads: Buffer<u32>,
    pub ln_zs: Buffer<f64>,
    pub scores: Buffer<f64>,
    pub paths: Buffer<u32>,
}

impl Tables {
    pub(super) fn new(
        stream: &Arc<dyn Stream>,
        limits: &SearchLimits,
        layers: usize,
        codes: usize,
    ) -> Result<Self, DeviceError> {
        let SearchLimits { requests, beams, slots, candidates } = *limits;
        let (rows, positions) = (requests * beams, slots * layers + 1);
        let (organic, by_code) = (requests * candidates, requests * layers * codes);
        Ok(Self {
            rules: Buffer::new(stream, requests * RULES)?,
            terms: Buffer::new(stream, requests * TERMS)?,
            seeds: Buffer::new(stream, requests)?,
            organic: Buffer::new(stream, organic * (1 + layers))?,
            organic_ids: Buffer::new(stream, organic)?,
            ln_w: Buffer::new(stream, by_code)?,
            tally: Buffer::new(stream, by_code * TALLY_WORDS)?,
            progress: Buffer::new(stream, requests * Progress::WORDS)?,
            beams: Buffer::new(stream, rows * BEAM_WORDS)?,
            sums: Buffer::new(stream, rows * SUMS)?,
            rows: Buffer::new(stream, rows * positions)?,
            chosen: Buffer::new(stream, slots * rows * layout::chosen_words(layers))?,
            chosen_ln_z: Buffer::new(stream, slots * rows)?,
            ln_z: Buffer::new(stream, rows * layout::ways(codes))?,
            best: Buffer::new(stream, rows * layout::groups(codes))?,
            tokens: Buffer::new(stream, rows)?,
            position: Buffer::new(stream, 1)?,
            counts: Buffer::new(stream, requests)?,
            items: Buffer::new(stream, rows * slots)?,
            list_ads: Buffer::new(stream, rows * slots)?,
            ln_zs: Buffer::new(stream, rows * slots)?,
            scores: Buffer::new(stream, rows)?,
            paths: Buffer::new(stream, rows * positions)?,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        let words: usize = [
            &self.rules,
            &self.organic,
            &self.progress,
            &self.beams,
            &self.rows,
            &self.chosen,
            &self.tokens,
            &self.position,
            &self.counts,
            &self.items,
            &self.list_ads,
            &self.paths,
        ]
        .map(Buffer::bytes)
        .iter()
        .sum();
        let longs: usize =
            [&self.seeds, &self.organic_ids, &self.tally, &self.best].map(Buffer::bytes).iter().sum();
        let doubles: usize =
            [&self.terms, &self.ln_w, &self.sums, &self.chosen_ln_z, &self.ln_z, &self.ln_zs, &self.scores]
                .map(Buffer::bytes)
                .iter()
                .sum();
        words + longs + doubles
    }
}
