//! Every buffer a request needs, sized when the engine is built; and the pool that lends them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Limits;
use crate::cpu::attention::KeyValues;
use crate::model::Model;
use crate::model::blocks::Scratch;
use crate::model::creative::CreativeState;
use crate::model::decoder::{CrossKeys, DecoderRows};
use crate::model::payment::{PaymentNetwork, PaymentState};
use crate::model::reward::{RewardModel, RewardState};

/// The buffers of one request in flight.
pub struct Workspace {
    /// Encoder input and residual stream, [tokens, d].
    pub x: Vec<f32>,
    /// Encoder output S_e, [tokens, d].
    pub states: Vec<f32>,
    /// Mean of S_e over its rows, [d].
    pub mean: Vec<f32>,
    /// Keys and values of an encoder block.
    pub keys: KeyValues,
    /// What the POI decoder reads of the encoder output.
    pub cross: CrossKeys,
    /// POI decoder.
    pub decoder: DecoderRows,
    /// Creative decoder.
    pub creative: CreativeState,
    /// Reward model.
    pub reward: RewardState,
    /// Payment network.
    pub payment: PaymentState,
    /// Of a block.
    pub scratch: Scratch,
}

impl Workspace {
    /// Buffers for requests within `limits`, run by up to `threads` threads.
    pub fn new(model: &Model, limits: &Limits, threads: usize) -> Self {
        let (config, shape) = (&model.config, model.shape);
        let tokens = config.history_tokens(limits.history);
        let rows = limits.beams * limits.slots;
        Self {
            x: vec![0.0; tokens * shape.d],
            states: vec![0.0; tokens * shape.d],
            mean: vec![0.0; shape.d],
            keys: KeyValues::with_capacity(tokens, shape.heads, shape.head_size(), model.precision),
            cross: model.decoder.cross_keys(tokens, model.precision),
            decoder: model.decoder.rows(config, limits.beams, limits.beams, limits.slots),
            creative: model.creative.state(config, tokens, rows, model.precision),
            reward: RewardModel::state(config, rows, threads),
            payment: PaymentNetwork::state(config),
            scratch: Scratch::new(tokens.max(rows), shape, threads),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.x.len() + self.states.len() + self.mean.len()) * 4
            + self.keys.bytes()
            + self.cross.iter().map(KeyValues::bytes).sum::<usize>()
            + self.decoder.bytes()
            + self.creative.bytes()
            + self.reward.bytes()
            + self.payment.bytes()
            + self.scratch.bytes()
    }
}

/// Lends workspaces. A caller takes what it needs in one go, so that no two callers wait for each other.
pub struct WorkspacePool<W> {
    free: Mutex<Vec<W>>,
    returned: Condvar,
}

/// Workspaces on loan; given back when dropped.
pub struct Loan<'p, W> {
    pool: &'p WorkspacePool<W>,
    /// The workspaces, at least one.
    pub workspaces: Vec<W>,
}

impl<W> WorkspacePool<W> {
    /// A pool of `workspaces`, at least one.
    pub fn new(workspaces: Vec<W>) -> Self {
        Self { free: Mutex::new(workspaces), returned: Condvar::new() }
    }

    /// Waits until a workspace is free, and lends up to `most` of those that are.
    pub fn lend(&self, most: usize) -> Loan<'_, W> {
        let mut free = self.lock();
        while free.is_empty() {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        let keep = free.len() - most.clamp(1, free.len());
        Loan { pool: self, workspaces: free.split_off(keep) }
    }

    /// A panic while the lock was held cannot leave the list half changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Vec<W>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Drop for Loan<'_, W> {
    fn drop(&mut self) {
        self.pool.lock().append(&mut self.workspaces);
        self.pool.returned.notify_all();
    }
}
