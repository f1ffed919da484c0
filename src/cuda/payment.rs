//! The payment network on the winning list of each request, and on slots whose ads misreport.

use std::sync::Arc;

use super::launch::{Buffer, LaunchShape, Stream};
use super::lists::Lists;
use super::mlp::MlpWeights;
use super::tiling::size;
use crate::error::DeviceError;
use crate::model::config::ModelConfig;
use crate::model::mlp::HIDDEN;
use crate::model::weights::Weights;

crate::kernels! {
    in "payment";

    /// Rates of the winning list's slots.
    fn payment(
        winner: Ptr<u32>,
        features: Ptr<f32>,
        pctr_poi: Ptr<f32>,
        ln_z: Ptr<f64>,
        bids: Ptr<u64>,
        lengths: Ptr<i32>,
        first: Ptr<f32>,
        bias: Ptr<f32>,
        tail: Ptr<f32>,
        unit: f64,
        slots: u32,
        d: u32,
        list_len: u32,
        rates: PtrMut<f32>,
    );

    /// Rates of slots under misreports of their own ads.
    fn payment_misreports(
        rows: Ptr<u32>,
        offsets: Ptr<u32>,
        ln_z: Ptr<f64>,
        features: Ptr<f32>,
        pctr_poi: Ptr<f32>,
        bids: Ptr<u64>,
        lengths: Ptr<i32>,
        first: Ptr<f32>,
        bias: Ptr<f32>,
        tail: Ptr<f32>,
        unit: f64,
        slots: u32,
        d: u32,
        list_len: u32,
        rates: PtrMut<f32>,
    );
}

const THREADS: u32 = 128;
/// Slots that a block computes at once; their inputs lie in shared memory.
const SLOTS_AT_ONCE: usize = 8;

/// The payment network's weights.
#[derive(Debug)]
pub struct PaymentNetwork {
    /// First layer, transposed: [d_r + K, 128].
    first: Buffer<f32>,
    bias: Buffer<f32>,
    tail: Buffer<f32>,
    d_r: usize,
    list_len: usize,
    bid_unit: u64,
}

/// What the network reads of the lists.
#[derive(Debug, Clone, Copy)]
pub struct PaymentInputs<'a> {
    /// The winning list of each request or [`NO_WINNER`](super::reward_choice::NO_WINNER), `[requests]`.
    pub winner: &'a Buffer<u32>,
    /// Slot features, [rows, d_r].
    pub features: &'a Buffer<f32>,
    /// pctr_poi of each slot, `[rows]`.
    pub pctr_poi: &'a Buffer<f32>,
    /// ln z of each slot's item, `[rows]`.
    pub ln_z: &'a Buffer<f64>,
    /// Bid of each filled slot in micros, 0 for organic items, `[rows]`.
    pub bids: &'a Buffer<u64>,
}

/// What the network reads of slots whose ads misreport. Group g is the misreports `offsets[g]` up to `offsets[g + 1]` of
/// the ad in row `rows[g]` of the lists.
#[derive(Debug, Clone, Copy)]
pub struct MisreportInputs<'a> {
    /// `[groups]`
    pub rows: &'a Buffer<u32>,
    /// `[groups + 1]`
    pub offsets: &'a Buffer<u32>,
    /// ln z of the ad under each misreport, `[misreports]`.
    pub ln_z: &'a Buffer<f64>,
    /// Slot features, [rows, d_r].
    pub features: &'a Buffer<f32>,
    /// pctr_poi of each slot, `[rows]`.
    pub pctr_poi: &'a Buffer<f32>,
    /// True bid of each filled slot in micros, 0 for organic items, `[rows]`.
    pub bids: &'a Buffer<u64>,
}

