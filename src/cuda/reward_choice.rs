//! Rewards of lists, and the list of each request that wins.

use super::launch::{Buffer, LaunchShape, Stream};
use super::lists::Lists;
use super::tiling::size;
use crate::error::DeviceError;
use crate::request::Objective;

crate::kernels! {
    in "reward_choice";

    /// Rewards of all lists and the winner of each request.
    fn reward_choice(
        probabilities: Ptr<f32>,
        bids: Ptr<u64>,
        lengths: Ptr<i32>,
        scores: Ptr<f64>,
        objective: Ptr<f64>,
        offsets: Ptr<u32>,
        unit: f64,
        slots: u32,
        rows: u32,
        rewards: PtrMut<f64>,
        winner: PtrMut<u32>,
    );
}

/// The winner of a request that has no list.
pub const NO_WINNER: u32 = u32::MAX;

const THREADS: u32 = 256;

/// The numbers of an objective as the kernel reads them; `objectives` has these of one request after another's.
pub fn multipliers(objective: &Objective) -> [f64; 4] {
    [objective.revenue, objective.ctr_poi, objective.ctr_creative, objective.cvr]
}

/// What the lists of several requests are worth.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// pctr_poi, pctr_creative, pcvr, [3, rows].
    pub probabilities: &'a Buffer<f32>,
    /// Bid of each filled slot in micros, 0 for organic items, `[rows]`.
    pub bids: &'a Buffer<u64>,
    /// Micros in a bid unit.
    pub bid_unit: u64,
    /// Sum of ln z of each list, `[lists]`.
    pub scores: &'a Buffer<f64>,
    /// [`multipliers`] of each request, [requests, 4].
    pub objectives: &'a Buffer<f64>,
    /// Lists of each request, `[requests + 1]`.
    pub offsets: &'a Buffer<u32>,
}

/// Rewards and winners.
#[derive(Debug)]
pub struct Choice<'a> {
    /// Reward of each list, `[lists]`.
    pub rewards: &'a mut Buffer<f64>,
    /// Index of the winning list among all lists, or [`NO_WINNER`], `[requests]`.
    pub winner: &'a mut Buffer<u32>,
}

/// Adds up the reward of every list and chooses the winner of each of `requests` requests.
///
/// # Errors
/// [`DeviceError::Failed`].
pub fn run(
    stream: &dyn Stream,
    lists: Lists,
    values: Values,
    requests: usize,
    choice: &mut Choice,
) -> Result<(), DeviceError> {
    assert!(values.probabilities.len() >= 3 * lists.rows() && values.bids.len() >= lists.rows());
    assert!(values.scores.len() >= lists.count && choice.rewards.len() >= lists.count);
    assert!(values.objectives.len() >= 4 * requests && values.offsets.len() > requests);
    assert!(choice.winner.len() >= requests);
    if requests == 0 {
        return Ok(());
    }
    reward_choice(
        stream,
        LaunchShape::new([size(requests), 1, 1], THREADS),
        values.probabilities.ptr(),
        values.bids.ptr(),
        lists.lengths.ptr(),
        values.scores.ptr(),
        values.objectives.ptr(),
        values.offsets.ptr(),
        values.bid_unit as f64,
        size(lists.slots),
        size(lists.rows()),
        choice.rewards.ptr_mut(),
        choice.winner.ptr_mut(),
    )
}