impl PaymentNetwork {
    /// Uploads `payment.mlp.*`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn load(
        stream: &Arc<dyn Stream>,
        config: &ModelConfig,
        weights: &Weights,
    ) -> Result<Self, DeviceError> {
        let (d_r, list_len) = (config.reward_hidden_size, config.list_len);
        let mlp = MlpWeights::read(weights, "payment.mlp");
        let width = d_r + list_len;
        let transposed: Vec<f32> =
            (0..width).flat_map(|column| mlp.first.iter().skip(column).step_by(width).copied()).collect();
        Ok(Self {
            first: Buffer::from_slice(stream, &transposed)?,
            bias: Buffer::from_slice(stream, &mlp.bias)?,
            tail: Buffer::from_slice(stream, &mlp.tail)?,
            d_r,
            list_len,
            bid_unit: config.bid_unit_micros,
        })
    }

    /// Rates [requests, slots] of the winning lists, 0 past their ends. Organic items get a rate too: they pay nothing
    /// by construction.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn rates(
        &self,
        stream: &dyn Stream,
        lists: Lists,
        inputs: PaymentInputs,
        requests: usize,
        rates: &mut Buffer<f32>,
    ) -> Result<(), DeviceError> {
        let rows = lists.rows();
        assert!(inputs.winner.len() >= requests && inputs.features.len() >= rows * self.d_r);
        assert!(inputs.pctr_poi.len() >= rows && inputs.ln_z.len() >= rows && inputs.bids.len() >= rows);
        assert!(rates.len() >= requests * lists.slots && lists.slots <= self.list_len);
        if requests == 0 {
            return Ok(());
        }
        let input_bytes = SLOTS_AT_ONCE * (self.d_r + self.list_len) * size_of::<f32>();
        payment(
            stream,
            LaunchShape::new([size(requests), 1, 1], THREADS).shared(size(input_bytes)),
            inputs.winner.ptr(),
            inputs.features.ptr(),
            inputs.pctr_poi.ptr(),
            inputs.ln_z.ptr(),
            inputs.bids.ptr(),
            lists.lengths.ptr(),
            self.first.ptr(),
            self.bias.ptr(),
            self.tail.ptr(),
            self.bid_unit as f64,
            size(lists.slots),
            size(self.d_r),
            size(self.list_len),
            rates.ptr_mut(),
        )
    }

    /// Rates `[misreports]` of the ads of `groups` groups, each with the bits that [`PaymentNetwork::rates`] would give
    /// its slot if ln z were that of the misreport. What else the network reads there no misreport of the ad changes.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn misreports(
        &self,
        stream: &dyn Stream,
        lists: Lists,
        inputs: MisreportInputs,
        groups: usize,
        rates: &mut Buffer<f32>,
    ) -> Result<(), DeviceError> {
        let rows = lists.rows();
        assert!(inputs.rows.len() >= groups && inputs.offsets.len() > groups);
        assert!(inputs.features.len() >= rows * self.d_r && rates.len() >= inputs.ln_z.len());
        assert!(inputs.pctr_poi.len() >= rows && inputs.bids.len() >= rows && lists.slots <= self.list_len);
        if groups == 0 {
            return Ok(());
        }
        let input_bytes = (self.d_r + self.list_len) * size_of::<f32>();
        payment_misreports(
            stream,
            LaunchShape::new([size(groups), 1, 1], THREADS).shared(size(input_bytes)),
            inputs.rows.ptr(),
            inputs.offsets.ptr(),
            inputs.ln_z.ptr(),
            inputs.features.ptr(),
            inputs.pctr_poi.ptr(),
            inputs.bids.ptr(),
            lists.lengths.ptr(),
            self.first.ptr(),
            self.bias.ptr(),
            self.tail.ptr(),
            self.bid_unit as f64,
            size(lists.slots),
            size(self.d_r),
            size(self.list_len),
            rates.ptr_mut(),
        )
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.first.bytes() + self.bias.bytes() + self.tail.bytes()
    }
}

const _: () = assert!(HIDDEN[0] == THREADS as usize, "a thread computes one output of the first layer");
